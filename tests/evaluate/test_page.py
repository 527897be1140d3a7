"""The page: what is on the front, where labels stand, what is drawn; and that nothing given to it can run or be fetched."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinrank.evaluate.page import (
    BINS,
    Cell,
    Point,
    bin_counts,
    document,
    facts,
    folded,
    histogram,
    pareto_front,
    pareto_plot,
    place_labels,
    table,
)

EVIL = "<script>alert('&\"')</script>"
POINTS = [
    Point("words", 1.2, 0.684),
    Point("CLS", 9.0, 0.41),
    Point("mean", 9.1, 0.652),
    Point("hybrid", 10.4, 0.733),
    Point("reranked", 1800.0, 0.72),
    Point("cascade", 620.0, 0.756),
]

some_points = st.lists(st.builds(Point, st.just("p"), st.floats(0.01, 1e5), st.floats(0, 1)), min_size=1, max_size=12)


def drawings(html: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL)]


def test_the_front_holds_what_no_other_beats() -> None:
    assert [point.name for point in pareto_front(POINTS)] == ["words", "hybrid", "cascade"]
    assert pareto_front([]) == []


def test_of_two_as_good_the_cheaper_one_is_on_the_front_and_equals_both_are() -> None:
    assert [p.name for p in pareto_front([Point("dear", 2, 0.5), Point("cheap", 1, 0.5)])] == ["cheap"]
    assert [p.name for p in pareto_front([Point("worse", 1, 0.4), Point("better", 1, 0.5)])] == ["better"]
    assert [p.name for p in pareto_front([Point("one", 1, 0.5), Point("other", 1, 0.5)])] == ["one", "other"]


@given(some_points)
def test_a_point_is_on_the_front_exactly_where_none_dominates_it(points: list[Point]) -> None:
    def beats(a: Point, b: Point) -> bool:
        return a.cost <= b.cost and a.quality >= b.quality and (a.cost, a.quality) != (b.cost, b.quality)

    front = pareto_front(points)
    for point in points:
        assert (point in front) == (not any(beats(other, point) for other in points))


@given(some_points)
def test_any_points_can_be_plotted_and_stand_within_the_frame(points: list[Point]) -> None:
    wide, narrow = drawings(pareto_plot(points))
    for svg in (wide, narrow):
        width, height = float(svg.attrib["width"]), float(svg.attrib["height"])
        circles = svg.findall("circle")
        assert len(circles) == len(points)
        for circle in circles:
            assert 40 < float(circle.attrib["cx"]) < width - 10
            assert 20 < float(circle.attrib["cy"]) < height - 40


def test_dominated_points_are_greyed_and_the_figures_stand_as_text() -> None:
    plot = pareto_plot(POINTS)
    wide = drawings(plot)[0]
    assert [circle.attrib["class"] for circle in wide.findall("circle")] == [
        "front", "behind", "behind", "front", "behind", "front",
    ]  # fmt: skip
    assert "words: nDCG@10 0.6840, p95 ms 1.2<" in plot
    assert plot.count("(dominated)") == 3


def test_a_dearer_point_stands_farther_right_and_a_better_one_higher() -> None:
    wide = drawings(pareto_plot(POINTS))[0]
    places = [(float(circle.attrib["cx"]), float(circle.attrib["cy"])) for circle in wide.findall("circle")]
    assert sorted(range(6), key=lambda i: places[i][0]) == sorted(range(6), key=lambda i: POINTS[i].cost)
    assert sorted(range(6), key=lambda i: -places[i][1]) == sorted(range(6), key=lambda i: POINTS[i].quality)


@pytest.mark.parametrize("points", [[Point("a", 0.0, 0.0)], [Point("a", 5, 0.5)] * 3, [Point("a", 0, 1), Point("b", 9, 1)]])
def test_costs_of_zero_equal_points_and_a_single_one_are_drawn(points: list[Point]) -> None:
    assert len(drawings(pareto_plot(points))) == 2


def test_nothing_to_plot_is_no_plot() -> None:
    assert pareto_plot([]) == ""


def test_labels_cover_neither_each_other_nor_points() -> None:
    places = [(100.0 + 4 * n, 100.0 + 3 * n) for n in range(8)]
    labels = [f"{n} late interaction, candidates" for n in range(8)]
    boxes = place_labels(places, labels, (46, 26, 886, 386))
    for number, box in enumerate(boxes):
        assert box.x >= 46
        assert box.x + box.width <= 886
        assert not any(box.covers(other) for other in boxes[:number])


def test_differences_fall_into_tenths_that_mirror_each_other() -> None:
    counts = bin_counts([0.1, -0.1, 0.05, -0.05, 1.0, -1.0, 0.0])
    assert counts == counts[::-1]
    assert (counts[0], counts[BINS // 2], sum(counts)) == (1, 2, 6)


@given(st.lists(st.floats(-1, 1).filter(lambda value: value == 0 or abs(value) > 1e-9)))
def test_every_query_is_counted_once(differences: list[float]) -> None:
    counts = bin_counts(differences)
    assert sum(counts[: BINS // 2]) == sum(value < 0 for value in differences)
    assert sum(counts[BINS // 2 :]) == sum(value > 0 for value in differences)
    [svg] = drawings(histogram(differences))
    texts = [text.text for text in svg.findall("text")]
    assert f"{sum(value == 0 for value in differences)} same" in texts


def test_histograms_can_share_a_scale() -> None:
    def tallest(svg: str) -> float:
        return max(float(bar.attrib["height"]) for bar in drawings(svg)[0].findall("rect"))

    assert tallest(histogram([0.5] * 10)) == 70
    assert tallest(histogram([0.5] * 10, highest=40)) == pytest.approx(17.5)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def test_what_is_given_is_shown_and_never_run_or_fetched() -> None:
    body = pareto_plot([Point(EVIL, 1, 0.5), Point("b", 2, 0.7)], cost=EVIL, quality=EVIL)
    body += table([EVIL], [(EVIL, [Cell(EVIL, "best")])], EVIL) + facts([(EVIL, EVIL)]) + folded(EVIL, EVIL)
    page = document(EVIL, body)
    tags = Tags()
    tags.feed(page)
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in tags.seen}
    for _, attributes in tags.seen:
        assert not {"src", "href"} & set(attributes)
        assert not any(name.startswith("on") for name in attributes)
    assert "url(" not in page
    assert "@import" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert "&lt;script&gt;alert(" in page
