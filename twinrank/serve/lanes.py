"""Where blocking work is done: a few threads of a kind, a bounded queue before them, and refusals at once where it is full."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter
from typing import TypeVar

from twinrank.serve.refusals import overloaded

T = TypeVar("T")


class Lane:
    """`threads` that work and at most `queue` requests that wait for one; a request that finds no place is refused at once.

    A burst may fill the queue. Once it is full, though, more comes in than can be done, and a full queue would only make
    everybody wait: from then on `standing` requests may wait, enough to keep the threads busy, until a second passes in which
    few were refused. (After Nichols and Jacobson 2012, Controlling Queue Delay: a queue is for bursts, not for standing in.)

    Everything but the work itself runs on the event loop, so that counting needs no lock.
    """

    WINDOW = 1.0
    """Seconds over which refusals are counted."""
    FEW = 0.25
    """Of those that came: below that the load is not above what can be done by much, and the queue takes bursts again."""

    def __init__(self, name: str, threads: int, queue: int, wait: float, standing: int | None = None) -> None:
        self.name = name
        self.threads = threads
        self.queue = queue
        self.wait = wait
        """Seconds in the queue after which a request is refused after all."""
        self.standing = min(queue, threads if standing is None else standing)
        self.inside = 0
        self.refused = 0
        self.overloaded = False
        self._window = _Window()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"twinrank-{name}")

    @property
    def waiting(self) -> int:
        return max(0, self.inside - self.threads)

    @property
    def limit(self) -> int:
        """Requests that may wait now."""
        return self.standing if self.overloaded else self.queue

    def admit(self) -> None:
        """Raise the refusal, before any of the work is done, where no place is free."""
        self._look_at_the_clock()
        self._window.came += 1
        self._require_room()

    async def run(self, work: Callable[[], T]) -> T:
        self._require_room()  # others may have come since it was admitted
        self.inside += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._in_time, perf_counter(), work)
        finally:
            self.inside -= 1

    def _require_room(self) -> None:
        if self.waiting < self.limit or self.inside < self.threads:
            return
        self.refused += 1
        self._window.refused += 1
        if not self.overloaded:
            self.overloaded, self._window = True, _Window()
        raise overloaded(f"the server is busy: {self.waiting} requests wait already; try again in a second")

    def _look_at_the_clock(self) -> None:
        window, age = self._window, perf_counter() - self._window.since
        if age < self.WINDOW:
            return
        if window.refused < self.FEW * window.came or age > 2 * self.WINDOW:
            self.overloaded = False
        self._window = _Window()

    def _in_time(self, since: float, work: Callable[[], T]) -> T:
        if perf_counter() - since > self.wait:
            raise overloaded(f"the server is busy: the request waited {self.wait:g} seconds for its turn; try again later")
        return work()

    def close(self) -> None:
        """Wait for what is being done; what is still queued is left."""
        self._pool.shutdown(wait=True, cancel_futures=True)


@dataclass
class _Window:
    """What came within a second."""

    since: float = field(default_factory=perf_counter)
    came: int = 0
    refused: int = 0
