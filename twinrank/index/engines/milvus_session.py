"""A connection to a Milvus server, or to Milvus Lite in this process, whose calls are tried again while that may help."""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import grpc
from pymilvus import MilvusClient, MilvusException

from twinrank.errors import CollectionError
from twinrank.index.engines.address import Address
from twinrank.index.engines.retries import persistent

ONCE = {"retry_times": 0}
"""Trying again is left to us, who know how long a user waits."""

CONNECT, DEADLINE = 3.0, 60
"""Seconds for connecting, and for a call that a server took and does not answer."""

NOT_LOADED = {101, 103}
"""Milvus' codes for a collection that is not in memory, and not yet."""

AGAIN = {2, 4, 8, 103, 202, 500, 501, 502, 503, 901, 902, 904}
"""Milvus' codes for a server that starts, is overwhelmed, or moves data between its nodes (pkg/util/merr/errors.go)."""

AGAIN_SAID = re.compile(
    r"not ready|not healthy|is abnormal|unavailable|not available|no available|not fully loaded|initializing|not serviceable"
    r"|node (is )?offline|node not (found|match)|connection refused|channel (not|lack)|lease|stopped|closed channel"
    r"|timestamp lag",
    re.IGNORECASE,
)
"""What servers of before 2.4, whose code for most errors is 65535, say of the same."""

AWAY = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.ABORTED, grpc.StatusCode.CANCELLED}

RETRIED = re.compile(r"\[\w+\] Retry run out of 0 retry times,? *(message=)?")
"""What pymilvus says before a server's words where it was told not to try again."""

T = TypeVar("T")


class Session:
    """Connected when something is asked."""

    def __init__(self, address: Address) -> None:
        if address.scheme == "milvus+lite" and not address.path.endswith(".db"):
            raise CollectionError(
                f"{address}: Milvus Lite keeps its files in a folder whose name ends with .db, before the collection's name"
            )
        self.address = address
        self._client: MilvusClient | None = None
        self._lock = threading.Lock()

    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def call(self, doing: str, method: str, *given: Any, **options: Any) -> Any:
        """What a method of the client gives."""
        return self.ask(doing, lambda client: getattr(client, method)(*given, **options, **ONCE))

    def ask(self, doing: str, call: Callable[..., T], *given: Any) -> T:
        """What a call with the client gives, tried again while that may help."""
        return persistent(lambda: self._asked(call, *given), _is_transient, self.address, doing)

    def _asked(self, call: Callable[..., T], *given: Any) -> T:
        client = self._connected()
        try:
            return call(client, *given)
        except MilvusException as error:
            if error.code not in NOT_LOADED and "not loaded" not in str(error):
                said = RETRIED.sub("", str(error.message))
                raise MilvusException(error.code, said, error.compatible_code, retriable=error.retriable) from error
            client.load_collection(self.address.name, **ONCE)  # a server that was restarted may have left it on disk
            return call(client, *given)

    def _connected(self) -> MilvusClient:
        with self._lock:
            if self._client is None:
                self._client = connect(self.address)
            return self._client


def connect(address: Address) -> MilvusClient:
    """A connection of its own. Deadlines are the channel's, so that no call lacks one, and trying again is left to us."""
    # It logs each error with its traceback, before raising it; ours say what to do.
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    within = {"methodConfig": [{"name": [{}], "timeout": f"{DEADLINE}s"}]}
    options = {
        "grpc.service_config": json.dumps(within),
        # A server that comes back is found at once; gRPC would wait longer and longer, up to two minutes.
        "grpc.initial_reconnect_backoff_ms": 100,
        "grpc.min_reconnect_backoff_ms": 500,
        "grpc.max_reconnect_backoff_ms": 1000,
    }
    if address.scheme == "milvus+lite":
        folder = Path(address.path)
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Within this process, gRPC logs a traceback for each of pymilvus' calls that Milvus Lite does not know, and needs not.
        logging.getLogger("grpc._server").setLevel(logging.CRITICAL)
        return MilvusClient(str(folder), timeout=CONNECT, dedicated=True, grpc_options=options)
    host = f"[{address.host}]" if ":" in address.host else address.host or "localhost"
    uri = f"{'https' if address.options.get('tls') == 'true' else 'http'}://{host}:{address.port or 19530}"
    token = f"{address.user}:{address.password}" if address.password else os.environ.get("MILVUS_TOKEN", "")
    database = address.path.strip("/")
    return MilvusClient(uri, token=token, db_name=database, timeout=CONNECT, dedicated=True, grpc_options=options)


def _is_transient(error: Exception) -> bool:
    if isinstance(error, grpc.RpcError):
        return error.code() in AWAY
    if not isinstance(error, MilvusException):
        return isinstance(error, ValueError) and "closed channel" in str(error)
    return error.code in AWAY or error.code in AGAIN or error.retriable or bool(AGAIN_SAID.search(str(error.message)))
