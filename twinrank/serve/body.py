"""A request's body: read within its limit and its time, and parsed strictly as JSON."""

from __future__ import annotations

import asyncio
import json
import re
from time import perf_counter
from typing import Any

from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from twinrank.serve.refusals import Refusal, overloaded

LINGER = 1.0
"""Seconds for which what is too much is read and forgotten, so that a client that sends before it reads sees the answer."""
MOST_PARTS = 1_000_000
"""Commas and brackets of a body. Three bytes of JSON, `[],`, are a list of 64 bytes in memory, which no length bounds."""
PART_BYTES = 64
SMALL = 64 * 2**10
"""Bytes."""
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class Bodies:
    """Bytes of all bodies that are held at once, but for small ones: these are bounded by the number of connections."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    def take(self, size: int) -> None:
        if self.held + size > self.limit:
            raise overloaded("the server holds as many requests as it has memory for; try again in a second").closing()
        self.held += size


class BoundedRequest(Request):
    """A request whose body has at most `limit` bytes and comes within `seconds`."""

    def __init__(self, scope: Scope, receive: Receive, *, limit: int, seconds: float, bodies: Bodies) -> None:
        super().__init__(scope, receive)
        self._limit = limit
        self._seconds = seconds
        self._bodies = bodies
        self._size = 0
        self._held = 0
        """Of its size, what counts."""

    async def body(self) -> bytes:
        if not hasattr(self, "_body"):
            try:
                self._body = await asyncio.wait_for(self._collect(), self._seconds)
            except asyncio.TimeoutError as error:
                message = f"the body did not come within {self._seconds:g} seconds; send it at once"
                raise Refusal(408, message).closing() from error
        return self._body

    async def json(self) -> Any:
        body = await self.body()
        parts = sum(body.count(mark) for mark in (b",", b"[", b"{"))
        if parts > MOST_PARTS:
            raise Refusal(413, f"the body has more than {MOST_PARTS:,} commas and brackets; send it in parts")
        self._hold(PART_BYTES * parts)
        return parse(body)

    def release(self) -> None:
        """What was held is done with."""
        self._bodies.held -= self._held
        self._held = 0

    async def _collect(self) -> bytes:
        self._check_length()
        parts: list[bytes] = []
        total, more = 0, True
        while more:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            part, more = message.get("body", b""), message.get("more_body", False)
            total += len(part)
            if total > self._limit:
                await self._forget_the_rest(more)
                raise self._too_large()
            self._hold(len(part))
            parts.append(part)
        return b"".join(parts)

    def _hold(self, size: int) -> None:
        """Small bodies do not count, so that a few that are large and slow leave room for them."""
        self._size += size
        if (more := self._size - SMALL - self._held) > 0:
            self._bodies.take(more)
            self._held += more

    def _check_length(self) -> None:
        """Refuse what says that it is far too long before reading any of it."""
        declared = self.headers.get("content-length", "0")
        if declared.isdecimal() and int(declared) > 2 * self._limit:
            raise self._too_large()

    async def _forget_the_rest(self, more: bool) -> None:
        until, forgotten = perf_counter() + LINGER, 0
        while more and forgotten < self._limit and (left := until - perf_counter()) > 0:
            try:
                message = await asyncio.wait_for(self.receive(), left)
            except asyncio.TimeoutError:
                return
            forgotten += len(message.get("body", b""))
            more = message.get("more_body", False)

    def _too_large(self) -> Refusal:
        return Refusal(413, f"the body is larger than {self._limit:,} bytes; send it in parts").closing()


def parse(body: bytes) -> Any:
    """JSON as its standard has it: no NaN, no infinity, no half of a surrogate pair, nothing nested thousands deep.

    >>> parse(b'{"k": 3}')
    {'k': 3}
    """
    try:
        # Of bytes, json.loads would take UTF-16 and UTF-32 too, in which neither is found what is looked for here.
        value = json.loads(body.decode("utf-8-sig"), parse_constant=_refuse_constant)
        if SURROGATE.search(body):
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise Refusal(400, "the JSON of the body is nested too deeply") from error
    except UnicodeEncodeError as error:
        raise Refusal(400, "the JSON of the body holds half of a surrogate pair, which is no text") from error
    except UnicodeDecodeError as error:
        raise Refusal(400, "the body is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise Refusal(400, f"the body is no JSON: {error.msg} at character {error.pos}") from error
    except ValueError as error:  # a number of thousands of digits too
        raise Refusal(400, "the body is no JSON: a number that is none, or far too long a one") from error
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(name)
