"""The way of one passage through a search: what each stage gave it, what added up, and where it would have had to be better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from twinrank.explain.explanation import Part, StageSeen, Sum
from twinrank.search.fuse import complete
from twinrank.search.pipeline import Pipeline, Trace, Traced
from twinrank.search.rerank import Rerank
from twinrank.search.retrieve import Source
from twinrank.types import Keys, Ranking

DEEPER = 10_000
"""How far a source is searched for the place of a passage that is not among its candidates."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Way:
    """A search that was made, to be asked about any passage, whether it found it or not."""

    pipeline: Pipeline
    trace: Trace
    query: str
    allowed: Keys | None = None

    @property
    def forms(self) -> tuple[str, ...]:
        return self.trace.forms or (self.query,)

    @cached_property
    def sources(self) -> list[Source]:
        """Those of every form of the query, opened again."""
        return [source.ask(form) for form in self.forms for source, _ in self.pipeline.sources]

    @property
    def found(self) -> list[Traced]:
        """What they found, in the same order."""
        return self.trace.stages[: len(self.sources)]

    @cached_property
    def completed(self) -> list[Ranking]:
        """The same with every candidate scored by every source, as a fusion by scores sees them."""
        return complete(self.sources, [traced.ranking for traced in self.found])

    @property
    def fused(self) -> Ranking:
        """What comes to the first rerank."""
        return self.trace.stages[len(self.trace.stages) - len(self.pipeline.rerank) - 1].ranking

    # -- what it would have been -----------------------------------------------------------------------------------------

    def scores(self, keys: Keys) -> Floats:
        """What the sources together give these passages, candidates or not: (passages,)."""
        table = [_scores(source, keys) for source in self.sources]
        if len(table) == 1:
            return np.nan_to_num(table[0])
        parts = [self._parts(key, [float(row[place]) for row in table]) for place, key in enumerate(keys.tolist())]
        return np.array([sum(part.adds for part in of_one) for of_one in parts])

    def best(self, keys: Keys) -> int:
        """The one of these passages with the largest of these scores; of equal ones the largest key, as a ranking has it."""
        return int(Ranking.of(keys, self.scores(keys)).keys[0])

    def sum(self, key: int) -> Sum:
        """The fused score of a passage, part by part."""
        parts = self._parts(key, [float(_scores(source, np.array([key]))[0]) for source in self.sources])
        decided, method = self.trace.weighing, self.pipeline.fusion.method
        if method == "auto" and decided is None:  # its sources are not those that it decides between
            method = "score"
        return Sum("fuse", method, sum(part.adds for part in parts), parts, "" if decided is None else str(decided))

    def _parts(self, key: int, scores: Sequence[float]) -> tuple[Part, ...]:
        """NaN among the scores is a source that knows nothing of the passage."""
        fusion = self.pipeline.fusion
        names = [traced.stage for traced in self.found]
        ranks = [_place(traced.ranking, key) for traced in self.found]
        given = [None if np.isnan(score) else score for score in scores]
        weights = [float(fusion.weights[source.name]) for source in self.sources]
        parts = []
        for number, (name, score, rank, weight) in enumerate(zip(names, given, ranks, weights, strict=True)):
            low = high = None
            if self.trace.weighing is not None:
                weight = self.trace.weighing.slopes[number]
                adds = weight * (score or 0.0)
            elif fusion.method == "rank":
                adds = 0.0 if rank is None else weight / (fusion.constant + rank)
            else:
                all_scores = self.completed[number].scores.astype(np.float64)
                low, high = _ends(all_scores)
                adds = weight * _spread(score or 0.0, low, high) / (sum(weights) or 1.0)
            parts.append(Part(name, score, rank, weight, low, high, adds))
        return tuple(parts)

    # -- stage by stage --------------------------------------------------------------------------------------------------

    def stages(self, key: int, excluded: bool) -> tuple[StageSeen, ...]:
        """What each stage made of a passage; `excluded` says that a condition kept it out of all of them."""
        seen = [self._source(number, key, excluded) for number in range(len(self.sources))]
        if len(seen) > 1:
            score = self.score_in(self.fused, key)
            seen.append(StageSeen("fuse", "fusion", score, _place(self.fused, key), len(self.fused)))
        for number in range(len(self.pipeline.rerank)):
            seen.append(self._rerank(number, key))
        return tuple(seen)

    def score_in(self, ranking: Ranking, key: int) -> float:
        """The score in a ranking of what the sources found, or what it would be."""
        place = _place(ranking, key)
        return float(self.scores(np.array([key]))[0]) if place is None else float(ranking.scores[place - 1])

    def _source(self, number: int, key: int, excluded: bool) -> StageSeen:
        found, source = self.found[number], self.sources[number]
        candidates = self.pipeline.sources[number % len(self.pipeline.sources)][1]
        rank = _place(found.ranking, key)
        score = float(_scores(source, np.array([key]))[0])
        behind = needed = None
        if rank is None and not excluded and not np.isnan(score):
            behind = _place(source.find(max(DEEPER, candidates), self.allowed), key)
            needed = float(found.ranking.scores[-1]) if len(found.ranking) >= candidates else None
        known = None if np.isnan(score) else score
        return StageSeen(found.stage, "source", known, rank, len(found.ranking), behind, needed)

    def _rerank(self, number: int, key: int) -> StageSeen:
        stage, certificate = self.pipeline.rerank[number], self.trace.certificates[number]
        before, after = self._around(number)
        place, came = _place(before, key), self.score_in(before, key)
        scored = key in after.top(certificate.pairs).keys
        within = place is not None and place <= stage.candidates
        needed = None
        if not within and len(before) >= stage.candidates:
            needed = float(before.scores[stage.candidates - 1])
        own = float(stage.score(self.forms[-1], np.array([key]))[0])
        rank = _place(after, key) if scored else None
        return StageSeen(stage.name, "rerank", own, rank, certificate.pairs, None, needed, came, scored)

    def _around(self, number: int) -> tuple[Ranking, Ranking]:
        """What came to the rerank `number`, and what it made of that."""
        first = len(self.trace.stages) - len(self.pipeline.rerank)
        return self.trace.stages[first + number - 1].ranking, self.trace.stages[first + number].ranking

    def mixtures(self, key: int) -> list[Sum]:
        """For each rerank that mixes its score with the one before: how, for this passage."""
        return [self._mixture(number, stage, key) for number, stage in enumerate(self.pipeline.rerank) if stage.weight < 1]

    def _mixture(self, number: int, stage: Rerank, key: int) -> Sum:
        before, after = self._around(number)
        scored = after.top(self.trace.certificates[number].pairs).keys
        others = scored[scored != key]
        own = stage.score(self.forms[-1], np.append(others, key)).astype(np.float64)  # this one last
        spread_over = own if key in scored else own[:-1]  # (scored,)
        came = before.scores[np.isin(before.keys, scored)].astype(np.float64)
        sides = [
            ("before", self.score_in(before, key), came, 1 - stage.weight),
            (stage.name, own[-1], spread_over, stage.weight),
        ]
        parts = []
        for name, score, all_scores, weight in sides:
            low, high = _ends(all_scores)
            rank = _place(before, key) if name == "before" else None
            parts.append(Part(name, float(score), rank, weight, low, high, weight * _spread(float(score), low, high)))
        note = "" if key in scored else "it was not reranked: this is what it would have come to"
        return Sum(stage.name, "score", sum(part.adds for part in parts), tuple(parts), note)


def _scores(source: Source, keys: Keys) -> Floats:
    """What a source gives to these passages, NaN where it knows nothing of one: (passages,)."""
    known = dict(iter(source.score(keys)))  # a Ranking has `keys`, which dict would call
    return np.array([known.get(key, np.nan) for key in keys.tolist()])


def _place(ranking: Ranking, key: int) -> int | None:
    places = np.flatnonzero(ranking.keys == key)
    return int(places[0]) + 1 if len(places) else None


def _ends(scores: Floats) -> tuple[float, float]:
    return (float(scores.min()), float(scores.max())) if len(scores) else (0.0, 0.0)


def _spread(score: float, low: float, high: float) -> float:
    """As `fuse.spread` does; a passage that is no candidate may lie beyond 0 and 1."""
    return (score - low) / (high - low) if high > low else 1.0
