"""What several writers of a collection in an engine, and writers that died, leave of it: the plainest engine stands for all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from twinrank import Collection
from twinrank.cli import twinrank
from twinrank.cli.tune import _take
from twinrank.conditions import meets
from twinrank.errors import CollectionError, DocumentError, EngineError, FilterError, RecipeError
from twinrank.index.engines import Engine, Layout, Limits, open_engine
from twinrank.index.engines.memory import KEPT, MemoryEngine
from twinrank.learned import Belongs, Learned, find, keep
from twinrank.places import enginecheck, enginestore
from twinrank.places.enginestore import EngineStore
from twinrank.places.rows import Known
from twinrank.recipe import Recipe
from twinrank.search.filters import parse
from twinrank.stopping import TOPS, Covariance, Model, Rule
from twinrank.store import PreparedDocument, PreparedPassage
from twinrank.text import Analyzer
from twinrank.types import Condition, Document

WORDS = Recipe().with_model("none")
LONG = Recipe.parse('[encoder]\nmodel = "none"\n[passages]\nsize = 10\noverlap = 0\n')
MODEL = Model(np.zeros(1), np.ones(1), np.zeros(3), Covariance(0, 0, 0, 1, 1))


@pytest.fixture
def place() -> Iterator[str]:
    yield "memory:///enginestore"
    KEPT.pop("enginestore", None)


class Watched:
    """An engine whose calls are counted; with `inexact`, one that cannot say any condition."""

    def __init__(self, engine: Engine, inexact: bool = False) -> None:
        self.engine, self.inexact = engine, inexact
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.engine, name)
        if not callable(found):
            return found

        def call(*given: Any, **named: Any) -> Any:
            self.calls.append(name)
            if self.inexact:
                given = tuple(None if _is_condition(one) else one for one in given)
            return found(*given, **named)

        return call

    def exact(self, where: Condition) -> bool:
        return not self.inexact


def _is_condition(one: object) -> bool:
    return type(one).__module__ == "twinrank.types" and hasattr(one, "field")


def store_of(collection: Collection) -> EngineStore:
    assert isinstance(collection.store, EngineStore)
    return collection.store


def watch(collection: Collection, inexact: bool = False) -> Watched:
    store = store_of(collection)
    watched = Watched(store.engine, inexact)
    store.engine = watched  # type: ignore[assignment]
    return watched


def test_fields_that_two_writers_bring_at_once_are_both_known(place: str) -> None:
    with Collection(place, recipe=WORDS) as one, Collection(place) as other:
        other.add({"id": "c", "text": "honey"})  # and saw that there are no fields
        one.add({"id": "a", "text": "zinc", "year": 2020})
        other.add({"id": "b", "text": "zinc", "lang": "en"})
        for collection in (one, other):
            assert [hit.id for hit in collection.search("zinc", where="year = 2020")] == ["a"]
            assert [hit.id for hit in collection.search("zinc", where="lang = 'en'")] == ["b"]
            with pytest.raises(FilterError, match="no document has a field 'yeer'"):
                collection.search("zinc", where="yeer = 2020")


def test_a_field_that_the_table_lost_is_found_in_the_rows(place: str) -> None:
    with Collection(place, recipe=WORDS) as collection:
        collection.add({"id": "a", "text": "zinc", "year": 2020})
        store_of(collection).set_meta(enginestore.FIELDS, "{}")  # as a writer leaves it that read before and wrote after
        assert [hit.id for hit in collection.search("zinc", where="year = 2020")] == ["a"]


LONG_TEXT = "zinc and honey " * 100


def test_long_fields_of_all_hits_come_by_one_fetch_and_where_their_key_was_taken_too(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = [{"id": f"d{number}", "text": "zinc " * 40, "notes": f"{number} {LONG_TEXT}", "year": 1} for number in range(9)]
    with Collection(place, recipe=LONG) as collection:
        collection.add(documents)
        rows = [Known.read(row) for row in store_of(collection).engine.rows_of([f"d{number}" for number in range(9)])]
        later = [one.row.key for one in rows if one.row.number == 2]
        watched = watch(collection)
        store_of(collection).look_again()
        info = collection.store.document_info(later)
        assert sorted(one.fields["notes"] for one in info.values()) == [one["notes"] for one in documents]
        assert watched.calls == ["fetch", "fetch"]  # the rows, and their documents' first
        monkeypatch.setattr(enginestore, "key_of", lambda document, version, number: later[0])  # as if all were salted
        store_of(collection).look_again()
        info = collection.store.document_info(later)
        assert sorted(one.fields["notes"] for one in info.values()) == [one["notes"] for one in documents]
        assert all(hit.fields["notes"].startswith(hit.id[1:]) for hit in collection.search("zinc"))  # type: ignore[union-attr]


def test_a_condition_over_a_long_field_is_refused_by_its_name(place: str) -> None:
    with Collection(place, recipe=WORDS) as collection, Collection(place) as other:
        other.add({"id": "b", "text": "zinc", "notes": "short", "year": 2021})
        assert len(other.search("zinc", where="notes = 'short'")) == 1
        collection.add({"id": "a", "text": "zinc", "notes": ["short", LONG_TEXT], "year": 2020})
        other.add({"id": "c", "text": "zinc", "title": "T", "notes": "short", "more": 1})
        for where in ("notes = 'short'", "year = 2020 or not notes is null"):
            with pytest.raises(FilterError, match=r"over 1,000 characters in the field 'notes'.* keep a short field"):
                collection.search("zinc", where=where)
        assert [hit.id for hit in collection.search("zinc", where="year = 2020")] == ["a"]
        other.add(Document("d", "honey", "T", {"title": LONG_TEXT}))  # conditions are over the title, not the field of its name
        assert [hit.id for hit in collection.search("zinc honey", where="title = 'T'")] == ["d", "c"]
        assert "field notes: long texts, which conditions cannot be over" in str(collection.status())
        assert "field year: number 2 of 2 documents" in str(collection.status())


def test_rebuilding_notes_anew_which_fields_are_long(place: str) -> None:
    with Collection(place, recipe=WORDS) as collection:
        collection.add({"id": "a", "text": "zinc", "notes": LONG_TEXT, "year": 2020})
        store_of(collection).set_meta(enginestore.FIELDS, "{}")  # as where two writers noted at once
        collection.rebuild()
        with pytest.raises(FilterError, match="keep a short field beside it"):
            collection.search("zinc", where="notes is null")
        collection.add({"id": "a", "text": "zinc", "notes": "shortened", "year": 2020})
        collection.rebuild()
        assert len(collection.search("zinc", where="notes = 'shortened' and year = 2020")) == 1


def test_a_long_field_that_an_engine_cannot_take_is_told_by_name(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryEngine, "limits", Limits(payload=1400, document=50, k=100, dimension=10, fields=100))
    with Collection(place, recipe=WORDS) as collection:
        collection.add({"id": "a", "text": "zinc", "notes": "a" * 1100})  # beyond what the fields may take
        with pytest.raises(DocumentError, match=r"shorten its fields of over 1,000 characters \(notes\)"):
            collection.add({"id": "a", "text": "zinc", "notes": "a" * 1500})


def test_what_was_cut_off_a_passage_is_still_known_when_its_vector_is_taken_over(place: str) -> None:
    vectors = {"vectors": (np.ones(2, np.float32), 7)}
    with Collection(place, recipe=WORDS) as made:
        engine = store_of(made).engine
    KEPT.pop("enginestore")
    engine.create(Layout(2, True))
    store = EngineStore(engine, place)
    store.analyzer = Analyzer("english")
    store.add_view("vectors", model="m", fingerprint="f", dimension=2)
    document = Document("a", "zinc")
    store.write([PreparedDocument(document, "1", [PreparedPassage(0, 4, "d", vectors)])])  # type: ignore[arg-type]
    changed = replace(document, fields={"year": 2020})
    store.write([PreparedDocument(changed, "2", [PreparedPassage(0, 4, "d", {"vectors": None})])])
    assert store.prepared(["a"])[0].document == changed
    assert store.prepared(["a"])[0].passages[0].vectors["vectors"][1] == 7  # type: ignore[index]


def test_a_text_of_the_meta_that_another_changed_meanwhile_is_set_again(place: str) -> None:
    with Collection(place, recipe=WORDS) as one, Collection(place) as other:
        one.write_text("calibration.json", "1")
        other.write_text("calibration.json", "2")
        one.write_text("calibration.json", "1")
    with Collection(place) as again:
        assert again.read_text("calibration.json") == "1"


def add_half(collection: Collection, text: str) -> None:
    """As a writer that dies when half of what it writes is there."""
    watched = watch(collection)
    engine = watched.engine

    def upsert(rows: list[Any]) -> None:
        engine.upsert(rows[: len(rows) // 2])
        raise EngineError("it went away")

    watched.upsert = upsert  # type: ignore[attr-defined]
    with pytest.raises(EngineError, match="went away"):
        collection.add({"id": "a", "text": text})
    store_of(collection).engine = engine


def test_rebuilding_lets_a_version_be_that_may_be_just_being_written(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Collection(place, recipe=LONG) as collection:
        collection.add({"id": "a", "text": "old words " * 20})
        rows = collection.store.count_passages()
        add_half(collection, "new words " * 20)
        both = store_of(collection).engine.count()
        assert both > rows
        collection.rebuild()
        assert store_of(collection).engine.count() == both
        assert "is being updated, or that was interrupted" in str(collection.check())
        monkeypatch.setattr(enginecheck, "STALE", 0.0)
        collection.rebuild()
        assert store_of(collection).engine.count() == rows
        assert collection.check().ok
        assert collection.get(["a"])[0].text.startswith("old words")  # type: ignore[union-attr]


def test_the_command_says_how_many_rows_it_removed(place: str) -> None:
    with Collection(place, recipe=LONG) as collection:
        collection.add({"id": "a", "text": "old words " * 20})
        left = list(KEPT["enginestore"].rows.items())
        collection.add({"id": "a", "text": "new words " * 20})
    KEPT["enginestore"].rows.update(left)
    told = [CliRunner().invoke(twinrank, ["rebuild", "-c", place]).stderr for _ in range(2)]
    assert told[0] == f"{len(left)} rows that interrupted updates had left were removed; the indexes are memory's own\n"
    assert told[1] == "0 rows that interrupted updates had left were removed; the indexes are memory's own\n"


def test_the_status_says_once_what_the_engine_says_of_itself(place: str) -> None:
    with Collection(place, recipe=WORDS) as collection:
        store_of(collection).add_view("vectors", model="m", fingerprint="f", dimension=2)
        for name, value in store_of(collection).engine.describe().items():
            assert str(collection.status()).count(f"{name} {value}") == 1
        assert [index.name for index in collection.status().indexes] == ["vectors", "words"]


def test_a_recipe_that_stores_otherwise_is_refused_with_what_an_engine_can_do(place: str) -> None:
    way = "twinrank index DOCS --recipe FILE -c ANOTHER"
    with Collection(place, recipe=WORDS) as collection, pytest.raises(RecipeError, match=f"in another way than .*; {way}"):
        collection.take_recipe(LONG)
    with Collection(place, recipe=LONG) as other, pytest.raises(RecipeError) as refused:
        other.add({"id": "a", "text": "zinc"})
    assert str(refused.value).endswith(way)


def test_a_collection_that_cannot_be_opened_leaves_no_client_open(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[MemoryEngine] = []
    monkeypatch.setattr(MemoryEngine, "close", lambda engine: closed.append(engine))
    with pytest.raises(CollectionError):
        Collection(place, create=False)
    with pytest.raises(RecipeError):
        Collection(place, recipe=replace(WORDS, retrieve=replace(WORDS.retrieve, tokens=10)))
    assert len(closed) == 2
    with Collection(place, recipe=WORDS):
        assert len(closed) == 2
    with pytest.raises(RecipeError):
        Collection(place, recipe=replace(WORDS, retrieve=replace(WORDS.retrieve, tokens=10)))
    assert len(closed) == 4


def test_rebuilding_removes_the_older_of_two_whole_versions(place: str) -> None:
    with Collection(place, recipe=LONG) as collection:
        collection.add({"id": "a", "text": "old words " * 20})
        left = list(KEPT["enginestore"].rows.items())
        collection.add({"id": "a", "text": "new words " * 20})
        KEPT["enginestore"].rows.update(left)
        assert "twinrank rebuild removes the older" in str(collection.check())
        collection.rebuild()
        assert collection.check().ok
        assert "new words" in collection.get(["a"])[0].text  # type: ignore[union-attr]


def test_new_documents_are_looked_up_twice_and_no_more(place: str) -> None:
    with Collection(place, recipe=WORDS) as collection:
        watched = watch(collection)
        collection.add([{"id": f"d{number}", "text": "zinc"} for number in range(10)])
        assert watched.calls.count("rows_of") == 2  # before they are encoded, and before they are written
        assert (watched.calls.count("upsert"), watched.calls.count("delete")) == (1, 0)


def test_a_condition_that_is_not_said_exactly_finds_the_same_and_reads_each_row_once(place: str) -> None:
    documents = [{"id": f"d{number}", "text": f"zinc number {number}", "year": number} for number in range(200)]
    with Collection(place, recipe=WORDS) as collection:
        collection.add(documents)
        exact = [hit.id for hit in collection.search("zinc", 5, where="year >= 190")]
        watched = watch(collection, inexact=True)
        fetched: list[int] = []
        engine = watched.engine

        def fetch(keys: np.ndarray, **named: Any) -> Any:
            fetched.extend(keys.tolist())
            return engine.fetch(keys, **named)

        watched.fetch = fetch  # type: ignore[attr-defined]
        found = collection.search("zinc", 5, where="year >= 190")
        assert len(found) == 5
        assert [hit.id for hit in found] == exact
        assert all(meets(parse("year >= 190"), hit.fields) for hit in found)
        assert len(fetched) == len(set(fetched))


def test_a_collection_whose_making_was_interrupted_is_made_only_where_that_is_allowed(place: str) -> None:
    open_engine(place).create(Layout(0, True))
    with pytest.raises(CollectionError, match="there is no collection at"):
        Collection(place, create=False)
    with Collection(place, recipe=WORDS) as collection:
        assert len(collection) == 0


def test_a_recipe_that_no_engine_follows_makes_nothing(place: str) -> None:
    with pytest.raises(RecipeError, match=r"\[retrieve\] tokens"):
        Collection(place, recipe=replace(WORDS, retrieve=replace(WORDS.retrieve, tokens=10)))
    assert not open_engine(place).exists()


def test_a_recipe_of_another_language_is_not_kept(place: str) -> None:
    with Collection(place, recipe=WORDS) as collection:
        collection.add({"id": "a", "text": "colds"})
        with pytest.raises(CollectionError, match="keeps words by"):
            collection.take_recipe(replace(WORDS, words=replace(WORDS.words, language="german")))
        assert [hit.id for hit in collection.search("cold")] == ["a"]
    with Collection(place) as again:
        assert again.recipe == WORDS


def test_what_was_learned_does_not_outlast_what_others_added(place: str) -> None:
    with Collection(place, recipe=WORDS) as collection:
        collection.add([{"id": f"d{number}", "text": "zinc"} for number in range(10)])
    belongs, rule = Belongs("a reranker", "a first stage"), Rule(MODEL, {top: np.zeros(1) for top in TOPS})
    with Collection(place) as learning:
        keep(learning.store, 0, belongs, Learned("rerank", 300, True, rule))
        assert find(learning.store, 0, belongs)[1] == ""
    with Collection(place) as adding:
        adding.add([{"id": f"e{number}", "text": "honey"} for number in range(10)])
    with Collection(place) as searching:
        assert "passages changed since it was learned" in find(searching.store, 0, belongs)[1]


def test_a_pick_that_stores_documents_otherwise_is_not_taken(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    picked: Any = SimpleNamespace(choice=SimpleNamespace(recipe=LONG))
    with Collection(place, recipe=WORDS) as collection:
        _take(picked, collection, WORDS, place)
        assert "--write FILE" in capsys.readouterr().err
    with Collection(place) as again:
        assert again.recipe == WORDS


@pytest.mark.parametrize("inexact", [False, True])
def test_what_an_engine_gives_no_more_of_is_told_once(place: str, monkeypatch: pytest.MonkeyPatch, inexact: bool) -> None:
    monkeypatch.setattr(MemoryEngine, "limits", replace(MemoryEngine.limits, k=110))
    with Collection(place, recipe=WORDS) as collection:
        collection.add([{"id": f"d{number}", "text": "zinc", "year": number} for number in range(300)])
        watch(collection, inexact)
        assert len(collection.search("zinc", 5)) == 5
        assert not collection.notices
        assert len(collection.search("zinc", 200, where="year < 299")) <= 110
        assert len(collection.search("zinc", 200, where="year < 299")) <= 110
        assert collection.notices == [
            "memory gives 110 passages for a search at most: what stands behind them was not looked at"
        ]


def test_what_an_engine_cannot_take_is_told_with_what_helps(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryEngine, "limits", Limits(payload=1000, document=50, k=100, dimension=10, fields=500))
    with Collection(place, recipe=WORDS) as collection:
        for refused, told in (
            ({"id": "a" * 60, "text": "zinc"}, "its id takes 60 bytes, and memory keeps 50 at most; shorten it"),
            ({"id": "a", "text": "word" * 300}, "its passage .* takes 1,.* bytes, .* 1,000 at most; cut smaller passages"),
            ({"id": "a", "text": "zinc", "note": "word" * 200}, "its fields, .* 500 at most; shorten them, or put them"),
        ):
            with pytest.raises(DocumentError, match=told):
                collection.add(refused)
        assert not len(collection)


def test_the_page_sees_what_another_process_added(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fastapi", reason="the server's libraries are not installed: pip install 'twinrank[serve]'")
    from twinrank.serve.page import Fields

    monkeypatch.setattr(enginestore, "SEEN_WITHIN", 0.0)
    with Collection(place, recipe=WORDS) as shown, Collection(place) as other:
        fields = Fields(shown)
        assert fields.told()["documents"] == 0
        other.add({"id": "a", "text": "zinc"})
        assert fields.told()["documents"] == 1
