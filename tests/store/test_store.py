"""The store keeps what it acknowledged, tells what changed, and refuses what would harm it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from twinrank_prepared import VIEW, prepare, texts_of, vector_of

from twinrank.errors import (
    DocumentError,
    IndexDamagedError,
    InputError,
)
from twinrank.store import PreparedDocument, PreparedPassage, Store
from twinrank.types import (
    Comparison,
    Document,
)


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
        assert store.changes_since(store.sequence()) == []


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
    both = viewed.sequence()
    assert changed(viewed, 0) == [(1, "add"), (2, "add")]
    viewed.delete(["a"])
    # An index that took passage 1 in before it could write its stamp must still be told to remove it.
    assert changed(viewed, 0) == [(2, "add"), (1, "remove")]
    assert changed(viewed, both) == [(1, "remove")]
    assert changed(viewed, viewed.sequence()) == []


def changed(store: Store, since: int) -> list[tuple[int, str]]:
    return [(key, kind) for _, key, kind in store.changes_since(since)]


def test_every_transaction_that_changes_something_moves_the_sequence(viewed: Store) -> None:
    seen = [viewed.sequence()]
    viewed.write([prepare("a", "one", year=1)])
    seen.append(viewed.sequence())
    viewed.write([prepare("a", "one", without="one", year=2)])  # no passage changes
    seen.append(viewed.sequence())
    assert changed(viewed, seen[-2]) == []
    viewed.set_meta("recipe", "r")
    seen.append(viewed.sequence())
    assert seen == sorted(set(seen))
    viewed.delete(["nobody"])
    assert viewed.sequence() == seen[-1]


def test_an_index_of_another_store_is_sent_to_be_rebuilt(viewed: Store, tmp_path: Path) -> None:
    """Two stores with the same content never carry the same number."""
    with Store.open(tmp_path / "other") as other:
        other.write([prepare("z", "one", encode=False)])
        for _ in range(20):
            viewed.write([prepare("a", "one"), prepare("b", "two")])
            viewed.delete(["a"])
            with pytest.raises(IndexDamagedError, match=r"another collection|only at"):
                viewed.changes_since(other.sequence())


def test_an_index_newer_than_a_backup_is_sent_to_be_rebuilt_whatever_came_after(viewed: Store) -> None:
    viewed.write([prepare("a", "one")])
    viewed.close()
    backup = viewed.path.read_bytes()
    with Store.open(viewed.folder) as later:
        later.write([prepare("b", "two")])
        lost = later.sequence()
    viewed.path.write_bytes(backup)
    with Store.open(viewed.folder) as restored:
        with pytest.raises(IndexDamagedError, match="put back to an older state"):
            restored.changes_since(lost)
        while restored.sequence() <= lost:
            restored.write([prepare("c", f"three {restored.sequence()}")])
        with pytest.raises(IndexDamagedError, match="put back to an older state since"):
            restored.changes_since(lost)


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
            for _, key, kind in viewed.changes_since(seen):
                replayed = replayed | {key} if kind == "add" else replayed - {key}
            seen = viewed.sequence()
            assert replayed == set(texts_of(viewed))
    assert viewed.check() == []


def test_a_log_that_was_compacted_sends_old_indexes_to_be_rebuilt(viewed: Store) -> None:
    viewed.write([prepare("a", "one")])
    first = viewed.sequence()
    viewed.write([prepare("b", "two"), prepare("c", "three")])
    second = viewed.sequence()
    viewed.compact_changes(second - 1)
    assert changed(viewed, first) == [(2, "add"), (3, "add")]
    viewed.compact_changes(second)
    assert changed(viewed, second) == []
    with pytest.raises(IndexDamagedError, match=f"no longer reaches back to {first}"):
        viewed.changes_since(first)
    viewed.compact_changes(2**62)
    latest = viewed.sequence()
    viewed.delete(["a"])
    assert changed(viewed, latest) == [(1, "remove")]
    assert viewed.check() == []


def test_an_index_from_the_future_is_sent_to_be_rebuilt(store: Store) -> None:
    with pytest.raises(IndexDamagedError, match="of change 5, the store only at 0"):
        store.changes_since(5)


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
