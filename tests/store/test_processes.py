"""Several threads and several processes use one store; a killed one leaves no half."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from twinrank_prepared import VIEW, prepare

from twinrank.errors import (
    CollectionBusyError,
)
from twinrank.store import Store
from twinrank.types import (
    Comparison,
)


def test_threads_search_while_another_writes(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        store.add_view("small", **VIEW)
        store.write([prepare(f"d{i}", "one", "two", year=0) for i in range(20)])
        done = threading.Event()
        problems: list[BaseException] = []

        def search() -> None:
            try:
                while not done.is_set():
                    keys = store.select(Comparison("year", ">=", 0))
                    assert len(keys) == 40  # never half a transaction
                    store.passages(keys)
            except BaseException as error:
                problems.append(error)

        threads = [threading.Thread(target=search) for _ in range(4)]
        for thread in threads:
            thread.start()
        for year in range(15):
            store.write([prepare(f"d{i}", "one", f"year {year}", year=year) for i in range(20)])
        done.set()
        for thread in threads:
            thread.join()
        assert problems == []
        assert store.check() == []


def test_a_second_writer_gets_a_clear_error_and_readers_go_on(store: Store) -> None:
    store.write([prepare("a", "one", encode=False)])
    with Store.open(store.folder, timeout=0.1) as other:
        with store._writing():
            with pytest.raises(CollectionBusyError, match="another process is writing"):
                other.delete(["a"])
            assert other.count_documents() == 1
        assert other.delete(["a"]) == ["a"]
    assert store.count_documents() == 0


def write_for_ever(folder: str, acknowledged: str) -> None:
    with Store.open(folder) as store, Path(acknowledged).open("a") as log:
        for number in range(10_000):
            store.write([prepare(f"{number}-{part}", "one", f"text {number}") for part in range(5)])
            if number % 3 == 2:
                store.delete([f"{number - 1}-{part}" for part in range(5)])
            log.write(f"{number}\n")
            log.flush()


def test_a_killed_writer_loses_nothing_that_it_acknowledged_and_leaves_no_half(tmp_path: Path) -> None:
    folder, log = tmp_path / "papers", tmp_path / "log"
    log.touch()
    with Store.open(folder) as store:
        store.add_view("small", **VIEW)
    for round_ in range(4):
        with Store.open(folder) as store:
            store.delete(list(store.document_ids()))
        log.write_text("")
        context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        writer = context.Process(target=write_for_ever, args=(str(folder), str(log)))
        writer.start()
        while not log.read_text().count("\n") > 5 + round_ * 7:
            time.sleep(0.001)
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        acknowledged = len(log.read_text().splitlines())
        with Store.open(folder) as store:
            assert store.check() == []
            kept = set(store.document_ids())
        for number in range(acknowledged):
            there = {f"{number}-{part}" in kept for part in range(5)}
            removed = number % 3 == 1 and number + 1 < acknowledged
            # The step in flight when the killer came may have been committed, but only as a whole.
            assert there == {not removed} or (number == acknowledged - 1 and len(there) == 1)


def test_a_forked_child_does_not_disturb_its_parent_s_store(store: Store) -> None:
    if not hasattr(os, "fork"):
        pytest.skip("this system does not fork")
    store.write([prepare("a", "one", encode=False)])
    child = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            f"""
import os, sys
sys.path[:0] = {sys.path!r}
from twinrank.store import Store
store = Store.open({str(store.folder)!r})
assert store.count_documents() == 1
if os.fork() == 0:
    os._exit(0 if store.count_documents() == 1 else 1)
_, status = os.wait()
print(status, store.count_documents())
""",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert child.stdout == "0 1\n", child.stderr
