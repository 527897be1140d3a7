"""Examples of a collection parted into what is learned from and what is measured on, that as a judged data set."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from twinrank.collection import Collection
from twinrank.errors import DataError
from twinrank.files import replace_file
from twinrank.train.made import WAYS, Left, Way
from twinrank.train.material import Material
from twinrank.train.splits import find_leaks, split_by_document

FEWEST_QUERIES = 20
"""Of dev and of test, at least: below that nothing can be said."""


@dataclass(frozen=True)
class Measuring:
    """The places of the examples on each side."""

    train: list[int]
    dev: list[int]
    test: list[int]
    notes: tuple[str, ...] = ()
    """What was left out of train though it teaches, in words: beyond the limit, or nearly asked by dev or test."""


@dataclass(frozen=True)
class Extent:
    """How much is measured over."""

    queries: int = 400
    """Of dev and of test, at most."""
    documents: int = 5_000
    """At most: those that the queries are of, and others by chance."""
    examples: int = 4_000
    """To learn from, at most; people's queries come first."""
    seed: int = 0


def split_for_measuring(material: Material, extent: Extent) -> Measuring:
    """Part by document. Where people's queries are given, or a model wrote some, dev and test are of these alone: made ones say
    less of people.

    Of people's queries half are measured on at most, of made ones a fifth; what shares a document with these, or nearly
    shares a query, teaches nothing.
    """
    asked = [place for place, example in enumerate(material.examples) if not material.is_made(example)]
    own = asked or fairly_asked(material)
    most = len({material.documents[place] for place in own}) or 1
    share = min(0.25 if asked else 0.1, extent.queries / most)  # no more than are asked: the others may teach
    shares = (1 - 2 * share, share, share)
    chosen = material.take(own)
    parts = split_by_document(chosen.examples, shares, documents=chosen.documents, seed=extent.seed)
    train, dev, test = ([own[at] for at in part] for part in parts)
    held = {document for place in [*dev, *test] for document in material.documents[place]}
    taken = set(own)
    others = [
        place for place in range(len(material.examples)) if place not in taken and held.isdisjoint(material.documents[place])
    ]
    if not asked:  # all are made alike, so none comes first
        train, others = [], [*train, *others]
    draw = np.random.default_rng([extent.seed, 3])
    notes = []
    if len(train) > extent.examples:
        notes.append(
            f"{extent.examples:,} of {len(train):,} judged examples are learned from, drawn by chance; examples sets how many"
        )
        train = [train[at] for at in sorted(draw.permutation(len(train))[: extent.examples].tolist())]
    room = extent.examples - len(train)
    train += [others[at] for at in sorted(draw.permutation(len(others))[:room].tolist())]
    found = find_leaks([material.examples[at] for at in train], [material.examples[at] for at in [*dev, *test]])
    if found.leaks:
        notes.append(f"{found}; they are left out")
    return Measuring([train[at] for at in found.kept], dev, test, tuple(notes))


def fairly_asked(material: Material) -> list[int]:
    """The examples that may be measured on: of documents that allow the same ways.

    Did some allow a title alone, the shortest say, then their length would tell that they answer titles. So the ways are
    taken that most documents allow together, and the other documents are neither asked for nor searched.
    """
    ways = same_ways(material.left.values())
    fair = {left.document for left in material.left.values() if ways <= set(left.queries)}
    queries = {document: {material.left[document].queries[way] for way in ways} for document in fair}
    return [place for place, one in enumerate(material.examples) if one.query in queries.get(one.document, ())]


def same_ways(lefts: Iterable[Left]) -> frozenset[Way]:
    """The most ways that half as many documents allow together as allow the commonest one.

    >>> both, one = Left("a", "", {"title": "", "first sentence": ""}), Left("b", "", {"title": ""})
    >>> sorted(same_ways([both, one])), sorted(same_ways([both, one, one]))
    (['first sentence', 'title'], ['title'])
    """
    allowed = Counter(frozenset(left.queries) for left in lefts)
    some = [frozenset(ways) for count in range(len(WAYS), 0, -1) for ways in combinations(WAYS, count)]
    counts = {ways: sum(count for own, count in allowed.items() if ways <= own) for ways in some}
    most = max(counts.values())
    return next(ways for ways in sorted(some, key=lambda ways: (-len(ways), -counts[ways])) if 2 * counts[ways] >= most)


def write_judged(collection: Collection, material: Material, parts: Measuring, folder: Path, extent: Extent) -> None:
    """Dev and test as a folder in BEIR's layout, over the documents that their queries are of and others by chance.

    Of made queries each document gives one, by chance, and all documents stand there without what they may be asked by, those
    that answer and those that do not: nothing but what a text says tells which query it answers. The others are documents
    that might have been asked for; all are in an order by chance, since equal scores are ranked by it.
    """
    draw = np.random.default_rng([extent.seed, 1])
    made = material.is_made(material.examples[parts.dev[0]]) if parts.dev else False
    corpus: dict[str, None] = {}
    queries: list[dict[str, str]] = []
    for split, places in (("dev", parts.dev), ("test", parts.test)):
        lines, used = ["query-id\tcorpus-id\tscore"], 0
        for place in [places[at] for at in draw.permutation(len(places)).tolist()]:
            documents = material.documents[place]
            if used == extent.queries or (made and documents[0] in corpus):
                continue
            used += 1
            queries.append({"_id": f"{split}{used}", "text": material.examples[place].query})
            lines += [f"{split}{used}\t{document}\t1" for document in documents]
            corpus.update(dict.fromkeys(documents))
        if used < FEWEST_QUERIES:
            raise DataError(
                f"there are {used:,} queries for {split}, too few to measure by; {FEWEST_QUERIES} at least: "
                "give more judged queries, or more documents"
            )
        (folder / "qrels").mkdir(parents=True, exist_ok=True)
        replace_file(folder / "qrels" / f"{split}.tsv", "\n".join(lines) + "\n")
    fair = dict.fromkeys(material.examples[place].document for place in fairly_asked(material)) if made else {}
    others = [document for document in (fair or collection.store.document_ids()) if document not in corpus]
    room = max(0, extent.documents - len(corpus))
    ids = [*corpus, *(others[at] for at in draw.permutation(len(others))[:room].tolist())]
    ids = [ids[at] for at in draw.permutation(len(ids)).tolist()]
    replace_file(folder / "queries.jsonl", _lines(queries))
    texts = ({"_id": id, "text": material.left[id].passage} for id in ids) if made else _whole(collection, ids)
    replace_file(folder / "corpus.jsonl", _lines(texts))


def _whole(collection: Collection, ids: Sequence[str]) -> Iterator[dict[str, str]]:
    for start in range(0, len(ids), 256):
        for document in collection.store.get(ids[start : start + 256]):
            if document is not None:
                yield {"_id": document.id, "title": document.title, "text": document.text}


def _lines(records: Iterable[Mapping[str, str]]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
