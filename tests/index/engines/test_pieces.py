"""Long texts in pieces: given back letter for letter, whole whoever reads while they are replaced."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinrank.errors import EngineError
from twinrank.index.engines.pieces import Texts, split


class Records(dict):
    def get(self, names):
        return {name: self[name] for name in names if name in self}

    def put(self, records):
        for record in records.values():
            assert all(len(value.encode()) <= 8 for value in record.values() if len(value) != 16)
        self.update(records)

    def delete(self, names):
        for name in names:
            self.pop(name, None)


@given(st.text(max_size=50), st.integers(4, 20))
def test_parts_are_small_enough_and_make_the_text_again(text: str, size: int) -> None:
    parts = split(text, size)
    assert "".join(parts) == text
    assert all(len(part.encode()) <= size for part in parts)


@given(st.lists(st.text(max_size=40), min_size=1, max_size=4))
def test_what_was_written_last_is_read_and_nothing_is_left_of_what_was_before(values: list[str]) -> None:
    records = Records()
    texts = Texts(records, 8)
    assert texts.get("a b") is None
    for value in values:
        texts.set("a b", value)
        assert texts.get("a b") == value
    assert len(records) == 1 + (len(split(values[-1], 8)) if len(values[-1].encode()) > 8 else 0)


def test_what_stops_before_the_head_is_written_leaves_the_text_before() -> None:
    records = Records()
    texts = Texts(records, 8)
    texts.set("x", "the text before")
    put = records.put

    def fail(given):
        if "x" in given:
            raise OSError("gone")
        put(given)

    records.put = fail
    with pytest.raises(OSError):
        texts.set("x", "the text after it")
    assert Texts(records, 8).get("x") == "the text before"


def test_a_text_that_lacks_a_piece_is_an_error() -> None:
    records = Records()
    texts = Texts(records, 8)
    texts.set("x", "more than eight bytes")
    records.delete([name for name in records if name.endswith("/1")])
    with pytest.raises(EngineError, match="'x' lacks 1 of its 3 pieces"):
        texts.get("x")
