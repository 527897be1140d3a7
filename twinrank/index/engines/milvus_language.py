"""What Milvus is told of a row's fields, so that conditions can be over them, and the conditions as expressions over that.

A row's `facets` are JSON: each field's values of one kind as a list, smallest first, without repetitions, under a name such
as n_year; where there are several, the largest stands alone too, under max_n_year; booleans are 0 and 1. So "any value of the
field" is said by what every Milvus knows: json_contains_any, the first of a list, and whether a key exists. Servers disagree on
what `not` makes of a missing key, so each expression is built together with its complement, and `not` stands before `exists`
and json_contains_any alone, behind a test that the key is there.

Names go in as ASCII letters and digits, text as literals with every quote, backslash and line end escaped, numbers as digits:
what a user wrote is never read as code. Milvus' template parameters would do that too, but 2.3 and Milvus Lite have none.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from twinrank.conditions import FieldKind, Holds, Leaf, kind_of, values_of
from twinrank.types import Scalar, Value

PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
"""Names of fields that are kept as they are; a digest stands for others."""

LONGEST = 200
"""Characters of a text that are compared; of a longer one these and a digest of the whole are kept."""

ESCAPED = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}

KINDS: tuple[FieldKind, ...] = ("number", "text", "boolean")

OPPOSITE = {"<": ">=", "<=": ">", ">": "<=", ">=": "<"}


def facet(field: str, kind: FieldKind) -> str:
    """The name under which a field's values of a kind are kept.

    >>> facet("year", "number"), facet("a b", "text")
    ('n_year', 't__9cd5ae45f6c8')
    """
    name = field if PLAIN.fullmatch(field) else "_" + blake2b(field.encode(), digest_size=6).hexdigest()
    return f"{kind[0]}_{name}"


def largest(name: str) -> str:
    return f"max_{name}"


def facets_of(fields: Mapping[str, Value]) -> dict[str, object]:
    """What a row's fields are kept as, to be searched.

    >>> facets_of({"year": 2010, "tags": ["b", "a", "b"], "open": True, "title": None})
    {'n_year': [2010], 't_tags': ['a', 'b'], 'max_t_tags': 'b', 'b_open': [1]}
    """
    kept: dict[str, object] = {}
    for field, value in fields.items():
        for kind in KINDS:
            values = sorted({comparable(one) for one in values_of(value) if kind_of(one) == kind})
            if values:
                kept[facet(field, kind)] = values
            if len(values) > 1:
                kept[largest(facet(field, kind))] = values[-1]
    return kept


def many_valued(facets: Mapping[str, object]) -> set[str]:
    """The facets with three values or more: whether any of those is `between` two others cannot be said."""
    return {name for name, values in facets.items() if isinstance(values, list) and len(values) > 2}


def comparable(value: str | int | float) -> str | int | float:
    """What stands for a value: 2.0 is 2, true is 1, and a long text is cut, with a digest of the whole at its end."""
    if isinstance(value, str):
        return value if len(value) <= LONGEST else value[:LONGEST] + blake2b(value.encode(), digest_size=16).hexdigest()
    whole = isinstance(value, int) or (value.is_integer() and abs(value) < 2**63)
    return int(value) if whole else value


def literal(value: Scalar) -> str | None:
    r"""A value as Milvus reads it, None where it has no way to write it: integers of 64 bits, but -2**63, and beyond.

    >>> literal('it\'s "so"\n'), literal(2.0), literal(-(2**63))
    ('"it\'s \\"so\\"\\n"', '2', None)
    """
    if isinstance(value, str):
        return '"' + "".join(ESCAPED.get(letter, letter) for letter in str(comparable(value))) + '"'
    if value is None:
        return None
    value = comparable(value)
    return None if isinstance(value, int) and abs(value) >= 2**63 else repr(value)


def literals(values: Collection[Scalar]) -> str | None:
    """A list of them."""
    written = [literal(value) for value in values]
    return None if None in written else f"[{', '.join(one for one in written if one is not None)}]"


def tenant_of(value: Value | None) -> str | None:
    """What stands for a tenant: the partition key is text. None for several values.

    >>> tenant_of("acme"), tenant_of(5.0), tenant_of(None), tenant_of(["a", "b"])
    ('tacme', 'n5', '', None)
    """
    values = values_of(value)
    if not values:
        return ""
    return f"{kind_of(values[0])[0]}{comparable(values[0])}" if len(values) == 1 else None


@dataclass(frozen=True, slots=True)
class Said:
    """An expression, and one that holds for all other rows."""

    yes: str
    no: str


class MilvusLanguage:
    """Conditions as expressions over `facets`, and over the partition key where a field is one."""

    def __init__(self, many: Collection[str] = (), tenant: str = "") -> None:
        self._many = many
        """Facets that have three values or more in some row."""
        self._tenant = tenant
        """The field that rows are partitioned by."""

    def leaf(self, leaf: Leaf) -> Said | None:
        name = facet(leaf.field, leaf.kind)
        first, last, absent = f'facets["{name}"][0]', f'facets["{largest(name)}"]', f"not {_exists(name)}"
        single = f"not {_exists(largest(name))}"
        written = literals(leaf.values)
        orders = leaf.operator not in ("=", "!=", "in")
        if written is None or leaf.operator == "like" or (orders and any(map(_is_cut, leaf.values))):
            return None
        if leaf.operator in ("=", "in"):
            return self._among(leaf, name, absent, written)
        bounds = [str(literal(value)) for value in leaf.values]
        if leaf.operator == "!=":
            return Said(
                f"({first} < {bounds[0]} or {first} > {bounds[0]} or {_exists(largest(name))})",
                f"({absent} or ({single} and {first} == {bounds[0]}))",
            )
        if leaf.operator == "between":
            return None if name in self._many else _between(first, last, absent, single, *bounds)
        sign, bound, opposite = leaf.operator, bounds[0], OPPOSITE[leaf.operator]
        if sign in ("<", "<="):
            return Said(f"{first} {sign} {bound}", f"({absent} or {first} {opposite} {bound})")
        return Said(
            f"({first} {sign} {bound} or {last} {sign} {bound})",
            f"({absent} or ({first} {opposite} {bound} and ({single} or {last} {opposite} {bound})))",
        )

    def _among(self, leaf: Leaf, name: str, absent: str, written: str) -> Said:
        if self._tenant and leaf.field == self._tenant:
            tenants = literals([str(tenant_of(value)) for value in leaf.values])
            return Said(f"tenant in {tenants}", f"not (tenant in {tenants})")
        contains = f'json_contains_any(facets["{name}"], {written})'
        return Said(contains, f"({absent} or not {contains})")

    def holds(self, holds: Holds) -> Said | None:
        keys = [_exists(facet(holds.field, kind)) for kind in KINDS]
        return Said(f"({' or '.join(keys)})", f"({' and '.join(f'not {key}' for key in keys)})")

    def every(self, parts: Sequence[Said]) -> Said:
        return Said(f"({' and '.join(part.yes for part in parts)})", f"({' or '.join(part.no for part in parts)})")

    def some(self, parts: Sequence[Said]) -> Said:
        return Said(f"({' or '.join(part.yes for part in parts)})", f"({' and '.join(part.no for part in parts)})")

    def no(self, part: Said) -> Said:
        return Said(part.no, part.yes)

    def nothing(self) -> Said:
        return Said("key < 0", "key > 0")


def _exists(name: str) -> str:
    """In brackets: Milvus 2.3 reads `exists a or b` as `exists (a or b)`."""
    return f'(exists facets["{name}"])'


def _between(first: str, last: str, absent: str, single: str, low: str, high: str) -> Said:
    """Of two values at most: either is."""
    return Said(
        f"(({first} >= {low} and {first} <= {high}) or ({last} >= {low} and {last} <= {high}))",
        f"({absent} or (({first} < {low} or {first} > {high}) and ({single} or {last} < {low} or {last} > {high})))",
    )


def _is_cut(value: str | int | float) -> bool:
    """Whether its order among others that begin alike is lost."""
    return isinstance(value, str) and len(value) > LONGEST
