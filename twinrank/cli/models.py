"""Commands that run one architecture by itself, on texts given as arguments or as lines."""

from __future__ import annotations

import json
from typing import Any

import click

from twinrank.cli.common import json_option, model_option, read_lines
from twinrank.show import Bar, note, print_json, truncation_as_note


@click.command()
@click.argument("texts", nargs=-1)
@model_option
@click.option("--side", type=click.Choice(["query", "document"]), default="document", show_default=True)
@click.option("--output", "-o", metavar="FILE", help="Write a NumPy array (texts, dimension) to FILE instead of JSON lines.")
def encode(texts: tuple[str, ...], model: str | None, side: Any, output: str | None) -> None:
    """Turn TEXTS (or the lines of standard input) into vectors, one JSON list a line."""
    import numpy as np

    from twinrank import DEFAULT_MODEL, BiEncoder

    given = list(texts) or read_lines()
    with truncation_as_note():
        vectors = BiEncoder(model or DEFAULT_MODEL).encode(given, side=side)
    if output is not None:
        np.save(output, vectors)
        note(f"{vectors.shape[0]:,} vectors of {vectors.shape[1]} dimensions in {output}")
        return
    for vector in vectors:
        click.echo(json.dumps([round(float(value), 6) for value in vector]))


@click.command()
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

    given = list(texts) or read_lines()
    with Bar("texts", len(given)) as bar, truncation_as_note():
        pairs = BiEncoder(model or DEFAULT_MODEL).duplicates(given, threshold=threshold, k=k, progress=bar.reach)
    if as_json:
        print_json([{"score": pair.score, "first": given[pair.first], "second": given[pair.second]} for pair in pairs])
    for pair in [] if as_json else pairs:
        click.echo(f"{pair.score:.4f}\t{given[pair.first]}\t{given[pair.second]}")
    note(f"{len(pairs):,} pairs of at least {threshold} among {len(given):,} texts")


@click.command()
@click.argument("query")
@click.argument("passages", nargs=-1)
@click.option("--model", metavar="NAME", required=True, help="The cross-encoder: a hub name or a folder.")
@json_option
def score(query: str, passages: tuple[str, ...], model: str, as_json: bool) -> None:
    """Score PASSAGES (or the lines of standard input) against QUERY with a cross-encoder, in their order."""
    from twinrank import CrossEncoder

    texts = list(passages) or read_lines()
    with truncation_as_note():
        scores = CrossEncoder(model).score([(query, text) for text in texts]).tolist()
    if as_json:
        print_json(scores)
    for value in [] if as_json else scores:
        click.echo(f"{value:.6f}")


@click.command()
@click.argument("query")
@click.argument("passages", nargs=-1)
@click.option("--model", metavar="NAME", required=True, help="The cross-encoder: a hub name or a folder.")
@click.option("-k", default=10, show_default=True, help="How many to show.")
@json_option
def rank(query: str, passages: tuple[str, ...], model: str, k: int, as_json: bool) -> None:
    """Order PASSAGES (or the lines of standard input) by relevance to QUERY with a cross-encoder."""
    from twinrank import CrossEncoder

    texts = list(passages) or read_lines()
    with truncation_as_note():
        hits = CrossEncoder(model).rank(query, texts, k=k)
    if as_json:
        print_json([{"rank": hit.rank, "score": hit.score, "text": hit.text} for hit in hits])
    for hit in [] if as_json else hits:
        click.echo(f"{hit.rank:>3}  {hit.score:>8.4f}  {hit.text}")


@click.command()
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


@click.command()
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

    given = list(texts) or read_lines()
    with truncation_as_note():
        translations = Translator(model, prefix=prefix).generate(given, beams=beams)
    if as_json:
        print_json([{"text": one.text, "score": one.score, "finished": one.finished} for one in translations])
    for one in [] if as_json else translations:
        click.echo(one.text)
