"""One vector a token: candidates, then exact MaxSim; a file mapped into memory, and what changed since in memory beside it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from twinrank.errors import IndexDamagedError, InputError
from twinrank.index.encodings import FixedEncoder
from twinrank.index.tokenfile import TokenFile, check_tokens, map_tokens, token_blocks, write_tokens
from twinrank.maxsim import score_packed
from twinrank.quantization import PackedTokens, TokenCodec
from twinrank.types import Keys, Ranking, Scores, Vectors

EXACT_TOKENS = 200_000
"""Up to so many tokens every one is compared: some 1,300 passages of 150, and 40 ms for a query of 20 tokens on one core."""

CANDIDATES = 200
CANDIDATES_PER_HIT = 10
"""Beyond that, so many passages (or so many for each one wanted) are found by their encodings and then scored exactly."""

ENCODINGS_AT_ONCE = 512
SAVED_SHARE = 0.05  # changes beyond this share of the file are worth writing it anew
SAVED_LEAST = 1000


@dataclass(frozen=True)
class _State:
    """What one search sees: never changed, only replaced."""

    base: TokenFile
    alive: npt.NDArray[np.bool_]  # (passages of the file,)
    added: Mapping[int, PackedTokens]
    """Each of one passage."""

    @property
    def live(self) -> int:
        return int(self.alive.sum()) + len(self.added)


class MultiVectorIndex:
    """Passages by the vectors of their tokens, scored by MaxSim over what is stored of them.

    The file holds the tokens as of one change of the store. Additions and removals live in memory, and are written by `save`
    once there are enough of them; until then the next opening takes them from the store again, by its log of changes. May be
    searched by several threads while another changes it.
    """

    def __init__(self, path: Path, base: TokenFile) -> None:
        """Use `MultiVectorIndex.build` or `MultiVectorIndex.open`."""
        self.path = path
        self.codec = base.codec
        self.dimension = base.codec.dimension
        self.stamp = base.stamp
        self.saved_sequence = base.sequence
        """The change of the store that the file reflects."""
        self.sequence = base.sequence
        """The change of the store that the index reflects; the caller moves it on."""
        self._encoder = FixedEncoder(self.dimension)
        self._lock = threading.Lock()
        self._state = _State(base, np.ones(len(base.keys), np.bool_), {})

    @classmethod
    def build(
        cls,
        path: str | Path,
        codec: TokenCodec,
        batches: Iterable[tuple[Keys, PackedTokens]],
        sequence: int,
        *,
        stamp: str = "",
        exact_tokens: int = EXACT_TOKENS,
    ) -> MultiVectorIndex:
        """Write the file from batches of keys (n,), ascending throughout, and the tokens of n passages; holds one at a time.

        `stamp` names what made the vectors: opening with another one says that the index is stale. Beyond `exact_tokens`
        tokens passages get encodings for finding candidates. Raises InputError for tokens that cannot be searched,
        StorageError where the disk is full; whatever stood at `path` stays then.
        """
        encoder = FixedEncoder(codec.dimension)
        write_tokens(Path(path), codec, batches, sequence=sequence, stamp=stamp, encoder=encoder, exact_tokens=exact_tokens)
        return cls.open(path, stamp=stamp)

    @classmethod
    def open(cls, path: str | Path, *, stamp: str = "") -> MultiVectorIndex:
        """Map the file into memory. Raises IndexDamagedError where it is missing, torn or made with another stamp.

        The tokens themselves are read when they are scored; `verify` compares their checksums.
        """
        base = _map(Path(path))
        if base.stamp != stamp:
            raise IndexDamagedError(f"{path} was built from other vectors ({base.stamp!r}, not {stamp!r})")
        return cls(Path(path), base)

    def __len__(self) -> int:
        return self._state.live

    @property
    def keys(self) -> Keys:
        """The keys of all passages in the index, ascending."""
        state = self._state
        return np.sort(np.concatenate([state.base.keys[state.alive], np.fromiter(state.added, np.int64)]))

    @property
    def exact(self) -> bool:
        """Whether `search` compares every token, so that nothing is missed."""
        return self._state.base.encodings is None

    # Searching

    def score(self, query: Vectors, keys: npt.ArrayLike) -> Ranking:
        """MaxSim of the query's token vectors (tokens, dimension) with exactly these passages; unknown keys are left out."""
        matrix = self._checked_query(query)
        state = self._state
        wanted = np.unique(np.asarray(keys, dtype=np.int64))
        rows = _rows_of(state, wanted)
        added = [key for key in wanted.tolist() if key in state.added]
        parts = [*_passages(state.base.tokens, rows), *(state.added[key] for key in added)]
        found = np.concatenate([state.base.keys[rows], np.array(added, np.int64)])
        return Ranking.of(found, score_packed(self.codec, matrix, parts))

    def search(self, query: Vectors, k: int, allowed: Keys | None = None, *, exact: bool = False) -> Ranking:
        """The `k` best passages for the query's token vectors (tokens, dimension); of those in `allowed` only, where given.

        Every token is compared where the file is small, few passages are allowed, or `exact` is asked for. Otherwise the
        candidates are those whose encodings come nearest; their scores are exact all the same.
        """
        matrix = self._checked_query(query)
        state = self._state
        if k < 1 or not len(matrix) or not state.live or (allowed is not None and not len(allowed)):
            return Ranking.empty()
        if exact or state.base.encodings is None:
            return self._search_all(state, matrix, k) if allowed is None else self.score(matrix, allowed).top(k)
        candidates = max(CANDIDATES, CANDIDATES_PER_HIT * k)
        if allowed is not None and len(allowed) <= candidates:
            return self.score(matrix, allowed).top(k)
        added = np.fromiter(state.added, np.int64)  # few, and without an encoding
        if allowed is not None:
            added = added[np.isin(added, allowed)]
        near = self._nearest(state, matrix, candidates, allowed)
        return self.score(matrix, np.concatenate([near, added])).top(k)

    def _search_all(self, state: _State, matrix: Vectors, k: int) -> Ranking:
        base = score_packed(self.codec, matrix, [state.base.tokens])[state.alive]
        added = score_packed(self.codec, matrix, state.added.values())
        keys = np.concatenate([state.base.keys[state.alive], np.fromiter(state.added, np.int64)])
        return Ranking.of(keys, np.concatenate([base, added]), k)

    def _nearest(self, state: _State, matrix: Vectors, candidates: int, allowed: Keys | None) -> Keys:
        """The passages of the file with the best encodings."""
        scores = self._encoding_scores(state.base, self._encoder.encode_query(matrix))  # (passages,)
        fit = state.alive if allowed is None else state.alive & np.isin(state.base.keys, allowed)
        scores[~fit] = -np.inf
        candidates = min(candidates, int(fit.sum()))
        return state.base.keys[np.argpartition(-scores, candidates - 1)[:candidates]] if candidates else np.empty(0, np.int64)

    @staticmethod
    def _encoding_scores(base: TokenFile, query: Vectors) -> Scores:
        assert base.encodings is not None
        scores = np.empty(len(base.keys), np.float32)
        buffer = np.empty((ENCODINGS_AT_ONCE, len(query)), np.float32)
        for start in range(0, len(scores), ENCODINGS_AT_ONCE):
            block = base.encodings[start : start + ENCODINGS_AT_ONCE]
            np.copyto(buffer[: len(block)], block)
            scores[start : start + len(block)] = buffer[: len(block)] @ query
        return scores * base.encoding_scales

    def _checked_query(self, query: Vectors) -> Vectors:
        matrix = np.asarray(query, dtype=np.float32)
        if matrix.ndim != 2 or matrix.shape[1] != self.dimension:
            raise InputError(f"the query's token vectors have shape {matrix.shape}; expected (tokens, {self.dimension})")
        if not np.isfinite(matrix).all():
            raise InputError("the query's token vectors hold NaN or infinity")
        return matrix

    # Changing

    def add(self, keys: npt.ArrayLike, tokens: PackedTokens) -> None:
        """Add the tokens of n passages by key (n,); a passage that is there is replaced; of a key given twice the last counts.

        Raises InputError for another format or dimension, and for a passage without tokens.
        """
        key_array = check_tokens(self.codec, keys, tokens)
        fresh = {
            key: PackedTokens(one.codes.copy(), one.scales.copy(), one.offsets)
            for key, one in zip(key_array.tolist(), tokens, strict=True)
        }
        with self._lock:
            state = _without(self._state, key_array)
            self._state = replace(state, added={**state.added, **fresh})

    def remove(self, keys: npt.ArrayLike) -> None:
        """Remove passages; keys that are not there are passed over."""
        with self._lock:
            self._state = _without(self._state, np.atleast_1d(np.asarray(keys, dtype=np.int64)))

    @property
    def wants_save(self) -> bool:
        """Whether enough has changed in memory to write the file anew."""
        state = self._state
        changed = len(state.added) + int((~state.alive).sum())
        return changed > max(SAVED_LEAST, SAVED_SHARE * len(state.base.keys))

    def save(self, sequence: int, *, force: bool = False, exact_tokens: int = EXACT_TOKENS) -> bool:
        """The index now reflects change `sequence`; where enough has changed, write the file anew and say True."""
        self.sequence = sequence
        if not force and not self.wants_save:
            return False
        with self._lock:
            state = self._state
            write_tokens(
                self.path,
                self.codec,
                _batches(state),
                sequence=sequence,
                stamp=self.stamp,
                encoder=self._encoder,
                exact_tokens=exact_tokens,
            )
            base = _map(self.path)
            self._state = _State(base, np.ones(len(base.keys), np.bool_), {})
            self.saved_sequence = sequence
        return True

    # Upkeep

    def verify(self) -> list[str]:
        """Every problem of the file, in words: reads all of it and compares the checksums."""
        try:
            return _map(self.path).verify(self.path)
        except IndexDamagedError as error:
            return [str(error)]

    def size(self) -> int:
        """Bytes on disk."""
        return self.path.stat().st_size


def _map(path: Path) -> TokenFile:
    file = map_tokens(path)
    if file.encodings is not None and file.encoder != (wanted := FixedEncoder(file.codec.dimension).name):
        raise IndexDamagedError(f"{path} holds encodings of another make ({file.encoder}, not {wanted})")
    return file


def _without(state: _State, keys: Keys) -> _State:
    rows = _rows_of(state, np.unique(keys))
    alive = state.alive
    if len(rows):
        alive = alive.copy()
        alive[rows] = False
    gone = set(keys.tolist())
    return replace(state, alive=alive, added={key: one for key, one in state.added.items() if key not in gone})


def _rows_of(state: _State, keys: Keys) -> npt.NDArray[np.intp]:
    """The file's rows of those of these ascending keys that are alive there."""
    if not len(state.base.keys):
        return np.empty(0, np.intp)
    places = np.minimum(np.searchsorted(state.base.keys, keys), len(state.base.keys) - 1)
    rows: npt.NDArray[np.intp] = places[(state.base.keys[places] == keys) & state.alive[places]]
    return rows


def _passages(tokens: PackedTokens, rows: npt.NDArray[np.intp]) -> Iterator[PackedTokens]:
    """Single passages, without copying them."""
    for start, end in zip(tokens.offsets[rows].tolist(), tokens.offsets[rows + 1].tolist(), strict=True):
        yield PackedTokens(tokens.codes[start:end], tokens.scales[start:end], np.array([0, end - start]))


def _batches(state: _State) -> Iterator[tuple[Keys, PackedTokens]]:
    """All live passages by key, in batches."""
    rows = np.flatnonzero(state.alive)
    keys = np.concatenate([state.base.keys[rows], np.fromiter(state.added, np.int64)])
    lengths = np.concatenate(
        [np.diff(state.base.tokens.offsets)[rows], np.array([len(one.codes) for one in state.added.values()], np.int64)]
    )
    order = np.argsort(keys, kind="stable")
    added = list(state.added.values())
    offsets = np.concatenate([[0], np.cumsum(lengths[order])])
    for first, end in token_blocks(offsets):
        part = order[first:end]
        from_base = {int(place): one for place, one in _numbered(state, rows, part)}
        yield (
            keys[part],
            PackedTokens.join([from_base[place] if place < len(rows) else added[place - len(rows)] for place in part.tolist()]),
        )


def _numbered(state: _State, rows: npt.NDArray[np.intp], part: npt.NDArray[np.intp]) -> Iterator[tuple[int, PackedTokens]]:
    """(place, passage) of those places that stand in the file."""
    places = part[part < len(rows)]
    return zip(places.tolist(), _passages(state.base.tokens, rows[places]), strict=True)
