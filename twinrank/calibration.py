"""Scores → probabilities: Platt, temperature, beta, isotonic, and a logistic model of several features; fitted and applied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from twinrank.errors import CalibrationError

Floats: TypeAlias = npt.NDArray[np.float64]
Flags: TypeAlias = npt.NDArray[np.bool_]

FEWEST_PAIRS = 20
"""Pairs that a calibration is fitted on, at least."""

FEWEST_OF_A_KIND = 5
"""Relevant pairs, and pairs that are not, at least."""


class Calibrator(Protocol):
    """What was fitted: larger scores never get a smaller probability."""

    method: ClassVar[str]

    def probabilities(self, scores: npt.ArrayLike) -> Floats:
        """(pairs,) or, for Logistic, (pairs, features) → (pairs,), each inside 0 to 1."""
        ...


@dataclass(frozen=True)
class Platt:
    """sigmoid(slope · score + intercept).

    Platt, Probabilistic Outputs for Support Vector Machines, 1999, with his smoothed targets; fitted as in Lin, Lin and Weng,
    A Note on Platt's Probabilistic Outputs, 2007, by Newton's method, with the slope kept at 0 or above.

    >>> Platt(slope=2.0, intercept=-1.0).probabilities([0.5, 20.0]).round(3).tolist()
    [0.5, 1.0]
    """

    slope: float
    intercept: float
    method: ClassVar[str] = "platt"

    @classmethod
    def fit(cls, scores: npt.ArrayLike, relevant: npt.ArrayLike) -> Platt:
        values, flags = checked(scores, relevant)
        center, scale = _spread(values)  # the same solution, found in fewer steps
        columns = np.column_stack([(values - center) / scale, np.ones(len(values))])  # (pairs, 2)
        slope, intercept = fit_logistic(columns, smoothed(flags), lower=[0, -np.inf]) / [scale, 1]
        return cls(float(slope), float(intercept - slope * center))

    def probabilities(self, scores: npt.ArrayLike) -> Floats:
        return sigmoid(self.slope * np.asarray(scores, np.float64) + self.intercept)


@dataclass(frozen=True)
class Temperature:
    """sigmoid(score / temperature): for a score that is a logit already, such as a cross-encoder's.

    Guo, Pleiss, Sun and Weinberger, On Calibration of Modern Neural Networks, ICML 2017. It has no intercept: where 0 is
    not the score of an even chance, it does badly.
    """

    temperature: float
    method: ClassVar[str] = "temperature"

    @classmethod
    def fit(cls, scores: npt.ArrayLike, relevant: npt.ArrayLike) -> Temperature:
        values, flags = checked(scores, relevant)
        slope = float(fit_logistic(values[:, None], smoothed(flags), lower=[0])[0])
        return cls(1 / max(slope, 1e-12))

    def probabilities(self, scores: npt.ArrayLike) -> Floats:
        return sigmoid(np.asarray(scores, np.float64) / self.temperature)


@dataclass(frozen=True)
class Beta:
    """sigmoid(a · ln p − b · ln(1 − p) + c), where p is Platt's probability; a and b are 0 or above, so that it is monotone.

    Kull, Silva Filho and Flach, Beta calibration, AISTATS 2017. It takes probabilities, so that raw scores go through Platt's
    sigmoid first; with a = b = 1 and c = 0 nothing is changed by it.
    """

    platt: Platt
    a: float
    b: float
    c: float
    method: ClassVar[str] = "beta"

    @classmethod
    def fit(cls, scores: npt.ArrayLike, relevant: npt.ArrayLike) -> Beta:
        values, flags = checked(scores, relevant)
        platt = Platt.fit(values, flags)
        columns = np.column_stack([*_log_odds(platt, values), np.ones(len(values))])  # (pairs, 3)
        a, b, c = fit_logistic(columns, smoothed(flags), lower=[0, 0, -np.inf]).tolist()
        return cls(platt, a, b, c)

    def probabilities(self, scores: npt.ArrayLike) -> Floats:
        yes, no = _log_odds(self.platt, np.asarray(scores, np.float64))
        return sigmoid(self.a * yes + self.b * no + self.c)


def _log_odds(platt: Platt, scores: Floats) -> tuple[Floats, Floats]:
    """ln p and −ln(1 − p) of Platt's probabilities, exact also where p is 0 or 1 in floating point."""
    logits = platt.slope * scores + platt.intercept
    return -np.logaddexp(0, -logits), np.logaddexp(0, logits)


@dataclass(frozen=True)
class Isotonic:
    """The non-decreasing steps that fit best (pool adjacent violators; equal scores pooled), with straight lines between them.

    Zadrozny and Elkan, Transforming Classifier Scores into Accurate Multiclass Probability Estimates, KDD 2002. Nothing is
    certain after finitely many pairs: probabilities stay 1 / (pairs + 2) away from 0 and 1.
    """

    scores: tuple[float, ...]
    """Ascending; the ends of the steps."""
    values: tuple[float, ...]
    """The probability at each of them."""
    method: ClassVar[str] = "isotonic"

    @classmethod
    def fit(cls, scores: npt.ArrayLike, relevant: npt.ArrayLike) -> Isotonic:
        given, flags = checked(scores, relevant)
        points, places, counts = np.unique(given, return_inverse=True, return_counts=True)
        means = np.bincount(places, weights=flags) / counts  # (points,)
        steps = pool_adjacent_violators(means, counts)
        least = 1 / (len(given) + 2)
        steps = np.clip(steps, least, 1 - least)
        ends = np.ones(len(points), bool)  # only the first and the last point of a step are needed
        ends[1:-1] = (steps[1:-1] != steps[:-2]) | (steps[1:-1] != steps[2:])
        return cls(tuple(points[ends].tolist()), tuple(steps[ends].tolist()))

    def probabilities(self, scores: npt.ArrayLike) -> Floats:
        return np.interp(np.asarray(scores, np.float64), self.scores, self.values)


def pool_adjacent_violators(values: npt.ArrayLike, weights: npt.ArrayLike) -> Floats:
    """The non-decreasing sequence nearest to `values` in weighted squares (Ayer and others 1955).

    >>> pool_adjacent_violators([1.0, 3.0, 2.0, 4.0], [1, 1, 1, 1]).tolist()
    [1.0, 2.5, 2.5, 4.0]
    """
    blocks: list[tuple[float, float, int]] = []  # mean, weight, members
    pairs = zip(np.asarray(values, np.float64).tolist(), np.asarray(weights, np.float64).tolist(), strict=True)
    for value, weight in pairs:
        mean, mass, members = value, weight, 1
        while blocks and blocks[-1][0] >= mean:
            before, before_mass, before_members = blocks.pop()
            mean = (before * before_mass + mean * mass) / (before_mass + mass)
            mass, members = before_mass + mass, before_members + members
        blocks.append((mean, mass, members))
    return np.repeat([block[0] for block in blocks], [block[2] for block in blocks])


@dataclass(frozen=True)
class Logistic:
    """Logistic regression of several features, standardised, with a penalty of ½ · |weights|², and signs where known.

    A feature of sign 1 never lowers the probability, one of sign −1 never raises it, one of sign 0 may do either.
    """

    means: tuple[float, ...]
    scales: tuple[float, ...]
    weights: tuple[float, ...]
    """Of the standardised features."""
    intercept: float
    method: ClassVar[str] = "features"

    @classmethod
    def fit(
        cls, features: npt.ArrayLike, relevant: npt.ArrayLike, signs: Sequence[int] | None = None, penalty: float = 1.0
    ) -> Logistic:
        values, flags = checked(features, relevant)
        if values.ndim != 2:
            raise CalibrationError(f"features are (pairs, features); got an array of shape {values.shape}")
        means, scales = values.mean(axis=0), values.std(axis=0)
        scales = np.where(scales > 1e-9 * (1 + np.abs(means)), scales, 1)  # what is the same everywhere says nothing
        known = np.zeros(values.shape[1]) if signs is None else np.asarray(signs)
        columns = np.column_stack([(values - means) / scales, np.ones(len(values))])  # (pairs, features + 1)
        fitted = fit_logistic(
            columns,
            flags.astype(np.float64),
            lower=[*np.where(known > 0, 0, -np.inf), -np.inf],
            upper=[*np.where(known < 0, 0, np.inf), np.inf],
            penalties=[*[penalty] * values.shape[1], 0],
        )
        return cls(tuple(means.tolist()), tuple(scales.tolist()), tuple(fitted[:-1].tolist()), float(fitted[-1]))

    def probabilities(self, scores: npt.ArrayLike) -> Floats:
        standard = (np.asarray(scores, np.float64) - self.means) / self.scales
        # Not by @: a matrix product may round otherwise for one pair than for many, and a threshold lies between.
        return sigmoid((standard * self.weights).sum(axis=-1) + self.intercept)


SINGLE: Mapping[str, type[Platt] | type[Temperature] | type[Beta] | type[Isotonic]] = {
    kind.method: kind for kind in (Platt, Temperature, Beta, Isotonic)
}
"""The methods that take one score."""


def as_json(calibrator: Calibrator) -> dict[str, Any]:
    """Plain values, from which `from_json` makes the same calibrator, bit for bit.

    >>> from_json(as_json(Platt(0.1, -1 / 3))) == Platt(0.1, -1 / 3)
    True
    """
    return {"method": calibrator.method, **asdict(calibrator)}  # type: ignore[call-overload]


def from_json(values: Mapping[str, Any]) -> Calibrator:
    """The calibrator that these values describe; CalibrationError where they describe none."""
    given = dict(values)
    method = given.pop("method", None)
    try:
        if method == Logistic.method:
            means, scales, weights = (_numbers(given[name]) for name in ("means", "scales", "weights"))
            return Logistic(means, scales, weights, _number(given["intercept"]))
        if method == Isotonic.method:
            return Isotonic(_numbers(given["scores"]), _numbers(given["values"]))
        if method == Beta.method:
            platt = Platt(_number(given["platt"]["slope"]), _number(given["platt"]["intercept"]))
            return Beta(platt, _number(given["a"]), _number(given["b"]), _number(given["c"]))
        if method == Temperature.method:
            return Temperature(_number(given["temperature"]))
        if method == Platt.method:
            return Platt(_number(given["slope"]), _number(given["intercept"]))
    except (KeyError, TypeError, ValueError) as error:
        raise CalibrationError(f"these values describe no calibration by {method!r}: {error}") from error
    raise CalibrationError(f"these values describe no calibration: the method {method!r} is not known here")


def _number(value: Any) -> float:
    number = float(value)
    if not np.isfinite(number):
        raise ValueError(f"expected a finite number, got {value!r}")
    return number


def _numbers(values: Any) -> tuple[float, ...]:
    return tuple(_number(value) for value in values)


# -- what all methods share ----------------------------------------------------------------------------------------------


def checked(scores: npt.ArrayLike, relevant: npt.ArrayLike) -> tuple[Floats, Flags]:
    """Scores or features with their judgments, or CalibrationError where nothing can be learned from them."""
    values, flags = np.asarray(scores, np.float64), np.asarray(relevant, bool)
    if len(values) != len(flags) or flags.ndim != 1:
        raise CalibrationError(f"each pair has one judgment; got {values.shape} scores and {flags.shape} judgments")
    if not np.isfinite(values).all():
        raise CalibrationError(
            f"{int((~np.isfinite(values)).sum()):,} of the scores are NaN or infinite; expected finite numbers"
        )
    positives = int(flags.sum())
    if len(flags) < FEWEST_PAIRS or min(positives, len(flags) - positives) < FEWEST_OF_A_KIND:
        raise CalibrationError(
            f"calibration needs {FEWEST_PAIRS} judged pairs or more, at least {FEWEST_OF_A_KIND} of them relevant and "
            f"{FEWEST_OF_A_KIND} not; got {len(flags):,} pairs, {positives:,} of them relevant. Judge more queries"
        )
    if (values == values[0]).all():
        raise CalibrationError(f"the scores of all {len(values):,} pairs are equal, so they tell no pair from another")
    return values, flags


def sigmoid(logits: Floats) -> Floats:
    """1 / (1 + exp(−logit)), without overflow at either end."""
    small = np.exp(-np.abs(logits))
    return np.asarray(np.where(logits >= 0, 1, small) / (1 + small), np.float64)


def smoothed(relevant: Flags) -> Floats:
    """Platt's targets: (N₊ + 1) / (N₊ + 2) for relevant pairs, 1 / (N₋ + 2) for the others; no fit then runs to infinity."""
    positives = int(relevant.sum())
    targets: Floats = np.where(relevant, (positives + 1) / (positives + 2), 1 / (len(relevant) - positives + 2))
    return targets


def _spread(values: Floats) -> tuple[float, float]:
    return float(values.mean()), float(values.std()) or 1.0


def fit_logistic(
    columns: Floats,
    targets: Floats,
    *,
    lower: Sequence[float],
    upper: Sequence[float] | None = None,
    penalties: Sequence[float] | None = None,
) -> Floats:
    """The weights of least log loss (summed) plus ½ · Σ penalty · weight², inside of bounds: (columns,).

    Newton's method on the weights that are not held at a bound, with a line search along the projected step: Bertsekas,
    Projected Newton Methods for Optimization Problems with Simple Constraints, 1982. The problem is convex, the end unique.
    """
    low = np.asarray(lower, np.float64)
    high = np.full(len(low), np.inf) if upper is None else np.asarray(upper, np.float64)
    ridge = np.zeros(len(low)) if penalties is None else np.asarray(penalties, np.float64)

    def loss(weights: Floats) -> float:
        logits = columns @ weights
        return float((np.logaddexp(0, logits) - targets * logits).sum() + (ridge * weights**2).sum() / 2)

    weights = np.clip(np.zeros(len(low)), low, high)
    now = loss(weights)
    for _ in range(200):
        chances = sigmoid(columns @ weights)
        gradient = columns.T @ (chances - targets) + ridge * weights
        held = ((weights <= low) & (gradient > 0)) | ((weights >= high) & (gradient < 0))
        free = ~held
        if not free.any() or np.abs(gradient[free]).max() < 1e-9 * len(targets):
            break
        curvature = (columns[:, free].T * (chances * (1 - chances))) @ columns[:, free] + np.diag(ridge[free])
        curvature += 1e-10 * (1 + np.trace(curvature)) * np.eye(int(free.sum()))
        direction = np.zeros(len(low))
        direction[free] = np.linalg.solve(curvature, gradient[free])
        length = 1.0
        while True:
            step = np.clip(weights - length * direction, low, high)
            after = loss(step)
            if after <= now - 1e-4 * float(gradient @ (weights - step)):
                break
            length /= 2
            if length < 1e-10:
                return weights  # as near as floating point comes
        weights, now = step, after
    return weights
