"""Two towers in one folder, in the layout of sentence-transformers' Router (once called Asym): reading a side, writing both."""

from __future__ import annotations

import ast
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twinrank.errors import InputError, ModelDamagedError, ModelUnsupportedError, StorageError
from twinrank.models.heads import Dense, Normalize, Step
from twinrank.models.kinds import Module, module_at, read_optional
from twinrank.models.trunk import Pooling
from twinrank.models.weights import read_json, write_tensors
from twinrank.types import Side

SETTINGS = "router_config.json"
"""Releases before 5 wrote the same content as config.json."""

ROUTE_NAMES: Mapping[Side, tuple[str, ...]] = {"query": ("query",), "document": ("document", "doc", "passage", "corpus")}

POOLING_FLAGS: Mapping[Pooling, str] = {
    "cls": "cls_token",
    "mean": "mean_tokens",
    "max": "max_tokens",
    "weighted_mean": "weightedmean_tokens",
    "last": "lasttoken",
}
"""As releases up to 5 write a pooling; later ones read it too."""

ACTIVATION_CLASSES: Mapping[str, str] = {
    "identity": "torch.nn.modules.linear.Identity",
    "tanh": "torch.nn.modules.activation.Tanh",
    "relu": "torch.nn.modules.activation.ReLU",
    "gelu": "torch.nn.modules.activation.GELU",
    "sigmoid": "torch.nn.modules.activation.Sigmoid",
}

COPIED = (".json", ".txt", ".model", ".safetensors", ".vocab", ".bpe", ".jinja")
"""What belongs to a network and its tokenizer; no pickles, no code, no other framework's copy of the weights."""

LEFT = ("modules.json", "config_sentence_transformers.json", SETTINGS)
"""What describes the whole model that a tower came from."""


@dataclass(frozen=True, slots=True)
class TowerParts:
    """What is written of a tower."""

    folder: Path
    """Of the network: config.json, tokenizer and weights, copied as they are."""
    width: int
    pooling: Pooling
    steps: tuple[Step, ...]
    max_tokens: int


# -- reading ------------------------------------------------------------------------------------------------------------------


def route_modules(folder: Path, modules: Sequence[Module], side: Side) -> tuple[Module, ...]:
    """The modules that a text of one side goes through: the top level's, with the route in the router's place."""
    path: list[Module] = []
    for module in modules:
        path += _read_route(module.folder, side) if module.type in ("Router", "Asym") else [module]
    if path and path[0].type != "Transformer":
        raise ModelUnsupportedError(
            f"{folder}: the tower for the {side} begins with a {path[0].origin}; a Transformer's is run here."
        )
    return tuple(path)


def _read_route(folder: Path, side: Side) -> list[Module]:
    file = folder / SETTINGS if (folder / SETTINGS).is_file() else folder / "config.json"
    settings = read_json(file)
    try:
        types, structure = dict(settings["types"]), dict(settings["structure"])
        route = _route_name(settings.get("parameters") or {}, list(structure), side)
        if route is None:
            raise ModelUnsupportedError(f"{file} has no route for the text of a {side}, only {', '.join(structure)}.")
        return [module_at(folder, str(name), str(types[name]), file) for name in structure[route]]
    except (KeyError, TypeError, ValueError) as error:
        raise ModelDamagedError(f"{file} does not describe the routes of a Router ({error!r}). Get the model again.") from error


def _route_name(parameters: Mapping[str, Any], routes: Sequence[str], side: Side) -> str | None:
    """The route in the order in which sentence-transformers looks: mappings of (task, modality), names, the default."""
    mappings = {ast.literal_eval(key): str(route) for key, route in (parameters.get("route_mappings") or {}).items()}
    for key in ((side, "text"), (side, None), (None, "text"), (None, None)):
        if key in mappings:
            return mappings[key]
    names = [name for name in (*ROUTE_NAMES[side], "text", parameters.get("default_route")) if name in routes]
    return str(names[0]) if names else None


# -- writing ------------------------------------------------------------------------------------------------------------------


def write_router(folder: Path, towers: Mapping[Side, TowerParts], settings: Mapping[str, Any]) -> None:
    """Write both towers and the model's `settings`; all of the folder appears at once, or nothing of it."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not empty; give the name of a new folder.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            _write_all(temporary, towers, settings)
            temporary.chmod(0o755)  # mkdtemp's folder is its owner's alone
            temporary.replace(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error}. Free some space or give another folder.") from error


def _write_all(folder: Path, towers: Mapping[Side, TowerParts], settings: Mapping[str, Any]) -> None:
    types: dict[str, str] = {}
    structure: dict[str, list[str]] = {}
    for side, parts in towers.items():
        names = _write_tower(folder, side, parts)
        structure[side] = names
        types |= {name: f"sentence_transformers.models.{name.rpartition('_')[2]}" for name in names}
    parameters = {"default_route": "document", "allow_empty_key": True}  # release 5 refuses names that it does not know
    _write_json(folder / SETTINGS, {"types": types, "structure": structure, "parameters": parameters})
    router = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Router"}
    _write_json(folder / "modules.json", [router])
    _write_json(folder / "config_sentence_transformers.json", settings)


def _write_tower(folder: Path, side: Side, parts: TowerParts) -> list[str]:
    """Write a tower's modules, each into a folder of its own; give their names."""
    kinds = ["Transformer", "Pooling", *(type(step).__name__ for step in parts.steps)]
    names = [f"{side}_{number}_{kind}" for number, kind in enumerate(kinds)]
    _copy_network(parts, folder / names[0])
    flags = {f"pooling_mode_{flag}": pooling == parts.pooling for pooling, flag in POOLING_FLAGS.items()}
    _write_json(folder / names[1] / "config.json", {"word_embedding_dimension": parts.width, **flags})
    for name, step in zip(names[2:], parts.steps, strict=True):
        if isinstance(step, Normalize):
            _write_json(folder / name / "config.json", {"module_input_name": "sentence_embedding"})
        else:
            _write_dense(folder / name, step)
    return names


def _copy_network(parts: TowerParts, target: Path) -> None:
    target.mkdir()
    for file in sorted(parts.folder.iterdir()):
        if file.is_file() and file.suffix in COPIED and file.name not in LEFT:
            shutil.copyfile(file, target / file.name)
    sentence = target / "sentence_bert_config.json"
    older = next((file for file in sorted(parts.folder.glob("sentence_*_config.json"))), sentence)
    _write_json(sentence, {**read_optional(older), "max_seq_length": parts.max_tokens})


def _write_dense(folder: Path, dense: Dense) -> None:
    outputs, inputs = dense.weight.shape
    settings = {"in_features": inputs, "out_features": outputs, "bias": dense.bias is not None}
    _write_json(folder / "config.json", settings | {"activation_function": ACTIVATION_CLASSES[dense.activation]})
    tensors = {"linear.weight": dense.weight} | ({} if dense.bias is None else {"linear.bias": dense.bias})
    write_tensors(folder / "model.safetensors", tensors)


def _write_json(file: Path, value: object) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
