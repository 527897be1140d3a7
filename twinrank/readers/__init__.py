"""FILES → DOCUMENTS: whatever the user gives, files and folders or records in memory, as a stream of checked Documents."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from twinrank.errors import DataError, DocumentError
from twinrank.readers.files import OnProblem, Problem, estimate, files_of, read, read_within, source_of
from twinrank.readers.judged import Dataset, read_dataset, read_qrels, read_queries
from twinrank.readers.records import document
from twinrank.types import Document

__all__ = [
    "Dataset",
    "Problem",
    "document",
    "documents",
    "estimate",
    "files_of",
    "read",
    "read_dataset",
    "read_qrels",
    "read_queries",
    "read_within",
    "source_of",
]


def documents(source: object, *, on_problem: OnProblem | None = None) -> Iterator[Document]:
    """The documents of whatever a user has: one (a mapping, a dataclass instance, a Document), an iterable of these (read
    as a stream), a pandas or polars DataFrame with a column `id`, or the path of a file or folder (see `read`).

    Text that is no existing path is refused with DataError, and a record that is no document with DocumentError.

    >>> [found.id for found in documents([{"id": "a", "text": "Zinc."}, {"id": "b", "title": "Cold"}])]
    ['a', 'b']
    """
    if isinstance(source, (str, os.PathLike)):
        return _read_path(source, on_problem)
    if isinstance(source, (Document, Mapping)) or (dataclasses.is_dataclass(source) and not isinstance(source, type)):
        return iter([document(source)])
    if hasattr(source, "columns") and (hasattr(source, "iter_rows") or hasattr(source, "itertuples")):
        return _of_records(_rows_of(source))
    if isinstance(source, Iterable) and not isinstance(source, (bytes, bytearray)):
        return _of_records(source)
    raise DocumentError(
        f"cannot read documents from {type(source).__name__}: give a mapping, an iterable of mappings, a DataFrame, "
        "or the path of a file or folder"
    )


def _read_path(path: str | os.PathLike[str], on_problem: OnProblem | None) -> Iterator[Document]:
    try:
        exists = os.path.lexists(path)
    except (OSError, ValueError):
        exists = False
    if not exists:
        raise DataError(
            f"there is no file or folder {str(path)[:200]!r}; to add a text by itself, give it an id: "
            '{"id": "1", "text": "…"}'
        )
    return read(Path(path), on_problem=on_problem)


def _of_records(records: Iterable[object]) -> Iterator[Document]:
    for number, record in enumerate(records, start=1):
        try:
            found = document(record)
        except DocumentError as error:
            raise DocumentError(f"record {number}: {error}") from None
        yield found


def _rows_of(table: Any) -> Iterator[Mapping[str, object]]:
    """The rows of a DataFrame as mappings; what is missing there (NaN, NaT, NA) is None."""
    columns = [str(column) for column in table.columns]
    if "id" not in columns and "_id" not in columns:
        raise DocumentError(f"the DataFrame has no column 'id'; it has {', '.join(map(repr, columns))}")
    rows = table.iter_rows() if hasattr(table, "iter_rows") else table.itertuples(index=False, name=None)
    for row in rows:
        yield {column: None if _is_missing(value) else value for column, value in zip(columns, row, strict=True)}


def _is_missing(value: object) -> bool:
    if type(value).__name__ == "NAType":  # pandas.NA, which refuses to be compared
        return True
    return isinstance(value, (float, np.floating, datetime)) and value != value  # pandas.NaT is a datetime
