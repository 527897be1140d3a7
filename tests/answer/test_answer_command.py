"""`twinrank answer` as a person meets it: the answer on standard output, what is to be said of it on standard error."""

from __future__ import annotations

import json
from typing import Any

import pytest

from twinrank import Collection
from twinrank.cli import main

QUESTION = "does zinc shorten a cold?"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str, int]:
    status = 0
    try:
        main(["answer", *arguments])
    except SystemExit as ended:
        status = int(ended.code or 0)
    captured = capsys.readouterr()
    return captured.out, captured.err, status


@pytest.fixture
def folder(notes: Collection) -> str:
    return str(notes.path)


def test_it_prints_quotes_with_where_they_stand_and_a_score_that_is_no_probability(
    folder: str, notes: Collection, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err, status = run(capsys, QUESTION, "-c", folder, "--quotes", "1")
    score = notes.search(QUESTION)[0].score
    assert out == f"Zinc lozenges may shorten a common cold by a day. [1]\n\n[1] Zinc  zinc:0-49  score {score:.3f}\n"
    assert status == 0
    assert f"twinrank calibrate -c {folder}" in err
    assert "tokens read, nothing left out" in err


def test_it_prints_one_json_document(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    out, _, _ = run(capsys, QUESTION, "-c", folder, "--json", "--budget", "100", "-k", "2", "--where", "year > 2000")
    values = json.loads(out)
    assert values["kind"] == "extractive"
    assert values["budget"]["tokens"] == 100


def test_it_says_that_it_does_not_know(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    out, err, status = run(capsys, "xylophone", "-c", folder)
    assert (out, err, status) == ("I do not know.\n", "nothing was found\n", 0)


def test_a_models_answer_is_marked_where_it_is_not_borne_out(
    folder: str, capsys: pytest.CaptureFixture[str], model: Any
) -> None:
    model.say = lambda _: "Zinc may shorten a common cold by a day [1]. The moon is made of cheese [1]."
    out, err, status = run(capsys, QUESTION, "-c", folder, "--generative", "--endpoint", model.url, "--model", "m")
    assert out.startswith(
        "Zinc may shorten a common cold by a day. [1]\nThe moon is made of cheese. [1] [unsupported]\n\n[1] Zinc"
    )
    assert "unsupported: The moon is made of cheese. (what it cites says something else)" in err
    assert status == 0


def test_the_environment_may_name_the_model(
    folder: str, capsys: pytest.CaptureFixture[str], model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWINRANK_ENDPOINT", model.url)
    monkeypatch.setenv("TWINRANK_ENDPOINT_MODEL", "named")
    out, _, _ = run(capsys, QUESTION, "-c", folder, "--generative")
    assert out == "I do not know.\n"
    assert model.asked[0]["model"] == "named"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--generative"], "--endpoint URL"),
        (["--endpoint", "http://127.0.0.1/v1"], "add --generative"),
        (["--verifier", "x"], "add --generative"),
        (["--budget", "1"], "the budget of an answer is 16 or more"),
        (["--quotes", "0"], "the number of quotes of an answer is 1 or more"),
        (["--where", "year >"], "year >"),
        (["--risk", "0.1"], "twinrank calibrate"),
        (["--generative", "--endpoint", "nowhere", "--model", "m"], "give an address such as"),
        (["--generative", "--endpoint", "http://127.0.0.1:9/v1", "--model", "m"], "is it running?"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_told_in_a_sentence(
    folder: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, options: list[str], said: str
) -> None:
    for name in ("TWINRANK_ENDPOINT", "TWINRANK_ENDPOINT_MODEL"):
        monkeypatch.delenv(name, raising=False)
    out, err, status = run(capsys, QUESTION, "-c", folder, *options)
    assert out == ""
    assert said in err
    assert status != 0


def test_the_help_holds_a_line_to_paste(capsys: pytest.CaptureFixture[str]) -> None:
    out, _, _ = run(capsys, "--help")
    assert 'twinrank answer "does zinc shorten a cold?"' in out
