"""Documents, passages, fields, vectors and the log of changes in one SQLite file: the truth; only this file knows SQL.

Everything else on disk is derived from here and may be deleted. What `write` or `delete` returned from is on the disk:
WAL with `synchronous=FULL`, one transaction a call. Every row carries a checksum, so that `check` finds a flipped bit.
A passage keeps its key for as long as its document holds a passage of the same text, so that an update costs indexes and
encoders only what changed; a key is never used twice.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import re
import sqlite3
import threading
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeAlias
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from twinrank.errors import (
    CollectionBusyError,
    CollectionError,
    CollectionReadOnlyError,
    DocumentError,
    FilterError,
    IndexDamagedError,
    InputError,
    ModelMismatchError,
    StorageError,
)
from twinrank.types import (
    And,
    Between,
    Comparison,
    Condition,
    Document,
    IsNull,
    Keys,
    Like,
    Not,
    Or,
    Passage,
    Scalar,
    Value,
    Vectors,
)

FILE_NAME = "store.db"
APPLICATION_ID = 0x7477_726B  # "twrk": how `file` and we tell our databases from others
FORMAT = 1  # PRAGMA user_version; raised when the tables change
PAGE_BYTES = 8192  # five vectors of 384 numbers a page; at SQLite's 4096, two, and a quarter of the file would be air
KEPT_CONNECTIONS = 8
MOST_PARAMETERS = 30_000  # SQLite's own limit is 32,766
DEEPEST_CONDITION = 25  # beyond, the stack of SQLite's parser (100 symbols) may overflow
IDS_AT_ONCE = 500

SCHEMA = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE documents(
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    digest TEXT NOT NULL,
    checksum INTEGER NOT NULL,
    title TEXT NOT NULL,
    source TEXT NOT NULL,
    fields TEXT NOT NULL,  -- JSON: what the user gave, in order
    text TEXT NOT NULL     -- last, so that reading the others never touches its pages
);
CREATE TABLE fields(
    document INTEGER NOT NULL REFERENCES documents ON DELETE CASCADE,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,    -- number, text, boolean or null
    value NOT NULL,        -- no declared type, so SQLite converts nothing; '' where the kind is null
    PRIMARY KEY(document, name, kind, value)
) WITHOUT ROWID;
CREATE INDEX fields_by_value ON fields(name, kind, value);
CREATE TABLE passages(
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    document INTEGER NOT NULL REFERENCES documents ON DELETE CASCADE,
    number INTEGER NOT NULL,
    start INTEGER NOT NULL,
    "end" INTEGER NOT NULL,
    digest TEXT NOT NULL,
    checksum INTEGER NOT NULL
);
CREATE INDEX passages_by_document ON passages(document, number);
CREATE TABLE views(
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    model TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    dimension INTEGER NOT NULL,
    settings TEXT NOT NULL,  -- JSON
    complete INTEGER NOT NULL
);
CREATE TABLE vectors(
    passage INTEGER NOT NULL REFERENCES passages ON DELETE CASCADE,
    view INTEGER NOT NULL REFERENCES views,
    dropped INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    vector BLOB NOT NULL,  -- float32, little endian
    UNIQUE(passage, view)
);
CREATE INDEX vectors_truncated ON vectors(view, dropped) WHERE dropped > 0;
CREATE TABLE changes(sequence INTEGER PRIMARY KEY AUTOINCREMENT, passage INTEGER NOT NULL, kind TEXT NOT NULL);
"""

ChangeKind: TypeAlias = Literal["add", "remove"]
FieldKind: TypeAlias = Literal["number", "text", "boolean", "null"]
Row: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class PreparedPassage:
    """A passage ready to be written: where it lies, the digest of what is encoded of it, and its vectors by view."""

    start: int
    end: int
    digest: str
    vectors: Mapping[str, tuple[npt.NDArray[np.float32] | None, int] | None] = field(default_factory=dict)
    """View → (vector (dimension,), tokens dropped). Where it is None or missing, the vector of the document's passage of
    the same digest is taken over."""


@dataclass(frozen=True, slots=True)
class PreparedDocument:
    """A document with its passages in order, and a digest by which the caller knows it again when nothing changed."""

    document: Document
    digest: str
    passages: Sequence[PreparedPassage]


@dataclass(frozen=True, slots=True)
class View:
    """What is kept of one model's vectors: whose they are, and whether every passage has one."""

    name: str
    model: str
    fingerprint: str
    dimension: int
    settings: Mapping[str, Any]
    complete: bool
    """Once complete, a view stays so: `write` refuses passages without its vector."""
    key: int


@dataclass(frozen=True, slots=True)
class DocumentInfo:
    """A document without its text, for hits."""

    key: int
    id: str
    title: str
    source: str
    fields: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class FieldSummary:
    """How a field is used: documents that hold each type of value, and documents that hold the field at all."""

    types: Mapping[FieldKind, int]
    documents: int


class Store:
    """One collection's durable half; may be used from several threads, and by several processes."""

    def __init__(self, folder: Path, *, timeout: float = 10.0) -> None:
        """Use `Store.open`. `timeout` is how long, in seconds, a writer waits for another one."""
        self.folder = folder
        self.path = folder / FILE_NAME
        self.timeout = timeout
        self.closed = False
        self._mode: Literal["rw", "ro", "immutable"] = "rw"
        self._seen: tuple[int, int] | None = None
        self._idle: list[sqlite3.Connection] = []
        self._abandoned: list[sqlite3.Connection] = []
        self._process = os.getpid()
        self._pool_lock = threading.Lock()
        self._write_lock = threading.Lock()

    # Opening and closing

    @classmethod
    def open(cls, folder: str | Path, *, create: bool = True, timeout: float = 10.0) -> Store:
        """Open the store in `folder`, or create both.

        A folder or file without permission to write is opened for reading.
        """
        store = cls(Path(folder), timeout=timeout)
        if store.path.exists():
            store._open_existing(create)
        elif create:
            store._create()
        else:
            raise CollectionError(f"{folder} is no collection: it has no {FILE_NAME}; index documents into it first")
        return store

    def _create(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except PermissionError as error:
            raise CollectionReadOnlyError(f"a collection cannot be created at {self.folder}: no permission to write") from error
        except OSError as error:
            raise CollectionError(f"a collection cannot be created at {self.folder}: {error.strerror}") from error
        if not os.access(self.folder, os.W_OK):
            raise CollectionReadOnlyError(f"a collection cannot be created at {self.folder}: no permission to write")
        self._lay_tables()

    def _lay_tables(self) -> None:
        try:
            with self._translated():
                connection = sqlite3.connect(self.path, timeout=self.timeout, isolation_level=None, check_same_thread=False)
                try:
                    connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
                    connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
                    connection.execute("PRAGMA journal_mode=WAL")
                    connection.execute("PRAGMA synchronous=FULL")
                    connection.execute("BEGIN IMMEDIATE")
                    # Another process may have been faster.
                    if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
                        for statement in SCHEMA.split(";\n"):
                            connection.execute(statement)
                        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
                        connection.execute(f"PRAGMA user_version={FORMAT}")
                    connection.execute("COMMIT")
                finally:
                    connection.close()
            for folder in (self.folder, self.folder.resolve().parent):
                _sync_folder(folder)
        except OSError as error:
            raise StorageError(f"{self.path} could not be created: {error.strerror}") from error

    def _open_existing(self, create: bool) -> None:
        self._mode = self._find_mode()
        with self._reading() as connection:
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
        if application == 0 and version == 0 and empty and create:
            self._lay_tables()  # a process died while it was creating this one
            return
        if application != APPLICATION_ID:
            raise CollectionError(f"{self.path} is a database of another program, not a collection; choose another folder")
        if version > FORMAT:
            raise CollectionError(
                f"{self.path} was written by a newer twinrank: its format is {version}, this one reads up to {FORMAT}; "
                "upgrade twinrank"
            )

    def _find_mode(self) -> Literal["rw", "ro", "immutable"]:
        if not os.access(self.path, os.R_OK):
            raise CollectionError(f"{self.path} cannot be read: no permission")
        if os.access(self.folder, os.W_OK):
            return "rw" if os.access(self.path, os.W_OK) else "ro"
        # SQLite's WAL needs a shared-memory file next to the database. Where none is and none can be made, nobody is
        # writing, and the database is read as it stands.
        log, shared = self._beside("-wal"), self._beside("-shm")
        if log.exists() and shared.exists():
            return "ro"
        if log.exists() and log.stat().st_size > 0:
            raise CollectionReadOnlyError(
                f"{self.path} was not closed properly, and reading it asks for permission to write {self.folder} once; "
                "open it from an account that may, or copy the folder"
            )
        return "immutable"

    def _beside(self, ending: str) -> Path:
        return self.path.with_name(self.path.name + ending)

    def _connect(self) -> sqlite3.Connection:
        options = {"rw": "mode=rw", "ro": "mode=ro", "immutable": "mode=ro&immutable=1"}[self._mode]
        connection = sqlite3.connect(
            f"file:{quote(str(self.path.resolve()))}?{options}",
            uri=True,
            timeout=self.timeout,
            isolation_level=None,
            check_same_thread=False,  # a connection serves one thread at a time, but not always the same
        )
        try:
            connection.execute("PRAGMA foreign_keys=ON")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA journal_size_limit=16777216")
            connection.execute("PRAGMA cache_size=-16384")  # 16 MiB
            connection.create_function("is_like", 2, _is_like, deterministic=True)
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def _borrow(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own for the caller; one that saw an error is not used again."""
        if self.closed:
            raise CollectionError(f"{self.folder} is closed; open it again")
        if self._mode == "immutable":
            self._look_again()
        with self._pool_lock:
            if self._process != os.getpid():  # forked: SQLite's connections must be neither used nor closed here
                self._abandoned, self._idle, self._process = [*self._abandoned, *self._idle], [], os.getpid()
            connection = self._idle.pop() if self._idle else None
        connection = connection or self._connect()
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        with self._pool_lock:
            if not self.closed and len(self._idle) < KEPT_CONNECTIONS:
                self._idle.append(connection)
                return
        connection.close()

    def _look_again(self) -> None:
        """Where the file is read as it stands, notice that somebody else wrote it after all."""
        status = self.path.stat()
        now = (status.st_mtime_ns, status.st_size)
        if self._seen not in (None, now) or self._beside("-wal").exists():
            with self._pool_lock:
                idle, self._idle = self._idle, []
            for connection in idle:
                connection.close()
            self._mode = self._find_mode()
        self._seen = now

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """SQLite's errors, told as ours."""
        try:
            yield
        except sqlite3.Error as error:
            raise _translate(error, self.path) from error

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """One committed state for all that is read inside."""
        with self._translated(), self._borrow() as connection:
            connection.execute("BEGIN")
            yield connection
            connection.execute("COMMIT")

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of what is inside, or nothing."""
        if self._mode != "rw":
            raise CollectionReadOnlyError(f"{self.folder} cannot be changed: no permission to write; searching works")
        if not self._write_lock.acquire(timeout=self.timeout):
            raise CollectionBusyError(f"another thread is writing to {self.folder}; try again when it has finished")
        try:
            with self._translated(), self._borrow() as connection:
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    if connection.in_transaction:  # SQLite may have rolled back by itself
                        with suppress(sqlite3.Error):
                            connection.execute("ROLLBACK")
                    raise
        finally:
            self._write_lock.release()

    @property
    def writable(self) -> bool:
        return self._mode == "rw"

    def close(self) -> None:
        with self._pool_lock:
            self.closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            with suppress(sqlite3.Error):  # nothing is lost: a write-ahead log that could not be folded in stays beside
                connection.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_pool_lock") and not self.closed and self._process == os.getpid():
            self.close()

    # Small things by name

    def get_meta(self, key: str) -> str | None:
        with self._reading() as connection:
            row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def set_meta(self, key: str, value: str) -> None:
        with self._writing() as connection:
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    # The log of changes

    def sequence(self) -> int:
        """The number of the latest change; 0 before the first."""
        with self._reading() as connection:
            return _last_key(connection, "changes")

    def changes_since(self, sequence: int) -> list[tuple[int, int, ChangeKind]]:
        """For each passage touched after `sequence`, its last change: (sequence, passage key, "add" or "remove").

        An index removes the key before it adds it; catching up twice is then the same as once. Raises IndexDamagedError
        where the log cannot tell, and the index is to be built anew.
        """
        with self._reading() as connection:
            oldest = connection.execute("SELECT value FROM meta WHERE key = 'changes_compacted'").fetchone()
            if oldest is not None and sequence < int(oldest[0]):
                raise IndexDamagedError(f"the change log no longer reaches back to {sequence}; build the index anew")
            if sequence > (last := _last_key(connection, "changes")):
                raise IndexDamagedError(f"the index is of change {sequence}, the store only at {last}; build the index anew")
            # SQLite promises that the bare column `kind` comes from the row of the maximum.
            rows = connection.execute(
                "SELECT max(sequence) AS last, passage, kind FROM changes WHERE sequence > ? GROUP BY passage ORDER BY last",
                (sequence,),
            )
            return rows.fetchall()

    def compact_changes(self, before: int) -> None:
        """Forget changes up to and including `before`, which every index has taken in."""
        with self._writing() as connection:
            before = min(before, _last_key(connection, "changes"))
            connection.execute("DELETE FROM changes WHERE sequence <= ?", (before,))
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('changes_compacted', ?)", (str(before),))

    # Writing documents

    def known_digests(self, ids: Sequence[str]) -> dict[str, str]:
        """Of those documents that are here, the digest; a document whose digest is unchanged need not be written."""
        with self._reading() as connection:
            return dict(_select_in(connection, "SELECT id, digest FROM documents WHERE id IN ({})", ids))

    def passage_digests(self, ids: Sequence[str]) -> dict[str, set[str]]:
        """Of those documents that are here, the digests of their passages: a passage with one of these need not be encoded."""
        found: dict[str, set[str]] = defaultdict(set)
        query = "SELECT d.id, p.digest FROM documents d LEFT JOIN passages p ON p.document = d.key WHERE d.id IN ({})"
        with self._reading() as connection:
            for id, digest in _select_in(connection, query, ids):
                found[id].update(() if digest is None else (digest,))
        return dict(found)

    def write(self, prepared: Sequence[PreparedDocument]) -> None:
        """Add these documents, or put them in the place of those with the same ids, in one transaction.

        Of documents with the same id the last one counts. Raises DocumentError for what cannot be stored, InputError for a
        vector that is missing, of another dimension, not finite or zero; nothing is written then.
        """
        by_id = {one.document.id: one for one in prepared}
        if not by_id:
            return
        with self._writing() as connection:
            plan = _Plan(connection, _views(connection))
            plan.read_known(list(by_id))
            for one in by_id.values():
                plan.place_document(one)
            plan.carry_out()

    def delete(self, ids: Sequence[str]) -> list[str]:
        """Remove documents; the ids that were there, in the order given."""
        with self._writing() as connection:
            known: dict[str, int] = dict(_select_in(connection, "SELECT id, key FROM documents WHERE id IN ({})", ids))
            for part in _parts(list(known.values())):
                marks = _marks(part)
                connection.execute(
                    f"INSERT INTO changes(passage, kind) SELECT key, 'remove' FROM passages WHERE document IN ({marks})", part
                )
                connection.execute(f"DELETE FROM documents WHERE key IN ({marks})", part)
        return [id for id in dict.fromkeys(ids) if id in known]

    # Reading documents and passages

    def get(self, ids: Sequence[str]) -> list[Document | None]:
        query = "SELECT id, text, title, fields, source FROM documents WHERE id IN ({})"
        with self._reading() as connection:
            found = {
                id: Document(id, text, title, json.loads(fields), source)
                for id, text, title, fields, source in _select_in(connection, query, ids)
            }
        return [found.get(id) for id in ids]

    def count_documents(self) -> int:
        return self._count("SELECT count(*) FROM documents")

    def count_passages(self) -> int:
        return self._count("SELECT count(*) FROM passages")

    def _count(self, query: str) -> int:
        with self._reading() as connection:
            return int(connection.execute(query).fetchone()[0])

    def document_ids(self) -> Iterator[str]:
        """All ids, in the order in which they first came."""
        last = 0
        while True:
            with self._reading() as connection:
                query = "SELECT key, id FROM documents WHERE key > ? ORDER BY key LIMIT 10000"
                rows = connection.execute(query, (last,)).fetchall()
            if not rows:
                return
            last = rows[-1][0]
            yield from (id for _, id in rows)

    def passages(self, keys: npt.ArrayLike) -> list[Passage]:
        """The passages of `keys`, in that order; those that are gone are left out."""
        with self._reading() as connection:
            found = _read_passages(connection, _PASSAGES_BY_KEY, (_as_json(keys),))
        return [found[key] for key in _as_list(keys) if key in found]

    def documents_of(self, keys: npt.ArrayLike) -> Keys:
        """For each passage the key of its document, -1 where the passage is gone: for grouping."""
        with self._reading() as connection:
            query = "SELECT p.key, p.document FROM json_each(?) AS wanted JOIN passages p ON p.key = wanted.value"
            found = dict(connection.execute(query, (_as_json(keys),)).fetchall())
        return np.array([found.get(key, -1) for key in _as_list(keys)], dtype=np.int64)

    def document_info(self, keys: npt.ArrayLike) -> dict[int, DocumentInfo]:
        """For each passage key that is here, what hits say of its document."""
        query = """SELECT p.key, d.key, d.id, d.title, d.source, d.fields FROM json_each(?) AS wanted
                   JOIN passages p ON p.key = wanted.value JOIN documents d ON d.key = p.document"""
        known: dict[int, DocumentInfo] = {}
        found = {}
        with self._reading() as connection:
            for passage, key, id, title, source, fields in connection.execute(query, (_as_json(keys),)):
                if key not in known:
                    known[key] = DocumentInfo(key, id, title, source, json.loads(fields))
                found[passage] = known[key]
        return found

    def iterate_passages(self, *, batch: int = 256) -> Iterator[tuple[Keys, list[str]]]:
        """All passages by key, in batches: (keys (n,), titled texts).

        Each batch is read by itself. Take `sequence()` before the first, and what changes meanwhile comes with the log.
        """
        yield from self._batches_of_passages(_PASSAGES_AFTER, (), batch)

    def passages_without_vectors(self, view: str, *, batch: int = 256) -> Iterator[tuple[Keys, list[str]]]:
        """The passages that are still to be encoded for `view`, in batches: (keys (n,), titled texts)."""
        yield from self._batches_of_passages(_PASSAGES_WITHOUT_VECTOR, (self._view(view).key,), batch)

    def _batches_of_passages(self, query: str, parameters: Row, batch: int) -> Iterator[tuple[Keys, list[str]]]:
        last = 0
        while True:
            with self._reading() as connection:
                found = _read_passages(connection, query, (last, *parameters, batch))
            if not found:
                return
            last = max(found)
            yield np.array(list(found), dtype=np.int64), [passage.titled_text for passage in found.values()]

    # Views and their vectors

    def add_view(
        self, name: str, *, model: str, fingerprint: str, dimension: int, settings: Mapping[str, Any] | None = None
    ) -> View:
        """Make room for a model's vectors; complete at once where there are no passages yet.

        A view of that name is kept where its fingerprint and dimension are the same; otherwise raises ModelMismatchError.
        """
        with self._writing() as connection:
            known = _views(connection).get(name)
            if known is None:
                complete = connection.execute("SELECT NOT EXISTS (SELECT 1 FROM passages)").fetchone()[0]
                connection.execute(
                    "INSERT INTO views(name, model, fingerprint, dimension, settings, complete) VALUES (?, ?, ?, ?, ?, ?)",
                    (name, model, fingerprint, dimension, json.dumps(dict(settings or {})), complete),
                )
                known = _views(connection)[name]
        if (known.fingerprint, known.dimension) != (fingerprint, dimension):
            raise ModelMismatchError(
                f"view {name!r} of {self.folder} was made by {known.model} ({known.fingerprint}, {known.dimension} dimensions)"
                f", not by {model} ({fingerprint}, {dimension} dimensions)"
            )
        return known

    def views(self) -> dict[str, View]:
        with self._reading() as connection:
            return _views(connection)

    def _view(self, name: str) -> View:
        views = self.views()
        if name not in views:
            raise CollectionError(f"{self.folder} has no view {name!r}; it has {_listed(views)}")
        return views[name]

    def complete_view(self, name: str) -> None:
        """Declare that every passage has a vector in this view; raises CollectionError where one lacks."""
        with self._writing() as connection:
            view = self._view(name)
            missing = connection.execute(f"SELECT count(*) {_MISSING_VECTORS}", (0, view.key)).fetchone()[0]
            if missing:
                raise CollectionError(
                    f"view {name!r} is not complete: {missing} passages have no vector yet; encode them first"
                )
            connection.execute("UPDATE views SET complete = 1 WHERE key = ?", (view.key,))

    def drop_view(self, name: str) -> None:
        """Forget a view and its vectors."""
        with self._writing() as connection:
            view = self._view(name)
            connection.execute("DELETE FROM vectors WHERE view = ?", (view.key,))
            connection.execute("DELETE FROM views WHERE key = ?", (view.key,))

    def iterate_vectors(self, view: str, *, batch: int = 4096) -> Iterator[tuple[Keys, Vectors]]:
        """All vectors of a view by passage key, in batches: (keys (n,), vectors (n, dimension))."""
        known = self._view(view)
        query = "SELECT passage, vector FROM vectors WHERE passage > ? AND view = ? ORDER BY passage LIMIT ?"
        last = 0
        while True:
            with self._reading() as connection:
                rows = connection.execute(query, (last, known.key, batch)).fetchall()
            if not rows:
                return
            last = rows[-1][0]
            yield np.array([key for key, _ in rows], dtype=np.int64), self._stack([blob for _, blob in rows], known)

    def vectors(self, view: str, keys: npt.ArrayLike) -> Vectors:
        """The vectors of `keys` (n, dimension), in that order; raises InputError where one has none."""
        known = self._view(view)
        query = (
            "SELECT v.passage, v.vector FROM json_each(?) AS wanted JOIN vectors v ON v.passage = wanted.value AND v.view = ?"
        )
        with self._reading() as connection:
            found = dict(connection.execute(query, (_as_json(keys), known.key)).fetchall())
        wanted = _as_list(keys)
        missing = [key for key in wanted if key not in found]
        if missing:
            raise InputError(f"passage {missing[0]} has no vector in view {view!r} ({len(missing)} of {len(wanted)} have none)")
        return self._stack([found[key] for key in wanted], known)

    def _stack(self, blobs: Sequence[bytes], view: View) -> Vectors:
        if any(len(blob) != 4 * view.dimension for blob in blobs):
            raise StorageError(f"{self.path} is damaged: a vector of view {view.name!r} is not of {view.dimension} dimensions")
        return np.frombuffer(b"".join(blobs), dtype="<f4").astype(np.float32).reshape(len(blobs), view.dimension)

    def set_vectors(self, view: str, keys: npt.ArrayLike, vectors: Vectors, dropped: npt.ArrayLike | None = None) -> None:
        """Put vectors (n, dimension) into a view, in one transaction; passages deleted meanwhile are passed over.

        In a complete view, which is being searched, each counts as a change.
        """
        wanted = _as_list(keys)
        counts = [0] * len(wanted) if dropped is None else _as_list(dropped)
        with self._writing() as connection:
            known = self._view(view)
            if len(wanted) != len(vectors):
                raise InputError(f"{len(wanted)} keys came with {len(vectors)} vectors")
            blobs = _blobs(known, vectors, [f"passage {key}" for key in wanted])
            # Within the transaction nobody deletes, and the dead are passed over.
            query = "SELECT p.key FROM json_each(?) AS wanted JOIN passages p ON p.key = wanted.value"
            alive = {key for (key,) in connection.execute(query, (_as_json(keys),))}
            rows = [
                (key, known.key, count, _vector_checksum(key, blob, count), blob)
                for key, count, blob in zip(wanted, counts, blobs, strict=True)
                if key in alive
            ]
            connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?, ?)", rows)
            if known.complete:
                connection.executemany("INSERT INTO changes(passage, kind) VALUES (?, 'add')", [(row[0],) for row in rows])

    def truncation(self, view: str) -> tuple[int, int]:
        """How many passages were too long for the view's model, and how many tokens were left out: (passages, tokens)."""
        query = "SELECT count(*), coalesce(sum(dropped), 0) FROM vectors WHERE view = ? AND dropped > 0"
        known = self._view(view)
        with self._reading() as connection:
            passages, tokens = connection.execute(query, (known.key,)).fetchone()
        return passages, tokens

    # Fields and conditions

    def select(self, condition: Condition) -> Keys:
        """The keys, ascending, of all passages whose document meets the condition.

        Values have three types, number, text and boolean, and a comparison across types does not hold: `year = '2020'` finds
        no number, `open = 1` no boolean. Besides the documents' own fields, `id`, `title` and `source` may be used; an empty
        title or source counts as missing. Raises FilterError for a field that no document has.
        """
        with self._reading() as connection:
            sql, parameters = _Compiler(connection).compile(condition)
            rows = connection.execute(f"SELECT p.key FROM passages p WHERE {sql}", parameters)
            keys = np.fromiter((key for (key,) in rows), dtype=np.int64)
        keys.sort()
        return keys

    def field_summary(self) -> dict[str, FieldSummary]:
        """Every field that a document has: how many documents hold which type of value, and how many hold it at all."""
        types: dict[str, dict[FieldKind, int]] = defaultdict(dict)
        with self._reading() as connection:
            for name, kind, count in connection.execute(
                "SELECT name, kind, count(DISTINCT document) FROM fields GROUP BY name, kind ORDER BY name, kind"
            ):
                types[name][kind] = count
            totals = dict(connection.execute("SELECT name, count(DISTINCT document) FROM fields GROUP BY name").fetchall())
        return {name: FieldSummary(kinds, totals[name]) for name, kinds in types.items()}

    # Upkeep

    def size(self) -> int:
        """Bytes on disk."""
        return sum(path.stat().st_size for path in (self.path, self._beside("-wal"), self._beside("-shm")) if path.exists())

    def compact(self) -> None:
        """Give the space of what was deleted back to the file system."""
        if self._mode != "rw":
            raise CollectionReadOnlyError(f"{self.folder} cannot be changed: no permission to write")
        with self._write_lock, self._translated(), self._borrow() as connection:
            connection.executescript("PRAGMA incremental_vacuum")  # `execute` would free one page only
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def check(self) -> list[str]:
        """Every problem found, in words; none where all is well. Reads everything."""
        try:
            with self._reading() as connection:
                return list(_problems(connection))
        except StorageError as error:
            return [str(error)]


_PASSAGE_COLUMNS = 'SELECT p.key, p.document, p.number, p.start, p."end" FROM'
_PASSAGES_BY_KEY = f"{_PASSAGE_COLUMNS} json_each(?) AS wanted JOIN passages p ON p.key = wanted.value"
_PASSAGES_AFTER = f"{_PASSAGE_COLUMNS} passages p WHERE p.key > ? ORDER BY p.key LIMIT ?"
_MISSING_VECTORS = """FROM passages p WHERE p.key > ?
    AND NOT EXISTS (SELECT 1 FROM vectors v WHERE v.passage = p.key AND v.view = ?)"""
_PASSAGES_WITHOUT_VECTOR = f'SELECT p.key, p.document, p.number, p.start, p."end" {_MISSING_VECTORS} ORDER BY p.key LIMIT ?'


def _read_passages(connection: sqlite3.Connection, query: str, parameters: Row) -> dict[int, Passage]:
    """Passages by key, in the query's order; each document's text is read once, and held no longer than it is cut."""
    places = connection.execute(query, parameters).fetchall()
    by_document: dict[int, list[Row]] = defaultdict(list)
    for place in places:
        by_document[place[1]].append(place)
    found: dict[int, Passage] = {}
    documents = connection.execute(
        "SELECT d.key, d.id, d.title, d.text FROM json_each(?) AS wanted JOIN documents d ON d.key = wanted.value",
        (json.dumps(list(by_document)),),
    )
    for document, id, title, text in documents:
        for key, _, number, start, end in by_document[document]:
            found[key] = Passage(id, number, start, end, text[start:end], title, key)
    return {place[0]: found[place[0]] for place in places}


class _Plan:
    """What one `write` is going to do: read what is known, place each document, then carry all of it out at once."""

    def __init__(self, connection: sqlite3.Connection, views: dict[str, View]) -> None:
        self.connection = connection
        self.views = views
        self.next_document = _last_key(connection, "documents") + 1
        self.next_passage = _last_key(connection, "passages") + 1
        self.document_keys: dict[str, int] = {}
        self.old_passages: dict[int, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        self.replaced: list[Row] = []
        self.documents: list[Row] = []
        self.fields: list[Row] = []
        self.new_passages: list[Row] = []
        self.kept_passages: list[Row] = []
        self.removed: list[int] = []
        self.changes: list[Row] = []
        self.copies: list[Row] = []
        self.vectors: dict[str, list[tuple[int, npt.NDArray[np.float32], int, str]]] = defaultdict(list)

    def read_known(self, ids: Sequence[str]) -> None:
        self.document_keys = dict(_select_in(self.connection, "SELECT id, key FROM documents WHERE id IN ({})", ids))
        query = "SELECT document, digest, key FROM passages WHERE document IN ({}) ORDER BY number DESC"
        for document, digest, key in _select_in(self.connection, query, list(self.document_keys.values())):
            self.old_passages[document][digest].append(key)

    def place_document(self, prepared: PreparedDocument) -> None:
        document = prepared.document
        fields = _fields_json(document)
        checksum = _document_checksum(document.id, document.title, document.source, fields, document.text)
        key = self.document_keys.get(document.id)
        values = (document.id, prepared.digest, checksum, document.title, document.source, fields, document.text)
        if key is None:
            key = self.next_document
            self.next_document += 1
            self.documents.append((key, *values))
        else:
            self.replaced.append((*values, key))
        self.fields.extend((key, *row) for row in _field_rows(document))
        old = self.old_passages[key]
        originals = {digest: keys[-1] for digest, keys in old.items()}
        for number, passage in enumerate(prepared.passages):
            if not 0 <= passage.start <= passage.end <= len(document.text):
                raise InputError(
                    f"passage {number} of document {document.id!r} lies at {passage.start}:{passage.end}, "
                    f"outside its {len(document.text)} characters"
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
        place = (document, number, passage.start, passage.end, passage.digest)
        checksum = _passage_checksum(*place)
        (self.kept_passages if kept else self.new_passages).append((*place, checksum, key))
        fresh = False
        for view in self.views.values():
            vector, dropped = passage.vectors.get(view.name) or (None, 0)
            if vector is not None:
                self.vectors[view.name].append((key, vector, dropped, name))
                fresh = True
            elif passage.digest in originals:
                if not kept:  # the same text once more: its twin's vector is copied
                    self.copies.append((key, originals[passage.digest], view.key))
            elif view.complete:
                raise InputError(f"{name} came without a vector for view {view.name!r}, which is complete")
        unknown = set(passage.vectors) - set(self.views)
        if unknown:
            raise InputError(f"{name} came with a vector for view {min(unknown)!r}; the collection has {_listed(self.views)}")
        if fresh or not kept:
            self.changes.append((key, "add"))

    def carry_out(self) -> None:
        many = self.connection.executemany
        try:
            many(
                "UPDATE documents SET id = ?, digest = ?, checksum = ?, title = ?, source = ?, fields = ?, text = ?"
                " WHERE key = ?",
                self.replaced,
            )
            many("INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?, ?)", self.documents)
            many("DELETE FROM fields WHERE document = ?", [row[-1:] for row in self.replaced])
            many("INSERT OR IGNORE INTO fields VALUES (?, ?, ?, ?)", self.fields)  # a list may name a value twice
        except (UnicodeEncodeError, sqlite3.DataError) as error:
            raise DocumentError(self._unstorable(error)) from error
        many(
            'UPDATE passages SET document = ?, number = ?, start = ?, "end" = ?, digest = ?, checksum = ? WHERE key = ?',
            self.kept_passages,
        )
        many(
            'INSERT INTO passages(document, number, start, "end", digest, checksum, key) VALUES (?, ?, ?, ?, ?, ?, ?)',
            self.new_passages,
        )
        for key, original, view in self.copies:
            self._copy_vector(key, original, view)
        for name, entries in self.vectors.items():
            view = self.views[name]
            blobs = _blobs(view, [vector for _, vector, _, _ in entries], [owner for *_, owner in entries])
            rows = [
                (key, view.key, int(dropped), _vector_checksum(key, blob, int(dropped)), blob)
                for (key, _, dropped, _), blob in zip(entries, blobs, strict=True)
            ]
            many("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?, ?)", rows)
        many("DELETE FROM passages WHERE key = ?", [(key,) for key in self.removed])
        many("INSERT INTO changes(passage, kind) VALUES (?, 'remove')", [(key,) for key in self.removed])
        many("INSERT INTO changes(passage, kind) VALUES (?, ?)", self.changes)

    def _copy_vector(self, key: int, original: int, view: int) -> None:
        query = "SELECT vector, dropped FROM vectors WHERE passage = ? AND view = ?"
        for blob, dropped in self.connection.execute(query, (original, view)).fetchall():
            row = (key, view, dropped, _vector_checksum(key, blob, dropped), blob)
            self.connection.execute("INSERT INTO vectors VALUES (?, ?, ?, ?, ?)", row)

    def _unstorable(self, error: Exception) -> str:
        if isinstance(error, sqlite3.DataError):
            return "a document is larger than the 1 GB that can be stored; split it"
        for *_, id, _digest, _checksum, title, source, fields, text in [
            *((0, *row[:-1]) for row in self.replaced),
            *self.documents,
        ]:
            for part, value in (("id", id), ("title", title), ("source", source), ("fields", fields), ("text", text)):
                if _bad_text([value]) is not None:
                    return f"the {part} of document {id!a} holds half of a surrogate pair, which no file can keep; replace it"
        return f"a document cannot be stored: {error}"


class _Compiler:
    """Conditions → one SQL expression over `passages p`, with every name and value as a parameter."""

    BUILT_IN = ("id", "title", "source")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.parameters: list[str | int | float] = []
        self.checked: set[str] = set(self.BUILT_IN)

    def compile(self, condition: Condition) -> tuple[str, list[str | int | float]]:
        try:
            sql = self._any(condition, 1)
        except UnicodeEncodeError as error:
            raise FilterError("the condition holds half of a surrogate pair, which no document can") from error
        if len(self.parameters) > MOST_PARAMETERS:
            raise FilterError(f"the condition names {len(self.parameters)} fields and values, of at most {MOST_PARAMETERS}")
        return sql, self.parameters

    def _any(self, condition: Condition, depth: int) -> str:
        if depth > DEEPEST_CONDITION:
            raise FilterError(f"the condition is nested deeper than {DEEPEST_CONDITION} levels")
        if isinstance(condition, Not):
            return f"NOT ({self._any(condition.condition, depth + 1)})"
        if isinstance(condition, And):
            return _balanced([self._any(part, depth + 1) for part in condition.conditions], "AND") or "TRUE"
        if isinstance(condition, Or):
            return _balanced([self._any(part, depth + 1) for part in condition.conditions], "OR") or "FALSE"
        self._check_known(condition.field)
        if isinstance(condition, IsNull):
            return f"NOT ({self._leaf(condition.field, (), 'kind <> ?', 'null')})"
        if isinstance(condition, Comparison):
            operator = {"=": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}[condition.operator]
            return self._leaf(condition.field, (condition.value,), f"value {operator} ?", condition.value)
        if isinstance(condition, Between):
            both = (condition.low, condition.high)
            return self._leaf(condition.field, both, "value BETWEEN ? AND ?", *both)
        if isinstance(condition, Like):
            return self._leaf(condition.field, (condition.pattern,), "is_like(?, value)", condition.pattern)
        by_kind: dict[FieldKind, list[Scalar]] = defaultdict(list)
        for value in condition.values:
            by_kind[_kind(value)].append(value)
        leaves = [
            self._leaf(condition.field, values[:1], f"value IN ({_marks(values)})", *values) for values in by_kind.values()
        ]
        return _balanced(leaves, "OR") or "FALSE"

    def _leaf(self, name: str, typed: Sequence[Scalar], test: str, *values: Scalar) -> str:
        """Documents with a value of the types of `typed` that passes the test."""
        kinds = [_kind(value) for value in typed]
        if "null" in kinds:
            raise FilterError(f"{name} is compared with null, which nothing equals; write `{name} is null` or `is not null`")
        numbers = [_parameter(value) for value in values]
        if name in self.BUILT_IN:
            if any(kind != "text" for kind in kinds):
                return "FALSE"
            test = test.replace("kind <> ?", "? = 'null'").replace("value", name)
            self.parameters.extend(numbers)
            return f"p.document IN (SELECT key FROM documents WHERE {name} <> '' AND {test})"
        self.parameters.extend([name, *kinds, *numbers])
        return f"p.document IN (SELECT document FROM fields WHERE name = ? {'AND kind = ? ' * len(kinds)}AND {test})"

    def _check_known(self, name: str) -> None:
        if name in self.checked:
            return
        if not self.connection.execute("SELECT EXISTS (SELECT 1 FROM fields WHERE name = ?)", (name,)).fetchone()[0]:
            if not self.connection.execute("SELECT EXISTS (SELECT 1 FROM documents)").fetchone()[0]:
                return  # nothing is here yet, and nothing is found
            known = [*self._known_names(), *self.BUILT_IN]
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise FilterError(f"no document has a field {name!r}; {hint}known fields: {_listed(known)}")
        self.checked.add(name)

    def _known_names(self) -> list[str]:
        # Steps from name to name through the index, instead of reading every row.
        query = """WITH RECURSIVE names(name) AS (
                       SELECT min(name) FROM fields
                       UNION ALL
                       SELECT (SELECT min(name) FROM fields WHERE name > names.name) FROM names WHERE name IS NOT NULL)
                   SELECT name FROM names WHERE name IS NOT NULL"""
        return [name for (name,) in self.connection.execute(query)]


def _balanced(parts: list[str], operator: str) -> str:
    """Join as a balanced tree: SQLite refuses expressions deeper than 1,000, and `a OR b OR c…` is as deep as it is long."""
    if len(parts) <= 1:
        return parts[0] if parts else ""
    half = len(parts) // 2
    return f"({_balanced(parts[:half], operator)} {operator} {_balanced(parts[half:], operator)})"


def _is_like(pattern: str, value: str | int | float) -> bool:
    """SQL's LIKE with letters in either case, beyond ASCII too. The leftmost match of each segment is as good as any, so
    that no pattern makes it backtrack."""
    if not isinstance(value, str):
        return False
    segments, tail_start = _like_segments(pattern), len(value) - _like_tail(pattern)
    if len(segments) == 1:
        return segments[0].fullmatch(value) is not None
    head, *middle, tail = segments
    if (found := head.match(value)) is None:
        return False
    for segment in middle:
        if (found := segment.search(value, found.end())) is None:
            return False
    return found.end() <= tail_start and tail.fullmatch(value, tail_start) is not None


@lru_cache(maxsize=64)
def _like_segments(pattern: str) -> tuple[re.Pattern[str], ...]:
    """What stands between the `%`s; each matches texts of one length only."""
    parts = ["".join("." if letter == "_" else re.escape(letter) for letter in part) for part in pattern.split("%")]
    return tuple(re.compile(part, re.IGNORECASE | re.DOTALL) for part in parts)


def _like_tail(pattern: str) -> int:
    return len(pattern) - pattern.rfind("%") - 1


def _kind(value: Scalar) -> FieldKind:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    return "text" if isinstance(value, str) else "number"


def _parameter(value: Scalar) -> str | int | float:
    if isinstance(value, str):
        value.encode()
        return value
    if isinstance(value, float) and math.isnan(value):
        raise FilterError("a field is compared with NaN, which nothing equals")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        try:
            return float(value)
        except OverflowError:
            raise FilterError(f"a number of {len(str(abs(value)))} digits cannot be compared with") from None
    return int(value) if isinstance(value, bool) else value or 0


def _fields_json(document: Document) -> str:
    try:
        return json.dumps(dict(document.fields), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise DocumentError(f"the fields of document {document.id!r} cannot be stored: {error}") from error


def _field_rows(document: Document) -> Iterator[tuple[str, FieldKind, str | int | float]]:
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
            yield name, _kind(one), int(one) if isinstance(one, bool) else one


def _blobs(view: View, vectors: Sequence[npt.NDArray[np.float32]] | Vectors, owners: Sequence[str]) -> list[bytes]:
    """Vectors as they are stored, after looking at each."""
    for owner, vector in zip(owners, vectors, strict=True):
        if np.shape(vector) != (view.dimension,):
            raise InputError(
                f"{owner} came with a vector of shape {np.shape(vector)}; view {view.name!r} holds ({view.dimension},)"
            )
    matrix = np.ascontiguousarray(vectors, dtype="<f4").reshape(len(owners), view.dimension)
    finite = np.isfinite(matrix).all(axis=1)  # (vectors,)
    if not finite.all():
        raise InputError(
            f"{owners[int(np.argmin(finite))]} came with a vector that holds NaN or infinity, for view {view.name!r}"
        )
    zero = ~matrix.any(axis=1)
    if zero.any():
        raise InputError(
            f"{owners[int(np.argmax(zero))]} came with a vector of zeros, for view {view.name!r}; it has no direction"
        )
    return [row.tobytes() for row in matrix]


def _views(connection: sqlite3.Connection) -> dict[str, View]:
    rows = connection.execute("SELECT name, model, fingerprint, dimension, settings, complete, key FROM views ORDER BY key")
    return {row[0]: View(row[0], row[1], row[2], row[3], json.loads(row[4]), bool(row[5]), row[6]) for row in rows}


def _problems(connection: sqlite3.Connection) -> Iterator[str]:
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
        if _document_checksum(id, title, source, fields, text) != checksum:
            yield f"document {id!r} differs from what was stored"
            continue
        stored = set(connection.execute("SELECT name, kind, value FROM fields WHERE document = ?", (key,)))
        if stored != set(_field_rows(Document(id, "", fields=json.loads(fields)))):
            yield f"the indexed fields of document {id!r} differ from its own"
        passages = connection.execute(
            'SELECT key, document, number, start, "end", digest, checksum FROM passages WHERE document = ? ORDER BY number',
            (key,),
        )
        for place, (passage, *values, sum_) in enumerate(passages):
            if _passage_checksum(*values) != sum_ or values[1] != place or not 0 <= values[2] <= values[3] <= len(text):
                yield f"passage {passage} of document {id!r} differs from what was stored"


def _vector_problems(connection: sqlite3.Connection) -> Iterator[str]:
    views = {view.key: view for view in _views(connection).values()}
    for passage, key, dropped, checksum, blob in connection.execute("SELECT * FROM vectors"):
        view = views.get(key)
        if view is None:
            continue  # a foreign key that is told above
        vector = np.frombuffer(blob[: len(blob) // 4 * 4], dtype="<f4")
        if _vector_checksum(passage, blob, dropped) != checksum:
            yield f"the vector of passage {passage} in view {view.name!r} differs from what was stored"
        elif len(blob) != 4 * view.dimension or not np.isfinite(vector).all() or not vector.any():
            yield f"the vector of passage {passage} in view {view.name!r} cannot be searched"
    for view in views.values():
        missing = connection.execute(f"SELECT count(*) {_MISSING_VECTORS}", (0, view.key)).fetchone()[0]
        if missing and view.complete:
            yield f"view {view.name!r} lacks the vectors of {missing} passages"


def _document_checksum(*parts: str) -> int:
    checksum = 0
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        checksum = zlib.crc32(data, zlib.crc32(len(data).to_bytes(8, "little"), checksum))
    return checksum


def _passage_checksum(document: int, number: int, start: int, end: int, digest: str) -> int:
    return zlib.crc32(f"{document} {number} {start} {end} {digest}".encode())


def _vector_checksum(passage: int, blob: bytes, dropped: int) -> int:
    return zlib.crc32(blob, zlib.crc32(f"{passage} {dropped}".encode()))


def _last_key(connection: sqlite3.Connection, table: str) -> int:
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
    return 0 if row is None else int(row[0])


def _select_in(connection: sqlite3.Connection, query: str, values: Sequence[str] | Sequence[int]) -> Iterator[Row]:
    """Rows of a query with `IN ({})`, for any number of values."""
    for part in _parts(list(dict.fromkeys(values))):
        try:
            yield from connection.execute(query.format(_marks(part)), part)
        except UnicodeEncodeError as error:
            raise DocumentError(f"id {_bad_text(part)!a} holds half of a surrogate pair, which no file can keep") from error


def _parts(values: list[Any]) -> Iterable[list[Any]]:
    return (values[start : start + IDS_AT_ONCE] for start in range(0, len(values), IDS_AT_ONCE))


def _marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))


def _as_list(keys: npt.ArrayLike) -> list[int]:
    return [int(key) for key in np.asarray(keys, dtype=np.int64).tolist()]


def _as_json(keys: npt.ArrayLike) -> str:
    return json.dumps(_as_list(keys))


def _listed(names: Iterable[str]) -> str:
    shown = [repr(name) for name in names]
    return ", ".join(shown[:20]) + (f" and {len(shown) - 20} more" if len(shown) > 20 else "") or "none"


def _bad_text(texts: Iterable[str]) -> str | None:
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            return text
    return None


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _translate(error: sqlite3.Error, path: Path) -> Exception:
    """By SQLite's message, since Python 3.10 does not tell the code."""
    message = str(error)
    if "locked" in message or "busy" in message:
        return CollectionBusyError(f"another process is writing to {path.parent}; try again when it has finished")
    if "readonly" in message:
        return CollectionReadOnlyError(f"{path.parent} cannot be changed: no permission to write; searching works")
    if "disk is full" in message:
        return StorageError(f"the disk of {path.parent} is full; nothing of this change was kept. Make room and try again")
    if "disk I/O error" in message:
        return StorageError(f"reading or writing {path} failed; nothing of this change was kept. Look at the disk")
    if "parser stack overflow" in message:
        return FilterError("the condition is nested too deep")
    if "unable to open" in message:
        return CollectionError(f"{path} cannot be opened: {message}")
    if "not a database" in message or "malformed" in message:
        return StorageError(f"{path} is damaged: {message}; restore it from a copy")
    if isinstance(error, (sqlite3.DataError, sqlite3.ProgrammingError, sqlite3.InterfaceError)):
        return error
    return StorageError(f"{path}: {message}")
