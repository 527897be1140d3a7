"""The whole system over one directory: what is added is found, what is deleted is not, what is wrong leaves all as it was."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from filelock import FileLock
from twinrank_notes import NOTES, Making, state

from twinrank import BiEncoder, Collection, Document, Recipe, TwinTower
from twinrank.errors import (
    CollectionBusyError,
    CollectionError,
    DataError,
    DocumentError,
    ModelMismatchError,
    ModelNotFoundError,
    RecipeError,
)
from twinrank.recipe import RerankSettings, RetrieveSettings

# -- adding ------------------------------------------------------------------------------------------------------------------


def test_what_was_added_is_found_with_its_passage_fields_and_place(notes: Collection) -> None:
    found = notes.search("does zinc shorten a cold?", k=2)
    assert [hit.id for hit in found] == ["zinc", "rest"]
    assert found[0].text == "Zinc lozenges may shorten a common cold by a day."
    assert (found[0].title, found[0].rank, found[0].fields["year"]) == ("Zinc", 1, 2021)
    document = notes.get(["zinc"])[0]
    assert document is not None
    assert document.text[found[0].start : found[0].end] == found[0].text


def test_adding_the_same_again_changes_nothing(notes: Collection) -> None:
    before = state(notes)
    report = notes.add(NOTES)
    assert (report.added, report.updated, report.unchanged) == (0, 0, 4)
    assert state(notes) == before


def test_adding_an_id_again_replaces_the_document(notes: Collection) -> None:
    report = notes.add({"id": "honey", "text": "Honey is sweet."})
    assert (report.added, report.updated) == (0, 1)
    assert len(notes) == 4
    assert not notes.search("cough", where="id = 'honey'").hits
    assert notes.search("sweet")[0].id == "honey"
    assert notes.search("sweet")[0].fields == {}


def test_of_an_id_that_comes_twice_in_one_call_the_last_one_is_kept_and_counted(make: Making) -> None:
    collection = make()
    report = collection.add([{"id": "a", "text": "first"}, {"id": "b", "text": "other"}, {"id": "a", "text": "last"}])
    assert (report.added, report.repeated) == (2, 1)
    assert collection.get(["a"])[0] == Document("a", "last")


def test_an_id_that_comes_again_in_a_later_batch_is_counted_too(make: Making) -> None:
    collection = make()
    report = collection.add({"id": str(number % 300), "text": f"text {number}"} for number in range(600))
    assert (len(collection), report.repeated) == (300, 300)
    assert collection.get(["299"])[0] == Document("299", "text 599")


def test_documents_dataclasses_and_generators_are_taken(make: Making) -> None:
    @dataclasses.dataclass
    class Note:
        id: str
        text: str
        year: int

    collection = make()
    collection.add(Document("a", "alpha"))
    collection.add(Note(f"n{number}", "beta", number) for number in range(3))
    assert len(collection) == 4
    assert len(collection.search("beta", where="year >= 1")) == 2


def test_a_folder_is_read_and_what_cannot_be_read_is_named_and_skipped(make: Making, tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.txt").write_text("alpha beta")
    (folder / "b.md").write_text("# Gamma\n\ndelta")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7 cut off")
    report = make().add(folder)
    assert report.added == 2
    assert [Path(problem.path).name for problem in report.skipped] == ["broken.pdf"]
    assert "1 skipped" in str(report)


def test_a_path_that_is_not_there_is_no_text(make: Making) -> None:
    with pytest.raises(DataError, match="nowhere"):
        make().add("nowhere/at-all.txt")


@pytest.mark.parametrize(
    "wrong",
    [
        {"text": "no id"},
        {"id": "", "text": "empty id"},
        {"id": "x"},
        {"id": "x", "text": " \n\t "},
        {"id": "x", "text": 17},
        {"id": "line\nbreak", "text": "id of two lines"},
        {"id": "x", "text": "nested", "field": [{"a": 1}, 2]},
        {"id": "x", "text": "not a number", "field": float("nan")},
        {"id": "x", "text": "too large", "field": 2**70},
    ],
)
def test_a_list_with_one_wrong_document_leaves_the_collection_as_it_was(notes: Collection, wrong: dict[str, object]) -> None:
    before = state(notes)
    with pytest.raises(DocumentError):
        notes.add([{"id": "good", "text": "a good one"}, wrong])
    assert state(notes) == before


def test_ids_with_emoji_and_spaces_and_texts_with_nul_and_surrogates_are_kept(make: Making) -> None:
    collection = make()
    collection.add([{"id": "🦊 fox/1", "text": "quick\x00brown \ud800 fox"}])
    found = collection.search("brown fox")
    assert found[0].id == "🦊 fox/1"
    assert "quick" in found[0].text
    assert collection.delete("🦊 fox/1") == ["🦊 fox/1"]


def test_a_document_of_ten_megabytes_becomes_passages_that_are_found(make: Making) -> None:
    collection = make()
    text = "The quick brown fox jumps over the lazy dog. " * 230_000 + "A needle lies here."
    assert len(text) > 10_000_000
    collection.add([{"id": "long", "text": text}, {"id": "other", "text": "Nothing."}])
    found = collection.search("needle")
    assert found[0].id == "long"
    assert "needle" in found[0].text
    assert len(found[0].text) < 3000


def test_a_stream_that_fails_keeps_the_batches_before_and_can_be_given_again(make: Making) -> None:
    collection = make()

    def stream(broken: bool) -> Iterator[dict[str, object]]:
        for number in range(600):
            yield {"id": str(number), "text": f"text {number}"} if number != 550 or not broken else {"text": "no id"}

    with pytest.raises(DocumentError):
        collection.add(stream(broken=True))
    kept = len(collection)
    assert 0 < kept < 600
    report = collection.add(stream(broken=False))
    assert (report.unchanged, report.added) == (kept, 600 - kept)


# -- several openers -----------------------------------------------------------------------------------------------------------


def test_a_search_sees_what_another_opener_wrote(make: Making) -> None:
    first, second = make(), make()
    first.add({"id": "a", "text": "alpha"})
    assert second.search("alpha")[0].id == "a"
    second.delete(["a"])
    assert len(first.search("alpha")) == 0


WRITING_ON = """
import sys, time
from twinrank import Collection
from twinrank.preparation import Preparation
def write(*_):
    print("writing", flush=True)
    time.sleep(60)
Preparation.prepare = write
with Collection(sys.argv[1], model="none") as collection:
    collection.add({"id": "first", "text": "one"})
"""


def test_a_second_writer_is_told_and_the_lock_of_a_dead_one_does_not_block(
    notes: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = subprocess.Popen([sys.executable, "-c", WRITING_ON, notes.path], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    with other:
        assert other.stdout.readline() == "writing\n"
        monkeypatch.setattr("twinrank.collection.WRITER_PATIENCE", 0.2)
        with pytest.raises(CollectionBusyError, match="another process has been writing"):
            notes.add({"id": "second", "text": "two"})
        assert notes.search("zinc")[0].id == "zinc"  # reading goes on
        other.kill()
    assert notes.add({"id": "second", "text": "two"}).added == 1
    assert "first" not in notes


def test_others_write_while_a_stream_is_waited_for(notes: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinrank.collection.WRITER_PATIENCE", 0.2)
    with Collection(notes.path) as other:

        def stream() -> Iterator[dict[str, str]]:
            for number in range(300):  # more than a batch
                if number % 100 == 50:
                    assert other.add({"id": f"other{number}", "text": "from elsewhere"}).added == 1
                yield {"id": f"mine{number}", "text": f"number {number}"}

        assert notes.add(stream()).added == 300
        assert len(notes) == len(other) == 4 + 303
        assert len(notes.search("elsewhere").hits) == 3
    assert notes.check().ok


def test_a_writer_comes_between_the_batches_of_a_stream_that_never_waits(
    notes: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twinrank.derived.FileLock", partial(FileLock, poll_interval=1))  # it looks seldom, and is lucky never
    done = threading.Event()

    def write() -> None:
        with Collection(notes.path) as other:
            other.add({"id": "other", "text": "from elsewhere"})
        done.set()

    def stream() -> Iterator[dict[str, str]]:
        for number in count():
            if number == 256:
                writer.start()
                until[0] = time.monotonic() + 60
            if done.is_set() or time.monotonic() > until[0]:
                return
            yield {"id": f"mine{number}", "text": f"number {number % 1000}"}

    writer, until = threading.Thread(target=write), [float("inf")]
    notes.add(stream())
    came_between = time.monotonic() < until[0]
    writer.join()
    assert came_between
    assert notes.search("elsewhere")[0].id == "other"


def test_a_collection_migrated_under_a_stream_takes_no_more_of_it(tiny_model: Path, notes: Collection) -> None:
    def stream() -> Iterator[dict[str, str]]:
        for number in range(300):
            if number == 280:
                with Collection(notes.path, model=str(tiny_model)) as other:
                    other.rebuild(encode=True)
                    other.search("zinc")
            yield {"id": f"mine{number}", "text": f"number {number}"}

    with pytest.raises(RecipeError, match="cuts its passages by"):
        notes.add(stream())
    assert len(notes) == 4 + 256


# -- its state -----------------------------------------------------------------------------------------------------------------


def test_a_reopened_collection_answers_as_before(make: Making) -> None:
    first = make()
    first.add(NOTES)
    before = [dataclasses.asdict(hit) for hit in first.search("cold cough", k=4)]
    first.close()
    assert [dataclasses.asdict(hit) for hit in make(model=None).search("cold cough", k=4)] == before


@pytest.mark.parametrize("damage", ["delete", "cut", "flip"])
def test_missing_and_damaged_indexes_are_made_anew(make: Making, tmp_path: Path, damage: str) -> None:
    first = make()
    first.add(NOTES)
    before = [hit.id for hit in first.search("cold cough", k=4)]
    first.close()
    index = tmp_path / "notes" / "index"
    if damage == "delete":
        shutil.rmtree(index)
    else:
        file = index / "words" / "meta.json"
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 4
        file.write_bytes(bytes(data[:20] if damage == "cut" else data))
    again = make()
    assert [hit.id for hit in again.search("cold cough", k=4)] == before
    assert ("made anew" in " ".join(again.notices)) == (damage != "delete")


def test_status_counts_what_is_there(notes: Collection) -> None:
    status = notes.status()
    assert (status.documents, status.passages, status.writable) == (4, 4, True)
    assert [(index.name, index.there, index.behind, index.passages) for index in status.indexes] == [("words", True, 0, 4)]
    assert "number 3 of 3 documents" in status.fields["year"]
    assert status.size > 0
    assert "4 documents, 4 passages" in str(status)


def test_check_finds_nothing_in_a_good_collection_and_a_flipped_bit_in_a_bad_one(notes: Collection, tmp_path: Path) -> None:
    assert notes.check().ok
    segment = next((tmp_path / "notes" / "index" / "words").glob("*.idx"))
    data = bytearray(segment.read_bytes())
    data[0] ^= 1
    segment.write_bytes(bytes(data))
    report = notes.check()
    assert not report.ok
    assert segment.name in report.problems[0]
    notes.rebuild()
    assert notes.check().ok


def test_rebuilding_gives_the_same_answers(notes: Collection) -> None:
    before = [(hit.id, hit.score) for hit in notes.search("cold cough", k=4)]
    assert notes.rebuild() is None
    assert [(hit.id, hit.score) for hit in notes.search("cold cough", k=4)] == before


# -- opening -------------------------------------------------------------------------------------------------------------------


def test_a_directory_that_is_no_collection_is_refused_and_left_alone(make: Making, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "letter.txt").write_text("dear")
    with pytest.raises(CollectionError, match="no collection"):
        make("mine")
    assert [path.name for path in folder.iterdir()] == ["letter.txt"]


def test_a_file_is_no_collection(make: Making, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(CollectionError, match="is a file"):
        make("file")


def test_nothing_is_made_where_that_was_not_asked_for(make: Making, tmp_path: Path) -> None:
    with pytest.raises(CollectionError, match="twinrank index"):
        make("none", create=False)
    assert not (tmp_path / "none").exists()


def test_a_wrong_recipe_makes_no_collection(make: Making, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("[retrieve]\nwords = 'many'")
    with pytest.raises(RecipeError):
        make("fresh", recipe=tmp_path / "r.toml")
    assert not (tmp_path / "fresh").exists()


READING_ALONE = """
import os, sys
from twinrank import Collection
from twinrank.errors import CollectionReadOnlyError
if os.geteuid() == 0:  # root may write everywhere
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
with Collection(sys.argv[1]) as collection:
    print(collection.search("zinc")[0].id, collection.status().writable)
    try:
        collection.add({"id": "x", "text": "y"})
    except CollectionReadOnlyError as error:
        print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="permissions work differently there")
@pytest.mark.parametrize("indexed", [True, False])
def test_a_collection_without_permission_to_write_is_searched_and_says_why_it_cannot_change(indexed: bool) -> None:
    with tempfile.TemporaryDirectory() as outside:  # pytest's own folders are closed to other users
        Path(outside).chmod(0o755)
        folder = Path(outside) / "notes"
        with Collection(folder, model="none") as collection:
            collection.add(NOTES)
        if not indexed:
            shutil.rmtree(folder / "index")
        for path in [*folder.rglob("*"), folder]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        told = subprocess.run([sys.executable, "-c", READING_ALONE, folder], capture_output=True, text=True, check=False)
        folder.chmod(0o755)
        for path in folder.rglob("*"):
            path.chmod(0o755)
    assert told.stdout.startswith("zinc False\n"), told.stderr
    assert "no permission to write" in told.stdout


def test_what_is_to_be_done_about_another_model_is_a_command_that_takes_this_model(
    make: Making, tiny_model: Path, other_tiny_model: Path, tmp_path: Path
) -> None:
    make(model=str(tiny_model)).add(NOTES)
    with pytest.raises(ModelMismatchError, match=f"rebuild --encode --model {other_tiny_model} -c "):
        make(model=str(other_tiny_model)).search("zinc")
    recipe = tmp_path / "other.toml"
    recipe.write_text("[passages]\nsize = 64\n")
    with pytest.raises(RecipeError, match=f"rebuild --encode --recipe {recipe} --model {tiny_model} -c "):
        make(recipe=recipe, model=str(tiny_model)).add(NOTES)
    other = make()
    other.migrate(str(other_tiny_model))
    assert "--model" not in other._again


def test_documents_cut_in_another_way_are_not_mixed_in(make: Making) -> None:
    make().add(NOTES)
    other = make(recipe=Recipe.parse("[passages]\nsize = 64"))
    with pytest.raises(RecipeError, match="rebuild --encode"):
        other.add({"id": "x", "text": "y"})
    other.rebuild(encode=True)
    assert other.add({"id": "x", "text": "y"}).added == 1


# -- vectors -------------------------------------------------------------------------------------------------------------------


def test_by_default_words_and_vectors_are_fused_and_each_stage_tells_its_part(make: Making, tiny_model: Path) -> None:
    collection = make(model=str(tiny_model))
    collection.add(NOTES)
    found = collection.search("does zinc shorten a cold?", k=4)
    assert found[0].id == "zinc"
    assert [name for name, _ in found.stages] == ["vectors", "words", "fuse"]
    assert [stage.stage for stage in found[0].stages] == ["vectors", "words", "fuse"]
    assert len(found) == 4  # the vectors rank every document


def test_vector_search_equals_a_search_by_hand(make: Making, tiny_model: Path) -> None:
    collection = make(model=str(tiny_model), recipe="vectors")
    collection.add(NOTES)
    encoder = collection.encoder
    assert encoder is not None
    texts = [f"{note.get('title', '')} {note['text']}".strip() for note in NOTES]
    cosines = encoder.encode(texts) @ encoder.encode(["a cold"], side="query")[0]
    expected = [str(NOTES[i]["id"]) for i in np.argsort(-cosines)]
    assert [hit.id for hit in collection.search("a cold", k=4)] == expected


def test_only_passages_whose_text_changed_are_encoded_again(make: Making, tiny_model: Path) -> None:
    collection = make(model=str(tiny_model), recipe=Recipe.parse("[passages]\nsize = 40\noverlap = 0"))
    sentences = [
        f"{subject} may shorten a {subject} cold of {subject}." for subject in ("zinc", "honey", "bread", "food", "water")
    ]
    first = collection.add({"id": "a", "text": "\n\n".join(sentences)})
    assert first.encoded == first.passages > 2
    again = collection.add({"id": "a", "text": "\n\n".join(sentences), "year": 2021})
    assert (again.updated, again.encoded) == (1, 0)
    sentences[-1] = "A man may eat bread, of water."
    changed = collection.add({"id": "a", "text": "\n\n".join(sentences), "year": 2021})
    assert 0 < changed.encoded < changed.passages
    assert collection.check().ok


def test_another_model_over_the_same_vectors_is_refused_with_both_fingerprints(
    make: Making, tiny_model: Path, other_tiny_model: Path
) -> None:
    first = make(model=str(tiny_model))
    first.add(NOTES)
    view = first.status().views[0]
    other = make(model=str(other_tiny_model))
    assert other.encoder is not None
    for attempt in (lambda: other.search("zinc"), lambda: other.add({"id": "x", "text": "y"})):
        with pytest.raises(ModelMismatchError) as refused:
            attempt()
        for part in (view.fingerprint, other.encoder.fingerprint, "rebuild --encode"):
            assert part in str(refused.value)
    assert "x" not in first
    other.rebuild(encode=True)
    assert other.search("zinc")[0].id == "zinc"
    assert other.check().ok
    with pytest.raises(ModelMismatchError):
        first.search("zinc")


def test_an_interrupted_re_encoding_is_refused_in_search_and_finished_by_asking_again(
    make: Making, tiny_model: Path, other_tiny_model: Path
) -> None:
    make(model=str(tiny_model)).add([{"id": str(number), "text": f"text {number}"} for number in range(600)])
    other = make(model=str(other_tiny_model))

    def interrupt(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        other.rebuild(encode=True, progress=interrupt)
    with pytest.raises(CollectionError, match="rebuild --encode"):
        other.search("text 17")
    report = other.rebuild(encode=True)
    assert report is not None
    assert 0 < report.encoded < 600
    assert other.check().ok
    assert other.search("text 17", k=1)


def test_truncated_tokens_are_counted_and_shown(make: Making, tiny_model: Path) -> None:
    collection = make(model=str(tiny_model), recipe=Recipe.parse("[passages]\nsize = 0"))
    report = collection.add([{"id": "long", "text": "zinc " * 5000}, {"id": "short", "text": "zinc"}])
    assert report.truncated == 1
    assert report.dropped > 3000
    view = collection.status().views[0]
    assert (view.truncated, view.dropped) == (1, report.dropped)
    assert f"truncated: 1 passage, {report.dropped:,} tokens" in str(collection.status())


@pytest.mark.parametrize("windows", [False, True])
def test_a_rerank_stage_takes_a_cross_encoder(make: Making, tiny_cross_encoder: Path, windows: bool) -> None:
    stage = RerankSettings(str(tiny_cross_encoder), candidates=2, windows=windows)
    recipe = dataclasses.replace(Recipe(), rerank=(stage,)).with_model("none")
    collection = make(recipe=recipe, model=None)
    collection.add(NOTES)
    found = collection.search("a cold and a cough", k=3)
    assert [name.split()[0] for name, _ in found.stages] == ["words", "rerank"]
    assert [hit.stages[1].rank for hit in found] == [1, 2, 3]


def test_the_recipe_is_kept_in_the_collection(make: Making, tiny_model: Path, tmp_path: Path) -> None:
    make(model=str(tiny_model), recipe=Recipe.parse("[retrieve]\nwords = 33"))
    kept = Recipe.load(tmp_path / "notes" / "recipe.toml")
    assert kept.retrieve.words == 33
    assert kept.encoder.model == str(tiny_model)
    assert json.loads(json.dumps(kept.to_toml()))


FULL_DISK = """
import resource, signal, sys
from twinrank import Collection
from twinrank.errors import StorageError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a file beyond its limit: the write fails, as on a full disk
with Collection(sys.argv[1], model="none") as collection:
    before = sorted(collection.store.document_ids())
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    try:
        collection.add({"id": f"big{number}", "text": f"word{number} " * 4000} for number in range(200))
    except StorageError as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert collection.get(before) and "zinc" in collection
    assert collection.search("zinc lozenges")[0].id == "zinc"
    assert collection.check().ok, collection.check()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit of a file's size to set")
def test_a_full_disk_is_told_and_leaves_what_was_there(make: Making, tmp_path: Path) -> None:
    make().add(NOTES)
    told = subprocess.run([sys.executable, "-c", FULL_DISK, tmp_path / "notes"], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    assert "nothing of this change was kept" in told.stdout


# -- other architectures -------------------------------------------------------------------------------------------------------


def test_a_collection_encodes_documents_with_one_tower_and_queries_with_the_other(
    make: Making, tiny_model: Path, other_tiny_model: Path, tmp_path: Path
) -> None:
    saved = TwinTower(query=other_tiny_model, document=tiny_model).save(tmp_path / "towers")
    collection = make(model=str(saved), recipe="vectors")
    collection.add(NOTES)
    texts = [f"{note.get('title', '')} {note['text']}".strip() for note in NOTES]
    cosines = BiEncoder(tiny_model).encode(texts) @ BiEncoder(other_tiny_model).encode(["a cold"])[0]
    found = collection.search("a cold", k=4)
    assert [hit.id for hit in found] == [str(NOTES[i]["id"]) for i in np.argsort(-cosines)]
    assert found[0].score == pytest.approx(float(cosines.max()), abs=1e-4)


def test_a_query_is_translated_into_the_documents_language_and_searched_in_both(
    make: Making, shared_models: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ctranslate2")
    subprocess.run([sys.executable, shared_models / "expand.py", tmp_path / "en-fr"], check=True, capture_output=True)
    recipe = Recipe.parse(f'[words]\nlanguage = "french"\n[rewrite]\nmodel = {json.dumps(str(tmp_path / "en-fr"))}')
    collection = make(recipe=recipe)
    collection.add([{"id": "temps", "text": "Le temps est beau dehors."}, {"id": "chat", "text": "Le chat dort."}])
    found = collection.search("The weather is beautiful outside.")
    assert found[0].id == "temps"
    assert "Le temps est beau dehors." in found.notes[0]
    assert found.stages[0][0].startswith("rewrite ")


# -- what a stranger met -------------------------------------------------------------------------------------------------------


def test_searches_go_on_beside_writes_and_deletes(make: Making) -> None:
    collection, other = make(), make()
    collection.add({"id": str(number), "text": f"word{number} common"} for number in range(300))
    failed: list[BaseException] = []
    done = threading.Event()

    def ask() -> None:
        try:
            while not done.is_set():
                collection.search("common", k=200)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    for start in range(0, 300, 10):
        other.delete([str(number) for number in range(start, start + 10)])
        other.add([{"id": f"new{start}", "text": "common again"}])
    done.set()
    thread.join()
    assert failed == []


def test_a_passage_deleted_after_the_indexes_were_asked_is_left_out(make: Making, monkeypatch: pytest.MonkeyPatch) -> None:
    collection, other = make(), make()
    collection.add([{"id": "a", "text": "common one"}, {"id": "b", "text": "common two"}])
    refresh = collection._derived.refresh

    def late() -> object:
        indexes = refresh()
        other.delete("a")
        return indexes

    monkeypatch.setattr(collection._derived, "refresh", late)
    assert [hit.id for hit in collection.search("common")] == ["b"]


@pytest.mark.parametrize("options", [{"model": "./no/such-model"}, {"recipe": Recipe.parse('[words]\nlanguage = "klingon"')}])
def test_a_first_opening_that_fails_leaves_nothing_behind(make: Making, tmp_path: Path, options: dict[str, object]) -> None:
    with pytest.raises((ModelNotFoundError, RecipeError)):
        make("fresh", **options)
    assert not (tmp_path / "fresh").exists()


def test_a_file_that_takes_the_id_of_another_folders_is_named(make: Making, tmp_path: Path) -> None:
    collection = make()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "README.md").write_text(f"This is folder {name}.")
    assert collection.add(tmp_path / "one").problems == []
    told = collection.add(tmp_path / "two").problems
    assert "replaced it" in told[0].reason
    assert "one" in told[0].reason


def test_another_encoder_of_another_limit_cuts_every_document_again(make: Making, tiny: ModuleType, tmp_path: Path) -> None:
    short = tiny.write_bi_encoder(tmp_path / "short", seed=9)
    settings = json.loads((short / "sentence_bert_config.json").read_text())
    (short / "sentence_bert_config.json").write_text(json.dumps({**settings, "max_seq_length": 32}))
    long = tiny.write_bi_encoder(tmp_path / "long", seed=10)
    collection = make(model=str(short))
    collection.add({"id": "a", "text": "zinc may shorten a cold. " * 20})
    before = collection.status().passages
    make(model=str(long)).rebuild(encode=True)
    assert 0 < collection.status().passages < before


def test_encoding_anew_by_the_same_recipe_keeps_what_a_person_wrote_into_it(notes: Collection) -> None:
    recipe = notes.path / "recipe.toml"
    recipe.write_text("# chosen with care\n" + recipe.read_text())
    notes.rebuild(encode=True)
    assert recipe.read_text().startswith("# chosen with care")


def test_a_collection_within_an_indexed_folder_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("A note.")
    with Collection(tmp_path / "mine", model="none") as collection:
        assert collection.add(tmp_path).added == 1
        assert collection.add(tmp_path).unchanged == 1


def test_the_recipe_chooses_the_vector_index_and_status_tells_what_it_misses(tmp_path: Path, tiny_model: Path) -> None:
    pytest.importorskip("faiss", reason="faiss is not installed: pip install 'twinrank[faiss]'")
    recipe = Recipe.parse("[index]\nkind = 'hnsw'\n[retrieve]\nwords = 0\nvectors = 5").with_model(str(tiny_model))
    with Collection(tmp_path / "many", recipe=recipe) as many:
        many.add({"id": str(number), "text": f"text {number} {number % 7}", "odd": number % 2} for number in range(1200))
        assert "hnsw, recall@10" in str(many.status())
        found = many.search("text 7", k=5, where="odd = 1")
        assert len(found) == 5
        assert "600 of 1,200 passages pass" in found.plan
        assert "pass" not in many.search("text 7", k=5).plan
        assert many.check().ok
    with Collection(tmp_path / "many", recipe=dataclasses.replace(recipe, retrieve=RetrieveSettings())) as both:
        # What fusion asks of the other side's candidates is no answer to how the vectors were searched.
        assert "pass" not in both.search("text 7", k=5).plan


def test_damage_that_only_a_search_sees_is_mended_by_it(tmp_path: Path, tiny_model: Path) -> None:
    recipe = Recipe.parse("[retrieve]\nwords = 0").with_model(str(tiny_model))
    with Collection(tmp_path / "notes", recipe=recipe) as notes:
        notes.add(NOTES)
        before = [(hit.id, hit.score) for hit in notes.search("honey")]
        file = tmp_path / "notes" / "index" / "vectors.index"
        data = bytearray(file.read_bytes())
        keys = [key for keys, _ in notes.store.iterate_passages() for key in keys]
        for vector in notes.store.vectors("vectors", keys):
            data[data.index(vector.tobytes()) + 1] ^= 255
        with file.open("r+b") as stream:  # beneath the map that is open
            stream.write(data)
        assert [(hit.id, hit.score) for hit in notes.search("honey")] == before
        assert "made anew" in notes.notices[0]
