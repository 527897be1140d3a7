"""Weaviate, simulated: its official client over REST and gRPC against weaviate_server.py."""

from __future__ import annotations

import runpy
from contextlib import contextmanager
from pathlib import Path

running = runpy.run_path(str(Path(__file__).with_name("weaviate_server.py")))["running"]


@contextmanager
def started():
    yield from running()
