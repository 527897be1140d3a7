"""Run one torture, or all, at a chosen size: python tests/torture/drive.py kills 3000; prints what was found as JSON."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from time import perf_counter

HERE = Path(__file__).resolve().parent
FULL = {"kills": ["3000"], "calls": ["1"], "power": ["1"], "flips": ["1", "10000"], "history": ["100000"]}
"""The size of each part that `all` runs."""


def load() -> None:
    """Make the files of this folder the package `twinrank_torture`; they belong to no installed one."""
    spec = importlib.util.spec_from_file_location(
        "twinrank_torture", HERE / "__init__.py", submodule_search_locations=[str(HERE)]
    )
    assert spec is not None
    sys.modules["twinrank_torture"] = importlib.util.module_from_spec(spec)


def main(part: str, *numbers: str) -> int:
    if part == "all":
        return max(main(each, *sizes) for each, sizes in FULL.items())
    if "torture" not in os.environ.get("LD_PRELOAD", ""):
        from twinrank_torture.processes import build_shim

        folder = Path(tempfile.mkdtemp(prefix="torture-shim-"))
        try:
            environment = {"LD_PRELOAD": str(build_shim(folder)), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            command = [sys.executable, "-W", "ignore", __file__, part, *numbers]
            return os.spawnve(os.P_WAIT, sys.executable, command, {**os.environ, **environment})
        finally:
            shutil.rmtree(folder)
    started = perf_counter()
    module = importlib.import_module(f"twinrank_torture.{part}")
    found = module.torture(*map(int, numbers))
    problems = found.pop("problems")
    found = {"torture": part, **found, "seconds": round(perf_counter() - started, 1)}
    print(json.dumps({**found, "problems": len(problems), "first problems": problems[:20]}, indent=1))
    return 1 if problems else 0


if __name__ == "__main__":
    load()
    sys.exit(main(*sys.argv[1:]))
