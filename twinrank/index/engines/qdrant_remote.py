"""Qdrant as a server, asked over HTTP by its official client."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from twinrank.errors import CollectionError, EngineError
from twinrank.index.engines.address import Address
from twinrank.index.engines.qdrant_service import UNUSED, Id, Point
from twinrank.index.engines.retries import persistent
from twinrank.loopback import is_loopback

T = TypeVar("T")

KEY = "QDRANT_API_KEY"

TRANSIENT = (408, 429, 502, 503, 504)
"""What a server or a proxy before it answers while it starts, restarts or has too much to do."""


class RemoteService:
    """Calls answered by a server; those that fail for a moment are made again: each may be made twice."""

    def __init__(self, address: Address) -> None:
        address.check_options(("tls", "timeout", "shards", "replicas", "on_disk"))
        if address.user or address.password:
            raise CollectionError(f"{address}: the key to Qdrant is not part of the address but the environment variable {KEY}")
        self._address = address
        self._client = _client(address)
        self._consistencies: dict[str, Any] = {}

    def close(self) -> None:
        self._client.close()

    def exists(self, collection: str) -> bool:
        return bool(self._do(lambda: self._client.collection_exists(collection), "asking for it"))

    def create(self, collection: str, shape: Mapping[str, Any]) -> None:
        given = self._layout(shape)

        def make() -> None:
            try:
                self._client.create_collection(collection, **given)
            except UnexpectedResponse:
                if not self._client.collection_exists(collection):  # made by another, or by us before an answer was lost
                    raise

        self._do(make, f"making {collection}")

    def _layout(self, shape: Mapping[str, Any]) -> dict[str, Any]:
        replicas, shards = self._whole("replicas"), self._whole("shards")
        on_disk = self._flag("on_disk")
        dense = (
            models.VectorParams(size=shape["dimension"], distance=models.Distance.DOT, on_disk=on_disk)
            if shape["dimension"]
            else None
        )
        names = shape["sparse"] or ([] if dense else [UNUSED])
        return {
            "vectors_config": {"dense": dense} if dense else {},
            "sparse_vectors_config": {name: models.SparseVectorParams(modifier=models.Modifier.IDF) for name in names} or None,
            "hnsw_config": models.HnswConfigDiff(m=shape["m"], ef_construct=shape["ef_construct"], on_disk=on_disk),
            "shard_number": shards,
            "replication_factor": replicas,
            "write_consistency_factor": None if replicas is None else replicas // 2 + 1,
        }

    def drop(self, collection: str) -> None:
        def remove() -> None:
            try:
                self._client.delete_collection(collection)
            except UnexpectedResponse as error:
                if error.status_code != 404:
                    raise

        self._consistencies.pop(collection, None)
        self._do(remove, f"dropping {collection}")

    def shape(self, collection: str) -> Mapping[str, Any]:
        config = self._info(collection).config
        vectors = config.params.vectors
        dense = vectors.get("dense") if isinstance(vectors, dict) else None
        return {
            "dimension": 0 if dense is None else dense.size,
            "sparse": sorted(set(config.params.sparse_vectors or {}) - {UNUSED}),
            "m": config.hnsw_config.m,
            "ef_construct": config.hnsw_config.ef_construct,
        }

    def index(self, collection: str, path: str, kind: str) -> None:
        schema = models.PayloadSchemaType(kind)
        self._do(lambda: self._client.create_payload_index(collection, path, schema, wait=True), f"indexing {path}")

    def indexed(self, collection: str) -> set[str]:
        return set(self._info(collection).payload_schema or {})

    def describe(self, collection: str) -> dict[str, str]:
        info, server = self._info(collection), self._do(self._client.info, "asking for its version")
        params = info.config.params
        return {
            "server": f"{server.title} {server.version}",
            "points": f"{info.points_count or 0:,}",
            "indexed vectors": f"{info.indexed_vectors_count or 0:,}",
            "segments": str(info.segments_count),
            "status": str(info.status.value),
            "shards": f"{params.shard_number or 1}, {params.replication_factor or 1} of each",
        }

    def upsert(self, collection: str, points: Sequence[Point]) -> None:
        given = [models.PointStruct.model_validate(point) for point in points]
        self._do(lambda: self._client.upsert(collection, given, wait=True), f"writing {len(given):,} points")

    def delete(self, collection: str, ids: Sequence[Id]) -> None:
        given = models.PointIdsList(points=list(ids))
        self._do(lambda: self._client.delete(collection, given, wait=True), f"deleting {len(ids):,} points")

    def retrieve(self, collection: str, ids: Sequence[Id], payload: Sequence[str] | None, vectors: bool) -> list[Point]:
        found = self._do(
            lambda: self._client.retrieve(
                collection, list(ids), _payload(payload), vectors, consistency=self._consistency(collection)
            ),
            f"fetching {len(ids):,} points",
        )
        return [_point(record) for record in found]

    def query(
        self, collection: str, using: str, query: Any, filter: Mapping[str, Any] | None, k: int, how: Mapping[str, Any]
    ) -> list[tuple[int, float]]:
        found = self._do(
            lambda: self._client.query_points(
                collection,
                query=models.SparseVector(**query) if isinstance(query, dict) else query,
                using=using,
                query_filter=_filter(filter),
                search_params=models.SearchParams(**how) if how else None,
                limit=k,
                with_payload=False,
                consistency=self._consistency(collection),
            ),
            "searching",
        )
        return [(int(point.id), point.score) for point in found.points]

    def scroll(
        self,
        collection: str,
        filter: Mapping[str, Any] | None,
        limit: int,
        offset: Id | None,
        payload: Sequence[str] | None,
        vectors: bool,
    ) -> tuple[list[Point], Id | None]:
        found, following = self._do(
            lambda: self._client.scroll(
                collection,
                scroll_filter=_filter(filter),
                limit=limit,
                offset=offset,
                with_payload=_payload(payload),
                with_vectors=vectors,
                consistency=self._consistency(collection),
            ),
            "listing points",
        )
        return [_point(record) for record in found], following if isinstance(following, int) else None

    def count(self, collection: str, filter: Mapping[str, Any] | None) -> int:
        asked = models.CountRequest(filter=_filter(filter), exact=True)
        found = self._do(  # not `client.count`, which leaves it to the server whom it asks
            lambda: self._client.http.points_api.count_points(
                collection, consistency=self._consistency(collection), count_request=asked
            ),
            "counting",
        )
        return found.result.count if found.result else 0

    def _info(self, collection: str) -> Any:
        return self._do(lambda: self._client.get_collection(collection), "asking what there is")

    def _consistency(self, collection: str) -> Any:
        """With one replica there is nothing to agree upon."""
        if collection not in self._consistencies:
            replicas = self._client.get_collection(collection).config.params.replication_factor or 1
            self._consistencies[collection] = models.ReadConsistencyType.MAJORITY if replicas > 1 else None
        return self._consistencies[collection]

    def _whole(self, option: str) -> int | None:
        text = self._address.options.get(option, "")
        if text and not (text.isascii() and text.isdecimal() and int(text)):
            raise CollectionError(f"{self._address}: {option} is {text!r}; a whole number from 1 was expected")
        return int(text) if text else None

    def _flag(self, option: str) -> bool | None:
        return _flag(self._address, option)

    def _do(self, call: Callable[[], T], doing: str) -> T:
        def attempt() -> T:
            try:
                return call()
            except UnexpectedResponse as error:
                if error.status_code in TRANSIENT:
                    raise
                raise EngineError(f"{self._address}, {doing}: {_said(error)}") from None

        return persistent(attempt, _is_transient, self._address, doing)


def _client(address: Address) -> QdrantClient:
    key = os.environ.get(KEY) or None
    host = address.host or "localhost"
    safe = _flag(address, "tls")
    tls = bool(key) and not is_loopback(host) if safe is None else safe
    timeout = address.options.get("timeout", "60")
    if not (timeout.isascii() and timeout.isdecimal() and int(timeout)):
        raise CollectionError(f"{address}: timeout is {timeout!r}; whole seconds from 1 were expected")
    url = f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{address.port or 6333}"
    with warnings.catch_warnings():
        # That a key goes unencrypted is only so where the address says tls=false, or to this machine.
        warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")
        return QdrantClient(url=url, api_key=key, timeout=int(timeout), prefix=address.path or None, check_compatibility=False)


def _flag(address: Address, option: str) -> bool | None:
    said = address.options.get(option)
    if said not in (None, "true", "false"):
        raise CollectionError(f"{address}: {option} is {said!r}; true or false was expected")
    return None if said is None else said == "true"


def _is_transient(error: Exception) -> bool:
    return isinstance(error, ResponseHandlingException | ResourceExhaustedResponse | UnexpectedResponse)


def _said(error: UnexpectedResponse) -> str:
    """What a server answered, as a sentence."""
    try:
        said = str(error.structured()["status"]["error"])
    except (ValueError, LookupError, TypeError):
        said = error.content.decode(errors="replace")[:300]
    hint = f"; the key is the environment variable {KEY}" if error.status_code in (401, 403) else ""
    return f"{error.status_code} {error.reason_phrase}: {said}{hint}"


def _payload(wanted: Sequence[str] | None) -> bool | list[str]:
    return True if wanted is None else list(wanted)


def _filter(given: Mapping[str, Any] | None) -> models.Filter | None:
    return None if given is None else models.Filter.model_validate(given)


def _point(record: models.Record) -> Point:
    return {"id": record.id, "vector": record.vector, "payload": record.payload}
