"""A bounded queue: what finds no place is refused at once, bursts are taken, a standing queue is cut, waiting is bounded."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi.testclient import TestClient

from twinrank import Collection
from twinrank.serve.lanes import Lane
from twinrank.serve.refusals import Refusal

Opening = Callable[..., Collection]
Serving = Callable[..., TestClient]


async def fill(lane: Lane, count: int, hold: threading.Event) -> list[asyncio.Task[bool]]:
    tasks = [asyncio.ensure_future(lane.run(lambda: hold.wait(10))) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


def run(test: Callable[[Lane, threading.Event], Any], lane: Lane) -> None:
    hold = threading.Event()
    try:
        asyncio.run(test(lane, hold))
    finally:
        hold.set()
        lane.close()


def test_threads_and_queue_are_filled_and_the_next_is_refused_at_once() -> None:
    async def test(lane: Lane, hold: threading.Event) -> None:
        tasks = await fill(lane, 5, hold)
        assert (lane.inside, lane.waiting) == (5, 3)
        started = time.perf_counter()
        with pytest.raises(Refusal) as refused:
            await lane.run(lambda: None)
        assert time.perf_counter() - started < 0.1
        assert refused.value.status_code == 503
        assert (refused.value.headers or {})["Retry-After"] == "1"
        hold.set()
        assert await asyncio.gather(*tasks) == [True] * 5
        assert (lane.inside, lane.refused) == (0, 1)

    run(test, Lane("test", 2, 3, 10.0))


def test_a_queue_that_was_full_takes_few_until_few_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lane, "WINDOW", 0.2)

    async def test(lane: Lane, hold: threading.Event) -> None:
        tasks = await fill(lane, 11, hold)  # a burst is taken whole
        assert lane.limit == 10
        with pytest.raises(Refusal):
            lane.admit()
        assert lane.limit == 1  # no more come in, and those that wait are done
        hold.set()
        assert await asyncio.gather(*tasks) == [True] * 11
        hold.clear()
        tasks = await fill(lane, 2, hold)
        for _ in range(3):  # still more comes than can be done
            await asyncio.sleep(0.1)
            with pytest.raises(Refusal):
                lane.admit()
        assert lane.limit == 1
        hold.set()
        await asyncio.gather(*tasks)
        for _ in range(6):  # nobody is refused any more
            await asyncio.sleep(0.08)
            lane.admit()
        assert lane.limit == 10

    run(test, Lane("test", 1, 10, 10.0))


def test_after_a_quiet_while_bursts_are_taken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lane, "WINDOW", 0.05)

    async def test(lane: Lane, hold: threading.Event) -> None:
        tasks = await fill(lane, 2, hold)
        with pytest.raises(Refusal):
            lane.admit()
        hold.set()
        await asyncio.gather(*tasks)
        await asyncio.sleep(0.15)
        lane.admit()
        assert not lane.overloaded

    run(test, Lane("test", 1, 1, 10.0))


def test_what_waited_too_long_is_refused_rather_than_done() -> None:
    async def test(lane: Lane, hold: threading.Event) -> None:
        done = []
        (first,) = await fill(lane, 1, hold)
        second = asyncio.ensure_future(lane.run(lambda: done.append("second")))
        await asyncio.sleep(0.1)
        hold.set()
        assert await first
        with pytest.raises(Refusal, match="waited"):
            await second
        assert not done

    run(test, Lane("test", 1, 5, 0.05))


def test_an_error_frees_its_place() -> None:
    async def test(lane: Lane, _: threading.Event) -> None:
        def fail() -> None:
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            await lane.run(fail)
        assert lane.inside == 0

    run(test, Lane("test", 1, 0, 1.0))


def test_overload_is_answered_at_once_and_what_was_admitted_is_done(opened: Opening, served: Serving) -> None:
    collection = opened(words=True)
    client = served(collection, threads=2, queue=2)
    search, hold = collection.search, threading.Event()

    def slow(*arguments: Any, **options: Any) -> Any:
        assert hold.wait(10)
        return search(*arguments, **options)

    collection.search = slow  # type: ignore[method-assign]
    with ThreadPoolExecutor(8) as pool:
        lane = client.app.state.twinrank.lanes["search"]  # type: ignore[attr-defined]
        admitted = []
        for count in range(1, 5):
            admitted.append(pool.submit(client.post, "/search", json={"query": "zinc"}))
            while lane.inside < count:
                time.sleep(0.001)
        started = time.perf_counter()
        refused = [client.post("/search", json={"query": "zinc"}) for _ in range(3)]
        assert time.perf_counter() - started < 1
        assert {answer.status_code for answer in refused} == {503}
        assert all(answer.headers["retry-after"] == "1" for answer in refused)
        assert refused[0].json()["error"]["type"] == "overloaded_error"
        assert client.get("/health").status_code == 200
        assert client.get("/metrics").status_code == 200
        hold.set()
        assert [future.result().status_code for future in admitted] == [200] * 4
    assert client.post("/search", json={"query": "zinc"}).status_code == 200
