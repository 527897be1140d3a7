"""What is measured on: parted by document, and told apart by what a text says, never by its form."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from twinrank import Collection
from twinrank.errors import DataError
from twinrank.readers import read_dataset
from twinrank.train.made import WAYS
from twinrank.train.material import Material, of_collection
from twinrank.train.measuring import Extent, split_for_measuring, write_judged
from twinrank.train.negatives import Mining

ANIMALS = ["fox", "hen", "cat", "cow", "owl", "bee", "ant", "dog", "pig", "bat", "elk", "cod"]
PLACES = ["forest", "yard", "house", "meadow", "tree", "hive", "hill", "kennel", "sty", "cave", "moor", "sea"]
WORDS = ANIMALS + PLACES


def documents(count: int) -> Iterator[dict[str, str]]:
    """Of all forms: with and without a title, of one to nine sentences, short ones and long."""
    draw = random.Random(0)
    for number in range(count):
        sentences = [" ".join(draw.choices(WORDS, k=draw.randint(4, 14))) for _ in range(draw.randint(1, 9))]
        sentences[0] = f"opening {number} {sentences[0]}"
        text = " ".join(f"{sentence.capitalize()}." for sentence in sentences)
        title = f"Heading {number} {' '.join(draw.choices(WORDS, k=2))}" if draw.random() < 0.85 else ""
        yield {"id": f"d{number:04}", "title": title, "text": text}


@pytest.fixture
def mixed(make: Callable[..., Collection]) -> Collection:
    collection = make("mixed")
    collection.add(list(documents(1500)))
    return collection


EXTENT = Extent(queries=150, documents=700)

Form = Callable[[int, Mapping[str, str]], float]
FORMS: Mapping[str, Form] = {
    "has a title": lambda place, document: bool(document.get("title")) or document["text"].startswith("Heading"),
    "begins at the beginning": lambda place, document: "Opening" in document["text"],
    "length": lambda place, document: len(document["text"]),
    "sentences": lambda place, document: document["text"].count(". "),
    "ends with a whole sentence": lambda place, document: document["text"].endswith("."),
    "place in the file": lambda place, document: place,
    "id": lambda place, document: int(document["_id"][1:]),
}


def share_above(answers: list[float], others: list[float]) -> float:
    """The chance that an answer has more of something than another document has: .5 where it tells nothing."""
    more = sum((own > other) + 0.5 * (own == other) for own in answers for other in others)
    return more / (len(answers) * len(others))


KINDS = ("title", "first sentence", "sentence")


def kind_of(query: str) -> str:
    return "title" if query.startswith("Heading") else "first sentence" if query.startswith("Opening") else "sentence"


def test_a_model_that_knows_only_the_form_of_a_document_cannot_gain(mixed: Collection, tmp_path: Path) -> None:
    material = of_collection(mixed)
    write_judged(mixed, material, split_for_measuring(material, EXTENT), tmp_path, EXTENT)
    corpus = [json.loads(line) for line in (tmp_path / "corpus.jsonl").read_text().splitlines()]
    assert len(corpus) == 700
    answers: dict[str, set[str]] = {}
    for split in ("dev", "test"):
        judged = read_dataset(tmp_path, split)
        for query, grades in judged.qrels.items():
            answers.setdefault(kind_of(judged.queries[query]), set()).update(grades)
    assert {kind: len(found) > 50 for kind, found in answers.items()} == dict.fromkeys(KINDS, True)
    for form, value in FORMS.items():
        values = {document["_id"]: float(value(place, document)) for place, document in enumerate(corpus)}
        for kind, relevant in answers.items():  # a form may tell which kind of query a document answers, too
            own = [values[document] for document in relevant]
            others = [value for document, value in values.items() if document not in relevant]
            assert abs(share_above(own, others) - 0.5) < 0.12, f"{form} tells what answers a {kind}"


def test_nor_does_the_form_of_a_passage_tell_answers_from_negatives(mixed: Collection, tiny_model: Path) -> None:
    material = of_collection(mixed, limit=600)
    one_each = material.take({example.document: place for place, example in enumerate(material.examples)}.values())
    mined, _ = one_each.mine(Mining("vectors", 2, margin=-1, last=600), str(tiny_model))
    ids = {left.passage: left.document for left in material.left.values()}
    for form, value in FORMS.items():
        values = {text: float(value(0, {"text": text, "_id": ids[text]})) for text in ids}
        answers = [values[example.positives[0]] for example in mined]
        others = [values[text] for example in mined for text in example.negatives]
        assert abs(share_above(answers, others) - 0.5) < 0.05, f"{form} tells answers from negatives"


def test_made_queries_are_parted_by_document_and_none_stands_in_what_is_searched(mixed: Collection, tmp_path: Path) -> None:
    material = of_collection(mixed)
    parts = split_for_measuring(material, EXTENT)
    sides = [{material.examples[place].document for place in side} for side in (parts.train, parts.dev, parts.test)]
    assert sum(map(len, sides)) == len(set.union(*sides))
    write_judged(mixed, material, parts, tmp_path, replace(EXTENT, queries=20))
    for split, side in (("dev", sides[1]), ("test", sides[2])):
        dataset = read_dataset(tmp_path, split)
        assert len(dataset.queries) == 20
        texts = {document.id: document for document in dataset.documents()}
        for query, grades in dataset.qrels.items():
            [document] = grades
            assert document in side
            assert texts[document].text == material.left[document].passage
            assert dataset.queries[query] in material.left[document].queries.values()
            assert set(material.left[document].queries) == set(WAYS)


def test_what_is_learned_from_is_limited_and_people_s_queries_come_first(mixed: Collection) -> None:
    queries = {f"q{number}": f"what of number {number}" for number in range(80)}
    qrels = {f"q{number}": {f"d{number:04}": 1} for number in range(80)}
    material = of_collection(mixed, queries=queries, qrels=qrels)
    parts = split_for_measuring(material, Extent(queries=20, examples=100))
    asked = {place for place in range(len(material.examples)) if material.examples[place].query in queries.values()}
    assert set(parts.dev) | set(parts.test) <= asked
    assert len(parts.dev) == len(parts.test) == 20
    held = {document for place in [*parts.dev, *parts.test] for document in material.documents[place]}
    assert all(held.isdisjoint(material.documents[place]) for place in parts.train)
    assert asked <= {*parts.train, *parts.dev, *parts.test}
    assert len(parts.train) == 100
    few = split_for_measuring(material, Extent(queries=10, examples=100))
    assert len(few.dev) < 20  # what would not be asked teaches
    assert len(few.train) == 100
    fewer = split_for_measuring(material, Extent(queries=20, examples=30))
    assert len(fewer.train) == 30
    assert set(fewer.train) <= asked
    assert fewer.notes == ("30 of 40 judged examples are learned from, drawn by chance; examples sets how many",)


def test_documents_that_people_s_queries_are_measured_over_stand_whole(mixed: Collection, tmp_path: Path) -> None:
    queries = {f"q{number}": f"what of number {number}" for number in range(80)}
    qrels = {f"q{number}": {f"d{number:04}": 1} for number in range(80)}
    material = of_collection(mixed, queries=queries, qrels=qrels)
    write_judged(mixed, material, split_for_measuring(material, EXTENT), tmp_path, EXTENT)
    corpus = [json.loads(line) for line in (tmp_path / "corpus.jsonl").read_text().splitlines()]
    assert len(corpus) == 700
    whole = {document["id"]: document for document in documents(1500)}
    assert all(document["text"] == whole[document["_id"]]["text"] for document in corpus)
    assert all(document["title"] == whole[document["_id"]]["title"] for document in corpus)


def test_what_nearly_asks_a_query_of_dev_or_test_is_not_learned(make: Callable[..., Collection]) -> None:
    collection = make("versions")
    version = (
        "The {} manual of the red machine, how it is set up and cleaned and stored in winter. "
        "It lives in a {} with a number {}, they say."
    )
    collection.add(
        [{"id": f"d{number}", "text": version.format(f"{number}th", WORDS[number % 24], number)} for number in range(240)]
    )
    material = of_collection(collection, ways=["first sentence"])
    parts = split_for_measuring(material, Extent())
    assert parts.train == []
    assert "near-same query" in parts.notes[0]


def test_too_few_queries_are_refused(mixed: Collection, tmp_path: Path) -> None:
    material: Material = of_collection(mixed, limit=30, ways=["title"])
    with pytest.raises(DataError, match="3 queries for dev, too few to measure by"):
        write_judged(mixed, material, split_for_measuring(material, EXTENT), tmp_path, EXTENT)
