"""Loss of power: what a disk may hold where only what was synced is sure, replayed from a journal of a reference run's calls.

The disk is as harsh as POSIX allows: a file's bytes are sure after its fsync, its name after its folder's; of what was not
synced any part may be there, by sectors of 512 bytes. SQLite's -shm file is left out: it is made anew after a crash.
"""

from __future__ import annotations

import os
import random
import shutil
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twinrank_torture.processes import COUNT, arm, scratch
from twinrank_torture.processes import ask as ask_child
from twinrank_torture.verify import verify
from twinrank_torture.workload import Step, allowed_states, make_steps, open_collection

WRITE, SYNC, RENAME, UNLINK, TRUNCATE, CREATE, MARK, MAKE_FOLDER, REMOVE_FOLDER = range(1, 10)
SECTOR = 512
HEAD = struct.Struct("<5Q")


@dataclass
class Inode:
    """A file's bytes that are sure, and what was written since: (offset, bytes), or (size, None) for a truncation."""

    sure: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)

    def content(self, kept: Sequence[tuple[int, bytes | None]]) -> bytearray:
        content = bytearray(self.sure)
        for offset, data in kept:
            if data is None:
                content = content[:offset] + bytes(max(0, offset - len(content)))
            else:
                content += bytes(max(0, offset + len(data) - len(content)))
                content[offset : offset + len(data)] = data
        return content


class Disk:
    """Names and files as they are, and as they are sure."""

    def __init__(self) -> None:
        self.names: dict[str, Inode | None] = {}  # None: a folder
        self.sure_names: dict[str, Inode | None] = {}
        self.moves: list[tuple[str, str, Inode | None, bool]] = []
        """Changes of names that no folder's fsync made sure: (folder, name, what it is now, whether it is there)."""

    def _name(self, path: str, inode: Inode | None, there: bool) -> None:
        if there:
            self.names[path] = inode
        else:
            self.names.pop(path, None)
        self.moves.append((str(Path(path).parent), path, inode, there))

    def _file(self, path: str) -> Inode:
        inode = self.names.get(path)
        if inode is None:
            inode = Inode()
            self._name(path, inode, True)
        return inode

    def apply(self, kind: int, path: str, other: str, offset: int, data: bytes) -> None:
        if kind == WRITE:
            self._file(path).pending.append((offset, data))
        elif kind == TRUNCATE:
            self._file(path).pending.append((offset, None))
        elif kind == CREATE:
            self._name(path, Inode(), True)
        elif kind == MAKE_FOLDER:
            self._name(path, None, True)
        elif kind in (UNLINK, REMOVE_FOLDER):
            self._name(path, None, False)
        elif kind == RENAME:
            inode = self.names.get(path)
            self._name(path, None, False)
            self._name(other, inode, True)
        elif kind == SYNC:
            inode = self.names.get(path)
            if inode is not None:
                inode.sure, inode.pending = inode.content(inode.pending), []
            else:
                self._keep_names([move for move in self.moves if move[0] == path])
                self.moves = [move for move in self.moves if move[0] != path]

    def _keep_names(self, moves: Sequence[tuple[str, str, Inode | None, bool]]) -> None:
        for _, path, inode, there in moves:
            if there:
                self.sure_names[path] = inode
            else:
                self.sure_names.pop(path, None)

    def after_power_loss(self, how: str, chosen: random.Random) -> dict[str, bytes | None]:
        """What the disk holds: only what is sure; all names and no unsynced bytes; or any part of either."""
        names = dict(self.sure_names)
        moves = self.moves if how == "names" else self.moves[: chosen.randint(0, len(self.moves))] if how == "torn" else []
        for _, path, inode, there in moves:
            if there:
                names[path] = inode
            else:
                names.pop(path, None)
        return {
            path: None if inode is None else bytes(inode.content(list(_torn(inode, chosen)) if how == "torn" else []))
            for path, inode in names.items()
        }


def _torn(inode: Inode, chosen: random.Random) -> Iterator[tuple[int, bytes | None]]:
    for offset, data in inode.pending:
        if data is None:
            if chosen.random() < 0.5:
                yield offset, None
            continue
        at = 0
        while at < len(data):
            size = min(len(data) - at, SECTOR - (offset + at) % SECTOR)
            if chosen.random() < 0.5:
                yield offset + at, data[at : at + size]
            at += size


def torture(every: int = 1, seed: int = 5, steps: int = 5) -> dict[str, Any]:
    """Lose power after every `every`-th call of a reference run, in three ways each."""
    work = make_steps(seed, steps, most=12)
    work.insert(2, Step("rebuild"))
    place = scratch()
    counts: Counter[str] = Counter()
    problems: list[str] = []
    chosen = random.Random(seed)
    try:
        ask_child(_keep_journal, place / "collection", place / "journal", work)
        disk, done, begun, calls = Disk(), 0, False, 0
        for kind, path, other, offset, data in _calls((place / "journal").read_bytes()):
            if kind == MARK:
                done, begun = divmod(offset, 2)
                continue
            disk.apply(kind, path, other, offset, data)
            calls += 1
            if calls % every:
                continue
            for how in ("sure", "names", "torn"):
                folder = place / "collection"
                _lay_out(folder, disk.after_power_loss(how, chosen))
                verdict = ask_child(verify, folder, allowed_states(work, done, bool(begun)), calls)
                counts["losses"] += 1
                counts["with an index made anew"] += bool(verdict.notices)
                problems += [f"power lost after call {calls} ({how}): {problem}" for problem in verdict.problems]
        counts["calls of the reference run"] = calls
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return {**counts, "problems": problems}


def _keep_journal(folder: Path, journal: Path, steps: Sequence[Step]) -> None:
    handle = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    library = arm(folder, COUNT, journal=handle)
    collection = open_collection(folder)
    for number, step in enumerate(steps):
        library.torture_mark(2 * number + 1)
        step.run(collection)
        library.torture_mark(2 * (number + 1))
    collection.close()


def _calls(journal: bytes) -> Iterator[tuple[int, str, str, int, bytes]]:
    at = 0
    while at < len(journal):
        kind, path, other, offset, size = HEAD.unpack_from(journal, at)
        at += HEAD.size
        names = journal[at : at + path].decode(), journal[at + path : at + path + other].decode()
        at += path + other
        yield kind, *names, offset, journal[at : at + size]
        at += size


def _lay_out(folder: Path, content: dict[str, bytes | None]) -> None:
    """Write the files; one whose folder was lost is lost with it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()  # made sure by an fsync of the folder above, which the journal does not hold
    for path, data in sorted(content.items()):
        if not Path(path).parent.is_dir():
            continue
        if data is None:
            Path(path).mkdir(exist_ok=True)
        else:
            Path(path).write_bytes(data)
