"""The command line: parse, call one public function, show. Results go to standard output, all else to standard error."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from twinrank import __version__
from twinrank.errors import TwinrankError
from twinrank.show import Bar, Bars, note, print_json, results_as_json, show_results, truncation_as_note

if TYPE_CHECKING:
    from twinrank.collection import Collection
    from twinrank.ingest import AddReport

collection_option = click.option(
    "-c", "--collection", "folder", default=".twinrank", show_default=True, metavar="DIR", help="The collection's directory."
)
recipe_option = click.option("--recipe", metavar="FILE", help="A recipe in TOML, or one of words, vectors, hybrid.")
model_option = click.option("--model", metavar="NAME", help="The encoder: a hub name, a folder, or none for words alone.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="twinrank")
def twinrank() -> None:
    """Search your own documents with every encoder architecture, offline, on a CPU, measured.

    \b
    twinrank index notes/                          make a collection of a folder
    twinrank search "how do I renew a passport"    ask it
    twinrank eval scifact/                         measure on judged data
    """


# -- a collection --------------------------------------------------------------------------------------------------------------


@twinrank.command()
@click.argument("sources", nargs=-1, required=True, metavar="DOCS...")
@collection_option
@recipe_option
@model_option
@json_option
def index(sources: tuple[str, ...], folder: str, recipe: str | None, model: str | None, as_json: bool) -> None:
    """Put files and folders into a collection, which is made where there is none.

    \b
    twinrank index notes/ manual.pdf -c notes.twinrank
    """
    _check_sources(sources)
    with _open(folder, recipe=recipe, model=model, create=True) as collection:
        _add(collection, sources, as_json)
        if not as_json:
            place = "" if folder == ".twinrank" else f" -c {folder}"
            note(f'ask it: twinrank search "…"{place}')


@twinrank.command()
@click.argument("sources", nargs=-1, required=True, metavar="DOCS...")
@collection_option
@json_option
def add(sources: tuple[str, ...], folder: str, as_json: bool) -> None:
    """Add or replace documents in a collection that is there; - reads JSON lines from standard input.

    \b
    echo '{"id": "a1", "text": "Zinc may shorten a cold."}' | twinrank add -
    """
    _check_sources(sources)
    with _open(folder) as collection:
        _add(collection, sources, as_json)


@twinrank.command()
@click.argument("query")
@collection_option
@click.option("-k", default=10, show_default=True, help="How many documents to show.")
@click.option("--where", metavar="EXPR", help="A condition over fields: \"year >= 2015 and lang = 'en'\".")
@recipe_option
@click.option("--explain", is_flag=True, help="Show what each stage made of each hit, and its time.")
@json_option
def search(query: str, folder: str, k: int, where: str | None, recipe: str | None, explain: bool, as_json: bool) -> None:
    """Find the documents that answer QUERY.

    \b
    twinrank search "merge two sorted lists" -k 3 --where "kind = 'function'" --explain
    """
    with _open(folder, recipe=recipe) as collection, truncation_as_note():
        results = collection.search(query, k, where=where)
        _tell(collection)
        for told in results.notes:
            note(told)
        if as_json:
            print_json(results_as_json(results, explain))
        else:
            show_results(collection, results, explain)


@twinrank.command()
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
    with _open(folder) as collection:
        results = collection.similar(ids, k, unlike=unlike, where=where, diversity=diversity)
        _tell(collection)
        if as_json:
            print_json(results_as_json(results, explain=False))
        else:
            show_results(collection, results, explain=False)


@twinrank.command()
@click.argument("ids", nargs=-1, required=True)
@collection_option
@json_option
def get(ids: tuple[str, ...], folder: str, as_json: bool) -> None:
    """Print documents by id."""
    with _open(folder) as collection:
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
        raise click.ClickException(f"not in {folder}: {', '.join(missing)}")


@twinrank.command()
@click.argument("ids", nargs=-1, required=True)
@collection_option
@json_option
def delete(ids: tuple[str, ...], folder: str, as_json: bool) -> None:
    """Delete documents by id."""
    with _open(folder) as collection:
        gone = collection.delete(ids)
    missing = [identifier for identifier in ids if identifier not in set(gone)]
    if as_json:
        print_json({"deleted": gone, "missing": missing})
    else:
        click.echo(f"{len(gone)} deleted" + (f", not there: {', '.join(missing)}" if missing else ""))


@twinrank.command()
@collection_option
@json_option
def status(folder: str, as_json: bool) -> None:
    """Say what a collection holds and what state it is in."""
    with _open(folder) as collection:
        state = collection.status()
    if as_json:
        print_json(dataclasses.asdict(state))
    else:
        click.echo(str(state))


@twinrank.command()
@collection_option
@json_option
def check(folder: str, as_json: bool) -> None:
    """Verify everything that a collection has on disk; exits 1 where something is wrong."""
    with _open(folder) as collection:
        report = collection.check()
    if as_json:
        print_json({"ok": report.ok, **dataclasses.asdict(report)})
    else:
        click.echo(str(report))
    if not report.ok:
        sys.exit(1)


@twinrank.command()
@collection_option
@click.option("--encode", is_flag=True, help="Also cut and encode every document again, by the recipe as it is now.")
@recipe_option
@model_option
def rebuild(folder: str, encode: bool, recipe: str | None, model: str | None) -> None:
    """Make the derived indexes anew from the store; with --encode, passages and vectors too.

    \b
    twinrank rebuild --encode --model ./my-model     change a collection's encoder
    """
    if (recipe or model) and not encode:
        raise click.UsageError("--recipe and --model change what is stored, so they need --encode")
    with _open(folder, recipe=recipe, model=model) as collection, Bar("documents", len(collection) if encode else 0) as bar:
        report = collection.rebuild(encode=encode, progress=bar.update)
        _tell(collection)
    click.echo(str(report) if report is not None else "the indexes were made anew", err=True)


# -- the architectures by themselves -------------------------------------------------------------------------------------------


@twinrank.command()
@click.argument("texts", nargs=-1)
@model_option
@click.option("--side", type=click.Choice(["query", "document"]), default="document", show_default=True)
@click.option("--output", "-o", metavar="FILE", help="Write a NumPy array (texts, dimension) to FILE instead of JSON lines.")
def encode(texts: tuple[str, ...], model: str | None, side: Any, output: str | None) -> None:
    """Turn TEXTS (or the lines of standard input) into vectors, one JSON list a line."""
    import numpy as np

    from twinrank import DEFAULT_MODEL, BiEncoder

    lines = list(texts) or _lines()
    with truncation_as_note():
        vectors = BiEncoder(model or DEFAULT_MODEL).encode(lines, side=side)
    if output is not None:
        np.save(output, vectors)
        note(f"{vectors.shape[0]:,} vectors of {vectors.shape[1]} dimensions in {output}")
        return
    for vector in vectors:
        click.echo(json.dumps([round(float(value), 6) for value in vector]))


@twinrank.command()
@click.argument("texts", nargs=-1)
@model_option
@click.option("--threshold", type=float, default=0.9, show_default=True, help="The least cosine of a pair.")
@click.option("-k", default=1000, show_default=True, help="How many pairs to show at most.")
@json_option
def duplicates(texts: tuple[str, ...], model: str | None, threshold: float, k: int, as_json: bool) -> None:
    """Find duplicates and paraphrases among TEXTS (or the lines of standard input), every pair compared once.

    \b
    twinrank duplicates --threshold 0.85 < questions.txt
    """
    from twinrank import DEFAULT_MODEL, BiEncoder

    lines = list(texts) or _lines()
    with Bar("texts", len(lines)) as bar, truncation_as_note():
        pairs = BiEncoder(model or DEFAULT_MODEL).duplicates(lines, threshold=threshold, k=k, progress=bar.reach)
    if as_json:
        print_json([{"score": pair.score, "first": lines[pair.first], "second": lines[pair.second]} for pair in pairs])
    for pair in [] if as_json else pairs:
        click.echo(f"{pair.score:.4f}\t{lines[pair.first]}\t{lines[pair.second]}")
    note(f"{len(pairs):,} pairs of at least {threshold} among {len(lines):,} texts")


@twinrank.command()
@click.argument("query")
@click.argument("passages", nargs=-1)
@click.option("--model", metavar="NAME", required=True, help="The cross-encoder: a hub name or a folder.")
@json_option
def score(query: str, passages: tuple[str, ...], model: str, as_json: bool) -> None:
    """Score PASSAGES (or the lines of standard input) against QUERY with a cross-encoder, in their order."""
    from twinrank import CrossEncoder

    texts = list(passages) or _lines()
    with truncation_as_note():
        scores = CrossEncoder(model).score([(query, text) for text in texts]).tolist()
    if as_json:
        print_json(scores)
    for value in [] if as_json else scores:
        click.echo(f"{value:.6f}")


@twinrank.command()
@click.argument("query")
@click.argument("passages", nargs=-1)
@click.option("--model", metavar="NAME", required=True, help="The cross-encoder: a hub name or a folder.")
@click.option("-k", default=10, show_default=True, help="How many to show.")
@json_option
def rank(query: str, passages: tuple[str, ...], model: str, k: int, as_json: bool) -> None:
    """Order PASSAGES (or the lines of standard input) by relevance to QUERY with a cross-encoder."""
    from twinrank import CrossEncoder

    texts = list(passages) or _lines()
    with truncation_as_note():
        hits = CrossEncoder(model).rank(query, texts, k=k)
    if as_json:
        print_json([{"rank": hit.rank, "score": hit.score, "text": hit.text} for hit in hits])
    for hit in [] if as_json else hits:
        click.echo(f"{hit.rank:>3}  {hit.score:>8.4f}  {hit.text}")


@twinrank.command()
@click.argument("first")
@click.argument("second")
@click.option("--model", metavar="NAME", required=True, help="A cross-encoder of several classes: a hub name or a folder.")
@json_option
def classify(first: str, second: str, model: str, as_json: bool) -> None:
    """Say how SECOND stands to FIRST: whether an answer follows from its passage, whether two texts say the same.

    \b
    twinrank classify "Zinc shortens a cold." "Zinc helps." --model cross-encoder/nli-MiniLM2-L6-H768
    """
    from twinrank import CrossEncoder

    judge = CrossEncoder(model)
    with truncation_as_note():
        verdict = judge.classify([(first, second)])[0]
    labelled = sorted(verdict.probabilities.items(), key=lambda pair: -pair[1])
    if as_json:
        print_json(dict(labelled))
    for label, probability in [] if as_json else labelled:
        click.echo(f"{probability:.4f}  {label}")


@twinrank.command()
@click.argument("texts", nargs=-1)
@click.option("--model", metavar="NAME", required=True, help="The encoder-decoder: a hub name or a folder (Marian, T5).")
@click.option("--prefix", metavar="TEXT", help="A T5-like model's task, such as 'summarize: ', or a Marian target, '>>fra<<'.")
@click.option("--beams", default=4, show_default=True, help="Translations kept while searching; 1 is greedy.")
@json_option
def translate(texts: tuple[str, ...], model: str, prefix: str | None, beams: int, as_json: bool) -> None:
    """Translate TEXTS (or the lines of standard input), one result a line.

    \b
    twinrank translate "The weather is beautiful." --model Helsinki-NLP/opus-mt-en-fr
    """
    from twinrank import Translator

    lines = list(texts) or _lines()
    with truncation_as_note():
        translations = Translator(model, prefix=prefix).generate(lines, beams=beams)
    if as_json:
        print_json([{"text": one.text, "score": one.score, "finished": one.finished} for one in translations])
    for one in [] if as_json else translations:
        click.echo(one.text)


# -- measuring -----------------------------------------------------------------------------------------------------------------


@twinrank.command("eval")
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
    chosen = {_recipe_name(name): Recipe.load(name) for name in recipes or ("hybrid",)}
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


# -- below the commands -------------------------------------------------------------------------------------------------------


def _open(folder: str, *, recipe: str | None = None, model: str | None = None, create: bool = False) -> Collection:
    from twinrank.collection import Collection

    return Collection(folder, recipe=recipe, model=model, create=create)


def _check_sources(sources: Sequence[str]) -> None:
    """A path that is not there is told before any other is read, and before a collection is made."""
    from twinrank.readers import read

    for source in sources:
        if source != "-":
            read(source)


def _add(collection: Collection, sources: Sequence[str], as_json: bool) -> None:
    from twinrank.readers import estimate

    reports: list[AddReport] = []
    for source in sources:
        total = None if source == "-" else estimate(source)
        with Bar("documents", total) as bar:
            reports.append(collection.add(_json_lines() if source == "-" else source, progress=bar.update))
    _tell(collection)
    if as_json:
        print_json([dataclasses.asdict(report) for report in reports])
        return
    for report in reports:
        for problem in report.problems:
            note(f"{problem.kind}: {problem.path}: {problem.reason}")
        note(str(report))


def _json_lines() -> Iterator[Any]:
    for number, line in enumerate(_lines(), start=1):
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            raise click.ClickException(f"standard input, line {number}: expected a JSON object ({error})") from error


def _lines() -> list[str]:
    if sys.stdin.isatty():
        raise click.UsageError("give texts as arguments or as lines on standard input")
    return [line.rstrip("\n") for line in sys.stdin if line.strip()]


def _tell(collection: Collection) -> None:
    for notice in collection.notices:
        note(notice)
    collection.notices.clear()


def _recipe_name(recipe: str) -> str:
    return Path(recipe).stem if recipe.endswith(".toml") else recipe


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; errors are one sentence on standard error and a status other than 0."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        twinrank.main(arguments, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        note("interrupted")
        sys.exit(130)
    except TwinrankError as error:
        note(f"twinrank: {error}")
        sys.exit(1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        note(f"twinrank: {error.filename or 'a file'}: {error.strerror or error}")
        sys.exit(1)


if __name__ == "__main__":
    main()
