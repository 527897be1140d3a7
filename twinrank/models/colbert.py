"""What a ColBERT checkpoint says of itself, in the layouts of PyLate, Stanford and sentence-transformers 6, as one."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from twinrank.errors import ModelDamagedError, ModelUnsupportedError
from twinrank.models.checkpoint import Checkpoint, read_dense
from twinrank.models.heads import Dense, Normalize, Step, check_widths
from twinrank.models.kinds import read_optional
from twinrank.types import Side

QUERY_TOKENS = 32
DOCUMENT_TOKENS = 180
MASKS = ("[MASK]", "<mask>")


@dataclass(frozen=True, slots=True)
class Expansion:
    """Mask tokens behind a query that is shorter than `length`; each is compared like a token of its own."""

    length: int
    token: int
    attended: bool
    """Whether the query's own tokens see them."""
    cut: bool = True
    """Whether `length` also is where a longer query is cut."""


@dataclass(frozen=True, slots=True)
class SideSettings:
    """How the texts of one side are tokenized."""

    max_tokens: int
    """Special tokens and marker included."""
    marker: int | None = None
    """A token put behind the first special one, which tells queries and documents apart."""
    prompt: str = ""


@dataclass(frozen=True, slots=True)
class ColbertSettings:
    """How texts become token vectors."""

    sides: Mapping[Side, SideSettings]
    expansion: Expansion | None
    skipped: tuple[int, ...]
    """Tokens that are not compared: punctuation."""
    skipped_on: tuple[str, ...] = ("document",)
    steps: tuple[Step, ...] = ()
    """Between the hidden states and the normalisation."""
    pool_factor: float = 1.0
    protected: int = 1
    """Tokens at a text's start that are never pooled."""
    pooled_on: tuple[str, ...] = ("document",)


def read_settings(checkpoint: Checkpoint, tokenizer: Tokenizer) -> ColbertSettings:
    """Read a checkpoint's settings, whichever library wrote it; raises ModelDamagedError and ModelUnsupportedError."""
    architectures = checkpoint.config.get("architectures") or ()
    if "HF_ColBERT" in architectures or (checkpoint.folder / "artifact.metadata").is_file():
        return _read_stanford(checkpoint, tokenizer)
    pylate = {"query_prefix", "document_prefix", "do_query_expansion", "attend_to_expansion_tokens", "skiplist_words"}
    if checkpoint.settings.get("model_type") == "ColBERT" or pylate & set(checkpoint.settings):
        return _read_pylate(checkpoint, tokenizer)
    return _read_sentence_transformers(checkpoint, tokenizer)


def _read_stanford(checkpoint: Checkpoint, tokenizer: Tokenizer) -> ColbertSettings:
    """artifact.metadata beside the weights, and `linear.weight` among them (Santhanam et al. 2022)."""
    said = read_optional(checkpoint.folder / "artifact.metadata")
    if "linear.weight" not in checkpoint.tensors:
        raise ModelDamagedError(f"{checkpoint.name} is a ColBERT without its projection: linear.weight is not in its weights.")
    rows = int(said.get("dim") or 128)
    projection = Dense(checkpoint.tensors.read("linear.weight", (rows, checkpoint.shape.width)), None)
    markers = said.get("query_token_id") or "[unused0]", said.get("doc_token_id") or "[unused1]"
    length = int(said.get("query_maxlen") or QUERY_TOKENS)
    mask = _mask(checkpoint, tokenizer)
    return ColbertSettings(
        sides={
            "query": SideSettings(length, _marker(markers[0], checkpoint, tokenizer)),
            "document": SideSettings(
                int(said.get("doc_maxlen") or DOCUMENT_TOKENS), _marker(markers[1], checkpoint, tokenizer)
            ),
        },
        expansion=Expansion(length, mask, bool(said.get("attend_to_mask_tokens"))),
        skipped=token_ids(string.punctuation if said.get("mask_punctuation", True) else "", tokenizer),
        steps=(projection,),
    )


def _read_pylate(checkpoint: Checkpoint, tokenizer: Tokenizer) -> ColbertSettings:
    """All in config_sentence_transformers.json, and Dense modules over token vectors (Chaffin and Sourty 2025)."""
    said = checkpoint.settings
    length = int(said.get("query_length") or QUERY_TOKENS)
    expansion = None
    if said.get("do_query_expansion") is not False:
        expansion = Expansion(length, _mask(checkpoint, tokenizer), bool(said.get("attend_to_expansion_tokens")))
    skipped = said.get("skiplist_words")
    return ColbertSettings(
        sides={
            "query": _pylate_side("query", "[Q] ", length, checkpoint, tokenizer),
            "document": _pylate_side(
                "document", "[D] ", int(said.get("document_length") or DOCUMENT_TOKENS), checkpoint, tokenizer
            ),
        },
        expansion=expansion,
        skipped=token_ids(string.punctuation if skipped is None else skipped, tokenizer),
        steps=_read_steps(checkpoint),
    )


def _pylate_side(side: Side, default: str, length: int, checkpoint: Checkpoint, tokenizer: Tokenizer) -> SideSettings:
    prefix = checkpoint.settings.get(f"{side}_prefix")
    prefix = default if prefix is None else str(prefix)
    marker = _marker(prefix, checkpoint, tokenizer) if prefix else None
    return SideSettings(length, marker, checkpoint.prompts.get(side, "").removeprefix(prefix))


def _read_sentence_transformers(checkpoint: Checkpoint, tokenizer: Tokenizer) -> ColbertSettings:
    """A MultiVectorEncoder: a module for every step, lengths and expansion with the Transformer's."""
    said = read_optional(checkpoint.folder / "sentence_bert_config.json")
    modules = {module.type: read_optional(module.folder / "config.json") for module in checkpoint.modules}
    mask, pooling = modules.get("MultiVectorMask", {}), modules.get("HierarchicalTokenPooling", {})
    if mask.get("keep_only_token_ids"):
        raise ModelUnsupportedError(f"{checkpoint.name} compares chosen tokens alone (keep_only_token_ids), as for images.")
    stated = said.get("query_expansion")
    expansion, query_tokens = None, int(said.get("query_length") or checkpoint.max_tokens)
    if stated:
        token = stated.get("token")
        expansion = Expansion(
            int(stated["length"]),
            _mask(checkpoint, tokenizer) if token is None else _marker(str(token), checkpoint, tokenizer),
            bool(stated.get("attend")),
            stated.get("strategy", "fixed") == "fixed",
        )
        query_tokens = expansion.length if expansion.cut else max(query_tokens, expansion.length)
    document_tokens = int(said.get("document_length") or checkpoint.max_tokens)
    return ColbertSettings(
        sides={
            "query": SideSettings(query_tokens, None, checkpoint.prompts.get("query", "")),
            "document": SideSettings(document_tokens, None, checkpoint.prompts.get("document", "")),
        },
        expansion=expansion,
        skipped=token_ids(mask.get("skiplist_words") or (), tokenizer),
        skipped_on=_tasks(mask.get("skiplist_tasks")),
        steps=_read_steps(checkpoint),
        pool_factor=float(pooling.get("pool_factor", 1.0)),
        protected=int(pooling.get("num_protected_tokens", 1)),
        pooled_on=_tasks(pooling.get("tasks")),
    )


def _read_steps(checkpoint: Checkpoint) -> tuple[Step, ...]:
    steps: list[Step] = []
    for module in checkpoint.modules:
        if module.type == "Dense":
            settings = {"bias": False, "activation_function": "torch.nn.modules.linear.Identity"}
            steps.append(read_dense(module, settings | read_optional(module.folder / "config.json")))
        elif module.type == "Normalize":
            steps.append(Normalize())
        elif module.type not in ("Transformer", "Dropout", "MultiVectorMask", "HierarchicalTokenPooling"):
            raise ModelUnsupportedError(
                f"{checkpoint.name} has a module {module.origin}; of late interaction, Transformer, Dense, Normalize, "
                "MultiVectorMask and HierarchicalTokenPooling are run here."
            )
    check_widths(steps, checkpoint.shape.width, checkpoint.name)
    return tuple(steps)


def _tasks(stated: Any) -> tuple[str, ...]:
    return ("document",) if stated is None else (stated,) if isinstance(stated, str) else tuple(stated)


def _marker(text: str, checkpoint: Checkpoint, tokenizer: Tokenizer) -> int:
    """The token for a marker: PyLate adds "[Q] " with its space to the vocabulary, Stanford takes [unused0]."""
    for name in (text, text.strip()):
        if (token := tokenizer.token_to_id(name)) is not None:
            return int(token)
    raise ModelDamagedError(
        f"{checkpoint.name} marks its texts with {text!r}, which is no token of its tokenizer. Get the model again."
    )


def _mask(checkpoint: Checkpoint, tokenizer: Tokenizer) -> int:
    stated = read_optional(checkpoint.folder / "tokenizer_config.json").get("mask_token")
    stated = stated.get("content") if isinstance(stated, dict) else stated
    for name in (stated, *MASKS) if stated else MASKS:
        if (token := tokenizer.token_to_id(name)) is not None:
            return int(token)
    raise ModelUnsupportedError(f"{checkpoint.name} expands its queries by mask tokens, and its tokenizer has none.")


def token_ids(words: Sequence[str], tokenizer: Tokenizer) -> tuple[int, ...]:
    """Those of the words that are one token; a word that is none would stand for every unknown one."""
    found = (tokenizer.token_to_id(word) for word in words)
    return tuple(sorted({token for token in found if token is not None}))
