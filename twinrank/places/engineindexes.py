"""Searching in an engine, in the shape of a collection's own indexes: words, vectors, conditions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from twinrank.derived import Indexes
from twinrank.encoding import TOKENS, VECTORS
from twinrank.errors import IndexDamagedError, InputError, RecipeError
from twinrank.index.searched import TermFacts, scores_of_terms
from twinrank.places.enginestore import EngineStore, Selection
from twinrank.recipe import Recipe
from twinrank.status import IndexStatus
from twinrank.text import counted
from twinrank.types import Condition, Keys, Ranking, Vectors

DRAWN = 2000
"""Passages that stand for all of them where a collection is looked into by chance."""

DEEPER = 4
"""Where a condition is not said exactly, so many times as many are asked for each time that too few pass."""

Search = Callable[[int, Condition | None, Keys | None], Ranking]


class EngineIndexes:
    """What `Derived` is for a folder: nothing here is derived, and so nothing is to be caught up with."""

    def __init__(self, store: EngineStore, recipe: Recipe, notify: Callable[[str], None]) -> None:
        check_recipe(recipe, store.folder)
        self.store = store
        self._notify = notify
        self._told_limit = False
        self._words = EngineWords(store, self._tell_limit)
        if recipe.retrieve.words and not store.engine.words:
            if not recipe.retrieve.vectors:
                raise RecipeError(
                    f"{store.folder} searches no words, and the recipe retrieves by nothing else; set retrieve, vectors"
                )
            notify(f"{store.folder} searches no words ({store.engine.title}): vectors alone find candidates")

    def refresh(self, *, keep: bool = False) -> Indexes:
        self.store.look_again()
        vectors = EngineVectors(self.store, self._tell_limit) if VECTORS in self.store.views() else None
        return Indexes(self._words, vectors, None)

    def _tell_limit(self) -> None:
        """Once: a search that goes so deep is seldom the only one."""
        if not self._told_limit:
            self._told_limit = True
            title, most = self.store.engine.title, self.store.engine.limits.k
            self._notify(f"{title} gives {most:,} passages for a search at most: what stands behind them was not looked at")

    def complete(self) -> None:
        self.store.engine.settle()

    def tidy(self) -> None:
        pass

    def remake(self, error: IndexDamagedError) -> None:
        raise error

    def rebuild(self) -> None:
        gone = self.store.finish()
        self._notify(
            f"{counted(gone, 'row')} that interrupted updates had left {'was' if gone == 1 else 'were'} removed; "
            f"the indexes are {self.store.engine.title}'s own"
        )

    def close(self) -> None:
        pass

    def status(self) -> tuple[IndexStatus, ...]:
        """The first one also says what there is to say of the engine."""
        engine = self.store.engine
        told = ", ".join(f"{name} {value}" for name, value in engine.describe().items())
        told += f"; twinrank was run with {engine.title} {engine.proven}"
        names = [name for name in (VECTORS, TOKENS) if name in self.store.views()] + ["words"] * self.store.engine.words
        passages = self.store.count_passages()
        return tuple(IndexStatus(name, True, 0, passages, 0, "" if place else told) for place, name in enumerate(names))

    def check(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return (f"every row in {self.store.engine.title}",), ()


def check_recipe(recipe: Recipe, where: str) -> None:
    """Raises RecipeError for what no engine does."""
    if recipe.retrieve.tokens:
        raise RecipeError(
            f"[retrieve] tokens = {recipe.retrieve.tokens} searches all token vectors, which {where} "
            'cannot; leave it 0, and rerank by [[rerank]] kind = "maxsim"'
        )


def within(store: EngineStore, search: Search, k: int, allowed: Keys | None, tell_limit: Callable[[], None]) -> Ranking:
    """The best `k` among what is allowed: keys, or the condition of a Selection, of which more may pass than should.

    `tell_limit` is called where there may be more, and the engine gives no more.
    """
    engine, most = store.engine, store.engine.limits.k
    condition = allowed.condition if isinstance(allowed, Selection) else None
    if condition is None or engine.exact(condition):
        keys = None if isinstance(allowed, Selection) else allowed
        if keys is not None and not len(keys):
            return Ranking.empty()
        found = search(min(k, most), condition, keys)
        if len(found) == most < k:
            tell_limit()
        return found
    depth = k
    while True:
        depth = min(DEEPER * depth, most)
        found = search(depth, condition, None)
        passing = store.meeting(condition, found.keys)
        if passing.sum() >= k or len(found) < depth or depth == most:
            if passing.sum() < k and len(found) == most:
                tell_limit()
            return Ranking(found.keys[passing], found.scores[passing]).top(k)


class EngineVectors:
    """One vector a passage, searched by the engine."""

    def __init__(self, store: EngineStore, tell_limit: Callable[[], None]) -> None:
        self.store = store
        self._tell_limit = tell_limit

    def __len__(self) -> int:
        return self.store.count_passages()

    @property
    def keys(self) -> Keys:
        drawn: list[int] = []
        for rows in self.store.engine.iterate():
            drawn += [row.key for row in rows]
            if len(drawn) >= DRAWN:
                break
        return np.array(drawn[:DRAWN], np.int64)

    @property
    def plan(self) -> str:
        return ""

    def search(self, vector: npt.ArrayLike, k: int, allowed: Keys | None = None) -> Ranking:
        asked = np.asarray(vector, np.float32)
        if not np.isfinite(asked).all():
            raise InputError("the query's vector holds NaN or infinity")
        ask = partial(self.store.engine.search_vectors, asked)
        return within(self.store, ask, k, allowed, self._tell_limit)

    def vectors(self, keys: npt.ArrayLike) -> Vectors:
        return self.store.vectors(VECTORS, keys)


class EngineWords:
    """BM25 by the engine."""

    def __init__(self, store: EngineStore, tell_limit: Callable[[], None]) -> None:
        self.store = store
        self._tell_limit = tell_limit

    def search(self, terms: Sequence[str], k: int, allowed: Keys | None = None) -> Ranking:
        engine = self.store.engine
        if not terms or not engine.words:
            return Ranking.empty()
        return within(self.store, partial(engine.search_words, terms), k, allowed, self._tell_limit)

    def bound(self, terms: Sequence[str]) -> float | None:
        return self.store.engine.words_bound(terms) if terms and self.store.engine.words else None

    def explain(self, terms: Sequence[str], key: int) -> list[tuple[str, float]]:
        return scores_of_terms(self, terms, key)

    def facts(self, term: str, key: int) -> TermFacts:
        """An engine does not tell how rare a term is, which is 0 here; how often it stands in a passage is counted."""
        passages = self.store.passages([key])
        times = self.store.analyzer(passages[0].titled_text).count(term) if passages else 0
        return TermFacts(0, 0.0, times)
