"""A small judged collection for tuning: documents of a few sentences, queries made of their words, small random models."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from twinrank.readers import Dataset, read_dataset
from twinrank.recipe import EncoderSettings, Recipe, TokenSettings
from twinrank.text import Chunking
from twinrank.tune.judge import Judge
from twinrank.tune.outputs import Outputs

WORDS = (  # noqa: SIM905
    "zinc honey water rest cold cough night day lozenges running runs shortened shorten the and of calms eases "
    "against most things common syrup tea sleep sleeping doctors doctor weeks week heals healing"
).split()


def write_dataset(folder: Path, *, documents: int = 60, queries: int = 30, split: str = "train") -> Path:
    """Documents of several passages; a query is some words of its document, which is judged 2, and another one judged 1."""
    rng = random.Random(3)
    texts = {f"d{i:03}": " ".join(f"{' '.join(rng.choices(WORDS, k=9))}." for _ in range(6)) for i in range(documents)}
    asked, judged = [], []
    for i in range(queries):
        relevant, other = rng.sample(sorted(texts), 2)
        asked.append({"_id": f"q{i}", "text": " ".join(rng.sample(texts[relevant].replace(".", "").split(), 5))})
        judged += [f"q{i}\t{relevant}\t2", f"q{i}\t{other}\t1"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "qrels").mkdir(exist_ok=True)
    rows = [{"_id": name, "title": "", "text": text} for name, text in texts.items()]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "\n".join(judged) + "\n")
    return folder


@pytest.fixture(scope="session")
def judged_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("judged") / "notes")


@pytest.fixture(scope="session")
def dataset(judged_folder: Path) -> Dataset:
    return read_dataset(judged_folder, split="train")


@pytest.fixture(scope="session")
def base(tiny_model: Path) -> Recipe:
    return Recipe(encoder=EncoderSettings(str(tiny_model)), passages=Chunking(size=24, overlap=4))


@pytest.fixture(scope="session")
def judge(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judge]:
    """Over one set of stage outputs for all tests, which is what it is for."""
    outputs = Outputs(dataset, folder=tmp_path_factory.mktemp("outputs"), tokens=TokenSettings())
    yield Judge(outputs, dataset.queries, dataset.qrels)
    outputs.close()
