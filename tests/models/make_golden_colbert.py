"""What sentence-transformers' MultiVectorEncoder says of the tiny ColBERT checkpoints, and scipy of token pooling.

python tests/models/make_golden_colbert.py, where sentence-transformers 6, torch and scipy are; writes golden/colbert.npz.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent


def main() -> None:
    # Here, so that a run of the tests, which looks into every file, asks for none of them.
    sys.path.insert(0, str(HERE))
    import tiny
    import tiny_colbert
    import torch
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.multi_vector_encoder.modules import HierarchicalTokenPooling

    golden: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for layout in tiny_colbert.LAYOUTS:
            folder = tiny_colbert.write_colbert(tiny, Path(temporary) / layout, layout)
            model = MultiVectorEncoder(str(folder), device="cpu", local_files_only=True)
            queries = model.encode_query(tiny_colbert.QUERIES)
            documents = model.encode_document(tiny_colbert.DOCUMENTS)
            for side, vectors in (("query", queries), ("document", documents)):
                for number, one in enumerate(vectors):
                    golden[f"{layout} {side} {number}"] = np.asarray(one, np.float32)
            golden[f"{layout} scores"] = np.asarray(model.similarity(queries, documents), np.float32)
    for tokens, factor, protected in ((30, 2.0, 0), (41, 3.0, 1), (7, 1.5, 2)):
        vectors = np.random.default_rng(tokens).normal(size=(tokens, 8)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        pooling = HierarchicalTokenPooling(factor, num_protected_tokens=protected)
        golden[f"pooling {tokens} {factor} {protected}"] = pooling.pool_one(torch.from_numpy(vectors)).numpy()
    np.savez_compressed(HERE / "golden" / "colbert.npz", **golden)
    print(len(golden), "arrays")


if __name__ == "__main__":
    main()
