"""The page's files and what they ask for, without a browser: headers, keys, marks by code points, architectures."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from twinrank_notes import NOTES, Making

from twinrank import Collection, Recipe
from twinrank.errors import FilterError
from twinrank.recipe import RerankSettings, RetrieveSettings, TokenSettings
from twinrank.tune.kept import keep

pytest.importorskip("fastapi")
from fastapi.testclient import TestClient

from twinrank.serve.app import create_app
from twinrank.serve.architectures import OWN, SideBySide, architectures
from twinrank.serve.keys import Keys
from twinrank.serve.page import UI, files
from twinrank.serve.settings import Settings

KEY = "a-key-of-a-reader"
SCRIPTS = sorted(UI.glob("*.js"))
Opening = Callable[..., TestClient]


@pytest.fixture
def opened() -> Iterator[Opening]:
    clients = []

    def client(collection: Collection, **settings: Any) -> TestClient:
        clients.append(TestClient(create_app(collection, Settings(**settings)), base_url="http://127.0.0.1"))
        return clients[-1]

    yield client
    for one in clients:
        one.close()


@pytest.fixture
def client(notes: Collection, opened: Opening) -> TestClient:
    return opened(notes)


# -- its files -----------------------------------------------------------------------------------------------------------


def test_the_page_runs_nothing_but_its_own_files(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert {policy[name] for name in ("script-src", "style-src", "connect-src", "img-src")} == {"'self'"}
    assert policy["require-trusted-types-for"] == "'script'"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_nothing_stands_inline_in_the_page_and_nothing_comes_from_elsewhere() -> None:
    page = (UI / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<script[^>]*>\s*[^<\s]", page) == []
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", page)
    for path in UI.iterdir():
        addresses = re.findall(r"(?:https?:)?//[\w.]+\.\w+[^\s\"']*", path.read_text(encoding="utf-8"))
        assert set(addresses) <= {"http://www.w3.org/2000/svg"}, path.name


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_no_script_makes_markup_of_texts(script: Path) -> None:
    code = script.read_text(encoding="utf-8")
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser|\beval\b|new Function"
    )
    assert not re.search(forbidden, code)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_says_what_it_is_and_imports_what_is_there(script: Path) -> None:
    code = script.read_text(encoding="utf-8")
    assert re.match(r"// [A-Z].*\n", code)
    assert max(map(len, code.splitlines())) <= 128
    for imported in re.findall(r'from "\./([\w.]+)"', code):
        assert (UI / imported).exists(), imported


def test_every_file_of_the_page_is_served_as_what_it_is(client: TestClient) -> None:
    for name, file in files().items():
        answer = client.get(f"/ui/{name}")
        assert (answer.status_code, answer.content) == (200, file.content)
        assert answer.headers["content-type"] == file.kind
        assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert {Path(name).suffix for name in files()} == {".html", ".css", ".js", ".svg"}


def test_a_file_that_was_not_changed_is_not_sent_again(client: TestClient) -> None:
    tag = client.get("/ui/app.js").headers["etag"]
    for given in (tag, f'"other", W/{tag}', "*"):
        again = client.get("/ui/app.js", headers={"If-None-Match": given})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert client.get("/ui/app.js", headers={"If-None-Match": '"other"'}).status_code == 200
    assert client.get("/ui/style.css").headers["etag"] != tag


@pytest.mark.parametrize("name", ["nothing.js", "..%2f__init__.py", "%2e%2e/__init__.py", "app.js%00", "App.js", ".", ""])
def test_what_is_no_file_of_the_page_is_not_served(client: TestClient, name: str) -> None:
    assert client.get(f"/ui/{name}").status_code == 404


def test_anybody_may_fetch_the_page_and_nobody_what_the_collection_holds(notes: Collection, opened: Opening) -> None:
    client = opened(notes, keys=Keys.of(read=[KEY]))
    assert client.get("/").status_code == client.get("/ui/app.js").status_code == 200
    asked = [("GET", "/fields", None), ("GET", "/tuning", None)]
    asked += [("POST", "/marks", {"query": "a", "texts": []}), ("POST", "/compare", {"query": "a"})]  # type: ignore[list-item]
    for method, path, body in asked:
        assert client.request(method, path, json=body).status_code == 401, path
        known = client.request(method, path, json=body, headers={"Authorization": f"Bearer {KEY}"})
        assert known.status_code == (404 if path == "/tuning" else 200), path


# -- what it asks for ----------------------------------------------------------------------------------------------------


def test_fields_come_with_what_one_may_choose(client: TestClient, notes: Collection) -> None:
    notes.add({"id": "long", "text": "x", "about": "a" * 500, "open": True})
    told = client.get("/fields").json()
    assert told["documents"] == 5
    (year,) = told["fields"]["year"]
    assert (year["kind"], year["low"], year["high"], year["documents"]) == ("number", 2012, 2021, 3)
    assert told["fields"]["lang"][0]["values"] == [["en", 2], ["fr", 1]]
    assert told["fields"]["open"][0]["values"] == [[1, 1]]
    (about,) = told["fields"]["about"]
    assert (about["values"], len(about["low"])) == ([], 80)  # too long to choose from
    notes.delete("long")
    assert sorted(client.get("/fields").json()["fields"]) == ["lang", "year"]


def test_marks_are_counted_in_code_points(client: TestClient) -> None:
    text = "😀 Zinc and 東京: zinc " + "and so on " * 100
    told = client.post("/marks", json={"query": "zinc", "texts": [text, ""]}).json()["texts"]
    assert [text[start:end] for start, end in told[0]["marks"]] == ["Zinc", "zinc"]
    start, end = told[0]["snippet"]
    assert start == 0
    assert end < 400
    assert told[1] == {"marks": [], "snippet": [0, 0]}


def test_a_collection_that_was_not_tuned_says_how_to(client: TestClient) -> None:
    answer = client.get("/tuning")
    assert answer.status_code == 404
    assert "twinrank tune" in answer.json()["error"]["message"]


def test_the_last_tuning_tells_which_recipe_is_in_use(client: TestClient, notes: Collection) -> None:
    other = replace(notes.recipe, retrieve=RetrieveSettings(words=7))
    keep({"finalists": [{"recipe": other.to_toml()}, {"recipe": notes.recipe.to_toml()}]}, notes)
    assert [row["current"] for row in client.get("/tuning").json()["finalists"]] == [False, True]


# -- architectures -------------------------------------------------------------------------------------------------------


def names(collection: Collection) -> list[str]:
    return list(architectures(collection).recipes)


def test_only_what_the_collection_holds_is_compared(
    make: Making, tiny_model: Path, tiny_cross_encoder: Path, notes: Collection
) -> None:
    assert names(notes) == ["words"]
    assert [why.split(":")[0] for why in architectures(notes).left_out] == ["vectors", "late interaction", "cross-encoder"]
    plain = make("plain", model=str(tiny_model))
    plain.add(NOTES)
    assert names(plain) == ["words", "vectors", "hybrid"]
    assert architectures(plain).own == "hybrid"
    base = Recipe().with_model(str(tiny_model))
    stages = (RerankSettings(kind="maxsim"), RerankSettings(model=str(tiny_cross_encoder)))
    full = make("full", model=None, recipe=replace(base, tokens=TokenSettings(), rerank=stages))
    full.add(NOTES)
    assert names(full) == [
        "words", "vectors", "hybrid", "hybrid + late interaction", "hybrid + cross-encoder",
        "hybrid + late interaction + cross-encoder",
    ]  # fmt: skip
    assert architectures(full).own == "hybrid + late interaction + cross-encoder"
    searched = make("searched", model=None, recipe=replace(base, tokens=TokenSettings(), retrieve=RetrieveSettings(tokens=50)))
    searched.add(NOTES)
    assert names(searched) == ["words", "vectors", "hybrid", "late interaction", "hybrid + late interaction", OWN]


def test_each_architecture_gives_what_a_search_by_its_recipe_gives(make: Making, tiny_model: Path, opened: Opening) -> None:
    collection = make("encoded", model=str(tiny_model))
    collection.add(NOTES)
    told = opened(collection).post("/compare", json={"query": "a cold at night", "k": 3, "where": "year > 2000"}).json()
    assert [row["name"] for row in told["architectures"]] == ["words", "vectors", "hybrid"]
    assert [row["own"] for row in told["architectures"]] == [False, False, True]
    for row in told["architectures"]:
        with Collection(collection.path, recipe=Recipe.parse(row["recipe"])) as alone:
            expected = alone.search("a cold at night", 3, where="year > 2000")
        assert [(hit["id"], hit["rank"]) for hit in row["hits"]] == [(hit.id, hit.rank) for hit in expected]
        assert row["milliseconds"] >= sum(stage["milliseconds"] for stage in row["stages"]) > 0
        assert row["error"] is None


def test_an_architecture_that_fails_stops_none_of_the_others(
    make: Making, tiny_model: Path, tmp_path: Path, opened: Opening
) -> None:
    collection = make("encoded", model=str(tiny_model))
    collection.add(NOTES)
    gone = RerankSettings(model=str(tmp_path / "gone"))
    with Collection(collection.path, recipe=replace(collection.recipe, rerank=(gone,))) as broken:
        rows = {row["name"]: row for row in SideBySide().compare(broken, "a cold")["architectures"]}
    assert "gone" in rows["hybrid + cross-encoder"]["error"]
    assert rows["hybrid + cross-encoder"]["hits"] == []
    assert len(rows["hybrid"]["hits"]) == 4


def test_a_condition_that_does_not_parse_is_told_as_in_a_search(client: TestClient, notes: Collection) -> None:
    with pytest.raises(FilterError) as refused:
        notes.search("cold", where="year >")
    answer = client.post("/compare", json={"query": "cold", "where": "year >"})
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, str(refused.value))
    assert client.post("/compare", json={"query": ""}).status_code == 422
