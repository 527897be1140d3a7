"""Fusion on every judged set at hand: fixed weights, the best weight in hindsight, and the weights decided without labels.

python bench/fusion.py develop                # the sets to develop on: fits the three numbers, a data set left out at a time
python bench/fusion.py report                 # the sets to report, with the numbers as they stand in the package
python bench/fusion.py report --model PATH --only covidfaq wikiqa xquad_de   # another encoder

Every source is asked once for every query (the first time takes an hour of one core, for encoding); what they said is kept
in ~/.cache/twinrank-data/fusion (TWINRANK_DATA), and all figures are made of that.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from twinrank.collection import Collection
from twinrank.readers import Dataset, read_dataset
from twinrank.recipe import Recipe
from twinrank.search.fuse import complete, spread, weigh
from twinrank.search.weights import AGREEMENTS, SPREADS, USUAL_SHARE, Values, Views, spread_of
from twinrank.types import Document

DATA = Path(os.environ.get("TWINRANK_DATA") or Path.home() / ".cache" / "twinrank-data")
KEPT = DATA / "fusion"
QUERIES = 300
"""Queries of a set, drawn by the hash of their ids; fewer where there are fewer."""
DOCUMENTS = 6000
"""Documents of a set: those that the drawn queries judge, then others, drawn by the hash of their ids."""
FEWER = {"pydoc_code": 2000}
"""Of long texts."""


@dataclass(frozen=True)
class Part:
    """Queries of one data set: a split, or the half of one whose hashes are even or odd."""

    data: str
    split: str
    half: int | None = None

    @property
    def name(self) -> str:
        return f"{self.data}-{self.split}" + ("" if self.half is None else f"-{'ab'[self.half]}")


# Fixed before anything was measured. What is learned sees the first alone.
DEVELOP = [
    Part("scifact", "train"),
    Part("wikiqa", "dev"),
    Part("squad_sent", "dev"),
    Part("pubmedqa_l", "dev"),
    Part("debian_desc", "dev"),
    Part("debian_desc_fr", "dev"),
    Part("debian_desc_ru", "dev"),
    Part("pydoc_code", "dev"),
    Part("covidfaq", "test", 0),
    Part("nl2bash_search", "test", 0),
    Part("xquad_de", "test", 0),
    Part("xquad_es", "test", 0),
]
REPORT = [
    Part("scifact", "test"),
    Part("wikiqa", "test"),
    Part("squad_sent", "test"),
    Part("pubmedqa_l", "test"),
    Part("debian_desc", "test"),
    Part("debian_desc_fr", "test"),
    Part("debian_desc_ru", "test"),
    Part("pydoc_code", "test"),
    Part("covidfaq", "test", 1),
    Part("nl2bash_search", "test", 1),
    Part("cranfield", "test"),
    Part("medline", "test"),
    Part("cacm", "test"),
    Part("vaswani", "test"),
    Part("climatefever_sent", "test"),
    Part("xquad_en", "test"),
    Part("xquad_ru", "test"),
    Part("xquad_ar", "test"),
    Part("xquad_zh", "test"),
    Part("xquadr_en", "test"),
    Part("xquadr_ru", "test"),
]


def digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def drawn(part: Part) -> Dataset:
    """The part's queries that have a relevant document, at most `QUERIES` of them."""
    whole = read_dataset(DATA / part.data, part.split)
    ids = [query for query, grades in whole.qrels.items() if any(grade > 0 for grade in grades.values())]
    if part.half is not None:
        ids = [query for query in ids if digest("half " + query) % 2 == part.half]
    ids = sorted(ids, key=digest)[:QUERIES]
    queries = {query: whole.queries[query] for query in ids}
    return replace(whole, queries=queries, qrels={query: whole.qrels[query] for query in ids})


def corpus(data: str) -> Iterator[Document]:
    """At most `DOCUMENTS` documents, those judged for any part of this data set first; in the corpus's order."""
    judged = {id for part in [*DEVELOP, *REPORT] if part.data == data for grades in drawn(part).qrels.values() for id in grades}
    documents = [document for document in read_dataset(DATA / data, "test").documents() if document.text.strip()]
    chosen = sorted(documents, key=lambda document: (document.id not in judged, digest(document.id)))[
        : FEWER.get(data, DOCUMENTS)
    ]
    names = {document.id for document in chosen}
    return (document for document in documents if document.id in names)


def opened(data: str, model: str | None = None) -> Collection:
    """The collection of a data set, by the default recipe, made where it is not there."""
    name = data if model is None else f"{Path(model).name}-{data}"
    collection = Collection(KEPT / f"{name}.twinrank", recipe=Recipe() if model is None else Recipe().with_model(model))
    if not len(collection):
        collection.add(corpus(data))
    return collection


# -- what the sources said ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Said:
    """Both sources' scores of every query's candidates, end to end, and what the judgments say of these."""

    name: str
    offsets: npt.NDArray[np.int64]  # (queries + 1,)
    cosines: Values  # (candidates,)
    points: Values  # (candidates,): BM25
    documents: npt.NDArray[np.int64]  # (candidates,): places among the ids in order
    grades: Values  # (candidates,)
    ideals: Values  # (queries,): the best discounted gain that there could be
    views: Views

    def __len__(self) -> int:
        return len(self.ideals)

    def of(self, query: int) -> tuple[Values, Values]:
        place = slice(self.offsets[query], self.offsets[query + 1])
        return self.cosines[place], self.points[place]

    def fused(self, fuse: Callable[[Values, Values], Values]) -> Values:
        """(candidates,): what a fusion makes of each query's two rows."""
        return np.concatenate([fuse(*self.of(query)) for query in range(len(self))])

    def ndcg(self, scores: Values) -> Values:
        """nDCG@10 by query: a document stands where its best passage does, equal scores by id, descending."""
        queries = np.repeat(np.arange(len(self)), np.diff(self.offsets))
        order = np.lexsort((-self.documents, -scores.astype(np.float32), queries))
        pairs = queries[order] * (self.documents.max() + 1) + self.documents[order]
        order = order[np.sort(np.unique(pairs, return_index=True)[1])]  # the best passage of each document
        asked = queries[order]
        ranks = np.arange(len(order)) - np.searchsorted(asked, asked)
        first = ranks < 10
        gains = self.grades[order][first] / np.log2(ranks[first] + 2)
        return np.bincount(asked[first], gains, minlength=len(self)) / self.ideals


def said(part: Part, model: str | None = None) -> Said:
    """What was kept, or asked now."""
    name = part.name if model is None else f"{Path(model).name}-{part.name}"
    place = KEPT / f"{name}.said.npz"
    if not place.exists():
        with opened(part.data, model) as collection:
            np.savez(place, **_ask(collection, drawn(part)))
    with np.load(place) as kept:
        rows = {key: kept[key] for key in kept.files}
    contrast, agreement = (float(rows.pop(key)) for key in ("contrast", "agreement"))
    known = None if math.isnan(agreement) else agreement
    return Said(name, views=Views(contrast, known), **rows)


def _ask(collection: Collection, dataset: Dataset) -> Mapping[str, npt.ArrayLike]:
    pipeline = collection.pipeline()
    columns: list[list[npt.ArrayLike]] = [[], [], [], []]
    ids: dict[int, str] = {}
    sizes, ideals = [0], []
    for query, text in dataset.queries.items():
        sources = [source.ask(text) for source, _ in pipeline.sources]
        found = [source.find(k, None) for source, (_, k) in zip(sources, pipeline.sources, strict=True)]
        vectors, words = ((dict(iter(ranking))) for ranking in complete(sources, found))
        grades = {id: grade for id, grade in dataset.qrels[query].items() if grade > 0}
        keys = np.sort(np.fromiter(vectors, np.int64))
        ids |= {key: info.id for key, info in collection.store.document_info(keys).items()}
        rows = [vectors[key] for key in keys], [words[key] for key in keys], keys, [grades.get(ids[key], 0) for key in keys]
        for column, row in zip(columns, rows, strict=True):
            column.append(np.asarray(row))
        sizes.append(len(keys))
        best = sorted(grades.values(), reverse=True)[:10]
        ideals.append(sum(grade / math.log2(rank + 2) for rank, grade in enumerate(best)))
    numbers = {id: number for number, id in enumerate(sorted(set(ids.values())))}
    keys = np.concatenate(columns[2])
    views = pipeline.fusion.views
    return {
        "offsets": np.cumsum(sizes),
        "cosines": np.concatenate(columns[0]).astype(np.float64),
        "points": np.concatenate(columns[1]).astype(np.float64),
        "documents": np.array([numbers[ids[key]] for key in keys.tolist()], np.int64),
        "grades": np.concatenate(columns[3]).astype(np.float64),
        "ideals": np.array(ideals),
        "contrast": views.contrast,
        "agreement": math.nan if views.agreement is None else views.agreement,
    }


# -- fusions --------------------------------------------------------------------------------------------------------------

WEIGHTS = np.round(np.arange(0, 1.001, 0.05), 2)


def standardised(scores: Values) -> Values:
    deviation = scores.std()
    return (scores - scores.mean()) / deviation if deviation > 1e-9 else np.zeros_like(scores)


def curve(one: Said, normalise: Callable[[Values], Values], weights: Values = WEIGHTS) -> Values:
    """(queries, weights): nDCG@10 for every fixed weight of the vectors."""
    parts = one.fused(lambda cosines, _: normalise(cosines)), one.fused(lambda _, points: normalise(points))
    return np.stack([one.ndcg(weight * parts[0] + (1 - weight) * parts[1]) for weight in weights], axis=1)


def decided(one: Said) -> Values:
    """nDCG@10 by query as the package fuses: (queries,)."""

    def fuse(cosines: Values, points: Values) -> Values:
        table = np.stack([cosines, points])
        return np.asarray(weigh(table, [1.0, None], one.views, USUAL_SHARE).slopes) @ table

    return one.ndcg(one.fused(fuse))


def alone(one: Said) -> tuple[float, float]:
    """nDCG@10 of BM25 and of the vectors, each by its own candidates."""
    return float(one.ndcg(one.points).mean()), float(one.ndcg(one.cosines).mean())


# -- fitting --------------------------------------------------------------------------------------------------------------

HARM = 1.0
"""How much more a loss against the better part counts than a gain above it."""
RIDGE = 1e-3


def features(one: Said) -> Values:
    """(queries, 2): spread and agreement, bounded as the package bounds them."""
    spreads = [spread_of(one.of(query)[0]) / one.views.contrast for query in range(len(one))]
    assert one.views.agreement is not None
    return np.stack([np.clip(spreads, *SPREADS), np.full(len(one), np.clip(one.views.agreement, *AGREEMENTS))], axis=1)


def fit(sets: Sequence[tuple[Values, Values]]) -> Values:
    """(features, curve) of each set → bias and the features' weights, by ascent on smoothed nDCG@10; sets count equally."""
    every = np.concatenate([rows for rows, _ in sets])
    mean, deviation = every.mean(axis=0), every.std(axis=0)
    kernel = np.exp(-0.5 * ((WEIGHTS[:, None] - WEIGHTS) / 0.06) ** 2)
    known = [((rows - mean) / deviation, table @ (kernel / kernel.sum(axis=0))) for rows, table in sets]
    chosen, first, second = np.array([math.log(USUAL_SHARE / (1 - USUAL_SHARE)), 0, 0]), np.zeros(3), np.zeros(3)
    for step in range(1, 1501):  # Adam (Kingma and Ba 2015): three numbers need no more
        slope = _slope(chosen, known)
        first, second = 0.9 * first + 0.1 * slope, 0.99 * second + 0.01 * slope**2
        chosen = chosen + 0.02 * first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.99**step)) + 1e-9)
    return np.array([chosen[0] - (chosen[1:] * mean / deviation).sum(), *(chosen[1:] / deviation)])


def _slope(chosen: Values, known: Sequence[tuple[Values, Values]]) -> Values:
    total = np.array([0.0, *(-2 * RIDGE * chosen[1:])])
    for rows, table in known:
        shares = 1 / (1 + np.exp(-(chosen[0] + rows @ chosen[1:])))
        values, rises = _between(table, shares)
        behind = max(table[:, 0].mean(), table[:, -1].mean()) - values.mean()
        worth = (1 + HARM / (1 + math.exp(-behind / 0.005))) / len(known)
        pushes = worth * rises * shares * (1 - shares) / len(rows)
        total += np.array([pushes.sum(), *(pushes @ rows)])
    return total


def _between(table: Values, shares: Values) -> tuple[Values, Values]:
    """The curve at weights between its points, and its slope there."""
    places = shares * (len(WEIGHTS) - 1)
    low = np.minimum(places.astype(int), len(WEIGHTS) - 2)
    each = np.arange(len(shares))
    rises = table[each, low + 1] - table[each, low]
    return table[each, low] + (places - low) * rises, rises * (len(WEIGHTS) - 1)


# -- tables ---------------------------------------------------------------------------------------------------------------


def table(parts: Sequence[Part], model: str | None, auto: Callable[[Said], float]) -> None:
    """A line for each set, then the means, and the best fixed weights over all of these sets in hindsight."""
    rows, curves = [], []
    print(f"{'set':28} {'queries':>7} {'BM25':>6} {'vectors':>7} {'.6:.4':>6} {'auto':>6} {'to best':>8} {'oracle':>6} at")
    for part in parts:
        one = said(part, model)
        means = [curve(one, normalise).mean(axis=0) for normalise in (spread, standardised)]
        curves.append(means)
        words, vectors = alone(one)
        reached = auto(one)
        row = words, vectors, means[0][12], reached, reached - max(words, vectors), max(means[1])
        rows.append(row)
        where = f"{WEIGHTS[int(np.argmax(means[1]))]:.2f}"
        print(f"{one.name:28} {len(one):7} {_line(row)} {where}", flush=True)
    worst = min(row[4] for row in rows)
    mean = np.mean(rows, axis=0)
    print(f"{'mean, and the worst':36} {_line([*mean[:4], worst, mean[5]])}")
    best = np.mean(curves, axis=0)  # (normalisations, weights)
    for name, line in zip(("min-max", "standardised"), best, strict=True):
        print(f"the best fixed weight in hindsight, {name}: {WEIGHTS[int(line.argmax())]:.2f}, mean {line.max():.4f}")
    print(f"auto: mean {mean[3]:.4f}, worst against the better part {worst:+.4f}")


def _line(row: Sequence[float]) -> str:
    return f"{row[0]:6.3f} {row[1]:7.3f} {row[2]:6.3f} {row[3]:6.3f} {row[4]:+8.3f} {row[5]:6.3f}"


def develop(parts: Sequence[Part], model: str | None) -> None:
    """Fit on all sets but those of one family of data, and judge on these; then fit on all."""
    known = {part: (features(said(part, model)), curve(said(part, model), standardised)) for part in parts}

    def held_out(part: Part) -> float:
        family = part.data.split("_")[0]
        bias, *weights = fit([rows for other, rows in known.items() if other.data.split("_")[0] != family])
        rows, line = known[part]
        return float(_between(line, 1 / (1 + np.exp(-(bias + rows @ np.array(weights)))))[0].mean())

    by_name = {said(part, model).name: part for part in parts}
    print("auto: fitted on the sets of other families\n")
    table(parts, model, lambda one: held_out(by_name[one.name]))
    print("\nfitted on all: bias {:.3f}, by spread {:.3f}, by agreement {:.3f}".format(*fit(list(known.values()))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=["develop", "report"])
    parser.add_argument("--model", help="another encoder than the default")
    parser.add_argument("--only", nargs="+", help="data sets")
    options = parser.parse_args()
    parts = [part for part in (DEVELOP if options.what == "develop" else REPORT) if part.data in (options.only or part.data)]
    if options.what == "develop":
        develop(parts, options.model)
    else:
        table(parts, options.model, lambda one: float(decided(one).mean()))


if __name__ == "__main__":
    main()
