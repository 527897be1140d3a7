"""The planner scans where few pass, over-fetches where many do, and does not believe an over-fetch that came back short."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from twinrank.index.planner import Plan, plan, plan_again


@dataclass
class Walk:
    """An approximate index whose search costs ten rows for each of the nearest that it fetches."""

    filters: bool = True

    def breadth(self, depth: int) -> int:
        return max(32, depth)

    def cost(self, breadth: int) -> float:
        return 10.0 * breadth


MILLION = 1_000_000


def test_without_an_approximate_index_everything_is_scanned() -> None:
    assert plan(10, MILLION, MILLION, None) == Plan("scan", MILLION, MILLION)
    assert plan(10, 5, MILLION, None) == Plan("scan", 5, MILLION)


def test_a_search_without_a_filter_takes_the_approximate_index_where_that_pays() -> None:
    assert plan(10, MILLION, MILLION, Walk()) == Plan("graph", MILLION, MILLION, 10)
    assert plan(10, 200, 200, Walk()).how == "scan"
    assert plan(MILLION, MILLION, MILLION, Walk()).how == "scan"
    assert plan(2 * MILLION, MILLION, MILLION, Walk()).how == "scan"


@pytest.mark.parametrize(
    ("passing", "how"),
    [(0, "scan"), (1, "scan"), (1000, "scan"), (10_000, "scan"), (100_000, "over-fetch"), (500_000, "over-fetch")],
)
def test_a_filter_that_lets_few_pass_is_a_scan_of_these(passing: int, how: str) -> None:
    assert plan(10, passing, MILLION, Walk()).how == how


def test_an_over_fetch_asks_for_more_the_less_passes() -> None:
    half, tenth = plan(10, MILLION // 2, MILLION, Walk()), plan(10, MILLION // 10, MILLION, Walk())
    assert half.depth == 43  # 1.3 · (10 + 2·√10) · 2
    assert tenth.depth == 213


def test_an_over_fetch_that_found_enough_is_the_answer() -> None:
    first = Plan("over-fetch", 500_000, MILLION, 43)
    assert plan_again(10, first, 10, Walk()) is None
    assert plan_again(10, first, 43, Walk()) is None


def test_where_little_passes_near_the_query_the_walk_goes_farther() -> None:
    first = Plan("over-fetch", 500_000, MILLION, 43)
    assert plan_again(10, first, 5, Walk()) == Plan("filtered graph", 500_000, MILLION, 172)  # 2 · 10 · 43 / 5


@pytest.mark.parametrize(("found", "walk"), [(0, Walk()), (4, Walk()), (9, Walk(filters=False))])
def test_where_next_to_nothing_passes_near_the_query_what_passes_is_scanned(found: int, walk: Walk) -> None:
    first = Plan("over-fetch", 500_000, MILLION, 43)
    assert plan_again(10, first, found, walk) == Plan("scan", 500_000, MILLION)


def test_a_plan_says_what_it_is() -> None:
    assert str(Plan("scan", 1000, MILLION)) == "exact scan of what passes; 1,000 of 1,000,000 passages pass (0.1 %)"
    assert str(Plan("scan", 500, 500)) == "exact scan of all 500"
    assert str(Plan("graph", MILLION, MILLION, 10)) == "search of the approximate index, 10 nearest"
    assert str(Plan("filtered graph", 500_000, MILLION, 172)).startswith(
        "filtered search of the approximate index, 172 deep; 500,000"
    )
