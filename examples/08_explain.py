"""Why a document stands where it does: its words, its vectors, its tokens, what was added up; and why one was not found."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from docstrings import records

from twinrank import Collection, Recipe, TwinrankError
from twinrank.explain import explain
from twinrank.explain.view import show_explanation

QUERY = "wait until several threads have come to the same point"


def main() -> None:
    recipe = Recipe.parse('[tokens]\n\n[[rerank]]\nkind = "maxsim"\ncandidates = 20\n')
    with TemporaryDirectory() as folder, Collection(Path(folder) / "docs.twinrank", recipe=recipe) as docs:
        docs.add(records())
        found = docs.search(QUERY, k=3)
        print(found, end="\n\n")
        show_explanation(explain(docs, QUERY, found[0].id, k=3))

        # Why one does not stand there at all; with a budget of 0 no model is asked what single words do.
        missing = explain(docs, QUERY, "heapq.merge", k=3, budget=0)
        print(f"and heapq.merge? {missing.outcome}")
        print(f"all of it is plain values, for programs: {', '.join(missing.as_json())}")


if __name__ == "__main__":
    try:
        main()
    except TwinrankError as error:  # the default encoder is not installed, say: the message tells what to do
        sys.exit(str(error))
