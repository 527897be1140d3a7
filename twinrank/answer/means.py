"""What a collection's answers are made with: its tokenizer counts, its best reader scores sentences, and what checks claims."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from twinrank.answer.answering import Means
from twinrank.answer.excerpts import Count
from twinrank.answer.likeness import Likeness, Terms, Words
from twinrank.answer.support import LikenessVerifier, ModelVerifier, Verifier
from twinrank.assembly import Assembly
from twinrank.index.searched import WordSearch
from twinrank.loaded import Loaded
from twinrank.maxsim import maxsim
from twinrank.models.crossencoder import CrossEncoder
from twinrank.models.heads import normalize
from twinrank.types import Encoder, Scores, Vectors

WORD = re.compile(r"\S+")


def means_of(assembly: Assembly, index: WordSearch, verifier: str | CrossEncoder | None = None) -> Means:
    """By the models that the recipe names: a cross-encoder before an encoder, an encoder before words alone."""
    words = Words(assembly.analyzer, lambda term: index.bound([term]) or 1.0)
    return Means(
        _count(assembly.loaded), _likeness(assembly, words), lambda: _verifier(assembly.loaded, assembly.analyzer, verifier)
    )


def _count(loaded: Loaded) -> Count:
    if loaded.passages is None:
        return lambda text: len(WORD.findall(text))
    counting = loaded.passages.counting
    return lambda text: len(counting.token_offsets(text)) if text else 0


def _likeness(assembly: Assembly, words: Words) -> Likeness:
    loaded = assembly.loaded
    readers = [settings for settings in assembly.recipe.rerank if settings.kind == "cross-encoder"]
    if readers:
        scorer = loaded.scorer(readers[-1])
        return Likeness(
            "cross-encoder", scorer.name, words, lambda asked, texts: loaded.score(scorer, [(asked, t) for t in texts])
        )
    if (encoder := loaded.encoder) is not None:
        embed = _embedder(loaded, encoder)

        def compare(asked: str, texts: Sequence[str]) -> Scores:
            return np.asarray(embed(texts) @ normalize(loaded.query_vector(encoder, asked)[None])[0], np.float32)

        return Likeness("bi-encoder", encoder.name, words, compare)
    if (late := loaded.late) is not None:

        def align(asked: str, texts: Sequence[str]) -> Scores:
            return maxsim(loaded.encode(late, [asked], "query")[0], loaded.encode(late, texts, "document"))

        return Likeness("late interaction", late.name, words, align)
    return Likeness("words", "", words).without_model()


def _embedder(loaded: Loaded, encoder: Encoder) -> Callable[[Sequence[str]], Vectors]:
    """Texts → vectors of length 1: (texts, dimension)."""
    return lambda texts: normalize(np.stack(loaded.encode(encoder, texts, "document")))


def _verifier(loaded: Loaded, terms: Terms, asked: str | CrossEncoder | None) -> Verifier:
    if asked is not None:
        return ModelVerifier(asked if isinstance(asked, CrossEncoder) else CrossEncoder(asked))
    words = Words(terms, lambda _: 1.0)  # each word the same: that is how the thresholds were chosen
    if loaded.encoder is None:
        return LikenessVerifier(words)
    return LikenessVerifier(words, _remembering(_embedder(loaded, loaded.encoder)), loaded.contrast)


def _remembering(embed: Callable[[Sequence[str]], Vectors]) -> Callable[[Sequence[str]], Vectors]:
    """The same, for texts that come again and again: what is cited, with each claim that cites it."""
    known: dict[str, Vectors] = {}

    def remember(texts: Sequence[str]) -> Vectors:
        fresh = [text for text in dict.fromkeys(texts) if text not in known]
        if fresh:
            known.update(zip(fresh, embed(fresh), strict=True))
        return np.stack([known[text] for text in texts])

    return remember
