"""What small codes lose, alone and with the nearest by them scored again; how many lists IVF visits; how a graph's cost grows.

python bench/codes.py FOLDER [--parts codes,lists,growth] [--count 1000000] [--queries 200]

FOLDER is that of bench/million.py, with its passages, its vectors and its held-out queries. Every code is scanned whole, on one
thread: what an index in front of it (IVF, a graph) misses comes on top. `CPU` is processor time a query.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from million import Million, recall

RESCORED = (10, 40, 100, 400)
TRAINED_ON = 65_536
GROWN_TO = (3_000, 10_000, 30_000, 100_000, 300_000)
BREADTHS = (64, 128)
VISITED = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--parts", default="codes,lists,growth")
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=200)
    options = parser.parse_args()
    import faiss

    faiss.omp_set_num_threads(1)
    million = Million(options.folder, options.count, 1)
    queries = np.ascontiguousarray(million.queries[:: max(1, len(million.queries) // options.queries)][: options.queries])
    print(f"{len(million.kept):,} passages, {queries.shape[1]} dimensions, {len(queries)} queries, one thread")
    if "codes" in options.parts:
        truth = million.truth(queries, 10)
        for name, index in indexes(faiss, queries.shape[1]).items():
            measure(name, index, million, queries, truth)
    if "lists" in options.parts:
        lists(faiss, million, queries)
    if "growth" in options.parts:
        growth(faiss, million, queries)


def indexes(faiss: Any, dimension: int) -> dict[str, Any]:
    """Codes from large to small; inner product, or for signs the number of bits that differ."""
    product = faiss.METRIC_INNER_PRODUCT
    return {
        "int8": faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_8bit, product),
        "int4": faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_4bit, product),
        "product quantisation, a byte for 4 numbers": faiss.IndexPQ(dimension, dimension // 4, 8, product),
        "product quantisation, a byte for 8 numbers": faiss.IndexPQ(dimension, dimension // 8, 8, product),
        "RaBitQ, 1 bit a number": faiss.IndexPreTransform(
            faiss.RandomRotationMatrix(dimension, dimension), faiss.IndexRaBitQ(dimension, product)
        ),
        "signs, 1 bit a number": faiss.IndexBinaryFlat(dimension),
    }


def measure(name: str, index: Any, million: Million, queries: np.ndarray, truth: list[Any]) -> None:
    binary = not hasattr(index, "metric_arg")
    shown = signs if binary else lambda vectors: vectors
    chosen = np.sort(
        np.random.default_rng(3).choice(len(million.vectors), min(TRAINED_ON, len(million.vectors)), replace=False)
    )
    started = process_time()
    if not binary:
        index.train(million.vectors[chosen])
    for start in range(0, len(million.vectors), TRAINED_ON):
        index.add(shown(million.vectors[start : start + TRAINED_ON]))
    built, started = process_time() - started, process_time()
    found = [index.search(shown(query[None]), max(RESCORED))[1][0] for query in queries]
    work = 1e3 * (process_time() - started) / len(queries)
    told = [f"best {count} rescored {recall(rescored(found, count, million, queries), truth):.3f}" for count in RESCORED[1:]]
    alone = recall([rows[:10] for rows in found], truth)
    print(
        f"{name}: {code_bytes(index)} bytes, recall@10 {alone:.3f}, {', '.join(told)}; CPU {work:.1f} ms, built {built:.0f} s",
        flush=True,
    )


def lists(faiss: Any, million: Million, queries: np.ndarray) -> None:
    """IVF of 4 √passages lists, 8 bits a number: the recall of visiting some of them, and the share of the vectors in these."""
    dimension, count = queries.shape[1], len(million.vectors)
    nlist = round(4 * count**0.5)
    coarse = faiss.IndexFlatIP(dimension)
    index = faiss.IndexIVFScalarQuantizer(coarse, dimension, nlist, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
    index.cp.niter = 6
    started = process_time()
    index.train(million.vectors[np.sort(np.random.default_rng(3).choice(count, min(2 * TRAINED_ON, count), replace=False))])
    for start in range(0, count, TRAINED_ON):
        index.add(million.vectors[start : start + TRAINED_ON])
    print(f"IVF of {nlist:,} lists built in {process_time() - started:.0f} s", flush=True)
    truth = million.truth(queries, 10)
    for visited in VISITED:
        index.nprobe = visited
        faiss.cvar.indexIVF_stats.reset()
        found = [index.search(query[None], 10)[1][0] for query in queries]
        share = faiss.cvar.indexIVF_stats.ndis / len(queries) / count
        print(f"{visited} lists visited: recall@10 {recall(found, truth):.3f}, {100 * share:.2f} % of the vectors", flush=True)


def growth(faiss: Any, million: Million, queries: np.ndarray) -> None:
    """HNSW over 8-bit codes, of more and more of the passages: what building and asking cost, at the same breadths."""
    shuffled = np.random.default_rng(4).permutation(len(million.vectors))
    index = faiss.IndexHNSWSQ(queries.shape[1], faiss.ScalarQuantizer.QT_8bit, 16, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 128
    index.train(million.vectors[np.sort(shuffled[:TRAINED_ON])])
    for count in (count for count in GROWN_TO if count <= len(shuffled)):
        started = process_time()
        index.add(million.vectors[shuffled[index.ntotal : count]])
        built = process_time() - started
        scores = million.vectors[shuffled[:count]] @ queries.T  # (count, queries)
        truth = [np.argsort(-column)[:10] for column in scores.T]
        told = []
        for breadth in BREADTHS:
            index.hnsw.efSearch = breadth
            [index.search(query[None], 10) for query in queries]  # warm
            started = process_time()
            found = [index.search(query[None], 10)[1][0] for query in queries]
            work = 1e3 * (process_time() - started) / len(queries)
            told.append(f"efSearch {breadth}: recall@10 {recall(found, truth):.3f}, CPU {work:.3f} ms")
        print(f"HNSW of {count:,}, the last of them added in {built:.0f} s: {'; '.join(told)}", flush=True)


def code_bytes(index: Any) -> int:
    """Bytes a vector; a transformation stands before the index that holds the codes."""
    import faiss

    return int(getattr(faiss.downcast_index(index.index) if hasattr(index, "chain") else index, "code_size", 0))


def signs(vectors: np.ndarray) -> np.ndarray:
    return np.packbits(vectors > 0, axis=1)  # (vectors, dimension / 8)


def rescored(found: list[Any], count: int, million: Million, queries: np.ndarray) -> list[Any]:
    """The ten best of each query's first `count` by the float32 vectors."""
    best = []
    for rows, query in zip(found, queries, strict=True):
        near = rows[:count]
        best.append(near[np.argsort(-(million.vectors[near] @ query))[:10]])
    return best


if __name__ == "__main__":
    main()
