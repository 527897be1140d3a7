"""Exact search over int8 codes: a bound that is proven says which rows may belong to the top k; only these are looked at again.

A vector x is stored as x̂ = s·c, with c of int8 and one scale s a row, and the norm of what that loses, e = x − x̂. A query q is
taken apart into two int8 summands, q̂ = t₁·p₁ + t₂·p₂, so that what it loses, f = q − q̂, is some 250 times smaller still. Then

    x·q − x̂·q̂ = x̂·f + e·q,    so that by Cauchy–Schwarz    |x·q − x̂·q̂| ≤ ‖x̂‖·‖f‖ + ‖e‖·‖q‖.

The score x̂·q̂ = s·(t₁·(c·p₁) + t₂·(c·p₂)) is computed from whole numbers that are exact, and rounded a few times to float32.
Together a row's true product lies within `slack` of its score, so that whatever belongs to the true top k has score + slack at
or above the k-th largest score − slack: k rows are certainly as good as that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from twinrank import engine
from twinrank.errors import InputError
from twinrank.types import Scores, Vectors

Rows = npt.NDArray[np.int64]

MOST = 127  # of an int8 code, so that -x has the codes of x
ROUNDING = 2.0**-24  # float32's relative error of one operation
TINY = 2.0**-140  # more than what underflow takes from a sum of a few products
WIDE = 2.0**-20  # the share by which norms are taken larger, for what their own float32 arithmetic rounds away
BLOCK_ROWS = 8192
QUANTIZED_AT_ONCE = 1024  # rows whose float32 numbers stay in a core's second cache
EXACT_COLUMNS = 1024  # sums of so many products of int8 are exact in float32: 1024 · 127² < 2²⁴


@dataclass(frozen=True, slots=True)
class Codes:
    """Vectors in int8: row i stands for `scales[i] * codes[i]` and is at most `errors[i]` away from it."""

    codes: npt.NDArray[np.int8]  # (rows, dimension)
    scales: npt.NDArray[np.float32]  # (rows,)
    errors: npt.NDArray[np.float32]  # (rows,)

    def __len__(self) -> int:
        return len(self.codes)

    def first(self, count: int) -> Codes:
        """The first `count` rows."""
        return Codes(self.codes[:count], self.scales[:count], self.errors[:count])


@dataclass(frozen=True, slots=True)
class Question:
    """A query, ready to be compared with codes; scaled by a power of two, which changes no order."""

    parts: npt.NDArray[np.int8]  # (summands, dimension)
    part_scales: npt.NDArray[np.float32]  # (summands,)
    constant: float
    factor: float

    def slack(self, errors: npt.NDArray[np.float32]) -> Scores:
        """How far a row's true product may lie from its score, given the rows' errors (n,): (n,)"""
        return np.asarray(np.float32(self.constant) + np.float32(self.factor) * errors)


def quantize(vectors: Vectors) -> Codes:
    """Vectors (rows, dimension) as int8, with what each loses.

    >>> made = quantize(np.array([[127.0, -63.4]], np.float32))
    >>> made.codes.tolist(), made.scales.tolist(), round(float(made.errors[0]), 3)
    ([[127, -63]], [1.0], 0.4)
    """
    made = Codes(np.empty(vectors.shape, np.int8), np.empty(len(vectors), np.float32), np.empty(len(vectors), np.float32))
    for start in range(0, len(vectors), QUANTIZED_AT_ONCE):
        here = slice(start, start + QUANTIZED_AT_ONCE)
        made.scales[here], made.errors[here] = _quantize_block(vectors[here], made.codes[here])
    return made


def _quantize_block(vectors: Vectors, codes: npt.NDArray[np.int8]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Fill `codes`; returns (scales, errors)."""
    dimension = vectors.shape[1]
    largest = np.abs(vectors).max(axis=1, initial=0.0)  # (rows,)
    scales = largest / np.float32(MOST)  # 0 where it underflows: all is error then
    steps = vectors / np.where(scales > 0, scales, np.float32(np.inf))[:, None]  # each within 127 · 2⁻²⁴ of the true quotient
    nearest = np.rint(steps)
    np.clip(nearest, -MOST, MOST, out=nearest)
    codes[:] = nearest
    steps -= nearest
    lost = np.sqrt(np.einsum("rd,rd->r", steps, steps)).astype(np.float64)  # in units of the scale
    lost = lost * (1 + 2 * (dimension + 8) * ROUNDING) + np.sqrt(dimension) * 130 * ROUNDING
    lost *= scales
    lost[scales == 0] = np.sqrt(dimension) * largest[scales == 0].astype(np.float64)
    return scales, _rounded_up(lost)


def reach(vectors: Vectors, codes: Codes) -> float:
    """The largest norm of any of these vectors, or of what stands for it."""
    norms = np.sqrt(np.square(vectors, dtype=np.float64).sum(axis=1))
    return float((norms + codes.errors).max(initial=0.0)) * (1 + WIDE)


def ask(query: npt.ArrayLike, longest: float) -> Question | None:
    """A query (dimension,) made ready for rows none of which is longer than `longest` (see `reach`).

    None where products could not be told apart in float32, as they all vanish or overflow: then nothing can be left out.
    """
    wide = np.asarray(query, dtype=np.float64)
    length = float(np.sqrt(wide @ wide))
    if not 2.0**-90 < length * longest < 2.0**120:
        return None
    # Scores then lie around 1, however small or large the vectors are, as far as float32 holds the scales.
    exponent = int(np.clip(-np.log2(length * longest), -60 - np.log2(length), 60 - np.log2(length)))
    wide, length = np.ldexp(wide, exponent), float(np.ldexp(length, exponent))
    first = quantize(wide[None].astype(np.float32))
    rest = wide - first.codes[0] * np.float64(first.scales[0])
    second = quantize(rest[None].astype(np.float32))
    rest -= second.codes[0] * np.float64(second.scales[0])  # f, whatever was rounded on the way
    parts = np.concatenate([first.codes, second.codes])
    part_scales = np.concatenate([first.scales, second.scales])
    largest = longest * float(part_scales.astype(np.float64) @ np.sqrt(np.square(parts, dtype=np.float64).sum(axis=1)))
    # Of a score: one rounding for each integer, product, sum and the row's scale, one for score ± slack; then those of the
    # final float32 score, which may make two products equal. Sixteen are more than all of these.
    rounded = 16 * ROUNDING * largest
    constant = (longest * float(np.sqrt(rest @ rest)) + rounded) * (1 + WIDE) + TINY
    return Question(parts, part_scales, constant, length * (1 + WIDE))


def may_belong(
    codes: Codes, question: Question, k: int, rows: Rows | None = None, threads: int = 1
) -> tuple[Rows, Scores, Scores]:
    """The rows that may belong to the `k` with the largest products, with (score, slack) each: all of the top k, and few more.

    In no particular order. Only `rows`, sorted, are looked at where these are given.
    """
    found, scores = scan_int8(codes, question, k, rows, threads)
    return found, scores, question.slack(codes.errors[found])


def top(scores: Scores, slack: Scores, k: int) -> npt.NDArray[np.intp]:
    """Which of these rows may belong to the top `k`: their highest value reaches what k rows surely have."""
    if k >= len(scores):
        return np.arange(len(scores))
    lower = scores - slack
    return np.flatnonzero(scores + slack >= np.partition(lower, len(lower) - k)[len(lower) - k])


def scan_in_numpy(codes: Codes, question: Question, k: int, rows: Rows | None = None, threads: int = 1) -> tuple[Rows, Scores]:
    """What the native kernel does: every row whose score + slack is at least the k-th largest score − slack, with its score.

    `rows` (r,) are looked at, or all. `threads` is left to NumPy's BLAS.
    """
    if k < 1:
        raise InputError(f"k is {k}; at least 1 was expected")
    scales, errors = (codes.scales, codes.errors) if rows is None else (codes.scales[rows], codes.errors[rows])
    scores = np.empty(len(scales), np.float32)
    for start in range(0, len(scales), BLOCK_ROWS):
        here = slice(start, start + BLOCK_ROWS)
        block = codes.codes[here] if rows is None else codes.codes[rows[here]]  # (rows, dimension)
        products = np.zeros((len(block), len(question.parts)), np.float64)  # whole numbers, exact
        for column in range(0, block.shape[1], EXACT_COLUMNS):
            columns = slice(column, column + EXACT_COLUMNS)
            products += block[:, columns].astype(np.float32) @ question.parts[:, columns].T.astype(np.float32)
        scores[here] = products.astype(np.float32) @ question.part_scales * scales[here]
    kept = top(scores, question.slack(errors), k)
    return (kept.astype(np.int64) if rows is None else rows[kept]), scores[kept]


def scan_int8(codes: Codes, question: Question, k: int, rows: Rows | None = None, threads: int = 1) -> tuple[Rows, Scores]:
    """`scan_in_numpy`, by the native engine where it was compiled and TWINRANK_ENGINE does not say `numpy`."""
    path = engine.wished_path()
    if engine.module is None or path == "numpy":
        return scan_in_numpy(codes, question, k, rows, threads)
    stored = codes.codes, codes.scales, codes.errors
    asked = question.parts, question.part_scales, question.constant, question.factor
    found: tuple[Rows, Scores] = engine.module.scan_int8(*stored, *asked, k, rows, threads, path)
    return found


def _rounded_up(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """float32 at or above each of these float64 norms, whose own rounding is covered too."""
    return np.asarray(np.nextafter((values * (1 + 1e-12)).astype(np.float32), np.float32(np.inf)))
