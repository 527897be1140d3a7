"""The stores that these tests open, and the helpers of prepared.py, which no package holds, under a name of their own."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from twinrank.store import Store

if "twinrank_prepared" not in sys.modules:
    spec = importlib.util.spec_from_file_location("twinrank_prepared", Path(__file__).with_name("prepared.py"))
    assert spec is not None
    assert spec.loader is not None
    sys.modules["twinrank_prepared"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["twinrank_prepared"])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "papers", timeout=0.2) as opened:
        yield opened


@pytest.fixture
def viewed(store: Store) -> Store:
    store.add_view("small", model="hash", fingerprint="f1", dimension=4)
    return store
