"""The command that answers a question: with sentences of the documents, or with a language model's, checked."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from twinrank.answer.answering import QUOTES, TOKENS
from twinrank.cli.common import collection_option, json_option, open_collection, place, recipe_option, tell
from twinrank.show import note, print_json, truncation_as_note

if TYPE_CHECKING:
    from twinrank.answer.endpoint import Endpoint
    from twinrank.answer.result import Answer


@click.command()
@click.argument("question")
@collection_option
@click.option("-k", default=10, show_default=True, help="How many documents to answer from.")
@click.option("--where", metavar="EXPR", help="A condition over fields: \"year >= 2015 and lang = 'en'\".")
@recipe_option
@click.option("--budget", default=TOKENS, show_default=True, metavar="TOKENS", help="Tokens of passages that are read.")
@click.option("--quotes", default=QUOTES, show_default=True, help="How many sentences to quote.")
@click.option("--deadline", type=click.FloatRange(min=0), metavar="MS", help="Milliseconds for finding and choosing sentences.")
@click.option("--min-probability", type=float, metavar="P", help="Answer from documents that are at least so likely relevant.")
@click.option("--risk", type=float, metavar="R", help="Answer only where at most this share of answers holds nothing relevant.")
@click.option("--generative", is_flag=True, help="Let a language model write the answer; each sentence is checked.")
@click.option("--endpoint", "url", metavar="URL", help="Where that model is, or TWINRANK_ENDPOINT: http://127.0.0.1:8080/v1")
@click.option("--model", metavar="NAME", help="The model's name there, or TWINRANK_ENDPOINT_MODEL.")
@click.option("--timeout", default=60.0, show_default=True, metavar="S", help="Seconds that the model may take.")
@click.option("--verifier", metavar="NAME", help="A cross-encoder of entailment that checks the sentences; a name or a folder.")
@json_option
def answer(
    question: str,
    folder: str,
    k: int,
    where: str | None,
    recipe: str | None,
    budget: int,
    quotes: int,
    deadline: float | None,
    min_probability: float | None,
    risk: float | None,
    generative: bool,
    url: str | None,
    model: str | None,
    timeout: float,
    verifier: str | None,
    as_json: bool,
) -> None:
    """Answer QUESTION with sentences of the documents, quoted with their places.

    \b
    twinrank answer "does zinc shorten a cold?"
    twinrank answer "does zinc shorten a cold?" --generative --endpoint http://127.0.0.1:8080/v1 --model NAME

    A key for the endpoint is read from the environment: TWINRANK_ENDPOINT_KEY.
    """
    endpoint = _endpoint(generative, url, model, timeout, verifier)
    with open_collection(folder, recipe=recipe) as collection, truncation_as_note():
        if deadline is not None:
            collection.pipeline()  # opens the models, which is no part of answering
        found = collection.answer(
            question,
            k,
            where=where,
            deadline=deadline,
            min_probability=min_probability,
            risk=risk,
            budget=budget,
            quotes=quotes,
            endpoint=endpoint,
            verifier=verifier,
        )
        tell(collection)
    if as_json:
        print_json(found.as_json())
    else:
        _show(found, folder)


def _endpoint(generative: bool, url: str | None, model: str | None, timeout: float, verifier: str | None) -> Endpoint | None:
    if not generative:
        if url or model or verifier:
            raise click.UsageError("--endpoint, --model and --verifier are of an answer that a model writes: add --generative")
        return None
    from twinrank.answer.endpoint import ADDRESS, MODEL, Endpoint

    url, model = url or os.environ.get(ADDRESS), model or os.environ.get(MODEL)
    if not (url and model):
        raise click.UsageError("--generative asks a model: name it with --endpoint URL and --model NAME")
    return Endpoint(url, model, timeout=timeout)


def _show(found: Answer, folder: str) -> None:
    click.echo(found.text)
    cited = {quoted.source for quoted in found.quotes} | {number for claim in found.claims for number in claim.citations}
    if cited:
        click.echo()
    for source in found.sources:
        if source.number in cited:
            likely = f"score {source.score:.3f}" if source.probability is None else f"probability {source.probability:.2f}"
            where = _places(found, source.number) or source.id
            click.echo(f"[{source.number}] {source.title or source.id}  {where}  {likely}")
    for claim in found.claims:
        if claim.standing != "supported":
            note(f"{claim.standing}: {claim.text} ({claim.why})")
    for told in found.notes:
        note(told + (place(folder) if told.endswith("twinrank calibrate") else ""))
    if found.budget is not None and found.sources:
        note(f"{found.budget}; {1000 * found.seconds:.0f} ms")


def _places(found: Answer, number: int) -> str:
    """Where the quotes of a source stand."""
    return ", ".join(
        f"{quoted.id}{f'#{quoted.part}' if quoted.part else ''}:{quoted.start}-{quoted.end}"
        for quoted in found.quotes
        if quoted.source == number
    )
