"""The command that makes examples for training: pairs out of judged data or a collection, with mined negatives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from twinrank.cli.common import json_option, open_collection
from twinrank.show import Bars, note, print_json, truncation_as_note

if TYPE_CHECKING:
    from twinrank.train.made import Way
    from twinrank.train.material import Material
    from twinrank.train.written import QueryWriter


@click.command()
@click.argument("data", metavar="[DATA]", required=False)
@click.option(
    "-c", "--collection", metavar="DIR", help="Make examples of a collection's own texts, and mine from its passages."
)
@click.option("--out", required=True, metavar="FILE", help="Where the examples go, as JSON lines.")
@click.option("--split", default="train", show_default=True, help="Of DATA, a folder in BEIR's layout.")
@click.option("--by", type=click.Choice(["words", "vectors", "both"]), default="both", show_default=True, help="Who ranks.")
@click.option("--count", default=4, show_default=True, help="Negatives an example.")
@click.option("--first", default=1, show_default=True, help="The best rank that a negative may have.")
@click.option("--last", default=50, show_default=True, help="The worst rank.")
@click.option("--margin", type=float, metavar="X", help="Leave out what scores above 1 - X times the positive.")
@click.option("--draw", type=click.Choice(["top", "random"]), default="random", show_default=True, help="Which of the window.")
@click.option("--model", metavar="NAME", help="The encoder that ranks.  [default: the collection's, or all-MiniLM-L6-v2]")
@click.option("--judge", metavar="NAME", help="A cross-encoder: leave out what it finds as good as the positive.")
@click.option(
    "--held-out",
    metavar="SPLIT|DIR",
    help="Leave out examples that leak from this split of DATA, or from what is judged in DIR but for train.  [default: test]",
)
@click.option("--dev", metavar="DIR", help="Of -c: hold documents apart, and write judged dev and test queries of them there.")
@click.option("--keep-leaks", is_flag=True, help="Count leaks, and keep them.")
@click.option("--way", "ways", multiple=True, metavar="WAY", help="title, first sentence or inverse cloze; repeatable.")
@click.option("--endpoint", metavar="URL", help="Let a language model write queries: http://127.0.0.1:8080/v1, as OpenAI's.")
@click.option("--endpoint-model", default="", metavar="NAME", help="Its name there; the key: TWINRANK_ENDPOINT_KEY.")
@click.option("--limit", default=0, metavar="N", help="So many examples at most, drawn by the seed.")
@click.option("--seed", default=0, show_default=True)
@json_option
def mine(
    data: str | None,
    collection: str | None,
    out: str,
    split: str,
    by: Literal["words", "vectors", "both"],
    count: int,
    first: int,
    last: int,
    margin: float | None,
    draw: Literal["top", "random"],
    model: str | None,
    judge: str | None,
    held_out: str | None,
    dev: str | None,
    keep_leaks: bool,
    ways: tuple[Way, ...],
    endpoint: str | None,
    endpoint_model: str,
    limit: int,
    seed: int,
    as_json: bool,
) -> None:
    """Make examples for training: queries with passages that answer them, and near misses that do not.

    \b
    twinrank mine scifact/ --held-out test --out scifact-train.jsonl
    twinrank mine -c notes.twinrank --out notes-train.jsonl      no judgments needed
    twinrank mine -c notes.twinrank --out notes-train.jsonl --dev notes-judged/      with a dev set for a training's guard
    """
    from twinrank.models.hub import DEFAULT_MODEL
    from twinrank.train import material as materials
    from twinrank.train.data import write_examples
    from twinrank.train.negatives import Mining
    from twinrank.train.splits import find_leaks

    if (data is None) == (collection is None):
        raise click.UsageError("give DATA, judged or pairs, or a collection with -c: one of the two")
    if dev is not None and collection is None:
        raise click.UsageError("--dev parts what is made of a collection, -c; DATA has splits of its own")
    if dev is not None and Path(dev).exists() and (not Path(dev).is_dir() or any(Path(dev).iterdir())):
        raise click.UsageError(f"--dev {dev}: something is there; give a new folder")
    mining = Mining(by, count, first, last, margin, draw=draw, seed=seed)
    bars = Bars({"documents": None, "passages": None, "queries": None})
    with bars, truncation_as_note():
        encoder: str | None = model or DEFAULT_MODEL
        if collection is not None:
            writer = query_writer(endpoint, endpoint_model, Path(f"{out}.queries"))
            found, own = _of_collection(collection, ways, writer, limit, seed, bars, dev)
            encoder = model or own
            if model is not None:
                found.vectors = None
        else:
            assert data is not None
            found = materials.of_data(data, split=split)
        leakage, (folder, apart) = None, _held_out(data, held_out, split)
        if apart:
            measured_on = [example for name in apart for example in materials.held_out(folder, name)]
            leakage = find_leaks(found.examples, measured_on)
            if leakage.leaks and not keep_leaks:
                found = found.take(leakage.kept)
        found = found.sample(limit, seed)
        scorer = None
        if judge is not None:
            from twinrank.models.crossencoder import CrossEncoder

            scorer = CrossEncoder(judge)
        mined, tally = found.mine(mining, encoder, judge=scorer, progress=bars.update)
    written = write_examples(mined, out)
    if as_json:
        told = None if leakage is None else {"split": ", ".join(apart), "dropped": not keep_leaks, **leakage.as_json()}
        print_json({"examples": written, "file": out, "mining": tally.as_json(), "leaks": told})
        return
    if leakage is not None:
        note(f"{leakage}" + ("; they are left out" if leakage.leaks and not keep_leaks else ""))
    note(str(tally))
    click.echo(out)


def _of_collection(
    folder: str,
    ways: tuple[Way, ...],
    writer: QueryWriter | None,
    limit: int,
    seed: int,
    bars: Bars,
    dev: str | None,
) -> tuple[Material, str | None]:
    """The material, without the documents of `dev`, which is written where it is asked for; and the encoder by name."""
    from twinrank.recipe import NO_MODEL
    from twinrank.train.made import WAYS
    from twinrank.train.material import of_collection
    from twinrank.train.measuring import Extent, split_for_measuring, write_judged

    with open_collection(folder) as opened:
        own = opened.recipe.encoder.model
        found = of_collection(
            opened,
            ways=ways or (() if writer else WAYS),
            writer=writer,
            limit=limit or len(opened),
            seed=seed,
            progress=lambda done: bars.update("documents", done),
        )
        if dev is not None:
            extent = Extent(examples=len(found.examples), seed=seed)
            parts = split_for_measuring(found, extent)
            write_judged(opened, found, parts, Path(dev), extent)
            found = found.take(parts.train)
            for told in parts.notes:
                note(told)
    return found, None if own == NO_MODEL else own


def query_writer(url: str | None, model: str, cache: Path) -> QueryWriter | None:
    """What asks a model for queries; None where no address was given."""
    from twinrank.answer.endpoint import Endpoint
    from twinrank.train.written import QueryWriter

    return None if url is None else QueryWriter(Endpoint(url, model), cache)


def _held_out(data: str | None, wanted: str | None, split: str) -> tuple[Path, list[str]]:
    """A folder and its splits whose leaks are looked for: those asked for, or test, if it is not what is learned from."""
    place = Path(data or "")
    there = [] if data is None else _splits(place)
    if wanted is None:
        return place, ["test"] if "test" in there and split != "test" else []
    if wanted in there:
        return place, [wanted]
    elsewhere = [name for name in _splits(Path(wanted)) if name != "train"]
    if not elsewhere:
        known = "" if data is None else f"{data} has judgments for {', '.join(there) or 'no split'}, and "
        raise click.UsageError(f"--held-out {wanted}: {known}{wanted} is no folder with judgments for a split beside train")
    return Path(wanted), elsewhere


def _splits(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("qrels/*.tsv"))
