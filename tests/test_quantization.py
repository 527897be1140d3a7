"""Token vectors as bytes: what comes back is near to what went in, by a bound, in every format."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinrank.errors import InputError
from twinrank.quantization import PackedTokens, TokenCodec, TokenFormat, _rotation


def draw(tokens: int, dimension: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(tokens, dimension)).astype(np.float32)


def test_int8_by_hand() -> None:
    packed = TokenCodec("int8", 3).quantize(np.array([[1.27, -0.5, 0.004]], np.float32))
    assert packed.codes.tolist() == [[127, -50, 0]]
    assert packed.scales[0] == pytest.approx(0.01)


def test_int4_of_one_dimension_keeps_sign_and_length() -> None:
    codec = TokenCodec("int4", 1)
    np.testing.assert_allclose(codec.decode(codec.encode(np.array([[3.0], [-0.25]], np.float32))), [[3.0], [-0.25]], rtol=1e-6)


@given(st.integers(1, 9), st.integers(1, 40), st.integers(0, 10**6), st.floats(1e-6, 1e6))
@settings(deadline=None)
def test_int8_loses_at_most_half_a_step_of_each_number(tokens: int, dimension: int, seed: int, size: float) -> None:
    vectors = draw(tokens, dimension, seed) * np.float32(size)
    codec = TokenCodec("int8", dimension)
    back = codec.decode(codec.encode(vectors))
    half_step = np.abs(vectors).max(axis=1, keepdims=True) / 254
    assert (np.abs(back - vectors) <= half_step * 1.001).all()


@given(st.integers(1, 9), st.integers(1, 40), st.integers(0, 10**6), st.floats(1e-6, 1e6))
@settings(deadline=None)
def test_int4_keeps_the_length_of_every_vector(tokens: int, dimension: int, seed: int, size: float) -> None:
    vectors = draw(tokens, dimension, seed) * np.float32(size)
    codec = TokenCodec("int4", dimension)
    back = codec.decode(codec.encode(vectors))
    np.testing.assert_allclose(np.linalg.norm(back, axis=1), np.linalg.norm(vectors, axis=1), rtol=1e-3)


@pytest.mark.parametrize(("format", "nearest", "on_average"), [("int8", 0.9998, 0.9999), ("int4", 0.98, 0.994)])
def test_the_direction_is_kept_even_of_vectors_with_odd_dimensions(
    format: TokenFormat, nearest: float, on_average: float
) -> None:
    """Encoders have a few dimensions that are large in every vector, which a plain 4-bit scale would pay for."""
    vectors = draw(500, 384)
    vectors[:, 7] += 8 if format == "int4" else 0
    codec = TokenCodec(format, 384)
    back = codec.decode(codec.encode(vectors))
    cosines = (back * vectors).sum(1) / np.linalg.norm(back, axis=1) / np.linalg.norm(vectors, axis=1)
    assert cosines.min() > nearest
    assert cosines.mean() > on_average


def test_the_rotation_leaves_dot_products_alone() -> None:
    a, b = draw(5, 48), draw(6, 48, seed=1)
    np.testing.assert_allclose((a @ _rotation(48)) @ (b @ _rotation(48)).T, a @ b.T, atol=1e-4)


def test_the_rotation_stays_what_it_was() -> None:
    """It is part of the format: with another one, every stored 4-bit vector would mean something else."""
    np.testing.assert_allclose(_rotation(4)[0], [-0.73450267, 0.56897479, 0.01135469, -0.36965474], atol=1e-6)


@pytest.mark.parametrize(("format", "size"), [("int8", 388), ("int4", 196)])
def test_a_token_takes_the_bytes_that_are_stated(format: TokenFormat, size: int) -> None:
    codec = TokenCodec(format, 384)
    assert codec.token_bytes == size
    assert len(codec.encode(draw(7, 384))) == 7 * size


@pytest.mark.parametrize("format", ["int8", "int4"])
@pytest.mark.parametrize("dimension", [1, 5, 8])
def test_several_passages_are_unpacked_as_each_alone(format: TokenFormat, dimension: int) -> None:
    codec = TokenCodec(format, dimension)
    passages = [draw(tokens, dimension, seed) for seed, tokens in enumerate((3, 1, 4))]
    packed = codec.unpack([codec.encode(passage) for passage in passages])
    assert packed.offsets.tolist() == [0, 3, 4, 8]
    for one, passage in zip(packed, passages, strict=True):
        np.testing.assert_array_equal(codec.restore(one.codes, one.scales), codec.decode(codec.encode(passage)))
    joined = PackedTokens.join(list(packed))
    np.testing.assert_array_equal(joined.codes, packed.codes)
    assert joined.offsets.tolist() == [0, 3, 4, 8]


def test_what_is_not_of_the_format_is_refused() -> None:
    with pytest.raises(InputError, match="389 bytes are not tokens of 388 bytes"):
        TokenCodec("int8", 384).unpack([bytes(389)])
    with pytest.raises(InputError, match="0 bytes"):
        TokenCodec("int8", 384).unpack([b""])
    with pytest.raises(InputError, match="no token format 'int2'"):
        TokenCodec("int2", 4)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="1 dimension or more"):
        TokenCodec("int8", 0)
