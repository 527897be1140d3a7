"""Measures equal trec_eval's on real rankings, ties included; `python bench/trec_eval.py` does this for every collection."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from twinrank.evaluate.experiment import evaluate, sample
from twinrank.evaluate.metrics import measure
from twinrank.readers import read_dataset
from twinrank.recipe import BUILT_IN, NO_MODEL


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    place = Path(__file__).resolve().parents[2] / "bench" / "trec_eval.py"
    spec = importlib.util.spec_from_file_location("bench_trec_eval", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.data
@pytest.mark.parametrize("name", ["covidfaq", "medline", "xquad_en"])
def test_measures_equal_trec_evals_on_bm25s_rankings(name: str, bench: ModuleType, shared_data: Path, tmp_path: Path) -> None:
    dataset = sample(read_dataset(shared_data / name), 100)
    outcome = evaluate(dataset, {"words": BUILT_IN["words"].with_model(NO_MODEL)}, folder=tmp_path).outcomes["words"]
    tied = sum(len(set(scores.values())) < len(scores) for scores in outcome.run.values())
    assert tied > 0  # else this would prove less than it says
    assert bench.largest_difference(dataset.qrels, outcome.run, outcome.measured) < 1e-6


@pytest.mark.data
@pytest.mark.slow
def test_measures_equal_trec_evals_on_rankings_by_words_and_vectors(
    bench: ModuleType, shared_data: Path, minilm_folder: Path, tmp_path: Path
) -> None:
    dataset = read_dataset(shared_data / "medline")
    outcome = evaluate(dataset, {"hybrid": BUILT_IN["hybrid"]}, folder=tmp_path).outcomes["hybrid"]
    assert bench.largest_difference(dataset.qrels, outcome.run, outcome.measured) < 1e-6


def test_the_comparison_with_trec_eval_would_notice_ties_broken_otherwise(bench: ModuleType) -> None:
    qrels, run = {"q": {"a": 1}}, {"q": {"a": 1.0, "b": 1.0}}
    assert bench.largest_difference(qrels, run, measure(qrels, run)) == 0
    the_other_way = measure(qrels, {"q": {"a": 2.0, "b": 1.0}})
    assert bench.largest_difference(qrels, run, the_other_way) == pytest.approx(0.5)
