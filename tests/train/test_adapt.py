"""A collection adapted to its texts: parted by document, measured on what nobody learned from, switched only where better."""

from __future__ import annotations

import importlib.util
import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

from twinrank import Collection
from twinrank.answer.endpoint import Endpoint
from twinrank.cli import twinrank
from twinrank.errors import DataError, InputError, MissingExtraError, ModelUnsupportedError, RecipeError, TwinrankError
from twinrank.evaluate.significance import Paired
from twinrank.recipe import Recipe, RerankSettings
from twinrank.train import adapt as adapting
from twinrank.train import guard
from twinrank.train.adapt import AS_IT_WAS, AdaptReport, AdaptSettings, adapt, candidates, choose_teacher
from twinrank.train.settings import TrainSettings
from twinrank.train.written import QueryWriter

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("sentence_transformers") is None, reason="training needs torch: pip install 'twinrank[train]'"
)

ANIMALS = ["fox", "hen", "cat", "cow", "owl", "bee", "ant", "dog", "pig", "bat", "elk", "cod"]
PLACES = ["forest", "yard", "house", "meadow", "tree", "hive", "hill", "kennel", "sty", "cave", "moor", "sea"]


def articles(count: int) -> Iterator[dict[str, str]]:
    draw = random.Random(0)
    for number in range(count):
        animal, place, other = draw.choice(ANIMALS), draw.choice(PLACES), draw.choice(ANIMALS)
        yield {
            "id": f"d{number}",
            "title": f"Note {number} about the {animal}",
            "text": (
                f"The {animal} number {number} lives in the {place}. In winter it is seen with the {other} at dawn. "
                f"Nobody knows why the {animal} leaves the {place} in spring."
            ),
        }


@pytest.fixture
def animals(make: Callable[..., Collection], tiny_model: Path) -> Collection:
    collection = make("animals", model=str(tiny_model))
    collection.add(list(articles(240)))
    return collection


SMALL = AdaptSettings(documents=240, corpus=120, queries=24, negatives=2, batch=8, rate=1e-3, max_tokens=48)


def test_the_pipelines_that_are_tried() -> None:
    stage = RerankSettings("old", candidates=10)
    before = Recipe(rerank=(stage, RerankSettings(kind="maxsim")))
    known = candidates(before, "student", "teacher", 30)
    assert list(known) == [AS_IT_WAS, "adapted encoder", "as it was, reranked", "adapted encoder, reranked"]
    both = known["adapted encoder, reranked"]
    assert both.rerank[-1].mix == 0.5  # alone, a small cross-encoder spoils what it helps in the mean
    assert both.encoder.model == "student"
    assert [(one.kind, one.model, one.candidates) for one in both.rerank] == [
        ("maxsim", "", 50),
        ("cross-encoder", "teacher", 30),
    ]
    assert list(candidates(before, None, "", 0)) == [AS_IT_WAS]


def test_a_collection_without_an_encoder_is_refused(notes: Collection) -> None:
    with pytest.raises(InputError, match="has no encoder to adapt"):
        adapt(notes)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError, match="give a teacher"):
        AdaptSettings(rerank=10)
    with pytest.raises(InputError, match="20 queries each"):
        AdaptSettings(queries=3)


@pytest.mark.parametrize(
    ("settings", "kind", "said"),
    [
        ({"batch": 0}, RecipeError, "training, batch"),
        ({"negatives": 0}, InputError, "count of 1 or more"),
        ({"teacher": "gone/nowhere"}, TwinrankError, "gone/nowhere"),
        ({"teacher": "tower"}, ModelUnsupportedError, "tower is a TwinTower; a teacher is a cross-encoder"),
    ],
)
def test_what_makes_no_training_is_refused_before_anything_is_made(
    animals: Collection, tmp_path: Path, settings: dict[str, Any], kind: type[Exception], said: str
) -> None:
    (tmp_path / "tower").mkdir()
    modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Router"}]
    (tmp_path / "tower" / "modules.json").write_text(json.dumps(modules))
    given = {name: str(tmp_path / "tower") if value == "tower" else value for name, value in settings.items()}
    with pytest.raises(kind, match=said):
        adapt(animals, replace(SMALL, **given))
    assert not (animals.path / "adapt").exists()


@pytest.mark.parametrize(
    ("accepted", "trained_over_given", "trained_over_pipeline", "teaches"),
    [
        (True, 0.1, 0.05, "trained"),
        (True, 0.1, -0.05, ""),  # the one given is worse still
        (False, -0.1, -0.05, "given"),  # it is .05 above the pipeline
        (False, -0.1, -0.2, ""),
        (False, -0.1, None, "given"),
    ],
)
def test_a_cross_encoder_that_harms_the_reranked_pipeline_does_not_teach(
    accepted: bool, trained_over_given: float, trained_over_pipeline: float | None, teaches: str
) -> None:
    reranking = None if trained_over_pipeline is None else {"mean": trained_over_pipeline}
    verdict = {"difference": {"mean": trained_over_given}, "reranking": reranking}
    assert choose_teacher(verdict, "trained" if accepted else "", "given") == teaches
    assert choose_teacher(verdict, "trained" if accepted else "", "") == teaches.removeprefix("given")
    assert choose_teacher(None, "", "given") == "given"


@needs_torch
def test_judgments_of_other_documents_are_told_and_refused_where_too_few_are_left(animals: Collection) -> None:
    said: list[str] = []
    queries = {f"q{number}": f"what does animal {number} do" for number in range(40)}
    with pytest.raises(DataError, match=r"no query has a relevant document in .*: of the relevant documents 40 of 40"):
        adapt(animals, SMALL, queries=queries, qrels={query: {f"x{query}": 1} for query in queries}, say=said.append)
    assert "of the relevant documents 40 of 40 are not in the collection: 'xq0', 'xq1', 'xq2', …" in said
    some = {f"q{number}": {f"{'d' if number < 9 else 'x'}{number}": 1} for number in range(40)}
    with pytest.raises(DataError, match=r"too few to measure by; .*; of the relevant documents 31 of 40"):
        adapt(animals, SMALL, queries=queries, qrels=some)


@needs_torch
def test_an_adaption_trains_measures_and_decides_and_the_same_call_again_finds_it_done(
    animals: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    before = animals.recipe
    report = adapt(animals, SMALL, say=said.append)
    [folder] = (animals.path / "adapt").iterdir()
    assert "mining negatives" in said
    assert report.made
    assert report.switched == (report.difference.verdict == "better" and report.difference.mean > 0)
    assert (animals.recipe == before) == (not report.switched)
    assert report.recipe == animals.recipe
    assert AdaptReport.read(folder / "report.json").difference == report.difference
    assert json.loads(json.dumps(report.as_json()))["chosen"] == report.chosen
    if not report.switched:
        monkeypatch.setattr(adapting, "train", lambda *given, **options: pytest.fail("trained again"))
        assert adapt(animals, SMALL).dev == report.dev
    assert len(animals.search("fox in the forest")) == 10


@needs_torch
def test_an_adaption_that_was_killed_goes_on_where_it_was(animals: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*given: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(adapting, "train", die)
    with pytest.raises(KeyboardInterrupt):
        adapt(animals, SMALL)
    monkeypatch.undo()
    monkeypatch.setattr(adapting.Material, "mine", lambda *given, **options: pytest.fail("mined again"))
    assert adapt(animals, SMALL).dev


@needs_torch
def test_nothing_of_an_adaption_stays_outside_its_folder(
    animals: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    adapt(animals, SMALL)
    assert not list((tmp_path / "cache").rglob("*.twinrank"))
    assert not list((animals.path / "adapt").rglob("*.twinrank"))


def decided(animals: Collection, wanted: Recipe, **options: Any) -> AdaptReport:
    """An adaption as a kill between the decision and the switch leaves it."""
    work = adapting._Work(animals, SMALL, lambda what, done: None, lambda told: None)
    assert work.begin({}, {}, options.get("writer")) is None
    difference = Paired(24, 0.1, 20, 0, low=0.05, high=0.15, p=0.001)
    report = AdaptReport(10, True, {AS_IT_WAS: 0.5}, "adapted encoder", 0.5, 0.6, difference, True, wanted)
    (work.folder / "report.json").write_text(json.dumps(report.as_json()))
    return report


@pytest.mark.parametrize("killed", ["passages", "calibrating"])
def test_a_switch_that_was_killed_goes_on_and_nothing_is_trained_again(
    animals: Collection, other_tiny_model: Path, monkeypatch: pytest.MonkeyPatch, killed: str
) -> None:
    wanted = animals.recipe.with_model(str(other_tiny_model))
    before = animals.recipe
    decided(animals, wanted)

    def die(*given: object) -> None:
        if "passages" in (killed, given[0]):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if killed == "calibrating":
            patch.setattr(adapting._Work, "_calibrate", lambda *given: die("passages"))
        with pytest.raises(KeyboardInterrupt):
            adapt(animals, SMALL, progress=die if killed == "passages" else None)
    animals.close()
    with Collection(animals.path, create=False) as again:
        said: list[str] = []
        taken = adapt(again, SMALL, say=said.append)
        assert taken.switched
        assert again.recipe == wanted
        assert not any("making" in told or "training" in told for told in said)
        assert Recipe.load(again.path / "recipe.toml.before") == before
        assert not list((again.path / "adapt").glob("*.json"))
        assert len(list((again.path / "adapt").iterdir())) == 1
        assert len(again.search("fox in the forest")) == 10


def test_another_writer_or_teacher_makes_another_adaption(
    animals: Collection, tiny_cross_encoder: Path, tmp_path: Path
) -> None:
    def folder(settings: AdaptSettings, writer: QueryWriter | None = None) -> Path:
        work = adapting._Work(animals, settings, lambda what, done: None, lambda told: None)
        work.begin({}, {}, writer)
        return work.folder

    writer = QueryWriter(Endpoint("http://127.0.0.1:1/v1", "tiny"), tmp_path)
    teacher = tmp_path / "teacher"
    shutil.copytree(tiny_cross_encoder, teacher)
    taught = replace(SMALL, teacher=str(teacher))
    folders = [folder(SMALL), folder(SMALL, writer), folder(SMALL, replace(writer, count=1)), folder(taught)]
    assert len(set(folders)) == 4
    assert [folder(SMALL), folder(SMALL, writer)] == folders[:2]
    weights = load_file(teacher / "model.safetensors")
    name = next(iter(weights))
    save_file(weights | {name: weights[name] + 1}, teacher / "model.safetensors")
    assert folder(taught) != folders[3]


@needs_torch
@pytest.mark.filterwarnings("ignore::twinrank.errors.TruncationWarning")  # the tiny models take few tokens
def test_a_teacher_is_trained_teaches_and_may_rerank(
    make: Callable[..., Collection], tiny_model: Path, tiny_cross_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "compare", lambda *given, **options: Paired(20, 0.1, 20, 0))  # whatever it learns
    collection = make("judged", model=str(tiny_model))
    collection.add(list(articles(120)))
    queries = {f"q{number}": f"what does animal {number} do" for number in range(100)}
    qrels = {f"q{number}": {f"d{number}": 1} for number in range(100)}
    settings = replace(SMALL, teacher=str(tiny_cross_encoder), rerank=5, corpus=80, ways=("title",))
    report = adapt(collection, settings, queries=queries, qrels=qrels)
    assert not report.made
    assert {"as it was", "as it was, reranked"} <= set(report.dev)
    [folder] = (collection.path / "adapt").iterdir()
    assert (folder / "teacher" / "report.json").exists()
    assert (folder / "student" / "report.json").exists()
    assert list((folder / "scores").glob("*.scores"))
    loss = TrainSettings.load(folder / "student" / "recipe.toml").loss
    assert (loss.kind, loss.labels) == ("kl", 1.0)


def test_without_torch_that_is_said_before_anything_is_made(animals: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"twinrank\[train\]"):
        adapt(animals, SMALL)
    assert not list((animals.path / "adapt").glob("*/examples.jsonl"))


def test_the_command_wants_queries_and_judgments_together(animals: Collection) -> None:
    told = CliRunner().invoke(twinrank, ["adapt", "-c", str(animals.path), "--queries", "q.jsonl"])
    assert told.exit_code == 2
    assert "go together" in told.stderr


@needs_torch
def test_the_command_reports_what_came_of_it(make: Callable[..., Collection], tiny_model: Path) -> None:
    collection = make("few", model=str(tiny_model))
    collection.add(list(articles(220)))
    options = ["--documents", "220", "--batch", "8", "--way", "title"]
    told = CliRunner().invoke(twinrank, ["adapt", "-c", str(collection.path), *options, "--json"], catch_exceptions=False)
    report = json.loads(told.stdout)
    assert report["made"]
    assert report["dev"][AS_IT_WAS] >= 0
    assert "training the encoder" in told.stderr


@needs_torch
@pytest.mark.filterwarnings("ignore::twinrank.errors.TruncationWarning")
def test_an_encoder_may_become_the_teacher_unless_that_does_not_help(
    animals: Collection, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(guard, "compare", lambda *given, **options: Paired(20, -0.1, 0, 20))  # whatever it learns
    adapt(animals, replace(SMALL, teacher=str(tiny_model), ways=("title",)), say=said.append)
    assert "it does not help the pipeline, so it does not teach" in said
