"""Examples made of documents that nobody judged."""

from __future__ import annotations

import pytest

from twinrank.errors import InputError
from twinrank.train.made import LONGEST_PASSAGE, Left, Way, take_queries
from twinrank.types import Document

BODY = "Zinc may shorten a cold. It is taken as a lozenge. Honey eases a cough at night. Rest helps most."
ZINC = Document("a1", BODY, title="Zinc and colds")


def left_of(document: Document, *ways: Way) -> Left:
    [left] = take_queries([document], ways)
    return left


def test_a_title_finds_the_text_without_the_title_in_it() -> None:
    left = left_of(ZINC, "title")
    assert left.queries == {"title": "Zinc and colds"}
    assert left.passage == BODY
    assert left_of(Document("a1", f"# Zinc and colds\n\n{BODY}", title="Zinc and colds"), "title").passage == BODY


def test_the_first_sentence_finds_the_rest_with_its_title() -> None:
    left = left_of(ZINC, "first sentence")
    assert left.queries == {"first sentence": "Zinc may shorten a cold."}
    assert left.passage == "Zinc and colds It is taken as a lozenge. Honey eases a cough at night. Rest helps most."


def test_all_queries_of_a_document_find_the_same_text_which_holds_none_of_them() -> None:
    for number in range(60):
        document = Document(f"d{number}", BODY, title="Zinc and colds")
        left = left_of(document, "title", "first sentence", "inverse cloze")
        assert list(left.queries) == ["title", "first sentence", "inverse cloze"]
        assert {example.positives for example in left.examples} == {(left.passage,)}
        assert {example.document for example in left.examples} == {document.id}
        assert "Zinc" not in left.passage
        sentences = [text.strip(".") for text in BODY.split(". ")[1:]]
        assert [text for text in sentences if text not in left.passage] in (
            [],
            [left.queries["inverse cloze"].strip(".")],
        )


def test_inverse_cloze_takes_a_sentence_out_of_its_passage_in_nine_cases_of_ten() -> None:
    made = list(take_queries([Document(f"d{number}", BODY) for number in range(400)], ["inverse cloze"]))
    inside = [one.queries["inverse cloze"] in one.passage for one in made]
    assert len({one.queries["inverse cloze"] for one in made}) == 4  # every sentence is drawn
    assert 0.05 < sum(inside) / len(inside) < 0.17
    for one, kept in zip(made, inside, strict=True):
        others = [text for text in BODY.split(". ") if text.strip(".") not in one.queries["inverse cloze"]]
        assert len(others) == 3
        assert all(text.strip(".") in one.passage for text in others)
        assert kept or len(one.passage) < len(BODY)


def test_what_allows_no_example_makes_none() -> None:
    bare = [Document("a", "One sentence alone, which has no rest to be found."), Document("b", "", title="Nothing but a title")]
    assert list(take_queries(bare)) == []


def test_what_is_left_is_never_too_short_to_be_found() -> None:
    short = Document("a", "It is taken as a lozenge, every two hours. Rest helps.", title="Zinc and colds")
    left = left_of(short, "title", "first sentence", "inverse cloze")
    assert left.queries == {"title": "Zinc and colds", "inverse cloze": "Rest helps."}
    assert left.passage == "It is taken as a lozenge, every two hours."


def test_a_long_document_is_cut_after_a_sentence() -> None:
    left = left_of(Document("a", "Every sentence of this text is as long as this one is. " * 100), "first sentence")
    assert LONGEST_PASSAGE - 200 < len(left.passage) < LONGEST_PASSAGE
    assert left.passage.endswith("this one is.")


def test_a_document_makes_the_same_examples_whatever_comes_before_it() -> None:
    other = Document("b2", "Tea is warm. It is drunk from cups. Some take sugar with it, others milk.")
    alone = list(take_queries([ZINC], seed=3))
    assert list(take_queries([other, ZINC], seed=3))[-1:] == alone
    seeds = {tuple(one.queries.values()) for seed in range(20) for one in take_queries([ZINC], ["inverse cloze"], seed=seed)}
    assert len(seeds) > 1


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(InputError, match="title, first sentence, inverse cloze; got \\['guessing'\\]"):
        list(take_queries([ZINC], ["guessing"]))  # type: ignore[list-item]
