"""Rows in Milvus: milvus://HOST:PORT/[DATABASE/]NAME of a server, milvus+lite:///FOLDER.db/NAME of Milvus Lite in this process.

Options, as ?consistency=Bounded&tenant=customer:

- `consistency`: Strong (the default: a search sees all that was written before it, and waits up to a fifth of a second for the
  server's clock to say so), Session (one's own writes), Bounded (a few seconds old at most, and fastest), Eventually.
- `tenant`: a field, with one value a document at most, that a new collection is partitioned by; a condition that asks for
  equality with it looks into that value's partition alone. Kept with the collection, so that it need not be repeated.
- `tls=true`: over TLS, as Zilliz Cloud wants it.

Who must sign in gives MILVUS_TOKEN in the environment, an API key or user:password, or user and password in the address.

A collection's columns are the row's parts; vectors are indexed by FLAT, HNSW, IVF_FLAT or AUTOINDEX under the inner product.
Words need a server that has the BM25 function: Milvus 2.5, Milvus Lite 3. Upserts go in streams of a few megabytes; a call that
failed half-way is completed by calling it again, since a key is kept once. Meta are properties of the collection; what is
too long for one is kept in pieces, in a collection beside it.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from hashlib import blake2b
from typing import Any, ClassVar, TypeVar

import numpy as np
from pymilvus import MilvusClient

from twinrank.conditions import Translated, translate
from twinrank.errors import CollectionError, EngineError
from twinrank.index.engines.address import Address
from twinrank.index.engines.milvus_language import MilvusLanguage, Said, facets_of, literals, many_valued, tenant_of
from twinrank.index.engines.milvus_schema import (
    KNOWN_KINDS,
    LAYOUT,
    MANY,
    META,
    TENANT,
    TEXT_BYTES,
    Kept,
    has_words,
    indexes,
    is_before,
    is_lite,
    kept_of,
    make_index,
    schema,
    search_params,
    with_pieces,
)
from twinrank.index.engines.milvus_session import ONCE, Session
from twinrank.index.engines.pieces import Record, Texts
from twinrank.index.engines.protocol import Layout, Limits, Row
from twinrank.types import And, Between, Condition, Keys, Not, Or, Ranking, Value, Vectors

CONSISTENCIES = ("Strong", "Session", "Bounded", "Eventually")

MOST_FOUND = 16_384
"""Rows of a search or of a page, by Milvus' quotaAndLimits.limits.topK and maxQueryResultWindow."""

BATCH_BYTES, BATCH_ROWS = 4 << 20, 5000
"""Of one upsert: Milvus takes 64 MB; message queues behind it are happier with a few."""

SEALED_FROM = 4000
"""Rows put in from which on they are sealed when loading ends, as Milvus does after some minutes; fewer are scanned."""
SEALING = 300.0
"""Seconds that this is waited for."""

PAGE_BYTES = 24 << 20
"""What a page of rows may weigh at most; Milvus gives 100 MB."""

PAGE, PAGE_OF_VECTORS = 4000, 1000
"""Rows asked for at once, at first."""

META_BYTES = 16_000
"""Of a property; all of a collection's are one record of etcd, which takes 1.5 MB."""

TOO_LARGE = re.compile(r"larger than max|exceeds? .*(size|limit)|too large|max.*output|RESOURCE_EXHAUSTED", re.IGNORECASE)

COLUMNS = ["key", "document", "number", "payload", "fields"]

PLAIN_TERM = re.compile(r"[a-z0-9]{1,24}")

T = TypeVar("T")


class MilvusEngine:
    """One collection in Milvus."""

    title: ClassVar[str] = "Milvus"
    proven: ClassVar[str] = "live against Milvus 2.3.5 standalone and Milvus Lite 3.2.2, by pymilvus 3.0.2"
    limits: ClassVar[Limits] = Limits(TEXT_BYTES, TEXT_BYTES, MOST_FOUND, 32_768, TEXT_BYTES)

    def __init__(self, address: Address) -> None:
        address.check_options({"consistency", "tenant", "tls"})
        self.address = address
        self._name = address.name
        self._consistency = address.options.get("consistency", "Strong")
        if self._consistency not in CONSISTENCIES:
            raise CollectionError(f"{address}: consistency is {self._consistency!r}; it is one of {', '.join(CONSISTENCIES)}")
        self._session = Session(address)
        self._writing = threading.Lock()
        self._seen: Kept | None = None
        self._loaded = 0
        """Rows put in since they were sealed."""
        self._meta = Texts(_Properties(self), META_BYTES)

    @property
    def words(self) -> bool:
        return self._kept().words

    # -- the collection ----------------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        return bool(self._session.call("looking for the collection", "has_collection", self._name))

    def create(self, layout: Layout) -> None:
        kind = layout.index.kind
        if kind not in KNOWN_KINDS:
            raise EngineError(
                f"{self.address}: Milvus is not asked for an index of kind {kind!r}; take one of {', '.join(KNOWN_KINDS)}"
            )
        self._session.ask("creating the collection", self._create, layout)
        self._seen = None
        if (wanted := self.address.options.get("tenant", "")) and self._kept().tenant != wanted:
            raise EngineError(
                f"{self.address}: the collection is partitioned by {self._kept().tenant or 'no field'!r}, not {wanted!r}"
            )

    def _create(self, client: MilvusClient, layout: Layout) -> None:
        """Each part that is not there yet."""
        words = layout.words and has_words(client.get_server_version())
        if not client.has_collection(self._name, **ONCE):
            columns = schema(layout.dimension, words, "tenant" in self.address.options)
            kept = {LAYOUT: json.dumps(asdict(layout.index) | {"dimension": layout.dimension})}
            kept[TENANT] = self.address.options.get("tenant", "")
            options = {"num_partitions": 16} if kept[TENANT] else {}
            client.create_collection(
                self._name, schema=columns, consistency_level=self._consistency, properties=kept, **ONCE, **options
            )
        indexed = set(client.list_indexes(self._name))
        for column, kind, metric, params in indexes(layout.index, words, client.get_server_version()):
            if column not in indexed:
                make_index(client, self._name, column, kind, metric, params)
        client.load_collection(self._name, **ONCE)

    def drop(self) -> None:
        for name in (_beside(self._name), self._name):
            self._session.call("dropping the collection", "drop_collection", name)
        self._seen = None

    def describe(self) -> dict[str, str]:
        kept = self._kept(fresh=True)
        index = self._session.call("describing the index", "describe_index", self._name, "vector")
        params = {name: value for name, value in index.items() if name in ("M", "efConstruction", "nlist")}
        params |= search_params(kept.index, 10) if kept.index.kind != "auto" else {}
        told = {
            "server": str(self._session.call("asking for the version", "get_server_version")),
            "index": " ".join([str(index.get("index_type", "")), *(f"{name}={value}" for name, value in params.items())]),
            "rows": f"{self.count():,}",
            "indexed": f"{int(index.get('indexed_rows', 0)):,}",
            "consistency": self._consistency,
        }
        return told | ({"partitioned by": kept.tenant} if kept.tenant else {})

    def get_meta(self, name: str) -> str | None:
        return self._meta.get(name)

    def set_meta(self, name: str, value: str) -> None:
        self._meta.set(name, value)

    def settle(self) -> None:
        """Seal what was loaded and wait until it is searched by its index, half a minute or so.

        Until then a standalone server searches it by an index in passing, which of 20,000 rows found 0.88 of the ten best, and
        0.14 where one in a thousand met a condition.
        """
        if self._loaded < SEALED_FROM:
            return
        self._session.call("sealing what was loaded", "flush", self._name)
        self._loaded, until = 0, time.monotonic() + SEALING
        while self._session.ask("waiting for what was loaded", self._is_growing) and time.monotonic() < until:
            time.sleep(0.5)

    def _is_growing(self, client: MilvusClient) -> bool:
        """Whether what was sealed is not yet indexed, or its index not yet what is searched."""
        if is_lite(client):
            return False
        index = client.describe_index(self._name, "vector", **ONCE)
        if int(index.get("indexed_rows", 0)) < int(index.get("total_rows", 0)):
            return True
        searched = {segment.segment_id for segment in client.list_loaded_segments(self._name, **ONCE)}
        return any(segment.segment_id not in searched for segment in client.list_persistent_segments(self._name, **ONCE))

    def close(self) -> None:
        self._session.close()

    # -- rows --------------------------------------------------------------------------------------------------------------

    def upsert(self, rows: Sequence[Row]) -> None:
        kept = self._kept(fresh=True)
        records = {row.key: self._record(row, kept) for row in rows}  # of a key that came twice, the last
        many = {name for record in records.values() for name in many_valued(record["facets"])} - kept.many
        if many:
            self._set_properties({MANY + name: "1" for name in many})
        for batch in _batches(records.values()):
            self._session.ask("putting rows in", self._put, batch, bool(kept.tenant))
            self._loaded += len(batch)

    def _put(self, client: MilvusClient, batch: list[dict[str, Any]], partitioned: bool) -> None:
        with self._alone(client):
            if partitioned and is_before(client, (2, 4)):
                # Its upsert puts rows into partitions of others: github.com/milvus-io/milvus/issues/30607.
                client.delete(self._name, ids=[record["key"] for record in batch], **ONCE)
                client.insert(self._name, batch, **ONCE)
            else:
                client.upsert(self._name, batch, **ONCE)

    def _alone(self, client: MilvusClient) -> AbstractContextManager[object]:
        """Milvus Lite does not bear several writers at once: two of them fail at each other's files."""
        return self._writing if is_lite(client) else nullcontext()

    def _record(self, row: Row, kept: Kept) -> dict[str, Any]:
        """A row as columns; raises EngineError for what a column cannot hold."""
        vector = row.vector if kept.dimension else np.zeros(2, np.float32)
        if vector is None or len(vector) != (kept.dimension or 2):
            came = "none" if vector is None else f"one of {len(vector)}"
            raise EngineError(
                f"{self.address}: document {row.document!r} needs a vector of {kept.dimension} numbers; {came} came"
            )
        record = {
            "key": row.key,
            "document": row.document,
            "number": row.number,
            "payload": row.payload,
            "fields": json.dumps(dict(row.fields), ensure_ascii=False, separators=(",", ":")),
            "facets": facets_of(row.fields),
            "vector": vector,
        }
        if kept.words:
            record["words"] = " ".join(map(_encoded, row.terms))
        if kept.tenant:
            record["tenant"] = tenant_of(row.fields.get(kept.tenant))
            if record["tenant"] is None:
                raise EngineError(
                    f"{self.address}: document {row.document!r} has several values of {kept.tenant!r}, by which the collection "
                    "is partitioned; give it one"
                )
        for column in ("payload", "document", "fields", "facets", "words"):
            value = record.get(column, "")
            size = len((value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).encode())
            if size > TEXT_BYTES:
                raise EngineError(
                    f"{self.address}: the {column} of document {row.document!r} take {size:,} bytes, and Milvus keeps "
                    f"{TEXT_BYTES:,} at most; shorten them, or cut smaller passages"
                )
        return record

    def delete(self, keys: Keys) -> None:
        for some in _parts(keys.tolist(), MOST_FOUND):
            self._session.ask("deleting rows", self._remove, some)

    def _remove(self, client: MilvusClient, keys: list[int]) -> None:
        with self._alone(client):
            client.delete(self._name, ids=keys, **ONCE)

    def fetch(self, keys: Keys, *, vectors: bool = False) -> dict[int, Row]:
        size = PAGE_OF_VECTORS if vectors else PAGE
        rows = (row for some in _parts(keys.tolist(), size) for row in self._of(some, vectors))
        return {row.key: row for row in rows}

    def _of(self, keys: list[int], vectors: bool) -> list[Row]:
        """The rows of these keys; asked for in halves where they are too large for one answer."""
        try:
            return self._rows(f"key in {keys}", vectors)
        except EngineError as error:
            if len(keys) == 1 or not TOO_LARGE.search(str(error)):
                raise
        half = len(keys) // 2
        return self._of(keys[:half], vectors) + self._of(keys[half:], vectors)

    def rows_of(self, documents: Sequence[str], *, vectors: bool = False) -> list[Row]:
        found: list[Row] = []
        for some in _parts(sorted(set(documents)), 250):
            asked = f"document in {literals(some)}"
            try:
                found += self._rows(asked, vectors)
            except EngineError as error:
                if not TOO_LARGE.search(str(error)):
                    raise
                found += [row for page in self._pages(asked, vectors) for row in page]
        return found

    def count(self, where: Condition | None = None, *, documents: bool = False) -> int:
        told = self._query("counting rows", self._filter(where, documents=documents), ["count(*)"])
        return int(told[0]["count(*)"])

    def iterate(self, where: Condition | None = None, *, documents: bool = False, vectors: bool = False) -> Iterator[list[Row]]:
        yield from self._pages(self._filter(where, documents=documents), vectors)

    def _pages(self, filter: str, vectors: bool) -> Iterator[list[Row]]:
        """By key, so that each page is a call of its own, which can be made again. A short page is not yet the last."""
        last, size = 0, PAGE_OF_VECTORS if vectors else PAGE
        while True:
            try:
                rows = self._rows(" and ".join([f"key > {last}", *([filter] if filter else [])]), vectors, size)
            except EngineError as error:
                if size == 1 or not TOO_LARGE.search(str(error)):
                    raise
                size //= 2
                continue
            if not rows:
                return
            yield rows
            last = max(row.key for row in rows)
            weight = sum(len(row.payload) for row in rows) / len(rows) + 1000
            size = int(min(max(PAGE_BYTES // weight, 1), size))

    def _rows(self, filter: str, vectors: bool, most: int | None = None) -> list[Row]:
        vectors = vectors and bool(self._kept().dimension)
        # As pymilvus' own iterator asks, so that a page holds the smallest keys.
        options = {} if most is None else {"limit": most, "iterator": "True", "reduce_stop_for_best": "True"}
        found = self._query("reading rows", filter, COLUMNS + ["vector"] * vectors, **options)
        return [_row(record) for record in found]

    def _query(self, doing: str, filter: str, columns: list[str], **options: Any) -> list[Any]:
        options |= {"consistency_level": self._consistency}
        return list(self._session.call(doing, "query", self._name, filter=filter, output_fields=columns, **options))

    # -- searching ---------------------------------------------------------------------------------------------------------

    def exact(self, where: Condition) -> bool:
        return self._translated(where).exact

    def search_vectors(self, vector: Vectors, k: int, where: Condition | None = None, keys: Keys | None = None) -> Ranking:
        kept = self._kept()
        params = {"metric_type": "IP", "params": search_params(kept.index, k)}
        return self._search("vector", np.asarray(vector, np.float32).tolist(), params, k, where, keys)

    def search_words(self, terms: Sequence[str], k: int, where: Condition | None = None, keys: Keys | None = None) -> Ranking:
        if not self.words:
            raise EngineError(
                f"{self.address}: this collection's words are not searched: that takes Milvus 2.5 or Milvus Lite 3"
            )
        if not terms:
            return Ranking.empty()
        return self._search("weights", " ".join(map(_encoded, terms)), {"metric_type": "BM25"}, k, where, keys)

    def words_bound(self, terms: Sequence[str]) -> float | None:
        return None

    def _search(
        self, column: str, asked: object, params: Mapping[str, Any], k: int, where: Condition | None, keys: Keys | None
    ) -> Ranking:
        """Among many keys part by part."""
        conditions = [self._filter(where)] if keys is None else []
        for some in [] if keys is None else _parts(keys.tolist(), MOST_FOUND):
            conditions.append(" and ".join([f"key in {some}", *filter(None, [self._filter(where)])]))
        found: list[tuple[int, float]] = []
        for condition in conditions:
            hits = self._session.call(
                "searching",
                "search",
                self._name,
                [asked],
                anns_field=column,
                limit=min(k, MOST_FOUND),
                filter=condition,
                search_params=dict(params),
                consistency_level=self._consistency,
            )[0]
            # Milvus Lite gives BM25 with its sign turned.
            scores = hits.distances if column == "vector" else map(abs, hits.distances)
            found += zip(hits.ids, scores, strict=True)
        return Ranking.of([key for key, _ in found], [score for _, score in found], k)

    def _filter(self, where: Condition | None, *, documents: bool = False) -> str:
        said = None if where is None else self._translated(where).filter
        return " and ".join(([said.yes] if said else []) + ["number == 0"] * documents)

    def _translated(self, where: Condition) -> Translated[Said]:
        kept = self._kept(fresh=_has_between(where))
        return translate(where, MilvusLanguage(kept.many, kept.tenant))

    # -- the server --------------------------------------------------------------------------------------------------------

    def _kept(self, *, fresh: bool = False) -> Kept:
        """What the collection is; looked up anew where it matters that rows with many values may have come since."""
        if self._seen is None or fresh:
            told = self._session.ask("describing the collection", self._described)
            if told is None:
                raise EngineError(f"{self.address}: there is no such collection; who made it may have dropped it")
            self._seen = kept_of(told)
        return self._seen

    def _described(self, client: MilvusClient) -> dict[str, Any] | None:
        if not client.has_collection(self._name, **ONCE):
            return None
        return dict(client.describe_collection(self._name, **ONCE))

    def _properties(self) -> dict[str, str]:
        told = self._session.ask("reading properties", self._described)
        if told is None:
            raise EngineError(f"{self.address}: there is no such collection; create it first")
        return dict(told.get("properties") or {})

    def _set_properties(self, properties: dict[str, str]) -> None:
        def write(client: MilvusClient) -> None:
            # Before 2.4 a server that is restarted has forgotten the last change: github.com/milvus-io/milvus/issues/30144.
            with self._alone(client):
                for _ in range(2 if is_before(client, (2, 4)) else 1):
                    client.alter_collection_properties(self._name, properties, **ONCE)

        self._session.ask("writing properties", write)


class _Properties:
    """Meta as records: heads are properties of the collection, pieces of long texts are rows of a collection beside it."""

    def __init__(self, engine: MilvusEngine) -> None:
        self._engine = engine

    def get(self, names: Sequence[str]) -> Mapping[str, Record]:
        found: dict[str, Record] = {}
        if heads := [name for name in names if not _is_piece(name)]:
            kept = self._engine._properties()
            found |= {name: json.loads(kept[META + name]) for name in heads if META + name in kept}
        for some in _parts([name for name in names if _is_piece(name)], 500):
            filter, columns = f"name in {literals(some)}", ["name", "text"]
            rows = self._beside(
                "reading a long text", "query", filter=filter, output_fields=columns, consistency_level="Strong"
            )
            found |= {row["name"]: {"text": row["text"]} for row in rows}
        return found

    def put(self, records: Mapping[str, Record]) -> None:
        pieces = [
            {"name": name, "text": record["text"], "vector": [0.0, 0.0]} for name, record in records.items() if _is_piece(name)
        ]
        if pieces:
            self._beside("keeping a long text", "upsert", pieces)
        if heads := {META + name: json.dumps(dict(record)) for name, record in records.items() if not _is_piece(name)}:
            self._engine._set_properties(heads)

    def delete(self, names: Sequence[str]) -> None:
        if pieces := [name for name in names if _is_piece(name)]:
            self._beside("removing a long text", "delete", ids=pieces)

    def _beside(self, doing: str, method: str, *given: Any, **options: Any) -> Any:
        name = _beside(self._engine.address.name)
        return self._engine._session.ask(
            doing, lambda client: getattr(with_pieces(client, name), method)(name, *given, **options, **ONCE)
        )


def _has_between(where: Condition) -> bool:
    inner = where.conditions if isinstance(where, And | Or) else [where.condition] if isinstance(where, Not) else []
    return isinstance(where, Between) or any(map(_has_between, inner))


def _is_piece(name: str) -> bool:
    return "/" in name


def _row(record: Mapping[str, Any]) -> Row:
    fields: dict[str, Value] = json.loads(record["fields"])
    vector = np.asarray(record["vector"], np.float32) if "vector" in record else None
    return Row(int(record["key"]), record["document"], int(record["number"]), record["payload"], fields, (), vector)


def _batches(records: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    size = 0
    for record in records:
        weight = 200 + 4 * len(record["vector"]) + 3 * len(record["payload"]) + 4 * len(record["fields"])
        if batch and (size + weight > BATCH_BYTES or len(batch) == BATCH_ROWS):
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += weight
    if batch:
        yield batch


def _parts(values: list[T], size: int) -> Iterator[list[T]]:
    return (values[start : start + size] for start in range(0, len(values), size))


def _encoded(term: str) -> str:
    """A word that every tokenizer leaves whole."""
    return term if PLAIN_TERM.fullmatch(term) else "x" + blake2b(term.encode(), digest_size=6).hexdigest()


def _beside(name: str) -> str:
    return f"_{name}_meta"
