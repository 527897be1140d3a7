"""Every architecture's folder is recognised in every layout, and each class refuses the others by their right name."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from types import ModuleType

import pytest

from twinrank.errors import ModelDamagedError, ModelNotFoundError, ModelUnsupportedError
from twinrank.models.kinds import HOW_TO_OPEN, recognise

HOME = "sentence_transformers."


def write(tiny: ModuleType, folder: Path, layout: str) -> Path:
    """A folder with the marks of one layout."""
    if layout == "sentence-transformers":
        return tiny.write_bi_encoder(folder)
    if layout == "router":
        return tiny.write_twin_tower(folder)
    labels = 1 if "cross-encoder" in layout else None
    tiny.write_trunk(folder, labels=labels)
    settings = json.loads((folder / "config.json").read_text())
    modules: list[tuple[str, str]] = []
    if layout == "asym":
        modules = [("", HOME + "models.Asym")]
    elif layout == "sentence-t5":
        settings |= {"model_type": "t5", "is_encoder_decoder": True}
        modules = [("", HOME + "models.Transformer"), ("1_Pooling", HOME + "models.Pooling")]
    elif layout == "colbert of Stanford":
        settings["architectures"] = ["HF_ColBERT"]
    elif layout == "colbert of Stanford, by its settings":
        (folder / "artifact.metadata").write_text("{}")
    elif layout == "colbert of PyLate":
        modules = [("", HOME + "models.Transformer"), ("1_Dense", "pylate.models.Dense.Dense")]
    elif layout == "colbert of PyLate, stated":
        modules = [("", HOME + "models.Transformer"), ("1_Dense", HOME + "models.Dense")]
        tiny.write_json(folder / "config_sentence_transformers.json", {"model_type": "ColBERT"})
    elif layout == "colbert of sentence-transformers":
        modules = [("", HOME + "base.modules.transformer.Transformer"), ("1_Dense", HOME + "base.modules.dense.Dense")]
        tiny.write_json(folder / "config_sentence_transformers.json", {"model_type": "MultiVectorEncoder"})
    elif layout == "colbert, by its Dense over tokens":
        modules = [("", HOME + "base.modules.transformer.Transformer"), ("1_Dense", HOME + "base.modules.dense.Dense")]
        tiny.write_json(folder / "1_Dense" / "config.json", {"module_input_name": "token_embeddings"})
    elif layout == "cross-encoder of sentence-transformers":
        settings["architectures"] = []
        modules = [("", HOME + "base.modules.transformer.Transformer")]
        tiny.write_json(folder / "config_sentence_transformers.json", {"model_type": "CrossEncoder"})
    elif layout == "marian":
        settings |= {"model_type": "marian", "is_encoder_decoder": True, "architectures": ["MarianMTModel"]}
    elif layout == "t5":
        settings |= {"model_type": "t5", "is_encoder_decoder": True, "architectures": ["T5ForConditionalGeneration"]}
    elif layout == "clip":
        settings |= {"model_type": "clip", "architectures": ["CLIPModel"]}
    elif layout == "clip of sentence-transformers":
        modules = [("0_CLIPModel", HOME + "models.CLIPModel")]
        tiny.write_json(folder / "0_CLIPModel" / "config.json", {"model_type": "clip"})
    elif layout == "splade":
        modules = [("", HOME + "models.MLMTransformer"), ("1_SpladePooling", HOME + "sparse_encoder.models.SpladePooling")]
    elif layout == "sparse router":
        modules = [("", HOME + "models.Router")]
        tiny.write_json(folder / "config_sentence_transformers.json", {"model_type": "SparseEncoder"})
    tiny.write_json(folder / "config.json", settings)
    if modules:
        entries = [
            {"idx": number, "name": str(number), "path": path, "type": kind} for number, (path, kind) in enumerate(modules)
        ]
        tiny.write_json(folder / "modules.json", entries)
    return folder


LAYOUTS = {
    "sentence-transformers": "BiEncoder",
    "transformers": "BiEncoder",
    "sentence-t5": "BiEncoder",
    "router": "TwinTower",
    "asym": "TwinTower",
    "colbert of Stanford": "LateInteraction",
    "colbert of Stanford, by its settings": "LateInteraction",
    "colbert of PyLate": "LateInteraction",
    "colbert of PyLate, stated": "LateInteraction",
    "colbert of sentence-transformers": "LateInteraction",
    "colbert, by its Dense over tokens": "LateInteraction",
    "cross-encoder": "CrossEncoder",
    "cross-encoder of sentence-transformers": "CrossEncoder",
    "marian": "Translator",
    "t5": "Translator",
    "clip": "CLIP",
    "clip of sentence-transformers": "CLIP",
    "splade": "sparse encoder",
    "sparse router": "sparse encoder",
}
OF_EACH = {
    "BiEncoder": "sentence-transformers",
    "TwinTower": "router",
    "LateInteraction": "colbert of Stanford",
    "CrossEncoder": "cross-encoder",
    "Translator": "marian",
    "CLIP": "clip",
    "sparse encoder": "splade",
}


OPENED = ("BiEncoder", "TwinTower", "LateInteraction", "CrossEncoder", "Translator", "CLIP")
RIGHT = [("BiEncoder", "LateInteraction")]  # any bi-encoder serves as one


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_recognised(tiny: ModuleType, tmp_path: Path, layout: str) -> None:
    assert recognise(write(tiny, tmp_path / "m", layout)) == LAYOUTS[layout]


def opener(wanted: str) -> Callable[[Path], object]:
    if wanted == "CLIP":
        return opener("TwinTower").clip
    module = importlib.import_module(f"twinrank.models.{wanted.lower()}")
    return getattr(module, wanted)


@pytest.mark.parametrize(
    ("kind", "wanted"), [pair for pair in product(OF_EACH, OPENED) if pair[0] != pair[1] and pair not in RIGHT]
)
def test_what_is_opened_as_another_architecture_is_refused_by_its_right_name(
    tiny: ModuleType, tmp_path: Path, kind: str, wanted: str
) -> None:
    folder = write(tiny, tmp_path / "m", OF_EACH[kind])
    with pytest.raises(ModelUnsupportedError) as caught:
        opener(wanted)(folder)
    assert str(caught.value).startswith(f"{folder} is a {kind}")
    way = HOW_TO_OPEN.get(kind)
    assert (way.format(name=str(folder)) if way else "is not run here") in str(caught.value)


def test_a_bi_encoder_opened_as_twin_tower_is_told_of_both_ways(tiny: ModuleType, tmp_path: Path) -> None:
    folder = tiny.write_bi_encoder(tmp_path / "m")
    with pytest.raises(ModelUnsupportedError, match=r"or give a checkpoint for each side: TwinTower\(query='.*', document=…\)"):
        opener("TwinTower")(folder)


@pytest.mark.parametrize("side", ["query", "document"])
@pytest.mark.parametrize("kind", ["TwinTower", "LateInteraction", "CrossEncoder", "Translator", "CLIP"])
def test_a_tower_is_a_bi_encoder(tiny: ModuleType, tmp_path: Path, kind: str, side: str) -> None:
    towers = {"query": tiny.write_bi_encoder(tmp_path / "a"), "document": tiny.write_bi_encoder(tmp_path / "b")}
    towers[side] = write(tiny, tmp_path / "m", OF_EACH[kind])
    with pytest.raises(ModelUnsupportedError, match=rf"is a {kind}.*, not a BiEncoder: open it as"):
        opener("TwinTower")(**towers)


def test_a_folder_that_says_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelDamagedError, match=r"config\.json is missing"):
        recognise(tmp_path)
    with pytest.raises(ModelNotFoundError):
        recognise(tmp_path / "nowhere" / "at all")


def test_modules_that_pool_nothing_are_refused(tiny: ModuleType, tmp_path: Path) -> None:
    folder = tiny.write_trunk(tmp_path / "m")
    tiny.write_json(folder / "modules.json", [{"idx": 0, "name": "0", "path": "", "type": HOME + "models.Transformer"}])
    with pytest.raises(ModelDamagedError, match="names no Pooling"):
        recognise(folder)
