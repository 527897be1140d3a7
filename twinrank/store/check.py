"""The check: every problem of a store, in words; reads everything."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator

import numpy as np

from twinrank.store.rows import document_checksum, passage_checksum, vector_checksum
from twinrank.store.views import MISSING_VECTORS, read_views
from twinrank.store.writing import field_rows
from twinrank.types import Document


def problems(connection: sqlite3.Connection) -> Iterator[str]:
    for (line,) in connection.execute("PRAGMA integrity_check"):
        if line != "ok":
            yield f"SQLite's integrity check: {line}"
    for table, row, parent, _ in connection.execute("PRAGMA foreign_key_check"):
        yield f"row {row} of {table} points to a row of {parent} that is not there"
    yield from _document_problems(connection)
    yield from _vector_problems(connection)


def _document_problems(connection: sqlite3.Connection) -> Iterator[str]:
    documents = connection.execute("SELECT key, id, checksum, title, source, fields, text FROM documents")
    for key, id, checksum, title, source, fields, text in documents:
        if document_checksum(id, title, source, fields, text) != checksum:
            yield f"document {id!r} differs from what was stored"
            continue
        stored = set(connection.execute("SELECT name, kind, value FROM fields WHERE document = ?", (key,)))
        if stored != set(field_rows(Document(id, "", fields=json.loads(fields)))):
            yield f"the indexed fields of document {id!r} differ from its own"
        passages = connection.execute(
            'SELECT key, document, number, start, "end", digest, checksum FROM passages WHERE document = ? ORDER BY number',
            (key,),
        )
        for place, (passage, *values, sum_) in enumerate(passages):
            if passage_checksum(*values) != sum_ or values[1] != place or not 0 <= values[2] <= values[3] <= len(text):
                yield f"passage {passage} of document {id!r} differs from what was stored"


def _vector_problems(connection: sqlite3.Connection) -> Iterator[str]:
    views = {view.key: view for view in read_views(connection).values()}
    for passage, key, dropped, checksum, blob in connection.execute("SELECT * FROM vectors"):
        view = views.get(key)
        if view is None:
            continue  # a foreign key that is told above
        vector = np.frombuffer(blob[: len(blob) // 4 * 4], dtype="<f4")
        if vector_checksum(passage, blob, dropped) != checksum:
            yield f"the vector of passage {passage} in view {view.name!r} differs from what was stored"
        elif len(blob) != 4 * view.dimension or not np.isfinite(vector).all() or not vector.any():
            yield f"the vector of passage {passage} in view {view.name!r} cannot be searched"
    for view in views.values():
        missing = connection.execute(f"SELECT count(*) {MISSING_VECTORS}", (0, view.key)).fetchone()[0]
        if missing and view.complete:
            yield f"view {view.name!r} lacks the vectors of {missing} passages"
