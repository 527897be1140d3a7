"""What else was said about the document: its calibrated probability, and whether a condition lets it through."""

from __future__ import annotations

import numpy as np

from twinrank.calibration import Logistic
from twinrank.explain.explanation import FeatureSeen, FilterSeen, ProbabilitySeen
from twinrank.search import filters
from twinrank.search.calibrate import Calibration, Evidence, Feature, columns
from twinrank.store import Kept
from twinrank.types import (
    And,
    Between,
    Comparison,
    Condition,
    Document,
    IsNull,
    Keys,
    Like,
    Membership,
    Not,
    Or,
)

CERTAIN = 1e-12
"""Probabilities nearer to 0 or 1 have their log odds cut there."""


def see_probability(calibration: Calibration, evidence: Evidence, features: list[Feature], key: int) -> ProbabilitySeen:
    """The probability of the document whose best passage is `key`, and what moved it."""
    method = calibration.calibrator.method
    places = np.flatnonzero(evidence.keys[: calibration.depth] == key)
    if not len(places):
        said = (
            "the last stage did not score it" if key not in evidence.keys else f"it is not among the first {calibration.depth}"
        )
        return ProbabilitySeen(None, method, 0.0, (), f"the calibration says nothing about it: {said}")
    place = int(places[0])
    probability = float(calibration.probabilities(evidence, features)[place])
    values = columns(evidence.features[: calibration.depth], features, calibration.features)[place]  # (features,)
    model = calibration.calibrator
    if isinstance(model, Logistic):
        adds = (values - np.array(model.means)) / np.array(model.scales) * np.array(model.weights)
        base = model.intercept
    else:
        certain = min(max(probability, CERTAIN), 1 - CERTAIN)
        adds, base = np.array([np.log(certain / (1 - certain))]), 0.0
    seen = [
        FeatureSeen(name, float(value), float(added))
        for name, value, added in zip(calibration.features, values, adds, strict=True)
    ]
    return ProbabilitySeen(probability, method, base, tuple(sorted(seen, key=lambda feature: -abs(feature.adds))))


def see_filter(store: Kept, where: str, document: Document, allowed: Keys, own: Keys) -> FilterSeen:
    """Whether a document whose passages are `own` meets a condition, and which parts of it it does not meet."""
    condition = filters.parse(where)
    passes = bool(np.isin(own, allowed).any())
    failed = []
    if not passes:
        itself = Membership("id", (document.id,))
        for part in condition.conditions if isinstance(condition, And) else (condition,):
            if not len(store.select(And((itself, part)))):
                failed.append(f"{told(part)}{_instead(part, document)}")
    return FilterSeen(where, passes, tuple(failed), len(allowed), store.count_passages())


def _instead(condition: Condition, document: Document) -> str:
    if isinstance(condition, (Not, And, Or)):
        return ""
    known = {"id": document.id, "title": document.title, "source": document.source, **document.fields}
    value = known.get(condition.field)
    return " (it has none)" if value in (None, "") else f" (it has {value!r})"


def told(condition: Condition) -> str:
    """A condition as one writes it.

    >>> told(filters.parse("year between 2000 and 2010 and not lang in ('en', 'fr')"))
    "year between 2000 and 2010 and not lang in ('en', 'fr')"
    """
    if isinstance(condition, Comparison):
        return f"{condition.field} {condition.operator} {condition.value!r}"
    if isinstance(condition, Membership):
        return f"{condition.field} in ({', '.join(map(repr, condition.values))})"
    if isinstance(condition, Between):
        return f"{condition.field} between {condition.low!r} and {condition.high!r}"
    if isinstance(condition, Like):
        return f"{condition.field} like {condition.pattern!r}"
    if isinstance(condition, IsNull):
        return f"{condition.field} is null"
    if isinstance(condition, Not):
        inside = told(condition.condition)
        return f"not ({inside})" if isinstance(condition.condition, (And, Or)) else f"not {inside}"
    return (" and " if isinstance(condition, And) else " or ").join(
        f"({told(part)})" if isinstance(part, (And, Or)) else told(part) for part in condition.conditions
    )
