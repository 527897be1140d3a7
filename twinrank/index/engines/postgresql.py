"""PostgreSQL with pgvector, as postgresql://user:password@host:port/database/NAME: rows, vectors and words in its tables.

A password is better given by PGPASSWORD or ~/.pgpass than in the address; whatever the address leaves out is libpq's usual
(PGHOST, PGUSER, …). A collection is the tables NAME_rows, NAME_words, NAME_meta and NAME_state in a schema of ours.

Options after `?`, and those of libpq such as `sslmode` and `host`:

- `schema`: another one than `twinrank`;
- `timeout`: seconds that a search may take, 60;
- `halfvec=yes`, of a new collection: its index has 16-bit numbers and half the size; scores stay those of the vectors;
- `bulk=yes`, to load a large collection: vectors are indexed at the end of `add` and not on the way, which takes a quarter of
  the time where the index fits into `maintenance_work_mem`; until then they are scanned;
- `maintenance_work_mem`, such as 2GB: memory to build an index of vectors in; the server's own where nothing is said.

Words are ranked by BM25 over a table of postings, by the numbers and lengths of all passages as they are at that moment. Scores
are those of the embedded index, but for passages above 40 words, whose lengths that keeps roughly and this exactly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
from psycopg import sql

from twinrank.errors import CollectionError
from twinrank.index.engines.address import Address
from twinrank.index.engines.postgresql_filters import Filter, filter_of, given_text, kept_text
from twinrank.index.engines.postgresql_session import Connection, Sessions
from twinrank.index.engines.postgresql_tables import BOUNDS, Plan, Tables, kept_term, received, sent
from twinrank.index.engines.protocol import Layout, Limits, Row
from twinrank.types import Condition, Keys, Ranking, Vectors

K1, B = 1.2, 0.75

ROWS_AT_ONCE = 5000
"""Written in one transaction."""

ROWS_A_PAGE = 1000
"""Read by one query where all are."""

WIDER = {"hnsw": 4, "ivf": 10}
"""So many times as many passages are taken from the index where a condition is given. Of 100,000 vectors of which 100 passed
it found 0.86 of the ten best by hnsw without, and all with it."""

# A repeated word of a query counts as often, and one that no passage holds counts in the bound. All numbers are said to be
# float8, since SQL's own decimals take three times as long; OFFSET 0 has each word weighed once and not once a posting.
WEIGHTS = f"""
    SELECT a.term, a.times * ln(1 + (passages - holding + 0.5::float8) / (holding + 0.5::float8)) * {K1 + 1}::float8 AS weight,
           {K1 * (1 - B)}::float8 AS least, {K1 * B}::float8 * passages / greatest(tokens, 1) AS a_term
    FROM unnest(%s::text[], %s::float8[]) AS a (term, times),
         (SELECT passages::float8, tokens FROM {{state}} LIMIT 1) AS s,
         LATERAL (SELECT count(*) AS holding FROM {{words}} AS w WHERE w.term = a.term) AS h OFFSET 0"""


class PostgreSQLEngine:
    """Tables of one collection, asked by SQL."""

    title: ClassVar[str] = "PostgreSQL"
    proven: ClassVar[str] = "live against PostgreSQL 18.6 with pgvector 0.8.6"
    limits: ClassVar[Limits] = Limits(payload=2**28, document=2**16, k=2**31 - 1, dimension=16_000, fields=2**27)

    def __init__(self, address: Address) -> None:
        self.address = address
        self._sessions = Sessions(address)
        self._tables = Tables(address, self._sessions.schema)
        self._known: Plan | None = None
        self._due: int | None = None  # passages to be indexed on closing
        self._half, self._bulk = self._said("halfvec"), self._said("bulk")

    def _said(self, option: str) -> bool:
        if (said := self.address.options.get(option, "no")) not in ("yes", "no"):
            raise CollectionError(f"{self.address}: {option} is {said!r}; yes or no was expected")
        return said == "yes"

    @property
    def words(self) -> bool:
        return self._plan.words

    @property
    def _plan(self) -> Plan:
        if self._known is None:
            self._known = Plan.from_json(self._all("looking up its layout", "SELECT plan::text FROM {state}")[0][0])
        return self._known

    # -- the collection ----------------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        found = self._all("asking whether it is there", "SELECT to_regclass(%s) IS NOT NULL", self._tables.state)
        return bool(found[0][0])

    def create(self, layout: Layout) -> None:
        plan = Plan.of(layout, self._half, self.address)
        self._sessions.write("making the collection", lambda connection: self._tables.create(connection, plan))
        self._known = None

    def drop(self) -> None:
        self._sessions.write("dropping the collection", self._tables.drop)
        self._known = self._due = None

    def describe(self) -> dict[str, str]:
        size = "SELECT pg_size_pretty(sum(pg_total_relation_size(to_regclass(part)))) FROM unnest(%s::text[]) AS part"
        query = f"""SELECT current_setting('server_version'), (SELECT extversion FROM pg_extension WHERE extname = 'vector'),
                           ({size}), indexed, lists FROM {{state}}"""
        version, extension, size, indexed, lists = self._all("describing it", query, self._tables.names)[0]
        told = {"server": f"PostgreSQL {version}", "pgvector": extension or "none", "size": size}
        plan = self._plan
        if not plan.dimension:
            return told
        index = plan.kind
        if plan.kind != "exact" and not indexed:
            index = f"exact; {plan.kind} from {plan.least:,} passages on"
        elif plan.kind == "hnsw":
            index = f"hnsw, m {plan.m}, ef_construction {plan.ef_construction}, ef_search {plan.ef_search}"
        elif plan.kind == "ivf":
            index = f"ivf, {lists:,} lists, of which {plan.probes or 'the larger of 16 and an eighth'} are probed"
        return told | {"index": f"{index}, 16-bit" if plan.half and indexed else index}

    def get_meta(self, name: str) -> str | None:
        found = self._all("reading meta", "SELECT value FROM {meta} WHERE name = %s", kept_text(name))
        return given_text(found[0][0]) if found else None

    def set_meta(self, name: str, value: str) -> None:
        query = "INSERT INTO {meta} VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
        kept = [kept_text(name), kept_text(value)]
        self._sessions.write("writing meta", lambda connection: connection.execute(self._tables.sql(query), kept))

    def settle(self) -> None:
        if self._due is not None:
            self._index(self._due)

    def close(self) -> None:
        try:
            self.settle()
        finally:
            self._sessions.close()

    # -- rows --------------------------------------------------------------------------------------------------------------

    def upsert(self, rows: Sequence[Row]) -> None:
        """Every 5,000 rows are one transaction, which is done whole or not at all."""
        plan, last = self._plan, list({row.key: row for row in rows}.values())
        for start in range(0, len(last), ROWS_AT_ONCE):
            some = [sent(row, plan) for row in last[start : start + ROWS_AT_ONCE]]
            passages, indexed = self._sessions.write(
                f"writing {len(some):,} rows", partial(self._tables.put, plan=plan, sent=some)
            )
            if plan.wants_index(passages, indexed):
                self._due = passages
                if not self._bulk:
                    self._index(passages)

    def delete(self, keys: Keys) -> None:
        for start in range(0, len(keys), ROWS_AT_ONCE):
            some = keys[start : start + ROWS_AT_ONCE].tolist()
            self._sessions.write(f"deleting {len(some):,} rows", partial(self._tables.delete, plan=self._plan, keys=some))

    def fetch(self, keys: Keys, *, vectors: bool = False) -> dict[int, Row]:
        found = self._rows("fetching rows", "WHERE key = ANY(%s::bigint[])", keys.tolist(), vectors=vectors)
        return {row.key: row for row in found}

    def rows_of(self, documents: Sequence[str], *, vectors: bool = False) -> list[Row]:
        wanted = [kept_text(document) for document in documents]
        return self._rows("fetching documents", "WHERE document = ANY(%s::text[])", wanted, vectors=vectors)

    def count(self, where: Condition | None = None, *, documents: bool = False) -> int:
        if where is None:
            return int(self._all("counting", f"SELECT {'documents' if documents else 'passages'} FROM {{state}}")[0][0])
        condition = _filter(where)
        query = f"SELECT count(*) FROM {{rows}} WHERE {{where}}{' AND number = 0' if documents else ''}"
        return int(self._all("counting", query, *condition.values, where=condition.query)[0][0])

    def iterate(self, where: Condition | None = None, *, documents: bool = False, vectors: bool = False) -> Iterator[list[Row]]:
        condition, last = _filter(where), 0
        tail = f"WHERE key > %s AND {{where}}{' AND number = 0' if documents else ''} ORDER BY key LIMIT {ROWS_A_PAGE}"
        while rows := self._rows("reading rows", tail, last, *condition.values, vectors=vectors, where=condition.query):
            yield rows
            last = rows[-1].key

    # -- searching ---------------------------------------------------------------------------------------------------------

    def exact(self, where: Condition) -> bool:
        return filter_of(where).exact

    def search_vectors(self, vector: Vectors, k: int, where: Condition | None = None, keys: Keys | None = None) -> Ranking:
        plan, condition = self._plan, _filter(where)
        if not plan.dimension:
            return Ranking.empty()
        asked = f"[{','.join(map(repr, np.asarray(vector, np.float32).tolist()))}]"
        if plan.kind != "exact" and keys is None:
            # The index is looked through from the nearest part on: where few pass, the first k to do so are not yet the best.
            first = WIDER[plan.kind] * k if where is not None else (2 * k if plan.half else k)
            found = self._search_index(plan, asked, first, condition)
            if len(found) == first:
                return found.top(k)
            # Fewer: either there are no more, or the server gave the index up after its 20,000 rows. A scan knows.
        among, chosen = _among(keys, "key")
        # Ordered by the score and not by pgvector's operator, so that no index is asked.
        query = f"""SELECT key, - (vector <#> %s::vector) AS score FROM {{rows}}
                    WHERE vector IS NOT NULL AND {among} AND {{where}} ORDER BY score DESC, key DESC LIMIT %s"""
        given = [asked, *chosen, *condition.values, k]
        return _ranking(self._all("searching vectors", query, *given, where=condition.query))

    def search_words(self, terms: Sequence[str], k: int, where: Condition | None = None, keys: Keys | None = None) -> Ranking:
        condition, (among, chosen) = _filter(where), _among(keys, "w.key")
        passing = "true" if where is None else "w.key IN (SELECT key FROM {rows} WHERE {where})"
        # One statement, which sees one state of all tables; OFFSET 0 has the postings of each word looked up by themselves.
        query = f"""
            SELECT key, sum(weight * (times / (times + least + a_term * length))) AS score
            FROM ({WEIGHTS}) AS a, LATERAL (
                SELECT key, times, length FROM {{words}} AS w WHERE w.term = a.term AND {among} AND {passing} OFFSET 0) AS w
            GROUP BY key ORDER BY score DESC, key DESC LIMIT %s"""
        given = [*_asked(terms), *chosen, *condition.values, k]
        return _ranking(self._all("searching words", query, *given, where=condition.query))

    def words_bound(self, terms: Sequence[str]) -> float | None:
        query = f"SELECT coalesce(sum(weight), 0) FROM ({WEIGHTS}) AS a"
        return float(self._all("weighing words", query, *_asked(terms))[0][0])

    # -- the steps ---------------------------------------------------------------------------------------------------------

    def _index(self, passages: int) -> None:
        memory = self.address.options.get("maintenance_work_mem")
        make = partial(self._tables.index_vectors, plan=self._plan, memory=memory)
        self._sessions.write(f"indexing {passages:,} vectors", make, seconds=0)
        self._due = None

    def _search_index(self, plan: Plan, asked: str, k: int, condition: Filter) -> Ranking:
        """By the index, which is searched on until enough pass; then by the vectors themselves."""
        if plan.kind == "ivf":
            how = "set_config('ivfflat.probes', greatest(1, least(lists, coalesce(%s, greatest(16, lists / 8))))::text, false)"
            much = plan.probes or None
        else:
            how, much = "set_config('hnsw.ef_search', %s::text, false)", min(max(plan.ef_search, k), BOUNDS["ef_search"][1])
        query = self._tables.sql(
            """WITH near AS MATERIALIZED (
                   SELECT key, vector FROM {rows} WHERE vector IS NOT NULL AND {where} ORDER BY {indexed} <#> {asked} LIMIT %s)
               SELECT key, - (vector <#> %s::vector) AS score FROM near""",
            where=condition.query,
            indexed=plan.indexed(sql.Identifier("vector")),
            asked=plan.indexed(sql.SQL("%s::vector")),
        )
        given = [*condition.values, asked, k, asked]

        def search(connection: Connection) -> list[tuple[int, float]]:
            with connection.pipeline():
                connection.execute(self._tables.sql(f"SELECT {how} FROM {{state}}"), [much])
                cursor = connection.execute(query, given)
            found: list[tuple[int, float]] = cursor.fetchall()
            return found

        return _ranking(self._sessions.run("searching vectors", search))

    def _rows(self, doing: str, tail: str, *values: object, vectors: bool, **parts: sql.Composable) -> list[Row]:
        column = ", vector" if vectors and self._plan.dimension else ""
        query = f"SELECT key, document, number, payload, fields::text{column} FROM {{rows}} {tail}"
        return [received(record) for record in self._all(doing, query, *values, **parts)]

    def _all(self, doing: str, query: str, *values: object, **parts: sql.Composable) -> list[tuple[Any, ...]]:
        """All that a query of ours gives, in binary, so that numbers are not spelled out and read again."""
        said = self._tables.sql(query, **parts)
        return self._sessions.run(doing, lambda connection: connection.execute(said, values, binary=True).fetchall())


def _filter(where: Condition | None) -> Filter:
    """What holds for each row that is to pass, and maybe for others: `exact` tells."""
    found = None if where is None else filter_of(where).filter
    return Filter(sql.SQL("true")) if found is None else found


def _among(keys: Keys | None, column: str) -> tuple[str, list[object]]:
    return ("true", []) if keys is None else (f"{column} = ANY(%s::bigint[])", [keys.tolist()])


def _asked(terms: Sequence[str]) -> tuple[list[str], list[int]]:
    times = Counter(map(kept_term, terms))
    return list(times), list(times.values())


def _ranking(found: Sequence[tuple[int, float]]) -> Ranking:
    return Ranking.of([key for key, _ in found], [score for _, score in found])
