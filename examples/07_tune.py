"""Tuning: try many pipelines on judged queries, and take the best within a deadline, if it is really better.

Needs optuna: pip install 'twinrank[tune]'
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from docstrings import MODULES, write_judged

from twinrank import Collection, Recipe, TwinrankError
from twinrank.readers import read_dataset
from twinrank.tune.report import table
from twinrank.tune.tuning import Budget, Limits, tune


def main() -> None:
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = write_judged(folder / "docstrings", MODULES[:10])
        dataset = read_dataset(data, split="dev")  # never the test split
        # A real tuning tries hundreds: leave the budget out.
        budget = Budget(trials=12, folds=2, finalists=2, timed_queries=20, seed=1)
        tuning = tune(dataset, Limits(deadline=50), budget=budget, folder=folder / "collections")
        print(table(tuning))

        pick: Recipe = tuning.choice.recipe
        with Collection(folder / "docs.twinrank", recipe=pick) as docs:
            docs.add(data / "corpus.jsonl")
            print(f"\n{docs.search('merge sorted inputs into one', k=3)}")
        print("\nfrom the command line: twinrank tune DATA --split dev --deadline 50 -c docs.twinrank")


if __name__ == "__main__":
    try:
        main()
    except TwinrankError as error:  # the default encoder is not installed, say: the message tells what to do
        sys.exit(str(error))
