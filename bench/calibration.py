"""Calibrations fitted on train and dev queries, judged on test queries and on other data sets: error, promises kept or broken.

python bench/calibration.py DATA_FOLDER [--sets scifact wikiqa …] [--recipe hybrid] [--queries 1000]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from twinrank.evaluate.calibrating import Asked, Judgment, Settings, ask, calibrate, judge, own_collection
from twinrank.readers import read_dataset
from twinrank.recipe import Recipe
from twinrank.search.calibrate import Calibration
from twinrank.stopping import upper_bound

SETS = {
    "scifact": "train",
    "wikiqa": "dev",
    "squad_sent": "dev",
    "pubmedqa_l": "dev",
    "debian_desc": "dev",
    "pydoc_code": "dev",
}
"""Data set → the split that is fitted on; test is judged by, once."""

RISKS = (0.05, 0.1, 0.2, 0.3)
FIRST = 3


def promises(calibration: Calibration, judged: Judgment) -> str:
    """For each risk the coverage and the risk that came out; ! where it came out above, !! where that is beyond chance."""
    cells = []
    for risk in RISKS:
        threshold = calibration.ladders[FIRST].threshold(risk)
        if threshold is None:
            cells.append("–")
            continue
        coverage, answered, wrong = judged.kept(FIRST, threshold)
        lowest = 1 - upper_bound(answered - wrong, answered)  # 95 % Clopper-Pearson, from below
        mark = "!!" if lowest > risk else "!" if answered and wrong / answered > risk else ""
        cells.append(f"{coverage:.0%}: {wrong / max(answered, 1):.3f}{mark}")
    return " | ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--recipe", default="hybrid")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--transfer", action="store_true", help="Judge each calibration on the other sets too.")
    options = parser.parse_args()
    settings = Settings(queries=options.queries)
    recipe = Recipe.load(options.recipe)
    calibrations: dict[str, Calibration] = {}
    tests: dict[str, list[Asked]] = {}
    features = []
    names = ["fitted on", "judged on", "method", "ECE of the score", "ECE (95 %)", "perfect", "first hit", "AUROC"]
    print("| " + " | ".join([*names, *(f"risk {risk:.0%}" for risk in RISKS)]) + " |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|", flush=True)
    for name in options.sets:
        fitting, testing = (read_dataset(options.data / name, split=split) for split in (SETS[name], "test"))
        with own_collection(fitting, recipe) as collection:
            result = calibrate(collection, fitting, settings=settings)
            random = np.random.default_rng(1)
            known = set(fitting.queries.values())
            kept = [query for query, text in testing.queries.items() if text not in known]
            drawn = [kept[place] for place in random.permutation(len(kept))[: options.queries].tolist()]
            part = type(testing)(
                testing.name,
                testing.folder,
                testing.corpus,
                {query: testing.queries[query] for query in drawn},
                {query: testing.qrels[query] for query in drawn},
                "test",
            )
            tests[name] = ask(collection, part, settings, random)
            calibrations[name], features = result.calibration, collection.features()
            show(
                name,
                f"{name} test",
                result.calibration,
                judge(result.calibration, tests[name], features, "test"),
                result.chosen,
            )
    for name, calibration in calibrations.items() if options.transfer else ():
        for other in tests:
            if other != name:
                judged = judge(calibration, tests[other], features, other)
                show(name, f"{other} test", calibration, judged, str(calibration.about["method"]))


def show(fitted: str, on: str, calibration: Calibration, judged: Judgment, method: str) -> None:
    after, top = judged.after, judged.top
    print(
        f"| {fitted} {SETS[fitted]} | {on} ({judged.queries}) | {method} | {judged.before.error:.3f} "
        f"| {after.error:.4f} ({after.interval[0]:.4f}–{after.interval[1]:.4f}) | {after.floor:.4f} | {top.error:.3f} "
        f"| {after.auroc:.3f} | {promises(calibration, judged)} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
