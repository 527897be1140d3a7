"""Fixed-dimensional encodings: one vector in place of many, whose dot product comes near to MaxSim; for finding candidates.

MUVERA (Dhulipala, Hadian, Jayaram, Lee and Mirrokni 2024). Random planes cut the space into buckets; a passage's tokens are
averaged, a query's summed, in each bucket, after a random projection; all of that several times over. Nothing is trained, so
that passages can be added one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from twinrank.types import Vectors

SEED = 20245


@dataclass(frozen=True)
class FixedEncoder:
    """`repetitions` times `2 ** planes` buckets of `projected` numbers: with the defaults 2,560, kept in a byte each.

    The paper's experiments have more planes; over the token vectors of all-MiniLM-L6, which was not trained for MaxSim, few
    wide buckets lose less: of scifact's true ten best, among 2,500 abstracts, 200 candidates hold .97 with 2 planes of 32
    numbers, .95 with 3 of 16, .93 with 4 of 8, .86 with 5 of 4.
    """

    dimension: int
    repetitions: int = 20
    planes: int = 2
    projected: int = 32

    @property
    def size(self) -> int:
        """Numbers of an encoding."""
        return self.repetitions * self.buckets * self.projected

    @property
    def name(self) -> str:
        """What must be the same of a query's encoding and a passage's."""
        return f"{self.repetitions} times {self.planes} planes, {self.projected} numbers"

    @property
    def buckets(self) -> int:
        return 1 << self.planes

    def encode_query(self, tokens: Vectors) -> Vectors:
        """A query's token vectors (tokens, dimension) → (size,)."""
        labels, projections = self._place(tokens)
        sums, _ = self._sum(labels, projections, np.zeros(len(tokens), np.intp), 1)
        return sums.reshape(self.size)

    def encode_passages(self, tokens: Vectors, offsets: npt.NDArray[np.int64]) -> Vectors:
        """Token vectors of several passages end to end, none without any → (passages, size)."""
        passages = len(offsets) - 1
        if not passages:
            return np.empty((0, self.size), np.float32)
        labels, projections = self._place(tokens)
        owners = np.repeat(np.arange(passages), np.diff(offsets))  # (tokens,)
        sums, counts = self._sum(labels, projections, owners, passages)
        sums /= np.maximum(counts, 1)[..., None]  # now means
        self._fill_empty(sums, counts, labels, projections, offsets)
        return sums.reshape(passages, self.size)

    def _place(self, tokens: Vectors) -> tuple[npt.NDArray[np.intp], Vectors]:
        """Each token's bucket (tokens, repetitions), and its projections (tokens, repetitions, projected)."""
        sides = (tokens @ self._normals).reshape(len(tokens), self.repetitions, self.planes) > 0
        labels = sides @ (1 << np.arange(self.planes))
        projections = (tokens @ self._projection).reshape(len(tokens), self.repetitions, self.projected)
        return labels.astype(np.intp), projections

    def _sum(
        self, labels: npt.NDArray[np.intp], projections: Vectors, owners: npt.NDArray[np.intp], passages: int
    ) -> tuple[Vectors, npt.NDArray[np.intp]]:
        """Sums (passages, repetitions, buckets, projected) and counts (passages, repetitions, buckets) of each bucket."""
        cells = passages * self.buckets
        sums = np.empty((passages, self.repetitions, self.buckets, self.projected), np.float32)
        counts = np.empty((passages, self.repetitions, self.buckets), np.intp)
        for repetition in range(self.repetitions):
            cell = owners * self.buckets + labels[:, repetition]  # (tokens,)
            counts[:, repetition] = np.bincount(cell, minlength=cells).reshape(passages, self.buckets)
            for number in range(self.projected):
                values = np.bincount(cell, projections[:, repetition, number], cells)
                sums[:, repetition, :, number] = values.reshape(passages, self.buckets)
        return sums, counts

    def _fill_empty(
        self,
        means: Vectors,
        counts: npt.NDArray[np.intp],
        labels: npt.NDArray[np.intp],
        projections: Vectors,
        offsets: npt.NDArray[np.int64],
    ) -> None:
        """An empty bucket takes the passage's token from the bucket that the fewest planes lie between."""
        tokens = len(labels)
        for repetition in range(self.repetitions):
            apart = _bits(self.planes)[labels[:, repetition, None] ^ np.arange(self.buckets)]  # (tokens, buckets)
            nearest = np.minimum.reduceat(apart * tokens + np.arange(tokens)[:, None], offsets[:-1], axis=0) % tokens
            passage, bucket = np.nonzero(counts[:, repetition] == 0)
            means[passage, repetition, bucket] = projections[nearest[passage, bucket], repetition]

    @cached_property
    def _normals(self) -> Vectors:
        """Of the planes: (dimension, repetitions · planes)."""
        random = np.random.RandomState(SEED)  # the older generator, whose numbers NumPy promises never to change
        normals: Vectors = random.standard_normal((self.dimension, self.repetitions * self.planes)).astype(np.float32)
        return normals

    @cached_property
    def _projection(self) -> Vectors:
        """Signs: (dimension, repetitions · projected); they keep dot products on average (Achlioptas 2003)."""
        random = np.random.RandomState(SEED + 1)
        signs = random.randint(0, 2, (self.dimension, self.repetitions * self.projected)) * 2 - 1
        projection: Vectors = (signs / np.sqrt(self.projected * self.repetitions)).astype(np.float32)
        return projection


@lru_cache(maxsize=4)
def _bits(planes: int) -> npt.NDArray[np.intp]:
    """How many bits are set in each label."""
    return np.array([bin(label).count("1") for label in range(1 << planes)], dtype=np.intp)
