"""Views of tokens: a variable number of vectors a passage, quantised, under the same rules as the vectors."""

from __future__ import annotations

import sqlite3

import numpy as np
import pytest
from twinrank_prepared import prepare, vector_of

from twinrank.errors import CollectionError, InputError, ModelMismatchError, StorageError
from twinrank.store import PreparedDocument, PreparedPassage, Store
from twinrank.store.rows import checksum
from twinrank.types import Document

TOKENS = {"model": "hash", "fingerprint": "t1", "dimension": 6, "kind": "tokens", "settings": {"format": "int8", "pooling": 1}}


def tokens_of(text: str) -> np.ndarray:
    """A vector for each word, which depends on the word alone."""
    vectors = [np.random.default_rng(sum(map(ord, word))).normal(size=6) for word in text.split()]
    return np.array(vectors, np.float32)


def write(store: Store, id: str, *texts: str, without: str = "") -> None:
    """A document whose passages come with both views, but those named `without`."""
    passages, place = [], 0
    for text in texts:
        known = text == without
        both = {"small": (None if known else vector_of(text), 0), "tokens": (None if known else tokens_of(text), len(text) % 3)}
        passages.append(PreparedPassage(place, place + len(text), f"digest of {text}", both))
        place += len(text) + 1
    store.write([PreparedDocument(Document(id, " ".join(texts)), " ".join(texts), passages)])


def stored(store: Store, keys: list[int]) -> list[np.ndarray]:
    """What the view gives back of each passage."""
    codec = store.views()["tokens"].codec
    return [codec.restore(one.codes, one.scales) for one in store.tokens("tokens", keys)]


@pytest.fixture
def both(viewed: Store) -> Store:
    """A store with a view of each kind."""
    viewed.add_view("tokens", **TOKENS)
    return viewed


@pytest.mark.parametrize(("format", "error"), [("int8", 0.02), ("int4", 0.25)])
def test_token_vectors_come_back_as_near_as_their_format_is(viewed: Store, format: str, error: float) -> None:
    viewed.add_view("tokens", **TOKENS | {"settings": {"format": format}})
    write(viewed, "a", "one two three", "four")
    for vectors, text in zip(stored(viewed, [2, 1]), ["four", "one two three"], strict=True):
        assert vectors.shape == tokens_of(text).shape
        lengths = np.linalg.norm(tokens_of(text), axis=1)
        assert (np.linalg.norm(vectors - tokens_of(text), axis=1) <= error * lengths).all()
    assert viewed.check() == []


def test_an_unchanged_passage_keeps_its_tokens_and_a_twin_gets_them(both: Store) -> None:
    write(both, "a", "one two", "three")
    before = stored(both, [1])[0]
    write(both, "a", "zero", "one two", "one two", without="one two")
    keys = [passage.key for passage in both.passages([1, 2, 3, 4]) if passage.text == "one two"]
    assert len(keys) == 2
    for vectors in stored(both, keys):
        np.testing.assert_array_equal(vectors, before)
    assert both.check() == []


def test_a_complete_view_refuses_a_passage_without_its_tokens(both: Store) -> None:
    with pytest.raises(InputError, match="passage 0 of document 'a' came without a vector for view 'tokens'"):
        both.write([prepare("a", "one")])
    assert both.count_documents() == 0


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.full((2, 6), np.nan), "NaN"),
        (np.vstack([np.ones(6), np.zeros(6)]), "zeros"),
        (np.ones((2, 5)), r"shape \(2, 5\).*holds \(tokens, 6\)"),
        (np.ones((0, 6)), "one token at least"),
        (np.ones(6), r"shape \(6,\)"),
    ],
)
def test_token_vectors_that_cannot_be_searched_are_refused_at_the_door(both: Store, vectors: np.ndarray, message: str) -> None:
    given = {"small": (np.ones(4, np.float32), 0), "tokens": (vectors.astype(np.float32), 0)}
    with pytest.raises(InputError, match=message):
        both.write([PreparedDocument(Document("a", "x"), "d", [PreparedPassage(0, 1, "p", given)])])
    assert both.count_documents() == 0


def test_a_view_of_tokens_over_existing_passages_is_filled_and_then_complete(viewed: Store) -> None:
    viewed.write([prepare("a", "one two", "three"), prepare("b", "four five")])
    assert not viewed.add_view("tokens", **TOKENS).complete
    viewed.write([prepare("c", "six")])  # while it is filled, documents may come without
    with pytest.raises(CollectionError, match="4 passages have no vector"):
        viewed.complete_view("tokens")
    for keys, texts in viewed.passages_without_vectors("tokens", batch=3):
        viewed.set_tokens("tokens", [*keys, 99], [*map(tokens_of, texts), np.ones((1, 6))], [*[2] * len(keys), 0])
    viewed.complete_view("tokens")
    assert viewed.views()["tokens"].complete
    assert viewed.truncation("tokens") == (4, 8)
    assert viewed.truncation("small")[0] == 2  # of the other view
    batches = list(viewed.iterate_tokens("tokens", batch=3))
    assert [keys.tolist() for keys, _ in batches] == [[1, 2, 3], [4]]
    assert batches[0][1].offsets.tolist() == [0, 2, 3, 5]
    assert viewed.check() == []


def test_setting_tokens_in_a_searched_view_is_a_change(both: Store) -> None:
    write(both, "a", "one")
    before = both.sequence()
    both.set_tokens("tokens", [1], [tokens_of("two two")])
    assert [(key, kind) for _, key, kind in both.changes_since(before)] == [(1, "add")]
    assert len(stored(both, [1])[0]) == 2


def test_another_way_of_storing_the_same_tokens_is_refused(both: Store) -> None:
    assert both.add_view("tokens", **TOKENS) == both.views()["tokens"]
    with pytest.raises(ModelMismatchError, match=r"'int8'.*not by.*'int4'"):
        both.add_view("tokens", **TOKENS | {"settings": {"format": "int4", "pooling": 1}})
    with pytest.raises(ModelMismatchError, match="of kind 'tokens', not 'vector'"):
        both.add_view("tokens", **TOKENS | {"kind": "vector", "settings": {}})
    with pytest.raises(InputError, match="no token format 'int3'"):
        both.add_view("other", **TOKENS | {"settings": {"format": "int3"}})


def test_the_kinds_are_not_confused(both: Store) -> None:
    for read in (lambda: both.vectors("tokens", [1]), lambda: list(both.iterate_vectors("tokens"))):
        with pytest.raises(CollectionError, match=r"view 'tokens' .* is of kind 'tokens', not 'vector'"):
            read()
    with pytest.raises(CollectionError, match="kind 'vector', not 'tokens'"):
        both.tokens("small", [1])
    with pytest.raises(CollectionError, match="kind 'vector', not 'tokens'"):
        both.set_tokens("small", [1], [np.ones((1, 4))])


def test_a_dropped_view_of_tokens_leaves_the_vectors(both: Store) -> None:
    write(both, "a", "one")
    both.drop_view("tokens")
    assert list(both.views()) == ["small"]
    np.testing.assert_array_equal(both.vectors("small", [1])[0], vector_of("one"))
    with pytest.raises(CollectionError, match="no view 'tokens'"):
        both.tokens("tokens", [1])
    assert both.check() == []


def test_a_deleted_document_takes_its_tokens_with_it(both: Store) -> None:
    write(both, "a", "one two")
    both.delete(["a"])
    assert list(both.iterate_tokens("tokens")) == []
    with pytest.raises(InputError, match="passage 1 has no vector in view 'tokens'"):
        both.tokens("tokens", [1])
    assert both.check() == []


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE tokens SET dropped = 9 WHERE passage = 1", "token vectors of passage 1 in view 'tokens' differ"),
        ("UPDATE tokens SET vector = zeroblob(20) WHERE passage = 1", "token vectors of passage 1 in view 'tokens' differ"),
        ("DELETE FROM tokens WHERE passage = 2", "view 'tokens' lacks the vectors of 1 passages"),
    ],
)
def test_check_finds_what_was_changed_behind_its_back(both: Store, statement: str, problem: str) -> None:
    write(both, "a", "one", "two")
    assert both.check() == []
    with sqlite3.connect(both.path) as connection:
        connection.execute(statement)
    connection.close()
    assert any(problem in line for line in both.check())


def test_tokens_of_another_size_are_told_as_damage(both: Store) -> None:
    write(both, "a", "one")
    with sqlite3.connect(both.path) as connection:
        connection.execute(
            "UPDATE tokens SET vector = x'00', checksum = ?", (checksum(1, both.views()["tokens"].key, 0, b"\0"),)
        )
    connection.close()
    with pytest.raises(StorageError, match="damaged: the tokens"):
        both.tokens("tokens", [1])
