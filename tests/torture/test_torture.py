"""A slice of the torture; `make torture` runs all of it, and docs/reliability.md holds what it found."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from twinrank_torture.pages import live_bytes

from twinrank.store import Store

if sys.platform != "linux" or shutil.which("cc") is None:
    pytest.skip("the torture needs Linux and a C compiler (cc) for its shim", allow_module_level=True)


def torture(part: str, *numbers: int) -> dict[str, Any]:
    """What a torture of this size found; fails where it found a problem."""
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("drive.py")), part, *map(str, numbers)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert result.stdout, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    assert found["problems"] == 0, found["first problems"]
    return found


def test_a_process_killed_at_random_twice_in_a_row_loses_nothing_that_it_acknowledged() -> None:
    found = torture("kills", 12)
    assert found["verified"] == 6
    assert found["steps acknowledged"] > 0


def test_a_crash_or_a_failing_call_at_any_point_loses_nothing_and_is_told() -> None:
    found = torture("calls", 97)
    assert found["calls of the reference run"] > 300
    assert found["crash at each call, and again while opening"]["crashes"] > 6
    assert found["ENOSPC"]["calls that failed"] == found["EIO"]["calls that failed"] > 3


def test_a_loss_of_power_takes_nothing_that_was_acknowledged() -> None:
    found = torture("power", 80)
    assert found["losses"] >= 18


def test_a_flipped_bit_is_told_and_makes_no_wrong_answer() -> None:
    found = torture("flips", 30_011, 0)
    assert found["small"]["damages"] > 3
    assert found["small, not closed"]["right answers of an older state, and told"] > 10


def test_many_processes_see_one_committed_state_each_and_never_an_old_one() -> None:
    found = torture("history", 1500)
    assert found["writes"] > 5
    assert found["searches"] > 50


def test_the_reader_of_pages_knows_which_bytes_are_content(tmp_path: Path) -> None:
    """Zeroing all that it calls unused changes nothing that SQLite can see."""
    with Store.open(tmp_path) as store:
        store.set_meta("a", "b" * 50_000)
        store.set_meta("c", "d")
    live = live_bytes(store.path)
    content = np.frombuffer(store.path.read_bytes(), np.uint8)
    assert 50_000 < live.sum() < len(content)
    live[:100] = True
    store.path.write_bytes(np.where(live, content, 0).astype(np.uint8).tobytes())
    with Store.open(tmp_path) as again:
        assert again.get_meta("a") == "b" * 50_000
        assert again.check() == []
