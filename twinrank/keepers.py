"""How each index of a collection is opened, made and filled from the store: words, passages' vectors, token vectors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from twinrank.encoding import VECTORS
from twinrank.errors import CollectionReadOnlyError, StorageError
from twinrank.index.multivectors import MultiVectorIndex
from twinrank.index.settings import VectorIndexSettings
from twinrank.index.vectors import VectorIndex
from twinrank.index.words import HELD_MOST, WordIndex
from twinrank.store import Store, View
from twinrank.text import Analyzer
from twinrank.types import Keys

AT_ONCE = 4096
"""Changed passages taken in at a time, which bounds the memory."""


class Changing(Protocol):
    """What catching up asks of an index; removing before adding makes doing it twice the same as once."""

    sequence: int
    """The change of the store that is searched."""
    saved_sequence: int
    """The one that is on disk whole."""
    stamp: str

    def __len__(self) -> int: ...

    def verify(self) -> list[str]: ...

    def size(self) -> int: ...


class Keeper(ABC):
    """How one kind of index is opened, made and filled from the store."""

    name: str
    held_most: int
    """How many changed passages are taken in without writing, as a collection that is read only needs it."""

    @abstractmethod
    def stamp(self, views: Mapping[str, View]) -> str | None:
        """What the index is made of, told by the store's views; None where it cannot be made."""

    @abstractmethod
    def path(self, place: Path) -> Path: ...

    @abstractmethod
    def open(self, path: Path, stamp: str) -> Any: ...

    @abstractmethod
    def build(self, path: Path, stamp: str, sequence: int) -> Any: ...

    @abstractmethod
    def take_in(self, index: Any, changed: Keys, there: Keys) -> None:
        """Take out these passages, and put in again those of them that are there, as the store has them."""

    @abstractmethod
    def finish(self, index: Any, sequence: int) -> None:
        """The index now reflects change `sequence`; keep that on disk as the index sees fit.

        Raises StorageError where that cannot be; the index reflects the change all the same, if it says so.
        """

    def noted(self, index: Any) -> int:
        """The latest change that is known to have been reflected; the store lost some where it is not so far."""
        return int(index.saved_sequence)

    def wants_finishing(self, index: Any) -> bool:
        """Whether so much is in memory alone that it should be kept on disk, though nobody wrote just now."""
        return False

    def reopen(self, index: Any) -> bool:
        """Another process may have brought the files up to date; False where they are better opened anew."""
        return not self.wants_finishing(index)

    def problems(self, index: Any) -> list[str]:
        """What is damaged of it so that it must not be searched."""
        found: list[str] = index.verify()
        return found

    def detail(self, index: Any) -> str:
        """How it is searched, in words, where there is something to say."""
        return ""

    def close(self, index: Any) -> None:  # noqa: B027 -- mapped files close by themselves
        """Let go of what the index holds."""


class Words(Keeper):
    """BM25 over the passages' titled texts."""

    name = "words"
    held_most = 4096

    def __init__(self, store: Store, analyzer: Analyzer, folder: str) -> None:
        self.store = store
        self.analyzer = analyzer
        self.folder = folder

    def stamp(self, views: Mapping[str, View]) -> str | None:
        return self.analyzer.fingerprint

    def path(self, place: Path) -> Path:
        return place / self.folder

    def open(self, path: Path, stamp: str) -> WordIndex:
        return WordIndex.open(path, stamp=stamp)

    def build(self, path: Path, stamp: str, sequence: int) -> WordIndex:
        index = WordIndex.create(path, stamp=stamp)
        for keys, texts in self.store.iterate_passages():
            index.add(keys, [self.analyzer(text) for text in texts])
        index.commit(sequence)
        return index

    def reopen(self, index: WordIndex) -> bool:
        index.refresh()
        return True

    def take_in(self, index: WordIndex, changed: Keys, there: Keys) -> None:
        if len(changed) > HELD_MOST:  # a commit is due anyway
            try:
                self._take_in_for_commit(index, changed, there)
                return
            except (StorageError, CollectionReadOnlyError):
                if len(changed) > self.held_most:
                    raise
        keys, terms = self._terms(there)
        index.hold(changed, keys, terms)

    def _take_in_for_commit(self, index: WordIndex, changed: Keys, there: Keys) -> None:
        for part in parts(changed):
            index.remove(part)
        for part in parts(there):
            index.add(*self._terms(part))

    def _terms(self, keys: Keys) -> tuple[Keys, list[list[str]]]:
        passages = self.store.passages(keys)
        found = np.array([passage.key for passage in passages], np.int64)
        return found, [self.analyzer(passage.titled_text) for passage in passages]

    def finish(self, index: WordIndex, sequence: int) -> None:
        if index.wants_commit:
            index.commit(sequence)
        else:
            index.note(sequence)

    def noted(self, index: WordIndex) -> int:
        return index.noted

    def problems(self, index: WordIndex) -> list[str]:
        return index.verify(log=False)  # whose end a process that died may have left torn

    def wants_finishing(self, index: WordIndex) -> bool:
        return index.wants_commit

    def close(self, index: WordIndex) -> None:
        index.close()


class ViewKeeper(Keeper):
    """What the indexes over views have in common: their stamp is the view's fingerprint."""

    held_most = 2**63

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.name = name

    @abstractmethod
    def put(self, index: Any, keys: Keys) -> None:
        """Add these passages as the store has them."""

    def take_in(self, index: Any, changed: Keys, there: Keys) -> None:
        for part in parts(changed):
            index.remove(part)
        for part in parts(there):
            self.put(index, part)

    def stamp(self, views: Mapping[str, View]) -> str | None:
        view = views.get(self.name)
        return None if view is None or not view.complete else view.fingerprint

    def path(self, place: Path) -> Path:
        return place / f"{self.name}.index"

    def finish(self, index: Any, sequence: int) -> None:
        index.save(sequence)


class PassageVectors(ViewKeeper):
    """One vector a passage."""

    def __init__(self, store: Store, name: str, settings: VectorIndexSettings) -> None:
        super().__init__(store, name)
        self.settings = settings

    def open(self, path: Path, stamp: str) -> VectorIndex:
        return VectorIndex.open(path, stamp=stamp, settings=self.settings)

    def build(self, path: Path, stamp: str, sequence: int) -> VectorIndex:
        view = self.store.views()[self.name]
        batches = self.store.iterate_vectors(self.name)
        settings = self.settings
        return VectorIndex.build(path, view.dimension, batches, sequence, stamp=stamp, settings=settings, near=False)

    def finish(self, index: VectorIndex, sequence: int) -> None:
        index.save(sequence, near=False)

    def wants_finishing(self, index: VectorIndex) -> bool:
        return index.unsaved > AT_ONCE

    def detail(self, index: VectorIndex) -> str:
        return index.summary

    def put(self, index: VectorIndex, keys: Keys) -> None:
        index.add(keys, self.store.vectors(self.name, keys))


class TokenVectors(ViewKeeper):
    """One vector a token; made where somebody searches it, and where there are no other vectors to search."""

    def __init__(self, store: Store, name: str, searched: bool) -> None:
        super().__init__(store, name)
        self.searched = searched

    def stamp(self, views: Mapping[str, View]) -> str | None:
        stamp = super().stamp(views) if self.searched or VECTORS not in views else None
        return None if stamp is None else f"{stamp} {views[self.name].settings['format']}"

    def open(self, path: Path, stamp: str) -> MultiVectorIndex:
        return MultiVectorIndex.open(path, stamp=stamp)

    def build(self, path: Path, stamp: str, sequence: int) -> MultiVectorIndex:
        view = self.store.views()[self.name]
        return MultiVectorIndex.build(path, view.codec, self.store.iterate_tokens(self.name), sequence, stamp=stamp)

    def wants_finishing(self, index: MultiVectorIndex) -> bool:
        return index.wants_save

    def put(self, index: MultiVectorIndex, keys: Keys) -> None:
        index.add(keys, self.store.tokens(self.name, keys))


def parts(keys: Keys) -> Iterator[Keys]:
    return (keys[start : start + AT_ONCE] for start in range(0, len(keys), AT_ONCE))
