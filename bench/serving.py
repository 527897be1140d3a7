"""A server under load: what it answers a second, how quickly below that, and what twice as much or idle connections do to it.

python bench/serving.py DATA [--seconds 20] [--overload 60] [--rounds 5] [--rerank MODEL] [--threads N] [--json FILE]

DATA is a folder in BEIR's layout, as data/scifact; its documents are indexed into a temporary folder by the default encoder.
The server is a process of its own, `twinrank serve` as it is. Requests are sent when they are due, by a Poisson process, be
those before answered or not, and times count from when they were due: nothing is left out because the server was slow (no
coordinated omission). No query is sent twice, so that no vector is remembered. Clients and server share the machine. The
capacity is taken again before each load, because other processes may leave the server more or less.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from time import perf_counter, sleep
from urllib.parse import urlsplit

import numpy as np

from twinrank import Collection, Recipe
from twinrank.evaluate.machine import describe_machine
from twinrank.readers.judged import read_queries
from twinrank.serve.connections import room_for

CLIENTS = 8
"""That ask without a pause, to find the capacity."""
HALF_OPEN = 1000
PATIENCE = 30.0
"""Seconds after which an answer counts as lost."""

# -- one request ---------------------------------------------------------------------------------------------------------


@dataclass
class Connections:
    """HTTP/1.1 connections to one address, kept and used again."""

    host: str
    port: int
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=list)

    async def post(self, path: str, body: bytes) -> int:
        """The status; 0 where no answer came."""
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        try:
            answer, reader, writer = await self._send(head.encode() + body)
            length = int(answer.split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError, IndexError):
            return 0
        if b"connection: close" in answer:
            writer.close()
        else:
            self.idle.append((reader, writer))
        return int(answer.split(b" ", 2)[1])

    async def _send(self, request: bytes) -> tuple[bytes, asyncio.StreamReader, asyncio.StreamWriter]:
        """The head of the answer; sent again where the server had ended the connection at that moment, as clients do."""
        used = bool(self.idle)
        reader, writer = await self._connection()
        try:
            writer.write(request)
            return (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)).lower(), reader, writer
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            if not used or getattr(error, "partial", b""):
                raise
            writer.close()
            return await self._send(request)

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self.idle:
            reader, writer = self.idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()  # the server ended it, which had been quiet for long
        return await asyncio.open_connection(self.host, self.port)


@dataclass
class Client:
    """Asks the server for searches, each query once."""

    connections: Connections
    queries: list[str]
    numbers: Iterator[int] = field(default_factory=count)

    async def ask(self) -> int:
        number = next(self.numbers)
        query = f"{self.queries[number % len(self.queries)]} {number}"
        return await self.connections.post("/search", json.dumps({"query": query, "k": 10}).encode())


# -- many of them --------------------------------------------------------------------------------------------------------


@dataclass
class Answers:
    """What came of a load: (when it was due, seconds until the answer, status) of each request."""

    seconds: float
    """That the load lasted."""
    found: list[tuple[float, float, int]] = field(default_factory=list)
    cpu: float = 0.0
    """Seconds of processor that the server took."""

    def times(self, status: int = 200) -> np.ndarray:
        return np.array([seconds for _, seconds, found in self.found if found == status])

    def number(self, *statuses: int) -> int:
        return sum(status in statuses for _, _, status in self.found)

    def percentile(self, percent: float, status: int = 200) -> float:
        """Milliseconds."""
        times = self.times(status)
        return float(1000 * np.percentile(times, percent)) if len(times) else float("nan")

    @property
    def errors(self) -> int:
        return len(self.found) - self.number(200, 503)

    def row(self, name: str, rate: float) -> str:
        answered = self.number(200)
        cpu = 1000 * self.cpu / max(1, answered)
        times = "".join(f"{self.percentile(percent):>9.1f}" for percent in (50, 95, 99))
        return f"{name:<22}{rate:>9.1f}{answered / self.seconds:>11.1f}{self.number(503):>9}{self.errors:>8}{times}{cpu:>9.2f}"


COLUMNS = {"asked/s": 9, "answered/s": 11, "refused": 9, "errors": 8, "p50 ms": 9, "p95 ms": 9, "p99 ms": 9, "cpu ms": 9}
HEAD = f"{'load':<22}" + "".join(f"{name:>{width}}" for name, width in COLUMNS.items())


async def closed_loop(ask: Callable[[], Awaitable[int]], clients: int, seconds: float) -> Answers:
    """As much as `clients` get answered that each wait for the answer before they ask again."""
    answers = Answers(seconds)
    started = perf_counter()

    async def work() -> None:
        while (due := perf_counter()) - started < seconds:
            status = await ask()
            answers.found.append((due - started, perf_counter() - due, status))

    await asyncio.gather(*(work() for _ in range(clients)))
    answers.seconds = perf_counter() - started
    return answers


async def open_loop(ask: Callable[[], Awaitable[int]], rate: float, seconds: float, chance: random.Random) -> Answers:
    """`rate` requests a second on average, each when it is due."""
    answers = Answers(seconds)
    started = perf_counter()

    async def one(due: float) -> None:
        status = await ask()
        answers.found.append((due, perf_counter() - started - due, status))

    tasks, due = [], chance.expovariate(rate)
    while due < seconds:
        if (early := due - (perf_counter() - started)) > 0:
            await asyncio.sleep(early)
        tasks.append(asyncio.create_task(one(due)))
        due += chance.expovariate(rate)
    await asyncio.gather(*tasks)
    return answers


@contextmanager
def half_open(host: str, port: int, number: int) -> Iterator[None]:
    """So many connections that begin a request and never end it, held by a process of their own."""
    if not number:
        yield
        return
    process = subprocess.Popen([sys.executable, __file__, "--hold", host, str(port), str(number)])
    sleep(3)
    try:
        yield
    finally:
        process.kill()
        process.wait()


async def hold(host: str, port: int, number: int) -> None:
    """Hold them; one that the server ends is opened anew."""

    async def one() -> None:
        while True:
            with suppress(OSError):
                reader, writer = await asyncio.open_connection(host, port)
                writer.write(b"POST /search HTTP/1.1\r\nHost: localhost\r\n")
                await reader.read()
                writer.close()
            await asyncio.sleep(1)

    await asyncio.gather(*(one() for _ in range(number)))


# -- the server ----------------------------------------------------------------------------------------------------------


@contextmanager
def server(folder: Path, *options: str) -> Iterator[tuple[str, int, int]]:
    """Host, port and process of a server of its own."""
    command = [sys.executable, "-m", "twinrank", "serve", "-c", str(folder), "--port", "0", "--quiet", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        line = next(line for line in process.stderr if line.startswith("serving at "))
        address = urlsplit(line.split()[-1])
        assert address.hostname is not None
        assert address.port is not None
        yield address.hostname, address.port, process.pid
    finally:
        process.terminate()
        process.communicate()


def cpu_of(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass
class Bench:
    client: Client
    process: int
    seconds: float
    chance: random.Random = field(default_factory=lambda: random.Random(7))

    async def load(self, rate: float, seconds: float | None = None) -> Answers:
        before = cpu_of(self.process)
        answers = await open_loop(self.client.ask, rate, seconds or self.seconds, self.chance)
        answers.cpu = cpu_of(self.process) - before
        await asyncio.sleep(1)
        return answers

    async def capacity(self, seconds: float) -> Answers:
        await closed_loop(self.client.ask, CLIENTS, 2)  # warm
        before = cpu_of(self.process)
        answers = await closed_loop(self.client.ask, CLIENTS, seconds)
        answers.cpu = cpu_of(self.process) - before
        return answers

    async def rate(self, share: float) -> float:
        """So much of what the server can do now: what a machine gives it changes."""
        full = await self.capacity(min(5.0, self.seconds))
        return share * full.number(200) / full.seconds


async def measure(bench: Bench, overload: float, rounds: int) -> dict[str, object]:
    print(HEAD, flush=True)
    told: dict[str, object] = {}

    def show(name: str, rate: float, answers: Answers) -> None:
        print(answers.row(name, rate), flush=True)
        told[name] = {
            "asked": rate,
            "answered": answers.number(200) / answers.seconds,
            "refused": answers.number(503),
            "errors": answers.errors,
            **{f"p{percent}": answers.percentile(percent) for percent in (50, 95, 99)},
        }

    alone = await closed_loop(bench.client.ask, 1, min(5.0, bench.seconds))
    show("one client", 0, alone)
    show(f"capacity: {CLIENTS} clients", 0, await bench.capacity(bench.seconds))
    normal = {}
    for share in (0.5, 0.7, 0.9):
        rate = await bench.rate(share)
        normal[share] = await bench.load(rate)
        show(f"{share:.0%} of capacity", rate, normal[share])
    rate = await bench.rate(2.0)
    over = await bench.load(rate, overload)
    show("200% of capacity", rate, over)
    after = await bench.load(rate / 4, 10)
    show("50% right after", rate / 4, after)
    print()
    for share, answers in normal.items():
        print(f"admitted p99 at 200 % is {over.percentile(99) / answers.percentile(99):.2f} times that at {share:.0%}")
    print(
        f"a refusal took {over.percentile(50, 503):.1f} ms (p50), {over.percentile(99, 503):.1f} ms (p99); "
        f"back {back_within(after, normal[0.5])} after the overload ended"
    )
    told["half-open"] = await with_half_open(bench, rounds)
    return told


def back_within(after: Answers, normal: Answers) -> str:
    """The first second from which on nothing is refused and the median is at most twice the normal one."""
    seconds: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for due, time, status in after.found:
        seconds[int(due)].append((time, status))
    bound = 2 * normal.percentile(50) / 1000
    bad = [
        second
        for second, found in seconds.items()
        if any(status != 200 for _, status in found) or np.median([time for time, _ in found]) > bound
    ]
    return f"{max(bad) + 1 if bad else 1} s"


async def with_half_open(bench: Bench, rounds: int) -> dict[str, float]:
    """The same load with and without half-open connections, in turns."""
    plain, held = Answers(0), Answers(0)
    connections = bench.client.connections
    for _ in range(rounds):
        rate = await bench.rate(0.5)
        for answers, number in ((plain, 0), (held, HALF_OPEN)):
            with half_open(connections.host, connections.port, number):
                found = await bench.load(rate)
            answers.found += found.found
            answers.seconds += found.seconds
            answers.cpu += found.cpu
    print()
    print(HEAD)
    print(plain.row("50% of capacity", rate))
    print(held.row(f"{HALF_OPEN:,} half-open", rate))
    ratios = {f"p{percent}": held.percentile(percent) / plain.percentile(percent) for percent in (50, 95, 99)}
    print("with half-open connections: " + ", ".join(f"{name} × {ratio:.2f}" for name, ratio in ratios.items()))
    return ratios


def main() -> None:
    room_for(3 * HALF_OPEN)
    if sys.argv[1:2] == ["--hold"]:
        host, port, number = sys.argv[2:]
        asyncio.run(hold(host, int(port), int(number)))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each load")
    parser.add_argument("--overload", type=float, default=60.0, help="seconds at twice the capacity")
    parser.add_argument("--rounds", type=int, default=5, help="with and without half-open connections")
    parser.add_argument("--rerank", metavar="MODEL", help="a cross-encoder that reranks 20 candidates")
    parser.add_argument("--threads", type=int, help="of the server, that search")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    given = parser.parse_args()
    queries = list(read_queries(given.data).values())
    random.Random(7).shuffle(queries)
    text = f'[[rerank]]\nkind = "cross-encoder"\nmodel = "{given.rerank}"\ncandidates = 20\n' if given.rerank else ""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "served.twinrank"
        with Collection(place, recipe=Recipe.parse(text)) as collection:
            print(collection.add(given.data), file=sys.stderr)
        print("\n".join(f"{name}: {fact}" for name, fact in describe_machine().items()), end="\n\n")
        with server(place, *(("--threads", str(given.threads)) if given.threads else ())) as (host, port, process):
            bench = Bench(Client(Connections(host, port), queries), process, given.seconds)
            told = asyncio.run(measure(bench, given.overload, given.rounds))
    if given.json:
        given.json.write_text(json.dumps(told, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
