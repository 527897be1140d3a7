"""The tables of a collection in PostgreSQL: how they are laid out, and how rows get into them and out again."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from psycopg import errors, sql

from twinrank.errors import EngineError
from twinrank.index.engines.address import Address
from twinrank.index.engines.postgresql_filters import fields_as_json, fields_from_json, given_text, kept_text
from twinrank.index.engines.postgresql_session import Connection
from twinrank.index.engines.protocol import Layout, Row
from twinrank.index.settings import LEAST
from twinrank.types import Vectors

MOST_INDEXED, MOST_INDEXED_HALF = 2000, 4000
"""Dimensions that pgvector's indexes take, in 32-bit and in 16-bit numbers."""

MOST_INLINE = 1498
"""Dimensions of a vector that is kept within its row, where a scan finds it at once: 6,000 bytes of a page of 8,192."""

QUICKLY_SCANNED = 8_000_000
"""Up to so many numbers (20,800 vectors of 384) `auto` makes no index: a scan finds everything, in about 30 ms of a core."""

IVF_GROWTH = 4
"""The lists of ivf are made anew when there are so many times as many rows as when they were made."""

LONGEST_TERM = 1000
"""Bytes of a term that is kept as it is; PostgreSQL's indexes take 2,704."""

BOUNDS = {
    "m": (2, 100),
    "ef_construction": (4, 1000),
    "ef_search": (1, 1000),
    "nlist": (1, 32_768),
    "nprobe": (1, 32_768),
}
"""Of pgvector's parameters: https://github.com/pgvector/pgvector#hnsw"""


@dataclass(frozen=True)
class Plan:
    """What a collection holds, and how its vectors are found; kept in its table of state."""

    dimension: int
    words: bool
    kind: str
    """exact, hnsw or ivf."""
    least: int
    """Passages from which on there is an index."""
    half: bool
    """Whether the index is of 16-bit numbers; the vectors themselves never are."""
    lists: int
    """Of ivf; 0: by the number of rows."""
    probes: int
    """Of ivf; 0: an eighth of the lists, at least 16."""
    m: int
    ef_construction: int
    ef_search: int

    @classmethod
    def of(cls, layout: Layout, half: bool, address: Address) -> Plan:
        """Raises EngineError where pgvector has no such index."""
        settings, dimension = layout.index, layout.dimension
        kind, least = settings.kind, LEAST
        if kind == "auto":
            kind = "hnsw" if dimension <= MOST_INDEXED_HALF else "exact"
            least = max(LEAST, QUICKLY_SCANNED // max(dimension, 1))
        if not dimension:
            kind = "exact"
        if kind not in ("exact", "hnsw", "ivf"):
            raise EngineError(f"{address}: pgvector has no index of kind {kind!r}; it has exact, hnsw and ivf")
        if kind != "exact" and dimension > MOST_INDEXED_HALF:
            raise EngineError(
                f"{address}: pgvector indexes vectors of up to {MOST_INDEXED_HALF:,} dimensions, and these have {dimension:,}; "
                "they can be searched exactly, as kind auto or exact"
            )
        for name, (low, high) in BOUNDS.items():
            if (value := getattr(settings, name)) and not low <= value <= high:
                raise EngineError(f"{address}: {name} is {value:,}; pgvector takes {low} to {high:,}")
        m = settings.m or 16
        width = settings.ef_construction or max(64, 2 * m)
        if width < 2 * m:
            raise EngineError(f"{address}: ef_construction is {width}; pgvector takes no less than 2 m, which is {2 * m}")
        half = kind != "exact" and (half or dimension > MOST_INDEXED)
        ef_search = settings.ef_search or 100
        return cls(dimension, layout.words, kind, least, half, settings.nlist, settings.nprobe, m, width, ef_search)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        return cls(**json.loads(text))

    def indexed(self, vector: sql.Composable) -> sql.Composable:
        """A vector in the form that is indexed."""
        return sql.SQL("({}::halfvec({}))").format(vector, sql.Literal(self.dimension)) if self.half else vector

    def lists_for(self, rows: int) -> int:
        """pgvector advises a thousandth of the rows, beyond a million their square root; of few rows the root too."""
        return self.lists or min(BOUNDS["nlist"][1], max(1, round(max(min(rows / 1000, 1000), rows**0.5))))

    def wants_index(self, rows: int, indexed: int) -> bool:
        """`indexed`: of how many rows the index was made; 0: there is none."""
        if self.kind == "exact" or rows < self.least:
            return False
        return not indexed or (self.kind == "ivf" and rows >= IVF_GROWTH * indexed)

    @property
    def columns(self) -> list[tuple[str, str, str]]:
        """(name, type, type of what is sent) of the columns of a row, as `sent` gives their values."""
        columns = [
            ("key", "bigint", "int8"),
            ("number", "int", "int4"),
            ("length", "int", "int4"),
            ("document", "text", "text"),
            ("fields", "jsonb", "bytea"),
            ("payload", "text", "text"),
        ]
        if self.words:
            columns += [("terms", "text[]", "text[]"), ("times", "int[]", "int4[]")]
        return [*columns, ("vector", f"vector({self.dimension})", "bytea")] if self.dimension else columns


class Tables:
    """The tables of one collection, changed through connections that are in a transaction."""

    def __init__(self, address: Address, schema: str) -> None:
        self.address = address
        self.schema = schema
        self._index = f"{address.name}_near"
        self._parts = {part: sql.Identifier(schema, f"{address.name}_{part}") for part in ("rows", "words", "meta", "state")}

    def sql(self, query: str, **parts: sql.Composable) -> sql.Composed:
        """A query of ours with the names of the tables in it: {rows}, {words}, {meta}, {state}."""
        return sql.SQL(query).format(**self._parts, **parts)

    @property
    def names(self) -> list[str]:
        """Of the tables, quoted."""
        return [part.as_string() for part in self._parts.values()]

    @property
    def state(self) -> str:
        return str(self._parts["state"].as_string())

    def create(self, connection: Connection, plan: Plan) -> None:
        # Whoever else makes one right now waits: where two do so at once, IF NOT EXISTS alone may fail.
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('twinrank', 0))")
        if _value(connection, "SELECT to_regclass(%s)", self.state) is not None:
            return
        if (encoding := connection.info.parameter_status("server_encoding")) != "UTF8":
            raise EngineError(f"{self.address}: the database's texts are in {encoding}; one of UTF8 is needed")
        if plan.dimension:
            self._require_pgvector(connection)
        if _value(connection, "SELECT to_regnamespace(quote_ident(%s))", self.schema) is None:
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(self.schema)))
        for query in TABLES + (WORDS if plan.words else ()) + (VECTORS if plan.dimension else ()):
            connection.execute(self.sql(query, dimension=sql.Literal(plan.dimension)))
        if 0 < plan.dimension <= MOST_INLINE:
            connection.execute(self.sql("ALTER TABLE {rows} ALTER vector SET STORAGE PLAIN"))
        connection.execute(self.sql("INSERT INTO {state} (plan) VALUES (%s)"), [json.dumps(asdict(plan))])

    def drop(self, connection: Connection) -> None:
        connection.execute(self.sql("DROP TABLE IF EXISTS {rows}, {words}, {meta}, {state}"))

    def put(self, connection: Connection, plan: Plan, sent: Sequence[tuple[Any, ...]]) -> tuple[int, int]:
        """Rows, as `sent` makes them, in the place of those with the same keys.

        Returns how many passages there are now, and of how many the index of vectors was made.
        """
        declared = sql.SQL(", ").join([sql.SQL(f"{name} {kind}") for name, kind, _ in plan.columns])
        connection.execute(sql.SQL("CREATE TEMP TABLE staged ({}) ON COMMIT DROP").format(declared))
        with connection.cursor().copy("COPY staged FROM STDIN (FORMAT binary)") as copy:
            copy.set_types([kind for _, _, kind in plan.columns])
            for row in sent:
                copy.write_row(row)
        # By their keys, so that two who write the same rows wait for one another instead of each for the other.
        keys = [row[0] for row in sent]
        connection.execute(self.sql(LOCK), [keys])
        removed = self._remove(connection, plan, keys)
        kept = sql.SQL(", ").join([sql.Identifier(name) for name, _, _ in plan.columns if name != "times"])
        connection.execute(self.sql("INSERT INTO {rows} ({kept}) SELECT {kept} FROM staged ORDER BY key", kept=kept))
        if plan.words:
            connection.execute(self.sql(PUT_WORDS))
        added = (len(sent), sum(row[1] == 0 for row in sent), sum(row[2] for row in sent))
        return self._tell(connection, [new - old for new, old in zip(added, removed, strict=True)])

    def delete(self, connection: Connection, plan: Plan, keys: Sequence[int]) -> None:
        self._tell(connection, [-gone for gone in self._remove(connection, plan, keys)])

    def index_vectors(self, connection: Connection, plan: Plan, memory: str | None) -> None:
        """Make the index, in the place of one that is there. Reading goes on meanwhile, writing waits."""
        if not _value(connection, "SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 1))", self.state):
            return  # someone else is at it
        passages, indexed = connection.execute(self.sql("SELECT passages, indexed FROM {state}")).fetchone()
        if not plan.wants_index(passages, indexed):
            return
        if memory:
            connection.execute("SELECT set_config('maintenance_work_mem', %s, true)", [memory])
        lists = plan.lists_for(passages) if plan.kind == "ivf" else 0
        how = sql.SQL(f"USING ivfflat ({{}} {{}}) WITH (lists = {lists})")
        if plan.kind == "hnsw":
            how = sql.SQL(f"USING hnsw ({{}} {{}}) WITH (m = {plan.m}, ef_construction = {plan.ef_construction})")
        operators = sql.SQL("halfvec_ip_ops" if plan.half else "vector_ip_ops")
        old, new = sql.Identifier(self.schema, self._index), sql.Identifier(self.schema, f"{self._index}_")
        parts = {"name": sql.Identifier(self._index), "old": old, "new": new, "made": sql.Identifier(f"{self._index}_")}
        how = how.format(plan.indexed(sql.Identifier("vector")), operators)
        connection.execute(self.sql("CREATE INDEX {made} ON {rows} {how}", how=how, **parts))
        connection.execute(self.sql("DROP INDEX IF EXISTS {old}", **parts))
        connection.execute(self.sql("ALTER INDEX {new} RENAME TO {name}", **parts))
        connection.execute(self.sql("ANALYZE {rows}"))  # so that a condition which few rows meet is known for one at once
        connection.execute(self.sql("UPDATE {state} SET indexed = %s, lists = %s"), [passages, lists])

    def _remove(self, connection: Connection, plan: Plan, keys: Sequence[int]) -> tuple[int, int, int]:
        """Rows with their words; returns how many passages, documents and terms have gone."""
        query = self.sql(REMOVE_ALL if plan.words else REMOVE)
        removed: tuple[int, int, int] = connection.execute(query, [list(keys)]).fetchone()
        return removed

    def _tell(self, connection: Connection, more: Sequence[int]) -> tuple[int, int]:
        """Keep count. The last step of a transaction: from here to its end all others who write wait."""
        told: tuple[int, int] = connection.execute(self.sql(COUNT), list(more)).fetchone()
        return told

    def _require_pgvector(self, connection: Connection) -> None:
        try:
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        except (errors.InsufficientPrivilege, errors.FeatureNotSupported, errors.UndefinedFile) as error:
            raise EngineError(
                f"{self.address}: the database has no pgvector, and it could not be put there ({error.diag.message_primary}); "
                "install it, https://github.com/pgvector/pgvector, and let an administrator run CREATE EXTENSION vector"
            ) from error
        version = str(_value(connection, "SELECT extversion FROM pg_extension WHERE extname = 'vector'"))
        if tuple(int(part) for part in version.split(".")[:2]) < (0, 8):
            raise EngineError(
                f"{self.address}: pgvector is {version}, which loses passages where a condition is given; install 0.8 or newer "
                "and run ALTER EXTENSION vector UPDATE"
            )


def _value(connection: Connection, query: str, *values: object) -> Any:
    return connection.execute(query, list(values)).fetchone()[0]


TABLES = (
    # Texts are compared letter by letter, whatever the database's locale. A hash takes document ids of any length.
    """CREATE TABLE {rows} (
        key bigint PRIMARY KEY, number int NOT NULL, length int NOT NULL, document text COLLATE "C" NOT NULL,
        fields jsonb NOT NULL, payload text COLLATE "C" NOT NULL)""",
    "CREATE INDEX ON {rows} USING hash (document)",
    "CREATE INDEX ON {rows} USING gin (fields jsonb_path_ops)",
    'CREATE TABLE {meta} (name text COLLATE "C" PRIMARY KEY, value text COLLATE "C" NOT NULL)',
    """CREATE TABLE {state} (
        plan json NOT NULL, passages bigint NOT NULL DEFAULT 0, documents bigint NOT NULL DEFAULT 0,
        tokens bigint NOT NULL DEFAULT 0, indexed bigint NOT NULL DEFAULT 0, lists int NOT NULL DEFAULT 0)""",
)
WORDS = (
    'ALTER TABLE {rows} ADD terms text[] COLLATE "C"',
    # All that BM25 needs of a posting is in the index itself.
    """CREATE TABLE {words} (
        key bigint NOT NULL, times int NOT NULL, length int NOT NULL, term text COLLATE "C" NOT NULL,
        PRIMARY KEY (term, key) INCLUDE (times, length))""",
)
VECTORS = ("ALTER TABLE {rows} ADD vector vector({dimension})",)

LOCK = "SELECT count(*) FROM (SELECT FROM {rows} WHERE key = ANY(%s::bigint[]) ORDER BY key FOR UPDATE) AS r"
PUT_WORDS = """
    INSERT INTO {words} (key, times, length, term)
    SELECT s.key, t.times, s.length, t.term FROM staged s, unnest(s.terms, s.times) AS t (term, times) ORDER BY t.term, s.key"""
REMOVE = """
    WITH gone AS (DELETE FROM {rows} WHERE key = ANY(%s::bigint[]) RETURNING number, length)
    SELECT count(*), count(*) FILTER (WHERE number = 0), coalesce(sum(length), 0)::bigint FROM gone"""
REMOVE_ALL = """
    WITH gone AS (DELETE FROM {rows} WHERE key = ANY(%s::bigint[]) RETURNING key, number, length, terms),
         unsaid AS (DELETE FROM {words} w USING (SELECT key, unnest(terms) AS term FROM gone) g
                    WHERE w.term = g.term AND w.key = g.key)
    SELECT count(*), count(*) FILTER (WHERE number = 0), coalesce(sum(length), 0)::bigint FROM gone"""
COUNT = """
    UPDATE {state} SET passages = passages + %s, documents = documents + %s, tokens = tokens + %s RETURNING passages, indexed"""


# -- one row, sent and received -----------------------------------------------------------------------------------------------


def sent(row: Row, plan: Plan) -> tuple[Any, ...]:
    """A row as binary `COPY` takes it: jsonb is a 1 and the text, a vector its dimension, 0 and its numbers, big end first."""
    fields = b"\x01" + fields_as_json(row.fields).encode()
    values: tuple[Any, ...] = (row.key, row.number, len(row.terms), kept_text(row.document), fields, kept_text(row.payload))
    if plan.words:
        times = Counter(map(kept_term, row.terms))
        values += (list(times), list(times.values()))
    if plan.dimension:
        numbers = None if row.vector is None else np.asarray(row.vector, ">f4")
        values += (None if numbers is None else np.array([len(numbers), 0], ">u2").tobytes() + numbers.tobytes(),)
    return values


def received(record: Sequence[Any]) -> Row:
    """A row from (key, document, number, payload, fields as text) and, where it was asked for, the vector in binary."""
    key, document, number, payload, fields, *rest = record
    vector: Vectors | None = np.frombuffer(rest[0], ">f4", offset=4).astype(np.float32) if rest and rest[0] else None
    return Row(key, given_text(document), number, given_text(payload), fields_from_json(fields), (), vector)


def kept_term(term: str) -> str:
    """A term that an index takes: a very long one by its digest."""
    kept = kept_text(term)
    return kept if len(kept.encode()) <= LONGEST_TERM else f"\x01{hashlib.sha256(kept.encode()).hexdigest()}"
