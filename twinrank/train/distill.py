"""A teacher's scores for examples: of a cross-encoder or of several together, remembered on disk, for a student to learn."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from twinrank.errors import DataError, InputError, StorageError
from twinrank.models.crossencoder import CrossEncoder
from twinrank.text import counted
from twinrank.train.data import Example
from twinrank.types import Scorer

AT_ONCE = 2048
"""Pairs scored between two writes: what a kill may cost."""

KEY_BYTES = 16
RECORD = np.dtype([("key", f"V{KEY_BYTES}"), ("score", "<f4")])

Floats = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]
"""(pairs done, pairs in all)."""


def teach(
    examples: Sequence[Example],
    teachers: Sequence[Scorer | str | os.PathLike[str]] | Scorer | str | os.PathLike[str],
    *,
    folder: Path | str,
    progress: Progress | None = None,
) -> list[Example]:
    """The examples with a teacher's score for every passage, positives first.

    A teacher is a cross-encoder, open or by its folder or name; one that is named gives its outputs without their activation,
    which a softmax or a difference is to be taken of. Of several the mean is taken, each first brought to the same spread
    (Hofstätter et al. 2020 average ensembles of one kind, whose spreads are alike). What was scored is kept in `folder`,
    a file a teacher, so that an interrupted call goes on, and the next training asks nobody twice.
    """
    given = [teachers] if isinstance(teachers, (str, os.PathLike, Scorer)) else list(teachers)
    if not given:
        raise InputError("a teacher is missing: give one cross-encoder or several")
    pairs = list(dict.fromkeys((example.query, passage) for example in examples for passage in example.passages))
    columns: list[Floats] = []

    def tell(done: int) -> None:
        if progress is not None:
            progress(len(columns) * len(pairs) + done, len(given) * len(pairs))

    opened = [one if isinstance(one, Scorer) else CrossEncoder(one, activation="identity") for one in given]
    for teacher in opened:  # all are there before the first is asked for hours
        columns.append(Remembered(Path(folder), teacher).score(pairs, tell))
    scores = dict(zip(pairs, together(columns).tolist(), strict=True))
    return [
        replace(example, scores=tuple(scores[example.query, passage] for passage in example.passages)) for example in examples
    ]


def teachable(examples: Sequence[Example], negatives: int) -> list[Example]:
    """Those with so many negatives of their own. A step would fill up the others with passages that no teacher was asked about,
    and 1 and 0 beside a teacher's scores are lies. Raises DataError where there are none."""
    kept = [example for example in examples if len(example.negatives) >= negatives]
    if not kept:
        raise DataError(f"no example has {counted(negatives, 'negative')} to ask a teacher about; mine some: twinrank mine")
    return kept


def together(columns: Sequence[Floats]) -> Floats:
    """Several teachers' scores of the same pairs as one: each centred and scaled to a standard deviation, the mean taken, and
    that brought back to their mean spread and height, so that a temperature means what it meant.

    >>> together([np.array([0.0, 2.0]), np.array([10.0, 30.0])]).tolist()
    [5.0, 16.0]
    """
    if len(columns) == 1:
        return columns[0]
    scores = np.stack(columns)  # (teachers, pairs)
    means, spreads = scores.mean(axis=1, keepdims=True), scores.std(axis=1, keepdims=True)
    standard = (scores - means) / np.maximum(spreads, 1e-12)
    mean: Floats = standard.mean(axis=0) * spreads.mean() + means.mean()
    return mean


class Remembered:
    """A scorer with a memory on disk: a file that grows, a record of key and score for every pair that was asked once."""

    def __init__(self, folder: Path, scorer: Scorer) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.scorer = scorer
        name = hashlib.blake2b(scorer.fingerprint.encode(), digest_size=8).hexdigest()
        self.file = folder / f"{name}.scores"
        self._known = self._read()

    def score(self, pairs: Sequence[tuple[str, str]], progress: Callable[[int], None] | None = None) -> Floats:
        """(pairs,): what is not remembered is scored and written, a piece at a time."""
        keys = [key_of(pair) for pair in pairs]
        missing = [place for place, key in enumerate(keys) if key not in self._known]
        done = len(pairs) - len(missing)
        if progress is not None:
            progress(done)
        # In order of length, so that a batch holds little padding and the pieces shrink in time as they come.
        missing.sort(key=lambda place: -len(pairs[place][0]) - len(pairs[place][1]))
        for start in range(0, len(missing), AT_ONCE):
            piece = missing[start : start + AT_ONCE]
            scores = self.scorer.score([pairs[place] for place in piece])
            if not np.isfinite(scores).all():
                raise InputError(f"{self.scorer.name} gives a score that is no number; a student cannot learn from it")
            self._write([keys[place] for place in piece], scores)
            done += len(piece)
            if progress is not None:
                progress(done)
        return np.array([self._known[key] for key in keys], np.float64)

    def _read(self) -> dict[bytes, float]:
        if not self.file.exists():
            return {}
        content = self.file.read_bytes()
        whole = len(content) // RECORD.itemsize  # a kill may have left half a record at the end
        if whole * RECORD.itemsize != len(content):
            os.truncate(self.file, whole * RECORD.itemsize)
        records = np.frombuffer(content, RECORD, whole)
        return dict(zip((key.tobytes() for key in records["key"]), records["score"].tolist(), strict=True))

    def _write(self, keys: Sequence[bytes], scores: npt.NDArray[np.float32]) -> None:
        records = np.empty(len(keys), RECORD)
        records["key"] = np.frombuffer(b"".join(keys), f"V{KEY_BYTES}")
        records["score"] = scores
        try:
            with self.file.open("ab") as stream:
                stream.write(records.tobytes())
        except OSError as error:
            raise StorageError(f"{self.file} cannot be written: {error.strerror}. Free some space and go on.") from error
        self._known.update(zip(keys, records["score"].tolist(), strict=True))


def key_of(pair: tuple[str, str]) -> bytes:
    """The same for the same two texts, and for no others."""
    query, passage = (text.encode("utf-8", "surrogatepass") for text in pair)
    return hashlib.blake2b(len(query).to_bytes(8, "little") + query + passage, digest_size=KEY_BYTES).digest()
