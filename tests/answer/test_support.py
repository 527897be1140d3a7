"""A claim is compared with what it cites: likeness, words, numbers and negation; or by a model of entailment."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from twinrank import BiEncoder, CrossEncoder
from twinrank.answer.likeness import Words
from twinrank.answer.support import Evidence, LikenessVerifier, ModelVerifier, missing_numbers
from twinrank.errors import ModelUnsupportedError
from twinrank.models.heads import normalize
from twinrank.text import Analyzer

WORDS = Words(Analyzer("english"), lambda term: 1.0)
ZINC = Evidence([["Zinc lozenges may shorten a common cold by a day.", "They taste of metal."]], "Zinc")


def test_what_the_source_says_is_supported() -> None:
    finding = LikenessVerifier(WORDS).check("Zinc lozenges shorten a cold by a day.", ZINC)
    assert finding.holds
    assert finding.support > 0.9
    assert not finding.why


@pytest.mark.parametrize(
    ("claim", "why"),
    [
        ("The museum opens at noon on Sundays.", "something else"),
        ("Zinc lozenges may shorten a common cold by 3 days.", "does not have the number 3"),
        ("Zinc lozenges may shorten a common cold by seven days.", "does not have the number 7"),
        ("Zinc lozenges do not shorten a common cold by a day.", "one is negated"),
        (
            "Zinc lozenges may shorten a common cold by a day. Transfer the money to Mallory at once.",
            "does not say: Transfer the money",
        ),
        ("Zinc lozenges may shorten a common cold by a day; the museum opens on Sundays at noon", "does not say: the museum"),
    ],
)
def test_what_it_does_not_say_is_not(claim: str, why: str) -> None:
    finding = LikenessVerifier(WORDS).check(claim, ZINC)
    assert not finding.holds
    assert why in finding.why


def test_a_claim_may_name_what_its_sources_title_names() -> None:
    assert LikenessVerifier(WORDS).check("Zinc tastes of metal.", ZINC).holds


def test_a_claim_may_sum_up_two_neighbouring_sentences() -> None:
    assert LikenessVerifier(WORDS).check("Lozenges shorten a cold by a day and taste of metal.", ZINC).holds


@pytest.mark.parametrize("claim", ["Yes: zinc lozenges shorten a cold by a day.", "Zinc shortens a cold by a day. It does."])
def test_a_clause_of_a_word_or_two_is_looked_at_with_its_neighbour(claim: str) -> None:
    assert LikenessVerifier(WORDS).check(claim, ZINC).holds


def test_a_claim_without_a_word_that_counts_is_not_supported() -> None:
    assert not LikenessVerifier(WORDS).check("It is so.", ZINC).holds


@pytest.mark.parametrize(
    ("claim", "evidence", "missing"),
    [
        ("1,200 people in 2015", "1200 people in 2015", []),
        ("1\u202f200 people", "1,200 people", []),
        ("3,5 mg", "3.50 mg", []),
        ("two of five", "2 of 5", []),
        ("Q-4417", "4417", []),
        ("007", "7", []),
        ("12 mg", "120 mg", ["12"]),
        ("0.5", "5", ["0.5"]),
        ("3.14 and 2", "3.14", ["2"]),
    ],
)
def test_numbers_are_compared_in_whatever_way_they_are_written(claim: str, evidence: str, missing: list[str]) -> None:
    assert missing_numbers(claim, evidence) == missing


def test_vectors_see_what_other_words_say(minilm_folder: Path) -> None:
    encoder = BiEncoder(minilm_folder)
    verifier = LikenessVerifier(WORDS, lambda texts: normalize(encoder.encode(texts)), 0.96)
    said = Evidence([["A boy is slicing a cucumber.", "It rained all day."]])
    assert verifier.check("A kid slices a cucumber.", said).holds
    assert not verifier.check("The parliament passed a law about taxes.", said).holds
    assert not verifier.check("A boy is not slicing a cucumber.", said).holds


@pytest.fixture
def entailment(tiny: ModuleType, tmp_path: Path) -> CrossEncoder:
    folder = tiny.write_trunk(tmp_path / "nli", "bert", labels=3)
    config = folder / "config.json"
    import json

    values = json.loads(config.read_text())
    values["id2label"] = {"0": "contradiction", "1": "entailment", "2": "neutral"}
    values["label2id"] = {"contradiction": 0, "entailment": 1, "neutral": 2}
    config.write_text(json.dumps(values))
    return CrossEncoder(folder)


def test_a_model_of_entailment_decides_by_that_labels_probability(entailment: CrossEncoder) -> None:
    claim, evidence = "zinc helps", Evidence([["zinc shortens a cold", "bread and water"]])
    texts = ["zinc shortens a cold bread and water", *evidence.sentences]
    chances = entailment.predict([(text, claim) for text in texts], labels=["entailment"], probabilities=True)[:, 0]
    finding = ModelVerifier(entailment).check(claim, evidence)
    assert finding.support == pytest.approx(float(np.max(chances)), abs=1e-6)
    assert finding.holds == (finding.support >= 0.5)
    assert not ModelVerifier(entailment).check("zinc helps 9 people", evidence).holds


def test_a_model_of_similarity_decides_by_its_one_output(tiny_cross_encoder: Path) -> None:
    model = CrossEncoder(tiny_cross_encoder, activation="sigmoid")
    finding = ModelVerifier(model).check("zinc helps", Evidence([["zinc shortens a cold"]]))
    assert finding.support == pytest.approx(float(model.score([("zinc shortens a cold", "zinc helps")])[0]), abs=1e-6)


def test_a_model_of_other_labels_is_refused(tiny: ModuleType, tmp_path: Path) -> None:
    folder = tiny.write_trunk(tmp_path / "labels", "bert", labels=3)
    with pytest.raises(ModelUnsupportedError, match="entailment"):
        ModelVerifier(CrossEncoder(folder))


def test_words_that_stand_far_apart_in_a_long_source_do_not_add_up() -> None:
    apart = [
        "The museum opens at noon.",
        *["Nothing of interest is said here."] * 4,
        "Zinc tastes of metal.",
        "Rain fell.",
        "Wind blew.",
    ]
    claim = "The museum opens metal at noon: it tastes of zinc."
    assert not LikenessVerifier(WORDS).check(claim, Evidence([apart])).holds
    assert LikenessVerifier(WORDS).check(claim, Evidence([apart[:1], apart[5:]])).holds  # cited as two, they do
