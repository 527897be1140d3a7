"""The command that measures recipes on judged data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from twinrank.cli.common import json_option, open_collection, recipe_name
from twinrank.show import Bars, note, print_json, truncation_as_note

if TYPE_CHECKING:
    from twinrank.recipe import Recipe


@click.command("eval")
@click.argument("data", metavar="DATA")
@click.option("--split", default="test", show_default=True, help="Which judgments: qrels/SPLIT.tsv.")
@click.option(
    "--recipe", "recipes", multiple=True, metavar="FILE", help="A recipe, or words, vectors, hybrid, reranked; may be repeated."
)
@click.option("--model", metavar="NAME", help="Replaces the encoder of every recipe.")
@click.option("--measure", "measures", multiple=True, metavar="NAME", help="In ir-measures' names; may be repeated.")
@click.option("--run", "run_file", metavar="FILE", help="Write the last recipe's rankings as a TREC run.")
@click.option("--baseline", metavar="NAME", help="The recipe that the others are compared with: better, by how much, how sure.")
@click.option("--per-query", is_flag=True, help="Show every query's measures.")
@click.option(
    "-c", "--collection", metavar="DIR", help="Ask this collection as it is, in a folder or an engine; recipes: its own."
)
@click.option("--folder", metavar="DIR", help="Where the collections are kept (default: the user's cache).")
@json_option
def eval_(
    data: str,
    split: str,
    recipes: tuple[str, ...],
    model: str | None,
    measures: tuple[str, ...],
    run_file: str | None,
    baseline: str | None,
    per_query: bool,
    collection: str | None,
    folder: str | None,
    as_json: bool,
) -> None:
    """Measure recipes on a judged data set in BEIR's layout (corpus.jsonl, queries.jsonl, qrels/).

    \b
    twinrank eval scifact/ --recipe words --recipe vectors --recipe hybrid
    twinrank eval scifact/ --recipe words --recipe mine.toml --baseline words
    twinrank eval scifact/ -c milvus://localhost:19530/scifact
    """
    from twinrank.evaluate import experiment as experiments
    from twinrank.evaluate import metrics, report
    from twinrank.readers import read_dataset
    from twinrank.recipe import Recipe

    measures = measures or metrics.DEFAULT_MEASURES
    metrics.check_measures(measures)
    own = {} if collection is None or recipes else {"its own": own_recipe(collection)}
    names = names_apart(recipes or own or ("hybrid",))
    compared = None if baseline is None else _baseline(baseline, names)
    dataset = read_dataset(Path(data), split=split)
    chosen = {names[given]: own.get(given) or Recipe.load(given) for given in names}
    if model is not None:
        chosen = {name: recipe.with_model(model) for name, recipe in chosen.items()}
    bars = Bars({"documents": None, "searches": len(dataset.queries) * len(chosen)})
    with bars, truncation_as_note():
        experiment = experiments.evaluate(
            dataset,
            chosen,
            folder=None if folder is None else Path(folder),
            collection=collection,
            measures=measures,
            progress=bars.update,
            on_added=lambda added: note(str(added)),
        )
    if as_json:
        print_json(report.as_json(experiment, per_query=per_query, baseline=compared))
    else:
        click.echo(report.table(experiment, compared))
    if per_query and not as_json:
        click.echo(report.per_query(experiment, compared))
    if run_file is not None:
        name, outcome = list(experiment.outcomes.items())[-1]
        metrics.write_run(outcome.run, run_file, tag=f"twinrank-{name}")
        note(f"the rankings of {name} are in {run_file}")


def own_recipe(collection: str) -> Recipe:
    with open_collection(collection) as opened:
        return opened.recipe


def names_apart(recipes: Iterable[str]) -> dict[str, str]:
    """Recipes as they were given → names for the table: the file's, and as much of its path as tells two files apart.

    >>> names_apart(["words", "a/mine.toml", "b/mine.toml"])
    {'words': 'words', 'a/mine.toml': 'a/mine', 'b/mine.toml': 'b/mine'}
    """
    given = list(dict.fromkeys(recipes))
    names = {recipe: recipe_name(recipe) for recipe in given}
    parts = 1
    while len(set(names.values())) < len(given):
        parts += 1
        alike = {name for name in names.values() if list(names.values()).count(name) > 1}
        longer = {recipe: str(Path(*Path(recipe).parts[-parts:]).with_suffix("")) for recipe in given if names[recipe] in alike}
        if all(parts > len(Path(recipe).parts) for recipe in longer):
            longer = {recipe: recipe for recipe in longer}  # a.toml beside the built-in a, ./a.toml beside a.toml
        names.update(longer)
    return names


def _baseline(wish: str, names: Mapping[str, str]) -> str:
    """The name that a baseline goes by, given as a name or as the recipe was given."""
    if wish in names:
        return names[wish]
    if wish not in names.values():
        raise click.UsageError(f"--baseline {wish} is none of the recipes: {', '.join(names.values())}")
    return wish
