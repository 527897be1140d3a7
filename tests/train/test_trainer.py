"""Trainings: every loss runs and falls, a kill costs nothing but time, and what is trained is in its folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from twinrank import BiEncoder, LateInteraction
from twinrank.errors import DataError, InputError, RecipeError, TwinrankError
from twinrank.models.weights import Tensors
from twinrank.train import trainer
from twinrank.train.data import Example, read_examples, write_examples
from twinrank.train.material import refresher
from twinrank.train.networks import make_network
from twinrank.train.settings import (
    PAIR_LOSSES,
    TOWER_LOSSES,
    Architecture,
    DataSettings,
    GuardSettings,
    LossSettings,
    ModelSettings,
    RefreshSettings,
    TrainingSettings,
    TrainSettings,
)
from twinrank.train.trainer import Progress, train

pytestmark = pytest.mark.usefixtures("with_torch")

TOWERS: tuple[Architecture, ...] = ("bi-encoder", "twin-tower", "late-interaction")


def recipe(parent: Path, architecture: Architecture = "bi-encoder", kind: str = "infonce", **changes: Any) -> TrainSettings:
    training = TrainingSettings(**{"steps": 2, "batch": 8, "rate": 1e-3, "checkpoint": 100, **changes.pop("training", {})})
    dimension = 8 if architecture == "late-interaction" else 0
    return TrainSettings(
        ModelSettings(architecture, str(parent), max_tokens=32, dimension=dimension, **changes.pop("model", {})),
        DataSettings(negatives=2),
        LossSettings(kind, **changes.pop("loss", {})),
        training,
        **changes,
    )


def weights(folder: Path) -> dict[str, Any]:
    """All tensors of a saved model."""
    found = {}
    for file in sorted(folder.rglob("model.safetensors")):
        tensors = Tensors.open(file.parent)
        found |= {f"{file.parent.name}/{name}": tensors.read(name) for name in tensors.names}
    return found


def assert_same_weights(first: Path, second: Path) -> None:
    ours, theirs = weights(first), weights(second)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)


def outcome(folder: Path) -> Path:
    """The model, wherever the guard put it: these are too small to tell much apart."""
    return next(path for name in ("model", "refused") if (path := folder / name).is_dir())


EVERY_LOSS = [
    *((architecture, kind, {}) for architecture in TOWERS for kind in TOWER_LOSSES),
    *(("bi-encoder", "infonce", loss) for loss in ({"symmetric": True}, {"chunk": 4}, {"queue": 20})),
    *(("late-interaction", "infonce", loss) for loss in ({"symmetric": True}, {"chunk": 4}, {"queue": 20})),
    ("twin-tower", "infonce", {"queue": 20}),
    *((architecture, "kl", {"labels": 0.5}) for architecture in ("bi-encoder", "late-interaction")),
    *(("cross-encoder", kind, {}) for kind in PAIR_LOSSES),
]


@pytest.mark.parametrize(
    ("architecture", "kind", "loss"), EVERY_LOSS, ids=[f"{one}-{kind}-{loss}" for one, kind, loss in EVERY_LOSS]
)
def test_every_loss_trains_every_architecture_that_has_it(
    tiny_model: Path, tmp_path: Path, examples: list[Example], architecture: Architecture, kind: str, loss: dict[str, Any]
) -> None:
    report = train(recipe(tiny_model, architecture, kind, loss=loss), tmp_path / "out", examples=examples)
    assert report.steps == 2
    assert np.isfinite([value for _, value in report.history]).all()
    saved = weights(outcome(tmp_path / "out"))
    parent = weights(tiny_model)
    moved = [name for name, value in saved.items() if not any(np.array_equal(value, other) for other in parent.values())]
    assert len(moved) > len(saved) / 2


def test_the_loss_falls_and_the_model_finds_what_it_learned(tiny_model: Path, tmp_path: Path, examples: list[Example]) -> None:
    settings = recipe(tiny_model, model={"dropout": 0.0}, training={"steps": 60, "rate": 5e-3, "batch": 16})
    report = train(settings, tmp_path / "out", examples=examples)
    assert report.history[-1][1] < 0.6 * report.history[0][1]

    def found(folder: Path) -> float:
        encoder = BiEncoder(folder)
        queries = encoder.encode([one.query for one in examples], side="query")
        scores = queries @ encoder.encode([one.positives[0] for one in examples]).T
        return float((scores.argmax(axis=1) == np.arange(len(examples))).mean())

    assert found(outcome(tmp_path / "out")) > found(tiny_model)


@pytest.mark.parametrize(
    ("architecture", "kind", "left_out"), [("bi-encoder", "infonce", True), ("cross-encoder", "bce", False)]
)
def test_a_label_of_0_alone_is_learned_from_where_that_can_be_and_else_told(
    tiny_model: Path, tmp_path: Path, examples: list[Example], architecture: Architecture, kind: str, left_out: bool
) -> None:
    labelled = [Example("flu", (), ("bread",), (0.0,)), *(replace(example, scores=None) for example in examples)]
    report = train(recipe(tiny_model, architecture, kind), tmp_path / "out", examples=labelled)
    assert any("1 of 41 examples were left out" in note for note in report.notes) == left_out


# -- killed and gone on ------------------------------------------------------------------------------------------------------


class KilledError(Exception):
    pass


def kill_at(step: int) -> Any:
    def watch(progress: Progress) -> None:
        if progress.step >= step:
            raise KilledError

    return watch


INTERRUPTED = [
    ("bi-encoder", "infonce", {}),
    ("bi-encoder", "infonce", {"queue": 30, "momentum": 0.9}),
    ("late-interaction", "infonce", {"queue": 10, "momentum": 0.9}),
    ("cross-encoder", "softmax", {}),
    ("twin-tower", "kl", {"labels": 1.0}),
]


@pytest.mark.parametrize(
    ("architecture", "kind", "loss"), INTERRUPTED, ids=[f"{one}-{kind}-{loss}" for one, kind, loss in INTERRUPTED]
)
def test_an_interrupted_training_ends_with_the_weights_of_an_unbroken_one(
    tiny_model: Path, tmp_path: Path, examples: list[Example], architecture: Architecture, kind: str, loss: dict[str, Any]
) -> None:
    training = {"steps": 11, "checkpoint": 4, "accumulate": 2}
    model = {"lora": 2} if architecture == "twin-tower" else {}
    settings = recipe(tiny_model, architecture, kind, loss=loss, training=training, model=model)
    train(settings, tmp_path / "unbroken", examples=examples)
    with pytest.raises(KilledError):
        train(settings, tmp_path / "broken", examples=examples, progress=kill_at(10))
    (tmp_path / "broken" / "checkpoints" / "checkpoint-999").mkdir()  # as a kill leaves one that it comes into
    began: list[int] = []
    train(settings, tmp_path / "broken", examples=examples, resume=True, progress=lambda one: began.append(one.step))
    assert began[0] > 8
    assert_same_weights(outcome(tmp_path / "unbroken"), outcome(tmp_path / "broken"))
    assert not (tmp_path / "broken" / "checkpoints").exists()


@pytest.mark.parametrize(("killed", "steps"), [("judge", 11), ("report_as_json", 8)])
def test_a_training_killed_at_its_very_end_is_gone_on_from(
    tiny_model: Path, tmp_path: Path, examples: list[Example], monkeypatch: pytest.MonkeyPatch, killed: str, steps: int
) -> None:
    """While it is judged, or when the model is in its place and the report is not there yet."""
    settings = recipe(tiny_model, training={"steps": steps, "checkpoint": 4}, refresh=RefreshSettings(every=4))
    write_examples(examples, tmp_path / "examples.jsonl")
    mine = refresher(replace(settings, data=replace(settings.data, train=str(tmp_path / "examples.jsonl"))))
    train(settings, tmp_path / "unbroken", examples=examples, refresh=mine)

    def die(*given: Any, **options: Any) -> Any:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(trainer, killed, die)
        with pytest.raises(KilledError):
            train(settings, tmp_path / "broken", examples=examples, refresh=mine)
    learned: list[int] = []
    train(
        settings,
        tmp_path / "broken",
        examples=examples,
        refresh=mine,
        resume=True,
        progress=lambda one: learned.append(one.step),
    )
    assert learned == []  # nothing is learned twice
    assert_same_weights(outcome(tmp_path / "unbroken"), outcome(tmp_path / "broken"))
    assert {path.name for path in (tmp_path / "broken").iterdir()} == {path.name for path in (tmp_path / "unbroken").iterdir()}


KILLER = """
import os, signal, sys
from pathlib import Path
from twinrank.train.settings import TrainSettings
from twinrank.train.trainer import train

place = Path(sys.argv[1])
settings = TrainSettings.load(place / "settings.toml")
train(settings, place / "broken", progress=lambda one: os.kill(os.getpid(), signal.SIGKILL) if one.step >= 10 else None)
"""


def test_a_killed_process_costs_nothing_but_time(tiny_model: Path, tmp_path: Path, examples: list[Example]) -> None:
    write_examples(examples, tmp_path / "examples.jsonl")
    settings = recipe(tiny_model, loss={"queue": 30}, training={"steps": 14, "checkpoint": 4})
    settings = replace(settings, data=replace(settings.data, train=str(tmp_path / "examples.jsonl")))
    (tmp_path / "settings.toml").write_text(settings.to_toml())
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    died = subprocess.run([sys.executable, "-c", KILLER, str(tmp_path)], env=environment, capture_output=True, check=False)
    assert died.returncode == -9, died.stderr.decode()
    assert sorted(path.name for path in (tmp_path / "broken" / "checkpoints").glob("*/whole"))
    train(settings, tmp_path / "broken", resume=True)
    train(settings, tmp_path / "unbroken")
    assert_same_weights(outcome(tmp_path / "unbroken"), outcome(tmp_path / "broken"))


def test_refreshed_negatives_are_those_of_an_unbroken_training(
    tiny_model: Path, tmp_path: Path, examples: list[Example]
) -> None:
    """Negatives depend on the weights at the time, so that going on with others would end elsewhere."""
    settings = recipe(tiny_model, training={"steps": 12, "checkpoint": 3}, refresh=RefreshSettings(every=4))
    asked: list[int] = []

    def mine(folder: Path, given: Sequence[Example], number: int) -> list[Example]:
        vectors = BiEncoder(folder).encode([one.query for one in given])
        asked.append(len(given))
        far = (vectors @ vectors.T).argmin(axis=1)
        return [replace(one, negatives=given[int(place)].positives, scores=None) for one, place in zip(given, far, strict=True)]

    train(settings, tmp_path / "unbroken", examples=examples, refresh=mine)
    assert asked == [40, 40]
    with pytest.raises(KilledError):
        train(settings, tmp_path / "broken", examples=examples, refresh=mine, progress=kill_at(10))
    assert len(asked) == 4
    train(settings, tmp_path / "broken", examples=examples, refresh=mine, resume=True)
    assert len(asked) == 4  # the last checkpoint is of step 9, in the last round
    assert_same_weights(outcome(tmp_path / "unbroken"), outcome(tmp_path / "broken"))
    assert read_examples(tmp_path / "broken" / "mined-2.jsonl") == read_examples(tmp_path / "unbroken" / "mined-2.jsonl")
    with pytest.raises(InputError, match="give train\\(\\) a way to mine"):
        train(settings, tmp_path / "without", examples=examples)


@pytest.mark.parametrize("architecture", ["bi-encoder", "late-interaction"])
def test_what_a_resumed_training_mines_is_what_an_unbroken_one_does(
    tiny_model: Path, tmp_path: Path, examples: list[Example], architecture: Architecture
) -> None:
    """In another process, whose miner has not seen the rounds before."""
    write_examples(examples, tmp_path / "examples.jsonl")
    settings = recipe(tiny_model, architecture, training={"steps": 9, "checkpoint": 3}, refresh=RefreshSettings(every=3))
    settings = replace(settings, data=replace(settings.data, train=str(tmp_path / "examples.jsonl")))
    train(settings, tmp_path / "unbroken", refresh=refresher(settings))
    mines = refresher(settings)

    def die(folder: Path, given: Sequence[Example], number: int) -> list[Example]:
        if number == 2:
            raise KilledError
        return mines(folder, given, number)

    with pytest.raises(KilledError):
        train(settings, tmp_path / "broken", refresh=die)
    train(settings, tmp_path / "broken", refresh=refresher(settings), resume=True)
    first, second, again = (
        read_examples(tmp_path / name) for name in ("unbroken/mined-1.jsonl", "unbroken/mined-2.jsonl", "broken/mined-2.jsonl")
    )
    assert first != second == again
    assert_same_weights(outcome(tmp_path / "unbroken"), outcome(tmp_path / "broken"))


def test_equal_seeds_give_equal_weights_and_other_ones_others(
    tiny_model: Path, tmp_path: Path, examples: list[Example]
) -> None:
    for name, seed in (("first", 0), ("second", 0), ("third", 1)):
        train(recipe(tiny_model, training={"seed": seed}), tmp_path / name, examples=examples)
    assert_same_weights(outcome(tmp_path / "first"), outcome(tmp_path / "second"))
    with pytest.raises(AssertionError):
        assert_same_weights(outcome(tmp_path / "first"), outcome(tmp_path / "third"))


# -- folders, reports, and what is refused -------------------------------------------------------------------------------------


def test_a_folder_of_another_training_is_left_alone(tiny_model: Path, tmp_path: Path, examples: list[Example]) -> None:
    settings = recipe(tiny_model)
    train(settings, tmp_path / "out", examples=examples)
    with pytest.raises(InputError, match="holds this training, finished"):
        train(settings, tmp_path / "out", examples=examples, resume=True)
    with pytest.raises(InputError, match="a training by another recipe"):
        train(recipe(tiny_model, training={"steps": 5}), tmp_path / "out", examples=examples, resume=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty and holds no training"):
        train(settings, tmp_path / "other", examples=examples)
    with pytest.raises(KilledError):
        train(settings, tmp_path / "begun", examples=examples, progress=kill_at(1))
    with pytest.raises(InputError, match="interrupted; go on with --resume"):
        train(settings, tmp_path / "begun", examples=examples)


def test_the_report_tells_how_it_went_and_the_card_how_to_do_it_again(
    tiny_model: Path, tmp_path: Path, examples: list[Example]
) -> None:
    settings = recipe(tiny_model, training={"steps": 25})
    steps: list[Progress] = []
    report = train(settings, tmp_path / "out", examples=examples, progress=steps.append)
    assert [step for step, _ in report.history] == [10, 20]
    assert [one.step for one in steps] == [10, 20]
    assert steps[0].seconds_left > steps[1].seconds_left > 0
    assert steps[0].rate > 0
    told = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (told["examples"], told["steps"]) == (40, 25)
    card = (outcome(tmp_path / "out") / "README.md").read_text()
    shown = card.partition("```toml\n")[2].partition("```")[0]
    assert TrainSettings.parse(shown) == settings


def test_a_training_that_ends_in_no_number_is_not_saved(tiny_model: Path, tmp_path: Path, examples: list[Example]) -> None:
    overflown = [replace(one, scores=(float("inf"), *(one.scores or ())[1:])) for one in examples]
    report = train(recipe(tiny_model, kind="margin-mse", training={"steps": 40}), tmp_path / "out", examples=overflown)
    assert report.folder is None
    assert report.steps == 10  # where that was seen
    assert "no number" in str(report)
    assert not (tmp_path / "out" / "model").exists()

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    told = json.loads((tmp_path / "out" / "report.json").read_text(), parse_constant=refuse)
    assert told["history"] == [[10, None]]


def test_examples_that_the_guard_measures_by_are_told_before_and_after(
    tiny_model: Path, tmp_path: Path, examples: list[Example]
) -> None:
    folder = tmp_path / "judged"
    (folder / "qrels").mkdir(parents=True)
    for name, key, texts in (
        ("corpus", "text", [example.positives[0] for example in examples]),
        ("queries", "text", [example.query for example in examples]),
    ):
        lines = [json.dumps({"_id": str(number), key: text}) for number, text in enumerate(texts)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    for split, places in (("dev", range(30, 35)), ("test", range(35, 40))):
        lines = ["query-id\tcorpus-id\tscore", *(f"{place}\t{place}\t1" for place in places)]
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(lines))
    said: list[str] = []
    settings = recipe(tiny_model, guard=GuardSettings(str(folder)))
    report = train(settings, tmp_path / "out", examples=examples[:38], say=said.append)
    assert [line.partition(" leak into")[0] for line in said] == ["dev: 5 of 38 examples", "test: 3 of 38 examples"]
    assert "test: 3 of 38 examples leak into the part that is measured on: 3 with the same query" in str(report)
    told = json.loads((tmp_path / "out" / "report.json").read_text())["leaks"]
    assert {split: leakage["counts"] for split, leakage in told.items()} == {
        "dev": {"same query": 5},
        "test": {"same query": 3},
    }
    report = train(settings, tmp_path / "apart", examples=examples[:30], say=said.append)
    assert len(said) == 2  # nothing to say before
    assert "test: no leak: 30 examples" in str(report)


def test_a_teacher_is_asked_when_everything_else_is_right(tiny_model: Path, tmp_path: Path, examples: list[Example]) -> None:
    asked: list[int] = []

    def teach(given: Sequence[Example]) -> list[Example]:
        asked.append(len(given))
        return list(given)

    settings = recipe(tiny_model, kind="kl")
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    for wrong, out in (
        (replace(settings, guard=GuardSettings(str(tmp_path / "nowhere"))), "out"),
        (replace(settings, model=replace(settings.model, parent=str(tmp_path / "nowhere"))), "out"),
        (settings, "file"),
        (settings, "full"),
    ):
        with pytest.raises(TwinrankError):
            train(wrong, tmp_path / out, examples=examples, teach=teach)
    with pytest.raises(DataError, match="no example has 2 negatives"):
        train(settings, tmp_path / "out", examples=[Example("alone", ("a passage",))], teach=teach)
    assert asked == []
    assert not (tmp_path / "out").exists()
    few = [replace(one, negatives=one.negatives[:1], scores=None) for one in examples[:4]]
    limited = replace(settings, data=replace(settings.data, limit=20))
    report = train(limited, tmp_path / "out", examples=[*few, *examples[4:]], teach=teach)
    assert asked == [20]
    assert "4 of 40 examples have fewer negatives of their own than 2; they were left out" in str(report)


def test_a_training_without_examples_says_so(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="data, train: expected a file of examples or a folder"):
        train(recipe(tiny_model), tmp_path / "out")


def test_what_the_guard_lacks_is_told_before_anything_is_trained(
    tiny_model: Path, tmp_path: Path, examples: list[Example]
) -> None:
    for guard in (GuardSettings(str(tmp_path / "nowhere")), GuardSettings(measure="niceness")):
        with pytest.raises(TwinrankError):
            train(recipe(tiny_model, guard=guard), tmp_path / "out", examples=examples)
    assert not (tmp_path / "out").exists()


def test_a_training_does_not_go_on_over_other_examples(tiny_model: Path, tmp_path: Path, examples: list[Example]) -> None:
    settings = recipe(tiny_model)
    with pytest.raises(KilledError):
        train(settings, tmp_path / "out", examples=examples, progress=kill_at(1))
    with pytest.raises(InputError, match="a training over other examples"):
        train(settings, tmp_path / "out", examples=examples[1:], resume=True)
    train(settings, tmp_path / "out", examples=examples, resume=True)


def test_what_was_cut_off_is_told(tiny_model: Path, tmp_path: Path, examples: list[Example]) -> None:
    long = [replace(one, positives=(f"{one.positives[0]} {'bread ' * (40 if place < 10 else 1)}",), scores=None)
            for place, one in enumerate(examples)]  # fmt: skip
    settings = recipe(tiny_model)
    settings = replace(settings, model=replace(settings.model, max_tokens=48), data=replace(settings.data, negatives=0))
    report = train(settings, tmp_path / "out", examples=long)
    assert "25% of 40 passages looked at were longer than max_tokens and cut" in str(report)


@pytest.mark.parametrize(("architecture", "kind"), [("bi-encoder", "infonce"), ("cross-encoder", "softmax")])
def test_cut_negatives_and_cut_pairs_are_told(tiny_model: Path, tmp_path: Path, architecture: Architecture, kind: str) -> None:
    """Of a cross-encoder no passage is too long here but with its query; of a bi-encoder half of the passages are."""
    pairs = architecture == "cross-encoder"
    query, negative = ("zinc " * 12, "bread " * 12) if pairs else ("zinc", "bread " * 40)
    given = [Example(f"{query}{number}", (f"honey {number}",), (f"{negative}{number}",)) for number in range(20)]
    settings = recipe(tiny_model, architecture, kind)
    settings = replace(settings, model=replace(settings.model, max_tokens=24), data=replace(settings.data, negatives=1))
    report = train(settings, tmp_path / "out", examples=given)
    share = int(str(report).partition("% of 20 ")[0].rpartition("\n")[2])
    assert 20 <= share <= 80
    assert f"% of 20 {'pairs' if pairs else 'passages'} looked at were longer" in str(report)


def test_fewer_examples_are_drawn_where_the_recipe_limits_them(
    tiny_model: Path, tmp_path: Path, examples: list[Example]
) -> None:
    settings = recipe(tiny_model, training={"steps": 0, "epochs": 2.0})
    settings = replace(settings, data=replace(settings.data, limit=16))
    report = train(settings, tmp_path / "out", examples=examples)
    assert (report.examples, report.steps) == (16, 4)


def test_prompts_of_the_parent_are_those_it_is_trained_with(tiny: Any, tmp_path: Path, examples: list[Example]) -> None:
    from twinrank.train.trainer import _Run

    parent = tiny.write_bi_encoder(tmp_path / "prompted", prompts={"query": "zinc zinc ", "document": "bread "})
    run = _Run(recipe(parent), tmp_path / "out", examples, None, None)
    (row, *_), batch = run.feed[0], run.trainer.train_dataset[0]
    own = BiEncoder(parent, max_tokens=32)
    for column, text, side in (("query", row["query"], "query"), ("positive", row["positive"], "document")):
        ids = batch[f"{column}_input_ids"][0][batch[f"{column}_attention_mask"][0] == 1]
        assert ids.tolist() == own.tokenize([text], side=side).ids.tolist()


def test_late_interactions_projection_learns_on_a_frozen_trunk(
    tiny_model: Path, tmp_path: Path, examples: list[Example]
) -> None:
    train(recipe(tiny_model, "late-interaction", model={"frozen": -1}), tmp_path / "out", examples=examples)
    folder = outcome(tmp_path / "out")
    trunk = {name.partition("/")[2]: value for name, value in weights(tiny_model).items()}
    saved = {name.partition("/")[2]: value for name, value in weights(folder).items()}
    for name, value in trunk.items():
        np.testing.assert_array_equal(saved[name], value)
    begun = make_network(recipe(tiny_model, "late-interaction").model, [one.positives[0] for one in examples], "cpu").model
    assert not np.allclose(saved["linear.weight"], begun[1].linear.weight.detach(), atol=1e-4)
    assert LateInteraction(folder).dimension == 8
