"""The commands as a person meets them: results on standard output, notes on standard error, errors in one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from twinrank import Collection


def run(*arguments: str, stdin: str = "", cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "twinrank.cli", *arguments], input=stdin, capture_output=True, text=True, cwd=cwd, check=False
    )


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with a collection by words alone in .twinrank, made by the command itself."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "zinc.md").write_text("# Zinc\n\nZinc lozenges may shorten a cold.\n")
    (tmp_path / "docs" / "honey.txt").write_text("Honey eases a cough.\n")
    (tmp_path / "docs" / "broken.pdf").write_bytes(b"%PDF-1.4 broken")
    made = run("index", "docs", "--model", "none", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert "2 added" in made.stderr
    assert "broken.pdf" in made.stderr
    assert made.stdout == ""
    return tmp_path


def test_search_prints_score_title_passage_id_and_place(home: Path) -> None:
    found = run("search", "shorten a cold", cwd=home)
    assert found.returncode == 0, found.stderr
    first, passage, place = found.stdout.splitlines()[:3]
    assert first.split()[0] == "1"
    assert first.endswith("Zinc")
    assert "Zinc lozenges may shorten a cold." in passage
    assert "zinc.md" in place
    assert "of 2 documents in" in found.stderr


def test_search_as_json_is_one_document_with_or_without_the_stages(home: Path) -> None:
    found = json.loads(run("search", "cough", "--json", cwd=home).stdout)
    assert found["hits"][0]["id"] == "honey.txt"
    assert "stages" not in found["hits"][0]
    explained = json.loads(run("search", "cough", "--json", "--explain", cwd=home).stdout)
    assert explained["hits"][0]["stages"][0]["stage"] == "words"


def test_explain_shows_each_stages_score_rank_and_time(home: Path) -> None:
    found = run("search", "cough", "--explain", cwd=home)
    assert "words: score" in found.stdout
    assert "rank 1" in found.stdout
    assert "(words " in found.stderr


def test_nothing_found_is_said(home: Path) -> None:
    assert run("search", "xylophone", cwd=home).stdout.strip() == "nothing found"


def test_adding_from_standard_input_getting_and_deleting(home: Path) -> None:
    added = run("add", "-", stdin='{"id": "rest", "text": "Rest helps.", "year": 2020}\n', cwd=home)
    assert "1 added" in added.stderr
    assert "year: 2020" in run("get", "rest", cwd=home).stdout
    gone = run("delete", "rest", "nobody", cwd=home)
    assert gone.stdout.strip() == "1 deleted, not there: nobody"
    missing = run("get", "rest", cwd=home)
    assert missing.returncode == 1
    assert "not in .twinrank: rest" in missing.stderr


def test_status_check_and_rebuild(home: Path) -> None:
    assert "2 documents" in run("status", cwd=home).stdout
    assert json.loads(run("status", "--json", cwd=home).stdout)["documents"] == 2
    assert "all is well" in run("check", cwd=home).stdout
    segment = next((home / ".twinrank" / "index" / "words").glob("*.idx"))
    segment.write_bytes(b"x" + segment.read_bytes()[1:])
    damaged = run("check", "--json", cwd=home)
    assert damaged.returncode == 1
    assert json.loads(damaged.stdout)["ok"] is False
    assert run("rebuild", cwd=home).returncode == 0
    assert run("check", cwd=home).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["search", "x", "-c", "nowhere"], "there is no collection at nowhere; make one: twinrank index DOCS -c nowhere"),
        (["search", "  "], "the query is empty"),
        (["search", "x", "-k", "0"], "k is how many documents to find, 1 or more; got 0"),
        (["search", "x", "--where", "year >="], "year >="),
        (["add", "no/such/file.txt"], "no/such/file.txt"),
        (["index", "docs", "-c", "docs"], "no collection; name a new or an empty one"),
        (["search", "x", "--recipe", "none.toml"], "words, vectors"),
        (["eval", "docs"], "docs"),
        (["encode", "text", "--model", "no/such-model-at-all"], "no/such-model-at-all"),
    ],
)
def test_an_error_is_one_sentence_on_standard_error(home: Path, arguments: list[str], said: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "twinrank.cli", *arguments],
        capture_output=True,
        text=True,
        cwd=home,
        check=False,
        env={"PATH": "", "HOME": str(home), "HF_HUB_OFFLINE": "1"},
    )
    assert result.returncode == 1
    assert result.stdout == ""
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_a_wrong_option_exits_with_2_and_shows_the_usage(home: Path) -> None:
    result = run("search", "x", "--nonsense", cwd=home)
    assert result.returncode == 2
    assert "Usage" in result.stderr


def test_a_line_of_standard_input_that_is_no_json_is_named(home: Path) -> None:
    result = run("add", "-", stdin='{"id": "a", "text": "b"}\nnonsense\n', cwd=home)
    assert result.returncode == 1
    assert "standard input, line 2" in result.stderr


def test_the_help_gives_each_command_a_whole_sentence_in_one_section(tmp_path: Path) -> None:
    from twinrank.cli import twinrank

    told = run("--help", cwd=tmp_path).stdout.split("Options:")[1]
    assert "..." not in told
    for name in twinrank.commands:
        assert sum(line.startswith(f"  {name} ") for line in told.splitlines()) == 1, name


def test_every_command_has_help_with_a_line_to_paste() -> None:
    from twinrank.cli import twinrank

    for name, command in twinrank.commands.items():
        assert command.help, name
    pasted = [name for name, command in twinrank.commands.items() if f"twinrank {name} " in (command.help or "")]
    assert {"index", "add", "search", "rebuild", "eval"} <= set(pasted)


def test_encode_prints_one_vector_a_line_or_writes_an_array(home: Path, tiny_model: Path) -> None:
    printed = run("encode", "one text", "another", "--model", str(tiny_model), cwd=home)
    vectors = np.array([json.loads(line) for line in printed.stdout.splitlines()])
    run("encode", "--model", str(tiny_model), "-o", "v.npy", stdin="one text\nanother\n", cwd=home)
    assert np.allclose(np.load(home / "v.npy"), vectors, atol=1e-5)
    assert vectors.shape[0] == 2


def test_duplicates_prints_pairs_best_first(home: Path, tiny_model: Path) -> None:
    texts = "zinc may shorten a cold\nbread and water\nzinc may shorten a cold\n"
    told = run("duplicates", "--model", str(tiny_model), "--threshold", "0.999", stdin=texts, cwd=home)
    assert told.stdout == "1.0000\tzinc may shorten a cold\tzinc may shorten a cold\n"
    assert "1 pairs of at least 0.999 among 3 texts" in told.stderr


def test_score_and_rank_agree(home: Path, tiny_cross_encoder: Path) -> None:
    passages = ["zinc lozenges", "honey and a cough", "rest"]
    scores = json.loads(run("score", "a cough", *passages, "--model", str(tiny_cross_encoder), "--json", cwd=home).stdout)
    ranked = json.loads(run("rank", "a cough", *passages, "--model", str(tiny_cross_encoder), "--json", cwd=home).stdout)
    assert [hit["text"] for hit in ranked] == [
        passage for _, passage in sorted(zip(scores, passages, strict=True), reverse=True)
    ]


def test_classify_prints_every_label_with_its_probability(home: Path, tiny: ModuleType) -> None:
    names = {"0": "contradiction", "1": "entailment", "2": "neutral"}
    tiny.write_trunk(home / "nli", "bert", labels=3, id2label=names)
    told = json.loads(run("classify", "zinc helps", "zinc shortens a cold", "--model", "nli", "--json", cwd=home).stdout)
    assert set(told) == set(names.values())
    assert sum(told.values()) == pytest.approx(1, abs=1e-5)
    assert len(run("classify", "zinc helps", "zinc", "--model", "nli", cwd=home).stdout.splitlines()) == 3


def test_translate_prints_a_line_a_text(home: Path, shared_models: Path) -> None:
    pytest.importorskip("ctranslate2")
    subprocess.run([sys.executable, shared_models / "expand.py", home / "en-fr"], check=True, capture_output=True)
    told = run("translate", "--model", "en-fr", stdin="The weather is beautiful outside.\nThank you.\n", cwd=home)
    assert told.stdout.splitlines()[0] == "Le temps est beau dehors."
    assert len(told.stdout.splitlines()) == 2
    scored = json.loads(run("translate", "Thank you.", "--model", "en-fr", "--json", cwd=home).stdout)
    assert scored[0]["finished"] is True


def test_eval_measures_recipes_side_by_side_and_writes_a_run(home: Path, tiny_model: Path) -> None:
    data = home / "beir"
    (data / "qrels").mkdir(parents=True)
    texts = {"d1": "zinc shortens a cold", "d2": "honey eases a cough", "d3": "rest helps"}
    (data / "corpus.jsonl").write_text("".join(json.dumps({"_id": i, "title": "", "text": t}) + "\n" for i, t in texts.items()))
    queries = {"q1": "what shortens a cold", "q2": "what eases a cough", "q3": "unjudged"}
    (data / "queries.jsonl").write_text("".join(json.dumps({"_id": i, "text": t}) + "\n" for i, t in queries.items()))
    (data / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td2\t1\nq2\td3\t0\n")
    options = ["--model", str(tiny_model), "--folder", "kept", "--run", "run.txt"]
    table = run("eval", str(data), "--recipe", "words", "--recipe", "hybrid", *options, cwd=home)
    assert table.returncode == 0, table.stderr
    assert "beir, split test: 2 queries over 3 documents" in table.stdout
    rows = {line.split()[0]: line.split() for line in table.stdout.splitlines()[1:]}
    assert rows["words"][1] == "1.0000"
    first = (home / "run.txt").read_text().splitlines()[0].split()
    assert (first[0], first[1], first[3], first[5]) == ("q1", "Q0", "1", "twinrank-hybrid")
    told = json.loads(run("eval", str(data), "--recipe", "words", "--json", "--per-query", *options, cwd=home).stdout)
    assert told["recipes"]["words"]["per_query"]["nDCG@10"] == {"q1": 1.0, "q2": 1.0}
    wrong = run("eval", str(data), "--split", "dev", *options, cwd=home)
    assert wrong.returncode == 1
    assert "test" in wrong.stderr


def test_what_a_command_made_python_opens(home: Path) -> None:
    with Collection(home / ".twinrank") as collection:
        assert len(collection) == 2


def test_a_place_that_is_not_there_makes_no_collection_and_reads_nothing(home: Path) -> None:
    told = run("index", "docs", "nowhere", "-c", "fresh", "--model", "none", cwd=home)
    assert told.returncode == 1
    assert "nowhere" in told.stderr
    assert not (home / "fresh").exists()


def test_the_demo_deletes_no_folder_that_is_no_collection(home: Path) -> None:
    demo = Path(__file__).resolve().parents[1] / "examples" / "01_python_docs.py"
    told = subprocess.run([sys.executable, demo, home / "docs"], capture_output=True, text=True, check=False)
    assert told.returncode == 1
    assert "no collection" in told.stderr
    assert (home / "docs" / "zinc.md").exists()


def test_a_file_that_cannot_be_written_is_one_sentence(home: Path, tiny_model: Path) -> None:
    told = run("encode", "text", "--model", str(tiny_model), "-o", "no/such/folder/v.npy", cwd=home)
    assert told.returncode == 1
    assert "no/such/folder/v.npy" in told.stderr
    assert "Traceback" not in told.stderr
