"""Cross-encoder: query and passage go through the network together, and a classifier on it gives scores or labels.

Nogueira and Cho 2019. Nothing can be stored ahead, so it is for the few candidates that a faster search has found.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from twinrank.errors import InputError, ModelDamagedError, ModelUnsupportedError, QueryError
from twinrank.models.biencoder import warn_truncated
from twinrank.models.checkpoint import Checkpoint
from twinrank.models.heads import Array, activate, apply_steps, softmax
from twinrank.models.runtime import PrecisionChoice, Progress, open_network, run_network
from twinrank.types import Hit, Scores

Pair = tuple[str, str]


class CrossEncoder:
    """Pairs of texts → scores, or outputs for labels: `CrossEncoder(model).score([(query, passage), …])` is (pairs,) float32.

    The activation over the outputs is the one that the checkpoint states, applied once; `activation` ("identity", "sigmoid")
    takes its place. A pair longer than `max_tokens` loses the end of its longer text, with a TruncationWarning.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Checkpoint,
        *,
        precision: PrecisionChoice = "auto",
        threads: int | None = None,
        max_tokens: int | None = None,
        activation: str | None = None,
    ) -> None:
        checkpoint = Checkpoint.find(model).require("CrossEncoder").limited_to(max_tokens)
        if activation not in (None, "identity", "sigmoid"):
            raise InputError(
                f"Unknown activation {activation!r}; choose identity or sigmoid, or None for the checkpoint's own."
            )
        self.name = checkpoint.name
        self.labels = checkpoint.labels
        self.activation = checkpoint.activation if activation is None else activation
        self.max_tokens = checkpoint.max_tokens
        self.threads = threads
        self._head = checkpoint.head()
        self._tokenizer = checkpoint.tokenizer()
        self.network = open_network(checkpoint, precision, threads)
        self.fingerprint = f"{checkpoint.fingerprint('cross-encoder', self.activation)}:{self.network.precision}"

    def __repr__(self) -> str:
        return f"CrossEncoder({self.name!r}, labels={len(self.labels)}, {self.network.precision} by {self.network.path})"

    def score(self, pairs: Sequence[Pair], *, progress: Progress | None = None) -> Scores:
        """One score a pair, larger is more relevant: (pairs,). For models with one label."""
        if len(self.labels) != 1:
            raise ModelUnsupportedError(
                f"{self.name} gives {len(self.labels)} labels ({', '.join(self.labels)}), not one score: use `predict`."
            )
        return self.predict(pairs, progress=progress)[:, 0]

    def predict(self, pairs: Sequence[Pair], *, probabilities: bool = False, progress: Progress | None = None) -> Array:
        """The outputs for each pair, a column a label, in the order of `labels`: (pairs, labels).

        With `probabilities` the labels' logits go through a softmax, in place of the checkpoint's activation.
        """
        if probabilities and len(self.labels) == 1:
            raise ModelUnsupportedError(f"{self.name} has one label, so there is nothing to weigh it against; use `score`.")
        unique = {_checked_pair(pair, number): 0 for number, pair in enumerate(pairs)}
        for row, pair in enumerate(unique):
            unique[pair] = row
        logits = self._logits(list(unique), progress)  # (unique pairs, labels)
        outputs = softmax(logits) if probabilities else activate(self.activation, logits)
        return outputs[[unique[(pair[0], pair[1])] for pair in pairs]]

    def rank(self, query: str, passages: Sequence[str], k: int | None = None) -> list[Hit]:
        """The `k` best passages (default: all), best first; a hit's id is the passage's place in the list, as text."""
        if not query.strip():
            raise QueryError("The query is empty; give it some words.")
        if k is not None and k < 1:
            raise QueryError(f"k is {k}; ask for at least 1 hit.")
        scores = self.score([(query, passage) for passage in passages])
        best = np.argsort(-scores, kind="stable")[:k]
        return [
            Hit(id=str(place), score=float(scores[place]), rank=rank, text=passages[place], end=len(passages[place]))
            for rank, place in enumerate(best.tolist(), start=1)
        ]

    def _logits(self, pairs: Sequence[Pair], progress: Progress | None) -> Array:
        tokens = self._tokenizer.encode_pairs(pairs)
        warn_truncated(tokens, self.max_tokens, "pairs")
        outputs = run_network(self.network, tokens, pooling="cls", threads=self.threads, progress=progress)
        assert outputs.pooled is not None
        logits = apply_steps(self._head, outputs.pooled)  # (pairs, labels)
        if not np.isfinite(logits).all():
            raise ModelDamagedError(f"{self.name} gave NaN or infinity; its weights cannot be used in float32.")
        return logits


def _checked_pair(pair: object, number: int) -> Pair:
    if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
        raise InputError(f"Pair {number} is {str(pair)[:60]!r}; a (query, passage) of two texts was expected.")
    return pair[0], pair[1]
