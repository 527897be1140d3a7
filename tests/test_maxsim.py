"""MaxSim by hand, by the formula, and over what is stored."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinrank import engine
from twinrank.errors import InputError
from twinrank.maxsim import TOKENS_AT_ONCE, maxsim, score_packed
from twinrank.quantization import PackedTokens, TokenCodec, TokenFormat


def unit(tokens: int, dimension: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(tokens, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def colbert_scores(queries: np.ndarray, documents: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """PyLate's colbert_scores, in its own terms: a = queries, b = documents, s = query tokens, t = document tokens."""
    scores = np.einsum("ash,bth->abst", queries, documents)
    scores = np.where(mask[None, :, None, :], scores, -np.inf)
    return scores.max(axis=-1).sum(axis=-1)


def test_by_hand() -> None:
    query = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
    first = np.array([[1, 0], [0, -1]], np.float32)  # best: 1, 0, 0.6
    second = np.array([[0.8, 0.6]], np.float32)  # best: 0.8, 0.6, 0.96
    np.testing.assert_allclose(maxsim(query, [first, second]), [1.6, 2.36], rtol=1e-6)


def test_a_passage_without_tokens_scores_nothing() -> None:
    query = unit(3, 8, 0)
    assert maxsim(query, [np.empty((0, 8), np.float32), query])[0] == 0.0
    codec = TokenCodec("int8", 8)
    packed = codec.quantize(query, [0, 0, 3, 3])
    assert score_packed(codec, query, [packed])[[0, 2]].tolist() == [0.0, 0.0]


def test_it_is_pylates_formula() -> None:
    queries, lengths = unit(12, 16, 1).reshape(3, 4, 16), [5, 2, 7]
    documents, mask = np.zeros((3, 7, 16), np.float32), np.zeros((3, 7), bool)
    for number, length in enumerate(lengths):
        documents[number, :length], mask[number, :length] = unit(length, 16, 2 + number), True
    expected = colbert_scores(queries, documents, mask)
    passages = [documents[number, :length] for number, length in enumerate(lengths)]
    for query, row in zip(queries, expected, strict=True):
        np.testing.assert_allclose(maxsim(query, passages), row, rtol=1e-5)


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=12),
    st.integers(1, 9),
    st.integers(1, 20),
    st.sampled_from(["int8", "int4"]),
)
@settings(deadline=None)
def test_over_what_is_stored_it_is_that_of_the_restored_vectors(
    lengths: list[int], query_tokens: int, dimension: int, format: TokenFormat
) -> None:
    codec, query = TokenCodec(format, dimension), unit(query_tokens, dimension, 1)
    packed = codec.quantize(unit(sum(lengths), dimension, 2), np.concatenate([[0], np.cumsum(lengths)]))
    restored = [codec.restore(one.codes, one.scales) for one in packed]
    tolerance = 2e-5 + rounding_of_the_query(codec, query, restored)
    np.testing.assert_allclose(score_packed(codec, query, [packed]), maxsim(query, restored), atol=tolerance)
    np.testing.assert_allclose(score_packed(codec, query, iter(packed)), maxsim(query, restored), atol=tolerance)


def rounding_of_the_query(codec: TokenCodec, query: np.ndarray, restored: list[np.ndarray]) -> float:
    """What `score_packed` states that the engine's rounding of the query can move a score by."""
    turned = codec.prepare_query(query)[0]  # 4-bit codes are compared with the turned query, whose codes are longer by a half
    longest = max((np.abs(one).sum(axis=1).max() for one in restored if len(one)), default=0.0)
    if codec.format == "int4":
        longest = max((np.linalg.norm(one, axis=1).max() for one in restored if len(one)), default=0.0) * codec.width**0.5
    return float((np.abs(turned).max(axis=1, initial=0.0) / 65_024).sum() * longest)


# ---- the native engine -------------------------------------------------------------------------------------------------

PATHS = [] if engine.module is None else engine.module.paths()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("format", ["int8", "int4"])
@pytest.mark.parametrize(
    ("query_tokens", "dimension", "lengths"),
    [
        (32, 384, [1, 5, 120, 209, 23, 24, 25, 48, 0, 7]),
        (1, 1, [1, 2, 3]),
        (5, 3, [30]),
        (16, 63, [13, 100]),
        (17, 64, [100, 13]),
        (49, 130, [6, 4, 77]),
        (100, 1024, [40]),
        (0, 32, [3, 4]),
    ],
)
def test_every_path_gives_what_numpy_gives(
    monkeypatch: pytest.MonkeyPatch, path: str, format: TokenFormat, query_tokens: int, dimension: int, lengths: list[int]
) -> None:
    codec, query = TokenCodec(format, dimension), unit(query_tokens, dimension, 1)
    packed = codec.quantize(unit(sum(lengths), dimension, 2), np.concatenate([[0], np.cumsum(lengths)]))
    restored = [codec.restore(one.codes, one.scales) for one in packed]
    monkeypatch.setenv("TWINRANK_ENGINE", "numpy")
    expected = score_packed(codec, query, [packed])
    monkeypatch.setenv("TWINRANK_ENGINE", path)
    came = score_packed(codec, query, [packed])
    np.testing.assert_allclose(came, expected, atol=1e-6 * query_tokens + rounding_of_the_query(codec, query, restored))
    assert np.array_equal(score_packed(codec, query, list(packed)), came)
    if dimension == 384:  # the bound is for the worst case; this is the usual one
        np.testing.assert_allclose(came, expected, atol=3e-5)


@pytest.mark.skipif(not PATHS, reason="the native engine is not compiled here")
@pytest.mark.parametrize("format", ["int8", "int4"])
def test_paths_threads_and_neighbours_change_no_bit(monkeypatch: pytest.MonkeyPatch, format: TokenFormat) -> None:
    codec, query = TokenCodec(format, 96), 3 * unit(20, 96, 1)
    packed = codec.quantize(unit(20_000, 96, 2), np.arange(0, 20_001, 125))
    results = []
    for path in PATHS:
        for threads in ("1", "3"):
            monkeypatch.setenv("TWINRANK_ENGINE", path)
            monkeypatch.setenv("TWINRANK_THREADS", threads)
            results.append(score_packed(codec, query, [packed]))
    for result in results[1:]:
        assert np.array_equal(result, results[0])
    one_by_one = np.concatenate([score_packed(codec, query, [one]) for one in packed])
    assert np.array_equal(one_by_one, results[0])


@pytest.mark.skipif(not PATHS, reason="the native engine is not compiled here")
def test_tokens_that_cannot_be_scored_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWINRANK_ENGINE", PATHS[0])
    codec, query = TokenCodec("int8", 8), unit(3, 8, 0)
    good = codec.quantize(unit(5, 8, 1))

    def refuse(said: str, query: np.ndarray = query, **changes: np.ndarray) -> None:
        with pytest.raises(InputError, match=said):
            score_packed(codec, query, [good, replace(good, **changes)])

    refuse("int8", codes=np.zeros((5, 7), np.int8))
    refuse("int8", codes=np.zeros((5, 8), np.uint8))
    refuse("int8", codes=np.zeros((5, 8), np.float32))
    refuse("one a token", scales=np.zeros(4, np.float32))
    refuse("one a token", scales=np.zeros(5, np.float64))
    refuse("offsets", offsets=np.array([0, 6]))
    refuse("offsets", offsets=np.array([-1, 5]))
    refuse("offsets", offsets=np.array([0, 4, 3]))
    refuse("offsets", offsets=np.array([], np.int64))
    refuse("NaN", query=np.full((1, 8), np.nan, np.float32))


@pytest.mark.skipif(not PATHS, reason="the native engine is not compiled here")
@pytest.mark.parametrize("path", PATHS)
def test_the_largest_codes_and_queries_do_not_overflow(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    codec = TokenCodec("int8", 65_536)
    packed = PackedTokens(np.full((2, 65_536), 127, np.int8), np.ones(2, np.float32), np.array([0, 1, 2]))
    packed.codes[1] = -128
    monkeypatch.setenv("TWINRANK_ENGINE", path)
    for sign in (1, -1):
        scores = score_packed(codec, np.full((1, 65_536), sign, np.float32), [packed])
        np.testing.assert_allclose(scores, [sign * 127 * 65_536, sign * -128 * 65_536], rtol=1e-5)


@pytest.mark.parametrize("tokens", [TOKENS_AT_ONCE - 1, TOKENS_AT_ONCE, TOKENS_AT_ONCE + 1, 3 * TOKENS_AT_ONCE + 5])
def test_a_long_passage_between_short_ones_is_scored_whole(tokens: int) -> None:
    codec, query, lengths = TokenCodec("int8", 4), unit(2, 4, 0), [3, tokens, 1]
    vectors = unit(sum(lengths), 4, 1)
    packed = codec.quantize(vectors, np.concatenate([[0], np.cumsum(lengths)]))
    passages = np.split(vectors, np.cumsum(lengths)[:-1])
    np.testing.assert_allclose(score_packed(codec, query, [packed]), maxsim(query, passages), atol=0.03)


@pytest.mark.parametrize(("format", "error"), [("int8", 0.002), ("int4", 0.03)])
def test_quantising_moves_a_score_by_little(format: TokenFormat, error: float) -> None:
    """Per query token, at 384 dimensions."""
    codec, query, vectors = TokenCodec(format, 384), unit(20, 384, 0), unit(1500, 384, 1)
    packed = codec.quantize(vectors, np.arange(0, 1501, 150))
    exact = maxsim(query, np.split(vectors, 10))
    assert np.abs(score_packed(codec, query, [packed]) - exact).max() / 20 < error


def test_a_query_of_one_vector_is_refused() -> None:
    with pytest.raises(InputError, match=r"shape \(4,\); \(tokens, dimension\) was expected"):
        maxsim(np.ones(4, np.float32), [])
    assert len(score_packed(TokenCodec("int8", 4), np.ones((1, 4), np.float32), [])) == 0
    assert isinstance(TokenCodec("int8", 4).quantize(np.ones((1, 4))), PackedTokens)
