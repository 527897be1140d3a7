"""The native engine as a module: whether it was compiled, its instruction sets, and how many threads it may use."""

from __future__ import annotations

import importlib
import os
from types import ModuleType

from twinrank.errors import InputError

try:
    module: ModuleType | None = importlib.import_module("twinrank._engine")
except ImportError:  # not compiled when twinrank was installed: NumPy does the same, more slowly
    module = None


def wished_path(path: str | None = None) -> str:
    """The instruction set that is asked for: by argument, else by TWINRANK_ENGINE; empty for the best that this CPU has."""
    return path or os.environ.get("TWINRANK_ENGINE", "")


def default_threads() -> int:
    """`TWINRANK_THREADS`, or as many threads as this process may use cores."""
    wish = os.environ.get("TWINRANK_THREADS", "")
    if not wish:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not wish.isdecimal() or int(wish) < 1:
        raise InputError(f"TWINRANK_THREADS is {wish!r}; a whole number from 1 on was expected.")
    return int(wish)
