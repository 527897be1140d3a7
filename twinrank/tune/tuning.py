"""The whole of tuning: vary, judge, cross-validate, measure the finalists, choose, and say what each stage is worth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from time import perf_counter

import numpy as np

from twinrank.errors import InputError
from twinrank.ingest import AddReport
from twinrank.readers import Dataset
from twinrank.recipe import Recipe, TokenSettings
from twinrank.tune.choose import (
    Choice,
    Difference,
    Rule,
    best,
    cheapest_reaching,
    choose,
    difference,
    folds_of,
    one_step_earlier,
)
from twinrank.tune.costs import Costs, parameters
from twinrank.tune.finalists import Clock, Measured, finalists, measure, pareto
from twinrank.tune.judge import Figures, Judge
from twinrank.tune.outputs import Outputs
from twinrank.tune.search import DEFAULT_SAMPLER, Sampler, load_optuna, search, starting_points
from twinrank.tune.space import MAXSIM, Space, default_knobs, describe, stages_of

LEAST_QUERIES = 20
"""Below that a fold has too few queries for a standard error to mean anything."""

ROUNDS = 6
"""Measuring goes on until what would be chosen has been measured, at most so often."""

TOKENS_A_WORD = 1.3


@dataclass(frozen=True)
class Limits:
    """What a pipeline has to keep."""

    deadline: float = 50.0
    """Milliseconds that 95 of 100 queries may take."""
    memory: float | None = None
    """Megabytes of a process that searches."""
    min_ndcg: float | None = None
    """nDCG@10 that is enough: of what reaches it the cheapest is taken, not the best."""

    def __post_init__(self) -> None:
        if not self.deadline > 0:
            raise InputError(f"the deadline is a number of milliseconds above 0; got {self.deadline:g}")
        if self.memory is not None and not self.memory > 0:
            raise InputError(f"the memory is a number of megabytes above 0; got {self.memory:g}")
        if self.min_ndcg is not None and not 0 < self.min_ndcg <= 1:
            raise InputError(f"the least nDCG@10 is above 0 and at most 1; got {self.min_ndcg:g}")

    def __str__(self) -> str:
        memory = "" if self.memory is None else f", {self.memory:g} MB"
        quality = "" if self.min_ndcg is None else f", nDCG@10 of at least {self.min_ndcg:g}"
        return f"p95 under {self.deadline:g} ms{memory}{quality}"


@dataclass(frozen=True)
class Budget:
    """How long to look."""

    trials: int = 200
    folds: int = 5
    seed: int = 0
    finalists: int = 6
    """Pipelines of the front that are measured; the default, the pick and what it is compared with come on top."""
    timed_queries: int = 100
    clock: Clock = "wall"
    sampler: Sampler = DEFAULT_SAMPLER

    def __post_init__(self) -> None:
        if min(self.trials, self.finalists, self.timed_queries) < 1 or self.folds < 2:
            raise InputError(
                "tuning takes at least 1 trial, 2 folds, 1 finalist and 1 query to time; "
                f"got {self.trials}, {self.folds}, {self.finalists} and {self.timed_queries}"
            )


@dataclass(frozen=True)
class Finalist:
    """A pipeline that was measured."""

    recipe: Recipe
    quality: float
    """Mean nDCG@10 over all tuning queries."""
    against_default: Difference
    measured: Measured
    on_front: bool


@dataclass(frozen=True)
class Step:
    """What it would have cost to leave one stage out."""

    stage: str
    recipe: Recipe
    """The best one judged without that stage."""
    loss: Difference
    """Without less with: below 0 where the stage is worth something."""
    speedup: float
    """How many times as fast the median query is without it."""


@dataclass(frozen=True)
class Tuning:
    """What came out."""

    dataset: str
    split: str
    queries: int
    documents: int
    limits: Limits
    default: Recipe
    choice: Choice
    finalists: tuple[Finalist, ...]
    """Fastest first."""
    steps: tuple[Step, ...]
    pipelines: int
    """That were judged."""
    rankings: int
    """Rankings that were made for it."""
    pairs: int
    """Pairs that rerankers read."""
    detectable: float
    """The difference in nDCG@10 that so many queries show in four cases of five, of the finalists from the default."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Of every part of the work."""
    clock: Clock = "wall"

    @property
    def pick(self) -> Finalist:
        return next(finalist for finalist in self.finalists if finalist.recipe == self.choice.recipe)


Progress = Callable[[str, int], None]


def tune(
    dataset: Dataset,
    limits: Limits | None = None,
    *,
    base: Recipe | None = None,
    space: Space | None = None,
    models: Sequence[str] = (),
    rerankers: Sequence[str] = (),
    budget: Budget | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
    on_added: Callable[[AddReport], None] | None = None,
) -> Tuning:
    """Find the best pipeline that keeps the limits, on the queries of one split that is not the test split.

    What varies is `space`, by default every knob around `base` (the recipe to compare with and to fall back to), with the
    encoders `models` and the cross-encoders `rerankers` beside the base's. `progress` is told ("documents", "pipelines" or
    "searches", how many more are done). Raises InputError where there is too little to go by, or nothing keeps the limits.
    """
    limits, budget, base = limits or Limits(), budget or Budget(), base or Recipe()
    space = space or Space(base, default_knobs(base, models, rerankers))
    load_optuna()
    _check_split(dataset)
    if base.group.by == "none":
        raise InputError(
            'the recipe answers with passages ([group] by = "none"), and judgments are of documents; take "best" or "sum"'
        )
    told = progress or (lambda name, done: None)
    tokens = (base.tokens or TokenSettings()) if _may_keep_tokens(space) else None
    outputs = Outputs(dataset, folder=folder, tokens=tokens, progress=lambda done: told("documents", done), on_added=on_added)
    try:
        return _Run(Judge(outputs, dataset.queries, dataset.qrels), space, limits, budget, told).tuning()
    finally:
        outputs.close()


def _may_keep_tokens(space: Space) -> bool:
    values = {knob.name: knob.values for knob in space.knobs}
    return any("tokens" in str(source) for source in values["sources"]) or max(float(count) for count in values[MAXSIM]) > 0


def _check_split(dataset: Dataset) -> None:
    if dataset.split == "test":
        splits = sorted(path.stem for path in dataset.folder.glob("qrels/*.tsv") if path.stem != "test")
        use = f"take --split {splits[-1]}" if splits else "it has no other split: set some of its queries apart as train.tsv"
        raise InputError(f"tuning on {dataset.name}'s test split would leave nothing to judge the result by; {use}")


class _Run:
    """One run of tuning, step by step."""

    def __init__(self, judge: Judge, space: Space, limits: Limits, budget: Budget, told: Progress) -> None:
        if len(judge.queries) < LEAST_QUERIES:
            raise InputError(
                f"{len(judge.queries)} queries with a relevant document are too few to tell pipelines apart; "
                f"tuning takes at least {LEAST_QUERIES}, and some hundreds to see differences of .02"
            )
        self.judge, self.space, self.limits, self.budget, self.told = judge, space, limits, budget, told
        self.default = space.base
        self.measured: dict[Recipe, Measured] = {}
        self.seconds: dict[str, float] = {}
        self._clock = perf_counter()

    def tuning(self) -> Tuning:
        self.judge(self.default)
        self.cost = self._costs()
        self._lap("documents and the default")
        folds = folds_of(len(self.judge.queries), self.budget.folds, self.budget.seed)
        tried_by_all = self._search(np.arange(len(self.judge.queries)))
        tried = [self._search(np.setdiff1d(np.arange(len(self.judge.queries)), fold)) for fold in folds]
        self._lap("search")
        figures = {recipe: self.judge.judged[recipe] for recipe in tried_by_all}
        choice = self._choose(figures, folds, tried)
        self._lap("measuring")
        return self._report(choice, figures)

    def _lap(self, name: str) -> None:
        now = perf_counter()
        self.seconds[name], self._clock = now - self._clock, now

    def _costs(self) -> Costs:
        documents = self.judge.outputs.documents(self.default)
        collection = self.judge.outputs.collection(self.default)
        texts = (text for _, batch in collection.store.iterate_passages() for text in batch)
        return Costs(
            passages=len(documents.keys),
            query_tokens=_mean_tokens(self.judge.queries.values()),
            passage_tokens=_mean_tokens(islice(texts, 1000)),
            parameters=parameters,
        )

    def _search(self, queries: np.ndarray) -> list[Recipe]:
        return search(
            self.space,
            lambda recipe: float(self.judge(recipe)[queries].mean()),
            self.cost,
            trials=self.budget.trials,
            seed=self.budget.seed,
            starts=starting_points(self.space),
            sampler=self.budget.sampler,
            progress=lambda done: self.told("pipelines", done),
        )

    # -- choosing and measuring ------------------------------------------------------------------------------------------

    def _choose(self, figures: Mapping[Recipe, Figures], folds: Sequence[np.ndarray], tried: Sequence[list[Recipe]]) -> Choice:
        """Choose by what was measured or is expected of the clock; measure what was chosen; until nothing new is chosen."""
        qualities = {recipe: float(values.mean()) for recipe, values in figures.items()}
        self._measure(finalists(qualities, self.cost, [self.default], count=self.budget.finalists))
        everything = {**{recipe: self.judge.judged[recipe] for part in tried for recipe in part}, **figures}
        for round_ in range(ROUNDS + 1):
            last = round_ == ROUNDS
            fitting = {
                recipe: values
                for recipe, values in everything.items()
                if (recipe in self.measured or not last) and self._fits(recipe)
            }
            seen_by_all = {recipe: values for recipe, values in fitting.items() if recipe in figures}
            if not seen_by_all:
                raise InputError(self._nothing_fits())
            choice = self._choice(fitting, seen_by_all, folds, tried)
            steps = [recipe for _, recipe in one_step_earlier(choice.recipe, everything)]
            unmeasured = [recipe for recipe in (choice.recipe, choice.candidate, *steps) if recipe not in self.measured]
            if not unmeasured:
                break
            self._measure(list(dict.fromkeys(unmeasured)))
        return choice

    def _choice(
        self,
        fitting: Mapping[Recipe, Figures],
        seen_by_all: Mapping[Recipe, Figures],
        folds: Sequence[np.ndarray],
        tried: Sequence[list[Recipe]],
    ) -> Choice:
        rule: Rule = best
        if (enough := self.limits.min_ndcg) is not None:
            highest = max(float(values.mean()) for values in seen_by_all.values())
            if highest < enough:
                raise InputError(
                    f"no pipeline within the limits reaches an nDCG@10 of {enough:g} on these queries; "
                    f"the best has {highest:.3f}"
                )
            rule = cheapest_reaching(enough)
        return choose(
            fitting,
            seen_by_all,
            self.default,
            self.judge(self.default),
            cost=self.cost,
            folds=folds,
            tried=tried,
            rule=rule,
            may_keep=self._fits(self.default) and enough is None,
        )

    def _measure(self, recipes: Sequence[Recipe]) -> None:
        progress = lambda done: self.told("searches", done)  # noqa: E731
        self.measured.update(
            measure(recipes, self.judge, queries=self.budget.timed_queries, clock=self.budget.clock, progress=progress)
        )

    def _fits(self, recipe: Recipe) -> bool:
        memory = self.limits.memory
        if recipe in self.measured:
            found = self.measured[recipe]
            return found.p95 <= self.limits.deadline and (memory is None or found.memory <= memory)
        known = [m.memory for other, m in self.measured.items() if stages_of(other) == stages_of(recipe)]
        if memory is not None and known and min(known) > memory:
            return False
        return self._expected_p95(recipe) <= self.limits.deadline

    def _expected_p95(self, recipe: Recipe) -> float:
        """From what its nearest kin took: measured milliseconds to one of the nominal cost."""
        kin = [other for other in self.measured if stages_of(other) == stages_of(recipe)] or list(self.measured)
        ratios = [self.measured[other].p95 / self.cost(other) for other in kin]
        return float(np.median(ratios)) * self.cost(recipe)

    def _nothing_fits(self) -> str:
        recipe, fastest = min(self.measured.items(), key=lambda item: item[1].p95)
        smallest = min(found.memory for found in self.measured.values())
        return (
            f"no pipeline keeps the limits ({self.limits}): the fastest measured ({describe(recipe)}) takes "
            f"{fastest.p95:.1f} ms at p95, the smallest process {smallest:.0f} MB"
        )

    # -- the result ------------------------------------------------------------------------------------------------------

    def _report(self, choice: Choice, figures: Mapping[Recipe, Figures]) -> Tuning:
        judge, default = self.judge, self.judge(self.default)
        front = set(pareto({r: float(judge(r).mean()) for r in self.measured}, lambda r: self.measured[r].p95))
        rows = [
            Finalist(recipe, float(judge(recipe).mean()), difference(judge(recipe), default), found, recipe in front)
            for recipe, found in sorted(self.measured.items(), key=lambda item: item[1].p95)
        ]
        errors = [row.against_default.detectable for row in rows if row.recipe != self.default]
        documents = judge.outputs.documents(self.default)
        return Tuning(
            dataset=judge.outputs.dataset.name,
            split=judge.outputs.dataset.split,
            queries=len(judge.queries),
            documents=len(documents.ids),
            limits=self.limits,
            default=self.default,
            choice=choice,
            finalists=tuple(rows),
            steps=tuple(self._steps(choice.recipe)),
            pipelines=len(judge.judged),
            rankings=len(judge.judged) * len(judge.queries),
            pairs=judge.outputs.pairs,
            detectable=float(np.median(errors)) if errors else 0.0,
            seconds=self.seconds,
            clock=self.budget.clock,
        )

    def _steps(self, pick: Recipe) -> Iterator[Step]:
        for stage, without in one_step_earlier(pick, self.judge.judged):
            if without in self.measured:
                loss = difference(self.judge(without), self.judge(pick))
                yield Step(stage, without, loss, self.measured[pick].p50 / self.measured[without].p50)


def _mean_tokens(texts: object) -> float:
    counts = [len(text.split()) for text in texts]  # type: ignore[attr-defined]
    return TOKENS_A_WORD * float(np.mean(counts)) if counts else 0.0
