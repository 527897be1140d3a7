"""Translator: an encoder reads a text, a decoder writes another, piece by piece: translations, summaries.

Sutskever et al. 2014, Vaswani et al. 2017. MarianMT and T5-like checkpoints, run by CTranslate2 (`twinrank[translate]`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from twinrank.errors import InputError, MissingExtraError, ModelDamagedError, ModelUnsupportedError, TruncationWarning
from twinrank.models import hub
from twinrank.models.checkpoint import Checkpoint
from twinrank.models.conversion import (
    FAMILIES,
    LAYOUT,
    TranslatorPrecision,
    converted,
    read_sizes,
    read_suppressed,
    special_token,
)
from twinrank.models.kinds import read_kind, read_modules, require_kind
from twinrank.models.pieces import read_pieces
from twinrank.models.runtime import Progress
from twinrank.models.weights import read_json, weight_files
from twinrank.text import Span, chunk, sentences

log = logging.getLogger("twinrank")

Split: TypeAlias = Literal["sentences", "length"]
"""Where a text is cut: after every sentence, or only where it is too long, and then into as few parts as hold it."""

LONGEST = 512
"""Pieces, of a text or of its translation, where neither checkpoint nor caller says."""

PIECES_AT_ONCE = 512
"""Source pieces, padding included, that are translated in one call. Every beam of every text has a score for every piece of the
vocabulary: with 25 texts, 4 beams and 60,000 pieces 24 MB. Batches of twice and thrice as many were no faster on one thread."""

PATIENCE = 3
"""Without early stopping transformers searches until no unfinished translation can better the worst of the `beams` best
finished; CTranslate2 until `beams` times a factor (Kasai et al. 2022) are finished. At 3 both gave the same 160 of 160
translations by opus-mt-en-fr (at 2: 159), for 1.4 times the time of early stopping, in which the two always agree."""

SHORTEST_ROOM = 8
"""Pieces that must be left for a text beside its prefix: fewer cannot hold a sentence."""

FULL_WIDTH_END = re.compile("[。！？…」』）]$")


@dataclass(frozen=True, slots=True)
class Translation:
    """What was made of one text."""

    text: str
    score: float
    """The mean log-probability of its pieces, the end token included: 0 is certain. Lengths are evened out."""
    finished: bool
    """Whether the model wrote its end token; else it was stopped at `max_length`, and the text breaks off."""
    pieces: tuple[str, ...] = ()
    """What the decoder wrote, without the end token; of a text in several parts, end to end."""


@dataclass(frozen=True, slots=True)
class Search:
    """How the decoder looks for a translation."""

    beams: int = 4
    """Unfinished translations kept at every step; 1 is greedy."""
    max_length: int = LONGEST
    """The most pieces of one translation, the end token included."""
    length_penalty: float = 1.0
    """Translations are compared by log-probability / length ** penalty (Wu et al. 2016): above 1 longer ones win."""
    repetition_penalty: float = 1.0
    """Above 1, pieces that were already written become less probable (Keskar et al. 2019)."""
    no_repeat_ngram: int = 0
    """Runs of so many pieces are never written twice; 0 allows all."""
    early_stopping: bool = False
    """Whether the first `beams` finished translations are enough, or PATIENCE times as many are looked at for the best."""

    def __post_init__(self) -> None:
        for name, least in (("beams", 1), ("max_length", 1), ("no_repeat_ngram", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise InputError(f"{name} is {value!r}; a whole number of at least {least} was expected.")
        for name in ("length_penalty", "repetition_penalty"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
                raise InputError(f"{name} is {value!r}; a number of at least 0 was expected.")
        if self.repetition_penalty == 0:
            raise InputError("repetition_penalty is 0, which no probability can be divided by; 1 changes nothing.")


@dataclass(frozen=True, slots=True)
class _Output:
    """What the decoder wrote for one segment, and its log-probability, the sum over the pieces and the end token."""

    pieces: tuple[str, ...]
    log_probability: float
    finished: bool

    @property
    def length(self) -> int:
        return len(self.pieces) + self.finished


class Translator:
    """Texts → texts: `Translator("Helsinki-NLP/opus-mt-en-fr").translate(["The weather is beautiful."])`.

    `prefix` is put before every text: the task that a T5-like model was trained on ("translate English to French: ",
    "summarize: "; `prefixes` holds those that the checkpoint names), or the target language of a Marian model for several
    (">>fra<<"). `max_tokens` is the most pieces that are read at once, prefix and end token included.

    No part of a text is dropped. A text is cut into sentences (`split="sentences"`, for Marian, which was trained on pairs of
    sentences and skips some of a paragraph's), each translated by itself and put back between the white space that stood
    around it; or (`split="length"`, for T5-like models, whose task may need the whole) only where it is longer than
    `max_tokens`, between sentences. A sentence beyond `max_tokens` is cut between words either way.

    The checkpoint is converted on first use, without torch, into the user's cache folder. `precision` "auto" is int8.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        precision: Literal["auto", "int8", "fp32"] = "auto",
        threads: int | None = None,
        prefix: str | None = None,
        max_tokens: int | None = None,
        split: Split | None = None,
    ) -> None:
        if threads is not None and threads < 1:
            raise InputError(f"threads is {threads}; at least 1 was expected.")
        found = hub.find_folder(model)
        config = _read_config(found, model)
        self.threads = threads
        self.name = found.name
        self.family = str(config["model_type"])
        self.prefix = prefix or ""
        self.prefixes = _read_prefixes(config)
        """Task → prefix, as the checkpoint states them."""
        self.precision: TranslatorPrecision = _checked_precision(precision)
        self.split = _checked_split(split, self.family)
        engine = _import_engine()
        sizes = read_sizes(config, found.folder / "config.json")
        self._pieces = read_pieces(found.folder, config, source_rows=sizes.source_rows, target_rows=sizes.target_rows)
        self._end = special_token(config, "eos_token_id", self._pieces)
        self._suppressed = read_suppressed(found.folder, config, self._pieces)
        self._positions = sizes.positions
        self.max_tokens = _checked_limit(max_tokens, found.folder, sizes.positions, self.name)
        self._room = self.max_tokens - 1 - self._prefix_length()
        if self._room < SHORTEST_ROOM:
            raise InputError(
                f"max_tokens={self.max_tokens} leaves {self._room} pieces for a text beside its prefix and the end token; "
                f"at least {SHORTEST_ROOM} are needed."
            )
        generation = _read_optional(found.folder / "generation_config.json")
        self.max_length = _read_max_length(generation, sizes.positions)
        """The most pieces of a translation where the caller gives no limit."""
        self.early_stopping = generation.get("early_stopping") is True
        if not self.prefix and (languages := getattr(self._pieces, "languages", ())):
            log.warning("%s writes %s; it chooses one by itself unless `prefix` names it", self.name, ", ".join(languages))
        key = _checkpoint_hash(found, self._pieces.files)
        settings = [key, self.prefix, self.max_tokens, self.split]
        self.fingerprint = f"{hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]}:{self.precision}"
        folder = converted(key, found.folder, config, sizes, self._pieces, self.precision)
        self._network = engine.Translator(
            str(folder),
            device="cpu",
            compute_type="int8" if self.precision == "int8" else "float32",
            inter_threads=1,
            intra_threads=threads or 0,
        )

    def __repr__(self) -> str:
        prefix = f", prefix={self.prefix!r}" if self.prefix else ""
        return f"Translator({self.name!r}{prefix}, {self.family}, {self.precision} by ctranslate2)"

    def translate(
        self,
        texts: Sequence[str],
        *,
        beams: int = 4,
        max_length: int | None = None,
        length_penalty: float = 1.0,
        repetition_penalty: float = 1.0,
        no_repeat_ngram: int = 0,
        early_stopping: bool | None = None,
        progress: Progress | None = None,
    ) -> list[str]:
        """The translation of each text, in the order of the texts; equal texts are translated once, empty ones stay empty.

        The options are those of `Search`; `max_length` is for each part where a text is cut, by default `self.max_length`.
        A TruncationWarning counts the translations that were stopped there; `generate` says which.
        """
        search = self._search(beams, max_length, length_penalty, repetition_penalty, no_repeat_ngram, early_stopping)
        translations = self._generate(texts, search, progress)
        _warn_unfinished(translations, search.max_length)
        return [translation.text for translation in translations]

    def generate(
        self,
        texts: Sequence[str],
        *,
        beams: int = 4,
        max_length: int | None = None,
        length_penalty: float = 1.0,
        repetition_penalty: float = 1.0,
        no_repeat_ngram: int = 0,
        early_stopping: bool | None = None,
        progress: Progress | None = None,
    ) -> list[Translation]:
        """As `translate`, with the score of each translation and whether the model ended it."""
        search = self._search(beams, max_length, length_penalty, repetition_penalty, no_repeat_ngram, early_stopping)
        translations = self._generate(texts, search, progress)
        _warn_unfinished(translations, search.max_length)
        return translations

    def _search(
        self, beams: int, max_length: int | None, length: float, repetition: float, ngram: int, early: bool | None
    ) -> Search:
        """The options checked, with the checkpoint's own where the caller gave none."""
        most = self.max_length if max_length is None else max_length
        search = Search(beams, most, length, repetition, ngram, self.early_stopping if early is None else early)
        if self._positions and search.max_length > self._positions:
            raise InputError(f"{self.name} writes at most {self._positions} pieces; max_length={max_length} was asked for.")
        return search

    def _generate(self, texts: Sequence[str], search: Search, progress: Progress | None) -> list[Translation]:
        _check_texts(texts)
        cut = {text: self._cut(text) for text in dict.fromkeys(texts)}
        segments = list(dict.fromkeys(text[start:end] for text, spans in cut.items() for start, end in spans))
        outputs = self._decode(segments, search, progress)
        made = {text: self._assembled(text, spans, outputs) for text, spans in cut.items()}
        return [made[text] for text in texts]

    # -- cutting and joining ---------------------------------------------------------------------------------------------

    def _cut(self, text: str) -> list[Span]:
        """The spans of a text that are translated one by one; white space lies between them, or nothing."""
        if not text.strip():
            return []
        whole = sentences(text) if self.split == "sentences" else [(0, len(text))]
        return [span for start, end in whole for span in self._fitting(text, start, end)]

    def _fitting(self, text: str, start: int, end: int) -> Iterator[Span]:
        """Parts of a stretch, trimmed, that fit `max_tokens`."""
        stretch = text[start:end]
        if not stretch.strip():
            return
        if len(stretch) == 1 or self._count(stretch) <= self._room:
            start += len(stretch) - len(stretch.lstrip())
            yield start, start + len(stretch.strip())
            return
        parts = chunk(stretch, token_spans=self._token_spans, size=self._room)
        if len(parts) == 1:  # in scripts without spaces the places of tokens are estimates
            middle = len(stretch) // 2
            parts = [(0, middle), (middle, len(stretch))]
        for begin, stop in parts:
            yield from self._fitting(text, start + begin, start + stop)

    def _count(self, text: str) -> int:
        return len(self._pieces.split([text])[0])

    def _token_spans(self, text: str) -> list[Span]:
        """Where the pieces of a text lie, about: a word's share it evenly, because no piece crosses white space."""
        words = list(re.finditer(r"\S+", text))
        counts = map(len, self._pieces.split([word[0] for word in words]))
        return [
            (word.start() + i * len(word[0]) // count, word.start() + (i + 1) * len(word[0]) // count)
            for word, count in zip(words, counts, strict=True)
            for i in range(count)
        ]

    def _assembled(self, text: str, spans: Sequence[Span], outputs: Mapping[str, _Output]) -> Translation:
        """The parts of a text's translation between the white space of the original."""
        written, end = "", 0
        parts = [outputs[text[start:stop]] for start, stop in spans]
        for part, (start, stop) in zip(parts, spans, strict=True):
            joined = self._pieces.join(part.pieces)
            if written and joined:
                gap = text[end:start] or " "
                written += "" if gap == " " and FULL_WIDTH_END.search(written) else gap
            written, end = written + joined, stop
        length = sum(part.length for part in parts)
        return Translation(
            text=written,
            score=sum(part.log_probability for part in parts) / length if length else 0.0,
            finished=all(part.finished for part in parts),
            pieces=tuple(piece for part in parts for piece in part.pieces),
        )

    # -- the network -----------------------------------------------------------------------------------------------------

    def _prefix_length(self) -> int:
        return len(self._pieces.split([""], self.prefix)[0])

    def _decode(self, segments: Sequence[str], search: Search, progress: Progress | None) -> dict[str, _Output]:
        """Segments of like length together, the longest first, so that what needs most memory fails at the start."""
        sources = [[*pieces, self._end] for pieces in self._pieces.split(segments, self.prefix)]
        order = sorted(range(len(segments)), key=lambda i: -len(sources[i]))
        outputs: dict[str, _Output] = {}
        for batch in _batches(order, sources):
            for number, output in zip(batch, self._run([sources[i] for i in batch], search), strict=True):
                outputs[segments[number]] = output
            if progress is not None:
                progress(len(outputs), len(segments))
        return outputs

    def _run(self, sources: list[list[str]], search: Search) -> list[_Output]:
        results = self._network.translate_batch(
            sources,
            beam_size=search.beams,
            patience=1 if search.early_stopping else PATIENCE,
            length_penalty=search.length_penalty,
            repetition_penalty=search.repetition_penalty,
            no_repeat_ngram_size=search.no_repeat_ngram,
            max_decoding_length=search.max_length,
            min_decoding_length=0,  # the end token alone is an answer too
            max_input_length=0,
            suppress_sequences=self._suppressed or None,
            return_end_token=True,
            return_scores=True,
        )
        return [self._output(result, search) for result in results]

    def _output(self, result: Any, search: Search) -> _Output:
        pieces, score = tuple(result.hypotheses[0]), float(result.scores[0])
        if not math.isfinite(score):
            raise ModelDamagedError(f"{self.name} gave NaN or infinity; its weights cannot be used in {self.precision}.")
        finished = bool(pieces) and pieces[-1] == self._end
        return _Output(pieces[:-1] if finished else pieces, score * len(pieces) ** search.length_penalty, finished)


def _batches(order: Sequence[int], sources: Sequence[Sequence[str]]) -> Iterator[list[int]]:
    """Runs of `order`, longest first, of at most PIECES_AT_ONCE pieces each, padding to the first counted."""
    first = 0
    while first < len(order):
        last = first + max(1, PIECES_AT_ONCE // len(sources[order[first]]))
        yield list(order[first:last])
        first = last


def _warn_unfinished(translations: Sequence[Translation], max_length: int) -> None:
    if stopped := sum(not translation.finished for translation in translations):
        warnings.warn(
            f"{stopped} of {len(translations)} translations did not end within {max_length} pieces and were stopped there. "
            "Raise max_length; where a text repeats itself, give repetition_penalty or no_repeat_ngram.",
            TruncationWarning,
            stacklevel=3,
        )


# -- opening -----------------------------------------------------------------------------------------------------------


def _read_config(found: hub.Found, model: str | os.PathLike[str]) -> dict[str, Any]:
    """config.json of an encoder-decoder that is run here; else the error that names the right class."""
    file = found.folder / "config.json"
    if not file.is_file():  # a router, or a folder of modules
        require_kind(found.name, read_kind(found.folder, read_modules(found.folder)), "Translator")
    config = read_json(file)
    if config.get("auto_map"):
        raise ModelUnsupportedError(
            f"{found.folder} comes with its own Python code (auto_map in config.json, what trust_remote_code is for). twinrank "
            f"runs no code from a model. Choose one of the families {', '.join(FAMILIES)}."
        )
    family = config.get("model_type")
    if family in FAMILIES:
        weight_files(found.folder)
        return config
    if not config.get("is_encoder_decoder"):
        Checkpoint.find(model).require("Translator")
    raise ModelUnsupportedError(
        f"{found.folder} is an encoder-decoder of the family {family!r}; run here are {', '.join(FAMILIES)}."
    )


def _read_prefixes(config: Mapping[str, Any]) -> dict[str, str]:
    tasks = config.get("task_specific_params")
    tasks = tasks if isinstance(tasks, dict) else {}
    return {
        str(task): str(values["prefix"]) for task, values in tasks.items() if isinstance(values, dict) and "prefix" in values
    }


def _checkpoint_hash(found: hub.Found, files: Sequence[Path]) -> str:
    """16 hex digits over everything that the conversion reads; the weights are compared with their known hash, if any."""
    weights = weight_files(found.folder)
    if found.sha256 is not None and (actual := hub.file_hash(weights[0])) != found.sha256:
        raise ModelDamagedError(
            f"{weights[0]} has SHA-256 {actual}, but {found.name} has {found.sha256}: the file is damaged or another one. "
            "Remove it and get the model again."
        )
    sources = [*weights, found.folder / "config.json", *files]
    return hashlib.sha256(json.dumps([LAYOUT, *map(hub.file_hash, sources)]).encode()).hexdigest()[:16]


def _read_optional(file: Path) -> dict[str, Any]:
    return read_json(file) if file.is_file() else {}


def _read_max_length(generation: Mapping[str, Any], positions: int) -> int:
    """The checkpoint's own limit where it states one; transformers' default of 20 is no statement and not taken over."""
    stated = generation.get("max_length")
    length = stated if type(stated) is int and stated > 20 else LONGEST
    return min(length, positions or length)


def _checked_limit(max_tokens: int | None, folder: Path, positions: int, name: str) -> int:
    if max_tokens is None:
        stated = _read_optional(folder / "tokenizer_config.json").get("model_max_length")
        limit = int(stated) if isinstance(stated, (int, float)) and 1 <= stated <= 1 << 20 else LONGEST
        return min(limit, positions or limit)
    if max_tokens < 1 or (positions and max_tokens > positions):
        raise InputError(f"{name} reads 1 to {positions or 'any number of'} pieces; max_tokens={max_tokens} was asked for.")
    return max_tokens


def _checked_precision(precision: str) -> TranslatorPrecision:
    if precision not in ("auto", "int8", "fp32"):
        raise InputError(f"Unknown precision {precision!r}; choose auto, int8 or fp32.")
    return "fp32" if precision == "fp32" else "int8"


def _checked_split(split: Split | None, family: str) -> Split:
    if split is not None and split not in get_args(Split):
        raise InputError(f"Unknown split {split!r}; choose {' or '.join(get_args(Split))}.")
    return split or ("sentences" if family == "marian" else "length")


def _check_texts(texts: Sequence[str]) -> None:
    if isinstance(texts, str):
        raise InputError("One text was given where several were expected; put it into a list.")
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"Text {number} is a {type(text).__name__}, {str(text)[:40]!r}; a str was expected.")


def _import_engine() -> Any:
    try:
        import ctranslate2
    except ImportError as error:
        raise MissingExtraError("Translators are run by CTranslate2: pip install twinrank[translate]") from error
    return ctranslate2
