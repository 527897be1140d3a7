"""A collection → models that fit it: examples are made, mined and learned from; the result is measured, and taken if better."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from twinrank.collection import Collection
from twinrank.errors import CalibrationError, DataError, InputError, ModelUnsupportedError
from twinrank.evaluate import calibrating
from twinrank.evaluate.experiment import Experiment, evaluate
from twinrank.evaluate.significance import Paired, compare
from twinrank.files import replace_file
from twinrank.models.checkpoint import Checkpoint
from twinrank.models.kinds import recognise
from twinrank.places import RECIPE
from twinrank.readers import Dataset, read_dataset
from twinrank.recipe import NO_MODEL, Recipe, RerankSettings
from twinrank.text import counted
from twinrank.train.data import Example, read_examples, write_examples
from twinrank.train.distill import teach
from twinrank.train.guard import MIX
from twinrank.train.made import WAYS, Left, Way
from twinrank.train.material import Material, Stored, of_collection, unmatched
from twinrank.train.measuring import FEWEST_QUERIES, Extent, split_for_measuring, write_judged
from twinrank.train.negatives import Mining
from twinrank.train.networks import require_extra
from twinrank.train.pending import Pending, digest_of
from twinrank.train.settings import (
    Architecture,
    DataSettings,
    GuardSettings,
    LossSettings,
    ModelSettings,
    TrainingSettings,
    TrainSettings,
)
from twinrank.train.trainer import train
from twinrank.train.written import QueryWriter
from twinrank.types import Qrels

FOLDER = "adapt"
"""Beneath the collection: what an adaption made, step by step, and the models that came of it."""
MEASURE = "nDCG@10"

Progress = Callable[[str, int], None]


@dataclass(frozen=True)
class AdaptSettings:
    """What an adaption does; equal ones over an unchanged collection go on where an interrupted one stopped."""

    teacher: str = ""
    """A cross-encoder, by name or folder, that is trained and then teaches; none: the student learns from examples alone."""
    rerank: int = 0
    """Above 0, pipelines that rerank so many candidates with the teacher are tried too."""
    ways: tuple[Way, ...] = WAYS
    documents: int = 10_000
    """That examples are made of, at most."""
    examples: int = 4_000
    """To learn from, at most; people's queries come first."""
    corpus: int = 5_000
    """Documents that is measured over, at most: those that the queries of dev and test are of, and others by chance."""
    queries: int = 400
    """Of dev and of test, at most."""
    negatives: int = 4
    """That are mined for an example."""
    epochs: float = 1.0
    batch: int = 32
    rate: float = 3e-5
    max_tokens: int = 192
    frozen: int = 0
    """Lower layers of the student that stay as they are."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rerank and not self.teacher:
            raise InputError("rerank says how many candidates the teacher reranks; give a teacher")
        if self.queries < FEWEST_QUERIES:
            raise InputError(f"dev and test take {FEWEST_QUERIES} queries each at least; got {self.queries}")


@dataclass(frozen=True)
class AdaptReport:
    """What an adaption did, and what came of it."""

    examples: int
    made: bool
    """Whether the queries that were measured on were made of the collection's own texts."""
    dev: Mapping[str, float]
    """Pipeline → nDCG@10 on dev, by which one was chosen."""
    chosen: str
    before: float
    """nDCG@10 on test of the recipe as it was."""
    after: float
    difference: Paired
    switched: bool
    recipe: Recipe
    """The one in use now."""
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        kind = "queries made of its own texts" if self.made else "its judged queries"
        lines = [f"{counted(self.examples, 'example')} to learn from; measured on {kind}"]
        lines += [f"dev   {MEASURE} {value:.4f}  {name}" for name, value in self.dev.items()]
        difference = self.difference
        lines.append(f"test  {MEASURE} {self.before:.4f}  as it was")
        lines.append(f"test  {MEASURE} {self.after:.4f}  {self.chosen}")
        sure = "" if difference.low is None else f", 95 % interval [{difference.low:+.4f}, {difference.high:+.4f}]"
        p = "" if difference.p is None else f", p {difference.p:.4f}"
        lines.append(f"difference {difference.mean:+.4f}{sure}{p}, {difference.queries:,} queries: {difference.verdict}")
        lines.append("the collection now searches with it" if self.switched else "the collection searches as before")
        return "\n".join([*lines, *self.notes])

    def as_json(self) -> dict[str, object]:
        return {**asdict(replace(self, recipe=Recipe())), "recipe": self.recipe.to_toml()}

    @classmethod
    def read(cls, file: Path) -> AdaptReport:
        told = json.loads(file.read_text(encoding="utf-8"))
        recipe, difference = Recipe.parse(told["recipe"], name=str(file)), Paired(**told["difference"])
        return cls(**{**told, "recipe": recipe, "difference": difference, "notes": tuple(told["notes"])})


def adapt(
    collection: Collection,
    settings: AdaptSettings | None = None,
    *,
    queries: Mapping[str, str] | None = None,
    qrels: Qrels | None = None,
    writer: QueryWriter | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> AdaptReport:
    """Fit the collection's encoder to its texts, and switch to it where that is better on queries that nobody learned from.

    Examples are made of the documents, and of judged queries where they are given; they are parted by document into train, dev
    and test. With judged queries, or written ones, dev and test are of these alone. One of several pipelines is chosen by dev,
    and taken only if test shows that it is better. Everything is kept in the collection's folder `adapt`, so that what was
    interrupted goes on where it was. `progress` is told (what, how many more are done), `say` what is being done, in sentences.

    Raises InputError where there is no encoder to adapt, RecipeError or an error of models where settings or teacher make no
    training, DataError where there are too few queries to measure by, MissingExtraError without torch.
    """
    work = _Work(collection, settings or AdaptSettings(), progress or (lambda what, done: None), say or (lambda told: None))
    report = work.begin(queries or {}, qrels or {}, writer)
    if report is not None:
        return work.switch(report)
    require_extra()  # rather than after an hour of mining
    parts = work.material(queries or {}, qrels or {}, writer)
    mined = work.mined(parts)
    teacher = work.teacher(mined)
    student = work.student(work.taught(mined, teacher))
    return work.conclude(parts, student, teacher)


@dataclass(frozen=True)
class _Parts:
    examples: list[Example]
    made: bool
    judged: Path
    """A folder in BEIR's layout, with dev and test."""
    known: dict[str, set[str]]
    left: dict[str, Left]
    notes: tuple[str, ...]


@dataclass
class _Work:
    """An adaption under way: each step leaves a file, and one whose file is there is not done again."""

    collection: Collection
    settings: AdaptSettings
    progress: Progress
    say: Callable[[str], None]
    folder: Path = Path()
    pending: Pending = field(init=False)

    @property
    def before(self) -> Recipe:
        return self.collection.recipe

    @property
    def architecture(self) -> Architecture:
        kinds: dict[str, Architecture] = {
            "BiEncoder": "bi-encoder",
            "TwinTower": "twin-tower",
            "LateInteraction": "late-interaction",
        }
        model = self.before.encoder.model
        kind = "none" if model == NO_MODEL else str(recognise(model))
        if kind not in kinds:
            raise InputError(
                f"{self.collection.path} has no encoder to adapt ({model}); give it one: twinrank rebuild --encode --model NAME"
            )
        return kinds[kind]

    # -- steps -----------------------------------------------------------------------------------------------------------

    def begin(self, queries: Mapping[str, str], qrels: Qrels, writer: QueryWriter | None) -> AdaptReport | None:
        """Find the folder of this adaption: one for these settings, queries and models, and the collection as it is now.

        The report, where it was finished but for the switch. What makes no training is refused here, before hours of work.
        """
        self._check()
        asked = {
            **asdict(self.settings),
            "weights": teacher_weights(self.settings.teacher),
            "writer": "" if writer is None else writer.name,
            "queries": sorted(queries.items()),
            "qrels": sorted((query, sorted(grades.items())) for query, grades in qrels.items()),
        }
        adapted = (self.collection.own_folder("adapted") / FOLDER).absolute()
        self.pending = Pending(adapted / "switching.json", digest_of(asked))
        if kept := self.pending.find(self.before):
            self.folder = adapted / kept
            return AdaptReport.read(self.folder / DONE)
        told = {
            **asked,
            "architecture": self.architecture,
            "recipe": self.before.to_toml(),
            "sequence": self.collection.store.sequence(),
        }
        self.folder = adapted / digest_of(told)
        self.folder.mkdir(parents=True, exist_ok=True)
        if (self.folder / DONE).exists():
            return AdaptReport.read(self.folder / DONE)
        replace_file(self.folder / "settings.json", json.dumps(told, ensure_ascii=False, indent=1))
        return None

    def _check(self) -> None:
        """Make what the settings become: each refuses what makes no sense."""
        self._mining()
        self._student(scored=False)
        if self.settings.teacher:
            self._teacher()
            self._student(scored=True)

    def material(self, queries: Mapping[str, str], qrels: Qrels, writer: QueryWriter | None) -> _Parts:
        """Examples to learn from, and judged queries of other documents to measure by."""
        examples, judged, about = self.folder / "examples.jsonl", self.folder / JUDGED, self.folder / "known.json"
        if not about.exists():
            settings = self.settings
            lost = unmatched(self.collection, queries, qrels)
            if lost:
                self.say(lost)
            self.say("making examples of the documents")
            own = of_collection(
                self.collection,
                queries=queries,
                qrels=qrels,
                ways=settings.ways,
                writer=writer,
                limit=settings.documents,
                seed=settings.seed,
                progress=lambda done: self.progress("documents", done),
            )
            if queries and all(map(own.is_made, own.examples)):
                raise DataError(f"no query has a relevant document in {self.collection.path}: {lost}")
            extent = Extent(settings.queries, settings.corpus, settings.examples, settings.seed)
            parts = split_for_measuring(own, extent)
            try:
                write_judged(self.collection, own, parts, judged, extent)
            except DataError as error:
                raise DataError(f"{error}; {lost}") if lost else error from error
            write_examples((own.examples[place] for place in parts.train), examples)
            told = {
                "made": not queries,
                "known": {query: sorted(texts) for query, texts in own.known.items()},
                "left": [asdict(left) for left in own.left.values()],
                "notes": [note for note in (lost, *parts.notes) if note],
            }
            replace_file(about, json.dumps(told, ensure_ascii=False))
        told = json.loads(about.read_text(encoding="utf-8"))
        return _Parts(
            read_examples(examples),
            told["made"],
            judged,
            {query: set(texts) for query, texts in told["known"].items()},
            {left["document"]: Left(**left) for left in told["left"]},
            tuple(told["notes"]),
        )

    def _mining(self) -> Mining:
        late = self.architecture == "late-interaction"  # has no vector a passage
        return Mining("words" if late else "both", self.settings.negatives, seed=self.settings.seed)

    def mined(self, parts: _Parts) -> list[Example]:
        file = self.folder / "mined.jsonl"
        if not file.exists():
            self.say("mining negatives")
            stored = Stored.read(self.collection)
            material = Material(parts.examples, stored.texts, [], parts.known, stored.vectors, parts.left)
            encoder = self.collection.assembly.loaded.encoder
            found, tally = material.mine(self._mining(), encoder, progress=self.progress)
            write_examples(found, file)
            self.say(str(tally))
        return read_examples(file)

    def teacher(self, mined: Sequence[Example]) -> str:
        """The cross-encoder that was trained; where that made it no better, the one given, if it was one before; empty: none.

        What is given may be an encoder: a cross-encoder begins with its layers, and has all to learn. One that the pipeline
        ranks worse with has nothing to teach.
        """
        if not self.settings.teacher:
            return ""
        self.say("training the cross-encoder that will teach")
        found = self._train(self._teacher(), "teacher", [example for example in mined if example.negatives])
        given = self.settings.teacher if recognise(self.settings.teacher) == "CrossEncoder" else ""
        report = json.loads((self.folder / "teacher" / "report.json").read_text(encoding="utf-8"))
        chosen = choose_teacher(report["verdict"], "" if found is None else str(found), given)
        if not chosen:
            self.say("it does not help the pipeline, so it does not teach")
        return chosen

    def taught(self, mined: Sequence[Example], teacher: str) -> list[Example]:
        if not teacher:
            return list(mined)
        self.say("asking it for scores")
        usable = [example for example in mined if example.negatives]
        scores = _Steadily(self.progress, "pairs scored")
        return teach(usable, teacher, folder=self.folder / "scores", progress=lambda done, total: scores.reach(done))

    def student(self, examples: Sequence[Example]) -> Path | None:
        """The folder of the adapted encoder; None where it was no better than its parent on dev."""
        self.say("training the encoder")
        return self._train(self._student(scored=examples[0].scores is not None), "student", examples)

    def _teacher(self) -> TrainSettings:
        # One negative would do for the loss; three give the list that reranking meets.
        negatives = min(3, self.settings.negatives)
        return self._training("cross-encoder", self.settings.teacher, LossSettings("softmax"), negatives)

    def _student(self, *, scored: bool) -> TrainSettings:
        # What the teacher says beside what is known: in its place it lost .02 of nDCG@10, with all other passages of the batch.
        loss = LossSettings("kl", labels=1.0) if scored else LossSettings("infonce")
        negatives = min(2, self.settings.negatives) if scored else 1  # of those mined, others in each epoch
        return self._training(self.architecture, self.before.encoder.model, loss, negatives, self.settings.frozen)

    def _training(
        self, architecture: Architecture, parent: str, loss: LossSettings, negatives: int, frozen: int = 0
    ) -> TrainSettings:
        settings = self.settings
        parts = LIST_PARTS if architecture == "cross-encoder" else 1
        return TrainSettings(
            ModelSettings(architecture, parent, max_tokens=settings.max_tokens, frozen=frozen),
            DataSettings(negatives=negatives),
            loss,
            TrainingSettings(
                epochs=settings.epochs,
                batch=-(-settings.batch // parts),
                accumulate=parts,
                rate=settings.rate,
                seed=settings.seed,
            ),
            guard=GuardSettings(str(self.folder / JUDGED), "dev"),
        )

    def _train(self, wanted: TrainSettings, name: str, examples: Sequence[Example]) -> Path | None:
        place = self.folder / name
        kept = place / "report.json"
        if not kept.exists():
            steps = _Steadily(self.progress, f"steps ({name})")
            report = train(
                wanted,
                place,
                examples=examples,
                resume=(place / "recipe.toml").exists(),
                progress=lambda now: steps.reach(now.step),
            )
            self.say(str(report))
        model = place / "model"
        return model if model.is_dir() else None

    # -- measuring and taking --------------------------------------------------------------------------------------------

    def conclude(self, parts: _Parts, student: Path | None, teacher: str) -> AdaptReport:
        known = candidates(self.before, None if student is None else str(student), teacher, self.settings.rerank)
        self.say(f"measuring {counted(len(known), 'pipeline')}")
        dev = self._measured(read_dataset(parts.judged, "dev"), known)
        means = {name: outcome.measured.means[MEASURE] for name, outcome in dev.outcomes.items()}
        chosen = max(means, key=lambda name: means[name])  # of equals the first: as it was
        both = {name: known[name] for name in dict.fromkeys([AS_IT_WAS, chosen])}
        test = self._measured(read_dataset(parts.judged, "test"), both).outcomes
        ours, base = (test[name].measured.by_query[MEASURE] for name in (chosen, AS_IT_WAS))
        difference = compare(ours, base, seed=self.settings.seed)
        better = difference.mean > 0 and difference.verdict == "better"
        report = AdaptReport(
            len(parts.examples),
            parts.made,
            means,
            chosen,
            test[AS_IT_WAS].measured.means[MEASURE],
            test[chosen].measured.means[MEASURE],
            difference,
            better,
            known[chosen] if better else known[AS_IT_WAS],
            (*parts.notes, *(() if student else (NOT_TRIED,))),
        )
        replace_file(self.folder / DONE, json.dumps(report.as_json(), ensure_ascii=False, indent=2) + "\n")
        shutil.rmtree(self.folder / "measured", ignore_errors=True)
        return self.switch(report)

    def _measured(self, dataset: Dataset, known: Mapping[str, Recipe]) -> Experiment:
        return evaluate(dataset, known, folder=self.folder / "measured", measures=[MEASURE], progress=self.progress)

    def switch(self, report: AdaptReport) -> AdaptReport:
        """Take the recipe where it is better: what another encoder makes otherwise is encoded anew; then probabilities.

        A switch that was interrupted goes on, wherever it was: what is done is seen by the recipe in use.
        """
        recipe = report.recipe
        kept = self.collection.own_folder("adapted") / RECIPE
        before = kept.with_name(f"{RECIPE}.before")
        if not report.switched:
            return report
        if recipe != self.before:
            self.pending.write(self.folder.name, self.before, recipe)
            if Recipe.load(kept) != recipe:  # an open collection may not have seen yet that it was replaced
                replace_file(before, kept.read_bytes())
            if recipe.encoder != self.before.encoder:
                self.say("encoding the passages anew; searches go on by the old vectors")
                self.collection.migrate(recipe=recipe, progress=lambda done: self.progress("passages", done))
            else:
                replace_file(kept, recipe.to_toml())
        back = f"the recipe before is in {before}; back to it: twinrank migrate --recipe {before} -c {self.collection.path}"
        notes = (back, self._calibrate(report.made))
        self.pending.remove()
        return replace(report, notes=(*report.notes, *notes))

    def _calibrate(self, made: bool) -> str:
        """Fit probabilities; what came of it, in words."""
        if made:
            return (
                "made queries promise more than people's: where you have judged ones, see with twinrank eval DATA -c "
                f"{self.collection.path} whether these are served better too; nothing is calibrated on made ones"
            )
        self.say("calibrating")
        dev, test = (read_dataset(self.folder / JUDGED, split) for split in ("dev", "test"))
        try:
            with Collection(self.collection.path, create=False) as fresh:
                fresh.keep_calibration(calibrating.calibrate(fresh, dev, test).calibration)
        except CalibrationError as error:
            return f"not calibrated: {error}"
        return "hits carry probabilities, fitted on dev and judged on test: twinrank search --risk 0.1"


NOT_TRIED = "the encoder that was trained is not better than its parent on dev, so it was not tried"
AS_IT_WAS, ADAPTED = "as it was", "adapted encoder"
LIST_PARTS = 4
"""A cross-encoder takes a batch in so many parts, since its lists are of four pairs: 32 of 192 tokens at once took 9 GB."""
DONE, JUDGED = "report.json", "judged"


@dataclass
class _Steadily:
    """Turns what is done in all into how much more is done."""

    told: Progress
    what: str
    done: int = 0

    def reach(self, done: int) -> None:
        self.told(self.what, done - self.done)
        self.done = done


def teacher_weights(name: str) -> str:
    """What a teacher is to the last weight; empty for none. Raises where it is not there, or nothing that could teach."""
    if not name:
        return ""
    if (kind := recognise(name)) not in ("CrossEncoder", "BiEncoder"):
        raise ModelUnsupportedError(f"{name} is a {kind}; a teacher is a cross-encoder, or a bi-encoder that becomes one")
    return Checkpoint.find(name).fingerprint()


def choose_teacher(verdict: Mapping[str, Any] | None, trained: str, given: str) -> str:
    """Of the cross-encoder that was trained and the one that it comes from, each "" where there is none, which one teaches.

    `verdict` is the guard's of the training. One that the pipeline is worse with teaches nothing, as measured in
    docs/training.md; of the one given that is known too, being so much below or above the trained one. Where nothing was
    measured, since what was trained is no number or says one thing of everything, the one given teaches.
    """
    measured = verdict["reranking"] if verdict else None
    if measured is None:
        return trained or given
    if trained and measured["mean"] >= 0:
        return trained
    return given if given and verdict and measured["mean"] >= verdict["difference"]["mean"] else ""


def candidates(before: Recipe, student: str | None, teacher: str, depth: int) -> dict[str, Recipe]:
    """The pipelines that are measured, the one in use first."""
    known = {AS_IT_WAS: before}
    if student is not None:
        known[ADAPTED] = before.with_model(student)
    if teacher and depth:
        stage = (RerankSettings(teacher, candidates=depth, weight=MIX),)
        others = tuple(one for one in before.rerank if one.kind != "cross-encoder")
        for name, recipe in list(known.items()):
            known[f"{name}, reranked"] = replace(recipe, rerank=others + stage)
    return known
