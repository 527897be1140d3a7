"""One query and one document of a collection → the explanation: the search is made again, and every part of it asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from time import perf_counter

import numpy as np

from twinrank.asking import checked_query
from twinrank.collection import Collection
from twinrank.derived import Indexes
from twinrank.encoding import TOKENS, VECTORS
from twinrank.errors import QueryError
from twinrank.explain.architectures import Means, Pair, see_pair, see_tokens, see_vectors, see_words
from twinrank.explain.explanation import (
    Explanation,
    FilterSeen,
    PairSeen,
    PassageShown,
    ProbabilitySeen,
    StageSeen,
    TokensSeen,
    VectorsSeen,
    WordsSeen,
)
from twinrank.explain.judging import see_filter, see_probability
from twinrank.explain.occlusion import BUDGET, check_budget, words_of
from twinrank.explain.stages import DEEPER, Way
from twinrank.models.biencoder import BiEncoder
from twinrank.models.lateinteraction import LateInteraction
from twinrank.search import filters
from twinrank.search.calibrate import features_of, gather
from twinrank.search.group import group
from twinrank.search.rerank import Asked
from twinrank.types import Document, Keys, Membership, Passage, Ranking


def explain(
    collection: Collection, query: str, document_id: str, *, where: str | None = None, k: int = 10, budget: int = BUDGET
) -> Explanation:
    """Why this document stands where it does for this query, or does not stand there at all.

    What is explained is the document's best passage, as the search sees it. `where` and `k` are those of the search; `k`
    matters to reranks that stop when the first places are settled. `budget` is how many texts each model may read to find out
    what single words do, which takes most of the time; 0 leaves that out.

    Raises QueryError for an empty query and for an id that the collection does not hold, FilterError for a condition that does
    not parse, InputError for a budget that is too small.

    >>> from tempfile import mkdtemp
    >>> notes = Collection(mkdtemp() + "/notes.twinrank", model="none")
    >>> _ = notes.add([{"id": "a1", "text": "Zinc may shorten a cold."}, {"id": "b2", "text": "Honey eases a cough."}])
    >>> [(term.term, term.count) for term in explain(notes, "zinc against colds", "a1").words.terms]
    [('cold', 1), ('zinc', 1), ('against', 0)]
    """
    text = checked_query(query, k)
    means = Means(words_of(collection.recipe.words.language), check_budget(budget))
    return collection.in_one_state(lambda: _Explaining(collection, text, document_id, where, k, means).run())


@dataclass(frozen=True)
class _Explaining:
    """One explanation under way."""

    collection: Collection
    query: str
    document_id: str
    where: str | None
    k: int
    means: Means

    def run(self) -> Explanation:
        started = perf_counter()
        document, own = self._document()
        allowed = None if self.where is None else self.collection.store.select(filters.parse(self.where))
        way = self._search(allowed)
        grouped = self._grouped(way)
        mine = grouped.keys[np.isin(grouped.keys, own)]
        passage = self._passage(int(mine[0]) if len(mine) else way.best(own))
        condition = (
            None
            if allowed is None or self.where is None
            else see_filter(self.collection.store, self.where, document, allowed, own)
        )
        rank, score = self._standing(grouped, mine) if len(mine) else self._filling_up(grouped)
        stages = way.stages(passage.key, excluded=condition is not None and not condition.passes)
        sums = ([way.sum(passage.key)] if len(way.sources) > 1 else []) + way.mixtures(passage.key)
        pair = Pair(way.forms[-1], passage.titled_text, passage.key)
        looking = _Looking(self.collection, pair, self.means)
        notes = list(looking.notes())
        return Explanation(
            query=self.query,
            forms=way.forms,
            id=document.id,
            title=document.title,
            passage=PassageShown(passage.titled_text, passage.number, len(own), passage.part, passage.start, passage.end),
            rank=rank,
            of=len(grouped),
            score=score,
            outcome=self._outcome(rank, len(grouped), bool(len(mine)), stages, condition),
            stages=stages,
            sums=tuple(sums),
            words=looking.words(way),
            vectors=looking.vectors(),
            tokens=looking.tokens(),
            pairs=looking.pairs(),
            probability=self._probability(way, grouped, passage.key),
            filter=condition,
            certificates=tuple(way.trace.certificates),
            notes=tuple(notes),
            seconds=perf_counter() - started,
        )

    def _document(self) -> tuple[Document, Keys]:
        """The document and its passages."""
        store = self.collection.store
        document = self.collection.get([self.document_id])[0]
        if document is None:
            raise QueryError(
                f"there is no document {self.document_id!r} in {self.collection.path}; a search shows the ids that there are"
            )
        own = store.select(Membership("id", (self.document_id,)))
        if not len(own):
            raise QueryError(f"the document {self.document_id!r} has no text, so that there is nothing to explain")
        return document, own

    def _search(self, allowed: Keys | None) -> Way:
        pipeline = self.collection.pipeline()
        _, trace = pipeline.run(self.query, allowed, Asked(self.k))
        return Way(pipeline, trace, self.query, allowed)

    def _grouped(self, way: Way) -> Ranking:
        settings = self.collection.recipe.group
        last = way.trace.stages[-1].ranking
        owners = self.collection.store.documents_of(last.keys)
        return group(last, owners, settings.by, settings.passages, scored=way.trace.scored)

    def _filling_up(self, grouped: Ranking) -> tuple[int | None, float | None]:
        """Rank and score of a document that is no candidate, in a search that is asked for more documents than those."""
        if len(grouped) >= self.k:
            return None, None
        hits = self.collection.search(self.query, self.k, where=self.where)
        return next(((hit.rank, hit.score) for hit in hits if hit.id == self.document_id), (None, None))

    def _standing(self, grouped: Ranking, mine: Keys) -> tuple[int, float]:
        """Rank and score among the documents; of equal scores the larger id stands first, as in a search."""
        score = grouped.scores[grouped.keys == mine[0]][0]
        tied = grouped.keys[grouped.scores == score]
        ids = {info.id for info in self.collection.store.document_info(tied).values()}
        before = int((grouped.scores > score).sum()) + sum(other > self.document_id for other in ids)
        return before + 1, float(score)

    def _passage(self, key: int) -> Passage:
        return self.collection.store.passages([key])[0]

    def _outcome(
        self, rank: int | None, of: int, candidate: bool, stages: tuple[StageSeen, ...], condition: FilterSeen | None
    ) -> str:
        """Where the document stands, or where it dropped out."""
        if condition is not None and not condition.passes:
            return f"left out by the condition: {' and '.join(condition.failed) or condition.where}"
        if candidate:
            late = [stage for stage in stages if stage.kind == "rerank" and not stage.scored]
            return f"rank {rank} of {of} documents" + "".join(f"; {_passed_over(stage)}" for stage in late)
        said = "not among the candidates: " + "; ".join(_missed(stage) for stage in stages if stage.kind == "source")
        if rank is None:
            return said
        return f"{said}; at rank {rank} it fills up an answer of {self.k} that has too few candidates"

    def _probability(self, way: Way, grouped: Ranking, key: int) -> ProbabilitySeen | None:
        calibration = self.collection.calibration()
        if calibration is None:
            return None
        evidence = gather(way.pipeline, way.trace, grouped, self.query)
        return see_probability(calibration, evidence, features_of(way.pipeline), key)


@dataclass(frozen=True)
class _Looking:
    """What each architecture of the recipe, or of the models at hand, makes of the pair."""

    collection: Collection
    pair: Pair
    means: Means

    @cached_property
    def _indexes(self) -> Indexes:
        return self.collection.indexes()

    def _holds(self, view: str, fingerprint: str) -> bool:
        """Whether the collection keeps a view of this model, with all passages in it."""
        known = self.collection.store.views().get(view)
        return known is not None and known.complete and known.fingerprint == fingerprint

    def words(self, way: Way) -> WordsSeen:
        """In the form of the query that says most of this passage."""
        index, analyzer = self._indexes.words, self.collection.analyzer
        seen = [see_words(index, analyzer, Pair(form, self.pair.passage, self.pair.key)) for form in way.forms]
        return max(seen, key=lambda one: one.score)

    def vectors(self) -> VectorsSeen | None:
        loaded, index = self.collection.assembly.loaded, self._indexes.vectors
        encoder = loaded.encoder
        if encoder is None or index is None or not self._holds(VECTORS, encoder.fingerprint):
            return None
        query = loaded.query_vector(encoder, self.pair.query)
        stored = self.collection.store.vectors(VECTORS, [self.pair.key])[0]
        searched = self.collection.recipe.retrieve.vectors > 0
        return see_vectors(encoder, query, index, stored, self.pair, self.means, searched=searched)

    def tokens(self) -> TokensSeen | None:
        """By the token vectors that are kept; else by a bi-encoder's own, which need no training and no other model."""
        loaded = self.collection.assembly.loaded
        late = loaded.late
        if late is not None:
            return see_tokens(late, self.collection.store, self.pair, self._holds(TOKENS, late.fingerprint))
        if isinstance(loaded.encoder, BiEncoder):
            return see_tokens(LateInteraction(loaded.encoder), self.collection.store, self.pair, False)
        return None

    def pairs(self) -> tuple[PairSeen, ...]:
        loaded = self.collection.assembly.loaded
        stages = [stage for stage in self.collection.recipe.rerank if stage.kind == "cross-encoder"]
        return tuple(see_pair(loaded.scorer(stage), stage.name, self.pair, self.means) for stage in stages)

    def notes(self) -> Iterator[str]:
        """Which architectures have nothing to say, and why."""
        loaded, recipe = self.collection.assembly.loaded, self.collection.recipe
        if loaded.encoder is None:
            yield "vectors: the recipe has no encoder that gives one vector a passage"
        elif not self._holds(VECTORS, loaded.encoder.fingerprint):
            yield f"vectors: the collection holds none of {loaded.encoder.name}"
        if loaded.late is None and not isinstance(loaded.encoder, BiEncoder):
            yield "tokens: the recipe keeps no token vectors, and has no bi-encoder whose own could be compared"
        if not any(stage.kind == "cross-encoder" for stage in recipe.rerank):
            yield "cross-encoder: the recipe has none"
        if not recipe.retrieve.words:
            yield "words: the recipe does not search by them"


def _missed(stage: StageSeen) -> str:
    if stage.score is None:
        return f"{stage.stage} finds nothing of the query in it"
    where = f"at rank {stage.behind:,}" if stage.behind else f"beyond rank {DEEPER:,}"
    needed = "" if stage.needed is None else f", and needed {stage.needed:.4g} to be among the first {stage.of}"
    return f"{stage.stage} has it {where} with {stage.score:.4g}{needed}"


def _passed_over(stage: StageSeen) -> str:
    if stage.needed is None:
        return f"{stage.stage} ended before it came to it"
    return f"{stage.stage} did not read it: it came with {stage.came:.4g} and needed {stage.needed:.4g}"
