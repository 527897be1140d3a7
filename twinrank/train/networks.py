"""The network that learns: made from a parent, parts of it frozen or adapted, and saved in sentence-transformers' layout."""

from __future__ import annotations

import importlib.util
import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twinrank.errors import InputError, MissingExtraError, ModelUnsupportedError, StorageError
from twinrank.models.checkpoint import Checkpoint
from twinrank.models.hub import find_folder
from twinrank.models.kinds import Kind, recognise
from twinrank.train.settings import Architecture, ModelSettings

KINDS: dict[Architecture, Kind] = {
    "bi-encoder": "BiEncoder",
    "twin-tower": "TwinTower",
    "late-interaction": "LateInteraction",
    "cross-encoder": "CrossEncoder",
}
NEEDED = ("torch", "sentence_transformers", "accelerate", "datasets")
LORA_SCALE = 2
"""Alpha over rank: Hu et al. 2021 leave it fixed while the rank varies."""


@dataclass
class Network:
    """A model that learns, and what is put back before it is saved."""

    model: Any
    """A SentenceTransformer, MultiVectorEncoder or CrossEncoder."""
    lengths: list[int | None]
    """The most tokens of each of its transformers when it is saved; while it learns, texts may be cut shorter.

    The parent's; of a new cross-encoder what it learns by, for its head has never read beyond.
    """
    fresh: str = ""
    """A pattern of the names of weights that are not the parent's; empty where all are."""


def require_extra() -> None:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(f"training needs {', '.join(missing)}: pip install 'twinrank[train]'")


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, the libraries show no bars and say no more than warnings of ours would: that is left as it was."""
    from transformers.utils import logging as said

    levels = {name: logging.getLogger(name).level for name in ("sentence_transformers", "accelerate")}
    level, bars = said.get_verbosity(), said.is_progress_bar_enabled()
    said.set_verbosity_error()
    said.disable_progress_bar()
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        said.set_verbosity(level)
        if bars:
            said.enable_progress_bar()
        for name, before in levels.items():
            logging.getLogger(name).setLevel(before)


# -- making ------------------------------------------------------------------------------------------------------------------


def make_network(settings: ModelSettings, samples: Sequence[str] = (), device: str | None = None) -> Network:
    """The parent as a model of the architecture that is asked for; `samples` are texts to begin a projection by.

    A parent of the architecture itself is taken as it is. A bi-encoder becomes both towers of a twin tower, the trunk of late
    interaction, or that of a cross-encoder, whose classifier is new.
    """
    require_extra()
    own, folder = check_parent(settings), find_folder(settings.parent).folder
    make = {
        "bi-encoder": _bi_encoder,
        "twin-tower": _twin_tower,
        "late-interaction": _late_interaction,
        "cross-encoder": _cross_encoder,
    }[settings.architecture]
    with quiet():
        network = make(settings, folder, own, device)
    for transformer in transformers(network.model):
        _limit(transformer, settings)
        if settings.layers:
            _thin(transformer.model, settings.layers)
        _freeze(transformer.model, settings)
        if settings.lora:
            _adapt(transformer.model, settings.lora, network.fresh)
    if network.fresh.startswith("1"):
        _begin_projection(network.model, samples)
    return network


def check_parent(settings: ModelSettings, head_rate: float = 0.0) -> bool:
    """Whether the parent is of the architecture itself; raises where it cannot become what the recipe says."""
    kind, wanted = recognise(find_folder(settings.parent).folder), KINDS[settings.architecture]
    if kind != wanted and not (kind == "BiEncoder" or (wanted == "BiEncoder" and kind == "CrossEncoder")):
        raise ModelUnsupportedError(
            f"{settings.parent} is a {kind}; a {settings.architecture} is trained from one of its own kind or from a bi-encoder"
        )
    own = kind == wanted
    for name, what in (("dimension", "a projection"), ("query_tokens", "a length of queries")):
        if own and getattr(settings, name):
            raise InputError(f"{settings.parent} has {what} of its own; leave {name}")
    if own and head_rate:
        raise InputError(f"{settings.parent} is a {kind} already and gets no new part; leave head_rate")
    return own


def transformers(model: Any) -> list[Any]:
    """The sentence-transformers modules that hold a network: two in a twin tower, else one."""
    first = model[0]
    return [route[0] for route in first.sub_modules.values()] if hasattr(first, "sub_modules") else [first]


def _bi_encoder(settings: ModelSettings, folder: Path, own: bool, device: str | None) -> Network:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device=device, local_files_only=True)
    return Network(model, [model.max_seq_length])


def _twin_tower(settings: ModelSettings, folder: Path, own: bool, device: str | None) -> Network:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Router

    if own:
        model = SentenceTransformer(str(folder), device=device, local_files_only=True)
    else:
        parent = SentenceTransformer(str(folder), device=device, local_files_only=True)
        query, document = ([deepcopy(module) for module in parent] for _ in range(2))
        model = SentenceTransformer(
            modules=[Router.for_query_document(query, document)],
            device=device,
            prompts=parent.prompts,
            similarity_fn_name=parent.similarity_fn_name,
        )
    return Network(model, [tower.max_seq_length for tower in transformers(model)])


def _late_interaction(settings: ModelSettings, folder: Path, own: bool, device: str | None) -> Network:
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.base.modules.dense import Dense
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
    from torch import nn

    if own:
        model = MultiVectorEncoder(str(folder), device=device, local_files_only=True)
        return Network(model, [model[0].max_seq_length])
    checkpoint = Checkpoint.find(folder)
    transformer = Transformer(str(checkpoint.folder), max_seq_length=checkpoint.max_tokens)
    transformer.query_length = settings.query_tokens or None
    modules = [transformer, MultiVectorMask(), Normalize(module_input_name="token_embeddings")]
    if settings.dimension:
        width = transformer.get_embedding_dimension()
        dense = Dense(width, settings.dimension, False, nn.Identity(), module_input_name="token_embeddings")
        modules.insert(1, dense)
    model = MultiVectorEncoder(modules=modules, device=device, similarity_fn_name="maxsim")
    return Network(model, [checkpoint.max_tokens], r"1\.linear" if settings.dimension else "")


def _cross_encoder(settings: ModelSettings, folder: Path, own: bool, device: str | None) -> Network:
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Transformer
    from torch import nn

    if own:
        model = CrossEncoder(str(folder), device=device, local_files_only=True)
        if model.num_labels != 1:
            raise ModelUnsupportedError(
                f"{settings.parent} gives {model.num_labels} labels; one that scores, with 1, can be trained on rankings"
            )
        return Network(model, [model[0].max_seq_length])
    trunk = Checkpoint.find(folder)
    limit = trunk.shape.max_tokens
    transformer = Transformer(
        str(trunk.folder),
        transformer_task="sequence-classification",
        config_kwargs={"num_labels": 1},
        max_seq_length=min(settings.max_tokens or limit, limit),
    )
    model = CrossEncoder(modules=[transformer], device=device, activation_fn=nn.Identity())
    return Network(model, [model[0].max_seq_length], r"classifier")


def share_cut(network: Network, passages: Sequence[str], queries: Sequence[str] = ()) -> float:
    """The share of the passages, or of the pairs with these queries, that are longer than the limit while the model learns."""
    if not passages:
        return 0.0
    first = transformers(network.model)[-1]
    limit = first.max_seq_length
    columns = (list(queries), list(passages)) if queries else (list(passages),)
    lengths = [len(ids) for ids in first.tokenizer(*columns, truncation=False, verbose=False)["input_ids"]]
    return 0.0 if limit is None else sum(length > limit for length in lengths) / len(lengths)


def _limit(transformer: Any, settings: ModelSettings) -> None:
    """Cut texts to the recipe's limit while the model learns; never beyond the parent's own."""
    if settings.max_tokens:
        transformer.max_seq_length = min(settings.max_tokens, transformer.max_seq_length or settings.max_tokens)


# -- what is trained ---------------------------------------------------------------------------------------------------------


def layers_of(network: Any) -> Any:
    """The stack of a transformers network's layers."""
    from torch import nn

    count = network.config.num_hidden_layers
    stacks = (module for module in network.modules() if isinstance(module, nn.ModuleList) and len(module) == count)
    found = next(stacks, None)
    if found is None:
        raise ModelUnsupportedError(f"{type(network).__name__} has no stack of {count} layers to freeze a part of")
    return found


def _thin(network: Any, count: int) -> None:
    """Keep so many layers, spread evenly, the last among them (Sanh et al. 2019 take every other one)."""
    layers = layers_of(network)
    if count > len(layers):
        raise InputError(f"layers = {count}, but the parent has {len(layers)}")
    kept = [layers[(number + 1) * len(layers) // count - 1] for number in range(count)]
    while len(layers):
        del layers[0]
    layers.extend(kept)
    network.config.num_hidden_layers = count


def _freeze(network: Any, settings: ModelSettings) -> None:
    """Take the gradient, and the dropout, from what stays as it is; set the dropout of the rest."""
    from torch import nn

    if settings.dropout >= 0:
        _set_dropout(network, settings.dropout)
    if settings.frozen == 0:
        return
    layers = layers_of(network)
    if settings.frozen > len(layers):
        raise InputError(f"frozen = {settings.frozen}, but {settings.parent} has {len(layers)} layers")
    trunk = network.base_model
    held: list[nn.Module] = [trunk] if settings.frozen == -1 else [trunk.embeddings, *layers[: settings.frozen]]
    for module in held:
        module.requires_grad_(False)
        _set_dropout(module, 0.0)


def _set_dropout(module: Any, share: float) -> None:
    from torch import nn

    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = share
        elif isinstance(getattr(part, "dropout_prob", None), float):  # attention that drops within a fused kernel
            part.dropout_prob = share


def _adapt(network: Any, rank: int, fresh: str) -> None:
    """Low-rank updates beside every linear map (Hu et al. 2021); the weights themselves, but for a new classifier, stay."""
    if importlib.util.find_spec("peft") is None:
        raise MissingExtraError("lora needs peft: pip install 'twinrank[train]'")
    from peft import LoraConfig

    network.add_adapter(LoraConfig(r=rank, lora_alpha=LORA_SCALE * rank, target_modules="all-linear"))
    if fresh == "classifier":
        network.classifier.requires_grad_(True)


def _merge_adapters(network: Any) -> None:
    """Add the updates to the weights that they stand beside, and take them away."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(network.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge(safe_merge=True)
            parent, _, own = name.rpartition(".")
            setattr(network.get_submodule(parent) if parent else network, own, module.get_base_layer())
    network._hf_peft_config_loaded = False
    del network.peft_config


def _begin_projection(model: Any, samples: Sequence[str]) -> None:
    """Begin by the directions in which token vectors differ most, so that the first MaxSim is nearly the trunk's own."""
    import torch

    if not samples:
        return
    dense = model[1]
    transformer = model[0]
    with torch.no_grad():
        features = transformer.preprocess(list(samples))
        features = {name: value.to(model.device) if hasattr(value, "to") else value for name, value in features.items()}
        out = transformer.eval()(features)
        tokens = out["token_embeddings"][out["attention_mask"].bool()]  # (tokens, width)
        _, _, directions = torch.linalg.svd(torch.nn.functional.normalize(tokens, dim=-1), full_matrices=False)
        rows = min(len(directions), len(dense.linear.weight))
        dense.linear.weight[:rows] = directions[:rows]


# -- saving ------------------------------------------------------------------------------------------------------------------


def save_network(network: Network, folder: Path, card: str = "") -> None:
    """Write the model in sentence-transformers' layout, its limits and adapters as the parent's; all of it, or nothing."""
    model = deepcopy(network.model) if _is_adapted(network.model) else network.model
    limits = [transformer.max_seq_length for transformer in transformers(model)]
    temporary = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        for transformer, length in zip(transformers(model), network.lengths, strict=True):
            transformer.max_seq_length = length
            if getattr(transformer.model, "_hf_peft_config_loaded", False):
                _merge_adapters(transformer.model)
        with quiet():
            model.save_pretrained(str(temporary), create_model_card=False)
        if card:
            (temporary / "README.md").write_text(card, encoding="utf-8")
        temporary.chmod(0o755)  # mkdtemp's folder is its owner's alone
        shutil.rmtree(folder, ignore_errors=True)
        temporary.replace(folder)
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error}. Free some space or give another folder.") from error
    finally:
        for transformer, limit in zip(transformers(network.model), limits, strict=True):
            transformer.max_seq_length = limit
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _is_adapted(model: Any) -> bool:
    return any(getattr(transformer.model, "_hf_peft_config_loaded", False) for transformer in transformers(model))
