"""What Elasticsearch and OpenSearch share: a collection as an index of Lucene behind REST, and one beside it for meta."""

from __future__ import annotations

import json
import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar
from urllib.parse import quote

import numpy as np

from twinrank.conditions import translate
from twinrank.errors import EngineError
from twinrank.index.engines.address import Address
from twinrank.index.engines.batches import batches
from twinrank.index.engines.pieces import Record, Texts
from twinrank.index.engines.protocol import Layout, Limits, Row
from twinrank.index.engines.querydsl import PROPERTIES, TEMPLATES, Query, QueryLanguage, any_of, encoded
from twinrank.index.engines.retries import persistent
from twinrank.index.settings import VectorIndexSettings
from twinrank.types import Condition, Keys, Ranking, Vectors

BATCH = 5_000_000
"""Bytes of a bulk request, by Elastic's advice; a longer row goes alone."""

PAGE, PAGE_OF_VECTORS = 1000, 250
"""Rows that one request fetches."""

WINDOW = 10_000
"""What one search gives at most: index.max_result_window, and the k of a vector search."""

MOST_CLAUSES = 1024
"""Different words that are searched for at once, the first ones: indices.query.bool.max_clause_count."""

LONGEST_WORD = 8000
"""Letters of a word that count; Lucene refuses terms beyond 32,766 bytes."""

PIECE = 4_000_000
"""Bytes of a meta text that are kept in one document."""

CANDIDATES = 150
"""Vectors that a search keeps in view on each shard where nobody says: a little more than the servers' own."""

OPTIONS = ("tls", "ca", "verify", "timeout", "shards", "replicas")

FIELDS_TO_SHOW = ["document", "number", "payload", "fields"]


MISSING = "document missing"
"""How a document that is not there is told from an index that is not there: both are 404."""


class RefusedError(Exception):
    """An answer of the server's that is an error."""

    def __init__(self, status: int, body: object) -> None:
        error = body.get("error") if isinstance(body, dict) else body
        self.status = status
        self.kind = str(error.get("type")) if isinstance(error, dict) else ""
        if isinstance(body, dict) and body.get("found") is False:
            self.kind = MISSING
        causes = [cause for cause in _causes(error) if cause.get("reason")]
        said = "; ".join(f"{cause.get('type')}: {cause['reason']}" for cause in causes[:3]) or str(error)
        super().__init__(f"{status} {said}{_ADVICE.get(status, '')}")


_ADVICE = {
    401: " (say who asks: a user and a password in the address, or an API key or a password in the environment)",
    403: " (this user may not do that)",
    413: " (the server takes no request as long: http.max_content_length)",
}


class LuceneEngine(ABC):
    """All that the two servers have in common."""

    title: ClassVar[str]
    proven: ClassVar[str]
    limits: ClassVar[Limits]
    options: ClassVar[tuple[str, ...]] = OPTIONS
    logger: ClassVar[str]
    """What the client writes its warnings to."""

    def __init__(self, address: Address) -> None:
        address.check_options(self.options)
        self.address = address
        # Names of indexes are in small letters; two names that differ in the case of letters are two collections.
        plain = "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in address.name)
        self.index, self.meta = f"twinrank-{plain}", f"twinrank-{plain}.meta"
        self._texts = Texts(_Records(self), PIECE)
        self._known: Layout | None = None
        # The clients tell of each failed try with a traceback; what matters of it is in our errors.
        logging.getLogger(self.logger).addHandler(logging.NullHandler())
        self._start()

    # -- what differs ------------------------------------------------------------------------------------------------------

    @abstractmethod
    def _start(self) -> None:
        """Make the client; nothing is asked yet."""

    @abstractmethod
    def _send(self, method: str, path: str, params: Mapping[str, str], body: Query | list[str] | None) -> Any:
        """The answer's JSON; raises RefusedError for an error of the server's, else what the client raises."""

    @abstractmethod
    def _is_lost(self, error: Exception) -> bool:
        """Whether this error of the client's says that the server cannot be reached, or was too slow."""

    @abstractmethod
    def _vector_mapping(self, layout: Layout) -> tuple[Query, Query]:
        """The vector field's mapping and what the index's settings are to say for it."""

    @abstractmethod
    def _vector_query(self, layout: Layout, vector: list[float], k: int, filter: Query | None) -> Query:
        """The part of a search request that finds the nearest vectors."""

    @abstractmethod
    def _with_vectors(self) -> tuple[Query, Callable[[Query], list[float] | None]]:
        """What a request must say to get vectors back, and where they are in a hit."""

    @abstractmethod
    def _kind(self, layout: Layout) -> str:
        """The vector index and its parameters, for people."""

    # -- the collection ----------------------------------------------------------------------------------------------------

    @property
    def words(self) -> bool:
        return self._layout.words

    def exists(self) -> bool:
        return self._is_there("looking for the collection")

    def create(self, layout: Layout) -> None:
        meta = {"mappings": {"dynamic": False}, "settings": self._settings()}
        self._ask("creating the collection", "PUT", f"/{self.meta}", meta, accepted=("resource_already_exists_exception",))
        vector, settings = self._vector_mapping(layout) if layout.dimension else ({}, {})
        properties: Query = {
            "key": {"type": "long"},
            "document": {"type": "keyword"},
            "number": {"type": "integer"},
            "payload": {"type": "object", "enabled": False},
            "fields": {"type": "object", "enabled": False},
            # Every word is a value of its own that nothing takes apart, whatever its letters.
            "words": {"type": "text", "analyzer": "keyword", "index_options": "freqs", "similarity": "words"},
            **PROPERTIES,
            **({"vector": vector} if vector else {}),
        }
        body = {
            "mappings": {
                "dynamic": "strict",
                "date_detection": False,
                "numeric_detection": False,
                "dynamic_templates": TEMPLATES,
                "_meta": {"twinrank": asdict(layout)},
                "properties": properties,
            },
            "settings": {
                **self._settings(),
                **settings,
                "similarity": {"words": {"type": "BM25", "k1": 1.2, "b": 0.75}},
                "index.mapping.total_fields.limit": 10_000,
            },
        }
        self._ask("creating the collection", "PUT", f"/{self.index}", body, accepted=("resource_already_exists_exception",))
        self._known = None

    def drop(self) -> None:
        """Both indexes go in one change of the cluster's state."""
        self._known = None
        self._ask("dropping the collection", "DELETE", f"/{self.index},{self.meta}", ignore_unavailable="true")

    def describe(self) -> dict[str, str]:
        doing = "asking for the server's state"
        server, layout = self._ask(doing, "GET", "/"), self._layout
        stored = self._ask(doing, "GET", f"/{self.index}/_stats/store", accepted=(400, 403, 410)) or {}
        size = stored.get("_all", {}).get("total", {}).get("store", {}).get("size_in_bytes")
        return {
            "server": f"{self.title} {server['version']['number']}",
            "index": self._kind(layout) if layout.dimension else "none",
            **({} if size is None else {"bytes": str(size)}),
        }

    def settle(self) -> None:  # noqa: B027 -- both servers index by themselves
        pass

    def close(self) -> None:
        self.client.close()

    client: Any

    # -- meta --------------------------------------------------------------------------------------------------------------

    def get_meta(self, name: str) -> str | None:
        return self._texts.get(name)

    def set_meta(self, name: str, value: str) -> None:
        self._texts.set(name, value)

    # -- rows --------------------------------------------------------------------------------------------------------------

    def upsert(self, rows: Sequence[Row]) -> None:
        self._write(
            "writing rows",
            ([_json({"index": {"_id": str(row.key)}}), _json(_document(row))] for row in rows),
        )

    def delete(self, keys: Keys) -> None:
        self._write("deleting rows", ([_json({"delete": {"_id": str(key)}})] for key in keys.tolist()))

    def fetch(self, keys: Keys, *, vectors: bool = False) -> dict[int, Row]:
        return {row.key: row for batch in self._pages(any_of("key", keys.tolist()), vectors) for row in batch}

    def rows_of(self, documents: Sequence[str], *, vectors: bool = False) -> list[Row]:
        return [row for batch in self._pages(any_of("document", list(documents)), vectors) for row in batch]

    def count(self, where: Condition | None = None, *, documents: bool = False) -> int:
        doing, query = "counting rows", self._passing(where, documents=documents)
        asked = self._ask(doing, "POST", f"/{self.index}/_count", {"query": query})
        if failed := asked["_shards"]["failed"]:
            raise EngineError(f"{self.address}, {doing}: {failed} of its shards did not answer; look at the cluster's health")
        return int(asked["count"])

    def iterate(self, where: Condition | None = None, *, documents: bool = False, vectors: bool = False) -> Iterator[list[Row]]:
        return self._pages(self._passing(where, documents=documents), vectors)

    # -- searching ---------------------------------------------------------------------------------------------------------

    def exact(self, where: Condition) -> bool:
        return translate(where, QueryLanguage()).exact

    def search_vectors(self, vector: Vectors, k: int, where: Condition | None = None, keys: Keys | None = None) -> Ranking:
        filter = None if where is None and keys is None else self._passing(where, keys)
        asked = self._vector_query(self._layout, np.asarray(vector, np.float32).tolist(), k, filter)
        found = self._search("searching vectors", {**asked, "size": k})
        scores = np.array([hit["_score"] for hit in found], np.float64)
        return _ranking(found, np.where(scores >= 1, scores - 1, 1 - 1 / np.maximum(scores, np.finfo(np.float32).tiny)), k)

    def search_words(self, terms: Sequence[str], k: int, where: Condition | None = None, keys: Keys | None = None) -> Ranking:
        """Words beyond the first 1,024 different ones are left out."""
        times = Counter(term[:LONGEST_WORD] for term in terms)
        if not times:
            return Ranking.empty()
        wanted = [
            {"term": {"words": {"value": term, "boost": float(count)}}} for term, count in list(times.items())[:MOST_CLAUSES]
        ]
        query: Query = {"bool": {"should": wanted, "minimum_should_match": 1}}
        if where is not None or keys is not None:
            query["bool"]["filter"] = [self._passing(where, keys)]
        # Shards tell each other first how many rows hold a word, so that the score does not hang on where a row lies.
        found = self._search("searching words", {"query": query, "size": k}, search_type="dfs_query_then_fetch")
        return _ranking(found, np.array([hit["_score"] for hit in found]), k)

    def words_bound(self, terms: Sequence[str]) -> float | None:
        """Nobody knows: rows that were deleted or replaced count until their segments are merged."""
        return None

    # -- asking ------------------------------------------------------------------------------------------------------------

    @property
    def _layout(self) -> Layout:
        if self._known is None:
            told = self._ask("reading its mapping", "GET", f"/{self.index}/_mapping")
            [mapping] = told.values()
            layout = (mapping["mappings"].get("_meta") or {}).get("twinrank")
            if layout is None:
                raise EngineError(f"{self.address}: the index {self.index} was not made by twinrank; choose another name")
            self._known = Layout(layout["dimension"], layout["words"], VectorIndexSettings(**layout["index"]))
        return self._known

    def _is_there(self, doing: str) -> bool:
        return bool(self._ask(doing, "HEAD", f"/{self.index}"))

    def _settings(self) -> Query:
        given = self.address.options
        return {f"number_of_{name}": int(given[name]) for name in ("shards", "replicas") if name in given}

    def _passing(self, where: Condition | None, keys: Keys | None = None, *, documents: bool = False) -> Query:
        parts: list[Query] = [] if where is None else [part] if (part := translate(where, QueryLanguage()).filter) else []
        if keys is not None:
            parts.append(any_of("key", keys.tolist()))
        if documents:
            parts.append({"term": {"number": 0}})
        return QueryLanguage().every(parts) if parts else {"match_all": {}}

    def _pages(self, query: Query, vectors: bool) -> Iterator[list[Row]]:
        """By key, each page after the last key of the one before: nothing is held open, and no row comes twice."""
        if "match_none" in query:
            return
        extra, vector_of = self._with_vectors() if vectors and self._layout.dimension else ({}, lambda hit: None)
        size = PAGE_OF_VECTORS if vectors else PAGE
        body: Query = {"query": query, "sort": [{"key": "asc"}], "size": size, "_source": FIELDS_TO_SHOW, **extra}
        while found := self._search("reading rows", body):
            yield [_row(hit, vector_of(hit)) for hit in found]
            if len(found) < size:
                return
            body["search_after"] = found[-1]["sort"]

    def _search(self, doing: str, body: Query, **params: str) -> list[Query]:
        """The hits; an error rather than those of some shards."""
        body = {"_source": False, "track_total_hits": False, **body}
        params |= {"allow_partial_search_results": "false"}
        return list(self._ask(doing, "POST", f"/{self.index}/_search", body, **params)["hits"]["hits"])

    def _write(self, doing: str, actions: Iterator[list[str]]) -> None:
        """Bulk requests that come back once all is written and seen by searches."""
        parts = batches(actions, lambda action: sum(len(line.encode()) + 1 for line in action), BATCH)
        first = next(parts, None)
        if first is None:
            return
        # A bulk request would make an index that is not there, of its own devising.
        if not self._is_there(doing):
            raise EngineError(f"{self.address}, {doing}: there is no such collection")
        second = next(parts, None)
        self._bulk(doing, first, "wait_for" if second is None else "false")
        if second is not None:
            self._bulk(doing, second, "false")
            for batch in parts:
                self._bulk(doing, batch, "false")
            self._ask(doing, "POST", f"/{self.index}/_refresh")

    def _bulk(self, doing: str, batch: list[list[str]], refresh: str) -> None:
        """What the server was too busy for is sent again; what it refused is an error."""
        left = batch

        def send() -> None:
            nonlocal left
            lines = [line for action in left for line in action]
            answer = self._send("POST", f"/{self.index}/_bulk", {"refresh": refresh}, lines)
            told = [next(iter(item.values())) for item in answer["items"]]
            failed = [
                (action, item)
                for action, item in zip(left, told, strict=True)
                if item["status"] >= 300 and not (item["status"] == 404 and "error" not in item)  # deleted before
            ]
            left = [action for action, item in failed if _is_busy(item["status"])]
            worst = sorted((item for _, item in failed), key=lambda item: _is_busy(item["status"]))
            if worst:
                raise RefusedError(worst[0]["status"], worst[0])

        persistent(send, self._is_transient, self.address, doing)

    def _ask(
        self, doing: str, method: str, path: str, body: Query | None = None, accepted: Sequence[int | str] = (), **params: str
    ) -> Any:
        """The answer's JSON; None for an error whose status or type is among those `accepted`."""

        def send() -> Any:
            try:
                return self._send(method, path, params, body)
            except RefusedError as error:
                if error.status in accepted or (error.kind in accepted and error.status in (400, 404)):
                    return None
                if error.kind == "index_not_found_exception":
                    raise EngineError(f"{self.address}, {doing}: there is no such collection") from None
                raise

        return persistent(send, self._is_transient, self.address, doing)

    def _is_transient(self, error: Exception) -> bool:
        return _is_busy(error.status) if isinstance(error, RefusedError) else self._is_lost(error)

    def _option(self, name: str, usual: str = "") -> str:
        return self.address.options.get(name, usual)

    @property
    def _tls(self) -> bool:
        return self._option("tls", "false").lower() == "true"

    @property
    def _verify(self) -> bool:
        return self._option("verify", "true").lower() != "false"


class _Records:
    """Meta texts as documents of an index of their own; they are read by id, which sees what was written at once."""

    def __init__(self, engine: LuceneEngine) -> None:
        self._engine = engine

    def get(self, names: Sequence[str]) -> dict[str, Record]:
        found = {name: self._engine._ask("reading meta", "GET", self._path(name), accepted=(MISSING,)) for name in names}
        return {name: told["_source"] for name, told in found.items() if told is not None}

    def put(self, records: Mapping[str, Record]) -> None:
        for name, record in records.items():
            self._engine._ask("writing meta", "PUT", self._path(name), dict(record))

    def delete(self, names: Sequence[str]) -> None:
        for name in names:
            self._engine._ask("writing meta", "DELETE", self._path(name), accepted=(404,))

    def _path(self, name: str) -> str:
        return f"/{self._engine.meta}/_doc/{quote(name, safe='')}"


def _document(row: Row) -> Query:
    document = {
        "key": row.key,
        "document": row.document,
        "number": row.number,
        "payload": row.payload,
        "fields": _json(dict(row.fields)),  # as text: numbers come back as they were
        **encoded(row.fields),
        "words": [term[:LONGEST_WORD] for term in row.terms],
    }
    return document if row.vector is None else {**document, "vector": np.asarray(row.vector, np.float32).tolist()}


def _row(hit: Query, vector: list[float] | None) -> Row:
    source = hit["_source"]
    return Row(
        int(hit["_id"]),
        source["document"],
        source["number"],
        source["payload"],
        json.loads(source["fields"]),
        vector=None if vector is None else np.array(vector, np.float32),
    )


def _ranking(hits: list[Query], scores: np.ndarray[Any, Any], k: int) -> Ranking:
    return Ranking.of(np.array([int(hit["_id"]) for hit in hits], np.int64), scores.astype(np.float32), k)


def _causes(error: object) -> list[Query]:
    """An error and what is said to have caused it, the causes of single shards too."""
    if not isinstance(error, dict):
        return []
    shards = [shard.get("reason") for shard in error.get("failed_shards", ())]
    return [error, *(cause for inner in (error.get("caused_by"), *shards) for cause in _causes(inner))]


def _is_busy(status: int) -> bool:
    return status in (429, 502, 503, 504)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def candidates(layout: Layout, k: int) -> int:
    """How many vectors a search keeps in view to find the `k` nearest."""
    return max(k, layout.index.ef_search or max(CANDIDATES, 3 * k // 2))
