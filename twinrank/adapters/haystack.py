"""Haystack: a collection as a retriever, an encoder as text and document embedders, a cross-encoder or MaxSim as a ranker.

A pipeline that was written down is read back by naming this module as trusted:
`Pipeline.loads(text, allowed_modules=["twinrank.adapters.haystack"])`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from twinrank.adapters import common
from twinrank.collection import Collection
from twinrank.errors import FilterError
from twinrank.models.hub import DEFAULT_MODEL

try:
    from haystack import Document, component, default_to_dict
except ImportError as error:
    raise common.missing("Haystack", "haystack") from error


@component
class TwinrankRetriever:
    """Documents of a collection: `TwinrankRetriever("papers.twinrank", top_k=5).run(query="does zinc help?")["documents"]`.

    `collection` is an opened one or its directory, which is opened when the pipeline warms up; the other options are those of
    `Collection.search`. `filters` are Haystack's; those of a run take the place of these, `where` always holds. A document's
    content is the best passage.
    """

    def __init__(
        self,
        collection: Collection | common.Place,
        *,
        top_k: int = 10,
        where: str | None = None,
        filters: dict[str, Any] | None = None,
        deadline: float | None = None,
        min_probability: float | None = None,
        risk: float | None = None,
    ) -> None:
        self.collection = collection
        self.top_k = top_k
        self.where = where
        self.filters = filters
        self.options = {"deadline": deadline, "min_probability": min_probability, "risk": risk}

    def warm_up(self) -> None:
        self.collection = common.open_collection(self.collection)

    def to_dict(self) -> dict[str, Any]:
        place = self.collection.path if isinstance(self.collection, Collection) else self.collection
        settings = {"top_k": self.top_k, "where": self.where, "filters": self.filters, **self.options}
        serialized: dict[str, Any] = default_to_dict(self, collection=os.fspath(place), **settings)
        return serialized

    @component.output_types(documents=list[Document])
    def run(self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None) -> dict[str, Any]:
        self.warm_up()
        assert isinstance(self.collection, Collection)
        chosen = self.filters if filters is None else filters
        where = common.join("and", [self.where or "", where_of(chosen) if chosen else ""]) or None
        hits = self.collection.search(query, self.top_k if top_k is None else top_k, where=where, **self.options)
        return {
            "documents": [
                Document(id=identity, content=hit.text, meta=common.metadata(hit), score=hit.score)
                for hit, identity in zip(hits, common.passage_ids(hits), strict=True)
            ]
        }

    @component.output_types(documents=list[Document])
    async def run_async(self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None) -> dict[str, Any]:
        return await asyncio.to_thread(self.run, query, filters, top_k)


@component
class TwinrankTextEmbedder:
    """The vector of a query: `TwinrankTextEmbedder().run(text="a cold")["embedding"]`; the default encoder where none is named.

    `model` is the name or folder of a bi-encoder or a twin tower, opened when the pipeline warms up.
    """

    def __init__(self, model: str = DEFAULT_MODEL) -> None:
        self.model = os.fspath(model)
        self._encoder: common.TextEncoder | None = None

    def warm_up(self) -> None:
        self._encoder = self._encoder or common.open_encoder(self.model)

    def to_dict(self) -> dict[str, Any]:
        serialized: dict[str, Any] = default_to_dict(self, model=self.model)
        return serialized

    @component.output_types(embedding=list[float], meta=dict[str, Any])
    def run(self, text: str) -> dict[str, Any]:
        self.warm_up()
        assert self._encoder is not None
        return {"embedding": self._encoder.encode([text], side="query")[0].tolist(), "meta": {"model": self._encoder.name}}

    @component.output_types(embedding=list[float], meta=dict[str, Any])
    async def run_async(self, text: str) -> dict[str, Any]:
        return await asyncio.to_thread(self.run, text)


@component
class TwinrankDocumentEmbedder:
    """Documents with their vectors: `TwinrankDocumentEmbedder().run(documents=[…])["documents"][0].embedding`.

    `model` as in TwinrankTextEmbedder. The title is read with the content, where the meta data has one under `title_key`.
    """

    def __init__(self, model: str = DEFAULT_MODEL, *, title_key: str = "title") -> None:
        self.model = os.fspath(model)
        self.title_key = title_key
        self._encoder: common.TextEncoder | None = None

    def warm_up(self) -> None:
        self._encoder = self._encoder or common.open_encoder(self.model)

    def to_dict(self) -> dict[str, Any]:
        serialized: dict[str, Any] = default_to_dict(self, model=self.model, title_key=self.title_key)
        return serialized

    @component.output_types(documents=list[Document], meta=dict[str, Any])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        self.warm_up()
        assert self._encoder is not None
        vectors = self._encoder.encode([_text(one, self.title_key) for one in documents])  # (documents, dimension)
        embedded = [replace(one, embedding=vector.tolist()) for one, vector in zip(documents, vectors, strict=True)]
        return {"documents": embedded, "meta": {"model": self._encoder.name}}

    @component.output_types(documents=list[Document], meta=dict[str, Any])
    async def run_async(self, documents: list[Document]) -> dict[str, Any]:
        return await asyncio.to_thread(self.run, documents)


@component
class TwinrankReranker:
    """Documents that anything has found, the best first: `TwinrankReranker(model).run(query="…", documents=[…])["documents"]`.

    `model` is the name or folder of a cross-encoder, a ColBERT or a bi-encoder, opened when the pipeline warms up. `top_k`
    documents are kept, or all, with the model's scores. The title is read as in TwinrankDocumentEmbedder.
    """

    def __init__(self, model: str, *, top_k: int | None = None, title_key: str = "title") -> None:
        self.model = os.fspath(model)
        self.top_k = top_k
        self.title_key = title_key
        self._scorer: common.PairScorer | None = None

    def warm_up(self) -> None:
        self._scorer = self._scorer or common.open_scorer(self.model)

    def to_dict(self) -> dict[str, Any]:
        serialized: dict[str, Any] = default_to_dict(self, model=self.model, top_k=self.top_k, title_key=self.title_key)
        return serialized

    @component.output_types(documents=list[Document])
    def run(self, query: str, documents: list[Document], top_k: int | None = None) -> dict[str, Any]:
        self.warm_up()
        assert self._scorer is not None
        scores = self._scorer.score([(query, _text(one, self.title_key)) for one in documents])
        best = common.best_first(scores, self.top_k if top_k is None else top_k)
        return {"documents": [replace(documents[place], score=float(scores[place])) for place in best]}

    @component.output_types(documents=list[Document])
    async def run_async(self, query: str, documents: list[Document], top_k: int | None = None) -> dict[str, Any]:
        return await asyncio.to_thread(self.run, query, documents, top_k)


def _text(document: Document, title_key: str) -> str:
    return common.titled(document.content or "", document.meta, title_key)


# -- filters -------------------------------------------------------------------------------------------------------------


def where_of(filters: Mapping[str, Any]) -> str:
    """Haystack's filters as a `where` expression, with its meaning: a comparison by != holds where the field is missing.

    >>> where_of({"field": "meta.year", "operator": ">=", "value": 2015})
    '`year` >= 2015'
    """
    if "field" in filters:
        return _comparison(filters)
    operator, conditions = filters.get("operator"), filters.get("conditions")
    if operator not in ("AND", "OR", "NOT") or not isinstance(conditions, list):
        raise FilterError(f"a filter has a field, or an operator AND, OR or NOT with conditions; got {dict(filters)!r}")
    joined = common.join("or" if operator == "OR" else "and", [where_of(one) for one in conditions])
    return common.negate(joined) if operator == "NOT" and joined else joined


def _comparison(filters: Mapping[str, Any]) -> str:
    field, operator, value = str(filters["field"]).removeprefix("meta."), filters.get("operator"), filters.get("value")
    if value is None and operator in ("==", "!="):
        return common.is_null(field) if operator == "==" else common.negate(common.is_null(field))
    if value is None and operator in (">", ">=", "<", "<="):
        return common.nothing()
    if operator in (">", ">=", "<", "<="):
        return common.compare(field, operator, value)
    if operator in ("==", "!="):
        same = common.compare(field, "=", value)
        return same if operator == "==" else common.negate(same)
    if operator in ("in", "not in"):
        among = common.compare(field, "in", value)
        return among if operator == "in" else common.negate(among)
    raise FilterError(f"unknown operator {operator!r} over {field}; Haystack has ==, !=, >, >=, <, <=, in and not in")
