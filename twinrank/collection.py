"""The whole system over one directory: add, delete, search, status, check; where store, models, index and search meet."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import TypeVar

import numpy as np

from twinrank import learned, weighing
from twinrank.assembly import Assembly
from twinrank.calibrated import Calibrated, identity
from twinrank.derived import Derived, Indexes, one_at_a_time
from twinrank.encoding import NEXT, PassageEncoder, ViewPlan
from twinrank.errors import (
    CollectionError,
    CollectionReadOnlyError,
    DocumentError,
    IndexDamagedError,
    ModelMismatchError,
    QueryError,
    RecipeError,
    StorageError,
    TwinrankError,
)
from twinrank.files import replace_file
from twinrank.index.vectors import VectorIndex
from twinrank.ingest import AddReport, Ingest
from twinrank.learned import Learned
from twinrank.loaded import Loaded
from twinrank.migration import MIGRATED, Migration
from twinrank.parts import without_fields
from twinrank.readers import documents, read
from twinrank.recipe import Recipe
from twinrank.search import filters
from twinrank.search.calibrate import Calibration, Evidence, Feature, Wish, features_of, gather
from twinrank.search.diversify import diversify
from twinrank.search.explain import Span, marks
from twinrank.search.group import group, group_behind
from twinrank.search.pipeline import Pipeline, Trace, Traced
from twinrank.search.rerank import Asked
from twinrank.search.results import Results
from twinrank.status import CheckReport, Status, ViewStatus
from twinrank.stopping import Rule
from twinrank.store import CREATING, FILE_NAME, FieldSummary, Store, View, make_folder
from twinrank.text import Analyzer, counted, normalize
from twinrank.types import Condition, Document, Encoder, Hit, Keys, Membership, Not, Ranking, Vectors
from twinrank.views import add_view, check_view, is_kept, make_views

RECIPE = "recipe.toml"
TRANSLATED = "translated"
"""Under this name the store keeps the fields that translations are in, a line each."""
WRITER_PATIENCE = 10.0
"""Seconds that a writer waits for another one."""

TRIES = 10
"""How often a search is begun again because somebody wrote meanwhile, before it makes writers wait."""

LONGEST_QUERY = 65_536
"""Characters; a text beyond that is a document, not a query."""

T = TypeVar("T")


class Collection:
    """Documents, their views and indexes in one directory, opened or created.

    >>> from tempfile import mkdtemp
    >>> notes = Collection(mkdtemp() + "/notes.twinrank", model="none")  # words alone: needs no encoder
    >>> notes.add([{"id": "a1", "title": "Zinc", "text": "Zinc may shorten a cold.", "year": 2021}]).added
    1
    >>> [hit.id for hit in notes.search("does zinc help against colds?", where="year >= 2015")]
    ['a1']
    >>> notes.delete(["a1"])
    ['a1']

    One process writes at a time, any number read; a search sees every write that was acknowledged before it began.
    """

    def __init__(
        self, path: str | Path, *, recipe: Recipe | str | Path | None = None, model: str | None = None, create: bool = True
    ) -> None:
        """Open the collection at `path`, or create it there where nothing is and `create` allows.

        `recipe` (a Recipe, a TOML file or a built-in name) is written into a new collection; with one that is there it
        holds for this object alone, and its recipe.toml stays as it is. `model` replaces the recipe's encoder.
        """
        self.path = Path(path)
        known = _is_collection(self.path, create)
        if known:
            self.store = Store.open(self.path, create=False)
            self._take_migrated()
        chosen = self._choose_recipe(recipe, model)
        self._asked = _as_options(recipe, model)
        """What of the recipe was asked for here, as a command's options; empty where the collection's own is followed."""
        loaded = Loaded(chosen)
        if not known:
            _ = loaded.passages, Analyzer(chosen.words.language)  # what is wrong is told before anything is made
            make_folder(self.path)
            self._write_recipe(chosen)  # before the store, with which the folder becomes a collection
            self.store = Store.open(self.path)
        self.notices: list[str] = []
        """What the user should hear: indexes that were made anew, and why. Whoever shows them empties the list."""
        if not known:
            self._note_cut(chosen)
        self._noted: set[str] = set()
        self._lock = threading.RLock()
        self._calibrated = Calibrated(self.path, self._note_once)
        self._use(chosen, loaded)

    def _use(self, recipe: Recipe, loaded: Loaded) -> None:
        self.recipe = recipe
        self.analyzer = Analyzer(recipe.words.language)
        self._loaded = loaded
        self._derived = Derived(
            self.path / "index",
            self.store,
            self.analyzer,
            self.notices.append,
            words=self._word_folder(),
            vectors=recipe.index,
            multivectors=recipe.retrieve.tokens > 0,
        )
        self._assembly = Assembly(recipe, loaded, self.store, self.analyzer, self._checked)

    def _word_folder(self) -> str:
        """A search in another language than the collection's does not touch the collection's index."""
        kept, language = self.path / RECIPE, self.recipe.words.language
        return f"words-{language}" if kept.exists() and Recipe.load(kept).words.language != language else "words"

    def _follow_recipe(self) -> bool:
        """Take up the recipe that another process put in place, as by migrating; False where there is none to take up."""
        if self._asked:
            return False
        kept = Recipe.load(self.path / RECIPE)
        if kept == self.recipe:
            return False
        with self._lock:
            self._derived.close()
            self._use(kept, Loaded(kept))
        self.notices.append(f"the recipe of {self.path} was changed meanwhile; it is followed from here on")
        return True

    def _choose_recipe(self, recipe: Recipe | str | Path | None, model: str | None) -> Recipe:
        if isinstance(recipe, Recipe):
            chosen = recipe
        elif recipe is not None:
            chosen = Recipe.load(recipe)
        else:
            kept = self.path / RECIPE
            chosen = Recipe.load(kept) if kept.exists() else Recipe()
        return chosen if model is None else chosen.with_model(model)

    def _keep_recipe(self) -> None:
        self._note_cut(self.recipe)
        self._write_recipe(self.recipe)

    def _note_cut(self, recipe: Recipe) -> None:
        """What the store says of its passages: how they are cut, and which field the translations are in."""
        self.store.set_meta("passages", recipe.stored)
        self.store.set_meta(TRANSLATED, "" if recipe.translate is None else recipe.translate.field)

    def _write_recipe(self, recipe: Recipe) -> None:
        kept = self.path / RECIPE
        if kept.exists() and Recipe.load(kept) == recipe:
            return  # what a person wrote beside the values stays
        try:
            replace_file(kept, recipe.to_toml())
        except OSError as error:
            raise StorageError(f"{kept} cannot be written: {error.strerror}") from error

    def close(self) -> None:
        self._derived.close()
        self.store.close()

    def __enter__(self) -> Collection:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def __len__(self) -> int:
        return self.store.count_documents()

    def __contains__(self, document_id: str) -> bool:
        return self.get([document_id])[0] is not None

    def __repr__(self) -> str:
        return f"Collection({str(self.path)!r}, {counted(len(self), 'document')})"

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One writer at a time, among threads and among processes; without permission to write the store says so."""
        with self._lock:
            if not self.store.writable:
                yield
                return
            with one_at_a_time(self.path / ".writing", WRITER_PATIENCE, f"writing to {self.path}"):
                yield

    # -- changing --------------------------------------------------------------------------------------------------------

    def add(self, source: object, *, progress: Callable[[int], None] | None = None) -> AddReport:
        """Add documents, or replace those of the same ids; unchanged ones cost nothing, unchanged passages no encoding.

        `source` is a mapping, a Document or other dataclass, an iterable of these (read as a stream), a DataFrame, or the
        path of a file or folder. Documents are written in batches, each whole or not at all; where a document of a stream
        is refused (DocumentError), the batches before it stay, and adding the stream again continues behind them. What is
        in memory already (a list, a mapping) is looked through first, so that it is added whole or not at all. A file that
        cannot be read is skipped and named in the report. `progress` is told how many more documents are done.
        """
        report = AddReport()
        if isinstance(source, (str, Path)):
            given: Iterable[Document] = read(Path(source), on_problem=report.problems.append)
        elif isinstance(source, (list, tuple)):
            given = list(documents(source))
        else:
            given = documents(source)
        with self._writing():
            self._check_passages()
            encoder, translate = self._writing_encoder(), self._loaded.translate
            Ingest(self.store, encoder, self.recipe.passages, translate).add(given, report, progress)
            self._assembly.weigh(self._derived.refresh())
            self._derived.tidy()
        return report

    def delete(self, ids: Iterable[str] | str) -> list[str]:
        """Delete documents; returns the ids that were there."""
        with self._writing():
            gone = self.store.delete([ids] if isinstance(ids, str) else list(ids))
            self._derived.refresh()
            self._derived.tidy()
        return gone

    def rebuild(self, *, encode: bool = False, progress: Callable[[int], None] | None = None) -> AddReport | None:
        """Make the derived indexes anew; with `encode` also cut and encode every document again, by the recipe as it is now.

        An interrupted re-encoding is finished by calling this again; until then the collection refuses to search vectors.
        """
        if not self.store.writable:
            raise CollectionReadOnlyError(f"{self.path} cannot be changed: no permission to write; searching works")
        if not encode:
            with self._writing():
                self._derived.rebuild()
            return None
        with self._encoding_anew(), self._writing():
            report = self._encode_again(progress)
            self._derived.rebuild()
        return report

    def _encoding_anew(self) -> AbstractContextManager[None]:
        """One migration or re-encoding at a time: two would put the vectors of two models into one view."""
        return one_at_a_time(self.path / ".migrating", WRITER_PATIENCE, f"encoding the documents of {self.path} anew")

    def migrate(
        self,
        model: str | None = None,
        *,
        recipe: Recipe | str | Path | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> AddReport:
        """Take another model, or the encoder and tokens of another recipe: the old vectors serve until all new ones are there.

        Others may search and write meanwhile. What is interrupted goes on when it is called again. The passages stay as they
        are cut; a recipe that cuts them otherwise is refused.
        """
        if not self.store.writable:
            raise CollectionReadOnlyError(f"{self.path} cannot be changed: no permission to write; searching works")
        new = self._choose_recipe(recipe, model)
        loaded = Loaded(new)
        migration = Migration(self.store, new, loaded.passages, self._writing)
        with self._encoding_anew():
            migration.check()
            report = migration.run(progress)
            with self._writing():
                self._derived.close()
                self._use(new, loaded)
                self._asked = ""  # it is kept now
                self._take_migrated()
                self._derived.refresh()
        return report

    def _take_migrated(self) -> None:
        """After a migration the store knows the recipe; recipe.toml follows, though a process died in between."""
        migrated = self.store.get_meta(MIGRATED)
        if migrated and self.store.writable:
            self._write_recipe(Recipe.parse(migrated))
            self.store.set_meta(MIGRATED, "")

    def _encode_again(self, progress: Callable[[int], None] | None) -> AddReport:
        encoder = self._loaded.passages
        plans = () if encoder is None else encoder.views
        kept = {plan.name for plan in plans if is_kept(self.store, plan)}
        views = self.store.views()
        served = {name: view for name, view in views.items() if not name.endswith(NEXT)}
        complete = set(served) == kept == {plan.name for plan in plans} and all(view.complete for view in served.values())
        if complete or self.store.get_meta("passages") != self.recipe.stored:
            kept = set()  # everything anew; otherwise only what is missing
        for name in set(views) - kept:
            self.store.drop_view(name)
        report = AddReport()
        ingest = Ingest(self.store, encoder, self.recipe.passages, self._loaded.translate, encode=False)
        if not kept:
            self._expect_translations()
            ingest.add(self._all_documents(), report)
        self._keep_recipe()
        for plan in plans:
            view = add_view(self.store, plan)
            if not view.complete:
                ingest.encode_missing(plan.name, report, progress)
                self.store.complete_view(plan.name)
        return report

    def _expect_translations(self) -> None:
        """Note the field that is about to be filled beside the one before: an interrupted call leaves documents of either."""
        translated = (self.store.get_meta(TRANSLATED) or "").splitlines()
        if self.recipe.translate is None or (field := self.recipe.translate.field) in translated:
            return
        if field in self.store.field_summary():
            raise DocumentError(
                f"{self.path} has documents with a field {field!r} of their own, where translations are to be kept; "
                "name another in the recipe: [translate], field"
            )
        self.store.set_meta(TRANSLATED, "\n".join([*translated, field]))

    def _all_documents(self) -> Iterable[Document]:
        """As they were given: without their translations."""
        ids, translated = list(self.store.document_ids()), (self.store.get_meta(TRANSLATED) or "").splitlines()
        for start in range(0, len(ids), 256):
            for document in self.store.get(ids[start : start + 256]):
                if document is not None:
                    yield without_fields(document, translated)

    def _check_passages(self) -> None:
        stored = self.store.get_meta("passages")
        if stored is None:  # a process died between making the collection and this
            self._note_cut(self.recipe)
        elif stored != self.recipe.stored:
            raise RecipeError(
                f"{self.path} cuts its passages by {stored}, the recipe asks for {self.recipe.stored}; "
                f"put the recipe back, or cut and encode everything again: {self._again}"
            )

    # -- asking ----------------------------------------------------------------------------------------------------------

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

    def _search(self, query: str, k: int, where: str | None, deadline: float | None, wish: Wish) -> Results:
        started = perf_counter()
        text = checked_query(query, k)
        if deadline is not None and not 0 <= deadline < float("inf"):
            raise QueryError(f"a deadline is in milliseconds from now, 0 or more; got {deadline!r}")
        asked = Asked(k, None if deadline is None else started + deadline / 1000)
        condition = None if where is None else filters.parse(where)
        self._derived.refresh()
        allowed = None if condition is None else self.store.select(condition)
        available = self.store.count_passages() if allowed is None else len(allowed)
        calibration = self._calibrated.get(self._assembly, needed=bool(wish))
        if available == 0:
            verdict = calibration.answer((), k, wish)[1] if calibration else None
            return Results(query, (), perf_counter() - started, verdict=verdict)
        pipeline = self.pipeline()
        ranking, trace = pipeline.run(text, allowed, asked)
        chances: dict[int, float] = {}
        if calibration is not None:
            evidence = gather(pipeline, trace, self._documents(ranking, trace), text)
            found = calibration.probabilities(evidence, features_of(pipeline))
            chances = dict(zip(evidence.keys.tolist(), found.tolist(), strict=False))
        hits = self._hits(self._documents(ranking, trace), k, trace, chances)
        # The first k do not depend on k: what a larger k asks for beyond the candidates comes behind them.
        depth = len(ranking)
        while len(hits) < k and depth < available:
            depth = min(max(4 * depth, k), available)
            deeper = pipeline.run_behind(ranking, text, depth, allowed, trace)
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
        index = self._derived.refresh().vectors
        plan = index.plan if index is not None and self.recipe.retrieve.vectors else ""
        notes, weights = tuple(_notes(trace)), str(trace.weighing or "")
        return Results(query, hits, perf_counter() - started, tuple(stages), notes, certificates, verdict, plan, weights)

    def pipeline(self, recipe: Recipe | None = None) -> Pipeline:
        """The stages that answer a query, over the documents as they are now; by another recipe where one is given.

        Another recipe searches what is stored as it is: its encoder, passages, tokens and language have to be the collection's.
        """
        assembly = self._assembly if recipe is None else replace(self._assembly, recipe=recipe)
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
        allowed = self.store.select(Not(Membership("id", tuple(without)))) if without else None
        pipeline = self.pipeline()
        if not (len(self) if allowed is None else len(allowed)):
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
        allowed = None if condition is None else self.store.select(condition)
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

    def _mean_vector(self, ids: Sequence[str], index: VectorIndex) -> Vectors:
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

    # -- models ----------------------------------------------------------------------------------------------------------

    @property
    def encoder(self) -> Encoder | None:
        """What gives a passage its one vector, opened when first asked for; None where the recipe has no such model."""
        return self._loaded.encoder

    @property
    def _again(self) -> str:
        """The command that encodes all documents by the recipe that is in use, which need not be the one that is kept."""
        return f"twinrank rebuild --encode{self._asked} -c {shlex.quote(str(self.path))}"

    def _finish(self, view: View) -> str:
        """The command that completes a view."""
        if not view.name.endswith(NEXT):
            return self._again
        # Token vectors are asked for by a recipe, which the view does not tell.
        to = f"--to {shlex.quote(view.model)}" if view.kind == "vector" else "with the --recipe that it was begun with"
        return f"twinrank migrate {to} -c {shlex.quote(str(self.path))}"

    def _writing_encoder(self) -> PassageEncoder | None:
        """The models, with their views there to take what they give."""
        encoder = self._loaded.passages
        try:
            make_views(self.store, () if encoder is None else encoder.views, self._again)
        except ModelMismatchError:
            if not self._follow_recipe():
                raise
            return self._writing_encoder()
        return encoder

    def _checked(self, plan: ViewPlan) -> None:
        """Make sure, before searching, that a view is of the recipe's model, and all there."""
        if (notice := check_view(self.store, plan, self._again)) is not None:
            self._note_once(notice)

    def _note_once(self, notice: str) -> None:
        if notice not in self._noted:
            self._noted.add(notice)
            self.notices.append(notice)

    # -- its state -------------------------------------------------------------------------------------------------------

    def status(self) -> Status:
        """What the collection holds and what state its parts are in; opens no model."""
        views = []
        for view in self.store.views().values():
            truncated, dropped = self.store.truncation(view.name)
            views.append(ViewStatus(view.name, view.model, view.fingerprint, view.dimension, view.complete, truncated, dropped))
        indexes = self._derived.status()
        return Status(
            path=str(self.path),
            documents=self.store.count_documents(),
            passages=self.store.count_passages(),
            sequence=self.store.sequence(),
            views=tuple(views),
            indexes=indexes,
            fields={name: _field_summary(summary) for name, summary in self.store.field_summary().items()},
            size=self.store.size() + sum(index.size for index in indexes),
            free=self.store.free(),
            writable=self.store.writable,
            recipe=self.recipe.to_toml(),
            weights=weighing.told(self.store) if self.recipe.fuse.method == "auto" else "",
        )

    def check(self) -> CheckReport:
        """Verify the store and the derived indexes, row by row and byte by byte; opens no model."""
        checked = [counted(self.store.count_documents(), "document"), counted(self.store.count_passages(), "passage")]
        problems = self.store.check()
        problems += [
            f"view {view.name} lacks the vectors of some passages: an encoding was interrupted; finish it: {self._finish(view)}"
            for view in self.store.views().values()
            if not view.complete
        ]
        names, found = self._derived.check()
        return CheckReport((*checked, *names), (*problems, *found))


def _is_collection(path: Path, create: bool) -> bool:
    """Whether a collection is at `path`; raises CollectionError where something else is, or nothing and none may be made."""
    if path.exists() and not path.is_dir():
        raise CollectionError(f"{path} is a file; a collection is a directory. Name another place with -c")
    try:
        if (path / FILE_NAME).exists():
            return True
        empty = not path.exists() or all(_is_unfinished(part.name) for part in path.iterdir())
    except PermissionError as error:
        raise CollectionError(f"{path} cannot be read: no permission") from error
    if not empty:
        raise CollectionError(f"{path} is a directory with other files in it and no collection; name a new or an empty one")
    if not create:
        raise CollectionError(f"there is no collection at {path}; make one: twinrank index DOCS -c {path}")
    return False


def _as_options(recipe: Recipe | str | Path | None, model: str | None) -> str:
    """What a command line says to have the same recipe."""
    given = {"recipe": None if isinstance(recipe, Recipe) else recipe, "model": model}
    return "".join(f" --{name} {shlex.quote(str(value))}" for name, value in given.items() if value is not None)


def _is_unfinished(name: str) -> bool:
    """Whether a file is what a process leaves that died while it was making a collection."""
    return name in (RECIPE, CREATING) or name.startswith((f".{RECIPE}-", f"{FILE_NAME}.new"))


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


def _field_summary(summary: FieldSummary) -> str:
    types = ", ".join(f"{kind} {count:,}" for kind, count in summary.types.items())
    return f"{types} of {counted(summary.documents, 'document')}"
