"""A recipe → nDCG@10 of every query, from remembered stage outputs; the rankings are those that `Collection.search` gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from twinrank.recipe import Recipe
from twinrank.search.group import group, group_behind
from twinrank.search.pipeline import Pipeline
from twinrank.tune.outputs import Documents, Outputs
from twinrank.types import Qrels, Ranking

DEPTH = 10
"""Documents that the measure looks at."""

Figures = npt.NDArray[np.float64]
"""One figure a query: (queries,)."""


class Judge:
    """Judges recipes over the queries that have a relevant document, each recipe once.

    Linear gains and trec_eval's order of ties, as `evaluate.metrics.measure` has them.
    """

    def __init__(self, outputs: Outputs, queries: Mapping[str, str], qrels: Qrels) -> None:
        self.outputs = outputs
        self.queries = {query: text for query, text in queries.items() if any(g > 0 for g in qrels.get(query, {}).values())}
        self.qrels = qrels
        self._figures: dict[Recipe, Figures] = {}
        self._ideals = np.array([_gain(sorted(self._grades(query), reverse=True)[:DEPTH]) for query in self.queries])

    def __call__(self, recipe: Recipe) -> Figures:
        """nDCG@10 of every query: (queries,)."""
        if recipe not in self._figures:
            pipeline, documents = self.outputs.pipeline(recipe), self.outputs.documents(recipe)
            gains = [
                _gain([self.qrels[query].get(found, 0) for found in self._found(pipeline, documents, recipe, text)])
                for query, text in self.queries.items()
            ]
            self._figures[recipe] = np.array(gains) / self._ideals
        return self._figures[recipe]

    def found(self, recipe: Recipe, text: str) -> list[str]:
        """The ids of the best documents for a query, best first."""
        return self._found(self.outputs.pipeline(recipe), self.outputs.documents(recipe), recipe, text)

    @property
    def judged(self) -> Mapping[Recipe, Figures]:
        """Every recipe that was judged, in the order in which it was."""
        return self._figures

    def _grades(self, query: str) -> list[int]:
        return list(self.qrels[query].values())

    def _found(self, pipeline: Pipeline, documents: Documents, recipe: Recipe, text: str) -> list[str]:
        ranking, trace = pipeline.run(text)
        by, most = recipe.group.by, recipe.group.passages
        best = _best_documents(group(ranking, documents.of(ranking.keys), by, most, scored=trace.scored), documents)
        depth, seen, available = len(ranking), len(ranking), len(documents.keys)
        while len(best) < DEPTH and depth < available:
            depth = min(max(4 * depth, DEPTH), available)
            deeper = pipeline.run_behind(ranking, text, depth, trace=trace)
            if len(deeper) == seen:
                break
            seen = len(deeper)
            best = _best_documents(group_behind(ranking, deeper, documents.of, by, most, scored=trace.scored), documents)
        return [documents.ids[number] for number in best]


def _best_documents(grouped: Ranking, documents: Documents) -> list[int]:
    """The first documents; equal scores by id, descending, as `Collection.search` orders them."""
    owners = documents.of(grouped.keys)  # (documents,)
    best: list[int] = owners[np.lexsort((-owners, -grouped.scores))[:DEPTH]].tolist()
    return best


def _gain(grades: Sequence[int]) -> float:
    """Discounted cumulative gain of grades in the order of a ranking."""
    return float(sum(grade / np.log2(rank + 1) for rank, grade in enumerate(grades, start=1) if grade > 0))
