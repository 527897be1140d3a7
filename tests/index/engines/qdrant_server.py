"""A server that speaks the part of Qdrant's REST interface which the engine uses, with Qdrant's own engine (Edge) behind it.

Bodies are read by the official client's models, which refuse what is not in Qdrant's OpenAPI document; filters, vectors and
sparse vectors are searched by Qdrant Edge. https://api.qdrant.tech/api-reference
"""

from __future__ import annotations

import json
import re
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pydantic
from qdrant_client import models

from twinrank.errors import EngineError
from twinrank.index.engines import Address
from twinrank.index.engines.qdrant_local import LocalService


class RefusedError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class QdrantServer:
    """Started on a free port of this machine; `faults` are answered in place of the next calls: a status, "cut" before or
    "lost" after the call was done."""

    def __init__(self, folder: Path, *, key: str = "", certificate: Path | None = None) -> None:
        self.service = LocalService(Address.parse(f"qdrant+local://{folder}/server"))
        self.key, self.faults, self.asked = key, [], []
        self.settings: dict[str, dict[str, Any]] = {}
        self.lock = threading.Lock()
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Asked", (_Handler,), {"qdrant": self}))
        server.daemon_threads = True
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        self._server, self.port = server, server.server_address[1]
        self._thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def __enter__(self) -> QdrantServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self.service.close()

    def answer(self, method: str, path: str, options: dict[str, str], body: bytes) -> Any:
        for route, pattern, does in ROUTES:
            if route == method and (found := re.fullmatch(pattern, path)):
                name = found.groupdict().get("name", "")
                if name and does not in (_create, _exists, _drop) and not self.service.exists(name):
                    raise RefusedError(404, f"Not found: Collection `{name}` doesn't exist!")
                try:
                    return does(self, name, body, options)
                except pydantic.ValidationError as error:
                    raise RefusedError(400, f"Format error in JSON body: {error}") from None
                except EngineError as error:
                    raise RefusedError(400, f"Wrong input: {error}") from None
        raise RefusedError(404, "")


def _version(server: QdrantServer, name: str, body: bytes, options: dict[str, str]) -> Any:
    return {"title": "qdrant - vector search engine", "version": "1.18.0"}


def _exists(server: QdrantServer, name: str, body: bytes, options: dict[str, str]) -> Any:
    return {"exists": server.service.exists(name)}


def _create(server: QdrantServer, name: str, body: bytes, options: dict[str, str]) -> Any:
    given = models.CreateCollection.model_validate_json(body)
    if server.service.exists(name):
        raise RefusedError(409, f"Wrong input: Collection `{name}` already exists!")
    dense = (given.vectors or {}).get("dense")
    assert dense is None or dense.distance == models.Distance.DOT
    assert all(one.modifier == models.Modifier.IDF for one in (given.sparse_vectors or {}).values())
    links = given.hnsw_config or models.HnswConfigDiff()
    server.service.create(
        name,
        {
            "dimension": dense.size if dense else 0,
            "sparse": list(given.sparse_vectors or {}),
            "m": links.m,
            "ef_construct": links.ef_construct,
        },
    )
    server.settings[name] = json.loads(body)
    return True


def _drop(server: QdrantServer, name: str, body: bytes, options: dict[str, str]) -> Any:
    there = server.service.exists(name)
    server.service.drop(name)
    return there


def _info(server: QdrantServer, name: str, body: bytes, options: dict[str, str]) -> Any:
    shape, given = server.service.shape(name), server.settings.get(name, {})
    told = server.service.describe(name)
    count = int(told["points"].replace(",", ""))
    return {
        "status": "green",
        "optimizer_status": "ok",
        "indexed_vectors_count": count,
        "points_count": count,
        "segments_count": int(told["segments"]),
        "config": {
            "params": {
                "vectors": given.get("vectors") or {},
                "sparse_vectors": given.get("sparse_vectors"),
                "shard_number": given.get("shard_number") or 1,
                "replication_factor": given.get("replication_factor") or 1,
                "write_consistency_factor": given.get("write_consistency_factor") or 1,
            },
            "hnsw_config": {"m": shape["m"], "ef_construct": shape["ef_construct"], "full_scan_threshold": 10000},
            "optimizer_config": {
                "deleted_threshold": 0.2,
                "vacuum_min_vector_number": 1000,
                "default_segment_number": 0,
                "flush_interval_sec": 5,
            },
            "wal_config": {"wal_capacity_mb": 32, "wal_segments_ahead": 0},
        },
        "payload_schema": {path: {"data_type": "keyword", "points": 0} for path in server.service.indexed(name)},
    }


def _index(server: QdrantServer, name: str, body: bytes, options: dict[str, str]) -> Any:
    given = models.CreateFieldIndex.model_validate_json(body)
    server.service.index(name, given.field_name, given.field_schema.value)
    return _done(options)


def _upsert(server: QdrantServer, name: str, body: bytes, options: dict[str, str]) -> Any:
    given = models.PointsList.model_validate_json(body)
    dimension = server.service.shape(name)["dimension"]
    for point in given.points:
        vector = point.vector.get("dense")
        if vector is not None and len(vector) != dimension:
            raise RefusedError(400, f"Wrong input: Vector dimension error: expected dim: {dimension}, got {len(vector)}")
    points = [json.loads(point.model_dump_json(exclude_none=True)) for point in given.points]
    for raw, point in zip(json.loads(body)["points"], points, strict=True):
        point["payload"] = raw["payload"]  # nulls within it too
    server.service.upsert(name, points)
    return _done(options)


def _delete(server: QdrantServer, name: str, body: bytes, options: dict[str, str]) -> Any:
    server.service.delete(name, models.PointIdsList.model_validate_json(body).points)
    return _done(options)


def _retrieve(server: QdrantServer, name: str, body: bytes, options: dict[str, str]) -> Any:
    given = models.PointRequest.model_validate_json(body)
    return _points(server.service.retrieve(name, given.ids, _payload(given.with_payload), bool(given.with_vector)))


def _query(server: QdrantServer, name: str, body: bytes, options: dict[str, str]) -> Any:
    given = models.QueryRequest.model_validate_json(body)
    query = json.loads(body)["query"]
    shape = server.service.shape(name)
    if given.using not in (["dense"] if shape["dimension"] else []) + list(shape["sparse"]):
        raise RefusedError(400, f"Wrong input: Not existing vector name error: {given.using}")
    how = {} if given.params is None else json.loads(given.params.model_dump_json(exclude_none=True))
    found = server.service.query(name, given.using, query.get("nearest", query) if isinstance(query, dict) else query,
                                 _filter(given.filter), given.limit, how)  # fmt: skip
    return {"points": [{"id": key, "version": 0, "score": score} for key, score in found]}


def _scroll(server: QdrantServer, name: str, body: bytes, options: dict[str, str]) -> Any:
    given = models.ScrollRequest.model_validate_json(body)
    points, following = server.service.scroll(
        name, _filter(given.filter), given.limit, given.offset, _payload(given.with_payload), bool(given.with_vector)
    )
    return {"points": _points(points), "next_page_offset": following}


def _count(server: QdrantServer, name: str, body: bytes, options: dict[str, str]) -> Any:
    given = models.CountRequest.model_validate_json(body)
    assert given.exact
    return {"count": server.service.count(name, _filter(given.filter))}


def _done(options: dict[str, str]) -> Any:
    assert options.get("wait") == "true", "who does not wait does not read what it wrote"
    return {"operation_id": 1, "status": "completed"}


def _filter(given: models.Filter | None) -> Any:
    return None if given is None else json.loads(given.model_dump_json(exclude_none=True, by_alias=True))


def _payload(given: Any) -> list[str] | None:
    return given if isinstance(given, list) else None


def _points(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    def plain(vector: Any) -> Any:
        return vector if isinstance(vector, list) else {"indices": vector.indices, "values": vector.values}

    return [
        {
            "id": point["id"],
            "payload": point["payload"],
            "vector": None if point["vector"] is None else {name: plain(one) for name, one in point["vector"].items()},
        }
        for point in points
    ]


Does = Callable[[QdrantServer, str, bytes, dict[str, str]], Any]
HERE = r"/collections/(?P<name>[\w-]+)"
ROUTES: list[tuple[str, str, Does]] = [
    ("GET", "/", _version),
    ("GET", f"{HERE}/exists", _exists),
    ("PUT", HERE, _create),
    ("DELETE", HERE, _drop),
    ("GET", HERE, _info),
    ("PUT", f"{HERE}/index", _index),
    ("PUT", f"{HERE}/points", _upsert),
    ("POST", f"{HERE}/points", _retrieve),
    ("POST", f"{HERE}/points/delete", _delete),
    ("POST", f"{HERE}/points/query", _query),
    ("POST", f"{HERE}/points/scroll", _scroll),
    ("POST", f"{HERE}/points/count", _count),
]


class _Handler(BaseHTTPRequestHandler):
    qdrant: QdrantServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        asked = urlsplit(self.path)
        server = self.qdrant
        with server.lock:
            server.asked.append((self.command, self.path))
            fault = server.faults.pop(0) if server.faults else None
        if fault == "cut":
            self.close_connection = True
            self.connection.close()
            return
        try:
            if isinstance(fault, int):
                raise RefusedError(fault, "overloaded")
            if server.key and self.headers.get("api-key") != server.key:
                raise RefusedError(401, "Must provide an API key or an Authorization bearer token")
            found = server.answer(self.command, asked.path, dict(parse_qsl(asked.query)), body)
            # The version stands by itself.
            self._send(200, found if asked.path == "/" else {"result": found, "status": "ok", "time": 0.0}, fault)
        except RefusedError as error:
            self._send(error.status, {"status": {"error": str(error)}, "time": 0.0}, fault)

    def _send(self, status: int, what: Any, fault: object) -> None:
        if fault == "lost":
            self.close_connection = True
            self.connection.close()
            return
        data = json.dumps(what).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
