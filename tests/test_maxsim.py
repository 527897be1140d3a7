"""MaxSim by hand, by the formula, and over what is stored."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    np.testing.assert_allclose(score_packed(codec, query, [packed]), maxsim(query, restored), atol=2e-5)
    np.testing.assert_allclose(score_packed(codec, query, iter(packed)), maxsim(query, restored), atol=2e-5)


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
