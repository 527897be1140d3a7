"""What a condition over fields means: kinds of values, LIKE, whether fields meet it; and how others are told it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, Literal, Protocol, TypeAlias, TypeVar

from twinrank.types import And, Between, Comparison, Condition, IsNull, Like, Membership, Not, Or, Scalar, Value

FieldKind: TypeAlias = Literal["number", "text", "boolean", "null"]

Operator: TypeAlias = Literal["=", "!=", "<", "<=", ">", ">=", "between", "in", "like"]


def is_like(pattern: str, value: str | int | float) -> bool:
    """SQL's LIKE with letters in either case, beyond ASCII too. The leftmost match of each segment is as good as any, so
    that no pattern makes it backtrack."""
    if not isinstance(value, str):
        return False
    segments, tail_start = _like_segments(pattern), len(value) - _like_tail(pattern)
    if len(segments) == 1:
        return segments[0].fullmatch(value) is not None
    head, *middle, tail = segments
    if (found := head.match(value)) is None:
        return False
    for segment in middle:
        if (found := segment.search(value, found.end())) is None:
            return False
    return found.end() <= tail_start and tail.fullmatch(value, tail_start) is not None


@lru_cache(maxsize=64)
def _like_segments(pattern: str) -> tuple[re.Pattern[str], ...]:
    """What stands between the `%`s; each matches texts of one length only."""
    parts = ["".join("." if letter == "_" else re.escape(letter) for letter in part) for part in pattern.split("%")]
    return tuple(re.compile(part, re.IGNORECASE | re.DOTALL) for part in parts)


def _like_tail(pattern: str) -> int:
    return len(pattern) - pattern.rfind("%") - 1


def kind_of(value: Scalar) -> FieldKind:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    return "text" if isinstance(value, str) else "number"


def values_of(value: Value) -> list[str | int | float]:
    """The values that a field holds; none where it holds null.

    >>> values_of([1, None, 2]), values_of(None)
    ([1, 2], [])
    """
    return [one for one in (value if isinstance(value, (list, tuple)) else [value]) if one is not None]


@dataclass(frozen=True, slots=True)
class Leaf:
    """One comparison: it holds where any value of the field that is of this kind passes."""

    field: str
    kind: FieldKind
    """number, text or boolean; values of other kinds do not pass."""
    operator: Operator
    values: tuple[str | int | float, ...]
    """One; of `between` the low and the high one, of `in` any number."""

    def passes(self, value: str | int | float) -> bool:
        return kind_of(value) == self.kind and _TESTS[self.operator](value, self.values)


@dataclass(frozen=True, slots=True)
class Holds:
    """The document has the field, and a value in it."""

    field: str


_TESTS: Mapping[str, Callable[[object, Sequence[object]], bool]] = {
    "=": lambda value, given: value == given[0],
    "!=": lambda value, given: value != given[0],
    "<": lambda value, given: value < given[0],  # type: ignore[operator]
    "<=": lambda value, given: value <= given[0],  # type: ignore[operator]
    ">": lambda value, given: value > given[0],  # type: ignore[operator]
    ">=": lambda value, given: value >= given[0],  # type: ignore[operator]
    "between": lambda value, given: given[0] <= value <= given[1],  # type: ignore[operator]
    "in": lambda value, given: value in given,
    "like": lambda value, given: is_like(given[0], value),  # type: ignore[arg-type]
}


def meets(condition: Condition, fields: Mapping[str, Value]) -> bool:
    """Whether a document with these fields is among those that a condition lets through.

    >>> meets(Comparison("year", ">=", 2015), {"year": [2001, 2020]})
    True
    """
    if isinstance(condition, Not):
        return not meets(condition.condition, fields)
    if isinstance(condition, And):
        return all(meets(part, fields) for part in condition.conditions)
    if isinstance(condition, Or):
        return any(meets(part, fields) for part in condition.conditions)
    if isinstance(condition, IsNull):
        return not values_of(fields.get(condition.field))
    return any(leaf.passes(value) for leaf in leaves_of(condition) for value in values_of(fields.get(condition.field)))


def leaves_of(one: Comparison | Membership | Between | Like) -> list[Leaf]:
    """A comparison as leaves of one kind of values each; it holds where any of them does. None: it never holds."""
    if isinstance(one, Comparison):
        return [] if one.value is None else [Leaf(one.field, kind_of(one.value), one.operator, (one.value,))]
    if isinstance(one, Between):
        kinds = {kind_of(one.low), kind_of(one.high)}
        if len(kinds) > 1 or one.low is None or one.high is None:
            return []
        return [Leaf(one.field, kinds.pop(), "between", (one.low, one.high))]
    if isinstance(one, Like):
        return [Leaf(one.field, "text", "like", (one.pattern,))]
    by_kind: dict[FieldKind, list[str | int | float]] = {}
    for value in one.values:
        if value is not None:
            by_kind.setdefault(kind_of(value), []).append(value)
    return [Leaf(one.field, kind, "in", tuple(values)) for kind, values in by_kind.items()]


F = TypeVar("F")


class Language(Protocol[F]):
    """How conditions are said in another language, such as a database's; every value goes in as a value, never as code."""

    def leaf(self, leaf: Leaf) -> F | None:
        """None where it cannot be said exactly."""
        ...

    def holds(self, holds: Holds) -> F | None: ...

    def every(self, parts: Sequence[F]) -> F:
        """All of two or more."""
        ...

    def some(self, parts: Sequence[F]) -> F:
        """Any of two or more."""
        ...

    def no(self, part: F) -> F:
        """The plain complement: what `part` does not hold for, fields that are missing included."""
        ...

    def nothing(self) -> F:
        """What holds for no document."""
        ...


@dataclass(frozen=True)
class Translated(Generic[F]):
    """A condition in another language."""

    filter: F | None
    """None: everything passes."""
    exact: bool
    """False: more passes than should, and what passes is to be looked at again (`meets`)."""


def translate(condition: Condition, language: Language[F]) -> Translated[F]:
    """Say a condition in another language; what that cannot say is left out, so that no document is missed."""
    if isinstance(condition, Not):
        inner = translate(condition.condition, language)
        if not inner.exact:
            return Translated(None, False)  # the complement of too much is too little
        return Translated(language.nothing() if inner.filter is None else language.no(inner.filter), True)
    if isinstance(condition, And):
        parts = [translate(part, language) for part in condition.conditions]
        said = [part.filter for part in parts if part.filter is not None]
        return Translated(_joined(said, language.every), all(part.exact for part in parts))
    if isinstance(condition, Or):
        return _any([translate(part, language) for part in condition.conditions], language)
    if isinstance(condition, IsNull):
        held = language.holds(Holds(condition.field))
        return Translated(None, False) if held is None else Translated(language.no(held), True)
    return _any([_said(language.leaf(leaf)) for leaf in leaves_of(condition)], language)


def _said(filter: F | None) -> Translated[F]:
    return Translated(filter, filter is not None)


def _any(parts: Sequence[Translated[F]], language: Language[F]) -> Translated[F]:
    exact = all(part.exact for part in parts)
    if not parts:
        return Translated(language.nothing(), True)
    said = [part.filter for part in parts if part.filter is not None]
    return Translated(_joined(said, language.some) if len(said) == len(parts) else None, exact)


def _joined(parts: Sequence[F], join: Callable[[Sequence[F]], F]) -> F | None:
    if len(parts) > 1:
        return join(parts)
    return parts[0] if parts else None


def fields_in(condition: Condition) -> Iterable[str]:
    """The fields that a condition names, each as often as it does."""
    if isinstance(condition, Not):
        yield from fields_in(condition.condition)
    elif isinstance(condition, And | Or):
        for part in condition.conditions:
            yield from fields_in(part)
    else:
        yield condition.field


def compared_with_null(condition: Condition) -> Iterable[str]:
    """The fields that a condition compares with null, which nothing equals."""
    if isinstance(condition, Not):
        yield from compared_with_null(condition.condition)
    elif isinstance(condition, And | Or):
        for part in condition.conditions:
            yield from compared_with_null(part)
    else:
        compared = condition.value if isinstance(condition, Comparison) else ""
        if None in (condition.values if isinstance(condition, Membership) else (compared,)):
            yield condition.field
