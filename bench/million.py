"""A million passages: exact search beside the memory's speed, HNSW beside faiss, BM25 beside bm25s, filters, opening, changing.

python bench/passages.py ../shared/data --out FOLDER/passages.txt
python bench/vectors.py FOLDER/passages.txt --out FOLDER/vectors.npy
python bench/million.py FOLDER [--parts exact,hnsw,filters,words,open,add] [--count 1000000] [--threads 2]

A thousand passages are held out of the index to ask with: 500 questions, and 500 of any kind. What is compared takes turns,
query by query, and the medians are of these turns. Where other work runs beside, both sides wait alike, so that the ratios
stand and the times do not; `CPU` is processor time, which says what the work costs in any case.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

from twinrank.index.settings import VectorIndexSettings
from twinrank.index.vectors import VectorIndex
from twinrank.index.words import WordIndex
from twinrank.scan import ask, may_belong
from twinrank.text import Analyzer
from twinrank.types import Keys, Ranking, Vectors

HELD_OUT = 500
AT_ONCE = 65_536
SETTINGS = VectorIndexSettings(kind="hnsw", m=16, ef_construction=128)


class Million:
    """The passages, their vectors, and those held out to ask with."""

    def __init__(self, folder: Path, count: int, threads: int) -> None:
        self.folder = folder
        self.threads = threads
        self.build_by_hand = False
        self.texts = (folder / "passages.txt").read_text(encoding="utf-8").splitlines()
        vectors = np.load(folder / "vectors.npy", mmap_mode="r")
        random = np.random.default_rng(0)
        questions = random.choice(np.flatnonzero([text.endswith("?") for text in self.texts]), HELD_OUT, replace=False)
        others = random.choice(np.setdiff1d(np.arange(len(self.texts)), questions), HELD_OUT, replace=False)
        self.held_out = np.sort(np.concatenate([questions, others]))
        kept = np.setdiff1d(np.arange(len(self.texts)), self.held_out)
        self.kept = kept if count >= len(kept) else np.sort(random.choice(kept, count, replace=False))  # (passages,)
        self.queries: Vectors = vectors[self.held_out]  # (queries, dimension)
        self._vectors = vectors

    @cached_property
    def vectors(self) -> Vectors:
        return np.asarray(self._vectors[self.kept], dtype=np.float32)

    def batches(self) -> Iterator[tuple[Keys, Vectors]]:
        for start in range(0, len(self.kept), AT_ONCE):
            part = self.kept[start : start + AT_ONCE]
            yield np.arange(start, start + len(part)), self._vectors[part]

    def index(self, settings: VectorIndexSettings) -> VectorIndex:
        """Built when first asked for, and kept beside the vectors."""
        path = self.folder / f"{len(self.kept)}.index"
        if not path.exists():
            started = perf_counter(), process_time()
            VectorIndex.build(path, self.queries.shape[1], self.batches(), 1, settings=VectorIndexSettings(kind="exact"))
            print(f"file written: {perf_counter() - started[0]:.1f} s, CPU {process_time() - started[1]:.1f} s")
        index = VectorIndex.open(path, settings=settings, threads=self.threads)
        if index.wants_save:
            started = perf_counter(), process_time()
            index.save(1)
            print(f"{index.kind} built: {perf_counter() - started[0]:.0f} s, CPU {process_time() - started[1]:.0f} s")
        return index

    def truth(self, queries: Vectors, k: int, allowed: Keys | None = None) -> list[Keys]:
        """The true k nearest by float64, a block of the passages at a time."""
        rows = np.arange(len(self.kept)) if allowed is None else allowed
        best = [Ranking.empty() for _ in queries]
        for start in range(0, len(rows), AT_ONCE):
            part = rows[start : start + AT_ONCE]
            scores = queries.astype(np.float64) @ self.vectors[part].astype(np.float64).T  # (queries, part)
            for number, row in enumerate(scores):
                near = np.argpartition(-row, min(2 * k, len(row) - 1))[: 2 * k]
                keys, values = np.append(best[number].keys, part[near]), np.append(best[number].scores, row[near])
                best[number] = Ranking.of(keys, values, k)
        return [ranking.keys for ranking in best]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--build-by-hand", action="store_true", help="give faiss a graph of its own, which takes minutes")
    options = parser.parse_args()
    million = Million(options.folder, options.count, options.threads)
    million.build_by_hand = options.build_by_hand
    print(f"{len(million.kept):,} passages, {million.queries.shape[1]} dimensions, {options.threads} threads")
    for part in options.parts.split(","):
        print(f"\n## {part}")
        PARTS[part](million)


def in_turns(calls: dict[str, Callable[[int], object]], turns: int) -> dict[str, tuple[float, float]]:
    """Each call in its turn: name → (median milliseconds, mean CPU milliseconds)."""
    walls: dict[str, list[float]] = {name: [] for name in calls}
    work = dict.fromkeys(calls, 0.0)
    for turn in range(turns):
        for name, call in calls.items():
            started = perf_counter(), process_time()
            call(turn)
            walls[name].append(perf_counter() - started[0])
            work[name] += process_time() - started[1]
    return {name: (1e3 * float(np.median(times)), 1e3 * work[name] / turns) for name, times in walls.items()}


def show(times: dict[str, tuple[float, float]], against: str) -> None:
    for name, (wall, work) in times.items():
        print(f"{name:<44} {wall:9.2f} ms  CPU {work:9.2f} ms  {wall / times[against][0]:6.2f} x")


# Exact


def exact(million: Million) -> None:
    """Search beside the time in which the same bytes are only read, and the ids beside float64's."""
    index = million.index(VectorIndexSettings(kind="exact"))
    codes = index._state.file.codes
    question = [ask(query, index._state.longest) for query in million.queries]
    numbers = codes.codes.reshape(-1)[: codes.codes.size // 8 * 8].view(np.int64)

    def read(threads: int) -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(np.bitwise_or.reduce, np.array_split(numbers, threads)))

    for threads in sorted({1, million.threads}):

        def search(turn: int, k: int, threads: int = threads) -> object:
            index.threads = threads
            return index.search(million.queries[turn], k)

        calls: dict[str, Callable[[int], object]] = {
            f"the codes read, {numbers.nbytes / 1e6:.0f} MB, {threads} threads": lambda _, threads=threads: read(threads),
            f"scanned, {threads} threads": lambda turn, threads=threads: may_belong(codes, question[turn], 10, None, threads),  # type: ignore[arg-type]
            f"search k=10, {threads} threads": lambda turn, search=search: search(turn, 10),
            f"search k=100, {threads} threads": lambda turn, search=search: search(turn, 100),
        }
        show(in_turns(calls, 41), next(iter(calls)))
    asked = million.queries[::5]
    for k in (10, 100):
        truth = million.truth(asked, k)
        same = sum(index.search(query, k).keys.tolist() == true.tolist() for query, true in zip(asked, truth, strict=True))
        print(f"k={k}: ids of {same} of {len(asked)} queries are identical with float64's")


# HNSW


def hnsw(million: Million) -> None:
    """Recall and latency beside faiss's float32 index of the same parameters, used as its documentation does."""
    import faiss

    index = million.index(SETTINGS)
    near = index._state.near
    assert near is not None
    print(f"{index.summary}; efSearch {near.tuned.breadths}; {index.size() / 1e6:,.0f} MB on disk")
    hand = by_hand_index(million, near.backend)
    faiss.omp_set_num_threads(1)
    queries = million.queries[::4]
    truth = {k: million.truth(queries, k) for k in (10, 100)}
    for k in (10, 100):
        for breadth in sorted({32, 64, 128, 256, near.breadth(k)}):
            if breadth < k:
                continue
            near.tuned.breadths.update({10: breadth, 100: breadth})
            hand.hnsw.efSearch = breadth
            found: dict[str, list[Any]] = {"faiss": [], "twinrank": []}

            def by_hand(turn: int, k: int = k, found: dict[str, list[Any]] = found) -> None:
                found["faiss"].append(hand.search(queries[turn : turn + 1], k)[1][0])

            def ours(turn: int, k: int = k, found: dict[str, list[Any]] = found) -> None:
                found["twinrank"].append(index.search(queries[turn], k).keys)

            calls: dict[str, Callable[[int], object]] = {"faiss": by_hand, "twinrank": ours}
            for turn in range(len(queries)):  # what faiss holds in memory, we map: the first to read a page pays for that
                ours(turn)
            found["twinrank"].clear()
            times = in_turns(calls, len(queries))
            shown = [f"{name} recall {recall(found[name], truth[k]):.4f} CPU {times[name][1]:.2f} ms" for name in found]
            ratios = [times["twinrank"][number] / times["faiss"][number] for number in (0, 1)]
            print(f"k={k} efSearch={breadth}: {', '.join(shown)}; {ratios[0]:.2f} x the time, {ratios[1]:.2f} x the CPU")
    fresh = VectorIndex.open(index.path, settings=SETTINGS)
    for name, chosen in (("questions", True), ("others", False)):
        which = [text.endswith("?") == chosen for text in (million.texts[row] for row in million.held_out)]
        print(f"recall@10 at the chosen efSearch, held-out {name}: {fresh.measure(million.queries[which]):.4f}")


def by_hand_index(million: Million, ours: Any) -> Any:
    """An IndexHNSWFlat of the same parameters: built by itself where `--build-by-hand` asks for it, else on the same links.

    With the same links the comparison is of the search alone, and takes no second hour on a busy machine.
    """
    import faiss

    made = faiss.IndexHNSWFlat(million.queries.shape[1], SETTINGS.m, faiss.METRIC_INNER_PRODUCT)
    made.hnsw.efConstruction = SETTINGS.ef_construction
    if not million.build_by_hand:
        made.storage.add(million.vectors)
        made.hnsw = ours._index.hnsw
        made.ntotal = len(million.vectors)
        return made
    faiss.omp_set_num_threads(million.threads)
    started = perf_counter(), process_time()
    made.add(million.vectors)
    print(f"faiss by hand built: {perf_counter() - started[0]:.0f} s, CPU {process_time() - started[1]:.0f} s")
    return made


def recall(found: Sequence[Keys], truth: Sequence[Keys]) -> float:
    return float(np.mean([len(np.intersect1d(rows, true)) / len(true) for rows, true in zip(found, truth, strict=True)]))


# Filters


def filters(million: Million) -> None:
    """Recall@10 under filters, against that without: at random, a stretch of the collection, what is far, what is near."""
    index = million.index(SETTINGS)
    queries = million.queries[::20]
    random = np.random.default_rng(1)
    count = len(million.kept)
    everything = recall([index.search(query, 10).keys for query in queries], million.truth(queries, 10))
    print(f"without a filter: recall@10 {everything:.4f}")
    for share in (0.5, 0.1, 0.01, 0.001):
        size = int(share * count)
        start = int(random.integers(0, count - size))
        same = {"at random": np.sort(random.choice(count, size, replace=False)), "a stretch": np.arange(start, start + size)}
        for name, allowed in same.items():
            truth = million.truth(queries, 10, allowed)
            report(index, queries, [allowed] * len(queries), truth, f"{100 * share:g} % {name}", everything)
        order = [np.argsort(million.vectors @ query) for query in queries[:10]]
        for name, part in (("farthest", slice(0, size)), ("nearest", slice(count - size, None))):
            chosen = [np.sort(one[part]) for one in order]
            truth = [million.truth(query[None], 10, allowed)[0] for query, allowed in zip(queries, chosen, strict=False)]
            report(index, queries[:10], chosen, truth, f"{100 * share:g} % {name}", everything)


def report(
    index: VectorIndex, queries: Vectors, allowed: Sequence[Keys], truth: Sequence[Keys], name: str, unfiltered: float
) -> None:
    found, plans, times = [], dict[str, int](), []
    for query, keys in zip(queries, allowed, strict=True):
        started = perf_counter()
        found.append(index.search(query, 10, keys).keys)
        times.append(perf_counter() - started)
        plan = index.plan.split(";")[0]
        plans[plan] = plans.get(plan, 0) + 1
    reached = recall(found, truth)
    print(f"{name:<18} recall@10 {reached:.4f} ({reached / unfiltered:.3f} x), {1e3 * float(np.median(times)):.2f} ms, {plans}")


# Words


def words(million: Million) -> None:
    """BM25 beside bm25s (k1 1.2, b 0.75): the same terms, one query at a time, the ten best."""
    import bm25s

    analyze = Analyzer()
    terms = [analyze(million.texts[row]) for row in million.kept]
    asked = [asked for asked in (analyze(million.texts[row]) for row in million.held_out) if asked]
    for count in sorted({min(100_000, len(terms)), len(terms)}):
        rows = np.sort(np.random.default_rng(2).choice(len(terms), count, replace=False))
        with tempfile.TemporaryDirectory() as folder:
            ours = WordIndex.create(Path(folder) / "words")
            started = process_time()
            for start in range(0, count, 4096):
                ours.add(rows[start : start + 4096], [terms[row] for row in rows[start : start + 4096]])
            ours.commit(1)
            built = process_time() - started
            theirs = bm25s.BM25(k1=1.2, b=0.75)
            started = process_time()
            theirs.index([terms[row] for row in rows], show_progress=False)
            print(f"{count:,} passages: built in CPU {built:.0f} s, bm25s {process_time() - started:.0f} s")
            calls: dict[str, Callable[[int], object]] = {
                "bm25s": lambda turn, theirs=theirs: theirs.retrieve([asked[turn]], k=10, show_progress=False, n_threads=0),
                "twinrank": lambda turn, ours=ours: ours.search(asked[turn], 10),
            }
            show(in_turns(calls, 201), "bm25s")


# Opening and changing

OPENING = """
from time import perf_counter
import numpy as np
from twinrank.index.settings import VectorIndexSettings
from twinrank.index.vectors import VectorIndex
query = np.load({query!r})
started = perf_counter()
index = VectorIndex.open({path!r}, settings=VectorIndexSettings(kind={kind!r}), threads={threads})
opened = perf_counter() - started
index.search(query, 10)
print(f"{kind}: opened in {{1e3 * opened:.0f}} ms, the first answer after {{1e3 * (perf_counter() - started):.0f}} ms")
"""


def opening(million: Million) -> None:
    """From nothing to the first answer, in processes of their own, with what the operating system keeps in memory."""
    index = million.index(VectorIndexSettings(kind="exact"))
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "query.npy", million.queries[0])
        for kind in ("exact", "hnsw") if list(index.path.parent.glob(f"{index.path.name}.*.neighbours")) else ("exact",):
            for _ in range(3):
                values = {"query": f"{folder}/query.npy", "path": str(index.path), "kind": kind, "threads": million.threads}
                subprocess.run([sys.executable, "-c", OPENING.format(**values)], check=True)


def adding(million: Million) -> None:
    """One passage more among 100,000, replaced and removed: in the index, searched, and on disk."""
    vectors = million.vectors[:: max(1, len(million.kept) // 100_000)][:100_000]
    with tempfile.TemporaryDirectory(dir=million.folder) as folder:
        index = VectorIndex.build(Path(folder) / "v", vectors.shape[1], [(np.arange(len(vectors)), vectors)], 1)
        before = index.size()

        def change(turn: int) -> None:
            index.remove([turn])
            index.add([1_000_000 + turn], million.queries[turn : turn + 1])
            index.save(2 + turn)

        calls: dict[str, Callable[[int], object]] = {
            "search k=10": lambda turn: index.search(million.queries[turn], 10),
            "one removed, one added, saved": change,
        }
        show(in_turns(calls, 101), "search k=10")
        print(f"{len(index):,} passages, {before / 1e6:.1f} MB before, {index.size() / 1e6:.1f} MB after 101 changes")


PARTS: dict[str, Callable[[Million], None]] = {
    "exact": exact,
    "hnsw": hnsw,
    "filters": filters,
    "words": words,
    "open": opening,
    "add": adding,
}


if __name__ == "__main__":
    main()
