"""What a search found → numbered sources, a document each, of whole sentences within a token budget; best passages first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from twinrank.answer.result import Budget, Excerpt, Source
from twinrank.parts import part_of
from twinrank.search.results import Results
from twinrank.text import Span, sentences
from twinrank.types import Document, Passage

Count = Callable[[str], int]
"""How many tokens a text has."""


@dataclass(frozen=True)
class Found:
    """What a search found, in one committed state."""

    results: Results
    documents: Mapping[str, Document]
    """Those of the hits, by id."""
    passages: Sequence[Passage]
    """Those of the hits' documents that were candidates, best first."""
    question: str
    """In the form in which it was compared with passages: translated, where the recipe has that."""
    calibrated: bool


class Unit(NamedTuple):
    """The smallest piece that is read or quoted: a sentence, or a question or heading with what follows it."""

    part: str
    start: int
    end: int


@dataclass
class _Reading:
    """One document, as far as it is read."""

    document: Document
    units: set[Unit] = field(default_factory=set)
    left_out: set[Unit] = field(default_factory=set)

    def fresh(self, units: Sequence[Unit]) -> list[Unit]:
        """Those of which nothing was read yet: passages overlap."""
        return [unit for unit in units if not any(_overlap(unit, read) for read in self.units)]

    def text(self, unit: Unit) -> str:
        return (part_of(self.document, unit.part) or "")[unit.start : unit.end]

    def excerpts(self) -> tuple[Excerpt, ...]:
        """What was read, in the order of the document; what stands together stays together."""
        merged: list[Unit] = []
        for unit in sorted(self.units, key=lambda unit: (unit.part != "", unit)):
            last = merged[-1] if merged else None
            if last and last.part == unit.part and not self.text(Unit(unit.part, last.end, unit.start)).strip():
                merged[-1] = Unit(unit.part, last.start, unit.end)
            else:
                merged.append(unit)
        return tuple(Excerpt(self.text(unit), unit.start, unit.end, unit.part) for unit in merged)


def read(
    found: Found, tokens: int, count: Count, likeness: Callable[[Sequence[str]], Sequence[float]]
) -> tuple[list[Source], Budget]:
    """As much of what was found as `tokens` allow: whole passages while they fit, then the likeliest sentences of the next one.

    A document's title counts once. Sources are numbered in the order in which their first passage was read; what was found and
    not read is counted.
    """
    readings = {name: _Reading(document) for name, document in found.documents.items()}
    left, full = tokens, False
    order: list[str] = []
    for passage in found.passages:
        reading = readings[passage.document_id]
        fresh = reading.fresh(list(_units(reading.document, passage)))
        if not fresh:
            continue
        if full:
            reading.left_out.update(fresh)
            continue
        costs = {unit: count(reading.text(unit)) for unit in fresh}
        room = left - (0 if reading.units else count(reading.document.title))
        taken = fresh
        if sum(costs.values()) > room:
            taken = _best_that_fit(fresh, costs, room, likeness([reading.text(unit) for unit in fresh]))
            full = bool(taken)
        reading.left_out.update(set(fresh) - set(taken))
        if taken:
            left = room - sum(costs[unit] for unit in taken)
            reading.units.update(taken)
            order += [] if passage.document_id in order else [passage.document_id]
    sources = [_source(number, readings[name], found.results) for number, name in enumerate(order, start=1)]
    unread = sum(len(reading.fresh(sorted(reading.left_out))) for reading in readings.values())
    nothing = tuple(name for name, reading in readings.items() if reading.left_out and not reading.units)
    return sources, Budget(tokens, tokens - left, unread, nothing)


def _best_that_fit(units: Sequence[Unit], costs: Mapping[Unit, int], room: int, likeness: Sequence[float]) -> list[Unit]:
    taken = []
    for place in sorted(range(len(units)), key=lambda place: (-likeness[place], place)):
        if costs[units[place]] <= room:
            taken.append(units[place])
            room -= costs[units[place]]
    return taken


def _source(number: int, reading: _Reading, results: Results) -> Source:
    document = reading.document
    hit = next(hit for hit in results if hit.id == document.id)
    return Source(number, document.id, document.title, reading.excerpts(), hit.score, hit.probability, document.source)


def _units(document: Document, passage: Passage) -> Iterator[Unit]:
    """The sentences of a passage; of a document that is a title and nothing else, the title."""
    part, start, end = passage.part, passage.start, passage.end
    if start == end and not part:
        part, start, end = "title", 0, len(document.title)
    for first, last in units_of((part_of(document, part) or "")[start:end]):
        yield Unit(part, start + first, start + last)


def units_of(text: str) -> list[Span]:
    """The spans of a text's sentences, without white space at their ends; what asks or heads goes with what follows it.

    >>> text = "What is zinc? It is a metal. Honey eases a cough."
    >>> [text[start:end] for start, end in units_of(text)]
    ['What is zinc? It is a metal.', 'Honey eases a cough.']
    """
    spans: list[Span] = []
    open_since = -1
    for start, end in sentences(text):
        piece = text[start:end]
        start, end = start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())
        if start >= end:
            continue
        first = start if open_since < 0 else open_since
        if open_since < 0 and _announces(text[start:end]):
            open_since = start
            continue
        spans.append((first, end))
        open_since = -1
    if open_since >= 0:
        spans.append((open_since, len(text.rstrip())))
    return spans


def _announces(sentence: str) -> bool:
    """Whether a sentence says little without the next one: a question, a line that ends in a colon, a heading of Markdown."""
    return sentence.rstrip("\"'”’)*_ ").endswith(("?", "？", "؟", ":")) or sentence.startswith("#")


def _overlap(one: Unit, other: Unit) -> bool:
    return one.part == other.part and one.start < other.end and other.start < one.end
