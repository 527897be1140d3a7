"""What a checkpoint's files say is read in every layout, and what cannot be used is refused by name."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from twinrank.errors import InputError, ModelDamagedError, ModelUnsupportedError
from twinrank.models.checkpoint import Checkpoint
from twinrank.models.heads import Dense, Normalize


@pytest.fixture
def model(tiny: ModuleType, tmp_path: Path) -> Path:
    """A tiny BERT bi-encoder's folder, to be spoiled."""
    return tiny.write_bi_encoder(tmp_path / "model")


def edit(file: Path, **changes: object) -> None:
    settings = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps({key: value for key, value in {**settings, **changes}.items() if value is not None}))


def edit_weights(folder: Path, edit_one) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit_one(tensors)
    save_file(tensors, folder / "model.safetensors")


# -- what is read -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stated", "pooling"),
    [("cls", "cls"), ("mean", "mean"), ("max", "max"), ("weightedmean", "weighted_mean"), ("lasttoken", "last")],
)
def test_pooling_is_read_from_flags_and_from_the_newer_key(tiny: ModuleType, tmp_path: Path, stated: str, pooling: str) -> None:
    folder = tiny.write_bi_encoder(tmp_path / "old", pooling=stated)
    assert Checkpoint.find(folder).pooling == pooling
    tiny.write_json(folder / "1_Pooling" / "config.json", {"embedding_dimension": 16, "pooling_mode": stated})
    assert Checkpoint.find(folder).pooling == pooling


def test_the_layout_of_sentence_transformers_6_is_read(model: Path, tiny: ModuleType) -> None:
    """As its save_pretrained writes it: other class paths, the limit in tokenizer_config.json alone."""
    home = "sentence_transformers."
    types = [
        ("", home + "base.modules.transformer.Transformer"),
        ("1_Pooling", home + "sentence_transformer.modules.pooling.Pooling"),
        ("2_Normalize", home + "base.modules.normalize.Normalize"),
    ]
    entries = [{"idx": number, "name": str(number), "path": path, "type": kind} for number, (path, kind) in enumerate(types)]
    tiny.write_json(model / "modules.json", entries)
    tiny.write_json(model / "2_Normalize" / "config.json", {"module_input_name": "sentence_embedding"})
    tiny.write_json(model / "sentence_bert_config.json", {"transformer_task": "feature-extraction"})
    edit(model / "tokenizer_config.json", model_max_length=77)
    checkpoint = Checkpoint.find(model)
    assert (checkpoint.kind, checkpoint.pooling, checkpoint.max_tokens) == ("BiEncoder", "mean", 77)
    assert checkpoint.steps == (Normalize(),)


def test_the_transformer_may_lie_in_a_folder_of_its_own(model: Path) -> None:
    inner = model / "0_Transformer"
    inner.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors", "sentence_bert_config.json"):
        shutil.move(model / name, inner / name)
    modules = json.loads((model / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (model / "modules.json").write_text(json.dumps(modules))
    checkpoint = Checkpoint.find(model)
    assert checkpoint.folder == inner
    assert checkpoint.trunk().weights["embeddings.word"].shape[1] == 16
    assert checkpoint.name == str(model)


def test_the_limit_is_the_stated_one_but_no_more_than_there_are_positions(tiny: ModuleType, tmp_path: Path) -> None:
    folder = tiny.write_bi_encoder(tmp_path / "roberta", "roberta")
    assert Checkpoint.find(folder).max_tokens == 128
    edit(folder / "sentence_bert_config.json", max_seq_length=100_000)
    assert Checkpoint.find(folder).max_tokens == 200  # 202 positions, the first two of which RoBERTa leaves out
    edit(folder / "sentence_bert_config.json", max_seq_length=None)
    edit(folder / "tokenizer_config.json", model_max_length=1e30)
    assert Checkpoint.find(folder).max_tokens == 200


def test_prompts_and_similarity_are_read(tiny: ModuleType, tmp_path: Path) -> None:
    folder = tiny.write_bi_encoder(tmp_path / "m", prompts={"query": "query: ", "document": ""})
    edit(folder / "config_sentence_transformers.json", similarity_fn_name="dot")
    checkpoint = Checkpoint.find(folder)
    assert (checkpoint.prompts, checkpoint.metric) == ({"query": "query: "}, "dot")


def test_a_plain_transformers_folder_is_pooled_by_the_mean_and_says_so(
    tiny: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = Checkpoint.find(tiny.write_trunk(tmp_path / "plain"))
    assert (checkpoint.kind, checkpoint.pooling, checkpoint.steps) == ("BiEncoder", "mean", ())
    assert "pooled by their mean" in caplog.text
    assert checkpoint.notes


def test_a_dense_module_is_read(tiny: ModuleType, tmp_path: Path) -> None:
    dense, normalize = Checkpoint.find(tiny.write_bi_encoder(tmp_path / "m", dense=5)).steps
    assert isinstance(dense, Dense)
    assert (dense.weight.shape, dense.activation) == ((5, 16), "tanh")
    assert normalize == Normalize()


def test_mean_by_the_root_of_the_length_is_the_mean_once_normalised(tiny: ModuleType, tmp_path: Path) -> None:
    folder = tiny.write_bi_encoder(tmp_path / "m", pooling="mean_sqrt_len_tokens")
    assert Checkpoint.find(folder).pooling == "mean"
    folder = tiny.write_bi_encoder(tmp_path / "n", pooling="mean_sqrt_len_tokens", normalize=False)
    with pytest.raises(ModelUnsupportedError, match="pools by mean_sqrt_len_tokens"):
        _ = Checkpoint.find(folder).pooling


def test_names_of_the_tensorflow_days_and_prefixes_are_understood(model: Path) -> None:
    before = Checkpoint.find(model).trunk()

    def rename(tensors: dict[str, np.ndarray]) -> None:
        for name in list(tensors):
            old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
            tensors["bert." + old] = tensors.pop(name)

    edit_weights(model, rename)
    after = Checkpoint.find(model).trunk()
    assert after.weights.keys() == before.weights.keys()
    assert all((after.weights[name] == before.weights[name]).all() for name in before.weights)


def test_half_precision_weights_become_float32(model: Path) -> None:
    def halve(tensors: dict[str, np.ndarray]) -> None:
        for name in tensors:
            tensors[name] = tensors[name].astype(np.float16)

    edit_weights(model, halve)
    assert {weight.dtype for weight in Checkpoint.find(model).trunk().weights.values()} == {np.dtype(np.float32)}


def test_a_checkpoint_with_a_word_list_alone_is_tokenized_alike(model: Path) -> None:
    tokenizer = Checkpoint.find(model).tokenizer()
    texts = ["A man eats Größe, naïveté!", "zinc", ""]
    expected = tokenizer.encode(texts)
    vocabulary = tokenizer.native.get_vocab()
    (model / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.__getitem__)) + "\n")
    (model / "tokenizer.json").unlink()
    assert Checkpoint.find(model).tokenizer().encode(texts).ids.tolist() == expected.ids.tolist()


# -- fingerprints -----------------------------------------------------------------------------------------------------------


def test_the_fingerprint_follows_everything_that_makes_the_vectors(tiny: ModuleType, tmp_path: Path) -> None:
    folder = tiny.write_bi_encoder(tmp_path / "a", dense=5)
    base = Checkpoint.find(folder)
    assert base.fingerprint() == Checkpoint.find(shutil.copytree(folder, tmp_path / "copy")).fingerprint()
    others = {
        "weights": Checkpoint.find(tiny.write_bi_encoder(tmp_path / "b", dense=5, seed=8)).fingerprint(),
        "limit": replace(base, max_tokens=64).fingerprint(),
        "case": replace(base, lower_case=True).fingerprint(),
        "settings": base.fingerprint("cls"),
        "shape": replace(base, shape=replace(base.shape, norm_epsilon=1e-5)).fingerprint(),
    }
    (tmp_path / "c").mkdir()
    dense = shutil.copytree(folder, tmp_path / "c" / "a")
    tiny.write_dense(dense / "2_Dense", 5, seed=99)
    others["dense"] = Checkpoint.find(dense).fingerprint()
    words = shutil.copytree(folder, tmp_path / "d")
    tokenizer = json.loads((words / "tokenizer.json").read_text())
    tokenizer["normalizer"]["lowercase"] = False
    (words / "tokenizer.json").write_text(json.dumps(tokenizer))
    others["tokenizer"] = Checkpoint.find(words).fingerprint()
    assert len({base.fingerprint(), *others.values()}) == 1 + len(others), others


# -- what is refused --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["config.json", "1_Pooling/config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(model: Path, name: str) -> None:
    (model / name).unlink()
    with pytest.raises(ModelDamagedError, match=name.rpartition("/")[2].replace(".", r"\.")):
        _use(model)


@pytest.mark.parametrize(
    "name", ["config.json", "modules.json", "1_Pooling/config.json", "tokenizer.json", "tokenizer_config.json"]
)
@pytest.mark.parametrize("content", ["", "{", "[1, 2]", "\x00"])
def test_a_damaged_file_is_named(model: Path, name: str, content: str) -> None:
    (model / name).write_text(content)
    with pytest.raises(ModelDamagedError, match=name.rpartition("/")[2].replace(".", r"\.")):
        _use(model)


def test_nan_weights_are_refused(model: Path) -> None:
    def spoil(tensors: dict[str, np.ndarray]) -> None:
        tensors["encoder.layer.1.output.dense.bias"][3] = np.nan

    edit_weights(model, spoil)
    with pytest.raises(ModelDamagedError, match=r"'encoder\.layer\.1\.output\.dense\.bias' has NaN"):
        Checkpoint.find(model).trunk()


def test_weights_that_contradict_the_sizes_are_refused(model: Path) -> None:
    edit(model / "config.json", intermediate_size=25)
    with pytest.raises(ModelDamagedError, match=r"shape \(24, 16\), but config.json asks for \(25, 16\)"):
        Checkpoint.find(model).trunk()


def test_a_missing_weight_is_named(model: Path) -> None:
    edit_weights(model, lambda tensors: tensors.pop("encoder.layer.0.attention.self.query.bias"))
    with pytest.raises(ModelDamagedError, match=r"no tensor 'encoder\.layer\.0\.attention\.self\.query\.bias'"):
        Checkpoint.find(model).trunk()


def test_a_tokenizer_with_more_words_than_the_network_is_refused(model: Path) -> None:
    edit(model / "config.json", vocab_size=20)
    with pytest.raises(ModelDamagedError, match=r"tokenizer .* has \d+ tokens, but its network has embeddings of 20"):
        Checkpoint.find(model).tokenizer()


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"model_type": "gpt2"}, ModelUnsupportedError, "family 'gpt2'; run here are bert, roberta"),
        ({"model_type": None}, ModelUnsupportedError, "family None"),
        ({"auto_map": {"AutoModel": "modeling_own.Own"}}, ModelUnsupportedError, "comes with its own Python code"),
        ({"hidden_act": "swish"}, ModelUnsupportedError, "activation 'swish'"),
        ({"position_embedding_type": "relative_key"}, ModelUnsupportedError, "'relative_key' position embeddings"),
        ({"is_decoder": True}, ModelUnsupportedError, "a decoder"),
        ({"num_attention_heads": 3}, ModelDamagedError, "16 does not divide into 3 heads"),
        ({"hidden_size": None}, ModelDamagedError, "hidden_size is missing"),
        ({"num_hidden_layers": -1}, ModelDamagedError, "num_hidden_layers is -1"),
        ({"vocab_size": "many"}, ModelDamagedError, "vocab_size is 'many'"),
        ({"model_type": "t5", "is_encoder_decoder": True}, ModelUnsupportedError, "family 't5'; run here are bert"),
    ],
)
def test_a_network_that_is_not_run_here_is_refused_with_the_reason(
    model: Path, changes: dict[str, object], error: type[Exception], words: str
) -> None:
    edit(model / "config.json", **changes)
    with pytest.raises(error, match=words):
        Checkpoint.find(model)


def test_unknown_modules_and_poolings_are_refused(model: Path, tiny: ModuleType) -> None:
    tiny.write_json(model / "1_Pooling" / "config.json", {"word_embedding_dimension": 16, "pooling_mode": ["cls", "mean"]})
    with pytest.raises(ModelUnsupportedError, match="pools by cls and mean"):
        _use(model)
    tiny.write_json(model / "1_Pooling" / "config.json", {"word_embedding_dimension": 17, "pooling_mode": "cls"})
    with pytest.raises(ModelDamagedError, match="pools 17 dimensions; the network has 16"):
        _use(model)
    modules = json.loads((model / "modules.json").read_text())
    modules.append({"idx": 3, "name": "3", "path": "3_CNN", "type": "sentence_transformers.models.CNN"})
    (model / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelUnsupportedError, match=r"module sentence_transformers\.models\.CNN"):
        _ = Checkpoint.find(model).steps


def test_modules_outside_the_folder_are_refused(model: Path) -> None:
    modules = json.loads((model / "modules.json").read_text())
    modules[1]["path"] = "../elsewhere"
    (model / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelDamagedError, match="outside the checkpoint"):
        Checkpoint.find(model)


def test_an_activation_from_elsewhere_is_refused(tiny: ModuleType, tmp_path: Path) -> None:
    folder = tiny.write_bi_encoder(tmp_path / "m", dense=5)
    edit(folder / "2_Dense" / "config.json", activation_function="os.system")
    with pytest.raises(ModelUnsupportedError, match=r"'os\.system' is not run here"):
        _ = Checkpoint.find(folder).steps


def test_a_dense_module_that_does_not_fit_is_refused(tiny: ModuleType, tmp_path: Path) -> None:
    folder = tiny.write_bi_encoder(tmp_path / "m", dense=5)
    tiny.write_dense(folder / "2_Dense", 5, inputs=12)
    with pytest.raises(ModelDamagedError, match="takes 12 dimensions but is given 16"):
        _ = Checkpoint.find(folder).steps


@pytest.mark.parametrize(
    ("architecture", "kind"), [("HF_ColBERT", "LateInteraction"), ("BertForSequenceClassification", "CrossEncoder")]
)
def test_a_checkpoint_of_another_architecture_names_the_right_class(
    tiny: ModuleType, tmp_path: Path, architecture: str, kind: str
) -> None:
    checkpoint = Checkpoint.find(tiny.write_trunk(tmp_path / "m", architectures=[architecture]))
    with pytest.raises(ModelUnsupportedError, match=rf"is a {kind}, not a BiEncoder: open it as {kind}\("):
        checkpoint.require("BiEncoder")


def test_a_sparse_encoder_is_recognised(model: Path) -> None:
    modules = json.loads((model / "modules.json").read_text())
    modules[1]["type"] = "sentence_transformers.sparse_encoder.models.SpladePooling"
    (model / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelUnsupportedError, match="is a sparse encoder, not a BiEncoder"):
        Checkpoint.find(model).require("BiEncoder")


@pytest.mark.parametrize("limit", [0, -1, 203])
def test_a_limit_outside_the_position_table_is_refused(model: Path, limit: int) -> None:
    with pytest.raises(InputError, match="takes 1 to 202 tokens"):
        Checkpoint.find(model).limited_to(limit)


def _use(folder: Path) -> None:
    checkpoint = Checkpoint.find(folder)
    _ = checkpoint.pooling
    checkpoint.tokenizer()
    checkpoint.trunk()
