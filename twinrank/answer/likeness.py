"""How well single sentences answer a question: by a model that reads or compares them, by the words they share, or by both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from twinrank.search.fuse import spread
from twinrank.types import Scores

Values = npt.NDArray[np.float64]
Terms = Callable[[str], Sequence[str]]
"""A word analyser."""
Kind = Literal["cross-encoder", "bi-encoder", "late interaction", "words"]

SHARES: dict[Kind, tuple[float, float, float]] = {
    "cross-encoder": (0.5, 0.75, 0.25),
    "bi-encoder": (0.5, 0.75, 0.0),
    "late interaction": (0.5, 0.75, 0.0),
    "words": (0.0, 0.5, 0.5),
}
"""What model, words and document count for in a sentence's score: within .003 of the best mean reciprocal rank of the sentence
that answers, on the dev parts of wikiqa and squad_sent (`python bench/answers.py choose`; docs/answers.md)."""


@dataclass(frozen=True)
class Words:
    """The share of a text's words that another one holds, rare words counting for more."""

    terms: Terms
    weigh: Callable[[str], float]
    """Of a term: how much it tells."""

    def shared(self, of: str, others: Sequence[str]) -> Values:
        """For each of the others how much of `of` it holds: (others,), 0 to 1.

        >>> Words(str.split, len).shared("zinc cold", ["a cold zinc", "cold", ""]).tolist()
        [1.0, 0.5, 0.0]
        """
        wanted = {term: self.weigh(term) for term in set(self.terms(of))}
        whole = sum(wanted.values())
        if not whole:
            return np.zeros(len(others))
        return np.array([sum(wanted.get(term, 0.0) for term in set(self.terms(other))) / whole for other in others])


@dataclass(frozen=True)
class Likeness:
    """Scores sentences for one question: `kind` says by what, `read` is that model (None: by words alone)."""

    kind: Kind
    name: str
    words: Words
    read: Callable[[str, Sequence[str]], Scores] | None = None

    def score(self, question: str, texts: Sequence[str], titled: Sequence[str], documents: Sequence[float]) -> Values:
        """(texts,), 0 to 1; `titled` are the texts behind their titles, `documents` what the search gave to their documents."""
        shares = np.array(SHARES[self.kind])
        return np.asarray(self.columns(question, texts, titled, documents) @ shares / shares.sum(), np.float64)

    def columns(self, question: str, texts: Sequence[str], titled: Sequence[str], documents: Sequence[float]) -> Values:
        """What model, words and document say, each spread over 0 to 1: (texts, 3)."""
        read = np.zeros(len(texts))
        if self.read is not None:
            read = spread(self.read(question, titled if self.kind == "cross-encoder" else texts))
        return np.column_stack([read, spread(self.words.shared(question, texts)), spread(documents)])

    def without_model(self) -> Likeness:
        return Likeness("words", "the words they share", self.words)
