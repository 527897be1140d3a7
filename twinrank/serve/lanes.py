"""Where blocking work is done: a few threads of a kind, a bounded queue before them, and refusals at once where it is full."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import TypeVar

from twinrank.serve.refusals import overloaded

T = TypeVar("T")


class Lane:
    """`threads` that work and at most `queue` requests that wait for one; a request that finds no place is refused at once.

    A burst may fill the queue. Where it never runs empty for `PATIENCE` seconds, though, more comes in than can be done: then
    waiting helps nobody, and only as many may wait as keep the threads busy, until nobody was refused for `CALM` seconds.
    (After Nichols and Jacobson 2012, Controlling Queue Delay, and Maurer 2015, Fail at Scale.)

    Everything but the work itself runs on the event loop, so that counting needs no lock.
    """

    PATIENCE = 0.2
    CALM = 1.0

    def __init__(self, name: str, threads: int, queue: int, wait: float, standing: int | None = None) -> None:
        self.name = name
        self.threads = threads
        self.queue = queue
        self.wait = wait
        """Seconds in the queue after which a request is refused after all."""
        self.standing = threads if standing is None else standing
        """Requests that may wait while more comes in than can be done."""
        self.inside = 0
        self.refused = 0
        self._busy_since: float | None = None
        self._refused_at = float("-inf")
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"twinrank-{name}")

    @property
    def waiting(self) -> int:
        return max(0, self.inside - self.threads)

    @property
    def limit(self) -> int:
        """Requests that may wait now."""
        now = perf_counter()
        standing = self._busy_since is not None and now - self._busy_since > self.PATIENCE
        return min(self.standing, self.queue) if standing or now - self._refused_at < self.CALM else self.queue

    def require_room(self) -> None:
        """Raise the refusal, before any of the work is done, where no place is free."""
        if self.inside >= self.threads + self.limit:
            self.refused += 1
            self._refused_at = perf_counter()
            raise overloaded(f"the server is busy: {self.waiting} requests wait already; try again in a second")

    async def run(self, work: Callable[[], T]) -> T:
        self.require_room()
        self._enter()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._in_time, perf_counter(), work)
        finally:
            self._leave()

    def _in_time(self, since: float, work: Callable[[], T]) -> T:
        if perf_counter() - since > self.wait:
            raise overloaded(f"the server is busy: the request waited {self.wait:g} seconds for its turn; try again later")
        return work()

    def _enter(self) -> None:
        self.inside += 1
        if self.inside > self.threads and self._busy_since is None:
            self._busy_since = perf_counter()

    def _leave(self) -> None:
        self.inside -= 1
        if self.inside <= self.threads:
            self._busy_since = None

    def close(self) -> None:
        """Wait for what is being done; what is still queued is left."""
        self._pool.shutdown(wait=True, cancel_futures=True)
