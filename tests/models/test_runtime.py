"""Which engine runs is chosen openly: what is asked for runs or is refused, and a fallback says so once."""

from __future__ import annotations

import logging
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from twinrank.errors import InputError, ModelUnsupportedError
from twinrank.models import native, runtime
from twinrank.models.checkpoint import Checkpoint
from twinrank.models.packing import pack
from twinrank.models.reference import ReferenceNetwork
from twinrank.models.runtime import open_network, run_network


@pytest.fixture(autouse=True)
def _nothing_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TWINRANK_ENGINE", raising=False)


@pytest.fixture
def checkpoint(tiny: ModuleType, tmp_path: Path) -> Checkpoint:
    return Checkpoint.find(tiny.write_trunk(tmp_path / "m"))


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine where nothing was compiled."""
    monkeypatch.setattr(native, "_engine", None)
    runtime._say.cache_clear()


def test_without_an_engine_the_reference_runs_and_says_so_once(
    checkpoint: Checkpoint, no_engine: None, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        network = open_network(checkpoint)
    assert isinstance(network, ReferenceNetwork)
    assert network.precision == "fp32"
    messages = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len([message for message in messages if "by NumPy in fp32" in message and "not compiled" in message]) == 1


@pytest.mark.parametrize("precision", ["int8", "bf16"])
def test_a_precision_that_was_named_is_not_replaced(checkpoint: Checkpoint, no_engine: None, precision: str) -> None:
    with pytest.raises(ModelUnsupportedError, match=rf"cannot run in {precision}: .*Ask for precision='auto'"):
        open_network(checkpoint, precision)


def test_the_environment_forces_the_reference(checkpoint: Checkpoint, numpy_only: None) -> None:
    assert open_network(checkpoint).path == "numpy"
    assert open_network(checkpoint, "fp32").path == "numpy"
    with pytest.raises(ModelUnsupportedError, match="TWINRANK_ENGINE=numpy asks for it"):
        open_network(checkpoint, "int8")


def test_an_engine_that_is_forced_but_missing_is_refused(
    checkpoint: Checkpoint, no_engine: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWINRANK_ENGINE", "portable")
    with pytest.raises(ModelUnsupportedError, match="TWINRANK_ENGINE=portable, but"):
        open_network(checkpoint)


@pytest.mark.parametrize("precision", ["int4", "", None])
def test_an_unknown_precision_is_refused(checkpoint: Checkpoint, precision: str) -> None:
    with pytest.raises(InputError, match="choose auto, int8, bf16 or fp32"):
        open_network(checkpoint, precision)


@pytest.mark.skipif(not native.available(), reason="the native engine was not compiled")
def test_with_an_engine_auto_is_int8_and_starts_from_its_cache(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    cold = open_network(checkpoint)
    assert (cold.precision, cold.path != "numpy") == ("int8", True)
    monkeypatch.setattr(Checkpoint, "trunk", lambda self: pytest.fail("the weights were read though the cache has them"))
    warm = open_network(checkpoint)
    tokens = pack([np.array([2, 7, 8, 3], np.int32)])
    np.testing.assert_array_equal(warm.run(tokens).pooled, cold.run(tokens).pooled)


def test_calls_are_bounded_by_tokens_and_give_what_one_call_gives(
    checkpoint: Checkpoint, numpy_only: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = open_network(checkpoint)
    tokens = pack([np.full(length, 7, np.int32) for length in (3, 9, 1, 20, 2, 2, 4)])
    whole = run_network(network, tokens, pooling="mean", hidden=True)
    sizes: list[int] = []
    run = ReferenceNetwork.run

    def watched(self, part, **options):
        sizes.append(len(part.ids))
        return run(self, part, **options)

    monkeypatch.setattr(ReferenceNetwork, "run", watched)
    monkeypatch.setattr(runtime, "TOKENS_PER_CALL", 8)
    parts = run_network(network, tokens, pooling="mean", hidden=True)
    assert sizes == [3, 9, 1, 20, 8]
    np.testing.assert_allclose(parts.pooled, whole.pooled, atol=1e-6)
    np.testing.assert_allclose(parts.hidden, whole.hidden, atol=1e-6)
    only = run_network(network, tokens, pooling=None, hidden=True)
    assert only.pooled is None
