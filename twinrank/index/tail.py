"""What came since a vector file was written: codes in memory, vectors where they are, in the mapped log or in memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from twinrank.scan import Codes, Rows
from twinrank.types import Keys, Vectors


@dataclass(frozen=True)
class Tail:
    """Never changed, only replaced; what a newer one adds lies beyond what an older one looks at."""

    alive: npt.NDArray[np.bool_]  # (rows,)
    room: Codes  # (room, dimension): the first rows count
    room_keys: Keys  # (room,)
    parts: list[Vectors]  # each (some, dimension), shared with older and newer ones, and only added to
    starts: npt.NDArray[np.int64]  # (parts,): the row that each begins with

    @classmethod
    def empty(cls, dimension: int) -> Tail:
        nothing = np.empty(0, np.float32)
        return cls(
            np.empty(0, np.bool_),
            Codes(np.empty((0, dimension), np.int8), nothing, nothing),
            np.empty(0, np.int64),
            [],
            np.empty(0, np.int64),
        )

    def __len__(self) -> int:
        """Rows, dead ones included."""
        return len(self.alive)

    @property
    def codes(self) -> Codes:
        return self.room.first(len(self))

    @property
    def keys(self) -> Keys:
        return self.room_keys[: len(self)]

    def with_added(self, keys: Keys, vectors: Vectors, codes: Codes) -> Tail:
        if not len(keys):
            return self
        start, end = len(self), len(self) + len(keys)
        room = Codes(*(_with_room(old, end) for old in (self.room.codes, self.room.scales, self.room.errors)))
        room_keys = _with_room(self.room_keys, end)
        room.codes[start:end], room.scales[start:end], room.errors[start:end] = codes.codes, codes.scales, codes.errors
        room_keys[start:end] = keys
        starts = np.append(self.starts, start)
        self.parts.append(vectors)
        alive = np.append(self.alive, np.ones(len(keys), np.bool_))
        return Tail(alive, room, room_keys, self.parts, starts)

    def without(self, keys: Keys) -> Tail:
        """`keys` ascending and not empty."""
        gone = self.alive & is_in(self.keys, keys)
        return replace(self, alive=self.alive & ~gone) if gone.any() else self

    def rows_of(self, keys: Keys) -> Rows:
        """The live row of each of these ascending keys, or -1."""
        rows = np.full(len(keys), -1, np.int64)
        if len(keys) and len(self):
            alive = np.flatnonzero(self.alive)
            alive = alive[is_in(self.keys[alive], keys)]
            rows[np.searchsorted(keys, self.keys[alive])] = alive
        return rows

    def take(self, rows: Rows) -> Vectors:
        """The vectors at `rows` (n,): (n, dimension)"""
        found = np.empty((len(rows), self.room.codes.shape[1]), np.float32)
        places = np.searchsorted(self.starts, rows, side="right") - 1
        for place in np.unique(places).tolist():
            here = places == place
            found[here] = self.parts[place][rows[here] - self.starts[place]]
        return found


def is_in(keys: Keys, wanted: Keys) -> npt.NDArray[np.bool_]:
    """Which of `keys` are among `wanted`, ascending and not empty."""
    places = np.minimum(np.searchsorted(wanted, keys), len(wanted) - 1)
    return np.asarray(wanted[places] == keys)


def _with_room(array: npt.NDArray[Any], rows: int) -> npt.NDArray[Any]:
    if rows <= len(array):
        return array
    larger = np.empty((max(rows, 2 * len(array), 64), *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger
