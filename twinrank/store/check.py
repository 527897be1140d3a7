"""The check: every problem of a store, in words; reads everything."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator

import numpy as np

from twinrank.errors import InputError, StorageError
from twinrank.parts import part_of
from twinrank.store.database import PAGE_BYTES, SCHEMA, sequence_of
from twinrank.store.records import View
from twinrank.store.rows import Row, checksum, last_keys
from twinrank.store.views import TABLES, missing_vectors, read_views
from twinrank.store.writing import field_rows
from twinrank.types import Document

SETTINGS = {"encoding": "UTF-8", "page_size": PAGE_BYTES, "auto_vacuum": 2, "journal_mode": "wal"}
"""What the file's first hundred bytes say of it beside what SQLite itself looks at."""


def problems(connection: sqlite3.Connection, *, immutable: bool = False) -> Iterator[str]:
    """`immutable` says that the file is read as it stands, without a log, which SQLite then tells as its journal mode."""
    yield from structure_problems(connection)
    for table, row, parent, _ in connection.execute("PRAGMA foreign_key_check"):
        yield f"row {row} of {table} points to a row of {parent} that is not there"
    yield from _header_problems(connection, immutable)
    if not _has_our_tables(connection):
        yield "the database's tables are not those of this format"
        return  # what is in them cannot be told
    yield from _log_problems(connection)
    yield from _document_problems(connection)
    yield from _vector_problems(connection)


def structure_problems(connection: sqlite3.Connection) -> Iterator[str]:
    """Whether tables and their indexes hold the same, in SQLite's own words: a millisecond a megabyte."""
    for (line,) in connection.execute("PRAGMA integrity_check"):
        if line != "ok":
            yield f"SQLite's integrity check: {line}"


def _has_our_tables(connection: sqlite3.Connection) -> bool:
    """Integrity is not enough: a column of another name or a constraint less is sound, too."""
    fresh = sqlite3.connect(":memory:")
    try:
        fresh.executescript(SCHEMA)
        tables = "SELECT type, name, tbl_name, sql FROM sqlite_master"
        return set(connection.execute(tables)) == set(fresh.execute(tables))
    finally:
        fresh.close()


def _header_problems(connection: sqlite3.Connection, immutable: bool) -> Iterator[str]:
    for setting, expected in SETTINGS.items():
        found = connection.execute(f"PRAGMA {setting}").fetchone()
        if found is not None and found[0] != expected and not (immutable and setting == "journal_mode"):
            yield f"the database's header says {setting} {found[0]}, not {expected}"


def _log_problems(connection: sqlite3.Connection) -> Iterator[str]:
    for key, value, given in connection.execute("SELECT * FROM meta"):
        if checksum(key, value) != given:
            yield f"what the store keeps under {key!r} differs from what was stored"
    try:
        last_keys(connection)
    except StorageError as error:
        yield str(error)
    for number, passage, kind, given in connection.execute("SELECT * FROM changes"):
        if checksum(number, passage, kind) != given:
            yield f"change {number} in the log differs from what was stored; twinrank rebuild writes the log anew"
    last = connection.execute("SELECT kind FROM changes WHERE sequence = ?", (sequence_of(connection),)).fetchone()
    if last is not None and last[0] != "commit":
        yield "the log of changes ends within a transaction; twinrank rebuild writes the log anew"


def _document_problems(connection: sqlite3.Connection) -> Iterator[str]:
    for *head, given, text_given, text in connection.execute("SELECT * FROM documents"):
        key, id, _, title, _, fields = head
        if checksum(*head) != given:
            yield f"document {id!r} differs from what was stored"
            continue
        if checksum(key, text) != text_given:
            yield f"the text of document {id!r} differs from what was stored"
        stored = set(connection.execute("SELECT name, kind, value FROM fields WHERE document = ?", (key,)))
        if stored != set(field_rows(Document(id, "", fields=json.loads(fields)))):
            yield f"the indexed fields of document {id!r} differ from its own"
        passages = connection.execute("SELECT * FROM passages WHERE document = ? ORDER BY number", (key,))
        for place, row in enumerate(passages):
            yield from _passage_problems(row, place, Document(id, text, title, json.loads(fields)))


def _passage_problems(row: Row, place: int, document: Document) -> Iterator[str]:
    *values, given = row
    key, _, number, part, start, end, _ = values
    text = part_of(document, part)
    if checksum(*values) != given or number != place or text is None or not 0 <= start <= end <= len(text):
        yield f"passage {key} of document {document.id!r} differs from what was stored"


def _vector_problems(connection: sqlite3.Connection) -> Iterator[str]:
    try:
        views = {view.key: view for view in read_views(connection).values()}
    except (StorageError, ValueError) as error:
        yield str(error)
        return
    for kind, table in TABLES.items():
        for passage, key, dropped, given, blob in connection.execute(f"SELECT * FROM {table}"):
            view = views.get(key)
            what = f"the {'vector' if kind == 'vector' else 'token vectors'} of passage {passage} in view "
            if view is None:
                yield f"{what}{key}: there is no such view"
            elif checksum(passage, key, dropped, blob) != given:
                yield f"{what}{view.name!r} differ{'s' if kind == 'vector' else ''} from what was stored"
            elif view.kind != kind or not _can_be_searched(view, blob):
                yield f"{what}{view.name!r} cannot be searched"
    for view in views.values():
        missing = connection.execute(f"SELECT count(*) {missing_vectors(view)}", (0, view.key)).fetchone()[0]
        if missing and view.complete:
            yield f"view {view.name!r} lacks the vectors of {missing} passages"


def _can_be_searched(view: View, blob: bytes) -> bool:
    if view.kind == "vector":
        vector = np.frombuffer(blob[: len(blob) // 4 * 4], dtype="<f4")
        return len(blob) == 4 * view.dimension and bool(np.isfinite(vector).all() and vector.any())
    try:
        scales = view.codec.unpack([blob]).scales
    except InputError:
        return False
    return bool(np.isfinite(scales).all() and (scales > 0).all())
