"""Writing documents: what one `write` is going to do, planned first, then carried out at once."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from twinrank.conditions import FieldKind, kind_of
from twinrank.errors import DocumentError, InputError
from twinrank.parts import part_of
from twinrank.store.database import add_changes
from twinrank.store.records import PreparedDocument, PreparedPassage, View
from twinrank.store.rows import Row, bad_text, checksum, last_keys, listed, select_in, verify
from twinrank.store.views import TABLES, vector_row, view_blobs
from twinrank.types import Document


class Plan:
    """What one `write` is going to do: read what is known, place each document, then carry all of it out at once."""

    def __init__(self, connection: sqlite3.Connection, views: dict[str, View]) -> None:
        self.connection = connection
        self.views = views
        last = last_keys(connection)
        self.next_document = last["documents"] + 1
        self.next_passage = last["passages"] + 1
        self.document_keys: dict[str, int] = {}
        self.old_passages: dict[int, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        self.replaced: list[Row] = []
        self.documents: list[Row] = []
        self.fields: list[Row] = []
        self.new_passages: list[Row] = []
        self.kept_passages: list[Row] = []
        self.removed: list[int] = []
        self.changes: list[tuple[int, str]] = []
        self.copies: list[Row] = []
        self.vectors: dict[str, list[tuple[int, npt.NDArray[np.float32] | bytes, int, str]]] = defaultdict(list)

    def read_known(self, ids: Sequence[str]) -> None:
        self.document_keys = dict(select_in(self.connection, "SELECT id, key FROM documents WHERE id IN ({})", ids))
        query = "SELECT document, digest, key FROM passages WHERE document IN ({}) ORDER BY number DESC"
        for document, digest, key in select_in(self.connection, query, list(self.document_keys.values())):
            self.old_passages[document][digest].append(key)

    def place_document(self, prepared: PreparedDocument) -> None:
        document = prepared.document
        fields = fields_json(document)
        known = self.document_keys.get(document.id)
        key = self.next_document if known is None else known
        head = (key, document.id, prepared.digest, document.title, document.source, fields)
        row = (*head, checksum(*head), checksum(key, document.text), document.text)
        if known is None:
            self.next_document += 1
            self.documents.append(row)
        else:
            self.replaced.append(row)
        self.fields.extend((key, *row) for row in field_rows(document))
        old = self.old_passages[key]
        originals = {digest: keys[-1] for digest, keys in old.items()}
        for number, passage in enumerate(prepared.passages):
            text = part_of(document, passage.part)
            if text is None or not 0 <= passage.start <= passage.end <= len(text):
                where = f" of {passage.part}" if passage.part else ""
                raise InputError(
                    f"passage {number} of document {document.id!r} lies at {passage.start}:{passage.end}{where}, "
                    f"outside its {len(text or '')} characters"
                )
            self._place_passage(key, number, passage, old, originals, f"passage {number} of document {document.id!r}")
        self.removed.extend(gone for keys in old.values() for gone in keys)

    def _place_passage(
        self,
        document: int,
        number: int,
        passage: PreparedPassage,
        old: dict[str, list[int]],
        originals: dict[str, int],
        name: str,
    ) -> None:
        kept = bool(old.get(passage.digest))
        if kept:
            key = old[passage.digest].pop()
        else:
            key = self.next_passage
            self.next_passage += 1
        row = (key, document, number, passage.part, passage.start, passage.end, passage.digest)
        (self.kept_passages if kept else self.new_passages).append((*row, checksum(*row)))
        fresh = False
        for view in self.views.values():
            vector, dropped = passage.vectors.get(view.name) or (None, 0)
            if vector is not None:
                self.vectors[view.name].append((key, vector, dropped, name))
                fresh = True
            elif passage.digest in originals:
                if not kept:  # the same text once more: its twin's vector is copied
                    self.copies.append((key, originals[passage.digest], view))
            elif view.complete:
                raise InputError(f"{name} came without a vector for view {view.name!r}, which is complete")
        unknown = set(passage.vectors) - set(self.views)
        if unknown:
            raise InputError(f"{name} came with a vector for view {min(unknown)!r}; the collection has {listed(self.views)}")
        if fresh or not kept:
            self.changes.append((key, "add"))

    def carry_out(self) -> None:
        many = self.connection.executemany
        try:
            many(
                "UPDATE documents SET id = ?2, digest = ?3, title = ?4, source = ?5, fields = ?6, checksum = ?7,"
                " text_checksum = ?8, text = ?9 WHERE key = ?1",
                self.replaced,
            )
            many("INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", self.documents)
            many("DELETE FROM fields WHERE document = ?", [row[:1] for row in self.replaced])
            many("INSERT OR IGNORE INTO fields VALUES (?, ?, ?, ?)", self.fields)  # a list may name a value twice
        except (UnicodeEncodeError, sqlite3.DataError) as error:
            raise DocumentError(self._unstorable(error)) from error
        many(
            'UPDATE passages SET document = ?2, number = ?3, part = ?4, start = ?5, "end" = ?6, digest = ?7, checksum = ?8'
            " WHERE key = ?1",
            self.kept_passages,
        )
        many("INSERT INTO passages VALUES (?, ?, ?, ?, ?, ?, ?, ?)", self.new_passages)
        for key, original, of in self.copies:
            self._copy_vector(key, original, of)
        for name, entries in self.vectors.items():
            view = self.views[name]
            blobs = view_blobs(view, [vector for _, vector, _, _ in entries], [owner for *_, owner in entries])
            rows = [
                vector_row(key, view, int(dropped), blob) for (key, _, dropped, _), blob in zip(entries, blobs, strict=True)
            ]
            many(f"INSERT OR REPLACE INTO {TABLES[view.kind]} VALUES (?, ?, ?, ?, ?)", rows)
        many("DELETE FROM passages WHERE key = ?", [(key,) for key in self.removed])
        add_changes(self.connection, [*((key, "remove") for key in self.removed), *self.changes])

    def _copy_vector(self, key: int, original: int, view: View) -> None:
        table = TABLES[view.kind]
        query = f"SELECT * FROM {table} WHERE passage = ? AND view = ?"
        for passage, of, dropped, given, blob in self.connection.execute(query, (original, view.key)).fetchall():
            verify(given, f"the vector of passage {passage}", passage, of, dropped, blob)
            self.connection.execute(f"INSERT INTO {table} VALUES (?, ?, ?, ?, ?)", vector_row(key, view, dropped, blob))

    def _unstorable(self, error: Exception) -> str:
        if isinstance(error, sqlite3.DataError):
            return "a document is larger than the 1 GB that can be stored; split it"
        for _, id, _, title, source, fields, _, _, text in [*self.replaced, *self.documents]:
            for part, value in (("id", id), ("title", title), ("source", source), ("fields", fields), ("text", text)):
                if bad_text([value]) is not None:
                    return f"the {part} of document {id!a} holds half of a surrogate pair, which no file can keep; replace it"
        return f"a document cannot be stored: {error}"


def fields_json(document: Document) -> str:
    try:
        return json.dumps(dict(document.fields), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise DocumentError(f"the fields of document {document.id!r} cannot be stored: {error}") from error


def field_rows(document: Document) -> Iterator[tuple[str, FieldKind, str | int | float]]:
    """(name, kind, value), one for each value of each field."""
    for name, value in document.fields.items():
        if not isinstance(name, str):
            raise DocumentError(f"document {document.id!r} has a field named {name!r}; a field's name is text")
        values = value if isinstance(value, (list, tuple)) else [value]
        present = [one for one in values if one is not None]
        if not present:
            yield name, "null", ""
        for one in present:
            if not isinstance(one, (str, int, float)):
                raise DocumentError(
                    f"field {name!r} of document {document.id!r} is of type {type(one).__name__}; "
                    "text, numbers, true, false, null and lists of them can be stored"
                )
            if isinstance(one, int) and not -(2**63) <= one < 2**63:
                raise DocumentError(f"field {name!r} of document {document.id!r} is {one}, beyond 64 bits; store it as text")
            yield name, kind_of(one), int(one) if isinstance(one, bool) else one
