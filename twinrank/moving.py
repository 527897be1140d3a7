"""A collection copied from one place to another, folder or engine: documents with their vectors, and nothing encoded again."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from twinrank.calibrated import FILE as CALIBRATION
from twinrank.collection import CUT, TRANSLATED, Collection
from twinrank.encoding import NEXT, VECTORS
from twinrank.errors import CollectionError
from twinrank.places import is_address, place_of
from twinrank.store import Kept, PreparedDocument
from twinrank.text import counted
from twinrank.weighing import AGREEMENT

AT_ONCE = 200
"""Documents copied at a time."""

SAMPLE = 200
"""Documents, drawn by chance, that are compared in the end."""


@dataclass
class CopyReport:
    """What was copied, and how it was verified."""

    documents: int = 0
    """That the source held when it began."""
    there: int = 0
    """Of them, those that were there already, unchanged."""
    copied: int = 0
    passages: int = 0
    """Of the documents copied."""
    others: int = 0
    """Documents in the target that the source does not have."""
    compared: int = 0
    """Documents that were read from both places in the end, and were the same."""
    seconds: float = 0.0

    def __str__(self) -> str:
        others = f"; {counted(self.others, 'document')} there that the source does not have" if self.others else ""
        copied = f"{self.copied:,} copied with {counted(self.passages, 'passage')}, {self.there:,} there already"
        return (
            f"{counted(self.documents, 'document')}: {copied}, in {self.seconds:.1f} s; none is missing{others}; "
            f"{counted(self.compared, 'document')} drawn by chance are the same in both places"
        )


def copy(
    source: Collection, target: str | Path, *, progress: Callable[[int], None] | None = None, sample: int = SAMPLE
) -> CopyReport:
    """Copy documents, vectors, recipe and calibration to a path or an address, without opening a model.

    What is there already, unchanged, is not written again, so that the same call goes on where one was interrupted. The counts
    and `sample` documents are compared in the end. Raises ModelMismatchError where the target has vectors of another model, and
    CollectionError where what was read back is not what was written.
    """
    begun, report = perf_counter(), CopyReport()
    store = _opened(source, target)
    try:
        ids = list(source.store.document_ids())
        report.documents = len(ids)
        for start in range(0, len(ids), AT_ONCE):
            _copy_some(source.store, store, ids[start : start + AT_ONCE], report)
            if progress is not None:
                progress(len(ids[start : start + AT_ONCE]))
    finally:
        store.close()
    with Collection(target, create=False) as made:
        if not is_address(target):
            made.rebuild()
        else:
            made.settle()
        if (calibration := source.read_text(CALIBRATION)) is not None:
            made.write_text(CALIBRATION, calibration)
        _verify(source, made, ids, report, sample)
    report.seconds = perf_counter() - begun
    return report


def _opened(source: Collection, target: str | Path) -> Kept:
    """The target's store, made where it is not there yet, with the source's views and settings."""
    place = place_of(target)
    if place.where == source.path:
        raise CollectionError(f"{source.path} cannot be copied to itself; name another place")
    views = {name: view for name, view in source.store.views().items() if view.complete and not name.endswith(NEXT)}
    if place.is_there(True):
        store = place.open()
    else:
        store = place.make(source.recipe, views[VECTORS].dimension if VECTORS in views else 0)
    passages = source.store.get_meta("passages")
    if (other := store.get_meta("passages")) not in (None, passages):
        raise CollectionError(
            f"{place.where} cuts its passages by {other}, and {source.path} by {passages}; name another place"
        )
    for name, view in views.items():
        store.add_view(
            name,
            model=view.model,
            fingerprint=view.fingerprint,
            dimension=view.dimension,
            kind=view.kind,
            settings=view.settings,
        )
    for entry in ("passages", TRANSLATED, CUT, AGREEMENT):
        if (kept := source.store.get_meta(entry)) is not None:
            store.set_meta(entry, kept)
    return store


def _copy_some(source: Kept, store: Kept, ids: Sequence[str], report: CopyReport) -> None:
    known, wanted = store.known_digests(ids), source.known_digests(ids)
    # Of an engine's document that an interrupted update left in two versions no digest is known, and it is there.
    changed = [identity for identity in ids if identity not in wanted or known.get(identity) != wanted[identity]]
    prepared = source.prepared(changed)
    store.write(prepared)
    report.there += len(ids) - len(changed)
    report.copied += len(prepared)
    report.passages += sum(len(one.passages) for one in prepared)


def _verify(source: Collection, made: Collection, ids: Sequence[str], report: CopyReport, sample: int) -> None:
    _count(source, made, ids, report)
    drawn = random.Random(0).sample(ids, min(sample, len(ids)))
    for start in range(0, len(drawn), AT_ONCE):
        part = drawn[start : start + AT_ONCE]
        theirs = {one.document.id: one for one in made.store.prepared(part)}
        for one in source.store.prepared(part):
            if one.document.id not in theirs or not _same(one, theirs[one.document.id]):
                raise CollectionError(
                    f"document {one.document.id!r} of {made.path} is not the one of {source.path}; was it changed meanwhile? "
                    "Copy again"
                )
            report.compared += 1


def _count(source: Collection, made: Collection, ids: Sequence[str], report: CopyReport) -> None:
    """Whether every document is there, and how many others are."""
    there = set(made.store.document_ids())
    report.others = len(there.difference(ids))
    missing = [identity for identity in ids if identity not in there]
    for start in range(0, len(missing), AT_ONCE):
        if still := source.store.prepared(missing[start : start + AT_ONCE]):
            raise CollectionError(
                f"{made.path} lacks {counted(len(missing), 'document')} of {source.path}, such as {still[0].document.id!r}; "
                "copy again"
            )


def _same(one: PreparedDocument, other: PreparedDocument) -> bool:
    if (one.document, one.digest, len(one.passages)) != (other.document, other.digest, len(other.passages)):
        return False
    for mine, theirs in zip(one.passages, other.passages, strict=True):
        if (mine.start, mine.end, mine.digest, mine.part) != (theirs.start, theirs.end, theirs.digest, theirs.part):
            return False
        for view, kept in mine.vectors.items():
            there = theirs.vectors.get(view)
            if kept is None or there is None or kept[1] != there[1] or not _equal(kept[0], there[0]):
                return False
    return True


def _equal(one: object, other: object) -> bool:
    if isinstance(one, bytes):
        return one == other
    return isinstance(one, np.ndarray) and isinstance(other, np.ndarray) and bool(np.array_equal(one, other))
