"""A collection adapted to its texts: parted by document, measured on what nobody learned from, switched only where better."""

from __future__ import annotations

import importlib.util
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from twinrank import Collection
from twinrank.cli import twinrank
from twinrank.errors import DataError, InputError, MissingExtraError
from twinrank.evaluate.significance import Paired
from twinrank.readers import read_dataset
from twinrank.recipe import Recipe, RerankSettings
from twinrank.train import adapt as adapting
from twinrank.train import guard
from twinrank.train.adapt import AS_IT_WAS, AdaptReport, AdaptSettings, adapt, candidates, split_for_measuring, write_judged
from twinrank.train.material import of_collection

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


def test_made_queries_are_parted_by_document_and_measured_over_texts_without_them(animals: Collection, tmp_path: Path) -> None:
    material = of_collection(animals)
    parts = split_for_measuring(material, set(), seed=1)
    sides = [{material.documents[place] for place in side} for side in (parts.train, parts.dev, parts.test)]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 240
    write_judged(animals, material, parts, tmp_path, replace(SMALL, queries=20), made=True)
    pairs = {(example.query, example.positives[0]) for example in material.examples}
    for split in ("dev", "test"):
        dataset = read_dataset(tmp_path, split)
        assert len(dataset.queries) == 20
        texts = {document.id: document for document in dataset.documents()}
        assert len(texts) == 120
        for query, grades in dataset.qrels.items():
            [document] = grades
            assert (document,) in sides[1 if split == "dev" else 2]
            assert (dataset.queries[query], texts[document].text) in pairs  # the text that the query was taken from
            assert texts[document].title == ""


def test_people_s_queries_alone_are_measured_on_and_their_documents_teach_nothing(animals: Collection) -> None:
    queries = {f"q{number}": f"what does animal {number} do" for number in range(80)}
    qrels = {f"q{number}": {f"d{number}": 1} for number in range(80)}
    material = of_collection(animals, queries=queries, qrels=qrels)
    parts = split_for_measuring(material, set(queries.values()), seed=0)
    asked = {place for place in range(len(material.examples)) if material.examples[place].query in queries.values()}
    assert set(parts.dev) | set(parts.test) <= asked
    assert len(parts.dev) == len(parts.test) == 20
    held = {document for place in [*parts.dev, *parts.test] for document in material.documents[place]}
    assert all(held.isdisjoint(material.documents[place]) for place in parts.train)
    assert len(parts.train) == 40 + 3 * 200  # the other half, and what is made of the other documents


def test_too_few_queries_are_refused(animals: Collection, tmp_path: Path) -> None:
    material = of_collection(animals, limit=30, ways=["title"])
    parts = split_for_measuring(material, set(), seed=0)
    with pytest.raises(DataError, match="3 queries for dev, too few to measure by"):
        write_judged(animals, material, parts, tmp_path, SMALL, made=True)


def test_the_pipelines_that_are_tried() -> None:
    stage = RerankSettings("old", candidates=10)
    before = Recipe(rerank=(stage, RerankSettings(kind="maxsim")))
    known = candidates(before, "student", "teacher", 30)
    assert list(known) == [AS_IT_WAS, "adapted encoder", "as it was, reranked", "adapted encoder, reranked"]
    both = known["adapted encoder, reranked"]
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
    monkeypatch.setattr(adapting, "Miner", lambda *given, **options: pytest.fail("mined again"))
    assert adapt(animals, SMALL).dev


def better(report: AdaptReport, recipe: Recipe) -> AdaptReport:
    return replace(report, switched=True, recipe=recipe)


@needs_torch
def test_a_better_pipeline_is_taken_and_the_old_recipe_kept(animals: Collection, other_tiny_model: Path) -> None:
    report = adapt(animals, SMALL)
    if report.switched:
        pytest.skip("it was taken at once")
    [folder] = (animals.path / "adapt").iterdir()
    wanted = animals.recipe.with_model(str(other_tiny_model))
    (folder / "report.json").write_text(json.dumps(better(report, wanted).as_json()))
    taken = adapt(animals, SMALL)  # as after a kill between the decision and the switch
    assert taken.switched
    assert animals.recipe.encoder.model == str(other_tiny_model)
    assert Recipe.load(animals.path / "recipe.toml.before") != animals.recipe
    assert any("not calibrated" in note for note in taken.notes)
    assert "now searches with it" in str(taken)
    assert len(animals.search("fox in the forest")) == 10


@needs_torch
@pytest.mark.filterwarnings("ignore::twinrank.errors.TruncationWarning")  # the tiny models take few tokens
def test_a_teacher_is_trained_teaches_and_may_rerank(
    make: Callable[..., Collection], tiny_model: Path, tiny_cross_encoder: Path
) -> None:
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
