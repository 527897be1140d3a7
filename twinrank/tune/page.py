"""A tuning → one HTML page with the plot of quality against time, the table and the recipes."""

from __future__ import annotations

from html import escape

from twinrank.evaluate.page import Point, document, folded, pareto_plot
from twinrank.tune.report import table
from twinrank.tune.space import describe
from twinrank.tune.tuning import Tuning


def page(tuning: Tuning) -> str:
    """The whole report; it loads nothing from anywhere."""
    title = f"twinrank tune: {tuning.dataset}, split {tuning.split}"
    recipes = "\n".join(folded(describe(row.recipe), row.recipe.to_toml()) for row in tuning.finalists)
    body = (
        f"<h1>{escape(title)}</h1>\n<p>Taken: {escape(describe(tuning.choice.recipe))}; {escape(tuning.choice.reason)}.</p>\n"
        f"<h2>Quality against time</h2>\n{plot(tuning)}\n"
        f"<h2>The figures</h2>\n<pre><code>{escape(table(tuning))}</code></pre>\n<h2>Recipes</h2>\n{recipes}"
    )
    return document(title, body)


def plot(tuning: Tuning) -> str:
    """Each finalist's nDCG@10 over its p95; the pick says so."""
    points = [
        Point(
            ("the pick: " if row.recipe == tuning.choice.recipe else "") + describe(row.recipe), row.measured.p95, row.quality
        )
        for row in tuning.finalists
    ]
    return pareto_plot(points)
