"""The guard: a new model against its parent on judged queries; one that is worse, or tells nothing apart, is refused."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from twinrank.errors import DataError, TruncationWarning
from twinrank.evaluate.experiment import evaluate, judged_queries, sample
from twinrank.evaluate.metrics import check_measures
from twinrank.evaluate.significance import Paired, compare
from twinrank.models.biencoder import BiEncoder
from twinrank.models.crossencoder import CrossEncoder
from twinrank.models.kinds import recognise
from twinrank.models.lateinteraction import LateInteraction
from twinrank.models.twintower import TwinTower
from twinrank.readers import read_dataset
from twinrank.recipe import Recipe, RerankSettings, RetrieveSettings, TokenSettings
from twinrank.train.data import Example, of_dataset
from twinrank.train.settings import Architecture, GuardSettings, TrainSettings
from twinrank.train.splits import Leakage, find_leaks

SAMPLES = 64
"""Examples that a model is asked, to see whether it tells anything apart."""
ALIKE = 0.999
"""Mean cosine of different passages from which vectors count as one: encoders with a narrow cone stay below .95."""
FLAT = 1e-4
"""Standard deviation of a cross-encoder's outputs below which they count as one value."""
CANDIDATES = 100
MIX = 0.5
"""How much a cross-encoder's score counts beside the pipeline's where it is judged: of three that were trained all raised the
pipeline so, and one alone (docs/training.md)."""

BEFORE, AFTER, PIPELINE = "before", "after", "without it"


@dataclass(frozen=True)
class Verdict:
    """Whether a model may take its parent's place, and why."""

    accepted: bool
    reason: str
    measure: str = ""
    before: float | None = None
    """The parent's mean; where the parent is of another kind, that of the pipeline without the model."""
    after: float | None = None
    difference: Paired | None = None
    """After minus before, query by query."""
    reranking: Paired | None = None
    """Of a cross-encoder: the pipeline with it, by the mean of both scores, minus the pipeline without a reranker. One that
    spoils the pipeline is accepted all the same where its parent spoils it as much."""

    def __str__(self) -> str:
        lines = [f"{'accepted' if self.accepted else 'refused'}: {self.reason}"]
        if self.difference is not None and self.before is not None and self.after is not None:
            lines.append(f"{self.measure} {self.before:.4f} → {self.after:.4f}: {_told(self.difference)}")
        if self.reranking is not None:
            helps = "helps" if self.reranking.mean > 0 else "does not help"
            lines.append(f"reranking with it {helps} the pipeline: {_told(self.reranking)}")
        return "\n".join(lines)


def check(settings: GuardSettings) -> None:
    """Raise what `judge` would, before a training of hours and not after it."""
    check_measures([settings.measure])
    if settings.data:
        judged_queries(read_dataset(Path(settings.data), settings.split))


def leaks(settings: GuardSettings, examples: Sequence[Example]) -> dict[str, Leakage]:
    """What of the examples was found in the split that the guard judges by, and in the test split beside it: split → leaks."""
    if not settings.data:
        return {}
    found = {settings.split: find_leaks(examples, of_dataset(read_dataset(settings.data, split=settings.split)))}
    if (Path(settings.data) / "qrels" / "test.tsv").exists():
        with suppress(DataError):  # a test set whose answers are kept back: nothing is told, so nothing can leak
            found["test"] = find_leaks(examples, of_dataset(read_dataset(settings.data, split="test")))
    return found


def judge(settings: TrainSettings, candidate: Path, examples: Sequence[Example], folder: Path) -> Verdict:
    """Compare the model in `candidate` with the recipe's parent; collections are made in `folder`, which is removed after.

    Both are run by the same evaluation as `twinrank eval`, on the dev split that the recipe names. Without one, a model is
    only refused where it says the same of everything.
    """
    architecture, guard = settings.model.architecture, settings.guard
    if said := collapse(architecture, candidate, examples[:SAMPLES]):
        return Verdict(False, said)
    if not guard.data:
        return Verdict(True, "it was not judged: the recipe names no [guard] data")
    dataset = read_dataset(Path(guard.data), guard.split)
    if guard.queries:
        dataset = sample(dataset, guard.queries, settings.training.seed)
    known = recipes(architecture, guard, settings.model.parent, candidate)
    try:
        outcomes = evaluate(dataset, known, folder=folder, measures=[guard.measure]).outcomes
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    values = {name: outcome.measured.by_query[guard.measure] for name, outcome in outcomes.items()}
    means = {name: outcome.measured.means[guard.measure] for name, outcome in outcomes.items()}
    first = BEFORE if BEFORE in values else PIPELINE
    difference = compare(values[AFTER], values[first])
    reranking = compare(values[AFTER], values[PIPELINE]) if architecture == "cross-encoder" else None
    better = difference.mean >= 0
    against = "its parent" if first == BEFORE else "the pipeline without it"
    reason = f"{guard.measure} is {'not below' if better else 'below'} that of {against} on {dataset.name}, {dataset.split}"
    if better and reranking is not None and reranking.mean < 0:
        reason += ", but below that of the pipeline without it"
    return Verdict(better, reason, guard.measure, means[first], means[AFTER], difference, reranking)


def recipes(architecture: Architecture, guard: GuardSettings, parent: str, candidate: Path) -> dict[str, Recipe]:
    """What is compared: each model alone in what it is for; a cross-encoder behind the default pipeline, in the mean of both.

    A parent of another kind has nothing to be measured in: then the pipeline stands without the model, an encoder's by words.
    """
    plain, scores = Recipe(), recognise(parent) == "CrossEncoder"
    if architecture == "cross-encoder":
        known = {PIPELINE: plain, AFTER: _reranked(plain, str(candidate), guard.candidates)}
        if scores:
            known[BEFORE] = _reranked(plain, parent, guard.candidates)
        return known
    if scores:
        after = plain.with_model(str(candidate))
        return {PIPELINE: replace(after, retrieve=replace(after.retrieve, vectors=0)), AFTER: after}
    if architecture == "late-interaction":
        alone = RetrieveSettings(vectors=0, words=0, tokens=CANDIDATES)
        plain = replace(plain, tokens=TokenSettings(format="int8", pooling=1.0), retrieve=alone)
    else:
        plain = replace(plain, retrieve=RetrieveSettings(vectors=CANDIDATES, words=0))
    return {BEFORE: plain.with_model(parent), AFTER: plain.with_model(str(candidate))}


def _reranked(recipe: Recipe, model: str, candidates: int) -> Recipe:
    return replace(recipe, rerank=(RerankSettings(model, candidates=candidates, weight=MIX),))


def collapse(architecture: Architecture, folder: Path, examples: Sequence[Example]) -> str:
    """What is wrong with a model that gives numbers which are none, or one for everything; empty where nothing is."""
    passages = list(dict.fromkeys(example.passages[0] for example in examples))
    if len(passages) < 2:
        return ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)  # a beginning is enough to tell texts apart by
        return _collapse(architecture, folder, examples, passages)


def _collapse(architecture: Architecture, folder: Path, examples: Sequence[Example], passages: Sequence[str]) -> str:
    if architecture == "cross-encoder":
        pairs = [(example.query, passage) for example in examples[:8] for passage in passages[:8]]
        return _flat(CrossEncoder(folder).score(pairs))
    if architecture == "late-interaction":
        tokens = np.concatenate(LateInteraction(folder).encode(passages))
        return _alike(tokens[:: max(1, len(tokens) // 1024)], "token vectors")
    tower = TwinTower(folder) if architecture == "twin-tower" else BiEncoder(folder)
    sides = [tower.encode(passages), tower.encode([example.query for example in examples], side="query")]
    return next((said for said in (_alike(vectors, "vectors") for vectors in sides) if said), "")


def _flat(scores: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> str:
    if not np.isfinite(scores).all():
        return "some of its scores are no numbers"
    spread = float(scores.std())
    return f"it gives everything the score {scores.mean():.4g}" if spread < FLAT * max(1.0, abs(float(scores.mean()))) else ""


def _alike(vectors: np.ndarray[tuple[int, ...], np.dtype[np.float32]], what: str) -> str:
    if not np.isfinite(vectors).all():
        return f"some of its {what} are no numbers"
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not lengths.all():
        return f"some of its {what} are zero"
    centre = (vectors / lengths).mean(axis=0)
    count = len(vectors)
    cosine = float((count * centre @ centre - 1) / (count - 1)) if count > 1 else 0.0  # the mean over all pairs of two
    return f"it collapsed: the mean cosine of its {what} of different texts is {cosine:.3f}" if cosine > ALIKE else ""


def _told(paired: Paired) -> str:
    interval = "" if paired.low is None or paired.high is None else f", 95 % interval {paired.low:+.4f} to {paired.high:+.4f}"
    p = "" if paired.p is None else f", p = {paired.p:.4f}"
    counts = f"better for {paired.helped:,}, worse for {paired.harmed:,} of {paired.queries:,} queries"
    return f"{paired.mean:+.4f}{interval}{p}; {counts}"
