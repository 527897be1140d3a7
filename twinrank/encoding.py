"""What a recipe keeps of every passage: its text → the vectors of each view, from one pass where one network gives both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from twinrank.store import ViewKind
from twinrank.types import Encoder, Tokens, Vectors

if TYPE_CHECKING:
    from twinrank.models.biencoder import BiEncoder
    from twinrank.models.lateinteraction import LateInteraction

VECTORS = "vectors"
"""The name of the view that holds one vector a passage."""

TOKENS = "tokens"
"""The name of the view that holds one vector a token."""

NEXT = ".next"
"""What the name of a view ends with that is to take the place of another."""

TOKENS_AT_ONCE = 16_384
"""Tokens whose vectors are in memory unquantised at a time: 25 MB at 384 dimensions."""


@dataclass(frozen=True)
class ViewPlan:
    """A view as the recipe asks for it: what `Store.add_view` takes."""

    name: str
    kind: ViewKind
    model: str
    fingerprint: str
    dimension: int
    settings: Mapping[str, Any] = field(default_factory=dict)

    def successor(self) -> ViewPlan:
        """The same view under the name that it has until it takes its place."""
        return replace(self, name=self.name + NEXT)


@dataclass
class Encoded:
    """What the views keep of several texts."""

    vectors: dict[str, list[tuple[Vectors, int]]] = field(default_factory=dict)
    """View → for each text its vectors, (dimension,) or (tokens, dimension), and the tokens of it that did not fit."""
    tokens: int = 0
    """Tokens that were encoded."""
    texts: int = 0
    truncated: int = 0
    """Texts that were longer than a model takes."""
    dropped: int = 0
    """Tokens cut off them."""


@dataclass(frozen=True)
class PassageEncoder:
    """Texts of passages → what the views hold; of its two models at least one is there."""

    encoder: Encoder | None
    """Gives one vector a passage."""
    late: LateInteraction | None = None
    """Gives one vector a token; where its `encoder` is the one above, both come from one pass."""
    format: str = "int4"
    """How token vectors are stored."""

    @cached_property
    def views(self) -> tuple[ViewPlan, ...]:
        plans = []
        if (encoder := self.encoder) is not None:
            plans.append(ViewPlan(VECTORS, "vector", encoder.name, encoder.fingerprint, encoder.dimension))
        if (late := self.late) is not None:
            plans.append(ViewPlan(TOKENS, "tokens", late.name, late.fingerprint, late.dimension, {"format": self.format}))
        return tuple(plans)

    @property
    def counting(self) -> Encoder | LateInteraction:
        """The model in whose tokens passages are counted and cut."""
        chosen = self.encoder or self.late
        assert chosen is not None
        return chosen

    def encode(self, texts: Sequence[str], names: Sequence[str] = (VECTORS, TOKENS)) -> Encoded:
        """Encode titled texts for the views of these names, as far as they are among its own."""
        found = Encoded(texts=len(texts))
        wanted = {plan.name for plan in self.views} & set(names)
        if wanted == {VECTORS, TOKENS} and (shared := self._shared) is not None:
            tokens = shared.tokenize(texts)
            for part in _parts(tokens):
                both = shared.embed(part, token_vectors=True)
                assert self.late is not None
                _put(found, VECTORS, list(both.vectors), part)
                _put(found, TOKENS, self.late.select(part, both.token_vectors), part)
            _count(found, tokens)
            return found
        if VECTORS in wanted and self.encoder is not None:
            tokens = self.encoder.tokenize(texts)
            _put(found, VECTORS, list(self.encoder.embed(tokens)), tokens)
            _count(found, tokens)
        if TOKENS in wanted and self.late is not None:
            tokens = self.late.tokenize(texts)
            for part in _parts(tokens):
                _put(found, TOKENS, self.late.embed(part), part)
            _count(found, tokens)
        return found

    @property
    def _shared(self) -> BiEncoder | None:
        """The bi-encoder that both views come from."""
        shared = None if self.late is None else self.late.encoder
        return shared if shared is self.encoder else None


def _put(found: Encoded, view: str, vectors: Sequence[Vectors], tokens: Tokens) -> None:
    found.vectors.setdefault(view, []).extend(zip(vectors, _dropped(tokens).tolist(), strict=True))


def _count(found: Encoded, tokens: Tokens) -> None:
    """Where two models cut the same texts, the one that cuts more is told."""
    dropped = _dropped(tokens)
    found.tokens += len(tokens.ids)
    found.truncated = max(found.truncated, int((dropped > 0).sum()))
    found.dropped = max(found.dropped, int(dropped.sum()))


def _dropped(tokens: Tokens) -> npt.NDArray[np.int32]:
    return np.zeros(len(tokens), np.int32) if tokens.dropped is None else tokens.dropped


def _parts(tokens: Tokens) -> Iterator[Tokens]:
    """Runs of whole texts of about TOKENS_AT_ONCE tokens, so that what is not yet quantised stays small."""
    first = 0
    while first < len(tokens):
        reach = tokens.offsets[first] + TOKENS_AT_ONCE
        last = max(first + 1, int(np.searchsorted(tokens.offsets, reach, side="right")) - 1)
        start, end = int(tokens.offsets[first]), int(tokens.offsets[last])
        yield Tokens(
            tokens.ids[start:end],
            tokens.offsets[first : last + 1] - tokens.offsets[first],
            None if tokens.types is None else tokens.types[start:end],
            None if tokens.dropped is None else tokens.dropped[first:last],
        )
        first = last
