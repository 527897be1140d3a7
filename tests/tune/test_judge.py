"""The central promise: pipelines over remembered stage outputs rank as `Collection.search` does, and are measured as it is."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from twinrank.collection import Collection
from twinrank.evaluate.metrics import measure
from twinrank.readers import Dataset, read_dataset
from twinrank.recipe import Recipe, RetrieveSettings, TokenSettings
from twinrank.tune.judge import DEPTH, Judge
from twinrank.tune.outputs import Outputs
from twinrank.tune.space import Space, changed, default_knobs

pytestmark = pytest.mark.filterwarnings("ignore::twinrank.errors.TruncationWarning")  # the tiny model has few words


def random_recipe(base: Recipe, rerankers: list[str], seed: int) -> Recipe:
    rng = random.Random(seed)
    space = Space(base, default_knobs(base, rerankers=rerankers)).with_values("passages.size", ["24", "0"])
    for knob in ("retrieve.vectors", "retrieve.words", "retrieve.tokens"):
        space = space.with_values(knob, ["3", "10", "40"])  # fewer than 10 documents too, where the search goes deeper
    for knob in ("maxsim.candidates", "cross-encoder.candidates"):
        space = space.with_values(knob, ["0", "5", "30"])
    return space.recipe(space.draw(lambda name, values: rng.choice(values)))


def live(judge: Judge, recipe: Recipe) -> dict[str, dict[str, float]]:
    """Query → the documents that a search finds, best first, scored by their place."""
    with Collection(judge.outputs.place(recipe), recipe=recipe, create=False) as collection:
        return {
            query: {hit.id: -float(hit.rank) for hit in collection.search(text, DEPTH)} for query, text in judge.queries.items()
        }


@pytest.mark.parametrize("seed", range(24))
def test_a_recombined_pipeline_finds_what_a_search_finds_in_the_same_order(
    judge: Judge, base: Recipe, tiny_cross_encoder: Path, seed: int
) -> None:
    recipe = random_recipe(base, [str(tiny_cross_encoder)], seed)
    found = live(judge, recipe)
    assert {query: judge.found(recipe, text) for query, text in judge.queries.items()} == {
        query: list(documents) for query, documents in found.items()
    }
    measured = measure(judge.qrels, found, ["nDCG@10"]).by_query["nDCG@10"]
    np.testing.assert_allclose(judge(recipe), [measured[query] for query in judge.queries], atol=1e-6)


def test_fewer_candidates_than_documents_wanted_are_searched_deeper(judge: Judge, base: Recipe) -> None:
    recipe = Recipe(encoder=base.encoder, passages=base.passages, retrieve=RetrieveSettings(vectors=2, words=2))
    assert all(len(judge.found(recipe, text)) == DEPTH for text in judge.queries.values())
    assert live(judge, recipe).keys() == judge.queries.keys()


def test_a_recipe_is_judged_once(judge: Judge, base: Recipe) -> None:
    assert judge(base) is judge(base)


def test_a_stage_is_asked_once_for_each_pair(judge: Judge, base: Recipe, tiny_cross_encoder: Path) -> None:
    space = Space(base, default_knobs(base, rerankers=[str(tiny_cross_encoder)])).with_values("passages.size", ["24"])
    values = {"sources": "words", "retrieve.words": 20, "maxsim.candidates": 0, "cross-encoder.max_tokens": 0}
    values["cross-encoder.model"] = str(tiny_cross_encoder)
    judge(space.recipe({**values, "cross-encoder.candidates": 20, "cross-encoder.weight": 1.0}))
    pairs = judge.outputs.pairs
    judge(space.recipe({**values, "cross-encoder.candidates": 20, "cross-encoder.weight": 0.2}))
    judge(space.recipe({**values, "cross-encoder.candidates": 10, "cross-encoder.weight": 0.6}))
    assert judge.outputs.pairs == pairs


def test_queries_without_a_relevant_document_are_left_out(dataset: Dataset, tmp_path: Path) -> None:
    outputs = Outputs(dataset, folder=tmp_path)
    qrels = {"q0": {"d001": 0}, "q1": {"d001": 1, "d002": -1}}
    assert list(Judge(outputs, dataset.queries, qrels).queries) == ["q1"]


def test_what_was_encoded_is_found_again_by_the_next_call(dataset: Dataset, base: Recipe, tmp_path: Path) -> None:
    added = []
    for _ in range(2):
        outputs = Outputs(dataset, folder=tmp_path, on_added=added.append)
        Judge(outputs, dataset.queries, dataset.qrels)(base)
        outputs.close()
    assert [report.added for report in added] == [60]


def test_a_cached_collection_that_cannot_be_opened_is_made_anew(dataset: Dataset, base: Recipe, tmp_path: Path) -> None:
    outputs = Outputs(dataset, folder=tmp_path)
    place = outputs.place(base)
    (place / "store.db").write_bytes(b"not a database")
    again = Outputs(dataset, folder=tmp_path)
    figures = Judge(again, dataset.queries, dataset.qrels)(base)
    again.close()
    assert figures.max() > 0


@pytest.mark.data
def test_real_queries_are_ranked_as_a_search_ranks_them(shared_data: Path, minilm_folder: Path, tmp_path: Path) -> None:
    dataset = read_dataset(shared_data / "covidfaq")
    outputs = Outputs(dataset, folder=tmp_path, tokens=TokenSettings())
    judge = Judge(outputs, dict(list(dataset.queries.items())[:40]), dataset.qrels)
    for seed in range(6):
        rng = random.Random(seed)
        space = Space(Recipe(), default_knobs(Recipe())).with_values("passages.size", ["256"])
        recipe = space.recipe(space.draw(lambda name, values: rng.choice(values)))  # noqa: B023
        found = {query: list(documents) for query, documents in live(judge, recipe).items()}
        assert found == {query: judge.found(recipe, text) for query, text in judge.queries.items()}
    outputs.close()


def test_a_query_is_rewritten_once_for_all_pipelines(judge: Judge, base: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    from twinrank.loaded import Loaded
    from twinrank.search.rewrite import Rewrite

    rewritten = []

    def change(query: str) -> str:
        rewritten.append(query)
        return f"{query} honey"

    monkeypatch.setattr(Loaded, "rewrite", Rewrite("sweeten", change))
    for constant in (11, 12):
        judge(changed(changed(base, "fuse.method", "rank"), "fuse.constant", constant))
    assert sorted(rewritten) == sorted(set(judge.queries.values()))


def test_token_vectors_alone_are_searched_as_a_search_does(judge: Judge, base: Recipe) -> None:
    recipe = replace(base, retrieve=RetrieveSettings(vectors=0, words=0, tokens=10), tokens=TokenSettings())
    found = {query: list(documents) for query, documents in live(judge, recipe).items()}
    assert found == {query: judge.found(recipe, text) for query, text in judge.queries.items()}
