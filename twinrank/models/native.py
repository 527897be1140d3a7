"""The native engine's front: a trunk made ready to run on this CPU's best instructions, its packed weights kept in a cache.

The work is done by `twinrank._engine` (the folder engine/, C++). Where that was not compiled, `available()` is false and
`reference.py` runs instead.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from twinrank.engine import default_threads, wished_path
from twinrank.engine import module as _engine
from twinrank.errors import InputError, ModelDamagedError, ModelUnsupportedError
from twinrank.models.trunk import Outputs, Pooling, Precision, Shape, Trunk
from twinrank.types import Tokens, Vectors

PRECISIONS: tuple[Precision, ...] = ("int8", "bf16", "fp32")


def available() -> bool:
    """Whether the engine was compiled when twinrank was installed."""
    return _engine is not None


def paths() -> list[str]:
    """The instruction sets that this CPU can run, best first; the last is always `portable`. Empty without the engine."""
    return [] if _engine is None else list(_engine.paths())


def cache_file(cache_key: str, precision: Precision) -> Path:
    """Where the packed weights of a source are kept: in the user's cache folder; deleting it is always safe."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "twinrank" / "engine"
    name = hashlib.sha256(cache_key.encode()).hexdigest()[:32]
    return folder / f"{name}-{precision}-v{_required().layout_version}.weights"


class NativeNetwork:
    """A trunk that runs natively; see `Network` in trunk.py. Any number of threads may run it at once.

    `path` names the instruction set, by default `TWINRANK_ENGINE` or else the best that this CPU has; `threads` is the
    default of `run`, by default `TWINRANK_THREADS` or else the cores of this process. The results of `run` do not depend
    on a text's neighbours, its place or the number of threads, to the last bit.
    """

    def __init__(
        self,
        trunk: Trunk,
        precision: Precision = "int8",
        threads: int | None = None,
        path: str | None = None,
    ) -> None:
        engine = _required()
        ready = native_shape(trunk.shape)
        weights = _checked_weights(trunk, ready)
        with _refusing(ModelDamagedError):
            self._set(engine.pack(ready, _known(precision), weights, wished_path(path)), trunk.shape, threads)

    @classmethod
    def open(
        cls,
        trunk: Trunk,
        *,
        precision: Precision = "int8",
        cache_key: str | None = None,
        threads: int | None = None,
        path: str | None = None,
    ) -> NativeNetwork:
        """Like the constructor, but takes the packed weights from the cache, and puts them there if they were missing.

        `cache_key` names the source, its fingerprint: equal keys promise equal weights. A damaged file is made anew; where
        the folder cannot be written, the network runs all the same.
        """
        if cache_key is not None:
            cached = cls.cached(trunk.shape, cache_key, precision, threads=threads, path=path)
            if cached is not None:
                return cached
        network = cls(trunk, precision, threads, path)
        if cache_key is not None:
            network.keep(cache_key)
        return network

    @classmethod
    def cached(
        cls,
        shape: Shape,
        cache_key: str,
        precision: Precision = "int8",
        *,
        threads: int | None = None,
        path: str | None = None,
    ) -> NativeNetwork | None:
        """The network from the cache alone, without its fp32 weights; None where the cache lacks it or is damaged.

        The file is mapped into memory, so that processes share it, and verified by its checksum.
        """
        engine = _required()
        file = cache_file(cache_key, _known(precision))
        ready = native_shape(shape)
        with _refusing(InputError):
            engine.instruction(wished_path(path) or engine.paths()[0])  # a path that is not there is an error, not a miss
        try:
            native = engine.read(str(file), _digest(cache_key), ready, precision, wished_path(path))
        except RuntimeError:  # missing, torn, of another layout or damaged: it is made anew
            return None
        network = cls.__new__(cls)
        network._set(native, shape, threads)
        return network

    def keep(self, cache_key: str) -> bool:
        """Write the packed weights to the cache, all or nothing; False where the folder cannot be written."""
        file = cache_file(cache_key, self.precision)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._native.write(str(file), _digest(cache_key))
        except (OSError, RuntimeError):
            return False
        return True

    def _set(self, native: Any, shape: Shape, threads: int | None) -> None:
        self._native = native
        self._threads = _positive(threads)
        self.shape = shape
        self.precision: Precision = native.precision
        self.path: str = native.path
        self.weight_bytes: int = native.bytes

    def run(
        self,
        tokens: Tokens,
        *,
        pooling: Pooling | None = "mean",
        hidden: bool = False,
        layers: tuple[int, int] | None = None,
        start: Vectors | None = None,
        threads: int | None = None,
        seen: npt.NDArray[np.int32] | None = None,
    ) -> Outputs:
        """See `Network.run`. Where only `cls` or `last` is asked for, the last layer is computed for that token alone.

        `seen` (texts,) are the first tokens of each text that are all that its tokens see; by default they see every one.
        """
        ids, offsets = _int32("ids", tokens.ids), _int32("offsets", tokens.offsets)
        first, end = layers if layers is not None else (0, self.shape.layers)
        if first < 0 or end < 0:
            raise InputError(f"Layers {first} to {end} were asked for; the network has 0 to {self.shape.layers}.")
        pooled = None if pooling is None else np.empty((max(0, len(offsets) - 1), self.shape.width), np.float32)
        states = np.empty((len(ids), self.shape.width), np.float32) if hidden else None
        with _refusing(InputError):
            self._native.run(
                ids,
                None if tokens.types is None else _int32("types", tokens.types),
                offsets,
                pooling,
                pooled,
                states,
                first,
                end,
                None if start is None else np.ascontiguousarray(start, np.float32),
                None if seen is None else _int32("seen tokens", seen),
                _positive(threads) or self._threads or default_threads(),
            )
        return Outputs(pooled, states)

    def __repr__(self) -> str:
        shape = self.shape
        return f"<NativeNetwork {shape.layers} layers, {shape.width} wide, {self.precision} on {self.path}>"


def roof(path: str | None = None, precision: Precision = "int8", seconds: float = 0.2) -> float:
    """Operations a second that one thread of this machine reaches on registers alone; the bound of every bench."""
    with _refusing(InputError):
        return float(_required().roof(wished_path(path), _known(precision), seconds))


def native_shape(shape: Shape) -> Any:
    """The shape as the engine takes it; raises ModelUnsupportedError where the engine cannot run such a network."""
    try:
        return _required().Shape(
            layers=shape.layers,
            width=shape.width,
            heads=shape.heads,
            intermediate=shape.intermediate,
            vocabulary=shape.vocabulary,
            positions=shape.positions,
            types=shape.types,
            position_offset=shape.position_offset,
            activation=shape.activation,
            norm_epsilon=shape.norm_epsilon,
            relative_buckets=shape.relative_buckets,
        )
    except (ValueError, TypeError) as error:
        raise ModelUnsupportedError(f"The native engine cannot run {shape}: {error}.") from error


def _required() -> ModuleType:
    if _engine is None:
        raise ModelUnsupportedError(
            "The native engine was not compiled when twinrank was installed; install a C++17 compiler and then "
            "`pip install --force-reinstall --no-deps twinrank`, or run ReferenceNetwork."
        )
    return _engine


def _checked_weights(trunk: Trunk, ready: Any) -> list[npt.NDArray[np.float32]]:
    weights = []
    for name, expected in ready.weights():
        weight = trunk.weights.get(name)
        if weight is None:
            raise ModelDamagedError(f"The network has no weight {name!r}; {tuple(expected)} numbers were expected.")
        if weight.shape != tuple(expected):
            raise ModelDamagedError(f"The weight {name!r} has the shape {weight.shape}; {tuple(expected)} was expected.")
        weights.append(np.ascontiguousarray(weight, np.float32))
    return weights


def _int32(name: str, values: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise InputError(f"The tokens' {name} must be one row of whole numbers; came {array.dtype} of shape {array.shape}.")
    if array.dtype != np.int32 and array.size and (array.max() > 2**31 - 1 or array.min() < -(2**31)):
        raise InputError(f"The tokens' {name} do not fit into 32 bits.")
    return np.ascontiguousarray(array, np.int32)


def _known(precision: str) -> Precision:
    for known in PRECISIONS:
        if precision == known:
            return known
    raise InputError(f"The precision {precision!r} is not one of {', '.join(PRECISIONS)}.")


def _positive(threads: int | None) -> int | None:
    if threads is not None and threads < 1:
        raise InputError(f"threads is {threads}; at least 1 was expected.")
    return threads


def _digest(cache_key: str) -> bytes:
    return hashlib.sha256(cache_key.encode()).digest()


@contextlib.contextmanager
def _refusing(kind: type[Exception]) -> Iterator[None]:
    """What the engine refuses becomes one of twinrank's errors."""
    try:
        yield
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        text = str(error)
        wrong = InputError if "this CPU has no path" in text else kind
        raise wrong(f"{text[:1].upper()}{text[1:]}.") from error
