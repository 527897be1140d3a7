"""A collection answers: by quotes or by a model that is checked, within a budget and a time, or says that it does not know."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from twinrank import Collection, Document, Endpoint, Recipe
from twinrank.calibration import Platt
from twinrank.errors import CalibrationError, EndpointError, FilterError, ModelUnsupportedError, QueryError
from twinrank.parts import part_of
from twinrank.search.calibrate import Calibration

Making = Callable[..., Collection]
QUESTION = "does zinc shorten a cold?"


def recipe(model: Path, scorer: Path | None = None) -> Recipe:
    text = f'[encoder]\nmodel = "{model}"\n'
    if scorer is not None:
        text += f'[[rerank]]\nkind = "cross-encoder"\nmodel = "{scorer}"\ncandidates = 20\n'
    return Recipe.parse(text)


# -- quoting ----------------------------------------------------------------------------------------------------------------


def test_an_answer_quotes_the_sentence_that_answers(notes: Collection) -> None:
    answer = notes.answer(QUESTION, quotes=1)
    (quote,) = answer.quotes
    assert (quote.text, quote.id, quote.title, quote.source) == (
        "Zinc lozenges may shorten a common cold by a day.",
        "zinc",
        "Zinc",
        1,
    )
    assert (answer.kind, answer.known, answer.supported, answer.claims) == ("extractive", True, True, ())
    assert answer.text == f"{quote.text} [1]"
    assert str(answer) == f"{quote.text} [1]\n\n[1] Zinc  zinc"
    assert answer.scored_by == "the words they share"
    assert any("nothing was calibrated" in note for note in answer.notes)


def test_a_quote_is_the_stored_text_letter_for_letter(make: Making) -> None:
    collection = make(recipe=Recipe.parse('[passages]\nsize = 16\noverlap = 4\nalso = ["title", "asks"]'))
    text = (
        "Zinc\u200b (“Zn”)\u00a0is a metal;\n it may  shorten… Say <b>so</b> & go.\n\n- Take 3 mg.\n- Or 4.\r\nCafe\u0301 zinc"
    )
    collection.add([{"id": "odd", "title": "About zinc", "text": text, "asks": ["Does zinc help? Ask a doctor.", "zinc?"]}])
    document = collection.get(["odd"])[0]
    assert isinstance(document, Document)
    answer = collection.answer("zinc cold mg doctor cafe", quotes=50)
    assert {quote.part for quote in answer.quotes} >= {"", "asks[0]"}
    for quote in answer.quotes:
        assert (part_of(document, quote.part) or "")[quote.start : quote.end] == quote.text
    for source in answer.sources:
        for excerpt in source.excerpts:
            assert (part_of(document, excerpt.part) or "")[excerpt.start : excerpt.end] == excerpt.text


def test_quotes_are_best_first_and_none_comes_twice(make: Making) -> None:
    collection = make()
    collection.add([{"id": name, "text": f"Zinc shortens a cold. Sentence {name} is about the zinc."} for name in "abc"])
    answer = collection.answer(QUESTION, quotes=10)
    scores = [quote.score for quote in answer.quotes]
    assert scores == sorted(scores, reverse=True)
    assert len({quote.text for quote in answer.quotes}) == len(answer.quotes) == 4


def test_a_condition_chooses_what_is_answered_from(notes: Collection) -> None:
    answer = notes.answer("what helps against a cough?", where="lang = 'fr'")
    assert {quote.id for quote in answer.quotes} <= {"miel"}
    with pytest.raises(FilterError):
        notes.answer("cough", where="lang =")


def test_sentences_are_chosen_by_the_encoder_where_there_is_one(make: Making, tiny_model: Path) -> None:
    collection = make(model=str(tiny_model))
    collection.add([{"id": "a", "text": "Zinc shortens a cold. Bread and water. Honey eases a cough."}])
    answer = collection.answer("zinc cold", quotes=3)
    assert len(answer.quotes) == 3
    assert answer.scored_by == collection.encoder.name  # type: ignore[union-attr]
    assert answer.budget is not None
    encoder = collection.encoder
    assert encoder is not None
    assert answer.budget.used == len(encoder.token_offsets("Zinc shortens a cold. Bread and water. Honey eases a cough."))


def test_sentences_are_chosen_by_the_cross_encoder_where_the_recipe_has_one(
    make: Making, tiny_model: Path, tiny_cross_encoder: Path
) -> None:
    collection = make(recipe=recipe(tiny_model, tiny_cross_encoder), model=None)
    collection.add([{"id": "a", "title": "colds", "text": "Zinc shortens a cold. Bread and water. Honey eases a cough."}])
    answer = collection.answer("zinc cold", quotes=3)
    assert len(answer.quotes) == 3
    assert "cross-encoder" in answer.scored_by
    assert answer.certificates


def test_a_deadline_that_passed_leaves_the_sentences_to_their_words(make: Making, tiny_model: Path) -> None:
    collection = make(model=str(tiny_model))
    collection.add([{"id": "a", "text": "Zinc shortens a cold. Bread and water."}])
    answer = collection.answer("zinc cold", deadline=0)
    assert answer.quotes[0].text == "Zinc shortens a cold."
    assert answer.scored_by == "the words they share"
    assert any("deadline left no time" in note for note in answer.notes)


def test_an_answer_is_json(notes: Collection) -> None:
    answer = notes.answer(QUESTION)
    values = json.loads(json.dumps(answer.as_json(), allow_nan=False))
    assert values["known"] is True
    assert values["quotes"][0]["id"] == "zinc"
    assert set(values) == {"known", "supported", *(field.name for field in dataclasses.fields(answer))}


# -- not knowing ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("question", ["xylophone", "a"])
def test_where_nothing_is_found_nothing_is_known(notes: Collection, question: str) -> None:
    answer = notes.answer(question)
    assert (answer.kind, answer.text, answer.known, answer.supported) == ("none", "I do not know.", False, False)
    assert "nothing was found" in answer.notes


def test_an_empty_collection_knows_nothing(make: Making) -> None:
    assert make().answer("anything").text == "I do not know."


@pytest.mark.parametrize("question", ["", " ", "\x00"])
def test_an_empty_question_is_refused(notes: Collection, question: str) -> None:
    with pytest.raises(QueryError, match="empty"):
        notes.answer(question)


@pytest.mark.parametrize("quotes", [0, -1, True, 1.5])
def test_no_quotes_are_refused(notes: Collection, quotes: object) -> None:
    with pytest.raises(QueryError, match="quotes"):
        notes.answer("zinc", quotes=quotes)  # type: ignore[arg-type]


def calibrate(collection: Collection, middle: float) -> None:
    """A document of this BM25 score is as likely relevant as not."""
    feature = collection.features()[0].name
    calibrator = Platt(slope=50.0, intercept=-50.0 * middle)
    collection.keep_calibration(Calibration(calibrator, (feature,), collection.identity(), 20, {}, {}))


def test_a_calibrated_collection_answers_from_what_is_rather_relevant_than_not(notes: Collection) -> None:
    scores = [hit.score for hit in notes.search("cold", k=4)]
    assert len(scores) == 2
    calibrate(notes, (scores[0] + scores[1]) / 2)
    answer = notes.answer("cold")
    assert answer.calibrated
    assert [source.id for source in answer.sources] == [notes.search("cold")[0].id]
    assert answer.sources[0].probability is not None
    assert answer.sources[0].probability > 0.5
    assert answer.verdict is not None
    assert not any("calibrated" in note for note in answer.notes)


def test_a_calibrated_collection_says_that_it_does_not_know(notes: Collection) -> None:
    calibrate(notes, 1000.0)
    answer = notes.answer("cold")
    assert (answer.kind, answer.text, answer.quotes, answer.sources) == ("none", "I do not know.", (), ())
    assert any(note.startswith("nothing relevant found") for note in answer.notes)
    assert notes.answer("cold", min_probability=0.0).known  # if it is allowed to


def test_a_risk_without_a_calibration_is_refused(notes: Collection) -> None:
    with pytest.raises(CalibrationError, match="twinrank calibrate"):
        notes.answer("cold", risk=0.1)


def test_no_model_is_asked_where_nothing_is_found(notes: Collection, model: Any) -> None:
    answer = notes.answer("xylophone", endpoint=Endpoint(model.url, "m"))
    assert not answer.known
    assert model.asked == []


# -- written by a model -----------------------------------------------------------------------------------------------------


def test_a_models_sentences_are_checked_against_what_they_cite(notes: Collection, model: Any) -> None:
    model.say = lambda messages: (
        "Zinc lozenges may shorten a common cold by a day [1]. Honey cures it in 3 hours [1]. "
        "Zinc is blue. Rest and water help against most things [9]."
    )
    answer = notes.answer(QUESTION, endpoint=Endpoint(model.url, "m"))
    assert answer.kind == "generative"
    assert [(claim.standing, claim.citations, claim.removed) for claim in answer.claims] == [
        ("supported", (1,), ()),
        ("unsupported", (1,), ()),
        ("uncited", (), ()),
        ("uncited", (), (9,)),
    ]
    assert answer.text.split("\n") == [
        "Zinc lozenges may shorten a common cold by a day. [1]",
        "Honey cures it in 3 hours. [1] [unsupported]",
        "Zinc is blue. [no source]",
        "Rest and water help against most things. [no source]",
    ]
    assert not answer.supported
    assert answer.checked_by == "shared words, numbers and negation"
    assert any(note.startswith("3 of 4 sentences not borne out") for note in answer.notes)


def test_a_model_sees_the_passages_under_their_numbers_and_the_question(notes: Collection, model: Any) -> None:
    answer = notes.answer(QUESTION, endpoint=Endpoint(model.url, "m"))
    prompt = model.asked[0]["messages"][1]["content"]
    for source in answer.sources:
        assert f"begin passage {source.number} " in prompt
        assert source.text in prompt
    assert prompt.endswith(QUESTION)


@pytest.mark.parametrize("reply", ["I do not know.", "I don't know", "I don’t know.", ' "I do not know." '])
def test_a_model_that_does_not_know_is_believed(notes: Collection, model: Any, reply: str) -> None:
    model.say = lambda _: reply
    answer = notes.answer(QUESTION, endpoint=Endpoint(model.url, "m"))
    assert (answer.kind, answer.text) == ("none", "I do not know.")
    assert any("the model says" in note for note in answer.notes)


def test_two_citations_may_bear_a_sentence_out_together(notes: Collection, model: Any) -> None:
    model.say = lambda messages: "Zinc may shorten a common cold by a day, and rest and water help against most things [1][2]."
    answer = notes.answer("cold", endpoint=Endpoint(model.url, "m"))
    assert {source.id for source in answer.sources} == {"zinc", "rest"}
    assert answer.claims[0].standing == "supported"


def test_a_model_that_cannot_be_asked_is_told(notes: Collection, model: Any) -> None:
    model.statuses = [401]
    with pytest.raises(EndpointError, match="401"):
        notes.answer(QUESTION, endpoint=Endpoint(model.url, "m"))


def test_a_verifier_that_cannot_verify_is_refused(notes: Collection, model: Any, tiny: Any, tmp_path: Path) -> None:
    folder = tiny.write_trunk(tmp_path / "labels", "bert", labels=3)
    with pytest.raises(ModelUnsupportedError, match="entailment"):
        notes.answer(QUESTION, endpoint=Endpoint(model.url, "m"), verifier=str(folder))
    assert model.asked == []  # told before anybody is asked


def test_quotes_are_of_one_state_though_others_write(notes: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    find, written = notes._find, []

    def meanwhile(*arguments: Any) -> Any:
        found = find(*arguments)
        if not written:
            written.append(notes.add({"id": "zinc", "title": "Zinc", "text": "Zinc is said to shorten a cold by an hour."}))
        return found

    monkeypatch.setattr(notes, "_find", meanwhile)
    answer = notes.answer(QUESTION, quotes=1)
    assert answer.quotes[0].text == "Zinc is said to shorten a cold by an hour."
    assert [document.text for document in notes.get(["zinc"]) if document] == ["Zinc is said to shorten a cold by an hour."]


def test_what_is_cited_is_encoded_once_for_all_claims(
    make: Making, minilm_folder: Path, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = make(model=str(minilm_folder))
    collection.add([{"id": "zinc", "text": "Zinc lozenges may shorten a common cold by a day. They taste of metal."}])
    seen: list[str] = []
    encode = collection._loaded.encode
    monkeypatch.setattr(
        collection._loaded, "encode", lambda encoder, texts, side: seen.extend(texts) or encode(encoder, texts, side)
    )
    model.say = lambda _: "Zinc lozenges may shorten a cold by a day [1]. Zinc lozenges taste of metal [1]. Cheese is aged [1]."
    answer = collection.answer(QUESTION, endpoint=Endpoint(model.url, "m"))
    assert [claim.standing for claim in answer.claims] == ["supported", "supported", "unsupported"]
    assert seen.count("They taste of metal.") == 1


def test_all_sources_are_numbered_without_a_gap(notes: Collection) -> None:
    numbers: Sequence[int] = [source.number for source in notes.answer("cold cough help").sources]
    assert list(numbers) == list(range(1, len(numbers) + 1))


def test_the_pages_lines_run(
    make: Making, tmp_path: Path, model: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "answers.md").read_text(encoding="utf-8")
    code = page.split("```python\n")[1].split("```")[0].replace("http://127.0.0.1:8080/v1", model.url)
    make("notes.twinrank").add([{"id": "zinc", "title": "Zinc", "text": "Zinc may shorten a cold. It tastes of metal."}])
    monkeypatch.chdir(tmp_path)
    model.say = lambda _: "Zinc may shorten a cold [1]. Zinc heals bones [1]."
    exec(code, {})
    assert capsys.readouterr().out.splitlines() == [
        "Zinc may shorten a cold. [1]",
        "It tastes of metal. [1]",
        "",
        "[1] Zinc  zinc",
        "zinc 0 24 Zinc may shorten a cold.",
        "zinc 25 44 It tastes of metal.",
        "False [('supported', ''), ('unsupported', 'what it cites says something else')]",
    ]
