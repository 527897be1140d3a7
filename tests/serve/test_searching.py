"""Searching over HTTP gives what searching gives, within the request's deadline, and says why a document stands where it is."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fastapi import Request
from fastapi.testclient import TestClient

from twinrank import Collection
from twinrank.serve.state import time_left
from twinrank.show import results_as_json

Opening = Callable[..., Collection]
Serving = Callable[..., TestClient]


def without_times(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name not in ("seconds", "stages")}


@pytest.mark.parametrize("explain", [False, True])
def test_a_search_answers_what_the_command_prints(opened: Opening, served: Serving, explain: bool) -> None:
    collection = opened()
    client = served(collection)
    answer = client.post("/search", json={"query": "a cold", "k": 2, "where": "year >= 2000", "explain": explain})
    assert answer.status_code == 200
    expected = results_as_json(collection.search("a cold", 2, where="year >= 2000"), explain)
    assert without_times(answer.json()) == without_times(json.loads(json.dumps(expected)))
    assert len(answer.json()["hits"]) == 2


def test_an_address_asks_the_same(client: TestClient) -> None:
    asked = {"query": "honey", "k": 3, "where": "lang = 'en'", "explain": True}
    posted = client.post("/search", json=asked).json()
    got = client.get("/search", params={"q": "honey", "k": 3, "where": "lang = 'en'", "explain": "true"}).json()
    assert without_times(got) == without_times(posted)
    assert {hit["id"] for hit in got["hits"]} == {"honey", "zinc"}


@pytest.mark.parametrize(
    ("asked", "status", "told"),
    [
        ({"query": ""}, 422, "query"),
        ({"query": " "}, 400, "the query is empty"),
        ({}, 422, "query: Field required"),
        ({"query": "zinc", "k": 0}, 422, "k: "),
        ({"query": "zinc", "k": 1001}, 400, "at most 1000"),
        ({"query": "zinc", "k": "3"}, 422, "k: "),
        ({"query": "zinc", "limit": 3}, 422, "limit: Extra inputs"),
        ({"query": "zinc", "where": "year >"}, 400, "year >"),
        ({"query": "zinc", "where": "size > 3"}, 400, "size"),
        ({"query": "zinc", "where": "(" * 5000 + "year > 1" + ")" * 5000}, 422, "where"),
        ({"query": "zinc", "deadline": -1}, 422, "deadline"),
        ({"query": "zinc", "min_probability": 0.5}, 400, "calibrat"),
        ({"query": "x" * 65_537}, 422, "query"),
        ([], 422, "dictionary"),
        ("zinc", 422, "dictionary"),
    ],
)
def test_what_cannot_be_searched_is_refused_in_a_sentence(client: TestClient, asked: object, status: int, told: str) -> None:
    answer = client.post("/search", json=asked)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert told in error["message"]
    assert error["type"] == "invalid_request_error"
    assert set(error) == {"message", "type", "param", "code"}


def test_a_refusal_does_not_repeat_what_was_sent(client: TestClient) -> None:
    for asked in (
        {"query": ["secret words"]},
        {"query": "zinc", "k": "secret words"},
        {"query": "zinc", "where": 5, "secret": 1},
    ):
        assert "secret words" not in client.post("/search", json=asked).text


def test_a_deadline_that_has_passed_leaves_the_reranking_out_and_says_so(client: TestClient) -> None:
    answer = client.post("/search", json={"query": "a cold", "deadline": 0}).json()
    assert answer["hits"]
    assert answer["certificates"][0]["reason"] == "deadline"
    assert answer["certificates"][0]["pairs"] == 0
    assert "0 of 4 pairs scored" in answer["notes"][0]
    whole = client.post("/search", json={"query": "a cold", "deadline": 60_000}).json()
    assert whole["certificates"][0]["reason"] == "all"
    assert whole["notes"] == []


def test_the_time_in_the_queue_counts_towards_the_deadline(opened: Opening, served: Serving) -> None:
    collection = opened()
    client = served(collection, threads=1)
    search, hold, begun = collection.search, threading.Event(), threading.Event()

    def slow(query: str, *arguments: Any, **options: Any) -> Any:
        if query == "slow":
            begun.set()
            assert hold.wait(10)
        return search(query, *arguments, **options)

    collection.search = slow  # type: ignore[method-assign]
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(client.post, "/search", json={"query": "slow"})
        assert begun.wait(10)
        second = pool.submit(client.post, "/search", json={"query": "a cold", "deadline": 200})
        time.sleep(0.4)
        hold.set()
        assert first.result().status_code == 200
        assert second.result().json()["certificates"][0]["reason"] == "deadline"


def test_what_is_left_of_a_deadline_is_counted_from_when_the_request_came() -> None:
    request = cast(Request, SimpleNamespace(scope={"twinrank.arrived": time.perf_counter() - 0.3}))
    assert time_left(request, None) is None
    assert time_left(request, 100) == 0
    assert time_left(request, 1000) == pytest.approx(700, abs=50)


@pytest.mark.filterwarnings("ignore::twinrank.errors.TruncationWarning")
def test_a_query_that_was_cut_is_told(client: TestClient) -> None:
    answer = client.post("/search", json={"query": "cold " * 2000})
    assert "tokens at the query's end were not encoded" in answer.json()["notes"][-1]


def test_an_explanation_is_that_of_the_command(client: TestClient) -> None:
    answer = client.post("/explain", json={"query": "a cold", "document": "a/rest", "budget": 16})
    assert answer.status_code == 200, answer.text
    assert answer.json()["id"] == "a/rest"
    assert answer.json()["stages"]


def test_a_document_that_is_not_there_cannot_be_explained(client: TestClient) -> None:
    answer = client.post("/explain", json={"query": "a cold", "document": "gone"})
    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "not_found_error"
