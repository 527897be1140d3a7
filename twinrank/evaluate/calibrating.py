"""Judged queries → a calibration fitted on some of them, and how good its probabilities and its promises are on the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from twinrank import abstention, reliability
from twinrank.abstention import Curve, Ladder
from twinrank.calibration import SINGLE, Calibrator, Logistic
from twinrank.collection import Collection
from twinrank.errors import CalibrationError
from twinrank.evaluate.experiment import fill, place_of
from twinrank.readers import Dataset
from twinrank.recipe import Recipe
from twinrank.reliability import Reliability
from twinrank.search.calibrate import Calibration, Evidence, Feature, columns, confidence

Floats: TypeAlias = npt.NDArray[np.float64]
Flags: TypeAlias = npt.NDArray[np.bool_]
Places: TypeAlias = npt.NDArray[np.int64]

FEWEST_QUERIES = 20
"""Judged queries in each part, at least; with fewer, an interval over queries says nothing."""

FOLDS = 5
FIRST = (1, 3, 5, 10)
"""First hits that promises are made about."""

METHODS = ("platt", "temperature", "beta", "isotonic", "features")


@dataclass(frozen=True)
class Asked:
    """One judged query, searched: the evidence for its first documents, and which of them are relevant."""

    query: str
    evidence: Evidence
    relevant: Flags  # (documents,)
    withheld: bool
    """Its relevant documents were kept out of the search: whatever was found is no answer."""

    def wrong(self, first: int) -> bool:
        return not self.relevant[:first].any()


@dataclass(frozen=True)
class Settings:
    depth: int = 20
    """Documents of each query, fitted on and judged by."""
    withheld: float = 0.25
    """The share of queries that are searched without their relevant documents, as a stand-in for those without an answer."""
    queries: int = 2000
    """Queries of each part, at most; drawn by the seed where there are more."""
    methods: Sequence[str] = METHODS
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.withheld < 1:
            raise CalibrationError(f"withheld is a share of the queries, from 0 to below 1; got {self.withheld}")
        if self.depth < 1 or self.queries < FEWEST_QUERIES:
            raise CalibrationError(f"depth is 1 or more and queries {FEWEST_QUERIES} or more; got {self.depth}, {self.queries}")
        if not self.methods or set(self.methods) - set(METHODS):
            raise CalibrationError(f"methods are among {', '.join(METHODS)}; got {', '.join(self.methods) or 'none'}")


@dataclass(frozen=True)
class Judgment:
    """How a calibration does on queries that it was not fitted on."""

    name: str
    queries: int
    withheld: int
    before: Reliability
    """Of the last stage's scores, read as probabilities: as they are where they lie in 0 to 1, else through a sigmoid."""
    after: Reliability
    top: Reliability
    """Of the first hits alone."""
    curves: Mapping[int, Curve]
    """First hits → risk against coverage."""
    confidences: Mapping[int, Floats]
    wrong: Mapping[int, Flags]

    def kept(self, first: int, threshold: float) -> tuple[float, int, int]:
        """(coverage, answered, wrong answers) at a threshold."""
        answered = self.confidences[first] >= threshold
        return float(answered.mean()), int(answered.sum()), int((answered & self.wrong[first]).sum())


@dataclass(frozen=True)
class Calibrating:
    """A calibration with what it was chosen from and how it was judged."""

    calibration: Calibration
    fitted: str
    fitted_queries: int
    losses: Mapping[str, float]
    """Candidate → log loss, cross-validated over the queries fitted on."""
    chosen: str
    judged: Judgment


def own_collection(dataset: Dataset, recipe: Recipe, progress: Callable[[str, int], None] | None = None) -> Collection:
    """The data set's own collection, where `twinrank eval` keeps it, with every document in it."""
    place = place_of(dataset, recipe)
    fill(dataset, recipe, place, None if progress is None else partial(progress, "documents"))
    return Collection(place, recipe=recipe, create=False)


def calibrate(
    collection: Collection,
    fitting: Dataset,
    judging: Dataset | None = None,
    settings: Settings | None = None,
    *,
    progress: Callable[[int], None] | None = None,
) -> Calibrating:
    """Fit on `fitting` and judge on `judging`; without it, on halves of `fitting`, parted by query.

    The method is chosen by cross-validated log loss on the fitting part alone. The thresholds for stated risks come from the
    judging part, which the calibrator never saw. Raises CalibrationError where there is too little to go by.
    """
    wanted = settings or Settings()
    random = np.random.default_rng(wanted.seed)
    parts = _parts(fitting, judging, wanted, random)
    asked = [ask(collection, part, wanted, random, progress) for part in parts]
    for part, queries in zip(parts, asked, strict=True):
        _check_enough(part, queries)
    features = collection.features()
    losses = compare(asked[0], features, wanted)
    chosen = min(losses, key=lambda name: losses[name])
    calibrator, names = fit(chosen, asked[0], features)
    about = {
        "data": fitting.name,
        "split": fitting.split,
        "method": chosen,
        "queries": len(asked[0]),
        "withheld": wanted.withheld,
    }
    calibration = Calibration(calibrator, names, collection.identity(), wanted.depth, {}, about)
    judged = judge(calibration, asked[1], features, f"{parts[1].name}, split {parts[1].split}", wanted.seed)
    ladders = {}
    for first in FIRST:
        fitted = [confidence(calibration.probabilities(query.evidence, features), first) for query in asked[0]]
        ladders[first] = Ladder.of(fitted, judged.confidences[first], judged.wrong[first])
    shown = {"held_out": judged.queries, "ece": judged.after.error, "ece_interval": list(judged.after.interval)}
    calibration = replace(calibration, ladders=ladders, about={**about, **shown, "documents": len(collection)})
    return Calibrating(calibration, f"{parts[0].name}, split {parts[0].split}", len(asked[0]), losses, chosen, judged)


def _parts(fitting: Dataset, judging: Dataset | None, settings: Settings, random: np.random.Generator) -> list[Dataset]:
    if judging is not None:
        shared = set(fitting.queries.values()) & set(judging.queries.values())
        kept = [query for query, text in judging.queries.items() if text not in shared]  # what was fitted on judges nothing
        return [_draw(fitting, list(fitting.queries), settings, random), _draw(judging, kept, settings, random)]
    texts: dict[str, list[str]] = {}
    for query, text in fitting.queries.items():
        texts.setdefault(text, []).append(query)  # the same question twice is in one part
    groups = [texts[text] for text in sorted(texts)]
    order = random.permutation(len(groups)).tolist()
    halves = order[: len(order) // 2], order[len(order) // 2 :]
    return [_draw(fitting, [query for place in half for query in groups[place]], settings, random) for half in halves]


def _draw(dataset: Dataset, queries: list[str], settings: Settings, random: np.random.Generator) -> Dataset:
    drawn = [queries[place] for place in random.permutation(len(queries))[: settings.queries].tolist()]
    return replace(
        dataset,
        queries={query: dataset.queries[query] for query in drawn},
        qrels={query: dataset.qrels.get(query, {}) for query in drawn},
    )


def ask(
    collection: Collection,
    dataset: Dataset,
    settings: Settings,
    random: np.random.Generator,
    progress: Callable[[int], None] | None = None,
) -> list[Asked]:
    """Search every query of the data set; a share of them without their relevant documents.

    A query that has no relevant document by its judgments stays, as one without an answer. Relevant documents that the
    collection does not hold cannot be found either: their queries count as they come out.
    """
    asked = []
    for query, text in dataset.queries.items():
        relevant = {document for document, grade in dataset.qrels[query].items() if grade > 0}
        withheld = bool(random.random() < settings.withheld) and bool(relevant)
        evidence, ids = collection.evidence(text, settings.depth, without=sorted(relevant) if withheld else ())
        flags = np.array([document in relevant for document in ids], bool)
        asked.append(Asked(query, evidence, flags, withheld))
        if progress is not None:
            progress(1)
    return asked


def _check_enough(part: Dataset, asked: Sequence[Asked]) -> None:
    pairs = sum(len(query.relevant) for query in asked)
    relevant = sum(int(query.relevant.sum()) for query in asked)
    if len(asked) < FEWEST_QUERIES or not 0 < relevant < pairs:
        raise CalibrationError(
            f"{part.name}, split {part.split}: {len(asked):,} queries in this part, with {pairs:,} documents found for them, "
            f"{relevant:,} of these relevant; calibration needs {FEWEST_QUERIES} queries or more in each of its two parts, and "
            "both relevant documents and others among what is found. Judge more queries, or name two splits"
        )


def _stack(asked: Sequence[Asked]) -> tuple[Floats, Flags, Places]:
    """Features, judgments and the query's number of every pair."""
    return (
        np.concatenate([query.evidence.features for query in asked]),
        np.concatenate([query.relevant for query in asked]),
        np.repeat(np.arange(len(asked)), [len(query.relevant) for query in asked]),
    )


def candidates(features: Sequence[Feature], methods: Sequence[str]) -> list[str]:
    """ "features", and every other method over every stage's score: "platt of vectors"."""
    scores = [feature.name for feature in features if feature.name.startswith("score of ")]
    single = [f"{method} of {score.removeprefix('score of ')}" for method in methods if method in SINGLE for score in scores]
    return [*single, *(["features"] if "features" in methods else [])]


def fit(candidate: str, asked: Sequence[Asked], features: Sequence[Feature]) -> tuple[Calibrator, tuple[str, ...]]:
    """The calibrator that a candidate's name stands for, with the features that it takes."""
    rows, relevant, _ = _stack(asked)
    if candidate == Logistic.method:
        return Logistic.fit(rows, relevant, [feature.sign for feature in features]), tuple(one.name for one in features)
    method, _, stage = candidate.partition(" of ")
    names = (f"score of {stage}",)
    return SINGLE[method].fit(columns(rows, features, names)[:, 0], relevant), names


def compare(asked: Sequence[Asked], features: Sequence[Feature], settings: Settings) -> dict[str, float]:
    """Candidate → log loss over queries that it was not fitted on, each left out once; without those that cannot be fitted."""
    folds = np.random.default_rng(settings.seed).permutation(len(asked)) % FOLDS
    losses: dict[str, float] = {}
    refusal: CalibrationError | None = None
    for candidate in candidates(features, settings.methods):
        try:
            total, pairs = 0.0, 0
            for fold in range(FOLDS):
                kept = [query for query, other in zip(asked, folds, strict=True) if other != fold]
                left_out = [query for query, other in zip(asked, folds, strict=True) if other == fold]
                calibrator, names = fit(candidate, kept, features)
                rows, relevant, _ = _stack(left_out)
                chances = calibrator.probabilities(columns(rows, features, names, calibrator)).clip(1e-12, 1 - 1e-12)
                total += reliability.log_loss(chances, relevant) * len(relevant) if len(relevant) else 0.0
                pairs += len(relevant)
            losses[candidate] = total / pairs
        except CalibrationError as error:
            refusal = error
    if not losses:
        raise refusal or CalibrationError("no method could be fitted")
    return losses


def judge(calibration: Calibration, asked: Sequence[Asked], features: Sequence[Feature], name: str, seed: int = 0) -> Judgment:
    """How the calibration does on these queries, which it was not fitted on."""
    rows, relevant, owners = _stack(asked)
    by_query = [calibration.probabilities(query.evidence, features) for query in asked]
    last = [place for place, feature in enumerate(features) if feature.name.startswith("score of ")][-1]
    raw = rows[:, last]
    before = raw if ((raw >= 0) & (raw <= 1)).all() else 1 / (1 + np.exp(-raw.clip(-500, 500)))
    found = [place for place, query in enumerate(asked) if len(query.relevant)]
    confidences = {first: np.array([confidence(chances, first) for chances in by_query]) for first in FIRST}
    wrong = {first: np.array([query.wrong(first) for query in asked]) for first in FIRST}
    top = [by_query[place][0] for place in found], [asked[place].relevant[0] for place in found]
    return Judgment(
        name,
        len(asked),
        sum(query.withheld for query in asked),
        reliability.judge(before, relevant, owners, seed=seed),
        reliability.judge(np.concatenate(by_query), relevant, owners, seed=seed),
        reliability.judge(*top, found, seed=seed),
        {first: abstention.risk_coverage(confidences[first], wrong[first]) for first in FIRST},
        confidences,
        wrong,
    )
