"""Documents → what the store keeps: cut into passages, compared with what is there, encoded where a passage is new."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from time import perf_counter
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np

from twinrank.encoding import Encoded, PassageEncoder
from twinrank.parts import without_fields
from twinrank.preparation import Preparation, Prepared, Task, Translate, digest
from twinrank.readers import Problem
from twinrank.store import Kept, Store
from twinrank.text import Chunking, counted
from twinrank.types import Document

BATCH_DOCUMENTS = 256
BATCH_CHARACTERS = 400_000
"""A batch is written in one transaction; its size bounds the memory that an endless iterable takes."""

Turn: TypeAlias = Callable[[], AbstractContextManager[None]]
"""Holds the store for one writer."""


@dataclass
class AddReport:
    """What became of the documents given to `add`."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    removed: int = 0
    """Documents deleted because the folder that the collection follows no longer holds them."""
    repeated: int = 0
    """Ids that came more than once in the call; the last one is kept."""
    passages: int = 0
    """Passages of the documents added and updated."""
    encoded: int = 0
    """Passages that had to be encoded; the others' vectors were there."""
    truncated: int = 0
    """Encoded passages that were longer than the encoder takes."""
    dropped: int = 0
    """Tokens cut off them."""
    tokens: int = 0
    """Tokens encoded."""
    seconds: float = 0.0
    problems: list[Problem] = field(default_factory=list)
    """Files and lines that were skipped, and what was noted of others."""

    @property
    def documents(self) -> int:
        return self.added + self.updated + self.unchanged

    @property
    def skipped(self) -> list[Problem]:
        return [problem for problem in self.problems if problem.kind == "skipped"]

    def __str__(self) -> str:
        counts = [f"{self.added:,} added", f"{self.updated:,} updated", f"{self.unchanged:,} unchanged"]
        if self.removed:
            counts.append(f"{self.removed:,} removed")
        if self.repeated:
            counts.append(f"{self.repeated:,} repeated ids (the last one kept)")
        if self.skipped:
            counts.append(f"{len(self.skipped):,} skipped")
        text = f"{counted(self.documents, 'document')}: {', '.join(counts)}; "
        text += f"{counted(self.passages, 'passage')}, {self.encoded:,} encoded"
        if self.truncated:
            text += f" ({self.truncated:,} of them cut, {self.dropped:,} tokens not encoded)"
        rate = self.documents / self.seconds if self.seconds else 0.0
        return f"{text}, in {self.seconds:.1f} s" + (f" ({rate:,.0f} documents/s)" if rate >= 1 else "")


class Helpers(Protocol):
    """Others who prepare batches, each by itself and in any order: processes, or a cluster."""

    @property
    def ahead(self) -> int:
        """Batches that are handed over at most before the first of them is taken back."""
        ...

    def hand_over(self, task: Task) -> Future[Prepared]: ...


@dataclass(frozen=True)
class Compared:
    """Documents, each id once, compared with the store."""

    documents: Sequence[Document]
    known: Mapping[str, str]
    """Of those that the store has: id → digest."""
    task: Task
    """Those that changed."""


class Handed(NamedTuple):
    """A batch that a helper has."""

    size: int
    ids: Set[str]
    compared: Compared
    prepared: Future[Prepared]


@dataclass(frozen=True)
class Ingest:
    """Brings documents into a store, with the models that make its views (None: words alone)."""

    store: Kept
    encoder: PassageEncoder | None
    passages: Chunking
    translate: Translate | None = None
    encode: bool = True
    """False: passages are cut by the encoder's tokens but not encoded; `encode_missing` does that later."""
    cut_by: str = ""
    """How the documents that are there were cut, by what `cutting` was then: a migration lets them be. Empty: as it is now."""

    def add(
        self,
        documents: Iterable[Document],
        report: AddReport,
        progress: Callable[[int], None] | None = None,
        turn: Turn = nullcontext,
        helpers: Helpers | None = None,
    ) -> None:
        """Write all documents, a transaction a batch; what was written stays when a later document is refused.

        Each batch is compared, encoded and written within a `turn` of its own, and read outside of it. With `helpers`, these
        encode, several batches at a time, and only the writing has a turn; it goes in the order in which they were read, so
        that the outcome is the same.
        """
        started = perf_counter()
        batches = _batches(documents)
        added = self._added(batches, report, turn) if helpers is None else self._added_with(helpers, batches, report, turn)
        for done in added:
            report.seconds = perf_counter() - started
            if progress is not None:
                progress(done)

    def _added(self, batches: Iterator[list[Document]], report: AddReport, turn: Turn) -> Iterator[int]:
        """Yields how many more documents are done."""
        seen: set[bytes] = set()
        for batch in batches:
            with turn():
                compared = self._compare(_last_of_each(batch, seen, report))
                self._write(compared, self.preparation.prepare(compared.task), report)
            yield len(batch)

    def _added_with(self, helpers: Helpers, batches: Iterator[list[Document]], report: AddReport, turn: Turn) -> Iterator[int]:
        """The same with the batches' preparation by others. A batch with an id that one of those has waits for that one."""
        seen: set[bytes] = set()
        handed: deque[Handed] = deque()
        for batch in (reading := _Reading(batches)):
            documents = _last_of_each(batch, seen, report)
            ids = {document.id for document in documents}
            while handed and (len(handed) >= helpers.ahead or handed[0].prepared.done() or _share(ids, handed)):
                yield self._take_back(handed.popleft(), report, turn)
            compared = self._compare(documents)
            handed.append(Handed(len(batch), ids, compared, helpers.hand_over(compared.task)))
        while handed:
            yield self._take_back(handed.popleft(), report, turn)
        reading.tell()

    def _take_back(self, handed: Handed, report: AddReport, turn: Turn) -> int:
        """Write a batch; where others wrote one of its documents meanwhile, it is prepared once more, here."""
        prepared = handed.prepared.result()
        with turn():
            now = self._compare(handed.compared.documents)
            if now != handed.compared:
                prepared = self.preparation.prepare(now.task)
            self._write(now, prepared, report)
        return handed.size

    def _compare(self, documents: Sequence[Document]) -> Compared:
        documents = self._untranslated(documents)
        digests = {document.id: self._digest(document) for document in documents}
        known = self.store.known_digests(list(digests))
        changed = [document for document in documents if known.get(document.id) != digests[document.id]]
        there = self.store.passage_digests([document.id for document in changed])
        return Compared(documents, known, Task(changed, {one.id: digests[one.id] for one in changed}, there))

    def _write(self, compared: Compared, prepared: Prepared, report: AddReport) -> None:
        changed = compared.task.documents
        updated = [document for document in changed if document.id in compared.known]
        self._note_other_sources(updated, report)
        if prepared.documents:
            self.store.write(prepared.documents)
        _count(report, prepared.encoded)
        report.passages += prepared.passages
        report.unchanged += len(compared.documents) - len(changed)
        report.updated += len(updated)
        report.added += len(changed) - len(updated)

    def _untranslated(self, documents: Sequence[Document]) -> Sequence[Document]:
        """Where a document comes back as it was got, its translation is ours and no field of its own."""
        if self.translate is None or not any(self.translate.field in document.fields for document in documents):
            return documents
        field, stored = self.translate.field, self.store.get([document.id for document in documents])
        return [
            without_fields(new, [field]) if old is not None and old.fields.get(field) == new.fields.get(field) else new
            for old, new in zip(stored, documents, strict=True)
        ]

    def _note_other_sources(self, documents: Sequence[Document], report: AddReport) -> None:
        """Two files of one id, as of two folders that both hold a README.md: the later replaces the other."""
        for old, new in zip(self.store.get([document.id for document in documents]), documents, strict=True):
            if old is not None and old.source and new.source and old.source != new.source:
                report.problems.append(Problem(new.source, f"has the id of {old.source}, {new.id!r}, and replaced it", "note"))

    def encode_missing(
        self,
        store: Store,
        view: str,
        report: AddReport,
        progress: Callable[[int], None] | None = None,
        *,
        into: str | None = None,
    ) -> None:
        """Encode for `view` the passages that it, or the view `into` in its stead, has nothing of yet."""
        if self.encoder is None:
            return
        started = perf_counter()
        place = into or view
        kind = store.views()[place].kind
        for keys, texts in store.passages_without_vectors(place):
            encoded = self.encoder.encode(texts, [view])
            _count(report, encoded)
            vectors, dropped = zip(*encoded.vectors[view], strict=True)
            if kind == "tokens":
                store.set_tokens(place, keys, vectors, dropped)
            else:
                store.set_vectors(place, keys, np.stack(vectors), dropped)
            if progress is not None:
                progress(len(keys))
        report.seconds += perf_counter() - started

    @cached_property
    def preparation(self) -> Preparation:
        """What needs the models, and no store."""
        return Preparation(self.encoder, self.passages, self.translate, self.encode)

    @property
    def cutting(self) -> str:
        """How these models would have documents cut."""
        return self.preparation.cutting

    def _digest(self, document: Document) -> str:
        """Equal digests: the same document, cut in the same way."""
        content = [document.title, document.text, document.source, dict(document.fields)]
        settings: list[object] = json.loads(self.cut_by or self.cutting)
        if self.passages.also or self.translate is not None:
            settings += [self.passages.also, None if self.translate is None else self.translate.fingerprint]
        return digest(json.dumps([content, settings], sort_keys=True, ensure_ascii=False))


def _count(report: AddReport, encoded: Encoded) -> None:
    report.encoded += encoded.texts
    report.tokens += encoded.tokens
    report.truncated += encoded.truncated
    report.dropped += encoded.dropped


def _last_of_each(batch: Sequence[Document], seen: set[bytes], report: AddReport) -> list[Document]:
    """The batch with each id once; those that came before are counted, by their digests in `seen` those of earlier batches."""
    latest = {document.id: document for document in batch}
    identities = {_short_digest(document_id) for document_id in latest}
    report.repeated += len(batch) - len(latest) + len(identities & seen)
    seen |= identities
    return list(latest.values())


def _share(ids: Set[str], handed: Iterable[Handed]) -> bool:
    """Whether a batch has one of these."""
    return any(not ids.isdisjoint(one.ids) for one in handed)


class _Reading:
    """Batches as they are read; what stopped the reading is told later, when those before it are written."""

    def __init__(self, batches: Iterator[list[Document]]) -> None:
        self._batches = batches
        self._stopped: Exception | None = None

    def __iter__(self) -> Iterator[list[Document]]:
        try:
            yield from self._batches
        except Exception as error:
            self._stopped = error

    def tell(self) -> None:
        if self._stopped is not None:
            raise self._stopped


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text)
        if len(batch) >= BATCH_DOCUMENTS or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _short_digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()
