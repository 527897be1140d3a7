"""Who is let in: keys, names, origins; what is counted and logged, and that no text is among it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from twinrank import Collection
from twinrank.errors import InputError
from twinrank.serve.keys import Keys
from twinrank.serve.run import require_keys
from twinrank.serve.settings import Settings

Opening = Callable[..., Collection]
Serving = Callable[..., TestClient]
READER, WRITER = "a-key-that-may-read", "a-key-that-may-write"
KEYS = Keys.of(read=[READER], write=[WRITER])
OPEN = {"/health", "/ready"}
"""What anybody may ask; and beside it, outside of the description, the page's files and the description itself."""


@pytest.fixture(scope="module")
def locked(served: Serving) -> TestClient:
    return served(keys=KEYS, admin=True)


def operations(client: TestClient) -> list[tuple[str, str, dict[str, Any]]]:
    paths = client.get("/openapi.json").json()["paths"]
    return [(method, path, operation) for path, methods in paths.items() for method, operation in methods.items()]


# -- keys ----------------------------------------------------------------------------------------------------------------


def test_no_route_but_the_open_ones_answers_without_a_key(locked: TestClient) -> None:
    asked = operations(locked)
    assert len(asked) >= 15
    for method, path, operation in asked:
        answer = locked.request(method, path.replace("{id}", "zinc"), json={})
        if path in OPEN:
            assert answer.status_code == 200
            assert "security" not in operation
        else:
            assert answer.status_code == 401, f"{method} {path}"
            assert answer.json()["error"]["type"] == "authentication_error"
            assert answer.headers["www-authenticate"] == "Bearer"
            assert operation["security"] == [{"bearer": []}, {"header": []}]


def test_a_key_is_asked_for_before_the_body_is_read(locked: TestClient) -> None:
    assert locked.post("/search", content=b"{ no JSON").status_code == 401
    assert locked.post("/search", content=b"{}", headers={"Authorization": "Bearer something else"}).status_code == 401


@pytest.mark.parametrize(
    "headers", [{"Authorization": f"Bearer {READER}"}, {"authorization": f"bearer {READER}"}, {"X-API-Key": READER}]
)
def test_a_key_that_may_read_reads_and_changes_nothing(locked: TestClient, headers: dict[str, str]) -> None:
    assert locked.post("/search", json={"query": "zinc"}, headers=headers).status_code == 200
    for method, path in [
        ("POST", "/documents"),
        ("DELETE", "/documents/zinc"),
        ("POST", "/documents/delete"),
        ("POST", "/admin/check"),
    ]:
        answer = locked.request(method, path, json={"documents": [], "ids": []}, headers=headers)
        assert answer.status_code == 403, path
        assert answer.json()["error"]["type"] == "permission_error"
    assert locked.get("/documents/zinc", headers=headers).status_code == 200


def test_a_method_that_an_address_does_not_take_is_told_which_it_takes(fresh: TestClient) -> None:
    answer = fresh.put("/documents/zinc", json={})
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "DELETE, GET"


def test_a_key_that_may_write_may_do_both(locked: TestClient) -> None:
    headers = {"X-API-Key": WRITER}
    assert locked.post("/search", json={"query": "zinc"}, headers=headers).status_code == 200
    assert locked.post("/documents", json={"documents": []}, headers=headers).status_code == 200


def test_without_keys_the_description_asks_for_none(client: TestClient) -> None:
    assert not any("security" in operation for _, _, operation in operations(client))


def test_beyond_loopback_a_key_is_required() -> None:
    for host in ("127.0.0.1", "::1", "localhost"):
        require_keys(Settings(host=host))
    for host in ("0.0.0.0", "::", "192.168.0.7", "example.org"):
        with pytest.raises(InputError, match="there is no key"):
            require_keys(Settings(host=host))
        require_keys(Settings(host=host, keys=KEYS))


# -- names and origins ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "127.0.0.1:8080", "[::1]:8080", "LOCALHOST"])
def test_on_loopback_its_own_names_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/status", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "localhost.evil.example", "", "127.0.0.1.nip.io", "a:b:c"]
)
def test_a_page_whose_name_points_here_is_turned_away(client: TestClient, host: str) -> None:
    for path in ("/status", "/health", "/"):
        assert client.get(path, headers={"Host": host}).status_code == 421


def test_a_name_may_be_allowed(served: Serving, opened: Opening) -> None:
    client = served(opened(words=True), hosts=("search.example.org",))
    assert client.get("/status", headers={"Host": "search.example.org"}).status_code == 200
    assert client.get("/status", headers={"Host": "other.example.org"}).status_code == 421


def test_beyond_loopback_any_name_is_answered_to_who_has_a_key(served: Serving, opened: Opening) -> None:
    client = served(opened(words=True), host="0.0.0.0", keys=KEYS)
    assert client.get("/status", headers={"Host": "search.example.org", "X-API-Key": READER}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://localhost:8080"}, 200),
        ({"Origin": "http://localhost:8080", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://localhost:3000"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Origin": ""}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ({"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}, 200),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200),
    ],
)
def test_a_page_of_another_origin_may_not_ask(client: TestClient, headers: dict[str, str], status: int) -> None:
    assert client.get("/status", headers=headers).status_code == status


def test_a_body_whose_length_is_told_twice_is_refused_and_its_connection_closed(client: TestClient) -> None:
    headers = {"Content-Length": "2", "Transfer-Encoding": "chunked"}
    answer = client.post("/search", content=b"{}", headers=headers)
    assert (answer.status_code, answer.headers["connection"]) == (400, "close")


def test_a_head_beyond_the_limit_is_refused_though_it_comes_in_one_piece(client: TestClient) -> None:
    assert client.get("/health", headers={"X-Much": "a" * 40_000}).status_code == 400
    assert client.get("/search", params={"q": "a" * 40_000}).status_code == 400
    assert client.get("/health", headers={"X-Much": "a" * 20_000}).status_code == 200


def test_a_page_of_another_origin_may_not_send_what_needs_no_permission(client: TestClient) -> None:
    headers = {"Origin": "https://evil.example", "Content-Type": "text/plain"}
    answer = client.post("/documents", content=b'{"documents": [{"id": "new", "text": "A."}]}', headers=headers)
    assert answer.status_code == 403
    assert client.get("/documents/new").status_code == 404


def test_other_origins_are_allowed_by_name_alone(client: TestClient, served: Serving, opened: Opening) -> None:
    asked = {"Origin": "https://friend.example", "Access-Control-Request-Method": "POST"}
    assert client.options("/search", headers=asked).status_code == 403
    friendly = served(opened(words=True), origins=("https://friend.example",))
    allowed = friendly.options("/search", headers=asked)
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "https://friend.example"
    answer = friendly.post("/search", json={"query": "zinc"}, headers={"Origin": "https://friend.example"})
    assert answer.headers["access-control-allow-origin"] == "https://friend.example"
    assert friendly.get("/status", headers={"Origin": "https://evil.example"}).status_code == 403


# -- what is told --------------------------------------------------------------------------------------------------------


def test_the_log_tells_routes_and_no_text(fresh: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secrets = ("sesame", "opensesame-id")
    fresh.get("/search", params={"q": "sesame"})
    fresh.post("/search", json={"query": "sesame", "k": "sesame"})
    fresh.post("/documents", json={"documents": [{"id": "opensesame-id", "text": "sesame"}]})
    fresh.get("/documents/opensesame-id")
    fresh.get("/sesame")
    own = [record for record in caplog.records if record.name.startswith(("twinrank", "uvicorn", "fastapi", "starlette"))]
    lines = [record.getMessage() for record in own]
    assert not any(secret in line for secret in secrets for line in lines)
    assert [line.rsplit(" ", 2)[0] for line in lines if " ms" in line] == [
        "GET /search 200",
        "POST /search 422",
        "POST /documents 200",
        "GET /documents/{id:path} 200",
        "GET other 404",
    ]


def test_what_goes_wrong_inside_is_told_without_what_was_asked(
    opened: Opening, served: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    collection = opened(words=True)
    client = served(collection)

    def fail(query: str, *_: object, **__: object) -> None:
        raise RuntimeError(f"cannot find {query}")

    collection.search = fail  # type: ignore[assignment, method-assign]
    answer = client.post("/search", json={"query": "sesame"})
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "server_error"
    assert "sesame" not in answer.text + caplog.text
    assert "RuntimeError in /search" in caplog.text
    assert "in fail" in caplog.text


def test_prometheus_is_told_counts_times_and_queues(fresh: TestClient) -> None:
    for _ in range(3):
        fresh.post("/search", json={"query": "zinc"})
    fresh.post("/search", json={})
    fresh.request("BREW", "/search")
    page = fresh.get("/metrics").text
    assert 'twinrank_requests_total{method="POST",route="/search",status="200"} 3.0' in page
    assert 'twinrank_requests_total{method="POST",route="/search",status="422"} 1.0' in page
    assert 'method="other"' in page
    assert 'twinrank_request_seconds_count{route="/search"}' in page
    assert 'twinrank_waiting{lane="search"} 0.0' in page
    assert "twinrank_documents 4.0" in page
    assert 'of="pairs"' in page


def test_health_and_readiness_are_told(opened: Opening, served: Serving) -> None:
    collection = opened(words=True)
    client = served(collection)
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/ready").json() == {"status": "ready"}
    collection.store.close()
    refused = client.get("/ready")
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "5"
    assert client.get("/health").status_code == 200


def test_answers_are_not_kept_and_not_guessed_at(client: TestClient) -> None:
    headers = client.get("/status").headers
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
