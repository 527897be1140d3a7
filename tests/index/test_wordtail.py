"""What is held beside the files of a word index is scored as if all were one index, and lost with the process alone."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import twinrank.index.words as words_module
from twinrank.errors import StorageError
from twinrank.index.words import AVERAGE_DRIFT, HELD_MOST, WordIndex
from twinrank.index.wordtail import WordTail, idf_of, kept_length, weight_of
from twinrank.types import Ranking

COMMITTED = {1: "zinc cold wind iron", 2: "cold wind cold rain", 3: "zinc zinc tin iron", 4: "rain iron lead tin"}
HELD = {5: "zinc lead lead rain", 6: "cold tin copper wind"}
QUERIES = ["zinc", "cold wind", "lead", "copper", "zinc zinc iron", "nothing", "rain copper nothing"]


@pytest.fixture
def index(tmp_path: Path) -> Iterator[WordIndex]:
    opened = made(tmp_path / "words", COMMITTED)
    opened.hold(list(HELD), list(HELD), [text.split() for text in HELD.values()])
    yield opened
    opened.close()


def made(folder: Path, texts: dict[int, str]) -> WordIndex:
    index = WordIndex.create(folder)
    index.add(list(texts), [text.split() for text in texts.values()])
    index.commit(1)
    return index


def same(one: Ranking, other: Ranking, rel: float = 1e-6) -> bool:
    return one.keys.tolist() == other.keys.tolist() and np.allclose(one.scores, other.scores, rtol=rel)


@pytest.mark.parametrize("query", QUERIES)
def test_what_is_held_is_scored_as_in_one_index(index: WordIndex, tmp_path: Path, query: str) -> None:
    whole = made(tmp_path / "whole", COMMITTED | HELD)
    assert same(index.search(query.split(), 9), whole.search(query.split(), 9))
    assert index.bound(query.split()) == pytest.approx(whole.bound(query.split()))
    for key in (2, 5, 6):
        assert index.explain(query.split(), key) == [
            (term, pytest.approx(score, rel=1e-6)) for term, score in whole.explain(query.split(), key)
        ]
        for term in query.split():
            assert index.facts(term, key) == pytest.approx(whole.facts(term, key))
    whole.close()


@pytest.mark.parametrize("query", QUERIES)
def test_a_commit_changes_no_answer(index: WordIndex, query: str) -> None:
    before = index.search(query.split(), 9), len(index)
    index.commit(2)
    assert same(index.search(query.split(), 9), before[0])
    assert (len(index), index.sequence, index.saved_sequence) == (before[1], 2, 2)
    assert same(WordIndex.open(index.folder).search(query.split(), 9), before[0])


WORDS = [first + second for first in "abcdefgh" for second in "abcdefgh"]
"""So many that none stands in nearly every passage: a share of such a word's score, which is next to nothing, says nothing."""


@settings(max_examples=15, deadline=None)
@example([(1, [], False), (1, [], True), (1, [], False)], 1)
@given(
    st.lists(
        st.tuples(st.integers(1, 30), st.lists(st.sampled_from(WORDS), min_size=0, max_size=60), st.booleans()),
        min_size=1,
        max_size=40,
    ),
    st.integers(0, 10**6),
)
def test_any_history_of_holding_finds_what_one_index_finds(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[int, list[str], bool]], seed: int
) -> None:
    """Scores are within what the average length drifted; after a commit too, which may come anywhere."""
    chance = random.Random(seed)
    folder = tmp_path_factory.mktemp("history")
    kept = {100 + number: chance.choices(WORDS, k=chance.randint(20, 40)) for number in range(200)}
    index = made(folder / "words", {key: " ".join(words) for key, words in kept.items()})
    for number, (key, words, stays) in enumerate(history, start=2):
        if stays:
            kept[key] = words
            index.hold([key], [key], [words])
        else:
            kept.pop(key, None)
            index.hold([key, 10**6])
        if chance.random() < 0.1:
            index.commit(number)
    fresh = made(folder / "fresh", {key: " ".join(words) for key, words in kept.items()})
    assert len(index) == len(fresh) == len(kept)
    gone = len(history)  # passages that left count in the statistics until they are merged away
    for query in (["aa"], ["ab", "bc"], ["hh", "hh", "cd"]):
        found, expected = dict(list(index.search(query, 999))), dict(list(fresh.search(query, 999)))
        assert set(found) == set(expected)
        assert all(abs(found[key] / expected[key] - 1) < 0.05 + 0.02 * gone for key in found)
    index.close()
    fresh.close()


def test_a_removed_or_replaced_passage_is_never_found(index: WordIndex) -> None:
    index.hold([1, 5, 99])
    index.hold([3], [3], [["copper", "new"]])
    assert index.search(["zinc"], 9).keys.tolist() == []
    assert index.search(["copper"], 9).keys.tolist() == [3, 6]
    assert len(index) == 4
    index.commit(2)
    assert index.search(["zinc"], 9).keys.tolist() == []
    assert (len(index), index.verify()) == (4, [])


def test_a_filter_holds_for_files_and_for_what_is_held(index: WordIndex) -> None:
    everything = index.search(["zinc", "cold"], 9)
    for allowed in ([5], [1, 5], [2, 6], [4], [1, 2, 3, 4, 5, 6]):
        found = index.search(["zinc", "cold"], 9, np.array(allowed))
        mask = np.isin(everything.keys, allowed)
        assert found.keys.tolist() == everything.keys[mask].tolist()
        assert np.allclose(found.scores, everything.scores[mask])


def test_equal_passages_stand_with_the_larger_key_first_wherever_they_are(tmp_path: Path) -> None:
    index = made(tmp_path / "words", {1: "zinc cold", 2: "zinc wind", 3: "tin wind"})
    index.hold([9], [9], [["zinc", "cold"]])
    assert index.search(["zinc"], 1).keys.tolist() == [9]
    assert index.search(["zinc"], 3).keys.tolist() == [9, 2, 1]
    index.close()


def test_the_length_is_kept_as_tantivy_keeps_it(tmp_path: Path) -> None:
    lengths = [1, 23, 24, 39, 40, 41, 42, 55, 56, 59, 60, 87, 88, 95, 96, 119, 120, 200, 511, 512, 1000, 4097, 70_000]
    texts = {number: " ".join(["x"] * length) for number, length in enumerate(lengths)}
    committed = made(tmp_path / "words", texts)
    tail = WordTail().with_added(list(texts), [text.split() for text in texts.values()])
    files = committed._state.files.statistics(["x"])
    expected = committed.search(["x"], 99)
    found = tail.search({"x": weight_of(idf_of(files.passages, len(texts)))}, files.average)
    assert found.scores.tolist() == expected.scores.tolist()
    assert kept_length(70_000) == 65_560
    committed.close()


# When it is written down


def test_a_commit_is_wanted_for_many_passages_or_where_the_average_length_moves(tmp_path: Path) -> None:
    texts = dict.fromkeys(range(1000), "one two three four")
    index = made(tmp_path / "words", texts)
    index.hold([1000], [1000], [["five"] * 4])
    assert not index.wants_commit
    index.hold([1001], [1001], [["five"] * 40])  # (4004 + 40) / 1002 is 0.9 % more than 4
    assert AVERAGE_DRIFT < 36 / 1002 / 4
    assert index.wants_commit
    index.commit(2)
    assert not index.wants_commit
    index.hold(range(2000, 2000 + HELD_MOST))
    assert not index.wants_commit
    index.hold([3000])
    assert index.wants_commit
    index.close()


def test_it_is_written_down_by_the_next_commit_alone(index: WordIndex) -> None:
    index.note(5)
    again = WordIndex.open(index.folder)
    assert (again.sequence, again.noted, len(again)) == (1, 5, 4)
    index.note(8)
    again.refresh()
    assert (again.sequence, again.noted) == (1, 8)
    index.commit(9)
    again.hold([7], [7], [["iron"]])
    again.refresh()  # what another one committed is taken up; what is held is to be taken in again
    assert (again.sequence, again.noted, len(again)) == (9, 9, 6)
    index.refresh()


def test_a_torn_note_counts_as_none_and_the_next_one_mends_it(index: WordIndex) -> None:
    index.note(5)
    index.note(6)
    log = index.folder.with_name("words.log")
    os.truncate(log, log.stat().st_size - 7)
    again = WordIndex.open(index.folder)
    assert (again.noted, again.verify(log=False)) == (5, [])
    assert "torn or damaged" in again.verify()[0]
    again.note(6)
    assert (again.verify(), WordIndex.open(index.folder).noted) == ([], 6)


def test_a_flipped_bit_of_the_notes_is_told(index: WordIndex) -> None:
    index.note(5)
    log = index.folder.with_name("words.log")
    content = bytearray(log.read_bytes())
    for place in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[place] ^= 4
        log.write_bytes(damaged)
        assert index.verify(), place
    log.write_bytes(content)
    assert index.verify() == []


def test_the_notes_of_older_files_mean_nothing(index: WordIndex) -> None:
    index.note(5)
    left = index.folder.with_name("words.log").read_bytes()
    index.commit(6)
    index.folder.with_name("words.log").write_bytes(left)
    assert (WordIndex.open(index.folder).noted, index.verify()) == (6, [])


def test_where_the_disk_is_full_it_is_searched_on_and_kept_later(index: WordIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as full:

        def fail(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        full.setattr(words_module, "write_stamp", fail)
        with pytest.raises(StorageError, match="No space left"):
            index.commit(2)
        assert (index.sequence, index.saved_sequence, len(index)) == (2, 1, 6)
        assert index.search(["copper"], 9).keys.tolist() == [6]
    index.hold([6])
    index.commit(3)
    assert (len(WordIndex.open(index.folder)), index.search(["copper"], 9).keys.tolist()) == (5, [])


def test_a_bulk_that_came_to_nothing_leaves_what_was_held(index: WordIndex) -> None:
    index.add([7], [["gold"]])
    index.hold([8], [8], [["silver"]])
    assert index.search(["gold", "silver", "copper"], 9).keys.tolist() in ([8, 6], [6, 8])
    index.commit(2)
    assert len(index) == 7


def test_a_bulk_takes_along_what_was_held_and_comes_after_it(index: WordIndex) -> None:
    index.add([6, 7], [["gold"], ["silver"]])
    index.remove([5])
    assert index.wants_commit
    index.commit(2)
    assert len(index) == 6
    assert [index.search([term], 9).keys.tolist() for term in ("gold", "silver", "copper")] == [[6], [7], []]


def test_searches_go_on_while_passages_are_held_and_committed(tmp_path: Path) -> None:
    index = made(tmp_path / "words", dict.fromkeys(range(50), "all old"))
    problems: list[str] = []
    stop = threading.Event()

    def search() -> None:
        while not stop.is_set():
            found = index.search(["all"], 999).keys
            if len(found) < 50 or len(set(found.tolist())) != len(found):
                problems.append(str(found))

    searching = [threading.Thread(target=search) for _ in range(2)]
    for thread in searching:
        thread.start()
    for number in range(100, 160):
        index.hold([number], [number], [["all", "new"]])
        if number % 20 == 19:
            index.commit(number)
    stop.set()
    for thread in searching:
        thread.join()
    assert problems == []
    assert len(index) == 110
    index.close()


def test_the_dead_leave_the_tail_when_they_are_many() -> None:
    tail = WordTail()
    for _ in range(5000):
        tail = tail.without([1]).with_added([1], [["a", "b"]])
    assert (len(tail), tail.tokens, list(tail.holding("a").values())) == (1, 2, [1])
    assert len(tail.keys) < 3000


def test_an_older_tail_does_not_see_what_a_newer_one_holds() -> None:
    older = WordTail().with_added([1], [["a"]])
    newer = older.without([1]).with_added([2, 3], [["a"], ["a"]])
    assert older.search({"a": np.float32(1)}, 1.0).keys.tolist() == [1]
    assert newer.search({"a": np.float32(1)}, 1.0).keys.tolist() == [3, 2]
