"""Rankings and judgments → nDCG, MRR, recall and MAP, by ir-measures, with trec_eval's rules for ties and gains."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from twinrank.errors import InputError
from twinrank.types import Qrels, Run

DEFAULT_MEASURES = ("nDCG@10", "RR@10", "R@100", "AP@100")
"""In ir-measures' names: linear gains, reciprocal rank, recall, average precision, over the first 10 or 100 documents."""


@dataclass(frozen=True)
class Measured:
    """Measures of one run, by query and on average over the judged queries."""

    by_query: Mapping[str, Mapping[str, float]]
    """measure → query id → value."""

    @property
    def means(self) -> dict[str, float]:
        return {name: math.fsum(values.values()) / len(values) for name, values in self.by_query.items()}

    @property
    def queries(self) -> int:
        return len(next(iter(self.by_query.values())))


def measure(qrels: Qrels, run: Run, measures: Sequence[str] = DEFAULT_MEASURES) -> Measured:
    """Compare a run with judgments; a judged query that the run lacks counts 0, one without a relevant document is left out.

    trec_eval orders a run by score, descending, then by document id, descending; so does this. It keeps scores as float32,
    so that two which differ beyond its digits are a tie there; here too.

    >>> measured = measure({"q": {"a": 1}}, {"q": {"b": 2.0, "a": 1.0}}, ["nDCG@10", "RR@10"])
    >>> round(measured.means["nDCG@10"], 4), measured.means["RR@10"]
    (0.6309, 0.5)
    """
    judged = {query: dict(grades) for query, grades in qrels.items() if any(grade > 0 for grade in grades.values())}
    if not judged:
        raise InputError("no query has a relevant document in the judgments (a grade above 0), so nothing can be measured")
    for query, scores in run.items():
        for document, score in scores.items():
            if not math.isfinite(score):
                raise InputError(
                    f"the run gives document {document!r} the score {score} for query {query!r}; expected a number"
                )
    import ir_measures

    parsed = {name: _parse(name) for name in measures}
    by_query = {name: dict.fromkeys(judged, 0.0) for name in measures}
    names: dict[str, list[str]] = {}  # two names may be of one measure: AP and MAP
    for name, parsed_measure in parsed.items():
        names.setdefault(str(parsed_measure), []).append(name)
    known = {query: _places(run[query]) for query in judged if run.get(query)}
    if known:
        for value in ir_measures.iter_calc(list(parsed.values()), judged, known):
            for name in names[str(value.measure)]:
                by_query[name][value.query_id] = value.value
    return Measured(by_query)


def check_measures(measures: Sequence[str]) -> None:
    """Raise InputError for a name that ir-measures does not know, and where there is none: before a long run, not after it."""
    if not measures:
        raise InputError(f"name a measure at least, such as {', '.join(DEFAULT_MEASURES)}")
    for name in measures:
        _parse(name)


def in_order(scores: Mapping[str, float]) -> list[str]:
    """Document ids by score as a float32, descending, then by id, descending: trec_eval's order.

    >>> in_order({"a": 1.0 + 1e-9, "b": 1.0, "c": 2.0})
    ['c', 'b', 'a']
    """
    rounded = dict(zip(scores, np.array(list(scores.values()), np.float32).tolist(), strict=True))
    return sorted(rounded, key=lambda document: (rounded[document], document), reverse=True)


def ceiling(qrels: Qrels, run: Run, measure_name: str) -> float:
    """What a measure would be if the documents of each ranking stood in their best order: what reranking them could reach.

    >>> ceiling({"q": {"a": 1}}, {"q": {"b": 2.0, "a": 1.0}}, "nDCG@10")
    1.0
    """
    best = {
        query: {document: float(qrels.get(query, {}).get(document, 0)) for document in scores} for query, scores in run.items()
    }
    return measure(qrels, best, [measure_name]).means[measure_name]


def _places(scores: Mapping[str, float]) -> dict[str, float]:
    """The same order without ties: of the programs behind ir-measures, the one for RR breaks them in another way."""
    return {document: -float(place) for place, document in enumerate(in_order(scores))}


def _parse(name: str) -> Any:
    import ir_measures

    try:
        return ir_measures.parse_measure(name)
    except (NameError, ValueError) as error:
        raise InputError(
            f"unknown measure {name!r}; ir-measures' names are expected, such as {', '.join(DEFAULT_MEASURES)}"
        ) from error


def write_run(run: Run, path: str | Path, tag: str) -> None:
    """Write a run as TREC lines: query Q0 document rank score tag. An id with white space cannot stand there."""
    for ids in (run, *run.values()):
        for identifier in ids:
            if not identifier or any(character.isspace() for character in identifier):
                raise InputError(f"the id {identifier!r} holds white space, which a TREC run cannot; rename it to write one")
    with Path(path).open("w", encoding="utf-8") as file:
        for query, scores in run.items():
            for rank, document in enumerate(in_order(scores), start=1):
                file.write(f"{query} Q0 {document} {rank} {scores[document]!r} {tag}\n")
