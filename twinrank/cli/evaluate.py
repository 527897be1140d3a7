"""The command that measures recipes on judged data."""

from __future__ import annotations

from pathlib import Path

import click

from twinrank.cli.common import json_option, recipe_name
from twinrank.show import Bars, note, print_json, truncation_as_note


@click.command("eval")
@click.argument("data", metavar="DATA")
@click.option("--split", default="test", show_default=True, help="Which judgments: qrels/SPLIT.tsv.")
@click.option(
    "--recipe", "recipes", multiple=True, metavar="FILE", help="A recipe, or words, vectors, hybrid; may be repeated."
)
@click.option("--model", metavar="NAME", help="Replaces the encoder of every recipe.")
@click.option("--measure", "measures", multiple=True, metavar="NAME", help="In ir-measures' names; may be repeated.")
@click.option("--run", "run_file", metavar="FILE", help="Write the last recipe's rankings as a TREC run.")
@click.option("--per-query", is_flag=True, help="Show every query's measures.")
@click.option("--folder", metavar="DIR", help="Where the collections are kept (default: the user's cache).")
@json_option
def eval_(
    data: str,
    split: str,
    recipes: tuple[str, ...],
    model: str | None,
    measures: tuple[str, ...],
    run_file: str | None,
    per_query: bool,
    folder: str | None,
    as_json: bool,
) -> None:
    """Measure recipes on a judged data set in BEIR's layout (corpus.jsonl, queries.jsonl, qrels/).

    \b
    twinrank eval scifact/ --recipe words --recipe vectors --recipe hybrid
    """
    from twinrank.evaluate import experiment as experiments
    from twinrank.evaluate import metrics, report
    from twinrank.readers import read_dataset
    from twinrank.recipe import Recipe

    dataset = read_dataset(Path(data), split=split)
    chosen = {recipe_name(name): Recipe.load(name) for name in recipes or ("hybrid",)}
    if model is not None:
        chosen = {name: recipe.with_model(model) for name, recipe in chosen.items()}
    bars = Bars({"documents": None, **{name: len(dataset.queries) for name in chosen}})
    with bars, truncation_as_note():
        experiment = experiments.evaluate(
            dataset,
            chosen,
            folder=None if folder is None else Path(folder),
            measures=measures or metrics.DEFAULT_MEASURES,
            progress=bars.update,
            on_added=lambda added: note(str(added)),
        )
    if as_json:
        print_json(report.as_json(experiment, per_query=per_query))
    else:
        click.echo(report.table(experiment))
    if per_query and not as_json:
        click.echo(report.per_query(experiment))
    if run_file is not None:
        name, outcome = list(experiment.outcomes.items())[-1]
        metrics.write_run(outcome.run, run_file, tag=f"twinrank-{name}")
        note(f"the rankings of {name} are in {run_file}")
