"""Token batches → hidden states: picks the native engine or the NumPy reference, says which and why, and bounds the memory."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from functools import cache
from typing import Literal, TypeAlias

import numpy as np

from twinrank.errors import InputError, ModelUnsupportedError
from twinrank.models.checkpoint import Checkpoint
from twinrank.models.reference import ReferenceNetwork
from twinrank.models.trunk import Network, Outputs, Pooling, Precision
from twinrank.types import Tokens

log = logging.getLogger("twinrank")

PrecisionChoice: TypeAlias = Literal["auto", "int8", "bf16", "fp32"]
"""`auto` is int8 where the native engine runs, else fp32."""

Progress: TypeAlias = Callable[[int, int], None]
"""Told (texts done, texts in all) now and then."""

TOKENS_PER_CALL = 1 << 16
"""Tokens that a network is given at once. What it holds beside weights and results is bounded by this, not by the input:
for a width of 768 the hidden states of one call are 200 MB, of MiniLM 100 MB, and only where they are asked for."""


def open_network(checkpoint: Checkpoint, precision: PrecisionChoice = "auto", threads: int | None = None) -> Network:
    """Make a checkpoint's trunk ready to run.

    A precision that is named is what runs, or ModelUnsupportedError; only `auto` falls back, because vectors of another
    precision do not belong into the same view. The environment's TWINRANK_ENGINE=numpy forces the reference; the name of an
    instruction set (`avx2`, `portable`…) forces the native engine on it.
    """
    if precision not in ("auto", "int8", "bf16", "fp32"):
        raise InputError(f"Unknown precision {precision!r}; choose auto, int8, bf16 or fp32.")
    engine = os.environ.get("TWINRANK_ENGINE", "")
    if engine == "numpy":
        return _open_reference(checkpoint, precision, "TWINRANK_ENGINE=numpy asks for it")
    try:
        return _open_native(checkpoint, "int8" if precision == "auto" else precision, threads)
    except ModelUnsupportedError as error:
        if engine:
            raise ModelUnsupportedError(f"TWINRANK_ENGINE={engine}, but {error}") from error
        return _open_reference(checkpoint, precision, str(error))


def settled_precision(checkpoint: Checkpoint, precision: PrecisionChoice = "auto") -> Precision:
    """What `open_network` would run in, told without opening it."""
    if precision not in ("auto", "int8", "bf16", "fp32"):
        raise InputError(f"Unknown precision {precision!r}; choose auto, int8, bf16 or fp32.")
    if precision != "auto":
        return precision
    return "int8" if os.environ.get("TWINRANK_ENGINE", "") != "numpy" and _runs_natively(checkpoint) else "fp32"


def run_network(
    network: Network,
    tokens: Tokens,
    *,
    pooling: Pooling | None,
    hidden: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Outputs:
    """Run all texts, some TOKENS_PER_CALL tokens at a time; results stand in the order of the texts."""
    width = network.shape.width
    pooled = None if pooling is None else np.empty((len(tokens), width), np.float32)
    states = np.empty((len(tokens.ids), width), np.float32) if hidden else None
    for first, last in _text_ranges(tokens):
        part = _texts(tokens, first, last)
        outputs = network.run(part, pooling=pooling, hidden=hidden, threads=threads)
        if pooled is not None:
            pooled[first:last] = outputs.pooled
        if states is not None:
            states[tokens.offsets[first] : tokens.offsets[last]] = outputs.hidden
        if progress is not None:
            progress(last, len(tokens))
    return Outputs(pooled, states)


def _open_native(checkpoint: Checkpoint, precision: Precision, threads: int | None) -> Network:
    from twinrank.models import native

    if not native.available():
        raise ModelUnsupportedError("the native engine was not compiled when twinrank was installed")
    key = checkpoint.cache_key
    warm: Network | None = native.NativeNetwork.cached(checkpoint.shape, key, precision, threads=threads)
    if warm is not None:
        return warm
    network: Network = native.NativeNetwork.open(checkpoint.trunk(), precision=precision, cache_key=key, threads=threads)
    return network


def _runs_natively(checkpoint: Checkpoint) -> bool:
    from twinrank.models import native

    try:
        native.native_shape(checkpoint.shape)
    except ModelUnsupportedError:
        return False
    return True


def _open_reference(checkpoint: Checkpoint, precision: PrecisionChoice, reason: str) -> Network:
    if precision not in ("auto", "fp32"):
        raise ModelUnsupportedError(
            f"{checkpoint.name} cannot run in {precision}: {reason}, and NumPy runs fp32 alone. Ask for precision='auto' or "
            "'fp32', or install twinrank where its engine can be compiled."
        )
    _say(f"encoding by NumPy in fp32, slower than the native engine: {reason}")
    return ReferenceNetwork(checkpoint.trunk())


@cache
def _say(message: str) -> None:
    """Log a message once a process."""
    log.warning(message)


def _text_ranges(tokens: Tokens) -> Iterator[tuple[int, int]]:
    """(first, last) of runs of texts with at most TOKENS_PER_CALL tokens, or one text."""
    first = 0
    while first < len(tokens):
        last = int(np.searchsorted(tokens.offsets, int(tokens.offsets[first]) + TOKENS_PER_CALL, side="right")) - 1
        last = max(first + 1, last)
        yield first, last
        first = last


def _texts(tokens: Tokens, first: int, last: int) -> Tokens:
    begin, end = tokens.offsets[first], tokens.offsets[last]
    types = None if tokens.types is None else tokens.types[begin:end]
    return Tokens(tokens.ids[begin:end], tokens.offsets[first : last + 1] - begin, types)
