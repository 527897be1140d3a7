"""Reranking that stops: settled, late or out of tokens, and what the certificate says; over scores that are written down."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinrank.errors import ModelError
from twinrank.search.anytime import Anytime, Pace, features
from twinrank.search.rerank import Asked, Certificate, Rerank
from twinrank.stopping import Candidates, Covariance, Example, Model, Rule, upper_bound
from twinrank.types import Keys, Ranking, Scores


@dataclass
class Scripted:
    """Scores by key, and what was asked for, call by call."""

    scores: dict[int, float]
    calls: list[list[int]] = field(default_factory=list)
    pause: float = 0.0

    def __call__(self, query: str, keys: Keys) -> Scores:
        self.calls.append(keys.tolist())
        time.sleep(self.pause * len(keys))
        return np.array([self.scores[key] for key in keys.tolist()], np.float32)

    @property
    def asked(self) -> list[int]:
        return [key for call in self.calls for key in call]


def ranking(count: int = 60) -> Ranking:
    return Ranking.of(np.arange(1, count + 1), np.linspace(1, 0, count))


def random_scores(seed: int, count: int = 60, noise: float = 0.3) -> dict[int, float]:
    """Near to what the first stage thinks, as a reranker's are."""
    draw = np.random.default_rng(seed)
    level = draw.normal()
    return {key: float(score + noise * draw.normal() + level) for key, score in ranking(count)}


def learn(count: int = 150) -> Rule:
    examples: list[Example] = []
    for seed in range(count):
        stage = Anytime("s", Scripted(random_scores(seed)), 60)
        stage.run("q", ranking(), Asked(observe=lambda _, example: examples.append(example)))
    return Rule.learn(examples)


@pytest.fixture(scope="module")
def rule() -> Rule:
    return learn()


def test_a_risk_of_zero_is_the_full_rerank_bit_for_bit_in_one_call() -> None:
    scores = random_scores(7)
    scripted = Scripted(scores)
    full = Rerank("s", Scripted(scores), 40)("q", ranking())
    found, certificate = Anytime("s", scripted, 40).run("q", ranking(), Asked(k=10))
    assert found.keys.tolist() == full.keys.tolist()
    assert found.scores.tobytes() == full.scores.tobytes()
    assert len(scripted.calls) == 1
    assert certificate == Certificate("s", 40, 40, 10, "all", 0.0)


def test_without_anything_learned_all_are_scored_and_the_certificate_says_why() -> None:
    stage = Anytime("s", Scripted(random_scores(7)), 60, risk=0.1, without_rule="nothing was learned yet")
    _, certificate = stage.run("q", ranking(), Asked())
    assert (certificate.pairs, certificate.reason, certificate.risk) == (60, "all", 0.0)
    assert "nothing was learned yet" in str(certificate)


def test_too_little_learned_for_a_risk_means_a_full_rerank(rule: Rule) -> None:
    stage = Anytime("s", Scripted(random_scores(7)), 60, risk=0.001, rule=rule)
    _, certificate = stage.run("q", ranking(), Asked())
    assert certificate.pairs == 60
    assert "too few for a risk of 0.001" in certificate.note


def test_it_stops_when_the_first_places_are_settled_and_keeps_its_risk(rule: Rule) -> None:
    changed, pairs = 0, []
    for seed in range(1000, 1150):
        scores = random_scores(seed)
        scripted = Scripted(scores)
        stage = Anytime("s", scripted, 60, risk=0.1, rule=rule)
        found, certificate = stage.run("q", ranking(), Asked(k=3))
        full = Rerank("s", Scripted(scores), 60)("q", ranking())
        changed += found.keys[:3].tolist() != full.keys[:3].tolist()
        pairs.append(certificate.pairs)
        assert len(scripted.asked) == len(set(scripted.asked)) == certificate.pairs
        assert sorted(found.keys.tolist()) == list(range(1, 61))
        assert (np.diff(found.scores) <= 0).all()
        if certificate.pairs < 60:
            assert (certificate.reason, certificate.risk, certificate.top) == ("settled", 0.1, 3)
    assert upper_bound(150 - changed, 150, 0.99) >= 0.9
    assert np.mean(pairs) < 45


def test_what_was_not_scored_stands_behind_in_the_order_in_which_it_came(rule: Rule) -> None:
    found, certificate = Anytime("s", Scripted(random_scores(3)), 60, risk=0.3, rule=rule).run("q", ranking(), Asked(k=1))
    assert certificate.pairs < 60
    behind = found.keys[certificate.pairs :].tolist()
    assert behind == sorted(behind)


def test_top_settles_fewer_places_than_are_asked_for(rule: Rule) -> None:
    pairs = {}
    for top in (0, 1):
        stage = Anytime("s", Scripted(random_scores(3)), 60, risk=0.1, rule=rule, top=top)
        _, certificate = stage.run("q", ranking(), Asked(k=10))
        pairs[certificate.top] = certificate.pairs
    assert pairs[1] < pairs[10]


def test_places_are_counted_in_documents(rule: Rule) -> None:
    """All passages but two are of one document: whatever is scored, three documents are not there before those two are."""
    stage = Anytime(
        "s",
        Scripted(random_scores(3)),
        60,
        risk=0.3,
        rule=rule,
        owners=lambda keys: np.where(keys > 58, keys, 0),
    )
    _, certificate = stage.run("q", ranking(), Asked(k=3))
    assert certificate.pairs >= 40  # the two stand last


@pytest.mark.parametrize("count", [1, 2, 5, 10])
def test_as_many_places_as_candidates_means_that_all_are_scored(rule: Rule, count: int) -> None:
    stage = Anytime("s", Scripted(random_scores(3)), 60, risk=0.3, rule=rule)
    found, certificate = stage.run("q", ranking(count), Asked(k=10))
    assert (certificate.pairs, certificate.of, certificate.reason) == (count, count, "all")
    assert len(found) == count


def test_no_candidates_give_no_answer_and_an_empty_certificate(rule: Rule) -> None:
    scripted = Scripted({})
    found, certificate = Anytime("s", scripted, 60, risk=0.1, rule=rule).run("q", Ranking.empty(), Asked())
    assert (len(found), certificate.pairs, certificate.of, certificate.reason) == (0, 0, 0, "all")
    assert scripted.calls == []


def test_a_rule_learned_from_ties_lets_nothing_be_left_out() -> None:
    """Equal scores are told apart by id, so that an unscored candidate that may tie still matters."""
    examples: list[Example] = []
    tied = Scripted(dict.fromkeys(range(1, 61), 0.5))
    for _ in range(80):
        Anytime("s", tied, 60).run("q", ranking(), Asked(observe=lambda _, example: examples.append(example)))
    stage = Anytime("s", tied, 60, risk=0.1, rule=Rule.learn(examples))
    found, certificate = stage.run("q", ranking(), Asked(k=3))
    assert certificate.pairs == 60
    assert found.keys[:3].tolist() == [60, 59, 58]


@pytest.mark.parametrize("broken", [np.nan, np.inf])
@pytest.mark.parametrize("risk", [0.0, 0.2])
def test_a_score_that_is_no_number_is_refused_in_any_batch(rule: Rule, risk: float, broken: float) -> None:
    scores = {**random_scores(3), 60: broken, 1: broken}
    with pytest.raises(ModelError, match="the stage s gave"):
        Anytime("s", Scripted(scores), 60, risk=risk, rule=rule).run("q", ranking(), Asked())


def test_a_deadline_that_has_passed_leaves_the_ranking_as_it_came_and_says_so(rule: Rule) -> None:
    scripted = Scripted(random_scores(3))
    for stage in (Anytime("s", scripted, 60), Anytime("s", scripted, 60, risk=0.1, rule=rule), Rerank("s", scripted, 60)):
        found, certificate = stage.run("q", ranking(), Asked(deadline=perf_counter()))
        assert found.keys.tolist() == list(range(1, 61))
        assert (certificate.pairs, certificate.of, certificate.reason, certificate.risk) == (0, 60, "deadline", None)
    assert scripted.calls == []


def test_a_deadline_is_kept_once_a_batch_was_timed_and_the_best_were_scored_first() -> None:
    scripted = Scripted(random_scores(3), pause=0.002)
    stage = Anytime("s", scripted, 60)
    started = perf_counter()
    found, certificate = stage.run("q", ranking(), Asked(deadline=started + 0.06))
    assert perf_counter() - started < 0.06 + 0.03  # a busy machine is let off 30 ms; without a deadline it takes 120
    assert 1 <= certificate.pairs < 40
    assert (certificate.reason, certificate.risk) == ("deadline", None)
    assert scripted.asked == list(range(1, certificate.pairs + 1))
    scored = found.scores[: certificate.pairs]
    assert scored.tolist() == sorted((np.float32(scripted.scores[key]) for key in scripted.asked), reverse=True)


def test_a_late_answer_tells_the_risk_that_was_reached_where_a_rule_was_learned(rule: Rule) -> None:
    stage = Anytime("s", Scripted(random_scores(3), pause=0.002), 60, rule=rule, risk=0.01)
    _, certificate = stage.run("q", ranking(), Asked(k=3, deadline=perf_counter() + 0.06))
    if certificate.reason == "deadline":
        assert certificate.risk is not None
        assert 0 < certificate.risk <= 1
        assert "would change the first 3" in str(certificate)


def test_a_deadline_with_time_to_spare_changes_nothing() -> None:
    scores = random_scores(3)
    full = Rerank("s", Scripted(scores), 60)("q", ranking())
    found, certificate = Anytime("s", Scripted(scores), 60).run("q", ranking(), Asked(deadline=perf_counter() + 60))
    assert found.keys.tolist() == full.keys.tolist()
    assert found.scores.tobytes() == full.scores.tobytes()
    assert certificate.reason == "all"


def lengths(query: str, keys: Keys) -> npt.NDArray[np.int64]:
    return np.full(len(keys), 10, np.int64)


def test_a_token_budget_is_never_exceeded_and_used_as_far_as_whole_pairs_go() -> None:
    scripted = Scripted(random_scores(3))
    _, certificate = Anytime("s", scripted, 60, tokens=258, count_tokens=lengths).run("q", ranking(), Asked())
    assert (certificate.pairs, certificate.reason) == (25, "tokens")
    assert scripted.asked == list(range(1, 26))


def test_a_budget_below_one_pair_scores_nothing() -> None:
    found, certificate = Anytime("s", Scripted({}), 60, tokens=9, count_tokens=lengths).run("q", ranking(), Asked())
    assert (certificate.pairs, certificate.reason) == (0, "tokens")
    assert found.keys.tolist() == list(range(1, 61))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(0, 700), st.sampled_from([0.0, 0.1, 0.5]), st.integers(1, 12))
def test_whatever_stops_it_every_passage_is_there_once_and_those_scored_stand_in_front(
    rule: Rule, seed: int, tokens: int, risk: float, k: int
) -> None:
    scripted = Scripted(random_scores(seed))
    stage = Anytime("s", scripted, 50, risk=risk, rule=rule, tokens=tokens, count_tokens=lengths)
    found, certificate = stage.run("q", ranking(), Asked(k=k))
    assert sorted(found.keys.tolist()) == list(range(1, 61))
    assert sorted(found.keys[: certificate.pairs].tolist()) == sorted(scripted.asked)
    assert not tokens or 10 * certificate.pairs <= tokens
    assert (certificate.reason == "all") == (certificate.pairs == 50)


def test_mixing_with_the_ranking_that_came_in_uses_what_was_scored_alone() -> None:
    stage = Anytime("s", Scripted({1: 0.0, 2: 1.0, 3: 5.0}), 60, 0.5, tokens=20, count_tokens=lengths)
    found, _ = stage.run("q", Ranking.of([1, 2, 3], [1.0, 0.0, -9.0]), Asked())
    assert dict(list(found)[:2]) == {1: pytest.approx(0.5), 2: pytest.approx(0.5)}


def test_features_are_score_rank_and_what_each_source_knows() -> None:
    @dataclass
    class Knows:
        name: str
        known: dict[int, float]

        def find(self, k: int, allowed: Keys | None) -> Ranking:
            raise NotImplementedError

        def score(self, keys: Keys) -> Ranking:
            return Ranking.of(list(self.known), list(self.known.values()))

    made = features(Ranking.of([7, 8], [0.9, 0.5]), [Knows("words", {8: 4.0})])
    assert made == pytest.approx(np.array([[0.9, 0.0, 0.0, 0.0], [0.5, np.log(2), 4.0, 1.0]]))


def test_the_likeliest_are_scored_first_even_if_they_came_late() -> None:
    """A model that expects the score to fall with the first stage's turns the order round."""
    model = Model(np.zeros(2), np.ones(2), np.array([0.0, -1.0, 0, 0, 0]), Covariance(1e-6, 0, 0, 1e-3, 1))
    stage_rule = Rule(model, {top: np.full(100, np.inf) for top in (1, 3, 5, 10, 20)})
    scripted = Scripted({key: float(key) for key in range(1, 61)})
    Anytime("s", scripted, 60, risk=0.1, rule=stage_rule).run("q", ranking(), Asked(k=1))
    assert scripted.calls[0] == list(range(60, 50, -1))


def test_examples_are_told_only_of_whole_reranks(rule: Rule) -> None:
    told: list[str] = []
    asked = Asked(observe=lambda stage, _: told.append(stage))
    Anytime("whole", Scripted(random_scores(3)), 60).run("q", ranking(), asked)
    Anytime("part", Scripted(random_scores(3)), 60, risk=0.3, rule=rule).run("q", ranking(), asked)
    assert told == ["whole"]


def test_the_pace_follows_the_latest_batches() -> None:
    pace = Pace()
    pace.note(100, 1.0)
    for _ in range(20):
        pace.note(100, 2.0)
    assert pace.seconds(100) == pytest.approx(2.0 * Pace.MARGIN, rel=0.01)
    pace.note(0, 5.0)  # a batch without tokens tells nothing
    assert pace.seconds(100) == pytest.approx(2.0 * Pace.MARGIN, rel=0.01)


@pytest.mark.parametrize(
    ("certificate", "said"),
    [
        (Certificate("s", 9, 9, 3, "all", 0.0), "s: 9 of 9 pairs scored, all were scored"),
        (Certificate("s", 4, 9, 3, "settled", 0.05), "4 of 9 pairs scored, the first 3 are settled at a risk of 0.05"),
        (Certificate("s", 4, 9, 3, "deadline", None), "the deadline came, and it is not known"),
        (Certificate("s", 4, 9, 3, "tokens", 0.25), "the token budget was used up, at a risk of 0.25"),
    ],
)
def test_a_certificate_reads_as_a_sentence(certificate: Certificate, said: str) -> None:
    assert said in str(certificate)


def test_candidates_without_vectors_or_documents_are_described_by_their_features(rule: Rule) -> None:
    described: Callable[..., Candidates] = Anytime("s", Scripted({}), 60).describe
    candidates = described(ranking(5), [])
    assert candidates.vectors is None
    assert candidates.owners.tolist() == [1, 2, 3, 4, 5]
    assert candidates.features.shape == (5, 2)
