"""Choosing: what is really better is taken, luck is not, a stage has to earn its place, and what is reported is held out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from twinrank.recipe import Recipe, RerankSettings
from twinrank.tune.choose import Choice, best, cheapest_reaching, choose, difference, folds_of, one_step_earlier
from twinrank.tune.judge import Figures
from twinrank.tune.space import changed

DEFAULT = Recipe()


def variant(number: int) -> Recipe:
    recipe: Recipe = changed(DEFAULT, "fuse.constant", 100 + number)
    return recipe


def cost(recipe: Recipe) -> float:
    return float(recipe.fuse.constant + 1000 * len(recipe.rerank))


def chosen(figures: dict[Recipe, Figures], default: Figures, **options: bool) -> Choice:
    folds = folds_of(len(default), 5, seed=1)
    everything = {DEFAULT: default, **figures}
    tried = [list(everything)] * len(folds)
    return choose(everything, everything, DEFAULT, default, cost=cost, folds=folds, tried=tried, **options)


def test_folds_hold_every_query_once_and_are_the_same_for_the_same_seed() -> None:
    folds = folds_of(23, 5, seed=4)
    assert sorted(np.concatenate(folds).tolist()) == list(range(23))
    assert {len(fold) for fold in folds} == {4, 5}
    assert all((a == b).all() for a, b in zip(folds, folds_of(23, 5, seed=4), strict=True))
    assert any(len(a) != len(b) or (a != b).any() for a, b in zip(folds, folds_of(23, 5, seed=5), strict=True))


def test_a_difference_has_the_standard_error_of_pairs() -> None:
    a, b = np.array([0.2, 0.4, 0.9, 0.5]), np.array([0.1, 0.4, 0.6, 0.5])
    found = difference(a, b)
    assert found.mean == pytest.approx(0.1)
    assert found.error == pytest.approx(np.std([0.1, 0.0, 0.3, 0.0], ddof=1) / 2)
    assert found.low <= 0.1 <= found.high
    assert found.detectable > 2.8 * found.error


def test_settings_that_differ_by_luck_alone_hardly_ever_replace_the_default() -> None:
    """A hundred settings of equal worth: the best of them looks far better on the queries that it was chosen by."""
    rng = np.random.default_rng(0)
    looks, gains, kept = [], [], 0
    for _ in range(40):
        default = rng.uniform(size=100)
        figures = {variant(i): np.clip(default + rng.normal(0, 0.3, 100), 0, 1) for i in range(100)}
        shift = np.mean([values.mean() for values in figures.values()]) - default.mean()
        figures = {recipe: values - shift for recipe, values in figures.items()}
        choice = chosen(figures, default)
        looks.append(max(values.mean() for values in figures.values()) - default.mean())
        gains.append(choice.gain.mean)
        kept += choice.recipe == DEFAULT
    assert np.mean(looks) > 0.04
    assert abs(np.mean(gains)) < 0.02
    assert kept >= 28


def test_a_real_gain_is_chosen_and_reported_as_large_as_it_is() -> None:
    rng = np.random.default_rng(1)
    default = rng.uniform(0.2, 0.8, 300)
    figures = {variant(i): default + rng.normal(0, 0.1, 300) for i in range(50)}
    figures[variant(99)] = default + rng.normal(0.08, 0.1, 300)
    choice = chosen(figures, default)
    assert choice.recipe == variant(99)
    assert choice.gain.low < 0.08 < choice.gain.high
    assert choice.gain.low > 0
    assert not choice.keeps_the_default


def test_what_was_chosen_on_the_other_folds_is_judged_on_the_fold() -> None:
    """One setting is perfect on each fold alone and useless elsewhere: chosen by the other folds, none is worth anything."""
    folds = folds_of(50, 5, seed=1)
    default = np.full(50, 0.1)
    figures = {}
    for number, fold in enumerate(folds):
        figures[variant(number)] = np.zeros(50)
        figures[variant(number)][fold] = 1.0
    choice = choose(
        figures, figures, DEFAULT, default, cost=cost, folds=folds, tried=[list(figures)] * 5, rule=best, may_keep=True
    )
    assert choice.gain.mean == pytest.approx(-0.1)
    assert choice.recipe == DEFAULT


def test_a_default_that_may_not_be_kept_is_replaced_by_the_best_there_is() -> None:
    choice = chosen({variant(0): np.full(40, 0.5)}, np.linspace(0.4, 0.61, 40), may_keep=False)
    assert choice.candidate in (DEFAULT, variant(0))
    figures = {variant(0): np.full(40, 0.3)}
    folds = folds_of(40, 4, seed=0)
    kept_out = choose(
        figures, figures, DEFAULT, np.full(40, 0.5), cost=cost, folds=folds, tried=[list(figures)] * 4, may_keep=False
    )
    assert kept_out.recipe == variant(0)
    assert kept_out.gain.mean == pytest.approx(-0.2)


def test_a_stage_has_to_earn_its_place_by_more_than_half_a_standard_error() -> None:
    rng = np.random.default_rng(2)
    simple = rng.uniform(size=100)
    reranked = replace(DEFAULT, rerank=(RerankSettings(model="m"),))
    noise = rng.normal(0, 0.2, 100)
    noise -= noise.mean()
    assert best({DEFAULT: simple, reranked: simple + noise + 0.005}, cost) == DEFAULT
    assert best({DEFAULT: simple, reranked: simple + noise + 0.02}, cost) == reranked


def test_of_pipelines_with_equal_stages_the_best_mean_is_taken_and_of_equal_means_the_cheapest() -> None:
    figures = {variant(2): np.full(10, 0.5), variant(1): np.full(10, 0.5), variant(3): np.full(10, 0.4)}
    assert best(figures, cost) == variant(1)


def test_the_cheapest_that_reaches_what_is_enough_is_taken() -> None:
    figures = {variant(1): np.full(10, 0.4), variant(2): np.full(10, 0.6), variant(3): np.full(10, 0.9)}
    assert cheapest_reaching(0.55)(figures, cost) == variant(2)
    assert cheapest_reaching(0.95)(figures, cost) == variant(3)


def test_leaving_out_a_stage_is_compared_with_the_best_that_has_all_the_others() -> None:
    stage = RerankSettings(model="m")
    pick = replace(variant(0), rerank=(stage,))
    words = changed(DEFAULT, "retrieve.vectors", 0)
    judged = {
        pick: np.full(4, 0.9),
        variant(1): np.full(4, 0.6),
        variant(2): np.full(4, 0.7),
        replace(words, rerank=(stage,)): np.full(4, 0.5),
        words: np.full(4, 0.99),
    }
    assert one_step_earlier(pick, judged) == [("vectors", replace(words, rerank=(stage,))), ("cross-encoder", variant(2))]
