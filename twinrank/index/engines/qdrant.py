"""Qdrant, a server (qdrant://host:port/name) or its engine within this process (qdrant+local:///folder/name).

A row is a point: its key the id, the vector `dense`, compared by dot product; its words the sparse vector `words`, whose
inverse document frequencies Qdrant counts (Modifier.IDF); all else the payload. Meta is a companion collection, NAME-meta.
The key to a server is the environment variable QDRANT_API_KEY; with one, and a host that is not this machine, TLS is expected.

Options of an address: tls=true or false; timeout=SECONDS of a call; and, when the collection is made: shards, replicas,
on_disk=true for vectors and graph on disk rather than in memory. With replicas, writes are acknowledged and reads are agreed
upon by a majority of them. https://qdrant.tech/documentation/scaling/consistency-guarantees/

Words become dimensions by CRC-32, so that two words may fall together: searching one then finds the other too. Among a million
different words that are about 116 pairs. The mean length that BM25 wants is learnt from the first 10,000 rows, then stays.
"""

from __future__ import annotations

import json
import uuid
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from twinrank.conditions import translate
from twinrank.errors import EngineError
from twinrank.index.engines.address import Address
from twinrank.index.engines.pieces import Record, Texts
from twinrank.index.engines.protocol import Layout, Limits, Row
from twinrank.index.engines.qdrant_language import Filter, QdrantLanguage, searchable
from twinrank.index.engines.qdrant_service import Id, Point, Service, open_service
from twinrank.types import Condition, Keys, Ranking, Vectors

K1, B = 1.2, 0.75

SETTLED = 10_000
"""Rows from which the mean length of a row is learnt."""

BATCH_ROWS, BATCH_BYTES = 500, 8_000_000
"""Of one upsert; a server takes requests of 32 MB unless it is told otherwise (service.max_request_size_mb)."""

PAGE = 1000
"""Points that are asked for at once."""

INDEXED_FIELDS = 100
"""So many paths within fields get a payload index, in the order in which they are met; others are filtered without."""

FIRST = {"key": "number", "range": {"gte": 0, "lte": 0}}
KEPT = ["document", "number", "payload", "fields"]
"""What of a point's payload makes the row."""


class QdrantEngine:
    """One collection in Qdrant, and its companion."""

    title: ClassVar[str] = "Qdrant"
    proven: ClassVar[str] = (
        "live against Qdrant Edge 0.9, Qdrant's engine within the process; the server only against a simulated wire, by the "
        "official client 1.20 over HTTP, with Qdrant Edge behind it"
    )
    limits: ClassVar[Limits] = Limits(payload=16_000_000, document=2**16, k=2**31, dimension=65_535, fields=4_000_000)

    def __init__(self, address: Address) -> None:
        self.address = address
        self._service: Service = open_service(address)
        self._rows, self._companion = address.name, f"{address.name}-meta"
        self._texts = Texts(_Companion(self._service, self._companion), 1_000_000)

    @property
    def words(self) -> bool:
        return "words" in self._shape["sparse"]

    def exists(self) -> bool:
        return self._service.exists(self._rows) and self._service.exists(self._companion)

    def create(self, layout: Layout) -> None:
        if self.exists():
            return
        self._forget()
        index = layout.index
        self._service.create(self._companion, {"dimension": 0, "sparse": [], "m": None, "ef_construct": None})
        self._service.create(
            self._rows,
            {
                "dimension": layout.dimension,
                "sparse": ["words"] if layout.words else [],
                "m": 0 if index.kind == "exact" else index.m or None,
                "ef_construct": index.ef_construction or None,
            },
        )
        for path, kind in (("document", "keyword"), ("number", "integer"), ("held", "keyword")):
            self._service.index(self._rows, path, kind)
        self._texts.set(".search", json.dumps({"exact": index.kind == "exact", "ef": index.ef_search or None}))

    def drop(self) -> None:
        self._forget()
        for collection in (self._rows, self._companion):
            self._service.drop(collection)

    def describe(self) -> dict[str, str]:
        shape = self._shape
        links = "exact" if shape["m"] == 0 else f"hnsw, m {shape['m']}, ef_construct {shape['ef_construct']}"
        told = {"index": links + (f", ef {self._search['ef']}" if self._search["ef"] else "")}
        told["words"] = "BM25 in sparse vectors" if self.words else "no"
        return told | self._service.describe(self._rows)

    def get_meta(self, name: str) -> str | None:
        return self._texts.get(name)

    def set_meta(self, name: str, value: str) -> None:
        self._texts.set(name, value)

    def settle(self) -> None:
        pass

    def close(self) -> None:
        self._service.close()

    # -- rows --------------------------------------------------------------------------------------------------------------

    def upsert(self, rows: Sequence[Row]) -> None:
        mean = self._mean_length(rows) if self.words else 1.0
        for batch in _batches([self._point(row, mean) for row in rows]):
            self._index_fields(batch)
            self._service.upsert(self._rows, batch)

    def delete(self, keys: Keys) -> None:
        for start in range(0, len(keys), PAGE):
            self._service.delete(self._rows, keys[start : start + PAGE].tolist())

    def fetch(self, keys: Keys, *, vectors: bool = False) -> dict[int, Row]:
        found: dict[int, Row] = {}
        for start in range(0, len(keys), PAGE):
            points = self._service.retrieve(self._rows, keys[start : start + PAGE].tolist(), KEPT, vectors)
            found |= {row.key: row for row in map(_row, points)}
        return found

    def rows_of(self, documents: Sequence[str], *, vectors: bool = False) -> list[Row]:
        rows: list[Row] = []
        for start in range(0, len(documents), PAGE):
            of = {"must": [{"key": "document", "match": {"any": list(documents[start : start + PAGE])}}]}
            rows += [row for batch in self._scroll(of, vectors) for row in batch]
        return rows

    def count(self, where: Condition | None = None, *, documents: bool = False) -> int:
        return self._service.count(self._rows, _filter(where, documents=documents))

    def iterate(self, where: Condition | None = None, *, documents: bool = False, vectors: bool = False) -> Iterator[list[Row]]:
        yield from self._scroll(_filter(where, documents=documents), vectors)

    # -- searching ---------------------------------------------------------------------------------------------------------

    def exact(self, where: Condition) -> bool:
        return translate(where, QdrantLanguage()).exact

    def search_vectors(self, vector: Vectors, k: int, where: Condition | None = None, keys: Keys | None = None) -> Ranking:
        if not self._shape["dimension"]:
            return Ranking.empty()
        how = {"exact": self._search["exact"], "hnsw_ef": self._search["ef"]}
        return self._query("dense", vector.astype(np.float32).tolist(), k, _filter(where, keys), how)

    def search_words(self, terms: Sequence[str], k: int, where: Condition | None = None, keys: Keys | None = None) -> Ranking:
        counted = Counter(map(_dimension_of, terms))
        sparse = {"indices": list(counted), "values": [float(times) for times in counted.values()]}
        return self._query("words", sparse, k, _filter(where, keys), {}) if counted else Ranking.empty()

    def words_bound(self, terms: Sequence[str]) -> float | None:
        """Nobody knows: the document frequencies stay in Qdrant."""
        return None

    def _query(self, using: str, query: Any, k: int, filter: Filter | None, how: Filter) -> Ranking:
        found = self._service.query(self._rows, using, query, filter, k, {name: value for name, value in how.items() if value})
        return Ranking.of([key for key, _ in found], [score for _, score in found], k)

    def _scroll(self, filter: Filter | None, vectors: bool) -> Iterator[list[Row]]:
        offset: Id | None = None
        while True:
            points, offset = self._service.scroll(self._rows, filter, PAGE, offset, KEPT, vectors)
            if points:
                yield [_row(point) for point in points]
            if offset is None:
                return

    # -- what is known of the collection -----------------------------------------------------------------------------------

    @cached_property
    def _shape(self) -> Mapping[str, Any]:
        return self._service.shape(self._rows)

    @cached_property
    def _search(self) -> Mapping[str, Any]:
        kept = self._texts.get(".search")
        if kept is None:
            raise EngineError(f"{self.address} is not whole: its {self._companion} lacks how to search it; create it again")
        found: Mapping[str, Any] = json.loads(kept)
        return found

    @cached_property
    def _indexed(self) -> set[str]:
        return self._service.indexed(self._rows)

    def _forget(self) -> None:
        for name in ("_shape", "_search", "_indexed"):
            self.__dict__.pop(name, None)

    def _index_fields(self, points: Sequence[Point]) -> None:
        """Index paths as they are first met, before there are points with them: only then are they in HNSW's links."""
        for point in points:
            for field, by_kind in point["payload"]["where"].items():
                for kind in by_kind:
                    path = f"where.{field}.{kind}"
                    if path not in self._indexed and len(self._indexed) < INDEXED_FIELDS:
                        self._service.index(self._rows, path, "float" if kind == "number" else "keyword")
                        self._indexed.add(path)

    def _mean_length(self, rows: Sequence[Row]) -> float:
        """Of rows in words; what several writers learn at the same time may be lost in part, which does no harm."""
        known = json.loads(self._texts.get(".lengths") or '{"rows": 0, "terms": 0}')
        if known["rows"] < SETTLED and rows:
            known = {"rows": known["rows"] + len(rows), "terms": known["terms"] + sum(len(row.terms) for row in rows)}
            self._texts.set(".lengths", json.dumps(known))
        return float(max(known["terms"] / max(known["rows"], 1), 1.0))

    def _point(self, row: Row, mean: float) -> Point:
        vectors: dict[str, Any] = {}
        if row.vector is not None and self._shape["dimension"]:
            vectors["dense"] = row.vector.astype(np.float32).tolist()
        if row.terms and self.words:
            vectors["words"] = _sparse(row.terms, mean)
        payload = {
            "document": row.document,
            "number": row.number,
            "payload": row.payload,
            "fields": json.dumps(dict(row.fields), ensure_ascii=False),
        }
        return {"id": row.key, "vector": vectors, "payload": payload | searchable(row.fields)}


class _Companion:
    """Meta as points without vectors."""

    def __init__(self, service: Service, collection: str) -> None:
        self._service, self._collection = service, collection

    def get(self, names: Sequence[str]) -> Mapping[str, Record]:
        ids = {_id_of(name): name for name in names}
        found = self._service.retrieve(self._collection, list(ids), None, False)
        return {ids[str(point["id"])]: point["payload"] for point in found}

    def put(self, records: Mapping[str, Record]) -> None:
        self._service.upsert(
            self._collection, [{"id": _id_of(name), "vector": {}, "payload": dict(record)} for name, record in records.items()]
        )

    def delete(self, names: Sequence[str]) -> None:
        self._service.delete(self._collection, [_id_of(name) for name in names])


def _id_of(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"twinrank:{name}"))


def _dimension_of(term: str) -> int:
    return zlib.crc32(term.encode())


def _sparse(terms: Sequence[str], mean: float) -> dict[str, list[Any]]:
    """BM25's part of a row: Qdrant multiplies by the inverse document frequency and by how often the query has the word."""
    spread = K1 * (1 - B + B * len(terms) / mean)
    times = Counter(map(_dimension_of, terms))
    return {"indices": list(times), "values": [count * (K1 + 1) / (count + spread) for count in times.values()]}


def _filter(where: Condition | None, keys: Keys | None = None, *, documents: bool = False) -> Filter | None:
    must = [FIRST] if documents else []
    if keys is not None:
        must.append({"has_id": keys.tolist()})
    if where is not None and (said := translate(where, QdrantLanguage()).filter) is not None:
        must.append(said)
    return {"must": must} if must else None


def _row(point: Point) -> Row:
    payload, vector = point["payload"], (point.get("vector") or {}).get("dense")
    given = None if vector is None else np.array(vector, np.float32)
    return Row(
        int(point["id"]), payload["document"], payload["number"], payload["payload"], json.loads(payload["fields"]), (), given
    )


def _batches(points: Sequence[Point]) -> Iterator[list[Point]]:
    batch: list[Point] = []
    size = 0
    for point in points:
        # A number takes up to 12 bytes as text; fields are there twice.
        bytes_of = len(point["payload"]["payload"].encode()) + 3 * len(point["payload"]["fields"].encode())
        bytes_of += 12 * len(point["vector"].get("dense", ())) + 24 * len(point["vector"].get("words", {}).get("indices", ()))
        if batch and (len(batch) == BATCH_ROWS or size + bytes_of > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(point)
        size += bytes_of
    if batch:
        yield batch
