"""An experiment → a table for people or a JSON document for programs; differences from a baseline, told in full."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from twinrank.errors import InputError
from twinrank.evaluate.experiment import Experiment, Outcome
from twinrank.evaluate.significance import Paired, compare_all

Differences = Mapping[str, Mapping[str, Paired]]
"""measure → recipe → its difference from the baseline."""


def differences(experiment: Experiment, baseline: str) -> Differences:
    """Every other recipe minus the baseline, for each measure; corrected for as many comparisons as there are recipes."""
    if baseline not in experiment.outcomes:
        raise InputError(f"the baseline {baseline!r} is none of what is compared: {', '.join(experiment.outcomes)}")
    values = {name: outcome.measured.by_query for name, outcome in experiment.outcomes.items()}
    return {
        measure: compare_all(of_baseline, {name: of[measure] for name, of in values.items() if name != baseline})
        for measure, of_baseline in values[baseline].items()
    }


def table(experiment: Experiment, baseline: str | None = None) -> str:
    """One line a recipe: its measures, then the median and the 95th percentile of a query's time on this machine.

    With a `baseline`, below it, whether each other recipe is better by the first measure, by how much and how sure.
    """
    measures = measures_of(experiment)
    header = ["recipe", *measures, "p50 ms", "p95 ms"]
    rows = [[name, *_cells(outcome, measures)] for name, outcome in experiment.outcomes.items()]
    counts = f"{experiment.queries:,} queries over {experiment.documents:,} documents"
    lines = [f"{experiment.dataset}, split {experiment.split}: {counts}", *aligned([header, *rows])]
    if baseline is not None:
        lines += ["", *_compared(differences(experiment, baseline)[measures[0]], measures[0], baseline)]
    lines += experiment.notes
    return "\n".join(lines)


def _compared(compared: Mapping[str, Paired], measure: str, baseline: str) -> Iterator[str]:
    if not compared:
        yield f"nothing to compare with {baseline}: name another --recipe"
        return
    yield f"{measure} minus that of {baseline}, query by query"
    header = ["recipe", "difference", "95 % interval", "p", "helped", "harmed", "same", "verdict"]
    rows = [
        [name, f"{one.mean:+.4f}", interval(one), probability(one), str(one.helped), str(one.harmed), str(one.unchanged)]
        for name, one in compared.items()
    ]
    verdicts = [one.verdict for one in compared.values()]
    yield from aligned([header, *[[*row, verdict] for row, verdict in zip(rows, verdicts, strict=True)]], last_left=True)
    yield from (f"{name}: {sentence}" for name, one in compared.items() if (sentence := how_many(one)))
    yield method(len(compared))


def how_many(one: Paired) -> str:
    """How many queries it would take to know; empty where nothing can be said."""
    if one.needed is None or one.detectable is None:
        return ""
    seen = f"{one.queries:,} queries show a difference of {one.detectable:.4f} in four cases of five"
    if one.needed <= one.queries:
        return f"{seen}; for one of {abs(one.mean):.4f}, as here, {one.needed:,} are enough"
    return f"{seen}; for one of {abs(one.mean):.4f}, as here, it takes {one.needed:,}"


def method(comparisons: int) -> str:
    """How the figures were made."""
    together = f", Holm-corrected over {comparisons} comparisons" if comparisons > 1 else ""
    return f"intervals: BCa bootstrap over queries, each by itself; p: Fisher's randomisation test, two-sided{together}"


def interval(one: Paired) -> str:
    return "–" if one.low is None or one.high is None else f"[{one.low:+.3f}, {one.high:+.3f}]"


def probability(one: Paired) -> str:
    """The corrected p; what 100,000 drawn patterns cannot tell from 0 is not shown as 0."""
    if one.corrected is None:
        return "–"
    return "<.0001" if one.corrected < 0.0001 else f"{one.corrected:.4f}".removeprefix("0")


def measures_of(experiment: Experiment) -> list[str]:
    return list(next(iter(experiment.outcomes.values())).measured.by_query)


def aligned(rows: Sequence[Sequence[str]], *, last_left: bool = False) -> Iterator[str]:
    """Columns of one width: the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        if last_left:
            cells[-1] = row[-1]
        yield "  ".join(cells).rstrip()


def per_query(experiment: Experiment, baseline: str | None = None) -> str:
    """One line a query and recipe, tab separated, with a header: for sorting and spreadsheets.

    With a `baseline`, the first measure's difference from it stands last.
    """
    measures = measures_of(experiment)
    lines = ["\t".join(["query", "recipe", *measures, *([f"{measures[0]} minus {baseline}"] if baseline else [])])]
    for name, outcome in experiment.outcomes.items():
        by_query = outcome.measured.by_query
        for query in by_query[measures[0]]:
            cells = [query, name, *(f"{by_query[m][query]:.4f}" for m in measures)]
            if baseline:
                base = experiment.outcomes[baseline].measured.by_query[measures[0]][query]
                cells.append(f"{by_query[measures[0]][query] - base:+.4f}")
            lines.append("\t".join(cells))
    return "\n".join(lines)


def _cells(outcome: Outcome, measures: Sequence[str]) -> list[str]:
    means = outcome.measured.means
    return [*(f"{means[name]:.4f}" for name in measures), f"{outcome.percentile(50):.1f}", f"{outcome.percentile(95):.1f}"]


def as_json(experiment: Experiment, *, per_query: bool = False, baseline: str | None = None) -> dict[str, Any]:
    """Plain values; with `per_query` every query's measures too, with a `baseline` the differences from it."""
    recipes: dict[str, Any] = {}
    for name, outcome in experiment.outcomes.items():
        recipes[name] = {
            "measures": outcome.measured.means,
            "milliseconds": {"p50": outcome.percentile(50), "p95": outcome.percentile(95)},
            "recipe": outcome.recipe.to_toml(),
        }
        if per_query:
            recipes[name]["per_query"] = outcome.measured.by_query
    told = {
        "dataset": experiment.dataset,
        "split": experiment.split,
        "documents": experiment.documents,
        "queries": experiment.queries,
        "unknown_documents": experiment.unknown,
        "notes": list(experiment.notes),
        "recipes": recipes,
    }
    if baseline is not None:
        compared = differences(experiment, baseline)
        told["baseline"] = baseline
        told["differences"] = {
            measure: {name: paired_as_json(one) for name, one in of.items()} for measure, of in compared.items()
        }
    return told


def paired_as_json(one: Paired) -> dict[str, Any]:
    """Every field, null where nothing can be said; with what was concluded."""
    return {**asdict(one), "unchanged": one.unchanged, "verdict": one.verdict}
