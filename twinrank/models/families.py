"""The families of networks that run here: what their config.json means and what they call their weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from twinrank.errors import ModelDamagedError, ModelUnsupportedError
from twinrank.models.heads import Dense
from twinrank.models.trunk import Activation, Shape, Trunk
from twinrank.models.weights import Tensors

ACTIVATION_NAMES: Mapping[str, Activation] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}

BERT_EMBEDDINGS = {
    "embeddings.word": "embeddings.word_embeddings.weight",
    "embeddings.position": "embeddings.position_embeddings.weight",
    "embeddings.type": "embeddings.token_type_embeddings.weight",
    "embeddings.norm": "embeddings.LayerNorm",
}
BERT_LAYER = {
    "query": "encoder.layer.{n}.attention.self.query",
    "key": "encoder.layer.{n}.attention.self.key",
    "value": "encoder.layer.{n}.attention.self.value",
    "attention_output": "encoder.layer.{n}.attention.output.dense",
    "attention_norm": "encoder.layer.{n}.attention.output.LayerNorm",
    "intermediate": "encoder.layer.{n}.intermediate.dense",
    "output": "encoder.layer.{n}.output.dense",
    "output_norm": "encoder.layer.{n}.output.LayerNorm",
}
DISTILBERT_LAYER = {
    "query": "transformer.layer.{n}.attention.q_lin",
    "key": "transformer.layer.{n}.attention.k_lin",
    "value": "transformer.layer.{n}.attention.v_lin",
    "attention_output": "transformer.layer.{n}.attention.out_lin",
    "attention_norm": "transformer.layer.{n}.sa_layer_norm",
    "intermediate": "transformer.layer.{n}.ffn.lin1",
    "output": "transformer.layer.{n}.ffn.lin2",
    "output_norm": "transformer.layer.{n}.output_layer_norm",
}
MPNET_LAYER = BERT_LAYER | {
    "query": "encoder.layer.{n}.attention.attn.q",
    "key": "encoder.layer.{n}.attention.attn.k",
    "value": "encoder.layer.{n}.attention.attn.v",
    "attention_output": "encoder.layer.{n}.attention.attn.o",
    "attention_norm": "encoder.layer.{n}.attention.LayerNorm",
}

# A classifier's steps: the name of a linear map, and what follows it.
BERT_HEAD = (("pooler.dense", "tanh"), ("classifier", "identity"))
ROBERTA_HEAD = (("classifier.dense", "tanh"), ("classifier.out_proj", "identity"))


@dataclass(frozen=True, slots=True)
class Family:
    prefix: str
    """What stands before every name of the trunk's weights where the checkpoint has a head."""
    layer: Mapping[str, str]
    head: tuple[tuple[str, str], ...]
    counts_from_padding: bool = False
    """The first token takes the position table's row padding id + 1."""
    has_types: bool = True
    types_of_pairs: bool = True
    """The second text of a pair has token type 1; RoBERTa has a type table too, but all its tokens are of type 0."""


FAMILIES: Mapping[str, Family] = {
    "bert": Family("bert.", BERT_LAYER, BERT_HEAD),
    "roberta": Family("roberta.", BERT_LAYER, ROBERTA_HEAD, counts_from_padding=True, types_of_pairs=False),
    "xlm-roberta": Family("roberta.", BERT_LAYER, ROBERTA_HEAD, counts_from_padding=True),
    "distilbert": Family(
        "distilbert.", DISTILBERT_LAYER, (("pre_classifier", "relu"), ("classifier", "identity")), has_types=False
    ),
    "mpnet": Family("mpnet.", MPNET_LAYER, ROBERTA_HEAD, counts_from_padding=True, has_types=False),
    "electra": Family("electra.", BERT_LAYER, (("classifier.dense", "gelu"), ("classifier.out_proj", "identity"))),
}


def read_shape(family: str, config: Mapping[str, Any], where: str) -> Shape:
    """The sizes that a config.json states, under the names of its family."""
    kind = FAMILIES[family]
    names = _DISTILBERT_KEYS if family == "distilbert" else _BERT_KEYS
    try:
        layers, width, heads, intermediate, vocabulary, positions = (_size(config, name) for name in names)
        types = _size(config, "type_vocab_size", 2) if kind.has_types else 0
        buckets = _size(config, "relative_attention_num_buckets", 32) if family == "mpnet" else 0
        padding = _size(config, "pad_token_id", 1)
        epsilon = float(config.get("layer_norm_eps", 1e-12))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelDamagedError(f"{where} does not state the sizes of a {family} network: {error}.") from error
    if width % heads:
        raise ModelDamagedError(f"{where}: a width of {width} does not divide into {heads} heads.")
    _refuse_variants(family, config, width, where)
    return Shape(
        layers=layers,
        width=width,
        heads=heads,
        intermediate=intermediate,
        vocabulary=vocabulary,
        positions=positions,
        types=types,
        position_offset=padding + 1 if kind.counts_from_padding else 0,
        activation=_read_activation(config, where),
        norm_epsilon=epsilon,
        relative_buckets=buckets,
    )


def read_trunk(family: str, shape: Shape, tensors: Tensors) -> Trunk:
    """All weights of a network, under this package's names; each is checked for presence, shape and NaN."""
    prefix = FAMILIES[family].prefix
    word = BERT_EMBEDDINGS["embeddings.word"]
    if word not in tensors and prefix + word not in tensors:
        known = next((name for name in tensors.names if name.endswith(word)), None)
        prefix = known.removesuffix(word) if known else prefix
    elif word in tensors:
        prefix = ""
    weights = {
        name: tensors.read(_existing(prefix + theirs, tensors), sizes) for name, theirs, sizes in _expected(family, shape)
    }
    return Trunk(family, shape, weights)


def read_head(family: str, shape: Shape, labels: int, tensors: Tensors) -> list[Dense]:
    """The classifier's steps, from the first token's state to the labels' logits."""
    steps = []
    for number, (name, activation) in enumerate(FAMILIES[family].head):
        rows = labels if number == len(FAMILIES[family].head) - 1 else shape.width
        found = name if name + ".weight" in tensors else FAMILIES[family].prefix + name
        weight, bias = tensors.read(found + ".weight", (rows, shape.width)), tensors.read(found + ".bias", (rows,))
        steps.append(Dense(weight, bias, activation))
    return steps


def _expected(family: str, shape: Shape) -> list[tuple[str, str, tuple[int, ...]]]:
    """(our name, the checkpoint's name, shape) of every weight."""
    width, inner = shape.width, shape.intermediate
    wanted: list[tuple[str, str, tuple[int, ...]]] = [
        ("embeddings.word", BERT_EMBEDDINGS["embeddings.word"], (shape.vocabulary, width)),
        ("embeddings.position", BERT_EMBEDDINGS["embeddings.position"], (shape.positions, width)),
    ]
    if shape.types:
        wanted.append(("embeddings.type", BERT_EMBEDDINGS["embeddings.type"], (shape.types, width)))
    if shape.relative_buckets:
        wanted.append(("relative_bias", "encoder.relative_attention_bias.weight", (shape.relative_buckets, shape.heads)))
    pairs: list[tuple[str, str, tuple[int, ...]]] = [("embeddings.norm", BERT_EMBEDDINGS["embeddings.norm"], (width,))]
    sizes = {"intermediate": (inner, width), "output": (width, inner), "attention_norm": (width,), "output_norm": (width,)}
    for n in range(shape.layers):
        for ours, theirs in FAMILIES[family].layer.items():
            pairs.append((f"layers.{n}.{ours}", theirs.format(n=n), sizes.get(ours, (width, width))))
    for ours, theirs, size in pairs:
        wanted.append((ours + ".weight", theirs + ".weight", size))
        wanted.append((ours + ".bias", theirs + ".bias", size[:1]))
    return wanted


def _existing(name: str, tensors: Tensors) -> str:
    """Checkpoints turned from TensorFlow call a normalisation's weight and bias gamma and beta."""
    old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    return old if name not in tensors and old in tensors else name


_BERT_KEYS = (
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
)
_DISTILBERT_KEYS = ("n_layers", "dim", "n_heads", "hidden_dim", "vocab_size", "max_position_embeddings")


def _size(config: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = config.get(name, default)
    if value is None:
        raise KeyError(f"{name} is missing")
    if not isinstance(value, int) or value < (0 if name in ("pad_token_id", "type_vocab_size") else 1):
        raise ValueError(f"{name} is {value!r}")
    return value


def _read_activation(config: Mapping[str, Any], where: str) -> Activation:
    name = config.get("hidden_act", config.get("activation", "gelu"))
    if name not in ACTIVATION_NAMES:
        raise ModelUnsupportedError(f"{where}: the activation {name!r} is not run here; {', '.join(ACTIVATION_NAMES)} are.")
    return ACTIVATION_NAMES[name]


def _refuse_variants(family: str, config: Mapping[str, Any], width: int, where: str) -> None:
    """Networks that share a family's name and weights but compute something else would run and be wrong."""
    if (kind := config.get("position_embedding_type", "absolute")) != "absolute":
        raise ModelUnsupportedError(f"{where}: {kind!r} position embeddings are not run here, only absolute ones.")
    if config.get("is_decoder"):
        raise ModelUnsupportedError(
            f"{where}: this is a decoder, whose tokens see only what is before them; encoders are run here."
        )
    if family == "electra" and config.get("embedding_size", width) != width:
        raise ModelUnsupportedError(f"{where}: an ELECTRA whose embeddings are narrower than its layers is not run here.")
