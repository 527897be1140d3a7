"""Passages in memory beside the files of a word index, and BM25 over them by the statistics of the whole."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from twinrank.types import Keys, Ranking

K1 = 1.2
B = 0.75
"""The parameters of BM25; tantivy fixes them."""

EXACT_LENGTHS = 24
DEAD_LEAST = 1024
"""Rows of passages that were replaced or removed, which stay until there are so many and more than of those alive."""


@dataclass(frozen=True)
class WordTail:
    """Never changed, only replaced; what a newer one adds lies beyond what an older one looks at."""

    rows: Mapping[int, int] = field(default_factory=dict)
    """Key → row, of those that are alive."""
    tokens: int = 0
    """Terms of all that are alive, repeated ones too."""
    keys: list[int] = field(default_factory=list)  # of every row; shared with older and newer ones, and only added to
    terms: list[Sequence[str]] = field(default_factory=list)  # the same
    postings: dict[str, list[tuple[int, int]]] = field(default_factory=dict)  # term → (row, times); the same

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def average(self) -> float:
        """The length of a passage in terms."""
        return self.tokens / max(1, len(self)) or 1.0

    @property
    def some_terms(self) -> Sequence[str]:
        """Of one of its passages."""
        return self.terms[next(iter(self.rows.values()))] if self.rows else ()

    def items(self) -> Iterator[tuple[int, Sequence[str]]]:
        """(key, terms) of each passage."""
        return ((key, self.terms[row]) for key, row in self.rows.items())

    def __contains__(self, key: int) -> bool:
        return key in self.rows

    def with_added(self, keys: Iterable[int], terms: Iterable[Sequence[str]]) -> WordTail:
        """With passages that are not there."""
        rows, tokens = dict(self.rows), self.tokens
        for key, words in zip(keys, terms, strict=True):
            rows[key] = len(self.keys)
            for term, times in Counter(words).items():
                self.postings.setdefault(term, []).append((rows[key], times))
            self.keys.append(key)
            self.terms.append(words)
            tokens += len(words)
        return replace(self, rows=rows, tokens=tokens)

    def without(self, keys: Iterable[int]) -> WordTail:
        """Keys that are not there are passed over."""
        rows, tokens = dict(self.rows), self.tokens
        for key in keys:
            if (row := rows.pop(key, None)) is not None:
                tokens -= len(self.terms[row])
        if len(self.keys) - len(rows) > max(DEAD_LEAST, len(rows)):
            return WordTail().with_added(rows, [self.terms[row] for row in rows.values()])
        return replace(self, rows=rows, tokens=tokens)

    def holding(self, term: str) -> dict[int, int]:
        """Row → how often the term stands there, of the passages that hold it."""
        found = self.postings.get(term, ())
        return {row: times for row, times in tuple(found) if self.rows.get(self.keys[row]) == row}

    def times(self, term: str, key: int) -> int:
        return self.holding(term).get(self.rows[key], 0)

    def search(self, weights: Mapping[str, np.float32], average: float) -> Ranking:
        """All passages that hold any of these terms, each term with its weight: idf · (k1 + 1), times how much it counts.

        Computed in float32 as tantivy does, so that passages which are equal there and here score the same.
        """
        scores: dict[int, np.float32] = {}
        for term, weight in weights.items():
            for row, times in self.holding(term).items():
                score = weight * _saturated(times, kept_length(len(self.terms[row])), average)
                scores[row] = scores.get(row, np.float32(0)) + score
        keys: Keys = np.array([self.keys[row] for row in scores], np.int64)
        return Ranking.of(keys, np.array(list(scores.values()), np.float32))


def kept_length(terms: int) -> int:
    """A passage's length as tantivy and Lucene keep it, in one byte: exact up to 40 terms, then with four binary digits.

    >>> [kept_length(terms) for terms in (0, 40, 41, 42, 59, 60, 1000)]
    [0, 40, 40, 42, 56, 60, 984]
    """
    rest = terms - EXACT_LENGTHS
    digits = rest.bit_length() - 4 if rest > 0 else 0
    return terms if digits <= 0 else EXACT_LENGTHS + (rest >> digits << digits)


def _saturated(times: int, length: int, average: float) -> np.float32:
    """f / (f + k1 · (1 - b + b · length / average length))"""
    one, b = np.float32(1), np.float32(B)
    norm = np.float32(K1) * (one - b + b * np.float32(length) / np.float32(average))
    share: np.float32 = np.float32(times) / (np.float32(times) + norm)
    return share


def weight_of(idf: np.float32) -> np.float32:
    weight: np.float32 = idf * np.float32(1 + K1)
    return weight


def idf_of(passages: int, holding: int) -> np.float32:
    """ln(1 + (passages - n + 0.5) / (n + 0.5))"""
    half = np.float32(0.5)
    ratio = (np.float32(max(passages - holding, 0)) + half) / (np.float32(holding) + half)
    rounded: np.float32 = np.float32(math.log(np.float32(1) + ratio))
    return rounded
