"""How a filtered search goes about it: scan what passes, fetch more than is wanted, or walk the graph and keep what passes.

The number of passages that pass is known exactly. What is not known is where they lie: a filter may pass half of everything
and nothing near the query. So an over-fetch counts how many of what it found pass, and only where these are enough is it the
answer; where they are not, their share says how far a filtered walk has to go, or that a scan is cheaper, which always finds
all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

How: TypeAlias = Literal["scan", "graph", "over-fetch", "filtered graph"]

SURPLUS = 1.3
"""An over-fetch asks for so many times what should do if those that pass lay anywhere."""
CAUTION = 2.0
"""A filtered walk goes so many times as far as the share of those that pass nearby asks for."""
WIDER = 1.5
"""Where not the very nearest are wanted but some behind them, the index looks so many times as widely, as it misses more."""
EVIDENCE = 5
"""Passages that must have passed nearby before their share is believed."""


class Searched(Protocol):
    """What the planner knows of an approximate index."""

    filters: bool
    """Whether it can keep to what passes while it searches."""

    def breadth(self, depth: int) -> int:
        """How widely to look so that the `depth` nearest are found with the recall that was asked for."""
        ...

    def cost(self, breadth: int) -> float:
        """What such a search costs, in rows that could be scanned in its stead."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done for one search."""

    how: How
    passing: int
    total: int
    depth: int = 0
    """How many of the nearest are fetched, or how far the walk goes."""

    def __str__(self) -> str:
        """
        >>> str(Plan("over-fetch", passing=500_000, total=1_000_000, depth=26))
        'over-fetch the 26 nearest; 500,000 of 1,000,000 passages pass (50 %)'
        """
        share = f"{self.passing:,} of {self.total:,} passages pass ({100 * self.passing / max(1, self.total):.3g} %)"
        if self.how == "scan":
            return f"exact scan of all {self.total:,}" if self.passing == self.total else f"exact scan of what passes; {share}"
        if self.how == "graph":
            return f"search of the approximate index, {self.depth:,} nearest"
        if self.how == "over-fetch":
            return f"over-fetch the {self.depth:,} nearest; {share}"
        return f"filtered search of the approximate index, {self.depth:,} deep; {share}"


def plan(k: int, passing: int, total: int, index: Searched | None) -> Plan:
    """The first step, from numbers alone."""
    if index is None or passing == 0:
        return Plan("scan", passing, total)
    if passing == total:
        return Plan("graph", passing, total, k) if _pays(index, k, index.breadth(k), total) else Plan("scan", passing, total)
    depth = math.ceil(SURPLUS * (k + 2 * math.sqrt(k)) * total / passing)
    return (
        Plan("over-fetch", passing, total, depth)
        if _pays(index, depth, filtered_breadth(index, depth), passing)
        else Plan("scan", passing, total)
    )


def plan_again(k: int, first: Plan, found: int, index: Searched) -> Plan | None:
    """The second step, where `found` of what an over-fetch gave pass; None where these are enough."""
    if found >= k:
        return None
    if index.filters and found >= EVIDENCE:
        depth = math.ceil(CAUTION * k * first.depth / found)
        if _pays(index, depth, filtered_breadth(index, depth), first.passing):
            return Plan("filtered graph", first.passing, first.total, depth)
    return Plan("scan", first.passing, first.total)


def filtered_breadth(index: Searched, depth: int) -> int:
    """How widely to look for the `depth` nearest where only some of them are wanted."""
    return math.ceil(WIDER * index.breadth(depth))


def _pays(index: Searched, depth: int, breadth: int, rows: int) -> bool:
    return depth < rows and index.cost(breadth) < rows
