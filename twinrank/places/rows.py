"""Documents ↔ rows of an engine: each passage carries its share of the document, so that nothing is kept twice or lost.

A document is its rows of one version: the digest of its content. An update writes the new version's rows, under keys of their
own, before it removes the old ones; a crash between leaves both, of which the newer whole one counts, and the next `add` of
the document, or `rebuild`, removes the other.

Fields lie in every row, for conditions to be over; but for long ones, which would multiply a document by its passages: they are
in the payload of row 0 alone.
"""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import numpy as np

from twinrank.errors import DocumentError, StorageError
from twinrank.index.engines import Row
from twinrank.parts import part_of
from twinrank.quantization import PackedTokens, TokenCodec
from twinrank.store import PreparedDocument, PreparedPassage, View
from twinrank.types import Document, Passage, Value, Vectors

BUILT_IN = ("id", "title", "source")
"""Names that conditions know beside a document's fields."""

LONGEST = 1000
"""Characters of a text that conditions can be over; a field with a longer one is a long field."""


@dataclass(frozen=True, slots=True)
class Known:
    """One row of a document as it was read back: what twinrank keeps in the payload."""

    row: Row
    version: str
    """The document's digest."""
    written: int
    """When, in nanoseconds since 1970: of two whole versions the newer one counts."""
    passages: int
    """How many rows the version has."""
    text: str
    start: int
    end: int
    part: str
    digest: str
    """Of what was encoded."""
    dropped: Mapping[str, int]
    """View → tokens that did not fit."""
    before: str
    """What of the document's text stands between the passage before and this one."""
    after: str
    """What stands behind the last passage of the text."""
    shadowed: Mapping[str, Value]
    """Fields that have the name of something built in."""
    long: Mapping[str, Value] | None
    """The document's long fields in row 0, none of them in its other rows; None where it has none."""
    tokens: str = ""
    """The passage's token vectors as stored, in base85; empty where none are kept."""

    @classmethod
    def read(cls, row: Row) -> Known:
        """Raises StorageError where the payload is not what `rows_of` wrote."""
        try:
            told = json.loads(row.payload)
            return cls(
                row,
                told["v"],
                told["w"],
                told["n"],
                told["t"],
                told["s"],
                told["e"],
                told.get("p", ""),
                told["d"],
                told.get("x", {}),
                told.get("b", ""),
                told.get("a", ""),
                told.get("f", {}),
                told.get("l"),
                told.get("k", ""),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(
                f"row {row.key} of document {row.document!r} is not one that twinrank wrote ({error!r}); who else writes there?"
            ) from error

    @property
    def title(self) -> str:
        return str(self.row.fields.get("title", ""))

    @property
    def source(self) -> str:
        return str(self.row.fields.get("source", ""))

    @property
    def fields(self) -> dict[str, Value]:
        """The document's own; in rows other than 0 without the long ones."""
        short = {name: value for name, value in self.row.fields.items() if name not in BUILT_IN}
        return short | dict(self.shadowed) | dict(self.long or {})

    @property
    def passage(self) -> Passage:
        title = "" if self.part else self.title
        return Passage(self.row.document, self.row.number, self.start, self.end, self.text, title, self.row.key, self.part)

    @property
    def blob(self) -> bytes:
        """The token vectors as they are stored; raises StorageError where there are none."""
        if not self.tokens:
            raise StorageError(
                f"row {self.row.key} of document {self.row.document!r} holds no token vectors; delete it and add it again"
            )
        return base64.b85decode(self.tokens)

    def packed(self, codec: TokenCodec) -> PackedTokens:
        return codec.unpack([self.blob])


def key_of(document: str, version: str, number: int, salt: int = 0) -> int:
    """A row's key: 63 bits of a digest, from 1."""
    text = json.dumps([document, version, number, salt])
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") % (2**63 - 1) + 1


def document_key(document: str) -> int:
    """What stands for a document while the passages of one search are grouped."""
    return key_of(document, "", 0)


def rows_of(
    prepared: PreparedDocument,
    written: int,
    vectors: Sequence[Vectors | None],
    tokens: Sequence[str],
    terms: Sequence[tuple[str, ...]],
    dropped: Sequence[Mapping[str, int]],
) -> list[Row]:
    """The rows of one document, number by number; of each its vector, tokens, terms, and tokens that did not fit by view."""
    document, covered, rows = prepared.document, 0, []
    shared: dict[str, Any] = {"v": prepared.digest, "w": written, "n": len(prepared.passages)}
    long = {name: value for name, value in document.fields.items() if is_long(value)}
    if shadowed := {name: value for name, value in document.fields.items() if name in BUILT_IN and name not in long}:
        shared["f"] = shadowed
    fields = filter_fields(document)
    last = max((number for number, one in enumerate(prepared.passages) if not one.part), default=0)
    for number, one in enumerate(prepared.passages):
        text = part_of(document, one.part)
        if text is None or not 0 <= one.start <= one.end <= len(text):
            raise DocumentError(f"passage {number} of document {document.id!r} lies outside its text")
        told = shared | {"t": text[one.start : one.end], "s": one.start, "e": one.end, "d": one.digest}
        told |= {"p": one.part} if one.part else {}
        told |= {"l": {} if number else long} if long else {}
        told |= {"x": dict(dropped[number])} if dropped[number] else {}
        told |= {"k": tokens[number]} if tokens[number] else {}
        if not one.part:
            if one.start > covered:
                told["b"] = text[covered : one.start]
            covered = max(covered, one.end)
        if number == last and document.text[covered:]:
            told["a"] = document.text[covered:]
        payload = json.dumps(told, ensure_ascii=False, separators=(",", ":"))
        key = key_of(document.id, prepared.digest, number)
        rows.append(Row(key, document.id, number, payload, fields, terms[number], vectors[number]))
    return rows


def filter_fields(document: Document) -> dict[str, Value]:
    """What conditions are over; an empty title or source counts as missing, and long fields are not there."""
    fields = {name: value for name, value in document.fields.items() if name not in BUILT_IN and not is_long(value)}
    named = {"id": document.id, "title": document.title, "source": document.source}
    return fields | {name: value for name, value in named.items() if value}


def is_long(value: Value) -> bool:
    """Whether a field's value is a text that conditions cannot be over, or a list that holds one."""
    return any(isinstance(one, str) and len(one) > LONGEST for one in (value if isinstance(value, (list, tuple)) else [value]))


def packed_text(codec: TokenCodec, vectors: Vectors | bytes) -> str:
    """Token vectors as they are kept in a payload."""
    return base64.b85encode(vectors if isinstance(vectors, bytes) else codec.encode(vectors)).decode()


def by_document(rows: Iterable[Row]) -> dict[str, list[list[Known]]]:
    """Document → its versions, the one that counts first, each with its rows by number."""
    found: dict[str, dict[str, list[Known]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        known = Known.read(row)
        found[row.document][known.version].append(known)
    return {
        document: sorted(
            (sorted(rows, key=lambda one: one.row.number) for rows in versions.values()),
            key=lambda rows: (is_whole(rows), rows[0].written, rows[0].version),
            reverse=True,
        )
        for document, versions in found.items()
    }


def is_whole(rows: Sequence[Known]) -> bool:
    """Whether these are all rows of their version, by number."""
    return [one.row.number for one in rows] == list(range(rows[0].passages))


def document_of(rows: Sequence[Known]) -> Document:
    """A document from the rows of a whole version."""
    text = ""
    for one in rows:
        if not one.part:
            text += one.before
            text += one.text[len(text) - one.start :]
    text += "".join(one.after for one in rows)
    first = rows[0]
    return Document(first.row.document, text, first.title, first.fields, first.source)


def prepared_of(rows: Sequence[Known], views: Sequence[View]) -> PreparedDocument:
    """All that `write` needs to have the document of a whole version again elsewhere."""
    passages = []
    for one in rows:
        vectors: dict[str, tuple[Vectors | bytes | None, int] | None] = {}
        for view in views:
            kept = one.row.vector if view.kind == "vector" else one.blob
            vectors[view.name] = kept, one.dropped.get(view.name, 0)
        passages.append(PreparedPassage(one.start, one.end, one.digest, vectors, one.part))
    return PreparedDocument(document_of(rows), rows[0].version, passages)


def with_salt(row: Row, version: str, salt: int) -> Row:
    """The row under another key, where another document's row has the one that it should have."""
    return replace(row, key=key_of(row.document, version, row.number, salt))


def text_of(document: Document, passage: PreparedPassage) -> str:
    """What the word index sees of a passage: the title before the document's own text."""
    text = (part_of(document, passage.part) or "")[passage.start : passage.end]
    title = "" if passage.part else document.title
    return Passage(document.id, 0, passage.start, passage.end, text, title).titled_text


def finite(vector: Vectors | None, dimension: int) -> bool:
    """Whether a vector can be searched: there, of this dimension, without NaN or infinity, and not zero."""
    return vector is not None and vector.shape == (dimension,) and bool(np.isfinite(vector).all()) and bool(vector.any())
