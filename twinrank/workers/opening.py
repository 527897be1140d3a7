"""What a worker is told so that it opens the caller's models, and how it is refused where it finds others."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from twinrank import __version__
from twinrank.encoding import PassageEncoder
from twinrank.errors import DocumentError, ModelMismatchError, TwinrankError, WorkersError
from twinrank.loaded import Loaded
from twinrank.preparation import Preparation, Prepared, Task
from twinrank.recipe import Recipe

THREADS = ("TWINRANK_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
"""Variables by which a process is told how many threads to use: the engine's, NumPy's, the tokenizers'."""


@dataclass(frozen=True)
class Opening:
    """Models by name, and by what they are recognised; plain values, so that another version can read them too."""

    version: str
    recipe: str
    """As TOML."""
    models: tuple[Any, ...]
    """(view, kind, fingerprint, dimension, settings) of each view, and the translator's fingerprint."""

    @classmethod
    def of(cls, recipe: Recipe, preparation: Preparation) -> Opening:
        return cls(__version__, _with_whole_paths(recipe).to_toml(), _recognised(preparation))

    def open(self) -> Preparation:
        """Open the models here. Raises ModelMismatchError where they, or twinrank, are not the caller's."""
        if self.version != __version__:
            raise ModelMismatchError(
                f"a worker{_on_host()} has twinrank {__version__}, and the documents are added by {self.version}; install the "
                "same version everywhere"
            )
        recipe = Recipe.parse(self.recipe)
        loaded = Loaded(recipe)
        preparation = Preparation(loaded.passages, recipe.passages, loaded.translate)
        if (found := _recognised(preparation)) != self.models:
            different = [
                f"{ours} here, {theirs} there" for ours, theirs in zip(self.models, found, strict=True) if ours != theirs
            ]
            raise ModelMismatchError(
                f"a worker{_on_host()} finds another model than the one whose vectors the collection holds: "
                f"{'; '.join(different)}. Put the same model there (the recipe names {recipe.encoder.model})"
            )
        return preparation


def answer(opening: Opening, task: Task | None, opened: list[Preparation]) -> Prepared | TwinrankError:
    """What a worker sends back; it keeps its models in `opened`, and without a task does no more than open them.

    An error is an answer too, and one that survives pickling.
    """
    try:
        if not opened:
            opened.append(opening.open())
        return Prepared() if task is None else opened[0].prepare(task)
    except TwinrankError as error:
        return error
    except Exception as error:
        if not opened or task is None:
            return WorkersError(f"a worker{_on_host()} could not open its models: {_told(error)}")
        return _traced(opened[0], task, error)


def _traced(preparation: Preparation, task: Task, error: Exception) -> TwinrankError:
    """An error that nobody foresaw, with the name of the document over which it comes."""
    for document in task.documents:
        try:
            preparation.prepare(replace(task, documents=[document]))
        except TwinrankError as own:
            return own
        except Exception as own:
            return DocumentError(f"document {document.id!r} could not be encoded: {_told(own)}")
    return WorkersError(f"{task.told} could not be encoded together: {_told(error)}")


def limit_threads(threads: int) -> dict[str, str]:
    """The environment of a process that is to use so many threads."""
    return dict.fromkeys(THREADS, str(threads))


def _recognised(preparation: Preparation) -> tuple[Any, ...]:
    encoder: PassageEncoder | None = preparation.encoder
    views = () if encoder is None else encoder.views
    models = [(plan.name, plan.kind, plan.fingerprint, plan.dimension, sorted(plan.settings.items())) for plan in views]
    return (models, None if preparation.translate is None else preparation.translate.fingerprint)


def _with_whole_paths(recipe: Recipe) -> Recipe:
    """Paths as they are found from whatever directory a worker runs in."""
    recipe = replace(recipe, encoder=replace(recipe.encoder, model=_whole(recipe.encoder.model)))
    if recipe.tokens is not None and recipe.tokens.model:
        recipe = replace(recipe, tokens=replace(recipe.tokens, model=_whole(recipe.tokens.model)))
    if recipe.translate is not None:
        recipe = replace(recipe, translate=replace(recipe.translate, model=_whole(recipe.translate.model)))
    return recipe


def _whole(model: str) -> str:
    path = Path(model).expanduser()
    return str(path.resolve()) if path.is_dir() else model


def _on_host() -> str:
    """` on HOST`, where a worker was told whose name it has."""
    host = os.environ.get("TWINRANK_WORKER_HOST", "")
    return f" on {host}" if host else ""


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
