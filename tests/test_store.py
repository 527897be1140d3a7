"""The store keeps what it acknowledged, finds what a condition says, and refuses what would harm it."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from twinrank.errors import (
    CollectionBusyError,
    CollectionError,
    DocumentError,
    FilterError,
    IndexDamagedError,
    InputError,
    ModelMismatchError,
    StorageError,
)
from twinrank.store import PreparedDocument, PreparedPassage, Store
from twinrank.types import (
    And,
    Between,
    Comparison,
    Condition,
    Document,
    IsNull,
    Like,
    Membership,
    Not,
    Or,
    Scalar,
    Value,
)

VIEW = {"model": "hash", "fingerprint": "f1", "dimension": 4}


def vector_of(text: str) -> np.ndarray:
    """A vector that depends on the text alone."""
    return np.random.default_rng(sum(map(ord, text))).normal(size=4).astype(np.float32)


def prepare(id: str, *texts: str, encode: bool = True, without: str = "", **fields: Value) -> PreparedDocument:
    """A document whose passages are `texts`; those named in `without` come without a vector."""
    passages, place = [], 0
    for text in texts:
        known = {"small": (None if text == without else vector_of(text), len(text) % 3)} if encode else {}
        passages.append(PreparedPassage(place, place + len(text), f"digest of {text}", known))
        place += len(text) + 1
    return PreparedDocument(Document(id, " ".join(texts), fields=fields), "digest of " + " ".join(texts), passages)


def texts_of(store: Store) -> dict[int, str]:
    return {int(key): text for keys, texts in store.iterate_passages() for key, text in zip(keys, texts, strict=True)}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "papers", timeout=0.2) as opened:
        yield opened


@pytest.fixture
def viewed(store: Store) -> Store:
    store.add_view("small", **VIEW)
    return store


def test_what_was_written_is_read_back(store: Store) -> None:
    document = Document(
        "a1", "Zinc. Cold.", title="On zinc", fields={"year": 2021, "open": True, "tags": ["x", 1, None]}, source="f"
    )
    store.write([PreparedDocument(document, "d1", [PreparedPassage(0, 5, "p1"), PreparedPassage(6, 11, "p2")])])
    assert store.get(["a1", "zz"]) == [document, None]
    assert (store.count_documents(), store.count_passages(), list(store.document_ids())) == (1, 2, ["a1"])
    assert store.known_digests(["a1", "zz"]) == {"a1": "d1"}
    assert store.passage_digests(["a1", "zz"]) == {"a1": {"p1", "p2"}}
    passages = store.passages([2, 1, 99])
    assert [(p.key, p.number, p.text, p.titled_text) for p in passages] == [
        (2, 1, "Cold.", "On zinc Cold."),
        (1, 0, "Zinc.", "On zinc Zinc."),
    ]
    assert store.documents_of([2, 99, 1]).tolist() == [1, -1, 1]
    assert store.document_info([2])[2].fields == {"year": 2021, "open": True, "tags": ["x", 1, None]}


@pytest.mark.parametrize("id", ["line\nbreak", "🦓", "a'; DROP TABLE documents; --", "nul\0byte", " ", "%", "x" * 10_000])
def test_any_id_comes_back_as_it_was(store: Store, id: str) -> None:
    text = "first\0second 🦓"
    store.write([PreparedDocument(Document(id, text, title="t\0t"), "d", [PreparedPassage(6, 14, "p")])])
    assert store.get([id]) == [Document(id, text, title="t\0t")]
    assert store.passages([1])[0].text == "second 🦓"
    assert store.select(Comparison("id", "=", id)).tolist() == [1]
    assert store.check() == []
    assert store.delete([id]) == [id]


def test_everything_is_there_after_closing_and_opening(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        store.add_view("small", **VIEW)
        store.write([prepare("a", "one", "two", year=1)])
        store.set_meta("recipe", "r")
    with Store.open(tmp_path, create=False) as store:
        assert store.get_meta("recipe") == "r"
        assert store.get_meta("nothing") is None
        assert store.views()["small"].complete
        np.testing.assert_array_equal(store.vectors("small", [2, 1]), [vector_of("two"), vector_of("one")])
        assert store.sequence() == 2


def test_an_update_replaces_instead_of_duplicating(viewed: Store) -> None:
    viewed.write([prepare("a", "one", "two", year=1), prepare("b", "other")])
    viewed.write([prepare("a", "three", year=2)])
    assert sorted(texts_of(viewed).values()) == ["other", "three"]
    assert viewed.count_documents() == 2
    assert viewed.select(Comparison("year", "=", 1)).tolist() == []
    assert viewed.check() == []


def test_an_unchanged_passage_keeps_its_key_and_its_vector(viewed: Store) -> None:
    viewed.write([prepare("a", "one", "two", "three")])
    before = viewed.sequence()
    viewed.write([prepare("a", "zero", "two", "one", without="two")])  # "two" stays, "one" moves, "three" goes, "zero" comes
    assert texts_of(viewed) == {1: "one", 2: "two", 4: "zero"}
    assert [(key, kind) for _, key, kind in viewed.changes_since(before)] == [(3, "remove"), (4, "add"), (1, "add")]
    np.testing.assert_array_equal(viewed.vectors("small", [2])[0], vector_of("two"))
    assert [p.number for p in viewed.passages([4, 2, 1])] == [0, 1, 2]
    assert viewed.check() == []


def test_a_passage_that_now_stands_twice_gets_its_twin_s_vector(viewed: Store) -> None:
    viewed.write([prepare("a", "one")])
    viewed.write([prepare("a", "one", "one", without="one")])
    np.testing.assert_array_equal(viewed.vectors("small", [1, 2]), [vector_of("one")] * 2)
    assert viewed.check() == []


def test_a_key_is_never_used_twice(viewed: Store) -> None:
    viewed.write([prepare("a", "one", "two")])
    viewed.delete(["a"])
    viewed.write([prepare("a", "one")])
    assert list(texts_of(viewed)) == [3]


def test_a_deleted_document_takes_everything_with_it(viewed: Store) -> None:
    viewed.write([prepare("a", "one", year=1), prepare("b", "two", year=2)])
    assert viewed.delete(["b", "zz", "a", "b"]) == ["b", "a"]
    assert viewed.delete(["a"]) == []
    assert (viewed.count_documents(), viewed.count_passages(), texts_of(viewed), viewed.field_summary()) == (0, 0, {}, {})
    assert list(viewed.iterate_vectors("small")) == []
    assert viewed.check() == []


def test_of_documents_with_the_same_id_the_last_one_counts(store: Store) -> None:
    store.write([prepare("a", "one", encode=False), prepare("a", "two", encode=False)])
    assert list(texts_of(store).values()) == ["two"]


def test_a_refused_write_leaves_the_store_as_it_was(viewed: Store) -> None:
    viewed.write([prepare("a", "one")])
    before = viewed.sequence()
    with pytest.raises(InputError, match=r"passage 0 of document 'c' came without a vector for view 'small'"):
        viewed.write([prepare("b", "two"), prepare("c", "three", without="three")])
    assert (list(viewed.document_ids()), viewed.sequence()) == (["a"], before)


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        (np.array([1, np.nan, 0, 0]), "passage 0 of document 'a' .* NaN"),
        (np.array([1, np.inf, 0, 0]), "infinity"),
        (np.zeros(4), "zeros"),
        (np.ones(5), r"shape \(5,\).*holds \(4,\)"),
        (np.ones((1, 4)), r"shape \(1, 4\)"),
    ],
)
def test_a_vector_that_cannot_be_searched_is_refused_at_the_door(viewed: Store, vector: np.ndarray, message: str) -> None:
    passage = PreparedPassage(0, 1, "p", {"small": (vector.astype(np.float32), 0)})
    with pytest.raises(InputError, match=message):
        viewed.write([PreparedDocument(Document("a", "x"), "d", [passage])])
    assert viewed.count_documents() == 0


@pytest.mark.parametrize("part", ["id", "text", "title", "source", "field name", "field value"])
def test_half_a_surrogate_pair_is_refused_by_name(store: Store, part: str) -> None:
    bad = "a\ud800b"
    fields = {bad: 1} if part == "field name" else {"f": bad} if part == "field value" else {}
    values = {"id": "a", "text": "x", "title": "", "source": ""} | ({part: bad} if not fields else {})
    with pytest.raises(DocumentError, match="surrogate"):
        store.write([PreparedDocument(Document(fields=fields, **values), "d", [])])
    assert store.count_documents() == 0
    if part == "id":
        with pytest.raises(DocumentError, match="surrogate"):
            store.get([bad])


@pytest.mark.parametrize(
    ("value", "message"),
    [(float("nan"), "fields of document 'a'"), (2**63, "beyond 64 bits"), ({"x": 1}, "type dict"), ([["x"]], "type list")],
)
def test_a_field_that_cannot_be_stored_is_refused(store: Store, value: object, message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        store.write([PreparedDocument(Document("a", "x", fields={"f": value}), "d", [])])  # type: ignore[dict-item]


def test_a_passage_outside_its_text_is_refused(store: Store) -> None:
    with pytest.raises(InputError, match="2:9, outside its 3 characters"):
        store.write([PreparedDocument(Document("a", "abc"), "d", [PreparedPassage(2, 9, "p")])])


def test_a_document_without_text_or_passages_is_kept(store: Store) -> None:
    store.write([PreparedDocument(Document("a", ""), "d", [])])
    assert store.passage_digests(["a"]) == {"a": set()}
    assert store.get(["a"]) == [Document("a", "")]


# The log of changes


def test_the_log_tells_the_last_change_of_each_passage(viewed: Store) -> None:
    viewed.write([prepare("a", "one"), prepare("b", "two")])
    assert viewed.changes_since(0) == [(1, 1, "add"), (2, 2, "add")]
    viewed.delete(["a"])
    # An index that took passage 1 in before it could write its stamp must still be told to remove it.
    assert viewed.changes_since(0) == [(2, 2, "add"), (3, 1, "remove")]
    assert viewed.changes_since(2) == [(3, 1, "remove")]
    assert viewed.changes_since(3) == []


def test_replaying_the_log_gives_the_store_s_own_passages(viewed: Store) -> None:
    random = np.random.default_rng(7)
    words = ["one", "two", "three", "four", "five"]
    replayed: set[int] = set()
    seen = 0
    for _ in range(60):
        ids = [str(i) for i in random.integers(0, 6, size=3)]
        if random.random() < 0.3:
            viewed.delete(ids)
        else:
            viewed.write([prepare(id, *random.choice(words, size=random.integers(0, 5))) for id in ids])
        if random.random() < 0.5:
            for sequence, key, kind in viewed.changes_since(seen):
                replayed = replayed | {key} if kind == "add" else replayed - {key}
                seen = max(seen, sequence)
            assert replayed == set(texts_of(viewed))
    assert viewed.check() == []


def test_a_log_that_was_compacted_sends_old_indexes_to_be_rebuilt(viewed: Store) -> None:
    viewed.write([prepare("a", "one"), prepare("b", "two"), prepare("c", "three")])
    viewed.compact_changes(2)
    assert viewed.changes_since(2) == [(3, 3, "add")]
    assert viewed.sequence() == 3
    with pytest.raises(IndexDamagedError, match="no longer reaches back to 1"):
        viewed.changes_since(1)
    viewed.compact_changes(99)
    assert viewed.sequence() == 3
    viewed.delete(["a"])
    assert viewed.changes_since(3) == [(4, 1, "remove")]


def test_an_index_from_the_future_is_sent_to_be_rebuilt(store: Store) -> None:
    with pytest.raises(IndexDamagedError, match="of change 5, the store only at 0"):
        store.changes_since(5)


# Views


def test_a_view_over_existing_passages_is_filled_and_then_complete(store: Store) -> None:
    store.write([prepare("a", "one", "two", encode=False), prepare("b", "three", encode=False)])
    assert not store.add_view("small", **VIEW).complete
    with pytest.raises(CollectionError, match="3 passages have no vector"):
        store.complete_view("small")
    for keys, texts in store.passages_without_vectors("small", batch=2):
        store.set_vectors("small", keys, np.array([vector_of(text) for text in texts]), [5] * len(keys))
    store.complete_view("small")
    assert store.views()["small"].complete
    assert store.truncation("small") == (3, 15)
    assert list(store.passages_without_vectors("small")) == []
    assert store.check() == []


def test_setting_a_vector_in_a_searched_view_is_a_change(viewed: Store) -> None:
    viewed.write([prepare("a", "one")])
    viewed.set_vectors("small", [1, 99], np.ones((2, 4), np.float32))
    assert viewed.changes_since(1) == [(2, 1, "add")]
    assert viewed.vectors("small", [1]).tolist() == [[1, 1, 1, 1]]


def test_vectors_are_iterated_in_batches_by_key(viewed: Store) -> None:
    viewed.write([prepare(f"d{i}", f"text {i}") for i in range(10)])
    viewed.delete(["d3"])
    batches = list(viewed.iterate_vectors("small", batch=4))
    assert [keys.tolist() for keys, _ in batches] == [[1, 2, 3, 5], [6, 7, 8, 9], [10]]
    assert all(vectors.dtype == np.float32 for _, vectors in batches)
    np.testing.assert_array_equal(batches[0][1][3], vector_of("text 4"))


def test_another_model_over_the_same_view_is_refused_with_both_fingerprints(viewed: Store) -> None:
    assert viewed.add_view("small", **VIEW) == viewed.views()["small"]
    with pytest.raises(ModelMismatchError, match=r"f1.*f2"):
        viewed.add_view("small", model="other", fingerprint="f2", dimension=4)


def test_a_dropped_view_is_gone(viewed: Store) -> None:
    viewed.write([prepare("a", "one")])
    viewed.drop_view("small")
    assert viewed.views() == {}
    with pytest.raises(CollectionError, match="no view 'small'; it has none"):
        viewed.vectors("small", [1])
    viewed.write([prepare("b", "two", encode=False)])
    assert viewed.check() == []


def test_a_vector_for_an_unknown_view_or_passage_is_an_error(viewed: Store) -> None:
    with pytest.raises(InputError, match="passage 7 has no vector"):
        viewed.vectors("small", [7])
    passage = PreparedPassage(0, 1, "p", {"small": (np.ones(4, np.float32), 0), "big": (np.ones(9, np.float32), 0)})
    with pytest.raises(InputError, match="view 'big'; the collection has 'small'"):
        viewed.write([PreparedDocument(Document("a", "x"), "d", [passage])])


# Conditions


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


# Opening


def test_a_folder_without_a_store_is_no_collection(tmp_path: Path) -> None:
    with pytest.raises(CollectionError, match="is no collection"):
        Store.open(tmp_path / "nothing", create=False)
    assert not (tmp_path / "nothing").exists()


def test_a_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(CollectionError, match="cannot be created"):
        Store.open(tmp_path / "file")


def test_another_program_s_database_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "store.db")
    connection.execute("CREATE TABLE bookmarks(url)")
    connection.close()
    with pytest.raises(CollectionError, match="another program"):
        Store.open(tmp_path)


def test_a_newer_format_is_refused_with_both_numbers(store: Store) -> None:
    store.close()
    connection = sqlite3.connect(store.path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(CollectionError, match=r"its format is 99, this one reads up to 1; upgrade"):
        Store.open(store.folder)


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_file_that_is_no_database_is_told_as_damage(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "store.db").write_bytes(content)
    with pytest.raises(StorageError, match="damaged"):
        Store.open(tmp_path)
    assert (tmp_path / "store.db").read_bytes() == content


def test_a_store_whose_creation_was_cut_short_is_created_anew(tmp_path: Path) -> None:
    (tmp_path / "store.db").touch()
    with pytest.raises(CollectionError):
        Store.open(tmp_path, create=False)
    with Store.open(tmp_path) as store:
        assert store.count_documents() == 0


def test_a_closed_store_says_so(store: Store) -> None:
    store.close()
    with pytest.raises(CollectionError, match="is closed"):
        store.count_documents()


def test_a_path_with_odd_characters_is_opened(tmp_path: Path) -> None:
    with Store.open(tmp_path / "a b?c#d%20é&mode=memory") as store:
        store.write([prepare("a", "one", encode=False)])
    assert (tmp_path / "a b?c#d%20é&mode=memory" / "store.db").stat().st_size > 0


# Permissions, full disks, damage


def as_nobody(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script as a user without rights, which root is not."""
    if not hasattr(os, "geteuid"):
        pytest.skip("this system has no user ids")
    root = os.geteuid() == 0
    code = "import os, sys; sys.path[:0] = {path!r}; from twinrank.store import Store\n" + (
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n" if root else ""
    )
    code = code.format(path=sys.path) + "from twinrank.types import *; from twinrank.store import *\n" + script
    return subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False, timeout=60)


READ_AND_WRITE = """
import pathlib, twinrank.errors
store = Store.open(sys.argv[1], timeout=0.2)
print(store.count_documents(), store.writable, store.get(["a"])[0].text)
try:
    store.delete(["a"])
except twinrank.errors.CollectionReadOnlyError as error:
    print(error)
store.close()
"""


@pytest.fixture
def open_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that others may reach: pytest's own are for the owner alone."""
    above = tmp_path
    modes = {}
    while above.name and above.stat().st_uid == os.geteuid() and above.parent != above and not above.stat().st_mode & 0o005:
        modes[above] = above.stat().st_mode
        above.chmod(above.stat().st_mode | 0o055)
        above = above.parent
    folder = tmp_path / "papers"
    yield folder
    folder.chmod(0o755)
    for path, mode in modes.items():
        path.chmod(mode)


def test_a_read_only_folder_is_searched_and_says_why_it_cannot_be_written(open_folder: Path) -> None:
    with Store.open(open_folder) as store:
        store.write([prepare("a", "one", encode=False)])
    (open_folder / "store.db").chmod(0o444)
    open_folder.chmod(0o555)
    result = as_nobody(open_folder, READ_AND_WRITE)
    assert result.stdout.splitlines()[0] == "1 False one", result.stderr
    assert "no permission to write" in result.stdout


def test_a_read_only_folder_is_searched_while_its_owner_writes(open_folder: Path) -> None:
    with Store.open(open_folder) as store:
        store.write([prepare("a", "one", encode=False)])
        open_folder.chmod(0o555)
        for path in open_folder.iterdir():
            path.chmod(0o444)
        result = as_nobody(open_folder, READ_AND_WRITE)
    assert result.stdout.splitlines()[0] == "1 False one", result.stderr


def test_a_read_only_folder_left_by_a_crash_is_not_read_without_its_last_writes(open_folder: Path) -> None:
    with Store.open(open_folder) as store:
        store.write([prepare("a", "one", encode=False)])
        log = (open_folder / "store.db-wal").read_bytes()
        database = (open_folder / "store.db").read_bytes()
    (open_folder / "store.db").write_bytes(database)
    (open_folder / "store.db-wal").write_bytes(log)
    open_folder.chmod(0o555)
    result = as_nobody(open_folder, READ_AND_WRITE)
    assert "not closed properly" in result.stderr
    open_folder.chmod(0o755)
    with Store.open(open_folder) as store:
        assert store.count_documents() == 1


def test_a_collection_cannot_be_created_without_permission(open_folder: Path) -> None:
    open_folder.mkdir()
    open_folder.chmod(0o555)
    result = as_nobody(open_folder, "Store.open(sys.argv[1] + '/new')")
    assert "CollectionReadOnlyError" in result.stderr
    assert "no permission to write" in result.stderr


def test_a_full_disk_is_told_and_nothing_is_lost(viewed: Store) -> None:
    viewed.write([prepare("a", "one")])
    with viewed._borrow() as connection:  # the pool's only connection: SQLite itself refuses to grow the file
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageError, match=r"disk of .* is full; nothing of this change was kept"):
        viewed.write([prepare("b", "x" * 1_000_000)])
    assert list(viewed.document_ids()) == ["a"]
    viewed.write([prepare("b", "two")])
    assert viewed.check() == []


def test_a_failing_write_is_told_and_nothing_is_lost(tmp_path: Path) -> None:
    """The file size limit makes write(2) itself fail."""
    resource = pytest.importorskip("resource")
    script = f"""
import resource, signal, sys
sys.path[:0] = {sys.path!r}
from twinrank.errors import StorageError
from twinrank.store import *
from twinrank.types import Document
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = Store.open({str(tmp_path)!r})
store.write([PreparedDocument(Document("a", "one"), "d", [])])
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    store.write([PreparedDocument(Document("b", "x" * 1_000_000), "d", [])])
except StorageError as error:
    print(error)
print(list(store.document_ids()))
"""
    assert resource
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert "nothing of this change was kept" in result.stdout, result.stderr
    assert result.stdout.endswith("['a']\n")
    with Store.open(tmp_path) as store:
        assert list(store.document_ids()) == ["a"]
        assert store.check() == []


def change(store: Store, statement: str) -> None:
    connection = sqlite3.connect(store.path)
    connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE documents SET text = replace(text, 'one', 'oNe')", "document 'a' differs"),
        ("UPDATE documents SET fields = '{\"year\":2}'", "document 'a' differs"),
        ("UPDATE fields SET value = 3", "indexed fields of document 'a' differ"),
        ("UPDATE passages SET start = 1 WHERE key = 1", "passage 1 of document 'a' differs"),
        ("UPDATE vectors SET dropped = 9 WHERE passage = 1", "vector of passage 1 in view 'small' differs"),
        ("UPDATE vectors SET vector = zeroblob(16) WHERE passage = 1", "vector of passage 1 in view 'small' differs"),
        ("DELETE FROM vectors WHERE passage = 2", "view 'small' lacks the vectors of 1 passages"),
        ("DELETE FROM documents", "points to a row of documents that is not there"),
    ],
)
def test_check_finds_what_was_changed_behind_its_back(viewed: Store, statement: str, problem: str) -> None:
    viewed.write([prepare("a", "one", "two", year=1)])
    assert viewed.check() == []
    change(viewed, statement)
    assert any(problem in line for line in viewed.check())


def test_check_finds_a_flipped_bit_anywhere_in_text_and_vectors(viewed: Store) -> None:
    viewed.write([prepare("a", "a long text that is stored once", "and another")])
    viewed.close()
    content = bytearray(viewed.path.read_bytes())
    places = [content.rindex(b"long text"), content.rindex(vector_of("and another").tobytes()) + 5]
    for place in places:
        content[place] ^= 4
        viewed.path.write_bytes(content)
        with Store.open(viewed.folder) as damaged:
            assert len(damaged.check()) == 1
        content[place] ^= 4
    viewed.path.write_bytes(content)
    with Store.open(viewed.folder) as whole:
        assert whole.check() == []


def test_a_damaged_page_is_told_as_damage(viewed: Store) -> None:
    viewed.write([prepare(f"d{i}", f"text {i}") for i in range(500)])
    viewed.close()
    content = bytearray(viewed.path.read_bytes())
    content[8192 * 3 :] = b"\xa5" * (len(content) - 8192 * 3)
    viewed.path.write_bytes(content)
    with Store.open(viewed.folder) as damaged:
        assert damaged.check() != []
        with pytest.raises(StorageError, match="damaged"):
            for _ in damaged.iterate_passages():
                pass


# Several threads, several processes


def test_threads_search_while_another_writes(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        store.add_view("small", **VIEW)
        store.write([prepare(f"d{i}", "one", "two", year=0) for i in range(20)])
        done = threading.Event()
        problems: list[BaseException] = []

        def search() -> None:
            try:
                while not done.is_set():
                    keys = store.select(Comparison("year", ">=", 0))
                    assert len(keys) == 40  # never half a transaction
                    store.passages(keys)
            except BaseException as error:
                problems.append(error)

        threads = [threading.Thread(target=search) for _ in range(4)]
        for thread in threads:
            thread.start()
        for year in range(15):
            store.write([prepare(f"d{i}", "one", f"year {year}", year=year) for i in range(20)])
        done.set()
        for thread in threads:
            thread.join()
        assert problems == []
        assert store.check() == []


def test_a_second_writer_gets_a_clear_error_and_readers_go_on(store: Store) -> None:
    store.write([prepare("a", "one", encode=False)])
    with Store.open(store.folder, timeout=0.1) as other:
        with store._writing():
            with pytest.raises(CollectionBusyError, match="another process is writing"):
                other.delete(["a"])
            assert other.count_documents() == 1
        assert other.delete(["a"]) == ["a"]
    assert store.count_documents() == 0


def write_for_ever(folder: str, acknowledged: str) -> None:
    with Store.open(folder) as store, Path(acknowledged).open("a") as log:
        for number in range(10_000):
            store.write([prepare(f"{number}-{part}", "one", f"text {number}") for part in range(5)])
            if number % 3 == 2:
                store.delete([f"{number - 1}-{part}" for part in range(5)])
            log.write(f"{number}\n")
            log.flush()


def test_a_killed_writer_loses_nothing_that_it_acknowledged_and_leaves_no_half(tmp_path: Path) -> None:
    folder, log = tmp_path / "papers", tmp_path / "log"
    log.touch()
    with Store.open(folder) as store:
        store.add_view("small", **VIEW)
    for round_ in range(4):
        with Store.open(folder) as store:
            store.delete(list(store.document_ids()))
        log.write_text("")
        context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        writer = context.Process(target=write_for_ever, args=(str(folder), str(log)))
        writer.start()
        while not log.read_text().count("\n") > 5 + round_ * 7:
            time.sleep(0.001)
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        acknowledged = len(log.read_text().splitlines())
        with Store.open(folder) as store:
            assert store.check() == []
            kept = set(store.document_ids())
        for number in range(acknowledged):
            there = {f"{number}-{part}" in kept for part in range(5)}
            removed = number % 3 == 1 and number + 1 < acknowledged
            # The step in flight when the killer came may have been committed, but only as a whole.
            assert there == {not removed} or (number == acknowledged - 1 and len(there) == 1)


def test_a_forked_child_does_not_disturb_its_parent_s_store(store: Store) -> None:
    if not hasattr(os, "fork"):
        pytest.skip("this system does not fork")
    store.write([prepare("a", "one", encode=False)])
    child = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            f"""
import os, sys
sys.path[:0] = {sys.path!r}
from twinrank.store import Store
store = Store.open({str(store.folder)!r})
assert store.count_documents() == 1
if os.fork() == 0:
    os._exit(0 if store.count_documents() == 1 else 1)
_, status = os.wait()
print(status, store.count_documents())
""",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert child.stdout == "0 1\n", child.stderr


# Cost


def test_size_and_compact(viewed: Store) -> None:
    viewed.write([prepare(f"d{i}", f"{i} " * 2000) for i in range(200)])
    viewed.compact()
    full = viewed.size()
    viewed.delete([f"d{i}" for i in range(200)])
    viewed.compact()
    assert viewed.size() < full / 5


def test_fields_are_stored_once_as_json_in_their_order(store: Store) -> None:
    store.write([prepare("a", "x", encode=False, zebra=1, apple=[True, 1.5, "é"])])
    with store._reading() as connection:
        (stored,) = connection.execute("SELECT fields FROM documents").fetchone()
    assert stored == json.dumps({"zebra": 1, "apple": [True, 1.5, "é"]}, ensure_ascii=False, separators=(",", ":"))
