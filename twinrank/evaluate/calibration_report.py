"""A calibration that was judged → a table for people or a JSON document for programs."""

from __future__ import annotations

from typing import Any

from twinrank import abstention, reliability
from twinrank.abstention import Ladder
from twinrank.evaluate.calibrating import FIRST, Calibrating

RISKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3)
COVERAGES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def table(result: Calibrating) -> str:
    """The report for people."""
    judged = result.judged
    lines = [
        f"fitted on {result.fitted}: {result.fitted_queries:,} queries; "
        f"judged on {judged.name}: {judged.queries:,} others, {judged.withheld:,} of them without their relevant documents",
        "",
        f"{'candidate':<40} log loss, cross-validated over the queries fitted on",
    ]
    for name, loss in sorted(result.losses.items(), key=lambda item: item[1])[:8]:
        lines.append(f"{name:<40} {loss:.4f}{'  taken' if name == result.chosen else ''}")
    lines += [
        "",
        "judged        ECE  95 % interval   perfect   Brier  log loss  AUROC   pairs",
    ]
    for name, one in (("raw score", judged.before), ("all hits", judged.after), ("first hit", judged.top)):
        interval = f"{one.interval[0]:.4f}–{one.interval[1]:.4f}"
        lines.append(
            f"{name:<10} {one.error:6.4f}  {interval:<15} {one.floor:7.4f} {one.brier:7.4f} {one.log_loss:9.4f} "
            f"{one.auroc:6.3f} {one.pairs:7,}"
        )
    lines += [
        "ECE: 15 bins of equal mass; perfect: what it shows for probabilities without error, on as many pairs",
        "",
        reliability.plot(judged.after),
        "o predicted, x observed, * both",
        "",
        "risk: the share of answered queries whose first hits hold nothing relevant, at this coverage",
        f"{'coverage':>8} " + " ".join(f"{f'first {first}':>9}" for first in FIRST),
    ]
    for coverage in COVERAGES:
        lines.append(f"{coverage:8.0%} " + " ".join(f"{judged.curves[first].at(coverage)[0]:9.3f}" for first in FIRST))
    lines.append(f"{'AURC':>8} " + " ".join(f"{judged.curves[first].area:9.3f}" for first in FIRST))
    lines += ["", f"promised with confidence {abstention.CONFIDENCE:g}: queries answered at this risk (probability needed)"]
    lines.append(f"{'risk':>8} " + " ".join(f"{f'first {first}':>13}" for first in FIRST))
    for risk in RISKS:
        cells = [_promise(result.calibration.ladders[first], risk) for first in FIRST]
        lines.append(f"{risk:8.0%} " + " ".join(f"{cell:>13}" for cell in cells))
    lines.append(f"{'least':>8} " + " ".join(f"{result.calibration.ladders[first].least_risk():13.3f}" for first in FIRST))
    return "\n".join(lines)


def _promise(ladder: Ladder, risk: float) -> str:
    threshold = ladder.threshold(risk)
    return "–" if threshold is None else f"{ladder.coverage(threshold):.0%} ({threshold:.3f})"


def as_json(result: Calibrating) -> dict[str, Any]:
    """The report for programs."""
    judged, ladders = result.judged, result.calibration.ladders
    promises = []
    for first in FIRST:
        for risk in RISKS:
            threshold = ladders[first].threshold(risk)
            coverage = None if threshold is None else ladders[first].coverage(threshold)
            promises.append({"first": first, "risk": risk, "threshold": threshold, "coverage": coverage})
    return {
        "fitted": {"on": result.fitted, "queries": result.fitted_queries},
        "method": result.chosen,
        "log_loss_cross_validated": dict(result.losses),
        "judged": {
            "on": judged.name,
            "queries": judged.queries,
            "withheld": judged.withheld,
            "raw_score": reliability.as_json(judged.before),
            "all_hits": reliability.as_json(judged.after),
            "first_hit": reliability.as_json(judged.top),
        },
        "risk_coverage": [
            {
                "first": first,
                "aurc": judged.curves[first].area,
                "points": [{"coverage": at, "risk": judged.curves[first].at(at)[0]} for at in COVERAGES],
            }
            for first in FIRST
        ],
        "confidence": abstention.CONFIDENCE,
        "promises": promises,
        "least_risk": {str(first): ladders[first].least_risk() for first in FIRST},
    }
