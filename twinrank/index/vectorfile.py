"""The file of a vector index: vectors in float32 and their int8 codes, mapped into memory, each row with its checksum.

A header of 4,096 bytes (magic, CRC-32 and length of what follows, JSON), the vectors, their codes, and the tail: the codes'
scales and errors, the CRC-32 of each vector and of each block of codes, and the keys. All little endian; every part begins
at a multiple of 64 bytes.

Opening reads header and tail, 20 bytes a row. The codes are compared with their checksums when they are first scanned, a
vector each time when it is read, so that no answer comes from damaged bytes.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import threading
import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from twinrank.errors import IndexDamagedError, InputError, StorageError
from twinrank.files import beside, remove_leftovers, replacing
from twinrank.scan import Codes, Rows, quantize, reach
from twinrank.types import Keys, Vectors

Metric: TypeAlias = Literal["cosine", "dot", "euclidean"]
"""`cosine` is `dot` over vectors that their encoder made of length 1; `euclidean` is minus the squared distance."""

MAGIC = b"twrkvec"
VERSION = 2
HEADER_BYTES = 4096
ALIGNED = 64
BLOCK_ROWS = 4096


@dataclass(frozen=True)
class Header:
    """What a vector file says of itself."""

    dimension: int
    metric: Metric
    stamp: str
    """What made the vectors."""
    sequence: int
    """The change of the store that the file reflects."""
    identity: str = ""
    """Another one for each file written: the log of changes and the neighbours name the file that they belong to."""
    count: int = 0
    longest: float = 0.0
    """No vector is longer, and neither is what stands for it in int8."""
    tail: int = 0
    """The tail's CRC-32."""


class VectorFile:
    """A vector index's file, mapped."""

    def __init__(self, path: Path, header: Header, vectors: Vectors, codes: Codes, tail: dict[str, npt.NDArray[Any]]) -> None:
        """Use `VectorFile.open`."""
        self.path = path
        self.header = header
        self.vectors = vectors  # (rows, dimension); read through `take`, which compares the checksums
        self.keys: Keys = tail["keys"]  # (rows,), ascending
        self._codes = codes
        self._row_checksums: npt.NDArray[np.uint32] = tail["vectors"]  # (rows,)
        self._block_checksums: npt.NDArray[np.uint32] = tail["codes"]  # (blocks,)
        self._lock = threading.Lock()
        self._whole = False

    @staticmethod
    def read_header(path: Path) -> Header:
        """The header alone; raises IndexDamagedError."""
        try:
            with path.open("rb") as file:
                return _read_header(file, path)
        except OSError as error:
            raise IndexDamagedError(f"there is no index at {path}: {error.strerror}") from error

    @classmethod
    def open(cls, path: Path) -> VectorFile:
        """Map the file; raises IndexDamagedError where it is missing, torn, or of another version."""
        try:
            with path.open("rb") as file:  # once, since another process may put a new file in its place at any time
                header = _read_header(file, path)
                places, end = _places(header.count, header.dimension)
                size = os.fstat(file.fileno()).st_size
                if size != end:
                    raise IndexDamagedError(f"{path} has {size} bytes instead of {end}")
                file.seek(places["scales"][0])
                data = file.read()
                mapped = np.memmap(file, np.uint8, "r").view(np.ndarray)
        except OSError as error:
            raise IndexDamagedError(f"there is no index at {path}: {error.strerror}") from error
        if zlib.crc32(data) != header.tail:
            raise IndexDamagedError(f"{path} is not what was written: its keys fail the checksum")
        start = places["scales"][0]
        tail = {}
        for name in ("scales", "errors", "vectors_checksums", "codes_checksums", "keys"):
            place, kind, shape = places[name]
            tail[name.removesuffix("_checksums")] = _view(np.frombuffer(data, np.uint8), place - start, kind, shape)
        vectors = _view(mapped, *places["vectors"])
        codes = Codes(_view(mapped, *places["codes"]), tail.pop("scales"), tail.pop("errors"))
        return cls(path, header, vectors, codes, tail)

    def __len__(self) -> int:
        return self.header.count

    @property
    def codes(self) -> Codes:
        """The codes, compared with their checksums when first asked for; raises IndexDamagedError."""
        if not self._whole:
            with self._lock:
                problems = [] if self._whole else self._code_problems()
                if problems:
                    raise IndexDamagedError(f"{problems[0]}; twinrank rebuild makes it anew")
                self._whole = True
        return self._codes

    def take(self, rows: Rows) -> Vectors:
        """The vectors at `rows` (n,): (n, dimension); raises IndexDamagedError where one is not what was written."""
        found = self.vectors[rows]
        for row, vector, checksum in zip(rows.tolist(), found, self._row_checksums[rows].tolist(), strict=True):
            if zlib.crc32(vector) != checksum:
                raise IndexDamagedError(f"{self.path}: vector {row} fails its checksum; twinrank rebuild makes it anew")
        return np.asarray(found)

    def rows_of(self, keys: Keys) -> Rows:
        """The row of each of these ascending keys (n,), or -1: (n,)"""
        if not len(self.keys) or not len(keys):
            return np.full(len(keys), -1, np.int64)
        first, last = int(self.keys[0]), int(self.keys[-1])
        if last - first + 1 == len(self.keys):  # without a gap, as the store gives them
            rows = keys - first
            return rows if first <= keys[0] and keys[-1] <= last else np.where((rows >= 0) & (keys <= last), rows, -1)
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[places] == keys, places, -1)

    def verify(self) -> list[str]:
        """Every vector and block of codes that fails its checksum, in words; reads all of the file."""
        problems = self._code_problems()
        for row, vector in enumerate(self.vectors):
            if zlib.crc32(vector) != self._row_checksums[row]:
                problems.append(f"{self.path}: vector {row} fails its checksum")
        places, _ = _places(len(self), self.header.dimension)
        with self.path.open("rb") as file:
            for part, following in (("vectors", "codes"), ("codes", "scales")):
                place, kind, shape = places[part]
                end = place + int(np.prod(shape)) * int(kind[2])
                file.seek(end)
                if file.read(places[following][0] - end).strip(b"\0"):
                    problems.append(f"{self.path}: there is something between its {part} and its {following}")
        return problems

    def _code_problems(self) -> list[str]:
        problems = []
        for block, checksum in enumerate(self._block_checksums.tolist()):
            start = block * BLOCK_ROWS
            if zlib.crc32(self._codes.codes[start : start + BLOCK_ROWS].data) != checksum:
                end = min(start + BLOCK_ROWS, len(self)) - 1
                problems.append(f"{self.path}: the codes of vectors {start} to {end} fail their checksum")
        return problems


def write_vectors(path: Path, header: Header, batches: Iterable[tuple[Keys, Vectors]]) -> None:
    """Put a new file in the place of what stood at `path`, which stays where this fails; holds one batch in memory.

    Batches of keys (n,), ascending throughout, and vectors (n, dimension).
    """
    codes = beside(path, "codes")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path, ("new", "codes"))
        with replacing(path, beside(path, "new")) as file, codes.open("w+b") as codes_file:
            _write(file, codes_file, header, batches)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        with suppress(OSError):
            codes.unlink()


def _write(file: BinaryIO, codes_file: BinaryIO, header: Header, batches: Iterable[tuple[Keys, Vectors]]) -> None:
    columns: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in ("scales", "errors", "checksums", "keys")}
    last, longest = -(2**63), 0.0
    file.write(bytes(HEADER_BYTES))
    for keys, vectors in batches:
        key_array, matrix = checked(keys, vectors, header.dimension)
        if len(key_array) == 0:
            continue
        if key_array[0] <= last or (np.diff(key_array) <= 0).any():
            raise InputError(f"the keys are not in ascending order near {key_array[0]}")
        codes = quantize(matrix)
        last, longest = int(key_array[-1]), max(longest, reach(matrix, codes))
        file.write(matrix.astype("<f4", copy=False).data)
        codes_file.write(codes.codes.data)
        checksums = np.fromiter(map(zlib.crc32, matrix), np.uint32, len(matrix))
        made: tuple[npt.NDArray[Any], ...] = (codes.scales, codes.errors, checksums, key_array)
        for name, column in zip(columns, made, strict=True):
            columns[name].append(column)
    count = sum(map(len, columns["keys"]))
    places, end = _places(count, header.dimension)
    codes_file.seek(0)
    file.seek(places["codes"][0])
    shutil.copyfileobj(codes_file, file, 1 << 22)
    codes_file.seek(0)
    block_bytes = BLOCK_ROWS * header.dimension
    block_checksums = [zlib.crc32(block) for block in iter(lambda: codes_file.read(block_bytes), b"")]
    start = places["scales"][0]
    tail = np.zeros(end - start, np.uint8)
    kept = {
        "scales": columns["scales"],
        "errors": columns["errors"],
        "vectors_checksums": columns["checksums"],
        "codes_checksums": [np.array(block_checksums, np.uint32)],
        "keys": columns["keys"],
    }
    for name, arrays in kept.items():
        place, kind, shape = places[name]
        if count:
            _view(tail, place - start, kind, shape)[:] = np.concatenate(arrays)
    file.seek(start)
    file.write(tail.data)
    file.truncate(end)
    body = json.dumps(
        asdict(header) | {"identity": secrets.token_hex(8), "count": count, "longest": longest, "tail": zlib.crc32(tail.data)}
    ).encode()
    if len(body) > HEADER_BYTES - 16:
        raise InputError(f"the stamp of {len(header.stamp)} characters is too long")
    file.seek(0)
    file.write(MAGIC + str(VERSION).encode() + np.array([zlib.crc32(body), len(body)], "<u4").tobytes() + body)


def _places(count: int, dimension: int) -> tuple[dict[str, tuple[int, str, tuple[int, ...]]], int]:
    """(part → (byte at which it begins, kind of number, shape), bytes of the file)"""
    blocks = -(-count // BLOCK_ROWS)
    parts = {
        "vectors": ("<f4", (count, dimension)),
        "codes": ("<i1", (count, dimension)),
        "scales": ("<f4", (count,)),
        "errors": ("<f4", (count,)),
        "vectors_checksums": ("<u4", (count,)),
        "codes_checksums": ("<u4", (blocks,)),
        "keys": ("<i8", (count,)),
    }
    places, at = {}, HEADER_BYTES
    for name, (kind, shape) in parts.items():
        places[name] = (at, kind, shape)
        at += -(-int(np.prod(shape)) * int(kind[2]) // ALIGNED) * ALIGNED
    return places, at


def _view(data: npt.NDArray[np.uint8], place: int, kind: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    size = int(np.prod(shape)) * int(kind[2])
    return data[place : place + size].view(kind).reshape(shape)


def _read_header(file: BinaryIO, path: Path) -> Header:
    start = file.read(HEADER_BYTES)
    checksum, length = np.frombuffer(start[8:16].ljust(8, b"\0"), "<u4").tolist()
    body = start[16 : 16 + length]
    whole = len(start) == HEADER_BYTES and start[:7] == MAGIC and not start[16 + length :].strip(b"\0")
    if not whole or zlib.crc32(body) != checksum:
        raise IndexDamagedError(f"{path} is not what was written: its header fails the checksum")
    version = start[7:8].decode("ascii", "replace")
    if version != str(VERSION):
        age = "a newer twinrank; install that" if version > str(VERSION) else "an older twinrank"
        raise IndexDamagedError(f"{path} is of format {version} and was written by {age}; this one reads format {VERSION}")
    return Header(**json.loads(body))


def checked(keys: npt.ArrayLike, vectors: npt.ArrayLike, dimension: int) -> tuple[Keys, Vectors]:
    """Keys (n,) and vectors (n, dimension) that can be searched; raises InputError for another dimension, NaN and zero."""
    key_array = np.atleast_1d(np.asarray(keys, dtype=np.int64))
    matrix = np.ascontiguousarray(vectors, dtype=np.float32)
    if matrix.shape != (len(key_array), dimension):
        raise InputError(
            f"{len(key_array)} keys came with vectors of shape {matrix.shape}; the index holds vectors of ({dimension},)"
        )
    unfit = ~np.isfinite(matrix).all(axis=1) | ~matrix.any(axis=1)  # (n,)
    if unfit.any():
        raise InputError(f"the vector of passage {key_array[np.argmax(unfit)]} is zero, or holds NaN or infinity")
    return key_array, matrix
