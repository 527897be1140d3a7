"""Where an engine is and which collection of it is meant, as one address: milvus://host:port/name?consistency=Strong."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from twinrank.errors import CollectionError

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,54}")
"""What every engine takes as a collection's name."""


@dataclass(frozen=True, slots=True)
class Address:
    """An address in its parts; printed without the password.

    >>> Address.parse("milvus://me:secret@localhost:19530/papers?consistency=Strong")
    Address(milvus://me@localhost:19530/papers?consistency=Strong)
    """

    scheme: str
    host: str = ""
    port: int | None = None
    path: str = ""
    """What stands before the name: a database, or a folder or file of an engine within this process."""
    name: str = ""
    """The collection's."""
    user: str = ""
    password: str = field(default="", repr=False)
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Address:
        """Raises CollectionError where a part is missing or no such thing."""
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            raise CollectionError(
                f"{_masked(text)!r} is no address of an engine: its port is no number, or a password holds a character that is "
                "to be written as %2F (/), %23 (#), %3F (?); for example milvus://localhost:19530/papers"
            ) from None
        path, _, name = unquote(parts.path).rpartition("/")
        if not parts.scheme or not NAME.fullmatch(name):
            raise CollectionError(
                f"{_masked(text)!r} does not end with a collection's name: a letter, then up to 54 letters, digits and _; "
                "for example milvus://localhost:19530/papers"
            )
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        return cls(parts.scheme, parts.hostname or "", port, path, name, user, password, options)

    def __str__(self) -> str:
        user = f"{quote(self.user, safe='')}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = f":{self.port}" if self.port else ""
        options = "&".join(f"{quote(name)}={quote(value, safe='/:,')}" for name, value in self.options.items())
        return f"{self.scheme}://{user}{host}{port}{quote(self.path, safe='/:')}/{self.name}{f'?{options}' if options else ''}"

    def __repr__(self) -> str:
        return f"Address({self})"

    def check_options(self, known: Collection[str]) -> None:
        """Raises CollectionError where an option is none that the engine knows."""
        if unknown := sorted(set(self.options) - set(known)):
            raise CollectionError(f"{self}: there is no option {unknown[0]!r}; known are {', '.join(sorted(known)) or 'none'}")


def _masked(text: str) -> str:
    """An address that could not be parsed, without what may be a password.

    >>> _masked("milvus://me:se/cr@t@localhost:19530/")
    'milvus://me:***@localhost:19530/'
    """
    return re.sub(r"://([^:@/]*):.*@", r"://\1:***@", text)
