"""The official clients of OpenAI and Cohere, against a server on a port."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from twinrank import BiEncoder, CrossEncoder
from twinrank.serve.keys import Keys

httpx = pytest.importorskip("httpx", reason="httpx is not installed")
openai = pytest.importorskip("openai", reason="OpenAI's client is not installed")
cohere = pytest.importorskip("cohere", reason="Cohere's client is not installed")

KEY = "a-key-that-may-read"
QUERY = "what helps against a cold?"
TEXTS = ["Honey eases a cough at night.", "Zinc may shorten a cold.", "Rest."]
# What the clients do with their own dependencies is theirs.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.fixture
def address(live: Callable[..., str]) -> Iterator[str]:
    return live(keys=Keys.of(read=[KEY]))


def test_openais_client_embeds(address: str, tiny_model: Path) -> None:
    with openai.OpenAI(base_url=f"{address}/v1", api_key=KEY) as client:
        model = next(model for model in client.models.list() if model.type == "embedding")
        expected = BiEncoder(tiny_model).encode(TEXTS)
        for options in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}, {"dimensions": expected.shape[1]}):
            answer = client.embeddings.create(model=model.id, input=TEXTS, **options)
            found = [item.embedding for item in answer.data]
            if options.get("encoding_format") == "base64":
                assert all(isinstance(vector, str) for vector in found)
            else:
                np.testing.assert_array_equal(np.array(found, np.float32), expected)
            assert answer.usage.total_tokens > 0


def test_openais_client_raises_its_own_errors(address: str) -> None:
    with openai.OpenAI(base_url=f"{address}/v1", api_key=KEY, max_retries=0) as client:
        with pytest.raises(openai.NotFoundError, match="is not served here"):
            client.embeddings.create(model="text-embedding-3-small", input="a")
        with pytest.raises(openai.BadRequestError, match="token ids"):
            client.embeddings.create(model="", input=[1, 2, 3])
    stranger = openai.OpenAI(base_url=f"{address}/v1", api_key="another key", max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError, match="not known here"):
        stranger.models.list()


@contextmanager
def cohere_client(version: str, address: str, key: str = KEY) -> Iterator[Any]:
    """Cohere's, over connections that are closed in the end, as it does not do by itself."""
    with httpx.Client() as connections:
        yield getattr(cohere, version)(api_key=key, base_url=address, httpx_client=connections)


@pytest.mark.parametrize("version", ["Client", "ClientV2"])
def test_coheres_clients_rerank(address: str, tiny_cross_encoder: Path, version: str) -> None:
    with cohere_client(version, address) as client:
        answer = client.rerank(model=tiny_cross_encoder.name, query=QUERY, documents=TEXTS, top_n=2)
    expected = CrossEncoder(tiny_cross_encoder).score([(QUERY, text) for text in TEXTS])
    assert [result.index for result in answer.results] == np.argsort(-expected).tolist()[:2]
    assert all(0 <= result.relevance_score <= 1 for result in answer.results)


def test_coheres_client_sends_objects_and_takes_documents(address: str, tiny_cross_encoder: Path) -> None:
    documents = [{"title": "A title", "text": text} for text in TEXTS]
    options = {"rank_fields": ["title", "text"], "return_documents": True}
    with cohere_client("Client", address) as client:
        answer = client.rerank(model=tiny_cross_encoder.name, query=QUERY, documents=documents, **options)
    assert sorted(result.document.text for result in answer.results) == sorted(TEXTS)


def test_coheres_client_raises_its_own_errors(address: str) -> None:
    with cohere_client("ClientV2", address) as client, pytest.raises(cohere.NotFoundError):
        client.rerank(model="rerank-v3.5", query=QUERY, documents=TEXTS)
    with cohere_client("ClientV2", address, "another key") as client, pytest.raises(cohere.UnauthorizedError):
        client.rerank(model="", query=QUERY, documents=TEXTS)
