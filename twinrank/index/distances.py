"""The nearest by Euclidean distance: float32 first, and again in float64 whatever its rounding may have misplaced."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from twinrank.scan import ROUNDING, Rows
from twinrank.types import Vectors

BLOCK_ROWS = 4096


def near_by_distance(
    take: Callable[[Rows], Vectors], rows: Rows, query: npt.NDArray[np.float32], k: int, longest: float
) -> Rows:
    """Of these rows (n,) those that may be among the `k` nearest; `take` gives their vectors, none longer than `longest`."""
    scores = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), BLOCK_ROWS):
        difference = take(rows[start : start + BLOCK_ROWS]) - query  # (rows, dimension)
        scores[start : start + BLOCK_ROWS] = -np.einsum("rd,rd->r", difference, difference)
    if k >= len(rows):
        return rows
    threshold = np.partition(scores, len(scores) - k)[len(scores) - k] - 2 * _error_bound(query, longest)
    return np.asarray(rows[scores >= threshold])


def _error_bound(query: npt.NDArray[np.float32], longest: float) -> float:
    """How far a float32 score may lie from the true one, whatever the order of summation (Higham 2002, section 3.1).

    |error| ≤ n·u / (1 - n·u) · Σ (aᵢ - bᵢ)², at most that times (|a| + |b|)²; differences are rounded twice more.
    """
    operations = len(query) + 4
    length = float(np.linalg.norm(query.astype(np.float64)))
    tiny = operations * float(np.finfo(np.float32).tiny)  # underflow
    return operations * ROUNDING / (1 - operations * ROUNDING) * (longest + length) ** 2 + tiny
