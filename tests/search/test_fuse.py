"""Fusion with decided weights: it orders as standardised scores do, and its scores mean the same beside other candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinrank.search.fuse import Fusion
from twinrank.search.pipeline import Pipeline
from twinrank.search.retrieve import IndexSource
from twinrank.search.weights import Views, decide
from twinrank.types import Keys, Ranking

VIEWS = Views(1.0, 0.3)
AUTO = Fusion("auto", {"vectors": 0.6, "words": 0.4, "tokens": 0.6}, views=VIEWS)


@dataclass
class Table:
    """An index whose scores are written down: key → score."""

    scores: dict[int, float]

    def search(self, asked: str, k: int, allowed: Keys | None = None) -> Ranking:
        found = {key: score for key, score in self.scores.items() if allowed is None or key in allowed}
        return Ranking.of(list(found), list(found.values()), k)


def pipeline(
    vectors: dict[int, float], words: dict[int, float], depth: int = 10, bound: float = 20.0, fusion: Fusion = AUTO
) -> Pipeline:
    sources = (
        IndexSource("vectors", Table(vectors), str, lambda _: 1.0),
        IndexSource("words", Table(words), str, lambda _: bound),
    )
    return Pipeline([(source, depth) for source in sources], fusion)


def standardised(values: Sequence[float]) -> np.ndarray:
    array = np.array(values, np.float32).astype(np.float64)
    return (array - array.mean()) / (array.std() or 1.0)


@given(
    st.lists(
        st.tuples(st.integers(-100, 100), st.integers(0, 400)),
        min_size=2,
        max_size=30,
        unique_by=(lambda p: p[0], lambda p: p[1]),
    )
)
def test_decided_weights_order_as_the_mean_of_standardised_scores(pairs: list[tuple[int, int]]) -> None:
    cosines, points = [a / 100 for a, _ in pairs], [b / 20 for _, b in pairs]
    ranking, trace = pipeline(dict(enumerate(cosines)), dict(enumerate(points)), depth=50).run("query")
    assert trace.weighing is not None
    share = decide(np.array(cosines, np.float32).astype(np.float64), VIEWS).vectors
    expected = share * standardised(cosines) + (1 - share) * standardised(points)
    assert (np.diff(expected[ranking.keys]) <= 1e-4).all()


def test_a_lone_candidate_has_no_score_of_one() -> None:
    ranking, _ = pipeline({1: 0.3}, {1: 5.0}).run("query")
    share = decide(np.array([0.3]), VIEWS).vectors
    assert dict(iter(ranking)) == {1: pytest.approx(0.3 * share + 0.25 * (1 - share))}


def test_a_score_lies_between_the_cosine_and_the_share_of_what_words_could_give() -> None:
    cosines, points = {1: 0.8, 2: 0.5, 3: 0.1}, {1: 4.0, 2: 16.0, 3: 1.0}
    ranking, _ = pipeline(cosines, points).run("query")
    for key, score in ranking:
        low, high = sorted((cosines[key], points[key] / 20))
        assert low - 1e-6 <= score <= high + 1e-6


def test_where_no_word_is_found_the_vectors_alone_order() -> None:
    ranking, _ = pipeline({1: 0.8, 2: 0.9, 3: 0.1}, {}).run("query")
    assert ranking.keys.tolist() == [2, 1, 3]


def test_where_nothing_is_found_nothing_is_fused() -> None:
    ranking, trace = pipeline({}, {}).run("query")
    assert len(ranking) == 0
    assert trace.weighing is None


def test_the_trace_tells_the_weights_and_what_they_were_decided_by() -> None:
    _, trace = pipeline({1: 0.8, 2: 0.4}, {1: 4.0}).run("query")
    assert str(trace.weighing).startswith("weights: vectors 0.")
    assert "a spread of 0.40 and an agreement of 0.30" in str(trace.weighing)


def test_other_sources_than_vectors_and_words_keep_fixed_weights() -> None:
    sources = [(IndexSource(name, Table({1: 0.8, 2: 0.4}), str), 5) for name in ("vectors", "tokens", "words")]
    ranking, trace = Pipeline(sources, AUTO).run("query")
    assert trace.weighing is None
    assert dict(iter(ranking)) == {1: pytest.approx(1.0), 2: pytest.approx(0.0)}


def test_what_lies_behind_has_its_own_score_by_the_same_weights_and_its_stages() -> None:
    cosines = {key: 1 - key / 100 for key in range(1, 60)}
    searching = pipeline(cosines, {1: 9.0, 2: 8.0}, depth=5)
    first, trace = searching.run("query")
    assert trace.weighing is not None
    slopes = trace.weighing.slopes
    whole = searching.run_behind(first, "query", 30, None, trace)
    assert whole.keys[:5].tolist() == first.keys.tolist()
    assert (np.diff(whole.scores) < 0).all()
    assert dict(iter(whole))[20] == pytest.approx(slopes[0] * cosines[20])
    assert [(stage.stage, stage.rank) for stage in trace.scores(20)] == [("vectors", 20), ("words", None), ("fuse", 20)]
    assert trace.scores(1)[1].rank == 1


def test_nothing_that_lies_behind_scores_above_the_candidates() -> None:
    # Key 9 is neither source's first, and better than most by both together.
    vectors = {1: 0.9, 2: 0.8, 9: 0.79, 3: 0.1}
    words = {4: 9.0, 5: 8.0, 9: 7.9, 6: 1.0}
    searching = pipeline(vectors, words, depth=2)
    first, trace = searching.run("query")
    assert 9 not in first.keys
    whole = searching.run_behind(first, "query", 4, None, trace)
    assert whole.keys[: len(first)].tolist() == first.keys.tolist()
    assert (np.diff(whole.scores) < 0).all()
    assert whole.keys[len(first)] == 9
