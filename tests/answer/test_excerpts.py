"""What was found is read up to a budget of tokens: whole sentences, best passages first, and what was left out is told."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinrank import Collection, Document, Recipe
from twinrank.answer.excerpts import Found, read, units_of
from twinrank.errors import QueryError
from twinrank.search.results import Results
from twinrank.types import Hit, Passage

Making = Callable[..., Collection]


def words(text: str) -> int:
    return len(text.split())


def nothing(texts: list[str]) -> list[float]:
    return [0.0] * len(texts)


def found(*documents: tuple[str, str], size: int = 10_000) -> Found:
    """Documents in the order of their hits, cut into passages of about `size` characters at sentences' ends."""
    stored = {name: Document(name, text, title=name.upper()) for name, text in documents}
    passages = []
    for name, text in documents:
        start = 0
        for first, last in units_of(text):
            if last - start > size and first > start:
                passages.append(Passage(name, len(passages), start, first, text[start:first]))
                start = first
        passages.append(Passage(name, len(passages), start, len(text), text[start:]))
    hits = tuple(Hit(name, 1.0 / rank, rank, text, name.upper()) for rank, (name, text) in enumerate(documents, start=1))
    return Found(Results("q", hits, 0.0), stored, passages, "q", False)


def test_all_is_read_where_there_is_room() -> None:
    sources, budget = read(found(("a", "One two. Three four."), ("b", "Five six.")), 100, words, nothing)
    assert [(source.number, source.id, source.text) for source in sources] == [
        (1, "a", "One two. Three four."),
        (2, "b", "Five six."),
    ]
    assert (budget.used, budget.sentences, budget.documents) == (4 + 1 + 2 + 1, 0, ())
    assert str(budget) == "8 of 100 tokens read, nothing left out"


def test_the_passage_that_does_not_fit_gives_its_likeliest_sentences() -> None:
    sources, budget = read(
        found(("a", "One two three. Four five six. Seven eight nine."), ("b", "Ten.")), 8, words, lambda texts: [0.1, 0.9, 0.5]
    )
    (source,) = sources
    assert source.text == "Four five six. Seven eight nine."
    assert [(excerpt.start, excerpt.end) for excerpt in source.excerpts] == [(15, 47)]
    assert (budget.used, budget.sentences, budget.documents) == (7, 2, ("b",))
    assert str(budget) == "7 of 8 tokens read; 2 sentences left out, all of 1 document among them"


def test_sentences_that_do_not_stand_together_stay_apart() -> None:
    (source,), _ = read(found(("a", "One two. Three four. Five six.")), 5, words, lambda texts: [0.9, 0.1, 0.8])
    assert [excerpt.text for excerpt in source.excerpts] == ["One two.", "Five six."]
    assert source.text == "One two. … Five six."


def test_a_long_sentence_that_does_not_fit_makes_room_for_the_next_passage() -> None:
    sources, budget = read(found(("a", "word " * 50 + "."), ("b", "Short one.")), 16, words, nothing)
    assert [source.id for source in sources] == ["b"]
    assert budget.documents == ("a",)


def test_what_two_passages_share_is_read_once() -> None:
    text = "One two. Three four. Five six."
    passages = [Passage("a", 0, 0, 20, text[:20]), Passage("a", 1, 9, 30, text[9:])]
    both = Found(Results("q", (Hit("a", 1.0, 1, text),), 0.0), {"a": Document("a", text)}, passages, "q", False)
    (source,), budget = read(both, 100, words, nothing)
    assert [excerpt.text for excerpt in source.excerpts] == [text]
    assert budget.used == 6


def test_a_document_that_is_a_title_and_nothing_else_is_read_by_it() -> None:
    titled = Found(
        Results("q", (Hit("a", 1.0, 1, "", "Zinc helps"),), 0.0),
        {"a": Document("a", "", title="Zinc helps")},
        [Passage("a", 0, 0, 0, "")],
        "q",
        False,
    )
    (source,), _ = read(titled, 100, words, nothing)
    assert (source.excerpts[0].text, source.excerpts[0].part) == ("Zinc helps", "title")


def test_several_passages_of_a_document_are_one_source_in_its_order(make: Making) -> None:
    collection = make(recipe=Recipe.parse("[passages]\nsize = 16\noverlap = 0"))
    parts = [
        "The needle lies here in the hay. It is small.",
        "Nothing of interest stands in this sentence at all.",
        "A second needle lies in the barn, they say.",
    ]
    collection.add([{"id": "long", "text": "\n\n".join(parts)}, {"id": "other", "text": "No such thing."}])
    answer = collection.answer("where is the needle?", budget=40)
    (source,) = answer.sources
    assert len(source.excerpts) == 2
    assert source.excerpts[0].start < source.excerpts[1].start
    assert {quote.id for quote in answer.quotes} == {"long"}


@pytest.mark.parametrize("budget", [0, -1, 15, True, 2.5, None])
def test_a_budget_that_holds_nothing_is_refused(notes: Collection, budget: object) -> None:
    with pytest.raises(QueryError, match="budget"):
        notes.answer("zinc", budget=budget)  # type: ignore[arg-type]


def test_what_asks_or_heads_goes_with_what_follows_it() -> None:
    text = "# Colds\n\nDoes zinc help? By a day, perhaps. Note the following:\n\nRest helps."
    assert [text[start:end] for start, end in units_of(text)] == [
        "# Colds\n\nDoes zinc help?", "By a day, perhaps.", "Note the following:\n\nRest helps.",
    ]  # fmt: skip
    assert units_of("Why?") == [(0, 4)]
    assert units_of("  \n ") == []


sentence = st.lists(st.sampled_from(["ab", "cd", "efg", "12", "zinc"]), min_size=1, max_size=6).map(
    lambda words: " ".join(words) + ". "
)
text = st.lists(sentence, min_size=1, max_size=12).map("".join)


@given(st.lists(text, min_size=1, max_size=4), st.integers(16, 80), st.integers(20, 200))
def test_never_more_is_read_than_allowed_and_every_excerpt_stands_in_its_document(
    texts: list[str], tokens: int, size: int
) -> None:
    named = [(f"d{number}", text) for number, text in enumerate(texts)]
    given_found = found(*named, size=size)
    sources, budget = read(given_found, tokens, words, lambda pieces: [float(len(piece)) for piece in pieces])
    assert budget.used <= tokens
    assert budget.used == sum(
        words(source.title) + sum(words(excerpt.text) for excerpt in source.excerpts) for source in sources
    )
    for source in sources:
        document = dict(named)[source.id]
        spans = [(excerpt.start, excerpt.end) for excerpt in source.excerpts]
        assert all(document[start:end] == excerpt.text for (start, end), excerpt in zip(spans, source.excerpts, strict=True))
        assert spans == sorted(spans)
        assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert [source.number for source in sources] == list(range(1, len(sources) + 1))
    assert {source.id for source in sources}.isdisjoint(budget.documents)
