"""The derived indexes of a collection: opened, caught up with the store, made anew where one is missing or damaged."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock, Timeout

from twinrank.encoding import TOKENS, VECTORS
from twinrank.errors import CollectionBusyError, IndexDamagedError, StorageError
from twinrank.index.multivectors import MultiVectorIndex
from twinrank.index.searched import VectorSearch, WordSearch
from twinrank.index.settings import VectorIndexSettings
from twinrank.index.vectors import VectorIndex
from twinrank.keepers import Changing, Keeper, PassageVectors, TokenVectors, Words
from twinrank.status import IndexStatus
from twinrank.store import ChangeKind, Store
from twinrank.text import Analyzer

PATIENCE = 60.0
"""Seconds to wait while another process brings the indexes up to date."""

HELD_AT_ONCE = 512
"""Changed passages that a search takes in by itself, in memory; where there are more, the files on disk may be further."""

VERIFIED_WHEN_OPENED = 2**26
"""Bytes: 64 MB are read and summed in some 50 ms; of larger indexes only `check` reads every byte."""


@contextmanager
def one_at_a_time(lock: Path, patience: float, doing: str) -> Iterator[None]:
    """Hold a lock file, which dies with its process; wait `patience` seconds for it, then raise CollectionBusyError."""
    held = FileLock(lock)
    try:
        held.acquire(timeout=patience)
    except Timeout as error:
        raise CollectionBusyError(
            f"another process has been {doing} for {patience:.0f} seconds; try again when it has finished"
        ) from error
    except OSError as error:
        raise StorageError(f"{lock} cannot be written: {error.strerror}") from error
    try:
        yield
    finally:
        held.release()


class Indexes(NamedTuple):
    """What is searched, as the store is now; None where the store holds no such view, or nobody asks for its index."""

    words: WordSearch
    vectors: VectorSearch | None
    tokens: MultiVectorIndex | None


class Derived:
    """The indexes of one collection, never older than the store when they are handed out.

    They live in `folder`; where that cannot be written, in a temporary folder of this process: all of them where there is no
    permission; where the disk is full or fails, those that cannot be made, until they can. `words` names the word index: a
    search in another language than the collection's keeps one of its own. `multivectors` says that token vectors are searched:
    reranking alone reads them from the store.
    """

    def __init__(
        self,
        folder: Path,
        store: Store,
        analyzer: Analyzer,
        notify: Callable[[str], None],
        *,
        words: str = "words",
        vectors: VectorIndexSettings | None = None,
        multivectors: bool = False,
    ) -> None:
        self.folder = folder
        self.store = store
        self._notify = notify
        self._keepers: list[Keeper] = [
            Words(store, analyzer, words),
            PassageVectors(store, VECTORS, vectors or VectorIndexSettings()),
            TokenVectors(store, TOKENS, multivectors),
        ]
        self._open: dict[str, Changing] = {}
        self._temporary: str | None = None
        self._unkept: set[str] = set()
        """Names of indexes that go on in memory, since their files cannot be written."""
        self._told_incomplete = False
        self._elsewhere: str | None = None
        self._strays: set[str] = set()
        """Names of indexes that lie elsewhere, in a temporary folder, since they could not be made where they belong."""
        self._lock = threading.RLock()

    def refresh(self, *, keep: bool = False) -> Indexes:
        """The indexes as the store is now; small changes are taken in in memory.

        `keep`, as after a change, also notes on disk how far they are, and writes down what has become much.
        """
        with self._lock:
            sequence = self.store.sequence()
            views = self.store.views()
            stamps = {keeper.name: keeper.stamp(views) for keeper in self._keepers}
            if keep or not (self._are_current(sequence, stamps) or self._hold(sequence, stamps)):
                if not self.store.writable and self._temporary is None:
                    self._open = self._read_only(sequence, stamps)
                if keep or not self._are_current(sequence, stamps):
                    self._bring_up_to_date(sequence, stamps)
                if not keep:
                    self._tell_incomplete()
            found: dict[str, Any] = self._open
            return Indexes(found["words"], found.get(VECTORS), found.get(TOKENS))

    def _tell_incomplete(self) -> None:
        index = self._open.get(VECTORS)
        if isinstance(index, VectorIndex) and index.wants_near and not self._told_incomplete:
            self._told_incomplete = True
            self._notify(f"the vectors' index is {index.summary}: by the next change, or by twinrank rebuild")

    def complete(self) -> None:
        """Build the approximate index that the settings want, where it lacks; others search and write meanwhile.

        Where another process is at it already, it is left to that one.
        """
        index = self._open.get(VECTORS)
        if not isinstance(index, VectorIndex) or not index.wants_near:
            return
        try:
            with one_at_a_time(self._place / ".neighbours", 0, "building the approximate index"):
                index.build_near()
        except CollectionBusyError:
            return
        except StorageError as error:
            self._notify(f"vectors are searched exactly: their approximate index could not be kept: {error}")

    def remake(self, error: IndexDamagedError) -> None:
        """Make the indexes anew where a search came upon damage in one."""
        self._notify(f"the indexes were made anew from the store: {error}")
        self.rebuild()

    def rebuild(self) -> None:
        """Delete the indexes and make them anew from the store, which encodes nothing."""
        with self._lock, self._alone():
            self._drop()
            for keeper in self._keepers:
                path = keeper.path(self._place)
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                    continue
                try:
                    path.unlink(missing_ok=True)
                except OSError as error:
                    raise StorageError(f"{path} cannot be removed: {error.strerror}; it stays as it was") from error
            if self.store.writable:  # no index needs the log of changes any more, damaged or not
                self.store.compact_changes(self.store.sequence())
        self.refresh(keep=True)

    def tidy(self) -> None:
        """Let the store forget and give back what the indexes on disk do not need; called after a change."""
        with self._lock:
            if self._open and self._temporary is None and not self._strays:
                self.store.tidy(min(index.saved_sequence for index in self._open.values()))

    def close(self) -> None:
        with self._lock:
            self._drop()
            self._forget_strays()
            if self._temporary is not None:
                shutil.rmtree(self._temporary, ignore_errors=True)

    def status(self) -> tuple[IndexStatus, ...]:
        """Look at the indexes on disk without changing them."""
        sequence = self.store.sequence()
        details = {keeper.name: keeper.detail for keeper in self._keepers}
        return tuple(
            IndexStatus(
                name,
                there=index is not None,
                behind=0 if index is None or index.sequence == sequence else self._behind(index),
                passages=0 if index is None else len(index),
                size=0 if index is None else index.size(),
                detail="" if index is None else details[name](index),
            )
            for name, index, _ in self._look()
        )

    def check(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """(what was looked at, what is wrong): checksums, and that an index that is current holds what the store does."""
        names, problems = [], []
        sequence, passages = self.store.sequence(), self.store.count_passages()
        keepers = {keeper.name: keeper for keeper in self._keepers}
        for name, index, problem in self._look():
            names.append(f"index {name}")
            if problem is not None:
                problems.append(f"index {name}: {problem} (it is made anew at the next search, or by twinrank rebuild)")
            if index is not None:
                problems.extend(f"index {name}: {line}; twinrank rebuild makes it anew" for line in index.verify())
                foreign = list(self._foreign(index, keepers[name].noted(index)))
                problems.extend(f"index {name}: {line}; the next search makes it so" for line in foreign)
                if not foreign and index.sequence == sequence and len(index) != passages:
                    problems.append(
                        f"index {name} holds {len(index):,} passages, the store {passages:,}; twinrank rebuild makes it anew"
                    )
        return tuple(names), tuple(problems)

    def _behind(self, index: Changing) -> int:
        """How many passages changed since the index was current; all, where the log cannot tell."""
        try:
            return len(self.store.changes_since(index.sequence))
        except IndexDamagedError:
            return self.store.count_passages()

    def _foreign(self, index: Changing, noted: int) -> Iterator[str]:
        """Why an index cannot be made current: the store lost its latest changes, or it is another's."""
        try:
            for state in {index.sequence, noted}:
                self.store.changes_since(state)
        except IndexDamagedError as error:
            yield str(error)

    def _look(self) -> Iterator[tuple[str, Changing | None, str | None]]:
        """(name, index or None, what is wrong with it) as they are on disk; a file that is not there is no problem."""
        views = self.store.views()
        for keeper in self._keepers:
            stamp, path = keeper.stamp(views), keeper.path(self._place)
            if stamp is None:
                continue
            try:
                yield keeper.name, keeper.open(path, stamp), None
            except IndexDamagedError as error:
                yield keeper.name, None, str(error) if path.exists() else None

    # -- where -----------------------------------------------------------------------------------------------------------

    @property
    def _place(self) -> Path:
        return self.folder if self._temporary is None else Path(self._temporary)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the indexes' lock, so that one process at a time changes them; the kernel frees it when a process dies."""
        if self._temporary is None and not self.store.writable:
            self._temporary = tempfile.mkdtemp(prefix="twinrank-")
        try:
            self._place.mkdir(exist_ok=True)
        except OSError as error:
            raise StorageError(f"{self._place} cannot be made: {error.strerror}") from error
        doing = f"bringing the indexes of {self.folder.parent} up to date"
        with one_at_a_time(self._place / ".lock", PATIENCE, doing):
            yield

    # -- catching up -----------------------------------------------------------------------------------------------------

    def _are_current(self, sequence: int, stamps: dict[str, str | None]) -> bool:
        if set(self._open) != {name for name, stamp in stamps.items() if stamp is not None}:
            return False
        return all(index.sequence == sequence and index.stamp == stamps[name] for name, index in self._open.items())

    def _hold(self, sequence: int, stamps: dict[str, str | None]) -> bool:
        """Take small changes into the open indexes, in memory alone; whether they are current then."""
        for keeper in self._keepers:
            stamp, index = stamps[keeper.name], self._open.get(keeper.name)
            if stamp is None and index is None:
                continue
            if index is None or index.stamp != stamp or keeper.wants_finishing(index):
                return False
            try:
                if not self._held(keeper, index, sequence):
                    return False
            except IndexDamagedError:  # the log of changes is cut off behind it, perhaps: the files will be further
                return False
        return True

    def _held(self, keeper: Keeper, index: Changing, sequence: int) -> bool:
        """Whether the changes since the index was current are few enough to be taken in, which then is done."""
        if index.sequence != sequence:
            changes = self.store.changes_since(index.sequence)
            if len(changes) > min(keeper.held_most, HELD_AT_ONCE):
                return False
            self._take_in(keeper, index, changes)
            index.sequence = sequence
        return True

    def _read_only(self, sequence: int, stamps: dict[str, str | None]) -> dict[str, Changing]:
        """The indexes on disk where all are current, or can be made so in memory; otherwise none."""
        found: dict[str, Changing] = {}
        try:
            for keeper in self._keepers:
                if (stamp := stamps[keeper.name]) is None:
                    continue
                found[keeper.name] = index = self._verified(keeper, stamp)
                changes = self.store.changes_since(index.sequence)
                if len(changes) > keeper.held_most:
                    return {}
                self._take_in(keeper, index, changes)
                index.sequence = sequence
        except IndexDamagedError:
            return {}
        return found

    def _bring_up_to_date(self, sequence: int, stamps: dict[str, str | None]) -> None:
        self._forget_strays()
        for keeper in self._keepers:
            if stamps[keeper.name] is None:
                self._open.pop(keeper.name, None)
        wanted = [(keeper, stamp) for keeper in self._keepers if (stamp := stamps[keeper.name]) is not None]
        try:
            with self._alone():
                for keeper, stamp in wanted:
                    try:
                        self._open[keeper.name] = self._caught_up(keeper, stamp, sequence)
                    except StorageError as error:
                        self._open[keeper.name] = self._made_elsewhere(keeper, stamp, sequence, error)
        except StorageError as error:
            if self._strays:
                raise
            for keeper, stamp in wanted:
                self._open[keeper.name] = self._made_elsewhere(keeper, stamp, sequence, error)

    def _made_elsewhere(self, keeper: Keeper, stamp: str, sequence: int, error: StorageError) -> Changing:
        """The index in a temporary folder; raises `error` where none can be made there either."""
        if (index := self._open.pop(keeper.name, None)) is not None:
            keeper.close(index)
        self._strays.add(keeper.name)
        try:
            self._elsewhere = self._elsewhere or tempfile.mkdtemp(prefix="twinrank-")
            made = self._built(keeper, Path(self._elsewhere), stamp, sequence)
        except (StorageError, OSError):
            raise error from None
        self._notify(f"the index {keeper.name} was made in a temporary folder, since {error}")
        return made

    def _forget_strays(self) -> None:
        for keeper in self._keepers:
            if keeper.name in self._strays and (index := self._open.pop(keeper.name, None)) is not None:
                keeper.close(index)
        self._strays = set()
        if self._elsewhere is not None:
            shutil.rmtree(self._elsewhere, ignore_errors=True)
            self._elsewhere = None

    def _caught_up(self, keeper: Keeper, stamp: str, sequence: int) -> Changing:
        path, index = keeper.path(self._place), self._open.get(keeper.name)
        if index is not None and index.stamp == stamp:
            try:
                if keeper.reopen(index):
                    return self._followed(keeper, index, sequence)
            except IndexDamagedError:  # the log is cut off behind it, perhaps; who cut it brought the files up to date before
                pass
            keeper.close(index)
        self._open.pop(keeper.name, None)
        index = None
        try:
            index = self._verified(keeper, stamp)
            return self._followed(keeper, index, sequence)
        except IndexDamagedError as error:
            if path.exists():
                self._notify(f"the index {keeper.name} was made anew from the store: {error}")
            if index is not None:
                keeper.close(index)
        return self._built(keeper, self._place, stamp, sequence)

    def _followed(self, keeper: Keeper, index: Changing, sequence: int) -> Changing:
        if index.sequence != sequence:
            self._take_in(keeper, index, self.store.changes_since(index.sequence))
        try:
            keeper.finish(index, sequence)
        except StorageError as error:
            if index.sequence != sequence:
                raise
            if keeper.name not in self._unkept:
                self._notify(
                    f"the index {keeper.name} goes on in memory, since its files could not be brought up to date: {error}"
                )
            self._unkept.add(keeper.name)
        else:
            self._unkept.discard(keeper.name)
        return index

    def _built(self, keeper: Keeper, place: Path, stamp: str, sequence: int) -> Changing:
        index: Changing
        try:
            index = keeper.build(keeper.path(place), stamp, sequence)
        except IndexDamagedError as error:  # just written, and cannot be read
            raise StorageError(
                f"the index {keeper.name} could not be made anew: {error}. What was added or deleted is kept; look at the disk "
                "and search again"
            ) from error
        return index

    def _verified(self, keeper: Keeper, stamp: str) -> Changing:
        """The index on disk; where it is small, with every byte of it compared with its checksum before it answers."""
        index: Changing = keeper.open(keeper.path(self._place), stamp)
        try:
            if index.size() <= VERIFIED_WHEN_OPENED and (problems := keeper.problems(index)):
                raise IndexDamagedError(problems[0])
            if keeper.noted(index) != index.sequence:
                self.store.changes_since(keeper.noted(index))  # refuses an index of a state that the store does not know
        except IndexDamagedError:
            keeper.close(index)
            raise
        return index

    def _take_in(self, keeper: Keeper, index: Changing, changes: Sequence[tuple[int, int, ChangeKind]]) -> None:
        """Take out every passage that changed since the index was current, and put those that are there in again."""
        if changes:
            changed = np.array([key for _, key, _ in changes], np.int64)
            keeper.take_in(index, changed, changed[[kind == "add" for _, _, kind in changes]])

    def _drop(self) -> None:
        for keeper in self._keepers:
            if (index := self._open.pop(keeper.name, None)) is not None:
                keeper.close(index)
