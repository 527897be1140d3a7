"""One query and one passage as each architecture sees them: BM25's terms, the vectors' words, the tokens' matches, the pair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from twinrank.encoding import TOKENS
from twinrank.explain.explanation import Match, PairSeen, Term, Token, TokensSeen, VectorsSeen, WordsSeen
from twinrank.explain.occlusion import occlusion, shares, variants
from twinrank.index.searched import VectorSearch, WordSearch
from twinrank.models.biencoder import BiEncoder
from twinrank.models.crossencoder import CrossEncoder, Seen
from twinrank.models.lateinteraction import LateInteraction, Piece
from twinrank.models.twintower import TwinTower
from twinrank.search.explain import Span
from twinrank.store import Kept
from twinrank.text import Analyzer
from twinrank.types import Encoder, Side, Tokens, Vectors


@dataclass(frozen=True)
class Pair:
    """What is explained."""

    query: str
    passage: str
    key: int


@dataclass(frozen=True)
class Means:
    """What leaving out is done with: where a text's words are, and how many texts a model may read."""

    words: Callable[[str], Sequence[Span]]
    budget: int


# -- BM25 ----------------------------------------------------------------------------------------------------------------


def see_words(index: WordSearch, analyzer: Analyzer, pair: Pair) -> WordsSeen:
    """Every term of the query with its weight in the passage, those that it does not hold at the end."""
    asked, there = analyzer.spans(pair.query), analyzer.spans(pair.passage)
    adds = dict(index.explain([term for term, _, _ in asked], pair.key))
    terms = []
    for term in Counter(term for term, _, _ in asked):
        facts = index.facts(term, pair.key)
        words = tuple(dict.fromkeys(pair.query[start:end] for found, start, end in asked if found == term))
        spans = tuple((start, end) for found, start, end in there if found == term)
        terms.append(Term(term, words, adds.get(term, 0.0), facts.idf, facts.passages, facts.frequency, spans))
    terms.sort(key=lambda term: (-term.adds, -term.idf, term.term))
    return WordsSeen(float(sum(adds.values())), tuple(terms), pair.query)


# -- one vector a text ---------------------------------------------------------------------------------------------------


def see_vectors(
    encoder: Encoder, query: Vectors, index: VectorSearch, stored: Vectors, pair: Pair, means: Means, *, searched: bool
) -> VectorsSeen:
    """The score that a search uses, with the stored vector, and what the words of either side do for it.

    Leaving out words of the query is measured against the stored vector, words of the passage against the query's. `query` is
    the query's vector, `stored` the passage's: (dimension,) both.
    """
    started = perf_counter()
    score = float(index.search(query, 1, np.array([pair.key])).scores[0])
    reads = reach(encoder, pair.query, "query"), reach(encoder, pair.passage, "document")
    read = pair.query[: reads[0].characters], pair.passage[: reads[1].characters]
    of_query, of_passage = shares(*read, means.words, means.budget, 2)
    asked = _embed(encoder, [read[0], *variants(read[0], of_query[1])], "query") @ stored  # (variants + 1,)
    given = _embed(encoder, [read[1], *variants(read[1], of_passage[1])], "document") @ query  # (variants + 1,)
    return VectorsSeen(
        encoder.name,
        score,
        float(given[0]),
        searched,
        occlusion(pair.query, of_query, float(asked[0]), asked[1:], reads[0]),
        occlusion(pair.passage, of_passage, float(given[0]), given[1:], reads[1]),
        len(asked) + len(given),
        perf_counter() - started,
    )


def _embed(encoder: Encoder, texts: Sequence[str], side: Side) -> Vectors:
    """As `encode` does, without its warning: what is cut off is told in the explanation."""
    return encoder.embed(encoder.tokenize(texts, side=side), side=side)


def reach(encoder: Encoder | LateInteraction, text: str, side: Side) -> Seen:
    """How much of a text its model reads."""
    tokens: Tokens = encoder.tokenize([text], side=side)
    dropped = 0 if tokens.dropped is None else int(tokens.dropped[0])
    if not dropped:
        return Seen(len(text), 0)
    reader: Encoder | LateInteraction | BiEncoder = encoder.tower(side) if isinstance(encoder, TwinTower) else encoder
    offsets = reader.token_offsets(text)
    kept = len(offsets) - dropped
    return Seen(offsets[kept - 1][1] if kept > 0 else 0, dropped)


# -- one vector a token --------------------------------------------------------------------------------------------------


def see_tokens(late: LateInteraction, store: Kept, pair: Pair, stored: bool) -> TokensSeen:
    """Each token of the query with the token of the passage that is most like it; `stored`: as the collection keeps them."""
    started = perf_counter()
    query: Vectors = late.embed(late.tokenize([pair.query], side="query"), side="query")[0]  # (query tokens, dimension)
    if stored:
        packed = store.tokens(TOKENS, [pair.key])
        passage = store.views()[TOKENS].codec.restore(packed.codes, packed.scales)  # (vectors, dimension)
    else:
        passage = late.embed(late.tokenize([pair.passage]))[0]
    similar = query @ passage.T  # (query tokens, vectors)
    best = similar.argmax(axis=1)  # (query tokens,)
    matches = [Match(row, int(column), float(similar[row, column])) for row, column in enumerate(best)]
    reads = reach(late, pair.passage, "document")
    return TokensSeen(
        late.name,
        float(similar.max(axis=1).sum()),
        stored,
        tuple(map(_token, late.pieces(pair.query, side="query"))),
        tuple(map(_token, late.pieces(pair.passage))),
        tuple(matches),
        tuple(tuple(round(value, 3) for value in row) for row in similar.tolist()),
        pair.query,
        reads.characters,
        reads.dropped,
        perf_counter() - started,
    )


def _token(pieces: Sequence[Piece]) -> Token:
    """The tokens of one vector, in the passage's order."""
    ordered = sorted(pieces, key=lambda piece: piece.start)
    return Token(" ".join(piece.token for piece in ordered), tuple((start, end) for _, start, end in ordered if end > start))


# -- the pair ------------------------------------------------------------------------------------------------------------


def see_pair(scorer: CrossEncoder, stage: str, pair: Pair, means: Means) -> PairSeen:
    """The score of the pair, and what the words of either text do for it: all pairs in one call."""
    started = perf_counter()
    reads = scorer.seen(pair.query, pair.passage)
    query, passage = pair.query[: reads[0].characters], pair.passage[: reads[1].characters]
    windows = int(-(-scorer.count_tokens([(query, passage)])[0] // scorer.max_tokens))  # passes that one pair takes
    of_query, of_passage = shares(query, passage, means.words, means.budget // windows, 1)
    pairs = [(query, passage)]
    pairs += [(text, passage) for text in variants(query, of_query[1])]
    pairs += [(query, text) for text in variants(passage, of_passage[1])]
    scores = scorer.score(pairs)
    whole, middle = float(scores[0]), 1 + len(of_query[1])
    return PairSeen(
        stage,
        scorer.name,
        whole,
        occlusion(pair.query, of_query, whole, scores[1:middle], reads[0]),
        occlusion(pair.passage, of_passage, whole, scores[middle:], reads[1]),
        len(pairs) * windows,
        perf_counter() - started,
    )
