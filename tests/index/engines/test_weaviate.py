"""Weaviate beyond the exam: what goes over the wire, what is tried again, what is refused."""

from __future__ import annotations

import gc
import json
import runpy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinrank.conditions import meets, translate
from twinrank.errors import CollectionError, EngineError
from twinrank.index.engines import Engine, Layout, Row, open_engine
from twinrank.index.engines.weaviate_language import FilterLanguage, facts_of, folded, prefixes
from twinrank.index.settings import VectorIndexSettings
from twinrank.search.filters import parse
from twinrank.types import Between, Comparison, Condition, Like, Membership, Not

simulation = runpy.run_path(str(Path(__file__).with_name("weaviate_server.py")))
Server, Class = simulation["Server"], simulation["Class"]
EXACT = Layout(4, True, VectorIndexSettings(kind="exact"))


@pytest.fixture(autouse=True)
def client() -> None:
    pytest.importorskip("weaviate", reason="weaviate-client is not installed: make extras", exc_type=ImportError)


@pytest.fixture
def server() -> Iterator:
    started = Server()
    yield started
    started.stop()


@pytest.fixture
def engine(server) -> Iterator[Engine]:
    opened = open_engine(server.address("papers"))
    opened.create(EXACT)
    yield opened
    opened.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client, too, waits longer and longer before it says that a server is away."""

    def soon(call, is_transient, place, doing):
        return persistent(call, is_transient, place, doing, patience=0.3)

    from twinrank.index.engines import weaviate
    from twinrank.index.engines.retries import persistent

    monkeypatch.setattr(weaviate, "persistent", soon)
    monkeypatch.setattr("weaviate.retry.time.sleep", lambda seconds: None)


def rows(count: int, first: int = 1) -> list[Row]:
    draw = np.random.default_rng(first)
    return [
        Row(key, f"d{key}", 0, "{}", {"id": f"d{key}"}, ("word", f"w{key}"), draw.standard_normal(4).astype(np.float32))
        for key in range(first, first + count)
    ]


# -- conditions --------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_prefixes_cover_a_range_and_nothing_else(low: int, high: int, other: int) -> None:
    found = tuple(prefixes(low, high))
    assert len(found) <= 480
    for number in (low, high, low - 1, high + 1, other):
        if 0 <= number < 2**64:
            assert f"{number:016x}".startswith(found) == (low <= number <= high)


SCALARS = st.one_of(
    st.text(st.sampled_from('aAkK\u212aßẞİiéÉ%_*? .+(|[^$\\\n\t"=北\U0001f600\ue02a\ue0ff'), max_size=4),
    st.booleans(),
    st.sampled_from(
        [0, 1, -1, 0.0, -0.0, 0.5, -0.5, 2**53 - 1, 2**53, 2**53 + 1, -(2**53) - 1, 2**63, 10**400, 1e300, -1e-300]
    ),
)
NAMES = st.sampled_from(["x", "y z", "a.b", "a", "ü", '"', "*", "X"])
FIELDS = st.dictionaries(NAMES, st.one_of(st.none(), SCALARS, st.lists(SCALARS, max_size=3)), max_size=4)
TEXTS = st.text(st.sampled_from("aAkiİéßẞ%_*? .+(\n=\ue02a"), max_size=4)
CONDITIONS = st.one_of(
    st.builds(Comparison, NAMES, st.sampled_from(["=", "!=", "<", "<=", ">", ">="]), SCALARS),
    st.builds(Membership, NAMES, st.lists(SCALARS, max_size=3).map(tuple)),
    st.builds(Between, NAMES, SCALARS, SCALARS),
    st.builds(Like, NAMES, TEXTS),
)
PROPERTIES = [
    {"name": name, "dataType": ["text[]"], "tokenization": "field", "indexFilterable": True} for name in ("facts", "folded")
]
INDEX = {"vectorIndexType": "flat", "vectorIndexConfig": {"distance": "dot", "skipDefaultQuantization": True}}


@given(st.lists(FIELDS, min_size=1, max_size=5), st.one_of(CONDITIONS, CONDITIONS.map(Not)))
@settings(max_examples=300, deadline=None)
def test_a_condition_means_in_a_filter_what_it_means_here(documents: list[dict], condition: Condition) -> None:
    from weaviate.collections.filters import _FilterToGRPC

    of = Class({"class": "C", "properties": PROPERTIES, "vectorConfig": {"default": INDEX}})
    for number, fields in enumerate(documents):
        held = {"facts": facts_of(fields), "folded": folded(fields)}
        assert all(fact == fact.strip() for texts in held.values() for fact in texts)
        of.put(f"00000000-0000-0000-0000-{number:012x}", held, None)
    said = translate(condition, FilterLanguage())
    passing = set(of.objects) if said.filter is None else of.passing(_FilterToGRPC.convert(said.filter))
    found = {int(key[-12:], 16) for key in passing}
    meant = {number for number, fields in enumerate(documents) if meets(condition, fields)}
    assert found == meant if said.exact else found >= meant


def test_what_is_said_and_what_is_not() -> None:
    said = {
        "year between 1 and 3": True,
        "big = 9007199254740993": True,
        "t like 'a%'": True,
        "t != 'a'": True,
        "t > 'a'": False,
    }
    assert {where: translate(parse(where), FilterLanguage()).exact for where in said} == said


# -- writing and reading -----------------------------------------------------------------------------------------------------


def test_rows_are_sent_and_read_in_batches_by_bytes(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinrank.index.engines.weaviate.BATCH", 2000)
    engine.upsert(rows(50))
    assert engine.count() == 50
    large = [replace(row, payload="x" * 1_500_000) for row in rows(12)]  # more than a message of the server's takes
    monkeypatch.undo()
    engine.upsert(large)
    assert engine.count() == 50
    found = {row.key: row for batch in engine.iterate(vectors=True) for row in batch}
    assert [found[key].payload for key in range(1, 13)] == ["x" * 1_500_000] * 12
    assert len(found) == 50


def test_a_busy_server_is_asked_again(engine: Engine, server, impatient: None) -> None:
    server.database.unavailable = 3
    engine.upsert(rows(3))
    server.database.rest_failures += [503, 429]
    assert engine.exists()
    assert engine.count() == 3


def test_of_a_batch_only_what_failed_for_a_while_is_sent_again(engine: Engine, server) -> None:
    server.database.item_errors += ["context deadline exceeded", "shard unavailable"]
    engine.upsert(rows(5))
    server.database.item_errors += ["request timeout"]
    engine.delete(np.array([1, 2, 77]))
    assert sorted(engine.fetch(np.arange(1, 9))) == [3, 4, 5]


def test_a_row_that_is_refused_is_an_error_that_says_why(engine: Engine) -> None:
    wrong = [*rows(2), replace(rows(1, 3)[0], vector=np.ones(5, np.float32))]
    with pytest.raises(EngineError, match=r"papers.*, writing rows: .*vector with length 5"):
        engine.upsert(wrong)
    with pytest.raises(EngineError, match="vector with length 5"):
        engine.upsert(wrong[2:])


def test_writing_into_what_is_not_there_makes_nothing(engine: Engine, server) -> None:
    other = open_engine(server.address("papers"))
    engine.drop()
    calls = [lambda: other.upsert(rows(1)), lambda: other.get_meta("x"), lambda: other.set_meta("x", "y"), other.count]
    for wrong in calls:
        with pytest.raises(EngineError, match="no such collection"):
            wrong()
    assert server.database.classes == {}
    other.close()


def test_a_server_that_goes_away_is_an_error_and_the_same_call_completes(
    engine: Engine, server, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.upsert(rows(10))
    server.stop()
    with pytest.raises(EngineError, match=r"papers.*, writing rows: .*The same call completes it"):
        engine.upsert(rows(20))
    with pytest.raises(EngineError, match=r"papers.*, searching vectors: "):
        engine.search_vectors(np.ones(4, np.float32), 3)
    server.start()
    monkeypatch.undo()
    engine.upsert(rows(20))
    assert engine.count() == 20


def test_what_was_written_but_not_answered_is_written_once(engine: Engine, server, impatient: None) -> None:
    server.database.cuts = 2
    engine.upsert(rows(50))
    assert sorted(row.key for batch in engine.iterate() for row in batch) == list(range(1, 51))
    server.database.cuts = 1
    engine.delete(np.arange(1, 11))
    assert engine.count() == 40


def test_more_rows_than_one_query_gives_are_walked_through(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinrank.index.engines.weaviate.WINDOW", 20)
    monkeypatch.setattr("twinrank.index.engines.weaviate.PAGE", 7)
    some = [replace(row, fields={"even": row.key % 2 == 0, "ten": row.key <= 10}) for row in rows(60)]
    engine.upsert(some)
    for where, wanted in (("even = true", range(2, 61, 2)), ("ten = true", range(1, 11)), ("even = 3", ())):
        assert sorted(row.key for batch in engine.iterate(parse(where)) for row in batch) == list(wanted)
    assert len(engine.rows_of([f"d{number}" for number in range(1, 50)])) == 49


# -- names, secrets, options -------------------------------------------------------------------------------------------------


def test_names_that_differ_in_case_are_two_collections(server) -> None:
    engines = [open_engine(server.address(name)) for name in ("papers", "Papers", "p_apers", "pApers", "p_Apers")]
    for number, engine in enumerate(engines):
        engine.create(EXACT)
        engine.set_meta("number", str(number))
    assert [engine.get_meta("number") for engine in engines] == ["0", "1", "2", "3", "4"]
    engines[0].drop()
    assert [engine.exists() for engine in engines] == [False, True, True, True, True]
    for engine in engines:
        engine.close()


def test_a_long_meta_text_is_kept_in_pieces(server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinrank.index.engines.weaviate.PIECE", 10)
    engine = open_engine(server.address("papers"))
    engine.create(EXACT)
    for text in ("x" * 10, "äЖ\U0001f600" * 9, "", "y" * 31):
        engine.set_meta("a text", text)
        assert engine.get_meta("a text") == text
    engine.close()


def test_what_an_interrupted_creation_left_is_made_anew(engine: Engine, server) -> None:
    engine.set_meta("old", "text")
    del server.database.classes["Twinrank_papers"]
    assert not engine.exists()
    engine.create(Layout(7, False))
    assert engine.get_meta("old") is None
    other = open_engine(server.address("papers"))
    assert not other.words
    other.close()


def test_an_api_key_is_sent_and_never_shown(server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.database.key = "secret"
    without = open_engine(server.address("papers"))
    with pytest.raises(EngineError, match="401"):
        without.exists()
    monkeypatch.setenv("WEAVIATE_API_KEY", "secret")
    engine = open_engine(server.address("papers"))
    engine.create(EXACT)
    engine.upsert(rows(3))
    assert engine.count() == 3
    assert "secret" not in json.dumps(engine.describe()) + str(engine.address)
    engine.close()
    without.close()


def test_consistency_is_asked_for(server) -> None:
    with pytest.raises(CollectionError, match="it is ONE, QUORUM or ALL"):
        open_engine(server.address("papers", "&consistency=SOME"))
    engine = open_engine(server.address("papers", "&consistency=ALL"))
    engine.create(EXACT)
    server.database.levels.clear()
    engine.upsert(rows(3))
    engine.search_vectors(np.ones(4, np.float32), 3)
    engine.delete(np.array([1]))
    assert server.database.levels == {"CONSISTENCY_LEVEL_ALL"}
    engine.close()


def test_parameters_of_hnsw_shards_and_replicas_arrive(server) -> None:
    engine = open_engine(server.address("papers", "&shards=3&replicas=2"))
    engine.create(Layout(4, True, VectorIndexSettings(kind="hnsw", m=24, ef_construction=200, ef_search=300)))
    told = server.database.classes["Twinrank_papers"].told
    index = told["vectorConfig"]["default"]["vectorIndexConfig"]
    assert (index["maxConnections"], index["efConstruction"], index["ef"]) == (24, 200, 300)
    assert (told["replicationConfig"]["factor"], told["shardingConfig"]["desiredCount"]) == (2, 3)
    assert (told["invertedIndexConfig"]["bm25"], told["invertedIndexConfig"]["stopwords"]["preset"]) == (
        {"b": 0.75, "k1": 1.2},
        "none",
    )
    assert engine.describe() == {
        "server": "Weaviate 1.33.0",
        "index": "hnsw, m 24, ef_construction 200, ef 300",
        "consistency": "QUORUM",
    }
    engine.close()


def test_an_engine_that_nobody_closes_leaves_no_open_connection(server) -> None:
    engine = open_engine(server.address("papers"))
    assert not engine.exists()
    client = engine._connected
    del engine
    gc.collect()
    assert not client.is_connected()


def test_a_server_that_cannot_negate_filters_is_refused(server) -> None:
    server.database.version = "1.32.4"
    with pytest.raises(EngineError, match=r"this is Weaviate 1\.32\.4; filters need 1\.33 or later"):
        open_engine(server.address("papers")).exists()
