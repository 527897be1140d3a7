"""Queries written by a model behind HTTP: a server of our own answers as such servers do, well and badly."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from twinrank.errors import DataError, InputError
from twinrank.train.written import Endpoint, QueryWriter, parse_queries


class FakeServer(ThreadingHTTPServer):
    """Answers each request with the next of `answers`, (status, body, headers), and with the last one from then on."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, dict[str, Any], dict[str, str]]] = []
        self.answers: list[tuple[int, bytes, dict[str, str]]] = [(200, answer("does zinc help?\nzinc for colds"), {})]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: FakeServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, body, dict(self.headers)))
        answers = self.server.answers
        status, content, headers = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the test's output."""


def answer(words: str) -> bytes:
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": words}}]}).encode()


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as made:
        thread = threading.Thread(target=made.serve_forever, daemon=True, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def writer(server: FakeServer, cache: Path, **options: Any) -> QueryWriter:
    waits: list[float] = []
    made = QueryWriter(Endpoint(server.url, "tiny", key="secret", timeout=5), cache, workers=1, wait=waits.append, **options)
    made.waits = waits  # type: ignore[attr-defined]
    return made


def test_queries_come_in_the_order_of_their_passages_and_the_request_is_openais(server: FakeServer, tmp_path: Path) -> None:
    server.answers = [(200, answer("first\n- second"), {}), (200, answer("1. third"), {})]
    made = writer(server, tmp_path / "cache", seed=5)
    assert list(made.write(["Zinc.", "Honey."])) == [("first", "second"), ("third",)]
    path, body, headers = server.requests[0]
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer secret"
    assert (body["model"], body["seed"]) == ("tiny", 5)
    assert "Zinc." in body["messages"][0]["content"]


def test_what_was_asked_once_is_not_asked_again(server: FakeServer, tmp_path: Path) -> None:
    first = list(writer(server, tmp_path).write(["Zinc.", "Honey."]))
    assert list(writer(server, tmp_path).write(["Honey.", "Zinc."])) == first[::-1]
    assert len(server.requests) == 2
    list(writer(server, tmp_path, seed=1).write(["Zinc."]))  # another question
    assert len(server.requests) == 3


def test_a_torn_answer_in_the_cache_is_asked_for_again(server: FakeServer, tmp_path: Path) -> None:
    list(writer(server, tmp_path).write(["Zinc."]))
    [kept] = tmp_path.glob("*.json")
    kept.write_text('{"queries": [')
    assert list(writer(server, tmp_path).write(["Zinc."])) == [("does zinc help?", "zinc for colds")]


def test_a_busy_server_is_asked_again_after_as_long_as_it_says(server: FakeServer, tmp_path: Path) -> None:
    busy = (429, b"slow down", {"Retry-After": "7"})
    server.answers = [busy, (503, b"", {}), (200, answer("found at last"), {})]
    made = writer(server, tmp_path)
    assert list(made.write(["Zinc."])) == [("found at last",)]
    assert made.waits == [7.0, 1.0]  # type: ignore[attr-defined]


def test_a_server_that_stays_busy_is_given_up_and_what_was_written_is_kept(server: FakeServer, tmp_path: Path) -> None:
    server.answers = [(200, answer("written before"), {}), (500, b"", {})]
    made = writer(server, tmp_path)
    with pytest.raises(DataError, match=r"no answer in 5 tries; the last: status 500"):
        list(made.write(["Zinc.", "Honey."]))
    assert len(server.requests) == 6
    assert list(made.write(["Zinc."])) == [("written before",)]


def test_a_refusal_is_told_with_the_servers_words_and_not_repeated(server: FakeServer, tmp_path: Path) -> None:
    server.answers = [(401, b"no such key", {})]
    with pytest.raises(DataError, match="refused with status 401: no such key"):
        list(writer(server, tmp_path).write(["Zinc."]))
    assert len(server.requests) == 1


@pytest.mark.parametrize("content", [b"<html>", b"{}", b'{"choices": []}', b"[1]"])
def test_an_answer_in_another_form_is_refused(content: bytes, server: FakeServer, tmp_path: Path) -> None:
    server.answers = [(200, content, {})]
    with pytest.raises(DataError, match="another form than OpenAI's"):
        list(writer(server, tmp_path).write(["Zinc."]))


def test_where_nobody_listens_that_is_told(tmp_path: Path) -> None:
    with FakeServer() as closed:
        url = closed.url
    nobody = QueryWriter(Endpoint(url, "tiny", retries=1), tmp_path, wait=lambda seconds: None)
    with pytest.raises(DataError, match=r"no answer in 2 tries; .*[Rr]efused"):
        list(nobody.write(["Zinc."]))


def test_a_model_that_says_nothing_gives_no_queries(server: FakeServer, tmp_path: Path) -> None:
    server.answers = [(200, json.dumps({"choices": [{"message": {"content": None}}]}).encode(), {})]
    assert list(writer(server, tmp_path).write(["Zinc."])) == [()]


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host/v1", ""])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="an address such as"):
        Endpoint(url, "tiny")


def test_a_key_is_not_shown() -> None:
    assert "secret" not in repr(Endpoint("http://localhost/v1", "tiny", key="secret"))


def test_thoughts_numbers_quotes_and_copies_are_no_queries() -> None:
    words = (
        "<think>the passage says\nzinc</think>Queries:\n1) “Zinc dose?”\nQ2: zinc DOSE?\n* Zinc may shorten\n\nzinc lozenges"
    )
    assert parse_queries(words, "Zinc may shorten a cold.", 5) == ["Zinc dose?", "zinc lozenges"]
