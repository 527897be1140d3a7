"""Pairs of texts in numbers: find the likeliest duplicates among many vectors, choose a threshold, correlate with judgments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from twinrank.errors import InputError
from twinrank.types import Scores, Vectors

ROWS, COLUMNS = 1024, 8192
"""Of one block of products: 32 MB, whatever the number of texts."""

LOWEST = float(np.finfo(np.float32).min)


class Duplicate(NamedTuple):
    """Two texts, by their places in the list, the earlier first, and how alike they are."""

    first: int
    second: int
    score: float


@dataclass(frozen=True, slots=True)
class Threshold:
    """From which score on a pair counts as positive, and how well that agrees with labelled pairs."""

    value: float
    accuracy: float
    f1: float
    precision: float
    recall: float
    pairs: int


def mine_pairs(vectors: Vectors, *, threshold: float | None = None, k: int = 1000) -> list[Duplicate]:
    """The pairs of rows with the highest products, best first: those of at least `threshold`, and of them no more than `k`.

    Exact: every pair is compared, once, in blocks. Memory is bounded by the blocks and by `k`, not by the pairs. Equal scores
    stand in the order of the list. For cosine, give rows of unit length.

    >>> mine_pairs(np.array([[1, 0], [0, 1], [1, 0], [0.6, 0.8]], np.float32), threshold=0.7)
    [Duplicate(first=0, second=2, score=1.0), Duplicate(first=1, second=3, score=0.800000011920929)]
    """
    if k < 1:
        raise InputError(f"k is {k}; ask for at least 1 pair.")
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise InputError(f"Vectors of shape {vectors.shape} cannot be compared; (texts, dimensions) without NaN was expected.")
    best = _Best(k, -np.inf if threshold is None else threshold)
    for begin in range(0, len(vectors), ROWS):
        rows = vectors[begin : begin + ROWS]
        for left in range(begin, len(vectors), COLUMNS):
            products = rows @ vectors[left : left + COLUMNS].T  # (rows, columns)
            if left < begin + ROWS:  # on the diagonal: each pair once, no text with itself
                below = left + np.arange(products.shape[1]) <= begin + np.arange(len(rows))[:, None]
                products[below] = -np.inf
            places = np.flatnonzero(products >= max(best.floor, LOWEST))
            places = places[_highest(products.reshape(-1)[places], k)]
            first, second = np.divmod(places, products.shape[1])
            best.add(first + begin, second + left, products.reshape(-1)[places])
    return best.sorted()


def _highest(scores: Scores, k: int) -> npt.NDArray[np.int64]:
    """Where the k highest scores are; of equal ones the first are taken. Cheaper than a sort of all."""
    if len(scores) <= k:
        return np.arange(len(scores))
    last = np.partition(scores, len(scores) - k)[len(scores) - k]
    above, equal = np.flatnonzero(scores > last), np.flatnonzero(scores == last)
    return np.concatenate([above, equal[: k - len(above)]])


class _Best:
    """The k best pairs so far; `floor` is the score that a pair needs to be among them, and rises."""

    def __init__(self, k: int, floor: float) -> None:
        self.k, self.floor = k, floor
        self._pairs = np.empty((0, 2), np.int64)
        self._scores = np.empty(0, np.float32)

    def add(self, first: npt.NDArray[np.int64], second: npt.NDArray[np.int64], scores: Scores) -> None:
        if not len(scores):
            return
        self._pairs = np.concatenate([self._pairs, np.stack([first, second], axis=1)])
        self._scores = np.concatenate([self._scores, scores])
        if len(self._scores) > self.k:
            self._keep(self._order()[: self.k])
            self.floor = float(self._scores[-1])

    def sorted(self) -> list[Duplicate]:
        self._keep(self._order())
        return [
            Duplicate(first, second, score)
            for (first, second), score in zip(self._pairs.tolist(), self._scores.tolist(), strict=True)
        ]

    def _order(self) -> npt.NDArray[np.int64]:
        return np.lexsort((self._pairs[:, 1], self._pairs[:, 0], -self._scores))

    def _keep(self, places: npt.NDArray[np.int64]) -> None:
        self._pairs, self._scores = self._pairs[places], self._scores[places]


def choose_threshold(scores: npt.ArrayLike, labels: npt.ArrayLike, *, by: Literal["accuracy", "f1"] = "accuracy") -> Threshold:
    """The threshold that agrees best with labelled pairs: 1 for a pair that belongs together, 0 for one that does not.

    Candidates lie halfway between neighbouring scores; of equally good ones the highest is taken. What it reports is of
    these pairs, so measure it on others with `judge_threshold`.

    >>> choose_threshold([0.9, 0.8, 0.6, 0.2], [1, 1, 0, 0]).value
    0.7
    """
    if by not in ("accuracy", "f1"):
        raise InputError(f"A threshold is chosen by 'accuracy' or 'f1', not {by!r}.")
    values, truths = _checked_labels(scores, labels)
    order = np.argsort(-values, kind="stable")
    ranked = values[order]
    hits = np.concatenate([[0], np.cumsum(truths[order])])  # (pairs + 1,): true ones among the first n
    cuts = np.concatenate([[True], ranked[1:] < ranked[:-1], [True]])  # where the first n can be told from the rest
    counts = np.arange(len(values) + 1)
    positives = int(truths.sum())
    if by == "accuracy":
        quality = hits + (len(values) - positives) - (counts - hits)
    else:
        quality = 2 * hits / np.maximum(counts + positives, 1)
    number = int(np.argmax(np.where(cuts, quality, -1)))
    above = ranked[number - 1] if number else np.nextafter(ranked[0], np.inf)
    below = ranked[number] if number < len(ranked) else above
    value = above if number in (0, len(ranked)) else (above + below) / 2
    if not below < value:  # two neighbouring floats have nothing halfway between them
        value = above
    return judge_threshold(float(value), values, truths)


def judge_threshold(value: float, scores: npt.ArrayLike, labels: npt.ArrayLike) -> Threshold:
    """How well a threshold agrees with labelled pairs: accuracy, and precision, recall and F1 of the positive ones."""
    values, truths = _checked_labels(scores, labels)
    chosen = values >= value
    hits, positives = int((chosen & truths).sum()), int(truths.sum())
    precision = hits / int(chosen.sum()) if chosen.any() else 0.0
    recall = hits / positives if positives else 0.0
    f1 = 2 * hits / (int(chosen.sum()) + positives) if positives else 0.0
    return Threshold(value, float((chosen == truths).mean()), f1, precision, recall, len(values))


def spearman(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Spearman's rank correlation; equal values share the mean of their ranks.

    >>> round(spearman([1, 2, 3, 4], [1, 3, 2, 4]), 6)
    0.8
    """
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if first.shape != second.shape or first.ndim != 1 or len(first) < 2:
        raise InputError(f"Two rows of at least 2 numbers each were expected, not {first.shape} and {second.shape}.")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise InputError("Numbers with NaN or infinity have no ranks.")
    x, y = _ranks(first), _ranks(second)
    if not x.any() or not y.any():
        raise InputError("Numbers that are all equal have no order to compare.")
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Ranks less their mean, so that all equal values give zeros."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: npt.NDArray[np.float64] = ((2 * ends - counts - 1) / 2)[places]
    return ranks - (len(values) - 1) / 2


def _checked_labels(scores: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    values, given = np.asarray(scores, np.float64), np.asarray(labels)
    if values.ndim != 1 or given.shape != values.shape or not len(values):
        raise InputError(f"A label for each score was expected; there are scores {values.shape} and labels {given.shape}.")
    if not np.isfinite(values).all():
        raise InputError(f"Score {int(np.flatnonzero(~np.isfinite(values))[0])} is not a finite number.")
    if not np.isin(given, (0, 1)).all():
        raise InputError(f"Labels are 1 or 0; {given[~np.isin(given, (0, 1))][0]} was given.")
    return values, given.astype(bool)
