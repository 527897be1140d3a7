"""What the commands share: their options, a collection opened, lines read from standard input, notices told."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from twinrank.show import note

if TYPE_CHECKING:
    from twinrank.collection import Collection

DEFAULT_FOLDER = ".twinrank"

collection_option = click.option(
    "-c",
    "--collection",
    "folder",
    default=DEFAULT_FOLDER,
    show_default=True,
    metavar="DIR",
    help="The collection's directory, or its address in an engine.",
)
recipe_option = click.option("--recipe", metavar="FILE", help="A recipe in TOML, or one of words, vectors, hybrid, reranked.")
model_option = click.option("--model", metavar="NAME", help="The encoder: a hub name, a folder, or none for words alone.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def open_collection(folder: str, *, recipe: str | None = None, model: str | None = None, create: bool = False) -> Collection:
    from twinrank.collection import Collection

    return Collection(folder, recipe=recipe, model=model, create=create)


def input_lines() -> Iterator[str]:
    """Standard input, line by line; UsageError where it is a terminal at which nobody was asked for anything."""
    if sys.stdin.isatty():
        raise click.UsageError("give texts as arguments or as lines on standard input")
    for line in sys.stdin:
        yield line.rstrip("\n")


def read_lines() -> list[str]:
    return [line for line in input_lines() if line.strip()]


def tell(collection: Collection) -> None:
    for notice in collection.notices:
        note(notice)
    collection.notices.clear()


def place(folder: str) -> str:
    """How a command that is told to be pasted names this collection; nothing for the default one.

    >>> place("my notes"), place(".twinrank")
    (" -c 'my notes'", '')
    """
    return "" if folder == DEFAULT_FOLDER else f" -c {shlex.quote(without_password(folder))}"


def without_password(place: str) -> str:
    """A folder, or an engine's address as it may be shown.

    >>> without_password("postgresql://me:secret@localhost/search/papers")
    'postgresql://me@localhost/search/papers'
    """
    from twinrank.index.engines import Address, is_address

    return str(Address.parse(place)) if is_address(place) else place


def default_split(data: Path) -> str:
    """dev, or train, or whatever judgments there are: what is to be chosen by is not the test split, where there is another."""
    splits = sorted(path.stem for path in data.glob("qrels/*.tsv"))
    return next((split for split in ("dev", "train", *splits) if split in splits), "dev")


def recipe_name(recipe: str) -> str:
    return Path(recipe).stem if recipe.endswith(".toml") else recipe
