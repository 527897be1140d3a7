"""Passages that look like answers and are none: mined by BM25, by a model or by both, and cleared of answers nobody marked."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from twinrank.errors import InputError, ModelUnsupportedError
from twinrank.index.words import WordIndex
from twinrank.maxsim import maxsim
from twinrank.models import kinds
from twinrank.models.biencoder import BiEncoder
from twinrank.models.lateinteraction import LateInteraction
from twinrank.models.twintower import TwinTower
from twinrank.search.fuse import fuse_by_rank
from twinrank.text import Analyzer, counted
from twinrank.train.data import Example, known_positives, same_text
from twinrank.types import Encoder, Ranking, Scorer, Vectors

By: TypeAlias = Literal["words", "vectors", "both"]
Progress: TypeAlias = Callable[[str, int], None]
AnyEncoder: TypeAlias = Encoder | LateInteraction

QUERIES_AT_ONCE = 256
QUERIES_BY_TOKENS, TEXTS_BY_TOKENS = 4096, 1024
"""Of late interaction, how many are in memory with all their token vectors: some 200 MB each."""
PASSAGES_AT_ONCE = 4096


@dataclass(frozen=True)
class Mining:
    """How negatives are looked for, and what is taken for an answer that nobody marked."""

    by: By = "both"
    """BM25, an encoder's vectors, or both rankings fused by reciprocal rank. Late interaction, which has no vector a passage,
    orders by MaxSim what BM25 found, unless it is words alone."""
    count: int = 4
    """Negatives an example."""
    first: int = 1
    """The best rank, from 1, that a negative may have: what stands above is left out."""
    last: int = 50
    """The worst rank."""
    margin: float | None = None
    """A candidate that scores above (1 - margin) times the best positive is left out as an answer (NV-Retriever, Moreira et al.
    2024). Cosines where vectors rank (of late interaction their mean over the query's tokens), BM25's scores where words alone
    do. None: 0.05 for cosines, and no such filter for BM25, whose scores say little about that. -1 leaves nothing out."""
    alike: float = 0.8
    """A candidate that has so large a share of its words in common with a positive (Jaccard) is left out as its twin."""
    judge_margin: float = 0.0
    """Where a judge is given: how far below the best positive a candidate has to be, in the judge's own scores."""
    draw: Literal["top", "random"] = "random"
    """Which of the window's: its best, or any, each with the same chance."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.by not in get_args(By):
            raise InputError(f"negatives are mined by {', '.join(get_args(By))}; got {self.by!r}")
        if self.count < 1 or not 1 <= self.first <= self.last:
            raise InputError(
                f"expected a count of 1 or more and ranks first <= last from 1; got {self.count}, {self.first} to {self.last}"
            )
        if self.margin is not None and not -1 <= self.margin < 1:
            raise InputError(f"a margin is a share of the positive's score, 0 to 1, or -1 for none; got {self.margin}")


@dataclass
class Tally:
    """What a mining looked at."""

    examples: int = 0
    candidates: int = 0
    known: int = 0
    """Left out as known positives: by their text, whoever's example they are of; or as of the query's own document."""
    twins: int = 0
    margin: int = 0
    judged: int = 0
    """Left out by the judge."""
    negatives: int = 0
    without: int = 0
    """Examples that found no negative."""

    def as_json(self) -> dict[str, int]:
        return asdict(self)

    def __str__(self) -> str:
        gone = f"{self.known:,} known positives, {self.twins:,} twins of one"
        gone += f", {self.margin:,} by margin, {self.judged:,} by the judge"
        without = f"; {counted(self.without, 'example')} without any" if self.without else ""
        return (
            f"{self.negatives:,} negatives for {counted(self.examples, 'example')}{without}; "
            f"of {self.candidates:,} candidates left out: {gone}"
        )


class Miner:
    """Examples → the same with negatives out of one set of passages; called again with a better encoder, harder ones.

    `known` says of queries which passages answer them beyond the examples' own positives; where examples say which document
    they are of, the positives of all examples of a document are no negatives of any of them. With a `judge`, a cross-encoder, a
    candidate that it thinks as good as the positive is left out. The same seed, encoder and round find the same negatives.

    >>> passages = ["Zinc may shorten a cold.", "Honey eases a cough.", "A cold is caught from others.", "Rest helps."]
    >>> miner = Miner(passages, Mining(by="words", count=1))
    >>> [found] = miner.mine([Example("zinc for a cold", (passages[0],))])
    >>> found.negatives
    ('A cold is caught from others.',)
    """

    def __init__(
        self,
        passages: Sequence[str],
        mining: Mining | None = None,
        *,
        judge: Scorer | None = None,
        known: Mapping[str, set[str]] | None = None,
    ) -> None:
        places: dict[str, int] = {}
        for place, passage in enumerate(passages):
            if passage.strip():
                places.setdefault(same_text(passage), place)
        if not places:
            raise InputError("there are no passages to mine negatives from")
        self.passages = [passages[place] for place in places.values()]  # (passages,)
        """Each text once."""
        self.mining = mining or Mining()
        self.tally = Tally()
        """Of the last mining."""
        self._places = list(places.values())
        self._keys = {text: key for key, text in enumerate(places)}
        self._judge = judge
        self._known = {same_text(query): set(map(same_text, texts)) for query, texts in (known or {}).items()}
        self._analyze = Analyzer()

    def mine(
        self,
        examples: Sequence[Example],
        encoder: AnyEncoder | str | os.PathLike[str] | None = None,
        *,
        vectors: Vectors | None = None,
        number: int = 0,
        progress: Progress | None = None,
    ) -> list[Example]:
        """The examples in their order, with new negatives in place of those they had; a teacher's scores go with these.

        `encoder` is a model or the folder of a checkpoint: a bi-encoder, twin tower or late interaction; words alone need none.
        An example for which nothing was found is left without negatives, and one that has no answer keeps its own. `vectors`
        are those that the encoder made of the passages as they were given, where they are there already: (passages, dimension).
        `number` is of the round, where examples are mined for again: each draws others. `progress` is told ("passages" or
        "queries", how many more are done).
        """
        told = progress or (lambda name, done: None)
        opened = None if self.mining.by == "words" else open_encoder(encoder)
        self.tally = Tally(examples=len(examples))
        known = self._answers(examples)
        draw = np.random.default_rng([self.mining.seed, number])
        mined = []
        asked = [example for example in examples if example.positives]
        for example, candidates in zip(asked, self._candidates(asked, opened, vectors, told), strict=True):
            chosen = self._choose(example, candidates, known[same_text(example.query)], draw)
            self.tally.negatives += len(chosen)
            self.tally.without += not chosen
            mined.append(replace(example, negatives=tuple(self.passages[key] for key in chosen), scores=None))
        found = iter(mined)
        return [next(found) if example.positives else replace(example, scores=None) for example in examples]

    def _answers(self, examples: Sequence[Example]) -> dict[str, set[str]]:
        """Query → passages that may answer it, both as `same_text` has them."""
        known = known_positives(examples)
        for query, texts in self._known.items():
            known.setdefault(query, set()).update(texts)
        documents: dict[str, set[str]] = {}
        for example in examples:
            documents.setdefault(example.document, set()).update(map(same_text, example.positives))
        for example in examples:
            if example.document:
                known[same_text(example.query)] |= documents[example.document]
        return known

    # -- candidates ------------------------------------------------------------------------------------------------------

    def _candidates(
        self, examples: Sequence[Example], encoder: AnyEncoder | None, given: Vectors | None, told: Progress
    ) -> Iterator[_Candidates]:
        if isinstance(encoder, LateInteraction):
            for start in range(0, len(examples), QUERIES_BY_TOKENS):
                block = examples[start : start + QUERIES_BY_TOKENS]
                yield from self._by_tokens(block, encoder, told)
                told("queries", len(block))
            return
        vectors = None
        if encoder is not None:  # (passages, dimension)
            vectors = _encoded(encoder, self.passages, told) if given is None else _unit(given[self._places])
        for start in range(0, len(examples), QUERIES_AT_ONCE):
            block = examples[start : start + QUERIES_AT_ONCE]
            words = self._by_words(block) if self.mining.by != "vectors" else []
            if encoder is None or vectors is None:
                yield from words
            else:
                dense = self._by_vectors(block, encoder, vectors)
                yield from (_fused(*both) for both in zip(dense, words, strict=True)) if words else dense
            told("queries", len(block))

    @property
    def _depth(self) -> int:
        """Ranks that are looked at: the window, and room for the positives, which take no rank."""
        return min(len(self.passages), 2 * self.mining.last + 16)

    def _by_words(self, examples: Sequence[Example]) -> list[_Candidates]:
        found = []
        for example in examples:
            terms = self._analyze(example.query)
            ranking = self._words.search(terms, self._depth)
            margin = self.mining.margin
            best = 0.0
            if self.mining.by == "words" and margin is not None and margin >= 0:
                keys = self._keys_of(example.positives)
                positives = self._words.search(terms, len(keys), np.array(keys, np.int64)) if keys else Ranking.empty()
                best = float(positives.scores[0]) if len(positives) else 0.0
            found.append(_Candidates(ranking, (1 - (margin or 0)) * best if best > 0 else np.inf))
        return found

    def _by_tokens(self, examples: Sequence[Example], encoder: LateInteraction, told: Progress) -> list[_Candidates]:
        """What words found, ordered by MaxSim; each passage is encoded once for all these queries."""
        words = [candidates.ranking for candidates in self._by_words(examples)]
        asked: dict[str, list[int]] = {}  # text → the rows of the examples that it is compared with
        for row, (example, ranking) in enumerate(zip(examples, words, strict=True)):
            for text in dict.fromkeys([*(self.passages[key] for key in ranking.keys.tolist()), *example.positives]):
                asked.setdefault(text, []).append(row)
        queries = encoder.embed(encoder.tokenize([one.query for one in examples], side="query"), side="query")
        similar: list[dict[str, float]] = [{} for _ in examples]  # mean cosine of the query's tokens, by passage
        texts = list(asked)
        for start in range(0, len(texts), TEXTS_BY_TOKENS):
            part = texts[start : start + TEXTS_BY_TOKENS]
            for text, tokens in zip(part, encoder.embed(encoder.tokenize(part)), strict=True):
                for row in asked[text]:
                    similar[row][text] = float(maxsim(queries[row], [tokens])[0]) / len(queries[row])
            told("passages", len(part))
        margin = 0.05 if self.mining.margin is None else self.mining.margin
        found = []
        for example, ranking, own in zip(examples, words, similar, strict=True):
            scores = np.array([own[self.passages[key]] for key in ranking.keys.tolist()], np.float32)
            best = max(own[text] for text in example.positives)
            found.append(_Candidates(Ranking.of(ranking.keys, scores), np.inf if margin < 0 else best - margin * abs(best)))
        return found

    def _by_vectors(self, examples: Sequence[Example], encoder: Encoder, vectors: Vectors) -> list[_Candidates]:
        queries = _unit(encoder.embed(encoder.tokenize([example.query for example in examples], side="query"), side="query"))
        scores = queries @ vectors.T  # (queries, passages)
        depth = self._depth
        best = np.argpartition(-scores, depth - 1, axis=1)[:, :depth] if depth < scores.shape[1] else None
        margin = 0.05 if self.mining.margin is None else self.mining.margin
        found = []
        positives = self._positive_scores(examples, encoder, queries, scores)
        for row, example_scores in enumerate(scores):
            keys = np.arange(len(example_scores)) if best is None else best[row]
            ceiling = np.inf if margin < 0 else positives[row] - margin * abs(positives[row])
            found.append(_Candidates(Ranking.of(keys, example_scores[keys]), ceiling))
        return found

    def _positive_scores(
        self, examples: Sequence[Example], encoder: Encoder, queries: Vectors, scores: Vectors
    ) -> npt.NDArray[np.float64]:
        """The cosine of every query with the best of its positives, which may be none of the passages: (queries,)."""
        known = [self._keys_of(example.positives) for example in examples]
        absent = [[text for text in example.positives if same_text(text) not in self._keys] for example in examples]
        texts = [text for one in absent for text in one]
        others = _unit(encoder.embed(encoder.tokenize(texts))) if texts else np.empty((0, queries.shape[1]), np.float32)
        best, at = np.full(len(examples), -np.inf), 0
        for row, (keys, missing) in enumerate(zip(known, absent, strict=True)):
            values = [*scores[row, keys].tolist(), *(others[at : at + len(missing)] @ queries[row]).tolist()]
            best[row] = max(values)
            at += len(missing)
        return best

    def _keys_of(self, texts: Sequence[str]) -> list[int]:
        return [self._keys[same] for same in map(same_text, texts) if same in self._keys]

    @cached_property
    def _words(self) -> WordIndex:
        folder = tempfile.mkdtemp(prefix="twinrank-mining-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        index = WordIndex.create(folder)
        for start in range(0, len(self.passages), PASSAGES_AT_ONCE):
            part = self.passages[start : start + PASSAGES_AT_ONCE]
            index.add(range(start, start + len(part)), [self._analyze(text) for text in part])
        index.commit(1)
        return index

    # -- choice ----------------------------------------------------------------------------------------------------------

    def _choose(self, example: Example, candidates: _Candidates, known: set[str], draw: np.random.Generator) -> list[int]:
        """The keys of an example's negatives, best first."""
        ranking, ceiling = candidates.ranking, candidates.ceiling
        answers = {self._keys[text] for text in known if text in self._keys}
        others = ~np.isin(ranking.keys, list(answers))
        self.tally.known += int((~others).sum())
        window = slice(self.mining.first - 1, self.mining.last)
        keys, scores = ranking.keys[others][window], candidates.deciding[others][window]
        self.tally.candidates += len(keys)
        below = scores <= ceiling
        self.tally.margin += int((~below).sum())
        left: list[int] = keys[below].tolist()
        order = left if self.mining.draw == "top" else [left[place] for place in draw.permutation(len(left)).tolist()]
        chosen = set(self._unlike(example, order))
        return [key for key in left if key in chosen]

    def _unlike(self, example: Example, order: Sequence[int]) -> list[int]:
        """The first `count` that are no twin of a positive, and not as good as one by the judge."""
        chosen: list[int] = []
        positives = [self._word_set(text) for text in example.positives]
        bar = self._bar(example)
        step = self.mining.count
        for start in range(0, len(order), step):
            part = [key for key in order[start : start + step] if not self._is_twin(key, positives)]
            self.tally.twins += len(order[start : start + step]) - len(part)
            if self._judge is not None and part:
                verdicts = self._judge.score([(example.query, self.passages[key]) for key in part])
                kept = [key for key, verdict in zip(part, verdicts.tolist(), strict=True) if verdict <= bar]
                self.tally.judged += len(part) - len(kept)
                part = kept
            chosen += part
            if len(chosen) >= self.mining.count:
                break
        return chosen[: self.mining.count]

    def _bar(self, example: Example) -> float:
        if self._judge is None:
            return float("inf")
        return float(max(self._judge.score([(example.query, text) for text in example.positives]))) - self.mining.judge_margin

    def _is_twin(self, key: int, positives: Sequence[frozenset[str]]) -> bool:
        words = self._word_set(self.passages[key])
        return any(len(words & other) >= self.mining.alike * max(1, len(words | other)) for other in positives)

    def _word_set(self, text: str) -> frozenset[str]:
        return frozenset(self._analyze(text))


@dataclass(frozen=True)
class _Candidates:
    """The passages of one query, best first; those whose deciding score is above the ceiling are taken for answers."""

    ranking: Ranking
    ceiling: float
    scores: npt.NDArray[np.float32] | None = None

    @property
    def deciding(self) -> npt.NDArray[np.float32]:
        return self.ranking.scores if self.scores is None else self.scores


def _fused(dense: _Candidates, words: _Candidates) -> _Candidates:
    """Both rankings as one, by reciprocal rank; cosines decide on the margin, and what vectors did not find is below it."""
    ranking = fuse_by_rank([dense.ranking, words.ranking])
    cosines = dict(iter(dense.ranking))
    deciding = np.array([cosines.get(key, -np.inf) for key in ranking.keys.tolist()], np.float32)
    return _Candidates(ranking, dense.ceiling, deciding)


def open_encoder(encoder: AnyEncoder | str | os.PathLike[str] | None) -> AnyEncoder:
    """What encodes queries and passages to mine by: the encoder itself, or that of a checkpoint's folder."""
    if encoder is None:
        raise InputError('mining by vectors takes an encoder, a model or the folder of one; by="words" takes none')
    if not isinstance(encoder, (str, os.PathLike)):
        return encoder
    kind = kinds.recognise(encoder)
    if kind == "TwinTower":
        return TwinTower(Path(encoder) if Path(encoder).is_dir() else str(encoder))
    if kind == "LateInteraction":
        return LateInteraction(encoder)
    if kind != "BiEncoder":
        raise ModelUnsupportedError(
            f"{encoder} is a {kind}; negatives are mined by a bi-encoder, a twin tower, late interaction, or by words"
        )
    return BiEncoder(encoder)


def _encoded(encoder: Encoder, passages: Sequence[str], told: Progress) -> Vectors:
    """Unit vectors of all passages (passages, dimension); what is too long is cut without a word, as in training."""
    parts = []
    for start in range(0, len(passages), PASSAGES_AT_ONCE):
        part = passages[start : start + PASSAGES_AT_ONCE]
        parts.append(_unit(encoder.embed(encoder.tokenize(part))))
        told("passages", len(part))
    return np.concatenate(parts)


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), dtype=np.float32)
