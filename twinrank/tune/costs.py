"""What a pipeline costs a query, roughly, in multiplications: no clock is asked, so that a seed repeats a search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from twinrank.models.checkpoint import Checkpoint
from twinrank.recipe import NO_MODEL, Recipe
from twinrank.tune.space import stages_of

MULTIPLICATIONS_PER_MS = 1e8
"""An order of magnitude, of one core: only the ratio of two costs is used."""

OVERHEAD = 0.3
WORDS = 1.0
FUSION = 0.3
CANDIDATE = 0.002
MAXSIM_PAIR = 0.01
DIMENSIONS = 400
"""Milliseconds (and the width of a vector) of what is no network: rough, since it only has to put pipelines into an order."""


@dataclass(frozen=True)
class Costs:
    """Nominal milliseconds of a query."""

    passages: int
    query_tokens: float
    passage_tokens: float
    """Mean lengths, in tokens of some encoder."""
    parameters: Callable[[str], float]
    """Model → weights that every token is multiplied with."""

    def __call__(self, recipe: Recipe) -> float:
        stages = stages_of(recipe)
        retrieve = recipe.retrieve
        candidates = sum(int(getattr(retrieve, name)) for name in ("vectors", "words", "tokens") if name in stages)
        total = (
            OVERHEAD
            + CANDIDATE * candidates
            + (WORDS if "words" in stages else 0.0)
            + (FUSION if "words" in stages and len(stages) > 1 else 0.0)
        )
        encoder = 0.0 if recipe.encoder.model == NO_MODEL else self.parameters(recipe.encoder.model)
        if "vectors" in stages:
            total += (self.query_tokens * encoder + self.passages * DIMENSIONS) / MULTIPLICATIONS_PER_MS
        if "tokens" in stages:
            products = self.passages * self.passage_tokens * self.query_tokens * DIMENSIONS
            total += (self.query_tokens * encoder + products) / MULTIPLICATIONS_PER_MS
        for stage in recipe.rerank:
            if stage.kind == "maxsim":
                total += MAXSIM_PAIR * stage.candidates + self.query_tokens * encoder / MULTIPLICATIONS_PER_MS
            else:
                pair = self.query_tokens + self.passage_tokens
                tokens = stage.candidates * (min(pair, stage.max_tokens) if stage.max_tokens else pair)
                total += tokens * self.parameters(stage.model) / MULTIPLICATIONS_PER_MS
        return total


@cache
def parameters(model: str) -> float:
    """Weights of the layers: what one token is multiplied with on its way (attention's own products left out)."""
    shape = Checkpoint.find(model).shape
    return float(shape.layers * (4 * shape.width**2 + 2 * shape.width * shape.intermediate))
