"""What stands on a trunk: the steps from a pooled vector to an embedding or to a classifier's outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from twinrank.errors import ModelDamagedError, ModelUnsupportedError
from twinrank.models.reference import gelu, relu

Array: TypeAlias = npt.NDArray[np.float32]

HEAD_ACTIVATIONS = ("identity", "tanh", "relu", "gelu", "sigmoid")


@dataclass(frozen=True, slots=True)
class Dense:
    """A linear map and an activation: `activation(x @ weight.T + bias)`."""

    weight: Array  # (outputs, inputs)
    bias: Array | None  # (outputs,)
    activation: str = "identity"

    def apply(self, vectors: Array) -> Array:
        outputs: Array = vectors @ self.weight.T  # (texts, outputs)
        if self.bias is not None:
            outputs = outputs + self.bias
        return activate(self.activation, outputs)


@dataclass(frozen=True, slots=True)
class Normalize:
    """To unit length."""

    def apply(self, vectors: Array) -> Array:
        return normalize(vectors)


Step: TypeAlias = Dense | Normalize


def apply_steps(steps: Sequence[Step], vectors: Array) -> Array:
    for step in steps:
        vectors = step.apply(vectors)
    return vectors


def apply_by_row(steps: Sequence[Step], vectors: Array) -> Array:
    """Like `apply_steps`, but each row by itself and in float64, so that its result is the same, bit for bit, in any company.

    A product of matrices adds up in an order that depends on how many rows there are.
    """
    double = [
        Dense(step.weight.astype(np.float64), None if step.bias is None else step.bias.astype(np.float64), step.activation)
        if isinstance(step, Dense)
        else step
        for step in steps
    ]
    rows = [apply_steps(double, row[None]) for row in vectors.astype(np.float64)]
    outputs = rows[0].shape[1] if rows else check_widths(steps, vectors.shape[1], "the head")
    return np.concatenate([np.empty((0, outputs)), *rows]).astype(np.float32)


def normalize(vectors: Array) -> Array:
    """Every row to unit length; a zero row stays zero, as in PyTorch.

    >>> normalize(np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None]  # (texts, 1)
    unit: Array = vectors / np.maximum(lengths, np.float32(1e-12))
    return unit


def activate(name: str, values: Array) -> Array:
    """Apply an activation by name.

    >>> activate("sigmoid", np.array([-1000.0, 0.0, 1000.0], np.float32)).tolist()
    [0.0, 0.5, 1.0]
    """
    results: Array = values
    if name == "tanh":
        results = np.tanh(values)
    elif name == "relu":
        results = relu(values)
    elif name == "gelu":
        results = gelu(values)
    elif name == "sigmoid":
        # e^-|x| never overflows; both halves of the curve are written with it.
        small = np.exp(-np.abs(values))
        results = np.where(values < 0, small, np.float32(1)) / (1 + small)
    return results


def softmax(logits: Array) -> Array:
    """Probabilities of each row's classes."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: Array = shifted / shifted.sum(axis=-1, keepdims=True)
    return probabilities


def read_activation(path: str, where: str) -> str:
    """The name of an activation that a checkpoint writes as a class: `torch.nn.modules.activation.Tanh`.

    >>> read_activation("torch.nn.modules.linear.Identity", "config.json")
    'identity'
    """
    name = path.rpartition(".")[2].lower()
    if not path.startswith("torch.") or name not in HEAD_ACTIVATIONS:
        raise ModelUnsupportedError(
            f"{where}: the activation {path!r} is not run here; {', '.join(HEAD_ACTIVATIONS)} of torch.nn are. "
            "A class from elsewhere would be code that comes with the model."
        )
    return name


def check_widths(steps: Sequence[Step], width: int, where: str) -> int:
    """What comes out of the steps, in dimensions; ModelDamagedError where one does not take what the one before gives."""
    for step in steps:
        if isinstance(step, Dense):
            if step.weight.shape[1] != width:
                raise ModelDamagedError(
                    f"{where}: a Dense module takes {step.weight.shape[1]} dimensions but is given {width}."
                )
            width = step.weight.shape[0]
    return width
