"""What the tools give, as their schemas say it: plain values, few enough that a language model can read them."""

from __future__ import annotations

from typing import Any

from typing_extensions import TypedDict

from twinrank.types import Value


class HitShape(TypedDict):
    """A document found, with its best passage; `get_document` gives the whole."""

    id: str
    title: str
    text: str
    start: int
    end: int
    part: str
    score: float
    probability: float | None
    fields: dict[str, Value]
    source: str


class SearchShape(TypedDict):
    """`answered` is false where the collection is calibrated, a risk was asked for, and nothing found is relevant enough."""

    answered: bool
    hits: list[HitShape]
    notes: list[str]
    seconds: float


class DocumentShape(TypedDict):
    """A document, or as much of its text as one call gives; `next` is where the next call begins, null at the end."""

    id: str
    title: str
    text: str
    start: int
    end: int
    characters: int
    next: int | None
    fields: dict[str, Value]
    source: str


class QuoteShape(TypedDict):
    """A sentence of a document, letter for letter."""

    text: str
    id: str
    title: str
    start: int
    end: int
    part: str


class AnswerShape(TypedDict):
    """`known` is false where nothing was found, or nothing that is likely enough to be relevant."""

    known: bool
    text: str
    quotes: list[QuoteShape]
    notes: list[str]


class StatusShape(TypedDict):
    documents: int
    passages: int
    fields: dict[str, str]
    views: list[str]
    calibrated: bool


class ExplainShape(TypedDict):
    """Where the document stands and what each stage made of it; `explanation` has all figures."""

    found: bool
    rank: int | None
    outcome: str
    explanation: dict[str, Any]
