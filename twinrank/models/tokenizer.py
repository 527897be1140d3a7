"""Texts and pairs of texts → packed token ids, with special tokens, cut to a limit, and what was cut off counted."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from twinrank.errors import InputError, ModelDamagedError, ModelUnsupportedError
from twinrank.models.packing import pack
from twinrank.types import Tokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Ids = npt.NDArray[np.int32]

TEXTS_AT_ONCE = 512
"""Texts handed to the tokenizer in one call: its own records are some 60 bytes a token, ours 4."""

LONE_SURROGATES = re.compile("[\ud800-\udfff]")

WORDPIECE_FAMILIES = ("bert", "distilbert", "electra")


class Windows(NamedTuple):
    """Pairs whose second texts were split into windows."""

    tokens: Tokens
    pairs: npt.NDArray[np.int64]
    """(windows,): the pair that each is of; a pair's windows stand together, in order."""
    spans: npt.NDArray[np.int64]
    """(windows, 2): the characters (start, end) of the second text that each holds."""


class TextTokenizer:
    """A checkpoint's tokenizer with its special tokens and its limit.

    Special tokens are put around here, and not by the library, because what is cut off is to be counted.
    """

    def __init__(self, tokenizer: Tokenizer, *, max_tokens: int, lower_case: bool = False, types: bool = False) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        if lower_case:
            _lower_first(tokenizer)
        self.max_tokens = max_tokens
        self._tokenizer = tokenizer
        self._types = types
        self._frame = _read_frame(tokenizer, texts=1)  # special tokens before, after
        self._pair_frame = _read_frame(tokenizer, texts=2)  # before, between, after
        if self.special_tokens >= max_tokens:
            raise InputError(f"A limit of {max_tokens} tokens leaves no room beside {self.special_tokens} special tokens.")

    @property
    def vocabulary(self) -> int:
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    @property
    def special_tokens(self) -> int:
        """How many special tokens stand around one text."""
        return sum(len(ids) for ids, _ in self._frame)

    @property
    def special_before(self) -> int:
        """How many of them stand before it."""
        return len(self._frame[0][0])

    @property
    def native(self) -> Tokenizer:
        """The library's own tokenizer."""
        return self._tokenizer

    def encode(self, texts: Sequence[str], prompt: str = "") -> Tokens:
        """Tokens of each text after its prompt; an empty text is the special tokens alone."""
        (before, _), (after, _) = self._frame
        room = self.max_tokens - len(before) - len(after)
        dropped = np.zeros(len(texts), np.int32)
        sequences = []
        for number, ids in enumerate(self._plain_ids(texts, prompt)):
            dropped[number] = max(0, len(ids) - room)
            sequences.append(np.concatenate([before, ids[:room], after]))
        packed = pack(sequences)
        return Tokens(packed.ids, packed.offsets, None, dropped if dropped.any() else None)

    def encode_pairs(self, pairs: Sequence[tuple[str, str]]) -> Tokens:
        """Tokens of `[CLS] first [SEP] second [SEP]`; the longer of the two is cut, as transformers' longest_first does.

        A first text of less than half the room, as queries are, is never cut. Each distinct text is tokenized once.
        """
        plain, room = self._distinct_ids(pairs), self._pair_room()
        dropped = np.zeros(len(pairs), np.int32)
        cut = []
        for number, (first, second) in enumerate(pairs):
            a, b = plain[first], plain[second]
            keep_a, keep_b = longest_first(len(a), len(b), room)
            dropped[number] = len(a) - keep_a + len(b) - keep_b
            cut.append((a[:keep_a], b[:keep_b]))
        return self._framed(cut, dropped)

    def encode_windows(self, pairs: Sequence[tuple[str, str]]) -> Windows:
        """Tokens of `[CLS] first [SEP] window [SEP]` for overlapping windows that together cover each second text.

        A quarter of each window is in the next one too; the last one ends with the text. A pair that fits is one window. A
        first text is cut where it takes more than half of the room; `dropped` counts that, once for each window.
        """
        plain, room = self._distinct_ids(pairs), self._pair_room()
        cut, dropped, owners, spans = [], [], [], []
        for number, (first, second) in enumerate(pairs):
            a, b = plain[first], plain[second]
            keep = min(len(a), max(room // 2, room - len(b)))
            starts = window_starts(len(b), room - keep)
            offsets = self.offsets(second) if len(starts) > 1 else []
            for start in starts:
                end = min(len(b), start + room - keep)
                cut.append((a[:keep], b[start:end]))
                dropped.append(len(a) - keep)
                owners.append(number)
                spans.append((offsets[start][0], offsets[end - 1][1]) if offsets else (0, len(second)))
        tokens = self._framed(cut, np.array(dropped, np.int32))
        return Windows(tokens, np.array(owners, np.int64), np.array(spans, np.int64).reshape(-1, 2))

    def _distinct_ids(self, pairs: Sequence[tuple[str, str]]) -> dict[str, Ids]:
        """Token ids of every text that is in a pair, each tokenized once."""
        texts = list(dict.fromkeys(text for pair in pairs for text in pair))
        return dict(zip(texts, self._plain_ids(texts), strict=True))

    def _pair_room(self) -> int:
        """Tokens that the two texts of a pair may have together."""
        special = sum(len(ids) for ids, _ in self._pair_frame)
        if self.max_tokens - special < 2:
            raise InputError(f"A limit of {self.max_tokens} tokens leaves no room for a pair beside {special} special tokens.")
        return self.max_tokens - special

    def _framed(self, pairs: Sequence[tuple[Ids, Ids]], dropped: Ids) -> Tokens:
        """Pairs of token ids with the special tokens around them, and types where the network has them."""
        (before, before_type), (between, between_type), (after, after_type) = self._pair_frame
        packed = pack([np.concatenate([before, a, between, b, after]) for a, b in pairs])
        types = None
        if pairs and self._types:
            parts = [
                (before_type, np.zeros(len(a), np.int32), between_type, np.ones(len(b), np.int32), after_type) for a, b in pairs
            ]
            types = np.concatenate([part for pair in parts for part in pair])
        return Tokens(packed.ids, packed.offsets, types, dropped if dropped.any() else None)

    def kept_of_pair(self, pair: tuple[str, str]) -> tuple[int, int]:
        """How many tokens of each text `encode_pairs` keeps."""
        first, second = (len(ids) for ids in self._plain_ids(pair))
        return longest_first(first, second, self._pair_room())

    def count(self, texts: Sequence[str]) -> npt.NDArray[np.int32]:
        """Tokens of each text, without special tokens and uncut: (texts,)."""
        return np.array([len(ids) for ids in self._plain_ids(texts)], np.int32)

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """The characters (start, end) of the text that each of its tokens stands for."""
        offsets: list[tuple[int, int]] = self._tokenizer.encode(clean(_checked(text, 0)), add_special_tokens=False).offsets
        return offsets

    def _plain_ids(self, texts: Sequence[str], prompt: str = "") -> Iterator[Ids]:
        """Token ids of each text without special tokens."""
        cleaned = (clean(prompt + _checked(text, number)) for number, text in enumerate(texts))
        while batch := list(islice(cleaned, TEXTS_AT_ONCE)):
            for encoding in self._tokenizer.encode_batch_fast(batch, add_special_tokens=False):
                yield np.array(encoding.ids, np.int32)


def clean(text: str) -> str:
    """Replace lone surrogates, which no UTF-8 can hold, by U+FFFD; every other character keeps its place.

    >>> clean("a\\ud800b") == "a\\ufffdb"
    True
    """
    return text if text.isascii() else LONE_SURROGATES.sub("\ufffd", text)


def window_starts(length: int, size: int) -> list[int]:
    """Where windows of `size` tokens begin so that they cover `length` tokens and each shares a quarter with the next.

    >>> window_starts(250, 100), window_starts(100, 100), window_starts(0, 100)
    ([0, 75, 150], [0], [0])
    """
    last = max(0, length - size)
    return [*range(0, last, size - size // 4), last]


def longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens of each of two texts are kept: the longer is cut down to the shorter, then both alike.

    >>> longest_first(12, 500, 100), longest_first(80, 500, 101), longest_first(3, 4, 100)
    ((12, 88), (50, 51), (3, 4))
    """
    if first + second <= room:
        return first, second
    short, long = min(first, second), max(first, second)
    short = min(short, room // 2)
    long = room - short
    return (short, long) if first <= second else (long, short)


def read_tokenizer(folder: Path, family: str, *, lower_case: bool = True) -> Tokenizer:
    """The tokenizer of a checkpoint: tokenizer.json, or for WordPiece families the older vocab.txt."""
    from tokenizers import Tokenizer

    file = folder / "tokenizer.json"
    if not file.is_file():
        if (folder / "vocab.txt").is_file() and family in WORDPIECE_FAMILIES:
            return _from_vocabulary(folder / "vocab.txt", lower_case=lower_case)
        raise ModelDamagedError(
            f"{folder} has no tokenizer.json, so its texts cannot be tokenized. Make it once with transformers: "
            "AutoTokenizer.from_pretrained(folder).save_pretrained(folder)."
        )
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises a bare Exception
        raise ModelDamagedError(f"{file} cannot be read ({error}). Get the model again.") from error


def _from_vocabulary(file: Path, *, lower_case: bool) -> Tokenizer:
    """BERT's WordPiece tokenizer (Devlin et al. 2018) over a list of its pieces, one a line."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    pieces = {piece: number for number, piece in enumerate(file.read_text(encoding="utf-8").splitlines())}
    if missing := [special for special in ("[CLS]", "[SEP]", "[UNK]") if special not in pieces]:
        raise ModelDamagedError(f"{file} lacks {', '.join(missing)}; it is no WordPiece vocabulary.")
    tokenizer = Tokenizer(models.WordPiece(pieces, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower_case)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", pieces["[SEP]"]), ("[CLS]", pieces["[CLS]"]))
    tokenizer.add_special_tokens([special for special in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if special in pieces])
    return tokenizer


def _lower_first(tokenizer: Tokenizer) -> None:
    from tokenizers import normalizers

    rest = [tokenizer.normalizer] if tokenizer.normalizer is not None else []
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *rest])


def _read_frame(tokenizer: Tokenizer, texts: int) -> list[tuple[Ids, Ids]]:
    """The special tokens before, between and after one text or two, each run as (ids, types), read off an example."""
    encoding = tokenizer.encode("a", None if texts == 1 else "a")
    length = len(tokenizer.encode("a", add_special_tokens=False).ids)
    ids, types = np.array(encoding.ids, np.int32), np.array(encoding.type_ids, np.int32)
    places = np.flatnonzero(np.array(encoding.special_tokens_mask) == 0)  # of the texts' own tokens
    if length == 0 or len(places) != texts * length or len(places) == len(ids):
        raise ModelUnsupportedError(
            "The tokenizer puts no special tokens around a text; networks of the BERT family need them."
        )
    begins = [0, *(int(place) + 1 for place in places[length - 1 :: length])]
    ends = [*(int(place) for place in places[::length]), len(ids)]
    return [(ids[begin:end], types[begin:end]) for begin, end in zip(begins, ends, strict=True)]


def _checked(text: object, number: int) -> str:
    if not isinstance(text, str):
        raise InputError(f"Text {number} is a {type(text).__name__}, {str(text)[:40]!r}; a str was expected.")
    return text
