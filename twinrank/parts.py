"""The texts that a document consists of: its own, its title, those of its fields; and how each is called."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from twinrank.types import Document

PLACE = re.compile(r"(.+)\[(\d+)\]")


def parts_of(document: Document, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(part, text) of the title and the fields of these names, as far as the document has them; a list gives one an item.

    >>> list(parts_of(Document("a", "text", title="T", fields={"asks": ["why?", "how?"]}), ["title", "asks", "summary"]))
    [('title', 'T'), ('asks[0]', 'why?'), ('asks[1]', 'how?')]
    """
    for name in names:
        value = document.title if name == "title" else document.fields.get(name)
        listed = enumerate(value) if isinstance(value, list) else ()
        found: list[tuple[str, object]] = [(f"{name}[{place}]", item) for place, item in listed]
        found = found or [(name, value)]
        texts = ((part, as_text(value)) for part, value in found)
        yield from ((part, text) for part, text in texts if text is not None and text.strip())


def without_fields(document: Document, names: Sequence[str]) -> Document:
    return replace(document, fields={key: value for key, value in document.fields.items() if key not in names})


def part_of(document: Document, part: str) -> str | None:
    """The text that a part is, "" the document's own; None where there is no such text.

    >>> part_of(Document("a", "text", fields={"asks": ["why?", "how?"]}), "asks[1]")
    'how?'
    """
    if part in ("", "title"):
        return document.title if part else document.text
    placed = PLACE.fullmatch(part)
    value = document.fields.get(placed[1] if placed else part)
    if placed and isinstance(value, list):
        value = value[int(placed[2])] if int(placed[2]) < len(value) else None
    return as_text(value)


def as_text(value: object) -> str | None:
    """A field's value as it is searched: text, or a number in digits; None of what says nothing (true, false, null, a list)."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else None
