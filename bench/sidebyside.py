"""What the speed benches share: texts, rounds in which every rival takes its turn, the machine's own roof, the table.

Ratios are medians over rounds, each round's ratio taken within that round, so that a machine that is busy now and idle then
changes both sides alike. With one thread the clock is the process's CPU time, else the wall's.
"""

from __future__ import annotations

import importlib.util
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[1] / "shared" / "data"


def read_texts(file: Path, limit: int | None = None) -> list[str]:
    """Title and text of a BEIR file's lines."""
    with file.open(encoding="utf-8") as stream:
        records = [json.loads(line) for line in stream][:limit]
    return [f"{record.get('title') or ''} {record['text']}".strip() for record in records]


def limit_threads(threads: int) -> None:
    """For every rival alike; to be called before one of them is imported."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TWINRANK_THREADS"):
        os.environ[name] = str(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false" if threads == 1 else "true"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


@dataclass(frozen=True)
class Timing:
    seconds: float  # median
    ratio: float  # the first rival's time over this one's, median over rounds


def interleave(rivals: Mapping[str, Callable[[], object]], *, rounds: int, threads: int, repeat: int = 1) -> dict[str, Timing]:
    """Every round runs every rival once (`repeat` times, for what is very short); the first named is the yardstick."""
    clock = time.process_time if threads == 1 else time.perf_counter
    spans: dict[str, list[float]] = {name: [] for name in rivals}
    for run in rivals.values():
        run()  # warm
    for _ in range(rounds):
        for name, run in rivals.items():
            begin = clock()
            for _ in range(repeat):
                run()
            spans[name].append((clock() - begin) / repeat)
    yardstick = next(iter(spans.values()))
    return {
        name: Timing(median(own), median(base / mine for base, mine in zip(yardstick, own, strict=True)))
        for name, own in spans.items()
    }


def ideal_seconds(
    shape: Any, lengths: Sequence[int], roof: float, attention_roof: float, last_row_alone: bool = False
) -> float:
    """What one thread would need if every multiplication ran at the roof: products in int8, attention at its own rate.

    With `last_row_alone` only the first token goes through the last layer, beyond its keys and values.
    """
    tokens = np.asarray(lengths, np.float64)
    width, inner = shape.width, shape.intermediate
    layers = shape.layers - 1 if last_row_alone else shape.layers
    products = layers * 2 * (4 * width * width + 2 * width * inner) * tokens.sum()
    attention = layers * 4 * width * (tokens**2).sum()
    if last_row_alone:
        products += 2 * 2 * width * width * tokens.sum() + 2 * (2 * width * width + 2 * width * inner) * len(tokens)
        attention += 4 * width * tokens.sum()
    return float(products / roof + attention / attention_roof)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print(f"\n{title}\n")
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)


class Batched:
    """Sorts texts by length, tokenizes and pads them in batches as sentence-transformers does, and calls a runner on each."""

    def __init__(self, folder: Path, run: Callable[[dict[str, np.ndarray]], np.ndarray], batch: int = 32) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(256)
        self._run = run
        self._batch = batch

    def feeds(self, texts: Sequence[str]) -> list[tuple[list[int], dict[str, np.ndarray]]]:
        encodings = self._tokenizer.encode_batch_fast(list(texts))
        order = sorted(range(len(texts)), key=lambda i: -len(encodings[i].ids))
        batches = []
        for first in range(0, len(order), self._batch):
            places = order[first : first + self._batch]
            longest = len(encodings[places[0]].ids)
            ids = np.zeros((len(places), longest), np.int64)
            mask = np.zeros_like(ids)
            for row, place in enumerate(places):
                own = encodings[place].ids
                ids[row, : len(own)] = own
                mask[row, : len(own)] = 1
            batches.append((places, {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}))
        return batches

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Mean pooled and normalised: (texts, width)."""
        vectors: np.ndarray | None = None
        for places, feed in self.feeds(texts):
            states = self._run(feed)  # (batch, tokens, width)
            mask = feed["attention_mask"][:, :, None].astype(np.float32)
            pooled = (states * mask).sum(1) / mask.sum(1)
            if vectors is None:
                vectors = np.empty((len(texts), pooled.shape[1]), np.float32)
            vectors[places] = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        assert vectors is not None
        return vectors


def torch_model(folder: Path) -> Any:
    """The network alone: (input_ids, attention_mask, token_type_ids) → hidden states."""
    import torch
    from transformers import AutoModel

    class States(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
            return self.model(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)[0]

    return States().eval()


def openvino_int8(folder: Path, calibration: Sequence[str], threads: int) -> Batched:
    """OpenVINO with NNCF's static quantisation, calibrated on texts of the collection."""
    import nncf
    import openvino
    import torch

    model = torch_model(folder)
    example = {name: torch.ones((2, 8), dtype=torch.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}
    converted = openvino.convert_model(model, example_input=example)
    feeds = [feed for _, feed in Batched(folder, lambda feed: feed["input_ids"], batch=1).feeds(calibration)]
    quantised = nncf.quantize(
        converted, nncf.Dataset(feeds), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(feeds), fast_bias_correction=True
    )
    compiled = openvino.Core().compile_model(
        quantised, "CPU", {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    )
    return Batched(folder, lambda feed: compiled(feed)[0])


def onnxruntime_int8(folder: Path, work: Path, threads: int) -> Batched:
    """ONNX Runtime with dynamic quantisation, per channel."""
    import onnxruntime
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = torch_model(folder)
    names = ["input_ids", "attention_mask", "token_type_ids"]
    axes = {name: {0: "batch", 1: "tokens"} for name in [*names, "last_hidden_state"]}
    plain, small = work / "model.onnx", work / "model-int8.onnx"
    torch.onnx.export(
        model,
        tuple(torch.ones((2, 8), dtype=torch.int64) for _ in names),
        str(plain),
        input_names=names,
        output_names=["last_hidden_state"],
        dynamic_axes=axes,
        dynamo=False,
    )
    quantize_dynamic(str(plain), str(small), weight_type=QuantType.QInt8, per_channel=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(small), options, providers=["CPUExecutionProvider"])
    return Batched(folder, lambda feed: session.run(["last_hidden_state"], feed)[0])
