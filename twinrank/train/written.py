"""Queries written by a language model behind an endpoint: a passage in, its questions out; every answer is kept on disk."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from twinrank.answer.endpoint import Endpoint
from twinrank.files import replace_file

PROMPT = (
    "Write {count} different search queries that a person would type to find the passage below, in the passage's language. "
    "Each must be answered by the passage and make sense without it. One query a line, no numbers, nothing else.\n\n"
    "Passage:\n{passage}"
)
LONGEST_PASSAGE = 6000
"""Characters of a passage that are sent."""


@dataclass(frozen=True)
class QueryWriter:
    """Asks an endpoint for queries, and keeps every answer in a folder: what was asked once is not asked again."""

    endpoint: Endpoint
    cache: Path
    count: int = 2
    """Queries a passage."""
    workers: int = 4
    """Questions on their way at the same time."""

    @property
    def name(self) -> str:
        """Who is asked, and for how much: another one writes other queries."""
        return f"{self.count} queries of {self.endpoint.model} at {self.endpoint.url}"

    def write(self, passages: Sequence[str], *, progress: Callable[[int], None] | None = None) -> Iterator[tuple[str, ...]]:
        """The queries of each passage, in their order; none where the model wrote nothing that can be used.

        Raises EndpointError where it cannot be asked or refuses, after as many tries as the endpoint allows; what was written
        until then is kept.
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
        content = PROMPT.format(count=self.count, passage=passage[:LONGEST_PASSAGE])
        told = json.dumps([self.endpoint.url, self.endpoint.model, content])
        kept = self.cache / f"{blake2b(told.encode(), digest_size=12).hexdigest()}.json"
        if kept.exists():
            try:
                return tuple(json.loads(kept.read_text(encoding="utf-8"))["queries"])
            except (ValueError, KeyError, TypeError):
                pass  # somebody touched it: asked again
        words = self.endpoint.complete([{"role": "user", "content": content}]).text
        queries = parse_queries(words, passage, self.count)
        replace_file(kept, json.dumps({"queries": queries}, ensure_ascii=False))
        return tuple(queries)


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
