"""How a collection is laid out in Milvus: columns, indexes and properties, and what of that depends on the server's version."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pymilvus import DataType, Function, FunctionType, MilvusClient

from twinrank.index.engines.milvus_session import ONCE
from twinrank.index.settings import VectorIndexSettings

TEXT_BYTES = 65_535
"""Of a VARCHAR, the longest there is; a JSON value has a byte more."""

KNOWN_KINDS = {"auto": "AUTOINDEX", "exact": "FLAT", "hnsw": "HNSW", "ivf": "IVF_FLAT"}

META, MANY, LAYOUT, TENANT = "twinrank.meta.", "twinrank.many.", "twinrank.layout", "twinrank.tenant"
"""Names of a collection's properties."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What a collection is, by its properties and columns."""

    dimension: int
    index: VectorIndexSettings
    words: bool
    tenant: str
    many: frozenset[str]
    """Facets that have three values or more in some row."""


def kept_of(told: Mapping[str, Any]) -> Kept:
    properties, columns = dict(told.get("properties") or {}), {column["name"] for column in told["fields"]}
    layout = json.loads(properties.get(LAYOUT, "{}"))
    dimension = int(layout.pop("dimension", 0))
    many = frozenset(name.removeprefix(MANY) for name in properties if name.startswith(MANY))
    return Kept(
        dimension,
        VectorIndexSettings(**layout),
        "weights" in columns,
        properties.get(TENANT, ""),
        many,
    )


def schema(dimension: int, words: bool, tenant: bool) -> Any:
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("key", DataType.INT64, is_primary=True)
    schema.add_field("document", DataType.VARCHAR, max_length=TEXT_BYTES)
    schema.add_field("number", DataType.INT64)
    schema.add_field("payload", DataType.VARCHAR, max_length=TEXT_BYTES)
    schema.add_field("fields", DataType.VARCHAR, max_length=TEXT_BYTES)
    schema.add_field("facets", DataType.JSON)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dimension or 2)  # Milvus 2.3 knows no collection without one
    if tenant:
        schema.add_field("tenant", DataType.VARCHAR, max_length=2048, is_partition_key=True)
    if words:
        schema.add_field(
            "words", DataType.VARCHAR, max_length=TEXT_BYTES, enable_analyzer=True, analyzer_params={"tokenizer": "standard"}
        )
        schema.add_field("weights", DataType.SPARSE_FLOAT_VECTOR)
        schema.add_function(
            Function(name="bm25", function_type=FunctionType.BM25, input_field_names=["words"], output_field_names=["weights"])
        )
    return schema


def indexes(index: VectorIndexSettings, words: bool, version: str) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """Column, kind, metric, parameters; 0 leaves a parameter to us, since Milvus has no defaults for them."""
    params: dict[str, int] = {}
    if index.kind == "hnsw":
        params = {"M": index.m or 16, "efConstruction": index.ef_construction or 200}
    elif index.kind == "ivf":
        params = {"nlist": index.nlist or 1024}
    yield "vector", KNOWN_KINDS[index.kind], "IP", params
    yield "document", "Trie" if version_of(version) < (2, 4) else "INVERTED", "", {}
    if words:
        yield "weights", "SPARSE_INVERTED_INDEX", "BM25", {"bm25_k1": 1.2, "bm25_b": 0.75}


def search_params(index: VectorIndexSettings, k: int) -> dict[str, int]:
    if index.kind == "hnsw":
        return {"ef": max(index.ef_search or 128, k)}
    if index.kind == "ivf":
        return {"nprobe": min(index.nprobe or 64, index.nlist or 1024)}
    return {}


def version_of(told: str) -> tuple[int, ...]:
    """
    >>> version_of("v2.3.5-lite"), version_of("milvus_lite-3.2.2")
    ((2, 3), (3, 2))
    """
    found = re.search(r"(\d+)\.(\d+)", told)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def is_before(client: MilvusClient, version: tuple[int, ...]) -> bool:
    return version_of(client.get_server_version()) < version


def is_lite(client: MilvusClient) -> bool:
    return "milvus_lite" in client.get_server_version()


def has_words(told: str) -> bool:
    """Whether a server of this version has the BM25 function."""
    return version_of(told) >= ((3, 0) if "milvus_lite" in told else (2, 5))


def make_index(client: MilvusClient, name: str, column: str, kind: str, metric: str, params: Mapping[str, Any]) -> None:
    asked = client.prepare_index_params()
    measured = {"metric_type": metric} if metric else {}
    asked.add_index(column, index_type=kind, index_name=column, params=dict(params), **measured)
    client.create_index(name, asked, **ONCE)


def with_pieces(client: MilvusClient, name: str) -> MilvusClient:
    """A client for which the collection of pieces is there."""
    if not client.has_collection(name, **ONCE):
        schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("name", DataType.VARCHAR, is_primary=True, max_length=512)
        schema.add_field("text", DataType.VARCHAR, max_length=TEXT_BYTES)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
        client.create_collection(name, schema=schema, consistency_level="Strong", **ONCE)
    if "vector" not in client.list_indexes(name):
        make_index(client, name, "vector", "FLAT", "IP", {})
    client.load_collection(name, **ONCE)
    return client
