"""Which bytes of a SQLite file hold something: an independent reading of the file format (sqlite.org/fileformat2.html)."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import numpy.typing as npt

HEADER = 100
UNREAD = {
    "change counter": (24, 28),
    "schema cookie": (40, 44),
    "suggested cache size": (48, 52),
    "room for more": (72, 92),
    "change counter of the version": (92, 96),
    "version of SQLite": (96, 100),
}
"""Parts of the header that say nothing of the content: they are counted as unused."""


def live_bytes(path: Path) -> npt.NDArray[np.bool_]:
    """For each byte of the database, whether it is part of its content or structure."""
    data = path.read_bytes()
    connection = sqlite3.connect(f"file:{path}?immutable=1", uri=True)
    roots = [root for (root,) in connection.execute("SELECT rootpage FROM sqlite_master WHERE rootpage > 0")]
    connection.close()
    reader = _Reader(data)
    reader.mark(0, HEADER)
    for start, end in UNREAD.values():
        reader.live[start:end] = False
    for root in [1, *roots]:
        reader.tree(root)
    reader.pointers()
    reader.free_list()
    return reader.live


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.page_bytes = int.from_bytes(data[16:18], "big")
        self.usable = self.page_bytes - data[20]
        self.live = np.zeros(len(data), np.bool_)

    def mark(self, start: int, end: int) -> None:
        self.live[start:end] = True

    def number(self, at: int, size: int) -> int:
        return int.from_bytes(self.data[at : at + size], "big")

    def varint(self, at: int) -> tuple[int, int]:
        """(value, the place behind it)"""
        value = 0
        for place in range(8):
            byte = self.data[at + place]
            value = value << 7 | byte & 0x7F
            if byte < 0x80:
                return value, at + place + 1
        return value << 8 | self.data[at + 8], at + 9

    def tree(self, page: int) -> None:
        base = (page - 1) * self.page_bytes
        head = base + (HEADER if page == 1 else 0)
        kind = self.data[head]
        interior, table = kind in (2, 5), kind in (5, 13)
        cells, size = self.number(head + 3, 2), 12 if interior else 8
        self.mark(head, head + size + 2 * cells)
        free = self.number(head + 1, 2)
        while free:  # blocks within the page that a removed cell left: their heads are counted by SQLite
            self.mark(base + free, base + free + 4)
            free = self.number(base + free, 2)
        for cell in range(cells):
            start = base + self.number(head + size + 2 * cell, 2)
            at = start
            if interior:
                self.tree(self.number(at, 4))
                at += 4
            if interior and table:
                _, at = self.varint(at)
                self.mark(start, at)
                continue
            payload, at = self.varint(at)
            if table:
                _, at = self.varint(at)
            local = self.local(payload, table)
            end = at + local
            if local < payload:
                self.overflow(self.number(end, 4), payload - local)
                end += 4
            self.mark(start, end)
        if interior:
            self.tree(self.number(head + 8, 4))

    def local(self, payload: int, table: bool) -> int:
        """How many bytes of a payload stand in the cell itself."""
        most = self.usable - 35 if table else (self.usable - 12) * 64 // 255 - 23
        if payload <= most:
            return payload
        least = (self.usable - 12) * 32 // 255 - 23
        kept = least + (payload - least) % (self.usable - 4)
        return kept if kept <= most else least

    def overflow(self, page: int, left: int) -> None:
        while page:
            start = (page - 1) * self.page_bytes
            held = min(left, self.usable - 4)
            self.mark(start, start + 4 + held)
            page, left = self.number(start, 4), left - held

    def pointers(self) -> None:
        """The map from page to parent that a file has which can be vacuumed step by step."""
        count, each = len(self.data) // self.page_bytes, self.usable // 5
        for page in range(2, count + 1, each + 1):
            entries = min(each, count - page)
            self.mark((page - 1) * self.page_bytes, (page - 1) * self.page_bytes + 5 * entries)

    def free_list(self) -> None:
        page = self.number(32, 4)
        while page:
            start = (page - 1) * self.page_bytes
            self.mark(start, start + 8 + 4 * self.number(start + 4, 4))
            page = self.number(start, 4)
