"""Mined negatives: near misses, and never what is known to answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinrank import LateInteraction
from twinrank.errors import InputError, ModelUnsupportedError
from twinrank.train.data import Example, known_positives, same_text
from twinrank.train.negatives import Miner, Mining, open_encoder
from twinrank.types import Scores, Side, Tokens, Vectors

PASSAGES = [
    "Zinc may shorten a cold.",
    "A cold is caught from others.",
    "Zinc and cold weather: roofs.",
    "Honey eases a cough.",
    "A cough may follow a cold.",
    "Rest helps against most infections.",
    "zinc may  shorten a COLD.",
]
ZINC = Example("zinc for a cold", (PASSAGES[0],))


class Places:
    """An encoder that knows where each text lies in the plane."""

    name = fingerprint = "places"
    dimension = 2
    max_tokens = 512

    def __init__(self, angles: dict[str, float]) -> None:
        self.angles = angles
        self._asked: list[str] = []

    def tokenize(self, texts: Sequence[str], *, side: Side = "document") -> Tokens:
        self._asked = list(texts)
        return Tokens(np.zeros(len(texts), np.int32), np.arange(len(texts) + 1, dtype=np.int32))

    def embed(self, tokens: Tokens, *, side: Side = "document") -> Vectors:
        angles = np.radians([self.angles[text] for text in self._asked])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32) * 3  # the length is to be ignored

    def encode(self, texts: Sequence[str], *, side: Side = "document") -> Vectors:
        return self.embed(self.tokenize(texts, side=side), side=side)

    def token_offsets(self, text: str) -> Sequence[tuple[int, int]]:
        return []


# The query lies at 0 degrees: cosines .98 (10°), .94 (20°), .87 (30°), .5 (60°), 0 (90°), -1 (180°).
ANGLES = dict(zip([*PASSAGES[:6], "zinc for a cold"], [20.0, 10.0, 30.0, 60.0, 90.0, 180.0, 0.0], strict=True))


def mine(mining: Mining, *, example: Example = ZINC, **options: object) -> tuple[str, ...]:
    miner = Miner(PASSAGES, mining, **options)  # type: ignore[arg-type]
    [found] = miner.mine([example], None if mining.by == "words" else Places(ANGLES))
    return found.negatives


def test_words_find_the_passages_that_share_the_querys_words_best_first() -> None:
    found = mine(Mining(by="words", count=3, draw="top"))
    assert found[0] == "Zinc and cold weather: roofs."
    assert set(found[1:]) == {"A cold is caught from others.", "A cough may follow a cold."}


def test_vectors_find_the_nearest_and_the_margin_leaves_out_what_may_be_an_answer() -> None:
    # The positive's cosine is .940; 95 % of it are .893: what lies at 10° is above.
    assert mine(Mining(by="vectors", count=2, draw="top")) == ("Zinc and cold weather: roofs.", "Honey eases a cough.")
    assert mine(Mining(by="vectors", count=2, draw="top", margin=0.5)) == (
        "A cough may follow a cold.",
        "Rest helps against most infections.",
    )  # 60° has a cosine of .5, above half of .94
    assert mine(Mining(by="vectors", count=1, draw="top", margin=-1)) == ("A cold is caught from others.",)


def test_the_window_leaves_out_the_first_ranks_and_those_beyond_the_last() -> None:
    assert mine(Mining(by="vectors", margin=-1, first=2, last=3, count=9)) == (
        "Zinc and cold weather: roofs.",
        "Honey eases a cough.",
    )


def test_both_rankings_fused_put_what_both_find_first() -> None:
    found = mine(Mining(by="both", margin=-1, count=2, draw="top"))
    assert set(found) == {"A cold is caught from others.", "Zinc and cold weather: roofs."}


def test_a_known_positive_is_no_negative_whoever_knows_it_and_however_it_is_spaced() -> None:
    everything = Mining(by="vectors", margin=-1, count=9)
    assert all(same_text(text) != same_text(PASSAGES[0]) for text in mine(everything))
    elsewhere = [ZINC, Example("Zinc for a  cold", (PASSAGES[2],))]
    angles = {**ANGLES, "Zinc for a  cold": 0.0}
    found = Miner(PASSAGES, everything).mine(elsewhere, Places(angles))
    assert all(PASSAGES[2] not in example.negatives for example in found)
    known = {"zinc for a cold": {"a COLD is caught from others."}}
    assert PASSAGES[1] not in mine(everything, known=known)


def test_passages_of_the_querys_own_document_are_no_negatives() -> None:
    everything = Mining(by="words", count=9, alike=1.0)
    parts = [
        Example("zinc for a cold", (PASSAGES[0],), document="a"),
        Example("caught a cold", (PASSAGES[1],), document="a"),
        Example("cold weather", (PASSAGES[2],), document="b"),
        Example("cough and cold", (PASSAGES[4],)),
    ]
    first, second, third, fourth = Miner(PASSAGES, everything).mine(parts)
    assert set(first.negatives) == set(second.negatives) == {PASSAGES[2], PASSAGES[4]}
    assert {PASSAGES[0], PASSAGES[1]} <= set(third.negatives)
    assert {PASSAGES[0], PASSAGES[1]} <= set(fourth.negatives)  # nobody knows whose it is


def test_late_interaction_orders_by_maxsim_what_words_found(tiny_model: Path) -> None:
    model = LateInteraction(tiny_model)  # a bi-encoder's own token vectors
    everything = Mining(by="vectors", count=9, margin=-1)
    sharing = [PASSAGES[0], PASSAGES[1], PASSAGES[2], PASSAGES[4]]  # a word with the query
    scored = sorted(zip(model.score([(ZINC.query, text) for text in sharing]).tolist(), sharing, strict=True), reverse=True)
    (highest, answer), (second, _), (third, _), _ = scored
    others = [text for _, text in scored[1:]]
    example = Example(ZINC.query, (answer,))
    progress: dict[str, int] = {}

    def told(name: str, done: int) -> None:
        progress[name] = progress.get(name, 0) + done

    [found] = Miner(PASSAGES, everything).mine([example], model, progress=told)
    assert found.negatives == tuple(others)
    assert progress == {"passages": 4, "queries": 1}
    [found] = Miner(PASSAGES, replace(everything, count=1, draw="top")).mine([example], model)
    assert found.negatives == tuple(others[:1])
    between = replace(everything, margin=1 - (second + third) / 2 / highest)
    [found] = Miner(PASSAGES, between).mine([example], model)
    assert found.negatives == tuple(others[1:])


def test_a_twin_of_a_positive_is_left_out() -> None:
    passages = [*PASSAGES, "Zinc may shorten a cold!", "Zinc may shorten a long cold."]
    miner = Miner(passages, Mining(by="words", count=9, alike=0.8))
    [found] = miner.mine([ZINC])
    assert passages[-2] not in found.negatives  # zinc may shorten cold: 4 words of 4; with "long" 4 of 5
    assert passages[-1] not in found.negatives
    assert miner.tally.twins == 2
    [found] = Miner(passages, Mining(by="words", count=9, alike=0.9)).mine([ZINC])
    assert passages[-1] in found.negatives


class Judge:
    name = fingerprint = "judge"

    def score(self, pairs: Sequence[tuple[str, str]]) -> Scores:
        good = {PASSAGES[0]: 2.0, PASSAGES[2]: 2.5, PASSAGES[1]: 1.8}
        return np.array([good.get(passage, -4.0) for _, passage in pairs], np.float32)


def test_a_judge_leaves_out_what_it_thinks_as_good_as_the_positive() -> None:
    by_words = Mining(by="words", count=9)
    assert PASSAGES[2] not in mine(by_words, judge=Judge())
    assert PASSAGES[1] in mine(by_words, judge=Judge())
    assert PASSAGES[1] not in mine(Mining(by="words", count=9, judge_margin=1.0), judge=Judge())


def test_bm25s_own_margin_holds_where_it_is_asked_for() -> None:
    example = Example("cold weather", (PASSAGES[1],))  # of which PASSAGES[2] holds both words
    assert PASSAGES[2] in mine(Mining(by="words", count=9), example=example)
    assert PASSAGES[2] not in mine(Mining(by="words", count=9, margin=0.05), example=example)


def test_a_positive_that_is_none_of_the_passages_is_encoded_for_the_margin() -> None:
    example = Example("zinc for a cold", ("somewhere else",))
    miner = Miner(PASSAGES, Mining(by="vectors", count=9))
    [found] = miner.mine([example], Places({**ANGLES, "somewhere else": 22.0}))
    assert set(found.negatives) == {"Zinc and cold weather: roofs.", *PASSAGES[3:6]}  # .95 · cos 22° = .881


def test_what_was_mined_before_and_a_teachers_scores_are_replaced() -> None:
    [found] = Miner(PASSAGES, Mining(by="words", count=1)).mine([Example("cold", (PASSAGES[0],), ("old",), (1.0, 0.0))])
    assert found.negatives not in ((), ("old",))
    assert found.scores is None


@pytest.mark.parametrize("by", ["words", "vectors", "both"])
def test_an_example_without_an_answer_keeps_what_does_not_answer_it(by: str) -> None:
    bare = Example("flu", (), ("bread",), (0.0,))
    found = Miner(PASSAGES, Mining(by=by, count=1)).mine([bare, ZINC, bare], Places(ANGLES))  # type: ignore[arg-type]
    assert found[0] == found[2] == Example("flu", (), ("bread",))
    assert found[1].query == ZINC.query
    assert found[1].negatives[0] in PASSAGES


def test_the_tally_adds_up() -> None:
    miner = Miner(PASSAGES, Mining(by="vectors", count=2))
    miner.mine([ZINC, Example("rest", (PASSAGES[5],))], Places({**ANGLES, "rest": 180.0}))
    tally = miner.tally
    # Five others each, the sixth passage being the third's copy; at 180° none comes near to the positive.
    assert (tally.examples, tally.candidates, tally.known, tally.margin) == (2, 10, 2, 1)
    assert tally.negatives == 4
    assert str(tally).startswith("4 negatives for 2 examples; of 10 candidates left out: 2 known positives")


def test_a_seed_draws_the_same_and_the_next_round_other_ones() -> None:
    passages = [f"A cold of kind {number} is a cold." for number in range(200)]
    examples = [Example("kinds of cold", (passages[0],))]
    first, again = (Miner(passages, Mining(by="words", count=4, alike=1.0, last=100)) for _ in range(2))
    assert first.mine(examples) == again.mine(examples) == first.mine(examples)
    assert first.mine(examples) != first.mine(examples, number=1)
    assert first.mine(examples, number=1) == again.mine(examples, number=1)  # a miner remembers no rounds


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.tuples(st.sampled_from(["red fox", "blue fox", "red hen"]), st.integers(0, 19)), min_size=1, max_size=12),
    st.sampled_from(["words", "vectors", "both"]),
)
def test_no_mined_negative_is_a_known_positive(pairs: list[tuple[str, int]], by: str) -> None:
    colours = ["red", "blue", "green", "grey", "brown"]
    passages = [
        f"{colour} {animal} number {at}" for at, colour in enumerate(colours) for animal in ("fox", "hen", "cat", "dog")
    ]
    examples = [Example(query, (passages[place],)) for query, place in pairs]
    angles = {text: float(7 * at % 360) for at, text in enumerate([*passages, "red fox", "blue fox", "red hen"])}
    mined = Miner(passages, Mining(by=by, count=5, margin=-1, alike=1.0)).mine(examples, Places(angles))  # type: ignore[arg-type]
    known = known_positives(examples)
    for example in mined:
        assert len(set(example.negatives)) == len(example.negatives)
        assert known[same_text(example.query)].isdisjoint(map(same_text, example.negatives))


def test_the_folder_of_a_checkpoint_is_opened_by_its_kind(tiny: ModuleType, tiny_model: Path, tmp_path: Path) -> None:
    for folder in (tiny_model, tiny.write_twin_tower(tmp_path / "towers")):
        [found] = Miner(PASSAGES, Mining(by="vectors", count=1, margin=-1)).mine([ZINC], folder)
        assert found.negatives[0] in PASSAGES
    with pytest.raises(InputError, match="takes an encoder"):
        open_encoder(None)
    with pytest.raises(ModelUnsupportedError, match="is a CrossEncoder; negatives are mined by a bi-encoder"):
        open_encoder(tiny.write_trunk(tmp_path / "pairs", labels=1))


def test_progress_is_told() -> None:
    seen: dict[str, int] = {}
    miner = Miner(PASSAGES, Mining(by="both", count=1))
    miner.mine([ZINC], Places(ANGLES), progress=lambda name, done: seen.update({name: seen.get(name, 0) + done}))
    assert seen == {"passages": 6, "queries": 1}


@pytest.mark.parametrize("wrong", [{"by": "guess"}, {"count": 0}, {"first": 5, "last": 4}, {"margin": 1.5}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError):
        Mining(**wrong)  # type: ignore[arg-type]


def test_nothing_to_mine_from_is_refused() -> None:
    with pytest.raises(InputError, match="no passages"):
        Miner(["", "  "])
