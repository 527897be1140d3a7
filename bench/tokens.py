"""Token vectors on a judged collection: what each format stores and loses, and how fast MaxSim is.

python bench/tokens.py ../shared/data/scifact --split train --queries 200 [--model ../shared/models/gte-small]

Documents are whole, one passage each. Every query's 100 best by vectors and BM25 (0.6 and 0.4 of the scores) are reranked by
MaxSim, alone and mixed with the fused score; then MaxSim searches all documents, exactly and by candidates. One thread where
OMP_NUM_THREADS=1 says so.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from twinrank.index.multivectors import MultiVectorIndex
from twinrank.index.vectors import VectorIndex
from twinrank.index.words import WordIndex
from twinrank.maxsim import maxsim
from twinrank.models.biencoder import BiEncoder
from twinrank.models.checkpoint import DEFAULT_MODEL
from twinrank.models.lateinteraction import LateInteraction
from twinrank.models.tokenpooling import pool_tokens
from twinrank.quantization import PackedTokens, TokenCodec
from twinrank.readers import read_dataset
from twinrank.search.fuse import Fusion, fuse_by_score
from twinrank.search.pipeline import Pipeline
from twinrank.search.retrieve import IndexSource
from twinrank.text import Analyzer
from twinrank.types import Document, Ranking, Vectors

BATCH = 256
CANDIDATES = 100


def main() -> None:
    options = read_options()
    data = read_dataset(options.data, split=options.split)
    documents = list(data.documents())
    places = {document.id: number for number, document in enumerate(documents)}
    judged = [query for query in data.queries if data.qrels.get(query)][: options.queries]
    encoder = BiEncoder(options.model, threads=options.threads)
    model = LateInteraction(encoder)
    pooled, tokens = encode(encoder, model, [f"{one.title} {one.text}".strip() for one in documents])
    texts = [data.queries[query] for query in judged]
    queries = [model.encode([text], side="query")[0] for text in texts]
    qrels = [{places[id]: grade for id, grade in data.qrels[query].items() if id in places} for query in judged]
    lengths = [len(one) for one in tokens]
    print(
        f"{encoder.name} on {data.name} {options.split}: {len(documents):,} passages of {np.mean(lengths):.0f} token vectors, "
        f"{len(judged)} queries of {np.mean([len(query) for query in queries]):.0f}"
    )
    fused = fuse(encoder, pooled, data.documents(), texts)
    candidates = [ranking.keys for ranking in fused]
    show("vectors and BM25, fused", fused, qrels)
    exact = [
        Ranking.of(near, maxsim(query, [tokens[place] for place in near]))
        for query, near in zip(queries, candidates, strict=True)
    ]
    show("MaxSim of the unquantised tokens, alone", exact, qrels)
    for weight in options.weights:
        mixed = [fuse_by_score(pair, [1 - weight, weight]) for pair in zip(fused, exact, strict=True)]
        show(f"{1 - weight:.1f} of the fused score, {weight:.1f} of MaxSim", mixed, qrels)
    for factor in options.pool:
        started = perf_counter()
        fewer = tokens if factor == 1 else [pool_tokens(one.astype(np.float32), factor) for one in tokens]
        if factor > 1:
            print(f"pooling by {factor:g}: {1000 * (perf_counter() - started) / len(tokens):.1f} ms a passage")
        for format in ("int8", "int4"):
            measure_format(TokenCodec(format, model.dimension), factor, fewer, queries, candidates, qrels)


def measure_format(
    codec: TokenCodec,
    factor: float,
    tokens: Sequence[Vectors],
    queries: Sequence[Vectors],
    candidates: Sequence[np.ndarray],
    qrels: Sequence[dict[int, int]],
) -> None:
    def batches() -> list[tuple[np.ndarray, PackedTokens]]:
        found = []
        for start in range(0, len(tokens), BATCH):
            part = [codec.encode(one) for one in tokens[start : start + BATCH]]
            found.append((np.arange(start, start + len(part)), codec.unpack(part)))
        return found

    size = np.mean([len(one) for one in tokens]) * codec.token_bytes
    name = f"{codec.format}, pooling {factor:g}: {size:,.0f} bytes a passage"
    with tempfile.TemporaryDirectory() as folder:
        stored, started = batches(), perf_counter()
        index = MultiVectorIndex.build(Path(folder) / "tokens", codec, stored, 1)
        built = perf_counter() - started
        del stored
        reranked, rerank_ms = timed(lambda query, near: index.score(query, near), queries, candidates)
        show(f"{name}, reranks {CANDIDATES} in {rerank_ms:.1f} ms", reranked, qrels)
        true, true_ms = timed(lambda query, _: index.search(query, 100, exact=True), queries, candidates)
        show(f"    searches all, exactly, in {true_ms:.0f} ms", true, qrels)
        if index.exact:
            return
        found, found_ms = timed(lambda query, _: index.search(query, 100), queries, candidates)
        top, top_ms = timed(lambda query, _: index.search(query, 10), queries, candidates)
        show(f"    by {10 * 100} candidates in {found_ms:.1f} ms, recall@100 {recall(found, true, 100):.3f}", found, qrels)
        print(
            f"    by 200 candidates in {top_ms:.1f} ms, recall@10 {recall(top, true, 10):.3f}; "
            f"built in {built:.1f} s, {index.size() / 1e6:,.0f} MB"
        )


def fuse(encoder: BiEncoder, pooled: Vectors, documents: Iterable[Document], queries: Sequence[str]) -> list[Ranking]:
    """Each query's best passages by the default recipe's first stages."""
    analyzer, keys = Analyzer("english"), np.arange(len(pooled))
    with tempfile.TemporaryDirectory() as folder:
        vectors = VectorIndex.build(Path(folder) / "vectors", encoder.dimension, [(keys, pooled)], 1)
        words = WordIndex.create(Path(folder) / "words")
        words.add(keys, [analyzer(f"{one.title} {one.text}") for one in documents])
        words.commit(1)
        sources: list[tuple[IndexSource[Any], int]] = [
            (IndexSource("vectors", vectors, lambda text: encoder.encode([text], side="query")[0]), CANDIDATES),
            (IndexSource("words", words, analyzer), CANDIDATES),
        ]
        pipeline = Pipeline(sources, Fusion("score", {"vectors": 0.6, "words": 0.4}))
        rankings = [pipeline.run(query)[0].top(CANDIDATES) for query in queries]
        words.close()
    return rankings


def encode(encoder: BiEncoder, model: LateInteraction, texts: Sequence[str]) -> tuple[Vectors, list[Vectors]]:
    """Pooled vectors (texts, dimension), and each text's token vectors, in half precision to spare the memory."""
    pooled, tokens = [], []
    started = perf_counter()
    for start in range(0, len(texts), BATCH):
        batch = encoder.tokenize(texts[start : start + BATCH])
        both = encoder.embed(batch, token_vectors=True)
        pooled.append(both.vectors)
        tokens += [one.astype(np.float16) for one in model.select(batch, both.token_vectors)]
    print(f"encoded in {perf_counter() - started:.0f} s, both views in one pass")
    return np.concatenate(pooled), tokens


def timed(
    search: Callable[[Vectors, np.ndarray], Ranking], queries: Sequence[Vectors], candidates: Sequence[np.ndarray]
) -> tuple[list[Ranking], float]:
    """Rankings, and the median milliseconds."""
    rankings, times = [], []
    for query, near in zip(queries, candidates, strict=True):
        started = perf_counter()
        rankings.append(search(query, near))
        times.append(1000 * (perf_counter() - started))
    return rankings, float(np.median(times))


def recall(found: Sequence[Ranking], true: Sequence[Ranking], k: int) -> float:
    return float(np.mean([np.isin(b.keys[:k], a.keys[:k]).mean() for a, b in zip(found, true, strict=True)]))


def show(name: str, rankings: Sequence[Ranking], qrels: Sequence[dict[int, int]]) -> None:
    print(f"{name}: nDCG@10 {np.mean([ndcg(a, b) for a, b in zip(rankings, qrels, strict=True)]):.4f}", flush=True)


def ndcg(ranking: Ranking, grades: dict[int, int]) -> float:
    discounts = 1 / np.log2(np.arange(2, 12))
    gained = [grades.get(key, 0) for key in ranking.keys[:10].tolist()]
    best = sorted(grades.values(), reverse=True)[:10]
    return float(np.dot(gained, discounts[: len(gained)]) / max(np.dot(best, discounts[: len(best)]), 1e-9))


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--pool", type=json.loads, default=[1, 2, 3], help="factors of token pooling: [1, 2]")
    parser.add_argument("--weights", type=json.loads, default=[0.5, 0.6, 0.7], help="of MaxSim, mixed with the fused score")
    parser.add_argument("--threads", type=int)
    return parser.parse_args()


if __name__ == "__main__":
    main()
