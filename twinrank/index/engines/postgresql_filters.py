"""Conditions, names and values as PostgreSQL keeps them: fields as jsonb, a condition as one boolean expression over it.

Every name and every value goes in as a parameter. All that conditions mean is said exactly, but for patterns of LIKE that are
very long and comparisons with numbers that are infinite or none.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any

from psycopg import sql

from twinrank.conditions import Holds, Leaf, Translated, translate
from twinrank.errors import EngineError
from twinrank.types import Condition, Scalar, Value

FEW = 32
"""So many values are looked up in the index of the fields; more are compared with those of every row, hashed."""

LONGEST_PATTERN = 500
"""Letters of a pattern that becomes a regular expression."""

KINDS = {"number": "number", "text": "string", "boolean": "boolean"}
TESTS = {
    "!=": "@ != $given[0]",
    "<": "@ < $given[0]",
    "<=": "@ <= $given[0]",
    ">": "@ > $given[0]",
    ">=": "@ >= $given[0]",
    "between": "@ >= $given[0] && @ <= $given[1]",
}


@dataclass(frozen=True)
class Filter:
    """A boolean expression over the column `fields`, never null, and the parameters in it."""

    query: Any  # sql.Composable
    values: tuple[object, ...] = ()


class Filters:
    """Conditions in SQL."""

    def leaf(self, leaf: Leaf) -> Filter | None:
        if any(isinstance(value, float) and not math.isfinite(value) for value in leaf.values):
            return None
        name = kept_text(leaf.field)
        if leaf.operator == "like":
            return _like(name, str(leaf.values[0]))
        if leaf.operator not in ("=", "in"):
            # In jsonpath's lax mode a list is looked at value by value; to differ in kind is to differ, so kinds are asked for.
            path = f'$ ? (@.type() == "{KINDS[leaf.kind]}" && {TESTS[leaf.operator]})'
            given = f'{{"given": {value_as_json(leaf.values)}}}'
            return _path_exists(name, path, given)
        if len(leaf.values) <= FEW:
            one_or_among = [value_as_json(held) for value in leaf.values for held in (value, [value])]
            return Filter(
                sql.SQL("fields @> ANY(%s::jsonb[])"), ([f"{{{json.dumps(name)}: {held}}}" for held in one_or_among],)
            )
        held = sql.SQL("EXISTS (SELECT FROM jsonb_path_query(fields -> %s, '$[*]') AS held WHERE held = ANY(%s::jsonb[]))")
        return Filter(held, (name, [value_as_json(value) for value in leaf.values]))

    def holds(self, holds: Holds) -> Filter:
        return _path_exists(kept_text(holds.field), "$ ? (@ != null)", "{}")

    def every(self, parts: Sequence[Filter]) -> Filter:
        return _joined(parts, ") AND (")

    def some(self, parts: Sequence[Filter]) -> Filter:
        return _joined(parts, ") OR (")

    def no(self, part: Filter) -> Filter:
        return Filter(sql.SQL("NOT ({})").format(part.query), part.values)

    def nothing(self) -> Filter:
        return Filter(sql.SQL("false"))


def filter_of(condition: Condition) -> Translated[Filter]:
    return translate(condition, Filters())


def _path_exists(name: str, path: str, given: str) -> Filter:
    found = sql.SQL("coalesce(jsonb_path_exists(fields -> %s, %s::jsonpath, %s::jsonb), false)")
    return Filter(found, (name, path, given))


def _joined(parts: Sequence[Filter], between: str) -> Filter:
    query = sql.SQL("(({}))").format(sql.SQL(between).join([part.query for part in parts]))
    return Filter(query, tuple(value for part in parts for value in part.values))


def _like(name: str, pattern: str) -> Filter | None:
    if len(pattern) > LONGEST_PATTERN:
        return None
    held = sql.SQL(
        "EXISTS (SELECT FROM jsonb_path_query(fields -> %s, '$[*] ? (@.type() == \"string\")') AS held "
        "WHERE (held #>> '{{}}') COLLATE \"C\" ~ %s)"
    ).format()
    return Filter(held, (name, regular_expression(pattern)))


def regular_expression(pattern: str) -> str:
    """A pattern of LIKE as PostgreSQL's: every letter with all that Python's re takes for its other case.

    So that it means the same whatever the database's locale.

    >>> regular_expression("a_%1.")
    '^[aA](?:[^\\x01]|\\x01.).*1\\\\.$'
    """
    parts = {"%": ".*", "_": "(?:[^\x01]|\x01.)"}  # what kept_text makes two of is still one letter
    return f"^{''.join(parts.get(letter) or ''.join(map(_any_case, kept_text(letter))) for letter in pattern)}$"


@lru_cache(maxsize=1024)
def _any_case(letter: str) -> str:
    forms = sorted({letter, *re.findall(re.escape(letter), _cased_letters(), re.IGNORECASE)}, reverse=True)
    if len(forms) > 1:
        return f"[{''.join(forms)}]"
    return f"\\{letter}" if letter.isascii() and not letter.isalnum() and letter.isprintable() else letter


@lru_cache(maxsize=1)
def _cased_letters() -> str:
    return "".join(letter for letter in map(chr, range(0x110000)) if letter.lower() != letter or letter.upper() != letter)


# -- texts, fields and numbers as they are kept -------------------------------------------------------------------------------


def kept_text(text: str) -> str:
    """A text without NUL, which PostgreSQL has no place for; the order of texts stays as it was.

    >>> kept_text("a\\x00b"), given_text(kept_text("a\\x00b"))
    ('a\\x01\\x01b', 'a\\x00b')
    """
    if "\x00" not in text and "\x01" not in text:
        return text
    return text.replace("\x01", "\x01\x02").replace("\x00", "\x01\x01")


def given_text(kept: str) -> str:
    if "\x01" not in kept:
        return kept
    return re.sub("\x01([\x01\x02])", lambda found: "\x00" if found[1] == "\x01" else "\x01", kept)


def fields_as_json(fields: Mapping[str, Value]) -> str:
    """Fields as a JSON object that jsonb keeps with the types of the numbers.

    >>> fields_as_json({"a": [1, 1.0, 1e16, None], "b": True})
    '{"a": [1, 1.0, 10000000000000000.0, null], "b": true}'
    """
    return "{" + ", ".join(f"{json.dumps(kept_text(name))}: {value_as_json(value)}" for name, value in fields.items()) + "}"


def fields_from_json(text: str) -> dict[str, Value]:
    found: dict[str, Value] = json.loads(text)
    if "\\u0001" not in text:
        return found
    return {
        given_text(name): [_given(one) for one in value] if isinstance(value, list) else _given(value)
        for name, value in found.items()
    }


def _given(value: Scalar) -> Scalar:
    return given_text(value) if isinstance(value, str) else value


def value_as_json(value: Scalar | Sequence[Scalar]) -> str:
    if isinstance(value, str):
        return json.dumps(kept_text(value), ensure_ascii=False)
    if isinstance(value, Sequence):
        return f"[{', '.join(map(value_as_json, value))}]"
    if not isinstance(value, float):
        return json.dumps(value)
    if not math.isfinite(value):
        raise EngineError(f"a field holds {value}, which JSON cannot say; leave the field out")
    # jsonb keeps decimal digits as they are written, not exponents: 1e16 would come back as an integer. From 2**53 on a float
    # is an integer, and is written as just that one, so that it compares with integers as in Python.
    return f"{int(value)}.0" if abs(value) >= 2**53 else format(Decimal(float.__repr__(value)), "f")
