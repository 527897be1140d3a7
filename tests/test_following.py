"""A collection in step with a folder: new and changed files come in, gone ones go, and nothing goes by mistake."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from twinrank import Collection
from twinrank.cli import twinrank
from twinrank.derived import one_at_a_time
from twinrank.errors import DataError, MissingExtraError, StorageError
from twinrank.following import Follower, watch_folder
from twinrank.store import Store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "files"
    (place / "deep").mkdir(parents=True)
    (place / "a.txt").write_text("about zinc")
    (place / "deep" / "b.txt").write_text("about honey")
    (place / "many.jsonl").write_text('{"id": "x", "text": "one"}\n{"id": "y", "text": "two"}\n')
    return place


@pytest.fixture
def collection(tmp_path: Path) -> Iterator[Collection]:
    with Collection(tmp_path / "notes", model="none") as opened:
        yield opened


def ids(collection: Collection) -> set[str]:
    return set(collection.store.document_ids())


def test_following_adds_changes_and_deletes_what_the_folder_did(collection: Collection, folder: Path) -> None:
    follower = Follower(collection, folder)
    assert follower.sync().added == 4
    (folder / "a.txt").unlink()
    (folder / "deep" / "b.txt").write_text("about honey and more")
    (folder / "c.txt").write_text("new")
    (folder / "many.jsonl").write_text('{"id": "y", "text": "two"}\n')
    report = follower.sync()
    assert (report.added, report.updated, report.unchanged, report.removed) == (1, 1, 1, 2)
    assert ids(collection) == {"deep/b.txt", "c.txt", "y"}
    assert "2 removed" in str(report)


def test_files_that_did_not_change_are_not_read_again(collection: Collection, folder: Path) -> None:
    follower = Follower(collection, folder)
    follower.sync()
    assert follower.sync().documents == 0
    assert ids(collection) == {"a.txt", "deep/b.txt", "x", "y"}


def test_ids_are_those_of_adding_the_folder(collection: Collection, folder: Path) -> None:
    collection.add(folder)
    report = Follower(collection, folder).sync()
    assert (report.unchanged, report.removed) == (4, 0)


def test_what_came_from_elsewhere_stays(collection: Collection, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "files-too").mkdir()
    (tmp_path / "files-too" / "z.txt").write_text("a name that begins alike")
    collection.add(tmp_path / "files-too")
    collection.add({"id": "by hand", "text": "no file"})
    Follower(collection, folder).sync()
    assert {"z.txt", "by hand"} < ids(collection)


def test_a_file_that_cannot_be_read_any_more_keeps_its_documents(collection: Collection, folder: Path) -> None:
    follower = Follower(collection, folder)
    follower.sync()
    (folder / "many.jsonl").write_text('{"id": "x", "text": "one"}\nnonsense\n')
    report = follower.sync()
    assert [problem.kind for problem in report.problems] == ["skipped"]
    assert {"x", "y"} < ids(collection)
    (folder / "many.jsonl").write_text('{"id": "x", "text": "one"}\n')
    follower.sync()
    assert "y" not in ids(collection)


def test_a_subfolder_that_cannot_be_entered_keeps_its_documents(collection: Collection, folder: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    (disk / "deeper").mkdir(parents=True)
    (disk / "deeper" / "c.txt").write_text("about tea")
    (folder / "mounted").symlink_to(disk)
    follower = Follower(collection, folder)
    follower.sync()
    disk.rename(tmp_path / "unplugged")
    report = follower.sync()
    assert (report.removed, [problem.kind for problem in report.problems]) == (0, ["skipped"])
    assert "mounted/deeper/c.txt" in ids(collection)
    (folder / "mounted").unlink()
    assert follower.sync().removed == 1


def test_a_folder_that_is_suddenly_empty_or_gone_deletes_nothing(collection: Collection, folder: Path) -> None:
    follower = Follower(collection, folder)
    follower.sync()
    folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(DataError, match="is no folder"):
        follower.sync()
    folder.mkdir()
    with pytest.raises(DataError, match="holds no file any more"):
        follower.sync()
    assert len(collection) == 4


def test_prune_deletes_what_a_folder_no_longer_holds(folder: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "twinrank", *arguments, "-c", str(tmp_path / "notes")]
        return subprocess.run(command, capture_output=True, text=True, check=True).stderr

    run("index", str(folder), "--model", "none")
    (folder / "a.txt").unlink()
    assert "removed" not in run("add", str(folder))
    assert "1 removed" in run("add", str(folder), "--prune")


def test_watching_what_is_no_folder_makes_no_collection(tmp_path: Path) -> None:
    result = CliRunner().invoke(twinrank, ["watch", str(tmp_path / "no"), "-c", str(tmp_path / "notes"), "--model", "none"])
    assert isinstance(result.exception, DataError)
    assert not (tmp_path / "notes").exists()


def test_watching_goes_on_after_another_writer_and_tells_nothing_twice(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twinrank.collection.WRITER_PATIENCE", 0.1)
    (folder / ".hidden").write_text("gives a note at every look")

    def looks(_: str) -> Iterator[None]:
        yield  # nothing changed
        (folder / "new.txt").write_text("a new note")
        with one_at_a_time(tmp_path / "notes" / ".writing", 1, "holding the collection"):
            yield
            yield
        yield

    monkeypatch.setattr("twinrank.following.watch_folder", looks)
    result = CliRunner().invoke(twinrank, ["watch", str(folder), "-c", str(tmp_path / "notes"), "--model", "none"])
    assert result.exception is None
    assert result.stderr.count("another process has been writing") == 1
    assert result.stderr.count("passed over") == 2  # with the first report, and with that of the new note
    with Collection(tmp_path / "notes") as collection:
        assert "new.txt" in ids(collection)


def test_watching_goes_on_after_a_full_disk(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Store.write

    def looks(_: str) -> Iterator[None]:
        with monkeypatch.context() as full:
            full.setattr(Store, "write", fail)
            (folder / "new.txt").write_text("a new note")
            yield
        yield

    def fail(*_: object) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr("twinrank.following.watch_folder", looks)
    result = CliRunner().invoke(twinrank, ["watch", str(folder), "-c", str(tmp_path / "notes"), "--model", "none"])
    assert (result.exception, result.stderr.count("the disk is full"), Store.write) == (None, 1, write)
    with Collection(tmp_path / "notes") as collection:
        assert "new.txt" in ids(collection)


def test_watching_takes_changes_in_while_they_happen(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("watchfiles", reason="watchfiles is not installed: pip install 'twinrank[watch]'")
    command = [sys.executable, "-m", "twinrank", "watch", str(folder), "-c", str(tmp_path / "notes"), "--model", "none"]
    watcher = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "WATCHFILES_FORCE_POLLING": ""})
    assert watcher.stderr is not None
    try:
        for line in watcher.stderr:
            if line.startswith("watching"):
                break
        (folder / "new.txt").write_text("a new note")
        (folder / "a.txt").unlink()
        with Collection(tmp_path / "notes") as collection:
            deadline = time.monotonic() + 30
            while ids(collection) != {"deep/b.txt", "x", "y", "new.txt"} and time.monotonic() < deadline:
                (folder / "new.txt").touch()  # in case the first change came before the watch began
                time.sleep(0.2)
            assert ids(collection) == {"deep/b.txt", "x", "y", "new.txt"}
    finally:
        watcher.terminate()
        watcher.wait(10)
        watcher.stderr.close()


def test_watching_without_its_library_is_refused_before_anything_is_made(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'twinrank\[watch\]'"):
        watch_folder(folder)
