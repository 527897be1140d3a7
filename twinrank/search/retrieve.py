"""Where candidates come from: a source asks one index for one query; what is asked is prepared once per query."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from twinrank.types import Keys, Ranking

Asked = TypeVar("Asked", contravariant=True)


class Index(Protocol[Asked]):
    """Finds the `k` best passages for what is asked; where `allowed` (sorted keys) is given, the best `k` of exactly those."""

    def search(self, asked: Asked, k: int, allowed: Keys | None = None) -> Ranking: ...


class Source(Protocol):
    """One way of finding candidates, opened for one query."""

    @property
    def name(self) -> str: ...

    def find(self, k: int, allowed: Keys | None) -> Ranking: ...

    def score(self, keys: Keys) -> Ranking:
        """The scores of exactly these passages; those that the source knows nothing of are left out."""
        ...

    def bound(self) -> float | None:
        """The largest score that a passage could have; None where nobody knows."""
        ...


Prepared = TypeVar("Prepared")


@dataclass(frozen=True)
class IndexSource(Generic[Prepared]):
    """An index, with the way from a query's text to what that index is asked."""

    name: str
    index: Index[Prepared]
    prepare: Callable[[str], Prepared]
    largest: Callable[[Prepared], float | None] | None = None
    """The largest score that a passage could have."""
    plan: Callable[[], str] | None = None
    """How this thread's last search of the index went, in words, where the index has more than one way."""

    def ask(self, query: str) -> OpenSource[Prepared]:
        return OpenSource(self.name, self.index, self.prepare(query), self.largest)


@dataclass(frozen=True)
class OpenSource(Generic[Prepared]):
    name: str
    index: Index[Prepared]
    asked: Prepared
    largest: Callable[[Prepared], float | None] | None = None

    def find(self, k: int, allowed: Keys | None) -> Ranking:
        return self.index.search(self.asked, k, allowed)

    def score(self, keys: Keys) -> Ranking:
        if not len(keys):
            return Ranking.empty()
        return self.index.search(self.asked, len(keys), np.sort(keys))

    def bound(self) -> float | None:
        return None if self.largest is None else self.largest(self.asked)


def union(rankings: Sequence[Ranking]) -> Keys:
    """All passages that stand in any of the rankings, sorted, each once."""
    if not rankings:
        return np.empty(0, np.int64)
    return np.unique(np.concatenate([ranking.keys for ranking in rankings]))
