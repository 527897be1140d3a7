"""A rerank that stops when the first places are settled to a stated risk, or when its deadline or its token budget ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
import numpy.typing as npt

from twinrank.search.fuse import spread
from twinrank.search.rerank import Asked, Certificate, Reason, Rerank
from twinrank.search.retrieve import Source
from twinrank.stopping import (
    Array,
    Candidates,
    Example,
    Expectation,
    Places,
    Rule,
    first_batch,
    look_ahead,
    next_batch,
)
from twinrank.types import Keys, Ranking, Scores, Vectors

RESERVE = 0.003
"""Seconds before the deadline that are left to what follows a rerank: reading the documents."""


class Pace:
    """Seconds that a token costs on this machine, learned from the batches as they run; threads may share it.

    >>> pace = Pace()
    >>> pace.seconds(100) is None
    True
    >>> pace.note(tokens=1000, seconds=0.1)
    >>> round(pace.seconds(100), 4)  # a quarter more than measured: a batch that comes late costs more than one left out
    0.0125
    """

    MARGIN = 1.25
    WEIGHT = 0.3  # of the latest batch

    def __init__(self) -> None:
        self._a_token: float | None = None
        self._lock = threading.Lock()

    def note(self, tokens: int, seconds: float) -> None:
        if tokens <= 0:
            return
        with self._lock:
            latest, known = seconds / tokens, self._a_token
            self._a_token = latest if known is None else (1 - self.WEIGHT) * known + self.WEIGHT * latest

    def seconds(self, tokens: float) -> float | None:
        """What so many tokens will cost; None before the first measurement."""
        return None if self._a_token is None else self.MARGIN * self._a_token * tokens


@dataclass(frozen=True)
class Anytime(Rerank):
    """Scores candidates in growing batches, the likeliest to enter the first places in front, until these are settled.

    With a risk of 0, no deadline and no budget it is the full rerank: one call for all candidates. So it is, whatever the risk,
    where no `rule` was learned, or from too few queries for that risk; the certificate says so.
    """

    risk: float = 0.0
    top: int = 0
    """The first places to settle; 0: as many as the search wants."""
    tokens: int = 0
    """At most so many tokens of pairs a query; 0: no limit."""
    rule: Rule | None = None
    without_rule: str = ""
    """Why there is none, and what to do."""
    count_tokens: Callable[[str, Keys], npt.NDArray[np.int64]] | None = None
    """(query, passages) → what each pair costs; where it is missing, every pair counts as one token."""
    owners: Callable[[Keys], Keys] | None = None
    """The document of each passage; where it is missing, every passage is a document."""
    vectors: Callable[[Keys], Vectors] | None = None
    """The stored vectors of the passages, of length 1."""
    pace: Pace = field(default_factory=Pace)

    def run(self, query: str, ranking: Ranking, asked: Asked) -> tuple[Ranking, Certificate]:
        head = ranking.top(self.candidates)
        top = min(self.top or asked.k, asked.k)
        if not len(head):
            return ranking, Certificate(self.name, 0, 0, top, "all", 0.0)
        threshold, note = self._threshold(top)
        if not self.tokens and asked.deadline is None and threshold == -np.inf:
            return self._run_all(query, ranking, head, top, note, asked)
        return _Run(self, query, ranking, head, top, threshold, asked, note).run()

    def _threshold(self, top: int) -> tuple[float, str]:
        if self.risk <= 0:
            return -np.inf, ""
        if self.rule is None:
            return -np.inf, self.without_rule
        threshold = self.rule.threshold(self.risk, top)
        if threshold == -np.inf:
            return threshold, f"{self.rule.queries} queries were learned from: too few for a risk of {self.risk:g} at top {top}"
        return threshold, ""

    def _run_all(
        self, query: str, ranking: Ranking, head: Ranking, top: int, note: str, asked: Asked
    ) -> tuple[Ranking, Certificate]:
        scores = self._scores(query, head.keys)
        if asked.observe is not None:
            asked.observe(self.name, Example(self.describe(head, asked.sources), scores.astype(np.float64)))
        certificate = Certificate(self.name, len(head), len(head), top, "all", 0.0, note)
        return self._arrange(ranking, head.keys, scores), certificate

    def describe(self, head: Ranking, sources: Sequence[Source]) -> Candidates:
        """The candidates as the rule sees them."""
        owners = head.keys if self.owners is None else self.owners(head.keys)
        vectors = None if self.vectors is None else self.vectors(head.keys).astype(np.float64)
        return Candidates(features(head, sources), owners, vectors)


def features(head: Ranking, sources: Sequence[Source]) -> Array:
    """The score and the logarithm of the rank that a candidate came with; each source's score, as it is and spread over 0 to 1.

    (candidates, 2 + 2 sources). A source that knows nothing of a passage gives it 0, as in a fusion by score.
    """
    columns = [head.scores.astype(np.float64), np.log1p(np.arange(len(head)))]
    for source in sources:
        known = dict(iter(source.score(head.keys)))
        scores = np.array([known.get(key, 0.0) for key in head.keys.tolist()])
        columns += [scores, spread(scores)]
    return np.column_stack(columns)


@dataclass
class _Run:
    """One query's rerank under way."""

    stage: Anytime
    query: str
    ranking: Ranking
    head: Ranking
    top: int
    threshold: float
    asked: Asked
    note: str
    scored: Places = field(default_factory=lambda: np.empty(0, np.int64))
    scores: Scores = field(default_factory=lambda: np.empty(0, np.float32))
    spent: int = 0

    def run(self) -> tuple[Ranking, Certificate]:
        reason: Reason | None = "deadline" if self.asked.late else None
        doubt = np.inf
        if reason is None:
            candidates, expected = self._prepare()
            waiting = np.arange(len(self.head)) if expected is None else first_batch(expected)
        while reason is None:
            batch, reason = self._affordable(waiting[: next_batch(len(self.scored), len(self.head))])
            self._score(batch)
            if len(self.scored) == len(self.head):
                reason = "all"
            elif expected is None:
                waiting = waiting[len(batch) :]
            else:
                doubt, waiting = look_ahead(expected, candidates.owners, self.scored, self.scores.astype(np.float64), self.top)
                if doubt < self.threshold:
                    reason = "settled"
        return self._answer(reason, doubt)

    def _prepare(self) -> tuple[Candidates, Expectation | None]:
        """Without a rule there is nothing to expect, and candidates are scored in the order in which they came."""
        rule = self.stage.rule
        if rule is None:
            return Candidates(np.empty((len(self.head), 0)), self.head.keys), None
        candidates = self.stage.describe(self.head, self.asked.sources)
        return candidates, rule.model.expect(candidates)

    def _affordable(self, batch: Places) -> tuple[Places, Reason | None]:
        """As much of the batch as the deadline and the budget allow, and what cut it short."""
        budget, deadline, count = self.stage.tokens, self.asked.deadline, self.stage.count_tokens
        if not budget and deadline is None:
            return batch, None
        counted = np.ones(len(batch), np.int64) if count is None else count(self.query, self.head.keys[batch])
        costs = np.cumsum(counted)
        fit = len(batch)
        reason: Reason | None = None
        if budget and (within := int(np.searchsorted(costs, budget - self.spent, side="right"))) < fit:
            fit, reason = within, "tokens"
        if deadline is not None:
            left = deadline - RESERVE - perf_counter()
            seconds = self.stage.pace.seconds(1.0)
            # Before the first measurement one pair tells what a token costs.
            within = int(left > 0) if seconds is None else int(np.searchsorted(costs * seconds, left, side="right"))
            if seconds is None and within and fit > 1:
                fit, reason = 1, None
            elif within < fit:
                fit, reason = within, "deadline"
        self._cost = int(costs[fit - 1]) if fit else 0
        return batch[:fit], reason

    def _score(self, batch: Places) -> None:
        if not len(batch):
            return
        started = perf_counter()
        fresh = self.stage._scores(self.query, self.head.keys[batch])
        if self.asked.deadline is not None or self.stage.tokens:
            self.stage.pace.note(self._cost, perf_counter() - started)
            self.spent += self._cost
        self.scored = np.concatenate([self.scored, batch])
        self.scores = np.concatenate([self.scores, fresh])

    def _answer(self, reason: Reason, doubt: float) -> tuple[Ranking, Certificate]:
        stage, of = self.stage, len(self.head)
        risk: float | None = 0.0
        if reason == "settled":
            risk = stage.risk
        elif reason != "all":
            risk = None if stage.rule is None or not len(self.scored) else stage.rule.risk(doubt, self.top)
        note = self.note
        if not len(self.scored) and reason == "deadline":
            note = "it had passed, or left no time for one pair, when the candidates were found; they stand as they came"
        certificate = Certificate(stage.name, len(self.scored), of, self.top, reason, risk, note)
        if not len(self.scored):
            return self.ranking, certificate
        return stage._arrange(self.ranking, self.head.keys[self.scored], self.scores), certificate
