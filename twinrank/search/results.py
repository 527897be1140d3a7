"""What a search gives: its hits, and what it cost; a sequence of Hits that prints well."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

from twinrank.search.calibrate import Verdict
from twinrank.search.rerank import Certificate
from twinrank.types import Hit


@dataclass(frozen=True)
class Results(Sequence[Hit]):
    """The hits of one query, best first."""

    query: str
    hits: tuple[Hit, ...]
    seconds: float
    stages: tuple[tuple[str, float], ...] = ()
    """Each stage of the pipeline with its seconds."""
    notes: tuple[str, ...] = ()
    """What the searcher should know: a query that was cut, an index that was rebuilt."""
    certificates: tuple[Certificate, ...] = ()
    """For each rerank how much of it was done, why it ended there, and what that puts at risk."""
    verdict: Verdict | None = None
    """Whether this is an answer, where a risk or a least probability was asked for."""
    plan: str = ""
    """How the vectors were searched: exactly, by a graph, among those that a condition leaves."""
    weights: str = ""
    """What vectors and words counted for this query, and by what that was decided; empty where weights are fixed."""

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    @overload
    def __getitem__(self, place: int) -> Hit: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Hit, ...]: ...
    def __getitem__(self, place: int | slice) -> Hit | tuple[Hit, ...]:
        return self.hits[place]

    def __str__(self) -> str:
        lines = [f"{hit.rank:>3}. {hit.score:.3f}  {hit.title or hit.id}  [{hit.id}]" for hit in self.hits]
        return "\n".join([f"{self.query!r}: {len(self.hits)} found in {1000 * self.seconds:.0f} ms", *lines])
