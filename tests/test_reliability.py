"""Probabilities judged: by hand, against scikit-learn, and on simulated pairs whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinrank.errors import CalibrationError
from twinrank.reliability import as_json, auroc, binned, calibration_error, judge, log_loss, plot

CHANCES = np.array([0.1, 0.1, 0.3, 0.3, 0.6, 0.6, 0.9, 0.9])
RELEVANT = np.array([0, 0, 1, 0, 1, 0, 1, 1], bool)


def simulated(queries: int = 400, each: int = 10, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities that are exactly right."""
    random = np.random.default_rng(seed)
    chances = random.beta(0.5, 2, size=queries * each)
    return chances, random.random(len(chances)) < chances, np.repeat(np.arange(queries), each)


def test_the_calibration_error_of_four_bins_by_hand() -> None:
    # |0 − .1|, |.5 − .3|, |.5 − .6|, |1 − .9|, a quarter of the pairs each
    assert calibration_error(CHANCES, RELEVANT, 4) == pytest.approx((0.1 + 0.2 + 0.1 + 0.1) / 4)
    assert [(part.pairs, part.observed) for part in binned(CHANCES, RELEVANT, 4)] == [(2, 0), (2, 0.5), (2, 0.5), (2, 1)]


def test_the_order_of_the_pairs_does_not_matter_where_probabilities_are_equal() -> None:
    """As isotonic steps are: a bin's border inside of them would make the error depend on the order."""
    random = np.random.default_rng(0)
    chances = random.choice([0.1, 0.2, 0.7], size=300)
    relevant = random.random(300) < chances
    errors = {calibration_error(chances[order], relevant[order]) for order in (random.permutation(300) for _ in range(20))}
    assert max(errors) - min(errors) < 1e-12


def test_the_calibration_error_equals_scikit_learns_curve() -> None:
    calibration = pytest.importorskip("sklearn.calibration", reason="scikit-learn is not installed")
    chances, relevant, _ = simulated()
    observed, predicted = calibration.calibration_curve(relevant, chances, n_bins=10, strategy="quantile")
    expected = float(np.abs(observed - predicted).mean())  # 400 pairs in each bin
    assert calibration_error(chances, relevant, 10) == pytest.approx(expected, abs=2e-4)


def test_auroc_brier_and_log_loss_equal_scikit_learns() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    chances, relevant, owners = simulated()
    tied = chances.round(1).clip(0.01, 0.99)
    judged = judge(tied, relevant, owners)
    assert judged.auroc == pytest.approx(metrics.roc_auc_score(relevant, tied))
    assert judged.brier == pytest.approx(metrics.brier_score_loss(relevant, tied))
    assert judged.log_loss == pytest.approx(metrics.log_loss(relevant, tied))


def test_the_brier_score_is_uncertainty_and_miscalibration_less_resolution() -> None:
    """Murphy 1973, exactly, where all probabilities of a bin are equal."""
    random = np.random.default_rng(0)
    chances = random.choice([0.1, 0.3, 0.8], size=3000)
    relevant = random.random(3000) < chances
    judged = judge(chances, relevant, np.repeat(np.arange(300), 10))
    uncertainty = judged.base_rate * (1 - judged.base_rate)
    assert judged.brier == pytest.approx(uncertainty + judged.miscalibration - judged.resolution)


def test_right_probabilities_show_the_error_that_chance_alone_makes() -> None:
    judged = judge(*simulated(2000))
    assert judged.error == pytest.approx(judged.floor, rel=0.5)
    assert judged.error < 0.01


def test_probabilities_that_are_a_tenth_too_high_show_it() -> None:
    chances, relevant, owners = simulated(2000)
    judged = judge((chances + 0.1).clip(0, 1), relevant, owners)
    assert judged.error == pytest.approx(0.1, abs=0.01)
    assert judged.interval[0] < 0.1 < judged.interval[1] + 0.01


def test_the_interval_is_over_queries_and_wider_where_their_pairs_go_together() -> None:
    """Each pair ten times: as many queries, the same information."""
    chances, relevant, owners = simulated(100, 5)
    once = judge(chances, relevant, owners)
    often = judge(*(np.repeat(one, 10) for one in (chances, relevant, owners)))
    apart = judge(np.repeat(chances, 10), np.repeat(relevant, 10), np.arange(5000))
    width, wide, narrow = (judged.interval[1] - judged.interval[0] for judged in (once, often, apart))
    assert narrow < 0.6 * wide
    assert wide == pytest.approx(width, rel=0.5)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=2, max_size=60))
def test_what_is_judged_stays_in_its_range(pairs: list[tuple[float, bool]]) -> None:
    chances, relevant = (np.array(column) for column in zip(*pairs, strict=True))
    assert 0 <= calibration_error(chances, relevant) <= 1
    assert sum(part.pairs for part in binned(chances, relevant)) == len(pairs)
    area = auroc(chances, relevant)
    assert np.isnan(area) if relevant.all() or not relevant.any() else 0 <= area <= 1


def test_log_loss_of_even_chances_is_the_logarithm_of_two() -> None:
    assert log_loss(np.full(4, 0.5), np.array([True, False, True, True])) == pytest.approx(np.log(2))


def test_the_same_seed_gives_the_same_report() -> None:
    assert as_json(judge(*simulated(50), seed=3)) == as_json(judge(*simulated(50), seed=3))


def test_the_plot_has_a_line_for_every_bin() -> None:
    judged = judge(*simulated())
    lines = plot(judged).splitlines()
    assert len(lines) == 1 + len(judged.bins)
    assert all("x" in line or "*" in line for line in lines[1:])


@pytest.mark.parametrize(
    ("chances", "told"),
    [
        ([0.5, float("nan")], "between 0 and 1"),
        ([0.5, 1.5], "between 0 and 1"),
        ([], "at least one pair"),
        ([0.5], "each pair has"),
    ],
)
def test_what_is_no_probability_is_refused(chances: list[float], told: str) -> None:
    pairs = 2 if len(chances) == 1 else len(chances)
    with pytest.raises(CalibrationError, match=told):
        judge(chances, [True] * pairs, list(range(pairs)))


def test_pairs_of_one_query_alone_are_refused() -> None:
    with pytest.raises(CalibrationError, match="one query"):
        judge([0.1, 0.9], [False, True], [7, 7])
