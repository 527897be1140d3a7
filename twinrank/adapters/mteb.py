"""MTEB: a whole pipeline as a search model, an encoder, a cross-encoder, measured on its tasks.

MTEB itself needs torch; what is measured runs without it.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from twinrank import __version__
from twinrank.adapters import common
from twinrank.asking import LONGEST_QUERY
from twinrank.collection import Collection
from twinrank.errors import InputError
from twinrank.models.biencoder import BiEncoder
from twinrank.models.hub import DEFAULT_MODEL
from twinrank.models.twintower import TwinTower
from twinrank.recipe import Recipe
from twinrank.types import Document

try:
    from mteb.models import ModelMeta
    from mteb.types import PromptType
except ImportError as error:
    raise common.missing("MTEB", "mteb") from error


class TwinrankRetriever:
    """A recipe as MTEB's SearchProtocol: `mteb.evaluate(TwinrankRetriever("hybrid"), mteb.get_tasks(["SciFact"]))`.

    `recipe` is a Recipe, a TOML file or a built-in name, `model` replaces its encoder; `name` is what results are kept under.
    A task's corpus becomes a collection in a temporary directory, or below `folder`, where the next run finds it encoded.
    """

    def __init__(
        self,
        recipe: Recipe | common.Place = "hybrid",
        *,
        model: str | None = None,
        name: str = "",
        folder: common.Place | None = None,
    ) -> None:
        loaded = recipe if isinstance(recipe, Recipe) else Recipe.load(Path(recipe))
        self.recipe = loaded if model is None else loaded.with_model(model)
        self.name = name or ("recipe" if isinstance(recipe, Recipe) else Path(recipe).stem)
        self.folder = None if folder is None else Path(folder)
        self.collection: Collection | None = None
        self._ids: list[str] = []
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    @property
    def mteb_model_meta(self) -> ModelMeta:
        words_alone = self.recipe.encoder.model == "none"
        return _meta(f"twinrank/{self.name}", model_type=["sparse" if words_alone else "hybrid"])

    def index(self, corpus: Any, *, task_metadata: Any, hf_split: str, hf_subset: str, **_: Any) -> None:
        """Make the collection of a task; a document without title and text cannot be found and is left out."""
        self.close()
        self._temporary = tempfile.TemporaryDirectory() if self.folder is None else None
        above = Path(self._temporary.name) if self._temporary else self.folder
        assert above is not None
        place = re.sub(r"[^\w.-]", "_", f"{task_metadata.name}-{hf_subset}-{hf_split}")
        self.collection = Collection(above / place, recipe=self.recipe)
        self._ids = [str(identity) for identity in corpus["id"]]
        # By their places, because a collection normalises ids, and MTEB's are to come back as they were.
        documents = (Document(str(place), row.get("text") or "", row.get("title") or "") for place, row in enumerate(corpus))
        self.collection.add(one for one in documents if one.text.strip() or one.title.strip())

    def search(
        self, queries: Any, *, top_k: int, top_ranked: Mapping[str, list[str]] | None = None, **_: Any
    ) -> dict[str, dict[str, float]]:
        """The `top_k` best documents of each query, of those in `top_ranked` alone where a reranking task gives them."""
        if self.collection is None:
            raise InputError("there is nothing to search yet: call index with the task's corpus first")
        places = {identity: place for place, identity in enumerate(self._ids)}
        results: dict[str, dict[str, float]] = {}
        for row in queries:
            text, identity = _query(row), str(row["id"])
            results[identity] = {}
            where = None
            if top_ranked is not None:
                where = common.compare("id", "in", [str(places[one]) for one in top_ranked.get(identity, ())])
            if text:
                hits = self.collection.search(text, top_k, where=where)
                for hit in hits:  # the best passage of a document comes first, and stays
                    results[identity].setdefault(self._ids[int(hit.id)], hit.score)
        return results

    def close(self) -> None:
        """Close the collection, and remove it where it was temporary."""
        if self.collection is not None:
            self.collection.close()
            self.collection = None
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None


class TwinrankEncoder:
    """An encoder as MTEB's EncoderProtocol: `mteb.evaluate(TwinrankEncoder(), mteb.get_tasks(["STSBenchmark"]))`.

    `model` is the name or folder of a bi-encoder or a twin tower, or an opened one.
    """

    def __init__(
        self, model: BiEncoder | TwinTower | common.Place = DEFAULT_MODEL, revision: str | None = None, **_: Any
    ) -> None:
        opened = common.open_encoder(model)
        assert isinstance(opened, (BiEncoder, TwinTower))
        self.encoder = opened
        self.revision = revision

    @property
    def mteb_model_meta(self) -> ModelMeta:
        encoder = self.encoder
        return _meta(encoder.name, embed_dim=encoder.dimension, max_tokens=encoder.max_tokens, revision=self.revision)

    def encode(
        self, inputs: Iterable[Mapping[str, Any]], *, prompt_type: PromptType | None = None, **_: Any
    ) -> npt.NDArray[Any]:
        """Vectors (texts, dimension); whatever is no query is encoded as a document."""
        side = "query" if prompt_type == PromptType.query else "document"
        return self.encoder.encode(_texts(inputs), side=side)  # type: ignore[arg-type]

    def similarity(self, embeddings1: npt.ArrayLike, embeddings2: npt.ArrayLike) -> npt.NDArray[Any]:
        first, second = (np.atleast_2d(np.asarray(given, np.float32)) for given in (embeddings1, embeddings2))
        return self.encoder.similarity(first, second)  # (first, second)

    def similarity_pairwise(self, embeddings1: npt.ArrayLike, embeddings2: npt.ArrayLike) -> npt.NDArray[Any]:
        pairs = zip(np.asarray(embeddings1, np.float32), np.asarray(embeddings2, np.float32), strict=True)
        return np.array([self.encoder.similarity(one, other)[0, 0] for one, other in pairs], np.float32)  # (pairs,)


class TwinrankReranker:
    """A scorer of pairs as MTEB's CrossEncoderProtocol, for its reranking tasks.

    `model` is the name or folder of a cross-encoder, a ColBERT or a bi-encoder, or an opened one.
    """

    def __init__(self, model: common.PairScorer | common.Place, revision: str | None = None, **_: Any) -> None:
        self.scorer = common.open_scorer(model)
        self.revision = revision

    @property
    def mteb_model_meta(self) -> ModelMeta:
        return _meta(self.scorer.name, model_type=["cross-encoder"], revision=self.revision)

    def predict(
        self, inputs1: Iterable[Mapping[str, Any]], inputs2: Iterable[Mapping[str, Any]], **_: Any
    ) -> npt.NDArray[np.float32]:
        """The score of each pair: (pairs,)."""
        return self.scorer.score(list(zip(_texts(inputs1), _texts(inputs2), strict=True)))


def _meta(name: str, **known: Any) -> ModelMeta:
    """What MTEB keeps results under: organisation/name and a revision."""
    organised = name if re.fullmatch(r"[^/]+/[^/]+", name) else f"twinrank/{Path(name).name}"
    return ModelMeta.create_empty({"name": organised, **known, "revision": known.get("revision") or f"twinrank-{__version__}"})


def _texts(batches: Iterable[Mapping[str, Any]]) -> list[str]:
    return [str(text) for batch in batches for text in batch["text"]]


def _query(row: Mapping[str, Any]) -> str:
    """A query with its instruction behind it, as MTEB puts them together."""
    text = row["text"]
    if not isinstance(text, str):
        raise InputError(f"query {row['id']} is a {type(text).__name__}; a collection is asked with a text")
    return f"{text} {row.get('instruction') or ''}".strip()[:LONGEST_QUERY]
