"""The log of a vector index: what changed since its file was written, one record a save, each with its checksum.

A record is a head of 64 bytes (magic, identity of the file that it belongs to, sequence number, how many keys were removed
and added, CRC-32 of what follows, CRC-32 of the head so far), then the removed keys, the added keys, their vectors, scales,
errors and codes; all little endian, each part filled up to 8 bytes. Reading stops at the first record that is not whole: the
index then is as of the record before, and takes the rest from the store again.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from twinrank.errors import StorageError
from twinrank.files import sync
from twinrank.scan import Codes
from twinrank.types import Keys, Vectors

MAGIC = b"twrkchg1"
HEAD_BYTES = 64
HEAD = np.dtype(
    [
        ("magic", "S8"),
        ("identity", "S16"),
        ("sequence", "<i8"),
        ("removed", "<i8"),
        ("added", "<i8"),
        ("dimension", "<i8"),
        ("body", "<u4"),
        ("head", "<u4"),
    ]
)


@dataclass(frozen=True)
class Change:
    """One save: passages that left, then passages that came (or came anew)."""

    sequence: int
    removed: Keys
    keys: Keys
    vectors: Vectors  # (added, dimension)
    codes: Codes


class ChangeLog:
    """The log beside the file at `path`, as far as it belongs to the file of this `identity`."""

    def __init__(self, path: Path, identity: str, dimension: int) -> None:
        self.path = path.with_name(f"{path.name}.log")
        self.identity = identity
        self.dimension = dimension
        self.end = 0
        """Bytes that are whole, as of the last reading or writing."""
        self.records = 0

    def read(self) -> Iterator[Change]:
        """Every whole record, from the beginning; its vectors stay in the mapped file."""
        self.end = self.records = 0
        data = self._mapped()
        while True:
            taken = _take(data[self.end :], self.identity, self.dimension)
            if taken is None:
                return
            change, size = taken
            self.end += size
            self.records += 1
            yield change

    def last_sequence(self) -> int | None:
        """The sequence number of the last whole record on disk, None where there is none; moves `end` behind it.

        Reads only what came since the last reading or writing.
        """
        data, last = self._mapped(), None
        if len(data) < self.end:  # another process made the log anew
            self.end = self.records = 0
        while (taken := _take(data[self.end :], self.identity, self.dimension)) is not None:
            last = taken[0].sequence
            self.end += taken[1]
            self.records += 1
        return last

    def append(self, change: Change) -> None:
        """Write a record behind the last whole one, and wait until it is on disk.

        Raises StorageError; the log then is as before.
        """
        codes = change.codes
        columns = (change.removed, change.keys, change.vectors, codes.scales, codes.errors, codes.codes)
        body = b"".join([_padded(column) for column in columns])
        head = np.zeros((), HEAD)
        head["magic"], head["identity"] = MAGIC, self.identity.encode()
        head["sequence"], head["dimension"] = change.sequence, self.dimension
        head["removed"], head["added"] = len(change.removed), len(change.keys)
        head["body"] = zlib.crc32(body)
        head["head"] = zlib.crc32(head.tobytes()[:-4])
        try:
            is_new = not self.path.exists()
            with self.path.open("ab") as file:
                try:
                    file.truncate(self.end)
                    file.write(head.tobytes() + body)
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    with suppress(OSError):
                        file.truncate(self.end)
                    raise
            if is_new:
                sync(self.path.parent)
        except OSError as error:
            raise StorageError(f"{self.path} cannot be written: {error.strerror}") from error
        self.end += HEAD_BYTES + len(body)
        self.records += 1

    def remove(self) -> None:
        """Raises StorageError where that fails."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"{self.path} cannot be removed: {error.strerror}") from error
        self.end = self.records = 0

    def size(self) -> int:
        """Bytes on disk."""
        return self.path.stat().st_size if self.path.exists() else 0

    def verify(self) -> list[str]:
        """Whether anything stands in the log that is not a whole record, in words."""
        end, count = 0, 0
        data = self._mapped()
        while (taken := _take(data[end:], self.identity, self.dimension)) is not None:
            end, count = end + taken[1], count + 1
        if end == len(data) or self._is_of_another_file(data):
            return []
        return [
            f"{self.path}: what follows record {count} is torn or damaged, {len(data) - end:,} bytes; "
            f"its changes are taken from the store again"
        ]

    def _mapped(self) -> npt.NDArray[np.uint8]:
        try:
            with self.path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                return np.memmap(file, np.uint8, "r", shape=(size,)).view(np.ndarray) if size else np.empty(0, np.uint8)
        except FileNotFoundError:
            return np.empty(0, np.uint8)
        except OSError as error:
            raise StorageError(f"{self.path} cannot be read: {error.strerror}") from error

    def _is_of_another_file(self, data: npt.NDArray[np.uint8]) -> bool:
        """Left behind where a process died between writing a new file and removing the old one's log."""
        head = _head(data)
        return head is not None and head["identity"] != self.identity.encode()


def _head(data: npt.NDArray[np.uint8]) -> Any:
    """The head with which `data` begins, None where that is not one."""
    if len(data) < HEAD_BYTES:
        return None
    raw = data[:HEAD_BYTES].tobytes()
    head = np.frombuffer(raw, HEAD)[0]
    return head if head["magic"] == MAGIC and zlib.crc32(raw[:-4]) == head["head"] else None


def _take(data: npt.NDArray[np.uint8], identity: str, dimension: int) -> tuple[Change, int] | None:
    """(the record with which `data` begins, its bytes), None where there is no whole one of this identity."""
    head = _head(data)
    if head is None or head["identity"] != identity.encode() or head["dimension"] != dimension:
        return None
    added = int(head["added"])
    shapes: tuple[tuple[str, tuple[int, ...]], ...] = (
        ("<i8", (int(head["removed"]),)),
        ("<i8", (added,)),
        ("<f4", (added, dimension)),
        ("<f4", (added,)),
        ("<f4", (added,)),
        ("<i1", (added, dimension)),
    )
    arrays, at = [], HEAD_BYTES
    for kind, shape in shapes:
        size = int(np.prod(shape)) * int(kind[2])
        arrays.append(data[at : at + size])
        at += -(-size // 8) * 8
    if at > len(data) or zlib.crc32(data[HEAD_BYTES:at].data) != head["body"]:
        return None
    removed, keys, vectors, scales, errors, codes = (
        array.view(kind).reshape(shape) for array, (kind, shape) in zip(arrays, shapes, strict=True)
    )
    return Change(int(head["sequence"]), removed, keys, vectors, Codes(codes, scales, errors)), at


def _padded(array: npt.NDArray[Any]) -> bytes:
    data = np.ascontiguousarray(array).tobytes()
    return data + bytes(-len(data) % 8)
