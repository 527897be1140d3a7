"""A collection in a folder: store.db, recipe.toml, calibration.json, index/, and the locks that writers hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from twinrank.derived import Derived, one_at_a_time
from twinrank.errors import CollectionBusyError, CollectionError, StorageError
from twinrank.files import replace_file
from twinrank.migration import with_comments
from twinrank.recipe import Recipe
from twinrank.store import CREATING, FILE_NAME, Store, make_folder
from twinrank.text import Analyzer

RECIPE = "recipe.toml"
BEFORE = f"{RECIPE}.before"


class FolderPlace:
    """A directory, opened or created."""

    def __init__(self, path: Path) -> None:
        self.where = path
        self._store: Store | None = None

    def is_there(self, create: bool) -> bool:
        path = self.where
        if path.exists() and not path.is_dir():
            raise CollectionError(f"{path} is a file; a collection is a directory. Name another place with -c")
        try:
            if (path / FILE_NAME).exists():
                return True
            empty = not path.exists() or all(_is_unfinished(part.name) for part in path.iterdir())
        except PermissionError as error:
            raise CollectionError(f"{path} cannot be read: no permission") from error
        if not empty:
            raise CollectionError(f"{path} is a directory with other files in it and no collection; name a new or an empty one")
        if not create:
            raise CollectionError(f"there is no collection at {path}; make one: twinrank index DOCS -c {path}")
        return False

    def open(self) -> Store:
        self._store = Store.open(self.where, create=False)
        return self._store

    def make(self, recipe: Recipe, dimension: int) -> Store:
        make_folder(self.where)
        self.write_recipe(recipe)  # before the store, with which the folder becomes a collection
        self._store = Store.open(self.where)
        return self._store

    def close(self) -> None:
        if self._store is not None:
            self._store.close()

    def own_store(self, doing: str) -> Store:
        assert self._store is not None
        return self._store

    def read_recipe(self) -> Recipe | None:
        kept = self.where / RECIPE
        return Recipe.load(kept) if kept.exists() else None

    def write_recipe(self, recipe: Recipe) -> None:
        kept = self.where / RECIPE
        old = kept.read_text(encoding="utf-8") if kept.exists() else None
        if old is not None and Recipe.load(kept) == recipe:
            return  # what a person wrote beside the values stays
        edited = None if old is None else with_comments(old, recipe)
        try:
            if old is not None and edited is None:
                replace_file(self.where / BEFORE, old)
            replace_file(kept, edited or recipe.to_toml())
        except OSError as error:
            raise StorageError(f"{kept} cannot be written: {error.strerror}") from error

    def named(self, name: str) -> str:
        return str(self.where / name)

    def read_text(self, name: str) -> tuple[object, Callable[[], str]] | None:
        path = self.where / name
        try:
            facts = path.stat()
        except FileNotFoundError:
            return None
        return (facts.st_mtime_ns, facts.st_size), lambda: path.read_text(encoding="utf-8")

    def write_text(self, name: str, text: str) -> None:
        try:
            replace_file(self.where / name, text)
        except OSError as error:
            raise StorageError(f"{self.where / name} cannot be written: {error.strerror}") from error

    def searching(self, recipe: Recipe, analyzer: Analyzer, notify: Callable[[str], None]) -> Derived:
        return Derived(
            self.where / "index",
            self.own_store("searched"),
            analyzer,
            notify,
            words=self._word_folder(recipe),
            vectors=recipe.index,
            multivectors=recipe.retrieve.tokens > 0,
        )

    def _word_folder(self, recipe: Recipe) -> str:
        """A search in another language than the collection's does not touch the collection's index."""
        kept, language = self.read_recipe(), recipe.words.language
        return f"words-{language}" if kept is not None and kept.words.language != language else "words"

    @contextmanager
    def writing(self, patience: float) -> Iterator[None]:
        doing = f"writing to {self.where}"
        # Who waits holds the turn: between two batches of a long `add` the lock is free for an instant only.
        with ExitStack() as held:
            with one_at_a_time(self.where / ".turn", patience, doing):
                held.enter_context(one_at_a_time(self.where / ".writing", patience, doing))
            yield

    def encoding_anew(self, patience: float) -> AbstractContextManager[None]:
        return one_at_a_time(self.where / ".migrating", patience, f"encoding the documents of {self.where} anew")

    def is_encoding_anew(self) -> bool:
        try:
            with one_at_a_time(self.where / ".migrating", 0, "encoding"):
                return False
        except CollectionBusyError:
            return True
        except StorageError:  # who may not write cannot tell
            return False


def _is_unfinished(name: str) -> bool:
    """Whether a file is what a process leaves that died while it was making a collection."""
    return name in (RECIPE, CREATING) or name.startswith((f".{RECIPE}-", f"{FILE_NAME}.new"))
