"""Examples made of documents that nobody judged."""

from __future__ import annotations

import pytest

from twinrank.errors import InputError
from twinrank.train.made import make_examples
from twinrank.types import Document

BODY = "Zinc may shorten a cold. It is taken as a lozenge. Honey eases a cough at night. Rest helps most."
ZINC = Document("a1", BODY, title="Zinc and colds")


def test_a_title_finds_the_text_without_the_title_in_it() -> None:
    [made] = make_examples([ZINC], ["title"])
    assert (made.document, made.way, made.example.query) == ("a1", "title", "Zinc and colds")
    assert made.example.positives == (BODY,)


def test_the_first_sentence_finds_the_rest() -> None:
    [made] = make_examples([ZINC], ["first sentence"])
    assert made.example.query == "Zinc may shorten a cold."
    assert made.example.positives == ("It is taken as a lozenge. Honey eases a cough at night. Rest helps most.",)


def test_inverse_cloze_takes_a_sentence_out_of_its_passage_in_nine_cases_of_ten() -> None:
    made = list(make_examples([Document(f"d{number}", BODY) for number in range(400)], ["inverse cloze"]))
    inside = [one.example.query in one.example.positives[0] for one in made]
    assert len({one.example.query for one in made}) == 4  # every sentence is drawn
    assert 0.05 < sum(inside) / len(inside) < 0.17
    for one, kept in zip(made, inside, strict=True):
        others = [text for text in BODY.split(". ") if text.strip(".") not in one.example.query]
        assert len(others) == 3
        assert all(text.strip(".") in one.example.positives[0] for text in others)
        assert kept or len(one.example.positives[0]) < len(BODY)


def test_what_allows_no_example_makes_none() -> None:
    bare = [Document("a", "One sentence alone, which has no rest to be found."), Document("b", "", title="Nothing but a title")]
    assert list(make_examples(bare)) == []


def test_a_document_makes_the_same_examples_whatever_comes_before_it() -> None:
    other = Document("b2", "Tea is warm. It is drunk from cups. Some take sugar with it, others milk.")
    alone = list(make_examples([ZINC], seed=3))
    assert list(make_examples([other, ZINC], seed=3))[-len(alone) :] == alone
    seeds = {tuple(one.example.query for one in make_examples([ZINC], ["inverse cloze"], seed=seed)) for seed in range(20)}
    assert len(seeds) > 1


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(InputError, match="title, first sentence, inverse cloze; got \\['guessing'\\]"):
        list(make_examples([ZINC], ["guessing"]))  # type: ignore[list-item]
