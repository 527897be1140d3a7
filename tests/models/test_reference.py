"""The NumPy forward: by hand on a network of one layer, against formulas written out, and by the contract of every network."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest

from twinrank.errors import InputError
from twinrank.models import reference
from twinrank.models.packing import pack, take
from twinrank.models.reference import ReferenceNetwork, erf, gelu_tanh, relative_bucket
from twinrank.models.trunk import Shape, Trunk


def ids(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int32)


def make_trunk(shape: Shape, seed: int = 3) -> Trunk:
    random = np.random.default_rng(seed)

    def draw(*size: int) -> np.ndarray:
        return random.normal(0, 0.4, size).astype(np.float32)

    weights = {
        "embeddings.word": draw(shape.vocabulary, shape.width),
        "embeddings.position": draw(shape.positions, shape.width),
    }
    if shape.types:
        weights["embeddings.type"] = draw(shape.types, shape.width)
    if shape.relative_buckets:
        weights["relative_bias"] = draw(shape.relative_buckets, shape.heads)
    names = {"embeddings.norm": (shape.width,)}
    for n in range(shape.layers):
        for name in ("query", "key", "value", "attention_output"):
            names[f"layers.{n}.{name}"] = (shape.width, shape.width)
        names[f"layers.{n}.intermediate"] = (shape.intermediate, shape.width)
        names[f"layers.{n}.output"] = (shape.width, shape.intermediate)
        names[f"layers.{n}.attention_norm"] = names[f"layers.{n}.output_norm"] = (shape.width,)
    for name, size in names.items():
        weights |= {name + ".weight": draw(*size), name + ".bias": draw(size[0])}
    return Trunk("bert", shape, weights)


SMALL = Shape(layers=3, width=8, heads=2, intermediate=12, vocabulary=30, positions=20, types=2)
TEXTS = pack([ids(5, 6, 7), ids(8), ids(9, 1, 2, 3, 4, 5), ids(3, 3, 3), ids(29, 0)])


def test_one_layer_of_width_two_by_hand() -> None:
    """Identity maps, no biases, relu: every number below can be followed with a pencil.

    Embeddings (3, 1) and (1, 3) normalise to (1, -1) and (-1, 1). Query, key and value are the states; a token's score with
    itself is 2 / √2 = √2, with the other -√2, so it keeps p = 1 / (1 + e^(-2√2)) of itself: context ±(2p - 1) (1, -1). With
    the residual and normalised that is (1, -1) again. The intermediate is relu of that, (1, 0), the output (1, 0), with the
    residual (2, -1), which normalises to (1, -1).
    """
    shape = Shape(layers=1, width=2, heads=1, intermediate=2, vocabulary=2, positions=2, types=0, activation="relu")
    one, zero = np.ones(2, np.float32), np.zeros(2, np.float32)
    weights = {"embeddings.word": np.array([[3, 1], [1, 3]], np.float32), "embeddings.position": np.zeros((2, 2), np.float32)}
    for name in ("query", "key", "value", "attention_output", "intermediate", "output"):
        weights |= {f"layers.0.{name}.weight": np.eye(2, dtype=np.float32), f"layers.0.{name}.bias": zero}
    for name in ("embeddings.norm", "layers.0.attention_norm", "layers.0.output_norm"):
        weights |= {f"{name}.weight": one, f"{name}.bias": zero}
    network = ReferenceNetwork(Trunk("bert", shape, weights))
    tokens = pack([ids(0, 1)])
    np.testing.assert_allclose(network.run(tokens, hidden=True).hidden, [[1, -1], [-1, 1]], atol=1e-6)
    # Let attention show: without the residual's normalisation hidden by scale, take the value to be asymmetric.
    weights["layers.0.value.weight"] = np.array([[1, 0], [0, 0]], np.float32)
    weights["layers.0.attention_norm.weight"] = np.array([1, 0], np.float32)
    weights["layers.0.attention_norm.bias"] = np.array([0, 1], np.float32)
    # context (2p-1, 0) + (1, -1), normalised (1, -1), then the norm's weight and bias make it (1, 1) and (-1, 1);
    # relu and residual give (2, 2), which normalises to (0, 0), and (-1, 2), which normalises to (-1, 1).
    np.testing.assert_allclose(network.run(tokens, hidden=True).hidden, [[0, 0], [-1, 1]], atol=1e-6)


def test_attention_weighs_values_by_the_softmax_of_scaled_products() -> None:
    trunk = make_trunk(SMALL)
    network = ReferenceNetwork(trunk)
    before = network.run(TEXTS, hidden=True, layers=(0, 0)).hidden[TEXTS.offsets[2] : TEXTS.offsets[3]].astype(np.float64)
    weights = {name: weight.astype(np.float64) for name, weight in trunk.weights.items()}

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return x @ weights[f"layers.0.{name}.weight"].T + weights[f"layers.0.{name}.bias"]

    def norm(name: str, x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(1, keepdims=True)
        unit = centred / np.sqrt((centred**2).mean(1, keepdims=True) + SMALL.norm_epsilon)
        return unit * weights[f"layers.0.{name}.weight"] + weights[f"layers.0.{name}.bias"]

    context = np.zeros_like(before)
    for head in range(SMALL.heads):
        part = slice(head * 4, head * 4 + 4)
        q, k, v = (linear(name, before)[:, part] for name in ("query", "key", "value"))
        for row in range(len(before)):
            scores = np.exp([q[row] @ other / 2 for other in k])
            context[row, part] = (scores / scores.sum()) @ v
    states = norm("attention_norm", linear("attention_output", context) + before)
    inner = linear("intermediate", states)
    inner = inner * 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
    expected = norm("output_norm", linear("output", inner) + states)
    after = network.run(TEXTS, hidden=True, layers=(0, 1)).hidden[TEXTS.offsets[2] : TEXTS.offsets[3]]
    np.testing.assert_allclose(after, expected, atol=3e-6)


def test_poolings_are_what_their_names_say() -> None:
    network = ReferenceNetwork(make_trunk(SMALL))
    states = network.run(TEXTS, hidden=True).hidden[TEXTS.offsets[2] : TEXTS.offsets[3]]  # (6, width)
    expected = {
        "cls": states[0],
        "last": states[5],
        "max": states.max(0),
        "mean": states.mean(0),
        "weighted_mean": sum((i + 1) * states[i] for i in range(6)) / 21,
    }
    for pooling, vector in expected.items():
        np.testing.assert_allclose(network.run(TEXTS, pooling=pooling).pooled[2], vector, atol=1e-6)


@pytest.mark.parametrize("buckets", [0, 32])
def test_a_text_does_not_depend_on_its_neighbours_or_its_place(buckets: int) -> None:
    shape = Shape(3, 8, 2, 12, 30, 20, 2, relative_buckets=buckets)
    network = ReferenceNetwork(make_trunk(shape))
    together = network.run(TEXTS, hidden=True)
    order = np.array([4, 2, 0, 3, 1])
    np.testing.assert_allclose(network.run(take(TEXTS, order)).pooled, together.pooled[order], atol=2e-6)
    for text in range(len(TEXTS)):
        alone = network.run(take(TEXTS, np.array([text])), hidden=True)
        np.testing.assert_allclose(alone.pooled[0], together.pooled[text], atol=2e-6)
        np.testing.assert_allclose(alone.hidden, together.hidden[TEXTS.offsets[text] : TEXTS.offsets[text + 1]], atol=2e-6)


def test_layers_run_in_parts_give_what_they_give_together() -> None:
    network = ReferenceNetwork(make_trunk(SMALL))
    whole = network.run(TEXTS, hidden=True)
    half = network.run(TEXTS, pooling=None, hidden=True, layers=(0, 2))
    assert half.pooled is None
    rest = network.run(TEXTS, hidden=True, layers=(2, 3), start=half.hidden)
    np.testing.assert_array_equal(rest.hidden, whole.hidden)
    np.testing.assert_array_equal(rest.pooled, whole.pooled)


def test_small_blocks_give_what_large_ones_give(monkeypatch: pytest.MonkeyPatch) -> None:
    network = ReferenceNetwork(make_trunk(SMALL))
    whole = network.run(TEXTS, hidden=True)
    monkeypatch.setattr(reference, "TOKENS_PER_BATCH", 5)
    monkeypatch.setattr(reference, "SCORES_PER_BLOCK", 30)
    monkeypatch.setattr(reference, "ELEMENTS_PER_BLOCK", 7)
    parts = network.run(TEXTS, hidden=True)
    np.testing.assert_allclose(parts.hidden, whole.hidden, atol=2e-6)
    np.testing.assert_allclose(parts.pooled, whole.pooled, atol=2e-6)


def test_token_types_change_what_comes_out_and_default_to_zero() -> None:
    network = ReferenceNetwork(make_trunk(SMALL))
    plain = pack([ids(4, 5)])
    typed = type(plain)(plain.ids, plain.offsets, types=ids(0, 0))
    np.testing.assert_array_equal(network.run(plain).pooled, network.run(typed).pooled)
    other = type(plain)(plain.ids, plain.offsets, types=ids(0, 1))
    assert not np.allclose(network.run(plain).pooled, network.run(other).pooled)


def test_no_texts_give_no_vectors() -> None:
    outputs = ReferenceNetwork(make_trunk(SMALL)).run(pack([]), hidden=True)
    assert outputs.pooled.shape == (0, 8)
    assert outputs.hidden.shape == (0, 8)


def test_an_empty_text_is_refused() -> None:
    with pytest.raises(InputError, match="Text 0 has no tokens"):
        ReferenceNetwork(make_trunk(SMALL)).run(pack([ids()]))


def test_erf_is_off_by_less_than_stated() -> None:
    values = np.linspace(-6, 6, 20_001, dtype=np.float32)
    assert max(abs(float(a) - math.erf(float(b))) for a, b in zip(erf(values), values, strict=True)) < 6e-7


def test_the_tanh_form_of_gelu_is_its_formula() -> None:
    values = np.linspace(-5, 5, 101, dtype=np.float32)
    expected = [0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) for x in values.astype(float)]
    np.testing.assert_allclose(gelu_tanh(values), expected, atol=1e-6)


def test_relative_buckets_at_their_borders_are_those_of_mpnet() -> None:
    """By the paper's rule: 0 to 7 have their own, then a power of 16^(1/8) each: 8, 12, 16, 23, 32, 46, 64, 91."""
    distances = np.array([7, 8, 11, 12, 15, 16, 22, 23, 31, 32, 45, 46, 63, 64, 90, 91, 500])
    buckets = [7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 15]
    assert relative_bucket(-distances, 32).tolist() == buckets
    assert relative_bucket(distances, 32).tolist() == [bucket + 16 for bucket in buckets]


def test_memory_stays_bounded_however_many_texts_there_are() -> None:
    shape = Shape(layers=1, width=32, heads=2, intermediate=128, vocabulary=30, positions=130, types=0)
    network = ReferenceNetwork(make_trunk(shape))
    tokens = pack([ids(*([7] * 128))] * 600)  # 76,800 tokens: their inner states alone would be 39 MB
    tracemalloc.start()
    network.run(tokens)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * reference.TOKENS_PER_BATCH * (128 + 8 * 32) + 4 * 4 * reference.SCORES_PER_BLOCK
