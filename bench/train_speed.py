"""How many pairs a second a training looks at, on one thread: sentence-transformers as it is, and ours, in turns.

python bench/train_speed.py DATA [--architecture bi-encoder] [--max-tokens 128] [--rounds 9]

DATA is a folder in BEIR's layout with a train split, or a file of examples. Every way takes the same batches of 32 pairs, one
step each round: forward, backward, clipping, AdamW. Counted are the seconds that the thread computes, so that a busy machine
disturbs little. Needs torch and sentence-transformers: pip install 'twinrank[train]'.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

PAIRS = 32
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "sentence-transformers, fp32": ("fp32", {}),
    "twinrank, fp32": ("fp32", {}),
    "twinrank, bf16": ("bf16", {}),
    "twinrank, bf16, dropout 0": ("bf16", {"dropout": 0.0}),
    "twinrank, bf16, dropout 0, half of the layers frozen": ("bf16", {"dropout": 0.0, "frozen": 3}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--architecture", default="bi-encoder")
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "TWINRANK_THREADS"):
        os.environ[name] = "1"
    import torch

    from twinrank.train.data import read_examples

    torch.set_num_threads(1)
    examples = read_examples(given.data)[:4000]
    runs = {way: prepared(way, given.architecture, given.max_tokens, examples) for way in WAYS}
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(given.rounds + 1):  # the first one warms up
        for way, run in runs.items():
            seconds[way].append(step(run, number))
    first = statistics.median(seconds["sentence-transformers, fp32"][1:])
    print(f"{given.architecture}, pairs of {tokens_a_pair(examples, given.max_tokens):.0f} tokens, {PAIRS} a step, 1 thread")
    for way, taken in seconds.items():
        median = statistics.median(taken[1:])
        print(f"{PAIRS / median:6.1f} pairs/s  {first / median:5.2f}x  {way}")


def prepared(way: str, architecture: str, max_tokens: int, examples: list[Any]) -> Any:
    """A training that has not begun."""
    from twinrank.train import trainer
    from twinrank.train.networks import quiet, transformers
    from twinrank.train.settings import DataSettings, LossSettings, ModelSettings, TrainingSettings, TrainSettings

    precision, model = WAYS[way]
    pairs = architecture == "cross-encoder"
    settings = TrainSettings(
        ModelSettings(architecture, max_tokens=max_tokens, **model),  # type: ignore[arg-type]
        DataSettings(negatives=1 if pairs else 0),
        LossSettings("softmax" if pairs else "infonce"),
        TrainingSettings(steps=1000, batch=PAIRS // 2 if pairs else PAIRS, precision=precision),  # type: ignore[arg-type]
    )
    with quiet():
        run = trainer._Run(settings, Path(tempfile.mkdtemp()), examples, None, None)
        run.trainer.create_optimizer_and_scheduler(1000)
    if way.startswith("sentence-transformers"):
        for transformer in transformers(run.network.model):
            del transformer.model.forward  # the network's own
    return run


def step(run: Any, number: int) -> float:
    """Seconds that one step computes."""
    import torch

    trainer, model = run.trainer, run.network.model.train()
    batch = trainer.train_dataset[number]
    started = time.thread_time()
    trainer.compute_loss(model, trainer._prepare_inputs(batch)).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    trainer.optimizer.step()
    trainer.optimizer.zero_grad()
    return time.thread_time() - started


def tokens_a_pair(examples: list[Any], max_tokens: int) -> float:
    from twinrank import BiEncoder

    encoder = BiEncoder(max_tokens=max_tokens)
    texts = [[one.query for one in examples[:500]], [one.positives[0] for one in examples[:500]]]
    return float(sum(encoder.tokenize(side).lengths.mean() for side in texts))


if __name__ == "__main__":
    main()
