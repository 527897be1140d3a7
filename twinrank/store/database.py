"""The database: its tables, how it is opened, connections, transactions, and SQLite's errors told as ours."""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

from filelock import FileLock, Timeout

from twinrank.conditions import is_like
from twinrank.errors import (
    CollectionBusyError,
    CollectionError,
    CollectionReadOnlyError,
    FilterError,
    StorageError,
)
from twinrank.files import sync
from twinrank.store.locks import CREATING, refuse_without_locks
from twinrank.store.rows import LAST_KEYS, checksum, get_value, keys_line, set_value

if TYPE_CHECKING:
    from typing_extensions import Self

FILE_NAME = "store.db"
APPLICATION_ID = 0x7477_726B  # "twrk": how `file` and we tell our databases from others
FORMAT = 2  # PRAGMA user_version; raised when the tables change
PAGE_BYTES = 8192  # five vectors of 384 numbers a page; at SQLite's 4096, two, and a quarter of the file would be air
KEPT_CONNECTIONS = 8
COMPACTED = "changes_compacted"
"""Under this name `meta` keeps the number of the last change that was forgotten."""
LARGEST_STEP = 2**32  # between two states: 64 bits hold four thousand million of them, and two stores share none

SCHEMA = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL, checksum INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE documents(
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    digest TEXT NOT NULL,
    title TEXT NOT NULL,
    source TEXT NOT NULL,
    fields TEXT NOT NULL,  -- JSON: what the user gave, in order
    checksum INTEGER NOT NULL,
    text_checksum INTEGER NOT NULL,
    text TEXT NOT NULL     -- last, so that reading the others never touches its pages
);
CREATE TABLE fields(       -- again, for conditions; `check` compares them with the documents' own
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
    part TEXT NOT NULL,    -- '' its text, title, or a field's name, with the place in a list: asks[2]
    start INTEGER NOT NULL,
    "end" INTEGER NOT NULL,
    digest TEXT NOT NULL,
    checksum INTEGER NOT NULL
);
CREATE INDEX passages_by_document ON passages(document, number);
CREATE TABLE views(
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,      -- vector or tokens
    model TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    dimension INTEGER NOT NULL,
    settings TEXT NOT NULL,  -- JSON
    complete INTEGER NOT NULL,
    checksum INTEGER NOT NULL
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
CREATE TABLE tokens(         -- as vectors, in a table of its own: a row is some hundred times as large
    passage INTEGER NOT NULL REFERENCES passages ON DELETE CASCADE,
    view INTEGER NOT NULL REFERENCES views,
    dropped INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    vector BLOB NOT NULL,  -- the passage's token vectors, as twinrank.quantization writes them
    UNIQUE(passage, view)
);
CREATE INDEX tokens_truncated ON tokens(view, dropped) WHERE dropped > 0;
CREATE TABLE changes(
    sequence INTEGER PRIMARY KEY,
    passage INTEGER NOT NULL,
    kind TEXT NOT NULL,    -- add, remove, or commit: the end of a transaction, whose number is a state's name
    checksum INTEGER NOT NULL
);
"""


class Database:
    """One SQLite file; may be used from several threads, and by several processes."""

    def __init__(self, folder: Path, *, timeout: float = 10.0) -> None:
        """Use `open`. `timeout` is how long, in seconds, a writer waits for another one."""
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
    def open(cls, folder: str | Path, *, create: bool = True, timeout: float = 10.0) -> Self:
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
        """Make the database under another name and put it in place whole: a crash leaves a collection or none."""
        make_folder(self.folder)
        refuse_without_locks(self.folder)
        try:
            with FileLock(self.folder / CREATING, timeout=self.timeout):
                if not self.path.exists() or self.path.stat().st_size == 0:  # another process may have been faster
                    self._put_in_place()
        except Timeout as error:
            raise CollectionBusyError(f"another process is creating {self.folder}; try again when it has finished") from error
        except OSError as error:
            raise StorageError(f"{self.path} could not be created: {error.strerror}") from error

    def _put_in_place(self) -> None:
        made = self.path.with_name(f"{FILE_NAME}.new")
        for leftover in (made, made.with_name(f"{made.name}-wal"), made.with_name(f"{made.name}-shm")):
            leftover.unlink(missing_ok=True)
        with self._translated():
            connection = sqlite3.connect(made, isolation_level=None)
            try:
                connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
                connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
                if connection.execute("PRAGMA journal_mode=WAL").fetchone()[0] != "wal":  # a failing write is not told
                    raise StorageError(f"{self.path} could not be created: the disk is full, or cannot be written")
                connection.execute("PRAGMA synchronous=FULL")
                connection.execute("BEGIN")
                for statement in SCHEMA.split(";\n"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version={FORMAT}")
                connection.execute("COMMIT")
                if connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                    raise StorageError(f"{self.path} could not be created: its log cannot be folded in")
            finally:
                connection.close()
        made.replace(self.path)
        for folder in (self.folder, self.folder.resolve().parent):
            sync(folder)

    def _open_existing(self, create: bool) -> None:
        self._mode = self._find_mode()
        if self._mode == "rw":
            refuse_without_locks(self.folder)
        if create and self.path.stat().st_size == 0:
            self._create()
        with self._reading() as connection:
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            version = connection.execute("PRAGMA user_version").fetchone()[0]
        if application != APPLICATION_ID:
            raise CollectionError(f"{self.path} is a database of another program, not a collection; choose another folder")
        if version > FORMAT:
            raise CollectionError(
                f"{self.path} was written by a newer twinrank: its format is {version}, this one reads up to {FORMAT}; "
                "upgrade twinrank"
            )
        if version < FORMAT:
            raise CollectionError(
                f"{self.path} was written by an older twinrank: its format is {version}, this one reads {FORMAT}; "
                "index its documents again, into a new folder"
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
            connection.execute("PRAGMA cell_size_check=ON")  # a damaged page is told where it is read, rather than believed
            connection.create_function("is_like", 2, is_like, deterministic=True)
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
    def _writing(self, *, names_state: bool = True) -> Iterator[sqlite3.Connection]:
        """One transaction: all of what is inside, or nothing. What changes nothing that is searched names no state."""
        if self._mode != "rw":
            raise CollectionReadOnlyError(f"{self.folder} cannot be changed: no permission to write; searching works")
        if not self._write_lock.acquire(timeout=self.timeout):
            raise CollectionBusyError(f"another thread is writing to {self.folder}; try again when it has finished")
        try:
            with self._translated(), self._borrow() as connection:
                connection.execute("BEGIN IMMEDIATE")
                try:
                    before = connection.total_changes
                    yield connection
                    if names_state and connection.total_changes > before:
                        _name_state(connection)
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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_pool_lock") and not self.closed and self._process == os.getpid():
            self.close()

    # Small things by name

    def get_meta(self, key: str) -> str | None:
        with self._reading() as connection:
            return get_value(connection, key)

    def set_meta(self, key: str, value: str) -> None:
        with self._writing() as connection:
            set_value(connection, key, value)

    # Upkeep

    def size(self) -> int:
        """Bytes on disk."""
        return sum(path.stat().st_size for path in (self.path, self._beside("-wal"), self._beside("-shm")) if path.exists())

    def free(self) -> int:
        """Bytes of the file that hold nothing: what comes next is put there, and `Store.tidy` gives back what is too much."""
        with self._reading() as connection:
            return int(connection.execute("PRAGMA freelist_count").fetchone()[0]) * PAGE_BYTES

    def copy_to(self, file: Path) -> None:
        """Write the state as it is now into a new SQLite file, without what was deleted; others may write meanwhile."""
        with self._translated(), self._borrow() as connection:
            connection.execute("VACUUM INTO ?", (str(file),))
        copy = sqlite3.connect(file)
        copy.execute("PRAGMA journal_mode=WAL")
        copy.close()

    def compact(self) -> None:
        """Give the space of what was deleted back to the file system."""
        if self._mode != "rw":
            raise CollectionReadOnlyError(f"{self.folder} cannot be changed: no permission to write")
        with self._write_lock, self._translated(), self._borrow() as connection:
            connection.executescript("PRAGMA incremental_vacuum")  # `execute` would free one page only
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def sequence_of(connection: sqlite3.Connection) -> int:
    """The number of the latest change; 0 before the first."""
    found = connection.execute("SELECT max(sequence) FROM changes").fetchone()[0]
    return int(found or get_value(connection, COMPACTED) or 0)


def add_changes(connection: sqlite3.Connection, changes: Iterable[tuple[int, str]]) -> None:
    """Write changes (passage key, kind) behind the others."""
    rows = enumerate(changes, start=sequence_of(connection) + 1)
    connection.executemany(
        "INSERT INTO changes VALUES (?, ?, ?, ?)",
        ((number, key, kind, checksum(number, key, kind)) for number, (key, kind) in rows),
    )


def _name_state(connection: sqlite3.Connection) -> None:
    """End the transaction's changes with a number that no other state has, in this store or any other.

    A random step makes it so: an index of another collection, or of a future that a restored copy does not share, carries
    a number that this store's log does not hold, and is told from its own by that.
    """
    number = sequence_of(connection) + 1 + secrets.randbelow(LARGEST_STEP)
    connection.execute("INSERT INTO changes VALUES (?, 0, 'commit', ?)", (number, checksum(number, 0, "commit")))
    given = dict(connection.execute("SELECT name, seq FROM sqlite_sequence").fetchall())
    set_value(connection, LAST_KEYS, keys_line(given))


def make_folder(folder: Path) -> None:
    """Make the folder of a collection where it is not there; raises CollectionError where none can be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except PermissionError as error:
        raise CollectionReadOnlyError(f"a collection cannot be created at {folder}: no permission to write") from error
    except OSError as error:
        raise CollectionError(f"a collection cannot be created at {folder}: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise CollectionReadOnlyError(f"a collection cannot be created at {folder}: no permission to write")


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
