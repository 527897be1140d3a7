"""What Milvus alone must do: its conditions, tenants, index parameters, and servers that go away in the middle of something."""

from __future__ import annotations

import importlib.util
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from twinrank.conditions import meets, translate
from twinrank.errors import CollectionError, EngineError
from twinrank.index.engines import Address, Layout, Row, open_engine
from twinrank.index.engines.milvus_language import MilvusLanguage, facets_of, literal
from twinrank.index.settings import VectorIndexSettings
from twinrank.search.filters import parse
from twinrank.types import And, Between, Comparison, Condition, IsNull, Like, Membership, Not, Or, Scalar, Value

if importlib.util.find_spec("pymilvus") is None:
    pytest.skip("pymilvus is not installed: pip install 'twinrank[milvus]'", allow_module_level=True)

from twinrank.index.engines import milvus, milvus_session
from twinrank.index.engines.milvus import MilvusEngine

TEXTS = [
    "a",
    "A",
    "b",
    "it's",
    'q"q',
    "back\\slash",
    "new\nline",
    "",
    "北京",
    "\U0001f600",
    "x" * 200,
    "x" * 201,
    "x" * 201 + "y",
]
TEXTS += ["\x00", "{y}", "' or 1==1 or '", '" or key > 0 or "', '\\" or key > 0 or \\"', "\ue000", "\U00010000", "\r\t"]
NUMBERS = [0, 1, -1, 2, 2.5, -2.5, 0.1, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63), 1e300, 1e-7, 3.0, 1e22]
NAMES = ["f", "g_h", "with blank", "a\"b'c", "ж", "n/m~k", "max_n_f"]


def engine_at(address: str) -> MilvusEngine:
    opened = open_engine(address)
    assert isinstance(opened, MilvusEngine)
    return opened


@pytest.fixture(scope="module", params=["milvus_lite", "milvus"])
def server(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A server of its own, which tests may kill, and start again."""
    path = Path(__file__).with_name(f"at_{request.param}.py")
    spec = importlib.util.spec_from_file_location(f"twinrank_{path.stem}_server", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.running() as started:
        yield started


def some_rows(count: int, fields: Any = lambda number: {}) -> list[Row]:
    draw = np.random.default_rng(1)
    vectors = draw.standard_normal((count, 8)).astype(np.float32)
    return [
        Row(number + 1, f"d{number}", 0, f"text {number}", {"id": f"d{number}"} | fields(number), ("word",), vectors[number])
        for number in range(count)
    ]


def keys_in(engine: MilvusEngine, where: Condition | None = None) -> set[int]:
    return {row.key for rows in engine.iterate(where) for row in rows}


def any_value(draw: random.Random) -> Scalar:
    kinds = [lambda: draw.choice(TEXTS), lambda: draw.choice(NUMBERS), lambda: draw.random() < 0.5, lambda: None]
    return draw.choice(kinds)()


def any_fields(draw: random.Random) -> dict[str, Value]:
    return {
        name: any_value(draw) if draw.random() < 0.6 else [any_value(draw) for _ in range(draw.randint(0, 4))]
        for name in NAMES
        if draw.random() < 0.7
    }


def any_condition(draw: random.Random, depth: int = 0) -> Condition:
    chance, name = draw.random(), draw.choice(NAMES)
    if depth < 3 and chance < 0.45:
        inner = [any_condition(draw, depth + 1) for _ in range(2)]
        return draw.choice([Not(inner[0]), And(tuple(inner)), Or(tuple(inner))])
    if chance < 0.62:
        return Comparison(name, draw.choice(["=", "!=", "<", "<=", ">", ">="]), any_value(draw))
    if chance < 0.74:
        return Membership(name, tuple(any_value(draw) for _ in range(draw.randint(0, 4))))
    if chance < 0.86:
        return Between(name, any_value(draw), any_value(draw))
    return Like(name, draw.choice(["a%", "%", "x_%"])) if chance < 0.9 else IsNull(name)


# -- conditions, as text -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_in_an_expression_cannot_end_before_it_ends(text: str) -> None:
    written = literal(text)
    assert written is not None
    inside = written[1:-1].replace("\\\\", "").replace('\\"', "")
    assert written[0] == written[-1] == '"'
    assert not set(inside) & set('"\\\n\r') - {"\\"}
    assert "\\" not in inside.replace("\\n", "").replace("\\r", "").replace("\\t", "")


def test_a_field_of_any_name_is_letters_and_digits_in_an_expression() -> None:
    for name in ["a b", 'x"]) or key > 0 or ("', "ж", "", "a" * 500, "n/m~k"]:
        said = translate(Comparison(name, "=", 1), MilvusLanguage()).filter
        assert said is not None
        inside = said.yes.removeprefix('json_contains_any(facets["').removesuffix('"], [1])')
        assert inside.replace("_", "").isalnum()
        assert inside.isascii()
        assert list(facets_of({name: 1})) == [inside]


def test_what_milvus_cannot_say_is_left_out() -> None:
    for condition in (Like("f", "a%"), Comparison("f", "=", -(2**63)), Comparison("f", "<", "x" * 300), Not(Like("f", "a%"))):
        said = translate(condition, MilvusLanguage())
        assert said.filter is None
        assert not said.exact
    both = translate(And((Like("f", "a%"), Comparison("f", "=", "b"))), MilvusLanguage())
    assert not both.exact
    assert both.filter is not None
    assert both.filter.yes == 'json_contains_any(facets["t_f"], ["b"])'


def test_values_are_kept_by_kind_in_order_once() -> None:
    kept = facets_of({"f": [2, True, "b", None, 1.5, 2.0, "a"], "g": [], "h": None, "i": "y" * 300})
    (cut,) = kept.pop("t_i")  # type: ignore[misc]
    assert kept == {"n_f": [1.5, 2], "max_n_f": 2, "t_f": ["a", "b"], "max_t_f": "b", "b_f": [1]}
    assert cut.startswith("y" * 200)
    assert len(cut) == 232


# -- conditions, live ----------------------------------------------------------------------------------------------------------


def test_any_condition_lets_the_same_rows_through_as_in_memory(server: Any) -> None:
    """Over rows that were sealed into a segment, rows that still grow, and rows that were replaced."""
    draw = random.Random(11)
    engine = engine_at(server.address("fuzzed"))
    engine.create(Layout(8, True, VectorIndexSettings(kind="exact")))
    rows = some_rows(240, lambda number: any_fields(draw))
    engine.upsert(rows[:120])
    engine._session.call("sealing", "flush", "fuzzed")
    engine.upsert(rows[120:])
    rows[::10] = some_rows(240, lambda number: any_fields(draw))[::10]
    engine.upsert(rows[::10])
    exact = 0
    for _ in range(120):
        condition = any_condition(draw)
        meant, passing = {row.key for row in rows if meets(condition, row.fields)}, keys_in(engine, condition)
        assert meant <= passing, condition
        found = set(engine.search_vectors(rows[0].vector, 240, condition).keys.tolist())
        assert found == passing, condition
        if engine.exact(condition):
            exact += 1
            assert meant == passing, condition
    assert exact > 60
    engine.drop()


def test_between_is_said_exactly_until_a_row_has_three_values(server: Any) -> None:
    engine, other = engine_at(server.address("several")), engine_at(server.address("several"))
    engine.create(Layout(8, False))
    where = parse("year between 2000 and 2010")
    engine.upsert(some_rows(3, lambda number: {"year": [1990 + 5 * number, 2020]}))
    assert engine.exact(where)
    assert keys_in(engine, where) == {3}
    other.upsert(some_rows(4, lambda number: {"year": [1990, 2005, 2020]})[3:])
    assert not engine.exact(where)
    assert keys_in(engine, where) >= {3, 4}
    assert engine.exact(parse("month between 2000 and 2010"))
    engine.drop()
    other.close()


def test_several_threads_write_rows_that_change_the_collections_properties(server: Any) -> None:
    engine, failed = engine_at(server.address("busy")), []
    engine.create(Layout(8, False))
    rows = some_rows(160, lambda number: {f"f{number // 4}": [1, 2, 3]})

    def write(some: list[Row]) -> None:
        try:
            for start in range(0, len(some), 4):
                engine.upsert(some[start : start + 4])
            engine.delete(np.array([some[0].key], np.int64))
        except EngineError as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(rows[start : start + 40],)) for start in range(0, 160, 40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert keys_in(engine) == {row.key for row in rows} - {rows[start].key for start in range(0, 160, 40)}
    assert not any(engine.exact(parse(f"f{number} between 1 and 2")) for number in range(40))
    engine.drop()


def test_rows_are_read_whole_however_the_server_keeps_them(server: Any) -> None:
    """Pages of few rows over several segments, replaced and deleted rows among them."""
    engine = engine_at(server.address("paged"))
    engine.create(Layout(8, False))
    rows = some_rows(1500)
    rows = [Row((row.key * 0x1E3779B97F4A7C15) % (2**63 - 1) + 1, *_rest(row)) for row in rows]
    for start in (0, 500, 1000):
        engine.upsert(rows[start : start + 500])
        engine._session.call("sealing", "flush", "paged")
    engine.upsert(rows[::7])
    engine.delete(np.array([row.key for row in rows[5::50]], np.int64))
    left = {row.key for row in rows} - {row.key for row in rows[5::50]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(milvus, "PAGE", 100)
        listed = [row.key for page in engine.iterate() for row in page]
        fetched = engine.fetch(np.array([row.key for row in rows], np.int64))
    assert len(listed) == len(left)
    assert set(listed) == set(fetched) == left
    assert engine.count() == len(left)
    engine.drop()


def _rest(row: Row) -> tuple[Any, ...]:
    return (row.document, row.number, row.payload, row.fields, row.terms, row.vector)


# -- tenants, parameters, limits -----------------------------------------------------------------------------------------------


def test_rows_are_partitioned_by_tenant_and_found_there(server: Any) -> None:
    tenants: list[Value] = ["a", "b", 5, None, True]
    engine = engine_at(server.address("shared") + "?tenant=customer")
    engine.create(Layout(8, True, VectorIndexSettings(kind="exact")))
    rows = some_rows(100, lambda number: {"customer": tenants[number % 5]} if number % 10 else {})
    engine.upsert(rows)
    for where in (
        "customer = 'a'",
        "customer = 5",
        "customer = true",
        "not customer = 'a'",
        "customer in ('a', 'b')",
        "customer is null",
    ):
        condition = parse(where)
        meant = {row.key for row in rows if meets(condition, row.fields)}
        assert keys_in(engine, condition) == meant
        assert engine.count(condition) == len(meant)
        assert set(engine.search_vectors(rows[0].vector, 100, condition).keys.tolist()) == meant
        assert engine.exact(condition)
    assert engine._filter(parse("customer = 'a' and year > 3")).startswith('(tenant in ["ta"] and ')
    engine.drop()
    engine.close()


def test_a_row_that_goes_to_another_tenant_is_there_once(server: Any) -> None:
    engine = engine_at(server.address("moved") + "?tenant=customer")
    engine.create(Layout(8, False))
    engine.upsert(some_rows(10, lambda number: {"customer": "a"}))
    other = engine_at(server.address("moved"))  # the collection knows by what it is partitioned
    other.upsert(some_rows(5, lambda number: {"customer": "b"}))
    assert engine.count() == 10
    assert keys_in(engine, parse("customer = 'a'")) == {6, 7, 8, 9, 10}
    assert keys_in(engine, parse("customer = 'b'")) == {1, 2, 3, 4, 5}
    assert other.describe()["partitioned by"] == "customer"
    with pytest.raises(EngineError, match="several values of 'customer'"):
        other.upsert(some_rows(1, lambda number: {"customer": ["a", "b"]}))
    with pytest.raises(EngineError, match="partitioned by 'customer', not 'year'"):
        engine_at(server.address("moved") + "?tenant=year").create(Layout(8, False))
    engine.drop()


@pytest.mark.parametrize(
    ("settings", "index", "asked"),
    [
        (VectorIndexSettings(kind="hnsw", m=8, ef_construction=64, ef_search=77), {"M": 8, "efConstruction": 64}, {"ef": 77}),
        (VectorIndexSettings(kind="ivf", nlist=32, nprobe=4), {"nlist": 32}, {"nprobe": 4}),
        (VectorIndexSettings(kind="exact"), {}, {}),
    ],
)
def test_the_parameters_of_an_index_get_to_the_server_and_into_each_search(
    server: Any, settings: VectorIndexSettings, index: dict[str, int], asked: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_at(server.address("tuned"))
    made: list[Any] = []
    monkeypatch.setattr(milvus, "make_index", lambda *given: made.append(given) or _make_index(*given))
    engine.create(Layout(8, False, settings))
    assert next(given[5] for given in made if given[2] == "vector") == index
    told = engine._session.call("describing", "describe_index", "tuned", "vector")
    assert told["index_type"] == {"hnsw": "HNSW", "ivf": "IVF_FLAT", "exact": "FLAT"}[settings.kind]
    assert told["metric_type"] == "IP"
    if not engine.describe()["server"].startswith("milvus_lite"):  # which tells of none
        assert {name: int(told[name]) for name in index} == index
    engine.upsert(some_rows(50))
    sent: list[Any] = []
    call = engine._session.call
    monkeypatch.setattr(engine._session, "call", lambda *given, **options: sent.append(options) or call(*given, **options))
    opened = engine_at(server.address("tuned"))
    assert (
        opened.search_vectors(some_rows(50)[7].vector, 5).keys[0] == engine.search_vectors(some_rows(50)[7].vector, 5).keys[0]
    )
    assert sent[-1]["search_params"]["params"] == asked
    engine.drop()


_make_index = milvus.make_index


def test_what_is_too_long_for_a_column_is_refused_before_anything_is_sent(server: Any) -> None:
    engine = engine_at(server.address("long"))
    engine.create(Layout(8, False))
    row = some_rows(2)[1]
    for bad in (
        Row(9, "d9", 0, "ä" * 40_000, {}, (), row.vector),
        Row(9, "d9", 0, "", {"f": "x" * 70_000}, (), row.vector),
        Row(9, "d9", 0, "", {}, (), None),
        Row(9, "d9", 0, "", {}, (), np.ones(7, np.float32)),
    ):
        with pytest.raises(EngineError, match="'d9'"):
            engine.upsert([row, bad])
    assert engine.count() == 0
    with pytest.raises(EngineError, match="kind 'annoy'"):
        engine.create(Layout(8, False, VectorIndexSettings(kind="annoy")))
    engine.drop()


def test_answers_that_are_too_large_are_asked_for_in_parts(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_at(server.address("large"))
    engine.create(Layout(8, False))
    rows = some_rows(300)
    engine.upsert(rows)
    read, refused = engine._query, []

    def small(doing: str, filter: str, columns: list[str], **options: Any) -> list[Any]:
        """As Milvus does with more than 100 MB."""
        found = read(doing, filter, columns, **options)
        if len(found) > 40:
            refused.append(len(found))
            raise EngineError("query results exceed the limit size")
        return found

    monkeypatch.setattr(engine, "_query", small)
    assert len(engine.fetch(np.arange(1, 301))) == 300
    assert len(engine.rows_of([row.document for row in rows])) == 300
    assert len(keys_in(engine)) == 300
    assert refused
    engine.drop()


# -- servers that go away ------------------------------------------------------------------------------------------------------


def test_a_server_killed_during_an_ingest_loses_and_doubles_nothing(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(milvus, "BATCH_ROWS", 200)
    quickly = milvus_session.persistent
    monkeypatch.setattr(milvus_session, "persistent", lambda *given: quickly(*given, patience=2.0))
    engine = engine_at(server.address("killed"))
    engine.create(Layout(8, True, VectorIndexSettings(kind="hnsw")))
    engine.set_meta("recipe", "kept")
    rows, sent, failed = some_rows(6000), threading.Event(), []
    put = engine._put
    monkeypatch.setattr(
        engine, "_put", lambda *given: (put(*given), len(given[1]) and given[1][0]["key"] > 1500 and sent.set())
    )

    def ingest() -> None:
        try:
            engine.upsert(rows)
        except EngineError as error:
            failed.append(str(error))

    working = threading.Thread(target=ingest)
    working.start()
    assert sent.wait(60)
    server.kill()
    working.join()
    assert failed
    assert "putting rows in" in failed[0]
    assert "is it running?" in failed[0]

    begun = time.monotonic()
    with pytest.raises(EngineError, match=r"searching: .*is it running\?"):
        engine.search_vectors(rows[0].vector, 5)
    assert time.monotonic() - begun < 12

    server.start()
    monkeypatch.setattr(milvus_session, "persistent", lambda *given: quickly(*given, patience=60.0))
    assert 1500 < engine.count() < 6000
    engine.upsert(rows)
    assert engine.count() == 6000
    listed = [row.key for page in engine.iterate() for row in page]
    assert len(listed) == len(set(listed)) == 6000
    best = int(np.argmax(np.stack([row.vector for row in rows]) @ rows[4321].vector))
    assert engine.search_vectors(rows[4321].vector, 1).keys.tolist() == [best + 1]
    assert engine.get_meta("recipe") == "kept"
    engine.drop()


def test_a_server_that_never_was_there_is_said_to_be_away(monkeypatch: pytest.MonkeyPatch) -> None:
    quickly = milvus_session.persistent
    monkeypatch.setattr(milvus_session, "persistent", lambda *given: quickly(*given, patience=1.0))
    monkeypatch.setattr(milvus_session, "CONNECT", 0.5)
    monkeypatch.setenv("MILVUS_TOKEN", "root:very-secret")
    for address in ("milvus://127.0.0.1:9/papers", "milvus://me:very-secret@127.0.0.1:9/papers"):
        engine = engine_at(address)
        with pytest.raises(EngineError, match=r"127.0.0.1:9/papers, looking for the collection: .*is it running\?") as caught:
            engine.exists()
        assert "very-secret" not in str(caught.value)
        assert "very-secret" not in repr(engine.address)


def test_transient_errors_are_tried_again_and_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_at("milvus://127.0.0.1:9/papers")
    left: list[Exception] = []

    class Client:
        def has_collection(self, *given: Any, **options: Any) -> bool:
            if left:
                raise left.pop(0)
            return True

    monkeypatch.setattr(engine._session, "_connected", Client)
    left[:] = [
        milvus_session.MilvusException(8, "rate limit exceeded"),
        milvus_session.MilvusException(milvus_session.grpc.StatusCode.UNAVAILABLE, "connection reset"),
        milvus_session.MilvusException(65535, "service not ready[proxy=1]: Initializing"),
    ]
    assert engine.exists()
    left[:] = [milvus_session.MilvusException(65535, "cannot parse expression")] * 2
    with pytest.raises(EngineError, match="cannot parse"):
        engine.exists()
    assert len(left) == 1


# -- addresses -----------------------------------------------------------------------------------------------------------------


def test_options_are_checked() -> None:
    for address, said in (
        ("milvus://localhost/papers?consistency=strong", "it is one of Strong, Session, Bounded, Eventually"),
        ("milvus://localhost/papers?partition=x", "no option 'partition'"),
        ("milvus+lite:///tmp/papers", "ends with .db"),
    ):
        with pytest.raises(CollectionError, match=said):
            MilvusEngine(Address.parse(address))


def test_milvus_lite_within_this_process_keeps_a_collection_in_a_folder(tmp_path: Path) -> None:
    pytest.importorskip("milvus_lite", reason="milvus-lite is not installed: pip install 'twinrank[milvus]'")
    address = f"milvus+lite://{tmp_path}/new/rows.db/papers?consistency=Bounded"
    engine = engine_at(address)
    assert not engine.exists()
    engine.create(Layout(8, True))
    engine.upsert(some_rows(20))
    assert engine.search_words(["word"], 30).keys.size == 20
    engine.close()
    again = engine_at(address)
    assert again.count() == 20
    assert again.words
    assert again.describe()["consistency"] == "Bounded"
    again.drop()
    assert not again.exists()
    again.close()
