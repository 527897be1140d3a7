"""How far a collection's vectors and words agree: measured with queries made of its sentences, kept, renewed as it changes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from twinrank.errors import CollectionBusyError, StorageError
from twinrank.index.searched import VectorSearch
from twinrank.search.retrieve import IndexSource
from twinrank.search.weights import agreement_of
from twinrank.store import Kept
from twinrank.text import sentences
from twinrank.types import Keys

AGREEMENT = "agreement"
"""The name in the store under which it is kept."""

VERSION = 1
ASKED = 300
"""Queries made; the mean over them is sure to ± .025."""

FEWEST = 64
"""Passages. Of fewer, the first ten by anything are the same in large part."""

CHANGED = 0.25
"""The share of passages that may come or go before it is measured anew."""

PLACES = 10
SENTENCE = 20, 300
"""Characters that a sentence has at least and at most to become a query."""


Known = dict[str, tuple[int, float]]
"""Stamp → passages when it was measured, agreement: what this process knows, where nothing can be written."""


def agreement(
    store: Kept, stamp: str, index: VectorSearch, vectors: IndexSource[Any], words: IndexSource[Any], known: Known
) -> float | None:
    """What is known for `stamp` (what made vectors and words) of the passages in `index`, or measured now: a second or two.

    None of fewer than `FEWEST`.
    """
    passages = len(index)
    if passages < FEWEST:
        return None
    if stamp not in known or _has_changed(known[stamp][0], passages):
        kept = _kept(store, stamp)
        if kept is None or _has_changed(kept[0], passages):
            kept = passages, measure(store, index.keys, vectors, words)
            _keep(store, stamp, *kept)
        known[stamp] = kept
    return known[stamp][1]


def _has_changed(before: int, passages: int) -> bool:
    return abs(passages - before) > CHANGED * before


def _keep(store: Kept, stamp: str, passages: int, measured: float) -> None:
    if store.writable:
        told = {"version": VERSION, "stamp": stamp, "passages": passages, "agreement": measured}
        with suppress(CollectionBusyError, StorageError):  # else it is measured again by the next process
            store.set_meta(AGREEMENT, json.dumps(told))


def _kept(store: Kept, stamp: str) -> tuple[int, float] | None:
    try:
        told = json.loads(store.get_meta(AGREEMENT) or "null")
        if told is not None and (told["version"], told["stamp"]) == (VERSION, stamp):
            return int(told["passages"]), float(told["agreement"])
    except (ValueError, KeyError, TypeError):
        pass  # unreadable: measured anew
    return None


def told(store: Kept) -> str:
    """What is kept, for people; empty where nothing is."""
    try:
        kept = json.loads(store.get_meta(AGREEMENT) or "{}")
        places, passages = f"{float(kept['agreement']):.2f}", f"{int(kept['passages']):,}"
    except (ValueError, KeyError, TypeError):
        return ""
    return f"decided for each query; vectors and words agree by {places}, measured at {passages} passages"


def measure(store: Kept, keys: Keys, vectors: IndexSource[Any], words: IndexSource[Any]) -> float:
    """Ask both for the same queries, and compare their first places."""
    found: list[list[Sequence[int]]] = [[], []]
    for query in made_queries(store, keys):
        for source, lists in zip((vectors, words), found, strict=True):
            lists.append(source.ask(query).find(PLACES, None).keys.tolist())
    return agreement_of(found[0], found[1], PLACES)


def made_queries(store: Kept, keys: Keys, count: int = ASKED) -> Iterator[str]:
    """A sentence of each of `count` passages, drawn from all of them, with half of its words left out by chance.

    A whole sentence is found by any words of it, so that the two agree whatever the encoder is worth.
    """
    draw = np.random.default_rng(0)
    chosen = np.sort(draw.choice(np.sort(keys), min(count, len(keys)), replace=False))
    for passage in store.passages(chosen):
        fitting = [(start, end) for start, end in sentences(passage.text) if SENTENCE[0] <= end - start <= SENTENCE[1]]
        start, end = fitting[int(draw.integers(len(fitting)))] if fitting else (0, SENTENCE[1])
        spoken = passage.text[start:end].split()
        half = [word for word, stays in zip(spoken, draw.random(len(spoken)) < 0.5, strict=True) if stays]
        query = " ".join(half or spoken)
        if query:
            yield query
