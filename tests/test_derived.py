"""Indexes that are not their store's own are told and made anew: copied in, newer than a restored backup, flipped."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from twinrank.collection import Collection
from twinrank.errors import IndexDamagedError, StorageError
from twinrank.index.words import WordIndex


def make(folder: Path, **texts: str) -> Path:
    with Collection(folder, model="none") as notes:
        for identifier, text in texts.items():
            notes.add([{"id": identifier, "text": text}])
    return folder


def found(folder: Path, query: str) -> tuple[list[str], list[str]]:
    """(ids, notices)"""
    with Collection(folder) as notes:
        return sorted(hit.id for hit in notes.search(query)), notes.notices


def test_rebuild_writes_a_damaged_log_of_changes_anew(tmp_path: Path) -> None:
    folder = make(tmp_path / "notes", a="one", b="two")
    connection = sqlite3.connect(folder / "store.db")
    connection.execute("UPDATE changes SET passage = 7 WHERE kind = 'add' AND passage = 1")
    connection.commit()
    connection.close()
    with Collection(folder) as notes:
        assert any("twinrank rebuild writes the log anew" in line for line in notes.check().problems)
        notes.rebuild()
        assert notes.check().ok
    with Collection(folder) as notes:
        assert notes.check().ok
        notes.add([{"id": "c", "text": "three"}])
        assert notes.check().ok
    assert found(folder, "one two three")[0] == ["a", "b", "c"]


def test_another_collection_s_indexes_copied_in_are_told_and_made_anew(tmp_path: Path) -> None:
    mine, other = make(tmp_path / "mine", a="one", b="two"), make(tmp_path / "other", x="three", y="four")
    shutil.rmtree(mine / "index")
    shutil.copytree(other / "index", mine / "index")
    with Collection(mine) as notes:
        assert not notes.check().ok
    ids, notices = found(mine, "one three")
    assert ids == ["a"]
    assert len(notices) == 1
    assert found(mine, "one three") == (["a"], [])


@pytest.mark.parametrize("written_since", [False, True])
def test_a_store_put_back_from_a_backup_is_told_by_its_indexes(tmp_path: Path, written_since: bool) -> None:
    folder = make(tmp_path / "notes", a="one")
    backup = (folder / "store.db").read_bytes()
    make(folder, b="two")
    index = shutil.copytree(folder / "index", tmp_path / "index")
    (folder / "store.db").write_bytes(backup)
    if written_since:  # as many changes as the index has seen, and others
        make(folder, c="three")
        shutil.rmtree(folder / "index")
        shutil.copytree(index, folder / "index")
    with Collection(folder) as notes:
        assert any("older state" in line or "never came by" in line for line in notes.check().problems)
    ids, notices = found(folder, "one two three")
    assert ids == ["a", "c"] if written_since else ["a"]
    assert any("made anew" in notice for notice in notices)


def test_a_flipped_bit_of_an_index_is_told_when_it_is_opened(tmp_path: Path) -> None:
    folder = make(tmp_path / "notes", a="one", b="two")
    for file in (folder / "index" / "words").glob("*.idx"):  # some of them may be of segments that were merged away
        content = bytearray(file.read_bytes())
        content[len(content) // 3] ^= 1
        file.write_bytes(content)
    ids, notices = found(folder, "one two")
    assert ids == ["a", "b"]
    assert any("the index words was made anew" in notice for notice in notices)


def test_an_index_that_cannot_be_read_back_is_told_as_a_failing_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Collection(make(tmp_path / "notes", a="one")) as notes:
        with monkeypatch.context() as failing:

            def fail(*_: object) -> None:
                raise IndexDamagedError("meta.json cannot be read: Input/output error")

            failing.setattr(WordIndex, "commit", fail)
            with pytest.raises(StorageError, match=r"could not be made anew: meta.json.*What was added or deleted is kept"):
                notes.add([{"id": "b", "text": "two"}])
        assert [hit.id for hit in notes.search("two")] == ["b"]
        assert notes.check().ok
