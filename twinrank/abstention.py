"""When to answer "nothing relevant found": risk against coverage, and thresholds whose risk is promised, not only estimated.

A query is answered where the largest probability among its first hits reaches a threshold. An answer is wrong where none of
these hits is relevant, be it that they were ranked below or that the collection holds nothing. The risk of a threshold is the
share of wrong answers among the answered queries; its coverage is the share of queries that are answered.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from twinrank.errors import CalibrationError
from twinrank.stopping import upper_bound

Floats: TypeAlias = npt.NDArray[np.float64]
Flags: TypeAlias = npt.NDArray[np.bool_]

CONFIDENCE = 0.95
"""How sure a promise is: of a hundred calibrations, so many keep it."""

STEPS = 40
"""Thresholds that are looked at, from answering one query in forty to answering all."""

STARTS = (4, 12, 24)
"""From which of them the tests walk on; each start has its share of 1 − CONFIDENCE."""


@dataclass(frozen=True)
class Curve:
    """Risk against coverage on queries: every threshold that tells two of them apart."""

    coverage: Floats  # (thresholds,), ascending
    risk: Floats  # (thresholds,)
    thresholds: Floats  # (thresholds,), descending

    @property
    def area(self) -> float:
        """AURC: the mean risk over all coverages (Geifman, Uziel and El-Yaniv, ICLR 2019); smaller is better."""
        return float((self.risk * np.diff(self.coverage, prepend=0)).sum())

    def at(self, coverage: float) -> tuple[float, float]:
        """The risk and the threshold at the smallest coverage that reaches this one."""
        place = min(int(np.searchsorted(self.coverage, coverage - 1e-12)), len(self.coverage) - 1)
        return float(self.risk[place]), float(self.thresholds[place])


def risk_coverage(confidences: npt.ArrayLike, wrong: npt.ArrayLike) -> Curve:
    """Answer the surest query alone, then the two surest…; queries that are equally sure are answered together.

    >>> curve = risk_coverage([0.9, 0.8, 0.3, 0.2], [False, False, True, False])
    >>> curve.risk.round(2).tolist(), round(curve.area, 3)
    ([0.0, 0.0, 0.33, 0.25], 0.146)
    """
    sure, failed = _checked(confidences, wrong)
    order = np.argsort(-sure, kind="stable")
    ends = np.flatnonzero(np.diff(sure[order], append=-np.inf))  # the last of equals
    answered = ends + 1
    return Curve(answered / len(sure), np.cumsum(failed[order])[ends] / answered, sure[order][ends])


@dataclass(frozen=True)
class Ladder:
    """Thresholds with what held-out queries made of them: how many they answered and how many of these answers were wrong.

    The thresholds were laid down by the queries that the calibration was fitted on, without a look at the held-out ones. Of
    these, given how many a threshold answers, the wrong answers are therefore binomial with the threshold's risk, exactly.
    """

    thresholds: tuple[float, ...]
    """Descending: each answers what the one before answers, and more."""
    answered: tuple[int, ...]
    wrong: tuple[int, ...]
    queries: int

    @classmethod
    def of(cls, fitted: npt.ArrayLike, confidences: npt.ArrayLike, wrong: npt.ArrayLike) -> Ladder:
        """`fitted`: the confidences of the queries fitted on; then those of the held-out ones, and which answers are wrong."""
        sure, failed = _checked(confidences, wrong)
        grid = np.quantile(np.asarray(fitted, np.float64), 1 - np.arange(1, STEPS) / STEPS, method="inverted_cdf")
        thresholds = np.unique([*np.maximum(grid, 0), 0.0])[::-1].tolist()  # 0 answers whatever finds anything
        reached = [sure >= threshold for threshold in thresholds]
        return cls(
            tuple(thresholds),
            tuple(int(answers.sum()) for answers in reached),
            tuple(int((answers & failed).sum()) for answers in reached),
            len(sure),
        )

    def threshold(self, risk: float, confidence: float = CONFIDENCE) -> float | None:
        """The lowest threshold whose risk is at most this, with this confidence; None where none can be promised.

        Learn then Test (Angelopoulos, Bates, Candès, Jordan and Lei 2022): each threshold is a hypothesis "its risk is above",
        rejected where the Clopper-Pearson bound is within `risk`, in a fixed sequence from high thresholds to low ones, which
        ends with the first that stays. Several starts share 1 − confidence: a high threshold answers too few to be tested.
        """
        check_share("a risk", risk)
        share = (1 - confidence) / len(STARTS)
        allowed = None
        for start in STARTS:
            for place in range(start, len(self.thresholds)):
                if upper_bound(self.wrong[place], self.answered[place], 1 - share) > risk:
                    break
                allowed = place if allowed is None else max(allowed, place)
        return None if allowed is None else self.thresholds[allowed]

    def least_risk(self, confidence: float = CONFIDENCE) -> float:
        """The smallest risk, in steps of 0.005, that some threshold can be promised for."""
        return next((step / 200 for step in range(1, 200) if self.threshold(step / 200, confidence) is not None), 1.0)

    def coverage(self, threshold: float) -> float:
        """The share of the held-out queries that one of the thresholds answers."""
        return self.answered[self.thresholds.index(threshold)] / self.queries

    def as_json(self) -> dict[str, Any]:
        return {
            "thresholds": list(self.thresholds),
            "answered": list(self.answered),
            "wrong": list(self.wrong),
            "queries": self.queries,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Ladder:
        try:
            thresholds = tuple(float(value) for value in values["thresholds"])
            answered, wrong = (tuple(int(value) for value in values[name]) for name in ("answered", "wrong"))
            sound = (
                len(thresholds) == len(answered) == len(wrong) > 0
                and all(math.isfinite(value) for value in thresholds)
                and list(thresholds) == sorted(thresholds, reverse=True)
                and all(0 <= failed <= total for failed, total in zip(wrong, answered, strict=True))
            )
            if sound:
                return cls(thresholds, answered, wrong, int(values["queries"]))
        except (KeyError, TypeError, ValueError) as error:
            raise CalibrationError(f"these values describe no thresholds: {error!r}") from error
        raise CalibrationError("these values describe no thresholds: their lists do not belong together")


def check_share(name: str, value: float) -> None:
    """CalibrationError where a value is no share."""
    if not 0 < value < 1:  # NaN included
        raise CalibrationError(f"{name} is a share between 0 and 1, both left out, such as 0.05; got {value}")


def _checked(confidences: npt.ArrayLike, wrong: npt.ArrayLike) -> tuple[Floats, Flags]:
    sure, failed = np.asarray(confidences, np.float64), np.asarray(wrong, bool)
    if not len(sure) or sure.shape != failed.shape or np.isnan(sure).any():
        raise CalibrationError(
            f"each query has a confidence, a number, and an answer that is wrong or not; got {sure.shape} and {failed.shape}, "
            "and at least one query is needed"
        )
    return sure, failed
