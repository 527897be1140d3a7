"""The architectures side by side on one judged collection: how good, how fast, how large, and which differences are real."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from twinrank.collection import Collection
from twinrank.encoding import TOKENS
from twinrank.errors import InputError
from twinrank.evaluate.experiment import (
    Experiment,
    Outcome,
    Progress,
    evaluate,
    fill,
    judged_queries,
    place_of,
    sample,
    seconds_to_make,
)
from twinrank.evaluate.machine import describe_machine
from twinrank.evaluate.memory import peak_memory
from twinrank.evaluate.metrics import ceiling, check_measures
from twinrank.evaluate.significance import Paired, compare_all
from twinrank.ingest import AddReport
from twinrank.models import kinds
from twinrank.models.hub import DEFAULT_MODEL
from twinrank.readers import Dataset
from twinrank.recipe import FuseSettings, Recipe, RerankSettings, RetrieveSettings, TokenSettings

MEASURES = ("nDCG@10", "RR@10", "R@100")
BM25 = "BM25"

RERANKED = 100
"""Candidates that a reranker by itself looks at."""

PAIRS = 250_000
"""Pairs of query and passage, up to which the cross-encoder reads the whole collection for every query."""

ASKED = 20
"""Queries of the process whose memory is measured."""


@dataclass(frozen=True)
class Models:
    """What the architectures run on; None leaves a row out."""

    encoder: str = DEFAULT_MODEL
    reranker: str | None = None
    twin_tower: str | None = None


@dataclass(frozen=True)
class Row:
    """One architecture, measured."""

    name: str
    outcome: Outcome
    ceiling: float
    """The first measure, if the 100 documents found stood in their best order: what no reranker of them can exceed."""
    seconds: float | None
    """From documents to a collection that can be searched; None where it was made in several goes."""
    size: float
    """Bytes a passage, of what a search looks at: word index, vectors, token vectors; not the texts."""
    memory: float
    """Megabytes at the peak of a fresh process that opens the collection and answers 20 queries; the interpreter included."""
    difference: Paired | None
    """The first measure minus the baseline's, query by query; None for the baseline."""

    @property
    def recipe(self) -> Recipe:
        return self.outcome.recipe

    @property
    def queries_a_second(self) -> float:
        """One query after the other."""
        return 1000 * len(self.outcome.milliseconds) / sum(self.outcome.milliseconds)


@dataclass(frozen=True)
class Comparison:
    """Architectures on one split of one data set."""

    experiment: Experiment
    measures: Sequence[str]
    baseline: str
    rows: Sequence[Row]
    passages: int
    judged: int
    """Judged queries of the split, of which the experiment's were drawn."""
    left_out: Sequence[str]
    """Rows that are not there: why, and how to include them."""
    machine: Mapping[str, str] = field(default_factory=dict)

    def per_query(self, row: Row) -> list[float]:
        """The first measure minus the baseline's, of every query."""
        base = self.experiment.outcomes[self.baseline].measured.by_query[self.measures[0]]
        return [value - base[query] for query, value in row.outcome.measured.by_query[self.measures[0]].items()]


def architectures(models: Models, passages: int, queries: int) -> tuple[dict[str, Recipe], list[str]]:
    """A recipe a row, cheapest architecture first; and a line for each row that is left out."""
    kind, base = kinds.recognise(models.encoder), Recipe().with_model(models.encoder)
    vectors = RetrieveSettings(vectors=100, words=0)
    hybrid = replace(base, retrieve=RetrieveSettings(vectors=100, words=100))
    rows = {BM25: replace(base, retrieve=RetrieveSettings(vectors=0, words=100))}
    left_out = []
    if kind == "BiEncoder":
        for pooling, name in (("cls", "CLS"), ("mean", "mean")):
            rows[f"bi-encoder: {name}"] = replace(base, retrieve=vectors, encoder=replace(base.encoder, pooling=pooling))
        stated = _stated_pooling(models.encoder)
        if stated not in ("cls", "mean"):
            rows[f"bi-encoder: {stated}"] = replace(base, retrieve=vectors)
    elif kind == "TwinTower":
        rows["twin tower"] = replace(base, retrieve=vectors)
    if models.twin_tower is not None:
        rows["twin tower"] = replace(base.with_model(models.twin_tower), retrieve=vectors)
    elif "twin tower" not in rows:
        left_out.append("twin tower: name one with --twin-tower MODEL")
    late = None
    if kind == "TwinTower":
        left_out.append(f"late interaction: {models.encoder} is a twin tower; name a bi-encoder or a ColBERT with --model")
    else:
        late = replace(hybrid, tokens=TokenSettings())
        again = RerankSettings(kind="maxsim", candidates=RERANKED, weight=1.0)
        rows["late interaction: rerank"] = replace(late, rerank=(again,))
        rows["late interaction: search"] = replace(late, retrieve=RetrieveSettings(vectors=0, words=0, tokens=100))
    rows["hybrid"] = hybrid
    if late is not None:
        late = replace(late, rerank=(RerankSettings(kind="maxsim", candidates=RERANKED),))
        rows["hybrid + late interaction"] = late
    if models.reranker is None:
        left_out.append("cross-encoder, and the cascade that ends in it: name one with --reranker MODEL")
    else:
        reads = RerankSettings(models.reranker, candidates=RERANKED)
        rows["cross-encoder: rerank"] = replace(hybrid, rerank=(reads,))
        if RERANKED < passages <= PAIRS // max(queries, 1):
            everything = RetrieveSettings(vectors=passages, words=0)
            rows["cross-encoder: all"] = replace(
                base, retrieve=everything, rerank=(replace(reads, candidates=passages),), fuse=FuseSettings()
            )
        elif passages > RERANKED:
            left_out.append(
                f"cross-encoder over everything: {passages:,} passages × {queries:,} queries are more than {PAIRS:,} pairs; "
                f"--queries {max(PAIRS // passages, 1)} would do"
            )
        rows["cascade"] = replace(late or hybrid, rerank=(*(late or hybrid).rerank, RerankSettings(models.reranker)))
    return rows, left_out


def _stated_pooling(model: str) -> str:
    from twinrank.models.checkpoint import Checkpoint

    return str(Checkpoint.find(model).pooling)


def compare(
    dataset: Dataset,
    models: Models | None = None,
    *,
    baseline: str = BM25,
    measures: Sequence[str] = MEASURES,
    queries: int | None = None,
    seed: int = 0,
    folder: Path | None = None,
    progress: Progress | None = None,
    on_added: Callable[[AddReport], None] | None = None,
) -> Comparison:
    """Measure every architecture on the data set; `queries` draws so many of its judged queries by `seed`.

    The first measure is the one that differences, plot and ceiling are of. `progress` is told ("documents", "searches" or
    "processes", how many more are done). Raises InputError for an unknown measure or baseline, before anything is encoded.
    """
    chosen = models or Models()
    check_measures(measures)
    judged = len(judged_queries(dataset))
    drawn = dataset if queries is None else sample(dataset, queries, seed)
    asked = judged if queries is None else min(queries, judged)
    known, _ = architectures(chosen, passages=RERANKED + 1, queries=1)
    if baseline not in known:
        raise InputError(f"the baseline {baseline!r} is none of what is compared: {', '.join(known)}")
    passages = _passages(drawn, known[BM25], folder, progress)
    recipes, left_out = architectures(chosen, passages, asked)
    if baseline not in recipes:  # the cross-encoder over everything, of too much
        raise InputError(f"the baseline {baseline!r} is left out here: {'; '.join(left_out)}")
    experiment = evaluate(drawn, recipes, folder=folder, measures=measures, progress=progress, on_added=on_added)
    values = {name: outcome.measured.by_query[measures[0]] for name, outcome in experiment.outcomes.items()}
    others = {name: of for name, of in values.items() if name != baseline}
    differences = compare_all(values[baseline], others)
    rows = []
    for name, outcome in experiment.outcomes.items():
        rows.append(_row(name, outcome, drawn, measures[0], differences.get(name)))
        if progress is not None:
            progress("processes", 1)
    return Comparison(experiment, measures, baseline, rows, passages, judged, left_out, describe_machine())


def _passages(dataset: Dataset, words: Recipe, folder: Path | None, progress: Progress | None) -> int:
    """How many passages the documents give: what the words alone need is made first, and that encodes nothing."""
    place = place_of(dataset, words, folder)
    fill(dataset, words, place, None if progress is None else partial(progress, "documents"))
    with Collection(place, recipe=words, create=False) as collection:
        return collection.status().passages


def _row(name: str, outcome: Outcome, dataset: Dataset, measure: str, difference: Paired | None) -> Row:
    asked = judged_queries(dataset)
    with Collection(outcome.place, recipe=outcome.recipe, create=False) as collection:
        seconds, size = seconds_to_make(collection), searched_bytes(collection) / max(collection.status().passages, 1)
    return Row(
        name,
        outcome,
        ceiling({query: dataset.qrels[query] for query in asked}, outcome.run, measure),
        seconds,
        size,
        peak_memory(outcome.place, outcome.recipe, list(asked.values())[:ASKED]),
        difference,
    )


def searched_bytes(collection: Collection) -> int:
    """Bytes of what the collection's recipe looks at: its indexes, and the token vectors that a rerank reads from the store."""
    recipe, indexes = collection.recipe, {index.name: index.size for index in collection.status().indexes}
    colbert = collection.encoder is None
    wanted = {
        "words": recipe.retrieve.words,
        "vectors": recipe.retrieve.vectors,
        TOKENS: recipe.retrieve.tokens or (recipe.retrieve.vectors if colbert else 0),
    }
    size = sum(indexes.get(name, 0) for name, candidates in wanted.items() if candidates)
    if any(stage.kind == "maxsim" for stage in recipe.rerank) and not wanted[TOKENS]:
        size += sum(tokens.codes.nbytes + tokens.scales.nbytes for _, tokens in collection.store.iterate_tokens(TOKENS))
    return size
