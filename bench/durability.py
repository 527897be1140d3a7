"""What durability costs at 100,000 passages: opening after a clean close and after a kill, adding one document, checking rows.

python bench/durability.py [--passages 100000] [--folder DIR] [--rounds 5]

The vectors are random ones of 384 numbers, by an encoder that costs next to nothing, so that what is timed is not encoding.
Every opening is of a process of its own, whose imports are not counted; its files are in the system's cache.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from statistics import median
from time import perf_counter, process_time, sleep

import numpy as np

import twinrank.collection
from twinrank import Collection, Document, Recipe
from twinrank.encoding import PassageEncoder
from twinrank.loaded import Loaded
from twinrank.store import Store, documents
from twinrank.types import Side, Tokens, Vectors

DIMENSION, WORDS, VOCABULARY = 384, 40, 50_000


class RandomEncoder:
    """A random unit vector for each text, the same one every time."""

    name = fingerprint = "random"
    dimension, max_tokens = DIMENSION, 512

    def tokenize(self, texts: Sequence[str], *, side: Side = "document") -> Tokens:
        ids = np.array([zlib.crc32(text.encode()) & 0x7FFFFFFF for text in texts], np.int32)
        return Tokens(ids, np.arange(len(texts) + 1, dtype=np.int32))

    def embed(self, tokens: Tokens, *, side: Side = "document") -> Vectors:
        rows = [np.random.default_rng(int(seed)).standard_normal(DIMENSION, np.float32) for seed in tokens.ids]
        matrix = np.array(rows, np.float32).reshape(len(rows), DIMENSION)
        return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)

    def encode(self, texts: Sequence[str], *, side: Side = "document") -> Vectors:
        return self.embed(self.tokenize(texts), side=side)

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        return [(0, len(text))]


class RandomLoaded(Loaded):
    """The models of a recipe, with the encoder above in place of whatever it names."""

    @cached_property
    def passages(self) -> PassageEncoder:
        return PassageEncoder(RandomEncoder())


def made_documents(first: int, count: int) -> Iterator[Document]:
    """Texts of 40 words whose frequencies fall as those of a language do (Zipf)."""
    ranks = np.arange(1, VOCABULARY + 1)
    chances = (1 / ranks) / (1 / ranks).sum()
    for start in range(first, first + count, 1000):
        chosen = np.random.default_rng(start).choice(VOCABULARY, (1000, WORDS), p=chances)
        for number, row in enumerate(chosen[: first + count - start], start):
            yield Document(f"d{number}", " ".join(f"w{word}" for word in row.tolist()), fields={"year": 2000 + number % 25})


def opened(folder: Path) -> Collection:
    twinrank.collection.Loaded = RandomLoaded  # type: ignore[misc]
    return Collection(folder, recipe=None if folder.exists() else Recipe())


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """(seconds by the clock, seconds of this process's work)"""
    clock, worked = perf_counter(), process_time()
    work()
    return perf_counter() - clock, process_time() - worked


# What runs in a process of its own


def open_and_ask(folder: Path) -> None:
    def work() -> None:
        found.append(opened(folder))
        assert found[0].search("w5 w300 w7000", 10)

    found: list[Collection] = []
    print(*timed(work), len(found[0]), len(found[0].notices))
    found[0].close()


def add_until_killed(folder: Path, first: int) -> None:
    opened(folder).add(made_documents(first, 20_000))


def add_one_by_one(folder: Path, first: int, rounds: int) -> None:
    with opened(folder) as collection:
        collection.search("w5", 1)
        for number in range(rounds):
            added = list(made_documents(first + 1000 * number, 1))
            print(*timed(lambda added=added: collection.add(added)))  # type: ignore[misc]


def search_with_and_without_checks(folder: Path, rounds: int) -> None:
    """Interleaved, by the work of the process: what the rows' checksums add to a search."""
    verify, chosen = documents.verify, random.Random(0)
    with opened(folder) as collection:
        for _ in range(rounds):
            query = " ".join(f"w{chosen.randrange(2000)}" for _ in range(4))
            collection.search(query, 10)  # warm for both
            for check in chosen.sample([True, False], 2):
                documents.verify = verify if check else lambda *_: None
                print(int(check), *timed(lambda: collection.search(query, 10)))  # noqa: B023  # called at once
        documents.verify = verify


CHILDREN = {"open": open_and_ask, "fill": add_until_killed, "one": add_one_by_one, "search": search_with_and_without_checks}


# The measurement


def child(part: str, folder: Path, *numbers: int) -> list[list[float]]:
    command = [sys.executable, __file__, "--child", part, str(folder), *map(str, numbers)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [[float(value) for value in line.split()] for line in lines]


def kill_in_the_middle(folder: Path, first: int) -> None:
    """SIGKILL at a random instant after the first of its batches was written, before the indexes have them."""
    with Store.open(folder) as store:
        before = store.sequence()
        process = subprocess.Popen([sys.executable, __file__, "--child", "fill", str(folder), str(first)])
        while store.sequence() == before:
            sleep(0.01)
        sleep(random.Random(first).uniform(0, 1))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()


def synced(folder: Path, rounds: int) -> list[tuple[float, float]]:
    """What the disk itself takes, and how it is under the load of the moment."""

    def write() -> None:
        os.write(handle, b"x" * 8192)
        os.fsync(handle)

    handle = os.open(folder / "synced", os.O_WRONLY | os.O_CREAT)
    found = [timed(write) for _ in range(rounds)]
    os.close(handle)
    return found


def row(name: str, seconds: Sequence[Sequence[float]], goal: str) -> str:
    clock, work = [[1000 * one[place] for one in seconds] for place in (0, 1)]
    return f"| {name} | {median(clock):,.1f} | {max(clock):,.1f} | {median(work):,.1f} | {max(work):,.1f} | {goal} |"


def measure(folder: Path, passages: int, rounds: int) -> None:
    clock, work = timed(lambda: fill(folder, passages))
    print(f"{passages:,} passages were added in {clock:.0f} s ({work:.0f} s of work); load {os.getloadavg()[0]:.1f}\n")
    print("| what, in ms | clock, median | clock, most | work, median | work, most | goal |\n|---|---|---|---|---|---|")
    clean = [child("open", folder)[0] for _ in range(rounds)]
    print(row("open and first answer, closed properly", clean, "2,000"), flush=True)
    killed = []
    for number in range(rounds):
        kill_in_the_middle(folder, 10 * passages + 100_000 * number)
        killed.append(child("open", folder)[0])
    print(row("open and first answer, killed while adding", killed, "2,000"), flush=True)
    print(row("one write of 8 kB and its sync to the disk", synced(folder.parent, 30), ""))
    print(row("add one document", child("one", folder, 100 * passages, 6 * rounds), "50"), flush=True)
    searches = child("search", folder, 40 * rounds)
    checked, unchecked = ([line[1:] for line in searches if line[0] == kind] for kind in (1, 0))
    print(row("search", checked, ""))
    print(row("search, rows not compared with their checksums", unchecked, ""))
    taken = [int(after[2] - before[2]) for before, after in zip([clean[-1], *killed], killed, strict=False)]
    print(f"\nDocuments that the killed processes left and the next opening took in: {', '.join(f'{one:,}' for one in taken)};")
    print(f"indexes made anew: {sum(int(one[3]) for one in killed)}. ", end="")
    ratio = median(one[1] for one in checked) / median(one[1] for one in unchecked)
    print(f"Checksums add {100 * (ratio - 1):.1f} % to the work of a search. Load in the end {os.getloadavg()[0]:.1f}.")


def fill(folder: Path, passages: int) -> None:
    if not folder.exists():
        with opened(folder) as collection:
            collection.add(made_documents(0, passages))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the collection is made, in a new folder; default: a temporary one")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        part, folder, *numbers = options.child
        CHILDREN[part](Path(folder), *map(int, numbers))
        return
    place = Path(tempfile.mkdtemp(prefix="durability-", dir=options.folder))
    try:
        measure(place / "c", options.passages, options.rounds)
    finally:
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
