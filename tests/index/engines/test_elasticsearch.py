"""Elasticsearch and OpenSearch beyond the exam: what goes over the wire, what is tried again, what is refused."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinrank.conditions import is_like, meets, translate
from twinrank.errors import CollectionError, EngineError
from twinrank.index.engines import Engine, Layout, Row, open_engine
from twinrank.index.engines.querydsl import PROPERTIES, TEMPLATES, QueryLanguage, encoded, regexp
from twinrank.index.settings import VectorIndexSettings
from twinrank.search.filters import parse
from twinrank.types import Between, Comparison, Condition, Like, Membership, Not

simulation = runpy.run_path(str(Path(__file__).with_name("lucene_server.py")))
Server, Index, Searching = simulation["Server"], simulation["Index"], simulation["Searching"]
LIBRARIES = {"elasticsearch": "elasticsearch", "opensearch": "opensearchpy"}
EXACT = Layout(4, True, VectorIndexSettings(kind="exact"))


@pytest.fixture(params=LIBRARIES)
def server(request: pytest.FixtureRequest) -> Iterator:
    pytest.importorskip(LIBRARIES[request.param], reason="the official client is not installed: make extras")
    started = Server(request.param)
    yield started
    started.stop()


@pytest.fixture
def engine(server) -> Iterator[Engine]:
    opened = open_engine(server.address("papers"))
    opened.create(EXACT)
    server.cluster.requests.clear()
    yield opened
    opened.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    def soon(call, is_transient, place, doing):
        return persistent(call, is_transient, place, doing, patience=0.3)

    from twinrank.index.engines import lucene
    from twinrank.index.engines.retries import persistent

    monkeypatch.setattr(lucene, "persistent", soon)


def rows(count: int, first: int = 1) -> list[Row]:
    draw = np.random.default_rng(first)
    return [
        Row(key, f"d{key}", 0, "{}", {"id": f"d{key}"}, ("word", f"w{key}"), draw.standard_normal(4).astype(np.float32))
        for key in range(first, first + count)
    ]


def bulks(server) -> int:
    return sum(path.endswith("/_bulk") for _, path in server.cluster.requests)


# -- conditions --------------------------------------------------------------------------------------------------------------

LETTERS = st.text(st.sampled_from("aAbBkKßẞsSſİiIıéÉΣσς%_.*?[](){}|&<>~#@\"\\'\n-^ 北\U0001f600\u212a"), max_size=8)


@given(LETTERS, LETTERS)
@settings(max_examples=300, deadline=None)
def test_like_is_said_in_lucenes_regular_expressions(pattern: str, text: str) -> None:
    said = regexp(pattern)
    assert said is not None
    found = simulation["lucene_regexp"](said, "NONE").fullmatch(text) is not None
    assert found == is_like(pattern, text)


def test_a_pattern_that_is_too_much_for_the_server_is_not_said() -> None:
    assert regexp("%" + "_" * 20 + "b%") is None
    assert regexp("_" * 20 + "%b") is not None
    assert regexp("é" * 1000) is None


SCALARS = st.one_of(
    st.sampled_from(["", "a", "A", "b", "北", "true", "1"]),
    st.booleans(),
    st.sampled_from([0, 1, -1, 0.0, 0.5, -0.5, 2**53 - 1, 2**53, 2**53 + 1, -(2**53) - 1, 2**63, 10**400, float(2**53), 1e300]),
)
NAMES = st.sampled_from(["x", "y z", "a.b", "a", "ü", '"', "~"])
FIELDS = st.dictionaries(NAMES, st.one_of(st.none(), SCALARS, st.lists(SCALARS, max_size=3)), max_size=4)
CONDITIONS = st.one_of(
    st.builds(Comparison, NAMES, st.sampled_from(["=", "!=", "<", "<=", ">", ">="]), SCALARS),
    st.builds(Membership, NAMES, st.lists(SCALARS, max_size=3).map(tuple)),
    st.builds(Between, NAMES, SCALARS, SCALARS),
    st.builds(Like, NAMES, st.sampled_from(["a", "%", "_", "", "%A", "t%"])),
)


@given(st.lists(FIELDS, min_size=1, max_size=5), st.one_of(CONDITIONS, CONDITIONS.map(Not)))
@settings(max_examples=200, deadline=None)
def test_a_condition_means_in_a_query_what_it_means_here(documents: list[dict], condition: Condition) -> None:
    index = Index("i", {"mappings": {"dynamic": "strict", "dynamic_templates": TEMPLATES, "properties": PROPERTIES}}, "")
    for number, fields in enumerate(documents):
        index.put(str(number), encoded(fields))
    index.refresh()
    said = translate(condition, QueryLanguage())
    found = {int(key) for key in Searching(index).matching(said.filter or {"match_all": {}})}
    meant = {number for number, fields in enumerate(documents) if meets(condition, fields)}
    assert found == meant if said.exact else found >= meant


def test_whole_numbers_beyond_a_doubles_are_told_apart() -> None:
    assert translate(parse("big = 9007199254740993"), QueryLanguage()).exact
    assert not translate(parse("big > 9007199254740993"), QueryLanguage()).exact


# -- writing -----------------------------------------------------------------------------------------------------------------


def test_rows_are_sent_in_batches_by_bytes_and_all_are_seen(engine: Engine, server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinrank.index.engines.lucene.BATCH", 2000)
    engine.upsert(rows(50))
    assert bulks(server) > 3
    assert engine.count() == 50
    engine.delete(np.arange(1, 41))
    assert engine.count() == 10


def test_a_busy_server_is_asked_again(engine: Engine, server) -> None:
    server.cluster.failures += [429, 503]
    engine.upsert(rows(3))
    assert engine.count() == 3


def test_of_a_batch_only_what_a_busy_server_turned_away_is_sent_again(engine: Engine, server) -> None:
    server.cluster.busy_items += [429, 503]
    engine.upsert(rows(5))
    assert bulks(server) == 2
    assert engine.count() == 5
    server.cluster.busy_items += [429]
    engine.delete(np.array([1, 2, 77]))
    assert engine.count() == 3


def test_a_row_that_is_refused_is_an_error_that_says_why(engine: Engine, server) -> None:
    wrong = [*rows(2), replace(rows(1, 3)[0], vector=np.ones(5, np.float32))]
    with pytest.raises(EngineError, match=r"papers, writing rows: .*400 .*failed to parse field \[vector\]"):
        engine.upsert(wrong)
    assert bulks(server) == 1


def test_writing_into_what_is_not_there_makes_nothing(engine: Engine, server) -> None:
    other = open_engine(server.address("papers"))
    engine.drop()
    for wrong in (lambda: other.upsert(rows(1)), lambda: other.get_meta("x"), other.count, lambda: other.fetch(np.array([1]))):
        with pytest.raises(EngineError, match="no such collection"):
            wrong()
    assert server.cluster.indexes == {}
    other.close()


def test_a_server_that_goes_away_is_an_error_and_the_same_call_completes(engine: Engine, server, impatient: None) -> None:
    engine.upsert(rows(10))
    server.stop()
    with pytest.raises(EngineError, match=r"papers, writing rows: .*The same call completes it"):
        engine.upsert(rows(20))
    with pytest.raises(EngineError, match="papers, reading its mapping"):
        engine.search_vectors(np.ones(4, np.float32), 3)
    server.start()
    engine.upsert(rows(20))
    assert engine.count() == 20
    assert len(engine.search_vectors(np.ones(4, np.float32), 30)) == 20


def test_what_was_written_but_not_answered_is_written_once(engine: Engine, server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinrank.index.engines.lucene.BATCH", 2000)
    server.cluster.cuts = 3
    engine.upsert(rows(50))
    assert sorted(row.key for batch in engine.iterate() for row in batch) == list(range(1, 51))
    server.cluster.cuts = 1
    engine.delete(np.arange(1, 11))
    assert engine.count() == 40


# -- names, secrets, options -------------------------------------------------------------------------------------------------


def test_names_that_differ_in_case_are_two_collections(server) -> None:
    engines = [open_engine(server.address(name)) for name in ("papers", "Papers", "pApers")]
    for number, engine in enumerate(engines):
        engine.create(EXACT)
        engine.set_meta("number", str(number))
    assert [engine.get_meta("number") for engine in engines] == ["0", "1", "2"]
    assert len(server.cluster.indexes) == 6
    engines[0].drop()
    assert [engine.exists() for engine in engines] == [False, True, True]
    for engine in engines:
        engine.close()


def test_a_long_meta_text_is_kept_in_pieces(server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinrank.index.engines.lucene.PIECE", 10)
    engine = open_engine(server.address("papers"))
    engine.create(EXACT)
    for text in ("x" * 10, "äЖ\U0001f600" * 9, "", "y" * 31):
        engine.set_meta("a text", text)
        assert engine.get_meta("a text") == text
    assert len(server.cluster.indexes["twinrank-papers.meta"].live) == 1 + 4
    engine.close()


def test_an_index_of_somebody_elses_is_left_alone(server) -> None:
    server.cluster.indexes["twinrank-theirs"] = Index("twinrank-theirs", {}, server.cluster.vector_type)
    engine = open_engine(server.address("theirs"))
    with pytest.raises(EngineError, match="was not made by twinrank"):
        engine.search_vectors(np.ones(4, np.float32), 1)
    engine.close()


def test_who_asks_is_said_and_never_shown(server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.cluster.authorization = "Basic bWU6c2VjcmV0"  # me:secret
    address = server.address("papers").replace("://", "://me:secret@")
    with_password = open_engine(address)
    with_password.create(EXACT)
    assert "secret" not in json.dumps(with_password.describe()) + str(with_password.address)
    without = open_engine(server.address("papers"))
    with pytest.raises(EngineError, match=r"401 security_exception: .*say who asks"):
        without.count()
    monkeypatch.setenv("ELASTIC_PASSWORD", "secret")
    monkeypatch.setenv("OPENSEARCH_PASSWORD", "secret")
    by_environment = open_engine(server.address("papers").replace("://", "://me@"))
    assert by_environment.count() == 0
    for engine in (with_password, without, by_environment):
        engine.close()


def test_an_api_key_is_sent_to_elasticsearch(server, monkeypatch: pytest.MonkeyPatch) -> None:
    if server.cluster.flavour == "opensearch":
        pytest.skip("OpenSearch has no API keys")
    monkeypatch.setenv("ELASTIC_API_KEY", "a2V5")
    server.cluster.authorization = "ApiKey a2V5"
    engine = open_engine(server.address("papers"))
    assert not engine.exists()
    engine.close()


def test_an_option_that_is_none_is_refused(server) -> None:
    with pytest.raises(CollectionError, match="no option 'shrads'; known are"):
        open_engine(server.address("papers", "?shrads=2"))


def test_shards_and_replicas_are_the_indexes(server) -> None:
    engine = open_engine(server.address("papers", "?shards=3&replicas=0"))
    engine.create(EXACT)
    assert all(
        (index.settings["number_of_shards"], index.settings["number_of_replicas"]) == (3, 0)
        for index in server.cluster.indexes.values()
    )
    engine.close()


def test_parameters_of_hnsw_arrive(server) -> None:
    engine = open_engine(server.address("papers"))
    engine.create(Layout(4, True, VectorIndexSettings(kind="hnsw", m=24, ef_construction=200, ef_search=300)))
    mapping = server.cluster.indexes["twinrank-papers"].types["vector"]
    built = mapping.get("index_options") or mapping["method"]["parameters"]
    assert (built["m"], built["ef_construction"]) == (24, 200)
    assert "m 24, ef_construction 200" in engine.describe()["index"]
    query = engine._vector_query(open_engine(server.address("papers"))._layout, [0.0] * 4, 5, None)
    assert "300" in json.dumps(query)
    engine.close()


def test_quantised_vectors_are_scored_again(server) -> None:
    if server.cluster.flavour == "opensearch":
        pytest.skip("an option of Elasticsearch's")
    engine = open_engine(server.address("papers", "?quantisation=int8"))
    engine.create(Layout(4, True))
    assert server.cluster.indexes["twinrank-papers"].types["vector"]["index_options"]["type"] == "int8_hnsw"
    assert engine._vector_query(engine._layout, [0.0] * 4, 5, None)["knn"]["rescore_vector"] == {"oversample": 3.0}
    engine.close()


def test_too_many_dimensions_are_the_servers_to_refuse(server) -> None:
    engine = open_engine(server.address("papers"))
    with pytest.raises(EngineError, match=r"creating the collection: .*imension"):
        engine.create(Layout(engine.limits.dimension + 1, True))
    engine.close()


def test_more_keys_than_one_query_takes_are_fetched(engine: Engine) -> None:
    engine.upsert(rows(10))
    assert len(engine.fetch(np.arange(1, 150_000))) == 10
    assert len(engine.search_vectors(np.ones(4, np.float32), 100, keys=np.arange(1, 150_000))) == 10


def test_more_words_than_one_query_takes_are_searched_as_far_as_they_go(engine: Engine) -> None:
    engine.upsert(rows(10))
    words = [f"w{number}" for number in range(2000)]
    assert len(engine.search_words(words, 100)) == 10
    long = replace(rows(1, 50)[0], terms=("x" * 100_000,))
    engine.upsert([long])
    assert engine.search_words(["x" * 100_000], 5).keys.tolist() == [50]
    assert len(engine.search_words([], 5)) == 0


def test_pages_follow_each_other(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinrank.index.engines.lucene.PAGE", 7)
    engine.upsert(rows(21))
    batches = [[row.key for row in batch] for batch in engine.iterate()]
    assert [len(batch) for batch in batches] == [7, 7, 7]
    assert sorted(key for batch in batches for key in batch) == list(range(1, 22))
