"""What is asked of an index over words and of one over vectors, wherever they are: in a collection's files, or in an engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from twinrank.types import Keys, Ranking, Vectors


class TermFacts(NamedTuple):
    """What the score of one term in one passage is made of."""

    passages: int
    """That hold it: n."""
    idf: float
    frequency: int
    """Of the term in the passage: f; 0 where it is not there."""


class WordSearch(Protocol):
    """BM25 over analysed terms."""

    def search(self, terms: Sequence[str], k: int, allowed: Keys | None = None) -> Ranking: ...

    def bound(self, terms: Sequence[str]) -> float | None:
        """The largest score that a passage could have; None where nobody knows."""
        ...

    def explain(self, terms: Sequence[str], key: int) -> list[tuple[str, float]]:
        """What each of the terms that the passage holds adds to its score, largest first; the sum is the score."""
        ...

    def facts(self, term: str, key: int) -> TermFacts: ...


def scores_of_terms(index: WordSearch, terms: Sequence[str], key: int) -> list[tuple[str, float]]:
    """What `explain` gives, by asking for each term alone."""
    parts: list[tuple[str, float]] = []
    for term, count in Counter(terms).items():
        parts.extend((term, score) for _, score in index.search([term] * count, 1, np.array([key])))
    return sorted(parts, key=lambda part: (-part[1], part[0]))


class VectorSearch(Protocol):
    """One vector a passage."""

    def __len__(self) -> int: ...

    @property
    def keys(self) -> Keys:
        """The passages; of a very large index, some drawn by chance."""
        ...

    @property
    def plan(self) -> str:
        """How this thread's last search went, in words."""
        ...

    def search(self, vector: npt.ArrayLike, k: int, allowed: Keys | None = None) -> Ranking: ...

    def vectors(self, keys: npt.ArrayLike) -> Vectors:
        """The vectors of `keys` (n, dimension), in that order; raises InputError for a key that is not in the index."""
        ...
