"""A small judged data set, written as BEIR has it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from twinrank.readers import Dataset, read_dataset

HELPS = ("zinc", "honey", "rest", "tea", "ginger", "lemon", "broth", "steam", "salt", "sun", "milk", "mint")
AILS = ("cold", "cough", "fever", "headache", "burn", "cramp", "rash", "flu", "ache", "chill", "sprain", "hiccup")
TEXTS = {f"d{n:02}": f"{what} helps against a {ail}" for n, (what, ail) in enumerate(zip(HELPS, AILS, strict=True))}
QUERIES = {f"q{n:02}": f"what helps against a {ail}" for n, ail in enumerate(AILS)}
QRELS = {f"q{n:02}": {f"d{n:02}": 1, f"d{(n + 1) % 12:02}": 0} for n in range(12)}

MakeDataset = Callable[..., Dataset]


def write_dataset(
    folder: Path,
    texts: Mapping[str, str] = TEXTS,
    queries: Mapping[str, str] = QUERIES,
    qrels: Mapping[str, Mapping[str, int]] = QRELS,
) -> Path:
    (folder / "qrels").mkdir(parents=True)
    documents = [json.dumps({"_id": key, "title": "", "text": text}) for key, text in texts.items()]
    (folder / "corpus.jsonl").write_text("\n".join(documents) + "\n", encoding="utf-8")
    asked = [json.dumps({"_id": key, "text": text}) for key, text in queries.items()]
    (folder / "queries.jsonl").write_text("\n".join(asked) + "\n", encoding="utf-8")
    lines = [f"{query}\t{document}\t{grade}" for query, grades in qrels.items() for document, grade in grades.items()]
    (folder / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *lines]) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def make_dataset(tmp_path: Path) -> MakeDataset:
    def make(**given: Mapping[str, object]) -> Dataset:
        return read_dataset(write_dataset(tmp_path / "remedies", **given))  # type: ignore[arg-type]

    return make


@pytest.fixture
def remedies(make_dataset: MakeDataset) -> Dataset:
    """Twelve remedies; each query has one relevant document, found by its one rare word."""
    return make_dataset()
