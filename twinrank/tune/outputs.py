"""What the stages put out, asked once and remembered: any pipeline over them runs the search's own code without its costs."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from twinrank.collection import Collection
from twinrank.errors import CollectionError
from twinrank.ingest import AddReport
from twinrank.readers import Dataset
from twinrank.recipe import Recipe, RerankSettings, TokenSettings
from twinrank.search.pipeline import Pipeline
from twinrank.search.rerank import Rerank
from twinrank.search.retrieve import IndexSource
from twinrank.search.rewrite import Rewrite
from twinrank.types import Keys, Ranking, Scores

INDEXES = "index"
"""The folder of a collection that is made anew from its store, and therefore not copied."""


@dataclass
class RememberedSource:
    """A source that asks its index once for every query and number of candidates, and once for every passage's score."""

    source: IndexSource[Any]
    found: dict[tuple[str, int], Ranking] = field(default_factory=dict)
    scores: dict[str, dict[int, float | None]] = field(default_factory=dict)
    """Query → passage → its score; None where the source knows nothing of it."""
    asked: dict[str, Any] = field(default_factory=dict)
    """Query → what the index is asked: terms, a vector."""
    plan: None = None
    """What is remembered was searched for at another time."""

    @property
    def name(self) -> str:
        return self.source.name

    def ask(self, query: str) -> OpenRemembered:
        return OpenRemembered(self, query)

    def open(self, query: str) -> Any:
        """The real source, opened for a query whose text was prepared before."""
        if query not in self.asked:
            self.asked[query] = self.source.prepare(query)
        return replace(self.source, prepare=lambda _: self.asked[query]).ask(query)


@dataclass(frozen=True)
class OpenRemembered:
    """A remembered source, opened for one query."""

    memory: RememberedSource
    query: str

    @property
    def name(self) -> str:
        return self.memory.name

    def find(self, k: int, allowed: Keys | None) -> Ranking:
        assert allowed is None, "tuning searches without filters"
        place = self.query, k
        if place not in self.memory.found:
            self.memory.found[place] = self.memory.open(self.query).find(k, None)
        return self.memory.found[place]

    def score(self, keys: Keys) -> Ranking:
        known = self.memory.scores.setdefault(self.query, {})
        wanted = keys.tolist()
        missing = [key for key in wanted if key not in known]
        if missing:
            known.update(dict.fromkeys(missing))
            known.update(iter(self.memory.open(self.query).score(np.array(missing, np.int64))))
        scored = [(key, score) for key in wanted if (score := known[key]) is not None]
        return Ranking.of([key for key, _ in scored], [score for _, score in scored])

    def bound(self) -> float | None:
        return float(bound) if (bound := self.memory.open(self.query).bound()) is not None else None


@dataclass
class RememberedScores:
    """A reranker that reads each pair of query and passage once."""

    score: Callable[[str, Keys], Scores]
    known: dict[str, dict[int, float]] = field(default_factory=dict)
    pairs: int = 0
    """Pairs that were scored."""

    def __call__(self, query: str, keys: Keys) -> Scores:
        known = self.known.setdefault(query, {})
        wanted = keys.tolist()
        missing = [key for key in wanted if key not in known]
        if missing:
            scores = self.score(query, np.array(missing, np.int64))
            known.update(zip(missing, scores.tolist(), strict=True))
            self.pairs += len(missing)
        return np.array([known[key] for key in wanted], np.float32)


@dataclass(frozen=True)
class Documents:
    """Which document each passage is of, and where its id stands among all ids."""

    keys: Keys  # (passages,), ascending
    owners: npt.NDArray[np.int64]  # (passages,): numbers of documents, in the order of their ids
    ids: Sequence[str]  # (documents,), ascending

    def of(self, keys: Keys) -> npt.NDArray[np.int64]:
        return self.owners[np.searchsorted(self.keys, keys)]


class Outputs:
    """The stages' outputs on one data set, for every recipe that is asked about.

    Documents are stored and encoded once for each way of storing them, in collections under `folder` (default: the user's
    cache), which later calls find again. `tokens` says that token vectors are kept beside the others, for MaxSim.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        folder: Path | None = None,
        tokens: TokenSettings | None = None,
        progress: Callable[[int], None] | None = None,
        on_added: Callable[[AddReport], None] | None = None,
    ) -> None:
        self.dataset = dataset
        self.folder = _cache() if folder is None else folder
        self.tokens = tokens
        self._progress = progress
        self._on_added = on_added
        self._collections: dict[tuple[Path, bool], Collection] = {}
        self._filled: set[Path] = set()
        self._documents: dict[str, Documents] = {}
        self._sources: dict[tuple[Any, ...], RememberedSource] = {}
        self._scores: dict[tuple[Any, ...], RememberedScores] = {}
        self._changes: dict[str, Callable[[str], str]] = {}

    def close(self) -> None:
        for collection in self._collections.values():
            collection.close()

    # -- collections -----------------------------------------------------------------------------------------------------

    def place(self, recipe: Recipe) -> Path:
        """Where the documents lie as this recipe stores them, with the word index of its language."""
        name = self._name(recipe)
        path = self.folder / f"{name}-{_digest(recipe.words)}.twinrank"
        if path not in self._filled:
            self.folder.mkdir(parents=True, exist_ok=True)
            siblings = [other for other in sorted(self.folder.glob(f"{name}-*.twinrank")) if other in self._filled]
            if not path.exists() and siblings:  # the same documents and vectors, to be looked up by other words
                copy = Path(tempfile.mkdtemp(dir=self.folder))
                shutil.copytree(siblings[0], copy, ignore=shutil.ignore_patterns(INDEXES, ".*"), dirs_exist_ok=True)
                copy.rename(path)
            self._fill(path, recipe)
            self._filled.add(path)
        return path

    def _name(self, recipe: Recipe) -> str:
        corpus = Path(self.dataset.corpus).resolve()
        facts = corpus.stat()
        identity = [corpus, facts.st_size, facts.st_mtime_ns, *self._storage(recipe)]
        return f"{self.dataset.name}-{_digest(identity)}"

    def _storage(self, recipe: Recipe) -> tuple[Any, ...]:
        return recipe.encoder, recipe.passages, recipe.translate, recipe.tokens or self.tokens

    def _stored(self, recipe: Recipe) -> Recipe:
        """The recipe that fills the collection: with token vectors where any pipeline may ask for them, without rerankers."""
        return replace(recipe, tokens=recipe.tokens or self.tokens, rerank=())

    def _fill(self, path: Path, recipe: Recipe) -> None:
        """Add what is not there yet; a collection of an older version, or that was left half made, is made anew."""
        try:
            collection = Collection(path, recipe=self._stored(recipe))
        except CollectionError:
            shutil.rmtree(path)
            collection = Collection(path, recipe=self._stored(recipe))
        with collection:
            report = collection.add(self.dataset.documents(), progress=self._progress)
        if self._on_added is not None and report.added + report.updated:
            self._on_added(report)

    def collection(self, recipe: Recipe) -> Collection:
        """The collection that the stages are asked in; one with an index of all token vectors where the recipe searches it."""
        place = self.place(recipe), recipe.retrieve.tokens > 0
        if place not in self._collections:
            self._collections[place] = Collection(place[0], recipe=self._stored(recipe))
        return self._collections[place]

    def documents(self, recipe: Recipe) -> Documents:
        name = self._name(recipe)
        if name not in self._documents:
            self._documents[name] = _documents(self.collection(recipe))
        return self._documents[name]

    # -- pipelines -------------------------------------------------------------------------------------------------------

    def pipeline(self, recipe: Recipe) -> Pipeline:
        """The pipeline that searches by this recipe, with stages that remember what they put out."""
        collection = self.collection(recipe)
        pipeline = collection.pipeline(recipe)
        storage = self._storage(recipe)
        return replace(
            pipeline,
            sources=[(self._remembered(source, recipe, storage), k) for source, k in pipeline.sources],
            rerank=[
                self._remembered_stage(stage, settings, storage)
                for stage, settings in zip(pipeline.rerank, recipe.rerank, strict=True)
            ],
            rewrite=None if pipeline.rewrite is None else self._remembered_rewrite(pipeline.rewrite),
        )

    def _remembered(self, source: IndexSource[Any], recipe: Recipe, storage: tuple[Any, ...]) -> Any:
        settings = recipe.words if source.name == "words" else None
        return self._sources.setdefault((source.name, settings, *storage), RememberedSource(source))

    def _remembered_stage(self, stage: Rerank, settings: RerankSettings, storage: tuple[Any, ...]) -> Rerank:
        asked = (settings.kind, settings.model, settings.windows, settings.max_tokens, *storage)
        return replace(stage, score=self._scores.setdefault(asked, RememberedScores(stage.score)))

    def _remembered_rewrite(self, rewrite: Rewrite) -> Rewrite:
        return replace(rewrite, change=self._changes.setdefault(rewrite.name, cache(rewrite.change)))

    @property
    def pairs(self) -> int:
        """Pairs of query and passage that rerankers read."""
        return sum(scores.pairs for scores in self._scores.values())


def _documents(collection: Collection) -> Documents:
    keys = np.sort(np.concatenate([part for part, _ in collection.store.iterate_passages()]))
    names: list[str] = []
    for start in range(0, len(keys), 4096):
        part = keys[start : start + 4096]
        info = collection.store.document_info(part)
        names += [info[key].id for key in part.tolist()]
    ids = sorted(set(names))
    numbers = {name: number for number, name in enumerate(ids)}
    return Documents(keys, np.array([numbers[name] for name in names], np.int64), ids)


def _digest(value: object) -> str:
    return hashlib.blake2b(repr(value).encode(), digest_size=6).hexdigest()


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "twinrank" / "tune"
