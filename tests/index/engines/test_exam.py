"""The exam that every engine passes: rows kept, found, replaced and removed as the protocol says."""

from __future__ import annotations

import json
import random
import threading
from dataclasses import replace

import numpy as np
import pytest

from twinrank.conditions import meets
from twinrank.index.engines import Engine, Layout, Row, open_engine
from twinrank.index.settings import VectorIndexSettings
from twinrank.search.filters import parse
from twinrank.types import Value, Vectors

DIMENSION = 16
EXACT = Layout(DIMENSION, True, VectorIndexSettings(kind="exact"))
WORDS = ["zinc", "honey", "cold", "cough", "tea", "lemon", "rest", "sleep", "fever", "nose", "throat", "ginger", "salt"]

CONDITIONS = (
    "year >= 2015",
    "year < 2005",
    "year = 2010",
    "year != 2010",
    "year between 2003 and 2007",
    "year in (2001, 2019, 1800)",
    "lang = 'en'",
    "lang != 'en'",
    "lang in ('fr', 'de')",
    "lang like 'E%'",
    "lang like '_r'",
    "note like '%50\\% \"off\"%'",
    "tags = 'a'",
    "tags != 'a'",
    "tags in ('b', 'c')",
    "not tags = 'a'",
    "not (year >= 2015 and lang = 'en')",
    "open = true",
    "open != true",
    "open = 1",
    "year = '2010'",
    "score > 0.25",
    "score <= -0.5 or lang = 'en' and year > 2010",
    "score is null",
    "score is not null",
    "not score is null and not lang = 'fr'",
    "marks >= 7",
    "marks between 4 and 5",
    "marks < 2",
    "title is null",
    "title = 'Title 7'",
    "id in ('d3', 'd4', 'nobody')",
    "source like '%.TXT'",
    "`a \"b' c` = 1",
    "note = 'it''s \"quoted\" \\ and $1 or 1=1; -- drop'",
    "big = 9007199254740993",
    "lang = 'en' or (lang = 'fr' and not (year < 2010 or tags = 'c'))",
)


def fields_of(number: int) -> dict[str, Value]:
    """As varied as fields are: missing, null, lists, numbers beyond 53 bits, every kind of character."""
    draw = random.Random(number)
    fields: dict[str, Value] = {"id": f"d{number}", "year": 2000 + number % 20, "lang": draw.choice(["en", "fr", "de"])}
    if number % 3:
        fields["tags"] = draw.sample(["a", "b", "c"], draw.randint(0, 3))
    if number % 4:
        fields["score"] = round(draw.uniform(-1, 1), 3)
    if number % 5 == 0:
        fields["score"] = None
    if number % 2:
        fields["open"] = bool(number % 4 == 1)
        fields["title"] = f"Title {number}"
    fields["marks"] = [draw.randint(0, 9) for _ in range(draw.randint(0, 3))]
    fields["note"] = draw.choice(
        ['it\'s "quoted" \\ and $1 or 1=1; -- drop', 'now 50% "off" {x}', "Zürich 北京 \U0001f600", ""]
    )
    fields["source"] = f"folder/{number}.{'txt' if number % 7 else 'md'}"
    if number % 6 == 0:
        fields["a \"b' c"] = number % 2
        fields["big"] = 9007199254740993 if number % 4 else 9007199254740992
    return fields


def unit(draw: np.random.Generator, count: int) -> Vectors:
    vectors = draw.standard_normal((count, DIMENSION)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def some_rows(count: int, *, first: int = 1, passages: int = 1) -> list[Row]:
    """`passages` rows a document; keys are spread over all 63 bits."""
    vectors, rows = unit(np.random.default_rng(first), count), []
    for place in range(count):
        number, draw = first + place // passages, random.Random(first + place)
        terms = tuple(draw.choice(WORDS) for _ in range(draw.randint(3, 12)))
        payload = json.dumps({"text": f"passage {place} – Ж \U0001f600 '\"\\", "nested": [1, {"a": None}]}, ensure_ascii=False)
        key = ((first + place) * 0x1E3779B97F4A7C15) % (2**63 - 1) + 1
        rows.append(Row(key, f"d{number}", place % passages, payload, fields_of(number), terms, vectors[place]))
    return rows


def keys_of(rows: list[Row]) -> np.ndarray:
    return np.array([row.key for row in rows], np.int64)


def all_rows(engine: Engine) -> dict[int, Row]:
    found = [row for batch in engine.iterate(vectors=True) for row in batch]
    assert len(found) == len({row.key for row in found})
    return {row.key: row for row in found}


def assert_same(found: Row, given: Row, *, vectors: bool = True) -> None:
    assert (found.key, found.document, found.number, found.payload) == (given.key, given.document, given.number, given.payload)
    assert dict(found.fields) == dict(given.fields)
    for name, value in given.fields.items():
        assert type(found.fields[name]) is type(value), name
    if vectors:
        assert found.vector is not None
        assert given.vector is not None
        np.testing.assert_allclose(found.vector, given.vector, atol=1e-6)
    else:
        assert found.vector is None


@pytest.fixture(scope="module")
def filled(address_of) -> Engine:
    """A collection of 600 rows of 200 documents, which no test changes."""
    engine = open_engine(address_of("exam_filled"))
    engine.drop()
    engine.create(EXACT)
    engine.upsert(some_rows(600, passages=3))
    yield engine
    engine.drop()
    engine.close()


ROWS = some_rows(600, passages=3)


def test_a_collection_is_there_once_it_was_created_and_gone_once_dropped(engine: Engine) -> None:
    assert not engine.exists()
    engine.create(EXACT)
    assert engine.exists()
    engine.create(EXACT)
    assert engine.count() == 0
    engine.drop()
    engine.drop()
    assert not engine.exists()


def test_a_dropped_collection_comes_back_empty(engine: Engine) -> None:
    engine.create(EXACT)
    engine.upsert(some_rows(5))
    engine.set_meta("recipe", "x")
    engine.drop()
    engine.create(EXACT)
    assert engine.count() == 0
    assert engine.get_meta("recipe") is None
    assert not all_rows(engine)


def test_meta_is_given_back_letter_for_letter_however_long(engine: Engine) -> None:
    engine.create(EXACT)
    long = "".join(random.Random(1).choices("abc \"'\\{}äЖ\n\U0001f600", k=200_000))
    assert engine.get_meta("stopping 0") is None
    engine.set_meta("stopping 0", long)
    engine.set_meta("empty", "")
    assert engine.get_meta("stopping 0") == long
    assert engine.get_meta("empty") == ""
    engine.set_meta("stopping 0", "short")
    assert engine.get_meta("stopping 0") == "short"
    assert engine.count() == 0
    assert not all_rows(engine)


def test_what_was_written_is_there_for_who_opens_it_next(engine: Engine, address: str) -> None:
    engine.create(EXACT)
    engine.upsert(some_rows(3))
    engine.set_meta("recipe", "kept")
    other = open_engine(address)
    assert other.exists()
    assert other.count() == 3
    assert other.get_meta("recipe") == "kept"
    assert other.search_vectors(some_rows(3)[1].vector, 1).keys.tolist() == [some_rows(3)[1].key]
    assert other.words == engine.words
    other.close()


def test_rows_come_back_as_they_went_in(filled: Engine) -> None:
    found = all_rows(filled)
    assert sorted(found) == sorted(row.key for row in ROWS)
    for row in ROWS:
        assert_same(found[row.key], row)
        assert found[row.key].terms == ()


def test_rows_are_fetched_by_key_and_by_document(filled: Engine) -> None:
    wanted = [ROWS[5], ROWS[500]]
    found = filled.fetch(np.array([*(row.key for row in wanted), 12345]))
    assert set(found) == {row.key for row in wanted}
    for row in wanted:
        assert_same(found[row.key], row, vectors=False)
    assert_same(filled.fetch(keys_of(wanted), vectors=True)[wanted[0].key], wanted[0])
    of = filled.rows_of(["d7", "d100", "nobody"], vectors=True)
    assert {row.key for row in of} == {row.key for row in ROWS if row.document in ("d7", "d100")}
    assert filled.fetch(np.empty(0, np.int64)) == {}
    assert filled.rows_of([]) == []


def test_many_keys_and_documents_are_fetched_at_once(filled: Engine) -> None:
    assert len(filled.fetch(keys_of(ROWS))) == 600
    assert len(filled.rows_of([f"d{number}" for number in range(1, 201)])) == 600


def test_documents_are_counted_and_listed_by_their_first_rows(filled: Engine) -> None:
    assert filled.count() == 600
    assert filled.count(documents=True) == 200
    listed = [row for batch in filled.iterate(documents=True) for row in batch]
    assert sorted(row.document for row in listed) == sorted({row.document for row in ROWS})
    assert all(row.vector is None for row in listed)


@pytest.mark.parametrize("where", CONDITIONS)
def test_a_condition_lets_through_what_it_says(filled: Engine, where: str) -> None:
    condition = parse(where)
    meant = {row.key for row in ROWS if meets(condition, row.fields)}
    passing = {row.key: row for batch in filled.iterate(condition) for row in batch}
    assert meant <= set(passing)
    assert {key for key, row in passing.items() if meets(condition, row.fields)} == meant
    asked = ROWS[17].vector
    found = set(filled.search_vectors(asked, 600, condition).keys.tolist())
    assert meant <= found
    if filled.exact(condition):
        assert set(passing) == found == meant
        assert filled.count(condition) == len(meant)
        assert filled.count(condition, documents=True) == sum(row.number == 0 for row in ROWS if row.key in meant)


def test_most_conditions_are_said_exactly(filled: Engine) -> None:
    simple = [
        "year >= 2015",
        "lang = 'en'",
        "lang in ('fr', 'de')",
        "id in ('d3', 'd4')",
        "year between 2003 and 2007 and not lang = 'en'",
    ]
    assert all(filled.exact(parse(where)) for where in simple)


@pytest.mark.parametrize("where", [None, "year >= 2015", "tags = 'a' and lang = 'fr'"])
def test_the_nearest_vectors_are_found_with_their_dot_products(filled: Engine, where: str | None) -> None:
    condition = None if where is None else parse(where)
    passing = [row for row in ROWS if condition is None or meets(condition, row.fields)]
    for asked in unit(np.random.default_rng(99), 5):
        scores = np.stack([row.vector for row in passing]) @ asked
        best = np.argsort(-scores)[:10]
        found = filled.search_vectors(asked, 10, condition)
        assert found.keys.tolist() == [passing[place].key for place in best]
        np.testing.assert_allclose(found.scores, scores[best], atol=1e-5)


def test_vectors_are_searched_among_certain_keys(filled: Engine) -> None:
    some = ROWS[40:60]
    found = filled.search_vectors(ROWS[3].vector, 100, keys=np.sort(keys_of(some)))
    scores = np.stack([row.vector for row in some]) @ ROWS[3].vector
    assert found.keys.tolist() == [some[place].key for place in np.argsort(-scores)]
    both = filled.search_vectors(ROWS[3].vector, 100, parse("lang = 'en'"), np.sort(keys_of(some)))
    assert set(both.keys.tolist()) == {row.key for row in some if row.fields["lang"] == "en"}
    assert len(filled.search_vectors(ROWS[3].vector, 5, keys=np.empty(0, np.int64))) == 0


def test_vectors_that_are_no_unit_vectors_are_ranked_by_dot_product(engine: Engine) -> None:
    engine.create(EXACT)
    rows = [replace(row, vector=row.vector * (place + 1)) for place, row in enumerate(some_rows(20))]
    engine.upsert(rows)
    asked = rows[0].vector * 3
    scores = np.stack([row.vector for row in rows]) @ asked
    found = engine.search_vectors(asked, 20)
    assert found.keys.tolist() == [rows[place].key for place in np.argsort(-scores)]
    np.testing.assert_allclose(found.scores, np.sort(scores)[::-1], rtol=1e-4, atol=1e-4)
    assert_same(engine.fetch(keys_of(rows[7:8]), vectors=True)[rows[7].key], rows[7])


def test_words_are_ranked_by_bm25(filled: Engine) -> None:
    if not filled.words:
        pytest.skip(f"{filled.title} searches no words")
    reference = open_engine("memory:///reference")
    reference.create(EXACT)
    reference.upsert(ROWS)
    for query in (["zinc"], ["honey", "cold"], ["tea", "tea", "lemon"], ["nowhere"], ["salt", "nowhere"]):
        for where in (None, parse("year >= 2010")):
            wanted, found = reference.search_words(query, 600, where), filled.search_words(query, 600, where)
            assert set(found.keys.tolist()) == set(wanted.keys.tolist())
            if not len(wanted):
                continue
            by_key = dict(zip(wanted.keys.tolist(), wanted.scores.tolist(), strict=True))
            # Some keep lengths roughly, and none breaks ties alike: the order follows the scores, within a little.
            given = np.array([by_key[key] for key in found.keys.tolist()])
            assert np.corrcoef(given, found.scores)[0, 1] > 0.97
            assert (np.diff(found.scores) <= 1e-6).all()
        few = filled.search_words(query, 3)
        assert len(few) == min(3, len(reference.search_words(query, 600)))
        bound = filled.words_bound(query)
        assert bound is None or not len(few) or few.scores[0] <= bound
    some = np.sort(keys_of(ROWS[:50]))
    found = filled.search_words(["zinc", "tea"], 600, keys=some)
    assert set(found.keys.tolist()) == set(reference.search_words(["zinc", "tea"], 600, keys=some).keys.tolist())
    reference.drop()


def test_words_of_any_script_are_found(engine: Engine) -> None:
    engine.create(EXACT)
    if not engine.words:
        pytest.skip(f"{engine.title} searches no words")
    strange = ["北京", "zürich", "c++", "it's", "a_b", "10.5", "naïve-ß", "and", "or", "not", "x:y", "*", '"q"', "ж" * 40]
    rows = [replace(row, terms=(word, "all")) for row, word in zip(some_rows(len(strange)), strange, strict=True)]
    engine.upsert(rows)
    for row, word in zip(rows, strange, strict=True):
        assert engine.search_words([word], 5).keys.tolist() == [row.key], word
    assert len(engine.search_words(["all"], 100)) == len(strange)


def test_a_row_that_is_put_in_again_takes_the_place_of_the_one_before(engine: Engine) -> None:
    engine.create(EXACT)
    rows = some_rows(50)
    engine.upsert(rows)
    other = unit(np.random.default_rng(5), 1)[0]
    new = replace(rows[10], payload="changed", fields={"id": "d11", "year": 1999}, terms=("fresh",), vector=other)
    engine.upsert([new])
    assert engine.count() == 50
    assert_same(engine.fetch(keys_of([new]), vectors=True)[new.key], new)
    assert engine.search_vectors(other, 1).keys.tolist() == [new.key]
    assert {row.key for batch in engine.iterate(parse("year = 1999")) for row in batch} == {new.key}
    if engine.words:
        assert engine.search_words(["fresh"], 5).keys.tolist() == [new.key]
        for term in set(rows[10].terms):
            assert new.key not in engine.search_words([term], 50).keys


def test_what_is_deleted_is_never_found(engine: Engine) -> None:
    engine.create(EXACT)
    rows = some_rows(50)
    engine.upsert(rows)
    gone = rows[10:20]
    engine.delete(np.array([*(row.key for row in gone), 999]))
    engine.delete(np.empty(0, np.int64))
    left = {row.key for row in rows} - {row.key for row in gone}
    assert engine.count() == 40
    assert set(all_rows(engine)) == left
    assert engine.fetch(keys_of(gone)) == {}
    assert engine.rows_of([row.document for row in gone]) == []
    assert set(engine.search_vectors(gone[0].vector, 50).keys.tolist()) == left
    if engine.words:
        assert not set(engine.search_words(WORDS, 50).keys.tolist()) & {row.key for row in gone}


def test_an_empty_collection_finds_nothing(engine: Engine) -> None:
    engine.create(EXACT)
    assert len(engine.search_vectors(some_rows(1)[0].vector, 5)) == 0
    assert engine.count() == 0
    assert all_rows(engine) == {}
    if engine.words:
        assert len(engine.search_words(["zinc"], 5)) == 0


def test_a_collection_without_vectors_keeps_words(engine: Engine) -> None:
    engine.create(Layout(0, True))
    engine.upsert([replace(row, vector=None) for row in some_rows(30)])
    assert engine.count() == 30
    assert_same(engine.fetch(keys_of(some_rows(1)))[some_rows(1)[0].key], some_rows(1)[0], vectors=False)
    if engine.words:
        assert len(engine.search_words(["zinc"], 30)) == sum("zinc" in row.terms for row in some_rows(30))


def test_a_large_payload_comes_back_whole(engine: Engine) -> None:
    engine.create(EXACT)
    size = min(engine.limits.payload, 200_000)
    row = replace(some_rows(1)[0], payload="ä" * (size // 2))
    engine.upsert([row])
    assert engine.fetch(keys_of([row]))[row.key].payload == row.payload


@pytest.mark.parametrize("kind", ["hnsw", "ivf", "auto"])
def test_an_approximate_index_finds_nearly_all(engine: Engine, kind: str) -> None:
    """5,000 vectors around 100 centres, as texts are; recall of the ten nearest, filtered and not."""
    draw = np.random.default_rng(3)
    centres = unit(draw, 100)
    vectors = centres[draw.integers(0, 100, 5000)] + 0.25 * unit(draw, 5000)
    vectors = np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)
    rows = [
        Row(place + 1, f"d{place}", 0, "{}", {"id": f"d{place}", "part": place % 10}, ("word",), vectors[place])
        for place in range(5000)
    ]
    engine.create(Layout(DIMENSION, True, VectorIndexSettings(kind=kind)))
    engine.upsert(rows)
    assert engine.count() == 5000
    for where, allowed in ((None, np.arange(5000)), (parse("part = 3"), np.arange(3, 5000, 10))):
        hits = 0
        for asked in vectors[draw.integers(0, 5000, 50)]:
            best = allowed[np.argsort(-(vectors[allowed] @ asked))[:10]] + 1
            hits += len(set(best.tolist()) & set(engine.search_vectors(asked, 10, where).keys.tolist()))
        assert hits / 500 >= 0.99


def test_several_threads_write_and_search_at_the_same_time(engine: Engine) -> None:
    engine.create(EXACT)
    parts = [some_rows(40, first=1 + 1000 * number) for number in range(4)]
    failed: list[BaseException] = []

    def work(rows: list[Row]) -> None:
        try:
            engine.upsert(rows[:20])
            engine.search_vectors(rows[0].vector, 5)
            engine.upsert(rows[20:])
            engine.delete(keys_of(rows[:10]))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(rows,)) for rows in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert set(all_rows(engine)) == {row.key for rows in parts for row in rows[10:]}


def test_what_there_is_to_say_of_it_is_text(filled: Engine) -> None:
    told = filled.describe()
    assert told
    assert all(isinstance(value, str) for value in told.values())
    assert filled.title
    assert filled.proven
