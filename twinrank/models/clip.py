"""CLIP-style pairs of towers, one for texts and one for images: the one place that runs torch outside of training.

Radford et al. 2021. Texts and images become vectors of one space, so that words find pictures. Needs `twinrank[images]`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from twinrank.errors import DataError, InputError, MissingExtraError, ModelDamagedError
from twinrank.models import hub
from twinrank.models.biencoder import checked_side, checked_texts, compare, warn_truncated
from twinrank.models.heads import Array, normalize
from twinrank.models.kinds import read_kind, read_modules, read_optional, require_kind
from twinrank.models.packing import plan_batches, take
from twinrank.models.tokenizer import TextTokenizer, read_tokenizer
from twinrank.models.weights import Tensors, read_json
from twinrank.types import Scores, Side, Tokens, Vectors

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

Image: TypeAlias = "str | os.PathLike[str] | PillowImage | npt.NDArray[np.uint8]"
"""A file, an image of Pillow, or an array (height, width, 3) of bytes."""

TOKENS_AT_ONCE = 4096
IMAGES_AT_ONCE = 16
"""Decoded and run together; what a folder of photographs holds in memory at one time."""

DEFAULT_MEAN, DEFAULT_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of the images that CLIP was trained on, by channel."""


class ClipEncoder:
    """Texts and images → vectors: `encode(["a red bike"], side="query")` and `encode_images(paths)` are (n, dimension).

    All vectors are of unit length. `folder` is a checkpoint of transformers' CLIPModel or of sentence-transformers' around it.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        found = hub.find_folder(folder)
        modules = read_modules(found.folder)
        require_kind(found.name, read_kind(found.folder, modules), "CLIP")
        _require_extra()
        place = next((module.folder for module in modules if module.type in ("CLIPModel", "Transformer")), found.folder)
        config = read_json(place / "config.json")
        files = Tensors.open(place).files
        self.name = found.name
        self._network = _load_network(place)
        self.dimension = int(self._network.config.projection_dim)
        self.max_tokens = int(self._network.config.text_config.max_position_embeddings)
        self._tokenizer = TextTokenizer(read_tokenizer(place, "clip"), max_tokens=self.max_tokens)
        if self._tokenizer.vocabulary > self._network.config.text_config.vocab_size:
            raise ModelDamagedError(
                f"The tokenizer of {self.name} has {self._tokenizer.vocabulary} tokens, but its network has embeddings of "
                f"{self._network.config.text_config.vocab_size}. The two are not of one model; get the model again."
            )
        self._images = _ImageSteps(read_optional(place / "preprocessor_config.json"), config)
        hashes = [hub.file_hash(file) for file in [*files, place / "config.json", place / "tokenizer.json"]]
        content = json.dumps([hashes, self._images.settings], sort_keys=True)
        self.fingerprint = f"{hashlib.sha256(content.encode()).hexdigest()[:16]}:fp32"

    def __repr__(self) -> str:
        return f"ClipEncoder({self.name!r}, dimension={self.dimension}, fp32 by torch)"

    # -- texts ------------------------------------------------------------------------------------------------------------

    def tokenize(self, texts: Sequence[str], *, side: Side = "document") -> Tokens:
        """Tokens of each text with the special tokens; `dropped` counts what did not fit. Both sides are alike."""
        checked_side(side)
        return self._tokenizer.encode(checked_texts(texts))

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, uncut, without special tokens."""
        return [int(count) for count in self._tokenizer.count(checked_texts(texts))]

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        """The characters (start, end) of every token of the text, uncut, without special tokens."""
        return self._tokenizer.offsets(text)

    def embed(self, tokens: Tokens, *, side: Side = "document") -> Vectors:
        """Vectors of tokenized texts: (texts, dimension)."""
        import torch

        checked_side(side)
        vectors = np.empty((len(tokens), self.dimension), np.float32)
        for batch in plan_batches(tokens.lengths, TOKENS_AT_ONCE):
            ids, mask = _pad(take(tokens, batch))  # (texts, longest)
            with torch.inference_mode():
                states = self._network.text_model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))
                vectors[batch] = self._network.text_projection(states.pooler_output).numpy()
        return self._finished(vectors)

    def encode(self, texts: Sequence[str], *, side: Side = "document") -> Vectors:
        """Vectors of texts: (texts, dimension). TruncationWarning, once a call, where texts were longer than `max_tokens`."""
        tokens = self.tokenize(texts, side=side)
        warn_truncated(tokens, self.max_tokens)
        return self.embed(tokens, side=side)

    # -- images -----------------------------------------------------------------------------------------------------------

    def encode_images(self, images: Iterable[Image]) -> Vectors:
        """Vectors of images: (images, dimension). Raises DataError where a file is no image."""
        import torch

        if isinstance(images, (str, os.PathLike)):
            raise InputError("One image was given where several were expected; put it into a list.")
        vectors = [np.empty((0, self.dimension), np.float32)]
        pixels = (self._images.apply(image, number) for number, image in enumerate(images))
        while batch := list(islice(pixels, IMAGES_AT_ONCE)):
            with torch.inference_mode():
                states = self._network.vision_model(pixel_values=torch.from_numpy(np.stack(batch)))
                vectors.append(self._network.visual_projection(states.pooler_output).numpy())
        return self._finished(np.concatenate(vectors))

    def similarity(self, a: Vectors, b: Vectors) -> Scores:
        """The cosine of each of `a` with each of `b`: (a, b)."""
        return compare("cosine", np.atleast_2d(a), np.atleast_2d(b))

    def _finished(self, vectors: Vectors) -> Vectors:
        if not np.isfinite(vectors).all():
            raise ModelDamagedError(f"{self.name} gave vectors with NaN or infinity; its weights cannot be used in float32.")
        return normalize(vectors)


class _ImageSteps:
    """Resize, crop, scale and normalise, as preprocessor_config.json says, or as CLIP was trained."""

    def __init__(self, stated: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        side = int((config.get("vision_config") or {}).get("image_size", 224))
        self.settings: dict[str, Any] = {
            "do_resize": True,
            "size": {"shortest_edge": side},
            "resample": 3,  # Pillow's number for bicubic
            "do_center_crop": True,
            "crop_size": side,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(DEFAULT_MEAN),
            "image_std": list(DEFAULT_STD),
        }
        self.settings |= {name: stated[name] for name in self.settings if stated.get(name) is not None}

    def apply(self, image: Image, number: int) -> Array:
        """The network's input: (3, height, width)."""
        picture = _open_image(image, number)
        settings = self.settings
        if settings["do_resize"]:
            picture = picture.resize(_resized(picture.size, settings["size"]), resample=int(settings["resample"]))
        if settings["do_center_crop"]:
            height, width = _height_width(settings["crop_size"])
            left, top = (picture.width - width) // 2, (picture.height - height) // 2
            picture = picture.crop((left, top, left + width, top + height))
        pixels = np.asarray(picture, np.float32)  # (height, width, 3)
        if settings["do_rescale"]:
            pixels = pixels * np.float32(settings["rescale_factor"])
        if settings["do_normalize"]:
            pixels = (pixels - np.float32(settings["image_mean"])) / np.float32(settings["image_std"])
        return np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32)


def _open_image(image: Image, number: int) -> PillowImage:
    from PIL import Image as Pillow

    if isinstance(image, Pillow.Image):
        return image.convert("RGB")
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise InputError(
                f"Image {number} is an array {image.shape} of {image.dtype}; (height, width, 3) of uint8 was expected."
            )
        return Pillow.fromarray(image)
    if not isinstance(image, (str, os.PathLike)):
        raise InputError(f"Image {number} is a {type(image).__name__}; a path, an image of Pillow or an array was expected.")
    try:
        with Pillow.open(image) as opened:
            return opened.convert("RGB")
    except (OSError, ValueError, SyntaxError, Pillow.DecompressionBombError) as error:
        raise DataError(f"{os.fspath(image)} cannot be read as an image ({error}).") from error


def _resized(size: tuple[int, int], wanted: Any) -> tuple[int, int]:
    """(width, height) after resizing; a number is the shorter side, and the form is kept.

    >>> _resized((640, 480), {"shortest_edge": 224}), _resized((640, 480), {"height": 10, "width": 20})
    ((298, 224), (20, 10))
    """
    shortest = wanted.get("shortest_edge") if isinstance(wanted, dict) else wanted
    if shortest is None:
        return int(wanted["width"]), int(wanted["height"])
    width, height = size
    if width <= height:
        return int(shortest), int(shortest * height / width)
    return int(shortest * width / height), int(shortest)


def _height_width(size: Any) -> tuple[int, int]:
    return (int(size["height"]), int(size["width"])) if isinstance(size, dict) else (int(size), int(size))


def _pad(tokens: Tokens) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Ids and mask, (texts, longest). Filled up with each text's last token: CLIP reads a text off its first end token."""
    lengths = tokens.lengths
    places = np.arange(int(lengths.max(initial=0)))  # (longest,)
    within = np.minimum(places, lengths[:, None] - 1)  # (texts, longest)
    ids = tokens.ids[tokens.offsets[:-1, None] + within].astype(np.int64)
    return ids, (places < lengths[:, None]).astype(np.int64)


def _require_extra() -> None:
    try:
        import PIL  # noqa: F401
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"CLIP models are run by torch, transformers and Pillow, and {error.name} is not installed: "
            "pip install 'twinrank[images]'."
        ) from error


def _load_network(folder: Path) -> Any:
    """transformers' CLIPModel, ready to run."""
    import torch
    from transformers import CLIPModel

    try:
        network, report = CLIPModel.from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelDamagedError(f"{folder} cannot be opened as a CLIP model: {error}") from error
    if report["missing_keys"]:  # which transformers would make up at random
        raise ModelDamagedError(
            f"{folder} lacks the weights {', '.join(sorted(report['missing_keys'])[:3])}; get the model again."
        )
    return network.eval()
