"""The space of pipelines: what is drawn is a recipe, what means nothing is not drawn, what is unknown is refused."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinrank.errors import InputError
from twinrank.recipe import EncoderSettings, Recipe, RerankSettings, TokenSettings
from twinrank.tune.space import Space, Value, changed, default_knobs, describe, searched, stages_of

SPACE = Space(Recipe(), default_knobs(Recipe(), rerankers=["a reranker"]))


def drawn(seed: int, space: Space = SPACE) -> dict[str, Value]:
    rng = random.Random(seed)
    return space.draw(lambda name, values: rng.choice(values))


@given(st.integers())
def test_whatever_is_drawn_makes_a_recipe_that_survives_its_own_toml(seed: int) -> None:
    recipe = SPACE.recipe(drawn(seed))
    assert Recipe.parse(recipe.to_toml()) == recipe


@given(st.integers())
def test_what_means_nothing_beside_the_rest_is_not_drawn(seed: int) -> None:
    values = drawn(seed)
    assert ("fuse.method" in values) == (values["sources"] in ("both", "tokens and words"))
    assert ("retrieve.words" in values) == (values["sources"] not in ("vectors", "tokens"))
    assert ("fuse.constant" in values) == (values.get("fuse.method") == "rank")
    assert ("maxsim.weight" in values) == (values.get("maxsim.candidates", 0) != 0)
    assert ("cross-encoder.weight" in values) == (values["cross-encoder.candidates"] != 0)


@given(st.integers())
def test_the_stages_are_those_that_were_drawn(seed: int) -> None:
    values = drawn(seed)
    expected = list(searched(values))
    expected += [name for name in ("maxsim", "cross-encoder") if values.get(f"{name}.candidates", 0)]
    recipe = SPACE.recipe(values)
    assert list(stages_of(recipe)) == expected
    assert (recipe.tokens is not None) == ("maxsim" in expected or "tokens" in expected)


def test_the_weights_of_both_sources_add_up_to_one() -> None:
    asked = {"sources": "both", "fuse.method": "score", "fuse.weights.words": 0.7}
    recipe = SPACE.recipe(SPACE.draw(lambda name, values: asked.get(name, values[0])))
    assert (recipe.fuse.weights.vectors, recipe.fuse.weights.words) == (0.3, 0.7)


@given(st.integers())
def test_pipelines_of_one_source_keep_the_fusion_of_the_base(seed: int) -> None:
    """So that two that differ in nothing that counts are equal, and judged once."""
    values = drawn(seed, SPACE.with_values("sources", ["vectors", "words", "tokens"]))
    assert SPACE.recipe(values).fuse == SPACE.base.fuse


def test_a_knob_with_one_value_is_fixed() -> None:
    space = SPACE.with_values("fuse.method", ["rank"]).with_values("sources", ["both"])
    assert {space.recipe(drawn(seed, space)).fuse.method for seed in range(20)} == {"rank"}


def test_named_values_take_the_type_of_the_knob() -> None:
    space = SPACE.with_values("retrieve.words", ["30", "70"]).with_values("fuse.weights.words", ["0.45"])
    assert next(knob for knob in space.knobs if knob.name == "retrieve.words").values == (30, 70)
    assert next(knob for knob in space.knobs if knob.name == "fuse.weights.words").values == (0.45,)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("fuse.metod", ["rank"], "did you mean 'fuse.method'"),
        ("nonsense", ["1"], "known are: encoder.model"),
        ("retrieve.words", ["many"], "takes values like 20"),
        ("retrieve.words", [], "was given no value"),
    ],
)
def test_a_knob_that_is_unknown_or_given_nonsense_is_refused_by_name(name: str, values: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SPACE.with_values(name, values)


def test_a_key_that_recipes_do_not_have_is_refused_when_the_space_is_made() -> None:
    from twinrank.tune.space import Knob

    with pytest.raises(InputError, match="no key 'mehtod'"):
        Space(Recipe(), (Knob("fuse.mehtod", ("rank",)),))


def test_words_alone_have_one_source_and_no_late_interaction() -> None:
    base = Recipe(encoder=EncoderSettings("none"))
    space = Space(base, default_knobs(base))
    assert {stages_of(space.recipe(drawn(seed, space))) for seed in range(20)} == {("words",)}


def test_the_bases_reranker_is_varied_with_what_no_knob_turns_kept() -> None:
    base = Recipe(rerank=(RerankSettings(model="mine", windows=True, risk=0.05, weight=1.0),))
    space = Space(base, default_knobs(base))
    recipes = [space.recipe(drawn(seed, space)) for seed in range(60)]
    stages = [(recipe.group.by, stage) for recipe in recipes for stage in recipe.rerank if stage.model]
    assert {(stage.model, stage.windows) for _, stage in stages} == {("mine", True)}
    assert len({stage.candidates for _, stage in stages}) > 1
    assert {stage.risk for by, stage in stages if stage.weight == 1 and by == "best"} == {0.05}
    assert {stage.risk for by, stage in stages if stage.weight != 1 or by == "sum"} == {0.0}  # a recipe may not have both


def test_changing_one_key_leaves_the_others() -> None:
    recipe = changed(Recipe(), "retrieve.words", 7)
    assert (recipe.retrieve.words, recipe.retrieve.vectors, recipe.fuse) == (7, 100, Recipe().fuse)


def test_a_pipeline_is_described_in_a_line() -> None:
    stages = (RerankSettings(kind="maxsim", candidates=50, weight=0.4), RerankSettings(model="m", candidates=20))
    recipe = Recipe(tokens=TokenSettings(), rerank=stages)
    assert describe(recipe) == "vectors 100 + words 100 → maxsim 50 (.4) → cross-encoder 20 (1)"
