"""A file or folder → Documents, one after the other; what cannot be read is named, counted by the caller, and skipped."""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from twinrank.errors import DataError, DocumentError
from twinrank.readers import formats, tables
from twinrank.readers.records import document
from twinrank.types import Document


@dataclass(frozen=True, slots=True)
class Problem:
    """A file, or a line of one, that was skipped; or something to know about one that was read."""

    path: str
    reason: str
    kind: Literal["skipped", "note"]

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


OnProblem = Callable[[Problem], None]

_PASSED_OVER = {
    "__pycache__", "node_modules", "bower_components", "site-packages", "venv", "env", "virtualenv", "CVS", "__MACOSX",
    "$RECYCLE.BIN", "System Volume Information",
}  # fmt: skip
"""Folders that hold what tools made or copied; hidden folders (.git, .venv, .tox…) and collections are passed over too."""

_RECORD_READERS = {
    ".csv": tables.read_csv,
    ".tsv": tables.read_csv,
    ".jsonl": tables.read_json_lines,
    ".ndjson": tables.read_json_lines,
    ".json": tables.read_json,
}
_CORPUS = ("corpus.jsonl", "corpus.jsonl.gz")
_HEAD = 8192
_LARGEST = 1 << 28
"""Bytes that one file of one document may have; as one text nobody would want to find more."""


def read(path: Path | str, *, on_problem: OnProblem | None = None) -> Iterator[Document]:
    """The documents of a file or of a folder and its subfolders, in sorted order, as a stream.

    txt, rst, log, markdown, HTML, PDF, docx, and whatever else is plain text (source code) give one document a file; csv,
    tsv, json, jsonl and TREC's <DOC> files one a record, also packed as .gz. A folder with a corpus.jsonl (BEIR) gives that
    only. An id is the record's own, else the file's path within the folder, with `#line` for a record.

    `on_problem` is told of each file or line that was skipped or deserves a note; without it, a warning tells what was skipped.
    A path that does not exist is refused with DataError.
    """
    place = Path(path)
    try:
        place.stat()
    except (OSError, ValueError) as error:
        raise DataError(f"no file or folder {str(path)[:200]!r} can be read ({formats.described(error)})") from error
    return _read_place(place, on_problem or _warn)


def _warn(problem: Problem) -> None:
    if problem.kind == "skipped":
        warnings.warn(str(problem), stacklevel=3)


def files_of(folder: Path, on_problem: OnProblem) -> Iterator[Path]:
    """The files below a folder that `read` would read, in its order."""
    return _walk(folder, on_problem)


def read_within(folder: Path, path: Path, on_problem: OnProblem) -> Iterator[Document]:
    """The documents of one file below a folder, with the ids that reading the folder gives them."""
    return _read_file(path, _name_of(path.relative_to(folder).as_posix()), on_problem)


def source_of(path: Path) -> str:
    """What a document says of the file that it is from."""
    return _name_of(os.path.abspath(path))  # noqa: PTH100 -- unlike resolve(), leaves links as the user named them


def _read_place(place: Path, on_problem: OnProblem) -> Iterator[Document]:
    if not place.is_dir():
        yield from _read_file(place, _name_of(place.name), on_problem)
        return
    for path in _walk(place, on_problem):
        yield from read_within(place, path, on_problem)


def estimate(path: Path | str) -> int | None:
    """About how many documents `read` will give, for a progress bar, found by counting files and lines; None if unknown."""
    place = Path(path)
    try:
        files = _walk(place, _unheard) if place.is_dir() else [place] if place.exists() else []
        return sum(map(_count, files)) or None
    except (OSError, ValueError):
        return None


def _unheard(problem: Problem) -> None:
    """For a look around before reading, which will tell the problems."""


def _count(path: Path) -> int:
    if path.suffix.lower() not in (".jsonl", ".ndjson", ".csv", ".tsv"):
        return 1
    with path.open("rb") as stream:
        return sum(block.count(b"\n") for block in iter(partial(stream.read, 1 << 20), b"")) or 1


def _name_of(relative: str) -> str:
    """A file's id: its path, where bytes that are no UTF-8 are read as Latin-1."""
    try:
        relative.encode("utf-8")
    except UnicodeEncodeError:
        return os.fsencode(relative).decode("latin-1")
    return relative


# ------------------------------------------------------------------------------------------------------ walking


def _walk(root: Path, on_problem: OnProblem) -> Iterator[Path]:
    """The files below `root` in sorted order; ends with a note on what was passed over. No folder is entered twice."""
    entered: set[tuple[int, int]] = set()
    waiting = [root]
    hidden, folders = 0, set[str]()
    while waiting:
        path = waiting.pop()
        try:
            facts = path.stat()
            if not stat.S_ISDIR(facts.st_mode):
                yield path
                continue
            identity = (facts.st_dev, facts.st_ino)
            if identity in entered:  # a link back up, or a second way to the same folder
                continue
            entered.add(identity)
            children = sorted(path.iterdir(), key=lambda child: child.name, reverse=True)
        except OSError as error:
            on_problem(Problem(str(path), _reason(error), "skipped"))
            continue
        corpus = [child for child in children if child.name in _CORPUS]
        if corpus:  # BEIR's layout: queries and judgments are no documents
            waiting.append(corpus[-1])
            continue
        for child in children:
            if child.name in _PASSED_OVER or _is_collection(child):
                folders.add(child.name)
            elif child.name.startswith("."):
                hidden += 1
            else:
                waiting.append(child)
    if hidden or folders:
        parts = [f"{hidden:,} hidden files and folders"] if hidden else []
        parts += [f"folders named {', '.join(sorted(folders))}"] if folders else []
        on_problem(Problem(str(root), f"passed over {' and '.join(parts)}", "note"))


def _is_collection(path: Path) -> bool:
    """A directory that twinrank made; whoever indexes a folder with one in it does not mean its database."""
    return path.is_dir() and (
        path.name.endswith(".twinrank") or ((path / "store.db").is_file() and (path / "recipe.toml").is_file())
    )


# ------------------------------------------------------------------------------------------------------ reading


def _read_file(path: Path, name: str, on_problem: OnProblem) -> Iterator[Document]:
    def report(reason: str, kind: Literal["skipped", "note"]) -> None:
        on_problem(Problem(str(path), reason, kind))

    try:
        yield from _documents_of(path, name, report)
    except Exception as error:  # the parsers of PDF, docx and the rest raise whatever a damaged file leads them to
        report(_reason(error), "skipped")


def _documents_of(path: Path, name: str, report: tables.Report) -> Iterator[Document]:
    facts = path.stat()
    if not stat.S_ISREG(facts.st_mode):
        raise DataError("is not a regular file")
    if facts.st_size == 0:
        raise DataError("is empty")
    with tables.open_bytes(path) as stream:
        head = stream.read(_HEAD)
    inner = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    read_records = tables.read_trec if tables.looks_like_trec(head) else _RECORD_READERS.get(inner.suffix.lower())
    source = source_of(path)
    if read_records is not None:
        yield from _read_records(read_records(path, report), name, source, report)
        return
    reader = formats.reader_of(inner)
    if reader is None:
        if formats.looks_binary(head):
            raise DataError(f"is not text, nor of a kind that is read ({inner.suffix or 'no suffix'})")
        reader = formats.read_text
    with tables.open_bytes(path) as stream:
        data = stream.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise DataError(f"is larger than {_LARGEST >> 20} MB; split it, or give its records as jsonl")
    extract = reader(data)
    for note in extract.notes:
        report(note, "note")
    if not extract.text.strip() and not extract.title.strip():
        raise DataError("holds no text")
    given = {"id": name, "title": extract.title, "text": extract.text, "fields": extract.fields}
    yield document(given, source=source)


def _read_records(records: Iterator[tables.Record], name: str, source: str, report: tables.Report) -> Iterator[Document]:
    for line, record in records:
        try:
            numbered = record if record.get("id") is not None else {**record, "id": f"{name}#{line}"}
            found = document(numbered, source=source)
        except DocumentError as error:
            report(f"line {line}: {error}", "skipped")
            continue
        yield found


def _reason(error: Exception) -> str:
    if isinstance(error, (DataError, DocumentError)):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    return f"is damaged, or not what its name says ({formats.described(error)})"
