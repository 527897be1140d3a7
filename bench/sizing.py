"""What many passages take: nodes, memory, disk, time and money for 10 million, a billion, a hundred billion: docs/sizing.md.

python bench/sizing.py --write                                         # docs/sizing.md, anew
python bench/sizing.py --passages 2e8 --dimension 768 --core-hour 0.04 # the page for your numbers, to standard output

The numbers come from bench/sizing.toml, each with its origin (measured in this repository, documented elsewhere, or assumed)
and a flag of its name; the words from bench/sizing.md; the formulas from bench/costs.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from math import ceil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from costs import (
    CANDIDATES,
    Plan,
    build_core_hours,
    elastic_bit_bytes,
    elastic_bytes,
    encode_core_hours,
    hnsw_bytes,
    incomplete_share,
    keeping_pays,
    layouts,
    merged_bytes,
    needed_quantile,
    node_month,
    opensearch_bytes,
    plan,
    qdrant_bytes,
    slow_share,
    store_bytes,
    token_bytes,
    weaviate_bytes,
)

from twinrank.tables import tomllib

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "sizing.md"
SIZES = (1e7, 1e9, 1e11)
PAIRS = 20
"""That a cross-encoder looks at."""
KINDS = ("measured", "documented", "assumed")


# Numbers as they are written


def told(value: float) -> str:
    """Three digits or so, or all of them.

    >>> told(1234567), told(12.34), told(3), told(0.4), told(0.00012)
    ('1,234,567', '12', '3', '0.40', '0.00012')
    """
    if value >= 10 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.2f}" if value >= 0.01 else f"{value:.2g}"


def size(value: float) -> str:
    """Bytes as a person says them.

    >>> size(5.28e9), size(2.1e13)
    ('5.3 GB', '21 TB')
    """
    for unit, scale in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= scale:
            return f"{value / scale:.2g} {unit}" if value < 100 * scale else f"{value / scale:,.0f} {unit}"
    return f"{value:.0f} bytes"


def many(passages: float) -> str:
    """Passages as a person says them.

    >>> many(1e11), many(2.5e8), many(1500)
    ('100 billion', '250 million', '1,500')
    """
    for word, scale in (("billion", 1e9), ("million", 1e6)):
        if passages >= scale:
            return f"{passages / scale:,.4g} {word}"
    return f"{passages:,.0f}"


def yearly(share: float) -> str:
    """A share of time as what it makes in a year.

    >>> yearly(0.001), yearly(1e-6)
    ('8.77 hours', '32 s')
    """
    hours = share * 8766
    return f"{told(hours)} hours" if hours >= 1 else f"{told(3600 * hours)} s"


def rows(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A table in Markdown.

    >>> print(rows(["memory", "disk"], [["", "622"]]))
    | memory | disk |
    |---|---|
    | | 622 |
    """
    lines = [f"| {' | '.join(line)} |".replace("|  |", "| |") for line in (head, *body)]
    return "\n".join([lines[0], f"|{'---|' * len(head)}", *lines[1:]])


# The page


def slots(tables: dict[str, Any], v: Any, sizes: Sequence[float]) -> dict[str, str]:
    """What the words of the page leave open: tables and single numbers."""
    plans = {passages: [plan(layout, passages, v) for layout in layouts(v)] for passages in {*sizes, *SIZES}}
    float_graph, graph, exact, *_, disk = plans[max(SIZES)]
    shown = {passages: plans[passages] for passages in sizes}
    tokens = token_bytes(v.passage_tokens, v.dimension, 2)
    return {
        "measured": origins(tables["measured"], v, linked=True),
        "documented": origins(tables["documented"], v, linked=True),
        "assumed": origins(tables["assumed"], v, linked=False),
        "bytes": bytes_table(v),
        "plans": "\n\n".join(f"### {many(passages).capitalize()}\n\n{plans_table(shown[passages], v)}" for passages in sizes),
        "encoding": encoding_table(sizes, v),
        "tail": tail_table(),
        "copies": copies_table(shown, v),
        "fans": fans_table(shown, v),
        "engines": engines_table(sizes, v),
        "limits": limits_table(tables["limit"]),
        "runs": runs(tables["run"]),
        "node_month": told(node_month(v)),
        "exact_10m_ms": told(plans[1e7][2].layout.milliseconds(1e7)),
        "exact_core_s": told(exact.query_ms / 1e3),
        "exact_cores": told(v.queries * exact.query_ms / 1e3 / v.cores_used),
        "one_memory": size(plans[1e7][1].memory),
        "one_disk": size(1e7 * (store_bytes(v) + exact.layout.disk + graph.layout.memory + v.words_bytes)),
        "dear_memory": size(float_graph.memory),
        "dear_nodes": told(float_graph.nodes),
        "graph_nodes": told(graph.nodes),
        "cheap_memory": size(disk.memory),
        "cheap_words": size(disk.passages * v.words_bytes * v.words_in_memory),
        "cheap_nodes": told(disk.nodes),
        "cheap_bound": disk.bound,
        "merged": size(merged_bytes(graph.shards, v.results)),
        "merged_second": size(v.queries * merged_bytes(graph.shards, v.results)),
        "results": told(v.results),
        "tokens": size(max(SIZES) * tokens),
        "encode_candidates": told(1e3 * CANDIDATES * v.passage_tokens / v.encode_tokens),
        "break_even": ", ".join(f"{told(keeping_pays(n, tokens, v))} at {many(n)}" for n in SIZES),
        "hnsw_recall": f"{v.hnsw_recall:g}",
        "float_recall": f"{v.float_recall:g}",
        "token_bytes": told(tokens),
        "pairs": told(PAIRS * v.pair_ms),
        "maxsim": told(v.maxsim_ms),
        "rerank_cores": told(v.queries * (v.maxsim_ms + PAIRS * v.pair_ms) / 1e3 / v.cores_used),
        "queries": told(v.queries),
        "dimension": told(v.dimension),
        "repeated": f"{100 * v.repeated:.0f} %",
        "tenants": told(v.tenants),
        "recent": f"{100 * v.recent:.0f} %",
        "replicas": told(v.replicas),
        "down": f"{100 * v.down:g} %",
    }


def origins(quantities: dict[str, dict[str, Any]], v: Any, *, linked: bool) -> str:
    body = []
    for name, quantity in quantities.items():
        line = [f"`{name}`", f"{getattr(v, name):,}", quantity["unit"], quantity["says"]]
        body.append([*line, origin(quantity)] if linked else line)
    return rows(["name", "value", "unit", "of what"] + ["from"] * linked, body)


def origin(quantity: dict[str, Any]) -> str:
    where, command = quantity["where"], quantity.get("command", "")
    if where.startswith("https://"):
        return f"[page]({where})"
    page = f"[{Path(where).stem}]({Path(where).name})" if where.startswith("docs/") else "[below](#what-was-run-for-this-page)"
    return f"{page}, `{command}`" if command else page


def bytes_table(v: Any) -> str:
    body = [
        ["texts and fields", "", told(v.text_bytes), "measured"],
        ["BM25", f"{told(v.words_bytes * v.words_in_memory)}", told(v.words_bytes), "measured"],
        ["float32 vectors", "", told(4 * v.dimension), "4 × dimension"],
        *[[one.name, told(one.memory), told(one.disk), ""] for one in layouts(v)],
        [
            "token vectors in int4, pooled by 2",
            "",
            told(token_bytes(v.passage_tokens, v.dimension, 2)),
            "tokens / 2 × (dimension / 2 + 4)",
        ],
        ["twinrank's own store", "", told(store_bytes(v)), "texts, 4 × dimension and its row, passages, log"],
    ]
    formulas = {
        "HNSW, float32": "4 × dimension + 8 M + 16",
        "HNSW, int8": "dimension + 8 M + 16; on disk float32 besides",
        "exact, int8": "dimension + 20; on disk float32 besides",
        "IVF, product quantisation": "dimension / 4 + 8; on disk float32 besides",
        "IVF, one bit (RaBitQ)": "dimension / 8 + 8 + 8; on disk float32 besides",
        "disk graph (DiskANN)": "dimension / 8; on disk 4,096 / ⌊4,096 / (4 × dimension + 4 + 4 × degree)⌋",
    }
    return rows(
        ["bytes a passage", "memory", "disk", "formula"], [[*line[:3], formulas.get(line[0], line[3])] for line in body]
    )


def plans_table(plans: Sequence[Plan], v: Any) -> str:
    body = [
        [
            one.layout.name,
            size(one.memory),
            size(one.disk),
            told(one.shards),
            told(one.layout.milliseconds(one.passages / one.shards)),
            told(one.query_ms),
            *[told(count) for count in one.nodes_by.values()],
            f"**{told(one.nodes)}**",
            told(one.borne(v)),
            told(one.money),
        ]
        for one in plans
    ]
    head = ["vectors", "memory", "disk", "shards", "ms a shard", "core-ms a query"]
    return rows(
        [*head, "nodes by memory", "by disk", "by cores", "by reads", "nodes", "queries/s borne", "money a month"], body
    )


def encoding_table(sizes: Sequence[float], v: Any) -> str:
    body = []
    for passages in sizes:
        hours = encode_core_hours(passages, v.passage_tokens, v.encode_tokens)
        build = build_core_hours(passages, ceil(passages / v.shard), v.hnsw_build, v.hnsw_growth)
        moved = passages * (v.text_bytes + 4 * v.dimension) * v.replicas
        gpu_hours = passages / v.gpu_passages / 3600 if v.gpu_passages else 0
        body.append(
            [
                many(passages),
                told(hours),
                told(hours / 24 / v.days),
                told(hours * v.core_hour),
                f"{told(gpu_hours)} hours, {told(gpu_hours * v.gpu_hour)}" if gpu_hours else "not measured",
                told(build),
                f"{size(moved / v.days / 86400)}/s",
                told(moved / 1e9 * v.traffic),
                told(v.model_changes * (hours + build) * v.core_hour / 12),
            ]
        )
    head = ["passages", "core-hours to encode", f"cores for {v.days:g} days", "money", "on GPUs", "core-hours for HNSW"]
    return rows([*head, "loaded", "money for traffic", "money a month for new models"], body)


def tail_table() -> str:
    body = []
    for parts in (1, 10, 100, 1_000, 10_000):
        rarely = 1 / (1 - needed_quantile(parts, 0.99))
        body.append([f"{parts:,}", f"{100 * slow_share(parts, 0.99):.1f} %", f"1 in {rarely:,.0f}"])
    return rows(["shards asked", "queries that meet a shard beyond its p99", "how often a shard may be slow, for a p99"], body)


def copies_table(plans: dict[float, list[Plan]], v: Any) -> str:
    shards = {passages: several[1].shards for passages, several in plans.items()}
    body = [
        [str(copies), *[yearly(incomplete_share(v.down, copies, count)) for count in shards.values()]] for copies in (1, 2, 3)
    ]
    return rows(["copies", *[f"{many(passages)}, shards: {told(count)}" for passages, count in shards.items()]], body)


def fans_table(plans: dict[float, list[Plan]], v: Any) -> str:
    """What a query asks, where passages are sharded by chance, by tenant, by time; HNSW in int8."""
    body = []
    for passages, several in plans.items():
        one = several[1]
        mine = passages / v.tenants
        asked = max(1, ceil(mine / one.layout.shard))
        alone = asked * one.layout.milliseconds(max(mine / asked, 1e3))
        every = one.shards * one.layout.milliseconds(passages / one.shards)
        recent = max(1, ceil(one.shards * v.recent))
        body.append(
            [
                many(passages),
                told(one.shards),
                told(asked),
                f"{told(every)} → {told(alone)}",
                told(recent),
                f"{size(one.memory)} → {size(one.memory * v.recent)}",
                told(v.queries * (1 - v.repeated)),
            ]
        )
    head = ["passages", "shards asked, by chance", "by tenant", "core-ms of these", "by time, recent only"]
    return rows([*head, "memory for what is recent", "queries/s behind the cache"], body)


def engines_table(sizes: Sequence[float], v: Any) -> str:
    d, m = v.dimension, v.links
    row = 4 * d + 8 + v.text_bytes
    lines: list[tuple[str, Callable[[float], str]]] = [
        ("Qdrant: memory, all in it", lambda n: size(qdrant_bytes(n, d))),
        ("Weaviate: memory", lambda n: size(weaviate_bytes(n, d))),
        ("OpenSearch: memory, HNSW float32", lambda n: size(opensearch_bytes(n, d, m))),
        ("Elasticsearch: memory, HNSW int8", lambda n: size(elastic_bytes(n, d, m))),
        ("Elasticsearch: memory, HNSW one bit", lambda n: size(elastic_bit_bytes(n, d, m))),
        ("Elasticsearch: shards of 200 million", lambda n: told(ceil(n / 200e6))),
        ("Elasticsearch: shards of 50 GB (texts, float32, int8)", lambda n: told(ceil(n * (v.text_bytes + 5 * d) / 50e9))),
        ("pgvector: tables of 32 TB (texts and vectors, no index)", lambda n: told(ceil(n * row / 32e12))),
        ("Milvus: passages of each of 16 shards", lambda n: many(n / 16)),
        ("Milvus: query nodes' memory, HNSW int8 at 90 %", lambda n: size(n * hnsw_bytes(d, m, 1) / 0.9)),
        ("Pinecone: days to upsert into one namespace, 50 MB/s", lambda n: told(n * (4 * d + v.text_bytes) / 50e6 / 86400)),
    ]
    return rows(["for one copy", *map(many, sizes)], [[name, *[tell(n) for n in sizes]] for name, tell in lines])


def limits_table(limits: Sequence[dict[str, str]]) -> str:
    body = [[one["engine"], one["what"], one["figure"], f"[{one['version']}]({one['where']})"] for one in limits]
    return rows(["engine", "what", "documented", "page, version"], body)


def runs(several: Sequence[dict[str, str]]) -> str:
    return "\n\n".join(
        f"{one['says']}\n\n```\n{one['command'].strip()}\n```\n\n```text\n{one['output'].strip()}\n```" for one in several
    )


def load() -> dict[str, Any]:
    tables: dict[str, Any] = tomllib.loads((HERE / "sizing.toml").read_text(encoding="utf-8"))
    return tables


def values(tables: dict[str, Any], given: dict[str, float] | None = None) -> SimpleNamespace:
    """Every quantity by its name, with those that were given in place of the file's."""
    known = {name: quantity["value"] for kind in KINDS for name, quantity in tables[kind].items()}
    return SimpleNamespace(**{**known, **(given or {})})


def page(sizes: Sequence[float] = SIZES, given: dict[str, float] | None = None) -> str:
    tables = load()
    return (HERE / "sizing.md").read_text(encoding="utf-8").format_map(slots(tables, values(tables, given), sizes))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--write", action="store_true", help="write docs/sizing.md by the file's own numbers")
    parser.add_argument("--passages", type=float, nargs="+", default=SIZES)
    tables = load()
    for kind in KINDS:
        for name, quantity in tables[kind].items():
            told_as = f"{quantity['says']} ({quantity['unit']}; {kind}: {quantity['value']:g})".replace("%", "%%")
            parser.add_argument(f"--{name.replace('_', '-')}", type=float, help=told_as, metavar="X")
    options = vars(parser.parse_args(arguments))
    write, sizes = options.pop("write"), options.pop("passages")
    given = {name: value for name, value in options.items() if value is not None}
    if write:
        if given or tuple(sizes) != SIZES:
            parser.error("--write takes the numbers of bench/sizing.toml; put yours there, or leave --write out")
        PAGE.write_text(page(), encoding="utf-8")
    else:
        print(page(sizes, given), end="")


if __name__ == "__main__":
    main()
