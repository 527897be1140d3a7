"""The commands that train: a recipe in, a folder and a report out, and a sentence where something is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from twinrank import Collection
from twinrank.cli import main
from twinrank.readers import read_dataset
from twinrank.train.data import Example, read_examples, write_examples
from twinrank.train.settings import DataSettings, LossSettings, ModelSettings, TrainingSettings, TrainSettings


@pytest.fixture
def write_recipe(tiny_model: Path, tmp_path: Path, examples: list[Example]) -> Path:
    file = tmp_path / "examples.jsonl"
    write_examples([Example(one.query, one.positives, one.negatives) for one in examples], file)
    settings = TrainSettings(
        ModelSettings(parent=str(tiny_model), max_tokens=32),
        DataSettings(str(file), negatives=2),
        LossSettings("kl"),
        TrainingSettings(steps=3, batch=8, checkpoint=2),
    )
    (tmp_path / "student.toml").write_text(settings.to_toml())
    plain = settings.to_toml().replace('kind = "kl"', 'kind = "infonce"')
    (tmp_path / "plain.toml").write_text(plain)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = 0
    try:
        main(arguments)
    except SystemExit as ended:
        status = int(ended.code or 0)
    said = capsys.readouterr()
    return status, said.out, said.err


@pytest.mark.usefixtures("with_torch")
def test_train_writes_a_model_beside_the_recipe_or_where_it_is_told(
    write_recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = run(capsys, "train", str(write_recipe / "plain.toml"))
    assert status == (0 if (write_recipe / "plain" / "model").is_dir() else 1)
    assert out.startswith("40 examples, 3 steps, ")
    status, out, _ = run(capsys, "train", str(write_recipe / "plain.toml"), "--out", str(write_recipe / "there"), "--json")
    assert json.loads(out)["steps"] == 3
    assert (write_recipe / "there" / "report.json").exists()
    status, out, err = run(capsys, "train", str(write_recipe / "plain.toml"))
    assert (status, out) == (1, "")
    assert "holds this training, finished" in err


@pytest.mark.usefixtures("with_torch")
def test_examples_with_too_few_negatives_are_not_asked_about(
    write_recipe: Path, tiny_cross_encoder: Path, examples: list[Example], capsys: pytest.CaptureFixture[str]
) -> None:
    """A mixed list would stand 1 and 0 beside a teacher's scores."""
    lacking = [
        Example(one.query, one.positives, one.negatives[: 3 if place >= 10 else 1]) for place, one in enumerate(examples)
    ]
    write_examples(lacking, write_recipe / "examples.jsonl")
    mse = (write_recipe / "student.toml").read_text().replace('kind = "kl"', 'kind = "mse"')
    (write_recipe / "student.toml").write_text(mse.replace('"bi-encoder"', '"cross-encoder"'))
    status, out, err = run(capsys, "distill", str(write_recipe / "student.toml"), "--teacher", str(tiny_cross_encoder))
    assert status == (0 if (write_recipe / "student" / "model").is_dir() else 1)
    assert "30 examples, 3 steps" in out
    assert "10 of 40 examples have fewer negatives of their own than 2" in err
    (scores,) = (write_recipe / "student.scores").iterdir()
    assert scores.stat().st_size == 30 * 5 * 20


@pytest.mark.usefixtures("with_torch")
def test_distill_looks_at_everything_before_it_asks(
    write_recipe: Path, tiny_cross_encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*options: str) -> str:
        status, _, err = run(capsys, "distill", str(write_recipe / "student.toml"), *options)
        assert status == 1
        assert not list(write_recipe.glob("*.scores"))
        return err

    teacher = ("--teacher", str(tiny_cross_encoder))
    assert "nowhere" in refused(*teacher, "--teacher", str(write_recipe / "nowhere"), "--out", str(write_recipe / "a"))
    assert not (write_recipe / "a").exists()
    (write_recipe / "taken").mkdir()
    (write_recipe / "taken" / "letter.txt").write_text("mine")
    assert "not empty and holds no training" in refused(*teacher, "--out", str(write_recipe / "taken"))
    guarded = (write_recipe / "student.toml").read_text().replace('data = ""', f'data = "{write_recipe / "gone"}"')
    (write_recipe / "student.toml").write_text(guarded)
    assert "gone is no folder" in refused(*teacher)


@pytest.mark.usefixtures("with_torch")
def test_a_recipe_without_suffix_or_without_examples_is_told(write_recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (write_recipe / "plain.toml").read_text()
    (write_recipe / "bare").write_text(text)
    status, _, err = run(capsys, "train", str(write_recipe / "bare"))
    assert status == 2
    assert "has no suffix to leave out for the name of a folder beside it; give --out DIR" in err
    file = f'train = "{write_recipe / "examples.jsonl"}"'
    assert file in text
    (write_recipe / "none.toml").write_text(text.replace(file, 'train = ""'))
    status, _, err = run(capsys, "train", str(write_recipe / "none.toml"))
    assert status == 1
    assert "data, train: expected a file of examples or a folder in BEIR's layout" in err


@pytest.mark.usefixtures("with_torch")
def test_distill_asks_the_teacher_once_and_trains_the_student(
    write_recipe: Path, tiny_cross_encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = run(capsys, "distill", str(write_recipe / "student.toml"), "--teacher", str(tiny_cross_encoder))
    assert status == (0 if (write_recipe / "student" / "model").is_dir() else 1)
    assert "40 examples, 3 steps" in out
    (scores,) = (write_recipe / "student.scores").iterdir()
    assert scores.stat().st_size == 40 * 5 * 20  # a record of 20 bytes for every pair


def test_examples_are_held_apart_from_a_test_set_that_lies_elsewhere(
    tmp_path: Path, examples: list[Example], capsys: pytest.CaptureFixture[str]
) -> None:
    write_examples(examples, tmp_path / "examples.jsonl")
    (tmp_path / "judged" / "qrels").mkdir(parents=True)
    held = {str(place): examples[place] for place in (3, 7, 9)}
    for name, texts in (
        ("queries", {key: example.query for key, example in held.items()}),
        ("corpus", {key: example.positives[0] for key, example in held.items()}),
    ):
        lines = [json.dumps({"_id": key, "text": text}) for key, text in texts.items()]
        (tmp_path / "judged" / f"{name}.jsonl").write_text("\n".join(lines))
    for split, key in (("train", "3"), ("dev", "7"), ("test", "9")):
        (tmp_path / "judged" / "qrels" / f"{split}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{key}\t{key}\t1\n")

    def mine(held_out: Path) -> tuple[int, str, str]:
        return run(
            capsys,
            *("mine", str(tmp_path / "examples.jsonl"), "--by", "words", "--json"),
            *("--held-out", str(held_out), "--out", str(tmp_path / "mined.jsonl")),
        )

    status, out, _ = mine(tmp_path / "judged")
    told = json.loads(out)
    assert (status, told["examples"]) == (0, 38)  # what others learn from may be learned from
    assert (told["leaks"]["split"], told["leaks"]["counts"]) == ("dev, test", {"same query": 2})
    status, _, err = mine(tmp_path)
    assert status == 2
    assert "is no folder with judgments for a split beside train" in " ".join(err.split())


def test_a_collections_examples_come_with_a_dev_set_of_other_documents(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        f"{first}{second}"
        for first in ("bread", "honey", "zinc", "ginger")
        for second in ("sleep", "water", "salt", "light") * 16
    ]
    documents = [
        {
            "id": f"d{place}",
            "title": f"On {word} {place}",
            "text": f"A word on {word}{place}. It helps {place} men. They eat it.",
        }
        for place, word in enumerate(words)
    ]
    with Collection(tmp_path / "notes", model="none") as notes:
        notes.add(documents)
    common = ("mine", "-c", str(tmp_path / "notes"), "--by", "words", "--count", "1", "--out", str(tmp_path / "mined.jsonl"))
    status, _, err = run(capsys, *common, "--dev", str(tmp_path / "judged"))
    assert status == 0, err
    held = [read_dataset(tmp_path / "judged", split) for split in ("dev", "test")]
    measured_on = [{document for grades in one.qrels.values() for document in grades} for one in held]
    assert all(len(found) >= 20 for found in measured_on)
    learned_from = {example.document for example in read_examples(tmp_path / "mined.jsonl")}
    assert len(learned_from) > 100
    assert learned_from.isdisjoint(set().union(*measured_on))
    status, _, err = run(capsys, *common, "--dev", str(tmp_path / "judged"))
    assert status == 2
    assert "something is there; give a new folder" in " ".join(err.split())
    status, _, err = run(capsys, "mine", str(tmp_path / "mined.jsonl"), "--out", "x", "--dev", str(tmp_path / "other"))
    assert "--dev parts what is made of a collection" in " ".join(err.split())


def test_a_loss_that_learns_from_no_scores_needs_no_teacher(write_recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "distill", str(write_recipe / "plain.toml"), "--teacher", "whoever")
    assert status == 1
    assert "the loss infonce learns from no scores; take margin-mse or kl" in err


def test_a_recipe_that_is_wrong_is_told_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "wrong.toml").write_text("[training]\nbach = 3")
    status, _, err = run(capsys, "train", str(tmp_path / "wrong.toml"))
    assert status == 1
    assert "unknown key 'bach'; did you mean 'batch'?" in err


def test_without_torch_the_extra_is_named(
    write_recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twinrank.train.networks.NEEDED", ("a_torch_that_is_not_there",))
    status, _, err = run(capsys, "train", str(write_recipe / "plain.toml"))
    assert status == 1
    assert "pip install 'twinrank[train]'" in err
