"""Random histories of one collection against a model: what was added is there, what was deleted never comes back."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from twinrank import Collection, Document, Recipe
from twinrank.archive import export, import_
from twinrank.types import Ranking

WORDS = ("river", "stone", "copper", "lantern", "orchard", "violin", "harbour", "meadow")
IDS = [f"d{number}" for number in range(8)]
DOCUMENTS = st.builds(
    Document,
    st.sampled_from(IDS),
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=16).map(" ".join),
    title=st.sampled_from(["", "Copper", "Meadow"]),
    fields=st.fixed_dictionaries({}, optional={"year": st.integers(2000, 2003), "colour": st.sampled_from(["red", "blue"])}),
)
CONDITIONS: Sequence[tuple[str, Callable[[Document], bool]]] = (
    ("id != 'd1'", lambda document: document.id != "d1"),
    ("title = 'Copper'", lambda document: document.title == "Copper"),
    ("id in ('d1', 'd2', 'd3') or title is null", lambda document: document.id in ("d1", "d2", "d3") or not document.title),
)
STEPS = {"taken": 0}
"""Over all examples, for whoever runs many."""


def remove(folder: Path) -> None:
    """A thread of tantivy's may outlive its writer for an instant, and put a file into what is deleted."""
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=True)


class History(RuleBasedStateMachine):
    """One process's collection; `here` is what must be in it. Words alone."""

    model = "none"
    other_model: str | None = None

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(prefix="history-"))
        self.folder = self.place / "c"
        self.here: dict[str, Document] = {}
        """Document → the model by whose tokens it was cut: given again after a migration it counts as updated, once."""
        self.backup: tuple[bytes, dict[str, Document], str] | None = None
        self.serving = self.model
        self.collection = self.opened()

    def opened(self) -> Collection:
        if self.folder.exists():
            return Collection(self.folder)
        return Collection(self.folder, recipe=Recipe.parse(self.recipe), model=self.model)

    recipe = "[passages]\nsize = 8\noverlap = 1\n"

    def teardown(self) -> None:
        self.collection.close()
        remove(self.place)

    # Changing

    @rule(documents=st.lists(DOCUMENTS, min_size=1, max_size=5), stream=st.booleans())
    def add(self, documents: list[Document], stream: bool) -> None:
        report = self.collection.add(iter(documents) if stream else documents)
        latest = {document.id: document for document in documents}
        assert report.added == sum(id not in self.here for id in latest)
        assert report.unchanged == sum(self.is_here(document) for document in latest.values())
        assert report.added + report.updated + report.unchanged == len(latest)
        self.here.update(latest)

    def is_here(self, document: Document) -> bool:
        return self.here.get(document.id) == document

    @precondition(lambda self: self.here)
    @rule(data=st.data())
    def add_what_is_there(self, data: st.DataObject) -> None:
        chosen = data.draw(st.lists(st.sampled_from(sorted(self.here)), min_size=1, max_size=4, unique=True))
        before = self.collection.store.sequence()
        report = self.collection.add([self.here[id] for id in chosen])
        assert (report.added, report.encoded, report.unchanged) == (0, 0, len(chosen))
        assert self.collection.store.changes_since(before) == []  # after a migration the weights may be measured anew

    @rule(ids=st.lists(st.sampled_from(IDS), min_size=1, max_size=4))
    def delete(self, ids: list[str]) -> None:
        assert self.collection.delete(ids) == [id for id in dict.fromkeys(ids) if id in self.here]
        for id in ids:
            self.here.pop(id, None)

    @rule()
    def rebuild(self) -> None:
        self.collection.rebuild()

    @rule()
    def reopen(self) -> None:
        self.collection.close()
        self.collection = self.opened()

    # What a person or a backup program does to the folder while nobody has it open

    @rule(data=st.data())
    def lose_index_files(self, data: st.DataObject) -> None:
        self.collection.close()
        files = sorted(str(path.relative_to(self.folder)) for path in (self.folder / "index").rglob("*") if path.is_file())
        lost = data.draw(st.sampled_from(["index", *files])) if files else "index"
        if lost == "index":
            remove(self.folder / "index")
        else:
            (self.folder / lost).unlink()
        self.collection = self.opened()

    @rule()
    def back_up(self) -> None:
        self.collection.close()
        self.backup = (self.folder / "store.db").read_bytes(), dict(self.here), self.serving
        self.collection = self.opened()

    @precondition(lambda self: self.backup is not None and self.backup[2] == self.serving)
    @rule()
    def restore(self) -> None:
        """An older store under newer indexes."""
        assert self.backup is not None
        self.collection.close()
        (self.folder / "store.db").write_bytes(self.backup[0])
        self.here = dict(self.backup[1])
        self.collection = self.opened()

    @rule(documents=st.lists(DOCUMENTS, min_size=1, max_size=3))
    def take_another_collection_s_indexes(self, documents: list[Document]) -> None:
        self.collection.close()
        remove(self.folder / "index")
        other = self.place / "other"
        with Collection(other, recipe=Recipe.parse(self.recipe), model=self.serving) as collection:
            collection.add(documents)
        shutil.move(other / "index", self.folder / "index")
        remove(other)
        self.collection = self.opened()

    @rule()
    def export_and_import(self) -> None:
        archive = self.place / "copy.tar"
        assert export(self.collection, archive) > 0
        self.collection.close()
        remove(self.folder)
        import_(archive, self.folder)
        archive.unlink()
        self.collection = self.opened()

    @precondition(lambda self: self.other_model is not None)
    @rule()
    def migrate(self) -> None:
        assert self.other_model is not None
        target = self.other_model if self.serving == self.model else self.model
        self.collection.migrate(target)
        self.serving = target

    # Asking

    @rule(word=st.sampled_from(WORDS), k=st.integers(1, 20))
    def search_a_word(self, word: str, k: int) -> None:
        found = [hit.id for hit in self.collection.search(word, k)]
        assert len(found) == len(set(found))
        holding = {id for id, document in self.here.items() if self.holds(document, word)}
        if self.serving == "none":
            assert set(found) <= holding
            assert len(found) == min(k, len(holding))
        else:  # vectors find whatever is near
            assert set(found) <= set(self.here)

    @rule(chosen=st.sampled_from(CONDITIONS), word=st.sampled_from(WORDS))
    def search_where(self, chosen: tuple[str, Callable[[Document], bool]], word: str) -> None:
        where, holds = chosen
        found = {hit.id for hit in self.collection.search(word, 20, where=where)}
        passing = {id for id, document in self.here.items() if holds(document)}
        holding = {id for id in passing if self.holds(self.here[id], word)}
        assert holding <= found <= passing

    @precondition(lambda self: any("year" in document.fields for document in self.here.values()))
    @rule(year=st.integers(2000, 2003), word=st.sampled_from(WORDS))
    def search_a_field(self, year: int, word: str) -> None:
        found = {hit.id for hit in self.collection.search(word, 20, where=f"year >= {year}")}
        passing = {id for id, document in self.here.items() if document.fields.get("year", 0) >= year}  # type: ignore[operator]
        assert {id for id in passing if self.holds(self.here[id], word)} <= found <= passing

    def holds(self, document: Document, word: str) -> bool:
        return word in f"{document.title} {document.text}".lower().split()

    # What always holds

    @initialize(documents=st.lists(DOCUMENTS, max_size=12))
    def begin(self, documents: list[Document]) -> None:
        assert len(self.collection) == 0
        self.add(documents, False)

    @invariant()
    def is_what_was_put_in(self) -> None:
        STEPS["taken"] += 1
        assert sorted(self.collection.store.document_ids()) == sorted(self.here)
        assert self.collection.get(IDS) == [self.here.get(id) for id in IDS]

    @invariant()
    def is_sound_and_searches_exactly_the_live_passages(self) -> None:
        """Both indexes against what the store's passages say, computed again from their texts."""
        indexes = self.collection.indexes()
        batches = list(self.collection.store.iterate_passages())
        texts = {int(key): text for keys, part in batches for key, text in zip(keys, part, strict=True)}
        report = self.collection.check()
        assert report.ok, report.problems
        assert len(indexes.words) == len(texts)
        word = random.choice(WORDS)  # seeded by hypothesis
        (term,) = self.collection.analyzer(word)
        holding = sorted(key for key, text in texts.items() if word in text.lower().split())
        assert sorted(indexes.words.search([term], len(texts) + 1).keys.tolist()) == holding
        if indexes.vectors is None:
            assert self.serving == "none" or not texts
            return
        assert indexes.vectors.keys.tolist() == sorted(texts)
        if not texts:
            return
        keys = np.array(sorted(texts), np.int64)
        stored = self.collection.store.vectors("vectors", keys)  # (passages, dimension)
        assert np.array_equal(indexes.vectors.vectors(keys), stored)
        exact = stored.astype(np.float64) @ stored[0].astype(np.float64)
        assert indexes.vectors.search(stored[0], 5).keys.tolist() == Ranking.of(keys, exact, 5).keys.tolist()


def run(machine: type[History], examples: int, steps: int = 15) -> None:
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    run_state_machine_as_test(machine, settings=chosen)  # type: ignore[no-untyped-call]


def with_vectors(first: Path, second: Path) -> type[History]:
    """The same histories with an encoder, and another one to migrate to."""
    return type("HistoryWithVectors", (History,), {"model": str(first), "other_model": str(second)})


def test_a_collection_of_words_is_what_its_history_made_it() -> None:
    run(History, 10)


def test_a_collection_of_vectors_is_what_its_history_made_it(tiny_model: Path, other_tiny_model: Path) -> None:
    run(with_vectors(tiny_model, other_tiny_model), 5)


def test_a_history_would_notice_a_deleted_document_that_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    history = History()
    try:
        history.add([Document("d1", "river stone"), Document("d2", "river")], False)
        history.is_sound_and_searches_exactly_the_live_passages()
        monkeypatch.setattr("twinrank.store.Store.delete", lambda self, ids: ids)
        history.delete(["d1"])
        with pytest.raises(AssertionError):
            history.is_what_was_put_in()
        with pytest.raises(AssertionError):
            history.search_a_word("stone", 3)
    finally:
        history.teardown()
