"""A collection as one file: what comes out is what went in, and what was tampered with never becomes a collection."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import sqlite3
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from twinrank import Collection, archive
from twinrank.archive import export, import_
from twinrank.errors import CollectionError, DataError, StorageError, TwinrankError

NOTES = [{"id": str(number), "title": "Note", "text": f"note {number} on zinc", "year": 2000 + number} for number in range(20)]


@pytest.fixture
def collection(tmp_path: Path, tiny_model: Path) -> Collection:
    opened = Collection(tmp_path / "notes", model=str(tiny_model))
    opened.add(NOTES)
    return opened


def found(collection: Collection) -> list[tuple[str, float]]:
    return [(hit.id, hit.score) for hit in collection.search("zinc", k=20, where="year >= 2003")]


@pytest.mark.parametrize("name", ["notes.tar", "notes.tar.gz"])
def test_an_imported_collection_is_the_one_that_was_exported(collection: Collection, tmp_path: Path, name: str) -> None:
    before = found(collection)
    collection.delete(["0"])
    collection.add(NOTES[:1])
    export(collection, tmp_path / name)
    with Collection(import_(tmp_path / name, tmp_path / "deep" / "copy")) as copy:
        assert found(copy) == before
        assert copy.get(["3"]) == collection.get(["3"])
        assert copy.check().ok
        assert copy.add(NOTES).encoded == 0  # the vectors came along
        assert copy.add({"id": "new", "text": "one more"}).added == 1
    assert len(collection) == len(NOTES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "notes", name]


def test_exporting_goes_on_beside_a_writer(collection: Collection, tmp_path: Path) -> None:
    with Collection(collection.path) as other, other._writing():
        export(collection, tmp_path / "notes.tar")
    assert (tmp_path / "notes.tar").stat().st_size > 1000


def test_nothing_is_overwritten(collection: Collection, tmp_path: Path) -> None:
    export(collection, tmp_path / "notes.tar")
    with pytest.raises(CollectionError, match="there already"):
        export(collection, tmp_path / "notes.tar")
    with pytest.raises(CollectionError, match="there already"):
        import_(tmp_path / "notes.tar", collection.path)
    with pytest.raises(CollectionError, match="is no folder"):
        export(collection, tmp_path / "nowhere" / "notes.tar")
    with pytest.raises(DataError, match="no file"):
        import_(tmp_path / "nothing.tar", tmp_path / "copy")


def rewritten(archive: Path, change: Callable[[str, bytes], list[tuple[tarfile.TarInfo, bytes]]]) -> Path:
    """The archive with every member as `change` makes it."""
    target = archive.with_name("tampered.tar")
    with tarfile.open(archive) as old, tarfile.open(target, "w") as new:
        for member in old:
            content = old.extractfile(member)
            assert content is not None
            for info, data in change(member.name, content.read()):
                info.size = len(data) if info.isreg() else 0
                new.addfile(info, io.BytesIO(data))
    return target


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


TAMPERED: dict[str, Callable[[str, bytes], list[tuple[tarfile.TarInfo, bytes]]]] = {
    "a path that climbs out": lambda name, data: [(member(f"../{name}"), data)],
    "an absolute path": lambda name, data: [(member(f"/tmp/{name}"), data)],
    "a link in place of a file": lambda name, data: [(member(name, tarfile.SYMTYPE, "/etc/passwd"), b"")],
    "a hard link": lambda name, data: [(member(name, tarfile.LNKTYPE, "/etc/passwd"), b"")],
    "a device": lambda name, data: [(member(name, tarfile.CHRTYPE), b"")],
    "a member more": lambda name, data: [(member(name), data), (member("more"), b"x")],
    "a member twice": lambda name, data: [(member(name), data)] * 2,
    "a changed byte": lambda name, data: [(member(name), data[:-1] + bytes([data[-1] ^ 1]))],
    "a member less": lambda name, data: [] if name == "recipe.toml" else [(member(name), data)],
    "a huge manifest": lambda name, data: [(member(name), data + b" " * 100_000)],
    "no manifest": lambda name, data: [] if name == "manifest.json" else [(member(name), data)],
}


@pytest.mark.parametrize("what", TAMPERED)
def test_an_archive_that_was_tampered_with_becomes_no_collection(collection: Collection, tmp_path: Path, what: str) -> None:
    export(collection, tmp_path / "notes.tar")
    (tmp_path / "notes.tar").rename(tmp_path / "good.tar")
    bad = rewritten(tmp_path / "good.tar", TAMPERED[what])
    before = sorted(tmp_path.parent.iterdir()), sorted(tmp_path.iterdir())
    with pytest.raises(DataError):
        import_(bad, tmp_path / "copy")
    assert (sorted(tmp_path.parent.iterdir()), sorted(tmp_path.iterdir())) == before


@pytest.mark.parametrize(
    "forgery",
    [
        "UPDATE documents SET title = 'forged' WHERE key = 1",
        "CREATE TRIGGER eat AFTER INSERT ON documents BEGIN DELETE FROM documents WHERE key = 1; END",
        "ALTER TABLE documents ADD COLUMN more TEXT",
        "DROP TABLE changes",
    ],
)
def test_an_archive_with_a_consistent_manifest_but_a_wrong_store_is_refused(
    collection: Collection, tmp_path: Path, forgery: str
) -> None:
    collection.store.copy_to(tmp_path / "other.db")
    with sqlite3.connect(tmp_path / "other.db") as database:
        database.execute(forgery)
    database.close()
    forged = (tmp_path / "other.db").read_bytes()
    facts = {"size": len(forged), "sha256": hashlib.sha256(forged).hexdigest()}

    def change(name: str, data: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
        if name == "manifest.json":
            manifest = json.loads(data)
            manifest["files"]["store.db"] = facts
            data = json.dumps(manifest).encode()
        return [(member(name), forged if name == "store.db" else data)]

    export(collection, tmp_path / "notes.tar")
    with pytest.raises(DataError, match="is refused"):
        import_(rewritten(tmp_path / "notes.tar", change), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_what_is_missing_is_named_when_it_cannot_be_exported(collection: Collection, tmp_path: Path) -> None:
    (collection.path / "recipe.toml").unlink()
    with pytest.raises(StorageError, match=r"recipe\.toml: No such file"):
        export(collection, tmp_path / "notes.tar")
    assert not (tmp_path / "notes.tar").exists()


def test_an_extended_header_of_any_size_is_not_followed(tmp_path: Path) -> None:
    header = member("././@PaxHeader", tarfile.XHDTYPE)
    header.size = 1 << 33
    with gzip.open(tmp_path / "bomb.tar.gz", "wb") as stream:
        stream.write(header.tobuf(format=tarfile.GNU_FORMAT) + bytes(50_000_000))
    with pytest.raises(DataError, match="PaxHeader"):
        import_(tmp_path / "bomb.tar.gz", tmp_path / "copy")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.tar.gz"
    header = member("manifest.json")
    header.size = 1 << 40
    with gzip.open(bomb, "wb") as stream:
        stream.write(header.tobuf(format=tarfile.GNU_FORMAT) + bytes(50_000_000))
    with pytest.raises(DataError, match="at most 65,536 were expected"):
        import_(bomb, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_store_larger_than_the_disk_is_refused(
    collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(collection, tmp_path / "notes.tar")

    monkeypatch.setattr(archive.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 20_000})())
    with pytest.raises(StorageError, match="are free on the disk"):
        import_(tmp_path / "notes.tar", tmp_path / "copy")


@pytest.mark.parametrize("size", range(0, 120_000, 23_917))
def test_a_torn_archive_is_refused(collection: Collection, tmp_path: Path, size: int) -> None:
    export(collection, tmp_path / "notes.tar")
    data = (tmp_path / "notes.tar").read_bytes()
    (tmp_path / "torn.tar").write_bytes(data[: min(size, len(data) - 40_000)])
    with pytest.raises(TwinrankError):
        import_(tmp_path / "torn.tar", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_calibration_comes_along(collection: Collection, tmp_path: Path) -> None:
    (collection.path / "calibration.json").write_text("{}")
    export(collection, tmp_path / "notes.tar")
    copy = import_(tmp_path / "notes.tar", tmp_path / "copy")
    assert (copy / "calibration.json").read_text() == "{}"


def test_an_archive_is_not_imported_to_an_engine(
    collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(collection, tmp_path / "notes.tar")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CollectionError, match="twinrank copy FOLDER ADDRESS"):
        import_(tmp_path / "notes.tar", "milvus://me:secret@localhost:19530/notes")
    assert not (tmp_path / "milvus:").exists()
