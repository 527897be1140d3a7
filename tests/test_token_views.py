"""Token vectors in a collection: kept from the same pass, read by MaxSim, kept in step with changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from twinrank import BiEncoder, Collection, LateInteraction, Recipe, TwinTower
from twinrank.encoding import PassageEncoder
from twinrank.errors import ModelMismatchError, RecipeError
from twinrank.maxsim import maxsim
from twinrank.recipe import RerankSettings, RetrieveSettings, TokenSettings

NOTES = [
    {"id": "zinc", "title": "Zinc", "text": "Zinc lozenges may shorten a common cold by a day."},
    {"id": "honey", "title": "Honey", "text": "Honey eases a cough at night."},
    {"id": "miel", "title": "Miel", "text": "Le miel calme la toux."},
    {"id": "rest", "text": "Rest and water help against most things, a cold among them."},
]
PLAIN = TokenSettings(format="int8", pooling=1.0)
BY_MAXSIM = (RerankSettings(kind="maxsim", weight=1.0),)

Making = Callable[..., Collection]


@pytest.fixture
def make(tmp_path: Path, tiny_model: Path) -> Iterator[Making]:
    """Open collections that keep token vectors of a tiny bi-encoder; all are closed in the end."""
    opened = []

    def open_collection(name: str = "notes", **changes: object) -> Collection:
        recipe = replace(Recipe(tokens=PLAIN, rerank=BY_MAXSIM), **changes).with_model(str(tiny_model))  # type: ignore[arg-type]
        opened.append(Collection(tmp_path / name, recipe=recipe))
        return opened[-1]

    yield open_collection
    for collection in opened:
        collection.close()


def by_hand(model: Path, query: str) -> dict[str, float]:
    late = LateInteraction(model)
    texts = [f"{note.get('title', '')} {note['text']}".strip() for note in NOTES]
    scores = maxsim(late.encode([query], side="query")[0], late.encode(texts))
    return {note["id"]: float(score) for note, score in zip(NOTES, scores, strict=True)}


def scores(collection: Collection, query: str) -> dict[str, float]:
    return {hit.id: hit.score for hit in collection.search(query, k=10)}


def test_a_maxsim_stage_scores_as_the_model_does_by_hand(make: Making, tiny_model: Path) -> None:
    collection = make()
    collection.add(NOTES)
    found, wanted = scores(collection, "what helps against a cold?"), by_hand(tiny_model, "what helps against a cold?")
    assert found.keys() == wanted.keys()
    assert max(abs(found[id] - wanted[id]) for id in wanted) < 0.05  # what int8 loses of some ten similarities


def test_searching_all_token_vectors_gives_what_reranking_them_all_gives(make: Making) -> None:
    reranked, searched = make("a"), make("b", retrieve=RetrieveSettings(0, 0, 10), rerank=())
    for collection in (reranked, searched):
        collection.add(NOTES)
    first, second = (scores(collection, "le miel et la toux") for collection in (reranked, searched))
    assert list(first) == list(second)
    assert max(abs(first[id] - second[id]) for id in first) < 1e-4


def test_changes_reach_the_token_vectors_at_once(make: Making) -> None:
    collection = make(retrieve=RetrieveSettings(0, 0, 10), rerank=())
    collection.add(NOTES)
    before = scores(collection, "honey")
    report = collection.add({"id": "honey", "title": "Honey", "text": "Honey is not for infants."})
    assert report.encoded == 1
    collection.delete(["zinc"])
    after = scores(collection, "honey")
    assert after.keys() == before.keys() - {"zinc"}
    assert after["honey"] != before["honey"]
    assert after["rest"] == before["rest"]
    assert collection.check().ok


def test_both_views_come_from_one_pass(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = BiEncoder(tiny_model)
    late = LateInteraction(encoder)
    alone = [PassageEncoder(encoder).encode(["a text", "another"]), PassageEncoder(None, late).encode(["a text", "another"])]
    passes = []
    embed = encoder.embed
    monkeypatch.setattr(encoder, "embed", lambda *given, **named: passes.append(1) or embed(*given, **named))
    both = PassageEncoder(encoder, late).encode(["a text", "another"])
    assert len(passes) == 1
    for view, part in zip(("vectors", "tokens"), alone, strict=True):
        for (found, _), (wanted, _) in zip(both.vectors[view], part.vectors[view], strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_many_tokens_are_encoded_in_parts_and_none_is_lost(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = PassageEncoder(None, LateInteraction(tiny_model))
    texts = [f"text number {number} of some" for number in range(20)] + ["word " * 60]
    whole = encoder.encode(texts)
    monkeypatch.setattr("twinrank.encoding.TOKENS_AT_ONCE", 12)
    parts = encoder.encode(texts)
    assert parts.tokens == whole.tokens
    assert [dropped for _, dropped in parts.vectors["tokens"]] == [dropped for _, dropped in whole.vectors["tokens"]]
    for (found, _), (wanted, _) in zip(parts.vectors["tokens"], whole.vectors["tokens"], strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_a_recipe_that_begins_to_keep_tokens_is_refused_until_they_are_encoded(make: Making, tiny_model: Path) -> None:
    plain = make(tokens=None, rerank=())
    plain.add(NOTES)
    plain.close()
    later = make()
    with pytest.raises(ModelMismatchError, match=r"holds no tokens.*twinrank rebuild --encode"):
        later.search("honey")
    with pytest.raises(ModelMismatchError, match="holds no tokens"):
        later.add(NOTES)
    report = later.rebuild(encode=True)
    assert report is not None
    assert report.encoded == len(NOTES)  # the tokens alone: the vectors are there
    assert len(scores(later, "honey")) == len(NOTES)
    assert {view.name for view in later.status().views} == {"vectors", "tokens"}


def test_a_recipe_that_keeps_no_tokens_any_more_is_refused_until_they_are_dropped(make: Making) -> None:
    make().add(NOTES)
    without = make(tokens=None, rerank=())
    assert len(scores(without, "honey")) == len(NOTES)  # searching does without them
    with pytest.raises(ModelMismatchError, match=r"holds tokens of .* asks for none"):
        without.add(NOTES)
    without.rebuild(encode=True)
    assert {view.name for view in without.status().views} == {"vectors"}
    without.add({"id": "new", "text": "Tea."})


def test_another_way_of_keeping_tokens_is_refused_when_adding(make: Making) -> None:
    make().add(NOTES)
    with pytest.raises(ModelMismatchError, match=r"kept as \{'format': 'int8'\}.*asks for \{'format': 'int4'\}"):
        make(tokens=replace(PLAIN, format="int4")).add(NOTES)


def test_maxsim_without_token_vectors_is_refused_with_what_to_add(make: Making) -> None:
    collection = make(tokens=None)
    collection.add(NOTES)
    with pytest.raises(RecipeError, match=r"keeps no token vectors.*\[tokens\]"):
        collection.search("honey")


def test_a_colbert_is_a_collections_encoder_and_searches_all_documents(
    tiny: ModuleType, tiny_colbert: ModuleType, tmp_path: Path
) -> None:
    colbert = tiny_colbert.write_colbert(tiny, tmp_path / "colbert", "stanford")
    with Collection(tmp_path / "notes", model=str(colbert)) as collection:
        collection.add(NOTES)
        assert [view.name for view in collection.status().views] == ["tokens"]
        found = collection.search("honey", k=4)
        assert len(found) == 4
        assert [stage for stage, _ in found.stages][:1] == ["tokens"]


def test_a_twin_tower_has_no_token_vectors_of_one_model(tmp_path: Path, tiny_model: Path, other_tiny_model: Path) -> None:
    TwinTower(query=tiny_model, document=other_tiny_model).save(tmp_path / "towers")
    recipe = Recipe(tokens=PLAIN).with_model(str(tmp_path / "towers"))
    with pytest.raises(RecipeError, match="twin tower"):
        Collection(tmp_path / "notes", recipe=recipe)


def test_pooling_of_the_recipe_takes_the_place_of_the_checkpoints(tmp_path: Path, tiny_model: Path) -> None:
    recipe = Recipe().with_model(str(tiny_model))
    recipe = replace(recipe, encoder=replace(recipe.encoder, pooling="cls"))
    with Collection(tmp_path / "notes", recipe=recipe) as collection:
        collection.add(NOTES)
        stored = collection.store.vectors("vectors", [key for keys, _ in collection.store.iterate_passages() for key in keys])
    wanted = BiEncoder(tiny_model, pooling="cls").encode([f"{n.get('title', '')} {n['text']}".strip() for n in NOTES])
    np.testing.assert_allclose(stored, wanted, atol=1e-5)


def test_an_interrupted_encoding_is_a_problem_that_check_names(make: Making) -> None:
    collection = make(tokens=None, rerank=())
    collection.add(NOTES)
    collection.store.add_view("tokens", model="m", fingerprint="f", dimension=4, kind="tokens", settings={"format": "int8"})
    assert any("view tokens lacks the vectors of some passages" in problem for problem in collection.check().problems)
