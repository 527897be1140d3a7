"""`where` expressions → conditions over fields: `year >= 2015 and lang in ('en', 'fr') and not title like 'draft%'`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, NoReturn

from twinrank.errors import FilterError
from twinrank.types import And, Between, Comparator, Comparison, Condition, IsNull, Like, Membership, Not, Or, Scalar

if TYPE_CHECKING:
    from lark import Lark, Token

EXAMPLE = "year >= 2015 and lang = 'en'"
MOST_CHARACTERS = 250_000
DEEPEST = 25
SHOWN = 36  # characters shown on either side of a mistake

GRAMMAR = r"""
?start: disjunction
?disjunction: conjunction (_OR conjunction)*
?conjunction: negation (_AND negation)*
?negation: _NOT negation -> negation
    | test
    | "(" disjunction ")"
?test: field COMPARATOR value -> comparison
    | field _IN "(" value ("," value)* ")" -> membership
    | field _NOT _IN "(" value ("," value)* ")" -> no_membership
    | field _BETWEEN value _AND value -> between
    | field _NOT _BETWEEN value _AND value -> not_between
    | field _LIKE TEXT -> like
    | field _NOT _LIKE TEXT -> not_like
    | field _IS NULL -> is_null
    | field _IS _NOT NULL -> is_not_null
field: NAME | QUOTED_NAME
value: TEXT | NUMBER | TRUE | FALSE | NULL

_AND.2: /and(?!\w)/i
_OR.2: /or(?!\w)/i
_NOT.2: /not(?!\w)/i
_IN.2: /in(?!\w)/i
_BETWEEN.2: /between(?!\w)/i
_LIKE.2: /like(?!\w)/i
_IS.2: /is(?!\w)/i
NULL.2: /null(?!\w)/i
TRUE.2: /true(?!\w)/i
FALSE.2: /false(?!\w)/i
COMPARATOR: "==" | "=" | "!=" | "<>" | "<=" | ">=" | "<" | ">"
TEXT: /'([^']|'')*'/ | /"([^"]|"")*"/
NUMBER: /[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]+)?(?![\w.])/i
NAME: /[^\W\d]\w*(\.\w+)*/
QUOTED_NAME: /`([^`]|``)+`/
%ignore /\s+/
"""

WORDS = {
    "NAME": "a field",
    "COMPARATOR": "a comparison (= != < <= > >=)",
    "TEXT": "text in quotes",
    "NUMBER": "a number",
    "TRUE": "true",
    "FALSE": "false",
    "NULL": "null",
    "LPAR": "`(`",
    "RPAR": "`)`",
    "COMMA": "`,`",
    "$END": "the end",
}
"""What the grammar's terminals are called in messages; keywords are called by their names."""


def parse(expression: str) -> Condition:
    """Read a `where` expression; raises FilterError that points to the mistake.

    >>> parse("year >= 2015")
    Comparison(field='year', operator='>=', value=2015)
    >>> parse("lang in ('en', 'fr') or not open = true")
    Or(conditions=(Membership(field='lang', values=('en', 'fr')), Not(condition=Comparison(field='open', operator='=', \
value=True))))

    Comparisons are `= == != <> < <= > >=`, `in (…)`, `between … and …`, `like`, `is null`; `not` may stand before the last
    word of each (`not in`, `is not null`) as before any expression, `and` binds tighter than `or`. Text stands in single or
    double quotes, which are doubled inside. A field's name of other than letters, digits, `_` and `.`, or one that is a
    keyword, stands in backticks. Keywords may be in either case, names may not. What the comparisons mean is written in
    `types.py`, beside the conditions.
    """
    from lark.exceptions import UnexpectedCharacters, UnexpectedToken

    if not expression.strip():
        raise FilterError(f"the filter is empty; leave it out, or write for example: {EXAMPLE}")
    if len(expression) > MOST_CHARACTERS:
        raise FilterError(f"the filter has {len(expression)} characters, of at most {MOST_CHARACTERS}")
    try:
        condition: Condition = _parser().parse(expression)  # type: ignore[assignment]  # the builder's, not a tree
    except _MeaningError as error:
        _refuse(expression, error.place, error.problem, error.hint)
    except UnexpectedToken as error:
        at_end = error.token.type == "$END"
        place = len(expression.rstrip()) if at_end else int(error.token.start_pos or 0)
        found = "the end" if at_end else f"`{_shortened(str(error.token))}`"
        expected = error.accepts or error.expected
        _refuse(expression, place, f"found {found}, expected {_expected(expected)}", _hint(error.token, expected))
    except UnexpectedCharacters as error:
        place = int(error.pos_in_stream or 0)
        _refuse(expression, place, *_unreadable(expression[place]))
    if _depth(condition) > DEEPEST:
        raise FilterError(f"the filter is nested deeper than {DEEPEST} levels; write it flatter")
    return condition


class _MeaningError(Exception):
    """Something that the grammar allows and the meaning does not."""

    def __init__(self, token: Token, problem: str, hint: str = "") -> None:
        self.place = int(token.start_pos or 0)
        self.problem = problem
        self.hint = hint


class _Builder:
    """What each rule of the grammar becomes; the parser calls these while it reads."""

    def disjunction(self, parts: list[Condition]) -> Condition:
        return Or(tuple(parts))

    def conjunction(self, parts: list[Condition]) -> Condition:
        return And(tuple(parts))

    def negation(self, parts: list[Condition]) -> Condition:
        return Not(parts[0])

    def comparison(self, parts: tuple[str, Token, Scalar]) -> Condition:
        same: dict[str, Comparator] = {"==": "=", "<>": "!="}
        field, token, value = parts
        operator: Comparator = same.get(token.value) or token.value
        return Comparison(field, operator, value)

    def membership(self, parts: Sequence[str]) -> Condition:
        return Membership(parts[0], tuple(parts[1:]))

    def between(self, parts: tuple[str, Scalar, Scalar]) -> Condition:
        return Between(*parts)

    def like(self, parts: tuple[str, Token]) -> Condition:
        return Like(parts[0], _unquoted(parts[1]))

    def is_null(self, parts: tuple[str, Token]) -> Condition:
        return IsNull(parts[0])

    def no_membership(self, parts: Sequence[str]) -> Condition:
        return Not(self.membership(parts))

    def not_between(self, parts: tuple[str, Scalar, Scalar]) -> Condition:
        return Not(self.between(parts))

    def not_like(self, parts: tuple[str, Token]) -> Condition:
        return Not(self.like(parts))

    def is_not_null(self, parts: tuple[str, Token]) -> Condition:
        return Not(self.is_null(parts))

    def field(self, parts: list[Token]) -> str:
        return _unquoted(parts[0]) if parts[0].type == "QUOTED_NAME" else str(parts[0])

    def value(self, parts: list[Token]) -> Scalar:
        token = parts[0]
        if token.type == "TEXT":
            return _unquoted(token)
        if token.type == "NUMBER":
            return _number(token)
        if token.type == "NULL":
            raise _MeaningError(token, "nothing equals null", "write `is null` or `is not null`")
        return token.type == "TRUE"


@cache
def _parser() -> Lark:
    from lark import Lark

    return Lark(GRAMMAR, parser="lalr", lexer="basic", transformer=_Builder())


def _number(token: Token) -> int | float:
    text = str(token)
    if text.lstrip("+-").isdigit() and len(text) < 400:
        return int(text)
    number = float(text)
    if math.isinf(number):
        raise _MeaningError(token, "the number is too large")
    return number


def _unquoted(token: str) -> str:
    """`'it''s'` → `it's`"""
    quote = token[0]
    return token[1:-1].replace(quote * 2, quote)


def _depth(condition: Condition) -> int:
    """Levels of nesting, counted without recursion."""
    level: list[Condition] = [condition]
    depth = 0
    while level and depth <= DEEPEST:
        depth += 1
        level = [part for one in level for part in _parts(one)]
    return depth


def _parts(condition: Condition) -> tuple[Condition, ...]:
    if isinstance(condition, Not):
        return (condition.condition,)
    return condition.conditions if isinstance(condition, And | Or) else ()


def _refuse(expression: str, place: int, problem: str, hint: str) -> NoReturn:
    start, end = max(0, place - SHOWN), place + SHOWN
    before = ("…" if start else "") + _on_one_line(expression[start:place])
    line = before + _on_one_line(expression[place:end]) + ("…" if end < len(expression) else "")
    pointer = " " * len(before) + "^"
    advice = f"{hint}; " if hint else ""
    raise FilterError(
        f"the filter cannot be read at character {place + 1}: {problem}\n    {line}\n    {pointer}\n"
        f"{advice}for example: {EXAMPLE}"
    )


def _on_one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _shortened(text: str) -> str:
    return _on_one_line(text if len(text) <= 30 else f"{text[:29]}…")


def _expected(terminals: Iterable[str]) -> str:
    names = {WORDS.get(name, name.lstrip("_").lower()) for name in terminals if name not in ("NULL", "QUOTED_NAME")}
    *others, last = sorted(names)
    return f"{', '.join(others)} or {last}" if others else last


def _hint(token: Token, expected: Iterable[str]) -> str:
    """For a token that stands where it cannot."""
    if token.type == "NAME" and "TEXT" in expected:
        return f"text stands in quotes, as in '{_shortened(str(token))}'"
    if token.type == "NUMBER":
        return "a date stands in quotes, as in '2024-05-01'"
    if str(token).isalpha() and token.type != "NAME" and "NAME" in expected:
        return f"a field that is called so stands in backticks, as in `{token}`"
    return ""


def _unreadable(letter: str) -> tuple[str, str]:
    """(problem, hint) for a character that begins nothing."""
    if letter in "'\"`":
        return "the quote that opens here is not closed", f"a {letter} within is written twice"
    if letter in "‘’“”„«»":
        return f"found `{letter}`", "use the straight quotes ' or \""
    if letter in "&|!":
        return f"found `{letter}`", "write `and`, `or` and `not`"
    if letter.isdigit():
        return "a number that ends in letters", "text stands in quotes, a date too, as in '2024-05-01'"
    return f"found `{_on_one_line(letter)}`, which means nothing here", "a name with such characters stands in backticks"
