"""Views: every passage's vector, whose it is, and whether all are there."""

from __future__ import annotations

import numpy as np
import pytest
from twinrank_prepared import VIEW, prepare, vector_of

from twinrank.errors import (
    CollectionError,
    InputError,
    ModelMismatchError,
)
from twinrank.store import PreparedDocument, PreparedPassage, Store
from twinrank.types import (
    Document,
)


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
    before = viewed.sequence()
    viewed.set_vectors("small", [1, 99], np.ones((2, 4), np.float32))
    assert [(key, kind) for _, key, kind in viewed.changes_since(before)] == [(1, "add")]
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
