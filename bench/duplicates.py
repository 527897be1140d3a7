"""Mining duplicates measured: encoding and comparing every pair of many texts, beside sentence-transformers' mining.

python bench/duplicates.py [--texts 100000] [--threads 1] [--rounds 1] FILE.jsonl [FILE.jsonl …]   with "text" in each line

Run it with a Python that has sentence-transformers to see the ratio; both get the same vectors.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import statistics
import time
from pathlib import Path

import numpy as np
import sidebyside


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--texts", type=int, default=100_000)
    parser.add_argument("--model", default=None, help="a name or a folder; default: all-MiniLM-L6-v2")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threshold", type=float, default=0.9)
    given = parser.parse_args()
    sidebyside.limit_threads(given.threads)
    from twinrank.models.biencoder import DEFAULT_MODEL, BiEncoder
    from twinrank.pairs import mine_pairs

    lines = [line for file in given.files for line in file.read_text(encoding="utf-8").splitlines()]
    texts = list(dict.fromkeys(json.loads(line)["text"] for line in lines))[: given.texts]
    clock = time.process_time if given.threads == 1 else time.perf_counter  # of this process alone on a busy machine
    start = clock()
    vectors = BiEncoder(given.model or DEFAULT_MODEL, threads=given.threads).encode(texts)
    print(f"{len(texts):,} texts encoded in {clock() - start:.0f} s; {peak():.0f} MB at most")
    rivals = {"twinrank": lambda: mine_pairs(vectors, threshold=given.threshold, k=100_000)}
    if importlib.util.find_spec("sentence_transformers"):
        rivals["sentence-transformers"] = lambda: theirs(vectors)
    times: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(given.rounds):
        for name, mine in rivals.items():
            start = clock()
            found = mine()
            times[name].append(clock() - start)
            print(f"{name}: {times[name][-1]:.1f} s, {peak():.0f} MB at most until then", flush=True)
            if name == "twinrank":
                print(f"{len(found):,} pairs of {len(texts) * (len(texts) - 1) // 2:,} at {given.threshold} or above")
                for pair in found[:: max(1, len(found) // 5)][:5]:
                    print(f"  {pair.score:.3f}  {texts[pair.first][:60]!r} / {texts[pair.second][:60]!r}")
    for name, seconds in times.items():
        print(f"{name}: median {statistics.median(seconds):.1f} s of {len(seconds)}")


def theirs(vectors: np.ndarray) -> object:
    import torch
    from sentence_transformers.util import paraphrase_mining_embeddings

    return paraphrase_mining_embeddings(torch.from_numpy(vectors), max_pairs=100_000)


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
