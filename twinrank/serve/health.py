"""Whether the server lives, and whether it is ready to be asked."""

from __future__ import annotations

from fastapi import APIRouter, Response

from twinrank.serve.refusals import as_json
from twinrank.serve.state import State, open_router


def router(state: State) -> APIRouter:
    routes = open_router(tags=["health"])

    @routes.get("/health")
    async def health() -> Response:
        """That the process answers; asks nothing of the collection."""
        return as_json({"status": "ok"})

    return routes
