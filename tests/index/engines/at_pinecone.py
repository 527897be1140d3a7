"""Pinecone, simulated: its official client over HTTP against pinecone_server.py."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def started() -> Iterator[Callable[[str], str]]:
    pytest.importorskip("pinecone", reason="pinecone is not installed: pip install 'twinrank[pinecone]'")
    with runpy.run_path(str(Path(__file__).with_name("pinecone_server.py")))["PineconeServer"]() as server:
        yield lambda name: f"pinecone://127.0.0.1:{server.port}/exam/{name}"
