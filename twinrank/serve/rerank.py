"""Reranking in the three shapes that clients send: Cohere's and Jina's /v1/rerank, Cohere's /v2/rerank, TEI's /rerank."""

from __future__ import annotations

from time import perf_counter
from typing import Annotated, Any, Literal
from uuid import uuid4

import numpy as np
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from twinrank.serve.models import Judged, Reranker, require_name, reranker_of
from twinrank.serve.refusals import Refusal, as_json
from twinrank.serve.settings import Limits
from twinrank.serve.shapes import Deadline, Foreign, QueryText
from twinrank.serve.state import State, reading_router, time_left

Given = str | dict[str, Any]


class RerankAsked(Foreign):
    """Cohere's and Jina's."""

    query: QueryText
    documents: Annotated[list[Given], Field(min_length=1, max_length=Limits.candidates, fail_fast=True)] = Field(
        description="Texts, or objects with a `text`."
    )
    model: str | None = Field(None, description="One of /v1/models; may be left out.")
    top_n: Annotated[int, Field(ge=1)] | None = Field(None, description="How many to give; all by default.")
    return_documents: bool | None = Field(False, description="Whether the answer holds the documents too.")
    rank_fields: Annotated[list[str], Field(min_length=1, max_length=100)] | None = Field(
        None, description="Of objects, the fields that are read, a line each; `text` by default."
    )
    max_tokens_per_doc: Annotated[int, Field(ge=1)] | None = Field(
        None, description="The model reads as much as it takes; a smaller limit than that is refused."
    )
    max_chunks_per_doc: Annotated[int, Field(ge=1)] | None = Field(
        None, description="At most so many parts of a long document are read; here it is the first, which is in every limit."
    )
    deadline: Deadline | None = Field(
        None, description="Milliseconds from when the request came in; documents are scored in their order until then."
    )


class Reranked(BaseModel):
    index: int = Field(description="Its place among the documents that were given, from 0.")
    relevance_score: float = Field(description="From 0 to 1.")
    document: dict[str, Any] | None = None


class RerankUsage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class RerankAnswer(BaseModel):
    id: str
    model: str
    results: list[Reranked]
    usage: RerankUsage
    meta: dict[str, Any]
    truncated: list[int] = Field(description="Places of the documents of which the model read the beginning alone.")
    unscored: list[int] = Field(description="Places of the documents that the deadline left no time for; not in `results`.")


class TeiAsked(Foreign):
    """That of Hugging Face's text-embeddings-inference."""

    query: QueryText
    texts: Annotated[list[str], Field(min_length=1, max_length=Limits.candidates, fail_fast=True)]
    raw_scores: bool = Field(False, description="What the model gives, instead of a score from 0 to 1.")
    return_text: bool = False
    truncate: bool | None = Field(None, description="With false, a text that is longer than the model takes is refused.")
    truncation_direction: Literal["right", "left", "Right", "Left"] = Field("right", description="Left is refused.")


class TeiRanked(BaseModel):
    index: int
    score: float
    text: str | None = None


def router(state: State) -> APIRouter:
    routes = reading_router("encode", tags=["rerank"])

    @routes.post("/v1/rerank", response_model=RerankAnswer, response_model_exclude_none=True)
    @routes.post("/v2/rerank", response_model=RerankAnswer, response_model_exclude_none=True)
    async def rerank(request: Request, asked: RerankAsked) -> Response:
        """Order documents by how well they answer a query."""
        return as_json(await state.encode(lambda: _rerank(state, asked, time_left(request, asked.deadline))))

    @routes.post("/rerank", response_model=list[TeiRanked], response_model_exclude_none=True)
    async def rerank_tei(asked: TeiAsked) -> Response:
        """Order texts by how well they answer a query."""
        return as_json(await state.encode(lambda: _rerank_tei(state, asked)))

    return routes


def require_reranker(state: State) -> Reranker:
    reranker = reranker_of(state.collection)
    if reranker is None:
        raise Refusal(404, "this collection has no model that could rerank; choose one in its recipe: [[rerank]] or [encoder]")
    return reranker


def _rerank(state: State, asked: RerankAsked, left: float | None) -> dict[str, Any]:
    reranker = require_reranker(state)
    require_name(asked.model, reranker.name)
    if (most := asked.max_tokens_per_doc) is not None and most < reranker.max_tokens:
        raise Refusal(400, f"{reranker.name} reads {reranker.max_tokens} tokens; max_tokens_per_doc={most} is not offered")
    texts = [_text(document, asked.rank_fields, place) for place, document in enumerate(asked.documents)]
    judged = reranker.judge(asked.query, texts, None if left is None else perf_counter() + left / 1000)
    results = []
    for place in _best_first(judged)[: asked.top_n]:
        found: dict[str, Any] = {"index": place, "relevance_score": float(judged.relevance[place])}
        if asked.return_documents:
            document = asked.documents[place]
            found["document"] = {"text": document} if isinstance(document, str) else document
        results.append(found)
    return {
        "id": str(uuid4()),
        "model": reranker.name,
        "results": results,
        "usage": {"prompt_tokens": judged.tokens, "total_tokens": judged.tokens},
        "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 0}},
        "truncated": judged.truncated,
        "unscored": list(range(len(judged.scores), len(texts))),
    }


def _rerank_tei(state: State, asked: TeiAsked) -> list[dict[str, Any]]:
    if asked.truncation_direction.lower() == "left":
        raise Refusal(400, "a text that is too long loses its end here; truncation_direction left is not offered")
    reranker = require_reranker(state)
    judged = reranker.judge(asked.query, asked.texts)
    if asked.truncate is False and judged.truncated:
        raise Refusal(
            413,
            f"text {judged.truncated[0]} is longer than the {reranker.max_tokens} tokens that {reranker.name} takes; "
            "send shorter ones, or leave out `truncate`",
        )
    scores = judged.scores if asked.raw_scores else judged.relevance
    return [
        {"index": place, "score": float(scores[place]), **({"text": asked.texts[place]} if asked.return_text else {})}
        for place in _best_first(judged)
    ]


def _best_first(judged: Judged) -> list[int]:
    """Of equal scores, the one that came first."""
    order: list[int] = np.argsort(-judged.scores, kind="stable").tolist()
    return order


def _text(document: Given, fields: list[str] | None, place: int) -> str:
    if isinstance(document, str):
        return document
    names = fields or ["text"]
    missing = [name for name in names if name not in document]
    if missing:
        raise Refusal(400, f"document {place} has no field {missing[0][:100]!r}; objects are read by `rank_fields` or `text`")
    return "\n".join(str(document[name]) for name in names)
