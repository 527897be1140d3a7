"""The word index scores as the BM25 formula says, takes updates and deletes, and notices when it is damaged."""

from __future__ import annotations

import math
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from twinrank.errors import CollectionBusyError, IndexDamagedError, InputError
from twinrank.index.words import WordIndex
from twinrank.index.wordtail import K1, B
from twinrank.types import Ranking

TEXTS = ["zinc shortens a cold", "a cold wind", "zinc zinc zinc", "the wind of the north and the cold of the south", "iron"]


@pytest.fixture
def index(tmp_path: Path) -> Iterator[WordIndex]:
    opened = WordIndex.create(tmp_path / "words", stamp="english")
    opened.add([1, 2, 3, 4, 5], [text.split() for text in TEXTS])
    opened.commit(7)
    yield opened
    opened.close()


def as_dict(ranking: Ranking) -> dict[int, float]:
    return dict(list(ranking))  # dict(ranking) would take `keys` for a method


def formula(texts: list[list[str]], query: list[str]) -> np.ndarray:
    """BM25 by the book, in float64."""
    count = len(texts)
    average = sum(map(len, texts)) / count
    scores = np.zeros(count)
    for term in query:
        holding = sum(term in text for text in texts)
        idf = math.log(1 + (count - holding + 0.5) / (holding + 0.5))
        for i, text in enumerate(texts):
            times = text.count(term)
            scores[i] += idf * times * (K1 + 1) / (times + K1 * (1 - B + B * len(text) / average))
    return scores


def test_a_score_worked_out_by_hand(index: WordIndex) -> None:
    # 5 passages of 4, 3, 3, 11 and 1 terms: 4.4 on average; "iron" stands once, in passage 5, of length 1:
    # ln(1 + 4.5 / 1.5) = 1.3863;  2.2 / (1 + 1.2 · (0.25 + 0.75 · 1 / 4.4)) = 1.4622
    ranking = index.search(["iron"], 3)
    assert ranking.keys.tolist() == [5]
    assert ranking.scores[0] == pytest.approx(1.3863 * 1.4622, abs=2e-4)


@pytest.mark.parametrize("query", ["zinc", "cold", "zinc cold", "zinc zinc cold", "the wind of", "south unknown"])
def test_scores_are_the_formula_s(index: WordIndex, query: str) -> None:
    expected = formula([text.split() for text in TEXTS], query.split())
    ranking = index.search(query.split(), 5)
    assert as_dict(ranking) == pytest.approx({i + 1: score for i, score in enumerate(expected) if score > 0}, rel=1e-5)
    assert ranking.scores.tolist() == sorted(ranking.scores.tolist(), reverse=True)


def test_in_long_passages_scores_leave_the_formula_by_the_stated_few_per_cent(tmp_path: Path) -> None:
    chance = random.Random(3)
    texts = [[f"w{int(chance.expovariate(0.1))}" for _ in range(chance.randint(1, 400))] for _ in range(300)]
    index = WordIndex.create(tmp_path / "words")
    index.add(range(300), texts)
    index.commit(1)
    for query in (["w3"], ["w10", "w25"], ["w40", "w0"]):
        expected = formula(texts, query)
        for key, score in index.search(query, 300):
            low = 0.9999 if len(texts[key]) <= 40 else 0.995
            high = 1.0001 if len(texts[key]) <= 40 else 1.09
            assert low * expected[key] <= score <= high * expected[key]
    index.close()


def test_a_weight_multiplies_a_term(index: WordIndex) -> None:
    plain = as_dict(index.search(["zinc"], 5))
    assert as_dict(index.search(["zinc"], 5, weights={"zinc": 0.5})) == pytest.approx({k: s / 2 for k, s in plain.items()})


def test_what_the_terms_add_sums_up_to_the_score(index: WordIndex) -> None:
    scores = as_dict(index.search(["zinc", "cold", "iron", "cold"], 5))
    parts = index.explain(["zinc", "cold", "iron", "cold"], 1)
    assert {term for term, _ in parts} == {"zinc", "cold"}
    assert sum(weight for _, weight in parts) == pytest.approx(scores[1], rel=1e-6)
    assert index.explain(["zinc"], 99) == []


@pytest.mark.parametrize("term", ["naïve", "中文", "c++", "AND", "key:1", "a-b", '"quoted"', "*", "🦓", "x" * 5000])
def test_terms_are_taken_as_they_are(tmp_path: Path, term: str) -> None:
    index = WordIndex.create(tmp_path / "words")
    index.add([1, 2], [[term, "other"], ["other"]])
    index.commit(1)
    assert index.search([term], 5).keys.tolist() == [1]
    index.close()


def test_an_empty_query_an_empty_index_and_a_k_of_zero_find_nothing(index: WordIndex, tmp_path: Path) -> None:
    empty = WordIndex.create(tmp_path / "empty")
    assert len(empty.search(["zinc"], 5)) == len(index.search([], 5)) == len(index.search(["zinc"], 0)) == 0
    assert len(index.search(["zinc"], 10**9)) == 2


# Changes


def test_a_removed_passage_is_never_found(index: WordIndex) -> None:
    index.remove([3, 99])
    index.commit(8)
    assert index.search(["zinc"], 5).keys.tolist() == [1]
    assert len(index) == 4


def test_a_replaced_passage_is_found_by_its_new_words_only_and_once(index: WordIndex) -> None:
    index.add([3], [["copper"]])
    index.add([3], [["silver"]])
    index.commit(8)
    assert index.search(["zinc"], 5).keys.tolist() == [1]
    assert index.search(["copper"], 5).keys.tolist() == []
    assert index.search(["silver"], 5).keys.tolist() == [3]
    assert len(index) == 5


def test_catching_up_twice_is_the_same_as_once(index: WordIndex) -> None:
    for _ in range(2):
        index.remove([2])
        index.add([6], [["lead"]])
        index.commit(9)
    assert (len(index), index.search(["lead"], 5).keys.tolist()) == (5, [6])


def test_what_is_not_committed_is_neither_searched_nor_kept(index: WordIndex) -> None:
    index.add([6], [["lead"]])
    index.remove([1])
    assert len(index.search(["lead"], 5)) == 0
    index.rollback()
    index.commit(8)
    assert len(index) == 5
    assert len(index.search(["lead"], 5)) == 0


def test_keys_and_terms_of_different_length_are_refused(index: WordIndex) -> None:
    with pytest.raises(InputError, match="2 keys came with the terms of 1 passages"):
        index.add([1, 2], [["x"]])


def test_any_history_gives_what_a_fresh_index_gives(tmp_path: Path) -> None:
    chance = random.Random(1)
    index = WordIndex.create(tmp_path / "words")
    kept: dict[int, list[str]] = {}
    for step in range(30):
        for _ in range(chance.randint(0, 8)):
            key = chance.randint(1, 40)
            if chance.random() < 0.3:
                index.remove([key])
                kept.pop(key, None)
            else:
                kept[key] = [f"w{chance.randint(0, 9)}" for _ in range(chance.randint(0, 6))]
                index.add([key], [kept[key]])
        index.commit(step)
        assert len(index) == len(kept)
        for term in ("w0", "w5"):
            assert set(index.search([term], 99).keys.tolist()) == {key for key, words in kept.items() if term in words}
    assert index.verify() == []
    index.close()


# Ties and filters


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[WordIndex, list[list[str]]]]:
    chance = random.Random(5)
    texts = [[f"w{int(chance.expovariate(0.05))}" for _ in range(chance.randint(1, 12))] for _ in range(3000)]
    index = WordIndex.create(tmp_path_factory.mktemp("large") / "words")
    for start in range(0, 3000, 1000):  # several segments
        index.add(range(start, start + 1000), texts[start : start + 1000])
        index.commit(start)
    yield index, texts
    index.close()


def test_equal_scores_stand_with_the_larger_key_first_at_every_k(tmp_path: Path) -> None:
    index = WordIndex.create(tmp_path / "words")
    order = random.Random(2).sample(range(1, 501), 500)
    index.add(order, [["same"]] * 500)
    index.commit(1)
    for k in (1, 3, 100, 499):
        assert index.search(["same"], k).keys.tolist() == list(range(500, 500 - k, -1))
    index.close()


@pytest.mark.parametrize("share", [0.0, 0.0005, 0.01, 0.03, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("k", [1, 10, 500])
def test_a_filter_gives_the_best_of_exactly_what_it_allows(
    large: tuple[WordIndex, list[list[str]]], share: float, k: int
) -> None:
    index, _ = large
    chance = np.random.default_rng(int(share * 1e4) + k)
    allowed = chance.permutation(np.append(chance.choice(3000, size=int(share * 3000), replace=False), [10**7] * 2))
    for query in (["w1"], ["w2", "w30"], ["w80"]):
        everything = index.search(query, 3000)
        mask = np.isin(everything.keys, allowed)
        found = index.search(query, k, allowed)
        assert found.keys.tolist() == everything.keys[mask][:k].tolist()
        np.testing.assert_allclose(found.scores, everything.scores[mask][:k], rtol=1e-6)


def test_an_empty_filter_finds_nothing(index: WordIndex) -> None:
    assert len(index.search(["zinc"], 5, np.empty(0, np.int64))) == 0


# On disk


def test_it_is_opened_as_it_was_committed(index: WordIndex) -> None:
    again = WordIndex.open(index.folder, stamp="english")
    assert (again.sequence, len(again)) == (7, 5)
    assert as_dict(again.search(["zinc"], 5)) == as_dict(index.search(["zinc"], 5))


def test_another_reader_sees_a_commit_when_it_refreshes(index: WordIndex) -> None:
    reader = WordIndex.open(index.folder, stamp="english")
    index.add([6], [["lead"]])
    index.commit(8)
    assert len(reader.search(["lead"], 5)) == 0
    reader.refresh()
    assert (reader.sequence, reader.search(["lead"], 5).keys.tolist()) == (8, [6])


def test_a_second_writer_gets_a_clear_error_and_its_turn_afterwards(index: WordIndex) -> None:
    other = WordIndex.open(index.folder, stamp="english")
    index.add([6], [["lead"]])
    with pytest.raises(CollectionBusyError, match="another process is writing"):
        other.add([7], [["tin"]])
    index.commit(8)
    other.add([7], [["tin"]])
    other.commit(9)
    index.refresh()
    assert len(index) == 7


def test_another_analyser_s_index_is_stale(index: WordIndex) -> None:
    with pytest.raises(IndexDamagedError, match="another analyser"):
        WordIndex.open(index.folder, stamp="german")


def test_a_missing_or_never_committed_index_is_told(tmp_path: Path) -> None:
    with pytest.raises(IndexDamagedError, match="there is no index"):
        WordIndex.open(tmp_path / "nothing")
    WordIndex.create(tmp_path / "words")
    with pytest.raises(IndexDamagedError, match="there is no index"):
        WordIndex.open(tmp_path / "words")


def test_every_missing_file_is_noticed_on_opening(index: WordIndex, tmp_path: Path) -> None:
    ignored = {".managed.json", ".tantivy-meta.lock", ".tantivy-writer.lock"}
    names = [path.name for path in index.folder.iterdir() if path.name not in ignored]
    assert len(names) >= 8
    for name in names:
        copy = tmp_path / "copy"
        shutil.copytree(index.folder, copy)
        (copy / name).unlink()
        with pytest.raises(IndexDamagedError):
            WordIndex.open(copy, stamp="english")
        shutil.rmtree(copy)


def test_every_flipped_bit_is_noticed(index: WordIndex, tmp_path: Path) -> None:
    index.remove([2])
    index.commit(8)
    copy = tmp_path / "copy"
    shutil.copytree(index.folder, copy)
    chance = random.Random(4)
    ours = [path for path in copy.iterdir() if not path.name.startswith(".")]
    assert any(path.suffix == ".del" for path in ours)
    opened = WordIndex.open(copy, stamp="english")
    for path in ours:
        content = bytearray(path.read_bytes())
        for place in {chance.randrange(len(content)) for _ in range(40)}:
            damaged = bytearray(content)
            damaged[place] ^= 1 << chance.randrange(8)
            put(path, damaged)
            assert opened.verify() != [] or _same_footer(damaged, content), (path.name, place)
        put(path, content)
    assert opened.verify() == []


def put(path: Path, content: bytes) -> None:
    """By a new file, since the index maps the old one into memory."""
    path.with_suffix(".new").write_bytes(content)
    path.with_suffix(".new").replace(path)


def _same_footer(damaged: bytearray, content: bytearray) -> bool:
    """Whether the bit lies in what the footer says besides the checksum: tantivy's version."""
    return damaged[:-200] == content[:-200] and b'"crc"' in content[-200:]


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff\xfe", b'{"content": 5, "checksum": 1}'])
def test_a_torn_stamp_is_noticed(index: WordIndex, content: bytes) -> None:
    (index.folder / "stamp.json").write_bytes(content)
    with pytest.raises(IndexDamagedError):
        WordIndex.open(index.folder, stamp="english")
    assert len(index.verify()) == 1


READ = """
import os, sys
sys.path[:0] = {path!r}
from twinrank.index.words import WordIndex
from twinrank.errors import CollectionReadOnlyError
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
index = WordIndex.open({folder!r})
index.refresh()
print(list(index.search(["zinc"], 3).keys), len(index))
try:
    index.remove([1])
except CollectionReadOnlyError as error:
    print(error)
"""


def test_a_read_only_folder_is_searched_and_says_why_it_cannot_be_written() -> None:
    with tempfile.TemporaryDirectory() as above:
        Path(above).chmod(0o755)
        folder = Path(above) / "words"
        index = WordIndex.create(folder)
        index.add([1], [["zinc"]])
        index.commit(1)
        for path in folder.iterdir():
            path.chmod(0o444)
        folder.chmod(0o555)
        script = READ.format(path=sys.path, folder=str(folder))
        result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
        folder.chmod(0o755)
    assert result.stdout.splitlines()[0] in ("[1] 1", "[np.int64(1)] 1"), result.stderr
    assert "no permission to write; searching works" in result.stdout


def commit_for_ever(folder: str) -> None:
    index = WordIndex.open(folder)
    for number in range(index.sequence + 1, 10**6):
        index.add([number], [["all", f"n{number}"]])
        index.remove([number - 3])
        index.commit(number)


def test_a_killed_writer_leaves_an_index_that_opens_and_catches_up(tmp_path: Path) -> None:
    folder = tmp_path / "words"
    WordIndex.create(folder).commit(0)
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    for round_ in range(6):
        writer = context.Process(target=commit_for_ever, args=(str(folder),))
        writer.start()
        time.sleep(0.15 + 0.013 * round_)
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        index = WordIndex.open(folder)
        assert index.verify() == []
        # The index may be one commit ahead of its stamp, never behind.
        kept = sorted(index.search(["all"], 99).keys.tolist())
        assert index.sequence == 0 or kept[-1] in (index.sequence, index.sequence + 1)
        index.add([kept[-1]], [["all", "again"]])
        index.commit(kept[-1])
        assert Counter(index.search(["all"], 99).keys.tolist()) == Counter(kept)
        index.close()


def test_adding_one_passage_is_cheap(large: tuple[WordIndex, list[list[str]]]) -> None:
    index, _ = large
    times = []
    for step in range(5):
        started = time.perf_counter()
        index.add([5000], [["new"]])
        index.commit(5000 + step)
        times.append(time.perf_counter() - started)
    assert sorted(times)[2] < 0.2
    index.remove([5000])
    index.commit(6000)


def test_no_score_reaches_its_bound_and_an_unknown_word_raises_it(tmp_path: Path) -> None:
    index = WordIndex.create(tmp_path / "words")
    index.add([1, 2, 3], [["cold"] * 200, ["cold", "zinc"], ["honey"]])
    index.commit(1)
    assert 0.9 * index.bound(["cold"]) < index.search(["cold"], 1).scores[0] < index.bound(["cold"])
    assert index.search(["cold", "zinc", "zinc"], 1).scores[0] < index.bound(["cold", "zinc", "zinc"])
    assert index.bound(["cold", "nowhere"]) > index.bound(["cold", "zinc"])
    assert index.bound([]) == 0


def test_an_index_is_made_anew_though_a_file_comes_in_while_the_old_one_is_deleted(
    index: WordIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a thread of tantivy's may do, which outlives its writer for an instant."""
    index.close()
    remove, calls = shutil.rmtree, []

    def remove_beside_a_writer(folder: Path) -> None:
        calls.append(folder)
        if len(calls) == 1:
            raise OSError(39, "Directory not empty")
        remove(folder)

    monkeypatch.setattr(shutil, "rmtree", remove_beside_a_writer)
    again = WordIndex.create(index.folder, stamp="english")
    assert len(calls) == 2
    again.commit(8)
    assert len(again) == 0
    again.close()
