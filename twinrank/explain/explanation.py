"""What an explanation consists of: plain values, as JSON for a page and for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from twinrank.search.explain import Span
from twinrank.search.rerank import Certificate


@dataclass(frozen=True, slots=True)
class PassageShown:
    """The passage that is explained: the document's best for this query."""

    text: str
    """As encoders and the word index see it: title, then text. Places in an explanation are characters of this."""
    number: int
    """Its place among the document's passages, from 0."""
    of: int
    """How many the document has."""
    part: str
    """What of the document it lies in: "" its text, "title", or the name of a field."""
    start: int
    end: int
    """Its characters in that part."""


# -- the pair, as each architecture sees it ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Term:
    """One of the query's terms, as the word index has it."""

    term: str
    words: tuple[str, ...]
    """What the query says for it."""
    adds: float
    """To the passage's score; 0 where the passage does not hold it."""
    idf: float
    passages: int
    """Of the collection, that hold it."""
    count: int
    """Of the term in this passage."""
    spans: tuple[Span, ...]
    """Where it stands in the passage."""


@dataclass(frozen=True, slots=True)
class WordsSeen:
    """BM25: the terms' weights add up to the score."""

    score: float
    terms: tuple[Term, ...]
    query: str
    """The form of the query that is explained."""


@dataclass(frozen=True, slots=True)
class Effect:
    """A part of a text with what it does for a score: the score, less the score without it. Above 0 it holds the score up."""

    start: int
    end: int
    effect: float


@dataclass(frozen=True, slots=True)
class Occlusion:
    """A text whose parts were left out one by one."""

    text: str
    unit: str
    """What was left out at a time: "word", "sentence", or "7 words"; "" where nothing was."""
    effects: tuple[Effect, ...]
    seen: int
    """The characters that the model reads; what follows has no effect at all."""
    dropped: int
    """Tokens that were beyond the model's limit."""


@dataclass(frozen=True, slots=True)
class VectorsSeen:
    """A bi-encoder or a twin tower: one vector for the query, one for the passage."""

    model: str
    score: float
    """Of the query's vector with the stored one: what a search by vectors uses."""
    recomputed: float
    """With the passage encoded again just now: what the effects are differences from."""
    searched: bool
    """Whether the recipe retrieves by it."""
    query: Occlusion
    passage: Occlusion
    passes: int
    """Texts that were encoded for this."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Token:
    """What one token vector stands for: a token, or several of a passage that were pooled into one vector."""

    text: str
    spans: tuple[Span, ...]
    """Its characters; none for special tokens, prompts and the masks that fill a query up."""


@dataclass(frozen=True, slots=True)
class Match:
    """A token of the query and the vector of the passage that is most like it."""

    query: int
    passage: int
    similarity: float


@dataclass(frozen=True, slots=True)
class TokensSeen:
    """Late interaction: the similarities of the matches add up to the score (MaxSim)."""

    model: str
    score: float
    stored: bool
    """Whether the passage's vectors are those that the collection keeps; otherwise they come from a pass made just now."""
    query_tokens: tuple[Token, ...]
    passage_tokens: tuple[Token, ...]
    matches: tuple[Match, ...]
    matrix: tuple[tuple[float, ...], ...]
    """Similarities, a row for each token of the query, a column for each vector of the passage; rounded to three places."""
    query: str
    seen: int
    """Characters of the passage that the model reads."""
    dropped: int
    """Tokens of the passage beyond its limit."""
    seconds: float


@dataclass(frozen=True, slots=True)
class PairSeen:
    """A cross-encoder: the pair read together."""

    stage: str
    model: str
    score: float
    query: Occlusion
    passage: Occlusion
    passes: int
    seconds: float


# -- its way through the search ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StageSeen:
    """What one stage of the search made of the passage."""

    stage: str
    kind: Literal["source", "fusion", "rerank"]
    score: float | None
    """What it gives, or would give; None where it knows nothing of the passage, as BM25 without a word in common."""
    rank: int | None
    """The passage's place among the stage's candidates, from 1; None where it was not among them."""
    of: int
    """Candidates."""
    behind: int | None = None
    """Its place in a deeper search by this source, where it was not among the candidates and could be found."""
    needed: float | None = None
    """The least score that would have brought it further: into the candidates, or before the reranker."""
    came: float | None = None
    """A rerank's: the score with which the passage came, or would have."""
    scored: bool = True
    """A rerank's: whether it read the passage in this search."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one ranking contributed to a fused score."""

    name: str
    score: float | None
    rank: int | None
    weight: float
    low: float | None
    high: float | None
    """Between these its scores are spread over 0 to 1; None where they are not."""
    adds: float


@dataclass(frozen=True, slots=True)
class Sum:
    """A fused score, to which its parts add up."""

    stage: str
    method: str
    """"score": weight · (score − low) / (high − low) over the sum of the weights. "rank": weight / (constant + rank). "auto":
    weight · score, the weight chosen for this query."""
    score: float
    parts: tuple[Part, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class FeatureSeen:
    """One of the things that a calibration looks at."""

    name: str
    value: float
    adds: float
    """To the log odds, compared with the mean of the pairs that it was fitted on; for a calibration of one score, all of it."""


@dataclass(frozen=True, slots=True)
class ProbabilitySeen:
    """The calibrated probability: 1 / (1 + exp(−(base + what the features add)))."""

    probability: float | None
    """None where the calibration says nothing about this document."""
    method: str
    base: float
    """Log odds of a pair whose features are all as in the mean."""
    features: tuple[FeatureSeen, ...]
    """What moved it most first."""
    note: str = ""


@dataclass(frozen=True, slots=True)
class FilterSeen:
    """What a condition did."""

    where: str
    passes: bool
    """Whether the document meets it."""
    failed: tuple[str, ...]
    """The parts of the condition that it does not meet, and what it has instead."""
    passages: int
    """Of the collection, that are left."""
    of: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """One query and one document: what was seen, what it added up to, and what was cut off."""

    query: str
    forms: tuple[str, ...]
    """In which the query was searched; one, unless the recipe rewrites."""
    id: str
    title: str
    passage: PassageShown
    rank: int | None
    """Its place in the answer, from 1; None where it is not in it."""
    of: int
    """How many documents the candidates are of."""
    score: float | None
    """The score that it is ranked by; None where it was not."""
    outcome: str
    """In a sentence or two: where it stands, or where it dropped out and what it would have needed."""
    stages: tuple[StageSeen, ...]
    sums: tuple[Sum, ...]
    words: WordsSeen | None
    vectors: VectorsSeen | None
    tokens: TokensSeen | None
    pairs: tuple[PairSeen, ...]
    probability: ProbabilitySeen | None
    filter: FilterSeen | None
    certificates: tuple[Certificate, ...]
    notes: tuple[str, ...]
    """What could not be explained, and why."""
    seconds: float

    def as_json(self) -> Mapping[str, Any]:
        """Plain values all the way down, for `json.dumps`."""
        return asdict(self)
