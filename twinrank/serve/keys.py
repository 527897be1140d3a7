"""Who may do what: keys that may read, keys that may also write, from a file or the environment, compared in constant time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path
from typing import Literal

from twinrank.errors import DataError, InputError

Right = Literal["read", "write"]

SHORTEST = 16
"""Characters of a key; shorter ones can be guessed."""
VARIABLES: dict[Right, str] = {"read": "TWINRANK_READ_KEYS", "write": "TWINRANK_WRITE_KEYS"}
"""Environment variables with keys, separated by commas."""


@dataclass(frozen=True)
class Keys:
    """The keys of a server, kept as digests; without any, everybody who reaches it may do everything.

    >>> keys = Keys.of(read=["a key of a reader"], write=["a key of a writer"])
    >>> keys.allow("a key of a reader", "read"), keys.allow("a key of a reader", "write"), keys.allow("another key", "read")
    (True, False, False)
    """

    read: tuple[bytes, ...] = ()
    write: tuple[bytes, ...] = ()
    """A key that may write may read too."""

    @classmethod
    def of(cls, *, read: Iterable[str] = (), write: Iterable[str] = ()) -> Keys:
        return cls(tuple(_digest(_checked(key)) for key in read), tuple(_digest(_checked(key)) for key in write))

    @classmethod
    def find(cls, file: str | Path | None, environment: Mapping[str, str] = os.environ) -> Keys:
        """Those of a file of lines `read KEY` and `write KEY`, and those of the environment."""
        found: dict[Right, list[str]] = {right: _listed(environment.get(name, "")) for right, name in VARIABLES.items()}
        for right, key in () if file is None else _lines(Path(file)):
            found[right].append(key)
        return cls.of(**found)

    def __bool__(self) -> bool:
        return bool(self.read or self.write)

    def know(self, key: str) -> bool:
        return self.allow(key, "read")

    def allow(self, key: str, right: Right) -> bool:
        """Whether it is a key with this right. Every key is looked at, so that the time tells nothing of which one it was."""
        given, found = _digest(key), False
        for known in (*self.read, *self.write) if right == "read" else self.write:
            found |= compare_digest(given, known)
        return found


def _digest(key: str) -> bytes:
    return sha256(key.encode("utf-8", "surrogateescape")).digest()


def _checked(key: str) -> str:
    if len(key) < SHORTEST or not key.isascii() or not key.isprintable():
        raise InputError(
            f"a key has {len(key)} characters; expected at least {SHORTEST} printable ASCII ones. "
            'Make one: python -c "import secrets; print(secrets.token_urlsafe(32))"'
        )
    return key


def _listed(text: str) -> list[str]:
    return [key.strip() for key in text.split(",") if key.strip()]


def _lines(file: Path) -> Iterable[tuple[Right, str]]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}, the file of keys, cannot be read: {getattr(error, 'strerror', None) or error}") from error
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2 or words[0] not in VARIABLES:
            raise DataError(f"{file}, line {number}: expected `read KEY` or `write KEY`, with a # before what is no key")
        yield ("write" if words[0] == "write" else "read"), words[1]
