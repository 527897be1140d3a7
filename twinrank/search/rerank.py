"""A ranking → the same passages in the order of what reads query and passage together, alone or mixed with how they came."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Literal

import numpy as np

from twinrank.errors import ModelError
from twinrank.search.fuse import fuse_by_score
from twinrank.search.retrieve import Source
from twinrank.stopping import Example
from twinrank.types import Keys, Ranking, Scores

Reason = Literal["all", "settled", "deadline", "tokens"]


@dataclass(frozen=True)
class Certificate:
    """How much of a rerank was done, why it ended there, and what that puts at risk."""

    stage: str
    pairs: int
    """Scored, those remembered from before included."""
    of: int
    """Candidates that a full rerank scores."""
    top: int
    """The first places that `risk` is about, in documents."""
    reason: Reason
    risk: float | None
    """A bound on the chance that a full rerank gives other documents there, or another order; 0 where all were scored, None
    where nothing was learned that could tell."""
    note: str = ""

    def __str__(self) -> str:
        told = {
            "all": "all were scored",
            "settled": f"the first {self.top} are settled at a risk of {self.risk:.3g}" if self.risk is not None else "settled",
            "deadline": f"the deadline came, {self._unsettled}",
            "tokens": f"the token budget was used up, {self._unsettled}",
        }[self.reason]
        return f"{self.stage}: {self.pairs} of {self.of} pairs scored, {told}" + (f" ({self.note})" if self.note else "")

    @property
    def _unsettled(self) -> str:
        if self.risk is None:
            return f"and it is not known how likely the others are to change the first {self.top}"
        return f"at a risk of {self.risk:.3g} that the others would change the first {self.top}"


@dataclass(frozen=True)
class Asked:
    """What one search wants of its reranks."""

    k: int = 10
    deadline: float | None = None
    """When to be done, on the clock of `time.perf_counter`."""
    sources: Sequence[Source] = ()
    """Where the candidates came from, opened for the query."""
    observe: Callable[[str, Example], None] | None = None
    """Told a stage's name and the query as an example, by stages that score all of it in order to learn when to stop."""

    @property
    def late(self) -> bool:
        return self.deadline is not None and perf_counter() >= self.deadline


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
        return self._arrange(ranking, head.keys, self._scores(query, head.keys)) if len(head) else ranking

    def run(self, query: str, ranking: Ranking, asked: Asked) -> tuple[Ranking, Certificate]:
        """The ranking, and what was done for it; nothing where the deadline has passed."""
        of = min(len(ranking), self.candidates)
        if of and asked.late:
            return ranking, Certificate(self.name, 0, of, asked.k, "deadline", None)
        return self(query, ranking), Certificate(self.name, of, of, asked.k, "all", 0.0)

    def _scores(self, query: str, keys: Keys) -> Scores:
        scores = self.score(query, keys)
        if scores.shape != (len(keys),) or not np.isfinite(scores).all():
            raise ModelError(
                f"the stage {self.name} gave {scores.shape} scores for {len(keys)} passages, or NaN among them; "
                "expected one finite score a passage. Take another model in [[rerank]]."
            )
        return scores

    def _arrange(self, ranking: Ranking, keys: Keys, scores: Scores) -> Ranking:
        """What was scored, best first, and behind it the rest of the ranking as it came."""
        ordered = Ranking.of(keys, scores)
        if self.weight < 1:
            came = np.isin(ranking.keys, keys)
            before = Ranking(ranking.keys[came], ranking.scores[came])
            ordered = fuse_by_score([before, ordered], [1 - self.weight, self.weight])
        rest = ranking.keys[~np.isin(ranking.keys, keys)]
        # Whatever was not scored stands below what was, one step a place, so that scores still fall along the ranking.
        below = ordered.scores[-1] - 1 - np.arange(len(rest), dtype=np.float32)
        return Ranking(
            np.concatenate([ordered.keys, rest]),
            np.concatenate([ordered.scores, below.astype(np.float32)]),
        )
