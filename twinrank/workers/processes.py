"""Workers as processes of this machine: each opens the models itself, with its share of the cores, and answers over a pipe."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

from twinrank.engine import default_threads
from twinrank.preparation import Prepared, Task
from twinrank.workers.opening import Opening, answer, limit_threads
from twinrank.workers.pool import Hired, Worker, WorkerDied

SPAWN = multiprocessing.get_context("spawn")
"""A fresh interpreter: a copy of this process would hold its locks, its database and threads that are not there."""


class Process:
    """One process, and the only other end of its pipe: where either dies, the other sees it at once."""

    def __init__(self, opening: Opening, threads: int) -> None:
        self._pipe, there = SPAWN.Pipe()
        self._process: SpawnProcess = SPAWN.Process(target=serve, args=(there, threads), name="twinrank-worker", daemon=True)
        self._process.start()
        there.close()
        self._opening: Opening | None = opening

    def prepare(self, task: Task) -> Prepared:
        try:
            if self._opening is not None:
                self._pipe.send(self._opening)
                self._opening = None
            self._pipe.send(task)
            answered: Any = self._pipe.recv()
        except (EOFError, OSError):
            raise WorkerDied(self._how_it_ended()) from None
        if isinstance(answered, Exception):
            raise answered
        assert isinstance(answered, Prepared)
        return answered

    def kill(self) -> None:
        self._process.kill()

    def forget(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def _how_it_ended(self) -> str:
        self._process.join(timeout=5)
        code = self._process.exitcode
        if code is not None and code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return "went away" if code is None else f"ended with status {code}"


class Processes:
    """A team of processes."""

    hint = (
        "Each needs memory for its models and its batch: fewer workers need less. A script that is run by Python itself has "
        'to do its work below `if __name__ == "__main__":`, since every worker imports it'
    )

    def __init__(self, opening: Opening, count: int, threads: int | None = None) -> None:
        self.count = count
        self.threads = threads or max(1, default_threads() // count)
        self._opening = opening
        self._there: set[Process] = set()

    def hire(self, ready: Callable[[Hired], None]) -> None:
        process = Process(self._opening, self.threads)
        self._there.add(process)
        ready(process)

    def release(self, worker: Worker) -> None:
        assert isinstance(worker, Process)
        self._there.discard(worker)
        worker.forget()

    def stop(self) -> None:
        for process in list(self._there):
            process.kill()

    def close(self) -> None:
        for process in self._there:
            process.forget()
        self._there.clear()


def serve(pipe: Connection, threads: int) -> None:
    """What runs in the process: answer tasks until whoever asks is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who asked, who ends this process
    os.environ.update(limit_threads(threads))
    opened: list[Any] = []
    try:
        opening = pipe.recv()
        while True:
            pipe.send(answer(opening, pipe.recv(), opened))
    except (EOFError, OSError):
        return
