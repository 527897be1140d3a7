"""Significance: by hand, against scipy, by property, and refusing where a figure would mean nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinrank.errors import InputError
from twinrank.evaluate.significance import (
    FEWEST_QUERIES,
    Paired,
    bca_interval,
    compare,
    compare_all,
    detectable,
    holm,
    queries_needed,
    randomisation_test,
)

RNG = np.random.default_rng(3)
SKEWED = np.concatenate([RNG.exponential(0.2, 60) - 0.1, np.zeros(15)])


def keyed(values: np.ndarray) -> dict[str, float]:
    return {f"q{number}": float(value) for number, value in enumerate(values)}


def against_zero(values: np.ndarray) -> Paired:
    return compare(keyed(values), keyed(np.zeros(len(values))))


# -- the randomisation test ----------------------------------------------------------------------------------------------


def test_all_sign_patterns_of_three_queries_are_counted_as_by_hand() -> None:
    # |±1 ±2 ±4| of the 8 patterns: 7 5 3 1 1 3 5 7; observed 1 + 2 - 4 = -1, and all 8 are at least 1.
    assert randomisation_test(np.array([1.0, 2.0, -4.0])) == (1.0, True)
    # observed 1 - 2 + 4 = 3: 7, 5, 3 and their mirror images.
    assert randomisation_test(np.array([1.0, -2.0, 4.0])) == (6 / 8, True)


def test_queries_without_a_difference_change_nothing() -> None:
    values = np.array([0.3, -0.1, 0.2, 0.5, 0.4, 0.1])
    assert randomisation_test(np.concatenate([values, np.zeros(50)])) == randomisation_test(values)


def test_the_exact_test_equals_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    for seed in range(5):
        values = np.random.default_rng(seed).normal(0.3, 1, 12)
        expected = stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
        assert randomisation_test(values) == (pytest.approx(expected, abs=1e-12), True)


def test_the_drawn_test_comes_near_to_scipys_and_to_the_exact_one() -> None:
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(1).normal(0.4, 1, 17)  # the first number of queries for which patterns are drawn
    p, exact = randomisation_test(values)
    expected = stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
    assert not exact
    assert p == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 100_000))


def test_a_drawn_p_is_never_zero_and_is_the_same_every_time() -> None:
    clear = np.full(200, 0.5) + np.linspace(0, 0.1, 200)
    assert randomisation_test(clear) == (1 / 100_001, False)
    assert randomisation_test(SKEWED) == randomisation_test(SKEWED)


def test_the_test_keeps_its_level() -> None:
    """Where chance alone decides, one of twenty comparisons is significant at 5 %, not more."""
    rng = np.random.default_rng(0)
    ps = [randomisation_test(rng.normal(size=14))[0] for _ in range(1000)]
    assert np.mean(np.array(ps) < 0.05) == pytest.approx(0.05, abs=0.02)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=12))
def test_p_does_not_depend_on_which_run_is_called_the_baseline(differences: list[float]) -> None:
    values = np.array(differences)
    assert randomisation_test(values)[0] == randomisation_test(-values)[0]


# -- the interval --------------------------------------------------------------------------------------------------------


def test_the_interval_equals_scipys_bca() -> None:
    stats = pytest.importorskip("scipy.stats")
    for values in (SKEWED, np.random.default_rng(5).normal(0.1, 0.3, 30)):
        expected = stats.bootstrap(
            (values,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(8)
        ).confidence_interval
        spread = values.std() / math.sqrt(len(values))
        assert bca_interval(values) == pytest.approx((expected.low, expected.high), abs=0.06 * spread)


def test_the_interval_leans_the_way_the_values_do() -> None:
    low, high = bca_interval(SKEWED)
    assert high - SKEWED.mean() > 1.05 * (SKEWED.mean() - low)
    mirrored = bca_interval(-SKEWED)
    assert mirrored == pytest.approx((-high, -low), abs=0.01)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    held = [
        low <= 1 <= high for low, high in (bca_interval(rng.exponential(1, 40), samples=1000, seed=seed) for seed in range(400))
    ]
    assert 0.90 <= np.mean(held) <= 0.98


def test_values_that_are_all_equal_have_no_interval() -> None:
    for values in ([0.2], [0.2, 0.2, 0.2]):
        with pytest.raises(InputError, match="two values or more"):
            bca_interval(np.array(values))


# -- several comparisons -------------------------------------------------------------------------------------------------


def test_holms_correction_is_as_in_his_paper_by_hand() -> None:
    assert holm([0.01, 0.02, 0.03, 0.005]) == pytest.approx([0.03, 0.04, 0.04, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_a_corrected_p_lies_between_the_p_and_bonferronis(ps: list[float]) -> None:
    for p, corrected in zip(ps, holm(ps), strict=True):
        assert p <= corrected <= min(1.0, len(ps) * p)


def test_more_comparisons_make_each_less_sure() -> None:
    base = keyed(np.zeros(30))
    one = keyed(np.random.default_rng(4).normal(0.2, 0.4, 30))
    noise = {f"n{n}": keyed(np.random.default_rng(n).normal(0, 0.4, 30)) for n in range(4)}
    alone = compare_all(base, {"one": one})["one"]
    among = compare_all(base, {"one": one, **noise})["one"]
    assert alone.p == alone.corrected == among.p
    assert among.corrected is not None
    assert alone.p is not None
    assert among.corrected > alone.p


def test_what_could_not_be_tested_is_no_comparison_to_correct_for() -> None:
    base = keyed(np.zeros(30))
    one = keyed(np.random.default_rng(4).normal(0.2, 0.4, 30))
    compared = compare_all(base, {"one": one, "same": dict(base)})
    assert compared["one"].corrected == compared["one"].p
    assert compared["same"].corrected is None
    assert compared["same"].verdict == "the same for 30 queries"


# -- how many queries it would take --------------------------------------------------------------------------------------


@pytest.mark.parametrize("effect", [0.1, 0.2, 0.5, 0.8])
def test_the_queries_needed_are_those_of_the_noncentral_t_distribution(effect: float) -> None:
    stats = pytest.importorskip("scipy.stats")

    def power(queries: int) -> float:
        shift, freedom = effect * math.sqrt(queries), queries - 1
        limit = stats.t.ppf(0.975, freedom)
        return float(stats.nct.sf(limit, freedom, shift) + stats.nct.cdf(-limit, freedom, shift))

    expected = next(queries for queries in range(5, 2000) if power(queries) >= 0.8)
    assert queries_needed(effect) == pytest.approx(expected, abs=1)


def test_the_randomisation_test_finds_four_of_five_with_the_queries_needed() -> None:
    needed = queries_needed(0.8)
    assert needed == 15
    rng = np.random.default_rng(6)
    found = [randomisation_test(rng.normal(0.8, 1, needed))[0] < 0.05 for _ in range(500)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.05)


def test_what_is_detectable_needs_just_so_many_queries() -> None:
    difference = detectable(0.3, 225)
    assert queries_needed(difference / 0.3) == 225
    assert queries_needed(0.0) is None


# -- comparing -----------------------------------------------------------------------------------------------------------


def test_queries_helped_and_harmed_are_counted() -> None:
    told = against_zero(np.array([0.1] * 6 + [-0.2] * 3 + [0.0] * 4))
    assert (told.helped, told.harmed, told.unchanged) == (6, 3, 4)
    assert told.mean == pytest.approx(0.0)
    assert told.p == 1.0
    assert told.verdict == "not told apart"
    assert told.needed is None  # no difference to show


def test_a_clear_difference_is_told_with_interval_effect_and_queries() -> None:
    values = np.random.default_rng(7).normal(0.1, 0.2, 100)
    told = against_zero(values)
    assert told.low is not None
    assert told.high is not None
    assert told.low < values.mean() < told.high
    assert told.effect == pytest.approx(values.mean() / values.std(ddof=1))
    assert told.needed == queries_needed(float(values.mean() / values.std(ddof=1)))
    assert told.detectable == pytest.approx(2.8 * values.std(ddof=1) / 10, rel=0.02)
    assert told.verdict == "better"
    assert against_zero(-values).verdict == "worse"


def test_too_few_queries_get_a_mean_and_a_reason_and_no_other_figure() -> None:
    for count in (1, FEWEST_QUERIES - 1):
        told = against_zero(np.full(count, 0.5) + np.arange(count) / 100)
        assert told.mean >= 0.5
        assert (told.p, told.corrected, told.low, told.high, told.effect, told.needed, told.detectable) == (None,) * 7
        assert "too few to tell; 10 at least" in told.verdict
        assert not told.significant
    assert against_zero(np.array([0.5])).note.startswith("the one query")


def test_runs_that_do_not_differ_get_no_p() -> None:
    told = against_zero(np.zeros(40))
    assert (told.p, told.low, told.note) == (None, None, "the same for 40 queries")
    noise = compare(keyed(np.full(40, 0.1 + 0.2)), keyed(np.full(40, 0.3)))  # differs in the last digit alone
    assert noise.unchanged == 40


def test_the_same_difference_everywhere_has_a_p_and_no_interval() -> None:
    told = against_zero(np.full(12, 0.5))
    assert told.p == 2 / 2**12
    assert (told.low, told.high, told.needed) == (None, None, None)
    assert "no spread" in told.note
    assert told.verdict == "better"


def test_what_is_no_number_and_other_queries_are_refused() -> None:
    values = keyed(np.ones(12))
    with pytest.raises(InputError, match=r"query 'q3' has the values nan and 1.0"):
        compare({**values, "q3": math.nan}, values)
    with pytest.raises(InputError, match="the same queries; 1 are in one of them alone, the first is 'q0'"):
        compare({query: value for query, value in values.items() if query != "q0"}, values)
    with pytest.raises(InputError, match="no query"):
        compare({}, {})
