"""The last tuning of a collection, kept in its folder as tuning.json for whoever shows it; deleting it is safe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twinrank.errors import RecipeError
from twinrank.files import replace_file
from twinrank.recipe import Recipe

FILE = "tuning.json"


def keep(tuning: Mapping[str, Any], folder: Path) -> None:
    """Put a tuning, as `report.as_json` tells it, in the place of the one before."""
    replace_file(folder / FILE, json.dumps(tuning, ensure_ascii=False, indent=1) + "\n")


def last_tuning(folder: Path, current: Recipe) -> dict[str, Any] | None:
    """The tuning as JSON, with `current` true of the finalist that is the recipe in use; None where none is kept, or none
    that can be read."""
    try:
        told: dict[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
        for finalist in told["finalists"]:
            finalist["current"] = _is(finalist["recipe"], current)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return told


def _is(toml: str, recipe: Recipe) -> bool:
    try:
        return Recipe.parse(toml) == recipe
    except RecipeError:  # of another version of twinrank
        return False
