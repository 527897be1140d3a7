"""Qdrant beyond the exam: conditions against its own engine, words that fall together, the wire and what goes wrong on it."""

from __future__ import annotations

import json
import os
import random
import runpy
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from twinrank.conditions import meets
from twinrank.errors import CollectionError, EngineError
from twinrank.index.engines import Engine, Layout, Row, open_engine, retries
from twinrank.index.settings import VectorIndexSettings
from twinrank.types import And, Between, Comparison, Condition, IsNull, Like, Membership, Not, Or

pytest.importorskip("qdrant_edge", reason="qdrant-edge-py is not installed: pip install 'twinrank[qdrant]'")
pytest.importorskip("qdrant_client", reason="qdrant-client is not installed: pip install 'twinrank[qdrant]'")

LAYOUT = Layout(4, True, VectorIndexSettings(kind="exact"))
NUMBERS = [0, 1, -1, 2, 2.0, 2.5, -0.0, 2**53 - 1, 2**53, 2**53 + 1, float(2**53), 2**63 - 1, -(2**63), 1e300, 2**70]
SCALARS = [*NUMBERS, "", "a", "B", "2", "true", "Zürich", True, False, None]
NAMES = ["year", "x_79", "a b", "a.b", 'q"[]', "Ж", "where"]


def row(key: int, *terms: str, **fields: object) -> Row:
    vector = np.random.default_rng(key).standard_normal(4).astype(np.float32)
    return Row(key, f"d{key}", 0, f"payload {key}", {"id": f"d{key}", **fields}, terms, vector)


def keys_of(engine: Engine, where: Condition | None = None) -> set[int]:
    return {row.key for batch in engine.iterate(where) for row in batch}


@pytest.fixture
def local(tmp_path: Path) -> Engine:
    engine = open_engine(f"qdrant+local://{tmp_path}/papers")
    engine.create(LAYOUT)
    yield engine
    engine.close()


def a_condition(draw: random.Random, depth: int = 2) -> Condition:
    if depth and draw.random() < 0.6:
        some = tuple(a_condition(draw, depth - 1) for _ in range(2))
        return draw.choice([And(some), Or(some), Not(some[0])])
    name, value, other = draw.choice(NAMES), draw.choice(SCALARS), draw.choice(SCALARS)
    return draw.choice(
        [
            Comparison(name, draw.choice(["=", "!=", "<", "<=", ">", ">="]), value),
            Membership(name, (value, other)),
            Between(name, value, other),
            IsNull(name),
            Like(name, "%a%"),
        ]
    )


def test_conditions_of_every_kind_let_through_what_they_mean(local: Engine) -> None:
    draw = random.Random(7)
    rows = []
    for key in range(1, 151):
        fields = {name: draw.choice(SCALARS) for name in draw.sample(NAMES, 4)}
        fields |= {draw.choice(NAMES): draw.choices(SCALARS, k=draw.randint(0, 3))}
        rows.append(row(key, **fields))
    local.upsert(rows)
    exact = 0
    for _ in range(400):
        condition = a_condition(draw)
        meant = {row.key for row in rows if meets(condition, row.fields)}
        passing = keys_of(local, condition)
        assert meant <= passing, condition
        if local.exact(condition):
            exact += 1
            assert meant == passing, condition
            assert local.count(condition) == len(meant)
    assert exact > 150


def test_two_words_of_one_dimension_find_each_others_rows(local: Engine) -> None:
    """plumless and buckeroo have the same CRC-32."""
    local.upsert([row(1, "plumless"), row(2, "buckeroo"), row(3, "other"), row(4, "plumless", "buckeroo")])
    assert set(local.search_words(["plumless"], 9).keys.tolist()) == {1, 2, 4}
    assert set(local.search_words(["other"], 9).keys.tolist()) == {3}


def test_the_mean_length_is_learnt_from_the_first_rows_and_then_stays(local: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinrank.index.engines.qdrant.SETTLED", 3)
    local.upsert([row(1, "a"), row(2, "a", "b", "c")])
    assert json.loads(local.get_meta(".lengths")) == {"rows": 2, "terms": 4}
    local.upsert([row(3, *"abcde")])
    local.upsert([row(4, *"abcdefghi")])
    assert json.loads(local.get_meta(".lengths")) == {"rows": 3, "terms": 9}


def test_rows_without_words_or_vectors_are_kept_and_not_found_by_them(local: Engine) -> None:
    local.upsert([replace(row(1), terms=()), replace(row(2, "zinc"), vector=None)])
    assert keys_of(local) == {1, 2}
    assert local.search_words(["zinc"], 5).keys.tolist() == [2]
    assert local.search_vectors(row(1).vector, 5).keys.tolist() == [1]


def test_many_fields_get_an_index_until_there_are_enough(local: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinrank.index.engines.qdrant.INDEXED_FIELDS", 6)
    local.upsert([row(key, **{f"f{key}": key}) for key in range(1, 8)])
    for key in range(1, 8):
        assert keys_of(local, Comparison(f"f{key}", "=", key)) == {key}
    assert len(local._indexed) == 6


def test_graphs_are_built_where_many_points_were_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinrank.index.engines.qdrant_local.OPTIMIZED_EVERY", 1000)
    engine = open_engine(f"qdrant+local://{tmp_path}/papers")
    engine.create(Layout(4, False, VectorIndexSettings(kind="hnsw", m=8, ef_construction=64, ef_search=77)))
    assert not engine.words
    engine.upsert([row(key) for key in range(1, 1501)])
    assert engine.describe()["index"] == "hnsw, m 8, ef_construct 64, ef 77"
    assert engine.count() == 1500
    best = engine.search_vectors(row(700).vector * 100, 1500)
    assert len(best) == 1500
    engine.close()


WRITES = """
import sys, numpy as np, os
sys.path[:0] = {path!r}
from twinrank.index.engines import Layout, Row, open_engine
engine = open_engine({address!r})
engine.create(Layout(4, True))
engine.upsert([Row(key, f"d{{key}}", 0, "", {{"id": "d"}}, ("word",), np.ones(4, np.float32)) for key in range(1, 201)])
engine.set_meta("recipe", "kept")
print("written", flush=True)
sys.stdin.read()
"""


def test_a_process_that_is_killed_loses_nothing_that_was_written(tmp_path: Path) -> None:
    address = f"qdrant+local://{tmp_path}/papers"
    script = WRITES.format(path=sys.path, address=address)
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "written\n"
        engine = open_engine(address)
        with pytest.raises(EngineError, match="one process has a folder open at a time"):
            engine.count()
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
    assert engine.count() == 200
    assert engine.get_meta("recipe") == "kept"
    assert len(engine.search_words(["word"], 500)) == 200
    engine.close()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("qdrant+local:///papers", "a folder and a name were expected"),
        ("qdrant+local://host/folder/papers", "a folder and a name were expected"),
        ("qdrant+local:///folder/papers?shards=2", "no option 'shards'"),
        ("qdrant://me:secret@localhost/papers", "QDRANT_API_KEY"),
        ("qdrant://localhost/papers?tls=yes", "tls is 'yes'; true or false"),
        ("qdrant://localhost/papers?timeout=0", "timeout is '0'"),
        ("qdrant://localhost/papers?colour=red", "no option 'colour'"),
    ],
)
def test_an_address_that_cannot_be_meant_is_refused(address: str, said: str) -> None:
    with pytest.raises(CollectionError, match=said) as error:
        open_engine(address)
    assert "secret" not in str(error.value)


# -- the wire ---------------------------------------------------------------------------------------------------------------

SERVER = runpy.run_path(str(Path(__file__).with_name("qdrant_server.py")))["QdrantServer"]


@pytest.fixture
def server(tmp_path: Path):
    with SERVER(tmp_path / "server") as running:
        yield running


@pytest.fixture
def remote(server) -> Engine:
    engine = open_engine(f"qdrant://127.0.0.1:{server.port}/papers")
    engine.create(LAYOUT)
    yield engine
    engine.close()


@pytest.mark.parametrize("fault", [503, 429, 502, "cut", "lost"])
def test_a_call_that_fails_for_a_moment_is_made_again_and_nothing_is_doubled(server, remote: Engine, fault: object) -> None:
    for call in (
        lambda: remote.upsert([row(1, "zinc"), row(2, "zinc")]),
        lambda: remote.delete(np.array([2])),
        lambda: remote.set_meta("recipe", "x"),
    ):
        server.faults += [fault, fault]
        call()
    server.faults += [fault]
    assert keys_of(remote) == {1}
    server.faults += [fault]
    assert remote.search_words(["zinc"], 3).keys.tolist() == [1]
    assert remote.get_meta("recipe") == "x"


@pytest.mark.parametrize("fault", [503, "lost"])
def test_a_collection_whose_making_was_interrupted_is_completed(server, fault: object) -> None:
    engine = open_engine(f"qdrant://127.0.0.1:{server.port}/papers")
    for place in (0, 1, 2, 4, 6):
        server.faults += [None] * place + [fault]
        engine.create(LAYOUT)
        assert engine.exists()
        engine.upsert([row(1)])
        server.faults += [fault]
        engine.drop()
        assert not engine.exists()
        server.faults.clear()
    engine.close()


def test_a_server_that_is_gone_is_said_so_once_patience_ends(server, remote: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries.persistent, "__defaults__", (0.3,))
    server.faults += ["cut"] * 50
    begun = time.monotonic()
    with pytest.raises(EngineError, match=rf"qdrant://127.0.0.1:{server.port}/papers, counting: .*is it running\?"):
        remote.count()
    assert time.monotonic() - begun < 5
    server.faults.clear()
    assert remote.count() == 0


def test_what_a_server_refuses_is_told_in_its_words_and_not_asked_again(server, remote: Engine) -> None:
    asked = len(server.asked)
    with pytest.raises(EngineError, match="400 Bad Request: Wrong input: Vector dimension error: expected dim: 4, got 3"):
        remote.upsert([replace(row(1), vector=np.ones(3, np.float32))])
    assert sum(path.endswith("/points?wait=true") for _, path in server.asked[asked:]) <= 2
    missing = open_engine(f"qdrant://127.0.0.1:{server.port}/missing")
    with pytest.raises(EngineError, match=r"404 Not Found: .*Collection `missing` doesn't exist!"):
        missing.count()
    assert not missing.exists()
    missing.close()


def test_the_key_comes_from_the_environment_and_is_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with SERVER(tmp_path, key="very-secret") as server:
        address = f"qdrant://127.0.0.1:{server.port}/papers"
        monkeypatch.setenv("QDRANT_API_KEY", "very-secret")
        engine = open_engine(address)
        engine.create(LAYOUT)
        assert engine.count() == 0
        assert "secret" not in f"{engine.describe()} {engine.address!r}"
        engine.close()
        monkeypatch.setenv("QDRANT_API_KEY", "a-wrong-one")
        wrong = open_engine(address)
        with pytest.raises(EngineError, match=r"401 Unauthorized: .*QDRANT_API_KEY") as error:
            wrong.count()
        assert "a-wrong-one" not in str(error.value)
        wrong.close()


def test_a_key_goes_to_another_machine_encrypted_unless_the_address_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    def where(address: str) -> str:
        engine = open_engine(address)
        engine.close()
        return engine._service._client._client.rest_uri

    assert where("qdrant://example.org/papers") == "http://example.org:6333"
    monkeypatch.setenv("QDRANT_API_KEY", "key")
    assert where("qdrant://example.org/papers") == "https://example.org:6333"
    assert where("qdrant://localhost:7/papers") == "http://localhost:7"
    assert where("qdrant://example.org/papers?tls=false") == "http://example.org:6333"
    assert where("qdrant://[::1]:7/proxied/papers?tls=true").startswith("https://[::1]:7/proxied")


def test_a_server_is_reached_over_tls_if_its_certificate_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = tmp_path / "server.pem"
    made = subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            "server.pem",
            "-out",
            "cert.pem",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
        ],
        cwd=tmp_path,
        capture_output=True,
    )
    if made.returncode:
        pytest.skip("openssl makes no certificate here")
    certificate.write_bytes(certificate.read_bytes() + (tmp_path / "cert.pem").read_bytes())
    monkeypatch.setattr(retries.persistent, "__defaults__", (0.2,))
    with SERVER(tmp_path / "server", certificate=certificate) as server:
        address = f"qdrant://127.0.0.1:{server.port}/papers?tls=true"
        doubted = open_engine(address)
        with pytest.raises(EngineError, match="CERTIFICATE_VERIFY_FAILED"):
            doubted.exists()
        doubted.close()
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        engine = open_engine(address)
        engine.create(LAYOUT)
        engine.upsert([row(1)])
        assert engine.count() == 1
        engine.close()


def test_replicas_are_written_and_read_by_a_majority(server) -> None:
    engine = open_engine(f"qdrant://127.0.0.1:{server.port}/papers?replicas=3&shards=2&on_disk=true")
    engine.create(LAYOUT)
    made = server.settings["papers"]
    assert (made["shard_number"], made["replication_factor"], made["write_consistency_factor"]) == (2, 3, 2)
    assert made["vectors"]["dense"]["on_disk"]
    assert made["hnsw_config"]["m"] == 0
    other = open_engine(f"qdrant://127.0.0.1:{server.port}/papers")
    for read in (
        other.count,
        lambda: list(other.iterate()),
        lambda: other.fetch(np.array([1])),
        lambda: other.search_vectors(np.ones(4, np.float32), 3),
    ):
        asked = len(server.asked)
        read()
        assert server.asked[-1][1].endswith("consistency=majority") or "majority" in str(server.asked[asked:])
    assert other.describe()["shards"] == "2, 3 of each"
    engine.close()
    other.close()


def test_rows_go_in_requests_that_are_not_too_large(server, remote: Engine) -> None:
    remote.upsert([replace(row(key), payload="x" * 3_000_000) for key in range(1, 6)])
    assert sum(path.endswith("papers/points?wait=true") and verb == "PUT" for verb, path in server.asked) == 3
    assert remote.count() == 5
