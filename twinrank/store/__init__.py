"""DOCUMENTS → ROWS: documents, passages, fields, vectors and the log of changes in one SQLite file; the only room with SQLite.

It holds the truth: everything else on disk is derived from here and may be deleted. What `write` or `delete` returned from
is on the disk: WAL with `synchronous=FULL`, one transaction a call. Every row carries a checksum, so that `check` finds a
flipped bit. A passage keeps its key for as long as its document holds a passage of the same text, so that an update costs
indexes and encoders only what changed; a key is never used twice.
"""

from __future__ import annotations

from twinrank.store.database import FILE_NAME, make_folder
from twinrank.store.kept import Kept
from twinrank.store.locks import CREATING
from twinrank.store.records import (
    ChangeKind,
    DocumentInfo,
    FieldSummary,
    FieldValues,
    PreparedDocument,
    PreparedPassage,
    View,
    ViewKind,
)
from twinrank.store.store import Store

__all__ = [
    "CREATING",
    "FILE_NAME",
    "ChangeKind",
    "DocumentInfo",
    "FieldSummary",
    "FieldValues",
    "Kept",
    "PreparedDocument",
    "PreparedPassage",
    "Store",
    "View",
    "ViewKind",
    "make_folder",
]
