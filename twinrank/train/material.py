"""Where examples and the passages for negatives come from: judged data, a file of pairs, or a collection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from twinrank.collection import Collection
from twinrank.encoding import VECTORS
from twinrank.errors import DataError, RecipeError
from twinrank.readers import read_dataset
from twinrank.text import Analyzer
from twinrank.train.data import Example, known_answers, of_dataset, read_examples, same_text
from twinrank.train.made import LONGEST_PASSAGE, WAYS, Left, Way, take_queries
from twinrank.train.negatives import Miner, Mining, Progress, Tally
from twinrank.train.settings import TrainSettings
from twinrank.train.written import QueryWriter
from twinrank.types import Document, Encoder, Qrels, Scorer, Vectors

AT_ONCE = 256
SHOWN = 3
"""Ids of judged documents that are not there, as examples."""


@dataclass
class Material:
    """Examples, which documents each is of, and the passages that negatives may be mined from."""

    examples: list[Example]
    passages: list[str]
    documents: list[tuple[str, ...]]
    """One an example: what may not be parted when it is split; empty where nobody knows."""
    known: dict[str, set[str]] = field(default_factory=dict)
    """Query → passages that may answer it and are not among its positives: the other passages of its documents."""
    vectors: Vectors | None = None
    """Of the passages, (passages, dimension), where a collection keeps them already."""
    left: dict[str, Left] = field(default_factory=dict)
    """Document → what is left of it without what made examples ask; from these their negatives are mined."""

    def is_made(self, example: Example) -> bool:
        """Whether a query was taken out of the document; else it was asked by people, or by a model that stood in for them."""
        own = self.left.get(example.document)
        return own is not None and example.positives == (own.passage,)

    def mine(
        self, mining: Mining, encoder: Encoder | str | None, *, judge: Scorer | None = None, progress: Progress | None = None
    ) -> tuple[list[Example], Tally]:
        """The examples in their order, with negatives that are cut as their answers are: else the cut would tell them apart."""
        mined: dict[int, Example] = {}
        tallies = []
        pools = {True: ([left.passage for left in self.left.values()], None), False: (self.passages, self.vectors)}
        for made, (passages, vectors) in pools.items():
            places = [place for place, example in enumerate(self.examples) if self.is_made(example) == made]
            if places:
                miner = Miner(passages, mining, judge=judge, known=self.known)
                some = [self.examples[place] for place in places]
                mined.update(zip(places, miner.mine(some, encoder, vectors=vectors, progress=progress), strict=True))
                tallies.append(miner.tally.as_json())
        return [mined[place] for place in range(len(mined))], Tally(**sum(map(Counter, tallies), Counter()))

    def take(self, places: Iterable[int]) -> Material:
        """Only some examples, with all passages."""
        kept = list(places)
        return replace(self, examples=[self.examples[at] for at in kept], documents=[self.documents[at] for at in kept])

    def sample(self, count: int, seed: int = 0) -> Material:
        """So many examples at most, drawn by the seed, in their order."""
        if count <= 0 or count >= len(self.examples):
            return self
        return self.take(sorted(np.random.default_rng(seed).permutation(len(self.examples))[:count].tolist()))


def of_data(source: Path | str, *, split: str = "train") -> Material:
    """A BEIR folder's split with its whole corpus, or a file of examples, whose own passages are all there is to mine from."""
    place = Path(source)
    if not place.is_dir():
        examples = read_examples(place)
        passages = list(dict.fromkeys(passage for example in examples for passage in example.passages))
        known: dict[str, set[str]] = {}
        for example, answers in zip(examples, known_answers(examples), strict=True):
            known.setdefault(example.query, set()).update(answers)
        return Material(examples, passages, [example.positives for example in examples], known)
    dataset = read_dataset(place, split=split)
    examples = of_dataset(dataset)
    passages = [text for text in (f"{document.title} {document.text}".strip() for document in dataset.documents()) if text]
    return Material(examples, passages, [example.positives for example in examples])


def refresher(settings: TrainSettings) -> Callable[[Path, Sequence[Example], int], list[Example]]:
    """What mines anew while a training runs: (folder of the model as it is, examples, round) → the examples, other negatives.

    By the model's own vectors (ANCE, Xiong et al. 2021), late interaction by MaxSim over what words find, out of the passages
    that the recipe names. What answers by any example there is no negative, though the training drew only some of them.
    """
    named = settings.refresh.passages or settings.data.train
    if not named:
        raise RecipeError("refresh: the recipe names nothing to mine from; give [data] train, or [refresh] passages")
    source = of_data(named, split=settings.data.split)
    mining = Mining("vectors", max(1, settings.data.negatives), seed=settings.training.seed)
    miner = Miner(source.passages, mining, known=source.known)
    return lambda folder, examples, number: miner.mine(examples, folder, number=number)


def held_out(source: Path | str, split: str = "test") -> list[Example]:
    """What is measured on, to look for leaks."""
    return of_dataset(read_dataset(source, split=split))


# -- a collection --------------------------------------------------------------------------------------------------------


def of_collection(
    collection: Collection,
    *,
    queries: Mapping[str, str] | None = None,
    qrels: Qrels | None = None,
    ways: Sequence[Way] = WAYS,
    writer: QueryWriter | None = None,
    limit: int = 20_000,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Material:
    """Examples made of a collection's own texts, and of judged queries where they are given; what to mine from for both.

    A judged query's positive is the passage of a relevant document that shares most of the query's words, since judgments are
    about documents. At most `limit` documents, drawn by the seed, are made examples of; `writer` is asked for queries of them
    too. A query that several documents would be asked by is left out. `progress` is told how many more documents are done.
    """
    stored = Stored.read(collection)
    material = Material([], stored.texts, [], {}, stored.vectors)
    for query, relevant in judged_here(queries or {}, qrels or {}, stored.has):
        positives = tuple(dict.fromkeys(stored.best(document, query) for document in relevant))
        _add(material, stored, Example(query, positives, document=relevant[0]), relevant)
    ids = list(collection.store.document_ids())
    drawn = [ids[place] for place in np.random.default_rng(seed).permutation(len(ids))[:limit].tolist()]
    for documents in _batches(collection, drawn):
        material.left.update((left.document, left) for left in (take_queries(documents, ways, seed=seed) if ways else ()))
        if writer is not None:
            written = writer.write([f"{document.title}\n{document.text}".strip() for document in documents])
            for document, asked in zip(documents, written, strict=True):
                for query in asked if stored.has(document.id) else ():
                    example = Example(query, (stored.best(document.id, query),), document=document.id)
                    _add(material, stored, example, [document.id])
        if progress is not None:
            progress(len(documents))
    made = [example for left in material.left.values() for example in left.examples]
    times = Counter(same_text(example.query) for example in made)
    for example in made:
        if times[same_text(example.query)] == 1:
            _add(material, stored, example, [example.document])
    if not material.examples:
        raise DataError(f"{collection.path}: its documents allow no examples; give queries and judgments of them")
    return material


def judged_here(queries: Mapping[str, str], qrels: Qrels, has: Callable[[str], bool]) -> Iterator[tuple[str, list[str]]]:
    """The judged queries with a text and a relevant document that is there: (query, its relevant documents that are there)."""
    for query, grades in qrels.items():
        relevant = [document for document, grade in grades.items() if grade > 0 and has(document)]
        if relevant and query in queries:
            yield queries[query], relevant


def unmatched(collection: Collection, queries: Mapping[str, str], qrels: Qrels) -> str:
    """What of the judgments fits neither queries nor collection, in words; empty where all of it does."""
    relevant = list(dict.fromkeys(document for grades in qrels.values() for document, grade in grades.items() if grade > 0))
    there = set(collection.store.known_digests(relevant))
    found = {
        "of the judged queries {} have no text: {}": ([query for query in qrels if query not in queries], len(qrels)),
        "of the relevant documents {} are not in the collection: {}": (
            [document for document in relevant if document not in there],
            len(relevant),
        ),
    }
    return "; ".join(
        told.format(f"{len(lacking):,} of {of:,}", ", ".join(map(repr, lacking[:SHOWN])) + (", …" if lacking[SHOWN:] else ""))
        for told, (lacking, of) in found.items()
        if lacking
    )


def _add(material: Material, stored: Stored, example: Example, documents: Sequence[str]) -> None:
    material.examples.append(example)
    material.documents.append(tuple(documents))
    own = {text for document in documents for text in stored.of(document)}
    material.known.setdefault(example.query, set()).update(own.difference(example.positives))


def _batches(collection: Collection, ids: Sequence[str]) -> Iterator[list[Document]]:
    for start in range(0, len(ids), AT_ONCE):
        found = collection.store.get(ids[start : start + AT_ONCE])
        yield [document for document in found if document is not None and document.text[:LONGEST_PASSAGE].strip()]


@dataclass
class Stored:
    """The passages of a collection, and whose they are."""

    texts: list[str]
    vectors: Vectors | None
    _places: dict[str, list[int]]
    _analyze: Analyzer

    @classmethod
    def read(cls, collection: Collection) -> Stored:
        store = collection.store
        texts: list[str] = []
        keys: list[int] = []
        places: dict[str, list[int]] = {}
        for some, titled in store.iterate_passages(batch=4096):
            info = store.document_info(some)
            for key, text in zip(some.tolist(), titled, strict=True):
                if key in info:
                    places.setdefault(info[key].id, []).append(len(texts))
                    texts.append(text)
                    keys.append(key)
        view = store.views().get(VECTORS)
        vectors = store.vectors(VECTORS, np.array(keys, np.int64)) if view is not None and view.complete and keys else None
        return cls(texts, vectors, places, collection.analyzer)

    def has(self, document: str) -> bool:
        return document in self._places

    def of(self, document: str) -> list[str]:
        return [self.texts[place] for place in self._places.get(document, ())]

    def best(self, document: str, query: str) -> str:
        """The document's passage that holds most of the query's words; of equals the first."""
        words = set(self._analyze(query))
        return max(self.of(document), key=lambda text: len(words.intersection(self._analyze(text))))
