"""Files put in place whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import pytest

from twinrank.files import beside, remove_leftovers, replace_file, replacing


def test_a_file_is_replaced_and_keeps_its_permissions(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("old")
    file.chmod(0o640)
    replace_file(file, "new")
    assert file.read_text() == "new"
    assert file.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [file]


def test_what_fails_on_the_way_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a"
    file.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        replace_file(file, b"new")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_nothing_is_put_in_place_before_the_whole_is_written(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("old")
    with replacing(file, beside(file, "new")) as stream:
        stream.write(b"new")
        stream.flush()
        assert file.read_text() == "old"
    assert file.read_text() == "new"
    with pytest.raises(OSError, match="disk full"), replacing(file, beside(file, "new")) as stream:
        _write_half(stream)
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


def test_leftovers_are_removed_of_processes_that_died_only(tmp_path: Path) -> None:
    file = tmp_path / "a"
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True)
    for name in (f"a.{dead.stdout.strip()}.new", f"a.{dead.stdout.strip()}.log", f"b.{dead.stdout.strip()}.new", "a.old.new"):
        (tmp_path / name).touch()
    beside(file, "new").touch()
    remove_leftovers(file, ("new", "codes"))
    left = {f"a.{dead.stdout.strip()}.log", f"b.{dead.stdout.strip()}.new", "a.old.new", f"a.{os.getpid()}.new"}
    assert {path.name for path in tmp_path.iterdir()} == left


def _write_half(stream: BinaryIO) -> None:
    stream.write(b"hal")
    raise OSError("disk full")
