"""Where examples and the passages for negatives come from: judged data, a file of pairs, or a collection."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from twinrank.collection import Collection
from twinrank.encoding import VECTORS
from twinrank.errors import DataError, RecipeError
from twinrank.readers import Dataset, read_dataset
from twinrank.text import Analyzer
from twinrank.train.data import Example, of_dataset, read_examples
from twinrank.train.made import LONGEST_PASSAGE, WAYS, Way, make_examples
from twinrank.train.negatives import Miner, Mining
from twinrank.train.settings import TrainSettings
from twinrank.train.written import QueryWriter
from twinrank.types import Document, Qrels, Vectors

AT_ONCE = 256


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
        return Material(examples, passages, [example.positives for example in examples])
    dataset = read_dataset(place, split=split)
    examples = of_dataset(dataset)
    passages = [text for text in (f"{document.title} {document.text}".strip() for document in dataset.documents()) if text]
    return Material(examples, passages, [example.positives for example in examples])


def refresher(settings: TrainSettings) -> Callable[[Path, Sequence[Example], int], list[Example]]:
    """What mines anew while a training runs: (folder of the model as it is, examples, round) → the examples, other negatives.

    By the model's own vectors (ANCE, Xiong et al. 2021), late interaction by MaxSim over what words find, out of the passages
    that the recipe names.
    """
    source = settings.refresh.passages or settings.data.train
    if not source:
        raise RecipeError("refresh: the recipe names nothing to mine from; give [data] train, or [refresh] passages")
    mining = Mining("vectors", max(1, settings.data.negatives), seed=settings.training.seed)
    miner = Miner(of_data(source, split=settings.data.split).passages, mining)
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
    """Examples made of a collection's own texts, and of judged queries where they are given; its passages to mine from.

    A judged query's positive is the passage of a relevant document that shares most of the query's words, since judgments are
    about documents. At most `limit` documents, drawn by the seed, are made examples of; `writer` is asked for queries of them
    too. `progress` is told how many more documents are done.
    """
    stored = Stored.read(collection)
    material = Material([], stored.texts, [], {}, stored.vectors)
    for query, grades in (qrels or {}).items():
        relevant = [document for document, grade in grades.items() if grade > 0 and stored.has(document)]
        if relevant and queries and query in queries:
            positives = tuple(dict.fromkeys(stored.best(document, queries[query]) for document in relevant))
            _add(material, stored, Example(queries[query], positives), relevant)
    ids = list(collection.store.document_ids())
    drawn = [ids[place] for place in np.random.default_rng(seed).permutation(len(ids))[:limit].tolist()]
    for documents in _batches(collection, drawn):
        for made in make_examples(documents, ways, seed=seed) if ways else ():
            _add(material, stored, made.example, [made.document])
        if writer is not None:
            written = writer.write([f"{document.title}\n{document.text}".strip() for document in documents])
            for document, asked in zip(documents, written, strict=True):
                for query in asked if stored.has(document.id) else ():
                    _add(material, stored, Example(query, (stored.best(document.id, query),)), [document.id])
        if progress is not None:
            progress(len(documents))
    if not material.examples:
        raise DataError(f"{collection.path}: its documents allow no examples; give queries and judgments of them")
    return material


def as_dataset(material: Material, collection: Collection, split: str) -> Dataset:
    """The examples as a judged data set over the collection's documents, for measuring; a query counts once."""
    qrels: dict[str, dict[str, int]] = {}
    ids: dict[str, str] = {}
    for example, documents in zip(material.examples, material.documents, strict=True):
        identifier = ids.setdefault(example.query, f"q{len(ids)}")
        qrels.setdefault(identifier, {}).update(dict.fromkeys(documents, 1))
    queries = {identifier: query for query, identifier in ids.items()}
    folder = collection.own_folder("adapted")
    return Dataset(folder.name, folder, folder, queries, qrels, split)


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
