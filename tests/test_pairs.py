"""Mined pairs are exactly the best of all pairs, thresholds are the best there are, and Spearman is the textbook's."""

from __future__ import annotations

import tracemalloc
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinrank.errors import InputError
from twinrank.pairs import Duplicate, choose_threshold, judge_threshold, mine_pairs, spearman

# -- mining -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "columns"), [(3, 5), (7, 7), (16, 4), (1024, 8192)])
@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 1000), texts=st.integers(0, 40), k=st.integers(1, 60), threshold=st.sampled_from([None, -1.0, 0.0, 1.0])
)
def test_they_are_the_best_of_all_pairs_in_blocks_of_any_size(
    rows: int, columns: int, seed: int, texts: int, k: int, threshold: float | None
) -> None:
    """Small whole numbers, so that products are exact and many are equal."""
    vectors = np.random.default_rng(seed).integers(-2, 3, (texts, 3)).astype(np.float32)
    everything = [(int(vectors[a] @ vectors[b]), a, b) for a, b in combinations(range(texts), 2)]
    expected = sorted(((-score, a, b) for score, a, b in everything if threshold is None or score >= threshold))[:k]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("twinrank.pairs.ROWS", rows)
        patch.setattr("twinrank.pairs.COLUMNS", columns)
        found = mine_pairs(vectors, threshold=threshold, k=k)
    assert found == [Duplicate(a, b, -score) for score, a, b in expected]


def test_memory_is_bounded_by_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """4,000 equal texts are 8 million pairs above every threshold, 160 MB as a list of places and scores."""
    monkeypatch.setattr("twinrank.pairs.ROWS", 128)
    monkeypatch.setattr("twinrank.pairs.COLUMNS", 512)
    vectors = np.ones((4000, 4), np.float32) / 2
    tracemalloc.start()
    found = mine_pairs(vectors, threshold=0.5, k=100)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [(pair.first, pair.second) for pair in found] == [(0, second) for second in range(1, 101)]
    assert most < 8_000_000


@pytest.mark.parametrize("vectors", [np.zeros(3), np.full((2, 2), np.nan), np.array([[np.inf, 0], [0, 1]])])
def test_what_cannot_be_compared_is_refused(vectors: np.ndarray) -> None:
    with pytest.raises(InputError, match="cannot be compared"):
        mine_pairs(vectors)


def test_less_than_one_pair_is_refused() -> None:
    with pytest.raises(InputError, match="k is 0"):
        mine_pairs(np.ones((2, 2), np.float32), k=0)


# -- thresholds -------------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=30),
    by=st.sampled_from(["accuracy", "f1"]),
)
def test_no_threshold_is_better_than_the_chosen_one(pairs: list[tuple[int, bool]], by: str) -> None:
    scores, labels = [score for score, _ in pairs], [int(label) for _, label in pairs]
    chosen = choose_threshold(scores, labels, by=by)
    others = [judge_threshold(value, scores, labels) for value in np.arange(-4, 5) + 0.5]
    assert getattr(chosen, by) == max(getattr(other, by) for other in others)
    assert chosen == judge_threshold(chosen.value, scores, labels)


def test_neighbouring_floats_can_be_told_apart() -> None:
    low = np.float64(0.5)
    high = np.nextafter(low, 1)
    assert choose_threshold([high, low], [1, 0]).accuracy == 1


def test_a_threshold_is_judged_by_hand() -> None:
    """Chosen are 0.9, 0.7 and 0.5; of these two are right, of three right ones."""
    judged = judge_threshold(0.5, [0.9, 0.7, 0.5, 0.3, 0.1], [1, 0, 1, 1, 0])
    assert (judged.value, judged.pairs, judged.accuracy) == (0.5, 5, 0.6)
    assert (judged.precision, judged.recall, judged.f1) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    nothing = judge_threshold(2, [0.9, 0.7], [0, 0])
    assert (nothing.accuracy, nothing.precision, nothing.recall, nothing.f1) == (1, 0, 0, 0)


def test_a_threshold_may_take_all_pairs_or_none() -> None:
    assert choose_threshold([0.2, 0.8], [1, 1]).value == 0.2
    assert choose_threshold([0.2, 0.8], [0, 0]).value > 0.8
    assert choose_threshold([0.2], [0]).accuracy == 1


@pytest.mark.parametrize(
    ("scores", "labels", "words"),
    [
        ([], [], "A label for each score"),
        ([0.1, 0.2], [1], "A label for each score"),
        ([0.1, np.nan], [1, 0], "Score 1 is not a finite number"),
        ([0.1, 0.2], [1, 2], "Labels are 1 or 0; 2 was given"),
    ],
)
def test_labels_that_do_not_fit_are_refused(scores: list[float], labels: list[int], words: str) -> None:
    with pytest.raises(InputError, match=words.replace("(", r"\(")):
        choose_threshold(scores, labels)
    with pytest.raises(InputError, match="chosen by 'accuracy' or 'f1', not 'luck'"):
        choose_threshold([0.1], [1], by="luck")


# -- Spearman ---------------------------------------------------------------------------------------------------------------


def test_spearman_by_hand() -> None:
    assert spearman([1, 2, 3], [10, 20, 30]) == pytest.approx(1)
    assert spearman([1, 2, 3], [0.3, 0.2, 0.1]) == pytest.approx(-1)
    # ranks 1.5 1.5 3 4 and 1 2 3 4: 1 - covariance by hand = 4.5 / sqrt(4.5 · 5)
    assert spearman([5, 5, 6, 7], [1, 2, 3, 4]) == pytest.approx(4.5 / np.sqrt(4.5 * 5))


@pytest.mark.parametrize(("a", "b"), [([1], [1]), ([1, 2], [1, 2, 3]), ([1, 1], [1, 2]), ([1, np.nan], [1, 2])])
def test_what_has_no_order_is_refused(a: list[float], b: list[float]) -> None:
    with pytest.raises(InputError):
        spearman(a, b)
