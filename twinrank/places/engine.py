"""A collection in an engine: the recipe, the calibration and all else that a folder has files for is in the engine's meta."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b

from twinrank.errors import CollectionError, EngineError
from twinrank.index.engines import Address, Layout, open_engine
from twinrank.places.engineindexes import EngineIndexes, check_recipe
from twinrank.places.enginestore import EngineStore
from twinrank.places.folder import RECIPE
from twinrank.recipe import NO_MODEL, Recipe
from twinrank.store import Store
from twinrank.text import Analyzer

FORMAT = "1"
"""Of the rows and the meta; raised when they change."""

MARK = "twinrank"
"""The entry of the meta by which a collection of ours is known, written last."""


class EnginePlace:
    """An address such as milvus://localhost:19530/papers."""

    def __init__(self, address: str) -> None:
        parsed = Address.parse(address)
        self.where = str(parsed)
        self.engine = open_engine(parsed)
        self._store = EngineStore(self.engine, self.where)
        self._lock = threading.RLock()
        self._is_there = False
        """Whether there is a collection in the engine whose meta can be asked."""

    def is_there(self, create: bool) -> bool:
        if self.engine.exists():
            self._is_there = True
            kept = self.engine.get_meta(MARK)
            if kept == FORMAT:
                return True
            if kept is not None:
                raise CollectionError(f"{self.where} is of format {kept!r}, this twinrank reads {FORMAT}; update twinrank")
            if self.engine.count():
                raise CollectionError(f"{self.where} holds rows that twinrank did not write; name another collection")
        if not create:
            raise CollectionError(f"there is no collection at {self.where}; make one: twinrank index DOCS -c '{self.where}'")
        return False

    def open(self) -> EngineStore:
        self._store.analyzer = Analyzer((self.read_recipe() or Recipe()).words.language)
        return self._store

    def make(self, recipe: Recipe, dimension: int) -> EngineStore:
        check_recipe(recipe, self.where)
        if recipe.encoder.model != NO_MODEL and not dimension:
            raise CollectionError(
                f"{self.where} keeps one vector a passage, and {recipe.encoder.model} gives one a token; "
                "take a bi-encoder, and the ColBERT in [tokens], model, to rerank by"
            )
        if dimension > self.engine.limits.dimension:
            raise CollectionError(
                f"{self.engine.title} keeps vectors of {self.engine.limits.dimension:,} dimensions at most, and those of "
                f"{recipe.encoder.model} have {dimension:,}"
            )
        self.engine.create(Layout(dimension, True, recipe.index))
        self._is_there = True
        self._store.set_meta(RECIPE, recipe.to_toml())
        self._store.set_meta(MARK, FORMAT)
        return self.open()

    def close(self) -> None:
        with suppress(EngineError):  # what keeps it from being reached was told
            self._store.close()

    def own_store(self, doing: str) -> Store:
        raise CollectionError(
            f"{self.where} is in {self.engine.title}, and what is in an engine cannot be {doing}; copy it to a folder "
            f"(twinrank copy '{self.where}' FOLDER) and do it there, or index the documents into a new one"
        )

    def read_recipe(self) -> Recipe | None:
        kept = self._store.get_meta(RECIPE) if self._is_there else None
        return None if kept is None else Recipe.parse(kept, name=self.named(RECIPE))

    def write_recipe(self, recipe: Recipe) -> None:
        self._check_words(Analyzer(recipe.words.language))
        self._store.set_meta(RECIPE, recipe.to_toml())

    def read_text(self, name: str) -> tuple[object, Callable[[], str]] | None:
        kept = self._store.get_meta(name)
        if not kept:
            return None
        return blake2b(kept.encode()).digest(), lambda: kept

    def write_text(self, name: str, text: str) -> None:
        self._store.set_meta(name, text)

    def named(self, name: str) -> str:
        return f"{name} of {self.where}"

    def searching(self, recipe: Recipe, analyzer: Analyzer, notify: Callable[[str], None]) -> EngineIndexes:
        self._check_words(analyzer)
        return EngineIndexes(self._store, recipe, notify)

    def _check_words(self, analyzer: Analyzer) -> None:
        """The words of all rows were made by one analyser, which cannot be taken for another."""
        kept = self._store.analyzer.fingerprint
        if analyzer.fingerprint != kept:
            raise CollectionError(
                f"{self.where} keeps words by {kept}, and the recipe asks for {analyzer.fingerprint}; "
                "index the documents into a new collection"
            )

    @contextmanager
    def writing(self, patience: float) -> Iterator[None]:
        """Among the threads of this process; others may write too, as long as it is not the same documents."""
        with self._lock:
            yield

    @contextmanager
    def encoding_anew(self, patience: float) -> Iterator[None]:
        yield

    def is_encoding_anew(self) -> bool:
        return False
