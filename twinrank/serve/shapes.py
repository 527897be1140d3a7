"""What several routes take and give, as the OpenAPI description says it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from twinrank.asking import LONGEST_QUERY
from twinrank.search.calibrate import Verdict
from twinrank.search.rerank import Certificate
from twinrank.types import Hit


class Asking(BaseModel):
    """Of a request in our own shape: an argument that nobody knows is told, and nothing is converted."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Foreign(BaseModel):
    """Of a request in a shape that others made: what is not known of it is let by, for clients send more than is needed."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)


class Problem(BaseModel):
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorAnswer(BaseModel):
    """What went wrong, in one sentence that says what to do."""

    error: Problem


class StageTime(TypedDict):
    stage: str
    seconds: float


class SearchAnswer(TypedDict):
    """As `twinrank search --json` prints it."""

    query: str
    seconds: float
    stages: list[StageTime]
    notes: list[str]
    certificates: list[Certificate]
    plan: str
    weights: str
    verdict: Verdict | None
    hits: list[Hit]


Deadline = Annotated[float, Field(ge=0, le=3_600_000)]
"""Milliseconds."""
Probability = Annotated[float, Field(ge=0, le=1)]
QueryText = Annotated[str, Field(min_length=1, max_length=LONGEST_QUERY)]
DocumentId = Annotated[str, Field(min_length=1, max_length=4096)]
Condition = Annotated[str, Field(max_length=10_000)]

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": described}
    for status, described in {
        400: "Something given cannot be used.",
        401: "A key is missing or not known.",
        403: "The key, or the page that asks, may not do this.",
        404: "What was asked for is not there.",
        408: "The body did not come in time.",
        409: "The collection's vectors are of another model than its recipe.",
        413: "The body is too large.",
        415: "The body is compressed.",
        421: "The server is asked for by a name that is not its own.",
        422: "The request does not have the shape described here.",
        500: "Something went wrong in the server.",
        501: "A library or a model that this needs is not installed.",
        503: "Too much is asked at once; Retry-After says when to come again.",
        507: "The disk is full or fails.",
    }.items()
}
