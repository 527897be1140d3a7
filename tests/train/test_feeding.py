"""The feed: every step is a function of the seed, and no row holds a negative that is known to answer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from twinrank.errors import DataError
from twinrank.train.data import Example, known_positives, same_text
from twinrank.train.feeding import ROWS, Feed, Form, Shares

PLAIN = Shares(batch=8, negatives=2, seed=3, form="columns", in_batch=True)


@pytest.mark.parametrize("form", ROWS)
def test_a_step_is_a_function_of_the_seed_in_whatever_order_steps_are_asked_for(examples: list[Example], form: Form) -> None:
    shares = replace(PLAIN, form=form)
    first, second = Feed(examples, shares), Feed(examples, shares)
    steps = [0, 1, 7, 12, 3]
    assert [first[step] for step in steps] == [second[step] for step in reversed(steps)][::-1]
    assert first[0] != Feed(examples, replace(shares, seed=4))[0]


def test_an_epoch_holds_every_example_once(examples: list[Example]) -> None:
    feed = Feed(examples, replace(PLAIN, in_batch=False))
    for epoch in range(2):
        steps = range(epoch * feed.epoch_steps, (epoch + 1) * feed.epoch_steps)
        assert sorted(row["query"] for step in steps for row in feed[step]) == sorted(example.query for example in examples)


def test_positives_and_negatives_are_drawn_anew_in_every_epoch(examples: list[Example]) -> None:
    feed = Feed(examples, PLAIN)
    seen: dict[str, set[tuple[str, str, str]]] = {}
    for step in range(20 * feed.epoch_steps):
        for row in feed[step]:
            seen.setdefault(row["query"], set()).add((row["positive"], row["negative_0"], row["negative_1"]))
    for example in examples:
        assert {drawn[0] for drawn in seen[example.query]} == set(example.positives)
        assert {text for drawn in seen[example.query] for text in drawn[1:]} == set(example.negatives)


def test_what_an_example_lacks_comes_from_others_and_answers_no_query_of_the_batch(examples: list[Example]) -> None:
    bare = [replace(example, negatives=(), scores=None) for example in examples]
    known = known_positives(bare)
    feed = Feed(bare, PLAIN)
    for step in range(feed.epoch_steps):
        rows = feed[step]
        answers = set().union(*(known[same_text(row["query"])] for row in rows))
        for row in rows:
            assert {same_text(row["negative_0"]), same_text(row["negative_1"])}.isdisjoint(answers)


def test_examples_with_nothing_to_tell_apart_are_refused() -> None:
    with pytest.raises(DataError, match="mine negatives"):
        Feed([Example("cold", ("zinc",))], replace(PLAIN, batch=1))[0]
    with pytest.raises(DataError, match="no examples"):
        Feed([], PLAIN)


def test_scores_stand_with_their_passages(examples: list[Example]) -> None:
    for row in Feed(examples, replace(PLAIN, form="scored columns"))[5]:
        example = next(one for one in examples if one.query == row["query"])
        given = dict(zip(example.passages, example.scores or (), strict=True))
        assert row["label"] == [given[row[name]] for name in ("positive", "negative_0", "negative_1")]


def test_a_teachers_loss_leaves_out_what_the_teacher_did_not_score(examples: list[Example]) -> None:
    some = [replace(example, scores=None) if place % 2 else example for place, example in enumerate(examples)]
    feed = Feed(some, replace(PLAIN, form="scored lists"))
    asked = {row["query"] for step in range(feed.epoch_steps) for row in feed[step]}
    assert asked <= {example.query for example in some[::2]}
    with pytest.raises(DataError, match="twinrank distill"):
        Feed(some[1::2], replace(PLAIN, form="scored lists"))


def test_pairs_are_labelled_and_graded_ones_keep_their_scores(examples: list[Example]) -> None:
    labels = {row["label"] for row in Feed(examples, replace(PLAIN, form="pairs"))[0]}
    assert labels == {0.0, 1.0}
    graded = {row["label"] for row in Feed(examples, replace(PLAIN, form="graded pairs"))[0]}
    assert graded <= {5.0, 4.0, 1.0, 0.0, -1.0}


def test_known_answers_are_numbered_with_the_one_at_hand_first() -> None:
    shared = [Example("a", ("one", "two")), Example("b", ("Two", "three")), Example("a", ("four",))]
    feed = Feed(shared, Shares(batch=1, negatives=0, seed=0, form="known columns", in_batch=False))
    numbers = {text: number for number, text in enumerate(sorted(["one", "two", "three", "four"]))}
    for step in range(6):
        (row,) = feed[step]
        assert row["label"][0] == numbers[row["positive"].lower()]
        wanted = {"a": {"one", "two", "four"}, "b": {"two", "three"}}[row["query"]]
        assert sorted(row["label"]) == sorted(numbers[text] for text in wanted)


def test_refreshed_negatives_are_of_the_same_queries(examples: list[Example]) -> None:
    feed = Feed(examples, PLAIN)
    other = [replace(example, negatives=("quite another one",), scores=None) for example in examples]
    feed.refresh(other)
    assert all("quite another one" in (row["negative_0"], row["negative_1"]) for row in feed[0])
    with pytest.raises(DataError, match="other queries"):
        feed.refresh(other[1:])
