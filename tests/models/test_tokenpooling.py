"""Token pooling: Ward's clusters, as scipy finds them, and means of unit length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from twinrank.models.tokenpooling import cluster, pool_tokens

GOLDEN = Path(__file__).resolve().parent / "golden" / "colbert.npz"


def unit(tokens: int) -> np.ndarray:
    vectors = np.random.default_rng(tokens).normal(size=(tokens, 8)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def in_one_order(vectors: np.ndarray) -> np.ndarray:
    return vectors[np.lexsort(np.round(vectors, 3).T)]


@pytest.mark.parametrize(("tokens", "factor", "protected"), [(30, 2.0, 0), (41, 3.0, 1), (7, 1.5, 2)])
def test_it_is_sentence_transformers_pooling(tokens: int, factor: float, protected: int) -> None:
    expected = np.load(GOLDEN)[f"pooling {tokens} {factor} {protected}"]
    pooled = pool_tokens(unit(tokens), factor, protected=protected)
    np.testing.assert_array_equal(pooled[:protected], unit(tokens)[:protected])
    np.testing.assert_allclose(in_one_order(pooled), in_one_order(expected), atol=1e-5)


def test_the_nearest_are_merged_by_hand() -> None:
    angles = np.radians([0, 4, 90, 95, 180])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert cluster(vectors, 3).tolist() == [0, 0, 1, 1, 2]
    assert cluster(vectors, 1).tolist() == [0] * 5
    pooled = pool_tokens(vectors, 1.6)
    np.testing.assert_allclose(np.degrees(np.arctan2(pooled[:, 1], pooled[:, 0])), [2, 92.5, 180], atol=0.01)


@pytest.mark.parametrize(("tokens", "factor", "left"), [(1, 4, 1), (2, 4, 1), (9, 2, 4), (9, 1, 9), (9, 1.5, 6)])
def test_about_one_of_factor_tokens_is_left_and_always_one(tokens: int, factor: float, left: int) -> None:
    pooled = pool_tokens(unit(tokens), factor)
    assert len(pooled) == left
    np.testing.assert_allclose(np.linalg.norm(pooled, axis=1), 1, atol=1e-5)


def test_equal_tokens_become_one() -> None:
    vectors = np.repeat(unit(3), 4, axis=0)
    np.testing.assert_allclose(pool_tokens(vectors, 4), unit(3), atol=1e-6)
