"""Which examples stand together in a batch: drawn by chance, and none whose passages answer another's query."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from twinrank.errors import InputError
from twinrank.train.data import Example, known_answers, same_text


class Batches:
    """Examples → batches in which every passage of the other examples is a negative that may be trusted.

    In a batch no query and no document stands twice, and no passage of one example, positive or negative, is a known answer of
    another: `known_answers` says which are. What does not fit into a batch waits for the next one.

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

        self._queries = [same_text(example.query) for example in examples]
        self._documents = [example.document for example in examples]
        self._passages = [frozenset(map(number, example.passages)) for example in examples]
        known = known_answers(examples)
        numbered = {texts: frozenset(map(number, texts)) for texts in set(known)}
        self._known = [numbered[texts] for texts in known]
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
        waiting: dict[str, deque[int]] = {}
        """By query: of a query that is repeated often only one can come into a batch, so only one is tried."""
        coming = iter(order)
        left = True
        while left or waiting:
            batch = _Batch(self)
            for query in list(waiting):
                if len(batch.places) < self.size and batch.add(waiting[query][0]):
                    waiting[query].popleft()
                    if not waiting[query]:
                        del waiting[query]
            while left and len(batch.places) < self.size:
                place = next(coming, None)
                if place is None:
                    left = False
                elif not batch.add(place):
                    waiting.setdefault(self._queries[place], deque()).append(place)
            if batch.places:
                batches.append(batch.places)
        return batches


class _Batch:
    def __init__(self, batches: Batches) -> None:
        self.places: list[int] = []
        self._of = batches
        self._queries: set[str] = set()
        self._documents: set[str] = set()
        self._passages: set[int] = set()
        self._known: set[int] = set()

    def add(self, place: int) -> bool:
        """Whether the example fits; then it is in."""
        query, document = self._of._queries[place], self._of._documents[place]
        passages, known = self._of._passages[place], self._of._known[place]
        if query in self._queries or document in self._documents:
            return False
        if not known.isdisjoint(self._passages) or not passages.isdisjoint(self._known):
            return False
        self.places.append(place)
        self._queries.add(query)
        if document:
            self._documents.add(document)
        self._passages |= passages
        self._known |= known
        return True
