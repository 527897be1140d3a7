"""Which architecture a checkpoint is of, told by the marks that the field's libraries leave."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from twinrank.errors import ModelDamagedError, ModelUnsupportedError
from twinrank.models import hub
from twinrank.models.weights import read_json

Kind: TypeAlias = Literal["BiEncoder", "TwinTower", "LateInteraction", "CrossEncoder", "Translator", "CLIP", "sparse encoder"]

HOW_TO_OPEN: Mapping[Kind, str] = {
    "BiEncoder": "BiEncoder({name!r})",
    "TwinTower": "TwinTower({name!r})",
    "LateInteraction": "LateInteraction({name!r})",
    "CrossEncoder": "CrossEncoder({name!r})",
    "Translator": "Translator({name!r})",
    "CLIP": "TwinTower.clip({name!r})",
}

TRANSLATORS = ("marian", "t5", "mt5", "umt5", "bart", "mbart", "m2m_100", "pegasus", "fsmt")
LATE_INTERACTION_SETTINGS = ("ColBERT", "MultiVectorEncoder")


@dataclass(frozen=True, slots=True)
class Module:
    """One entry of modules.json, or of one route of a router."""

    type: str
    """The class without its path: Transformer, Pooling, Dense, Normalize…"""
    folder: Path
    origin: str
    """The class with its path, as written."""


def recognise(model: str | os.PathLike[str]) -> Kind:
    """The architecture of a checkpoint, by folder or hub name, from its settings alone.

    Raises ModelNotFoundError, and ModelDamagedError where config.json or modules.json are missing or no JSON.
    """
    found = hub.find_folder(model)
    return read_kind(found.folder, read_modules(found.folder))


def read_kind(folder: Path, modules: tuple[Module, ...]) -> Kind:
    """The architecture of a folder with these modules: first by its modules and settings, then by its network."""
    types = {module.type for module in modules}
    settings = read_optional(folder / "config_sentence_transformers.json")
    stated = settings.get("model_type")
    if "SpladePooling" in types or stated == "SparseEncoder":
        return "sparse encoder"
    if types & {"Router", "Asym"}:
        return "TwinTower"
    config = _read_config(folder, modules)
    architectures = " ".join(map(str, config.get("architectures") or ()))
    if "CLIPModel" in types or config.get("model_type") == "clip":
        return "CLIP"
    if stated in LATE_INTERACTION_SETTINGS or "ColBERT" in architectures or _has_colbert_marks(folder, modules):
        return "LateInteraction"
    if "Pooling" in types:
        return "BiEncoder"
    if config.get("is_encoder_decoder") or config.get("model_type") in TRANSLATORS:
        return "Translator"
    if stated == "CrossEncoder" or "ForSequenceClassification" in architectures:
        return "CrossEncoder"
    if modules:
        raise ModelDamagedError(f"{folder / 'modules.json'} names no Pooling, so a text's token vectors cannot become one.")
    return "BiEncoder"


def require_kind(name: str, kind: Kind, wanted: Kind) -> None:
    """Refuse, with the name of the right class, what is opened as another architecture than its own."""
    if kind == wanted:
        return
    what, other = ("CLIP model" if each == "CLIP" else each for each in (kind, wanted))
    if kind not in HOW_TO_OPEN:
        raise ModelUnsupportedError(f"{name} is a {what}, not a {other}, and is not run here.")
    way = f"open it as {HOW_TO_OPEN[kind].format(name=name)}"
    if wanted == "TwinTower" and kind == "BiEncoder":
        way += f", or give a checkpoint for each side: TwinTower(query={name!r}, document=…)"
    raise ModelUnsupportedError(f"{name} is a {what}, not a {other}: {way}.")


def read_modules(folder: Path) -> tuple[Module, ...]:
    """modules.json; nothing where there is none."""
    file = folder / "modules.json"
    if not file.is_file():
        return ()
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
        entries = sorted(entries, key=lambda entry: int(entry["idx"]))
        named = [(str(entry["type"]), str(entry["path"])) for entry in entries]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ModelDamagedError(f"{file} is not a list of modules ({error!r}). Get the model again.") from error
    return tuple(module_at(folder, path, origin, file) for origin, path in named)


def module_at(folder: Path, path: str, origin: str, file: Path) -> Module:
    """A module of the class `origin` in a folder beneath; `file` is what names it."""
    if ".." in Path(path).parts or Path(path).is_absolute():
        raise ModelDamagedError(f"{file} names the folder {path!r}, which is outside the checkpoint.")
    return Module(origin.rpartition(".")[2], folder / path, origin)


def read_optional(file: Path) -> dict[str, Any]:
    return read_json(file) if file.is_file() else {}


def _read_config(folder: Path, modules: tuple[Module, ...]) -> dict[str, Any]:
    """The network's config.json, wherever the first module is."""
    places = [module.folder for module in modules if module.type in ("Transformer", "CLIPModel")]
    return read_json((places[0] if places else folder) / "config.json")


def _has_colbert_marks(folder: Path, modules: tuple[Module, ...]) -> bool:
    """PyLate's classes, Stanford's settings, or a Dense over token vectors where nothing pools them."""
    if any(module.origin.startswith("pylate") for module in modules) or (folder / "artifact.metadata").is_file():
        return True
    inputs = [read_optional(module.folder / "config.json").get("module_input_name") for module in modules[1:]]
    return "token_embeddings" in inputs and not any(module.type == "Pooling" for module in modules)
