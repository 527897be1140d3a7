"""Marks and snippets: what a person sees of a hit."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from twinrank.search.explain import marks, snippet
from twinrank.text import Analyzer

ENGLISH = Analyzer("english")


def test_words_are_marked_by_their_stem() -> None:
    text = "Merging lists is cheap; a merged list is sorted."
    assert [text[start:end] for start, end in marks(text, "merge a list", ENGLISH.spans)] == [
        "Merging",
        "lists",
        "merged",
        "list",
    ]


def test_overlapping_bigrams_make_one_mark() -> None:
    text = "東京都庁"
    assert marks(text, "東京都", ENGLISH.spans) == [(0, 3)]


def test_a_short_text_is_shown_whole() -> None:
    assert snippet("short", [], 100) == (0, 5)


def test_the_snippet_holds_the_densest_marks() -> None:
    text = "needle " + "hay " * 100 + "needle needle " + "hay " * 100
    marked = marks(text, "needle", ENGLISH.spans)
    start, end = snippet(text, marked, 60)
    assert text[start:end].count("needle") == 2


@example("0 ", 1, [(1, 1)])
@example("00 0", 2, [(3, 1)])
@given(st.text(max_size=300), st.integers(1, 80), st.lists(st.tuples(st.integers(0, 299), st.integers(1, 9)), max_size=8))
def test_a_snippet_lies_in_its_text_and_is_not_much_longer_than_asked(
    text: str, length: int, places: list[tuple[int, int]]
) -> None:
    marked = [(start, min(start + size, len(text))) for start, size in sorted(places) if start < len(text)]
    start, end = snippet(text, marked, length)
    assert 0 <= start <= end <= len(text)
    assert end - start <= max(length, 1)
    assert not text or end > start
