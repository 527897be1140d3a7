"""What a collection asks of the place that it is kept in: its store, its recipe and calibration, its indexes, and turns."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from twinrank.derived import Indexes
from twinrank.errors import IndexDamagedError
from twinrank.recipe import Recipe
from twinrank.status import IndexStatus
from twinrank.store import Kept, Store
from twinrank.text import Analyzer


class Searching(Protocol):
    """The indexes of a collection; `Derived` says what each of these does."""

    def refresh(self, *, keep: bool = False) -> Indexes: ...

    def complete(self) -> None: ...

    def remake(self, error: IndexDamagedError) -> None: ...

    def rebuild(self) -> None: ...

    def tidy(self) -> None: ...

    def close(self) -> None: ...

    def status(self) -> tuple[IndexStatus, ...]: ...

    def check(self) -> tuple[tuple[str, ...], tuple[str, ...]]: ...


class Place(Protocol):
    """Where one collection is."""

    @property
    def where(self) -> Path | str:
        """Its path or address."""
        ...

    def is_there(self, create: bool) -> bool:
        """Raises CollectionError where something else is there, or nothing and none may be made."""
        ...

    def open(self) -> Kept:
        """The store of a collection that is there."""
        ...

    def make(self, recipe: Recipe, dimension: int) -> Kept:
        """Make the collection, whole or not at all, and keep its recipe; of vectors with so many numbers, 0 without any."""
        ...

    def close(self) -> None:
        """Let go of what was opened here; asked for where making a collection of it failed."""
        ...

    def own_store(self, doing: str) -> Store:
        """The store that was opened or made, where it is a folder's; raises CollectionError for what cannot be done to an
        engine, with what can."""
        ...

    def read_recipe(self) -> Recipe | None: ...

    def write_recipe(self, recipe: Recipe) -> None:
        """Keep a recipe; one that says the same already stays as it is, comments and all."""
        ...

    def read_text(self, name: str) -> tuple[object, Callable[[], str]] | None:
        """Of a text kept beside the recipe, such as calibration.json: what changes when it changes, and what reads it."""
        ...

    def write_text(self, name: str, text: str) -> None:
        """Put it in the place of what was there, whole or not at all."""
        ...

    def named(self, name: str) -> str:
        """What holds that text, for messages."""
        ...

    def searching(self, recipe: Recipe, analyzer: Analyzer, notify: Callable[[str], None]) -> Searching:
        """The indexes over the store that was opened or made."""
        ...

    def writing(self, patience: float) -> AbstractContextManager[None]:
        """One writer at a time among all who share the place, as far as that can be had."""
        ...

    def encoding_anew(self, patience: float) -> AbstractContextManager[None]:
        """One migration or re-encoding at a time: two would put the vectors of two models into one view."""
        ...

    def is_encoding_anew(self) -> bool: ...
