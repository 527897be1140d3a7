"""Which pipeline to take: the best that keeps the limits, if it is really better than the default, by cross-validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from twinrank.evaluate import significance
from twinrank.recipe import Recipe
from twinrank.tune.judge import Figures
from twinrank.tune.space import stages_of

TOLERANCE = 0.5
"""Standard errors by which a pipeline with fewer stages may be worse than the best and still be taken."""


@dataclass(frozen=True)
class Difference:
    """Of two pipelines over the same queries: mean, 95 % interval, and what could have been seen."""

    mean: float
    low: float
    high: float
    error: float
    """The standard error of the mean."""

    detectable: float
    """The smallest true difference that so many queries show, at the 5 % level, in four cases of five."""

    def __str__(self) -> str:
        return f"{self.mean:+.3f} nDCG@10 [{self.low:+.3f}, {self.high:+.3f}]"


def difference(a: Figures, b: Figures) -> Difference:
    """a - b by query, with the bootstrap's BCa interval.

    >>> difference(np.array([0.5, 0.7, 0.9]), np.array([0.5, 0.5, 0.5])).mean
    0.2
    """
    differences = a - b  # (queries,)
    mean, spread = round(float(differences.mean()), 12), float(differences.std(ddof=1))
    if spread < 1e-12:
        return Difference(mean, mean, mean, 0.0, 0.0)
    low, high = significance.bca_interval(differences)
    count = len(differences)
    return Difference(mean, low, high, spread / np.sqrt(count), significance.detectable(spread, count))


Rule: TypeAlias = Callable[[Mapping[Recipe, Figures], Callable[[Recipe], float]], Recipe]
"""(figures of the pipelines to choose from, cost) → the one to take."""


def best(figures: Mapping[Recipe, Figures], cost: Callable[[Recipe], float]) -> Recipe:
    """The best mean, unless one with fewer stages lies within half a standard error of it: a stage has to earn its place.

    The standard error is that of the paired difference. The usual rule takes a whole one (Breiman et al. 1984, section
    3.4.3); half of one gained more on held-out folds (docs/tuning.md). Of equal means the cheapest is taken.
    """
    leader = max(figures, key=lambda recipe: (round(float(figures[recipe].mean()), 9), -cost(recipe)))
    simpler = [
        recipe
        for recipe in figures
        if len(stages_of(recipe)) < len(stages_of(leader)) and _as_good(figures[leader], figures[recipe])
    ]
    if not simpler:
        return leader
    fewest = min(len(stages_of(recipe)) for recipe in simpler)
    few = [recipe for recipe in simpler if len(stages_of(recipe)) == fewest]
    return max(few, key=lambda recipe: (round(float(figures[recipe].mean()), 9), -cost(recipe)))


def cheapest_reaching(enough: float) -> Rule:
    """The rule that takes the cheapest pipeline whose mean is `enough`; the best where none reaches it."""

    def rule(figures: Mapping[Recipe, Figures], cost: Callable[[Recipe], float]) -> Recipe:
        reaching = [recipe for recipe, values in figures.items() if values.mean() >= enough]
        return min(reaching, key=cost) if reaching else best(figures, cost)

    return rule


def _as_good(leader: Figures, other: Figures) -> bool:
    differences = leader - other
    return bool(differences.mean() <= TOLERANCE * differences.std(ddof=1) / np.sqrt(len(differences)))


@dataclass(frozen=True)
class Choice:
    """What was chosen, and how sure that is."""

    recipe: Recipe
    candidate: Recipe
    """The best one; chosen only where its gain is real."""
    gain: Difference
    """Over the default, on queries that had no part in choosing: every fold's choice was made on the other folds."""
    expected: float
    """nDCG@10 to be expected on new queries: of the folds' choices, on the queries that had no part in them."""
    reason: str

    @property
    def keeps_the_default(self) -> bool:
        return self.recipe != self.candidate


def folds_of(queries: int, folds: int, seed: int) -> list[npt.NDArray[np.int64]]:
    """The numbers of the queries of each fold, drawn by chance; sizes differ by one at most."""
    return [np.sort(part) for part in np.array_split(np.random.default_rng(seed).permutation(queries), folds)]


def choose(
    fitting: Mapping[Recipe, Figures],
    seen_by_all: Mapping[Recipe, Figures],
    default: Recipe,
    default_figures: Figures,
    *,
    cost: Callable[[Recipe], float],
    folds: Sequence[npt.NDArray[np.int64]],
    tried: Sequence[Sequence[Recipe]],
    rule: Rule = best,
    may_keep: bool = True,
) -> Choice:
    """Choose among the pipelines that keep the limits (`fitting`) and that a search over all queries saw, or keep the default.

    `tried` are the recipes that a search saw that knew only the queries outside of the fold: what they would have chosen is
    judged on the fold. Where that is no better than the default by more than one standard error, the default is kept, if
    it `may_keep` its place.
    """
    candidate = rule(seen_by_all, cost)
    held_out = np.empty_like(default_figures)  # (queries,)
    for fold, recipes in zip(folds, tried, strict=True):
        rest = np.setdiff1d(np.arange(len(held_out)), fold)
        among = {recipe: fitting[recipe][rest] for recipe in recipes if recipe in fitting}
        held_out[fold] = fitting[rule(among, cost)][fold] if among else default_figures[fold]
    gain, expected = difference(held_out, default_figures), float(held_out.mean())
    if candidate == default:
        return Choice(default, default, gain, float(default_figures.mean()), "the default is the best")
    if may_keep and gain.mean <= gain.error:
        reason = "the default is kept: on queries that had no part in choosing, the gain over it is not real"
        return Choice(default, candidate, gain, float(default_figures.mean()), reason)
    if gain.low > 0:
        reason = "better than the default on queries that had no part in choosing"
    elif may_keep:
        reason = "better than the default by more than a standard error, though the interval holds 0"
    else:
        reason = "the default does not keep the limits, or a cheaper pipeline is enough"
    return Choice(candidate, candidate, gain, expected, reason)


def one_step_earlier(recipe: Recipe, judged: Mapping[Recipe, Figures]) -> list[tuple[str, Recipe]]:
    """For each stage of a pipeline the best one judged that leaves it out and has all the others: (the stage, that recipe)."""
    stages = stages_of(recipe)
    found = []
    for number, stage in enumerate(stages):
        rest = (*stages[:number], *stages[number + 1 :])
        without = [other for other in judged if stages_of(other) == rest]
        if without:
            found.append((stage, max(without, key=lambda other: float(judged[other].mean()))))
    return found
