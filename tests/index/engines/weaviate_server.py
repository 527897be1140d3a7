"""A simulated Weaviate: the REST and gRPC calls that its official client makes, with the rules of the real server.

Written from its documentation (docs.weaviate.io: api/graphql/filters, search/filters, manage-objects/read-all-objects,
config-refs/collections, config-refs/env-vars) and the client's protocol modules. What is not known here is an error.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import socket
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

K1, B = 1.2, 0.75
WINDOW = 10_000
MESSAGE = 10 * 2**20
TEXTS = {"text", "text[]"}


class Refused(Exception):  # noqa: N818
    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Class:
    def __init__(self, told: dict) -> None:
        self.told, self.name = told, told["class"]
        if not re.fullmatch(r"[A-Z][_0-9A-Za-z]{0,255}", self.name):
            raise Refused(422, f"'{self.name}' is not a valid class name")
        self.properties = {}
        for one in told["properties"]:
            [kind] = one["dataType"]
            if kind not in {*TEXTS, "int"} or not re.fullmatch(r"[_A-Za-z][_0-9A-Za-z]{0,230}", one["name"]):
                raise Refused(422, f"property {one['name']}: invalid")
            if one["name"] in ("id", "_id", "_additional"):
                raise Refused(422, f"'{one['name']}' is a reserved property name")
            if kind not in TEXTS and (one.get("tokenization") or one.get("indexSearchable")):
                raise Refused(422, "`indexSearchable` and tokenization are allowed only for text/text[] data types")
            self.properties[one["name"]] = one
        [(self.vector_name, vector)] = told["vectorConfig"].items()
        if vector["vectorIndexType"] not in ("flat", "hnsw") or vector["vectorIndexConfig"]["distance"] != "dot":
            raise Refused(422, "vector index: not simulated")
        if not vector["vectorIndexConfig"].get("skipDefaultQuantization"):
            raise Refused(422, "the simulation does not quantise")
        self.objects: dict[str, dict] = {}  # id → {"properties", "vector"}
        self.inverted: dict[str, dict[str, set[str]]] = {name: {} for name in self.properties}
        self.dimension = 0

    def put(self, key: str, properties: dict, vector: np.ndarray | None) -> None:
        if str(uuid.UUID(key)) != key:
            raise Refused(422, f"'{key}' is not a valid uuid")
        for name, value in properties.items():
            if name not in self.properties:
                raise Refused(422, f"no such prop with name '{name}' found in class '{self.name}'")
            [kind] = self.properties[name]["dataType"]
            fits = {"text": isinstance(value, str), "int": isinstance(value, float) and value == int(value)}
            fits["text[]"] = isinstance(value, list) and all(isinstance(one, str) for one in value)
            if not fits[kind]:
                raise Refused(422, f"invalid {kind} property '{name}' on class '{self.name}'")
        if vector is not None:
            self.dimension = self.dimension or len(vector)
            if len(vector) != self.dimension:
                raise Refused(422, f"new node has a vector with length {len(vector)}. Existing nodes have {self.dimension}")
        tokens = {
            name: [token for text in ([value] if isinstance(value, str) else value) for token in self.tokens(name, text)]
            for name, value in properties.items()
            if self.properties[name]["dataType"][0] in TEXTS
        }
        self.remove(key)
        self.objects[key] = {"properties": properties, "vector": vector, "tokens": tokens}
        for name, texts in tokens.items():
            for token in texts:
                self.inverted[name].setdefault(token, set()).add(key)

    def remove(self, key: str) -> None:
        for name, texts in self.objects.pop(key, {"tokens": {}})["tokens"].items():
            for token in set(texts):
                self.inverted[name][token].discard(key)

    def tokens(self, name: str, text: str) -> list[str]:
        how = self.properties[name]["tokenization"]
        return [text.strip()] if how == "field" else text.split() if how == "whitespace" else re.findall(r"\w+", text.lower())

    def passing(self, told) -> set[str]:
        """The ids of the objects that a filter lets through."""
        operator = type(told).Operator.Name(told.operator).removeprefix("OPERATOR_")
        if operator in ("AND", "OR", "NOT"):
            parts = [self.passing(part) for part in told.filters]
            if operator == "NOT":
                [part] = parts
                return set(self.objects) - part
            return set.intersection(*parts) if operator == "AND" else set().union(*parts)
        name = told.target.property
        if name == "_id":
            if operator != "CONTAINS_ANY":
                raise Refused(422, f"id filter with {operator}: not simulated")
            return {str(uuid.UUID(one)) for one in told.value_text_array.values} & set(self.objects)
        if name not in self.properties:
            raise Refused(422, f"no such prop with name '{name}' found in class '{self.name}'")
        if not self.properties[name].get("indexFilterable", True):
            raise Refused(422, f"Filtering by property '{name}' requires inverted index")
        held = self.inverted[name]
        if operator == "CONTAINS_ANY":
            if not told.value_text_array.values:
                raise Refused(422, "empty list")
            wanted = {token for text in told.value_text_array.values for token in self.tokens(name, text)}
            return set().union(*(held.get(token, ()) for token in wanted))
        if operator == "LIKE":
            # Some versions take what else means something in a regular expression as that: nothing of it may be there.
            assert not re.search(r"[.+()|\[\]{}^$\\]", told.value_text), told.value_text
            [token] = self.tokens(name, told.value_text)
            pattern = re.compile(token.replace("?", ".").replace("*", ".*"))
            return set().union(*(keys for one, keys in held.items() if pattern.fullmatch(one)))
        raise Refused(422, f"filter with {operator}: not simulated")

    def matching(self, request) -> dict[str, dict]:
        if not request.HasField("filters"):
            return dict(self.objects)
        return {key: self.objects[key] for key in self.passing(request.filters)}

    def bm25(self, query: str, name: str) -> dict[str, float]:
        if not self.properties[name].get("indexSearchable", True):
            raise Refused(422, f"Searching by property '{name}' requires inverted index")
        lengths = {key: len(tokens) for key, one in self.objects.items() if (tokens := one["tokens"].get(name))}
        average, scores = sum(lengths.values()) / max(len(lengths), 1), Counter()
        for term, times in Counter(self.tokens(name, query)).items():
            holding = self.inverted[name].get(term, set())
            idf = math.log1p((len(lengths) - len(holding) + 0.5) / (len(holding) + 0.5))
            for key in holding:
                frequency = self.objects[key]["tokens"][name].count(term)
                scores[key] += times * idf * frequency / (frequency + K1 * (1 - B + B * lengths[key] / average))
        return scores


class Database:
    def __init__(self) -> None:
        self.classes: dict[str, Class] = {}
        self.lock = threading.RLock()
        self.version = "1.33.0"
        self.key = ""
        self.item_errors: list[str] = []  # what the next objects of batches meet with
        self.unavailable = 0  # so many of the next gRPC calls are turned away
        self.cuts = 0  # so many of the next gRPC calls are done but not answered
        self.levels: set[str] = set()
        self.rest_failures: list[int] = []

    def get(self, name: str) -> Class:
        if name not in self.classes:
            raise Refused(422, f"could not find class {name} in schema")
        return self.classes[name]

    def rest(self, method: str, path: str, body: bytes) -> tuple[int, object]:
        if self.rest_failures:
            raise Refused(self.rest_failures.pop(0), "try again")
        _, version, *parts = path.split("/")
        assert version == "v1"
        match (method, parts):
            case ("GET", ["meta"]):
                return 200, {"hostname": "http://[::]:8080", "version": self.version, "grpcMaxMessageSize": MESSAGE}
            case ("GET", [".well-known", "openid-configuration"]):
                return 404, None
            case ("POST", ["schema"]):
                made = Class(json.loads(body))
                if made.name.lower() in {name.lower() for name in self.classes}:
                    raise Refused(422, f"class name {made.name} already exists")
                self.classes[made.name] = made
                return 200, made.told
            case ("GET", ["schema", name]):
                return (200, self.classes[name].told) if name in self.classes else (404, None)
            case ("DELETE", ["schema", name]):
                if self.classes.pop(name, None) is None:
                    raise Refused(400, f"could not find class {name}")
                return 200, None
        raise Refused(404, f"{method} {path}: not simulated")


def servicer(database: Database):
    """The gRPC service; made here, since the client that brings its modules may be missing."""
    import grpc
    from weaviate.proto.v1 import (
        aggregate_pb2,
        base_pb2,
        batch_delete_pb2,
        batch_pb2,
        properties_pb2,
        search_get_pb2,
        weaviate_pb2_grpc,
    )

    def value_of(value) -> object:
        if isinstance(value, list):
            return properties_pb2.Value(
                list_value=properties_pb2.ListValue(text_values=properties_pb2.TextValues(values=value))
            )
        if isinstance(value, float):
            return properties_pb2.Value(int_value=int(value))
        return properties_pb2.Value(text_value=value)

    def floats(told) -> np.ndarray | None:
        """Of an object or of a query; vectors have names here."""
        if getattr(told, "vector_bytes", b""):
            raise Refused(422, "a vector without a name: not simulated")
        return np.frombuffer(told.vectors[0].vector_bytes, "<f4").copy() if told.vectors else None

    def guarded(call):
        def answer(self, request, context):
            headers = dict(context.invocation_metadata())
            if database.key and headers.get("authorization") != f"Bearer {database.key}":
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "unauthorized: anonymous access not enabled")
            if database.unavailable:
                database.unavailable -= 1
                context.abort(grpc.StatusCode.UNAVAILABLE, "the node is starting")
            if hasattr(request, "consistency_level"):
                database.levels.add(base_pb2.ConsistencyLevel.Name(request.consistency_level))
            try:
                with database.lock:
                    reply = call(request)
            except Refused as error:
                context.abort(grpc.StatusCode.UNKNOWN, error.reason)
            if database.cuts:
                database.cuts -= 1
                context.abort(grpc.StatusCode.UNAVAILABLE, "connection lost")
            return reply

        return answer

    def search(request):
        of = database.get(request.collection)
        if request.limit > WINDOW or request.offset:
            raise Refused(422, "query maximum results exceeded")
        passing, scores, distances = of.matching(request), {}, {}
        keys = sorted(passing)  # as their bytes are
        if request.HasField("near_vector"):
            asked = floats(request.near_vector)
            keys = [key for key in keys if passing[key]["vector"] is not None]
            if keys:
                if len(asked) != of.dimension:
                    raise Refused(422, f"vector lengths don't match: {of.dimension} vs {len(asked)}")
                found = -(np.stack([passing[key]["vector"] for key in keys]) @ asked)
                distances = dict(zip(keys, found.tolist(), strict=True))
                keys = [keys[place] for place in np.argsort(found, kind="stable")]
        elif request.HasField("bm25_search"):
            [name] = request.bm25_search.properties
            scores = {key: score for key, score in of.bm25(request.bm25_search.query, name).items() if key in passing}
            keys = sorted(scores, key=lambda key: -scores[key])
        elif request.after:
            if request.HasField("filters"):
                raise Refused(422, "where cannot be set with after and limit parameters")
            keys = [key for key in keys if key > str(uuid.UUID(request.after))]
        shown, results = list(request.properties.non_ref_properties), []
        if request.properties.return_all_nonref_properties or not request.HasField("properties"):
            shown = list(of.properties)
        for key in keys[: request.limit or 25]:
            one = passing[key]
            metadata = search_get_pb2.MetadataResult(id=key, id_as_bytes=uuid.UUID(key).bytes)
            if request.metadata.distance and key in distances:
                metadata.distance, metadata.distance_present = distances[key], True
            if request.metadata.score and key in scores:
                metadata.score, metadata.score_present = scores[key], True
            if list(request.metadata.vectors) == [of.vector_name] and one["vector"] is not None:
                metadata.vectors.append(
                    base_pb2.Vectors(name=of.vector_name, vector_bytes=one["vector"].astype("<f4").tobytes())
                )
            fields = {name: value_of(one["properties"][name]) for name in shown if name in one["properties"]}
            properties = search_get_pb2.PropertiesResult(
                non_ref_props=properties_pb2.Properties(fields=fields), target_collection=of.name
            )
            results.append(search_get_pb2.SearchResult(properties=properties, metadata=metadata))
        return search_get_pb2.SearchReply(results=results)

    def insert(request):
        errors = []
        for place, told in enumerate(request.objects):
            of = database.classes.get(told.collection)
            if of is None:  # auto-schema
                of = database.classes.setdefault(told.collection, object.__new__(Class))
                raise Refused(422, "the simulation has no auto-schema")
            properties = {
                name: value.string_value if value.WhichOneof("kind") == "string_value" else value.number_value
                for name, value in told.properties.non_ref_properties.fields.items()
            }
            properties |= {one.prop_name: list(one.values) for one in told.properties.text_array_properties}
            properties |= {name: [] for name in told.properties.empty_list_props}
            try:
                if database.item_errors:
                    raise Refused(500, database.item_errors.pop(0))
                of.put(told.uuid, properties, floats(told))
            except Refused as error:
                errors.append(batch_pb2.BatchObjectsReply.BatchError(index=place, error=error.reason))
        return batch_pb2.BatchObjectsReply(errors=errors)

    def remove(request):
        of, failed = database.get(request.collection), 0
        found = of.matching(request)
        if len(found) > WINDOW:
            raise Refused(422, "too many")
        told = []
        for key in found:
            bad = database.item_errors.pop(0) if database.item_errors else ""
            failed += bool(bad)
            if not bad:
                of.remove(key)
            told.append(batch_delete_pb2.BatchDeleteObject(uuid=uuid.UUID(key).bytes, successful=not bad, error=bad))
        return batch_delete_pb2.BatchDeleteReply(
            matches=len(found), failed=failed, successful=len(found) - failed, objects=told if request.verbose else []
        )

    def aggregate(request):
        count = len(database.get(request.collection).matching(request))
        return aggregate_pb2.AggregateReply(single_result=aggregate_pb2.AggregateReply.Single(objects_count=count))

    methods = {"Search": search, "BatchObjects": insert, "BatchDelete": remove, "Aggregate": aggregate}
    return type("Servicer", (weaviate_pb2_grpc.WeaviateServicer,), {name: guarded(call) for name, call in methods.items()})()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    database: Database
    connections: set[socket.socket]

    def setup(self) -> None:
        super().setup()
        self.connections.add(self.connection)

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        try:
            if self.database.key and self.headers.get("authorization") != f"Bearer {self.database.key}":
                raise Refused(401, "anonymous access not enabled")
            with self.database.lock:
                status, told = self.database.rest(self.command, self.path.partition("?")[0], body)
        except Refused as error:
            status, told = error.status, {"error": [{"message": error.reason}]}
        text = b"" if told is None else json.dumps(told).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_DELETE = _serve  # noqa: N815

    def log_message(self, *args: object) -> None:
        pass


class Server:
    """A database on two free ports of this machine, which can go away and come back."""

    def __init__(self) -> None:
        self.database, self.port, self.grpc_port = Database(), 0, 0
        self._connections: set[socket.socket] = set()
        self.start()

    def start(self) -> None:
        import grpc
        from weaviate.proto.v1 import weaviate_pb2_grpc

        handler = type("DatabaseHandler", (Handler,), {"database": self.database, "connections": self._connections})
        self._http = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self._http.daemon_threads = True
        self.port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        limits = [("grpc.max_receive_message_length", MESSAGE), ("grpc.max_send_message_length", MESSAGE)]
        self._grpc = grpc.server(ThreadPoolExecutor(8), options=limits)
        weaviate_pb2_grpc.add_WeaviateServicer_to_server(servicer(self.database), self._grpc)
        self.grpc_port = self._grpc.add_insecure_port(f"127.0.0.1:{self.grpc_port}")
        self._grpc.start()

    def stop(self) -> None:
        self._grpc.stop(0).wait()
        self._http.shutdown()
        self._http.server_close()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def address(self, name: str, options: str = "") -> str:
        return f"weaviate://127.0.0.1:{self.port}/{name}?grpc={self.grpc_port}{options}"


def running() -> Iterator[Callable[[str], str]]:
    """For at_weaviate.py: an address by a collection's name, while the server runs."""
    import pytest

    pytest.importorskip("weaviate", reason="weaviate-client is not installed: make extras", exc_type=ImportError)
    server = Server()
    try:
        yield server.address
    finally:
        server.stop()
