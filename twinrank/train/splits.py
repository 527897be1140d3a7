"""What is learned from and what is measured on, kept apart: splits by document, and leaks between the parts found."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal, TypeAlias

import numpy as np

from twinrank.errors import InputError
from twinrank.text import Analyzer, counted
from twinrank.train.data import Example, same_text

NEAR = 0.8
"""Two queries are near the same where their sets of words overlap by so much (Jaccard): seven words of eight, say."""

Reason: TypeAlias = Literal["same query", "near-same query", "same document"]


# -- splits --------------------------------------------------------------------------------------------------------------


def split_by_document(
    examples: Sequence[Example],
    shares: Sequence[float] = (0.8, 0.1, 0.1),
    *,
    documents: Sequence[Iterable[Hashable]] | None = None,
    seed: int = 0,
) -> list[list[int]]:
    """Part examples, so that no document and no query is on two sides: their places, one list a share.

    `documents` says which documents an example is of; without it, its own, and its positives by their text, may not be parted.
    The shares are of examples; examples that hang together stay together, so they are kept to only as nearly as that allows.

    >>> made = [Example("cold", ("zinc",)), Example("flu", ("zinc",)), Example("cough", ("honey",)), Example("ache", ("rest",))]
    >>> [sorted(part) for part in split_by_document(made, (0.5, 0.5))]
    [[0, 1], [2, 3]]
    """
    if not shares or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise InputError(f"shares are parts of 1 that add up to it; got {tuple(shares)}")
    groups = _hanging_together(examples, documents)
    draw = np.random.default_rng(seed)
    order = [groups[place] for place in draw.permutation(len(groups)).tolist()]
    # The largest first: what cannot be parted goes where there is room for it.
    order.sort(key=len, reverse=True)
    parts: list[list[int]] = [[] for _ in shares]
    room = [share * len(examples) for share in shares]
    for group in order:
        roomiest = max(range(len(shares)), key=lambda part: (room[part], -part))
        # By chance in proportion to what is left, where it fits; else every large group would be in the first part.
        fitting = [part for part in range(len(shares)) if room[part] >= len(group)]
        chances = np.array([room[part] for part in fitting])
        part = int(draw.choice(fitting, p=chances / chances.sum())) if fitting else roomiest
        parts[part].extend(group)
        room[part] -= len(group)
    return [sorted(part) for part in parts]


def _hanging_together(examples: Sequence[Example], documents: Sequence[Iterable[Hashable]] | None) -> list[list[int]]:
    """Examples joined by a query or a document in common, directly or through others (union-find)."""
    parents = list(range(len(examples)))

    def root(place: int) -> int:
        while parents[place] != place:
            parents[place] = parents[parents[place]]
            place = parents[place]
        return place

    first: dict[Hashable, int] = {}
    for place, example in enumerate(examples):
        own = _own(example) if documents is None else documents[place]
        for key in [("query", same_text(example.query)), *(("document", name) for name in own)]:
            parents[root(place)] = root(first.setdefault(key, place))
    groups: dict[int, list[int]] = defaultdict(list)
    for place in range(len(examples)):
        groups[root(place)].append(place)
    return list(groups.values())


def _own(example: Example) -> list[Hashable]:
    named = [("named", example.document)] if example.document else []
    return [*map(same_text, example.positives), *named]


# -- leaks ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Leak:
    """A training example that tells something about what is measured on."""

    place: int
    """Of the example."""
    reason: Reason
    trained: str
    held_out: str


@dataclass(frozen=True)
class Leakage:
    """What of the training examples was found in the part that is measured on."""

    examples: int
    leaks: tuple[Leak, ...] = ()
    """One an example, the gravest."""
    kept: tuple[int, ...] = field(default=(), repr=False)
    """The places of the examples without a leak."""

    @property
    def counts(self) -> dict[Reason, int]:
        return dict(Counter(leak.reason for leak in self.leaks))

    def as_json(self) -> dict[str, object]:
        """Counts by reason, and a few of each as examples."""
        shown = [leak for reason in self.counts for leak in [one for one in self.leaks if one.reason == reason][:3]]
        return {"examples": self.examples, "counts": self.counts, "shown": [asdict(leak) for leak in shown]}

    def __str__(self) -> str:
        if not self.leaks:
            return (
                f"no leak: {counted(self.examples, 'example')}, none with a query or a document of the part that is measured on"
            )
        shown = []
        for reason, count in self.counts.items():
            leak = next(leak for leak in self.leaks if leak.reason == reason)
            shown.append(f"{count:,} with the {reason} ({leak.trained[:60]!r} beside {leak.held_out[:60]!r})")
        return (
            f"{len(self.leaks):,} of {counted(self.examples, 'example')} leak into the part that is measured on: "
            + "; ".join(shown)
        )


def find_leaks(examples: Sequence[Example], held_out: Sequence[Example], *, near: float = NEAR) -> Leakage:
    """Which examples have a query of `held_out`, nearly such a query, or a passage that answers one.

    Nearly the same are queries whose sets of stemmed words have a Jaccard overlap of `near` or more; all pairs are compared,
    by prefix filtering (Chaudhuri, Ganti and Kaushik, ICDE 2006). Negatives may come from anywhere: they are no answers.
    """
    queries = {same_text(example.query): example.query for example in held_out}
    documents = {same_text(passage): passage for example in held_out for passage in example.positives}
    alike = _Alike([example.query for example in held_out], near)
    leaks, kept = [], []
    for place, example in enumerate(examples):
        leak = _leak(example, queries, documents, alike.find)
        if leak is None:
            kept.append(place)
        else:
            leaks.append(Leak(place, *leak))
    return Leakage(len(examples), tuple(leaks), tuple(kept))


def _leak(
    example: Example, queries: Mapping[str, str], documents: Mapping[str, str], nearest: Callable[[str], str | None]
) -> tuple[Reason, str, str] | None:
    if (query := same_text(example.query)) in queries:
        return "same query", example.query, queries[query]
    for passage in example.positives:
        if (text := same_text(passage)) in documents:
            return "same document", passage, documents[text]
    near = nearest(example.query)
    return None if near is None else ("near-same query", example.query, near)


class _Alike:
    """Texts, to be asked for one whose words are nearly those of another."""

    def __init__(self, texts: Sequence[str], threshold: float) -> None:
        if not 0 < threshold <= 1:
            raise InputError(f"an overlap is above 0 and at most 1; got {threshold}")
        self._analyze, self._threshold = Analyzer(), threshold
        self._texts = texts
        self._sets = [frozenset(self._analyze(text)) for text in texts]
        self._rarity = Counter(word for words in self._sets for word in words)
        self._holding: dict[str, list[int]] = defaultdict(list)
        for place, words in enumerate(self._sets):
            for word in self._prefix(words):
                self._holding[word].append(place)

    def _prefix(self, words: frozenset[str]) -> list[str]:
        """The rarest words, of which two sets that overlap enough have one in common at least."""
        ordered = sorted(words, key=lambda word: (self._rarity[word], word))
        return ordered[: len(ordered) - math.ceil(self._threshold * len(ordered) - 1e-9) + 1]

    def find(self, text: str) -> str | None:
        words = frozenset(self._analyze(text))
        for place in dict.fromkeys(place for word in self._prefix(words) for place in self._holding.get(word, ())):
            other = self._sets[place]
            if len(words & other) >= self._threshold * len(words | other) - 1e-9:
                return self._texts[place]
        return None
