"""Bi-encoder: one network, one vector a text; queries and documents are encoded apart and compared by cosine or dot product.

Reimers and Gurevych 2019 (Sentence-BERT). The same pass also gives one vector a token, for untrained late interaction.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Literal, NamedTuple, get_args, overload

import numpy as np

from twinrank.errors import InputError, ModelDamagedError, TruncationWarning
from twinrank.models.checkpoint import DEFAULT_MODEL, METRICS, Checkpoint, Metric
from twinrank.models.heads import Normalize, Step, apply_steps, check_widths, normalize
from twinrank.models.packing import POOLINGS
from twinrank.models.router import TowerParts
from twinrank.models.runtime import PrecisionChoice, Progress, open_network, run_network, settled_precision
from twinrank.models.tokenizer import TextTokenizer
from twinrank.models.trunk import Network, Pooling, Precision
from twinrank.pairs import Duplicate, mine_pairs
from twinrank.types import Scores, Side, Tokens, Vectors

DOCUMENT_PROMPTS = ("document", "passage", "corpus")
"""Names under which checkpoints keep the prompt of a document, in the order that sentence-transformers looks for them."""


class Embedded(NamedTuple):
    """Both views of one pass."""

    vectors: Vectors
    """(texts, dimension)"""
    token_vectors: Vectors
    """(tokens, width), each of unit length, packed like the tokens and with their special tokens."""


class BiEncoder:
    """Texts → vectors: `BiEncoder().encode(["A man is eating food."])` is (1, 384) float32.

    What the checkpoint states is used where nothing is given: `pooling`, whether vectors are normalised (`normalize`), the
    `prompts` put before queries and documents, how vectors are compared (`similarity`: cosine, dot, euclidean), and the limit
    `max_tokens`, special tokens included. `dimension` keeps the first so many dimensions, and normalises again where vectors
    are normalised (Matryoshka embeddings: Kusupati et al. 2022). `precision` is that of `runtime.open_network`. With `lazy`,
    tokenizer and network are opened when they are first used.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Checkpoint = DEFAULT_MODEL,
        *,
        precision: PrecisionChoice = "auto",
        threads: int | None = None,
        max_tokens: int | None = None,
        pooling: Pooling | None = None,
        normalize: bool | None = None,
        dimension: int | None = None,
        prompts: Mapping[str, str] | None = None,
        similarity: Metric | None = None,
        lazy: bool = False,
    ) -> None:
        checkpoint = Checkpoint.find(model, "BiEncoder").limited_to(max_tokens)
        self.name = checkpoint.name
        self.pooling = _checked_pooling(pooling, checkpoint)
        self._steps = _steps(checkpoint, normalize)
        self.normalized = bool(self._steps) and isinstance(self._steps[-1], Normalize)
        self.dimension = _checked_dimension(dimension, check_widths(self._steps, checkpoint.shape.width, self.name), self.name)
        self.metric: Metric = checkpoint.metric if similarity is None else _checked_metric(similarity)
        self.prompts = _prompts(checkpoint, prompts)
        self.max_tokens = checkpoint.max_tokens
        self.threads = threads
        self._checkpoint = checkpoint
        self.precision: Precision = settled_precision(checkpoint, precision)
        settings = ["bi-encoder", self.pooling, self.normalized, self.dimension, self.prompts]
        self.fingerprint = f"{checkpoint.fingerprint(*settings)}:{self.precision}"
        """Of what makes the vectors, and after the colon the precision: vectors of two precisions are near, not equal."""
        if not lazy:
            _ = self._tokenizer, self.network

    @cached_property
    def _tokenizer(self) -> TextTokenizer:
        return self._checkpoint.tokenizer()

    @cached_property
    def network(self) -> Network:
        """What runs the trunk."""
        return open_network(self._checkpoint, self.precision, self.threads)

    @property
    def parts(self) -> TowerParts:
        """What it is made of, for `router.write_router`."""
        return TowerParts(self._checkpoint.folder, self._checkpoint.shape.width, self.pooling, self._steps, self.max_tokens)

    def __repr__(self) -> str:
        runs = f" by {self.network.path}" if "network" in vars(self) else ""
        return f"BiEncoder({self.name!r}, dimension={self.dimension}, {self.precision}{runs})"

    # -- texts → tokens --------------------------------------------------------------------------------------------------

    def tokenize(self, texts: Sequence[str], *, side: Side = "document") -> Tokens:
        """Tokens of each text with the side's prompt and the special tokens; `dropped` counts what did not fit."""
        return self._tokenizer.encode(checked_texts(texts), self.prompts[checked_side(side)])

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, uncut, without prompt and special tokens."""
        return [int(count) for count in self._tokenizer.count(checked_texts(texts))]

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        """The characters (start, end) of every token of the text, uncut, without prompt and special tokens."""
        return self._tokenizer.offsets(text)

    @property
    def text_tokens(self) -> int:
        """Tokens that a document's own text may have: the limit less special tokens and prompt."""
        return self.max_tokens - int(self._tokenizer.encode([""], self.prompts["document"]).lengths[0])

    # -- tokens → vectors ------------------------------------------------------------------------------------------------

    @overload
    def embed(
        self, tokens: Tokens, *, side: Side = ..., token_vectors: Literal[False] = ..., progress: Progress | None = ...
    ) -> Vectors: ...

    @overload
    def embed(
        self, tokens: Tokens, *, side: Side = ..., token_vectors: Literal[True], progress: Progress | None = ...
    ) -> Embedded: ...

    def embed(
        self, tokens: Tokens, *, side: Side = "document", token_vectors: bool = False, progress: Progress | None = None
    ) -> Vectors | Embedded:
        """Vectors of tokenized texts: (texts, dimension); with `token_vectors`, those of the tokens too, from the same pass."""
        outputs = run_network(
            self.network, tokens, pooling=self.pooling, hidden=token_vectors, threads=self.threads, progress=progress
        )
        assert outputs.pooled is not None
        vectors = apply_steps(self._steps, outputs.pooled)[:, : self.dimension]  # (texts, dimension)
        if self.normalized and vectors.shape[1] < self._full_dimension:
            vectors = normalize(vectors)
        vectors = np.ascontiguousarray(vectors)
        if not np.isfinite(vectors).all():
            raise ModelDamagedError(f"{self.name} gave vectors with NaN or infinity; its weights cannot be used in float32.")
        if outputs.hidden is None:
            return vectors
        return Embedded(vectors, normalize(outputs.hidden))

    def encode(self, texts: Sequence[str], *, side: Side = "document", progress: Progress | None = None) -> Vectors:
        """Vectors of texts: (texts, dimension). TruncationWarning, once a call, where texts were longer than `max_tokens`."""
        tokens = self.tokenize(texts, side=side)
        warn_truncated(tokens, self.max_tokens)
        return self.embed(tokens, side=side, progress=progress)

    def encode_tokens(self, texts: Sequence[str], *, side: Side = "document") -> list[Vectors]:
        """The unit vectors of each text's tokens, special tokens included: one (tokens, width) array a text."""
        tokens = self.tokenize(texts, side=side)
        warn_truncated(tokens, self.max_tokens)
        packed = self.embed(tokens, side=side, token_vectors=True).token_vectors  # (tokens, width)
        return [packed[tokens.offsets[i] : tokens.offsets[i + 1]] for i in range(len(tokens))]

    # -- vectors → similarities ------------------------------------------------------------------------------------------

    def similarity(self, a: Vectors, b: Vectors) -> Scores:
        """How alike each of `a` is to each of `b`, larger is more: (a, b). Euclidean distances are given negative."""
        return compare(self.metric, np.atleast_2d(a), np.atleast_2d(b))

    def duplicates(
        self,
        texts: Sequence[str],
        *,
        threshold: float | None = None,
        k: int = 1000,
        side: Side = "document",
        progress: Progress | None = None,
    ) -> list[Duplicate]:
        """The likeliest duplicates and paraphrases: pairs of at least `threshold` in cosine, the best `k` of them, best first.

        Every pair is compared, in blocks, once: 100,000 texts are five billion pairs. A threshold is a model's own;
        `pairs.choose_threshold` finds it from labelled pairs.
        """
        return mine_pairs(normalize(self.encode(texts, side=side, progress=progress)), threshold=threshold, k=k)

    @property
    def _full_dimension(self) -> int:
        return check_widths(self._steps, self._checkpoint.shape.width, self.name)


def compare(metric: Metric, a: Vectors, b: Vectors) -> Scores:
    """Cosine, dot product or negative Euclidean distance of each of `a` with each of `b`.

    >>> compare("euclidean", np.array([[0.0, 0.0]], np.float32), np.array([[3.0, 4.0], [0.0, 1.0]], np.float32)).tolist()
    [[-5.0, -1.0]]
    """
    if metric == "cosine":
        a, b = normalize(a), normalize(b)
    products: Scores = a @ b.T  # (a, b)
    if metric == "euclidean":
        squares = np.einsum("ij,ij->i", a, a)[:, None] + np.einsum("ij,ij->i", b, b) - 2 * products
        products = -np.sqrt(np.maximum(squares, 0))
    return products


def warn_truncated(tokens: Tokens, max_tokens: int, what: str = "texts", stacklevel: int = 3) -> None:
    """Warn once, with counts, where tokens were cut off; by default in the name of the caller's caller."""
    if tokens.dropped is not None and (cut := int((tokens.dropped > 0).sum())):
        warnings.warn(
            f"{cut} of {len(tokens)} {what} were longer than the {max_tokens} tokens that the model takes; "
            f"{int(tokens.dropped.sum())} tokens were cut off and not encoded. Shorter passages lose nothing.",
            TruncationWarning,
            stacklevel=stacklevel,
        )


def _steps(checkpoint: Checkpoint, normalize: bool | None) -> tuple[Step, ...]:
    """The checkpoint's steps, with normalisation at the end added or left out where that was asked for."""
    steps = list(checkpoint.steps)
    if normalize is not None:
        while steps and isinstance(steps[-1], Normalize):
            steps.pop()
        if normalize:
            steps.append(Normalize())
    return tuple(steps)


def _prompts(checkpoint: Checkpoint, given: Mapping[str, str] | None) -> dict[Side, str]:
    """A prompt for each side, from what was given or else from the checkpoint."""
    stated = checkpoint.prompts if given is None else dict(given)
    if given is not None and (unknown := set(given) - {"query", *DOCUMENT_PROMPTS}):
        raise InputError(f"Unknown prompts {sorted(unknown)}; give 'query', 'document' or both.")
    document = next((stated[name] for name in DOCUMENT_PROMPTS if name in stated), "")
    if given is None and not stated and "e5-" in checkpoint.name.lower():
        checkpoint.note(
            "E5 models expect prompts={'query': 'query: ', 'document': 'passage: '}, which this checkpoint does not state"
        )
    return {"query": stated.get("query", ""), "document": document}


def _checked_pooling(given: Pooling | None, checkpoint: Checkpoint) -> Pooling:
    if given is not None and given not in POOLINGS:
        raise InputError(f"Unknown pooling {given!r}; choose one of {', '.join(POOLINGS)}.")
    return checkpoint.pooling if given is None else given


def _checked_dimension(given: int | None, full: int, name: str) -> int:
    if given is not None and not 1 <= given <= full:
        raise InputError(f"{name} gives {full} dimensions; {given} of them cannot be kept. Ask for 1 to {full}.")
    return full if given is None else given


def _checked_metric(given: Metric) -> Metric:
    if given not in METRICS:
        raise InputError(f"Unknown similarity {given!r}; choose {', '.join(get_args(Metric))}.")
    return METRICS[given]


def checked_side(side: Side) -> Side:
    if side not in ("query", "document"):
        raise InputError(f"Unknown side {side!r}; texts are encoded as 'query' or 'document'.")
    return side


def checked_texts(texts: Sequence[str]) -> Sequence[str]:
    if isinstance(texts, str):
        raise InputError("One text was given where several were expected; put it into a list.")
    return texts
