"""Embeddings in OpenAI's shape: the encoder's own vectors, as numbers or bytes, and a sentence for what is not offered."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from twinrank import BiEncoder, Collection

Opening = Callable[..., Collection]
Serving = Callable[..., TestClient]
TEXTS = ["Zinc may shorten a cold.", "Honey eases a cough at night, and so does sleep."]


def embedding(client: TestClient, **asked: object) -> dict[str, object]:
    answer = client.post("/v1/embeddings", json=asked)
    assert answer.status_code == 200, answer.text
    found: dict[str, object] = answer.json()
    return found


def vectors(answer: dict[str, object]) -> np.ndarray:
    return np.array([item["embedding"] for item in answer["data"]], np.float32)  # type: ignore[attr-defined]


def test_the_vectors_are_the_encoders(client: TestClient, tiny_model: Path) -> None:
    encoder = BiEncoder(tiny_model)
    answer = embedding(client, input=TEXTS)
    np.testing.assert_array_equal(vectors(answer), encoder.encode(TEXTS))
    assert [item["index"] for item in answer["data"]] == [0, 1]  # type: ignore[attr-defined]
    tokens = int(encoder.tokenize(TEXTS).lengths.sum())
    assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert answer["model"] == tiny_model.name
    assert answer["truncated"] == []


def test_one_text_is_a_list_of_one(client: TestClient) -> None:
    np.testing.assert_array_equal(vectors(embedding(client, input=TEXTS[0])), vectors(embedding(client, input=TEXTS[:1])))


def test_base64_holds_the_same_numbers(client: TestClient) -> None:
    answer = embedding(client, input=TEXTS, encoding_format="base64")
    decoded = [np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in answer["data"]]  # type: ignore[attr-defined]
    np.testing.assert_array_equal(np.stack(decoded), vectors(embedding(client, input=TEXTS)))


def test_what_the_texts_are_may_be_told(served: Serving, tmp_path: Path, tiny: object) -> None:
    folder = tiny.write_twin_tower(tmp_path / "towers")  # type: ignore[attr-defined]
    client = served(Collection(tmp_path / "towers.twinrank", model=str(folder)))
    query, document = (vectors(embedding(client, input=TEXTS, input_type=kind)) for kind in ("query", "document"))
    assert not np.allclose(query, document)
    np.testing.assert_array_equal(document, vectors(embedding(client, input=TEXTS)))
    np.testing.assert_array_equal(query, vectors(embedding(client, input=TEXTS, input_type="search_query")))
    assert client.get("/v1/models").json()["data"][0]["by"] == "twin tower"


@pytest.mark.parametrize(
    ("asked", "status", "told"),
    [
        ({"input": [1, 2, 3]}, 400, "token ids"),
        ({"input": [[1, 2], [3]]}, 400, "token ids"),
        ({"input": []}, 422, "input"),
        ({"input": ""}, 422, "input"),
        ({"input": ["a", ""]}, 422, "input"),
        ({"input": ["a", None]}, 422, "input"),
        ({"input": ["a"] * 2049}, 422, "input"),
        ({"input": "a", "dimensions": 7}, 400, "dimensions"),
        ({"input": "a", "encoding_format": "int8"}, 422, "encoding_format"),
        ({"input": "a", "model": "text-embedding-3-small"}, 404, "is not served here"),
    ],
)
def test_what_is_not_offered_is_refused_in_a_sentence(client: TestClient, asked: object, status: int, told: str) -> None:
    answer = client.post("/v1/embeddings", json=asked)
    assert answer.status_code == status, answer.text
    assert told in answer.json()["error"]["message"]


def test_the_dimensions_that_the_model_has_may_be_asked_for(client: TestClient, tiny_model: Path) -> None:
    dimension = BiEncoder(tiny_model).dimension
    assert vectors(embedding(client, input="a", dimensions=dimension)).shape == (1, dimension)


@pytest.mark.filterwarnings("ignore::twinrank.errors.TruncationWarning")
def test_a_text_that_was_cut_is_named(client: TestClient) -> None:
    assert embedding(client, input=["short", "cold " * 2000])["truncated"] == [1]


def test_without_an_encoder_there_are_no_embeddings(opened: Opening, served: Serving) -> None:
    client = served(opened(words=True))
    answer = client.post("/v1/embeddings", json={"input": "a"})
    assert answer.status_code == 404
    assert "[encoder]" in answer.json()["error"]["message"]
    assert client.get("/v1/models").json() == {"object": "list", "data": []}


def test_the_models_say_what_they_are(client: TestClient, tiny_model: Path, tiny_cross_encoder: Path) -> None:
    models = client.get("/v1/models").json()["data"]
    assert [(model["id"], model["type"], model["by"]) for model in models] == [
        (tiny_model.name, "embedding", "bi-encoder"),
        (tiny_cross_encoder.name, "rerank", "cross-encoder"),
    ]
    assert not any("/" in model["id"] for model in models)  # where they lie is nobody's business
