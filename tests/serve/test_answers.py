"""POST /answer: what `twinrank answer --json` prints; a language model only where whoever started the server named one."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

QUESTION = {"question": "does zinc shorten a cold?"}
Serving = Any


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "twinrank_answer_conftest", Path(__file__).parents[1] / "answer" / f"{name}.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    made = load("conftest").Model()
    monkeypatch.delenv("TWINRANK_ENDPOINT_KEY", raising=False)
    monkeypatch.setenv("TWINRANK_ENDPOINT", made.url)
    monkeypatch.setenv("TWINRANK_ENDPOINT_MODEL", "m")
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_an_answer_quotes_a_document_with_its_place(served: Serving, opened: Any) -> None:
    client = served(opened(words=True))
    answer = client.post("/answer", json={**QUESTION, "quotes": 1, "k": 2, "budget": 100, "deadline": 60_000}).json()
    (quote,) = answer["quotes"]
    document = client.get(f"/documents/{quote['id']}").json()
    assert (
        document["text"][quote["start"] : quote["end"]] == quote["text"] == "Zinc lozenges may shorten a common cold by a day."
    )
    assert (answer["kind"], answer["known"], answer["supported"]) == ("extractive", True, True)


def test_where_nothing_is_found_the_answer_says_so(served: Serving, opened: Any) -> None:
    answer = served(opened(words=True)).post("/answer", json={"question": "xylophone"})
    assert answer.status_code == 200
    assert (answer.json()["text"], answer.json()["known"]) == ("I do not know.", False)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"question": ""}, 422),
        ({"question": " "}, 400),
        ({"question": 3}, 422),
        ({**QUESTION, "k": 0}, 422),
        ({**QUESTION, "k": 10_000}, 400),
        ({**QUESTION, "budget": 1}, 422),
        ({**QUESTION, "budget": 10**9}, 422),
        ({**QUESTION, "quotes": 0}, 422),
        ({**QUESTION, "where": "year >"}, 400),
        ({**QUESTION, "risk": 0.1}, 400),
        ({**QUESTION, "endpoint": "http://169.254.169.254/v1"}, 422),
        ({**QUESTION, "generative": "yes"}, 422),
    ],
)
def test_what_cannot_be_answered_is_refused(served: Serving, opened: Any, body: dict[str, Any], status: int) -> None:
    answer = served(opened(words=True)).post("/answer", json=body)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


def test_a_server_without_a_language_model_says_so(served: Serving, opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TWINRANK_ENDPOINT", raising=False)
    answer = served(opened(words=True)).post("/answer", json={**QUESTION, "generative": True})
    assert answer.status_code == 404
    assert "TWINRANK_ENDPOINT" in answer.json()["error"]["message"]


def test_a_server_whose_language_model_cannot_be_used_says_so(
    served: Serving, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWINRANK_ENDPOINT", "file:///etc/passwd")
    monkeypatch.setenv("TWINRANK_ENDPOINT_MODEL", "m")
    answer = served(opened(words=True)).post("/answer", json={**QUESTION, "generative": True})
    assert answer.status_code == 501


def test_a_models_answer_is_checked(served: Serving, opened: Any, model: Any) -> None:
    model.say = lambda _: "Zinc may shorten a common cold by a day [1]. Honey is blue [1]. See https://evil.example [9]."
    answer = served(opened(words=True)).post("/answer", json={**QUESTION, "generative": True}).json()
    assert [claim["standing"] for claim in answer["claims"]] == ["supported", "unsupported", "uncited"]
    assert "evil" not in answer["text"]
    assert answer["kind"] == "generative"


def test_a_model_that_fails_is_the_gateways_failure(served: Serving, opened: Any, model: Any) -> None:
    model.statuses = [401]
    answer = served(opened(words=True)).post("/answer", json={**QUESTION, "generative": True})
    assert answer.status_code == 502
    assert "401" in answer.json()["error"]["message"]


def test_a_key_that_may_read_is_enough_and_none_is_not(served: Serving, opened: Any) -> None:
    from twinrank.serve.keys import Keys

    keys = Keys.of(read=["a-key-that-may-read"], write=["a-key-that-may-write"])
    client = served(opened(words=True), keys=keys)
    assert client.post("/answer", json=QUESTION).status_code == 401
    assert client.post("/answer", json=QUESTION, headers={"X-API-Key": "a-key-that-may-read"}).status_code == 200
