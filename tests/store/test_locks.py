"""A file system without locks is refused, with the reason; simulated by a shim that makes the calls fail as NFS does."""

from __future__ import annotations

import errno
import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from twinrank.errors import CollectionError
from twinrank.store import Store
from twinrank.store.locks import CREATING, refuse_without_locks

TORTURE = Path(__file__).resolve().parents[1] / "torture"


def test_a_local_disk_keeps_locks(tmp_path: Path) -> None:
    refuse_without_locks(tmp_path)
    refuse_without_locks(tmp_path)
    assert (tmp_path / CREATING).stat().st_size == 0


def test_the_file_is_not_confused_by_another_process_that_tries_at_the_same_time(tmp_path: Path) -> None:
    held = os.open(tmp_path / CREATING, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        refuse_without_locks(tmp_path)
    finally:
        os.close(held)


def test_a_file_system_that_grants_a_lock_twice_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinrank.store.locks.fcntl.flock", lambda file, operation: None)
    with pytest.raises(CollectionError, match=r"keeps no locks \(it grants one lock twice\).*local disk"):
        Store.open(tmp_path / "papers")
    assert not (tmp_path / "papers" / "store.db").exists()


@pytest.mark.parametrize("exists", [False, True])
def test_a_file_system_without_locks_is_refused_with_the_reason(tmp_path: Path, exists: bool) -> None:
    if sys.platform != "linux" or shutil.which("cc") is None:
        pytest.skip("the shim needs Linux and a C compiler (cc)")
    spec = importlib.util.spec_from_file_location("twinrank_torture_processes", TORTURE / "processes.py")
    assert spec is not None
    assert spec.loader is not None
    processes = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(processes)
    folder = tmp_path / "papers"
    if exists:
        Store.open(folder).close()
    script = f"""
import ctypes, sys
sys.path[:0] = {sys.path!r}
from twinrank.store import Store
ctypes.CDLL(None).torture_arm({str(tmp_path).encode()!r}, {processes.LOCKS}, 0, {errno.ENOLCK}, -1)
Store.open({str(folder)!r})
"""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        env={**os.environ, "LD_PRELOAD": str(processes.build_shim(tmp_path))},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "CollectionError" in result.stderr
    assert "keeps no locks (No locks available)" in result.stderr
