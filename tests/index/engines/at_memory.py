"""The engine within this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def started() -> Iterator[Callable[[str], str]]:
    yield lambda name: f"memory:///{name}"
