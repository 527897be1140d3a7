"""Reranking in three shapes: one order, by the cross-encoder or the best that the recipe has, and the name says by what."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from twinrank import BiEncoder, Collection, CrossEncoder, LateInteraction
from twinrank.maxsim import maxsim

Opening = Callable[..., Collection]
Serving = Callable[..., TestClient]
QUERY = "what helps against a cold?"
TEXTS = ["Honey eases a cough at night.", "Zinc may shorten a cold.", "Rest.", "The library opens at nine on weekdays."]


def ask(client: TestClient, path: str, **asked: object) -> Any:
    answer = client.post(path, json={"query": QUERY, **asked})
    assert answer.status_code == 200, answer.text
    return answer.json()


def by_place(results: list[dict[str, Any]], name: str) -> list[float]:
    found = {result["index"]: result[name] for result in results}
    return [found[place] for place in range(len(results))]


def sigmoid(values: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-values.astype(np.float64))))


def test_the_scores_are_the_cross_encoders(client: TestClient, tiny_cross_encoder: Path) -> None:
    scorer = CrossEncoder(tiny_cross_encoder)
    expected = scorer.score([(QUERY, text) for text in TEXTS]).astype(np.float64)
    raw = ask(client, "/rerank", texts=TEXTS, raw_scores=True)
    likely = ask(client, "/rerank", texts=TEXTS)
    if scorer.activation == "sigmoid":
        np.testing.assert_allclose(by_place(likely, "score"), expected, rtol=1e-6)
        np.testing.assert_allclose(sigmoid(np.array(by_place(raw, "score"))), expected, rtol=1e-6)
    else:
        np.testing.assert_allclose(by_place(raw, "score"), expected, rtol=1e-6)
        np.testing.assert_allclose(by_place(likely, "score"), sigmoid(expected), rtol=1e-6)
    for results in (raw, likely):
        assert [result["index"] for result in results] == np.argsort(-expected, kind="stable").tolist()


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])
def test_all_shapes_give_one_order(client: TestClient, path: str, tiny_cross_encoder: Path) -> None:
    answer = ask(client, path, documents=TEXTS, model=tiny_cross_encoder.name)
    tei = ask(client, "/rerank", texts=TEXTS)
    assert [(result["index"], result["relevance_score"]) for result in answer["results"]] == [
        (result["index"], result["score"]) for result in tei
    ]
    assert all(0 <= result["relevance_score"] <= 1 for result in answer["results"])
    assert answer["model"] == tiny_cross_encoder.name
    assert answer["usage"]["total_tokens"] > 0
    assert "document" not in answer["results"][0]
    assert "text" not in tei[0]


def test_the_first_n_are_given_with_their_documents_where_asked(client: TestClient) -> None:
    whole = ask(client, "/v2/rerank", documents=TEXTS)["results"]
    answer = ask(client, "/v2/rerank", documents=TEXTS, top_n=2, return_documents=True)["results"]
    assert [result["index"] for result in answer] == [result["index"] for result in whole[:2]]
    assert [result["document"] for result in answer] == [{"text": TEXTS[result["index"]]} for result in answer]
    assert len(ask(client, "/v2/rerank", documents=TEXTS, top_n=99)["results"]) == len(TEXTS)
    tei = ask(client, "/rerank", texts=TEXTS, return_text=True)
    assert all(result["text"] == TEXTS[result["index"]] for result in tei)


def test_objects_are_read_by_their_text_or_by_the_fields_that_are_named(client: TestClient) -> None:
    plain = ask(client, "/v1/rerank", documents=[f"{text}\nx" for text in TEXTS])["results"]
    objects = [{"text": "other", "title": text, "note": "x"} for text in TEXTS]
    answer = ask(client, "/v1/rerank", documents=objects, rank_fields=["title", "note"], return_documents=True)["results"]
    assert by_place(answer, "relevance_score") == by_place(plain, "relevance_score")
    assert answer[0]["document"] == objects[answer[0]["index"]]
    assert len({result["relevance_score"] for result in ask(client, "/v1/rerank", documents=objects)["results"]}) == 1
    refused = client.post("/v1/rerank", json={"query": QUERY, "documents": [{"body": "x"}]})
    assert refused.status_code == 400
    assert "'text'" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "asked", "status", "told"),
    [
        ("/v1/rerank", {"documents": []}, 422, "documents"),
        ("/v1/rerank", {"documents": ["a"], "query": ""}, 422, "query"),
        ("/v1/rerank", {"documents": ["a"], "top_n": 0}, 422, "top_n"),
        ("/v1/rerank", {"documents": ["a"] * 1001}, 422, "documents"),
        ("/v1/rerank", {"documents": [5]}, 422, "documents"),
        ("/v2/rerank", {"documents": ["a"], "model": "rerank-v3.5"}, 404, "is not served here"),
        ("/v2/rerank", {"documents": ["a"], "max_tokens_per_doc": 3}, 400, "max_tokens_per_doc"),
        ("/rerank", {"texts": []}, 422, "texts"),
        ("/rerank", {"texts": ["a"], "truncation_direction": "Left"}, 400, "left"),
    ],
)
def test_what_is_not_offered_is_refused(client: TestClient, path: str, asked: dict[str, Any], status: int, told: str) -> None:
    answer = client.post(path, json={"query": QUERY, **asked})
    assert answer.status_code == status, answer.text
    assert told in answer.json()["error"]["message"]


@pytest.mark.filterwarnings("ignore::twinrank.errors.TruncationWarning")
def test_what_was_cut_is_named_and_refused_where_it_may_not_be_cut(client: TestClient) -> None:
    texts = ["short", "cold " * 3000]
    assert ask(client, "/v1/rerank", documents=texts)["truncated"] == [1]
    ask(client, "/rerank", texts=texts)
    refused = client.post("/rerank", json={"query": QUERY, "texts": texts, "truncate": False})
    assert refused.status_code == 413
    assert "text 1 is longer" in refused.json()["error"]["message"]


def test_a_deadline_leaves_out_what_there_was_no_time_for_and_names_it(client: TestClient) -> None:
    texts = TEXTS * 10
    none = ask(client, "/v1/rerank", documents=texts, deadline=0)
    assert (none["results"], none["unscored"]) == ([], list(range(40)))
    whole = ask(client, "/v1/rerank", documents=texts)
    assert whole["unscored"] == []
    assert ask(client, "/v1/rerank", documents=texts, deadline=60_000)["results"] == whole["results"]


def test_a_deadline_that_comes_in_between_keeps_what_was_scored(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = count(1000)
    monkeypatch.setattr("twinrank.serve.models.perf_counter", lambda: next(clock))
    monkeypatch.setattr("twinrank.serve.rerank.perf_counter", lambda: 1000)
    texts = [f"{text} {number}" for number in range(10) for text in TEXTS]
    part = ask(client, "/v1/rerank", documents=texts, deadline=3000)
    assert part["unscored"] == list(range(24, 40))  # three looks at the clock, eight texts each
    monkeypatch.undo()
    assert part["results"] == ask(client, "/v1/rerank", documents=texts[:24])["results"]


def test_without_a_cross_encoder_token_vectors_rerank_and_the_name_says_so(
    opened: Opening, served: Serving, tiny_model: Path
) -> None:
    client = served(opened(rerank=False, tokens=True))
    late = LateInteraction(BiEncoder(tiny_model), pool_factor=2.0)
    asked = late.encode([QUERY], side="query")[0]
    expected = maxsim(asked, late.encode(TEXTS)) / len(asked)
    assert ask(client, "/v1/rerank", documents=TEXTS)["model"] == f"maxsim:{tiny_model.name}"
    np.testing.assert_allclose(by_place(ask(client, "/rerank", texts=TEXTS, raw_scores=True), "score"), expected, rtol=1e-5)


def test_with_an_encoder_alone_vectors_rerank_and_the_name_says_so(opened: Opening, served: Serving, tiny_model: Path) -> None:
    client = served(opened(rerank=False))
    encoder = BiEncoder(tiny_model)
    expected = encoder.similarity(encoder.encode([QUERY], side="query"), encoder.encode(TEXTS))[0]
    answer = ask(client, "/v1/rerank", documents=TEXTS, model=f"bi-encoder:{tiny_model.name}")
    assert answer["model"] == f"bi-encoder:{tiny_model.name}"
    np.testing.assert_allclose(by_place(ask(client, "/rerank", texts=TEXTS, raw_scores=True), "score"), expected, atol=1e-5)


def test_with_words_alone_nothing_reranks(opened: Opening, served: Serving) -> None:
    answer = served(opened(words=True)).post("/rerank", json={"query": QUERY, "texts": TEXTS})
    assert answer.status_code == 404
    assert "[[rerank]]" in answer.json()["error"]["message"]
