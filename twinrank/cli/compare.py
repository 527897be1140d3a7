"""The command that sets the architectures side by side on one judged collection."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from twinrank.cli.common import json_option
from twinrank.show import Bars, note, print_json, truncation_as_note


@click.command()
@click.argument("data", metavar="DATA")
@click.option("--split", default="test", show_default=True, help="Which judgments: qrels/SPLIT.tsv.")
@click.option("--model", metavar="NAME", help="The encoder (default: all-MiniLM-L6-v2).")
@click.option("--reranker", metavar="MODEL", help="A cross-encoder; without one its rows are left out.")
@click.option("--twin-tower", metavar="MODEL", help="A twin tower; without one its row is left out.")
@click.option("--baseline", default="BM25", show_default=True, metavar="NAME", help="The row that differences are from.")
@click.option("--measure", "measures", multiple=True, metavar="NAME", help="In ir-measures' names; the first is compared by.")
@click.option("--queries", type=click.IntRange(min=1), metavar="N", help="Draw so many queries by chance.")
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed draws the same queries.")
@click.option("--html", metavar="FILE", help="Write a page with plots, tables and recipes; it needs nothing else.")
@click.option("--folder", metavar="DIR", help="Where the collections are kept (default: the user's cache).")
@json_option
def compare(
    data: str,
    split: str,
    model: str | None,
    reranker: str | None,
    twin_tower: str | None,
    baseline: str,
    measures: tuple[str, ...],
    queries: int | None,
    seed: int,
    html: str | None,
    folder: str | None,
    as_json: bool,
) -> None:
    """Measure the architectures side by side: BM25, bi-encoders, late interaction, cross-encoder, hybrid, the cascade.

    \b
    twinrank compare scifact/ --reranker cross-encoder/ms-marco-MiniLM-L6-v2 --html scifact.html
    """
    from twinrank import DEFAULT_MODEL
    from twinrank.evaluate import compare as comparing
    from twinrank.evaluate import comparison_report
    from twinrank.files import replace_file
    from twinrank.readers import read_dataset

    dataset = read_dataset(Path(data), split=split)
    bars = Bars({"documents": None, "searches": None, "processes": None})
    with bars, truncation_as_note():
        comparison = comparing.compare(
            dataset,
            comparing.Models(model or DEFAULT_MODEL, reranker, twin_tower),
            baseline=baseline,
            measures=measures or comparing.MEASURES,
            queries=queries,
            seed=seed,
            folder=None if folder is None else Path(folder),
            progress=bars.update,
            on_added=lambda added: note(str(added)),
        )
    if as_json:
        print_json(comparison_report.as_json(comparison))
    else:
        _show(comparison_report.renderable(comparison))
    if html is not None:
        replace_file(Path(html), comparison_report.page(comparison, _command()))
        note(f"the page is in {html}")


def _show(renderable: object) -> None:
    from rich.console import Console

    from twinrank.evaluate.comparison_report import WIDTH

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH)
    console.print(renderable)


def _command() -> str:
    return shlex.join(["twinrank", *sys.argv[1:]])
