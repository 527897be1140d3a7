"""What goes into the store and what comes out of it: prepared documents, views, and what hits say of a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from twinrank.conditions import FieldKind
from twinrank.quantization import TokenCodec
from twinrank.types import Document, Value

ChangeKind: TypeAlias = Literal["add", "remove"]
ViewKind: TypeAlias = Literal["vector", "tokens"]
"""What a view keeps of a passage: one vector, or one for each of its tokens."""


@dataclass(frozen=True, slots=True)
class PreparedPassage:
    """A passage ready to be written: where it lies in what part of its document, the digest of what is encoded of it, and its
    vectors by view."""

    start: int
    end: int
    digest: str
    vectors: Mapping[str, tuple[npt.NDArray[np.float32] | bytes | None, int] | None] = field(default_factory=dict)
    """View → (vector, tokens dropped); the vector is (dimension,), in a view of tokens (tokens, dimension) or, as it is stored,
    bytes. Where it is None or missing, what the view keeps of the document's passage of the same digest is taken over."""
    part: str = ""


@dataclass(frozen=True, slots=True)
class PreparedDocument:
    """A document with its passages in order, and a digest by which the caller knows it again when nothing changed."""

    document: Document
    digest: str
    passages: Sequence[PreparedPassage]


@dataclass(frozen=True, slots=True)
class View:
    """What is kept of one model's vectors: whose they are, of what kind, and whether every passage has its own."""

    name: str
    kind: ViewKind
    model: str
    fingerprint: str
    dimension: int
    settings: Mapping[str, Any]
    """What the caller wants kept with it; of a view of tokens, `format` says how they are stored."""
    complete: bool
    """Once complete, a view stays so: `write` refuses passages without its vector."""
    key: int

    @property
    def codec(self) -> TokenCodec:
        """How the vectors of a view of tokens become bytes."""
        return TokenCodec(self.settings["format"], self.dimension)


@dataclass(frozen=True, slots=True)
class DocumentInfo:
    """A document without its text, for hits."""

    key: int
    id: str
    title: str
    source: str
    fields: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class FieldSummary:
    """How a field is used: documents that hold each type of value, and documents that hold the field at all."""

    types: Mapping[FieldKind, int]
    documents: int
    long: bool = False
    """Whether it holds texts that are too long for conditions, as in an engine; it is not counted then."""


@dataclass(frozen=True, slots=True)
class FieldValues:
    """The values of one type that a field has: what one may choose among."""

    kind: FieldKind
    documents: int
    low: str | int | float
    high: str | int | float
    values: tuple[tuple[str | int | float, int], ...]
    """Each value with the number of documents that hold it, most frequent first; none where there are too many to list."""
