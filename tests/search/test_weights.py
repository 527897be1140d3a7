"""What decides the weights of a fusion: monotone, bounded, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinrank.search.weights import (
    BIAS,
    BY_AGREEMENT,
    BY_SPREAD,
    UNRELATED,
    Views,
    agreement_of,
    contrast_of,
    decide,
    spread_of,
)

COSINES = np.linspace(0.7, 0.1, 100)


def share(spread: float = 0.3, agreement: float | None = 0.3, usual: float = 0.6) -> float:
    return decide(np.array([spread, 0.0]), Views(1.0, agreement), usual).vectors


def test_the_share_equals_its_formula() -> None:
    assert share(0.25, 0.35) == pytest.approx(1 / (1 + math.exp(-(BIAS + BY_SPREAD * 0.25 + BY_AGREEMENT * 0.35))))


@given(st.floats(0, 2), st.floats(0, 2), st.floats(0, 1))
def test_vectors_that_tell_candidates_apart_count_no_less(a: float, b: float, agreement: float) -> None:
    low, high = sorted((a, b))
    assert 0 < share(low, agreement) <= share(high, agreement) < 1


@given(st.floats(0, 1), st.floats(0, 1))
def test_vectors_that_agree_with_the_words_count_no_less(a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert share(agreement=low) <= share(agreement=high)


def test_what_lies_beyond_what_was_seen_counts_as_its_end() -> None:
    assert share(agreement=0.99) == share(agreement=0.45)
    assert share(spread=1.9) == share(spread=1.0)


def test_without_an_agreement_the_recipes_weights_hold() -> None:
    assert share(agreement=None, usual=0.35) == 0.35


def test_a_recipe_that_leans_to_one_side_keeps_leaning() -> None:
    assert share(usual=0.3) < share(usual=0.6) < share(usual=0.8)
    assert (share(usual=0.0), share(usual=1.0)) == (0, 1)


def test_the_spread_reaches_to_the_fiftieth_candidate() -> None:
    assert spread_of(np.random.default_rng(0).permutation(COSINES)) == pytest.approx(COSINES[0] - COSINES[49])
    assert spread_of(np.array([0.9, 0.4])) == pytest.approx(0.5)
    assert spread_of(np.array([0.9])) == 0
    assert spread_of(np.empty(0)) == 0


def test_an_encoder_whose_cosines_lie_close_decides_as_one_whose_lie_wide() -> None:
    wide, close = Views(0.96, 0.3), Views(0.24, 0.3)
    assert decide(COSINES, wide).vectors == pytest.approx(decide(0.7 + COSINES / 4, close).vectors)


def test_the_contrast_is_one_less_the_mean_cosine_of_texts_with_nothing_in_common() -> None:
    vectors = np.array([[1, 0], [0, 2], [1, 1]], np.float32)
    assert contrast_of(vectors, vectors) == pytest.approx(1 - (0 + math.sqrt(0.5) + math.sqrt(0.5)) / 3)
    same = np.ones((len(UNRELATED), 4), np.float32)
    assert contrast_of(same, same) == 0.01  # an encoder that tells nothing apart divides by no zero


def test_agreement_is_the_mean_share_of_first_places_in_common() -> None:
    assert agreement_of([[1, 2], [3, 4]], [[2, 1], [5, 3]], k=2) == 0.75
    assert agreement_of([[1]], [[]], k=2) == 0
