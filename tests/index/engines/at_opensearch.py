"""OpenSearch, simulated: its official client over HTTP against lucene_server.py."""

from __future__ import annotations

import runpy
from contextlib import contextmanager
from pathlib import Path

running = runpy.run_path(str(Path(__file__).with_name("lucene_server.py")))["running"]


@contextmanager
def started():
    yield from running("opensearch", "opensearchpy")
