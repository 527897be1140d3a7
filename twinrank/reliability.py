"""Probabilities against what turned out to be relevant: calibration error with its interval, Brier score, log loss, AUROC."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from twinrank.errors import CalibrationError

Floats: TypeAlias = npt.NDArray[np.float64]
Flags: TypeAlias = npt.NDArray[np.bool_]
Places: TypeAlias = npt.NDArray[np.int64]

BINS = 15
PAIRS_A_BIN = 20
"""With fewer pairs there are fewer bins: a share of a handful is noise."""

REPLICATES = 500


@dataclass(frozen=True)
class Bin:
    """Pairs of about the same probability: how many, the mean probability, and the share of them that is relevant."""

    pairs: int
    predicted: float
    observed: float


@dataclass(frozen=True)
class Reliability:
    """How good probabilities are, over pairs of query and document."""

    pairs: int
    queries: int
    relevant: int
    error: float
    """ECE, the expected calibration error: Σ share of the bin · |observed − predicted|, over bins of equal mass."""
    interval: tuple[float, float]
    """Where the ECE lies in 95 of 100 bootstrap samples of the queries."""
    floor: float
    """The ECE that probabilities without any error would show on so many pairs: the estimator's bias."""
    brier: float
    miscalibration: float
    """Murphy's reliability: Σ share · (observed − predicted)²; the part of the Brier score that calibration can mend."""
    resolution: float
    """Σ share · (observed − base rate)²: how far the bins tell relevant pairs from others; larger is better."""
    log_loss: float
    auroc: float
    """The chance that a relevant pair has the larger probability of two; ½ knows nothing."""
    bins: tuple[Bin, ...]

    @property
    def base_rate(self) -> float:
        return self.relevant / self.pairs


def judge(
    probabilities: npt.ArrayLike, relevant: npt.ArrayLike, queries: npt.ArrayLike, *, bins: int = BINS, seed: int = 0
) -> Reliability:
    """Judge probabilities on pairs that they were not fitted on; `queries` says which query each pair is of.

    ECE by bins of equal mass, which are less biased than bins of equal width (Roelofs, Cain, Shlens and Mozer, Mitigating Bias
    in Calibration Error Estimation, AISTATS 2022); equal probabilities stay in one bin. The plain estimate is too high rather
    than too low, by about `floor`. The interval is a percentile bootstrap over queries, since the pairs of one query are not
    independent.
    """
    chances, flags, owners = _checked(probabilities, relevant, queries)
    bins = min(bins, max(2, len(chances) // PAIRS_A_BIN))
    random = np.random.default_rng(seed)
    parts = binned(chances, flags, bins)
    base = float(flags.mean())
    counts = np.array([part.pairs for part in parts])
    shares = counts / counts.sum()
    predicted, observed = (np.array([getattr(part, name) for part in parts]) for name in ("predicted", "observed"))
    clipped = np.clip(chances, 1e-15, 1 - 1e-15)
    samples = bootstrap(owners, lambda pairs: calibration_error(chances[pairs], flags[pairs], bins), random)
    perfect = [calibration_error(chances, random.random(len(chances)) < chances, bins) for _ in range(100)]
    return Reliability(
        pairs=len(chances),
        queries=len(np.unique(owners)),
        relevant=int(flags.sum()),
        error=float((shares * np.abs(observed - predicted)).sum()),
        interval=(float(np.percentile(samples, 2.5)), float(np.percentile(samples, 97.5))),
        floor=float(np.mean(perfect)),
        brier=float(((chances - flags) ** 2).mean()),
        miscalibration=float((shares * (observed - predicted) ** 2).sum()),
        resolution=float((shares * (observed - base) ** 2).sum()),
        log_loss=log_loss(clipped, flags),
        auroc=auroc(chances, flags),
        bins=parts,
    )


def binned(probabilities: Floats, relevant: Flags, bins: int = BINS) -> tuple[Bin, ...]:
    """Bins of equal mass, ascending; a border that would part equal probabilities moves before them.

    >>> [part.pairs for part in binned(np.array([0.1, 0.2, 0.2, 0.9]), np.array([False, True, False, True]), 2)]
    [1, 3]
    """
    order = np.argsort(probabilities, kind="stable")
    chances, flags = probabilities[order], relevant[order]
    starts = _starts(chances, bins)
    counts = np.diff([*starts, len(chances)])
    predicted = np.add.reduceat(chances, starts) / counts
    observed = np.add.reduceat(flags.astype(np.float64), starts) / counts
    return tuple(map(Bin, counts.tolist(), predicted.tolist(), observed.tolist()))


def _starts(ascending: Floats, bins: int) -> Places:
    """Where each bin begins."""
    wanted = np.arange(bins) * len(ascending) // bins
    return np.unique(np.searchsorted(ascending, ascending[wanted], side="left"))


def calibration_error(probabilities: Floats, relevant: Flags, bins: int = BINS) -> float:
    """ECE by bins of equal mass.

    >>> round(calibration_error(np.array([0.2, 0.2, 0.8, 0.8]), np.array([False, False, True, True]), 2), 3)
    0.2
    """
    order = np.argsort(probabilities, kind="stable")
    ascending = probabilities[order]
    differences = np.add.reduceat(relevant[order] - ascending, _starts(ascending, bins))
    return float(np.abs(differences).sum() / len(ascending))


def bootstrap(owners: Places, statistic: Callable[[Places], float], random: np.random.Generator) -> Floats:
    """The statistic over samples of queries, drawn with replacement, each with all of its pairs: (replicates,)."""
    order = np.argsort(owners, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(owners[order])) + 1)
    values = []
    for _ in range(REPLICATES):
        drawn = random.integers(len(groups), size=len(groups))
        values.append(statistic(np.concatenate([groups[place] for place in drawn])))
    return np.array(values)


def log_loss(probabilities: Floats, relevant: Flags) -> float:
    """The mean of −ln of the probability given to what was the case, in nats."""
    return float(-np.log(np.where(relevant, probabilities, 1 - probabilities)).mean())


def auroc(scores: npt.ArrayLike, relevant: npt.ArrayLike) -> float:
    """The area under the ROC curve, by ranks, equal scores counting half (Mann and Whitney 1947); NaN with one kind alone.

    >>> auroc([0.1, 0.5, 0.5, 0.9], [False, False, True, True])
    0.875
    """
    values, flags = np.asarray(scores, np.float64), np.asarray(relevant, bool)
    positives = int(flags.sum())
    negatives = len(flags) - positives
    if not positives or not negatives:
        return float("nan")
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]  # (pairs,): the mean rank of equal scores
    return float((ranks[flags].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def plot(reliability: Reliability, width: int = 40) -> str:
    """The reliability diagram in text, a line a bin: o where it was predicted, x where it came out, * for both."""
    lines = ["predicted  observed   pairs  0" + " " * (width - 2) + "1"]
    for part in reliability.bins:
        cells = ["·"] * width
        predicted, observed = (min(int(value * width), width - 1) for value in (part.predicted, part.observed))
        cells[predicted], cells[observed] = "o", "x"
        if predicted == observed:
            cells[predicted] = "*"
        lines.append(f"{part.predicted:9.3f} {part.observed:9.3f} {part.pairs:7,}  {''.join(cells)}")
    return "\n".join(lines)


def as_json(reliability: Reliability) -> dict[str, Any]:
    return {
        "pairs": reliability.pairs,
        "queries": reliability.queries,
        "relevant": reliability.relevant,
        "ece": reliability.error,
        "ece_interval": list(reliability.interval),
        "ece_floor": reliability.floor,
        "brier": reliability.brier,
        "brier_reliability": reliability.miscalibration,
        "brier_resolution": reliability.resolution,
        "log_loss": reliability.log_loss,
        "auroc": None if np.isnan(reliability.auroc) else reliability.auroc,
        "bins": [{"pairs": part.pairs, "predicted": part.predicted, "observed": part.observed} for part in reliability.bins],
    }


def _checked(probabilities: npt.ArrayLike, relevant: npt.ArrayLike, queries: npt.ArrayLike) -> tuple[Floats, Flags, Places]:
    chances, flags = np.asarray(probabilities, np.float64), np.asarray(relevant, bool)
    owners = np.asarray(queries, np.int64)
    if not len(chances) or not chances.shape == flags.shape == owners.shape:
        raise CalibrationError(
            "each pair has a probability, a judgment and a query; "
            f"got {chances.shape}, {flags.shape} and {owners.shape}, and at least one pair is needed"
        )
    if not ((chances >= 0) & (chances <= 1)).all():  # NaN included
        raise CalibrationError("probabilities lie between 0 and 1; some of these do not, or are NaN")
    if len(np.unique(owners)) < 2:
        raise CalibrationError("all pairs are of one query; an interval over queries needs two at least, a useful one 50")
    return chances, flags, owners
