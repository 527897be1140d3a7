"""Connections to PostgreSQL: opened from an address, kept for the next call, opened anew where the server went away."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import psycopg
from psycopg import errors

from twinrank.errors import CollectionError, EngineError
from twinrank.index.engines.address import NAME, Address
from twinrank.index.engines.retries import PATIENCE, persistent

T = TypeVar("T")

Connection: TypeAlias = Any  # psycopg.Connection[tuple[Any, ...]]

OF_LIBPQ = (
    "application_name",
    "channel_binding",
    "connect_timeout",
    "gssencmode",
    "host",
    "passfile",
    "service",
    "sslcert",
    "sslcrl",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "target_session_attrs",
)
"""Options that go to libpq as they are: https://www.postgresql.org/docs/current/libpq-connect.html"""

OF_OURS = ("bulk", "halfvec", "maintenance_work_mem", "schema", "timeout")

SECRETS = ("password", "sslpassword")

READING_SECONDS = 60.0
WRITING_SECONDS = 1800.0

USUAL = {"connect_timeout": "10", "application_name": "twinrank"}
ALIVE = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 60_000}
"""A server that vanished without a word is noticed within a minute."""

SETTINGS = """
    SELECT set_config('search_path', coalesce((SELECT quote_ident(n.nspname) FROM pg_extension e
                          JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'), 'public'), false),
           set_config('statement_timeout', %s, false),
           set_config('idle_in_transaction_session_timeout', '60s', false),
           set_config('jit', 'off', false),
           set_config('hnsw.iterative_scan', 'relaxed_order', false),
           set_config('ivfflat.iterative_scan', 'relaxed_order', false)"""

PASSING = ("08", "40", "55P03", "57P", "53300", "23505")
"""Beginnings of SQLSTATE that are worth another try: connections, serialization and deadlocks, locks, a server that goes down
or comes up, too many clients; and a key that another transaction put in meanwhile."""

COMING = (
    "starting up",
    "shutting down",
    "recovery mode",
    "not yet accepting",
    "too many clients",
    "remaining connection slots",
)


class Sessions:
    """Connections for any number of threads; those that are idle wait for the next call."""

    def __init__(self, address: Address) -> None:
        if any(name in address.options for name in SECRETS):
            # Without the address, which would show it.
            raise CollectionError(
                "an address of PostgreSQL has its password before the @, or better in PGPASSWORD or ~/.pgpass; it is no option"
            )
        address.check_options((*OF_LIBPQ, *OF_OURS))
        self.address = address
        self.schema = address.options.get("schema", "twinrank")
        if not NAME.fullmatch(self.schema):
            raise CollectionError(f"{address}: schema is {self.schema!r}; a letter, then letters, digits and _ were expected")
        try:
            self.reading_seconds = float(address.options.get("timeout", READING_SECONDS))
            if not 0 < self.reading_seconds < 1e6:
                raise ValueError
        except ValueError:
            raise CollectionError(f"{address}: timeout is {address.options['timeout']!r}; seconds were expected") from None
        self.patience = PATIENCE
        self._idle: list[tuple[int, Connection]] = []  # with the process that opened it
        self._parents: list[tuple[int, Connection]] = []
        self._lock = threading.Lock()
        weakref.finalize(self, _close, self._idle)  # where nobody closes

    def run(self, doing: str, work: Callable[[Connection], T]) -> T:
        """What `work` gives with a connection in autocommit, tried again while what goes wrong passes; raises EngineError."""
        return persistent(lambda: self._try(work), is_transient, self.address, doing, self.patience)

    def write(self, doing: str, work: Callable[[Connection], T], seconds: float = WRITING_SECONDS) -> T:
        """The same in one transaction, which is done whole or not at all. No seconds: as long as it takes."""

        def whole(connection: Connection) -> T:
            with connection.transaction():
                connection.execute("SELECT set_config('statement_timeout', %s, true)", [f"{seconds * 1000:.0f}"])
                return work(connection)

        return self.run(doing, whole)

    def close(self) -> None:
        with self._lock:
            _close(self._idle)

    def _try(self, work: Callable[[Connection], T]) -> T:
        connection = self._take()
        try:
            result = work(connection)
        except BaseException as error:
            connection.close()
            if isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
                self.close()  # the others have most likely lost the same server
            if isinstance(error, (errors.UndefinedTable, errors.InvalidSchemaName)):
                raise EngineError(f"{self.address}: there is no such collection") from None
            if isinstance(error, errors.QueryCanceled):
                raise EngineError(
                    f"{self.address}: the server stopped it ({error.diag.message_primary}); searches get "
                    f"{self.reading_seconds:g} seconds, and more by ?timeout=SECONDS at the end of the address"
                ) from error
            raise
        with self._lock:
            self._idle.append((os.getpid(), connection))
        return result

    def _take(self) -> Connection:
        with self._lock:
            while self._idle:
                process, connection = self._idle.pop()
                if process == os.getpid():
                    return connection
                # A child of a fork must neither use nor close its parent's connections.
                self._parents.append((process, connection))
        return self._connect()

    def _connect(self) -> Connection:
        place = self.address
        given = {"host": place.host, "port": place.port, "user": place.user, "password": place.password}
        given["dbname"] = place.path.strip("/")
        options = {name: value for name, value in place.options.items() if name in OF_LIBPQ}
        # What is not given is left to libpq: PGHOST, PGUSER, PGPASSWORD, ~/.pgpass…
        wanted = {name: value for name, value in given.items() if value} | USUAL | ALIVE | options
        connection: Connection = psycopg.connect(**wanted, client_encoding="utf8", autocommit=True, prepare_threshold=None)
        try:
            connection.execute(SETTINGS, [f"{self.reading_seconds * 1000:.0f}"])
        except BaseException:
            connection.close()
            raise
        return connection


def _close(connections: list[tuple[int, Connection]]) -> None:
    while connections:
        process, connection = connections.pop()
        if process == os.getpid():
            connection.close()


def is_transient(error: Exception) -> bool:
    """Whether the same call may well succeed in a moment."""
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate is not None:
        return bool(error.sqlstate.startswith(PASSING))
    # Without a state: no connection. A server that answers with FATAL refuses for good, unless it says that it is on its way.
    lost = isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
    return lost and ("FATAL" not in str(error) or any(phrase in str(error) for phrase in COMING))
