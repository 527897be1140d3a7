"""Measuring: is one way of searching better than another, by how much, and how sure is that?"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from docstrings import write_judged

from twinrank import Recipe, TwinrankError
from twinrank.evaluate.experiment import evaluate
from twinrank.evaluate.metrics import write_run
from twinrank.evaluate.report import table
from twinrank.readers import read_dataset


def main() -> None:
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        # Your own judgments lie in BEIR's layout: corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv.
        data = read_dataset(write_judged(folder / "docstrings"), split="test")
        recipes = {name: Recipe.load(name) for name in ("words", "vectors", "hybrid")}
        experiment = evaluate(data, recipes, folder=folder / "collections")
        print(table(experiment, baseline="words"))

        # Any other tool of the field reads the rankings as a TREC run.
        outcome = experiment.outcomes["hybrid"]
        write_run(outcome.run, folder / "hybrid.run", tag="twinrank-hybrid")
        print(f"\nthe first lines of the run, and {outcome.percentile(95):.1f} ms for 95 of 100 queries:")
        print("\n".join((folder / "hybrid.run").read_text(encoding="utf-8").splitlines()[:3]))


if __name__ == "__main__":
    try:
        main()
    except TwinrankError as error:  # the default encoder is not installed, say: the message tells what to do
        sys.exit(str(error))
