"""One vector a passage, searched exactly or approximately: a mapped file, a log of what changed since, planned filters."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt

from twinrank.engine import default_threads
from twinrank.errors import IndexDamagedError, InputError
from twinrank.index.approximate import Approximate
from twinrank.index.backends import is_installed
from twinrank.index.changelog import Change, ChangeLog
from twinrank.index.distances import near_by_distance
from twinrank.index.planner import Plan, filtered_breadth, plan, plan_again
from twinrank.index.settings import Kind, VectorIndexSettings
from twinrank.index.tail import Tail
from twinrank.index.vectorfile import BLOCK_ROWS, Header, Metric, VectorFile, checked, write_vectors
from twinrank.scan import Codes, Rows, ask, may_belong, quantize, reach, top
from twinrank.types import Keys, Ranking, Vectors

CHANGED_SHARE = 0.25  # changes beyond this share of the file are worth writing it anew
CHANGED_LEAST = 1000
MOST_RECORDS = 8192  # of the log, which is read whole when it is opened
FEW_DEAD = 1000  # up to so many dead rows are scanned along; beyond, they are left out

Settings = VectorIndexSettings


@dataclass(frozen=True)
class _State:
    """What one search sees: never changed, only replaced. Rows are counted through the file and on through the tail."""

    file: VectorFile
    alive: npt.NDArray[np.bool_]  # (rows of the file,)
    dead: int
    tail: Tail
    longest: float
    """No vector is longer, and neither is what stands for it in int8."""
    near: Approximate | None

    @property
    def live(self) -> int:
        return len(self.file) - self.dead + int(self.tail.alive.sum())

    @property
    def changed(self) -> int:
        return len(self.tail) + self.dead


@dataclass(frozen=True)
class _Passing:
    """The live rows that may be found, ascending; None for the file's means all that are live."""

    rows: Rows | None
    tail: Rows


class VectorIndex:
    """Passages by vector; the true top k, as float64 would rank them, unless an approximate index was asked for.

    The file holds the vectors as of one change of the store, the log beside it what changed since, and where the settings want
    one, there is an approximate index of the file. When the changes outgrow a quarter of the file, `save` writes it anew.
    May be searched by several threads while another changes it.
    """

    def __init__(self, file: VectorFile, settings: Settings, threads: int | None) -> None:
        """Use `VectorIndex.build` or `VectorIndex.open`."""
        self.path = file.path
        self.settings = settings
        self.threads = threads or default_threads()
        self.dimension: int = file.header.dimension
        self.metric: Metric = file.header.metric
        self.stamp: str = file.header.stamp
        self.saved_sequence: int = file.header.sequence
        """The change of the store that is on disk."""
        self._lock = threading.Lock()
        self._said = threading.local()
        self._log = ChangeLog(self.path, file.header.identity, self.dimension)
        alive = np.ones(len(file), np.bool_)
        self._state = _State(file, alive, 0, Tail.empty(self.dimension), file.header.longest, None)
        for change in self._log.read():
            self._take_in(change.removed, change.keys, change.vectors, change.codes)
            self.saved_sequence = change.sequence
        self.sequence: int = self.saved_sequence
        """The change of the store that the index reflects; the caller moves it on."""
        self._unsaved: dict[int, bool] = {}
        """Keys that changed since the last save: whether each is there now."""
        if self._kind != "exact":
            self._state = replace(self._state, near=Approximate.open(file, settings))

    @classmethod
    def build(
        cls,
        path: str | Path,
        dimension: int,
        batches: Iterable[tuple[Keys, Vectors]],
        sequence: int,
        *,
        metric: Metric = "cosine",
        stamp: str = "",
        settings: Settings | None = None,
        threads: int | None = None,
        near: bool = True,
    ) -> VectorIndex:
        """Write the file from batches of keys (n,), ascending throughout, and vectors (n, dimension); holds one at a time.

        `stamp` names what made the vectors: opening with another one says that the index is stale. Raises InputError for
        vectors that cannot be searched, StorageError where the disk is full; whatever stood at `path` stays then. An
        approximate index that the settings want is built too, unless `near` leaves it to `build_near`.
        """
        if metric not in get_args(Metric):
            raise InputError(f"there is no metric {metric!r}; it is one of {', '.join(get_args(Metric))}")
        if dimension < 1:
            raise InputError(f"the dimension is {dimension}; at least 1 was expected")
        write_vectors(Path(path), Header(dimension, metric, stamp, sequence), batches)
        index = cls.open(path, stamp=stamp, settings=settings, threads=threads)
        index._log.remove()
        if near:
            index.build_near()
        return index

    @classmethod
    def open(
        cls, path: str | Path, *, stamp: str = "", settings: Settings | None = None, threads: int | None = None
    ) -> VectorIndex:
        """Map the file into memory and read the log. Raises IndexDamagedError where it is missing, torn or made with another
        stamp.

        What is read later is checked then; `verify` reads everything. An approximate index that is missing or damaged leaves
        the search exact; `wants_save` then says so.
        """
        file = VectorFile.open(Path(path))
        if file.header.stamp != stamp:
            raise IndexDamagedError(f"{path} was built from other vectors ({file.header.stamp!r}, not {stamp!r})")
        return cls(file, settings or Settings(), threads)

    def __len__(self) -> int:
        return self._state.live

    @property
    def keys(self) -> Keys:
        """The keys of all passages in the index, ascending."""
        state = self._state
        return np.sort(np.concatenate([state.file.keys[state.alive], state.tail.keys[state.tail.alive]]))

    @property
    def kind(self) -> str:
        """How it is searched now: exact, or by which approximate index."""
        near = self._state.near
        return "exact" if near is None else near.kind

    @property
    def recall(self) -> float | None:
        """The share of the true 10 nearest that the approximate index found when it was built; None where search is exact."""
        near = self._state.near
        return None if near is None else near.recall

    @property
    def summary(self) -> str:
        """How it is searched, in words."""
        near = self._state.near
        if near is None:
            return "exact" if self._kind == "exact" else f"exact, until its {self._kind} index is built"
        return f"{near.kind}, recall@10 {near.recall:.3f} (measured on {near.tuned.queries})"

    # Searching

    def search(self, vector: npt.ArrayLike, k: int, allowed: Keys | None = None) -> Ranking:
        """The `k` nearest passages to `vector` (dimension,); of those in `allowed` only, where given.

        Scores are the metric's, computed in float64 and rounded; equal scores stand with the larger key first. Raises
        IndexDamagedError where something that it reads is not what was written.
        """
        query = self._checked_query(vector)
        state = self._state
        if k < 1 or (allowed is not None and len(allowed) == 0):
            return Ranking.empty()
        passing = self._passing(state, None if allowed is None else _ascending(allowed))
        rows, done = self._candidates(state, query, k, passing)
        self._said.plan = done
        return Ranking.of(self._keys(state, rows), self._score_exactly(self._take(state, rows), query), k)

    @property
    def plan(self) -> str:
        """What this thread's last search did, in words; empty before the first."""
        return str(getattr(self._said, "plan", ""))

    def explain(self, k: int, allowed: Keys | None = None) -> str:
        """What a search for `k` passages would begin with, in words."""
        state = self._state
        passing = self._passing(state, None if allowed is None else _ascending(allowed))
        return str(self._first_plan(state, k, passing))

    def measure(self, queries: Vectors, k: int = 10) -> float:
        """The share of the true `k` nearest of these queries (n, dimension) that a search finds; 1 where it is exact."""
        state, found = self._state, 0
        everything = self._passing(state, None)
        for query in queries:
            truth = Ranking.of(*self._scored(state, self._scan(state, self._checked_query(query), k, everything), query), k)
            found += int(np.isin(truth.keys, self.search(query, k).keys).sum())
        return found / max(1, len(queries) * min(k, state.live))

    def vectors(self, keys: npt.ArrayLike) -> Vectors:
        """The vectors of `keys` (n, dimension), in that order; raises InputError for a key that is not in the index."""
        state = self._state
        wanted = np.atleast_1d(np.asarray(keys, dtype=np.int64))
        unique, places = np.unique(wanted, return_inverse=True)
        rows = self._rows_of(state, unique)[places]
        missing = np.unique(wanted[rows < 0])
        if len(missing):
            raise InputError(f"passage {missing[0]} is not in the index ({len(missing)} of {len(wanted)} are not)")
        return self._take(state, rows)

    def _checked_query(self, vector: npt.ArrayLike) -> npt.NDArray[np.float32]:
        query = np.ascontiguousarray(vector, dtype=np.float32)
        if query.shape != (self.dimension,):
            raise InputError(f"the query's vector has shape {query.shape}; the index holds vectors of ({self.dimension},)")
        if not np.isfinite(query).all():
            raise InputError("the query's vector holds NaN or infinity")
        return query

    def _passing(self, state: _State, allowed: Keys | None) -> _Passing:
        if allowed is None:
            return _Passing(None, np.flatnonzero(state.tail.alive))
        rows = state.file.rows_of(allowed)
        rows = rows[rows >= 0]
        if state.dead:
            rows = rows[state.alive[rows]]
        tail = state.tail.rows_of(allowed)
        return _Passing(None if len(rows) == len(state.file) - state.dead else rows, np.sort(tail[tail >= 0]))

    def _first_plan(self, state: _State, k: int, passing: _Passing) -> Plan:
        live = len(state.file) - state.dead
        return plan(k, live if passing.rows is None else len(passing.rows), live, state.near)

    def _candidates(self, state: _State, query: npt.NDArray[np.float32], k: int, passing: _Passing) -> tuple[Rows, Plan]:
        """(rows that hold the top k, or most of it where an approximate index is asked; what was done)"""
        done = self._first_plan(state, k, passing)
        near = state.near
        if done.how == "scan" or near is None:
            return self._scan(state, query, k, passing), done
        filtered = passing.rows is not None
        rows = self._near(state, near, query, done.depth, filtered_breadth(near, done.depth) if filtered else 0)
        if passing.rows is not None:
            rows = rows[_is_among(rows, passing.rows)]
            again = plan_again(k, done, len(rows), near)
            if again is not None and again.how == "filtered graph":
                mask = np.zeros(len(state.file), np.bool_)
                mask[passing.rows] = True
                rows, done = near.find(query, k, mask, filtered_breadth(near, again.depth)), again
        if len(rows) < min(k, done.passing):
            return self._scan(state, query, k, passing), replace(done, how="scan")
        if not len(passing.tail):
            return rows, done
        tail = self._scan(state, query, k, _Passing(np.empty(0, np.int64), passing.tail))
        return np.concatenate([rows, tail]), done

    def _near(self, state: _State, near: Approximate, query: npt.NDArray[np.float32], depth: int, breadth: int) -> Rows:
        """Live rows near the query, `depth` of them and a few more."""
        if not state.dead:
            return near.find(query, depth, None, breadth)
        if near.filters:
            return near.find(query, depth, state.alive, breadth)
        rows = near.find(query, depth * len(state.file) // (len(state.file) - state.dead), None, breadth)
        return rows[state.alive[rows]]

    def _scan(self, state: _State, query: npt.NDArray[np.float32], k: int, passing: _Passing) -> Rows:
        """Rows among which the true top k are."""
        rows = passing.rows
        if rows is None and state.dead > FEW_DEAD:
            rows = np.flatnonzero(state.alive)
        question = None if self.metric == "euclidean" else ask(query, state.longest)
        if question is None:
            return self._scan_without_codes(state, query, k, _Passing(rows, passing.tail))
        dead = state.dead if rows is None else 0
        found, scores, slack = np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.float32)
        if rows is None or len(rows):
            found, scores, slack = may_belong(state.file.codes, question, k + dead, rows, self.threads)
        if dead:
            kept = state.alive[found]
            found, scores, slack = found[kept], scores[kept], slack[kept]
        if len(passing.tail):
            more = may_belong(state.tail.codes, question, k, passing.tail, self.threads)
            found = np.concatenate([found, more[0] + len(state.file)])
            scores, slack = np.concatenate([scores, more[1]]), np.concatenate([slack, more[2]])
        return found[top(scores, slack, k)]

    def _scan_without_codes(self, state: _State, query: npt.NDArray[np.float32], k: int, passing: _Passing) -> Rows:
        rows = np.flatnonzero(state.alive) if passing.rows is None else passing.rows
        rows = np.concatenate([rows, passing.tail + len(state.file)])
        if self.metric != "euclidean":  # products that float32 cannot tell apart: all are scored in float64
            return rows
        return near_by_distance(lambda part: self._take(state, part), rows, query, k, state.longest)

    def _score_exactly(self, vectors: Vectors, query: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        wide, wide_query = vectors.astype(np.float64), query.astype(np.float64)
        if self.metric != "euclidean":
            return np.asarray(np.einsum("rd,d->r", wide, wide_query))
        return np.asarray(-np.square(wide - wide_query).sum(axis=1))

    def _scored(self, state: _State, rows: Rows, query: npt.NDArray[np.float32]) -> tuple[Keys, npt.NDArray[np.float64]]:
        return self._keys(state, rows), self._score_exactly(self._take(state, rows), query)

    def _keys(self, state: _State, rows: Rows) -> Keys:
        below = len(state.file)
        if not len(state.tail):
            return state.file.keys[rows]
        keys = np.empty(len(rows), np.int64)
        in_file = rows < below
        keys[in_file] = state.file.keys[rows[in_file]]
        keys[~in_file] = state.tail.keys[rows[~in_file] - below]
        return keys

    def _take(self, state: _State, rows: Rows) -> Vectors:
        below = len(state.file)
        if not len(state.tail):
            return state.file.take(rows)
        found = np.empty((len(rows), self.dimension), np.float32)
        in_file = rows < below
        found[in_file] = state.file.take(rows[in_file])
        found[~in_file] = state.tail.take(rows[~in_file] - below)
        return found

    def _rows_of(self, state: _State, keys: Keys) -> Rows:
        """The live row of each of these ascending keys, or -1."""
        rows = state.file.rows_of(keys)
        if state.dead:
            rows = np.where((rows >= 0) & state.alive[rows], rows, -1)
        tail = state.tail.rows_of(keys)
        return np.where(tail >= 0, tail + len(state.file), rows)

    # Changing

    def add(self, keys: npt.ArrayLike, vectors: npt.ArrayLike) -> None:
        """Add vectors (n, dimension) by key (n,); a passage that is there is replaced; of a key given twice the last counts.

        Raises InputError for another dimension, NaN and zero vectors.
        """
        key_array, matrix = checked(keys, vectors, self.dimension)
        last = len(key_array) - 1 - np.unique(key_array[::-1], return_index=True)[1]
        key_array, matrix = key_array[last], matrix[last]
        codes = quantize(matrix)
        with self._lock:
            self._take_in(key_array, key_array, matrix, codes)
            self._unsaved.update(dict.fromkeys(key_array.tolist(), True))

    def remove(self, keys: npt.ArrayLike) -> None:
        """Remove passages; keys that are not there are passed over."""
        key_array = np.unique(np.atleast_1d(np.asarray(keys, dtype=np.int64)))
        with self._lock:
            there = key_array[self._rows_of(self._state, key_array) >= 0]
            self._take_in(there)
            # Those too that are not here: another process may have added them to the log on disk.
            self._unsaved.update(dict.fromkeys(key_array.tolist(), False))

    def _take_in(
        self, removed: Keys, keys: Keys | None = None, vectors: Vectors | None = None, codes: Codes | None = None
    ) -> None:
        """Remove, then add; what is added is not there any more."""
        state = self._state
        gone = np.unique(removed)
        if len(gone):
            rows = state.file.rows_of(gone)
            rows = rows[rows >= 0]
            rows = rows[state.alive[rows]]
            if len(rows):
                alive = state.alive.copy()
                alive[rows] = False
                state = replace(state, alive=alive, dead=state.dead + len(rows))
            state = replace(state, tail=state.tail.without(gone))
        if keys is not None and vectors is not None and codes is not None and len(keys):
            longest = max(state.longest, reach(vectors, codes))
            state = replace(state, tail=state.tail.with_added(keys, vectors, codes), longest=longest)
        self._state = state

    # Saving

    @property
    def unsaved(self) -> int:
        """How many passages changed since the last save."""
        return len(self._unsaved)

    @property
    def wants_save(self) -> bool:
        """Whether `save` would do more than write down a sequence number: changes, or an approximate index to be built."""
        return bool(self._unsaved) or self._is_outgrown or self.wants_near

    def save(self, sequence: int, *, force: bool = False, near: bool = True) -> bool:
        """The index now reflects change `sequence`; write down what changed. True where the file was written anew.

        One process at a time may save. Usually a record is added to the log, at a cost in proportion to the change. Where the
        changes outgrow a quarter of the file, or `force` asks for it, the file is written anew. An approximate index that
        then lacks is built, unless `near` leaves it to `build_near`.
        Raises StorageError where the disk is full; the index then goes on in memory, and what is on disk is of an older
        sequence.
        """
        self.sequence = sequence
        with self._lock:
            anew = force or self._is_outgrown
            if anew:
                self._write_anew(sequence)
            else:
                self._append(sequence)
        if near and self.wants_near:
            self.build_near()
        return anew

    @property
    def _kind(self) -> Kind:
        """What the settings want of the file as it is."""
        kind = self.settings.resolved(len(self._state.file), self.dimension)
        return "exact" if self.settings.kind == "auto" and not is_installed("faiss") else kind

    @property
    def _is_outgrown(self) -> bool:
        most = max(CHANGED_LEAST, CHANGED_SHARE * len(self._state.file))
        return self._state.changed > most or self._log.records > MOST_RECORDS

    @property
    def wants_near(self) -> bool:
        """Whether the settings want an approximate index that is not there; until it is, search is exact."""
        near = self._state.near
        return self._kind != "exact" and (near is None or not near.fits(self._kind, self.settings))

    def _append(self, sequence: int) -> None:
        if sequence <= self.saved_sequence and not self._unsaved:
            return
        try:
            disk = VectorFile.read_header(self.path)
        except IndexDamagedError:
            self._write_anew(sequence)
            return
        if disk.identity != self._log.identity:  # another process wrote the file anew; what changed here goes on from there
            self._log = ChangeLog(self.path, disk.identity, self.dimension)
            self.saved_sequence = disk.sequence
        self.saved_sequence = self._log.last_sequence() or self.saved_sequence
        if self.saved_sequence < sequence:
            changed = np.array(sorted(self._unsaved), np.int64)
            added = changed[[self._unsaved[key] for key in changed.tolist()]] if len(changed) else changed
            vectors = self.vectors(added)
            self._log.append(Change(sequence, changed, added, vectors, quantize(vectors)))
            self.saved_sequence = sequence
        self._unsaved = {}

    def _write_anew(self, sequence: int) -> None:
        """The file as the index is now, without a log; called with the lock held."""
        header = Header(self.dimension, self.metric, self.stamp, sequence)
        write_vectors(self.path, header, self._batches(self._state))
        index = VectorIndex.open(self.path, stamp=self.stamp, settings=self.settings, threads=self.threads)
        index._log.remove()
        if index._kind == "exact":
            Approximate.remove(self.path)
        self._state, self._log, self._unsaved = index._state, index._log, {}
        self.saved_sequence = sequence

    def build_near(self) -> None:
        """Build the approximate index that the settings want, or take up one that another process built.

        It is of the file as it stands: searches, changes and saves go on meanwhile, and what changed is searched beside it.
        Where the file was written anew before it was done, it comes to nothing. Raises MissingExtraError where its library is
        missing, StorageError where the disk is full.
        """
        file, kind = self._state.file, self._kind
        near = None
        if kind == "exact":
            Approximate.remove(self.path)
        else:
            near = Approximate.open(file, self.settings)
            if near is None or not near.fits(kind, self.settings):
                whole = _State(file, np.ones(len(file), np.bool_), 0, Tail.empty(self.dimension), file.header.longest, None)
                near = Approximate.build(file, kind, self.settings, partial(self._true_rows, whole), self.threads)
        with self._lock:
            if self._state.file is file:
                self._state = replace(self._state, near=near)

    def _true_rows(self, state: _State, query: npt.NDArray[np.float32], k: int) -> Rows:
        rows = self._scan(state, query, k, _Passing(None, np.empty(0, np.int64)))
        return Ranking.of(rows, self._score_exactly(state.file.vectors[rows], query), k).keys

    def _batches(self, state: _State) -> Iterator[tuple[Keys, Vectors]]:
        keys = np.concatenate([state.file.keys, state.tail.keys])
        rows = np.flatnonzero(np.concatenate([state.alive, state.tail.alive]))
        rows = rows[np.argsort(keys[rows], kind="stable")]
        for start in range(0, len(rows), BLOCK_ROWS):
            part = rows[start : start + BLOCK_ROWS]
            yield keys[part], self._take(state, part)

    # Upkeep

    def verify(self) -> list[str]:
        """Every problem of what is on disk, in words: reads all of it and compares the checksums."""
        try:
            file = VectorFile.open(self.path)
        except IndexDamagedError as error:
            return [str(error)]
        near = self._state.near
        return [
            *file.verify(),
            *ChangeLog(self.path, file.header.identity, self.dimension).verify(),
            *([] if near is None else near.verify()),
        ]

    def size(self) -> int:
        """Bytes on disk, with the log and the approximate index."""
        near = self._state.near
        return self.path.stat().st_size + self._log.size() + (0 if near is None else near.size())


def _ascending(keys: npt.ArrayLike) -> Keys:
    array = np.asarray(keys, dtype=np.int64)
    return np.unique(array) if (np.diff(array) <= 0).any() else array  # usually from the store, in order


def _is_among(rows: Rows, passing: Rows) -> npt.NDArray[np.bool_]:
    """Which of `rows` are among `passing`, ascending and not empty."""
    places = np.minimum(np.searchsorted(passing, rows), len(passing) - 1)
    return np.asarray(passing[places] == rows)
