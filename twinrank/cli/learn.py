"""The command `learn`: when a collection's reranks may stop, learned from queries without judgments."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from twinrank.cli.common import collection_option, json_option, open_collection, read_lines, recipe_option, tell
from twinrank.show import Bar, note, print_json, truncation_as_note

if TYPE_CHECKING:
    from twinrank.learned import Learned
    from twinrank.stopping import Rule

RISKS = (0.01, 0.05, 0.1)


@click.command()
@click.argument("queries", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True))
@collection_option
@recipe_option
@json_option
def learn(queries: Path | None, folder: str, recipe: str | None, as_json: bool) -> None:
    """Learn when reranks may stop, from QUERIES: a file with one a line, or a queries.jsonl; no judgments are needed.

    Without a file, queries are made of the collection's own titles and sentences. Every query is reranked in full once; give
    a few hundred of them, such as your users ask. Afterwards `risk` in [[rerank]] saves work.

    \b
    twinrank learn asked.txt -c notes.twinrank
    """
    given = None if queries is None else _read(queries)
    total = None if given is None else len(given)
    with open_collection(folder, recipe=recipe) as collection, truncation_as_note(), Bar("queries", total) as bar:
        results = collection.learn_stopping(given, progress=bar.update)
        tell(collection)
    from twinrank.stopping import queries_needed

    if as_json:
        print_json([_told(one) for one in results])
        return
    for one in results:
        origin = "made of the collection's own texts" if one.made else "given"
        click.echo(f"{one.stage}: learned from {one.queries} queries, {origin}")
        for risk in RISKS:
            tops = _settled(one.rule, risk)
            if tops:
                click.echo(f"  risk {risk:g}: can settle the first {', '.join(map(str, tops))}")
            else:
                click.echo(
                    f"  risk {risk:g}: not enough; at least {queries_needed(risk)} queries to calibrate on, and few mistakes"
                )
    if any(one.made for one in results):
        note("made queries are not asked ones: the promise holds for queries like these. Give real ones where you have them")


def _told(one: Learned) -> dict[str, object]:
    enough = {f"{risk:g}": _settled(one.rule, risk) for risk in RISKS}
    return {"stage": one.stage, "queries": one.queries, "made": one.made, "calibrated on": one.rule.queries, "settles": enough}


def _settled(rule: Rule, risk: float) -> list[int]:
    """For how many first places the rule can stop early at this risk."""
    from twinrank.stopping import TOPS

    return [top for top in TOPS if rule.threshold(risk, top) > -float("inf")]


def _read(path: Path) -> list[str]:
    """Queries a line, or the texts of a queries.jsonl."""
    from twinrank.readers.judged import read_queries

    if path.suffix == ".jsonl":
        return list(read_queries(path).values())
    lines = read_lines() if str(path) == "-" else path.read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip()]
