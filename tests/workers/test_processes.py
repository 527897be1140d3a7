"""Documents encoded by processes are those that one process encodes; what dies, fails or is interrupted loses none of them."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from twinrank import Collection, Workers
from twinrank.cli import twinrank
from twinrank.errors import DocumentError, InputError, MissingExtraError, ModelMismatchError, ModelNotFoundError
from twinrank.ingest import AddReport
from twinrank.preparation import Preparation, Task
from twinrank.recipe import Recipe
from twinrank.types import Document
from twinrank.workers.opening import Opening, answer
from twinrank.workers.processes import Processes

Rows = Callable[[Path], dict[str, list[object]]]


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinrank.ingest.BATCH_DOCUMENTS", 20)
    monkeypatch.setenv("TWINRANK_THREADS", "2")


def texts(first: int, last: int) -> Iterator[dict[str, Any]]:
    """Documents of one to several passages."""
    for number in range(first, last):
        yield {"id": f"d{number:04}", "title": f"Zinc {number % 7}", "text": f"a man eats {number} " * (1 + number % 60)}


def added(place: Path, model: Path, *rounds: Any, workers: Workers | int | None = None, **options: Any) -> list[AddReport]:
    with Collection(place, recipe=recipe(model, **options)) as collection:
        reports = [collection.add(one, workers=workers) for one in rounds]
        assert collection.check().ok
    for report in reports:
        report.seconds = 0
    return reports


def recipe(model: Path, tokens: bool = False) -> Recipe:
    table = f"[encoder]\nmodel = {json.dumps(str(model))}\n[passages]\nsize = 64\noverlap = 8\n"
    return Recipe.parse(table + ("[tokens]\n" if tokens else ""))


def worker_pids() -> list[int]:
    found = [one.pid for one in multiprocessing.active_children() if one.name == "twinrank-worker"]
    return [pid for pid in found if pid is not None]


def test_the_collection_is_row_by_row_the_one_that_this_process_makes(tiny_model: Path, tmp_path: Path, rows: Rows) -> None:
    """Vectors of passages and of tokens to the last bit: new documents, changed ones, unchanged ones, ids that come twice."""
    changed = [*texts(50, 60), {"id": "d0004", "text": "another text"}, *texts(130, 170), {"id": "d0004", "text": "a third"}]
    rounds = list(texts(0, 150)), changed
    plain = added(tmp_path / "plain", tiny_model, *map(iter, rounds), tokens=True)
    with Workers(2) as workers:
        assert added(tmp_path / "helped", tiny_model, *map(iter, rounds), workers=workers, tokens=True) == plain
        assert len(worker_pids()) == 2  # the same for both calls
    assert worker_pids() == []
    found = rows(tmp_path / "helped" / "store.db")
    assert found == rows(tmp_path / "plain" / "store.db")
    assert found["vectors"]
    assert found["tokens"]


def test_a_collection_in_an_engine_takes_what_workers_prepare(tiny_model: Path) -> None:
    with Collection("memory:///workers", recipe=recipe(tiny_model)) as collection:
        report = collection.add(texts(0, 60), workers=2)
        assert (report.added, len(collection)) == (60, 60)
        report = collection.add([*texts(50, 70), {"id": "d0001", "text": "zinc lozenges"}], workers=2)
        assert (report.added, report.updated, report.unchanged) == (10, 1, 10)
        assert collection.search("zinc lozenges", k=1)[0].id == "d0001"
        assert collection.check().ok


def test_a_worker_that_is_killed_is_replaced_and_nothing_is_lost(tiny_model: Path, tmp_path: Path, rows: Rows) -> None:
    killed: list[int] = []

    def kill_once(_: int) -> None:
        if not killed:
            killed.append(worker_pids()[0])
            os.kill(killed[0], signal.SIGKILL)

    with Collection(tmp_path / "helped", recipe=recipe(tiny_model)) as collection:
        report = collection.add(texts(0, 300), progress=kill_once, workers=2)
        assert report.added == len(collection) == 300
    assert killed
    added(tmp_path / "plain", tiny_model, texts(0, 300))
    assert rows(tmp_path / "helped" / "store.db") == rows(tmp_path / "plain" / "store.db")


def test_a_bad_document_on_the_way_leaves_what_came_before_it(tiny_model: Path, tmp_path: Path) -> None:
    def documents() -> Iterator[dict[str, Any]]:
        yield from texts(0, 50)
        yield {"id": "bad", "text": "one", "when": object()}

    with Collection(tmp_path / "c", recipe=recipe(tiny_model)) as collection:
        with pytest.raises(DocumentError, match="'bad'"):
            collection.add(documents(), workers=2)
        assert len(collection) == 40
        assert worker_pids() == []
        report = collection.add(texts(0, 60), workers=2)
        assert (report.added, report.unchanged) == (20, 40)
        assert collection.check().ok


def test_a_collection_that_is_migrated_meanwhile_takes_no_more(
    tiny_model: Path, other_tiny_model: Path, tmp_path: Path
) -> None:
    with Collection(tmp_path / "c", recipe=recipe(tiny_model)) as collection, Collection(tmp_path / "c") as other:

        def documents() -> Iterator[dict[str, Any]]:
            for document in texts(0, 300):
                if document["id"] == "d0200":
                    other.migrate(str(other_tiny_model))
                yield document

        with pytest.raises(ModelMismatchError, match="were made by"):
            collection.add(documents(), workers=1)
        assert other.check().ok


def test_a_model_that_is_gone_when_a_worker_opens_it_is_told(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny.write_bi_encoder(tmp_path / "model")
    with Collection(tmp_path / "c", recipe=recipe(model)) as collection:
        assert collection.encoder is not None
        model.rename(tmp_path / "moved")
        with pytest.raises(ModelNotFoundError, match="model"):
            collection.add(texts(0, 3), workers=1)
        assert len(collection) == 0


def opening_of(model: Path, settings: Recipe | None = None) -> tuple[Opening, Preparation]:
    from twinrank.loaded import Loaded

    asked = settings or recipe(model)
    loaded = Loaded(asked)
    preparation = Preparation(loaded.passages, asked.passages, loaded.translate)
    return Opening.of(asked, preparation), preparation


def test_another_model_under_the_same_name_is_refused(tiny: Any, tmp_path: Path) -> None:
    model = tiny.write_bi_encoder(tmp_path / "model")
    opening, _ = opening_of(model)
    model.rename(tmp_path / "moved")
    tiny.write_bi_encoder(tmp_path / "model", seed=8)
    found = answer(opening, None, [])
    assert isinstance(found, ModelMismatchError)
    assert "finds another model than the one whose vectors the collection holds" in str(found)
    assert opening.models[0][0][2] in str(found)  # the fingerprint


def test_another_version_of_twinrank_is_refused(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opening, _ = opening_of(tiny_model)
    monkeypatch.setattr("twinrank.workers.opening.__version__", "9.9")
    found = answer(opening, None, [])
    assert isinstance(found, ModelMismatchError)
    assert "has twinrank 9.9" in str(found)


def test_a_worker_finds_a_model_that_was_named_from_another_directory(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_model.parent)
    opening, _ = opening_of(Path(tiny_model.name))
    monkeypatch.chdir(tmp_path)
    assert not isinstance(answer(opening, None, []), Exception)


def test_an_error_that_nobody_foresaw_names_the_document(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opening, preparation = opening_of(tiny_model)
    prepare = Preparation.prepare

    def stumble(self: Preparation, task: Task) -> Any:
        if any(document.text == "odd" for document in task.documents):
            raise ZeroDivisionError("by the odd one")
        return prepare(self, task)

    monkeypatch.setattr(Preparation, "prepare", stumble)
    documents = [Document(str(number), "odd" if number == 5 else "text") for number in range(9)]
    found = answer(opening, Task(documents, {one.id: "digest" for one in documents}, {}), [preparation])
    assert isinstance(found, DocumentError)
    assert str(found) == "document '5' could not be encoded: ZeroDivisionError: by the odd one"


def test_the_cores_are_shared_out(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opening, _ = opening_of(tiny_model)
    monkeypatch.setenv("TWINRANK_THREADS", "8")
    assert [Processes(opening, count).threads for count in (1, 3, 8, 20)] == [8, 2, 1, 1]
    assert Processes(opening, 2, threads=3).threads == 3


@pytest.mark.parametrize("given", [lambda: Workers(0), lambda: Workers(2, threads=0), lambda: Workers()])
def test_workers_that_are_none_are_refused(given: Callable[[], Workers]) -> None:
    with pytest.raises(InputError, match=r"workers|threads"):
        given()


def test_a_cluster_without_ray_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinrank.workers.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"twinrank\[ray\]"):
        Workers(ray="auto")
    (tmp_path / "a.txt").write_text("text")
    found = CliRunner().invoke(twinrank, ["index", str(tmp_path / "a.txt"), "-c", str(tmp_path / "c"), "--ray", "auto"])
    assert isinstance(found.exception, MissingExtraError)
    assert not (tmp_path / "c").exists()


def test_the_commands_take_workers(tiny_model: Path, tmp_path: Path) -> None:
    folder, place = tmp_path / "notes", tmp_path / "c"
    folder.mkdir()
    for name in ("one", "two", "three"):
        (folder / f"{name}.txt").write_text(f"{name} man eats bread")
    options = ["-c", str(place), "--workers", "2", "--json"]
    runner = CliRunner()
    first = runner.invoke(twinrank, ["index", str(folder), "--model", str(tiny_model), *options])
    assert json.loads(first.stdout)[0]["added"] == 3
    (folder / "two.txt").unlink()
    (folder / "four.txt").write_text("four")
    second = json.loads(runner.invoke(twinrank, ["index", str(folder), "--prune", *options]).stdout)[0]
    assert (second["added"], second["unchanged"], second["removed"]) == (1, 2, 1)
    third = runner.invoke(twinrank, ["add", "-", *options], input='{"id": "five", "text": "zinc"}\n')
    assert json.loads(third.stdout)[0]["added"] == 1
    refused = runner.invoke(twinrank, ["add", str(folder), "-c", str(place), "--workers", "0"])
    assert refused.exit_code == 2


def heed_ctrl_c() -> None:
    """In a child before it begins: a shell's background jobs ignore Ctrl-C, and so would theirs."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def begin_index(place: Path, corpus: Path, model: Path) -> subprocess.Popen[str]:
    """The command at work, in a session of its own, as soon as it has written something."""
    command = [
        sys.executable,
        "-m",
        "twinrank",
        "index",
        str(corpus),
        "-c",
        str(place),
        "--model",
        str(model),
        "--workers",
        "2",
    ]
    child = subprocess.Popen(
        [*command, "--workers", "2"], stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heed_ctrl_c
    )
    until(lambda: (place / "recipe.toml").exists() and count(place) > 0)
    return child


def count(place: Path) -> int:
    try:
        with Collection(place, create=False) as collection:
            return len(collection)
    except Exception:  # it is being made
        return 0


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def processes_of(session: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=,stat=", "-s", str(session)], capture_output=True, text=True).stdout
    return [int(line.split()[0]) for line in found.splitlines() if not line.split()[1].startswith("Z")]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes as Linux shows them")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
def test_who_is_interrupted_leaves_no_process_behind_and_goes_on_later(
    how: signal.Signals, tiny_model: Path, tmp_path: Path
) -> None:
    corpus, place = tmp_path / "corpus.jsonl", tmp_path / "c"
    with corpus.open("w") as lines:
        for document in texts(0, 3_000):
            lines.write(json.dumps({"_id": document["id"], "title": document["title"], "text": document["text"][:90]}) + "\n")
    child = begin_index(place, corpus, tiny_model)
    os.killpg(child.pid, how) if how == signal.SIGINT else child.kill()
    _, told = child.communicate(timeout=60)
    if how == signal.SIGINT:
        assert child.returncode == 130
        assert told.strip().endswith("the same command goes on from there")
        assert "Traceback" not in told
    until(lambda: processes_of(child.pid) == [])
    with Collection(place) as collection:
        before = len(collection)
        assert 0 < before < 3_000
        assert collection.check().ok
        report = collection.add(corpus)
        assert (report.added, report.unchanged) == (3_000 - before, before)
        assert collection.check().ok
