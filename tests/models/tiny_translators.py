"""Tiny random encoder-decoders, complete folders, made from a seed: the same ones here and in make_golden_translations.py.

The names of the weights are written down a second time, apart from the package's own, and transformers reads the folders too.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

WIDTH, LAYERS, HEADS, INNER, POSITIONS = 16, 2, 4, 24, 64
T5_HEAD_WIDTH = 6  # so that heads together are 24 wide, not 16

CASES = ("marian", "marian two vocabularies", "t5", "t5 gated untied", "mt5 spiece")

WORDS = ["the", "weather", "is", "beautiful", "outside", "zinc", "may", "shorten", "a", "cold", "man", "eats", "piece", "of"]
WORDS += ["bread", "does", "it", "help", "against", "colds"]
SENTENCES = [
    "the weather is beautiful outside",
    "zinc may shorten a cold",
    "does zinc help against colds",
    "a man eats a piece of bread",
    "bread",
    "colds  help   the beautiful weather outside",
    "Größe, 東京: it's 3.14",
    "zinc is a piece of the cold weather outside that may help a man against colds",
]


def write(folder: Path, case: str, *, seed: int = 16) -> Path:
    """One of CASES; the same seed gives the same weights."""
    folder.mkdir(parents=True)
    random = np.random.default_rng([seed, CASES.index(case)])
    (_write_marian if case.startswith("marian") else _write_t5)(folder, case, random)
    return folder


def _draw(random: np.random.Generator, *shape: int, scale: float = 0.35) -> np.ndarray:
    return random.normal(0, scale, shape).astype(np.float32)


def _dump(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


# -- vocabularies --------------------------------------------------------------------------------------------------------


def pieces(words: list[str]) -> list[str]:
    """Words, their first halves and second halves, and letters: enough that every word can be spelt in several ways."""
    found = [f"▁{word}" for word in words] + [f"▁{word[: len(word) // 2]}" for word in words]
    found += [word[len(word) // 2 :] for word in words] + list("abcdefghijklmnopqrstuvwxyz'.,:") + ["▁"]
    return list(dict.fromkeys(piece for piece in found if piece))


def sentencepiece(listed: list[str], specials: dict[str, int]) -> bytes:
    """A unigram model as SentencePiece's protocol buffer: pieces (field 1), trainer (2) and normalizer settings (3).

    `specials` holds the special pieces, which come first, with their types: 2 is the unknown one, 3 is control.
    """

    def field(number: int, content: bytes) -> bytes:
        length, prefix = len(content), bytearray()
        while length > 127:
            prefix.append(length & 127 | 128)
            length >>= 7
        return bytes([number << 3 | 2, *prefix, length]) + content

    def piece(text: str, score: float, kind: int) -> bytes:
        return field(1, field(1, text.encode()) + b"\x15" + struct.pack("<f", score) + bytes([0x18, kind]))

    proto = b"".join(piece(text, 0.0, kind) for text, kind in specials.items())
    proto += b"".join(piece(text, -1.0 - 0.01 * number, 1) for number, text in enumerate(listed))
    ids = dict.fromkeys(specials)
    numbers = {name: list(ids).index(name) for name in ids}
    trainer = b"\x18\x01"  # model_type: unigram
    for key, name in ((40, "<unk>"), (41, "<s>"), (42, "</s>"), (43, "<pad>")):
        trainer += _varint(key << 3) + _varint(numbers.get(name, -1))
    return proto + field(2, trainer) + field(3, field(1, b"identity"))


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


# -- Marian --------------------------------------------------------------------------------------------------------------


def _write_marian(folder: Path, case: str, random: np.random.Generator) -> None:
    shared = case == "marian"
    source, target = pieces(WORDS), pieces([*WORDS[:8], "temps", "beau"])
    specials = {"<unk>": 2, "<s>": 3, "</s>": 3}
    (folder / "source.spm").write_bytes(sentencepiece(source, specials))
    (folder / "target.spm").write_bytes(sentencepiece(target, specials))
    tokenizer = {"source_lang": "en", "target_lang": "fr", "separate_vocabs": not shared, "tokenizer_class": "MarianTokenizer"}
    _dump(folder / "tokenizer_config.json", tokenizer)
    if shared:
        both = ["</s>", "<unk>", ">>fra<<", *dict.fromkeys(source + target), "<pad>"]
        _dump(folder / "vocab.json", {piece: number for number, piece in enumerate(both)})
        rows = target_rows = len(both)
        pad = rows - 1
    else:  # the padding token has one number on both sides, as in opus-mt-tc-big
        first = ["</s>", "<unk>", "<pad>"]
        _dump(folder / "vocab.json", {piece: number for number, piece in enumerate([*first, *source])})
        _dump(folder / "target_vocab.json", {piece: number for number, piece in enumerate([*first, *target])})
        rows, target_rows, pad = len(source) + 3, len(target) + 3, 2
    config = {
        "architectures": ["MarianMTModel"],
        "model_type": "marian",
        "is_encoder_decoder": True,
        "activation_function": "swish" if shared else "gelu",
        "d_model": WIDTH,
        "encoder_layers": LAYERS,
        "decoder_layers": LAYERS + 1,
        "encoder_attention_heads": HEADS,
        "decoder_attention_heads": HEADS,
        "encoder_ffn_dim": INNER,
        "decoder_ffn_dim": INNER,
        "max_position_embeddings": POSITIONS,
        "scale_embedding": shared,
        "static_position_embeddings": True,
        "share_encoder_decoder_embeddings": shared,
        "tie_word_embeddings": True,
        "vocab_size": rows,
        "decoder_vocab_size": target_rows,
        "eos_token_id": 0,
        "pad_token_id": pad,
        "bos_token_id": 0,
        "decoder_start_token_id": pad,
    }
    _dump(folder / "config.json", config)
    generation = {"bad_words_ids": [[pad]], "eos_token_id": 0, "pad_token_id": pad, "decoder_start_token_id": pad}
    _dump(folder / "generation_config.json", {**generation, "renormalize_logits": True, "max_length": POSITIONS})
    bias = _draw(random, 1, target_rows)
    bias[0, 0] = 3.0  # so that some translations end
    tensors = {"final_logits_bias": bias}
    if shared:
        tensors["model.shared.weight"] = _draw(random, rows, WIDTH, scale=0.3)  # the start token's row is not zero
    else:
        tensors["model.encoder.embed_tokens.weight"] = _draw(random, rows, WIDTH, scale=0.3)
        tensors["model.decoder.embed_tokens.weight"] = _draw(random, target_rows, WIDTH, scale=0.3)
    for side, layers in (("encoder", LAYERS), ("decoder", LAYERS + 1)):
        for layer in range(layers):
            tensors |= _marian_layer(f"model.{side}.layers.{layer}", side == "decoder", random)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _marian_layer(name: str, decoder: bool, random: np.random.Generator) -> dict[str, np.ndarray]:
    tensors: dict[str, np.ndarray] = {}

    def linear(part: str, rows: int, columns: int) -> None:
        tensors[f"{name}.{part}.weight"] = _draw(random, rows, columns, scale=0.9)
        tensors[f"{name}.{part}.bias"] = _draw(random, rows)

    for attention in ("self_attn", "encoder_attn")[: 1 + decoder]:
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            linear(f"{attention}.{projection}", WIDTH, WIDTH)
    linear("fc1", INNER, WIDTH)
    linear("fc2", WIDTH, INNER)
    for norm in ("self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm"):
        if decoder or norm != "encoder_attn_layer_norm":
            tensors[f"{name}.{norm}.weight"] = 1 + _draw(random, WIDTH)
            tensors[f"{name}.{norm}.bias"] = _draw(random, WIDTH)
    return tensors


# -- T5 ------------------------------------------------------------------------------------------------------------------


def _write_t5(folder: Path, case: str, random: np.random.Generator) -> None:
    listed = pieces([*WORDS, "summarize:", "translate"])
    if case == "mt5 spiece":
        (folder / "spiece.model").write_bytes(sentencepiece(listed, {"<pad>": 3, "</s>": 3, "<unk>": 2}))
        rows = len(listed) + 3
    else:
        rows = _write_unigram(folder, listed) + 5  # rows beyond the vocabulary, as T5 has 28
    gated = case != "t5"
    config = {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "mt5" if case.startswith("mt5") else "t5",
        "is_encoder_decoder": True,
        "d_model": WIDTH,
        "d_kv": T5_HEAD_WIDTH,
        "d_ff": INNER,
        "num_layers": LAYERS + 1,
        "num_decoder_layers": LAYERS,
        "num_heads": HEADS,
        "vocab_size": rows,
        "feed_forward_proj": "gated-gelu" if gated else "relu",
        "tie_word_embeddings": not gated,
        "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 12,
        "layer_norm_epsilon": 1e-6 if gated else 1e-3,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "decoder_start_token_id": 0,
        "task_specific_params": {"summarization": {"prefix": "summarize: ", "num_beams": 4}},
    }
    _dump(folder / "config.json", config)
    tensors = {"shared.weight": _draw(random, rows, WIDTH, scale=1.0)}
    if gated:
        tensors["lm_head.weight"] = _draw(random, rows, WIDTH)
        tensors["lm_head.weight"][1] *= 1.7  # so that some translations end
    for side, layers in (("encoder", LAYERS + 1), ("decoder", LAYERS)):
        for layer in range(layers):
            tensors |= _t5_block(f"{side}.block.{layer}.layer", side == "decoder", gated, random)
        tensors[f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"] = _draw(random, 8, HEADS, scale=1.0)
        tensors[f"{side}.final_layer_norm.weight"] = 1 + _draw(random, WIDTH)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _t5_block(name: str, decoder: bool, gated: bool, random: np.random.Generator) -> dict[str, np.ndarray]:
    tensors = {}
    inner = HEADS * T5_HEAD_WIDTH
    for number, attention in enumerate(("SelfAttention", "EncDecAttention")[: 1 + decoder]):
        for projection in "qkv":
            tensors[f"{name}.{number}.{attention}.{projection}.weight"] = _draw(random, inner, WIDTH)
        tensors[f"{name}.{number}.{attention}.o.weight"] = _draw(random, WIDTH, inner)
        tensors[f"{name}.{number}.layer_norm.weight"] = 1 + _draw(random, WIDTH)
    last = f"{name}.{1 + decoder}"
    for matrix in ("wi_0", "wi_1") if gated else ("wi",):
        tensors[f"{last}.DenseReluDense.{matrix}.weight"] = _draw(random, INNER, WIDTH)
    tensors[f"{last}.DenseReluDense.wo.weight"] = _draw(random, WIDTH, INNER)
    tensors[f"{last}.layer_norm.weight"] = 1 + _draw(random, WIDTH)
    return tensors


def _write_unigram(folder: Path, listed: list[str]) -> int:
    """tokenizer.json as T5's is made; returns the size of its vocabulary."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocabulary += [(piece, -1.0 - 0.01 * number) for number, piece in enumerate(listed)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    _dump(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 48, **special})
    return len(vocabulary)
