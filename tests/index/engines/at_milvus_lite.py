"""Milvus Lite's server, from the PyPI distribution milvus-lite, on a free loopback port and a data folder of its own."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class Server:
    """One server: started, stopped, killed, started again over the same data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    def address(self, name: str) -> str:
        return f"milvus://127.0.0.1:{self.port}/{name}"

    def start(self) -> None:
        command = ["-m", "milvus_lite", "server", "--data-dir", "data.db", "--host", "127.0.0.1", "--port", str(self.port)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([sys.executable, *command], cwd=self.folder, stdout=log, stderr=log)
        for _ in range(600):
            time.sleep(0.1)
            with socket.socket() as asked:
                if asked.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
        raise TimeoutError((self.folder / "log").read_text())

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()


@contextmanager
def running() -> Iterator[Server]:
    for needed in ("pymilvus", "milvus_lite"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed: pip install 'twinrank[milvus]'")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        server = Server(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.kill()


@contextmanager
def started() -> Iterator[Callable[[str], str]]:
    with running() as server:
        yield server.address
