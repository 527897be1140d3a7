"""The recipe of a training: the parent, the examples, the loss, how long and how fast, and what it is judged by, as TOML.

[model]
architecture = "bi-encoder"     # or twin-tower, late-interaction, cross-encoder
parent = "sentence-transformers/all-MiniLM-L6-v2"    # a hub name or a folder
max_tokens = 256                # a passage is cut to so many, or a cross-encoder's pair, of a new one for good; 0: the parent's
query_tokens = 0                # late interaction: of a query; 0: as a passage
dimension = 0                   # late interaction: of a token's vector, by a projection that is trained; 0: the parent's
layers = 0                      # so many of the parent's, spread evenly, the last among them: a smaller model; 0: all
frozen = 0                      # so many lower layers stay as they are, with the embeddings; -1: the whole trunk
lora = 0                        # rank of the updates that are trained in place of the weights; 0: the weights themselves
dropout = -1.0                  # of what is trained; -1: the parent's

[data]
train = "examples.jsonl"        # what twinrank mine writes, a TSV or CSV file, or a folder in BEIR's layout
split = "train"                 # of a BEIR folder; never the test split
negatives = 1                   # an example's own that a step looks at, drawn anew in each epoch
limit = 0                       # so many examples at most, drawn by the seed; 0: all

[loss]
kind = "infonce"                # docs/training.md lists them for each architecture
temperature = 0.0               # infonce, kl, softmax, margin-mse of towers; 0: the loss's own
margin = 0.0                    # contrastive, triplet, margin; 0: the loss's own
symmetric = false               # infonce: queries have to be found from passages too
chunk = 0                       # above 0, gradients are cached: so many texts are in memory at a time, whatever the batch
queue = 0                       # infonce: so many past passages are negatives too
momentum = 0.995                # of the tower that encodes those of the queue
labels = 0.0                    # kl of towers: so many times infonce over the same batch is added to what the teacher says

[training]
epochs = 1.0
steps = 0                       # above 0, in place of epochs
batch = 32                      # queries
accumulate = 1                  # batches before the weights change
rate = 2e-5                     # of learning, at its highest
head_rate = 0.0                 # of what is not in the parent: a projection, a new classifier; 0: the same
warmup = 0.1                    # share of the steps in which the rate rises; it falls to 0 in the others
decay = 0.01                    # of weights
seed = 0
precision = "auto"              # bf16 (autocast) where the processor or the GPU has it, fp32 elsewhere
checkpoint = 500                # steps between two; after a kill the training goes on from the last one

[refresh]
every = 0                       # steps between two minings of negatives by the model as it is, of towers; 0: never
passages = ""                   # what is mined from: a folder in BEIR's layout, a file of examples; none: that of [data] train

[guard]
data = "scifact"                # a folder in BEIR's layout; without one, nothing is judged
split = "dev"                   # never the test split
measure = "nDCG@10"
queries = 0                     # so many of the split, drawn by the seed; 0: all
candidates = 50                 # a cross-encoder reranks
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from twinrank import tables
from twinrank.errors import RecipeError
from twinrank.models.hub import DEFAULT_MODEL
from twinrank.tables import check_choice, check_range

Architecture = Literal["bi-encoder", "twin-tower", "late-interaction", "cross-encoder"]
TowerLoss = Literal["infonce", "contrastive", "triplet", "margin-mse", "kl"]
PairLoss = Literal["bce", "mse", "margin", "ranknet", "softmax", "lambda", "margin-mse", "kl"]

TOWER_LOSSES: tuple[str, ...] = get_args(TowerLoss)
PAIR_LOSSES: tuple[str, ...] = get_args(PairLoss)
SCORED = ("margin-mse", "kl")
"""Losses that learn from a teacher's scores."""
CACHED = ("infonce",)
"""Losses whose gradients can be cached."""
TEMPERED = ("infonce", "kl", "softmax", "margin-mse")
"""Losses that divide by a temperature; margin-mse of a cross-encoder does not."""
PARTED = ("contrastive", "triplet", "margin")
"""Losses that ask for a margin."""
MOMENTUM = 0.995


@dataclass(frozen=True, slots=True)
class ModelSettings:
    architecture: Architecture = "bi-encoder"
    parent: str = DEFAULT_MODEL
    max_tokens: int = 256
    query_tokens: int = 0
    dimension: int = 0
    layers: int = 0
    frozen: int = 0
    lora: int = 0
    dropout: float = -1.0


@dataclass(frozen=True, slots=True)
class DataSettings:
    train: str = ""
    split: str = "train"
    negatives: int = 1
    limit: int = 0


@dataclass(frozen=True, slots=True)
class LossSettings:
    kind: str = "infonce"
    temperature: float = 0.0
    margin: float = 0.0
    symmetric: bool = False
    chunk: int = 0
    queue: int = 0
    momentum: float = MOMENTUM
    labels: float = 0.0


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    epochs: float = 1.0
    steps: int = 0
    batch: int = 32
    accumulate: int = 1
    rate: float = 2e-5
    head_rate: float = 0.0
    warmup: float = 0.1
    decay: float = 0.01
    seed: int = 0
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    checkpoint: int = 500


@dataclass(frozen=True, slots=True)
class RefreshSettings:
    every: int = 0
    passages: str = ""


@dataclass(frozen=True, slots=True)
class GuardSettings:
    data: str = ""
    split: str = "dev"
    measure: str = "nDCG@10"
    queries: int = 0
    candidates: int = 50


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """A training as plain values; equal ones, over equal examples, give equal weights on one machine.

    >>> TrainSettings.parse('[training]\\nbatch = 64').training.batch
    64
    """

    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    refresh: RefreshSettings = field(default_factory=RefreshSettings)
    guard: GuardSettings = field(default_factory=GuardSettings)

    def __post_init__(self) -> None:
        _check(self)

    @classmethod
    def parse(cls, toml: str, *, name: str = "recipe") -> TrainSettings:
        """Read a training recipe; what is left out keeps its default. Raises RecipeError that names the key."""
        return tables.parse(cls, toml, name)

    @classmethod
    def load(cls, path: str | Path) -> TrainSettings:
        return tables.load(cls, path)

    def to_toml(self) -> str:
        """The recipe in full, defaults included, so that reading it tells everything."""
        return tables.dump(self)


def _check(settings: TrainSettings) -> None:
    model, data, loss, training = settings.model, settings.data, settings.loss, settings.training
    check_choice("model, architecture", model.architecture, get_args(Architecture))
    check_range("model, max_tokens", model.max_tokens, 0, 1_000_000)
    check_range("model, query_tokens", model.query_tokens, 0, 1_000_000)
    check_range("model, dimension", model.dimension, 0, 65_536)
    check_range("model, layers", model.layers, 0, 1_000)
    check_range("model, frozen", model.frozen, -1, 1_000)
    check_range("model, lora", model.lora, 0, 1_024)
    if model.dropout != -1 and not 0 <= model.dropout < 1:
        raise RecipeError(f"model, dropout: expected 0 to below 1, or -1 for the parent's; got {model.dropout}")
    if model.frozen and model.lora:
        raise RecipeError("model: frozen and lora both say what is trained; leave one of the two")
    if not model.parent:
        raise RecipeError("model, parent: expected a hub name or a folder, got an empty text")
    check_range("data, negatives", data.negatives, 0, 1_000)
    check_range("data, limit", data.limit, 0, 1_000_000_000)
    check_range("training, epochs", training.epochs, 0.0, 10_000.0)
    check_range("training, steps", training.steps, 0, 100_000_000)
    check_range("training, batch", training.batch, 1, 1_000_000)
    check_range("training, accumulate", training.accumulate, 1, 1_000_000)
    check_range("training, warmup", training.warmup, 0.0, 1.0)
    check_range("training, rate", training.rate, 1e-12, 10.0)
    check_range("training, head_rate", training.head_rate, 0.0, 10.0)
    check_range("training, decay", training.decay, 0.0, 1.0)
    check_range("training, seed", training.seed, 0, 2**31 - 1)
    check_range("training, checkpoint", training.checkpoint, 1, 100_000_000)
    check_choice("training, precision", training.precision, ("auto", "bf16", "fp32"))
    if not training.steps and not training.epochs:
        raise RecipeError("training: epochs and steps are both 0, so nothing would be learned; set one")
    if data.split == "test":
        raise RecipeError("data, split: the test split is for the figures at the end; learn from train")
    check_range("refresh, every", settings.refresh.every, 0, 100_000_000)
    check_range("guard, queries", settings.guard.queries, 0, 1_000_000)
    check_range("guard, candidates", settings.guard.candidates, 1, 1_000_000)
    if settings.guard.split == "test":
        raise RecipeError("guard, split: the test split is for the figures at the end; judge by dev, or by a part of train")
    _check_model(model)
    if training.head_rate and model.architecture != "cross-encoder" and not model.dimension:
        raise RecipeError(f"training, head_rate: a {model.architecture} without a projection has no part that its parent lacks")
    _check_loss(model, data, loss, training)
    if settings.refresh.every:
        _check_refresh(model, data, loss)


def _check_refresh(model: ModelSettings, data: DataSettings, loss: LossSettings) -> None:
    if model.architecture == "cross-encoder":
        raise RecipeError("refresh, every: a cross-encoder finds no passages; mine its negatives before, by twinrank mine")
    if loss.kind in SCORED:
        raise RecipeError(f"refresh, every: {loss.kind} needs a teacher's scores, and nobody gave what is mined anew any")
    if not data.negatives:
        raise RecipeError("refresh, every: with negatives = 0 nothing mined is looked at; give data, negatives 1 or more")


def _check_model(model: ModelSettings) -> None:
    late = model.architecture == "late-interaction"
    for name in ("query_tokens", "dimension"):
        if getattr(model, name) and not late:
            raise RecipeError(f"model, {name}: is late interaction's; a {model.architecture} has none")
    if model.frozen == -1 and not (late and model.dimension) and model.architecture != "cross-encoder":
        raise RecipeError(
            "model, frozen: with the whole trunk frozen nothing is left to train; give late interaction a projection "
            "(dimension), or freeze fewer layers"
        )


def _check_loss(model: ModelSettings, data: DataSettings, loss: LossSettings, training: TrainingSettings) -> None:
    towers = model.architecture != "cross-encoder"
    check_choice(f"loss, kind, of a {model.architecture}", loss.kind, TOWER_LOSSES if towers else PAIR_LOSSES)
    if loss.temperature < 0 or loss.margin < 0:
        raise RecipeError("loss: temperature and margin are above 0, or 0 for the loss's own")
    if loss.temperature and (loss.kind not in TEMPERED or (loss.kind == "margin-mse" and not towers)):
        raise RecipeError(f"loss, temperature: {loss.kind} of a {model.architecture} has none; leave it")
    if loss.margin and loss.kind not in PARTED:
        raise RecipeError(f"loss, margin: {loss.kind} has none; leave it")
    check_range("loss, chunk", loss.chunk, 0, 1_000_000)
    check_range("loss, queue", loss.queue, 0, 10_000_000)
    check_range("loss, momentum", loss.momentum, 0.0, 1.0)
    check_range("loss, labels", loss.labels, 0.0, 1_000.0)
    if loss.momentum != MOMENTUM and not loss.queue:
        raise RecipeError("loss, momentum: is of the tower that encodes a queue's passages; give a queue, or leave it")
    if loss.labels and (not towers or loss.kind != "kl"):
        raise RecipeError(f"loss, labels: is kl's, of towers; {loss.kind} of a {model.architecture} has none")
    for name in ("symmetric", "queue"):
        if getattr(loss, name) and (not towers or loss.kind != "infonce"):
            raise RecipeError(f"loss, {name}: is infonce's; {loss.kind} of a {model.architecture} has none")
    if loss.chunk and (not towers or loss.kind not in CACHED):
        raise RecipeError(f"loss, chunk: gradients are cached for infonce over two towers; {loss.kind} takes them whole")
    if loss.chunk and (loss.queue or (loss.symmetric and model.architecture == "late-interaction")):
        raise RecipeError("loss, chunk: gradients are not cached with a queue, nor for late interaction's symmetric form")
    if loss.queue and loss.symmetric:
        raise RecipeError("loss: a queue holds passages and no queries, so symmetric has nothing to compare them with")
    needs_negatives = loss.kind not in ("infonce", "bce", "mse")
    if needs_negatives and not data.negatives:
        raise RecipeError(f"data, negatives: {loss.kind} compares a passage with one that does not answer; give 1 or more")
    if not towers and loss.kind not in SCORED and loss.kind != "mse" and not data.negatives:
        raise RecipeError(f"data, negatives: {loss.kind} of a cross-encoder needs negatives to tell apart; give 1 or more")
    if loss.kind == "kl" and data.negatives < 1:
        raise RecipeError("data, negatives: kl compares lists of 2 passages or more")
    if towers and loss.kind == "infonce" and training.batch < 2 and not data.negatives and not loss.queue:
        raise RecipeError("training, batch: infonce takes its negatives from the batch; give 2 or more")
