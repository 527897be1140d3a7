"""docs/sizing.md is what bench/sizing.py makes of bench/sizing.toml, and its formulas give what can be computed by hand.

python bench/sizing.py --write writes the page.
"""

from __future__ import annotations

import doctest
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module", autouse=True)
def bench_is_on_the_path() -> Iterator[None]:
    sys.path.insert(0, str(ROOT / "bench"))
    yield
    sys.path.remove(str(ROOT / "bench"))


@pytest.fixture(scope="module")
def sizing() -> ModuleType:
    return importlib.import_module("sizing")


@pytest.fixture(scope="module")
def costs() -> ModuleType:
    return importlib.import_module("costs")


@pytest.fixture
def v(sizing: ModuleType) -> Any:
    """Every quantity, as round numbers where a test computes by hand."""
    return sizing.values(
        sizing.load(),
        {
            "dimension": 384, "links": 16, "replicas": 2, "queries": 100, "shard": 10e6, "disk_shard": 1e9, "rescored": 100,
            "words_bytes": 100, "words_in_memory": 1.0, "text_bytes": 500, "words_ms": 2.0, "words_ms_tenth": 1.0,
            "front_ms": 8.0, "exact_ms": 16.0, "hnsw_ms": 0.4, "hnsw_growth": 1.5, "node_cores": 16, "node_memory": 100,
            "node_disk": 1000, "node_reads": 100_000, "memory_used": 0.5, "disk_used": 0.5, "cores_used": 0.5,
            "core_hour": 0.1, "memory_month": 1.0, "disk_month": 0.1, "object_month": 0.01,
        },
    )  # fmt: skip


# The page and its inputs are one


def test_the_page_is_what_the_script_makes_of_its_numbers(sizing: ModuleType) -> None:
    assert sizing.PAGE.read_text(encoding="utf-8") == sizing.page(), "run python bench/sizing.py --write"


def test_every_measured_number_stands_in_the_page_that_it_is_said_to_be_from(sizing: ModuleType) -> None:
    tables = sizing.load()
    ran = "\n".join(run["output"] for run in tables["run"])
    for name, quantity in tables["measured"].items():
        where = quantity["where"]
        text = ran if where == "docs/sizing.md" else (ROOT / where).read_text(encoding="utf-8")
        assert quantity["quote"], name
        assert quantity["quote"] in text, f"{name}: {quantity['quote']!r} does not stand in {where}"


def test_every_measured_number_is_the_one_quoted(sizing: ModuleType) -> None:
    """Apart from those that say how they are computed from what is quoted."""
    computed = {
        "store_rest_bytes": 73 + 1,
        "hnsw_growth": round((0.350 / 0.314) ** (1 / 0.47712), 2),
        "pair_ms": 374 / 100,  # of a hundred pairs
    }
    for name, quantity in sizing.load()["measured"].items():
        quoted = {
            float(number.replace(",", "")) for number in re.findall(r"\d[\d,]*\.?\d*", quantity["quote"].replace(", ", " "))
        }
        assert quantity["value"] in quoted or quantity["value"] == pytest.approx(computed.get(name)), name


def test_every_command_named_is_a_script_that_is_there(sizing: ModuleType) -> None:
    tables = sizing.load()
    named = [quantity.get("command", "") for quantity in tables["measured"].values()] + [
        run["command"] for run in tables["run"]
    ]
    for script in re.findall(r"python (\S+\.py)", "\n".join(named)):
        assert (ROOT / script).is_file(), script


def test_every_documented_number_and_every_limit_has_a_page(sizing: ModuleType) -> None:
    tables = sizing.load()
    for entry in [*tables["documented"].values(), *tables["limit"]]:
        assert entry["where"].startswith("https://"), entry
    assert {limit["engine"] for limit in tables["limit"]} == {
        "Milvus", "pgvector", "Qdrant", "Weaviate", "Pinecone", "Elasticsearch", "OpenSearch",
    }  # fmt: skip


def test_every_number_of_the_file_is_used(sizing: ModuleType) -> None:
    code = "".join((ROOT / "bench" / name).read_text(encoding="utf-8") for name in ("sizing.py", "costs.py"))
    tables = sizing.load()
    for name in (name for kind in sizing.KINDS for name in tables[kind]):
        assert f"v.{name}" in code, f"{name} is counted with nowhere"


def test_every_table_and_number_made_is_shown(sizing: ModuleType) -> None:
    tables = sizing.load()
    made = sizing.slots(tables, sizing.values(tables), sizing.SIZES)
    shown = re.findall(r"\{(\w+)\}", (ROOT / "bench" / "sizing.md").read_text(encoding="utf-8"))
    assert sorted(made) == sorted(set(shown))


def test_the_formulas_examples_are_true(sizing: ModuleType, costs: ModuleType) -> None:
    for module in (sizing, costs):
        assert doctest.testmod(module).failed == 0


# Flags


def test_a_flag_replaces_a_number(sizing: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    sizing.main(["--passages", "2e8", "--dimension", "768", "--core-hour", "0.07"])
    told = capsys.readouterr().out
    assert "### 200 million" in told
    assert "### 100 billion" not in told
    assert "| float32 vectors | | 3,072 |" in told
    assert "| `core_hour` | 0.07 |" in told


def test_a_gpu_is_counted_where_its_rate_is_given(sizing: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    sizing.main(["--passages", "3.6e6", "--gpu-passages", "1000", "--gpu-hour", "2"])
    assert "| 1 hours, 2 |" in capsys.readouterr().out
    assert "not measured" in sizing.page()


def test_the_pages_file_is_not_written_with_other_numbers(sizing: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        sizing.main(["--write", "--core-hour", "0.07"])
    assert "bench/sizing.toml" in capsys.readouterr().err


def test_every_flag_may_be_given(sizing: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    tables = sizing.load()
    for name in (name for kind in sizing.KINDS for name in tables[kind]):
        sizing.main(["--passages", "1e7", f"--{name.replace('_', '-')}", "1"])
    assert "# Sizing" in capsys.readouterr().out


# By hand, and against what others computed


def test_an_hnsw_of_a_million_takes_what_was_measured(costs: ModuleType) -> None:
    """528 MB more on disk (docs/indexes.md); faiss.index has 528,261,470 bytes."""
    assert costs.hnsw_bytes(384, 16, 1) * 1e6 == pytest.approx(528_261_470, rel=0.001)


def test_a_vector_file_takes_what_was_measured(costs: ModuleType) -> None:
    """194 MB for 100,000, as float32 and int8 (docs/indexes.md)."""
    assert (costs.exact_bytes(384) + 4 * 384) * 1e5 == pytest.approx(194e6, rel=0.001)


def test_token_vectors_take_what_the_architectures_page_says(costs: ModuleType) -> None:
    assert costs.token_bytes(1, 384) == 196
    assert costs.token_bytes(150, 384, 2) == pytest.approx(15e3, rel=0.03)


@pytest.mark.parametrize(("dimension", "degree", "taken"), [(384, 56, 2048), (96, 56, 4096 / 6), (1024, 56, 8192)])
def test_disk_graphs_pack_whole_vectors_into_pages(costs: ModuleType, dimension: int, degree: int, taken: float) -> None:
    """1,764 bytes: two to a page of 4,096; 612: six; 4,324: two pages for one."""
    assert costs.disk_graph_bytes(dimension, degree) == taken


def test_engines_formulas_give_their_own_examples(costs: ModuleType) -> None:
    assert costs.qdrant_bytes(1e6, 1024) == 6_144_000_000  # "approximately 6,144,000,000 bytes"
    assert costs.weaviate_bytes(1e6, 384) == pytest.approx(3e9, rel=0.03)  # "2 * 1e6 * 1536 B = 3 GB"
    assert costs.opensearch_bytes(1e6, 256, 16) == pytest.approx(1.267e9, rel=0.001)  # "~= 1.267 GB"
    assert costs.elastic_bytes(1e6, 384, 16) == 1e6 * (384 + 4) + 1e6 * 4 * 16
    assert costs.elastic_bit_bytes(1e6, 384, 16) == 1e6 * (48 + 14) + 1e6 * 4 * 16


def test_the_tail_is_dean_and_barrosos(costs: ModuleType) -> None:
    assert costs.slow_share(1, 0.99) == pytest.approx(0.01)
    assert costs.slow_share(100, 0.99) == pytest.approx(0.634, abs=0.001)  # their 63 %
    assert costs.slow_share(2000, 0.9999) == pytest.approx(0.18, abs=0.005)  # their "almost one in five"
    assert costs.needed_quantile(1, 0.99) == 0.99
    assert 1 - costs.slow_share(50, costs.needed_quantile(50, 0.99)) == pytest.approx(0.99)


def test_copies_are_lost_together_by_chance_alone(costs: ModuleType) -> None:
    assert costs.incomplete_share(0.01, 1, 1) == pytest.approx(0.01)
    assert costs.incomplete_share(0.01, 2, 1) == pytest.approx(0.0001)
    assert costs.incomplete_share(0.5, 1, 2) == pytest.approx(0.75)


def test_exact_search_reads_everything(costs: ModuleType) -> None:
    assert costs.exact_ms(1e9, 384, 16) == 16_000
    assert costs.exact_ms(1e6, 768, 16) == 32


def test_lists_are_scanned_with_their_centres(costs: ModuleType) -> None:
    """A million: 4,000 lists, 40 of them 10,000 vectors (0.1 ms of 10); 4,000 float32 centres as 16,000 int8 (0.32 of 20)."""
    assert costs.lists_ms(1e6, 384, 40, 10, 20) == pytest.approx(0.1 + 0.32)
    assert costs.lists_ms(1e6, 384, 10_000, 10, 20) == pytest.approx(10 + 0.32)  # no more than all of them


def test_encoding_takes_tokens_over_rate(costs: ModuleType) -> None:
    assert costs.encode_core_hours(36e6, 100, 10_000) == 100


def test_a_plan_of_a_billion_by_hand(costs: ModuleType, v: Any) -> None:
    """HNSW in int8: 528 + 100 bytes in memory, 2,064 + 100 + 500 on disk, 100 shards of ten million."""
    plan = costs.plan(costs.layouts(v)[1], 1e9, v)
    assert plan.layout.name == "HNSW, int8"
    assert plan.memory == 628e9
    assert plan.disk == 2664e9
    assert plan.shards == 100
    assert plan.query_ms == pytest.approx(100 * (0.4 * 1.5 + 2.0 * 2.0) + 8)  # ten million: ten times a million
    assert plan.nodes_by == {
        "memory": 2 * 13,  # 628 / (100 x 0.5)
        "disk": 2 * 6,  # 2,664 / (1,000 x 0.5)
        "cores": 6,  # 100 x 0.468 s / (16 x 0.5) = 5.85
        "reads": 0,
    }
    assert (plan.nodes, plan.bound) == (26, "memory")
    assert plan.borne(v) == pytest.approx(26 * 8 / 0.468)
    node = 16 * 0.1 * 730 + 100 * 1.0 + 1000 * 0.1
    assert plan.money == pytest.approx(26 * node + (500 + 1536) * 0.01)


def test_reads_may_decide_how_many_nodes(costs: ModuleType, v: Any) -> None:
    """100 queries x 100 shards x 100 reads are a million a second, 100,000 a node."""
    v.memory_used = v.disk_used = 1e6
    v.front_ms = v.words_ms = v.words_ms_tenth = 1e-9
    plan = costs.plan(next(one for one in costs.layouts(v) if "RaBitQ" in one.name), 1e9, v)
    assert plan.nodes_by["reads"] == 10
    assert plan.nodes == 10
    assert plan.borne(v) == 100


def test_the_cheaper_in_memory_come_later_and_copies_are_never_fewer_than_asked(costs: ModuleType, v: Any) -> None:
    approximate = [one for one in costs.layouts(v) if not one.name.startswith("exact")]
    assert [one.memory for one in approximate] == sorted((one.memory for one in approximate), reverse=True)
    for layout in costs.layouts(v):
        assert costs.plan(layout, 1_000_000, v).nodes >= v.replicas


def test_keeping_tokens_pays_from_some_load_on(costs: ModuleType, v: Any) -> None:
    """A TB on two copies of half-used disk at 0.1 a GB: 400. 10,000 tokens at 10,000/s on half-used cores: 2 core-s a query."""
    v.passage_tokens, v.encode_tokens = 100, 10_000
    assert costs.keeping_pays(1e9, 1000, v) == pytest.approx(400 / (2 * 0.1 * 730))
