"""The command that fits a collection's models to its texts, and takes them where they are better."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from twinrank.cli.common import collection_option, json_option, open_collection, tell
from twinrank.cli.mine import query_writer
from twinrank.show import Bars, note, print_json, truncation_as_note

if TYPE_CHECKING:
    from twinrank.train.made import Way


@click.command()
@collection_option
@click.option("--queries", metavar="FILE", help="Queries of people: BEIR's queries.jsonl, or id, tab, text.")
@click.option("--qrels", metavar="FILE", help="Which documents answer them: BEIR's or TREC's judgments.")
@click.option("--teacher", default="", metavar="NAME", help="A cross-encoder that is trained first, then teaches the encoder.")
@click.option("--rerank", default=0, metavar="N", help="Try pipelines too in which the teacher reranks N candidates.")
@click.option("--way", "ways", multiple=True, metavar="WAY", help="title, first sentence or inverse cloze; repeatable.")
@click.option("--documents", default=10_000, show_default=True, help="That examples are made of, at most.")
@click.option("--examples", default=4_000, show_default=True, help="To learn from, at most; people's queries come first.")
@click.option("--epochs", default=1.0, show_default=True, help="How often an example is looked at.")
@click.option("--batch", default=32, show_default=True, help="Queries of a step.")
@click.option("--rate", default=3e-5, show_default=True, help="Of learning, at its highest.")
@click.option(
    "--frozen", default=0, show_default=True, help="Lower layers that stay as they are: quicker, and less is learned."
)
@click.option("--endpoint", metavar="URL", help="Let a language model write queries: http://127.0.0.1:8080/v1, as OpenAI's.")
@click.option("--endpoint-model", default="", metavar="NAME", help="Its name there; the key: TWINRANK_ENDPOINT_KEY.")
@click.option("--seed", default=0, show_default=True)
@json_option
def adapt(
    folder: str,
    queries: str | None,
    qrels: str | None,
    teacher: str,
    rerank: int,
    ways: tuple[Way, ...],
    documents: int,
    examples: int,
    epochs: float,
    batch: int,
    rate: float,
    frozen: int,
    endpoint: str | None,
    endpoint_model: str,
    seed: int,
    as_json: bool,
) -> None:
    """Fit the encoder of a collection to its texts: train, measure before and after, and take what is better.

    \b
    twinrank adapt -c notes.twinrank
    twinrank adapt -c notes.twinrank --queries queries.jsonl --qrels qrels/train.tsv --teacher my-cross-encoder/
    """
    from twinrank.readers import read_qrels, read_queries
    from twinrank.train.adapt import AdaptSettings
    from twinrank.train.adapt import adapt as run
    from twinrank.train.made import WAYS

    if (queries is None) != (qrels is None):
        raise click.UsageError("--queries and --qrels go together: what was asked, and what answers it")
    settings = AdaptSettings(
        teacher,
        rerank,
        ways or WAYS,
        documents,
        examples,
        epochs=epochs,
        batch=batch,
        rate=rate,
        frozen=frozen,
        seed=seed,
    )
    bars = Bars({})
    with open_collection(folder) as opened, bars, truncation_as_note():
        report = run(
            opened,
            settings,
            queries=None if queries is None else read_queries(queries),
            qrels=None if qrels is None else read_qrels(qrels),
            writer=query_writer(endpoint, endpoint_model, Path(folder) / "adapt" / "queries"),
            progress=bars.update,
            say=note,
        )
        tell(opened)
    if as_json:
        print_json(report.as_json())
    else:
        click.echo(str(report))
