"""What the tests of answers share: a language model that is simulated, and documents that attack."""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent

Say = Callable[[list[dict[str, str]]], str]
"""Messages → what the model says."""


class Model:
    """An OpenAI-compatible endpoint on this machine, whose words are the test's."""

    def __init__(self) -> None:
        self.say: Say = lambda messages: "I do not know."
        self.statuses: list[int] = []
        """What the next requests are refused with; then it answers."""
        self.headers: dict[str, str] = {}
        self.body: bytes | None = None
        """In place of a completion."""
        self.pause = 0.0
        self.asked: list[dict[str, Any]] = []
        self.seen_headers: list[dict[str, str]] = []
        model = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                model.asked.append({"path": self.path, **json.loads(body)})
                model.seen_headers.append(dict(self.headers))
                time.sleep(model.pause)
                status = model.statuses.pop(0) if model.statuses else 200
                self.send_response(status)
                for name, value in model.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(model.reply(status))

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def reply(self, status: int) -> bytes:
        if status != 200:
            return json.dumps({"error": {"message": f"status {status}, told by the model's server", "type": "x"}}).encode()
        if self.body is not None:
            return self.body
        choice = {"message": {"role": "assistant", "content": self.say(self.asked[-1]["messages"])}, "finish_reason": "stop"}
        return json.dumps({"choices": [choice]}).encode()


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[Model]:
    monkeypatch.delenv("TWINRANK_ENDPOINT_KEY", raising=False)
    made = Model()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture(scope="session")
def attacks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("twinrank_planted", HERE / "planted.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["twinrank_planted"] = module
    spec.loader.exec_module(module)
    return module
