"""One record becomes one document, or is refused with a sentence that names the document and what is wrong with it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from twinrank.errors import DataError, DocumentError
from twinrank.readers import document, documents
from twinrank.types import Document

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine does not decide


@dataclass
class Paper:
    id: str
    text: str
    year: int = 2021


class TestDocument:
    def test_every_other_key_becomes_a_field(self) -> None:
        record = {
            "_id": 7,
            "title": "Zinc",
            "text": "It helps.",
            "year": 2021,
            "metadata": {"lang": "en"},
            "fields": {"x": 0.5},
        }
        assert document(record) == Document("7", "It helps.", "Zinc", {"x": 0.5, "lang": "en", "year": 2021})

    @pytest.mark.parametrize(
        ("given_value", "kept"),
        [
            ("cafe\u0301\x00", "café "),
            (True, True),
            (None, None),
            (2**63 - 1, 2**63 - 1),
            (0.1, 0.1),
            (date(2021, 5, 1), "2021-05-01"),
            (datetime(2021, 5, 1, 12, 30), "2021-05-01T12:30:00"),
            (datetime(2021, 5, 1, 12, 30, tzinfo=timezone(timedelta(hours=2))), "2021-05-01T10:30:00+00:00"),
            (["a", 1, None], ["a", 1, None]),
            (("a", "b"), ["a", "b"]),
            (np.int64(3), 3),
            (np.float32(0.5), 0.5),
            (np.bool_(True), True),
            (np.str_("a"), "a"),
            (np.array([1, 2]), [1, 2]),
            (np.datetime64("2021-05-01"), "2021-05-01T00:00:00"),
        ],
    )
    def test_values_are_kept_as_plain_python(self, given_value: object, kept: object) -> None:
        value = document({"id": "a", "text": "t", "field": given_value}).fields["field"]
        assert value == kept
        assert type(value) is type(kept)

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            ({"text": "t"}, "no id; it has 'text'"),
            ({"id": "", "text": "t"}, "id is empty"),
            ({"id": " ", "text": "t"}, "id is empty"),
            ({"id": True, "text": "t"}, "id is bool True"),
            ({"id": 1.0, "text": "t"}, "id is float 1.0"),
            ({"id": ["a"], "text": "t"}, "id is list"),
            ({"id": "a\nb", "text": "t"}, r"'a\\nb' holds a line end"),
            ({"id": "a\x00", "text": "t"}, "control character"),
            ({"id": "a\ud800", "text": "t"}, "surrogate"),
            ({"id": "a"}, "'a' has neither a text nor a title"),
            ({"id": "a", "text": " \n", "title": ""}, "'a' has neither a text nor a title"),
            ({"id": "a", "text": "\x00"}, "'a' has neither a text nor a title"),
            ({"id": "a", "text": b"bytes"}, "'a': its text is bytes"),
            ({"id": "a", "text": "t", "title": 3}, "'a': its title is int 3; expected text"),
            ({"id": "a", "text": "t", "mixed": [{"deep": 1}, 2]}, "'a': an item of the field 'mixed' is dict"),
            ({"id": "a", "text": "t", "rows": [[1]]}, "'a': an item of the field 'rows' is list"),
            ({"id": "a", "text": "t", "price": Decimal(1)}, "'a': the field 'price' is Decimal"),
            ({"id": "a", "text": "t", "set": {1}}, "'a': the field 'set' is set"),
            ({"id": "a", "text": "t", "big": 2**63}, "'a': the field 'big' is an integer beyond 64 bits"),
            ({"id": "a", "text": "t", "nan": float("nan")}, "'a': the field 'nan' is nan"),
            ({"id": "a", "text": "t", "inf": np.float64("inf")}, "'a': the field 'inf' is inf"),
            ({"id": "a", "text": "t", "a b": 1}, "'a': 'a b' cannot name a field"),
            ({"id": "a", "text": "t", "1a": 1}, "'a': '1a' cannot name a field"),
            ({"id": "a", "text": "t", "año": 1}, "'a': 'año' cannot name a field"),
            ({"id": "a", "text": "t", 5: 1}, "'a': 5 cannot name a field"),
            ({"id": "a", "text": "t", "x": 1, "metadata": {"x": 2}}, "'a': the field 'x' is given twice"),
            ({"id": "a", "text": "t", "fields": [1]}, "'a': 'fields' is not a mapping"),
            ("just text", "expected a document .* got str 'just text'"),
            (Paper, "expected a document .* got type"),
            (None, "expected a document .* got NoneType"),
        ],
    )
    def test_what_cannot_be_stored_is_refused_by_name(self, wrong: Any, said: str) -> None:
        with pytest.raises(DocumentError, match=said):
            document(wrong)

    def test_mappings_within_fields_become_fields_of_their_own(self) -> None:
        author = {"name": "Ada", "at": {"city": "London"}}
        found = document({"id": "a", "text": "t", "author": author, "refs": [{"doi": "1"}, {"doi": "2", "year": 2020}]})
        assert found.fields == {
            "author.name": "Ada",
            "author.at.city": "London",
            "refs.doi": ["1", "2"],
            "refs.year": [2020],
        }

    def test_a_dataclass_instance_is_read_by_its_attributes(self) -> None:
        assert document(Paper("a", "t")) == Document("a", "t", fields={"year": 2021})

    def test_a_document_is_checked_and_normalised_too(self) -> None:
        assert document(Document("a", "cafe\u0301", source="x.txt")) == Document("a", "café", source="x.txt")
        with pytest.raises(DocumentError, match="'a': the field 'x' is object"):
            document(Document("a", "t", fields={"x": object()}))  # type: ignore[dict-item]

    @pytest.mark.parametrize("name", ["😀", "a b", "../x", "Ünï/код#3", "'; DROP TABLE documents; --", "0"])
    def test_an_id_may_be_almost_anything(self, name: str) -> None:
        assert document({"id": name, "text": "t"}).id == name

    def test_a_text_with_half_a_surrogate_pair_or_nul_bytes_can_be_stored(self) -> None:
        assert document({"id": "a", "text": "x\ud800y\x00z"}).text == "x�y z"

    def test_the_given_record_stays_as_it_was(self) -> None:
        record = {"_id": "a", "text": "t", "metadata": {"x": 1}}
        document(record)
        assert record == {"_id": "a", "text": "t", "metadata": {"x": 1}}

    @patient
    @given(
        st.dictionaries(st.text(max_size=4), st.one_of(st.none(), st.text(), st.integers(), st.floats(), st.lists(st.text())))
    )
    def test_anything_becomes_a_storable_document_or_a_document_error(self, extra: dict[str, object]) -> None:
        try:
            found = document({**extra, "id": "a", "text": "t"})
        except DocumentError:
            return
        assert found.id == "a"
        for value in found.fields.values():
            assert value is None or isinstance(value, (str, int, float, list))


class TestDocuments:
    def test_one_record_of_each_kind(self) -> None:
        mapping = OrderedDict(id="a", text="t")
        for source in (mapping, Paper("a", "t"), Document("a", "t")):
            assert [found.id for found in documents(source)] == ["a"]

    def test_an_iterable_is_read_as_a_stream(self) -> None:
        taken = []

        def endless() -> Iterator[dict[str, object]]:
            number = 0
            while True:
                taken.append(number)
                yield {"id": number, "text": "t"}
                number += 1

        stream = documents(endless())
        assert [next(stream).id, next(stream).id] == ["0", "1"]
        assert taken == [0, 1]

    def test_a_bad_record_is_named_by_its_place(self) -> None:
        with pytest.raises(DocumentError, match="record 2: document 'b' has neither"):
            list(documents([{"id": "a", "text": "t"}, {"id": "b"}]))

    def test_a_text_that_is_no_path_is_not_taken_for_a_document(self) -> None:
        for text in ("zinc shortens a cold", "x" * 100_000, "nul\x00", ""):
            with pytest.raises(DataError, match="there is no file or folder"):
                documents(text)

    @pytest.mark.parametrize("source", [b"bytes", 3, None, Paper])
    def test_what_holds_no_documents_is_refused(self, source: object) -> None:
        with pytest.raises(DocumentError, match="cannot read documents from"):
            documents(source)

    def test_a_path_is_read(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("Zinc.")
        assert [found.id for found in documents(tmp_path)] == ["a.txt"]
        assert [found.text for found in documents(str(tmp_path / "a.txt"))] == ["Zinc."]

    def test_a_pandas_frame_is_read_by_rows_and_what_is_missing_is_none(self) -> None:
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame(
            {
                "id": [1, 2],
                "text": ["a", "b"],
                "year": [2021, None],
                "when": pandas.to_datetime(["2021-05-01", None]),
                "n": pandas.array([5, None], dtype="Int64"),
            }
        )
        assert [(found.id, found.fields) for found in documents(frame)] == [
            ("1", {"year": 2021.0, "when": "2021-05-01T00:00:00", "n": 5}),
            ("2", {"year": None, "when": None, "n": None}),
        ]
        with pytest.raises(DocumentError, match="no column 'id'; it has 'text', 'year'"):
            list(documents(frame[["text", "year"]]))

    def test_a_polars_frame_is_read_by_rows(self) -> None:
        polars = pytest.importorskip("polars")
        frame = polars.DataFrame({"id": ["a", "b"], "text": ["x", "y"], "n": [1, None], "f": [0.5, float("nan")]})
        assert [(found.id, found.fields) for found in documents(frame)] == [
            ("a", {"n": 1, "f": 0.5}),
            ("b", {"n": None, "f": None}),
        ]
