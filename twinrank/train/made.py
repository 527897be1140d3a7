"""Examples made of a collection's own texts, where nobody judged anything: what a part of a document says of the rest of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np

from twinrank.errors import InputError
from twinrank.text import sentences
from twinrank.train.data import Example, same_text
from twinrank.types import Document

Way: TypeAlias = Literal["title", "first sentence", "inverse cloze"]
WAYS: tuple[Way, ...] = get_args(Way)

SHORTEST_QUERY = 8
"""Characters; what is shorter says too little to be asked."""
SHORTEST_PASSAGE = 40
LONGEST_QUERY = 400
"""Characters of a sentence that stands for a query."""
LONGEST_PASSAGE = 2000
"""Characters of a document that stand for its passage: about what encoders take."""
KEPT = 0.1
"""The share of inverse cloze examples whose sentence stays in the passage, so that words in common are learned too."""


@dataclass(frozen=True)
class Made:
    """An example and the document that it was made of."""

    example: Example
    document: str
    way: str


def make_examples(documents: Iterable[Document], ways: Sequence[Way] = WAYS, *, seed: int = 0) -> Iterator[Made]:
    """Examples of every document, one a way that it allows; the same seed makes the same ones, in whatever order.

    - title: the title finds the text.
    - first sentence: it finds the rest (as a summary does).
    - inverse cloze: a sentence drawn by chance finds the text around it, from which it is taken out in nine cases of ten
      (Lee, Chang and Toutanova, ACL 2019).

    >>> zinc = Document("a1", "Zinc may shorten a cold. It is taken as a lozenge, every two hours.", title="Zinc and colds")
    >>> [made.example.query for made in make_examples([zinc], ["title", "first sentence"])]
    ['Zinc and colds', 'Zinc may shorten a cold.']
    """
    unknown = [way for way in ways if way not in WAYS]
    if unknown or not ways:
        raise InputError(f"examples are made by {', '.join(WAYS)}; got {unknown or 'none'}")
    for document in documents:
        draw = np.random.default_rng([seed, *document.id.encode()])
        for way in ways:
            pair = MAKERS[way](document, draw)
            if pair is not None and _is_usable(*pair):
                yield Made(Example(pair[0], (pair[1][:LONGEST_PASSAGE],)), document.id, way)


def _is_usable(query: str, passage: str) -> bool:
    return len(query) >= SHORTEST_QUERY and len(passage) >= SHORTEST_PASSAGE and same_text(query) != same_text(passage)


def _by_title(document: Document, draw: np.random.Generator) -> tuple[str, str] | None:
    # Without the title in it: with it, the passage would be found by its first words.
    return (document.title.strip(), document.text.strip()) if document.title.strip() else None


def _by_first_sentence(document: Document, draw: np.random.Generator) -> tuple[str, str] | None:
    text = document.text
    spans = [(start, end) for start, end in sentences(text) if text[start:end].strip()]
    if len(spans) < 2:
        return None
    start, end = spans[0]
    return text[start:end].strip()[:LONGEST_QUERY], text[end:].strip()


def _by_inverse_cloze(document: Document, draw: np.random.Generator) -> tuple[str, str] | None:
    text = document.text[: 2 * LONGEST_PASSAGE]
    spans = [(start, end) for start, end in sentences(text) if SHORTEST_QUERY <= end - start <= LONGEST_QUERY]
    if len(spans) < 2:
        return None
    start, end = spans[int(draw.integers(len(spans)))]
    low = max(0, start - LONGEST_PASSAGE // 2)
    around = text[low : low + LONGEST_PASSAGE]
    if draw.random() >= KEPT:
        around = f"{text[low:start].rstrip()} {text[end : low + LONGEST_PASSAGE].lstrip()}"
    return text[start:end].strip(), f"{document.title} {around.strip()}".strip()


Maker: TypeAlias = Callable[[Document, np.random.Generator], "tuple[str, str] | None"]
MAKERS: Mapping[Way, Maker] = {
    "title": _by_title,
    "first sentence": _by_first_sentence,
    "inverse cloze": _by_inverse_cloze,
}
