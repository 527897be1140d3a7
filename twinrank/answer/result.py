"""What an answer consists of: quotes or checked claims, the sources they rest on, what was left out; as JSON for programs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from twinrank.search.calibrate import Verdict
from twinrank.search.rerank import Certificate
from twinrank.text import counted

Kind = Literal["extractive", "generative", "none"]
Standing = Literal["supported", "unsupported", "uncited"]

UNKNOWN = "I do not know."


@dataclass(frozen=True, slots=True)
class Excerpt:
    """Whole sentences of a document, without a gap: `text[start:end]` of one of its parts."""

    text: str
    start: int
    end: int
    part: str = ""
    """What of the document it lies in: "" its text, "title", or the name of a field."""


@dataclass(frozen=True, slots=True)
class Source:
    """One document that was read for the answer, under the number by which it is cited."""

    number: int
    id: str
    title: str
    excerpts: tuple[Excerpt, ...]
    """In the order of the document."""
    score: float
    """The document's, as the search gave it: it orders documents, and says nothing else."""
    probability: float | None = None
    """That the document is relevant; None where nothing was calibrated."""
    source: str = ""
    """Where the document is from."""

    @property
    def text(self) -> str:
        return " … ".join(excerpt.text for excerpt in self.excerpts)


@dataclass(frozen=True, slots=True)
class Quote:
    """A sentence of a document, letter for letter as it is stored."""

    text: str
    source: int
    """The number of its source."""
    id: str
    title: str
    start: int
    end: int
    score: float
    """Orders the quotes of one answer; no probability."""
    part: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence that a language model wrote, and whether the passages that it cites say so."""

    text: str
    citations: tuple[int, ...]
    """Numbers of sources, as far as they were given."""
    standing: Standing
    support: float | None = None
    """What the verifier found, from 0 to 1; None where there was nothing to compare with."""
    why: str = ""
    """What speaks against it."""
    removed: tuple[int, ...] = ()
    """Citations of sources that were never given."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How many tokens of passages were allowed and read, and what of that which was found was not read for want of room."""

    tokens: int
    used: int
    sentences: int = 0
    """Sentences left out."""
    documents: tuple[str, ...] = ()
    """Ids of documents of which nothing was read."""

    def __str__(self) -> str:
        told = f"{self.used:,} of {self.tokens:,} tokens read"
        if not self.sentences:
            return f"{told}, nothing left out"
        whole = f", all of {counted(len(self.documents), 'document')} among them" if self.documents else ""
        return f"{told}; {counted(self.sentences, 'sentence')} left out{whole}"


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a question; `str(answer)` is for people, `as_json` for programs."""

    question: str
    kind: Kind
    """"none" where nothing is known."""
    text: str
    """The quotes or the claims with their citations, those that do not hold marked; "I do not know." where that is so."""
    quotes: tuple[Quote, ...] = ()
    claims: tuple[Claim, ...] = ()
    sources: tuple[Source, ...] = ()
    budget: Budget | None = None
    calibrated: bool = False
    """Whether probabilities stand behind the decision to answer."""
    verdict: Verdict | None = None
    scored_by: str = ""
    """What chose the quotes."""
    checked_by: str = ""
    """What compared the claims with their sources."""
    notes: tuple[str, ...] = ()
    certificates: tuple[Certificate, ...] = ()
    seconds: float = 0.0

    @property
    def known(self) -> bool:
        return self.kind != "none"

    @property
    def supported(self) -> bool:
        """Whether each sentence stands in what it cites; of quotes that is so."""
        return self.known and all(claim.standing == "supported" for claim in self.claims)

    def as_json(self) -> dict[str, Any]:
        values = asdict(self)
        return {"question": self.question, "known": self.known, "supported": self.supported, **values}

    def __str__(self) -> str:
        cited = {quote.source for quote in self.quotes} | {number for claim in self.claims for number in claim.citations}
        listed = [f"[{source.number}] {source.title}  {source.id}" for source in self.sources if source.number in cited]
        return "\n".join([self.text, *([""] if listed else []), *listed])
