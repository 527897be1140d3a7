"""The calls that the engine makes of Qdrant, in the shapes of its REST interface, and who answers them for an address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from twinrank.index.engines.address import Address

Id: TypeAlias = int | str
"""Of a point: an integer of 64 bits, or a UUID as text."""

Point: TypeAlias = dict[str, Any]
"""id, vector: name → numbers, or indices and values; payload."""

UNUSED = "unused"
"""A sparse vector that no point has: a collection needs some vector."""


class Service(Protocol):
    """Collections of points. Every method raises EngineError; what is written is seen at once."""

    def exists(self, collection: str) -> bool: ...

    def create(self, collection: str, shape: Mapping[str, Any]) -> None:
        """`dimension` of the vector `dense`, 0: none; `sparse`: names; `m` and `ef_construct` of HNSW, None: as usual, m 0: no
        graph. No error where the collection is there."""
        ...

    def drop(self, collection: str) -> None: ...

    def shape(self, collection: str) -> Mapping[str, Any]:
        """As given to create."""
        ...

    def index(self, collection: str, path: str, kind: str) -> None:
        """Index a path within payloads as keyword, integer or float."""
        ...

    def indexed(self, collection: str) -> set[str]:
        """The paths that are."""
        ...

    def describe(self, collection: str) -> dict[str, str]: ...

    def upsert(self, collection: str, points: Sequence[Point]) -> None: ...

    def delete(self, collection: str, ids: Sequence[Id]) -> None: ...

    def retrieve(self, collection: str, ids: Sequence[Id], payload: Sequence[str] | None, vectors: bool) -> list[Point]:
        """The points that are there, with these parts of their payload (None: all), and vectors if asked for."""
        ...

    def query(
        self, collection: str, using: str, query: Any, filter: Mapping[str, Any] | None, k: int, how: Mapping[str, Any]
    ) -> list[tuple[int, float]]:
        """Ids and scores of the `k` nearest; `how`: exact, hnsw_ef."""
        ...

    def scroll(
        self,
        collection: str,
        filter: Mapping[str, Any] | None,
        limit: int,
        offset: Id | None,
        payload: Sequence[str] | None,
        vectors: bool,
    ) -> tuple[list[Point], Id | None]:
        """Points from an id on, and the id to go on from, None at the end."""
        ...

    def count(self, collection: str, filter: Mapping[str, Any] | None) -> int: ...

    def close(self) -> None: ...


def open_service(address: Address) -> Service:
    if address.scheme == "qdrant+local":
        from twinrank.index.engines.qdrant_local import LocalService

        return LocalService(address)
    from twinrank.index.engines.qdrant_remote import RemoteService

    return RemoteService(address)
