"""Commands that carry a collection elsewhere: as one file, or straight to another folder or engine."""

from __future__ import annotations

import shlex

import click

from twinrank.cli.common import collection_option, open_collection, place, without_password
from twinrank.show import Bar, note


@click.command()
@click.argument("file")
@collection_option
def export(file: str, folder: str) -> None:
    """Write a collection into FILE: documents, vectors and recipe, from one state, while others search and write.

    \b
    twinrank export notes.tar -c notes.twinrank        or .tar.gz
    """
    from twinrank import archive

    with open_collection(folder) as collection:
        size = archive.export(collection, file)
    note(f"{file}: {size / 1e6:,.1f} MB; elsewhere: twinrank import {shlex.quote(file)} -c DIR")


@click.command("import")
@click.argument("file")
@collection_option
def import_(file: str, folder: str) -> None:
    """Make the collection in FILE at a new place; it is checked as a whole before it stands there."""
    from twinrank import archive

    archive.import_(file, folder)
    with open_collection(folder) as collection:
        note(f'{collection}: ask it: twinrank search "…"{place(folder)}')


@click.command()
@click.argument("source")
@click.argument("target")
def copy(source: str, target: str) -> None:
    """Copy a collection to another folder or engine, without encoding anything again; the same command goes on after a kill.

    \b
    twinrank copy papers.twinrank milvus://localhost:19530/papers
    twinrank copy milvus://localhost:19530/papers postgresql://localhost/search/papers
    """
    from twinrank import moving

    with open_collection(source) as collection, Bar("documents", len(collection)) as bar:
        report = moving.copy(collection, target, progress=bar.update)
    note(f"{without_password(target)}: {report}")
