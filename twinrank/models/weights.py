"""Tensors of a safetensors file, or of a sharded set of them, as float32 arrays; pickles are refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from twinrank.errors import ModelDamagedError, ModelUnsupportedError

# We read the format ourselves: it is a length, a JSON header and plain bytes, and the library's NumPy side has no bfloat16.
DTYPES: Mapping[str, str] = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}

INT8 = "I8"
SCALE = ".scale"
"""What the name of the scales ends with, one for each row of a tensor of int8: value = number · scale."""

LONGEST_HEADER = 100_000_000
"""The format's own limit, in bytes."""

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.bin")


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a tensor lies: bytes `begin` up to, not including, `end` of its file."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class Tensors:
    """The tensors of one folder by name; only headers are read until a tensor is asked for."""

    def __init__(self, files: tuple[Path, ...], entries: Mapping[str, Entry]) -> None:
        self.files = files
        self._entries = entries

    @classmethod
    def open(cls, folder: Path) -> Tensors:
        """Raises ModelDamagedError where files are missing or broken, ModelUnsupportedError for a pickle alone."""
        files = weight_files(folder)
        entries: dict[str, Entry] = {}
        for file in files:
            entries.update(_read_header(file))
        return cls(files, entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    @property
    def names(self) -> tuple[str, ...]:
        """Without the scales of what is kept as int8."""
        return tuple(name for name in self._entries if not self._is_scale(name))

    def _is_scale(self, name: str) -> bool:
        of = self._entries.get(name.removesuffix(SCALE))
        return name.endswith(SCALE) and of is not None and of.dtype == INT8

    def _read_int8(self, name: str, entry: Entry) -> npt.NDArray[np.float32]:
        if name + SCALE not in self._entries:
            raise ModelUnsupportedError(
                f"{entry.file}: tensor {name!r} is stored as {INT8} without its scales ({name}{SCALE}, one a row). "
                "Quantised weights of another layout have to be saved in float first."
            )
        scales = self.read(name + SCALE, entry.shape[:1])
        values: npt.NDArray[np.float32] = _read_stored(name, entry, "i1").astype(np.float32)
        values *= scales.reshape(-1, *[1] * (len(entry.shape) - 1))
        return values

    def read(self, name: str, shape: tuple[int, ...] | None = None) -> npt.NDArray[np.float32]:
        """One tensor as float32; refuses a missing one, another shape than the one given, NaN and infinity."""
        entry = self._entries.get(name)
        if entry is None:
            raise ModelDamagedError(f"{self.files[0]} has no tensor {name!r}; it has {_some(self.names)}. Get the model again.")
        if shape is not None and entry.shape != shape:
            raise ModelDamagedError(
                f"{entry.file}: tensor {name!r} has shape {entry.shape}, but config.json asks for {shape}. "
                "The two files are not of one model; get the model again."
            )
        values = self._read_int8(name, entry) if entry.dtype == INT8 else _read_values(name, entry)
        if not np.isfinite(values).all():
            raise ModelDamagedError(
                f"{entry.file}: tensor {name!r} has NaN or infinite weights. The file is damaged or its training diverged."
            )
        return values


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files of a folder: one, or the shards that its index names."""
    if (folder / SINGLE).is_file():
        return (folder / SINGLE,)
    if (folder / INDEX).is_file():
        weight_map = read_json(folder / INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise ModelDamagedError(f"{folder / INDEX} has no weight_map; it should say which shard holds which tensor.")
        shards = tuple(folder / str(shard) for shard in sorted(set(weight_map.values())))
        for shard in shards:
            # A name with folders in it could point anywhere on the disk.
            if shard.parent != folder or not shard.is_file():
                raise ModelDamagedError(f"{folder / INDEX} names the shard {shard.name}, which is not in {folder}.")
        return shards
    if pickle := next((name for name in PICKLES if (folder / name).is_file()), None):
        raise ModelUnsupportedError(
            f"{folder} holds its weights only as {pickle}, a pickle, which can run any code when it is opened. "
            "twinrank reads safetensors only. Where you trust the file, convert it once with sentence-transformers: "
            "SentenceTransformer(folder).save_pretrained(new_folder, safe_serialization=True)."
        )
    raise ModelDamagedError(
        f"{folder} has no {SINGLE}. Give a checkpoint folder with its weights in safetensors, "
        "or a revision of the hub's repository that has them."
    )


def write_tensors(file: Path, tensors: Mapping[str, npt.NDArray[np.float32]], *, int8: bool = False) -> None:
    """Write a safetensors file of float32 arrays; with `int8`, matrices as 8 bits a number with a scale a row, which only
    twinrank reads."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    stored: dict[str, npt.NDArray[Any]] = {}
    for name, tensor in tensors.items():
        if int8 and tensor.ndim == 2:
            scales = np.abs(tensor).max(axis=1, initial=0.0).astype(np.float32) / np.float32(127)  # (rows,)
            stored[name] = np.rint(tensor / np.maximum(scales, np.float32(1e-30))[:, None]).astype("i1")
            stored[name + SCALE] = scales.astype("<f4")
        else:
            stored[name] = np.ascontiguousarray(tensor, "<f4")
    end = 0
    for name, values in stored.items():
        begin, end = end, end + values.nbytes
        kind = INT8 if values.dtype == np.int8 else "F32"
        header[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the format asks that the data begin at a multiple of 8
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for values in stored.values():
            stream.write(values.tobytes())


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a file of the checkpoint; ModelDamagedError where it is none."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelDamagedError(f"{file} is missing; the checkpoint is not complete. Get the model again.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelDamagedError(f"{file} is not readable JSON ({error}). Get the model again.") from error
    if not isinstance(value, dict):
        raise ModelDamagedError(f"{file} holds a {type(value).__name__} where a JSON object was expected.")
    return value


def _read_header(file: Path) -> dict[str, Entry]:
    """Check what the header promises against the file: no tensor lies outside it or is larger than its shape says."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(size - 8, LONGEST_HEADER):
            raise ModelDamagedError(f"{file} is no safetensors file, or was cut off ({size} bytes). Get the model again.")
        try:
            header = json.loads(stream.read(length))
            header.pop("__metadata__", None)
            return {name: _entry(file, record, start=8 + length, size=size) for name, record in header.items()}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ModelDamagedError(f"{file} has a damaged safetensors header ({error}). Get the model again.") from error


def _entry(file: Path, record: Mapping[str, Any], *, start: int, size: int) -> Entry:
    begin, end = (start + int(offset) for offset in record["data_offsets"])
    shape = tuple(int(side) for side in record["shape"])
    if not start <= begin <= end <= size or any(side < 0 for side in shape):
        raise ValueError(f"a tensor at bytes {begin} to {end} of {size}; was the file cut off?")
    return Entry(file, str(record["dtype"]), shape, begin, end)


def _read_values(name: str, entry: Entry) -> npt.NDArray[np.float32]:
    dtype = DTYPES.get(entry.dtype)
    if dtype is None:
        raise ModelUnsupportedError(
            f"{entry.file}: tensor {name!r} is stored as {entry.dtype}; {', '.join(DTYPES)} are read. "
            "Quantised weights have to be saved in float first."
        )
    stored = _read_stored(name, entry, dtype)
    if entry.dtype == "BF16":
        # bfloat16 is the upper half of a float32.
        stored = (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
    values: npt.NDArray[np.float32] = stored.astype(np.float32, copy=False)
    return values


def _read_stored(name: str, entry: Entry, dtype: str) -> npt.NDArray[Any]:
    """A tensor as it is in the file."""
    count = int(np.prod(entry.shape, dtype=np.int64))
    if entry.end - entry.begin != count * np.dtype(dtype).itemsize:
        raise ModelDamagedError(
            f"{entry.file}: tensor {name!r} of shape {entry.shape} in {entry.dtype} has {entry.end - entry.begin} bytes."
        )
    return np.fromfile(entry.file, dtype, count, offset=entry.begin).reshape(entry.shape)


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
