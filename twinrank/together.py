"""Threads that ask one model at the same time → calls of it one after another, each for all that came during the one before."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST = 8192
"""Characters in one call, some 2,000 tokens: enough to keep an engine busy, little enough that nobody waits long behind it."""


class Together(Generic[Item, Result]):
    """Calls `run`, which gives a result an item, for several threads at once.

    Nobody waits for others to come: a call is made once the one before it is done, for whatever has come meanwhile, by the
    thread that has waited longest. Much at once is done in parts, so that others get their turn in between.

    >>> lengths = Together(lambda texts: [len(text) for text in texts], size=len)
    >>> lengths(["one", "three"])
    [3, 5]
    """

    def __init__(
        self, run: Callable[[Sequence[Item]], Sequence[Result]], size: Callable[[Item], int], most: int = MOST
    ) -> None:
        self._run = run
        self._size = size
        self._most = most
        self._lock = threading.Lock()
        self._waiting: deque[_Part[Item, Result]] = deque()
        self._led = False
        self.calls = 0
        self.parts = 0
        """In all calls: above `calls` where threads were served together."""

    def __call__(self, items: Sequence[Item]) -> list[Result]:
        """A result an item. An error is that of the items that it came from: others in the same call get their results."""
        results: list[Result] = []
        for part in self._parts(items):
            results += self._join(part)
        return results

    def _parts(self, items: Sequence[Item]) -> list[_Part[Item, Result]]:
        """Of at most `most` in size, or of one item."""
        parts: list[_Part[Item, Result]] = []
        for item in items:
            size = self._size(item)
            if not parts or parts[-1].size + size > self._most:
                parts.append(_Part())
            parts[-1].items.append(item)
            parts[-1].size += size
        return parts

    def _join(self, part: _Part[Item, Result]) -> list[Result]:
        with self._lock:
            self._waiting.append(part)
            leads = not self._led
            self._led = True
        if not leads:
            part.woken.wait()
            leads = part.results is None and part.error is None
        if leads:
            self._lead()
        if part.error is not None:
            raise part.error
        assert part.results is not None
        return part.results

    def _lead(self) -> None:
        """Make one call, for the leader's own part and those behind it, and hand the lead on."""
        with self._lock:
            called = [self._waiting.popleft()]
            size = called[0].size
            while self._waiting and size + self._waiting[0].size <= self._most:
                called.append(self._waiting.popleft())
                size += called[-1].size
        try:
            self._call(called)
        finally:
            with self._lock:
                self.calls += 1
                self.parts += len(called)
                following = self._waiting[0] if self._waiting else None
                self._led = following is not None
            for part in called:
                part.woken.set()
            if following is not None:
                following.woken.set()

    def _call(self, called: Sequence[_Part[Item, Result]]) -> None:
        try:
            results = list(self._run([item for part in called for item in part.items]))
        except BaseException as error:
            if len(called) == 1:
                called[0].error = error
                return
            for part in called:
                self._call([part])
            return
        start = 0
        for part in called:
            part.results = results[start : start + len(part.items)]
            start += len(part.items)


@dataclass
class _Part(Generic[Item, Result]):
    """What one thread wants of one call."""

    items: list[Item] = field(default_factory=list)
    size: int = 0
    results: list[Result] | None = None
    error: BaseException | None = None
    woken: threading.Event = field(default_factory=threading.Event)
    """Its results are there; or it is the first of those that wait, and leads the next call."""
