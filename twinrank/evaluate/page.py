"""A report as one HTML page that asks nobody for anything: its frame, its style, and the plots, drawn as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import NamedTuple

STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1b1f24; --soft: #59636e; --line: #d7dce1; --panel: #f5f7f9;
  --front: #0b62c4; --behind: #a3abb4; --helped: #13795b; --harmed: #b3401e; --same: #8b949e; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --ink: #e8ebee; --soft: #a0a9b2; --line: #343a41;
  --panel: #1c2025; --front: #6bb0ff; --behind: #666f79; --helped: #4fc79a; --harmed: #ff8f66; --same: #7d8791; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.5;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.25rem 0 .5rem; }
p { margin: .4rem 0; max-width: 46rem; } .soft, figcaption, caption { color: var(--soft); font-size: .9rem; }
figure { margin: .5rem 0; } svg { display: block; max-width: 100%; height: auto; }
svg text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; fill: var(--ink); }
svg text { paint-order: stroke; stroke: var(--paper); stroke-width: 4px; stroke-linejoin: round; }
svg .tick { fill: var(--soft); } svg .grid { stroke: var(--line); } svg .axis { stroke: var(--soft); }
svg .front { fill: var(--front); } svg .behind { fill: var(--behind); } svg text.behind { fill: var(--soft); }
svg text.front { font-weight: 600; fill: var(--ink); }
svg .steps { fill: none; stroke: var(--front); stroke-width: 1.5; opacity: .55; }
svg .leader { stroke: var(--soft); stroke-width: .75; }
svg .helped { fill: var(--helped); } svg .harmed { fill: var(--harmed); }
.narrow { display: none; } @media (max-width: 700px) { .wide { display: none; } .narrow { display: block; } }
.scroll { overflow-x: auto; margin: .5rem 0; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .6rem; text-align: right; white-space: nowrap; border-top: 1px solid var(--line); }
thead th { border-top: 0; color: var(--soft); font-weight: 600; background: var(--panel); }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--panel);
  white-space: normal; min-width: 7.5rem; }
tbody th { font-weight: 500; } td.best { font-weight: 700; }
td.better { color: var(--helped); } td.worse { color: var(--harmed); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: .5rem 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 700px) { dl { grid-template-columns: 1fr; } dd { margin-bottom: .4rem; } }
.many { display: grid; grid-template-columns: repeat(auto-fill, minmax(270px, 1fr)); gap: 1rem; }
ol.points { columns: 2; padding-left: 1.5rem; font-size: .9rem; } @media (max-width: 700px) { ol.points { columns: 1; }
  th, td { padding: .3rem .4rem; } table { font-size: .84rem; } th:first-child { min-width: 6.6rem; } }
details { border: 1px solid var(--line); border-radius: 6px; margin: .4rem 0; }
summary { padding: .4rem .7rem; cursor: pointer; }
pre { margin: 0; padding: .6rem .8rem; overflow-x: auto; background: var(--panel); font-size: .82rem; line-height: 1.4; }
code { font-family: ui-monospace, "SF Mono", Menlo, "DejaVu Sans Mono", monospace; }
@media print { .scroll { overflow: visible; border: 0; } details > * { display: block; } }
"""

CHARACTER = 6.9
"""Width of a letter of the plots' labels, roughly and on the large side."""


@dataclass(frozen=True)
class Point:
    """One pipeline in the plot of quality against cost."""

    name: str
    cost: float
    quality: float


def document(title: str, body: str) -> str:
    """A whole page. `body` is HTML; whoever makes it escapes what it shows. Nothing is loaded from anywhere, or run."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


# -- the front -----------------------------------------------------------------------------------------------------------


def pareto_front(points: Iterable[Point]) -> list[Point]:
    """The points that no other one beats: none is at least as good for less, or better for as much. Cheapest first.

    >>> [point.name for point in pareto_front([Point("a", 1, 0.5), Point("b", 2, 0.4), Point("c", 3, 0.7)])]
    ['a', 'c']
    """
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (point.cost, -point.quality)):
        if not front or point.quality > front[-1].quality or _same(point, front[-1]):
            front.append(point)
    return front


def _same(a: Point, b: Point) -> bool:
    return (a.cost, a.quality) == (b.cost, b.quality)


def pareto_plot(points: Sequence[Point], *, cost: str = "p95 ms", quality: str = "nDCG@10") -> str:
    """Quality against cost as SVG, for wide and for narrow screens; what is dominated is greyed, the front joined by steps.

    On wide screens points bear their names, on narrow ones their numbers, which the list below it explains in figures. The
    page needs STYLE; `document` brings it.
    """
    if not points:
        return ""
    front = pareto_front(points)
    listed = "".join(
        f"<li>{escape(point.name)}: {escape(quality)} {point.quality:.4f}, {escape(cost)} {_short(point.cost)}"
        f"{'' if point in front else ' <span class=soft>(dominated)</span>'}</li>"
        for point in points
    )
    names = [f"{number} {point.name}" for number, point in enumerate(points, start=1)]
    numbers = [str(number) for number in range(1, len(points) + 1)]
    return (
        f"<figure>{_pareto_svg(points, front, names, 900, 430, cost, quality, 'wide')}"
        f"{_pareto_svg(points, front, numbers, 340, 320, cost, quality, 'narrow')}"
        f'<ol class="points">{listed}</ol></figure>'
    )


class Scale(NamedTuple):
    """From values to places on the screen."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (math.log(v) if self.logarithmic else v for v in (self.low, self.high, value))
        return self.start + (at - low) / (high - low) * (self.end - self.start)


def _pareto_svg(
    points: Sequence[Point],
    front: Sequence[Point],
    labels: Sequence[str],
    width: int,
    height: int,
    cost: str,
    quality: str,
    kind: str,
) -> str:
    left, right, top, bottom = 46, width - 14, 26, height - 44
    x_ticks, x_scale = _cost_axis([point.cost for point in points], left + 16, right - 16)
    y_ticks, y_scale = _quality_axis([point.quality for point in points], bottom, top)
    parts = [
        f'<svg class="{kind}" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{escape(quality)} against {escape(cost)}; the figures are in the list below">'
    ]
    for value in y_ticks:
        y = y_scale(value)
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{_tick(value)}</text>')
    for value in x_ticks:
        x = x_scale(value)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{_short(value)}</text>')
    parts.append(f'<line class="axis" x1="{left}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    scale = ", logarithmic" if x_scale.logarithmic else ""
    parts.append(f'<text class="tick" x="{right}" y="{bottom + 34}" text-anchor="end">{escape(cost)}{scale} →</text>')
    parts.append(f'<text class="tick" x="{left - 40}" y="{top - 12}">↑ {escape(quality)}</text>')
    places = [(x_scale(point.cost), y_scale(point.quality)) for point in points]
    parts.append(_steps([places[points.index(point)] for point in front], right))
    classes = ["front" if point in front else "behind" for point in points]
    boxes = place_labels(places, labels, (left, top, right, bottom))
    for (x, y), box, of in zip(places, boxes, classes, strict=True):
        if box.far:
            parts.append(f'<line class="leader" x1="{x:.1f}" y1="{y:.1f}" x2="{box.middle:.1f}" y2="{box.y + 7:.1f}"/>')
        parts.append(f'<circle class="{of}" cx="{x:.1f}" cy="{y:.1f}" r="5.5"/>')
    for box, label, of in zip(boxes, labels, classes, strict=True):
        parts.append(f'<text class="{of}" x="{box.x + 2:.1f}" y="{box.y + 12:.1f}">{escape(label)}</text>')
    return "".join([*parts, "</svg>"])


def _steps(places: Sequence[tuple[float, float]], right: float) -> str:
    """What can be had for so much: it rises where the next point of the front is paid for."""
    path = f"M{places[0][0]:.1f} {places[0][1]:.1f}"
    for x, y in places[1:]:
        path += f"H{x:.1f}V{y:.1f}"
    return f'<path class="steps" d="{path}H{right:.1f}"/>'


class Box(NamedTuple):
    """Where a label stands."""

    x: float
    y: float
    width: float
    far: bool
    """So far from its point that a line has to lead there."""

    @property
    def middle(self) -> float:
        return self.x + self.width / 2

    def covers(self, other: Box) -> bool:
        apart = self.x + self.width < other.x or other.x + other.width < self.x or abs(self.y - other.y) > 15
        return not apart


def place_labels(
    places: Sequence[tuple[float, float]], labels: Sequence[str], frame: tuple[float, float, float, float]
) -> list[Box]:
    """A box for every label, beside its point where that is free, else ever farther away; none covers another or a point."""
    left, top, right, bottom = frame
    taken = [Box(x - 7, y - 8, 14, False) for x, y in places]
    found = []
    for number, ((x, y), label) in enumerate(zip(places, labels, strict=True)):
        width = 4 + CHARACTER * len(label)
        spots = [Box(x + 9, y - 8, width, False), Box(x - 9 - width, y - 8, width, False)]
        spots += [Box(x - width / 2, y - 25, width, False), Box(x - width / 2, y + 9, width, False)]
        for distance in range(20, 200, 12):
            for across in (12, -12 - width, -width / 2):
                spots += [Box(x + across, y + distance, width, True), Box(x + across, y - 16 - distance, width, True)]
        within = [spot for spot in spots if left <= spot.x and spot.x + width <= right and top - 8 <= spot.y <= bottom - 15]
        others = [box for place, box in enumerate(taken) if place != number]
        free = [spot for spot in within if not any(spot.covers(box) for box in others)]
        best = next(iter(free or within or spots))
        taken.append(best)
        found.append(best)
    return found


def _cost_axis(values: Sequence[float], start: float, end: float) -> tuple[list[float], Scale]:
    """Logarithmic, with ticks at 1, 2 and 5 of each power of ten; costs of 0 stand at the left end of a linear one."""
    if min(values) <= 0:
        high = max(values) or 1.0
        return _nice(0.0, high), Scale(0.0, high, start, end)
    low, high = min(values) / 1.15, max(values) * 1.15
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**power for power in powers for step in (1, 2, 5) if low <= step * 10.0**power <= high]
    if len(ticks) > 7:
        ticks = [10.0**power for power in powers if low <= 10.0**power <= high]
    return ticks or [min(values)], Scale(low, high, start, end, logarithmic=True)


def _quality_axis(values: Sequence[float], start: float, end: float) -> tuple[list[float], Scale]:
    spread = max(max(values) - min(values), 0.02)
    low, high = max(0.0, min(values) - 0.15 * spread), max(values) + 0.15 * spread
    return _nice(low, high), Scale(low, high, start, end)


def _nice(low: float, high: float) -> list[float]:
    """Some five round values between two others."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * times for times in (1, 2, 5, 10) if power * times >= rough)
    first = math.ceil(low / step - 1e-9)
    return [round(step * number, 10) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _tick(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".") or "0"


def _short(value: float) -> str:
    """Three figures, no exponent.

    >>> [_short(value) for value in (0.123, 5.0, 12.34, 1234.5)]
    ['0.12', '5', '12.3', '1,234']
    """
    if value >= 100:
        return f"{value:,.0f}"
    return (f"{value:.1f}" if value >= 10 else f"{value:.2f}").rstrip("0").rstrip(".") or "0"


# -- differences ---------------------------------------------------------------------------------------------------------

BINS = 20
"""Between -1 and 1, a tenth wide; queries without a difference are told apart from small ones."""


def histogram(differences: Sequence[float], *, highest: int | None = None) -> str:
    """Queries by how much better or worse they are served, as SVG; those that stay the same are counted beside it.

    `highest` is the bar that fills the height, for several histograms on one scale.
    """
    counts = bin_counts(differences)
    highest = highest or max([*counts, 1])
    width, height, left, base = 270, 118, 6, 94
    each = (width - 2 * left) / BINS
    parts = [f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-label="{_told(counts)}">']
    for number, count in enumerate(counts):
        tall = 70 * count / highest
        x, of = left + each * number, "harmed" if number < BINS // 2 else "helped"
        if count:
            parts.append(
                f'<rect class="{of}" x="{x + 0.75:.1f}" y="{base - tall:.1f}" width="{each - 1.5:.1f}" height="{tall:.1f}">'
                f"<title>{_range(number)}: {count}</title></rect>"
            )
    harmed, helped = sum(counts[: BINS // 2]), sum(counts[BINS // 2 :])
    middle = width / 2
    parts.append(f'<line class="axis" x1="{left}" x2="{width - left}" y1="{base}" y2="{base}"/>')
    parts.append(f'<line class="axis" x1="{middle}" x2="{middle}" y1="18" y2="{base}" stroke-dasharray="2 3"/>')
    parts.append(f'<text x="{left}" y="13">{harmed} harmed</text>')
    parts.append(
        f'<text x="{middle}" y="13" text-anchor="middle" class="tick">{len(differences) - harmed - helped} same</text>'
    )
    parts.append(f'<text x="{width - left}" y="13" text-anchor="end">{helped} helped</text>')
    for value, at, anchor in (("-1", left, "start"), ("0", middle, "middle"), ("+1", width - left, "end")):
        parts.append(f'<text class="tick" x="{at}" y="{base + 16}" text-anchor="{anchor}">{value}</text>')
    return "".join([*parts, "</svg>"])


def bin_counts(differences: Iterable[float]) -> list[int]:
    """How many differences lie in each tenth from -1 to 1; zeros in none.

    >>> bin_counts([-1.0, -0.05, 0.0, 0.05, 0.1, 1.0])[9:12]
    [1, 2, 0]
    """
    counts = [0] * BINS
    for difference in differences:
        if abs(difference) >= 1e-12:
            # A difference on a border belongs to the smaller one, so that -0.1 and 0.1 stand as mirror images.
            steps = min(math.ceil(abs(difference) * BINS / 2 - 1e-9), BINS // 2)
            counts[BINS // 2 - 1 + steps if difference > 0 else BINS // 2 - steps] += 1
    return counts


def _range(number: int) -> str:
    low = (number - BINS // 2) / (BINS // 2)
    return f"{low:+.1f} to {low + 2 / BINS:+.1f}"


def _told(counts: Sequence[int]) -> str:
    return "; ".join(f"{_range(number)}: {count}" for number, count in enumerate(counts) if count) or "no differences"


# -- tables and lists ----------------------------------------------------------------------------------------------------


class Cell(NamedTuple):
    text: str
    of: str = ""
    """A class: best, better, worse."""


def table(header: Sequence[str], rows: Sequence[tuple[str, Sequence[Cell]]], caption: str = "") -> str:
    """A table whose first column stays in view on a narrow screen; all texts are escaped."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(
            f'<td class="{cell.of}">{escape(cell.text)}</td>' if cell.of else f"<td>{escape(cell.text)}</td>" for cell in cells
        )
        + "</tr>\n"
        for name, cells in rows
    )
    told = f'<p class="soft">{escape(caption)}</p>' if caption else ""
    return f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>{told}'


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and what they are, as a list."""
    return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(value)}</dd>' for name, value in pairs)}</dl>"


def folded(summary: str, code: str) -> str:
    """A piece of code that opens on a click."""
    return f"<details><summary>{escape(summary)}</summary><pre><code>{escape(code)}</code></pre></details>"
