"""Answering or not: risk against coverage by hand, the bound against scipy, and promises kept over simulated calibrations."""

from __future__ import annotations

import json

import numpy as np
import pytest

from twinrank.abstention import Ladder, risk_coverage
from twinrank.errors import CalibrationError
from twinrank.stopping import upper_bound


def simulated(queries: int, random: np.random.Generator, power: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Confidences and wrong answers: of queries as sure as c, the share (1 − c) to some power is wrong."""
    sure = random.random(queries)
    return sure, random.random(queries) < (1 - sure) ** power


def true_risk(threshold: float, power: float = 2.0) -> float:
    return (1 - threshold) ** power / (power + 1)


def test_risk_against_coverage_by_hand() -> None:
    curve = risk_coverage([0.9, 0.7, 0.7, 0.1], [True, False, False, True])
    assert curve.coverage.tolist() == [0.25, 0.75, 1.0]  # equals are answered together
    assert curve.risk.tolist() == [1.0, pytest.approx(1 / 3), 0.5]
    assert curve.at(0.5) == (pytest.approx(1 / 3), 0.7)
    assert curve.area == pytest.approx(0.25 * 1 + 0.5 / 3 + 0.25 * 0.5)


def test_the_upper_bound_equals_scipys_clopper_pearson() -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    for wrong, answered in [(0, 1), (0, 59), (1, 10), (13, 200), (250, 1000), (999, 1000)]:
        for confidence in (0.9, 0.95, 0.99):
            expected = stats.beta.ppf(confidence, wrong + 1, answered - wrong)
            assert upper_bound(wrong, answered, confidence) == pytest.approx(expected, abs=1e-7)


def test_the_promise_is_kept_as_often_as_it_says() -> None:
    """400 calibrations by 800 queries: the true risk is above the promised one in 5 of 100 at most, and much is answered."""
    random = np.random.default_rng(0)
    promised, broken, coverages = 0, 0, []
    for _ in range(400):
        ladder = Ladder.of(simulated(800, random)[0], *simulated(800, random))
        threshold = ladder.threshold(0.1)
        if threshold is None:
            continue
        promised += 1
        broken += true_risk(threshold) > 0.1
        coverages.append(ladder.coverage(threshold))
    assert promised > 380
    assert broken / 400 <= 0.05
    assert np.mean(coverages) > 0.35  # 0.45 is what a threshold that knew the truth would answer


def test_a_threshold_picked_by_the_observed_risk_breaks_its_promise() -> None:
    """Which is why the bound is there: without it half of the promises would be broken."""
    random = np.random.default_rng(0)
    broken = 0
    for _ in range(200):
        curve = risk_coverage(*simulated(300, random))
        kept = np.flatnonzero(curve.risk <= 0.1)
        broken += true_risk(float(curve.thresholds[kept[-1]])) > 0.1
    assert broken > 60


def test_a_larger_risk_never_needs_a_higher_threshold() -> None:
    random = np.random.default_rng(1)
    ladder = Ladder.of(simulated(300, random)[0], *simulated(300, random))
    thresholds = [ladder.threshold(risk) for risk in (0.05, 0.1, 0.2, 0.3, 0.5)]
    known = [threshold for threshold in thresholds if threshold is not None]
    assert known == sorted(known, reverse=True)
    assert thresholds[-1] is not None


def test_the_least_risk_is_the_smallest_that_can_be_promised() -> None:
    random = np.random.default_rng(2)
    ladder = Ladder.of(simulated(300, random)[0], *simulated(300, random))
    least = ladder.least_risk()
    assert ladder.threshold(least) is not None
    assert ladder.threshold(least - 0.005) is None


def test_few_queries_promise_nothing_small() -> None:
    ladder = Ladder.of([0.5] * 30, [0.5] * 30, [False] * 30)
    assert ladder.threshold(0.01) is None
    assert ladder.least_risk() > 0.09  # 1 − (0.05 / 3) ** (1 / 30), even without one wrong answer


def test_a_search_that_finds_nothing_is_never_an_answer() -> None:
    ladder = Ladder.of([-1.0, 0.5] * 20, [-1.0] * 20, [True] * 20)
    assert ladder.thresholds[-1] == 0
    assert ladder.answered[-1] == 0
    assert ladder.threshold(0.5) is None


def test_a_ladder_comes_back_from_json() -> None:
    random = np.random.default_rng(3)
    ladder = Ladder.of(simulated(50, random)[0], *simulated(50, random))
    assert Ladder.from_json(json.loads(json.dumps(ladder.as_json()))) == ladder


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"thresholds": [0.1], "answered": [1], "wrong": [2], "queries": 3},
        {"thresholds": [0.1, 0.5], "answered": [1, 1], "wrong": [0, 0], "queries": 3},
        {"thresholds": "x", "answered": [1], "wrong": [0], "queries": 3},
    ],
)
def test_values_that_are_no_ladder_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(CalibrationError, match="describe no thresholds"):
        Ladder.from_json(values)


@pytest.mark.parametrize("risk", [0.0, 1.0, -0.1, 2.0, float("nan")])
def test_a_risk_that_is_no_share_is_refused(risk: float) -> None:
    with pytest.raises(CalibrationError, match="between 0 and 1"):
        Ladder.of([0.5] * 9, [0.5] * 9, [False] * 9).threshold(risk)


@pytest.mark.parametrize(("sure", "wrong"), [([], []), ([0.5, float("nan")], [True, False]), ([0.5], [True, False])])
def test_queries_without_a_confidence_are_refused(sure: list[float], wrong: list[bool]) -> None:
    with pytest.raises(CalibrationError, match="each query has a confidence"):
        risk_coverage(sure, wrong)
