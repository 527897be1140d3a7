"""A collection's agreement: measured where there is enough to measure, kept with what it belongs to, renewed as it changes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from twinrank import Collection, weighing
from twinrank.types import Keys

WORDS = [f"{first}{second}" for first in ("ba", "do", "ki", "lu", "me") for second in ("ra", "sto", "ti", "vu")]


def notes(count: int, start: int = 0) -> list[dict[str, str]]:
    draw = np.random.default_rng(start)
    return [{"id": f"{start + n}", "text": " ".join(draw.choice(WORDS, 12)) + "."} for n in range(count)]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of passages each time that it is measured."""
    counts: list[int] = []
    real = weighing.measure

    def counting(store: object, keys: Keys, *sources: object) -> float:
        counts.append(len(keys))
        return real(store, keys, *sources)  # type: ignore[arg-type]

    monkeypatch.setattr(weighing, "measure", counting)
    return counts


def test_it_is_measured_while_adding_kept_and_renewed_when_a_quarter_is_new(
    tmp_path: Path, tiny_model: Path, measured: Sequence[int]
) -> None:
    with Collection(tmp_path / "c", model=str(tiny_model)) as collection:
        collection.add(notes(100))
        assert measured == [100]
        found = collection.search("bara doti kivu")
        assert "agreement" in found.weights
        assert "vectors and words agree by 0." in collection.status().weights
        assert "at 100 passages" in str(collection.status())
    with Collection(tmp_path / "c", model=str(tiny_model)) as collection:
        collection.add(notes(20, start=100))
        assert measured == [100]
        collection.add(notes(10, start=120))
        assert measured == [100, 130]


def test_a_few_passages_are_weighed_as_the_recipe_says(tmp_path: Path, tiny_model: Path, measured: Sequence[int]) -> None:
    with Collection(tmp_path / "c", model=str(tiny_model)) as collection:
        collection.add(notes(weighing.FEWEST - 1))
        assert "vectors 0.60, words 0.40, the recipe's" in collection.search("bara").weights
    assert not measured


def test_fixed_weights_measure_nothing(tmp_path: Path, tiny_model: Path, measured: Sequence[int]) -> None:
    recipe = tmp_path / "fixed.toml"
    recipe.write_text(f'[encoder]\nmodel = "{tiny_model}"\n[fuse]\nmethod = "score"\n', encoding="utf-8")
    with Collection(tmp_path / "c", recipe=recipe) as collection:
        collection.add(notes(100))
        assert (collection.search("bara").weights, collection.status().weights) == ("", "")
    assert not measured


def test_what_was_measured_for_other_words_or_vectors_does_not_count(
    tmp_path: Path, tiny_model: Path, measured: list[int]
) -> None:
    with Collection(tmp_path / "c", model=str(tiny_model)) as collection:
        collection.add(notes(100))
        kept = collection.store.get_meta(weighing.AGREEMENT)
        assert kept is not None
        collection.store.set_meta(weighing.AGREEMENT, kept.replace(collection.analyzer.fingerprint, "another"))
    for unreadable in (None, "{", "[]", '{"version": 1}'):
        measured.clear()
        with Collection(tmp_path / "c") as collection:
            if unreadable is not None:
                collection.store.set_meta(weighing.AGREEMENT, unreadable)
            collection.search("bara")
            collection.search("doti")
        assert measured == [100]


def test_made_queries_are_halves_of_the_collections_sentences(tmp_path: Path, tiny_model: Path) -> None:
    with Collection(tmp_path / "c", model=str(tiny_model)) as collection:
        collection.add(notes(80))
        keys = np.concatenate([part for part, _ in collection.store.iterate_passages()])
        queries = list(weighing.made_queries(collection.store, keys, 40))
        assert queries == list(weighing.made_queries(collection.store, keys, 40))
        lengths = [len(query.split()) for query in queries]
    texts = {note["text"] for note in notes(80)}
    assert len(queries) == 40
    assert 4 < np.mean(lengths) < 8
    assert all(any(set(query.split()) <= set(text.split()) for text in texts) for query in queries)
