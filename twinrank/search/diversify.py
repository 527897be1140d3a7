"""A ranking → one that repeats itself less: maximal marginal relevance over the passages' vectors."""

from __future__ import annotations

import numpy as np

from twinrank.types import Ranking, Vectors


def diversify(ranking: Ranking, vectors: Vectors, k: int, diversity: float) -> Ranking:
    """Choose `k` passages one by one, each by (1 - diversity) · score - diversity · its largest similarity to those chosen.

    Carbonell and Goldstein, SIGIR 1998, with λ = 1 - diversity. `vectors` (passages, dimension), normalised, stand in the
    ranking's order. What was chosen keeps its scores and stands by them.

    >>> ranking = Ranking.of([1, 2, 3], [0.9, 0.89, 0.5])
    >>> diversify(ranking, np.array([[1, 0], [1, 0], [0, 1]], np.float32), 2, 0.5).keys.tolist()
    [1, 3]
    """
    likeness = vectors @ vectors.T  # (passages, passages)
    chosen: list[int] = []
    left = np.ones(len(ranking), bool)
    nearest = np.zeros(len(ranking))  # similarity to the most similar one chosen
    while len(chosen) < min(k, len(ranking)):
        worth = np.where(left, (1 - diversity) * ranking.scores - diversity * nearest, -np.inf)
        best = int(np.argmax(worth))
        chosen.append(best)
        left[best] = False
        nearest = np.maximum(nearest, likeness[best]) if len(chosen) > 1 else likeness[best].astype(float)
    return Ranking.of(ranking.keys[chosen], ranking.scores[chosen])
