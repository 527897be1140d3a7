"""Approximate indexes find what they promise, under every filter too, follow changes, and fail without harm."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from twinrank.errors import InputError, MissingExtraError
from twinrank.index.approximate import Approximate
from twinrank.index.backends import Hnsw, Ivf
from twinrank.index.settings import Kind, VectorIndexSettings
from twinrank.index.vectors import VectorIndex
from twinrank.types import Keys, Vectors

LIBRARIES: dict[Kind, str] = {"hnsw": "faiss", "ivf": "faiss", "annoy": "annoy", "scann": "scann"}
CLUSTERS = 20


def needs(kind: Kind) -> None:
    pytest.importorskip(LIBRARIES[kind], reason=f"{LIBRARIES[kind]} is not installed")


@pytest.fixture(params=["hnsw", "ivf", "annoy", "scann"])
def kind(request: pytest.FixtureRequest) -> Kind:
    made: Kind = request.param
    needs(made)
    return made


def clustered(count: int, dimension: int = 48, seed: int = 0) -> tuple[Vectors, np.ndarray]:
    """Unit vectors around a few centres, as texts about a few things are; (vectors, the centre of each)."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(CLUSTERS, dimension))
    of = random.integers(0, CLUSTERS, count)
    vectors = (centres[of] + random.normal(scale=0.7, size=(count, dimension))).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), of


def build(path: Path, vectors: Vectors, first: int = 0, **settings: object) -> VectorIndex:
    keys = np.arange(first, first + len(vectors))
    return VectorIndex.build(
        path,
        vectors.shape[1],
        ((keys[at : at + 4096], vectors[at : at + 4096]) for at in range(0, len(keys), 4096)),
        1,
        settings=VectorIndexSettings(**settings),  # type: ignore[arg-type]
        threads=2,
    )


def true_keys(vectors: Vectors, query: np.ndarray, k: int, allowed: Keys) -> Keys:
    scores = vectors[allowed].astype(np.float64) @ query.astype(np.float64)
    best: Keys = allowed[np.argsort(-scores, kind="stable")[:k]]
    return best


def recall(index: VectorIndex, vectors: Vectors, queries: Vectors, k: int, allowed: Keys | None = None) -> float:
    everything = np.arange(len(vectors)) if allowed is None else allowed
    found = 0
    for query in queries:
        ranking = index.search(query, k, allowed)
        assert len(ranking) == min(k, len(everything))
        found += len(np.intersect1d(ranking.keys, true_keys(vectors, query, k, everything)))
    return found / len(queries) / min(k, len(everything))


@pytest.fixture(scope="module")
def vectors() -> Vectors:
    return clustered(8_000)[0]


@pytest.fixture(scope="module")
def queries() -> Vectors:
    return clustered(40, seed=5)[0]


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory, vectors: Vectors) -> VectorIndex:
    needs("hnsw")
    return build(tmp_path_factory.mktemp("graph") / "v", vectors, kind="hnsw")


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the sizes of a test a scan is nearly always quicker; here the graph is taken for nearly free."""
    monkeypatch.setattr(Hnsw, "ROWS_A_STEP", 0.1)
    monkeypatch.setattr(Ivf, "cost", lambda *_: 1.0)


# Recall


def test_it_finds_what_it_promises_and_says_so(
    tmp_path: Path, kind: Kind, vectors: Vectors, queries: Vectors, eager: None
) -> None:
    index = build(tmp_path / "v", vectors, kind=kind, recall=0.9)
    assert index.kind == kind
    assert index.recall is not None
    assert index.recall >= 0.9
    measured = recall(index, vectors, queries, 10)
    assert measured >= 0.85
    assert index.measure(queries) == pytest.approx(measured, abs=1e-9)
    assert index.summary.startswith(f"{kind}, recall@10 0.9") or index.recall == 1
    again = VectorIndex.open(index.path, settings=index.settings)
    assert (again.kind, again.recall, again.wants_save, again.verify()) == (kind, index.recall, False, [])
    for query in queries[:10]:
        assert list(again.search(query, 10)) == list(index.search(query, 10))


def test_scores_are_those_of_full_precision(graph: VectorIndex, vectors: Vectors, queries: Vectors, eager: None) -> None:
    for query in queries[:10]:
        ranking = graph.search(query, 10)
        assert graph.plan.startswith("search of the approximate index")
        np.testing.assert_array_equal(
            ranking.scores, (vectors[ranking.keys].astype(np.float64) * query.astype(np.float64)).sum(axis=1).astype(np.float32)
        )


@pytest.mark.parametrize("metric", ["dot", "euclidean"])
@pytest.mark.parametrize("by", ["hnsw", "ivf"])
def test_other_metrics_are_found_too(tmp_path: Path, by: Kind, metric: str, queries: Vectors, eager: None) -> None:
    needs(by)
    vectors = clustered(4000)[0] * np.random.default_rng(1).uniform(0.5, 2, size=(4000, 1)).astype(np.float32)
    settings = VectorIndexSettings(kind=by)
    index = VectorIndex.build(tmp_path / "v", 48, [(np.arange(4000), vectors)], 1, metric=metric, settings=settings)  # type: ignore[arg-type]
    assert index.recall is not None
    assert index.recall >= 0.95
    assert index.measure(queries) > 0.9


# Filters


@pytest.mark.parametrize("by", ["hnsw", "ivf"])
@pytest.mark.parametrize("walks", [True, False])
def test_recall_under_filters_is_that_without_them(
    tmp_path: Path, vectors: Vectors, queries: Vectors, by: Kind, walks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Filters at random, by what is far from the query, and by what is near; planned as it would, and forced onto the graph."""
    needs(by)
    index = build(tmp_path / "v", vectors, kind=by)
    if walks:
        monkeypatch.setattr(Hnsw, "ROWS_A_STEP", 0.1)
        monkeypatch.setattr(Ivf, "cost", lambda *_: 1.0)
    unfiltered = recall(index, vectors, queries, 10)
    random = np.random.default_rng(3)
    plans = set()
    for share in (0.5, 0.1, 0.01, 0.001):
        count = int(share * len(vectors))
        at_random = np.sort(random.choice(len(vectors), count, replace=False))
        found = recall(index, vectors, queries, 10, at_random)
        assert found >= 0.99 * unfiltered, (share, "random", found)
        plans.add(index.plan.split(";")[0].split(" the ")[0])
        far, near = [], []
        for query in queries[:15]:
            order = np.argsort(vectors @ query)
            for chosen, results in ((np.sort(order[:count]), far), (np.sort(order[-count:]), near)):
                results.append(recall(index, vectors, query[None], 10, chosen))
                plans.add(index.plan.split(";")[0].split(" the ")[0])
        assert np.mean(far) >= 0.99 * unfiltered, (share, "far", np.mean(far))
        assert np.mean(near) >= 0.99 * unfiltered, (share, "near", np.mean(near))
    assert "exact scan of what passes" in plans
    assert not walks or "over-fetch" in plans


def test_a_filter_by_cluster_is_kept(graph: VectorIndex, vectors: Vectors, eager: None) -> None:
    """Half of everything passes, and nothing of the cluster that is asked about."""
    _, of = clustered(len(vectors))
    everything = np.arange(len(vectors))
    for cluster in range(6):
        query = vectors[of == cluster].mean(axis=0)
        others = everything[(of != cluster) & (of % 2 == cluster % 2)]
        assert recall(graph, vectors, query[None], 10, others) >= 0.99
        one = everything[of == (cluster + 1) % CLUSTERS]
        assert recall(graph, vectors, query[None], 10, one) >= 0.99


def test_little_passing_nearby_sends_the_walk_farther(
    graph: VectorIndex, vectors: Vectors, queries: Vectors, eager: None
) -> None:
    """Of the nearest few pass, of the others all: the over-fetch comes back short, the filtered walk does not."""
    random = np.random.default_rng(0)
    plans, found = [], []
    for query in queries[:20]:
        order = np.argsort(-(vectors @ query))
        passing = np.sort(np.concatenate([random.choice(order[:100], 20, replace=False), order[100:6000]]))
        found.append(recall(graph, vectors, query[None], 20, passing))
        plans.append(graph.plan)
    assert np.mean(found) >= 0.94
    assert any(plan.startswith("filtered search of the approximate index") for plan in plans), plans


def test_the_plan_is_told_before_and_after(graph: VectorIndex, vectors: Vectors) -> None:
    graph.search(vectors[0], 10, np.arange(120))
    assert graph.plan == graph.explain(10, np.arange(120)) == "exact scan of what passes; 120 of 8,000 passages pass (1.5 %)"
    assert graph.explain(100_000) == "exact scan of all 8,000"


# Changes


def test_what_is_removed_is_never_found_and_what_is_added_at_once(
    tmp_path: Path, kind: Kind, vectors: Vectors, queries: Vectors, eager: None
) -> None:
    index = build(tmp_path / "v", vectors[:6000], kind=kind)
    gone = np.unique(np.concatenate([index.search(query, 10).keys for query in queries]))
    index.remove(gone)
    index.add(np.arange(6000, 6500), vectors[6000:6500])
    index.save(2)
    left = np.setdiff1d(np.arange(6500), gone)
    for again in (index, VectorIndex.open(index.path, settings=index.settings)):
        assert recall(again, vectors[:6500], queries, 10, None if again is None else left) > 0.9
        for query in queries:
            found = again.search(query, 10).keys
            assert not np.isin(found, gone).any()
            assert len(found) == 10
        assert again.search(vectors[6100], 1).keys.tolist() == [6100]


def test_it_is_built_anew_when_changes_outgrow_a_quarter(tmp_path: Path, vectors: Vectors) -> None:
    needs("ivf")
    index = build(tmp_path / "v", vectors[:4000], kind="ivf", nlist=20)
    before = {path.name for path in tmp_path.iterdir()}
    index.remove(np.arange(500))
    assert not index.save(2)
    index.add(np.arange(4000, 4600), vectors[4000:4600])
    assert index.save(3)
    after = {path.name for path in tmp_path.iterdir()}
    assert len(before) == len(after) == 2
    assert before & after == {"v"}
    assert (len(index), index.kind, VectorIndex.open(index.path, settings=index.settings).kind) == (4100, "ivf", "ivf")


# Settings


def test_auto_is_exact_until_that_is_too_much(tmp_path: Path, vectors: Vectors, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("hnsw")
    assert VectorIndexSettings().resolved(300_000, 384) == "exact"
    assert build(tmp_path / "v", vectors[:2000]).kind == "exact"
    monkeypatch.setattr("twinrank.index.settings.EXACT_NUMBERS", 2000 * 48 - 1)
    again = VectorIndex.open(tmp_path / "v")
    assert (again.kind, again.wants_save, again.summary) == ("exact", True, "exact, until its hnsw index is built")
    again.save(1)
    assert (again.kind, again.wants_save) == ("hnsw", False)
    assert VectorIndex.open(tmp_path / "v").kind == "hnsw"


def test_auto_stays_exact_without_faiss(tmp_path: Path, vectors: Vectors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinrank.index.settings.EXACT_NUMBERS", 10)
    monkeypatch.setattr("twinrank.index.vectors.is_installed", lambda name: False)
    index = build(tmp_path / "v", vectors[:1000])
    assert (index.kind, index.summary, index.wants_save) == ("exact", "exact", False)


@pytest.mark.parametrize(("by", "extra"), [("hnsw", "faiss"), ("ivf", "faiss"), ("scann", "scann"), ("annoy", "annoy")])
def test_a_missing_library_names_what_installs_it(
    tmp_path: Path, vectors: Vectors, by: Kind, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, LIBRARIES[by], None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'twinrank\[{extra}\]'"):
        build(tmp_path / "v", vectors[:1000], kind=by)
    assert len(VectorIndex.open(tmp_path / "v")) == 1000  # the file itself is there, and searched exactly


def test_parameters_are_taken_by_hand(tmp_path: Path, vectors: Vectors, queries: Vectors, eager: None) -> None:
    needs("ivf")
    wide = build(tmp_path / "w", vectors, kind="ivf", nlist=30, nprobe=30)
    assert wide.recall == 1
    narrow = VectorIndex.open(wide.path, settings=VectorIndexSettings(kind="ivf", nlist=30, nprobe=1))
    assert not narrow.wants_save  # only searched otherwise
    assert recall(narrow, vectors, queries, 10) < recall(wide, vectors, queries, 10)
    assert VectorIndex.open(wide.path, settings=VectorIndexSettings(kind="ivf", nlist=40)).wants_save
    assert VectorIndex.open(wide.path, settings=VectorIndexSettings(kind="hnsw")).wants_save
    exact = VectorIndex.open(wide.path, settings=VectorIndexSettings(kind="exact"))
    assert (exact.kind, exact.wants_save) == ("exact", False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "flat"}, "no vector index of kind 'flat'; it is one of auto, exact, ivf"),
        ({"m": 1}, "m is 1; expected 0"),
        ({"m": -4}, "m is -4"),
        ({"nprobe": 10**7}, "nprobe is 10000000"),
        ({"recall": 1.0}, "recall is 1.0"),
        ({"recall": 0.1}, "recall is 0.1"),
    ],
)
def test_parameters_out_of_range_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        VectorIndexSettings(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [0, 1, 999])
def test_next_to_nothing_is_indexed_too(tmp_path: Path, kind: Kind, count: int, vectors: Vectors) -> None:
    index = build(tmp_path / "v", vectors[:count], kind=kind)
    assert len(index.search(vectors[0], 5)) == min(count, 5)
    assert index.kind == "exact"
    index.add([7777], vectors[:1])
    assert index.search(vectors[0], 1).keys.tolist() == [7777]


def test_the_number_of_openmp_threads_stays(tmp_path: Path, vectors: Vectors, eager: None) -> None:
    faiss = pytest.importorskip("faiss")
    before = faiss.omp_get_max_threads()
    index = build(tmp_path / "v", vectors[:2000], kind="hnsw")
    index.search(vectors[0], 10)
    assert faiss.omp_get_max_threads() == before


# Damage


def test_a_damaged_index_leaves_search_exact_until_it_is_saved(
    tmp_path: Path, vectors: Vectors, queries: Vectors, eager: None
) -> None:
    needs("hnsw")
    index = build(tmp_path / "v", vectors[:2000], kind="hnsw")
    [folder] = tmp_path.glob("*.neighbours")
    random = np.random.default_rng(0)
    for file in sorted(folder.iterdir()):
        content = file.read_bytes()
        for place in random.choice(len(content), 20, replace=False):
            damaged = bytearray(content)
            damaged[place] ^= 1 << random.integers(8)
            file.write_bytes(damaged)
            assert index.verify() != []
            again = VectorIndex.open(index.path, settings=index.settings)
            assert (again.kind, again.wants_save) == ("exact", True)
        file.write_bytes(content)
    shutil.rmtree(folder)
    again = VectorIndex.open(index.path, settings=index.settings)
    assert recall(again, vectors[:2000], queries, 10) == 1
    again.save(1)
    assert (again.kind, VectorIndex.open(index.path, settings=index.settings).kind) == ("hnsw", "hnsw")


def test_importing_the_index_imports_no_library_of_it() -> None:
    for name in ("twinrank.index.vectors", "twinrank.index.backends"):
        module = importlib.import_module(name)
        assert not {"faiss", "annoy", "scann"} & set(vars(module))


# Built while others search and write


def test_what_changes_while_it_is_built_is_searched_beside_it(
    tmp_path: Path, vectors: Vectors, queries: Vectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("hnsw")
    batches = [(np.arange(4000), vectors[:4000])]
    settings = VectorIndexSettings(kind="hnsw")
    index = VectorIndex.build(tmp_path / "v", 48, batches, 1, settings=settings, threads=1, near=False)
    assert (index.kind, index.wants_near) == ("exact", True)
    made = Approximate.build

    def build_meanwhile(*given: Any) -> Approximate:
        near = made(*given)
        index.remove(np.arange(100))
        index.add(np.arange(5000, 5100), vectors[5000:5100])
        index.save(2, near=False)
        assert index.search(vectors[5050], 1).keys.tolist() == [5050]
        return near

    monkeypatch.setattr(Approximate, "build", build_meanwhile)
    index.build_near()
    assert (index.kind, index.wants_near, len(index)) == ("hnsw", False, 4000)
    assert index.search(vectors[5050], 1).keys.tolist() == [5050]
    assert not set(index.search(vectors[50], 20).keys.tolist()) & set(range(100))
    monkeypatch.undo()
    again = VectorIndex.open(index.path, settings=settings)
    assert (again.kind, again.sequence, len(again)) == ("hnsw", 2, 4000)


def test_what_another_process_built_is_taken_up(tmp_path: Path, vectors: Vectors, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("hnsw")
    settings = VectorIndexSettings(kind="hnsw")
    index = VectorIndex.build(tmp_path / "v", 48, [(np.arange(2000), vectors[:2000])], 1, settings=settings, near=False)
    VectorIndex.open(tmp_path / "v", settings=settings).build_near()
    monkeypatch.delattr(Approximate, "build")
    index.build_near()
    assert index.kind == "hnsw"


def test_where_the_file_was_written_anew_meanwhile_it_comes_to_nothing(
    tmp_path: Path, vectors: Vectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("hnsw")
    settings = VectorIndexSettings(kind="hnsw")
    index = VectorIndex.build(tmp_path / "v", 48, [(np.arange(2000), vectors[:2000])], 1, settings=settings, near=False)
    made = Approximate.build

    def build_meanwhile(*given: Any) -> Approximate:
        near = made(*given)
        index.add(np.arange(3000, 4500), vectors[3000:4500])
        assert index.save(2, near=False)
        return near

    monkeypatch.setattr(Approximate, "build", build_meanwhile)
    index.build_near()
    assert (index.kind, index.wants_near) == ("exact", True)
    monkeypatch.undo()
    index.build_near()
    assert (index.kind, len(index)) == ("hnsw", 3500)
    assert len(list(tmp_path.glob("*.neighbours"))) == 1
