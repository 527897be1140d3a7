"""Documents: read one, add some, delete some; and what the collection says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import Field
from typing_extensions import TypedDict

from twinrank.collection import Collection
from twinrank.ingest import AddReport
from twinrank.serve.refusals import Refusal, as_json
from twinrank.serve.settings import Limits
from twinrank.serve.shapes import Asking, DocumentId
from twinrank.serve.state import State, reading_router, writing_router
from twinrank.status import Status
from twinrank.types import Document


class Adding(Asking):
    documents: list[dict[str, Any]] = Field(
        description="Each with an `id` and a `text`, if wanted a `title`, and further fields, to be filtered by.",
        max_length=Limits.documents,
        json_schema_extra={"examples": [[{"id": "a1", "title": "Zinc", "text": "Zinc may shorten a cold.", "year": 2021}]]},
    )


class Deleting(Asking):
    ids: Annotated[list[DocumentId], Field(max_length=Limits.documents, fail_fast=True)]


class Deleted(TypedDict):
    deleted: list[str]
    missing: list[str]


def router(state: State) -> APIRouter:
    routes = APIRouter()
    routes.include_router(_reading(state))
    routes.include_router(_writing(state))
    return routes


def _reading(state: State) -> APIRouter:
    routes = reading_router(tags=["documents"])
    collection = state.collection

    @routes.get("/status", response_model=Status)
    async def status() -> Response:
        """What the collection holds and what state its parts are in: as `twinrank status --json` prints it."""
        return as_json(await state.search(lambda: asdict(collection.status())))

    @routes.get("/documents", response_model=Document)
    async def get_by_query(id: DocumentId) -> Response:
        """One document, whatever its id; a path cannot say `..`."""
        return as_json(await state.search(lambda: _get(collection, id)))

    @routes.get("/documents/{id:path}", response_model=Document)
    async def get(id: str) -> Response:
        """One document, as it was given."""
        return as_json(await state.search(lambda: _get(collection, id)))

    return routes


def _writing(state: State) -> APIRouter:
    routes = writing_router(tags=["documents"])
    collection = state.collection

    @routes.post("/documents", response_model=AddReport)
    async def add(asked: Adding) -> Response:
        """Add documents, or replace those of the same ids: all of them, or none where one cannot be taken."""
        return as_json(await state.write(lambda: asdict(collection.add(asked.documents))))

    @routes.post("/documents/delete", response_model=Deleted)
    async def delete_many(asked: Deleting) -> Response:
        """Delete documents; the answer says which of them were there."""
        return as_json(await state.write(lambda: _delete(collection, asked.ids)))

    @routes.delete("/documents/{id:path}", response_model=Deleted)
    async def delete(id: str) -> Response:
        """Delete one document."""
        deleted = await state.write(lambda: _delete(collection, [id]))
        if not deleted["deleted"]:
            raise Refusal(404, "there is no document with this id")
        return as_json(deleted)

    return routes


def _get(collection: Collection, document_id: str) -> dict[str, Any]:
    (document,) = collection.get([document_id])
    if document is None:
        raise Refusal(404, "there is no document with this id")
    return asdict(document)


def _delete(collection: Collection, ids: Sequence[str]) -> Deleted:
    gone = collection.delete(dict.fromkeys(ids))
    there = set(gone)
    return {"deleted": gone, "missing": [document_id for document_id in dict.fromkeys(ids) if document_id not in there]}
