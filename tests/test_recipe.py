"""Recipes: what is left out has its default, what is wrong is named, and what is written reads back."""

from __future__ import annotations

from pathlib import Path

import pytest

from twinrank.errors import RecipeError
from twinrank.recipe import BUILT_IN, FuseWeights, Recipe, RerankSettings


def test_an_empty_recipe_is_the_default_one() -> None:
    assert Recipe.parse("") == Recipe()


def test_a_recipe_reads_back_as_it_was_written() -> None:
    recipe = Recipe.parse(
        """
        [encoder]
        model = "a folder/with \\"quotes\\" and ü"
        [fuse]
        weights = { vectors = 0.25, words = 2 }
        [[rerank]]
        model = "first"
        candidates = 20
        [[rerank]]
        model = "second"
        """
    )
    assert recipe.fuse.weights == FuseWeights(vectors=0.25, words=2.0)
    assert recipe.rerank == (RerankSettings("first", candidates=20), RerankSettings("second"))
    assert Recipe.parse(recipe.to_toml()) == recipe


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_recipe_reads_back(name: str) -> None:
    assert Recipe.parse(Recipe.load(name).to_toml()) == BUILT_IN[name]


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("[retrive]\nwords = 1", "unknown key 'retrive'; did you mean 'retrieve'?"),
        ("[retrieve]\nword = 1", "retrieve: unknown key 'word'; did you mean 'words'?"),
        ("[retrieve]\nwords = 'ten'", "retrieve, words: expected int, got 'ten'"),
        ("[retrieve]\nwords = true", "retrieve, words: expected int, got True"),
        ("[retrieve]\nwords = -1", "retrieve, words: expected 0 to 1000000, got -1"),
        ("[retrieve]\nwords = 0\nvectors = 0", "all 0"),
        ("[passages]\nalso = ['title', 'text']", "passages, also: 'text' gives no passages of its own"),
        ("[translate]\nmodel = 'm'\nfield = 'title'", "translate, field: 'title' is no field"),
        ("[translate]\nmodel = 'm'\nfield = ''", "translate, field: '' is no field"),
        ("[passages]\nsize = 4", "the size of passages is 4 tokens"),
        ("[passages]\nsize = 100\noverlap = 100", "the overlap of passages is 100 tokens"),
        ("[fuse]\nmethod = 'magic'", "fuse, method: expected one of auto, score, rank, got 'magic'"),
        ("[fuse]\nweights = 3", "fuse, weights: expected a table, got 3"),
        ("[[rerank]]\nkind = 'bm25'", "rerank, kind: expected one of cross-encoder, maxsim"),
        ("[[rerank]]\nkind = 'maxsim'\nmodel = 'm'", "maxsim takes no model"),
        ("[[rerank]]\nkind = 'maxsim'\nweight = 1.5", "rerank, weight: expected 0.0 to 1.0"),
        ("[tokens]\nformat = 'int2'", "tokens, format: expected one of int8, int4"),
        ("[tokens]\npooling = 0.5", "tokens, pooling: expected 1.0 to"),
        ("[encoder]\npooling = 'sum'", "encoder, pooling: expected one of"),
        ("[fuse]\nweights = { words = 0, vectors = 0 }", "at least one weight must be above 0"),
        ("[fuse]\nweights = { words = nan }", "expected 0.0 to 1000000.0, got nan"),
        ("[encoder]\nmodel = ''", "encoder, model"),
        ("[encoder]\nprecision = 'int3'", "expected one of auto, int8, bf16, fp32, got 'int3'"),
        ("[rerank]\nmodel = 'm'", "expected [[rerank]] tables"),
        ("[[rerank]]\ncandidates = 10", "rerank: model is missing"),
        ("[[rerank]]\nmodel = 'm'\ncandidates = 0", "rerank, candidates: expected 1 to"),
        ("model = ", "not valid TOML"),
    ],
)
def test_a_wrong_recipe_is_refused_by_the_name_of_its_key(toml: str, said: str) -> None:
    with pytest.raises(RecipeError) as refused:
        Recipe.parse(toml)
    assert said in str(refused.value)


def test_another_prefix_translates_otherwise() -> None:
    one, other = (Recipe.parse(f"[translate]\nmodel = 'm'\nprefix = '>>{to}<<'") for to in ("fr", "de"))
    assert one.stored != other.stored
    assert "translated by m into translation" in Recipe.parse("[translate]\nmodel = 'm'").stored


def test_a_recipe_that_cannot_be_read_names_the_built_in_ones(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="hybrid, words, vectors"):
        Recipe.load(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="cannot be read"):
        Recipe.load(tmp_path / "binary.toml")
