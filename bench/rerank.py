"""Reranking measured: 100 pairs of 128 tokens through a 6-layer, 384-wide cross-encoder, beside CrossEncoder.predict in fp32.

python bench/rerank.py [--model FOLDER] [--data FOLDER] [--threads 1] [--rounds 9] [--path avx2]

Without a model, a cross-encoder is made of the installed all-MiniLM-L6-v2's layers and a random head: good for timing, not
for ranking. Pairs are claims and abstracts of scifact, cut to 128 tokens. Only [CLS] goes through the last layer.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import sidebyside
from sidebyside import DATA, interleave, print_table, read_texts

PAIRS, TOKENS = 100, 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--path", default="", help="the engine's instruction set; default: the best")
    given = parser.parse_args()
    sidebyside.limit_threads(given.threads)
    if given.path:
        os.environ["TWINRANK_ENGINE"] = given.path
    with tempfile.TemporaryDirectory() as work:
        measure(given, given.model or make_cross_encoder(Path(work)))


def make_cross_encoder(folder: Path) -> Path:
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    from twinrank.models.checkpoint import Checkpoint

    source = Checkpoint.find().folder
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(source, num_labels=1)
    AutoModelForSequenceClassification.from_pretrained(source, config=config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


def measure(given: argparse.Namespace, folder: Path) -> None:
    import numpy as np
    import torch
    from sentence_transformers import CrossEncoder as TheirCrossEncoder

    from twinrank.models import native
    from twinrank.models.crossencoder import CrossEncoder

    torch.set_num_threads(given.threads)
    theirs = TheirCrossEncoder(str(folder), device="cpu", max_length=TOKENS)
    ours = CrossEncoder(folder, max_tokens=TOKENS, threads=given.threads)
    query = read_texts(given.data / "scifact" / "queries.jsonl", 1)[0]
    passages = [text for text in read_texts(given.data / "scifact" / "corpus.jsonl") if len(text) > 900][:PAIRS]
    pairs = [(query, passage) for passage in passages]

    path = ours.network.path
    a, b = np.asarray(ours.score(pairs)), np.asarray(theirs.predict(pairs)).ravel()
    timings = interleave(
        {
            "CrossEncoder.predict fp32": lambda: theirs.predict(pairs, show_progress_bar=False),
            f"twinrank {ours.network.precision}, {path}": lambda: ours.score(pairs),
        },
        rounds=given.rounds,
        threads=given.threads,
    )
    roof = native.roof(path, "int8", 0.5)
    attention_roof = native.roof(path, "bf16" if path == "avx512-vnni-bf16" else "fp32", 0.5)
    ideal = sidebyside.ideal_seconds(ours.network.shape, [TOKENS] * PAIRS, roof, attention_roof, last_row_alone=True)
    rows = []
    for name, timing in timings.items():
        of_roof = f"{100 * ideal / given.threads / timing.seconds:.0f} %" if name.startswith("twinrank") else ""
        rows.append([name, f"{1e3 * timing.seconds:.1f}", f"{timing.ratio:.2f}", of_roof])
    title = f"{PAIRS} pairs of {TOKENS} tokens, {given.threads} thread(s), medians of {given.rounds} interleaved rounds"
    print_table(f"{title}, path {path}", ["", "ms", "times as fast", "of the roof"], rows)
    print(f"\nlargest difference between the scores: {abs(a - b).max():.4f}; their range: {b.max() - b.min():.4f}")


if __name__ == "__main__":
    main()
