"""What a text's parts do for a score: each is left out in turn, and the score looked at again.

Occlusion: Zeiler and Fergus 2014, of pictures; Li, Monroe and Jurafsky 2016 (representation erasure), of words. The effects
need not add up to the score: two words that say the same thing have little effect each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from twinrank.errors import InputError
from twinrank.explain.explanation import Effect, Occlusion
from twinrank.models.crossencoder import Seen
from twinrank.search.explain import Span
from twinrank.text import Analyzer, sentences

BUDGET = 256
"""Texts that a model reads for one explanation, at most."""

LEAST = 8

Units = tuple[str, list[Span]]


def check_budget(budget: int) -> int:
    """0, for no effects at all, or enough for two halves of each text."""
    if isinstance(budget, bool) or not isinstance(budget, int) or (budget and budget < LEAST) or budget < 0:
        raise InputError(f"budget is how many texts each model may read: 0, or {LEAST} and more; got {budget!r}")
    return budget


def words_of(language: str) -> Callable[[str], list[Span]]:
    """Where the words of a text are, stop words too; pairs of characters where nothing stands between words.

    >>> words_of("english")("Isn't it 東京都?")
    [(0, 5), (6, 8), (9, 11), (10, 12)]
    """
    analyzer = Analyzer(language, stem=False, stop_words=False)
    return lambda text: [(start, end) for _, start, end in analyzer.spans(text)]


def units(text: str, words: Callable[[str], Sequence[Span]], most: int) -> Units:
    """The parts to leave out, at most so many: words; where there are more, sentences; where there are more, runs of words.

    >>> units("one two three", words_of("none"), 2)
    ('2 words', [(0, 7), (8, 13)])
    """
    if most < 1:
        return "", []
    found = apart(words(text))
    if len(found) <= most:
        return "word", found
    whole = [span for span in sentences(text) if text[slice(*span)].strip()]
    if 1 < len(whole) <= most:
        return "sentence", whole
    together = -(-len(found) // most)
    runs = [(run[0][0], run[-1][1]) for run in (found[at : at + together] for at in range(0, len(found), together))]
    return f"{together} words", runs


def apart(spans: Sequence[Span]) -> list[Span]:
    """Of spans that overlap, as pairs of characters do, those side by side, and what they leave over at the end.

    >>> apart([(0, 2), (1, 3), (2, 4), (3, 5), (6, 9)])
    [(0, 2), (2, 4), (4, 5), (6, 9)]
    """
    kept: list[Span] = []
    for number, (start, end) in enumerate(spans):
        reached = kept[-1][1] if kept else 0
        last_of_run = number + 1 == len(spans) or spans[number + 1][0] >= end
        if start >= reached:
            kept.append((start, end))
        elif last_of_run and end > reached:
            kept.append((reached, end))
    return kept


def without(text: str, span: Span) -> str:
    """The text without a part of it, and without the space that this would double.

    >>> without("may shorten a cold", (4, 11))
    'may a cold'
    """
    start, end = span
    doubled = end < len(text) and text[end].isspace() and (start == 0 or text[start - 1].isspace())
    return text[:start] + text[end + doubled :]


def variants(text: str, spans: Sequence[Span]) -> list[str]:
    return [without(text, span) for span in spans]


def occlusion(text: str, parts: Units, whole: float, scores: npt.ArrayLike, reads: Seen) -> Occlusion:
    """What leaving out did: `whole` is the score of all of the text, `scores` (parts,) those without each part."""
    unit, spans = parts
    losses = whole - np.asarray(scores, np.float64)
    effects = [Effect(start, end, float(loss)) for (start, end), loss in zip(spans, losses.tolist(), strict=True)]
    return Occlusion(text, unit, tuple(effects), reads.characters, reads.dropped)


def shares(
    query: str, passage: str, words: Callable[[str], Sequence[Span]], budget: int, read_whole: int
) -> tuple[Units, Units]:
    """The parts of query and passage for a budget of which `read_whole` goes to the texts as they are.

    The query's words come first, up to a quarter; the passage has what they leave.
    """
    if not budget:
        return ("", []), ("", [])
    of_query = units(query, words, max(1, (budget - read_whole) // 4))
    return of_query, units(passage, words, budget - read_whole - len(of_query[1]))
