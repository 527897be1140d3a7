"""The vector index returns the true top k, whatever was added, removed, filtered and reopened, and notices damage."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from twinrank.errors import IndexDamagedError, InputError, StorageError
from twinrank.index.vectors import VectorIndex
from twinrank.types import Keys, Ranking, Vectors


def batches(keys: Keys, vectors: Vectors, size: int = 100) -> Iterator[tuple[Keys, Vectors]]:
    for start in range(0, len(keys), size):
        yield keys[start : start + size], vectors[start : start + size]


def unit_vectors(count: int, dimension: int, seed: int = 0) -> Vectors:
    vectors = np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def truth(keys: Keys, vectors: Vectors, query: np.ndarray, k: int, metric: str = "dot") -> Ranking:
    wide, wide_query = vectors.astype(np.float64), query.astype(np.float64)
    scores = -((wide - wide_query) ** 2).sum(axis=1) if metric == "euclidean" else (wide * wide_query).sum(axis=1)
    return Ranking.of(keys, scores, k)


@pytest.fixture
def small(tmp_path: Path) -> VectorIndex:
    vectors = np.array([[1, 0], [0, 1], [0.6, 0.8], [-1, 0]], np.float32)
    return VectorIndex.build(tmp_path / "v", 2, [(np.array([3, 5, 7, 9]), vectors)], 12, stamp="f")


def test_inner_products_worked_out_by_hand(small: VectorIndex) -> None:
    ranking = small.search([1, 0.5], 3)
    assert list(ranking) == [(3, 1.0), (7, 1.0), (5, 0.5)] or list(ranking) == [(7, 1.0), (3, 1.0), (5, 0.5)]
    assert small.search([0, 2], 9).scores.tolist() == pytest.approx([2, 1.6, 0, 0])
    assert small.search([0, 2], 9).keys.tolist() == [5, 7, 9, 3]


def test_euclidean_distances_worked_out_by_hand(tmp_path: Path) -> None:
    vectors = np.array([[3, 4], [1, 1], [6, 8]], np.float32)
    index = VectorIndex.build(tmp_path / "v", 2, [(np.array([1, 2, 3]), vectors)], 1, metric="euclidean")
    assert list(index.search([3, 4], 3)) == [(1, 0.0), (2, -13.0), (3, -25.0)]


@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean"])
@pytest.mark.parametrize("k", [1, 10, 999, 10**9])
def test_the_top_k_is_that_of_float64(tmp_path: Path, metric: str, k: int) -> None:
    keys = np.sort(np.random.default_rng(1).choice(10**6, size=1000, replace=False))
    vectors = unit_vectors(1000, 48)
    vectors[500:] = vectors[:500] + np.random.default_rng(2).normal(scale=1e-6, size=(500, 48))  # near ties
    vectors[900:] = vectors[:100]  # ties
    index = VectorIndex.build(tmp_path / "v", 48, batches(keys, vectors), 1, metric=metric)  # type: ignore[arg-type]
    for query in unit_vectors(30, 48, seed=9):
        expected = truth(keys, vectors, query, k, metric)
        found = index.search(query, k)
        assert found.keys.tolist() == expected.keys.tolist()
        np.testing.assert_array_equal(found.scores, expected.scores)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1e-15, 1e15), st.integers(1, 20))
def test_the_bound_holds_at_any_scale(seed: int, scale: float, k: int) -> None:
    random = np.random.default_rng(seed)
    vectors = (random.normal(size=(60, 16)) * scale * 10.0 ** random.integers(-3, 3, size=(60, 1))).astype(np.float32)
    vectors[30:] = np.nextafter(vectors[:30], np.float32(np.inf))
    query = random.normal(size=16).astype(np.float32)
    index = VectorIndex.build(Path(os.environ.get("TMPDIR", "/tmp")) / f"v{os.getpid()}", 16, [(np.arange(60), vectors)], 1)
    assert index.search(query, k).keys.tolist() == truth(np.arange(60), vectors, query, k).keys.tolist()
    index.path.unlink()


# Filters


@pytest.mark.parametrize("share", [0.001, 0.05, 0.11, 0.5, 1.0])
def test_a_filter_gives_the_best_of_exactly_what_it_allows(tmp_path: Path, share: float) -> None:
    keys, vectors = np.arange(10, 5010), unit_vectors(5000, 16)
    index = VectorIndex.build(tmp_path / "v", 16, batches(keys[:4000], vectors[:4000]), 1)
    index.add(keys[4000:], vectors[4000:])
    random = np.random.default_rng(3)
    for query in unit_vectors(10, 16, seed=4):
        allowed = random.permutation(np.append(random.choice(keys, size=int(5000 * share), replace=False), [1, 10**9, 1]))
        mask = np.isin(keys, allowed)
        found = index.search(query, 20, allowed)
        assert found.keys.tolist() == truth(keys[mask], vectors[mask], query, 20).keys.tolist()


def test_a_filter_that_allows_nothing_here_finds_nothing(small: VectorIndex) -> None:
    assert len(small.search([1, 0], 5, np.empty(0, np.int64))) == 0
    assert len(small.search([1, 0], 5, np.array([4, 1000]))) == 0
    small.remove([3])
    assert small.search([1, 0], 5, np.array([3, 5])).keys.tolist() == [5]


# Changes


def test_a_removed_passage_is_never_found(small: VectorIndex) -> None:
    small.remove([3, 77])
    assert small.search([1, 0], 9).keys.tolist() == [7, 5, 9]
    assert (len(small), small.keys.tolist()) == (3, [5, 7, 9])
    small.add([3], [[0, -1]])
    small.remove(3)
    assert 3 not in small.search([0, -1], 9).keys
    small.remove([3, 5, 7, 9])
    assert len(small.search([1, 0], 9)) == len(small) == 0


def test_a_replaced_passage_has_its_new_vector_only(small: VectorIndex) -> None:
    small.add([3, 3], [[0, -1], [0, -3]])
    assert list(small.search([0, -1], 1)) == [(3, 3.0)]
    assert small.search([1, 0], 9).keys.tolist().count(3) == 1
    assert small.vectors([9, 3]).tolist() == [[-1, 0], [0, -3]]
    assert len(small) == 4


def test_vectors_of_a_key_that_is_not_there_are_an_error(small: VectorIndex) -> None:
    with pytest.raises(InputError, match=r"passage 4 is not in the index \(1 of 2"):
        small.vectors([3, 4])


class AnyHistory(RuleBasedStateMachine):
    """An index changed in any order answers as a dictionary would."""

    def __init__(self) -> None:
        super().__init__()
        self.path = Path(os.environ.get("TMPDIR", "/tmp")) / f"history{os.getpid()}-{id(self)}"
        self.index = VectorIndex.build(self.path, 3, [], 0)
        self.model: dict[int, np.ndarray] = {}
        self.sequence = 0

    @rule(keys=st.lists(st.integers(0, 30), min_size=1, max_size=8), seed=st.integers(0, 10**6))
    def add(self, keys: list[int], seed: int) -> None:
        vectors = np.random.default_rng(seed).integers(-2, 3, size=(len(keys), 3)).astype(np.float32)
        vectors[~vectors.any(axis=1)] = 1
        self.index.add(keys, vectors)
        self.model.update(zip(keys, vectors, strict=True))

    @rule(keys=st.lists(st.integers(0, 30), max_size=8))
    def remove(self, keys: list[int]) -> None:
        self.index.remove(keys)
        for key in keys:
            self.model.pop(key, None)

    @rule()
    def save_and_reopen(self) -> None:
        self.sequence += 1
        assert self.index.save(self.sequence, force=True)
        self.index = VectorIndex.open(self.path)
        assert self.index.sequence == self.sequence

    @rule(allowed=st.lists(st.integers(0, 35), max_size=20), k=st.integers(1, 12))
    def search_among(self, allowed: list[int], k: int) -> None:
        query = np.array([1, 0.5, -0.25], np.float32)
        kept = [key for key in self.model if key in allowed]
        expected = truth(np.array(kept, np.int64), np.array([self.model[key] for key in kept]).reshape(-1, 3), query, k)
        assert self.index.search(query, k, np.array(allowed, np.int64)).keys.tolist() == expected.keys.tolist()

    @invariant()
    def everything_is_found_once(self) -> None:
        query = np.array([1, 0.5, -0.25], np.float32)
        keys = np.array(list(self.model), np.int64)
        expected = truth(keys, np.array(list(self.model.values())).reshape(-1, 3), query, 99)
        assert list(self.index.search(query, 99)) == list(expected)
        assert len(self.index) == len(self.model)
        assert self.index.keys.tolist() == sorted(self.model)

    def teardown(self) -> None:
        self.path.unlink()


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)


def test_searches_of_other_threads_see_one_state(tmp_path: Path) -> None:
    index = VectorIndex.build(tmp_path / "v", 4, [(np.arange(200), np.ones((200, 4), np.float32))], 1)
    done, problems = threading.Event(), []

    def search() -> None:
        while not done.is_set():
            found = index.search([1, 0, 0, 0], 1000)
            # Each change replaces all 200 vectors, so that a search sees one value only.
            if len(found) != 200 or len(set(found.scores.tolist())) != 1:
                problems.append(found)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for value in range(2, 150):
        index.add(np.arange(200), np.full((200, 4), value, np.float32))
        index.save(value)
    done.set()
    for thread in threads:
        thread.join()
    assert problems == []


# What is refused


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        ([1, 0, 0], r"shape \(3,\); the index holds vectors of \(2,\)"),
        ([1, np.nan], "NaN"),
        ([np.inf, 0], "infinity"),
        ([[1, 0]], "shape"),
    ],
)
def test_a_query_that_does_not_fit_is_refused(small: VectorIndex, vector: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        small.search(vector, 1)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ([[1, 0, 0]], r"shape \(1, 3\).*\(2,\)"),
        ([[1, np.nan]], "passage 8 is zero, or holds NaN"),
        ([[0, 0]], "passage 8 is zero"),
    ],
)
def test_a_vector_that_cannot_be_searched_is_refused(small: VectorIndex, vectors: list[list[float]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        small.add([8], vectors)
    with pytest.raises(InputError, match=message):
        VectorIndex.build(small.path, 2, [(np.array([8]), np.array(vectors, np.float32))], 1)
    assert len(VectorIndex.open(small.path, stamp="f")) == len(small) == 4
    assert [path.name for path in small.path.parent.iterdir()] == ["v"]


def test_a_k_below_one_finds_nothing_and_an_empty_index_too(small: VectorIndex, tmp_path: Path) -> None:
    assert len(small.search([1, 0], 0)) == 0
    empty = VectorIndex.build(tmp_path / "empty", 2, [], 0)
    assert (len(empty), len(empty.search([1, 0], 5)), empty.verify()) == (0, 0, [])


def test_keys_out_of_order_and_unknown_metrics_are_refused(tmp_path: Path) -> None:
    two = np.ones((2, 2), np.float32)
    with pytest.raises(InputError, match="ascending order"):
        VectorIndex.build(tmp_path / "v", 2, [(np.array([1, 2]), two), (np.array([2, 3]), two)], 1)
    with pytest.raises(InputError, match="no metric 'manhattan'"):
        VectorIndex.build(tmp_path / "v", 2, [], 1, metric="manhattan")  # type: ignore[arg-type]


# On disk


def test_it_is_opened_as_it_was_built(small: VectorIndex) -> None:
    again = VectorIndex.open(small.path, stamp="f")
    assert (again.sequence, again.dimension, again.metric, again.keys.tolist()) == (12, 2, "cosine", [3, 5, 7, 9])
    assert list(again.search([1, 2], 4)) == list(small.search([1, 2], 4))
    assert again.verify() == []


def test_few_changes_go_into_the_log_and_many_into_a_new_file(tmp_path: Path) -> None:
    vectors = unit_vectors(8000, 4)
    index = VectorIndex.build(tmp_path / "v", 4, [(np.arange(8000), vectors)], 1)
    written = index.path.read_bytes()
    index.add([9000], vectors[:1])
    assert not index.save(2)
    assert (index.sequence, index.saved_sequence, VectorIndex.open(index.path).sequence) == (2, 2, 2)
    assert index.path.read_bytes() == written
    index.remove(np.arange(2500))
    assert index.save(3)
    assert index.path.read_bytes() != written
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v"]
    again = VectorIndex.open(index.path)
    assert (again.sequence, len(again), index.saved_sequence) == (3, 5501, 3)
    assert again.verify() == []
    np.testing.assert_array_equal(again.vectors([9000]), vectors[:1])


def test_a_missing_stale_or_foreign_file_is_told(small: VectorIndex, tmp_path: Path) -> None:
    with pytest.raises(IndexDamagedError, match="there is no index"):
        VectorIndex.open(tmp_path / "nothing")
    with pytest.raises(IndexDamagedError, match=r"other vectors \('f', not 'g'\)"):
        VectorIndex.open(small.path, stamp="g")
    (tmp_path / "foreign").write_bytes(b"hello")
    with pytest.raises(IndexDamagedError, match="header fails"):
        VectorIndex.open(tmp_path / "foreign")


def test_every_flipped_bit_is_noticed(small: VectorIndex, tmp_path: Path) -> None:
    content = small.path.read_bytes()
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        copy = tmp_path / f"copy{place}"
        copy.write_bytes(damaged)
        try:
            noticed = VectorIndex.open(copy, stamp="f").verify() != []
        except IndexDamagedError:
            noticed = True
        assert noticed, place
        copy.unlink()


def test_every_truncation_is_noticed(small: VectorIndex, tmp_path: Path) -> None:
    content = small.path.read_bytes()
    for length in [*range(40), 4095, 4096, *range(4097, len(content))]:
        (tmp_path / "copy").write_bytes(content[:length])
        with pytest.raises(IndexDamagedError):
            VectorIndex.open(tmp_path / "copy", stamp="f")


def test_a_failing_write_leaves_the_old_file(small: VectorIndex) -> None:
    script = f"""
import resource, signal, sys
sys.path[:0] = {sys.path!r}
import numpy as np
from twinrank.errors import StorageError
from twinrank.index.vectors import VectorIndex
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    VectorIndex.build({str(small.path)!r}, 64, [(np.arange(1000), np.ones((1000, 64), np.float32))], 2)
except StorageError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert "cannot be written" in result.stdout, result.stderr
    assert [path.name for path in small.path.parent.iterdir()] == ["v"]
    assert VectorIndex.open(small.path, stamp="f").sequence == 12


def test_a_folder_that_cannot_be_made_is_told(small: VectorIndex) -> None:
    with pytest.raises(StorageError, match=os.strerror(errno.EEXIST) + "|" + os.strerror(errno.ENOTDIR)):
        VectorIndex.build(small.path / "inside" / "v", 2, [], 1)


def test_building_holds_one_batch_at_a_time(tmp_path: Path) -> None:
    """400 MB of vectors are written by a process that may grow by 150 MB."""
    script = f"""
import resource, sys
sys.path[:0] = {sys.path!r}
import numpy as np
from pathlib import Path
from twinrank.index.vectors import VectorIndex
batch = np.ones((4096, 256), np.float32)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
VectorIndex.build(Path({str(tmp_path)!r}) / "v", 256, ((np.arange(i * 4096, (i + 1) * 4096), batch) for i in range(96)), 1)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    (tmp_path / "v").unlink()
    assert int(result.stdout) < 150, result.stderr
