"""A checkpoint: its files found and verified, and what they say about network, pooling, prompts and limits.

Read are the layouts of sentence-transformers (2 to 6) and of transformers. Weights are loaded when they are asked for, so
that an engine with its own cache of them starts without.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from twinrank.errors import InputError, ModelDamagedError, ModelUnsupportedError
from twinrank.models import hub
from twinrank.models.families import FAMILIES, read_head, read_shape, read_trunk
from twinrank.models.heads import Array, Dense, Normalize, Step, check_widths, read_activation
from twinrank.models.kinds import HOW_TO_OPEN, Kind, Module, read_kind, read_modules, read_optional, require_kind
from twinrank.models.router import route_modules
from twinrank.models.tokenizer import TextTokenizer, read_tokenizer
from twinrank.models.trunk import Pooling, Shape, Trunk
from twinrank.models.weights import Tensors, read_json, weight_files
from twinrank.types import Side

DEFAULT_MODEL = hub.DEFAULT_MODEL

log = logging.getLogger("twinrank")

Metric: TypeAlias = Literal["cosine", "dot", "euclidean"]

POOLING_FLAGS: Mapping[str, str] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
POOLING_MODES: Mapping[str, Pooling] = {
    "cls": "cls",
    "max": "max",
    "mean": "mean",
    "weightedmean": "weighted_mean",
    "lasttoken": "last",
}
METRICS: Mapping[str, Metric] = {"cosine": "cosine", "dot": "dot", "dot_product": "dot", "euclidean": "euclidean"}


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint folder; `find` makes one: `Checkpoint.find().shape.width` is 384."""

    name: str
    """What it was found by: a hub name, or the absolute path of its folder."""
    folder: Path
    """Where config.json, tokenizer.json and the weights are."""
    kind: Kind
    family: str
    shape: Shape
    config: Mapping[str, Any]
    settings: Mapping[str, Any]
    """config_sentence_transformers.json, or nothing."""
    modules: tuple[Module, ...]
    max_tokens: int
    lower_case: bool
    expected_sha256: str | None = None
    notes: list[str] = field(default_factory=list)
    """What was assumed because the checkpoint does not say it; also logged."""
    projection: Array | None = field(default=None, compare=False)
    """(dimensions, dimensions before): a linear map after the checkpoint's own steps, before their last normalisation."""

    @classmethod
    def find(
        cls,
        model: str | os.PathLike[str] | Checkpoint = DEFAULT_MODEL,
        kind: Kind | None = None,
        *,
        side: Side | None = None,
    ) -> Checkpoint:
        """Find and read a checkpoint by folder or hub name; `hub.find_folder` tells where it is looked for.

        One of another architecture than `kind` is refused. Of a twin tower's folder, `side` says which tower. Raises
        ModelNotFoundError, ModelDamagedError (missing files, wrong hash, files that contradict each other) and
        ModelUnsupportedError (a family, a file format or a module that is not run here, or one that brings its own code).
        """
        if isinstance(model, Checkpoint):
            return model if kind is None else model.require(kind)
        found = hub.find_folder(model)
        modules = read_modules(found.folder)
        if side is not None:
            require_kind(found.name, read_kind(found.folder, modules), "TwinTower")
            modules = route_modules(found.folder, modules, side)
        actual = read_kind(found.folder, modules)
        if kind is not None:
            require_kind(found.name, actual, kind)
        if actual in ("TwinTower", "Translator", "CLIP"):
            way = HOW_TO_OPEN[actual].format(name=found.name)
            raise ModelUnsupportedError(f"{found.name} is a {actual}, not one encoder, and is opened as {way}.")
        folder = next((module.folder for module in modules if module.type == "Transformer"), found.folder)
        config = read_json(folder / "config.json")
        settings = read_optional(found.folder / "config_sentence_transformers.json")
        family = _read_family(config, folder)
        shape = read_shape(family, config, str(folder / "config.json"))
        sentence = _read_sentence_settings(folder)
        checkpoint = cls(
            name=found.name,
            folder=folder,
            kind=actual,
            family=family,
            shape=shape,
            config=config,
            settings=settings,
            modules=modules,
            max_tokens=_read_max_tokens(shape, sentence, read_optional(folder / "tokenizer_config.json"), folder),
            lower_case=bool(sentence.get("do_lower_case", False)),
            expected_sha256=found.sha256,
        )
        checkpoint._verify()
        return checkpoint

    def _verify(self) -> None:
        """Hash the weights; compare where the hash is known."""
        if self.expected_sha256 is not None:
            (file,) = weight_files(self.folder)
            if (actual := hub.file_hash(file)) != self.expected_sha256:
                raise ModelDamagedError(
                    f"{file} has SHA-256 {actual}, but {self.name} has {self.expected_sha256}: the file is damaged or "
                    "another one. Remove it and get the model again."
                )
        else:
            weight_files(self.folder)

    def require(self, kind: Kind) -> Checkpoint:
        """Refuse, with the name of the right class, what is opened as another architecture than its own."""
        require_kind(self.name, self.kind, kind)
        return self

    def projected(self, matrix: Array) -> Checkpoint:
        """The same checkpoint with a projection at its end, in the place of one that was given before."""
        width = check_widths(replace(self, projection=None).steps, self.shape.width, self.name)
        projection = np.ascontiguousarray(matrix, np.float32)
        if projection.ndim != 2 or projection.shape[1] != width or not projection.shape[0]:
            raise InputError(
                f"{self.name} gives {width} dimensions, so its projection is a matrix (dimensions wanted, {width}); "
                f"one of shape {projection.shape} was given."
            )
        if not np.isfinite(projection).all():
            raise InputError(f"The projection for {self.name} has NaN or infinity in it.")
        return replace(self, projection=projection)

    def limited_to(self, max_tokens: int | None) -> Checkpoint:
        """The same checkpoint with another limit; None keeps its own."""
        if max_tokens is None:
            return self
        if not 1 <= max_tokens <= self.shape.max_tokens:
            raise InputError(f"{self.name} takes 1 to {self.shape.max_tokens} tokens; max_tokens={max_tokens} was asked for.")
        return replace(self, max_tokens=max_tokens)

    def note(self, text: str) -> None:
        """Say what was assumed."""
        self.notes.append(text)
        log.warning("%s: %s", self.name, text)

    # -- what is loaded when it is asked for -----------------------------------------------------------------------------

    @cached_property
    def tensors(self) -> Tensors:
        return Tensors.open(self.folder)

    def trunk(self) -> Trunk:
        """The network's weights, read and checked; not kept."""
        return read_trunk(self.family, self.shape, self.tensors)

    def tokenizer(self) -> TextTokenizer:
        """The tokenizer, made to cut at `max_tokens`."""
        native = read_tokenizer(
            self.folder,
            self.family,
            lower_case=read_optional(self.folder / "tokenizer_config.json").get("do_lower_case", True),
        )
        if native.get_vocab_size(with_added_tokens=True) > self.shape.vocabulary:
            raise ModelDamagedError(
                f"The tokenizer of {self.name} has {native.get_vocab_size(with_added_tokens=True)} tokens, but its network "
                f"has embeddings of {self.shape.vocabulary}. The two are not of one model; get the model again."
            )
        inputs = read_optional(self.folder / "tokenizer_config.json").get("model_input_names") or ["token_type_ids"]
        types = FAMILIES[self.family].types_of_pairs and self.shape.types > 1 and "token_type_ids" in inputs
        return TextTokenizer(native, max_tokens=self.max_tokens, lower_case=self.lower_case, types=types)

    @cached_property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights; of several shards, that of their hashes."""
        hashes = [hub.file_hash(file) for file in weight_files(self.folder)]
        return hashes[0] if len(hashes) == 1 else hashlib.sha256(" ".join(hashes).encode()).hexdigest()

    @property
    def cache_key(self) -> str:
        """Equal for equal networks: the weights' hash and the sizes and switches that they run with."""
        return _hash([self.weights_sha256, self.family, asdict(self.shape)])[:32]

    def fingerprint(self, *settings: Any) -> str:
        """16 hex digits over weights, sizes, tokenizer, modules, limit and `settings` (pooling, prompts, precision…)."""
        files = [self.folder / "tokenizer.json", self.folder / "vocab.txt"]
        files += [
            file for module in self.modules[1:] for file in (module.folder / "config.json", module.folder / "model.safetensors")
        ]
        hashes = [hub.file_hash(file) if file.is_file() else "" for file in files]
        content = [self.weights_sha256, self.family, asdict(self.shape), hashes, self.max_tokens, self.lower_case, *settings]
        if self.projection is not None:
            content.append(hashlib.sha256(self.projection.tobytes()).hexdigest())
        return _hash(content)[:16]

    # -- bi-encoders ----------------------------------------------------------------------------------------------------

    @cached_property
    def pooling(self) -> Pooling:
        """The pooling that the checkpoint states; a plain transformers folder states none and is pooled by the mean."""
        module = next((module for module in self.modules if module.type == "Pooling"), None)
        if module is None:
            self.note(
                "no modules.json, so token vectors are pooled by their mean, as sentence-transformers does; or give `pooling`"
            )
            return "mean"
        return _read_pooling(module, self)

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """What follows the pooling: Dense maps and normalisation, in order."""
        steps: list[Step] = []
        for module in self.modules:
            settings = read_optional(module.folder / "config.json") if module.type in ("Dense", "Normalize") else {}
            if settings.get("module_input_name", "sentence_embedding") != "sentence_embedding":
                raise ModelUnsupportedError(
                    f"{self.name}: a {module.type} over {settings['module_input_name']} is not run here."
                )
            if module.type == "Dense":
                steps.append(read_dense(module, settings))
            elif module.type == "Normalize":
                steps.append(Normalize())
            elif module.type not in ("Transformer", "Pooling", "Dropout"):
                raise ModelUnsupportedError(
                    f"{self.name} has a module {module.origin}; Transformer, Pooling, Dense and Normalize are run here."
                )
        if self.projection is not None:
            end = len(steps)
            while end and isinstance(steps[end - 1], Normalize):
                end -= 1
            steps.insert(end, Dense(self.projection, None))
        check_widths(steps, self.shape.width, self.name)
        return tuple(steps)

    @property
    def prompts(self) -> dict[str, str]:
        """Prompts by name, as the checkpoint states them; no empty ones."""
        prompts = self.settings.get("prompts") or {}
        return {str(name): str(prompt) for name, prompt in prompts.items() if prompt}

    @property
    def metric(self) -> Metric:
        """How its vectors are compared; cosine where the checkpoint does not say."""
        name = self.settings.get("similarity_fn_name") or "cosine"
        if name not in METRICS:
            raise ModelUnsupportedError(
                f"{self.name} compares vectors by {name!r}; {', '.join(METRICS)} are known. Give `similarity`."
            )
        return METRICS[name]

    # -- cross-encoders --------------------------------------------------------------------------------------------------

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes' names, in the order of the logits."""
        names = self.config.get("id2label") or {}
        count = len(names) or int(self.config.get("num_labels", 2))  # transformers' default, which config.json then leaves out
        return tuple(str(names.get(str(number), f"LABEL_{number}")) for number in range(count))

    @property
    def activation(self) -> str:
        """What is applied to the logits: as stated; else a sigmoid for one label and nothing for several, as elsewhere."""
        stated = (
            (self.config.get("sentence_transformers") or {}).get("activation_fn")
            or self.config.get("sbert_ce_default_activation_function")
            or self.settings.get("activation_fn")
        )
        if stated:
            return read_activation(str(stated), self.name)
        return "sigmoid" if len(self.labels) == 1 else "identity"

    def head(self) -> tuple[Dense, ...]:
        """The classifier over the first token's state."""
        return tuple(read_head(self.family, self.shape, len(self.labels), self.tensors))


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _read_family(config: Mapping[str, Any], folder: Path) -> str:
    if config.get("auto_map"):
        raise ModelUnsupportedError(
            f"{folder} comes with its own Python code (auto_map in config.json, what trust_remote_code is for). twinrank runs "
            f"no code from a model. Choose one of the families {', '.join(FAMILIES)}."
        )
    family = config.get("model_type")
    if family not in FAMILIES:
        raise ModelUnsupportedError(f"{folder} is a network of the family {family!r}; run here are {', '.join(FAMILIES)}.")
    return str(family)


def _read_sentence_settings(folder: Path) -> dict[str, Any]:
    """sentence_bert_config.json, which older releases named after the family."""
    files = [folder / "sentence_bert_config.json", *sorted(folder.glob("sentence_*_config.json"))]
    return next((read_json(file) for file in files if file.is_file()), {})


def _read_max_tokens(shape: Shape, sentence: Mapping[str, Any], tokenizer: Mapping[str, Any], folder: Path) -> int:
    """The stated limit, never more than the position table has rows for."""
    stated = sentence.get("max_seq_length") or tokenizer.get("model_max_length") or shape.max_tokens
    if not isinstance(stated, (int, float)) or stated < 1:
        raise ModelDamagedError(f"{folder} states a limit of {stated!r} tokens; a number of at least 1 was expected.")
    return int(min(stated, shape.max_tokens))  # transformers writes 10**30 for "no limit"


def _read_pooling(module: Module, checkpoint: Checkpoint) -> Pooling:
    settings = read_json(module.folder / "config.json")
    modes = settings.get("pooling_mode")
    if modes is None:
        modes = [mode for flag, mode in POOLING_FLAGS.items() if settings.get(flag)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else list(modes)
    if modes == ["mean_sqrt_len_tokens"] and [type(step) for step in checkpoint.steps] == [Normalize]:
        modes = ["mean"]  # they differ by a factor, which normalisation takes away
    if len(modes) != 1 or modes[0] not in POOLING_MODES:
        raise ModelUnsupportedError(
            f"{checkpoint.name} pools by {' and '.join(map(str, modes))}; one of {', '.join(POOLING_MODES)} is run here."
        )
    if not settings.get("include_prompt", True) and checkpoint.prompts:
        raise ModelUnsupportedError(
            f"{checkpoint.name} leaves prompts out of the pooling (include_prompt), which is not run here."
        )
    width = settings.get("word_embedding_dimension", settings.get("embedding_dimension", checkpoint.shape.width))
    if width != checkpoint.shape.width:
        raise ModelDamagedError(
            f"{module.folder / 'config.json'} pools {width} dimensions; the network has {checkpoint.shape.width}."
        )
    return POOLING_MODES[modes[0]]


def read_dense(module: Module, settings: Mapping[str, Any]) -> Dense:
    if settings.get("use_residual"):
        raise ModelUnsupportedError(f"{module.folder}: a Dense module with a residual is not run here.")
    try:
        inputs, outputs = int(settings["in_features"]), int(settings["out_features"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelDamagedError(f"{module.folder / 'config.json'} lacks in_features or out_features.") from error
    activation = read_activation(
        str(settings.get("activation_function", "torch.nn.modules.activation.Tanh")), str(module.folder / "config.json")
    )
    tensors = Tensors.open(module.folder)
    bias = tensors.read("linear.bias", (outputs,)) if settings.get("bias", True) else None
    return Dense(tensors.read("linear.weight", (outputs, inputs)), bias, activation)
