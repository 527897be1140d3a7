"""Opening, permissions, full disks and damage: what cannot be used is told by its reason."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from twinrank_prepared import prepare, vector_of

from twinrank.errors import (
    CollectionError,
    StorageError,
)
from twinrank.store import Store


def test_a_folder_without_a_store_is_no_collection(tmp_path: Path) -> None:
    with pytest.raises(CollectionError, match="is no collection"):
        Store.open(tmp_path / "nothing", create=False)
    assert not (tmp_path / "nothing").exists()


def test_a_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(CollectionError, match="cannot be created"):
        Store.open(tmp_path / "file")


def test_another_program_s_database_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "store.db")
    connection.execute("CREATE TABLE bookmarks(url)")
    connection.close()
    with pytest.raises(CollectionError, match="another program"):
        Store.open(tmp_path)


def test_a_newer_format_is_refused_with_both_numbers(store: Store) -> None:
    store.close()
    connection = sqlite3.connect(store.path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(CollectionError, match=r"its format is 99, this one reads up to 2; upgrade"):
        Store.open(store.folder)


def test_an_older_format_is_refused_with_what_to_do(store: Store) -> None:
    store.close()
    connection = sqlite3.connect(store.path)
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    with pytest.raises(CollectionError, match=r"its format is 1, this one reads 2; index its documents again"):
        Store.open(store.folder)


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_file_that_is_no_database_is_told_as_damage(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "store.db").write_bytes(content)
    with pytest.raises(StorageError, match="damaged"):
        Store.open(tmp_path)
    assert (tmp_path / "store.db").read_bytes() == content


def test_a_store_whose_creation_was_cut_short_is_created_anew(tmp_path: Path) -> None:
    (tmp_path / "store.db").touch()
    with pytest.raises(CollectionError):
        Store.open(tmp_path, create=False)
    with Store.open(tmp_path) as store:
        assert store.count_documents() == 0


def test_a_closed_store_says_so(store: Store) -> None:
    store.close()
    with pytest.raises(CollectionError, match="is closed"):
        store.count_documents()


def test_a_path_with_odd_characters_is_opened(tmp_path: Path) -> None:
    with Store.open(tmp_path / "a b?c#d%20é&mode=memory") as store:
        store.write([prepare("a", "one", encode=False)])
    assert (tmp_path / "a b?c#d%20é&mode=memory" / "store.db").stat().st_size > 0


# Permissions, full disks, damage


def as_nobody(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script as a user without rights, which root is not."""
    if not hasattr(os, "geteuid"):
        pytest.skip("this system has no user ids")
    root = os.geteuid() == 0
    code = "import os, sys; sys.path[:0] = {path!r}; from twinrank.store import Store\n" + (
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n" if root else ""
    )
    code = code.format(path=sys.path) + "from twinrank.types import *; from twinrank.store import *\n" + script
    return subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False, timeout=60)


READ_AND_WRITE = """
import pathlib, twinrank.errors
store = Store.open(sys.argv[1], timeout=0.2)
print(store.count_documents(), store.writable, store.get(["a"])[0].text)
try:
    store.delete(["a"])
except twinrank.errors.CollectionReadOnlyError as error:
    print(error)
print("problems", store.check())
store.close()
"""


@pytest.fixture
def open_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that others may reach: pytest's own are for the owner alone."""
    above = tmp_path
    modes = {}
    while above.name and above.stat().st_uid == os.geteuid() and above.parent != above and not above.stat().st_mode & 0o005:
        modes[above] = above.stat().st_mode
        above.chmod(above.stat().st_mode | 0o055)
        above = above.parent
    folder = tmp_path / "papers"
    yield folder
    folder.chmod(0o755)
    for path, mode in modes.items():
        path.chmod(mode)


def test_a_read_only_folder_is_searched_and_says_why_it_cannot_be_written(open_folder: Path) -> None:
    with Store.open(open_folder) as store:
        store.write([prepare("a", "one", encode=False)])
    (open_folder / "store.db").chmod(0o444)
    open_folder.chmod(0o555)
    result = as_nobody(open_folder, READ_AND_WRITE)
    assert result.stdout.splitlines()[0] == "1 False one", result.stderr
    assert "no permission to write" in result.stdout
    assert "problems []" in result.stdout


def test_a_read_only_folder_is_searched_while_its_owner_writes(open_folder: Path) -> None:
    with Store.open(open_folder) as store:
        store.write([prepare("a", "one", encode=False)])
        open_folder.chmod(0o555)
        for path in open_folder.iterdir():
            path.chmod(0o444)
        result = as_nobody(open_folder, READ_AND_WRITE)
    assert result.stdout.splitlines()[0] == "1 False one", result.stderr


def test_a_read_only_folder_left_by_a_crash_is_not_read_without_its_last_writes(open_folder: Path) -> None:
    with Store.open(open_folder) as store:
        store.write([prepare("a", "one", encode=False)])
        log = (open_folder / "store.db-wal").read_bytes()
        database = (open_folder / "store.db").read_bytes()
    (open_folder / "store.db").write_bytes(database)
    (open_folder / "store.db-wal").write_bytes(log)
    open_folder.chmod(0o555)
    result = as_nobody(open_folder, READ_AND_WRITE)
    assert "not closed properly" in result.stderr
    open_folder.chmod(0o755)
    with Store.open(open_folder) as store:
        assert store.count_documents() == 1


def test_a_collection_cannot_be_created_without_permission(open_folder: Path) -> None:
    open_folder.mkdir()
    open_folder.chmod(0o555)
    result = as_nobody(open_folder, "Store.open(sys.argv[1] + '/new')")
    assert "CollectionReadOnlyError" in result.stderr
    assert "no permission to write" in result.stderr


def test_a_full_disk_is_told_and_nothing_is_lost(viewed: Store) -> None:
    viewed.write([prepare("a", "one")])
    with viewed._borrow() as connection:  # the pool's only connection: SQLite itself refuses to grow the file
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageError, match=r"disk of .* is full; nothing of this change was kept"):
        viewed.write([prepare("b", "x" * 1_000_000)])
    assert list(viewed.document_ids()) == ["a"]
    viewed.write([prepare("b", "two")])
    assert viewed.check() == []


def test_a_failing_write_is_told_and_nothing_is_lost(tmp_path: Path) -> None:
    """The file size limit makes write(2) itself fail."""
    resource = pytest.importorskip("resource")
    script = f"""
import resource, signal, sys
sys.path[:0] = {sys.path!r}
from twinrank.errors import StorageError
from twinrank.store import *
from twinrank.types import Document
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = Store.open({str(tmp_path)!r})
store.write([PreparedDocument(Document("a", "one"), "d", [])])
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    store.write([PreparedDocument(Document("b", "x" * 1_000_000), "d", [])])
except StorageError as error:
    print(error)
print(list(store.document_ids()))
"""
    assert resource
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert "nothing of this change was kept" in result.stdout, result.stderr
    assert result.stdout.endswith("['a']\n")
    with Store.open(tmp_path) as store:
        assert list(store.document_ids()) == ["a"]
        assert store.check() == []


def change(store: Store, statement: str) -> None:
    connection = sqlite3.connect(store.path)
    connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE documents SET text = replace(text, 'one', 'oNe')", "document 'a' differs"),
        ("UPDATE documents SET fields = '{\"year\":2}'", "document 'a' differs"),
        ("UPDATE fields SET value = 3", "indexed fields of document 'a' differ"),
        ("UPDATE passages SET start = 1 WHERE key = 1", "passage 1 of document 'a' differs"),
        ("UPDATE vectors SET dropped = 9 WHERE passage = 1", "vector of passage 1 in view 'small' differs"),
        ("UPDATE vectors SET vector = zeroblob(16) WHERE passage = 1", "vector of passage 1 in view 'small' differs"),
        ("DELETE FROM vectors WHERE passage = 2", "view 'small' lacks the vectors of 1 passages"),
        ("DELETE FROM documents", "points to a row of documents that is not there"),
    ],
)
def test_check_finds_what_was_changed_behind_its_back(viewed: Store, statement: str, problem: str) -> None:
    viewed.write([prepare("a", "one", "two", year=1)])
    assert viewed.check() == []
    change(viewed, statement)
    assert any(problem in line for line in viewed.check())


def test_check_finds_a_flipped_bit_anywhere_in_text_and_vectors(viewed: Store) -> None:
    viewed.write([prepare("a", "a long text that is stored once", "and another")])
    viewed.close()
    content = bytearray(viewed.path.read_bytes())
    places = [content.rindex(b"long text"), content.rindex(vector_of("and another").tobytes()) + 5]
    for place in places:
        content[place] ^= 4
        viewed.path.write_bytes(content)
        with Store.open(viewed.folder) as damaged:
            assert len(damaged.check()) == 1
        content[place] ^= 4
    viewed.path.write_bytes(content)
    with Store.open(viewed.folder) as whole:
        assert whole.check() == []


def test_a_damaged_page_is_told_as_damage(viewed: Store) -> None:
    viewed.write([prepare(f"d{i}", f"text {i}") for i in range(500)])
    viewed.close()
    content = bytearray(viewed.path.read_bytes())
    content[8192 * 3 :] = b"\xa5" * (len(content) - 8192 * 3)
    viewed.path.write_bytes(content)
    with Store.open(viewed.folder) as damaged:
        assert damaged.check() != []
        with pytest.raises(StorageError, match="damaged"):
            for _ in damaged.iterate_passages():
                pass
