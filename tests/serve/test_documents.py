"""Documents over HTTP: what was added is found and read as it was given, what was deleted is gone, all or nothing."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient

from twinrank import Collection

Opening = Callable[..., Collection]
Serving = Callable[..., TestClient]


def test_a_document_that_was_added_is_found_and_read_as_it_was_given(fresh: TestClient) -> None:
    given = {"id": "ginger", "title": "Ginger", "text": "Ginger calms a stomach.", "year": 2020, "tags": ["root", "tea"]}
    report = fresh.post("/documents", json={"documents": [given]})
    assert report.status_code == 200
    assert report.json()["added"] == 1
    found = fresh.post("/search", json={"query": "ginger stomach", "where": "year = 2020"}).json()["hits"]
    assert [(hit["id"], hit["text"]) for hit in found] == [("ginger", "Ginger calms a stomach.")]
    assert fresh.get("/documents/ginger").json() == {
        "id": "ginger",
        "text": "Ginger calms a stomach.",
        "title": "Ginger",
        "fields": {"year": 2020, "tags": ["root", "tea"]},
        "source": "",
    }


def test_adding_the_same_again_changes_nothing(fresh: TestClient) -> None:
    given = {"documents": [{"id": "ginger", "text": "Ginger calms a stomach."}]}
    fresh.post("/documents", json=given)
    assert fresh.post("/documents", json=given).json()["unchanged"] == 1


@pytest.mark.parametrize("identity", ["a/rest", "zinc"])
def test_an_id_may_hold_a_slash(fresh: TestClient, identity: str) -> None:
    assert fresh.get(f"/documents/{identity}").json()["id"] == identity
    assert fresh.get(f"/documents/{quote(identity, safe='')}").json()["id"] == identity
    assert fresh.delete(f"/documents/{identity}").json() == {"deleted": [identity], "missing": []}
    assert fresh.get(f"/documents/{identity}").status_code == 404
    assert fresh.delete(f"/documents/{identity}").status_code == 404


def test_a_document_that_no_path_can_name_is_given_by_a_query(fresh: TestClient) -> None:
    fresh.post("/documents", json={"documents": [{"id": "..", "text": "Ginger calms a stomach."}]})
    assert fresh.get("/documents", params={"id": ".."}).json()["text"] == "Ginger calms a stomach."
    assert fresh.get("/documents", params={"id": "none such"}).status_code == 404
    assert fresh.get("/documents").status_code == 422


def test_many_are_deleted_at_once_and_what_was_not_there_is_named(fresh: TestClient) -> None:
    answer = fresh.post("/documents/delete", json={"ids": ["zinc", "gone", "honey", "zinc"]})
    assert {name: sorted(ids) for name, ids in answer.json().items()} == {"deleted": ["honey", "zinc"], "missing": ["gone"]}
    assert fresh.get("/status").json()["documents"] == 2


@pytest.mark.parametrize(
    "documents",
    [
        [{"id": "new", "text": "A."}, {"text": "no id"}],
        [{"id": "new", "text": "A."}, {"id": "bad", "text": 5}],
        [{"id": "new", "text": "A."}, {"id": "", "text": "B."}],
        [{"id": "new", "text": "A.", "deep": [[[1]]]}],
        [{"id": "new", "text": "A."}, "not an object"],
        [{"id": "new", "text": "A.", "huge": 10**40}],
    ],
)
def test_where_one_document_cannot_be_taken_none_is(fresh: TestClient, documents: list[object]) -> None:
    answer = fresh.post("/documents", json={"documents": documents})
    assert answer.status_code in (400, 422), answer.text
    assert fresh.get("/documents/new").status_code == 404


def test_infinity_is_no_number_of_a_field(fresh: TestClient) -> None:
    body = b'{"documents": [{"id": "new", "text": "A.", "size": 1e999}]}'
    answer = fresh.post("/documents", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400, answer.text


def test_the_status_is_that_of_the_command(opened: Opening, served: Serving) -> None:
    collection = opened()
    answer = served(collection).get("/status").json()
    told = asdict(collection.status())
    assert answer["documents"] == told["documents"] == 4
    assert answer["fields"] == told["fields"]
    assert [view["name"] for view in answer["views"]] == [view["name"] for view in told["views"]]


def test_searches_find_what_is_there_while_documents_come_and_go(fresh: TestClient) -> None:
    def write(turn: int) -> int:
        given = [{"id": f"w{turn}-{number}", "text": f"Water number {number} of turn {turn}."} for number in range(5)]
        added = fresh.post("/documents", json={"documents": given})
        deleted = fresh.post("/documents/delete", json={"ids": [document["id"] for document in given]})
        return max(added.status_code, deleted.status_code)

    def search(turn: int) -> bool:
        answer = fresh.post("/search", json={"query": f"zinc against a cold {turn}", "k": 100})
        return answer.status_code == 200 and {"zinc", "honey", "miel", "a/rest"} <= {hit["id"] for hit in answer.json()["hits"]}

    with ThreadPoolExecutor(4) as pool:
        written, found = pool.map(write, range(8)), pool.map(search, range(40))
        assert set(written) == {200}
        assert all(found)
    assert fresh.get("/status").json()["documents"] == 4


def test_what_an_operator_asks_for_is_there_only_where_it_was_switched_on(opened: Opening, served: Serving) -> None:
    assert served(opened(words=True)).post("/admin/check").status_code == 404
    collection = opened()
    client = served(collection, admin=True)
    assert client.post("/admin/check").json()["ok"] is True
    assert client.post("/admin/rebuild", json={}).json() == {}
    assert client.post("/admin/rebuild", json={"encode": True}).json()["encoded"] == 4
    assert client.post("/search", json={"query": "zinc"}).status_code == 200
