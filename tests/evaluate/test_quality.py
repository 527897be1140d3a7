"""Figures on real collections: what is published is reproduced, and the default beats its parts; skipped without the data."""

from __future__ import annotations

from pathlib import Path

import pytest

from twinrank.evaluate.experiment import Experiment, evaluate
from twinrank.readers import read_dataset
from twinrank.recipe import BUILT_IN, Recipe

PUBLISHED = Recipe.parse("[passages]\nsize = 0\noverlap = 0\n[retrieve]\nwords = 0")


def needs_native_engine() -> None:
    from twinrank.models import native

    if not native.available():
        pytest.skip("the native engine was not compiled; by NumPy this takes a quarter of an hour")


@pytest.fixture(scope="module")
def scifact(shared_data: Path, minilm_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    needs_native_engine()
    dataset = read_dataset(shared_data / "scifact", split="test")
    recipes = {"published": PUBLISHED, **{name: BUILT_IN[name] for name in ("words", "vectors", "hybrid")}}
    return evaluate(dataset, recipes, folder=tmp_path_factory.mktemp("scifact"))


@pytest.mark.data
@pytest.mark.slow
def test_the_default_model_reproduces_its_published_figure_on_scifact(scifact: Experiment) -> None:
    assert scifact.queries == 300
    assert scifact.outcomes["published"].measured.means["nDCG@10"] == pytest.approx(0.645, abs=0.005)


@pytest.mark.data
@pytest.mark.slow
def test_bm25_reaches_what_it_reaches_elsewhere_on_scifact(scifact: Experiment) -> None:
    assert scifact.outcomes["words"].measured.means["nDCG@10"] >= 0.68


@pytest.mark.data
@pytest.mark.slow
def test_the_default_fusion_beats_both_its_parts_on_scifact(scifact: Experiment) -> None:
    means = {name: outcome.measured.means["nDCG@10"] for name, outcome in scifact.outcomes.items()}
    assert means["hybrid"] >= max(means["words"], means["vectors"], means["published"]) + 0.03


@pytest.mark.data
def test_an_experiment_counts_queries_documents_and_time(shared_data: Path, minilm_folder: Path, tmp_path: Path) -> None:
    experiment = evaluate(read_dataset(shared_data / "covidfaq"), {"words": BUILT_IN["words"]}, folder=tmp_path)
    outcome = experiment.outcomes["words"]
    assert (experiment.documents, experiment.queries) == (67, 1073)
    assert len(outcome.milliseconds) == 1073
    assert outcome.percentile(50) <= outcome.percentile(95)
    assert sum(path.suffix == ".twinrank" for path in tmp_path.iterdir()) == 1
