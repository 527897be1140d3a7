"""The libraries that find near neighbours approximately, behind one protocol: FAISS HNSW and IVF, ScaNN, Annoy.

Each takes the rows of a vector file by their numbers, keeps its own copy of them, in 8 bits where it can, and gives back rows
that are then scored again from full precision.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from twinrank.errors import MissingExtraError
from twinrank.index.settings import Kind, VectorIndexSettings
from twinrank.index.vectorfile import Metric
from twinrank.scan import Rows
from twinrank.types import Vectors

Mask = npt.NDArray[np.bool_]

ADDED_AT_ONCE = 65_536
TRAINED_ON = 100_000
FLOAT_BYTES = 4


class Backend(Protocol):
    """One approximate index over the rows of a vector file."""

    kind: ClassVar[Kind]
    filters: ClassVar[bool]
    """Whether `find` heeds `passing`."""

    @classmethod
    def build(cls, vectors: Vectors, metric: Metric, settings: VectorIndexSettings, threads: int) -> Backend: ...

    @classmethod
    def open(cls, folder: Path, dimension: int, metric: Metric, settings: VectorIndexSettings) -> Backend: ...

    def save(self, folder: Path) -> None:
        """Write its files into an empty folder."""
        ...

    def find(self, query: npt.NDArray[np.float32], depth: int, breadth: int, passing: Mask | None) -> Rows:
        """Up to `depth` rows near `query` (dimension,), best first; looks at more of them the larger `breadth` is."""
        ...

    def breadths(self) -> list[int]:
        """Values of `breadth` worth trying, ascending."""
        ...

    def cost(self, breadth: int) -> float:
        """What a search of this breadth costs, in rows that an exact scan could look at meanwhile."""
        ...


class Hnsw:
    """Hierarchical navigable small worlds (Malkov and Yashunin 2018) by FAISS; `breadth` is efSearch."""

    kind: ClassVar[Kind] = "hnsw"
    filters: ClassVar[bool] = True

    ROWS_A_STEP = 100
    """Measured at a million passages (docs/indexes.md): rows scanned in the time in which efSearch grows by one."""

    def __init__(self, index: Any) -> None:
        self._index = index

    @classmethod
    def build(cls, vectors: Vectors, metric: Metric, settings: VectorIndexSettings, threads: int) -> Hnsw:
        faiss = library("faiss")
        links = settings.m or 16
        index = faiss.IndexHNSWSQ(vectors.shape[1], faiss.ScalarQuantizer.QT_8bit, links, _faiss_metric(faiss, metric))
        index.hnsw.efConstruction = settings.ef_construction or 8 * links
        with _threads(faiss, threads):
            index.train(_sample(vectors))
            _add_all(index, vectors)
        return cls(index)

    @classmethod
    def open(cls, folder: Path, dimension: int, metric: Metric, settings: VectorIndexSettings) -> Hnsw:
        return cls(_read_faiss(folder / "faiss.index"))

    def save(self, folder: Path) -> None:
        library("faiss").write_index(self._index, str(folder / "faiss.index"))

    def find(self, query: npt.NDArray[np.float32], depth: int, breadth: int, passing: Mask | None) -> Rows:
        faiss = library("faiss")
        parameters = faiss.SearchParametersHNSW(efSearch=max(depth, breadth))
        return _find_in_faiss(faiss, self._index, query, depth, parameters, passing)

    def breadths(self) -> list[int]:
        return [round(16 * 2 ** (step / 2)) for step in range(17)]  # 16 to 4,096

    def cost(self, breadth: int) -> float:
        return self.ROWS_A_STEP * breadth


class Ivf:
    """Inverted lists (Jégou, Douze and Schmid 2011) by FAISS: each vector in the list of its nearest centre.

    `breadth` is nprobe.
    """

    kind: ClassVar[Kind] = "ivf"
    filters: ClassVar[bool] = True

    def __init__(self, index: Any) -> None:
        self._index = index

    @classmethod
    def build(cls, vectors: Vectors, metric: Metric, settings: VectorIndexSettings, threads: int) -> Ivf:
        faiss = library("faiss")
        lists = _lists(settings, len(vectors))
        index = faiss.index_factory(vectors.shape[1], f"IVF{lists},SQ8", _faiss_metric(faiss, metric))
        index.cp.min_points_per_centroid = 1  # it only warns
        with _threads(faiss, threads):
            index.train(_sample(vectors, max(TRAINED_ON, 40 * lists)))
            _add_all(index, vectors)
        return cls(index)

    @classmethod
    def open(cls, folder: Path, dimension: int, metric: Metric, settings: VectorIndexSettings) -> Ivf:
        return cls(_read_faiss(folder / "faiss.index"))

    def save(self, folder: Path) -> None:
        library("faiss").write_index(self._index, str(folder / "faiss.index"))

    def find(self, query: npt.NDArray[np.float32], depth: int, breadth: int, passing: Mask | None) -> Rows:
        faiss = library("faiss")
        parameters = faiss.SearchParametersIVF(nprobe=min(breadth, self._index.nlist))
        return _find_in_faiss(faiss, self._index, query, depth, parameters, passing)

    def breadths(self) -> list[int]:
        return _up_to(int(self._index.nlist))

    def cost(self, breadth: int) -> float:
        lists = int(self._index.nlist)
        return lists * FLOAT_BYTES + 2.0 * int(self._index.ntotal) * min(breadth, lists) / lists


class Scann:
    """ScaNN (Guo et al. 2020): lists, then quantised products in the registers; `breadth` is how many lists are looked into."""

    kind: ClassVar[Kind] = "scann"
    filters: ClassVar[bool] = False

    def __init__(self, searcher: Any, lists: int, count: int) -> None:
        self._searcher = searcher
        self._lists = lists
        self._count = count

    @classmethod
    def build(cls, vectors: Vectors, metric: Metric, settings: VectorIndexSettings, threads: int) -> Scann:
        scann = library("scann")
        lists = _lists(settings, len(vectors))
        measure = "squared_l2" if metric == "euclidean" else "dot_product"
        builder = scann.scann_ops_pybind.builder(np.asarray(vectors), 10, measure)
        builder = builder.tree(lists, max(1, lists // 10), training_sample_size=min(len(vectors), max(TRAINED_ON, 40 * lists)))
        builder = builder.score_ah(2, anisotropic_quantization_threshold=0.2).reorder(100)
        return cls(builder.set_n_training_threads(threads).build(), lists, len(vectors))

    @classmethod
    def open(cls, folder: Path, dimension: int, metric: Metric, settings: VectorIndexSettings) -> Scann:
        lists, count = map(int, (folder / "lists.txt").read_text(encoding="ascii").split())
        # Its list of files holds the paths at which they were written; this one says where they are now.
        return cls(library("scann").scann_ops_pybind.load_searcher(str(folder)), lists, count)

    def save(self, folder: Path) -> None:
        self._searcher.serialize(str(folder), relative_path=True)
        (folder / "lists.txt").write_text(f"{self._lists} {self._count}", encoding="ascii")

    def find(self, query: npt.NDArray[np.float32], depth: int, breadth: int, passing: Mask | None) -> Rows:
        depth = min(depth, self._count)
        rows, scores = self._searcher.search(
            query,
            final_num_neighbors=depth,
            pre_reorder_num_neighbors=min(4 * depth + 100, self._count),
            leaves_to_search=min(breadth, self._lists),
        )
        found: Rows = np.asarray(rows, dtype=np.int64)
        return np.asarray(found[np.isfinite(np.asarray(scores))])

    def breadths(self) -> list[int]:
        return _up_to(self._lists)

    def cost(self, breadth: int) -> float:
        return self._lists + 0.5 * self._count * min(breadth, self._lists) / self._lists


class Annoy:
    """A forest of trees that halve space at random (Bernhardsson 2013); `breadth` is the vectors looked at in all trees."""

    kind: ClassVar[Kind] = "annoy"
    filters: ClassVar[bool] = False

    def __init__(self, index: Any) -> None:
        self._index = index

    @classmethod
    def build(cls, vectors: Vectors, metric: Metric, settings: VectorIndexSettings, threads: int) -> Annoy:
        index = cls._empty(vectors.shape[1], metric)
        index.set_seed(1)
        for row, vector in enumerate(vectors):
            index.add_item(row, vector)
        index.build(settings.m or 50, n_jobs=threads)
        return cls(index)

    @classmethod
    def open(cls, folder: Path, dimension: int, metric: Metric, settings: VectorIndexSettings) -> Annoy:
        index = cls._empty(dimension, metric)
        index.load(str(folder / "annoy.index"))  # mapped
        return cls(index)

    @staticmethod
    def _empty(dimension: int, metric: Metric) -> Any:
        return library("annoy").AnnoyIndex(dimension, {"cosine": "angular", "dot": "dot", "euclidean": "euclidean"}[metric])

    def save(self, folder: Path) -> None:
        self._index.save(str(folder / "annoy.index"))

    def find(self, query: npt.NDArray[np.float32], depth: int, breadth: int, passing: Mask | None) -> Rows:
        found = self._index.get_nns_by_vector(query.tolist(), depth, max(depth, breadth))
        return np.array(found, dtype=np.int64)

    def breadths(self) -> list[int]:
        return [250 * 2**step for step in range(12)]

    def cost(self, breadth: int) -> float:
        return 20.0 * breadth


BACKENDS: dict[Kind, type[Backend]] = {"hnsw": Hnsw, "ivf": Ivf, "scann": Scann, "annoy": Annoy}

PACKAGES = {"faiss": "faiss-cpu", "scann": "scann", "annoy": "annoy"}


def is_installed(name: str) -> bool:
    """Whether an optional library could be imported."""
    return importlib.util.find_spec(name) is not None


def library(name: str) -> Any:
    """An optional library; raises MissingExtraError with the line that installs it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(
            f"this kind of vector index needs {PACKAGES[name]}, which is not installed: pip install 'twinrank[{name}]', "
            f'or set kind = "exact"'
        ) from error


def _faiss_metric(faiss: Any, metric: Metric) -> Any:
    return faiss.METRIC_L2 if metric == "euclidean" else faiss.METRIC_INNER_PRODUCT


@contextmanager
def _threads(faiss: Any, count: int) -> Iterator[None]:
    """Run with so many OpenMP threads; the setting is this thread's own, and is put back."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _add_all(index: Any, vectors: Vectors) -> None:
    for start in range(0, len(vectors), ADDED_AT_ONCE):
        index.add(np.ascontiguousarray(vectors[start : start + ADDED_AT_ONCE]))


def _sample(vectors: Vectors, count: int = TRAINED_ON) -> Vectors:
    if len(vectors) <= count:
        return np.ascontiguousarray(vectors)
    return vectors[np.sort(np.random.default_rng(0).choice(len(vectors), count, replace=False))]


def _lists(settings: VectorIndexSettings, count: int) -> int:
    """`nlist` as asked, or four times the root of the number of vectors, as FAISS's guidelines have it."""
    return min(settings.nlist or max(1, round(4 * math.sqrt(count))), count)


def _up_to(most: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 11 … `most`"""
    steps = sorted({round(2 ** (step / 2)) for step in range(40)})
    return [step for step in steps if step < most] + [most]


def _read_faiss(path: Path) -> Any:
    faiss = library("faiss")
    return faiss.read_index(str(path), getattr(faiss, "IO_FLAG_MMAP_IFC", 0))  # mapped, since FAISS 1.11


def _find_in_faiss(
    faiss: Any, index: Any, query: npt.NDArray[np.float32], depth: int, parameters: Any, passing: Mask | None
) -> Rows:
    if passing is not None:
        bits = np.packbits(passing, bitorder="little")
        parameters.sel = faiss.IDSelectorBitmap(bits)
    _, rows = index.search(query[None], min(depth, index.ntotal), params=parameters)  # one query runs on one thread
    return np.asarray(rows[0][rows[0] >= 0], dtype=np.int64)
