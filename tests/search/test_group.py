"""Passages grouped by document."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from twinrank.search.group import group
from twinrank.types import Ranking


def test_places_behind_a_rerank_do_not_add_up() -> None:
    ranking, owners = Ranking.of([1, 2, 3, 4, 5], [0.9, 0.5, -0.5, -1.5, -2.5]), np.array([1, 2, 3, 3, 3])
    added = group(ranking, owners, "sum", scored=2)
    assert added.keys.tolist() == [1, 2, 3]
    assert added.scores.tolist() == [np.float32(0.9), np.float32(0.5), np.float32(-0.5)]


PASSAGES = st.lists(st.tuples(st.integers(-1, 5), st.floats(-100, 100, width=32)), max_size=30)


@given(PASSAGES, st.integers(1, 4))
def test_grouping_is_what_a_loop_over_documents_gives(passages: list[tuple[int, float]], most: int) -> None:
    keys = np.arange(len(passages))
    ranking = Ranking.of(keys, [score for _, score in passages])
    owners = np.array([passages[key][0] for key in ranking.keys.tolist()], np.int64)
    by_document: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for (key, score), owner in zip(ranking, owners.tolist(), strict=True):
        if owner >= 0:
            by_document[owner].append((score, key))
    lowest = min((score for found in by_document.values() for score, _ in found), default=0.0)
    best = {found[0][1]: found[0][0] for found in by_document.values()}
    sums = {found[0][1]: lowest + sum(score - lowest for score, _ in found[:most]) for found in by_document.values()}
    assert dict(iter(group(ranking, owners))) == best
    assert group(ranking, owners).keys.tolist() == [key for key in ranking.keys.tolist() if key in best]
    added = dict(iter(group(ranking, owners, "sum", most)))
    assert added.keys() == sums.keys()
    np.testing.assert_allclose([added[key] for key in sums], list(sums.values()), rtol=1e-4, atol=1e-4)
    assert len(group(ranking, owners, "none")) == sum(map(len, by_document.values()))
