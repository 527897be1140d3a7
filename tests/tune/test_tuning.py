"""Tuning as a whole, and its command: repeatable, measured, written whole, and refused where it would mean nothing."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from twinrank.archive import export, import_
from twinrank.cli import twinrank
from twinrank.collection import Collection
from twinrank.errors import InputError
from twinrank.evaluate.memory import own_peak
from twinrank.readers import Dataset
from twinrank.recipe import EncoderSettings, Recipe, RetrieveSettings
from twinrank.tune.kept import keep, last_tuning
from twinrank.tune.page import page, plot
from twinrank.tune.report import as_json, table, write_recipe
from twinrank.tune.space import Space, default_knobs
from twinrank.tune.tuning import Budget, Limits, Tuning, tune

pytest.importorskip("optuna")
pytestmark = pytest.mark.filterwarnings("ignore::twinrank.errors.TruncationWarning")

BUDGET = Budget(trials=12, folds=3, finalists=2, timed_queries=10)
WORDS = Recipe(encoder=EncoderSettings("none"))


@pytest.fixture(scope="module")
def outputs_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def run(dataset: Dataset, base: Recipe, folder: Path, limits: Limits | None = None) -> Tuning:
    space = Space(base, default_knobs(base)).with_values("passages.size", [str(base.passages.size)])
    return tune(dataset, limits or Limits(5000), base=base, space=space, budget=BUDGET, folder=folder)


@pytest.fixture(scope="module")
def tuning(dataset: Dataset, base: Recipe, outputs_folder: Path) -> Tuning:
    return run(dataset, base, outputs_folder)


def test_the_same_seed_gives_the_same_pipelines_and_figures(
    tuning: Tuning, dataset: Dataset, base: Recipe, outputs_folder: Path
) -> None:
    again = run(dataset, base, outputs_folder)
    assert (again.pipelines, again.choice) == (tuning.pipelines, tuning.choice)
    assert {row.recipe: row.quality for row in again.finalists} == {row.recipe: row.quality for row in tuning.finalists}


def test_the_pick_and_the_default_were_measured_and_searched_as_they_were_judged(tuning: Tuning) -> None:
    recipes = {row.recipe for row in tuning.finalists}
    assert {tuning.choice.recipe, tuning.default} <= recipes
    for row in tuning.finalists:
        assert 0 < row.measured.p50 <= row.measured.p95
        assert len(row.measured.milliseconds) == BUDGET.timed_queries
        assert 20 < row.measured.memory < 2000
        assert row.measured.differing == 0


def test_the_pick_keeps_the_limits(tuning: Tuning) -> None:
    assert tuning.pick.measured.p95 <= tuning.limits.deadline


def test_the_table_tells_the_pick_the_default_and_how_little_so_few_queries_show(tuning: Tuning) -> None:
    shown = table(tuning)
    assert "notes, split train: 30 queries over 60 documents" in shown
    assert "the pick: " in shown
    assert "30 queries show a difference of" in shown
    assert "WARNING" not in shown


def test_the_json_holds_recipes_that_can_be_read_back(tuning: Tuning) -> None:
    told = json.loads(json.dumps(as_json(tuning)))
    assert Recipe.parse(told["pick"]["recipe"]) == tuning.choice.recipe
    assert [Recipe.parse(row["recipe"]) for row in told["finalists"]] == [row.recipe for row in tuning.finalists]


def test_the_page_holds_a_point_and_a_recipe_for_each_finalist_and_loads_nothing(tuning: Tuning) -> None:
    shown = page(tuning)
    assert shown.count("<details") == plot(tuning).count("<li>") == len(tuning.finalists)
    assert plot(tuning).count("the pick: ") == 2  # in the plot and in the list below it
    assert not re.search(r"(src|href)=|url\(", shown)


def test_the_recipe_is_written_with_the_one_before_kept(tuning: Tuning, tmp_path: Path) -> None:
    target = tmp_path / "recipe.toml"
    assert write_recipe(tuning, target) is None
    assert Recipe.load(target) == tuning.choice.recipe
    target.write_text("# mine\n[retrieve]\nwords = 3\n")
    before = write_recipe(tuning, target)
    assert before == tmp_path / "recipe.toml.before"
    assert before.read_text() == "# mine\n[retrieve]\nwords = 3\n"
    assert Recipe.load(target) == tuning.choice.recipe
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(0.001), "the fastest measured .* takes .* ms at p95"),
        (Limits(5000, memory=1), "the smallest process"),
        (Limits(5000, min_ndcg=0.999), "the best has 0"),
    ],
)
def test_limits_that_nothing_keeps_are_refused_with_what_can_be_had(
    dataset: Dataset, outputs_folder: Path, limits: Limits, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        run(dataset, WORDS, outputs_folder, limits)


def test_the_cheapest_that_is_enough_is_taken_where_that_is_asked_for(dataset: Dataset, outputs_folder: Path) -> None:
    best = run(dataset, WORDS, outputs_folder)
    enough = run(dataset, WORDS, outputs_folder, Limits(5000, min_ndcg=0.01))
    assert enough.pick.quality >= 0.01
    assert enough.choice.recipe.retrieve.words <= best.choice.recipe.retrieve.words


@pytest.mark.parametrize("limits", [{"deadline": 0}, {"deadline": -5}, {"memory": 0}, {"min_ndcg": 0}, {"min_ndcg": 1.5}])
def test_limits_that_mean_nothing_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(InputError, match="got"):
        Limits(**limits)


def test_a_test_split_is_refused_with_what_to_take(dataset: Dataset, outputs_folder: Path) -> None:
    with pytest.raises(InputError, match=r"test split.*take --split train"):
        run(replace(dataset, split="test"), WORDS, outputs_folder)


def test_too_few_queries_are_refused(dataset: Dataset, outputs_folder: Path) -> None:
    few = dict(list(dataset.qrels.items())[:19])
    with pytest.raises(InputError, match="19 queries with a relevant document are too few"):
        run(replace(dataset, qrels=few), WORDS, outputs_folder)


def test_a_process_knows_its_peak_memory() -> None:
    assert 10 < own_peak() < 100_000


# -- the command -------------------------------------------------------------------------------------------------------------


def command(judged_folder: Path, folder: Path, *arguments: str) -> tuple[int, str, str]:
    common = ["tune", str(judged_folder), "--deadline", "5000", "--trials", "8", "--folds", "3", "--folder", str(folder)]
    result = CliRunner().invoke(twinrank, [*common, *arguments])
    if isinstance(result.exception, InputError):
        return 1, result.stdout, str(result.exception)
    return result.exit_code, result.stdout, result.stderr


def test_the_command_tunes_a_collection_and_keeps_its_recipe_before(
    judged_folder: Path, outputs_folder: Path, tmp_path: Path
) -> None:
    place = tmp_path / "notes.twinrank"
    with Collection(place, recipe=WORDS) as collection:
        collection.add(judged_folder / "corpus.jsonl")
        assert last_tuning(collection) is None
    code, out, told = command(judged_folder, outputs_folder, "-c", str(place), "--vary", "retrieve.words=20")
    assert code == 0, told
    assert "notes, split train" in out
    with Collection(place, create=False) as collection:
        assert len(collection.search("zinc against a cold")) == 10
        assert collection.recipe.encoder.model == "none"
        kept = last_tuning(collection)
        assert collection.check().ok
        export(collection, tmp_path / "notes.tar")
    assert kept is not None
    assert [row["current"] for row in kept["finalists"]] == [row["pick"] for row in kept["finalists"]]
    assert sum(row["default"] for row in kept["finalists"]) == 1
    with Collection(place, recipe=replace(WORDS, retrieve=RetrieveSettings(words=7))) as asked_otherwise:
        other = last_tuning(asked_otherwise)
    assert other is not None
    assert not any(row["current"] for row in other["finalists"])
    assert not (import_(tmp_path / "notes.tar", tmp_path / "elsewhere") / "tuning.json").exists()  # it was of another machine


def test_a_kept_tuning_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    with Collection(tmp_path / "notes.twinrank", recipe=WORDS) as collection:
        for damaged in ("", "[]", "{}", '{"finalists": [{}]}', '{"finalists": 3}', "\ufeff{"):
            collection.write_text("tuning.json", damaged)
            assert last_tuning(collection) is None
        keep({"finalists": [{"recipe": "[unknown]"}]}, collection)
        assert last_tuning(collection) == {"finalists": [{"recipe": "[unknown]", "current": False}]}


def test_the_command_writes_a_recipe_and_prints_json(judged_folder: Path, outputs_folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "tuned.toml"
    code, out, told = command(
        judged_folder, outputs_folder, "--vary", "encoder.model=none", "--vary", "sources=words",
        "--vary", "maxsim.candidates=0", "--vary", "passages.size=256", "--json",
        "--write", str(target), "--html", str(tmp_path / "report.html"),
    )  # fmt: skip
    assert code == 0, told
    assert Recipe.load(target) == Recipe.parse(json.loads(out)["pick"]["recipe"])
    assert "<svg" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_an_unknown_knob_is_refused_by_the_command(judged_folder: Path, outputs_folder: Path) -> None:
    code, _, told = command(judged_folder, outputs_folder, "--vary", "retrieve.wrods=20")
    assert code == 1
    assert "did you mean 'retrieve.words'" in told
