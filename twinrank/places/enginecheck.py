"""What is wrong with the rows of a collection in an engine, and what interrupted updates left among them."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from twinrank.encoding import TOKENS, VECTORS
from twinrank.errors import InputError, StorageError
from twinrank.index.engines import Row
from twinrank.places.rows import Known, finite, is_whole
from twinrank.quantization import TokenCodec
from twinrank.store import View

STALE = 3600.0
"""Seconds after which a version that is not whole counts as left behind, not as being written."""


def problems(batches: Iterable[Sequence[Row]], views: Mapping[str, View]) -> list[str]:
    """What is wrong with these rows, which are all: is each ours, are its vectors there, is every document whole, once?"""
    found: list[str] = []
    versions: dict[str, dict[str, list[tuple[int, int, int]]]] = defaultdict(lambda: defaultdict(list))
    for row in (row for batch in batches for row in batch):
        try:
            known = Known.read(row)
        except StorageError as error:
            found.append(str(error))
            continue
        versions[row.document][known.version].append((row.number, known.passages, known.written))
        found += _problems_of(known, views)
    for document, rows in versions.items():
        found += _unfinished(document, list(rows.values()))
    return found


def _problems_of(known: Known, views: Mapping[str, View]) -> Iterator[str]:
    name = f"row {known.row.number} of document {known.row.document!r}"
    if VECTORS in views and not finite(known.row.vector, views[VECTORS].dimension):
        yield f"{name} has no usable vector; delete the document and add it again"
    if TOKENS in views and not _has_tokens(known, views[TOKENS].codec):
        yield f"{name} lacks its tokens; delete the document and add it again"


def _has_tokens(known: Known, codec: TokenCodec) -> bool:
    try:
        return bool(known.tokens) and len(known.packed(codec)) == 1
    except (InputError, ValueError):
        return False


def _unfinished(document: str, versions: Sequence[Sequence[tuple[int, int, int]]]) -> Iterator[str]:
    """What is wrong with a document's versions, each the numbers of its rows, with how many it has and when it was written."""
    written = [rows[0][2] for rows in versions]
    whole = [rows[0][2] for rows in versions if sorted(number for number, _, _ in rows) == list(range(rows[0][1]))]
    if not whole:
        yield f"document {document!r} is there in part only: adding it was interrupted; add it again"
    elif max(written) > max(whole):
        yield (
            f"document {document!r} is being updated, or that was interrupted: add it again; of what is older than "
            f"{STALE / 3600:.0f} hour, twinrank rebuild removes the rest"
        )
    elif len(versions) > 1:
        yield f"document {document!r} is there in {len(versions)} versions: twinrank rebuild removes the older"


def left_behind(versions: Sequence[Sequence[Known]]) -> list[Known]:
    """The rows of a document that an interrupted update left beside the version that counts, which is the first.

    Rows of a version that is newer than that are left behind when they are old: they may be just being written, and whoever
    writes them then removes the whole version.
    """
    first, *others = versions
    if not is_whole(first):
        return []
    stale = max(first[0].written, time.time_ns() - int(STALE * 1e9))
    return [one for rows in others if rows[0].written <= stale for one in rows]
