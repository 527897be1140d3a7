"""A ranking of passages → one entry a document: where its best passage stands, or what its best passages add up to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from twinrank.types import Keys, Ranking

Grouping = Literal["best", "sum", "none"]


def group(ranking: Ranking, owners: Keys, by: Grouping = "best", most: int = 3, *, scored: int | None = None) -> Ranking:
    """The best passage of every document, in order; `owners` (passages,) are the documents' keys, -1 where one is gone.

    "best": a document stands where its best passage does (MaxP). "sum": the scores of its `most` best passages are added,
    each as its distance above the lowest score of the ranking, so that more evidence never counts against it (SumP, cut
    short). "none": every passage stands for itself. Dai and Callan 2019, Deeper Text Understanding for IR.

    `scored` says that only so many of the first passages have a score, as after a rerank, and the others a place: only the
    scores add up, and a document without one stands where its best passage does.

    >>> ranking, owners = Ranking.of([1, 2, 3, 4], [9, 8, 7, 1]), np.array([5, 6, 6, 7])
    >>> [group(ranking, owners, by).keys.tolist() for by in ("best", "sum", "none")]
    [[1, 2, 4], [2, 1, 4], [1, 2, 3, 4]]
    """
    alive = owners >= 0
    has_score = (np.arange(len(ranking)) < (len(ranking) if scored is None else scored))[alive]
    keys, scores, owners = ranking.keys[alive], ranking.scores[alive], owners[alive]
    if by == "none" or not len(keys):
        return Ranking(keys, scores)
    _, firsts, numbers = np.unique(owners, return_index=True, return_inverse=True)  # (documents,), (documents,), (passages,)
    if by == "best":
        kept = np.sort(firsts)  # still best first
        return Ranking(keys[kept], scores[kept])
    lowest = float(scores[has_score].min()) if has_score.any() else 0.0
    above = np.where(has_score, scores.astype(np.float64) - lowest, 0.0)
    order = np.argsort(numbers, kind="stable")  # passages by document, best first
    starts = np.concatenate([[0], np.flatnonzero(np.diff(numbers[order])) + 1])
    places = np.arange(len(order)) - np.repeat(starts, np.diff(np.concatenate([starts, [len(order)]])))
    totals = np.bincount(numbers[order], weights=np.where(places < most, above[order], 0.0))
    summed = np.bincount(numbers, weights=has_score) > 0  # (documents,)
    return Ranking.of(keys[firsts], np.where(summed, totals + lowest, scores[firsts]))


def group_behind(
    first: Ranking,
    deeper: Ranking,
    owners: Callable[[Keys], Keys],
    by: Grouping = "best",
    most: int = 3,
    *,
    scored: int | None = None,
) -> Ranking:
    """`first` grouped as ever, and behind it the documents that `deeper`, which goes on from it, finds beside them."""
    head = group(first, owners(first.keys), by, most, scored=scored)
    found = group(deeper, owners(deeper.keys), "best" if by == "sum" else by, most)
    beside = ~np.isin(found.keys, first.keys)
    return Ranking(np.concatenate([head.keys, found.keys[beside]]), np.concatenate([head.scores, found.scores[beside]]))
