"""A pool of workers that die, fail and hang at will: what is handed over comes back, or a sentence says why not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest

from twinrank import Document
from twinrank.errors import DocumentError, ModelNotFoundError, WorkersError
from twinrank.preparation import Preparation, Prepared, Task
from twinrank.text import Chunking
from twinrank.workers.pool import ATTEMPTS, Hired, Pool, Worker, WorkerDied

PREPARATION = Preparation(None, Chunking(size=8, overlap=0))


def task(*ids: str) -> Task:
    return Task([Document(one, f"text of {one}") for one in ids], dict.fromkeys(ids, "digest"), {})


def ids(prepared: Prepared) -> list[str]:
    return [document.document.id for document in prepared.documents]


class Scripted:
    """A worker that does with each task what the team says."""

    def __init__(self, team: Hands) -> None:
        self.team = team

    def prepare(self, task: Task) -> Prepared:
        self.team.act(task)
        return PREPARATION.prepare(task)


class Hands:
    """A team of threads' workers; what comes of a task, and of hiring, is up to the test."""

    hint = "Look at the logs"

    def __init__(self, count: int, act: Callable[[Task], None] = lambda _: None) -> None:
        self.count, self.act = count, act
        self.hired = 0
        self.released: list[Worker] = []
        self.stopped = threading.Event()
        self.closed = False
        self.instead: Callable[[], Hired | None] = lambda: Scripted(self)

    def hire(self, ready: Callable[[Hired], None]) -> None:
        self.hired += 1
        if (hired := self.instead()) is not None:
            ready(hired)

    def release(self, worker: Worker) -> None:
        self.released.append(worker)

    def stop(self) -> None:
        self.stopped.set()

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def begin() -> Iterator[Callable[[Hands], Pool]]:
    pools: list[Pool] = []

    def begin_one(team: Hands) -> Pool:
        pools.append(Pool(team))
        return pools[-1]

    yield begin_one
    for pool in pools:
        pool.close()


def test_every_task_comes_back_to_who_handed_it_over(begin: Callable[[Hands], Pool]) -> None:
    team = Hands(3, lambda _: time.sleep(0.001))
    pool = begin(team)
    asked = [(f"d{number}", pool.hand_over(task(f"d{number}"))) for number in range(50)]
    assert all(ids(future.result()) == [name] for name, future in asked)
    assert team.hired <= 3


def test_a_worker_is_hired_only_when_none_is_free(begin: Callable[[Hands], Pool]) -> None:
    team = Hands(4)
    pool = begin(team)
    for number in range(10):
        pool.hand_over(task(f"d{number}")).result()
    assert team.hired == 1


def test_nothing_to_do_starts_nobody(begin: Callable[[Hands], Pool]) -> None:
    team = Hands(2)
    assert begin(team).hand_over(task()).result() == Prepared()
    assert team.hired == 0


def test_the_task_of_a_worker_that_dies_is_done_by_another(begin: Callable[[Hands], Pool]) -> None:
    deaths = iter([True, True])

    def die_twice(_: Task) -> None:
        if next(deaths, False):
            raise WorkerDied("was killed by SIGKILL")

    team = Hands(2, die_twice)
    assert ids(begin(team).hand_over(task("a", "b")).result()) == ["a", "b"]
    assert len(team.released) == 2


def test_a_task_over_which_every_worker_dies_is_named(begin: Callable[[Hands], Pool]) -> None:
    def die(given: Task) -> None:
        if "poison" in given.digests:
            raise WorkerDied("was killed by SIGKILL")

    pool = begin(Hands(2, die))
    futures = [pool.hand_over(task(f"d{number}")) for number in range(6)]
    with pytest.raises(WorkersError, match=f"{ATTEMPTS} workers died over document 'poison'; .*SIGKILL. Look at the logs"):
        pool.hand_over(task("poison")).result()
    assert [ids(future.result()) for future in futures] == [[f"d{number}"] for number in range(6)]


def test_an_error_is_told_and_the_worker_goes_on(begin: Callable[[Hands], Pool]) -> None:
    def refuse(given: Task) -> None:
        if "bad" in given.digests:
            raise DocumentError("document 'bad' has none")

    team = Hands(1, refuse)
    pool = begin(team)
    with pytest.raises(DocumentError, match="'bad'"):
        pool.hand_over(task("bad")).result()
    assert ids(pool.hand_over(task("good")).result()) == ["good"]
    assert team.hired == 1


def test_models_that_cannot_be_opened_fail_every_task_at_once(begin: Callable[[Hands], Pool]) -> None:
    team = Hands(2)
    team.instead = lambda: ModelNotFoundError("there is no model 'm' on node 3")
    pool = begin(team)
    futures = [pool.hand_over(task(f"d{number}")) for number in range(5)]
    for future in futures:
        with pytest.raises(ModelNotFoundError, match="node 3"):
            future.result(timeout=10)


def test_workers_that_die_while_they_start_are_replaced_and_at_last_told(begin: Callable[[Hands], Pool]) -> None:
    team, starts = Hands(2), iter([WorkerDied("is gone"), WorkerDied("is gone")])
    team.instead = lambda: next(starts, None) or Scripted(team)
    assert ids(begin(team).hand_over(task("a")).result(timeout=10)) == ["a"]
    never = Hands(2)
    never.instead = lambda: WorkerDied("is gone")
    with pytest.raises(WorkersError, match=f"{ATTEMPTS} workers died while they started; the last is gone"):
        begin(never).hand_over(task("a")).result(timeout=10)


def test_a_worker_that_is_still_waited_for_holds_up_no_task(begin: Callable[[Hands], Pool]) -> None:
    """Of a cluster that lost a node: the second worker has no room, and never comes."""
    team = Hands(2, lambda _: time.sleep(0.001))
    workers: Iterator[Hired | None] = iter([Scripted(team)])
    team.instead = lambda: next(workers, None)
    pool = begin(team)
    futures = [pool.hand_over(task(f"d{number}")) for number in range(20)]
    assert [ids(future.result(timeout=10)) for future in futures] == [[f"d{number}"] for number in range(20)]


def test_where_nobody_ever_becomes_free_it_is_told(begin: Callable[[Hands], Pool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinrank.workers.pool.PATIENCE", 0.05)
    team = Hands(1)
    team.instead = lambda: None
    with pytest.raises(WorkersError, match="no worker became free"):
        begin(team).hand_over(task("a")).result(timeout=10)


def test_closing_ends_those_at_work_and_those_who_wait() -> None:
    began = threading.Event()
    team = Hands(1)

    def work_until_stopped(_: Task) -> None:
        began.set()
        team.stopped.wait(10)
        raise WorkerDied("was killed by SIGKILL")

    team.act = work_until_stopped
    pool = Pool(team)
    futures: list[Future[Prepared]] = [pool.hand_over(task(f"d{number}")) for number in range(4)]
    assert began.wait(10)
    pool.close()
    assert team.closed
    assert all(future.done() for future in futures)
    assert team.hired == 1
