"""Examples for the tests of training, and a skip that says so where torch or its companions are missing."""

from __future__ import annotations

import importlib.util
import random
import warnings

import pytest

from twinrank.train.data import Example
from twinrank.train.networks import NEEDED

collect_ignore = ["fixed.py"]
"""No tests are in it, and it needs torch; doctests would be looked for in every file."""

WORDS = "zinc honey sleep water bread salt light steam ginger lemon tea apple garlic onion pepper oats"
ROOTS = WORDS.split()


@pytest.fixture(scope="session")
def with_torch() -> None:
    """Skips the test where nothing can be trained."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"needs twinrank[train]: {', '.join(missing)} not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the libraries warn of when they are imported is not ours
        import sentence_transformers  # noqa: F401


@pytest.fixture(scope="session")
def examples() -> list[Example]:
    """Forty queries, each with two answers that repeat its words, three passages that do not, and a teacher's scores."""
    draw = random.Random(0)
    made = []
    for number in range(40):
        asked = draw.sample(ROOTS, 3)
        others = [" ".join(draw.sample(ROOTS, draw.randint(2, 12))) for _ in range(3)]
        answers = (f"{' '.join(asked)} helps {number}", f"take {asked[0]} and {asked[1]} {number}")
        made.append(Example(f"{' '.join(asked)} {number}", answers, tuple(others), (5.0, 4.0, 1.0, 0.0, -1.0)))
    return made
