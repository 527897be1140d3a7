"""Documents → passages with their vectors, by the models alone: no store is asked, so that it can be done anywhere."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple, Protocol

from twinrank.encoding import Encoded, PassageEncoder
from twinrank.parts import parts_of
from twinrank.store import PreparedDocument, PreparedPassage
from twinrank.text import Chunking, Span, chunk
from twinrank.types import Document, Vectors

SMALLEST = 8
"""Tokens that a passage has room for whatever the encoder's own tokens take."""

WORD = re.compile(r"\S+")


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
class Task:
    """Documents that are to be prepared, each id once, with what the store knows of them."""

    documents: Sequence[Document]
    digests: Mapping[str, str]
    """Document id → the digest by which the store is to know the document again."""
    there: Mapping[str, set[str]]
    """Document id → the digests of those of its passages that the store holds; these need not be encoded."""

    @property
    def told(self) -> str:
        """Whose it is, for messages."""
        first, last = (repr(self.documents[place].id) for place in (0, -1))
        return f"document {first}" if len(self.documents) == 1 else f"the {len(self.documents):,} documents {first} to {last}"


@dataclass(frozen=True)
class Prepared:
    """What became of a task: what `Store.write` takes, and what it cost."""

    documents: Sequence[PreparedDocument] = ()
    encoded: Encoded = field(default_factory=Encoded)
    """Its counts; the vectors are with the passages."""

    @property
    def passages(self) -> int:
        return sum(len(document.passages) for document in self.documents)


@dataclass(frozen=True)
class Preparation:
    """Cuts documents and encodes their passages: equal models and settings give equal results, in whatever process."""

    encoder: PassageEncoder | None
    """None: words alone."""
    passages: Chunking
    translate: Translate | None = None
    encode: bool = True
    """False: passages are cut by the encoder's tokens but not encoded."""

    def prepare(self, task: Task) -> Prepared:
        """Translate and cut the documents, and encode those of their passages that the store has no vectors of."""
        documents = task.documents if self.translate is None else self.translate(task.documents)
        cut = [(document, self._cut(document)) for document in documents]
        fresh: dict[str, str] = {}  # digest → text, each text encoded once even where documents share it
        for document, passages in cut:
            there = task.there.get(document.id, ())
            fresh.update({one.digest: one.text for one in passages if one.digest not in there})
        vectors, encoded = self._encode(fresh) if self.encode else ({}, Encoded())
        prepared = [
            PreparedDocument(
                document,
                task.digests[document.id],
                [PreparedPassage(one.start, one.end, one.digest, vectors.get(one.digest, {}), one.part) for one in passages],
            )
            for document, passages in cut
        ]
        return Prepared(prepared, encoded)

    def _encode(self, texts: dict[str, str]) -> tuple[dict[str, dict[str, tuple[Vectors, int]]], Encoded]:
        """Digest → view → vectors; what has none takes over those of the document's passage of the same digest."""
        if self.encoder is None or not texts:
            return {}, Encoded()
        encoded = self.encoder.encode(list(texts.values()))
        found = {
            digest: {view: vectors[place] for view, vectors in encoded.vectors.items()} for place, digest in enumerate(texts)
        }
        return found, replace(encoded, vectors={})

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
            passages.append(Cut(start, end, digest(titled), titled, part))
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


def _word_spans(text: str) -> list[Span]:
    """What passages are counted in where no encoder is there to count in its tokens."""
    return [word.span() for word in WORD.finditer(text)]


def digest(text: str) -> str:
    """By which a text is known again."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
