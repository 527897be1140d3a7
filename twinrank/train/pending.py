"""A switch to another recipe under way, remembered on disk: killed, the next call of the same adaption ends it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from twinrank.files import replace_file
from twinrank.recipe import Recipe


@dataclass(frozen=True)
class Pending:
    """A switch under way, remembered: re-encoding changes the collection, so that its state no longer tells whose it is."""

    file: Path
    asked: str
    """The digest of what was asked for."""

    def find(self, recipe: Recipe) -> str:
        """The folder of the same adaption, whose switch was interrupted with this recipe in use; empty: there is none."""
        if not self.file.exists():
            return ""
        told = json.loads(self.file.read_text(encoding="utf-8"))
        return str(told["folder"]) if told["asked"] == self.asked and recipe.to_toml() in told["recipes"] else ""

    def write(self, folder: str, *recipes: Recipe) -> None:
        told = {"asked": self.asked, "folder": folder, "recipes": [recipe.to_toml() for recipe in recipes]}
        replace_file(self.file, json.dumps(told, ensure_ascii=False))

    def remove(self) -> None:
        self.file.unlink(missing_ok=True)


def digest_of(told: Mapping[str, object]) -> str:
    """Short, and another for anything else that was asked for."""
    return blake2b(json.dumps(told, ensure_ascii=False).encode(), digest_size=5).hexdigest()
