"""The models that a recipe names, each opened when it is first asked for."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast, get_args

import numpy as np

from twinrank.encoding import PassageEncoder
from twinrank.errors import DocumentError, RecipeError
from twinrank.models import kinds
from twinrank.models.biencoder import BiEncoder
from twinrank.models.crossencoder import CrossEncoder
from twinrank.models.kinds import Kind
from twinrank.models.lateinteraction import LateInteraction
from twinrank.models.translator import Translator
from twinrank.models.trunk import Pooling
from twinrank.models.twintower import TwinTower
from twinrank.recipe import NO_MODEL, EncoderSettings, Recipe, RerankSettings, TokenSettings
from twinrank.search.anytime import Pace
from twinrank.search.cache import PairScores, Recent, digest
from twinrank.search.rewrite import Rewrite
from twinrank.search.weights import UNRELATED, contrast_of
from twinrank.together import Together
from twinrank.types import Document, Encoder, Scorer, Scores, Side, Vectors

QUERIES = 1000
"""Queries whose vectors are remembered."""


class Loaded:
    """Encoders, rerankers and translator of one recipe; opening the collection opens none of them."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self._scorers: dict[tuple[str, bool, int], CrossEncoder] = {}
        self.pair_scores = PairScores()
        self.query_vectors: Recent[tuple[str, bytes], Vectors] = Recent(QUERIES)
        self._paces: dict[str, Pace] = {}
        self._translators: dict[tuple[str, str], Translator] = {}
        self.together: dict[tuple[str, str], Together[Any, Any]] = {}
        """What threads ask of one model at the same time, by its fingerprint and by what is asked."""

    def forgetful(self) -> Loaded:
        """The same models, opened, without a memory of what they were asked."""
        _ = self.passages, self.contrast  # made once for both
        other = copy(self)
        other.pair_scores, other.query_vectors = PairScores(), Recent(QUERIES)
        return other

    @cached_property
    def passages(self) -> PassageEncoder | None:
        """What makes the views of passages; None where the recipe has no encoder."""
        settings, tokens = self.recipe.encoder, self.recipe.tokens
        if settings.model == NO_MODEL:
            if tokens is not None:
                raise RecipeError('[tokens] keeps the token vectors of an encoder, and the recipe has none (model = "none")')
            return None
        pooling = None if tokens is None else tokens.pooling
        kind = kinds.recognise(settings.model)
        if kind == "LateInteraction":
            late = LateInteraction(settings.model, precision=settings.precision, pool_factor=pooling)
            return PassageEncoder(None, late, (tokens or TokenSettings()).format)
        encoder = _open_encoder(settings, kind)
        if tokens is None:
            return PassageEncoder(encoder)
        if not tokens.model and not isinstance(encoder, BiEncoder):
            raise RecipeError(
                f"[tokens] keeps token vectors of a bi-encoder, and {settings.model} is a twin tower; "
                "name a ColBERT in [tokens], model"
            )
        source = encoder if isinstance(encoder, BiEncoder) and not tokens.model else tokens.model
        return PassageEncoder(
            encoder, LateInteraction(source, precision=settings.precision, pool_factor=pooling), tokens.format
        )

    @property
    def encoder(self) -> Encoder | None:
        """What gives one vector a passage: a bi-encoder or a twin tower, as the checkpoint says."""
        return None if self.passages is None else self.passages.encoder

    @property
    def late(self) -> LateInteraction | None:
        """What gives one vector a token."""
        return None if self.passages is None else self.passages.late

    @cached_property
    def contrast(self) -> float:
        """How far apart the encoder holds texts that have nothing in common; 1 without an encoder."""
        if self.encoder is None:
            return 1.0
        queries, documents = (  # not by `encode`, which would tell the user that these are cut
            self.encoder.embed(self.encoder.tokenize(UNRELATED, side=side), side=side) for side in get_args(Side)
        )
        return contrast_of(queries, documents)

    def scorer(self, settings: RerankSettings) -> CrossEncoder:
        """The cross-encoder of a stage; stages that differ in candidates and weight alone share one."""
        asked = settings.model, settings.windows, settings.max_tokens
        if asked not in self._scorers:
            self._scorers[asked] = CrossEncoder(
                settings.model, windows=settings.windows, max_tokens=settings.max_tokens or None
            )
        return self._scorers[asked]

    def pace(self, scorer: CrossEncoder) -> Pace:
        """What a token was found to cost in this scorer."""
        return self._paces.setdefault(scorer.fingerprint, Pace())

    def query_vector(self, encoder: Encoder, query: str) -> Vectors:
        """The query's vector (dimension,); of a query that came a moment ago, the same one."""
        return self.query_vectors.of((encoder.fingerprint, digest(query)), lambda: self.encode(encoder, [query], "query")[0])

    def encode(self, encoder: Encoder | LateInteraction, texts: Sequence[str], side: Side) -> list[Vectors]:
        """What the encoder gives for each text, together with what other threads ask of it at the same time."""
        key = encoder.fingerprint, f"{side} {type(encoder).__name__}"
        together = self.together.get(key)
        if together is None:
            made = Together[str, Vectors](lambda texts: list(encoder.encode(texts, side=side)), size=len)
            together = self.together.setdefault(key, made)
        return together(texts)

    def score(self, scorer: Scorer, pairs: Sequence[tuple[str, str]]) -> Scores:
        """(pairs,), those of a moment ago remembered, and the others scored with what other threads ask at the same time."""
        return self.pair_scores.score(_TogetherScorer(scorer, self._together_scores(scorer)), pairs)

    def _together_scores(self, scorer: Scorer) -> Together[tuple[str, str], np.float32]:
        key = scorer.fingerprint, "pairs"
        if key not in self.together:
            made = Together[tuple[str, str], np.float32](lambda pairs: list(scorer.score(pairs)), size=_characters)
            self.together.setdefault(key, made)
        return self.together[key]

    @property
    def translate(self) -> DocumentTranslation | None:
        """What adds translations to documents."""
        settings = self.recipe.translate
        if settings is None:
            return None
        return DocumentTranslation(self._open_translator(settings.model, settings.prefix), settings.field)

    def _open_translator(self, model: str, prefix: str) -> Translator:
        if (model, prefix) not in self._translators:
            self._translators[model, prefix] = Translator(model, prefix=prefix or None)
        return self._translators[model, prefix]

    @property
    def rewrite(self) -> Rewrite | None:
        settings = self.recipe.rewrite
        if settings is None:
            return None
        translator = self._open_translator(settings.model, settings.prefix)
        return Rewrite(f"rewrite {settings.model}", lambda query: translator.translate([query])[0], settings.keep)


@dataclass(frozen=True)
class _TogetherScorer:
    """A scorer that threads ask together."""

    scorer: Scorer
    together: Together[tuple[str, str], np.float32]

    @property
    def name(self) -> str:
        return self.scorer.name

    @property
    def fingerprint(self) -> str:
        return self.scorer.fingerprint

    def score(self, pairs: Sequence[tuple[str, str]]) -> Scores:
        return np.array(self.together(pairs), np.float32)


def _characters(pair: tuple[str, str]) -> int:
    return len(pair[0]) + len(pair[1])


@dataclass(frozen=True)
class DocumentTranslation:
    """Documents → the same with a translation of title and text as a field."""

    translator: Translator
    field: str

    @property
    def fingerprint(self) -> str:
        return f"{self.field} {self.translator.fingerprint}"

    def __call__(self, documents: Sequence[Document]) -> list[Document]:
        taken = [document.id for document in documents if self.field in document.fields]
        if taken:
            raise DocumentError(
                f"document {taken[0]!r} has a field {self.field!r} of its own, where its translation is to be kept; "
                "name another in the recipe: [translate], field"
            )
        texts = [text for document in documents for text in (document.title, document.text)]
        translated = iter(self.translator.translate(texts))
        return [
            replace(document, fields={**document.fields, self.field: f"{next(translated)}\n\n{next(translated)}".strip()})
            for document in documents
        ]


def _open_encoder(settings: EncoderSettings, kind: Kind) -> Encoder:
    if kind == "TwinTower":
        if settings.pooling:
            raise RecipeError(f"[encoder] pooling: {settings.model} is a twin tower, whose towers pool as they state")
        return TwinTower(settings.model, precision=settings.precision)
    pooling = cast(Pooling, settings.pooling) if settings.pooling else None
    return BiEncoder(settings.model, precision=settings.precision, pooling=pooling)
