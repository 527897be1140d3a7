"""Models whose outputs are given by hand, so that what a loss makes of them can be computed by hand too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from sentence_transformers import CrossEncoder
from torch import Tensor, nn


class FixedVectors(nn.Module):
    """A bi-encoder: a column is the vectors that it gives."""

    model_type = "SentenceTransformer"
    similarity_fn_name = "cosine"

    def __init__(self, dimension: int = 2) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(dimension))

    def get_embedding_dimension(self) -> int:
        return len(self.shift)

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sentence_embedding": features["vectors"] + self.shift}


class FixedTokens(FixedVectors):
    """Late interaction: a column is the token vectors that it gives, and their mask."""

    model_type = "MultiVectorEncoder"
    max_seq_length = 4

    def __getitem__(self, place: int) -> FixedTokens:
        return self

    def forward(self, features: dict[str, Tensor], task: str | None = None) -> dict[str, Tensor]:
        return {"token_embeddings": features["vectors"] + self.shift, "attention_mask": features["attention_mask"]}


class FixedScores(CrossEncoder):
    """A cross-encoder that gives a pair the number which its passage spells."""

    num_labels = 1
    device = torch.device("cpu")

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.shift = nn.Parameter(torch.zeros(()))

    def preprocess(self, inputs: Sequence[tuple[str, str]], **_: Any) -> dict[str, Tensor]:
        return {"numbers": torch.tensor([[float(passage)] for _, passage in inputs])}

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"scores": features["numbers"] + self.shift}


def column(*vectors: Sequence[float]) -> dict[str, Tensor]:
    """Texts of one vector each."""
    return {"vectors": torch.tensor(vectors)}


def tokens(*texts: Sequence[Sequence[float]]) -> dict[str, Tensor]:
    """Texts of several token vectors each, padded."""
    longest = max(map(len, texts))
    width = len(texts[0][0])
    padded = [[*map(list, text), *([[0.0] * width] * (longest - len(text)))] for text in texts]
    mask = [[1] * len(text) + [0] * (longest - len(text)) for text in texts]
    return {"vectors": torch.tensor(padded), "attention_mask": torch.tensor(mask)}
