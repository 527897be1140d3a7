"""Answering a question: with sentences of the documents, or by the language model that whoever started the server named."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import Field
from typing_extensions import TypedDict

from twinrank.answer.answering import FEWEST_TOKENS, QUOTES, TOKENS
from twinrank.answer.endpoint import ADDRESS, MODEL, Endpoint
from twinrank.answer.result import Budget, Claim, Kind, Quote, Source
from twinrank.errors import EndpointError, TwinrankError
from twinrank.search.calibrate import Verdict
from twinrank.search.rerank import Certificate
from twinrank.serve.refusals import Refusal, as_json
from twinrank.serve.shapes import Asking, Condition, Deadline, ErrorAnswer, Probability, QueryText
from twinrank.serve.state import State, reading_router, time_left

MOST_TOKENS = 100_000
MOST_QUOTES = 100


class Answering(Asking):
    question: QueryText = Field(description="What to answer.")
    k: Annotated[int, Field(ge=1)] = Field(10, description="How many documents to answer from.")
    where: Condition | None = Field(None, description="A condition over fields: year >= 2015 and lang = 'en'.")
    budget: Annotated[int, Field(ge=FEWEST_TOKENS, le=MOST_TOKENS)] = Field(TOKENS, description="Tokens of passages to read.")
    quotes: Annotated[int, Field(ge=1, le=MOST_QUOTES)] = Field(QUOTES, description="How many sentences to quote.")
    deadline: Deadline | None = Field(
        None, description="Milliseconds from when the request came in, for finding and choosing sentences."
    )
    min_probability: Probability | None = Field(
        None, description="Answer from documents that are at least so likely relevant; 0.5 where the collection is calibrated."
    )
    risk: Probability | None = Field(None, description="Answer where at most this share of answers holds nothing relevant.")
    generative: bool = Field(False, description="Let the server's language model write the answer; each sentence is checked.")


class AnswerShape(TypedDict):
    """As `twinrank answer --json` prints it."""

    question: str
    known: bool
    supported: bool
    kind: Kind
    text: str
    quotes: list[Quote]
    claims: list[Claim]
    sources: list[Source]
    budget: Budget | None
    calibrated: bool
    verdict: Verdict | None
    scored_by: str
    checked_by: str
    notes: list[str]
    certificates: list[Certificate]
    seconds: float


def router(state: State) -> APIRouter:
    routes = reading_router(tags=["answer"])
    failing: dict[int | str, dict[str, Any]] = {
        502: {"model": ErrorAnswer, "description": "The language model cannot be reached, refuses, or makes no sense."}
    }

    @routes.post("/answer", response_model=AnswerShape, responses=failing)
    async def answer(request: Request, asked: Answering) -> Response:
        """Answer a question: by default with sentences of the documents, quoted letter for letter with their places."""
        if asked.k > state.settings.limits.k:
            raise Refusal(400, f"k is {asked.k}; at most {state.settings.limits.k} documents are found at once")
        endpoint = _endpoint() if asked.generative else None
        lane = state.search if endpoint is None else state.ask_model
        return as_json(await lane(lambda: _answer(state, asked, time_left(request, asked.deadline), endpoint)))

    return routes


def _answer(state: State, asked: Answering, left: float | None, endpoint: Endpoint | None) -> dict[str, Any]:
    try:
        found = state.collection.answer(
            asked.question,
            asked.k,
            where=asked.where,
            deadline=left,
            min_probability=asked.min_probability,
            risk=asked.risk,
            budget=asked.budget,
            quotes=asked.quotes,
            endpoint=endpoint,
        )
    except EndpointError as error:
        raise Refusal(502, str(error), "server_error") from error
    return found.as_json()


def _endpoint() -> Endpoint:
    """Of the server's choosing: a client that could name an address could have the server ask any."""
    try:
        endpoint = Endpoint.of_environment()
    except TwinrankError as error:
        raise Refusal(501, f"this server's language model cannot be used: {error}") from error
    if endpoint is None:
        raise Refusal(404, f"this server has no language model; start it with {ADDRESS} and {MODEL} set, or ask for quotes")
    return endpoint
