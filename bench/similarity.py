"""Similarity of sentences: Spearman on STS-B (en, fr, ru), accuracy and F1 on MRPC with a threshold from its own dev part.

python bench/similarity.py DATA [MODEL …]   DATA holds stsb_en, stsb_fr, stsb_ru and mrpc; a MODEL is a name or a folder
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np

from twinrank.models.biencoder import BiEncoder
from twinrank.models.hub import DEFAULT_MODEL
from twinrank.pairs import choose_threshold, judge_threshold, spearman

STS = ("stsb_en", "stsb_fr", "stsb_ru")


def read_pairs(file: Path) -> tuple[list[str], list[str], np.ndarray]:
    """First sentences, second sentences, labels."""
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [row["sentence1"] for row in rows], [row["sentence2"] for row in rows], np.array([float(r["label"]) for r in rows])


def cosines(encoder: BiEncoder, firsts: list[str], seconds: list[str]) -> np.ndarray:
    a, b = encoder.encode(firsts), encoder.encode(seconds)
    return np.einsum("ij,ij->i", a, b) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def spearman_on_test(encoder: BiEncoder, folder: Path) -> float:
    firsts, seconds, labels = read_pairs(folder / "test.tsv")
    return spearman(cosines(encoder, firsts, seconds), labels)


def paraphrases(encoder: BiEncoder, folder: Path, by: str) -> str:
    """Accuracy and F1 on test; the threshold is chosen on dev."""
    firsts, seconds, labels = read_pairs(folder / "dev.tsv")
    chosen = choose_threshold(cosines(encoder, firsts, seconds), labels, by=by)
    firsts, seconds, labels = read_pairs(folder / "test.tsv")
    judged = judge_threshold(chosen.value, cosines(encoder, firsts, seconds), labels)
    return f"{chosen.value:.3f}: {100 * judged.accuracy:.1f} / {100 * judged.f1:.1f}"


def main(data: str, *models: str) -> None:
    titles = [*STS, "mrpc, dev accuracy: acc / F1", "mrpc, dev F1: acc / F1"]
    print(f"| model | | {' | '.join(titles)} |\n|---|---|{'---|' * len(titles)}")
    for model in models or (DEFAULT_MODEL,):
        for precision in ("fp32", "int8"):
            encoder = BiEncoder(model, precision=precision)
            cells = [f"{100 * spearman_on_test(encoder, Path(data) / name):.2f}" for name in STS]
            cells += [paraphrases(encoder, Path(data) / "mrpc", by) for by in ("accuracy", "f1")]
            print(f"| {Path(model).name} | {precision} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
