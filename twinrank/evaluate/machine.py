"""What figures were taken on: processor, cores, threads, the engine's instruction set, and how busy the machine was."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import numpy as np

from twinrank import __version__
from twinrank.engine import default_threads, wished_path
from twinrank.models import native


def describe_machine() -> dict[str, str]:
    """Names and what they are, for a report; nothing that tells whose machine it is."""
    told = {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1),
        "threads": str(default_threads()),
        "engine": _engine(),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__}",
        "twinrank": __version__,
    }
    if hasattr(os, "getloadavg"):
        told["load"] = f"{os.getloadavg()[1]:.1f} processes wanted a core, on average over the last five minutes"
    return told


def _processor() -> str:
    facts = Path("/proc/cpuinfo")
    if facts.exists():
        for line in facts.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "unknown"


def _engine() -> str:
    if wished_path() == "numpy":
        return "NumPy, because TWINRANK_ENGINE asks for it"
    if not native.available():
        return "NumPy; the native engine was not compiled"
    return f"native, {wished_path() or native.paths()[0]}"
