"""What every router works with: the collection, threads to ask it in, and routes that look at a key before anything else.

A router's file has one function `router(state) -> APIRouter`, made by one of `open_router`, `reading_router`, `writing_router`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Literal, TypeVar

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute

from twinrank.collection import Collection
from twinrank.serve.body import Bodies, BoundedRequest
from twinrank.serve.keys import Right
from twinrank.serve.lanes import Lane
from twinrank.serve.metrics import Metrics
from twinrank.serve.refusals import Refusal
from twinrank.serve.settings import Settings

LOG = logging.getLogger("twinrank.serve")
T = TypeVar("T")
LaneName = Literal["search", "encode", "write", "model"]

ENCODING = 4
"""Threads that encode for each one that searches: 2.2 times the embeddings of as many (docs/serving.md)."""
KEY_SCHEMES: dict[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
"""The two ways of sending a key, as OpenAPI describes them."""
SECURITY: list[dict[str, list[str]]] = [{name: []} for name in KEY_SCHEMES]


class State:
    """One server's collection and settings, and the lanes in which its blocking work is done."""

    def __init__(self, collection: Collection, settings: Settings) -> None:
        self.collection = collection
        self.settings = settings
        self.bodies = Bodies(settings.limits.bodies)
        self.metrics = Metrics()
        self.ready = False
        threads, queue, wait = settings.threads, settings.queue, settings.waits.queue
        self.lanes: dict[LaneName, Lane] = {
            "search": Lane("search", threads, queue, wait),
            # Whoever embeds or reranks in bulk waits rather than being refused. What waits in a thread is what the next call of
            # the model takes together, so there are more of them.
            "encode": Lane("encode", ENCODING * threads, queue, wait, standing=queue),
            "write": Lane("write", 1, queue, settings.waits.change, standing=queue),
            # A language model elsewhere takes seconds; who waits for it does not hold a thread that searches.
            "model": Lane("model", 4, queue, wait),
        }

    async def search(self, ask: Callable[[], T]) -> T:
        """Ask the collection something, in a thread; refused at once (503) where too many wait. Reads only."""
        return await self._run("search", ask)

    async def encode(self, ask: Callable[[], T]) -> T:
        """Run a model, in a thread of those that are kept for it."""
        return await self._run("encode", ask)

    async def ask_model(self, ask: Callable[[], T]) -> T:
        """Ask the collection something that a language model elsewhere takes part in."""
        return await self._run("model", ask)

    async def write(self, change: Callable[[], T]) -> T:
        """Change the collection; one change at a time."""
        return await self._run("write", change)

    async def _run(self, lane: LaneName, work: Callable[[], T]) -> T:
        try:
            return await self.lanes[lane].run(work)
        finally:
            while self.collection.notices:
                LOG.warning("%s", self.collection.notices.pop(0))

    def close(self) -> None:
        for lane in self.lanes.values():
            lane.close()
        self.collection.close()


def state_of(request: Request) -> State:
    state: State = request.app.state.twinrank
    return state


def time_left(request: Request, deadline: float | None) -> float | None:
    """What is left of a deadline in milliseconds, counted from when the request came in; 0 where it has passed.

    Ask when the work begins, inside of the thread, so that the time in the queue counts.
    """
    if deadline is None:
        return None
    arrived: float = request.scope.get("twinrank.arrived", perf_counter())
    return max(0.0, deadline - 1000 * (perf_counter() - arrived))


@dataclass(frozen=True)
class Guard:
    """What is asked of a request before its body is read."""

    right: Right | None = None
    lane: LaneName | None = None

    def check(self, state: State, request: Request) -> None:
        if self.right is not None and state.settings.keys:
            _check_key(state, request, self.right)
        if self.lane is not None:
            state.lanes[self.lane].admit()


def _check_key(state: State, request: Request, right: Right) -> None:
    keys, key = state.settings.keys, key_of(request)
    if not key:
        message = "a key is needed: send it as `Authorization: Bearer KEY`, or as `X-API-Key: KEY`"
        raise Refusal(401, message, headers={"WWW-Authenticate": "Bearer"})
    if not keys.know(key):
        raise Refusal(401, "this key is not known here", headers={"WWW-Authenticate": "Bearer"})
    if not keys.allow(key, right):
        raise Refusal(403, "this key may read, and what was asked for changes the collection; use a key that may write")


def key_of(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "").strip()


def _guarded(guard: Guard) -> type[APIRoute]:
    class GuardedRoute(APIRoute):
        """Looks at key and queue before FastAPI reads the body, and bounds that."""

        def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
            if guard.right is not None:  # said in the OpenAPI description
                options["openapi_extra"] = {**(options.get("openapi_extra") or {}), "security": SECURITY}
            super().__init__(path, endpoint, **options)

        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def guarded(request: Request) -> Response:
                state = state_of(request)
                guard.check(state, request)
                limits, seconds = state.settings.limits, state.settings.waits.body
                limit = limits.body if guard.lane in ("encode", "write") else limits.question
                bounded = BoundedRequest(request.scope, request.receive, limit=limit, seconds=seconds, bodies=state.bodies)
                try:
                    return await handle(bounded)
                finally:
                    bounded.release()

            return guarded

    return GuardedRoute


def open_router(**options: Any) -> APIRouter:
    """For what anybody may fetch: whether the server lives, and the page's own files. Never for what a collection holds."""
    return APIRouter(route_class=_guarded(Guard()), **options)


def reading_router(lane: LaneName | None = "search", **options: Any) -> APIRouter:
    """For what a key that may read is enough for; `lane` is where its work is done."""
    return APIRouter(route_class=_guarded(Guard("read", lane)), **options)


def writing_router(lane: LaneName | None = "write", **options: Any) -> APIRouter:
    """For what changes the collection."""
    return APIRouter(route_class=_guarded(Guard("write", lane)), **options)
