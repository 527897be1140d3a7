"""Two runs over the same queries → how much better one is, how sure that is, and how many queries it would take to know."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from twinrank.errors import InputError

Floats: TypeAlias = npt.NDArray[np.float64]

FEWEST_QUERIES = 10
"""With 5 queries no outcome is significant (2 of 32 sign patterns are as extreme as the most extreme one, p = .06), and an
interval drawn from a handful of values is far too short; from here on both mean something."""

SAMPLES = 100_000
"""Sign patterns drawn where not all are tried: a p of .05 is then known to within .0014 (two standard errors)."""

EXACT = 16
"""Queries that differ, up to which all sign patterns are tried: 2^16 are fewer than would be drawn."""

RESAMPLES = 10_000
AT_ONCE = 4_000_000
"""Numbers drawn at a time, which bounds the memory."""

LEVEL, POWER = 0.05, 0.8
NORMAL = NormalDist()
Z_LEVEL = NORMAL.inv_cdf(1 - LEVEL / 2)
Z_BOTH = Z_LEVEL + NORMAL.inv_cdf(POWER)


@dataclass(frozen=True)
class Paired:
    """A run minus the baseline, query by query. What could not be told is None, and `note` says why."""

    queries: int
    mean: float
    helped: int
    """Queries for which it is better than the baseline."""
    harmed: int
    note: str = ""
    low: float | None = None
    """The 95 % interval of the mean."""
    high: float | None = None
    p: float | None = None
    """Of a difference at least as large, either way, were it a matter of chance which of the two runs is which."""
    corrected: float | None = None
    """p by Holm, for all comparisons that were made together."""
    exact: bool = False
    """Whether all sign patterns were tried."""
    effect: float | None = None
    """The mean over the standard deviation of the differences (Cohen's d of paired values)."""
    detectable: float | None = None
    """The smallest true difference that so many queries show, at the 5 % level, in four cases of five."""
    needed: int | None = None
    """Queries that it would take to show, in four cases of five, a true difference as large as the one seen here."""

    @property
    def unchanged(self) -> int:
        return self.queries - self.helped - self.harmed

    @property
    def significant(self) -> bool:
        """At the 5 % level, after the correction."""
        return self.corrected is not None and self.corrected < LEVEL

    @property
    def verdict(self) -> str:
        """better, worse, not told apart, or why nothing can be said."""
        if self.corrected is None:
            return self.note
        if not self.significant:
            return "not told apart"
        return "better" if self.mean > 0 else "worse"


def compare(ours: Mapping[str, float], baseline: Mapping[str, float], *, seed: int = 0) -> Paired:
    """Compare a measure's values of the same queries; raises InputError where the queries differ or a value is no number.

    The interval is the bootstrap's BCa over queries, p that of Fisher's randomisation test. With fewer than 10 queries, and
    where no query differs, neither is given.

    >>> ours = {str(query): 0.5 + query / 40 for query in range(20)}
    >>> compare(ours, dict.fromkeys(ours, 0.5)).verdict
    'better'
    """
    if set(ours) != set(baseline):
        apart = sorted(set(ours) ^ set(baseline))
        raise InputError(
            f"two runs are compared over the same queries; {len(apart):,} are in one of them alone, the first is {apart[0]!r}"
        )
    if not ours:
        raise InputError("there is no query to compare by")
    differences = np.array([ours[query] - baseline[query] for query in ours], np.float64)  # (queries,)
    if not np.isfinite(differences).all():
        wrong = list(ours)[int(np.flatnonzero(~np.isfinite(differences))[0])]
        raise InputError(f"query {wrong!r} has the values {ours[wrong]} and {baseline[wrong]}; expected numbers")
    differences[np.abs(differences) < 1e-12] = 0.0  # what is left of the same value computed in two ways
    told = Paired(len(differences), float(differences.mean()), int((differences > 0).sum()), int((differences < 0).sum()))
    if told.unchanged == told.queries:
        return replace(told, note=f"the same for {_counted(told.queries)}")
    if told.queries < FEWEST_QUERIES:
        return replace(told, note=f"{_counted(told.queries)} are too few to tell; {FEWEST_QUERIES} at least")
    p, exact = randomisation_test(differences, seed=seed)
    told = replace(told, p=p, corrected=p, exact=exact)
    spread = float(differences.std(ddof=1))
    if spread < 1e-12:
        return replace(told, note="every query differs by the same, so there is no spread to draw an interval from")
    low, high = bca_interval(differences, seed=seed)
    effect = told.mean / spread
    return replace(
        told, low=low, high=high, effect=effect, needed=queries_needed(effect), detectable=detectable(spread, told.queries)
    )


def compare_all(
    baseline: Mapping[str, float], others: Mapping[str, Mapping[str, float]], *, seed: int = 0
) -> dict[str, Paired]:
    """Compare several runs with one baseline; `corrected` takes into account that there are several (Holm)."""
    compared = {name: compare(values, baseline, seed=seed) for name, values in others.items()}
    tested = [(name, one.p) for name, one in compared.items() if one.p is not None]
    for (name, _), corrected in zip(tested, holm([p for _, p in tested]), strict=True):
        compared[name] = replace(compared[name], corrected=corrected)
    return compared


def randomisation_test(differences: Floats, *, samples: int = SAMPLES, seed: int = 0) -> tuple[float, bool]:
    """Fisher's two-sided test by flipping signs: (p, whether all sign patterns were tried).

    It assumes nothing about the values' distribution (Fisher 1935; for retrieval Smucker, Allan and Carterette, CIKM 2007).
    Drawn patterns count the observed one among them, (hits + 1) / (samples + 1), so that p is never 0 (Phipson and Smyth 2010).

    >>> randomisation_test(np.array([0.1, 0.2, 0.3, 0.4, 0.5]))  # of 32 patterns, the observed one and its mirror image
    (0.0625, True)
    """
    differing = np.abs(differences[differences != 0])  # a difference of 0 has no sign to flip
    observed = abs(float(differences.sum()))
    enough = observed - 1e-9 * max(1.0, float(differing.sum()))  # sums in another order may differ in the last digits
    if len(differing) <= EXACT:
        sums = np.zeros(1)
        for difference in differing:
            sums = np.concatenate([sums + difference, sums - difference])  # doubles with every query
        return float((np.abs(sums) >= enough).mean()), True
    rng = np.random.default_rng(seed)
    hits, rows = 0, max(1, AT_ONCE // len(differing))
    for start in range(0, samples, rows):
        count = min(rows, samples - start)
        packed = rng.integers(0, 256, (count, -(-len(differing) // 8)), dtype=np.uint8)
        flips = np.unpackbits(packed, axis=1, count=len(differing))  # (count, differing) of 0 and 1
        sums = 2 * (flips @ differing) - differing.sum()  # (count,)
        hits += int((np.abs(sums) >= enough).sum())
    return (hits + 1) / (samples + 1), False


def bca_interval(values: Floats, *, level: float = 1 - LEVEL, samples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """The bias-corrected and accelerated bootstrap interval of the mean (Efron 1987; DiCiccio and Efron 1996).

    z0 is the bias, from the share of resampled means below the mean (ties count half); the acceleration is the jackknife's
    skewness over 6. Values that are all equal have no interval: InputError.
    """
    if len(values) < 2 or float(np.ptp(values)) == 0.0:
        raise InputError("an interval takes two values or more that are not all equal")
    rng, count = np.random.default_rng(seed), len(values)
    rows = max(1, AT_ONCE // count)
    means = np.concatenate(
        [
            values[rng.integers(0, count, (min(rows, samples - start), count), dtype=np.int32)].mean(axis=1)
            for start in range(0, samples, rows)
        ]
    )  # (samples,)
    mean = float(values.mean())
    near = np.abs(means - mean) < 1e-12
    below = float(((means < mean) & ~near).mean() + near.mean() / 2)
    bias = NORMAL.inv_cdf(min(max(below, 0.5 / samples), 1 - 0.5 / samples))
    # Leaving out value i moves the mean by (value - mean) / (count - 1): the jackknife in one line.
    deviations = values - mean
    acceleration = float((deviations**3).sum() / (6 * (deviations**2).sum() ** 1.5))
    ends = []
    for share in ((1 - level) / 2, (1 + level) / 2):
        z = bias + NORMAL.inv_cdf(share)
        ends.append(NORMAL.cdf(bias + z / (1 - acceleration * z)))
    low, high = np.quantile(means, ends)
    return float(low), float(high)


def holm(ps: Sequence[float]) -> list[float]:
    """Correct for several tests: the smallest p times their number, the next times one less, never falling (Holm 1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected, worst = [0.0] * len(ps), 0.0
    for place, index in enumerate(sorted(range(len(ps)), key=lambda index: ps[index])):
        worst = max(worst, min(1.0, (len(ps) - place) * ps[index]))
        corrected[index] = worst
    return corrected


def queries_needed(effect: float) -> int | None:
    """Queries that show an effect of this size (mean over standard deviation), at 5 %, in four cases of five.

    (z_0.975 + z_0.8)² / effect² + z_0.975² / 2: the normal approximation with Guenther's (1981) correction for the t-test,
    as whose power the randomisation test's is taken. None where there is no effect to show.

    >>> queries_needed(0.5)  # with the noncentral t distribution: 34
    34
    """
    if abs(effect) < 1e-9:
        return None
    return max(FEWEST_QUERIES, math.ceil(Z_BOTH**2 / effect**2 + Z_LEVEL**2 / 2))


def detectable(spread: float, queries: int) -> float:
    """The smallest true mean difference that `queries` show, at 5 %, in four cases of five: `queries_needed` turned round."""
    return Z_BOTH * spread / math.sqrt(queries - Z_LEVEL**2 / 2)


def _counted(queries: int) -> str:
    return "the one query" if queries == 1 else f"{queries:,} queries"
