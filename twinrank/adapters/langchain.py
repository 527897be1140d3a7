"""LangChain: a collection as a retriever, an encoder as embeddings, a cross-encoder or MaxSim as a document compressor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twinrank.adapters import common
from twinrank.collection import Collection
from twinrank.models.hub import DEFAULT_MODEL

try:
    from langchain_core.callbacks import CallbackManagerForRetrieverRun, Callbacks
    from langchain_core.documents import BaseDocumentCompressor, Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.retrievers import BaseRetriever
    from pydantic import ConfigDict, Field, field_validator
except ImportError as error:
    raise common.missing("LangChain", "langchain") from error


class TwinrankRetriever(BaseRetriever):
    """Documents of a collection: `TwinrankRetriever(collection="papers.twinrank", k=5).invoke("does zinc help?")`.

    `collection` is an opened one or its directory; the other options are those of `Collection.search`, and each of them may
    be given with a call too: `invoke(query, where="year >= 2015")`. A document's `page_content` is the best passage.
    """

    collection: Any
    k: int = 10
    where: str | None = None
    deadline: float | None = None
    min_probability: float | None = None
    risk: float | None = None

    @field_validator("collection", mode="before")
    @classmethod
    def _open(cls, given: Any) -> Collection:
        return common.open_collection(given)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **options: Any
    ) -> list[Document]:
        asked = {name: getattr(self, name) for name in ("k", "where", "deadline", "min_probability", "risk")}
        hits = self.collection.search(query, **{**asked, **options})
        return [
            Document(page_content=hit.text, metadata=common.metadata(hit), id=identity)
            for hit, identity in zip(hits, common.passage_ids(hits), strict=True)
        ]


class TwinrankEmbeddings(Embeddings):
    """Vectors of queries and documents: `TwinrankEmbeddings().embed_query("a cold")`, by the default encoder or another.

    `model` is a checkpoint's name or folder, or an opened BiEncoder or TwinTower.
    """

    def __init__(self, model: common.TextEncoder | common.Place = DEFAULT_MODEL) -> None:
        self.encoder = common.open_encoder(model)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = self.encoder.encode(texts).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        vector: list[float] = self.encoder.encode([text], side="query")[0].tolist()
        return vector


class TwinrankReranker(BaseDocumentCompressor):
    """Documents that anything has found, the best first: for a ContextualCompressionRetriever.

    `model` is a cross-encoder's, a ColBERT's or a bi-encoder's name or folder, or an opened one. `k` documents are kept, or
    all; their metadata has a `relevance_score`. The title is read with the text, where the metadata has one under `title_key`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    model: Any = Field(exclude=True)
    k: int | None = Field(default=None, ge=1)
    title_key: str = "title"

    @field_validator("model", mode="before")
    @classmethod
    def _open(cls, given: Any) -> common.PairScorer:
        return common.open_scorer(given)

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        pairs = [(query, common.titled(one.page_content, one.metadata, self.title_key)) for one in documents]
        scores = self.model.score(pairs)
        return [
            documents[place].model_copy(
                update={"metadata": {**documents[place].metadata, "relevance_score": float(scores[place])}}
            )
            for place in common.best_first(scores, self.k)
        ]
