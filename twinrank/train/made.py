"""Examples made of a collection's texts, where nobody judged anything: what is taken out of a document asks for the rest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
"""Characters of a title or sentence that stand for a query."""
LONGEST_PASSAGE = 2000
"""Characters of a document that stand for it: about what encoders take."""
KEPT = 0.1
"""The share of documents whose sentence drawn by chance stays in, so that words in common are learned too."""


@dataclass(frozen=True)
class Left:
    """A document without all that it is asked by: each of its queries has to find the same text.

    Were it only without the one title or sentence that asks, then its form would tell which query it answers: a text without
    a title would be the answer to a title. So all documents are cut alike, those that answer and those that do not.
    """

    document: str
    passage: str
    queries: Mapping[Way, str]

    @property
    def examples(self) -> list[Example]:
        return [Example(query, (self.passage,), document=self.document) for query in self.queries.values()]


def take_queries(documents: Iterable[Document], ways: Sequence[Way] = WAYS, *, seed: int = 0) -> Iterator[Left]:
    """Of every document the queries that it allows, one a way, and what is left of it; the same seed takes the same ones.

    - title: the title.
    - first sentence: it says what the rest is about, as a summary does.
    - inverse cloze: a sentence drawn by chance, which in one case of ten stays in (Lee, Chang and Toutanova, ACL 2019).

    >>> zinc = Document("a1", "Zinc may shorten a cold. It is taken as a lozenge, every two hours.", title="Zinc and colds")
    >>> [left] = take_queries([zinc], ["title", "first sentence"])
    >>> left.passage, list(left.queries.values())
    ('It is taken as a lozenge, every two hours.', ['Zinc and colds', 'Zinc may shorten a cold.'])
    """
    unknown = [way for way in ways if way not in WAYS]
    if unknown or not ways:
        raise InputError(f"examples are made by {', '.join(WAYS)}; got {unknown or 'none'}")
    for document in documents:
        left = _taken(document, ways, np.random.default_rng([seed, *document.id.encode()]))
        if left.queries:
            yield left


def _taken(document: Document, ways: Sequence[Way], draw: np.random.Generator) -> Left:
    rest = _beginning(document.text)
    title = document.title.strip()
    queries: dict[Way, str] = {}
    if "title" in ways and title:
        if rest and same_text(rest[0].lstrip("# ")) == same_text(title):
            del rest[0]  # a heading that says the title once more
        if len(title) >= SHORTEST_QUERY and _is_enough(rest):
            queries["title"] = title[:LONGEST_QUERY]
        title = ""
    if "first sentence" in ways and rest and len(rest[0]) >= SHORTEST_QUERY and _is_enough(rest[1:]):
        queries["first sentence"] = rest.pop(0)[:LONGEST_QUERY]
    if "inverse cloze" in ways:
        stays, chance = draw.random() < KEPT, draw.random()
        fitting = [place for place in range(len(rest)) if _may_go(rest, place)]
        if fitting:
            place = fitting[int(chance * len(fitting))]
            queries["inverse cloze"] = rest[place] if stays else rest.pop(place)
    return Left(document.id, " ".join([title, *rest] if title else rest), queries)


def _beginning(text: str) -> list[str]:
    """Whole sentences from the beginning, as far as they fit; of a longer first one a part."""
    spans = sentences(text[: 2 * LONGEST_PASSAGE])
    fitting = [text[start:end].strip() for start, end in spans if end <= LONGEST_PASSAGE]
    return [sentence for sentence in fitting if sentence] or [text.strip()[:LONGEST_PASSAGE]]


def _may_go(rest: Sequence[str], place: int) -> bool:
    return SHORTEST_QUERY <= len(rest[place]) <= LONGEST_QUERY and _is_enough([*rest[:place], *rest[place + 1 :]])


def _is_enough(rest: Sequence[str]) -> bool:
    return len(" ".join(rest)) >= SHORTEST_PASSAGE
