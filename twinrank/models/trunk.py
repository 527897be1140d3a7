"""What a network of the BERT family is here: its shape, and its weights under one set of names, whatever the checkpoint's.

`checkpoint.py` makes a Trunk from files; `reference.py` and the native engine run it. The names of the weights:

    embeddings.word (vocabulary, width)         embeddings.position (positions, width), absent for relative-only families
    embeddings.type (types, width), optional    embeddings.norm.weight, embeddings.norm.bias (width,)
    layers.0.query.weight (width, width), layers.0.query.bias (width,); the same for key, value, attention_output
    layers.0.attention_norm.weight, .bias (width,)
    layers.0.intermediate.weight (intermediate, width), .bias; layers.0.output.weight (width, intermediate), .bias
    layers.0.output_norm.weight, .bias (width,)
    relative_bias (buckets, heads), MPNet only

Matrices stand as in PyTorch: y = x @ weight.T + bias. All weights are float32, C-contiguous.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from twinrank.types import Tokens, Vectors

Activation: TypeAlias = Literal["gelu", "gelu_tanh", "relu"]
"""`gelu` is the exact one with erf; `gelu_tanh` is the approximation that some checkpoints call gelu_new."""

Pooling: TypeAlias = Literal["cls", "mean", "max", "weighted_mean", "last"]
"""How a text's token vectors become one: the first token's, their mean, their maximum by dimension, their mean weighted by
position (1 for the first token, 2 for the second…; Muennighoff 2022), the last token's."""


Precision: TypeAlias = Literal["int8", "bf16", "fp32"]
"""The number format of the multiplications; part of a view's fingerprint."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes and switches of a network; equal shapes run the same code."""

    layers: int
    width: int
    heads: int
    intermediate: int
    vocabulary: int
    positions: int
    """Rows of the position table."""
    types: int
    """Rows of the token type table; 0 where the family has none."""
    position_offset: int = 0
    """The table's row for the first token: 0 for BERT, padding id + 1 (2) for RoBERTa, XLM-R and MPNet."""
    activation: Activation = "gelu"
    norm_epsilon: float = 1e-12
    relative_buckets: int = 0
    """Buckets of MPNet's relative position bias; 0 where the family has none."""

    @property
    def max_tokens(self) -> int:
        return self.positions - self.position_offset

    @property
    def head_width(self) -> int:
        return self.width // self.heads


@dataclass(frozen=True, slots=True)
class Trunk:
    """A network without its head: shape and weights."""

    family: str
    """bert, roberta, xlm-roberta, distilbert or mpnet."""
    shape: Shape
    weights: Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Outputs:
    """What one pass gave; None where it was not asked for. Neither is normalised."""

    pooled: Vectors | None  # (texts, width)
    hidden: Vectors | None  # (tokens, width), packed like the tokens


class Network(Protocol):
    """A trunk made ready to run: the NumPy reference or the native engine, one exam for both."""

    shape: Shape
    precision: Precision
    path: str
    """What runs it, for people: `numpy`, or the native engine's instruction set, `avx512-vnni-bf16`."""

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
        """Run layers `layers[0]` up to, not including, `layers[1]` (default: embeddings, then all).

        `start` (tokens, width) are the hidden states that enter layer `layers[0]`; without it the embeddings are computed,
        which asks for `layers[0] == 0`. Empty texts and token ids outside the vocabulary are refused with InputError.
        """
        ...
