"""Adding documents by threads, processes and Ray, in turns: python bench/workers.py DATA [DOCUMENTS [ROUNDS [ADDRESS]]].

Each figure is the median over the rounds: documents a second by the clock, and processor seconds of this process and of the
workers that it had (those of a cluster are not among them). How busy the machine was besides is printed with each round.
"""

from __future__ import annotations

import os
import resource
import statistics
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

from twinrank import Collection, Workers
from twinrank.engine import default_threads
from twinrank.readers import documents


def spent() -> float:
    """Processor seconds of this process and of its children that ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def main() -> None:
    data = Path(sys.argv[1])
    most, rounds = (int(given) for given in (*sys.argv[2:4], *("2000", "5")[len(sys.argv[2:4]) :]))
    texts = list(islice(documents(data), most))
    cores = default_threads()
    ways: dict[str, Workers | None] = {
        f"{cores} threads": None,
        f"{cores} processes of 1 thread": Workers(cores),
        f"1 process of {cores} threads": Workers(1),
    }
    if len(sys.argv) > 4:
        ways["Ray, an actor a core"] = Workers(ray=sys.argv[4])
    rates: dict[str, list[float]] = {name: [] for name in ways}
    costs: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name, workers in ways.items():
            with tempfile.TemporaryDirectory() as folder, Collection(Path(folder) / "c") as collection:
                assert collection.encoder is not None  # opened
                began, before = time.perf_counter(), spent()
                collection.add(iter(texts), workers=workers)
                if workers is not None:
                    workers.close()
                rates[name].append(len(texts) / (time.perf_counter() - began))
                costs[name].append(spent() - before)
            load = os.getloadavg()[0]
            print(f"round {number + 1}, {name}: {rates[name][-1]:.1f}/s, {costs[name][-1]:.1f} s, load {load:.1f}", flush=True)
    print(f"\n{len(texts):,} documents of {data.name}, {cores} cores, medians of {rounds}")
    for name in ways:
        print(f"{name:<28} {statistics.median(rates[name]):7.1f} documents/s {statistics.median(costs[name]):7.1f} processor s")


if __name__ == "__main__":
    main()
