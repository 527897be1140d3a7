"""Documents of several texts: title, fields and translations give passages of their own, searched together with the text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinrank import Collection, Recipe
from twinrank.errors import DocumentError, RecipeError
from twinrank.loaded import Loaded
from twinrank.parts import part_of, parts_of
from twinrank.recipe import EncoderSettings, GroupSettings, WordSettings
from twinrank.text import Chunking
from twinrank.types import Document

CARDS = [
    {
        "id": "zinc",
        "title": "Zinc",
        "text": "A metal of the twelfth group.",
        "summary": "Lozenges against colds.",
        "asks": ["does it shorten a cold?", "which foods hold it?"],
    },
    {"id": "honey", "title": "Honey", "text": "Made by bees.", "asks": "what eases a cough?"},
    {"id": "plain", "text": "Neither title nor fields."},
]
WORDS = Recipe(encoder=EncoderSettings("none"), passages=Chunking(also=("title", "summary", "asks")))


def test_a_document_is_found_by_any_of_its_texts_and_says_which(tmp_path: Path) -> None:
    with Collection(tmp_path / "cards", recipe=WORDS) as cards:
        cards.add(CARDS)
        assert cards.store.count_passages() == 3 + 2 + 1 + 3
        found = {query: cards.search(query)[0] for query in ("lozenges", "which foods", "cough", "bees", "zinc")}
        assert {query: (hit.id, hit.part) for query, hit in found.items()} == {
            "lozenges": ("zinc", "summary"),
            "which foods": ("zinc", "asks[1]"),
            "cough": ("honey", "asks"),
            "bees": ("honey", ""),
            "zinc": ("zinc", "title"),
        }
        assert found["which foods"].text == "which foods hold it?"
        assert cards.check().ok


def test_a_changed_field_changes_its_passages_alone(tmp_path: Path, tiny_model: Path) -> None:
    with Collection(tmp_path / "cards", recipe=WORDS.with_model(str(tiny_model))) as cards:
        cards.add(CARDS)
        assert cards.add({**CARDS[0], "asks": ["does it shorten a cold?", "is it a metal?"]}).encoded == 1
        assert cards.add({**CARDS[0], "asks": ["is it a metal?"]}).encoded == 0
        assert not [hit for hit in cards.search("foods", k=9, where="id = 'zinc'") if "foods" in hit.text]
        assert cards.check().ok


def test_texts_beside_the_document_are_asked_for_by_the_recipe_which_is_held_to(tmp_path: Path) -> None:
    with Collection(tmp_path / "cards", recipe=WORDS) as cards:
        cards.add(CARDS)
    recipe = replace(WORDS, passages=Chunking())
    with Collection(tmp_path / "cards", recipe=recipe) as cards:
        with pytest.raises(RecipeError, match="asks too, the recipe asks for 256 words with 32 repeated;"):
            cards.add(CARDS)
        cards.rebuild(encode=True)
        assert cards.store.count_passages() == len(CARDS)


def test_the_recipe_names_texts_in_a_list() -> None:
    recipe = Recipe.parse("[passages]\nalso = ['title', 'summary']")
    assert recipe.passages.also == ("title", "summary")
    assert Recipe.parse(recipe.to_toml()) == recipe
    with pytest.raises(RecipeError, match="expected a list of names"):
        Recipe.parse("[passages]\nalso = 'title'")


@given(
    st.dictionaries(st.sampled_from("abc"), st.one_of(st.text(), st.integers(), st.lists(st.one_of(st.text(), st.booleans())))),
    st.text(),
)
def test_every_part_is_found_again_by_its_name(fields: dict[str, object], title: str) -> None:
    document = Document("a", "text", title, fields)  # type: ignore[arg-type]
    for part, text in parts_of(document, ["title", "a", "b", "c", "missing"]):
        assert part_of(document, part) == text


def test_a_text_that_is_named_twice_gives_its_passages_once(tmp_path: Path) -> None:
    with Collection(tmp_path / "cards", recipe=replace(WORDS, passages=Chunking(also=("title", "title")))) as cards:
        cards.add(CARDS)
        assert cards.store.count_passages() == len(CARDS) + 2


class Shouting:
    """Stands in for a translator; dies when it has been asked so many times."""

    fingerprint = "shouting"
    lives = 1_000

    def translate(self, texts: list[str]) -> list[str]:
        Shouting.lives -= bool(texts)
        if Shouting.lives < 0:
            raise KeyboardInterrupt
        return [text.upper() for text in texts]


@pytest.fixture
def shouting(monkeypatch: pytest.MonkeyPatch) -> type[Shouting]:
    monkeypatch.setattr(Loaded, "_open_translator", lambda *_: Shouting())
    monkeypatch.setattr(Shouting, "lives", 1_000)
    return Shouting


@pytest.mark.parametrize("before", ["", "[translate]\nmodel = 'x'\nfield = 'old'"])
def test_translating_a_collection_goes_on_where_it_was_interrupted(
    tmp_path: Path, shouting: type[Shouting], before: str
) -> None:
    notes = [{"id": str(number), "text": f"note {number}", "year": number} for number in range(600)]
    with Collection(tmp_path / "notes", recipe=Recipe.parse(f"[encoder]\nmodel = 'none'\n{before}")) as collection:
        collection.add(notes)
    recipe = Recipe.parse("[encoder]\nmodel = 'none'\n[translate]\nmodel = 'x'\nfield = 'loud'")
    with Collection(tmp_path / "notes", recipe=recipe) as collection:
        shouting.lives = 1  # of three batches
        with pytest.raises(KeyboardInterrupt):
            collection.rebuild(encode=True)
        shouting.lives = 2
        report = collection.rebuild(encode=True)
        assert report is not None
        assert (report.unchanged, report.updated) == (256, 344)
        assert collection.get(["3"])[0] == Document("3", "note 3", fields={"year": 3, "loud": "NOTE 3"})
        assert collection.add(notes).unchanged == 600


def test_a_field_of_the_users_own_is_never_taken_for_a_translation(tmp_path: Path, shouting: type[Shouting]) -> None:
    with Collection(tmp_path / "notes", model="none") as collection:
        collection.add({"id": "a", "text": "t", "loud": "mine"})
    recipe = Recipe.parse("[encoder]\nmodel = 'none'\n[translate]\nmodel = 'x'\nfield = 'loud'")
    with Collection(tmp_path / "notes", recipe=recipe) as collection:
        for _ in range(2):
            with pytest.raises(DocumentError, match="'loud' of their own"):
                collection.rebuild(encode=True)
        assert collection.get(["a"])[0] == Document("a", "t", fields={"loud": "mine"})


def test_documents_are_searched_in_their_translation_too(tmp_path: Path, opus: Path) -> None:
    pytest.importorskip("ctranslate2", reason="ctranslate2 is not installed: pip install 'twinrank[translate]'")
    recipe = Recipe.parse(f"[encoder]\nmodel = 'none'\n[words]\nlanguage = 'french'\n[translate]\nmodel = '{opus}'")
    with Collection(tmp_path / "notes", recipe=recipe) as notes:
        sun = {"id": "sun", "title": "Weather", "text": "The weather is beautiful outside."}
        notes.add([sun, {"id": "cat", "text": "A cat."}])
        hit = notes.search("le temps est beau")[0]
        assert (hit.id, hit.part) == ("sun", "translation")
        assert "temps" in hit.text
        assert notes.search("weather")[0].part == ""
        assert notes.add(sun).unchanged == 1
        notes.rebuild(encode=True)
        assert notes.search("le temps est beau")[0].id == "sun"
        assert notes.add(notes.get(["sun"])[0]).unchanged == 1  # as it was got, its translation among its fields
        with pytest.raises(DocumentError, match="'translation' of its own"):
            notes.add({"id": "x", "text": "t", "translation": "mine"})


def grouped(path: Path, by: str) -> list[tuple[str, str]]:
    with Collection(path, recipe=replace(WORDS, group=GroupSettings(by))) as cards:  # type: ignore[arg-type]
        if not len(cards):
            cards.add(CARDS)
        return [(hit.id, hit.part) for hit in cards.search("does a cold or cough need zinc", k=10)]


def test_passages_are_grouped_as_the_recipe_says(tmp_path: Path) -> None:
    best, each = grouped(tmp_path / "cards", "best"), grouped(tmp_path / "cards", "none")
    assert len(best) == len({identifier for identifier, _ in best}) == 2
    assert set(best) < set(each)
    assert len([part for identifier, part in each if identifier == "zinc"]) > 1
    assert grouped(tmp_path / "cards", "sum")[0][0] == "zinc"


def test_the_first_documents_do_not_depend_on_how_many_are_asked_for(tmp_path: Path) -> None:
    recipe = Recipe.parse(
        "[encoder]\nmodel = 'none'\n[passages]\nsize = 16\noverlap = 0\n[retrieve]\nwords = 12\n[group]\nby = 'sum'"
    )
    words = ["zinc", "cold", "cough", "tea", "honey", "sleep", "lemon"]
    with Collection(tmp_path / "notes", recipe=recipe) as notes:
        for number in range(60):  # of one to four passages, all with a word of the query
            sentences = [
                " ".join(words[(number * step + place) % 7] for place in range(9)) + "." for step in range(1, 2 + number % 4)
            ]
            notes.add({"id": str(number), "text": " ".join(sentences)})
        few = [(hit.id, hit.score) for hit in notes.search("zinc against a cold", k=5)]
        all_of_them = [(hit.id, hit.score) for hit in notes.search("zinc against a cold", k=60)]
    assert all_of_them[:5] == few
    assert len({identity for identity, _ in all_of_them}) == len(all_of_them) == 60
    assert [score for _, score in all_of_them] == sorted((score for _, score in all_of_them), reverse=True)


def test_numbers_among_the_texts_are_found_by_their_digits(tmp_path: Path) -> None:
    with Collection(tmp_path / "cards", recipe=replace(WORDS, passages=Chunking(also=("year",)))) as cards:
        cards.add([{"id": "a", "text": "text", "year": 2020, "open": True}, {"id": "b", "text": "other", "year": 1999}])
        assert [(hit.id, hit.part) for hit in cards.search("2020")] == [("a", "year")]


def test_searching_in_another_language_leaves_the_collections_index_alone(tmp_path: Path) -> None:
    with Collection(tmp_path / "cards", recipe=WORDS) as cards:
        cards.add(CARDS)
    with Collection(tmp_path / "cards", recipe=replace(WORDS, words=WordSettings("none"))) as other:
        assert other.search("lozenges")
        assert not other.search("lozenge", where="id = 'zinc'")  # no stems
    with Collection(tmp_path / "cards") as cards:
        assert cards.search("lozenge")[0].id == "zinc"
        assert not cards.notices
