"""What Qdrant is told of a row's fields, so that conditions can be over them, and the conditions in its filter language.

A payload's `where` has the values of each field apart by kind, where.year.number: [2010], so that numbers and text of one name
are told apart; `held` names the fields that have any. Numbers are compared as 64-bit floats there, large integers only for
equality as what they are. Text has no order and no LIKE in Qdrant: such comparisons are left out, and looked at again.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from twinrank.conditions import FieldKind, Holds, Leaf, kind_of, values_of
from twinrank.types import Value

Filter: TypeAlias = dict[str, Any]
"""A condition of Qdrant's, as its REST interface takes it."""

PLAIN = re.compile(r"(?!x_)[A-Za-z][A-Za-z0-9_]*")
"""Names of fields that a path can hold as they are; others go in as x_ and the hexadecimal digits of their bytes."""

EXACT_FLOAT = 2**53
"""Below it every integer is a 64-bit float, so that comparing as floats is exact whatever the row holds."""


TRUTH = {False: "false", True: "true"}
"""Booleans as text: Qdrant Edge 0.9 asks for the integer 1 where it is told to match True."""


def path_of(field: str, kind: FieldKind) -> str:
    """Where a payload has a field's values of a kind.

    >>> path_of("year", "number"), path_of("a b", "text")
    ('where.year.number', 'where.x_612062.text')
    """
    name = field if PLAIN.fullmatch(field) else f"x_{field.encode().hex()}"
    return f"where.{name}.{kind}"


def searchable(fields: Mapping[str, Value]) -> dict[str, Any]:
    """`where` and `held` of a payload.

    >>> searchable({"year": [2010.0, "ten"], "title": None})
    {'where': {'year': {'number': [2010], 'text': ['ten']}}, 'held': ['year']}
    """
    where: dict[str, dict[str, list[Any]]] = {}
    for field, value in fields.items():
        for one in values_of(value):
            kind = kind_of(one)
            _, name, _ = path_of(field, kind).split(".")
            where.setdefault(name, {}).setdefault(kind, []).append(TRUTH[one] if isinstance(one, bool) else _plain(one))
    return {"where": where, "held": [field for field, value in fields.items() if values_of(value)]}


def _plain(value: str | int | float) -> str | int | float:
    """Integers as such, also where they were written 2010.0; what is too large for 64 bits as the nearest float."""
    if isinstance(value, str):
        return value
    if (whole := _whole(value)) is not None:
        return whole
    return float(max(-sys.float_info.max, min(sys.float_info.max, value)))


def _whole(value: int | float) -> int | None:
    """The integer of 64 bits that a number is, if it is one."""
    return int(value) if -(2**63) <= value < 2**63 and value == int(value) else None


class QdrantLanguage:
    """Conditions as Qdrant's filters; must, should and must_not are and, or and not."""

    def leaf(self, leaf: Leaf) -> Filter | None:
        key = path_of(leaf.field, leaf.kind)
        if leaf.kind == "boolean":
            passing = [TRUTH[value] for value in (False, True) if leaf.passes(value)]
            return _match(key, any=passing) if passing else self.nothing()
        return _text(key, leaf) if leaf.kind == "text" else self._number(key, leaf)

    def holds(self, holds: Holds) -> Filter:
        return _match("held", value=holds.field)

    def every(self, parts: Sequence[Filter]) -> Filter:
        return {"must": list(parts)}

    def some(self, parts: Sequence[Filter]) -> Filter:
        return {"should": list(parts)}

    def no(self, part: Filter) -> Filter:
        return {"must_not": [part]}

    def nothing(self) -> Filter:
        return {"must": [{"has_id": []}]}

    def _any(self, parts: Sequence[Filter]) -> Filter:
        if not parts:
            return self.nothing()
        return parts[0] if len(parts) == 1 else self.some(parts)

    def _number(self, key: str, leaf: Leaf) -> Filter | None:
        if leaf.operator in ("=", "in"):
            same = [_same(key, value) for value in leaf.values]
            return None if None in same else self._any([part for part in same if part is not None])
        if any(abs(value) >= EXACT_FLOAT for value in leaf.values if not isinstance(value, str)):
            return None
        given = leaf.values
        if leaf.operator == "!=":
            return self.some([_range(key, lt=given[0]), _range(key, gt=given[0])])
        if leaf.operator == "between":
            return _range(key, gte=given[0], lte=given[1])
        return _range(key, **{{"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}[leaf.operator]: given[0]})


def _text(key: str, leaf: Leaf) -> Filter | None:
    if leaf.operator in ("=", "in"):
        return _match(key, any=list(leaf.values))
    return _match(key, **{"except": list(leaf.values)}) if leaf.operator == "!=" else None


def _same(key: str, value: str | int | float) -> Filter | None:
    assert not isinstance(value, str)
    if abs(value) < EXACT_FLOAT:
        return _range(key, gte=value, lte=value)
    whole = _whole(value)
    return None if whole is None else _match(key, value=whole)


def _match(key: str, **match: object) -> Filter:
    return {"key": key, "match": match}


def _range(key: str, **bounds: object) -> Filter:
    return {"key": key, "range": bounds}
