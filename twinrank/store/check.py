"""The check: every problem of a store, in words; reads everything."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator

import numpy as np

from twinrank.errors import InputError
from twinrank.store.records import View
from twinrank.store.rows import document_checksum, passage_checksum, vector_checksum
from twinrank.store.views import TABLES, missing_vectors, read_views
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
    for kind, table in TABLES.items():
        for passage, key, dropped, checksum, blob in connection.execute(f"SELECT * FROM {table}"):
            view = views.get(key)
            if view is None:
                continue  # a foreign key that is told above
            what = f"the {'vector' if kind == 'vector' else 'token vectors'} of passage {passage} in view {view.name!r}"
            if vector_checksum(passage, blob, dropped) != checksum:
                yield f"{what} differ{'s' if kind == 'vector' else ''} from what was stored"
            elif view.kind != kind or not _can_be_searched(view, blob):
                yield f"{what} cannot be searched"
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
