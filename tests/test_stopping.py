"""When a rerank may stop: bounds by hand, predictions against a plain Gaussian process, the promise on queries never seen."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinrank.errors import InputError
from twinrank.stopping import (
    TOPS,
    Candidates,
    Example,
    Expectation,
    Rule,
    first_batch,
    kth_best,
    look_ahead,
    next_batch,
    queries_needed,
    upper_bound,
)


def query(draw: np.random.Generator, *, candidates: int = 60, noise: float = 0.4) -> Example:
    """A query whose scores follow the first stage's, the passages' vectors, and chance."""
    first = np.sort(draw.normal(size=candidates))[::-1]
    vectors = draw.normal(size=(candidates, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = first + vectors @ draw.normal(size=8) + noise * draw.normal(size=candidates) + draw.normal()
    features = np.column_stack([first, np.log1p(np.arange(candidates))])
    return Example(Candidates(features, np.arange(candidates), vectors), scores)


def queries(count: int, seed: int, **shape: float) -> list[Example]:
    draw = np.random.default_rng(seed)
    return [query(draw, **shape) for _ in range(count)]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def rule() -> Rule:
    return Rule.learn(queries(200, 1))


def rerank(rule: Rule, example: Example, risk: float, top: int) -> tuple[int, bool]:
    """(pairs scored, whether the first `top` are other than a full rerank's), counted without the module's own test for it."""
    expected, owners = rule.model.expect(example.candidates), example.candidates.owners
    threshold = rule.threshold(risk, top)
    scored = first_batch(expected)
    while len(scored) < len(owners):
        doubt, rest = look_ahead(expected, owners, scored, example.scores[scored], top)
        if doubt < threshold:
            break
        scored = np.concatenate([scored, rest[: next_batch(len(scored), len(owners))]])
    found = scored[np.argsort(-example.scores[scored])][:top].tolist()
    return len(scored), found != np.argsort(-example.scores)[:top].tolist()


def test_the_upper_bound_equals_the_published_tables() -> None:
    assert upper_bound(0, 59) == pytest.approx(1 - 0.05 ** (1 / 59))
    assert upper_bound(1, 20, 0.975) == pytest.approx(0.2487, abs=1e-4)  # the two-sided 95 % interval of 1 in 20
    assert upper_bound(10, 100, 0.975) == pytest.approx(0.1762, abs=1e-4)
    assert upper_bound(5, 5) == 1


@pytest.mark.parametrize(("mistakes", "trials"), [(0, 5), (3, 40), (39, 40), (12, 700)])
def test_the_upper_bound_equals_the_quantile_of_a_beta_distribution(mistakes: int, trials: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    assert upper_bound(mistakes, trials) == pytest.approx(stats.beta.ppf(0.95, mistakes + 1, trials - mistakes), abs=1e-9)


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(InputError, match="7 mistakes in 5 trials"):
        upper_bound(7, 5)


def test_fewer_queries_than_needed_leave_nothing_out_and_as_many_do() -> None:
    assert upper_bound(0, queries_needed(0.05)) <= 0.05 < upper_bound(0, queries_needed(0.05) - 1)


@given(st.lists(st.tuples(st.floats(-5, 5), st.integers(0, 4)), max_size=12), st.integers(1, 6))
def test_the_kth_best_counts_a_document_by_its_best_passage(pairs: list[tuple[float, int]], k: int) -> None:
    scores, owners = np.array([score for score, _ in pairs]), np.array([owner for _, owner in pairs], np.int64)
    best = sorted((max(s for s, o in pairs if o == owner) for owner in {o for _, o in pairs}), reverse=True)
    assert kth_best(scores, owners, k) == (best[k - 1] if len(best) >= k else -math.inf)


@given(st.integers(1, 500))
def test_batches_grow_and_end_with_the_last_candidate(candidates: int) -> None:
    sizes = []
    while sum(sizes) < candidates:
        sizes.append(next_batch(sum(sizes), candidates))
    assert sum(sizes) == candidates
    assert min(sizes) >= 1
    assert sizes[1:-1] == sorted(sizes[1:-1])


def test_expectations_equal_the_textbook_formula_of_a_conditional_normal() -> None:
    shared = np.array([[2.0, 1.0, 0.0], [1.0, 2.0, 0.5], [0.0, 0.5, 1.0]])
    expected = Expectation(np.array([1.0, 2.0, 3.0]), shared, noise=0.5)
    means, deviations = expected.of_the_rest(np.array([0]), np.array([2.0]), np.array([1, 2]))
    assert means == pytest.approx([2 + 1 / 2.5 * (2 - 1), 3])
    assert deviations**2 == pytest.approx([2 - 1 / 2.5 + 0.5, 1.5])


def test_the_doubt_is_the_logarithm_of_how_many_are_expected_above_the_border() -> None:
    expected = Expectation(np.array([9.0, 0.0, -1.0]), np.zeros((3, 3)), noise=1.0)
    doubt, rest = look_ahead(expected, np.arange(3), np.array([0]), np.array([0.0]), top=1)
    assert doubt == pytest.approx(math.log(0.5 + 0.158655254), abs=1e-6)  # P(N > 0) + P(N > 1)
    assert rest.tolist() == [1, 2]


def test_with_fewer_documents_than_places_nothing_is_settled(rule: Rule) -> None:
    expected = Expectation(np.zeros(4), np.eye(4), noise=1.0)
    doubt, _ = look_ahead(expected, np.array([1, 1, 1, 2]), np.array([0, 1, 2]), np.array([3.0, 2.0, 1.0]), top=2)
    assert doubt == math.inf


@pytest.mark.parametrize("top", [1, 3, 10])
def test_the_promise_holds_on_queries_that_were_not_learned_from(rule: Rule, top: int) -> None:
    """With an exact test: so many changed answers, or more, would be no rare sight if the risk were kept."""
    results = [rerank(rule, example, 0.1, top) for example in queries(300, 2)]
    changed = sum(different for _, different in results)
    assert upper_bound(len(results) - changed, len(results), 0.99) >= 0.9
    assert np.mean([pairs for pairs, _ in results]) < 50  # of 60


def test_a_smaller_risk_and_more_places_cost_more_pairs(rule: Rule) -> None:
    fresh = queries(60, 3)
    cost = {(risk, top): np.mean([rerank(rule, one, risk, top)[0] for one in fresh]) for risk in (0.05, 0.3) for top in (1, 10)}
    assert cost[0.3, 1] <= cost[0.05, 1] <= cost[0.05, 10]
    assert cost[0.3, 10] <= cost[0.05, 10]


def test_thresholds_never_fall_with_the_risk_and_risks_never_fall_with_the_doubt(rule: Rule) -> None:
    thresholds = [rule.threshold(risk, 5) for risk in (0.0, 0.01, 0.05, 0.1, 0.5, 0.9)]
    assert thresholds == sorted(thresholds)
    risks = [rule.risk(doubt, 5) for doubt in (-50, -10, -3, 0, 3)]
    assert risks == sorted(risks)


def test_a_threshold_keeps_its_risk_on_the_queries_that_it_was_calibrated_on(rule: Rule) -> None:
    for risk in (0.05, 0.1, 0.2):
        mistakes = int((rule.mistakes[10] < rule.threshold(risk, 10)).sum())
        assert upper_bound(mistakes, rule.queries) <= risk


def test_without_risk_or_with_too_few_queries_nothing_may_be_left_out(rule: Rule) -> None:
    assert rule.threshold(0.0, 1) == -math.inf
    assert rule.threshold(0.001, 1) == -math.inf  # needs 2995 queries
    assert rule.threshold(0.1, max(TOPS) + 1) == -math.inf


def test_too_few_queries_to_learn_from_are_refused_with_how_many_it_takes() -> None:
    with pytest.raises(InputError, match="at least 40 queries"):
        Rule.learn(queries(39, 1))
    with pytest.raises(InputError, match="0 of the 50"):
        Rule.learn(queries(50, 1, candidates=10))


def test_scores_that_are_all_equal_never_settle_anything() -> None:
    """Ties are told apart by id, so any candidate could stand first."""
    alike = [Example(one.candidates, np.ones(60)) for one in queries(60, 1)]
    assert np.isneginf(Rule.learn(alike).threshold(0.2, 1)) or all(
        rerank(Rule.learn(alike), one, 0.2, 1)[0] == 60 for one in alike[:3]
    )


def test_a_rule_comes_back_from_json_as_it_was(rule: Rule) -> None:
    back = Rule.from_dict(json.loads(json.dumps(rule.to_dict(), allow_nan=False)))
    assert back.model.coefficients.tolist() == rule.model.coefficients.tolist()
    assert back.model.covariance == rule.model.covariance
    for top in TOPS:
        assert back.mistakes[top].tolist() == rule.mistakes[top].tolist()


def test_a_damaged_rule_is_refused(rule: Rule) -> None:
    told = rule.to_dict()
    del told["mistakes"]["5"]
    with pytest.raises(InputError, match="twinrank learn"):
        Rule.from_dict(told)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000))
def test_what_was_settled_for_more_places_is_settled_for_fewer(rule: Rule, seed: int) -> None:
    example = query(np.random.default_rng(seed))
    expected = rule.model.expect(example.candidates)
    scored = first_batch(expected)
    doubts = [look_ahead(expected, example.candidates.owners, scored, example.scores[scored], top)[0] for top in (1, 3, 5, 10)]
    assert doubts == sorted(doubts)
