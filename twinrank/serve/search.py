"""Searching a collection, and why a document stands where it does."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from twinrank.collection import Collection
from twinrank.serve.refusals import Refusal, as_json
from twinrank.serve.shapes import Asking, Condition, Deadline, DocumentId, Probability, QueryText, SearchAnswer
from twinrank.serve.state import State, reading_router, time_left
from twinrank.show import results_as_json

BUDGET = 256
"""Texts that each model may read to explain one hit."""


class Searching(Asking):
    query: QueryText = Field(description="What to look for.")
    k: Annotated[int, Field(ge=1)] = Field(10, description="How many documents to find.")
    where: Condition | None = Field(None, description="A condition over fields: year >= 2015 and lang = 'en'.")
    deadline: Deadline | None = Field(
        None,
        description="Milliseconds from when the request came in; reranking ends in time, `certificates` tell how far it came.",
    )
    min_probability: Probability | None = Field(None, description="Leave out hits that are less likely to be relevant.")
    risk: Probability | None = Field(None, description="Answer where at most this share of answers holds nothing relevant.")
    explain: bool = Field(False, description="Say of each hit what every stage made of it.")


class Explaining(Asking):
    query: QueryText
    document: DocumentId = Field(description="Its id, as a search shows it.")
    k: Annotated[int, Field(ge=1, le=1000)] = Field(10, description="How many documents the search was asked for.")
    where: Condition | None = Field(None, description="The condition of the search.")
    budget: Annotated[int, Field(ge=0, le=BUDGET)] = Field(
        BUDGET, description="Texts that each model may read to weigh single words; 0 leaves that out."
    )


def router(state: State) -> APIRouter:
    routes = reading_router(tags=["search"])
    collection, most = state.collection, state.settings.limits.k

    async def found(request: Request, asked: Searching) -> Response:
        if asked.k > most:
            raise Refusal(400, f"k is {asked.k}; at most {most} documents are found at once")
        return as_json(await state.search(lambda: _search(collection, asked, time_left(request, asked.deadline))))

    @routes.post("/search", response_model=SearchAnswer)
    async def search(request: Request, asked: Searching) -> Response:
        """Find the documents that answer a query."""
        return await found(request, asked)

    @routes.get("/search", response_model=SearchAnswer)
    async def search_by_address(
        request: Request,
        q: Annotated[QueryText, Query(description="What to look for.")],
        k: Annotated[int, Query(ge=1, description="How many documents to find.")] = 10,
        where: Annotated[Condition | None, Query()] = None,
        deadline: Annotated[float | None, Query(ge=0, le=3_600_000, allow_inf_nan=False)] = None,
        min_probability: Annotated[float | None, Query(ge=0, le=1, allow_inf_nan=False)] = None,
        risk: Annotated[float | None, Query(ge=0, le=1, allow_inf_nan=False)] = None,
        explain: bool = False,
    ) -> Response:
        """The same for what can send an address alone; proxies log addresses, so prefer POST for what is nobody's business."""
        return await found(
            request,
            Searching(
                query=q,
                k=k,
                where=where,
                deadline=deadline,
                min_probability=min_probability,
                risk=risk,
                explain=explain,
            ),
        )

    @routes.post("/explain", response_model=dict[str, Any])
    async def explain(asked: Explaining) -> Response:
        """Why a document stands where it does for a query, or was not found: as `twinrank explain --json` prints it."""
        return as_json(await state.search(lambda: _explain(collection, asked)))

    return routes


def _search(collection: Collection, asked: Searching, left: float | None) -> dict[str, Any]:
    results = collection.search(
        asked.query,
        asked.k,
        where=asked.where,
        deadline=left,
        min_probability=asked.min_probability,
        risk=asked.risk,
    )
    told = results_as_json(results, asked.explain)
    told["notes"] += _cut(collection, asked.query)
    return told


def _cut(collection: Collection, query: str) -> list[str]:
    """Whether the encoder read the beginning of the query alone."""
    encoder = collection.encoder
    if encoder is None or len(query) <= encoder.max_tokens:
        return []
    dropped = encoder.tokenize([query], side="query").dropped
    cut = 0 if dropped is None else int(dropped.sum())
    return [f"{cut} tokens at the query's end were not encoded: it is longer than the model takes"] if cut else []


def _explain(collection: Collection, asked: Explaining) -> dict[str, Any]:
    from twinrank.explain import explain

    if asked.document not in collection:
        raise Refusal(404, "there is no document with this id")
    explanation = explain(collection, asked.query, asked.document, where=asked.where, k=asked.k, budget=asked.budget)
    return dict(explanation.as_json())
