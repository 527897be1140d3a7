"""An approximate index beside a vector file: built, tuned to a recall that is measured, saved with checksums, opened again."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from twinrank.errors import IndexDamagedError, StorageError
from twinrank.files import sync
from twinrank.index.backends import BACKENDS, Backend, Mask
from twinrank.index.settings import Kind, VectorIndexSettings
from twinrank.index.vectorfile import VectorFile
from twinrank.scan import Rows
from twinrank.types import Vectors

Exactly = Callable[[npt.NDArray[np.float32], int], Rows]
"""The rows of the true k nearest of a query, best first."""

FORMAT = 1
DEPTHS = (10, 100)
"""The numbers of passages that the breadth is tuned for; between and beyond these it is interpolated."""
SAMPLE = 500
SAMPLE_COSINE = 0.7
SURPLUS = 8
"""Rows found beyond those wanted, since the libraries order by vectors in 8 bits: scoring them again costs little."""
ABOUT = "about.json"


@dataclass(frozen=True)
class Tuned:
    """How widely to look, and what is found so, measured over `queries` when the index was built."""

    breadths: dict[int, int]
    """Depth → breadth."""
    recalls: dict[int, float]
    """Depth → share of the true nearest that were found."""
    queries: str


class Approximate:
    """Near neighbours of a query among the rows of one vector file."""

    def __init__(self, backend: Backend, tuned: Tuned, folder: Path | None, structure: tuple[int, ...]) -> None:
        """Use `Approximate.build` or `Approximate.open`."""
        self.backend = backend
        self.kind: Kind = backend.kind
        self.filters = backend.filters
        self.tuned = tuned
        self.structure = structure
        self._folder = folder

    @classmethod
    def build(cls, file: VectorFile, kind: Kind, settings: VectorIndexSettings, exactly: Exactly, threads: int) -> Approximate:
        """Build over all rows of the file and save it beside; what was there for older files is removed.

        Raises MissingExtraError where the library is not installed, StorageError where the disk is full.
        """
        backend = BACKENDS[kind].build(file.vectors, file.header.metric, settings, threads)
        tuned = tune(backend, sample_queries(file.vectors), settings, exactly)
        folder = file.path.with_name(f"{file.path.name}.{secrets.token_hex(8)}.neighbours")
        about = {
            "format": FORMAT,
            "kind": kind,
            "identity": file.header.identity,
            "structure": settings.structure,
            "breadths": tuned.breadths,
            "recalls": tuned.recalls,
            "queries": tuned.queries,
        }
        try:
            folder.mkdir()
            backend.save(folder)
            _seal(folder, about)
        except (OSError, RuntimeError) as error:  # FAISS throws RuntimeError where it cannot write
            shutil.rmtree(folder, ignore_errors=True)
            raise StorageError(f"{folder} cannot be written: {error}") from error
        for other in _folders(file.path):
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)
        return cls.open(file, settings) or cls(backend, tuned, folder, settings.structure)

    @classmethod
    def open(cls, file: VectorFile, settings: VectorIndexSettings) -> Approximate | None:
        """What is beside the file and belongs to it, None where there is nothing whole."""
        for folder in _folders(file.path):
            try:
                about = _about(folder)
                if about["identity"] != file.header.identity or _problems(folder, about):
                    continue
                kind = BACKENDS[about["kind"]]
                backend = kind.open(folder, file.header.dimension, file.header.metric, settings)
            except (IndexDamagedError, ImportError):
                continue
            tuned = Tuned(
                {int(depth): breadth for depth, breadth in about["breadths"].items()},
                {int(depth): recall for depth, recall in about["recalls"].items()},
                about["queries"],
            )
            return cls(backend, _by_hand(tuned, backend, settings), folder, tuple(about["structure"]))
        return None

    @staticmethod
    def remove(path: Path) -> None:
        """Remove what lies beside the vector file at `path`."""
        for folder in _folders(path):
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def recall(self) -> float:
        """The share of the true 10 nearest that were found when the index was built."""
        return self.tuned.recalls[DEPTHS[0]]

    def fits(self, kind: Kind, settings: VectorIndexSettings) -> bool:
        """Whether it was built as these settings ask."""
        return self.kind == kind and self.structure == settings.structure

    def breadth(self, depth: int) -> int:
        """How widely to look for the `depth` nearest."""
        few, many = DEPTHS
        narrow, wide = self.tuned.breadths[few], max(self.tuned.breadths.values())
        if depth <= few:
            return narrow
        if depth >= many:
            return int(wide * depth / many)
        return int(narrow + (wide - narrow) * (depth - few) / (many - few))

    def cost(self, breadth: int) -> float:
        return self.backend.cost(breadth)

    def find(self, query: npt.NDArray[np.float32], depth: int, passing: Mask | None = None, breadth: int = 0) -> Rows:
        """Rows near the query (dimension,): `depth` of them and a few more, best first as the library sees it."""
        return self.backend.find(query, depth + SURPLUS, breadth or self.breadth(depth), passing)

    def verify(self) -> list[str]:
        """Every file that fails its checksum, in words."""
        if self._folder is None:
            return []
        try:
            return _problems(self._folder, _about(self._folder))
        except IndexDamagedError as error:
            return [str(error)]

    def size(self) -> int:
        """Bytes on disk."""
        return 0 if self._folder is None else sum(path.stat().st_size for path in self._folder.rglob("*") if path.is_file())


def sample_queries(vectors: Vectors) -> Vectors:
    """Queries to measure recall by: stored vectors, each moved by noise until its cosine with what it was is 0.7.

    As far as a question usually lies from the passage that answers it: on a million passages the recall for these was within
    a point of that for sentences held out of the index (docs/indexes.md). Real questions, where there are some, tell more:
    `VectorIndex.measure` takes them.
    """
    random = np.random.default_rng(7)
    rows = np.sort(random.choice(len(vectors), min(SAMPLE, len(vectors)), replace=False))
    stored = vectors[rows]
    noise = random.normal(size=stored.shape)
    sizes = np.linalg.norm(stored, axis=1, keepdims=True) / np.linalg.norm(noise, axis=1, keepdims=True)
    return np.asarray(stored + noise * sizes * np.sqrt(1 / SAMPLE_COSINE**2 - 1), dtype=np.float32)


def tune(backend: Backend, queries: Vectors, settings: VectorIndexSettings, exactly: Exactly) -> Tuned:
    """The smallest breadth worth trying that reaches the recall asked for, and a standard error more, at each depth."""
    breadths, recalls = {}, {}
    wish = _wished_breadth(backend, settings)
    for depth in DEPTHS:
        truth = [exactly(query, depth) for query in queries]
        for breadth in [wish] if wish else backend.breadths():
            found = [backend.find(query, depth + SURPLUS, breadth, None) for query in queries]
            breadths[depth] = breadth
            recalls[depth], error = recall_of(found, truth)
            if recalls[depth] - error >= settings.recall:
                break
    note = f"{len(queries)} stored vectors moved by noise to a cosine of {SAMPLE_COSINE}"
    return Tuned(breadths, recalls, note)


def recall_of(found: list[Rows], truth: list[Rows]) -> tuple[float, float]:
    """The share of the true ones that were found, the mean over the queries, and that mean's standard error.

    >>> recall_of([np.array([1, 2]), np.array([5, 6])], [np.array([2, 3]), np.array([5, 6])])
    (0.75, 0.25)
    """
    shares = [float(np.isin(true, rows).mean()) for rows, true in zip(found, truth, strict=True)]
    error = float(np.std(shares, ddof=1)) / len(shares) ** 0.5 if len(shares) > 1 else 0.0
    return float(np.mean(shares)), error


def _wished_breadth(backend: Backend, settings: VectorIndexSettings) -> int:
    """What the settings give by hand, or 0."""
    return settings.nprobe if backend.kind in {"ivf", "scann"} else settings.ef_search


def _by_hand(tuned: Tuned, backend: Backend, settings: VectorIndexSettings) -> Tuned:
    """A breadth that the settings give comes before the tuned one."""
    wish = _wished_breadth(backend, settings)
    return Tuned(dict.fromkeys(tuned.breadths, wish), tuned.recalls, tuned.queries) if wish else tuned


# The folder: the library's files, and written last, about.json with their sizes and checksums under a checksum of its own.


def _folders(path: Path) -> list[Path]:
    prefix, suffix = f"{path.name}.", ".neighbours"
    if not path.parent.is_dir():
        return []
    return sorted(one for one in path.parent.iterdir() if one.name.startswith(prefix) and one.name.endswith(suffix))


def _seal(folder: Path, about: dict[str, Any]) -> None:
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
            files[str(path.relative_to(folder))] = [path.stat().st_size, _checksum(path)]
    body = json.dumps({**about, "files": files})
    with (folder / ABOUT).open("w", encoding="utf-8") as file:
        file.write(f"{zlib.crc32(body.encode()):08x}\n{body}\n")
        file.flush()
        os.fsync(file.fileno())
    sync(folder)
    sync(folder.parent)


def _about(folder: Path) -> dict[str, Any]:
    try:
        checksum, _, body = (folder / ABOUT).read_text(encoding="utf-8").partition("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise IndexDamagedError(f"{folder / ABOUT} cannot be read: {error}") from error
    body = body.removesuffix("\n")
    if checksum != f"{zlib.crc32(body.encode()):08x}":
        raise IndexDamagedError(f"{folder / ABOUT} is not what was written")
    about: dict[str, Any] = json.loads(body)
    if about["format"] != FORMAT:
        raise IndexDamagedError(f"{folder} is of format {about['format']}; this twinrank reads format {FORMAT}")
    return about


def _problems(folder: Path, about: dict[str, Any]) -> list[str]:
    problems = []
    for name, (size, checksum) in about["files"].items():
        path = folder / name
        with suppress(OSError):
            if path.stat().st_size == size and _checksum(path) == checksum:
                continue
        problems.append(f"{path} is not what was written")
    return problems


def _checksum(path: Path) -> int:
    if path.stat().st_size == 0:
        return 0
    return zlib.crc32(np.memmap(path, np.uint8, "r").data)  # mapped, as it will be searched: nothing is copied
