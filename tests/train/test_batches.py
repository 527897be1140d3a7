"""Batches: every example once, and no negative that is a known answer."""

from __future__ import annotations

from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinrank.errors import InputError
from twinrank.train.batches import Batches
from twinrank.train.data import Example, known_answers

few = st.sampled_from("abcdefgh")
examples_of_few_texts = st.lists(
    st.builds(
        Example,
        st.sampled_from("uvwxyz"),
        st.lists(few, min_size=1, max_size=2).map(tuple),
        st.lists(few, max_size=2).map(tuple),
        document=st.sampled_from(["", "", "d1", "d2"]),
    ),
    min_size=1,
    max_size=30,
)


@given(examples_of_few_texts, st.integers(1, 6), st.integers(0, 3), st.booleans())
def test_in_a_batch_no_passage_of_one_example_is_a_known_answer_of_another(
    examples: list[Example], size: int, epoch: int, like_lengths: bool
) -> None:
    known = known_answers(examples)
    batches = Batches(examples, size, seed=1).epoch(epoch, like_lengths=like_lengths)
    assert sorted(place for batch in batches for place in batch) == list(range(len(examples)))
    for batch in batches:
        assert 1 <= len(batch) <= size
        assert len({examples[place].query for place in batch}) == len(batch)
        documents = [examples[place].document for place in batch if examples[place].document]
        assert len(set(documents)) == len(documents)
        for one in batch:
            others = {passage for other in batch if other != one for passage in examples[other].passages}
            assert known[one].isdisjoint(others)


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


def test_two_examples_of_a_document_never_stand_in_one_batch() -> None:
    examples = [Example(f"query {number}", (f"passage {number}",), document=f"d{number % 10}") for number in range(30)]
    batches = Batches(examples, 8).epoch(0)
    assert sorted(place for batch in batches for place in batch) == list(range(30))
    assert all(len({place % 10 for place in batch}) == len(batch) for batch in batches)


def test_a_negative_that_is_of_an_examples_document_does_not_stand_beside_it() -> None:
    examples = [
        Example("one", ("a",), document="d"),
        Example("another", ("b",), document="d"),
        Example("a third", ("c",), ("b",)),
    ]
    assert sorted(len(batch) for batch in Batches(examples, 3).epoch(0)) == [1, 1, 1]


def test_an_epoch_of_queries_that_are_repeated_often_is_planned_at_once() -> None:
    examples = [Example(f"query {number % 20}", (f"passage {number}",)) for number in range(20_000)]
    began = perf_counter()
    batches = Batches(examples, 32).epoch(0)
    assert perf_counter() - began < 5
    assert [len(batch) for batch in batches] == [20] * 1000


def test_a_batch_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="1 example at least"):
        Batches(numbered(3), 0)
