"""Documents as they are written in these tests: every passage's vector depends on its text alone."""

from __future__ import annotations

import numpy as np

from twinrank.store import PreparedDocument, PreparedPassage, Store
from twinrank.types import (
    Document,
    Value,
)

VIEW = {"model": "hash", "fingerprint": "f1", "dimension": 4}


def vector_of(text: str) -> np.ndarray:
    """A vector that depends on the text alone."""
    return np.random.default_rng(sum(map(ord, text))).normal(size=4).astype(np.float32)


def prepare(id: str, *texts: str, encode: bool = True, without: str = "", **fields: Value) -> PreparedDocument:
    """A document whose passages are `texts`; those named in `without` come without a vector."""
    passages, place = [], 0
    for text in texts:
        known = {"small": (None if text == without else vector_of(text), len(text) % 3)} if encode else {}
        passages.append(PreparedPassage(place, place + len(text), f"digest of {text}", known))
        place += len(text) + 1
    return PreparedDocument(Document(id, " ".join(texts), fields=fields), "digest of " + " ".join(texts), passages)


def texts_of(store: Store) -> dict[int, str]:
    return {int(key): text for keys, texts in store.iterate_passages() for key, text in zip(keys, texts, strict=True)}
