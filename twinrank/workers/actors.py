"""Workers as actors of a Ray cluster: one a core, its models opened once; a batch of one that is gone goes to another.

Plain actors rather than Ray Data: what is to be encoded is known to the caller alone, who reads, compares with the collection
and writes while the cluster works, and Ray Data has no source that a driver feeds. Nor are Ray's own restarts used: they tie a
batch to the actor that it was given to, and where a node is lost for good its actor waits for room while others are idle.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from twinrank.engine import default_threads
from twinrank.errors import TwinrankError, WorkersError
from twinrank.preparation import Preparation, Prepared, Task
from twinrank.workers.opening import Opening, answer, limit_threads
from twinrank.workers.pool import Hired, Worker, WorkerDied

REACHED_WITHIN = 20.0
"""Seconds."""


class Preparer:
    """What runs on a node."""

    def __init__(self, opening: dict[str, Any]) -> None:
        os.environ["TWINRANK_WORKER_HOST"] = socket.gethostname()
        self._opening = Opening(**opening)
        self._opened: list[Preparation] = []

    def answer(self, task: Task | None) -> Prepared | TwinrankError:
        return answer(self._opening, task, self._opened)


class Actor:
    """One actor, as the pool knows it."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle

    def prepare(self, task: Task) -> Prepared:
        reference = self.handle.answer.remote(task)
        return _answered(lambda: ray.get(reference))


class Actors:
    """A team of actors."""

    def __init__(self, opening: Opening, address: str, count: int | None = None, threads: int | None = None) -> None:
        self._began = not ray.is_initialized()
        if self._began:
            _connect(address)
        self.threads = threads or (default_threads() if "TWINRANK_THREADS" in os.environ else 1)
        cores = int(ray.cluster_resources().get("CPU", 0))
        self.count = count or max(1, cores // self.threads)
        self.hint = (
            f"The cluster has {cores} cores and an actor takes {self.threads}; `ray status` says what it is at, and the logs "
            "on its nodes how a worker died"
        )
        self._opening = vars(opening)
        self._there: set[Any] = set()
        self._lock = threading.Lock()
        self._kind = ray.remote(Preparer).options(
            num_cpus=self.threads,
            max_restarts=0,
            max_task_retries=0,
            runtime_env={"env_vars": limit_threads(self.threads)},
        )

    def hire(self, ready: Callable[[Hired], None]) -> None:
        handle = self._kind.remote(self._opening)
        with self._lock:
            self._there.add(handle)
        opened = handle.answer.remote(None)  # once the cluster has a core for it
        opened.future().add_done_callback(lambda future: ready(_hired(handle, future)))

    def release(self, worker: Worker) -> None:
        assert isinstance(worker, Actor)
        with self._lock:
            self._there.discard(worker.handle)
        ray.kill(worker.handle)  # gone already, or cut off; whatever it still gives is not waited for

    def stop(self) -> None:
        with self._lock:
            there, self._there = self._there, set()
        for handle in there:
            ray.kill(handle)

    def close(self) -> None:
        if self._began:
            ray.shutdown()


def _hired(handle: Any, opened: Future[Any]) -> Hired:
    try:
        _answered(opened.result)
    except (WorkerDied, TwinrankError) as error:
        return error
    return Actor(handle)


def _answered(get: Callable[[], Any]) -> Prepared:
    """What an actor answered. Raises WorkerDied where it is gone, or its answer with the node that held it."""
    try:
        answered = get()
    except RayTaskError as error:
        raise WorkersError(f"a worker of the cluster failed: {_last_line(error)}") from None
    except RayError as error:
        raise WorkerDied(f"is gone: {_last_line(error)}") from None
    if isinstance(answered, Exception):
        raise answered
    assert isinstance(answered, Prepared)
    return answered


def _last_line(error: Exception) -> str:
    """What a traceback, or a sentence, ends with."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__


def _connect(address: str) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster that is made here reports to nobody
    try:
        _knock(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (RayError, ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise WorkersError(
            f"the Ray cluster at {address!r} cannot be reached: {_last_line(error)}; `ray status` says whether one runs here, "
            "`ray start --head` makes one"
        ) from error


def _knock(address: str) -> None:
    """Raise OSError where nobody listens, for which Ray itself would wait many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACHED_WITHIN).close()
