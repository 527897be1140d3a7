"""Copying a collection finds out what is missing, and takes along what an interrupted update left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from twinrank import Collection
from twinrank.errors import CollectionError
from twinrank.index.engines.memory import KEPT
from twinrank.moving import copy
from twinrank.recipe import Recipe

LONG = Recipe.parse('[encoder]\nmodel = "none"\n[passages]\nsize = 10\noverlap = 0\n')
PLACE = "memory:///moving"


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Collection]:
    with Collection(tmp_path / "source", recipe=LONG) as collection:
        collection.add([{"id": f"d{number}", "text": f"zinc {number} " * 20} for number in range(9)])
        yield collection
    KEPT.pop("moving", None)


def test_a_document_that_is_missing_is_seen_though_there_are_others(
    source: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy(source, PLACE)
    with Collection(PLACE) as made:
        made.add([{"id": "other", "text": "of nobody"}])
        assert copy(source, PLACE).others == 1
        made.delete("d5")
    monkeypatch.setattr("twinrank.moving._copy_some", lambda *given: None)  # as where the engine loses what it was given
    with pytest.raises(CollectionError, match=r"lacks 1 document of .*, such as 'd5'; copy again"):
        copy(source, PLACE, sample=0)


def test_a_document_that_is_there_in_two_versions_is_copied(source: Collection, tmp_path: Path) -> None:
    copy(source, PLACE)
    with Collection(PLACE) as made:
        old = list(KEPT["moving"].rows.items())
        made.add([{"id": "d3", "text": "another text " * 20}])
        KEPT["moving"].rows.update(old)
        report = copy(made, tmp_path / "back")
        assert (report.documents, report.copied, report.others) == (9, 9, 0)
    with Collection(tmp_path / "back") as back:
        assert back.get(["d3"])[0].text == "another text " * 20  # type: ignore[union-attr]


def test_nothing_is_copied_to_itself(source: Collection) -> None:
    with pytest.raises(CollectionError, match="cannot be copied to itself"):
        copy(source, source.path)
    copy(source, PLACE)
    with Collection(PLACE) as made, pytest.raises(CollectionError, match="cannot be copied to itself") as told:
        copy(made, "memory://:secret@/moving")
    assert "secret" not in str(told.value)
