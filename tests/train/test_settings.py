"""Training recipes: what is left out has its default, what is wrong is named, and what is written reads back."""

from __future__ import annotations

from pathlib import Path

import pytest

from twinrank.errors import RecipeError
from twinrank.tables import tomllib
from twinrank.train import settings as module
from twinrank.train.settings import LossSettings, ModelSettings, TrainSettings

PAIRS = "[model]\narchitecture = 'cross-encoder'\n[loss]\n"


def test_an_empty_recipe_is_the_default_one() -> None:
    assert TrainSettings.parse("") == TrainSettings()


def test_a_recipe_reads_back_as_it_was_written() -> None:
    recipe = TrainSettings.parse('[model]\narchitecture = "cross-encoder"\nfrozen = -1\n[loss]\nkind = "softmax"')
    assert recipe.model == ModelSettings("cross-encoder", frozen=-1)
    assert TrainSettings.parse(recipe.to_toml()) == recipe


def test_the_recipe_that_the_file_shows_is_whole_and_can_be_read() -> None:
    shown = (module.__doc__ or "").partition("\n\n")[2]
    tables = tomllib.loads(shown)
    assert {name: set(table) for name, table in tables.items()} == {
        name: set(table) for name, table in tomllib.loads(TrainSettings().to_toml()).items()
    }
    TrainSettings.parse(shown)


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("[modle]\nfrozen = 1", "unknown key 'modle'; did you mean 'model'?"),
        ("[training]\nbatchsize = 1", "training: unknown key 'batchsize'; did you mean 'batch'?"),
        ("[training]\nbatch = 'many'", "training, batch: expected int, got 'many'"),
        ("[training]\nbatch = 0", "training, batch: expected 1 to"),
        ("[training]\nepochs = 0", "epochs and steps are both 0"),
        ("[model]\narchitecture = 'colbert'", "expected one of bi-encoder, twin-tower, late-interaction, cross-encoder"),
        ("[model]\ndimension = 8", "a bi-encoder has none"),
        ("[model]\nfrozen = -1", "nothing is left to train"),
        ("[model]\nfrozen = 2\nlora = 8", "leave one of the two"),
        ("[loss]\nkind = 'bce'", "loss, kind, of a bi-encoder: expected one of infonce"),
        ("[model]\narchitecture = 'cross-encoder'\n[loss]\nkind = 'infonce'", "of a cross-encoder: expected one of bce"),
        ("[loss]\nkind = 'triplet'\n[data]\nnegatives = 0", "triplet compares a passage with one that does not answer"),
        ("[loss]\nkind = 'kl'\nqueue = 10", "loss, queue: is infonce's"),
        ("[loss]\nlabels = 1.0", "loss, labels: is kl's"),
        ("[loss]\nkind = 'kl'\nchunk = 10", "gradients are cached for infonce"),
        ("[loss]\nchunk = 4\nqueue = 10", "not cached with a queue"),
        ("[loss]\nsymmetric = true\nqueue = 10", "a queue holds passages and no queries"),
        ("[training]\nbatch = 1\n[data]\nnegatives = 0", "takes its negatives from the batch"),
        ("[guard]\nsplit = 'test'", "the test split is for the figures at the end"),
        ("[data]\nsplit = 'test'", "data, split: the test split is for the figures at the end"),
        ("[loss]\nmargin = 3.0", "loss, margin: infonce has none"),
        ("[loss]\nkind = 'triplet'\ntemperature = 2.0", "loss, temperature: triplet of a bi-encoder has none"),
        (f"{PAIRS}kind = 'bce'\ntemperature = 3.0", "loss, temperature: bce of a cross-encoder has none"),
        (f"{PAIRS}kind = 'margin-mse'\ntemperature = 0.1", "loss, temperature: margin-mse of a cross-encoder has none"),
        ("[loss]\nmomentum = 0.9", "loss, momentum: is of the tower that encodes a queue's passages"),
        ("[training]\nhead_rate = 0.1", "training, head_rate: a bi-encoder without a projection has no part"),
        (f"{PAIRS}kind = 'softmax'\n[refresh]\nevery = 5", "refresh, every: a cross-encoder finds no passages"),
        ("[loss]\nkind = 'kl'\n[refresh]\nevery = 5", "refresh, every: kl needs a teacher's scores"),
        ("[data]\nnegatives = 0\n[refresh]\nevery = 5", "refresh, every: with negatives = 0 nothing"),
    ],
)
def test_what_is_wrong_is_named(toml: str, said: str) -> None:
    with pytest.raises(RecipeError) as refused:
        TrainSettings.parse(toml)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "toml",
    [
        "[loss]\nkind = 'margin-mse'\ntemperature = 0.1",
        "[loss]\nkind = 'contrastive'\nmargin = 0.3",
        f"{PAIRS}kind = 'margin'\nmargin = 2.0\n[training]\nhead_rate = 0.1",
        "[model]\narchitecture = 'late-interaction'\ndimension = 8\n[training]\nhead_rate = 0.1\n[refresh]\nevery = 5",
        "[loss]\nqueue = 10\nmomentum = 0.9",
    ],
)
def test_what_a_loss_and_an_architecture_have_may_be_set(toml: str) -> None:
    recipe = TrainSettings.parse(toml)
    assert TrainSettings.parse(recipe.to_toml()) == recipe


def test_what_python_gives_is_checked_too() -> None:
    with pytest.raises(RecipeError, match="momentum"):
        TrainSettings(loss=LossSettings(momentum=2.0))


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"none\.toml.*give a TOML file"):
        TrainSettings.load(tmp_path / "none.toml")
