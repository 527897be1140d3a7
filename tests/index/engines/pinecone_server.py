"""A server that speaks Pinecone's REST interface, 2026-07, as far as the engine uses it, with the service's own rules.

Written from docs.pinecone.io/reference/api/2026-07/data-plane (and pinecone-io/pinecone-api, db_data_2026-07.oas.yaml),
docs.pinecone.io/guides/index-data/indexing-overview (kinds and size of metadata), guides/search/filter-by-metadata (filters),
docs.pinecone.io/reference/api/database-limits/operation-limits, guides/index-data/check-data-freshness (sequence numbers)

Writes are seen by reads a little later, as there; counts later still. Scores are exact, as there they are not.
"""

from __future__ import annotations

import base64
import json
import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

VERSION = "2026-07"
ID = re.compile(r"[\x01-\x7F]{1,512}")
LARGEST_REQUEST, LARGEST_ANSWER, LARGEST_METADATA, LONGEST_ADDRESS = 2_000_000, 4_000_000, 40_960, 30_000
NUMBERS = {
    "$gt": lambda value, given: value > given,
    "$gte": lambda value, given: value >= given,
    "$lt": lambda value, given: value < given,
    "$lte": lambda value, given: value <= given,
}


class RefusedError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Namespace:
    """Records as they are, and what was written and is not seen yet."""

    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    pending: list[tuple[float, Callable[[dict[str, Any]], None]]] = field(default_factory=list)
    written: int = 0
    seen: int = 0
    counts: list[tuple[float, int]] = field(default_factory=list)


class PineconeServer:
    """The control plane on one free port of this machine, each index on one of its own, as Pinecone Local does it."""

    def __init__(self, *, key: str = "local", delay: float = 0.03, missing: bool = False) -> None:
        self.key, self.delay = key, delay
        self.missing = missing
        """Whether $ne and $nin hold where the field is missing: that has changed in the service."""
        self.faults, self.asked = [], []
        self.indexes: dict[str, Index] = {}
        self.lock = threading.RLock()
        self.control = _listen(self._control, self)
        self.port = self.control.server_address[1]

    def __enter__(self) -> PineconeServer:
        return self

    def __exit__(self, *_: object) -> None:
        for index in self.indexes.values():
            _stop(index.listener)
        _stop(self.control)

    def _control(self, method: str, path: str, options: dict[str, list[str]], body: bytes) -> tuple[Any, dict[str, str]]:
        name = path.removeprefix("/indexes").strip("/")
        if method == "POST" and not name:
            return self._create(json.loads(body)), {}
        if name not in self.indexes:
            raise RefusedError(404, f"Resource {name} not found")
        if method == "GET":
            return self.indexes[name].told, {}
        if method == "DELETE":
            _stop(self.indexes.pop(name).listener)
            return {}, {}
        raise RefusedError(404, "no such address")

    def _create(self, given: dict[str, Any]) -> Any:
        name, fields = given["name"], given["schema"]["fields"]
        if not re.fullmatch("[a-z0-9]([a-z0-9-]{0,43}[a-z0-9])?", name):
            raise RefusedError(400, "Name must consist of lower case alphanumeric characters or '-'")
        if name in self.indexes:
            raise RefusedError(409, "Resource already exists")
        dense = fields["_values"]
        if set(fields) != {"_values"} or dense["type"] != "dense_vector" or not 1 <= dense["dimension"] <= 20_000:
            raise RefusedError(400, "Dimension must be between 1 and 20000")
        if given["deployment"]["deployment_type"] != "managed":
            raise RefusedError(400, "unknown deployment")
        self.indexes[name] = index = Index(self, dense["dimension"], dense["metric"])
        index.told = {
            "name": name,
            "host": f"127.0.0.1:{index.listener.server_address[1]}",
            "schema": given["schema"],
            "deployment": {"environment": "aped", **given["deployment"]},
            "deletion_protection": "disabled",
            "status": {"ready": True, "state": "Ready"},
        }
        return index.told


class Index:
    def __init__(self, server: PineconeServer, dimension: int, metric: str) -> None:
        self.server, self.dimension, self.metric = server, dimension, metric
        self.told: Any = None
        self.namespaces: dict[str, Namespace] = {}
        self.listener = _listen(self.answer, server)

    def answer(self, method: str, path: str, options: dict[str, list[str]], body: bytes) -> tuple[Any, dict[str, str]]:
        if len(body) > LARGEST_REQUEST:
            raise RefusedError(400, f"Error, message length too large: found {len(body)} bytes, the limit is: 2097152 bytes")
        does = {
            ("POST", "/vectors/upsert"): self._upsert,
            ("POST", "/vectors/delete"): self._delete,
            ("POST", "/vectors/update"): self._update,
            ("POST", "/query"): self._query,
            ("POST", "/vectors/fetch_by_metadata"): self._fetch_by_metadata,
            ("POST", "/describe_index_stats"): self._stats,
            ("GET", "/vectors/fetch"): self._fetch,
            ("GET", "/vectors/list"): self._list,
        }.get((method, path))
        if does is None:
            raise RefusedError(404, "no such address")
        given = json.loads(body) if body else {name: some if name == "ids" else some[0] for name, some in options.items()}
        name = given.pop("namespace", "") or "__default__"
        with self.server.lock:
            space = self.namespaces.get(name, Namespace())
            while space.pending and space.pending[0][0] <= time.monotonic():
                space.pending.pop(0)[1](space.records)
                space.seen += 1
                # Counts "may lag behind updates to the underlying index and corresponding query results".
                space.counts.append((time.monotonic() + 5 * self.server.delay, len(space.records)))
            return does(name, space, **given)

    def _write(self, name: str, space: Namespace, change: Callable[[dict[str, Any]], None]) -> dict[str, str]:
        self.namespaces[name] = space
        last = space.pending[-1][0] if space.pending else 0.0
        space.pending.append((max(last, time.monotonic() + random.uniform(0, self.server.delay)), change))
        space.written += 1
        return {"x-pinecone-request-lsn": str(space.written)}

    def _upsert(self, name: str, space: Namespace, vectors: list[dict[str, Any]]) -> tuple[Any, dict[str, str]]:
        if not 1 <= len(vectors) <= 1000:
            raise RefusedError(400, f"Batch size of {len(vectors)} exceeds the limit of 1000")
        checked = {one["id"]: self._checked(**one) for one in vectors}
        return {"upsertedCount": len(vectors)}, self._write(name, space, lambda records: records.update(checked))

    def _checked(self, id: str, values: list[float], metadata: dict[str, Any] | None = None) -> dict[str, Any]:
        _check_id(id)
        return {"id": id, "values": self._vector(values), "metadata": _metadata(metadata or {})}

    def _vector(self, values: list[float]) -> np.ndarray:
        if len(values) != self.dimension:
            raise RefusedError(
                400, f"Vector dimension {len(values)} does not match the dimension of the index {self.dimension}"
            )
        vector = np.array(values, np.float32)
        if not np.isfinite(vector).all():
            raise RefusedError(400, "vector has a value that is no number")
        if not vector.any():
            raise RefusedError(400, "Dense vectors must contain at least one non-zero value")
        return vector

    def _delete(
        self,
        name: str,
        space: Namespace,
        ids: list[str] | None = None,
        deleteAll: bool = False,  # noqa: N803 -- as the body has it
        filter: Any = None,
    ) -> tuple[Any, dict[str, str]]:
        if name not in self.namespaces:
            raise RefusedError(404, "Namespace not found")
        if deleteAll:
            return {}, self._write(name, space, lambda records: records.clear())
        if filter is not None:
            passes = self._passes(filter)

            def remove(records: dict[str, Any]) -> None:
                for gone in [one["id"] for one in records.values() if passes(one["metadata"])]:
                    del records[gone]

            return {}, self._write(name, space, remove)
        assert ids is not None
        if not 1 <= len(ids) <= 1000:
            raise RefusedError(400, f"Too many ids: {len(ids)}, at most 1000")
        for id in ids:
            _check_id(id)
        return {}, self._write(name, space, lambda records: [records.pop(id, None) for id in ids])

    def _update(
        self,
        name: str,
        space: Namespace,
        id: str,
        setMetadata: dict[str, Any],  # noqa: N803 -- as the body has it
    ) -> tuple[Any, dict[str, str]]:
        """ "Updates to a document that does not exist are accepted but have no effect"."""
        _check_id(id)
        new = _metadata(setMetadata)
        return {}, self._write(name, space, lambda records: id in records and records[id]["metadata"].update(new))

    def _query(
        self,
        name: str,
        space: Namespace,
        topK: int,  # noqa: N803 -- as the body has it
        vector: list[float],
        filter: Any = None,
        includeValues: bool = False,  # noqa: N803
        includeMetadata: bool = False,  # noqa: N803
    ) -> tuple[Any, dict[str, str]]:
        if not 1 <= topK <= 10_000:
            raise RefusedError(400, "topK must be between 1 and 10000")
        asked = self._vector(vector)
        passes = self._passes(filter)
        some = [one for one in space.records.values() if passes(one["metadata"])]
        scores = np.stack([one["values"] for one in some]) @ asked if some else np.empty(0)
        matches = []
        for place in np.argsort(-scores, kind="stable")[:topK].tolist():
            told = self._told(some[place])
            match = {"id": told["id"], "score": float(scores[place])}
            for part, wanted in (("values", includeValues), ("metadata", includeMetadata)):
                match |= {part: told[part]} if wanted else {}
            matches.append(match)
        return {"matches": matches, "namespace": name, "usage": {"readUnits": 1}}, {
            "x-pinecone-max-indexed-lsn": str(space.seen)
        }

    def _fetch(self, name: str, space: Namespace, ids: list[str]) -> tuple[Any, dict[str, str]]:
        if not 1 <= len(ids) <= 1000:
            raise RefusedError(400, "between 1 and 1000 ids are expected")
        found = {id: self._told(space.records[id]) for id in ids if id in space.records}
        return {"vectors": found, "namespace": name, "usage": {"readUnits": 1}}, {}

    def _fetch_by_metadata(
        self,
        name: str,
        space: Namespace,
        filter: dict[str, Any],
        limit: int = 100,
        paginationToken: str | None = None,  # noqa: N803 -- as the body has it
    ) -> tuple[Any, dict[str, str]]:
        if not filter or not 1 <= limit <= 10_000:
            raise RefusedError(400, "Empty filter provided for fetch by metadata request")
        passes = self._passes(filter)
        page = self._page(
            sorted(one for one in space.records if passes(space.records[one]["metadata"])), limit, paginationToken
        )
        return {"vectors": {id: self._told(space.records[id]) for id in page.pop("ids")}, "namespace": name, **page}, {}

    def _list(
        self,
        name: str,
        space: Namespace,
        prefix: str = "",
        limit: str = "100",
        paginationToken: str | None = None,  # noqa: N803 -- as the address has it
    ) -> tuple[Any, dict[str, str]]:
        if not 1 <= int(limit) <= 100:
            raise RefusedError(400, "limit must be between 1 and 100")
        page = self._page(sorted(id for id in space.records if id.startswith(prefix)), int(limit), paginationToken)
        return {"vectors": [{"id": id} for id in page.pop("ids")], "namespace": name, **page}, {}

    def _page(self, ids: list[str], limit: int, token: str | None) -> dict[str, Any]:
        after = base64.b64decode(token).decode() if token else ""
        left = [id for id in ids if id > after]
        page: dict[str, Any] = {"ids": left[:limit]}
        if len(left) > limit:
            page["pagination"] = {"next": base64.b64encode(left[limit - 1].encode()).decode()}
        return page

    def _stats(self, name: str, space: Namespace, filter: Any = None) -> tuple[Any, dict[str, str]]:
        if filter is not None:
            raise RefusedError(
                400, "Serverless and Starter indexes do not support describing index stats with metadata filtering"
            )
        counts = {}
        for each, one in self.namespaces.items():
            told = [count for when, count in one.counts if when <= time.monotonic()]
            counts[each] = {"vectorCount": told[-1] if told else 0}
        total = sum(one["vectorCount"] for one in counts.values())
        return {"namespaces": counts, "dimension": self.dimension, "indexFullness": 0.0, "totalVectorCount": total}, {}

    def _told(self, record: dict[str, Any]) -> dict[str, Any]:
        return record | {"values": record["values"].tolist()}

    def _passes(self, filter: Any) -> Callable[[dict[str, Any]], bool]:
        checked, missing = _filter(filter or {}), self.server.missing
        return lambda metadata: _meets(checked, metadata, missing)


def _check_id(id: str) -> None:
    if not ID.fullmatch(id):
        raise RefusedError(400, "Vector ID must be ASCII, of 1 to 512 characters")


def _metadata(given: dict[str, Any]) -> dict[str, Any]:
    size = len(json.dumps(given, ensure_ascii=False).encode())
    if size > LARGEST_METADATA:
        raise RefusedError(400, f"Metadata size is {size} bytes, which exceeds the limit of 40960 bytes per vector")
    kept: dict[str, Any] = {}
    for name, value in given.items():
        is_list = isinstance(value, list) and all(isinstance(one, str) for one in value)
        if not name or name.startswith("$") or not (is_list or isinstance(value, str | bool | int | float)):
            raise RefusedError(
                400,
                "Metadata value must be a string, number, boolean or list of strings, "
                f"got '{json.dumps(value)}' for field '{name}'",
            )
        kept[name] = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
    return kept


def _filter(given: Any) -> Any:
    """Checked; raises for what is no filter."""
    if not isinstance(given, dict):
        raise RefusedError(400, "a filter is an object")
    for name, told in given.items():
        if name in ("$and", "$or"):
            if not isinstance(told, list) or not told:
                raise RefusedError(400, f"{name} needs a list that is not empty")
            for one in told:
                _filter(one)
        elif name.startswith("$"):
            raise RefusedError(400, f"{name} is not a valid operator")
        else:
            for operator, value in (told if isinstance(told, dict) else {"$eq": told}).items():
                _check_operator(operator, value)
    return given


def _check_operator(operator: str, value: Any) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if operator in NUMBERS:
        good = is_number
    elif operator in ("$eq", "$ne"):
        good = is_number or isinstance(value, str | bool)
    elif operator in ("$in", "$nin"):
        good = isinstance(value, list) and 1 <= len(value) <= 10_000
        good = good and all(isinstance(one, str | int | float) and not isinstance(one, bool) for one in value)
    else:
        good = operator == "$exists" and isinstance(value, bool)
    if not good:
        raise RefusedError(400, f"{operator} is not a valid operator, or {str(value)[:100]} nothing that it takes")


def _meets(filter: dict[str, Any], metadata: dict[str, Any], missing: bool) -> bool:
    def holds(name: str, operator: str, given: Any) -> bool:
        if operator == "$exists":
            return (name in metadata) == given
        if name not in metadata:
            return missing and operator in ("$ne", "$nin")
        value = metadata[name]
        values = value if isinstance(value, list) else [value]
        if operator in NUMBERS:
            return isinstance(value, float) and NUMBERS[operator](value, given)
        wanted = given if isinstance(given, list) else [given]
        any_equal = any(one == other and isinstance(one, bool) == isinstance(other, bool) for one in values for other in wanted)
        return any_equal if operator in ("$eq", "$in") else not any_equal

    for name, told in filter.items():
        if name in ("$and", "$or"):
            if not (all if name == "$and" else any)(_meets(one, metadata, missing) for one in told):
                return False
        elif not all(holds(name, *one) for one in (told if isinstance(told, dict) else {"$eq": told}).items()):
            return False
    return True


Answer = Callable[[str, str, dict[str, list[str]], bytes], tuple[Any, dict[str, str]]]


def _listen(answer: Answer, server: PineconeServer) -> ThreadingHTTPServer:
    handler = type("Asked", (_Handler,), {"answer": staticmethod(answer), "server_": server})
    listener = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    listener.daemon_threads = True
    threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    return listener


def _stop(listener: ThreadingHTTPServer) -> None:
    listener.shutdown()
    listener.server_close()


class _Handler(BaseHTTPRequestHandler):
    answer: Answer
    server_: PineconeServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        asked = urlsplit(self.path)
        server = self.server_
        with server.lock:
            server.asked.append((self.command, asked.path, body))
            fault = server.faults.pop(0) if server.faults else None
        if fault == "cut":
            self._cut()
            return
        try:
            if isinstance(fault, int):
                raise RefusedError(fault, "overloaded")
            if len(self.path) > LONGEST_ADDRESS:
                raise RefusedError(414, "URI Too Long")
            if self.headers.get("api-key") != server.key:
                raise RefusedError(401, "Unauthorized")
            if self.headers.get("x-pinecone-api-version") != VERSION:
                raise RefusedError(400, "Invalid API version")
            found, headers = self.answer(self.command, asked.path, parse_qs(asked.query, keep_blank_values=True), body)
            data = json.dumps(found, ensure_ascii=False).encode()
            if len(data) > LARGEST_ANSWER:
                raise RefusedError(400, "the answer is larger than 4 MB")
            self._send(200, data, headers, fault)
        except RefusedError as error:
            self._send(error.status, json.dumps({"code": 3, "message": str(error), "details": []}).encode(), {}, fault)

    do_POST = do_DELETE = do_GET  # noqa: N815

    def _cut(self) -> None:
        self.close_connection = True
        self.connection.close()

    def _send(self, status: int, data: bytes, headers: dict[str, str], fault: object) -> None:
        if fault == "lost":
            self._cut()
            return
        self.send_response(status)
        for name, value in {"content-type": "application/json", "content-length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
