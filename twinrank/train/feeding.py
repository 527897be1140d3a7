"""Examples → what each step looks at: a pure function of seed and step, so that a training goes on where it was killed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from twinrank.errors import DataError
from twinrank.train.batches import Batches
from twinrank.train.data import Example, known_positives, same_text

Form: TypeAlias = Literal[
    "pairs", "graded pairs", "columns", "known columns", "scored columns", "lists", "graded lists", "scored lists"
]
"""pairs: queries, passages, and 1 where the passage answers, 0 where not.
columns: queries, a passage that answers each, then columns of passages that do not.
lists: queries, a list of passages for each, and 1 or 0 for each of these.
known …: with the numbers of the passages known to answer each query, that of the column first.
scored …: with a teacher's score for each passage; graded …: the same where there are scores, 1 and 0 elsewhere."""

Row: TypeAlias = dict[str, Any]
"""One line of a batch: column → text, a list of texts, or numbers; the first column is the query."""

TRIES = 20
"""Passages drawn to find one that is known to answer none of the batch's queries."""


@dataclass(frozen=True)
class Shares:
    """How a step draws from the examples."""

    batch: int
    negatives: int
    seed: int
    form: Form
    in_batch: bool
    """Whether passages of other examples are negatives: then short batches are left out, and lengths are mixed."""


class Feed:
    """Step → rows: `Feed(examples, shares)[step]`; every example comes once in an epoch, epoch after epoch.

    An example gives one of its positives and `negatives` of its negatives, drawn anew each time; where it has too few, those
    of others fill in, none of them known to answer a query of the batch.
    """

    def __init__(self, examples: Sequence[Example], shares: Shares) -> None:
        if not examples:
            raise DataError("there are no examples to learn from")
        self.shares = shares
        self._queries = [example.query for example in examples]
        self._use(examples)
        whole = len(self.examples) // shares.batch if shares.in_batch else -(-len(self.examples) // shares.batch)
        self.epoch_steps = max(1, whole)
        """Steps in which every example comes once; a few wait for the next epoch where they fit into no batch."""

    def _use(self, examples: Sequence[Example]) -> None:
        self.examples = _scored(examples, self.shares.negatives) if self.shares.form.startswith("scored") else examples
        self._batches = Batches(self.examples, self.shares.batch, seed=self.shares.seed)
        self._known = known_positives(self.examples)
        self._pool = [passage for example in self.examples for passage in (example.negatives or example.positives)]
        self._numbers = {text: number for number, text in enumerate(sorted(set().union(*self._known.values())))}
        self._epoch: tuple[int, list[list[int]]] = (-1, [])

    def refresh(self, examples: Sequence[Example]) -> None:
        """Take other negatives for the same queries; raises DataError where there are others."""
        if [example.query for example in examples] != self._queries:
            raise DataError("the refreshed examples are of other queries than those that the training began with")
        self._use(examples)

    def __getitem__(self, step: int) -> list[Row]:
        epoch, number = divmod(step, self.epoch_steps)
        batches = self._batches_of(epoch)
        batch = [self.examples[place] for place in batches[number % len(batches)]]
        draw = np.random.default_rng([self.shares.seed, 1, step])
        known: set[str] = set().union(*(self._known[same_text(example.query)] for example in batch))
        rows = [self._rows(example, draw, known) for example in batch]
        return [row for several in rows for row in several]

    def _batches_of(self, epoch: int) -> list[list[int]]:
        if self._epoch[0] != epoch:
            batches = self._batches.epoch(epoch, like_lengths=not self.shares.in_batch)
            if self.shares.in_batch:  # few passages beside each other teach little, and count as much as many
                batches = [batch for batch in batches if 2 * len(batch) >= self.shares.batch] or batches
            self._epoch = (epoch, batches)
        return self._epoch[1]

    def _rows(self, example: Example, draw: np.random.Generator, known: set[str]) -> list[Row]:
        right = int(draw.integers(len(example.positives)))
        count = self.shares.negatives
        chosen = draw.permutation(len(example.negatives))[:count].tolist()
        wrong = [example.negatives[place] for place in chosen]
        wrong += [self._other(draw, known) for _ in range(count - len(wrong))]
        scores = None
        if example.scores is not None:
            scores = [example.scores[right], *(example.scores[len(example.positives) + place] for place in chosen)]
        return ROWS[self.shares.form](example.query, [example.positives[right], *wrong], scores, self._numbered(example, right))

    def _other(self, draw: np.random.Generator, known: set[str]) -> str:
        """A passage that some other query came with."""
        for _ in range(TRIES):
            passage = self._pool[int(draw.integers(len(self._pool)))]
            if same_text(passage) not in known:
                return passage
        raise DataError(
            "there are not enough passages that do not answer: mine negatives (twinrank mine), or ask for fewer of them"
        )

    def _numbered(self, example: Example, right: int) -> list[int]:
        """The numbers of all passages known to answer the query, that of the chosen one first."""
        own = same_text(example.positives[right])
        return [
            self._numbers[own],
            *(self._numbers[text] for text in sorted(self._known[same_text(example.query)]) if text != own),
        ]


def _scored(examples: Sequence[Example], negatives: int) -> list[Example]:
    """Those with a teacher's scores for as many negatives as are asked for."""
    kept = [example for example in examples if example.scores is not None and len(example.negatives) >= negatives]
    if not kept:
        raise DataError(
            f"no example has a teacher's scores and {negatives} negatives; score them first: twinrank distill, or scores = […] "
            "in the JSON lines"
        )
    return kept


# -- one example as rows of each form ----------------------------------------------------------------------------------------

Maker: TypeAlias = Callable[[str, list[str], list[float] | None, list[int]], list[Row]]


def _pairs(query: str, passages: list[str], scores: list[float] | None, numbers: list[int]) -> list[Row]:
    return _graded_pairs(query, passages, None, numbers)


def _graded_pairs(query: str, passages: list[str], scores: list[float] | None, numbers: list[int]) -> list[Row]:
    labels = _labels(passages, scores)
    return [{"query": query, "passage": passage, "label": label} for passage, label in zip(passages, labels, strict=True)]


def _columns(query: str, passages: list[str], scores: list[float] | None, numbers: list[int]) -> list[Row]:
    others = {f"negative_{number}": passage for number, passage in enumerate(passages[1:])}
    return [{"query": query, "positive": passages[0], **others}]


def _known_columns(query: str, passages: list[str], scores: list[float] | None, numbers: list[int]) -> list[Row]:
    return [_columns(query, passages, scores, numbers)[0] | {"label": numbers}]


def _scored_columns(query: str, passages: list[str], scores: list[float] | None, numbers: list[int]) -> list[Row]:
    return [_columns(query, passages, scores, numbers)[0] | {"label": scores}]


def _lists(query: str, passages: list[str], scores: list[float] | None, numbers: list[int]) -> list[Row]:
    return _graded_lists(query, passages, None, numbers)


def _graded_lists(query: str, passages: list[str], scores: list[float] | None, numbers: list[int]) -> list[Row]:
    return [{"query": query, "passages": passages, "labels": _labels(passages, scores)}]


def _labels(passages: list[str], scores: list[float] | None) -> list[float]:
    """1 for the passage that answers, 0 for others, where not all of them were scored."""
    return scores if scores is not None and len(scores) == len(passages) else [1.0, *(0.0 for _ in passages[1:])]


ROWS: Mapping[Form, Maker] = {
    "pairs": _pairs,
    "graded pairs": _graded_pairs,
    "columns": _columns,
    "known columns": _known_columns,
    "scored columns": _scored_columns,
    "lists": _lists,
    "graded lists": _graded_lists,
    "scored lists": _graded_lists,
}
