"""A language model behind an OpenAI-compatible endpoint: one question, one text; with retries, within a time, and no more."""

from __future__ import annotations

import http.client
import json
import os
import random
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, NamedTuple
from urllib.parse import urlsplit

from twinrank.errors import EndpointError, InputError
from twinrank.loopback import is_loopback
from twinrank.models.hub import is_offline

KEY = "TWINRANK_ENDPOINT_KEY"
"""The environment variable that holds the endpoint's API key; it is read from nowhere else."""

ADDRESS, MODEL = "TWINRANK_ENDPOINT", "TWINRANK_ENDPOINT_MODEL"
"""The environment variables that name an endpoint and its model where nobody else does."""

LONGEST_REPLY = 4_000_000
"""Bytes."""

AGAIN = (408, 429, 500, 502, 503, 504)
"""Statuses after which the same request may succeed."""

FIRST_PAUSE = 0.5
"""Seconds before the second try; each further pause is twice as long, and up to half of it is left to chance."""

Message = Mapping[str, str]


class Reply(NamedTuple):
    text: str
    cut: bool
    """Whether the model stopped because it had written as many tokens as it may."""


@dataclass(frozen=True)
class Endpoint:
    """Where a model is asked: `url` as OpenAI's clients take it (http://127.0.0.1:8080/v1), and the model's name there.

    The key comes from the environment, TWINRANK_ENDPOINT_KEY, and goes to this address alone: redirects are not followed, and
    beyond this machine it is sent by https only. Where HF_HUB_OFFLINE is set, only an endpoint on this machine is asked.
    """

    url: str
    model: str
    timeout: float = 60.0
    """Seconds for all tries together."""
    tries: int = 4
    most_tokens: int = 512
    """That the model may write."""
    _key: str = field(default_factory=lambda: os.environ.get(KEY, ""), init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            host, _ = parts.hostname, parts.port
        except ValueError as error:
            raise InputError(f"{self.url!r} is no address of an endpoint: {error}") from error
        if parts.scheme not in ("http", "https") or not host or parts.username or parts.password:
            raise InputError(
                f"the endpoint is {_without_secrets(self.url)!r}; give an address such as http://127.0.0.1:8080/v1, "
                f"without a user or a password (a key goes into the environment, {KEY})"
            )
        if any(character.isspace() or not character.isprintable() for character in self.url + self._key):
            raise InputError(f"the endpoint's address, or the key in {KEY}, holds a blank or a control character; remove it")
        if not self.model.strip():
            raise InputError(f"name the model that {self.url} is to answer with")
        if not 0 < self.timeout < float("inf") or self.tries < 1 or self.most_tokens < 1:
            raise InputError("an endpoint's timeout is in seconds, above 0; its tries and its most_tokens are 1 or more")
        if self.is_local:
            return
        if self._key and parts.scheme != "https":
            raise InputError(f"{self.url} would send the key in {KEY} unencrypted; use https, or unset the key")
        if is_offline():
            raise EndpointError(f"HF_HUB_OFFLINE is set, so {host} is not asked; use an endpoint on this machine, or unset it")

    @classmethod
    def of_environment(cls) -> Endpoint | None:
        """The one that the environment names; None where it names none."""
        url, model = os.environ.get(ADDRESS, ""), os.environ.get(MODEL, "")
        return cls(url, model) if url and model else None

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine."""
        return is_loopback(urlsplit(self.url).hostname or "")

    def complete(self, messages: Sequence[Message]) -> Reply:
        """What the model says to these messages ("role" and "content"). EndpointError where it cannot be asked, refuses, takes
        too long, or says what is no reply."""
        body = {"model": self.model, "messages": list(messages), "temperature": 0, "max_tokens": self.most_tokens}
        return _reply_in(self._post(json.dumps(body).encode()), self._where)

    @property
    def _where(self) -> str:
        return self.url.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"

    def _post(self, body: bytes) -> bytes:
        """The reply's body; again after a pause where that may help."""
        end = time.monotonic() + self.timeout
        for attempt in range(self.tries):
            try:
                return self._send(body, end)
            except urllib.error.HTTPError as error:
                with error:
                    said, asked = self._said_by(error), _seconds(error.headers.get("Retry-After"))
                problem = EndpointError(f"{self._where} refused with status {error.code}: {said}")
                if error.code not in AGAIN:
                    raise problem from None
            except (OSError, http.client.HTTPException) as error:  # URLError and TimeoutError are OSErrors
                asked, reason = None, getattr(error, "reason", None) or error
                told = self._hidden(str(reason) or type(error).__name__)
                problem = EndpointError(f"{self._where} gave no answer ({told}); is it running?")
                if isinstance(reason, ConnectionRefusedError):
                    raise problem from None
            pause = FIRST_PAUSE * 2**attempt * random.uniform(1, 1.5) if asked is None else asked
            if attempt + 1 == self.tries or time.monotonic() + pause >= end:
                raise problem
            time.sleep(pause)
        raise AssertionError("unreachable")

    def _send(self, body: bytes, end: float) -> bytes:
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "twinrank"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self._where, body, headers, method="POST")
        with self._opener().open(request, timeout=_left(end)) as response:
            return _read_all(response, end)

    def _opener(self) -> urllib.request.OpenerDirector:
        proxies = [urllib.request.ProxyHandler({})] if self.is_local else []
        return urllib.request.build_opener(_NoRedirect, *proxies)

    def _said_by(self, error: urllib.error.HTTPError) -> str:
        """The reason in an error's body, in a line."""
        try:
            body = error.read(10_000).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException):
            return "no reason given"
        try:
            said = json.loads(body)["error"]
            said = said["message"] if isinstance(said, dict) else said
        except (ValueError, KeyError, TypeError):
            said = body
        return self._hidden(" ".join(str(said).split())[:300]) or "no reason given"

    def _hidden(self, text: str) -> str:
        """The text without the key, which some endpoints repeat in what they refuse with."""
        return text.replace(self._key, "…") if self._key else text


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an error: it would carry the key and the passages elsewhere."""

    def redirect_request(self, *_: object) -> None:
        return None


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError("the time was up")
    return left


def _read_all(response: IO[bytes], end: float) -> bytes:
    """The body, in pieces, so that one who sends a byte a minute does not hold us beyond the time."""
    read = getattr(response, "read1", response.read)
    pieces: list[bytes] = []
    size = 0
    while piece := read(65_536):
        size += len(piece)
        if size > LONGEST_REPLY:
            raise EndpointError(f"the endpoint's reply is longer than {LONGEST_REPLY:,} bytes; it is not read")
        pieces.append(piece)
        _left(end)
    return b"".join(pieces)


def _reply_in(body: bytes, where: str) -> Reply:
    try:
        choice = json.loads(body)["choices"][0]
        text = choice["message"]["content"]
        if isinstance(text, list):  # some put parts there
            text = "".join(part.get("text", "") for part in text)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise EndpointError(f"{where} sent no chat completion ({type(error).__name__}); is it OpenAI-compatible?") from error
    if not isinstance(text, str) or not text.strip():
        raise EndpointError(f"{where} sent an empty text; ask another model, or allow it more tokens")
    return Reply(text, choice.get("finish_reason") == "length")


def _seconds(header: str | None) -> float | None:
    """What Retry-After says, where it says seconds."""
    try:
        seconds = float(header or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None


def _without_secrets(url: str) -> str:
    return url.rpartition("@")[2]
