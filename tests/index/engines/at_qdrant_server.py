"""The official client over HTTP, and behind a simulated wire Qdrant's own engine."""

from __future__ import annotations

import runpy
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def started() -> Iterator[Callable[[str], str]]:
    for library in ("qdrant_edge", "qdrant_client"):
        pytest.importorskip(library, reason=f"{library} is not installed: pip install 'twinrank[qdrant]'")
    server_of = runpy.run_path(str(Path(__file__).with_name("qdrant_server.py")))["QdrantServer"]
    with tempfile.TemporaryDirectory() as folder, server_of(Path(folder)) as server:
        yield lambda name: f"qdrant://127.0.0.1:{server.port}/{name}"
