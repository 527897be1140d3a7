"""Stages in a row: sources find candidates, a fusion joins them, rerankers reorder; the trace tells what each made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import numpy as np

from twinrank.search.fuse import Fusion, Weighing
from twinrank.search.rerank import Asked, Certificate, Rerank
from twinrank.search.retrieve import IndexSource, Source
from twinrank.search.rewrite import Rewrite
from twinrank.types import Keys, Ranking, Scores, StageScore


@dataclass(frozen=True)
class Traced:
    """What one stage gave, and how long it took."""

    stage: str
    ranking: Ranking
    seconds: float
    plan: str = ""
    """How an index that has more than one way was searched, in words."""


@dataclass
class Trace:
    """The stages of one search in their order; the last one's ranking is the answer."""

    stages: list[Traced] = field(default_factory=list)
    forms: tuple[str, ...] = ()
    """The forms in which a rewritten query was searched; none where it was searched as it came."""
    rewriting: float = 0.0
    """Seconds that rewriting took."""
    certificates: list[Certificate] = field(default_factory=list)
    """One for each rerank: how much of it was done, and why it ended there."""
    weighing: Weighing | None = None
    """What the fusion decided for this query; None where its weights are fixed."""
    behind: list[Traced] = field(default_factory=list)
    """The stages of a deeper run, for what is not among the candidates."""

    @property
    def scored(self) -> int | None:
        """How many of the answer's first passages the last rerank that did anything gave a score; None where there was none."""
        return next((certificate.pairs for certificate in reversed(self.certificates) if certificate.pairs), None)

    def scores(self, key: int) -> tuple[StageScore, ...]:
        """What every stage made of one passage."""
        candidate = not self.behind or (self.stages[-1].ranking.keys == key).any()
        return tuple(_stage_score(traced, key) for traced in (self.stages if candidate else self.behind))


def _stage_score(traced: Traced, key: int) -> StageScore:
    places = (traced.ranking.keys == key).nonzero()[0]
    if not len(places):
        return StageScore(traced.stage, None, None)
    return StageScore(traced.stage, float(traced.ranking.scores[places[0]]), int(places[0]) + 1)


@dataclass(frozen=True)
class Pipeline:
    """Query text → ranking of passages.

    `sources` go with the number of candidates to ask each for.
    """

    sources: Sequence[tuple[IndexSource[Any], int]]
    fusion: Fusion
    rerank: Sequence[Rerank] = ()
    rewrite: Rewrite | None = None

    def run(self, query: str, allowed: Keys | None = None, asked: Asked | None = None) -> tuple[Ranking, Trace]:
        """Rank the candidates.

        The same ones, in the same order, however many of them are wanted in the end, unless `asked` sets a deadline or a stage
        stops when the first places are settled: then what was asked for decides how far it goes.
        """
        trace = Trace()
        forms = self._forms(query, trace)
        opened: list[Source] = []
        ranking = self._retrieve(forms, 0, allowed, trace, opened)
        # Of a rewritten query the last form's sources, so that there are as many for every query.
        wish = replace(asked or Asked(), sources=opened[-len(self.sources) :])
        for stage in self.rerank:
            started = perf_counter()
            ranking, certificate = stage.run(forms[-1], ranking, wish)
            trace.certificates.append(certificate)
            trace.stages.append(Traced(stage.name, ranking, perf_counter() - started))
        return ranking, trace

    def run_behind(
        self, first: Ranking, query: str, depth: int, allowed: Keys | None = None, trace: Trace | None = None
    ) -> Ranking:
        """`first`, then what a run of at least `depth` candidates from each source finds beside it, without reranking.

        It has scores of its own, but none above the last of `first`, where the fusion decided weights for `first` (the `trace`
        of that run is given) and nothing was reranked. Otherwise it stands a step of score below a place. The trace is told
        what the stages made of it.
        """
        known = trace or Trace()
        forms = known.forms or self._forms(query, Trace())
        deep = Trace(weighing=known.weighing)
        deeper = self._retrieve(forms, depth, allowed, deep, [])
        known.behind = deep.stages
        beside = ~np.isin(deeper.keys, first.keys)
        rest, scores = deeper.keys[beside], deeper.scores[beside]
        floor = first.scores[-1] if len(first) else np.float32(0)
        if known.weighing is not None and not self.rerank:
            below = _below(scores, floor)
        else:
            below = floor - 1 - np.arange(len(rest), dtype=np.float32)
        return Ranking(np.concatenate([first.keys, rest]), np.concatenate([first.scores, below.astype(np.float32)]))

    def _forms(self, query: str, trace: Trace) -> tuple[str, ...]:
        if self.rewrite is None:
            return (query,)
        started = perf_counter()
        forms = self.rewrite(query)
        trace.forms, trace.rewriting = forms, perf_counter() - started
        return forms

    def _retrieve(self, forms: Sequence[str], depth: int, allowed: Keys | None, trace: Trace, opened: list[Source]) -> Ranking:
        """Every source ranks every form of the query; all of these rankings are fused at once. Fills `trace` and `opened`."""
        for number, form in enumerate(forms, start=1):
            for source, candidates in self.sources:
                started = perf_counter()
                asked = source.ask(form)
                found = asked.find(max(candidates, depth), allowed)
                plan = "" if source.plan is None else source.plan()
                opened.append(asked)
                name = source.name if len(forms) == 1 else f"{source.name} {number}"
                trace.stages.append(Traced(name, found, perf_counter() - started, plan))
        if len(opened) == 1:
            return trace.stages[0].ranking
        started = perf_counter()
        fused, trace.weighing = self.fusion.fuse(opened, [traced.ranking for traced in trace.stages], trace.weighing)
        trace.stages.append(Traced("fuse", fused, perf_counter() - started))
        return fused


def _below(scores: Scores, floor: np.float32) -> Scores:
    """Falling scores, those that are not below `floor` moved there, by the least step that keeps each below the one before."""
    lowered: Scores = scores.copy()
    for place in range(len(lowered)):
        if lowered[place] < floor:
            break
        floor = lowered[place] = np.float32(np.nextafter(floor, np.float32(-np.inf)))
    return lowered
