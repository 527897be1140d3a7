"""The adapter for LlamaIndex against llama-index-core itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from twinrank import BiEncoder, Collection, CrossEncoder, Recipe
from twinrank.errors import FilterError, InputError

pytest.importorskip("llama_index.core", reason="llama-index-core is not installed: pip install 'twinrank[llamaindex]'")

from llama_index.core import VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import MetadataMode, NodeWithScore, TextNode
from llama_index.core.vector_stores.types import FilterOperator, MetadataFilter, MetadataFilters
from llama_index.core.vector_stores.utils import build_metadata_filter_fn

from twinrank.adapters.llamaindex import TwinrankEmbedding, TwinrankReranker, TwinrankRetriever, where_of

QUERY = "what helps against a cold?"


def test_a_retriever_gives_what_the_collection_finds(remedies: Collection) -> None:
    nodes = TwinrankRetriever(remedies).retrieve(QUERY)
    hits = remedies.search(QUERY)
    assert [one.node.node_id for one in nodes] == [hit.id for hit in hits]
    assert [one.node.ref_doc_id for one in nodes] == [hit.id for hit in hits]
    assert [one.score for one in nodes] == [hit.score for hit in hits]
    assert [one.node.get_content() for one in nodes] == [hit.text for hit in hits]
    assert next(one for one in nodes if one.node_id == "zinc").metadata["year"] == 2021


def test_a_language_model_is_shown_the_fields_and_not_the_numbers_of_the_search(remedies: Collection) -> None:
    (node,) = TwinrankRetriever(remedies, where="year = 2021").retrieve(QUERY)
    shown = node.node.get_content(MetadataMode.LLM)
    assert "year: 2021" in shown
    assert "title: Zinc" in shown
    assert "score" not in shown


def test_a_condition_and_filters_hold_together(remedies: Collection) -> None:
    filters = MetadataFilters(filters=[MetadataFilter(key="year", operator=FilterOperator.LT, value=2020)])
    nodes = TwinrankRetriever(remedies, where="year > 2015", filters=filters).retrieve(QUERY)
    assert [one.node_id for one in nodes] == ["rest"]
    assert len(TwinrankRetriever(remedies, k=2).retrieve(QUERY)) == 2


def test_a_retriever_is_awaited(remedies: Collection) -> None:
    retriever = TwinrankRetriever(str(remedies.path))
    assert asyncio.run(retriever.aretrieve(QUERY)) == retriever.retrieve(QUERY)
    retriever.collection.close()


def test_a_query_engine_runs_over_it(remedies: Collection, scorer: CrossEncoder) -> None:
    engine = RetrieverQueryEngine.from_args(
        TwinrankRetriever(remedies), llm=MockLLM(), node_postprocessors=[TwinrankReranker(scorer, k=2)]
    )
    answer = engine.query(QUERY)
    assert len(answer.source_nodes) == 2
    assert all(isinstance(one.score, float) for one in answer.source_nodes)


@pytest.mark.parametrize(
    ("key", "operator", "value"),
    [
        ("year", "==", 2021),
        ("year", "!=", 2021),
        ("year", ">", 2012),
        ("year", "<=", 2018),
        ("year", "in", [2012, 2018]),
        ("year", "nin", [2012, 2018]),
        ("tags", "contains", "mineral"),
        ("tags", "any", ["mineral", "nothing"]),
        ("tags", "all", ["mineral", "cold"]),
        ("lang", "==", "ga"),
        ("lang", "is_empty", None),
        ("title", "text_match_insensitive", "O'HARA"),
    ],
)
def test_a_filter_lets_through_what_it_does_in_llamaindex(remedies: Collection, key: str, operator: str, value: object) -> None:
    filters = MetadataFilters(filters=[MetadataFilter(key=key, operator=FilterOperator(operator), value=value)])
    everything = {one.node_id: one.metadata for one in TwinrankRetriever(remedies).retrieve("cold")}
    theirs = build_metadata_filter_fn(everything.__getitem__, filters)
    ours = TwinrankRetriever(remedies, filters=filters).retrieve("cold")
    assert {one.node_id for one in ours} == {identity for identity in everything if theirs(identity)}


@pytest.mark.parametrize("condition", ["and", "or", "not"])
def test_filters_are_put_together_as_in_llamaindex(remedies: Collection, condition: str) -> None:
    filters = MetadataFilters(
        filters=[MetadataFilter(key="year", value=2021), MetadataFilter(key="tags", operator="contains", value="cold")],
        condition=condition,
    )
    everything = {one.node_id: one.metadata for one in TwinrankRetriever(remedies).retrieve("cold")}
    theirs = build_metadata_filter_fn(everything.__getitem__, filters)
    ours = TwinrankRetriever(remedies, filters=filters).retrieve("cold")
    assert {one.node_id for one in ours} == {identity for identity in everything if theirs(identity)}


def test_filters_within_filters_are_taken_and_unknown_ones_refused() -> None:
    inner = MetadataFilters(filters=[MetadataFilter(key="a", value=1), MetadataFilter(key="b", value=2)], condition="or")
    outer = MetadataFilters(filters=[inner, MetadataFilter(key="c", value=3)])
    assert where_of(outer) == "((`a` = 1) or (`b` = 2)) and (`c` = 3)"
    assert where_of(MetadataFilters(filters=[])) == ""
    case = MetadataFilters(filters=[MetadataFilter(key="a", operator="text_match", value="Zinc")])
    with pytest.raises(FilterError, match="text_match"):
        where_of(case)


def test_an_embedding_gives_the_encoders_vectors(encoder: BiEncoder) -> None:
    embedding = TwinrankEmbedding(encoder)
    texts = ["Zinc shortens a cold.", "Honey", "Rest"]
    vectors = np.array(embedding.get_text_embedding_batch(texts), np.float32)
    np.testing.assert_array_equal(vectors, encoder.encode(texts))
    query = np.array(embedding.get_query_embedding("a cold"), np.float32)
    np.testing.assert_array_equal(query, encoder.encode(["a cold"], side="query")[0])
    assert asyncio.run(embedding.aget_query_embedding("a cold")) == embedding.get_query_embedding("a cold")
    assert asyncio.run(embedding.aget_text_embedding_batch(texts)) == embedding.get_text_embedding_batch(texts)
    assert asyncio.run(embedding.aget_text_embedding("Honey")) == embedding.get_text_embedding("Honey")


def test_an_index_of_llamaindex_takes_the_embedding(encoder: BiEncoder) -> None:
    index = VectorStoreIndex([TextNode(text="a piece of bread"), TextNode(text="Zinc")], embed_model=TwinrankEmbedding(encoder))
    assert index.as_retriever(similarity_top_k=1).retrieve("Zinc")[0].text == "Zinc"


def test_several_passages_of_one_document_are_several_nodes(make: Callable[..., Collection]) -> None:
    recipe = Recipe.parse('[encoder]\nmodel = "none"\n[passages]\nsize = 16\noverlap = 0\n[group]\nby = "none"\n')
    collection = make("passages", recipe=recipe)
    collection.add({"id": "long", "text": "Zinc may shorten a cold by a day or so, as some trials say. " * 8})
    nodes = TwinrankRetriever(collection).retrieve("does zinc shorten a cold")
    assert len(nodes) > 1  # LlamaIndex keeps one node of an id
    assert [one.node_id for one in nodes] == ["long", *(f"long%p{place}" for place in range(1, len(nodes)))]
    assert {one.node.ref_doc_id for one in nodes} == {"long"}


def test_an_embedding_is_written_down_and_read_back(tiny_model: Path) -> None:
    embedding = TwinrankEmbedding(tiny_model)
    read = TwinrankEmbedding.from_json(json.dumps({**json.loads(embedding.to_json()), "model_name": str(tiny_model)}))
    assert read.get_text_embedding("Zinc") == embedding.get_text_embedding("Zinc")


def test_a_reranker_orders_by_the_models_scores(scorer: CrossEncoder) -> None:
    texts = ["Zinc may shorten a cold.", "a piece of bread", "does zinc help?"]
    given = [NodeWithScore(node=TextNode(text=text, id_=str(place)), score=0.5) for place, text in enumerate(texts)]
    reranker = TwinrankReranker(scorer, k=2)
    kept = reranker.postprocess_nodes(given, query_str="zinc")
    assert [(one.node_id, one.score) for one in kept] == [(hit.id, hit.score) for hit in scorer.rank("zinc", texts, k=2)]
    assert [one.score for one in given] == [0.5] * 3
    assert asyncio.run(reranker.apostprocess_nodes(given, query_str="zinc")) == kept
    with pytest.raises(ValueError, match="needs the query"):
        reranker.postprocess_nodes(given)
    with pytest.raises(InputError, match="has a model"):
        TwinrankReranker()


def test_a_reranker_reads_the_title_unless_told_otherwise(scorer: CrossEncoder) -> None:
    given = [NodeWithScore(node=TextNode(text="may shorten a cold", metadata={"title": "Zinc", "year": 2021}))]
    (read,) = TwinrankReranker(scorer).postprocess_nodes(given, query_str="zinc")
    (unread,) = TwinrankReranker(scorer, title_key="").postprocess_nodes(given, query_str="zinc")
    scores = scorer.score([("zinc", "Zinc may shorten a cold"), ("zinc", "may shorten a cold")]).tolist()
    assert [read.score, unread.score] == scores
