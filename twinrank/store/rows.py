"""Rows and values, small: lists of any length as parameters, checksums, and how a message lists names."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from twinrank.errors import DocumentError, StorageError

IDS_AT_ONCE = 500
LAST_KEYS = "last_keys"
"""Under this name `meta` repeats what SQLite's own table says of the keys given out, with a checksum."""

Row: TypeAlias = tuple[Any, ...]


def checksum(*values: str | int | bytes) -> int:
    """The CRC-32 of a row's other columns, in the order of the schema; it finds every flipped bit.

    >>> checksum("ab", 1) == checksum("a", "b1")
    False
    """
    found = 0
    for value in values:
        data = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
        found = zlib.crc32(data, zlib.crc32(b"%d " % len(data), found))
    return found


def verify(given: int, what: str, *values: str | int | bytes) -> None:
    """Refuse a row that is not as it was written, where it is read: damage must not become an answer."""
    if checksum(*values) != given:
        raise StorageError(f"{what} differs from what was stored; twinrank check tells what else does. Restore it from a copy")


def last_keys(connection: sqlite3.Connection) -> dict[str, int]:
    """Table → the last key that it gave out, which none of its rows may get again; 0 before the first."""
    given: dict[str, int] = dict(connection.execute("SELECT name, seq FROM sqlite_sequence ORDER BY name").fetchall())
    if keys_line(given) != (get_value(connection, LAST_KEYS) or keys_line({})):
        raise StorageError("the last keys given out differ from what was stored; restore the store from a copy")
    return defaultdict(int, given)


def keys_line(given: Mapping[str, int]) -> str:
    return " ".join(f"{name}={given[name]}" for name in sorted(given))


def get_value(connection: sqlite3.Connection, key: str) -> str | None:
    row = connection.execute("SELECT value, checksum FROM meta WHERE key = ?", (key,)).fetchone()
    if row is None:
        return None
    verify(row[1], f"what the store keeps under {key!r}", key, row[0])
    return str(row[0])


def set_value(connection: sqlite3.Connection, key: str, value: str) -> None:
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?, ?)", (key, value, checksum(key, value)))


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
