"""Query expansion as ColBERT has it: mask tokens behind the query that see it, while nothing sees them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from twinrank.models.native import NativeNetwork
from twinrank.models.packing import take
from twinrank.models.reference import Array, Group, ReferenceNetwork, _softmax
from twinrank.models.trunk import Network, Trunk
from twinrank.types import Tokens, Vectors


def run_expanded(
    network: Network, trunk: Callable[[], Trunk], tokens: Tokens, expansion: int, threads: int | None = None
) -> Vectors:
    """Hidden states (tokens, width), where the tokens `expansion` at a text's end see the others and are seen by none.

    The native engine does so by itself; for NumPy the network is made of `trunk` anew for every text.
    """
    texts = [take(tokens, np.array([number])) for number in range(len(tokens))]
    seen = [seen_tokens(text.ids, expansion) for text in texts]
    if isinstance(network, NativeNetwork):
        native = network.run(tokens, pooling=None, hidden=True, threads=threads, seen=np.array(seen, np.int32)).hidden
        assert native is not None
        return native
    states = np.empty((len(tokens.ids), network.shape.width), np.float32)
    for number, text in enumerate(texts):
        hidden = _PartlySeen(trunk(), seen[number]).run(text, pooling=None, hidden=True).hidden
        states[tokens.offsets[number] : tokens.offsets[number + 1]] = hidden
    return states


def seen_tokens(ids: np.ndarray, expansion: int) -> int:
    """How many tokens stand before the expansion.

    >>> seen_tokens(np.array([101, 7592, 103, 102, 103, 103]), 103)
    4
    """
    real = np.flatnonzero(ids != expansion)
    return int(real[-1]) + 1 if len(real) else len(ids)


class _PartlySeen(ReferenceNetwork):
    """Attention over the first `seen` tokens of one text alone."""

    def __init__(self, trunk: Trunk, seen: int) -> None:
        super().__init__(trunk)
        self._seen = seen

    def _attend(self, at: str, states: Array, groups: list[Group]) -> Array:
        query, key, value = (self._linear(at + name, states) for name in ("query", "key", "value"))  # (tokens, width) each
        query *= np.float32(1 / math.sqrt(self.shape.head_width))
        context = np.empty_like(states)
        (group,) = groups
        q, k, v, out = (self._split_heads(array, group) for array in (query, key, value, context))
        scores = q @ k[:, :, : self._seen].transpose(0, 1, 3, 2)  # (1, heads, tokens, seen)
        if (bias := self._relative_bias(group.length)) is not None:
            scores += bias[:, :, : self._seen]
        out[...] = _softmax(scores) @ v[:, :, : self._seen]  # (1, heads, tokens, head width)
        return context
