"""`twinrank eval`: recipes told apart, a baseline named, wishes refused before anything is run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from twinrank.cli import twinrank
from twinrank.errors import InputError
from twinrank.readers import Dataset

WORDS = '[encoder]\nmodel = "none"\n[retrieve]\nvectors = 0\n'


@pytest.fixture
def recipes(tmp_path: Path) -> list[str]:
    """Two files of one name."""
    for folder, language in (("a", "russian"), ("b", "english")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.toml").write_text(f'{WORDS}[words]\nlanguage = "{language}"\n')
    return [str(tmp_path / folder / "mine.toml") for folder in "ab"]


def run(dataset: Dataset, *options: str) -> Result:
    kept = str(dataset.folder.parent / "kept")
    return CliRunner().invoke(twinrank, ["eval", str(dataset.folder), "--folder", kept, *options])


def test_two_files_of_one_name_are_two_recipes(remedies: Dataset, recipes: list[str]) -> None:
    told = run(remedies, "--recipe", recipes[0], "--recipe", recipes[1], "--baseline", recipes[0], "--json")
    assert told.exit_code == 0, told.output
    document = json.loads(told.stdout)
    assert list(document["recipes"]) == ["a/mine", "b/mine"]
    assert document["baseline"] == "a/mine"
    assert list(document["differences"]["nDCG@10"]) == ["b/mine"]
    by_name = run(remedies, "--recipe", recipes[0], "--recipe", recipes[1], "--baseline", "b/mine", "--per-query")
    assert "nDCG@10 minus that of b/mine" in by_name.stdout
    assert by_name.stdout.splitlines()[-1].count("\t") == 6


def test_a_baseline_that_is_not_there_and_unknown_measures_are_refused_before_the_run(
    remedies: Dataset, recipes: list[str]
) -> None:
    told = run(remedies, "--recipe", recipes[0], "--baseline", "theirs")
    assert told.exit_code == 2
    assert "--baseline theirs is none of the recipes: mine" in told.output
    told = run(remedies, "--recipe", recipes[0], "--measure", "nDGC@10")
    assert isinstance(told.exception, InputError)
    assert not (remedies.folder.parent / "kept").exists()


def test_a_collection_is_asked_as_it_is_by_its_own_recipe_or_by_others(remedies: Dataset, recipes: list[str]) -> None:
    for place in (str(remedies.folder.parent / "kept.twinrank"), "memory:///eval"):
        index = ["index", str(remedies.folder / "corpus.jsonl"), "-c", place, "--recipe", recipes[1]]
        assert CliRunner().invoke(twinrank, index).exit_code == 0
        told = run(remedies, "-c", place, "--json")
        assert told.exit_code == 0, told.output
        document = json.loads(told.stdout)
        assert list(document["recipes"]) == ["its own"]
        assert document["recipes"]["its own"]["measures"]["nDCG@10"] == 1.0
        told = run(remedies, "-c", place, "--recipe", recipes[1], "--json")
        assert list(json.loads(told.stdout)["recipes"]) == ["mine"]
        assert not (remedies.folder.parent / "kept").exists()
    told = run(remedies, "-c", str(remedies.folder.parent / "nowhere"))
    assert "there is no collection at" in str(told.exception)


def test_what_a_collection_lacks_is_told_as_unknown(remedies: Dataset, recipes: list[str]) -> None:
    place = "memory:///part"
    first = (remedies.folder / "corpus.jsonl").read_text(encoding="utf-8").splitlines()[0]
    (remedies.folder.parent / "part.jsonl").write_text(first + "\n", encoding="utf-8")
    index = ["index", str(remedies.folder.parent / "part.jsonl"), "-c", place, "--recipe", recipes[1]]
    assert CliRunner().invoke(twinrank, index).exit_code == 0
    told = run(remedies, "-c", place)
    assert "11 relevant documents of the judgments are not in the corpus" in told.output
