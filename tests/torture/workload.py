"""What a tortured process does: adds, updates and deletes in an order that a seed decides, with the state that each leaves."""

from __future__ import annotations

import os
import random
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

import twinrank.collection
from twinrank.collection import Collection
from twinrank.encoding import PassageEncoder
from twinrank.ingest import BATCH_DOCUMENTS
from twinrank.loaded import Loaded
from twinrank.recipe import Recipe
from twinrank.text import Chunking
from twinrank.types import Document, Side, Tokens, Vectors

State = Mapping[str, Document]

WORDS = (
    "river", "stone", "cloud", "copper", "lantern", "orchard", "violin", "harbour", "meadow", "thunder", "saddle", "ribbon",
)  # fmt: skip
DIMENSION = 16


class HashEncoder:
    """An encoder whose vector depends on the text alone, and which costs nothing: what is tortured is not the network."""

    name = fingerprint = "hash"
    dimension = DIMENSION
    max_tokens = 512

    def tokenize(self, texts: Sequence[str], *, side: Side = "document") -> Tokens:
        ids = [[zlib.crc32(word.encode()) & 0x7FFFFFFF for word in text.split()] for text in texts]
        offsets = np.cumsum([0, *map(len, ids)]).astype(np.int32)
        return Tokens(np.array([one for part in ids for one in part], np.int32), offsets)

    def embed(self, tokens: Tokens, *, side: Side = "document") -> Vectors:
        bounds = zip(tokens.offsets[:-1], tokens.offsets[1:], strict=True)
        seeds = [zlib.crc32(tokens.ids[start:end].tobytes()) for start, end in bounds]
        rows = [np.random.default_rng(seed).normal(size=DIMENSION) for seed in seeds]
        matrix = np.array(rows, np.float32).reshape(len(rows), DIMENSION)
        return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)

    def encode(self, texts: Sequence[str], *, side: Side = "document") -> Vectors:
        return self.embed(self.tokenize(texts), side=side)

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        spans, end = [], 0
        for word in text.split():
            start = text.index(word, end)
            end = start + len(word)
            spans.append((start, end))
        return spans


class HashLoaded(Loaded):
    """The models of a recipe, with the encoder above in place of whatever it names."""

    @cached_property
    def passages(self) -> PassageEncoder:
        return PassageEncoder(HashEncoder())


RECIPE = Recipe(passages=Chunking(size=24, overlap=0))


def open_collection(folder: Path) -> Collection:
    """Open the collection, or create it where nothing is, as the command line does."""
    twinrank.collection.Loaded = HashLoaded  # type: ignore[misc]
    there = (folder / "store.db").exists() and (folder / "recipe.toml").exists()
    return Collection(folder, recipe=None if there else RECIPE)


@dataclass(frozen=True)
class Step:
    """One call of the public interface."""

    kind: str
    documents: tuple[Document, ...] = ()
    ids: tuple[str, ...] = ()

    def run(self, collection: Collection) -> None:
        if self.kind == "delete":
            collection.delete(self.ids)
        elif self.kind == "rebuild":
            collection.rebuild()
        else:
            collection.add(iter(self.documents))

    def states(self, before: State) -> Iterator[State]:
        """The states that a crash within this step may leave, the first and the last included: one a transaction."""
        state = dict(before)
        yield before
        if self.kind == "delete":
            yield {name: document for name, document in state.items() if name not in self.ids}
        for start in range(0, len(self.documents), BATCH_DOCUMENTS):
            state = {**state, **{document.id: document for document in self.documents[start : start + BATCH_DOCUMENTS]}}
            yield state

    def after(self, before: State) -> State:
        return list(self.states(before))[-1]


def make_document(number: int, version: int, words: int) -> Document:
    """Its text holds a word that no other version of any document has, and a vector of its own."""
    chosen = random.Random(number * 1_000_003 + version)
    text = " ".join(["only" + f"{number}v{version}", *chosen.choices(WORDS, k=words)])
    title = chosen.choice(WORDS).title() if chosen.random() < 0.5 else ""
    return Document(f"d{number}", text, title, {"version": version, "colour": chosen.choice(["red", "blue"])}, f"/{number}.txt")


def make_steps(seed: int, count: int, *, most: int = 120, large: float = 0.02) -> list[Step]:
    """Steps that any prefix of has the same meaning every time."""
    chosen = random.Random(seed)
    versions: dict[int, int] = {}
    steps = []
    for _ in range(count):
        lot = chosen.random()
        if lot < 0.2 and versions:
            steps.append(Step("delete", ids=tuple(f"d{chosen.randrange(most)}" for _ in range(chosen.randint(1, 4)))))
            continue
        if lot < 0.22:
            steps.append(Step("rebuild"))
            continue
        size = BATCH_DOCUMENTS + 40 if lot > 1 - large else chosen.randint(1, 5)
        numbers = chosen.sample(range(max(most, size) if size <= 5 else 2 * size), size)
        for number in numbers:
            versions[number] = versions.get(number, 0) + 1
        words = 8 if size > 5 else chosen.choice([3, 12, 60])
        steps.append(Step("add", tuple(make_document(number, versions[number], words) for number in numbers)))
    return steps


def work(folder: Path, log: Path, steps: Sequence[Step], first: int) -> None:
    """Take the steps from `first` on; a line is in the log before each, another once it was acknowledged."""
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    collection = open_collection(folder)
    for number in range(first, len(steps)):
        os.write(handle, f"begin {number}\n".encode())
        steps[number].run(collection)
        os.write(handle, f"done {number}\n".encode())
    collection.close()


def acknowledged(log: Path) -> tuple[int, bool]:
    """(how many steps were acknowledged, whether the next one had begun)"""
    lines = log.read_text().split("\n") if log.exists() else []
    done = max((int(line[5:]) + 1 for line in lines if line.startswith("done ")), default=0)
    return done, f"begin {done}" in lines


def state_after(steps: Sequence[Step], done: int) -> State:
    state: State = {}
    for step in steps[:done]:
        state = step.after(state)
    return state


def allowed_states(steps: Sequence[Step], done: int, begun: bool) -> list[State]:
    before = state_after(steps, done)
    return list(steps[done].states(before)) if begun and done < len(steps) else [before]
