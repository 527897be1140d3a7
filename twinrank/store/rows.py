"""Rows and values, small: lists of any length as parameters, checksums, and how a message lists names."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from twinrank.errors import DocumentError

IDS_AT_ONCE = 500

Row: TypeAlias = tuple[Any, ...]


def document_checksum(*parts: str) -> int:
    checksum = 0
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        checksum = zlib.crc32(data, zlib.crc32(len(data).to_bytes(8, "little"), checksum))
    return checksum


def passage_checksum(document: int, number: int, start: int, end: int, digest: str) -> int:
    return zlib.crc32(f"{document} {number} {start} {end} {digest}".encode())


def vector_checksum(passage: int, blob: bytes, dropped: int) -> int:
    return zlib.crc32(blob, zlib.crc32(f"{passage} {dropped}".encode()))


def last_key(connection: sqlite3.Connection, table: str) -> int:
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
    return 0 if row is None else int(row[0])


def select_in(connection: sqlite3.Connection, query: str, values: Sequence[str] | Sequence[int]) -> Iterator[Row]:
    """Rows of a query with `IN ({})`, for any number of values."""
    for part in parts(list(dict.fromkeys(values))):
        try:
            yield from connection.execute(query.format(marks(part)), part)
        except UnicodeEncodeError as error:
            raise DocumentError(f"id {bad_text(part)!a} holds half of a surrogate pair, which no file can keep") from error


def parts(values: list[Any]) -> Iterable[list[Any]]:
    return (values[start : start + IDS_AT_ONCE] for start in range(0, len(values), IDS_AT_ONCE))


def marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))


def as_list(keys: npt.ArrayLike) -> list[int]:
    return [int(key) for key in np.asarray(keys, dtype=np.int64).tolist()]


def as_json(keys: npt.ArrayLike) -> str:
    return json.dumps(as_list(keys))


def listed(names: Iterable[str]) -> str:
    shown = [repr(name) for name in names]
    return ", ".join(shown[:20]) + (f" and {len(shown) - 20} more" if len(shown) > 20 else "") or "none"


def bad_text(texts: Iterable[str]) -> str | None:
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            return text
    return None
