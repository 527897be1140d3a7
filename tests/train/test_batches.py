"""Batches: every example once, and no negative that is a known answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinrank.errors import InputError
from twinrank.train.batches import Batches
from twinrank.train.data import Example, known_positives

few = st.sampled_from("abcdefgh")
examples_of_few_texts = st.lists(
    st.builds(
        Example,
        st.sampled_from("uvwxyz"),
        st.lists(few, min_size=1, max_size=2).map(tuple),
        st.lists(few, max_size=2).map(tuple),
    ),
    min_size=1,
    max_size=30,
)


@given(examples_of_few_texts, st.integers(1, 6), st.integers(0, 3), st.booleans())
def test_in_a_batch_no_passage_of_one_example_is_a_known_answer_of_another(
    examples: list[Example], size: int, epoch: int, like_lengths: bool
) -> None:
    known = known_positives(examples)
    batches = Batches(examples, size, seed=1).epoch(epoch, like_lengths=like_lengths)
    assert sorted(place for batch in batches for place in batch) == list(range(len(examples)))
    for batch in batches:
        assert 1 <= len(batch) <= size
        assert len({examples[place].query for place in batch}) == len(batch)
        for one in batch:
            others = {passage for other in batch if other != one for passage in examples[other].passages}
            assert known[examples[one].query].isdisjoint(others)


def numbered(count: int) -> list[Example]:
    return [Example(f"query {number}", (f"passage {number} {'long ' * (number % 7)}",)) for number in range(count)]


def test_a_seed_and_an_epoch_give_the_same_batches_and_other_ones_others() -> None:
    examples = numbered(100)
    assert Batches(examples, 8, seed=3).epoch(2) == Batches(examples, 8, seed=3).epoch(2)
    assert Batches(examples, 8, seed=3).epoch(2) != Batches(examples, 8, seed=3).epoch(1)
    assert Batches(examples, 8, seed=3).epoch(2) != Batches(examples, 8, seed=4).epoch(2)


def test_batches_are_full_where_nothing_is_in_the_way() -> None:
    assert [len(batch) for batch in Batches(numbered(100), 8).epoch(0)] == [8] * 12 + [4]


def test_texts_of_like_length_stand_together_where_that_is_asked_for() -> None:
    examples = numbered(700)

    def padded(like_lengths: bool) -> int:
        batches = Batches(examples, 10).epoch(0, like_lengths=like_lengths)
        return sum(len(batch) * max(len(examples[place].positives[0]) for place in batch) for batch in batches)

    assert padded(True) < 0.85 * padded(False)


def test_a_batch_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="1 example at least"):
        Batches(numbered(3), 0)
