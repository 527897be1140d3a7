"""Whether a collection is one of the states that it may be in: contents, both indexes against brute force, search, check."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
from twinrank_torture.workload import WORDS, HashEncoder, State, open_collection

from twinrank.collection import Collection
from twinrank.types import Membership, Ranking


@dataclass
class Verdict:
    """What was found; no problems: all is well."""

    problems: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    state: int = -1
    """Which of the allowed states it is."""
    opening: float = 0.0
    """Seconds until the first answer."""
    opening_work: float = 0.0
    """Of them, those that this process worked: on a busy machine the rest is waiting for others."""


def verify(folder: Path, states: Sequence[State], seed: int = 0) -> Verdict:
    verdict = Verdict()
    try:
        _verify(verdict, folder, states, seed)
    except Exception as error:
        verdict.problems.append(f"verifying failed: {type(error).__name__}: {error}")
    return verdict


def _verify(verdict: Verdict, folder: Path, states: Sequence[State], seed: int) -> None:
    started, worked = perf_counter(), process_time()
    with open_collection(folder) as collection:
        collection.search("river", 3)
        verdict.opening, verdict.opening_work = perf_counter() - started, process_time() - worked
        verdict.notices = list(collection.notices)
        ids = list(collection.store.document_ids())
        found = {document.id: document for document in collection.get(ids) if document is not None}
        verdict.state = next((number for number, state in enumerate(states) if dict(state) == found), -1)
        if verdict.state < 0:
            verdict.problems.append(_difference(found, states))
        verdict.problems += collection.check().problems
        verdict.problems += _index_problems(collection, seed)
        if verdict.state >= 0:
            verdict.problems += _search_problems(collection, found, states[0], seed)


def _difference(found: State, states: Sequence[State]) -> str:
    lines = []
    for state in states:
        lost = sorted(set(state) - set(found))[:5]
        extra = sorted(set(found) - set(state))[:5]
        other = sorted(name for name in set(found) & set(state) if found[name] != state[name])[:5]
        lines.append(f"lost {lost}, not to be there {extra}, of another version {other}")
    return f"{len(found)} documents are none of the {len(states)} states allowed: " + "; or ".join(lines)


def _index_problems(collection: Collection, seed: int) -> list[str]:
    """Both indexes against what the store's passages say, computed again from their texts."""
    problems = []
    indexes = collection._derived.refresh()
    batches = list(collection.store.iterate_passages())
    texts = {int(key): text for keys, part in batches for key, text in zip(keys, part, strict=True)}
    keys = np.array(sorted(texts), np.int64)
    encoder = HashEncoder()
    vectors = encoder.encode([texts[int(key)] for key in keys])  # (passages, dimension)
    terms = {int(key): set(collection.analyzer(text)) for key, text in texts.items()}
    if indexes.vectors is None:
        return ["there are passages and no index of vectors"] if len(keys) else []
    if len(indexes.vectors) != len(keys) or len(indexes.words) != len(keys):
        problems.append(f"{len(keys)} passages, {len(indexes.vectors)} in the vectors, {len(indexes.words)} in the words")
    if len(keys):
        try:
            if not np.array_equal(collection.store.vectors("vectors", keys), vectors):
                problems.append("a stored vector is not its text's")
            if not np.array_equal(indexes.vectors.vectors(keys), vectors):
                problems.append("an indexed vector is not its text's")
        except Exception as error:
            problems.append(f"{type(error).__name__}: {error}")
    chosen = random.Random(seed)
    for _ in range(3):
        query = np.random.default_rng(chosen.randrange(10**9)).normal(size=encoder.dimension).astype(np.float32)
        exact = vectors.astype(np.float64) @ query.astype(np.float64)
        if indexes.vectors.search(query, 10).keys.tolist() != Ranking.of(keys, exact, 10).keys.tolist():
            problems.append("the ten nearest vectors are not those of brute force")
    for word in chosen.sample(WORDS, 4):
        term = collection.analyzer(word)[0]
        if sorted(indexes.words.search([term], len(keys) + 1).keys.tolist()) != [k for k in sorted(terms) if term in terms[k]]:
            problems.append(f"the passages with the word {word} are not those of brute force")
    return problems


def _search_problems(collection: Collection, found: State, before: State, seed: int) -> list[str]:
    problems = []
    chosen = random.Random(seed)
    for document in chosen.sample(list(found.values()), min(4, len(found))):
        unique = document.text.split()[0]
        first = collection.store.passages(collection.store.select(Membership("id", (document.id,))))[0]
        hits = collection.search(first.titled_text, 3).hits
        if not hits or hits[0].id != document.id or unique not in hits[0].text:
            problems.append(f"{document.id} is not found by its own passage {first.titled_text!r}")
        fields = collection.search(unique, 1, where=f"version = {document.fields['version']} and id = '{document.id}'").hits
        if [hit.id for hit in fields] != [document.id]:
            problems.append(f"{document.id} is not found by its fields")
    gone = [document for name, document in before.items() if name not in found]
    for document in chosen.sample(gone, min(2, len(gone))):
        if any(hit.id == document.id for hit in collection.search(document.text, 20).hits):
            problems.append(f"{document.id} was deleted and is found")
    return problems
