"""An experiment → a table for people or a JSON document for programs."""

from __future__ import annotations

from typing import Any

from twinrank.evaluate.experiment import Experiment, Outcome


def table(experiment: Experiment) -> str:
    """One line a recipe: its measures, then the median and the 95th percentile of a query's time on this machine."""
    measures = list(next(iter(experiment.outcomes.values())).measured.by_query)
    header = ["recipe", *measures, "p50 ms", "p95 ms"]
    rows = [[name, *_cells(outcome, measures)] for name, outcome in experiment.outcomes.items()]
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    counts = f"{experiment.queries:,} queries over {experiment.documents:,} documents"
    lines = [f"{experiment.dataset}, split {experiment.split}: {counts}"]
    for row in [header, *rows]:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    if experiment.unknown:
        lines.append(
            f"{experiment.unknown:,} relevant documents of the judgments are not in the corpus; they count as not found"
        )
    return "\n".join(lines)


def per_query(experiment: Experiment) -> str:
    """One line a query and recipe, tab separated, with a header: for sorting and spreadsheets."""
    measures = list(next(iter(experiment.outcomes.values())).measured.by_query)
    lines = ["\t".join(["query", "recipe", *measures])]
    for name, outcome in experiment.outcomes.items():
        by_query = outcome.measured.by_query
        lines.extend(
            "\t".join([query, name, *(f"{by_query[m][query]:.4f}" for m in measures)]) for query in by_query[measures[0]]
        )
    return "\n".join(lines)


def _cells(outcome: Outcome, measures: list[str]) -> list[str]:
    means = outcome.measured.means
    return [*(f"{means[name]:.4f}" for name in measures), f"{outcome.percentile(50):.1f}", f"{outcome.percentile(95):.1f}"]


def as_json(experiment: Experiment, *, per_query: bool = False) -> dict[str, Any]:
    """The experiment as plain values; with `per_query` every query's measures too."""
    recipes: dict[str, Any] = {}
    for name, outcome in experiment.outcomes.items():
        recipes[name] = {
            "measures": outcome.measured.means,
            "milliseconds": {"p50": outcome.percentile(50), "p95": outcome.percentile(95)},
            "recipe": outcome.recipe.to_toml(),
        }
        if per_query:
            recipes[name]["per_query"] = outcome.measured.by_query
    return {
        "dataset": experiment.dataset,
        "split": experiment.split,
        "documents": experiment.documents,
        "queries": experiment.queries,
        "unknown_documents": experiment.unknown,
        "recipes": recipes,
    }
