"""Collections with judgments (BEIR folders, TREC files) → queries, qrels and the corpus, for measuring."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from twinrank.errors import DataError
from twinrank.readers import tables
from twinrank.readers.files import OnProblem, read
from twinrank.text import normalize
from twinrank.types import Document, Qrels


@dataclass(frozen=True)
class Dataset:
    """A corpus with the queries of one split and their judgments."""

    name: str
    folder: Path
    corpus: Path
    queries: dict[str, str]
    """Query id → text, of the queries that the split judges."""
    qrels: Qrels
    split: str = "test"

    def documents(self, *, on_problem: OnProblem | None = None) -> Iterator[Document]:
        """The corpus, as a stream."""
        return read(self.corpus, on_problem=on_problem)


def read_dataset(folder: Path | str, split: str = "test") -> Dataset:
    """A folder in BEIR's layout: corpus.jsonl, queries.jsonl and qrels/<split>.tsv."""
    place = Path(folder)
    if not place.is_dir():
        raise DataError(f"{place} is no folder; expected one with corpus.jsonl, queries.jsonl and qrels/{split}.tsv")
    corpus = _one_of(place, "corpus.jsonl", "corpus.jsonl.gz")
    splits = sorted(path.stem for path in place.glob("qrels/*.tsv"))
    if split not in splits:
        raise DataError(f"{place} has no judgments for the split {split!r}: its qrels folder has {', '.join(splits) or 'none'}")
    qrels = read_qrels(place / "qrels" / f"{split}.tsv")
    queries = read_queries(place)
    missing = [query for query in qrels if query not in queries]
    if missing:
        raise DataError(f"{place}: {len(missing):,} queries of the split {split!r} have no text, the first is {missing[0]!r}")
    return Dataset(place.resolve().name, place, corpus, {query: queries[query] for query in qrels}, qrels, split)


def _one_of(folder: Path, *names: str) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{folder} has no {names[0]}")


def read_queries(path: Path | str) -> dict[str, str]:
    """Query id → text, of BEIR's queries.jsonl (or its folder), of `id<tab>text` lines, or of TREC's <top> elements."""
    place = Path(path)
    if place.is_dir():
        place = _one_of(place, "queries.jsonl", "queries.jsonl.gz")
    text = _text_of(place)
    queries: dict[str, str] = {}
    for line, given, words in _queries_in(text, place):
        query = normalize(given)
        if query in queries:
            raise DataError(f"{place}, line {line}: the query id {query!r} comes a second time")
        if not words.strip():
            raise DataError(f"{place}, line {line}: the query {query!r} has no text")
        queries[query] = normalize(words).strip()
    if not queries:
        raise DataError(f"{place} holds no queries")
    return queries


def _queries_in(text: str, place: Path) -> Iterable[tuple[int, str, str]]:
    if "<top>" in text[:4096].lower():
        return _topics(text, place)
    return _json_queries(text, place) if text.lstrip()[:1] == "{" else _tabbed_queries(text, place)


def _json_queries(text: str, place: Path) -> Iterator[tuple[int, str, str]]:
    for number, line in _numbered_lines(text):
        try:
            record = tables.parse_json(line)
        except ValueError as error:
            raise DataError(f"{place}, line {number}: not JSON ({error})") from error
        identity = record.get("_id", record.get("id")) if isinstance(record, dict) else None
        words = record.get("text", record.get("query")) if isinstance(record, dict) else None
        if isinstance(identity, bool) or not isinstance(identity, (str, int)) or not isinstance(words, str):
            raise DataError(f"{place}, line {number}: expected an object with '_id' and 'text'")
        yield number, str(identity), words


def _tabbed_queries(text: str, place: Path) -> Iterator[tuple[int, str, str]]:
    for number, line in _numbered_lines(text):
        identity, tab, words = line.partition("\t")
        if not tab:
            raise DataError(f"{place}, line {number}: expected an id, a tab and the query's text")
        if number > 1 or identity.lower() not in ("qid", "id", "_id", "query-id", "query_id"):
            yield number, identity.strip(), words


_TOPIC = re.compile(r"<top>(.*?)</top>", re.IGNORECASE | re.DOTALL)
_TOPIC_NUMBER = re.compile(r"<num>\s*(?:Number:)?\s*([^\s<]+)", re.IGNORECASE)
_TOPIC_TITLE = re.compile(r"<title>\s*(?:Topic:)?([^<]*)", re.IGNORECASE)


def _topics(text: str, place: Path) -> Iterator[tuple[int, str, str]]:
    for topic in _TOPIC.finditer(text):
        line = text.count("\n", 0, topic.start()) + 1
        number, title = _TOPIC_NUMBER.search(topic[1]), _TOPIC_TITLE.search(topic[1])
        if number is None or title is None:
            raise DataError(f"{place}, line {line}: a <top> needs a <num> and a <title>")
        yield line, number[1], " ".join(html.unescape(title[1]).split())


def read_qrels(path: Path | str) -> Qrels:
    """Judgments of BEIR (`query-id corpus-id score`, tabs, with a header) or TREC (`query 0 document grade`)."""
    place = Path(path)
    qrels: dict[str, dict[str, int]] = {}
    for number, line in _numbered_lines(_text_of(place)):
        cells = line.split("\t") if line.count("\t") == 2 else line.split()
        if len(cells) not in (3, 4):
            raise DataError(f"{place}, line {number}: expected 3 columns or TREC's 4, got {len(cells)}")
        query, document, grade = cells[0].strip(), cells[-2].strip(), cells[-1].strip()
        if not re.fullmatch(r"[-+]?[0-9]{1,9}", grade):
            if number == 1:  # BEIR's header
                continue
            raise DataError(f"{place}, line {number}: the grade {grade!r} is not a whole number")
        judged = qrels.setdefault(normalize(query), {})
        if judged.setdefault(normalize(document), int(grade)) != int(grade):
            raise DataError(f"{place}, line {number}: {document!r} was judged otherwise for {query!r} before")
    if not qrels:
        raise DataError(f"{place} holds no judgments")
    return qrels


def _text_of(place: Path) -> str:
    def refuse(reason: str, kind: Literal["skipped", "note"]) -> None:
        raise DataError(f"{place} {reason}")

    try:
        return "".join(tables.lines_of(place, refuse)).removeprefix("\ufeff")
    except (OSError, EOFError) as error:
        raise DataError(f"{place} cannot be read ({error})") from error


def _numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, from 1; only \\n ends one, since texts may hold the other line ends."""
    return ((number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip())
