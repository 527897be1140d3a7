"""Conditions over fields → SQL, with every name and value as a parameter."""

from __future__ import annotations

import difflib
import math
import sqlite3
from collections import defaultdict
from collections.abc import Sequence

from twinrank.conditions import FieldKind, kind_of
from twinrank.errors import FilterError
from twinrank.store.rows import listed, marks
from twinrank.types import And, Between, Comparison, Condition, IsNull, Like, Not, Or, Scalar

MOST_PARAMETERS = 30_000  # SQLite's own limit is 32,766
DEEPEST_CONDITION = 25  # beyond, the stack of SQLite's parser (100 symbols) may overflow


class Compiler:
    """Conditions → one SQL expression over `passages p`, with every name and value as a parameter."""

    BUILT_IN = ("id", "title", "source")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.parameters: list[str | int | float] = []
        self.checked: set[str] = set(self.BUILT_IN)

    def compile(self, condition: Condition) -> tuple[str, list[str | int | float]]:
        try:
            sql = self._any(condition, 1)
        except UnicodeEncodeError as error:
            raise FilterError("the condition holds half of a surrogate pair, which no document can") from error
        if len(self.parameters) > MOST_PARAMETERS:
            raise FilterError(f"the condition names {len(self.parameters)} fields and values, of at most {MOST_PARAMETERS}")
        return sql, self.parameters

    def _any(self, condition: Condition, depth: int) -> str:
        if depth > DEEPEST_CONDITION:
            raise FilterError(f"the condition is nested deeper than {DEEPEST_CONDITION} levels")
        if isinstance(condition, Not):
            return f"NOT ({self._any(condition.condition, depth + 1)})"
        if isinstance(condition, And):
            return _balanced([self._any(part, depth + 1) for part in condition.conditions], "AND") or "TRUE"
        if isinstance(condition, Or):
            return _balanced([self._any(part, depth + 1) for part in condition.conditions], "OR") or "FALSE"
        self._check_known(condition.field)
        if isinstance(condition, IsNull):
            return f"NOT ({self._leaf(condition.field, (), 'kind <> ?', 'null')})"
        if isinstance(condition, Comparison):
            operator = {"=": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}[condition.operator]
            return self._leaf(condition.field, (condition.value,), f"value {operator} ?", condition.value)
        if isinstance(condition, Between):
            both = (condition.low, condition.high)
            return self._leaf(condition.field, both, "value BETWEEN ? AND ?", *both)
        if isinstance(condition, Like):
            return self._leaf(condition.field, (condition.pattern,), "is_like(?, value)", condition.pattern)
        by_kind: dict[FieldKind, list[Scalar]] = defaultdict(list)
        for value in condition.values:
            by_kind[kind_of(value)].append(value)
        leaves = [
            self._leaf(condition.field, values[:1], f"value IN ({marks(values)})", *values) for values in by_kind.values()
        ]
        return _balanced(leaves, "OR") or "FALSE"

    def _leaf(self, name: str, typed: Sequence[Scalar], test: str, *values: Scalar) -> str:
        """Documents with a value of the types of `typed` that passes the test."""
        kinds = [kind_of(value) for value in typed]
        if "null" in kinds:
            raise FilterError(f"{name} is compared with null, which nothing equals; write `{name} is null` or `is not null`")
        numbers = [_parameter(value) for value in values]
        if name in self.BUILT_IN:
            if any(kind != "text" for kind in kinds):
                return "FALSE"
            test = test.replace("kind <> ?", "? = 'null'").replace("value", name)
            self.parameters.extend(numbers)
            return f"p.document IN (SELECT key FROM documents WHERE {name} <> '' AND {test})"
        self.parameters.extend([name, *kinds, *numbers])
        return f"p.document IN (SELECT document FROM fields WHERE name = ? {'AND kind = ? ' * len(kinds)}AND {test})"

    def _check_known(self, name: str) -> None:
        if name in self.checked:
            return
        if not self.connection.execute("SELECT EXISTS (SELECT 1 FROM fields WHERE name = ?)", (name,)).fetchone()[0]:
            if not self.connection.execute("SELECT EXISTS (SELECT 1 FROM documents)").fetchone()[0]:
                return  # nothing is here yet, and nothing is found
            known = [*self._known_names(), *self.BUILT_IN]
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise FilterError(f"no document has a field {name!r}; {hint}known fields: {listed(known)}")
        self.checked.add(name)

    def _known_names(self) -> list[str]:
        # Steps from name to name through the index, instead of reading every row.
        query = """WITH RECURSIVE names(name) AS (
                       SELECT min(name) FROM fields
                       UNION ALL
                       SELECT (SELECT min(name) FROM fields WHERE name > names.name) FROM names WHERE name IS NOT NULL)
                   SELECT name FROM names WHERE name IS NOT NULL"""
        return [name for (name,) in self.connection.execute(query)]


def _balanced(parts: list[str], operator: str) -> str:
    """Join as a balanced tree: SQLite refuses expressions deeper than 1,000, and `a OR b OR c…` is as deep as it is long."""
    if len(parts) <= 1:
        return parts[0] if parts else ""
    half = len(parts) // 2
    return f"({_balanced(parts[:half], operator)} {operator} {_balanced(parts[half:], operator)})"


def _parameter(value: Scalar) -> str | int | float:
    if isinstance(value, str):
        value.encode()
        return value
    if isinstance(value, float) and math.isnan(value):
        raise FilterError("a field is compared with NaN, which nothing equals")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        try:
            return float(value)
        except OverflowError:
            raise FilterError(f"a number of {len(str(abs(value)))} digits cannot be compared with") from None
    return int(value) if isinstance(value, bool) else value or 0
