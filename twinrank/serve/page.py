"""The page, and what it alone asks for: its files, fields to filter by, marks in texts, architectures side by side, tuning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import Field

from twinrank.collection import Collection
from twinrank.search.explain import snippet
from twinrank.serve.architectures import SideBySide
from twinrank.serve.refusals import Refusal, as_json
from twinrank.serve.shapes import Asking, Condition, QueryText
from twinrank.serve.state import State, open_router, reading_router
from twinrank.store import FieldValues
from twinrank.tune.kept import last_tuning

UI = Path(__file__).resolve().parents[1] / "ui"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

HEADERS = {
    # Nothing from elsewhere, nothing inline; and no script of the page can make markup of a text.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-cache",  # asked for again each time, and not sent again where the ETag is the same
}

SNIPPET = 360
"""Characters of a passage shown with a hit."""
LONGEST_VALUE = 80
"""Characters of a value that one may choose."""

Text = Annotated[str, Field(max_length=1_000_000)]


class Marking(Asking):
    """Texts of which to say where they hold words of the query."""

    query: QueryText
    texts: list[Text] = Field(max_length=1000)


class Comparing(Asking):
    """One query for every architecture."""

    query: QueryText
    k: int = Field(10, ge=1, le=100)
    where: Condition | None = None


def router(state: State) -> APIRouter:
    routes = open_router()
    routes.include_router(_files())
    routes.include_router(_data(state))
    return routes


# -- its files -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class File:
    content: bytes
    kind: str
    etag: str


@cache
def files() -> Mapping[str, File]:
    """Name → the file; what is not in here is not served, whatever a request calls it."""
    found = {}
    for path in sorted(UI.iterdir()):
        if path.suffix in TYPES:
            content = path.read_bytes()
            found[path.name] = File(content, TYPES[path.suffix], f'"{sha256(content).hexdigest()[:32]}"')
    return found


def _files() -> APIRouter:
    routes = open_router(include_in_schema=False)

    @routes.get("/")
    async def index(request: Request) -> Response:
        return _file("index.html", request)

    @routes.get("/ui/{name}")
    async def file(name: str, request: Request) -> Response:
        return _file(name, request)

    return routes


def _file(name: str, request: Request) -> Response:
    known = files().get(name)
    if known is None:
        raise Refusal(404, "the page has no such file")
    headers = {**HEADERS, "ETag": known.etag}
    given = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if known.etag in given or "*" in given:
        return Response(status_code=304, headers=headers)
    return Response(known.content, headers=headers, media_type=known.kind)


# -- what it asks for ----------------------------------------------------------------------------------------------------


def _data(state: State) -> APIRouter:
    routes, collection, side_by_side = reading_router(tags=["page"]), state.collection, SideBySide()
    known = Fields(collection)

    @routes.get("/fields", response_model=dict[str, Any])
    async def fields() -> Response:
        """The fields of the documents: their types, ranges, and values where these are few."""
        return as_json(await state.search(known.told))

    @routes.post("/marks", response_model=dict[str, Any])
    async def marks(asked: Marking) -> Response:
        """Where each text holds words of the query, and the part of it that holds most: spans of characters (code points)."""
        return as_json(await state.search(lambda: told_marks(collection, asked.query, asked.texts)))

    @routes.post("/compare", response_model=dict[str, Any])
    async def compare(asked: Comparing) -> Response:
        """The query under every architecture that the collection holds the index for, with hits and milliseconds."""
        return as_json(await state.search(lambda: side_by_side.compare(collection, asked.query, asked.k, asked.where)))

    @routes.get("/tuning", response_model=dict[str, Any])
    async def tuning() -> Response:
        """The last tuning of this collection; 404 where there was none."""
        found = await state.search(lambda: last_tuning(collection))
        if found is None:
            raise Refusal(404, "this collection was not tuned yet; with judged queries: twinrank tune DATA -c COLLECTION")
        return as_json(found)

    return routes


class Fields:
    """Every field with what it can be filtered by; counted again when the collection was changed."""

    def __init__(self, collection: Collection) -> None:
        self.collection = collection
        self._last: tuple[tuple[int, int], dict[str, Any]] = ((-1, -1), {})

    def told(self) -> dict[str, Any]:
        store, documents = self.collection.store, len(self.collection)
        state = store.sequence(), documents  # an engine has no number for what others changed
        if self._last[0] != state:
            fields = {name: [_told(one) for one in kinds] for name, kinds in store.field_values().items()}
            self._last = state, {"documents": documents, "fields": fields}
        return self._last[1]


def _told(values: FieldValues) -> dict[str, Any]:
    short = all(len(value) <= LONGEST_VALUE for value, _ in values.values if isinstance(value, str))
    return {
        "kind": values.kind,
        "documents": values.documents,
        "low": _cut(values.low),
        "high": _cut(values.high),
        "values": [[value, count] for value, count in values.values] if short else [],
    }


def _cut(value: str | int | float) -> str | int | float:
    return value[:LONGEST_VALUE] if isinstance(value, str) else value


def told_marks(collection: Collection, query: str, texts: list[str]) -> dict[str, Any]:
    marked = collection.marks_of_all(query, texts)
    found = zip(texts, marked, strict=True)
    return {"texts": [{"marks": marks, "snippet": snippet(text, marks, SNIPPET)} for text, marks in found]}
