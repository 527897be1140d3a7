"""A simulated Elasticsearch or OpenSearch: the REST endpoints that the engines use, with the rules of the real servers.

Written from their documentation (dense-vector, query-dsl-knn-query, regexp-syntax, docs-bulk, paginate-search-results,
mapping-settings-limit of www.elastic.co/docs; knn-spaces, knn-methods-engines, k-nn of docs.opensearch.org). What is not known
here is an error, as it is there. Approximate indexes are exact here.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import socket
import threading
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote, urlsplit

import numpy as np

K1, B = 1.2, 0.75
SETTINGS = {"number_of_shards", "number_of_replicas", "mapping.total_fields.limit", "similarity", "max_regex_length"}
PARAMETERS = {
    "_bulk": {"refresh"},
    "_search": {"search_type", "allow_partial_search_results"},
    "_doc": {"refresh"},
    "": {"ignore_unavailable"},
}
SEARCH_KEYS = {"query", "size", "from", "sort", "search_after", "_source", "track_total_hits", "fields"}
LONGEST_TERM, WINDOW, MOST_TERMS, MOST_CLAUSES = 32_766, 10_000, 65_536, 1024


class Refused(Exception):  # noqa: N818
    def __init__(self, status: int, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.status, self.kind, self.reason = status, kind, reason

    @property
    def error(self) -> dict:
        return {"type": self.kind, "reason": self.reason}

    @property
    def body(self) -> dict:
        return {"error": {"root_cause": [self.error], **self.error}, "status": self.status}


def bad(reason: str, kind: str = "illegal_argument_exception") -> Refused:
    return Refused(400, kind, reason)


class Index:
    def __init__(self, name: str, body: dict, vector_type: str) -> None:
        self.name, self.vector_type = name, vector_type
        self.settings = {}
        for key, value in body.get("settings", {}).items():
            plain = key.removeprefix("index.")
            if plain not in SETTINGS | ({"knn"} if vector_type == "knn_vector" else set()):
                raise bad(f"unknown setting [index.{plain}] please check that any required plugins are installed")
            self.settings[plain] = value
        mappings = dict(body.get("mappings", {}))
        if unknown := set(mappings) - {
            "dynamic", "date_detection", "numeric_detection", "dynamic_templates", "_meta", "properties",
        }:  # fmt: skip
            raise bad(f"Root mapping definition has unsupported parameters: {unknown}", "mapper_parsing_exception")
        self.mappings = mappings
        self.types: dict[str, dict] = {}
        self.dynamic = {"": str(mappings.get("dynamic", True)).lower()}
        self._map("", mappings.get("properties", {}))
        self.live: dict[str, dict] = {}  # id → {"source", "values"}
        self.seen: dict[str, dict] = {}
        self._inverted: dict[str, dict] = {}
        self._lengths: dict[str, dict[str, int]] = {}

    def _map(self, prefix: str, properties: dict) -> None:
        for name, told in properties.items():
            path = f"{prefix}{name}"
            told = {"type": "object", **told}
            if told["type"] == "object":
                self.types[path] = told
                self.dynamic[path] = str(told.get("dynamic", self.dynamic[path.rpartition(".")[0]])).lower()
                self._map(f"{path}.", told.get("properties", {}))
            else:
                self._check(path, told)
                self.types[path] = told
        if len(self.types) > self.settings.get("mapping.total_fields.limit", 1000):
            raise bad("Limit of total fields has been exceeded while adding new fields")

    def _check(self, path: str, told: dict) -> None:
        kind, rest = told["type"], set(told) - {"type"}
        allowed = {
            "keyword": {"ignore_above", "index", "doc_values"}, "boolean": set(),
            "long": set(), "integer": set(), "double": set(),
            "text": {"analyzer", "index_options", "similarity"},
            "dense_vector": {"dims", "index", "similarity", "index_options"},
            "knn_vector": {"dimension", "method", "space_type"},
        }  # fmt: skip
        if kind not in allowed or (kind.endswith("_vector") and kind != self.vector_type):
            raise bad(f"No handler for type [{kind}] declared on field [{path}]", "mapper_parsing_exception")
        if rest - allowed[kind]:
            raise bad(f"unknown parameter {rest - allowed[kind]} on mapper [{path}]", "mapper_parsing_exception")
        if kind == "text":
            assert told["analyzer"] in ("keyword", "whitespace", "standard")
            if (named := told.get("similarity", "BM25")) not in {"BM25", *self.settings.get("similarity", {})}:
                raise bad(f"Unknown Similarity type [{named}] for field [{path}]", "mapper_parsing_exception")
        if kind == "dense_vector":
            if not 1 <= told["dims"] <= 4096:
                raise bad(
                    f"The number of dimensions should be in the range [1, 4096] but was [{told['dims']}]",
                    "mapper_parsing_exception",
                )
            assert told["similarity"] in ("max_inner_product", "cosine", "dot_product", "l2_norm")
            options = dict(told["index_options"])
            kind = options.pop("type")
            if set(options) - ({"m", "ef_construction"} if kind.endswith("hnsw") else set()):
                raise bad(f"Mapping definition has unsupported parameters: {options}", "mapper_parsing_exception")
            assert kind in ("flat", "hnsw", "int8_hnsw", "int4_hnsw", "bbq_hnsw")
            if kind == "bbq_hnsw" and told["dims"] < 64:
                raise bad("bbq_hnsw does not support dimensions fewer than 64", "mapper_parsing_exception")
        if kind == "knn_vector":
            if not 1 <= told["dimension"] <= 16_000:
                raise bad("Dimension value cannot be greater than 16000", "mapper_parsing_exception")
            if "method" in told:
                method = told["method"]
                assert self.settings.get("knn") is True, "a method needs index.knn"
                assert set(method) <= {"name", "engine", "space_type", "parameters"}
                assert method["name"] == "hnsw"
                assert method["engine"] in ("faiss", "lucene")
                assert method["space_type"] in ("innerproduct", "l2", "cosinesimil")
                assert set(method.get("parameters", {})) <= {"m", "ef_construction", "ef_search"}

    def put(self, key: str, source: dict) -> None:
        if len(key.encode()) > 512:
            raise bad(f"id [{key}] is too long, must be no longer than 512 bytes")
        values: dict[str, list] = {}
        self._take("", source, values)
        self.live[key] = {"source": source, "values": values}

    def _take(self, prefix: str, source: dict, values: dict[str, list]) -> None:
        for name, value in source.items():
            if not name.strip() or not all(part.strip() for part in name.split(".")):
                raise bad(f"field name cannot contain only whitespace: [{name}]", "document_parsing_exception")
            path = f"{prefix}{name}"
            told = self.types.get(path) or self._introduce(path, value)
            if told is None or (told["type"] == "object" and told.get("enabled") is False):
                continue
            if told["type"] == "object":
                if not isinstance(value, dict):
                    raise bad(f"object mapping for [{path}] tried to parse field as object", "document_parsing_exception")
                self._take(f"{path}.", value, values)
                continue
            self._store(path, told, value, values)

    def _introduce(self, path: str, value: object) -> dict | None:
        parent = path.rpartition(".")[0]
        dynamic = self.dynamic.get(parent, self.dynamic[""])
        if dynamic == "strict":
            raise bad(
                f"mapping set to strict, dynamic introduction of [{path}] within [_doc] is not allowed",
                "strict_dynamic_mapping_exception",
            )
        if dynamic == "false":
            return None
        named = [told for item in self.mappings.get("dynamic_templates", []) for told in item.values()]
        mapping = next((told["mapping"] for told in named if fnmatchcase(path, told["path_match"])), None)
        first = value[0] if isinstance(value, list) and value else value
        if mapping is None:
            usual = {bool: "boolean", int: "long", float: "double", str: "keyword", dict: "object"}
            mapping = {"type": usual[type(first)]}
        parent_path, _, name = path.rpartition(".")
        self._map(f"{parent_path}." if parent_path else "", {name: mapping})
        return self.types[path]

    def _store(self, path: str, told: dict, value: object, values: dict[str, list]) -> None:
        kind = told["type"]

        def wrong() -> Refused:
            return bad(f"failed to parse field [{path}] of type [{kind}]: {str(value)[:50]!r}", "document_parsing_exception")

        if kind in ("dense_vector", "knn_vector"):
            dimension = told.get("dims", told.get("dimension"))
            if not isinstance(value, list) or len(value) != dimension or not np.isfinite(np.array(value, np.float32)).all():
                raise wrong()
            values[path] = [np.array(value, np.float32)]
            return
        kept = values.setdefault(path, [])
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict):
                raise wrong()
            if one is None:
                continue
            if kind in ("keyword", "text"):
                if not isinstance(one, str):
                    raise wrong()
                if len(one.encode()) > LONGEST_TERM:
                    raise bad(f'Document contains at least one immense term in field="{path}"')
                kept.append(one)
            elif kind == "boolean":
                if not isinstance(one, bool):
                    raise wrong()
                kept.append(one)
            else:
                if isinstance(one, bool) or not isinstance(one, (int, float)) or not math.isfinite(one):
                    raise wrong()
                if kind in ("long", "integer") and not (
                    isinstance(one, int) and abs(one) < 2 ** (63 if kind == "long" else 31)
                ):
                    raise wrong()
                kept.append(float(one) if kind == "double" else one)
        if not kept:
            del values[path]

    def refresh(self) -> None:
        self.seen = dict(self.live)
        self._inverted.clear()
        self._lengths.clear()

    def inverted(self, field: str) -> dict:
        """Value of a field → ids of the documents that are seen and hold it."""
        if field not in self._inverted:
            found: dict = {}
            for key, document in self.seen.items():
                for value in document["values"].get(field, ()):
                    found.setdefault("" if isinstance(value, np.ndarray) else value, set()).add(key)
            self._inverted[field] = found
        return self._inverted[field]

    def lengths(self, field: str) -> dict[str, int]:
        if field not in self._lengths:
            self._lengths[field] = {key: len(held) for key, one in self.seen.items() if (held := one["values"].get(field))}
        return self._lengths[field]


class Searching:
    """Queries over what an index lets be seen."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.documents = index.seen

    def matching(self, query: dict) -> set[str]:
        """The ids of the documents that a query lets through."""
        [(kind, told)] = query.items()
        if kind == "match_all":
            return set(self.documents)
        if kind == "match_none":
            return set()
        if kind == "bool":
            return self._bool(told)
        if kind == "exists":
            return set().union(*self.index.inverted(told["field"]).values())
        [(field, given)] = told.items()
        of = self.index.types.get(field, {}).get("type")
        if of in ("dense_vector", "knn_vector"):
            raise bad(f"Field [{field}] of type [{of}] doesn't support {kind} queries", "query_shard_exception")
        held = self.index.inverted(field)
        if kind == "terms":
            if len(given) > MOST_TERMS:
                raise bad(
                    f"The number of terms [{len(given)}] used in the Terms Query request has exceeded the maximum of [65536]"
                )
            return set().union(*(held.get(self._value(of, one), ()) for one in given))
        if kind == "term":
            return set(held.get(self._value(of, given["value"] if isinstance(given, dict) else given), ()))
        if kind == "range":
            tests = {"lt": lambda a, b: a < b, "lte": lambda a, b: a <= b, "gt": lambda a, b: a > b, "gte": lambda a, b: a >= b}
            if set(given) - set(tests):
                raise bad(f"[range] query does not support {set(given)}", "parsing_exception")
            bounds = [(tests[name], self._value(of, bound)) for name, bound in given.items()]
            return set().union(*(keys for one, keys in held.items() if all(test(one, bound) for test, bound in bounds)))
        if kind == "regexp":
            assert set(given) <= {"value", "flags"}
            if len(given["value"]) > 1000:
                raise bad("The length of regex used in the Regexp Query request has exceeded the allowed maximum of [1000]")
            pattern = lucene_regexp(given["value"], given.get("flags", "ALL"))
            return set().union(*(keys for one, keys in held.items() if pattern.fullmatch(one)))
        raise bad(f"unknown query [{kind}]", "parsing_exception")

    def _bool(self, told: dict) -> set[str]:
        if set(told) - {"filter", "must", "should", "must_not", "minimum_should_match"}:
            raise bad(f"[bool] query does not support {set(told)}", "parsing_exception")
        parts = {name: told.get(name, []) for name in ("filter", "must", "should", "must_not")}
        parts = {name: [part] if isinstance(part, dict) else part for name, part in parts.items()}
        if sum(map(len, parts.values())) > MOST_CLAUSES:
            raise bad("maxClauseCount is set to 1024", "too_many_nested_clauses")
        every = [self.matching(part) for part in (*parts["filter"], *parts["must"])]
        some = [self.matching(part) for part in parts["should"]]
        found = set(self.documents) if not every else set.intersection(*every)
        least = told.get("minimum_should_match", 0 if every else min(1, len(some)))
        assert least in (0, 1)
        if least:
            found &= set().union(*some)
        return found.difference(*(self.matching(part) for part in parts["must_not"]))

    def _value(self, of: str | None, value: object) -> object:
        if of == "boolean" and not isinstance(value, bool):
            raise bad(f"Can't parse boolean value [{value}], expected [true] or [false]")
        if of in ("double", "long", "integer") and (isinstance(value, (str, bool))):
            raise bad(f'For input string: "{value}"', "number_format_exception")
        return float(value) if of == "double" else value  # type: ignore[arg-type]

    def scored(self, query: dict) -> dict[str, float]:
        """_score by key."""
        [(kind, told)] = query.items()
        if kind == "knn":
            return self._knn_query(told)
        if kind == "script_score":
            return self._script(told)
        keys = self.matching(query)
        should = told.get("should", []) if kind == "bool" else [query] if kind == "term" else []
        scores = dict.fromkeys(keys, 0.0 if kind == "bool" else 1.0)
        for part in [one for one in ([should] if isinstance(should, dict) else should) if "term" in one]:
            [(field, given)] = part["term"].items()
            if self.index.types.get(field, {}).get("type") == "text":
                for key, score in self._bm25(field, given["value"], given.get("boost", 1.0)).items():
                    if key in scores:
                        scores[key] += score
        return scores

    def _bm25(self, field: str, term: str, boost: float) -> dict[str, float]:
        lengths = self.index.lengths(field)
        holding = {key: self.documents[key]["values"][field].count(term) for key in self.index.inverted(field).get(term, ())}
        if not holding:
            return {}
        average = sum(lengths.values()) / len(lengths)
        idf = math.log1p((len(lengths) - len(holding) + 0.5) / (len(holding) + 0.5))
        scale = K1 + 1 if self.index.vector_type == "dense_vector" else 1.0  # OpenSearch 3 left that factor out
        return {
            key: boost * scale * idf * times / (times + K1 * (1 - B + B * lengths[key] / average))
            for key, times in holding.items()
        }

    def nearest(self, field: str, vector: list[float], filter: dict | None, k: int) -> dict[str, float]:
        dimension = self.index.types[field].get("dims", self.index.types[field].get("dimension"))
        if len(vector) != dimension:
            raise bad(
                f"the query vector has a different dimension [{len(vector)}] than the index vectors [{dimension}]",
                "query_shard_exception",
            )
        passing = self.matching(filter or {"match_all": {}})
        keys = [key for key in self.documents if key in passing and field in self.documents[key]["values"]]
        if not keys:
            return {}
        matrix = np.stack([self.documents[key]["values"][field][0] for key in keys])
        dots = matrix @ np.array(vector, np.float32)
        scores = np.where(dots < 0, 1 / (1 - np.minimum(dots, 0)), dots + 1).astype(np.float32)
        best = np.argsort(-scores, kind="stable")[:k]
        return {keys[place]: float(scores[place]) for place in best}

    def knn_section(self, told: dict) -> dict[str, float]:
        """Elasticsearch's."""
        if set(told) - {"field", "query_vector", "k", "num_candidates", "filter", "rescore_vector"}:
            raise bad(f"[knn] unknown field {set(told)}", "x_content_parse_exception")
        if not 1 <= told["k"] <= told["num_candidates"] <= WINDOW:
            raise bad("[num_candidates] cannot be less than [k], nor exceed [10000]")
        field = self.index.types.get(told["field"], {})
        if field.get("type") != "dense_vector":
            raise bad("[knn] queries are only supported on [dense_vector] fields", "query_shard_exception")
        return self.nearest(told["field"], told["query_vector"], told.get("filter"), told["k"])

    def _knn_query(self, told: dict) -> dict[str, float]:
        """OpenSearch's."""
        [(field, given)] = told.items()
        if self.index.vector_type != "knn_vector" or not isinstance(given, dict):
            raise bad(f"[knn] query malformed, no start_object after query name: {field}", "parsing_exception")
        if self.index.types.get(field, {}).get("type") != "knn_vector" or "method" not in self.index.types[field]:
            raise bad(f"Field '{field}' is not knn_vector type.", "query_shard_exception")
        assert set(given) <= {"vector", "k", "filter", "method_parameters"}
        assert set(given["method_parameters"]) <= {"ef_search"}
        if not 1 <= given["k"] <= WINDOW:
            raise bad("[knn] requires 0 < k <= 10000")
        return self.nearest(field, given["vector"], given.get("filter"), given["k"])

    def _script(self, told: dict) -> dict[str, float]:
        script = told["script"]
        assert script["lang"] == "knn"
        assert script["source"] == "knn_score"
        assert script["params"]["space_type"] == "innerproduct"
        field = script["params"]["field"]
        if any(field not in self.documents[key]["values"] for key in self.matching(told["query"])):
            raise bad("A document doesn't have a value for a vector field!", "script_exception")
        return self.nearest(field, script["params"]["query_value"], told["query"], len(self.documents))

    def answer(self, body: dict) -> dict:
        allowed = SEARCH_KEYS | ({"knn"} if self.index.vector_type == "dense_vector" else set())
        if unknown := set(body) - allowed:
            raise bad(f"unknown key {unknown} in the search request", "parsing_exception")
        size, start = body.get("size", 10), body.get("from", 0)
        if size + start > WINDOW:
            raise bad(
                f"Result window is too large, from + size must be less than or equal to: [10000] but was [{size + start}]"
            )
        if "knn" in body and "query" not in body:
            scores = self.knn_section(body["knn"])
        else:
            scores = self.scored(body.get("query", {"match_all": {}}))
        order: list[tuple] = []
        if "sort" in body:
            [[(field, direction)]] = [list(one.items()) for one in body["sort"]]
            assert direction == "asc"
            assert self.index.types[field]["type"] in ("long", "integer", "double", "keyword")
            order = sorted((self.documents[key]["values"][field][0], key) for key in scores)
            if "search_after" in body:
                order = [one for one in order if one[0] > body["search_after"][0]]
            hits = [self._hit(key, None, body) | {"sort": [value]} for value, key in order[start : start + size]]
        else:
            best = sorted(scores, key=lambda key: -scores[key])[start : start + size]
            hits = [self._hit(key, float(np.float32(scores[key])), body) for key in best]
        shards = {"total": 1, "successful": 1, "skipped": 0, "failed": 0}
        return {"took": 1, "timed_out": False, "_shards": shards, "hits": {"max_score": None, "hits": hits}}

    def _hit(self, key: str, score: float | None, body: dict) -> dict:
        source, wanted = self.documents[key]["source"], body.get("_source", True)
        vectors = {path for path, told in self.index.types.items() if told["type"] == "dense_vector"}
        if wanted is True:
            wanted = [name for name in source if name not in vectors]
        hit: dict = {"_index": self.index.name, "_id": key, "_score": score}
        if wanted is not False:
            hit["_source"] = {name: source[name] for name in wanted if name in source and name not in vectors}
        values = self.documents[key]["values"]
        given = {field: values[field][0].tolist() for field in body.get("fields", []) if field in values}
        return {**hit, "fields": given} if given else hit


def lucene_regexp(value: str, flags: str) -> re.Pattern[str]:
    """The part of Lucene's syntax that is used, in Python's; all else that means something there is an error here."""
    reserved = '?+*|{}()"]' + ("" if flags == "NONE" else "#@&<>~")
    said, place = "", 0
    while place < len(value):
        letter = value[place]
        if letter == "\\":
            assert not value[place + 1].isalnum(), "a class such as \\d"
            said, place = said + re.escape(value[place + 1]), place + 2
        elif letter == "[":
            end = value.index("]", place)
            assert value[place + 1 : end].isalpha()
            said, place = said + value[place : end + 1], end + 1
        elif letter == "." and value[place + 1 : place + 2] == "*":
            said, place = said + ".*", place + 2
        else:
            if letter in reserved:
                raise bad(f"unexpected {letter!r} at position {place} of {value!r}")
            said, place = said + ("." if letter == "." else re.escape(letter)), place + 1
    return re.compile(said, re.DOTALL)


class Cluster:
    """All indexes; `flavour` is elasticsearch or opensearch."""

    def __init__(self, flavour: str) -> None:
        self.flavour = flavour
        self.vector_type = "dense_vector" if flavour == "elasticsearch" else "knn_vector"
        self.indexes: dict[str, Index] = {}
        self.lock = threading.RLock()
        self.failures: list[int] = []  # statuses that the next requests get instead of an answer
        self.busy_items: list[int] = []  # statuses that the next items of bulk requests get
        self.cuts = 0  # so many of the next requests are done but not answered
        self.authorization = ""
        self.requests: list[tuple[str, str]] = []

    def index(self, name: str) -> Index:
        if name not in self.indexes:
            raise Refused(404, "index_not_found_exception", f"no such index [{name}]")
        return self.indexes[name]

    def answer(
        self, method: str, path: str, params: dict[str, str], body: bytes, headers: dict[str, str]
    ) -> tuple[int, object]:
        self.requests.append((method, path))
        if self.failures:
            status = self.failures.pop(0)
            raise Refused(status, "es_rejected_execution_exception", "the queue is full")
        if self.authorization and headers.get("authorization") != self.authorization:
            raise Refused(401, "security_exception", f"missing authentication credentials for REST request [{path}]")
        if len(body) > 100 * 2**20:
            raise Refused(413, "content_too_long", "entity too large")
        parts = [unquote(part) for part in path.strip("/").split("/") if part]
        command = next((part for part in parts if part.startswith("_")), "")
        if unknown := set(params) - PARAMETERS.get(command, set()):
            raise bad(f"request [{path}] contains unrecognized parameter: {sorted(unknown)}")
        json_body = json.loads(body) if body and command != "_bulk" else {}
        if not parts:
            return 200, {"name": "node", "version": {"number": {"elasticsearch": "9.2.0", "opensearch": "3.3.0"}[self.flavour]}}
        with self.lock:
            return self._route(method, parts, command, params, json_body, body)

    def _route(self, method: str, parts: list[str], command: str, params: dict, body: dict, raw: bytes) -> tuple[int, object]:
        name = parts[0]
        match (method, command, len(parts)):
            case ("HEAD", "", 1):
                return (200 if name in self.indexes else 404), None
            case ("PUT", "", 1):
                if name != name.lower() or re.search(r'[\\/*?"<>| ,#:]', name) or name[0] in "-_+":
                    raise bad(f"Invalid index name [{name}], must be lowercase", "invalid_index_name_exception")
                if name in self.indexes:
                    raise bad(f"index [{name}/x] already exists", "resource_already_exists_exception")
                self.indexes[name] = Index(name, body, self.vector_type)
                return 200, {"acknowledged": True, "shards_acknowledged": True, "index": name}
            case ("DELETE", "", 1):
                names = name.split(",")
                for one in names:
                    if params.get("ignore_unavailable") != "true":
                        self.index(one)
                for one in names:
                    self.indexes.pop(one, None)
                return 200, {"acknowledged": True}
            case ("GET", "_mapping", 2):
                return 200, {name: {"mappings": self.index(name).mappings}}
            case ("GET", "_stats", 3):
                self.index(name)
                return 200, {"_all": {"total": {"store": {"size_in_bytes": 1000}}}}
            case ("POST", "_refresh", 2):
                self.index(name).refresh()
                return 200, {"_shards": {"failed": 0}}
            case ("POST", "_count", 2):
                count = len(Searching(self.index(name)).matching(body["query"]))
                return 200, {"count": count, "_shards": {"total": 1, "failed": 0}}
            case ("POST", "_search", 2):
                return 200, Searching(self.index(name)).answer(body)
            case (_, "_doc", 3):
                return self._document(method, name, parts[2], body)
            case ("POST", "_bulk", 2):
                return 200, self._bulk(name, raw, params)
        raise bad(f"no handler found for uri [{'/'.join(parts)}] and method [{method}]")

    def _document(self, method: str, name: str, key: str, body: dict) -> tuple[int, object]:
        told = {"_index": name, "_id": key}
        if method == "PUT":
            self._made(name).put(key, body)
            return 201, told | {"result": "created"}
        index = self.index(name)
        if key not in index.live:
            return 404, told | ({"found": False} if method == "GET" else {"result": "not_found"})
        if method == "DELETE":
            del index.live[key]
            return 200, told | {"result": "deleted"}
        return 200, told | {"found": True, "_source": index.live[key]["source"]}

    def _made(self, name: str) -> Index:
        """Writing makes an index that is not there: action.auto_create_index."""
        return self.indexes.setdefault(name, Index(name, {}, self.vector_type))

    def _bulk(self, name: str, raw: bytes, params: dict) -> dict:
        assert raw.endswith(b"\n"), "The bulk request must be terminated by a newline [\\n]"
        if params.get("refresh", "false") not in ("true", "false", "wait_for", ""):
            raise bad("Unknown value for refresh")
        index, items, lines = self._made(name), [], iter(raw.decode().split("\n")[:-1])
        for line in lines:
            [(action, about)] = json.loads(line).items()
            key = about["_id"]
            told: dict = {"_index": name, "_id": key, "status": 201}
            source = json.loads(next(lines)) if action == "index" else None
            try:
                if self.busy_items:
                    raise Refused(self.busy_items.pop(0), "es_rejected_execution_exception", "rejected execution")
                if source is not None:
                    index.put(key, source)
                elif index.live.pop(key, None) is None:
                    told |= {"status": 404, "result": "not_found"}
                else:
                    told |= {"status": 200, "result": "deleted"}
            except Refused as error:
                told |= {"status": error.status, "error": error.error}
            items.append({action: told})
        if params.get("refresh") in ("true", "wait_for", ""):
            index.refresh()
        return {"took": 1, "errors": any("error" in next(iter(item.values())) for item in items), "items": items}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    cluster: Cluster
    connections: set[socket.socket]

    def setup(self) -> None:
        super().setup()
        self.connections.add(self.connection)

    def finish(self) -> None:
        self.connections.discard(self.connection)
        super().finish()

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        params = dict(parse_qsl(parts.query, keep_blank_values=True))
        try:
            if body and "json" not in headers.get("content-type", ""):
                raise Refused(415, "media_type_header_exception", "Content-Type header is missing or not supported")
            status, told = self.cluster.answer(self.command, parts.path, params, body, headers)
        except Refused as error:
            status, told = error.status, error.body
        except Exception as error:  # what the simulation does not know
            status, told = 500, Refused(500, type(error).__name__, f"{error!r}").body
        if self.cluster.cuts:
            self.cluster.cuts -= 1
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        text = b"" if told is None or self.command == "HEAD" else json.dumps(told).encode()
        self.send_response(status)
        if self.cluster.flavour == "elasticsearch":
            self.send_header("X-elastic-product", "Elasticsearch")
        accepted = headers.get("accept", "")
        self.send_header("content-type", accepted if "compatible-with=9" in accepted else "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815

    def log_message(self, *args: object) -> None:
        pass


class Server:
    """A cluster on a free port of this machine, which can go away and come back."""

    def __init__(self, flavour: str) -> None:
        self.cluster, self.port = Cluster(flavour), 0
        self._connections: set[socket.socket] = set()
        self.start()

    def start(self) -> None:
        handler = type("ClusterHandler", (Handler,), {"cluster": self.cluster, "connections": self._connections})
        self._http = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self._http.daemon_threads = True
        self.port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """Connections that are open are cut, as when a process dies."""
        self._http.shutdown()
        self._http.server_close()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def address(self, name: str, options: str = "") -> str:
        return f"{self.cluster.flavour}://127.0.0.1:{self.port}/{name}{options}"


def running(flavour: str, library: str) -> Iterator[Callable[[str], str]]:
    """For at_NAME.py: an address by a collection's name, while the server runs."""
    import pytest

    pytest.importorskip(library, reason=f"{library}, the official client, is not installed: make extras")
    server = Server(flavour)
    try:
        yield server.address
    finally:
        server.stop()
