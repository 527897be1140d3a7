"""Cross-encoders agree with sentence-transformers, apply their activation once, and score equal pairs once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from twinrank.errors import InputError, ModelDamagedError, ModelUnsupportedError, QueryError, TruncationWarning
from twinrank.models import native
from twinrank.models.crossencoder import CrossEncoder
from twinrank.types import Scorer

FAMILIES = ("bert", "roberta", "xlm-roberta", "distilbert", "mpnet", "electra")
PAIRS = [("does zinc help?", "Zinc may shorten a cold."), ("what is bread", "a piece of food"), ("does zinc help?", "bread")]

pytestmark = pytest.mark.filterwarnings("ignore::twinrank.errors.TruncationWarning")


@pytest.fixture(scope="module")
def folder(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_trunk(tmp_path_factory.mktemp("m") / "model", labels=1)


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


@pytest.mark.parametrize("engine", ["numpy", "native"])
@pytest.mark.parametrize("labels", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_agrees_with_sentence_transformers(
    tiny: ModuleType,
    golden: Mapping[str, np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    family: str,
    labels: int,
    engine: str,
) -> None:
    """Pairs with an empty side and pairs that are cut on either side are among them."""
    if engine == "numpy":
        monkeypatch.setenv("TWINRANK_ENGINE", "numpy")
    elif not native.available():
        pytest.skip("the native engine was not compiled")
    model = CrossEncoder(tiny.write_trunk(tmp_path / "m", family, labels=labels), activation="identity", precision="fp32")
    np.testing.assert_allclose(model.predict(tiny.PAIRS), golden[f"logits {family} {labels}"], atol=1e-5)


def test_live_sentence_transformers_agrees(tiny: ModuleType, tmp_path: Path) -> None:
    """Activation included; runs where the reference libraries are installed."""
    pytest.importorskip("torch", reason="torch is not installed: pip install twinrank[train]")
    reference = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    for family in FAMILIES:
        folder = tiny.write_trunk(tmp_path / family, family, labels=1, seed=int(np.random.default_rng().integers(1 << 30)))
        expected = reference.CrossEncoder(str(folder), device="cpu").predict(PAIRS)
        np.testing.assert_allclose(CrossEncoder(folder, precision="fp32").score(PAIRS), expected, atol=1e-4)


def test_it_is_a_scorer(folder: Path) -> None:
    model = CrossEncoder(folder)
    assert isinstance(model, Scorer)
    scores = model.score(PAIRS)
    assert (scores.shape, scores.dtype) == ((3,), np.float32)


# -- activation -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stated",
    [
        {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity", "version": "4.0"}},
        {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"},
    ],
)
def test_a_stated_identity_leaves_the_logit(tiny: ModuleType, tmp_path: Path, stated: dict[str, object]) -> None:
    bounded = CrossEncoder(tiny.write_trunk(tmp_path / "a", labels=1), precision="fp32")
    logits = CrossEncoder(tiny.write_trunk(tmp_path / "b", labels=1, **stated), precision="fp32")
    assert (bounded.activation, logits.activation) == ("sigmoid", "identity")
    np.testing.assert_allclose(bounded.score(PAIRS), sigmoid(logits.score(PAIRS)), atol=1e-6)


def test_the_layout_of_sentence_transformers_6_states_it_elsewhere(tiny: ModuleType, tmp_path: Path) -> None:
    folder = tiny.write_trunk(tmp_path / "m", labels=1)
    settings = {"model_type": "CrossEncoder", "activation_fn": "torch.nn.modules.linear.Identity", "prompts": {}}
    tiny.write_json(folder / "config_sentence_transformers.json", settings)
    module = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}
    tiny.write_json(folder / "modules.json", [module])
    assert CrossEncoder(folder).activation == "identity"


def test_an_activation_that_is_code_is_refused(tiny: ModuleType, tmp_path: Path) -> None:
    stated = {"sbert_ce_default_activation_function": "own_module.Squash"}
    with pytest.raises(ModelUnsupportedError, match=r"'own_module\.Squash' is not run here"):
        CrossEncoder(tiny.write_trunk(tmp_path / "m", labels=1, **stated))


def test_probabilities_of_labels_add_up_to_one(tiny: ModuleType, tmp_path: Path) -> None:
    names = {"0": "contradiction", "1": "entailment", "2": "neutral"}
    model = CrossEncoder(tiny.write_trunk(tmp_path / "m", labels=3, id2label=names), precision="fp32")
    assert model.labels == ("contradiction", "entailment", "neutral")
    logits, probabilities = model.predict(PAIRS), model.predict(PAIRS, probabilities=True)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(probabilities, np.exp(logits) / np.exp(logits).sum(1, keepdims=True), atol=1e-6)


def test_a_similarity_model_gives_bounded_scores_by_one_sigmoid(tiny: ModuleType, tmp_path: Path) -> None:
    """As cross-encoder/stsb-* do: one label, nothing stated. Applied twice, no score would be below one half."""
    model = CrossEncoder(tiny.write_trunk(tmp_path / "m", labels=1), precision="fp32")
    logits = CrossEncoder(tmp_path / "m", activation="identity", precision="fp32").score(tiny.PAIRS)
    scores = model.score(tiny.PAIRS)
    assert ((scores > 0) & (scores < 1)).all()
    assert scores.min() < 0.5
    np.testing.assert_allclose(scores, sigmoid(logits), atol=1e-6)
    np.testing.assert_array_equal(model.predict(tiny.PAIRS)[:, 0], scores)
    np.testing.assert_array_equal([hit.score for hit in model.rank("zinc", ["bread"])], model.score([("zinc", "bread")]))


# -- labels -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def inference(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> CrossEncoder:
    """A model of natural language inference."""
    names = {"0": "contradiction", "1": "Entailment", "2": "neutral"}
    return CrossEncoder(tiny.write_trunk(tmp_path_factory.mktemp("m") / "m", labels=3, id2label=names), precision="fp32")


def test_columns_are_picked_by_name(inference: CrossEncoder) -> None:
    everything = inference.predict(PAIRS)
    np.testing.assert_array_equal(inference.predict(PAIRS, labels=["neutral", "entailment"]), everything[:, [2, 1]])
    probabilities = inference.predict(PAIRS, labels=["Entailment"], probabilities=True)
    np.testing.assert_array_equal(probabilities, inference.predict(PAIRS, probabilities=True)[:, [1]])
    assert inference.predict(PAIRS, labels=[]).shape == (3, 0)
    with pytest.raises(InputError, match="has no label 'yes'; it has contradiction, Entailment, neutral"):
        inference.predict(PAIRS, labels=["yes"])


def test_pairs_are_classified_by_the_likeliest_label(inference: CrossEncoder) -> None:
    probabilities = inference.predict(PAIRS, probabilities=True)
    found = inference.classify(PAIRS)
    assert [each.label for each in found] == [inference.labels[column] for column in probabilities.argmax(1)]
    assert [each.probability for each in found] == probabilities.max(1).tolist()
    assert [list(each.probabilities.values()) for each in found] == probabilities.tolist()
    assert inference.classify([]) == []


# -- pairs ------------------------------------------------------------------------------------------------------------------


def test_equal_pairs_are_run_once_and_scored_alike(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = CrossEncoder(folder, precision="fp32")
    expected = model.score(PAIRS)
    ran: list[int] = []
    run = type(model.network).run

    def counting(self, tokens, **options):
        ran.append(len(tokens))
        return run(self, tokens, **options)

    monkeypatch.setattr(type(model.network), "run", counting)
    scores = model.score([PAIRS[2], PAIRS[0], PAIRS[2], list(PAIRS[1]), PAIRS[0]])
    assert ran == [3]
    np.testing.assert_allclose(scores, expected[[2, 0, 2, 1, 0]], atol=1e-6)


def test_scores_stand_in_the_callers_order_whatever_the_lengths(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = CrossEncoder(folder, precision="fp32")
    pairs = [("zinc", "bread " * count) for count in (30, 1, 90, 0, 5)]
    alone = np.concatenate([model.score([pair]) for pair in pairs])
    monkeypatch.setattr("twinrank.models.runtime.TOKENS_PER_CALL", 25)
    np.testing.assert_allclose(model.score(pairs), alone, atol=2e-6)


@pytest.mark.filterwarnings("default::twinrank.errors.TruncationWarning")
def test_a_long_passage_is_cut_and_counted_and_the_query_is_not(folder: Path) -> None:
    model = CrossEncoder(folder, max_tokens=20)
    with pytest.warns(TruncationWarning, match="1 of 2 pairs were longer than the 20 tokens that the model takes; 5 tokens"):
        long, _ = model.score([("zinc cold bread", "food " * 19), ("zinc", "bread")])
    with pytest.warns(TruncationWarning):
        (same,) = model.score([("zinc cold bread", "food " * 14 + "zinc " * 7)])  # the end does not count
    assert same == pytest.approx(long, abs=1e-6)
    (other,) = model.score([("zinc cold", "food " * 14)])  # the query's last word does
    assert other != pytest.approx(long, abs=1e-6)


def test_no_pairs_give_no_scores(folder: Path) -> None:
    assert CrossEncoder(folder).score([]).shape == (0,)


@pytest.mark.parametrize("precision", ["int8", "fp32"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_score_does_not_depend_on_its_neighbours_to_the_last_bit(
    tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, precision: str
) -> None:
    if not native.available():
        pytest.skip("the native engine was not compiled; NumPy's products of matrices depend on their number of rows")
    monkeypatch.delenv("TWINRANK_ENGINE", raising=False)
    model = CrossEncoder(tiny.write_trunk(tmp_path / "m", family, labels=3), precision=precision)
    random = np.random.default_rng(4)
    pairs = [(" ".join(random.choice(tiny.WORDS, 4)), " ".join(random.choice(tiny.WORDS, count % 50))) for count in range(101)]
    together = model.predict(pairs)
    np.testing.assert_array_equal(together, np.concatenate([model.predict([pair]) for pair in pairs]))
    np.testing.assert_array_equal(together[::-1][:7], model.predict(pairs[::-1][:7]))
    whole = model.predict(pairs, probabilities=True)
    np.testing.assert_array_equal(whole, np.concatenate([model.predict([pair], probabilities=True) for pair in pairs]))


# -- windows ----------------------------------------------------------------------------------------------------------------


def test_of_a_long_passage_the_best_window_counts(folder: Path) -> None:
    """Room for 17 tokens beside the special ones: windows of 16 beside a query of one, 12 apart, the last at the end."""
    model = CrossEncoder(folder, max_tokens=20, windows=True, precision="fp32")
    words = ("bread food zinc man a of cold line help it " * 4).split()  # 40 tokens
    windows = [" ".join(words[start : start + 16]) for start in (0, 12, 24)]
    alone = model.score([("what", window) for window in windows])
    (score,) = model.score([("what", " ".join(words))])
    assert score == pytest.approx(alone.max(), abs=1e-6)
    (hit,) = model.rank("what", [" ".join(words)])
    assert hit.score == score
    assert hit.text == windows[int(alone.argmax())]
    assert " ".join(words)[hit.start : hit.end] == hit.text


def test_every_token_of_a_long_passage_is_in_a_window_and_short_ones_are_one(tiny: ModuleType, folder: Path) -> None:
    model = CrossEncoder(folder, max_tokens=20, windows=True)
    for length in (0, 1, 15, 16, 17, 28, 29, 100, 333):
        words = [tiny.LETTERS[place % 26] for place in range(length)]
        windows = model._tokenizer.encode_windows([("what", " ".join(words)), ("zinc", "bread")])
        assert (windows.pairs == 1).sum() == 1
        assert (windows.pairs == 0).sum() == (1 if length <= 16 else 1 + -(-(length - 16) // 12))
        spans = windows.spans[windows.pairs == 0]
        covered = {place for start, end in spans.tolist() for place in range(start, end)}
        assert covered >= {place for place in range(2 * length) if place % 2 == 0}
        assert (windows.tokens.lengths <= 20).all()


def test_windows_change_nothing_for_pairs_that_fit(folder: Path) -> None:
    pairs = [*PAIRS, ("zinc", ""), ("", "zinc"), ("", "")]
    cut, split = CrossEncoder(folder, precision="fp32"), CrossEncoder(folder, windows=True, precision="fp32")
    np.testing.assert_array_equal(cut.score(pairs), split.score(pairs))
    assert cut.fingerprint != split.fingerprint
    assert split.score([]).shape == (0,)
    assert split.rank("zinc", []) == []


@pytest.mark.filterwarnings("error::twinrank.errors.TruncationWarning")
def test_windows_cut_no_passage_but_a_query_beyond_half_the_room(folder: Path) -> None:
    model = CrossEncoder(folder, max_tokens=20, windows=True)
    model.score([("zinc", "bread " * 500)])
    with pytest.warns(TruncationWarning, match="windows were longer than the 20 tokens"):
        model.score([("zinc " * 30, "bread " * 30)])
    model.score([("zinc " * 15, "bread")])  # a long query beside a short passage fits


def test_of_several_labels_no_window_is_the_best(tiny: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gives 3 labels, and of labels no window is the best"):
        CrossEncoder(tiny.write_trunk(tmp_path / "m", labels=3), windows=True)


# -- rank -------------------------------------------------------------------------------------------------------------------


def test_rank_orders_passages_by_score(folder: Path) -> None:
    model = CrossEncoder(folder)
    passages = ["bread", "Zinc may shorten a cold.", "a man eats", "bread"]
    scores = model.score([("does zinc help?", passage) for passage in passages])
    hits = model.rank("does zinc help?", passages)
    assert [hit.rank for hit in hits] == [1, 2, 3, 4]
    assert [hit.score for hit in hits] == sorted(scores.tolist(), reverse=True)
    assert all(hit.text == passages[int(hit.id)] for hit in hits)
    assert [hit.id for hit in hits if hit.text == "bread"] == ["0", "3"]  # equal scores keep the list's order
    assert model.rank("does zinc help?", passages, k=2) == hits[:2]
    assert model.rank("does zinc help?", []) == []


@pytest.mark.parametrize(("query", "k"), [("", 3), (" \n", 3), ("zinc", 0), ("zinc", -1)])
def test_rank_refuses_an_empty_query_and_a_k_below_one(folder: Path, query: str, k: int) -> None:
    with pytest.raises(QueryError):
        CrossEncoder(folder).rank(query, ["bread"], k=k)


# -- what is refused --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", ["zinc", ("zinc",), ("a", "b", "c"), ("zinc", None), 7])
def test_what_is_no_pair_is_refused_by_its_number(folder: Path, pair: object) -> None:
    with pytest.raises(InputError, match="Pair 1 is"):
        CrossEncoder(folder).score([("zinc", "bread"), pair])


def test_several_labels_have_no_one_score(tiny: ModuleType, tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ModelUnsupportedError, match=r"gives 3 labels .* use `predict`"):
        CrossEncoder(tiny.write_trunk(tmp_path / "m", labels=3)).score(PAIRS)
    with pytest.raises(ModelUnsupportedError, match="has one label"):
        CrossEncoder(folder).predict(PAIRS, probabilities=True)


def test_a_bi_encoder_is_refused_by_its_right_name(tiny: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ModelUnsupportedError, match=r"is a BiEncoder, not a CrossEncoder: open it as BiEncoder\("):
        CrossEncoder(tiny.write_bi_encoder(tmp_path / "m"))


def test_a_checkpoint_without_its_classifier_is_refused(tiny: ModuleType, tmp_path: Path) -> None:
    folder = tiny.write_trunk(tmp_path / "m")
    settings = json.loads((folder / "config.json").read_text())
    tiny.write_json(folder / "config.json", {**settings, "architectures": ["BertForSequenceClassification"]})
    with pytest.raises(ModelDamagedError, match=r"no tensor 'bert\.pooler\.dense\.weight'"):
        CrossEncoder(folder)


def test_an_activation_that_is_not_known_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="Unknown activation 'softplus'"):
        CrossEncoder(folder, activation="softplus")


def test_the_fingerprint_tells_activations_apart(folder: Path) -> None:
    assert CrossEncoder(folder).fingerprint != CrossEncoder(folder, activation="identity").fingerprint
