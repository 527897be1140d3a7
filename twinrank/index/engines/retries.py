"""Calls over a network, tried again while what goes wrong is transient."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from twinrank.errors import EngineError, TwinrankError

PATIENCE = 15.0
"""Seconds for which a call is tried again."""

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 2.0

T = TypeVar("T")


def persistent(
    call: Callable[[], T], is_transient: Callable[[Exception], bool], place: object, doing: str, patience: float = PATIENCE
) -> T:
    """What `call` gives; while its errors are transient it is called again, after pauses that double, with some chance in them.

    Raises EngineError that names the engine's `place` and what was being done.
    """
    begun, pause = time.monotonic(), FIRST_PAUSE
    while True:
        try:
            return call()
        except TwinrankError:
            raise
        except Exception as error:
            transient = is_transient(error)
            if not transient or time.monotonic() - begun + pause > patience:
                said = " ".join(f"{type(error).__name__}: {error}".split())[:500]
                tried = f" (tried for {patience:.0f} seconds; is it running? The same call completes it)" if transient else ""
                raise EngineError(f"{place}, {doing}: {said}{tried}") from error
        time.sleep(pause * random.uniform(0.5, 1.0))
        pause = min(2 * pause, LONGEST_PAUSE)
