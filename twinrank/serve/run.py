"""A collection served until SIGTERM or Ctrl-C: refused where everybody could reach it without a key, drained when it ends."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import uvicorn

from twinrank.collection import Collection
from twinrank.errors import InputError, TruncationWarning
from twinrank.loopback import address_of
from twinrank.serve.app import create_app, warm
from twinrank.serve.connections import config_of, room_for
from twinrank.serve.settings import Settings


def serve(collection: Collection, settings: Settings, told: Callable[[str], None]) -> None:
    """Serve until told to end; `told` hears where. Requests under way are answered, and the collection is closed.

    Raises InputError where the address can be reached from elsewhere and nobody needs a key.
    """
    require_keys(settings)
    room = room_for(settings.limits.connections)
    settings = replace(settings, limits=replace(settings.limits, connections=room))
    warnings.simplefilter("ignore", TruncationWarning)  # each answer says what of its texts was cut
    app = create_app(collection, settings)
    warm(app.state.twinrank)  # here, where a model that is missing is told in a sentence
    with suppress(KeyboardInterrupt):  # which uvicorn raises again when all is drained
        _Server(app, settings, told).run()


def require_keys(settings: Settings) -> None:
    if not settings.loopback and not settings.keys:
        raise InputError(
            f"{settings.host} can be reached from other machines, and there is no key that these would have to know. Put "
            "lines `read KEY`, `write KEY` into a file, name it with --keys; or set TWINRANK_READ_KEYS, TWINRANK_WRITE_KEYS. "
            'Make one: python -c "import secrets; print(secrets.token_urlsafe(32))"'
        )


class _Server(uvicorn.Server):
    def __init__(self, app: Any, settings: Settings, told: Callable[[str], None]) -> None:
        super().__init__(config_of(app, settings))
        self.settings = settings
        self.told = told

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        for server in self.servers:
            for socket in server.sockets:
                self.told(f"serving at {address_of(socket)}")


def log_requests() -> None:
    """A line a request, without what was asked."""
    logging.getLogger("twinrank.serve").setLevel(logging.INFO)
