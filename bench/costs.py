"""What passages cost: bytes, milliseconds of a core, nodes and money as formulas, which bench/sizing.py puts into a page.

Units: bytes, and a GB is 10^9 of them; milliseconds of one core's work; money in whatever currency the prices were given. Times
were measured with vectors of 384 numbers and are taken to be in proportion to these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, log10, sqrt
from typing import Any

MILLION = 1e6
MEASURED_DIMENSION = 384
MONTH_HOURS = 730
DISK_PAGE = 4096
INDEX_EXTRA = 20
"""Bytes of a vector besides its numbers in twinrank's file: scale, error, checksum, key (docs/indexes.md)."""
GRAPH_EXTRA = 16
"""Bytes of a vector besides numbers and 2 M links in faiss's HNSW: upper layers, offsets. 384 + 128 + 16 = 528, as measured."""
KEY = 8
CANDIDATES = 100
"""That late interaction reranks."""


# Bytes of a passage


def exact_bytes(dimension: float) -> float:
    """In memory, for the exact scan: an int8 a number, and what proves the bound."""
    return dimension + INDEX_EXTRA


def hnsw_bytes(dimension: float, links: float, number: float) -> float:
    """In memory: a vector of `number` bytes a number, 2 M links of 4 bytes, and the rest.

    >>> hnsw_bytes(384, 16, 1)
    528
    """
    return dimension * number + 2 * links * 4 + GRAPH_EXTRA


def code_bytes(dimension: float, bits: float, extra: float = 0) -> float:
    """In memory, in a list of IVF: so many bits a number, what the code needs besides, and the key."""
    return dimension * bits / 8 + extra + KEY


def disk_graph_bytes(dimension: float, degree: float) -> float:
    """On disk: float32 vector, degree and links, as many to a page of 4 kB as fit; a larger one takes whole pages.

    >>> disk_graph_bytes(384, 56)  # 1,764 bytes: two to a page
    2048.0
    """
    node = 4 * dimension + 4 + 4 * degree
    return DISK_PAGE / (DISK_PAGE // node) if node <= DISK_PAGE else ceil(node / DISK_PAGE) * DISK_PAGE


def token_bytes(tokens: float, dimension: float, pooling: float = 1) -> float:
    """Token vectors in int4 with a scale of 4 bytes, `pooling` tokens made into one.

    >>> token_bytes(150, 384)
    29400.0
    """
    return tokens / pooling * (dimension / 2 + 4)


# Milliseconds of a core


def exact_ms(passages: float, dimension: float, million: float) -> float:
    """In proportion to the bytes read."""
    return million * passages / MILLION * dimension / MEASURED_DIMENSION


def grown(million: float, passages: float, tenfold: float) -> float:
    """What took `million` for a million takes so much for `passages`, if ten times as many cost `tenfold`.

    >>> grown(2.0, 100e6, 3.0)
    18.0
    """
    return float(million * tenfold ** log10(passages / MILLION))


def lists_ms(passages: float, dimension: float, visited: float, code: float, coarse: float) -> float:
    """IVF of 4 √n lists: `visited` of them scanned at `code` a million, all their centres compared at `coarse` a million."""
    lists = 4 * sqrt(passages)
    scanned = passages * min(1.0, visited / lists)
    return exact_ms(scanned, dimension, code) + exact_ms(4 * lists, dimension, coarse)  # a centre is float32: four int8


def encode_core_hours(passages: float, tokens: float, rate: float) -> float:
    """Of passages of so many tokens, at so many tokens a second and core.

    >>> encode_core_hours(3_600, 100, 100)
    1.0
    """
    return passages * tokens / rate / 3600


def build_core_hours(passages: float, shards: float, million: float, tenfold: float) -> float:
    """An HNSW in each of so many shards; `million` seconds build one of a million.

    >>> build_core_hours(2e6, 2, 1800, 1.3)
    1.0
    """
    held = passages / shards
    return grown(million * held / MILLION, held, tenfold) * shards / 3600


# Several at once


def slow_share(parts: float, quantile: float) -> float:
    """The share of queries that wait for at least one part slower than its own quantile (Dean and Barroso 2013).

    >>> round(slow_share(100, 0.99), 2)
    0.63
    """
    return float(1 - quantile**parts)


def needed_quantile(parts: float, quantile: float) -> float:
    """The quantile of one part that is the query's `quantile`, if it waits for all and they are independent.

    >>> round(needed_quantile(100, 0.99), 5)
    0.9999
    """
    return float(quantile ** (1 / parts))


def incomplete_share(down: float, replicas: float, parts: float) -> float:
    """The share of time in which some part has no copy at all, if each copy is away for a share `down`, independently.

    >>> round(incomplete_share(0.001, 2, 10_000), 3)
    0.01
    """
    return float(1 - (1 - down**replicas) ** parts)


def merged_bytes(shards: float, results: float) -> float:
    """What the shards of one query send to whoever merges: a key and a score each, 16 bytes."""
    return shards * results * 16


# What engines say of their own memory, bytes


def qdrant_bytes(passages: float, dimension: float) -> float:
    return passages * dimension * 4 * 1.5


def weaviate_bytes(passages: float, dimension: float) -> float:
    return passages * dimension * 4 * 2


def elastic_bytes(passages: float, dimension: float, links: float) -> float:
    """HNSW over int8."""
    return passages * (dimension + 4 + 4 * links)


def elastic_bit_bytes(passages: float, dimension: float, links: float) -> float:
    """HNSW over one bit a number (BBQ)."""
    return passages * (dimension / 8 + 14 + 4 * links)


def opensearch_bytes(passages: float, dimension: float, links: float) -> float:
    """Faiss's HNSW over float32."""
    return 1.1 * passages * (4 * dimension + 8 * links)


# A layout: how vectors are kept and searched


@dataclass(frozen=True)
class Layout:
    """One way to keep vectors: bytes of a passage, passages of a shard, what a query costs in a shard of so many."""

    name: str
    memory: float
    disk: float
    shard: float
    milliseconds: Callable[[float], float]
    reads: float = 0
    """Reads of 4 kB a query and shard."""


def layouts(v: Any) -> list[Layout]:
    """From the dearest to the cheapest in memory; where codes lose, float32 vectors lie on disk for scoring again."""
    floats = 4 * v.dimension

    def walk(passages: float) -> float:
        return grown(v.hnsw_ms * v.dimension / MEASURED_DIMENSION, passages, v.hnsw_growth)

    def listed(code: float) -> Callable[[float], float]:
        return lambda passages: lists_ms(passages, v.dimension, v.lists_visited, code, v.exact_ms)

    wide, narrow = hnsw_bytes(v.dimension, v.links, 4), hnsw_bytes(v.dimension, v.links, 1)
    product, bits = code_bytes(v.dimension, 2), code_bytes(v.dimension, 1, 8)
    packed, page = code_bytes(v.dimension, 1) - KEY, disk_graph_bytes(v.dimension, v.disk_degree)
    exact = exact_bytes(v.dimension)
    disk_ms = 1e3 * v.disk_cores / v.disk_queries
    return [
        Layout("HNSW, float32", wide, wide, v.shard, walk),
        Layout("HNSW, int8", narrow, narrow + floats, v.shard, walk),
        Layout("exact, int8", exact, exact + floats, v.shard, lambda n: exact_ms(n, v.dimension, v.exact_ms)),
        Layout("IVF, product quantisation", product, product + floats, v.shard, listed(v.product_ms), v.rescored),
        Layout("IVF, one bit (RaBitQ)", bits, bits + floats, v.shard, listed(v.bits_ms), v.rescored),
        Layout("disk graph (DiskANN)", packed, page, v.disk_shard, lambda _: disk_ms, v.disk_reads),
    ]


@dataclass(frozen=True)
class Plan:
    """What a layout takes for so many passages; `memory` and `disk` are bytes of one copy, with words and texts."""

    layout: Layout
    passages: float
    memory: float
    disk: float
    shards: int
    query_ms: float
    """Of all cores together, for one query."""
    nodes_by: dict[str, int]
    money: float
    """A month."""

    @property
    def nodes(self) -> int:
        return max(self.nodes_by.values())

    def borne(self, v: Any) -> float:
        """Queries a second that the nodes bear, by their cores and by their disks' reads."""
        by_cores = self.nodes * v.node_cores * v.cores_used / (self.query_ms / 1e3)
        reads = self.shards * self.layout.reads
        return float(min(by_cores, self.nodes * v.node_reads / reads) if reads else by_cores)

    @property
    def bound(self) -> str:
        return max(self.nodes_by, key=lambda name: self.nodes_by[name])


def plan(layout: Layout, passages: float, v: Any) -> Plan:
    shards = ceil(passages / layout.shard)
    held = passages / shards  # passages of a shard
    memory = passages * (layout.memory + v.words_bytes * v.words_in_memory)
    disk = passages * (layout.disk + v.words_bytes + v.text_bytes)
    words = shards * grown(v.words_ms, held, v.words_ms / v.words_ms_tenth)
    query_ms = shards * layout.milliseconds(held) + words + v.front_ms
    nodes_by = {
        "memory": ceil(memory / (1e9 * v.node_memory * v.memory_used)) * v.replicas,
        "disk": ceil(disk / (1e9 * v.node_disk * v.disk_used)) * v.replicas,
        "cores": ceil(v.queries * query_ms / 1e3 / (v.node_cores * v.cores_used)),
        "reads": ceil(v.queries * shards * layout.reads / v.node_reads),
    }
    money = max(nodes_by.values()) * node_month(v) + passages * (v.text_bytes + 4 * v.dimension) / 1e9 * v.object_month
    return Plan(layout, passages, memory, disk, shards, query_ms, nodes_by, money)


def store_bytes(v: Any) -> float:
    """Of a passage in twinrank's store.db: its texts, a float32 vector and what a row adds to it, passages and log."""
    row = v.store_vector_bytes - 4 * MEASURED_DIMENSION
    return float(v.text_bytes + 4 * v.dimension + row + v.store_rest_bytes)


def node_month(v: Any) -> float:
    return float(v.node_cores * v.core_hour * MONTH_HOURS + v.node_memory * v.memory_month + v.node_disk * v.disk_month)


def keeping_pays(passages: float, tokens: float, v: Any) -> float:
    """Queries a second from which keeping so many bytes of token vectors a passage costs less than encoding candidates anew."""
    kept = passages * tokens / 1e9 / v.disk_used * v.disk_month * v.replicas
    anew = CANDIDATES * v.passage_tokens / v.encode_tokens / v.cores_used * v.core_hour * MONTH_HOURS  # for one query a second
    return float(kept / anew)
