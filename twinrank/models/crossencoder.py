"""Cross-encoder: query and passage go through the network together, and a classifier on it gives scores or labels.

Nogueira and Cho 2019. Nothing can be stored ahead, so it is for the few candidates that a faster search has found.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from twinrank.errors import InputError, ModelDamagedError, ModelUnsupportedError, QueryError
from twinrank.models.biencoder import warn_truncated
from twinrank.models.checkpoint import Checkpoint
from twinrank.models.heads import Array, activate, apply_by_row, softmax
from twinrank.models.runtime import PrecisionChoice, Progress, open_network, run_network
from twinrank.types import Hit, Scores, Tokens

Pair = tuple[str, str]


class Classified(NamedTuple):
    """The likeliest label of a pair, and the probability of each."""

    label: str
    probability: float
    probabilities: dict[str, float]


class Seen(NamedTuple):
    """How much of a text a network reads: its first characters, and the tokens that are left out behind them."""

    characters: int
    dropped: int


class CrossEncoder:
    """Pairs of texts → scores, or outputs for labels: `CrossEncoder(model).score([(query, passage), …])` is (pairs,) float32.

    The activation over the outputs is the one that the checkpoint states, applied once; `activation` ("identity", "sigmoid")
    takes its place. A pair longer than `max_tokens` loses the end of its longer text, with a TruncationWarning; with `windows`
    a long passage is scored in overlapping windows instead, and the best one counts (Dai and Callan 2019: MaxP), at the cost
    of one pass a window. On the native engine a pair's score does not depend on the other pairs, to the last bit.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Checkpoint,
        *,
        precision: PrecisionChoice = "auto",
        threads: int | None = None,
        max_tokens: int | None = None,
        activation: str | None = None,
        windows: bool = False,
    ) -> None:
        checkpoint = Checkpoint.find(model, "CrossEncoder").limited_to(max_tokens)
        if activation not in (None, "identity", "sigmoid"):
            raise InputError(
                f"Unknown activation {activation!r}; choose identity or sigmoid, or None for the checkpoint's own."
            )
        self.name = checkpoint.name
        self.labels = checkpoint.labels
        if windows and len(self.labels) != 1:
            raise InputError(
                f"{self.name} gives {len(self.labels)} labels, and of labels no window is the best; leave `windows`."
            )
        self.activation = checkpoint.activation if activation is None else activation
        self.max_tokens = checkpoint.max_tokens
        self.windows = windows
        self.threads = threads
        self._head = checkpoint.head()
        self._tokenizer = checkpoint.tokenizer()
        self.network = open_network(checkpoint, precision, threads)
        settings = ["cross-encoder", self.activation, *(["windows"] if windows else [])]
        self.fingerprint = f"{checkpoint.fingerprint(*settings)}:{self.network.precision}"

    def __repr__(self) -> str:
        return f"CrossEncoder({self.name!r}, labels={len(self.labels)}, {self.network.precision} by {self.network.path})"

    def score(self, pairs: Sequence[Pair], *, progress: Progress | None = None) -> Scores:
        """One score a pair, larger is more relevant: (pairs,). For models with one label."""
        self._require_one_label()
        return self._run(pairs, progress).outputs[:, 0]

    def predict(
        self,
        pairs: Sequence[Pair],
        *,
        labels: Sequence[str] | None = None,
        probabilities: bool = False,
        progress: Progress | None = None,
    ) -> Array:
        """The outputs for each pair, a column a label, in the order of `labels`: (pairs, labels).

        `labels` picks columns by name (`labels=["entailment"]`, in any case; default: all that the model has, `self.labels`).
        With `probabilities` the labels' logits go through a softmax, in place of the checkpoint's activation.
        """
        if probabilities and len(self.labels) == 1:
            raise ModelUnsupportedError(f"{self.name} has one label, so there is nothing to weigh it against; use `score`.")
        columns = [self._column(label) for label in (self.labels if labels is None else labels)]
        return self._run(pairs, progress, probabilities=probabilities).outputs[:, columns]

    def classify(self, pairs: Sequence[Pair], *, progress: Progress | None = None) -> list[Classified]:
        """The likeliest label of each pair, by name. For models with several: entailment, neutral, contradiction."""
        rows = self.predict(pairs, probabilities=True, progress=progress).tolist()
        named = [dict(zip(self.labels, row, strict=True)) for row in rows]
        return [Classified(best := max(row, key=row.__getitem__), row[best], row) for row in named]

    def rank(self, query: str, passages: Sequence[str], k: int | None = None) -> list[Hit]:
        """The `k` best passages (default: all), best first; a hit's id is the passage's place in the list, as text.

        A hit's text is the passage, or with `windows` the best window of it, which stands at its `start` and `end`.
        """
        if not query.strip():
            raise QueryError("The query is empty; give it some words.")
        if k is not None and k < 1:
            raise QueryError(f"k is {k}; ask for at least 1 hit.")
        self._require_one_label()
        scored = self._run([(query, passage) for passage in passages])
        scores, spans = scored.outputs[:, 0], scored.spans.tolist()
        best = np.argsort(-scores, kind="stable")[:k].tolist()
        hits = []
        for rank, place in enumerate(best, start=1):
            start, end = spans[place]
            text = passages[place][start:end]
            hits.append(Hit(id=str(place), score=float(scores[place]), rank=rank, text=text, start=start, end=end))
        return hits

    def count_tokens(self, pairs: Sequence[Pair]) -> npt.NDArray[np.int64]:
        """How many tokens each pair takes through the network, special ones included, of all its windows: (pairs,)."""
        if not self.windows:
            return self._tokenizer.encode_pairs(pairs).lengths.astype(np.int64)
        windows = self._tokenizer.encode_windows(pairs)
        return np.bincount(windows.pairs, windows.tokens.lengths, minlength=len(pairs)).astype(np.int64)

    def seen(self, query: str, passage: str) -> tuple[Seen, Seen]:
        """How much of the query and of the passage the network reads; with `windows` it reads all of the passage."""
        if self.windows:
            return Seen(len(query), 0), Seen(len(passage), 0)
        found = []
        for text, kept in zip((query, passage), self._tokenizer.kept_of_pair((query, passage)), strict=True):
            offsets = self._tokenizer.offsets(text)
            dropped = len(offsets) - kept
            end = len(text) if not dropped else offsets[kept - 1][1] if kept else 0
            found.append(Seen(end, dropped))
        return found[0], found[1]

    def _run(self, pairs: Sequence[Pair], progress: Progress | None = None, *, probabilities: bool = False) -> _Scored:
        """Outputs in the order of the pairs; equal pairs are run once."""
        unique = {_checked_pair(pair, number): 0 for number, pair in enumerate(pairs)}
        for row, pair in enumerate(unique):
            unique[pair] = row
        scored = self._score_windows(list(unique), progress)
        # By row too, because vectorised functions may treat the last few of many in another way.
        finished = [softmax(row) if probabilities else activate(self.activation, row) for row in scored.outputs]
        outputs = np.array(finished, np.float32).reshape(-1, len(self.labels))  # (unique pairs, labels)
        rows = [unique[(pair[0], pair[1])] for pair in pairs]
        return _Scored(outputs[rows], scored.spans[rows])

    def _score_windows(self, pairs: Sequence[Pair], progress: Progress | None) -> _Scored:
        """Logits of each pair, of its best window where there are several."""
        if not self.windows:
            tokens = self._tokenizer.encode_pairs(pairs)
            spans = np.array([(0, len(passage)) for _, passage in pairs], np.int64).reshape(-1, 2)
            return _Scored(self._logits(tokens, progress), spans)
        windows = self._tokenizer.encode_windows(pairs)
        logits = self._logits(windows.tokens, progress)  # (windows, 1)
        order = np.lexsort((np.arange(len(logits)), -logits[:, 0], windows.pairs)) if len(logits) else np.empty(0, np.int64)
        _, firsts = np.unique(windows.pairs[order], return_index=True)
        best = order[firsts]  # (pairs,): each one's best window, of equal ones the first
        return _Scored(logits[best], windows.spans[best])

    def _logits(self, tokens: Tokens, progress: Progress | None) -> Array:
        warn_truncated(tokens, self.max_tokens, "windows" if self.windows else "pairs", stacklevel=6)
        outputs = run_network(self.network, tokens, pooling="cls", threads=self.threads, progress=progress)
        assert outputs.pooled is not None
        logits = apply_by_row(self._head, outputs.pooled)  # (pairs, labels)
        if not np.isfinite(logits).all():
            raise ModelDamagedError(f"{self.name} gave NaN or infinity; its weights cannot be used in float32.")
        return logits

    def _require_one_label(self) -> None:
        if len(self.labels) != 1:
            raise ModelUnsupportedError(
                f"{self.name} gives {len(self.labels)} labels ({', '.join(self.labels)}), not one score: use `predict`."
            )

    def _column(self, label: str) -> int:
        names = [name.lower() for name in self.labels]
        if str(label).lower() not in names:
            raise InputError(f"{self.name} has no label {label!r}; it has {', '.join(self.labels)}.")
        return names.index(label.lower())


class _Scored(NamedTuple):
    outputs: Array
    """(pairs, labels)"""
    spans: npt.NDArray[np.int64]
    """(pairs, 2): the characters of the passage that the outputs are of."""


def _checked_pair(pair: object, number: int) -> Pair:
    if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
        raise InputError(f"Pair {number} is {str(pair)[:60]!r}; a (query, passage) of two texts was expected.")
    return pair[0], pair[1]
