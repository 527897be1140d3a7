"""A recipe, its models and the indexes → the pipeline that searches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from twinrank import learned, weighing
from twinrank.derived import Indexes
from twinrank.encoding import TOKENS, VECTORS, ViewPlan
from twinrank.errors import RecipeError
from twinrank.index.searched import VectorSearch
from twinrank.learned import Belongs
from twinrank.loaded import Loaded
from twinrank.maxsim import score_packed
from twinrank.models.lateinteraction import LateInteraction
from twinrank.recipe import Recipe
from twinrank.search.anytime import Anytime
from twinrank.search.fuse import Fusion
from twinrank.search.pipeline import Pipeline
from twinrank.search.rerank import Rerank
from twinrank.search.retrieve import IndexSource
from twinrank.search.weights import Views
from twinrank.store import Kept
from twinrank.text import Analyzer
from twinrank.types import Encoder, Keys, Scores, Vectors


@dataclass(frozen=True)
class Assembly:
    """What pipelines are made of; `checked` makes sure that a view of the store is the recipe's before it is searched."""

    recipe: Recipe
    loaded: Loaded
    store: Kept
    analyzer: Analyzer
    checked: Callable[[ViewPlan], None]
    agreements: weighing.Known = field(default_factory=dict)

    def pipeline(self, indexes: Indexes) -> Pipeline:
        fuse = self.recipe.fuse
        weights = {"vectors": fuse.weights.vectors, "words": fuse.weights.words, "tokens": fuse.weights.tokens}
        sources = self._sources(indexes)
        return Pipeline(
            sources,
            Fusion(fuse.method, weights, fuse.constant, self._views(sources, indexes)),
            [self._rerank(number, indexes) for number in range(len(self.recipe.rerank))],
            self.loaded.rewrite,
        )

    def weigh(self, indexes: Indexes) -> None:
        """Measure what the weights are decided by, where that is due: while documents are added rather than at a search."""
        self._views(self._sources(indexes), indexes)

    def _views(self, sources: Sequence[tuple[IndexSource[Any], int]], indexes: Indexes) -> Views:
        by_name = {source.name: source for source, _ in sources}
        if self.recipe.fuse.method != "auto" or set(by_name) != {"vectors", "words"}:
            return Views()  # nothing is decided
        assert self.loaded.encoder is not None
        assert indexes.vectors is not None
        stamp = f"{self.loaded.encoder.fingerprint} {self.analyzer.fingerprint}"
        agreement = weighing.agreement(self.store, stamp, indexes.vectors, **by_name, known=self.agreements)
        return Views(self.loaded.contrast, agreement)

    def _sources(self, indexes: Indexes) -> list[tuple[IndexSource[Any], int]]:
        retrieve = self.recipe.retrieve
        sources: list[tuple[IndexSource[Any], int]] = []
        colbert = self.loaded.passages is not None and self.loaded.encoder is None
        if retrieve.vectors and self.loaded.encoder is not None:
            encoder: Encoder = self.loaded.encoder
            self._check(VECTORS)
            index = indexes.vectors
            assert index is not None
            ask = partial(self.loaded.query_vector, encoder)
            sources.append((IndexSource("vectors", index, ask, plan=lambda: index.plan), retrieve.vectors))
        candidates = retrieve.tokens or (retrieve.vectors if colbert else 0)
        if candidates:
            late = self._late("[retrieve] tokens searches them")
            assert indexes.tokens is not None
            sources.append(
                (IndexSource("tokens", indexes.tokens, lambda text: self.loaded.encode(late, [text], "query")[0]), candidates)
            )
        if retrieve.words:
            sources.append((IndexSource("words", indexes.words, self.analyzer, indexes.words.bound), retrieve.words))
        if not sources:
            raise RecipeError('the recipe retrieves by vectors alone and has no encoder (model = "none"); set retrieve, words')
        return sources

    def _rerank(self, number: int, indexes: Indexes) -> Rerank:
        settings = self.recipe.rerank[number]
        if settings.kind == "maxsim":
            return Rerank(settings.name, self._maxsim(), settings.candidates, settings.mix)
        scorer = self.loaded.scorer(settings)

        def score(query: str, keys: Keys) -> Scores:
            return self.loaded.score(scorer, [(query, text) for text in self._texts(keys)])

        def count_tokens(query: str, keys: Keys) -> npt.NDArray[np.int64]:
            return scorer.count_tokens([(query, text) for text in self._texts(keys)])

        rule, without_rule = None, ""
        if settings.risk:
            rule, without_rule = learned.find(self.store, number, self.belongs(number))
        return Anytime(
            settings.name,
            score,
            settings.candidates,
            settings.mix,
            risk=settings.risk,
            top=settings.top,
            tokens=settings.tokens,
            rule=rule,
            without_rule=without_rule,
            count_tokens=count_tokens,
            owners=None if self.recipe.group.by == "none" else self.store.documents_of,
            vectors=self._known_vectors(indexes.vectors),
            pace=self.loaded.pace(scorer),
        )

    def belongs(self, number: int) -> Belongs:
        """What is learned about the rerank `number` belongs to."""
        return Belongs.to(self.recipe, number, self.loaded.scorer(self.recipe.rerank[number]).fingerprint)

    def _known_vectors(self, index: VectorSearch | None) -> Callable[[Keys], Vectors] | None:
        """The stored vectors by key, of length 1, for a stage that predicts from what lies near."""
        if index is None:
            return None

        def vectors(keys: Keys) -> Vectors:
            found = index.vectors(keys)
            lengths = np.linalg.norm(found, axis=1, keepdims=True)
            return np.asarray(found / np.where(lengths > 0, lengths, 1), dtype=np.float32)

        return vectors

    def _maxsim(self) -> Callable[[str, Keys], Scores]:
        late = self._late('[[rerank]] kind = "maxsim" reads them')
        codec = self.store.views()[TOKENS].codec

        def score(query: str, keys: Keys) -> Scores:
            there, tokens = self.store.tokens_there(TOKENS, keys)
            scores = np.zeros(len(keys), np.float32)  # of what was deleted a moment ago
            scores[there] = score_packed(codec, self.loaded.encode(late, [query], "query")[0], [tokens])
            return scores

        return score

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
