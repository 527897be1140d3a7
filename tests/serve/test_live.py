"""A server on a port against who sends too much, too slowly or not at all; and how it ends: what is under way is answered."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from twinrank import Collection
from twinrank.serve.connections import RESERVED, room_for
from twinrank.serve.settings import Limits, Waits

Opening = Callable[..., Collection]
Live = Callable[..., str]
QUESTION = json.dumps({"query": "zinc"}).encode()


def connect(address: str) -> socket.socket:
    parts = urlsplit(address)
    assert parts.hostname is not None
    return socket.create_connection((parts.hostname, parts.port or 80), timeout=20)


def head(path: str = "/search", length: int | None = len(QUESTION), *more: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *more]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return "\r\n".join([*lines, "", ""]).encode()


def read_answer(connection: socket.socket) -> tuple[int, bytes]:
    """Status and body; 0 where the connection was closed without an answer."""
    data = b""
    try:
        while b"\r\n\r\n" not in data:
            part = connection.recv(65536)
            if not part:
                return 0, data
            data += part
        start, _, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", start.lower())
        while length and len(body) < int(length[1]):
            body += connection.recv(65536)
    except ConnectionError:
        return 0, data
    return int(start.split()[1]), body


def ask(address: str, path: str = "/search", body: bytes = QUESTION) -> tuple[int, bytes]:
    with closing(connect(address)) as connection:
        connection.sendall(head(path, len(body)) + body)
        return read_answer(connection)


def is_closed(connection: socket.socket, within: float) -> bool:
    connection.settimeout(within)
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


# -- who is slow ---------------------------------------------------------------------------------------------------------


def test_connections_that_ask_nothing_are_ended_and_hold_up_nobody(live: Live, opened: Opening) -> None:
    address = live(opened(words=True), waits=Waits(header=1.0))
    with ExitStack() as stack:
        half_open = [stack.enter_context(closing(connect(address))) for _ in range(200)]
        for connection in half_open[:100]:
            connection.sendall(b"POST /search HTTP/1.1\r\nHost: localhost\r\n")
        started = time.perf_counter()
        assert ask(address)[0] == 200
        assert time.perf_counter() - started < 0.9
        assert all(is_closed(connection, 10) for connection in half_open)


def test_a_head_that_drips_is_ended_in_the_same_time(live: Live, opened: Opening) -> None:
    address = live(opened(words=True), waits=Waits(header=0.5))
    with closing(connect(address)) as connection:
        started = time.perf_counter()
        with pytest.raises(ConnectionError):
            _drip(connection, head() * 20)
        assert 0.4 < time.perf_counter() - started < 5


def _drip(connection: socket.socket, data: bytes) -> None:
    for byte in data:
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


def test_the_connection_that_waits_longest_makes_room(live: Live, opened: Opening) -> None:
    address = live(opened(words=True), limits=Limits(connections=20))
    with ExitStack() as stack:
        half_open = [stack.enter_context(closing(connect(address))) for _ in range(20)]
        assert ask(address)[0] == 200
        assert is_closed(half_open[0], 5)
        assert not is_closed(half_open[-1], 0.2)


def test_a_connection_is_kept_for_the_next_request_and_ended_when_none_comes(live: Live, opened: Opening) -> None:
    address = live(opened(words=True), waits=Waits(keep_alive=1.0))
    with closing(connect(address)) as connection:
        for _ in range(3):
            connection.sendall(head() + QUESTION)
            assert read_answer(connection)[0] == 200
        connection.sendall((head() + QUESTION) * 2)  # the second before the answer to the first
        time.sleep(0.3)
        assert connection.recv(1 << 20).count(b"HTTP/1.1 200") == 2
        assert is_closed(connection, 10)


def test_head_is_answered_as_get_without_a_body(live: Live, opened: Opening) -> None:
    address = urlsplit(live(opened()))
    connection = HTTPConnection(address.hostname or "", address.port, timeout=20)
    for path in ("/health", "/ready", "/"):
        connection.request("HEAD", path)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"")
        assert int(answer.headers["Content-Length"]) > 0
    connection.close()


def test_a_body_that_does_not_come_is_answered_with_408(live: Live, opened: Opening) -> None:
    address = live(opened(words=True), waits=Waits(body=0.3))
    with closing(connect(address)) as connection:
        connection.sendall(head() + QUESTION[:5])
        status, body = read_answer(connection)
        assert status == 408
        assert b"did not come within" in body
        assert is_closed(connection, 5)


def test_a_head_without_end_is_refused(live: Live, opened: Opening) -> None:
    address = live(opened(words=True), limits=Limits(header=10_000))
    with closing(connect(address)) as connection:
        connection.sendall(head()[:-2] + b"X-Long: " + b"x" * 30_000)
        status, body = read_answer(connection)
        assert status == 400
        assert "10,000 bytes" in json.loads(body)["error"]["message"]


# -- a process of its own ------------------------------------------------------------------------------------------------


class Process:
    """`twinrank serve` on a free port."""

    def __init__(self, folder: Path, *options: str) -> None:
        environment = {**os.environ, "TWINRANK_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "twinrank", "serve", "-c", str(folder), "--port", "0", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
        )
        assert self.process.stderr is not None
        self.address = ""
        for line in self.process.stderr:
            if line.startswith("serving at "):
                self.address = line.split()[-1]
                break

    def memory(self) -> int:
        """Bytes that it holds."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status)[1])  # type: ignore[index]


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """One for all of these tests; the last one ends it."""
    folder = tmp_path_factory.mktemp("process") / "notes"
    with Collection(folder, model="none") as collection:
        collection.add([{"id": "zinc", "text": "Zinc may shorten a cold."}])
    started = Process(folder)
    yield started
    if started.process.poll() is None:
        started.process.kill()
    started.process.communicate()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_what_is_far_too_much_is_refused_early_and_leaves_memory_flat(process: Process) -> None:
    assert ask(process.address)[0] == 200
    before = process.memory()

    with closing(connect(process.address)) as connection:  # a gigabyte that is told
        connection.sendall(head("/documents", 2**30) + b"x" * 1000)
        assert read_answer(connection)[0] == 413
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    sent = 0
    with closing(connect(process.address)) as connection:  # and one that is not
        try:
            connection.sendall(head("/documents", None, "Transfer-Encoding: chunked"))
            while sent < 2**30:
                connection.sendall(chunk)
                sent += 0x10000
        except ConnectionError:
            pass
    assert sent < 2**27, "an eighth of it was read at most"
    bomb = gzip.compress(b" " * 50_000_000)
    with closing(connect(process.address)) as connection:
        connection.sendall(head("/search", len(bomb), "Content-Encoding: gzip") + bomb)
        assert read_answer(connection)[0] == 415
    deep = b'{"query": ' + b"[" * 400_000 + b"]" * 400_000 + b"}"
    assert ask(process.address, body=deep)[0] in (400, 422)
    for item in ("a", [], {}):
        many = json.dumps({"ids": [item] * 10**6}).encode()
        assert ask(process.address, "/documents/delete", many)[0] in (413, 422)

    assert process.memory() - before < 100 * 2**20
    assert ask(process.address)[0] == 200


def test_a_body_a_little_too_long_is_answered_to_a_client_that_sends_before_it_reads(process: Process) -> None:
    body = b'{"query": "' + b"x" * (2**20 + 2**19) + b'"}'
    with closing(connect(process.address)) as connection:
        connection.sendall(head("/search", len(body)))
        connection.sendall(body)
        assert read_answer(connection)[0] == 413


def test_sigterm_ends_the_server_when_what_is_under_way_is_answered_and_the_log_tells_no_text(process: Process) -> None:
    with closing(connect(process.address)) as connection:
        connection.sendall(b"GET /search?q=sesame HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert read_answer(connection)[0] == 200
        connection.sendall(b"GET /sesame sesame\r\n\r\n")
        read_answer(connection)
    with closing(connect(process.address)) as under_way, closing(connect(process.address)) as idle:
        under_way.sendall(head() + QUESTION[:5])
        time.sleep(0.3)
        process.process.send_signal(signal.SIGTERM)
        assert is_closed(idle, 10)
        with pytest.raises(ConnectionError):  # nobody new is let in
            connect(process.address)
        assert process.process.poll() is None
        under_way.sendall(QUESTION[5:])
        status, body = read_answer(under_way)
        assert status == 200
        assert json.loads(body)["hits"][0]["id"] == "zinc"
    _, told = process.process.communicate(timeout=20)
    assert process.process.returncode in (0, -signal.SIGTERM)
    assert "GET /search 200" in told
    assert "sesame" not in told


def test_a_server_that_anybody_could_reach_is_not_started_without_keys(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "twinrank", "serve", "-c", str(tmp_path), "--host", "0.0.0.0", "--port", "0"],
        capture_output=True,
        text=True,
        timeout=60,
        env={name: value for name, value in os.environ.items() if not name.startswith("TWINRANK_")},
    )
    assert run.returncode == 1
    assert "there is no key" in run.stderr
    assert "--keys" in run.stderr


def test_a_file_of_keys_that_others_can_read_is_told(tmp_path: Path) -> None:
    keys = tmp_path / "my keys"
    keys.write_text("read opensesame-opensesame")
    for mode, told in ((0o644, True), (0o600, False)):
        keys.chmod(mode)
        command = [sys.executable, "-m", "twinrank", "serve", "-c", str(tmp_path / "none"), "--keys", str(keys), "--port", "0"]
        run = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert run.returncode == 1
        assert ("chmod 600" in run.stderr) is told


def test_a_model_that_is_missing_is_told_in_a_sentence(tmp_path: Path, tiny_model: Path) -> None:
    folder, model = tmp_path / "notes", tmp_path / "model"
    shutil.copytree(tiny_model, model)
    Collection(folder, model=str(model)).close()
    shutil.rmtree(model)
    command = [sys.executable, "-m", "twinrank", "serve", "-c", str(folder), "--port", "0"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.returncode == 1
    assert str(model) in run.stderr
    assert "Traceback" not in run.stderr


def test_a_library_that_is_missing_is_told_with_what_installs_it() -> None:
    code = "import sys; sys.modules['fastapi'] = None; from twinrank.cli import main; main(['serve', '-c', 'anywhere'])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.returncode == 1
    assert "pip install 'twinrank[serve]'" in run.stderr
    assert "Traceback" not in run.stderr


def test_as_many_connections_are_held_as_files_may_be_open() -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        assert room_for(10) == 10
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= min(soft, 10 + RESERVED)
        assert room_for(10**9) <= max(soft, hard) or hard == resource.RLIM_INFINITY
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
