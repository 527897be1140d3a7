"""Examples, read from what people have: BEIR folders, tables, JSON lines."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinrank.errors import DataError
from twinrank.train.data import (
    Example,
    Judged,
    known_answers,
    known_positives,
    merged,
    of_scores,
    read_examples,
    same_text,
    write_examples,
)


def beir(folder: Path) -> Path:
    (folder / "qrels").mkdir(parents=True)
    corpus = [("d1", "Zinc", "It may shorten a cold."), ("d2", "", "Honey eases a cough."), ("d3", "", "Rest helps.")]
    lines = [json.dumps({"_id": name, "title": title, "text": text}) for name, title, text in corpus]
    (folder / "corpus.jsonl").write_text("\n".join(lines))
    queries = [json.dumps({"_id": name, "text": text}) for name, text in [("q1", "cold"), ("q2", "cough"), ("q3", "none")]]
    (folder / "queries.jsonl").write_text("\n".join(queries))
    judged = ["query-id\tcorpus-id\tscore", "q1\td1\t2", "q1\td2\t0", "q1\td3\t1", "q2\td2\t1", "q3\td1\t0", "q3\tgone\t1"]
    (folder / "qrels" / "train.tsv").write_text("\n".join(judged))
    return folder


def test_a_beir_folder_gives_title_and_text_and_keeps_what_was_judged_irrelevant_as_negatives(tmp_path: Path) -> None:
    assert read_examples(beir(tmp_path / "set")) == [
        Example("cold", ("Zinc It may shorten a cold.", "Rest helps."), ("Honey eases a cough.",)),
        Example("cough", ("Honey eases a cough.",)),  # and none of q3, whose only answer is not in the corpus
    ]


def test_two_columns_are_pairs_whatever_they_are_called(tmp_path: Path) -> None:
    (tmp_path / "pairs.tsv").write_text('source\ttarget\ncold\tthe "common" cold\n\ncough\thoney\n')
    assert read_examples(tmp_path / "pairs.tsv") == [Example("cold", ('the "common" cold',)), Example("cough", ("honey",))]


def test_a_third_column_of_texts_is_a_negative_and_one_of_numbers_a_score(tmp_path: Path) -> None:
    (tmp_path / "triples.csv").write_text('query,positive,negative\ncold,"zinc, taken early",honey\n')
    assert read_examples(tmp_path / "triples.csv") == [Example("cold", ("zinc, taken early",), ("honey",))]
    (tmp_path / "scored.tsv").write_text("sentence1\tsentence2\tscore\ncold\thoney\t0.5\ncold\tzinc\t4.5\nflu\trest\t1\n")
    assert read_examples(tmp_path / "scored.tsv") == [
        Example("cold", ("zinc",), ("honey",), (4.5, 0.5)),
        Example("flu", ("rest",), (), (1.0,)),
    ]


def test_scores_and_texts_in_one_column_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mixed.tsv").write_text("q\tp\tx\ncold\tzinc\t1\ncold\trest\thoney\n")
    with pytest.raises(DataError, match="numbers in 1 lines and texts in 1"):
        read_examples(tmp_path / "mixed.tsv")


def test_a_row_with_a_cell_missing_is_named_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "torn.tsv").write_text("q\tp\ncold\tzinc\ncough\n")
    with pytest.raises(DataError, match=r"torn.tsv, line 3: expected 2 texts"):
        read_examples(tmp_path / "torn.tsv")


@pytest.mark.parametrize(
    ("line", "made"),
    [
        ('{"query": "cold", "positives": ["zinc"], "negatives": ["honey"]}', Example("cold", ("zinc",), ("honey",))),
        ('{"anchor": "cold", "positive": "zinc", "negative": "honey"}', Example("cold", ("zinc",), ("honey",))),
        (
            '{"query": "cold", "pos": ["zinc"], "neg": ["honey"], "pos_scores": [2], "neg_scores": [0.5]}',
            Example("cold", ("zinc",), ("honey",), (2.0, 0.5)),
        ),
        ('{"query": "cold", "passage": "zinc", "score": 0.25}', Example("cold", ("zinc",), (), (0.25,))),
        ('{"question": "cold", "answer": "zinc"}', Example("cold", ("zinc",))),
        ('{"query": "cold", "passage": "zinc", "document": "d1"}', Example("cold", ("zinc",), document="d1")),
        ('{"query": "cold", "passage": "zinc", "document": 7}', Example("cold", ("zinc",), document="7")),
    ],
)
def test_json_lines_are_read_in_the_fields_layouts(line: str, made: Example, tmp_path: Path) -> None:
    (tmp_path / "examples.jsonl").write_text(line + "\n")
    assert read_examples(tmp_path / "examples.jsonl") == [made]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1: not JSON"),
        ("[]", "expected an object"),
        ('{"query": "cold"}', "expected a 'query' and 'positives'"),
        ('{"query": "cold", "positives": [3]}', "positives are texts"),
        ('{"query": "cold", "positives": ["a"], "document": ["d1"]}', "a document is named by a text or a whole number"),
        ('{"query": "cold", "positives": ["a"], "scores": ["high"]}', "scores are finite numbers"),
        ('{"query": "cold", "passage": "a", "score": Infinity}', "line 1: scores are finite numbers"),
        ('{"query": "cold", "negatives": ["a"]}', "expected a 'query' and 'positives'"),
        (
            '{"query": "cold", "positives": ["a"], "negatives": ["b"], "scores": [1]}',
            "1 scores for 1 positives and 1 negatives",
        ),
        ('{"query": "cold", "positives": ["a", "b"], "score": 1}', r"examples.jsonl, line 1: .* 1 scores for 2 positives"),
    ],
)
def test_what_is_no_example_is_refused_with_its_line(line: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "examples.jsonl").write_text(line)
    with pytest.raises(DataError, match=message):
        read_examples(tmp_path / "examples.jsonl")


def test_a_path_that_holds_no_examples_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    for path, message in [("nothing.tsv", "neither a folder"), ("empty.jsonl", "holds no examples")]:
        with pytest.raises(DataError, match=message):
            read_examples(tmp_path / path)
    (tmp_path / "a.pdf").write_text("x")
    with pytest.raises(DataError, match=r"expected a \.tsv"):
        read_examples(tmp_path / "a.pdf")


texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20).map(str.strip).filter(bool)
plain = st.builds(
    Example,
    texts,
    st.lists(texts, min_size=1, max_size=3).map(tuple),
    st.lists(texts, max_size=3).map(tuple),
    document=st.just("") | texts,
)


@given(st.lists(plain, min_size=1, max_size=5), st.booleans())
def test_what_is_written_is_read_again(tmp_path_factory: pytest.TempPathFactory, examples: list[Example], scored: bool) -> None:
    if scored:
        examples = [replace(one, scores=tuple(map(float, range(len(one.passages))))) for one in examples]
    file = tmp_path_factory.mktemp("examples") / "examples.jsonl"
    assert write_examples(examples, file) == len(examples)
    assert read_examples(file) == examples


def test_of_scored_passages_all_that_are_best_are_positives() -> None:
    scored = [Judged("cold", "zinc", 1.0), Judged("cold", "rest", 1.0), Judged("cold", "honey", 0.2)]
    assert of_scores(scored) == [Example("cold", ("zinc", "rest"), ("honey",), (1.0, 1.0, 0.2))]


@pytest.mark.parametrize("name", ["labelled.tsv", "labelled.jsonl"])
def test_a_pair_labelled_0_is_no_answer(name: str, tmp_path: Path) -> None:
    pairs = [("cold", "zinc", 1), ("cold", "honey", 0), ("flu", "bread", 0)]
    lines = ["\t".join(map(str, pair)) for pair in [("sentence1", "sentence2", "label"), *pairs]]
    if name.endswith(".jsonl"):
        lines = [json.dumps({"sentence1": one, "sentence2": other, "label": label}) for one, other, label in pairs]
    (tmp_path / name).write_text("\n".join(lines))
    found = read_examples(tmp_path / name)
    assert found == [Example("cold", ("zinc",), ("honey",), (1.0, 0.0)), Example("flu", (), ("bread",), (0.0,))]
    write_examples(found, tmp_path / "written.jsonl")
    assert read_examples(tmp_path / "written.jsonl") == found


@pytest.mark.parametrize("score", ["nan", "inf", "-Infinity"])
def test_a_score_that_is_no_finite_number_is_named_by_its_line(score: str, tmp_path: Path) -> None:
    (tmp_path / "scored.tsv").write_text(f"q\tp\tscore\ncold\tzinc\t1\ncold\trest\t{score}\n")
    with pytest.raises(DataError, match=f"scored.tsv, line 3: expected a score .* finite number, got '{score}'"):
        read_examples(tmp_path / "scored.tsv")


def test_a_scored_passage_keeps_its_document(tmp_path: Path) -> None:
    lines = [{"query": "cold", "passage": f"p{score}", "score": score, "document": f"d{score}"} for score in (0, 2)]
    (tmp_path / "scored.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert read_examples(tmp_path / "scored.jsonl") == [Example("cold", ("p2",), ("p0",), (2.0, 0.0), "d2")]


def test_an_example_without_a_passage_is_refused() -> None:
    with pytest.raises(DataError, match="has no passage"):
        Example("cold", ())


def test_known_positives_are_those_of_all_examples_of_a_query() -> None:
    known = known_positives([Example("A  cold", ("Zinc",)), Example("a cold", ("rest",)), Example("cough", ("honey",))])
    assert known == {"a cold": {"zinc", "rest"}, "cough": {"honey"}}


def test_what_is_of_an_examples_document_may_be_its_answer_too() -> None:
    made = [
        Example("a cold", ("zinc",), document="d1"),
        Example("relief", ("Honey",), document="d1"),
        Example("a cold", ("rest",)),
        Example("sleep", ("bed",)),
    ]
    assert known_answers(made) == [{"zinc", "rest", "honey"}, {"zinc", "honey"}, {"zinc", "rest"}, {"bed"}]


def test_rows_that_differ_in_their_negative_alone_are_one_example() -> None:
    rows = [
        Example("cold", ("zinc",), ("honey",)),
        Example("cold", ("rest",), ("bread",)),
        Example("Cold", ("zinc",), ("tea",)),
        Example("cold", ("zinc",), ("salt",), (3.0, 1.0)),
        Example("cold", ("zinc",), ("salt", "oats"), (2.0, 0.0, -1.0)),
    ]
    assert merged(rows) == [
        Example("cold", ("zinc",), ("honey", "tea")),
        rows[1],
        Example("cold", ("zinc",), ("salt", "oats"), (3.0, 1.0, -1.0)),
    ]


@given(st.text())
def test_the_same_text_is_the_same_however_it_is_spaced_and_written_large(text: str) -> None:
    assert same_text(f"  {text}\n") == same_text(same_text(text))
