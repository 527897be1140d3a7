"""Every engine that can be run here, by an address of a collection in it: what is in at_NAME.py beside this."""

from __future__ import annotations

import importlib.util
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType

import pytest

from twinrank.index.engines import Engine, open_engine

collect_ignore_glob = ["at_*.py", "*_server.py"]  # no tests, and they import what need not be installed

WANTED = os.environ.get("TWINRANK_ENGINES", "").split()
"""Names of those to be run; none: all that can be."""

PLACES = {
    name: path
    for path in sorted(Path(__file__).parent.glob("at_*.py"))
    if (name := path.stem.removeprefix("at_")) in (WANTED or [name])
}


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"twinrank_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session", params=PLACES)
def address_of(request: pytest.FixtureRequest) -> Iterator[Callable[[str], str]]:
    """Name of a collection → its address in an engine that is running; skipped, saying so, where it cannot be run."""
    module = load(PLACES[request.param])
    started: AbstractContextManager[Callable[[str], str]] = module.started()
    with started as address:
        yield address


@pytest.fixture
def address(address_of: Callable[[str], str]) -> Iterator[str]:
    """Of a collection that is not there yet; it is dropped in the end."""
    place = address_of(f"t{uuid.uuid4().hex[:12]}")
    yield place
    engine = open_engine(place)
    engine.drop()
    engine.close()


@pytest.fixture
def engine(address: str) -> Iterator[Engine]:
    opened = open_engine(address)
    yield opened
    opened.close()
