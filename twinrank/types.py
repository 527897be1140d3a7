"""The shared words (Document, Passage, Ranking, Hit, Qrels…) and the protocols Encoder and Scorer; knows nobody."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

Keys: TypeAlias = npt.NDArray[np.int64]
"""Passage keys: the integers under which the store and every index know a passage. Never used twice."""

Vectors: TypeAlias = npt.NDArray[np.float32]
"""Embeddings, one a row: (texts, dimension)."""

Scores: TypeAlias = npt.NDArray[np.float32]

Side: TypeAlias = Literal["query", "document"]
"""Which of the two texts of a search is encoded; twin towers, prompts and prefixes depend on it."""

Scalar: TypeAlias = str | int | float | bool | None
Value: TypeAlias = Scalar | list[Scalar]
"""What a field of a document holds once it is stored; dates are ISO 8601 text."""

FieldInput: TypeAlias = Value | date | datetime

Qrels: TypeAlias = Mapping[str, Mapping[str, int]]
"""Relevance judgments: query id → document id → grade."""

Run: TypeAlias = Mapping[str, Mapping[str, float]]
"""Rankings of many queries: query id → document id → score."""


@dataclass(frozen=True, slots=True)
class Document:
    """What the user adds: an id, a text, and what else is known about it.

    >>> Document("a1", "Zinc shortens a cold.", title="Zinc", fields={"year": 2021}).title
    'Zinc'
    """

    id: str
    text: str
    title: str = ""
    fields: Mapping[str, Value] = field(default_factory=dict)
    source: str = ""
    """Where it is from: a path or an address, for people; not part of what is searched."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk of a document that fits the encoders: `document.text[start:end]`, in characters, or a part of another text
    of the document's."""

    document_id: str
    number: int
    """The place among the document's passages, from 0."""
    start: int
    end: int
    text: str
    title: str = ""
    key: int = -1
    """Given by the store; -1 before that."""
    part: str = ""
    """What of the document it lies in: "" its text, "title", or the name of a field, with the place in a list: "asks[2]"."""

    @property
    def titled_text(self) -> str:
        """What encoders and the word index see: the title, then the text."""
        return f"{self.title} {self.text}".strip() if self.title else self.text


@dataclass(frozen=True, slots=True)
class Ranking:
    """Passages with scores for one query, best first; equal scores stand with the larger key first.

    >>> Ranking.of(np.array([7, 8, 9]), np.array([0.1, 0.9, 0.1])).keys.tolist()
    [8, 9, 7]
    """

    keys: Keys  # (passages,)
    scores: Scores  # (passages,)

    @classmethod
    def of(cls, keys: npt.ArrayLike, scores: npt.ArrayLike, k: int | None = None) -> Ranking:
        """Order passages by score, descending, then key, descending, and keep the first `k`."""
        key_array = np.asarray(keys, dtype=np.int64)
        score_array = np.asarray(scores, dtype=np.float32)
        order = np.lexsort((-key_array, -score_array))[:k]
        return cls(key_array[order], score_array[order])

    @classmethod
    def empty(cls) -> Ranking:
        return cls(np.empty(0, np.int64), np.empty(0, np.float32))

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[tuple[int, float]]:
        return iter(zip(self.keys.tolist(), self.scores.tolist(), strict=True))

    def top(self, k: int) -> Ranking:
        return Ranking(self.keys[:k], self.scores[:k])


@dataclass(frozen=True, slots=True)
class StageScore:
    """What one stage made of one hit: its score and its rank there, from 1; None where the stage did not find it."""

    stage: str
    score: float | None
    rank: int | None


@dataclass(frozen=True, slots=True)
class Hit:
    """One document found, with the passage that was found in it."""

    id: str
    score: float
    rank: int
    text: str
    """The best passage, as it stands in the document."""
    title: str = ""
    start: int = 0
    end: int = 0
    fields: Mapping[str, Value] = field(default_factory=dict)
    source: str = ""
    probability: float | None = None
    """Calibrated probability of relevance; None where nothing was calibrated."""
    stages: tuple[StageScore, ...] = ()
    part: str = ""
    """What of the document the passage lies in, as in Passage."""


# Conditions over fields: what a `where` expression means, once parsed by search/filters.py; store.py turns it into SQL.
# A field with several values meets a comparison if any of its values does. A comparison with a field that a document
# lacks does not hold, whatever the operator, and `not` is the plain complement of what it encloses.

Comparator: TypeAlias = Literal["=", "!=", "<", "<=", ">", ">="]


@dataclass(frozen=True, slots=True)
class Comparison:
    field: str
    operator: Comparator
    value: Scalar


@dataclass(frozen=True, slots=True)
class Membership:
    field: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Between:
    """`low <= field <= high`, both ends included, as in SQL."""

    field: str
    low: Scalar
    high: Scalar


@dataclass(frozen=True, slots=True)
class Like:
    """`%` stands for any text, `_` for one character; letters match in either case."""

    field: str
    pattern: str


@dataclass(frozen=True, slots=True)
class IsNull:
    """The document lacks the field, or holds null there."""

    field: str


@dataclass(frozen=True, slots=True)
class Not:
    condition: Condition


@dataclass(frozen=True, slots=True)
class And:
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Or:
    conditions: tuple[Condition, ...]


Condition: TypeAlias = Comparison | Membership | Between | Like | IsNull | Not | And | Or


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token ids of several texts, packed end to end without padding: the form that networks run on."""

    ids: npt.NDArray[np.int32]  # (tokens,)
    offsets: npt.NDArray[np.int32]  # (texts + 1,): text i is ids[offsets[i]:offsets[i + 1]]
    types: npt.NDArray[np.int32] | None = None  # (tokens,): 0 for the first text of a pair, 1 for the second
    dropped: npt.NDArray[np.int32] | None = None  # (texts,): tokens that did not fit; None where nothing was dropped

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> npt.NDArray[np.int32]:
        return np.diff(self.offsets)  # (texts,)


@runtime_checkable
class Encoder(Protocol):
    """Turns texts into vectors: `encode` is `embed(tokenize(texts))` plus a warning where tokens were dropped."""

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def dimension(self) -> int: ...

    @property
    def max_tokens(self) -> int:
        """Of a document, special tokens included."""
        ...

    def tokenize(self, texts: Sequence[str], *, side: Side = "document") -> Tokens: ...

    def embed(self, tokens: Tokens, *, side: Side = "document") -> Vectors: ...

    def encode(self, texts: Sequence[str], *, side: Side = "document") -> Vectors: ...

    def token_offsets(self, text: str) -> Sequence[tuple[int, int]]:
        """The characters (start, end) of every token of the text, special tokens left out; the chunker counts in these."""
        ...


@runtime_checkable
class Scorer(Protocol):
    """Scores pairs of query and passage; larger is more relevant."""

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    def score(self, pairs: Sequence[tuple[str, str]]) -> Scores: ...
