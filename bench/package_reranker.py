"""A trained cross-encoder → the folder of weights of a data package: matrices as int8, the files that twinrank reads beside.

python bench/package_reranker.py FOLDER/reranker/model packages/twinrank-reranker-en/twinrank_reranker_en/model
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from twinrank.models.weights import SINGLE, Tensors, write_tensors

BESIDE = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("target", type=Path)
    given = parser.parse_args()
    given.target.mkdir(parents=True, exist_ok=True)
    tensors = Tensors.open(given.model)
    write_tensors(given.target / SINGLE, {name: tensors.read(name) for name in tensors.names}, int8=True)
    for name in BESIDE:
        if (given.model / name).exists():
            shutil.copyfile(given.model / name, given.target / name)
    before, after = ((folder / SINGLE).stat().st_size / 1e6 for folder in (given.model, given.target))
    print(f"{given.target}: {after:.1f} MB, in place of {before:.1f}")


if __name__ == "__main__":
    main()
