"""Packed token sequences: which texts run together, where their tokens lie, and what no network takes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from twinrank.errors import InputError
from twinrank.models.trunk import Pooling, Shape
from twinrank.types import Tokens, Vectors

Indices = npt.NDArray[np.int64]

POOLINGS: tuple[Pooling, ...] = ("cls", "mean", "max", "weighted_mean", "last")


def pack(sequences: list[npt.NDArray[np.int32]]) -> Tokens:
    """Lay token sequences end to end.

    >>> packed = pack([np.array([101, 102], np.int32), np.array([101, 7592, 102], np.int32)])
    >>> packed.ids.tolist(), packed.offsets.tolist()
    ([101, 102, 101, 7592, 102], [0, 2, 5])
    """
    offsets = np.zeros(len(sequences) + 1, np.int32)
    np.cumsum([len(sequence) for sequence in sequences], out=offsets[1:])
    ids = np.concatenate(sequences).astype(np.int32, copy=False) if sequences else np.empty(0, np.int32)
    return Tokens(ids, offsets)


def plan_batches(lengths: npt.ArrayLike, most_tokens: int) -> Iterator[Indices]:
    """Give the texts out in batches of at most `most_tokens` tokens (or one text), shortest first.

    Texts of like length stand together, so that no network has to pad and each batch takes about as long as the others.

    >>> [batch.tolist() for batch in plan_batches([5, 2, 9, 3], most_tokens=10)]
    [[1, 3, 0], [2]]
    """
    sizes = np.asarray(lengths, np.int64)
    order = np.argsort(sizes, kind="stable")
    ends = np.cumsum(sizes[order])
    begin = 0
    while begin < len(order):
        before = ends[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, before + most_tokens, side="right")))
        yield order[begin:end]
        begin = end


def token_places(tokens: Tokens, texts: Indices) -> Indices:
    """Where the tokens of some texts lie among the packed ones.

    >>> token_places(pack([np.array([7, 8], np.int32), np.array([9], np.int32)]), np.array([1, 0])).tolist()
    [2, 0, 1]
    """
    lengths = tokens.lengths[texts].astype(np.int64)  # (texts,)
    shifts = tokens.offsets[texts] - (np.cumsum(lengths) - lengths)  # (texts,): place there minus place here
    places: Indices = np.arange(int(lengths.sum())) + np.repeat(shifts, lengths)
    return places


def take(tokens: Tokens, texts: Indices) -> Tokens:
    """Some of the texts, in the order given."""
    places = token_places(tokens, texts)
    offsets = np.zeros(len(texts) + 1, np.int32)
    np.cumsum(tokens.lengths[texts], out=offsets[1:])
    return Tokens(
        tokens.ids[places],
        offsets,
        None if tokens.types is None else tokens.types[places],
        None if tokens.dropped is None else tokens.dropped[texts],
    )


def check_run(
    shape: Shape, tokens: Tokens, pooling: str | None, layers: tuple[int, int] | None, start: Vectors | None
) -> tuple[int, int]:
    """Refuse with InputError what a network cannot run; give the range of layers."""
    _check_tokens(shape, tokens)
    if pooling is not None and pooling not in POOLINGS:
        raise InputError(f"Unknown pooling {pooling!r}; choose one of {', '.join(POOLINGS)}, or None for no pooling.")
    first, last = (0, shape.layers) if layers is None else layers
    if not 0 <= first <= last <= shape.layers:
        raise InputError(f"Layers {first} up to {last} were asked for, but the network has layers 0 up to {shape.layers}.")
    if start is None and first > 0:
        raise InputError(f"Layer {first} has nothing to start from: give the hidden states that enter it as `start`.")
    if start is not None and start.shape != (len(tokens.ids), shape.width):
        raise InputError(f"`start` has shape {start.shape}; one row a token, {(len(tokens.ids), shape.width)}, was expected.")
    return first, last


def _check_tokens(shape: Shape, tokens: Tokens) -> None:
    offsets, lengths = tokens.offsets, tokens.lengths
    if len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != len(tokens.ids) or (lengths < 0).any():
        raise InputError(f"Offsets must rise from 0 to the number of tokens, {len(tokens.ids)}; they are {offsets!r}.")
    if len(lengths) == 0:
        return
    if lengths.min() == 0:
        raise InputError(f"Text {lengths.argmin()} has no tokens; even an empty text has its special tokens.")
    if lengths[longest := int(lengths.argmax())] > shape.max_tokens:
        raise InputError(
            f"Text {longest} has {lengths[longest]} tokens; the network takes at most {shape.max_tokens}. Cut it before."
        )
    _check_range("Token id", tokens.ids, shape.vocabulary, "the vocabulary")
    if tokens.types is not None:
        if len(tokens.types) != len(tokens.ids):
            raise InputError(f"There are {len(tokens.types)} token types for {len(tokens.ids)} tokens; give one each.")
        _check_range("Token type", tokens.types, max(shape.types, 1), "the type table")


def _check_range(what: str, values: npt.NDArray[np.int32], size: int, table: str) -> None:
    if values.min() < 0 or values.max() >= size:
        wrong = values[(values < 0) | (values >= size)][0]
        raise InputError(f"{what} {wrong} is outside {table}, which has {size} entries. Was another tokenizer used?")
