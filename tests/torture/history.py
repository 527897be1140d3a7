"""Several processes at once: writers take turns, readers see at every instant one committed state, and never an old one."""

from __future__ import annotations

import mmap
import os
import random
import shutil
import signal
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np
from twinrank_torture.processes import ask as ask_child
from twinrank_torture.processes import scratch, start
from twinrank_torture.verify import verify
from twinrank_torture.workload import make_document, open_collection

from twinrank.errors import CollectionBusyError
from twinrank.types import Document

GROUPS = 12
"""Documents come in groups that are always written together: half of a group, or two versions in it, is a torn state."""
MEMBERS = 3
WRITERS, READERS = 2, 3
ABSENT = 0

# One block of shared memory: for each group the version that was acknowledged last (negative: deleted), what each process
# has done, and whether all shall stop.
COUNTS = GROUPS
STOP = GROUPS + WRITERS + READERS


def torture(operations: int = 100_000, seed: int = 9) -> dict[str, Any]:
    """`operations` by two writers and three readers; one writer is killed now and then, and another takes its place."""
    place = scratch()
    shared = np.frombuffer(mmap.mmap(-1, 8 * (STOP + 1)), np.int64)
    folder, log = place / "collection", place / "problems"
    log.touch()
    chosen = random.Random(seed)
    kills = 0
    try:
        ask_child(_begin, folder)
        children = {number: start(_write, folder, log, shared, number, seed) for number in range(WRITERS)}
        for number in range(WRITERS, WRITERS + READERS):
            children[number] = start(_read, folder, log, shared, number, seed)
        last_kill = monotonic()
        while shared[COUNTS:STOP].sum() < operations and not log.stat().st_size:
            sleep(0.05)
            if monotonic() - last_kill > 5:
                victim = chosen.randrange(WRITERS)
                os.kill(children[victim], signal.SIGKILL)
                os.waitpid(children[victim], 0)
                children[victim] = start(_write, folder, log, shared, victim, seed + kills + 1)
                kills, last_kill = kills + 1, monotonic()
        shared[STOP] = 1
        for child in children.values():
            _, status = os.waitpid(child, 0)
            if status:
                log.open("a").write(f"a process ended with status {status}\n")
        verdict = ask_child(verify, folder, [_final(folder, shared)], seed)
    finally:
        counts = shared[COUNTS:STOP].tolist()
        problems = log.read_text().splitlines() if log.exists() else []
        shutil.rmtree(place, ignore_errors=True)
    return {
        "operations": sum(counts),
        "writes": sum(counts[:WRITERS]),
        "searches": sum(counts[WRITERS:]),
        "writers killed": kills,
        "problems": [*problems, *verdict.problems],
    }


def _begin(folder: Path) -> None:
    open_collection(folder).close()


def _group(group: int, version: int) -> list[Document]:
    members = []
    for member in range(MEMBERS):
        document = make_document(group * 100 + member, version, 8)
        members.append(Document(document.id, f"group{group} version{version} {document.text}", fields={"version": version}))
    return members


def _write(folder: Path, log: Path, shared: Any, number: int, seed: int) -> None:
    """Write groups of this writer's own, whole, and tell what was acknowledged; what a dead one left is taken up."""
    chosen = random.Random(seed * 10 + number)
    with open_collection(folder) as collection:
        for group in range(number, GROUPS, WRITERS):  # what the one before had in hand when it was killed
            there = collection.get([_group(group, 1)[0].id])[0]
            if there is not None:
                shared[group] = max(int(str(there.fields["version"])), int(shared[group]))
            elif shared[group] > 0:
                shared[group] = -int(shared[group]) - 1
        while not shared[STOP]:
            group = chosen.randrange(number, GROUPS, WRITERS)
            there = collection.get([document.id for document in _group(group, 1)])[0]
            version = max(abs(int(shared[group])), 0 if there is None else int(str(there.fields["version"]))) + 1
            try:
                if there is not None and chosen.random() < 0.2:
                    collection.delete([document.id for document in _group(group, 1)])
                    version = -version
                else:
                    collection.add(_group(group, version))
            except CollectionBusyError:
                continue
            shared[group] = version
            shared[COUNTS + number] += 1


def _read(folder: Path, log: Path, shared: Any, number: int, seed: int) -> None:
    chosen = random.Random(seed * 10 + number)
    with open_collection(folder) as collection:
        while not shared[STOP]:
            group = chosen.randrange(GROUPS)
            before = int(shared[group])
            hits = collection.search(f"group{group}", GROUPS * MEMBERS).hits  # all: vectors are asked too
            mine = [hit for hit in hits if hit.text.startswith(f"group{group} ")]
            after = int(shared[group])
            versions = {int(str(hit.fields["version"])) for hit in mine}
            spoken = {int(hit.text.split()[1].removeprefix("version")) for hit in mine}
            told = f"group {group}, acknowledged {before} before and {after} after: found {len(mine)} of {sorted(versions)}"
            problem = ""
            if versions != spoken:
                problem = f"texts {sorted(spoken)} with the fields of {sorted(versions)}"
            elif mine and (len(mine) != MEMBERS or len(versions) != 1):
                problem = "a torn state"
            elif mine and min(versions) < abs(before) - (before > 0) * 0 and before > 0:
                problem = "an old state"
            elif not mine and before > 0 and before == after and not _may_be_deleted(collection, group):
                problem = "an acknowledged group is not found"
            elif mine and before < 0 and min(versions) <= -before - 1:
                problem = "a deleted group is found"
            if problem:
                with log.open("a") as file:
                    file.write(f"{problem}: {told}\n")
            shared[COUNTS + number] += 1


def _may_be_deleted(collection: Any, group: int) -> bool:
    """A delete may be committed and not yet acknowledged; the store then says so."""
    return all(document is None for document in collection.get([document.id for document in _group(group, 1)]))


def _final(folder: Path, shared: Any) -> dict[str, Document]:
    """The state that the shared memory tells; nobody died at the end, so that it is the only one allowed."""
    state = {}
    for group in range(GROUPS):
        if shared[group] > 0:
            state.update({document.id: document for document in _group(group, int(shared[group]))})
    return state
