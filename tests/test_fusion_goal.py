"""Fusion that does no harm, on every judged set whose sources were asked before: python bench/fusion.py report."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCH = Path(__file__).resolve().parents[1] / "bench" / "fusion.py"

HARM = 0.01
"""What the default may lose against the better of its parts."""
NOISE = 0.002
"""What int8 arithmetic of another CPU's instructions may change of it."""


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_fusion", BENCH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_fusion"] = module
    spec.loader.exec_module(module)
    return module


def test_no_set_is_used_both_to_fit_and_to_report(bench: ModuleType) -> None:
    assert not {part.name for part in bench.DEVELOP} & {part.name for part in bench.REPORT}


def test_decided_weights_never_harm_and_are_better_on_average_than_any_fixed_weight(bench: ModuleType) -> None:
    asked = [part for part in bench.REPORT if (bench.KEPT / f"{part.name}.said.npz").exists()]
    if len(asked) < len(bench.REPORT):
        pytest.skip(f"{len(bench.REPORT) - len(asked)} sets were not asked yet: python bench/fusion.py report")
    reached, fixed = [], []
    for part in asked:
        one = bench.said(part)
        reached.append(float(bench.decided(one).mean()))
        assert reached[-1] >= max(bench.alone(one)) - HARM - NOISE, part.name
        curves = [bench.curve(one, normalise, bench.WEIGHTS[6:17:2]) for normalise in (bench.spread, bench.standardised)]
        fixed.append([line.mean(axis=0) for line in curves])
    assert np.mean(reached) > np.mean(fixed, axis=0).max()  # the best fixed weight for these very sets, in hindsight
