"""Qdrant within this process: a folder of collections, each a shard of Qdrant Edge, which one process has open at a time."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import qdrant_edge as edge

from twinrank.errors import CollectionError, EngineError
from twinrank.index.engines.address import Address
from twinrank.index.engines.qdrant_service import UNUSED, Id, Point
from twinrank.index.engines.retries import persistent

T = TypeVar("T")

OPTIMIZED_EVERY = 20_000
"""Points after which graphs are built and what was deleted is cleared away: nobody does that in the background here."""


@dataclass
class _Shards:
    """What this process has open of a folder; several engines share it."""

    open: dict[str, Any] = field(default_factory=dict)
    written: dict[str, int] = field(default_factory=dict)
    users: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock)


FOLDERS: dict[Path, _Shards] = {}
LOCK = threading.Lock()


class LocalService:
    """Calls answered by Qdrant Edge."""

    def __init__(self, address: Address) -> None:
        address.check_options(())
        if address.host or not address.path.strip("/"):
            raise CollectionError(
                f"{address}: a folder and a name were expected, such as qdrant+local:///var/lib/twinrank/papers"
            )
        self._address, self._folder = address, Path(address.path).resolve()
        with LOCK:
            self._shards = FOLDERS.setdefault(self._folder, _Shards())
            self._shards.users += 1

    def close(self) -> None:
        with LOCK:
            self._shards.users -= 1
            if self._shards.users:
                return
            FOLDERS.pop(self._folder, None)
        for shard in self._shards.open.values():
            shard.close()
        self._shards.open.clear()

    def exists(self, collection: str) -> bool:
        return (self._folder / collection / "edge_config.json").is_file()

    def create(self, collection: str, shape: Mapping[str, Any]) -> None:
        with self._shards.lock:
            if not self.exists(collection):
                self._do(lambda: self._created(collection, shape), f"making {collection}")

    def _created(self, collection: str, shape: Mapping[str, Any]) -> None:
        folder = self._folder / collection
        shutil.rmtree(folder, ignore_errors=True)  # what an interrupted creation left
        folder.mkdir(parents=True)
        self._shards.open[collection] = edge.EdgeShard.create(str(folder), _config(shape))

    def drop(self, collection: str) -> None:
        with self._shards.lock:
            if (shard := self._shards.open.pop(collection, None)) is not None:
                shard.close()
            folder = self._folder / collection
            (folder / "edge_config.json").unlink(missing_ok=True)  # first, so that half a collection is none
            shutil.rmtree(folder, ignore_errors=True)

    def shape(self, collection: str) -> Mapping[str, Any]:
        self._shard(collection)
        return _shape(self._folder / collection / "edge_config.json")

    def index(self, collection: str, path: str, kind: str) -> None:
        schema = getattr(edge.PayloadSchemaType, kind.capitalize())
        self._update(collection, edge.UpdateOperation.create_field_index(path, schema))

    def indexed(self, collection: str) -> set[str]:
        shard = self._shard(collection)
        return set(self._do(lambda: shard.info().payload_schema, "asking for indexes"))

    def describe(self, collection: str) -> dict[str, str]:
        shard = self._shard(collection)
        told = self._do(shard.info, "asking what there is")
        size = sum(path.stat().st_size for path in (self._folder / collection).rglob("*") if path.is_file())
        return {
            "server": "Qdrant Edge, within this process",
            "points": f"{told.points_count:,}",
            "segments": str(told.segments_count),
            "bytes": f"{size:,}",
        }

    def upsert(self, collection: str, points: Sequence[Point]) -> None:
        given = [
            edge.Point(point["id"], {name: _vector(one) for name, one in point["vector"].items()}, point["payload"])
            for point in points
        ]
        self._update(collection, edge.UpdateOperation.upsert_points(given))
        with self._shards.lock:
            written = self._shards.written.get(collection, 0) + len(points)
            self._shards.written[collection] = 0 if written >= OPTIMIZED_EVERY else written
        if written >= OPTIMIZED_EVERY:
            self._do(self._shard(collection).optimize, "building the index")

    def delete(self, collection: str, ids: Sequence[Id]) -> None:
        self._update(collection, edge.UpdateOperation.delete_points(list(ids)))

    def retrieve(self, collection: str, ids: Sequence[Id], payload: Sequence[str] | None, vectors: bool) -> list[Point]:
        shard = self._shard(collection)
        found = self._do(
            lambda: shard.retrieve(list(ids), True if payload is None else list(payload), vectors), "fetching points"
        )
        return [_point(record) for record in found]

    def query(
        self, collection: str, using: str, query: Any, filter: Mapping[str, Any] | None, k: int, how: Mapping[str, Any]
    ) -> list[tuple[int, float]]:
        shard = self._shard(collection)
        request = edge.QueryRequest(
            limit=k,
            query=edge.Query.Nearest(_vector(query), using=using),
            filter=None if filter is None else _filter(filter),
            params=edge.SearchParams(**how),
            with_payload=False,
        )
        return [(found.id, found.score) for found in self._do(lambda: shard.query(request), "searching")]

    def scroll(
        self,
        collection: str,
        filter: Mapping[str, Any] | None,
        limit: int,
        offset: Id | None,
        payload: Sequence[str] | None,
        vectors: bool,
    ) -> tuple[list[Point], Id | None]:
        shard = self._shard(collection)
        request = edge.ScrollRequest(
            offset=offset,
            limit=limit,
            filter=None if filter is None else _filter(filter),
            with_payload=True if payload is None else list(payload),
            with_vector=vectors,
        )
        found, following = self._do(lambda: shard.scroll(request), "listing points")
        return [_point(record) for record in found], following

    def count(self, collection: str, filter: Mapping[str, Any] | None) -> int:
        shard = self._shard(collection)
        request = edge.CountRequest(exact=True, filter=None if filter is None else _filter(filter))
        return int(self._do(lambda: shard.count(request), "counting"))

    def _update(self, collection: str, operation: Any) -> None:
        shard = self._shard(collection)
        self._do(lambda: shard.update(operation), "writing")

    def _shard(self, collection: str) -> Any:
        with self._shards.lock:
            if collection not in self._shards.open:
                if not self.exists(collection):
                    raise EngineError(f"{self._address}: there is no such collection")
                folder = str(self._folder / collection)
                self._shards.open[collection] = self._do(
                    lambda: edge.EdgeShard.load(folder), "opening it (one process has a folder open at a time)"
                )
            return self._shards.open[collection]

    def _do(self, call: Callable[[], T], doing: str) -> T:
        return persistent(call, lambda error: False, self._address, doing)


def _config(shape: Mapping[str, Any]) -> Any:
    dense = None
    if shape["dimension"]:
        links = None
        if shape["m"] is not None or shape["ef_construct"] is not None:
            # 16, 100 and 10,000 KB are Qdrant's usual ones.
            m = 16 if shape["m"] is None else shape["m"]
            links = edge.HnswIndexConfig(m, shape["ef_construct"] or 100, 10_000)
        dense = {"dense": edge.EdgeVectorParams(shape["dimension"], edge.Distance.Dot, hnsw_config=links)}
    names = shape["sparse"] or ([] if dense else [UNUSED])
    sparse = {name: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf) for name in names}
    return edge.EdgeConfig(vectors=dense, sparse_vectors=sparse or None)


def _shape(path: Path) -> Mapping[str, Any]:
    config = json.loads(path.read_text("utf-8"))
    dense = (config.get("vectors") or {}).get("dense") or {}
    links = dense.get("hnsw_config") or {}
    return {
        "dimension": dense.get("size", 0),
        "sparse": sorted(set(config.get("sparse_vectors") or {}) - {UNUSED}),
        "m": links.get("m", 16),
        "ef_construct": links.get("ef_construct", 100),
    }


def _vector(given: Any) -> Any:
    return edge.SparseVector(given["indices"], given["values"]) if isinstance(given, dict) else given


def _point(record: Any) -> Point:
    return {
        "id": record.id if isinstance(record.id, int) else str(record.id),
        "vector": record.vector,
        "payload": record.payload,
    }


def _filter(given: Mapping[str, Any]) -> Any:
    """A filter as REST has it, as Qdrant Edge has it."""
    clauses: dict[str, Any] = {clause: [_condition(part) for part in parts] for clause, parts in given.items()}
    return edge.Filter(**clauses)


def _condition(given: Mapping[str, Any]) -> Any:
    if "has_id" in given:
        return edge.HasIdCondition(set(given["has_id"]))
    if "key" not in given:
        return _filter(given)
    if "range" in given:
        return edge.FieldCondition(
            given["key"], range=edge.RangeFloat(**{name: float(value) for name, value in given["range"].items()})
        )
    ((kind, value),) = given["match"].items()
    match = {"value": edge.MatchValue, "any": edge.MatchAny, "except": edge.MatchExcept}[kind]
    return edge.FieldCondition(given["key"], match=match(value))
