"""Which examples stand together in a batch: drawn by chance, and none whose passages answer another's query."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from twinrank.errors import InputError
from twinrank.train.data import Example, known_positives, same_text


class Batches:
    """Examples → batches in which every passage of the other examples is a negative that may be trusted.

    In a batch no query stands twice, and no passage of one example, positive or negative, is a known positive of another.
    Known are the positives of all examples of the same query. What does not fit into a batch waits for the next one.

    >>> twice = [Example("cold", ("zinc",)), Example("cold", ("rest",)), Example("cough", ("honey",))]
    >>> [sorted(batch) for batch in Batches(twice, 2, seed=0).epoch(0)]
    [[0, 2], [1]]
    """

    def __init__(self, examples: Sequence[Example], size: int, *, seed: int = 0) -> None:
        if size < 1:
            raise InputError(f"a batch holds 1 example at least; got {size}")
        self.size = size
        self.seed = seed
        numbers: dict[str, int] = {}

        def number(text: str) -> int:
            return numbers.setdefault(same_text(text), len(numbers))

        known = known_positives(examples)
        self._queries = [same_text(example.query) for example in examples]
        self._passages = [frozenset(map(number, example.passages)) for example in examples]
        self._known = [frozenset(map(number, known[query])) for query in self._queries]
        self._lengths = np.array([max(map(len, example.passages)) for example in examples], np.int64)

    def epoch(self, epoch: int, *, like_lengths: bool = False) -> list[list[int]]:
        """The batches of one pass over all examples, as their places; the same seed and epoch give the same batches.

        The last ones may be short. With `like_lengths` texts of like length stand together, so that little is padded.
        """
        draw = np.random.default_rng([self.seed, epoch])
        order = draw.permutation(len(self._queries))
        if like_lengths:  # among pieces of many batches, so that neighbours differ from epoch to epoch
            piece = 64 * self.size
            parts = [order[start : start + piece] for start in range(0, len(order), piece)]
            order = np.concatenate([part[np.argsort(self._lengths[part], kind="stable")] for part in parts]) if parts else order
        batches = list(self._filled(order.tolist()))
        return [batches[place] for place in draw.permutation(len(batches))] if like_lengths else batches

    def _filled(self, order: Sequence[int]) -> list[list[int]]:
        batches: list[list[int]] = []
        waiting: list[int] = []
        coming = iter(order)
        left = True
        while left or waiting:
            batch = _Batch(self)
            waiting = [place for place in waiting if len(batch.places) >= self.size or not batch.add(place)]
            while left and len(batch.places) < self.size:
                place = next(coming, None)
                if place is None:
                    left = False
                elif not batch.add(place):
                    waiting.append(place)
            if batch.places:
                batches.append(batch.places)
        return batches


class _Batch:
    def __init__(self, batches: Batches) -> None:
        self.places: list[int] = []
        self._of = batches
        self._queries: set[str] = set()
        self._passages: set[int] = set()
        self._known: set[int] = set()

    def add(self, place: int) -> bool:
        """Whether the example fits; then it is in."""
        query, passages, known = self._of._queries[place], self._of._passages[place], self._of._known[place]
        if query in self._queries or not known.isdisjoint(self._passages) or not passages.isdisjoint(self._known):
            return False
        self.places.append(place)
        self._queries.add(query)
        self._passages |= passages
        self._known |= known
        return True
