"""Texts → pieces of an encoder-decoder's vocabulary, and pieces → text: SentencePiece files or tokenizer.json.

Marian checkpoints bring two SentencePiece models and a vocabulary that numbers their pieces; T5-like ones a tokenizer.json or
one spiece.model, whose own numbers are the vocabulary's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from twinrank.errors import InputError, MissingExtraError, ModelDamagedError
from twinrank.models.tokenizer import clean, read_tokenizer
from twinrank.models.weights import read_json

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

PADDED_TO = 128
"""A table of embeddings may have fewer than so many rows more than the vocabulary: sizes are rounded up for fast hardware."""

SPECIALS = frozenset(("<unk>", "<s>", "</s>", "<pad>"))

EXTRA_TOKENS = 100
"""T5's sentinels, <extra_id_99> to <extra_id_0>, which stand after the pieces of spiece.model."""


class Pieces(Protocol):
    """What both kinds do; `source` and `target` are the pieces by number, as many as the tables of embeddings have rows."""

    source: list[str]
    target: list[str]
    files: tuple[Path, ...]

    def split(self, texts: Sequence[str], prefix: str = "") -> list[list[str]]:
        """Pieces of each text after the prefix, uncut, without the end token."""
        ...

    def join(self, pieces: Sequence[str]) -> str:
        """The text that target pieces spell; special ones spell nothing."""
        ...


def read_pieces(folder: Path, config: Mapping[str, Any], *, source_rows: int, target_rows: int) -> Pieces:
    """The vocabulary of a checkpoint, checked against the rows of its embeddings.

    Raises ModelDamagedError where a file is missing or does not fit, MissingExtraError where sentencepiece is not installed.
    """
    if config.get("model_type") == "marian":
        return MarianPieces(folder, source_rows, target_rows)
    return T5Pieces(folder, source_rows)


class MarianPieces:
    """source.spm cuts, vocab.json numbers (with target_vocab.json where the two sides have their own), target.spm joins."""

    def __init__(self, folder: Path, source_rows: int, target_rows: int) -> None:
        names = ["source.spm", "target.spm", "vocab.json"]
        names += ["target_vocab.json"] if (folder / "target_vocab.json").is_file() else []
        self.files = tuple(_present(folder / name) for name in names)
        self._source_model = _read_sentencepiece(self.files[0])
        self._target_model = _read_sentencepiece(self.files[1])
        self.source = _numbered(read_json(self.files[2]), source_rows, self.files[2])
        self.target = self.source if len(names) == 3 else _numbered(read_json(self.files[3]), target_rows, self.files[3])
        if len(self.target) != target_rows:
            raise ModelDamagedError(
                f"{folder} decodes into {target_rows} pieces, but has no target_vocab.json that names them."
            )
        _check_overlap(self._source_model, self.source, self.files[0])
        _check_overlap(self._target_model, self.target, self.files[1])
        self.languages = tuple(piece for piece in self.source if piece.startswith(">>") and piece.endswith("<<"))
        """Target languages of a model for several, as it writes them: `>>fra<<`."""

    def split(self, texts: Sequence[str], prefix: str = "") -> list[list[str]]:
        """The prefix of a Marian model is a target language; what else there is to put before a text belongs to the text."""
        if prefix and prefix not in self.languages:
            known = f"this model knows {', '.join(self.languages)}" if self.languages else "this model takes none"
            raise InputError(
                f"The prefix of a Marian model is the target language, such as '>>fra<<'; {known}, not {prefix!r}."
            )
        start = [prefix] if prefix else []
        return [start + pieces for pieces in _sentencepieces(self._source_model, texts)]

    def join(self, pieces: Sequence[str]) -> str:
        return _joined(self._target_model, pieces)


class T5Pieces:
    """tokenizer.json, or the older spiece.model, for both sides."""

    def __init__(self, folder: Path, rows: int) -> None:
        self._model: SentencePieceProcessor | None = None
        if (folder / "tokenizer.json").is_file() or not (folder / "spiece.model").is_file():
            self.files: tuple[Path, ...] = (folder / "tokenizer.json",)
            self._tokenizer = read_tokenizer(folder, "t5", lower_case=False)
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            numbers = self._tokenizer.get_vocab(with_added_tokens=True)
        else:
            self.files = (folder / "spiece.model",)
            self._model = model = _read_sentencepiece(self.files[0])
            numbers = {model.id_to_piece(number): number for number in range(model.get_piece_size())}
            if rows >= len(numbers) + EXTRA_TOKENS:
                numbers |= {f"<extra_id_{EXTRA_TOKENS - 1 - i}>": len(numbers) + i for i in range(EXTRA_TOKENS)}
        self.source = self.target = _numbered(numbers, rows, self.files[0])

    def split(self, texts: Sequence[str], prefix: str = "") -> list[list[str]]:
        prefixed = [clean(prefix + text) for text in texts]
        if self._model is not None:
            return _sentencepieces(self._model, prefixed)
        encodings = self._tokenizer.encode_batch_fast(prefixed, add_special_tokens=False)  # the fast way gives numbers alone
        return [[self.source[number] for number in encoding.ids] for encoding in encodings]

    def join(self, pieces: Sequence[str]) -> str:
        if self._model is not None:
            return _joined(self._model, pieces)
        # By number, because the library decodes numbers alone; those beyond its vocabulary (padding rows) spell nothing.
        numbers = [number for piece in pieces if (number := self._tokenizer.token_to_id(piece)) is not None]
        return str(self._tokenizer.decode(numbers, skip_special_tokens=True)).strip()


def _present(file: Path) -> Path:
    if not file.is_file():
        raise ModelDamagedError(
            f"{file} is missing. A Marian checkpoint has source.spm, target.spm and vocab.json beside its weights; "
            "get the model again, with all its files."
        )
    return file


def _read_sentencepiece(file: Path) -> SentencePieceProcessor:
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError as error:
        raise MissingExtraError(f"{file.name} is read by sentencepiece: pip install twinrank[translate]") from error
    try:
        return SentencePieceProcessor(model_file=str(file))
    except (RuntimeError, OSError) as error:
        raise ModelDamagedError(f"{file} is no SentencePiece model ({error}). Get the model again.") from error


def _sentencepieces(model: SentencePieceProcessor, texts: Sequence[str]) -> list[list[str]]:
    pieces: list[list[str]] = model.encode([clean(text) for text in texts], out_type=str)
    return pieces


def _joined(model: SentencePieceProcessor, pieces: Sequence[str]) -> str:
    """As transformers does: special pieces, the unknown one among them, spell nothing."""
    spelling = [piece for piece in pieces if piece not in SPECIALS]
    return str(model.decode_pieces(spelling)).replace("▁", " ").strip()


def _numbered(numbers: Mapping[str, Any], rows: int, file: Path) -> list[str]:
    """Pieces in the order of their numbers, one for each row of the embeddings; rows beyond the vocabulary get names of no
    piece, which no text is cut into."""
    size = len(numbers)
    if not all(type(number) is int for number in numbers.values()) or sorted(numbers.values()) != list(range(size)):
        raise ModelDamagedError(f"{file} does not number its {size} pieces from 0 to {size - 1}. Get the model again.")
    if not size <= rows < size + PADDED_TO:
        raise ModelDamagedError(
            f"{file} has {size} pieces, but the network has embeddings of {rows}. The two are not of one model; "
            "get the model again."
        )
    return [*sorted(numbers, key=numbers.__getitem__), *(f"<unused_{number}>" for number in range(size, rows))]


def _check_overlap(model: SentencePieceProcessor, vocabulary: Sequence[str], file: Path) -> None:
    """Refuse a SentencePiece model of another checkpoint, whose pieces would all be unknown."""
    count = model.get_piece_size()
    known = set(vocabulary)
    missing = sum(model.id_to_piece(number) not in known for number in range(count))
    if missing > count // 2:
        raise ModelDamagedError(
            f"{missing} of the {count} pieces of {file} are not in the vocabulary beside it. The two are not of one model; "
            "get the model again."
        )
