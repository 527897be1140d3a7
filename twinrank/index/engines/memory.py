"""An engine within this process, gone with it (memory:///NAME): the plainest that passes the exam, to test by and imitate."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from twinrank.conditions import meets
from twinrank.errors import EngineError
from twinrank.index.engines.address import Address
from twinrank.index.engines.protocol import Layout, Limits, Row
from twinrank.types import Condition, Keys, Ranking, Vectors

K1, B = 1.2, 0.75


@dataclass
class _Kept:
    """What one name stands for."""

    layout: Layout
    rows: dict[int, Row] = field(default_factory=dict)
    meta: dict[str, str] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)


KEPT: dict[str, _Kept] = {}


class MemoryEngine:
    """Rows in a dictionary, looked at one by one."""

    title: ClassVar[str] = "memory"
    proven: ClassVar[str] = "within this process"
    limits: ClassVar[Limits] = Limits(payload=2**30, document=2**16, k=2**31, dimension=2**20)

    def __init__(self, address: Address) -> None:
        self.address = address
        address.check_options(())

    @property
    def words(self) -> bool:
        return self._kept.layout.words

    @property
    def _kept(self) -> _Kept:
        if self.address.name not in KEPT:
            raise EngineError(f"{self.address}: there is no such collection")
        return KEPT[self.address.name]

    def exists(self) -> bool:
        return self.address.name in KEPT

    def create(self, layout: Layout) -> None:
        KEPT.setdefault(self.address.name, _Kept(layout))

    def drop(self) -> None:
        KEPT.pop(self.address.name, None)

    def describe(self) -> dict[str, str]:
        return {"index": "exact"}

    def get_meta(self, name: str) -> str | None:
        return self._kept.meta.get(name)

    def set_meta(self, name: str, value: str) -> None:
        self._kept.meta[name] = value

    def settle(self) -> None:
        pass

    def close(self) -> None:
        pass

    def upsert(self, rows: Sequence[Row]) -> None:
        with self._kept.lock:
            self._kept.rows |= {row.key: row for row in rows}

    def delete(self, keys: Keys) -> None:
        with self._kept.lock:
            for key in keys.tolist():
                self._kept.rows.pop(key, None)

    def fetch(self, keys: Keys, *, vectors: bool = False) -> dict[int, Row]:
        with self._kept.lock:
            return {key: _shown(self._kept.rows[key], vectors) for key in keys.tolist() if key in self._kept.rows}

    def rows_of(self, documents: Sequence[str], *, vectors: bool = False) -> list[Row]:
        wanted = set(documents)
        with self._kept.lock:
            return [_shown(row, vectors) for row in self._kept.rows.values() if row.document in wanted]

    def count(self, where: Condition | None = None, *, documents: bool = False) -> int:
        return len(self._passing(where, documents=documents))

    def iterate(self, where: Condition | None = None, *, documents: bool = False, vectors: bool = False) -> Iterator[list[Row]]:
        rows = self._passing(where, documents=documents)
        for start in range(0, len(rows), 1000):
            yield [_shown(row, vectors) for row in rows[start : start + 1000]]

    def exact(self, where: Condition) -> bool:
        return True

    def search_vectors(self, vector: Vectors, k: int, where: Condition | None = None, keys: Keys | None = None) -> Ranking:
        rows = [row for row in self._passing(where, keys) if row.vector is not None]
        if not rows:
            return Ranking.empty()
        scores = np.stack([row.vector for row in rows if row.vector is not None]) @ vector  # (rows,)
        return Ranking.of([row.key for row in rows], scores, k)

    def search_words(self, terms: Sequence[str], k: int, where: Condition | None = None, keys: Keys | None = None) -> Ranking:
        with self._kept.lock:
            everything = list(self._kept.rows.values())
        idf = self._idf(terms, everything)
        average = sum(len(row.terms) for row in everything) / max(len(everything), 1)
        scores = {}
        for row in self._passing(where, keys):
            times, spread = Counter(row.terms), K1 * (1 - B + B * len(row.terms) / (average or 1))
            score = sum(idf[term] * times[term] * (K1 + 1) / (times[term] + spread) for term in terms if times[term])
            if score:
                scores[row.key] = score
        return Ranking.of(np.array(list(scores), np.int64), np.array(list(scores.values()), np.float32), k)

    def words_bound(self, terms: Sequence[str]) -> float | None:
        with self._kept.lock:
            idf = self._idf(terms, list(self._kept.rows.values()))
        return sum(idf[term] * (K1 + 1) for term in terms)

    def _idf(self, terms: Sequence[str], rows: Sequence[Row]) -> dict[str, float]:
        holding = {term: sum(term in row.terms for row in rows) for term in set(terms)}
        return {term: float(np.log1p((len(rows) - n + 0.5) / (n + 0.5))) for term, n in holding.items()}

    def _passing(self, where: Condition | None, keys: Keys | None = None, *, documents: bool = False) -> list[Row]:
        with self._kept.lock:
            rows = list(self._kept.rows.values())
        wanted = None if keys is None else set(keys.tolist())
        return [
            row
            for row in rows
            if (wanted is None or row.key in wanted)
            and (not documents or row.number == 0)
            and (where is None or meets(where, row.fields))
        ]


def _shown(row: Row, vectors: bool) -> Row:
    return replace(row, terms=(), vector=row.vector if vectors else None)
