"""Whether the server lives, and whether it is ready to be asked."""

from __future__ import annotations

import asyncio
from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel

from twinrank.errors import TwinrankError
from twinrank.serve.refusals import Refusal, as_json
from twinrank.serve.state import State, open_router


class Health(BaseModel):
    status: Literal["ok", "ready"]


def router(state: State) -> APIRouter:
    routes = open_router(tags=["health"])

    @routes.get("/health", response_model=Health)
    async def health() -> Response:
        """That the process answers; asks nothing of the collection."""
        return as_json({"status": "ok"})

    @routes.get("/ready", response_model=Health)
    async def ready() -> Response:
        """That the models are open and the collection can be read; 503 before, and where it no longer can be."""
        if not state.ready:
            raise Refusal(503, "the models are being opened; ask again in a moment", headers={"Retry-After": "1"})
        try:
            await asyncio.to_thread(state.collection.store.sequence)
        except TwinrankError as error:
            raise Refusal(
                503, f"the collection cannot be read: {type(error).__name__}", headers={"Retry-After": "5"}
            ) from error
        return as_json({"status": "ready"})

    return routes
