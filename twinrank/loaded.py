"""The models that a recipe names, each opened when it is first asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twinrank.recipe import NO_MODEL, Recipe, RerankSettings
from twinrank.search.rewrite import Rewrite
from twinrank.types import Encoder, Scorer

if TYPE_CHECKING:
    from twinrank.models.translator import Translator


class Loaded:
    """Encoder, rerankers and translator of one recipe; opening the collection opens none of them."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self._encoder: Encoder | None = None
        self._scorers: dict[RerankSettings, Scorer] = {}
        self._translator: Translator | None = None

    @property
    def encoder(self) -> Encoder | None:
        """A bi-encoder or a twin tower, as the checkpoint says; None where the recipe has none."""
        settings = self.recipe.encoder
        if self._encoder is None and settings.model != NO_MODEL:
            from twinrank.models import kinds

            if kinds.recognise(settings.model) == "TwinTower":
                from twinrank.models.twintower import TwinTower

                self._encoder = TwinTower(settings.model, precision=settings.precision)
            else:
                from twinrank.models.biencoder import BiEncoder

                self._encoder = BiEncoder(settings.model, precision=settings.precision)
        return self._encoder

    def scorer(self, settings: RerankSettings) -> Scorer:
        if settings not in self._scorers:
            from twinrank.models.crossencoder import CrossEncoder

            self._scorers[settings] = CrossEncoder(settings.model, windows=settings.windows)
        return self._scorers[settings]

    @property
    def rewrite(self) -> Rewrite | None:
        settings = self.recipe.rewrite
        if settings is None:
            return None
        if self._translator is None:
            from twinrank.models.translator import Translator

            self._translator = Translator(settings.model, prefix=settings.prefix or None)
        translator = self._translator
        return Rewrite(f"rewrite {settings.model}", lambda query: translator.translate([query])[0], settings.keep)
