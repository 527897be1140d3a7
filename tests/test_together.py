"""Calls that are made together give what they would give alone; an error stays with who caused it; nobody is left waiting."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinrank.together import Together


def squares(numbers: Sequence[int]) -> list[int]:
    if 13 in numbers:
        raise ValueError("thirteen")
    return [number * number for number in numbers]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 12), max_size=12), max_size=12), st.integers(1, 30))
def test_whoever_asks_at_the_same_time_gets_what_they_would_get_alone(asked: list[list[int]], most: int) -> None:
    together = Together(squares, size=lambda number: number, most=most)
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(together, asked)) == [squares(numbers) for numbers in asked]


def ask_at_once(together: Together[int, int], asked: list[list[int]], hold: threading.Event) -> list[object]:
    """Each list by a thread of its own, all of them waiting behind a call that `hold` ends."""

    def ask(numbers: list[int]) -> object:
        try:
            return together(numbers)
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor(len(asked)) as pool:
        futures = [pool.submit(ask, asked[0])]
        while not together._led:
            pass
        futures += [pool.submit(ask, numbers) for numbers in asked[1:]]
        while len(together._waiting) < len(asked) - 1:
            pass
        hold.set()
        return [future.result(timeout=10) for future in futures]


def held(hold: threading.Event, calls: list[int], most: int = 100) -> Together[int, int]:
    def run(numbers: Sequence[int]) -> list[int]:
        calls.append(len(numbers))
        assert hold.wait(10)
        return squares(numbers)

    return Together(run, size=lambda number: 1, most=most)


def test_what_comes_during_a_call_goes_into_the_next_one() -> None:
    hold, calls = threading.Event(), list[int]()
    assert ask_at_once(held(hold, calls), [[1], [2], [3, 4], [5]], hold) == [[1], [4], [9, 16], [25]]
    assert calls == [1, 4]


def test_a_call_holds_at_most_so_much() -> None:
    hold, calls = threading.Event(), list[int]()
    ask_at_once(held(hold, calls, most=2), [[1], [2], [3], [4], [5], [6]], hold)
    assert calls == [1, 2, 2, 1]


def test_who_asks_for_much_lets_others_in_between() -> None:
    hold, calls = threading.Event(), list[int]()
    order: list[object] = []
    together = held(hold, calls, most=2)

    def ask(numbers: list[int]) -> None:
        order.append(together(numbers))

    with ThreadPoolExecutor(2) as pool:
        pool.submit(ask, [1, 2, 3, 4, 5, 6, 7, 8])
        while not together._led:
            pass
        pool.submit(ask, [9])
        while not together._waiting:
            pass
        hold.set()
    assert order[0] == [81]


def test_an_error_is_told_to_who_caused_it_alone() -> None:
    hold, calls = threading.Event(), list[int]()
    assert ask_at_once(held(hold, calls), [[1], [2], [13], [4]], hold) == [[1], [4], "thirteen", [16]]
    together = Together(squares, size=lambda number: 1)
    with pytest.raises(ValueError, match="thirteen"):
        together([13])
    assert together([3]) == [9]


def test_nothing_asked_is_nothing_called() -> None:
    together = Together(squares, size=lambda number: 1)
    assert together([]) == []
    assert together.calls == 0
