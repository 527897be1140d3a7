"""What an explanation says is what the search did: its figures add up, equal the stages' own, and tell what was cut."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from twinrank import BiEncoder, Collection, CrossEncoder, LateInteraction, Recipe
from twinrank.calibration import Logistic, Platt
from twinrank.cli import main
from twinrank.errors import FilterError, InputError, QueryError
from twinrank.explain import Explanation, explain
from twinrank.explain.explanation import Effect, Occlusion
from twinrank.explain.occlusion import units, variants, without, words_of
from twinrank.explain.view import View, show_explanation
from twinrank.maxsim import maxsim
from twinrank.recipe import FuseSettings, GroupSettings, RerankSettings, RetrieveSettings, TokenSettings
from twinrank.search.calibrate import Calibration
from twinrank.search.rewrite import Rewrite
from twinrank.text import Chunking

NOTES = [
    {"id": "zinc", "title": "Zinc", "text": "Zinc lozenges may shorten a common cold by a day.", "year": 2021, "lang": "en"},
    {"id": "honey", "title": "Honey", "text": "Honey eases a cough at night.", "year": 2010, "lang": "en"},
    {"id": "rest", "text": "Rest and water help against most things, a cold among them.", "year": 2015},
    {"id": "bread", "text": "A man is eating a piece of bread. " * 20, "year": 2019},
    {"id": "piece", "text": "What is a piece of food? It is bread, and bread is food; zinc is not.", "lang": "fr"},
]
QUERY = "does zinc help against a cold?"
PLAIN = TokenSettings(format="int8", pooling=1.0)

Making = Callable[..., Collection]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Making]:
    """Open collections of NOTES; all are closed in the end."""
    opened: list[Collection] = []

    def open_collection(model: object = "none", notes: list[dict[str, Any]] | None = None, **changes: Any) -> Collection:
        opened.append(Collection(tmp_path / f"{len(opened)}", recipe=replace(Recipe(), **changes).with_model(str(model))))
        opened[-1].add(notes or NOTES)
        return opened[-1]

    yield open_collection
    for collection in opened:
        collection.close()


def whole(note: dict[str, Any]) -> str:
    return f"{note.get('title', '')} {note['text']}".strip()


# -- words ---------------------------------------------------------------------------------------------------------------


def test_the_weights_of_the_terms_add_up_to_the_score_of_the_search(make: Making) -> None:
    collection = make()
    told = explain(collection, "zinc zinc against a cold", "zinc")
    hit = collection.search("zinc zinc against a cold")[0]
    assert hit.id == "zinc"
    assert told.words is not None
    assert told.words.score == pytest.approx(hit.score, rel=1e-6)
    assert sum(term.adds for term in told.words.terms) == pytest.approx(hit.score, rel=1e-6)
    assert told.score == hit.score
    assert told.rank == 1


def test_each_term_tells_what_bm25_computes_with(make: Making) -> None:
    told = explain(make(), "Does ZINC ease coughs, honeyed or bread?", "honey", budget=0)
    assert told.words is not None
    terms = {term.term: term for term in told.words.terms}
    assert terms["honey"].words == ("honeyed",)
    assert (terms["honey"].count, terms["cough"].count, terms["zinc"].count) == (2, 1, 0)  # in the title and in the text
    assert (terms["honey"].passages, terms["zinc"].passages, terms["bread"].passages) == (1, 2, 2)
    passages = 5
    for term in terms.values():
        wanted = np.log(1 + (passages - term.passages + 0.5) / (term.passages + 0.5))
        assert term.idf == pytest.approx(wanted, rel=1e-5)
    assert terms["zinc"].adds == 0
    assert [told.passage.text[slice(*span)] for span in terms["honey"].spans] == ["Honey", "Honey"]
    assert [term.adds for term in told.words.terms] == sorted((term.adds for term in told.words.terms), reverse=True)


def test_the_weights_add_up_after_deletions_too(make: Making) -> None:
    collection = make()
    collection.delete(["rest", "bread"])
    told = explain(collection, "zinc food cold", "piece", budget=0)
    (hit,) = [hit for hit in collection.search("zinc food cold") if hit.id == "piece"]
    assert told.words is not None
    assert told.words.score == pytest.approx(hit.score, rel=1e-6)


def test_a_collection_without_a_model_is_explained_by_its_words_alone(make: Making) -> None:
    told = explain(make(), QUERY, "zinc")
    assert told.vectors is None
    assert told.tokens is None
    assert told.pairs == ()
    assert [stage.stage for stage in told.stages] == ["words"]
    assert told.sums == ()
    assert any(note.startswith("vectors: the recipe has no encoder") for note in told.notes)


# -- vectors -------------------------------------------------------------------------------------------------------------


def stage_score(collection: Collection, query: str, id: str, stage: str) -> float:
    """As the search has it."""
    (hit,) = [hit for hit in collection.search(query, k=10) if hit.id == id]
    (found,) = [one.score for one in hit.stages if one.stage == stage]
    assert found is not None
    return found


def test_the_vectors_score_is_that_of_the_search_and_words_are_left_out_by_hand(make: Making, tiny_model: Path) -> None:
    collection = make(tiny_model)
    told = explain(collection, QUERY, "zinc").vectors
    assert told is not None
    assert told.searched
    assert told.score == pytest.approx(stage_score(collection, QUERY, "zinc", "vectors"), abs=1e-6)
    assert told.recomputed == pytest.approx(told.score, abs=1e-5)
    encoder, passage = BiEncoder(tiny_model), whole(NOTES[0])
    query, document = encoder.encode([QUERY], side="query")[0], encoder.encode([passage])[0]
    without_zinc = encoder.encode(["does help against a cold?"], side="query")[0] @ document
    without_may = query @ encoder.encode(["Zinc Zinc lozenges shorten a common cold by a day."])[0]
    assert effect_of(told.query, "zinc") == pytest.approx(query @ document - without_zinc, abs=1e-5)
    assert effect_of(told.passage, "may") == pytest.approx(query @ document - without_may, abs=1e-5)
    assert told.query.unit == told.passage.unit == "word"
    assert told.passes == 2 + len(told.query.effects) + len(told.passage.effects)


def effect_of(text: Occlusion, word: str) -> float:
    return next(one.effect for one in text.effects if text.text[one.start : one.end] == word)


def test_a_twin_tower_encodes_each_side_by_its_own_tower(make: Making, tiny: ModuleType, tmp_path: Path) -> None:
    collection = make(tiny.write_twin_tower(tmp_path / "towers"))
    told = explain(collection, QUERY, "zinc")
    assert told.vectors is not None
    assert told.vectors.score == pytest.approx(stage_score(collection, QUERY, "zinc", "vectors"), abs=1e-6)
    assert told.vectors.recomputed == pytest.approx(told.vectors.score, abs=1e-5)
    assert told.tokens is None  # a network's tokens for queries and one for documents have no common space
    assert any(note.startswith("tokens:") for note in told.notes)


def test_what_lies_beyond_the_models_limit_is_told_and_has_no_effect(make: Making, tiny_model: Path) -> None:
    collection = make(tiny_model, passages=Chunking(size=0))
    told = explain(collection, QUERY, "bread").vectors
    assert told is not None
    encoder = BiEncoder(tiny_model)
    dropped = encoder.tokenize([told.passage.text]).dropped
    assert dropped is not None
    assert told.passage.dropped == dropped[0] > 0
    seen = told.passage.text[: told.passage.seen]
    assert encoder.tokenize([seen]).ids.tolist() == encoder.tokenize([told.passage.text]).ids.tolist()
    assert max(effect.end for effect in told.passage.effects) <= told.passage.seen
    assert told.recomputed == pytest.approx(told.score, abs=1e-5)


def test_a_budget_bounds_what_each_model_reads(make: Making, tiny_model: Path, tiny_cross_encoder: Path) -> None:
    collection = make(tiny_model, rerank=(RerankSettings(model=str(tiny_cross_encoder)),))
    for budget in (0, 8, 20, 256):
        told = explain(collection, QUERY, "bread", budget=budget)
        assert told.vectors is not None
        assert told.vectors.passes <= max(budget, 2)
        assert told.pairs[0].passes <= max(budget, 1)
        assert bool(told.vectors.passage.effects) == bool(budget)
        assert bool(told.vectors.query.effects) == bool(budget)


# -- leaving out ---------------------------------------------------------------------------------------------------------


def test_long_texts_are_left_out_by_sentences_and_longer_ones_by_runs_of_words() -> None:
    words, text = words_of("english"), "One two three. Four five six. Seven, eight!"
    assert units(text, words, 8)[0] == "word"
    assert [text[slice(*span)] for span in units(text, words, 3)[1]] == ["One two three. ", "Four five six. ", "Seven, eight!"]
    unit, spans = units(text, words, 2)
    assert unit == "4 words"
    assert [text[slice(*span)] for span in spans] == ["One two three. Four", "five six. Seven, eight"]
    assert units(text, words, 0) == ("", [])
    assert units("", words, 5) == ("word", [])


def test_leaving_out_a_word_doubles_no_space() -> None:
    text = "may shorten, a cold"
    assert [without(text, span) for span in ((0, 3), (4, 11), (13, 14), (15, 19))] == [
        "shorten, a cold",
        "may , a cold",
        "may shorten, cold",
        "may shorten, a ",
    ]


@given(st.text(alphabet="ab, .\n東京", max_size=60), st.integers(1, 12))
def test_units_lie_in_order_apart_and_within_their_number(text: str, most: int) -> None:
    _, spans = units(text, words_of("english"), most)
    assert len(spans) <= most
    ends = [end for span in spans for end in span]
    assert ends == sorted(ends)
    assert all(0 <= start < end <= len(text) for start, end in spans)
    assert all(len(shorter) < len(text) for shorter in variants(text, spans))


@pytest.mark.parametrize("budget", [-1, 5, True, 2.5])
def test_a_budget_that_is_none_is_refused(make: Making, budget: Any) -> None:
    with pytest.raises(InputError, match=f"0, or 8 and more; got {budget}"):
        explain(make(), QUERY, "zinc", budget=budget)


# -- tokens --------------------------------------------------------------------------------------------------------------


def check_alignment(told: Explanation, score: float, tolerance: float) -> None:
    """The matches add up to the score, and are the largest of their rows."""
    seen = told.tokens
    assert seen is not None
    assert seen.score == pytest.approx(score, abs=tolerance)
    assert sum(match.similarity for match in seen.matches) == pytest.approx(seen.score, abs=1e-4)
    assert len(seen.matches) == len(seen.query_tokens) == len(seen.matrix)
    for match, row in zip(seen.matches, seen.matrix, strict=True):
        assert len(row) == len(seen.passage_tokens)
        assert max(row) == pytest.approx(match.similarity, abs=6e-4)  # rounded to three places


def test_the_alignment_reads_the_vectors_that_are_kept(make: Making, tiny_model: Path) -> None:
    collection = make(tiny_model, tokens=PLAIN, rerank=(RerankSettings(kind="maxsim", weight=1.0),))
    told = explain(collection, QUERY, "zinc", budget=0)
    assert told.tokens is not None
    assert told.tokens.stored
    check_alignment(told, stage_score(collection, QUERY, "zinc", "maxsim"), 1e-3)
    words = [told.tokens.query[slice(*token.spans[0])] for token in told.tokens.query_tokens]
    assert words == ["does", "zinc", "help", "against", "a", "cold", "?"]
    assert all(told.passage.text[slice(*span)] for token in told.tokens.passage_tokens for span in token.spans)


def test_without_kept_vectors_the_bi_encoders_own_are_aligned(make: Making, tiny_model: Path) -> None:
    told = explain(make(tiny_model), QUERY, "zinc", budget=0)
    late = LateInteraction(tiny_model)
    assert told.tokens is not None
    assert not told.tokens.stored
    check_alignment(told, float(late.score([(QUERY, whole(NOTES[0]))])[0]), 1e-4)


def test_pooled_vectors_stand_for_the_tokens_that_were_pooled(make: Making, tiny_model: Path) -> None:
    told = explain(make(tiny_model, tokens=TokenSettings(format="int8", pooling=2.0)), QUERY, "zinc", budget=0)
    assert told.tokens is not None
    spans = sorted(span for token in told.tokens.passage_tokens for span in token.spans)
    offsets = BiEncoder(tiny_model).token_offsets(told.passage.text)
    assert spans == [span for span in offsets if told.passage.text[slice(*span)] != "."]  # punctuation takes no part
    assert len(told.tokens.passage_tokens) == len(spans) // 2
    late = LateInteraction(tiny_model, pool_factor=2.0)
    wanted = maxsim(late.encode([QUERY], side="query")[0], late.encode([told.passage.text]))[0]
    check_alignment(told, float(wanted), 0.05)


@pytest.mark.parametrize("layout", ["pylate", "pylate-attending", "pylate-plain", "stanford", "native-fixed", "native-pooled"])
def test_every_vector_of_a_colbert_has_its_token(
    layout: str, tiny: ModuleType, tiny_colbert: ModuleType, tmp_path: Path
) -> None:
    late = LateInteraction(tiny_colbert.write_colbert(tiny, tmp_path / layout, layout))
    for side, texts in (("query", tiny_colbert.QUERIES), ("document", tiny_colbert.DOCUMENTS)):
        for text in texts:
            pieces = late.pieces(text, side=side)
            vectors = late.embed(late.tokenize([text], side=side), side=side)[0]
            assert len(pieces) == len(vectors)
            shown = [piece for group in pieces for piece in group if piece.end and not piece.token.startswith("[")]
            for piece in shown:
                said = text[piece.start : piece.end].lower()
                assert said == piece.token.removeprefix("##") or not said.isascii()  # the tokenizer takes accents off
            assert shown or not any(letter.isalpha() for letter in text)


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta", "mpnet"])
def test_a_prompt_stands_for_no_characters_of_the_text(family: str, tiny: ModuleType, tmp_path: Path) -> None:
    prompts = {"query": "what is ", "document": "a piece of "}
    late = LateInteraction(tiny.write_bi_encoder(tmp_path / family, family, prompts=prompts))
    for side in ("query", "document"):
        for text in ("zinc may shorten a cold", "Größe 東京, zinc", "bread " * 150, ""):
            pieces = late.pieces(text, side=side)
            vectors = late.embed(late.tokenize([text], side=side), side=side)[0]
            assert len(pieces) == len(vectors)
            spans = [(piece.start, piece.end) for (piece,) in pieces if piece.end > piece.start]  # a lone space has none
            assert spans == sorted(spans)
            assert all(0 <= start < end <= len(text) for start, end in spans)
            if text.startswith("zinc"):
                assert "".join(text[start:end] for start, end in spans).replace(" ", "") == text.replace(" ", "")


def test_a_colbert_as_the_encoder_is_explained_by_its_tokens(
    make: Making, tiny: ModuleType, tiny_colbert: ModuleType, tmp_path: Path
) -> None:
    collection = make(tiny_colbert.write_colbert(tiny, tmp_path / "colbert", "pylate"), tokens=PLAIN)
    told = explain(collection, QUERY, "zinc")
    assert told.vectors is None
    check_alignment(told, stage_score(collection, QUERY, "zinc", "tokens"), 1e-3)
    assert told.tokens is not None
    assert sum(not token.spans for token in told.tokens.query_tokens) > 0  # masks and markers
    assert {part.name for part in told.sums[0].parts} == {"tokens", "words"}


# -- pairs ---------------------------------------------------------------------------------------------------------------


def test_a_pairs_score_is_the_rerankers_and_words_of_both_texts_are_left_out(
    make: Making, tiny_model: Path, tiny_cross_encoder: Path
) -> None:
    rerank = RerankSettings(model=str(tiny_cross_encoder))
    collection = make(tiny_model, rerank=(rerank,))
    told = explain(collection, QUERY, "zinc").pairs[0]
    assert told.score == pytest.approx(stage_score(collection, QUERY, "zinc", rerank.name), abs=1e-6)
    scorer, passage = CrossEncoder(tiny_cross_encoder), whole(NOTES[0])
    left = scorer.score([(QUERY, passage), ("does help against a cold?", passage), (QUERY, passage.replace(" may", ""))])
    assert effect_of(told.query, "zinc") == pytest.approx(left[0] - left[1], abs=1e-5)
    assert effect_of(told.passage, "may") == pytest.approx(left[0] - left[2], abs=1e-5)


def test_the_end_of_a_pair_that_is_too_long_is_told(make: Making, tiny_model: Path, tiny_cross_encoder: Path) -> None:
    stages = (RerankSettings(model=str(tiny_cross_encoder), max_tokens=24),)
    with pytest.warns(UserWarning, match="24 tokens"):
        told = explain(make(tiny_model, rerank=stages), QUERY, "bread").pairs[0]
    scorer = CrossEncoder(tiny_cross_encoder, max_tokens=24)
    assert told.passage.dropped > 0
    seen = told.passage.text[: told.passage.seen]
    assert scorer.count_tokens([(QUERY, seen)])[0] == 24
    assert scorer.count_tokens([(QUERY, seen + " bread")])[0] == 24
    assert told.query.dropped == 0


def test_windows_are_counted_as_passes(make: Making, tiny_model: Path, tiny_cross_encoder: Path) -> None:
    stages = (RerankSettings(model=str(tiny_cross_encoder), max_tokens=64, windows=True),)
    told = explain(make(tiny_model, rerank=stages, passages=Chunking(size=0)), QUERY, "bread", budget=40).pairs[0]
    assert told.passage.dropped == 0
    assert told.passes <= 40


# -- the way through the search ------------------------------------------------------------------------------------------

FUSIONS = [
    FuseSettings(method="auto"),
    FuseSettings(method="score"),
    FuseSettings(method="rank"),
]


@pytest.mark.parametrize("fuse", FUSIONS, ids=lambda settings: settings.method)
@pytest.mark.parametrize("id", ["zinc", "rest", "bread"])
def test_the_parts_add_up_to_the_fused_score(make: Making, tiny_model: Path, fuse: FuseSettings, id: str) -> None:
    collection = make(tiny_model, fuse=fuse)
    told = explain(collection, QUERY, id, budget=0)
    (fused,) = told.sums
    assert fused.method == fuse.method
    assert sum(part.adds for part in fused.parts) == pytest.approx(fused.score)
    assert fused.score == pytest.approx(stage_score(collection, QUERY, id, "fuse"), abs=1e-6)
    (hit,) = [hit for hit in collection.search(QUERY) if hit.id == id]
    assert (told.rank, told.score) == (hit.rank, hit.score)
    assert {stage.stage: stage.rank for stage in told.stages} == {stage.stage: stage.rank for stage in hit.stages}


@pytest.mark.parametrize("kind", ["maxsim", "cross-encoder"])
@pytest.mark.parametrize("id", ["zinc", "rest"])
def test_a_rerank_that_mixes_tells_both_sides(
    make: Making, tiny_model: Path, tiny_cross_encoder: Path, kind: Any, id: str
) -> None:
    model = str(tiny_cross_encoder) if kind == "cross-encoder" else ""
    rerank = RerankSettings(model=model, kind=kind, weight=0.3)
    collection = make(tiny_model, tokens=PLAIN, rerank=(rerank,))
    told = explain(collection, QUERY, id, budget=0)
    fused, mixed = told.sums
    assert [part.name for part in mixed.parts] == ["before", rerank.name]
    assert [part.weight for part in mixed.parts] == pytest.approx([0.7, 0.3])
    assert sum(part.adds for part in mixed.parts) == pytest.approx(told.score, abs=1e-5)
    assert mixed.parts[0].score == pytest.approx(fused.score, abs=1e-6)


def test_a_document_that_is_no_candidate_is_told_what_it_would_have_needed(make: Making, tiny_model: Path) -> None:
    collection = make(tiny_model, retrieve=RetrieveSettings(vectors=2, words=1))
    ranking, found = collection.pipeline().run(QUERY)
    everything = collection.pipeline().sources[0][0].ask(QUERY).find(10, None)
    missing = next(note["id"] for note in reversed(NOTES) if key_of(collection, note["id"]) not in ranking.keys)
    told = explain(collection, QUERY, missing, k=1, budget=0)
    assert told.rank is None
    assert told.score is None
    vectors, words, fused = told.stages
    assert vectors.rank is None
    assert everything.keys[(vectors.behind or 0) - 1] == key_of(collection, missing)
    assert vectors.needed == pytest.approx(float(found.stages[0].ranking.scores[-1]))
    assert vectors.score is not None
    assert vectors.needed is not None
    assert vectors.score < vectors.needed
    assert (words.score is None) == ("words finds nothing of the query in it" in told.outcome)
    assert fused.rank is None
    assert told.sums[0].score == pytest.approx(fused.score or 0)
    assert told.outcome.startswith(f"not among the candidates: vectors has it at rank {vectors.behind} with")


def test_a_document_that_fills_up_an_answer_is_told_to_stand_behind_the_candidates(make: Making, tiny_model: Path) -> None:
    collection = make(tiny_model, retrieve=RetrieveSettings(vectors=2, words=1))
    hit = collection.search(QUERY)[-1]
    told = explain(collection, QUERY, hit.id, budget=0)
    assert (told.rank, told.score) == (hit.rank, hit.score)
    assert told.outcome.startswith("not among the candidates: ")
    assert told.outcome.endswith(f"; at rank {hit.rank} it fills up an answer of 10 that has too few candidates")


def key_of(collection: Collection, id: str) -> int:
    from twinrank.types import Membership

    return int(collection.store.select(Membership("id", (id,)))[0])


def test_a_document_behind_the_rerankers_candidates_is_told_where_it_dropped_out(
    make: Making, tiny_model: Path, tiny_cross_encoder: Path
) -> None:
    rerank = RerankSettings(model=str(tiny_cross_encoder), candidates=2)
    collection = make(tiny_model, rerank=(rerank,))
    last = collection.search(QUERY)[-1]
    told = explain(collection, QUERY, last.id, budget=0)
    assert told.rank == last.rank
    stage = told.stages[-1]
    assert not stage.scored
    assert stage.came is not None
    assert stage.needed is not None
    assert stage.came < stage.needed
    passage = told.passage.text
    assert stage.score == pytest.approx(float(CrossEncoder(tiny_cross_encoder).score([(QUERY, passage)])[0]), abs=1e-6)
    assert f"did not read it: it came with {stage.came:.4g} and needed {stage.needed:.4g}" in told.outcome


def test_a_condition_that_leaves_a_document_out_is_told_part_by_part(make: Making, tiny_model: Path) -> None:
    collection = make(tiny_model)
    told = explain(collection, QUERY, "honey", where="year >= 2015 and lang = 'en'", budget=0)
    assert told.filter is not None
    assert not told.filter.passes
    assert told.filter.failed == ("year >= 2015 (it has 2010)",)
    assert told.outcome == "left out by the condition: year >= 2015 (it has 2010)"
    assert told.filter.passages == 1
    assert told.rank is None
    assert told.stages[0].score == pytest.approx(explain(collection, QUERY, "honey", budget=0).stages[0].score)
    lacking = explain(collection, QUERY, "piece", where="year >= 2015", budget=0)
    assert lacking.filter is not None
    assert lacking.filter.failed == ("year >= 2015 (it has none)",)
    kept = explain(collection, QUERY, "zinc", where="year >= 2015 and lang = 'en'", budget=0)
    assert kept.filter is not None
    assert kept.filter.passes
    assert kept.rank == 1


def test_a_condition_that_leaves_nothing_is_explained_too(make: Making, tiny_model: Path) -> None:
    told = explain(make(tiny_model), QUERY, "zinc", where="year > 3000", budget=0)
    assert told.of == 0
    assert told.filter is not None
    assert told.filter.passages == 0
    json.dumps(told.as_json(), allow_nan=False)


def test_the_best_passage_is_explained_and_its_part_told(make: Making, tiny_model: Path) -> None:
    notes = [
        {"id": "long", "title": "Remedies", "text": "Bread is food. " * 60 + "Zinc may shorten a cold.", "asks": ["zinc?"]}
    ]
    collection = make(tiny_model, notes=notes, passages=Chunking(size=64, overlap=0, also=("title", "asks")))
    told = explain(collection, "Remedies", "long", budget=0)
    hit = collection.search("Remedies")[0]
    assert (told.passage.part, told.passage.start, told.passage.end) == (hit.part, hit.start, hit.end)
    assert told.passage.of == collection.store.count_passages()
    by_words = make(notes=notes, passages=Chunking(size=64, overlap=0, also=("title", "asks")))
    told = explain(by_words, "asks shorten", "long")
    assert told.passage.part == ""
    assert "shorten" in told.passage.text


@pytest.mark.parametrize("by", ["best", "sum", "none"])
def test_the_rank_is_the_searchs_however_passages_are_grouped(make: Making, by: Any) -> None:
    notes = [{"id": f"n{number}", "text": "Zinc helps. " * 40 + "cold " * (number % 3)} for number in range(6)]
    collection = make(notes=notes, passages=Chunking(size=32, overlap=0), group=GroupSettings(by=by))
    for hit in {hit.id: hit for hit in reversed(collection.search("zinc cold", k=100))}.values():
        told = explain(collection, "zinc cold", hit.id)
        assert (told.rank, told.score) == (hit.rank, hit.score)


def test_a_rewritten_query_is_explained_in_all_its_forms(
    make: Making, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = make(tiny_model)
    pipeline = replace(collection.pipeline(), rewrite=Rewrite("other", lambda query: "zinc bread"))
    monkeypatch.setattr(collection, "pipeline", lambda: pipeline)
    told = explain(collection, QUERY, "zinc", budget=0)
    assert told.forms == (QUERY, "zinc bread")
    assert [stage.stage for stage in told.stages] == ["vectors 1", "words 1", "vectors 2", "words 2", "fuse"]
    assert told.sums[0].score == pytest.approx(told.score, abs=1e-6)
    assert told.words is not None
    assert told.words.query == QUERY  # says more of this passage
    assert told.vectors is not None
    assert told.vectors.query.text == "zinc bread"


def test_a_certificate_tells_how_far_a_rerank_went(make: Making, tiny_model: Path, tiny_cross_encoder: Path) -> None:
    collection = make(tiny_model, rerank=(RerankSettings(model=str(tiny_cross_encoder), candidates=3),))
    (certificate,) = explain(collection, QUERY, "zinc", budget=0).certificates
    assert (certificate.pairs, certificate.of) == (3, 3)


# -- probability ---------------------------------------------------------------------------------------------------------


def calibrate(collection: Collection, calibrator: Any, features: tuple[str, ...], depth: int = 3) -> None:
    collection.keep_calibration(Calibration(calibrator, features, collection.identity(), depth, {}, {}))


def test_what_the_features_add_is_the_log_odds_of_the_hits_probability(make: Making, tiny_model: Path) -> None:
    collection = make(tiny_model)
    calibrate(collection, Logistic((0.8, 1.0), (0.1, 2.0), (0.5, 1.5), -0.7), ("score of vectors", "score of words"))
    told = explain(collection, QUERY, "zinc", budget=0).probability
    hit = collection.search(QUERY)[0]
    assert told is not None
    assert hit.id == "zinc"
    assert told.probability == pytest.approx(hit.probability, abs=1e-12)
    logit = told.base + sum(feature.adds for feature in told.features)
    assert 1 / (1 + np.exp(-logit)) == pytest.approx(told.probability)
    assert abs(told.features[0].adds) >= abs(told.features[1].adds)


def test_a_calibration_of_one_score_names_it(make: Making) -> None:
    collection = make()
    calibrate(collection, Platt(2.0, -1.0), ("score of words",), depth=2)
    told = explain(collection, "zinc cold", "zinc").probability
    assert told is not None
    assert [feature.name for feature in told.features] == ["score of words"]
    assert told.features[0].adds == pytest.approx(2 * told.features[0].value - 1)
    last = explain(collection, "zinc cold", collection.search("zinc cold")[2].id).probability
    assert last is not None
    assert last.probability is None
    assert last.note.endswith("it is not among the first 2")
    assert explain(make(), "zinc", "zinc").probability is None


# -- errors --------------------------------------------------------------------------------------------------------------


def test_what_cannot_be_explained_is_refused(make: Making) -> None:
    collection = make()
    with pytest.raises(QueryError, match="there is no document 'nobody' in"):
        explain(collection, QUERY, "nobody")
    with pytest.raises(QueryError, match="the query is empty"):
        explain(collection, " \n", "zinc")
    with pytest.raises(FilterError):
        explain(collection, QUERY, "zinc", where="year >")
    empty = explain(collection, "?!", "zinc")
    assert empty.words is not None
    assert empty.words.terms == ()
    assert empty.rank is None


@pytest.mark.parametrize(("vectors", "words"), [(100, 0), (0, 100)])
def test_an_architecture_that_is_not_searched_is_explained_and_said_not_to_count(
    make: Making, tiny_model: Path, vectors: int, words: int
) -> None:
    told = explain(make(tiny_model, retrieve=RetrieveSettings(vectors, words)), QUERY, "zinc", budget=0)
    assert told.sums == ()
    assert told.rank is not None
    assert told.vectors is not None
    assert told.vectors.searched == bool(vectors)
    assert told.words is not None
    assert told.words.score > 0
    assert ("words: the recipe does not search by them" in told.notes) == (not words)
    assert ("the recipe does not search by these" in printed(told, 80)) == (not vectors)


# -- what is shown -------------------------------------------------------------------------------------------------------


def test_an_explanation_is_plain_json(make: Making, tiny_model: Path, tiny_cross_encoder: Path) -> None:
    stages = (RerankSettings(kind="maxsim"), RerankSettings(model=str(tiny_cross_encoder)))
    told = explain(make(tiny_model, tokens=PLAIN, rerank=stages), QUERY, "zinc")
    values = json.loads(json.dumps(told.as_json(), allow_nan=False))
    assert values["id"] == "zinc"
    assert values["vectors"]["query"]["effects"][0].keys() == {"start", "end", "effect"}
    assert len(values["tokens"]["matrix"][0]) == len(values["tokens"]["passage_tokens"])


def printed(told: Explanation, width: int, **options: Any) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False, **options)
    show_explanation(told, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_the_view_fits_its_width_and_needs_no_colour(
    make: Making, tiny_model: Path, tiny_cross_encoder: Path, width: int
) -> None:
    stages = (RerankSettings(kind="maxsim"), RerankSettings(model=str(tiny_cross_encoder)))
    collection = make(tiny_model, tokens=PLAIN, rerank=stages)
    calibrate(collection, Platt(2.0, -1.0), ("score of words",))
    for id, where in (("zinc", None), ("bread", None), ("honey", "year > 2015")):
        shown = printed(explain(collection, QUERY, id, where=where), width)
        assert max(map(len, shown.splitlines())) <= width
        assert "\x1b" not in shown
        for title in ("way through the search", "words, BM25", "vectors, ", "tokens, ", "pair, ", "probability", "marks"):
            assert re.search(f"^{title}", shown, re.MULTILINE), title
    assert "\x1b[" in printed(explain(collection, QUERY, "zinc"), width, force_terminal=True, color_system="standard")


def test_marks_say_how_much_a_word_does() -> None:
    text = "zinc does help a cold"
    effects = (Effect(0, 4, 0.3), Effect(5, 9, 0.001), Effect(10, 14, -0.12), Effect(15, 16, 0.05), Effect(17, 21, 0.0))
    seen = Occlusion(text, "word", effects, len(text), 0)
    view = View(None, raised=False)  # type: ignore[arg-type]
    assert view.marked(seen).plain == "zinc+++ does help-- a+ cold"
    cut = replace(seen, seen=14, dropped=2, effects=effects[:3])
    assert view.marked(cut).plain == "zinc+++ does help-- … 2 tokens not read:  a cold"


def test_a_piece_of_a_word_is_shown_as_a_piece(make: Making, tiny_model: Path) -> None:
    shown = printed(explain(make(tiny_model), "zinc colds lozenge", "zinc", budget=0), 120)
    assert re.search(r"^ +colds +[+-]", shown, re.MULTILINE)
    assert re.search(r"^ +l… +[+-]", shown, re.MULTILINE)  # no piece of the tiny vocabulary is longer
    assert re.search(r"^ +…o… +[+-]", shown, re.MULTILINE)


def test_brackets_in_a_document_are_no_markup(make: Making) -> None:
    told = explain(make(notes=[{"id": "[bold]", "text": "a [red]zinc[/red] [/nothing]"}]), "zinc", "[bold]")
    assert "[bold]" in printed(told, 80)


# -- the command line ----------------------------------------------------------------------------------------------------


def test_the_command_prints_for_people_and_for_programs(make: Making, capsys: pytest.CaptureFixture[str]) -> None:
    collection = make()
    folder = str(collection.path)
    main(["explain", "zinc lozenges against", "-d", "zinc", "-c", folder])
    shown = capsys.readouterr().out
    assert "words, BM25" in shown
    assert "not in the passage: against" in shown
    main(["explain", "zinc lozenges against", "-d", "zinc", "-c", folder, "--json"])
    assert json.loads(capsys.readouterr().out)["rank"] == 1
    with pytest.raises(SystemExit) as stopped:
        main(["explain", "zinc", "-d", "nobody", "-c", folder])
    assert stopped.value.code == 1
    assert "there is no document 'nobody'" in capsys.readouterr().err


def test_search_with_explain_ends_with_the_command_that_says_more(make: Making, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(make().path)
    main(["search", "zinc's cold", "-c", folder, "--explain"])
    assert capsys.readouterr().err.splitlines()[-1] == f"twinrank explain 'zinc'\"'\"'s cold' -d zinc -c {folder} for more"
    main(["search", "zinc", "-c", folder])
    assert "twinrank explain" not in capsys.readouterr().err


# -- a real model --------------------------------------------------------------------------------------------------------


def test_a_real_encoder_leans_on_the_words_that_matter(make: Making, minilm_folder: Path) -> None:
    collection = make(minilm_folder, tokens=TokenSettings())
    told = explain(collection, QUERY, "zinc")
    assert told.vectors is not None
    assert told.vectors.score == pytest.approx(stage_score(collection, QUERY, "zinc", "vectors"), abs=1e-6)
    assert told.vectors.recomputed == pytest.approx(told.vectors.score, abs=1e-3)
    assert max(told.vectors.query.effects, key=lambda effect: effect.effect).start == QUERY.index("zinc")
    assert effect_of(told.vectors.query, "zinc") > 0.1 > abs(effect_of(told.vectors.query, "a"))
    assert told.tokens is not None
    assert told.tokens.stored
    matched = {
        QUERY[slice(*told.tokens.query_tokens[match.query].spans[0])]: [
            told.passage.text[slice(*span)].lower() for span in told.tokens.passage_tokens[match.passage].spans
        ]
        for match in told.tokens.matches
    }
    assert "zinc" in matched["zinc"]
    assert "cold" in matched["cold"]


def test_the_pages_python_runs(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "explain.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    assert code
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert told.returncode == 0, told.stderr
    shown = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    assert told.stdout.strip() == shown[0].strip()
