"""The vectors of many passages, encoded once and kept: float32, one a row, in a .npy file that is mapped.

python bench/vectors.py ~/.cache/twinrank-data/million/passages.txt --out ~/.cache/twinrank-data/million/vectors.npy

What was encoded stays when it is stopped; it goes on from there.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from time import perf_counter

import numpy as np

from twinrank.models.biencoder import BiEncoder

AT_ONCE = 16_384


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("passages", type=Path, help="one passage a line")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    texts = options.passages.read_text(encoding="utf-8").splitlines()
    encoder = BiEncoder(threads=options.threads)
    raw = options.out.with_suffix(".partial")
    row_bytes = 4 * encoder.dimension
    done = raw.stat().st_size // row_bytes // AT_ONCE * AT_ONCE if raw.exists() else 0
    started, first = perf_counter(), done
    with raw.open("r+b" if done else "wb") as file:
        file.truncate(done * row_bytes)
        file.seek(done * row_bytes)
        while done < len(texts):
            file.write(encoder.encode(texts[done : done + AT_ONCE]).tobytes())
            done = min(done + AT_ONCE, len(texts))
            print(f"{done:,} of {len(texts):,}, {(done - first) / (perf_counter() - started):,.0f} a second", flush=True)
    vectors = np.memmap(raw, np.float32, "r", shape=(len(texts), encoder.dimension))
    np.save(options.out, vectors)
    raw.unlink()


if __name__ == "__main__":
    main()
