"""A ranking of passages → one entry a document: where its best passage stands, or what its best passages add up to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from twinrank.types import Keys, Ranking

Grouping = Literal["best", "sum", "none"]


def group(ranking: Ranking, owners: Keys, by: Grouping = "best", most: int = 3) -> Ranking:
    """The best passage of every document, in order; `owners` (passages,) are the documents' keys, -1 where one is gone.

    "best": a document stands where its best passage does (MaxP). "sum": the scores of its `most` best passages are added,
    each as its distance above the lowest score of the ranking, so that more evidence never counts against it (SumP, cut
    short). "none": every passage stands for itself. Dai and Callan 2019, Deeper Text Understanding for IR.

    >>> ranking, owners = Ranking.of([1, 2, 3, 4], [9, 8, 7, 1]), np.array([5, 6, 6, 7])
    >>> [group(ranking, owners, by).keys.tolist() for by in ("best", "sum", "none")]
    [[1, 2, 4], [2, 1, 4], [1, 2, 3, 4]]
    """
    alive = owners >= 0
    keys, scores, owners = ranking.keys[alive], ranking.scores[alive], owners[alive]
    if by == "none" or not len(keys):
        return Ranking(keys, scores)
    _, firsts, numbers = np.unique(owners, return_index=True, return_inverse=True)  # (documents,), (documents,), (passages,)
    if by == "best":
        kept = np.sort(firsts)  # still best first
        return Ranking(keys[kept], scores[kept])
    above = scores.astype(np.float64) - scores.min()
    order = np.argsort(numbers, kind="stable")  # passages by document, best first
    starts = np.concatenate([[0], np.flatnonzero(np.diff(numbers[order])) + 1])
    places = np.arange(len(order)) - np.repeat(starts, np.diff(np.concatenate([starts, [len(order)]])))
    totals = np.bincount(numbers[order], weights=np.where(places < most, above[order], 0.0))
    return Ranking.of(keys[firsts], totals + scores.min())


def group_behind(
    first: Ranking, deeper: Ranking, owners: Callable[[Keys], Keys], by: Grouping = "best", most: int = 3
) -> Ranking:
    """`first` grouped as ever, and behind it the documents that `deeper`, which goes on from it, finds beside them."""
    head = group(first, owners(first.keys), by, most)
    found = group(deeper, owners(deeper.keys), "best" if by == "sum" else by, most)
    beside = ~np.isin(found.keys, first.keys)
    return Ranking(np.concatenate([head.keys, found.keys[beside]]), np.concatenate([head.scores, found.scores[beside]]))
