"""The whole of answering: what was found → sources within a budget → quotes, or a model's sentences, checked; or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from twinrank.answer import claims
from twinrank.answer.excerpts import Count, Found, read, units_of
from twinrank.answer.likeness import Likeness
from twinrank.answer.prompt import messages
from twinrank.answer.quoting import quote
from twinrank.answer.result import UNKNOWN, Answer, Budget, Claim, Kind, Quote, Source, Standing
from twinrank.answer.support import Evidence, Verifier
from twinrank.answer.unseen import without_unseen
from twinrank.errors import QueryError
from twinrank.text import counted

if TYPE_CHECKING:
    from twinrank.answer.endpoint import Endpoint

TOKENS = 2000
"""Of passages that are read for an answer, unless it is said."""
QUOTES = 3
LIKELY = 0.5
"""Where a collection is calibrated and nothing is said, documents are answered from that are rather relevant than not."""
FEWEST_TOKENS = 16
SEARCHING = 0.75
"""The share of a deadline that searching may take; the rest is for reading sentences."""

MARKS = {"supported": "", "unsupported": " [unsupported]", "uncited": " [no source]"}


@dataclass(frozen=True)
class Wanted:
    """What an answer is to be made of; QueryError for what cannot be."""

    tokens: int = TOKENS
    """Of passages that may be read."""
    quotes: int = QUOTES
    deadline: float | None = None
    """When to be done, on the clock of `time.perf_counter`: sentences are then not read by a model any more."""
    endpoint: Endpoint | None = None
    """What writes the answer; without one it is quoted."""

    def __post_init__(self) -> None:
        for name, value, least in (("budget", self.tokens, FEWEST_TOKENS), ("number of quotes", self.quotes, 1)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise QueryError(f"the {name} of an answer is {least} or more; got {value!r}")


@dataclass(frozen=True)
class Means:
    """What an answer is made with."""

    count: Count
    likeness: Likeness
    verifier: Callable[[], Verifier]
    """Opened where a model's answer is to be checked."""


def answer(question: str, found: Found, wanted: Wanted, means: Means) -> Answer:
    """Answer a question from what a search found."""
    started = perf_counter()
    sources, budget = read(
        found, wanted.tokens, means.count, lambda texts: list(means.likeness.words.shared(found.question, texts))
    )
    notes = [*found.results.notes, *_notes(found, sources, budget)]
    quotes: tuple[Quote, ...] = ()
    checked: tuple[Claim, ...] = ()
    kind: Kind = "none"
    scored_by = checked_by = ""
    if sources and wanted.endpoint is not None:
        verifier = means.verifier()
        checked = _written(question, sources, wanted.endpoint, verifier, notes)
        kind, checked_by = "generative" if checked else "none", verifier.name
    elif sources:
        likeness = means.likeness
        if wanted.deadline is not None and perf_counter() >= wanted.deadline:
            likeness = likeness.without_model()
            notes.append("the deadline left no time for a model to read the sentences; they were chosen by their words")
        quotes = quote(found.question, sources, wanted.quotes, likeness)
        kind, scored_by = "extractive" if quotes else "none", likeness.name
    return Answer(
        question=question,
        kind=kind,
        text=_text(quotes, checked),
        quotes=quotes,
        claims=checked,
        sources=tuple(sources),
        budget=budget,
        calibrated=found.calibrated,
        verdict=found.results.verdict,
        scored_by=scored_by,
        checked_by=checked_by,
        notes=tuple(notes),
        certificates=found.results.certificates,
        seconds=found.results.seconds + perf_counter() - started,
    )


def _notes(found: Found, sources: Sequence[Source], budget: Budget) -> Iterable[str]:
    verdict = found.results.verdict
    if verdict is not None and not verdict.answered:
        yield str(verdict)
    elif not len(found.results):
        yield "nothing was found"
    elif not sources:
        yield f"none of the sentences that were found fits {counted(budget.tokens, 'token')}; allow more"
    elif not found.calibrated:
        yield "nothing was calibrated, so that nobody can say how likely this is an answer: twinrank calibrate"


def _text(quotes: Sequence[Quote], checked: Sequence[Claim]) -> str:
    lines = [f"{' '.join(quoted.text.split())} [{quoted.source}]" for quoted in quotes]
    lines += [
        f"{claim.text} {''.join(f'[{number}]' for number in claim.citations)}".rstrip() + MARKS[claim.standing]
        for claim in checked
    ]
    return "\n".join(lines) or UNKNOWN


def _written(
    question: str, sources: Sequence[Source], endpoint: Endpoint, verifier: Verifier, notes: list[str]
) -> tuple[Claim, ...]:
    """A model's sentences, each compared with what it cites; none where the model does not know."""
    reply = endpoint.complete(messages(question, sources))
    if reply.cut:
        notes.append(f"the model's answer was cut at {counted(endpoint.most_tokens, 'token')}")
    parsed = claims.parse(reply.text, {source.number for source in sources})
    if parsed.links:
        notes.append(f"links, images and HTML were taken out of the model's answer in {counted(parsed.links, 'place')}")
    if _declines(parsed.sentences):
        notes.append("the model says that the passages do not hold the answer")
        return ()
    numbered = {source.number: source for source in sources}
    found = tuple(_checked(written, numbered, verifier) for written in parsed.sentences)
    wrong = sum(claim.standing != "supported" for claim in found)
    if wrong:
        notes.append(f"{wrong} of {counted(len(found), 'sentence')} not borne out by what is cited; each is marked")
    return found


def _declines(sentences: Sequence[claims.Written]) -> bool:
    said = " ".join(written.text for written in sentences).casefold().replace("don't", "do not").replace("don’t", "do not")
    return not said or said.strip(" .!\"'") == UNKNOWN.casefold().strip(".")


def _evidence(sources: Sequence[Source]) -> Evidence:
    """What sources say, in the form in which a model saw it."""
    said = [
        [without_unseen(excerpt.text[start:end]) for excerpt in source.excerpts for start, end in units_of(excerpt.text)]
        for source in sources
    ]
    return Evidence(said, without_unseen(" ".join(source.title for source in sources)))


def _checked(written: claims.Written, sources: Mapping[int, Source], verifier: Verifier) -> Claim:
    """Citations may bear a sentence out together: what each says is put side by side."""
    if not written.citations:
        why = "it cites a passage that was not given" if written.removed else "it cites nothing"
        return Claim(written.text, (), "uncited", None, why, written.removed)
    finding = verifier.check(written.text, _evidence([sources[number] for number in written.citations]))
    standing: Standing = "supported" if finding.holds else "unsupported"
    return Claim(written.text, written.citations, standing, finding.support, finding.why, written.removed)
