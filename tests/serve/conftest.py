"""What the tests of the server share: a collection with every kind of model, an application, and a server on a free port."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="FastAPI is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")
pytest.importorskip("prometheus_client", reason="prometheus-client is not installed")

from fastapi import FastAPI
from fastapi.testclient import TestClient

from twinrank import Collection
from twinrank.recipe import Recipe
from twinrank.serve.app import create_app
from twinrank.serve.keys import Keys
from twinrank.serve.run import _Server
from twinrank.serve.settings import Settings

READER, WRITER = "a-key-that-may-read", "a-key-that-may-write"
KEYS = Keys.of(read=[READER], write=[WRITER])
DOCUMENTS = [
    {"id": "zinc", "title": "Zinc", "text": "Zinc lozenges may shorten a common cold by a day.", "year": 2021, "lang": "en"},
    {"id": "honey", "title": "Honey", "text": "Honey eases a cough at night.", "year": 2012, "lang": "en"},
    {"id": "miel", "title": "Miel", "text": "Le miel calme la toux.", "year": 2018, "lang": "fr"},
    {"id": "a/rest", "text": "Rest and water help against most things, a cold among them."},
]

Opening = Callable[..., Collection]
Serving = Callable[..., TestClient]


def recipe_text(model: Path, scorer: Path | None = None, tokens: bool = False) -> str:
    text = f'[encoder]\nmodel = "{model}"\n'
    if tokens:
        text += '[tokens]\nformat = "int8"\n'
    if scorer is not None:
        text += f'[[rerank]]\nkind = "cross-encoder"\nmodel = "{scorer}"\ncandidates = 20\n'
    return text


@pytest.fixture(scope="session", autouse=True)
def _no_traces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Caches go into a folder of the run, and no test asks the network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("TWINRANK_THREADS", "1")
        yield


@pytest.fixture(scope="session")
def opened(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_cross_encoder: Path) -> Opening:
    """A new collection: with an encoder, and as asked with a cross-encoder and with token vectors; closed by who serves it."""

    def open_collection(*, rerank: bool = True, tokens: bool = False, words: bool = False) -> Collection:
        recipe = Recipe.parse(recipe_text(tiny_model, tiny_cross_encoder if rerank else None, tokens))
        options: dict[str, Any] = {"model": "none"} if words else {"recipe": recipe}
        collection = Collection(tmp_path_factory.mktemp("served") / "notes", **options)
        collection.add(DOCUMENTS)
        return collection

    return open_collection


@pytest.fixture(scope="session")
def served(opened: Opening) -> Iterator[Serving]:
    """A client of an application in this process."""
    with ExitStack() as stack:

        def serve(collection: Collection | None = None, *, key: str = "", **settings: Any) -> TestClient:
            app = create_app(opened() if collection is None else collection, Settings(**settings))
            client = TestClient(app, base_url="http://localhost:8080", headers={"X-API-Key": key} if key else {})
            return stack.enter_context(client)

        yield serve


@pytest.fixture(scope="session")
def client(served: Serving) -> TestClient:
    """For what changes nothing."""
    return served()


@pytest.fixture
def fresh(served: Serving) -> TestClient:
    """For what changes something."""
    return served()


@contextmanager
def running(app: FastAPI, settings: Settings) -> Iterator[str]:
    """uvicorn in a thread; gives its address."""
    addresses: list[str] = []
    begun = threading.Event()

    def told(sentence: str) -> None:
        addresses.append(sentence.rpartition(" ")[2])
        begun.set()

    server = _Server(app, settings, told)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    assert begun.wait(30)
    try:
        yield addresses[0]
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture
def live(opened: Opening) -> Iterator[Callable[..., str]]:
    """The address of a server on a free port."""
    with ExitStack() as stack:

        def serve(collection: Collection | None = None, **settings: Any) -> str:
            chosen = Settings(port=0, **settings)
            app = create_app(opened() if collection is None else collection, chosen)
            return stack.enter_context(running(app, chosen))

        yield serve
