"""One record (a mapping, a dataclass instance, a row of a table) → one Document, or a sentence that says why not."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from datetime import date, datetime, timezone

import numpy as np

from twinrank.errors import DocumentError
from twinrank.text import normalize
from twinrank.types import Document, Scalar, Value

_FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*", re.ASCII)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SMALLEST, _LARGEST = -(2**63), 2**63 - 1


def document(record: object, *, source: str = "") -> Document:
    """Make a Document of a mapping or dataclass instance, checked and normalised; a Document is checked likewise.

    `id` (or `_id`) is text or an integer. `text`, `title` or both are there. `fields` and `metadata`, if they are mappings,
    and every other key become fields: numbers, text, truth values, None, dates (kept as ISO 8601 text, in UTC if they
    know their time zone) and lists of these. Anything else is refused with DocumentError.

    >>> document({"id": 7, "text": "Zinc shortens a cold.", "year": 2021, "metadata": {"lang": "en"}})
    Document(id='7', text='Zinc shortens a cold.', title='', fields={'lang': 'en', 'year': 2021}, source='')
    """
    if isinstance(record, Document):
        return _checked(record.id, record.title, record.text, record.fields, record.source or source)
    rest = dict(_as_mapping(record))
    key = "id" if rest.get("id") is not None else "_id"
    if rest.get(key) is None:
        raise DocumentError(f"a document has no id; it has {_names(rest)}; give each a unique 'id'")
    identity, title, text = rest.pop(key), rest.pop("title", None), rest.pop("text", None)
    rest.pop("id", None)
    fields: dict[str, object] = {}
    for group in ("fields", "metadata"):
        values = rest.get(group)
        if isinstance(values, Mapping):
            _merge(fields, values, identity)
            del rest[group]
        elif group == "fields" and rest.pop(group, None) is not None:
            raise DocumentError(f"document {identity!r}: 'fields' is not a mapping of names to values")
    _merge(fields, rest, identity)
    return _checked(identity, title, text, fields, source)


def _as_mapping(record: object) -> Mapping[str, object]:
    if isinstance(record, Mapping):
        return record
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    raise DocumentError(
        f"expected a document (a mapping with 'id' and 'text', a dataclass instance, a Document), got {_shown(record)}"
    )


def _merge(fields: dict[str, object], more: Mapping[str, object], identity: object) -> None:
    for name, value in more.items():
        if name in fields and fields[name] != value:
            raise DocumentError(f"document {identity!r}: the field {name!r} is given twice, with different values")
        fields[name] = value


def _checked(identity: object, title: object, text: object, fields: Mapping[str, object], source: str) -> Document:
    name = _checked_id(identity)
    checked_title, checked_text = _checked_text(title, "title", name), _checked_text(text, "text", name)
    if not checked_title.strip() and not checked_text.strip():
        raise DocumentError(f"document {name!r} has neither a text nor a title")
    flat = dict(pair for key, value in fields.items() for pair in _flattened(key, value))
    checked = {_checked_name(key, name): _checked_value(value, str(key), name) for key, value in flat.items()}
    return Document(name, checked_text, checked_title, checked, _CONTROL.sub("�", source))


def _flattened(key: object, value: object) -> Iterator[tuple[object, object]]:
    """A mapping within a field as fields of its own, `author.name`; a list of mappings as fields that hold lists."""
    if isinstance(value, Mapping):
        for inner, one in value.items():
            yield from _flattened(f"{key}.{inner}", one)
    elif isinstance(value, (list, tuple)) and value and all(isinstance(one, Mapping) for one in value):
        gathered: dict[object, list[object]] = {}
        for one in value:
            for name, inside in _flattened(key, one):
                gathered.setdefault(name, []).extend(inside if isinstance(inside, list) else [inside])
        yield from gathered.items()
    else:
        yield key, value


def _checked_id(identity: object) -> str:
    if isinstance(identity, np.generic):
        identity = identity.item()
    if isinstance(identity, bool) or not isinstance(identity, (str, int)):
        raise DocumentError(f"a document's id is {_shown(identity)}; an id is text or an integer")
    name = str(identity)
    if not name.strip():
        raise DocumentError("a document's id is empty; give each document a unique 'id'")
    if _CONTROL.search(name):  # runs and result lists hold one id a line
        raise DocumentError(f"the id {name[:80]!r} holds a line end, another control character or half a surrogate pair")
    return normalize(name)


def _checked_text(text: object, key: str, document_id: str) -> str:
    if text is None:
        return ""
    if not isinstance(text, str):
        raise DocumentError(f"document {document_id!r}: its {key} is {_shown(text)}; expected text")
    return normalize(str(text))


def _checked_name(key: object, document_id: str) -> str:
    if not isinstance(key, str) or not _FIELD_NAME.fullmatch(key):
        raise DocumentError(
            f"document {document_id!r}: {key!r} cannot name a field; names begin with a letter or _ "
            "and go on with letters, digits, '_', '.' or '-' (A-Z, a-z)"
        )
    return str(key)


def _checked_value(value: object, key: str, document_id: str) -> Value:
    if isinstance(value, np.ndarray) and value.ndim == 1:
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_checked_scalar(item, f"an item of the field {key!r}", document_id) for item in value]
    return _checked_scalar(value, f"the field {key!r}", document_id)


def _checked_scalar(value: object, what: str, document_id: str) -> Scalar:
    if isinstance(value, np.generic) and not isinstance(value, (str, np.datetime64)):
        value = value.item()
    if isinstance(value, np.datetime64):
        value = value.astype("datetime64[us]").item()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return normalize(str(value))
    if isinstance(value, int):
        if not _SMALLEST <= value <= _LARGEST:
            raise DocumentError(f"document {document_id!r}: {what} is an integer beyond 64 bits; give it as text")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise DocumentError(f"document {document_id!r}: {what} is {value}; give a finite number, or None for a missing one")
        return float(value)
    if isinstance(value, datetime):
        return (value if value.tzinfo is None else value.astimezone(timezone.utc)).isoformat()
    if isinstance(value, date):
        return value.isoformat()
    raise DocumentError(
        f"document {document_id!r}: {what} is {_shown(value)}; a field holds text, a number, true or false, null, a date, "
        "or a list of these"
    )


def _names(record: Mapping[str, object]) -> str:
    return ", ".join(repr(key) for key in list(record)[:12]) or "no keys at all"


def _shown(value: object) -> str:
    shown = repr(value) if isinstance(value, (str, bytes, int, float, bool, type(None))) else ""
    return f"{type(value).__name__} {shown[:60]}".strip()
