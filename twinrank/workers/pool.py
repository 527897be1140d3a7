"""Tasks to whichever worker is free: one that dies is replaced and its task done again, a bounded number is on the way."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import Protocol, TypeAlias

from twinrank.errors import TwinrankError, WorkersError
from twinrank.preparation import Prepared, Task

ATTEMPTS = 4
"""Workers that may die over one task, and that may die one after the other before any task is done."""

PATIENCE = 600.0
"""Seconds within which somebody has to finish a task, where one waits for a worker."""


class WorkerDied(Exception):  # noqa: N818
    """A worker is gone; says how."""


class Worker(Protocol):
    """One process, or one actor."""

    def prepare(self, task: Task) -> Prepared:
        """Raises WorkerDied, or the TwinrankError that the worker answered."""
        ...


Hired: TypeAlias = Worker | WorkerDied | TwinrankError
"""A worker that is ready, or why there is none."""


class Team(Protocol):
    """Where workers come from."""

    count: int
    """How many there may be."""
    hint: str
    """What often is the matter where workers die."""

    def hire(self, ready: Callable[[Hired], None]) -> None:
        """Begin to start one; `ready` is called, perhaps by another thread, when it is there."""
        ...

    def release(self, worker: Worker) -> None:
        """Forget one that died."""
        ...

    def stop(self) -> None:
        """End all, whatever they are at."""
        ...

    def close(self) -> None:
        """Leave nothing behind; nobody waits for a worker any more."""
        ...


class Pool:
    """A team at work; a thread waits for each worker, and holds its task until that is done."""

    def __init__(self, team: Team) -> None:
        self._team = team
        self._free: SimpleQueue[Hired] = SimpleQueue()
        self._threads = ThreadPoolExecutor(team.count, thread_name_prefix="twinrank-worker")
        self._lock = threading.Lock()
        self._hired = 0
        self._deaths_in_a_row = 0
        self._done = 0
        self._closed = False

    @property
    def ahead(self) -> int:
        """Each has a task, and one more is ready for it."""
        return 2 * self._team.count

    def hand_over(self, task: Task) -> Future[Prepared]:
        if task.documents:
            return self._threads.submit(self._prepare, task)
        nothing: Future[Prepared] = Future()
        nothing.set_result(Prepared())
        return nothing

    def close(self) -> None:
        """End the workers; tasks that are not done fail."""
        with self._lock:
            self._closed = True
        self._team.stop()
        self._free.put(WorkersError("the workers were closed"))
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._team.close()

    def _prepare(self, task: Task) -> Prepared:
        deaths: list[str] = []
        while len(deaths) < ATTEMPTS:
            worker = self._take()
            try:
                prepared = worker.prepare(task)
            except WorkerDied as death:
                deaths.append(str(death))
                self._lose(worker)
            except BaseException:
                self._free.put(worker)
                raise
            else:
                self._deaths_in_a_row = 0
                self._done += 1
                self._free.put(worker)
                return prepared
        raise WorkersError(f"{ATTEMPTS} workers died over {task.told}; the last {deaths[-1]}. {self._team.hint}")

    def _take(self) -> Worker:
        """A worker that is free; where none is, one more is started, and the first to become free taken."""
        while True:
            try:
                hired = self._free.get_nowait()
            except Empty:
                self._hire()
                hired = self._wait()
            if isinstance(hired, WorkerDied):
                self._lose(None)
                self._deaths_in_a_row += 1
                if self._deaths_in_a_row >= ATTEMPTS:
                    hired = WorkersError(f"{ATTEMPTS} workers died while they started; the last {hired}. {self._team.hint}")
            if isinstance(hired, TwinrankError):
                self._free.put(hired)  # whoever waits beside this one is told the same
                raise hired
            if not isinstance(hired, WorkerDied):
                return hired

    def _wait(self) -> Hired:
        while True:
            done = self._done
            try:
                return self._free.get(timeout=PATIENCE)
            except Empty:
                if self._done == done:
                    raise WorkersError(f"no worker became free within {PATIENCE:.0f} seconds. {self._team.hint}") from None

    def _hire(self) -> None:
        with self._lock:
            if self._closed or self._hired >= self._team.count:
                return
            self._hired += 1
            self._team.hire(self._free.put)

    def _lose(self, worker: Worker | None) -> None:
        with self._lock:
            self._hired -= 1
        if worker is not None:
            self._team.release(worker)
