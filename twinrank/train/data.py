"""What a model learns from: queries with the passages that answer them, others that do not, and what a teacher gave each."""

from __future__ import annotations

from dataclasses import dataclass

from twinrank.errors import DataError


@dataclass(frozen=True)
class Example:
    """A query with the passages that answer it, some that do not, and, where a teacher was asked, its score for each.

    >>> Example("does zinc shorten a cold?", ("Zinc may shorten a cold.",), ("Honey eases a cough.",), (4.2, -1.5)).passages
    ('Zinc may shorten a cold.', 'Honey eases a cough.')
    """

    query: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...] = ()
    scores: tuple[float, ...] | None = None
    """The teacher's, one a passage: the positives' first, then the negatives'."""

    def __post_init__(self) -> None:
        if not self.positives:
            raise DataError(f"the query {self.query[:80]!r} has no passage that answers it; an example needs one or more")
        if self.scores is not None and len(self.scores) != len(self.positives) + len(self.negatives):
            raise DataError(
                f"the query {self.query[:80]!r} has {len(self.scores)} scores for "
                f"{len(self.positives)} positives and {len(self.negatives)} negatives; expected one for each"
            )

    @property
    def passages(self) -> tuple[str, ...]:
        """The positives, then the negatives."""
        return self.positives + self.negatives
