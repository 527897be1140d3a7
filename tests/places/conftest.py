"""The engines of tests/index/engines, as places of collections."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ENGINES = Path(__file__).parents[1] / "index" / "engines" / "conftest.py"

spec = importlib.util.spec_from_file_location("twinrank_engines", ENGINES)
assert spec is not None
assert spec.loader is not None
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
address_of, address = module.address_of, module.address
