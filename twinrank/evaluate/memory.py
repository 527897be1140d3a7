"""What a process holds in memory at its peak: a fresh one that opens a collection and searches, and this one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from twinrank.errors import TwinrankError
from twinrank.recipe import Recipe

CHILD = """
import json, sys
from twinrank.collection import Collection
from twinrank.recipe import Recipe
place, recipe, queries = json.load(sys.stdin)
with Collection(place, recipe=Recipe.parse(recipe), create=False) as collection:
    for query in queries:
        collection.search(query, 10)
from twinrank.evaluate.memory import own_peak
print(own_peak())
"""


def peak_memory(place: Path | str, recipe: Recipe, queries: Sequence[str]) -> float:
    """Megabytes at the peak of a process that opens the collection and answers these queries; the interpreter included."""
    given = json.dumps([str(place), recipe.to_toml(), list(queries)])
    child = subprocess.run([sys.executable, "-c", CHILD], input=given, capture_output=True, text=True, check=False)
    if child.returncode:
        raise TwinrankError(f"a process that was to search {place} failed: {child.stderr.strip().splitlines()[-1]}")
    return float(child.stdout)


def own_peak() -> float:
    """Megabytes that this process has held at most."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would count what the parent held when it forked
        line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
