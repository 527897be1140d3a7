"""Documents as rows: nothing is lost on the way, whatever a document holds and however it is cut."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinrank.errors import StorageError
from twinrank.index.engines import Layout, Row, open_engine
from twinrank.index.engines.memory import KEPT
from twinrank.places.enginestore import EngineStore
from twinrank.places.rows import Known, by_document, document_of, is_long, is_whole, key_of, rows_of
from twinrank.store import PreparedDocument, PreparedPassage
from twinrank.text import Analyzer
from twinrank.types import Document

TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)
LONG = st.sampled_from(["a" * 1000, "a" * 1001, 'ö😀\n"' * 400])
SCALARS = st.one_of(
    st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), TEXTS, LONG
)
NAMES = st.one_of(TEXTS, st.sampled_from(["id", "title", "source"]))


@st.composite
def prepared(draw: st.DrawFn) -> PreparedDocument:
    """A document with passages anywhere in its text: overlapping, with gaps, none at its ends."""
    text = draw(TEXTS)
    fields = draw(st.dictionaries(NAMES, st.one_of(SCALARS, st.none(), st.lists(SCALARS, max_size=3)), max_size=4))
    document = Document(draw(TEXTS.filter(bool)), text, draw(TEXTS), {**fields, "summary": "a summary"}, draw(TEXTS))
    cuts = sorted(draw(st.lists(st.tuples(st.integers(0, len(text)), st.integers(0, len(text))), max_size=5)))
    passages = [PreparedPassage(min(cut), max(cut), f"d{place}") for place, cut in enumerate(cuts)]
    passages.sort(key=lambda one: (one.start, one.end))
    if draw(st.booleans()) or not passages:
        passages.append(PreparedPassage(2, 9, "also", part="summary"))
    return PreparedDocument(document, draw(TEXTS), passages)


def written(one: PreparedDocument, at: int = 1) -> list[Row]:
    count = len(one.passages)
    return rows_of(one, at, [np.ones(2, np.float32)] * count, [""] * count, [()] * count, [{}] * count)


@given(prepared())
def test_a_document_comes_back_from_its_rows_letter_for_letter(one: PreparedDocument) -> None:
    rows = [Known.read(row) for row in written(one)]
    assert is_whole(rows)
    assert document_of(rows) == one.document
    assert [(row.start, row.end, row.digest, row.part) for row in rows] == [
        (passage.start, passage.end, passage.digest, passage.part) for passage in one.passages
    ]
    assert all(row.text == (one.document.text if not row.part else "a summary")[row.start : row.end] for row in rows)


@contextmanager
def a_store() -> Iterator[EngineStore]:
    try:
        engine = open_engine("memory:///rows")
        engine.create(Layout(0, True))
        store = EngineStore(engine, "memory:///rows")
        store.analyzer = Analyzer("english")
        yield store
    finally:
        KEPT.pop("rows", None)


@given(prepared())
def test_long_fields_come_back_from_every_row_of_a_store_and_are_among_no_conditions(one: PreparedDocument) -> None:
    with a_store() as store:
        store.write([one])
        rows = store.engine.rows_of([one.document.id])
        assert store.get([one.document.id]) == [one.document]
        assert [kept.document for kept in store.prepared([one.document.id])] == [one.document]
        for row in rows:  # by itself, as a hit is
            store.look_again()
            assert store.document_info([row.key])[row.key].fields == one.document.fields
            assert not any(map(is_long, row.fields.values()))
        long = any(map(is_long, one.document.fields.values()))
        assert all((Known.read(row).long is not None) == long for row in rows)
        assert sum(bool(Known.read(row).long) for row in rows) == long


def test_a_long_field_is_kept_once_however_many_passages_the_document_has() -> None:
    summary = "A summary that is searched, too. " * 940  # 31 kB
    passages = [PreparedPassage(start, start + 180, f"d{start}", part="summary") for start in range(0, 174 * 178, 178)]
    document = Document("a", "", "Title", {"summary": summary, "year": 2020})
    rows = written(PreparedDocument(document, "v", passages))
    assert len(rows) == 174
    assert sum(len(row.payload) + len(json.dumps(dict(row.fields))) for row in rows) < 4 * len(summary)
    assert document_of([Known.read(row) for row in rows]) == document


def test_what_conditions_see_is_the_fields_and_id_title_and_source() -> None:
    document = Document("a", "text", "Title", {"year": 2020, "title": "another"}, "")
    row = written(PreparedDocument(document, "v", [PreparedPassage(0, 4, "d")]))[0]
    assert row.fields == {"year": 2020, "id": "a", "title": "Title"}
    assert document_of([Known.read(row)]) == document


def test_of_two_versions_the_newer_whole_one_counts() -> None:
    passages = [PreparedPassage(0, 2, "x"), PreparedPassage(2, 4, "y")]
    old = written(PreparedDocument(Document("a", "old!"), "1", passages), 1)
    new = written(PreparedDocument(Document("a", "new!"), "2", passages), 2)
    assert document_of(by_document([*old, *new])["a"][0]).text == "new!"
    versions = by_document([*old, new[0]])["a"]
    assert document_of(versions[0]).text == "old!"
    assert not is_whole(versions[1])


def test_keys_follow_from_what_they_are_of() -> None:
    assert key_of("a", "v", 0) == key_of("a", "v", 0)
    different = {key_of("a", "v", 0), key_of("b", "v", 0), key_of("a", "w", 0), key_of("a", "v", 1), key_of("a", "v", 0, 1)}
    assert len(different) == 5
    assert all(0 < key < 2**63 for key in different)


def test_a_row_of_somebody_else_is_refused_by_name() -> None:
    row = written(PreparedDocument(Document("a", "text"), "v", [PreparedPassage(0, 4, "d")]))[0]
    for payload in ("", "{}", "[]", "null", '{"v": 1}'):
        with pytest.raises(StorageError, match="of document 'a' is not one that twinrank wrote"):
            Known.read(replace(row, payload=payload))
