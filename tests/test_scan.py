"""The int8 scan never leaves out a row of the true top k, whatever the data; the native engine and NumPy find the same rows."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinrank import engine, scan
from twinrank.errors import ModelNotFoundError
from twinrank.models.biencoder import BiEncoder
from twinrank.scan import Codes, Question, ask, may_belong, quantize, reach, scan_in_numpy, scan_int8, top
from twinrank.types import Vectors

needs_engine = pytest.mark.skipif(engine.module is None, reason="the native engine is not compiled")


@pytest.fixture(scope="module")
def encoder() -> BiEncoder:
    try:
        return BiEncoder()
    except ModelNotFoundError as error:
        pytest.skip(str(error))


def true_products(vectors: Vectors, query: np.ndarray) -> np.ndarray:
    return vectors.astype(np.float64) @ query.astype(np.float64)


def unit_vectors(count: int, dimension: int, seed: int = 0) -> Vectors:
    vectors = np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


# By hand


def test_a_vector_is_stored_to_half_a_step() -> None:
    made = quantize(np.array([[127, 1.25, -0.75], [-2.54, 0, 0.02]], np.float32))
    assert made.codes.tolist() == [[127, 1, -1], [-127, 0, 1]]
    np.testing.assert_allclose(made.scales, [1, 0.02], rtol=1e-6)
    np.testing.assert_allclose(made.errors, [np.hypot(0.25, 0.25), 0], atol=1e-4)


def test_rows_are_kept_that_may_be_among_the_best() -> None:
    scores, slack = np.array([1.0, 0.9, 0.5, 0.2], np.float32), np.array([0.1, 0.01, 0.01, 0.5], np.float32)
    assert top(scores, slack, 1).tolist() == [0, 1]  # 0.9 is surely had; 0.9 + 0.01 and 1 + 0.1 reach it
    assert top(scores, slack, 3).tolist() == [0, 1, 2, 3]  # 0.49 is surely had three times; 0.2 + 0.5 may be more
    assert top(scores, slack, 9).tolist() == [0, 1, 2, 3]


def test_two_summands_of_a_query_lose_next_to_nothing() -> None:
    for query in unit_vectors(20, 384, seed=3):
        question = ask(query, 1.0)
        assert question is not None
        stood_for = question.part_scales.astype(np.float64) @ question.parts
        length = np.linalg.norm(stood_for)
        cosine = stood_for @ query.astype(np.float64) / length / np.linalg.norm(query.astype(np.float64))
        assert 1 - cosine < 1e-8
        assert question.constant < 1e-3 * length


# The bound


@pytest.mark.parametrize(("dimension", "scale"), [(1, 1.0), (3, 1e-30), (16, 1e30), (384, 1.0), (1100, 1.0), (2049, 1e-12)])
def test_what_quantising_loses_is_never_more_than_said(dimension: int, scale: float) -> None:
    random = np.random.default_rng(dimension)
    vectors = (random.normal(size=(500, dimension)) ** 5 * scale).astype(np.float32)
    codes = quantize(vectors)
    stands_for = codes.codes * codes.scales.astype(np.float64)[:, None]
    lost = np.linalg.norm(vectors.astype(np.float64) - stands_for, axis=1)
    assert (lost <= codes.errors).all()
    assert (codes.errors <= lost * 1.01 + 2e-5 * np.linalg.norm(vectors.astype(np.float64), axis=1)).all()  # and little more
    longest = reach(vectors, codes)
    assert (np.linalg.norm(stands_for, axis=1) <= longest).all()


def test_denormal_numbers_are_all_error() -> None:
    vectors = np.array([[1e-45, 0, 2e-45], [3e-44, 0, 1e-45]], np.float32)
    codes = quantize(vectors)
    lost = np.linalg.norm(vectors.astype(np.float64) - codes.codes * codes.scales.astype(np.float64)[:, None], axis=1)
    assert (lost <= codes.errors).all()


def assert_complete(vectors: Vectors, query: np.ndarray, k: int, rows: np.ndarray | None = None) -> int:
    """Every row of the true top k, with all that tie in float32, is found; returns how many rows were."""
    codes = quantize(vectors)
    question = ask(query, reach(vectors, codes))
    assert question is not None
    found, scores, slack = may_belong(codes, question, k, rows)
    looked_at = np.arange(len(vectors)) if rows is None else rows
    assert len(np.unique(found)) == len(found)
    assert np.isin(found, looked_at).all()
    products = true_products(vectors[looked_at], query).astype(np.float32)
    least = np.sort(products)[-min(k, len(products))] if len(products) else 0
    needed = looked_at[products >= least]
    missing = np.setdiff1d(needed, found)
    assert not len(missing), f"row {missing[:1]} of {len(needed)} was left out"
    again, _ = scan_in_numpy(codes, question, k, rows)
    assert not len(np.setdiff1d(needed, again))
    assert (np.abs(scores) + slack).min(initial=0) >= 0
    return len(found)


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 80),
    dimension=st.sampled_from([1, 2, 7, 16, 65, 384]),
    k=st.integers(1, 90),
    exponent=st.integers(-12, 12),
    spread=st.integers(0, 6),
    kind=st.sampled_from(["random", "twins", "near ties", "sparse", "one long", "small integers"]),
)
def test_no_row_of_the_top_k_is_left_out(
    seed: int, count: int, dimension: int, k: int, exponent: int, spread: int, kind: str
) -> None:
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(count, dimension)) * 10.0**exponent * 10.0 ** random.uniform(-spread, spread, (count, 1))
    half = count // 2
    if kind == "twins":
        vectors[:half] = vectors[half : 2 * half]
    elif kind == "near ties":
        vectors[:] = vectors[0] * (1 + random.normal(size=(count, 1)) * 1e-7)
    elif kind == "sparse":
        vectors *= random.random(vectors.shape) < 0.1
        vectors[:, 0] += 10.0**exponent * 1e-6
    elif kind == "one long":
        vectors[0] *= 1e6
    elif kind == "small integers":
        vectors = random.integers(-2, 3, size=vectors.shape).astype(np.float64)
        vectors[~vectors.any(axis=1)] = 1
    query = random.normal(size=dimension).astype(np.float32) if kind != "small integers" else np.ones(dimension, np.float32)
    assert_complete(vectors.astype(np.float32), query, k)
    chosen = np.sort(random.choice(count, random.integers(0, count + 1), replace=False)).astype(np.int64)
    assert_complete(vectors.astype(np.float32), query, k, chosen)


def first_texts(path: Path, count: int) -> list[str]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line)["text"][:200] or "nothing" for line in itertools.islice(file, count)]


COLLECTIONS = sorted(path.parent for path in (Path.home() / ".cache" / "twinrank-data").glob("*/corpus.jsonl"))


@pytest.mark.data
@pytest.mark.parametrize("folder", COLLECTIONS, ids=lambda folder: folder.name)
def test_on_every_collection_at_hand_the_top_k_is_that_of_float64(folder: Path, encoder: BiEncoder) -> None:
    """150 documents each, and the first 20 queries; bench/million.py does the same over a million passages."""
    texts, queries = (first_texts(folder / name, count) for name, count in (("corpus.jsonl", 150), ("queries.jsonl", 20)))
    vectors = encoder.encode(texts)
    for query in encoder.encode(queries, side="query"):
        for k in (1, 10, 100):
            assert_complete(vectors, query, k)


def test_few_rows_more_than_asked_for_are_found() -> None:
    vectors = unit_vectors(20_000, 384)
    queries = vectors[:20] + np.random.default_rng(2).normal(scale=0.04, size=(20, 384)).astype(np.float32)
    assert np.mean([assert_complete(vectors, query, 10) for query in queries]) < 60


def test_products_that_vanish_or_overflow_are_not_asked_of_the_codes() -> None:
    assert ask(np.zeros(4), 1.0) is None
    assert ask(np.ones(4) * 1e-30, 1e-30) is None
    assert ask(np.ones(4) * 1e30, 1e30) is None
    assert ask(np.ones(4), 0.0) is None
    assert ask(np.ones(4) * 1e-30, 1e30) is not None


# Two implementations


@needs_engine
@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 300),
    dimension=st.sampled_from([1, 3, 31, 64, 100, 384, 1100]),
    k=st.integers(1, 320),
    threads=st.integers(1, 3),
    subset=st.booleans(),
)
def test_the_native_scan_finds_what_numpy_finds(
    seed: int, count: int, dimension: int, k: int, threads: int, subset: bool
) -> None:
    random = np.random.default_rng(seed)
    integers = random.integers(-127, 128, size=(count, dimension)).astype(np.int8)
    codes = Codes(integers, *(random.random(count, dtype=np.float32) + 0.1 for _ in range(2)))
    parts = random.integers(-127, 128, size=(2, dimension)).astype(np.int8)
    question = Question(parts, np.array([1 / 1024, 1 / 262144], np.float32), 0.01, 0.02)
    rows = np.flatnonzero(random.random(count) < 0.4) if subset else None
    ours = scan_in_numpy(codes, question, k, rows)
    native = scan_int8(codes, question, k, rows, threads)
    ours_of, native_of = (dict(zip(rows.tolist(), scores.tolist(), strict=True)) for rows, scores in (ours, native))
    # A row on the very edge may fall to either side, since the two round differently.
    slack = 0.01 + 0.02 * codes.errors
    lower = np.sort([score - slack[row] for row, score in (ours_of | native_of).items()])[::-1]
    for row in ours_of.keys() ^ native_of.keys():
        score = (ours_of | native_of)[row]
        assert abs(score + slack[row] - lower[k - 1]) < 1e-3 * (1 + abs(score))
    for row in ours_of.keys() & native_of.keys():
        assert ours_of[row] == pytest.approx(native_of[row], rel=1e-5, abs=1e-4)


@pytest.mark.parametrize("wish", ["", "numpy"])
def test_a_k_below_one_is_refused(monkeypatch: pytest.MonkeyPatch, wish: str) -> None:
    monkeypatch.setenv("TWINRANK_ENGINE", wish)
    question = ask(np.ones(2), 1.5)
    assert question is not None
    with pytest.raises(ValueError, match="k is 0; at least 1 was expected"):
        may_belong(quantize(np.ones((3, 2), np.float32)), question, 0)


def test_numpy_is_taken_where_it_is_wished_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWINRANK_ENGINE", "numpy")
    monkeypatch.setattr(scan, "scan_in_numpy", lambda *_: ("numpy", "was asked"))
    question = ask(np.ones(2), 1.5)
    assert question is not None
    assert scan_int8(quantize(np.ones((3, 2), np.float32)), question, 1) == ("numpy", "was asked")


def test_codes_of_a_read_only_map_are_scanned(tmp_path: Path) -> None:
    vectors = unit_vectors(50, 8)
    made = quantize(vectors)
    np.save(tmp_path / "codes.npy", made.codes)
    mapped = Codes(np.load(tmp_path / "codes.npy", mmap_mode="r").view(np.ndarray), made.scales, made.errors)
    question = ask(vectors[3], reach(vectors, made))
    assert question is not None
    found, _, _ = may_belong(mapped, question, 1)
    assert 3 in found
