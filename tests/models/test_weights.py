"""safetensors files are read as float32 whatever they hold, and what is broken is named."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from twinrank.errors import ModelDamagedError, ModelUnsupportedError
from twinrank.models.weights import Tensors, write_tensors


def write_raw(file: Path, header: object, data: bytes = b"") -> None:
    text = json.dumps(header).encode() if not isinstance(header, bytes) else header
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_float_becomes_float32(tmp_path: Path, dtype: type) -> None:
    values = np.array([[1.5, -2.25], [0.0, 65504.0]])
    save_file({"a": values.astype(dtype), "b": np.ones(3, dtype)}, tmp_path / "model.safetensors")
    read = Tensors.open(tmp_path).read("a", (2, 2))
    assert read.dtype == np.float32
    assert read.tolist() == values.tolist()


def test_bfloat16_is_read_without_torch(tmp_path: Path) -> None:
    """1.0 is 0x3F80 and -2.5 is 0xC020: the upper halves of their float32."""
    header = {"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}
    write_raw(tmp_path / "model.safetensors", header, bytes.fromhex("803f20c0"))
    assert Tensors.open(tmp_path).read("a").tolist() == [1.0, -2.5]


def test_shards_are_read_as_one(tmp_path: Path) -> None:
    save_file({"a": np.ones(2, np.float32)}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({"b": np.zeros(3, np.float32)}, tmp_path / "model-00002-of-00002.safetensors")
    weight_map = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    tensors = Tensors.open(tmp_path)
    assert tensors.read("a").tolist() == [1, 1]
    assert tensors.read("b").tolist() == [0, 0, 0]
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelDamagedError, match="names the shard model-00002"):
        Tensors.open(tmp_path)


def test_a_shard_outside_the_folder_is_refused(tmp_path: Path) -> None:
    save_file({"a": np.ones(2, np.float32)}, tmp_path / "model.safetensors")
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../model.safetensors"}}))
    with pytest.raises(ModelDamagedError, match="names the shard"):
        Tensors.open(inner)


def test_a_pickle_alone_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(ModelUnsupportedError, match=r"pickle, which can run any code.*safe_serialization=True"):
        Tensors.open(tmp_path)


def test_no_weights_at_all_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelDamagedError, match=r"has no model\.safetensors"):
        Tensors.open(tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused_by_tensor(tmp_path: Path, value: float) -> None:
    save_file({"layer.weight": np.array([1, value], np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelDamagedError, match=r"tensor 'layer\.weight' has NaN or infinite"):
        Tensors.open(tmp_path).read("layer.weight")


def test_a_wrong_shape_and_a_missing_tensor_are_named(tmp_path: Path) -> None:
    save_file({"a": np.ones((2, 3), np.float32)}, tmp_path / "model.safetensors")
    tensors = Tensors.open(tmp_path)
    with pytest.raises(ModelDamagedError, match=r"'a' has shape \(2, 3\), but config.json asks for \(3, 2\)"):
        tensors.read("a", (3, 2))
    with pytest.raises(ModelDamagedError, match="no tensor 'b'; it has a"):
        tensors.read("b")


def test_quantised_weights_are_refused(tmp_path: Path) -> None:
    save_file({"a": np.ones(2, np.int8)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelUnsupportedError, match="stored as I8 without its scales"):
        Tensors.open(tmp_path).read("a")


def test_matrices_kept_as_int8_come_back_within_half_a_step(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    given = {"a": draw.normal(size=(5, 300)).astype(np.float32), "b": draw.normal(size=7).astype(np.float32)}
    given["a"][3] = 0
    write_tensors(tmp_path / "model.safetensors", given, int8=True)
    found = Tensors.open(tmp_path)
    assert sorted(found.names) == ["a", "b"]
    steps = np.abs(given["a"]).max(axis=1, keepdims=True) / 127
    assert (np.abs(found.read("a", (5, 300)) - given["a"]) <= 0.5 * steps + 1e-7).all()
    np.testing.assert_array_equal(found.read("b"), given["b"])
    assert (tmp_path / "model.safetensors").stat().st_size < 5 * 300 + 4 * (5 + 7) + 600


BROKEN = {
    "empty": b"",
    "short": b"\x01\x02",
    "header longer than the file": struct.pack("<Q", 1 << 40) + b"{}",
    "no JSON": struct.pack("<Q", 4) + b"oops",
    "a list": struct.pack("<Q", 2) + b"[]",
    "nested too deep": struct.pack("<Q", 200_000) + b"[" * 200_000,
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_file_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelDamagedError, match=r"model\.safetensors"):
        Tensors.open(tmp_path)


@pytest.mark.parametrize(
    "record",
    [
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 1000]},
        {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]},
        {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": "ab", "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2]},
        "nothing",
    ],
)
def test_a_header_that_promises_what_the_file_lacks_is_refused(tmp_path: Path, record: object) -> None:
    write_raw(tmp_path / "model.safetensors", {"a": record}, bytes(8))
    with pytest.raises(ModelDamagedError, match="damaged safetensors header"):
        Tensors.open(tmp_path)


def test_a_shape_that_does_not_fill_its_bytes_is_refused(tmp_path: Path) -> None:
    write_raw(tmp_path / "model.safetensors", {"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, bytes(8))
    with pytest.raises(ModelDamagedError, match="has 8 bytes"):
        Tensors.open(tmp_path).read("a")


def test_a_file_cut_off_in_the_middle_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"a": np.ones(100, np.float32)}, file)
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(ModelDamagedError, match="was the file cut off"):
        Tensors.open(tmp_path)


def test_what_is_written_is_read_by_the_formats_own_library(tmp_path: Path) -> None:
    tensors = {"a": np.arange(6, dtype=np.float32).reshape(2, 3).T, "bias": np.ones(3, np.float32)}
    write_tensors(tmp_path / "model.safetensors", tensors)
    theirs = load_file(tmp_path / "model.safetensors")
    assert theirs.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(theirs[name], tensor)
        np.testing.assert_array_equal(Tensors.open(tmp_path).read(name, tensor.shape), tensor)
