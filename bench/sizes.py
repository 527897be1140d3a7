"""What a collection takes a passage, part by part, on texts that people wrote: python bench/sizes.py DATA [NAME …]

DATA holds folders in BEIR's layout. Their documents go into one collection, cut by the default encoder's tokenizer, with random
vectors in place of its network's: bytes are counted. Then the network encodes some of the passages, timed by processor time.
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

import twinrank.collection
from twinrank import BiEncoder, Collection, Document
from twinrank.encoding import PassageEncoder
from twinrank.loaded import Loaded
from twinrank.readers import documents as read

NAMES = ("debian_desc", "pydoc_code", "vaswani", "scifact", "climatefever_sent", "cranfield", "medline", "pubmedqa_l")
ENCODED = 2_000
PARTS = {
    "texts and fields": ("documents", "fields"),
    "vectors in the store": ("vectors",),
    "passages and log of changes": ("passages", "changes"),
}


class Tokenized(BiEncoder):
    """The default encoder's tokenizer with random unit vectors."""

    def embed(self, tokens: Any, **_: Any) -> Any:
        matrix = np.random.default_rng(len(tokens)).standard_normal((len(tokens), self.dimension), np.float32)
        return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


class RandomLoaded(Loaded):
    @cached_property
    def passages(self) -> PassageEncoder:
        return PassageEncoder(Tokenized(threads=1))


def documents(data: Path, names: Sequence[str]) -> Iterator[Document]:
    for name in names:
        for document in read(data / name):
            yield replace(document, id=f"{name}-{document.id}")


def main() -> None:
    data, names = Path(sys.argv[1]), sys.argv[2:] or NAMES
    twinrank.collection.Loaded = RandomLoaded  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as folder:
        with Collection(Path(folder) / "c") as collection:
            started = process_time()
            print(collection.add(documents(data, names)), f"CPU {process_time() - started:.0f} s")
            texts = [text for _, batch in collection.store.iterate_passages() for text in batch]
            indexes = {index.name: index.size for index in collection.status().indexes}
        report(Path(folder) / "c" / "store.db", texts, indexes)
    encode(texts)


def report(store: Path, texts: list[str], indexes: dict[str, int]) -> None:
    count = len(texts)
    written = np.mean([len(text.encode()) for text in texts])
    tokens = BiEncoder(threads=1).count_tokens(texts)
    print(f"{count:,} passages of {np.mean(tokens):.1f} tokens, {written:.0f} bytes of text; bytes a passage:")
    with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as database:
        pages = dict(database.execute("SELECT name, SUM(pgsize) FROM dbstat GROUP BY name").fetchall())
    for part, tables in PARTS.items():
        size = sum(pages.pop(name) for name in list(pages) if _belongs(name, tables))
        print(f"  {part:<28} {size / count:8.0f}")
    print(f"  {'the rest of the store':<28} {sum(pages.values()) / count:8.0f}")
    for name, size in indexes.items():
        print(f"  {'index of ' + name:<28} {size / count:8.0f}")


def _belongs(name: str, tables: Sequence[str]) -> bool:
    return any(name in (table, f"sqlite_autoindex_{table}_1") or name.startswith(f"{table}_by") for table in tables)


def encode(texts: list[str]) -> None:
    chosen = [texts[row] for row in np.random.default_rng(0).choice(len(texts), min(ENCODED, len(texts)), replace=False)]
    encoder = BiEncoder(threads=1)
    encoder.encode(chosen[:64])
    started = process_time()
    encoder.encode(chosen)
    work = process_time() - started
    tokens = int(encoder.tokenize(chosen).lengths.sum())
    print(f"{len(chosen):,} passages encoded: {len(chosen) / work:,.0f} a second, {tokens / work:,.0f} tokens a second, by CPU")


if __name__ == "__main__":
    main()
