"""The files of this folder, which no package holds, under the name twinrank_torture."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

if "twinrank_torture" not in sys.modules:
    spec = importlib.util.spec_from_file_location("twinrank_drive", Path(__file__).with_name("drive.py"))
    assert spec is not None
    assert spec.loader is not None
    drive = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(drive)
    drive.load()
