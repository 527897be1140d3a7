"""A collection in an engine against the same collection in a folder: every engine, the same documents, the same answers."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from twinrank import Collection
from twinrank.errors import CollectionError, DocumentError, EngineError, FilterError, ModelMismatchError, RecipeError
from twinrank.explain import explain
from twinrank.index.engines import Engine, open_engine
from twinrank.moving import copy
from twinrank.recipe import Recipe, RetrieveSettings

COUNT = 5000
WORDS = (
    "zinc honey cold cough tea lemon rest sleep fever nose throat ginger warm water salt night morning child doctor pill "
    "glass spoon winter flu virus steam breath chest pain head ear eye skin bone heart blood sugar fruit apple bread"
)
QUERIES = [
    "zinc against a cold",
    "honey and ginger tea at night",
    "which doctor for a child with fever",
    "warm water with salt for the throat",
    "bread apple fruit sugar",
    "virus",
]
CONDITIONS = [
    None,
    "year >= 2015",
    "lang = 'fr' and not tags = 'b'",
    "year between 2001 and 2004 or open = true",
    "tags in ('a', 'c') and year < 2010",
    "note like '%quoted%'",
    "score is null",
]


def document(number: int, version: int = 0) -> dict[str, object]:
    draw = random.Random(f"{number} {version}")
    words = draw.choices(WORDS.split(), k=draw.randint(8, 30))
    made: dict[str, object] = {"id": f"d{number}", "text": f"Note {number} of {version}. {' '.join(words)}."}
    made |= {"year": 2000 + number % 20, "lang": draw.choice(["en", "fr"]), "tags": draw.sample(["a", "b", "c"], 2)}
    if number % 2:
        made |= {"title": f"{words[0]} {words[1]}", "open": number % 4 == 1}
    if number % 3:
        made |= {"score": draw.random(), "note": draw.choice(["plain", 'it\'s "quoted"'])}
    return made


@pytest.fixture(scope="session")
def recipe(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    model = tiny.write_bi_encoder(tmp_path_factory.mktemp("tiny") / "model")
    return Recipe.parse(f'[encoder]\nmodel = "{model}"\nprecision = "fp32"\n[index]\nkind = "exact"\n')


@pytest.fixture(scope="session")
def here(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collection]:
    """The collection in a folder, after additions, updates and deletions."""
    with Collection(tmp_path_factory.mktemp("here") / "notes", recipe=recipe) as collection:
        fill(collection)
        yield collection


def fill(collection: Collection) -> None:
    assert collection.add(document(number) for number in range(COUNT)).added == COUNT
    changed = collection.add(document(number, 1) for number in range(0, COUNT, 10))
    assert (changed.added, changed.updated) == (0, COUNT // 10)
    gone = [f"d{number}" for number in range(5, COUNT, 10)]
    assert collection.delete([*gone, "nobody"]) == gone


@pytest.fixture(scope="session")
def few(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collection]:
    """A smaller one in a folder, to be copied."""
    with Collection(tmp_path_factory.mktemp("few") / "notes", recipe=recipe) as collection:
        collection.add(document(number) for number in range(700))
        collection.delete(["d5"])
        yield collection


@pytest.fixture(scope="session")
def there(address_of: Callable[[str], str], recipe: Recipe) -> Iterator[Collection]:
    place = address_of("elsewhere")
    engine = open_engine(place)
    engine.drop()
    engine.close()
    with Collection(place, recipe=recipe) as collection:
        fill(collection)
        yield collection
        collection.store.engine.drop()  # type: ignore[attr-defined]


def test_the_same_documents_are_there(here: Collection, there: Collection) -> None:
    assert len(there) == len(here) == COUNT - COUNT // 10
    ids = sorted(here.store.document_ids())
    assert sorted(there.store.document_ids()) == ids
    assert there.get(ids) == here.get(ids)
    assert there.get(["d5"]) == [None]
    assert "d5" not in there
    assert there.store.count_passages() == here.store.count_passages()


@pytest.mark.parametrize("where", CONDITIONS)
def test_vectors_find_the_same_documents(here: Collection, there: Collection, where: str | None) -> None:
    vectors = replace(here.recipe, retrieve=RetrieveSettings(vectors=100, words=0))
    shares = []
    for query in QUERIES:
        found = [[hit.id for hit in collection.search_by(vectors, query, 10, where=where)] for collection in (here, there)]
        shares.append(len(set(found[0]) & set(found[1])) / max(len(found[0]), 1))
        assert len(found[0]) == len(found[1])
    assert np.mean(shares) >= 0.99


@pytest.mark.parametrize("where", CONDITIONS)
def test_a_whole_search_finds_nearly_the_same(here: Collection, there: Collection, where: str | None) -> None:
    if not there.store.engine.words:  # type: ignore[attr-defined]
        pytest.skip("this engine searches no words, so that a hybrid search is another one there")
    shares = []
    for query in QUERIES:
        found = [[hit.id for hit in collection.search(query, 10, where=where)] for collection in (here, there)]
        shares.append(len(set(found[0]) & set(found[1])) / max(len(found[0]), 1))
    assert (
        np.mean(shares) >= 0.8
    )  # lengths are kept roughly in one place, exactly in the other, and weights follow from samples


def test_adding_the_same_again_changes_nothing(there: Collection) -> None:
    report = there.add([document(number) for number in range(1, 60, 10)])
    assert (report.added, report.updated, report.unchanged, report.encoded) == (0, 0, 6, 0)


def test_hits_say_what_they_say_in_a_folder(here: Collection, there: Collection) -> None:
    query = QUERIES[0]
    mine, theirs = here.search_by(here.recipe, query, 3), there.search_by(here.recipe, query, 3)
    by_id = {hit.id: hit for hit in mine}
    for hit in theirs:
        if hit.id in by_id:
            other = by_id[hit.id]
            assert (hit.text, hit.title, hit.fields, hit.start, hit.end) == (
                other.text,
                other.title,
                other.fields,
                other.start,
                other.end,
            )


def test_likeness_explanations_and_answers_work(there: Collection) -> None:
    assert len(there.similar("d1", 5)) == 5
    assert explain(there, QUERIES[0], "d1").id == "d1"
    assert there.answer(QUERIES[0]).sources


def test_status_and_check_say_how_it_is(there: Collection) -> None:
    told = str(there.status())
    assert f"{COUNT - COUNT // 10:,} documents" in told
    assert "bytes on disk" not in told
    engine = there.store.engine  # type: ignore[attr-defined]
    assert told.count(f"twinrank was run with {engine.title} {engine.proven}") == 1
    report = there.check()
    assert report.ok, report
    assert any("every row" in line for line in report.checked)


def test_an_unknown_field_is_refused(there: Collection) -> None:
    with pytest.raises(FilterError, match="no document has a field 'yeer'"):
        there.search("zinc", where="yeer > 3")


def test_who_opens_it_next_finds_its_recipe_and_its_documents(address: str, recipe: Recipe) -> None:
    with Collection(address, recipe=recipe) as first:
        first.add([document(1), document(2)])
    with Collection(address, create=False) as again:
        assert again.recipe == recipe
        assert len(again) == 2
        assert len(again.search("zinc")) == 2


def test_a_new_collection_needs_no_recipe(address: str) -> None:
    with Collection(address, model="none") as collection:
        collection.add(document(1))
        assert collection.recipe == Recipe().with_model("none")
        if collection.store.engine.words:  # type: ignore[attr-defined]
            assert len(collection.search("note")) == 1


def test_nothing_is_made_where_nothing_may_be_made(address: str) -> None:
    with pytest.raises(CollectionError, match="there is no collection at"):
        Collection(address, create=False)


def test_another_model_is_refused(address: str, recipe: Recipe, tiny: ModuleType, tmp_path: Path) -> None:
    other = tiny.write_bi_encoder(tmp_path / "other", seed=5)
    with Collection(address, recipe=recipe) as collection:
        collection.add(document(1))
    with Collection(address, model=str(other)) as wrong, pytest.raises(ModelMismatchError, match="were made by"):
        wrong.add(document(2))


def test_what_an_engine_cannot_do_is_refused_with_what_can(there: Collection, tiny: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(CollectionError, match="copy it to a folder"):
        there.rebuild(encode=True)
    with pytest.raises(CollectionError, match="copy it to a folder"):
        there.migrate(str(tmp_path))


def test_a_text_beyond_the_engines_limit_is_refused_by_name_and_size(address: str) -> None:
    with Collection(
        address, recipe=Recipe.parse('[encoder]\nmodel = "none"\n[passages]\nsize = 0\noverlap = 0\n')
    ) as collection:
        most = collection.store.engine.limits.payload  # type: ignore[attr-defined]
        if most > 5_000_000:
            pytest.skip("it keeps texts of any size")
        with pytest.raises(DocumentError, match=r"document 'long': its passage .* at most"):
            collection.add([{"id": "short", "text": "fine"}, {"id": "long", "text": "many words " * (most // 10)}])
        assert len(collection) == 0


def test_calibration_and_recipe_are_kept_there(address: str, recipe: Recipe) -> None:
    with Collection(address, recipe=recipe) as collection:
        collection.add([document(1)])
        collection.write_text("calibration.json", '{"kept": true}')
        collection.take_recipe(replace(recipe, retrieve=replace(recipe.retrieve, vectors=7)))
    with Collection(address) as again:
        assert again.recipe.retrieve.vectors == 7
        assert again.read_text("calibration.json") == '{"kept": true}'


def test_copies_there_and_back_are_the_same(few: Collection, address: str, tmp_path: Path) -> None:
    out = copy(few, address)
    assert (out.copied, out.there, out.others) == (len(few), 0, 0)
    with Collection(address) as made:
        back = copy(made, tmp_path / "back")
        assert back.copied == len(few)
        assert copy(made, tmp_path / "back").there == len(few)
    with Collection(tmp_path / "back") as again:
        ids = sorted(few.store.document_ids())
        assert again.get(ids) == few.get(ids)
        assert again.check().ok
        for query in QUERIES:
            found = again.search(query), few.search(query)  # of candidates that tie, each place has others by its keys
            assert len({hit.id for hit in found[0]} & {hit.id for hit in found[1]}) >= 9
            np.testing.assert_allclose(*([hit.score for hit in hits] for hits in found), atol=2e-3)


def test_an_interrupted_copy_goes_on_where_it_stopped(few: Collection, address: str) -> None:
    class Killed(BaseException):
        pass

    seen = []

    def die(done: int) -> None:
        seen.append(done)
        if len(seen) == 3:
            raise Killed

    with pytest.raises(Killed):
        copy(few, address, progress=die)
    report = copy(few, address)
    assert report.there == sum(seen)
    assert report.copied == len(few) - sum(seen)


class Failing:
    """An engine that goes away after so many rows, in the middle of an upsert or between that and the deletion."""

    def __init__(self, engine: Engine, rows: int, deletes: int = 10**9) -> None:
        self._engine, self.rows, self.deletes = engine, rows, deletes

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)

    def upsert(self, rows: list[object]) -> None:
        if len(rows) > self.rows:
            self._engine.upsert(rows[: self.rows])  # type: ignore[arg-type]
            raise EngineError("it went away")
        self.rows -= len(rows)
        self._engine.upsert(rows)  # type: ignore[arg-type]

    def delete(self, keys: np.ndarray) -> None:
        if self.deletes <= 0:
            raise EngineError("it went away")
        self.deletes -= 1
        self._engine.delete(keys)


@pytest.mark.parametrize(("rows", "deletes"), [(0, 9), (150, 9), (300, 9), (10**9, 0)])
def test_an_engine_that_goes_away_while_documents_are_updated_loses_and_doubles_none(
    address: str, recipe: Recipe, rows: int, deletes: int
) -> None:
    old, new = [document(number) for number in range(400)], [document(number, 1) for number in range(400)]
    with Collection(address, recipe=recipe) as collection:
        collection.add(old)
        engine = collection.store.engine  # type: ignore[attr-defined]
        collection.store.engine = Failing(engine, rows, deletes)  # type: ignore[attr-defined]
        with pytest.raises(EngineError, match="went away"):
            collection.add(new)
        collection.store.engine = engine  # type: ignore[attr-defined]
        for known in collection.get([f"d{number}" for number in range(400)]):
            assert known is not None  # none is lost, and none is half one and half the other
            assert known.text in (old[int(known.id[1:])]["text"], new[int(known.id[1:])]["text"])
        collection.add(new)
        assert [known.text for known in collection.get([f"d{number}" for number in range(400)])] == [one["text"] for one in new]  # type: ignore[union-attr]
        assert collection.check().ok
        assert collection.store.count_passages() == sum(1 for rows in engine.iterate() for _ in rows)
        assert len(collection) == 400


def test_token_vectors_rerank_and_are_not_searched(address: str, recipe: Recipe) -> None:
    late = Recipe.parse(recipe.to_toml() + '[tokens]\n[[rerank]]\nkind = "maxsim"\ncandidates = 20\n')
    with Collection(address, recipe=late) as collection:
        collection.add([document(number) for number in range(50)])
        assert "maxsim" in [stage for stage, _ in collection.search("zinc").stages]
        assert collection.check().ok
    with pytest.raises(RecipeError, match=r"\[retrieve\] tokens"):
        Collection(address, recipe=Recipe.parse(late.to_toml().replace("tokens = 0", "tokens = 10", 1)))
