"""The file stays in proportion: old changes are forgotten, free pages given back, a step at a time, and nothing is lost."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from twinrank_prepared import prepare, texts_of

from twinrank.errors import IndexDamagedError, StorageError
from twinrank.store import Store, upkeep


def fill(store: Store, rounds: int, *, size: int = 4) -> list[int]:
    """Replace the same 20 documents again and again; the state after each round."""
    states = []
    for number in range(rounds):
        store.write([prepare(f"d{place}", f"{number} {place} " + "word " * size, encode=False) for place in range(20)])
        states.append(store.sequence())
    return states


def changes(store: Store) -> int:
    return store._count("SELECT count(*) FROM changes")


def tidy(store: Store, reflected: int) -> None:
    """Until there is no more to be done: on a slow disk a call may be one step."""
    while store._tidy_once(reflected):
        pass


@pytest.fixture
def small_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "KEPT_CHANGES", 100)
    monkeypatch.setattr(upkeep, "FORGOTTEN_AT_ONCE", 50)


@pytest.mark.usefixtures("small_log")
def test_the_log_keeps_its_end_and_names_the_same_state(store: Store) -> None:
    states = fill(store, 12)
    texts = texts_of(store)
    tidy(store, states[-1])
    assert 100 <= changes(store) <= 200
    assert store.sequence() == states[-1]
    assert texts_of(store) == texts
    assert store.check() == []
    assert len(store.changes_since(states[-2])) == 40  # twenty passages went, twenty came
    with pytest.raises(IndexDamagedError, match="no longer reaches back"):
        store.changes_since(states[0])


@pytest.mark.usefixtures("small_log")
def test_what_an_index_has_not_taken_in_stays_in_the_log(store: Store) -> None:
    states = fill(store, 12)
    tidy(store, states[1])
    assert store.changes_since(states[1])
    with pytest.raises(IndexDamagedError):
        store.changes_since(states[0])


@pytest.mark.usefixtures("small_log")
def test_a_short_log_is_left_alone(store: Store) -> None:
    states = fill(store, 4)
    before = changes(store)
    store.tidy(states[-1])
    assert changes(store) == before
    assert store.changes_since(0)


@pytest.mark.usefixtures("small_log")
def test_a_transaction_longer_than_a_step_is_forgotten_whole(store: Store) -> None:
    store.write([prepare(f"d{place}", f"text {place}", encode=False) for place in range(256)])
    first = store.sequence()
    states = fill(store, 6)
    tidy(store, states[-1])
    assert store._count(f"SELECT count(*) FROM changes WHERE sequence <= {first}") == 0
    assert store.check() == []


def test_free_pages_beyond_a_quarter_of_the_file_are_given_back(store: Store) -> None:
    store.write([prepare(f"d{place}", f"{place} " + "word " * 4000, encode=False) for place in range(200)])
    store.delete([f"d{place}" for place in range(20, 200)])
    full = store.free()
    assert full > 2_000_000
    for _ in range(100):
        store.tidy(store.sequence())
    pages = store._count("PRAGMA page_count") * 8192
    assert store.free() <= max(0.25 * pages, 64 * 8192) < full
    assert store.count_documents() == 20
    assert store.check() == []
    store.close()
    assert store.path.stat().st_size == pages


def test_one_call_does_no_more_than_its_time_allows(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write([prepare(f"d{place}", f"{place} " + "word " * 4000, encode=False) for place in range(200)])
    store.delete([f"d{place}" for place in range(20, 200)])
    monkeypatch.setattr("twinrank.store.store.LONGEST", 0.0)
    full = store.free()
    store.tidy(store.sequence())
    assert store.free() == full - 64 * 8192


@pytest.mark.usefixtures("small_log")
@pytest.mark.parametrize("failing", ["forget_changes", "give_back"])
def test_what_fails_in_the_middle_is_undone_and_done_the_next_time(
    store: Store, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = fill(store, 12, size=4000)
    store.delete([f"d{place}" for place in range(5, 20)])
    before, free, texts = changes(store), store.free(), texts_of(store)
    done: Callable[..., object] = getattr(upkeep, failing)

    def fail(connection: sqlite3.Connection, *others: int) -> None:
        done(connection, *others)
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patched:
        patched.setattr(f"twinrank.store.store.{failing}", fail)
        store.tidy(states[-1])
    assert (changes(store), store.free()) == (before, free)
    tidy(store, store.sequence())
    assert changes(store) < before
    assert store.free() < free
    assert texts_of(store) == texts
    assert store.check() == []


def test_a_full_disk_while_tidying_is_no_error_of_the_change(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(Store, "_tidy_once", fail)
    store.tidy(0)


def test_a_reader_that_stays_behind_sees_its_state_while_pages_move(store: Store, tmp_path: Path) -> None:
    store.write([prepare(f"d{place}", f"{place} " + "word " * 4000, encode=False) for place in range(200)])
    reader = sqlite3.connect(store.path, isolation_level=None)
    reader.execute("BEGIN")
    count = "SELECT count(*), sum(length(text)) FROM documents"
    before = reader.execute(count).fetchone()
    store.delete([f"d{place}" for place in range(20, 200)])
    for _ in range(20):
        store.tidy(store.sequence())
    assert reader.execute(count).fetchone() == before
    reader.close()
    assert store.check() == []
