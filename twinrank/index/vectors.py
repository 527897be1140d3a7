"""One vector a passage, searched exactly: a file mapped into memory, and what changed since in memory beside it."""

from __future__ import annotations

import json
import os
import threading
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from twinrank.errors import IndexDamagedError, InputError, StorageError
from twinrank.types import Keys, Ranking, Scores, Vectors

Metric: TypeAlias = Literal["cosine", "dot", "euclidean"]
"""`cosine` is `dot` over vectors that their encoder made of length 1; `euclidean` is minus the squared distance."""

MAGIC = b"twrkvec1"
HEADER_BYTES = 4096
BLOCK_ROWS = 4096
SAVED_SHARE = 0.05  # changes beyond this share of the file are worth writing it anew
SAVED_LEAST = 1000
GATHERED_SHARE = 0.1  # up to this share of all passages a filter's rows are gathered; above, all are scanned
ROUNDING = 2.0**-24  # float32's relative error of one operation


@dataclass(frozen=True)
class _State:
    """What one search sees: never changed, only replaced."""

    base: Vectors  # (rows, dimension): the file
    base_keys: Keys  # (rows,), ascending
    base_alive: npt.NDArray[np.bool_]  # (rows,)
    added: Vectors  # (room, dimension): the first len(added_alive) rows count
    added_keys: Keys  # (room,)
    added_alive: npt.NDArray[np.bool_]  # (additions,)
    longest: float
    """The largest norm of any vector."""

    @property
    def live(self) -> int:
        return int(self.base_alive.sum() + self.added_alive.sum())


class VectorIndex:
    """Passages by vector: always the true top k, as float64 would rank them.

    The file holds the vectors as of one change of the store. Additions and removals live in memory, and are written by
    `save` once there are enough of them; until then the next opening takes them from the store again, by its log of changes.
    May be searched by several threads while another changes it.
    """

    def __init__(self, path: Path, header: dict[str, Any], base: Vectors, base_keys: Keys) -> None:
        """Use `VectorIndex.build` or `VectorIndex.open`."""
        self.path = path
        self.dimension: int = header["dimension"]
        self.metric: Metric = header["metric"]
        self.stamp: str = header["stamp"]
        self.saved_sequence: int = header["sequence"]
        """The change of the store that the file reflects."""
        self.sequence: int = header["sequence"]
        """The change of the store that the index reflects; the caller moves it on."""
        self._lock = threading.Lock()
        self._state = _fresh_state(base, base_keys, header["longest"])

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
    ) -> VectorIndex:
        """Write the file from batches of keys (n,), ascending throughout, and vectors (n, dimension); holds one at a time.

        `stamp` names what made the vectors: opening with another one says that the index is stale. Raises InputError for
        vectors that cannot be searched, StorageError where the disk is full; whatever stood at `path` stays then.
        """
        if metric not in get_args(Metric):
            raise InputError(f"there is no metric {metric!r}; it is one of {', '.join(get_args(Metric))}")
        path = Path(path)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
        header = {"dimension": dimension, "sequence": sequence, "metric": metric, "stamp": stamp}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_file(temporary, header, batches)
            temporary.replace(path)
            sync_folder(path.parent)
        except OSError as error:
            raise StorageError(f"{path} cannot be written: {error.strerror}") from error
        finally:
            with suppress(OSError):
                temporary.unlink()
        return cls.open(path, stamp=stamp)

    @classmethod
    def open(cls, path: str | Path, *, stamp: str = "") -> VectorIndex:
        """Map the file into memory. Raises IndexDamagedError where it is missing, torn or made with another stamp.

        The vectors themselves are read when they are searched; `verify` compares their checksums.
        """
        path = Path(path)
        header, base, keys, _ = _map_file(path)
        if header["stamp"] != stamp:
            raise IndexDamagedError(f"{path} was built from other vectors ({header['stamp']!r}, not {stamp!r})")
        return cls(path, header, base, keys)

    def __len__(self) -> int:
        return self._state.live

    @property
    def keys(self) -> Keys:
        """The keys of all passages in the index, ascending."""
        state = self._state
        count = len(state.added_alive)
        return np.sort(np.concatenate([state.base_keys[state.base_alive], state.added_keys[:count][state.added_alive]]))

    # Searching

    def search(self, vector: npt.ArrayLike, k: int, allowed: Keys | None = None) -> Ranking:
        """The `k` nearest passages to `vector` (dimension,); of those in `allowed` only, where given.

        Scores are the metric's, computed in float64 and rounded; equal scores stand with the larger key first.
        """
        query = self._checked_query(vector)
        state = self._state
        if k < 1 or (allowed is not None and len(allowed) == 0):
            return Ranking.empty()
        keys, rows, scores = self._scan(state, query, _ascending(allowed) if allowed is not None else None)
        if len(scores) == 0:
            return Ranking.empty()
        near = np.arange(len(scores))
        if k < len(scores):
            # float32's errors are bounded, so that whatever may belong to the top k is computed again in float64.
            threshold = np.partition(scores, len(scores) - k)[len(scores) - k] - 2 * self._error_bound(state, query)
            near = np.flatnonzero(scores >= threshold)
        near = near[scores[near] > -np.inf]
        exact = self._score_exactly(self._rows(state, rows[near] if rows is not None else near), query)
        return Ranking.of(keys[near], exact, k)

    def vectors(self, keys: npt.ArrayLike) -> Vectors:
        """The vectors of `keys` (n, dimension), in that order; raises InputError for a key that is not in the index."""
        state = self._state
        wanted = np.atleast_1d(np.asarray(keys, dtype=np.int64))
        found_keys, rows = _rows_of(state, np.unique(wanted))
        missing = np.setdiff1d(wanted, found_keys)
        if len(missing):
            raise InputError(f"passage {missing[0]} is not in the index ({len(missing)} of {len(wanted)} are not)")
        return self._rows(state, rows[np.searchsorted(found_keys, wanted)])

    def _checked_query(self, vector: npt.ArrayLike) -> npt.NDArray[np.float32]:
        query = np.asarray(vector, dtype=np.float32)
        if query.shape != (self.dimension,):
            raise InputError(f"the query's vector has shape {query.shape}; the index holds vectors of ({self.dimension},)")
        if not np.isfinite(query).all():
            raise InputError("the query's vector holds NaN or infinity")
        return query

    def _scan(
        self, state: _State, query: npt.NDArray[np.float32], allowed: Keys | None
    ) -> tuple[Keys, npt.NDArray[np.intp] | None, Scores]:
        """Scores in float32: (keys, rows or None for all of them, scores), -inf for what must not be found."""
        if allowed is not None and len(allowed) <= GATHERED_SHARE * state.live:
            keys, rows = _rows_of(state, allowed)
            return keys, rows, self._score(self._rows(state, rows), query)
        count = len(state.added_alive)
        keys, scores, alive = state.base_keys, self._score(state.base, query), state.base_alive
        if count:
            keys = np.concatenate([keys, state.added_keys[:count]])
            scores = np.concatenate([scores, self._score(state.added[:count], query)])
            alive = np.concatenate([alive, state.added_alive])
        if allowed is not None:
            alive = alive & _is_in(keys, allowed)
        scores[~alive] = -np.inf
        return keys, None, scores

    def _score(self, vectors: Vectors, query: npt.NDArray[np.float32]) -> Scores:
        """(rows, dimension), (dimension,) → (rows,)"""
        if self.metric != "euclidean":
            return np.asarray(vectors @ query)
        scores = np.empty(len(vectors), np.float32)
        for start in range(0, len(vectors), BLOCK_ROWS):
            difference = vectors[start : start + BLOCK_ROWS] - query  # (rows, dimension)
            scores[start : start + BLOCK_ROWS] = -np.einsum("rd,rd->r", difference, difference)
        return scores

    def _score_exactly(self, vectors: Vectors, query: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        wide, wide_query = vectors.astype(np.float64), query.astype(np.float64)
        if self.metric != "euclidean":
            return np.asarray(np.einsum("rd,d->r", wide, wide_query))
        return np.asarray(-np.square(wide - wide_query).sum(axis=1))

    def _error_bound(self, state: _State, query: npt.NDArray[np.float32]) -> float:
        """How far a float32 score may lie from the true one, whatever the order of summation (Higham 2002, section 3.1).

        |error| ≤ n·u / (1 - n·u) · Σ |aᵢ·bᵢ|, which is at most that times |a|·|b|; differences are rounded twice more.
        """
        operations = self.dimension + 4
        length = float(np.linalg.norm(query.astype(np.float64)))
        size = state.longest * length if self.metric != "euclidean" else (state.longest + length) ** 2
        tiny = operations * float(np.finfo(np.float32).tiny)  # underflow
        return operations * ROUNDING / (1 - operations * ROUNDING) * size + tiny

    def _rows(self, state: _State, rows: npt.NDArray[np.intp]) -> Vectors:
        """The vectors at `rows`, counted through the file and on through what was added."""
        below = len(state.base)
        found = np.empty((len(rows), self.dimension), np.float32)
        in_base = rows < below
        found[in_base] = state.base[rows[in_base]]
        found[~in_base] = state.added[rows[~in_base] - below]
        return found

    # Changing

    def add(self, keys: npt.ArrayLike, vectors: npt.ArrayLike) -> None:
        """Add vectors (n, dimension) by key (n,); a passage that is there is replaced; of a key given twice the last counts.

        Raises InputError for another dimension, NaN and zero vectors.
        """
        key_array, matrix = _checked(keys, vectors, self.dimension)
        last = len(key_array) - 1 - np.unique(key_array[::-1], return_index=True)[1]
        key_array, matrix = key_array[last], matrix[last]
        with self._lock:
            state = _without(self._state, key_array)
            start, count = len(state.added_alive), len(key_array)
            room, room_keys = _with_room(state.added, start + count), _with_room(state.added_keys, start + count)
            room[start : start + count] = matrix  # beyond what searches under way look at
            room_keys[start : start + count] = key_array
            alive = np.concatenate([state.added_alive, np.ones(count, np.bool_)])
            longest = max(state.longest, _longest(matrix))
            self._state = replace(state, added=room, added_keys=room_keys, added_alive=alive, longest=longest)

    def remove(self, keys: npt.ArrayLike) -> None:
        """Remove passages; keys that are not there are passed over."""
        with self._lock:
            self._state = _without(self._state, np.atleast_1d(np.asarray(keys, dtype=np.int64)))

    def save(self, sequence: int, *, force: bool = False) -> bool:
        """The index now reflects change `sequence`; where enough has changed, write the file anew and say True."""
        self.sequence = sequence
        state = self._state
        changed = len(state.added_alive) + int((~state.base_alive).sum())
        if not force and changed <= max(SAVED_LEAST, SAVED_SHARE * len(state.base)):
            return False
        with self._lock:
            state = self._state
            built = VectorIndex.build(
                self.path, self.dimension, self._batches(state), sequence, metric=self.metric, stamp=self.stamp
            )
            self._state = built._state
            self.saved_sequence = sequence
        return True

    def _batches(self, state: _State) -> Iterator[tuple[Keys, Vectors]]:
        count = len(state.added_alive)
        keys = np.concatenate([state.base_keys, state.added_keys[:count]])
        rows = np.flatnonzero(np.concatenate([state.base_alive, state.added_alive]))
        rows = rows[np.argsort(keys[rows], kind="stable")]
        for start in range(0, len(rows), BLOCK_ROWS):
            part = rows[start : start + BLOCK_ROWS]
            yield keys[part], self._rows(state, part)

    # Upkeep

    def verify(self) -> list[str]:
        """Every problem of the file, in words: reads all of it and compares the checksums."""
        try:
            _, base, _, blocks = _map_file(self.path)
        except IndexDamagedError as error:
            return [str(error)]
        problems, start = [], 0
        for rows, checksum in blocks.tolist():
            if zlib.crc32(base[start : start + rows].data) != checksum:
                problems.append(f"{self.path}: vectors {start} to {start + rows - 1} fail their checksum")
            start += rows
        return problems

    def size(self) -> int:
        """Bytes on disk."""
        return self.path.stat().st_size


def _fresh_state(base: Vectors, base_keys: Keys, longest: float) -> _State:
    dimension = base.shape[1]
    return _State(
        base=base,
        base_keys=base_keys,
        base_alive=np.ones(len(base), np.bool_),
        added=np.empty((0, dimension), np.float32),
        added_keys=np.empty(0, np.int64),
        added_alive=np.empty(0, np.bool_),
        longest=longest,
    )


def _without(state: _State, keys: Keys) -> _State:
    count = len(state.added_alive)
    base_alive, added_alive = state.base_alive, state.added_alive
    wanted = np.unique(keys)
    if len(wanted) and len(state.base_keys):
        places = np.minimum(np.searchsorted(state.base_keys, wanted), len(state.base_keys) - 1)
        places = places[state.base_keys[places] == wanted]
        if len(places):
            base_alive = base_alive.copy()
            base_alive[places] = False
    if len(wanted) and count:
        added_alive = added_alive & ~_is_in(state.added_keys[:count], wanted)
    return replace(state, base_alive=base_alive, added_alive=added_alive)


def _rows_of(state: _State, keys: Keys) -> tuple[Keys, npt.NDArray[np.intp]]:
    """Of these ascending keys those that are in the index, with their rows."""
    count = len(state.added_alive)
    rows = np.full(len(keys), -1, np.intp)
    if len(state.base_keys):
        places = np.minimum(np.searchsorted(state.base_keys, keys), len(state.base_keys) - 1)
        there = (state.base_keys[places] == keys) & state.base_alive[places]
        rows[there] = places[there]
    if count:
        alive = np.flatnonzero(state.added_alive)
        alive = alive[_is_in(state.added_keys[alive], keys)] if len(keys) else alive[:0]
        rows[np.searchsorted(keys, state.added_keys[alive])] = len(state.base) + alive
    return keys[rows >= 0], rows[rows >= 0]


def _is_in(keys: Keys, allowed: Keys) -> npt.NDArray[np.bool_]:
    """Which of `keys` are among `allowed`, ascending and not empty."""
    places = np.minimum(np.searchsorted(allowed, keys), len(allowed) - 1)
    return np.asarray(allowed[places] == keys)


def _ascending(keys: npt.ArrayLike) -> Keys:
    array = np.asarray(keys, dtype=np.int64)
    return np.unique(array) if (np.diff(array) <= 0).any() else array  # usually from the store, in order


def _with_room(array: npt.NDArray[Any], rows: int) -> npt.NDArray[Any]:
    if rows <= len(array):
        return array
    larger = np.empty((max(rows, 2 * len(array), 64), *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger


def _checked(keys: npt.ArrayLike, vectors: npt.ArrayLike, dimension: int) -> tuple[Keys, Vectors]:
    key_array = np.atleast_1d(np.asarray(keys, dtype=np.int64))
    matrix = np.ascontiguousarray(vectors, dtype=np.float32)
    if matrix.shape != (len(key_array), dimension):
        raise InputError(
            f"{len(key_array)} keys came with vectors of shape {matrix.shape}; the index holds vectors of ({dimension},)"
        )
    unfit = ~np.isfinite(matrix).all(axis=1) | ~matrix.any(axis=1)  # (n,)
    if unfit.any():
        raise InputError(f"the vector of passage {key_array[np.argmax(unfit)]} is zero, or holds NaN or infinity")
    return key_array, matrix


def _longest(matrix: Vectors) -> float:
    return float(np.sqrt(np.square(matrix, dtype=np.float64).sum(axis=1).max(initial=0.0)))


# The file: a header of 4,096 bytes (magic, CRC-32 and length of what follows, JSON), the vectors, the keys as int64, and
# for each block of vectors its rows and its CRC-32 as int64. All little endian.


def _write_file(path: Path, header: dict[str, Any], batches: Iterable[tuple[Keys, Vectors]]) -> None:
    all_keys: list[Keys] = []
    blocks: list[tuple[int, int]] = []
    last, longest = -(2**63), 0.0
    with path.open("wb") as file:
        file.write(bytes(HEADER_BYTES))
        for keys, vectors in batches:
            key_array, matrix = _checked(keys, vectors, header["dimension"])
            if len(key_array) == 0:
                continue
            if key_array[0] <= last or (np.diff(key_array) <= 0).any():
                raise InputError(f"the keys are not in ascending order near {key_array[0]}")
            last, longest = int(key_array[-1]), max(longest, _longest(matrix))
            data = matrix.astype("<f4", copy=False).data
            file.write(data)
            blocks.append((len(key_array), zlib.crc32(data)))
            all_keys.append(key_array)
        tail = np.concatenate([*all_keys, np.empty(0, np.int64)]).astype("<i8").tobytes()
        tail += np.array(blocks, dtype="<i8").tobytes()
        file.write(tail)
        count = sum(rows for rows, _ in blocks)
        content = {**header, "count": count, "blocks": len(blocks), "longest": longest, "tail": zlib.crc32(tail)}
        body = json.dumps(content).encode()
        if len(body) > HEADER_BYTES - 16:
            raise InputError(f"the stamp of {len(header['stamp'])} characters is too long")
        file.seek(0)
        file.write(MAGIC + np.array([zlib.crc32(body), len(body)], "<u4").tobytes() + body)
        file.flush()
        os.fsync(file.fileno())


def _map_file(path: Path) -> tuple[dict[str, Any], Vectors, Keys, npt.NDArray[np.int64]]:
    """(header, vectors (count, dimension), keys (count,), blocks (blocks, 2): rows and checksum)"""
    try:
        with path.open("rb") as file:  # once, since another process may put a new file in its place at any time
            header = _read_header(file, path)
            count, dimension = header["count"], header["dimension"]
            file.seek(HEADER_BYTES + 4 * count * dimension)
            tail = file.read()
            if count == 0:
                vectors: Vectors = np.empty((0, dimension), np.float32)
            else:
                vectors = np.memmap(file, dtype="<f4", mode="r", offset=HEADER_BYTES, shape=(count, dimension)).view(np.ndarray)
    except OSError as error:
        raise IndexDamagedError(f"there is no index at {path}: {error.strerror}") from error
    if zlib.crc32(tail) != header["tail"]:
        raise IndexDamagedError(f"{path} is not what was written: its keys fail the checksum")
    keys = np.frombuffer(tail[: 8 * count], "<i8").astype(np.int64)
    blocks = np.frombuffer(tail[8 * count :], "<i8").astype(np.int64).reshape(-1, 2)
    return header, vectors, keys, blocks


def _read_header(file: BinaryIO, path: Path) -> dict[str, Any]:
    start = file.read(HEADER_BYTES)
    checksum, length = np.frombuffer(start[8:16].ljust(8, b"\0"), "<u4").tolist()
    body = start[16 : 16 + length]
    whole = len(start) == HEADER_BYTES and start[:8] == MAGIC and not start[16 + length :].strip(b"\0")
    if not whole or zlib.crc32(body) != checksum:
        raise IndexDamagedError(f"{path} is not what was written: its header fails the checksum")
    header: dict[str, Any] = json.loads(body)
    expected = HEADER_BYTES + header["count"] * (4 * header["dimension"] + 8) + header["blocks"] * 16
    size = os.fstat(file.fileno()).st_size
    if size != expected:
        raise IndexDamagedError(f"{path} has {size} bytes instead of {expected}")
    return header


def sync_folder(folder: Path) -> None:
    """Make a rename in the folder last through a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
