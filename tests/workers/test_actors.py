"""Documents encoded on a Ray cluster of three nodes are those that one process encodes, though a node goes on the way."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from twinrank import Collection, Workers
from twinrank.cli import twinrank
from twinrank.errors import CollectionError, ModelMismatchError, ModelNotFoundError, WorkersError
from twinrank.loaded import Loaded
from twinrank.preparation import Preparation, Prepared, Task
from twinrank.recipe import Recipe
from twinrank.types import Document
from twinrank.workers.opening import Opening
from twinrank.workers.pool import Pool, WorkerDied

ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'twinrank[ray]'")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # Ray's own warnings are not ours

NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Three nodes of one core on this machine: a scheduler, an object store and workers each."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        found = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
        for _ in range(2):
            found.add_node(**NODE)
        yield found
        ray.shutdown()
        found.shutdown()


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinrank.ingest.BATCH_DOCUMENTS", 20)
    monkeypatch.setenv("TWINRANK_THREADS", "1")


def document(number: int) -> dict[str, Any]:
    return {"id": f"d{number:05}", "title": f"Zinc {number % 7}", "text": f"a man eats {number} " * (1 + number % 60)}


def opening_of(model: Path) -> Opening:
    recipe = Recipe().with_model(str(model))
    return Opening.of(recipe, Preparation(Loaded(recipe).passages, recipe.passages))


class Noted:
    """Which actors answered, and how many were found gone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from twinrank.workers.actors import Actor

        self.answered: set[Any] = set()
        self.gone = 0
        prepare = Actor.prepare

        def noted(actor: Any, task: Task) -> Prepared:
            try:
                found = prepare(actor, task)
            except WorkerDied:
                self.gone += 1
                raise
            self.answered.add(actor.handle)
            return found

        monkeypatch.setattr(Actor, "prepare", noted)


def test_a_cluster_takes_over_and_prints_nothing_between_results(
    cluster: Any, tiny_model: Path, tmp_path: Path, rows: Callable[[Path], object]
) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"_id": f"{n}", "text": document(n)["text"]}) + "\n" for n in range(150)))
    told: dict[str, Any] = {}
    for name, options in {"plain": [], "cluster": ["--ray", cluster.address]}.items():
        place = ["-c", str(tmp_path / name), "--model", str(tiny_model), "--json"]
        found = CliRunner().invoke(twinrank, ["index", str(corpus), *place, *options], catch_exceptions=False)
        told[name] = json.loads(found.stdout)[0] | {"seconds": 0}
    assert told["cluster"] == told["plain"]
    assert told["cluster"]["added"] == 150
    assert rows(tmp_path / "cluster" / "store.db") == rows(tmp_path / "plain" / "store.db")
    assert not ray.is_initialized()  # it was begun for this


def test_another_model_or_none_on_a_node_is_refused(cluster: Any, tiny_model: Path, tmp_path: Path) -> None:
    from twinrank.workers.actors import Actors

    opening = opening_of(tiny_model)
    another = replace(opening, models=([["vectors", "vector", "0000:int8", 16, []]], None))
    gone = replace(opening, recipe=opening.recipe.replace(str(tiny_model), str(tmp_path / "nowhere")))
    for given, said in ((another, "a worker on .* finds another model.*0000:int8"), (gone, "nowhere")):
        pool = Pool(Actors(given, cluster.address))
        task = Task([Document("a", "text")], {"a": "digest"}, {})
        with pytest.raises(ModelMismatchError if given is another else ModelNotFoundError, match=said):
            pool.hand_over(task).result(timeout=120)
        pool.close()


def test_ctrl_c_ends_it_and_gives_the_cores_back(cluster: Any, tiny_model: Path, tmp_path: Path) -> None:
    corpus, place = tmp_path / "corpus.jsonl", tmp_path / "c"
    corpus.write_text("".join(json.dumps({"_id": f"{n}", "text": document(n)["text"]}) + "\n" for n in range(20_000)))
    command = [sys.executable, "-m", "twinrank", "index", str(corpus), "-c", str(place), "--model", str(tiny_model)]
    child = subprocess.Popen(
        [*command, "--ray", cluster.address],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a shell's background jobs ignore
    )

    def written() -> int:
        try:
            with Collection(place, create=False) as collection:
                return len(collection)
        except CollectionError:  # it is being made
            return 0

    until(lambda: written() > 0)
    child.send_signal(signal.SIGINT)
    _, told = child.communicate(timeout=60)
    assert child.returncode == 130
    assert told.strip().endswith("the same command goes on from there")
    assert "Traceback" not in told
    assert 0 < written() < 20_000
    ray.init(cluster.address, log_to_driver=False)
    until(lambda: ray.available_resources().get("CPU", 0) == 3)
    ray.shutdown()


def until(true: Callable[[], bool], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_node_that_is_killed_on_the_way_loses_and_doubles_nothing(
    cluster: Any, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: Callable[[Path], object]
) -> None:
    noted, given = Noted(monkeypatch), 0
    node = next(iter(cluster.worker_nodes))

    def documents() -> Iterator[dict[str, Any]]:
        nonlocal given
        while len(noted.answered) < 3:  # each node has an actor, and it has its models
            yield document(given := given + 1)
            assert given < 50_000
        cluster.remove_node(node, allow_graceful=False)
        while not noted.gone:
            yield document(given := given + 1)
            assert given < 100_000
        for _ in range(400):
            yield document(given := given + 1)

    with Collection(tmp_path / "cluster", model=str(tiny_model)) as collection, Workers(ray=cluster.address) as workers:
        done: list[int] = []
        report = collection.add(documents(), progress=done.append, workers=workers)
        assert noted.gone > 0
        assert report.added == sum(done) == len(collection) == given
        assert collection.check().ok
    with Collection(tmp_path / "plain", model=str(tiny_model)) as collection:
        collection.add(document(number) for number in range(1, given + 1))
    assert rows(tmp_path / "cluster" / "store.db") == rows(tmp_path / "plain" / "store.db")


def test_a_cluster_that_is_not_there_is_told(tiny_model: Path, tmp_path: Path) -> None:
    with Collection(tmp_path / "c", model=str(tiny_model)) as collection:
        with pytest.raises(WorkersError, match=r"the Ray cluster at '127\.0\.0\.1:1' cannot be reached"):
            collection.add([{"id": "a", "text": "text"}], workers=Workers(ray="127.0.0.1:1"))
        assert len(collection) == 0
