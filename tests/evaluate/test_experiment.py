"""Experiments: what is stored once, what is measured, and what the reader of the figures is told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from twinrank.cli.evaluate import names_apart
from twinrank.collection import Collection
from twinrank.errors import DataError, InputError
from twinrank.evaluate import report
from twinrank.evaluate.experiment import (
    evaluate,
    fill,
    judged_queries,
    needs_vectors,
    place_of,
    sample,
    seconds_to_make,
)
from twinrank.readers import Dataset
from twinrank.recipe import BUILT_IN, EncoderSettings, Recipe

WORDS = Recipe.parse('[encoder]\nmodel = "none"\n[retrieve]\nvectors = 0')


def with_model(name: str, model: Path) -> Recipe:
    return BUILT_IN[name].with_model(str(model))


def test_every_judged_query_is_asked_of_every_recipe(remedies: Dataset, tmp_path: Path) -> None:
    done: list[tuple[str, int]] = []
    experiment = evaluate(
        remedies, {"a": WORDS, "b": WORDS}, folder=tmp_path, progress=lambda name, more: done.append((name, more))
    )
    assert (experiment.documents, experiment.queries, experiment.notes) == (12, 12, ())
    assert experiment.outcomes["a"].measured.means["nDCG@10"] == 1.0
    assert all(len(outcome.milliseconds) == 12 for outcome in experiment.outcomes.values())
    assert sum(more for name, more in done if name == "searches") == 24
    assert sum(more for name, more in done if name == "documents") == 12  # both lie in one collection
    assert experiment.outcomes["a"].place == experiment.outcomes["b"].place


def test_words_alone_are_cut_as_the_encoder_would_and_encode_nothing(
    remedies: Dataset, tiny_model: Path, tmp_path: Path
) -> None:
    reports = []
    words, hybrid = with_model("words", tiny_model), with_model("hybrid", tiny_model)
    experiment = evaluate(remedies, {"words": words}, folder=tmp_path, on_added=reports.append)
    assert [(report.added, report.encoded) for report in reports] == [(12, 0)]
    both = evaluate(remedies, {"words": words, "hybrid": hybrid}, folder=tmp_path, on_added=reports.append)
    assert [(report.added, report.encoded) for report in reports] == [(12, 0), (12, 12)]
    assert both.outcomes["words"].run == experiment.outcomes["words"].run
    with Collection(place_of(remedies, hybrid, tmp_path), recipe=words) as collection:  # the same passages lie there
        assert {hit.id: hit.score for hit in collection.search("what helps against a cold", k=100)} == both.outcomes[
            "words"
        ].run["q00"]


def test_what_looks_at_vectors_has_them() -> None:
    assert not needs_vectors(BUILT_IN["words"])
    assert needs_vectors(BUILT_IN["vectors"])
    assert needs_vectors(Recipe.parse("[tokens]\n[retrieve]\nvectors = 0"))
    assert needs_vectors(Recipe.parse('[retrieve]\nvectors = 0\n[[rerank]]\nmodel = "m"\nrisk = 0.05'))
    assert not needs_vectors(Recipe.parse('[retrieve]\nvectors = 0\n[[rerank]]\nmodel = "m"'))


def test_another_number_format_or_model_lies_in_another_folder(
    remedies: Dataset, tiny_model: Path, other_tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = with_model("hybrid", tiny_model)
    explicit = replace(recipe, encoder=EncoderSettings(str(tiny_model), "fp32"))
    places = {place_of(remedies, one, tmp_path) for one in (recipe, with_model("hybrid", other_tiny_model))}
    assert len(places) == 2
    monkeypatch.setenv("TWINRANK_ENGINE", "numpy")
    assert place_of(remedies, recipe, tmp_path) == place_of(remedies, explicit, tmp_path)
    evaluate(remedies, {"hybrid": recipe}, folder=tmp_path)
    monkeypatch.delenv("TWINRANK_ENGINE")
    evaluate(remedies, {"hybrid": recipe}, folder=tmp_path)  # on the native engine: a cache of its own, no refusal


def test_a_pooling_that_is_named_is_the_same_storage_as_the_one_stated(
    remedies: Dataset, tiny_model: Path, tmp_path: Path
) -> None:
    stated = with_model("vectors", tiny_model)
    pooled = {
        pooling: place_of(remedies, replace(stated, encoder=replace(stated.encoder, pooling=pooling)), tmp_path)
        for pooling in ("", "mean", "cls")
    }
    assert pooled[""] == pooled["mean"] != pooled["cls"]


def test_making_a_collection_is_timed_once(remedies: Dataset, tiny_model: Path, tmp_path: Path) -> None:
    recipe = Recipe.parse("[tokens]\n[retrieve]\ntokens = 10").with_model(str(tiny_model))
    place = evaluate(remedies, {"late": recipe}, folder=tmp_path).outcomes["late"].place
    with Collection(place, recipe=recipe) as collection:
        seconds = seconds_to_make(collection)
        assert seconds is not None
        assert 0 < seconds < 60
    fill(remedies, recipe, place)
    with Collection(place, recipe=recipe) as collection:
        assert seconds_to_make(collection) == seconds
        collection.delete(["d03"])
    fill(remedies, recipe, place)
    with Collection(place, recipe=recipe) as collection:
        assert seconds_to_make(collection) is None


def test_unknown_measures_are_refused_before_anything_is_made(remedies: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown measure 'nDGC@10'"):
        evaluate(remedies, {"words": WORDS}, folder=tmp_path / "kept", measures=["nDGC@10"])
    assert not (tmp_path / "kept").exists()


# -- judgments that are not as they should be ----------------------------------------------------------------------------


def test_judged_documents_that_the_corpus_lacks_are_counted_and_told(make_dataset, tmp_path: Path) -> None:
    dataset = make_dataset(qrels={"q00": {"d00": 1}, "q01": {"gone": 1}, "q02": {"d02": 1, "gone too": 2, "no matter": 0}})
    experiment = evaluate(dataset, {"words": WORDS}, folder=tmp_path)
    assert experiment.unknown == 2
    assert experiment.notes == (
        "2 relevant documents of the judgments are not in the corpus; they count as not found",
        "1 query whose relevant documents are all missing, such as 'q01': 0 for every recipe",
    )
    assert experiment.outcomes["words"].measured.by_query["nDCG@10"]["q01"] == 0.0


def test_documents_that_cannot_be_taken_are_told(make_dataset, tmp_path: Path) -> None:
    dataset = make_dataset(texts={"d00": "cold", "d01": ""}, qrels={"q00": {"d00": 1}, "q01": {"d00": 1}})
    for _ in range(2):  # the second time nothing is added, and it is told all the same
        [note] = evaluate(dataset, {"words": WORDS}, folder=tmp_path).notes
        assert note.startswith("1 document of the corpus left out; the first: ")
        assert "'d01' has neither a text nor a title" in note


def test_queries_without_a_relevant_document_are_left_out_and_told(make_dataset, tmp_path: Path) -> None:
    dataset = make_dataset(qrels={"q00": {"d00": 1}, "q01": {"d01": 0}, "q02": {"d02": -1}})
    experiment = evaluate(dataset, {"words": WORDS}, folder=tmp_path)
    assert experiment.queries == 1
    assert experiment.notes == (
        "2 queries of the split without a relevant document by its judgments: left out",
        "one query: these figures say nothing about any other",
    )


def test_judgments_that_are_all_zero_are_refused(make_dataset, tmp_path: Path) -> None:
    dataset = make_dataset(qrels={"q00": {"d00": 0}, "q01": {"d01": 0}})
    with pytest.raises(DataError, match=r"no query of it has both a text and a relevant document \(a grade above 0\)"):
        evaluate(dataset, {"words": WORDS}, folder=tmp_path)


def test_a_query_that_was_judged_and_has_no_text_is_refused(make_dataset) -> None:
    with pytest.raises(DataError, match="1 queries of the split 'test' have no text, the first is 'q99'"):
        make_dataset(qrels={"q00": {"d00": 1}, "q99": {"d00": 1}})


def test_rankings_in_which_all_scores_are_tied_are_told(make_dataset, tmp_path: Path) -> None:
    dataset = make_dataset(
        texts={f"d{n:02}": "the same words" for n in range(5)}, queries={"q": "words"}, qrels={"q": {"d00": 1}}
    )
    experiment = evaluate(dataset, {"words": WORDS}, folder=tmp_path)
    assert experiment.notes[-1] == (
        "words: all scores tied for 1 query, whose documents stand in the order of their ids, not of merit"
    )
    assert experiment.outcomes["words"].measured.means["RR@10"] == pytest.approx(1 / 5)


def test_a_sample_is_drawn_by_its_seed_from_queries_with_judgments(remedies: Dataset) -> None:
    drawn = sample(remedies, 5, seed=1)
    assert list(drawn.queries) == list(drawn.qrels) == sorted(drawn.queries)
    assert len(judged_queries(drawn)) == 5
    assert drawn.queries == sample(remedies, 5, seed=1).queries
    assert drawn.queries != sample(remedies, 5, seed=2).queries
    assert sample(remedies, 1000).queries == remedies.queries
    with pytest.raises(DataError, match="1 query at least"):
        sample(remedies, 0)


# -- one recipe against another ------------------------------------------------------------------------------------------

BLIND = Recipe.parse('[encoder]\nmodel = "none"\n[words]\nlanguage = "russian"\n[retrieve]\nvectors = 0')


def test_a_baseline_is_compared_with_query_by_query(make_dataset, tmp_path: Path) -> None:
    """By Russian rules English words keep their endings, so that queries in the plural find nothing."""
    ails = ("cold", "cough", "fever", "headache", "burn", "cramp", "rash", "ache", "chill", "sprain", "hiccup", "wound")
    texts = {f"d{n:02}": f"a {ail}" for n, ail in enumerate(ails)}
    queries = {f"q{n:02}": f"{ail}{'s' if n < 9 else ''}" for n, ail in enumerate(ails)}
    dataset = make_dataset(texts=texts, queries=queries, qrels={f"q{n:02}": {f"d{n:02}": 1} for n in range(12)})
    experiment = evaluate(dataset, {"plain": BLIND, "english": WORDS}, folder=tmp_path, measures=["nDCG@10", "RR@10"])
    assert experiment.outcomes["plain"].place != experiment.outcomes["english"].place  # each has its word index
    assert not experiment.notes
    helped = report.differences(experiment, "plain")["nDCG@10"]["english"]
    assert (helped.helped, helped.harmed, helped.unchanged) == (9, 0, 3)
    assert helped.p == 2 / 2**9
    assert helped.verdict == "better"
    shown = report.table(experiment, "plain")
    assert "nDCG@10 minus that of plain, query by query" in shown
    assert "BCa bootstrap" in shown
    row = next(line.split() for line in shown.splitlines() if line.startswith("english ") and "+" in line)
    assert row[1] == "+0.7500"
    told = json.loads(json.dumps(report.as_json(experiment, baseline="plain")))
    assert set(told["differences"]) == {"nDCG@10", "RR@10"}
    assert told["differences"]["nDCG@10"]["english"]["helped"] == 9
    last = report.per_query(experiment, "plain").splitlines()[-1].split("\t")
    assert last[:2] == ["q11", "english"]
    assert last[-1] == "+0.0000"
    with pytest.raises(InputError, match="the baseline 'nobody' is none of what is compared: plain, english"):
        report.differences(experiment, "nobody")


def test_few_queries_and_equal_runs_are_told_as_that(make_dataset, tmp_path: Path) -> None:
    dataset = make_dataset(queries={"q00": "cold", "q01": "fever"}, qrels={"q00": {"d00": 1}, "q01": {"d00": 1}})
    shown = report.table(evaluate(dataset, {"a": WORDS, "b": WORDS}, folder=tmp_path), "a")
    assert "the same for 2 queries" in shown
    assert "nothing to compare with a" in report.table(evaluate(dataset, {"a": WORDS}, folder=tmp_path), "a")


def test_files_of_one_name_are_told_apart_by_their_paths() -> None:
    assert names_apart(["a/x.toml", "b/x.toml", "y.toml"]) == {"a/x.toml": "a/x", "b/x.toml": "b/x", "y.toml": "y"}
    assert names_apart(["1/a/x.toml", "2/a/x.toml"]) == {"1/a/x.toml": "1/a/x", "2/a/x.toml": "2/a/x"}
    assert len(set(names_apart(["words", "words.toml", "./x.toml", "x.toml", "/x.toml"]).values())) == 5
    assert names_apart(["x.toml", "x.toml"]) == {"x.toml": "x"}


def test_texts_that_a_reranker_cuts_are_counted_not_shown_one_by_one(
    make_dataset, tiny_cross_encoder: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    dataset = make_dataset(texts={"d00": "cold " * 400, "d01": "fever"}, qrels={"q00": {"d00": 1}, "q02": {"d01": 1}})
    reads = Recipe.parse(f'{WORDS.to_toml()}\n[[rerank]]\nmodel = "{tiny_cross_encoder}"\ncandidates = 10')
    whole = replace(reads, passages=replace(reads.passages, size=0, overlap=0))
    experiment = evaluate(dataset, {"read": whole}, folder=tmp_path)
    assert experiment.notes == ("read: texts longer than its model takes were cut 1 times; what was cut off was not read",)
    assert not recwarn
