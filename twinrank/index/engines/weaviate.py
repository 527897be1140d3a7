"""Rows in Weaviate 1.33 or later (weaviate://HOST:8080/NAME): a class a collection, and one beside it for meta.

An API key is taken from WEAVIATE_API_KEY. Options: grpc=PORT (50051 where nothing is said), grpc_host=HOST, tls=true,
consistency=ONE, QUORUM or ALL, replicas=N, shards=N, timeout=SECONDS.
"""

from __future__ import annotations

import json
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar, TypeVar

import numpy as np

from twinrank.conditions import meets, translate
from twinrank.errors import CollectionError, EngineError
from twinrank.index.engines.address import Address
from twinrank.index.engines.batches import batches
from twinrank.index.engines.pieces import Record, Texts
from twinrank.index.engines.protocol import Layout, Limits, Row
from twinrank.index.engines.retries import persistent
from twinrank.index.engines.weaviate_language import FIRST_FACT, Clause, FilterLanguage, document_fact
from twinrank.index.engines.weaviate_objects import (
    SHOWN,
    VECTOR,
    bytes_of,
    id_of,
    key_of,
    meta_id,
    meta_object,
    meta_properties,
    object_of,
    row_of,
    row_properties,
    spaced,
)
from twinrank.index.settings import VectorIndexSettings
from twinrank.types import Condition, Keys, Ranking, Vectors

LEAST = (1, 33)
"""The version from which on filters can be negated."""

WINDOW = 10_000
"""What one query gives at most: QUERY_MAXIMUM_RESULTS."""

BATCH, BATCH_ROWS = 4_000_000, 1000
"""Bytes and rows of a request; a server takes 10 MB at least."""

PAGE = 500
"""Rows that one request fetches."""

PIECE = 2_000_000
"""Bytes of a meta text that are kept in one object."""

LAYOUT = "/layout"
"""The meta text in which the layout is: no name of anybody else's holds a slash."""

TOO_LARGE = "larger than max"
"""What gRPC says of a message beyond the server's GRPC_MAX_MESSAGE_SIZE."""

OPTIONS = ("grpc", "grpc_host", "tls", "consistency", "replicas", "shards", "timeout")

T = TypeVar("T")


class WeaviateEngine:
    """Weaviate by its official client, REST and gRPC."""

    title: ClassVar[str] = "Weaviate"
    proven: ClassVar[str] = "only against a simulated wire"
    limits: ClassVar[Limits] = Limits(payload=2**21, document=8192, k=WINDOW, dimension=65_535, fields=32_768)

    def __init__(self, address: Address) -> None:
        address.check_options(OPTIONS)
        if (level := address.options.get("consistency", "QUORUM")) not in ("ONE", "QUORUM", "ALL"):
            raise CollectionError(f"{address}: consistency is {level}; it is ONE, QUORUM or ALL")
        self.address, self._level = address, level
        # Weaviate takes names that differ only in the case of letters for the same.
        plain = "".join(
            "__" if letter == "_" else f"_{letter.lower()}" if letter.isupper() else letter for letter in address.name
        )
        self.name, self.meta = f"Twinrank_{plain}", f"TwinrankMeta_{plain}"
        self._texts = Texts(_Records(self), PIECE)
        self._connected: Any = None
        self._known: Layout | None = None
        self._lock = threading.Lock()

    # -- the collection ----------------------------------------------------------------------------------------------------

    @property
    def words(self) -> bool:
        return self._layout.words

    def exists(self) -> bool:
        return self._is_there("looking for the collection")

    def create(self, layout: Layout) -> None:
        """The class is made last: without it there is no collection, whatever is left of an earlier one's meta."""
        doing = "creating the collection"
        if self._is_there(doing):
            return
        self._unmake(doing, self.meta)
        self._ask(doing, lambda client: self._make(client, self.meta, meta_properties(), None))
        self._texts.set(LAYOUT, json.dumps(asdict(layout)))
        self._ask(doing, lambda client: self._make(client, self.name, row_properties(), layout))

    def drop(self) -> None:
        self._known = None
        for name in (self.name, self.meta):
            self._unmake("dropping the collection", name)

    def describe(self) -> dict[str, str]:
        server = self._ask("asking for the server's state", lambda client: client.get_meta())
        layout = self._layout
        given = {"m": layout.index.m, "ef_construction": layout.index.ef_construction, "ef": layout.index.ef_search}
        chosen = [f"{name} {value}" for name, value in given.items() if value]
        index = "none" if not layout.dimension else "flat" if layout.index.kind == "exact" else ", ".join(["hnsw", *chosen])
        return {"server": f"Weaviate {server['version']}", "index": index, "consistency": self._level}

    def settle(self) -> None:
        pass

    def close(self) -> None:
        with self._lock:
            if self._connected is not None:
                self._connected.close()
                self._connected = None

    # -- meta --------------------------------------------------------------------------------------------------------------

    def get_meta(self, name: str) -> str | None:
        return self._texts.get(name)

    def set_meta(self, name: str, value: str) -> None:
        self._must_be_there(f"writing its {name!r}")
        self._texts.set(name, value)

    # -- rows --------------------------------------------------------------------------------------------------------------

    def upsert(self, rows: Sequence[Row]) -> None:
        if not rows:
            return
        self._must_be_there("writing rows")  # else Weaviate makes a class of its own devising
        for batch in batches(map(object_of, rows), bytes_of, BATCH, BATCH_ROWS):
            self._insert("writing rows", self.name, batch)

    def delete(self, keys: Keys) -> None:
        for some in _parts(keys.tolist(), BATCH_ROWS):
            self._remove("deleting rows", self.name, [id_of(key) for key in some])

    def fetch(self, keys: Keys, *, vectors: bool = False) -> dict[int, Row]:
        ids = [id_of(key) for key in keys.tolist()]
        return {row.key: row for some in _parts(ids, PAGE) for row in self._by_id(some, vectors)}

    def rows_of(self, documents: Sequence[str], *, vectors: bool = False) -> list[Row]:
        found = []
        for some in _parts(list(documents), PAGE):
            passing = FilterLanguage().has([document_fact(document) for document in some])
            pages = self._pages(passing, lambda row, wanted=frozenset(some): row.document in wanted, vectors)  # type: ignore[misc]
            found += [row for page in pages for row in page]
        return found

    def count(self, where: Condition | None = None, *, documents: bool = False) -> int:
        passing = self._passing(where, documents=documents)
        counted = self._of_rows("counting rows", lambda rows: rows.aggregate.over_all(filters=passing, total_count=True))
        return int(counted.total_count or 0)

    def iterate(self, where: Condition | None = None, *, documents: bool = False, vectors: bool = False) -> Iterator[list[Row]]:
        def passes(row: Row) -> bool:
            return (not documents or row.number == 0) and (where is None or meets(where, row.fields))

        return self._pages(self._passing(where, documents=documents), passes, vectors)

    # -- searching ---------------------------------------------------------------------------------------------------------

    def exact(self, where: Condition) -> bool:
        return translate(where, FilterLanguage()).exact

    def search_vectors(self, vector: Vectors, k: int, where: Condition | None = None, keys: Keys | None = None) -> Ranking:
        from weaviate.classes.query import MetadataQuery

        if keys is not None and not len(keys):
            return Ranking.empty()
        asked, passing = np.asarray(vector, np.float32).tolist(), self._passing(where, keys)
        found = self._of_rows(
            "searching vectors",
            lambda rows: rows.query.near_vector(
                asked,
                target_vector=VECTOR,
                filters=passing,
                limit=k,
                return_metadata=MetadataQuery(distance=True),
                return_properties=[],
            ),
        )
        return _ranking(found.objects, [-one.metadata.distance for one in found.objects], k)

    def search_words(self, terms: Sequence[str], k: int, where: Condition | None = None, keys: Keys | None = None) -> Ranking:
        from weaviate.classes.query import MetadataQuery

        if not terms or (keys is not None and not len(keys)):
            return Ranking.empty()
        asked, passing = spaced(terms), self._passing(where, keys)
        found = self._of_rows(
            "searching words",
            lambda rows: rows.query.bm25(
                asked,
                query_properties=["words"],
                filters=passing,
                limit=k,
                return_metadata=MetadataQuery(score=True),
                return_properties=[],
            ),
        )
        return _ranking(found.objects, [one.metadata.score for one in found.objects], k)

    def words_bound(self, terms: Sequence[str]) -> float | None:
        """Nobody knows: how many rows hold a word is counted in each shard."""
        return None

    # -- classes -----------------------------------------------------------------------------------------------------------

    def _make(self, client: Any, name: str, properties: list[Any], layout: Layout | None) -> None:
        from weaviate.classes.config import Configure, StopwordsPreset, VectorDistances
        from weaviate.exceptions import UnexpectedStatusCodeError

        plain = Configure.VectorIndex.Quantizer.none()  # a server may quantise where nothing is said
        index = Configure.VectorIndex.flat(distance_metric=VectorDistances.DOT, quantizer=plain)
        if layout is not None and layout.index.kind != "exact":
            index = Configure.VectorIndex.hnsw(
                distance_metric=VectorDistances.DOT,
                quantizer=plain,
                max_connections=layout.index.m or None,
                ef_construction=layout.index.ef_construction or None,
                ef=layout.index.ef_search or None,
            )
        given = self.address.options
        try:
            client.collections.create(
                name,
                properties=properties,
                vector_config=Configure.Vectors.self_provided(name=VECTOR, vector_index_config=index),
                inverted_index_config=Configure.inverted_index(bm25_b=0.75, bm25_k1=1.2, stopwords_preset=StopwordsPreset.NONE),
                replication_config=Configure.replication(factor=int(given["replicas"])) if "replicas" in given else None,
                sharding_config=Configure.sharding(desired_count=int(given["shards"])) if "shards" in given else None,
            )
        except UnexpectedStatusCodeError as error:
            if error.status_code != 422 or not client.collections.exists(name):  # another was quicker
                raise

    def _unmake(self, doing: str, name: str) -> None:
        def send(client: Any) -> None:
            if client.collections.exists(name):
                client.collections.delete(name)

        self._ask(doing, send)

    @property
    def _layout(self) -> Layout:
        if self._known is None:
            if (told := self._texts.get(LAYOUT)) is None:
                raise EngineError(f"{self.address}: what was to be kept here was never said; create it again")
            layout = json.loads(told)
            self._known = Layout(layout["dimension"], layout["words"], VectorIndexSettings(**layout["index"]))
        return self._known

    # -- asking ------------------------------------------------------------------------------------------------------------

    def _passing(self, where: Condition | None, keys: Keys | None = None, *, documents: bool = False) -> Clause | None:
        from weaviate.classes.query import Filter

        language = FilterLanguage()
        said = None if where is None else translate(where, language).filter
        parts = [] if said is None else [said]
        if keys is not None:
            parts.append(Filter.by_id().contains_any([id_of(key) for key in keys.tolist()]))
        if documents:
            parts.append(language.has([FIRST_FACT]))
        return None if not parts else parts[0] if len(parts) == 1 else language.every(parts)

    def _pages(self, passing: Clause | None, passes: Callable[[Row], bool], vectors: bool) -> Iterator[list[Row]]:
        """What a filter lets through is named at once, up to what one query gives; beyond, all is walked through by id.

        A walk takes no filter in Weaviate: what `passes` is seen here.
        """
        if passing is not None:
            found = self._of_rows(
                "reading rows", lambda rows: rows.query.fetch_objects(filters=passing, limit=WINDOW, return_properties=[])
            )
            if len(found.objects) < WINDOW:
                for some in _parts([str(one.uuid) for one in found.objects], PAGE):
                    yield self._by_id(some, vectors)
                return
        last = None
        while ids := self._walk(last):
            yield [row for row in self._by_id(ids, vectors) if passing is None or passes(row)]
            last = ids[-1]

    def _walk(self, last: str | None) -> list[str]:
        def send(rows: Any) -> list[str]:
            return [str(one.uuid) for one in rows.query.fetch_objects(after=last, limit=PAGE, return_properties=[]).objects]

        return self._of_rows("reading rows", send)

    def _by_id(self, ids: list[str], vectors: bool) -> list[Row]:
        """Where they are more than an answer holds, in halves."""
        try:
            return [row_of(one, vectors) for one in self._objects("reading rows", self.name, ids, SHOWN, vectors)]
        except EngineError as error:
            if TOO_LARGE not in str(error) or len(ids) == 1:
                raise
        half = len(ids) // 2
        return self._by_id(ids[:half], vectors) + self._by_id(ids[half:], vectors)

    def _objects(self, doing: str, name: str, ids: list[str], shown: list[str], vectors: bool = False) -> list[Any]:
        from weaviate.classes.query import Filter

        wanted = Filter.by_id().contains_any(ids)

        def send(client: Any) -> list[Any]:
            query = self._collection(client, name).query
            found = query.fetch_objects(
                filters=wanted, limit=len(ids), include_vector=[VECTOR] if vectors else False, return_properties=shown
            )
            return list(found.objects)

        return self._ask(doing, send)

    def _insert(self, doing: str, name: str, objects: list[Any]) -> None:
        """What a batch's single objects met with is looked at; those that may do better later are sent again."""
        left = objects

        def send(client: Any) -> None:
            nonlocal left
            from weaviate.exceptions import WeaviateInsertManyAllFailedError

            try:
                told = self._collection(client, name).data.insert_many(left)
            except WeaviateInsertManyAllFailedError as error:
                raise _ItemError(error.message) from None
            if told.errors:
                said = next((error.message for error in told.errors.values() if not _passes_away(error.message)), None)
                left = [left[place] for place in told.errors]
                raise _ItemError(said or next(iter(told.errors.values())).message)

        self._ask(doing, send)

    def _remove(self, doing: str, name: str, ids: list[str]) -> None:
        from weaviate.classes.query import Filter

        def send(client: Any) -> None:
            told = self._collection(client, name).data.delete_many(where=Filter.by_id().contains_any(ids), verbose=True)
            if told.failed:
                raise _ItemError(
                    next((one.error for one in told.objects if one.error), None) or f"{told.failed} were not deleted"
                )

        self._ask(doing, send)

    def _of_rows(self, doing: str, call: Callable[[Any], T]) -> T:
        return self._ask(doing, lambda client: call(self._collection(client, self.name)))

    def _collection(self, client: Any, name: str) -> Any:
        from weaviate.classes.config import ConsistencyLevel

        return client.collections.use(name).with_consistency_level(ConsistencyLevel[self._level])

    def _is_there(self, doing: str) -> bool:
        return bool(self._ask(doing, lambda client: client.collections.exists(self.name)))

    def _must_be_there(self, doing: str) -> None:
        if not self._is_there(doing):
            raise EngineError(f"{self.address}, {doing}: there is no such collection")

    def _ask(self, doing: str, call: Callable[[Any], T]) -> T:
        def send() -> T:
            try:
                return call(self._client())
            except Exception as error:
                if "could not find class" in str(error):
                    raise EngineError(f"{self.address}, {doing}: there is no such collection") from None
                raise

        return persistent(send, _is_transient, self.address, doing)

    def _client(self) -> Any:
        """The client, connected; it asks for nothing beyond the server."""
        import weaviate
        from weaviate.classes.init import AdditionalConfig, Auth, Timeout

        with self._lock:
            if self._connected is None:
                place, given = self.address, self.address.options
                key, seconds = os.environ.get("WEAVIATE_API_KEY"), float(given.get("timeout", "60"))
                host, tls = place.host or "localhost", given.get("tls", "false").lower() == "true"
                client = weaviate.connect_to_custom(
                    http_host=host,
                    http_port=place.port or 8080,
                    http_secure=tls,
                    grpc_host=given.get("grpc_host", host),
                    grpc_port=int(given.get("grpc", "50051")),
                    grpc_secure=tls,
                    auth_credentials=Auth.api_key(key) if key else None,
                    additional_config=AdditionalConfig(timeout=Timeout(init=seconds, query=seconds, insert=seconds)),
                    skip_init_checks=True,
                )
                version = client.get_meta()["version"]
                if tuple(int(part) for part in version.split(".")[:2]) < LEAST:
                    client.close()
                    raise EngineError(f"{place}: this is Weaviate {version}; filters need {'.'.join(map(str, LEAST))} or later")
                self._connected = client
                weakref.finalize(self, client.close)  # an engine that nobody closes leaves no open connection
            return self._connected


class _Records:
    """Meta texts as objects of a class of their own."""

    def __init__(self, engine: WeaviateEngine) -> None:
        self._engine = engine

    def get(self, names: Sequence[str]) -> dict[str, Record]:
        """One after the other: what an answer holds is bounded."""
        found: dict[str, Record] = {}
        for name in names:
            for one in self._engine._objects("reading meta", self._engine.meta, [meta_id(name)], ["record"]):
                found[name] = json.loads(one.properties["record"])
        return found

    def put(self, records: Mapping[str, Record]) -> None:
        for name, record in records.items():
            self._engine._insert("writing meta", self._engine.meta, [meta_object(name, record)])

    def delete(self, names: Sequence[str]) -> None:
        self._engine._remove("writing meta", self._engine.meta, [meta_id(name) for name in names])


class _ItemError(Exception):
    """What happened to one object of a batch."""


def _ranking(objects: Sequence[Any], scores: Sequence[float], k: int) -> Ranking:
    keys = np.array([key_of(one) for one in objects], np.int64)
    return Ranking.of(keys, np.array(scores, np.float32), k)


def _parts(items: list[T], size: int) -> Iterator[list[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _is_transient(error: Exception) -> bool:
    import grpc
    from weaviate import exceptions as known

    if TOO_LARGE in str(error):
        return False
    if isinstance(error, _ItemError):
        return _passes_away(str(error))
    if isinstance(error, known.UnexpectedStatusCodeError):
        return error.status_code in (429, 502, 503, 504)
    lost = (
        known.WeaviateConnectionError,
        known.WeaviateTimeoutError,
        known.WeaviateGRPCUnavailableError,
        known.WeaviateStartUpError,
        known.WeaviateRetryError,
    )
    if isinstance(error, lost):
        return True
    cause = error.__cause__ or error.__context__
    if isinstance(cause, grpc.RpcError):
        codes = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED)
        return cause.code() in codes
    return isinstance(cause, lost)


def _passes_away(message: str) -> bool:
    """Whether what is said of an object of a batch may be otherwise soon: other nodes away, memory or time short."""
    return any(
        word in message.lower() for word in ("timeout", "deadline", "unavailable", "connection refused", "not enough memory")
    )
