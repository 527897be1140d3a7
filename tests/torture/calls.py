"""Every write, fsync, rename, unlink… of a reference run: the process ends there, twice in a row, or the call itself fails."""

from __future__ import annotations

import errno
import random
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twinrank_torture.processes import COUNT, EXIT, FAIL, FAIL_ON, NOTHING, SHORT, ChildDiedError, arm, scratch
from twinrank_torture.processes import ask as ask_child
from twinrank_torture.verify import verify
from twinrank_torture.workload import Step, acknowledged, allowed_states, make_steps, open_collection, state_after, work

from twinrank.errors import TwinrankError

STEPS = 4
SEED = 5
FAILURES = {
    "ENOSPC": (FAIL, errno.ENOSPC),
    "EIO": (FAIL, errno.EIO),
    "ENOSPC from there on": (FAIL_ON, errno.ENOSPC),
    "short write": (SHORT, 0),
}


def torture(every: int = 1, seed: int = SEED) -> dict[str, Any]:
    """Crash and fail at every `every`-th call of the reference run, which begins with the making of the collection."""
    steps = make_steps(seed, STEPS, most=12)
    steps.insert(2, Step("rebuild"))
    place = scratch()
    try:
        calls = ask_child(_count, place / "reference", steps)
        found: dict[str, Any] = {"calls of the reference run": calls}
        problems: list[str] = []
        for name, counts, lines in (_crash(place, steps, calls, every, seed), *_fail(place, steps, calls, every, seed)):
            found[name] = dict(counts)
            problems += lines
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return {**found, "problems": problems}


def _count(folder: Path, steps: Sequence[Step]) -> int:
    folder.mkdir()
    library = arm(folder, COUNT)
    work(folder / "collection", folder / "log", steps, 0)
    return int(library.torture_counted()) - 2 * len(steps)  # the log's own lines


def _work_until(folder: Path, steps: Sequence[Step], done: int, k: int) -> None:
    arm(folder / "collection", EXIT, k)
    work(folder / "collection", folder / "log", steps, done)


def _crash(place: Path, steps: Sequence[Step], calls: int, every: int, seed: int) -> tuple[str, Counter[str], list[str]]:
    chosen = random.Random(seed)
    counts: Counter[str] = Counter()
    problems = []
    for k in range(1, calls + 1, every):
        folder = _empty(place / "crash")
        for point in (k, chosen.randint(1, 40)):
            done, _ = acknowledged(folder / "log")
            try:
                ask_child(_work_until, folder, steps, done, point)
                counts["ended before"] += 1
            except ChildDiedError:
                counts["crashes"] += 1
        done, begun = acknowledged(folder / "log")
        verdict = ask_child(verify, folder / "collection", allowed_states(steps, done, begun), k)
        counts["verified"] += 1
        counts["with an index made anew"] += bool(verdict.notices)
        problems += [f"crash at call {k}: {problem}" for problem in verdict.problems]
    return "crash at each call, and again while opening", counts, problems


def _fail(place: Path, steps: Sequence[Step], calls: int, every: int, seed: int) -> list[tuple[str, Counter[str], list[str]]]:
    results = []
    for name, (mode, error) in FAILURES.items():
        counts: Counter[str] = Counter()
        problems = []
        for k in range(1, calls + 1, every):
            folder = _empty(place / "fail")
            try:
                told, lines = ask_child(_work_through, folder, steps, mode, k, error)
                verdict = ask_child(verify, folder / "collection", [state_after(steps, len(steps))], k)
                lines += verdict.problems
            except (ChildDiedError, AssertionError) as failure:
                told, lines = Counter(), [f"{type(failure).__name__} {failure}"]
            counts.update(told)
            problems += [f"{name} at call {k}: {line}" for line in lines]
        results.append((name, counts, problems))
    return results


def _work_through(folder: Path, steps: Sequence[Step], mode: int, k: int, error: int) -> tuple[Counter[str], list[str]]:
    """Take all steps while the k-th call fails; a step that was refused is taken again, in the same process."""
    library = arm(folder / "collection", mode, k, error)
    told: Counter[str] = Counter()
    problems: list[str] = []
    collection = None
    number = 0
    attempts = 0
    while number < len(steps):
        try:
            if collection is None:
                collection = open_collection(folder / "collection")
            steps[number].run(collection)
        except TwinrankError as refused:
            told[f"told: {type(refused).__name__}"] += 1
            where = f"step {number} ({steps[number].kind}), {_place(library, folder)}"
        except BaseException as raw:
            told["told by a raw error"] += 1
            where = f"step {number} ({steps[number].kind}), {_place(library, folder)}"
            problems.append(f"{where}: raw {type(raw).__name__}: {raw}")
        else:
            number, attempts = number + 1, 0
            continue
        attempts += 1
        if attempts == 1 and collection is not None:
            problems += _still_searches(collection, folder, steps, number, where, told)
        arm(folder / "collection", NOTHING)
        if attempts == 3 and collection is not None:
            told["needed opening again"] += 1
            problems.append(f"{where}: the same object could not go on")
            collection = None
        if attempts > 5:
            problems.append(f"{where}: gave up")
            return told, problems
    told["calls that failed"] += bool(library.torture_hits()) or sum(told.values()) > 0
    if collection is not None:
        collection.close()
    return told, problems


def _still_searches(
    collection: Any, folder: Path, steps: Sequence[Step], number: int, where: str, told: Counter[str]
) -> list[str]:
    """A search right after a failure, the disk still failing: what was acknowledged is found, or the reason is told."""
    state = state_after(steps, number)
    sure = [name for name in state if name not in steps[number].ids and name not in {d.id for d in steps[number].documents}]
    try:
        for name in sure[:2]:
            hits = collection.search(state[name].text.split()[0], 100).hits
            if name not in [hit.id for hit in hits]:
                return [f"{where}: {name}, acknowledged, is not found after the failure"]
    except TwinrankError as refused:
        told[f"search refused: {type(refused).__name__}"] += 1
    except BaseException as raw:
        return [f"{where}: a search then raised raw {type(raw).__name__}: {raw}"]
    return []


def _place(library: Any, folder: Path) -> str:
    return f"kind {library.torture_hit_kind()} of {library.torture_hit_path().decode().replace(str(folder), '')}"


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
