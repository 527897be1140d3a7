"""The log of a vector index: what was saved is there, what is torn is noticed, processes take turns."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from twinrank.errors import StorageError
from twinrank.index.changelog import ChangeLog
from twinrank.index.vectors import VectorIndex
from twinrank.types import Vectors


def numbered(*numbers: float) -> Vectors:
    return np.array([[number, 1] for number in numbers], np.float32)


def all_of(index: VectorIndex) -> dict[int, float]:
    keys = index.keys
    return dict(zip(keys.tolist(), index.vectors(keys)[:, 0].tolist(), strict=True)) if len(keys) else {}


@pytest.fixture
def index(tmp_path: Path) -> VectorIndex:
    """Three saves: 100 passages in the file; 500 comes and 3 goes; 501 comes, 500 is replaced, 4 goes."""
    index = VectorIndex.build(tmp_path / "v", 2, [(np.arange(100), numbered(*range(100)))], 1)
    index.remove([3])
    index.add([500], numbered(7))
    index.save(2)
    index.remove([4])
    index.add([500, 501], numbered(8, 9))
    index.save(3)
    return index


AFTER_ONE = {key: float(key) for key in range(100)}
AFTER_TWO = {**{key: float(key) for key in range(100) if key != 3}, 500: 7.0}
AFTER_THREE = {**{key: float(key) for key in range(100) if key not in (3, 4)}, 500: 8.0, 501: 9.0}


def test_a_change_is_there_when_it_is_opened_again(index: VectorIndex) -> None:
    again = VectorIndex.open(index.path)
    assert all_of(again) == all_of(index) == AFTER_THREE
    assert (again.sequence, again.saved_sequence, len(again)) == (3, 3, 100)
    assert again.verify() == []
    assert again.size() == sum(path.stat().st_size for path in index.path.parent.iterdir())


def test_a_save_without_a_change_keeps_the_sequence_number(index: VectorIndex) -> None:
    size = index.size()
    index.save(3)
    assert index.size() == size
    index.save(9)
    assert VectorIndex.open(index.path).sequence == 9


def test_every_truncation_of_the_log_leaves_a_state_that_was(index: VectorIndex) -> None:
    log = index.path.with_name("v.log")
    content = log.read_bytes()
    states = {1: AFTER_ONE, 2: AFTER_TWO, 3: AFTER_THREE}
    whole = {}
    for length in range(len(content) + 1):
        log.write_bytes(content[:length])
        again = VectorIndex.open(index.path)
        assert all_of(again) == states[again.sequence]
        if again.verify() == []:
            whole[length] = again.sequence
    assert list(whole.values()) == [1, 2, 3]
    assert [min(whole), max(whole)] == [0, len(content)]


def test_every_flipped_bit_of_the_log_is_noticed(index: VectorIndex) -> None:
    log = index.path.with_name("v.log")
    content = log.read_bytes()
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        log.write_bytes(damaged)
        again = VectorIndex.open(index.path)
        assert again.sequence < 3, place
        assert all_of(again) == (AFTER_ONE if again.sequence == 1 else AFTER_TWO)
        assert "torn or damaged" in again.verify()[0]


def test_what_is_torn_is_written_over(index: VectorIndex) -> None:
    log = index.path.with_name("v.log")
    log.write_bytes(log.read_bytes()[:-5])
    again = VectorIndex.open(index.path)
    assert again.sequence == 2
    again.remove([4, 500, 501])
    again.add([500, 501], numbered(8, 9))
    again.save(3)
    assert all_of(VectorIndex.open(index.path)) == AFTER_THREE
    assert VectorIndex.open(index.path).verify() == []


def test_the_log_of_another_file_is_not_taken(index: VectorIndex) -> None:
    """As where a process died between putting the new file in place and removing the old one's log."""
    log = index.path.with_name("v.log")
    old = log.read_bytes()
    index.save(4, force=True)
    assert not log.exists()
    log.write_bytes(old)
    again = VectorIndex.open(index.path)
    assert (again.sequence, all_of(again), again.verify()) == (4, AFTER_THREE, [])
    again.remove([5])
    again.save(5)
    assert all_of(VectorIndex.open(index.path)) == {key: value for key, value in AFTER_THREE.items() if key != 5}


def test_two_processes_save_in_turn(index: VectorIndex) -> None:
    """Each takes the other's changes from the store, so that both come to the same state, whoever writes it down."""
    other = VectorIndex.open(index.path)
    index.add([600], numbered(1))
    index.save(4)
    other.add([600], numbered(1))  # as the store told it
    other.save(4)
    other.remove([600])
    other.add([601], numbered(2))
    other.save(5)
    index.remove([600])
    index.add([601], numbered(2))
    index.save(5)
    expected = {**AFTER_THREE, 601: 2.0}
    assert all_of(index) == all_of(other) == all_of(VectorIndex.open(index.path)) == expected


def test_a_save_goes_on_from_a_file_that_another_process_wrote_anew(index: VectorIndex) -> None:
    other = VectorIndex.open(index.path)
    index.add([600], numbered(1))
    index.save(4, force=True)
    other.remove([600, 7])
    other.add([600], numbered(1))
    other.save(5)
    expected = {**{key: value for key, value in AFTER_THREE.items() if key != 7}, 600: 1.0}
    again = VectorIndex.open(index.path)
    assert (again.sequence, all_of(again), all_of(other)) == (5, expected, expected)


def test_an_older_state_is_not_written_over_a_newer_one(index: VectorIndex) -> None:
    other = VectorIndex.open(index.path)
    index.add([600], numbered(1))
    index.save(9)
    other.remove([5])
    other.save(4)
    assert all_of(VectorIndex.open(index.path)) == {**AFTER_THREE, 600: 1.0}


def test_many_small_changes_are_folded_into_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinrank.index.vectors.MOST_RECORDS", 20)
    index = VectorIndex.build(tmp_path / "v", 2, [(np.arange(100), numbered(*range(100)))], 1)
    anew = [index.save(number) for number in range(2, 50) if index.add([1000 + number], numbered(number)) is None]
    assert sum(anew) == 2
    assert len(VectorIndex.open(index.path)) == 148


def test_a_full_disk_leaves_the_log_as_it_was(index: VectorIndex) -> None:
    script = f"""
import resource, signal, sys
sys.path[:0] = {sys.path!r}
import numpy as np
from twinrank.errors import StorageError
from twinrank.index.changelog import ChangeLog
from twinrank.index.vectors import VectorIndex
index = VectorIndex.open({str(index.path)!r})
index.add(np.arange(1000, 1900), np.ones((900, 2), np.float32))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, 9_000))
try:
    index.save(4)
except StorageError as error:
    print(error, len(index), index.sequence, index.saved_sequence)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert "cannot be written" in result.stdout, result.stderr
    assert result.stdout.split()[-3:] == ["1000", "4", "3"]
    again = VectorIndex.open(index.path)
    assert (again.sequence, all_of(again), again.verify()) == (3, AFTER_THREE, [])


def test_a_log_that_cannot_be_opened_is_told(index: VectorIndex) -> None:
    log = index.path.with_name("v.log")
    log.unlink()
    log.mkdir()
    with pytest.raises(StorageError, match=r"v\.log cannot be read"):
        VectorIndex.open(index.path)


def test_a_save_costs_in_proportion_to_the_change(tmp_path: Path) -> None:
    """One passage more among 50,000: the file is not written again, and it takes milliseconds of CPU time."""
    vectors = np.random.default_rng(0).normal(size=(50_000, 64)).astype(np.float32)
    index = VectorIndex.build(tmp_path / "v", 64, [(np.arange(50_000), vectors)], 1)
    before, written = index.size(), index.path.stat().st_mtime_ns
    started = time.process_time()
    for number in range(10):
        index.add([100_000 + number], vectors[number : number + 1])
        index.save(2 + number)
    assert (time.process_time() - started) / 10 < 0.02
    assert index.path.stat().st_mtime_ns == written
    assert index.size() - before < 10 * 600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v", "v.log"]


def test_a_log_that_cannot_be_removed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, missing_ok: bool = False) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "unlink", fail)
    with pytest.raises(StorageError, match=r"v\.log cannot be removed: No space left on device"):
        ChangeLog(tmp_path / "v", "a" * 16, 4).remove()
