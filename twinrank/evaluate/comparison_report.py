"""A comparison of architectures → tables for a terminal, a JSON document, and one HTML page that keeps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from twinrank.evaluate.compare import Comparison, Row
from twinrank.evaluate.page import Cell, Point, bin_counts, document, facts, folded, histogram, pareto_front, pareto_plot, table
from twinrank.evaluate.report import interval, method, paired_as_json, probability

if TYPE_CHECKING:
    from rich.console import RenderableType

COSTS = ("index s", "bytes/passage", "p50 ms", "p95 ms", "p99 ms", "queries/s", "MB")
WIDTH = 100
"""Characters of a line where no terminal says how many it has."""

WHAT_COSTS_ARE = (
    "index s: from documents to a collection that can be searched; bytes/passage: what a search looks at (word index, vectors, "
    "token vectors), without the texts; p50 to p99: one query after the other, 100 documents each, the architectures taking "
    "turns; MB: peak memory of a fresh process that opens the collection and answers 20 queries"
)


def quality_cells(comparison: Comparison, row: Row) -> list[str]:
    return [*(f"{row.outcome.measured.means[measure]:.4f}" for measure in comparison.measures), f"{row.ceiling:.4f}"]


def cost_cells(row: Row) -> list[str]:
    outcome = row.outcome
    return [
        "–" if row.seconds is None else f"{row.seconds:,.1f}",
        f"{row.size:,.0f}",
        *(_milliseconds(outcome.percentile(share)) for share in (50, 95, 99)),
        f"{row.queries_a_second:,.0f}" if row.queries_a_second >= 10 else f"{row.queries_a_second:.1f}",
        f"{row.memory:,.0f}",
    ]


def difference_cells(row: Row) -> list[str]:
    one = row.difference
    if one is None:
        return ["baseline", "", "", "", "", ""]
    needed = "–" if one.needed is None else f"{one.needed:,}"
    return [f"{one.mean:+.4f}", interval(one), probability(one), str(one.helped), str(one.harmed), needed]


def _milliseconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _difference_header(comparison: Comparison) -> list[str]:
    return [f"Δ {comparison.measures[0]}", "95 % interval", "p", "helped", "harmed", "to know"]


def headline(comparison: Comparison) -> str:
    experiment = comparison.experiment
    drawn = f" of {comparison.judged:,}" if experiment.queries < comparison.judged else ""
    return (
        f"{experiment.dataset}, split {experiment.split}: {experiment.queries:,}{drawn} queries over "
        f"{experiment.documents:,} documents, {comparison.passages:,} passages"
    )


def remarks(comparison: Comparison) -> Iterator[str]:
    """What the tables do not say by themselves, a sentence each."""
    rows = [row for row in comparison.rows if row.difference is not None]
    yield f"ceiling: {comparison.measures[0]} if the 100 documents found stood in their best order"
    visible = [row.difference.detectable for row in rows if row.difference and row.difference.detectable is not None]
    if visible:
        low, high = f"{min(visible):.3f}", f"{max(visible):.3f}"
        yield (
            f"{comparison.experiment.queries:,} queries show differences from "
            f"{low if low == high else f'{low} to {high}'} on, by row, in four cases of five; "
            "to know: how many would show a difference as large as the one seen"
        )
    yield method(len(rows))
    for row in rows:
        if row.difference is not None and row.difference.note:
            yield f"{row.name}: {row.difference.note}"
    yield from comparison.experiment.notes
    yield from (f"left out: {line}" for line in comparison.left_out)


# -- for people ----------------------------------------------------------------------------------------------------------


def renderable(comparison: Comparison) -> RenderableType:
    """Three tables for rich, none wider than 100 characters: quality, cost, differences from the baseline."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    front = {point.name for point in pareto_front(points(comparison))}
    best = max(comparison.rows, key=lambda row: row.outcome.measured.means[comparison.measures[0]]).name
    parts: list[RenderableType] = [Text(headline(comparison), style="bold")]
    quality = _table("quality", [*comparison.measures, "ceiling"])
    for row in comparison.rows:
        quality.add_row(Text(row.name, style="bold" if row.name == best else ""), *quality_cells(comparison, row))
    cost = _table("cost; * nothing else is as good for less", COSTS)
    for row in comparison.rows:
        cost.add_row(f"{row.name} *" if row.name in front else row.name, *cost_cells(row))
    differences = _table(f"minus {comparison.baseline}, query by query", _difference_header(comparison))
    for row in comparison.rows:
        if row.difference is not None:
            differences.add_row(row.name, *difference_cells(row), style=_style(row))
    parts += [quality, cost, differences]
    parts += [Padding(Text(remark, style="dim"), (0, 0)) for remark in remarks(comparison)]
    return Group(*parts)


def _style(row: Row) -> str:
    if row.difference is None or not row.difference.significant:
        return ""
    return "green" if row.difference.mean > 0 else "red"


def _table(title: str, header: Sequence[str]) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(title=Text(title), title_justify="left", title_style="", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    made.add_column("", no_wrap=True)
    for name in header:
        made.add_column(Text(name), justify="right", no_wrap=True)
    return made


# -- for programs --------------------------------------------------------------------------------------------------------


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Every figure as a plain value, recipes as TOML, and each query's first measure."""
    experiment, front = comparison.experiment, {point.name for point in pareto_front(points(comparison))}
    return {
        "dataset": experiment.dataset,
        "split": experiment.split,
        "documents": experiment.documents,
        "passages": comparison.passages,
        "queries": experiment.queries,
        "judged_queries": comparison.judged,
        "measure": comparison.measures[0],
        "baseline": comparison.baseline,
        "machine": dict(comparison.machine),
        "rows": [
            {
                "name": row.name,
                "measures": row.outcome.measured.means,
                "ceiling": row.ceiling,
                "index_seconds": row.seconds,
                "bytes_per_passage": row.size,
                "milliseconds": {f"p{share}": row.outcome.percentile(share) for share in (50, 95, 99)},
                "queries_per_second": row.queries_a_second,
                "memory_mb": row.memory,
                "on_front": row.name in front,
                "difference": None if row.difference is None else paired_as_json(row.difference),
                "per_query": row.outcome.measured.by_query[comparison.measures[0]],
                "recipe": row.recipe.to_toml(),
            }
            for row in comparison.rows
        ],
        "notes": list(experiment.notes),
        "left_out": list(comparison.left_out),
    }


# -- the page ------------------------------------------------------------------------------------------------------------


def points(comparison: Comparison) -> list[Point]:
    """Quality against the 95th percentile of a query's time."""
    measure = comparison.measures[0]
    return [Point(row.name, row.outcome.percentile(95), row.outcome.measured.means[measure]) for row in comparison.rows]


def page(comparison: Comparison, command: str = "") -> str:
    """The whole report; `command` is the line that made it."""
    measure = comparison.measures[0]
    title = f"twinrank compare: {comparison.experiment.dataset}"
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{escape(headline(comparison))}</p>',
        f"<p>{escape(summary(comparison))}</p>",
        f"<h2>{escape(measure)} against time</h2>",
        '<p class="soft">Each point is an architecture. Grey ones are dominated: another is as good for less time. '
        "The line is the best to be had for so much time.</p>",
        pareto_plot(points(comparison), quality=measure),
        f"<h2>Quality</h2>{_quality_table(comparison)}",
        f"<h2>Cost</h2>{_cost_table(comparison)}",
        f"<h2>Differences from {escape(comparison.baseline)}</h2>{_difference_table(comparison)}",
        f"<h2>Queries helped and harmed</h2>{_histograms(comparison)}",
        f"<h2>Remarks</h2>{''.join(f'<p class=soft>{escape(remark)}.</p>' for remark in remarks(comparison))}",
        f"<h2>Machine</h2>{facts(comparison.machine.items())}",
        f"<h2>To repeat it</h2>{_repeat(comparison, command)}",
    ]
    return document(title, "\n".join(body))


def summary(comparison: Comparison) -> str:
    """The answer in a sentence or two."""
    measure = comparison.measures[0]
    best = max(comparison.rows, key=lambda row: row.outcome.measured.means[measure])
    text = f"Best by {measure}: {best.name}, {best.outcome.measured.means[measure]:.4f}"
    text += f" at a p95 of {_milliseconds(best.outcome.percentile(95))} ms"
    if best.difference is not None:
        verdict = best.difference.verdict
        text += f"; {verdict} than {comparison.baseline}" if verdict == "better" else f"; from {comparison.baseline}: {verdict}"
        if best.difference.low is not None:
            text += f", by {best.difference.mean:+.4f} {interval(best.difference)}"
    return f"{text}."


def _quality_table(comparison: Comparison) -> str:
    cells = [quality_cells(comparison, row) for row in comparison.rows]
    best = [max(float(text) for text in column) for column in zip(*cells, strict=True)]
    rows = [
        (row.name, [Cell(text, "best" if float(text) == most else "") for text, most in zip(of, best, strict=True)])
        for row, of in zip(comparison.rows, cells, strict=True)
    ]
    return table(["architecture", *comparison.measures, "ceiling"], rows)


def _cost_table(comparison: Comparison) -> str:
    rows = [(row.name, [Cell(text) for text in cost_cells(row)]) for row in comparison.rows]
    return table(["architecture", *COSTS], rows, f"{WHAT_COSTS_ARE}.")


def _difference_table(comparison: Comparison) -> str:
    rows = []
    for row in comparison.rows:
        if row.difference is not None:
            verdict = row.difference.verdict
            of = verdict if verdict in ("better", "worse") else ""
            rows.append(
                (
                    row.name,
                    [*(Cell(text, of if n == 0 else "") for n, text in enumerate(difference_cells(row))), Cell(verdict, of)],
                )
            )
    return table(["architecture", *_difference_header(comparison), "verdict"], rows)


def _histograms(comparison: Comparison) -> str:
    rows = [row for row in comparison.rows if row.difference is not None]
    differences = [comparison.per_query(row) for row in rows]
    highest = max((max(bin_counts(of)) for of in differences), default=1) or 1
    figures = "".join(
        f"<figure>{histogram(of, highest=highest)}<figcaption>{escape(row.name)}</figcaption></figure>"
        for row, of in zip(rows, differences, strict=True)
    )
    return (
        f'<p class="soft">{escape(comparison.measures[0])} minus {escape(comparison.baseline)}, from -1 to +1 in tenths, '
        f'all on one scale.</p>\n<div class="many">{figures}</div>'
    )


def _repeat(comparison: Comparison, command: str) -> str:
    told = f"<pre><code>{escape(command)}</code></pre>" if command else ""
    told += '<p class="soft">Or one row by itself, saved as row.toml: <code>twinrank eval DATA --recipe row.toml</code></p>'
    return told + "".join(folded(row.name, row.recipe.to_toml()) for row in comparison.rows)
