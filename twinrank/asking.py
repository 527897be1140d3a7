"""What a collection is asked: searches in one committed state, likeness, evidence, documents by id."""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from twinrank import answer as answers
from twinrank import learned
from twinrank.answer.means import means_of
from twinrank.assembly import Assembly
from twinrank.calibrated import Calibrated, identity
from twinrank.derived import Indexes
from twinrank.errors import IndexDamagedError, ModelMismatchError, QueryError, RecipeError, TwinrankError
from twinrank.index.searched import VectorSearch
from twinrank.learned import Learned
from twinrank.loaded import Loaded
from twinrank.models.crossencoder import CrossEncoder
from twinrank.places import Searching
from twinrank.recipe import Recipe
from twinrank.search import filters
from twinrank.search.calibrate import Calibration, Evidence, Feature, Wish, features_of, gather
from twinrank.search.diversify import diversify
from twinrank.search.explain import Span, marks, marks_of
from twinrank.search.group import group, group_behind
from twinrank.search.pipeline import Pipeline, Trace, Traced
from twinrank.search.rerank import Asked
from twinrank.search.results import Results
from twinrank.stopping import Rule
from twinrank.store import Kept
from twinrank.text import Analyzer, normalize
from twinrank.types import Condition, Document, Hit, Keys, Membership, Not, Ranking, Vectors

if TYPE_CHECKING:
    from twinrank.answer.endpoint import Endpoint

TRIES = 10
"""How often a search is begun again because somebody wrote meanwhile, before it makes writers wait."""

LONGEST_QUERY = 65_536
"""Characters; a text beyond that is a document, not a query."""

T = TypeVar("T")


class Asking(ABC):
    """What a collection is asked: searches, likeness, documents by id; `Collection` holds what it takes."""

    path: Path | str
    """Of a collection in an engine, its address."""
    store: Kept
    recipe: Recipe
    analyzer: Analyzer
    _derived: Searching
    _loaded: Loaded
    _assembly: Assembly
    _calibrated: Calibrated

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def _writing(self) -> AbstractContextManager[None]: ...

    @abstractmethod
    def _follow_recipe(self) -> bool: ...

    @property
    @abstractmethod
    def _again(self) -> str: ...

    def search(
        self,
        query: str,
        k: int = 10,
        *,
        where: str | None = None,
        deadline: float | None = None,
        min_probability: float | None = None,
        risk: float | None = None,
    ) -> Results:
        """Find the `k` best documents for a query, each with its best passage.

        `where` is a condition over fields, such as "year >= 2015 and lang = 'en'"; it chooses the documents before the
        search, so that `k` of them are found where there are as many. `deadline` is in milliseconds from now: reranking stops
        in time for it, and the answer's certificates say how far it came. Raises QueryError for an empty query, a `k` below 1
        or a deadline below 0, FilterError for a condition that does not parse or names a field that no document has.

        Where the collection was calibrated, hits have a probability of relevance, as far down as it was fitted.
        `min_probability` leaves out hits below it and hits without one. `risk` leaves out everything where the answer is too
        unsure: of the queries that are answered, at most this share gets hits of which none is relevant. The verdict of the
        results tells. Raises CalibrationError where no calibration belongs to the recipe, or none can promise this risk.
        """
        return self.in_one_state(lambda: self._search(query, k, where, deadline, Wish(min_probability, risk)))

    def answer(
        self,
        question: str,
        k: int = 10,
        *,
        where: str | None = None,
        deadline: float | None = None,
        min_probability: float | None = None,
        risk: float | None = None,
        budget: int = answers.TOKENS,
        quotes: int = answers.QUOTES,
        endpoint: Endpoint | None = None,
        verifier: str | CrossEncoder | None = None,
    ) -> answers.Answer:
        """Answer a question from the `k` best documents: by `quotes` of their sentences, letter for letter, with their places.

        `budget` is how many tokens of their passages are read. With an `endpoint` a language model writes the answer from
        them; each of its sentences is compared with what it cites, by the cross-encoder `verifier` (of entailment, or of
        similarity from 0 to 1) or else by likeness, and marked where that does not bear it out. `where`, `deadline` and `risk`
        are those of `search`. Where the collection was calibrated, documents of a probability below `min_probability`, by
        default 0.5, are not answered from, and where none is left the answer is that it is not known.

        Raises what `search` raises, QueryError for a budget or quotes that are too small, EndpointError where the model cannot
        be asked.
        """
        started = perf_counter()
        wanted = answers.Wanted(budget, quotes, None if deadline is None else started + deadline / 1000, endpoint)
        searching = None if deadline is None else answers.SEARCHING * deadline
        found = self.in_one_state(lambda: self._find(question, k, where, searching, min_probability, risk))
        return answers.answer(question, found, wanted, means_of(self._assembly, self.indexes().words, verifier))

    def _find(
        self, question: str, k: int, where: str | None, deadline: float | None, least: float | None, risk: float | None
    ) -> answers.Found:
        """What an answer to the question can be made of."""
        calibrated = self._calibrated.get(self._assembly, needed=False) is not None
        if calibrated and least is None and risk is None:
            least = answers.LIKELY
        results, ranking, trace = self._search_with_trace(question, k, where, deadline, Wish(least, risk))
        ids = list(dict.fromkeys(hit.id for hit in results))
        documents = {document.id: document for document in self.store.get(ids) if document is not None}
        stored = {passage.key: passage for passage in self.store.passages(ranking.keys)}
        passages = [stored[key] for key in ranking.keys.tolist() if key in stored and stored[key].document_id in documents]
        form = trace.forms[-1] if trace.forms else normalize(question).strip()
        return answers.Found(results, documents, passages, form, calibrated)

    def search_by(self, recipe: Recipe, query: str, k: int = 10, *, where: str | None = None) -> Results:
        """Search as `search` does, ranked by another recipe over what is stored; hits have no probability.

        Nothing that an earlier search computed is made use of, so that recipes may be timed side by side. Raises RecipeError
        or ModelMismatchError where the recipe asks for what the collection does not hold; see `pipeline`.
        """
        return self.in_one_state(lambda: self._search(query, k, where, None, Wish(), recipe))

    def in_one_state(self, ask: Callable[[], T]) -> T:
        """What is found in one committed state: where somebody wrote meanwhile, it is looked for again."""
        for _ in range(TRIES):
            before = self.store.sequence()
            try:
                results = ask()
            except IndexDamagedError as error:
                self._derived.remake(error)
            except ModelMismatchError:
                if not self._follow_recipe() and self.store.sequence() == before:
                    raise
            except TwinrankError:
                if self.store.sequence() == before:
                    raise
            else:
                if self.store.sequence() == before:
                    return results
        with self._writing():  # they write without a pause, and wait for once
            return ask()

    def _search(
        self, query: str, k: int, where: str | None, deadline: float | None, wish: Wish, recipe: Recipe | None = None
    ) -> Results:
        return self._search_with_trace(query, k, where, deadline, wish, recipe)[0]

    def _search_with_trace(
        self, query: str, k: int, where: str | None, deadline: float | None, wish: Wish, recipe: Recipe | None = None
    ) -> tuple[Results, Ranking, Trace]:
        """The results, with the passages that they were chosen from and what each stage made of these."""
        started = perf_counter()
        text = checked_query(query, k)
        if deadline is not None and not 0 <= deadline < float("inf"):
            raise QueryError(f"a deadline is in milliseconds from now, 0 or more; got {deadline!r}")
        asked = Asked(k, None if deadline is None else started + deadline / 1000)
        condition = None if where is None else filters.parse(where)
        self._derived.refresh()
        allowed = None if condition is None else self.store.passing(condition)
        available = self.store.at_most(allowed)
        # What was fitted to the scores of one recipe says nothing about those of another.
        calibration = None if recipe is not None else self._calibrated.get(self._assembly, needed=bool(wish))
        if available == 0:
            verdict = calibration.answer((), k, wish)[1] if calibration else None
            return Results(query, (), perf_counter() - started, verdict=verdict), Ranking.empty(), Trace()
        pipeline = self.pipeline(recipe, remembering=recipe is None)
        ranking, trace = pipeline.run(text, allowed, asked)
        chances: dict[int, float] = {}
        if calibration is not None:
            evidence = gather(pipeline, trace, self._documents(ranking, trace), text)
            found = calibration.probabilities(evidence, features_of(pipeline))
            chances = dict(zip(evidence.keys.tolist(), found.tolist(), strict=False))
        hits = self._hits(self._documents(ranking, trace), k, trace, chances)
        # The first k do not depend on k: what a larger k asks for beyond the candidates comes behind them.
        deeper, depth, seen = ranking, len(ranking), len(ranking)
        while len(hits) < k and depth < available:
            depth = min(max(4 * depth, k), available)
            deeper = pipeline.run_behind(ranking, text, depth, allowed, trace)
            if len(deeper) == seen:  # no word of the query stands anywhere else
                break
            seen = len(deeper)
            by, most = self.recipe.group.by, self.recipe.group.passages
            documents = group_behind(ranking, deeper, self.store.documents_of, by, most, scored=trace.scored)
            hits = self._hits(documents, k, trace, chances)
        verdict = None
        if calibration is not None:
            hits, verdict = calibration.answer(hits, k, wish)
        stages = [(traced.stage, traced.seconds) for traced in trace.stages]
        if pipeline.rewrite is not None:
            stages.insert(0, (pipeline.rewrite.name, trace.rewriting))
        certificates = tuple(trace.certificates)
        plan = next((traced.plan for traced in trace.stages if traced.plan), "")
        notes, weights = tuple(_notes(trace)), str(trace.weighing or "")
        seconds = perf_counter() - started
        results = Results(query, hits, seconds, tuple(stages), notes, certificates, verdict, plan, weights)
        return results, deeper, trace

    def pipeline(self, recipe: Recipe | None = None, *, remembering: bool = True) -> Pipeline:
        """The stages that answer a query, over the documents as they are now; by another recipe where one is given.

        Another recipe searches what is stored as it is: its encoder, passages, tokens and language have to be the collection's.
        Without `remembering` it computes again what a search of a moment ago has computed.
        """
        assembly = self._assembly if recipe is None else replace(self._assembly, recipe=recipe)
        if not remembering:
            assembly = replace(assembly, loaded=assembly.loaded.forgetful())
        return assembly.pipeline(self._derived.refresh())

    @property
    def assembly(self) -> Assembly:
        """What its pipelines are made of: the recipe with the models it names, the store, the word analyser."""
        return self._assembly

    def indexes(self) -> Indexes:
        """What its pipelines search, as the store is now."""
        return self._derived.refresh()

    def calibration(self) -> Calibration | None:
        """What gives hits their probability; None where nothing was calibrated for what is searched with."""
        return self._calibrated.get(self._assembly, needed=False)

    def evidence(self, query: str, depth: int, *, without: Sequence[str] = ()) -> tuple[Evidence, list[str]]:
        """What a calibration looks at: the first `depth` documents of a search without certain documents, and their ids."""
        text = checked_query(query, depth)
        allowed = self.store.passing(Not(Membership("id", tuple(without)))) if without else None
        pipeline = self.pipeline()
        if not self.store.at_most(allowed):
            return Evidence(np.empty(0, np.int64), np.empty((0, len(features_of(pipeline))))), []
        ranking, trace = pipeline.run(text, allowed)
        evidence = gather(pipeline, trace, self._documents(ranking, trace), text).top(depth)
        info = self.store.document_info(evidence.keys)
        return evidence, [info[key].id if key in info else "" for key in evidence.keys.tolist()]

    def features(self) -> list[Feature]:
        """The names of what `evidence` holds, in the order of its columns."""
        return features_of(self.pipeline())

    def identity(self) -> dict[str, str]:
        """What a calibration that is fitted now belongs to, part by part."""
        return identity(self._assembly)

    def keep_calibration(self, calibration: Calibration) -> None:
        """Give hits probabilities by this calibration from now on, in place of the one before."""
        with self._writing():
            self._calibrated.keep(calibration)

    def learn_stopping(
        self, queries: Iterable[str] | None = None, *, progress: Callable[[int], None] | None = None
    ) -> list[Learned]:
        """Learn, without judgments, when the recipe's reranks may stop: rerank each query fully, and see what that changed.

        The promise that a rerank with a `risk` then makes is for queries like these, so give such as your users ask, some
        hundreds of them. Without any, they are made of the collection's own titles and sentences. What is learned is kept
        in the collection. Raises RecipeError where the recipe has no cross-encoder, InputError where there are too few queries.
        """
        stages = [number for number, stage in enumerate(self.recipe.rerank) if stage.kind == "cross-encoder"]
        if not stages:
            raise RecipeError("the recipe has no [[rerank]] with a cross-encoder, so there is nothing to learn about stopping")
        made = queries is None
        asked = learned.made_queries(self.store) if queries is None else [checked_query(query, 1) for query in queries]
        seen = learned.observe(self.pipeline(), asked, progress)
        results = []
        for number in stages:
            name = self.recipe.rerank[number].name
            rule = Rule.learn(seen.get(name, []))
            results.append(Learned(name, len(seen[name]), made, rule))
            with self._writing():
                learned.keep(self.store, number, self._assembly.belongs(number), results[-1])
        return results

    def similar(
        self,
        like: Sequence[str] | str,
        k: int = 10,
        *,
        unlike: Sequence[str] | str = (),
        where: str | None = None,
        diversity: float = 0.0,
    ) -> Results:
        """Find `k` documents like these and unlike those, by their stored vectors: no model is opened.

        What is looked for is the mean of the first minus half the mean of the others (Rocchio 1971, his weights of .75 and
        .15 made rounder). `diversity` from 0 to 1 trades likeness for variety (maximal marginal relevance) in what is chosen;
        what was chosen is shown by likeness.
        """
        liked, unliked = ([ids] if isinstance(ids, str) else list(ids) for ids in (like, unlike))
        if not liked or not 0 <= diversity <= 1:
            raise QueryError(f"similar takes at least one id and a diversity of 0 to 1; got {liked} and {diversity}")
        checked_query("similar", k)
        condition = None if where is None else filters.parse(where)
        return self.in_one_state(lambda: self._similar(liked, unliked, k, condition, diversity))

    def _similar(
        self, liked: Sequence[str], unliked: Sequence[str], k: int, condition: Condition | None, diversity: float
    ) -> Results:
        started = perf_counter()
        index, given = self._derived.refresh().vectors, self._passages_of([*liked, *unliked])
        if index is None:
            raise ModelMismatchError(
                f"{self.path} holds no vectors, by which likeness is found; an encoder that gives one a passage makes them: "
                f"twinrank rebuild --encode --model MODEL -c {shlex.quote(str(self.path))}"
            )
        target = self._mean_vector(liked, index) - (0.5 * self._mean_vector(unliked, index) if unliked else 0)
        allowed = None if condition is None else self.store.passing(condition)
        candidates = index.search(target, min(len(index), max(20 * k, 200) + len(given)), allowed)
        kept = ~np.isin(candidates.keys, given)
        found = candidates.keys[kept]
        ranking = group(Ranking(found, candidates.scores[kept]), self.store.documents_of(found))
        ranking = diversify(ranking, index.vectors(ranking.keys), k, diversity) if diversity else ranking
        hits = self._hits(ranking, k, Trace([Traced("vectors", ranking, perf_counter() - started)]))
        return Results(f"like {', '.join(liked)}", hits, perf_counter() - started)

    def _passages_of(self, ids: Sequence[str]) -> Keys:
        missing = [identifier for identifier, document in zip(ids, self.store.get(ids), strict=True) if document is None]
        if missing:
            raise QueryError(f"not in {self.path}: {', '.join(missing)}")
        return self.store.select(Membership("id", tuple(ids)))

    def _mean_vector(self, ids: Sequence[str], index: VectorSearch) -> Vectors:
        """Of the documents, not of their passages: a long one counts no more than a short one."""
        documents = [index.vectors(self._passages_of([identifier])).mean(axis=0) for identifier in ids]
        means: Vectors = np.stack([mean / np.linalg.norm(mean) for mean in documents])  # (documents, dimension)
        return np.asarray(means.mean(axis=0), dtype=np.float32)

    def get(self, ids: Sequence[str]) -> list[Document | None]:
        """Documents by id, in the order asked; None where there is none."""
        return self.store.get(list(ids))

    def marks(self, query: str, text: str) -> list[Span]:
        """Where `text` holds words of `query`, as the word index sees them: character spans, in order."""
        return marks(normalize(text), normalize(query), self.analyzer.spans)

    def marks_of_all(self, query: str, texts: Sequence[str]) -> list[list[Span]]:
        """`marks` of several texts, for which the query is read once."""
        wanted = {term for term, _, _ in self.analyzer.spans(normalize(query))}
        return [marks_of(wanted, normalize(text), self.analyzer.spans) for text in texts]

    def _hits(self, ranking: Ranking, k: int, trace: Trace, chances: Mapping[int, float] | None = None) -> tuple[Hit, ...]:
        """The first `k` of a ranking that is grouped; equal scores by id, descending (trec_eval)."""
        if len(ranking) > k:  # keep what ties with the k-th, so that the rule for ties decides
            ranking = ranking.top(int((ranking.scores >= ranking.scores[k - 1]).nonzero()[0][-1]) + 1)
        keys, scores = ranking.keys, ranking.scores
        info = self.store.document_info(keys)
        stored = {passage.key: passage for passage in self.store.passages(keys)}
        # What somebody deleted since the indexes were asked is in neither.
        there = [i for i, key in enumerate(keys.tolist()) if key in info and key in stored]
        order = sorted(there, key=lambda i: (scores[i], info[int(keys[i])].id), reverse=True)[:k]
        hits = []
        for rank, i in enumerate(order, start=1):
            passage = stored[int(keys[i])]
            document = info[int(keys[i])]
            hits.append(
                Hit(
                    id=document.id,
                    score=float(scores[i]),
                    rank=rank,
                    text=passage.text,
                    title=document.title,
                    part=passage.part,
                    start=passage.start,
                    end=passage.end,
                    fields=document.fields,
                    source=document.source,
                    probability=(chances or {}).get(int(keys[i])),
                    stages=trace.scores(int(keys[i])),
                )
            )
        return tuple(hits)

    def _documents(self, ranking: Ranking, trace: Trace) -> Ranking:
        """A pipeline's ranking, grouped as the recipe has it."""
        settings, owners = self.recipe.group, self.store.documents_of(ranking.keys)
        return group(ranking, owners, settings.by, settings.passages, scored=trace.scored)


def checked_query(query: str, k: int) -> str:
    if not isinstance(query, str):
        raise QueryError(f"a query is a text; got {type(query).__name__}")
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise QueryError(f"k is how many documents to find, 1 or more; got {k!r}")
    text = normalize(query).strip()
    if not text:
        raise QueryError("the query is empty; say what to look for")
    if len(text) > LONGEST_QUERY:
        raise QueryError(
            f"the query has {len(text):,} characters, at most {LONGEST_QUERY:,} are taken; "
            "to find documents like a long text, ask with its title or its first paragraph"
        )
    return text


def _notes(trace: Trace) -> Iterator[str]:
    if trace.forms:
        yield f"searched as: {' | '.join(trace.forms)}"
    for certificate in trace.certificates:
        if certificate.note or certificate.reason in ("deadline", "tokens"):
            yield str(certificate)
