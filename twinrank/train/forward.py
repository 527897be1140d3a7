"""A network's forward pass while it learns: in bf16 where that is fast, and on a CPU without computing much padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

WASTE = 0.1
"""Of the tokens computed together, the share that may be padding."""
FEWEST_TOKENS = 512
"""Computed together whatever the padding: below that a matrix product is too small for the processor."""


def has_bf16(device: torch.device) -> bool:
    """Whether the device computes bf16 faster than fp32, and not merely somehow."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def make_thrifty(network: Any, *, bf16: bool) -> None:
    """Put the passes of a transformers network through `_run`; its weights, and how it is saved, stay as they are.

    A bound method and no closure, so that a deep copy of the network runs the copy.
    """
    network.forward = MethodType(partial(_run, bf16=bf16), network)


def _run(network: Any, *, bf16: bool, input_ids: Tensor, attention_mask: Tensor, **others: Any) -> Any:
    plain = partial(type(network).forward, network)
    on_cpu = input_ids.device.type == "cpu"
    # On a CPU the fused attention's backward pass takes more time than all that the plain one takes in both directions.
    attention = sdpa_kernel(SDPBackend.MATH) if on_cpu and network.training else nullcontext()
    with attention, torch.autocast(input_ids.device.type, dtype=torch.bfloat16, enabled=bf16):
        if not on_cpu or not _is_plain(input_ids, others):
            return _as_float(plain(input_ids=input_ids, attention_mask=attention_mask, **others))
        lengths = _lengths(input_ids, attention_mask, network.config.pad_token_id)
        order = torch.tensor(sorted(range(len(lengths)), key=lengths.__getitem__))  # (texts,)
        # Looked up for all pieces at once: a lookup's gradient is as large as the table, for each piece once more.
        words = network.get_input_embeddings()(input_ids)  # (texts, tokens, width)
        outputs = []
        for start, end in _pieces([lengths[place] for place in order.tolist()]):
            rows, width = order[start:end], lengths[int(order[end - 1])]
            taken = {name: value[rows, :width] if _is_tokens(value, input_ids) else value for name, value in others.items()}
            outputs.append(plain(inputs_embeds=words[rows, :width], attention_mask=attention_mask[rows, :width], **taken))
        return _together(outputs, torch.argsort(order), input_ids.shape[1])


def _is_plain(input_ids: Tensor, others: dict[str, Any]) -> bool:
    """Texts alone, a row each: whatever else is as wide as the tokens, or no tensor."""
    return input_ids.ndim == 2 and all(
        not isinstance(value, Tensor) or _is_tokens(value, input_ids) for value in others.values()
    )


def _is_tokens(value: Any, input_ids: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == input_ids.shape


def _lengths(input_ids: Tensor, attention_mask: Tensor, padding: int | None) -> list[int]:
    """Up to the last token of each text that is seen, or is no padding: ColBERT's query expansion is the one, not the other."""
    there = attention_mask != 0
    if padding is not None:
        there = there | (input_ids != padding)
    places = torch.arange(1, input_ids.shape[1] + 1)
    return [max(1, length) for length in (there * places).amax(1).tolist()]


def _pieces(lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ranges of texts, which are in order of length, that are computed together."""
    start, real = 0, 0
    for place, length in enumerate(lengths):
        real += length
        computed = length * (place + 1 - start)
        if place > start and computed > FEWEST_TOKENS and computed - real > WASTE * computed:
            yield start, place
            start, real = place, length
    yield start, len(lengths)


def _together(outputs: Sequence[Any], back: Tensor, width: int) -> Any:
    """The outputs of the pieces as those of one pass over all rows, in their first order, padded by zeros."""
    merged = {}
    for name, first in outputs[0].items():
        if not isinstance(first, Tensor):
            continue
        values = [output[name].float() for output in outputs]
        if first.ndim == 3:
            values = [functional.pad(value, (0, 0, 0, width - value.shape[1])) for value in values]
        merged[name] = torch.cat(values)[back]
    return type(outputs[0])(**merged)


def _as_float(output: Any) -> Any:
    """Losses subtract numbers that are nearly alike, for which bf16 is too coarse."""
    return type(output)(**{name: value.float() if isinstance(value, Tensor) else value for name, value in output.items()})
