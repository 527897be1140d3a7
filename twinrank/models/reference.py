"""The forward pass of the BERT family in plain NumPy: the oracle of every faster engine, and what runs where none was compiled.

Vaswani et al. 2017 (the layer), Devlin et al. 2018 (BERT), Song et al. 2020 (MPNet's relative bias). Nothing is padded and
nothing is masked: tokens lie packed, one a row, and only attention looks at texts, all texts of one length at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from twinrank.models.packing import Indices, check_run, plan_batches, token_places
from twinrank.models.trunk import Activation, Outputs, Pooling, Precision, Trunk
from twinrank.types import Tokens, Vectors

Array = npt.NDArray[np.float32]

TOKENS_PER_BATCH = 4096
"""A batch's largest array is (tokens, intermediate): 24 MB for MiniLM, 48 MB for a base model."""

SCORES_PER_BLOCK = 1 << 20
"""Attention scores held at once: 4 MB, whatever the texts' lengths."""

ELEMENTS_PER_BLOCK = 1 << 15
"""Elements that an activation works on at once, so that its dozen steps stay in the CPU's cache."""


class ReferenceNetwork:
    """A trunk that runs in float32 by NumPy alone; `threads` is left to NumPy's BLAS (OMP_NUM_THREADS and the like).

    Peak memory beside weights and results is about `4 * TOKENS_PER_BATCH * (intermediate + 8 * width)` bytes; a single text
    longer than that counts as a batch of its own.
    """

    precision: Precision = "fp32"
    path = "numpy"

    def __init__(self, trunk: Trunk) -> None:
        self.shape = trunk.shape
        self._weights = trunk.weights
        self._activate = ACTIVATIONS[trunk.shape.activation]

    def run(
        self,
        tokens: Tokens,
        *,
        pooling: Pooling | None = "mean",
        hidden: bool = False,
        layers: tuple[int, int] | None = None,
        start: Vectors | None = None,
        threads: int | None = None,
    ) -> Outputs:
        """See `Network.run`."""
        first, last = check_run(self.shape, tokens, pooling, layers, start)
        pooled = None if pooling is None else np.empty((len(tokens), self.shape.width), np.float32)
        packed = np.empty((len(tokens.ids), self.shape.width), np.float32) if hidden else None
        for texts in plan_batches(tokens.lengths, TOKENS_PER_BATCH):
            places = token_places(tokens, texts)  # (tokens of this batch,)
            groups = list(_equal_lengths(tokens.lengths[texts]))
            states = self._embed(tokens, texts, places) if start is None else start[places]  # (tokens, width)
            for layer in range(first, last):
                states = self._run_layer(layer, states, groups)
            if pooled is not None and pooling is not None:
                pooled[texts] = np.concatenate([_pool(states[group.rows].reshape(group.shape), pooling) for group in groups])
            if packed is not None:
                packed[places] = states
        return Outputs(pooled, packed)

    def _embed(self, tokens: Tokens, texts: Indices, places: Indices) -> Array:
        weights = self._weights
        states = weights["embeddings.word"][tokens.ids[places]]  # (tokens, width)
        if "embeddings.position" in weights:
            within = places - np.repeat(tokens.offsets[texts], tokens.lengths[texts])  # (tokens,): 0, 1, 2… in each text
            states += weights["embeddings.position"][within + self.shape.position_offset]
        if self.shape.types:
            states += weights["embeddings.type"][0 if tokens.types is None else tokens.types[places]]
        return self._normalise("embeddings.norm", states)

    def _run_layer(self, number: int, states: Array, groups: list[Group]) -> Array:
        at = f"layers.{number}."
        context = self._attend(at, states, groups)  # (tokens, width)
        states = self._normalise(at + "attention_norm", self._linear(at + "attention_output", context) + states)
        inner = _by_blocks(self._activate, self._linear(at + "intermediate", states))  # (tokens, intermediate)
        return self._normalise(at + "output_norm", self._linear(at + "output", inner) + states)

    def _attend(self, at: str, states: Array, groups: list[Group]) -> Array:
        """softmax(q kᵀ / √head_width + bias) v, in each text and head by itself."""
        query, key, value = (self._linear(at + name, states) for name in ("query", "key", "value"))  # (tokens, width) each
        query *= np.float32(1 / math.sqrt(self.shape.head_width))
        context = np.empty_like(states)  # (tokens, width)
        for group in groups:
            # (texts, length, width) → (texts, heads, length, head width), views of the packed rows
            q, k, v, out = (self._split_heads(array[group.rows], group) for array in (query, key, value, context))
            bias = self._relative_bias(group.length)
            for texts, rows in _attention_blocks(group, self.shape.heads):
                scores = q[texts, :, rows] @ k[texts].transpose(0, 1, 3, 2)  # (texts, heads, rows, length)
                if bias is not None:
                    scores += bias[:, rows]
                out[texts, :, rows] = _softmax(scores) @ v[texts]  # (texts, heads, rows, head width)
        return context

    def _split_heads(self, rows: Array, group: Group) -> Array:
        split: Array = rows.reshape(group.texts, group.length, self.shape.heads, self.shape.head_width)
        heads: Array = split.transpose(0, 2, 1, 3)  # (texts, heads, length, head width)
        return heads

    def _relative_bias(self, length: int) -> Array | None:
        """MPNet's bias by the distance between two tokens: (heads, length, length)."""
        if not self.shape.relative_buckets:
            return None
        places = np.arange(length)
        buckets = relative_bucket(places[None, :] - places[:, None], self.shape.relative_buckets)  # (length, length)
        bias: Array = self._weights["relative_bias"][buckets].transpose(2, 0, 1)
        return bias

    def _linear(self, name: str, inputs: Array) -> Array:
        outputs: Array = inputs @ self._weights[name + ".weight"].T
        outputs += self._weights[name + ".bias"]
        return outputs

    def _normalise(self, name: str, states: Array) -> Array:
        """Layer normalisation (Ba et al. 2016), in place."""
        states -= states.mean(axis=1, keepdims=True)
        variance = np.einsum("ij,ij->i", states, states) / np.float32(self.shape.width)  # (tokens,)
        states *= (1 / np.sqrt(variance + np.float32(self.shape.norm_epsilon)))[:, None]
        states *= self._weights[name + ".weight"]
        states += self._weights[name + ".bias"]
        return states


class Group(NamedTuple):
    """Texts of one length that lie together: `rows` of a batch."""

    rows: slice
    texts: int
    length: int

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.texts, self.length, -1


def _equal_lengths(lengths: npt.NDArray[np.int32]) -> Iterator[Group]:
    """Split texts that are sorted by length into groups of one length."""
    row = 0
    for length, texts in zip(*np.unique(lengths, return_counts=True), strict=True):
        rows = slice(row, row := row + int(length) * int(texts))
        yield Group(rows, int(texts), int(length))


def _attention_blocks(group: Group, heads: int) -> Iterator[tuple[slice, slice]]:
    """Slices of texts and of query rows whose scores number at most SCORES_PER_BLOCK."""
    texts_each = max(1, SCORES_PER_BLOCK // (heads * group.length**2))
    rows_each = max(1, min(group.length, SCORES_PER_BLOCK // (heads * group.length)))
    for text in range(0, group.texts, texts_each):
        for row in range(0, group.length, rows_each):
            yield slice(text, text + texts_each), slice(row, row + rows_each)


def _softmax(scores: Array) -> Array:
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores


def _pool(states: Array, pooling: Pooling) -> Array:
    """(texts, length, width) → (texts, width)."""
    pooled: Array
    if pooling == "cls":
        pooled = states[:, 0]
    elif pooling == "last":
        pooled = states[:, -1]
    elif pooling == "max":
        pooled = states.max(axis=1)
    elif pooling == "mean":
        pooled = states.mean(axis=1)
    else:
        weights = np.arange(1, states.shape[1] + 1, dtype=np.float32)  # (length,)
        pooled = np.einsum("tlw,l->tw", states, weights / weights.sum())
    return pooled


def relative_bucket(distance: npt.NDArray[np.int64], buckets: int, farthest: int = 128) -> Indices:
    """The bucket of a distance between two tokens: own ones for near distances, shared ones, growing by a power, for far.

    Half of the buckets are for what comes after (T5's scheme: Raffel et al. 2019, section 2.1).

    >>> relative_bucket(np.array([0, -1, 1, -7, 8, -1000, 1000]), 32).tolist()
    [0, 1, 17, 7, 24, 15, 31]
    """
    half = buckets // 2
    near = half // 2
    away = np.abs(distance)
    # float32 throughout, in this order: at 16, 32 and 64 the quotient stands on a bucket's border and rounding decides.
    growth = np.log(np.maximum(away, 1).astype(np.float32) / np.float32(near)) / np.float32(math.log(farthest / near))
    far = near + (growth * np.float32(half - near)).astype(np.int64)
    return np.where(distance > 0, half, 0) + np.where(away < near, away, np.minimum(far, half - 1))


def _by_blocks(activate: Callable[[Array], Array], values: Array) -> Array:
    """Apply an activation in place, a cache's worth at a time."""
    flat = values.reshape(-1)
    for begin in range(0, flat.size, ELEMENTS_PER_BLOCK):
        block = flat[begin : begin + ELEMENTS_PER_BLOCK]
        block[:] = activate(block)
    return values


def erf(values: Array) -> Array:
    """The error function by Abramowitz and Stegun's formula 7.1.26; off by less than 6e-7 in float32.

    >>> [f"{value:.4f}" for value in erf(np.array([0.5, 1.0, -1.0], np.float32))]
    ['0.5205', '0.8427', '-0.8427']
    """
    away = np.abs(values)
    t = away * np.float32(0.3275911)
    t += np.float32(1)
    np.reciprocal(t, out=t)
    poly: Array = t * np.float32(1.061405429)
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        poly += np.float32(coefficient)
        poly *= t
    away *= away
    np.negative(away, out=away)
    poly *= np.exp(away, out=away)
    np.subtract(np.float32(1), poly, out=poly)
    signed: Array = np.copysign(poly, values, out=poly)
    return signed


def gelu(values: Array) -> Array:
    """x Φ(x) (Hendrycks and Gimpel 2016): `0.5 x (1 + erf(x / √2))`."""
    result = erf(values * np.float32(math.sqrt(0.5)))
    result += np.float32(1)
    result *= values
    result *= np.float32(0.5)
    return result


def gelu_tanh(values: Array) -> Array:
    """The paper's approximation: `0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))`."""
    inner = values * values
    inner *= np.float32(0.044715)
    inner += np.float32(1)
    inner *= values
    inner *= np.float32(math.sqrt(2 / math.pi))
    np.tanh(inner, out=inner)
    inner += np.float32(1)
    inner *= values
    inner *= np.float32(0.5)
    return inner


def relu(values: Array) -> Array:
    positive: Array = np.maximum(values, np.float32(0))
    return positive


ACTIVATIONS: dict[Activation, Callable[[Array], Array]] = {"gelu": gelu, "gelu_tanh": gelu_tanh, "relu": relu}
