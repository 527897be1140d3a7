"""Bits flipped in a collection's files, each in turn: no answer may be wrong, and what is damaged has to be told."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from twinrank_torture.pages import live_bytes
from twinrank_torture.processes import ChildDiedError, scratch
from twinrank_torture.processes import ask as ask_child
from twinrank_torture.workload import make_document, open_collection

from twinrank.errors import TwinrankError

SMALL = 6
"""Documents of the small collection, of which every bit is flipped."""
LARGE = 4000
"""Documents of the large one: some tens of MB."""
AT_ONCE = 100
"""Flips that one child tries."""
LEFT_OUT = ("lock", ".creating", ".writing", ".managed.json", "-shm")
"""Files that hold no content: locks, SQLite's shared memory, tantivy's list of files to clean up."""

Answers = list[object]
Damage = tuple[str, int, int]
"""(file, place, how: a bit from 0 to 7, or -1 to cut the file there)"""


def torture(every: int = 1, flips: int = 10_000, seed: int = 3) -> dict[str, Any]:
    """Every `every`-th bit of a small collection, then `flips` random flips and truncations of a large one."""
    place = scratch()
    try:
        found: dict[str, Any] = {}
        problems: list[str] = []
        for name, log in (("small", False), ("small, not closed", True)):
            folder = place / name
            ask_child(_make, folder, SMALL, log)
            damages = _every_bit(folder, every, wal_only=log)
            counts, lines = _try_all(folder, damages)
            found[name], problems = counts, problems + lines
        if flips:
            folder = place / "large"
            ask_child(_make, folder, LARGE, False)
            damages = _random(folder, flips, random.Random(seed))
            counts, lines = _try_all(folder, damages)
            counts["bytes"] = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            found["large"], problems = counts, problems + lines
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return {**found, "problems": problems}


def _make(folder: Path, documents: int, keep_log: bool) -> None:
    collection = open_collection(folder)
    collection.add([make_document(number, 1, 12 if documents < 100 else 400) for number in range(documents)])
    collection.add([make_document(1, 2, 30)])
    collection.delete(["d2"])
    if keep_log:  # as a process leaves it that dies here; what happened before stands in the database
        collection.store.compact()
        collection.add([make_document(3, 2, 12)])
        collection.add([make_document(4, 2, 12)])
    else:
        collection.close()


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(LEFT_OUT))


def _every_bit(folder: Path, every: int, wal_only: bool) -> list[Damage]:
    places: list[Damage] = []
    for path in _files(folder):
        if wal_only and not path.name.endswith("-wal"):
            continue
        live = live_bytes(path) if path.name == "store.db" else np.ones(path.stat().st_size, np.bool_)
        if path.suffix == ".index":  # air up to the next boundary is part of the file's checksums, and of one kind
            live &= np.arange(len(live)) < np.flatnonzero(np.frombuffer(path.read_bytes(), np.uint8)).max(initial=0) + 1
        places += [(str(path.relative_to(folder)), int(at), bit) for at in np.flatnonzero(live) for bit in range(8)]
    return places[::every]


def _random(folder: Path, count: int, chosen: random.Random) -> list[Damage]:
    """By size, so that every byte is as likely; one in ten cuts the file."""
    files = [path for path in _files(folder) if path.stat().st_size]
    sizes = [path.stat().st_size for path in files]
    live = {path: live_bytes(path) for path in files if path.name == "store.db"}
    damages: list[Damage] = []
    while len(damages) < count:
        path = chosen.choices(files, sizes)[0]
        at, how = chosen.randrange(path.stat().st_size), chosen.randint(0, 7) if chosen.random() < 0.9 else -1
        if how >= 0 and path in live and not live[path][at]:
            continue
        damages.append((str(path.relative_to(folder)), at, how))
    return damages


def _try_all(folder: Path, damages: Sequence[Damage]) -> tuple[dict[str, Any], list[str]]:
    copy = folder.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)  # opening and closing would fold the log in
    right = [ask_child(_answers, copy)]
    shutil.rmtree(copy / "index")  # BM25 counts what was deleted until its segments are merged: made anew, it scores otherwise
    right.append(ask_child(_answers, copy))
    shutil.rmtree(copy)
    counts: Counter[str] = Counter()
    problems: list[str] = []
    by_file: Counter[str] = Counter()
    for start in range(0, len(damages), AT_ONCE):
        part = damages[start : start + AT_ONCE]
        try:
            results = ask_child(_try_some, folder, part, right)
        except ChildDiedError as death:
            problems.append(f"a child died ({death}) within {part[0]} to {part[-1]}")
            continue
        for damage, (verdicts, detail) in zip(part, results, strict=True):
            if damage[0] == "recipe.toml" and "undetected" in verdicts:
                verdicts = ["recipe.toml, taken as an edit of its owner's"]
            counts.update(verdicts)
            by_file[Path(damage[0]).name if damage[0].count("/") < 2 else f"words/*{Path(damage[0]).suffix}"] += 1
            if {"undetected", "wrong answer", "raw error", "search raised a raw error"} & set(verdicts):
                problems.append(f"{folder.name}: {damage}: {', '.join(verdicts)}: {detail}")
    return {"damages": len(damages), **counts, "by file": dict(by_file)}, problems


def _try_some(folder: Path, damages: Sequence[Damage], right: list[Answers]) -> list[tuple[list[str], str]]:
    results = []
    copy = folder.with_name("copy")
    for file, at, how in damages:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        with (copy / file).open("r+b") as stream:
            if how < 0:
                stream.truncate(at)
            else:
                stream.seek(at)
                byte = stream.read(1)[0]
                stream.seek(at)
                stream.write(bytes([byte ^ 1 << how]))
        results.append(_try_one(copy, right))
    return results


def _try_one(folder: Path, right: list[Answers]) -> tuple[list[str], str]:
    """What `check` says of the damage, then what searches make of it."""
    verdicts, detail = [], ""
    told = False
    try:
        with open_collection(folder) as collection:
            report = collection.check()
            told = bool(report.problems) or any("edited" in line for line in report.checked)
            verdicts.append("told by check" if told else "check found nothing")
    except TwinrankError as error:
        told = True
        verdicts.append("refused to open")
        return verdicts, str(error)
    except Exception as error:
        return ["raw error"], f"{type(error).__name__}: {error}"
    try:
        with open_collection(folder) as collection:
            found = _ask_everything(collection)
            notices = list(collection.notices)
        if any("made anew" in notice for notice in notices):
            verdicts.append("index made anew, and told")
        told = told or bool(notices)
        if found in right:
            verdicts.append("right answers")
        elif _is_told(found, right):
            verdicts.append("search told the error")
        elif any("lost its latest changes" in notice for notice in notices):
            verdicts.append("right answers of an older state, and told")
        else:
            opened = any("is damaged" in notice for notice in notices)
            verdicts.append(f"wrong answer{', told when opened' if opened else ' until checked' if told else ''}")
            detail = str([one for one, two in zip(found, right[0], strict=True) if one != two][:1])[:300]
    except TwinrankError as error:
        told = True
        verdicts.append("search told the error")
        detail = str(error)
    except Exception as error:
        verdicts.append("search raised a raw error")
        detail = f"{type(error).__name__}: {error}"
    if not told:
        verdicts.append("undetected")
    return verdicts, detail


def _is_told(found: Answers, right: list[Answers]) -> bool:
    """Whether every answer that is not the right one is an error."""
    return all(one in two or isinstance(one, TwinrankError) for one, two in zip(found, zip(*right, strict=True), strict=True))


def _answers(folder: Path) -> Answers:
    with open_collection(folder) as collection:
        return _ask_everything(collection)


def _ask_everything(collection: Any) -> Answers:
    """Searches by words and vectors, a filter, and documents by id; errors stand in the place of answers."""
    answers: Answers = []
    for query in ("river stone", "violin", "copper lantern thunder meadow"):
        answers.append(_or_error(lambda query=query: _hits(collection, query, None)))
    answers.append(_or_error(lambda: _hits(collection, "cloud", "colour = 'red' and version = 1")))
    answers.append(_or_error(lambda: collection.get(["d0", "d1", "d2", "d3", "d5"])))
    answers.append(_or_error(lambda: sorted(list(collection.store.document_ids())[:50])))
    return answers


def _hits(collection: Any, query: str, where: str | None) -> list[object]:
    hits = collection.search(query, 5, where=where).hits
    return [(hit.id, hit.score, hit.text, hit.title, dict(hit.fields), hit.source, hit.start) for hit in hits]


def _or_error(ask: Any) -> object:
    try:
        return ask()
    except TwinrankError as error:
        return error
