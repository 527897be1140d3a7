"""What a collection is asked: every query gets an answer or a sentence, in a stated order; documents like others are found."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from twinrank_notes import NOTES, Making, state

from twinrank import Collection, Recipe
from twinrank.errors import FilterError, ModelMismatchError, QueryError
from twinrank.index.vectors import VectorIndex
from twinrank.index.words import WordIndex
from twinrank.recipe import RetrieveSettings
from twinrank.types import Vectors

# -- searching ---------------------------------------------------------------------------------------------------------------


def test_a_deleted_document_is_never_found_again(notes: Collection) -> None:
    assert notes.delete(["zinc", "unknown"]) == ["zinc"]
    assert "zinc" not in notes
    assert all(hit.id != "zinc" for hit in notes.search("zinc cold", k=100))


def test_another_recipe_searches_what_is_stored(make: Making, tiny_model: Path) -> None:
    with make("encoded", model=str(tiny_model)) as collection:
        collection.add(NOTES)
        for name in ("words", "vectors"):
            recipe = replace(collection.recipe, retrieve=Recipe.load(name).retrieve)
            with Collection(collection.path, recipe=recipe) as alone:
                expected = [(hit.id, hit.score) for hit in alone.search("a cold at night", k=3)]
            found = collection.search_by(recipe, "a cold at night", k=3)
            assert [(hit.id, hit.score) for hit in found] == expected
            assert [name for name, _ in found.stages] == [name]


def test_searching_by_another_recipe_makes_no_use_of_what_was_computed_before(make: Making, tiny_model: Path) -> None:
    with make("encoded", model=str(tiny_model)) as collection:
        collection.add({"id": "zinc", "text": "Zinc may shorten a cold."})
        known = collection.assembly.loaded.query_vectors
        collection.search("a cold")
        collection.search("a cold")
        assert (len(known), known.hits) == (1, 1)
        collection.search_by(collection.recipe, "a cold")
        collection.search_by(collection.recipe, "a cough")
        assert (len(known), known.hits) == (1, 1)


@pytest.mark.parametrize("query", ["", "   ", "\n\t", "\x00"])
def test_an_empty_query_is_refused(notes: Collection, query: str) -> None:
    with pytest.raises(QueryError, match="empty"):
        notes.search(query)


def test_a_query_of_a_megabyte_is_refused_with_the_limit(notes: Collection) -> None:
    with pytest.raises(QueryError, match="1,048,576 characters, at most 65,536"):
        notes.search("a" * 2**20)


def test_a_query_of_sixty_thousand_characters_is_answered(notes: Collection) -> None:
    assert notes.search("zinc " * 12_000)[0].id == "zinc"


@pytest.mark.parametrize("k", [0, -1, True, 2.5, None])
def test_a_k_that_is_no_count_is_refused(notes: Collection, k: object) -> None:
    with pytest.raises(QueryError, match="k is how many"):
        notes.search("zinc", k=k)  # type: ignore[arg-type]


def test_a_k_beyond_the_collection_finds_what_there_is(notes: Collection) -> None:
    assert len(notes.search("cold cough", k=10**9)) == 3


def test_a_query_without_a_known_word_finds_nothing(notes: Collection) -> None:
    assert len(notes.search("xylophone")) == 0


def test_an_empty_collection_answers_with_nothing(make: Making) -> None:
    assert len(make().search("anything")) == 0


def test_a_query_with_a_lone_surrogate_is_answered(notes: Collection) -> None:
    assert notes.search("zinc \ud800")[0].id == "zinc"


def test_the_condition_chooses_before_the_search(notes: Collection) -> None:
    assert [hit.id for hit in notes.search("cold cough", k=1, where="lang = 'en' and year < 2015")] == ["honey"]
    assert len(notes.search("cold", where="year > 3000")) == 0


@pytest.mark.parametrize("where", ["year >=", "yeer = 2021", "year = 2021; drop table documents", "(" * 2000])
def test_a_broken_condition_is_refused_and_changes_nothing(notes: Collection, where: str) -> None:
    before = state(notes)
    with pytest.raises(FilterError):
        notes.search("cold", where=where)
    assert state(notes) == before


def test_many_passages_of_one_document_do_not_crowd_out_the_others(make: Making) -> None:
    collection = make(recipe=Recipe.parse("[passages]\nsize = 16\noverlap = 0\n[retrieve]\nwords = 5"))
    collection.add([{"id": "long", "text": "Needle in the hay, a needle again. " * 200}])
    collection.add([{"id": f"short{number}", "text": f"one needle, and {number} other words"} for number in range(9)])
    found = collection.search("needle", k=10)
    assert sorted(hit.id for hit in found) == sorted(["long", *(f"short{number}" for number in range(9))])
    scores = [hit.score for hit in found]
    assert scores == sorted(scores, reverse=True)


def test_the_first_hits_do_not_depend_on_k(make: Making) -> None:
    collection = make(recipe=Recipe.parse("[retrieve]\nwords = 5"))
    collection.add([{"id": str(number), "text": "word " * number + "other " * 20} for number in range(1, 40)])
    short, long = collection.search("word", k=4), collection.search("word", k=39)
    assert [hit.id for hit in long][:4] == [hit.id for hit in short]
    assert len(long) == 39


def test_equal_scores_stand_by_id_descending_as_in_trec_eval(make: Making) -> None:
    collection = make()
    collection.add([{"id": name, "text": "the same words"} for name in "bcad"])
    assert [hit.id for hit in collection.search("same", k=2)] == ["d", "c"]


def test_searching_from_several_threads_gives_the_same_answers(notes: Collection) -> None:
    answers: list[list[str]] = []

    def ask() -> None:
        for _ in range(20):
            answers.append([hit.id for hit in notes.search("cold cough", k=3)])

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 80
    assert all(answer == answers[0] for answer in answers)


def test_once_nothing_more_matches_no_deeper_search_is_made(make: Making, monkeypatch: pytest.MonkeyPatch) -> None:
    things = make(recipe=Recipe(retrieve=RetrieveSettings(vectors=0, words=2)))
    things.add({"id": str(number), "text": "rest" if number else "zinc"} for number in range(100))
    asked, search = [], WordIndex.search
    monkeypatch.setattr(WordIndex, "search", lambda *given, **options: asked.append(given) or search(*given, **options))
    assert [hit.id for hit in things.search("zinc", k=50)] == ["0"]
    assert len(asked) == 2


# -- documents like these ------------------------------------------------------------------------------------------------------


@pytest.fixture
def things(make: Making, tiny_model: Path) -> Collection:
    collection = make(model=str(tiny_model))
    texts = [
        "zinc shortens a cold",
        "zinc shortens a cold.",
        "zinc shortens the cold",
        "bread and water",
        "honey eases a cough",
    ]
    collection.add([{"id": f"d{number}", "text": text, "odd": number % 2 == 1} for number, text in enumerate(texts)])
    return collection


def test_similar_documents_are_the_nearest_by_cosine_without_those_given(things: Collection) -> None:
    encoder = things.encoder
    assert encoder is not None
    vectors = encoder.encode([document.text for document in things.get([f"d{number}" for number in range(5)]) if document])
    expected = [f"d{number}" for number in np.argsort(-(vectors @ vectors[0])) if number != 0]
    found = things.similar("d0", k=4)
    assert [hit.id for hit in found] == expected
    assert found[0].score == pytest.approx(float((vectors @ vectors[0])[int(expected[0][1])]), abs=1e-4)


def test_what_is_unlike_is_moved_away_from(things: Collection) -> None:
    plain = {hit.id: hit.score for hit in things.similar("d0", k=4)}
    away = {hit.id: hit.score for hit in things.similar("d0", k=4, unlike="d3")}
    assert "d3" not in away
    assert all(away[name] != plain[name] for name in away)


def test_likeness_is_looked_for_in_one_state_though_others_write(things: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    mean, written = things._mean_vector, []

    def meanwhile(ids: Sequence[str], index: VectorIndex) -> Vectors:
        if not written:
            written.append(things.add({"id": "d0", "text": "something else, since a moment"}))
        return mean(ids, index)

    monkeypatch.setattr(things, "_mean_vector", meanwhile)
    assert len(things.similar("d0", k=3)) == 3


def test_similar_documents_obey_a_condition_and_a_wish_for_variety(things: Collection) -> None:
    assert {hit.id for hit in things.similar("d0", where="odd = true")} == {"d1", "d3"}
    plain = {hit.id for hit in things.similar("d0", k=2)}
    varied = {hit.id for hit in things.similar("d0", k=2, diversity=0.9)}
    assert varied != plain


@pytest.mark.parametrize(("arguments", "said"), [({"like": "nobody"}, "nobody"), ({"like": []}, "at least one id")])
def test_similar_to_nothing_known_is_refused(things: Collection, arguments: dict[str, object], said: str) -> None:
    with pytest.raises(QueryError, match=said):
        things.similar(**arguments)  # type: ignore[arg-type]


def test_similar_without_vectors_says_how_to_get_them(notes: Collection) -> None:
    with pytest.raises(ModelMismatchError, match="rebuild --encode --model MODEL"):
        notes.similar("zinc")


def test_similar_in_an_empty_collection_says_what_is_not_there(make: Making, tiny_model: Path) -> None:
    with pytest.raises(QueryError, match="not in"):
        make(model=str(tiny_model)).similar("zinc")
