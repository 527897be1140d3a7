"""Upkeep: the file stays in proportion to what it holds, a little at a time: old changes forgotten, free pages given back."""

from __future__ import annotations

import sqlite3

from twinrank.store.database import COMPACTED
from twinrank.store.rows import set_value

KEPT_CHANGES = 4096
"""The end of the log that stays for the indexes of processes that are a little behind; from twice that on it is cut off."""

FORGOTTEN_AT_ONCE = 16384
FREE_SHARE = 0.25
"""Of the file; where more of its pages are free, the file system gets them back."""

FREE_LEAST = 64
"""Pages, half a megabyte: so few are soon used again."""

PAGES_AT_ONCE = 64

LONGEST = 0.02
"""Seconds after which no further step is begun, so that no writer waits long; the next write goes on."""


def has_old_changes(connection: sqlite3.Connection) -> bool:
    """Counts without reading rows: a tenth of a millisecond for 10,000."""
    return bool(connection.execute("SELECT count(*) FROM changes").fetchone()[0] > 2 * KEPT_CHANGES)


def forget_changes(connection: sqlite3.Connection, reflected: int) -> bool:
    """Forget the oldest changes that every index, being of state `reflected`, has taken in; False where none could be.

    What is forgotten ends with a transaction, and the log goes on to hold the states behind it.
    """
    total = connection.execute("SELECT count(*) FROM changes").fetchone()[0]
    step = min(FORGOTTEN_AT_ONCE, total - KEPT_CHANGES)
    if step <= 0:
        return False
    (reach,) = connection.execute("SELECT sequence FROM changes ORDER BY sequence LIMIT 1 OFFSET ?", (step - 1,)).fetchone()
    last = "SELECT max(sequence) FROM changes WHERE kind = 'commit' AND sequence <= ?"
    (state,) = connection.execute(last, (min(reach, reflected),)).fetchone()
    if state is None:  # a transaction longer than a step goes whole
        (state,) = connection.execute("SELECT min(sequence) FROM changes WHERE kind = 'commit'").fetchone()
    if state is None or state > reflected:
        return False
    connection.execute("DELETE FROM changes WHERE sequence <= ?", (state,))
    set_value(connection, COMPACTED, str(state))
    return True


def has_much_free(connection: sqlite3.Connection) -> bool:
    free, pages = (connection.execute(f"PRAGMA {what}").fetchone()[0] for what in ("freelist_count", "page_count"))
    return bool(free > FREE_LEAST and free > FREE_SHARE * pages)


def give_back(connection: sqlite3.Connection) -> None:
    """Move pages from the end of the file into free ones and cut it off; the log is folded in by SQLite in its own time."""
    for _ in range(PAGES_AT_ONCE):
        connection.execute("PRAGMA incremental_vacuum(1)")  # of more, Python's `execute` would free one, too
