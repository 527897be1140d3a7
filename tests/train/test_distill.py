"""Teachers: their scores stand with their passages, several become one, and nobody is asked twice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinrank import CrossEncoder
from twinrank.errors import DataError, InputError, TwinrankError
from twinrank.train import distill
from twinrank.train.data import Example
from twinrank.train.distill import key_of, teach, teachable, together
from twinrank.types import Scores

EXAMPLES = [
    Example("does zinc help?", ("zinc helps",), ("bread", "a man eats")),
    Example("what is bread", ("bread is food", "a piece of bread"), ("zinc helps",)),
]


class Teacher:
    """Scores by length, and counts what it is asked."""

    name = "by length"

    def __init__(self, scale: float = 1.0, shift: float = 0.0) -> None:
        self.scale, self.shift = scale, shift
        self.fingerprint = f"{scale} {shift}"
        self.asked: list[tuple[str, str]] = []

    def score(self, pairs: Sequence[tuple[str, str]]) -> Scores:
        self.asked += pairs
        return np.array([self.scale * len(passage) + self.shift for _, passage in pairs], np.float32)


def test_every_passage_has_its_score_positives_first(tmp_path: Path) -> None:
    taught = teach(EXAMPLES, Teacher(), folder=tmp_path)
    assert [one.passages for one in taught] == [one.passages for one in EXAMPLES]
    assert [one.scores for one in taught] == [tuple(map(float, map(len, one.passages))) for one in EXAMPLES]


def test_nobody_is_asked_twice_not_even_after_a_restart(tmp_path: Path) -> None:
    teacher = Teacher()
    first = teach([*EXAMPLES, EXAMPLES[0]], teacher, folder=tmp_path)
    assert len(teacher.asked) == len(set(teacher.asked)) == 6
    again = Teacher()
    assert teach(EXAMPLES, again, folder=tmp_path) == first[:2]
    assert again.asked == []
    other = Teacher(scale=2.0)
    teach(EXAMPLES, other, folder=tmp_path)
    assert len(other.asked) == 6


def test_a_kill_costs_the_piece_that_was_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distill, "AT_ONCE", 2)

    class Dying(Teacher):
        def score(self, pairs: Sequence[tuple[str, str]]) -> Scores:
            if len(self.asked) >= 4:
                raise KeyboardInterrupt
            return super().score(pairs)

    with pytest.raises(KeyboardInterrupt):
        teach(EXAMPLES, Dying(), folder=tmp_path)
    (file,) = tmp_path.iterdir()
    with file.open("ab") as stream:
        stream.write(b"half a rec")
    patient = Teacher()
    done: list[tuple[int, int]] = []
    taught = teach(EXAMPLES, patient, folder=tmp_path, progress=lambda now, total: done.append((now, total)))
    assert len(patient.asked) == 2
    assert done == [(4, 6), (6, 6)]
    assert taught == teach(EXAMPLES, Teacher(), folder=tmp_path / "fresh")


def test_several_teachers_weigh_alike_whatever_their_scales(tmp_path: Path) -> None:
    wide, narrow = Teacher(scale=100.0, shift=3.0), Teacher(scale=1.0)
    taught = teach(EXAMPLES, [wide, narrow], folder=tmp_path)
    alone = teach(EXAMPLES, narrow, folder=tmp_path)
    ours = np.concatenate([one.scores or () for one in taught])
    theirs = np.concatenate([one.scores or () for one in alone])
    np.testing.assert_allclose(np.corrcoef(ours, theirs)[0, 1], 1.0)
    assert ours.std() == pytest.approx(theirs.std() * 50.5, rel=0.2)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=20), st.integers(1, 4))
def test_teachers_who_agree_are_as_one(scores: list[float], count: int) -> None:
    column = np.array(scores)
    np.testing.assert_allclose(together([column] * count), column, atol=1e-9)


def test_only_examples_with_negatives_of_their_own_are_taught() -> None:
    assert teachable(EXAMPLES, 1) == EXAMPLES
    assert teachable(EXAMPLES, 2) == EXAMPLES[:1]
    with pytest.raises(DataError, match="no example has 3 negatives to ask a teacher about"):
        teachable(EXAMPLES, 3)


def test_all_teachers_are_opened_before_the_first_is_asked(tmp_path: Path) -> None:
    patient = Teacher()
    with pytest.raises(TwinrankError):
        teach(EXAMPLES, [patient, str(tmp_path / "nowhere")], folder=tmp_path / "scores")
    assert patient.asked == []


def test_keys_tell_where_the_query_ends() -> None:
    assert key_of(("ab", "c")) != key_of(("a", "bc"))
    assert key_of(("ab", "c")) == key_of(("ab", "c"))


def test_a_cross_encoder_teaches_by_its_outputs_before_their_activation(tiny_cross_encoder: Path, tmp_path: Path) -> None:
    taught = teach(EXAMPLES, tiny_cross_encoder, folder=tmp_path)
    teacher = CrossEncoder(tiny_cross_encoder, activation="identity")
    for example in taught:
        expected = teacher.score([(example.query, passage) for passage in example.passages])
        np.testing.assert_allclose(example.scores, expected, rtol=1e-4, atol=1e-6)


def test_scores_that_are_no_numbers_and_no_teacher_at_all_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="by length gives a score that is no number"):
        teach(EXAMPLES, Teacher(scale=float("nan")), folder=tmp_path)
    with pytest.raises(InputError, match="a teacher is missing"):
        teach(EXAMPLES, [], folder=tmp_path)
