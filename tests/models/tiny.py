"""Tiny random checkpoints of every family, complete folders, made from a seed: the same ones here and in make_golden.py.

The names of the weights are written down a second time, apart from the package's own, and transformers reads the folders too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

FAMILIES = ("bert", "roberta", "xlm-roberta", "distilbert", "mpnet", "electra")
POOLINGS = ("cls", "mean", "max", "weightedmean", "lasttoken")

WIDTH, LAYERS, HEADS, INNER, POSITIONS = 16, 2, 4, 24, 202

SENTENCES = [
    "A man is eating food.",
    "a man eats a piece of bread",
    "Zinc",
    "",
    "  leading and trailing space  ",
    "Größe, naïveté and 東京 in one line; it's 3.14!",
    "zinc may shorten a cold " * 24,
    "does zinc help against colds?",
]
PAIRS = [
    ("does zinc help?", "Zinc may shorten a cold."),
    ("does zinc help?", ""),
    ("", "Zinc may shorten a cold."),
    ("what is bread", "a piece of bread " * 60),
    ("a piece of bread " * 60, "what is bread"),
    ("a piece of bread " * 40, "zinc may shorten " * 41),
]


def names(family: str) -> dict[str, str]:
    """Our word → the checkpoint's name, without the head's prefix."""
    if family == "distilbert":
        layer = {
            "q": "attention.q_lin",
            "k": "attention.k_lin",
            "v": "attention.v_lin",
            "o": "attention.out_lin",
            "n1": "sa_layer_norm",
            "up": "ffn.lin1",
            "down": "ffn.lin2",
            "n2": "output_layer_norm",
        }
        return {key: "transformer.layer.{n}." + value for key, value in layer.items()}
    layer = {
        "q": "attention.self.query",
        "k": "attention.self.key",
        "v": "attention.self.value",
        "o": "attention.output.dense",
        "n1": "attention.output.LayerNorm",
        "up": "intermediate.dense",
        "down": "output.dense",
        "n2": "output.LayerNorm",
    }
    if family == "mpnet":
        layer |= {"q": "attention.attn.q", "k": "attention.attn.k", "v": "attention.attn.v", "o": "attention.attn.o"}
        layer |= {"n1": "attention.LayerNorm"}
    return {key: "encoder.layer.{n}." + value for key, value in layer.items()}


def weights(family: str, vocabulary: int, labels: int | None, seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return random.normal(0, 0.3, shape).astype(np.float32)

    def norm(name: str) -> dict[str, np.ndarray]:
        return {name + ".weight": 1 + draw(WIDTH), name + ".bias": draw(WIDTH)}

    tensors = {"embeddings.word_embeddings.weight": draw(vocabulary, WIDTH)}
    tensors["embeddings.position_embeddings.weight"] = draw(POSITIONS, WIDTH)
    if family not in ("distilbert", "mpnet"):
        tensors["embeddings.token_type_embeddings.weight"] = draw(types_of(family), WIDTH)
    if family == "mpnet":
        tensors["encoder.relative_attention_bias.weight"] = draw(32, HEADS)
    tensors |= norm("embeddings.LayerNorm")
    for n in range(LAYERS):
        for word, template in names(family).items():
            name = template.format(n=n)
            if word in ("n1", "n2"):
                tensors |= norm(name)
                continue
            rows, columns = {"up": (INNER, WIDTH), "down": (WIDTH, INNER)}.get(word, (WIDTH, WIDTH))
            tensors |= {name + ".weight": draw(rows, columns), name + ".bias": draw(rows)}
    if labels is None:
        return tensors
    prefix = {"xlm-roberta": "roberta"}.get(family, family) + "."
    tensors = {prefix + name: tensor for name, tensor in tensors.items()}
    first, last = {
        "bert": ("bert.pooler.dense", "classifier"),
        "distilbert": ("pre_classifier", "classifier"),
    }.get(family, ("classifier.dense", "classifier.out_proj"))
    tensors |= {first + ".weight": draw(WIDTH, WIDTH), first + ".bias": draw(WIDTH)}
    return tensors | {last + ".weight": draw(labels, WIDTH), last + ".bias": draw(labels)}


def types_of(family: str) -> int:
    return {"roberta": 1, "xlm-roberta": 1}.get(family, 2)


def config(family: str, vocabulary: int, labels: int | None) -> dict[str, Any]:
    class_name = {"bert": "Bert", "roberta": "Roberta", "xlm-roberta": "XLMRoberta", "distilbert": "DistilBert"}
    class_name |= {"mpnet": "MPNet", "electra": "Electra"}
    task = "Model" if labels is None else "ForSequenceClassification"
    common = {
        "architectures": [class_name[family] + task],
        "model_type": family,
        "vocab_size": vocabulary,
        "max_position_embeddings": POSITIONS,
        "pad_token_id": 1 if family in ("roberta", "xlm-roberta", "mpnet") else 0,
    }
    if labels is not None:
        common["id2label"] = {str(number): f"LABEL_{number}" for number in range(labels)}
        common["label2id"] = {f"LABEL_{number}": number for number in range(labels)}
    if family == "distilbert":
        return common | {"dim": WIDTH, "n_layers": LAYERS, "n_heads": HEADS, "hidden_dim": INNER, "activation": "gelu"}
    common |= {
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": INNER,
        "hidden_act": {"electra": "gelu_new"}.get(family, "gelu"),
        "layer_norm_eps": 1e-5 if family in ("roberta", "xlm-roberta", "mpnet") else 1e-12,
    }
    if family == "electra":
        common["embedding_size"] = WIDTH
    if family == "mpnet":
        return common | {"relative_attention_num_buckets": 32}
    return common | {"type_vocab_size": types_of(family)}


WORDS = [
    "a",
    "man",
    "is",
    "eating",
    "food",
    "eats",
    "piece",
    "of",
    "bread",
    "zinc",
    "may",
    "shorten",
    "cold",
    "does",
    "help",
    "against",
    "colds",
    "what",
    "it",
    "s",
    "in",
    "one",
    "line",
    "and",
]
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,;:!?'"


def tokenizer(family: str) -> Tokenizer:
    if family in ("bert", "distilbert", "electra", "mpnet"):
        return _wordpiece(mpnet=family == "mpnet")
    return _byte_level() if family == "roberta" else _unigram()


def _wordpiece(*, mpnet: bool) -> Tokenizer:
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"] if mpnet else ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    unknown, first, last = ("<unk>", "<s>", "</s>") if mpnet else ("[UNK]", "[CLS]", "[SEP]")
    pieces = [*special, *dict.fromkeys([*LETTERS, *WORDS, *(f"##{letter}" for letter in LETTERS)])]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token=unknown))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single=f"{first}:0 $A:0 {last}:0",
        pair=f"{first}:0 $A:0 {last}:0 {last}:0 $B:0 {last}:0" if mpnet else f"{first}:0 $A:0 {last}:0 $B:1 {last}:1",
        special_tokens=[(first, vocabulary[first]), (last, vocabulary[last])],
    )
    made.add_special_tokens(special)
    return made


def _byte_level() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: number for number, piece in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>", *alphabet])}
    merges = [("z", "i"), ("zi", "n"), ("zin", "c"), ("a", "n"), ("Ġ", "a")]
    for pair in merges:
        vocabulary["".join(pair)] = len(vocabulary)
    made = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    made.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", AddedToken("<mask>", lstrip=True)])
    return made


def _unigram() -> Tokenizer:
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(f"▁{word}", -3.0 - number / 10) for number, word in enumerate(WORDS)]
    pieces += [("▁", -2.0), *((letter, -8.0) for letter in LETTERS + LETTERS[:26].upper())]
    made = Tokenizer(models.Unigram(pieces, unk_id=3))
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("  ", " ")])
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    made.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>"])
    return made


def write_trunk(folder: Path, family: str = "bert", *, labels: int | None = None, seed: int = 7, **changes: Any) -> Path:
    """A transformers checkpoint: config.json, tokenizer.json, tokenizer_config.json, model.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    made = tokenizer(family)
    vocabulary = made.get_vocab_size()
    made.save(str(folder / "tokenizer.json"))
    write_json(folder / "config.json", config(family, vocabulary, labels) | changes)
    bert_like = family in ("bert", "distilbert", "electra")
    special = ("[CLS]", "[SEP]", "[PAD]", "[UNK]") if bert_like else ("<s>", "</s>", "<pad>", "<unk>")
    settings: dict[str, Any] = dict(zip(("cls_token", "sep_token", "pad_token", "unk_token"), special, strict=True))
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 128}
    types = ["token_type_ids"] if family in ("bert", "electra") else []
    settings["model_input_names"] = ["input_ids", *types, "attention_mask"]
    write_json(folder / "tokenizer_config.json", settings)
    save_file(weights(family, vocabulary, labels, seed), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def write_bi_encoder(
    folder: Path,
    family: str = "bert",
    *,
    pooling: str = "mean",
    normalize: bool = True,
    dense: int | None = None,
    prompts: dict[str, str] | None = None,
    seed: int = 7,
    **changes: Any,
) -> Path:
    """A sentence-transformers checkpoint in the layout that all its releases read."""
    write_trunk(folder, family, seed=seed, **changes)
    home = "sentence_transformers.models."
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 128, "do_lower_case": False})
    flags = {"cls": "cls_token", "mean": "mean_tokens", "max": "max_tokens", "weightedmean": "weightedmean_tokens"}
    flags |= {"lasttoken": "lasttoken", "mean_sqrt_len_tokens": "mean_sqrt_len_tokens"}
    stated = {f"pooling_mode_{flag}": mode == pooling for mode, flag in flags.items()}
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": WIDTH, **stated})
    if dense is not None:
        modules.append(("2_Dense", "Dense"))
        write_dense(folder / "2_Dense", dense, seed=seed + 1)
    if normalize:
        modules.append((f"{len(modules)}_Normalize", "Normalize"))
    entries = [
        {"idx": number, "name": str(number), "path": path, "type": home + kind} for number, (path, kind) in enumerate(modules)
    ]
    write_json(folder / "modules.json", entries)
    if prompts is not None:
        settings = {"prompts": prompts, "default_prompt_name": None, "similarity_fn_name": "cosine"}
        write_json(folder / "config_sentence_transformers.json", settings)
    return folder


def write_twin_tower(folder: Path) -> Path:
    """A Router: a narrow tower for queries, a wider and deeper one for documents, one normalisation after both."""
    write_bi_encoder(folder / "query", "bert", dense=6, normalize=False, seed=21)
    with sizes(width=24, layers=3):
        write_bi_encoder(folder / "document", "roberta", dense=6, pooling="cls", normalize=False, seed=22)
    types, structure = {}, {}
    for side in ("query", "document"):
        (folder / side / "modules.json").unlink()
        (folder / side / "1_Pooling").rename(folder / f"{side}_1_Pooling")
        (folder / side / "2_Dense").rename(folder / f"{side}_2_Dense")
        (folder / side).rename(folder / f"{side}_0_Transformer")
        structure[side] = [f"{side}_0_Transformer", f"{side}_1_Pooling", f"{side}_2_Dense"]
        types |= {name: "sentence_transformers.models." + name.rpartition("_")[2] for name in structure[side]}
    parameters = {"default_route": "document", "allow_empty_key": True, "route_mappings": {}}
    write_json(folder / "router_config.json", {"types": types, "structure": structure, "parameters": parameters})
    entries = [("", "Router"), ("1_Normalize", "Normalize")]
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": "sentence_transformers.models." + kind}
        for n, (path, kind) in enumerate(entries)
    ]
    write_json(folder / "1_Normalize" / "config.json", {"module_input_name": "sentence_embedding"})
    write_json(folder / "modules.json", modules)
    prompts = {"query": "what is ", "document": "a piece of "}
    settings = {"model_type": "SentenceTransformer", "prompts": prompts, "similarity_fn_name": "cosine"}
    write_json(folder / "config_sentence_transformers.json", settings)
    return folder


@contextmanager
def sizes(*, width: int, layers: int) -> Iterator[None]:
    """Within it, checkpoints are written of another width and depth."""
    global WIDTH, LAYERS
    usual = WIDTH, LAYERS
    WIDTH, LAYERS = width, layers
    try:
        yield
    finally:
        WIDTH, LAYERS = usual


def write_dense(folder: Path, outputs: int, *, inputs: int | None = None, seed: int = 8) -> None:
    inputs = inputs or WIDTH
    random = np.random.default_rng(seed)
    settings = {"in_features": inputs, "out_features": outputs, "bias": True}
    write_json(folder / "config.json", settings | {"activation_function": "torch.nn.modules.activation.Tanh"})
    tensors = {"linear.weight": random.normal(0, 0.3, (outputs, inputs)).astype(np.float32)}
    tensors["linear.bias"] = random.normal(0, 0.3, outputs).astype(np.float32)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def write_json(file: Path, value: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value), encoding="utf-8")
