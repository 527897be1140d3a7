"""Whether a folder's file system keeps locks: without them two writers would ruin each other's work, and nobody would know."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from twinrank.errors import CollectionError

try:
    import fcntl
except ImportError:  # Windows, whose locks are no question of the file system
    fcntl = None  # type: ignore[assignment]

CREATING = ".creating"
"""The file that is locked while a collection is made, and on which locks are tried."""

REFUSED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def refuse_without_locks(folder: Path) -> None:
    """Take both kinds of lock that are used here, SQLite's and the writers', on a file of their own.

    Raises CollectionError where the system refuses one, or grants one twice, as network file systems do that are mounted
    without locks.
    """
    if fcntl is None:
        return
    path = folder / CREATING
    try:
        first = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError:
        return  # no question of locks; whoever writes tells it
    try:
        second = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            _try_locks(first, second, folder)
        finally:
            os.close(second)
    except OSError as error:
        if error.errno in REFUSED:
            raise CollectionError(_reason(folder, os.strerror(error.errno))) from error
    finally:
        os.close(first)


def _try_locks(first: int, second: int, folder: Path) -> None:
    try:
        fcntl.lockf(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return  # another process tries just now: they are kept
    try:
        fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    raise CollectionError(_reason(folder, "it grants one lock twice"))


def _reason(folder: Path, what: str) -> str:
    return (
        f"{folder} lies on a file system{_kind(folder)} that keeps no locks ({what}): two processes could write at once and "
        "damage the collection. Put it on a local disk, or mount the file system with locks"
    )


def _kind(folder: Path) -> str:
    """` (nfs4)`, where the system tells."""
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    here, found = str(folder.resolve()), ("", "")
    for line in lines:
        _, place, kind, *_ = line.split(" ")
        if (here == place or here.startswith(place.rstrip("/") + "/")) and len(place) >= len(found[0]):
            found = (place, kind)
    return f" ({found[1]})" if found[1] else ""
