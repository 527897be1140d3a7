"""A `where` expression is read as it is meant, and a broken one is answered with the place of the mistake."""

from __future__ import annotations

import re
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinrank.errors import FilterError
from twinrank.search.filters import parse
from twinrank.types import And, Between, Comparison, Condition, IsNull, Like, Membership, Not, Or

A, B, C = Comparison("a", "=", 1), Comparison("b", "=", 2), Comparison("c", "=", 3)


@pytest.mark.parametrize(
    ("expression", "condition"),
    [
        ("year >= 2015", Comparison("year", ">=", 2015)),
        ("year>=2015", Comparison("year", ">=", 2015)),
        ("a == 1", A),
        ("a <> -1.5e3", Comparison("a", "!=", -1500.0)),
        ("a != +.5", Comparison("a", "!=", 0.5)),
        ("a < 3.", Comparison("a", "<", 3.0)),
        ("a = 9007199254740993", Comparison("a", "=", 9007199254740993)),
        ("a = TRUE", Comparison("a", "=", True)),
        ("a = False", Comparison("a", "=", False)),
        ("a = ''", Comparison("a", "=", "")),
        ("a = 'it''s'", Comparison("a", "=", "it's")),
        ('a = "say ""hi"""', Comparison("a", "=", 'say "hi"')),
        ("a = 'x\ny -- ; \\'", Comparison("a", "=", "x\ny -- ; \\")),
        ("a = '🦓'", Comparison("a", "=", "🦓")),
        ("a IN (1, 'x',true)", Membership("a", (1, "x", True))),
        ("a not  in (1)", Not(Membership("a", (1,)))),
        ("a between 1 and 2 and b = 2", And((Between("a", 1, 2), B))),
        ("a NOT BETWEEN 'x' AND 'y'", Not(Between("a", "x", "y"))),
        ("a like '%x_'", Like("a", "%x_")),
        ("a not like 'x'", Not(Like("a", "x"))),
        ("a is null", IsNull("a")),
        ("a IS\nNOT\tNULL", Not(IsNull("a"))),
        ("a.b.c is null", IsNull("a.b.c")),
        ("ünï_1 is null", IsNull("ünï_1")),
        ("Year is null", IsNull("Year")),
        ("`odd name; '--` is null", IsNull("odd name; '--")),
        ("`a``b` is null", IsNull("a`b")),
        ("`in` is null", IsNull("in")),
        ("android is null", IsNull("android")),
        ("a = 1 and b = 2 or c = 3", Or((And((A, B)), C))),
        ("a = 1 or b = 2 and c = 3", Or((A, And((B, C))))),
        ("a = 1 and (b = 2 or c = 3)", And((A, Or((B, C))))),
        ("a = 1 and b = 2 and c = 3", And((A, B, C))),
        ("not a = 1 and b = 2", And((Not(A), B))),
        ("not (a = 1 and b = 2)", Not(And((A, B)))),
        ("not not a = 1", Not(Not(A))),
        ("(((a = 1)))", A),
        ("  a = 1\n", A),
    ],
)
def test_an_expression_is_read_as_it_is_meant(expression: str, condition: Condition) -> None:
    parsed = parse(expression)
    assert parsed == condition
    if isinstance(condition, Comparison):
        assert isinstance(parsed, Comparison)
        assert type(parsed.value) is type(condition.value)  # 1 == True == 1.0


@pytest.mark.parametrize(
    ("expression", "place", "message"),
    [
        ("year >", 7, "found the end, expected a number, false, text in quotes or true"),
        ("year >= )", 9, "found `)`"),
        ("lang = en", 8, "text stands in quotes, as in 'en'"),
        ("lang = “en”", 8, "use the straight quotes"),
        ("lang = 'en", 8, "the quote that opens here is not closed"),
        ("a = 'x'' and b = 'y", 19, "found `y`"),
        ("a = 1 && b = 2", 7, "write `and`, `or` and `not`"),
        ("a = 1 b = 2", 7, "found `b`, expected and, or or the end"),
        ("(a = 1", 7, "found the end, expected `)`"),
        ("a = 1)", 6, "found `)`, expected the end"),
        ("a = null", 5, "write `is null`"),
        ("a in (1, null)", 10, "write `is null`"),
        ("a in ()", 7, "found `)`"),
        ("a in 5", 6, "expected `(`"),
        ("a like 5", 8, "expected text in quotes"),
        ("a between 1 or 2", 13, "expected and"),
        ("in = 3", 1, "stands in backticks, as in `in`"),
        ("a", 2, "found the end, expected a comparison"),
        ("5 = a", 1, "found `5`"),
        ("date > 2024-05-01", 12, "a date stands in quotes"),
        ("a = 12ab", 5, "text stands in quotes"),
        ("a = 1e999", 5, "too large"),
        ("a = " + "9" * 5000, 5, "too large"),
        ("a = 1; DROP TABLE documents", 6, "found `;`"),
        ("a = 1 -- comment", 7, "found `-`"),
        ("a = (select 1)", 5, "found `(`"),
        ("a = b'\\x00'", 5, "found `b`"),
        ("\0", 1, "means nothing here"),
        ("a = $1", 5, "found `$`"),
        ("not", 4, "found the end"),
        ("and", 1, "found `and`"),
    ],
)
def test_a_mistake_is_shown_with_a_caret_and_an_example(expression: str, place: int, message: str) -> None:
    with pytest.raises(FilterError) as error:
        parse(expression)
    text = str(error.value)
    assert message in text
    assert f"at character {place}:" in text
    assert text.endswith("for example: year >= 2015 and lang = 'en'")
    _, line, pointer, _ = text.split("\n")
    assert pointer.strip() == "^"
    shown = line[len(pointer) - 1 :][:1]
    assert shown == (expression[place - 1 : place] if expression[place - 1 : place].isprintable() else " ").strip("\0")


def test_the_caret_stays_below_its_place_in_a_long_expression() -> None:
    expression = "a = 1 and " * 50 + "a @ 1" + " and a = 1" * 50
    with pytest.raises(FilterError) as error:
        parse(expression)
    _, line, pointer, _ = str(error.value).split("\n")
    assert line[pointer.index("^")] == "@"
    assert len(line) < 90


@pytest.mark.parametrize("expression", ["", " ", "\n\t"])
def test_an_empty_filter_is_refused(expression: str) -> None:
    with pytest.raises(FilterError, match="the filter is empty"):
        parse(expression)


def test_a_thousand_parentheses_do_no_harm() -> None:
    assert parse("(" * 1000 + "a = 1" + ")" * 1000) == A
    for broken in ("(" * 1000, "(" * 1000 + "a = 1" + ")" * 999):
        with pytest.raises(FilterError, match="found the end"):
            parse(broken)


@pytest.mark.parametrize("expression", ["not " * 5000 + "a = 1", "a = 1 and (b = 2 or (" * 2000 + "c = 3" + "))" * 2000])
def test_deep_nesting_is_refused(expression: str) -> None:
    with pytest.raises(FilterError, match="nested deeper than 25 levels"):
        parse(expression)


def test_a_megabyte_is_refused_at_once() -> None:
    started = time.perf_counter()
    with pytest.raises(FilterError, match="1000005 characters, of at most 250000"):
        parse("a = '" + "x" * 1_000_000)
    assert time.perf_counter() - started < 0.1


def test_a_long_list_is_read() -> None:
    condition = parse(f"id in ({', '.join(repr(f'd{i}') for i in range(20_000))})")
    assert isinstance(condition, Membership)
    assert condition.values[19_999] == "d19999"


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from([*"()=<>,'\"` ", " and ", " or ", " not ", " in ", " is ", " null", "a", "1", ".5"]),
            st.text(max_size=3),
        ),
        max_size=12,
    ).map("".join)
)
def test_any_text_is_read_or_refused_with_a_place(text: str) -> None:
    message = ""
    try:
        parse(text)
    except FilterError as error:
        message = str(error)
    assert re.match(r"$|the filter (cannot be read at character \d+: .+|is empty)", message, re.DOTALL)


names = st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5)
values = st.one_of(
    st.integers(-(10**20), 10**20), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.text(max_size=5)
)
leaves: st.SearchStrategy[Condition] = st.one_of(
    st.builds(Comparison, names, st.sampled_from(["=", "!=", "<", "<=", ">", ">="]), values),
    st.builds(Membership, names, st.lists(values, min_size=1, max_size=3).map(tuple)),
    st.builds(Between, names, values, values),
    st.builds(Like, names, st.text(max_size=5)),
    st.builds(IsNull, names),
)
conditions = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(And, st.lists(inner, min_size=2, max_size=3).map(tuple)),
        st.builds(Or, st.lists(inner, min_size=2, max_size=3).map(tuple)),
    ),
    max_leaves=6,
)


def written(condition: Condition) -> str:
    """The expression that means this condition."""
    if isinstance(condition, Not):
        return f"not ({written(condition.condition)})"
    if isinstance(condition, And):
        return " and ".join(f"({written(part)})" for part in condition.conditions)
    if isinstance(condition, Or):
        return " or ".join(f"({written(part)})" for part in condition.conditions)
    name = "`" + condition.field.replace("`", "``") + "`"
    if isinstance(condition, Comparison):
        return f"{name}{condition.operator}{quoted(condition.value)}"
    if isinstance(condition, Membership):
        return f"{name} in ({','.join(map(quoted, condition.values))})"
    if isinstance(condition, Between):
        return f"{name} between {quoted(condition.low)} and {quoted(condition.high)}"
    if isinstance(condition, Like):
        return f"{name} like {quoted(condition.pattern)}"
    return f"{name} is null"


def quoted(value: object) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return str(value).lower()


@settings(max_examples=300, deadline=None)
@given(conditions)
def test_what_is_written_is_read_back(condition: Condition) -> None:
    assert parse(written(condition)) == condition


def test_importing_this_module_does_not_import_the_parser() -> None:
    script = f"import sys; sys.path[:0] = {sys.path!r}; import twinrank.search.filters; print('lark' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "False\n"
