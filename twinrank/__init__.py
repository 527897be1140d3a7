"""twinrank: search your own documents with every encoder architecture, offline, on a CPU, measured.

The front door: these names and no more; each is imported when it is first used, so that `import twinrank` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from twinrank.answer.endpoint import Endpoint
    from twinrank.answer.result import Answer
    from twinrank.collection import Collection
    from twinrank.errors import TwinrankError
    from twinrank.models.biencoder import BiEncoder
    from twinrank.models.crossencoder import CrossEncoder
    from twinrank.models.hub import DEFAULT_MODEL
    from twinrank.models.lateinteraction import LateInteraction
    from twinrank.models.translator import Translator
    from twinrank.models.twintower import TwinTower
    from twinrank.recipe import Recipe
    from twinrank.search.results import Results
    from twinrank.types import Document, Hit
    from twinrank.workers import Workers

_HOMES = {
    "Answer": "twinrank.answer.result",
    "BiEncoder": "twinrank.models.biencoder",
    "Collection": "twinrank.collection",
    "CrossEncoder": "twinrank.models.crossencoder",
    "DEFAULT_MODEL": "twinrank.models.hub",
    "Document": "twinrank.types",
    "Endpoint": "twinrank.answer.endpoint",
    "Hit": "twinrank.types",
    "LateInteraction": "twinrank.models.lateinteraction",
    "Recipe": "twinrank.recipe",
    "Results": "twinrank.search.results",
    "Translator": "twinrank.models.translator",
    "TwinTower": "twinrank.models.twintower",
    "TwinrankError": "twinrank.errors",
    "Workers": "twinrank.workers",
}

__all__ = [
    "DEFAULT_MODEL",
    "Answer",
    "BiEncoder",
    "Collection",
    "CrossEncoder",
    "Document",
    "Endpoint",
    "Hit",
    "LateInteraction",
    "Recipe",
    "Results",
    "Translator",
    "TwinTower",
    "TwinrankError",
    "Workers",
    "__version__",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'twinrank' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
