"""What is learned from and what is measured on: nothing in common, and told where there is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinrank.errors import InputError
from twinrank.text import Analyzer
from twinrank.train.data import Example
from twinrank.train.splits import find_leaks, split_by_document

pairs = st.lists(st.builds(Example, st.sampled_from("uvwxyz"), st.tuples(st.sampled_from("abcdefghij"))), max_size=40)


@given(pairs, st.integers(0, 5))
def test_no_document_and_no_query_is_on_two_sides(examples: list[Example], seed: int) -> None:
    parts = split_by_document(examples, (0.6, 0.2, 0.2), seed=seed)
    assert sorted(place for part in parts for place in part) == list(range(len(examples)))
    for kind in ("query", "positives"):
        held = [{getattr(examples[place], kind) for place in part} for part in parts]
        assert sum(map(len, held)) == len(set().union(*held))


def test_shares_are_kept_to_where_documents_are_many() -> None:
    examples = [Example(f"query {number}", (f"passage {number // 2}",)) for number in range(2000)]
    sizes = [len(part) for part in split_by_document(examples, (0.8, 0.1, 0.1))]
    assert sizes == pytest.approx([1600, 200, 200], abs=40)


def test_a_split_follows_its_seed() -> None:
    examples = [Example(f"query {number}", (f"passage {number}",)) for number in range(50)]
    assert split_by_document(examples, seed=1) == split_by_document(examples, seed=1)
    assert split_by_document(examples, seed=1) != split_by_document(examples, seed=2)


def test_documents_that_are_named_hold_their_examples_together() -> None:
    examples = [Example(f"query {number}", (f"passage {number}",)) for number in range(20)]
    parts = split_by_document(examples, (0.5, 0.5), documents=[[number // 10] for number in range(20)])
    assert sorted(parts) == [list(range(10)), list(range(10, 20))]


def test_the_document_that_an_example_is_of_holds_its_examples_together() -> None:
    examples = [Example(f"query {number}", (f"passage {number}",), document=f"d{number // 10}") for number in range(20)]
    assert sorted(split_by_document(examples, (0.5, 0.5))) == [list(range(10)), list(range(10, 20))]


def test_shares_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(InputError, match="add up"):
        split_by_document([], (0.5, 0.4))


HELD_OUT = [Example("how do I renew a passport in Paris?", ("Passports are renewed at the town hall.",))]


@pytest.mark.parametrize(
    ("example", "reason"),
    [
        (Example("How do I  renew a passport in paris?", ("other",)), "same query"),
        (Example("how do I go renewing passports in Paris?", ("other",)), "near-same query"),
        (Example("town halls", ("passports are renewed at the TOWN hall.",)), "same document"),
    ],
)
def test_a_leak_is_found_and_named(example: Example, reason: str) -> None:
    found = find_leaks([Example("honey", ("It eases a cough.",)), example], HELD_OUT)
    assert [(leak.place, leak.reason) for leak in found.leaks] == [(1, reason)]
    assert found.kept == (0,)
    assert f"1 with the {reason}" in str(found)


def test_a_negative_that_answers_a_held_out_query_is_no_leak() -> None:
    example = Example("town halls", ("Town halls are open on Mondays.",), HELD_OUT[0].positives)
    assert not find_leaks([example], HELD_OUT).leaks


def test_where_there_is_no_leak_that_is_said() -> None:
    assert str(find_leaks([Example("honey", ("It eases a cough.",))], HELD_OUT)).startswith("no leak: 1 example")


words = st.lists(st.sampled_from(["red", "green", "blue", "zinc", "honey", "cold", "rest", "tea"]), min_size=1, max_size=6)


@given(st.lists(words, min_size=1, max_size=8), words, st.sampled_from([0.5, 0.8, 1.0]))
def test_near_queries_are_those_that_comparing_all_pairs_finds(held: list[list[str]], asked: list[str], near: float) -> None:
    analyze = Analyzer()

    def overlap(a: str, b: str) -> float:
        one, other = set(analyze(a)), set(analyze(b))
        return len(one & other) / len(one | other)

    query = " ".join(asked)
    others = [" ".join(text) for text in held]
    found = find_leaks([Example(query, ("passage",))], [Example(other, ("another",)) for other in others], near=near)
    assert bool(found.leaks) == any(overlap(query, other) >= near for other in others)
