"""Files of many records (csv, tsv, json, jsonl, TREC) → mappings, one after the other, each with the line that it begins in."""

from __future__ import annotations

import csv
import gzip
import html
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias, cast

from twinrank.errors import DataError
from twinrank.readers.formats import byte_order_encoding, decode
from twinrank.types import Scalar

Record: TypeAlias = tuple[int, Mapping[str, object]]
"""The line, from 1, and what stands there."""

Report: TypeAlias = Callable[[str, Literal["skipped", "note"]], None]
"""Told of what was wrong within a file: the reason, and whether something was skipped."""

TEXT_NAMES = ("text", "body", "content", "contents", "abstract", "passage", "document", "description")
"""What a record's text may be called, the most likely name first."""

ID_NAMES = ("id", "_id", "docid", "doc_id")

_PLAIN = {*TEXT_NAMES, *ID_NAMES, "title"}


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file, unpacked if its name ends with .gz."""
    return cast("IO[bytes]", gzip.open(path, "rb")) if path.suffix.lower() == ".gz" else path.open("rb")


def lines_of(path: Path, report: Report) -> Iterator[str]:
    """The decoded lines of a file, with their ends; read as a stream."""
    with open_bytes(path) as stream:
        encoding = byte_order_encoding(stream.read(4))
        stream.seek(0)
        if encoding:
            with io.TextIOWrapper(stream, encoding=encoding, errors="replace", newline="\n") as text_stream:
                yield from text_stream
            return
        noted = False
        for line in stream:
            try:
                yield line.decode("utf-8")
            except UnicodeDecodeError:
                text, note = decode(line)
                if not noted:
                    report(note, "note")
                noted = True
                yield text


def with_plain_names(record: Mapping[str, object]) -> Mapping[str, object]:
    """The record with its text under "text", its title under "title" and its id under "id", whatever the file calls them."""
    renamed = dict(record)
    for plain, known in (("text", TEXT_NAMES), ("title", ("title",)), ("id", ID_NAMES)):
        if record.get(plain) is None:
            given = {name.strip().lower(): name for name, value in record.items() if value is not None}
            found = next((given[name] for name in known if name in given), None)
            if found is not None:
                renamed[plain] = renamed.pop(found)
    return renamed


# -------------------------------------------------------------------------------------------------------- json


def read_json_lines(path: Path, report: Report) -> Iterator[Record]:
    for number, line in enumerate(lines_of(path, report), start=1):
        if not line.strip():
            continue
        try:
            record = parse_json(line)
        except ValueError as error:
            report(f"line {number}: not JSON ({error})", "skipped")
            continue
        if isinstance(record, dict):
            yield number, with_plain_names(record)
        else:
            report(f"line {number}: expected a JSON object, got {type(record).__name__}", "skipped")


def read_json(path: Path, report: Report) -> Iterator[Record]:
    """A list of objects, an object that holds such a list, one object, or JSON lines under the wrong name."""
    with open_bytes(path) as stream:
        text, note = decode(stream.read())
    try:
        content = parse_json(text)
    except ValueError as error:
        if not _begins_with_an_object(text):
            raise DataError(f"not JSON ({error})") from error
        yield from read_json_lines(path, report)
        return
    if note:
        report(note, "note")
    if isinstance(content, dict):
        lists = [value for value in content.values() if isinstance(value, list) and value and isinstance(value[0], dict)]
        content = lists[0] if len(lists) == 1 and "text" not in with_plain_names(content) else [content]
    if not isinstance(content, list):
        raise DataError(f"expected JSON objects, got {type(content).__name__}")
    records = [with_plain_names(record) for record in content if isinstance(record, dict)]
    if not any("text" in record or "title" in record for record in records):
        raise DataError(f"no object in it has a 'text' or a 'title'{_keys_of(records)}")
    for number, record in enumerate(content, start=1):
        if isinstance(record, dict):
            yield number, with_plain_names(record)
        else:
            report(f"item {number}: expected a JSON object, got {type(record).__name__}", "skipped")


def _keys_of(records: list[Mapping[str, object]]) -> str:
    return f"; the first has {', '.join(map(repr, list(records[0])[:12]))}" if records else ""


def parse_json(text: str) -> Any:
    """Parse JSON; whatever is wrong with it is a ValueError with a short message."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _begins_with_an_object(text: str) -> bool:
    try:
        return isinstance(parse_json(text.lstrip("\ufeff").lstrip().partition("\n")[0]), dict)
    except ValueError:
        return False


# --------------------------------------------------------------------------------------------------------- csv


def read_csv(path: Path, report: Report) -> Iterator[Record]:
    """Rows under a header; a column whose every value is a whole number, a number or true/false becomes that."""
    csv.field_size_limit(2**31 - 1)  # the default refuses texts beyond 128 KB
    header = _header(path)
    names = [name.strip().lower() for name in header]
    if not any(name in names for name in (*TEXT_NAMES, "title")):
        raise DataError(f"has no column of text; it has {', '.join(map(repr, header))}; name one of them 'text' or 'title'")
    columns = _column_names(header, report)
    kinds = [
        _text_or_none if name in _PLAIN else kind for name, kind in zip(names, _column_kinds(path, len(header)), strict=True)
    ]
    for number, row in _rows(path, report):
        if len(row) > len(header):
            report(f"line {number}: has {len(row)} cells where the header has {len(header)}", "skipped")
            continue
        cells = {column: kind(cell) for column, kind, cell in zip(columns, kinds, row, strict=False)}
        yield number, with_plain_names(cells)


def _header(path: Path) -> list[str]:
    _, header = next(_rows(path, _unheard, skip=0), (0, []))
    if not header:
        raise DataError("is empty")
    return header


def _rows(path: Path, report: Report, *, skip: int = 1) -> Iterator[tuple[int, list[str]]]:
    """(line it begins in, cells) of every row that is not blank."""
    lines = _without_nul(lines_of(path, report))
    opening: list[str] = []
    for line in lines:
        opening.append(line)
        if line.strip():
            break
    tabs = ".tsv" in path.suffixes  # such files hold quotation marks as they are
    everything = chain(opening, lines)
    if tabs:
        reader = csv.reader(everything, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(everything, delimiter=max(",;\t|", key="".join(opening).count), strict=True)
    begins, seen = 1, 0
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:  # a quotation mark that is not closed, or closes within a cell
            report(f"line {begins}: {error}", "skipped")
            row = []
        if any(cell.strip() for cell in row):
            seen += 1
            if seen > skip:
                yield begins, row
        begins = reader.line_num + 1


def _without_nul(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        yield line.replace("\0", " ").replace("\r", "") if "\0" in line or "\r" in line[:-2] else line


def _column_names(header: list[str], report: Report) -> list[str]:
    """Names that fields may have: other characters become "_"; says so once."""
    columns: list[str] = []
    for number, name in enumerate(header, start=1):
        column = name.strip()
        if column.lower() not in _PLAIN:
            column = re.sub(r"[^A-Za-z0-9_.-]+", "_", column).strip("_")
            column = column if re.match("[A-Za-z]", column) else f"column_{number}"
        columns.append(column if column not in columns else f"{column}_{number}")
    changed = [f"{name!r} → {column}" for name, column in zip(header, columns, strict=True) if name.strip() != column]
    if changed:
        report(f"columns renamed so that they can name fields: {', '.join(changed)}", "note")
    return columns


_TRUTH = {"true": True, "false": False}
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,15})(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,2})?")


def _column_kinds(path: Path, width: int) -> list[Callable[[str], Scalar]]:
    """What turns each column's cells into values, from all of them; 007 and 1,5 stay text."""
    possible = [list(_CONVERTERS) for _ in range(width)]
    filled = [False] * width
    for _, row in _rows(path, _unheard):
        for i, cell in enumerate(row[:width]):
            if possible[i] and (stripped := cell.strip()):
                filled[i] = True
                possible[i] = [test for test in possible[i] if test(stripped)]
    return [
        _or_none(_CONVERTERS[tests[0]]) if tests and full else _text_or_none
        for tests, full in zip(possible, filled, strict=True)
    ]


def _is_truth(cell: str) -> bool:
    return cell.lower() in _TRUTH


def _truth(cell: str) -> bool:
    return _TRUTH[cell.strip().lower()]


_CONVERTERS: dict[Callable[[str], object], Callable[[str], Scalar]] = {
    _INTEGER.fullmatch: int,
    _NUMBER.fullmatch: float,
    _is_truth: _truth,
}
"""Test of a cell → what then makes a value of it, the narrowest first."""


def _text_or_none(cell: str) -> str | None:
    return cell or None


def _or_none(convert: Callable[[str], Scalar]) -> Callable[[str], Scalar]:
    return lambda cell: convert(cell) if cell.strip() else None


def _unheard(reason: str, kind: str) -> None:
    """For a second look at a file, whose problems were told at the first."""


# -------------------------------------------------------------------------------------------------------- TREC


_DOCUMENT_NUMBER = re.compile(r"<DOCNO>(.*?)</DOCNO>", re.IGNORECASE | re.DOTALL)
_HEADLINE = re.compile(r"<(TITLE|HEADLINE|HEAD|HL|TI)>(.*?)</\1>", re.IGNORECASE | re.DOTALL)
_BODY = re.compile(r"<TEXT>(.*?)</TEXT>", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"</?[A-Za-z!][^<>]*>")


def looks_like_trec(head: bytes) -> bool:
    return head.lstrip(b"\xef\xbb\xbf \t\r\n")[:5].upper() == b"<DOC>"


def read_trec(path: Path, report: Report) -> Iterator[Record]:
    """<DOC> … </DOC> elements: their <DOCNO>, headline, and <TEXT>, or all that is there where they have none."""
    begins, lines = 0, list[str]()
    for number, line in enumerate(lines_of(path, report), start=1):
        upper = line.upper()
        if "<DOC>" in upper:
            if begins:
                report(f"line {begins}: <DOC> has no end", "skipped")
            begins, lines = number, []
        lines.append(line)
        if "</DOC>" in upper and begins:
            yield begins, _trec_record("".join(lines))
            begins, lines = 0, []
    if begins:
        report(f"line {begins}: <DOC> has no end", "skipped")


def _trec_record(source: str) -> dict[str, object]:
    number, headline = _DOCUMENT_NUMBER.search(source), _HEADLINE.search(source)
    body = "\n\n".join(_BODY.findall(source)) or _DOCUMENT_NUMBER.sub("", _HEADLINE.sub("", source))
    return {
        "id": number[1].strip() if number else None,
        "title": " ".join(_without_markup(headline[2]).split()) if headline else "",
        "text": _without_markup(body).strip(),
    }


def _without_markup(source: str) -> str:
    return html.unescape(_TAG.sub(" ", source))
