"""A judged data set and recipes → how good each recipe is, and how fast on this machine."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np

from twinrank.collection import Collection
from twinrank.errors import DataError
from twinrank.evaluate.metrics import DEFAULT_MEASURES, Measured, measure
from twinrank.ingest import AddReport
from twinrank.readers import Dataset
from twinrank.recipe import Recipe
from twinrank.types import Run

DEPTH = 100
"""Documents ranked for a query: as deep as the default measures look."""


@dataclass(frozen=True)
class Outcome:
    """One recipe on one data set."""

    recipe: Recipe
    measured: Measured
    run: Run
    milliseconds: tuple[float, ...]
    """Time of each query, in their order."""

    def percentile(self, share: float) -> float:
        return float(np.percentile(self.milliseconds, share))


@dataclass(frozen=True)
class Experiment:
    """Recipes side by side on one split of one data set."""

    dataset: str
    split: str
    documents: int
    queries: int
    """Queries with a relevant document, over which the means are taken."""
    unknown: int
    """Judged documents that the collection does not hold; they count as not found."""
    outcomes: Mapping[str, Outcome]


def evaluate(
    dataset: Dataset,
    recipes: Mapping[str, Recipe],
    *,
    folder: Path | None = None,
    measures: Sequence[str] = DEFAULT_MEASURES,
    progress: Callable[[str, int], None] | None = None,
    on_added: Callable[[AddReport], None] | None = None,
) -> Experiment:
    """Index the data set once for each way of storing it, run its judged queries through every recipe, and measure.

    Collections are kept in `folder` (default: the user's cache), so that what was encoded once is not encoded again.
    `progress` is told ("documents" or a recipe's name, how many more are done).
    """
    judged = {
        query: text for query, text in dataset.queries.items() if any(g > 0 for g in dataset.qrels.get(query, {}).values())
    }
    if not judged:
        raise DataError(f"{dataset.name}, split {dataset.split!r}: no query of it has both a text and a relevant document")
    told = progress or _silent
    filled: set[Path] = set()
    outcomes, documents, unknown = {}, 0, 0
    for name, recipe in recipes.items():
        place = place_of(dataset, recipe, folder)
        with Collection(place, recipe=recipe) as collection:
            if place not in filled:
                report = collection.add(dataset.documents(), progress=partial(told, "documents"))
                if on_added is not None and report.added + report.updated:
                    on_added(report)
                filled.add(place)
            documents = len(collection)
            unknown = _count_unknown(collection, dataset)
            outcomes[name] = _run(collection, judged, dataset, measures, partial(told, name))
    return Experiment(dataset.name, dataset.split, documents, len(judged), unknown, outcomes)


def place_of(dataset: Dataset, recipe: Recipe, folder: Path | None = None) -> Path:
    """The collection's folder: one for each state of the corpus and way of storing it."""
    corpus = Path(dataset.corpus).resolve()
    facts = corpus.stat()
    identity = [corpus, facts.st_size, facts.st_mtime_ns, recipe.encoder, recipe.passages]
    digest = hashlib.blake2b(repr(identity).encode(), digest_size=6).hexdigest()
    if folder is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = cache / "twinrank" / "eval"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{dataset.name}-{digest}.twinrank"


def _silent(name: str, done: int) -> None:
    """Progress that nobody watches."""


def _count_unknown(collection: Collection, dataset: Dataset) -> int:
    judged = sorted({document for grades in dataset.qrels.values() for document, grade in grades.items() if grade > 0})
    return sum(document is None for document in collection.get(judged))


def _run(
    collection: Collection,
    queries: Mapping[str, str],
    dataset: Dataset,
    measures: Sequence[str],
    progress: Callable[[int], None],
) -> Outcome:
    run: dict[str, dict[str, float]] = {}
    times = []
    collection.search(next(iter(queries.values())), k=DEPTH)  # opens models and indexes, outside the clock
    for query, text in queries.items():
        started = perf_counter()
        results = collection.search(text, k=DEPTH)
        times.append(1000 * (perf_counter() - started))
        run[query] = {hit.id: hit.score for hit in results}
        progress(1)
    qrels = {query: dataset.qrels[query] for query in queries}
    return Outcome(collection.recipe, measure(qrels, run, measures), run, tuple(times))
