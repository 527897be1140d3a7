"""Twin towers agree with sentence-transformers, keep each side to its own network, and meet in one space or are refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from twinrank.errors import InputError, ModelDamagedError, ModelUnsupportedError, TruncationWarning
from twinrank.models import native
from twinrank.models.biencoder import BiEncoder
from twinrank.models.twintower import TwinTower
from twinrank.types import Encoder

TEXTS = ["zinc may shorten a cold", "a piece of bread", ""]

pytestmark = pytest.mark.filterwarnings("ignore::twinrank.errors.TruncationWarning")


@pytest.fixture(scope="module")
def router(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of width 16 for queries and a RoBERTa of width 24 for documents, both ending in 6 dimensions."""
    return tiny.write_twin_tower(tmp_path_factory.mktemp("m") / "router")


@pytest.fixture(scope="module")
def narrow(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    prompts = {"query": "what is ", "document": "never used "}
    return tiny.write_bi_encoder(tmp_path_factory.mktemp("m") / "narrow", prompts=prompts)


@pytest.fixture(scope="module")
def wide(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    prompts = {"query": "never used ", "document": "a piece of "}
    with tiny.sizes(width=24, layers=3):
        return tiny.write_bi_encoder(
            tmp_path_factory.mktemp("m") / "wide", "mpnet", prompts=prompts, max_position_embeddings=202
        )


@pytest.fixture(scope="module")
def projection() -> np.ndarray:
    return np.random.default_rng(3).normal(size=(24, 16)).astype(np.float32)


@pytest.fixture
def twin(narrow: Path, wide: Path, projection: np.ndarray) -> TwinTower:
    return TwinTower(query=narrow, document=wide, precision="fp32", projections={"query": projection})


# -- against the reference implementation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["numpy", "native"])
def test_a_router_of_sentence_transformers_opens_here(
    tiny: ModuleType, golden: Mapping[str, np.ndarray], router: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    if engine == "numpy":
        monkeypatch.setenv("TWINRANK_ENGINE", "numpy")
    elif not native.available():
        pytest.skip("the native engine was not compiled")
    model = TwinTower(router, precision="fp32")
    assert (model.dimension, model.prompts) == (6, {"query": "what is ", "document": "a piece of "})
    np.testing.assert_allclose(model.encode(tiny.SENTENCES, side="query"), golden["twin query"], atol=1e-5)
    np.testing.assert_allclose(model.encode(tiny.SENTENCES, side="document"), golden["twin document"], atol=1e-5)


def test_a_saved_model_opens_in_live_sentence_transformers(twin: TwinTower, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed: pip install twinrank[train]")
    reference = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    model = reference.SentenceTransformer(str(twin.save(tmp_path / "saved")), device="cpu")
    np.testing.assert_allclose(twin.encode(TEXTS, side="query"), model.encode_query(TEXTS), atol=1e-5)
    np.testing.assert_allclose(twin.encode(TEXTS), model.encode_document(TEXTS), atol=1e-5)


def test_a_model_that_live_sentence_transformers_saved_opens_here(narrow: Path, router: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed: pip install twinrank[train]")
    reference = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    model = reference.SentenceTransformer(str(router), device="cpu")
    model.save_pretrained(str(tmp_path / "theirs"))
    ours = TwinTower(tmp_path / "theirs", precision="fp32")
    np.testing.assert_allclose(ours.encode(TEXTS, side="query"), model.encode_query(TEXTS), atol=1e-5)
    np.testing.assert_allclose(ours.encode(TEXTS), model.encode_document(TEXTS), atol=1e-5)


# -- two towers, one space --------------------------------------------------------------------------------------------------


def test_each_side_is_encoded_by_its_own_tower(narrow: Path, wide: Path, projection: np.ndarray, twin: TwinTower) -> None:
    assert isinstance(twin, Encoder)
    np.testing.assert_array_equal(twin.encode(TEXTS), BiEncoder(wide, precision="fp32").encode(TEXTS))
    projected = BiEncoder(narrow, precision="fp32", normalize=False).encode(TEXTS, side="query") @ projection.T
    expected = projected / np.linalg.norm(projected, axis=1, keepdims=True)  # projected first, to unit length last
    np.testing.assert_allclose(twin.encode(TEXTS, side="query"), expected, atol=1e-6)
    assert twin.similarity(twin.encode(TEXTS[:1], side="query"), twin.encode(TEXTS)).shape == (1, 3)


def test_limits_and_tokens_are_the_documents(twin: TwinTower, wide: Path) -> None:
    alone = BiEncoder(wide)
    assert (twin.dimension, twin.max_tokens) == (24, 128)
    assert twin.text_tokens == alone.text_tokens
    assert twin.count_tokens(TEXTS) == alone.count_tokens(TEXTS)
    assert twin.token_offsets("zinc, a cold") == alone.token_offsets("zinc, a cold")
    assert twin.tokenize(TEXTS).ids.tolist() == alone.tokenize(TEXTS).ids.tolist()
    np.testing.assert_array_equal(twin.embed(twin.tokenize(TEXTS)), twin.encode(TEXTS))


@pytest.mark.filterwarnings("default::twinrank.errors.TruncationWarning")
def test_what_is_cut_is_counted_against_the_sides_own_limit(twin: TwinTower) -> None:
    with pytest.warns(TruncationWarning, match="1 of 2 texts were longer than the 128 tokens") as caught:
        twin.encode(["zinc " * 300, "zinc"], side="query")
    assert caught[0].filename == __file__


def test_towers_that_do_not_meet_are_refused_with_both_widths(narrow: Path, wide: Path) -> None:
    with pytest.raises(InputError, match=r"16 dimensions to a query, .* 24 to a document\. .*projections=.*\(24, 16\)"):
        TwinTower(query=narrow, document=wide)


@pytest.mark.parametrize("shape", [(16, 24), (24,), (0, 16)])
def test_a_projection_that_does_not_fit_is_refused(narrow: Path, wide: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"gives 16 dimensions, so its projection is a matrix \(dimensions wanted, 16\)"):
        TwinTower(query=narrow, document=wide, projections={"query": np.ones(shape)})


def test_a_projection_with_nan_is_refused(narrow: Path, wide: Path) -> None:
    with pytest.raises(InputError, match="NaN or infinity"):
        TwinTower(query=narrow, document=wide, projections={"query": np.full((24, 16), np.nan)})


def test_training_may_put_another_projection_in_place(twin: TwinTower, projection: np.ndarray) -> None:
    other = twin.with_projection("query", 2 * projection[::-1])
    np.testing.assert_allclose(
        other.encode(TEXTS, side="query"), twin.encode(TEXTS, side="query")[:, ::-1], atol=1e-6
    )  # the length of it is lost to the normalisation
    np.testing.assert_array_equal(other.encode(TEXTS), twin.encode(TEXTS))
    assert other.fingerprint != twin.fingerprint


def test_towers_with_different_comparisons_are_refused_until_one_is_given(
    tiny: ModuleType, tmp_path: Path, narrow: Path
) -> None:
    dot = tiny.write_bi_encoder(tmp_path / "dot", prompts={})
    settings = json.loads((dot / "config_sentence_transformers.json").read_text())
    tiny.write_json(dot / "config_sentence_transformers.json", {**settings, "similarity_fn_name": "dot"})
    with pytest.raises(InputError, match=r"compares vectors by cosine, .* by dot; give `similarity`"):
        TwinTower(query=narrow, document=dot)
    assert TwinTower(query=narrow, document=dot, similarity="dot").metric == "dot"


# -- one tower alone --------------------------------------------------------------------------------------------------------


def test_a_tower_is_opened_when_its_side_is_first_encoded(router: Path) -> None:
    model = TwinTower(router)
    model.encode(TEXTS, side="query")
    assert "network" in vars(model.tower("query"))
    assert "network" not in vars(model.tower("document"))
    assert model.fingerprint
    assert "network" not in vars(model.tower("document"))


def test_one_side_alone_encodes_that_side_and_refuses_the_other(narrow: Path) -> None:
    model = TwinTower(query=narrow, precision="fp32")
    np.testing.assert_array_equal(
        model.encode(TEXTS, side="query"), BiEncoder(narrow, precision="fp32").encode(TEXTS, side="query")
    )
    with pytest.raises(InputError, match="for the query side alone; to encode a document, give its checkpoint too"):
        model.encode(TEXTS)
    with pytest.raises(InputError, match="no tower for the document; only both together are saved"):
        model.save("nowhere")


def test_an_unknown_side_is_refused(twin: TwinTower) -> None:
    with pytest.raises(InputError, match="Unknown side 'passage'"):
        twin.encode(TEXTS, side="passage")
    with pytest.raises(InputError, match="Unknown side 'answer'"):
        twin.with_projection("answer", np.ones((24, 16)))


# -- saving -----------------------------------------------------------------------------------------------------------------


def test_what_was_saved_gives_the_same_vectors(twin: TwinTower, tmp_path: Path) -> None:
    again = TwinTower(twin.save(tmp_path / "a" / "saved"), precision="fp32")
    for side in ("query", "document"):
        np.testing.assert_array_equal(again.encode(TEXTS, side=side), twin.encode(TEXTS, side=side))
    assert (again.prompts, again.metric, again.max_tokens) == (twin.prompts, twin.metric, twin.max_tokens)


@pytest.mark.parametrize("pooling", ["cls", "mean", "max", "weighted_mean", "last"])
def test_settings_of_the_towers_are_saved(tiny: ModuleType, tmp_path: Path, pooling: str) -> None:
    stated = {"weighted_mean": "weightedmean", "last": "lasttoken"}.get(pooling, pooling)
    folder = tiny.write_bi_encoder(tmp_path / "m", pooling=stated, normalize=False, dense=5)
    twin = TwinTower(query=folder, document=folder, max_tokens=9, similarity="dot", normalize=True, precision="fp32")
    again = TwinTower(twin.save(tmp_path / "saved"), precision="fp32")
    assert (again.tower("query").pooling, again.max_tokens, again.metric) == (pooling, 9, "dot")
    np.testing.assert_array_equal(again.encode(TEXTS), twin.encode(TEXTS))


def test_networks_and_tokenizers_are_copied_byte_for_byte(twin: TwinTower, narrow: Path, wide: Path, tmp_path: Path) -> None:
    saved = twin.save(tmp_path / "saved")
    for side, source in (("query", narrow), ("document", wide)):
        for name in ("model.safetensors", "tokenizer.json", "tokenizer_config.json", "config.json"):
            assert (saved / f"{side}_0_Transformer" / name).read_bytes() == (source / name).read_bytes()
    (wide / "pytorch_model.bin").write_bytes(b"pickle")
    again = twin.save(tmp_path / "again")
    assert not list(again.rglob("*.bin"))
    (wide / "pytorch_model.bin").unlink()


def test_nothing_is_overwritten(twin: TwinTower, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="exists and is not empty"):
        twin.save(tmp_path / "full")
    assert [file.name for file in tmp_path.iterdir()] == ["full"]


# -- folders ----------------------------------------------------------------------------------------------------------------


def test_routes_by_task_and_modality_and_by_older_names_are_found(tiny: ModuleType, tmp_path: Path) -> None:
    folder = tiny.write_twin_tower(tmp_path / "m")
    expected = TwinTower(folder, precision="fp32").encode(TEXTS)
    settings = json.loads((folder / "router_config.json").read_text())
    renamed = {"query": settings["structure"]["query"], "wide": settings["structure"]["document"]}
    mappings = {"('document', 'text')": "wide"}
    tiny.write_json(
        folder / "router_config.json",
        {**settings, "structure": renamed, "parameters": {"default_route": None, "route_mappings": mappings}},
    )
    np.testing.assert_array_equal(TwinTower(folder, precision="fp32").encode(TEXTS), expected)
    # Asym, before release 5: the same content in config.json, and the documents' side called doc
    (folder / "router_config.json").unlink()
    older = {"query": renamed["query"], "doc": renamed["wide"]}
    tiny.write_json(folder / "config.json", {"types": settings["types"], "structure": older, "parameters": {}})
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["type"] = "sentence_transformers.models.Asym"
    tiny.write_json(folder / "modules.json", modules)
    np.testing.assert_array_equal(TwinTower(folder, precision="fp32").encode(TEXTS), expected)


def test_a_route_that_is_not_there_is_named(tiny: ModuleType, tmp_path: Path) -> None:
    folder = tiny.write_twin_tower(tmp_path / "m")
    settings = json.loads((folder / "router_config.json").read_text())
    structure = {"image": settings["structure"]["document"]}
    tiny.write_json(folder / "router_config.json", {**settings, "structure": structure, "parameters": {}})
    with pytest.raises(ModelUnsupportedError, match="no route for the text of a query, only image"):
        TwinTower(folder)


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"types": 3, "structure": {}}', '{"types": {}, "structure": {"query": ["x"]}}']
)
def test_a_damaged_router_is_refused(tiny: ModuleType, tmp_path: Path, content: str) -> None:
    folder = tiny.write_twin_tower(tmp_path / "m")
    (folder / "router_config.json").write_text(content)
    with pytest.raises(ModelDamagedError, match=r"router_config\.json"):
        TwinTower(folder)


def test_a_route_outside_the_folder_is_refused(tiny: ModuleType, tmp_path: Path) -> None:
    folder = tiny.write_twin_tower(tmp_path / "m")
    text = (folder / "router_config.json").read_text().replace("query_0_Transformer", "../query_0_Transformer")
    (folder / "router_config.json").write_text(text)
    with pytest.raises(ModelDamagedError, match="outside the checkpoint"):
        TwinTower(folder)


def test_a_tower_that_is_no_transformer_is_refused(tiny: ModuleType, tmp_path: Path) -> None:
    folder = tiny.write_twin_tower(tmp_path / "m")
    text = (folder / "router_config.json").read_text().replace("models.Transformer", "models.StaticEmbedding")
    (folder / "router_config.json").write_text(text)
    with pytest.raises(ModelUnsupportedError, match=r"the tower for the query begins with a .*StaticEmbedding; a Transformer"):
        TwinTower(folder)


def test_one_folder_or_two_but_not_none_and_not_three(router: Path, narrow: Path) -> None:
    with pytest.raises(InputError, match="Give either one folder that holds both towers"):
        TwinTower(router, query=narrow)
    with pytest.raises(InputError, match="A twin tower has two checkpoints"):
        TwinTower()


def test_the_fingerprint_is_of_both_towers_and_the_precision(tiny: ModuleType, tmp_path: Path, router: Path) -> None:
    one, other = tiny.write_bi_encoder(tmp_path / "a"), tiny.write_bi_encoder(tmp_path / "b", seed=8)
    prints = {
        TwinTower(query=query, document=document, precision="fp32").fingerprint
        for query, document in ((one, one), (one, other), (other, one), (other, other))
    }
    assert len(prints) == 4
    assert all(fingerprint.endswith(":fp32") for fingerprint in prints)
    if native.available():
        assert TwinTower(router).fingerprint == TwinTower(router, precision="fp32").fingerprint.replace(":fp32", ":int8")
