"""An encoder-decoder's checkpoint → a model folder of CTranslate2, filled from the tensors without torch, cached and verified.

CTranslate2's own converters load a model through transformers; what they then copy (converters/transformers.py, MarianMTLoader
and T5Loader) is copied here from the safetensors file, so that a person needs neither.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from twinrank.errors import ModelDamagedError, ModelUnsupportedError, StorageError
from twinrank.models import hub
from twinrank.models.pieces import Pieces
from twinrank.models.weights import Tensors, read_json

Array: TypeAlias = npt.NDArray[np.float32]
TranslatorPrecision: TypeAlias = Literal["int8", "fp32"]

FAMILIES = ("marian", "t5", "mt5")

LAYOUT = 1
"""Raised when what is written here changes; older folders are then made anew under another name."""

MANIFEST = "twinrank.json"
"""File name → SHA-256 of what was written; a folder that does not match it is damaged."""

ACTIVATIONS: Mapping[str, str] = {
    "relu": "RELU",
    "gelu": "GELU",
    "gelu_python": "GELU",
    "gelu_new": "GELUTanh",
    "gelu_fast": "GELUTanh",
    "gelu_pytorch_tanh": "GELUTanh",
    "quick_gelu": "GELUSigmoid",
    "silu": "SWISH",
    "swish": "SWISH",
}
"""transformers' name → CTranslate2's."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What config.json says of an encoder-decoder's shape."""

    width: int
    inner: int
    """Width of all heads together, and of keys and values."""
    intermediate: int
    encoder_layers: int
    decoder_layers: int
    heads: int
    source_rows: int
    target_rows: int
    positions: int
    """The most pieces on either side; 0 where the family has no limit."""


def read_sizes(config: Mapping[str, Any], file: Path) -> Sizes:
    """Raises ModelDamagedError where config.json, `file`, lacks a size."""
    marian = config.get("model_type") == "marian"

    def size(name: str, default: Any = None) -> int:
        value = config.get(name)
        value = default if value is None else value
        if type(value) is not int or value < 1:
            raise ModelDamagedError(f"{file} says {name} = {value!r}; a whole number of at least 1 was expected.")
        return value

    width, rows = size("d_model"), size("vocab_size")
    if not marian:
        heads = size("num_heads")
        return Sizes(
            width=width,
            inner=heads * size("d_kv"),
            intermediate=size("d_ff"),
            encoder_layers=size("num_layers"),
            decoder_layers=size("num_decoder_layers", config.get("num_layers")),
            heads=heads,
            source_rows=rows,
            target_rows=rows,
            positions=0,
        )
    heads = size("encoder_attention_heads")
    if heads != size("decoder_attention_heads") or size("encoder_ffn_dim") != size("decoder_ffn_dim"):
        raise ModelUnsupportedError(f"{file}: encoder and decoder differ in heads or inner width, which is not run here.")
    target_rows = rows if config.get("share_encoder_decoder_embeddings", True) else size("decoder_vocab_size", rows)
    return Sizes(
        width=width,
        inner=width,
        intermediate=size("encoder_ffn_dim"),
        encoder_layers=size("encoder_layers"),
        decoder_layers=size("decoder_layers"),
        heads=heads,
        source_rows=rows,
        target_rows=target_rows,
        positions=size("max_position_embeddings", 1024),
    )


# -- the cache ---------------------------------------------------------------------------------------------------------


def converted(
    key: str, folder: Path, config: Mapping[str, Any], sizes: Sizes, pieces: Pieces, precision: TranslatorPrecision
) -> Path:
    """The converted model's folder: from the cache where it is there and whole, else made, and put there in one move."""
    target = hub.cache_folder() / "translators" / f"{key}-{precision}"
    if _is_whole(target):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_suffix(".lock")):
            if not _is_whole(target):  # another process may have made it meanwhile
                _make(target, folder, config, sizes, pieces, precision)
    except OSError as error:
        raise StorageError(
            f"The converted model could not be written to {target.parent} ({error}). Free some space there, or set "
            "XDG_CACHE_HOME to a folder that can be written."
        ) from error
    return target


def _make(
    target: Path, folder: Path, config: Mapping[str, Any], sizes: Sizes, pieces: Pieces, precision: TranslatorPrecision
) -> None:
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f"{target.name}."))
    try:
        spec = fill_specification(folder, config, sizes, pieces)
        spec.optimize(quantization="int8" if precision == "int8" else None)
        spec.save(str(temporary))
        hashes = {file.name: hub.file_hash(file) for file in sorted(temporary.iterdir())}
        (temporary / MANIFEST).write_text(json.dumps(hashes, indent=1), encoding="utf-8")
        if target.exists():  # a damaged one; moved away first, because a folder with files in it cannot be replaced
            target.rename(temporary / "damaged")
        temporary.rename(target)
        shutil.rmtree(target / "damaged", ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _is_whole(folder: Path) -> bool:
    """Whether every file has the hash that was written down; hashes are remembered, so this costs next to nothing."""
    try:
        hashes = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return "model.bin" in hashes and all(hub.file_hash(folder / name) == known for name, known in hashes.items())
    except (OSError, ValueError, TypeError, AttributeError):
        return False


# -- the specification -------------------------------------------------------------------------------------------------


def fill_specification(folder: Path, config: Mapping[str, Any], sizes: Sizes, pieces: Pieces) -> Any:
    """CTranslate2's TransformerSpec with the checkpoint's weights in it, vocabularies registered and checked."""
    fill = _fill_marian if config["model_type"] == "marian" else _fill_t5
    spec = fill(Tensors.open(folder), config, sizes)
    spec.register_source_vocabulary(pieces.source)
    spec.register_target_vocabulary(pieces.target)
    end, start = (special_token(config, name, pieces) for name in ("eos_token_id", "decoder_start_token_id"))
    # The start is a token like others here, with the embedding that it was trained with; CTranslate2's converter drops
    # Marian's and starts from zeros, which is another model wherever fine-tuning has touched that row.
    spec.config.bos_token = spec.config.decoder_start_token = start
    spec.config.eos_token = end
    spec.config.unk_token = "<unk>"
    spec.validate()
    return spec


def special_token(config: Mapping[str, Any], name: str, pieces: Pieces) -> str:
    """The piece that config.json gives a special role, by `eos_token_id` or `decoder_start_token_id`."""
    number = config.get(name)
    number = config.get("pad_token_id") if number is None and name == "decoder_start_token_id" else number
    number = number[0] if isinstance(number, list) and number else number
    if type(number) is not int or not 0 <= number < len(pieces.target):
        raise ModelDamagedError(f"config.json says {name} = {number!r}; a number below {len(pieces.target)} was expected.")
    return pieces.target[number]


def _fill_marian(tensors: Tensors, config: Mapping[str, Any], sizes: Sizes) -> Any:
    """MarianMT (Junczys-Dowmunt et al. 2018): the Transformer of Vaswani et al. 2017, normalised after each part."""
    from ctranslate2.specs import TransformerSpec

    if config.get("normalize_before") or config.get("normalize_embedding"):
        raise ModelUnsupportedError(f"{tensors.files[0]}: Marian networks that normalise before their parts are not run here.")
    activation = _activation(str(config.get("activation_function", "gelu")))
    layers = (sizes.encoder_layers, sizes.decoder_layers)
    spec = TransformerSpec.from_config(layers, sizes.heads, pre_norm=False, activation=activation)
    shared = None
    if config.get("share_encoder_decoder_embeddings", True):
        names = (
            "model.shared.weight",
            "model.encoder.embed_tokens.weight",
            "model.decoder.embed_tokens.weight",
            "lm_head.weight",
        )
        shared = _first(tensors, names, (sizes.source_rows, sizes.width))
    sides = ((spec.encoder, "model.encoder", sizes.source_rows), (spec.decoder, "model.decoder", sizes.target_rows))
    for side, name, rows in sides:
        table = _first(tensors, (f"{name}.embed_tokens.weight",), (rows, sizes.width), default=shared)
        embeddings = side.embeddings[0] if isinstance(side.embeddings, list) else side.embeddings
        embeddings.weight = table
        side.scale_embeddings = math.sqrt(sizes.width) if config.get("scale_embedding") else 1.0
        side.position_encodings.encodings = sinusoids(sizes.positions, sizes.width)
        for number, layer in enumerate(side.layer):
            _fill_marian_layer(tensors, f"{name}.layers.{number}", layer, sizes)
    output = (sizes.target_rows, sizes.width)
    spec.decoder.projection.weight = _first(tensors, ("lm_head.weight",), output, default=spec.decoder.embeddings.weight)
    if "final_logits_bias" in tensors:
        spec.decoder.projection.bias = tensors.read("final_logits_bias", (1, sizes.target_rows))[0]
    return spec


def _fill_marian_layer(tensors: Tensors, name: str, layer: Any, sizes: Sizes) -> None:
    square, width, inner = (sizes.width, sizes.width), sizes.width, sizes.intermediate

    def linear(part: str, shape: tuple[int, int]) -> tuple[Array, Array]:
        return tensors.read(f"{name}.{part}.weight", shape), tensors.read(f"{name}.{part}.bias", shape[:1])

    def set_norm(spec: Any, part: str) -> None:
        spec.gamma, spec.beta = tensors.read(f"{name}.{part}.weight", (width,)), tensors.read(f"{name}.{part}.bias", (width,))

    def set_attention(spec: Any, part: str) -> None:
        projections = [linear(f"{part}.{which}", square) for which in ("q_proj", "k_proj", "v_proj")]
        for linear_spec, together in zip(spec.linear, _fused(spec), strict=False):
            linear_spec.weight = np.concatenate([projections[i][0] for i in together])
            linear_spec.bias = np.concatenate([projections[i][1] for i in together])
        spec.linear[-1].weight, spec.linear[-1].bias = linear(f"{part}.out_proj", square)
        set_norm(spec.layer_norm, f"{part}_layer_norm")

    set_attention(layer.self_attention, "self_attn")
    if hasattr(layer, "attention"):
        set_attention(layer.attention, "encoder_attn")
    layer.ffn.linear_0.weight, layer.ffn.linear_0.bias = linear("fc1", (inner, width))
    layer.ffn.linear_1.weight, layer.ffn.linear_1.bias = linear("fc2", (width, inner))
    set_norm(layer.ffn.layer_norm, "final_layer_norm")


def _fill_t5(tensors: Tensors, config: Mapping[str, Any], sizes: Sizes) -> Any:
    """T5 (Raffel et al. 2020), its version 1.1 and mT5: normalised before each part, no biases, relative positions."""
    from ctranslate2.specs import TransformerSpec

    gate, _, activation = str(config.get("feed_forward_proj", "relu")).rpartition("-")
    if (gate, activation) == ("gated", "gelu"):
        activation = "gelu_new"  # as transformers reads it
    spec = TransformerSpec.from_config(
        (sizes.encoder_layers, sizes.decoder_layers),
        sizes.heads,
        pre_norm=True,
        activation=_activation(activation),
        ffn_glu=gate == "gated",
        relative_attention_bias=True,
        rms_norm=True,
    )
    if (epsilon := config.get("layer_norm_epsilon", 1e-6)) != 1e-6:
        spec.config.add_attribute("layer_norm_epsilon", float(epsilon))
    rows = (sizes.source_rows, sizes.width)
    names = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
    shared = _first(tensors, names, rows)
    for side, name in ((spec.encoder, "encoder"), (spec.decoder, "decoder")):
        (side.embeddings[0] if isinstance(side.embeddings, list) else side.embeddings).weight = shared
        side.scale_embeddings = False
        side.layer_norm.gamma = tensors.read(f"{name}.final_layer_norm.weight", (sizes.width,))
        bias = tensors.read(
            f"{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
            (int(config.get("relative_attention_num_buckets", 32)), sizes.heads),
        )
        for number, layer in enumerate(side.layer):
            layer.self_attention.relative_attention_bias = bias  # that of the first layer, for all
            layer.self_attention.relative_attention_max_distance = np.int32(config.get("relative_attention_max_distance", 128))
            _fill_t5_layer(tensors, f"{name}.block.{number}.layer", layer, sizes)
    spec.decoder.projection.weight = _first(tensors, ("lm_head.weight",), rows, default=shared)
    if config.get("tie_word_embeddings") is not False:
        spec.decoder.scale_outputs = sizes.width**-0.5
    return spec


def _fill_t5_layer(tensors: Tensors, name: str, layer: Any, sizes: Sizes) -> None:
    width, inner, intermediate = sizes.width, sizes.inner, sizes.intermediate

    def set_attention(spec: Any, part: str, norm: str) -> None:
        spec.queries_scale = 1.0  # T5 leaves out the division by the root of the head's width
        projections = [tensors.read(f"{name}.{part}.{which}.weight", (inner, width)) for which in "qkv"]
        for linear_spec, together in zip(spec.linear, _fused(spec), strict=False):
            linear_spec.weight = np.concatenate([projections[i] for i in together])
        spec.linear[-1].weight = tensors.read(f"{name}.{part}.o.weight", (width, inner))
        spec.layer_norm.gamma = tensors.read(f"{name}.{norm}.layer_norm.weight", (width,))

    set_attention(layer.self_attention, "0.SelfAttention", "0")
    if hasattr(layer, "attention"):
        set_attention(layer.attention, "1.EncDecAttention", "1")
    feed = f"{name}.{2 if hasattr(layer, 'attention') else 1}"
    ffn = layer.ffn
    gated = hasattr(ffn, "linear_0_noact")
    ffn.linear_0.weight = tensors.read(f"{feed}.DenseReluDense.{'wi_0' if gated else 'wi'}.weight", (intermediate, width))
    if gated:
        ffn.linear_0_noact.weight = tensors.read(f"{feed}.DenseReluDense.wi_1.weight", (intermediate, width))
    ffn.linear_1.weight = tensors.read(f"{feed}.DenseReluDense.wo.weight", (width, intermediate))
    ffn.layer_norm.gamma = tensors.read(f"{feed}.layer_norm.weight", (width,))


def _fused(attention: Any) -> tuple[tuple[int, ...], ...]:
    """Which of query, key and value CTranslate2 keeps as one matrix: all within a text, key and value across the two."""
    return ((0, 1, 2),) if len(attention.linear) == 2 else ((0,), (1, 2))


def sinusoids(positions: int, width: int) -> Array:
    """Vaswani et al. 2017, section 3.5, with all sines before all cosines, as Marian has them: (positions, width).

    >>> sinusoids(2, 4).round(3).tolist()
    [[0.0, 0.0, 1.0, 1.0], [0.8410000205039978, 0.009999999776482582, 0.5400000214576721, 1.0]]
    """
    frequencies = 10000.0 ** (-2.0 * np.arange((width + 1) // 2) / width)  # (half,)
    angles = np.arange(positions)[:, None] * frequencies  # (positions, half)
    return np.concatenate([np.sin(angles), np.cos(angles[:, : width // 2])], axis=1).astype(np.float32)


def _first(tensors: Tensors, names: tuple[str, ...], shape: tuple[int, int], *, default: Array | None = None) -> Array:
    """The first of the tensors that the checkpoint has; tied weights are stored once, under a name that varies."""
    name = next((name for name in names if name in tensors), None)
    if name is None and default is not None:
        if default.shape != shape:
            raise ModelDamagedError(f"{tensors.files[0]} lacks {names[0]}, of shape {shape}. Get the model again.")
        return default
    return tensors.read(name or names[0], shape)


def _activation(name: str) -> Any:
    from ctranslate2.specs import common_spec

    if name not in ACTIVATIONS:
        raise ModelUnsupportedError(f"The activation {name!r} is not run here; {', '.join(ACTIVATIONS)} are.")
    return getattr(common_spec.Activation, ACTIVATIONS[name])


def read_suppressed(folder: Path, config: Mapping[str, Any], pieces: Pieces) -> list[list[str]]:
    """Sequences that the checkpoint forbids in what it generates (`bad_words_ids`); Marian forbids its padding token."""
    file = folder / "generation_config.json"
    settings = read_json(file) if file.is_file() else config
    sequences = settings.get("bad_words_ids") or []
    try:
        return [[pieces.target[number] for number in sequence] for sequence in sequences]
    except (IndexError, TypeError) as error:
        raise ModelDamagedError(f"{file}: bad_words_ids {sequences!r} are no sequences of token numbers.") from error
