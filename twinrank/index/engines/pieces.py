"""Texts of any length kept where a record has a limit: in pieces, which a head that is written last holds together."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias

from twinrank.errors import EngineError

Record: TypeAlias = Mapping[str, str]


class Records(Protocol):
    """Small records under names."""

    def get(self, names: Sequence[str]) -> Mapping[str, Record]:
        """Those that are there."""
        ...

    def put(self, records: Mapping[str, Record]) -> None: ...

    def delete(self, names: Sequence[str]) -> None: ...


class Texts:
    """A text under a name; who reads while it is replaced sees the one before or the one after, whole."""

    def __init__(self, records: Records, size: int) -> None:
        self._records = records
        self._size = size
        """Bytes of UTF-8 that a record takes at most."""

    def get(self, name: str) -> str | None:
        for _ in range(3):
            head = self._head(name)
            if head is None or "text" in head:
                return None if head is None else head["text"]
            parts = self._parts(name, head)
            found = self._records.get(parts)
            if len(found) == len(parts):
                return "".join(found[part]["text"] for part in parts)
        raise EngineError(f"{name!r} lacks {len(parts) - len(found)} of its {len(parts)} pieces: write it again")

    def set(self, name: str, value: str) -> None:
        before = self._head(name)
        parts = split(value, self._size)
        if len(parts) == 1:
            head = {"text": value}
        else:
            head = {"version": secrets.token_hex(8), "pieces": str(len(parts))}
            for key, part in zip(self._parts(name, head), parts, strict=True):
                self._records.put({key: {"text": part}})
        self._records.put({name: head})
        if before is not None and (old := self._parts(name, before)):
            self._records.delete(old)

    def _head(self, name: str) -> Record | None:
        return self._records.get([name]).get(name)

    def _parts(self, name: str, head: Record) -> list[str]:
        return [f"{name}/{head['version']}/{number}" for number in range(int(head.get("pieces", 0)))]


def split(text: str, size: int) -> list[str]:
    """A text in parts of at most `size` bytes (4 or more) each, never within a letter; the empty text is one part.

    >>> split("Grüße", 4), split("", 4)
    (['Grü', 'ße'], [''])
    """
    data, parts, start = text.encode(), [], 0
    while start < len(data):
        end = min(start + size, len(data))
        while end < len(data) and data[end] & 0xC0 == 0x80:
            end -= 1
        parts.append(data[start:end].decode())
        start = end
    return parts or [""]
