"""The file of a token index: quantised token vectors to be mapped into memory, with checksums, written in one pass.

A header of 4,096 bytes (magic, CRC-32 and length of what follows, JSON), the tokens' codes, where the collection is large
each passage's encoding in int8, and the tail: the tokens' scales, the encodings' scales, the passages' keys and offsets, and
for each block of passages its count, the CRC-32 of its codes and that of its encodings. All little endian.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from twinrank.errors import IndexDamagedError, InputError, StorageError
from twinrank.files import beside, remove_leftovers, replacing
from twinrank.index.encodings import FixedEncoder
from twinrank.quantization import PackedTokens, TokenCodec
from twinrank.types import Keys

MAGIC = b"twrktok1"
HEADER_BYTES = 4096
BLOCK_TOKENS = 8192


@dataclass(frozen=True)
class TokenFile:
    """A token index's file, mapped."""

    codec: TokenCodec
    stamp: str
    sequence: int
    keys: Keys  # (passages,), ascending
    tokens: PackedTokens
    encoder: str
    """What made the encodings, by name."""
    encodings: npt.NDArray[np.int8] | None  # (passages, size)
    encoding_scales: npt.NDArray[np.float32]  # (passages,), or nothing
    blocks: npt.NDArray[np.int64]  # (blocks, 3): passages, checksum of the codes, of the encodings

    def verify(self, path: Path) -> list[str]:
        """Every block that fails its checksum, in words."""
        problems, first = [], 0
        for passages, codes, encodings in self.blocks.tolist():
            start, end = self.tokens.offsets[[first, first + passages]].tolist()
            if zlib.crc32(np.ascontiguousarray(self.tokens.codes[start:end]).data) != codes:
                problems.append(f"{path}: the tokens of passages {first} to {first + passages - 1} fail their checksum")
            if self.encodings is not None and zlib.crc32(self.encodings[first : first + passages].data) != encodings:
                problems.append(f"{path}: the encodings of passages {first} to {first + passages - 1} fail their checksum")
            first += passages
        return problems


def write_tokens(
    path: Path,
    codec: TokenCodec,
    batches: Iterable[tuple[Keys, PackedTokens]],
    *,
    sequence: int,
    stamp: str,
    encoder: FixedEncoder,
    exact_tokens: int,
) -> None:
    """Put a new file in the place of what stood at `path`, which stays where this fails.

    Beyond `exact_tokens` tokens every passage gets its encoding.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path, ("new",))
        with replacing(path, beside(path, "new")) as file:
            _write(file, codec, batches, {"sequence": sequence, "stamp": stamp}, encoder, exact_tokens)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error


def _write(
    file: BinaryIO,
    codec: TokenCodec,
    batches: Iterable[tuple[Keys, PackedTokens]],
    header: dict[str, Any],
    encoder: FixedEncoder,
    exact_tokens: int,
) -> None:
    file.write(bytes(HEADER_BYTES))
    keys: list[Keys] = [np.empty(0, np.int64)]
    lengths: list[npt.NDArray[np.int64]] = [np.zeros(1, np.int64)]
    scales: list[npt.NDArray[np.float32]] = [np.empty(0, np.float32)]
    blocks: list[list[int]] = []
    last = -(2**63)
    for batch_keys, batch in batches:
        key_array = check_tokens(codec, batch_keys, batch)
        if not len(key_array):
            continue
        if key_array[0] <= last or (np.diff(key_array) <= 0).any():
            raise InputError(f"the keys are not in ascending order near {key_array[0]}")
        last = int(key_array[-1])
        for first, end in token_blocks(batch.offsets):
            data = np.ascontiguousarray(batch.codes[batch.offsets[first] : batch.offsets[end]]).data
            file.write(data)
            blocks.append([end - first, zlib.crc32(data), 0])
        keys.append(key_array)
        lengths.append(np.diff(batch.offsets))
        scales.append(batch.scales)
    offsets = np.cumsum(np.concatenate(lengths))  # (passages + 1,)
    all_scales = np.concatenate(scales)
    encoding_scales = np.empty(0, np.float32)
    if encoded := int(offsets[-1]) > exact_tokens:
        encoding_scales = _write_encodings(file, codec, encoder, PackedTokens(np.empty(0), all_scales, offsets), blocks)
    columns = (all_scales, "<f4"), (encoding_scales, "<f4"), (np.concatenate(keys), "<i8"), (offsets, "<i8")
    tail = b"".join(np.asarray(column).astype(kind).tobytes() for column, kind in columns)
    tail += np.array(blocks, dtype="<i8").tobytes()
    file.write(tail)
    header |= {
        "dimension": codec.dimension,
        "format": codec.format,
        "passages": len(offsets) - 1,
        "tokens": int(offsets[-1]),
        "encoding": encoder.size if encoded else 0,
        "encoder": encoder.name,
        "blocks": len(blocks),
        "tail": zlib.crc32(tail),
    }
    body = json.dumps(header).encode()
    if len(body) > HEADER_BYTES - 16:
        raise InputError(f"the stamp of {len(header['stamp'])} characters is too long")
    file.seek(0)
    file.write(MAGIC + np.array([zlib.crc32(body), len(body)], "<u4").tobytes() + body)


def _write_encodings(
    file: BinaryIO, codec: TokenCodec, encoder: FixedEncoder, tokens: PackedTokens, blocks: list[list[int]]
) -> npt.NDArray[np.float32]:
    """Encode what was just written, block by block; the encodings' scales."""
    file.flush()
    codes = np.memmap(file, codec.dtype, "r", HEADER_BYTES, (int(tokens.offsets[-1]), codec.code_bytes))
    scales, first = [], 0
    for block in blocks:
        places = tokens.offsets[first : first + block[0] + 1]
        start, end = int(places[0]), int(places[-1])
        vectors = codec.restore(codes[start:end], tokens.scales[start:end])
        encodings = encoder.encode_passages(vectors, places - start)  # (passages, size)
        packed = TokenCodec("int8", encoder.size).quantize(encodings)
        file.seek(0, os.SEEK_END)
        file.write(packed.codes.data)
        block[2] = zlib.crc32(packed.codes.data)
        scales.append(packed.scales)
        first += block[0]
    return np.concatenate(scales)


def map_tokens(path: Path) -> TokenFile:
    """Map a file; raises IndexDamagedError where it is missing or torn. The codes are read when they are searched."""
    try:
        with path.open("rb") as file:  # once, since another process may put a new file in its place at any time
            header = _read_header(file, path)
            codec = TokenCodec(header["format"], header["dimension"])
            passages, tokens, size = header["passages"], header["tokens"], header["encoding"]
            codes = _mapped(file, codec.dtype, HEADER_BYTES, (tokens, codec.code_bytes))
            place = HEADER_BYTES + codes.nbytes
            encodings = _mapped(file, np.int8, place, (passages, size)) if size else None
            file.seek(place + passages * size)
            tail = file.read()
    except OSError as error:
        raise IndexDamagedError(f"there is no index at {path}: {error.strerror}") from error
    if zlib.crc32(tail) != header["tail"]:
        raise IndexDamagedError(f"{path} is not what was written: its keys fail the checksum")
    counts = (tokens, "<f4"), (passages if size else 0, "<f4"), (passages, "<i8"), (passages + 1, "<i8")
    columns, start = [], 0
    for count, kind in counts:
        columns.append(np.frombuffer(tail, kind, count, start))
        start += columns[-1].nbytes
    scales, encoding_scales, keys, offsets = columns
    return TokenFile(
        codec=codec,
        stamp=header["stamp"],
        sequence=header["sequence"],
        keys=keys.astype(np.int64),
        tokens=PackedTokens(codes, scales.astype(np.float32), offsets.astype(np.int64)),
        encoder=header["encoder"],
        encodings=encodings,
        encoding_scales=encoding_scales.astype(np.float32),
        blocks=np.frombuffer(tail, "<i8", offset=start).astype(np.int64).reshape(-1, 3),
    )


def check_tokens(codec: TokenCodec, keys: npt.ArrayLike, tokens: PackedTokens) -> Keys:
    """The keys as an array; raises InputError where the tokens are not theirs or not of the codec's format."""
    key_array = np.atleast_1d(np.asarray(keys, dtype=np.int64))
    if len(key_array) != len(tokens):
        raise InputError(f"{len(key_array)} keys came with the tokens of {len(tokens)} passages")
    if tokens.codes.shape[1:] != (codec.code_bytes,) or tokens.codes.dtype != codec.dtype:
        raise InputError(
            f"the tokens have codes of {tokens.codes.shape[1:]} {tokens.codes.dtype}; the index holds {codec.format} of "
            f"{codec.dimension} dimensions"
        )
    empty = np.flatnonzero(np.diff(tokens.offsets) <= 0)
    if len(empty):
        raise InputError(f"passage {key_array[empty[0]]} has no tokens")
    if not (np.isfinite(tokens.scales) & (tokens.scales > 0)).all():
        raise InputError("a token's vector is zero, or holds NaN or infinity")
    return key_array


def token_blocks(offsets: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """(first, end) of runs of passages with at most BLOCK_TOKENS tokens, or one passage."""
    first, count = 0, len(offsets) - 1
    while first < count:
        end = int(np.searchsorted(offsets, offsets[first] + BLOCK_TOKENS, side="right")) - 1
        end = min(max(first + 1, end), count)
        yield first, end
        first = end


def _mapped(file: BinaryIO, dtype: npt.DTypeLike, offset: int, shape: tuple[int, int]) -> npt.NDArray[Any]:
    if not shape[0]:
        return np.empty(shape, dtype)
    return np.memmap(file, dtype, "r", offset, shape).view(np.ndarray)


def _read_header(file: BinaryIO, path: Path) -> dict[str, Any]:
    start = file.read(HEADER_BYTES)
    checksum, length = np.frombuffer(start[8:16].ljust(8, b"\0"), "<u4").tolist()
    body = start[16 : 16 + length]
    whole = len(start) == HEADER_BYTES and start[:8] == MAGIC and not start[16 + length :].strip(b"\0")
    if not whole or zlib.crc32(body) != checksum:
        raise IndexDamagedError(f"{path} is not what was written: its header fails the checksum")
    header: dict[str, Any] = json.loads(body)
    codec = TokenCodec(header["format"], header["dimension"])
    each = 16 + header["encoding"] + (4 if header["encoding"] else 0)
    expected = HEADER_BYTES + header["tokens"] * codec.token_bytes + header["passages"] * each + 8 + header["blocks"] * 24
    size = os.fstat(file.fileno()).st_size
    if size != expected:
        raise IndexDamagedError(f"{path} has {size} bytes instead of {expected}")
    return header
