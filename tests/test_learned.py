"""What a collection learns about stopping: kept with what it belongs to, used by searches, refused for anything else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from twinrank import Collection
from twinrank.cli import twinrank
from twinrank.errors import InputError, QueryError, RecipeError
from twinrank.learned import made_queries
from twinrank.recipe import BUILT_IN, Recipe, RerankSettings

WORDS = (
    "zinc",
    "honey",
    "sleep",
    "cough",
    "fever",
    "cold",
    "tea",
    "lemon",
    "rest",
    "salt",
    "broth",
    "ginger",
    "garlic",
    "steam",
)
QUERIES = [f"{one} {other}" for number, one in enumerate(WORDS) for other in WORDS[number + 1 :]]


def documents(count: int = 80) -> Iterator[dict[str, str]]:
    for number in range(count):
        chosen = [WORDS[(number * step + step) % len(WORDS)] for step in (1, 2, 3, 5, 7)]
        yield {
            "id": f"d{number:03}",
            "title": f"About {chosen[0]} {number}",
            "text": f"{' and '.join(chosen)} help on day {number}.",
        }


def recipe(model: Path, **settings: object) -> Recipe:
    stage = RerankSettings(model=str(model), candidates=40, **settings)  # type: ignore[arg-type]
    words = BUILT_IN["words"]
    return replace(words, encoder=replace(words.encoder, model="none"), rerank=(stage,))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_cross_encoder: Path) -> Path:
    """A collection that has learned from eighty queries."""
    folder = tmp_path_factory.mktemp("learned") / "c"
    with Collection(folder, recipe=recipe(tiny_cross_encoder, risk=0.1)) as collection:
        collection.add(list(documents()))
        (learned,) = collection.learn_stopping(QUERIES[:80])
        assert (learned.queries, learned.made) == (80, False)
    return folder


def test_what_was_learned_is_there_when_the_collection_is_opened_again(home: Path, tiny_cross_encoder: Path) -> None:
    with Collection(home) as collection, Collection(home, recipe=recipe(tiny_cross_encoder)) as whole:
        for query in QUERIES[80:90]:
            found, full = collection.search(query, 3), whole.search(query, 3)
            (certificate,) = found.certificates
            assert certificate.reason in ("settled", "all")
            assert certificate.note == ""
            assert full.certificates[0].pairs == full.certificates[0].of
            if certificate.reason == "all":
                assert [hit.id for hit in found] == [hit.id for hit in full]


def test_a_risk_without_learning_reranks_fully_and_tells_the_command(tmp_path: Path, tiny_cross_encoder: Path) -> None:
    with Collection(tmp_path / "c", recipe=recipe(tiny_cross_encoder, risk=0.1)) as collection:
        collection.add(list(documents()))
        found = collection.search("zinc honey")
    assert found.certificates[0].pairs == found.certificates[0].of
    assert "twinrank learn" in found.notes[0]


@pytest.mark.parametrize(("changed", "told"), [("windows", "for the reranker"), ("candidates", "for another first stage")])
def test_another_reranker_or_first_stage_is_refused_by_name(
    home: Path, tiny_cross_encoder: Path, changed: str, told: str
) -> None:
    known = recipe(tiny_cross_encoder, risk=0.1)
    stage = replace(known.rerank[0], windows=True) if changed == "windows" else replace(known.rerank[0], candidates=30)
    other = replace(known, rerank=(stage,))
    with Collection(home, recipe=other) as collection:
        found = collection.search("zinc honey")
    assert found.certificates[0].pairs == found.certificates[0].of
    assert told in found.certificates[0].note


def test_a_collection_that_has_changed_much_has_to_learn_again(tmp_path: Path, tiny_cross_encoder: Path) -> None:
    with Collection(tmp_path / "c", recipe=recipe(tiny_cross_encoder, risk=0.1)) as collection:
        collection.add(list(documents()))
        collection.learn_stopping(QUERIES[:80])
        collection.add([{"id": f"new{number}", "text": f"new {number}"} for number in range(40)])
        assert "passages changed since it was learned" in collection.search("zinc honey").certificates[0].note


def test_queries_are_made_of_titles_and_sentences_and_are_the_same_each_time(home: Path) -> None:
    with Collection(home) as collection:
        made = made_queries(collection.store, 30)
        assert made == made_queries(collection.store, 30)
        assert len(made) == len(set(made)) == 30
        titles = [query for query in made if query.startswith("About")]
        assert titles
        assert len(titles) < len(made)


def test_a_recipe_without_a_cross_encoder_has_nothing_to_learn(tmp_path: Path) -> None:
    with (
        Collection(tmp_path / "c", recipe="words", model="none") as collection,
        pytest.raises(RecipeError, match="nothing to learn"),
    ):
        collection.learn_stopping(["zinc"])


def test_too_few_queries_are_refused(home: Path) -> None:
    with Collection(home) as collection, pytest.raises(InputError, match="at least 40 queries"):
        collection.learn_stopping(QUERIES[:10])


def test_an_empty_query_to_learn_from_is_refused(home: Path) -> None:
    with Collection(home) as collection, pytest.raises(QueryError, match="empty"):
        collection.learn_stopping(["zinc", "  "])


def test_a_damaged_rule_says_how_to_make_it_anew(tmp_path: Path, tiny_cross_encoder: Path) -> None:
    with Collection(tmp_path / "c", recipe=recipe(tiny_cross_encoder, risk=0.1)) as collection:
        collection.add(list(documents()))
        collection.store.set_meta("stopping 0", '{"version": 1, "rule": {}}')
        with pytest.raises(InputError, match="twinrank learn"):
            collection.search("zinc")


def test_a_deadline_of_zero_gives_the_first_stages_order_and_says_so(home: Path, tiny_cross_encoder: Path) -> None:
    plain = replace(recipe(tiny_cross_encoder), rerank=())
    with Collection(home) as collection, Collection(home, recipe=plain) as unranked:
        found = collection.search("zinc honey", 10, deadline=0)
        assert [hit.id for hit in found] == [hit.id for hit in unranked.search("zinc honey", 10)]
    (certificate,) = found.certificates
    assert (certificate.pairs, certificate.reason) == (0, "deadline")
    assert "0 of 40 pairs scored" in found.notes[0]


@pytest.mark.parametrize("deadline", [-1, float("nan"), float("inf")])
def test_a_deadline_that_is_no_time_is_refused(home: Path, deadline: float) -> None:
    with Collection(home) as collection, pytest.raises(QueryError, match="deadline"):
        collection.search("zinc", deadline=deadline)


def test_an_equal_query_costs_no_pair_again(home: Path) -> None:
    with Collection(home) as collection:
        first = collection.search("zinc honey", 5)
        scores = collection._loaded.pair_scores
        before = scores.hits
        again = collection.search("zinc honey", 5)
        assert scores.hits - before == again.certificates[0].pairs
        assert [(hit.id, hit.score) for hit in again] == [(hit.id, hit.score) for hit in first]


def test_a_token_budget_bounds_what_a_query_costs(home: Path, tiny_cross_encoder: Path) -> None:
    with Collection(home, recipe=recipe(tiny_cross_encoder, tokens=100)) as collection:
        (certificate,) = collection.search("zinc honey").certificates
        assert certificate.reason == "tokens"
        assert 0 < certificate.pairs < 40


@pytest.mark.parametrize(
    ("toml", "told"),
    [
        ('model = "m"\nrisk = 1.0', "risk"),
        ('model = "m"\nrisk = -0.1', "risk"),
        ('model = "m"\nrisk = nan', "risk"),
        ('model = "m"\nrisk = 0.1\nweight = 0.5', "leave one of the two"),
        ('model = "m"\ntop = 21', "top"),
        ('model = "m"\ntokens = -1', "tokens"),
        ('kind = "maxsim"\nrisk = 0.1', "maxsim"),
        ('model = "m"\nrisk = 0.1\n[group]\nby = "sum"', "leave one of the two"),
    ],
)
def test_a_recipe_that_promises_what_cannot_be_kept_is_refused(toml: str, told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        Recipe.parse(f"[[rerank]]\n{toml}")


def test_the_command_learns_and_search_tells_its_certificate(home: Path, tmp_path: Path) -> None:
    asked = tmp_path / "asked.txt"
    asked.write_text("\n".join(QUERIES[:75]) + "\n\n", encoding="utf-8")
    runner = CliRunner()
    learned = runner.invoke(twinrank, ["learn", str(asked), "-c", str(home), "--json"])
    assert learned.exit_code == 0, learned.output
    (told,) = json.loads(learned.stdout)
    assert (told["queries"], told["made"], told["calibrated on"]) == (75, False, 50)
    assert told["settles"]["0.01"] == []
    found = runner.invoke(twinrank, ["search", "zinc honey", "-c", str(home), "--deadline", "0", "--json"])
    (certificate,) = json.loads(found.stdout)["certificates"]
    assert (certificate["pairs"], certificate["reason"]) == (0, "deadline")
    shown = runner.invoke(twinrank, ["search", "zinc honey", "-c", str(home), "--explain"])
    assert "pairs scored" in shown.stdout
