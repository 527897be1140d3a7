"""The derived indexes of a collection: opened, caught up with the store, made anew where one is missing or damaged."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
from filelock import FileLock, Timeout

from twinrank.errors import CollectionBusyError, IndexDamagedError
from twinrank.index.vectors import VectorIndex
from twinrank.index.words import WordIndex
from twinrank.ingest import VIEW
from twinrank.status import IndexStatus
from twinrank.store import Store
from twinrank.text import Analyzer
from twinrank.types import Keys

PATIENCE = 60.0
"""Seconds to wait while another process brings the indexes up to date."""

AT_ONCE = 4096
"""Changed passages taken in at a time, which bounds the memory."""


@contextmanager
def one_at_a_time(lock: Path, patience: float, doing: str) -> Iterator[None]:
    """Hold a lock file, which dies with its process; wait `patience` seconds for it, then raise CollectionBusyError."""
    try:
        with FileLock(lock).acquire(timeout=patience):
            yield
    except Timeout as error:
        raise CollectionBusyError(
            f"another process has been {doing} for {patience:.0f} seconds; try again when it has finished"
        ) from error


class Changing(Protocol):
    """What catching up asks of an index; removing before adding makes doing it twice the same as once."""

    sequence: int

    def remove(self, keys: Keys) -> None: ...


class Derived:
    """The word index and the vector index of one collection, never older than the store when they are handed out.

    They live in `folder`; where that cannot be written, in a temporary folder of this process.
    """

    def __init__(self, folder: Path, store: Store, analyzer: Analyzer, notify: Callable[[str], None]) -> None:
        self.folder = folder
        self.store = store
        self.analyzer = analyzer
        self._notify = notify
        self._words: WordIndex | None = None
        self._vectors: VectorIndex | None = None
        self._temporary: str | None = None
        self._lock = threading.RLock()

    def refresh(self) -> tuple[WordIndex, VectorIndex | None]:
        """The indexes as the store is now; there is no vector index where the store has no complete view."""
        with self._lock:
            sequence = self.store.sequence()
            view = self.store.views().get(VIEW)
            stamp = view.fingerprint if view is not None and view.complete else None
            if not self._is_current(sequence, stamp) and not self.store.writable and self._temporary is None:
                self._read_only(sequence, stamp)
            if not self._is_current(sequence, stamp):
                with self._alone():
                    self._words = self._current_words(sequence)
                    self._vectors = (
                        None if view is None or stamp is None else self._current_vectors(view.dimension, stamp, sequence)
                    )
            assert self._words is not None
            return self._words, self._vectors

    def rebuild(self) -> None:
        """Delete the indexes and make them anew from the store, which encodes nothing."""
        with self._lock, self._alone():
            self._drop()
            shutil.rmtree(self._words_folder, ignore_errors=True)
            self._vectors_file.unlink(missing_ok=True)
        self.refresh()

    def close(self) -> None:
        with self._lock:
            self._drop()
            if self._temporary is not None:
                shutil.rmtree(self._temporary, ignore_errors=True)

    def status(self) -> tuple[IndexStatus, ...]:
        """Look at the indexes on disk without changing them."""
        sequence = self.store.sequence()
        return tuple(
            IndexStatus(
                name,
                there=index is not None,
                behind=0 if index is None else sequence - index.sequence,
                passages=0 if index is None else len(index),
                size=0 if index is None else index.size(),
            )
            for name, index, _ in self._look()
        )

    def check(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """(what was looked at, what is wrong): checksums, and that an index that is current holds what the store does."""
        names, problems = [], []
        sequence, passages = self.store.sequence(), self.store.count_passages()
        for name, index, problem in self._look():
            names.append(f"index {name}")
            if problem is not None:
                problems.append(f"index {name}: {problem} (it is made anew at the next search, or by twinrank rebuild)")
            if index is not None:
                problems.extend(f"index {name}: {line}; twinrank rebuild makes it anew" for line in index.verify())
                if index.sequence == sequence and len(index) != passages:
                    problems.append(
                        f"index {name} holds {len(index):,} passages, the store {passages:,}; twinrank rebuild makes it anew"
                    )
        return tuple(names), tuple(problems)

    def _look(self) -> Iterator[tuple[str, WordIndex | VectorIndex | None, str | None]]:
        """(name, index or None, what is wrong with it) as they are on disk; a folder that is not there is no problem."""
        try:
            yield "words", WordIndex.open(self._words_folder, stamp=self.analyzer.fingerprint), None
        except IndexDamagedError as error:
            yield "words", None, str(error) if self._words_folder.exists() else None
        view = self.store.views().get(VIEW)
        if view is None:
            return
        try:
            yield "vectors", VectorIndex.open(self._vectors_file, stamp=view.fingerprint), None
        except IndexDamagedError as error:
            yield "vectors", None, str(error) if self._vectors_file.exists() else None

    # -- where -----------------------------------------------------------------------------------------------------------

    @property
    def _place(self) -> Path:
        return self.folder if self._temporary is None else Path(self._temporary)

    @property
    def _words_folder(self) -> Path:
        return self._place / "words"

    @property
    def _vectors_file(self) -> Path:
        return self._place / f"{VIEW}.index"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the indexes' lock, so that one process at a time changes them; the kernel frees it when a process dies."""
        if self._temporary is None and not self.store.writable:
            self._temporary = tempfile.mkdtemp(prefix="twinrank-")
        self._place.mkdir(exist_ok=True)
        doing = f"bringing the indexes of {self.folder.parent} up to date"
        with one_at_a_time(self._place / ".lock", PATIENCE, doing):
            yield

    # -- catching up -----------------------------------------------------------------------------------------------------

    def _read_only(self, sequence: int, stamp: str | None) -> None:
        """Take the indexes on disk where they are current, or can be made so in memory."""
        try:
            self._words = WordIndex.open(self._words_folder, stamp=self.analyzer.fingerprint)
            if stamp is not None:
                self._vectors = VectorIndex.open(self._vectors_file, stamp=stamp)
                added = self._remove_changed(self._vectors)
                self._vectors.add(added, self.store.vectors(VIEW, added))
                self._vectors.sequence = sequence
        except IndexDamagedError:
            self._words = self._vectors = None
        if self._words is not None and self._words.sequence != sequence:
            self._words = self._vectors = None

    def _is_current(self, sequence: int, stamp: str | None) -> bool:
        if self._words is None or self._words.sequence != sequence:
            return False
        if stamp is None:
            return self._vectors is None
        return self._vectors is not None and self._vectors.sequence == sequence and self._vectors.stamp == stamp

    def _current_words(self, sequence: int) -> WordIndex:
        index = None
        try:
            if self._words is None:
                index = WordIndex.open(self._words_folder, stamp=self.analyzer.fingerprint)
            else:
                index = self._words
                index.refresh()  # another process may have brought it up to date
            added = self._remove_changed(index)
            for start in range(0, len(added), AT_ONCE):
                passages = self.store.passages(added[start : start + AT_ONCE])
                keys = np.array([passage.key for passage in passages], np.int64)
                index.add(keys, [self.analyzer(passage.titled_text) for passage in passages])
        except IndexDamagedError as error:
            self._tell("words", error, self._words_folder.exists())
            if index is not None:
                index.close()
            index = WordIndex.create(self._words_folder, stamp=self.analyzer.fingerprint)
            for keys, texts in self.store.iterate_passages():
                index.add(keys, [self.analyzer(text) for text in texts])
        if index.sequence != sequence or not len(index):
            index.commit(sequence)
        return index

    def _current_vectors(self, dimension: int, stamp: str, sequence: int) -> VectorIndex:
        try:
            index = self._vectors
            if index is None or index.stamp != stamp:
                index = VectorIndex.open(self._vectors_file, stamp=stamp)
            added = self._remove_changed(index)
            for start in range(0, len(added), AT_ONCE):
                keys = added[start : start + AT_ONCE]
                index.add(keys, self.store.vectors(VIEW, keys))
            if index.sequence != sequence:
                index.save(sequence)
        except IndexDamagedError as error:
            self._tell("vectors", error, self._vectors_file.exists())
            index = VectorIndex.build(
                self._vectors_file, dimension, self.store.iterate_vectors(VIEW), sequence=sequence, stamp=stamp
            )
        return index

    def _remove_changed(self, index: Changing) -> Keys:
        """Take out every passage that changed since the index was current; returns the keys to put in again."""
        changes = self.store.changes_since(index.sequence)
        for start in range(0, len(changes), AT_ONCE):
            index.remove(np.array([key for _, key, _ in changes[start : start + AT_ONCE]], np.int64))
        return np.array([key for _, key, kind in changes if kind == "add"], np.int64)

    def _tell(self, name: str, error: IndexDamagedError, existed: bool) -> None:
        if existed:
            self._notify(f"the index {name} was made anew from the store: {error}")

    def _drop(self) -> None:
        if self._words is not None:
            self._words.close()
        self._words = self._vectors = None
