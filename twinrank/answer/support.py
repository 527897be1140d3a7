"""Whether passages say what a sentence claims: by a model of entailment or similarity, or by vectors, words and numbers.

Either way a number that no cited passage has is no number of theirs. Without a model of entailment it is likeness that is
measured: a sentence that turns its source around in other words passes. How often each error happens is in docs/answers.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np

from twinrank.answer.likeness import Words
from twinrank.errors import ModelUnsupportedError
from twinrank.models.crossencoder import CrossEncoder
from twinrank.types import Vectors

BY_WORDS = 0.3
"""What shared words count for beside the cosine."""
ENOUGH = 0.66
"""From here on a claim counts as supported, with vectors…"""
ENOUGH_WORDS = 0.52
"""…and by words alone; both as `python bench/answers.py support` finds them on dev parts of mrpc, stsb_en and squad_sent."""
IN_A_ROW = 3
"""Sentences of a source that a claim's words are looked for in."""
FOREIGN = 0.35
"""The share of its words below which a clause has nothing to do with what is cited."""
ENTAILED = 0.5
SIMILAR = 0.66
"""Of a cross-encoder that says how alike two sentences are, from 0 to 1."""

FEWEST_TERMS = 3
"""Of a clause that is looked at by itself."""

_NUMBER = re.compile(r"\d+(?:[.,\u00a0\u202f']\d+)*")
_SPELLED = {
    word: str(value)
    for value, word in enumerate("zero one two three four five six seven eight nine ten eleven twelve".split())  # noqa: SIM905
}
_SPELLED_WORD = re.compile(rf"\b(?:{'|'.join(_SPELLED)})\b", re.IGNORECASE)
_NEGATION = re.compile(
    r"\b(?:not|no|never|none|nobody|nothing|neither|nor|without|cannot)\b|n['’]t\b"
    r"|\b(?:nicht|kein|keine[mnrs]?|nie|niemals|ohne|ne|pas|jamais|sans|aucune?|nunca|jamás|sin|ningun[oa]?|не|нет|ни|никогда|без)\b",
    re.IGNORECASE,
)
_CLAUSE = re.compile(r"(?<=[.!?;:…。！？；])\s+|\n+")


class Evidence(NamedTuple):
    """What a claim cites: the sentences of each source, and the titles, which name what the sentences are about."""

    sources: Sequence[Sequence[str]]
    titles: str = ""

    @property
    def sentences(self) -> list[str]:
        return [sentence for source in self.sources for sentence in source]

    @property
    def whole(self) -> str:
        return " ".join([self.titles, *self.sentences]).strip()


class Finding(NamedTuple):
    """How far the evidence supports a claim, from 0 to 1; whether that is enough; and, where it is not, why."""

    support: float
    holds: bool
    why: str = ""


class Verifier(Protocol):
    @property
    def name(self) -> str: ...

    def check(self, claim: str, evidence: Evidence) -> Finding: ...


@dataclass(frozen=True)
class LikenessVerifier:
    """Cosine to the likest cited sentence, mixed with the share of the claim's words that three cited sentences in a row hold.

    Each clause of a claim has to share some words with what is cited. A claim that is negated where its likest sentence is not,
    or the other way round, is not supported.
    """

    words: Words
    encode: Callable[[Sequence[str]], Vectors] | None = None
    """Texts → vectors of length 1, both sides alike."""
    contrast: float = 1.0
    """1 less the cosine of texts that have nothing in common."""

    @property
    def name(self) -> str:
        return "shared words, numbers and negation" if self.encode is None else "likeness, shared words, numbers and negation"

    def check(self, claim: str, evidence: Evidence) -> Finding:
        near = self._near(claim, evidence)
        support, enough = float(self.words.shared(claim, [near])[0]), ENOUGH_WORDS
        if self.encode is None:
            likest = evidence.sentences[int(np.argmax(self.words.shared(claim, evidence.sentences)))]
        else:  # of single sentences and of neighbours together, since a claim may sum up two
            texts = [text for said in evidence.sources for text in (*said, *map(" ".join, pairwise(said)))]
            vectors = self.encode([claim, *texts])  # (1 + texts, dimension)
            cosines = vectors[1:] @ vectors[0]
            likest = texts[int(cosines.argmax())]
            cosine = 1 - (1 - float(cosines.max())) / self.contrast
            support, enough = BY_WORDS * support + (1 - BY_WORDS) * max(cosine, 0.0), ENOUGH
        support = min(max(support, 0.0), 1.0)
        if missing := missing_numbers(claim, near):
            return Finding(support, False, f"what it cites does not have the number {missing[0]} there")
        if bool(_NEGATION.search(claim)) != bool(_NEGATION.search(likest)):
            return Finding(support, False, "of this sentence and the likest that it cites, one is negated")
        foreign = [clause for clause in self._clauses(claim) if float(self.words.shared(clause, [near])[0]) < FOREIGN]
        if foreign and support >= enough:
            return Finding(support, False, f"what it cites does not say: {foreign[0]}")
        return Finding(support, support >= enough, "" if support >= enough else "what it cites says something else")

    def _near(self, claim: str, evidence: Evidence) -> str:
        """Of each source the few sentences in a row that share most words with the claim: all of a long one share words and
        numbers with anything."""
        nearest = [evidence.titles]
        for said in evidence.sources:
            rows = [" ".join(said[start : start + IN_A_ROW]) for start in range(max(1, len(said) - IN_A_ROW + 1))]
            nearest.append(rows[int(np.argmax(self.words.shared(claim, rows)))])
        return " ".join(nearest)

    def _clauses(self, claim: str) -> list[str]:
        """The claim's clauses, of which one may have nothing to do with the others; those of a word or two with a neighbour."""
        clauses: list[str] = []
        for piece in _CLAUSE.split(claim):
            if clauses and min(len(self.words.terms(text)) for text in (piece, clauses[-1])) < FEWEST_TERMS:
                clauses[-1] += f" {piece}"
            else:
                clauses.append(piece)
        return clauses


@dataclass(frozen=True)
class ModelVerifier:
    """A cross-encoder that reads the cited text and the claim together: with labels one of which is entailment, or with one
    output from 0 to 1 for how alike they are."""

    model: CrossEncoder

    def __post_init__(self) -> None:
        if len(self.model.labels) > 1 and not self._entails:
            raise ModelUnsupportedError(
                f"{self.model.name} has the labels {', '.join(self.model.labels)}; to check an answer with, one has to be "
                "entailment, or there is one output that says how alike two sentences are"
            )

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def _entails(self) -> str:
        return next((label for label in self.model.labels if label.lower() == "entailment"), "")

    def check(self, claim: str, evidence: Evidence) -> Finding:
        whole = evidence.whole
        pairs = [(text, claim) for text in dict.fromkeys([whole, *evidence.sentences])]
        if self._entails:
            support = float(self.model.predict(pairs, labels=[self._entails], probabilities=True).max())
            enough = ENTAILED
        else:
            support, enough = min(max(float(self.model.score(pairs).max()), 0.0), 1.0), SIMILAR
        if missing := missing_numbers(claim, whole):
            return Finding(support, False, f"what it cites does not have the number {missing[0]}")
        return Finding(support, support >= enough, "" if support >= enough else "what it cites does not say so")


def missing_numbers(claim: str, evidence: str) -> list[str]:
    """Numbers of the claim that the evidence does not have, in whatever way they are written.

    >>> missing_numbers("Two of 1,200 in 2015", "1200 were asked in 2014, 2 answered")
    ['2015']
    """
    known = set(_numbers(evidence))
    return [number for number in _numbers(claim) if number not in known]


def _numbers(text: str) -> list[str]:
    """Numbers in one way of writing them: without signs between thousands, a point before decimals."""
    spelled = [_SPELLED[found.lower()] for found in _SPELLED_WORD.findall(text)]
    return [_one_way(found) for found in _NUMBER.findall(text)] + spelled


def _one_way(number: str) -> str:
    number = re.sub(r"[\u00a0\u202f',.](?=\d{3}(?:\D|$))", "", number)
    digits = number.replace(",", ".")
    return digits.rstrip("0").rstrip(".") if "." in digits else digits.lstrip("0") or "0"
