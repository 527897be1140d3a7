"""The guard: what is worse than its parent, or tells nothing apart, is refused, and the verdict says why and how sure."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from twinrank.evaluate.experiment import evaluate
from twinrank.readers import read_dataset
from twinrank.train import guard
from twinrank.train.data import Example, read_examples
from twinrank.train.settings import Architecture, GuardSettings, LossSettings, ModelSettings, TrainSettings

HELPS = ("zinc", "honey", "bread", "water", "food", "a man", "zinc and bread", "eating", "a piece", "salt", "help", "cold")


@pytest.fixture
def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve passages in BEIR's layout, each with the query that it answers, as train and as dev."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "judged"
    (folder / "qrels").mkdir(parents=True)
    documents = [{"_id": f"d{place}", "title": "", "text": f"{what} does {place} {what}"} for place, what in enumerate(HELPS)]
    queries = [{"_id": f"q{place}", "text": f"{what} {place}"} for place, what in enumerate(HELPS)]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, documents)))
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    lines = "\n".join(["query-id\tcorpus-id\tscore", *(f"q{place}\td{place}\t1" for place in range(len(HELPS)))])
    for split in ("train", "dev"):
        (folder / "qrels" / f"{split}.tsv").write_text(lines)
    return folder


def settings(architecture: Architecture, parent: Path, judged: Path | str = "") -> TrainSettings:
    kind = "softmax" if architecture == "cross-encoder" else "infonce"
    model = ModelSettings(architecture, str(parent))
    return TrainSettings(model, loss=LossSettings(kind), guard=GuardSettings(str(judged), measure="nDCG@10"))


def changed(source: Path, folder: Path, value: float, *names: str) -> Path:
    """A copy of a model, with one value in place of the weights whose names end so."""
    shutil.copytree(source, folder)
    tensors = load_file(folder / "model.safetensors")
    for name in tensors:
        if name.endswith(names):
            tensors[name] = np.full_like(tensors[name], value)
    save_file(tensors, folder / "model.safetensors")
    return folder


def judge(wanted: TrainSettings, candidate: Path, judged: Path, tmp_path: Path) -> guard.Verdict:
    return guard.judge(wanted, candidate, read_examples(judged), tmp_path / "guard")


def test_a_model_that_is_as_good_is_accepted(tiny_model: Path, judged: Path, tmp_path: Path) -> None:
    verdict = judge(settings("bi-encoder", tiny_model, judged), tiny_model, judged, tmp_path)
    assert verdict.accepted
    assert verdict.before == verdict.after
    assert "nDCG@10 is not below that of its parent on judged, dev" in str(verdict)
    assert not (tmp_path / "guard").exists()
    assert not (tmp_path / "cache" / "twinrank" / "eval").exists()  # of what is measured on, no copy stays


def test_of_two_models_the_better_may_take_the_place_of_the_worse_and_not_the_other_way_round(
    tiny_model: Path, other_tiny_model: Path, judged: Path, tmp_path: Path
) -> None:
    recipes = guard.recipes("bi-encoder", GuardSettings(), str(tiny_model), other_tiny_model)
    outcomes = evaluate(read_dataset(judged, "dev"), recipes, measures=["nDCG@10"]).outcomes
    means = {name: outcome.measured.means["nDCG@10"] for name, outcome in outcomes.items()}
    assert means["before"] != means["after"]
    better, worse = tiny_model, other_tiny_model
    if means["after"] > means["before"]:
        better, worse = worse, better
    up = judge(settings("bi-encoder", worse, judged), better, judged, tmp_path)
    down = judge(settings("bi-encoder", better, judged), worse, judged, tmp_path)
    assert up.accepted
    assert not down.accepted
    assert up.difference is not None
    assert down.difference is not None
    assert up.difference.mean == -down.difference.mean == pytest.approx(abs(means["after"] - means["before"]))
    assert {up.after, up.before} == {down.before, down.after} == set(means.values())
    assert str(down).startswith("refused: nDCG@10 is below that of its parent on judged, dev\nnDCG@10 0.")
    assert "95 % interval" in str(down)
    assert "of 12 queries" in str(down)


@pytest.mark.parametrize("architecture", ["bi-encoder", "twin-tower", "late-interaction", "cross-encoder"])
def test_a_model_that_tells_nothing_apart_is_refused_before_anything_is_measured(
    tiny_model: Path, tiny_cross_encoder: Path, judged: Path, tmp_path: Path, architecture: Architecture
) -> None:
    source = tiny_cross_encoder if architecture == "cross-encoder" else tiny_model
    flat = changed(source, tmp_path / "flat", 0.0, "classifier.weight", "output.LayerNorm.weight")
    if architecture == "twin-tower":
        from twinrank import TwinTower

        flat = TwinTower(query=tiny_model, document=flat).save(tmp_path / "towers")
    if architecture == "late-interaction":
        flat = late(flat, tmp_path / "late")
    said = guard.collapse(architecture, flat, read_examples(judged))
    assert "it gives everything the score" in said if architecture == "cross-encoder" else "it collapsed" in said
    verdict = judge(settings(architecture, source, judged), flat, judged, tmp_path)
    assert not verdict.accepted
    assert verdict.before is None
    assert str(verdict).startswith("refused: it ")


def late(source: Path, folder: Path) -> Path:
    """The same trunk as a late-interaction model in sentence-transformers' layout."""
    shutil.copytree(source, folder)
    home = "sentence_transformers.multi_vector_encoder.modules"
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.Transformer"},
        {"idx": 1, "name": "1", "path": "1_MultiVectorMask", "type": f"{home}.MultiVectorMask"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.base.modules.Normalize"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"model_type": "MultiVectorEncoder"}))
    (folder / "1_MultiVectorMask").mkdir()
    (folder / "1_MultiVectorMask" / "config.json").write_text(json.dumps({"skiplist_words": []}))
    return folder


@pytest.mark.parametrize("architecture", ["bi-encoder", "cross-encoder"])
def test_a_model_with_a_few_examples_of_itself_passes_unjudged_where_no_data_is_named(
    tiny_model: Path, tiny_cross_encoder: Path, judged: Path, tmp_path: Path, architecture: Architecture
) -> None:
    source = tiny_cross_encoder if architecture == "cross-encoder" else tiny_model
    verdict = judge(settings(architecture, source), source, judged, tmp_path)
    assert verdict.accepted
    assert "it was not judged" in str(verdict)
    assert guard.collapse(architecture, source, [Example("alone", ("one passage",))]) == ""


def test_a_cross_encoder_is_asked_whether_the_pipeline_is_better_with_it(
    tiny_model: Path, tiny_cross_encoder: Path, judged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BM25 finds all of these; a random cross-encoder can only spoil their order."""
    plain = guard.Recipe

    monkeypatch.setattr(guard, "Recipe", lambda: plain().with_model(str(tiny_model)))  # not the default encoder's 90 MB
    alone = judge(settings("cross-encoder", tiny_model, judged), tiny_cross_encoder, judged, tmp_path)
    assert not alone.accepted
    assert alone.reason.startswith("nDCG@10 is below that of the pipeline without it")
    assert alone.reranking == alone.difference
    assert "reranking with it does not help the pipeline: -0." in str(alone)
    itself = judge(settings("cross-encoder", tiny_cross_encoder, judged), tiny_cross_encoder, judged, tmp_path)
    assert itself.accepted  # as good as its parent, and still no help
    assert itself.reranking == alone.reranking
    assert itself.reason.endswith("not below that of its parent on judged, dev, but below that of the pipeline without it")
    assert "does not help the pipeline" in str(itself)
    assert not (tmp_path / "cache" / "twinrank" / "eval").exists()


def test_an_encoder_from_a_cross_encoder_is_judged_by_what_it_adds_to_words(
    tiny_model: Path, tiny_cross_encoder: Path, judged: Path, tmp_path: Path
) -> None:
    """Its parent embeds nothing, so that there is nothing to be as good as."""
    known = guard.recipes("bi-encoder", GuardSettings(), str(tiny_cross_encoder), tiny_model)
    assert {name: (one.retrieve.vectors > 0, one.retrieve.words > 0) for name, one in known.items()} == {
        "without it": (False, True),
        "after": (True, True),
    }
    verdict = judge(settings("bi-encoder", tiny_cross_encoder, judged), tiny_model, judged, tmp_path)
    assert "that of the pipeline without it on judged, dev" in verdict.reason
    assert verdict.before is not None
    assert verdict.reranking is None


def test_examples_that_are_measured_on_are_found(judged: Path) -> None:
    shutil.copy(judged / "qrels" / "dev.tsv", judged / "qrels" / "test.tsv")
    (judged / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\nq0\td0\t1\n")
    examples = [*read_examples(judged)[:3], Example("something else", ("of which nobody asked",))]
    found = guard.leaks(GuardSettings(str(judged)), examples)
    assert {split: (one.examples, len(one.leaks)) for split, one in found.items()} == {"dev": (4, 1), "test": (4, 3)}
    (judged / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq0\td0\t0\n")  # the answers are kept back
    assert set(guard.leaks(GuardSettings(str(judged)), examples)) == {"dev"}
    assert guard.leaks(GuardSettings(), examples) == {}


def test_late_interaction_is_judged_by_maxsim_alone(tiny_model: Path, judged: Path, tmp_path: Path) -> None:
    same = late(tiny_model, tmp_path / "late")
    verdict = judge(settings("late-interaction", late(tiny_model, tmp_path / "parent"), judged), same, judged, tmp_path)
    assert verdict.accepted
    assert verdict.before == verdict.after
    known = guard.recipes("late-interaction", GuardSettings(), str(tiny_model), same)
    assert {one.retrieve for one in known.values()} == {guard.RetrieveSettings(vectors=0, words=0, tokens=100)}
    trunk = judge(settings("late-interaction", tiny_model, judged), same, judged, tmp_path)  # by a bi-encoder's own tokens
    assert trunk.before is not None


def test_a_sample_of_the_queries_is_drawn_where_the_recipe_says_so(tiny_model: Path, judged: Path, tmp_path: Path) -> None:
    wanted = settings("bi-encoder", tiny_model, judged)
    verdict = judge(replace(wanted, guard=replace(wanted.guard, queries=5)), tiny_model, judged, tmp_path)
    assert verdict.difference is not None
    assert verdict.difference.queries == 5
