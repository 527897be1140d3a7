"""What may vary of a pipeline: the knobs, the values that each may take, and when it means anything."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeAlias, get_args

from twinrank.errors import InputError
from twinrank.recipe import FusionMethod, Recipe, RerankSettings, TokenSettings

Value: TypeAlias = str | int | float
Values: TypeAlias = Mapping[str, Value]
"""Knob → the value chosen for it; a knob that means nothing beside the others is left out."""

Draw: TypeAlias = Callable[[str, Sequence[Value]], Value]
"""(knob, its values) → one of them."""


def always(values: Values) -> bool:
    return True


def searched(values: Values) -> tuple[str, ...]:
    """Where candidates come from.

    >>> searched({"sources": "both"}), searched({"sources": "tokens and words"})
    (('vectors', 'words'), ('tokens', 'words'))
    """
    sources = str(values["sources"])
    return ("vectors", "words") if sources == "both" else tuple(sources.split(" and "))


def searches(source: str) -> Callable[[Values], bool]:
    return lambda values: source in searched(values)


def fuses(values: Values) -> bool:
    return len(searched(values)) > 1


def above_zero(knob: str) -> Callable[[Values], bool]:
    return lambda values: float(values.get(knob, 0)) > 0


@dataclass(frozen=True)
class Knob:
    """One thing that may vary. `name` is a key of the recipe with its tables (`fuse.method`), or one of `SPECIAL`."""

    name: str
    values: tuple[Value, ...]
    matters: Callable[[Values], bool] = always

    def parse(self, text: str) -> Value:
        """A value as written on the command line, of the type that the knob's values have."""
        kind = type(self.values[0])
        try:
            return kind(text) if kind is not int else int(text)
        except ValueError as error:
            raise InputError(f"the knob {self.name} takes values like {self.values[0]!r}; got {text!r}") from error


def keeps_tokens(values: Values) -> bool:
    return "tokens" in searched(values) or float(values.get(MAXSIM, 0)) > 0


WEIGHTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SOURCES = ("both", "vectors", "words", "tokens", "tokens and words")
MAXSIM = "maxsim.candidates"
CROSS = "cross-encoder.candidates"
SPECIAL = (
    "sources",
    MAXSIM,
    "maxsim.weight",
    CROSS,
    "cross-encoder.model",
    "cross-encoder.weight",
    "cross-encoder.max_tokens",
)
"""Knobs that put stages in or leave them out, and those of the stages that may be left out."""


def default_knobs(base: Recipe, models: Sequence[str] = (), rerankers: Sequence[str] = ()) -> tuple[Knob, ...]:
    """Every knob there is, in the order in which they are drawn. One with a single value stays as it is, unless asked for.

    `models` are encoders and `rerankers` cross-encoders to try beside the base's. What needs every document encoded again
    (model, passages, number format) is varied only where it is worth hours: sizes of passages, and the models named.
    """
    encoders = tuple(dict.fromkeys([base.encoder.model, *models]))
    sources = SOURCES if base.encoder.model != "none" else ("words",)
    languages = tuple(dict.fromkeys([base.words.language, "none"]))
    has_encoder = base.encoder.model != "none"
    read_by = [stage.model for stage in base.rerank if stage.kind == "cross-encoder"]
    readers = tuple(dict.fromkeys([*read_by, *rerankers]))
    knobs = [
        Knob("encoder.model", encoders),
        Knob("encoder.precision", (base.encoder.precision,)),
        Knob("encoder.pooling", (base.encoder.pooling,)),
        Knob("passages.size", tuple(dict.fromkeys([base.passages.size, 128, 0]))),
        Knob("sources", sources),
        Knob("retrieve.vectors", (20, 50, 100, 200), searches("vectors")),
        Knob("retrieve.tokens", (20, 50, 100), searches("tokens")),
        Knob("retrieve.words", (20, 50, 100, 200), searches("words")),
        Knob("words.language", languages, searches("words")),
        Knob("fuse.method", get_args(FusionMethod), fuses),
        Knob("fuse.weights.words", WEIGHTS, lambda values: values.get("fuse.method") in ("score", "rank")),
        Knob("fuse.constant", (5, 20, 60), lambda values: values.get("fuse.method") == "rank"),
        Knob("group.by", tuple(dict.fromkeys([base.group.by, "best", "sum"]))),
        Knob(MAXSIM, (0, 20, 50, 100) if has_encoder else (0,), lambda values: "tokens" not in searched(values)),
        Knob("maxsim.weight", (0.2, 0.4, 0.6, 0.8, 1.0), above_zero(MAXSIM)),
        Knob("tokens.format", ((base.tokens or TokenSettings()).format,), keeps_tokens),
        Knob("tokens.pooling", ((base.tokens or TokenSettings()).pooling,), keeps_tokens),
        Knob(CROSS, (0, 10, 20, 50, 100) if readers else (0,)),
        Knob("cross-encoder.model", readers or ("",), above_zero(CROSS)),
        Knob("cross-encoder.weight", (0.2, 0.4, 0.6, 0.8, 1.0), above_zero(CROSS)),
        Knob("cross-encoder.max_tokens", (0,), above_zero(CROSS)),
    ]
    return tuple(knobs)


@dataclass(frozen=True)
class Space:
    """All pipelines that are near a base recipe: what no knob turns stays as it is there."""

    base: Recipe
    knobs: tuple[Knob, ...]

    def __post_init__(self) -> None:
        for knob in self.knobs:
            if knob.name not in SPECIAL:
                _read(self.base if knob.name.split(".")[0] != "tokens" else _with_tokens(self.base), knob.name)

    def with_values(self, name: str, values: Sequence[str]) -> Space:
        """The same space with one knob's values named; a single one fixes it. Raises InputError for an unknown knob."""
        names = [knob.name for knob in self.knobs]
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are: {', '.join(names)}"
            raise InputError(f"there is no knob {name!r}; {hint}")
        if not values:
            raise InputError(f"the knob {name} was given no value; write {name}=VALUE or {name}=VALUE,VALUE")
        changed = [
            replace(knob, values=tuple(dict.fromkeys(knob.parse(value) for value in values))) if knob.name == name else knob
            for knob in self.knobs
        ]
        return replace(self, knobs=tuple(changed))

    def draw(self, choose: Draw) -> dict[str, Value]:
        """Values for the knobs that mean something beside those drawn before them."""
        drawn: dict[str, Value] = {}
        for knob in self.knobs:
            if knob.matters(drawn):
                drawn[knob.name] = knob.values[0] if len(knob.values) == 1 else choose(knob.name, knob.values)
        return drawn

    def recipe(self, values: Values) -> Recipe:
        """The recipe that these values make of the base. Raises RecipeError where they make none."""
        recipe, sources = replace(self.base, rerank=()), searched(values)
        recipe = _with_tokens(recipe) if keeps_tokens(values) else replace(recipe, tokens=None)
        for name, value in values.items():
            if name not in SPECIAL:
                recipe = changed(recipe, name, value)
        for source in {"vectors", "words", "tokens"} - set(sources):
            recipe = changed(recipe, f"retrieve.{source}", 0)
        if not fuses(values):  # then the fusion means nothing
            recipe = replace(recipe, fuse=self.base.fuse)
        if "fuse.weights.words" in values:
            other = next(source for source in sources if source != "words")
            recipe = changed(recipe, f"fuse.weights.{other}", round(1 - float(values["fuse.weights.words"]), 6))
        return replace(recipe, rerank=_stages(values, self.base))


def _stages(values: Values, base: Recipe) -> tuple[RerankSettings, ...]:
    """Late interaction first, the cross-encoder after it on what is left; what no knob turns is as in the base's stage."""
    known = {(stage.kind, stage.model): stage for stage in base.rerank}
    stages = []
    if candidates := int(values.get(MAXSIM, 0)):
        stage = known.get(("maxsim", ""), RerankSettings(kind="maxsim"))
        stages.append(replace(stage, candidates=candidates, weight=float(values["maxsim.weight"])))
    if candidates := int(values.get(CROSS, 0)):
        model, weight = str(values["cross-encoder.model"]), float(values["cross-encoder.weight"])
        stage = known.get(("cross-encoder", model), RerankSettings(model=model))
        limit = int(values["cross-encoder.max_tokens"])
        # Mixed scores are spread over all candidates, and sums take all passages: then none may be left unread.
        risk = stage.risk if weight == 1 and values.get("group.by") != "sum" else 0.0
        stages.append(replace(stage, candidates=candidates, weight=weight, max_tokens=limit, risk=risk))
    return tuple(stages)


def _with_tokens(recipe: Recipe) -> Recipe:
    return recipe if recipe.tokens is not None else replace(recipe, tokens=TokenSettings())


def changed(settings: Any, name: str, value: Value) -> Any:
    """The same settings with one key changed, named with its tables.

    >>> changed(Recipe(), "fuse.weights.words", 0.3).fuse.weights.words
    0.3
    """
    head, _, rest = name.partition(".")
    _read(settings, head)
    return replace(settings, **{head: changed(getattr(settings, head), rest, value) if rest else value})


def _read(settings: Any, name: str) -> Any:
    head, _, rest = name.partition(".")
    if not is_dataclass(settings) or head not in {item.name for item in fields(settings)}:
        raise InputError(f"a recipe has no key {name!r}")
    value = getattr(settings, head)
    return _read(value, rest) if rest else value


def stages_of(recipe: Recipe) -> tuple[str, ...]:
    """The parts of a pipeline that could be left out, by name, in their order.

    >>> stages_of(Recipe())
    ('vectors', 'words')
    """
    sources = [name for name in ("vectors", "tokens", "words") if getattr(recipe.retrieve, name)]
    if recipe.encoder.model == "none":
        sources = ["words"]
    return (*sources, *(stage.kind for stage in recipe.rerank))


def describe(recipe: Recipe) -> str:
    """A pipeline in a line, for a table.

    >>> describe(Recipe())
    'vectors 100 + words 100'
    """
    sources = [name for name in stages_of(recipe) if name in ("vectors", "tokens", "words")]
    total = sum(getattr(recipe.fuse.weights, name) for name in sources)
    parts = []
    for name in sources:
        unstemmed = " unstemmed" if name == "words" and recipe.words.language == "none" else ""
        share = (
            f" ({_short(getattr(recipe.fuse.weights, name) / total)})"
            if len(sources) > 1 and recipe.fuse.method != "auto"
            else ""
        )
        parts.append(f"{name}{unstemmed} {getattr(recipe.retrieve, name)}{share}")
    line = " + ".join(parts)
    if len(sources) > 1 and recipe.fuse.method == "rank":
        line += f" by {recipe.fuse.method}"
    for stage in recipe.rerank:
        line += f" → {stage.kind} {stage.candidates} ({_short(stage.mix)})"
    return line if recipe.group.by == "best" else f"{line}, the best {recipe.group.passages} passages added up"


def _short(share: float) -> str:
    return f"{share:.2g}".removeprefix("0")
