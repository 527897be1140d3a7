"""Fusion, reranking and the pipeline, over indexes that a person can work out by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinrank.errors import ModelError
from twinrank.search.fuse import Fusion, fuse_by_rank, fuse_by_score, spread
from twinrank.search.pipeline import Pipeline
from twinrank.search.rerank import Rerank
from twinrank.search.retrieve import IndexSource
from twinrank.search.rewrite import Rewrite
from twinrank.types import Keys, Ranking, Scores


@dataclass
class Table:
    """An index whose scores are written down: key → score."""

    scores: dict[int, float]
    asked: list[int] = field(default_factory=list)

    def search(self, asked: str, k: int, allowed: Keys | None = None) -> Ranking:
        self.asked.append(k)
        found = {key: score for key, score in self.scores.items() if allowed is None or key in allowed}
        return Ranking.of(list(found), list(found.values()), k)


@dataclass
class Lengths:
    """A scorer that likes long passages."""

    name: str = "lengths"
    fingerprint: str = "0"

    def score(self, pairs: Sequence[tuple[str, str]]) -> Scores:
        return np.array([len(passage) for _, passage in pairs], np.float32)


def test_reciprocal_rank_fusion_equals_its_formula() -> None:
    fused = fuse_by_rank([Ranking.of([1, 2], [9, 8]), Ranking.of([2, 3], [0.5, 0.4])], [1, 2], constant=10)
    by_key = dict(iter(fused))
    assert by_key[1] == pytest.approx(1 / 11)
    assert by_key[2] == pytest.approx(1 / 12 + 2 / 11)
    assert by_key[3] == pytest.approx(2 / 12)


def test_score_fusion_spreads_each_ranking_before_it_weighs_it() -> None:
    fused = fuse_by_score([Ranking.of([1, 2, 3], [10, 5, 0]), Ranking.of([1, 2, 3], [0, 1, 3])], [3, 1])
    assert dict(iter(fused)) == {1: pytest.approx(3 / 4), 2: pytest.approx((3 * 0.5 + 1 / 3) / 4), 3: pytest.approx(1 / 4)}


def test_equal_scores_spread_to_one_so_that_a_single_candidate_is_not_worthless() -> None:
    assert spread([4.0, 4.0]).tolist() == [1, 1]
    assert spread([]).tolist() == []


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 20), st.floats(-9, 9)), unique_by=lambda pair: pair[0]), min_size=1, max_size=4)
)
def test_every_fusion_keeps_every_candidate_once_and_in_falling_order(given_rankings: list[list[tuple[int, float]]]) -> None:
    rankings = [Ranking.of([key for key, _ in pairs], [score for _, score in pairs]) for pairs in given_rankings]
    candidates = {key for pairs in given_rankings for key, _ in pairs}
    for fused in (fuse_by_rank(rankings), fuse_by_score(rankings)):
        assert sorted(fused.keys.tolist()) == sorted(candidates)
        assert (np.diff(fused.scores) <= 0).all()


def pipeline(fusion: Fusion, *tables: Table, depth: int = 2, rerank: Sequence[Rerank] = ()) -> Pipeline:
    names = ("vectors", "words")
    sources = [(IndexSource(name, table, str), depth) for name, table in zip(names, tables, strict=False)]
    return Pipeline(sources, fusion, rerank)


HALF = Fusion("score", {"vectors": 0.5, "words": 0.5})


def test_score_fusion_asks_each_source_for_the_scores_of_the_others_candidates() -> None:
    vectors, words = Table({1: 0.9, 2: 0.8, 3: 0.5, 4: 0.1}), Table({3: 7.0, 4: 6.0, 1: 1.0})
    ranking, _ = pipeline(HALF, vectors, words).run("query")
    # Candidates 1 to 4; vectors spread to 1, 7/8, 1/2, 0; words (2 holds no word: 0) to 1/7, 0, 1, 6/7.
    assert dict(iter(ranking)) == {
        3: pytest.approx((1 / 2 + 1) / 2),
        1: pytest.approx((1 + 1 / 7) / 2),
        2: pytest.approx(7 / 8 / 2),
        4: pytest.approx(6 / 7 / 2),
    }


def test_one_source_alone_keeps_its_own_scores_and_needs_no_fusion() -> None:
    ranking, trace = pipeline(HALF, Table({1: 0.9, 2: 0.8}), depth=5).run("query")
    assert dict(iter(ranking)) == {1: pytest.approx(0.9), 2: pytest.approx(0.8)}
    assert [traced.stage for traced in trace.stages] == ["vectors"]


def test_only_what_is_allowed_is_found() -> None:
    ranking, _ = pipeline(HALF, Table({1: 0.9, 2: 0.8, 3: 0.7}), Table({1: 3.0, 2: 2.0})).run("query", np.array([2, 3]))
    assert sorted(ranking.keys.tolist()) == [2, 3]


def test_the_trace_tells_each_stages_score_and_rank_and_where_a_passage_was_not_found() -> None:
    _, trace = pipeline(Fusion("rank", {"vectors": 1, "words": 1}), Table({1: 0.9, 2: 0.8}), Table({2: 5.0})).run("query")
    first, second, fused = trace.scores(1)
    assert (first.stage, first.score, first.rank) == ("vectors", pytest.approx(0.9), 1)
    assert (second.stage, second.score, second.rank) == ("words", None, None)
    assert (fused.stage, fused.rank) == ("fuse", 2)


def test_running_deeper_asks_the_sources_for_more() -> None:
    table = Table({key: float(key) for key in range(10)})
    assert len(pipeline(HALF, table).run_behind(Ranking.empty(), "query", 7)) == 7
    assert table.asked == [7]


TEXTS = {1: "a", 2: "bbb", 3: "cc", 4: "dddd"}


def reads(scorer: Lengths) -> Callable[[str, Keys], Scores]:
    """How a stage scores passages with a model that reads their texts."""
    return lambda query, keys: scorer.score([(query, TEXTS[key]) for key in keys.tolist()])


def test_reranking_reorders_the_first_candidates_and_keeps_the_others_behind_them() -> None:
    stage = Rerank("long", reads(Lengths()), candidates=3)
    ranking = stage("query", Ranking.of([1, 2, 3, 4], [9, 8, 7, 6]))
    assert ranking.keys.tolist() == [2, 3, 1, 4]
    assert (np.diff(ranking.scores) < 0).all()
    assert ranking.scores[:3].tolist() == [3, 2, 1]


def test_a_reranker_of_less_weight_is_mixed_with_the_order_that_came_in() -> None:
    ranking = Ranking.of([1, 2, 3], [1.0, 0.5, 0.0])
    scored = {1: 0.0, 2: 4.0, 3: 2.0}

    def score(query: str, keys: Keys) -> Scores:
        return np.array([scored[key] for key in keys.tolist()], np.float32)

    mixed = Rerank("mixed", score, weight=0.5)("query", ranking)
    assert dict(zip(mixed.keys.tolist(), mixed.scores.tolist(), strict=True)) == {2: 0.75, 1: 0.5, 3: 0.25}


def test_reranking_nothing_gives_nothing() -> None:
    stage = Rerank("long", reads(Lengths()))
    assert len(stage("query", Ranking.empty())) == 0


def test_a_reranker_that_gives_nan_is_refused_by_name() -> None:
    class Broken(Lengths):
        def score(self, pairs: Sequence[tuple[str, str]]) -> Scores:
            return np.full(len(pairs), np.nan, np.float32)

    stage = Rerank("rerank the broken model", reads(Broken()))
    with pytest.raises(ModelError, match="the broken model"):
        stage("query", Ranking.of([1], [1]))


def test_a_pipeline_reranks_what_was_fused() -> None:
    stage = Rerank("long", reads(Lengths()), candidates=10)
    ranking, trace = pipeline(HALF, Table({1: 0.9, 2: 0.8}), Table({4: 7.0, 1: 1.0}), rerank=[stage]).run("query")
    assert ranking.keys.tolist() == [4, 2, 1]
    assert [traced.stage for traced in trace.stages] == ["vectors", "words", "fuse", "long"]


def test_a_rewritten_query_is_searched_in_both_forms_and_reranked_in_the_new_one() -> None:
    words = Table({1: 3.0, 2: 2.0})
    asked: list[str] = []

    def prepare(text: str) -> str:
        asked.append(text)
        return text

    seen: list[str] = []

    class Listening(Lengths):
        def score(self, pairs: Sequence[tuple[str, str]]) -> Scores:
            seen.extend(query for query, _ in pairs)
            return super().score(pairs)

    stage = Rerank("long", reads(Listening()))
    rewriting = Pipeline([(IndexSource("words", words, prepare), 2)], HALF, [stage], Rewrite("shout", str.upper))
    ranking, trace = rewriting.run("honey")
    assert asked == ["honey", "HONEY"]
    assert trace.forms == ("honey", "HONEY")
    assert [traced.stage for traced in trace.stages] == ["words 1", "words 2", "fuse", "long"]
    assert set(seen) == {"HONEY"}
    assert sorted(ranking.keys.tolist()) == [1, 2]


def test_a_rewrite_that_changes_nothing_costs_no_second_search() -> None:
    rewriting = Pipeline([(IndexSource("words", Table({1: 3.0}), str), 2)], HALF, (), Rewrite("same", str.lower))
    _, trace = rewriting.run("honey")
    assert [traced.stage for traced in trace.stages] == ["words"]


def test_the_original_can_be_left_out() -> None:
    assert Rewrite("shout", str.upper, keep=False)("honey") == ("HONEY",)
    assert Rewrite("nothing", lambda query: " ", keep=False)("honey") == ("honey",)
