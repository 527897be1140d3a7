"""The models that a server offers by name: what embeds, and what reranks, by the best that its recipe has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from twinrank.collection import Collection
from twinrank.loaded import Loaded
from twinrank.maxsim import maxsim
from twinrank.models.crossencoder import CrossEncoder
from twinrank.models.lateinteraction import LateInteraction
from twinrank.serve.refusals import Refusal
from twinrank.types import Encoder, Scores, Side, Vectors

AT_ONCE = 8
"""Texts that are scored between two looks at the clock."""
Means = Literal["cross-encoder", "maxsim", "bi-encoder"]
Likely = npt.NDArray[np.float64]


class Embedded(NamedTuple):
    vectors: list[Vectors]
    tokens: int
    """Of all texts, as the model read them."""
    truncated: list[int]
    """Places of the texts that were longer than the model takes."""


@dataclass(frozen=True)
class Embedder:
    """One vector a text, encoded together with what else is asked at the same time."""

    loaded: Loaded
    encoder: Encoder

    @property
    def name(self) -> str:
        return public_name(self.encoder.name)

    def embed(self, texts: Sequence[str], side: Side) -> Embedded:
        tokens = self.encoder.tokenize(texts, side=side)
        return Embedded(self.loaded.encode(self.encoder, texts, side), int(tokens.lengths.sum()), cut(tokens.dropped))


class Judged(NamedTuple):
    scores: Likely
    """(texts,): as the model gives them."""
    relevance: Likely
    """(texts,): the same from 0 to 1."""
    tokens: int
    truncated: list[int]
    """Places of the texts of which the model reads the beginning alone."""

    def followed_by(self, other: Judged) -> Judged:
        begun = len(self.scores)
        return Judged(
            np.concatenate([self.scores, other.scores]),
            np.concatenate([self.relevance, other.relevance]),
            self.tokens + other.tokens,
            self.truncated + [begun + place for place in other.truncated],
        )


@dataclass(frozen=True)
class Reranker:
    """Scores texts for a query: by a cross-encoder, or without one by MaxSim, or by the likeness of vectors."""

    loaded: Loaded
    by: Means
    model: CrossEncoder | LateInteraction | Encoder

    @property
    def name(self) -> str:
        """Tells the means where it is none of the models that are made for this."""
        name = public_name(self.model.name)
        return name if self.by == "cross-encoder" else f"{self.by}:{name}"

    @property
    def max_tokens(self) -> int:
        return self.model.max_tokens

    def judge(self, query: str, texts: Sequence[str], until: float | None = None) -> Judged:
        """Scores of the texts; of the first of them where `until`, on the clock of `perf_counter`, comes before the last."""
        if until is None:
            return self._judge(query, texts)
        judged = Judged(np.empty(0), np.empty(0), 0, [])
        while len(judged.scores) < len(texts) and perf_counter() < until:
            begun = len(judged.scores)
            judged = judged.followed_by(self._judge(query, texts[begun : begun + AT_ONCE]))
        return judged

    def _judge(self, query: str, texts: Sequence[str]) -> Judged:
        if isinstance(self.model, CrossEncoder):
            return self._by_pairs(self.model, query, texts)
        tokens = self.model.tokenize(texts, side="document")
        if isinstance(self.model, LateInteraction):
            scores = self._by_tokens(self.model, query, texts)
        else:
            scores = self._by_vectors(self.model, query, texts)
        return Judged(scores, np.clip(scores, 0.0, 1.0), int(tokens.lengths.sum()), cut(tokens.dropped))

    def _by_pairs(self, model: CrossEncoder, query: str, texts: Sequence[str]) -> Judged:
        pairs = [(query, text) for text in texts]
        scores = self.loaded.score(model, pairs).astype(np.float64)
        counts = model.count_tokens(pairs)
        full = [place for place, count in enumerate(counts.tolist()) if count >= model.max_tokens]
        truncated = [place for place in full if any(seen.dropped for seen in model.seen(query, texts[place]))]
        tokens = int(counts.sum())
        if model.activation != "sigmoid":
            return Judged(scores, 1 / (1 + np.exp(-np.clip(scores, -500, 500))), tokens, truncated)
        # The checkpoint gives probabilities; what they were made of is had back as well as float32 has kept it.
        inside = np.clip(scores, 1e-7, 1 - 1e-7)
        return Judged(np.log(inside / (1 - inside)), scores, tokens, truncated)

    def _by_tokens(self, model: LateInteraction, query: str, texts: Sequence[str]) -> Likely:
        """The mean over the query's tokens of the best likeness: MaxSim, divided by the most that it could be."""
        (asked,) = self.loaded.encode(model, [query], "query")
        scores: Scores = maxsim(asked, self.loaded.encode(model, texts, "document"))
        return scores.astype(np.float64) / max(1, len(asked))

    def _by_vectors(self, model: Encoder, query: str, texts: Sequence[str]) -> Likely:
        asked = _unit(np.stack(self.loaded.encode(model, [query], "query")))
        given = _unit(np.stack(self.loaded.encode(model, texts, "document")))
        return np.asarray(given @ asked[0], np.float64)


def embedder_of(collection: Collection) -> Embedder | None:
    loaded = collection.assembly.loaded
    return None if loaded.encoder is None else Embedder(loaded, loaded.encoder)


def reranker_of(collection: Collection) -> Reranker | None:
    """By the recipe's last cross-encoder, else by what it has."""
    loaded = collection.assembly.loaded
    for stage in reversed(collection.recipe.rerank):
        if stage.kind == "cross-encoder":
            return Reranker(loaded, "cross-encoder", loaded.scorer(stage))
    if loaded.late is not None:
        return Reranker(loaded, "maxsim", loaded.late)
    return None if loaded.encoder is None else Reranker(loaded, "bi-encoder", loaded.encoder)


def require_name(asked: str | None, served: str) -> None:
    """Refuse a model that is not served, rather than answer with another one; its last part is name enough."""
    if asked not in (None, "", served, served.rpartition("/")[2]):
        raise Refusal(
            404, f"the model {str(asked)[:100]!r} is not served here; {served!r} is, or leave `model` out" if asked else ""
        )


def public_name(name: str) -> str:
    """A model's name without the folders that it lies in.

    >>> public_name("sentence-transformers/all-MiniLM-L6-v2"), public_name("/srv/models/mine")
    ('sentence-transformers/all-MiniLM-L6-v2', 'mine')
    """
    return " + ".join(Path(part).name if Path(part).is_absolute() else part for part in name.split(" + "))


def cut(dropped: npt.NDArray[np.int32] | None) -> list[int]:
    """The places of the texts of which tokens were dropped."""
    return [] if dropped is None else [int(place) for place in dropped.nonzero()[0]]


def _unit(vectors: Vectors) -> npt.NDArray[Any]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1))
