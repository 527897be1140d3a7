"""Our measures beside trec_eval's, on real rankings of every collection: the largest difference of any query, ties included.

python bench/trec_eval.py [--data FOLDER] [--only NAME …] [--recipe words --recipe vectors --recipe hybrid] [--queries 2000]

FOLDER holds collections in BEIR's layout, a folder each. trec_eval is asked as pytrec_eval, with the scores as they are; RR@10,
which it has no name for, is its recip_rank, 0 where that is below a tenth. Exits with 1 where any query differs by 1e-6.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import pytrec_eval

from twinrank.evaluate.experiment import evaluate, judged_queries, sample
from twinrank.evaluate.metrics import DEFAULT_MEASURES, Measured
from twinrank.readers import read_dataset
from twinrank.recipe import Recipe
from twinrank.types import Qrels, Run

NAMES = {"nDCG@10": "ndcg_cut_10", "RR@10": "recip_rank", "R@100": "recall_100", "AP@100": "map_cut_100"}
ENOUGH = 1e-6


def main() -> None:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "twinrank-data"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=cache)
    parser.add_argument("--only", action="append", metavar="NAME")
    parser.add_argument("--recipe", action="append", metavar="NAME")
    parser.add_argument("--queries", type=int, default=2000, help="of each collection, at most, drawn by seed 0")
    given = parser.parse_args()
    recipes = {name: Recipe.load(name) for name in given.recipe or ("words", "vectors", "hybrid")}
    print("collection           recipe    queries  queries with ties  largest difference")
    worst = 0.0
    for qrels in sorted(given.data.glob("*/qrels/test.tsv")):
        folder = qrels.parents[1]
        if given.only and folder.name not in given.only:
            continue
        dataset = read_dataset(folder, split="test")
        dataset = sample(dataset, given.queries) if len(judged_queries(dataset)) > given.queries else dataset
        experiment = evaluate(dataset, recipes)
        for name, outcome in experiment.outcomes.items():
            difference = largest_difference(dataset.qrels, outcome.run, outcome.measured)
            tied = sum(len(set(scores.values())) < len(scores) for scores in outcome.run.values())
            print(f"{folder.name:<20} {name:<8} {experiment.queries:>8,} {tied:>18,} {difference:>19.1e}", flush=True)
            worst = max(worst, difference)
    print(f"\nthe largest difference of all: {worst:.1e}")
    sys.exit(int(worst >= ENOUGH))


def largest_difference(qrels: Qrels, run: Run, measured: Measured) -> float:
    """Over all queries and measures."""
    judged = {query: dict(qrels[query]) for query in measured.by_query[DEFAULT_MEASURES[0]]}
    asked = {query: dict(run[query]) for query in judged if run.get(query)}
    told = pytrec_eval.RelevanceEvaluator(judged, set(NAMES.values())).evaluate(asked)
    worst = 0.0
    for query in judged:
        for ours, theirs in NAMES.items():
            value = told.get(query, {}).get(theirs, 0.0)
            if ours == "RR@10" and value < 1 / 10 - 1e-9:  # found behind the tenth place
                value = 0.0
            worst = max(worst, abs(measured.by_query[ours][query] - value))
    return worst


if __name__ == "__main__":
    main()
