"""Examples and passages, of judged data and of collections; and the command that mines them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from twinrank import Collection
from twinrank.cli import twinrank
from twinrank.errors import DataError, RecipeError
from twinrank.train.data import Example, read_examples, write_examples
from twinrank.train.material import held_out, of_collection, of_data, refresher, unmatched
from twinrank.train.negatives import Mining
from twinrank.train.settings import DataSettings, TrainSettings

ARTICLES = [
    {
        "id": f"d{number}",
        "title": f"About the {animal}",
        "text": f"The {animal} lives in the {place}. It eats {food} in the morning. At night it sleeps under the {place}.",
    }
    for number, (animal, place, food) in enumerate(
        [("fox", "forest", "mice"), ("hen", "yard", "corn"), ("cat", "house", "fish"), ("cow", "meadow", "grass")]
    )
]


@pytest.fixture
def animals(make: Callable[..., Collection]) -> Collection:
    collection = make("animals")
    collection.add(ARTICLES)
    return collection


def judged(folder: Path) -> Path:
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text("\n".join(json.dumps({"_id": a["id"], **a}) for a in ARTICLES))
    asked = {"q0": "where do foxes live", "q1": "what do hens eat", "q2": "cats at night", "q3": "where do the foxes live"}
    (folder / "queries.jsonl").write_text("\n".join(json.dumps({"_id": name, "text": text}) for name, text in asked.items()))
    header = "query-id\tcorpus-id\tscore\n"
    (folder / "qrels" / "train.tsv").write_text(f"{header}q0\td0\t1\nq1\td1\t1\nq2\td2\t1\n")
    (folder / "qrels" / "test.tsv").write_text(f"{header}q3\td3\t1\n")
    return folder


def test_judged_data_gives_its_whole_corpus_to_mine_from(tmp_path: Path) -> None:
    found = of_data(judged(tmp_path / "set"))
    assert [example.query for example in found.examples] == ["where do foxes live", "what do hens eat", "cats at night"]
    assert len(found.passages) == 4
    assert found.examples[0].positives[0] in found.passages
    assert [example.query for example in held_out(tmp_path / "set")] == ["where do the foxes live"]


def test_a_file_of_pairs_is_mined_from_its_own_passages(tmp_path: Path) -> None:
    (tmp_path / "pairs.tsv").write_text("q\tp\nfox\tThe fox.\nhen\tThe hen.\nvixen\tThe fox.\n")
    assert of_data(tmp_path / "pairs.tsv").passages == ["The fox.", "The hen."]


def test_a_collection_without_judgments_makes_examples_of_every_document(animals: Collection) -> None:
    found = of_collection(animals, ways=["title", "first sentence"])
    assert len(found.examples) == 8  # two ways of four documents
    assert {example.query for example in found.examples} >= {"About the fox", "The hen lives in the yard."}
    assert found.passages == [f"{article['title']} {article['text']}" for article in ARTICLES]
    for example, documents in zip(found.examples, found.documents, strict=True):
        assert documents == (example.document,)
        [own] = [text for text in found.passages if text.startswith(ARTICLES[int(documents[0][1:])]["title"])]
        assert own in found.known[example.query]  # the sentence was taken from it: it may answer


def test_negatives_of_made_examples_are_cut_as_their_answers_are(animals: Collection, tiny_model: Path) -> None:
    found = of_collection(animals, ways=["title", "first sentence"], queries={"q": "mice"}, qrels={"q": {"d0": 1}})
    mined, tally = found.mine(Mining("vectors", 3, margin=-1, alike=1.1), str(tiny_model))
    left = {one.passage for one in found.left.values()}
    assert len(left) == 4
    for before, example in zip(found.examples, mined, strict=True):
        assert (before.query, before.document) == (example.query, example.document)
        asked = example.query == "mice"
        assert left.isdisjoint(example.passages) if asked else left.issuperset(example.passages)
    assert tally.examples == 9
    assert tally.negatives == sum(len(example.negatives) for example in mined) == 27


def test_a_query_that_several_documents_ask_is_left_out(make: Callable[..., Collection]) -> None:
    collection = make("alike")
    collection.add([{**article, "title": "Introduction"} for article in ARTICLES])
    found = of_collection(collection, ways=["title", "first sentence"])
    assert [example.query.split()[0] for example in found.examples] == ["The"] * 4
    assert all("Introduction" not in left.passage for left in found.left.values())


def test_judgments_that_fit_nothing_are_counted_with_examples(animals: Collection) -> None:
    qrels = {"q0": {"d0": 1, "x0": 0}, "q1": {f"x{number}": 1 for number in range(5)}, "q2": {"d1": 1}}
    told = unmatched(animals, {"q0": "foxes", "q1": "hens"}, qrels)
    assert told == (
        "of the judged queries 1 of 3 have no text: 'q2'; "
        "of the relevant documents 5 of 7 are not in the collection: 'x0', 'x1', 'x2', …"
    )
    assert unmatched(animals, {"q0": "foxes"}, {"q0": {"d0": 1}}) == ""


def test_the_positive_of_a_judged_query_is_the_passage_with_its_words(make: Callable[..., Collection]) -> None:
    collection = make("long", recipe=None)
    parts = [f"Part {word} of a long text about {word}. " * 30 for word in ("foxes", "hens", "cats")]
    collection.add([{"id": "long", "text": "\n\n".join(parts)}, {"id": "other", "text": "Cows."}])
    found = of_collection(collection, queries={"q": "hens"}, qrels={"q": {"long": 1, "gone": 1}}, ways=())
    [example] = found.examples
    assert "hens" in example.positives[0]
    assert found.documents == [("long",)]
    assert len(found.passages) > 3
    assert found.known["hens"] == {text for text in found.passages if text not in ("Cows.", *example.positives)}


class Writer:
    """Writes one query a passage, of its last word."""

    def write(self, passages: list[str]) -> Iterator[tuple[str, ...]]:
        return iter([(f"what about the {passage.split()[-1].strip('.')}",) for passage in passages])


def test_queries_that_a_model_writes_are_of_the_document_that_it_was_shown(animals: Collection) -> None:
    found = of_collection(animals, ways=(), writer=Writer())  # type: ignore[arg-type]
    asked = {
        example.query: (example.positives[0], names) for example, names in zip(found.examples, found.documents, strict=True)
    }
    assert len(asked) == 4
    passage, names = asked["what about the forest"]
    assert "fox" in passage
    assert names == ("d0",)


def test_a_collection_that_allows_no_example_is_refused(make: Callable[..., Collection]) -> None:
    collection = make("small")
    collection.add([{"id": "a", "text": "Too short."}])
    with pytest.raises(DataError, match="allow no examples"):
        of_collection(collection)


def test_a_seed_draws_the_documents(animals: Collection) -> None:
    def drawn(seed: int) -> list[str]:
        return sorted({name for names in of_collection(animals, limit=2, seed=seed).documents for name in names})

    assert len(drawn(0)) == 2
    assert drawn(0) == drawn(0)
    assert len({tuple(drawn(seed)) for seed in range(10)}) > 1


def test_the_vectors_that_a_collection_keeps_are_those_of_its_passages(
    make: Callable[..., Collection], tiny_model: Path
) -> None:
    collection = make("vectors", model=str(tiny_model))
    collection.add(ARTICLES)
    found = of_collection(collection)
    encoder = collection.assembly.loaded.encoder
    assert encoder is not None
    assert found.vectors is not None
    np.testing.assert_allclose(found.vectors, encoder.encode(found.passages), atol=1e-5)


def test_a_refresher_leaves_out_what_answers_by_examples_that_were_not_drawn(tmp_path: Path, tiny_model: Path) -> None:
    parts = [Example(f"part {number}", (f"The fox, part {number}.",), document="fox") for number in range(3)]
    others = [Example("hens", ("The hen is in the yard.",), document="hen")]
    write_examples([*parts, *others], tmp_path / "made.jsonl")
    settings = TrainSettings.parse(f"[refresh]\nevery = 1\n[data]\nnegatives = 3\ntrain = '{tmp_path / 'made.jsonl'}'")
    [mined] = refresher(settings)(tiny_model, parts[:1], 1)
    assert set(mined.negatives) <= {"The hen is in the yard."}


def test_a_refresher_mines_by_the_model_that_is_there_now(tmp_path: Path, tiny_model: Path, other_tiny_model: Path) -> None:
    folder = judged(tmp_path / "set")
    data, negatives = DataSettings(str(folder), negatives=2), "[refresh]\nevery = 1"
    settings = replace(TrainSettings.parse(negatives), data=data)
    refresh, examples = refresher(settings), of_data(folder).examples
    assert all(len(example.negatives) <= 2 for example in refresh(tiny_model, examples, 1))
    again = [refresh(model, examples, 1) for model in (tiny_model, other_tiny_model)]
    assert [example.query for example in again[0]] == [example.query for example in examples]
    named = replace(settings, data=replace(data, train="gone.jsonl"), refresh=replace(settings.refresh, passages=str(folder)))
    assert refresher(named)(tiny_model, examples, 1)
    with pytest.raises(RecipeError, match="nothing to mine from"):
        refresher(replace(settings, data=DataSettings()))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(twinrank, [str(argument) for argument in arguments], catch_exceptions=False)


def test_the_command_mines_judged_data_and_leaves_out_leaks(tmp_path: Path) -> None:
    out = tmp_path / "mined.jsonl"
    done = run("mine", judged(tmp_path / "set"), "--by", "words", "--out", out, "--json")
    told = json.loads(done.stdout)
    assert told["examples"] == 2
    assert told["leaks"]["counts"] == {"near-same query": 1}
    assert told["leaks"]["shown"][0]["held_out"] == "where do the foxes live"
    mined = read_examples(out)
    assert [example.query for example in mined] == ["what do hens eat", "cats at night"]
    assert all(example.negatives for example in mined)
    assert told["mining"]["negatives"] == sum(len(example.negatives) for example in mined)
    kept = run("mine", tmp_path / "set", "--by", "words", "--out", out, "--keep-leaks")
    assert "1 of 3 examples leak" in kept.stderr
    assert len(read_examples(out)) == 3


def test_the_command_mines_a_collection_by_its_own_encoder(tmp_path: Path, tiny_model: Path) -> None:
    with Collection(tmp_path / "animals", model=str(tiny_model)) as collection:
        collection.add(ARTICLES)
    out = tmp_path / "mined.jsonl"
    done = run("mine", "-c", tmp_path / "animals", "--out", out, "--by", "both", "--margin", "-1", "--way", "title")
    assert done.stdout.strip() == str(out)
    mined = read_examples(out)
    assert [len(example.negatives) for example in mined] == [3, 3, 3, 3]
    for example in mined:
        assert all(example.query not in negative for negative in example.negatives)


def test_the_command_wants_one_source(tmp_path: Path) -> None:
    assert "one of the two" in run("mine", "--out", tmp_path / "x").stderr
    assert "one of the two" in run("mine", "a", "-c", "b", "--out", tmp_path / "x").stderr
    done = run("mine", judged(tmp_path / "set"), "--held-out", "dev", "--out", tmp_path / "x", "--by", "words")
    assert "has judgments for test, train" in done.stderr
