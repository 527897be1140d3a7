"""Documents → what the store keeps: cut into passages, compared with what is there, encoded where a passage is new."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from time import perf_counter
from typing import NamedTuple, Protocol

import numpy as np

from twinrank.encoding import Encoded, PassageEncoder
from twinrank.parts import parts_of, without_fields
from twinrank.readers import Problem
from twinrank.store import Kept, PreparedDocument, PreparedPassage, Store
from twinrank.text import Chunking, Span, chunk, counted
from twinrank.types import Document, Vectors

BATCH_DOCUMENTS = 256
BATCH_CHARACTERS = 400_000
"""A batch is written in one transaction; its size bounds the memory that an endless iterable takes."""


SMALLEST = 8
"""Tokens that a passage has room for whatever the encoder's own tokens take."""

WORD = re.compile(r"\S+")


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


class Translate(Protocol):
    """Adds a translation to documents, as a field."""

    @property
    def field(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    def __call__(self, documents: Sequence[Document]) -> list[Document]: ...


class Cut(NamedTuple):
    """A passage before it is encoded."""

    start: int
    end: int
    digest: str
    text: str
    """With the title, where it carries that."""
    part: str


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
        turn: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Write all documents, a transaction a batch; what was written stays when a later document is refused.

        Each batch is compared, encoded and written within a `turn` of its own, and read outside of it.
        """
        started = perf_counter()
        seen: set[bytes] = set()
        for batch in _batches(documents):
            with turn():
                self._add_batch(batch, seen, report)
            report.seconds = perf_counter() - started
            if progress is not None:
                progress(len(batch))

    def _add_batch(self, batch: Sequence[Document], seen: set[bytes], report: AddReport) -> None:
        latest = {document.id: document for document in self._untranslated(batch)}
        identities = {_short_digest(document_id) for document_id in latest}
        report.repeated += len(batch) - len(latest) + len(identities & seen)
        seen |= identities
        digests = {document_id: self._digest(document) for document_id, document in latest.items()}
        known = self.store.known_digests(list(latest))
        changed = [document for document in latest.values() if known.get(document.id) != digests[document.id]]
        self._note_other_sources([document for document in changed if document.id in known], report)
        if self.translate is not None:
            changed = self.translate(changed)
        prepared = self._prepare(changed, digests, report)
        if prepared:
            self.store.write(prepared)
        report.unchanged += len(latest) - len(changed)
        report.updated += sum(document.id in known for document in changed)
        report.added += sum(document.id not in known for document in changed)

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

    def _prepare(self, documents: Sequence[Document], digests: dict[str, str], report: AddReport) -> list[PreparedDocument]:
        """Cut the documents and encode those of their passages that the store has no vector of."""
        cut = [(document, self._cut(document)) for document in documents]
        stored = self.store.passage_digests([document.id for document in documents])
        fresh: dict[str, str] = {}  # digest → text, each text encoded once even where documents share it
        for document, passages in cut:
            there = stored.get(document.id, ())
            fresh.update({one.digest: one.text for one in passages if one.digest not in there})
        vectors = self._encode(fresh, report) if self.encode else {}
        report.passages += sum(len(passages) for _, passages in cut)
        return [
            PreparedDocument(
                document,
                digests[document.id],
                [PreparedPassage(one.start, one.end, one.digest, vectors.get(one.digest, {}), one.part) for one in passages],
            )
            for document, passages in cut
        ]

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

    def _encode(self, texts: dict[str, str], report: AddReport) -> dict[str, dict[str, tuple[Vectors, int]]]:
        """Digest → view → vectors; what has none takes over those of the document's passage of the same digest."""
        if self.encoder is None or not texts:
            return {}
        encoded = self.encoder.encode(list(texts.values()))
        _count(report, encoded)
        return {
            digest: {view: vectors[place] for view, vectors in encoded.vectors.items()} for place, digest in enumerate(texts)
        }

    def _cut(self, document: Document) -> list[Cut]:
        """Every passage of the document's text, which carry its title, and of the other texts that give passages."""
        also = (*self.passages.also, *(() if self.translate is None else (self.translate.field,)))
        found = self._cut_text(document.text, document.title, "")
        for part, text in parts_of(document, list(dict.fromkeys(also))):
            found += self._cut_text(text, "", part)
        return found

    def _cut_text(self, text: str, title: str, part: str) -> list[Cut]:
        token_spans = _word_spans if self.encoder is None else self.encoder.counting.token_offsets
        passages = []
        for start, end in chunk(text, title, token_spans=token_spans, size=self._size, overlap=self._overlap):
            titled = f"{title} {text[start:end]}".strip()
            passages.append(Cut(start, end, _digest(titled), titled, part))
        return passages

    @cached_property
    def _size(self) -> int:
        """How many tokens of title and text go into one passage: the encoder's own tokens and its prompt take their part."""
        if self.encoder is None or self.passages.size == 0:
            return self.passages.size
        model = self.encoder.counting
        around = int(model.tokenize([""]).lengths[0])
        return max(min(self.passages.size, model.max_tokens) - around, SMALLEST)

    @property
    def _overlap(self) -> int:
        """Where the encoder takes less than the recipe's size, no more than half a passage is repeated."""
        return min(self.passages.overlap, self._size // 2) if self._size else 0

    @property
    def cutting(self) -> str:
        """How these models would have documents cut."""
        cut_by = None if self.encoder is None else self.encoder.counting.fingerprint.split(":")[0]
        return json.dumps([self._size, self.passages.overlap, cut_by])

    def _digest(self, document: Document) -> str:
        """Equal digests: the same document, cut in the same way."""
        content = [document.title, document.text, document.source, dict(document.fields)]
        settings: list[object] = json.loads(self.cut_by or self.cutting)
        if self.passages.also or self.translate is not None:
            settings += [self.passages.also, None if self.translate is None else self.translate.fingerprint]
        return _digest(json.dumps([content, settings], sort_keys=True, ensure_ascii=False))


def _count(report: AddReport, encoded: Encoded) -> None:
    report.encoded += encoded.texts
    report.tokens += encoded.tokens
    report.truncated += encoded.truncated
    report.dropped += encoded.dropped


def _word_spans(text: str) -> list[Span]:
    """What passages are counted in where no encoder is there to count in its tokens."""
    return [word.span() for word in WORD.finditer(text)]


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


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _short_digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()
