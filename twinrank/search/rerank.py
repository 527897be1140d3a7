"""A ranking → the same passages in the order of a Scorer that reads query and passage together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from twinrank.errors import ModelError
from twinrank.types import Keys, Ranking, Scorer


@dataclass(frozen=True)
class Rerank:
    """Scores the first `candidates` passages; those below keep their order behind them."""

    name: str
    scorer: Scorer
    texts: Callable[[Keys], Sequence[str]]
    """The passages' texts, in the order of the keys."""
    candidates: int = 50

    def __call__(self, query: str, ranking: Ranking) -> Ranking:
        head = ranking.top(self.candidates)
        if not len(head):
            return ranking
        scores = self.scorer.score([(query, text) for text in self.texts(head.keys)])
        if scores.shape != (len(head),) or not np.isfinite(scores).all():
            raise ModelError(
                f"the reranker {self.scorer.name} gave {scores.shape} scores for {len(head)} passages, or NaN among them; "
                "expected one finite score a passage. Take another model in [[rerank]]."
            )
        ordered = Ranking.of(head.keys, scores)
        # Whatever was not scored stands below what was, one step a place, so that scores still fall along the ranking.
        below = ordered.scores[-1] - 1 - np.arange(len(ranking) - len(head), dtype=np.float32)
        return Ranking(
            np.concatenate([ordered.keys, ranking.keys[len(head) :]]),
            np.concatenate([ordered.scores, below.astype(np.float32)]),
        )
