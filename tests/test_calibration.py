"""Scores → probabilities: by hand, against scikit-learn, by property, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinrank.calibration import (
    SINGLE,
    Beta,
    Calibrator,
    Isotonic,
    Logistic,
    Platt,
    Temperature,
    as_json,
    fit_logistic,
    from_json,
    pool_adjacent_violators,
    sigmoid,
    smoothed,
)
from twinrank.errors import CalibrationError


def judged(pairs: int = 2000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores whose true probability is sigmoid(3 · score − 1)."""
    random = np.random.default_rng(seed)
    scores = random.normal(size=pairs)
    return scores, random.random(pairs) < sigmoid(3 * scores - 1)


def fitted() -> list[Calibrator]:
    scores, relevant = judged(500)
    features = np.column_stack([scores, scores**2])
    return [*(kind.fit(scores, relevant) for kind in SINGLE.values()), Logistic.fit(features, relevant, signs=[1, 0])]


def given_to(calibrator: Calibrator, scores: np.ndarray) -> np.ndarray:
    return np.column_stack([scores, scores**2]) if isinstance(calibrator, Logistic) else scores


def test_platt_finds_the_sigmoid_that_the_scores_were_made_by() -> None:
    platt = Platt.fit(*judged(50_000))
    assert platt.slope == pytest.approx(3, abs=0.1)
    assert platt.intercept == pytest.approx(-1, abs=0.05)


def test_platt_equals_scikit_learn() -> None:
    calibration = pytest.importorskip("sklearn.calibration", reason="scikit-learn is not installed")
    scores, relevant = judged()
    reference = calibration._SigmoidCalibration().fit(scores, relevant)  # predicts 1 / (1 + exp(a · score + b))
    platt = Platt.fit(scores, relevant)
    assert (platt.slope, platt.intercept) == pytest.approx((-reference.a_, -reference.b_), abs=2e-4)


def test_platt_does_not_depend_on_where_the_scores_lie() -> None:
    scores, relevant = judged()
    moved = 1000 + 0.01 * scores
    assert Platt.fit(moved, relevant).probabilities(moved) == pytest.approx(Platt.fit(scores, relevant).probabilities(scores))


def test_platts_slope_is_never_negative() -> None:
    scores, relevant = judged()
    platt = Platt.fit(-scores, relevant)
    assert platt.slope == 0
    assert platt.probabilities(scores) == pytest.approx(np.full(len(scores), relevant.mean()), abs=1e-3)


def test_temperature_finds_the_one_that_the_logits_were_divided_by() -> None:
    random = np.random.default_rng(1)
    logits = random.normal(scale=3, size=50_000)
    relevant = random.random(50_000) < sigmoid(logits)
    assert Temperature.fit(2.5 * logits, relevant).temperature == pytest.approx(2.5, rel=0.02)


def test_beta_changes_nothing_where_platt_is_right() -> None:
    scores, relevant = judged(50_000)
    beta = Beta.fit(scores, relevant)
    assert beta.probabilities(scores) == pytest.approx(beta.platt.probabilities(scores), abs=0.02)


def test_beta_equals_a_logistic_regression_of_both_logarithms() -> None:
    """As in the authors' betacal package: features ln p and −ln(1 − p), no penalty."""
    linear = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed")
    random = np.random.default_rng(2)
    truth = random.beta(0.6, 2.0, size=4000)
    relevant = random.random(4000) < truth
    scores = np.log(truth) - 0.2 * np.log1p(-truth)
    beta = Beta.fit(scores, relevant)
    p = beta.platt.probabilities(scores)
    columns = np.column_stack([np.log(p), -np.log1p(-p)])
    reference = linear.LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(columns, relevant)
    assert beta.probabilities(scores) == pytest.approx(reference.predict_proba(columns)[:, 1], abs=3e-3)


def test_isotonic_equals_scikit_learn_ties_included() -> None:
    isotonic = pytest.importorskip("sklearn.isotonic", reason="scikit-learn is not installed")
    scores, relevant = judged()
    tied = scores.round(1)
    reference = isotonic.IsotonicRegression(out_of_bounds="clip").fit(tied, relevant)
    least = 1 / (len(tied) + 2)
    asked = np.linspace(-5, 5, 1001)
    expected = np.interp(asked, reference.X_thresholds_, np.clip(reference.y_thresholds_, least, 1 - least))
    assert Isotonic.fit(tied, relevant).probabilities(asked) == pytest.approx(expected, abs=1e-12)


def test_isotonic_pools_the_only_pair_of_points_that_falls() -> None:
    assert pool_adjacent_violators([0.0, 1.0, 0.0, 1.0], [1, 1, 3, 1]).tolist() == [0.0, 0.25, 0.25, 1.0]


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 9)), min_size=1, max_size=30))
def test_pooling_gives_a_sequence_that_never_falls_and_keeps_the_weighted_mean(points: list[tuple[float, int]]) -> None:
    values, weights = zip(*points, strict=True)
    pooled = pool_adjacent_violators(values, weights)
    assert (np.diff(pooled) >= 0).all()
    assert np.average(pooled, weights=weights) == pytest.approx(np.average(values, weights=weights))


def test_features_equal_scikit_learns_penalised_logistic_regression() -> None:
    linear = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed")
    random = np.random.default_rng(3)
    features = random.normal(size=(3000, 4)) * [1, 10, 0.1, 1] + [5, 0, 0, 0]
    relevant = random.random(3000) < sigmoid(features[:, 0] - 5 + 0.1 * features[:, 1] - 4 * features[:, 2])
    standard = (features - features.mean(axis=0)) / features.std(axis=0)
    reference = linear.LogisticRegression(C=1.0, tol=1e-12, max_iter=10_000).fit(standard, relevant)
    model = Logistic.fit(features, relevant, penalty=1.0)
    assert model.weights == pytest.approx(reference.coef_[0], abs=1e-4)
    assert model.probabilities(features) == pytest.approx(reference.predict_proba(standard)[:, 1], abs=1e-5)


def test_a_feature_that_may_only_help_is_left_out_where_it_hurts() -> None:
    scores, relevant = judged()
    model = Logistic.fit(np.column_stack([scores, -scores]), relevant, signs=[1, 1])
    assert model.weights[0] > 0
    assert model.weights[1] == 0


def test_a_feature_that_is_the_same_everywhere_changes_nothing() -> None:
    scores, relevant = judged()
    alone = Logistic.fit(scores[:, None], relevant)
    beside = Logistic.fit(np.column_stack([scores, np.full(len(scores), 0.1)]), relevant)
    assert beside.weights[1] == pytest.approx(0, abs=1e-12)
    assert beside.weights[0] == pytest.approx(alone.weights[0])


def test_features_give_one_pair_what_they_give_it_among_many() -> None:
    random = np.random.default_rng(4)
    features = random.normal(size=(300, 9))
    model = Logistic.fit(features, features[:, 0] + random.normal(size=300) > 0)
    together = model.probabilities(features)
    assert [float(model.probabilities(row)) for row in features] == together.tolist()


def test_separable_pairs_give_probabilities_short_of_certainty() -> None:
    scores = np.arange(40.0)
    for kind in SINGLE.values():
        probabilities = kind.fit(scores - 19.5, scores > 19).probabilities(scores - 19.5)
        assert probabilities.min() > 0
        assert probabilities.max() < 1


@pytest.mark.parametrize("calibrator", fitted(), ids=lambda calibrator: calibrator.method)
def test_what_was_fitted_comes_back_from_json_bit_for_bit(calibrator: Calibrator) -> None:
    again = from_json(json.loads(json.dumps(as_json(calibrator))))
    assert again == calibrator
    scores = given_to(calibrator, np.linspace(-4, 4, 999))
    assert again.probabilities(scores).tobytes() == calibrator.probabilities(scores).tobytes()


@pytest.mark.parametrize("calibrator", [one for one in fitted() if one.method != "features"], ids=lambda one: one.method)
@given(scores=st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20))
def test_a_larger_score_never_gets_a_smaller_probability(calibrator: Calibrator, scores: list[float]) -> None:
    probabilities = calibrator.probabilities(sorted(scores))
    assert (np.diff(probabilities) >= -1e-15).all()
    assert ((probabilities >= 0) & (probabilities <= 1)).all()


@given(st.integers(0, 10_000))
def test_the_bounded_fit_meets_the_conditions_of_an_optimum(seed: int) -> None:
    """Kuhn–Tucker: no slope where a weight is free, and at a bound only one that presses against it."""
    random = np.random.default_rng(seed)
    columns = np.column_stack([random.normal(size=(60, 3)), np.ones(60)])
    targets = smoothed(random.random(60) < 0.4)
    weights = fit_logistic(columns, targets, lower=[0, 0, -np.inf, -np.inf], upper=[np.inf, np.inf, 0, np.inf])
    gradient = columns.T @ (sigmoid(columns @ weights) - targets)
    for place, (weight, slope) in enumerate(zip(weights, gradient, strict=True)):
        if weight == 0 and place < 3:
            assert slope > -1e-5 if place < 2 else slope < 1e-5
        else:
            assert abs(slope) < 1e-5


@pytest.mark.parametrize("kind", [*SINGLE.values(), Logistic], ids=lambda kind: kind.method)
@pytest.mark.parametrize(
    ("scores", "relevant", "told"),
    [
        ([0.1, 0.2, 0.3], [True, False, True], "got 3 pairs, 2 of them relevant"),
        (np.arange(50.0), np.ones(50, bool), "50 pairs, 50 of them relevant"),
        (np.arange(50.0), np.zeros(50, bool), "50 pairs, 0 of them relevant"),
        (np.full(50, 0.5), np.arange(50) < 25, "the scores of all 50 pairs are equal"),
        (np.append(np.arange(49.0), np.nan), np.arange(50) < 25, "1 of the scores are NaN or infinite"),
        (np.arange(50.0), np.arange(49) < 25, "each pair has one judgment"),
        ([], [], "got 0 pairs"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(kind: type, scores: list[float], relevant: list[bool], told: str) -> None:
    given_scores = np.asarray(scores, float)
    with pytest.raises(CalibrationError, match=told):
        kind.fit(given_scores[:, None] if kind is Logistic else given_scores, relevant)


@pytest.mark.parametrize(
    "values",
    [{}, {"method": "magic"}, {"method": "platt", "slope": 1.0}, {"method": "platt", "slope": float("nan"), "intercept": 0.0}],
)
def test_values_that_describe_no_calibration_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(CalibrationError, match="describe no calibration"):
        from_json(values)
