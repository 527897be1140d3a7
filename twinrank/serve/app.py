"""The server as an ASGI application: every router on one collection."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib import import_module
from importlib.util import find_spec

from fastapi import APIRouter, FastAPI, Request, Response

from twinrank import __version__
from twinrank.collection import Collection
from twinrank.errors import TwinrankError
from twinrank.serve.refusals import Refusal, refusal_of
from twinrank.serve.settings import Settings
from twinrank.serve.state import State

ROUTERS = ("health", "page", "answers")
"""Modules of this room with a function `router`."""


def create_app(collection: Collection, settings: Settings | None = None) -> FastAPI:
    """The application; it closes the collection when it ends."""
    state = State(collection, settings or Settings())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        state.close()

    app = FastAPI(title="twinrank", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.twinrank = state
    for name in ROUTERS:
        if find_spec(f"twinrank.serve.{name}") is not None:
            make: Callable[[State], APIRouter] = import_module(f"twinrank.serve.{name}").router
            app.include_router(make(state))

    @app.exception_handler(Refusal)
    async def refuse(_: Request, refusal: Refusal) -> Response:
        return refusal.response

    @app.exception_handler(TwinrankError)
    async def refuse_error(_: Request, error: TwinrankError) -> Response:
        return refusal_of(error).response

    return app
