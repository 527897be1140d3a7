"""What only PostgreSQL does: exact BM25, conditions said exactly, one transaction a batch, and a server that goes away."""

from __future__ import annotations

import gc
import json
import math
import os
import runpy
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'twinrank[postgresql]'")

from twinrank.conditions import is_like, meets
from twinrank.errors import CollectionError, EngineError
from twinrank.index.engines import Layout, Row, open_engine, postgresql
from twinrank.index.engines.postgresql_filters import fields_as_json, fields_from_json, given_text, kept_text
from twinrank.index.engines.postgresql_session import is_transient
from twinrank.index.settings import VectorIndexSettings
from twinrank.index.wordtail import K1, WordTail, idf_of
from twinrank.search.filters import parse
from twinrank.types import And, Between, Comparison, Condition, IsNull, Like, Membership, Not, Or, Ranking

running = runpy.run_path(str(Path(__file__).with_name("at_postgresql.py")))["running"]

DIMENSION = 8
EXACT = Layout(DIMENSION, True, VectorIndexSettings(kind="exact"))
WORDS = [f"w{number}" for number in range(30)]
LETTERS = "aAäÄßsSſkKKiIİıǅ1%_. \\*[]^$()|+?{}\"'\n\x00\x01\x02é北\U00010400\U00010428\uffee"


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with running() as one:
        yield one


@pytest.fixture
def address(server: Any, request: pytest.FixtureRequest) -> Iterator[Callable[[str], str]]:
    """Options → the address of a collection of this test's, dropped in the end."""
    name = f"T{abs(hash(request.node.name)) % 10**9}"
    yield lambda options="": server.address(name) + options
    engine = open_engine(server.address(name))
    engine.drop()
    engine.close()


@pytest.fixture
def engine(address: Callable[[str], str]) -> Iterator[Any]:
    opened = open_engine(address(""))
    opened.create(EXACT)
    yield opened
    opened.close()


@pytest.fixture
def reference() -> Iterator[Any]:
    opened = open_engine("memory:///postgresql_reference")
    opened.create(EXACT)
    yield opened
    opened.drop()


def some_rows(count: int, *, first: int = 1, seed: int = 0) -> list[Row]:
    draw = np.random.default_rng(seed)
    vectors = draw.standard_normal((count, DIMENSION)).astype(np.float32)
    return [
        Row(
            first + place,
            f"d{first + place}",
            0,
            json.dumps({"text": f"passage {place}"}),
            {"id": f"d{first + place}", "place": place},
            tuple(draw.choice(WORDS, draw.integers(1, 80)).tolist()),
            vectors[place],
        )
        for place in range(count)
    ]


def keys_of(rows: list[Row]) -> np.ndarray:
    return np.array([row.key for row in rows], np.int64)


def everything(engine: Any) -> dict[int, Row]:
    found = [row for batch in engine.iterate(vectors=True) for row in batch]
    assert len(found) == len({row.key for row in found})
    return {row.key: row for row in found}


def scores(ranking: Ranking) -> dict[int, float]:
    return dict(zip(ranking.keys.tolist(), ranking.scores.tolist(), strict=True))


def sql(engine: Any, query: str, *values: object) -> list[tuple[Any, ...]]:
    return engine._sessions.run("asking", lambda connection: connection.execute(query, values).fetchall())


def assert_same_words(engine: Any, reference: Any) -> None:
    """The same passages with the same scores, and so the same lengths, numbers and postings."""
    for query in (["w1"], ["w2", "w3", "w2"], ["w4", "nowhere"], WORDS):
        wanted, found = reference.search_words(query, 10_000), engine.search_words(query, 10_000)
        assert scores(found) == pytest.approx(scores(wanted), rel=1e-5)
        assert engine.words_bound(query) == pytest.approx(reference.words_bound(query), rel=1e-9)
    assert engine.count(documents=True) == reference.count(documents=True)


# -- words --------------------------------------------------------------------------------------------------------------------


def test_scores_of_words_are_those_of_bm25_whatever_was_added_replaced_and_removed(engine: Any, reference: Any) -> None:
    rows = some_rows(300)
    for one in (engine, reference):
        one.upsert(rows)
        one.upsert(some_rows(50, first=200, seed=1))
        one.delete(keys_of(rows[30:60]))
        one.upsert([replace(row, terms=()) for row in rows[10:12]])
    assert_same_words(engine, reference)


def test_scores_of_words_are_those_of_the_embedded_index_for_passages_of_up_to_40_words(engine: Any) -> None:
    rows = [replace(row, terms=row.terms[:40]) for row in some_rows(200)]
    engine.upsert(rows)
    tail = WordTail().with_added([row.key for row in rows], [row.terms for row in rows])
    weights = {term: idf_of(len(tail), len(tail.holding(term))) * np.float32(K1 + 1) for term in ("w1", "w2", "w3")}
    wanted, found = tail.search(weights, tail.average), engine.search_words(list(weights), 200)
    assert scores(found) == pytest.approx(scores(wanted), rel=1e-5)


def test_words_are_ranked_among_certain_keys_by_the_statistics_of_all(engine: Any) -> None:
    rows = some_rows(100)
    engine.upsert(rows)
    every = scores(engine.search_words(["w1", "w2"], 100))
    some = keys_of(rows[20:50])
    assert scores(engine.search_words(["w1", "w2"], 100, keys=some)) == pytest.approx(
        {key: score for key, score in every.items() if key in some}
    )


def test_a_word_of_any_length_is_found(engine: Any) -> None:
    long = ["x" * 5000, "x" * 5000 + "y", "\x00", "\x01", "\x01\x01"]
    engine.upsert([replace(row, terms=(word,)) for row, word in zip(some_rows(5), long, strict=True)])
    for place, word in enumerate(long):
        assert engine.search_words([word], 5).keys.tolist() == [place + 1]


def test_a_collection_without_words_keeps_none(address: Callable[[str], str]) -> None:
    engine = open_engine(address(""))
    engine.create(Layout(DIMENSION, False, VectorIndexSettings(kind="exact")))
    engine.upsert(some_rows(5))
    engine.delete(np.array([1]))
    assert not engine.words
    assert engine.count() == 4
    engine.close()


# -- conditions ---------------------------------------------------------------------------------------------------------------

texts = st.text(LETTERS, max_size=4)
scalars = st.one_of(
    texts,
    st.integers(-3, 3),
    st.sampled_from([2**53, 2**53 + 1, -(2**63), 10**23, 1e23, 2.0**53, 1e-300, 1e300, 0.1, 0.5, -0.0, 1.0, 2.0]),
    st.booleans(),
)
names = st.sampled_from(["a", "b", 'it\'s "a" %s {rows} $', "\x00"])
values = st.one_of(scalars, st.none(), st.lists(st.one_of(scalars, st.none()), max_size=3))
leaves = st.one_of(
    st.builds(Comparison, names, st.sampled_from(["=", "!=", "<", "<=", ">", ">="]), scalars),
    st.builds(Membership, names, st.lists(st.one_of(scalars, st.none()), max_size=4).map(tuple)),
    st.builds(Membership, names, st.lists(scalars, min_size=33, max_size=40).map(tuple)),
    st.builds(Between, names, scalars, scalars),
    st.builds(Like, names, st.text(LETTERS + "%%__", max_size=5)),
    st.builds(IsNull, names),
)
conditions = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(And, st.lists(inner, max_size=3).map(tuple)),
        st.builds(Or, st.lists(inner, max_size=3).map(tuple)),
    ),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def varied(server: Any) -> Iterator[Any]:
    """A collection of 400 rows with fields of every kind, and the rows."""
    held: list[dict[str, Any]] = []

    @settings(max_examples=400, derandomize=True, database=None)
    @given(st.dictionaries(names, values))
    def collect(fields: dict[str, Any]) -> None:
        held.append(fields)

    collect()
    rows = [Row(place + 1, f"d{place}", 0, "", fields) for place, fields in enumerate(held)]
    engine = open_engine(server.address("varied"))
    engine.create(Layout(0, False))
    engine.upsert(rows)
    yield engine, rows
    engine.drop()
    engine.close()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(condition=conditions)
def test_a_condition_means_here_what_it_means_elsewhere(varied: Any, condition: Condition) -> None:
    engine, rows = varied
    assert engine.exact(condition)
    found = {row.key for batch in engine.iterate(condition) for row in batch}
    assert found == {row.key for row in rows if meets(condition, row.fields)}


def test_fields_of_every_kind_come_back_with_their_types(varied: Any) -> None:
    engine, rows = varied
    found = everything(engine)
    for row in rows:
        assert found[row.key].fields == row.fields
        assert repr({name: row.fields[name] for name in sorted(row.fields)}).replace("-0.0", "0.0") == repr(
            {name: found[row.key].fields[name] for name in sorted(row.fields)}
        )


def test_letters_match_in_either_case_as_in_python_whatever_the_locale(engine: Any) -> None:
    """All letters that have another case, against each that Python takes for the same."""
    from twinrank.index.engines.postgresql_filters import _cased_letters

    letters = [letter for letter in _cased_letters() if not 0xD800 <= ord(letter) < 0xE000]
    engine.upsert([Row(place + 1, "d", place, "", {"a": letter}) for place, letter in enumerate(letters)])
    for asked in [*"aksiıſKİßäÄжЖσς", *letters[::40]]:
        found = {row.fields["a"] for batch in engine.iterate(Like("a", asked)) for row in batch}
        assert found == {letter for letter in letters if is_like(asked, letter)}, asked


def test_a_pattern_that_is_too_long_is_left_to_whoever_asks(engine: Any) -> None:
    assert engine.exact(Like("a", "a" * 500))
    assert not engine.exact(Like("a", "a" * 501))
    assert not engine.exact(Comparison("a", "<", math.inf))
    engine.upsert([replace(some_rows(1)[0], fields={"a": "a" * 500})])
    assert engine.count(Like("a", "a" * 500)) == engine.count(Like("a", "a" * 501)) == 1
    assert engine.count(Like("a", "%" + "a%" * 200)) == 1


def test_a_condition_of_thousands_of_values_is_answered(engine: Any) -> None:
    engine.upsert(some_rows(50))
    wanted = Membership("id", tuple(f"d{number}" for number in range(40, 20_000)))
    assert {row.key for batch in engine.iterate(wanted) for row in batch} == set(range(40, 51))
    nested: Condition = Comparison("place", "=", 3)
    for _ in range(100):
        nested = Not(And((nested, Comparison("place", ">=", 0))))
    assert engine.count(nested) == sum(meets(nested, row.fields) for row in some_rows(50))


HOSTILE = [
    '\'; DROP TABLE twinrank."%"; --',
    "{rows}",
    "%s %(a)s %%",
    "\"}'::jsonb); DELETE FROM pg_class; --",
    "$.a ? (1 == 1)",
    "\\'; SELECT pg_sleep(60); --",
    "a') OR true --",
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_names_and_values_are_never_code(engine: Any, hostile: str) -> None:
    rows = some_rows(4)
    rows[1] = replace(rows[1], fields={hostile: hostile, "id": hostile}, document=hostile, payload=hostile, terms=(hostile,))
    engine.upsert(rows)
    engine.set_meta("x", hostile)
    for condition in (
        Comparison(hostile, "=", hostile),
        Comparison(hostile, ">=", hostile),
        Between(hostile, hostile, hostile),
        Membership(hostile, (hostile, *map(str, range(40)))),
        Like(hostile, hostile.replace("\\", "_")),
        Not(IsNull(hostile)),
    ):
        assert [row.key for batch in engine.iterate(condition) for row in batch] == [2], condition
        assert engine.search_vectors(rows[0].vector, 10, condition).keys.tolist() == [2]
        assert engine.search_words([hostile], 10, condition).keys.tolist() == [2]
    assert engine.rows_of([hostile])[0].payload == hostile
    assert engine.get_meta("x") == hostile
    assert engine.count() == 4


# -- texts and rows -----------------------------------------------------------------------------------------------------------


@given(st.text(LETTERS), st.text(LETTERS))
def test_a_kept_text_holds_no_nul_comes_back_and_keeps_its_place_in_order(one: str, other: str) -> None:
    assert "\x00" not in kept_text(one)
    assert given_text(kept_text(one)) == one
    assert (kept_text(one) < kept_text(other)) == (one < other)


@given(st.dictionaries(st.text(), st.one_of(scalars, st.floats(allow_nan=False, allow_infinity=False), st.lists(scalars))))
def test_fields_written_as_json_are_read_as_they_were(fields: dict[str, Any]) -> None:
    assert repr(fields_from_json(fields_as_json(fields))) == repr(fields)


def test_a_field_that_is_no_number_is_refused_by_name(engine: Any) -> None:
    with pytest.raises(EngineError, match="holds nan"):
        engine.upsert([replace(some_rows(1)[0], fields={"a": math.nan})])


def test_nul_comes_back_in_every_text(engine: Any) -> None:
    row = Row(1, "d\x00", 0, "\x00\x01\x02 payload", {"\x00n": ["\x01", "\x00"], "id": "\x02"}, ("t",), None)
    engine.upsert([row])
    engine.set_meta("m", "\x00\x01")
    assert engine.fetch(np.array([1])) == {1: replace(row, terms=())}
    assert engine.rows_of(["d\x00"]) == [replace(row, terms=())]
    assert engine.get_meta("m") == "\x00\x01"
    assert engine.count(Comparison("\x00n", "=", "\x00")) == 1


def test_a_row_without_a_vector_is_kept_and_found_by_words_only(engine: Any) -> None:
    engine.upsert([replace(some_rows(1)[0], vector=None, terms=("only",)), *some_rows(3, first=2)])
    assert engine.search_words(["only"], 5).keys.tolist() == [1]
    assert 1 not in engine.search_vectors(np.ones(DIMENSION, np.float32), 5).keys


def test_of_two_rows_with_one_key_the_last_stays(engine: Any) -> None:
    one, other = some_rows(2)
    engine.upsert([one, replace(other, key=one.key)])
    assert [row.document for row in everything(engine).values()] == [other.document]
    assert engine.count() == 1


def test_a_document_id_may_be_very_long(engine: Any) -> None:
    long = "".join(np.random.default_rng(1).choice(list("abcdefgh"), engine.limits.document))
    engine.upsert([replace(some_rows(1)[0], document=long)])
    assert engine.rows_of([long])[0].key == 1


def test_a_vector_of_another_dimension_is_refused_and_nothing_of_its_batch_is_kept(engine: Any) -> None:
    rows = some_rows(10)
    rows[9] = replace(rows[9], vector=np.ones(DIMENSION + 1, np.float32))
    with pytest.raises(EngineError, match="dimensions"):
        engine.upsert(rows)
    assert engine.count() == 0
    assert everything(engine) == {}


# -- tables and indexes -------------------------------------------------------------------------------------------------------


def test_a_collection_is_kept_in_the_schema_that_is_asked_for_and_drop_leaves_nothing(address: Callable[[str], str]) -> None:
    engine, other = open_engine(address("?schema=elsewhere")), open_engine(address(""))
    engine.create(EXACT)
    engine.upsert(some_rows(3))
    assert engine.exists()
    assert not other.exists()
    other.close()
    named = "SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = 'elsewhere'"
    assert len(sql(engine, named)) > 4
    engine.drop()
    assert sql(engine, named) == []
    engine.close()


def test_many_who_make_a_collection_at_once_make_one(address: Callable[[str], str]) -> None:
    failed: list[BaseException] = []

    def create() -> None:
        one = open_engine(address("?schema=at_once"))
        try:
            one.create(EXACT)
        except BaseException as error:
            failed.append(error)
        one.close()

    threads = [threading.Thread(target=create) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    engine = open_engine(address("?schema=at_once"))
    assert engine.count() == 0
    engine.drop()
    engine.close()


def test_a_collection_that_is_not_there_says_so(address: Callable[[str], str]) -> None:
    engine = open_engine(address(""))
    for ask in (lambda: engine.words, engine.count, lambda: engine.get_meta("x"), lambda: engine.upsert(some_rows(1))):
        with pytest.raises(EngineError, match="there is no such collection"):
            ask()
    engine.close()


@pytest.mark.parametrize(
    ("dimension", "options", "kind", "told"),
    [
        (8, "", "hnsw", "hnsw, m 16, ef_construction 64, ef_search 100"),
        (8, "?halfvec=yes", "hnsw", "hnsw, m 16, ef_construction 64, ef_search 100, 16-bit"),
        (8, "?halfvec=yes", "ivf", "ivf, 35 lists, of which the larger of 16 and an eighth are probed, 16-bit"),
        (2100, "", "hnsw", "hnsw, m 16, ef_construction 64, ef_search 100, 16-bit"),
        (4001, "", "auto", "exact"),
        (8, "", "auto", "exact; hnsw from 1,000,000 passages on"),
    ],
)
def test_vectors_are_indexed_as_asked_and_keep_their_own_scores(
    address: Callable[[str], str], dimension: int, options: str, kind: Any, told: str
) -> None:
    draw = np.random.default_rng(0)
    vectors = draw.standard_normal((1200, dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = [Row(place + 1, f"d{place}", 0, "", {"place": place}, (), vector) for place, vector in enumerate(vectors)]
    engine = open_engine(address(options))
    engine.create(Layout(dimension, False, VectorIndexSettings(kind=kind)))
    engine.upsert(rows)
    assert engine.describe()["index"] == told
    hits = 0
    for asked in vectors[::100]:
        products = vectors @ asked
        found = engine.search_vectors(asked, 10)
        np.testing.assert_allclose(found.scores, products[found.keys - 1], atol=1e-5)
        hits += len(set(found.keys.tolist()) & set((np.argsort(-products)[:10] + 1).tolist()))
    assert hits >= 0.9 * 120
    engine.close()


def planned(engine: Any, k: int) -> str:
    """How the server goes about the search of the index, if it may do nothing else."""
    told: list[str] = []

    def ask(connection: Any) -> None:
        connection.execute("SET enable_seqscan = off; SET enable_sort = off")
        found = connection.execute(
            engine._tables.sql("EXPLAIN SELECT key FROM {rows} ORDER BY vector <#> %s::vector LIMIT %s"),
            [str([0] * DIMENSION), k],
        )
        told.extend(line for (line,) in found.fetchall())
        connection.execute("RESET ALL")

    engine._sessions.run("explaining", ask)
    return "\n".join(told)


def test_what_few_rows_meet_is_found_whole_though_the_index_would_miss_it(address: Callable[[str], str]) -> None:
    """Of 3,000 rows three pass, the farthest from what is asked for."""
    engine = open_engine(address(""))
    engine.create(Layout(DIMENSION, False, VectorIndexSettings(kind="hnsw", ef_search=10)))
    rows = some_rows(3000)
    asked = rows[0].vector
    far = np.argsort(np.stack([row.vector for row in rows]) @ asked)[:3]
    for place in far:
        rows[place] = replace(rows[place], fields={"far": 1})
    engine.upsert(rows)
    assert f"{engine.address.name}_near" in planned(engine, 10)
    wanted = {rows[place].key for place in far}
    assert set(engine.search_vectors(asked, 10, parse("far = 1")).keys.tolist()) == wanted
    assert set(engine.search_vectors(asked, 10, parse("far >= 1")).keys.tolist()) == wanted
    assert len(engine.search_vectors(asked, 3000)) == 3000
    engine.close()


def test_the_lists_of_ivf_are_made_anew_as_the_collection_grows(address: Callable[[str], str]) -> None:
    engine = open_engine(address(""))
    engine.create(Layout(DIMENSION, False, VectorIndexSettings(kind="ivf")))
    engine.upsert(some_rows(900))
    assert engine.describe()["index"] == "exact; ivf from 1,000 passages on"
    engine.upsert(some_rows(300, first=901))
    assert engine.describe()["index"].startswith("ivf, 35 lists")
    engine.upsert(some_rows(3000, first=1201))
    assert engine.describe()["index"].startswith("ivf, 35 lists")
    engine.upsert(some_rows(700, first=4201))
    assert engine.describe()["index"].startswith("ivf, 70 lists")
    engine.close()


def test_a_bulk_load_is_indexed_on_closing(address: Callable[[str], str]) -> None:
    engine, other = open_engine(address("?bulk=yes&maintenance_work_mem=128MB")), open_engine(address(""))
    engine.create(Layout(DIMENSION, False, VectorIndexSettings(kind="hnsw")))
    engine.upsert(some_rows(1500))
    assert other.describe()["index"] == "exact; hnsw from 1,000 passages on"
    engine.close()
    assert other.describe()["index"].startswith("hnsw, m 16")
    other.close()


@pytest.mark.parametrize(
    ("dimension", "index", "said"),
    [
        (5000, {"kind": "hnsw"}, "up to 4,000 dimensions, and these have 5,000"),
        (8, {"kind": "scann"}, "it has exact, hnsw and ivf"),
        (8, {"kind": "hnsw", "m": 200}, "m is 200; pgvector takes 2 to 100"),
        (
            8,
            {"kind": "hnsw", "m": 50, "ef_construction": 80},
            "ef_construction is 80; pgvector takes no less than 2 m, which is 100",
        ),
        (8, {"kind": "ivf", "nlist": 40_000}, "nlist is 40,000; pgvector takes 1 to 32,768"),
    ],
)
def test_an_index_that_pgvector_has_not_is_refused(
    address: Callable[[str], str], dimension: int, index: dict[str, Any], said: str
) -> None:
    engine = open_engine(address(""))
    with pytest.raises(EngineError, match=said):
        engine.create(Layout(dimension, True, VectorIndexSettings(**index)))
    assert not engine.exists()
    engine.close()


# -- the address --------------------------------------------------------------------------------------------------------------


def test_a_password_is_never_shown(server: Any) -> None:
    engine = open_engine(f"postgresql://me:s3cret@127.0.0.1:{server.port}/nowhere/papers?sslmode=disable")
    with pytest.raises(EngineError) as raised:
        engine.exists()
    assert "s3cret" not in str(raised.value) + repr(engine.address)
    with pytest.raises(CollectionError) as refused:
        open_engine("postgresql://me@localhost/db/papers?password=s3cret")
    assert "s3cret" not in str(refused.value)
    assert "PGPASSWORD" in str(refused.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("?user=x", "there is no option 'user'"),
        ("?schema=a.b", "schema is 'a.b'"),
        ("?timeout=soon", "timeout is 'soon'; seconds were expected"),
        ("?halfvec=1", "halfvec is '1'; yes or no was expected"),
    ],
)
def test_an_option_that_is_none_is_refused(options: str, said: str) -> None:
    with pytest.raises(CollectionError, match=said):
        open_engine(f"postgresql://localhost/db/papers{options}")


def test_a_database_that_is_not_there_is_told_at_once(server: Any) -> None:
    engine, begun = open_engine(f"postgresql://postgres@127.0.0.1:{server.port}/nowhere/papers"), time.monotonic()
    with pytest.raises(EngineError, match='database "nowhere" does not exist'):
        engine.exists()
    assert time.monotonic() - begun < 5


def test_what_takes_too_long_is_stopped(address: Callable[[str], str]) -> None:
    engine, begun = open_engine(address("?timeout=0.2")), time.monotonic()
    with pytest.raises(EngineError, match=r"searches get 0\.2 seconds"):
        sql(engine, "SELECT pg_sleep(30)")
    assert time.monotonic() - begun < 10
    engine.close()


# -- several at once, and a server that goes away -----------------------------------------------------------------------------


def test_two_who_write_the_same_rows_at_once_lose_and_double_nothing(
    address: Callable[[str], str], engine: Any, reference: Any
) -> None:
    failed: list[BaseException] = []
    rows = [some_rows(120, seed=1), list(reversed(some_rows(120, seed=2)))]
    together = threading.Barrier(2, timeout=60)

    def write(one: Any, mine: list[Row]) -> None:
        try:
            for number in range(6):
                one.delete(keys_of(mine[10 * number : 10 * number + 60]))
                together.wait()
                one.upsert(mine)
        except BaseException as error:
            failed.append(error)

    engines = [open_engine(address("")) for _ in rows]
    threads = [threading.Thread(target=write, args=pair) for pair in zip(engines, rows, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    kept = everything(engine)
    assert len(kept) == engine.count() == 120
    # Each row is as the one or the other wrote it last; words and numbers are those of the rows.
    by_vector = {row.vector.tobytes(): row for mine in rows for row in mine}
    reference.upsert([by_vector[row.vector.tobytes()] for row in kept.values()])
    assert_same_words(engine, reference)
    for one in engines:
        one.close()


def fail_at(engine: Any, call: int, happening: Callable[[], None]) -> None:
    """Have something happen within the transaction of the `call`-th batch, after all its rows were sent."""
    tell, calls = engine._tables._tell, Counter[str]()

    def told(*given: Any) -> Any:
        calls["tell"] += 1
        if calls["tell"] == call:
            happening()
        return tell(*given)

    engine._tables._tell = told


def test_a_server_killed_in_the_middle_of_an_ingest_loses_and_doubles_nothing(
    server: Any, address: Callable[[str], str], reference: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "ROWS_AT_ONCE", 100)
    engine, rows = open_engine(address("")), some_rows(450)
    engine.create(Layout(DIMENSION, True, VectorIndexSettings(kind="hnsw")))
    engine.upsert(some_rows(20, seed=9))
    engine._sessions.patience = 0.5
    fail_at(engine, 3, server.kill)
    with pytest.raises(EngineError, match="The same call completes it"):
        engine.upsert(rows)
    begun = time.monotonic()
    with pytest.raises(EngineError, match=rf"127\.0\.0\.1:{server.port}.*searching vectors.*is it running"):
        engine.search_vectors(rows[0].vector, 5)
    assert time.monotonic() - begun < 5
    server.start()
    engine._sessions.patience = 15
    assert engine.count() == 200  # two batches whole, of the third nothing
    assert len(everything(engine)) == 200
    engine.upsert(rows)
    reference.upsert(rows)
    assert_same_words(engine, reference)
    found = everything(engine)
    assert set(found) == {row.key for row in rows}
    assert all(found[row.key].payload == row.payload for row in rows)
    assert engine.count() == 450
    engine.close()


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_server_that_comes_back_in_time_is_waited_for(
    server: Any, engine: Any, reference: Any, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(postgresql, "ROWS_AT_ONCE", 100)
    starting: list[threading.Thread] = []

    def restart() -> None:
        getattr(server, how)()
        starting.append(threading.Thread(target=server.start))
        starting[0].start()

    fail_at(engine, 2, restart)
    rows = some_rows(300)
    engine.upsert(rows)
    starting[0].join()
    reference.upsert(rows)
    assert_same_words(engine, reference)
    assert len(everything(engine)) == engine.count() == 300


def test_a_connection_that_the_server_ends_is_opened_anew(engine: Any) -> None:
    engine.upsert(some_rows(5))
    other = open_engine(engine.address)
    query = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND application_name = 'twinrank'"
    )
    assert sql(other, query)
    assert engine.count() == 5
    other.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_asks_over_a_connection_of_its_own(engine: Any) -> None:
    engine.upsert(some_rows(5))
    child = os.fork()
    if not child:
        os._exit(engine.count() if sql(engine, "SELECT 1") == [(1,)] else 255)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
    assert engine.count() == 5


def test_connections_that_nobody_closed_are_closed_with_their_engine(server: Any) -> None:
    engine = open_engine(server.address("forgotten"))
    assert not engine.exists()
    (_, connection), *_ = engine._sessions._idle
    del engine
    gc.collect()
    assert connection.closed


def test_only_what_may_pass_is_tried_again() -> None:
    import psycopg

    assert is_transient(psycopg.errors.DeadlockDetected())
    assert is_transient(psycopg.errors.SerializationFailure())
    assert is_transient(psycopg.errors.AdminShutdown())
    assert is_transient(psycopg.OperationalError("connection to server failed: Connection refused"))
    assert is_transient(psycopg.OperationalError("FATAL:  the database system is starting up"))
    assert not is_transient(psycopg.OperationalError("FATAL:  password authentication failed for user"))
    assert not is_transient(psycopg.errors.DiskFull())
    assert not is_transient(psycopg.errors.SyntaxError())
    assert not is_transient(ValueError())
