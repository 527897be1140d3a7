"""How a server behaves: where it listens, whom it lets in, how much it takes on, how long it waits."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from twinrank.loopback import is_loopback
from twinrank.serve.keys import Keys


@dataclass(frozen=True)
class Limits:
    """What one request, and all of them together, may take."""

    question: int = 2**20
    """Bytes of the body of a request that asks something of the collection."""
    body: int = 16 * 2**20
    """Bytes of the body of a request that brings texts: documents, what is to be embedded or reranked."""
    bodies: int = 256 * 2**20
    """Bytes of all bodies that are being read or worked on, beyond the first 64 KiB of each."""
    header: int = 32 * 2**10
    """Bytes of a request's line and headers."""
    connections: int = 4096
    """At once; the one that has been waiting longest for its request makes room for a new one."""
    k: int = 1000
    documents: int = 10_000
    """In one request to add or delete."""
    texts: int = 2048
    """In one request for embeddings."""
    candidates: int = 1000
    """In one request to rerank."""


@dataclass(frozen=True)
class Waits:
    """In seconds."""

    header: float = 10.0
    """For a request's line and headers."""
    body: float = 30.0
    """For a request's whole body."""
    keep_alive: float = 15.0
    """For the next request on a connection."""
    queue: float = 10.0
    """For a free thread; after that the request is refused."""
    change: float = 60.0
    """For the changes before one."""
    drain: float = 30.0
    """For requests under way, when the server is told to end."""


@dataclass(frozen=True)
class Settings:
    host: str = "127.0.0.1"
    port: int = 8080
    keys: Keys = field(default_factory=Keys)
    origins: tuple[str, ...] = ()
    """Web origins whose pages may ask this server (CORS); none but its own page by default."""
    hosts: tuple[str, ...] = ()
    """Further names under which the server may be asked for, as behind a proxy."""
    admin: bool = False
    """Whether check and rebuild are offered."""
    threads: int = field(default_factory=lambda: max(2, os.cpu_count() or 1))
    """That search; for those that encode, see `state.ENCODING`."""
    queue: int = 32
    """Requests that may wait for a thread, of each kind."""
    limits: Limits = field(default_factory=Limits)
    waits: Waits = field(default_factory=Waits)

    @property
    def loopback(self) -> bool:
        return is_loopback(self.host)
