"""Tiny random ColBERT checkpoints in the layouts of PyLate, Stanford and sentence-transformers 6, made from a seed.

The same ones here and in make_golden_colbert.py; tiny.py writes the trunks.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file
from tokenizers import AddedToken, Tokenizer

WIDTH, DIMENSION = 16, 8

QUERIES = ["does zinc help?", "", "what is bread", "zinc may shorten a cold " * 12, "a. man, is: eating; food!"]
DOCUMENTS = [
    "Zinc may shorten a cold.",
    "A man is eating a piece of bread, and a man eats food.",
    "",
    "...",
    "zinc, bread; food! " * 40,
    "Größe, naïveté and 東京 in one line; it's 3.14!",
]

PYLATE: dict[str, dict[str, Any]] = {
    "pylate": {"query_length": 16, "document_length": 40, "do_query_expansion": True, "attend_to_expansion_tokens": False},
    "pylate-attending": {
        "query_length": 16,
        "document_length": 40,
        "attend_to_expansion_tokens": True,
        "skiplist_words": [".", ","],
    },
    "pylate-plain": {"query_length": 16, "document_length": 40, "do_query_expansion": False, "skiplist_words": []},
}
NATIVE: dict[str, dict[str, Any]] = {
    "native": {"document_length": 40},
    "native-fixed": {
        "document_length": 40,
        "query_expansion": {"strategy": "fixed", "attend": False, "token": "[MASK]", "length": 16},
    },
    "native-min": {"query_expansion": {"strategy": "min", "attend": True, "token": "[MASK]", "length": 16}},
    "native-pooled": {"document_length": 40},
}
STANFORD = ("stanford", "stanford-attending")
LAYOUTS = (*PYLATE, *STANFORD, *NATIVE)


def write_colbert(tiny: ModuleType, folder: Path, layout: str) -> Path:
    """A checkpoint folder in one of LAYOUTS."""
    if layout in PYLATE:
        return _write_pylate(tiny, folder, PYLATE[layout])
    if layout in STANFORD:
        return _write_stanford(tiny, folder, attending=layout == "stanford-attending")
    return _write_native(tiny, folder, layout)


def _write_pylate(tiny: ModuleType, folder: Path, settings: dict[str, Any]) -> Path:
    _write_trunk(tiny, folder, ["[Q] ", "[D] "])
    common = {"query_prefix": "[Q] ", "document_prefix": "[D] ", "prompts": {}, "similarity_fn_name": "MaxSim"}
    _write_json(folder / "config_sentence_transformers.json", {"model_type": "ColBERT", **common, **settings})
    _write_modules(folder, {"": "sentence_transformers.models.Transformer", "1_Dense": "pylate.models.Dense.Dense"})
    _write_dense(folder / "1_Dense", {"use_residual": False})
    return folder


def _write_stanford(tiny: ModuleType, folder: Path, *, attending: bool) -> Path:
    _write_trunk(tiny, folder, ["[unused0]", "[unused1]"])
    config = json.loads((folder / "config.json").read_text())
    _write_json(folder / "config.json", config | {"architectures": ["HF_ColBERT"]})
    tensors = {f"bert.{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors | {"linear.weight": _projection()}, folder / "model.safetensors", metadata={"format": "pt"})
    settings = {"query_maxlen": 16, "doc_maxlen": 40, "dim": DIMENSION, "mask_punctuation": not attending}
    settings |= {"query_token_id": "[unused0]", "doc_token_id": "[unused1]", "attend_to_mask_tokens": attending}
    _write_json(folder / "artifact.metadata", settings)
    return folder


def _write_native(tiny: ModuleType, folder: Path, layout: str) -> Path:
    _write_trunk(tiny, folder, [])
    home = "sentence_transformers.base.modules"
    late = "sentence_transformers.multi_vector_encoder.modules"
    modules = {"": f"{home}.transformer.Transformer", "1_Dense": f"{home}.dense.Dense"}
    modules["2_MultiVectorMask"] = f"{late}.multi_vector_mask.MultiVectorMask"
    modules["3_Normalize"] = f"{home}.normalize.Normalize"
    tokens = {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}
    _write_dense(folder / "1_Dense", tokens)
    words = {"skiplist_words": [".", ",", "?"], "skiplist_tasks": ["document"], "keep_only_token_ids": None}
    _write_json(folder / "2_MultiVectorMask" / "config.json", words)
    _write_json(folder / "3_Normalize" / "config.json", tokens)
    if layout == "native-pooled":
        modules["4_HierarchicalTokenPooling"] = f"{late}.token_pooling.HierarchicalTokenPooling"
        pooling = {"pool_factor": 2.0, "num_protected_tokens": 1, "normalize_embeddings": True, "tasks": ["document"]}
        _write_json(folder / "4_HierarchicalTokenPooling" / "config.json", pooling)
    _write_modules(folder, modules)
    modality = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
    transformer = {"transformer_task": "feature-extraction", "modality_config": modality}
    _write_json(
        folder / "sentence_bert_config.json", {**transformer, "module_output_name": "token_embeddings", **NATIVE[layout]}
    )
    settings = {"model_type": "MultiVectorEncoder", "prompts": {"query": "what ", "document": "a "}}
    _write_json(folder / "config_sentence_transformers.json", settings | {"default_prompt_name": None})
    return folder


def _write_trunk(tiny: ModuleType, folder: Path, markers: list[str]) -> None:
    """A BERT whose tokenizer knows the markers, at the end of its vocabulary."""
    tokenizer = tiny.tokenizer("bert")
    tokenizer.add_tokens([AddedToken(marker, normalized=False) for marker in markers])
    tiny.write_trunk(folder, "bert", vocab_size=tokenizer.get_vocab_size())
    tokenizer.save(str(folder / "tokenizer.json"))
    tensors = load_file(folder / "model.safetensors")
    words = tensors["embeddings.word_embeddings.weight"]
    more = np.random.default_rng(3).normal(0, 0.3, (tokenizer.get_vocab_size() - len(words), WIDTH))
    tensors["embeddings.word_embeddings.weight"] = np.concatenate([words, more.astype(np.float32)])
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    _write_json(folder / "tokenizer_config.json", settings | {"mask_token": "[MASK]"})
    assert isinstance(tokenizer, Tokenizer)


def _projection() -> np.ndarray:
    return np.random.default_rng(9).normal(0, 0.3, (DIMENSION, WIDTH)).astype(np.float32)


def _write_dense(folder: Path, settings: dict[str, Any]) -> None:
    stated = {"in_features": WIDTH, "out_features": DIMENSION, "bias": False}
    stated["activation_function"] = "torch.nn.modules.linear.Identity"
    _write_json(folder / "config.json", stated | settings)
    save_file({"linear.weight": _projection()}, folder / "model.safetensors", metadata={"format": "pt"})


def _write_modules(folder: Path, modules: dict[str, str]) -> None:
    entries = [{"idx": n, "name": str(n), "path": path, "type": kind} for n, (path, kind) in enumerate(modules.items())]
    _write_json(folder / "modules.json", entries)


def _write_json(file: Path, value: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value), encoding="utf-8")
