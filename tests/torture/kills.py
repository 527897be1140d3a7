"""SIGKILL at random instants, twice in a row: while a process works, and while the next one opens what it left."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from time import sleep
from typing import Any

from twinrank_torture.processes import ask as ask_child
from twinrank_torture.processes import kill, scratch, start
from twinrank_torture.verify import verify
from twinrank_torture.workload import acknowledged, allowed_states, make_steps, work

STEPS = 400
LONGEST = 0.4
"""Seconds until the first kill, at most."""
LONGEST_RECOVERY = 0.12
"""Seconds until the second one, at most: opening and catching up take about that."""
ROUNDS = 30
"""Kills, two by two, that one collection goes through before another begins."""


def torture(runs: int, seed: int = 1) -> dict[str, Any]:
    """`runs` kills; what was found of the collection after every second one."""
    chosen = random.Random(seed)
    counts: Counter[str] = Counter()
    problems: list[str] = []
    notices: Counter[str] = Counter()
    slowest = most_work = 0.0
    place = scratch()
    try:
        for number in range(runs // 2):
            if number % ROUNDS == 0:
                shutil.rmtree(place)
                place.mkdir()
                steps = make_steps(chosen.randrange(10**9), STEPS)
            folder, log = place / "collection", place / "log"
            before, _ = acknowledged(log)
            for longest in (LONGEST, LONGEST_RECOVERY):
                done, _ = acknowledged(log)
                child = start(work, folder, log, steps, done)
                sleep(chosen.uniform(0, longest))
                counts["kills" if kill(child) else "ended before"] += 1
            done, begun = acknowledged(log)
            states = allowed_states(steps, done, begun)
            verdict = ask_child(verify, folder, states, number)
            counts["verified"] += 1
            counts["steps acknowledged"] += done - before
            counts["in flight, absent" if verdict.state == 0 else "in flight, there in part or whole"] += begun
            slowest, most_work = max(slowest, verdict.opening), max(most_work, verdict.opening_work)
            notices.update(notice.split(":")[0] for notice in verdict.notices)
            problems += [f"seed {seed}, kill {2 * number + 2}: {problem}" for problem in verdict.problems]
            if verdict.opening_work > 2:
                problems.append(f"seed {seed}, kill {2 * number + 2}: opening took {verdict.opening_work:.1f} s of work")
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return {
        **counts,
        "slowest opening, s": round(slowest, 3),
        "most work for an opening, s": round(most_work, 3),
        "notices": dict(notices),
        "problems": problems,
    }
