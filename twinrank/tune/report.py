"""A tuning → a table for people, JSON for programs; a pick → recipe.toml, with the one before kept beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twinrank.files import replace_file
from twinrank.recipe import Recipe
from twinrank.tune.choose import Difference
from twinrank.tune.space import describe
from twinrank.tune.tuning import Finalist, Tuning

BEFORE = ".before"


def table(tuning: Tuning) -> str:
    """The finalists, fastest first; then what was chosen, why, what each stage is worth, and what cannot be told."""
    return "\n".join([*_head(tuning), "", *_rows(tuning), "", *_verdict(tuning)])


def _head(tuning: Tuning) -> Iterator[str]:
    yield f"{tuning.dataset}, split {tuning.split}: {tuning.queries:,} queries over {tuning.documents:,} documents"
    seconds = sum(tuning.seconds.values())
    pairs = f", {tuning.pairs:,} pairs read by rerankers" if tuning.pairs else ""
    yield (
        f"{tuning.pipelines:,} pipelines judged ({tuning.rankings:,} rankings{pairs}), {len(tuning.finalists)} of them "
        f"measured, in {seconds:.0f} s; limits: {tuning.limits}"
    )


def _rows(tuning: Tuning) -> Iterator[str]:
    header = ["  pipeline", "nDCG@10", "over the default", "p50 ms", "p95 ms", "MB"]
    rows = [
        [_mark(tuning, row) + describe(row.recipe) + _storage(tuning, row.recipe), *_cells(tuning, row)]
        for row in tuning.finalists
    ]
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, *rows]:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        yield "  ".join(cells).rstrip()
    if tuning.clock == "cpu":
        yield "ms are of the processor's time, all threads together"
    yield "* the pick, = the default, + on the measured front of quality against p95; differences with 95 % intervals"


def _mark(tuning: Tuning, row: Finalist) -> str:
    if row.recipe == tuning.choice.recipe:
        return "* "
    if row.recipe == tuning.default:
        return "= "
    return "+ " if row.on_front else "  "


def _storage(tuning: Tuning, recipe: Recipe) -> str:
    """What needs the documents encoded again, where it is not as in the default."""
    told = []
    if recipe.encoder != tuning.default.encoder:
        told.append(Path(recipe.encoder.model).name)
    if recipe.passages != tuning.default.passages:
        told.append(f"passages of {recipe.passages.size} tokens" if recipe.passages.size else "whole documents")
    return f" [{', '.join(told)}]" if told else ""


def _cells(tuning: Tuning, row: Finalist) -> list[str]:
    against = row.against_default
    difference = "" if row.recipe == tuning.default else f"{against.mean:+.3f} [{against.low:+.3f}, {against.high:+.3f}]"
    measured = row.measured
    return [f"{row.quality:.4f}", difference, f"{measured.p50:.1f}", f"{measured.p95:.1f}", f"{measured.memory:.0f}"]


def _verdict(tuning: Tuning) -> Iterator[str]:
    choice, pick = tuning.choice, tuning.pick
    yield f"the pick: {describe(pick.recipe)}{_storage(tuning, pick.recipe)}: {choice.reason}"
    if choice.candidate != tuning.default:
        yield f"  cross-validated, {'it' if choice.recipe == choice.candidate else 'what looked best'} gains {choice.gain}"
    yield f"  to expect on new queries: nDCG@10 of {choice.expected:.3f}; p95 of {pick.measured.p95:.1f} ms on this machine"
    for step in tuning.steps:
        worth = f"{step.speedup:.1f}× as fast" if step.speedup >= 1.1 else "no faster"
        yield f"  without {step.stage}: {step.loss}, {worth} ({describe(step.recipe)})"
    unsure = choice.candidate != tuning.default and abs(choice.gain.mean) < tuning.detectable
    if unsure or tuning.queries < 100:
        yield (
            f"  {tuning.queries:,} queries show a difference of {tuning.detectable:.3f} in four cases of five; "
            "smaller ones cannot be told apart here. More judged queries would"
        )
    if differing := sum(row.measured.differing for row in tuning.finalists):
        yield f"  WARNING: {differing} measured searches found other documents than tuning had judged; please report this"


def as_json(tuning: Tuning) -> dict[str, Any]:
    """The tuning as plain values, recipes as TOML."""
    return {
        "dataset": tuning.dataset,
        "split": tuning.split,
        "queries": tuning.queries,
        "documents": tuning.documents,
        "limits": {
            "deadline": tuning.limits.deadline,
            "memory": tuning.limits.memory,
            "min_ndcg": tuning.limits.min_ndcg,
        },
        "pipelines": tuning.pipelines,
        "rankings": tuning.rankings,
        "pairs": tuning.pairs,
        "seconds": dict(tuning.seconds),
        "clock": tuning.clock,
        "detectable": tuning.detectable,
        "pick": {
            "recipe": tuning.choice.recipe.to_toml(),
            "pipeline": describe(tuning.choice.recipe),
            "reason": tuning.choice.reason,
            "keeps_the_default": tuning.choice.keeps_the_default,
            "gain": _difference(tuning.choice.gain),
            "expected": tuning.choice.expected,
        },
        "finalists": [
            {
                "pipeline": describe(row.recipe),
                "nDCG@10": row.quality,
                "against_default": _difference(row.against_default),
                "milliseconds": {"p50": row.measured.p50, "p95": row.measured.p95},
                "memory": row.measured.memory,
                "on_front": row.on_front,
                "pick": row.recipe == tuning.choice.recipe,
                "default": row.recipe == tuning.default,
                "recipe": row.recipe.to_toml(),
            }
            for row in tuning.finalists
        ],
        "without": [
            {
                "stage": step.stage,
                "loss": _difference(step.loss),
                "speedup": step.speedup,
                "recipe": step.recipe.to_toml(),
            }
            for step in tuning.steps
        ],
    }


def _difference(difference: Difference) -> dict[str, float]:
    return {"mean": difference.mean, "low": difference.low, "high": difference.high}


def write_recipe(tuning: Tuning, path: Path) -> Path | None:
    """Put the pick's recipe in place whole; what stood there stays as NAME.before, which is returned."""
    before = path.with_name(path.name + BEFORE)
    old = path.read_bytes() if path.exists() else None
    if old is not None:
        replace_file(before, old)
    replace_file(path, _comment(tuning) + tuning.choice.recipe.to_toml())
    return None if old is None else before


def _comment(tuning: Tuning) -> str:
    pick = tuning.pick
    return (
        f"# twinrank tune {tuning.dataset} --split {tuning.split} --deadline {tuning.limits.deadline:g}: "
        f"nDCG@10 {tuning.choice.expected:.3f} expected, p95 {pick.measured.p95:.1f} ms\n# {describe(pick.recipe)}\n\n"
    )
