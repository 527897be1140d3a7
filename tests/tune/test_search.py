"""The search through the space: repeatable, begins with the plain pipelines, ends when nothing new comes."""

from __future__ import annotations

import sys

import pytest

from twinrank.errors import MissingExtraError
from twinrank.recipe import Recipe
from twinrank.tune.finalists import finalists, pareto
from twinrank.tune.search import Sampler, load_optuna, search, starting_points
from twinrank.tune.space import Space, changed, default_knobs, stages_of

pytest.importorskip("optuna")

SPACE = Space(Recipe(), default_knobs(Recipe(), rerankers=["m"]))


def quality(recipe: Recipe) -> float:
    return recipe.fuse.weights.vectors + 0.1 * len(recipe.rerank) - 0.001 * recipe.retrieve.words


def cost(recipe: Recipe) -> float:
    return float(recipe.retrieve.vectors + recipe.retrieve.words + sum(stage.candidates for stage in recipe.rerank))


def tried(seed: int, sampler: Sampler = "nsga2", trials: int = 60) -> list[Recipe]:
    return search(SPACE, quality, cost, trials=trials, seed=seed, sampler=sampler, starts=starting_points(SPACE))


@pytest.mark.parametrize("sampler", ["nsga2", "tpe", "random"])
def test_the_same_seed_tries_the_same_pipelines_in_the_same_order(sampler: Sampler) -> None:
    assert tried(3, sampler) == tried(3, sampler)
    assert tried(3, sampler) != tried(4, sampler)


def test_each_pipeline_is_tried_once_and_the_default_first() -> None:
    recipes = tried(0)
    assert recipes[0] == SPACE.base
    assert len(set(recipes)) == len(recipes) == 61


def test_each_source_alone_both_and_each_reranker_are_tried_before_chance() -> None:
    first = [stages_of(recipe) for recipe in tried(0)[:8]]
    assert set(first) >= {
        ("vectors", "words"),
        ("vectors",),
        ("words",),
        ("vectors", "words", "maxsim"),
        ("vectors", "words", "cross-encoder"),
    }


def test_a_small_space_is_exhausted_and_the_search_ends() -> None:
    space = SPACE
    for knob in SPACE.knobs:
        if knob.name != "retrieve.words":
            space = space.with_values(knob.name, [str(knob.values[0])])
    assert len(search(space, quality, cost, trials=50, seed=0)) <= 5


def test_a_seeded_search_finds_better_pipelines_than_it_began_with() -> None:
    recipes = tried(1, trials=150)
    assert max(map(quality, recipes)) > max(map(quality, recipes[:6]))


def test_the_front_holds_what_nothing_beats_in_both() -> None:
    recipes = [changed(Recipe(), "fuse.constant", number) for number in range(4)]
    qualities = dict(zip(recipes, [0.5, 0.4, 0.7, 0.7], strict=True))
    costs = dict(zip(recipes, [1.0, 2.0, 3.0, 4.0], strict=True))
    assert pareto(qualities, costs.__getitem__) == [recipes[0], recipes[2]]


def test_finalists_are_the_ends_of_the_front_some_between_and_who_is_always_in() -> None:
    recipes = [changed(Recipe(), "fuse.constant", number) for number in range(30)]
    qualities = {recipe: number / 30 for number, recipe in enumerate(recipes)}
    costs = {recipe: float(number) for number, recipe in enumerate(recipes)}
    outside = changed(Recipe(), "fuse.constant", 77)
    found = finalists(qualities, costs.__getitem__, [outside], count=5)
    assert found[0] == outside
    assert {recipes[0], recipes[-1]} <= set(found)
    assert len(found) == 6


def test_without_optuna_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'twinrank\[tune\]'"):
        load_optuna()
