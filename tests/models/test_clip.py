"""Images are found by words: vectors agree with transformers' CLIPModel, and what is no image or no CLIP is refused."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from twinrank.errors import (
    DataError,
    InputError,
    MissingExtraError,
    ModelDamagedError,
    ModelUnsupportedError,
    TruncationWarning,
)
from twinrank.models.twintower import TwinTower
from twinrank.types import Encoder

HAS_EXTRA = all(importlib.util.find_spec(name) for name in ("torch", "transformers", "PIL"))
needs_extra = pytest.mark.skipif(
    not HAS_EXTRA, reason="torch, transformers and Pillow are not installed: pip install twinrank[images]"
)

TEXTS = ["zinc may shorten a cold", "a piece of bread", "", "what is it", "a man eating food in one line"]


@pytest.fixture(scope="module")
def folder(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random CLIP, as transformers saves it; without the extra, its settings alone."""
    folder = tmp_path_factory.mktemp("m") / "clip"
    folder.mkdir()
    tokenizer = tiny.tokenizer("bert")
    tokenizer.save(str(folder / "tokenizer.json"))
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"bos_token_id": tokenizer.token_to_id("[CLS]"), "eos_token_id": tokenizer.token_to_id("[SEP]"), "pad_token_id": 0}
    text = {**sizes, **ends, "vocab_size": tokenizer.get_vocab_size(), "max_position_embeddings": 20}
    vision = {**sizes, "image_size": 12, "patch_size": 4}
    settings = {"model_type": "clip", "architectures": ["CLIPModel"], "projection_dim": 8}
    tiny.write_json(folder / "config.json", {**settings, "text_config": text, "vision_config": vision})
    images = {"size": {"shortest_edge": 12}, "crop_size": {"height": 12, "width": 12}, "image_mean": [0.4, 0.5, 0.6]}
    tiny.write_json(folder / "preprocessor_config.json", {**images, "image_processor_type": "CLIPImageProcessor"})
    if HAS_EXTRA:
        import torch
        from transformers import CLIPConfig, CLIPModel

        torch.manual_seed(5)
        network = CLIPModel(CLIPConfig.from_pretrained(folder))
        for parameter in network.parameters():
            parameter.data.normal_(0, 0.3)
        network.save_pretrained(folder)
    return folder


@pytest.fixture
def pictures() -> list[np.ndarray]:
    random = np.random.default_rng(9)
    return [random.integers(0, 256, shape, dtype=np.uint8) for shape in ((30, 40, 3), (12, 12, 3), (50, 17, 3))]


@needs_extra
def test_texts_and_images_agree_with_transformers(folder: Path, pictures: list[np.ndarray]) -> None:
    import torch
    from transformers import CLIPModel

    encoder = TwinTower.clip(folder)
    reference = CLIPModel.from_pretrained(folder).eval()
    pixels = torch.from_numpy(np.stack([by_hand(picture) for picture in pictures]))
    for text in TEXTS:
        ids = torch.from_numpy(encoder.tokenize([text]).ids.astype(np.int64))[None]
        with torch.no_grad():
            expected = reference(input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids))
        alone = encoder.encode([text], side="query")
        np.testing.assert_allclose(alone, expected.text_embeds.numpy(), atol=1e-5)
        np.testing.assert_allclose(encoder.encode_images(pictures), expected.image_embeds.numpy(), atol=1e-5)
        cosines = expected.logits_per_text.numpy() / np.exp(reference.logit_scale.item())
        np.testing.assert_allclose(encoder.similarity(alone, encoder.encode_images(pictures)), cosines, atol=1e-5)


def by_hand(picture: np.ndarray) -> np.ndarray:
    """Resize, crop and normalise with Pillow, written down a second time for images of 12 by 12."""
    from PIL import Image

    height, width = picture.shape[:2]
    scale = 12 / min(height, width)
    image = Image.fromarray(picture).resize((int(width * scale), int(height * scale)), Image.Resampling.BICUBIC)
    resized = np.asarray(image).astype(np.float64) / 255
    top, left = (resized.shape[0] - 12) // 2, (resized.shape[1] - 12) // 2
    cropped = resized[top : top + 12, left : left + 12]
    normal = (cropped - [0.4, 0.5, 0.6]) / [0.26862954, 0.26130258, 0.27577711]
    return normal.transpose(2, 0, 1).astype(np.float32)


@needs_extra
def test_texts_of_many_lengths_keep_their_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = TwinTower.clip(folder)
    assert isinstance(encoder, Encoder)
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(encoder.encode(TEXTS), alone, atol=1e-5)
    monkeypatch.setattr("twinrank.models.clip.TOKENS_AT_ONCE", 9)
    np.testing.assert_allclose(encoder.encode(TEXTS), alone, atol=1e-5)
    assert (encoder.dimension, encoder.max_tokens, encoder.encode([]).shape) == (8, 20, (0, 8))
    assert encoder.count_tokens(TEXTS[:2]) == [5, 4]
    assert encoder.token_offsets("a cold") == [(0, 1), (2, 6)]
    assert encoder.fingerprint.endswith(":fp32")


@needs_extra
def test_files_images_and_arrays_are_the_same_image(folder: Path, pictures: list[np.ndarray], tmp_path: Path) -> None:
    from PIL import Image

    encoder = TwinTower.clip(folder)
    files = [tmp_path / f"{number}.png" for number in range(len(pictures))]
    for file, picture in zip(files, pictures, strict=True):
        Image.fromarray(picture).save(file)
    expected = encoder.encode_images(pictures)
    np.testing.assert_array_equal(encoder.encode_images(files), expected)
    np.testing.assert_array_equal(encoder.encode_images([str(file) for file in files]), expected)
    np.testing.assert_array_equal(encoder.encode_images(Image.open(file) for file in files), expected)
    assert encoder.encode_images([]).shape == (0, 8)


@needs_extra
def test_a_grey_image_is_encoded_in_three_channels(folder: Path, tmp_path: Path) -> None:
    from PIL import Image

    grey = np.arange(144, dtype=np.uint8).reshape(12, 12)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    encoder = TwinTower.clip(folder)
    expected = encoder.encode_images([np.repeat(grey[:, :, None], 3, axis=2)])
    np.testing.assert_array_equal(encoder.encode_images([tmp_path / "grey.png"]), expected)


@needs_extra
def test_what_is_no_image_is_refused_by_name_or_number(folder: Path, tmp_path: Path) -> None:
    encoder = TwinTower.clip(folder)
    (tmp_path / "notes.png").write_text("no image")
    with pytest.raises(DataError, match=r"notes\.png cannot be read as an image"):
        encoder.encode_images([tmp_path / "notes.png"])
    with pytest.raises(DataError, match=r"missing\.png cannot be read"):
        encoder.encode_images([tmp_path / "missing.png"])
    with pytest.raises(InputError, match=r"Image 1 is an array \(4, 4\) of float32; \(height, width, 3\) of uint8"):
        encoder.encode_images([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.float32)])
    with pytest.raises(InputError, match="Image 0 is a int"):
        encoder.encode_images([7])
    with pytest.raises(InputError, match="put it into a list"):
        encoder.encode_images(tmp_path / "notes.png")


@needs_extra
def test_long_texts_are_counted(folder: Path) -> None:
    with pytest.warns(TruncationWarning, match="1 of 1 texts were longer than the 20 tokens that the model takes; 12 tokens"):
        TwinTower.clip(folder).encode(["zinc " * 30])


@needs_extra
def test_the_layout_of_sentence_transformers_opens_too(folder: Path, tiny: ModuleType, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "m" / "0_CLIPModel")
    module = {"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}
    tiny.write_json(tmp_path / "m" / "modules.json", [module])
    np.testing.assert_array_equal(TwinTower.clip(tmp_path / "m").encode(TEXTS), TwinTower.clip(folder).encode(TEXTS))


@needs_extra
def test_damaged_missing_and_unfitting_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    spoiled = shutil.copytree(folder, tmp_path / "m")
    (spoiled / "model.safetensors").write_bytes(b"\x08" + bytes(40))
    with pytest.raises(ModelDamagedError, match="damaged safetensors header"):
        TwinTower.clip(spoiled)
    tensors = load_file(folder / "model.safetensors")
    del tensors["text_projection.weight"]
    save_file(tensors, spoiled / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelDamagedError, match=r"lacks the weights text_projection\.weight"):
        TwinTower.clip(spoiled)
    settings = json.loads((folder / "config.json").read_text())
    shutil.copy(folder / "model.safetensors", spoiled)
    settings["text_config"]["vocab_size"] = 20
    (spoiled / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelDamagedError, match="cannot be opened as a CLIP model"):
        TwinTower.clip(spoiled)


@pytest.mark.skipif(HAS_EXTRA, reason="torch, transformers and Pillow are installed")
def test_without_torch_the_extra_is_named(folder: Path) -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'twinrank\[images\]'"):
        TwinTower.clip(folder)


def test_another_architecture_is_refused_by_its_right_name(tiny: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ModelUnsupportedError, match=r"is a BiEncoder, not a CLIP model: open it as BiEncoder\("):
        TwinTower.clip(tiny.write_bi_encoder(tmp_path / "m"))
