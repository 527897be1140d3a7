"""The feed: every step is a function of the seed, and no row holds a negative that is known to answer."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from twinrank.errors import DataError
from twinrank.train.batches import Batches
from twinrank.train.data import Example, Judged, known_positives, of_scores, same_text
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


def test_a_negative_that_a_queue_may_hold_too_is_numbered_after_the_answers() -> None:
    given = [Example("a", ("one",), ("two", "of nobody")), Example("b", ("two",), ("of nobody", "one"))]
    rows = Feed(given, Shares(batch=1, negatives=2, seed=0, form="known columns", in_batch=True))
    for step in range(2):
        (row,) = rows[step]
        assert row["label"] == {"a": [0, -2 - 1], "b": [1, -2 - 0]}[row["query"]]


def seen_in(feed: Feed) -> Counter[str]:
    """Passages of the first epoch, with how often they were fed."""
    return Counter(row.get("positive", row.get("passage")) for step in range(feed.epoch_steps) for row in feed[step])


# -- rows that repeat their queries ------------------------------------------------------------------------------------------


def test_triples_of_one_query_and_answer_are_one_example() -> None:
    triples = [Example("q", ("p",), (f"negative {number}",)) for number in range(900)]
    others = [Example(f"u{number}", (f"a{number}",), (f"b{number}",)) for number in range(200)]
    feed = Feed(triples + others, Shares(batch=32, negatives=1, seed=0, form="columns", in_batch=True))
    assert feed.epoch_steps == 6
    seen = [row["query"] for step in range(6) for row in feed[step]]
    assert len(seen) == len(set(seen)) == 6 * 32  # of 201: 9 beside each other teach little
    assert "1,100 rows made 201 examples" in feed.notes[0]
    drawn = {row["negative_0"] for step in range(300) for row in feed[step] if row["query"] == "q"}
    assert len(drawn) > 30


def test_queries_that_are_repeated_do_not_keep_an_epoch_from_its_examples() -> None:
    pairs = [Example(f"q{number % 10}", (f"p{number}",)) for number in range(1000)]
    feed = Feed(pairs, Shares(batch=16, negatives=0, seed=0, form="columns", in_batch=False))
    assert feed.epoch_steps == 100
    for epoch in range(2):
        seen = [row["positive"] for step in range(100 * epoch, 100 * (epoch + 1)) for row in feed[step]]
        assert sorted(seen) == sorted(example.positives[0] for example in pairs)


def test_what_no_batch_has_room_for_is_told() -> None:
    one = [Example("q", (f"p{number}",)) for number in range(100)]
    others = [Example(f"u{number}", (f"a{number}",)) for number in range(64)]
    feed = Feed(one + others, Shares(batch=16, negatives=0, seed=0, form="columns", in_batch=True))
    (told,) = feed.notes
    assert told.startswith(f"{164 - seen_in(feed).total()} of 164 examples came into no batch")
    assert Feed(others, feed.shares).notes == ()


def test_epochs_of_unequal_length_follow_each_other_without_a_gap() -> None:
    """Which examples fit beside each other is chance, and so is how many batches there are."""
    draw = random.Random(0)
    pairs = [Example(f"q{draw.randrange(12)}", (f"p{number}",)) for number in range(60)]
    feed = Feed(pairs, Shares(batch=6, negatives=0, seed=1, form="columns", in_batch=False))
    batches = [Batches(pairs, 6, seed=1).epoch(epoch, like_lengths=True) for epoch in range(5)]
    assert len({len(epoch) for epoch in batches}) > 1
    expected = [[pairs[place].positives[0] for place in batch] for epoch in batches for batch in epoch]
    assert [[row["positive"] for row in feed[step]] for step in range(len(expected))] == expected


# -- documents ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_batch", [True, False])
def test_passages_of_a_querys_own_document_are_never_its_negatives(in_batch: bool) -> None:
    """Three examples a document, whose passages stand among others' negatives too."""
    made = [
        Example(f"query {number}", (f"passage {number}",), (f"passage {(number + 1) % 30}",), document=f"d{number // 3}")
        for number in range(30)
    ]
    document = {example.positives[0]: example.document for example in made}
    feed = Feed(made, Shares(batch=8, negatives=2, seed=0, form="columns", in_batch=in_batch))
    for step in range(4 * feed.epoch_steps):
        rows = feed[step]
        own = [document[row["positive"]] for row in rows]
        assert not in_batch or len(set(own)) == len(own)
        for row, mine in zip(rows, own, strict=True):
            beside = rows if in_batch else [row]
            assert mine not in {document[other[name]] for other in beside for name in ("negative_0", "negative_1")}


def test_a_negative_that_answers_by_another_example_of_the_query_is_not_drawn() -> None:
    given = [Example("q", ("one",), ("two", "three")), Example("q", ("two",), ("four",)), Example("r", ("five",), ("six",))]
    feed = Feed(given, Shares(batch=1, negatives=1, seed=0, form="lists", in_batch=False))
    drawn = {row["passages"][1] for step in range(60) for row in feed[step] if row["passages"][0] == "one"}
    assert drawn == {"three"}


# -- labels and scores -------------------------------------------------------------------------------------------------------

LABELLED = of_scores([Judged(f"q{number}", f"p{number}", float(number % 3 > 0)) for number in range(30)])


@pytest.mark.parametrize("form", ["pairs", "graded pairs"])
def test_pairs_labelled_0_stay_0(form: Form) -> None:
    feed = Feed(LABELLED, Shares(batch=8, negatives=1, seed=0, form=form, in_batch=False))
    rows = [row for step in range(feed.epoch_steps) for row in feed[step]]
    own = {row["passage"]: row["label"] for row in rows if row["passage"] == row["query"].replace("q", "p")}
    assert own == {f"p{number}": float(number % 3 > 0) for number in range(30)}
    assert all(row["label"] == 0 for row in rows if row["passage"] != row["query"].replace("q", "p"))


@pytest.mark.parametrize("form", ["columns", "known columns", "lists"])
def test_what_is_labelled_0_is_no_answer_where_one_is_needed(form: Form) -> None:
    feed = Feed(LABELLED, Shares(batch=5, negatives=1, seed=0, form=form, in_batch=form == "known columns"))
    asked = {row["query"] for step in range(feed.epoch_steps) for row in feed[step]}
    assert asked == {example.query for example in LABELLED if example.positives}
    assert "10 of 30 examples were left out, lacking a passage that answers" in feed.notes[0]
    with pytest.raises(DataError, match="learns from: a passage that answers"):
        Feed(LABELLED[::3], feed.shares)


def test_scored_passages_without_an_answer_are_learned_from_where_scores_are() -> None:
    scored = [Example(f"q{number}", (), ("a", "b", "c"), (-1.0, -2.0, -4.0)) for number in range(4)]
    (row,) = Feed(scored, Shares(batch=1, negatives=2, seed=0, form="scored columns", in_batch=False))[0]
    given = {"a": -1.0, "b": -2.0, "c": -4.0}
    assert row["label"] == [given[row[name]] for name in ("positive", "negative_0", "negative_1")]


@pytest.mark.parametrize("form", ["graded pairs", "graded lists"])
def test_a_teachers_scores_and_labels_never_mix(form: Form, examples: list[Example]) -> None:
    """Half lack negatives, as where mining found none, and some were not scored at all."""
    bare = [replace(one, positives=one.positives[:1], negatives=(), scores=(5.0,)) for one in examples[:20]]
    feed = Feed([*bare, *examples[20:36], *(replace(one, scores=None) for one in examples[36:])], replace(PLAIN, form=form))
    rows = [row for step in range(feed.epoch_steps) for row in feed[step]]
    given = {(one.query, text): score for one in examples for text, score in zip(one.passages, one.scores or (), strict=True)}
    for row in rows:
        passages, labels = ([row["passage"]], [row["label"]]) if "passage" in row else (row["passages"], row["labels"])
        assert labels == [given[row["query"], text] for text in passages]
    left = {"graded pairs": ["4 of 40"], "graded lists": ["20 of 40", "4 of 40"]}[form]
    assert sorted(note[: len("20 of 40")].strip() for note in feed.notes) == left


def test_labels_of_1_and_0_are_no_teachers_scores() -> None:
    """A loss that would take scores fills up with others' passages, as where there are only answers."""
    pairs = of_scores(Judged(f"q{number}", f"p{number}", 1.0) for number in range(10))
    feed = Feed(pairs, Shares(batch=5, negatives=2, seed=0, form="graded lists", in_batch=False))
    assert not feed.taught
    assert {tuple(row["labels"]) for step in range(feed.epoch_steps) for row in feed[step]} == {(1.0, 0.0, 0.0)}


def test_what_scores_teach_is_not_refreshed_by_what_has_none(examples: list[Example]) -> None:
    feed = Feed(examples, replace(PLAIN, form="graded lists"))
    with pytest.raises(DataError, match="by their scores"):
        feed.refresh([replace(example, scores=None) for example in examples])


# -- small sets --------------------------------------------------------------------------------------------------------------


def test_the_only_passage_that_may_be_a_negative_is_found() -> None:
    pairs = [Example(f"q{number}", (f"p{number}",)) for number in range(65)]
    feed = Feed(pairs, Shares(batch=64, negatives=1, seed=0, form="columns", in_batch=True))
    for step in range(5):
        rows = feed[step]
        (absent,) = {f"p{number}" for number in range(65)} - {row["positive"] for row in rows}
        assert {row["negative_0"] for row in rows} == {absent}


@pytest.mark.parametrize("form", ["columns", "lists", "pairs"])
def test_a_batch_of_all_examples_has_others_answers_as_negatives_where_it_is_not_everybodys(form: Form) -> None:
    pairs = [Example(f"q{number}", (f"p{number}",)) for number in range(8)]
    for row in Feed(pairs, Shares(batch=8, negatives=2, seed=0, form=form, in_batch=False))[0]:
        own = row["query"].replace("q", "p")
        if form == "pairs":
            assert (row["passage"] == own) == (row["label"] == 1)
        else:
            passages = row["passages"] if form == "lists" else [row["positive"], row["negative_0"], row["negative_1"]]
            assert passages[0] == own
            assert len(set(passages)) == 3


def test_where_the_batch_holds_all_passages_they_are_the_negatives() -> None:
    pairs = [Example(f"q{number}", (f"p{number}",)) for number in range(8)]
    assert [set(row) for row in Feed(pairs, PLAIN)[0]] == [{"query", "positive"}] * 8
