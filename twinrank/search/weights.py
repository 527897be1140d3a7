"""What decides the weights of a fusion: how far apart vectors hold a query's candidates, and how far vectors and words agree.

One fixed weight helps here and hurts there: over the sets at hand the best share of the vectors lies between .15 and .95.
Two figures tell most of it, and neither needs a judgment:

- `agreement`, of a collection: how many of the first ten by vectors stand among the first ten by words, for queries made of
  its own sentences with half of their words left out. An encoder that does not know the language or the matter disagrees
  with the words everywhere.
- `spread`, of a query: by how much its best vector lies above the fiftieth, in units of how far apart the encoder holds
  texts that have nothing in common (`contrast`). An encoder that cannot tell the candidates apart has little to say.

    share of the vectors = 1 / (1 + exp(-(bias + spread · a + agreement · b)))

of scores that are standardised over the candidates. The three numbers were fitted to nDCG@10 on twelve sets (docs/fusion.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from twinrank.types import Vectors

Values = npt.NDArray[np.float64]

BIAS, BY_SPREAD, BY_AGREEMENT = -2.541, 3.177, 7.973
"""As `python bench/fusion.py develop` fits them."""

DEPTH = 50
"""The place of the candidate that the best is compared with."""

SPREADS = 0.0, 1.0
AGREEMENTS = 0.1, 0.45
"""The ranges seen when the numbers were fitted; what lies beyond counts as their ends."""

USUAL_SHARE = 0.6
"""The share of the vectors that a recipe's weights have by default; others shift what is decided by as much as they differ."""


@dataclass(frozen=True, slots=True)
class Views:
    """What is known beforehand of a collection's vectors and words."""

    contrast: float = 1.0
    agreement: float | None = None
    """None where it is not known: of a few passages, the first ten by anything are the same."""


@dataclass(frozen=True, slots=True)
class Decided:
    """The share of the vectors for one query, and what it was decided by."""

    vectors: float
    spread: float
    agreement: float | None

    def __str__(self) -> str:
        shares = f"weights: vectors {self.vectors:.2f}, words {1 - self.vectors:.2f}"
        if self.agreement is None:
            return f"{shares}, the recipe's: too few passages to decide by"
        return f"{shares}, from a spread of {self.spread:.2f} and an agreement of {self.agreement:.2f}"


def decide(cosines: Values, views: Views, usual: float = USUAL_SHARE) -> Decided:
    """The vectors' share for a query whose candidates have these cosines; `usual` is the share that the recipe starts from.

    >>> print(decide(np.linspace(0.7, 0.1, 100), Views(agreement=0.4)))
    weights: vectors 0.83, words 0.17, from a spread of 0.30 and an agreement of 0.40
    """
    spread = spread_of(cosines) / views.contrast
    if views.agreement is None or not 0 < usual < 1:
        return Decided(usual, spread, views.agreement)
    bounded = min(max(spread, SPREADS[0]), SPREADS[1]), min(max(views.agreement, AGREEMENTS[0]), AGREEMENTS[1])
    logit = BIAS + BY_SPREAD * bounded[0] + BY_AGREEMENT * bounded[1]
    logit += math.log(usual / (1 - usual)) - math.log(USUAL_SHARE / (1 - USUAL_SHARE))
    return Decided(1 / (1 + math.exp(-logit)), spread, views.agreement)


def spread_of(cosines: Values) -> float:
    """The best less the fiftieth, or the last where there are fewer; 0 where there is none.

    >>> spread_of(np.array([0.25, 0.75, 0.5]))
    0.5
    """
    if not len(cosines):
        return 0.0
    place = min(DEPTH, len(cosines)) - 1
    return float(cosines.max() - np.partition(cosines, len(cosines) - 1 - place)[len(cosines) - 1 - place])


def agreement_of(first: Sequence[Sequence[int]], second: Sequence[Sequence[int]], k: int = 10) -> float:
    """The mean share of the first `k` of one ranking that are among the first `k` of the other, over queries.

    >>> agreement_of([[1, 2, 3, 4]], [[4, 5, 1, 6]], k=4)
    0.5
    """
    shares = [len(set(a[:k]) & set(b[:k])) / k for a, b in zip(first, second, strict=True)]
    return float(np.mean(shares))


UNRELATED = (
    "The train to the coast leaves at nine in the morning.",
    "Photosynthesis turns light into sugar.",
    "She paid the invoice by bank transfer.",
    "How do I reset my password?",
    "A recipe for soup with lentils and carrots.",
    "The court dismissed the appeal.",
    "Sort a list of numbers in descending order.",
    "The goalkeeper saved two penalties in the final.",
    "Zinc lozenges may shorten a common cold.",
    "The castle was built in the twelfth century.",
    "Interest rates rose by a quarter of a point.",
    "Replace the filter every three months.",
    "An earthquake shook the islands last night.",
    "Which planet has the most moons?",
    "He learned to play the violin as a child.",
    "The file could not be opened for reading.",
)
"""Texts that have nothing in common; what an encoder makes of them says what its cosines mean."""


def contrast_of(queries: Vectors, documents: Vectors) -> float:
    """1 less the mean cosine of texts that have nothing in common: .96 for all-MiniLM-L6-v2, .27 for gte-small.

    Both are `UNRELATED`, encoded as queries and as documents: (texts, dimension).

    >>> contrast_of(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32))
    1.0
    """
    unit = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (queries, documents)]
    cosines = unit[0] @ unit[1].T  # (texts, texts)
    return max(float(1 - cosines[~np.eye(len(cosines), dtype=bool)].mean()), 0.01)
