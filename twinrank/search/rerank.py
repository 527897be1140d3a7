"""A ranking → the same passages in the order of what reads query and passage together, alone or mixed with how they came."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from twinrank.errors import ModelError
from twinrank.search.fuse import fuse_by_score
from twinrank.types import Keys, Ranking, Scores


@dataclass(frozen=True)
class Rerank:
    """Scores the first `candidates` passages; those below keep their order behind them."""

    name: str
    score: Callable[[str, Keys], Scores]
    """(query, passages) → (passages,), larger is more relevant."""
    candidates: int = 50
    weight: float = 1.0
    """Below 1, the scores are mixed with those of the ranking that came in, both spread over 0 to 1."""

    def __call__(self, query: str, ranking: Ranking) -> Ranking:
        head = ranking.top(self.candidates)
        if not len(head):
            return ranking
        scores = self.score(query, head.keys)
        if scores.shape != (len(head),) or not np.isfinite(scores).all():
            raise ModelError(
                f"the stage {self.name} gave {scores.shape} scores for {len(head)} passages, or NaN among them; "
                "expected one finite score a passage. Take another model in [[rerank]]."
            )
        ordered = Ranking.of(head.keys, scores)
        if self.weight < 1:
            ordered = fuse_by_score([head, ordered], [1 - self.weight, self.weight])
        # Whatever was not scored stands below what was, one step a place, so that scores still fall along the ranking.
        below = ordered.scores[-1] - 1 - np.arange(len(ranking) - len(head), dtype=np.float32)
        return Ranking(
            np.concatenate([ordered.keys, ranking.keys[len(head) :]]),
            np.concatenate([ordered.scores, below.astype(np.float32)]),
        )
