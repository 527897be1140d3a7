"""Files in proportion to what a collection holds, however often that was replaced; and indexes that fell behind the log."""

from __future__ import annotations

from pathlib import Path

import pytest
from twinrank_torture.workload import RECIPE, HashLoaded, make_document

from twinrank.collection import Collection
from twinrank.store import upkeep

FACTOR = 2.0
CONSTANT = 2**20
"""Bytes: the end of the log of changes, and pages that are kept for what comes next."""


@pytest.fixture(autouse=True)
def _hashes_for_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinrank.collection.Loaded", HashLoaded)


def sizes(folder: Path) -> tuple[int, int]:
    """(store, indexes) in bytes, of a collection that is closed"""
    return (
        sum(path.stat().st_size for path in folder.glob("store.db*")),
        sum(path.stat().st_size for path in (folder / "index").rglob("*") if path.is_file()),
    )


def text_of(collection: Collection, number: int) -> str:
    """Of the best passage of one document; the vectors of hashes are near anything."""
    return collection.search("only", 1, where=f"id = 'd{number}'")[0].text


def replaced(folder: Path, rounds: range) -> tuple[int, int]:
    with Collection(folder, recipe=RECIPE) as collection:
        for number in rounds:
            collection.add([make_document(place, number, 8) for place in range(200)])
        assert collection.check().ok
        assert len(collection) == 200
        assert text_of(collection, 7).startswith(f"only7v{rounds[-1]} ")
        assert collection.notices == []
    return sizes(folder)


def test_replacing_everything_fifty_times_leaves_the_files_in_proportion(tmp_path: Path) -> None:
    store, indexes = replaced(tmp_path / "c", range(1))
    store_then, indexes_then = replaced(tmp_path / "c", range(1, 50))
    assert store_then < FACTOR * store + CONSTANT
    assert indexes_then < FACTOR * indexes + CONSTANT / 4


def test_deleting_nearly_everything_gives_the_space_back(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    with Collection(folder, recipe=RECIPE) as collection:
        collection.add([make_document(place, 0, 400) for place in range(300)])
        full = collection.status().size
        collection.delete([f"d{place}" for place in range(20, 300)])
        unused = collection.store.free()
        for number in range(60):  # a step or several with every change
            collection.add([make_document(0, number + 1, 20)])
            if (status := collection.status()).free < unused / 2:
                break
        assert collection.check().ok
    assert "of it free" in str(status)
    assert 0 < status.free < full / 3
    assert sum(sizes(folder)) < full / 3


def test_an_index_that_fell_behind_the_log_takes_what_another_process_brought_up_to_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "KEPT_CHANGES", 50)
    monkeypatch.setattr("twinrank.store.store.LONGEST", 1.0)
    folder = tmp_path / "c"
    with Collection(folder, recipe=RECIPE) as writer, Collection(folder) as reader:
        writer.add([make_document(place, 0, 8) for place in range(40)])
        assert text_of(reader, 3).startswith("only3v0 ")
        for number in range(1, 8):
            writer.add([make_document(place, number, 8) for place in range(40)])
        assert text_of(reader, 3).startswith("only3v7 ")
        vectors = reader.indexes().vectors
        assert vectors is not None
        assert len(vectors) == 40
        assert reader.notices == []
        reader.add([make_document(99, 1, 8)])
        assert text_of(writer, 99).startswith("only99v1 ")
        assert writer.check().ok
        assert writer.notices == []


def test_an_index_folder_older_than_the_log_is_made_anew_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "KEPT_CHANGES", 50)
    monkeypatch.setattr("twinrank.store.store.LONGEST", 1.0)
    folder = tmp_path / "c"
    with Collection(folder, recipe=RECIPE) as collection:
        collection.add([make_document(place, 0, 8) for place in range(40)])
    (folder / "index").rename(tmp_path / "old")
    with Collection(folder) as collection:
        for number in range(1, 8):
            collection.add([make_document(place, number, 8) for place in range(40)])
    (folder / "index").rename(tmp_path / "new")
    (tmp_path / "old").rename(folder / "index")
    with Collection(folder) as collection:
        assert text_of(collection, 3).startswith("only3v7 ")
        assert all("no longer reaches back" in notice for notice in collection.notices)
        assert len(collection.notices) == 2
        assert collection.check().ok
