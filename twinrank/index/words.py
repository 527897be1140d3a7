"""BM25 over terms that were already analysed, with updates and deletes: files kept by tantivy, small changes beside them."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tantivy

from twinrank.errors import CollectionReadOnlyError, IndexDamagedError, InputError
from twinrank.index.changelog import Change, ChangeLog
from twinrank.index.searched import TermFacts, scores_of_terms
from twinrank.index.wordfiles import (
    FORMAT,
    file_problems,
    meta_checksum,
    open_files,
    read_stamp,
    remove,
    segment_files,
    translated,
    write_stamp,
)
from twinrank.index.wordsearcher import WordSearcher, is_in
from twinrank.index.wordtail import K1, WordTail, idf_of, weight_of
from twinrank.scan import Codes
from twinrank.types import Keys, Ranking

WRITER_BYTES = 30_000_000  # what a writer may hold before it makes a segment; tantivy asks for 15 MB at least
HELD_MOST = 512
"""Passages changed in memory beyond which a commit is worth its cost: every opening until then takes them in again."""
AVERAGE_DRIFT = 0.005
"""How far the average length may move without a commit; no score is further than that from the one after a commit."""


@dataclass(frozen=True)
class _State:
    """What one search sees: never changed, only replaced."""

    files: WordSearcher
    hidden: Keys  # ascending: passages that are in the files, and were removed or replaced since
    tail: WordTail

    @property
    def live(self) -> int:
        return len(self.files) - len(self.hidden) + len(self.tail)

    def holding(self, term: str) -> int:
        return self.files.holding(term) + len(self.tail.holding(term))

    def times(self, term: str, key: int) -> int:
        """How often the term stands in this passage."""
        if key in self.tail:
            return self.tail.times(term, key)
        return 0 if key in self.hidden else self.files.times(term, key)

    def idf(self, term: str) -> float:
        """By the passages of the whole."""
        return float(idf_of(self.files.statistics([term]).passages + len(self.tail), self.holding(term)))

    def idf_in_files(self, term: str) -> np.float32:
        """What tantivy takes."""
        return idf_of(self.files.statistics([term]).passages, self.files.holding(term))

    @property
    def drift(self) -> float:
        """The share by which the average length of the whole is not that of the files, by which all scores are computed."""
        if not len(self.tail):
            return 0.0
        passages, average = self.files.statistics(self.tail.some_terms)
        if not passages or not average:
            return 1.0
        return abs((passages * average + self.tail.tokens) / (passages + len(self.tail)) / average - 1)


class WordIndex:
    """Words → passages, scored by BM25 (Robertson and Zaragoza 2009), as Lucene computes it:

        sum over the query's terms of  idf · f · (k1 + 1) / (f + k1 · (1 - b + b · length / average length))
        idf = ln(1 + (passages - n + 0.5) / (n + 0.5)),  k1 = 1.2, b = 0.75

    with f the term's count in the passage and n the passages that hold the term. A term that the query holds twice counts
    twice. The length is kept in one byte: exact up to 40 terms, rounded down by at most an eighth beyond, so a score may be
    above the formula's by a few per cent. Passages removed count in n and in the averages until their segment is merged.

    What is added or removed is searched after `commit`, which waits for the disk many times over. What `hold` takes in is
    searched at once, in memory beside the files, by the whole's number of passages and of those that hold a term, and by the
    files' average length; the next commit writes it down. Terms hold no white space. May be searched by several threads while
    another changes it.
    """

    def __init__(self, folder: Path, index: tantivy.Index, stamp: str, sequence: int) -> None:
        """Use `WordIndex.create` or `WordIndex.open`."""
        self.folder = folder
        self.stamp = stamp
        self._schema = index.schema
        self._writer: tantivy.IndexWriter | None = None
        self._lock = threading.Lock()
        self._take_up(index, sequence)

    def _take_up(self, index: tantivy.Index, sequence: int) -> None:
        """Search these files, which are of change `sequence`, and nothing beside them."""
        searcher = WordSearcher(self.folder, index)
        with self._lock:
            self._index = index
            self._changed: set[int] = set()
            """Keys of all that is held."""
            self._state = _State(searcher, np.empty(0, np.int64), WordTail())
            self._log = _log(self.folder, sequence)
            self.saved_sequence = self.sequence = sequence
            """The change of the store that the files reflect, and the one that is searched; the caller moves that on."""
            self.noted: int = self._log.last_sequence() or sequence
            """The latest change that is known on disk to have been reflected: a store that is not so far has lost some."""

    @classmethod
    def create(cls, folder: str | Path, *, stamp: str = "") -> WordIndex:
        """An empty index in place of whatever `folder` holds; it can be opened again after its first commit.

        `stamp` names what made the terms: opening with another one says that the index is stale.
        """
        folder = Path(folder)
        with translated(folder):
            _log(folder, 0).remove()
            remove(folder)
            folder.mkdir(parents=True)
            index = tantivy.Index(_schema(), path=str(folder))
            index.config_reader("manual")
            return cls(folder, index, stamp, 0)

    @classmethod
    def open(cls, folder: str | Path, *, stamp: str = "") -> WordIndex:
        """The index in `folder`; raises IndexDamagedError where it is missing, torn or made with another stamp."""
        folder = Path(folder)
        found = read_stamp(folder)
        if found["format"] != FORMAT or found["stamp"] != stamp:
            raise IndexDamagedError(f"{folder} was built with another analyser or version ({found['stamp']!r}, not {stamp!r})")
        if found["committing"]:  # a writer died, or is just now at it: nothing is torn, but look
            problems = file_problems(folder)
            if problems:
                raise IndexDamagedError(problems[0])
        elif meta_checksum(folder) != found["meta"] and read_stamp(folder) == found:
            raise IndexDamagedError(f"{folder / 'meta.json'} is not what was written")
        for path in segment_files(folder):
            if not path.exists():
                raise IndexDamagedError(f"{path} is missing")
        return cls(folder, open_files(folder), stamp, found["sequence"])

    def __len__(self) -> int:
        return self._state.live

    # Changing

    def add(self, keys: npt.ArrayLike, terms: Sequence[Sequence[str]]) -> None:
        """Add passages by key; one that is there is replaced."""
        key_list = _as_list(keys)
        if len(key_list) != len(terms):
            raise InputError(f"{len(key_list)} keys came with the terms of {len(terms)} passages")
        writer = self._open_writer()
        with translated(self.folder):
            for key, words in zip(key_list, terms, strict=True):
                writer.delete_documents_by_term("key", key)
                writer.add_document(_document(key, words))

    def remove(self, keys: npt.ArrayLike) -> None:
        """Remove passages; keys that are not there are passed over."""
        writer = self._open_writer()
        with translated(self.folder):
            for key in _as_list(keys):
                writer.delete_documents_by_term("key", key)

    def commit(self, sequence: int) -> None:
        """Make what was added, removed and held durable and searched; the index now reflects change `sequence`.

        A crash at any instant leaves the state before or after. Catching up from the older sequence again does no harm. Raises
        StorageError where the disk fails; what was held, and nothing else, is searched all the same.
        """
        bulk = self._writer is not None
        with translated(self.folder):
            try:
                writer = self._open_writer()
                write_stamp(self.folder, self.stamp, self.saved_sequence, committing=True)
                writer.commit()
                writer.wait_merging_threads()  # and closes: other processes may take their turn
                self._index.reload()
                write_stamp(self.folder, self.stamp, sequence, committing=False)
                self._log.remove()
            except Exception:
                self.sequence = self.saved_sequence if bulk else sequence
                raise
            finally:
                self._writer = None  # of one that failed the lock would stay
        self._take_up(self._index, sequence)

    def rollback(self) -> None:
        """Forget what was added and removed since the last commit."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            with translated(self.folder):
                writer.rollback()
                writer.wait_merging_threads()

    close = rollback

    def hold(self, removed: npt.ArrayLike, keys: npt.ArrayLike = (), terms: Sequence[Sequence[str]] = ()) -> None:
        """Remove passages, then add some that are not there any more; searched at once, on disk with the next commit."""
        gone, fresh = _as_list(removed), _as_list(keys)
        self.rollback()  # of a bulk that came to nothing; it is taken in again
        with self._lock:
            state = self._state
            hidden = np.union1d(state.hidden, state.files.there(gone))
            self._state = _State(state.files, hidden, state.tail.without(gone).with_added(fresh, terms))
            self._changed.update(gone, fresh)

    @property
    def wants_commit(self) -> bool:
        """Whether something is not searched yet, or more is held than should be taken in again at every opening."""
        return self._writer is not None or len(self._changed) > HELD_MOST or self._state.drift > AVERAGE_DRIFT

    def note(self, sequence: int) -> None:
        """The index now reflects change `sequence`, in memory; on disk is noted that the store came so far.

        This takes one wait for the disk. Raises StorageError where that fails; the index goes on all the same.
        """
        self.sequence = sequence
        self.noted = max(self.noted, self._log.last_sequence() or 0)
        if sequence <= self.noted and not self._log.verify():
            return
        nothing = np.empty(0, np.float32)
        vectors, keys = nothing.reshape(0, 0), np.empty(0, np.int64)
        self._log.append(Change(sequence, keys, keys, vectors, Codes(vectors.astype(np.int8), nothing, nothing)))
        self.noted = sequence

    def refresh(self) -> None:
        """Take up what other processes committed; what is held is forgotten then, and to be taken in again."""
        found = int(read_stamp(self.folder)["sequence"])
        if found != self.saved_sequence or not self._changed:
            self._take_up(open_files(self.folder), found)

    def _open_writer(self) -> tantivy.IndexWriter:
        """With all that is held going in first."""
        if self._writer is None:
            if not os.access(self.folder, os.W_OK):
                raise CollectionReadOnlyError(f"{self.folder} cannot be changed: no permission to write; searching works")
            with translated(self.folder):
                if self._changed:
                    self._index = open_files(self.folder)
                self._writer = self._index.writer(WRITER_BYTES, 1)
                # A process that died while it committed may have put some there that the files searched here do not hold.
                for key in self._changed:
                    self._writer.delete_documents_by_term("key", key)
                for key, words in self._state.tail.items():
                    self._writer.add_document(_document(key, words))
        return self._writer

    # Searching

    def search(
        self, terms: Sequence[str], k: int, allowed: Keys | None = None, *, weights: Mapping[str, float] | None = None
    ) -> Ranking:
        """The `k` best passages that hold any of the terms; of those in `allowed` only, exactly, where given.

        `weights` multiplies the score of single terms. Equal scores stand with the larger key first.
        """
        state = self._state
        counts = {term: count * (weights or {}).get(term, 1.0) for term, count in Counter(terms).items()}
        if not counts or state.live == 0 or k < 1 or (allowed is not None and len(allowed) == 0):
            return Ranking.empty()
        if allowed is not None:
            allowed = np.asarray(allowed, dtype=np.int64)
            if (np.diff(allowed) <= 0).any():  # usually it comes from the store, in order
                allowed = np.unique(allowed)
        if not len(state.tail):
            return state.files.search(counts, k, allowed, state.hidden)
        inside = {term: state.idf_in_files(term) for term in counts}
        boosts = {term: count * state.idf(term) / float(inside[term]) for term, count in counts.items()}
        found = state.files.search(boosts, k, allowed, state.hidden)
        scales: dict[str, np.float32] = {term: weight_of(inside[term]) * np.float32(boost) for term, boost in boosts.items()}
        tail = state.tail.search(scales, state.files.statistics(counts).average or state.tail.average)
        kept = np.ones(len(tail), np.bool_) if allowed is None else is_in(tail.keys, allowed)
        keys, scores = np.concatenate([found.keys, tail.keys[kept]]), np.concatenate([found.scores, tail.scores[kept]])
        return Ranking.of(keys, scores, k)

    def bound(self, terms: Sequence[str]) -> float:
        """What no passage's score reaches: that of one which holds each of the terms without end, and nothing else.

        A term that no passage holds counts too, so that a query of which little is found has low scores for its bound.
        """
        state = self._state
        idfs = {term: float(idf_of(state.live, state.holding(term))) for term in set(terms)}
        return (K1 + 1) * sum(idfs[term] for term in terms)

    def explain(self, terms: Sequence[str], key: int) -> list[tuple[str, float]]:
        """What each of the terms that the passage holds adds to its score, largest first; the sum is the score."""
        return scores_of_terms(self, terms, key)

    def facts(self, term: str, key: int) -> TermFacts:
        """What the index itself computes with, for this term and this passage."""
        state = self._state
        return TermFacts(state.holding(term), state.idf(term), state.times(term, key))

    # Upkeep

    def verify(self, *, log: bool = True) -> list[str]:
        """Every problem found, in words: reads all files and compares their checksums; those of the log where asked."""
        try:
            found = read_stamp(self.folder)
            if not found["committing"] and meta_checksum(self.folder) != found["meta"]:
                return [f"{self.folder / 'meta.json'} is not what was written"]
            return [*file_problems(self.folder), *(_log(self.folder, found["sequence"]).verify() if log else ())]
        except IndexDamagedError as error:
            return [str(error)]

    def size(self) -> int:
        """Bytes on disk."""
        return self._log.size() + sum(path.stat().st_size for path in self.folder.iterdir())


def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    builder.add_integer_field("key", indexed=True, fast=True)  # deleting by an unsigned one does nothing in tantivy-py
    builder.add_text_field("terms", tokenizer_name="whitespace", index_option="freq")
    return builder.build()


def _document(key: int, terms: Sequence[str]) -> tantivy.Document:
    document = tantivy.Document()
    document.add_integer("key", key)
    document.add_text("terms", " ".join(terms))
    return document


def _log(folder: Path, sequence: int) -> ChangeLog:
    """Beside the folder: which changes of the store were reflected since; their content is the store's."""
    return ChangeLog(folder, f"{sequence:016x}", 0)


def _as_list(keys: npt.ArrayLike) -> list[int]:
    return [int(key) for key in np.asarray(keys, dtype=np.int64).tolist()]
