"""The Python in docs/architectures.md runs as it stands; small models in the hub's layout stand in for the hub's own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "architectures.md").read_text(encoding="utf-8")
SECTIONS = {section.split(":")[0]: section for section in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]}
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


def put_into_hub(hub: Path, name: str, folder: Path) -> None:
    """As a download leaves it: a snapshot, and a reference that names it."""
    store = hub / f"models--{name.replace('/', '--')}"
    (store / "refs").mkdir(parents=True)
    (store / "refs" / "main").write_text("0" * 40, encoding="utf-8")
    shutil.copytree(folder, store / "snapshots" / ("0" * 40))


@pytest.fixture(scope="module")
def hub(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    made = tmp_path_factory.mktemp("made")
    tiny.write_trunk(made / "cross-encoder", "bert", labels=1)
    put_into_hub(folder, "cross-encoder/ms-marco-MiniLM-L6-v2", made / "cross-encoder")
    return folder


def run_blocks(section: str, hub: Path, folder: Path) -> str:
    code = "\n".join(BLOCK.findall(SECTIONS[section]))
    assert code
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(hub), "PYTHONWARNINGS": "error"}
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, check=False, env=environment
    )
    assert told.returncode == 0, told.stderr
    return told.stdout


def test_every_section_with_python_is_run_here() -> None:
    with_python = {name for name, section in SECTIONS.items() if BLOCK.search(section)}
    assert with_python == {"BiEncoder", "TwinTower", "LateInteraction", "CrossEncoder", "Translator"}


def test_the_bi_encoders_lines(hub: Path, tmp_path: Path, minilm_folder: Path) -> None:
    told = run_blocks("BiEncoder", hub, tmp_path)
    assert told.splitlines()[-1].startswith("0 1 0.")


def test_the_twin_towers_lines(hub: Path, tmp_path: Path, minilm_folder: Path) -> None:
    assert run_blocks("TwinTower", hub, tmp_path).splitlines()[-1] == "384"


def test_late_interactions_lines(hub: Path, tmp_path: Path, minilm_folder: Path) -> None:
    run_blocks("LateInteraction", hub, tmp_path)


def test_the_cross_encoders_lines(hub: Path, tmp_path: Path) -> None:
    assert len(run_blocks("CrossEncoder", hub, tmp_path).splitlines()) == 1


def test_the_translators_lines(hub: Path, tmp_path: Path, shared_models: Path) -> None:
    pytest.importorskip("ctranslate2")
    subprocess.run([sys.executable, shared_models / "expand.py", tmp_path / "en-fr"], check=True, capture_output=True)
    if not (hub / "models--Helsinki-NLP--opus-mt-en-fr").exists():
        put_into_hub(hub, "Helsinki-NLP/opus-mt-en-fr", tmp_path / "en-fr")
    run_blocks("Translator", hub, tmp_path)
