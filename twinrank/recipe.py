"""A recipe: what is stored of a collection and how it is searched, as TOML; collection.py makes the pipeline from it.

[encoder]
model = "sentence-transformers/all-MiniLM-L6-v2"    # a hub name, a folder, or "none" for words alone
precision = "auto"                                  # int8, bf16, fp32; auto: int8 where the native engine runs
pooling = ""                                        # mean, cls, max…: in place of what the checkpoint states

[passages]
size = 256          # tokens of the encoder, title and special tokens included; 0: one passage a document
overlap = 32        # tokens that a passage repeats of the one before
also = []           # "title", or fields that give passages of their own: a summary, the questions it answers

[translate]         # documents are searched in a translation too, which is made when they are added; none by default
model = "Helsinki-NLP/opus-mt-fr-en"
prefix = ""         # a T5-like model's task, or a Marian target
field = "translation"

[tokens]            # one vector a token is kept too, for MaxSim; none by default
format = "int4"     # or "int8": bits a number
pooling = 2.0       # so many tokens become about one
model = ""          # a ColBERT; without one, the encoder's own token vectors, from the same pass

[words]
language = "english"

[retrieve]
vectors = 100       # candidates from the vectors; 0 leaves them out
words = 100         # candidates from BM25; 0 leaves it out
tokens = 0          # candidates by MaxSim over the token vectors of all passages

[index]
kind = "auto"       # of the vectors: exact, hnsw, ivf, scann, annoy; auto: exact as long as that is quick
recall = 0.95       # of the 10 nearest, what an approximate index has to find; nlist, nprobe, m, ef_… are in docs/indexes.md

[group]
by = "best"         # a document stands where its best passage does; "sum": its best passages add up; "none": passages alone
passages = 3        # that add up

[fuse]
method = "auto"     # decided for each query; "score": the weights below; "rank": reciprocal rank fusion
weights = { vectors = 0.6, words = 0.4, tokens = 0.6 }
constant = 60       # of reciprocal rank fusion

[[rerank]]          # any number of them, in a row; none by default
kind = "maxsim"     # over the token vectors that are kept
candidates = 100
weight = 0.6        # of its score; the rest is that of the ranking that came in

[[rerank]]
kind = "cross-encoder"
model = "cross-encoder/ms-marco-MiniLM-L6-v2"
candidates = 50
risk = 0.0          # above 0: stop when the first places are settled to this risk, once that was learned (twinrank learn)
top = 0             # the first places to settle, 20 at most; 0: as many as are asked for
tokens = 0          # at most so many tokens of pairs a query; 0: no limit
max_tokens = 0      # a pair is cut to so many; 0: the model's own limit
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal, get_args

from twinrank import tables
from twinrank.errors import RecipeError
from twinrank.index.settings import VectorIndexSettings
from twinrank.models.hub import DEFAULT_MODEL, RERANKER
from twinrank.models.trunk import Pooling
from twinrank.stopping import TOPS
from twinrank.tables import check_choice, check_range
from twinrank.text import Chunking

NO_MODEL = "none"

FusionMethod = Literal["auto", "score", "rank"]


@dataclass(frozen=True, slots=True)
class EncoderSettings:
    model: str = DEFAULT_MODEL
    precision: Literal["auto", "int8", "bf16", "fp32"] = "auto"
    pooling: str = ""


@dataclass(frozen=True, slots=True)
class TokenSettings:
    format: Literal["int8", "int4"] = "int4"
    pooling: float = 2.0
    model: str = ""


@dataclass(frozen=True, slots=True)
class TranslateSettings:
    model: str
    prefix: str = ""
    field: str = "translation"


@dataclass(frozen=True, slots=True)
class WordSettings:
    language: str = "english"


@dataclass(frozen=True, slots=True)
class RetrieveSettings:
    vectors: int = 100
    words: int = 100
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class GroupSettings:
    by: Literal["best", "sum", "none"] = "best"
    passages: int = 3


@dataclass(frozen=True, slots=True)
class FuseWeights:
    vectors: float = 0.6
    words: float = 0.4
    tokens: float = 0.6


@dataclass(frozen=True, slots=True)
class FuseSettings:
    method: FusionMethod = "auto"
    weights: FuseWeights = field(default_factory=FuseWeights)
    constant: int = 60


@dataclass(frozen=True, slots=True)
class RewriteSettings:
    model: str
    prefix: str = ""
    keep: bool = True


@dataclass(frozen=True, slots=True)
class RerankSettings:
    model: str = ""
    kind: Literal["cross-encoder", "maxsim"] = "cross-encoder"
    candidates: int = 50
    windows: bool = False
    weight: float | None = None
    risk: float = 0.0
    top: int = 0
    tokens: int = 0
    max_tokens: int = 0

    @property
    def mix(self) -> float:
        """How much its own score counts; MaxSim's default was chosen on train and dev splits (docs/decisions.md)."""
        return (0.6 if self.kind == "maxsim" else 1.0) if self.weight is None else self.weight

    @property
    def name(self) -> str:
        return self.kind if self.kind == "maxsim" else f"rerank {self.model}"


@dataclass(frozen=True, slots=True)
class Recipe:
    """A pipeline as plain values; equal recipes make equal pipelines.

    >>> Recipe.parse('[retrieve]\\nwords = 50').retrieve
    RetrieveSettings(vectors=100, words=50, tokens=0)
    """

    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    passages: Chunking = field(default_factory=Chunking)
    translate: TranslateSettings | None = None
    tokens: TokenSettings | None = None
    words: WordSettings = field(default_factory=WordSettings)
    retrieve: RetrieveSettings = field(default_factory=RetrieveSettings)
    index: VectorIndexSettings = field(default_factory=VectorIndexSettings)
    group: GroupSettings = field(default_factory=GroupSettings)
    fuse: FuseSettings = field(default_factory=FuseSettings)
    rerank: tuple[RerankSettings, ...] = ()
    rewrite: RewriteSettings | None = None

    def __post_init__(self) -> None:
        _check(self)

    @classmethod
    def parse(cls, toml: str, *, name: str = "recipe") -> Recipe:
        """Read a recipe; what is left out keeps its default. Raises RecipeError that names the key."""
        return tables.parse(cls, toml, name)

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Read a recipe from a file, or one of the built-in ones by name: `words`, `vectors`, `hybrid`, `reranked`."""
        if str(path) in BUILT_IN:
            return BUILT_IN[str(path)]
        return tables.load(cls, path, f"give a TOML file or one of the built-in names: {', '.join(BUILT_IN)}")

    def to_toml(self) -> str:
        """The recipe in full, defaults included, so that reading it tells everything."""
        return tables.dump(self)

    def with_model(self, model: str) -> Recipe:
        """The same recipe with another encoder."""
        return replace(self, encoder=replace(self.encoder, model=model))

    @property
    def stored(self) -> str:
        """How documents are cut, for people: what may not change between two calls of `add`."""
        unit = "words" if self.encoder.model == NO_MODEL else "tokens"
        also = "".join(f", {name} too" for name in self.passages.also)
        translated = ""
        if (by := self.translate) is not None:
            translated = f", translated by {f'{by.model} {by.prefix}'.strip()} into {by.field}"
        return f"{self.passages.size} {unit} with {self.passages.overlap} repeated{also}{translated}"


def _check(recipe: Recipe) -> None:
    check_choice("encoder, precision", recipe.encoder.precision, ("auto", "int8", "bf16", "fp32"))
    check_choice("encoder, pooling", recipe.encoder.pooling, ("", *get_args(Pooling)))
    check_choice("fuse, method", recipe.fuse.method, get_args(FusionMethod))
    check_range("retrieve, vectors", recipe.retrieve.vectors, 0, 1_000_000)
    check_range("retrieve, words", recipe.retrieve.words, 0, 1_000_000)
    check_range("retrieve, tokens", recipe.retrieve.tokens, 0, 1_000_000)
    check_choice("group, by", recipe.group.by, ("best", "sum", "none"))
    if recipe.group.by == "sum" and any(stage.risk for stage in recipe.rerank):
        raise RecipeError(
            'rerank, risk: with [group] by = "sum" every passage moves its document, so that nothing is settled early; '
            "leave one of the two"
        )
    check_range("group, passages", recipe.group.passages, 1, 1_000)
    check_range("fuse, constant", recipe.fuse.constant, 0, 1_000_000)
    if not (recipe.retrieve.vectors or recipe.retrieve.words or recipe.retrieve.tokens):
        raise RecipeError("retrieve: vectors, words and tokens are all 0, so nothing would ever be found; set at least one")
    weights = {item.name: getattr(recipe.fuse.weights, item.name) for item in fields(recipe.fuse.weights)}
    for name, weight in weights.items():
        check_range(f"fuse, weights, {name}", weight, 0.0, 1_000_000.0)
    if sum(weight for name, weight in weights.items() if getattr(recipe.retrieve, name)) <= 0:
        raise RecipeError("fuse, weights: at least one weight must be above 0")
    for stage in recipe.rerank:
        _check_rerank(stage)
    if recipe.tokens is not None:
        check_choice("tokens, format", recipe.tokens.format, ("int8", "int4"))
        check_range("tokens, pooling", recipe.tokens.pooling, 1.0, 64.0)
    for name in recipe.passages.also:
        if name in ("", "id", "text", "source"):
            raise RecipeError(f'passages, also: {name!r} gives no passages of its own; name "title" or fields')
    if recipe.translate is not None and recipe.translate.field in ("", "id", "title", "text", "source"):
        raise RecipeError(
            f"translate, field: {recipe.translate.field!r} is no field; name one that the documents do not have, such as "
            "'translation'"
        )
    if not recipe.encoder.model:
        raise RecipeError(f"encoder, model: expected a name, a folder or {NO_MODEL!r}, got an empty text")


def _check_rerank(stage: RerankSettings) -> None:
    check_choice("rerank, kind", stage.kind, ("cross-encoder", "maxsim"))
    check_range("rerank, candidates", stage.candidates, 1, 1_000_000)
    check_range("rerank, weight", stage.mix, 0.0, 1.0)
    check_range("rerank, top", stage.top, 0, max(TOPS))
    check_range("rerank, tokens", stage.tokens, 0, 1_000_000_000)
    check_range("rerank, max_tokens", stage.max_tokens, 0, 1_000_000)
    if not 0 <= stage.risk < 1:
        raise RecipeError(f"rerank, risk: expected 0 (a full rerank) to below 1, got {stage.risk}")
    if stage.kind == "maxsim" and (stage.risk or stage.top or stage.tokens or stage.max_tokens):
        raise RecipeError("rerank: maxsim scores all candidates within a millisecond; leave risk, top, tokens and max_tokens")
    if stage.risk and stage.mix < 1:
        raise RecipeError(
            f"rerank: risk = {stage.risk} stops before every candidate is scored, and weight = {stage.mix} mixes scores that "
            "are spread over all of them; leave one of the two"
        )
    if stage.kind == "cross-encoder" and not stage.model:
        raise RecipeError('rerank: model is missing; name a cross-encoder, or rerank by kind = "maxsim"')
    if stage.kind == "maxsim" and stage.model:
        raise RecipeError(f"rerank: maxsim takes no model, got {stage.model!r}; it is named in [tokens], model")


HYBRID = Recipe()
BUILT_IN: Mapping[str, Recipe] = {
    "hybrid": HYBRID,
    "words": replace(HYBRID, retrieve=RetrieveSettings(vectors=0, words=100)),
    "vectors": replace(HYBRID, retrieve=RetrieveSettings(vectors=100, words=0)),
    "reranked": replace(HYBRID, rerank=(RerankSettings(RERANKER, candidates=20, weight=0.5),)),
}
