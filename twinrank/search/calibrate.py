"""What a search's stages made of its documents → the probability that each is relevant, and whether any of it is an answer."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from twinrank.abstention import CONFIDENCE, Ladder, check_share
from twinrank.calibration import Calibrator, Logistic, as_json, from_json
from twinrank.errors import CalibrationError
from twinrank.search.pipeline import Pipeline, Trace
from twinrank.types import Hit, Keys, Ranking

Floats: TypeAlias = npt.NDArray[np.float64]

FORMAT = 1
NEAR_THE_TOP = 10
"""A source agrees with a document where it has it among its first so many passages."""

NOWHERE = -1.0
"""How sure a search is that found nothing: below every threshold."""


@dataclass(frozen=True)
class Evidence:
    """What is known of the documents that the last stage scored, best first: a row of features for each."""

    keys: Keys  # (documents,): the best passage of each
    features: Floats  # (documents, features)

    def top(self, depth: int) -> Evidence:
        return Evidence(self.keys[:depth], self.features[:depth])


@dataclass(frozen=True)
class Feature:
    name: str
    sign: int
    """1: more of it never makes a document less likely to be relevant; −1: never more likely; 0: either."""


def features_of(pipeline: Pipeline) -> list[Feature]:
    """The features that this pipeline's searches have, in the order of their columns."""
    stages = _stages(pipeline)
    features = [Feature(f"score of {stage}", 1) for stage in stages]
    features += [Feature(f"behind the best of {stage}", -1) for stage in stages]
    features += [
        Feature("above the next", 1),
        Feature("log rank", -1),
        Feature("sources that agree", 1),
        Feature("log words", 0),
    ]
    return features


def _stages(pipeline: Pipeline) -> list[str]:
    sources = [source.name for source, _ in pipeline.sources]
    fused = ["fuse"] if len(sources) > 1 else []
    return [*sources, *fused, *(f"{place}. {stage.name}" for place, stage in enumerate(pipeline.rerank, start=1))]


def gather(pipeline: Pipeline, trace: Trace, documents: Ranking, query: str) -> Evidence:
    """The evidence for `documents`, the best passage of each.

    A document that the last stage did not score is left out: it stands behind the others with a score that means nothing. One
    that an earlier stage did not find counts there like the last that was found, since it scored no more than that.
    """
    rankings = _by_stage(pipeline, trace)
    last = rankings[-1]
    documents = _only(documents, last.keys)
    if not len(documents):
        return Evidence(documents.keys, np.empty((0, len(features_of(pipeline)))))
    scores = np.column_stack([_scores(ranking, documents.keys) for ranking in rankings])  # (documents, stages)
    best = np.array([ranking.scores.max() if len(ranking) else 0.0 for ranking in rankings])
    final = documents.scores.astype(np.float64)
    next_one = np.append(final[1:], final[-1])
    near = [np.isin(documents.keys, ranking.keys[:NEAR_THE_TOP]) for ranking in rankings[: len(pipeline.sources)]]
    columns = [
        *scores.T,
        *(best - scores).T,
        final - next_one,
        np.log2(1 + np.arange(len(documents))),
        np.sum(near, axis=0),
        np.full(len(documents), math.log1p(len(query.split()))),
    ]
    return Evidence(documents.keys, np.column_stack(columns))


def _by_stage(pipeline: Pipeline, trace: Trace) -> list[Ranking]:
    """What each of `_stages` really scored, the forms of a rewritten query taken together."""
    reranked = len(pipeline.rerank)
    first = trace.stages[: len(trace.stages) - reranked]
    found = first[: len(first) - (len(first) > 1)]  # without the fusion, which stands last where there is one
    names = [source.name for source, _ in pipeline.sources]
    rankings = [_best_of([traced.ranking for traced in found[place :: len(names)]]) for place in range(len(names))]
    if len(names) > 1:
        rankings.append(first[-1].ranking)
    for certificate, traced in zip(trace.certificates, trace.stages[len(first) :], strict=True):
        rankings.append(traced.ranking.top(certificate.pairs))  # what a stage scored stands before what it did not
    return rankings


def _best_of(rankings: Sequence[Ranking]) -> Ranking:
    """Every passage once, with the larger of its scores."""
    if len(rankings) == 1:
        return rankings[0]
    together = Ranking.of(
        np.concatenate([ranking.keys for ranking in rankings]), np.concatenate([ranking.scores for ranking in rankings])
    )
    _, firsts = np.unique(together.keys, return_index=True)
    places = np.sort(firsts)
    return Ranking(together.keys[places], together.scores[places])


def _only(ranking: Ranking, keys: Keys) -> Ranking:
    kept = np.isin(ranking.keys, keys)
    return Ranking(ranking.keys[kept], ranking.scores[kept])


def _scores(ranking: Ranking, keys: Keys) -> Floats:
    """What a stage gave to these passages; to one that it did not find, the least that it gave to any."""
    if not len(ranking):
        return np.zeros(len(keys))
    order = np.argsort(ranking.keys)
    places = np.searchsorted(ranking.keys, keys, sorter=order).clip(max=len(order) - 1)
    there = ranking.keys[order[places]] == keys
    return np.asarray(np.where(there, ranking.scores[order[places]], ranking.scores.min()), np.float64)


@dataclass(frozen=True)
class Wish:
    """What a search asks of its hits: a least probability, a largest risk."""

    min_probability: float | None = None
    risk: float | None = None

    def __post_init__(self) -> None:
        if self.min_probability is not None and not 0 <= self.min_probability <= 1:  # NaN included
            raise CalibrationError(f"the least probability is 0 to 1; got {self.min_probability}")
        if self.risk is not None:
            check_share("a risk", self.risk)

    def __bool__(self) -> bool:
        return self.min_probability is not None or self.risk is not None


@dataclass(frozen=True)
class Verdict:
    """Whether a search has an answer: how sure it is, against how sure it has to be."""

    answered: bool
    probability: float
    """The largest among the first hits; 0 where nothing was found."""
    threshold: float
    risk: float | None = None
    """Of the answered queries, at most this share gets first hits of which none is relevant…"""
    confidence: float | None = None
    """…and this is how sure that is; None for a threshold that the user set."""
    first: int = 0
    """How many first hits the risk is about."""
    left_out: int = 0
    """Hits that were found and are not shown."""

    def __str__(self) -> str:
        if self.risk is None:
            asked = f"a probability of {self.threshold:g} was asked for"
        else:
            asked = (
                f"{self.threshold:.3f} is needed so that at most {self.risk:.3g} of all answers hold nothing relevant among "
                f"their first {self.first} (confidence {self.confidence:g})"
            )
        if not self.answered:
            return (
                f"nothing relevant found: the likeliest document is relevant with probability {self.probability:.3f}; {asked}"
            )
        return f"answered: the likeliest document is relevant with probability {self.probability:.3f}; {asked}"


@dataclass(frozen=True)
class Calibration:
    """A calibrator, what it was fitted on, and thresholds for stated risks; as a file, calibration.json of a collection."""

    calibrator: Calibrator
    features: tuple[str, ...]
    """The columns that it was fitted on; one of them unless it is Logistic."""
    identity: Mapping[str, str]
    """What it belongs to, part by part: models, recipe, analyser. With another part its probabilities mean nothing."""
    depth: int
    """The first documents of a search, which it was fitted on and judged by; the others get no probability."""
    ladders: Mapping[int, Ladder]
    """First hits that an answer is judged by → thresholds."""
    about: Mapping[str, Any]
    """For people: the data, the numbers of queries, what the judged part showed."""

    def probabilities(self, evidence: Evidence, features: Sequence[Feature]) -> Floats:
        """Of the first `depth` documents: (documents,), as many as there are of them."""
        rows = evidence.features[: self.depth]
        return self.calibrator.probabilities(columns(rows, features, self.features, self.calibrator))

    def answer(self, hits: Sequence[Hit], k: int, wish: Wish) -> tuple[tuple[Hit, ...], Verdict | None]:
        """The hits that fulfil the wish, at their old ranks, and whether that is an answer; `k` were asked for."""
        if not wish:
            return tuple(hits), None
        chances = [hit.probability for hit in hits if hit.probability is not None]
        if hits and not chances:
            raise CalibrationError(
                "the deadline came before the last stage had scored anything, so that nothing can be said about probabilities; "
                "allow more time, or ask without a risk and a least probability"
            )
        verdict = None
        if wish.risk is not None:
            verdict = self.verdict(np.array(chances), k, wish.risk)
            if not verdict.answered:
                return (), replace(verdict, left_out=len(hits))
        least = wish.min_probability or 0.0
        kept = tuple(hit for hit in hits if hit.probability is not None and hit.probability >= least)
        if wish.min_probability is None:
            kept = tuple(hits)
        elif verdict is None:
            verdict = Verdict(bool(kept), max(chances, default=0.0), least)
        return kept, replace(verdict, answered=bool(kept), left_out=len(hits) - len(kept)) if verdict else None

    def verdict(self, probabilities: Floats, k: int, risk: float) -> Verdict:
        """Whether the first `k` hits are an answer at this risk; CalibrationError where no such promise can be given.

        The promise is about the most first hits, of those that were looked at, that `k` shows: more hits can only help.
        """
        first = max((first for first in self.ladders if first <= k), default=None)
        if first is None:
            raise CalibrationError(f"the calibration promises nothing about {k} hits; ask for {min(self.ladders)} or more")
        ladder = self.ladders[first]
        threshold = ladder.threshold(risk)
        if threshold is None:
            raise CalibrationError(
                f"a risk of {risk:g} among the first {first} hits cannot be promised with confidence {CONFIDENCE:g}: on "
                f"{ladder.queries:,} held-out queries the smallest that can is {ladder.least_risk():.3g}. Allow that, show "
                "more hits, calibrate with more judged queries, or search better: a reranker, twinrank tune"
            )
        sure = confidence(probabilities, first)
        return Verdict(sure >= threshold, max(sure, 0.0), threshold, risk, CONFIDENCE, first)

    def differences(self, identity: Mapping[str, str]) -> list[str]:
        """The parts that are not as they were when it was fitted."""
        parts = [*self.identity, *(part for part in identity if part not in self.identity)]
        return [part for part in parts if self.identity.get(part) != identity.get(part)]

    def to_json(self) -> str:
        values = {
            "format": FORMAT,
            "about": self.about,
            "identity": self.identity,
            "features": self.features,
            "depth": self.depth,
            "calibrator": as_json(self.calibrator),
            "ladders": {str(first): ladder.as_json() for first, ladder in self.ladders.items()},
        }
        return json.dumps(values, ensure_ascii=False, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Calibration:
        """What `to_json` wrote, bit for bit; CalibrationError for anything else."""
        try:
            values = json.loads(text)
            if values["format"] != FORMAT:
                raise CalibrationError(f"it is of format {values['format']!r}, and this version reads {FORMAT}")
            return cls(
                from_json(values["calibrator"]),
                tuple(map(str, values["features"])),
                {str(part): str(value) for part, value in values["identity"].items()},
                int(values["depth"]),
                {int(first): Ladder.from_json(ladder) for first, ladder in values["ladders"].items()},
                dict(values["about"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, CalibrationError):
                raise
            raise CalibrationError(f"it holds no calibration ({error!r})") from error


def confidence(probabilities: Floats, first: int) -> float:
    """How sure a search is that its first hits hold something relevant: the largest probability among them."""
    return float(probabilities[:first].max()) if len(probabilities) else NOWHERE


def columns(rows: Floats, features: Sequence[Feature], wanted: Sequence[str], calibrator: Calibrator | None = None) -> Floats:
    """The wanted columns of the features: (documents, wanted), or (documents,) for a calibrator of one score."""
    names = [feature.name for feature in features]
    chosen = rows[:, [names.index(name) for name in wanted]]
    return chosen if calibrator is None or isinstance(calibrator, Logistic) else chosen[:, 0]
