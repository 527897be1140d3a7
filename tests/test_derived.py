"""Indexes that are not their store's own are told and made anew: copied in, newer than a restored backup, flipped."""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from twinrank.collection import KEPT_EVERY, Collection
from twinrank.derived import one_at_a_time
from twinrank.errors import IndexDamagedError, StorageError
from twinrank.index.approximate import Approximate
from twinrank.index.words import WordIndex
from twinrank.recipe import Recipe


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
                notes.add([{"id": "b", "text": "two of them"}])  # so long, for this collection, that it asks for a commit
        assert [hit.id for hit in notes.search("two")] == ["b"]
        assert notes.check().ok


# Small changes, which stay in memory and in the store


def filled(folder: Path, count: int = 400) -> Collection:
    notes = Collection(folder, model="none")
    notes.add([{"id": f"d{number}", "text": f"common word{number} end"} for number in range(count)])
    return notes


def files_of(folder: Path) -> dict[str, int]:
    """Name → time of its last change, of the word index."""
    return {path.name: path.stat().st_mtime_ns for path in (folder / "index" / "words").iterdir()}


def test_a_small_change_is_found_at_once_by_every_process_and_leaves_the_files_as_they_are(tmp_path: Path) -> None:
    with filled(tmp_path / "notes") as notes, Collection(notes.path) as other:
        assert not other.search("fresh")
        before = files_of(notes.path)
        notes.add({"id": "new", "text": "common fresh end"})
        notes.delete("d3")
        notes.add({"id": "d4", "text": "common changed end"})
        for one in (notes, other):
            assert [hit.id for hit in one.search("fresh")] == ["new"]
            assert [hit.id for hit in one.search("changed")] == ["d4"]
            assert not one.search("word3")
            assert not one.search("word4")
            assert len(one.search("common", 999).hits) == 400
        assert files_of(notes.path) == before
        assert "changes to take in when opened" in str(notes.status())
        assert notes.check().ok
    with Collection(notes.path) as again:  # as after a crash
        assert [hit.id for hit in again.search("fresh changed", 9)] == ["new", "d4"]
        assert (again.notices, files_of(notes.path) == before) == ([], True)


def test_scores_are_those_of_an_index_made_anew(tmp_path: Path) -> None:
    with filled(tmp_path / "notes") as notes:
        for number in range(20):
            notes.add({"id": f"new{number}", "text": f"fresh word{number} end"})
        queries = ("fresh word3", "word3 end", "word300")
        held = [[(hit.id, pytest.approx(hit.score)) for hit in notes.search(query, 50)] for query in queries]
        notes.rebuild()
        assert [[(hit.id, hit.score) for hit in notes.search(query, 50)] for query in queries] == held


def test_the_files_follow_when_the_changes_are_many(tmp_path: Path) -> None:
    with filled(tmp_path / "notes") as notes:
        before = files_of(notes.path)
        for number in range(30):
            notes.add([{"id": f"new{number}-{more}", "text": "common fresh end"} for more in range(20)])
        assert files_of(notes.path) != before
        assert len(notes.search("fresh", 999).hits) == 600
    with Collection(notes.path) as again:
        assert len(again.search("fresh", 999).hits) == 600
        assert again.notices == []


def test_a_store_that_lost_its_latest_changes_is_told_though_the_word_files_are_older(tmp_path: Path) -> None:
    with filled(tmp_path / "notes") as notes:
        pass
    backup = (notes.path / "store.db").read_bytes()
    with Collection(notes.path) as again:
        before = files_of(notes.path)
        again.add({"id": "new", "text": "common fresh end"})
        assert files_of(notes.path) == before
    (notes.path / "store.db").write_bytes(backup)
    with Collection(notes.path) as put_back:
        assert any("lost its latest changes" in problem for problem in put_back.check().problems)
        assert len(put_back.search("common", 999).hits) == 400
        assert any("lost its latest changes" in notice for notice in put_back.notices)
        assert put_back.check().ok
    assert found(notes.path, "fresh") == ([], [])


def test_a_process_that_reads_takes_in_what_another_one_wrote_without_any_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with filled(tmp_path / "notes") as notes, Collection(notes.path) as other:
        other.search("common")
        notes.add({"id": "new", "text": "common fresh end"})
        monkeypatch.setattr("twinrank.derived.PATIENCE", 0.1)
        with one_at_a_time(notes.path / "index" / ".lock", 1, "holding the lock"):
            assert [hit.id for hit in other.search("fresh")] == ["new"]


def test_on_a_full_disk_searches_go_on_from_memory_and_say_so_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with filled(tmp_path / "notes") as notes:
        with monkeypatch.context() as full:

            def fail(*_: object, **__: object) -> None:
                raise OSError(28, "No space left on device")

            full.setattr("twinrank.index.words.write_stamp", fail)
            full.setattr("twinrank.index.changelog.os.fsync", fail)
            for number in range(3):
                assert notes.add({"id": f"new{number}", "text": "a much longer text that is fresh and asks for a commit"}).added
                assert len(notes.search("fresh", 99).hits) == number + 1
            assert notes.delete("new0") == ["new0"]
            assert len(notes.search("fresh", 99).hits) == 2
            assert [notice.partition(":")[0] for notice in notes.notices] == [
                "the index words goes on in memory, since its files could not be brought up to date"
            ]
            with Collection(notes.path) as other:  # opened while the disk is full
                assert len(other.search("fresh", 99).hits) == 2
                assert "goes on in memory" in other.notices[0]
        notes.add({"id": "later", "text": "fresh"})
        assert len(notes.search("fresh", 99).hits) == 3
        assert len(notes.notices) == 1
    with Collection(notes.path) as again:
        assert len(again.search("fresh", 99).hits) == 3
        assert (again.notices, again.check().problems) == ([], ())


def test_on_a_full_disk_a_missing_index_is_made_in_a_temporary_folder_and_kept_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with filled(tmp_path / "notes") as notes:
        pass
    shutil.rmtree(notes.path / "index")
    create = WordIndex.create

    def create_elsewhere(folder: Path, *, stamp: str = "") -> WordIndex:
        if folder.is_relative_to(notes.path):
            raise StorageError(f"{folder} cannot be written: No space left on device")
        return create(folder, stamp=stamp)

    with Collection(notes.path) as again:
        with monkeypatch.context() as full:
            full.setattr(WordIndex, "create", create_elsewhere)
            assert len(again.search("common", 999).hits) == 400
            assert len(again.search("word3", 999).hits) == 1
            again.add({"id": "new", "text": "common fresh end"})
            assert [hit.id for hit in again.search("fresh")] == ["new"]
            assert all("the index words was made in a temporary folder, since" in notice for notice in again.notices)
        again.notices.clear()
        again.add({"id": "later", "text": "common fresh end"})
        assert len(again.search("fresh").hits) == 2
        assert again.notices == []
        assert (again.check().problems, again._derived._elsewhere) == ((), None)
    with Collection(notes.path) as later:
        assert len(later.search("common", 999).hits) == 402
        assert later.notices == []


def test_a_long_add_that_is_cut_short_leaves_little_to_take_in(tmp_path: Path) -> None:
    def stream() -> Iterator[dict[str, str]]:
        for number in range(KEPT_EVERY + 1300):
            yield {"id": f"n{number}", "text": f"common word{number} end"}
        raise KeyboardInterrupt

    with filled(tmp_path / "notes") as notes, pytest.raises(KeyboardInterrupt):
        notes.add(stream())
    with Collection(notes.path) as again:
        assert len(again) > 400 + KEPT_EVERY + 1000
        assert all(0 < index.behind < KEPT_EVERY for index in again.status().indexes)
        assert len(again.search("common", 9999).hits) == len(again)
        assert again.notices == []


def test_the_log_of_changes_is_kept_for_what_is_not_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinrank.store.upkeep.KEPT_CHANGES", 8)
    with filled(tmp_path / "notes") as notes:
        for number in range(60):
            notes.add({"id": f"new{number}", "text": "common fresh end"})
        assert {index.behind for index in notes.status().indexes} == {60}
    with Collection(notes.path) as again:
        assert len(again.search("fresh", 999).hits) == 60
        assert (again.notices, again.check().problems) == ([], ())


def test_an_index_of_sqlite_s_that_leads_astray_is_told_when_the_collection_is_opened(tmp_path: Path) -> None:
    with Collection(tmp_path / "notes", model="none") as notes:
        notes.add([{"id": f"identity{number}", "text": f"text {number}"} for number in range(50)])
    content = (tmp_path / "notes" / "store.db").read_bytes()
    places = [found.start() for found in re.finditer(b"identity7[^0-9]", content)]
    lost = 0
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1
        (tmp_path / "notes" / "store.db").write_bytes(damaged)
        with Collection(tmp_path / "notes") as again:
            try:
                lost += again.get(["identity7"]) == [None]
            except StorageError:
                continue  # the row itself: its checksum tells
            assert "is damaged: SQLite's integrity check" in again.notices[0]
            assert not again.check().ok
    assert lost == 1
    (tmp_path / "notes" / "store.db").write_bytes(content)
    with Collection(tmp_path / "notes") as again:
        assert (again.get(["identity7"]) != [None], again.notices) == (True, [])


def test_others_write_while_an_approximate_index_is_built(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("faiss", reason="faiss is not installed")
    recipe = Recipe.parse("[index]\nkind = 'hnsw'").with_model(str(tiny_model))
    monkeypatch.setattr("twinrank.collection.WRITER_PATIENCE", 0.2)
    monkeypatch.setattr("twinrank.derived.PATIENCE", 0.2)
    monkeypatch.setattr("twinrank.index.settings.LEAST", 10)
    build, built = Approximate.build, []
    with Collection(tmp_path / "notes", recipe=recipe) as notes:

        def build_meanwhile(*given: Any) -> Approximate:
            if not built:
                built.append(True)
                with Collection(notes.path) as other:
                    assert other.search("number 3")[0].id == "d3"
                    assert "exact, until its hnsw index is built: by the next change" in other.notices[0]
                    assert other.add({"id": "meanwhile", "text": "number nothing"}).added == 1
            return build(*given)

        monkeypatch.setattr(Approximate, "build", build_meanwhile)
        notes.add([{"id": f"d{number}", "text": f"number {number}"} for number in range(40)])
        assert built
        assert notes._derived.refresh().vectors.kind == "hnsw"
        assert notes.search("number nothing")[0].id == "meanwhile"
        assert notes.check().ok
    with Collection(tmp_path / "notes") as again:
        assert (again.search("number 3")[0].id, again.notices) == ("d3", [])


def test_an_index_that_cannot_be_removed_is_told_and_stays(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Collection(tmp_path / "notes", model=str(tiny_model)) as notes:
        notes.add({"id": "a", "text": "one"})
        with monkeypatch.context() as failing:

            def fail(path: Path, missing_ok: bool = False) -> None:
                raise OSError(5, "Input/output error")

            failing.setattr(Path, "unlink", fail)
            with pytest.raises(StorageError, match=r"vectors\.index cannot be removed: Input/output error"):
                notes.rebuild()
        assert notes.search("one")[0].id == "a"
        notes.rebuild()
        assert notes.check().ok


def test_a_process_that_only_reads_does_not_gather_what_another_one_saved(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twinrank.keepers.AT_ONCE", 10)
    monkeypatch.setattr("twinrank.index.words.HELD_MOST", 10)
    with Collection(tmp_path / "notes", model=str(tiny_model)) as notes, Collection(tmp_path / "notes") as other:
        notes.add([{"id": f"d{number}", "text": f"number {number}"} for number in range(50)])
        other.search("number")
        written: dict[str, int] = {}
        for number in range(50, 90):
            notes.add({"id": f"d{number}", "text": f"number {number}"})
            files = {path.name: path.stat().st_mtime_ns for path in (notes.path / "index").glob("*.index*")}
            assert other.search(f"number {number}", 90)[0].id == f"d{number}"
            vectors = other._derived.refresh().vectors
            assert vectors is not None
            assert (len(vectors), vectors.unsaved <= 11) == (number + 1, True)
            written = {path.name: path.stat().st_mtime_ns for path in (notes.path / "index").glob("*.index*")}
            assert written == files  # who reads writes nothing
        assert other.check().ok
