"""A training from its recipe to its report: examples are fed, the loss falls, checkpoints outlive a kill, a guard decides."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from twinrank.engine import default_threads
from twinrank.errors import InputError, RecipeError
from twinrank.files import replace_file
from twinrank.text import counted
from twinrank.train.data import Example, read_examples, write_examples
from twinrank.train.distill import teachable
from twinrank.train.feeding import Feed, Shares
from twinrank.train.guard import Verdict, check, judge, leaks
from twinrank.train.networks import Network, check_parent, make_network, quiet, require_extra, save_network, share_cut
from twinrank.train.settings import TrainSettings
from twinrank.train.splits import Leakage

RECIPE, REPORT, MODEL, REFUSED, CHECKPOINTS = "recipe.toml", "report.json", "model", "refused", "checkpoints"
EXAMPLES = "examples.blake2b"
"""Tells whether a training goes on over the same examples."""
TOLD_EVERY = 10
"""Steps between two entries of the history."""
SAMPLES = 256
"""Passages by which a projection begins; and texts that are looked at to tell how much is cut."""

Refresh = Callable[[Path, Sequence[Example], int], Sequence[Example]]
"""(folder of the model as it is, the examples, the round's number) → the examples with other negatives; asked for a round
again, after a kill, the same ones."""

Teach = Callable[[Sequence[Example]], Sequence[Example]]
"""Examples → the same with a teacher's scores."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a training stands."""

    step: int
    steps: int
    loss: float
    """The mean over the last steps."""
    rate: float
    """Queries a second, with their passages."""
    seconds_left: float


@dataclass(frozen=True)
class TrainReport:
    """What came of a training."""

    folder: Path | None
    """Of the model; None where the guard refused it, or it was no number any more."""
    examples: int
    steps: int
    seconds: float
    """Of this run; what an interrupted one took before is not in it."""
    history: tuple[tuple[int, float], ...]
    """(step, mean loss since the entry before)."""
    verdict: Verdict | None = None
    notes: tuple[str, ...] = field(default_factory=tuple)
    leaks: Mapping[str, Leakage] = field(default_factory=dict)
    """What of the examples is in the guard's split and in the test split beside it, by the split's name."""

    def __str__(self) -> str:
        ended = f", loss {self.history[0][1]:.4g} → {self.history[-1][1]:.4g}" if self.history else ""
        lines = [f"{counted(self.examples, 'example')}, {counted(self.steps, 'step')}, {self.seconds:.0f} s{ended}"]
        if self.verdict is not None:
            lines.append(str(self.verdict))
        lines += [f"{split}: {leakage}" for split, leakage in self.leaks.items()]
        lines += self.notes
        return "\n".join(lines)


def train(
    settings: TrainSettings,
    out: Path | str,
    *,
    examples: Sequence[Example] | None = None,
    teach: Teach | None = None,
    resume: bool = False,
    refresh: Refresh | None = None,
    progress: Callable[[Progress], None] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> TrainReport:
    """Train what the recipe says into the folder `out`: `model` there is the result, where the guard lets it pass.

    `examples` stand in for those of the recipe; `teach` gives them scores, and is asked when all that can be checked was found
    to be right. With `resume` an interrupted training goes on from its last checkpoint, to the weights that an uninterrupted
    one gives. `refresh` mines negatives anew where the recipe wants that. `say` is told what is worth knowing before hours of
    training. Raises InputError where `out` holds another training, MissingExtraError without torch.
    """
    require_extra()
    check(settings.guard)
    check_parent(settings.model, settings.training.head_rate)
    place = Path(out).expanduser().absolute()
    _check_folder(place, settings, resume)
    given = _read_examples(settings) if examples is None else examples
    usable = given if teach is None else teachable(given, settings.data.negatives)
    notes = _told_few(len(given) - len(usable), len(given), settings.data.negatives)
    given = _limited(usable, settings)
    found = leaks(settings.guard, given)
    for text in (*notes, *(f"{split}: {leakage}" for split, leakage in found.items() if leakage.leaks)):
        say(text)
    given = given if teach is None else teach(given)
    _begin_folder(place, settings, given)
    started = perf_counter()
    with quiet():
        run = _Run(settings, place, given, refresh, progress)
        for text in run.feed.notes:
            say(text)
        run.train()
    report = _conclude(run, settings, place, len(given), started)
    report = replace(report, leaks=found, notes=(*notes, *report.notes))
    told = json.dumps(report_as_json(report), ensure_ascii=False, indent=2, allow_nan=False)
    replace_file(place / REPORT, told + "\n")
    shutil.rmtree(place / CHECKPOINTS, ignore_errors=True)  # last: until the report is there, a kill is gone on from by them
    return report


def _read_examples(settings: TrainSettings) -> Sequence[Example]:
    if not settings.data.train:
        raise RecipeError("data, train: expected a file of examples or a folder in BEIR's layout, got an empty text")
    return read_examples(settings.data.train, split=settings.data.split)


def _told_few(few: int, examples: int, negatives: int) -> list[str]:
    if not few:
        return []
    of = f"{few:,} of {counted(examples, 'example')}"
    return [f"{of} have fewer negatives of their own than {negatives}; they were left out, and no teacher was asked about them"]


def _check_folder(place: Path, settings: TrainSettings, resume: bool) -> None:
    """Whether this training may begin or go on there; nothing is written yet."""
    if place.exists() and not place.is_dir():
        raise InputError(f"{place} is a file; give a folder with --out")
    recipe = place / RECIPE
    if recipe.exists():
        if TrainSettings.load(recipe) != settings:
            raise InputError(f"{place} holds a training by another recipe; give another folder with --out")
        if (place / REPORT).exists():
            raise InputError(f"{place} holds this training, finished; give another folder with --out")
        if not resume:
            raise InputError(
                f"{place} holds this training, interrupted; go on with --resume, or give another folder with --out"
            )
    elif place.exists() and any(place.iterdir()):
        raise InputError(f"{place} is not empty and holds no training; give a new folder with --out")


def _begin_folder(place: Path, settings: TrainSettings, examples: Sequence[Example]) -> None:
    """A training goes on over the examples that it began with, or not at all."""
    place.mkdir(parents=True, exist_ok=True)
    replace_file(place / RECIPE, settings.to_toml())
    told = ((one.query, one.positives, one.negatives, one.scores, *filter(None, [one.document])) for one in examples)
    content = (repr(one).encode() for one in told)
    digest = hashlib.blake2b(digest_size=16)
    for line in content:
        digest.update(line)
    kept = place / EXAMPLES
    if kept.exists() and kept.read_text(encoding="utf-8") != digest.hexdigest():
        raise InputError(f"{place} holds a training over other examples; put them back, or give another folder with --out")
    replace_file(kept, digest.hexdigest())


def _limited(examples: Sequence[Example], settings: TrainSettings) -> Sequence[Example]:
    limit = settings.data.limit
    if not limit or limit >= len(examples):
        return examples
    drawn = np.random.default_rng([settings.training.seed, 2]).permutation(len(examples))[:limit]
    return [examples[place] for place in sorted(drawn.tolist())]


class _Run:
    """One training under way: network, loss, feed, and sentence-transformers' trainer over them."""

    def __init__(
        self,
        settings: TrainSettings,
        place: Path,
        examples: Sequence[Example],
        refresh: Refresh | None,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        import torch
        from transformers import set_seed

        from twinrank.train.forward import has_bf16, make_thrifty
        from twinrank.train.losses import form_of, make_loss
        from twinrank.train.networks import transformers

        if settings.refresh.every and refresh is None:
            raise InputError("the recipe refreshes its negatives: give train() a way to mine them, or set every = 0")
        self.settings, self.place, self.examples = settings, place, examples
        self._refresh = refresh
        torch.set_num_threads(min(default_threads(), torch.get_num_threads()))  # OMP_NUM_THREADS may ask for fewer
        set_seed(settings.training.seed)  # a new classifier is drawn by it
        drawn = np.random.default_rng(settings.training.seed).permutation(len(examples))[:SAMPLES].tolist()
        drawn_examples = [examples[place] for place in drawn]
        self.network = make_network(settings.model, [example.passages[0] for example in drawn_examples])
        self.cut = _told_cut(self.network, drawn_examples, settings)
        wanted = settings.training.precision
        bf16 = wanted == "bf16" or (wanted == "auto" and has_bf16(torch.device(self.network.model.device)))
        for transformer in transformers(self.network.model):
            make_thrifty(transformer.model, bf16=bf16)
        pairs = settings.model.architecture == "cross-encoder"
        self.loss = make_loss(self.network.model, settings.loss)
        shares = Shares(
            settings.training.batch,
            settings.data.negatives,
            settings.training.seed,
            form_of(settings.loss, pairs=pairs),
            in_batch=not pairs and (settings.loss.kind == "infonce" or settings.loss.labels > 0),
        )
        self.feed = Feed(examples, shares)
        self.steps = settings.training.steps or max(
            1, math.ceil(settings.training.epochs * self.feed.epoch_steps / settings.training.accumulate)
        )
        self.trainer = _make_trainer(self, progress)

    @property
    def history(self) -> tuple[tuple[int, float], ...]:
        return tuple((entry["step"], entry["loss"]) for entry in self.trainer.state.log_history if "loss" in entry)

    @property
    def is_number(self) -> bool:
        import torch

        state = self.network.model.state_dict().values()
        return all(math.isfinite(loss) for _, loss in self.history) and all(bool(torch.isfinite(one).all()) for one in state)

    def train(self) -> None:
        self.trainer.train(resume_from_checkpoint=last_checkpoint(self.place / CHECKPOINTS))
        self.network.model.eval()

    def begin_round(self, number: int) -> None:
        """Before round `number` of a training that refreshes: mine by the model as it is, or read what was mined."""
        if not self.settings.refresh.every or number == 0:
            return
        assert self._refresh is not None
        mined = self.place / f"mined-{number}.jsonl"
        if mined.exists():
            self.feed.refresh(read_examples(mined))
            return
        current = self.place / "current"
        save_network(self.network, current)
        found = self._refresh(current, self.examples, number)
        self.feed.refresh(found)
        write_examples(found, mined)
        shutil.rmtree(current)


def _told_cut(network: Network, examples: Sequence[Example], settings: TrainSettings) -> str:
    """How many of a passage each, with its query where a cross-encoder reads both, are longer than is read; empty: none."""
    draw = np.random.default_rng([settings.training.seed, 3])
    asked = [example.passages if settings.data.negatives else example.positives for example in examples]
    passages = [texts[int(draw.integers(len(texts)))] for texts in asked]
    pairs = settings.model.architecture == "cross-encoder"
    share = share_cut(network, passages, [example.query for example in examples] if pairs else ())
    looked_at = counted(len(passages), "pair" if pairs else "passage")
    if not share:
        return ""
    return f"{share:.0%} of {looked_at} looked at were longer than max_tokens and cut; what was cut off was not learned from"


def last_checkpoint(folder: Path) -> str | None:
    """The newest that was written to its end; what a kill left half written is removed."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    for path in found:
        if not (path / WHOLE).exists():
            shutil.rmtree(path)
    whole = [path for path in found if path.exists()]
    return str(whole[-1]) if whole else None


WHOLE, STATE = "whole", "loss.pt"
"""A file that a checkpoint is given last; and the weights of loss and model, with what the loss remembers."""


def _make_trainer(run: _Run, progress: Callable[[Progress], None] | None) -> Any:
    """sentence-transformers' trainer for the architecture, fed by steps and saving what it needs to go on."""
    import sentence_transformers
    import torch
    from torch.utils.data import DataLoader
    from transformers import PrinterCallback, ProgressCallback

    from twinrank.train.losses import is_cross_encoder, is_late

    model = run.network.model
    kind = "CrossEncoder" if is_cross_encoder(model) else "MultiVectorEncoder" if is_late(model) else "SentenceTransformer"
    base: Any = getattr(sentence_transformers, f"{kind}Trainer")
    settings = run.settings
    every = settings.refresh.every or run.steps

    class Trainer(base):  # type: ignore[misc]
        def get_train_dataloader(self) -> Any:
            return DataLoader(self.train_dataset, batch_size=1, collate_fn=_only)

        def add_model_card_callback(self, default_args_dict: Any) -> None:
            """The card is ours: theirs looks into a data set that there is none of."""

        def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
            folder = Path(output_dir or self.args.output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(self.loss.state_dict(), folder / STATE)

        def _save_checkpoint(self, *given: Any, **options: Any) -> None:
            super()._save_checkpoint(*given, **options)
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            (folder / WHOLE).touch()

        def _load_from_checkpoint(self, checkpoint: str, model: Any = None) -> None:
            self.loss.load_state_dict(torch.load(Path(checkpoint) / STATE, map_location="cpu", weights_only=True))

    training = settings.training
    options = {"max_length": settings.model.max_tokens or None} if is_late(model) else {}  # it may have limits a side
    arguments = base.training_args_class(
        output_dir=str(run.place / CHECKPOINTS),
        per_device_train_batch_size=1,  # a step is one item: its batch
        gradient_accumulation_steps=training.accumulate,
        max_steps=run.steps,
        learning_rate=training.rate,
        learning_rate_mapping={run.network.fresh: training.head_rate} if training.head_rate and run.network.fresh else {},
        warmup_steps=round(training.warmup * run.steps),
        weight_decay=training.decay,
        seed=training.seed,
        save_strategy="steps",
        save_steps=training.checkpoint,
        save_total_limit=2,
        logging_strategy="steps",
        logging_steps=min(TOLD_EVERY, run.steps),
        logging_nan_inf_filter=False,  # the guard wants to see them
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        prompts=_prompts(run),
        router_mapping=_routes(run),
        **options,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=_Steps(run.feed, every * training.accumulate),
        loss=run.loss,
        callbacks=[_callback(run, progress)],
    )
    trainer.train_dataset.collate = trainer.data_collator
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    return trainer


def _only(items: Sequence[Any]) -> Any:
    (item,) = items
    return item


class _Steps:
    """What a data loader reads: item i is the batch of a round's step i, tokenized."""

    _sentence_transformers_preprocessed = True  # nothing for them to add: there are no columns, only batches

    def __init__(self, feed: Feed, length: int) -> None:
        self.feed, self.length, self.first = feed, length, 0
        self.collate: Callable[[list[dict[str, Any]]], Any] | None = None

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, item: int) -> Any:
        assert self.collate is not None
        rows = self.feed[self.first + item]
        if self.feed.shares.form == "known columns":
            longest = max(len(row["label"]) for row in rows)
            rows = [row | {"label": row["label"] + [-1] * (longest - len(row["label"]))} for row in rows]
        return self.collate(rows)


def _columns(run: _Run) -> list[str]:
    """The columns of passages that a batch may have."""
    return ["positive", "passage", *(f"negative_{number}" for number in range(run.settings.data.negatives))]


def _prompts(run: _Run) -> dict[str, str] | None:
    """The model's own, by column: what it is trained with has to be what it is asked with."""
    own: Mapping[str, str | None] = getattr(run.network.model, "prompts", {})
    if run.settings.model.architecture == "cross-encoder":
        return None
    query, document = own.get("query"), own.get("document") or own.get("passage")
    found = {"query": query or "", **dict.fromkeys(_columns(run), document or "")}
    return found if any(found.values()) else None


def _routes(run: _Run) -> dict[str, str] | None:
    if run.settings.model.architecture == "cross-encoder":
        return None
    return {"query": "query", **dict.fromkeys(_columns(run), "document")}


def _callback(run: _Run, progress: Callable[[Progress], None] | None) -> Any:
    from transformers import TrainerCallback

    class Watch(TrainerCallback):  # type: ignore[misc]
        """Begins rounds, tells where the training stands, and ends one whose loss is no number."""

        began, first = 0.0, 0

        def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            self.began, self.first = perf_counter(), state.global_step

        def on_epoch_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            steps: _Steps = run.trainer.train_dataset
            number = state.global_step * args.gradient_accumulation_steps // steps.length
            steps.first = number * steps.length
            run.begin_round(number)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **others: Any) -> None:
            loss = (logs or {}).get("loss")
            if loss is None:
                return
            if not math.isfinite(loss):
                control.should_training_stop = True
            if progress is not None:
                each = (perf_counter() - self.began) / max(1, state.global_step - self.first)  # seconds a step
                queries = run.settings.training.batch * run.settings.training.accumulate
                left = (run.steps - state.global_step) * each
                progress(Progress(state.global_step, run.steps, loss, queries / max(each, 1e-9), left))

    return Watch()


# -- what comes of it --------------------------------------------------------------------------------------------------------


def _conclude(run: _Run, settings: TrainSettings, place: Path, examples: int, started: float) -> TrainReport:
    """Save the model where the guard lets it pass, beside it where not; a model that is no number is not saved."""
    steps, history = run.trainer.state.global_step, run.history
    verdict, folder, notes = None, None, list(run.feed.notes)
    if run.cut:
        notes.append(run.cut)
    if not run.is_number:
        notes.append(f"refused: the loss or a weight is no number after {steps} steps; lower the rate, or precision = 'fp32'")
    else:
        candidate = place / "candidate"
        save_network(run.network, candidate, _card(settings, examples, steps, history))
        verdict = judge(settings, candidate, run.examples[:SAMPLES], place / "guard")
        for name in (MODEL, REFUSED):  # of a run that was killed before its report
            shutil.rmtree(place / name, ignore_errors=True)
        judged = candidate.replace(place / (MODEL if verdict.accepted else REFUSED))
        folder = judged if verdict.accepted else None
        notes.append(f"the model is in {judged}" if folder else f"not saved as the result; to look at, it is in {judged}")
    return TrainReport(folder, examples, steps, perf_counter() - started, history, verdict, tuple(notes))


def _card(settings: TrainSettings, examples: int, steps: int, history: Sequence[tuple[int, float]]) -> str:
    """The model's README: what the hub reads of it, and the recipe."""
    tags = {
        "bi-encoder": "sentence-similarity",
        "twin-tower": "sentence-similarity",
        "late-interaction": "sentence-similarity",
        "cross-encoder": "text-ranking",
    }
    loss = f", loss {history[-1][1]:.4g} at the end" if history else ""
    return f"""---
library_name: sentence-transformers
pipeline_tag: {tags[settings.model.architecture]}
tags: [{settings.model.architecture}, twinrank]
---

# {settings.model.architecture} from {settings.model.parent}

Trained by twinrank on {counted(examples, "example")} in {counted(steps, "step")}{loss}. It opens with sentence-transformers and
with twinrank; this recipe trains it again, over the same examples:

```toml
{settings.to_toml()}```
"""


def report_as_json(report: TrainReport) -> dict[str, Any]:
    """The report as JSON has it: what is no number, as the loss of a training that diverged, is null there."""
    told = asdict(replace(report, leaks={}))
    found: dict[str, Any] = _without_nan(told)
    found["leaks"] = {split: leakage.as_json() for split, leakage in report.leaks.items()}
    return found | {"folder": None if report.folder is None else str(report.folder)}


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
