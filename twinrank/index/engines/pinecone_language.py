"""What Pinecone is told of a row's fields, so that conditions can be over them, and the conditions in its filter language.

Metadata are text, numbers as 64-bit floats, booleans and lists of text, and no filter can be negated as a whole. So `has` is a
list of tokens, one for each value (["year", 2010]) and each kind of value (["year", ["number"]]) that a field has, and
`least NAME` and `most NAME` are the ends of its numbers. Every filter is said together with its complement, by $in and $nin on
`has`, which every row has: what they do where a field is missing has changed before, and nothing here depends on it.

Text has no order and no LIKE: such comparisons are left out. BETWEEN is left out on fields in which some row has three
different numbers or more: of those only the ends are known.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, TypeAlias

from twinrank.conditions import Holds, Leaf, kind_of, values_of
from twinrank.types import Value

Filter: TypeAlias = dict[str, Any]

EXACT_FLOAT = 2**53
"""Below it every integer is a 64-bit float, so that comparing as floats is exact whatever the row holds."""

LONGEST_TOKEN = 100
"""Bytes; of longer ones a digest is kept: metadata are 40 KB in all."""

MOST_VALUES = 10_000
"""Of one $in or $nin. https://docs.pinecone.io/reference/api/database-limits/operation-limits"""


@dataclass(frozen=True, slots=True)
class Said:
    """A filter and its complement."""

    yes: Filter
    no: Filter


def token(*parts: object) -> str:
    """Of a field's value, or of what is known of it.

    >>> token("year", 2010.0), token("note", "a" * 200)
    ('["year", 2010]', '#afcffb0e4a4951b2dd0ae25cee2e4db0')
    """
    text = json.dumps(
        [int(part) if isinstance(part, float) and part.is_integer() else part for part in parts], ensure_ascii=False
    )
    return text if len(text.encode()) <= LONGEST_TOKEN else f"#{blake2b(text.encode(), digest_size=16).hexdigest()}"


def searchable(fields: Mapping[str, Value]) -> dict[str, Any]:
    """The metadata that filters are over.

    >>> searchable({"year": [2010, 2011]})["has"]
    ['[]', '["year"]', '["year", ["number"]]', '["year", 2010]', '["year", 2011]']
    >>> searchable({"year": [2010, 2011]})["most year"]
    2011.0
    """
    has = [token()]
    ends: dict[str, float] = {}
    for field, value in fields.items():
        values = values_of(value)
        if not values:
            continue
        has.append(token(field))
        for kind in dict.fromkeys(kind_of(one) for one in values):
            has.append(_of_kind(field, kind))
        texts = {one for one in values if isinstance(one, str)}
        if len(texts) > 1:
            has.append(_several(field))
        has += [token(field, one) for one in values]
        if numbers := numbers_of(value):
            ends |= {f"least {field}": _float(min(numbers)), f"most {field}": _float(max(numbers))}
    return {"has": list(dict.fromkeys(has)), **ends}


def numbers_of(value: Value) -> set[int | float]:
    return {one for one in values_of(value) if kind_of(one) == "number" and not isinstance(one, str)}


class PineconeLanguage:
    """Conditions as Pinecone's filters; `many` tells of a field whether some row may have three different numbers in it."""

    def __init__(self, many: Callable[[str], bool]) -> None:
        self._many = many

    def leaf(self, leaf: Leaf) -> Said | None:
        if leaf.kind == "boolean":
            return among([token(leaf.field, value) for value in (False, True) if leaf.passes(value)])
        if leaf.operator in ("=", "in"):
            return among([token(leaf.field, value) for value in leaf.values])
        if leaf.kind == "text":
            return self._other_text(leaf) if leaf.operator == "!=" else None
        if any(abs(value) >= EXACT_FLOAT for value in leaf.values if not isinstance(value, str)):
            return None
        if leaf.operator == "between" and self._many(leaf.field):
            return None
        return self._number(leaf)

    def holds(self, holds: Holds) -> Said:
        return among([token(holds.field)])

    def every(self, parts: Sequence[Said]) -> Said:
        return Said({"$and": [part.yes for part in parts]}, {"$or": [part.no for part in parts]})

    def some(self, parts: Sequence[Said]) -> Said:
        return Said({"$or": [part.yes for part in parts]}, {"$and": [part.no for part in parts]})

    def no(self, part: Said) -> Said:
        return Said(part.no, part.yes)

    def nothing(self) -> Said:
        return self.no(among([token()]))

    def _other_text(self, leaf: Leaf) -> Said:
        """Any text but one: there is text, and several, or not that one."""
        others = self.some([among([_several(leaf.field)]), self.no(among([token(leaf.field, leaf.values[0])]))])
        return self.every([among([_of_kind(leaf.field, "text")]), others])

    def _number(self, leaf: Leaf) -> Said:
        given = [float(value) for value in leaf.values]
        least, most = f"least {leaf.field}", f"most {leaf.field}"
        yes: Filter
        no: Filter
        if leaf.operator == "!=":
            yes = {"$or": [{most: {"$gt": given[0]}}, {least: {"$lt": given[0]}}]}
            no = {"$and": [{most: {"$lte": given[0]}}, {least: {"$gte": given[0]}}]}
        elif leaf.operator == "between":
            # Of two numbers or one: an end that lies within.
            within = [{end: {"$gte": given[0], "$lte": given[1]}} for end in (least, most)]
            apart = [{"$or": [{end: {"$lt": given[0]}}, {end: {"$gt": given[1]}}]} for end in (least, most)]
            yes, no = {"$or": within}, {"$and": apart}
        else:
            sign, not_sign, end = {
                "<": ("$lt", "$gte", least),
                "<=": ("$lte", "$gt", least),
                ">": ("$gt", "$lte", most),
                ">=": ("$gte", "$lt", most),
            }[leaf.operator]
            yes, no = {end: {sign: given[0]}}, {end: {not_sign: given[0]}}
        return Said(yes, {"$or": [among([_of_kind(leaf.field, "number")]).no, no]})


def among(tokens: Sequence[str]) -> Said:
    """Rows that have any of these tokens."""
    some = list(dict.fromkeys(tokens)) or ["nothing has this"]
    parts = [some[start : start + MOST_VALUES] for start in range(0, len(some), MOST_VALUES)]
    yes = [{"has": {"$in": part}} for part in parts]
    no = [{"has": {"$nin": part}} for part in parts]
    return Said(yes[0], no[0]) if len(parts) == 1 else Said({"$or": yes}, {"$and": no})


def _of_kind(field: str, kind: str) -> str:
    return token(field, [kind])


def _several(field: str) -> str:
    return token(field, ["several"])


def _float(value: int | float) -> float:
    return float(max(-sys.float_info.max, min(sys.float_info.max, value)))
