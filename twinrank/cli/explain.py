"""The command that says why a document stands where it does."""

from __future__ import annotations

import click

from twinrank.cli.common import collection_option, json_option, open_collection, recipe_option, tell
from twinrank.show import print_json, truncation_as_note


@click.command()
@click.argument("query")
@click.option("-d", "--document", required=True, metavar="ID", help="The document's id, as search shows it.")
@collection_option
@click.option("-k", default=10, show_default=True, help="How many documents the search was asked for.")
@click.option("--where", metavar="EXPR", help="The condition of the search.")
@recipe_option
@click.option(
    "--budget", default=256, show_default=True, help="Texts that each model may read to weigh single words; 0 leaves that out."
)
@json_option
def explain(
    query: str, document: str, folder: str, k: int, where: str | None, recipe: str | None, budget: int, as_json: bool
) -> None:
    """Say why a document stands where it does for QUERY, or why it was not found.

    \b
    twinrank explain "merge two sorted lists" -d heapq.merge
    """
    from twinrank.explain import explain as explained
    from twinrank.explain.view import show_explanation

    with open_collection(folder, recipe=recipe) as collection, truncation_as_note():
        explanation = explained(collection, query, document, where=where, k=k, budget=budget)
        tell(collection)
    if as_json:
        print_json(explanation.as_json())
    else:
        show_explanation(explanation)
