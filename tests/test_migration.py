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
        notes_told: list[str] = []

        def meanwhile(done: int) -> None:
            if not seen:
                notes_told.extend(way for way in ("is on its way", "interrupted") if way in str(other.check()))
                seen.append([hit.score for hit in other.search("tea", k=20)])
                worker = threading.Thread(target=other.add, args=({"id": "late", "text": "a late note"},))
                worker.start()
                worker.join(10)
                assert not worker.is_alive()

        collection.migrate(str(other_tiny_model), progress=meanwhile)
        assert seen == [before]
        assert notes_told == ["is on its way"]
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
        report = collection.check()
        assert report.ok
        assert "was begun, and interrupted; what finishes it: twinrank migrate --to" in report.notes[0]
        assert f"not complete; what finishes it: twinrank migrate --to {other_tiny_model} -c {notes}" in str(
            collection.status()
        )
        assert collection.migrate(str(other_tiny_model)).encoded == 1  # the others were done
        assert collection.check().ok


def migrated_but_for_the_recipe(notes: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process leaves that dies between the views and the recipe."""

    def die(recipe: Recipe) -> None:
        raise Killed

    with Collection(notes) as collection:
        monkeypatch.setattr(collection._place, "write_recipe", die)
        with pytest.raises(Killed):
            collection.migrate(str(model))


def test_a_process_that_dies_between_the_views_and_the_recipe_loses_nothing(
    notes: Path, other_tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrated_but_for_the_recipe(notes, other_tiny_model, monkeypatch)
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
        assert any("with the --recipe that it was begun with" in note for note in collection.check().notes)
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


def test_after_a_migration_nothing_unchanged_is_written_or_encoded_again(
    tmp_path: Path, tiny_model: Path, tiny: ModuleType
) -> None:
    """Though the new model's tokens would cut a long document elsewhere."""
    other = tiny.write_bi_encoder(tmp_path / "other", seed=5, max_tokens=24)
    texts = [{"id": str(number), "text": f"note {number}. " + "zinc and honey and tea. " * 40} for number in range(5)]
    recipe = Recipe.parse("[passages]\nsize = 60\noverlap = 8").with_model(str(tiny_model))
    with Collection(tmp_path / "notes", recipe=recipe) as collection:
        passages = collection.add(texts).passages
        assert passages > 10
        assert collection.migrate(str(other)).encoded == passages
        report = collection.add(texts)
        assert (report.unchanged, report.updated, report.encoded) == (5, 0, 0)
        report = collection.add({**texts[0], "title": "changed"})
        assert (report.updated, report.encoded > 0) == (1, True)
    with Collection(tmp_path / "notes") as again:
        assert again.add(texts[1:]).unchanged == 4
        again.rebuild(encode=True)  # cuts anew, and later calls compare with that
        assert again.add(texts[1:]).unchanged == 4
        assert again.check().ok


def test_a_migration_leaves_the_comments_of_the_recipe(notes: Path, other_tiny_model: Path) -> None:
    kept = notes / "recipe.toml"
    kept.write_text("# ours\n" + kept.read_text().replace("[encoder]\n", "[encoder]\n# the small one\n"))
    with Collection(notes) as collection:
        collection.migrate(str(other_tiny_model))
        text = kept.read_text()
        assert text.startswith("# ours\n")
        assert f'# the small one\nmodel = "{other_tiny_model}"' in text
        assert not (notes / "recipe.toml.before").exists()
        collection.migrate(recipe=Recipe(tokens=TokenSettings()).with_model(str(other_tiny_model)))
        assert "# ours" not in kept.read_text()
        assert (notes / "recipe.toml.before").read_text() == text
        assert Recipe.load(kept) == collection.recipe


def test_a_migration_to_a_model_keeps_what_else_the_recipe_in_use_says_and_follows_what_is_kept(
    notes: Path, tiny_model: Path, other_tiny_model: Path
) -> None:
    mine = replace(Recipe().with_model(str(tiny_model)), tokens=TokenSettings())
    with Collection(notes, recipe=mine) as collection:
        collection.migrate(str(other_tiny_model))
        assert collection.recipe == mine.with_model(str(other_tiny_model))
        assert Recipe.load(notes / "recipe.toml") == collection.recipe
        with Collection(notes) as other:
            other.migrate(str(tiny_model))
        assert collection.search("tea")
        assert collection.recipe.encoder.model == str(tiny_model)  # as whoever was opened without a recipe


def test_who_may_only_read_searches_by_the_recipe_of_a_migration_whose_process_died(
    notes: Path, other_tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrated_but_for_the_recipe(notes, other_tiny_model, monkeypatch)
    monkeypatch.setattr("twinrank.store.store.Store.writable", property(lambda _: False))
    before = (notes / "recipe.toml").read_text()
    with Collection(notes) as again:
        assert again.recipe.encoder.model == str(other_tiny_model)
        assert len(again.search("tea", k=20)) == len(NOTES)
    assert (notes / "recipe.toml").read_text() == before
