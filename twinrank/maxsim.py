"""MaxSim: how well a passage answers a query, token by token; over vectors, and over what is stored of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from twinrank import engine
from twinrank.errors import InputError
from twinrank.quantization import PackedTokens, TokenCodec
from twinrank.types import Scores, Vectors

TOKENS_AT_ONCE = 1024
"""Tokens expanded to float32 at a time: 1.5 MB at 384 dimensions, which stays in a core's second cache."""


def maxsim(query: Vectors, passages: Sequence[Vectors]) -> Scores:
    """For each query token its best match among the passage's tokens, summed (Khattab and Zaharia 2020, ColBERT): (passages,).

    A passage without tokens scores 0.

    >>> query = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    >>> passage = np.array([[0.6, 0.8], [1.0, 0.0]], np.float32)
    >>> maxsim(query, [passage, passage[1:]]).tolist()
    [1.7999999523162842, 1.0]
    """
    matrix = _checked(query)
    scores = [(matrix @ passage.T).max(axis=1).sum() if len(passage) else 0.0 for passage in passages]  # (query, tokens) each
    return np.array(scores, dtype=np.float32)


def score_packed(codec: TokenCodec, query: Vectors, parts: Iterable[PackedTokens]) -> Scores:
    """MaxSim of stored passages, part after part: (passages,).

    Over what the codes say, by the native engine where that is faster. It rounds each query token q to 16 bits, and so is off
    by max|q| / 65,024 · ‖x‖₁ at most for a match x: some 1e-6 for unit vectors. On all instruction sets it gives the same.

    >>> codec = TokenCodec("int8", 2)
    >>> packed = codec.quantize(np.array([[0.6, 0.8], [1.0, 0.0]], np.float32), offsets=[0, 2])
    >>> score_packed(codec, np.array([[1.0, 0.0], [0.0, 1.0]], np.float32), [packed]).round(3).tolist()
    [1.7999999523162842]
    """
    matrix = _checked(query)
    if _runs_natively():
        return _score_natively(codec, matrix, list(parts))
    return _score_by_numpy(codec, matrix, parts)


def _runs_natively() -> bool:
    """Whether the engine is faster than NumPy: on all its paths but `portable`, which is no match for a BLAS."""
    if engine.module is None or (wish := engine.wished_path()) == "numpy":
        return False
    return bool(wish) or engine.module.paths()[0] != "portable"


def _score_natively(codec: TokenCodec, query: Vectors, parts: Sequence[PackedTokens]) -> Scores:
    assert engine.module is not None
    try:
        scores: Scores = engine.module.maxsim(
            codec.prepare_query(query)[0],
            codec.format == "int4",
            [np.ascontiguousarray(part.codes) for part in parts],
            [np.ascontiguousarray(part.scales) for part in parts],
            [np.ascontiguousarray(part.offsets) for part in parts],
            engine.default_threads(),
            engine.wished_path(),
        )
    except ValueError as error:
        raise InputError(f"these tokens cannot be scored: {error}") from error
    return scores


def _score_by_numpy(codec: TokenCodec, query: Vectors, parts: Iterable[PackedTokens]) -> Scores:
    """Exact over what the codes say, in float32."""
    prepared, taken_off = codec.prepare_query(query)  # (query, width), (query,)
    buffer = np.empty((0, codec.width), np.float32)
    scores = []
    for pieces in _together(parts):
        lengths = np.concatenate([np.diff(piece.offsets) for piece in pieces])
        offsets = np.concatenate([[0], np.cumsum(lengths)])  # (passages + 1,)
        tokens = int(offsets[-1])
        if tokens > len(buffer):
            buffer = np.empty((max(tokens, TOKENS_AT_ONCE), codec.width), np.float32)
        start = 0
        for piece in pieces:
            codec.expand(piece.codes, buffer[start : start + len(piece.codes)])
            start += len(piece.codes)
        similar = prepared @ buffer[:tokens].T  # (query, tokens)
        similar -= taken_off[:, None]
        similar *= np.concatenate([piece.scales for piece in pieces])
        scores.append(_sum_of_best(similar, offsets))
    return np.concatenate(scores) if scores else np.empty(0, np.float32)


def _together(parts: Iterable[PackedTokens]) -> Iterator[list[PackedTokens]]:
    """Runs of whole passages with at most TOKENS_AT_ONCE tokens, or one passage: large parts cut, small ones gathered."""
    waiting: list[PackedTokens] = []
    tokens = 0
    for part in parts:
        for first, last in _blocks(part.offsets):
            start, end = int(part.offsets[first]), int(part.offsets[last])
            if waiting and tokens + end - start > TOKENS_AT_ONCE:
                yield waiting
                waiting, tokens = [], 0
            waiting.append(PackedTokens(part.codes[start:end], part.scales[start:end], part.offsets[first : last + 1] - start))
            tokens += end - start
    if waiting:
        yield waiting


def _sum_of_best(similar: npt.NDArray[np.float32], offsets: npt.NDArray[np.int64]) -> Scores:
    """(query, tokens) → (passages,); a passage without tokens scores 0."""
    filled = np.flatnonzero(np.diff(offsets))
    scores = np.zeros(len(offsets) - 1, np.float32)
    if len(filled):
        scores[filled] = np.maximum.reduceat(similar, offsets[filled], axis=1).sum(axis=0)
    return scores


def _blocks(offsets: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """(first, last) of runs of passages with at most TOKENS_AT_ONCE tokens, or one passage."""
    first, count = 0, len(offsets) - 1
    while first < count:
        last = int(np.searchsorted(offsets, offsets[first] + TOKENS_AT_ONCE, side="right")) - 1
        last = min(max(first + 1, last), count)
        yield first, last
        first = last


def _checked(query: Vectors) -> Vectors:
    matrix = np.asarray(query, dtype=np.float32)
    if matrix.ndim != 2:
        raise InputError(f"the query's token vectors have shape {matrix.shape}; (tokens, dimension) was expected")
    return matrix
