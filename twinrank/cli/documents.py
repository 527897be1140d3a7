"""Commands about one collection: what goes in, what is found, what comes out, and what state it is in."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from twinrank.cli.common import (
    collection_option,
    input_lines,
    json_option,
    model_option,
    open_collection,
    place,
    recipe_option,
    tell,
    without_password,
)
from twinrank.errors import CollectionBusyError, DataError, StorageError
from twinrank.show import Bar, note, print_json, results_as_json, show_results, truncation_as_note

if TYPE_CHECKING:
    from twinrank.collection import Collection
    from twinrank.ingest import AddReport
    from twinrank.readers import Problem
    from twinrank.workers import Workers


prune_option = click.option("--prune", is_flag=True, help="Delete the documents of files that a folder no longer holds.")
workers_option = click.option(
    "--workers", type=click.IntRange(min=1), metavar="N", help="Encode in N processes; with --ray, by N actors."
)
ray_option = click.option("--ray", metavar="ADDRESS", help="Encode on a Ray cluster: auto, HOST:PORT, ray://HOST:PORT.")


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="DOCS...")
@collection_option
@recipe_option
@model_option
@prune_option
@workers_option
@ray_option
@json_option
def index(
    sources: tuple[str, ...],
    folder: str,
    recipe: str | None,
    model: str | None,
    prune: bool,
    workers: int | None,
    ray: str | None,
    as_json: bool,
) -> None:
    """Put files and folders into a collection, which is made where there is none.

    \b
    twinrank index notes/ manual.pdf -c notes.twinrank
    twinrank index corpus.jsonl --ray auto           encoded by all cores of a Ray cluster
    """
    check_sources(sources)
    others = asked_for(workers, ray)
    with open_collection(folder, recipe=recipe, model=model, create=True) as collection:
        add_sources(collection, sources, prune, as_json, others)
        if not as_json:
            note(f'ask it: twinrank search "…"{place(folder)}')


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="DOCS...")
@collection_option
@prune_option
@workers_option
@ray_option
@json_option
def add(sources: tuple[str, ...], folder: str, prune: bool, workers: int | None, ray: str | None, as_json: bool) -> None:
    """Add or replace documents in a collection that is there; - reads JSON lines from standard input.

    \b
    echo '{"id": "a1", "text": "Zinc may shorten a cold."}' | twinrank add -
    """
    check_sources(sources)
    others = asked_for(workers, ray)
    with open_collection(folder) as collection:
        add_sources(collection, sources, prune, as_json, others)


@click.command()
@click.argument("query")
@collection_option
@click.option("-k", default=10, show_default=True, help="How many documents to show.")
@click.option("--where", metavar="EXPR", help="A condition over fields: \"year >= 2015 and lang = 'en'\".")
@recipe_option
@click.option("--deadline", type=click.FloatRange(min=0), metavar="MS", help="Milliseconds by which reranking has to end.")
@click.option("--min-probability", type=float, metavar="P", help="Leave out hits that are less likely to be relevant.")
@click.option("--risk", type=float, metavar="R", help="Answer only where at most this share of answers holds nothing relevant.")
@click.option("--explain", is_flag=True, help="Show what each stage made of each hit, and its time.")
@json_option
def search(
    query: str,
    folder: str,
    k: int,
    where: str | None,
    recipe: str | None,
    deadline: float | None,
    min_probability: float | None,
    risk: float | None,
    explain: bool,
    as_json: bool,
) -> None:
    """Find the documents that answer QUERY.

    \b
    twinrank search "merge two sorted lists" -k 3 --where "kind = 'function'" --explain
    """
    with open_collection(folder, recipe=recipe) as collection, truncation_as_note():
        if deadline is not None:
            collection.pipeline()  # opens the models, which is no part of searching
        results = collection.search(query, k, where=where, deadline=deadline, min_probability=min_probability, risk=risk)
        tell(collection)
        for told in results.notes:
            note(told)
        if as_json:
            print_json(results_as_json(results, explain))
        else:
            show_results(collection, results, explain)
        if explain and not as_json and results.hits:
            note(f"twinrank explain {shlex.quote(query)} -d {shlex.quote(results[0].id)}{place(folder)} for more")


@click.command()
@click.argument("ids", nargs=-1, required=True)
@collection_option
@click.option("--unlike", multiple=True, metavar="ID", help="A document to stay away from; may be repeated.")
@click.option("-k", default=10, show_default=True, help="How many documents to show.")
@click.option("--where", metavar="EXPR", help="A condition over fields.")
@click.option("--diversity", default=0.0, show_default=True, help="0: the likest; towards 1: the likest that differ.")
@json_option
def similar(
    ids: tuple[str, ...], folder: str, unlike: tuple[str, ...], k: int, where: str | None, diversity: float, as_json: bool
) -> None:
    """Find documents like those with these IDS, by their vectors.

    \b
    twinrank similar heapq.merge -k 5 --diversity 0.3
    """
    with open_collection(folder) as collection:
        results = collection.similar(ids, k, unlike=unlike, where=where, diversity=diversity)
        tell(collection)
        if as_json:
            print_json(results_as_json(results, explain=False))
        else:
            show_results(collection, results, explain=False)


@click.command()
@click.argument("ids", nargs=-1, required=True)
@collection_option
@json_option
def get(ids: tuple[str, ...], folder: str, as_json: bool) -> None:
    """Print documents by id."""
    with open_collection(folder) as collection:
        found = collection.get(ids)
    missing = [identifier for identifier, document in zip(ids, found, strict=True) if document is None]
    documents = [dataclasses.asdict(document) for document in found if document is not None]
    if as_json:
        print_json(documents)
    for document in [] if as_json else documents:
        click.echo(f"{document['id']}  {document['title']}".rstrip())
        for name, value in document["fields"].items():
            click.echo(f"  {name}: {value}")
        click.echo(f"\n{document['text']}\n")
    if missing:
        raise click.ClickException(f"not in {without_password(folder)}: {', '.join(missing)}")


@click.command()
@click.argument("ids", nargs=-1, required=True)
@collection_option
@json_option
def delete(ids: tuple[str, ...], folder: str, as_json: bool) -> None:
    """Delete documents by id."""
    with open_collection(folder) as collection:
        gone = collection.delete(ids)
    missing = [identifier for identifier in ids if identifier not in set(gone)]
    if as_json:
        print_json({"deleted": gone, "missing": missing})
    else:
        click.echo(f"{len(gone)} deleted" + (f", not there: {', '.join(missing)}" if missing else ""))


@click.command()
@collection_option
@json_option
def status(folder: str, as_json: bool) -> None:
    """Say what a collection holds and what state it is in."""
    with open_collection(folder) as collection:
        state = collection.status()
    if as_json:
        print_json(dataclasses.asdict(state))
    else:
        click.echo(str(state))


@click.command()
@collection_option
@json_option
def check(folder: str, as_json: bool) -> None:
    """Verify everything that a collection has on disk; exits 1 where something is wrong."""
    with open_collection(folder) as collection:
        report = collection.check()
    if as_json:
        print_json({"ok": report.ok, **dataclasses.asdict(report)})
    else:
        click.echo(str(report))
    if not report.ok:
        sys.exit(1)


@click.command()
@collection_option
@click.option("--encode", is_flag=True, help="Also cut and encode every document again, by the recipe as it is now.")
@recipe_option
@model_option
def rebuild(folder: str, encode: bool, recipe: str | None, model: str | None) -> None:
    """Make the derived indexes anew from the store; with --encode, passages and vectors too.

    Of a collection in an engine, which keeps its own indexes: remove what interrupted updates left there.

    \b
    twinrank rebuild --encode --model ./my-model     change a collection's encoder
    """
    from twinrank.places import is_address

    if (recipe or model) and not encode:
        raise click.UsageError("--recipe and --model change what is stored, so they need --encode")
    with (
        open_collection(folder, recipe=recipe, model=model) as collection,
        Bar("passages", collection.store.count_passages() if encode else 0) as bar,
    ):
        report = collection.rebuild(encode=encode, progress=bar.update)
        tell(collection)
    if report is not None or not is_address(folder):  # what was done in an engine is told already
        note(str(report) if report is not None else "the indexes were made anew")


@click.command()
@collection_option
@click.option("--to", "model", metavar="MODEL", help="The new encoder: a hub name or a folder.")
@recipe_option
def migrate(folder: str, model: str | None, recipe: str | None) -> None:
    """Take another encoder, while the collection is searched and written: the old vectors serve until all new ones are there.

    \b
    twinrank migrate --to thenlper/gte-small
    """
    if model is None and recipe is None:
        raise click.UsageError("name the new encoder with --to, or a recipe that names it with --recipe")
    with open_collection(folder) as collection, Bar("passages", collection.store.count_passages()) as bar, truncation_as_note():
        report = collection.migrate(model, recipe=recipe, progress=bar.update)
        tell(collection)
    note(f"{report}; the collection now searches by {collection.recipe.encoder.model}")


def check_sources(sources: Sequence[str]) -> None:
    """A path that is not there is told before any other is read, and before a collection is made."""
    from twinrank.readers import read

    for source in sources:
        if source != "-":
            read(source)


def asked_for(workers: int | None, ray: str | None) -> Workers | None:
    """The workers of --workers and --ray, which all sources share; None where neither is given."""
    from twinrank.workers import Workers

    return None if workers is None and ray is None else Workers(workers, ray=ray)


def add_sources(
    collection: Collection, sources: Sequence[str], prune: bool, as_json: bool, workers: Workers | None = None
) -> None:
    from twinrank.following import Follower
    from twinrank.readers import estimate

    reports: list[AddReport] = []
    with redirect_stdout(sys.stderr), workers or nullcontext():  # Ray prints to standard output what its nodes go through
        for source in sources:
            total = None if source == "-" else estimate(source)
            with Bar("documents", total) as bar:
                if prune and Path(source).is_dir():
                    reports.append(Follower(collection, source).sync(bar.update, workers))
                else:
                    given = json_lines() if source == "-" else source
                    reports.append(collection.add(given, progress=bar.update, workers=workers))
            if not as_json:  # told at once: a later source may fail
                note_report(reports[-1])
    tell(collection)
    if as_json:
        print_json([dataclasses.asdict(report) for report in reports])


def note_report(report: AddReport) -> None:
    for problem in report.problems:
        note(f"{problem.kind}: {problem.path}: {problem.reason}")
    note(str(report))


@click.command()
@click.argument("source", metavar="FOLDER")
@collection_option
@recipe_option
@model_option
def watch(source: str, folder: str, recipe: str | None, model: str | None) -> None:
    """Keep a collection in step with FOLDER, until Ctrl-C: what changes there is added, what goes is deleted.

    \b
    twinrank watch ~/notes -c notes.twinrank
    """
    from twinrank.following import Follower, watch_folder

    if not Path(source).is_dir():  # told before a collection is made
        raise DataError(f"{source} is no folder; a folder is watched")
    changes = watch_folder(source)  # so is a library that is missing
    with open_collection(folder, recipe=recipe, model=model, create=True) as collection:
        follower = Follower(collection, source)
        with Bar("documents", None) as bar:
            report = follower.sync(bar.update)
        note_report(report)
        note(f"watching {source}; Ctrl-C ends it")
        told: list[Problem] | str = report.problems
        for _ in changes:
            try:
                report = follower.sync()
            except (
                DataError,
                CollectionBusyError,
                StorageError,
            ) as error:  # which may pass
                if told != str(error):
                    note(str(error))
                told = str(error)
                continue
            if report.added + report.updated + report.removed or told != report.problems:
                note_report(report)
            told = report.problems
            tell(collection)


def json_lines() -> Iterator[Any]:
    """Documents as they come in; a batch of them is added before the next lines are read."""
    for number, line in enumerate(input_lines(), start=1):
        if not line.strip():
            continue
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            raise click.ClickException(f"standard input, line {number}: expected a JSON object ({error})") from error
