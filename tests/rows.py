"""Every row that a store has of documents and passages, to compare two stores by."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any


def rows(store: Path) -> dict[str, list[Any]]:
    """Table → its rows, sorted; of the file `store`. What it says of itself and its log of changes differ from time to time."""
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        kept = [name for name in names if name not in ("meta", "changes")]
        return {name: sorted(connection.execute(f"SELECT * FROM {name}"), key=repr) for name in kept}
