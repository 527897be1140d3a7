"""What is remembered: exact repetitions alone, a bounded number of them, whoever asks."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from twinrank.search.cache import PairScores, Recent, digest
from twinrank.types import Scores


@dataclass
class Counting:
    """A scorer that counts what it is asked."""

    fingerprint: str = "a"
    name: str = "counting"
    asked: list[tuple[str, str]] = field(default_factory=list)

    def score(self, pairs: Sequence[tuple[str, str]]) -> Scores:
        self.asked.extend(pairs)
        return np.array([len(passage) / 7 for _, passage in pairs], np.float32)


def test_a_pair_is_scored_once_and_its_score_comes_back_to_the_last_bit() -> None:
    scorer, remembered = Counting(), PairScores()
    first = remembered.score(scorer, [("q", "one"), ("q", "three")])
    again = remembered.score(scorer, [("q", "three"), ("q", "four"), ("q", "one")])
    assert again.tobytes() == np.array([first[1], np.float32(4 / 7), first[0]], np.float32).tobytes()
    assert scorer.asked == [("q", "one"), ("q", "three"), ("q", "four")]
    assert remembered.hits == 2


def test_another_model_another_query_or_another_border_between_the_texts_is_no_hit() -> None:
    remembered, scorer, other = PairScores(), Counting(), Counting("b")
    remembered.score(scorer, [("q", "one")])
    remembered.score(other, [("q", "one")])
    remembered.score(scorer, [("qo", "ne"), ("Q", "one")])
    assert remembered.hits == 0
    assert (len(scorer.asked), len(other.asked)) == (3, 1)


def test_what_was_not_used_for_longest_is_forgotten_first() -> None:
    scorer, remembered = Counting(), PairScores(limit=2)
    for text in ("one", "two", "one", "six", "one", "two"):
        remembered.score(scorer, [("q", text)])
    assert [text for _, text in scorer.asked] == ["one", "two", "six", "two"]


def test_scores_that_are_no_numbers_are_not_remembered() -> None:
    class Broken(Counting):
        def score(self, pairs: Sequence[tuple[str, str]]) -> Scores:
            super().score(pairs)
            return np.full(len(pairs), np.nan, np.float32)

    scorer, remembered = Broken(), PairScores()
    assert np.isnan(remembered.score(scorer, [("q", "one")])).all()
    remembered.score(scorer, [("q", "one")])
    assert len(scorer.asked) == 2


def test_a_wrong_number_of_scores_is_handed_on_to_be_refused() -> None:
    class Short(Counting):
        def score(self, pairs: Sequence[tuple[str, str]]) -> Scores:
            return np.zeros(len(pairs) - 1, np.float32)

    assert PairScores().score(Short(), [("q", "one"), ("q", "two")]).shape == (1,)


def test_nothing_asked_gives_nothing() -> None:
    assert PairScores().score(Counting(), []).shape == (0,)


def test_threads_share_it() -> None:
    recent = Recent[int, int](limit=50)

    def wrong(number: int) -> bool:
        return recent.of(number % 80, lambda: number % 80) != number % 80

    def work(start: int) -> int:
        return sum(map(wrong, range(start, start + 2000)))

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(work, range(4))) == 0
    assert len(recent) == 50


@given(st.lists(st.text(max_size=6), max_size=4), st.lists(st.text(max_size=6), max_size=4))
def test_digests_are_equal_where_the_texts_are_and_nowhere_else(one: list[str], other: list[str]) -> None:
    assert (digest(*one) == digest(*other)) == (one == other)
