"""A body is read within its limit and parsed strictly; whatever is sent is answered, and never with an error of the server."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from twinrank import Collection
from twinrank.serve.body import parse
from twinrank.serve.refusals import Refusal
from twinrank.serve.settings import Limits

Opening = Callable[..., Collection]
Serving = Callable[..., TestClient]
PATHS = ("/search", "/explain", "/documents", "/documents/delete", "/v1/embeddings", "/v1/rerank", "/v2/rerank", "/rerank")
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def small(served: Serving) -> TestClient:
    """A server with small limits."""
    return served(limits=Limits(question=10_000, body=20_000))


@pytest.mark.parametrize("path", PATHS)
def test_a_body_beyond_the_limit_is_refused_whether_its_length_was_told_or_not(small: TestClient, path: str) -> None:
    for size in (25_000, 200_000):
        body = json.dumps({"query": "x" * size}).encode()
        for content in (body, iter([body[:9000], body[9000:]])):
            answer = small.post(path, content=content, headers=JSON)
            assert answer.status_code == 413, answer.text
            assert answer.json()["error"]["type"] == "invalid_request_error"
            assert answer.headers["connection"] == "close"


def test_more_bodies_than_memory_is_kept_for_are_refused(served: Serving, opened: Opening) -> None:
    client = served(opened(words=True), limits=Limits(bodies=100_000))

    def add(characters: int) -> int:
        return client.post("/documents", json={"documents": [{"id": "long", "text": "zinc " * (characters // 5)}]}).status_code

    assert add(200_000) == 503
    for _ in range(3):
        assert add(150_000) == 200  # what was held is given back
    client.app.state.twinrank.bodies.held = 100_000  # type: ignore[attr-defined]
    assert add(100_000) == 503
    assert add(50_000) == 200  # a small one always finds room


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "GZIP", "gzip, gzip"])
def test_a_compressed_body_is_not_taken(small: TestClient, encoding: str) -> None:
    bomb = gzip.compress(b" " * 10_000_000)
    answer = small.post("/search", content=bomb, headers={**JSON, "Content-Encoding": encoding})
    assert answer.status_code == 415
    assert "uncompressed" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nothing",
        b'{"query": NaN}',
        b'{"query": "a", "deadline": Infinity}',
        b'{"query": "a", "deadline": -Infinity}',
        b'{"query": "a", "deadline": 1e999}',
        b'{"query": "a", "k": ' + b"9" * 5000 + b"}",
        b'{"query": "\\ud800"}',
        b'{"query": "\xff\xfe"}',
        b"\xff\xfe\x00",
        b"[" * 9000,
        b"[" * 4000 + b"]" * 4000,
        b'{"a":' * 1500 + b"1" + b"}" * 1500,
        b'"' + b"x" * 5000 + b'"',
        b"null",
        b"[]",
        b'{"query": {"query": "a"}}',
    ],
    ids=lambda body: body[:24].decode("latin-1"),
)
@pytest.mark.parametrize("path", PATHS)
def test_what_is_no_request_is_refused(small: TestClient, path: str, body: bytes) -> None:
    answer = small.post(path, content=body, headers=JSON)
    assert answer.status_code in (400, 422), answer.text
    assert answer.json()["error"]["message"]


def test_a_list_of_a_million_is_refused(client: TestClient) -> None:
    for path, name, item in [
        ("/documents/delete", "ids", "a"),
        ("/documents/delete", "ids", 1),
        ("/v1/embeddings", "input", "a"),
        ("/v1/embeddings", "input", None),
        ("/rerank", "texts", "a"),
        ("/v1/rerank", "documents", 5),
        ("/documents", "documents", {}),
        ("/documents", "documents", 1),
    ]:
        answer = client.post(path, json={"query": "a", name: [item] * 10**6})
        assert answer.status_code in (400, 413, 422), f"{path} {answer.text}"
        assert len(answer.content) < 1000


def test_what_is_small_in_json_and_large_in_memory_counts_as_large(served: Serving, opened: Opening) -> None:
    client = served(opened(words=True))
    many = b'{"documents": [' + b"[]," * 2_000_000 + b"[]]}"
    assert client.post("/documents", content=many, headers=JSON).status_code == 413
    tight = served(opened(words=True), limits=Limits(bodies=100_000))
    assert tight.post("/search", content=b'{"query": [' + b"[]," * 2000 + b"[]]}", headers=JSON).status_code == 503
    assert tight.post("/search", content=b'{"query": [' + b"[]," * 100 + b"[]]}", headers=JSON).status_code == 422


def test_a_half_of_a_surrogate_pair_is_refused_and_a_whole_one_taken(client: TestClient) -> None:
    assert client.post("/search", content=b'{"query": "\\ud83d\\ude00 cold"}', headers=JSON).status_code == 200
    assert client.post("/search", content=b'{"query": "\\ude00 cold"}', headers=JSON).status_code == 400
    assert parse(b'{"a": "\\\\ud800"}') == {"a": "\\ud800"}  # an escaped backslash
    with pytest.raises(Refusal):
        parse(b'{"\\ud800": 1}')


def test_json_is_taken_as_utf_8_alone(client: TestClient) -> None:
    body = '{"query": "zinc"}'
    taken = {code: client.post("/search", content=body.encode(code), headers=JSON) for code in ("utf-8", "utf-8-sig", "utf-16")}
    assert [answer.status_code for answer in taken.values()] == [200, 200, 400]
    assert "not UTF-8" in taken["utf-16"].text


def test_a_body_that_is_not_called_json_is_refused_with_what_to_send(client: TestClient) -> None:
    answer = client.post("/search", content=b"query=zinc", headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert answer.status_code == 422
    assert "Content-Type: application/json" in answer.json()["error"]["message"]


def test_a_body_of_another_type_is_not_read_as_json(client: TestClient) -> None:
    for headers in ({"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"}):
        assert client.post("/search", content=b'{"query": "a"}', headers=headers).status_code == 422


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=12
)
NAMES = st.sampled_from(
    ["query", "k", "where", "deadline", "documents", "ids", "document", "input", "texts", "top_n", "model", "encoding_format"]
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(path=st.sampled_from(PATHS), body=st.dictionaries(NAMES, VALUES, max_size=5) | VALUES)
def test_whatever_json_comes_is_answered_without_an_error_of_the_server(client: TestClient, path: str, body: Any) -> None:
    answer = client.post(path, content=json.dumps(body).encode("utf-8", "surrogatepass"), headers=JSON)
    assert answer.status_code < 500, answer.text
    answer.json()


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(path=st.sampled_from(PATHS), body=st.binary(max_size=200), kind=st.sampled_from([*JSON.values(), "text/plain", ""]))
def test_whatever_bytes_come_are_answered_without_an_error_of_the_server(
    client: TestClient, path: str, body: bytes, kind: str
) -> None:
    answer = client.post(path, content=body, headers={"Content-Type": kind} if kind else {})
    assert answer.status_code < 500, answer.text
