"""Pinecone beyond the exam: conditions by its rules, its limits, its lag, and what goes wrong on the wire."""

from __future__ import annotations

import random
import runpy
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from twinrank.conditions import meets, translate
from twinrank.errors import CollectionError, EngineError
from twinrank.index.engines import Engine, Layout, Row, open_engine, retries
from twinrank.types import And, Between, Comparison, Condition, IsNull, Like, Membership, Not, Or

pytest.importorskip("pinecone", reason="pinecone is not installed: pip install 'twinrank[pinecone]'")

from twinrank.index.engines import pinecone as module
from twinrank.index.engines.pinecone_language import PineconeLanguage, numbers_of, searchable

SIMULATED = runpy.run_path(str(Path(__file__).with_name("pinecone_server.py")))
SERVER, KEPT, CHECKED, MEETS = (SIMULATED[name] for name in ("PineconeServer", "_metadata", "_filter", "_meets"))
LAYOUT = Layout(4, False)
NUMBERS = [0, 1, -1, 2, 2.0, 2.5, -0.0, 2**53 - 1, 2**53, 2**53 + 1, float(2**53), 2**63 - 1, 1e300, 2**70]
SCALARS = [*NUMBERS, "", "a", "B", "2", "true", "Zürich", "long " * 50, True, False, None]
NAMES = ["year", "a b", "$in", 'q"', "Ж"]


def row(key: int, **fields: object) -> Row:
    vector = np.random.default_rng(key).standard_normal(4).astype(np.float32)
    return Row(key, f"d{key}", 0, f"payload {key}", {"id": f"d{key}", **fields}, (), vector)


def keys_of(engine: Engine, where: Condition | None = None) -> set[int]:
    return {row.key for batch in engine.iterate(where) for row in batch}


@pytest.fixture
def server():
    with SERVER(delay=0.01) as running:
        yield running


@pytest.fixture
def engine(server) -> Engine:
    opened = open_engine(f"pinecone://127.0.0.1:{server.port}/tests/papers")
    opened.create(LAYOUT)
    yield opened
    opened.close()


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


@pytest.mark.parametrize("missing", [False, True])
def test_conditions_let_through_what_they_mean_whatever_a_missing_field_does(missing: bool) -> None:
    draw, rows = random.Random(3), []
    for _ in range(120):
        fields = {name: draw.choice(SCALARS) for name in draw.sample(NAMES, 3)}
        fields |= {draw.choice(NAMES): draw.choices(SCALARS, k=draw.randint(0, 4))}
        rows.append((fields, KEPT(searchable(fields))))
    many = {name for fields, _ in rows for name, value in fields.items() if len(numbers_of(value)) > 2} - {"a b"}
    rows = [(fields, kept) for fields, kept in rows if len(numbers_of(fields.get("a b"))) <= 2]
    language, exact, between = PineconeLanguage(lambda name: name in many), 0, 0
    for _ in range(1200):
        condition = a_condition(draw)
        said = translate(condition, language)
        exact += said.exact
        between += said.exact and isinstance(condition, Between)
        filter = CHECKED({} if said.filter is None else said.filter.yes)
        for fields, kept in rows:
            meant, passes = meets(condition, fields), MEETS(filter, kept, missing)
            assert passes or not meant, (condition, fields)
            assert passes == meant or not said.exact, (condition, fields)
    assert exact > 400
    assert between > 1


def test_between_stays_exact_until_some_row_has_three_numbers_in_the_field(server, engine: Engine) -> None:
    condition = Between("marks", 4, 5)
    engine.upsert([row(1, marks=[4, 9]), row(2, marks=5), row(3, marks=[1, 9])])
    assert engine.exact(condition)
    assert keys_of(engine, condition) == {1, 2}
    engine.upsert([row(4, marks=[1, 4, 9])])
    other = open_engine(f"pinecone://127.0.0.1:{server.port}/tests/papers")
    assert not engine.exact(condition)
    assert not other.exact(condition)
    assert {1, 2, 4} <= keys_of(other, condition)
    other.close()


def test_more_rows_than_a_query_gives_are_counted(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 20)
    engine.upsert([row(key, part=key % 3) for key in range(1, 301)])
    assert engine.count(documents=True) == 300
    assert engine.count(Comparison("part", "=", 1)) == 100
    time.sleep(0.2)  # Pinecone's own count lags behind
    assert engine.count() == 300
    some = np.arange(1, 101)
    found = engine.search_vectors(row(7).vector, 50, keys=some)
    scores = {key: float(row(key).vector @ row(7).vector) for key in some.tolist()}
    assert found.keys.tolist()[:20] == sorted(scores, key=lambda key: -scores[key])[:20]


def test_a_row_that_is_too_large_is_refused_before_anything_is_sent(server, engine: Engine) -> None:
    asked = sum(path == "/vectors/upsert" for _, path, _ in server.asked)
    with pytest.raises(
        EngineError, match=r"row 2 of document 'd2' has 4[\d,]+ bytes with its fields, and Pinecone takes 40,960"
    ):
        engine.upsert([row(1), replace(row(2), payload="x" * 41_000)])
    assert sum(path == "/vectors/upsert" for _, path, _ in server.asked) == asked


def test_the_largest_rows_go_in_requests_below_two_megabytes(server, engine: Engine) -> None:
    rows = [replace(row(key), payload="Ж" * 10_000) for key in range(1, 201)]
    assert len(rows[0].payload.encode()) == engine.limits.payload
    engine.upsert(rows)
    sizes = [len(body) for _, path, body in server.asked if path == "/vectors/upsert"]
    assert max(sizes) < 2_000_000
    assert engine.fetch(np.array([3]))[3].payload == rows[2].payload
    assert len(engine.fetch(np.arange(1, 201))) == 200


def test_vectors_that_pinecone_refuses_are_told_so(engine: Engine) -> None:
    with pytest.raises(EngineError, match="400: Dense vectors must contain at least one non-zero value"):
        engine.upsert([replace(row(1), vector=np.zeros(4, np.float32))])
    with pytest.raises(EngineError, match="400: Vector dimension 3 does not match the dimension of the index 4"):
        engine.upsert([replace(row(1), vector=np.ones(3, np.float32))])
    with pytest.raises(EngineError, match="row 1 has no vector"):
        engine.upsert([replace(row(1), vector=None)])


def test_what_was_written_is_read_however_late_the_service_shows_it() -> None:
    with SERVER(delay=0.4) as slow:
        engine = open_engine(f"pinecone://127.0.0.1:{slow.port}/tests/papers")
        engine.create(LAYOUT)
        for key in range(1, 4):
            engine.upsert([row(key)])
            assert keys_of(engine) == set(range(1, key + 1))
            engine.set_meta("recipe", f"version {key}")
            assert engine.get_meta("recipe") == f"version {key}"
        engine.delete(np.array([2]))
        assert engine.count() == 2
        assert engine.fetch(np.array([2])) == {}
        engine.drop()
        assert not engine.exists()
        engine.close()


def test_what_is_never_shown_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with SERVER(delay=0.001) as server:
        engine = open_engine(f"pinecone://127.0.0.1:{server.port}/tests/papers")
        engine.create(LAYOUT)
        assert engine.count() == 0
        server.delay = 1000.0
        monkeypatch.setattr(module, "FRESH", 0.3)
        engine.upsert([row(key) for key in range(1, 5)])
        with pytest.raises(EngineError, match="what was written is kept but cannot be read yet"):
            engine.count()
        engine.close()


@pytest.mark.parametrize("fault", [503, "cut", "lost"])
def test_a_call_that_fails_for_a_moment_is_made_again_and_nothing_is_doubled(server, engine: Engine, fault: object) -> None:
    for call in (
        lambda: engine.upsert([row(1), row(2)]),
        lambda: engine.delete(np.array([2])),
        lambda: engine.set_meta("recipe", "x"),
    ):
        server.faults += [fault, fault]
        call()
    server.faults += [fault]
    assert keys_of(engine) == {1}
    server.faults += [fault]
    assert engine.search_vectors(row(1).vector, 3).keys.tolist() == [1]
    assert engine.get_meta("recipe") == "x"


@pytest.mark.parametrize("fault", [503, "lost"])
def test_a_collection_whose_making_was_interrupted_is_completed(fault: object) -> None:
    for place in (0, 2, 3, 5):
        with SERVER(delay=0.001) as server:
            engine = open_engine(f"pinecone://127.0.0.1:{server.port}/tests/papers")
            server.faults += [None] * place + [fault]
            engine.create(LAYOUT)
            assert engine.exists()
            engine.upsert([row(1)])
            assert engine.count() == 1
            engine.close()


def test_an_index_that_is_not_ready_is_waited_for(server, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_engine(f"pinecone://127.0.0.1:{server.port}/tests/papers")
    first.create(LAYOUT)
    first.drop()
    first.close()
    server.indexes["tests"].told["status"] = {"ready": False, "state": "Initializing"}
    second = open_engine(f"pinecone://127.0.0.1:{server.port}/tests/papers")
    monkeypatch.setattr(module, "READY", 0.1)
    with pytest.raises(EngineError, match="the index tests is not ready after 0 seconds"):
        second.create(LAYOUT)
    monkeypatch.setattr(module, "READY", 60.0)
    timer = threading.Timer(0.5, server.indexes["tests"].told["status"].update, [{"ready": True}])
    timer.start()
    second.create(LAYOUT)
    timer.join()
    assert second.exists()
    second.close()


def test_a_service_that_is_gone_is_said_so_once_patience_ends(server, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries.persistent, "__defaults__", (0.3,))
    server.faults += ["cut"] * 50
    begun = time.monotonic()
    with pytest.raises(EngineError, match=rf"pinecone://127.0.0.1:{server.port}/tests/papers, searching: .*is it running\?"):
        engine.count()
    assert time.monotonic() - begun < 10
    server.faults.clear()
    assert engine.count() == 0


def test_an_index_of_another_shape_is_refused(server, engine: Engine) -> None:
    other = open_engine(f"pinecone://127.0.0.1:{server.port}/tests/images")
    with pytest.raises(EngineError, match="the index tests is for 4 dimensions, and these vectors have 8; name another index"):
        other.create(Layout(8, False))
    assert not other.exists()
    other.close()
    server.indexes["tests"].told["schema"]["fields"]["_values"]["metric"] = "cosine"
    third = open_engine(f"pinecone://127.0.0.1:{server.port}/tests/papers")
    with pytest.raises(EngineError, match="not one of dense vectors compared by dotproduct"):
        third.exists()
    third.close()


def test_collections_of_one_index_know_nothing_of_each_other(server, engine: Engine) -> None:
    other = open_engine(f"pinecone://127.0.0.1:{server.port}/tests/letters")
    other.create(LAYOUT)
    engine.upsert([row(1)])
    other.upsert([row(2)])
    other.set_meta("recipe", "other")
    assert keys_of(engine) == {1}
    assert engine.get_meta("recipe") is None
    other.drop()
    assert keys_of(engine) == {1}
    assert engine.exists()
    other.close()


def test_the_key_comes_from_the_environment_and_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PINECONE_API_KEY", raising=False)
    with pytest.raises(CollectionError, match="PINECONE_API_KEY"):
        open_engine("pinecone:///tests/papers")
    with SERVER(key="very-secret") as server:
        address = f"pinecone://127.0.0.1:{server.port}/tests/papers"
        monkeypatch.setenv("PINECONE_API_KEY", "very-secret")
        engine = open_engine(address)
        engine.create(LAYOUT)
        assert "secret" not in f"{engine.describe()} {engine.address!r}"
        engine.close()
        monkeypatch.setenv("PINECONE_API_KEY", "a-wrong-one")
        wrong = open_engine(address)
        with pytest.raises(EngineError, match=r"401: .*PINECONE_API_KEY") as error:
            wrong.exists()
        assert "a-wrong-one" not in str(error.value)
        wrong.close()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("pinecone:///papers", "an index and a name were expected"),
        ("pinecone:///a/b/papers", "an index and a name were expected"),
        ("pinecone://key:secret@localhost/tests/papers", "PINECONE_API_KEY"),
        ("pinecone://localhost/tests/papers?timeout=soon", "timeout is 'soon'"),
        ("pinecone://localhost/tests/papers?colour=red", "no option 'colour'"),
    ],
)
def test_an_address_that_cannot_be_meant_is_refused(address: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PINECONE_API_KEY", "key")
    with pytest.raises(CollectionError, match=said) as error:
        open_engine(address)
    assert "secret" not in str(error.value)


def test_the_service_itself_is_asked_over_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PINECONE_API_KEY", "key")
    for address, host in (
        ("pinecone:///tests/papers", "https://api.pinecone.io"),
        ("pinecone://example.org/tests/papers", "https://example.org"),
        ("pinecone://localhost:5080/tests/papers", "http://localhost:5080"),
    ):
        engine = open_engine(address)
        assert engine._pinecone.config.host == host
        engine.close()


def test_words_are_not_searched(engine: Engine) -> None:
    assert not engine.words
    with pytest.raises(EngineError, match="searches no words"):
        engine.search_words(["zinc"], 3)
    assert engine.words_bound(["zinc"]) is None


@pytest.mark.parametrize(
    "filter",
    [{"$not": {"a": 1}}, {"a": {"$gt": "text"}}, {"a": {"$in": []}}, {"$and": []}, {"a": {"$in": ["x"] * 10_001}}, {"a": None}],
)
def test_the_simulated_service_refuses_filters_that_the_real_one_refuses(filter: dict) -> None:
    with pytest.raises(SIMULATED["RefusedError"]):
        CHECKED(filter)


@pytest.mark.parametrize("metadata", [{"a": None}, {"a": [1]}, {"a": {"b": 1}}, {"$a": 1}, {"a": "x" * 41_000}, {"a": [["x"]]}])
def test_the_simulated_service_refuses_metadata_that_the_real_one_refuses(metadata: dict) -> None:
    with pytest.raises(SIMULATED["RefusedError"]):
        KEPT(metadata)
