"""A condition finds in SQL what it says, and nothing in it becomes SQL."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twinrank_prepared import prepare, texts_of

from twinrank.errors import (
    FilterError,
)
from twinrank.store import Store
from twinrank.types import (
    And,
    Between,
    Comparison,
    Condition,
    IsNull,
    Like,
    Membership,
    Not,
    Or,
    Scalar,
    Value,
)


@pytest.fixture
def papers(store: Store) -> Store:
    """One passage a document, so that passage keys are document numbers."""
    fields: list[dict[str, Value]] = [
        {"year": 2019, "lang": "en", "open": True},
        {"year": 2020.5, "lang": "fr", "tags": ["x", "y"]},
        {"year": "2020", "lang": "EN", "tags": [], "open": False},
        {"lang": None, "tags": [3, "Ünder_score%"]},
    ]
    store.write([prepare(f"d{i}", "text", encode=False, **values) for i, values in enumerate(fields, 1)])
    return store


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (Comparison("year", "=", 2019), [1]),
        (Comparison("year", ">=", 2019.0), [1, 2]),
        (Comparison("year", "!=", 2019), [2]),  # neither the text '2020' nor the document without a year
        (Comparison("year", "=", "2020"), [3]),
        (Comparison("year", ">", -(2**70)), [1, 2]),
        (Not(Comparison("year", "=", 2019)), [2, 3, 4]),
        (Comparison("open", "=", True), [1]),
        (Comparison("open", "=", 1), []),
        (Comparison("open", "<", True), [3]),
        (Comparison("tags", "=", "y"), [2]),
        (Comparison("tags", "!=", "y"), [2, 4]),  # any value differs
        (Membership("lang", ("en", "fr", 5)), [1, 2]),
        (Membership("lang", ()), []),
        (Membership("id", ("d1", "d4", "zz", 3)), [1, 4]),
        (Between("year", 2019, 2020.5), [1, 2]),
        (Between("lang", "a", "f"), [1]),
        (Between("year", 2000, "z"), []),
        (Like("lang", "e_"), [1, 3]),
        (Like("tags", "ünder%"), [4]),
        (Like("tags", "%"), [2, 4]),
        (Like("id", "%3"), [3]),
        (Like("year", "2%"), [3]),
        (IsNull("lang"), [4]),
        (IsNull("tags"), [1, 3]),
        (Not(IsNull("year")), [1, 2, 3]),
        (IsNull("title"), [1, 2, 3, 4]),
        (IsNull("id"), []),
        (Comparison("title", "!=", "x"), []),
        (Comparison("id", "=", 1), []),
        (And(()), [1, 2, 3, 4]),
        (Or(()), []),
        (And((Comparison("lang", "=", "en"), Comparison("year", "<", 2020))), [1]),
        (Or(tuple(Comparison("id", "=", f"d{i}") for i in range(3, 5000))), [3, 4]),
    ],
)
def test_a_condition_finds_what_it_says(papers: Store, condition: Condition, expected: list[int]) -> None:
    assert papers.select(condition).tolist() == expected


def test_an_unknown_field_is_an_error_that_names_the_known_ones(papers: Store) -> None:
    with pytest.raises(
        FilterError, match=r"no document has a field 'yaer'; did you mean 'year'\? known fields: 'lang', 'open'"
    ):
        papers.select(Not(Comparison("yaer", "=", 1)))


def test_in_an_empty_store_any_field_finds_nothing(store: Store) -> None:
    assert store.select(Comparison("year", "=", 1)).tolist() == []


@pytest.mark.parametrize("name", ["'; DROP TABLE documents; --", 'x" OR 1=1 --', "value", "kind", "?", "document) OR (1=1"])
def test_names_and_values_never_become_sql(papers: Store, name: str) -> None:
    with pytest.raises(FilterError, match="no document has a field"):
        papers.select(Comparison(name, "=", 1))
    assert papers.select(Comparison("lang", "=", name)).tolist() == []
    assert papers.select(Like("lang", name)).tolist() == []
    assert papers.count_documents() == 4


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (Comparison("lang", "=", None), "lang is null"),
        (Membership("lang", ("en", None)), "lang is null"),
        (Comparison("year", "=", float("nan")), "NaN"),
        (Comparison("year", "=", 10**400), "401 digits"),
        (Comparison("lang", "=", "\ud800"), "surrogate"),
        (Membership("lang", tuple(str(i) for i in range(40_000))), "at most 30000"),
    ],
)
def test_a_condition_that_cannot_hold_is_refused_with_a_reason(papers: Store, condition: Condition, message: str) -> None:
    with pytest.raises(FilterError, match=message):
        papers.select(condition)


def test_a_condition_nested_too_deep_is_refused(papers: Store) -> None:
    condition: Condition = IsNull("lang")
    for _ in range(24):
        condition = Not(condition)
    assert papers.select(condition).tolist() == [4]
    for _ in range(2000):
        condition = Not(condition)
    with pytest.raises(FilterError, match="deeper than 25"):
        papers.select(condition)


def test_wide_conditions_within_deep_ones_give_an_answer_or_a_reason(papers: Store) -> None:
    condition: Condition = Comparison("id", "=", "d2")
    for _ in range(7):
        condition = Or((*(Comparison("id", "=", f"no{i}") for i in range(2000)), And((condition, Not(IsNull("year"))))))
    with pytest.raises(FilterError, match="nested too deep"):
        papers.select(condition)


def test_no_like_pattern_takes_for_ever(store: Store) -> None:
    store.write([prepare("a", "x", encode=False, f="a" * 20_000)])
    started = time.perf_counter()
    assert store.select(Like("f", "%a" * 500 + "%b")).tolist() == []
    assert time.perf_counter() - started < 1


names = st.sampled_from(["f", "g"])
texts = st.text(alphabet="aB%_ß\n", max_size=4)
scalars: st.SearchStrategy[Scalar] = st.one_of(
    st.integers(-3, 3),
    st.floats(-3, 3).map(lambda x: round(x, 1)),
    st.booleans(),
    texts,
    st.sampled_from([2**62, 2.0**62, 2**62 + 1]),
)
values = st.one_of(scalars, st.none(), st.lists(st.one_of(scalars, st.none()), max_size=3))
documents = st.lists(st.dictionaries(names, values), min_size=1, max_size=6)
leaves: st.SearchStrategy[Condition] = st.one_of(
    st.builds(Comparison, names, st.sampled_from(["=", "!=", "<", "<=", ">", ">="]), scalars),
    st.builds(Membership, names, st.lists(scalars, max_size=3).map(tuple)),
    st.builds(Between, names, scalars, scalars),
    st.builds(Like, names, texts),
    st.builds(IsNull, names),
)
conditions = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(And, st.lists(inner, max_size=3).map(tuple)),
        st.builds(Or, st.lists(inner, max_size=3).map(tuple)),
    ),
    max_leaves=6,
)


def kind_of(value: Scalar) -> type:
    return bool if isinstance(value, bool) else str if isinstance(value, str) else float


def holds(condition: Condition, fields: dict[str, Value]) -> bool:
    """What a condition means, in plain Python."""
    if isinstance(condition, Not):
        return not holds(condition.condition, fields)
    if isinstance(condition, And):
        return all(holds(part, fields) for part in condition.conditions)
    if isinstance(condition, Or):
        return any(holds(part, fields) for part in condition.conditions)
    value = fields.get(condition.field)
    present = [one for one in (value if isinstance(value, list) else [value]) if one is not None]
    if isinstance(condition, IsNull):
        return not present
    return any(meets(condition, one) for one in present)


def meets(condition: Condition, value: Scalar) -> bool:
    if isinstance(condition, Like):
        pattern = re.escape(condition.pattern).replace("%", ".*").replace("_", ".")
        return isinstance(value, str) and re.fullmatch(pattern, value, re.IGNORECASE | re.DOTALL) is not None
    if isinstance(condition, Membership):
        return any(kind_of(value) is kind_of(one) and value == one for one in condition.values)
    if isinstance(condition, Between):
        same = kind_of(value) is kind_of(condition.low) is kind_of(condition.high)
        return same and condition.low <= value <= condition.high  # type: ignore[operator]
    assert isinstance(condition, Comparison)
    if kind_of(value) is not kind_of(condition.value):
        return False
    low, high = value, condition.value
    return {
        "=": lambda: low == high,
        "!=": lambda: low != high,
        "<": lambda: low < high,  # type: ignore[operator]
        "<=": lambda: low <= high,  # type: ignore[operator]
        ">": lambda: low > high,  # type: ignore[operator]
        ">=": lambda: low >= high,  # type: ignore[operator]
    }[condition.operator]()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(documents, st.lists(conditions, min_size=1, max_size=5))
def test_conditions_mean_in_sql_what_they_mean_in_python(
    shared_store: Store, collection: list[dict[str, Value]], asked: list[Condition]
) -> None:
    known = {"f": "known", "g": "known"}
    everything = [known, *collection]
    shared_store.delete(list(shared_store.document_ids()))
    shared_store.write([prepare(str(i), "text", encode=False, **fields) for i, fields in enumerate(everything)])
    ids = {passage.key: passage.document_id for passage in shared_store.passages(list(texts_of(shared_store)))}
    for condition in asked:
        found = {ids[int(key)] for key in shared_store.select(condition)}
        assert found == {str(i) for i, fields in enumerate(everything) if holds(condition, fields)}, condition


@pytest.fixture
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store.open(tmp_path_factory.mktemp("shared")) as opened:
        yield opened


def test_the_summary_tells_each_field_s_types(papers: Store) -> None:
    summary = papers.field_summary()
    assert dict(summary["year"].types) == {"number": 2, "text": 1}
    assert summary["year"].documents == 3
    assert dict(summary["tags"].types) == {"text": 2, "number": 1, "null": 1}
    assert summary["tags"].documents == 3


def test_what_may_be_chosen_of_a_field_is_its_range_and_where_they_are_few_its_values(papers: Store) -> None:
    number, text = papers.field_values()["year"]
    assert (number.kind, number.documents, number.low, number.high) == ("number", 2, 2019, 2020.5)
    assert (text.kind, text.values) == ("text", (("2020", 1),))
    (tags_number, tags) = papers.field_values(most=2)["tags"]
    assert tags_number.values == ((3, 1),)
    assert (tags.low, tags.high, tags.values) == ("x", "Ünder_score%", ())  # three of them are more than two
    assert papers.field_values()["open"][0].values == ((0, 1), (1, 1))
    assert [one.kind for one in papers.field_values()["lang"]] == ["text"]  # null is no value
