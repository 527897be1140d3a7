"""Trainings from the recipes in bench/train/, one after another: examples mined, models trained, measured on named splits.

python bench/training.py FOLDER [NAME …] [--data DATA] [--threads 1]

Without names, all but the general ones, in their order, in some three hours; a model that is in FOLDER already is not trained
again, a figure that is in FOLDER/results.jsonl is not taken again. `reranker` and `late-interaction-general` learn from all
open training parts, and are trained only when they are named. Needs torch and sentence-transformers: pip install
'twinrank[train]'.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twinrank.recipe import Recipe

HERE = Path(__file__).resolve().parent / "train"
SEED = 7
PARENT = "sentence-transformers/all-MiniLM-L6-v2"
SMALL = 6000
"""Documents of pydoc_small, over which trainings are compared with each other: those that dev and test need, and others."""
TEACHERS, STUDENTS = 8000, 4000
"""Examples of debian_desc that the teacher learns from, and others that it teaches."""


@dataclass(frozen=True)
class Job:
    """A training, and what its model is measured in."""

    name: str
    judged: str
    """vectors, late, mixed, reranked: which pipelines its model is put into."""
    data: tuple[str, ...] = ("pydoc_code",)
    splits: tuple[str, ...] = ("dev",)
    teacher: str = ""
    queries: int = 0
    """So many of a split, drawn by the seed; 0: all."""
    rival: str = ""
    """The training that it is compared with in place of the parent; it comes after that one."""


DEBIAN = ("debian_desc",)
JOBS = (
    Job("bi-encoder", "vectors", ("pydoc_small", "pydoc_code"), ("dev", "test")),
    Job("twin-tower", "vectors", ("pydoc_small", "pydoc_code"), ("dev", "test")),
    Job("late-interaction", "late", ("pydoc_small",), ("dev", "test")),
    Job("cross-encoder", "reranked", ("pydoc_small", "pydoc_code"), ("dev", "test"), queries=500),
    Job("cross-encoder-long", "reranked", ("pydoc_small", "pydoc_code"), ("dev", "test"), queries=500),
    Job("undistilled", "vectors", ("pydoc_small",), ("dev", "test")),
    Job("distilled", "vectors", ("pydoc_small",), ("dev", "test"), teacher="cross-encoder-long/model", rival="undistilled"),
    Job("no-queue", "vectors", ("pydoc_small",)),
    Job("queue", "vectors", ("pydoc_small",), rival="no-queue"),
    Job("mined-once", "vectors", ("pydoc_small",)),
    Job("refreshed", "vectors", ("pydoc_small",), rival="mined-once"),
    Job("all-weights", "vectors", ("pydoc_small",)),
    Job("frozen", "vectors", ("pydoc_small",), rival="all-weights"),
    Job("lora", "vectors", ("pydoc_small",), rival="all-weights"),
    Job("debian-cross-encoder", "reranked", DEBIAN, ("dev", "test"), queries=500),
    Job("debian-undistilled", "vectors", DEBIAN, ("dev", "test")),
    Job(
        "debian-distilled", "vectors", DEBIAN, ("dev", "test"), teacher="debian-cross-encoder/model", rival="debian-undistilled"
    ),
)
UNSEEN = (("scifact", "train"), ("wikiqa", "dev"), ("squad_sent", "dev"))
"""What the general models are judged on; nothing of them is in the examples."""
REPORTED = (("scifact", "test"), ("wikiqa", "test"), ("xquad_en", "test"))
"""What they are reported on, once, with --report."""
GENERAL = (
    Job("reranker", "reranked", tuple(name for name, _ in UNSEEN), queries=400),
    Job("late-interaction-general", "mixed", tuple(name for name, _ in UNSEEN), queries=400),
)


def main() -> None:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "twinrank-data"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--data", type=Path, default=cache)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--on", metavar="SET", help="measure on this set alone")
    parser.add_argument("--report", action="store_true", help="measure the general models on test sets, once")
    parser.add_argument("--only", choices=["data", "train", "measure"], help="one step of each job")
    given = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "TWINRANK_THREADS"):
        os.environ[name] = str(given.threads)  # before torch and numpy are imported
    jobs = {job.name: job for job in (*JOBS, *GENERAL)}
    if unknown := set(given.names) - set(jobs):
        parser.error(f"no such training: {', '.join(sorted(unknown))}; known: {', '.join(jobs)}")
    data = given.data.resolve()
    given.folder.mkdir(parents=True, exist_ok=True)
    os.chdir(given.folder)  # the recipes name examples and parents beneath it
    for job in [jobs[name] for name in given.names] or JOBS:
        if given.only in (None, "data"):
            prepare(job, data)
        if given.only in (None, "train"):
            train(job, data)
        if given.only in (None, "measure"):
            measure(job, data, given.on, report=given.report)
    show()


# -- examples ------------------------------------------------------------------------------------------------------------


def prepare(job: Job, data: Path) -> None:
    """The examples that the job's recipe names, mined where they are not there yet."""
    from twinrank.train.settings import TrainSettings

    wanted = TrainSettings.load(HERE / f"{job.name}.toml").data.train
    makers: dict[str, Callable[[], None]] = {
        "pydoc_code.jsonl": lambda: mine_one(data, "both", wanted),
        "pydoc_code-part.jsonl": lambda: draw_part(data, wanted),
        "pydoc_code-vectors.jsonl": lambda: mine_one(data, "vectors", wanted),
        "debian_desc-teacher.jsonl": lambda: mine_halves(data),
        "debian_desc-student.jsonl": lambda: mine_halves(data),
        "general.jsonl": lambda: mine_general(data, wanted),
    }
    if not Path(wanted).exists():
        makers[wanted]()
    if "pydoc_small" in job.data and not Path("pydoc_small").exists():
        make_small(data)


def mine_one(data: Path, by: str, out: str) -> None:
    """pydoc_code's train part, without what leaks from its test part, and with six negatives each."""
    from twinrank.train.data import write_examples
    from twinrank.train.material import held_out, of_data
    from twinrank.train.negatives import Miner, Mining
    from twinrank.train.splits import find_leaks

    material = of_data(data / "pydoc_code")
    leakage = find_leaks(material.examples, held_out(data / "pydoc_code", "test"))
    print(leakage, flush=True)
    miner = Miner(material.passages, Mining(by, 6, last=60, seed=SEED))  # type: ignore[arg-type]
    write_examples(miner.mine(material.take(leakage.kept).examples, PARENT), out)
    print(miner.tally, flush=True)


def draw_part(data: Path, out: str) -> None:
    """800 of the examples: the same for a model that a teacher taught and for one that learns from the labels alone."""
    from twinrank.train.data import read_examples, write_examples

    whole = "pydoc_code.jsonl"
    if not Path(whole).exists():
        mine_one(data, "both", whole)
    found = [example for example in read_examples(whole) if example.negatives]
    write_examples(random.Random(SEED).sample(found, 800), out)


def mine_halves(data: Path) -> None:
    """Of debian_desc's train part examples for a teacher, and others for its students; four negatives each.

    They are apart, for a teacher that learned from what it scores says of it what the labels say; and apart from dev and test.
    """
    from twinrank.train.data import write_examples
    from twinrank.train.material import held_out, of_data
    from twinrank.train.negatives import Miner, Mining
    from twinrank.train.splits import find_leaks

    whole = data / "debian_desc"
    material = of_data(whole).sample(15 * (TEACHERS + STUDENTS) // 10, SEED)
    leakage = find_leaks(material.examples, [*held_out(whole, "dev"), *held_out(whole, "test")])
    print(leakage, flush=True)
    miner = Miner(material.passages, Mining("both", 4, last=50, seed=SEED))
    material = material.take(leakage.kept).sample(TEACHERS + STUDENTS, SEED)
    found = [example for example in miner.mine(material.examples, PARENT) if example.negatives]
    print(miner.tally, flush=True)
    random.Random(SEED).shuffle(found)
    write_examples(found[STUDENTS:], "debian_desc-teacher.jsonl")
    write_examples(found[:STUDENTS], "debian_desc-student.jsonl")


SOURCES = (
    # (set, split or file, examples at most)
    ("squad_sent", "test", 9_000),
    ("debian_desc", "train", 5_000),
    ("pydoc_code", "train", 3_000),
    ("wordnet_gloss", "train.tsv", 3_000),
    ("nl2bash", "train.tsv", 2_000),
    ("pubmedqa_l", "dev", 500),
)


def mine_general(data: Path, out: str) -> None:
    """All open training parts, without what leaks from any split that is measured on; five negatives each, by both rankings."""
    from twinrank.train.data import write_examples
    from twinrank.train.material import held_out, of_data
    from twinrank.train.negatives import Miner, Mining
    from twinrank.train.splits import find_leaks

    measured = [
        *UNSEEN,
        *((name, "test") for name in ("scifact", "wikiqa", "xquad_en", "debian_desc", "pydoc_code", "pubmedqa_l")),
    ]
    apart = [example for name, split in measured for example in held_out(data / name, split)]
    examples = []
    for name, split, most in SOURCES:
        place = data / name / split if split.endswith(".tsv") else data / name
        material = of_data(place, split=split)
        leakage = find_leaks(material.examples, apart)
        material = material.take(leakage.kept).sample(most, SEED)
        miner = Miner(material.passages, Mining("both", 5, last=50, seed=SEED))
        found = miner.mine(material.examples, PARENT)
        print(f"{name} {split}: {leakage}\n{miner.tally}", flush=True)
        examples += [example for example in found if example.negatives]
    random.Random(SEED).shuffle(examples)
    write_examples(examples, out)


def make_small(data: Path) -> None:
    """pydoc_code with 6,000 documents: those that answer queries of dev and test, and others drawn by the seed."""
    from twinrank.readers import read_qrels

    whole, small = data / "pydoc_code", Path("pydoc_small")
    needed = {
        document
        for split in ("dev", "test")
        for grades in read_qrels(whole / "qrels" / f"{split}.tsv").values()
        for document in grades
    }
    lines = (whole / "corpus.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    ids = [json.loads(line)["_id"] for line in lines]
    others = [name for name in ids if name not in needed]
    kept = needed | set(random.Random(SEED).sample(others, max(0, SMALL - len(needed))))
    (small / "qrels").mkdir(parents=True)
    for split in ("dev", "test"):
        shutil.copy(whole / "qrels" / f"{split}.tsv", small / "qrels")
    shutil.copy(whole / "queries.jsonl", small)
    (small / "corpus.jsonl").write_text(
        "".join(line for line, name in zip(lines, ids, strict=True) if name in kept), encoding="utf-8"
    )


# -- training ------------------------------------------------------------------------------------------------------------


def train(job: Job, data: Path) -> None:
    from twinrank.train.data import read_examples
    from twinrank.train.distill import teach
    from twinrank.train.material import refresher
    from twinrank.train.settings import TrainSettings
    from twinrank.train.trainer import train as run

    if (Path(job.name) / "report.json").exists():
        return
    settings = TrainSettings.load(HERE / f"{job.name}.toml")
    examples = None
    if job.teacher:
        examples = teach(read_examples(settings.data.train), job.teacher, folder=f"{job.name}.scores")
    refresh = None
    if settings.refresh.every:
        refresh = refresher(replace(settings, refresh=replace(settings.refresh, passages=str(data / "pydoc_code"))))
    wall, spent = perf_counter(), process_time()
    report = run(
        settings,
        job.name,
        examples=examples,
        resume=Path(job.name).exists(),
        refresh=refresh,
        progress=lambda now: print(now, flush=True),
    )
    minutes, computing = (perf_counter() - wall) / 60, (process_time() - spent) / 60
    print(f"{job.name}: {report}\n{minutes:.1f} minutes, {computing:.1f} of them computing", flush=True)
    note(
        {
            "training": job.name,
            "wall_s": round(perf_counter() - wall),
            "cpu_s": round(process_time() - spent),
            "steps": report.steps,
        }
    )


# -- measuring -----------------------------------------------------------------------------------------------------------


def measure(job: Job, data: Path, on: str | None, *, report: bool) -> None:
    from twinrank.evaluate.experiment import evaluate, sample
    from twinrank.evaluate.report import differences
    from twinrank.readers import read_dataset

    baseline, recipes = pipelines(job)
    splits = dict(REPORTED if report else UNSEEN)
    names = tuple(splits) if report else job.data
    for name in names if on is None else [on]:
        place = Path(name) if Path(name).exists() else data / name
        for split in (splits[name],) if name in splits else job.splits:
            if any(one.get("model") == job.name and one["data"] == name and one["split"] == split for one in noted()):
                continue
            dataset = read_dataset(place, split)
            if job.queries and not report:
                dataset = sample(dataset, job.queries, SEED)
            experiment = evaluate(dataset, recipes, folder=Path("collections"), measures=["nDCG@10"])
            compared = differences(experiment, baseline)["nDCG@10"]
            for other, outcome in experiment.outcomes.items():
                one = compared.get(other)
                told = {"model": job.name, "data": name, "split": split, "queries": experiment.queries, "pipeline": other}
                told["ndcg10"] = round(outcome.measured.means["nDCG@10"], 4)
                if one is not None:
                    told |= {"difference": round(one.mean, 4), "low": one.low, "high": one.high, "p": one.corrected}
                print(told, flush=True)
                note(told)


def pipelines(job: Job) -> tuple[str, dict[str, Recipe]]:
    """What the others are compared with, by name, and all pipelines.

    vectors: one a document, cut at 256 tokens, alone. late: the parent's first 100, put in order by MaxSim alone over int8
    token vectors, the parent's own and the model's. mixed: the default pipeline, with its first 100 reranked by MaxSim over the
    encoder's own token vectors, and over the model's, as the recipe's defaults have it. reranked: the default pipeline, and the
    same with its first 20 reranked; by the model alone, and by the mean of both scores.
    """
    from twinrank.recipe import Recipe, RerankSettings, RetrieveSettings, TokenSettings
    from twinrank.text import Chunking

    model = str((Path(job.name) / "model").resolve())
    alone = Recipe(passages=Chunking(0, 0), retrieve=RetrieveSettings(vectors=100, words=0))
    if job.judged == "vectors":
        known = {job.name: alone.with_model(model)}
        if job.rival:
            return job.rival, {job.rival: alone.with_model(str((Path(job.rival) / "model").resolve())), **known}
        return "parent", {"parent": alone, **known}
    if job.judged == "mixed":
        mixed = replace(Recipe(), tokens=TokenSettings(), rerank=(RerankSettings(kind="maxsim"),))
        return "default + tokens", {
            "default": Recipe(),
            "default + tokens": mixed,
            f"default + {job.name}": replace(mixed, tokens=TokenSettings(model=model)),
        }
    if job.judged == "late":
        order = (RerankSettings(kind="maxsim", candidates=100, weight=1.0),)
        own = replace(alone, tokens=TokenSettings("int8", 1.0), rerank=order)
        return "parent's tokens", {"parent's tokens": own, job.name: replace(own, tokens=TokenSettings("int8", 1.0, model))}
    default = Recipe()
    known = {"default": default}
    for weight in (1.0, 0.5):
        known[f"{job.name} {weight:g}"] = replace(default, rerank=(RerankSettings(model, candidates=20, weight=weight),))
    return "default", known


def note(told: dict[str, object]) -> None:
    with Path("results.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(told) + "\n")


def noted() -> Iterator[dict[str, object]]:
    if Path("results.jsonl").exists():
        yield from map(json.loads, Path("results.jsonl").read_text(encoding="utf-8").splitlines())


def show() -> None:
    for one in noted():
        print(json.dumps(one))


if __name__ == "__main__":
    main()
