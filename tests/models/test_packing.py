"""Packed sequences: batches hold every text once and stay small; what no network takes is refused by name."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinrank.errors import InputError
from twinrank.models.packing import check_run, pack, plan_batches, take
from twinrank.models.trunk import Shape
from twinrank.types import Tokens

SHAPE = Shape(layers=2, width=4, heads=2, intermediate=8, vocabulary=10, positions=6, types=2)


def ids(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int32)


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 100))
def test_batches_hold_every_text_once_and_are_no_larger_than_allowed(lengths: list[int], most: int) -> None:
    batches = [batch.tolist() for batch in plan_batches(lengths, most)]
    assert sorted(text for batch in batches for text in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or sum(lengths[text] for text in batch) <= most for batch in batches)
    assert [lengths[text] for batch in batches for text in batch] == sorted(lengths)


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=5), min_size=1, max_size=8), st.randoms())
def test_taking_texts_gives_their_tokens_in_the_order_asked_for(texts: list[list[int]], random) -> None:
    order = random.sample(range(len(texts)), len(texts))
    taken = take(pack([ids(*text) for text in texts]), np.array(order))
    bounds = zip(taken.offsets, taken.offsets[1:], strict=False)
    assert [taken.ids[begin:end].tolist() for begin, end in bounds] == [texts[text] for text in order]


def test_packing_nothing_gives_no_texts() -> None:
    assert len(pack([])) == 0
    assert list(plan_batches([], 10)) == []


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (pack([ids(1), ids()]), "Text 1 has no tokens"),
        (pack([ids(1, 2, 3, 4, 5, 6, 7)]), "Text 0 has 7 tokens; the network takes at most 6"),
        (pack([ids(10)]), "Token id 10 is outside the vocabulary, which has 10"),
        (pack([ids(-1)]), "Token id -1"),
        (Tokens(ids(1, 2), ids(0, 2), types=ids(0, 2)), "Token type 2"),
        (Tokens(ids(1, 2), ids(0, 2), types=ids(0)), "1 token types for 2 tokens"),
        (Tokens(ids(1, 2), ids(0, 3)), "Offsets must rise"),
        (Tokens(ids(1, 2), ids(0, 2, 1, 2)), "Offsets must rise"),
        (Tokens(ids(1, 2), ids()), "Offsets must rise"),
    ],
)
def test_tokens_that_no_network_can_run_are_refused_by_name(tokens: Tokens, words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_run(SHAPE, tokens, "mean", None, None)


@pytest.mark.parametrize(
    ("pooling", "layers", "start", "words"),
    [
        ("median", None, None, "Unknown pooling 'median'"),
        ("mean", (0, 3), None, "Layers 0 up to 3"),
        ("mean", (2, 1), None, "Layers 2 up to 1"),
        ("mean", (1, 2), None, "nothing to start from"),
        ("mean", (1, 2), np.zeros((3, 4), np.float32), r"`start` has shape \(3, 4\)"),
    ],
)
def test_runs_that_cannot_be_are_refused_by_name(pooling: str, layers, start, words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_run(SHAPE, pack([ids(1, 2)]), pooling, layers, start)
