"""Embeddings and the list of models, in the shape of OpenAI's API."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Response
from pydantic import BaseModel, BeforeValidator, Field

from twinrank.serve.models import Embedded, Embedder, embedder_of, require_name, reranker_of
from twinrank.serve.refusals import Refusal, as_json
from twinrank.serve.settings import Limits
from twinrank.serve.shapes import Foreign
from twinrank.serve.state import State, reading_router
from twinrank.types import Vectors


def _no_token_arrays(given: object) -> object:
    if isinstance(given, list) and given and isinstance(given[0], (int, list)):
        raise Refusal(
            400,
            "`input` is given as token ids, and which tokenizer made them is not told here; send texts. "
            "In LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False)",
        )
    return given


Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[list[Text], Field(min_length=1, max_length=Limits.texts, fail_fast=True)]


class EmbeddingAsked(Foreign):
    input: Annotated[Text | Texts, BeforeValidator(_no_token_arrays)] = Field(
        description="One text, or a list of them. One that is longer than the model takes is cut, and `truncated` tells."
    )
    model: str | None = Field(None, description="One of /v1/models; may be left out.")
    encoding_format: Literal["float", "base64"] | None = "float"
    dimensions: int | None = Field(None, ge=1, description="As many as the model gives; other numbers are refused.")
    input_type: Literal["document", "query", "search_document", "search_query"] | None = Field(
        "document", description="What the texts are, for models that treat the two in another way. Not of OpenAI's API."
    )
    user: str | None = None


class Embedding(BaseModel):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class EmbeddingAnswer(BaseModel):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage
    truncated: list[int] = Field(description="Places of the texts that were longer than the model takes. Not of OpenAI's API.")


class Model(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    type: Literal["embedding", "rerank"]
    by: str = Field(description="The architecture: bi-encoder, twin tower, cross-encoder, maxsim.")
    dimensions: int | None = None
    max_tokens: int


class Models(BaseModel):
    object: Literal["list"]
    data: list[Model]


def router(state: State) -> APIRouter:
    routes = reading_router("encode", prefix="/v1", tags=["models"])

    @routes.post("/embeddings", response_model=EmbeddingAnswer)
    async def embeddings(asked: EmbeddingAsked) -> Response:
        """The vectors of texts, by the collection's encoder."""
        return as_json(await state.encode(lambda: _embed(state, asked)))

    @routes.get("/models", response_model=Models)
    async def models() -> Response:
        """What embeds and what reranks here; where the recipe has no cross-encoder, the name says by what is reranked."""
        return as_json({"object": "list", "data": await state.encode(lambda: _models(state))})

    return routes


def require_embedder(state: State) -> Embedder:
    embedder = embedder_of(state.collection)
    if embedder is None:
        raise Refusal(404, "this collection has no encoder that gives a text one vector; choose one in its recipe: [encoder]")
    return embedder


def _embed(state: State, asked: EmbeddingAsked) -> dict[str, Any]:
    embedder = require_embedder(state)
    require_name(asked.model, embedder.name)
    dimension = embedder.encoder.dimension
    if asked.dimensions not in (None, dimension):
        raise Refusal(400, f"{embedder.name} gives {dimension} dimensions; leave `dimensions` out, or ask for as many")
    texts = [asked.input] if isinstance(asked.input, str) else asked.input
    embedded: Embedded = embedder.embed(texts, "query" if "query" in (asked.input_type or "") else "document")
    written = _in_base64 if asked.encoding_format == "base64" else _as_numbers
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": place, "embedding": vector}
            for place, vector in enumerate(written(embedded.vectors))
        ],
        "model": embedder.name,
        "usage": {"prompt_tokens": embedded.tokens, "total_tokens": embedded.tokens},
        "truncated": embedded.truncated,
    }


def _as_numbers(vectors: Sequence[Vectors]) -> list[Any]:
    return [vector.tolist() for vector in vectors]


def _in_base64(vectors: Sequence[Vectors]) -> list[Any]:
    """The bytes of float32, little endian, as OpenAI's clients ask for by default."""
    return [base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode() for vector in vectors]


def _models(state: State) -> list[dict[str, Any]]:
    found = []
    embedder, reranker = embedder_of(state.collection), reranker_of(state.collection)
    common = {"object": "model", "created": 0, "owned_by": "twinrank"}
    if embedder is not None:
        by = "twin tower" if type(embedder.encoder).__name__ == "TwinTower" else "bi-encoder"
        found.append(
            {
                "id": embedder.name,
                **common,
                "type": "embedding",
                "by": by,
                "dimensions": embedder.encoder.dimension,
                "max_tokens": embedder.encoder.max_tokens,
            }
        )
    if reranker is not None:
        found.append({"id": reranker.name, **common, "type": "rerank", "by": reranker.by, "max_tokens": reranker.max_tokens})
    return found
