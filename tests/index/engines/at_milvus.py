"""Milvus 2.3.5 standalone, from the PyPI distribution milvus, on free loopback ports and a data folder of its own."""

from __future__ import annotations

import importlib.util
import lzma
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

SETTINGS = {"proxy.timeTickInterval": 20}
"""Milliseconds between two ticks of the server's clock, for which a consistent read waits; 200 where nobody says otherwise."""

ETCD = """
listen-client-urls: {clients}
advertise-client-urls: {clients}
listen-peer-urls: {peers}
initial-advertise-peer-urls: {peers}
initial-cluster: default={peers}
"""
"""Of the etcd within Milvus, which takes its fixed ports where nobody says otherwise."""


class Server:
    """One server: started, stopped, killed, started again over the same data.

    Of the distribution its program, packed, and the template of its settings are used. Its own wrapper takes the next free
    ports from fixed ones on, which another server may be about to take, and leaves etcd where it is.
    """

    def __init__(self, folder: Path) -> None:
        import milvus

        self.folder = folder
        (folder / "bin").mkdir()
        for packed in (Path(milvus.__file__).parent / "data" / "bin").glob("*.lzma"):
            program = folder / "bin" / packed.stem
            with lzma.open(packed) as source, program.open("wb") as target:
                shutil.copyfileobj(source, target)
            program.chmod(0o755)
        names = [name for name in milvus.MilvusServerConfig().configurable_items if name.endswith("_port")]
        *ports, self.health, etcd, peers = free_ports(len(names) + 3)
        config = milvus.MilvusServerConfig(data_dir=str(folder), **dict(zip(names, ports, strict=True)))
        for name, value in SETTINGS.items():
            config.set(name, value)
        config.resolve()
        self.port = config.get("proxy_port")
        (folder / "etcd.yaml").write_text(ETCD.format(clients=f"http://127.0.0.1:{etcd}", peers=f"http://127.0.0.1:{peers}"))
        self.process: subprocess.Popen[bytes] | None = None

    def address(self, name: str) -> str:
        return f"milvus://127.0.0.1:{self.port}/{name}"

    def start(self) -> None:
        environment = os.environ | {
            "DEPLOY_MODE": "STANDALONE",
            "METRICS_PORT": str(self.health),
            "ETCD_CONFIG_PATH": str(self.folder / "etcd.yaml"),
            "MILVUS_RUN_DIR": str(self.folder / "run"),
            "LD_LIBRARY_PATH": str(self.folder / "bin"),
        }
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.folder / "bin" / "milvus", "run", "standalone"], cwd=self.folder, env=environment, stdout=log, stderr=log
            )
        for _ in range(1200):
            time.sleep(0.1)
            if self.process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.health}/healthz", timeout=5) as answer:
                    if b"OK" in answer.read():
                        return
            except (urllib.error.URLError, OSError):
                continue
        raise TimeoutError((self.folder / "log").read_text()[-4000:])

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()


def free_ports(count: int) -> list[int]:
    """All at once, so that none is given twice."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextmanager
def running() -> Iterator[Server]:
    for needed in ("pymilvus", "milvus"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed: pip install pymilvus milvus==2.3.5")
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
