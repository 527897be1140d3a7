"""Examples → what each step looks at: a pure function of seed and step, so that a training goes on where it was killed."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from twinrank.errors import DataError
from twinrank.text import counted
from twinrank.train.batches import Batches
from twinrank.train.data import Example, known_answers, merged, same_text

Form: TypeAlias = Literal[
    "pairs", "graded pairs", "columns", "known columns", "scored columns", "lists", "graded lists", "scored lists"
]
"""pairs: queries, passages, and 1 where the passage answers, 0 where not.
columns: queries, a passage that answers each, then columns of passages that do not.
lists: queries, a list of passages for each, and 1 or 0 for each of these.
known …: with the numbers of the passages known to answer each query, that of the column first; those of its other columns
follow, as −2 − number.
scored …: with a teacher's score for each passage; graded …: the same where there are scores, 1 and 0 where there are none, and
never both in one training."""

Row: TypeAlias = dict[str, Any]
"""One line of a batch: column → text, a list of texts, or numbers; the first column is the query."""

TRIES = 20
"""Negatives drawn to find one that is known to answer none of the batch's queries, before all passages are looked at."""


@dataclass(frozen=True)
class Shares:
    """How a step draws from the examples."""

    batch: int
    negatives: int
    seed: int
    form: Form
    in_batch: bool
    """Whether passages of other examples are negatives: then short batches are left out, and lengths are mixed."""


@dataclass(frozen=True)
class Drawn:
    """What a step looks at of one example."""

    query: str
    passages: list[str]
    """The one that answers first, where there is one."""
    labels: list[float]
    """1 for the passage that answers, 0 for others."""
    scores: list[float] | None = None
    numbers: tuple[int, ...] = ()
    """Of known passages."""

    def cut(self, passages: int) -> Drawn:
        return replace(self, passages=self.passages[:passages], labels=self.labels[:passages])


class Feed:
    """Step → rows: `Feed(examples, shares)[step]`; every example comes once in an epoch, epoch after epoch.

    An example gives one of its positives and `negatives` of its negatives, drawn anew each time; where it has too few, those
    of others fill in, none of them known to answer the query, nor, where a batch's passages are everybody's negatives, another
    of the batch. Rows of the same query and positives are one example. What cannot be learned from is left out; `notes` say so.
    """

    def __init__(self, examples: Sequence[Example], shares: Shares) -> None:
        if not examples:
            raise DataError("there are no examples to learn from")
        self.shares = shares
        self.notes: tuple[str, ...] = ()
        """What is not learned from, and why."""
        self.taught = _is_taught(examples, shares.form)
        """Whether scores are learned from, and not labels of 1 and 0."""
        self._queries = [example.query for example in examples]
        self._use(examples)
        self.epoch_steps = len(self._batches_of(0))
        """Steps of the first epoch; others may have one more or less, as examples happen to fit beside each other."""

    def _use(self, examples: Sequence[Example]) -> None:
        self.examples, notes = _prepared(examples, self.shares, taught=self.taught)
        self._batches = Batches(self.examples, self.shares.batch, seed=self.shares.seed)
        self._known = known_answers(self.examples)
        self._pool = [passage for example in self.examples for passage in (example.negatives or example.positives)]
        self._passages: dict[str, str] = {}  # all of them by same_text, once they are asked for
        self._numbers = {text: number for number, text in enumerate(sorted(set().union(*self._known)))}
        self._epoch: tuple[int, list[list[int]]] = (-1, [])
        self._ends: list[int] = []  # of each epoch, the first step after it
        self.notes = (*notes, *self._left_over())

    def refresh(self, examples: Sequence[Example]) -> None:
        """Take other negatives for the same queries; raises DataError where there are others, or scores were learned from."""
        if self.taught:
            raise DataError("these examples are learned from by their scores, which negatives mined anew have not")
        if [example.query for example in examples] != self._queries:
            raise DataError("the refreshed examples are of other queries than those that the training began with")
        self._use(examples)

    def __getitem__(self, step: int) -> list[Row]:
        places = self._batch_of(step)
        draw = np.random.default_rng([self.shares.seed, 1, step])
        together = set().union(*(self._known[place] for place in places)) if self.shares.in_batch else None
        drawn = [self._draw(place, draw, self._known[place] if together is None else together) for place in places]
        if "columns" in self.shares.form:  # columns have no gaps: where passages are few, there are fewer columns
            fewest = min(len(one.passages) for one in drawn)
            drawn = [self._numbered(place, one.cut(fewest)) for place, one in zip(places, drawn, strict=True)]
        if any(self._lacks(one, len(drawn)) for one in drawn):
            raise DataError(
                "there are not enough passages that do not answer: mine negatives (twinrank mine), or ask for fewer of them"
            )
        return [row for one in drawn for row in ROWS[self.shares.form](one)]

    # -- batches ---------------------------------------------------------------------------------------------------------

    def _batch_of(self, step: int) -> list[int]:
        """The places of a step's examples."""
        while not self._ends or step >= self._ends[-1]:
            before = self._ends[-1] if self._ends else 0
            self._ends.append(before + len(self._batches_of(len(self._ends))))
        epoch = bisect_right(self._ends, step)
        return self._batches_of(epoch)[step - (self._ends[epoch - 1] if epoch else 0)]

    def _batches_of(self, epoch: int) -> list[list[int]]:
        if self._epoch[0] != epoch:
            batches = self._batches.epoch(epoch, like_lengths=not self.shares.in_batch)
            if self.shares.in_batch:  # few passages beside each other teach little, and count as much as many
                batches = [batch for batch in batches if 2 * len(batch) >= self.shares.batch] or batches
            self._epoch = (epoch, batches)
        return self._epoch[1]

    def _left_over(self) -> list[str]:
        """What an epoch leaves out for want of others to stand beside, if that is more than the rest of a division."""
        left = len(self.examples) - sum(map(len, self._batches_of(0)))
        if left < self.shares.batch:
            return []
        return [
            f"{left:,} of {counted(len(self.examples), 'example')} came into no batch of an epoch, since in a batch no query, "
            "document or known answer stands twice, and too few were left to stand beside them; a smaller batch takes more"
        ]

    # -- one example -----------------------------------------------------------------------------------------------------

    def _draw(self, place: int, draw: np.random.Generator, known: Set[str]) -> Drawn:
        example, wanted = self.examples[place], self.shares.negatives + 1
        right = [int(draw.integers(len(example.positives)))] if example.positives else []
        order = draw.permutation(len(example.negatives))[: wanted - len(right)].tolist()
        chosen = [*right, *(len(example.positives) + one for one in order)]
        passages = [example.passages[one] for one in chosen]
        scores = None if example.scores is None else [example.scores[one] for one in chosen]
        if right and scores is None:  # what was scored is learned from as it is, and what is labelled 0 needs no others
            passages += self._others(wanted - len(passages), draw, {*known, *map(same_text, passages)})
        labels = [1.0] * len(right) + [0.0] * (len(passages) - len(right))
        return Drawn(example.query, passages, labels, scores)

    def _others(self, count: int, draw: np.random.Generator, barred: set[str]) -> list[str]:
        """So many passages that other queries came with, or as many as there are."""
        found: list[str] = []
        for _ in range(count):
            passage = self._other(draw, barred)
            if passage is None:
                break
            barred.add(same_text(passage))
            found.append(passage)
        return found

    def _other(self, draw: np.random.Generator, barred: Set[str]) -> str | None:
        for _ in range(TRIES):
            passage = self._pool[int(draw.integers(len(self._pool)))]
            if same_text(passage) not in barred:
                return passage
        if not self._passages:
            self._passages = {same_text(passage): passage for example in self.examples for passage in example.passages}
        left = [passage for text, passage in self._passages.items() if text not in barred]
        return left[int(draw.integers(len(left)))] if left else None

    def _lacks(self, drawn: Drawn, rows: int) -> bool:
        """Whether there is nothing to tell the example's answer from, neither of its own nor in the batch."""
        alone = len(drawn.passages) == 1 and self.shares.negatives > 0
        return alone and drawn.scores is None and drawn.labels[0] == 1 and not (self.shares.in_batch and rows > 1)

    def _numbered(self, place: int, drawn: Drawn) -> Drawn:
        """With the numbers that the form "known columns" has; others have none."""
        if self.shares.form != "known columns":
            return drawn
        own, *others = map(same_text, drawn.passages)
        known = [own, *(text for text in sorted(self._known[place]) if text != own)]
        standing = [-2 - self._numbers[text] for text in others if text in self._numbers]
        return replace(drawn, numbers=(*(self._numbers[text] for text in known), *standing))


# -- what can be learned from ------------------------------------------------------------------------------------------------

LACKS = {
    "scores": (
        "a teacher's scores, or as many negatives with one as the recipe asks for",
        "score them: twinrank distill, or scores in the JSON lines",
    ),
    "answer": (
        "a passage that answers, one labelled above 0",
        "give some that have one, or learn from single labels: bce, mse or contrastive",
    ),
    "order": ("two passages with different scores", "mine negatives and score them: twinrank mine, twinrank distill"),
}
"""What an example may lack → in words, and what to do."""


def _is_taught(examples: Sequence[Example], form: Form) -> bool:
    """Whether a form takes its examples' scores: where all of them say 1 of an answer and 0 of others, they are labels."""
    return form.startswith("scored") or (form.startswith("graded") and not all(map(_is_labelled, examples)))


def _is_labelled(example: Example) -> bool:
    answers, count = len(example.positives), len(example.passages)
    return example.scores in (None, (1.0,) * answers + (0.0,) * (count - answers))


def _prepared(examples: Sequence[Example], shares: Shares, *, taught: bool) -> tuple[list[Example], list[str]]:
    """The examples that the form can be made of, rows of the same query and positives as one; and what to say of others."""
    whole = merged(examples)
    notes = []
    if len(whole) < len(examples):
        notes.append(
            f"{counted(len(examples), 'row')} made {counted(len(whole), 'example')}: those of one query and answer are one, "
            "with the negatives of all"
        )
    if not taught:
        whole = [_without_known(*one) for one in zip(whole, known_answers(whole), strict=True)]
    lacking = [_lacking(example, shares, taught=taught) for example in whole]
    kept = [example for example, lack in zip(whole, lacking, strict=True) if lack is None]
    for lack, count in Counter(one for one in lacking if one is not None).items():
        missing, advice = LACKS[lack]
        if not kept:
            raise DataError(f"no example has what its loss learns from: {missing} — {advice}")
        notes.append(f"{count:,} of {counted(len(whole), 'example')} were left out, lacking {missing}; {advice}")
    return kept, notes


def _without_known(example: Example, known: Set[str]) -> Example:
    """Without negatives that another example says answer the query, or that are of its own document, and without scores."""
    negatives = tuple(text for text in example.negatives if same_text(text) not in known)
    return replace(example, negatives=negatives if negatives or example.positives else example.negatives, scores=None)


def _lacking(example: Example, shares: Shares, *, taught: bool) -> str | None:
    """What keeps an example from being learned from: a key of LACKS."""
    passages = min(1, len(example.positives)) + len(example.negatives)  # that a step may look at
    if taught and (example.scores is None or (shares.form.startswith("scored") and passages <= shares.negatives)):
        return "scores"
    if not example.positives and (shares.in_batch or not (taught or "pairs" in shares.form)):
        return "answer"
    if taught and shares.form == "graded lists" and (passages < 2 or len(set(example.scores or ())) < 2):
        return "order"
    return None


# -- one example as rows of each form ----------------------------------------------------------------------------------------

Maker: TypeAlias = Callable[[Drawn], list[Row]]


def _pairs(drawn: Drawn) -> list[Row]:
    return [
        {"query": drawn.query, "passage": passage, "label": label}
        for passage, label in zip(drawn.passages, drawn.labels, strict=True)
    ]


def _columns(drawn: Drawn) -> list[Row]:
    others = {f"negative_{number}": passage for number, passage in enumerate(drawn.passages[1:])}
    return [{"query": drawn.query, "positive": drawn.passages[0], **others}]


def _known_columns(drawn: Drawn) -> list[Row]:
    return [_columns(drawn)[0] | {"label": list(drawn.numbers)}]


def _scored_columns(drawn: Drawn) -> list[Row]:
    return [_columns(drawn)[0] | {"label": drawn.scores}]


def _lists(drawn: Drawn) -> list[Row]:
    return [{"query": drawn.query, "passages": drawn.passages, "labels": drawn.labels}]


def _graded(maker: Maker) -> Maker:
    """The same with scores for labels, where there are some."""
    return lambda drawn: maker(drawn if drawn.scores is None else replace(drawn, labels=drawn.scores))


ROWS: Mapping[Form, Maker] = {
    "pairs": _pairs,
    "graded pairs": _graded(_pairs),
    "columns": _columns,
    "known columns": _known_columns,
    "scored columns": _scored_columns,
    "lists": _lists,
    "graded lists": _graded(_lists),
    "scored lists": _graded(_lists),
}
