"""What the tests of the models share: the golden numbers, and which engine runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).resolve().parent

collect_ignore = ["make_golden.py"]  # imports the reference libraries


@pytest.fixture(scope="session")
def golden() -> Mapping[str, np.ndarray]:
    """What sentence-transformers 6.2 says of the tiny checkpoints; made by make_golden.py."""
    return dict(np.load(HERE / "golden" / "tiny.npz"))


@pytest.fixture(scope="session")
def golden_real() -> Mapping[str, np.ndarray]:
    """What sentence-transformers 6.2 says of all-MiniLM-L6-v2 and gte-small, in fp32."""
    return dict(np.load(HERE / "golden" / "real.npz"))


@pytest.fixture
def numpy_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWINRANK_ENGINE", "numpy")


@pytest.fixture(autouse=True)
def _no_traces(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Caches go into a folder of the run, and no test asks the network."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
