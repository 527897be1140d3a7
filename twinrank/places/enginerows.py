"""What is written of a document to an engine: its rows, with the vectors that came or were there, if the engine takes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from twinrank.errors import DocumentError, InputError
from twinrank.index.engines import Limits, Row
from twinrank.places.rows import LONGEST, Known, finite, packed_text, rows_of, text_of
from twinrank.store import PreparedDocument, View
from twinrank.text import Analyzer
from twinrank.types import Vectors


def written(
    one: PreparedDocument, versions: Sequence[Sequence[Known]], now: int, views: Mapping[str, View], analyzer: Analyzer
) -> list[Row]:
    """The rows of a document, with the vectors that came and those that its passages have in its versions.

    `now` is in nanoseconds. Raises InputError where a passage has no vector for a view, or none that can be searched.
    """
    before = {known.digest: known for rows in versions for known in rows}
    vectors: list[Vectors | None] = []
    tokens: list[str] = []
    terms: list[tuple[str, ...]] = []
    dropped: list[dict[str, int]] = []
    for number, passage in enumerate(one.passages):
        name = f"passage {number} of document {one.document.id!r}"
        vector, packed, kept, cut = None, "", before.get(passage.digest), {}
        for view in views.values():
            came = passage.vectors.get(view.name)
            given, lost = (None, 0) if came is None else came
            if given is None and kept is not None:
                lost = kept.dropped.get(view.name, 0)
            if lost:
                cut[view.name] = lost
            if view.kind == "vector":
                assert not isinstance(given, bytes)
                vector = given if given is not None else None if kept is None else kept.row.vector
                _check_vector(vector, view, name)
            elif given is not None:
                packed = packed_text(view.codec, given)
            elif kept is not None and kept.tokens:
                packed = kept.tokens
            else:
                raise InputError(f"{name} came without a vector for view {view.name!r}, which is complete")
        vectors.append(vector)
        tokens.append(packed)
        dropped.append(cut)
        text = text_of(one.document, passage)
        terms.append(tuple(analyzer(text)))
    return rows_of(one, now, vectors, tokens, terms, dropped)


def _check_vector(vector: Vectors | None, view: View, name: str) -> None:
    if vector is None:
        raise InputError(f"{name} came without a vector for view {view.name!r}, which is complete")
    if not finite(vector, view.dimension):
        raise InputError(
            f"{name} came with a vector for view {view.name!r} that is zero, not finite or not of {view.dimension}"
        )


def check_limits(rows: Sequence[Row], limits: Limits, title: str) -> None:
    """Raises DocumentError for what an engine, called `title`, does not take."""
    for row in rows:
        long = Known.read(row).long if len(row.payload.encode()) > limits.payload else None
        shorter = f"shorten its fields of over {LONGEST:,} characters ({', '.join(long)})" if long else ""
        sizes = {
            "id takes": (len(row.document.encode()), limits.document, "shorten it"),
            "passage with all that belongs to it takes": (
                len(row.payload.encode()),
                limits.payload,
                shorter or "cut smaller passages",
            ),
            "fields, with title and source, take": (
                len(json.dumps(dict(row.fields)).encode()),
                limits.fields,
                "shorten them, or put them into documents of their own",
            ),
        }
        for what, (size, most, way) in sizes.items():
            if size > most:
                raise DocumentError(
                    f"document {row.document!r}: its {what} {size:,} bytes, and {title} keeps {most:,} at most; {way}"
                )
