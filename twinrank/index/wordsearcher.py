"""What a word index committed, as it is searched by tantivy: the best passages of a query, and what a score is made of."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tantivy

from twinrank.index.wordfiles import translated
from twinrank.types import Keys, Ranking, Scores

FEW = 0.02  # up to this share of all passages a filter is part of the query; above, the ranking is filtered


class Statistics(NamedTuple):
    """Of the passages in the files, with those that were removed and are not merged away yet."""

    passages: int
    average: float
    """Their length in terms."""


class WordSearcher:
    """One committed state; never changes."""

    def __init__(self, folder: Path, index: tantivy.Index) -> None:
        self.folder = folder
        self._schema = index.schema
        with translated(folder):
            self._searcher = index.searcher()
        self._statistics: Statistics | None = None

    def __len__(self) -> int:
        return int(self._searcher.num_docs)

    def search(self, weights: Mapping[str, float], k: int, allowed: Keys | None, hidden: Keys) -> Ranking:
        """The `k` best passages for weighted terms, of those in `allowed` where given, without the hidden; both ascending."""
        total = len(self)
        if not total or not weights:
            return Ranking.empty()
        with translated(self.folder):
            query = self._any_of(weights)
            share = 1.0
            if allowed is not None:
                share = min(1.0, len(allowed) / total)
                if share <= FEW:
                    query = self._among(query, allowed)
                    allowed, share = None, 1.0
            return self._first(query, min(k, total), allowed, hidden, share)

    def _first(self, query: tantivy.Query, k: int, allowed: Keys | None, hidden: Keys, share: float) -> Ranking:
        """The first k by score, then key. tantivy breaks ties by its own order, so we ask for more until a tie is whole."""
        total = len(self)
        limit = min(total, int(k / share * 1.2) + 16)
        while True:
            hits = self._searcher.search(query, limit, count=False).hits
            scores: Scores = np.array([score for score, _ in hits], dtype=np.float32)
            keys = self._keys(hits)
            passing = ~is_in(keys, hidden) if allowed is None else is_in(keys, allowed) & ~is_in(keys, hidden)
            kept = np.flatnonzero(passing)
            everything = len(hits) < limit or limit == total
            if everything or (len(kept) >= k and scores[-1] < scores[kept[k - 1]]):
                return Ranking.of(keys[kept], scores[kept], k)
            limit = min(total, limit * 4)

    def holding(self, term: str) -> int:
        """How many passages hold the term."""
        with translated(self.folder):
            return int(self._searcher.doc_freq("terms", term))

    def times(self, term: str, key: int) -> int:
        """How often the term stands in this passage."""
        with translated(self.folder):
            query = self._any_of({term: 1.0})
            hits = self._searcher.search(self._among(query, np.array([key])), 1, count=False).hits
            return int(self._explained(query, hits)["freq"]) if hits else 0

    def there(self, keys: list[int]) -> Keys:
        """Those of the keys that are here, ascending."""
        if not keys or not len(self):
            return np.empty(0, np.int64)
        with translated(self.folder):
            query = tantivy.Query.term_set_query(self._schema, "key", keys)
            return np.sort(self._keys(self._searcher.search(query, len(keys), count=False).hits))

    def statistics(self, terms: Iterable[str]) -> Statistics:
        """What tantivy computes with; it tells that of a term which a passage holds, such as one of `terms`."""
        if self._statistics is None:
            self._statistics = Statistics(0, 0.0)
            with translated(self.folder):
                for term in self._terms_to_ask(terms):
                    query = self._any_of({term: 1.0})
                    if hits := self._searcher.search(query, 1, count=False).hits:
                        values = self._explained(query, hits)
                        self._statistics = Statistics(int(values["N"]), values["avgdl"])
                        break
        return self._statistics

    def _terms_to_ask(self, terms: Iterable[str]) -> Iterator[str]:
        if len(self):
            yield from terms
            yield from (term for term, _ in self._searcher.terms_with_prefix("terms", ""))  # reads all: seldom needed

    def _keys(self, hits: list[Any]) -> Keys:
        return np.array(self._searcher.fast_field_values("key", [address for _, address in hits]), dtype=np.int64)

    def _explained(self, query: tantivy.Query, hits: list[Any]) -> dict[str, float]:
        return dict(_values(json.loads(query.explain(self._searcher, hits[0][1]).to_json())))

    def _any_of(self, weights: Mapping[str, float]) -> tantivy.Query:
        queries = []
        for term, weight in weights.items():
            query = tantivy.Query.term_query(self._schema, "terms", term, "freq")
            queries.append((tantivy.Occur.Should, query if weight == 1 else tantivy.Query.boost_query(query, weight)))
        return tantivy.Query.boolean_query(queries)

    def _among(self, query: tantivy.Query, keys: Keys) -> tantivy.Query:
        chosen = tantivy.Query.term_set_query(self._schema, "key", keys.tolist())
        silent = tantivy.Query.const_score_query(chosen, 0.0)  # a filter adds nothing to the score
        return tantivy.Query.boolean_query([(tantivy.Occur.Must, silent), (tantivy.Occur.Must, query)])


def is_in(keys: Keys, some: Keys) -> npt.NDArray[np.bool_]:
    """Which of `keys` are among `some`, which is ascending."""
    if not len(some):
        return np.zeros(len(keys), np.bool_)
    places = np.minimum(np.searchsorted(some, keys), len(some) - 1)
    return np.asarray(some[places] == keys)


def _values(told: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The names (up to the first comma or blank) and values in tantivy's explanation of a score, from the outside in."""
    yield re.split("[, ]", told["description"])[0], float(told["value"])
    for part in told.get("details") or ():
        yield from _values(part)
