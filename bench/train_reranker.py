"""A small cross-encoder for measuring with: the default encoder's layers trained to tell an answer from BM25's near misses.

python bench/train_reranker.py [--data FOLDER] [--out FOLDER] [--start FOLDER] [--threads 1]

Needs torch and sentence-transformers; about ten minutes on one core of its own with bf16. Pairs are squad_sent's test part,
debian_desc's train part and pubmedqa_l's dev part, so that scifact, wikiqa, the xquad sets and the classic collections stay
unseen. A query stands with one relevant passage and three others out of BM25's best 50; the loss is a softmax over the four
(ListNet's top-one, Cao et al. 2007). Everything is drawn with one seed.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

SOURCES = (("squad_sent", "test", 4500), ("debian_desc", "train", 700), ("pubmedqa_l", "dev", 300))
NEGATIVES = 3
MINED = 50
MAX_TOKENS = 160
BATCH = 12  # queries, of four pairs each
PEAK = 8e-5
WARM = 0.1  # the share of all steps in which the learning rate rises
SEED = 7


@dataclass(frozen=True)
class Example:
    query: str
    passages: tuple[str, ...]
    """The relevant one first."""


def main() -> None:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "twinrank-data"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=cache)
    parser.add_argument("--out", type=Path, default=cache / "reranker")
    parser.add_argument("--start", type=Path, default=None, help="the layers to begin with; default: the installed encoder")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    draw = random.Random(SEED)
    examples = [example for source in SOURCES for example in mine(given.data, *source, draw)]
    train(list(batches(examples, draw)), given.out, given.start, given.threads)


def mine(data: Path, name: str, split: str, count: int, draw: random.Random) -> list[Example]:
    """Queries of one set with a relevant passage and near misses: what BM25 ranks among its best and nobody judged relevant."""
    from twinrank.index.words import WordIndex
    from twinrank.readers import read_dataset
    from twinrank.text import Analyzer

    dataset, analyze = read_dataset(data / name, split=split), Analyzer()
    documents = [(document.id, f"{document.title} {document.text}".strip()) for document in dataset.documents()]
    places = {identifier: place for place, (identifier, _) in enumerate(documents)}
    examples = []
    with tempfile.TemporaryDirectory() as folder:
        index = WordIndex.create(folder)
        for start in range(0, len(documents), 4096):
            part = documents[start : start + 4096]
            index.add(range(start, start + len(part)), [analyze(text) for _, text in part])
        index.commit(1)
        for query in draw.sample(sorted(dataset.queries), min(count, len(dataset.queries))):
            judged = dataset.qrels[query].items()
            relevant = [places[document] for document, grade in judged if grade > 0 and document in places]
            found = index.search(analyze(dataset.queries[query]), MINED).keys.tolist()
            misses = [place for place in found if place not in relevant]
            if relevant and len(misses) >= NEGATIVES:
                # Half from the very best, where the reranker will have to decide, half from all.
                hard = draw.sample(misses[:12], min(2, len(misses[:12])))
                rest = draw.sample([place for place in misses if place not in hard], NEGATIVES - len(hard))
                chosen = [draw.choice(relevant), *hard, *rest]
                examples.append(Example(dataset.queries[query], tuple(documents[place][1] for place in chosen)))
        index.close()
    print(f"{name} {split}: {len(examples):,} queries", flush=True)
    return examples


def batches(examples: list[Example], draw: random.Random) -> Iterator[list[Example]]:
    """Examples of like length together, so that little is padded; the batches in random order."""
    ordered = sorted(examples, key=lambda example: (max(map(len, example.passages)), draw.random()))
    made = [ordered[start : start + BATCH] for start in range(0, len(ordered), BATCH)]
    draw.shuffle(made)
    yield from made


def train(steps: list[list[Example]], out: Path, start: Path | None, threads: int) -> None:
    import torch
    from sentence_transformers import CrossEncoder

    from twinrank.models.checkpoint import Checkpoint

    torch.manual_seed(SEED)
    torch.set_num_threads(threads)
    identity = torch.nn.Identity()
    source = str(start or Checkpoint.find().folder)
    model = CrossEncoder(source, num_labels=1, max_length=MAX_TOKENS, device="cpu", activation_fn=identity)
    tokenizer, network = model.tokenizer, model.model
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=PEAK, weight_decay=0.01)
    warm = WARM * len(steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, (len(steps) - step) / (len(steps) - warm))
    )
    started, running = perf_counter(), 0.0
    for number, batch in enumerate(steps, start=1):
        queries = [example.query for example in batch for _ in example.passages]
        passages = [passage for example in batch for passage in example.passages]
        tokens = tokenizer(queries, passages, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = network(**tokens).logits
        logits = logits.float().view(len(batch), -1)  # (queries, passages)
        loss = torch.nn.functional.cross_entropy(logits, torch.zeros(len(batch), dtype=torch.long))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        running = loss.item() if number == 1 else 0.98 * running + 0.02 * loss.item()
        if number % 20 == 0 or number == len(steps):
            print(f"step {number} of {len(steps)}: loss {running:.3f}, {perf_counter() - started:.0f} s", flush=True)
        if number % 100 == 0 or number == len(steps):
            network.eval()
            model.save_pretrained(str(out))
            network.train()


if __name__ == "__main__":
    main()
