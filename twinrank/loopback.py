"""This machine as others name it: which hosts nobody else can reach, and where a socket listens."""

from __future__ import annotations

import ipaddress
from socket import socket as Socket  # noqa: N812 -- a socket is one of these, below

NAMES = ("127.0.0.1", "localhost", "::1")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, reached by nobody else.

    >>> [is_loopback(host) for host in ("localhost", "127.0.0.53", "::1", "0.0.0.0", "example.org")]
    [True, True, True, False, False]
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def address_of(socket: Socket) -> str:
    """http://HOST:PORT of a socket that listens."""
    host, port = socket.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
