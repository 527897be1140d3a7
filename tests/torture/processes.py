"""Children of a warm process: what a function returns in one, and one that is left to run until it is killed."""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

HERE = Path(__file__).resolve().parent
NOTHING, COUNT, EXIT, FAIL, FAIL_ON, SHORT, LOCKS = range(7)
"""What the shim does, as shim.c numbers it."""


class ChildDiedError(Exception):
    """A child ended without an answer; holds its status."""


def build_shim(folder: Path) -> Path:
    """Compile shim.c; raises OSError or CalledProcessError where there is no compiler."""
    library = folder / "shim.so"
    command = ["cc", "-O1", "-shared", "-fPIC", "-D_LARGEFILE64_SOURCE", "-o", str(library), str(HERE / "shim.c"), "-ldl"]
    subprocess.run([*command, "-lpthread"], check=True, capture_output=True)
    return library


def shim() -> Any:
    """The preloaded shim of this process."""
    library = ctypes.CDLL(None)
    library.torture_counted.restype = ctypes.c_long
    library.torture_hits.restype = ctypes.c_long
    library.torture_hit_path.restype = ctypes.c_char_p
    library.torture_mark.argtypes = [ctypes.c_long]
    library.torture_arm.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_long, ctypes.c_int, ctypes.c_int]
    return library


def arm(folder: Path, mode: int, k: int = 0, error: int = 0, journal: int = -1) -> Any:
    library = shim()
    library.torture_arm(str(folder).encode(), mode, k, error, journal)
    return library


def start(function: Callable[..., object], *arguments: object) -> int:
    """Fork a child that runs the function; returns its process id. What it prints goes nowhere."""
    child = os.fork()
    if child == 0:
        _run_quietly(function, arguments, None)
    return child


def ask(function: Callable[..., Any], *arguments: object) -> Any:
    """What the function returns in a child of its own; raises ChildDiedError where the child ended without an answer."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _run_quietly(function, arguments, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    if not answer:
        raise ChildDiedError(os.waitstatus_to_exitcode(status))
    good, value = pickle.loads(answer)
    if not good:
        raise AssertionError(value)
    return value


def _run_quietly(function: Callable[..., object], arguments: tuple[object, ...], answer: int | None) -> NoReturn:
    code = 1
    try:
        if os.environ.get("TORTURE_LOUD") is None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 2)
        try:
            result = (True, function(*arguments))
            code = 0
        except BaseException:
            result = (False, traceback.format_exc())
        if answer is not None:
            with os.fdopen(answer, "wb") as pipe:
                pickle.dump(result, pipe)
    finally:
        os._exit(code)


def kill(child: int) -> bool:
    """SIGKILL; False where it had ended by itself."""
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def scratch() -> Path:
    """A folder in memory where there is one: a killed process leaves the page cache as it is, on whatever disk."""
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="twinrank-torture-", dir=memory if os.access(memory, os.W_OK) else None))


def python() -> list[str]:
    return [sys.executable, "-W", "ignore"]
