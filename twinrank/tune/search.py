"""Pipelines tried one after another: quality up, cost down, by optuna's multi-objective search; a seed repeats it exactly."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from twinrank.errors import MissingExtraError
from twinrank.recipe import Recipe
from twinrank.tune.space import Space, Value

Sampler: TypeAlias = Literal["nsga2", "tpe", "random"]

DEFAULT_SAMPLER: Sampler = "nsga2"
"""docs/tuning.md has the comparison."""

DRAWS_A_TRIAL = 3
"""A small space is exhausted at some time, and a sampler that has settled repeats itself: then it ends."""

POPULATION = 30
"""Of a generation of NSGA-II; TPE draws as many by chance before it learns."""


def search(
    space: Space,
    quality: Callable[[Recipe], float],
    cost: Callable[[Recipe], float],
    *,
    trials: int,
    seed: int,
    starts: Sequence[Mapping[str, Value]] = (),
    sampler: Sampler = DEFAULT_SAMPLER,
    progress: Callable[[int], None] | None = None,
) -> list[Recipe]:
    """The recipes tried, in their order, each once: the space's base, then `starts`, then what the sampler draws.

    `trials` counts different pipelines; a sampler that keeps repeating itself is stopped. Raises MissingExtraError where
    optuna is not installed.
    """
    optuna = load_optuna()
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=_sampler(optuna, sampler, seed))
    for values in starts:
        study.enqueue_trial(dict(values))
    tried = {space.base: None}
    quality(space.base)

    def objective(trial: Any) -> tuple[float, float]:
        recipe = space.recipe(space.draw(trial.suggest_categorical))
        if progress is not None and recipe not in tried:
            progress(1)
        tried[recipe] = None
        return quality(recipe), cost(recipe)

    for _ in range(DRAWS_A_TRIAL * trials):
        if len(tried) > trials:
            break
        study.optimize(objective, n_trials=1)
    return list(tried)


def load_optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise MissingExtraError("tuning needs optuna: pip install 'twinrank[tune]'") from error
    optuna.logging.set_verbosity(logging.WARNING)
    return optuna


def _sampler(optuna: Any, name: Sampler, seed: int) -> Any:
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(population_size=POPULATION, seed=seed)
    if name == "tpe":
        return optuna.samplers.TPESampler(n_startup_trials=POPULATION, seed=seed)
    return optuna.samplers.RandomSampler(seed=seed)


def starting_points(space: Space) -> list[dict[str, Value]]:
    """Pipelines that anybody would try first: each source alone, both, and each reranker behind both."""
    sources = next(knob for knob in space.knobs if knob.name == "sources").values
    rerankers = [knob for knob in space.knobs if knob.name.endswith(".candidates")]

    def draw(chosen: Mapping[str, Value]) -> dict[str, Value]:
        return space.draw(lambda name, values: chosen.get(name, _middle(name, values)))

    none = {knob.name: min(knob.values) for knob in rerankers}
    points = [draw({"sources": source, **none}) for source in sources]
    points += [draw({"sources": sources[0], **none, knob.name: max(knob.values)}) for knob in rerankers if max(knob.values)]
    return points


def _middle(name: str, values: Sequence[Value]) -> Value:
    """Of numbers that have an order the middle one, of names the first, which is the base's."""
    numbers = all(isinstance(value, (int, float)) for value in values)
    return sorted(values, key=float)[len(values) // 2] if numbers and not name.startswith("passages") else values[0]
