"""The stage that gives probabilities: its features by hand, its file, its verdicts."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from twinrank.abstention import Ladder
from twinrank.calibration import Logistic, Platt
from twinrank.errors import CalibrationError
from twinrank.search.calibrate import Calibration, Feature, Wish, features_of, gather
from twinrank.search.pipeline import Trace, Traced
from twinrank.types import Hit, Ranking

FEATURES = [Feature("score of words", 1)]


def pipeline(*reranks: str) -> Any:
    """Two sources and these reranks, by name: all that the features ask of a pipeline."""
    sources = [(SimpleNamespace(name=name), 100) for name in ("vectors", "words")]
    return SimpleNamespace(sources=sources, rerank=[SimpleNamespace(name=name) for name in reranks])


def trace(*stages: tuple[str, Ranking], pairs: int | None = None) -> Trace:
    certificates = [] if pairs is None else [SimpleNamespace(pairs=pairs)]
    return Trace([Traced(name, ranking, 0.0) for name, ranking in stages], certificates=certificates)  # type: ignore[arg-type]


VECTORS = ("vectors", Ranking.of([1, 2, 3], [0.9, 0.5, 0.1]))
WORDS = ("words", Ranking.of([2, 4], [7.0, 3.0]))
FUSE = ("fuse", Ranking.of([1, 2, 3, 4], [0.6, 0.9, 0.1, 0.2]))


def test_the_features_of_four_documents_by_hand() -> None:
    evidence = gather(pipeline(), trace(VECTORS, WORDS, FUSE), FUSE[1], "two words")
    names = [feature.name for feature in features_of(pipeline())]
    column = {name: evidence.features[:, place].round(6).tolist() for place, name in enumerate(names)}
    assert evidence.keys.tolist() == [2, 1, 4, 3]
    assert column["score of vectors"] == pytest.approx([0.5, 0.9, 0.1, 0.1])  # 4 was not found: as the last that was
    assert column["score of words"] == [7, 3, 3, 3]
    assert column["behind the best of vectors"] == pytest.approx([0.4, 0, 0.8, 0.8])
    assert column["above the next"] == pytest.approx([0.3, 0.4, 0.1, 0])
    assert column["log rank"] == pytest.approx([0, 1, math.log2(3), 2], abs=1e-6)
    assert column["sources that agree"] == [2, 1, 1, 1]
    assert column["log words"] == pytest.approx([math.log(3)] * 4, abs=1e-6)


def test_what_the_last_stage_did_not_score_is_left_out() -> None:
    reranked = ("cross", Ranking(np.array([1, 2, 4, 3]), np.array([5.0, 1.0, 0.0, -1.0], np.float32)))
    evidence = gather(pipeline("cross"), trace(VECTORS, WORDS, FUSE, reranked, pairs=2), reranked[1], "q")
    assert evidence.keys.tolist() == [1, 2]
    assert len(features_of(pipeline("cross"))) == evidence.features.shape[1]
    nothing = gather(pipeline("cross"), trace(VECTORS, WORDS, FUSE, reranked, pairs=0), reranked[1], "q")
    assert nothing.features.shape == (0, evidence.features.shape[1])


def test_the_forms_of_a_rewritten_query_count_as_one_search() -> None:
    other = ("vectors 2", Ranking.of([3, 1], [0.8, 0.2]))
    forms = trace(("vectors 1", VECTORS[1]), ("words 1", WORDS[1]), other, ("words 2", Ranking.empty()), FUSE)
    evidence = gather(pipeline(), forms, FUSE[1], "q")
    vectors = dict(zip(evidence.keys.tolist(), evidence.features[:, 0].tolist(), strict=True))
    assert vectors == pytest.approx({1: 0.9, 2: 0.5, 3: 0.8, 4: 0.5})  # 4: the least of what was found


def test_a_source_that_found_nothing_counts_as_nothing() -> None:
    evidence = gather(pipeline(), trace(VECTORS, ("words", Ranking.empty()), FUSE), FUSE[1], "q")
    assert evidence.features[:, 1].tolist() == [0, 0, 0, 0]
    assert np.isfinite(evidence.features).all()


def calibration(**changes: Any) -> Calibration:
    sure = np.linspace(0, 1, 400)
    ladder = Ladder.of(sure, sure, sure < 0.3)
    values = {
        "calibrator": Platt(1.0, -0.5),
        "features": ("score of words",),
        "identity": {"[fuse]": "a", "model of the vectors": "b"},
        "depth": 2,
        "ladders": {1: ladder, 3: ladder},
        "about": {"data": "made up"},
    }
    return Calibration(**{**values, **changes})


def hits(*probabilities: float | None) -> list[Hit]:
    return [Hit(str(rank), 1.0, rank, "", probability=one) for rank, one in enumerate(probabilities, start=1)]


def test_only_the_first_documents_get_a_probability() -> None:
    rows = np.array([[2.0], [0.5], [-9.0]])
    evidence = SimpleNamespace(features=rows, keys=np.arange(3))
    chances = calibration().probabilities(evidence, FEATURES)  # type: ignore[arg-type]
    assert chances.tolist() == pytest.approx([1 / (1 + math.exp(-1.5)), 0.5])


def test_hits_below_the_least_probability_are_left_out_and_keep_their_ranks() -> None:
    kept, verdict = calibration().answer(hits(0.9, 0.2, 0.6, None), 10, Wish(min_probability=0.5))
    assert [hit.rank for hit in kept] == [1, 3]
    assert verdict is not None
    assert (verdict.answered, verdict.left_out, verdict.probability) == (True, 2, 0.9)


def test_with_nothing_left_there_is_no_answer() -> None:
    kept, verdict = calibration().answer(hits(0.1, 0.2), 10, Wish(min_probability=0.5))
    assert kept == ()
    assert verdict is not None
    assert not verdict.answered
    assert str(verdict).startswith("nothing relevant found: the likeliest document is relevant with probability 0.200")


def test_a_risk_answers_all_or_nothing() -> None:
    sure, verdict = calibration().answer(hits(0.95, 0.1, None), 10, Wish(risk=0.1))
    assert [hit.rank for hit in sure] == [1, 2, 3]
    assert verdict is not None
    assert (verdict.answered, verdict.risk, verdict.confidence, verdict.first) == (True, 0.1, 0.95, 3)
    unsure, verdict = calibration().answer(hits(0.05, 0.04), 10, Wish(risk=0.1))
    assert unsure == ()
    assert verdict is not None
    assert (verdict.answered, verdict.left_out) == (False, 2)
    assert "at most 0.1 of all answers hold nothing relevant among their first 3" in str(verdict)


def test_a_promise_about_more_hits_than_are_shown_is_not_taken() -> None:
    _, verdict = calibration().answer(hits(0.95), 2, Wish(risk=0.1))
    assert verdict is not None
    assert verdict.first == 1
    with pytest.raises(CalibrationError, match="promises nothing about 2 hits"):
        calibration(ladders={3: calibration().ladders[3]}).answer(hits(0.95), 2, Wish(risk=0.1))


def test_a_risk_that_cannot_be_promised_is_refused_with_the_least_that_can() -> None:
    with pytest.raises(
        CalibrationError, match=r"risk of 0.001 among the first 3 hits cannot be promised.*smallest that can is 0"
    ):
        calibration().answer(hits(0.9), 10, Wish(risk=0.001))


def test_without_probabilities_nothing_is_said_about_risk() -> None:
    with pytest.raises(CalibrationError, match="the deadline came before"):
        calibration().answer(hits(None, None), 10, Wish(risk=0.1))


def test_a_search_that_found_nothing_is_no_answer() -> None:
    kept, verdict = calibration().answer([], 10, Wish(risk=0.1))
    assert kept == ()
    assert verdict is not None
    assert not verdict.answered


@pytest.mark.parametrize("wish", [{"risk": 0.0}, {"risk": 1.0}, {"risk": float("nan")}, {"min_probability": 1.1}])
def test_wishes_that_mean_nothing_are_refused(wish: dict[str, float]) -> None:
    with pytest.raises(CalibrationError, match=r"got (0\.0|1\.0|nan|1\.1)"):
        Wish(**wish)


def test_the_parts_that_changed_are_named() -> None:
    assert calibration().differences({"[fuse]": "a", "model of the vectors": "c", "new": "d"}) == [
        "model of the vectors",
        "new",
    ]
    assert calibration().differences({"[fuse]": "a", "model of the vectors": "b"}) == []


def test_a_calibration_comes_back_from_its_file_bit_for_bit() -> None:
    known = calibration(calibrator=Logistic((0.1,), (1 / 3,), (math.pi,), -1e-17))
    again = Calibration.from_json(known.to_json())
    assert again == known
    assert again.to_json() == known.to_json()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"format": 99}', json.dumps({**json.loads(calibration().to_json()), "calibrator": {}})]
)
def test_a_damaged_file_is_refused(text: str) -> None:
    with pytest.raises(CalibrationError):
        Calibration.from_json(text)
