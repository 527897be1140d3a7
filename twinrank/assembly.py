"""A recipe, its models and the indexes → the pipeline that searches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from twinrank.derived import Indexes
from twinrank.encoding import TOKENS, VECTORS, ViewPlan
from twinrank.errors import RecipeError
from twinrank.loaded import Loaded
from twinrank.maxsim import score_packed
from twinrank.models.lateinteraction import LateInteraction
from twinrank.recipe import Recipe, RerankSettings
from twinrank.search.fuse import Fusion
from twinrank.search.pipeline import Pipeline
from twinrank.search.rerank import Rerank
from twinrank.search.retrieve import IndexSource
from twinrank.store import Store
from twinrank.text import Analyzer
from twinrank.types import Encoder, Keys, Scores


@dataclass(frozen=True)
class Assembly:
    """What pipelines are made of; `checked` makes sure that a view of the store is the recipe's before it is searched."""

    recipe: Recipe
    loaded: Loaded
    store: Store
    analyzer: Analyzer
    checked: Callable[[ViewPlan], None]

    def pipeline(self, indexes: Indexes) -> Pipeline:
        fuse = self.recipe.fuse
        weights = {"vectors": fuse.weights.vectors, "words": fuse.weights.words, "tokens": fuse.weights.tokens}
        return Pipeline(
            self._sources(indexes),
            Fusion(fuse.method, weights, fuse.constant),
            [self._rerank(stage) for stage in self.recipe.rerank],
            self.loaded.rewrite,
        )

    def _sources(self, indexes: Indexes) -> list[tuple[IndexSource[Any], int]]:
        retrieve = self.recipe.retrieve
        sources: list[tuple[IndexSource[Any], int]] = []
        colbert = self.loaded.passages is not None and self.loaded.encoder is None
        if retrieve.vectors and self.loaded.encoder is not None:
            encoder: Encoder = self.loaded.encoder
            self._check(VECTORS)
            assert indexes.vectors is not None
            source = IndexSource("vectors", indexes.vectors, lambda text: encoder.encode([text], side="query")[0])
            sources.append((source, retrieve.vectors))
        candidates = retrieve.tokens or (retrieve.vectors if colbert else 0)
        if candidates:
            late = self._late("[retrieve] tokens searches them")
            assert indexes.tokens is not None
            sources.append(
                (IndexSource("tokens", indexes.tokens, lambda text: late.encode([text], side="query")[0]), candidates)
            )
        if retrieve.words:
            sources.append((IndexSource("words", indexes.words, self.analyzer), retrieve.words))
        if not sources:
            raise RecipeError('the recipe retrieves by vectors alone and has no encoder (model = "none"); set retrieve, words')
        return sources

    def _rerank(self, settings: RerankSettings) -> Rerank:
        if settings.kind == "maxsim":
            late = self._late('[[rerank]] kind = "maxsim" reads them')
            codec = self.store.views()[TOKENS].codec

            def score(query: str, keys: Keys) -> Scores:
                there, tokens = self.store.tokens_there(TOKENS, keys)
                scores = np.zeros(len(keys), np.float32)  # of what was deleted a moment ago
                scores[there] = score_packed(codec, late.encode([query], side="query")[0], [tokens])
                return scores
        else:
            scorer = self.loaded.scorer(settings)

            def score(query: str, keys: Keys) -> Scores:
                return scorer.score([(query, text) for text in self._texts(keys)])

        return Rerank(settings.name, score, settings.candidates, settings.mix)

    def _late(self, purpose: str) -> LateInteraction:
        if self.loaded.late is None:
            raise RecipeError(f"the recipe keeps no token vectors, and {purpose}; add a table [tokens] to it")
        self._check(TOKENS)
        return self.loaded.late

    def _check(self, view: str) -> None:
        assert self.loaded.passages is not None
        for plan in self.loaded.passages.views:
            if plan.name == view:
                self.checked(plan)

    def _texts(self, keys: Keys) -> Sequence[str]:
        stored = {passage.key: passage.titled_text for passage in self.store.passages(keys)}
        return [stored.get(key, "") for key in keys.tolist()]  # empty where it was deleted a moment ago
