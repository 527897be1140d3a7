"""Measures: by hand, with trec_eval's rules, and refusing what would give a figure that means nothing."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
import pytrec_eval

from twinrank.errors import InputError
from twinrank.evaluate.metrics import ceiling, check_measures, measure, write_run

QRELS = {"q1": {"a": 2, "b": 1, "c": 0}, "q2": {"d": 1}, "q3": {"a": 0}}


def test_ndcg_equals_its_formula() -> None:
    means = measure({"q": {"a": 2, "b": 1}}, {"q": {"b": 3.0, "x": 2.0, "a": 1.0}}, ["nDCG@10"]).means
    gained = 1 / math.log2(2) + 2 / math.log2(4)
    ideal = 2 / math.log2(2) + 1 / math.log2(3)
    assert means["nDCG@10"] == pytest.approx(gained / ideal)


def test_a_judged_query_without_a_ranking_counts_zero_and_one_without_relevant_documents_is_left_out() -> None:
    measured = measure(QRELS, {"q1": {"a": 1.0}, "q3": {"a": 1.0}, "q9": {"a": 1.0}}, ["RR@10"])
    assert measured.by_query["RR@10"] == {"q1": 1.0, "q2": 0.0}
    assert measured.means["RR@10"] == 0.5
    assert measured.queries == 2


def test_an_empty_run_measures_zero() -> None:
    assert measure(QRELS, {}).means == {"nDCG@10": 0.0, "RR@10": 0.0, "R@100": 0.0, "AP@100": 0.0}


def test_ties_are_broken_by_id_descending() -> None:
    tied = {"q": {"a": 1.0, "b": 1.0, "c": 1.0}}
    for relevant, place in (("c", 1), ("b", 2), ("a", 3)):
        means = measure({"q": {relevant: 1}}, tied, ["nDCG@10", "RR@10"]).means
        assert means["RR@10"] == pytest.approx(1 / place)
        assert means["nDCG@10"] == pytest.approx(1 / math.log2(place + 1))


def test_measures_equal_trec_evals_on_random_runs_with_ties() -> None:
    chance = random.Random(7)
    qrels = {f"q{q}": {f"d{d}": chance.choice([0, 0, 1, 2]) for d in range(30)} | {"sure": 1} for q in range(20)}
    run = {q: {f"d{chance.randrange(60)}": float(chance.randrange(5)) for _ in range(40)} for q in qrels}
    reference = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut_10", "recall_100", "map_cut_100"}).evaluate(run)
    measured = measure(qrels, run).by_query
    for query, values in reference.items():
        assert measured["nDCG@10"][query] == pytest.approx(values["ndcg_cut_10"], abs=1e-9)
        assert measured["R@100"][query] == pytest.approx(values["recall_100"], abs=1e-9)
        assert measured["AP@100"][query] == pytest.approx(values["map_cut_100"], abs=1e-9)


def test_scores_that_float32_does_not_tell_apart_are_a_tie_as_in_trec_eval() -> None:
    qrels = {"q": {"a": 1}}
    for run in ({"q": {"a": 1.0 + 1e-9, "b": 1.0}}, {"q": {"a": 1.0, "b": 1.0 + 1e-9}}, {"q": {"a": 1.001, "b": 1.0}}):
        reference = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank", "ndcg_cut_10"}).evaluate(run)["q"]
        assert measure(qrels, run, ["RR@10", "nDCG@10"]).means == {
            "RR@10": pytest.approx(reference["recip_rank"]),
            "nDCG@10": pytest.approx(reference["ndcg_cut_10"]),
        }


def test_the_ceiling_is_the_best_order_of_what_was_found() -> None:
    run = {"q1": {"x": 3.0, "c": 2.0, "b": 1.0}, "q2": {"x": 1.0}}  # of q1's a and b, b alone was found; of q2 nothing
    ideal = 2 / math.log2(2) + 1 / math.log2(3)
    assert ceiling(QRELS, run, "nDCG@10") == pytest.approx((1 / ideal + 0) / 2)
    assert ceiling(QRELS, {"q1": {"b": 2.0, "a": 1.0}, "q2": {"x": 2.0, "d": 1.0}}, "nDCG@10") == 1.0


def test_unknown_measures_and_none_are_refused_before_anything_is_run() -> None:
    check_measures(["nDCG@10", "P(rel=2)@5"])
    for wrong in (["nDCG@10", "nDGC@10"], ["nDCG@x"], []):
        with pytest.raises(InputError, match="nDCG@10"):
            check_measures(wrong)


def test_nothing_to_measure_and_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="no query has a relevant document"):
        measure({"q": {"a": 0}}, {"q": {"a": 1.0}})
    with pytest.raises(InputError, match="'a' the score nan"):
        measure(QRELS, {"q1": {"a": math.nan}})
    with pytest.raises(InputError, match="unknown measure 'nDGC@10'"):
        measure(QRELS, {}, ["nDGC@10"])


def test_a_run_is_written_as_trec_lines_in_trec_evals_order(tmp_path: Path) -> None:
    write_run({"q1": {"a": 1.0, "b": 1.0, "c": 2.0}}, tmp_path / "run", "tag")
    assert (tmp_path / "run").read_text() == "q1 Q0 c 1 2.0 tag\nq1 Q0 b 2 1.0 tag\nq1 Q0 a 3 1.0 tag\n"
    with pytest.raises(InputError, match="white space"):
        write_run({"q1": {"two words": 1.0}}, tmp_path / "run", "tag")


def test_two_names_of_one_measure_have_the_same_value() -> None:
    means = measure(QRELS, {"q1": {"b": 1.0}}, ["AP", "MAP"]).means
    assert means["AP"] == means["MAP"] > 0
