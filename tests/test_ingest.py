"""What others prepare is written as if this process had done it: in order, each id once, whatever happens meanwhile."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinrank import Document
from twinrank.errors import DocumentError
from twinrank.ingest import AddReport, Ingest
from twinrank.preparation import Preparation, Prepared, Task
from twinrank.store import Store
from twinrank.text import Chunking

WORDS = Chunking(size=8, overlap=1)


class Threads:
    """Helpers that take their time, each another."""

    ahead = 5

    def __init__(
        self, preparation: Preparation, pool: ThreadPoolExecutor, before: Callable[[Task], None] | None = None
    ) -> None:
        self.preparation, self.pool, self.before = preparation, pool, before
        self.tasks: list[Task] = []

    def hand_over(self, task: Task) -> Future[Prepared]:
        self.tasks.append(task)
        return self.pool.submit(self._prepare, task)

    def _prepare(self, task: Task) -> Prepared:
        time.sleep(random.random() * 0.003)
        if self.before is not None:
            self.before(task)
        return self.preparation.prepare(task)


@contextmanager
def new_store(folder: Path) -> Iterator[Store]:
    folder.mkdir()
    store = Store.open(folder)
    yield store
    store.close()


def stream(numbers: list[int]) -> list[Document]:
    """Ids that come again, sometimes with the same text, sometimes with another."""
    return [
        Document(f"d{number % 7}", f"text {number % 3} " * (1 + number % 9), fields={"n": number % 2}) for number in numbers
    ]


@settings(max_examples=25)
@given(st.lists(st.integers(0, 40), max_size=60), st.integers(1, 9))
def test_a_stream_is_kept_row_by_row_as_without_helpers(
    tmp_path_factory: pytest.TempPathFactory, rows: Callable[[Path], object], numbers: list[int], size: int
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    documents = stream(numbers)
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(4) as pool:
        patch.setattr("twinrank.ingest.BATCH_DOCUMENTS", size)
        with new_store(folder / "plain") as plain, new_store(folder / "helped") as helped:
            reports = AddReport(), AddReport()
            Ingest(plain, None, WORDS).add(documents, reports[0])
            ingest = Ingest(helped, None, WORDS)
            done: list[int] = []
            ingest.add(documents, reports[1], done.append, helpers=Threads(ingest.preparation, pool))
            assert rows(helped.path) == rows(plain.path)
            assert sum(done) == len(documents)
            for report in reports:
                report.seconds = 0
            assert reports[0] == reports[1]


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as threads:
        yield threads


@pytest.fixture
def ingest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ingest]:
    monkeypatch.setattr("twinrank.ingest.BATCH_DOCUMENTS", 10)
    with new_store(tmp_path / "store") as store:
        yield Ingest(store, None, WORDS)


def numbered(first: int, last: int) -> list[Document]:
    return [Document(f"d{number:03}", f"number {number}") for number in range(first, last)]


def test_the_last_of_equal_ids_wins_though_both_are_on_the_way(ingest: Ingest, pool: ThreadPoolExecutor) -> None:
    """The second is the same as the one that is stored: compared too early, it would seem unchanged."""
    ingest.add([Document("a", "old")], AddReport())
    report = AddReport()
    between = [*numbered(0, 9), Document("a", "new"), *numbered(9, 18), Document("a", "old")]
    ingest.add(between, report, helpers=Threads(ingest.preparation, pool))
    found = ingest.store.get(["a"])[0]
    assert found is not None
    assert found.text == "old"
    assert (report.updated, report.repeated) == (2, 1)


def test_what_was_read_before_a_bad_document_is_written(ingest: Ingest, pool: ThreadPoolExecutor) -> None:
    def documents() -> Iterator[Document]:
        yield from numbered(0, 25)
        raise DocumentError("record 26 is no document")

    with pytest.raises(DocumentError, match="record 26"):
        ingest.add(documents(), AddReport(), helpers=Threads(ingest.preparation, pool))
    assert ingest.store.count_documents() == 20  # two whole batches, as without helpers


def test_a_helper_that_fails_leaves_what_came_before_and_nothing_behind_it(ingest: Ingest, pool: ThreadPoolExecutor) -> None:
    def refuse(task: Task) -> None:
        if "d023" in task.digests:
            raise DocumentError("document 'd023' cannot be encoded")

    with pytest.raises(DocumentError, match="d023"):
        ingest.add(numbered(0, 90), AddReport(), helpers=Threads(ingest.preparation, pool, refuse))
    assert list(ingest.store.document_ids()) == [document.id for document in numbered(0, 20)]
    report = AddReport()
    ingest.add(numbered(0, 90), report, helpers=Threads(ingest.preparation, pool))
    assert (report.added, report.unchanged) == (70, 20)


def test_what_another_process_wrote_meanwhile_is_compared_again(ingest: Ingest, pool: ThreadPoolExecutor) -> None:
    ingest.add([Document("d003", "number 3 with more words than before")], AddReport())

    def write_between(task: Task) -> None:
        if "d003" in task.digests:  # the passages that the task relies on go away
            ingest.store.delete(["d003"])
            Ingest(ingest.store, None, WORDS).add([Document("d004", "number 4")], AddReport())

    report = AddReport()
    ingest.add(numbered(0, 30), report, helpers=Threads(ingest.preparation, pool, write_between))
    assert ingest.store.count_documents() == 30
    assert (report.added, report.updated, report.unchanged) == (29, 0, 1)
    assert ingest.store.check() == []


def test_no_more_batches_are_on_the_way_than_the_helpers_want(ingest: Ingest, pool: ThreadPoolExecutor) -> None:
    read = 0

    def documents() -> Iterator[Document]:
        nonlocal read
        for document in numbered(0, 400):
            read += 1
            yield document

    helpers, behind = Threads(ingest.preparation, pool), []
    ingest.add(documents(), AddReport(), lambda _: behind.append(read - ingest.store.count_documents()), helpers=helpers)
    assert max(behind) <= (helpers.ahead + 1) * 10


def test_documents_that_did_not_change_are_nobodys_work(ingest: Ingest, pool: ThreadPoolExecutor) -> None:
    ingest.add(numbered(0, 40), AddReport())
    helpers, report = Threads(ingest.preparation, pool), AddReport()
    ingest.add([*numbered(0, 40), Document("d040", "new")], report, helpers=helpers)
    assert report.unchanged == 40
    assert [document.id for task in helpers.tasks for document in task.documents] == ["d040"]
