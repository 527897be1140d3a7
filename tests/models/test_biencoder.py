"""Bi-encoders agree with sentence-transformers, keep the caller's order, and never cut or guess in silence."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from twinrank.errors import InputError, ModelUnsupportedError, TruncationWarning
from twinrank.models import native
from twinrank.models.biencoder import BiEncoder, compare
from twinrank.types import Encoder

FAMILIES = ("bert", "roberta", "xlm-roberta", "distilbert", "mpnet", "electra")
POOLINGS = ("cls", "mean", "max", "weightedmean", "lasttoken")

pytestmark = pytest.mark.filterwarnings("ignore::twinrank.errors.TruncationWarning")


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", a, b) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.fixture(scope="module")
def folder(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    prompts = {"query": "what is ", "passage": "a piece of "}
    return tiny.write_bi_encoder(tmp_path_factory.mktemp("m") / "model", prompts=prompts)


@pytest.fixture
def encoder(folder: Path) -> BiEncoder:
    return BiEncoder(folder, precision="fp32")


# -- against the reference implementation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["numpy", "native"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_agrees_with_sentence_transformers(
    tiny: ModuleType,
    golden: Mapping[str, np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    family: str,
    engine: str,
) -> None:
    _choose(engine, monkeypatch)
    vectors = BiEncoder(tiny.write_bi_encoder(tmp_path / "m", family, normalize=False), precision="fp32").encode(tiny.SENTENCES)
    assert cosines(vectors, golden[f"vectors {family}"]).min() > 0.999999
    np.testing.assert_allclose(vectors, golden[f"vectors {family}"], atol=1e-5)


@pytest.mark.parametrize("engine", ["numpy", "native"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_pooling_agrees_with_sentence_transformers(
    tiny: ModuleType,
    golden: Mapping[str, np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pooling: str,
    engine: str,
) -> None:
    _choose(engine, monkeypatch)
    model = tiny.write_bi_encoder(tmp_path / "m", pooling=pooling, normalize=False)
    vectors = BiEncoder(model, precision="fp32").encode(tiny.SENTENCES)
    np.testing.assert_allclose(vectors, golden[f"pooling {pooling}"], atol=1e-5)


def test_a_dense_module_agrees_with_sentence_transformers(
    tiny: ModuleType, golden: Mapping[str, np.ndarray], tmp_path: Path
) -> None:
    encoder = BiEncoder(tiny.write_bi_encoder(tmp_path / "m", dense=6), precision="fp32")
    assert encoder.dimension == 6
    np.testing.assert_allclose(encoder.encode(tiny.SENTENCES), golden["dense"], atol=1e-5)


def test_minilm_agrees_with_sentence_transformers(
    tiny: ModuleType, golden_real: Mapping[str, np.ndarray], minilm_folder: Path, numpy_only: None
) -> None:
    encoder = BiEncoder(precision="fp32")
    assert cosines(encoder.encode(tiny.SENTENCES), golden_real["minilm"]).min() > 0.99999
    food, bread = encoder.encode(["A man is eating food.", "A man is eating a piece of bread."])
    assert food @ bread == pytest.approx(0.7553, abs=1e-4)
    assert (encoder.name, encoder.dimension, encoder.max_tokens) == ("sentence-transformers/all-MiniLM-L6-v2", 384, 256)


@pytest.mark.data
def test_gte_small_agrees_with_sentence_transformers(
    tiny: ModuleType, golden_real: Mapping[str, np.ndarray], shared_models: Path, numpy_only: None
) -> None:
    encoder = BiEncoder(shared_models / "gte-small", precision="fp32")
    assert cosines(encoder.encode(tiny.SENTENCES), golden_real["gte-small"]).min() > 0.99999
    food, bread = encoder.encode(["A man is eating food.", "A man is eating a piece of bread."])
    assert food @ bread == pytest.approx(0.918, abs=1e-3)


def test_the_native_int8_stays_close_to_the_reference(minilm_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _choose("native", monkeypatch)
    texts = ["Zinc may shorten a cold.", "A man is eating food.", "The weather is beautiful outside."]
    int8, fp32 = BiEncoder(precision="int8").encode(texts), BiEncoder(precision="fp32").encode(texts)
    assert cosines(int8, fp32).min() > 0.99


def test_live_sentence_transformers_agrees(tiny: ModuleType, tmp_path: Path) -> None:
    """On texts and a seed that no golden file has; runs where the reference libraries are installed."""
    pytest.importorskip("torch", reason="torch is not installed: pip install twinrank[train]")
    reference = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    random = np.random.default_rng()
    texts = [" ".join(random.choice(tiny.WORDS, random.integers(0, 40))) for _ in range(20)]
    for family in FAMILIES:
        folder = tiny.write_bi_encoder(tmp_path / family, family, seed=int(random.integers(1 << 30)))
        expected = reference.SentenceTransformer(str(folder), device="cpu").encode(texts)
        assert cosines(BiEncoder(folder, precision="fp32").encode(texts), expected).min() > 0.9999


# -- encoding ---------------------------------------------------------------------------------------------------------------


def test_it_is_an_encoder(encoder: BiEncoder) -> None:
    assert isinstance(encoder, Encoder)


def test_results_stand_in_the_callers_order_whatever_the_lengths(encoder: BiEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["zinc " * count for count in (9, 1, 40, 3, 0, 3, 120, 2)]
    alone = np.concatenate([encoder.encode([text]) for text in texts])
    monkeypatch.setattr("twinrank.models.runtime.TOKENS_PER_CALL", 30)
    np.testing.assert_allclose(encoder.encode(texts), alone, atol=2e-6)


def test_progress_is_told_up_to_the_last_text(encoder: BiEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinrank.models.runtime.TOKENS_PER_CALL", 20)
    told: list[tuple[int, int]] = []
    encoder.encode(["zinc may shorten a cold"] * 10, progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert len(told) > 1
    assert told[-1] == (10, 10)


def test_vectors_are_normalised_where_the_checkpoint_says_so_or_the_caller(tiny: ModuleType, tmp_path: Path) -> None:
    normalised = tiny.write_bi_encoder(tmp_path / "a")
    raw = tiny.write_bi_encoder(tmp_path / "b", normalize=False)
    texts = ["zinc", "bread"]
    lengths = {
        "stated": BiEncoder(normalised).encode(texts),
        "asked for": BiEncoder(raw, normalize=True).encode(texts),
    }
    for vectors in lengths.values():
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    unnormalised = BiEncoder(normalised, normalize=False, precision="fp32").encode(texts)
    np.testing.assert_allclose(unnormalised, BiEncoder(raw, precision="fp32").encode(texts), atol=1e-6)
    assert abs(np.linalg.norm(unnormalised, axis=1) - 1).min() > 0.01


def test_an_empty_text_is_its_special_tokens(encoder: BiEncoder) -> None:
    plain = BiEncoder(encoder.name, prompts={})
    assert plain.tokenize([""]).lengths.tolist() == [2]
    assert np.isfinite(plain.encode(["", "zinc"])).all()


def test_no_texts_give_no_vectors(encoder: BiEncoder) -> None:
    assert encoder.encode([]).shape == (0, 16)
    assert encoder.encode_tokens([]) == []


@pytest.mark.parametrize("text", ["\ud800", "a\x00b", "zinc " * 200_000], ids=["surrogate", "NUL", "1 MB"])
def test_odd_texts_are_encoded(encoder: BiEncoder, text: str) -> None:
    assert np.isfinite(encoder.encode([text])).all()


# -- prompts ----------------------------------------------------------------------------------------------------------------


def test_prompts_of_the_checkpoint_stand_before_their_side(encoder: BiEncoder) -> None:
    bare = BiEncoder(encoder.name, prompts={}, precision="fp32")
    np.testing.assert_array_equal(encoder.encode(["bread"], side="query"), bare.encode(["what is bread"]))
    np.testing.assert_array_equal(encoder.encode(["bread"]), bare.encode(["a piece of bread"]))


def test_given_prompts_replace_those_of_the_checkpoint(encoder: BiEncoder) -> None:
    given = BiEncoder(encoder.name, prompts={"query": "cold "}, precision="fp32")
    assert given.prompts == {"query": "cold ", "document": ""}
    assert given.fingerprint != encoder.fingerprint
    with pytest.raises(InputError, match=r"Unknown prompts \['answer'\]"):
        BiEncoder(encoder.name, prompts={"answer": "x"})


def test_an_e5_without_prompts_says_what_its_makers_ask_for(
    tiny: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    BiEncoder(tiny.write_bi_encoder(tmp_path / "e5-tiny"))
    assert "'query': 'query: '" in caplog.text


def test_an_unknown_side_is_refused(encoder: BiEncoder) -> None:
    with pytest.raises(InputError, match="Unknown side 'passage'"):
        encoder.encode(["zinc"], side="passage")


# -- truncation -------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("default::twinrank.errors.TruncationWarning")
def test_cut_texts_are_counted_in_one_warning(encoder: BiEncoder) -> None:
    short = BiEncoder(encoder.name, max_tokens=8, prompts={})
    texts = ["zinc " * 10, "zinc", "zinc " * 7]
    with pytest.warns(TruncationWarning) as caught:
        short.encode(texts)
    assert [str(warning.message)[:98] for warning in caught] == [
        "2 of 3 texts were longer than the 8 tokens that the model takes; 5 tokens were cut off and not enc"
    ]
    assert caught[0].filename == __file__
    assert short.tokenize(texts).dropped.tolist() == [4, 0, 1]
    assert short.count_tokens(texts) == [10, 1, 7]
    assert short.text_tokens == 6


def test_texts_that_fit_are_encoded_without_a_warning(encoder: BiEncoder) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.encode(["zinc " * 100])
    assert encoder.tokenize(["zinc"]).dropped is None


# -- token vectors ----------------------------------------------------------------------------------------------------------


def test_one_pass_gives_both_views(encoder: BiEncoder) -> None:
    texts = ["zinc may shorten a cold", "bread", ""]
    tokens = encoder.tokenize(texts)
    both = encoder.embed(tokens, token_vectors=True)
    np.testing.assert_array_equal(both.vectors, encoder.embed(tokens))
    assert both.token_vectors.shape == (len(tokens.ids), 16)
    np.testing.assert_allclose(np.linalg.norm(both.token_vectors, axis=1), 1, atol=1e-5)
    apart = encoder.encode_tokens(texts)
    assert [len(vectors) for vectors in apart] == tokens.lengths.tolist()
    np.testing.assert_array_equal(np.concatenate(apart), both.token_vectors)


def test_the_token_vectors_pool_to_the_texts_vector(tiny: ModuleType, tmp_path: Path) -> None:
    """With CLS pooling the text's vector is the first token's."""
    encoder = BiEncoder(tiny.write_bi_encoder(tmp_path / "m", pooling="cls"), precision="fp32")
    tokens = encoder.tokenize(["zinc may shorten a cold", "bread"])
    both = encoder.embed(tokens, token_vectors=True)
    np.testing.assert_allclose(both.token_vectors[tokens.offsets[:-1]], both.vectors, atol=1e-6)


def test_token_offsets_leave_prompts_and_special_tokens_out(encoder: BiEncoder) -> None:
    text = "Zinc, a cold"
    assert [text[start:end] for start, end in encoder.token_offsets(text)] == ["Zinc", ",", "a", "cold"]
    assert encoder.token_offsets("") == []


# -- dimension, similarity, fingerprints ------------------------------------------------------------------------------------


def test_fewer_dimensions_are_the_first_ones_normalised_again(encoder: BiEncoder) -> None:
    full = encoder.encode(["zinc", "bread"])
    short = BiEncoder(encoder.name, dimension=5, precision="fp32")
    expected = full[:, :5] / np.linalg.norm(full[:, :5], axis=1, keepdims=True)
    np.testing.assert_allclose(short.encode(["zinc", "bread"]), expected, atol=1e-6)
    assert short.dimension == 5
    assert short.fingerprint != encoder.fingerprint
    for dimension in (0, 17):
        with pytest.raises(InputError, match="Ask for 1 to 16"):
            BiEncoder(encoder.name, dimension=dimension)


def test_similarities_by_hand() -> None:
    a, b = np.array([[3.0, 4.0]], np.float32), np.array([[4.0, 3.0], [0.0, 0.0]], np.float32)
    assert compare("dot", a, b).tolist() == [[24, 0]]
    np.testing.assert_allclose(compare("cosine", a, b), [[24 / 25, 0]], atol=1e-6)
    np.testing.assert_allclose(compare("euclidean", a, b), [[-math.sqrt(2), -5]], atol=1e-6)


def test_similarity_is_the_checkpoints_unless_another_is_asked_for(folder: Path) -> None:
    assert BiEncoder(folder).metric == "cosine"
    encoder = BiEncoder(folder, similarity="euclidean")
    vectors = encoder.encode(["zinc", "bread"])
    assert encoder.similarity(vectors[0], vectors).shape == (1, 2)
    assert encoder.similarity(vectors[:1], vectors)[0, 1] == pytest.approx(-np.linalg.norm(vectors[0] - vectors[1]), abs=1e-4)
    with pytest.raises(InputError, match="Unknown similarity 'angle'"):
        BiEncoder(folder, similarity="angle")


def test_the_fingerprint_tells_settings_and_precision_apart(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TWINRANK_ENGINE", raising=False)
    base = BiEncoder(folder, precision="fp32")
    assert base.fingerprint.endswith(":fp32")
    others = [
        BiEncoder(folder, precision="fp32", pooling="cls"),
        BiEncoder(folder, precision="fp32", normalize=False),
        BiEncoder(folder, precision="fp32", max_tokens=100),
    ]
    assert len({encoder.fingerprint for encoder in (base, *others)}) == 4
    if native.available():
        int8 = BiEncoder(folder)
        assert int8.fingerprint == base.fingerprint.replace(":fp32", ":int8")
    monkeypatch.setenv("TWINRANK_ENGINE", "numpy")
    assert BiEncoder(folder).fingerprint == base.fingerprint


# -- duplicates -------------------------------------------------------------------------------------------------------------


def test_duplicates_are_the_pairs_of_the_highest_cosine(encoder: BiEncoder) -> None:
    texts = ["zinc may shorten a cold", "a piece of bread", "zinc may shorten a cold", "zinc may shorten colds", "what is it"]
    vectors = BiEncoder(encoder.name, precision="fp32", normalize=False).encode(texts)
    cosine = compare("cosine", vectors, vectors)
    found = BiEncoder(encoder.name, precision="fp32", normalize=False).duplicates(texts, k=4)
    assert (found[0].first, found[0].second) == (0, 2)
    assert found[0].score == pytest.approx(1, abs=1e-6)
    assert [pair.score for pair in found] == pytest.approx(sorted(cosine[np.triu_indices(5, 1)].tolist(), reverse=True)[:4])
    assert [cosine[pair.first, pair.second] for pair in found] == pytest.approx([pair.score for pair in found])
    assert encoder.duplicates(texts, threshold=0.9999) == [found[0]]
    assert encoder.duplicates([]) == []
    assert encoder.duplicates(["zinc"]) == []


# -- prompts and metrics that checkpoints of the field state ------------------------------------------------------------


@pytest.mark.parametrize(
    ("stated", "query", "document"),
    [
        ({"query": "query: ", "passage": "passage: "}, "query: ", "passage: "),  # e5, as newer copies state it
        ({"query": "Represent this sentence for searching relevant passages: "}, "Represent this sentence", ""),  # bge
        ({"query": "", "document": ""}, "", ""),  # gte, MiniLM
        (
            {"query": "search_query: ", "document": "search_document: ", "clustering": "x"},
            "search_query: ",
            "search_document: ",
        ),
        ({"query": "q ", "corpus": "c "}, "q ", "c "),
    ],
    ids=["e5", "bge", "gte", "nomic", "corpus"],
)
def test_prompts_of_well_known_checkpoints_are_read(
    tiny: ModuleType, tmp_path: Path, stated: dict[str, str], query: str, document: str
) -> None:
    prompts = BiEncoder(tiny.write_bi_encoder(tmp_path / "m", prompts=stated)).prompts
    assert prompts["query"].startswith(query)
    assert bool(prompts["query"]) == bool(query)
    assert prompts["document"] == document


@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean"])
def test_every_stated_metric_is_the_one_that_compares(tiny: ModuleType, tmp_path: Path, metric: str) -> None:
    folder = tiny.write_bi_encoder(tmp_path / "m", prompts={}, normalize=False)
    settings = json.loads((folder / "config_sentence_transformers.json").read_text())
    tiny.write_json(folder / "config_sentence_transformers.json", {**settings, "similarity_fn_name": metric})
    encoder = BiEncoder(folder, precision="fp32")
    a, b = encoder.encode(["zinc", "bread"])
    by_hand = {
        "cosine": a @ b / np.linalg.norm(a) / np.linalg.norm(b),
        "dot": a @ b,
        "euclidean": -np.linalg.norm(a - b),
    }
    assert encoder.similarity(a, b)[0, 0] == pytest.approx(by_hand[metric], rel=1e-4)


# -- what is refused --------------------------------------------------------------------------------------------------------


def test_one_text_in_place_of_several_is_refused(encoder: BiEncoder) -> None:
    with pytest.raises(InputError, match="put it into a list"):
        encoder.encode("zinc")


def test_an_unknown_pooling_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="Unknown pooling 'median'; choose one of cls, mean, max, weighted_mean, last"):
        BiEncoder(folder, pooling="median")


def test_a_cross_encoder_is_refused_by_its_right_name(tiny: ModuleType, tmp_path: Path) -> None:
    folder = tiny.write_trunk(tmp_path / "m", "bert", labels=1)
    with pytest.raises(ModelUnsupportedError, match=r"is a CrossEncoder, not a BiEncoder: open it as CrossEncoder\("):
        BiEncoder(folder)


def test_importing_loads_no_network_library_and_no_model_library() -> None:
    heavy = ["huggingface_hub", "safetensors", "tokenizers", "httpx", "requests", "urllib3", "socket", "ssl", "torch", "scipy"]
    code = "import sys, json, twinrank.models.biencoder, twinrank.models.crossencoder; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert [name for name in heavy if name in loaded] == []


def _choose(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if engine == "numpy":
        monkeypatch.setenv("TWINRANK_ENGINE", "numpy")
    elif not native.available():
        pytest.skip("the native engine was not compiled")
    else:
        monkeypatch.delenv("TWINRANK_ENGINE", raising=False)
