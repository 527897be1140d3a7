"""The last tuning of a collection, kept beside its recipe as tuning.json for whoever shows it; deleting it is safe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from twinrank.collection import Collection
from twinrank.errors import RecipeError
from twinrank.recipe import Recipe

FILE = "tuning.json"


def keep(tuning: Mapping[str, Any], collection: Collection) -> None:
    """Put a tuning, as `report.as_json` tells it, in the place of the one before."""
    collection.write_text(FILE, json.dumps(tuning, ensure_ascii=False, indent=1) + "\n")


def last_tuning(collection: Collection) -> dict[str, Any] | None:
    """The tuning as JSON, with `current` true of the finalist that is the recipe in use; None where none is kept, or none
    that can be read."""
    try:
        told: dict[str, Any] = json.loads(collection.read_text(FILE) or "null")
        for finalist in told["finalists"]:
            finalist["current"] = _is(finalist["recipe"], collection.recipe)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return told


def _is(toml: str, recipe: Recipe) -> bool:
    try:
        return Recipe.parse(toml) == recipe
    except RecipeError:  # of another version of twinrank
        return False
