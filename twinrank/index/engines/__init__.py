"""ROWS ELSEWHERE: engines that keep passages and find them, such as Milvus or PostgreSQL, behind one protocol.

`open_engine(address)` gives the engine of an address such as milvus://localhost:19530/papers; what it must be able to do is
in protocol.py, and tests/index/engines/exam.py is the exam that each of them passes. Each needs its own client, an extra.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any, cast

from twinrank.errors import CollectionError, MissingExtraError
from twinrank.index.engines.address import Address
from twinrank.index.engines.protocol import Engine, Layout, Limits, Row

__all__ = ["ENGINES", "Address", "Engine", "Layout", "Limits", "Row", "is_address", "open_engine"]

ENGINES: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    "memory": ("memory", "MemoryEngine", "", ()),
    "milvus": ("milvus", "MilvusEngine", "milvus", ("pymilvus",)),
    "milvus+lite": ("milvus", "MilvusEngine", "milvus", ("pymilvus", "milvus_lite")),
    "postgresql": ("postgresql", "PostgreSQLEngine", "postgresql", ("psycopg",)),
    "postgres": ("postgresql", "PostgreSQLEngine", "postgresql", ("psycopg",)),
    "elasticsearch": ("elasticsearch", "ElasticsearchEngine", "elasticsearch", ("elasticsearch",)),
    "weaviate": ("weaviate", "WeaviateEngine", "weaviate", ("weaviate",)),
    "opensearch": ("elasticsearch", "OpenSearchEngine", "opensearch", ("opensearchpy",)),
    "pinecone": ("pinecone", "PineconeEngine", "pinecone", ("pinecone",)),
    "qdrant": ("qdrant", "QdrantEngine", "qdrant", ("qdrant_client",)),
    "qdrant+local": ("qdrant", "QdrantEngine", "qdrant", ("qdrant_edge",)),
}
"""Scheme → module, class, extra that brings its client, modules of that."""


def is_address(place: object) -> bool:
    """Whether a collection's place is an address of an engine rather than a folder.

    >>> is_address("milvus://localhost:19530/papers"), is_address("papers.twinrank")
    (True, False)
    """
    return isinstance(place, str) and "://" in place


def open_engine(address: str | Address) -> Engine:
    """The engine at an address; raises CollectionError for an address that is none, MissingExtraError, EngineError."""
    place = address if isinstance(address, Address) else Address.parse(address)
    if place.scheme not in ENGINES:
        raise CollectionError(f"{place}: there is no engine {place.scheme!r}; known are {', '.join(ENGINES)}")
    module, name, extra, needed = ENGINES[place.scheme]
    for library in needed:
        if importlib.util.find_spec(library) is None:
            raise MissingExtraError(f"{place} needs {library}, which is not installed: pip install 'twinrank[{extra}]'")
    found: Any = getattr(importlib.import_module(f"twinrank.index.engines.{module}"), name)
    return cast(Engine, found(place))
