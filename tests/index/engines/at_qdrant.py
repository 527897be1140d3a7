"""Qdrant's own engine within this process, Qdrant Edge."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def started() -> Iterator[Callable[[str], str]]:
    pytest.importorskip("qdrant_edge", reason="qdrant-edge-py is not installed: pip install 'twinrank[qdrant]'")
    with tempfile.TemporaryDirectory() as folder:
        yield lambda name: f"qdrant+local://{folder}/{name}"
