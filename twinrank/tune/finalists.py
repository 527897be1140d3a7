"""The last few pipelines, measured: time of real searches on this machine, memory of a process that does nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from time import perf_counter, process_time
from typing import Literal, TypeAlias

import numpy as np

from twinrank.collection import Collection
from twinrank.evaluate.memory import peak_memory
from twinrank.evaluate.page import Point, pareto_front
from twinrank.recipe import Recipe
from twinrank.tune.judge import DEPTH, Judge

BLOCK = 10
"""Queries that one finalist answers before the next one's turn, so that a busy minute falls on all of them."""

WARM_UP = 3

Clock: TypeAlias = Literal["wall", "cpu"]
"""`cpu` counts the processor's time of all threads together: for machines that are busy with other work."""


@dataclass(frozen=True)
class Measured:
    """One pipeline as it runs here, no query asked twice."""

    milliseconds: tuple[float, ...]
    memory: float
    """Megabytes at the peak of a fresh process that opens the collection and searches; the interpreter included."""
    differing: int
    """Queries whose documents were not those that tuning had judged; anything but 0 is a bug, or a collection that changed."""

    @property
    def p50(self) -> float:
        return float(np.percentile(self.milliseconds, 50))

    @property
    def p95(self) -> float:
        return float(np.percentile(self.milliseconds, 95))


def measure(
    recipes: Sequence[Recipe],
    judge: Judge,
    *,
    queries: int = 100,
    clock: Clock = "wall",
    progress: Callable[[int], None] | None = None,
) -> dict[Recipe, Measured]:
    """Search with every recipe for the same queries, in turns."""
    now = process_time if clock == "cpu" else perf_counter
    texts = list(judge.queries.values())
    warm, asked = texts[:WARM_UP], texts[WARM_UP : WARM_UP + queries] or texts
    times: dict[Recipe, list[float]] = {recipe: [] for recipe in recipes}
    differing = dict.fromkeys(recipes, 0)
    with ExitStack() as stack:
        opened = {recipe: stack.enter_context(Collection(judge.outputs.place(recipe), recipe=recipe)) for recipe in recipes}
        for collection in opened.values():
            for text in warm:
                collection.search(text, DEPTH)  # opens models and indexes, outside the clock
        for start in range(0, len(asked), BLOCK):
            for recipe, collection in opened.items():
                for text in asked[start : start + BLOCK]:
                    started = now()
                    hits = collection.search(text, DEPTH)
                    times[recipe].append(1000 * (now() - started))
                    differing[recipe] += [hit.id for hit in hits] != judge.found(recipe, text)
                if progress is not None:
                    progress(len(asked[start : start + BLOCK]))
    return {
        recipe: Measured(tuple(times[recipe]), peak_memory(judge.outputs.place(recipe), recipe, warm), differing[recipe])
        for recipe in recipes
    }


def finalists(
    judged: Mapping[Recipe, float], cost: Callable[[Recipe], float], always: Sequence[Recipe], *, count: int
) -> list[Recipe]:
    """Those worth measuring: `always`, and up to `count` of the front of quality against cost, from cheap to dear."""
    front = pareto(judged, cost)
    if len(front) > count:  # spread over the qualities, the two ends kept
        qualities = np.array([judged[recipe] for recipe in front])
        wanted = np.linspace(qualities[0], qualities[-1], count)
        places = sorted({int(np.abs(qualities - quality).argmin()) for quality in wanted})
        front = [front[place] for place in places]
    return list(dict.fromkeys([*always, *front]))


def pareto(quality: Mapping[Recipe, float], cost: Callable[[Recipe], float]) -> list[Recipe]:
    """Those that no other beats in quality at no more cost, cheapest first."""
    recipes = list(quality)
    points = [Point(str(number), cost(recipe), quality[recipe]) for number, recipe in enumerate(recipes)]
    return [recipes[int(point.name)] for point in pareto_front(points)]
