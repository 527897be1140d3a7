"""Tuned pipelines beside single architectures: chosen on train or dev queries, judged on test queries that had no part in it.

python bench/tuning.py [--data FOLDER] [--reranker FOLDER] [--deadline 50] [--clock wall] [--trials 100] [--only NAME …]

A set with a test split alone is cut in two by a hash of the query ids. The reranker is left out where it was trained on the
set or its kin (squad_sent, xquadr_en, debian_desc, pubmedqa_l). Passages have 256 tokens throughout. Ends with the table of
docs/tuning.md.
"""

from __future__ import annotations

import argparse
import json
import os
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from twinrank.readers import Dataset, read_dataset
from twinrank.recipe import Recipe, RerankSettings, RetrieveSettings, TokenSettings
from twinrank.tune.choose import difference
from twinrank.tune.finalists import measure
from twinrank.tune.judge import Judge
from twinrank.tune.outputs import Outputs
from twinrank.tune.report import table
from twinrank.tune.space import Space, default_knobs, describe
from twinrank.tune.tuning import Budget, Limits, tune

SETS = {  # name → the split to tune on; "" cuts the test split in two
    "covidfaq": "",
    "wikiqa": "dev",
    "cranfield": "",
    "xquadr_en": "",
    "pubmedqa_l": "dev",
    "squad_sent": "dev",
    "scifact": "train",
}
TRAINED_ON = {"squad_sent", "xquadr_en", "debian_desc", "pubmedqa_l"}


def main() -> None:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "twinrank-data"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=cache)
    parser.add_argument("--reranker", type=Path, default=None)
    parser.add_argument("--deadline", type=float, default=50.0)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--tuned", type=int, default=400, help="queries to tune on at most, the first by their ids' hashes")
    parser.add_argument("--tested", type=int, default=1000, help="queries to judge by at most")
    parser.add_argument("--only", nargs="*", default=list(SETS))
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--keep", type=Path, default=None, help="a folder of picks: those in it are not tuned again")
    given = parser.parse_args()
    rows = []
    for name in given.only:
        rows.append(judge_set(given, name))
        if given.json is not None:
            given.json.write_text(json.dumps(rows, indent=1))
    print_rows(rows)


def judge_set(given: argparse.Namespace, name: str) -> dict[str, object]:
    rerankers = [] if given.reranker is None or name in TRAINED_ON else [str(given.reranker)]
    tuning_part, test_part = parts(given.data / name, SETS[name], given.tuned, given.tested)
    base = Recipe()
    space = Space(base, default_knobs(base, rerankers=rerankers)).with_values("passages.size", ["256"])
    space = space.with_values("cross-encoder.candidates", ["0", "10", "20"] if rerankers else ["0"])
    kept = None if given.keep is None else given.keep / f"{name}.json"
    if kept is not None and kept.exists():
        recipe, expected = kept_pick(kept)
    else:
        budget = Budget(trials=given.trials, clock=given.clock)
        tuning = tune(tuning_part, Limits(given.deadline), base=base, space=space, budget=budget)
        print(table(tuning), "\n", flush=True)
        recipe, expected = tuning.choice.recipe, tuning.choice.expected
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps({"recipe": recipe.to_toml(), "expected": expected}))
    outputs = Outputs(test_part, tokens=TokenSettings())
    try:
        judge = Judge(outputs, test_part.queries, test_part.qrels)
        pick = judge(recipe)
        measured = measure([recipe], judge, clock=given.clock)[recipe]
        others = {label: difference(pick, judge(single)) for label, single in singles(rerankers).items()}
        row: dict[str, object] = {
            "set": name,
            "tuned on": len(tuning_part.queries),
            "queries": len(judge.queries),
            "pick": describe(recipe),
            "nDCG@10": float(pick.mean()),
            "p95": measured.p95,
            "differing": measured.differing,
            "expected": expected,
            "over": {label: (gain.mean, gain.low, gain.high) for label, gain in others.items()},
        }
    finally:
        outputs.close()
    print(json.dumps(row), "\n", flush=True)
    return row


def kept_pick(path: Path) -> tuple[Recipe, float]:
    told = json.loads(path.read_text())
    return Recipe.parse(told["recipe"]), told["expected"]


def parts(folder: Path, split: str, tuned: int, tested: int) -> tuple[Dataset, Dataset]:
    """(queries to tune on, queries to judge by), none in both."""
    test = read_dataset(folder, split="test")
    if split:
        return first(read_dataset(folder, split=split), tuned), first(test, tested)
    one = {query: text for query, text in test.queries.items() if zlib.crc32(query.encode()) % 2 == 0}
    other = {query: text for query, text in test.queries.items() if query not in one}
    return first(replace(test, queries=one, split="one half"), tuned), first(replace(test, queries=other), tested)


def first(dataset: Dataset, count: int) -> Dataset:
    kept = sorted(dataset.queries, key=lambda query: (zlib.crc32(query.encode()), query))[:count]
    return replace(dataset, queries={query: dataset.queries[query] for query in kept})


def singles(rerankers: list[str]) -> dict[str, Recipe]:
    """One architecture at a time; a cross-encoder cannot read everything, so it gets BM25's first 20."""
    recipes = {
        "BM25": Recipe(retrieve=RetrieveSettings(vectors=0)),
        "bi-encoder": Recipe(retrieve=RetrieveSettings(words=0)),
        "late interaction": Recipe(retrieve=RetrieveSettings(0, 0, 100), tokens=TokenSettings()),
    }
    for model in rerankers:
        stage = RerankSettings(model=model, candidates=20)
        recipes["cross-encoder"] = Recipe(retrieve=RetrieveSettings(vectors=0), rerank=(stage,))
    return {**recipes, "default": Recipe()}


def print_rows(rows: list[dict[str, object]]) -> None:
    labels = ["BM25", "bi-encoder", "late interaction", "cross-encoder", "default"]
    print("| set | tuned on | test queries | the pick | nDCG@10 | p95 ms |", *(f"over {label} |" for label in labels))
    print("|---|---|---|---|---|---|" + "---|" * len(labels))
    for row in rows:
        over = row["over"]
        assert isinstance(over, dict)
        cells = [f"{over[x][0]:+.3f} [{over[x][1]:+.3f}, {over[x][2]:+.3f}]" if x in over else "" for x in labels]
        figures = [row["set"], row["tuned on"], row["queries"], row["pick"], f"{row['nDCG@10']:.3f}", f"{row['p95']:.1f}"]
        print("|", " | ".join([*map(str, figures), *cells]), "|")
    gains = [over for row in rows if isinstance(over := row["over"], dict)]
    means = [f"{label} {np.mean([over[label][0] for over in gains if label in over]):+.3f}" for label in labels]
    best = np.mean([min(over[x][0] for x in labels[:4] if x in over) for over in gains])
    worse = [f"{row['set']}: {x}" for row, over in zip(rows, gains, strict=True) for x in over if over[x][2] < 0]
    print(f"\non average over {', '.join(means)}; over each set's best single architecture {best:+.3f}")
    print("significantly worse (95 % interval below 0):", "; ".join(worse) or "nowhere")


if __name__ == "__main__":
    main()
