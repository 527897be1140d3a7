"""Fields and conditions as Elasticsearch and OpenSearch have them: typed sub-fields of documents, and their query DSL."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from twinrank.conditions import Holds, Leaf, kind_of, values_of
from twinrank.types import Value

Query = dict[str, Any]

WHOLE = 2**53
"""From here on a `double` does not tell all whole numbers apart; equality is then asked of their digits."""

MOST_TERMS = 65_536
"""What one `terms` query takes: index.max_terms_count."""

LONGEST_REGEXP = 1000
"""Letters that a `regexp` query takes: index.max_regex_length."""

MOST_BLANKS = 6
"""The `_` after a `%` that LIKE is said with: each may double the states of the automaton, of which 10,000 are allowed."""

TEMPLATES = [
    {kind: {"path_match": f"is.{kind}.*", "mapping": {"type": mapped}}}
    for kind, mapped in (("text", "keyword"), ("number", "double"), ("boolean", "boolean"), ("whole", "keyword"))
]
"""Every field that turns up gets the type of its kind: dynamic templates of a mapping."""

PROPERTIES: Query = {
    "holds": {"type": "keyword"},
    "is": {
        "type": "object",
        "dynamic": True,
        "properties": {kind: {"type": "object", "dynamic": True} for kind in ("text", "number", "boolean", "whole")},
    },
}


def encoded(fields: Mapping[str, Value]) -> Query:
    """Fields as a document holds them for conditions: the values of each kind apart, and the names of those that hold any.

    >>> encoded({"year": [2015, 2020], "open": True, "note": None})
    {'holds': ['year', 'open'], 'is': {'number': {'year': [2015.0, 2020.0]}, 'boolean': {'open': [True]}}}
    """
    kinds: dict[str, dict[str, list[Any]]] = {}
    for name, value in fields.items():
        for one in values_of(value):
            kind = kind_of(one)
            kinds.setdefault(kind, {}).setdefault(escaped(name), []).append(_double(one) if kind == "number" else one)
            if kind == "number" and _is_large(one):
                kinds.setdefault("whole", {}).setdefault(escaped(name), []).append(_digits(one))
    return {"holds": [name for name, value in fields.items() if values_of(value)], "is": kinds}


def escaped(name: str) -> str:
    """A field's name without dots, quotes and blanks, which mean something in a mapping's names.

    >>> escaped("a.b c")
    'a~2e~b~20~c'
    """
    return re.sub(r"[^\w-]", lambda found: f"~{ord(found[0]):x}~", name) or "~~"


def _is_large(value: str | int | float) -> bool:
    return not isinstance(value, str) and abs(value) >= WHOLE


def _double(value: str | int | float) -> float:
    """The nearest number that a `double` holds; the order of numbers stays as it is."""
    most = sys.float_info.max
    return float(max(-most, min(most, value)))


def _digits(value: str | int | float) -> str:
    return str(value) if isinstance(value, int) else str(int(_double(value)))


def any_of(field: str, values: Sequence[Any]) -> Query:
    """Documents that hold any of these values, however many there are."""
    parts = [{"terms": {field: list(values[start : start + MOST_TERMS])}} for start in range(0, len(values), MOST_TERMS)]
    return parts[0] if len(parts) == 1 else QueryLanguage().some(parts) if parts else {"match_none": {}}


class QueryLanguage:
    """Conditions as queries that filter."""

    def leaf(self, leaf: Leaf) -> Query | None:
        say: Mapping[str, Callable[[Leaf], Query | None]] = {
            "boolean": self._boolean,
            "number": self._number,
            "text": self._text,
        }
        return say[leaf.kind](leaf)

    def holds(self, holds: Holds) -> Query:
        return {"term": {"holds": holds.field}}

    def every(self, parts: Sequence[Query]) -> Query:
        return {"bool": {"filter": list(parts)}}

    def some(self, parts: Sequence[Query]) -> Query:
        return {"bool": {"should": list(parts), "minimum_should_match": 1}}

    def no(self, part: Query) -> Query:
        return {"bool": {"must_not": [part]}}

    def nothing(self) -> Query:
        return {"match_none": {}}

    def _boolean(self, leaf: Leaf) -> Query:
        """There are but two values: those that pass are listed."""
        return any_of(f"is.boolean.{escaped(leaf.field)}", [value for value in (False, True) if leaf.passes(value)])

    def _number(self, leaf: Leaf) -> Query | None:
        name = escaped(leaf.field)
        small = [value for value in leaf.values if not _is_large(value)]
        large = [value for value in leaf.values if _is_large(value)]
        if leaf.operator in ("=", "in"):
            parts = [any_of(f"is.number.{name}", [_double(value) for value in small])] if small else []
            parts += [any_of(f"is.whole.{name}", [_digits(value) for value in large])] if large else []
            return self.some(parts) if len(parts) > 1 else parts[0]
        return None if large else self._range(f"is.number.{name}", leaf)

    def _text(self, leaf: Leaf) -> Query | None:
        field = f"is.text.{escaped(leaf.field)}"
        if leaf.operator in ("=", "in"):
            return any_of(field, leaf.values)
        if leaf.operator == "like":
            said = regexp(str(leaf.values[0]))
            return None if said is None else {"regexp": {field: {"value": said, "flags": "NONE"}}}
        return self._range(field, leaf)

    def _range(self, field: str, leaf: Leaf) -> Query:
        """Keywords are in the order of their UTF-8 bytes, which is that of the letters' numbers, as in Python."""
        values = [_double(value) if leaf.kind == "number" else value for value in leaf.values]
        if leaf.operator == "!=":
            return self.some([{"range": {field: {"lt": values[0]}}}, {"range": {field: {"gt": values[0]}}}])
        if leaf.operator == "between":
            return {"range": {field: {"gte": values[0], "lte": values[1]}}}
        return {"range": {field: {{"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}[leaf.operator]: values[0]}}}


def regexp(like: str) -> str | None:
    """A LIKE pattern in Lucene's regular expressions, with every letter in all its cases; None where it would be too much.

    >>> regexp("A_%.txt")
    '[Aa]..*\\\\.[Tt][Xx][Tt]'
    """
    if any(segment.count("_") > MOST_BLANKS for segment in like.split("%")[1:]):
        return None
    said = "".join({"%": ".*", "_": "."}.get(letter) or _in_all_cases(letter) for letter in like)
    return said if len(said) <= LONGEST_REGEXP else None


def _in_all_cases(letter: str) -> str:
    """Lucene itself knows the cases of ASCII only."""
    if len(same := same_letters(letter)) > 1:
        return f"[{same}]"
    return letter if letter.isalnum() else f"\\{letter}"


@lru_cache(maxsize=4096)
def same_letters(letter: str) -> str:
    """All letters that LIKE takes for this one, as `re` does, itself among them; in their order.

    >>> same_letters("k"), same_letters("?")
    ('Kk\u212a', '?')
    """
    return "".join(sorted({letter, *re.findall(re.escape(letter), _cased(), re.IGNORECASE)}))


@lru_cache(maxsize=1)
def _cased() -> str:
    """Every letter that has cases."""
    return "".join(letter for letter in map(chr, range(0x20000)) if letter.lower() != letter or letter.upper() != letter)
