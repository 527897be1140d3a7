"""uvicorn's connections, with what it leaves out: a time for headers, room made for new ones, an end to slow readers."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from twinrank.serve.refusals import Refusal
from twinrank.serve.settings import Settings


def timed_protocol(settings: Settings) -> type[H11Protocol]:
    """A protocol for `uvicorn.Config(http=…)`.

    uvicorn 0.54 ends a connection that is quiet between two requests, but waits for ever for the first one and for the rest of
    one that was begun, and its `limit_concurrency` turns away whoever comes, not those who hold the places. Here a connection
    has `waits.header` seconds for a whole head, and where there are `limits.connections` of them, the one that has waited
    longest for a request makes room.
    """
    waiting: dict[H11Protocol, None] = {}
    """Connections without a request under way, those that have waited longest first."""

    class TimedProtocol(H11Protocol):
        timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._wait_for_head()
            if len(self.connections) > settings.limits.connections and waiting:
                oldest = next(iter(waiting))
                oldest.transport.abort()
                waiting.pop(oldest, None)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._at_work:
                self._have_head()
            elif self.timer is None:
                self._wait_for_head()

        def on_response_complete(self) -> None:
            waiting[self] = None
            super().on_response_complete()
            if self._at_work:  # a request that was sent before the answer to the one before it
                self._have_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._have_head()
            super().connection_lost(exc)

        def timeout_keep_alive_handler(self) -> None:
            super().timeout_keep_alive_handler()
            # Closed, but for what the other side has not read yet; whoever reads nothing for so long will not.
            self.loop.call_later(settings.waits.drain, self.transport.abort)

        def send_400_response(self, msg: str) -> None:
            """uvicorn's, in the shape of all errors."""
            message = f"what came is no HTTP/1.1, or its line and headers are longer than {settings.limits.header:,} bytes"
            body = Refusal(400, message).response.body
            headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
            for event in (h11.Response(status_code=400, headers=headers), h11.Data(data=bytes(body)), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
            self.transport.close()

        @property
        def _at_work(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def _wait_for_head(self) -> None:
            waiting[self] = None
            self.timer = self.loop.call_later(settings.waits.header, self._give_up)

        def _have_head(self) -> None:
            waiting.pop(self, None)
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None

        def _give_up(self) -> None:
            self.timer = None
            self.transport.abort()

    return TimedProtocol


def room_for(wished: int) -> int:
    """How many connections this process can hold: its limit of open files is raised as far as it may be."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return wished
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wished + RESERVED
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wished if soft == resource.RLIM_INFINITY else max(1, min(wished, soft - RESERVED))


RESERVED = 256
"""Open files that are not connections: the store, the indexes, the log."""


def config_of(app: Any, settings: Settings) -> Any:
    """How uvicorn runs the application."""
    import uvicorn

    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=timed_protocol(settings),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,  # uvicorn's tells the whole address, and with it what was searched for
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=round(settings.waits.keep_alive),
        timeout_graceful_shutdown=round(settings.waits.drain),
        h11_max_incomplete_event_size=settings.limits.header,
    )
