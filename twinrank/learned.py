"""What was learned about when a collection's reranks may stop: kept in its store with what it belongs to, else refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from hashlib import blake2b

import numpy as np

from twinrank.errors import InputError
from twinrank.recipe import Recipe
from twinrank.search.anytime import Anytime
from twinrank.search.pipeline import Pipeline
from twinrank.search.rerank import Asked
from twinrank.stopping import Example, Rule
from twinrank.store import Kept
from twinrank.text import sentences

VERSION = 1

CHANGED = 0.1
"""The share of passages that may change before what was learned no longer counts."""

MADE = 300
"""Queries made of the collection's own titles and sentences, where none are given."""


@dataclass(frozen=True)
class Belongs:
    """What a rule was learned for."""

    reranker: str
    first_stage: str

    @classmethod
    def to(cls, recipe: Recipe, number: int, reranker: str) -> Belongs:
        """The stage `number` of a recipe, its scorer of fingerprint `reranker`, and all that decides what comes to it."""
        parts = (
            recipe.encoder,
            recipe.passages,
            recipe.words,
            recipe.retrieve,
            recipe.fuse,
            recipe.rewrite,
            recipe.tokens,
            recipe.group,
        )
        before: list[object] = [None if part is None else asdict(part) for part in parts]
        before += [_order(stage) for stage in recipe.rerank[:number]]
        text = json.dumps([*before, recipe.rerank[number].candidates], sort_keys=True)
        return cls(reranker, blake2b(text.encode(), digest_size=8).hexdigest())


def _order(stage: object) -> dict[str, object]:
    """What of an earlier rerank decides its order; how much of it is done does not, as far as it keeps its promise."""
    return {name: value for name, value in asdict(stage).items() if name not in ("risk", "top", "tokens")}  # type: ignore[call-overload]


@dataclass(frozen=True)
class Learned:
    """One stage's learning: from how many queries, and for how many places at which risk it is enough."""

    stage: str
    queries: int
    made: bool
    """Whether the queries were made of the collection's own texts."""
    rule: Rule


def keep(store: Kept, number: int, belongs: Belongs, learned: Learned) -> None:
    told = {
        "version": VERSION,
        **asdict(belongs),
        "passages": store.count_passages(),
        "sequence": store.sequence(),
        "made": learned.made,
        "rule": learned.rule.to_dict(),
    }
    store.set_meta(_key(number), json.dumps(told, allow_nan=False))


def find(store: Kept, number: int, belongs: Belongs) -> tuple[Rule | None, str]:
    """The rule of a stage, or None and the reason why there is none that counts."""
    kept = store.get_meta(_key(number))
    again = "learn when to stop: twinrank learn"
    if kept is None:
        return None, f"nothing was learned yet, so all are scored; {again}"
    told, rule = _read(kept)
    if told["reranker"] != belongs.reranker:
        return None, f"what was learned is for the reranker {told['reranker']}, this one is {belongs.reranker}; {again}"
    if told["first_stage"] != belongs.first_stage:
        return None, f"what was learned is for another first stage ({told['first_stage']}, not {belongs.first_stage}); {again}"
    since, then = int(told["sequence"]), int(told["passages"])
    if store.changed_since(since, then) > CHANGED * max(then, 1):
        return None, f"more than {CHANGED:.0%} of the {then:,} passages changed since it was learned; {again}"
    return rule, ""


@lru_cache(maxsize=16)
def _read(kept: str) -> tuple[dict[str, str], Rule]:
    try:
        told = json.loads(kept)
        if told["version"] != VERSION:
            raise InputError(f"what was learned has version {told['version']}, not {VERSION}; learn it anew: twinrank learn")
        return {name: told[name] for name in ("reranker", "first_stage", "passages", "sequence")}, Rule.from_dict(told["rule"])
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"the learned rule for stopping cannot be read ({error!r}); learn it anew: twinrank learn") from error


def _key(number: int) -> str:
    return f"stopping {number}"


def observe(
    pipeline: Pipeline, queries: Iterable[str], progress: Callable[[int], None] | None = None
) -> dict[str, list[Example]]:
    """Rerank each query fully: stage → what was seen. A query counts once, however often it is given."""
    whole = replace(
        pipeline,
        rerank=[replace(stage, rule=None, tokens=0) if isinstance(stage, Anytime) else stage for stage in pipeline.rerank],
    )
    seen: dict[str, list[Example]] = {}
    for query in dict.fromkeys(queries):
        whole.run(query, asked=Asked(observe=lambda stage, example: seen.setdefault(stage, []).append(example)))
        if progress is not None:
            progress(1)
    return seen


def made_queries(store: Kept, count: int = MADE) -> list[str]:
    """Queries of the collection's own texts, spread over all of it: in turn a title and a sentence, where there are both."""
    return list(dict.fromkeys(_made(store, count)))[:count]


def _made(store: Kept, count: int) -> Iterator[str]:
    draw = np.random.default_rng(0)
    ids = sorted(store.document_ids())
    chosen = [ids[place] for place in draw.permutation(len(ids))[: 2 * count].tolist()]
    for number, document in enumerate(store.get(chosen)):
        if document is None:
            continue
        fitting = [(start, end) for start, end in sentences(document.text) if 20 <= end - start <= 300]
        if document.title and (number % 2 or not fitting):
            yield document.title
        elif fitting:
            start, end = fitting[int(draw.integers(len(fitting)))]
            yield document.text[start:end].strip()
