"""Fields and conditions as Weaviate has them: facts, which are texts that an object holds, and filters over them.

Every name and value goes into facts of two properties of fixed types, so that no field needs a property of its own. A number is
held with all prefixes of its digits, so that a range is a few hundred prefixes of which any will do (Schindler and Diepenbroek
2008, the trie encoding): that way a list's values are looked at one by one, which two comparisons would not do.
"""

from __future__ import annotations

import json
import math
import struct
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

from twinrank.conditions import Holds, Leaf, kind_of, values_of
from twinrank.index.engines.querydsl import same_letters
from twinrank.types import Value

Clause: TypeAlias = Any
"""What the client's Filter makes."""

WHOLE = 2**53
"""From here on a double does not tell all whole numbers apart; equality is then asked of their digits."""

DIGITS = 16
"""Of a double, in hexadecimal."""

MARKED = 0xE000
"""ASCII that is neither letter nor digit is held for LIKE as a letter of Unicode's private area, from here on: to Weaviate some
of it means something in a pattern, or at the end of a value."""

FOREIGN = chr(0xE0FF)
"""A letter of that area itself, whichever it is: a pattern that asks for one is not said."""


def document_fact(document: str) -> str:
    return f"document{_quoted(document)}="


FIRST_FACT = "first="
"""What the first row of a document holds."""


def facts_of(fields: Mapping[str, Value]) -> list[str]:
    """What conditions but LIKE are over. No fact begins or ends with a blank, which Weaviate would cut off.

    >>> [fact for fact in facts_of({"open": True, "lang": "en", "none": None})]
    ['holds"open"=', 'some"open"boolean=', 'boolean"open"true=', 'holds"lang"=', 'some"lang"text=', 'text"lang"en=']
    """
    facts = []
    for name, value in fields.items():
        values, quoted = values_of(value), _quoted(name)
        if values:
            facts.append(f"holds{quoted}=")
        for kind in ("boolean", "number", "text"):
            of = [one for one in values if kind_of(one) == kind]
            if of:
                facts.append(f"some{quoted}{kind}=")
            if len(set(of)) > 1:
                facts.append(f"many{quoted}{kind}=")
            for one in dict.fromkeys(of):
                facts += _facts_of(quoted, kind, one)
    return list(dict.fromkeys(facts))


def _facts_of(quoted: str, kind: str, value: Any) -> Iterator[str]:
    if kind == "number":
        digits = f"{_sortable(value):0{DIGITS}x}"
        yield from (f"number{quoted}{digits[:length]}=" for length in range(1, DIGITS + 1))
        if abs(value) >= WHOLE:
            yield f"whole{quoted}{_digits(value)}="
    else:
        yield f"{kind}{quoted}{_text(kind, value)}="


def folded(fields: Mapping[str, Value]) -> list[str]:
    """What LIKE is over: texts with their letters in one case, and without what means something in a pattern."""
    return [
        f"{_marked(_quoted(name))}={_folded(one)}="
        for name, value in fields.items()
        for one in dict.fromkeys(values_of(value))
        if isinstance(one, str)
    ]


class FilterLanguage:
    """Conditions as the client's filters."""

    def __init__(self) -> None:
        from weaviate.classes.query import Filter

        self._filter = Filter

    def has(self, facts: Sequence[str]) -> Clause:
        """Objects that hold any of these facts."""
        return self._filter.by_property("facts").contains_any(list(facts)) if facts else self.nothing()

    def leaf(self, leaf: Leaf) -> Clause | None:
        quoted = _quoted(leaf.field)
        say: Mapping[str, Callable[[str, Leaf], Clause | None]]
        say = {"boolean": self._boolean, "number": self._number, "text": self._text}
        if leaf.operator in ("=", "in"):
            return self.has([_equal(quoted, leaf.kind, value) for value in leaf.values])
        if leaf.operator == "!=":  # two different values, or one that is not this
            same = self.has([_equal(quoted, leaf.kind, leaf.values[0])])
            other = self.every([self.has([f"some{quoted}{leaf.kind}="]), self.no(same)])
            return self.some([self.has([f"many{quoted}{leaf.kind}="]), other])
        return say[leaf.kind](quoted, leaf)

    def holds(self, holds: Holds) -> Clause:
        return self.has([f"holds{_quoted(holds.field)}="])

    def every(self, parts: Sequence[Clause]) -> Clause:
        return self._filter.all_of(list(parts))

    def some(self, parts: Sequence[Clause]) -> Clause:
        return self._filter.any_of(list(parts))

    def no(self, part: Clause) -> Clause:
        return self._filter.not_(part)

    def nothing(self) -> Clause:
        return self.has(["nothing="])

    def _boolean(self, quoted: str, leaf: Leaf) -> Clause:
        return self.has([_equal(quoted, "boolean", value) for value in (False, True) if leaf.passes(value)])

    def _number(self, quoted: str, leaf: Leaf) -> Clause | None:
        if any(abs(value) >= WHOLE for value in leaf.values):  # type: ignore[arg-type]
            return None
        low, high = 0, 16**DIGITS - 1
        first, last = _sortable(leaf.values[0]), _sortable(leaf.values[-1])
        if leaf.operator in (">", ">=", "between"):
            low = first + (leaf.operator == ">")
        if leaf.operator in ("<", "<=", "between"):
            high = last - (leaf.operator == "<")
        return self.has([f"number{quoted}{prefix}=" for prefix in prefixes(low, high)])

    def _text(self, quoted: str, leaf: Leaf) -> Clause | None:
        """LIKE; an order of texts is not said."""
        if leaf.operator != "like":
            return None
        pattern = str(leaf.values[0])
        if any(_is_foreign(letter) for letter in pattern):
            return None
        said = "".join({"%": "*", "_": "?"}.get(letter) or _folded(letter) for letter in pattern)
        return self._filter.by_property("folded").like(f"{_marked(quoted)}={said}=")


def prefixes(low: int, high: int) -> list[str]:
    """The fewest prefixes of 16 hexadecimal digits that all numbers from `low` to `high`, and no others, begin with.

    >>> prefixes(0x10, 0x3F), prefixes(1, 0), len(prefixes(1, 16**16 - 2))
    (['000000000000001', '000000000000002', '000000000000003'], [], 464)
    """
    found = []
    while low <= high:
        free = 0
        while free < DIGITS - 1 and low % 16 ** (free + 1) == 0 and low + 16 ** (free + 1) - 1 <= high:
            free += 1
        found.append(f"{low:0{DIGITS}x}"[: DIGITS - free])
        low += 16**free
    return found


def _sortable(value: str | int | float) -> int:
    """The bits of the nearest double as a number that is in the order of the doubles."""
    most = sys.float_info.max
    nearest = float(max(-most, min(most, value))) + 0.0
    bits = int(struct.unpack(">Q", struct.pack(">d", nearest))[0])
    return bits ^ (2**64 - 1 if math.copysign(1, nearest) < 0 and nearest else 2**63)


def _equal(quoted: str, kind: str, value: Any) -> str:
    if kind == "number" and abs(value) >= WHOLE:
        return f"whole{quoted}{_digits(value)}="
    return f"{kind}{quoted}{f'{_sortable(value):0{DIGITS}x}' if kind == 'number' else _text(kind, value)}="


def _text(kind: str, value: Any) -> str:
    return str(value).lower() if kind == "boolean" else str(value)


def _digits(value: int | float) -> str:
    return str(value if isinstance(value, int) else int(max(-sys.float_info.max, min(sys.float_info.max, value))))


def _quoted(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)


def _marked(text: str) -> str:
    return "".join(map(_mark, text))


def _folded(text: str) -> str:
    return "".join(map(_fold, text))


@lru_cache(maxsize=4096)
def _fold(letter: str) -> str:
    return _mark(min(same_letters(letter)))


def _mark(letter: str) -> str:
    if _is_foreign(letter):
        return FOREIGN
    return letter if letter.isalnum() or not letter.isascii() else chr(MARKED + ord(letter))


def _is_foreign(letter: str) -> bool:
    return MARKED <= ord(letter) <= MARKED + 0xFF
