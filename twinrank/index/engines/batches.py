"""Anything in batches that a request can carry: so many bytes, so many items."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def batches(items: Iterable[T], size: Callable[[T], int], most: int, count: int = 2**31) -> Iterator[list[T]]:
    """Items in their order, in batches whose sizes add up to `most` at most; an item that is larger goes alone.

    >>> list(batches(["aa", "b", "cccc", "d"], len, 3)), list(batches("abc", len, 9, count=2))
    ([['aa', 'b'], ['cccc'], ['d']], [['a', 'b'], ['c']])
    """
    batch: list[T] = []
    left = most
    for item in items:
        long = size(item)
        if batch and (long > left or len(batch) == count):
            yield batch
            batch, left = [], most
        batch.append(item)
        left -= long
    if batch:
        yield batch
