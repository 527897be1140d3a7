"""The command that fits probabilities of relevance to a collection's scores, on judged queries, and judges them on others."""

from __future__ import annotations

from pathlib import Path

import click

from twinrank.cli.common import default_split, json_option, model_option, open_collection, recipe_option, tell
from twinrank.show import Bars, note, print_json, truncation_as_note


@click.command()
@click.argument("data", metavar="DATA")
@click.option("-c", "--collection", metavar="DIR", help="The collection; without one, DATA's own, kept as eval keeps it.")
@click.option(
    "--split", metavar="NAME", help="Whose judgments to fit on: qrels/NAME.tsv.  [default: dev, train or what there is]"
)
@click.option(
    "--judge-split", metavar="NAME", help="Whose to judge on and promise by.  [default: half of the queries of --split]"
)
@click.option("--withheld", default=0.25, show_default=True, help="Share of queries searched without what answers them.")
@click.option("--depth", default=20, show_default=True, help="First documents of a search that get a probability.")
@click.option("--queries", default=2000, show_default=True, help="Queries of each part, at most.")
@click.option("--method", "methods", multiple=True, metavar="NAME", help="platt, temperature, beta, isotonic or features.")
@click.option("--seed", default=0, show_default=True, help="By which queries are parted and withheld.")
@click.option("--dry-run", is_flag=True, help="Report, and leave the collection's calibration as it is.")
@recipe_option
@model_option
@json_option
def calibrate(
    data: str,
    collection: str | None,
    split: str | None,
    judge_split: str | None,
    withheld: float,
    depth: int,
    queries: int,
    methods: tuple[str, ...],
    seed: int,
    dry_run: bool,
    recipe: str | None,
    model: str | None,
    as_json: bool,
) -> None:
    """Make scores mean something: fit probabilities on judged queries (BEIR's layout), judge them on others, keep them.

    \b
    twinrank calibrate my-judgments/ -c notes.twinrank
    twinrank search "how do I renew a passport" --risk 0.1      an answer, or "nothing relevant found"
    """
    from twinrank.evaluate import calibrating, calibration_report
    from twinrank.readers import read_dataset
    from twinrank.recipe import Recipe

    fitting = read_dataset(Path(data), split=split or default_split(Path(data)))
    judging = None if judge_split is None else read_dataset(Path(data), split=judge_split)
    settings = calibrating.Settings(depth, withheld, queries, methods or calibrating.METHODS, seed)
    parts = [fitting] if judging is None else [fitting, judging]
    bars = Bars({"documents": None, "queries": sum(min(len(part.queries), 2 * queries) for part in parts)})
    with bars, truncation_as_note():
        if collection is not None:
            opened = open_collection(collection, recipe=recipe, model=model)
        else:
            chosen = Recipe.load(recipe or "hybrid")
            opened = calibrating.own_collection(fitting, chosen if model is None else chosen.with_model(model), bars.update)
        with opened as searched:
            result = calibrating.calibrate(
                searched, fitting, judging, settings, progress=lambda done: bars.update("queries", done)
            )
            if not dry_run:
                searched.keep_calibration(result.calibration)
            tell(searched)
    if as_json:
        print_json(calibration_report.as_json(result))
    else:
        click.echo(calibration_report.table(result))
    if not dry_run:
        note(f"search now gives probabilities; the calibration is {searched.named('calibration.json')}")
