"""A judged data set and recipes → how good each recipe is, and how fast on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from twinrank.collection import Collection
from twinrank.encoding import TOKENS
from twinrank.errors import DataError, TruncationWarning
from twinrank.evaluate.metrics import DEFAULT_MEASURES, Measured, check_measures, measure
from twinrank.ingest import AddReport, Ingest
from twinrank.loaded import Loaded
from twinrank.readers import Dataset, Problem
from twinrank.recipe import Recipe
from twinrank.text import counted
from twinrank.types import Run

DEPTH = 100
"""Documents ranked for a query: as deep as the default measures look."""

BLOCK = 10
"""Queries that one recipe answers before the next one's turn, so that a busy minute falls on all of them."""

TOOK, TOOK_TOKENS = "evaluate: seconds", "evaluate: seconds for tokens"
"""Entries of a collection's store that say what making it took, and what making the index over its tokens took."""


@dataclass(frozen=True)
class Outcome:
    """One recipe on one data set."""

    recipe: Recipe
    measured: Measured
    run: Run
    milliseconds: tuple[float, ...]
    """Time of each query, in their order, for 100 documents."""
    place: Path | str
    """Its collection, which may be other recipes' too."""

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
    notes: tuple[str, ...] = ()
    """What the reader of the figures should know about the judgments and the rankings."""


Progress = Callable[[str, int], None]


def evaluate(
    dataset: Dataset,
    recipes: Mapping[str, Recipe],
    *,
    folder: Path | None = None,
    collection: str | Path | None = None,
    measures: Sequence[str] = DEFAULT_MEASURES,
    progress: Progress | None = None,
    on_added: Callable[[AddReport], None] | None = None,
) -> Experiment:
    """Index the data set once for each way of storing it, run its judged queries through every recipe, and measure.

    Collections are kept in `folder` (default: the user's cache), so that what was encoded once is not encoded again. With a
    `collection`, of a folder or an engine, that one is asked as it is, and nothing is added to it; a recipe has to fit what it
    stores. The recipes take turns, a few queries each. `progress` is told ("documents" or "searches", how many more are done).
    """
    check_measures(measures)
    judged = judged_queries(dataset)
    told = progress or _silent
    with ExitStack() as stack:
        opened: dict[str, Collection] = {}
        filled: dict[str | Path, AddReport] = {}
        for name, recipe in recipes.items():
            place = collection or place_of(dataset, recipe, folder)
            if place not in filled:
                filled[place] = (
                    AddReport() if collection else fill(dataset, recipe, Path(place), partial(told, "documents"), on_added)
                )
            opened[name] = stack.enter_context(Collection(place, recipe=recipe, create=False))
            _make_indexes(opened[name])
        cut: dict[str, int] = {}
        with _counting_cuts(cut) as turn_of:
            runs, times = search_in_turns(opened, judged, partial(told, "searches"), turn_of)
        first = next(iter(opened.values()))
        unknown = _unknown(first, dataset)
        qrels = {query: dataset.qrels[query] for query in judged}
        outcomes = {
            name: Outcome(
                recipes[name],
                measure(qrels, runs[name], measures),
                runs[name],
                tuple(times[name]),
                opened[name].path,
            )
            for name in opened
        }
        notes = (
            *_notes_on_the_corpus(next(iter(filled.values())).skipped),
            *_notes_on_judgments(dataset, judged, unknown),
            *_notes_on_rankings(runs),
            *_notes_on_cuts(cut),
            *_notices(opened),
        )
        return Experiment(dataset.name, dataset.split, len(first), len(judged), len(unknown), outcomes, notes)


def judged_queries(dataset: Dataset) -> dict[str, str]:
    """The queries with a relevant document; raises DataError where there is none."""
    judged = {
        query: text for query, text in dataset.queries.items() if any(g > 0 for g in dataset.qrels.get(query, {}).values())
    }
    if not judged:
        raise DataError(
            f"{dataset.name}, split {dataset.split!r}: no query of it has both a text and a relevant document (a grade above 0)"
        )
    return judged


def sample(dataset: Dataset, queries: int, seed: int = 0) -> Dataset:
    """The data set with so many of its judged queries, drawn by chance; the same seed draws the same ones."""
    judged = list(judged_queries(dataset))
    if queries < 1:
        raise DataError(f"a sample has 1 query at least; got {queries}")
    drawn = np.random.default_rng(seed).permutation(len(judged))[:queries]
    kept = {judged[place]: dataset.queries[judged[place]] for place in sorted(drawn.tolist())}
    return replace(dataset, queries=kept, qrels={query: dataset.qrels[query] for query in kept})


# -- storing -------------------------------------------------------------------------------------------------------------


def place_of(dataset: Dataset, recipe: Recipe, folder: Path | None = None) -> Path:
    """The collection's folder: one for each state of the corpus and way of storing it.

    A way of storing is what the models are, to the last weight and the number format that they run in here, how documents are
    cut, and the language of the word index, of which a collection has one. `needs_vectors` decides whether vectors are kept.
    """
    corpus = Path(dataset.corpus).resolve()
    facts = corpus.stat()
    models = Loaded(recipe).passages
    views = [] if models is None else [(plan.name, plan.fingerprint, sorted(plan.settings.items())) for plan in models.views]
    kept = "vectors" if needs_vectors(recipe) else "words"
    identity = [corpus, facts.st_size, facts.st_mtime_ns, recipe.stored, views, recipe.words, kept]
    digest = hashlib.blake2b(repr(identity).encode(), digest_size=6).hexdigest()
    if folder is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = cache / "twinrank" / "eval"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{dataset.name}-{digest}.twinrank"


def needs_vectors(recipe: Recipe) -> bool:
    """Whether anything in the recipe looks at what an encoder makes of the passages; an anytime rerank predicts from it."""
    return bool(recipe.retrieve.vectors or recipe.tokens is not None or any(stage.risk for stage in recipe.rerank))


def fill(
    dataset: Dataset,
    recipe: Recipe,
    place: Path,
    progress: Callable[[int], None] | None = None,
    on_added: Callable[[AddReport], None] | None = None,
) -> AddReport:
    """Put every document of the corpus into the collection at `place`, and note how long that took."""
    problems: list[Problem] = []
    documents = dataset.documents(on_problem=problems.append)
    with Collection(place, recipe=recipe) as collection:
        fresh, started = not len(collection), perf_counter()
        if needs_vectors(recipe):
            report = collection.add(documents, progress=progress)
        else:  # cut as the encoder would have it, so that the passages are those of other recipes; but not encoded
            report = AddReport()
            loaded = Loaded(recipe)
            ingest = Ingest(collection.store, loaded.passages, recipe.passages, loaded.translate, encode=False)
            ingest.add(documents, report, progress)
            collection.pipeline()
        report.problems += problems
        if fresh:
            collection.store.set_meta(TOOK, json.dumps(perf_counter() - started))
            if _has_token_index(collection):
                collection.store.set_meta(TOOK_TOKENS, json.dumps(0.0))  # it was made on the way
        elif report.added + report.updated:
            collection.store.set_meta(TOOK, json.dumps(None))  # made in several goes: nobody knows
        if on_added is not None and report.added + report.updated:
            on_added(report)
        return report


def _make_indexes(collection: Collection) -> None:
    """Make what the recipe searches and another recipe of the same storage had no need of: the index over tokens."""
    if not collection.recipe.retrieve.tokens or _has_token_index(collection):
        return
    started = perf_counter()
    collection.pipeline()
    collection.store.set_meta(TOOK_TOKENS, json.dumps(perf_counter() - started))


def _has_token_index(collection: Collection) -> bool:
    return any(index.name == TOKENS and index.there for index in collection.status().indexes)


def seconds_to_make(collection: Collection) -> float | None:
    """From documents to a collection that its recipe can search; None where it was made in several goes."""
    entries = [TOOK, TOOK_TOKENS] if collection.recipe.retrieve.tokens else [TOOK]
    told = [json.loads(collection.store.get_meta(entry) or "null") for entry in entries]
    return None if None in told else float(sum(told))


# -- searching -----------------------------------------------------------------------------------------------------------


def search_in_turns(
    collections: Mapping[str, Collection],
    queries: Mapping[str, str],
    progress: Callable[[int], None] | None = None,
    turn_of: Callable[[str], None] | None = None,
) -> tuple[dict[str, dict[str, dict[str, float]]], dict[str, list[float]]]:
    """Ask every collection every query, one at a time: (rankings by name, milliseconds by name).

    `turn_of` is told whose turn it is, `progress` how many more queries were answered.
    """
    runs: dict[str, dict[str, dict[str, float]]] = {name: {} for name in collections}
    times: dict[str, list[float]] = {name: [] for name in collections}
    warm = f"{next(iter(queries.values()))} again"  # no query of the set: what was asked before is remembered
    for collection in collections.values():
        collection.search(warm, k=DEPTH)  # opens models and indexes, outside the clock
    texts = list(queries.items())
    order, draw = list(collections.items()), random.Random(0)
    for start in range(0, len(texts), BLOCK):
        draw.shuffle(order)  # so that nobody always comes after the one that leaves the caches full of its own
        for name, collection in order:
            if turn_of is not None:
                turn_of(name)
            for query, text in texts[start : start + BLOCK]:
                started = perf_counter()
                results = collection.search(text, k=DEPTH)
                times[name].append(1000 * (perf_counter() - started))
                runs[name][query] = {hit.id: hit.score for hit in results}
            if progress is not None:
                progress(len(texts[start : start + BLOCK]))
    return runs, times


def _silent(name: str, done: int) -> None:
    """Progress that nobody watches."""


# -- what the reader of the figures should know --------------------------------------------------------------------------


def _unknown(collection: Collection, dataset: Dataset) -> set[str]:
    judged = sorted({document for grades in dataset.qrels.values() for document, grade in grades.items() if grade > 0})
    return {identifier for identifier, found in zip(judged, collection.get(judged), strict=True) if found is None}


def _notes_on_the_corpus(skipped: Sequence[Problem]) -> Iterator[str]:
    if skipped:
        yield f"{counted(len(skipped), 'document')} of the corpus left out; the first: {skipped[0]}"


def _notes_on_judgments(dataset: Dataset, judged: Mapping[str, str], unknown: set[str]) -> Iterator[str]:
    if left_out := len(dataset.queries) - len(judged):
        yield f"{_queries(left_out)} of the split without a relevant document by its judgments: left out"
    if unknown:
        yield f"{len(unknown):,} relevant documents of the judgments are not in the corpus; they count as not found"
    hopeless = [
        query for query in judged if all(document in unknown for document, grade in dataset.qrels[query].items() if grade > 0)
    ]
    if hopeless:
        yield f"{_queries(len(hopeless))} whose relevant documents are all missing, such as {hopeless[0]!r}: 0 for every recipe"
    if len(judged) == 1:
        yield "one query: these figures say nothing about any other"


def _notes_on_rankings(runs: Mapping[str, Run]) -> Iterator[str]:
    for name, run in runs.items():
        if tied := sum(len(scores) > 1 and len(set(scores.values())) == 1 for scores in run.values()):
            yield f"{name}: all scores tied for {_queries(tied)}, whose documents stand in the order of their ids, not of merit"


@contextmanager
def _counting_cuts(counts: dict[str, int]) -> Iterator[Callable[[str], None]]:
    """Inside, a recipe's warnings that pairs were cut are counted, not shown one by one; hands out who takes the name."""
    whose = ""

    def turn_of(name: str) -> None:
        nonlocal whose
        whose = name

    with warnings.catch_warnings():
        warnings.simplefilter("always", TruncationWarning)
        show = warnings.showwarning

        def count(message: Warning | str, category: type[Warning], *rest: Any, **options: Any) -> None:
            if not issubclass(category, TruncationWarning):
                show(message, category, *rest, **options)
            elif whose:  # what was searched to warm up does not count
                counts[whose] = counts.get(whose, 0) + 1

        warnings.showwarning = count
        yield turn_of


def _notes_on_cuts(cut: Mapping[str, int]) -> Iterator[str]:
    for name, times in cut.items():
        yield f"{name}: texts longer than its model takes were cut {times:,} times; what was cut off was not read"


def _notices(collections: Mapping[str, Collection]) -> Iterator[str]:
    for name, collection in collections.items():
        for notice in collection.notices:
            yield f"{name}: {notice}"
        collection.notices.clear()


def _queries(count: int) -> str:
    return counted(count, "query") if count == 1 else f"{count:,} queries"
