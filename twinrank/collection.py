"""The whole system over one directory: add, delete, search, status, check; where store, models, index and search meet."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from twinrank import weighing
from twinrank.asking import Asking
from twinrank.assembly import Assembly
from twinrank.calibrated import Calibrated
from twinrank.encoding import NEXT, PassageEncoder, ViewPlan
from twinrank.errors import (
    CollectionReadOnlyError,
    DocumentError,
    ModelMismatchError,
    RecipeError,
)
from twinrank.ingest import AddReport, Ingest
from twinrank.loaded import Loaded
from twinrank.migration import MIGRATED, Migration
from twinrank.parts import without_fields
from twinrank.places import is_address, place_of
from twinrank.readers import documents, read
from twinrank.recipe import Recipe
from twinrank.status import CheckReport, Status, ViewStatus
from twinrank.store import FieldSummary, Store, View
from twinrank.text import Analyzer, counted
from twinrank.types import Document, Encoder
from twinrank.views import add_view, check_view, is_kept, make_views
from twinrank.workers import Workers, at_work

TRANSLATED = "translated"
"""Under this name the store keeps the fields that translations are in, a line each."""
CUT = "cut"
"""Under this name it keeps how documents were cut when the first of them came, which a migration does not change."""
WRITER_PATIENCE = 10.0
"""Seconds that a writer waits for another one."""
KEPT_EVERY = 2048
"""Passages added after which the indexes are brought up to date: so many at most does an opening after a crash take in."""


class Collection(Asking):
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
        self._place = place_of(path)
        self.path = self._place.where
        try:
            self._open(recipe, model, create)
        except BaseException:
            self._place.close()
            raise

    def _open(self, recipe: Recipe | str | Path | None, model: str | None, create: bool) -> None:
        known = self._place.is_there(create)
        if known:
            self.store = self._place.open()
            self._take_migrated()
        chosen = self._choose_recipe(recipe, model, self._kept_recipe if known else self._written_recipe)
        self._asked = _as_options(recipe, model)
        """What of the recipe was asked for here, as a command's options."""
        self._follows = recipe is None and model is None
        """Whether the collection's own recipe is followed, whoever changes it."""
        loaded = Loaded(chosen)
        if not known:
            _ = loaded.passages, Analyzer(chosen.words.language)  # what is wrong is told before anything is made
            self.store = self._place.make(chosen, 0 if loaded.encoder is None else loaded.encoder.dimension)
        self.notices: list[str] = []
        """What the user should hear: indexes that were made anew, and why. Whoever shows them empties the list."""
        if not known:
            self._note_cut(chosen)
        elif problems := self.store.check_structure():
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            self.notices.append(f"{self.path} is damaged: {problems[0]}{more}; restore it from a copy")
        self._noted: set[str] = set()
        self._lock = threading.RLock()
        self._calibrated = Calibrated(self._place, self._note_once)
        self._use(chosen, loaded)

    def _use(self, recipe: Recipe, loaded: Loaded) -> None:
        self.recipe = recipe
        self.analyzer = Analyzer(recipe.words.language)
        self._loaded = loaded
        self._derived = self._place.searching(recipe, self.analyzer, self.notices.append)
        self._assembly = Assembly(recipe, loaded, self.store, self.analyzer, self._checked)

    def _follow_recipe(self) -> bool:
        """Take up the recipe that another process put in place, as by migrating; False where there is none to take up."""
        if not self._follows:
            return False
        kept = self._kept_recipe()
        if kept == self.recipe:
            return False
        with self._lock:
            self._derived.close()
            self._use(kept, Loaded(kept))
        self.notices.append(f"the recipe of {self.path} was changed meanwhile; it is followed from here on")
        return True

    def _choose_recipe(self, recipe: Recipe | str | Path | None, model: str | None, otherwise: Callable[[], Recipe]) -> Recipe:
        if isinstance(recipe, Recipe):
            chosen = recipe
        elif recipe is not None:
            chosen = Recipe.load(recipe)
        else:
            chosen = otherwise()
        return chosen if model is None else chosen.with_model(model)

    def _kept_recipe(self) -> Recipe:
        """recipe.toml, or the recipe of a migration that ended while nobody was there who may write it down."""
        migrated = self.store.get_meta(MIGRATED)
        return Recipe.parse(migrated) if migrated else self._written_recipe()

    def _written_recipe(self) -> Recipe:
        return self._place.read_recipe() or Recipe()

    def _keep_recipe(self) -> None:
        self._note_cut(self.recipe)
        self._place.write_recipe(self.recipe)

    def _note_cut(self, recipe: Recipe) -> None:
        """What the store says of its passages: how they are cut, and which field the translations are in."""
        self.store.set_meta("passages", recipe.stored)
        self.store.set_meta(TRANSLATED, "" if recipe.translate is None else recipe.translate.field)

    def own_folder(self, doing: str) -> Path:
        """The folder that it is in, for what is done to files; raises CollectionError for a collection in an engine."""
        return self._place.own_store(doing).folder

    def stores_by(self, recipe: Recipe) -> bool:
        """Whether documents are stored as a recipe would have them, so that it can search them."""
        wanted, kept = [(one.encoder, one.passages, one.tokens, one.translate) for one in (recipe, self.recipe)]
        return wanted == kept

    def take_recipe(self, recipe: Recipe) -> None:
        """Keep a recipe that searches what is stored in another way, and follow it; RecipeError where it stores otherwise."""
        if not self.stores_by(recipe):
            raise RecipeError(f"the recipe stores documents in another way than {self.path} does; {self._again} does it")
        with self._writing():
            self._place.write_recipe(recipe)
            self._derived.close()
            self._use(recipe, Loaded(recipe))

    def settle(self) -> None:
        """Build what speeds searches up: an approximate index of a folder, an engine's index of what was loaded."""
        self._derived.complete()

    def read_text(self, name: str) -> str | None:
        """A text that is kept beside the recipe, such as tuning.json; None where there is none."""
        found = self._place.read_text(name)
        return None if found is None else found[1]()

    def write_text(self, name: str, text: str) -> None:
        """Keep a text beside the recipe, in the place of the one before."""
        self._place.write_text(name, text)

    def named(self, name: str) -> str:
        """What holds such a text, for messages."""
        return self._place.named(name)

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
            with self._place.writing(WRITER_PATIENCE):
                yield

    # -- changing --------------------------------------------------------------------------------------------------------

    def add(
        self, source: object, *, progress: Callable[[int], None] | None = None, workers: Workers | int | None = None
    ) -> AddReport:
        """Add documents, or replace those of the same ids; unchanged ones cost nothing, unchanged passages no encoding.

        `source` is a mapping, a Document or other dataclass, an iterable of these (read as a stream), a DataFrame, or the
        path of a file or folder. Documents are written in batches, each whole or not at all; where a document of a stream
        is refused (DocumentError), the batches before it stay, and adding the stream again continues behind them. What is
        in memory already (a list, a mapping) is looked through first, so that it is added whole or not at all. A file that
        cannot be read is skipped and named in the report. `progress` is told how many more documents are done.

        Between batches, while it waits for a stream, others may write.

        With `workers`, a number of processes or `Workers(ray=…)`, these encode, and this process reads and writes; the
        outcome is the same.
        """
        report = AddReport()
        if isinstance(source, (str, Path)):
            given: Iterable[Document] = read(Path(source), on_problem=report.problems.append)
        elif isinstance(source, (list, tuple)):
            given = list(documents(source))
        else:
            given = documents(source)
        ingest = self._ingest()
        with at_work(workers) as others:
            helpers = None if others is None else others.pool(self.recipe, ingest.preparation)
            ingest.add(given, report, progress, lambda: self._batch(ingest, report), helpers)
        with self._writing():
            self._assembly.weigh(self._derived.refresh(keep=True))
            self._derived.tidy()
        self._derived.complete()
        return report

    def _ingest(self) -> Ingest:
        with self._writing():
            self._check_passages()
            ingest = Ingest(self.store, self._writing_encoder(), self.recipe.passages, self._loaded.translate)
            if (cut_by := self.store.get_meta(CUT)) is None:
                self.store.set_meta(CUT, cut_by := ingest.cutting)
            return replace(ingest, cut_by=cut_by)

    @contextmanager
    def _batch(self, ingest: Ingest, report: AddReport) -> Iterator[None]:
        """Hold the collection for one batch, if it still is what the documents are cut and encoded for."""
        with self._writing():
            self._check_passages()
            if self._writing_encoder() is not ingest.encoder:
                raise ModelMismatchError(f"{self.path} was migrated while documents were added to it; add the rest again")
            before = report.passages
            yield
            if report.passages // KEPT_EVERY > before // KEPT_EVERY:
                self._derived.refresh(keep=True)
                self._derived.tidy()

    def delete(self, ids: Iterable[str] | str) -> list[str]:
        """Delete documents; returns the ids that were there."""
        with self._writing():
            gone = self.store.delete([ids] if isinstance(ids, str) else list(ids))
            self._derived.refresh(keep=True)
            self._derived.tidy()
        self._derived.complete()
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
            self._derived.complete()
            return None
        store = self._place.own_store("encoded anew")
        with self._place.encoding_anew(WRITER_PATIENCE), self._writing():
            report = self._encode_again(store, progress)
            self._derived.rebuild()
        self._derived.complete()
        return report

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
        new = self._choose_recipe(recipe, model, self._kept_recipe if self._follows else lambda: self.recipe)
        loaded = Loaded(new)
        migration = Migration(self._place.own_store("migrated"), new, loaded.passages, self._writing)
        with self._place.encoding_anew(WRITER_PATIENCE):
            migration.check()
            report = migration.run(progress)
            with self._writing():
                self._derived.close()
                self._use(new, loaded)
                self._asked, self._follows = "", True  # it is kept now
                self._take_migrated()
                self._derived.refresh(keep=True)
        self._derived.complete()
        return report

    def _take_migrated(self) -> None:
        """After a migration the store knows the recipe; recipe.toml follows, though a process died in between."""
        migrated = self.store.get_meta(MIGRATED)
        if migrated and self.store.writable:
            self._place.write_recipe(Recipe.parse(migrated))
            self.store.set_meta(MIGRATED, "")

    def _encode_again(self, store: Store, progress: Callable[[int], None] | None) -> AddReport:
        encoder = self._loaded.passages
        plans = () if encoder is None else encoder.views
        kept = {plan.name for plan in plans if is_kept(store, plan)}
        views = store.views()
        served = {name: view for name, view in views.items() if not name.endswith(NEXT)}
        complete = set(served) == kept == {plan.name for plan in plans} and all(view.complete for view in served.values())
        if complete or store.get_meta("passages") != self.recipe.stored:
            kept = set()  # everything anew; otherwise only what is missing
        for name in set(views) - kept:
            store.drop_view(name)
        report = AddReport()
        ingest = Ingest(store, encoder, self.recipe.passages, self._loaded.translate, encode=False)
        if not kept:
            store.set_meta(CUT, ingest.cutting)
            self._expect_translations()
            ingest.add(self._all_documents(), report)
        self._keep_recipe()
        for plan in plans:
            view = add_view(store, plan)
            if not view.complete:
                ingest.encode_missing(store, plan.name, report, progress)
                store.complete_view(plan.name)
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

    # -- models ----------------------------------------------------------------------------------------------------------

    @property
    def encoder(self) -> Encoder | None:
        """What gives a passage its one vector, opened when first asked for; None where the recipe has no such model."""
        return self._loaded.encoder

    @property
    def _again(self) -> str:
        """The command that encodes all documents by the recipe that is in use, which need not be the one that is kept."""
        if is_address(self.path):  # an engine's documents are not encoded in their place
            return f"twinrank index DOCS{self._asked or ' --recipe FILE'} -c ANOTHER"
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
            truncated, dropped = self.store.truncation(view.name) or (None, None)
            told = (view.name, view.model, view.fingerprint, view.dimension, view.complete, truncated, dropped)
            views.append(ViewStatus(*told, finish="" if view.complete else self._finish(view)))
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
        notes = []
        for view in self.store.views().values():
            if view.complete:
                continue
            if view.name.endswith(NEXT):
                way = "is on its way" if self._place.is_encoding_anew() else "was begun, and interrupted"
                notes.append(f"a migration to {view.model} {way}; what finishes it: {self._finish(view)}")
            else:
                problems.append(
                    f"view {view.name} lacks the vectors of some passages: an encoding was interrupted; finish it: "
                    f"{self._finish(view)}"
                )
        names, found = self._derived.check()
        return CheckReport((*checked, *names), (*problems, *found), tuple(notes))


def _as_options(recipe: Recipe | str | Path | None, model: str | None) -> str:
    """What a command line says to have the same recipe."""
    given = {"recipe": None if isinstance(recipe, Recipe) else recipe, "model": model}
    return "".join(f" --{name} {shlex.quote(str(value))}" for name, value in given.items() if value is not None)


def _field_summary(summary: FieldSummary) -> str:
    if summary.long:
        return "long texts, which conditions cannot be over"
    types = ", ".join(f"{kind} {count:,}" for kind, count in summary.types.items())
    return f"{types} of {counted(summary.documents, 'document')}"
