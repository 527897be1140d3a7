"""What an engine is asked to do: keep rows, one a passage, with all that belongs to them, and find them again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, runtime_checkable

from twinrank.index.settings import VectorIndexSettings
from twinrank.types import Condition, Keys, Ranking, Value, Vectors


@dataclass(frozen=True, slots=True)
class Row:
    """A passage as an engine keeps it."""

    key: int
    """From 1 to 2**63 - 1: the row's primary key."""
    document: str
    """The id of the document that the passage is of."""
    number: int
    """The passage's place among the document's, from 0: every document has exactly one row of number 0."""
    payload: str
    """Text that the engine gives back as it got it and knows nothing of."""
    fields: Mapping[str, Value] = field(default_factory=dict)
    """What conditions are over: the document's fields, with `id`, `title` and `source` among them. Given back equal."""
    terms: tuple[str, ...] = ()
    """The passage's words as they were analysed, in their order, repetitions too; for searching words. Not given back."""
    vector: Vectors | None = None
    """(dimension,); None where the collection has no vectors, or nobody asked for them."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a new collection in an engine is to hold."""

    dimension: int
    """Of the vectors; 0: there are none."""
    words: bool
    """Whether words are to be searched; an engine that cannot ignores it."""
    index: VectorIndexSettings = field(default_factory=VectorIndexSettings)
    """How vectors are indexed: exact, hnsw, ivf; auto: the engine's usual one. Parameters of 0 are the engine's own."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What an engine takes at most; more is refused before anything is sent."""

    payload: int
    """Bytes of a row's payload in UTF-8."""
    document: int
    """Bytes of a document's id in UTF-8."""
    k: int
    """Passages that one search gives."""
    dimension: int
    fields: int = 2**31
    """Bytes of a row's fields as JSON."""


@runtime_checkable
class Engine(Protocol):
    """One collection in an engine.

    What `upsert`, `delete` and `set_meta` returned from is durable as far as the engine promises that, and is seen by every
    later call of this object. Every method raises EngineError where the engine cannot be reached, refuses, or goes away, after
    transient errors were tried again for as long as PATIENCE says; whatever a call that failed had done, calling it again
    completes it. May be used from several threads.

    A `where` that the engine's language cannot say exactly lets more rows pass than it should, never fewer: `exact` tells, and
    the caller looks at the fields again.
    """

    title: ClassVar[str]
    """What people call it: Milvus."""
    proven: ClassVar[str]
    """What it was run against: "live against Milvus 2.3.5 and Milvus Lite 3.2", or "only against a simulated wire"."""
    limits: ClassVar[Limits]

    @property
    def words(self) -> bool:
        """Whether `search_words` can be asked."""
        ...

    # -- the collection ----------------------------------------------------------------------------------------------------

    def exists(self) -> bool: ...

    def create(self, layout: Layout) -> None:
        """Make the collection; where it exists already with all its parts, do nothing."""
        ...

    def drop(self) -> None:
        """Delete the collection with all that it holds, its meta too; where there is none, do nothing."""
        ...

    def describe(self) -> dict[str, str]:
        """What there is to say of it, for people: the server's version, the kind of index and its parameters, bytes…"""
        ...

    def get_meta(self, name: str) -> str | None:
        """A text of any length that `set_meta` kept under a name of ASCII letters, digits, blanks, -, _ and dots."""
        ...

    def set_meta(self, name: str, value: str) -> None: ...

    def settle(self) -> None:
        """Called after much was written, as at the end of an `add`: index what is not indexed yet, if it is worth it."""
        ...

    def close(self) -> None: ...

    # -- rows --------------------------------------------------------------------------------------------------------------

    def upsert(self, rows: Sequence[Row]) -> None:
        """Put rows in, or in the place of those with the same keys; any number, sent in batches."""
        ...

    def delete(self, keys: Keys) -> None:
        """Remove these rows; those that are not there are no error."""
        ...

    def fetch(self, keys: Keys, *, vectors: bool = False) -> dict[int, Row]:
        """The rows that are there, by key, without terms."""
        ...

    def rows_of(self, documents: Sequence[str], *, vectors: bool = False) -> list[Row]:
        """All rows of these documents, in any order."""
        ...

    def count(self, where: Condition | None = None, *, documents: bool = False) -> int:
        """How many rows there are that `where` lets pass; with `documents` only those of number 0, one a document."""
        ...

    def iterate(self, where: Condition | None = None, *, documents: bool = False, vectors: bool = False) -> Iterator[list[Row]]:
        """Every row once, in batches of the engine's choosing, in any order; with `documents` only those of number 0."""
        ...

    # -- searching ---------------------------------------------------------------------------------------------------------

    def exact(self, where: Condition) -> bool:
        """Whether this condition is said exactly."""
        ...

    def search_vectors(self, vector: Vectors, k: int, where: Condition | None = None, keys: Keys | None = None) -> Ranking:
        """The `k` rows of the largest dot product with `vector` (dimension,), which is their score.

        Among those that `where` lets pass, and among `keys` where these are given; approximately, where the index is.
        """
        ...

    def search_words(self, terms: Sequence[str], k: int, where: Condition | None = None, keys: Keys | None = None) -> Ranking:
        """The `k` best rows by BM25 for these analysed words, as far as they hold any; a repeated word counts as often."""
        ...

    def words_bound(self, terms: Sequence[str]) -> float | None:
        """The largest score that a row could have for these words; None where nobody knows."""
        ...
