"""Queries written by a language model that is asked over HTTP (OpenAI's chat completions): a passage in, its questions out."""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from twinrank.errors import DataError, InputError
from twinrank.files import replacing

PROMPT = (
    "Write {count} different search queries that a person would type to find the passage below, in the passage's language. "
    "Each must be answered by the passage and make sense without it. One query a line, no numbers, nothing else.\n\n"
    "Passage:\n{passage}"
)
LONGEST_PASSAGE = 6000
"""Characters of a passage that are sent."""
LONGEST_ANSWER = 1_000_000
"""Bytes of an answer that are read."""
PASSING = (408, 409, 425, 429, 500, 502, 503, 504)
"""Statuses after which the same question may be answered."""
LONGEST_WAIT = 60.0
"""Seconds between two tries, whatever the server asks for."""


@dataclass(frozen=True)
class Endpoint:
    """A server that speaks OpenAI's protocol: llama.cpp, Ollama, vLLM, or one that is paid for."""

    url: str
    """Up to and with the version: http://localhost:11434/v1"""
    model: str
    key: str = field(default="", repr=False)
    """Sent as a bearer token; empty where none is asked for."""
    timeout: float = 60.0
    """Seconds for one answer."""
    retries: int = 4
    """Further tries after one that failed in passing."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise InputError(f"an endpoint is an address such as http://localhost:11434/v1; got {self.url!r}")
        if not self.model:
            raise InputError("an endpoint is asked for a model by name; none was given")


@dataclass
class QueryWriter:
    """Asks an endpoint for queries, and remembers every answer in a folder: what was asked once is not asked again."""

    endpoint: Endpoint
    cache: Path
    count: int = 2
    """Queries a passage."""
    seed: int = 0
    workers: int = 4
    """Questions on their way at the same time."""
    wait: Callable[[float], None] = time.sleep

    def write(self, passages: Sequence[str], *, progress: Callable[[int], None] | None = None) -> Iterator[tuple[str, ...]]:
        """The queries of each passage, in their order; none where the model wrote nothing that can be used.

        Raises DataError where the endpoint cannot be reached, refuses, or answers in another form; what was written until
        then is kept.
        """
        self.cache.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(self.workers) as pool:
            # In blocks, so that an error does not come after thousands of further questions.
            for start in range(0, len(passages), 8 * self.workers):
                for queries in pool.map(self._queries_of, passages[start : start + 8 * self.workers]):
                    if progress is not None:
                        progress(1)
                    yield queries

    def _queries_of(self, passage: str) -> tuple[str, ...]:
        request = self._request(passage)
        told = json.dumps([self.endpoint.url, request], sort_keys=True)
        kept = self.cache / f"{blake2b(told.encode(), digest_size=12).hexdigest()}.json"
        if kept.exists():
            try:
                return tuple(json.loads(kept.read_text(encoding="utf-8"))["queries"])
            except (ValueError, KeyError, TypeError):
                pass  # a torn file: asked again
        queries = parse_queries(self._ask(request), passage, self.count)
        with replacing(kept, kept.with_suffix(".new")) as stream:
            stream.write(json.dumps({"queries": queries}, ensure_ascii=False).encode())
        return tuple(queries)

    def _request(self, passage: str) -> dict[str, Any]:
        content = PROMPT.format(count=self.count, passage=passage[:LONGEST_PASSAGE])
        return {
            "model": self.endpoint.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0.7,
            "seed": self.seed,
            "max_tokens": 64 * self.count,
        }

    def _ask(self, request: dict[str, Any]) -> str:
        """The model's words; tries again after what may pass, twice as long every time."""
        for attempt in range(self.endpoint.retries + 1):
            try:
                return _words(self._post(request), self.endpoint.url)
            except _Passing as passing:
                if attempt == self.endpoint.retries:
                    raise DataError(
                        f"{self.endpoint.url} gave no answer in {attempt + 1} tries; the last: {passing}"
                    ) from passing
                self.wait(min(LONGEST_WAIT, passing.wait if passing.wait is not None else 0.5 * 2**attempt))
        raise AssertionError("unreachable")

    def _post(self, request: dict[str, Any]) -> bytes:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.endpoint.key:
            headers["Authorization"] = f"Bearer {self.endpoint.key}"
        address = f"{self.endpoint.url.rstrip('/')}/chat/completions"
        asked = urllib.request.Request(address, json.dumps(request).encode(), headers, method="POST")
        try:
            with urllib.request.urlopen(asked, timeout=self.endpoint.timeout) as answer:
                return bytes(answer.read(LONGEST_ANSWER))
        except urllib.error.HTTPError as error:
            told = error.read(2000).decode("utf-8", "replace").strip()
            if error.code in PASSING:
                raise _Passing(f"status {error.code}", _seconds(error.headers.get("Retry-After"))) from error
            raise DataError(f"{address} refused with status {error.code}: {told[:300] or error.reason}") from error
        except (OSError, http.client.HTTPException) as error:  # no connection, cut off, too slow
            raise _Passing(str(getattr(error, "reason", "") or error or type(error).__name__)) from error


class _Passing(Exception):  # noqa: N818
    """What may be over in a moment."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


def _seconds(header: str | None) -> float | None:
    return float(header) if header and header.strip().isdecimal() else None


def _words(answer: bytes, url: str) -> str:
    try:
        content = json.loads(answer)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise DataError(f"{url} answered in another form than OpenAI's chat completions: {answer[:200]!r}") from error
    return content if isinstance(content, str) else ""


_LISTED = re.compile(r"^\s*(?:[-*•]|\(?\d{1,2}[.):]|q(?:uery)?\s*\d*\s*:)\s*", re.IGNORECASE)


def parse_queries(words: str, passage: str, count: int) -> list[str]:
    """What a model wrote → queries: a line each, without numbers, bullets and quotation marks, none twice, none copied whole.

    >>> parse_queries('Here are the queries:\\n1. "does zinc help?"\\n2) zinc dose', "Zinc may shorten a cold.", 2)
    ['does zinc help?', 'zinc dose']
    """
    words = re.sub(r"<think>.*?</think>", "", words, flags=re.DOTALL)
    queries: dict[str, str] = {}
    for line in words.splitlines():
        query = _LISTED.sub("", line).strip().strip("\"'“”`*").strip()
        introduces = query.endswith(":")
        if 3 <= len(query) <= 300 and not introduces and query.casefold() not in passage.casefold()[: len(query) + 1]:
            queries.setdefault(query.casefold(), query)
    return list(queries.values())[:count]
