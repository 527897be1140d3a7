"""The command that serves a collection to a language model's host, by the Model Context Protocol."""

from __future__ import annotations

import click

from twinrank.cli.common import collection_option, open_collection, recipe_option, tell
from twinrank.errors import MissingExtraError
from twinrank.show import note


@click.command()
@collection_option
@recipe_option
@click.option("--http", "over_http", is_flag=True, help="Serve by streamable HTTP instead, on this machine alone.")
@click.option("--host", default="127.0.0.1", show_default=True, help="With --http: the address, of this machine.")
@click.option(
    "--port", default=8081, show_default=True, type=click.IntRange(0, 65535), help="With --http; 0: any that is free."
)
def mcp(folder: str, recipe: str | None, over_http: bool, host: str, port: int) -> None:
    """Serve a collection to a language model's host: search, get_document, answer, explain, status.

    \b
    twinrank mcp -c /home/me/notes.twinrank            what a host starts, and talks to
    twinrank mcp -c notes.twinrank --http              http://127.0.0.1:8081/mcp
    """
    try:
        from twinrank.mcp import run_http, run_stdio
    except ImportError as error:
        raise MissingExtraError("serving by MCP needs the library mcp: pip install 'twinrank[mcp]'") from error
    with open_collection(folder, recipe=recipe) as collection:
        tell(collection)
        if over_http:
            run_http(collection, note, host=host, port=port)
        else:
            run_stdio(collection)
