"""What every request passes first: whether it is meant for this server, and from whom; and what is counted and logged."""

from __future__ import annotations

import logging
import re
import traceback
from itertools import chain
from time import perf_counter

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from twinrank.loopback import NAMES
from twinrank.serve.metrics import Metrics
from twinrank.serve.refusals import Refusal
from twinrank.serve.settings import Settings

LOG = logging.getLogger("twinrank.serve")
NAME = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([\w.-]+))(?::\d*)?", re.ASCII)
"""In a `Host` header: a name, or an address of IPv6 in brackets, and a port."""
METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "PATCH")
UNREAD = 2**20
"""Bytes of a body that nobody read, up to which the connection is kept for the next request."""


class Door:
    """The outermost part of the application.

    On loopback a page in the user's browser is the danger: it may have its own name point here (DNS rebinding), or send
    requests whose answers it cannot read. So the name in `Host` has to be one of this server's, and what a page sends has to
    come from the server's own page or from an origin that was allowed.

    Neither a query, a document nor an id goes into the log: a request is told by its route.
    """

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self.app = app
        self.settings = settings
        self.metrics = metrics
        self.any_host = not settings.loopback and not settings.hosts
        """Whoever listens beyond loopback has keys, and names that are not known here."""
        self.hosts = {name.lower() for name in (*NAMES, settings.host, *settings.hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        await _Visit(self, scope, receive, send).run()

    def check(self, scope: Scope) -> None:
        """Raise the refusal of a request that is not for this server."""
        headers = Headers(scope=scope)
        self._check_head(scope, headers)
        self._check_host(headers)
        self._check_origin(scope, headers)
        encoding = headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise Refusal(415, "a body is taken as it is, without Content-Encoding; send it uncompressed").closing()

    def _check_head(self, scope: Scope, headers: Headers) -> None:
        """h11 bounds a head that comes in pieces alone; and where a body has two lengths, it takes the one that a proxy before
        it may not have taken, so that what follows would be a request that the proxy never saw."""
        size = len(scope.get("raw_path") or b"") + len(scope["query_string"]) + sum(map(len, chain(*headers.raw)))
        if size > (most := self.settings.limits.header):
            raise Refusal(400, f"the request's address and headers have {size:,} bytes, of at most {most:,}").closing()
        if "transfer-encoding" in headers and "content-length" in headers:
            raise Refusal(400, "the body's length is told twice; send Content-Length or Transfer-Encoding").closing()

    def _check_host(self, headers: Headers) -> None:
        if not self.any_host and name_of(headers.get("host", "")) not in self.hosts:
            raise Refusal(
                421, "this server is not asked for by that name; use its address, or start it with --allow-host NAME"
            ).closing()

    def _check_origin(self, scope: Scope, headers: Headers) -> None:
        origin = headers.get("origin")
        if origin is not None:
            if origin in self.settings.origins or "*" in self.settings.origins:
                return
            if origin.partition("://")[2] == headers.get("host", ""):
                return
        elif headers.get("sec-fetch-site") not in ("cross-site", "same-site"):
            return
        elif scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate":
            return  # a link that was followed, whose target the other page cannot read
        raise Refusal(403, "a page of another origin may not ask this server; start it with --allow-origin ORIGIN").closing()


def name_of(host: str) -> str:
    """
    >>> [name_of(host) for host in ("localhost:8080", "[::1]:8080", "127.0.0.1", "", "evil.example:80:80", "evil@localhost")]
    ['localhost', '::1', '127.0.0.1', '', '', '']
    """
    found = NAME.fullmatch(host)
    return (found[1] or found[2]).lower() if found else ""


class _Visit:
    """One request on its way through."""

    def __init__(self, door: Door, scope: Scope, receive: Receive, send: Send) -> None:
        self.door = door
        self.scope = scope
        # Of methods that nobody knows there are as many as somebody likes to send.
        self.method = scope["method"] if scope["method"] in METHODS else "other"
        self._receive = receive
        self._send = send
        self.status = 0
        self.read_all = False
        scope["twinrank.arrived"] = self.started = perf_counter()

    async def run(self) -> None:
        try:
            self.door.check(self.scope)
            if self.method == "HEAD":  # as GET, of which only the head is sent: uvicorn looks at what it was asked
                self.scope = {**self.scope, "method": "GET"}
            await self.door.app(self.scope, self.receive, self.send)
        except Refusal as refusal:
            await refusal.response(self.scope, self.receive, self.send)
        except Exception as error:
            # The message of an error may hold what was asked or found; where it came from does not.
            LOG.error("%s in %s\n%s", type(error).__name__, self.route, "".join(traceback.format_tb(error.__traceback__)))
            if self.status:
                raise ConnectionAbortedError("the answer could not be finished") from None
            broken = Refusal(500, "something went wrong in the server, and its log says where").closing()
            await broken.response(self.scope, self.receive, self.send)
        finally:
            seconds = perf_counter() - self.started
            self.door.metrics.note(self.method, self.route, self.status, seconds)
            LOG.info("%s %s %s %.1f ms", self.method, self.route, self.status or "cut off", 1000 * seconds)

    @property
    def route(self) -> str:
        """The path as the application writes it: /documents/{id}."""
        return getattr(self.scope.get("route"), "path", None) or "other"

    async def receive(self) -> Message:
        message = await self._receive()
        self.read_all = self.read_all or not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers.setdefault("X-Content-Type-Options", "nosniff")
            headers.setdefault("Cache-Control", "no-store")
            if self._leaves_much():
                headers["Connection"] = "close"
        await self._send(message)

    def _leaves_much(self) -> bool:
        """Whether a body comes behind a request that was answered without it: then its connection is closed."""
        if self.read_all:
            return False
        headers = Headers(scope=self.scope)
        length = headers.get("content-length", "0")
        return "transfer-encoding" in headers or not length.isdecimal() or int(length) > UNREAD
