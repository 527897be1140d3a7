"""The adapter for LangChain against langchain-core itself."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from twinrank import BiEncoder, Collection, CrossEncoder
from twinrank.errors import CollectionError, FilterError

pytest.importorskip("langchain_core", reason="langchain-core is not installed: pip install 'twinrank[langchain]'")

from langchain_core.documents import Document
from langchain_core.prompts import PromptTemplate, format_document
from langchain_core.runnables import RunnableLambda
from langchain_core.vectorstores import InMemoryVectorStore
from pydantic import ValidationError

from twinrank.adapters.langchain import TwinrankEmbeddings, TwinrankReranker, TwinrankRetriever

QUERY = "what helps against a cold?"


def test_a_retriever_gives_what_the_collection_finds(remedies: Collection) -> None:
    found = TwinrankRetriever(collection=remedies).invoke(QUERY)
    hits = remedies.search(QUERY)
    assert [one.id for one in found] == [hit.id for hit in hits]
    assert [one.page_content for one in found] == [hit.text for hit in hits]
    assert [one.metadata["score"] for one in found] == [hit.score for hit in hits]
    zinc = next(one for one in found if one.id == "zinc")
    assert (zinc.metadata["title"], zinc.metadata["year"], zinc.metadata["tags"]) == ("Zinc", 2021, ["cold", "mineral"])


def test_options_of_a_call_go_before_those_of_the_retriever(remedies: Collection) -> None:
    retriever = TwinrankRetriever(collection=remedies, k=1, where="year >= 2015")
    assert len(retriever.invoke(QUERY)) == 1
    assert {one.id for one in retriever.invoke(QUERY, k=4)} == {"zinc", "rest"}
    assert [one.id for one in retriever.invoke(QUERY, k=4, where="lang = 'en'")] == ["honey"]
    with pytest.raises(FilterError):
        retriever.invoke(QUERY, where="nonsense = 1")


def test_a_retriever_opens_a_directory_and_makes_none(remedies: Collection, tmp_path: Path) -> None:
    retriever = TwinrankRetriever(collection=str(remedies.path), k=2)
    assert len(retriever.invoke(QUERY)) == 2
    retriever.collection.close()
    with pytest.raises(CollectionError):
        TwinrankRetriever(collection=tmp_path / "nowhere")


def test_a_retriever_is_awaited_and_batched_like_any_runnable(remedies: Collection) -> None:
    retriever = TwinrankRetriever(collection=remedies, k=2)
    expected = retriever.invoke(QUERY)
    assert asyncio.run(retriever.ainvoke(QUERY)) == expected
    assert retriever.batch([QUERY, "tea"])[0] == expected
    chain = retriever | RunnableLambda(lambda found: "\n".join(one.page_content for one in found))
    assert chain.invoke(QUERY) == "\n".join(one.page_content for one in expected)


def test_a_document_goes_into_a_prompt_with_its_fields(remedies: Collection) -> None:
    (document,) = TwinrankRetriever(collection=remedies, k=1, where="year = 2021").invoke(QUERY)
    prompt = PromptTemplate.from_template("{title} ({year}): {page_content}")
    assert format_document(document, prompt) == "Zinc (2021): Zinc lozenges may shorten a common cold."


def test_embeddings_are_the_encoders_vectors(encoder: BiEncoder) -> None:
    embeddings = TwinrankEmbeddings(encoder)
    texts = ["Zinc shortens a cold.", "Honey"]
    np.testing.assert_array_equal(np.array(embeddings.embed_documents(texts), np.float32), encoder.encode(texts))
    np.testing.assert_array_equal(
        np.array(embeddings.embed_query("a cold"), np.float32), encoder.encode(["a cold"], side="query")[0]
    )
    assert asyncio.run(embeddings.aembed_query("a cold")) == embeddings.embed_query("a cold")
    assert embeddings.embed_documents([]) == []


def test_a_vector_store_of_langchain_takes_the_embeddings(encoder: BiEncoder) -> None:
    store = InMemoryVectorStore(TwinrankEmbeddings(encoder))
    store.add_texts(["a man eats a piece of bread", "Zinc may shorten a cold."])
    assert store.similarity_search("Zinc may shorten a cold.", k=1)[0].page_content == "Zinc may shorten a cold."


def test_a_reranker_orders_by_the_models_scores(scorer: CrossEncoder) -> None:
    texts = ["Zinc may shorten a cold.", "a piece of bread", "does zinc help?"]
    given = [Document(page_content=text, metadata={"place": place}) for place, text in enumerate(texts)]
    reranker = TwinrankReranker(model=scorer, k=2)
    kept = reranker.compress_documents(given, "zinc")
    assert [one.metadata["place"] for one in kept] == [int(hit.id) for hit in scorer.rank("zinc", texts, k=2)]
    assert [one.metadata["relevance_score"] for one in kept] == [hit.score for hit in scorer.rank("zinc", texts, k=2)]
    assert "relevance_score" not in given[0].metadata  # what was given stays as it was
    assert asyncio.run(reranker.acompress_documents(given, "zinc")) == kept
    assert list(TwinrankReranker(model=scorer).compress_documents([], "zinc")) == []


def test_a_reranker_reads_the_title_unless_told_otherwise(scorer: CrossEncoder) -> None:
    given = [Document(page_content="may shorten a cold", metadata={"title": "Zinc"})]
    (read,) = TwinrankReranker(model=scorer).compress_documents(given, "zinc")
    (unread,) = TwinrankReranker(model=scorer, title_key="").compress_documents(given, "zinc")
    scores = scorer.score([("zinc", "Zinc may shorten a cold"), ("zinc", "may shorten a cold")]).tolist()
    assert [read.metadata["relevance_score"], unread.metadata["relevance_score"]] == scores


def test_a_reranker_opens_a_model_by_its_folder(tiny_cross_encoder: Path, scorer: CrossEncoder) -> None:
    reranker = TwinrankReranker(model=tiny_cross_encoder)
    (one,) = reranker.compress_documents([Document(page_content="Zinc")], "zinc")
    assert one.metadata["relevance_score"] == scorer.score([("zinc", "Zinc")])[0]
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        TwinrankReranker(model=tiny_cross_encoder, k=0)
