"""The native engine gives what the NumPy reference gives, on every path that this CPU has, in every precision, for every text
alone; it refuses what it cannot run, and trusts no file that it has not verified."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from twinrank.errors import InputError, ModelDamagedError, ModelUnsupportedError
from twinrank.models import native
from twinrank.models.checkpoint import Checkpoint
from twinrank.models.expansion import _PartlySeen
from twinrank.models.native import NativeNetwork
from twinrank.models.reference import ReferenceNetwork
from twinrank.models.trunk import Pooling, Precision, Shape, Trunk
from twinrank.types import Tokens

pytestmark = pytest.mark.skipif(not native.available(), reason="the native engine is not compiled here")

PATHS = native.paths()
PRECISIONS = native.PRECISIONS
POOLINGS: tuple[Pooling, ...] = ("cls", "mean", "max", "weighted_mean", "last")

BERT = Shape(layers=3, width=128, heads=4, intermediate=256, vocabulary=90, positions=140, types=2)
SHAPES = {
    "bert": BERT,
    "roberta": Shape(2, 96, 3, 160, 60, 50, types=1, position_offset=2, norm_epsilon=1e-5),
    "xlm-roberta": Shape(2, 384, 12, 512, 70, 90, types=1, position_offset=2, norm_epsilon=1e-5),
    "distilbert": Shape(2, 64, 4, 128, 60, 40, types=0),
    "mpnet": Shape(2, 96, 6, 128, 60, 290, types=0, position_offset=2, relative_buckets=32),
    "relu": Shape(2, 60, 5, 90, 60, 40, types=2, activation="relu"),
    "gelu_tanh": Shape(1, 312, 12, 1200, 60, 40, types=2, activation="gelu_tanh"),
    "odd": Shape(2, 21, 3, 35, 60, 40, types=3),
    "one head": Shape(1, 72, 1, 40, 60, 40, types=0),
}


def random_trunk(shape: Shape, seed: int = 0, family: str = "bert") -> Trunk:
    """Weights drawn so that attention is neither flat nor one token's alone and every bias matters."""
    random = np.random.default_rng(seed)
    weights = {}
    for name, size in native.native_shape(shape).weights():
        drawn = random.standard_normal(tuple(size))
        if name.endswith("norm.weight"):
            drawn = 1 + 0.1 * drawn
        elif name.endswith(".bias"):
            drawn *= 0.1
        elif name.startswith("layers."):
            drawn *= 1.5 / np.sqrt(size[1])
        weights[name] = drawn.astype(np.float32)
    return Trunk(family, shape, weights)


def random_tokens(shape: Shape, lengths: list[int], seed: int = 0) -> Tokens:
    random = np.random.default_rng(seed)
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    ids = random.integers(0, shape.vocabulary, offsets[-1]).astype(np.int32)
    types = random.integers(0, max(1, shape.types), offsets[-1]).astype(np.int32)
    return Tokens(ids, offsets, types)


def part_of(tokens: Tokens, texts: list[int]) -> Tokens:
    places = np.concatenate([np.arange(tokens.offsets[i], tokens.offsets[i + 1]) for i in texts])
    offsets = np.concatenate([[0], np.cumsum([tokens.lengths[i] for i in texts])]).astype(np.int32)
    assert tokens.types is not None
    return Tokens(tokens.ids[places], offsets, tokens.types[places])


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def assert_close(precision: Precision, came: np.ndarray, expected: np.ndarray) -> None:
    """The stated tolerances, docs/engine.md: they are for random weights, whose errors nothing averages away."""
    assert came.shape == expected.shape
    assert np.isfinite(came).all()
    if precision == "fp32":
        np.testing.assert_allclose(came, expected, rtol=1e-4, atol=5e-5)
    else:
        error = np.linalg.norm(came - expected) / np.linalg.norm(expected)
        assert error < (0.02 if precision == "bf16" else 0.1)


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=PRECISIONS)
def precision(request: pytest.FixtureRequest) -> Precision:
    return request.param  # type: ignore[no-any-return]


# ---- the same numbers as the reference ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHAPES)
def test_every_family_and_shape_gives_what_the_reference_gives(path: str, precision: Precision, name: str) -> None:
    shape = SHAPES[name]
    trunk = random_trunk(shape)
    tokens = random_tokens(shape, [1, 2, 7, 16, 17, shape.max_tokens, 5, 33])
    outputs = NativeNetwork(trunk, precision, path=path).run(tokens, pooling="mean", hidden=True, threads=1)
    expected = ReferenceNetwork(trunk).run(tokens, pooling="mean", hidden=True)
    assert outputs.hidden is not None
    assert expected.hidden is not None
    assert outputs.pooled is not None
    assert expected.pooled is not None
    assert_close(precision, outputs.hidden, expected.hidden)
    assert_close(precision, outputs.pooled, expected.pooled)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_pooling_gives_what_the_reference_gives(path: str, precision: Precision, pooling: Pooling) -> None:
    trunk = random_trunk(BERT)
    tokens = random_tokens(BERT, [3, 1, 20, 139, 12, 12])
    pooled = NativeNetwork(trunk, precision, path=path).run(tokens, pooling=pooling).pooled
    expected = ReferenceNetwork(trunk).run(tokens, pooling=pooling).pooled
    assert pooled is not None
    assert expected is not None
    assert_close(precision, pooled, expected)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_shapes_give_what_the_reference_gives(data: st.DataObject) -> None:
    heads = data.draw(st.integers(1, 5), label="heads")
    shape = Shape(
        layers=data.draw(st.integers(1, 3), label="layers"),
        width=heads * data.draw(st.integers(1, 40), label="head width"),
        heads=heads,
        intermediate=data.draw(st.integers(1, 150), label="intermediate"),
        vocabulary=data.draw(st.integers(1, 50), label="vocabulary"),
        positions=(offset := data.draw(st.integers(0, 3), label="offset")) + data.draw(st.integers(1, 70), label="tokens"),
        types=data.draw(st.integers(0, 3), label="types"),
        position_offset=offset,
        activation=data.draw(st.sampled_from(["gelu", "gelu_tanh", "relu"]), label="activation"),
        norm_epsilon=1e-5,
        relative_buckets=data.draw(st.sampled_from([0, 0, 8, 32]), label="buckets"),
    )
    lengths = data.draw(st.lists(st.integers(1, shape.max_tokens), max_size=6), label="lengths")
    path = data.draw(st.sampled_from(PATHS), label="path")
    trunk, tokens = random_trunk(shape), random_tokens(shape, lengths)
    # A width below 4 makes norms of one or two numbers, which are signs: there only fp32 can be compared.
    precision: Precision = data.draw(st.sampled_from(["bf16", "fp32"] if shape.width >= 24 else ["fp32"]), label="precision")
    outputs = NativeNetwork(trunk, precision, path=path).run(tokens, pooling=None, hidden=True)
    expected = ReferenceNetwork(trunk).run(tokens, pooling=None, hidden=True)
    assert outputs.hidden is not None
    assert expected.hidden is not None
    if not lengths:
        assert outputs.hidden.shape == (0, shape.width)
    elif shape.width >= 4:
        np.testing.assert_allclose(outputs.hidden, expected.hidden, atol=2e-3 if precision == "fp32" else 0.5)


def test_paths_agree_with_each_other(precision: Precision) -> None:
    trunk = random_trunk(SHAPES["xlm-roberta"])
    tokens = random_tokens(trunk.shape, [4, 9, 30, 88])
    results = [NativeNetwork(trunk, precision, path=path).run(tokens).pooled for path in PATHS]
    for result in results:
        assert result is not None
        worst = cosines(result, results[-1]).min()
        assert worst > {"int8": 0.998, "bf16": 0.9999, "fp32": 0.999999}[precision]


@pytest.mark.data
def test_minilm_in_int8_is_close_to_fp32_on_real_passages(shared_data: Path, minilm_folder: Path, path: str) -> None:
    import json

    checkpoint = Checkpoint.find(minilm_folder)
    with (shared_data / "scifact" / "corpus.jsonl").open() as stream:
        texts = [json.loads(next(stream))["text"] for _ in range(24)]
    tokens = checkpoint.tokenizer().encode(texts)
    trunk = checkpoint.trunk()
    pooled = NativeNetwork(trunk, "int8", path=path).run(tokens).pooled
    expected = ReferenceNetwork(trunk).run(tokens).pooled
    assert pooled is not None
    assert expected is not None
    assert cosines(pooled, expected).mean() > 0.998
    assert cosines(pooled, expected).min() > 0.99


# ---- a text alone -------------------------------------------------------------------------------------------------------


def test_a_text_does_not_depend_on_neighbours_order_or_threads(path: str, precision: Precision) -> None:
    trunk = random_trunk(BERT)
    lengths = [5, 139, 1, 17, 64, 2, 100, 33, 33, 8, 71, 120, 3]
    tokens = random_tokens(BERT, lengths)
    network = NativeNetwork(trunk, precision, path=path)
    together = network.run(tokens, hidden=True, threads=1)
    assert together.pooled is not None
    assert together.hidden is not None
    for threads in (2, 5):
        again = network.run(tokens, hidden=True, threads=threads)
        assert np.array_equal(again.pooled, together.pooled)  # type: ignore[arg-type]
        assert np.array_equal(again.hidden, together.hidden)  # type: ignore[arg-type]
    order = list(np.random.default_rng(1).permutation(len(lengths)))
    shuffled = network.run(part_of(tokens, order), threads=2).pooled
    assert np.array_equal(shuffled, together.pooled[order])  # type: ignore[arg-type]
    for i in range(len(lengths)):
        alone = network.run(part_of(tokens, [i])).pooled
        assert np.array_equal(alone, together.pooled[i : i + 1])  # type: ignore[arg-type]


@pytest.mark.parametrize("pooling", ["cls", "last"])
def test_one_token_of_the_last_layer_is_the_same_as_all_of_it(path: str, precision: Precision, pooling: Pooling) -> None:
    network = NativeNetwork(random_trunk(SHAPES["mpnet"]), precision, path=path)
    tokens = random_tokens(network.shape, [5, 288, 1, 17, 2, 130])
    short = network.run(tokens, pooling=pooling).pooled
    whole = network.run(tokens, pooling=pooling, hidden=True)
    assert np.array_equal(short, whole.pooled)  # type: ignore[arg-type]
    assert whole.hidden is not None
    places = tokens.offsets[:-1] if pooling == "cls" else tokens.offsets[1:] - 1
    assert np.array_equal(short, whole.hidden[places])  # type: ignore[arg-type]


def test_hundreds_of_texts_in_one_group_give_what_each_gives_alone(precision: Precision) -> None:
    """More texts than rows of a block, so that the last layer's single rows go through in several blocks."""
    network = NativeNetwork(random_trunk(BERT), precision)
    tokens = random_tokens(BERT, [1] * 130 + [2] * 120)
    pooled = network.run(tokens, pooling="cls", threads=1).pooled
    whole = network.run(tokens, pooling="cls", hidden=True, threads=1).pooled
    assert np.array_equal(pooled, whole)  # type: ignore[arg-type]


def test_layers_run_in_parts_give_what_they_give_together(path: str, precision: Precision) -> None:
    network = NativeNetwork(random_trunk(BERT), precision, path=path)
    tokens = random_tokens(BERT, [4, 30, 9])
    first = network.run(tokens, pooling=None, hidden=True, layers=(0, 1)).hidden
    rest = network.run(tokens, hidden=True, layers=(1, 3), start=first)
    whole = network.run(tokens, hidden=True)
    assert np.array_equal(rest.hidden, whole.hidden)  # type: ignore[arg-type]
    assert np.array_equal(rest.pooled, whole.pooled)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["bert", "mpnet"])
def test_tokens_that_none_sees_change_no_other_and_see_what_is_before_them(path: str, precision: Precision, name: str) -> None:
    trunk = random_trunk(SHAPES[name])
    network = NativeNetwork(trunk, precision, path=path)
    tokens, seen = random_tokens(trunk.shape, [20, 33, 1, 7]), np.array([6, 33, 1, 3], np.int32)
    hidden = network.run(tokens, hidden=True, pooling=None, seen=seen).hidden
    assert hidden is not None
    for text, count in enumerate(seen.tolist()):
        start, end = tokens.offsets[text : text + 2].tolist()
        assert tokens.types is not None
        begun = Tokens(tokens.ids[start : start + count], np.array([0, count]), tokens.types[start : start + count])
        alone = network.run(begun, hidden=True, pooling=None)
        assert np.array_equal(hidden[start : start + count], alone.hidden)  # type: ignore[arg-type]
        reference = _PartlySeen(trunk, count).run(part_of(tokens, [text]), hidden=True, pooling=None)
        assert reference.hidden is not None
        if precision == "fp32":
            assert_close(precision, hidden[start:end], reference.hidden)
        else:  # too few numbers to average errors: one by one they are far off, together they are not
            assert cosines(hidden[start:end], reference.hidden).min() > (0.98 if precision == "int8" else 0.999)
    for wrong in (0, 21, -1):
        with pytest.raises(InputError, match="text 0"):
            network.run(tokens, seen=np.array([wrong, 33, 1, 3], np.int32))
    with pytest.raises(InputError, match="one number a text"):
        network.run(tokens, seen=np.array([1], np.int32))


def test_no_layers_give_the_embeddings() -> None:
    trunk = random_trunk(BERT)
    tokens = random_tokens(BERT, [3, 5])
    came = NativeNetwork(trunk, "fp32").run(tokens, hidden=True, layers=(0, 0)).hidden
    expected = ReferenceNetwork(trunk).run(tokens, hidden=True, layers=(0, 0)).hidden
    np.testing.assert_allclose(came, expected, atol=1e-5)  # type: ignore[arg-type]


def test_token_types_default_to_zero() -> None:
    network = NativeNetwork(random_trunk(BERT))
    tokens = random_tokens(BERT, [6])
    plain = network.run(Tokens(tokens.ids, tokens.offsets)).pooled
    zeros = network.run(Tokens(tokens.ids, tokens.offsets, np.zeros(6, np.int32))).pooled
    ones = network.run(Tokens(tokens.ids, tokens.offsets, np.ones(6, np.int32))).pooled
    assert np.array_equal(plain, zeros)  # type: ignore[arg-type]
    assert not np.array_equal(plain, ones)  # type: ignore[arg-type]


def test_python_threads_may_run_one_network_at_once(precision: Precision) -> None:
    network = NativeNetwork(random_trunk(BERT), precision)
    batches = [random_tokens(BERT, [30, 2, 139, 60], seed) for seed in range(6)]
    alone = [network.run(batch).pooled for batch in batches]
    came: list[list[np.ndarray | None]] = [[] for _ in batches]

    def work(i: int) -> None:
        came[i].extend(network.run(batches[i], threads=2).pooled for _ in range(5))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, results in enumerate(came):
        assert len(results) == 5
        assert all(np.array_equal(result, alone[i]) for result in results)  # type: ignore[arg-type]


def test_other_python_threads_go_on_while_it_runs() -> None:
    network = NativeNetwork(random_trunk(BERT))
    tokens = random_tokens(BERT, [139] * 1500)
    spans: list[float] = []

    def work() -> None:
        begin = time.perf_counter()
        network.run(tokens, threads=1)
        spans.append(time.perf_counter() - begin)

    thread = threading.Thread(target=work)
    longest, before = 0.0, time.perf_counter()
    thread.start()
    while thread.is_alive():
        time.sleep(0.001)
        now = time.perf_counter()
        longest, before = max(longest, now - before), now
    assert longest < 0.6 * spans[0]


# ---- what is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ids", "offsets", "types", "said"),
    [
        ([1, 90], [0, 2], None, "id 90"),
        ([1, -1], [0, 2], None, "id -1"),
        ([1, 2], [0, 0, 2], None, "text 0 has 0 tokens"),
        ([1, 2], [0, 2, 1, 2], None, "text 1 has -1 tokens"),
        ([1, 2], [0, 3], None, "not from 0 to the number of tokens"),
        ([1, 2], [1, 2], None, "not from 0 to the number of tokens"),
        ([1, 2], [], None, "at least one number"),
        ([1] * 141, [0, 141], None, "at most 140"),
        ([1, 2], [0, 2], [0, 2], "type 2"),
        ([1, 2], [0, 2], [0, -1], "type -1"),
        ([1, 2], [0, 2], [0], "as many as ids"),
    ],
)
def test_tokens_that_cannot_be_run_are_refused(ids: list[int], offsets: list[int], types: list[int] | None, said: str) -> None:
    network = NativeNetwork(random_trunk(BERT))
    numbers = None if types is None else np.array(types, np.int32)
    with pytest.raises(InputError, match=f"(?i){said}"):
        network.run(Tokens(np.array(ids, np.int32), np.array(offsets, np.int32), numbers))


def test_ids_that_are_no_whole_numbers_are_refused() -> None:
    network = NativeNetwork(random_trunk(BERT))
    with pytest.raises(InputError, match="whole numbers"):
        network.run(Tokens(np.array([0.5]), np.array([0, 1], np.int32)))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="32 bits"):
        network.run(Tokens(np.array([2**40]), np.array([0, 1], np.int32)))  # type: ignore[arg-type]


@pytest.mark.parametrize("layers", [(0, 4), (2, 1), (1, 3), (-1, 2)])
def test_layers_that_are_not_there_are_refused(layers: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=r"(?i)layer"):
        NativeNetwork(random_trunk(BERT)).run(random_tokens(BERT, [3]), layers=layers)


def test_a_start_of_the_wrong_shape_is_refused() -> None:
    with pytest.raises(InputError, match=r"(?i)start"):
        NativeNetwork(random_trunk(BERT)).run(random_tokens(BERT, [3]), layers=(1, 2), start=np.zeros((2, 128), np.float32))


def test_an_unknown_pooling_is_refused() -> None:
    with pytest.raises(InputError, match="sum"):
        NativeNetwork(random_trunk(BERT)).run(random_tokens(BERT, [3]), pooling="sum")  # type: ignore[arg-type]


def test_no_texts_give_no_vectors() -> None:
    outputs = NativeNetwork(random_trunk(BERT)).run(random_tokens(BERT, []), hidden=True)
    assert outputs.pooled is not None
    assert outputs.hidden is not None
    assert outputs.pooled.shape == (0, 128)
    assert outputs.hidden.shape == (0, 128)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["embeddings.word", "layers.1.output.weight", "layers.2.query.bias"])
def test_weights_that_are_no_numbers_are_refused(name: str, value: float) -> None:
    trunk = random_trunk(BERT)
    trunk.weights[name].flat[7] = value
    with pytest.raises(ModelDamagedError, match=name):
        NativeNetwork(trunk)


def test_weights_of_the_wrong_shape_are_refused() -> None:
    trunk = random_trunk(BERT)
    weights = {**trunk.weights, "layers.0.key.weight": np.zeros((128, 64), np.float32)}
    with pytest.raises(ModelDamagedError, match=r"layers\.0\.key\.weight.*\(128, 128\) was expected"):
        NativeNetwork(Trunk("bert", BERT, weights))
    del weights["layers.0.key.weight"]
    with pytest.raises(ModelDamagedError, match=r"no weight 'layers\.0\.key\.weight'"):
        NativeNetwork(Trunk("bert", BERT, weights))


@pytest.mark.parametrize("wrong", [{"heads": 3}, {"heads": 0}, {"width": 0}, {"position_offset": 140}, {"relative_buckets": 3}])
def test_shapes_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    from dataclasses import replace

    with pytest.raises(ModelUnsupportedError, match=next(iter(wrong))):
        NativeNetwork(Trunk("bert", replace(BERT, **wrong), random_trunk(BERT).weights))  # type: ignore[arg-type]


def test_a_path_that_this_cpu_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    trunk = random_trunk(BERT)
    with pytest.raises(InputError, match=r"no path 'neon'; it has .*portable"):
        NativeNetwork(trunk, path="neon")
    monkeypatch.setenv("TWINRANK_ENGINE", "neon")
    with pytest.raises(InputError, match="no path 'neon'"):
        NativeNetwork(trunk)


def test_unknown_precisions_and_thread_counts_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    trunk = random_trunk(BERT)
    with pytest.raises(InputError, match="int4"):
        NativeNetwork(trunk, "int4")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="threads"):
        NativeNetwork(trunk, threads=0)
    network = NativeNetwork(trunk)
    for wrong in ("0", "-1", "many"):
        monkeypatch.setenv("TWINRANK_THREADS", wrong)
        with pytest.raises(InputError, match="TWINRANK_THREADS"):
            network.run(random_tokens(BERT, [3]))


def test_the_environment_chooses_path_and_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWINRANK_ENGINE", "portable")
    assert NativeNetwork(random_trunk(BERT)).path == "portable"
    assert NativeNetwork(random_trunk(BERT), path=PATHS[0]).path == PATHS[0]
    monkeypatch.setenv("TWINRANK_THREADS", "3")
    assert native.default_threads() == 3


# ---- the cache ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "twinrank" / "engine"


def test_the_second_start_reads_the_cache_and_gives_the_same_bits(cache: Path, precision: Precision) -> None:
    trunk, tokens = random_trunk(SHAPES["mpnet"]), random_tokens(SHAPES["mpnet"], [5, 60, 2])
    assert NativeNetwork.cached(trunk.shape, "key", precision) is None
    first = NativeNetwork.open(trunk, precision=precision, cache_key="key").run(tokens).pooled
    again = NativeNetwork.cached(trunk.shape, "key", precision)
    assert again is not None
    assert np.array_equal(again.run(tokens).pooled, first)  # type: ignore[arg-type]
    assert len(list(cache.iterdir())) == 1


def test_keys_precisions_and_shapes_have_their_own_files(cache: Path) -> None:
    from dataclasses import replace

    NativeNetwork.open(random_trunk(BERT), cache_key="key")
    assert NativeNetwork.cached(BERT, "key", "int8") is not None
    assert NativeNetwork.cached(BERT, "other", "int8") is None
    assert NativeNetwork.cached(BERT, "key", "bf16") is None
    assert NativeNetwork.cached(replace(BERT, layers=2), "key", "int8") is None
    assert NativeNetwork.cached(replace(BERT, activation="relu"), "key", "int8") is None


def test_a_file_renamed_to_another_key_is_not_taken(cache: Path) -> None:
    NativeNetwork.open(random_trunk(BERT), cache_key="key")
    native.cache_file("key", "int8").rename(native.cache_file("other", "int8"))
    assert NativeNetwork.cached(BERT, "other") is None


@pytest.mark.parametrize("place", [0, 9, 60, 100, 120, 4096, -1])
def test_a_flipped_bit_is_noticed_and_the_file_is_made_anew(cache: Path, place: int) -> None:
    trunk, tokens = random_trunk(BERT), random_tokens(BERT, [5, 60, 2])
    expected = NativeNetwork.open(trunk, cache_key="key").run(tokens).pooled
    file = native.cache_file("key", "int8")
    content = bytearray(file.read_bytes())
    content[place] ^= 4
    file.write_bytes(content)
    assert NativeNetwork.cached(BERT, "key") is None
    assert np.array_equal(NativeNetwork.open(trunk, cache_key="key").run(tokens).pooled, expected)  # type: ignore[arg-type]
    assert NativeNetwork.cached(BERT, "key") is not None


@pytest.mark.parametrize("length", [0, 1, 4095, 4096, 5000, "one less", "one more"])
def test_a_torn_file_is_noticed(cache: Path, length: int | str) -> None:
    NativeNetwork.open(random_trunk(BERT), cache_key="key")
    file = native.cache_file("key", "int8")
    content = file.read_bytes()
    size = {"one less": len(content) - 1, "one more": len(content) + 1}.get(str(length), length)
    file.write_bytes((content + b"\0")[: int(size)])
    assert NativeNetwork.cached(BERT, "key") is None


def test_a_folder_in_the_files_place_is_no_error(cache: Path) -> None:
    native.cache_file("key", "int8").mkdir(parents=True)
    network = NativeNetwork.open(random_trunk(BERT), cache_key="key")
    assert network.run(random_tokens(BERT, [3])).pooled is not None
    assert [entry.name for entry in cache.iterdir()] == [native.cache_file("key", "int8").name]  # no temporary file is left


def test_a_cache_folder_that_cannot_be_made_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    network = NativeNetwork.open(random_trunk(BERT), cache_key="key")
    assert network.run(random_tokens(BERT, [3])).pooled is not None
    assert network.keep("key") is False


def test_writers_at_once_leave_one_whole_file(cache: Path) -> None:
    trunk = random_trunk(BERT)
    threads = [threading.Thread(target=lambda: NativeNetwork(trunk).keep("key")) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert NativeNetwork.cached(BERT, "key") is not None
    assert len(list(cache.iterdir())) == 1


def test_a_network_outlives_its_file(cache: Path) -> None:
    trunk, tokens = random_trunk(BERT), random_tokens(BERT, [5, 60, 2])
    expected = NativeNetwork.open(trunk, cache_key="key").run(tokens).pooled
    warm = NativeNetwork.cached(BERT, "key")
    native.cache_file("key", "int8").unlink()
    assert warm is not None
    assert np.array_equal(warm.run(tokens).pooled, expected)  # type: ignore[arg-type]


def test_the_checksum_is_crc32c() -> None:
    assert native._engine is not None
    assert native._engine.crc32c(b"123456789") == 0xE3069283  # the check value of the Castagnoli polynomial
    assert native._engine.crc32c(b"\x00" * 32) == 0x8A9136AA  # RFC 3720, B.4


def test_a_warm_start_of_minilm_is_short(cache: Path, minilm_folder: Path) -> None:
    checkpoint = Checkpoint.find(minilm_folder)
    NativeNetwork.open(checkpoint.trunk(), cache_key="minilm")
    spans = []
    for _ in range(5):
        begin = time.perf_counter()
        assert NativeNetwork.cached(checkpoint.shape, "minilm") is not None
        spans.append(time.perf_counter() - begin)
    assert min(spans) < 0.1


# ---- the process --------------------------------------------------------------------------------------------------------

MEMORY = """
import resource, sys
import numpy as np
from twinrank.models.native import NativeNetwork
from twinrank.models.trunk import Shape
from twinrank.types import Tokens
network = NativeNetwork.cached(Shape(6, 384, 12, 1536, 2000, 512, 2), "memory")
assert network is not None
def run(lengths):
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    network.run(Tokens(np.ones(offsets[-1], np.int32), offsets), threads=2)
run([3])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run([12] * 550 + [512] + [300] * 60 + [1] * 2000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_stays_under_the_stated_bound(cache: Path) -> None:
    shape = Shape(6, 384, 12, 1536, 2000, 512, 2)
    NativeNetwork.open(random_trunk(shape), cache_key="memory")
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True, env={**os.environ})
    tokens = 512  # the longest text, for it is longer than a group
    bound = 2 * (20 * 384 * tokens + 96 * (8 * 384 + 5 * 1536) + 500_000)  # docs/engine.md, two threads
    results = 2611 * 384 * 4
    assert int(done.stdout) * 1024 < bound + results + 4_000_000  # the allocator's own, stacks, the inputs


def test_it_lives_in_one_process_with_torch_and_faiss() -> None:
    program = "import torch, faiss, twinrank._engine as e; torch.ones(99, 99) @ torch.ones(99, 99); print(e.paths()[-1])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    if "ModuleNotFoundError" in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "portable"


def test_it_brings_no_openmp_runtime() -> None:
    assert native._engine is not None
    assert native._engine.__file__ is not None
    content = Path(native._engine.__file__).read_bytes()
    assert b"libgomp" not in content
    assert b"libomp" not in content


def test_the_roof_is_above_what_a_network_reaches() -> None:
    roof = native.roof(PATHS[0], "int8", 0.05)
    assert roof > 1e9
    assert native.roof("portable", "fp32", 0.02) < roof
