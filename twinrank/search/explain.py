"""What a person sees of a hit: which of the query's words it holds, and the part of a passage around them."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from typing import TypeAlias

Span: TypeAlias = tuple[int, int]
TermSpans: TypeAlias = Callable[[str], Sequence[tuple[str, int, int]]]
"""A word analyser's terms of a text with the characters that each stands for."""


def marks(text: str, query: str, spans: TermSpans) -> list[Span]:
    """Where `text` holds words of `query`, as character spans that do not overlap, in order.

    >>> words = lambda text: [("merg", 0, 5)] if text == "merge" else [("merg", 2, 9)]
    >>> marks("A merging", "merge", words)
    [(2, 9)]
    """
    return marks_of({term for term, _, _ in spans(query)}, text, spans)


def marks_of(wanted: Set[str], text: str, spans: TermSpans) -> list[Span]:
    """`marks` for terms that were found in a query before."""
    found: list[Span] = []
    for term, start, end in spans(text):
        if term not in wanted:
            continue
        if found and start <= found[-1][1]:  # bigrams of one run overlap: one mark for both
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def snippet(text: str, marked: Sequence[Span], length: int) -> Span:
    """The part of `text`, about `length` characters, that holds most marks; it starts and ends between words.

    >>> text = "one two three four five six seven"
    >>> start, end = snippet(text, [(19, 23)], 14)
    >>> text[start:end]
    'four five six'
    """
    if len(text) <= length:
        return 0, len(text)
    best_start, best_count = 0, 0
    last = 0
    for first, (start, _) in enumerate(marked):
        last = max(last, first)
        while last < len(marked) and marked[last][1] <= start + length:
            last += 1
        if last - first > best_count:
            centre = (start + marked[last - 1][1]) // 2
            best_start, best_count = max(0, min(centre - length // 2, start)), last - first
    start = _word_start(text, min(best_start, len(text) - length))
    return start, _word_end(text, start, min(len(text), start + length))


def _word_start(text: str, place: int) -> int:
    """The first place at or after `place` where a word starts, within reach; `place` itself in text without spaces."""
    if place == 0 or text[place - 1].isspace():
        return place
    space = text.find(" ", place, place + 30)
    return space + 1 if 0 <= space < len(text) - 1 else place


def _word_end(text: str, start: int, place: int) -> int:
    """The last place up to `place`, behind `start`, where a word ends, within reach; `place` itself in text without spaces."""
    if place >= len(text) or text[place].isspace():
        return place
    space = text.rfind(" ", max(start + 1, place - 30), place)
    return space if space > start else place
