"""What an operator asks for, offered where it was switched on: check a collection, make its indexes anew."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Response

from twinrank.serve.refusals import as_json
from twinrank.serve.shapes import Asking
from twinrank.serve.state import State, writing_router


class Rebuilding(Asking):
    encode: bool = False
    """Cut and encode every document again too, by the recipe as it is."""


def router(state: State) -> APIRouter:
    routes = writing_router(prefix="/admin", tags=["admin"])
    collection = state.collection

    @routes.post("/check", response_model=dict[str, Any])
    async def check() -> Response:
        """Verify all that the collection has on disk: as `twinrank check --json` prints it."""
        report = await state.write(collection.check)
        return as_json({"ok": report.ok, **asdict(report)})

    @routes.post("/rebuild", response_model=dict[str, Any])
    async def rebuild(asked: Rebuilding) -> Response:
        """Make the indexes anew; with `encode`, the vectors too. The answer comes when it is done."""
        report = await state.write(lambda: collection.rebuild(encode=asked.encode))
        return as_json({} if report is None else asdict(report))

    return routes
