"""The token index finds what brute force finds, survives change and damage, and says what it misses where it is not exact."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from twinrank.errors import IndexDamagedError, InputError
from twinrank.index.encodings import FixedEncoder
from twinrank.index.multivectors import CANDIDATES, MultiVectorIndex
from twinrank.maxsim import maxsim
from twinrank.quantization import PackedTokens, TokenCodec, TokenFormat
from twinrank.types import Keys, Ranking

CODEC = TokenCodec("int8", 16)


def unit(tokens: int, seed: int, dimension: int = 16) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(tokens, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def passage(key: int) -> np.ndarray:
    """The tokens of a passage, by its key alone."""
    return unit(1 + key % 7, key)


def pack(vectors: list[np.ndarray], codec: TokenCodec = CODEC) -> PackedTokens:
    return codec.unpack([codec.encode(one) for one in vectors])


def batches(keys: list[int], size: int = 5) -> Iterator[tuple[Keys, PackedTokens]]:
    for start in range(0, len(keys), size):
        part = keys[start : start + size]
        yield np.array(part), pack([passage(key) for key in part])


def build(path: Path, keys: list[int], **options: int) -> MultiVectorIndex:
    return MultiVectorIndex.build(path / "tokens.index", CODEC, batches(keys), 3, stamp="f1", **options)


def brute_force(query: np.ndarray, tokens: dict[int, np.ndarray], k: int) -> Ranking:
    """Over what the format keeps of the passages."""
    kept = [CODEC.decode(CODEC.encode(vectors)) for vectors in tokens.values()]
    return Ranking.of(list(tokens), maxsim(query, kept), k)


def assert_same(found: Ranking, expected: Ranking) -> None:
    assert found.keys.tolist() == expected.keys.tolist()
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)


# Against brute force


@given(
    st.lists(st.integers(0, 60), unique=True, max_size=30),
    st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 60), min_size=1, max_size=8, unique=True)), max_size=5),
    st.integers(1, 8),
    st.integers(0, 1000),
    st.booleans(),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_added_and_removed_it_finds_what_brute_force_finds(
    tmp_path: Path, start: list[int], steps: list[tuple[bool, list[int]]], k: int, seed: int, saved: bool
) -> None:
    index = build(tmp_path, sorted(start))
    held = {key: passage(key) for key in start}
    for number, (adds, keys) in enumerate(steps):
        if adds:
            fresh = {key: unit(1 + key % 4, 1000 * number + key) for key in keys}
            index.add(list(fresh), pack(list(fresh.values())))
            held |= fresh
        else:
            index.remove(keys)
            held = {key: vectors for key, vectors in held.items() if key not in keys}
    if saved:
        assert index.save(9, force=True)
        assert index.verify() == []
        index = MultiVectorIndex.open(index.path, stamp="f1")
    query = unit(3, seed)
    assert (len(index), index.keys.tolist()) == (len(held), sorted(held))
    assert_same(index.search(query, k), brute_force(query, held, k))
    asked = list(range(0, 61, 2))
    some = {key: vectors for key, vectors in held.items() if key in asked}
    assert_same(index.score(query, asked), brute_force(query, some, 99))
    assert_same(index.search(query, k, np.array(asked)), brute_force(query, some, k))


@pytest.mark.parametrize("format", ["int8", "int4"])
def test_the_score_is_maxsim_over_what_is_stored(tmp_path: Path, format: TokenFormat) -> None:
    codec = TokenCodec(format, 16)
    stored = pack([passage(key) for key in range(40)], codec)
    index = MultiVectorIndex.build(tmp_path / "i", codec, [(np.arange(40), stored)], 1)
    query = unit(5, 99)
    expected = maxsim(query, [codec.restore(one.codes, one.scales) for one in stored])
    found = index.score(query, np.arange(40))
    np.testing.assert_allclose(found.scores, expected[found.keys], atol=1e-4)


# Candidates by their encodings


def topics(count: int, tokens: int, seed: int) -> list[np.ndarray]:
    """Passages as encoders give them: their tokens lie about a direction of their own."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        vectors = random.normal(size=48) + 0.8 * random.normal(size=(tokens, 48))
        found.append((vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32))
    return found


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[MultiVectorIndex, list[np.ndarray]]:
    """An index large enough for encodings, and queries made of the passages' tokens with noise."""
    codec, passages = TokenCodec("int8", 48), topics(3000, 20, 0)
    batch = (np.arange(3000), pack(passages, codec))
    index = MultiVectorIndex.build(tmp_path_factory.mktemp("large") / "i", codec, [batch], 1, exact_tokens=10_000)
    random = np.random.default_rng(1)
    queries = []
    for place in random.integers(0, 3000, 40):
        query = passages[place][random.integers(0, 20, 6)] + 0.1 * random.normal(size=(6, 48))
        queries.append((query / np.linalg.norm(query, axis=1, keepdims=True)).astype(np.float32))
    return index, queries


def test_candidates_by_encodings_miss_little(large: tuple[MultiVectorIndex, list[np.ndarray]]) -> None:
    index, queries = large
    assert not index.exact
    shares = []
    for query in queries:
        found, true = index.search(query, 10), index.search(query, 10, exact=True)
        shares.append(np.isin(true.keys, found.keys).mean())
        both = dict(iter(true))
        for key, score in found:
            assert key not in both or score == pytest.approx(both[key], abs=1e-5)
    assert np.mean(shares) > 0.9


def test_a_filter_holds_with_encodings_too(large: tuple[MultiVectorIndex, list[np.ndarray]]) -> None:
    index, queries = large
    few, many = np.arange(0, 3000, 100), np.arange(0, 3000, 2)
    assert len(few) < CANDIDATES < len(many)
    for query in queries[:5]:
        assert_same(index.search(query, 5, few), index.score(query, few).top(5))
        found = index.search(query, 5, many)
        assert set(found.keys) <= set(many)
        assert found.scores[0] == pytest.approx(index.score(query, many).scores[0])


def test_what_was_added_and_removed_counts_with_encodings_too(tmp_path: Path) -> None:
    index = build(tmp_path, list(range(300)), exact_tokens=100)
    assert not index.exact
    query = passage(1000)
    index.add([1000], pack([query]))
    assert index.search(query, 1).keys.tolist() == [1000]
    assert index.search(query, 1, np.array([1000, *range(250)])).keys.tolist() == [1000]
    index.remove([1000])
    best = index.search(query, 1).keys
    index.remove(best)
    assert index.search(query, 1).keys != best
    index.add([1000], pack([query]))
    index.save(9, force=True, exact_tokens=100)
    assert index.search(query, 1).keys.tolist() == [1000]
    assert index.verify() == []


def test_an_encoding_comes_near_to_maxsim() -> None:
    """Below it, since a bucket holds the mean of a passage's tokens there, not the best one."""
    encoder, passages = FixedEncoder(48), topics(200, 20, 3)
    encodings = encoder.encode_passages(np.concatenate(passages), np.arange(0, 4001, 20))
    assert encodings.shape == (200, encoder.size)
    for place in range(0, 200, 10):
        query = passages[place][::3]
        near, true = encodings @ encoder.encode_query(query), maxsim(query, passages)
        assert near.argmax() == true.argmax() == place
        assert near[place] == pytest.approx(true[place], rel=0.5)


def test_an_encoding_does_not_depend_on_the_passage_s_neighbours() -> None:
    encoder = FixedEncoder(16, repetitions=3, planes=2, projected=4)
    together = encoder.encode_passages(np.concatenate([passage(3), passage(11), passage(6)]), np.array([0, 4, 9, 16]))
    alone = encoder.encode_passages(passage(11), np.array([0, 5]))
    np.testing.assert_allclose(together[1], alone[0], atol=1e-6)


def test_one_token_fills_every_bucket_of_its_passage() -> None:
    encoder = FixedEncoder(16, repetitions=2, planes=2, projected=4)
    encoding = encoder.encode_passages(passage(7), np.array([0, 1])).reshape(2, 4, 4)
    np.testing.assert_allclose(encoding, np.repeat(encoding[:, :1], 4, axis=1))
    assert encoding.any()


# Small cases, and what is refused


def test_an_empty_index_finds_nothing(tmp_path: Path) -> None:
    index = build(tmp_path, [])
    assert len(index.search(unit(2, 0), 5)) == len(index.score(unit(2, 0), [1, 2])) == len(index) == 0
    index.add([4], pack([passage(4)]))
    assert index.search(unit(2, 0), 5).keys.tolist() == [4]


def test_nothing_asked_finds_nothing(tmp_path: Path) -> None:
    index = build(tmp_path, [1, 2])
    assert len(index.search(unit(2, 0), 0)) == 0
    assert len(index.search(unit(2, 0), 3, np.empty(0, np.int64))) == 0
    assert len(index.search(np.empty((0, 16), np.float32), 3)) == 0


def test_of_a_key_given_twice_the_last_counts(tmp_path: Path) -> None:
    index = build(tmp_path, [])
    index.add([4, 4], pack([passage(1), passage(2)]))
    assert len(index) == 1
    assert index.score(passage(2), [4]).scores[0] == pytest.approx(len(passage(2)), rel=1e-2)


@pytest.mark.parametrize("query", [np.ones((2, 15)), np.ones(16), np.full((1, 16), np.nan)])
def test_a_query_that_does_not_fit_is_refused(tmp_path: Path, query: np.ndarray) -> None:
    with pytest.raises(InputError, match="query"):
        build(tmp_path, [1]).search(query, 1)


def test_tokens_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    index = build(tmp_path, [1])
    with pytest.raises(InputError, match="2 keys came with the tokens of 1 passages"):
        index.add([1, 2], pack([passage(1)]))
    with pytest.raises(InputError, match="the index holds int8 of 16 dimensions"):
        index.add([1], pack([passage(1)], TokenCodec("int4", 16)))
    with pytest.raises(InputError, match="passage 8 has no tokens"):
        index.add([8], PackedTokens(np.empty((0, 16), np.int8), np.empty(0, np.float32), np.array([0, 0])))
    with pytest.raises(InputError, match="zero, or holds NaN"):
        index.add([8], CODEC.quantize(np.zeros((1, 16))))
    with pytest.raises(InputError, match="ascending"):
        build(tmp_path, [2, 1])
    assert index.keys.tolist() == [1]


# The file


def test_the_file_is_written_when_enough_has_changed(tmp_path: Path) -> None:
    index = build(tmp_path, list(range(10)))
    index.add([20], pack([passage(20)]))
    assert not index.save(5)
    assert (index.sequence, index.saved_sequence) == (5, 3)
    assert MultiVectorIndex.open(index.path, stamp="f1").sequence == 3
    index.remove(list(range(10)))
    assert index.save(6, force=True)
    again = MultiVectorIndex.open(index.path, stamp="f1")
    assert (again.sequence, again.keys.tolist()) == (6, [20])


def test_another_stamp_says_that_the_index_is_stale(tmp_path: Path) -> None:
    build(tmp_path, [1])
    with pytest.raises(IndexDamagedError, match="'f1', not 'f2'"):
        MultiVectorIndex.open(tmp_path / "tokens.index", stamp="f2")


def test_a_missing_file_is_no_index(tmp_path: Path) -> None:
    with pytest.raises(IndexDamagedError, match="no index"):
        MultiVectorIndex.open(tmp_path / "nothing")


@pytest.mark.parametrize("exact_tokens", [10, 10_000])
def test_any_flipped_bit_is_found(tmp_path: Path, exact_tokens: int) -> None:
    path = build(tmp_path, list(range(30)), exact_tokens=exact_tokens).path
    whole = path.read_bytes()
    for place in [3, 40, 2000, 4096, 4500, len(whole) // 2, len(whole) - 200, len(whole) - 1]:
        damaged = bytearray(whole)
        damaged[place] ^= 16
        path.write_bytes(damaged)
        try:
            problems = MultiVectorIndex.open(path, stamp="f1").verify()
        except IndexDamagedError:
            problems = ["refused"]
        assert problems, place
    path.write_bytes(whole)
    assert MultiVectorIndex.open(path, stamp="f1").verify() == []


@pytest.mark.parametrize("size", [0, 10, 4096, 5000])
def test_a_torn_file_is_refused(tmp_path: Path, size: int) -> None:
    path = build(tmp_path, list(range(30))).path
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(IndexDamagedError):
        MultiVectorIndex.open(path, stamp="f1")


def test_a_build_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    index = build(tmp_path, [1, 2])
    with pytest.raises(InputError, match="ascending"):
        MultiVectorIndex.build(index.path, CODEC, batches([5, 4]), 9, stamp="f1")
    assert MultiVectorIndex.open(index.path, stamp="f1").keys.tolist() == [1, 2]
    assert [file.name for file in tmp_path.iterdir()] == ["tokens.index"]


def test_threads_search_while_another_changes_it(tmp_path: Path) -> None:
    index = build(tmp_path, list(range(50)))
    done = threading.Event()
    problems: list[BaseException] = []

    def search() -> None:
        try:
            while not done.is_set():
                found = index.search(passage(7), 60)
                assert len(set(found.keys.tolist())) == len(found) >= 50
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(30):
        index.add([50 + number % 5], pack([passage(number)]))
        index.save(number + 4, force=number % 7 == 0)
    done.set()
    for thread in threads:
        thread.join()
    assert problems == []
