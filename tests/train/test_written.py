"""Queries written by a model behind HTTP: a server of our own answers as such servers do, well and badly."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from twinrank.answer.endpoint import Endpoint
from twinrank.errors import EndpointError
from twinrank.train.written import QueryWriter, parse_queries


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
    return QueryWriter(Endpoint(server.url, "tiny", timeout=5), cache, workers=1, **options)


def test_queries_come_in_the_order_of_their_passages_and_the_request_is_openais(server: FakeServer, tmp_path: Path) -> None:
    server.answers = [(200, answer("first\n- second"), {}), (200, answer("1. third"), {})]
    assert list(writer(server, tmp_path / "cache").write(["Zinc.", "Honey."])) == [("first", "second"), ("third",)]
    path, body, _ = server.requests[0]
    assert path == "/v1/chat/completions"
    assert body["model"] == "tiny"
    assert "Zinc." in body["messages"][0]["content"]


def test_what_was_asked_once_is_not_asked_again(server: FakeServer, tmp_path: Path) -> None:
    first = list(writer(server, tmp_path).write(["Zinc.", "Honey."]))
    assert list(writer(server, tmp_path).write(["Honey.", "Zinc."])) == first[::-1]
    assert len(server.requests) == 2
    list(writer(server, tmp_path, count=1).write(["Zinc."]))  # another question
    assert len(server.requests) == 3


def test_a_writer_is_named_by_all_that_its_queries_depend_on(server: FakeServer, tmp_path: Path) -> None:
    writers = [writer(server, tmp_path), writer(server, tmp_path, count=1), QueryWriter(Endpoint(server.url, "big"), tmp_path)]
    assert len({one.name for one in writers}) == 3
    assert writer(server, tmp_path / "other").name == writers[0].name


def test_an_answer_that_was_spoilt_in_the_cache_is_asked_for_again(server: FakeServer, tmp_path: Path) -> None:
    list(writer(server, tmp_path).write(["Zinc."]))
    [kept] = tmp_path.glob("*.json")
    kept.write_text('{"queries": [')
    assert list(writer(server, tmp_path).write(["Zinc."])) == [("does zinc help?", "zinc for colds")]


def test_a_busy_server_is_asked_again(server: FakeServer, tmp_path: Path) -> None:
    server.answers = [(429, b"slow down", {"Retry-After": "0"}), (200, answer("found at last"), {})]
    assert list(writer(server, tmp_path).write(["Zinc."])) == [("found at last",)]


def test_a_refusal_is_told_and_what_was_written_before_is_kept(server: FakeServer, tmp_path: Path) -> None:
    server.answers = [(200, answer("written before"), {}), (401, b'{"error": "no such key"}', {})]
    with pytest.raises(EndpointError, match="status 401: no such key"):
        list(writer(server, tmp_path).write(["Zinc.", "Honey."]))
    assert list(writer(server, tmp_path).write(["Zinc."])) == [("written before",)]


def test_progress_is_told_a_passage_at_a_time(server: FakeServer, tmp_path: Path) -> None:
    seen: list[int] = []
    list(writer(server, tmp_path).write(["Zinc.", "Honey.", "Rest."], progress=seen.append))
    assert seen == [1, 1, 1]


def test_thoughts_numbers_quotes_and_copies_are_no_queries() -> None:
    words = (
        "<think>the passage says\nzinc</think>Queries:\n1) “Zinc dose?”\nQ2: zinc DOSE?\n* Zinc may shorten\n\nzinc lozenges"
    )
    assert parse_queries(words, "Zinc may shorten a cold.", 5) == ["Zinc dose?", "zinc lozenges"]
