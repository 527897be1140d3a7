"""What the examples search: docstrings of Python's standard library, as records, and as a judged collection made of them."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

MODULES = ("collections", "datetime", "functools", "heapq", "itertools", "json", "os.path", "pathlib", "random", "re")
MODULES += ("shutil", "statistics", "string", "subprocess", "tempfile", "textwrap", "threading", "urllib.parse", "zipfile")


def records(modules: Sequence[str] = MODULES) -> list[dict[str, Any]]:
    """One record a public function or class: id, text, and fields to filter by."""
    found: dict[str, dict[str, Any]] = {}
    for name in modules:
        module = import_module(name)
        for public in sorted(getattr(module, "__all__", dir(module))):
            thing = getattr(module, public)
            text = inspect.getdoc(thing)
            if text and callable(thing) and not public.startswith("_"):
                kind = "class" if isinstance(thing, type) else "function"
                one = {"id": f"{name}.{public}", "text": text, "module": name, "kind": kind, "words": len(text.split())}
                found.setdefault(text, one)  # what goes by two names is there once
    return list(found.values())


def write_judged(folder: Path, modules: Sequence[str] = MODULES) -> Path:
    """A judged collection in BEIR's layout: a docstring's first sentence is a query, the rest of it what answers it.

    Every second query is in the split "dev", the others are in "test".
    """
    pairs = [(one["id"], *one["text"].split("\n\n", 1)) for one in records(modules) if "\n\n" in one["text"]]
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    corpus = [json.dumps({"_id": name, "title": "", "text": rest}) for name, _, rest in pairs]
    queries = [json.dumps({"_id": f"q-{name}", "text": " ".join(first.split())}) for name, first, _ in pairs]
    (folder / "corpus.jsonl").write_text("\n".join(corpus), encoding="utf-8")
    (folder / "queries.jsonl").write_text("\n".join(queries), encoding="utf-8")
    for start, split in enumerate(("dev", "test")):
        judgments = [f"q-{name}\t{name}\t1" for name, _, _ in pairs[start::2]]
        lines = ["query-id\tcorpus-id\tscore", *judgments]
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
