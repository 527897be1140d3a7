"""The commands that train: by a recipe from examples, and from a teacher's scores."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import click

from twinrank.cli.common import json_option
from twinrank.show import Bar, note, print_json, truncation_as_note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twinrank.train.data import Example
    from twinrank.train.settings import TrainSettings
    from twinrank.train.trainer import Progress, Teach

EVERY = 30.0
"""Seconds between two lines of progress where no bar can be drawn."""

out_option = click.option(
    "--out", metavar="DIR", help="Where the model, the report and the checkpoints go (default: beside the recipe, its name)."
)
resume_option = click.option("--resume", is_flag=True, help="Go on from the last checkpoint of an interrupted training.")


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="RECIPE.toml")
@out_option
@resume_option
@json_option
def train(recipe: Path, out: str | None, resume: bool, as_json: bool) -> None:
    """Train a model by a recipe: bi-encoder, twin tower, late interaction or cross-encoder; a guard judges it on dev.

    The recipe names parent, examples, loss and schedule; docs/training.md tells what may stand in it. Needs twinrank[train].

    \b
    twinrank train recipe.toml --out trained/
    """
    from twinrank.train.settings import TrainSettings

    settings = TrainSettings.load(recipe)
    _run(settings, recipe, out, resume, as_json, None)


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="RECIPE.toml")
@click.option(
    "--teacher", "teachers", multiple=True, required=True, metavar="NAME", help="A cross-encoder; several teach together."
)
@out_option
@resume_option
@json_option
def distill(recipe: Path, teachers: tuple[str, ...], out: str | None, resume: bool, as_json: bool) -> None:
    """Train a smaller or faster model to score as a cross-encoder does: its scores are asked once, and kept.

    The recipe's loss is one that learns from scores: kl or margin-mse, of a cross-encoder also mse and ranknet.

    \b
    twinrank distill recipe.toml --teacher cross-encoder/ms-marco-MiniLM-L6-v2 --out student/
    """
    from twinrank.errors import InputError
    from twinrank.train.distill import teach
    from twinrank.train.settings import SCORED, TrainSettings

    settings = TrainSettings.load(recipe)
    learns = (*SCORED, "mse", "ranknet") if settings.model.architecture == "cross-encoder" else SCORED
    if settings.loss.kind not in learns:
        raise InputError(f"{recipe}: the loss {settings.loss.kind} learns from no scores; take {' or '.join(learns)}")
    folder = _place(recipe, out).with_name(f"{_place(recipe, out).name}.scores")

    def ask(examples: Sequence[Example]) -> Sequence[Example]:
        with Bar("pairs", None) as bar:
            return teach(examples, teachers, folder=folder, progress=bar.reach)

    _run(settings, recipe, out, resume, as_json, ask)


def _run(settings: TrainSettings, recipe: Path, out: str | None, resume: bool, as_json: bool, teach: Teach | None) -> None:
    from twinrank.train.material import refresher
    from twinrank.train.trainer import report_as_json
    from twinrank.train.trainer import train as run

    with _Shown() as shown, truncation_as_note():
        refresh = refresher(settings) if settings.refresh.every else None
        report = run(
            settings,
            _place(recipe, out),
            teach=teach,
            resume=resume,
            refresh=refresh,
            progress=shown.update,
            say=note,
        )
    if as_json:
        print_json(report_as_json(report))
    else:
        click.echo(str(report))
    if report.folder is None:
        click.get_current_context().exit(1)


def _place(recipe: Path, out: str | None) -> Path:
    if out is None and not recipe.suffix:
        raise click.UsageError(f"{recipe} has no suffix to leave out for the name of a folder beside it; give --out DIR")
    return recipe.with_suffix("") if out is None else Path(out)


class _Shown:
    """Loss, rate and time left on standard error: a bar on a terminal, elsewhere a line now and then."""

    def __init__(self) -> None:
        self._bar: Bar | None = None
        self._told = perf_counter()

    def __enter__(self) -> _Shown:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.__exit__()

    def update(self, progress: Progress) -> None:
        if self._bar is None:
            self._bar = Bar("steps", progress.steps)
        self._bar.reach(progress.step, progress.steps)
        self._bar.say(f"loss {progress.loss:.4g}, {progress.rate:.3g} queries/s")
        if self._bar.silent and perf_counter() - self._told >= EVERY:
            self._told = perf_counter()
            left = progress.seconds_left
            note(
                f"step {progress.step:,} of {progress.steps:,}, loss {progress.loss:.4g}, {progress.rate:.3g} queries/s, "
                f"{left / 60:.0f} minutes left"
            )
