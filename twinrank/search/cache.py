"""What was computed a moment ago: a bounded memory of exact repetitions, and the scores of pairs kept in one."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from hashlib import blake2b
from typing import Generic, TypeVar

import numpy as np

from twinrank.types import Scorer, Scores

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """The `limit` entries used last; threads may share it.

    >>> recent = Recent[str, int](limit=2)
    >>> [recent.of(word, lambda: len(word)) for word in ("a", "bb", "a", "ccc")], recent.hits
    ([1, 2, 1, 3], 1)
    >>> recent.get("bb") is None  # "a" was used later
    True
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.hits = 0
        self._entries: OrderedDict[Key, Value] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key) -> Value | None:
        with self._lock:
            if key not in self._entries:
                return None
            self.hits += 1
            self._entries.move_to_end(key)
            return self._entries[key]

    def put(self, key: Key, value: Value) -> None:
        with self._lock:
            self._entries[key] = value
            self._entries.move_to_end(key)
            while len(self._entries) > self.limit:
                self._entries.popitem(last=False)

    def of(self, key: Key, make: Callable[[], Value]) -> Value:
        """The entry, made where it is not there; two threads may both make it, which costs time and no truth."""
        known = self.get(key)
        if known is None:
            known = make()
            self.put(key, known)
        return known


class PairScores:
    """Scores of pairs by scorers, each pair scored once while it is remembered; a hit is the same model and the same two texts.

    Texts are kept as digests of 16 bytes, so that an entry takes some 200 bytes however long they are.
    """

    def __init__(self, limit: int = 100_000) -> None:
        self._recent: Recent[tuple[str, bytes], float] = Recent(limit)

    @property
    def hits(self) -> int:
        return self._recent.hits

    def score(self, scorer: Scorer, pairs: Sequence[tuple[str, str]]) -> Scores:
        """(pairs,), as the scorer gives them; only those that are not remembered are scored, in one call."""
        keys = [(scorer.fingerprint, digest(*pair)) for pair in pairs]
        known = [self._recent.get(key) for key in keys]
        missing = [place for place, score in enumerate(known) if score is None]
        if len(missing) == len(pairs):
            fresh = scorer.score(pairs)
        else:
            fresh = scorer.score([pairs[place] for place in missing]) if missing else np.empty(0, np.float32)
        if len(fresh) != len(missing):
            return fresh  # whoever asked tells that it is wrong
        scores = np.array([np.nan if score is None else score for score in known], np.float32)
        scores[missing] = fresh
        for place, score in zip(missing, fresh.tolist(), strict=True):
            if np.isfinite(score):
                self._recent.put(keys[place], score)
        return scores


def digest(*texts: str) -> bytes:
    """Of several texts in their order; where one ends and the next begins counts."""
    made = blake2b(digest_size=16)
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        made.update(len(data).to_bytes(8, "little"))
        made.update(data)
    return made.digest()
