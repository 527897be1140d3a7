"""One query under every architecture that a collection holds the index for: hits and milliseconds, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakSet

from twinrank.collection import Collection
from twinrank.encoding import TOKENS, VECTORS
from twinrank.errors import CollectionError, MissingExtraError, ModelError, RecipeError
from twinrank.recipe import NO_MODEL, Recipe, RerankSettings, RetrieveSettings

CANDIDATES = 100
"""That an architecture finds or reranks, where the collection's recipe does not say."""
READ = 50
"""That a cross-encoder reads."""

OWN = "this collection's recipe"

Failing = ModelError, CollectionError, RecipeError, MissingExtraError
"""What is wrong with one architecture, and not with the query."""


@dataclass(frozen=True)
class Architectures:
    """A recipe a row, cheapest architecture first, all over what is stored; and why others are not there."""

    recipes: Mapping[str, Recipe]
    own: str
    """The row that is the collection's recipe."""
    left_out: tuple[str, ...]


def architectures(collection: Collection) -> Architectures:
    """What can be compared without encoding anything, or making an index, that is not there yet.

    >>> from tempfile import mkdtemp
    >>> notes = Collection(mkdtemp() + "/notes.twinrank", model="none")
    >>> list(architectures(notes).recipes)
    ['words']
    """
    own, left_out = collection.recipe, []
    alone = replace(own, rerank=(), rewrite=None)
    recipes = {"words": replace(alone, retrieve=RetrieveSettings(vectors=0, words=CANDIDATES))}
    views = {name for name, view in collection.store.views().items() if view.complete}
    hybrid = recipes["words"]
    if own.encoder.model == NO_MODEL or VECTORS not in views:
        left_out.append("vectors: the collection holds none")
    else:
        recipes["vectors"] = replace(alone, retrieve=RetrieveSettings(vectors=CANDIDATES, words=0))
        hybrid = recipes["hybrid"] = replace(alone, retrieve=RetrieveSettings(vectors=CANDIDATES, words=CANDIDATES))
    late = hybrid
    if own.tokens is None and TOKENS not in views:
        left_out.append("late interaction: the collection keeps no token vectors; add a table [tokens] to its recipe")
    elif TOKENS in views:
        if collection.indexes().tokens is not None:
            searched = RetrieveSettings(vectors=0, words=0, tokens=CANDIDATES)
            recipes["late interaction"] = replace(alone, retrieve=searched)
        late = replace(hybrid, rerank=(_stage(own, "maxsim") or RerankSettings(kind="maxsim", candidates=CANDIDATES),))
        recipes[f"{_name(hybrid)} + late interaction"] = late
    reads = _stage(own, "cross-encoder")
    if reads is None:
        left_out.append("cross-encoder: the recipe has none; add a table [[rerank]] to it")
    else:
        read = replace(reads, risk=0.0, tokens=0, candidates=min(reads.candidates, CANDIDATES))
        recipes[f"{_name(hybrid)} + cross-encoder"] = replace(hybrid, rerank=(read,))
        if late.rerank:
            cascade = (*late.rerank, replace(read, candidates=min(read.candidates, READ)))
            recipes[f"{_name(hybrid)} + late interaction + cross-encoder"] = replace(late, rerank=cascade)
    # A recipe that nothing was changed in asks for vectors, whether there are any or not.
    effective = own if "vectors" in recipes or TOKENS in views else replace(own, retrieve=replace(own.retrieve, vectors=0))
    same = next((name for name, recipe in recipes.items() if recipe == effective), None)
    if same is None:
        recipes[OWN] = own
    return Architectures(recipes, same or OWN, tuple(left_out))


def _name(recipe: Recipe) -> str:
    return "hybrid" if recipe.retrieve.vectors else "words"


def _stage(recipe: Recipe, kind: str) -> RerankSettings | None:
    return next((stage for stage in recipe.rerank if stage.kind == kind), None)


@dataclass
class SideBySide:
    """Compares; remembers which collections have their models open, so that opening them is on nobody's clock."""

    _warm: WeakSet[Collection] = field(default_factory=WeakSet)

    def compare(self, collection: Collection, query: str, k: int = 10, where: str | None = None) -> dict[str, Any]:
        """Hits and milliseconds of every architecture, as plain values; one that fails stops no other and says why."""
        chosen = architectures(collection)
        if collection not in self._warm:
            for recipe in chosen.recipes.values():
                _asked(collection, recipe, query, k, where)
            self._warm.add(collection)
        rows = [
            {"name": name, "own": name == chosen.own, **_asked(collection, recipe, query, k, where)}
            for name, recipe in chosen.recipes.items()
        ]
        return {"query": query, "k": k, "where": where, "architectures": rows, "left_out": list(chosen.left_out)}


def _asked(collection: Collection, recipe: Recipe, query: str, k: int, where: str | None) -> dict[str, Any]:
    try:
        results = collection.search_by(recipe, query, k, where=where)
    except Failing as error:
        return {"error": str(error), "milliseconds": None, "stages": [], "notes": [], "hits": [], "recipe": recipe.to_toml()}
    return {
        "error": None,
        "milliseconds": 1000 * results.seconds,
        "stages": [{"stage": stage, "milliseconds": 1000 * seconds} for stage, seconds in results.stages],
        "notes": list(results.notes),
        "hits": [{"id": hit.id, "rank": hit.rank, "score": hit.score, "title": hit.title, "text": hit.text} for hit in results],
        "recipe": recipe.to_toml(),
    }
