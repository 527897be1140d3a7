"""The adapter for Haystack against haystack-ai itself, within pipelines that are written down and read back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from twinrank import BiEncoder, Collection, CrossEncoder
from twinrank.errors import FilterError

pytest.importorskip("haystack", reason="haystack-ai is not installed: pip install 'twinrank[haystack]'")

from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.utils.filters import document_matches_filter

from twinrank.adapters.haystack import (
    TwinrankDocumentEmbedder,
    TwinrankReranker,
    TwinrankRetriever,
    TwinrankTextEmbedder,
    where_of,
)

MODULES = ["twinrank.adapters.haystack"]
"""Haystack reads back only what is named as trusted."""
QUERY = "what helps against a cold?"


def test_a_retriever_gives_what_the_collection_finds(remedies: Collection) -> None:
    found = TwinrankRetriever(remedies).run(query=QUERY)["documents"]
    hits = remedies.search(QUERY)
    assert [(one.id, one.score, one.content) for one in found] == [(hit.id, hit.score, hit.text) for hit in hits]
    assert next(one for one in found if one.id == "zinc").meta["year"] == 2021


def test_filters_of_a_run_take_the_place_of_the_retrievers_and_its_condition_stays(remedies: Collection) -> None:
    recent = {"field": "meta.year", "operator": ">", "value": 2020}
    retriever = TwinrankRetriever(remedies, where="year > 2015", filters=recent)
    assert [one.id for one in retriever.run(query=QUERY)["documents"]] == ["zinc"]
    older = {"field": "meta.year", "operator": "<", "value": 2020}
    assert [one.id for one in retriever.run(query=QUERY, filters=older)["documents"]] == ["rest"]
    assert len(TwinrankRetriever(remedies).run(query=QUERY, top_k=2)["documents"]) == 2


def both(*conditions: dict[str, Any], operator: str = "AND") -> dict[str, Any]:
    return {"operator": operator, "conditions": list(conditions)}


def one(field: str, operator: str, value: object) -> dict[str, Any]:
    return {"field": field, "operator": operator, "value": value}


@pytest.mark.parametrize(
    "filters",
    [
        one("meta.year", "==", 2021),
        one("meta.year", "!=", 2021),
        one("meta.year", ">=", 2018),
        one("meta.year", "<", 2018),
        one("meta.year", "in", [2012, 2021]),
        one("meta.year", "not in", [2012, 2021]),
        one("meta.year", "==", None),
        one("meta.year", "!=", None),
        one("meta.year", ">", None),
        one("meta.lang", "==", "ga"),
        one("id", "==", "o'hara"),
        one("meta.title", "==", "O'Hara's tea"),
        both(one("meta.year", ">", 2011), one("meta.year", "<", 2020)),
        both(one("meta.year", "==", 2021), one("meta.lang", "==", "ga"), operator="OR"),
        both(one("meta.year", "==", 2021), one("meta.lang", "==", "ga"), operator="NOT"),
        both(one("meta.year", "==", 2012), one("meta.lang", "==", "en"), operator="NOT"),
        both(both(one("meta.year", "==", 2012), one("meta.year", "==", 2021), operator="OR"), one("meta.lang", "!=", "en")),
    ],
)
def test_a_filter_lets_through_what_it_does_in_haystack(remedies: Collection, filters: dict[str, Any]) -> None:
    everything = TwinrankRetriever(remedies).run(query="cold")["documents"]
    ours = TwinrankRetriever(remedies, filters=filters).run(query="cold")["documents"]
    assert {each.id for each in ours} == {each.id for each in everything if document_matches_filter(filters, each)}


@pytest.mark.parametrize("filters", [{}, {"operator": "XOR", "conditions": []}, one("year", "like", "x"), one("a", "in", "x")])
def test_a_filter_that_haystack_does_not_know_is_refused(filters: dict[str, Any]) -> None:
    with pytest.raises(FilterError):
        where_of(filters)


def test_the_embedders_give_the_encoders_vectors(tiny_model: Path, encoder: BiEncoder) -> None:
    embedding = TwinrankTextEmbedder(str(tiny_model)).run(text="a cold")
    assert embedding["embedding"] == encoder.encode(["a cold"], side="query")[0].tolist()
    assert embedding["meta"] == {"model": encoder.name}
    given = [Document(content="may shorten a cold", meta={"title": "Zinc"}), Document(content="Honey")]
    found = TwinrankDocumentEmbedder(str(tiny_model)).run(documents=given)["documents"]
    expected = encoder.encode(["Zinc may shorten a cold", "Honey"])
    np.testing.assert_array_equal(np.array([each.embedding for each in found], np.float32), expected)
    assert given[0].embedding is None
    assert TwinrankDocumentEmbedder(str(tiny_model)).run(documents=[])["documents"] == []


def test_a_reranker_orders_by_the_models_scores(tiny_cross_encoder: Path, scorer: CrossEncoder) -> None:
    texts = ["Zinc may shorten a cold.", "a piece of bread", "does zinc help?"]
    given = [Document(id=str(place), content=text) for place, text in enumerate(texts)]
    reranker = TwinrankReranker(str(tiny_cross_encoder), top_k=2)
    kept = reranker.run(query="zinc", documents=given)["documents"]
    assert [(each.id, each.score) for each in kept] == [(hit.id, hit.score) for hit in scorer.rank("zinc", texts, k=2)]
    assert len(reranker.run(query="zinc", documents=given, top_k=3)["documents"]) == 3
    assert reranker.run(query="zinc", documents=[])["documents"] == []


def test_a_pipeline_is_written_down_and_read_back(remedies: Collection, tiny_cross_encoder: Path) -> None:
    pipeline = Pipeline()
    pipeline.add_component("retriever", TwinrankRetriever(remedies, top_k=3, where="year > 2000"))
    pipeline.add_component("reranker", TwinrankReranker(str(tiny_cross_encoder), top_k=2))
    pipeline.connect("retriever.documents", "reranker.documents")
    asked = {"retriever": {"query": QUERY}, "reranker": {"query": QUERY}}
    expected = pipeline.run(asked)
    assert len(expected["reranker"]["documents"]) == 2
    read = Pipeline.loads(pipeline.dumps(), allowed_modules=MODULES)
    assert read.run(asked) == expected
    read.get_component("retriever").collection.close()


def test_a_pipeline_that_was_read_back_opens_nothing_before_it_runs(tmp_path: Path) -> None:
    pipeline = Pipeline()
    pipeline.add_component("retriever", TwinrankRetriever(tmp_path / "nowhere"))
    pipeline.add_component("embedder", TwinrankTextEmbedder(str(tmp_path / "no model")))
    pipeline.add_component("documents", TwinrankDocumentEmbedder(str(tmp_path / "no model"), title_key=""))
    assert Pipeline.loads(pipeline.dumps(), allowed_modules=MODULES).dumps() == pipeline.dumps()


def test_a_dense_pipeline_of_haystack_takes_the_embedders(tiny_model: Path) -> None:
    store = InMemoryDocumentStore()
    documents = [Document(content="a piece of bread"), Document(content="Zinc")]
    store.write_documents(TwinrankDocumentEmbedder(str(tiny_model)).run(documents=documents)["documents"])
    pipeline = Pipeline()
    pipeline.add_component("embedder", TwinrankTextEmbedder(str(tiny_model)))
    pipeline.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=1))
    pipeline.connect("embedder.embedding", "retriever.query_embedding")
    assert pipeline.run({"embedder": {"text": "Zinc"}})["retriever"]["documents"][0].content == "Zinc"


def test_the_components_are_awaited(remedies: Collection, tiny_model: Path, tiny_cross_encoder: Path) -> None:
    retriever, reranker = TwinrankRetriever(remedies), TwinrankReranker(str(tiny_cross_encoder))
    found = asyncio.run(retriever.run_async(query=QUERY))
    assert found == retriever.run(query=QUERY)
    documents = found["documents"]
    assert asyncio.run(reranker.run_async(query=QUERY, documents=documents)) == reranker.run(query=QUERY, documents=documents)
    for embedder, given in (
        (TwinrankTextEmbedder(str(tiny_model)), {"text": "Zinc"}),
        (TwinrankDocumentEmbedder(str(tiny_model)), {"documents": documents}),
    ):
        assert asyncio.run(embedder.run_async(**given)) == embedder.run(**given)
