"""What goes into the store and what comes out of it: prepared documents, views, and what hits say of a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from twinrank.types import Document, Value

ChangeKind: TypeAlias = Literal["add", "remove"]
FieldKind: TypeAlias = Literal["number", "text", "boolean", "null"]


@dataclass(frozen=True, slots=True)
class PreparedPassage:
    """A passage ready to be written: where it lies, the digest of what is encoded of it, and its vectors by view."""

    start: int
    end: int
    digest: str
    vectors: Mapping[str, tuple[npt.NDArray[np.float32] | None, int] | None] = field(default_factory=dict)
    """View → (vector (dimension,), tokens dropped). Where it is None or missing, the vector of the document's passage of
    the same digest is taken over."""


@dataclass(frozen=True, slots=True)
class PreparedDocument:
    """A document with its passages in order, and a digest by which the caller knows it again when nothing changed."""

    document: Document
    digest: str
    passages: Sequence[PreparedPassage]


@dataclass(frozen=True, slots=True)
class View:
    """What is kept of one model's vectors: whose they are, and whether every passage has one."""

    name: str
    model: str
    fingerprint: str
    dimension: int
    settings: Mapping[str, Any]
    complete: bool
    """Once complete, a view stays so: `write` refuses passages without its vector."""
    key: int


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
