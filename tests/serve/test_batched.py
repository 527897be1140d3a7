"""Requests that come together are served together by the models, and each gets what it would get alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi.testclient import TestClient

from twinrank import Collection

Opening = Callable[..., Collection]
Serving = Callable[..., TestClient]
WORDS = ["cold", "zinc", "honey", "cough", "night", "water", "rest", "help", "toux", "day"]


def requests() -> list[tuple[str, dict[str, Any]]]:
    asked: list[tuple[str, dict[str, Any]]] = []
    for number, word in enumerate(WORDS):
        other = WORDS[(number * 7 + 3) % len(WORDS)]
        texts = [f"{word} {other}", f"{other} against a {word} " * (number + 1), word]
        asked += [
            ("/search", {"query": f"{word} or {other}?", "k": 4}),
            ("/v1/embeddings", {"input": texts}),
            ("/rerank", {"query": word, "texts": texts, "raw_scores": True}),
        ]
    return asked


def answer(client: TestClient, path: str, asked: dict[str, Any]) -> Any:
    answered = client.post(path, json=asked)
    assert answered.status_code == 200, answered.text
    told = answered.json()
    return [(hit["id"], hit["score"]) for hit in told["hits"]] if path == "/search" else told


@pytest.mark.parametrize("tokens", [False, True])
def test_concurrent_requests_get_what_they_get_one_after_another(opened: Opening, served: Serving, tokens: bool) -> None:
    asked = requests()
    alone = served(opened(tokens=tokens, rerank=not tokens))
    expected = [answer(alone, path, request) for path, request in asked]
    collection = opened(tokens=tokens, rerank=not tokens)
    _take_a_moment(collection)
    client = served(collection, threads=8, queue=1000)
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda pair: answer(client, *pair), asked))
    assert found == expected
    together = collection.assembly.loaded.together.values()
    assert sum(asked.parts for asked in together) > sum(asked.calls for asked in together)


def _take_a_moment(collection: Collection) -> None:
    """Models of the real size take some milliseconds a call, during which other requests come."""
    loaded = collection.assembly.loaded
    for model in (loaded.encoder, loaded.late):
        if model is not None:
            model.encode = _slowly(model.encode)  # type: ignore[method-assign]


def _slowly(call: Callable[..., Any]) -> Callable[..., Any]:
    def slow(*arguments: Any, **options: Any) -> Any:
        time.sleep(0.01)
        return call(*arguments, **options)

    return slow
