"""The adapter for MTEB against MTEB itself: on tasks of a few texts made here, since no data set is fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from twinrank import BiEncoder, CrossEncoder, Recipe
from twinrank.errors import InputError

pytest.importorskip("mteb", reason="mteb is not installed: pip install 'twinrank[mteb]'")

import mteb
from datasets import Dataset
from mteb.models import SearchProtocol

from twinrank.adapters.mteb import TwinrankEncoder, TwinrankReranker, TwinrankRetriever

CORPUS = {
    "d-1": ("Zinc", "Zinc lozenges may shorten a common cold."),
    "d/2": ("", "A spoon of honey eases a cough at night."),
    "d 3": ("Rest", "Sleep helps against most infections."),
    "empty": ("", " "),
}
QUERIES = {"q1": "does zinc shorten a cold", "q2": "honey against a cough", "q3": "sleep against infections"}
QRELS = {"q1": {"d-1": 1}, "q2": {"d/2": 1}, "q3": {"d 3": 1}}


def metadata(kind: str) -> Any:
    return mteb.TaskMetadata(
        name=f"Few{kind}",
        dataset={"path": "none/none", "revision": "1"},
        description="A few texts.",
        type=kind,
        category="t2t",
        modalities=["text"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
        reference=None,
        date=None,
        domains=None,
        task_subtypes=None,
        license=None,
        annotations_creators=None,
        dialect=None,
        sample_creation=None,
        bibtex_citation=None,
    )


def task(kind: str = "Retrieval", top_ranked: dict[str, list[str]] | None = None) -> Any:
    """A task over the few texts above, loaded already."""
    from mteb.abstasks.retrieval import AbsTaskRetrieval

    class Few(AbsTaskRetrieval):
        pass

    Few.metadata = metadata(kind)
    made = Few()
    rows = [{"id": identity, "title": title, "text": text} for identity, (title, text) in CORPUS.items()]
    made.dataset = {
        "default": {
            "test": {
                "corpus": Dataset.from_list(rows),
                "queries": Dataset.from_list([{"id": identity, "text": text} for identity, text in QUERIES.items()]),
                "relevant_docs": QRELS,
                "top_ranked": top_ranked,
            }
        }
    }
    made.data_loaded = True
    return made


def score(model: Any, of: Any) -> float:
    """nDCG@10 by MTEB itself, of which a full installation is needed."""
    pytest.importorskip("torch", reason="torch, which MTEB needs to measure, is not installed")
    results = mteb.evaluate(model, of, cache=None, co2_tracker=False, show_progress_bar=False, encode_kwargs={"batch_size": 2})
    found: float = results.task_results[0].scores["test"][0]["ndcg_at_10"]
    return found


def words() -> Recipe:
    return Recipe.load("words").with_model("none")


def test_a_retriever_is_a_search_model_and_its_pipeline_is_measured() -> None:
    model = TwinrankRetriever(words(), name="words")
    assert isinstance(model, SearchProtocol)
    assert model.mteb_model_meta.name == "twinrank/words"
    assert score(model, task()) == 1.0
    model.close()


def test_a_reranking_task_is_answered_from_its_candidates_alone() -> None:
    candidates = {"q1": ["d/2", "d 3"], "q2": ["d/2"], "q3": ["d-1", "d 3", "empty"]}
    of = task("Reranking", candidates)
    model = TwinrankRetriever(words())
    data = of.dataset["default"]["test"]
    asked = {"task_metadata": of.metadata, "hf_split": "test", "hf_subset": "default", "encode_kwargs": {}, "num_proc": None}
    model.index(data["corpus"], **asked)
    found = model.search(data["queries"], top_k=10, top_ranked=candidates, **asked)
    assert "d-1" not in found["q1"]
    assert set(found["q2"]) == {"d/2"}
    assert set(found["q3"]) == {"d 3"}
    model.close()


def test_a_corpus_that_was_encoded_is_found_again(tmp_path: Path, tiny_model: Path) -> None:
    for _ in range(2):
        model = TwinrankRetriever("vectors", model=str(tiny_model), folder=tmp_path)
        assert 0 <= score(model, task()) <= 1
        assert model.collection is not None
        assert len(model.collection) == 3  # the empty one is left out
        model.close()
    assert [path.name for path in tmp_path.iterdir()] == ["FewRetrieval-default-test"]


def test_a_query_has_its_instruction_behind_it_and_is_a_text() -> None:
    model = TwinrankRetriever(words())
    of = task()
    asked = {"task_metadata": of.metadata, "hf_split": "test", "hf_subset": "default", "encode_kwargs": {}, "num_proc": None}
    with pytest.raises(InputError, match="call index"):
        model.search([], top_k=1, **asked)
    model.index(of.dataset["default"]["test"]["corpus"], **asked)
    found = model.search([{"id": "q", "text": "what helps?", "instruction": "honey"}], top_k=1, **asked)
    assert list(found["q"]) == ["d/2"]
    with pytest.raises(InputError, match="asked with a text"):
        model.search([{"id": "q", "text": ["a", "b"]}], top_k=1, **asked)
    model.close()


def test_an_encoder_gives_vectors_of_the_side_that_is_asked_for(encoder: BiEncoder) -> None:
    model = TwinrankEncoder(encoder)
    batches = [{"text": ["Zinc", "Honey"]}, {"text": ["Rest"]}]
    np.testing.assert_array_equal(model.encode(batches), encoder.encode(["Zinc", "Honey", "Rest"]))
    queries = model.encode(batches, prompt_type=mteb.types.PromptType.query)
    np.testing.assert_array_equal(queries, encoder.encode(["Zinc", "Honey", "Rest"], side="query"))
    vectors = model.encode(batches)
    table = model.similarity(vectors, vectors)
    assert table.shape == (3, 3)
    np.testing.assert_allclose(model.similarity_pairwise(vectors, vectors), table.diagonal(), rtol=1e-6)
    assert model.mteb_model_meta.embed_dim == encoder.dimension


def test_mteb_measures_the_encoder(encoder: BiEncoder) -> None:
    assert isinstance(TwinrankEncoder(encoder), mteb.models.EncoderProtocol)
    assert 0 <= score(TwinrankEncoder(encoder), task()) <= 1


def test_mteb_measures_the_reranker(scorer: CrossEncoder) -> None:
    model = TwinrankReranker(scorer)
    assert isinstance(model, mteb.models.CrossEncoderProtocol)
    candidates = {identity: list(CORPUS)[:3] for identity in QUERIES}
    assert 0 <= score(model, task("Reranking", candidates)) <= 1


def test_a_reranker_gives_the_models_scores(scorer: CrossEncoder) -> None:
    pairs = [("zinc", "Zinc may shorten a cold."), ("honey", "a piece of bread")]
    scores = TwinrankReranker(scorer).predict([{"text": ["zinc", "honey"]}], [{"text": [pairs[0][1]]}, {"text": [pairs[1][1]]}])
    np.testing.assert_array_equal(scores, scorer.score(pairs))
