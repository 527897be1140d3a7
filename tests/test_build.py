"""Without a compiler twinrank installs all the same, as plain Python, and says that the engine is not there."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = "from twinrank.models import native; print(native.available(), native.paths())"


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("scikit_build_core") is None, reason="scikit-build-core is not installed here")
def test_it_installs_without_a_compiler(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    for name in ("engine", "twinrank"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in ("CMakeLists.txt", "pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, source)
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-build-isolation",
        "--no-deps",
        "--no-index",
        "--target",
        str(target),
    ]
    missing = {"CC": "/no/such/compiler", "CXX": "/no/such/compiler"}
    done = subprocess.run([*install, str(source)], env={**os.environ, **missing}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # -S keeps an editable install of twinrank out of the way; the dependencies are found by PYTHONPATH.
    paths = os.pathsep.join([str(target), sysconfig.get_path("purelib")])
    asked = subprocess.run(
        [sys.executable, "-S", "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": paths},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert asked.stdout.strip() == "False []", asked.stderr
