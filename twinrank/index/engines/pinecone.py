"""Pinecone, a service (pinecone:///INDEX/NAME), or Pinecone Local, its emulator (pinecone://localhost:5080/INDEX/NAME).

INDEX is a serverless index of dense vectors compared by dot product, made with the first collection in it, and may hold many:
each is a namespace, NAME, with a second one for meta, NAME-meta. `drop` empties both; the index stays. The key is the
environment variable PINECONE_API_KEY. Options of an address: cloud=aws and region=us-east-1 where the index is made, timeout.

Pinecone is eventually consistent: a read may not see a write just made. Each write to a namespace has a log sequence number,
and each query says up to which one it has read: before this object reads where it wrote, it waits, for at most FRESH seconds,
until a query has come as far. What others wrote is seen when Pinecone shows it.
https://docs.pinecone.io/guides/index-data/check-data-freshness

The client tries a call that fails for a moment four times by itself, and all of that is tried again here.

No words are searched: Pinecone's sparse vectors need document frequencies, which nobody counts here. Scores come from its own
index, which is approximate and has no parameters.
"""

from __future__ import annotations

import json
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property, partial
from typing import Any, ClassVar, TypeVar

import numpy as np
from pinecone import Pinecone
from pinecone.errors import ApiError, ConflictError, NotFoundError, PineconeConnectionError, PineconeTimeoutError

from twinrank.conditions import translate
from twinrank.errors import CollectionError, EngineError
from twinrank.index.engines.address import Address
from twinrank.index.engines.pieces import Record, Texts
from twinrank.index.engines.pinecone_language import Filter, PineconeLanguage, numbers_of, searchable
from twinrank.index.engines.protocol import Layout, Limits, Row
from twinrank.index.engines.retries import persistent
from twinrank.loopback import is_loopback
from twinrank.types import Condition, Keys, Ranking, Vectors

T = TypeVar("T")

KEY = "PINECONE_API_KEY"
TRANSIENT = (408, 429, 500, 502, 503, 504)

FRESH = 60.0
"""Seconds for which a read waits for what this object wrote."""

READY = 300.0
"""Seconds for which a new index is waited for."""

METADATA_BYTES = 40_960
"""Of one record. https://docs.pinecone.io/guides/index-data/indexing-overview"""

BATCH_ROWS, BATCH_BYTES = 500, 1_800_000
"""Of one upsert: 1,000 records and 2 MB are taken. https://docs.pinecone.io/reference/api/database-limits/operation-limits"""

MOST = 10_000
"""Records that a query gives, and values of one $in."""

ANSWER_BYTES = 3_900_000
"""Of records with vectors and metadata in one answer: 4 MB are documented for queries, and held to everywhere."""

HASHES = 2**32


class PineconeEngine:
    """One collection in Pinecone: two namespaces of an index."""

    title: ClassVar[str] = "Pinecone"
    proven: ClassVar[str] = "only against a simulated wire, by the official client 10.2 over HTTP"
    limits: ClassVar[Limits] = Limits(payload=20_000, document=1_000, k=MOST, dimension=20_000, fields=5_000)

    def __init__(self, address: Address) -> None:
        address.check_options(("cloud", "region", "timeout"))
        self.address = address
        self._index_name = address.path.strip("/")
        if not self._index_name or "/" in self._index_name:
            raise CollectionError(f"{address}: an index and a name were expected, such as pinecone:///my-index/papers")
        self._pinecone = _client(address)
        self._rows, self._companion = address.name, f"{address.name}-meta"
        self._fresh = {name: _Freshness() for name in (self._rows, self._companion)}
        self._texts = Texts(_Companion(self), 30_000)
        self._many: set[str] = set()

    @property
    def words(self) -> bool:
        return False

    # -- the collection ----------------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        return self._do(lambda: self._pinecone.indexes.exists(self._index_name), "asking for the index") and (
            self.get_meta(".layout") is not None
        )

    def create(self, layout: Layout) -> None:
        if self.exists():
            return
        self._forget()
        dimension = layout.dimension or 2  # an index has vectors, if only for form's sake
        self._do(lambda: self._make(dimension), f"making the index {self._index_name}")
        if layout.dimension not in (0, self._dimension):
            raise EngineError(
                f"{self.address}: the index {self._index_name} is for {self._dimension} dimensions, and these vectors have "
                f"{layout.dimension}; name another index"
            )
        self._texts.set(".layout", json.dumps({"dimension": layout.dimension}))

    def _make(self, dimension: int) -> None:
        deployment = {
            "deployment_type": "managed",
            "cloud": self.address.options.get("cloud", "aws"),
            "region": self.address.options.get("region", "us-east-1"),
        }
        indexes, name = self._pinecone.indexes, self._index_name
        if not indexes.exists(name):
            with suppress(ConflictError):  # made by another, or by us before an answer was lost
                indexes.create(name=name, dimension=dimension, metric="dotproduct", deployment=deployment, timeout=-1)
        begun = time.monotonic()
        while not indexes.describe(name).status.ready:
            if time.monotonic() - begun > READY:
                raise EngineError(f"{self.address}: the index {name} is not ready after {READY:.0f} seconds; try again later")
            time.sleep(1.0)

    def drop(self) -> None:
        if not self._do(lambda: self._pinecone.indexes.exists(self._index_name), "asking for the index"):
            return
        for namespace in (self._companion, self._rows):
            self._delete(namespace, delete_all=True)
        begun = time.monotonic()
        while self._texts.get(".layout") is not None:
            if time.monotonic() - begun > FRESH:
                raise EngineError(f"{self.address} was dropped and is still there after {FRESH:.0f} seconds; try again")
            time.sleep(0.2)
        self._forget()

    def describe(self) -> dict[str, str]:
        told = self._told
        return {
            "index": f"{self._index_name}, dot product, {self._dimension} dimensions; approximate, without parameters",
            "deployment": " ".join(
                str(value) for name in ("cloud", "region", "environment") if (value := getattr(told.deployment, name, None))
            ),
            "host": str(told.host),
            "words": "no",
            "consistency": "eventual; this process waits for what it wrote",
        }

    def get_meta(self, name: str) -> str | None:
        return self._texts.get(name)

    def set_meta(self, name: str, value: str) -> None:
        self._texts.set(name, value)

    def settle(self) -> None:
        pass

    def close(self) -> None:
        if "_index" in self.__dict__:
            self._index.close()
        self._pinecone.close()

    # -- rows --------------------------------------------------------------------------------------------------------------

    def upsert(self, rows: Sequence[Row]) -> None:
        records = [self._record(row) for row in rows]
        for field in sorted({field for row in rows for field, value in row.fields.items() if len(numbers_of(value)) > 2}):
            if not self._has_many(field):
                self._texts.set(f".many {field.encode().hex()}", "true")  # before rows of which only the ends are told
                self._many.add(field)
        for batch in _batches(records):
            self._write(self._rows, batch)

    def delete(self, keys: Keys) -> None:
        for start in range(0, len(keys), 1000):
            self._delete(self._rows, ids=[str(key) for key in keys[start : start + 1000].tolist()])

    def fetch(self, keys: Keys, *, vectors: bool = False) -> dict[int, Row]:
        found = self._fetch(self._rows, [str(key) for key in keys.tolist()])
        return {row.key: row for row in (self._row(record, vectors) for record in found.values())}

    def rows_of(self, documents: Sequence[str], *, vectors: bool = False) -> list[Row]:
        rows: list[Row] = []
        for start in range(0, len(documents), 1000):
            of = {"document": {"$in": list(documents[start : start + 1000])}}
            rows += [row for batch in self._listed(of, vectors) for row in batch]
        return rows

    def count(self, where: Condition | None = None, *, documents: bool = False) -> int:
        """Of 10,000 rows and more without a condition it is Pinecone's own count, which lags a little behind."""
        filter = self._filter(where, documents=documents)
        if filter is not None:
            return self._count(filter, 0, HASHES)
        found = len(self._query(self._probe, MOST, None))
        if found < MOST:
            return found
        stats = self._do(lambda: self._index.describe_index_stats(), "counting")
        return max(found, stats.namespaces[self._rows].vector_count if self._rows in stats.namespaces else 0)

    def _count(self, filter: Filter, low: int, high: int) -> int:
        """There is no count of what a filter lets pass, and a query gives 10,000: where there are more, halves are counted."""
        within = {"$and": [filter, {"hash": {"$gte": low, "$lt": high}}]}
        found = len(self._query(self._probe, MOST, within if high - low < HASHES else filter))
        if found < MOST or high - low == 1:
            return found
        middle = (low + high) // 2
        return self._count(filter, low, middle) + self._count(filter, middle, high)

    def iterate(self, where: Condition | None = None, *, documents: bool = False, vectors: bool = False) -> Iterator[list[Row]]:
        yield from self._listed(self._filter(where, documents=documents) or {"number": {"$gte": 0}}, vectors)

    # -- searching ---------------------------------------------------------------------------------------------------------

    def exact(self, where: Condition) -> bool:
        return translate(where, PineconeLanguage(self._has_many)).exact

    def search_vectors(self, vector: Vectors, k: int, where: Condition | None = None, keys: Keys | None = None) -> Ranking:
        if not self._layout["dimension"]:
            return Ranking.empty()
        asked, filter, k = vector.astype(np.float32).tolist(), self._filter(where), min(k, MOST)
        found: list[tuple[int, float]] = []
        if keys is None:
            found = self._query(asked, k, filter)
        else:
            for start in range(0, len(keys), MOST):
                of: Filter = {"key": {"$in": [str(key) for key in keys[start : start + MOST].tolist()]}}
                found += self._query(asked, k, of if filter is None else {"$and": [of, filter]})
        return Ranking.of([key for key, _ in found], [score for _, score in found], k)

    def search_words(self, terms: Sequence[str], k: int, where: Condition | None = None, keys: Keys | None = None) -> Ranking:
        raise EngineError(f"{self.address}: Pinecone searches no words here; keep them in another engine, or search vectors")

    def words_bound(self, terms: Sequence[str]) -> float | None:
        return None

    def _filter(self, where: Condition | None, *, documents: bool = False) -> Filter | None:
        parts: list[Filter] = [{"number": {"$eq": 0}}] if documents else []
        if where is not None and (said := translate(where, PineconeLanguage(self._has_many)).filter) is not None:
            parts.append(said.yes)
        return parts[0] if len(parts) == 1 else ({"$and": parts} if parts else None)

    def _has_many(self, field: str) -> bool:
        """Whether a row may have three different numbers in a field; once so, always so."""
        if field not in self._many and self.get_meta(f".many {field.encode().hex()}"):
            self._many.add(field)
        return field in self._many

    # -- what is known of the index ----------------------------------------------------------------------------------------

    @cached_property
    def _told(self) -> Any:
        told = self._do(lambda: self._pinecone.indexes.describe(self._index_name), "asking for the index")
        dense = told.schema.fields.get("_values")
        if dense is None or getattr(dense, "metric", None) != "dotproduct":
            raise EngineError(
                f"{self.address}: the index {self._index_name} is not one of dense vectors compared by dotproduct, made by "
                "dimension and metric; name another index"
            )
        return told

    @property
    def _dimension(self) -> int:
        return int(self._told.schema.fields["_values"].dimension)

    @cached_property
    def _index(self) -> Any:
        host = str(self._told.host)
        if is_loopback(self.address.host):  # Pinecone Local, which has no TLS; the client takes it that every host has
            host = f"http://{host.removeprefix('https://').removeprefix('http://')}"
        return self._pinecone.index(host=host)

    @cached_property
    def _layout(self) -> Mapping[str, Any]:
        kept = self._texts.get(".layout")
        if kept is None:
            raise EngineError(f"{self.address}: there is no such collection")
        found: Mapping[str, Any] = json.loads(kept)
        return found

    @property
    def _page(self) -> int:
        """Records that fit into an answer, however large they are: a number of a vector takes 12 bytes as text."""
        return min(100, ANSWER_BYTES // (METADATA_BYTES + 12 * self._dimension))

    @property
    def _probe(self) -> list[float]:
        """A vector for its own sake: one of zeros is refused."""
        return [1.0] + [0.0] * (self._dimension - 1)

    def _forget(self) -> None:
        self.__dict__.pop("_layout", None)
        self._many.clear()
        for fresh in self._fresh.values():
            fresh.forget()

    # -- records -----------------------------------------------------------------------------------------------------------

    def _record(self, row: Row) -> dict[str, Any]:
        dimension = self._layout["dimension"]
        if dimension and row.vector is None:
            raise EngineError(f"{self.address}: row {row.key} has no vector, without which Pinecone keeps nothing")
        metadata = {
            "document": row.document,
            "number": row.number,
            "payload": row.payload,
            "fields": json.dumps(dict(row.fields), ensure_ascii=False),
            "key": str(row.key),
            "hash": zlib.crc32(row.key.to_bytes(8, "big")),
            **searchable(row.fields),
        }
        size = len(json.dumps(metadata, ensure_ascii=False).encode())
        if size > METADATA_BYTES:
            raise EngineError(
                f"{self.address}: row {row.key} of document {row.document!r} has {size:,} bytes with its fields, and Pinecone "
                f"takes {METADATA_BYTES:,}; shorten its fields, or its passages"
            )
        vector = self._probe if row.vector is None else row.vector.astype(np.float32).tolist()
        return {"id": str(row.key), "values": vector, "metadata": metadata}

    def _row(self, record: Any, vectors: bool) -> Row:
        told = record.metadata
        vector = np.array(record.values, np.float32) if vectors and self._layout["dimension"] else None
        return Row(
            int(record.id), told["document"], int(told["number"]), told["payload"], json.loads(told["fields"]), (), vector
        )

    def _write(self, namespace: str, records: Sequence[Mapping[str, Any]]) -> None:
        done = self._do(
            lambda: self._index.upsert(vectors=records, namespace=namespace, show_progress=False),
            f"writing {len(records):,} records",
        )
        self._fresh[namespace].wrote(done.response_info)

    def _delete(self, namespace: str, **what: Any) -> None:
        """The client tells no log sequence number of a deletion; that of an update of nothing, made after it, is larger."""

        def remove() -> Any:
            try:
                self._index.delete(namespace=namespace, **what)
                return self._index.update(id="none", set_metadata={"none": True}, namespace=namespace).response_info
            except NotFoundError:  # there is no such namespace yet
                return None

        self._fresh[namespace].wrote(self._do(remove, "deleting"))

    def _fetch(self, namespace: str, ids: Sequence[str]) -> dict[str, Any]:
        self._wait(namespace)
        found: dict[str, Any] = {}
        for start in range(0, len(ids), self._page):
            asked = partial(self._index.fetch, ids=list(ids[start : start + self._page]), namespace=namespace)
            if (page := self._read(asked, "fetching")) is not None:
                found |= page.vectors
        return found

    def _listed(self, filter: Filter, vectors: bool) -> Iterator[list[Row]]:
        self._wait(self._rows)
        following: str | None = None
        while True:
            asked = partial(self._index.fetch_by_metadata, filter=filter, namespace=self._rows, limit=self._page)
            page = self._read(partial(asked, pagination_token=following), "listing")
            if page is not None and page.vectors:
                yield [self._row(record, vectors) for record in page.vectors.values()]
            following = page.pagination.next if page is not None and page.pagination else None
            if not following:
                return

    def _query(self, vector: Sequence[float], k: int, filter: Filter | None) -> list[tuple[int, float]]:
        self._wait(self._rows)
        asked = partial(self._index.query, vector=vector, top_k=k, filter=filter, namespace=self._rows)
        found = self._read(asked, "searching")
        return [] if found is None else [(int(match.id), match.score) for match in found.matches]

    def _wait(self, namespace: str) -> None:
        """Until queries see what this object wrote."""
        fresh, begun, pause = self._fresh[namespace], time.monotonic(), 0.02
        while fresh.is_behind:
            asked = partial(self._index.query, vector=self._probe, top_k=1, namespace=namespace)
            seen = self._read(asked, "asking how far it has come")
            if fresh.saw(None if seen is None else seen.response_info):
                return
            if time.monotonic() - begun > FRESH:
                raise EngineError(
                    f"{self.address}: what was written is kept but cannot be read yet, after {FRESH:.0f} seconds; ask again"
                )
            time.sleep(pause)
            pause = min(2 * pause, 1.0)

    def _read(self, asked: Callable[[], Any], doing: str) -> Any:
        """None where nobody wrote to the namespace yet."""

        def attempt() -> Any:
            try:
                return asked()
            except NotFoundError:
                return None

        return self._do(attempt, doing)

    def _do(self, call: Callable[[], T], doing: str) -> T:
        def attempt() -> T:
            try:
                return call()
            except ApiError as error:
                if error.status_code in TRANSIENT:
                    raise
                hint = f"; the key is the environment variable {KEY}" if error.status_code in (401, 403) else ""
                raise EngineError(f"{self.address}, {doing}: {error.status_code}: {error.message}{hint}") from None

        return persistent(attempt, _is_transient, self.address, doing)


class _Companion:
    """Meta as records of a namespace."""

    def __init__(self, engine: PineconeEngine) -> None:
        self._engine, self._namespace = engine, engine._companion

    def get(self, names: Sequence[str]) -> Mapping[str, Record]:
        return {name: record.metadata for name, record in self._engine._fetch(self._namespace, names).items()}

    def put(self, records: Mapping[str, Record]) -> None:
        vector = self._engine._probe
        self._engine._write(
            self._namespace, [{"id": name, "values": vector, "metadata": dict(record)} for name, record in records.items()]
        )

    def delete(self, names: Sequence[str]) -> None:
        self._engine._delete(self._namespace, ids=list(names))


class _Freshness:
    """How far a namespace was written by this object, and how far it was seen to be readable."""

    def __init__(self) -> None:
        self._written = self._seen = 0
        self._lock = threading.Lock()

    @property
    def is_behind(self) -> bool:
        return self._seen < self._written

    def wrote(self, told: Any) -> None:
        with self._lock:
            self._written = max(self._written, (told and told.lsn_committed) or 0)

    def saw(self, told: Any) -> bool:
        """Whether there is nothing more to wait for; so too where nobody says how far it is."""
        far = told and told.lsn_reconciled
        with self._lock:
            self._seen = self._written if far is None else max(self._seen, far)
            return not self.is_behind

    def forget(self) -> None:
        with self._lock:
            self._written = self._seen = 0


def _client(address: Address) -> Pinecone:
    local = is_loopback(address.host)
    key = os.environ.get(KEY) or ("local" if local else "")
    if address.user or address.password or not key:
        raise CollectionError(f"{address}: the key to Pinecone is expected in the environment variable {KEY}")
    timeout = address.options.get("timeout", "60")
    if not (timeout.isascii() and timeout.isdecimal() and int(timeout)):
        raise CollectionError(f"{address}: timeout is {timeout!r}; whole seconds from 1 were expected")
    port = f":{address.port}" if address.port else ""
    host = f"{'http' if local else 'https'}://{address.host}{port}" if address.host else None
    return Pinecone(api_key=key, host=host, timeout=float(timeout))


def _is_transient(error: Exception) -> bool:
    return isinstance(error, ApiError | PineconeConnectionError | PineconeTimeoutError)


def _batches(records: Sequence[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    batch: list[Mapping[str, Any]] = []
    size = 0
    for record in records:
        bytes_of = len(json.dumps(record, ensure_ascii=False).encode())
        if batch and (len(batch) == BATCH_ROWS or size + bytes_of > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += bytes_of
    if batch:
        yield batch
