"""The page in real Chromium: typed into, steered by keys, filtered, read by axe; hostile documents stay text."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from twinrank import Collection, Recipe
from twinrank.calibration import Platt
from twinrank.recipe import RerankSettings, RetrieveSettings, TokenSettings
from twinrank.search import filters
from twinrank.search.calibrate import Calibration
from twinrank.tune.kept import keep
from twinrank.types import And, Between, Comparison, Condition, Like, Membership

CHROMIUM = Path("/usr/bin/chromium")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
uvicorn = pytest.importorskip("uvicorn", reason="the server is not installed: pip install 'twinrank[serve]'")
if not CHROMIUM.exists():
    pytest.skip(f"Chromium is not at {CHROMIUM}: apt-get install chromium", allow_module_level=True)

# ruff: noqa: E402
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from twinrank.serve.app import create_app
from twinrank.serve.keys import Keys
from twinrank.serve.settings import Settings

pytestmark = pytest.mark.filterwarnings("ignore::twinrank.errors.TruncationWarning")

QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
KEY = "a-key-of-a-reader"
HOSTILE = '<img src=x onerror="hacked=1"><script>hacked=1</script>'
PIECES = ["it's `x`", 'a "b" <c>', "x and y = 'z'"]

LONG = f"Where do cold paths lead? {'And so on. ' * 200} To a cold end."

NOTES: list[dict[str, Any]] = [
    {"id": "zinc", "title": "Zinc", "text": "Zinc lozenges may shorten a common cold by a day.", "year": 2021, "lang": "en"},
    {"id": "honey", "title": "Honey", "text": "Honey eases a cough at night. 🍯 It is sweet.", "year": 2012, "lang": "en"},
    {"id": "miel", "title": "Miel", "text": "Le miel calme la toux.", "year": 2018, "lang": "fr", "open": True},
    {"id": "rest", "text": "Rest and water help against most things, a cold among them.", "open": False},
    {"id": "a/b?c#d", "title": "Paths", "text": LONG, "made": "2024-05-01"},
    {"id": "late", "title": "Dates", "text": "A cold date.", "made": "2024-05-03"},
    {"id": HOSTILE, "title": f"Evil {HOSTILE}", "text": f"A hostile text. {HOSTILE} javascript:hacked=1", "from": HOSTILE},
    *(
        {"id": f"n{i}", "title": f"Note {i}", "text": f"A note about colds, number {i}.", "in-a.field": piece, "like": i}
        for i, piece in enumerate(PIECES * 4)
    ),
]  # fmt: skip


ANSWER = {
    "question": "what shortens a cold?", "kind": "extractive", "text": "", "claims": [], "sources": [], "notes": [],
    "quotes": [{"text": "Zinc lozenges may shorten a common cold by a day.", "source": 1, "id": "zinc", "title": "Zinc"}],
}  # fmt: skip


@dataclass
class Site:
    address: str
    collection: Collection

    def at(self, **state: str) -> str:
        return f"{self.address}/?{'&'.join(f'{name}={quote(value)}' for name, value in state.items())}"


def serving(collection: Collection, settings: Settings) -> Iterator[Site]:
    """The server in a thread, on a port of its own."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    app = create_app(collection, settings)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    yield Site(f"http://127.0.0.1:{listening.getsockname()[1]}", collection)
    server.should_exit = True
    thread.join()
    listening.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_cross_encoder: Path) -> Iterator[Site]:
    """Documents under every architecture, calibrated and tuned."""
    stages = (RerankSettings(kind="maxsim", candidates=20), RerankSettings(model=str(tiny_cross_encoder), candidates=4))
    recipe = replace(Recipe().with_model(str(tiny_model)), tokens=TokenSettings(), rerank=stages)
    collection = Collection(tmp_path_factory.mktemp("site") / "notes.twinrank", recipe=recipe)
    collection.add(NOTES)
    feature = collection.features()[0].name
    calibrator = Platt(3.0, -2.0)
    collection.keep_calibration(Calibration(calibrator, (feature,), collection.identity(), 3, {}, {}))
    keep(tuned(recipe), collection)
    yield from serving(collection, Settings())


def tuned(recipe: Recipe) -> dict[str, Any]:
    """As tuning tells it: four pipelines of which the last is in use."""
    none = {"mean": 0.0, "low": -0.01, "high": 0.01}
    words = replace(recipe, retrieve=RetrieveSettings(vectors=0, words=100), rerank=())
    hybrid, slow = replace(recipe, rerank=()), replace(words, rerank=recipe.rerank)
    recipes = {"words": words, "hybrid": hybrid, "slow": slow, "all": recipe}
    rows = [
        {
            "pipeline": name, "nDCG@10": quality, "against_default": none, "milliseconds": {"p50": cost / 2, "p95": cost},
            "memory": 100.0, "on_front": name != "slow", "pick": name == "all", "default": name == "hybrid",
            "recipe": one.to_toml(),
        }
        for (name, one), cost, quality in zip(recipes.items(), (1.2, 6.0, 8.0, 40.0), (0.6, 0.7, 0.65, 0.75), strict=True)
    ]  # fmt: skip
    pick = {"recipe": recipe.to_toml(), "pipeline": "all", "reason": "better than the default", "expected": 0.74}
    return {
        "dataset": "notes", "split": "dev", "queries": 100, "documents": 20, "pipelines": 12, "clock": "wall", "pick": pick,
        "finalists": rows, "without": [{"stage": "maxsim", "loss": none, "speedup": 2.0, "recipe": words.to_toml()}],
    }  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as engine:
        opened = engine.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    """A page that complains of nothing, runs nothing of a document, and asks nobody but its server."""
    context = browser.new_context(viewport={"width": 1100, "height": 800})
    opened, complaints = context.new_page(), []
    opened.set_default_timeout(10_000)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("console", lambda told: complaints.append(told.text) if "Content Security Policy" in told.text else None)
    opened.on(
        "request", lambda request: None if request.url.startswith("http://127.0.0.1:") else complaints.append(request.url)
    )
    yield opened
    assert opened.evaluate("typeof hacked") == "undefined"
    assert complaints == []
    context.close()


def hits(page: Page) -> list[str]:
    return [str(name) for name in page.locator(".hit").evaluate_all("all => all.map(one => one.dataset.id)")]


def found(site: Site, query: str, where: str | None = None) -> list[str]:
    return [hit.id for hit in site.collection.search(query, where=where)]


# -- searching -----------------------------------------------------------------------------------------------------------


def test_hits_come_as_one_types_and_the_address_follows(page: Page, site: Site) -> None:
    page.goto(site.address)
    expect(page.locator("main h2")).to_have_text(f"Search {len(NOTES)} documents")
    page.keyboard.type("zinc against a cold")  # the box has the focus
    expect(page.locator(".hit").first).to_be_visible()
    expect(page.locator("[role=status]")).to_contain_text("10 hits, the first")
    assert hits(page) == found(site, "zinc against a cold")
    assert page.url == site.at(q="zinc against a cold").replace("%20", "+")
    zinc = page.locator('[data-id="zinc"]')
    assert zinc.locator("mark").all_text_contents() == ["Zinc", "cold"]


def test_probabilities_are_told_as_such_and_scores_as_scores(page: Page, site: Site) -> None:
    page.goto(site.at(q="a cold", k="20"))
    results = site.collection.search("a cold", k=20)
    sure = [f"{round(100 * hit.probability)} % likely relevant," for hit in results if hit.probability is not None]
    assert page.locator(".hit").first.locator(".chance").text_content() == sure[0]
    assert page.locator(".chance").all_text_contents() == sure
    assert len(sure) == 3  # the calibration speaks of so many
    scores = page.locator(".score").all_text_contents()
    assert scores == [f"score {hit.score:.3f}" for hit in results]
    assert "%" not in "".join(scores)


def test_a_stale_answer_never_replaces_a_later_one(page: Page, site: Site) -> None:
    held: list[Route] = []

    def hold(route: Route) -> None:
        if route.request.post_data_json["query"] == "zinc":
            held.append(route)
        else:
            route.continue_()

    page.route("**/search", hold)
    page.goto(site.address)
    page.keyboard.type("zinc")
    page.wait_for_timeout(250)
    assert len(held) == 1
    page.locator("#query").fill("honey at night")
    expect(page.locator(".hit")).to_have_count(10)
    held[0].fulfill(json={"hits": [], "notes": ["stale"], "verdict": None, "seconds": 0})
    page.wait_for_timeout(100)
    assert hits(page) == found(site, "honey at night")


def test_every_key_does_what_the_foot_of_the_page_says(page: Page, site: Site) -> None:
    page.goto(site.at(q="a cold"))
    expect(page.locator(".hit")).to_have_count(10)
    order = hits(page)
    focused = "document.activeElement.closest('.hit')?.dataset.id ?? document.activeElement.id"
    page.locator("main h2").click()
    page.keyboard.press("/")
    assert page.evaluate(focused) == "query"
    assert page.locator("#query").input_value() == "a cold"
    for expected in ("ArrowDown", order[0]), ("ArrowDown", order[1]), ("ArrowUp", order[0]), ("ArrowDown", order[1]):
        page.keyboard.press(expected[0])
        assert page.evaluate(focused) == expected[1]
    page.keyboard.press("Enter")
    expect(page.locator("#detail-title")).to_be_focused()
    expect(page.locator(".document")).to_be_visible()
    page.keyboard.press("Escape")
    assert page.evaluate(focused) == order[1]
    expect(page.locator("#detail")).to_be_hidden()
    page.keyboard.press("Escape")
    assert page.evaluate(focused) == "query"
    page.keyboard.press("Escape")
    assert page.locator("#query").input_value() == ""
    expect(page.locator("main h2")).to_have_text(f"Search {len(NOTES)} documents")


def test_the_focus_is_never_lost(page: Page, site: Site) -> None:
    page.set_viewport_size({"width": 1600, "height": 1000})
    page.goto(site.at(q="a cold", where="lang in ('en')"))
    expect(page.locator(".hit")).to_have_count(2)
    focused = "document.activeElement.id || document.activeElement.textContent"
    page.get_by_role("button", name="lang: en: take this filter away").press("Enter")
    expect(page.locator(".hit")).to_have_count(10)
    assert page.evaluate(focused) == "view"
    page.locator("#f-lang-1").press("Space")
    expect(page.locator(".hit")).to_have_count(1)
    assert page.evaluate(focused) == "f-lang-1"
    page.get_by_role("button", name="Clear all filters").press("Enter")
    expect(page.locator(".hit")).to_have_count(10)
    assert page.evaluate(focused) == "side"
    page.locator(".hit .why").first.press("Enter")
    expect(page.locator(".outcome")).to_be_visible()
    page.get_by_role("link", name="Document", exact=True).press("Enter")
    expect(page.locator(".document")).to_be_visible()
    assert page.evaluate(focused) == "Document"
    page.get_by_role("link", name="Compare").press("Enter")
    expect(page.locator(".architecture").first).to_be_visible()
    assert page.evaluate(focused) == "Compare"
    page.locator("#against").focus()
    page.keyboard.press("ArrowUp")
    expect(page.locator(".base h3")).not_to_contain_text("in use")
    assert page.evaluate(focused) == "against"


def test_going_back_comes_by_what_was_asked_for_and_not_by_every_letter(page: Page, site: Site) -> None:
    page.goto(site.at(q="zinc"))
    expect(page.locator(".hit")).to_have_count(10)
    page.locator("#query").fill("")
    page.locator("#query").press_sequentially("honey", delay=30)
    page.keyboard.press("Enter")
    page.wait_for_url("**/?q=honey")
    page.locator('[data-id="honey"] .open').click()
    expect(page.locator(".document")).to_contain_text("Honey eases a cough")
    page.go_back()
    expect(page.locator("#detail")).to_be_hidden()
    assert page.locator("#query").input_value() == "honey"


def test_what_the_searcher_should_know_is_told(page: Page, site: Site) -> None:
    page.goto(site.at(q="cold " * 300))
    expect(page.locator(".notice").first).to_contain_text("tokens at the query's end were not encoded")
    page.goto(site.at(q="cold", deadline="0.001"))
    expect(page.locator(".notice").first).to_contain_text("the deadline came")


def test_nothing_relevant_is_said_plainly(page: Page, site: Site) -> None:
    page.goto(site.at(q="a cold", p="0.999"))
    expect(page.locator(".nothing h3")).to_have_text("Nothing relevant found")
    expect(page.locator("[role=status]")).to_have_text("Nothing relevant found")
    assert hits(page) == []
    page.get_by_role("button", name="left out").click()
    expect(page.locator(".hit")).to_have_count(10)


def test_a_refusal_is_shown_as_the_server_says_it(page: Page, site: Site) -> None:
    page.goto(site.at(q="a cold", where="yeer > 3"))
    expect(page.get_by_role("alert")).to_contain_text("did you mean 'year'?")
    page.get_by_role("button", name="yeer > 3: take this filter away").click()
    expect(page.locator(".hit")).to_have_count(10)


def test_a_question_is_answered_with_quotes_that_lead_to_their_documents(page: Page, site: Site) -> None:
    page.goto(site.at(q="zinc"))
    expect(page.locator(".hit")).to_have_count(10)
    expect(page.locator("#answer-it")).to_have_count(0)
    page.goto(site.at(q="what shortens a cold?"))
    page.get_by_role("button", name="Answer from the documents").click()
    answer = page.get_by_role("region", name="Answer")
    expect(answer).to_be_visible()
    if answer.locator("blockquote").count() == 0:  # a random model may be sure of nothing
        expect(answer).to_contain_text("I do not know")
        page.route("**/answer", lambda route: route.fulfill(json=ANSWER))
        page.reload()
        page.get_by_role("button", name="Answer from the documents").click()
    texts = {str(note["text"]) for note in NOTES}
    for quote_ in answer.locator("blockquote").all_text_contents():
        assert any(quote_ in text for text in texts)
    title = answer.locator("a").first.text_content()
    answer.locator("a").first.click()
    expect(page.locator("#detail-title")).to_have_text(title or "")


# -- filters -------------------------------------------------------------------------------------------------------------


def test_filters_fit_the_fields_and_stand_in_the_address(page: Page, site: Site) -> None:
    page.set_viewport_size({"width": 1600, "height": 1000})
    page.goto(site.at(q="a cold"))
    page.locator("#f-lang-1").check()
    expect(page.locator(".hit")).to_have_count(1)
    assert hits(page) == ["miel"]
    page.locator("#f-lang-0").check()
    expect(page.locator(".hit")).to_have_count(3)
    page.get_by_role("button", name="Clear all filters").click()
    expect(page.locator(".hit")).to_have_count(10)
    page.locator("#f-like-from").fill("3")
    page.keyboard.press("Tab")
    expect(page.locator(".hit")).to_have_count(9)
    expect(page.locator("#f-like-to")).to_be_focused()
    page.keyboard.type("4")
    page.keyboard.press("Enter")
    expect(page.locator(".hit")).to_have_count(2)
    assert sorted(hits(page)) == ["n3", "n4"]
    assert "where=%60like%60+between+3+and+4" in page.url
    page.reload()
    expect(page.locator("#f-like-to")).to_have_value("4")
    page.get_by_role("button", name="like 3 to 4: take this filter away").click()
    expect(page.locator(".hit")).to_have_count(10)


@pytest.mark.parametrize("piece", PIECES)
def test_a_field_and_a_value_of_any_letters_are_quoted(page: Page, site: Site, piece: str) -> None:
    page.set_viewport_size({"width": 1600, "height": 1000})
    page.goto(site.at(q="a cold"))
    page.locator("#side").get_by_label(piece).check()
    expect(page.locator(".hit")).to_have_count(4)
    assert {int(name[1:]) % 3 for name in hits(page)} == {PIECES.index(piece)}


def test_days_are_chosen_as_days(page: Page, site: Site) -> None:
    page.set_viewport_size({"width": 1600, "height": 1000})
    page.goto(site.at(q="a cold", where="made between '2024-05-02' and '2024-05-09'"))
    expect(page.locator(".chip")).to_contain_text("made 2024-05-02 to 2024-05-09")
    assert hits(page) == ["late"]


def test_conditions_survive_the_way_there_and_back_and_mean_what_was_chosen(page: Page, site: Site) -> None:
    """Of many clauses at once, with names and texts made to break out of their quotes."""
    draw = random.Random(7)
    letters = ["'", '"', "`", "(", ")", " and ", " or ", "in", "a", "é", "東", "%", "_", "\\", " ", "1", ".", "=", "😀", "true"]

    def text() -> str:
        return "".join(draw.choices(letters, k=draw.randint(1, 6))) + "x"

    def clause() -> dict[str, Any]:
        kind, number = draw.choice(["range", "choice", "contains"]), draw.random() < 0.5
        value = (lambda: draw.choice([3, -2.5, 0, 1e21])) if number else text
        if kind == "range":
            low, high = draw.choice([(value(), value()), (value(), None), (None, value())])
            return {"field": text(), "kind": kind, "low": low, "high": high}
        if kind == "choice":
            return {"field": text(), "kind": kind, "values": [value(), *draw.choices([True, "x"], k=draw.randint(0, 2))]}
        return {"field": text(), "kind": kind, "text": text().replace("%", "")}

    asked = [[clause() for _ in range(draw.randint(1, 3))] for _ in range(150)]
    page.goto(site.address)
    code = """async (asked) => {
        const { write, parse } = await import("/ui/where.js");
        return asked.map((clauses) => [write(clauses), parse(write(clauses))]);
    }"""
    for clauses, (expression, read) in zip(asked, page.evaluate(code, asked), strict=True):
        assert read == clauses, expression
        meant = [meaning(one) for one in clauses]
        assert filters.parse(expression) == (meant[0] if len(meant) == 1 else And(tuple(meant))), expression


def meaning(clause: dict[str, Any]) -> Condition:
    field = clause["field"]
    if clause["kind"] == "choice":
        return Membership(field, tuple(clause["values"]))
    if clause["kind"] == "contains":
        return Like(field, f"%{clause['text']}%")
    low, high = clause["low"], clause["high"]
    if low is None:
        return Comparison(field, "<=", high)
    return Comparison(field, ">=", low) if high is None else Between(field, low, high)


OTHER = ["year > 3 or lang = 'en'", "(year != 3)", "not open = true", "year >=", "((", "'", 'title like "a_b"', "a like 'x%'"]


def test_a_condition_that_no_control_shows_stays_as_it_was_written(page: Page, site: Site) -> None:
    page.goto(site.address)
    code = """async (expressions) => {
        const { write, parse } = await import("/ui/where.js");
        return expressions.map((one) => [parse(one), parse(write(parse(one))), write(parse(write(parse(one))))]);
    }"""
    for expression, (once, again, written) in zip(OTHER, page.evaluate(code, OTHER), strict=True):
        assert [one["kind"] for one in once] == ["other"]
        assert again == once
        assert written.strip("()") == expression.strip("()")


def test_an_address_that_means_nothing_shows_the_page_all_the_same(page: Page, site: Site) -> None:
    page.goto(site.at(view="nope", q="a cold", k="9999", p="-1", risk="x", deadline="soon", tab="..", other="1"))
    expect(page.locator(".hit")).to_have_count(10)
    page.goto(site.at(q="a cold", doc="no such document"))
    expect(page.locator("#detail .error")).to_have_text("there is no document with this id")
    page.goto(site.at(q="a cold", doc="no such document", tab="why"))
    expect(page.locator("#detail .error")).to_have_text("there is no document with this id")


# -- documents -----------------------------------------------------------------------------------------------------------


def test_a_document_is_shown_whole_with_the_passage_marked(page: Page, site: Site) -> None:
    page.goto(site.at(q="to a cold end", doc="a/b?c#d"))
    document = page.locator(".document")
    expect(document.locator("mark").first).to_be_visible()
    stored = site.collection.get(["a/b?c#d"])[0]
    (hit,) = [hit for hit in site.collection.search("to a cold end") if hit.id == "a/b?c#d"]
    assert stored is not None
    said = "The passage that was found: "  # for who cannot see the line beside it
    assert document.text_content() == stored.text[: hit.start] + said + stored.text[hit.start :]
    assert page.locator(".the-passage").text_content() == said + hit.text
    expect(page.locator("#detail-title")).to_have_text("Paths")


def test_marks_behind_an_emoji_stand_where_the_words_are(page: Page, site: Site) -> None:
    page.goto(site.at(q="sweet honey", doc="honey"))
    expect(page.locator(".document mark").first).to_be_visible()
    assert page.locator(".document mark").all_text_contents() == ["Honey", "sweet"]


def test_texts_are_cut_by_code_points_as_the_server_counts_them(page: Page, site: Site) -> None:
    draw = random.Random(3)
    texts = ["".join(draw.choices("a é東😀🍯\u0301\n", k=draw.randint(0, 12))) for _ in range(200)]
    asked = [(text, *sorted(draw.choices(range(15), k=2))) for text in texts]
    page.goto(site.address)
    code = """async (asked) => {
        const { Points } = await import("/ui/text.js");
        return asked.map(([text, start, end]) => [new Points(text).slice(start, end), new Points(text).length]);
    }"""
    cut = page.evaluate(code, asked)
    assert cut == [[text[start:end], len(text)] for text, start, end in asked]


@pytest.mark.parametrize(
    ("state", "shown"),
    [
        ({}, ".hit"),
        ({"doc": HOSTILE}, ".document"),
        ({"doc": HOSTILE, "tab": "why"}, ".outcome"),
        ({"view": "compare"}, ".ranks"),
    ],
)
def test_markup_in_a_document_is_text_everywhere(page: Page, site: Site, state: dict[str, str], shown: str) -> None:
    """Nothing of it runs (the fixture looks), and all of it can be read."""
    page.goto(site.at(q="hostile text", **state))
    page.locator(shown).first.wait_for()
    assert page.locator("main img, main script").count() == 0
    assert HOSTILE in (page.locator("main").text_content() or "")
    page.wait_for_timeout(50)  # in which an image would fail to load


# -- the other views -----------------------------------------------------------------------------------------------------


def test_an_explanation_shows_what_each_architecture_saw(page: Page, site: Site) -> None:
    page.goto(site.at(q="zinc against a cold", doc="zinc", tab="why"))
    expect(page.locator(".outcome")).to_contain_text("rank")
    expect(page.locator(".wait")).to_have_count(0)  # first what takes no time, then what each word does
    titles = page.locator(".seen h3").all_text_contents()
    assert [title for title in titles if "likely" not in title] == [
        "Its way through the search", "Words", "Vectors", "Tokens", "Cross-encoder"
    ]  # fmt: skip
    stages = page.get_by_role("region", name="Stages of the search").locator("tbody th").all_text_contents()
    assert stages[:4] == ["vectors", "words", "fuse", "maxsim"]
    tokens = page.locator(".token")
    assert tokens.first.text_content() == "all"
    tokens.nth(1).click()
    expect(tokens.nth(1)).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".heat.best").first).to_be_visible()
    assert page.locator(".cell.best").count() == tokens.count() - 1  # one best match a token
    page.get_by_role("link", name="Document").click()
    expect(page.locator(".document")).to_be_visible()


def test_architectures_stand_side_by_side_with_times_and_moves(page: Page, site: Site) -> None:
    page.goto(site.at(q="a cold at night", view="compare"))
    expect(page.locator(".architecture")).to_have_count(6)
    names = [name.removesuffix("in use") for name in page.locator(".architecture h3").all_text_contents()]
    assert names[:3] == ["words", "vectors", "hybrid"]
    assert page.locator(".took strong").all_text_contents() != []
    assert all(told.endswith(" ms") for told in page.locator(".took strong").all_text_contents())
    page.locator("#against").select_option("words")
    words, vectors = page.locator(".ranks").nth(0), page.locator(".ranks").nth(1)
    places = {name: rank for rank, name in enumerate(words.locator("li").evaluate_all("all => all.map(one => one.dataset.id)"))}
    for rank, item in enumerate(vectors.locator("li").all()):
        there = places.get(item.get_attribute("data-id") or "")
        said = item.locator(".move .unseen").text_content()
        if there is None:
            assert said == "not in words"
        elif there == rank:
            assert said == "as in words"
        else:
            assert said == f"{abs(there - rank)} {'higher' if rank < there else 'lower'} than in words"


def test_the_collection_tells_what_it_holds(page: Page, site: Site) -> None:
    page.goto(site.at(view="collection"))
    expect(page.locator(".figures")).to_contain_text(f"documents{len(NOTES)}")
    assert page.get_by_role("region", name="Views").locator("tbody th").all_text_contents() == ["vectors", "tokens"]
    assert page.get_by_role("region", name="Indexes").locator("tbody th").all_text_contents()[:2] == ["words", "vectors"]


def test_the_plot_marks_the_recipe_in_use_and_the_table_says_the_same(page: Page, site: Site) -> None:
    page.goto(site.at(view="tuning"))
    expect(page.locator(".plot svg")).to_be_visible()
    assert page.locator(".plot .point text").all_text_contents() == ["1", "2", "3", "4"]
    assert page.locator(".plot .point.current text").all_text_contents() == ["4"]
    assert page.locator(".plot .point.on-front, .plot .point.current").count() == 3
    assert page.locator("tr.current th").text_content() == "allin use"
    table = page.get_by_role("region", name="Pipelines that were measured")
    assert table.locator("tbody th").all_text_contents() == ["words", "hybriddefault", "slow", "allin use"]
    left = {
        name: page.locator(".plot .point circle").nth(place).bounding_box()["x"]  # type: ignore[index]
        for name, place in (("words", 0), ("hybrid", 1), ("slow", 2))
    }
    assert left["words"] < left["hybrid"] < left["slow"]


# -- who may ask ---------------------------------------------------------------------------------------------------------


def test_a_key_is_asked_for_and_kept_for_the_tab_alone(browser: Browser, tmp_path: Path) -> None:
    collection = Collection(tmp_path / "locked.twinrank", model="none")
    collection.add(NOTES)
    served = serving(collection, Settings(keys=Keys.of(read=[KEY])))
    site = next(served)
    page = browser.new_page()
    page.goto(site.at(q="zinc"))
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("This server asks for a key")
    dialog.get_by_label("Key").fill("not-the-right-key")
    page.keyboard.press("Enter")
    expect(dialog).to_contain_text("is not known here")
    dialog.get_by_label("Key").fill(KEY)
    page.keyboard.press("Enter")
    expect(page.locator(".hit").first).to_be_visible()
    assert page.evaluate("[sessionStorage['twinrank.key'], localStorage.length, document.cookie]") == [KEY, 0, ""]
    page.reload()
    expect(page.locator(".hit").first).to_be_visible()
    expect(dialog).to_be_hidden()
    page.close()
    assert next(served, None) is None


# -- for everybody -------------------------------------------------------------------------------------------------------

PANELS: list[tuple[dict[str, str], str]] = [
    ({}, ".welcome"),
    ({"q": "a cold", "where": "year >= 2000"}, ".hit"),
    ({"q": "a cold", "p": "0.999"}, ".nothing"),
    ({"q": "a cold", "where": "("}, ".error"),
    ({"q": "a cold", "doc": "zinc"}, ".document"),
    ({"q": "a cold", "doc": "zinc", "tab": "why"}, ".legend"),
    ({"q": "a cold", "view": "compare"}, ".ranks"),
    ({"view": "collection"}, ".figures"),
    ({"view": "tuning"}, ".plot svg"),
]


@pytest.mark.parametrize("width", [360, 1600])
def test_axe_finds_nothing_and_nothing_is_cut_off(browser: Browser, site: Site, width: int) -> None:
    """Every panel with all that can be opened; in the dark again what a colour scheme changes, which is contrast."""
    missing = "axe is not installed: pip install axe-playwright-python"
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason=missing)
    context = browser.new_context(viewport={"width": width, "height": 900}, reduced_motion="reduce")
    page, problems = context.new_page(), []
    for state, shown in PANELS:
        page.emulate_media(color_scheme="light")
        page.goto(site.at(**state))
        page.locator(shown).first.wait_for()
        page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        if page.locator(".disclose").is_visible():
            page.locator(".disclose").click()
        found = axe.Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
        page.emulate_media(color_scheme="dark")
        found += axe.Axe().run(page, options={"runOnly": ["color-contrast"]}).response["violations"]
        problems += [(state, rule["id"], rule["nodes"][0]["html"][:200]) for rule in found]
        if (beyond := page.evaluate("document.documentElement.scrollWidth - innerWidth")) > 0:
            problems.append((state, "wider than the window by", str(beyond)))
    assert problems == [], json.dumps(problems, indent=1)
    context.close()
