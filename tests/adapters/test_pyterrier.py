"""The adapter for PyTerrier against PyTerrier itself; no Java is started."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from twinrank import BiEncoder, Collection, CrossEncoder

pt = pytest.importorskip("pyterrier", reason="pyterrier is not installed: pip install 'twinrank[pyterrier]'")

import pandas as pd  # noqa: E402

from twinrank.adapters.pyterrier import TwinrankEncoder, TwinrankReranker, TwinrankRetriever  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword")  # PyTerrier's own, under pandas 3.1
QUERY = "what helps against a cold?"
TOPICS = pd.DataFrame({"qid": ["q1", "q2", "q3"], "query": [QUERY, "tea", "nothing of this kind"], "kind": ["a", "b", "c"]})


def test_a_retriever_gives_what_the_collection_finds(remedies: Collection) -> None:
    found = TwinrankRetriever(remedies).transform(TOPICS)
    for topic in TOPICS.itertuples():
        hits = remedies.search(topic.query, 1000)
        rows = found[found.qid == topic.qid]
        assert rows.docno.tolist() == [hit.id for hit in hits]
        assert rows.score.tolist() == [hit.score for hit in hits]
        assert rows["rank"].tolist() == list(range(len(hits)))
        assert rows.text.tolist() == [hit.text for hit in hits]
        assert set(rows.kind) <= {topic.kind}
    assert found.probability.isna().all()


def test_a_retriever_passes_its_condition_and_number_on(remedies: Collection) -> None:
    found = TwinrankRetriever(remedies, k=1, where="year > 2015").search(QUERY)
    assert len(found) == 1
    assert set(TwinrankRetriever(remedies, where="year > 2015").search(QUERY).docno) == {"zinc", "rest"}


def test_a_query_without_results_leaves_the_columns_and_no_rows(remedies: Collection) -> None:
    found = TwinrankRetriever(remedies).transform(TOPICS.tail(1))
    assert not len(found)
    assert {"qid", "query", "docno", "score", "rank", "text"} <= set(found.columns)


def test_pyterrier_can_look_into_the_transformers(remedies: Collection, encoder: BiEncoder, scorer: CrossEncoder) -> None:
    retriever, reranker = TwinrankRetriever(remedies), TwinrankReranker(scorer)
    assert pt.inspect.transformer_inputs(retriever) == [["qid", "query"]]
    assert {"docno", "score", "rank", "text"} <= set(pt.inspect.transformer_outputs(retriever, ["qid", "query"]))
    assert pt.inspect.transformer_inputs(reranker) == [["qid", "docno", "query", "text"]]
    assert pt.inspect.transformer_inputs(TwinrankEncoder(encoder)) == [["query"], ["text"]]
    outputs = pt.inspect.transformer_outputs(retriever >> reranker >> TwinrankEncoder(encoder), ["qid", "query"])
    assert {"query_vec", "doc_vec"} <= set(outputs)
    with pytest.raises(pt.validate.InputValidationError):
        reranker.transform(TOPICS)


def test_an_encoder_gives_the_encoders_vectors(encoder: BiEncoder) -> None:
    queries = TwinrankEncoder(encoder)(TOPICS)
    np.testing.assert_array_equal(np.stack(queries.query_vec), encoder.encode(TOPICS["query"].tolist(), side="query"))
    documents = pd.DataFrame({"docno": ["a", "b"], "text": ["may shorten a cold", "Honey"], "title": ["Zinc", None]})
    found = TwinrankEncoder(encoder)(documents)
    np.testing.assert_array_equal(np.stack(found.doc_vec), encoder.encode(["Zinc may shorten a cold", "Honey"]))


def test_a_reranker_orders_each_query_by_the_models_scores(remedies: Collection, scorer: CrossEncoder) -> None:
    first = TwinrankRetriever(remedies).transform(TOPICS)
    found = TwinrankReranker(scorer).transform(first)
    assert len(found) == len(first)
    for _, rows in found.groupby("qid"):
        texts = [f"{title} {text}" for title, text in zip(rows.title, rows.text, strict=True)]
        pairs = list(zip(rows["query"], texts, strict=True))
        np.testing.assert_array_equal(rows.score, scorer.score(pairs))
        assert rows.sort_values("rank").score.is_monotonic_decreasing


def test_pipelines_and_experiments_run_over_them(remedies: Collection, tiny_cross_encoder: Path) -> None:
    retriever = TwinrankRetriever(remedies)
    pipeline = retriever % 2 >> TwinrankReranker(tiny_cross_encoder)
    assert len(pipeline.search(QUERY)) == 2
    qrels = pd.DataFrame({"qid": ["q1", "q2"], "docno": ["zinc", "o'hara"], "label": [1, 1]})
    table = pt.Experiment(
        [retriever, pipeline], TOPICS, qrels, eval_metrics=["recip_rank"], names=["words", "reranked"], plan="tree"
    )
    assert table.name.tolist() == ["words", "reranked"]
    assert table.recip_rank.between(0, 1).all()
    assert table.recip_rank[0] > 0
