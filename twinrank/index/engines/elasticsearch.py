"""Rows in Elasticsearch (elasticsearch://HOST:9200/NAME) or in OpenSearch (opensearch://HOST:9200/NAME): an index a collection.

A password is taken from the address or from ELASTIC_PASSWORD or OPENSEARCH_PASSWORD, an API key from ELASTIC_API_KEY. Options:
tls=true, ca=FILE, verify=false, timeout=SECONDS, shards=N, replicas=N; of Elasticsearch also fingerprint=SHA256 and
quantisation=int8, int4 or bbq. What stands before the name in the address is a path of a proxy.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from twinrank.index.engines.address import Address
from twinrank.index.engines.lucene import FIELDS_TO_SHOW, OPTIONS, WINDOW, LuceneEngine, RefusedError, candidates
from twinrank.index.engines.protocol import Layout, Limits
from twinrank.index.engines.querydsl import Query, QueryLanguage


class ElasticsearchEngine(LuceneEngine):
    """Elasticsearch 9, by its official client."""

    title: ClassVar[str] = "Elasticsearch"
    proven: ClassVar[str] = "only against a simulated wire"
    limits: ClassVar[Limits] = Limits(payload=2**24, document=8192, k=WINDOW, dimension=4096, fields=32_766)
    options: ClassVar[tuple[str, ...]] = (*OPTIONS, "fingerprint", "quantisation")
    logger: ClassVar[str] = "elastic_transport"

    def _start(self) -> None:
        from elasticsearch import Elasticsearch

        place, key = self.address, os.environ.get("ELASTIC_API_KEY")
        password = place.password or os.environ.get("ELASTIC_PASSWORD", "")
        who: dict[str, Any] = {}
        if password:
            who = {"basic_auth": (place.user or "elastic", password)}
        elif key:
            who = {"api_key": key}
        safe: dict[str, Any] = {}
        if self._tls:
            safe = {"verify_certs": self._verify, "ssl_show_warn": False}
            safe |= {"ca_certs": self._option("ca")} if self._option("ca") else {}
            safe |= {"ssl_assert_fingerprint": self._option("fingerprint")} if self._option("fingerprint") else {}
        self.client = Elasticsearch(
            _url(place, self._tls),
            request_timeout=float(self._option("timeout", "60")),
            max_retries=0,
            retry_on_timeout=False,
            **who,
            **safe,
        )

    def _send(self, method: str, path: str, params: Mapping[str, str], body: Query | list[str] | None) -> Any:
        from elasticsearch import ApiError

        kind = "application/x-ndjson" if isinstance(body, list) else "application/json"
        headers = {"accept": "application/json"} | ({} if body is None else {"content-type": kind})
        try:
            return self.client.perform_request(method, path, params=params, headers=headers, body=body).body
        except ApiError as error:
            raise RefusedError(error.status_code, error.body) from None

    def _is_lost(self, error: Exception) -> bool:
        from elastic_transport import ConnectionError, ConnectionTimeout, TlsError

        return isinstance(error, (ConnectionError, ConnectionTimeout)) and not isinstance(error, TlsError)

    def _vector_mapping(self, layout: Layout) -> tuple[Query, Query]:
        mapping = {
            "type": "dense_vector",
            "dims": layout.dimension,
            "index": True,
            "similarity": "max_inner_product",
            "index_options": self._index_options(layout),
        }
        return mapping, {}

    def _index_options(self, layout: Layout) -> Query:
        """`flat` is exact; all else is HNSW, over the vectors themselves where no quantisation is asked for."""
        quantisation = self._option("quantisation")
        if layout.index.kind == "exact":
            return {"type": "flat"}
        chosen = {"m": layout.index.m, "ef_construction": layout.index.ef_construction}
        return {"type": f"{quantisation}_hnsw" if quantisation else "hnsw"} | {
            name: value for name, value in chosen.items() if value
        }

    def _vector_query(self, layout: Layout, vector: list[float], k: int, filter: Query | None) -> Query:
        knn = {"field": "vector", "query_vector": vector, "k": k, "num_candidates": min(WINDOW, candidates(layout, k))}
        # Scores of quantised vectors are near the dot product; they are computed again from the vectors themselves.
        if self._option("quantisation") and layout.index.kind != "exact":
            knn["rescore_vector"] = {"oversample": 3.0}
        return {"knn": knn if filter is None else knn | {"filter": filter}}

    def _with_vectors(self) -> tuple[Query, Callable[[Query], list[float] | None]]:
        """From 9.2 on a document's source is without its vectors; before it had them; as `fields` they come from both."""
        return {"fields": ["vector"]}, lambda hit: hit.get("fields", {}).get("vector")

    def _kind(self, layout: Layout) -> str:
        return ", ".join(f"{name} {value}" if name != "type" else value for name, value in self._index_options(layout).items())


class OpenSearchEngine(LuceneEngine):
    """OpenSearch 3 (2.16 and later, too), by its official client, with the k-NN plugin that it comes with."""

    title: ClassVar[str] = "OpenSearch"
    proven: ClassVar[str] = "only against a simulated wire"
    limits: ClassVar[Limits] = Limits(payload=2**24, document=8192, k=WINDOW, dimension=16_000, fields=32_766)
    logger: ClassVar[str] = "opensearch"

    def _start(self) -> None:
        from opensearchpy import OpenSearch

        place, password = self.address, self.address.password or os.environ.get("OPENSEARCH_PASSWORD", "")
        safe: dict[str, Any] = {"verify_certs": self._verify, "ssl_show_warn": False} if self._tls else {}
        self.client = OpenSearch(
            [_url(place, self._tls)],
            http_auth=(place.user or "admin", password) if password else None,
            use_ssl=self._tls,
            ca_certs=self._option("ca") or None,
            timeout=float(self._option("timeout", "60")),
            max_retries=0,
            retry_on_timeout=False,
            **safe,
        )

    def _send(self, method: str, path: str, params: Mapping[str, str], body: Query | list[str] | None) -> Any:
        from opensearchpy import ConnectionError, TransportError

        kind = "application/x-ndjson" if isinstance(body, list) else "application/json"
        text = "".join(f"{line}\n" for line in body) if isinstance(body, list) else body
        headers = {} if body is None else {"content-type": kind}
        try:
            return self.client.transport.perform_request(method, path, params=dict(params), headers=headers, body=text)
        except ConnectionError:
            raise
        except TransportError as error:
            raise RefusedError(int(error.status_code), error.info) from None

    def _is_lost(self, error: Exception) -> bool:
        from opensearchpy import ConnectionError, SSLError

        return isinstance(error, ConnectionError) and not isinstance(error, SSLError)

    def _vector_mapping(self, layout: Layout) -> tuple[Query, Query]:
        mapping: Query = {"type": "knn_vector", "dimension": layout.dimension}
        if layout.index.kind == "exact":
            return mapping, {"index.knn": False}
        method: Query = {"name": "hnsw", "engine": "faiss", "space_type": "innerproduct"}
        return mapping | {"method": method | {"parameters": self._parameters(layout)}}, {"index.knn": True}

    def _parameters(self, layout: Layout) -> Query:
        chosen = {"m": layout.index.m, "ef_construction": layout.index.ef_construction}
        return {name: value for name, value in chosen.items() if value}

    def _vector_query(self, layout: Layout, vector: list[float], k: int, filter: Query | None) -> Query:
        if layout.index.kind == "exact":
            some = QueryLanguage().every([{"exists": {"field": "vector"}}, *([] if filter is None else [filter])])
            params = {"field": "vector", "query_value": vector, "space_type": "innerproduct"}
            script = {"source": "knn_score", "lang": "knn", "params": params}
            return {"query": {"script_score": {"query": some, "script": script}}}
        view = {"ef_search": candidates(layout, k)}
        knn = {"vector": vector, "k": k, "method_parameters": view} | ({} if filter is None else {"filter": filter})
        return {"query": {"knn": {"vector": knn}}}

    def _with_vectors(self) -> tuple[Query, Callable[[Query], list[float] | None]]:
        return {"_source": [*FIELDS_TO_SHOW, "vector"]}, lambda hit: hit["_source"].get("vector")

    def _kind(self, layout: Layout) -> str:
        if layout.index.kind == "exact":
            return "exact"
        return ", ".join(["hnsw of faiss", *(f"{name} {value}" for name, value in self._parameters(layout).items())])


def _url(place: Address, tls: bool) -> str:
    host = f"[{place.host}]" if ":" in place.host else place.host or "localhost"
    return f"{'https' if tls else 'http'}://{host}:{place.port or 9200}{place.path}"
