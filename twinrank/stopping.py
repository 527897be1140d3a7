"""When a rerank may stop: a model of the scores to come, learned without labels, and thresholds that keep a stated risk.

A rerank has scored some of its candidates and asks whether any other could still enter the first k. The model predicts the
scores to come from what the first stage knows (features) and from the scores that are there already: a linear mean, learned
over queries, and a Gaussian process over one query's differences from it. Its covariance says that a query lies high or low as
a whole, that it weighs the features its own way, and that passages with near vectors have near scores. The `doubt` is the
logarithm of how many of the rest are expected above the k-th best score.

The model only orders situations by how doubtful they are; no promise rests on its being right. The promise comes from
calibration: on queries that were reranked fully, and that the model was not fitted on, it is known at what doubt stopping
would have been a mistake. The number of mistakes can only grow with the threshold, so the largest one whose Clopper-Pearson
upper bound stays within the risk is taken (Bates et al. 2021, Distribution-Free, Risk-Controlling Prediction Sets; for
candidate sets Li et al. 2022, Certified Error Control of Candidate Set Pruning). It holds for queries of the same kind as those
learned from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from twinrank.errors import InputError

Array = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

CONFIDENCE = 0.95
"""That the share of changed answers is within the risk, over the draw of the queries that were learned from."""

TOPS = (1, 3, 5, 10, 20)
"""For how many places thresholds are learned; what is settled for more places is settled for fewer."""

FIRST_BATCH, GROWTH, SMALLEST_BATCH = 10, 1.25, 4
"""Batches grow with what is scored already, so that their number grows with its logarithm."""

FITTED = (20, 150)
"""At least and at most so many queries are for the model; it takes a third, all others calibrate."""

WEIGHED = 40
"""Queries over which the covariance is fitted."""


@dataclass(frozen=True)
class Candidates:
    """One query's candidates, in the first stage's order."""

    features: Array
    """(candidates, features): what is known before the rerank."""
    owners: Places
    """(candidates,): the document of each; the first k are counted in documents."""
    vectors: Array | None = None
    """(candidates, dimension), of length 1; None where there are none."""

    def __len__(self) -> int:
        return len(self.owners)


@dataclass(frozen=True)
class Example:
    """A query that was reranked fully."""

    candidates: Candidates
    scores: Array  # (candidates,)


@dataclass(frozen=True)
class Covariance:
    """Of one query's differences from the mean: its own level, its own weights of the features, nearness, noise."""

    level: float
    weights: float
    nearness: float
    noise: float
    reach: float
    """1 - cosine at which nearness has fallen to 1/e."""

    def matrix(self, design: Array, vectors: Array | None) -> Array:
        """(candidates, candidates), without the noise."""
        shared = self.level + self.weights * (design @ design.T)
        if vectors is not None:
            shared = shared + self.nearness * np.exp(-np.maximum(1 - vectors @ vectors.T, 0) / self.reach)
        return np.asarray(shared)


@dataclass(frozen=True)
class Model:
    """What scores a reranker will give, before and while it gives them."""

    centre: Array  # (features,)
    scale: Array  # (features,)
    coefficients: Array  # (1 + 2 features,): of 1, the features, their squares
    covariance: Covariance

    @classmethod
    def fit(cls, examples: Sequence[Example]) -> Model:
        """Least squares with a little ridge for the mean, then the covariance by marginal likelihood."""
        stacked = np.concatenate([example.candidates.features for example in examples])  # (all candidates, features)
        spread = stacked.std(axis=0)
        plain = cls(stacked.mean(axis=0), np.where(spread > 0, spread, 1.0), np.zeros(1), Covariance(0, 0, 0, 1, 1))
        columns = _with_squares(plain.design(stacked))
        ridge = 1e-5 * len(columns) * np.eye(columns.shape[1])
        targets = np.concatenate([example.scores for example in examples])
        coefficients = np.linalg.solve(columns.T @ columns + ridge, columns.T @ targets)
        mean = cls(plain.centre, plain.scale, coefficients, plain.covariance)
        return cls(plain.centre, plain.scale, coefficients, _fit_covariance(mean, examples[:WEIGHED]))

    def design(self, features: Array) -> Array:
        """(candidates, features), each feature about 0 with a spread of about 1."""
        return (features - self.centre) / self.scale

    def means(self, candidates: Candidates) -> Array:
        """The scores to expect before any is known: (candidates,)."""
        return np.asarray(_with_squares(self.design(candidates.features)) @ self.coefficients)

    def expect(self, candidates: Candidates) -> Expectation:
        """Everything about one query that does not depend on what is scored."""
        shared = self.covariance.matrix(self.design(candidates.features), candidates.vectors)
        return Expectation(self.means(candidates), shared, self.covariance.noise)


@dataclass(frozen=True)
class Expectation:
    """The scores to come of one query's candidates."""

    means: Array  # (candidates,)
    shared: Array  # (candidates, candidates)
    noise: float

    def of_the_rest(self, scored: Places, scores: Array, rest: Places) -> tuple[Array, Array]:
        """Means and standard deviations of the scores of `rest`, given those of `scored`: two arrays (rest,)."""
        known = self.shared[np.ix_(scored, scored)] + self.noise * np.eye(len(scored))
        across = self.shared[np.ix_(rest, scored)]  # (rest, scored)
        gain = np.linalg.solve(known, across.T).T
        means = self.means[rest] + gain @ (scores - self.means[scored])
        variances = np.diag(self.shared)[rest] - (gain * across).sum(axis=1) + self.noise
        return means, np.sqrt(np.maximum(variances, 1e-12))


@dataclass(frozen=True)
class Rule:
    """When to stop, for one reranker behind one first stage."""

    model: Model
    mistakes: dict[int, Array]
    """For each of TOPS, the doubts (queries,), rising, from which on stopping changes a query's answer; inf: it never does."""

    @classmethod
    def learn(cls, examples: Sequence[Example]) -> Rule:
        """Fit the model on a third of the examples and calibrate on the others; raises InputError below 40 of them."""
        usable = [example for example in examples if len(example.candidates) > FIRST_BATCH]
        if len(usable) < 2 * FITTED[0]:
            raise InputError(
                f"when to stop is learned from at least {2 * FITTED[0]} queries with more than {FIRST_BATCH} candidates each; "
                f"{len(usable)} of the {len(examples)} given are such"
            )
        fitted = min(max(len(usable) // 3, FITTED[0]), FITTED[1])
        model = Model.fit(usable[:fitted])
        held_out = usable[fitted:]
        expected = [model.expect(example.candidates) for example in held_out]
        mistakes = {
            top: np.sort([_first_mistake(one, known, top) for one, known in zip(held_out, expected, strict=True)])
            for top in TOPS
        }
        return cls(model, mistakes)

    @property
    def queries(self) -> int:
        """How many it was calibrated on."""
        return len(self.mistakes[TOPS[0]])

    def threshold(self, risk: float, top: int) -> float:
        """Stop at a doubt below this; -inf where nothing may be left out, too little being learned for the risk or the top."""
        mistakes = self._mistakes(top)
        if mistakes is None:
            return -math.inf
        allowed = -1
        while allowed + 1 < len(mistakes) and upper_bound(allowed + 1, len(mistakes)) <= risk:
            allowed += 1
        if allowed < 0:
            return -math.inf
        return float(mistakes[allowed]) if allowed < len(mistakes) else math.inf

    def risk(self, doubt: float, top: int) -> float:
        """The risk of always stopping at this doubt: the upper bound on the share of answers that it changes."""
        mistakes = self._mistakes(top)
        if mistakes is None:
            return 1.0
        return upper_bound(int((mistakes <= doubt).sum()), len(mistakes))

    def _mistakes(self, top: int) -> Array | None:
        return next((self.mistakes[known] for known in TOPS if known >= top), None)

    def to_dict(self) -> dict[str, Any]:
        """For JSON; infinity is left out, since the number of queries tells it."""
        model = self.model
        return {
            "centre": model.centre.tolist(),
            "scale": model.scale.tolist(),
            "coefficients": model.coefficients.tolist(),
            "covariance": [getattr(model.covariance, name) for name in COVARIANCE],
            "queries": self.queries,
            "mistakes": {str(top): doubts[np.isfinite(doubts)].tolist() for top, doubts in self.mistakes.items()},
        }

    @classmethod
    def from_dict(cls, told: dict[str, Any]) -> Rule:
        """Raises InputError where something is missing or of the wrong kind."""
        try:
            model = Model(
                np.array(told["centre"], float),
                np.array(told["scale"], float),
                np.array(told["coefficients"], float),
                Covariance(*map(float, told["covariance"])),
            )
            queries = int(told["queries"])
            mistakes = {
                top: np.array([*told["mistakes"][str(top)], *[math.inf] * (queries - len(told["mistakes"][str(top)]))], float)
                for top in TOPS
            }
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"the learned rule for stopping cannot be read ({error!r}); learn it anew: twinrank learn"
            ) from error
        return cls(model, mistakes)


COVARIANCE = ("level", "weights", "nearness", "noise", "reach")


def upper_bound(mistakes: int, trials: int, confidence: float = CONFIDENCE) -> float:
    """The Clopper-Pearson upper bound on a share of which `mistakes` in `trials` were seen.

    >>> round(upper_bound(0, 59), 4), round(upper_bound(3, 10), 4)
    (0.0495, 0.6066)
    """
    if not 0 <= mistakes <= trials:
        raise InputError(f"{mistakes} mistakes in {trials} trials; expected 0 to as many as there were trials")
    if mistakes == trials:
        return 1.0
    low, high = mistakes / trials, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _binomial_below(mistakes, trials, middle) > 1 - confidence else (low, middle)
    return high


def queries_needed(risk: float) -> int:
    """How many queries calibrate before any pair may be left out at this risk, if none of them shows a mistake.

    >>> queries_needed(0.05)
    59
    """
    return math.ceil(math.log(1 - CONFIDENCE) / math.log(1 - risk))


def kth_best(scores: Array, owners: Places, k: int) -> float:
    """The k-th best document's score, a document counting with its best passage; -inf where there are fewer.

    >>> kth_best(np.array([5.0, 4.0, 3.0]), np.array([1, 1, 2]), 2)
    3.0
    """
    order = np.argsort(-scores, kind="stable")
    _, firsts = np.unique(owners[order], return_index=True)
    return float(scores[order][np.sort(firsts)[k - 1]]) if len(firsts) >= k else -math.inf


def next_batch(scored: int, candidates: int) -> int:
    """How many to score next.

    >>> [next_batch(10, 100), next_batch(40, 100), next_batch(98, 100)]
    [4, 10, 2]
    """
    if scored == 0:
        return min(FIRST_BATCH, candidates)
    return min(max(SMALLEST_BATCH, round((GROWTH - 1) * scored)), candidates - scored)


def first_batch(expected: Expectation) -> Places:
    """The places to score first: those expected best."""
    return np.argsort(-expected.means, kind="stable")[: next_batch(0, len(expected.means))]


def look_ahead(expected: Expectation, owners: Places, scored: Places, scores: Array, top: int) -> tuple[float, Places]:
    """(the doubt, the places not scored yet with the likeliest to enter the first `top` in front)."""
    rest = np.setdiff1d(np.arange(len(owners)), scored)
    if not len(rest):
        return -math.inf, rest
    means, deviations = expected.of_the_rest(scored, scores, rest)
    border = kth_best(scores, owners[scored], top)
    if border == -math.inf:
        return math.inf, rest[np.argsort(-means, kind="stable")]
    distances = (border - means) / deviations
    doubt = math.log(max(float(np.sum(_normal_above(distances))), 1e-300))
    return doubt, rest[np.argsort(distances, kind="stable")]


def _first_mistake(example: Example, expected: Expectation, top: int) -> float:
    """The least doubt met while a candidate that matters was not scored: stopping at or above it changes the answer."""
    owners, scores = example.candidates.owners, example.scores
    border = kth_best(scores, owners, top)
    scored = first_batch(expected)
    least = math.inf
    # What ties with the border counts as mattering: ties are told apart by id, which nobody predicts.
    while np.setdiff1d((scores >= border).nonzero()[0], scored).size:
        doubt, rest = look_ahead(expected, owners, scored, scores[scored], top)
        least = min(least, doubt)
        scored = np.concatenate([scored, rest[: next_batch(len(scored), len(owners))]])
    return least


def _with_squares(design: Array) -> Array:
    return np.column_stack([np.ones(len(design)), design, design**2])


def _fit_covariance(mean: Model, examples: Sequence[Example]) -> Covariance:
    """Coordinate search for the largest marginal likelihood, from equal shares on."""
    parts = [
        (example.scores - mean.means(example.candidates), mean.design(example.candidates.features), example.candidates.vectors)
        for example in examples
    ]
    variance = max(float(np.mean([np.mean(residuals**2) for residuals, _, _ in parts])), 1e-12)
    best = {"level": variance / 3, "weights": variance / 30, "nearness": variance / 3, "noise": variance / 4, "reach": 0.3}
    cost = _surprise(Covariance(**best), parts)
    for step in (4.0, 2.0, 1.5):
        for name in COVARIANCE:
            for factor in (1 / step, step):
                while True:
                    tried = {**best, name: min(max(best[name] * factor, 1e-4 * variance), 1e4 * max(variance, 1.0))}
                    tried["noise"] = max(tried["noise"], 2e-3 * variance)  # or near copies would predict each other surely
                    tried_cost = _surprise(Covariance(**tried), parts)
                    if tried_cost >= cost - 1e-6 * abs(cost):
                        break
                    best, cost = tried, tried_cost
    return Covariance(**best)


def _surprise(covariance: Covariance, parts: Sequence[tuple[Array, Array, Array | None]]) -> float:
    """The negative logarithm of the residuals' likelihood, up to a constant."""
    total = 0.0
    for residuals, design, vectors in parts:
        matrix = covariance.matrix(design, vectors) + covariance.noise * np.eye(len(residuals))
        root = np.linalg.cholesky(matrix)
        total += 0.5 * float(np.sum(np.linalg.solve(root, residuals) ** 2)) + float(np.log(np.diag(root)).sum())
    return total


_erfc = np.frompyfunc(math.erfc, 1, 1)


def _normal_above(distances: Array) -> Array:
    """The chance that a standard normal number is above each distance."""
    return np.asarray(0.5 * _erfc(distances / math.sqrt(2)), dtype=np.float64)


def _binomial_below(successes: int, trials: int, chance: float) -> float:
    """The chance of at most so many successes."""
    if chance >= 1:
        return float(successes >= trials)
    rows = np.arange(successes + 1)
    ways = [math.lgamma(trials + 1) - math.lgamma(row + 1) - math.lgamma(trials - row + 1) for row in rows]
    return float(np.exp(np.array(ways) + rows * math.log(chance or 1e-300) + (trials - rows) * math.log1p(-chance)).sum())
