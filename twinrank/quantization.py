"""Token vectors as they are stored: one passage's tokens as bytes, int8 or 4 bits a number, and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from twinrank.errors import InputError
from twinrank.types import Vectors

TokenFormat: TypeAlias = Literal["int8", "int4"]

SCALE_BYTES = 4
ROTATION_SEED = 20240

STEP = 0.3352
"""The distance between 16 even levels that loses least of a normal distribution of spread 1 (Max, Quantizing for Minimum
Distortion, 1960, table II). Uneven levels would lose 18 % less, and would have to be looked up one by one."""

MIDDLE = 7.5
"""A 4-bit code's zero: the codes are 0 to 15."""


@dataclass(frozen=True, slots=True)
class PackedTokens:
    """The token vectors of several passages, quantised, end to end."""

    codes: npt.NDArray[Any]  # (tokens, bytes of a token's numbers): int8 or uint8
    scales: npt.NDArray[np.float32]  # (tokens,)
    offsets: npt.NDArray[np.int64]  # (passages + 1,): passage i is codes[offsets[i]:offsets[i + 1]]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[PackedTokens]:
        """The passages, one by one."""
        for start, end in zip(self.offsets[:-1].tolist(), self.offsets[1:].tolist(), strict=True):
            yield PackedTokens(self.codes[start:end], self.scales[start:end], np.array([0, end - start]))

    @classmethod
    def join(cls, parts: Sequence[PackedTokens]) -> PackedTokens:
        """Several, one after the other; at least one."""
        lengths = np.concatenate([np.diff(part.offsets) for part in parts])
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return cls(np.concatenate([part.codes for part in parts]), np.concatenate([part.scales for part in parts]), offsets)


@dataclass(frozen=True)
class TokenCodec:
    """How a token's vector becomes bytes: a scale (float32) and a code for each dimension.

    `int8`: vector / largest number · 127, rounded. At 384 dimensions 388 bytes a token.

    `int4`: the vector is turned by a fixed random rotation, after which its numbers are near to normally distributed
    whatever the model's odd dimensions, and each takes the nearest of 16 even levels. 196 bytes a token. As a rotation leaves
    dot products alone, the query is turned instead of every document back. No training and no centroids, so that one passage
    can be written without the others; ColBERTv2's residuals (Santhanam et al. 2022) ask for k-means over the collection first.
    The rotation with fixed levels is that of Zandieh et al. 2025 (TurboQuant).

    >>> codec = TokenCodec("int8", 2)
    >>> codec.decode(codec.encode(np.array([[0.6, -0.8]], np.float32))).round(2).tolist()
    [[0.6000000238418579, -0.800000011920929]]
    """

    format: TokenFormat
    dimension: int

    def __post_init__(self) -> None:
        if self.format not in get_args(TokenFormat):
            raise InputError(f"there is no token format {self.format!r}; it is one of {', '.join(get_args(TokenFormat))}")
        if self.dimension < 1:
            raise InputError(f"token vectors have 1 dimension or more, not {self.dimension}")

    @property
    def code_bytes(self) -> int:
        """Bytes of a token's codes."""
        return self.dimension if self.format == "int8" else (self.dimension + 1) // 2

    @property
    def token_bytes(self) -> int:
        return self.code_bytes + SCALE_BYTES

    @property
    def dtype(self) -> npt.DTypeLike:
        return np.int8 if self.format == "int8" else np.uint8

    @property
    def width(self) -> int:
        """Numbers of a token as `expand` gives them: the dimensions, made even where two share a byte."""
        return self.dimension if self.format == "int8" else 2 * self.code_bytes

    # -- one passage ↔ bytes ---------------------------------------------------------------------------------------------

    def encode(self, vectors: Vectors) -> bytes:
        """A passage's token vectors (tokens, dimension) as bytes: all scales, then all codes."""
        packed = self.quantize(vectors)
        return packed.scales.astype("<f4").tobytes() + packed.codes.tobytes()

    def decode(self, blob: bytes) -> Vectors:
        """Bytes → (tokens, dimension), as near to what was encoded as the format is."""
        packed = self.unpack([blob])
        return self.restore(packed.codes, packed.scales)

    def count(self, blob: bytes) -> int:
        """How many tokens are in these bytes; raises InputError where they are not of this format."""
        tokens, rest = divmod(len(blob), self.token_bytes)
        if rest or not tokens:
            raise InputError(f"{len(blob)} bytes are not tokens of {self.token_bytes} bytes ({self.format}, {self.dimension})")
        return tokens

    def unpack(self, blobs: Sequence[bytes]) -> PackedTokens:
        """The bytes of several passages, as arrays."""
        counts = np.array([self.count(blob) for blob in blobs], dtype=np.int64)
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        codes = np.empty((int(offsets[-1]), self.code_bytes), self.dtype)
        scales = np.empty(int(offsets[-1]), np.float32)
        for blob, start, count in zip(blobs, offsets.tolist(), counts.tolist(), strict=False):
            scales[start : start + count] = np.frombuffer(blob, "<f4", count)
            codes[start : start + count] = np.frombuffer(blob, self.dtype, offset=SCALE_BYTES * count).reshape(count, -1)
        return PackedTokens(codes, scales, offsets)

    # -- vectors ↔ codes -------------------------------------------------------------------------------------------------

    def quantize(self, vectors: Vectors, offsets: npt.ArrayLike | None = None) -> PackedTokens:
        """Vectors (tokens, dimension) → codes; `offsets` where they are several passages' end to end."""
        matrix = np.asarray(vectors, dtype=np.float32).reshape(-1, self.dimension)
        codes, scales = self._to_int8(matrix) if self.format == "int8" else self._to_int4(matrix)
        return PackedTokens(codes, scales, np.asarray([0, len(matrix)] if offsets is None else offsets, dtype=np.int64))

    def _to_int8(self, matrix: Vectors) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
        scales = np.abs(matrix).max(axis=1, initial=0.0) / np.float32(127)  # (tokens,)
        codes = np.rint(matrix / np.maximum(scales, np.float32(1e-30))[:, None]).astype(np.int8)
        return codes, scales

    def _to_int4(self, matrix: Vectors) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
        turned = matrix @ _rotation(self.dimension)  # (tokens, dimension)
        lengths = np.sqrt(np.einsum("td,td->t", turned, turned))  # (tokens,)
        step = np.maximum(lengths, np.float32(1e-30)) * np.float32(STEP / np.sqrt(self.dimension))
        said = np.rint(turned / step[:, None] - np.float32(0.5)).clip(-8, 7)  # (tokens, dimension)
        numbers = (said + 8).astype(np.uint8)
        said += np.float32(0.5)
        # What the codes say is made as long as the vector was.
        scales = lengths / np.sqrt(np.einsum("td,td->t", said, said))
        numbers = np.pad(numbers, ((0, 0), (0, self.width - self.dimension)))
        half = self.code_bytes
        return numbers[:, :half] | (numbers[:, half:] << np.uint8(4)), scales.astype(np.float32)

    def prepare_query(self, query: Vectors) -> tuple[Vectors, npt.NDArray[np.float32]]:
        """What `expand`'s numbers are multiplied with (query tokens, width), and what is taken off (query tokens,).

        vector · query  =  scale · (numbers · prepared - taken off)
        """
        if self.format == "int8":
            return np.ascontiguousarray(query, dtype=np.float32), np.zeros(len(query), np.float32)
        turned = np.asarray(query, dtype=np.float32) @ _rotation(self.dimension)
        return np.pad(turned, ((0, 0), (0, self.width - self.dimension))), np.float32(MIDDLE) * turned.sum(axis=1)

    def expand(self, codes: npt.NDArray[Any], into: Vectors) -> None:
        """The codes as numbers, without their scales, into (tokens, width) float32."""
        if self.format == "int8":
            np.copyto(into, codes)
        else:  # the low halves of the bytes are the first dimensions, the high halves the others
            np.copyto(into[:, : self.code_bytes], codes & np.uint8(15))
            np.copyto(into[:, self.code_bytes :], codes >> np.uint8(4))

    def restore(self, codes: npt.NDArray[Any], scales: npt.NDArray[np.float32]) -> Vectors:
        """Codes and scales → vectors (tokens, dimension)."""
        numbers = np.empty((len(codes), self.width), np.float32)
        self.expand(codes, numbers)
        if self.format == "int4":
            numbers = numbers[:, : self.dimension] - np.float32(MIDDLE)
            numbers = numbers @ _rotation(self.dimension).T
        vectors: Vectors = numbers * scales[:, None]
        return vectors


@lru_cache(maxsize=4)
def _rotation(dimension: int) -> npt.NDArray[np.float32]:
    """A random orthogonal matrix, the same one for ever: part of the format."""
    # The older generator, since it is the one whose numbers NumPy promises never to change.
    normal = np.random.RandomState(ROTATION_SEED).standard_normal((dimension, dimension))
    orthogonal, triangle = np.linalg.qr(normal)
    return np.ascontiguousarray(orthogonal * np.sign(np.diag(triangle)), dtype=np.float32)
