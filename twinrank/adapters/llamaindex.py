"""LlamaIndex: a collection as a retriever, an encoder as an embedding, a cross-encoder or MaxSim as a node postprocessor."""

from __future__ import annotations

import asyncio
from typing import Any

from twinrank.adapters import common
from twinrank.collection import Collection
from twinrank.errors import FilterError, InputError
from twinrank.models.hub import DEFAULT_MODEL

try:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.bridge.pydantic import Field, PrivateAttr
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.retrievers import BaseRetriever
    from llama_index.core.schema import MetadataMode, NodeRelationship, NodeWithScore, QueryBundle, RelatedNodeInfo, TextNode
    from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters
except ImportError as error:
    raise common.missing("LlamaIndex", "llamaindex") from error

FOR_NO_MODEL = ["id", "score", "rank", "start", "end", "probability", "part"]
"""What of a node's metadata is not shown to a language model or an encoder."""


class TwinrankRetriever(BaseRetriever):
    """Nodes of a collection: `TwinrankRetriever("papers.twinrank", k=5).retrieve("does zinc help?")`.

    `collection` is an opened one or its directory; the other options are those of `Collection.search`. `filters` (LlamaIndex's
    MetadataFilters) hold beside `where`. A node is the best passage of a document, to which it refers as its source.
    """

    def __init__(
        self,
        collection: Collection | common.Place,
        *,
        k: int = 10,
        where: str | None = None,
        filters: MetadataFilters | None = None,
        deadline: float | None = None,
        min_probability: float | None = None,
        risk: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.collection = common.open_collection(collection)
        self.k = k
        self.where = common.join("and", [where or "", "" if filters is None else where_of(filters)]) or None
        self.options = {"deadline": deadline, "min_probability": min_probability, "risk": risk}

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        hits = self.collection.search(query_bundle.query_str, self.k, where=self.where, **self.options)
        nodes = []
        for hit, identity in zip(hits, common.passage_ids(hits), strict=True):
            node = TextNode(
                id_=identity,
                text=hit.text,
                metadata=common.metadata(hit),
                start_char_idx=hit.start,
                end_char_idx=hit.end,
                excluded_llm_metadata_keys=FOR_NO_MODEL,
                excluded_embed_metadata_keys=FOR_NO_MODEL,
                relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=hit.id)},
            )
            nodes.append(NodeWithScore(node=node, score=hit.score))
        return nodes

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)


class TwinrankEmbedding(BaseEmbedding):
    """Vectors of queries and texts: `TwinrankEmbedding().get_query_embedding("a cold")`, by the default encoder or another.

    `model` is a checkpoint's name or folder, or an opened BiEncoder or TwinTower.
    """

    _encoder: common.TextEncoder = PrivateAttr()

    def __init__(self, model: common.TextEncoder | common.Place = DEFAULT_MODEL, **options: Any) -> None:
        # What is read back from `to_dict` has the model's name in place of `model`.
        encoder = common.open_encoder(options.pop("model_name", model))
        super().__init__(model_name=encoder.name, **options)
        self._encoder = encoder

    @classmethod
    def class_name(cls) -> str:
        return "TwinrankEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        vector: list[float] = self._encoder.encode([query], side="query")[0].tolist()
        return vector

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = self._encoder.encode(texts).tolist()
        return vectors

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)


class TwinrankReranker(BaseNodePostprocessor):
    """Nodes that anything has found, the best first: for the `node_postprocessors` of a query engine.

    `model` is a cross-encoder's, a ColBERT's or a bi-encoder's name or folder, or an opened one. `k` nodes are kept, or all,
    with the model's scores. The title is read with the text, where the metadata has one under `title_key`.
    """

    model_name: str
    k: int | None = Field(default=None, ge=1)
    title_key: str = "title"
    _scorer: common.PairScorer = PrivateAttr()

    def __init__(self, model: common.PairScorer | common.Place | None = None, **options: Any) -> None:
        given = options.pop("model_name", model)
        if given is None:
            raise InputError("a reranker has a model: the name or folder of a cross-encoder, a ColBERT or a bi-encoder")
        scorer = common.open_scorer(given)
        super().__init__(model_name=scorer.name, **options)
        self._scorer = scorer

    @classmethod
    def class_name(cls) -> str:
        return "TwinrankReranker"

    def _postprocess_nodes(self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None) -> list[NodeWithScore]:
        if query_bundle is None:
            raise ValueError("a reranker needs the query: give postprocess_nodes a query_bundle or a query_str")
        texts = [common.titled(one.node.get_content(MetadataMode.NONE), one.node.metadata, self.title_key) for one in nodes]
        scores = self._scorer.score([(query_bundle.query_str, text) for text in texts])
        return [
            NodeWithScore(node=nodes[place].node, score=float(scores[place])) for place in common.best_first(scores, self.k)
        ]


# -- filters -------------------------------------------------------------------------------------------------------------


def where_of(filters: MetadataFilters) -> str:
    """LlamaIndex's filters as a `where` expression, with its meaning: a comparison by != holds where the field is missing."""
    parts = [where_of(one) if isinstance(one, MetadataFilters) else _comparison(one) for one in filters.filters]
    condition = getattr(filters.condition, "value", filters.condition)
    if condition == "not":
        joined = common.join("or", parts)
        return common.negate(joined) if joined else ""
    return common.join(condition or "and", parts)


def _comparison(one: MetadataFilter) -> str:
    operator, value = one.operator.value, one.value
    if operator in (">", "<", ">=", "<="):
        return common.compare(one.key, operator, value)
    if operator in ("==", "contains"):  # a field of several values meets a comparison if any of them does
        return common.compare(one.key, "=", value)
    if operator == "!=":
        return common.negate(common.compare(one.key, "=", value))
    if operator in ("in", "any"):
        return common.compare(one.key, "in", value)
    if operator == "nin":
        return common.negate(common.compare(one.key, "in", value))
    if operator == "all" and isinstance(value, list):
        return common.join("and", [common.compare(one.key, "=", each) for each in value])
    if operator == "is_empty":
        return common.join("or", [common.is_null(one.key), common.compare(one.key, "=", "")])
    if operator == "text_match_insensitive" and isinstance(value, str) and not {"%", "_"} & set(value):
        return common.compare(one.key, "like", f"%{value}%")
    raise FilterError(f"a filter {operator} {value!r} over {one.key} cannot be told to a collection; `where` takes conditions")
