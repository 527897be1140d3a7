"""The server as an ASGI application: every router on one collection, behind one door."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from twinrank import __version__
from twinrank.collection import Collection
from twinrank.errors import TwinrankError
from twinrank.serve.door import Door
from twinrank.serve.models import embedder_of, reranker_of
from twinrank.serve.refusals import Refusal, refusal_of
from twinrank.serve.settings import Settings
from twinrank.serve.shapes import ERRORS
from twinrank.serve.state import KEY_SCHEMES, State

ROUTERS = ("search", "documents", "embeddings", "rerank", "answers", "health", "metrics", "page")
"""Modules of this room with a function `router`."""
UNROUTED = {
    404: "there is nothing at this address; /openapi.json says what there is",
    405: "this address does not take this method; /openapi.json says which it takes",
}
"""What FastAPI's own refusals are in words."""
WARMING = "what is this collection about?"


def create_app(collection: Collection, settings: Settings | None = None) -> FastAPI:
    """The application; it opens the models when it starts, unless `warm` did, and closes the collection when it ends."""
    state = State(collection, settings or Settings())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if not state.ready:
            await state.encode(lambda: warm(state))
        yield
        state.close()

    app = FastAPI(
        title="twinrank",
        description="Search one collection of documents.",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
        responses=ERRORS,
    )
    app.state.twinrank = state
    for name in (*ROUTERS, *(["admin"] if state.settings.admin else [])):
        if find_spec(f"twinrank.serve.{name}") is not None:
            make: Callable[[State], APIRouter] = import_module(f"twinrank.serve.{name}").router
            app.include_router(make(state))
    _tell_errors(app)
    _describe_keys(app, state)
    if state.settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=state.settings.origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key"],
            expose_headers=["Retry-After"],
        )
    app.add_middleware(Door, settings=state.settings, metrics=state.metrics)
    return app


def warm(state: State) -> None:
    """Open the models and the indexes, so that the first request is as fast as the next one."""
    collection = state.collection
    embedder_of(collection)
    if (reranker := reranker_of(collection)) is not None:
        reranker.judge(WARMING, [WARMING])
    collection.search(WARMING, 1)
    state.ready = True


def _tell_errors(app: FastAPI) -> None:
    """Every error in one shape."""

    @app.exception_handler(HTTPException)
    async def refuse(request: Request, error: HTTPException) -> Response:
        if isinstance(error, Refusal):
            return error.response
        message, headers = UNROUTED.get(error.status_code, str(error.detail)), error.headers
        # Starlette names the methods of one route, where an address may have several.
        if error.status_code == 405 and (methods := _methods_at(app, request.url.path)):
            headers = {"Allow": ", ".join(methods)}
        return Refusal(error.status_code, message, headers=headers).response

    @app.exception_handler(TwinrankError)
    async def refuse_error(_: Request, error: TwinrankError) -> Response:
        return refusal_of(error).response

    @app.exception_handler(RequestValidationError)
    async def refuse_shape(request: Request, error: RequestValidationError) -> Response:
        wrong = error.errors()
        if len(wrong) == 1 and wrong[0]["loc"] == ("body",) and "json" not in request.headers.get("content-type", ""):
            return Refusal(422, "the body is taken as JSON alone; send it with Content-Type: application/json").response
        return Refusal(422, _in_words(wrong)).response

    @app.exception_handler(RecursionError)
    async def refuse_depth(_: Request, error: RecursionError) -> Response:
        return Refusal(400, "what was given is nested too deeply").response


def _methods_at(app: FastAPI, path: str) -> list[str]:
    """The methods that an address takes, by the description."""
    described = app.openapi()["paths"].items()
    patterns = ((re.sub(r"\\{\w+\\}", ".+", re.escape(template)), methods) for template, methods in described)
    return sorted({method.upper() for pattern, methods in patterns if re.fullmatch(pattern, path) for method in methods})


def _in_words(errors: Sequence[Any]) -> str:
    """The first thing that is wrong: where, and what was expected; never what came, which may be a document."""
    if not errors:
        return "the request does not have the expected shape"
    first = errors[0]
    place = ".".join(str(part) for part in first["loc"][1:6] if len(str(part)) <= 100) or first["loc"][0]
    rest = f" ({len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{place}: {first['msg']}{rest}"


def _describe_keys(app: FastAPI, state: State) -> None:
    """The description says which keys a route asks for, where this server asks for any."""
    describe = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = describe()
            if state.settings.keys:
                schema.setdefault("components", {})["securitySchemes"] = KEY_SCHEMES
            else:
                for methods in schema["paths"].values():
                    for operation in methods.values():
                        operation.pop("security", None)
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]
