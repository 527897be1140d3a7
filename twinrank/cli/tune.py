"""The command that looks for the best pipeline within a deadline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from twinrank.cli.common import default_split, json_option, open_collection, place
from twinrank.show import Bars, note, print_json, truncation_as_note

if TYPE_CHECKING:
    from twinrank.collection import Collection
    from twinrank.recipe import Recipe
    from twinrank.tune.tuning import Tuning


@click.command()
@click.argument("data", metavar="DATA")
@click.option("--deadline", type=float, default=50.0, show_default=True, metavar="MS", help="What 95 of 100 queries may take.")
@click.option("--memory", type=float, metavar="MB", help="What a process that searches may hold.")
@click.option("--min-ndcg", type=float, metavar="X", help="Take the cheapest that reaches this nDCG@10, not the best.")
@click.option("--split", metavar="NAME", help="Which judgments: train or dev (default: dev, if there). Never test.")
@click.option("--model", "models", multiple=True, metavar="NAME", help="An encoder to try beside the recipe's; repeatable.")
@click.option("--reranker", "rerankers", multiple=True, metavar="NAME", help="A cross-encoder to try; repeatable.")
@click.option("--vary", multiple=True, metavar="KNOB=V,V", help="The values of one knob; a single one fixes it; repeatable.")
@click.option("--trials", type=int, default=200, show_default=True, help="Pipelines to try, for the whole and for every fold.")
@click.option("--folds", type=int, default=5, show_default=True, help="Parts of the queries for cross-validation.")
@click.option(
    "--clock", type=click.Choice(["wall", "cpu"]), default="wall", show_default=True, help="cpu: for a machine that is busy."
)
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed tries the same pipelines.")
@click.option("-c", "--collection", metavar="DIR", help="Write the pick to its recipe.toml; start from what is there.")
@click.option("--write", metavar="FILE", help="Write the pick to a recipe file.")
@click.option("--folder", metavar="DIR", help="Where what was encoded is kept for the next time (default: the user's cache).")
@click.option("--html", metavar="FILE", help="Write the report with the plot and the recipes.")
@json_option
def tune(
    data: str,
    deadline: float,
    memory: float | None,
    min_ndcg: float | None,
    split: str | None,
    models: tuple[str, ...],
    rerankers: tuple[str, ...],
    vary: tuple[str, ...],
    trials: int,
    folds: int,
    clock: Literal["wall", "cpu"],
    seed: int,
    collection: str | None,
    write: str | None,
    folder: str | None,
    html: str | None,
    as_json: bool,
) -> None:
    """Try many pipelines on judged queries, measure the best, and write the one to take.

    \b
    twinrank tune scifact/ --split train --deadline 50 --reranker cross-encoder/ms-marco-MiniLM-L6-v2 -c papers.twinrank
    """
    from twinrank.files import replace_file
    from twinrank.readers import read_dataset
    from twinrank.recipe import Recipe
    from twinrank.tune import report
    from twinrank.tune.kept import keep
    from twinrank.tune.page import page
    from twinrank.tune.space import Space, default_knobs
    from twinrank.tune.tuning import Budget, Limits
    from twinrank.tune.tuning import tune as run

    if collection is not None and write is not None:
        raise click.UsageError("-c and --write both say where the recipe goes; give one of them")
    limits, budget = Limits(deadline, memory, min_ndcg), Budget(trials=trials, folds=folds, seed=seed, clock=clock)
    base = Recipe()
    if collection is not None:
        with open_collection(collection) as opened:
            base = opened.recipe
    dataset = read_dataset(Path(data), split=split or default_split(Path(data)))
    space = Space(base, default_knobs(base, models, rerankers))
    for given in vary:
        knob, _, values = given.partition("=")
        space = space.with_values(knob.strip(), [value.strip() for value in values.split(",") if value.strip()])
    bars = Bars({"documents": None, "pipelines": (folds + 1) * trials, "searches": None})
    with bars, truncation_as_note():
        tuning = run(
            dataset,
            limits,
            space=space,
            base=base,
            budget=budget,
            folder=None if folder is None else Path(folder),
            progress=bars.update,
            on_added=lambda added: note(str(added)),
        )
    if as_json:
        print_json(report.as_json(tuning))
    else:
        click.echo(report.table(tuning))
        if collection is None and write is None:
            click.echo(f"\n{tuning.choice.recipe.to_toml()}", nl=False)
    if html is not None:
        replace_file(Path(html), page(tuning))
        note(f"the report is in {html}")
    if write is not None:
        _tell_written(Path(write), report.write_recipe(tuning, Path(write)))
    if collection is not None:
        with open_collection(collection) as opened:
            _take(tuning, opened, base, collection)
            keep(report.as_json(tuning), opened)


def _take(tuning: Tuning, opened: Collection, base: Recipe, collection: str) -> None:
    """Give a collection the pick as its recipe."""
    from twinrank.places import RECIPE, is_address
    from twinrank.tune.report import write_recipe

    pick = tuning.choice.recipe
    if pick == base:
        note(f"{opened.named(RECIPE)} stays as it is")
        return
    if is_address(collection):
        if not opened.stores_by(pick):
            note(
                f"the pick stores documents in another way than {opened.path}, whose recipe stays as it is; have it written "
                "(--write FILE), and index the documents into a new collection by it"
            )
            return
        opened.take_recipe(pick)
        note(f"the recipe is in {opened.named(RECIPE)}")
    else:
        target = Path(collection) / RECIPE
        _tell_written(target, write_recipe(tuning, target))
    if (pick.encoder, pick.passages, pick.tokens) != (base.encoder, base.passages, base.tokens):
        note(f"it stores documents in another way; encode them again: twinrank rebuild --encode{place(collection)}")


def _tell_written(target: Path, before: Path | None) -> None:
    note(f"the recipe is in {target}" + ("" if before is None else f", the one before in {before}"))
