"""Several rankings of the same passages → one, by scores or by ranks, with weights that are decided for each query or fixed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from twinrank.search.retrieve import Source, union
from twinrank.search.weights import Decided, Values, Views, decide
from twinrank.types import Keys, Ranking

FusionMethod = Literal["auto", "score", "rank"]


@dataclass(frozen=True)
class Weighing:
    """What was decided for one query: what a point of each source's score adds to the fused one."""

    decided: tuple[Decided, ...]
    """One for each form of the query."""
    slopes: tuple[float, ...]
    """By source, in their order."""

    def __str__(self) -> str:
        return "; ".join(map(str, self.decided))


@dataclass(frozen=True)
class Fusion:
    """How the rankings of several sources become one; `weights` go by the sources' names.

    `auto` decides between vectors and words for each query, and fuses by fixed weights what is not these two.
    """

    method: FusionMethod
    weights: Mapping[str, float]
    constant: int = 60
    views: Views = field(default_factory=Views)

    def __call__(self, sources: Sequence[Source], rankings: Sequence[Ranking]) -> Ranking:
        return self.fuse(sources, rankings)[0]

    def fuse(
        self, sources: Sequence[Source], rankings: Sequence[Ranking], weighing: Weighing | None = None
    ) -> tuple[Ranking, Weighing | None]:
        """Also what was decided; `weighing` is what was decided for the same query before, to be used again."""
        weights = [self.weights[source.name] for source in sources]
        if self.method == "rank":
            return fuse_by_rank(rankings, weights, constant=self.constant), None
        completed = complete(sources, rankings)
        if self.method == "score" or not _are_vectors_and_words(sources):
            return fuse_by_score(completed, weights), None
        keys, table = _table(completed)
        if not len(keys):
            return Ranking.empty(), weighing
        if weighing is None:
            weighing = weigh(table, [source.bound() for source in sources], self.views, self._usual_share)
        return Ranking.of(keys, np.asarray(weighing.slopes) @ table), weighing

    @property
    def _usual_share(self) -> float:
        vectors, words = self.weights["vectors"], self.weights["words"]
        return vectors / (vectors + words)


def _are_vectors_and_words(sources: Sequence[Source]) -> bool:
    """Whether they are these two, once for each form of the query."""
    names = [source.name for source in sources]
    return len(names) > 1 and names == ["vectors", "words"] * (len(names) // 2)


def _table(rankings: Sequence[Ranking]) -> tuple[Keys, Values]:
    """Rankings of the same passages → (passages,), (rankings, passages)."""
    orders = [np.argsort(ranking.keys) for ranking in rankings]
    table = [ranking.scores[order].astype(np.float64) for ranking, order in zip(rankings, orders, strict=True)]
    return rankings[0].keys[orders[0]], np.stack(table)


def weigh(table: Values, bounds: Sequence[float | None], views: Views, usual: float) -> Weighing:
    """Scores of vectors and words in turn, (2 · forms, passages), and the largest scores there could be → what each is worth.

    The weights hold for scores that are standardised over the candidates. A standardised score is a line in the score itself,
    so the same order comes from a weighted mean of the scores as shares of their bounds: a cosine as it is, and BM25 as a share
    of what a passage would get that is full of the query's words. Such a mean says the same whatever the other candidates are,
    where min-max would give a lone candidate 1.
    """
    decided, slopes = [], []
    for cosines, points, bound in zip(table[::2], table[1::2], bounds[1::2], strict=True):
        chosen = decide(cosines, views, usual)
        largest = bound or float(points.max(initial=0.0)) or 1.0
        spreads = float(cosines.std()), float(points.std()) / largest
        share = chosen.vectors
        if min(spreads) > 1e-9:
            parts = share / spreads[0], (1 - share) / spreads[1]
            share = parts[0] / sum(parts)
        decided.append(chosen)
        slopes += [share, (1 - share) / largest]
    return Weighing(tuple(decided), tuple(slope / len(decided) for slope in slopes))


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
