"""Several rankings of the same passages → one, by reciprocal rank or by normalised and weighted scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from twinrank.search.retrieve import Source, union
from twinrank.types import Ranking


@dataclass(frozen=True)
class Fusion:
    """How the rankings of several sources become one; `weights` go by the sources' names."""

    method: Literal["score", "rank"]
    weights: Mapping[str, float]
    constant: int = 60

    def __call__(self, sources: Sequence[Source], rankings: Sequence[Ranking]) -> Ranking:
        weights = [self.weights[source.name] for source in sources]
        if self.method == "rank":
            return fuse_by_rank(rankings, weights, constant=self.constant)
        return fuse_by_score(complete(sources, rankings), weights)


def complete(sources: Sequence[Source], rankings: Sequence[Ranking]) -> list[Ranking]:
    """The rankings with every candidate of the others scored too, so that a score fusion compares like with like.

    A passage that a source knows nothing of even then, as BM25 of one that holds none of the query's words, gets 0.
    """
    keys = union(rankings)
    completed = []
    for source, ranking in zip(sources, rankings, strict=True):
        scored = source.score(np.setdiff1d(keys, ranking.keys))
        absent = np.setdiff1d(keys, np.concatenate([ranking.keys, scored.keys]))
        completed.append(
            Ranking.of(
                np.concatenate([ranking.keys, scored.keys, absent]),
                np.concatenate([ranking.scores, scored.scores, np.zeros(len(absent), np.float32)]),
            )
        )
    return completed


def fuse_by_rank(rankings: Sequence[Ranking], weights: Sequence[float] | None = None, *, constant: int = 60) -> Ranking:
    """Reciprocal rank fusion: the sum over rankings of weight / (constant + rank), rank from 1.

    Cormack, Clarke and Büttcher, Reciprocal Rank Fusion outperforms Condorcet, SIGIR 2009, with their constant of 60.

    >>> first, second = Ranking.of([1, 2], [0.9, 0.8]), Ranking.of([2, 3], [7.0, 5.0])
    >>> fuse_by_rank([first, second]).keys.tolist()
    [2, 1, 3]
    """
    keys = union(rankings)
    total = np.zeros(len(keys))
    for ranking, weight in zip(rankings, weights or [1.0] * len(rankings), strict=True):
        places = np.searchsorted(keys, ranking.keys)
        total[places] += weight / (constant + 1 + np.arange(len(ranking)))
    return Ranking.of(keys, total)


def fuse_by_score(rankings: Sequence[Ranking], weights: Sequence[float] | None = None) -> Ranking:
    """The weighted mean of scores after each ranking's are spread over 0 to 1 (min-max), a missing passage counting 0.

    A convex combination learns more from scores than from ranks alone: Bruch, Gai and Ingber, An Analysis of Fusion
    Functions for Hybrid Retrieval, TOIS 2023. Give rankings that score the same passages, so that 0 means worst, not unknown.

    >>> first, second = Ranking.of([1, 2], [0.9, 0.1]), Ranking.of([2, 3], [7.0, 5.0])
    >>> fuse_by_score([first, second], [3, 1]).keys.tolist()
    [1, 2, 3]
    """
    keys = union(rankings)
    chosen = weights or [1.0] * len(rankings)
    total = np.zeros(len(keys))
    for ranking, weight in zip(rankings, chosen, strict=True):
        total[np.searchsorted(keys, ranking.keys)] += weight * spread(ranking.scores)
    return Ranking.of(keys, total / (sum(chosen) or 1.0))


def spread(scores: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Scores moved and stretched so that the lowest is 0 and the highest 1; all 1 where they are all equal."""
    values = np.asarray(scores, dtype=np.float64)
    if not len(values):
        return values
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.ones_like(values)
