"""How vectors are indexed: exactly, or by FAISS, ScaNN or Annoy, with parameters that are chosen automatically or by hand."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, TypeAlias, get_args

from twinrank.errors import InputError

Kind: TypeAlias = Literal["auto", "exact", "ivf", "hnsw", "scann", "annoy"]

LEAST = 1000
"""Fewer passages are always scanned exactly: an approximate index has nothing to gain there."""

EXACT_NUMBERS = 384_000_000
"""Up to so many numbers (a million passages of 384 dimensions) `auto` scans exactly: docs/indexes.md says why."""


@dataclass(frozen=True, slots=True)
class VectorIndexSettings:
    """What to index vectors by; 0 means chosen automatically.

    >>> VectorIndexSettings().resolved(1_000_000, 384), VectorIndexSettings().resolved(2_000_000, 384)
    ('exact', 'hnsw')
    """

    kind: Kind = "auto"
    """`auto` is exact as long as that is quick, `hnsw` beyond."""
    nlist: int = 0
    """Of ivf and scann: the lists into which the vectors are sorted."""
    nprobe: int = 0
    """Of ivf and scann: the lists that a search looks into."""
    m: int = 0
    """Of hnsw: the links of a vector, M in the paper; of annoy: the trees."""
    ef_construction: int = 0
    """Of hnsw: how many vectors are looked at to find the links of a new one."""
    ef_search: int = 0
    """Of hnsw: how many vectors a search keeps in view; of annoy: how many it looks at, in all trees."""
    recall: float = 0.95
    """The share of the true 10 best that a search must find where nprobe or ef_search is chosen automatically."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InputError(f"there is no vector index of kind {self.kind!r}; it is one of {', '.join(get_args(Kind))}")
        for item in fields(self)[1:6]:
            value = getattr(self, item.name)
            least, most = LIMITS[item.name]
            if value != 0 and not least <= value <= most:
                raise InputError(f"{item.name} is {value}; expected 0 (chosen automatically) or {least} to {most:,}")
        if not 0.5 <= self.recall < 1:
            raise InputError(f'recall is {self.recall}; 0.5 to below 1 was expected (kind = "exact" finds everything)')

    def resolved(self, passages: int, dimension: int) -> Kind:
        """The kind for so many passages: never `auto`."""
        if passages < LEAST:
            return "exact"
        if self.kind != "auto":
            return self.kind
        return "exact" if passages * dimension <= EXACT_NUMBERS else "hnsw"

    @property
    def structure(self) -> tuple[int, ...]:
        """The parameters that an index is built with; the others only say how it is searched."""
        return (self.nlist, self.m, self.ef_construction)


LIMITS = {
    "nlist": (1, 1_000_000),
    "nprobe": (1, 1_000_000),
    "m": (2, 1024),
    "ef_construction": (1, 100_000),
    "ef_search": (1, 100_000_000),
}
