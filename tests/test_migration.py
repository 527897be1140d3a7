"""From one model to another: the old vectors serve until the new ones are all there, whatever happens on the way."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from twinrank import BiEncoder, Collection, Recipe
from twinrank.errors import CollectionBusyError, ModelMismatchError, RecipeError
from twinrank.recipe import RerankSettings, TokenSettings

NOTES = [{"id": str(number), "text": f"note {number} about {word}"} for number, word in enumerate(["zinc", "honey", "tea"] * 4)]


class Killed(BaseException):
    """As if the process had died here."""


@pytest.fixture
def notes(tmp_path: Path, tiny_model: Path) -> Path:
    with Collection(tmp_path / "notes", model=str(tiny_model)) as collection:
        collection.add(NOTES)
    return tmp_path / "notes"


def vectors(collection: Collection) -> np.ndarray:
    keys = [key for keys, _ in collection.store.iterate_passages() for key in keys]
    return collection.store.vectors("vectors", keys)


def test_after_a_migration_everything_is_of_the_new_model(notes: Path, other_tiny_model: Path) -> None:
    with Collection(notes) as collection:
        report = collection.migrate(str(other_tiny_model))
        assert report.encoded == len(NOTES)
        wanted = BiEncoder(other_tiny_model).encode([note["text"] for note in NOTES])
        np.testing.assert_allclose(vectors(collection), wanted, atol=1e-5)
        assert len(collection.search("tea", k=20)) == len(NOTES)
        assert collection.add(NOTES).encoded == 0
    with Collection(notes) as again:
        assert again.recipe.encoder.model == str(other_tiny_model)
        assert [view.name for view in again.status().views] == ["vectors"]
        assert again.check().ok
        assert len(again.search("tea", k=20)) == len(NOTES)


def test_the_old_vectors_serve_and_others_write_while_the_new_ones_grow(
    notes: Path, other_tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Collection(notes) as collection, Collection(notes) as other:
        before = [hit.score for hit in other.search("tea", k=20)]
        seen: list[object] = []

        def meanwhile(done: int) -> None:
            if not seen:
                seen.append([hit.score for hit in other.search("tea", k=20)])
                worker = threading.Thread(target=other.add, args=({"id": "late", "text": "a late note"},))
                worker.start()
                worker.join(10)
                assert not worker.is_alive()

        collection.migrate(str(other_tiny_model), progress=meanwhile)
        assert seen == [before]
        assert len(collection.search("late", k=20)) == len(NOTES) + 1
        assert collection.check().ok
        assert len(other.search("tea", k=20)) == len(NOTES) + 1  # opened with the old model, it follows
        assert other.recipe.encoder.model == str(other_tiny_model)
        assert other.add({"id": "later", "text": "a later note"}).encoded == 1
        assert other.check().ok


def test_who_asked_for_the_old_model_is_told_that_it_is_gone(notes: Path, tiny_model: Path, other_tiny_model: Path) -> None:
    with Collection(notes) as collection, Collection(notes, model=str(tiny_model)) as other:
        collection.migrate(str(other_tiny_model))
        with pytest.raises(ModelMismatchError, match="were made by"):
            other.search("tea")


def test_an_interrupted_migration_leaves_the_old_model_serving_and_goes_on_where_it_stopped(
    notes: Path, other_tiny_model: Path
) -> None:
    def die(done: int) -> None:
        raise Killed

    with Collection(notes) as collection, pytest.raises(Killed):
        collection.migrate(str(other_tiny_model), progress=die)
    with Collection(notes) as collection:
        assert len(collection.search("tea", k=20)) == len(NOTES)
        assert collection.add({"id": "new", "text": "one more"}).encoded == 1
        assert any("twinrank migrate" in problem for problem in collection.check().problems)
        assert collection.migrate(str(other_tiny_model)).encoded == 1  # the others were done
        assert collection.check().ok


def test_a_process_that_dies_between_the_views_and_the_recipe_loses_nothing(
    notes: Path, other_tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Collection(notes) as collection:

        def die(recipe: Recipe) -> None:
            raise Killed

        monkeypatch.setattr(collection, "_write_recipe", die)
        with pytest.raises(Killed):
            collection.migrate(str(other_tiny_model))
    with Collection(notes) as again:
        assert again.recipe.encoder.model == str(other_tiny_model)
        assert len(again.search("tea", k=20)) == len(NOTES)
    assert str(other_tiny_model) in (notes / "recipe.toml").read_text()


def test_a_migration_begins_to_keep_tokens_and_ends_it(notes: Path, tiny_model: Path, other_tiny_model: Path) -> None:
    recipe = replace(Recipe(tokens=TokenSettings(), rerank=(RerankSettings(kind="maxsim"),)).with_model(str(tiny_model)))
    with Collection(notes) as collection:
        collection.migrate(recipe=recipe)
        assert {view.name for view in collection.status().views} == {"vectors", "tokens"}
        assert len(collection.search("tea", k=20)) == len(NOTES)
        assert collection.check().ok
        collection.migrate(recipe=Recipe().with_model(str(other_tiny_model)))
        assert {view.name for view in collection.status().views} == {"vectors"}
        assert collection.check().ok


def test_a_migration_to_tokens_that_was_cut_short_is_finished_by_its_recipe(notes: Path, tiny_model: Path) -> None:
    def die(done: int) -> None:
        raise Killed

    recipe = Recipe(tokens=TokenSettings()).with_model(str(tiny_model))
    with Collection(notes) as collection:
        with pytest.raises(Killed):
            collection.migrate(recipe=recipe, progress=die)
        told = [problem for problem in collection.check().problems if "tokens.next" in problem]
        assert "with the --recipe that it was begun with" in told[0]
        collection.migrate(recipe=recipe)
        assert collection.check().ok


def test_a_second_migration_waits_for_the_first_or_is_refused(
    notes: Path, other_tiny_model: Path, tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    third = tiny.write_bi_encoder(tmp_path / "third", seed=9)
    monkeypatch.setattr("twinrank.collection.WRITER_PATIENCE", 0.1)
    with Collection(notes) as collection, Collection(notes) as other:
        refused: list[str] = []

        def meanwhile(done: int) -> None:
            for change in (lambda: other.migrate(str(third)), lambda: other.rebuild(encode=True)):
                with pytest.raises(CollectionBusyError) as caught:
                    change()
                refused.append(str(caught.value))

        collection.migrate(str(other_tiny_model), progress=meanwhile)
        assert len(refused) == 2
        assert all("encoding the documents" in line for line in refused)
        wanted = BiEncoder(other_tiny_model).encode([note["text"] for note in NOTES])
        np.testing.assert_allclose(vectors(collection), wanted, atol=1e-5)  # none of the third model's among them


def test_a_rebuild_encodes_everything_and_forgets_a_migration_that_was_begun(notes: Path, other_tiny_model: Path) -> None:
    def die(done: int) -> None:
        raise Killed

    with Collection(notes) as collection:
        with pytest.raises(Killed):
            collection.migrate(str(other_tiny_model), progress=die)
        report = collection.rebuild(encode=True)
        assert report is not None
        assert report.encoded == len(NOTES)
        assert [view.name for view in collection.status().views] == ["vectors"]


def test_an_empty_collection_migrates_too(tmp_path: Path, tiny_model: Path, other_tiny_model: Path) -> None:
    with Collection(tmp_path / "notes", model=str(tiny_model)) as collection:
        collection.migrate(str(other_tiny_model))
        collection.add(NOTES)
        assert len(collection.search("tea", k=20)) == len(NOTES)


def test_what_cannot_migrate_is_refused_and_changes_nothing(notes: Path, tiny_model: Path, tiny: ModuleType) -> None:
    with Collection(notes) as collection:
        with pytest.raises(ModelMismatchError, match="nothing to migrate"):
            collection.migrate(str(tiny_model))
        with pytest.raises(ModelMismatchError, match="migrates to a model"):
            collection.migrate("none")
        with pytest.raises(RecipeError, match="rebuild --encode"):
            collection.migrate(recipe=Recipe.parse(f"[encoder]\nmodel = '{tiny_model}'\n[passages]\nsize = 64"))
        assert [view.name for view in collection.status().views] == ["vectors"]
