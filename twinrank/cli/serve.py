"""The command that serves a collection over HTTP."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from pathlib import Path

import click

from twinrank.cli.common import collection_option, model_option, open_collection, recipe_option, tell
from twinrank.show import note


@click.command()
@collection_option
@recipe_option
@model_option
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="The address to listen on; beyond this machine, keys are needed."
)
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0: any that is free.")
@click.option(
    "--keys",
    "key_file",
    metavar="FILE",
    help="Keys, as lines `read KEY` and `write KEY`; also TWINRANK_READ_KEYS, TWINRANK_WRITE_KEYS.",
)
@click.option(
    "--allow-origin",
    "origins",
    multiple=True,
    metavar="ORIGIN",
    help="Let pages of https://example.org ask (CORS); may be repeated.",
)
@click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="Be asked for by this name too, as behind a proxy; may be repeated.",
)
@click.option("--admin", is_flag=True, help="Offer /admin/check and /admin/rebuild.")
@click.option("--threads", type=click.IntRange(1, 256), help="Threads that search; four times as many encode.")
@click.option("--queue", type=click.IntRange(0, 100_000), help="Requests of each kind that may wait for a thread.")
@click.option("--quiet", is_flag=True, help="Write no line for each request.")
def serve(
    folder: str,
    recipe: str | None,
    model: str | None,
    host: str,
    port: int,
    key_file: str | None,
    origins: tuple[str, ...],
    hosts: tuple[str, ...],
    admin: bool,
    threads: int | None,
    queue: int | None,
    quiet: bool,
) -> None:
    """Serve a collection over HTTP: search, documents, embeddings and reranking; see /openapi.json.

    \b
    twinrank serve -c notes.twinrank
    curl localhost:8080/search -H 'Content-Type: application/json' -d '{"query": "renew a passport"}'
    """
    from twinrank.serve.keys import Keys
    from twinrank.serve.run import log_requests, require_keys
    from twinrank.serve.run import serve as run
    from twinrank.serve.settings import Settings

    settings = Settings(host=host, port=port, keys=Keys.find(key_file), origins=origins, hosts=hosts, admin=admin)
    if threads is not None:
        settings = replace(settings, threads=threads)
    if queue is not None:
        settings = replace(settings, queue=queue)
    require_keys(settings)  # told before a model is opened
    if key_file is not None and os.name != "nt" and Path(key_file).stat().st_mode & 0o077:
        note(
            f"{key_file} can be read by other users of this machine, who then know its keys: chmod 600 {shlex.quote(key_file)}"
        )
    if not quiet:
        log_requests()
    collection = open_collection(folder, recipe=recipe, model=model)
    tell(collection)
    run(collection, settings, note)
