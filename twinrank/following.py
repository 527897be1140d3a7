"""A collection kept in step with a folder: what is new or changed there is added, what is gone there is deleted."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from twinrank.collection import Collection
from twinrank.errors import DataError, MissingExtraError
from twinrank.ingest import AddReport
from twinrank.readers import Problem, files_of, read_within, source_of
from twinrank.types import Document
from twinrank.workers import Workers

STEP = 500
"""Milliseconds for which a folder has to be still before its changes are taken in."""

LOOK_AGAIN = 10_000
"""Milliseconds after which a folder is looked at though nothing was told of it."""

Facts = tuple[int, int, int]
"""Of a file: when it was changed, its size, its inode."""


class Follower:
    """One folder and the collection that follows it; knows the files that it has read, and reads only those that changed."""

    def __init__(self, collection: Collection, folder: str | Path) -> None:
        self.collection = collection
        self.folder = Path(folder)
        self._read: dict[str, Facts] = {}

    def sync(self, progress: Callable[[int], None] | None = None, workers: Workers | int | None = None) -> AddReport:
        """Take in what changed since the last time; the first time, every file is compared with what the collection holds.

        A document goes when its file is gone, or no longer holds it. What cannot be read, or is read in part, keeps its
        documents. Raises DataError where the folder is not there, or suddenly holds nothing at all: a disk that is not mounted
        is no reason to delete everything.
        """
        if not self.folder.is_dir():
            raise DataError(f"{self.folder} is no folder; its documents stay as they are")
        problems: list[Problem] = []
        files = {source_of(path): path for path in files_of(self.folder, problems.append)}
        held = self._held()
        if not files and held:
            raise DataError(
                f"{self.folder} holds no file any more, and the collection {len(held):,} documents of it; if that is meant, "
                "delete them: twinrank delete"
            )
        facts = {source: _facts(path) for source, path in files.items()}
        changed = {source: path for source, path in files.items() if facts[source] != self._read.get(source)}
        found: dict[str, set[str]] = defaultdict(set)
        report = self.collection.add(self._documents(changed, found, problems), progress=progress, workers=workers)
        report.problems.extend(problems)
        unread = _Unread(problem.path for problem in problems if problem.kind == "skipped")
        gone = [
            identity
            for identity, source in held
            if (source not in files or (source in changed and identity not in found[source])) and source not in unread
        ]
        report.removed = len(self.collection.delete(gone)) if gone else 0
        self._read = {source: facts[source] for source in files if source not in unread}
        return report

    def _held(self) -> list[tuple[str, str]]:
        """(id, source) of the documents that came from this folder."""
        above = source_of(self.folder).rstrip(os.sep) + os.sep
        return [(identity, source) for identity, source in self.collection.store.sources() if source.startswith(above)]

    def _documents(self, changed: dict[str, Path], found: dict[str, set[str]], problems: list[Problem]) -> Iterator[Document]:
        for source, path in changed.items():
            for document in read_within(self.folder, path, problems.append):
                found[source].add(document.id)
                yield document


class _Unread:
    """Files that could not be read, or only in part, and those below folders that could not be entered."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._sources = {source_of(Path(path)) for path in paths}

    def __contains__(self, source: str) -> bool:
        return any(above in self._sources for above in (source, *map(str, Path(source).parents)))


def watch_folder(folder: str | Path) -> Iterator[object]:
    """Gives something whenever the folder has changed and has been still for a moment, and now and then at any rate, for file
    systems that tell nothing; ends by Ctrl-C. MissingExtraError, at once, where watchfiles is not installed."""
    try:
        import watchfiles
    except ImportError as error:
        raise MissingExtraError("watching a folder needs watchfiles: pip install 'twinrank[watch]'") from error
    return watchfiles.watch(folder, step=STEP, watch_filter=None, rust_timeout=LOOK_AGAIN, yield_on_timeout=True)


def _facts(path: Path) -> Facts:
    try:
        facts = path.stat()
    except OSError:
        return (0, 0, 0)
    return facts.st_mtime_ns, facts.st_size, facts.st_ino
