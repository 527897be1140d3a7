"""What the adapters share: collections and models opened from what was given, hits as metadata, filters as `where`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any, Protocol, TypeAlias

from twinrank.collection import Collection
from twinrank.errors import FilterError, InputError, MissingExtraError
from twinrank.models import kinds
from twinrank.models.biencoder import BiEncoder
from twinrank.models.crossencoder import CrossEncoder
from twinrank.models.lateinteraction import LateInteraction
from twinrank.models.twintower import TwinTower
from twinrank.types import Hit, Scores, Side, Value, Vectors

Place: TypeAlias = "str | os.PathLike[str]"


class TextEncoder(Protocol):
    """What an encoder's adapter asks of a model: BiEncoder and TwinTower have it."""

    @property
    def name(self) -> str: ...

    def encode(self, texts: Sequence[str], *, side: Side = "document") -> Vectors: ...


class PairScorer(Protocol):
    """What a reranker's adapter asks of a model: CrossEncoder and LateInteraction have it."""

    @property
    def name(self) -> str: ...

    def score(self, pairs: Sequence[tuple[str, str]]) -> Scores: ...


def missing(library: str, extra: str) -> MissingExtraError:
    return MissingExtraError(f"the adapter for {library} needs it: pip install 'twinrank[{extra}]'")


def open_collection(given: Collection | Place) -> Collection:
    """The collection itself, or the one in that directory; none is created."""
    return given if isinstance(given, Collection) else Collection(os.fspath(given), create=False)


def open_encoder(given: TextEncoder | Place) -> TextEncoder:
    """The encoder itself, or that of a checkpoint: a bi-encoder or a twin tower, as the checkpoint says."""
    if not isinstance(given, (str, os.PathLike)):
        return given
    return TwinTower(given) if kinds.recognise(given) == "TwinTower" else BiEncoder(given)


def open_scorer(given: PairScorer | Place) -> PairScorer:
    """The scorer itself, or that of a checkpoint: a cross-encoder, or MaxSim by a ColBERT or a bi-encoder."""
    if not isinstance(given, (str, os.PathLike)):
        return given
    return CrossEncoder(given) if kinds.recognise(given) == "CrossEncoder" else LateInteraction(given)


# -- hits ----------------------------------------------------------------------------------------------------------------


def metadata(hit: Hit) -> dict[str, Value]:
    """What is known of a hit, in one flat mapping: the document's fields beside what the search found.

    A field of the document that is called like one of the others is under "fields.NAME", so that neither hides the other.
    `probability` is there where the collection was calibrated, `part` where the passage is not of the document's own text.

    >>> metadata(Hit("a1", 0.5, 1, "Zinc helps.", fields={"year": 2021, "rank": "high"}))["fields.rank"]
    'high'
    """
    found: dict[str, Value] = {
        "id": hit.id,
        "title": hit.title,
        "source": hit.source,
        "score": hit.score,
        "rank": hit.rank,
        "start": hit.start,
        "end": hit.end,
    }
    if hit.probability is not None:
        found["probability"] = hit.probability
    if hit.part:
        found["part"] = hit.part
    known = {*found, "probability", "part"}
    return {**{f"fields.{name}" if name in known else name: value for name, value in hit.fields.items()}, **found}


def passage_ids(hits: Iterable[Hit]) -> list[str]:
    """An id for each passage of one answer: its document's, and for further passages of the same document id%p1, id%p2 ….

    PyTerrier writes passages so; a recipe with `[group] by = "none"` gives several of one document.

    >>> passage_ids([Hit("a", 3.0, 1, ""), Hit("b", 2.0, 2, ""), Hit("a", 1.0, 3, "")])
    ['a', 'b', 'a%p1']
    """
    seen: dict[str, int] = {}
    ids = []
    for hit in hits:
        number = seen[hit.id] = seen.get(hit.id, -1) + 1
        ids.append(f"{hit.id}%p{number}" if number else hit.id)
    return ids


def titled(text: str, data: Mapping[str, Any], key: str) -> str:
    """What a model is to read: the title, if there is one under `key`, then the text, as within a collection."""
    title = data.get(key) if key else None
    return f"{title} {text}".strip() if title and isinstance(title, str) else text


def best_first(scores: Scores, k: int | None) -> list[int]:
    """The places of the `k` highest scores; equal ones stay in the order that they came in."""
    if k is not None and k < 1:
        raise InputError(f"{k} passages cannot be kept of a reranking; ask for 1 or more")
    return sorted(range(len(scores)), key=lambda place: -scores[place])[:k]


# -- filters -------------------------------------------------------------------------------------------------------------


def compare(field: str, operator: str, value: object) -> str:
    """One comparison as a `where` expression.

    >>> compare("author.name", "=", "O'Hara"), compare("year", "in", [2020, 2021])
    ("`author.name` = 'O''Hara'", '`year` in (2020, 2021)')
    """
    if operator == "in":
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise FilterError(f"{field} in {value!r}: a list of values was expected")
        values = list(value)
        return f"{_name(field)} in ({', '.join(map(_literal, values))})" if values else nothing()
    return f"{_name(field)} {operator} {_literal(value)}"


def is_null(field: str) -> str:
    return f"{_name(field)} is null"


def negate(expression: str) -> str:
    return f"not ({expression})"


def join(word: str, expressions: Iterable[str]) -> str:
    """Several expressions by `and` or `or`; empty ones do not count.

    >>> join("and", ["year > 2015", "", "lang = 'en'"])
    "(year > 2015) and (lang = 'en')"
    """
    there = [expression for expression in expressions if expression]
    return f" {word} ".join(f"({expression})" for expression in there) if len(there) > 1 else "".join(there)


def nothing() -> str:
    """What no document meets."""
    return "id is null"


def _name(field: str) -> str:
    return "`" + field.replace("`", "``") + "`"


def _literal(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(float(value) if isinstance(value, float) else int(value))  # NumPy's floats, and enums, print otherwise
    if isinstance(value, (date, datetime)):
        value = value.isoformat()
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    raise FilterError(f"a field is compared with a text, a number, true or false, or a date; got {type(value).__name__}")
