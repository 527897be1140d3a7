"""Encoding measured: passages, sentences and queries in bulk and one query alone, beside sentence-transformers in fp32.

python bench/encode.py [--model FOLDER] [--data FOLDER] [--threads 1] [--rounds 9] [--path avx2] [--quality]

FOLDER of data holds scifact, squad_sent and stsb_en. Run it with a Python that has twinrank and sentence-transformers;
ONNX Runtime and OpenVINO (with nncf) take part where they are installed. Tokenizing is included everywhere.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import sidebyside
from sidebyside import DATA, Timing, interleave, print_table, read_texts

ONE_QUERY = "what is the effect of zinc on common cold duration"  # 12 tokens with the special ones


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None, help="a checkpoint folder; default: the installed all-MiniLM-L6-v2")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--path", default="", help="the engine's instruction set; default: the best")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--texts", type=int, default=128, help="passages a round; sentences and queries are four times as many")
    parser.add_argument("--skip-rivals", action="store_true", help="sentence-transformers alone")
    parser.add_argument(
        "--quality", action="store_true", help="cosines to fp32, nDCG@10 on scifact, Spearman on STS-B, instead"
    )
    given = parser.parse_args()
    sidebyside.limit_threads(given.threads)
    if given.quality:
        measure_quality(given)
    else:
        measure_speed(given)


def open_encoder(given: argparse.Namespace, precision: str) -> Any:
    import os

    from twinrank.models.biencoder import BiEncoder
    from twinrank.models.checkpoint import Checkpoint

    if given.path:
        os.environ["TWINRANK_ENGINE"] = given.path
    checkpoint = Checkpoint.find(given.model) if given.model else Checkpoint.find()
    return checkpoint, BiEncoder(checkpoint, precision=precision, threads=given.threads)


def measure_speed(given: argparse.Namespace) -> None:
    from twinrank.models import native

    checkpoint, ours = open_encoder(given, given.precision)
    path = ours.network.path
    scifact, squad = given.data / "scifact", given.data / "squad_sent"
    tasks = {
        "passages (scifact)": read_texts(scifact / "corpus.jsonl", given.texts),
        "sentences (squad_sent)": read_texts(squad / "corpus.jsonl", 4 * given.texts),
        "short queries (scifact, squad_sent)": read_texts(scifact / "queries.jsonl", 2 * given.texts)
        + read_texts(squad / "queries.jsonl", 2 * given.texts),
        "one query of 12 tokens": [ONE_QUERY],
    }
    with tempfile.TemporaryDirectory() as work:
        rivals = open_rivals(given, checkpoint.folder, Path(work), read_texts(scifact / "corpus.jsonl", 2200)[2000:])
        rivals[f"twinrank {given.precision}, {path}"] = ours.encode
        roof = native.roof(path, given.precision, 0.5)
        attention_precision = "bf16" if path == "avx512-vnni-bf16" and given.precision != "fp32" else "fp32"
        attention_roof = native.roof(path, attention_precision, 0.5)
        print(
            f"{checkpoint.name}, {given.threads} thread(s), medians of {given.rounds} interleaved rounds, path {path}; roof,\n"
            f"on registers alone: {roof / 1e9:.0f} GOP/s a core in {given.precision}, {attention_roof / 1e9:.0f} in attention"
        )
        for title, texts in tasks.items():
            tokens = ours.tokenize(texts)
            lengths = tokens.lengths.tolist()
            runs = {name: partial(encode, texts) for name, encode in rivals.items()}
            runs[f"twinrank {given.precision}, {path}, tokens given"] = partial(ours.network.run, tokens)
            timings = interleave(runs, rounds=given.rounds, threads=given.threads, repeat=50 if len(texts) == 1 else 1)
            ideal = sidebyside.ideal_seconds(checkpoint.shape, lengths, roof, attention_roof) / given.threads
            report(f"{title}: {len(texts)} texts, {sum(lengths)} tokens", timings, sum(lengths), ideal)


def open_rivals(
    given: argparse.Namespace, folder: Path, work: Path, calibration: list[str]
) -> dict[str, Callable[[list[str]], object]]:
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(given.threads)
    yardstick = SentenceTransformer(str(folder), device="cpu")
    rivals: dict[str, Callable[[list[str]], object]] = {
        "sentence-transformers fp32": lambda texts: yardstick.encode(texts, show_progress_bar=False)
    }
    if given.skip_rivals:
        return rivals
    if sidebyside.installed("onnxruntime") and sidebyside.installed("onnx"):
        rivals["ONNX Runtime int8"] = sidebyside.onnxruntime_int8(folder, work, given.threads).encode
    if sidebyside.installed("openvino") and sidebyside.installed("nncf"):
        rivals["OpenVINO static int8"] = sidebyside.openvino_int8(folder, calibration, given.threads).encode
    return rivals


def report(title: str, timings: dict[str, Timing], tokens: int, ideal: float) -> None:
    rows = []
    for name, timing in timings.items():
        of_roof = f"{100 * ideal / timing.seconds:.0f} %" if name.startswith("twinrank") else ""
        rows.append([name, f"{1e3 * timing.seconds:.2f}", f"{tokens / timing.seconds:,.0f}", f"{timing.ratio:.2f}", of_roof])
    print_table(title, ["", "ms", "tokens/s", "times as fast", "of the roof"], rows)


def measure_quality(given: argparse.Namespace) -> None:
    """int8 (or another precision) beside fp32, both native; fp32 is the reference's to 1e-5, which tests/models proves."""
    import csv

    import numpy as np

    _, ours = open_encoder(given, given.precision)
    _, exact = open_encoder(given, "fp32")
    scifact = given.data / "scifact"
    passages = read_texts(scifact / "corpus.jsonl")
    small, large = ours.encode(passages), exact.encode(passages)
    cosines = (small * large).sum(1) / np.linalg.norm(small, axis=1) / np.linalg.norm(large, axis=1)
    print(f"{exact.name}: {given.precision} on {ours.network.path} beside fp32")
    print(f"cosine on {len(passages)} passages of scifact: mean {cosines.mean():.5f}, worst {cosines.min():.5f}")

    ids, queries = read_ids(scifact / "corpus.jsonl"), read_ids(scifact / "queries.jsonl")
    grades: dict[str, dict[str, int]] = {}
    with (scifact / "qrels" / "test.tsv").open() as stream:
        for row in csv.DictReader(stream, delimiter="\t"):
            grades.setdefault(row["query-id"], {})[row["corpus-id"]] = int(row["score"])
    chosen = [i for i, query in enumerate(queries) if query in grades]
    texts = read_texts(scifact / "queries.jsonl")
    for name, encoder, vectors in ((given.precision, ours, small), ("fp32", exact, large)):
        found = encoder.encode([texts[i] for i in chosen], side="query") @ vectors.T  # (queries, passages)
        gains = [
            ndcg_at_10([ids[d] for d in np.argsort(-row)[:10]], grades[queries[i]])
            for i, row in zip(chosen, found, strict=True)
        ]
        print(f"scifact nDCG@10 in {name}: {np.mean(gains):.4f}")

    with (given.data / "stsb_en" / "test.tsv").open(encoding="utf-8") as stream:
        pairs = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    labels = np.array([float(pair["label"]) for pair in pairs])
    for name, encoder in ((given.precision, ours), ("fp32", exact)):
        left, right = (encoder.encode([pair[side] for pair in pairs]) for side in ("sentence1", "sentence2"))
        print(f"STS-B Spearman in {name}: {spearman((left * right).sum(1), labels):.4f}")


def read_ids(file: Path) -> list[str]:
    import json

    with file.open(encoding="utf-8") as stream:
        return [json.loads(line)["_id"] for line in stream]


def ndcg_at_10(found: list[str], grades: dict[str, int]) -> float:
    import math

    gain = sum(grades.get(document, 0) / math.log2(rank + 2) for rank, document in enumerate(found))
    best = sorted(grades.values(), reverse=True)[:10]
    return gain / sum(grade / math.log2(rank + 2) for rank, grade in enumerate(best))


def spearman(a: Any, b: Any) -> float:
    import numpy as np

    def ranks(values: Any) -> Any:
        _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
        return (np.cumsum(counts) - (counts - 1) / 2)[places]

    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


if __name__ == "__main__":
    main()
