"""Late interaction: every layout of checkpoint gives sentence-transformers' vectors; any bi-encoder does it untrained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from twinrank.errors import InputError, ModelDamagedError, ModelUnsupportedError, QueryError, TruncationWarning
from twinrank.maxsim import maxsim
from twinrank.models import native
from twinrank.models.biencoder import BiEncoder
from twinrank.models.lateinteraction import LateInteraction
from twinrank.models.trunk import Precision
from twinrank.quantization import TokenCodec, TokenFormat
from twinrank.types import Scorer

HERE = Path(__file__).resolve().parent
LAYOUTS = (
    "pylate",
    "pylate-attending",
    "pylate-plain",
    "stanford",
    "stanford-attending",
    "native",
    "native-fixed",
    "native-min",
    "native-pooled",
)


@pytest.fixture(scope="module")
def folders(tiny: ModuleType, tiny_colbert: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A folder of every layout."""
    assert tiny_colbert.LAYOUTS == LAYOUTS
    place = tmp_path_factory.mktemp("colbert")
    return {layout: tiny_colbert.write_colbert(tiny, place / layout, layout) for layout in LAYOUTS}


@pytest.fixture(scope="module")
def golden_colbert() -> Mapping[str, np.ndarray]:
    """What sentence-transformers 6.2 says; made by make_golden_colbert.py."""
    return dict(np.load(HERE / "golden" / "colbert.npz"))


@pytest.fixture
def pylate(folders: Mapping[str, Path]) -> LateInteraction:
    return LateInteraction(folders["pylate"], precision="fp32")


def copy(folder: Path, target: Path, **changes: object) -> Path:
    """A copy whose config_sentence_transformers.json says something else."""
    shutil.copytree(folder, target)
    file = target / "config_sentence_transformers.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return target


# Against sentence-transformers


@pytest.mark.filterwarnings("ignore::twinrank.errors.TruncationWarning")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_vectors_of_sentence_transformers(
    layout: str, folders: Mapping[str, Path], golden_colbert: Mapping[str, np.ndarray], tiny_colbert: ModuleType
) -> None:
    model = LateInteraction(folders[layout], precision="fp32")
    texts = {"query": tiny_colbert.QUERIES, "document": tiny_colbert.DOCUMENTS}
    encoded = {side: model.encode(texts[side], side=side) for side in ("query", "document")}
    for side, vectors in encoded.items():
        for number, one in enumerate(vectors):
            expected = golden_colbert[f"{layout} {side} {number}"]
            if layout == "native-pooled" and side == "document":
                one, expected = _in_one_order(one), _in_one_order(expected)
            np.testing.assert_allclose(one, expected, atol=3e-5, err_msg=f"{side} {number}")
    scores = [maxsim(query, encoded["document"]) for query in encoded["query"]]
    np.testing.assert_allclose(scores, golden_colbert[f"{layout} scores"], rtol=1e-4, atol=1e-4)


def _in_one_order(vectors: np.ndarray) -> np.ndarray:
    """Clusters have no order."""
    return vectors[np.lexsort(np.round(vectors, 3).T)]


@pytest.mark.skipif(not native.available(), reason="the native engine was not compiled")
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("int8", 0.03)])
def test_the_native_engine_gives_the_same_scores(
    folders: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch, precision: Precision, tolerance: float
) -> None:
    pairs = [("does zinc help?", "Zinc may shorten a cold."), ("what is bread", "a man eats a piece of bread"), ("zinc", "")]
    fast = LateInteraction(folders["pylate-attending"], precision=precision)
    monkeypatch.setenv("TWINRANK_ENGINE", "numpy")
    reference = LateInteraction(folders["pylate-attending"], precision="fp32")
    assert fast.network.path != reference.network.path
    np.testing.assert_allclose(fast.score(pairs), reference.score(pairs), rtol=tolerance)


# By hand


def test_a_query_is_marked_and_filled_with_masks_and_a_document_is_marked(pylate: LateInteraction) -> None:
    tokenizer = pylate._tokenizers["query"].native
    query = [tokenizer.id_to_token(token) for token in pylate.tokenize(["zinc?"], side="query").ids]
    assert query == ["[CLS]", "[Q] ", "zinc", "?", "[SEP]", *["[MASK]"] * 11]
    document = [tokenizer.id_to_token(token) for token in pylate.tokenize(["zinc."]).ids]
    assert document == ["[CLS]", "[D] ", "zinc", ".", "[SEP]"]


def test_punctuation_is_left_out_of_documents_alone(pylate: LateInteraction) -> None:
    assert len(pylate.encode(["zinc."])[0]) == 4
    assert len(pylate.encode(["zinc"])[0]) == 4
    assert len(pylate.encode(["zinc."], side="query")[0]) == 16


def test_masks_that_nothing_sees_leave_the_query_s_own_vectors_alone(folders: Mapping[str, Path]) -> None:
    expanded = LateInteraction(folders["pylate"], precision="fp32").encode(["does zinc help"], side="query")[0]
    plain = LateInteraction(folders["pylate-plain"], precision="fp32").encode(["does zinc help"], side="query")[0]
    assert (len(expanded), len(plain)) == (16, 6)
    np.testing.assert_allclose(expanded[:6], plain, atol=1e-5)
    attended = LateInteraction(folders["pylate-attending"], precision="fp32").encode(["does zinc help"], side="query")[0]
    assert np.abs(attended[:6] - plain).max() > 1e-3


def test_what_is_cut_off_is_counted_and_told(pylate: LateInteraction) -> None:
    text = "zinc may shorten a cold " * 20  # 100 tokens; [CLS], [D] and [SEP] leave room for 37
    tokens = pylate.tokenize([text, "zinc"])
    assert tokens.dropped is not None
    assert tokens.dropped.tolist() == [63, 0]
    with pytest.warns(TruncationWarning, match="1 of 2 texts were longer than the 40 tokens .* 63 tokens were cut off"):
        assert len(pylate.encode([text, "zinc"])[0]) == 40


def test_limits_can_be_given(folders: Mapping[str, Path]) -> None:
    model = LateInteraction(folders["pylate"], query_tokens=8, document_tokens=100)
    assert len(model.encode(["zinc"], side="query")[0]) == 8
    assert model.max_tokens == 100
    with pytest.raises(InputError, match="takes 1 to 202 tokens; 203"):
        LateInteraction(folders["pylate"], document_tokens=203)


def test_it_is_a_scorer_that_ranks(pylate: LateInteraction) -> None:
    assert isinstance(pylate, Scorer)
    passages = ["what is bread", "", "zinc may shorten a cold"]
    hits = pylate.rank("does zinc help?", passages, k=2)
    scores = pylate.score([("does zinc help?", passage) for passage in passages])
    assert [hit.id for hit in hits] == [str(place) for place in np.argsort(-scores)[:2]]
    assert [hit.rank for hit in hits] == [1, 2]
    assert hits[0].score == pytest.approx(scores.max())
    assert pylate.score([]).shape == (0,)
    assert pylate.encode([]) == []
    with pytest.raises(QueryError, match="empty"):
        pylate.rank(" ", passages)
    with pytest.raises(QueryError, match="k is 0"):
        pylate.rank("zinc", passages, k=0)


def test_a_score_is_the_maxsim_of_the_vectors(pylate: LateInteraction) -> None:
    query, passage = "does zinc help?", "Zinc may shorten a cold."
    a, b = pylate.encode([query], side="query")[0], pylate.encode([passage])[0]
    assert pylate.score([(query, passage)])[0] == pytest.approx((a @ b.T).max(axis=1).sum(), rel=1e-5)


# Any bi-encoder


def test_a_bi_encoder_s_own_tokens_are_compared_without_special_ones_and_punctuation(tiny_model: Path) -> None:
    encoder = BiEncoder(tiny_model, precision="fp32")
    model = LateInteraction(encoder)
    text = "a man, eating."
    tokens = encoder.encode_tokens([text])[0]  # [CLS] a man , eating . [SEP]
    np.testing.assert_allclose(model.encode([text])[0], tokens[[1, 2, 4]], atol=1e-6)
    np.testing.assert_allclose(model.encode([text], side="query")[0], tokens[1:-1], atol=1e-6)


def test_both_views_come_from_one_pass(tiny_model: Path) -> None:
    encoder = BiEncoder(tiny_model, precision="fp32")
    model = LateInteraction(encoder)
    assert model.network is encoder.network
    texts = ["a man is eating food.", "zinc"]
    tokens = encoder.tokenize(texts)
    both = encoder.embed(tokens, token_vectors=True)
    np.testing.assert_allclose(both.vectors, encoder.encode(texts), atol=1e-6)
    for one, alone in zip(model.select(tokens, both.token_vectors), model.encode(texts), strict=True):
        np.testing.assert_allclose(one, alone, atol=1e-6)


def test_a_text_of_nothing_but_punctuation_keeps_it_and_an_empty_one_its_special_tokens(tiny_model: Path) -> None:
    model = LateInteraction(tiny_model)
    assert [len(vectors) for vectors in model.encode(["...", "", "zinc."])] == [3, 2, 1]


def test_prompts_of_a_bi_encoder_are_used(tiny: ModuleType, tmp_path: Path) -> None:
    folder = tiny.write_bi_encoder(tmp_path / "prompted", prompts={"query": "what ", "document": "a "})
    model = LateInteraction(folder)
    assert [len(model.encode(["zinc"], side=side)[0]) for side in ("query", "document")] == [2, 2]


def test_token_pooling_stores_fewer_vectors(tiny_model: Path) -> None:
    text = "zinc may shorten a cold and a man is eating food"
    plain, pooled = (LateInteraction(tiny_model, pool_factor=factor) for factor in (1, 2))
    assert (len(plain.encode([text])[0]), len(pooled.encode([text])[0])) == (11, 5)
    assert len(pooled.encode([text], side="query")[0]) == 11
    np.testing.assert_allclose(np.linalg.norm(pooled.encode([text])[0], axis=1), 1, atol=1e-5)
    assert plain.fingerprint != pooled.fingerprint


@pytest.mark.data
def test_real_weights_rank_by_the_word_that_the_query_asks_for(minilm_folder: Path) -> None:
    model = LateInteraction(minilm_folder, threads=1)
    passages = ["The museum opens at nine.", "Honey eases a cough.", "Zinc lozenges shortened the common cold by a third."]
    assert model.rank("does zinc help against colds?", passages)[0].id == "2"
    vectors = model.encode(passages)
    assert [one.shape for one in vectors] == [(5, 384), (5, 384), (11, 384)]


@pytest.mark.data
@pytest.mark.parametrize(("format", "lost"), [("int8", 0.002), ("int4", 0.015)])
def test_quantising_real_token_vectors_loses_little(minilm_folder: Path, format: TokenFormat, lost: float) -> None:
    """Of a dot product between two tokens, on average."""
    model = LateInteraction(minilm_folder, threads=1)
    text = "Zinc lozenges shortened the common cold by a third, and honey eases a cough of the museum's guards at nine."
    vectors, codec = model.encode([text])[0], TokenCodec(format, 384)
    back = codec.decode(codec.encode(vectors))
    assert np.abs(vectors @ back.T - vectors @ vectors.T).mean() < lost


# What tells models apart, and what is refused


def test_the_fingerprint_covers_what_makes_documents_vectors(folders: Mapping[str, Path], tmp_path: Path) -> None:
    original = LateInteraction(folders["pylate"])
    assert LateInteraction(folders["pylate"]).fingerprint == original.fingerprint
    assert LateInteraction(folders["pylate"], query_tokens=20).fingerprint == original.fingerprint
    others = {LateInteraction(folders[layout]).fingerprint for layout in LAYOUTS}
    assert len(others) == len(LAYOUTS) - 1  # native and native-fixed differ in their queries alone
    other = copy(folders["pylate"], tmp_path / "skip", skiplist_words=["zinc"])
    assert LateInteraction(other).fingerprint != original.fingerprint
    assert LateInteraction(folders["pylate"], document_tokens=20).fingerprint != original.fingerprint


def test_a_bi_encoder_s_tokens_are_not_its_vectors(tiny_model: Path) -> None:
    assert LateInteraction(tiny_model).fingerprint != BiEncoder(tiny_model).fingerprint


def test_a_checkpoint_of_another_architecture_is_refused_with_the_right_class(
    folders: Mapping[str, Path], tiny_cross_encoder: Path
) -> None:
    with pytest.raises(ModelUnsupportedError, match="CrossEncoder"):
        LateInteraction(tiny_cross_encoder)
    for layout in ("pylate", "stanford", "native"):
        with pytest.raises(ModelUnsupportedError, match="LateInteraction"):
            BiEncoder(folders[layout])


def test_a_missing_projection_is_told(folders: Mapping[str, Path], tmp_path: Path) -> None:
    stanford = shutil.copytree(folders["stanford"], tmp_path / "stanford")
    tensors = load_file(stanford / "model.safetensors")
    del tensors["linear.weight"]
    save_file(tensors, stanford / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelDamagedError, match=r"linear\.weight is not in its weights"):
        LateInteraction(stanford)
    pylate = shutil.copytree(folders["pylate"], tmp_path / "pylate")
    (pylate / "1_Dense" / "model.safetensors").unlink()
    with pytest.raises(ModelDamagedError, match="1_Dense"):
        LateInteraction(pylate)


def test_a_marker_that_is_no_token_is_told(folders: Mapping[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ModelDamagedError, match=r"marks its texts with '\[X\] ', which is no token"):
        LateInteraction(copy(folders["pylate"], tmp_path / "marker", query_prefix="[X] "))


def test_image_tokens_alone_are_not_compared_here(folders: Mapping[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["native"], tmp_path / "images")
    file = folder / "2_MultiVectorMask" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"keep_only_token_ids": [3]}))
    with pytest.raises(ModelUnsupportedError, match="keep_only_token_ids"):
        LateInteraction(folder)


@pytest.mark.parametrize("factor", [0.5, float("nan")])
def test_a_pool_factor_below_one_is_refused(tiny_model: Path, factor: float) -> None:
    with pytest.raises(InputError, match="pool_factor"):
        LateInteraction(tiny_model, pool_factor=factor)
