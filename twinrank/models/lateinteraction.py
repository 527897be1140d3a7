"""Late interaction: one vector a token; each token of the query looks for its best match in the passage (MaxSim).

Khattab and Zaharia 2020 (ColBERT). A ColBERT checkpoint was trained for it; any bi-encoder does it untrained, by its own token
vectors, in the pass that gives its pooled vector too.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from twinrank.errors import InputError, ModelDamagedError, QueryError
from twinrank.maxsim import maxsim
from twinrank.models.biencoder import BiEncoder, checked_side, checked_texts, warn_truncated
from twinrank.models.checkpoint import DEFAULT_MODEL, Checkpoint
from twinrank.models.colbert import ColbertSettings, SideSettings, read_settings, token_ids
from twinrank.models.expansion import run_expanded
from twinrank.models.heads import apply_steps, check_widths, normalize
from twinrank.models.packing import pack
from twinrank.models.runtime import PrecisionChoice, Progress, open_network, run_network, settled_precision
from twinrank.models.tokenizer import TextTokenizer
from twinrank.models.tokenpooling import pool_tokens, pooled_groups
from twinrank.models.trunk import Network, Precision, Trunk
from twinrank.types import Hit, Scores, Side, Tokens, Vectors

PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
Pair = tuple[str, str]


class Piece(NamedTuple):
    """A token, and the characters of its text that it stands for; none, start = end, of a special token, a prompt, a mask."""

    token: str
    start: int
    end: int


class LateInteraction:
    """Texts → one vector a token: `LateInteraction(model).encode(["A man is eating."])` is a list of one (tokens, dim) array.

    `model` is a ColBERT checkpoint, whose settings are then taken from it, or any bi-encoder's, or an opened BiEncoder, whose
    network is then shared. `query_tokens` and `document_tokens` are the limits, special tokens included. With `pool_factor`
    above 1 that many tokens of a document become about one (see `tokenpooling`).

    Of a bi-encoder, the vectors of its special tokens take no part, nor those of a document's punctuation (chosen on scifact's
    train split, wikiqa and squad); a document of nothing else keeps what it has. A prompt's tokens do take part.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Checkpoint | BiEncoder = DEFAULT_MODEL,
        *,
        precision: PrecisionChoice = "auto",
        threads: int | None = None,
        query_tokens: int | None = None,
        document_tokens: int | None = None,
        pool_factor: float | None = None,
        lazy: bool = False,
    ) -> None:
        if pool_factor is not None and not pool_factor >= 1:
            raise InputError(f"pool_factor is {pool_factor}; give 1 for no pooling, or how many tokens become about one.")
        checkpoint = model._checkpoint if isinstance(model, BiEncoder) else Checkpoint.find(model)
        self.encoder: BiEncoder | None = None
        """The bi-encoder whose token vectors these are; None of a ColBERT."""
        if checkpoint.kind == "BiEncoder":
            self.encoder = model if isinstance(model, BiEncoder) else None
            if self.encoder is None:
                self.encoder = BiEncoder(checkpoint, precision=precision, threads=threads, lazy=lazy)
        self._checkpoint = checkpoint if self.encoder is not None else checkpoint.require("LateInteraction")
        self.name = checkpoint.name
        self.threads = threads
        self.precision: Precision = (
            self.encoder.precision if self.encoder is not None else settled_precision(checkpoint, precision)
        )
        self.settings = self._settle(query_tokens, document_tokens, pool_factor)
        self.max_tokens = self.settings.sides["document"].max_tokens
        self.dimension = check_widths(self.settings.steps, checkpoint.shape.width, self.name)
        told = ["late interaction", self.encoder is not None, repr(self._settings_of_documents())]
        self.fingerprint = f"{checkpoint.fingerprint(*told)}:{self.precision}"
        """Of what makes documents' vectors, and after the colon the precision."""
        if not lazy:
            _ = self._tokenizers, self.network

    def _settle(self, query_tokens: int | None, document_tokens: int | None, pool_factor: float | None) -> ColbertSettings:
        """What the checkpoint says, and what was given in its place."""
        if self.encoder is not None:
            limit = self.encoder.max_tokens
            sides: dict[Side, SideSettings] = {
                side: SideSettings(limit, None, self.encoder.prompts[side]) for side in ("query", "document")
            }
            skipped = token_ids(PUNCTUATION, self._checkpoint.tokenizer().native)
            stated = ColbertSettings(sides, None, skipped, protected=0)
        else:
            stated = read_settings(self._checkpoint, self._checkpoint.tokenizer().native)
        given = {"query": query_tokens, "document": document_tokens}
        limits = {side: _with_limit(settings, given[side], self._checkpoint) for side, settings in stated.sides.items()}
        expansion = stated.expansion
        if expansion is not None and expansion.cut:
            expansion = replace(expansion, length=limits["query"].max_tokens)
        factor = stated.pool_factor if pool_factor is None else float(pool_factor)
        return replace(stated, sides=limits, expansion=expansion, pool_factor=factor)

    def _settings_of_documents(self) -> list[object]:
        settings = self.settings
        skipped = settings.skipped if "document" in settings.skipped_on else ()
        factor = settings.pool_factor if "document" in settings.pooled_on else 1.0
        return [settings.sides["document"], settings.sides["query"].marker, skipped, factor, settings.protected]

    @cached_property
    def _tokenizers(self) -> dict[Side, TextTokenizer]:
        """One a side, each with its limit; a marker takes the place of one token."""
        tokenizers: dict[Side, TextTokenizer] = {}
        for side, settings in self.settings.sides.items():
            room = settings.max_tokens - (settings.marker is not None)
            tokenizers[side] = self._checkpoint.limited_to(room).tokenizer()
        return tokenizers

    @cached_property
    def network(self) -> Network:
        """What runs the trunk."""
        if self.encoder is not None:
            return self.encoder.network
        return open_network(self._checkpoint, self.precision, self.threads)

    @cached_property
    def _trunk(self) -> Trunk:
        """The weights, for queries whose expansion nothing is to see."""
        return self._checkpoint.trunk()

    @cached_property
    def _special(self) -> np.ndarray:
        """The tokens that the tokenizer puts around a text."""
        return np.unique(self._tokenizers["document"].encode([""]).ids)

    def __repr__(self) -> str:
        return f"LateInteraction({self.name!r}, dimension={self.dimension}, {self.precision})"

    # -- texts → tokens --------------------------------------------------------------------------------------------------

    def tokenize(self, texts: Sequence[str], *, side: Side = "document") -> Tokens:
        """Tokens of each text with special tokens, the side's marker and a query's expansion; `dropped` counts what did not
        fit."""
        settings = self.settings.sides[checked_side(side)]
        tokens = self._tokenizers[side].encode(checked_texts(texts), settings.prompt)
        if settings.marker is not None:
            tokens = _with_marker(tokens, settings.marker)
        expansion = self.settings.expansion
        if side == "query" and expansion is not None and len(tokens):
            tokens = _expanded(tokens, expansion.token, expansion.length)
        return tokens

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        """The characters (start, end) of every token of the text, uncut, without prompt and special tokens."""
        return self._tokenizers["document"].offsets(text)

    # -- tokens → vectors ------------------------------------------------------------------------------------------------

    def embed(self, tokens: Tokens, *, side: Side = "document", progress: Progress | None = None) -> list[Vectors]:
        """The unit vectors of each text's tokens, but those that take no part: one (tokens, dimension) array a text."""
        expansion = self.settings.expansion
        if checked_side(side) == "query" and expansion is not None and not expansion.attended:
            hidden: Vectors | None = run_expanded(self.network, lambda: self._trunk, tokens, expansion.token, self.threads)
        else:
            outputs = run_network(self.network, tokens, pooling=None, hidden=True, threads=self.threads, progress=progress)
            hidden = outputs.hidden
        assert hidden is not None
        vectors = normalize(apply_steps(self.settings.steps, hidden))  # (tokens, dimension)
        if not np.isfinite(vectors).all():
            raise ModelDamagedError(f"{self.name} gave vectors with NaN or infinity; its weights cannot be used in float32.")
        return self.select(tokens, vectors, side=side)

    def select(self, tokens: Tokens, vectors: Vectors, *, side: Side = "document") -> list[Vectors]:
        """Of unit vectors packed like the tokens, each text's own that take part, pooled where that is set.

        For both views from one pass: `select(tokens, encoder.embed(tokens, token_vectors=True).token_vectors)`.
        """
        kept = self._taking_part(tokens, side)
        found = []
        for start, end in zip(tokens.offsets[:-1].tolist(), tokens.offsets[1:].tolist(), strict=True):
            chosen = vectors[start:end][kept[start:end]]
            if self.settings.pool_factor > 1 and side in self.settings.pooled_on:
                chosen = pool_tokens(chosen, self.settings.pool_factor, protected=self.settings.protected)
            found.append(chosen)
        return found

    def _taking_part(self, tokens: Tokens, side: Side) -> np.ndarray:
        """Which tokens are compared: (tokens,), at least one of every text."""
        kept = np.ones(len(tokens.ids), np.bool_)
        if not len(tokens):
            return kept
        choices = [kept]  # the less is left out the further to the front
        if self.encoder is not None:
            choices.append(~np.isin(tokens.ids, self._special))
        if side in self.settings.skipped_on:
            choices.append(choices[-1] & ~np.isin(tokens.ids, self.settings.skipped))
        lengths = tokens.lengths
        for choice in choices[1:]:
            some = np.logical_or.reduceat(choice, tokens.offsets[:-1])  # (texts,)
            kept = np.where(np.repeat(some, lengths), choice, kept)
        return kept

    def encode(self, texts: Sequence[str], *, side: Side = "document", progress: Progress | None = None) -> list[Vectors]:
        """The vectors of each text's tokens: one (tokens, dimension) array a text. TruncationWarning, once a call, where texts
        were longer than the side's limit."""
        tokens = self.tokenize(texts, side=side)
        warn_truncated(tokens, self.settings.sides[side].max_tokens)
        return self.embed(tokens, side=side, progress=progress)

    def pieces(self, text: str, *, side: Side = "document") -> list[tuple[Piece, ...]]:
        """What each vector of `encode([text])[0]` stands for: one token, or those that were pooled into it.

        Which were pooled is found by another pass.
        """
        tokens = self.tokenize([text], side=side)
        tokenizer, settings = self._tokenizers[side], self.settings.sides[side]
        prompt = len(settings.prompt)
        offsets = tokenizer.offsets(settings.prompt + text)
        kept = len(offsets) - (0 if tokens.dropped is None else int(tokens.dropped[0]))
        first = tokenizer.special_before + (settings.marker is not None)
        spans = [(0, 0)] * len(tokens.ids)
        spans[first : first + kept] = [(max(start - prompt, 0), max(end - prompt, 0)) for start, end in offsets[:kept]]
        names = [tokenizer.native.id_to_token(number) or "" for number in tokens.ids.tolist()]
        taking_part = self._taking_part(tokens, side).tolist()
        alone = [Piece(name, *span) for name, span, part in zip(names, spans, taking_part, strict=True) if part]
        if self.settings.pool_factor <= 1 or side not in self.settings.pooled_on:
            return [(piece,) for piece in alone]
        unpooled = copy.copy(self)
        unpooled.settings = replace(self.settings, pool_factor=1.0)
        vectors = unpooled.embed(tokens, side=side)[0]
        groups = pooled_groups(vectors, self.settings.pool_factor, protected=self.settings.protected)
        found: list[list[Piece]] = [[] for _ in range(int(groups.max()) + 1)]
        for piece, group in zip(alone, groups.tolist(), strict=True):
            found[group].append(piece)
        return [tuple(group) for group in found]

    # -- pairs → scores --------------------------------------------------------------------------------------------------

    def score(self, pairs: Sequence[Pair], *, progress: Progress | None = None) -> Scores:
        """MaxSim of each (query, passage): (pairs,), larger is more relevant. Each text is encoded once."""
        queries = {query: number for number, query in enumerate(dict.fromkeys(query for query, _ in pairs))}
        passages = {passage: number for number, passage in enumerate(dict.fromkeys(passage for _, passage in pairs))}
        query_vectors = self.encode(list(queries), side="query")
        passage_vectors = self.encode(list(passages), progress=progress)
        scores = [maxsim(query_vectors[queries[query]], [passage_vectors[passages[passage]]])[0] for query, passage in pairs]
        return np.array(scores, dtype=np.float32)

    def rank(self, query: str, passages: Sequence[str], k: int | None = None) -> list[Hit]:
        """The `k` best passages (default: all), best first; a hit's id is the passage's place in the list, as text."""
        if not query.strip():
            raise QueryError("The query is empty; give it some words.")
        if k is not None and k < 1:
            raise QueryError(f"k is {k}; ask for at least 1 hit.")
        scores = self.score([(query, passage) for passage in passages])
        best = np.argsort(-scores, kind="stable")[:k]
        return [
            Hit(id=str(place), score=float(scores[place]), rank=rank, text=passages[place], end=len(passages[place]))
            for rank, place in enumerate(best.tolist(), start=1)
        ]


def _with_limit(settings: SideSettings, given: int | None, checkpoint: Checkpoint) -> SideSettings:
    most = checkpoint.shape.max_tokens
    if given is not None and not 1 <= given <= most:
        raise InputError(f"{checkpoint.name} takes 1 to {most} tokens; {given} were asked for.")
    return replace(settings, max_tokens=min(settings.max_tokens, most) if given is None else given)


def _with_marker(tokens: Tokens, marker: int) -> Tokens:
    """The marker behind the first token of every text."""
    ids = np.insert(tokens.ids, tokens.offsets[:-1] + 1, np.int32(marker))
    offsets = (tokens.offsets + np.arange(len(tokens.offsets))).astype(np.int32)
    return Tokens(ids, offsets, None, tokens.dropped)


def _expanded(tokens: Tokens, mask: int, length: int) -> Tokens:
    """Mask tokens behind every text that is shorter than `length`."""
    texts = np.split(tokens.ids, tokens.offsets[1:-1])
    padded = pack([np.pad(ids, (0, max(0, length - len(ids))), constant_values=mask) for ids in texts])
    return Tokens(padded.ids, padded.offsets, None, tokens.dropped)
