"""WHERE A COLLECTION IS KEPT: a folder of files of this machine, or an engine elsewhere; the same collection in either."""

from __future__ import annotations

from pathlib import Path

from twinrank.index.engines import is_address
from twinrank.places.folder import RECIPE, FolderPlace
from twinrank.places.place import Place, Searching

__all__ = ["RECIPE", "FolderPlace", "Place", "Searching", "is_address", "place_of"]


def place_of(where: str | Path) -> Place:
    """What holds the collection at a path or an address."""
    if is_address(where):
        from twinrank.places.engine import EnginePlace

        return EnginePlace(str(where))
    return FolderPlace(Path(where))
