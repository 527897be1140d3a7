"""Architectures side by side: which rows there are and why, what each costs, what is told, and that the page is inert."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

from twinrank import TwinTower
from twinrank.cli import twinrank
from twinrank.collection import Collection
from twinrank.errors import InputError
from twinrank.evaluate import comparison_report
from twinrank.evaluate.compare import BM25, Comparison, Models, architectures, compare, searched_bytes
from twinrank.evaluate.experiment import evaluate
from twinrank.evaluate.machine import describe_machine
from twinrank.readers import Dataset, read_dataset
from twinrank.recipe import Recipe

EVIL = "<script>alert('&')</script>"

ALWAYS = [
    BM25,
    "bi-encoder: CLS",
    "bi-encoder: mean",
    "late interaction: rerank",
    "late interaction: search",
    "hybrid",
    "hybrid + late interaction",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve remedies in a folder whose name, documents and queries would like to run."""
    folder = tmp_path_factory.mktemp("compare") / "<b>remedies&"
    (folder / "qrels").mkdir(parents=True)
    ails = ["cold", "cough", "fever", "burn", "cramp", "rash", "flu", "ache", "chill", "sprain", "hiccup", "wound"]
    documents = [{"_id": f"{EVIL}{n}", "title": EVIL, "text": f"tea helps against a {ail}"} for n, ail in enumerate(ails)]
    queries = [{"_id": f"{EVIL}{n}", "text": f"{EVIL} what helps against a {ail}"} for n, ail in enumerate(ails)]
    for name, records in (("corpus", documents), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    lines = [f"{EVIL}{n}\t{EVIL}{n}\t1\n" for n in range(len(ails))]
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
    return folder


@pytest.fixture(scope="module")
def dataset(data: Path) -> Dataset:
    return read_dataset(data)


@pytest.fixture(scope="module")
def compared(
    dataset: Dataset, tiny_model: Path, tiny_cross_encoder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Comparison:
    models = Models(str(tiny_model), reranker=str(tiny_cross_encoder))
    return compare(dataset, models, folder=tmp_path_factory.mktemp("kept"))


def names(comparison: Comparison) -> list[str]:
    return [row.name for row in comparison.rows]


# -- which rows ----------------------------------------------------------------------------------------------------------


def test_a_row_stands_for_each_architecture_and_each_is_a_recipe_to_repeat(compared: Comparison, tmp_path: Path) -> None:
    assert names(compared) == [*ALWAYS, "cross-encoder: rerank", "cascade"]
    for row in compared.rows:
        assert Recipe.parse(row.recipe.to_toml()) == row.recipe


def test_what_is_left_out_is_said_with_how_to_include_it(tiny_model: Path) -> None:
    rows, left_out = architectures(Models(str(tiny_model)), 1000, 10)
    assert list(rows) == ALWAYS
    assert left_out == [
        "twin tower: name one with --twin-tower MODEL",
        "cross-encoder, and the cascade that ends in it: name one with --reranker MODEL",
    ]


def test_the_cross_encoder_reads_everything_where_that_is_little(tiny_model: Path, tiny_cross_encoder: Path) -> None:
    models = Models(str(tiny_model), reranker=str(tiny_cross_encoder))
    little, _ = architectures(models, 240, 300)
    assert little["cross-encoder: all"].rerank[0].candidates == little["cross-encoder: all"].retrieve.vectors == 240
    much, left_out = architectures(models, 5000, 300)
    assert "cross-encoder: all" not in much
    assert left_out[-1].endswith("--queries 50 would do")
    as_the_rerank, left_out = architectures(models, 90, 10)  # the candidates are everything
    assert "cross-encoder: all" not in as_the_rerank
    assert len(left_out) == 1
    stages = [(stage.kind, stage.candidates) for stage in much["cascade"].rerank]
    assert stages == [("maxsim", 100), ("cross-encoder", 50)]


def test_a_twin_tower_has_its_row_beside_a_bi_encoder_or_in_its_place(tiny_model: Path, tmp_path: Path) -> None:
    tower = tmp_path / "towers"
    TwinTower(query=str(tiny_model), document=str(tiny_model)).save(tower)
    beside, left_out = architectures(Models(str(tiny_model), twin_tower=str(tower)), 1000, 10)
    assert beside["twin tower"].encoder.model == str(tower)
    assert not any("twin tower" in line for line in left_out)
    alone, left_out = architectures(Models(str(tower)), 1000, 10)
    assert list(alone) == [BM25, "twin tower", "hybrid"]
    assert any(line.startswith("late interaction: ") for line in left_out)


def test_a_colbert_has_no_row_for_one_vector_a_passage(tiny: ModuleType, tiny_colbert: ModuleType, tmp_path: Path) -> None:
    colbert = tiny_colbert.write_colbert(tiny, tmp_path / "colbert", "pylate")
    rows, _ = architectures(Models(str(colbert)), 1000, 10)
    assert list(rows) == [
        BM25, "late interaction: rerank", "late interaction: search", "hybrid", "hybrid + late interaction",
    ]  # fmt: skip


def test_a_pooling_that_is_neither_is_a_row_of_its_own(tiny: ModuleType, tmp_path: Path) -> None:
    folder = tiny.write_bi_encoder(tmp_path / "max")
    pooling = folder / "1_Pooling" / "config.json"
    settings = {key: False for key in json.loads(pooling.read_text()) if key.startswith("pooling_mode")}
    pooling.write_text(json.dumps({**json.loads(pooling.read_text()), **settings, "pooling_mode_max_tokens": True}))
    rows, _ = architectures(Models(str(folder)), 1000, 10)
    assert list(rows)[1:4] == ["bi-encoder: CLS", "bi-encoder: mean", "bi-encoder: max"]
    assert rows["bi-encoder: max"].encoder.pooling == ""


# -- what is measured ----------------------------------------------------------------------------------------------------


def test_a_row_repeated_by_itself_finds_the_same(compared: Comparison, dataset: Dataset, tmp_path: Path) -> None:
    for row in compared.rows:
        if row.name in (BM25, "late interaction: rerank", "hybrid"):
            again = evaluate(dataset, {"again": Recipe.parse(row.recipe.to_toml())}, folder=tmp_path)
            assert again.outcomes["again"].run == row.outcome.run, row.name


def test_every_figure_of_a_row_is_there(compared: Comparison) -> None:
    assert (compared.passages, compared.judged, compared.experiment.queries) == (12, 12, 12)
    for row in compared.rows:
        assert row.seconds is not None
        assert row.seconds > 0
        assert 10 < row.memory < 10_000
        assert row.queries_a_second > 0
        assert row.ceiling >= row.outcome.measured.means["nDCG@10"]
        assert (row.difference is None) == (row.name == BM25)


def test_bytes_are_those_of_what_is_searched(compared: Comparison) -> None:
    size = {row.name: row.size for row in compared.rows}
    assert size["hybrid"] == pytest.approx(size[BM25] + size["bi-encoder: mean"], rel=0.2)
    assert size["late interaction: rerank"] > size["hybrid"]
    late = next(row for row in compared.rows if row.name == "late interaction: rerank")
    with Collection(late.outcome.place, recipe=late.recipe, create=False) as collection:
        plain = replace(late.recipe, rerank=())
        read = sum(part.codes.nbytes + part.scales.nbytes for _, part in collection.store.iterate_tokens("tokens"))
        with Collection(late.outcome.place, recipe=plain, create=False) as without:
            assert searched_bytes(collection) - searched_bytes(without) == read > 0


def test_rows_that_store_the_same_share_a_collection(compared: Comparison) -> None:
    place = {row.name: row.outcome.place for row in compared.rows}
    assert place["bi-encoder: mean"] == place["hybrid"] == place["cross-encoder: rerank"]
    assert place["late interaction: rerank"] == place["late interaction: search"] == place["cascade"]
    assert len(set(place.values())) == 4  # words alone, CLS, mean, mean with tokens


def test_the_baseline_may_be_any_row_and_no_other(dataset: Dataset, tiny_model: Path, tmp_path: Path) -> None:
    models = Models(str(tiny_model))
    for wrong in ("cross-encoder: rerank", "nobody"):
        with pytest.raises(InputError, match=f"the baseline '{wrong}' is none of what is compared: BM25, "):
            compare(dataset, models, baseline=wrong, folder=tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_differences_are_the_rows_minus_the_baseline(compared: Comparison) -> None:
    base = compared.rows[0].outcome.measured.by_query["nDCG@10"]
    for row in compared.rows[1:]:
        assert row.difference is not None
        expected = [value - base[query] for query, value in row.outcome.measured.by_query["nDCG@10"].items()]
        assert compared.per_query(row) == expected
        assert row.difference.mean == pytest.approx(sum(expected) / len(expected))
        assert row.difference.helped == sum(value > 1e-12 for value in expected)


def test_the_machine_is_described_without_saying_whose_it_is() -> None:
    told = describe_machine()
    assert {"processor", "cores", "threads", "engine", "twinrank"} <= set(told)
    assert int(told["threads"]) >= 1
    import platform

    assert platform.node() not in " ".join(told.values()) or len(platform.node()) < 4


# -- the command and its page --------------------------------------------------------------------------------------------


def shown(comparison: Comparison, width: int) -> str:
    from rich.console import Console

    console = Console(width=width, file=StringIO())
    console.print(comparison_report.renderable(comparison))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_tables_hold_every_row_and_fit_a_terminal(compared: Comparison) -> None:
    told = shown(compared, 100)
    for row in compared.rows:
        assert told.count(row.name) >= 2
    assert "…" not in told
    assert max(len(line.rstrip()) for line in told.splitlines()) <= 100
    assert "Holm-corrected over 8 comparisons" in " ".join(told.split())
    assert "left out: twin tower: name one with --twin-tower MODEL" in told


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_page_shows_plots_tables_machine_and_recipes(compared: Comparison) -> None:
    page = Page(comparison_report.page(compared, "twinrank compare data"))
    tags = [tag for tag, _ in page.tags]
    assert tags.count("svg") == 2 + 8  # the front, wide and narrow; a histogram a difference
    assert tags.count("table") == 3
    assert tags.count("details") == len(compared.rows)
    text = "".join(page.texts)
    for row in compared.rows:
        assert f"{row.outcome.measured.means['nDCG@10']:.4f}" in text
        assert row.recipe.to_toml() in text
    assert compared.machine["processor"] in text
    assert "12 queries over 12 documents" in text


def test_names_that_would_run_are_inert_in_the_page(compared: Comparison) -> None:
    evil = replace(compared, experiment=replace(compared.experiment, dataset=EVIL, split=EVIL, notes=(EVIL,)), left_out=[EVIL])
    evil = replace(evil, machine={EVIL: EVIL})
    written = comparison_report.page(evil, EVIL)
    page = Page(written)
    assert not {"script", "b", "img", "iframe", "link"} & {tag for tag, _ in page.tags}
    assert all(not {"src", "href", "onclick", "onload"} & set(attributes) for _, attributes in page.tags)
    assert "<b>remedies" not in comparison_report.page(compared)
    assert "http" not in written.replace("http-equiv", "")
    assert "alert(" in "".join(page.texts)  # shown as it is


def test_the_command_prints_json_and_writes_the_page(data: Path, tiny_model: Path, tmp_path: Path) -> None:
    options = [str(data), "--model", str(tiny_model), "--folder", str(tmp_path / "kept"), "--queries", "5", "--seed", "3"]
    wishes = ["--baseline", "hybrid", "--measure", "RR@10", "--json", "--html", str(tmp_path / "page.html")]
    told = CliRunner().invoke(twinrank, ["compare", *options, *wishes])
    assert told.exit_code == 0, told.output
    document = json.loads(told.stdout)
    assert [row["name"] for row in document["rows"]] == ALWAYS
    assert (document["baseline"], document["measure"], document["queries"], document["judged_queries"]) == (
        "hybrid", "RR@10", 5, 12,
    )  # fmt: skip
    differences = {row["name"]: row["difference"] for row in document["rows"]}
    assert differences["hybrid"] is None
    assert differences["bi-encoder: CLS"]["p"] is None
    assert "5 queries" in differences["bi-encoder: CLS"]["note"]
    assert all(len(row["per_query"]) == 5 for row in document["rows"])
    assert any(row["on_front"] for row in document["rows"])
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
