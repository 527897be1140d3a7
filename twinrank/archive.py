"""A collection as one file, to be carried elsewhere: written from one committed state, read back with suspicion."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from twinrank.calibrated import FILE as CALIBRATION
from twinrank.collection import Collection
from twinrank.errors import CollectionError, DataError, StorageError
from twinrank.files import sync
from twinrank.places import RECIPE, is_address
from twinrank.recipe import Recipe
from twinrank.store import FILE_NAME, Store

FORMAT = 1
MANIFEST = "manifest.json"
MEMBERS = (FILE_NAME, RECIPE)
OPTIONAL = (CALIBRATION,)
LARGEST = {MANIFEST: 1 << 16, RECIPE: 1 << 20, CALIBRATION: 1 << 26}
"""Bytes that a member may have, whatever it says of itself; the store has as many as the manifest says."""

BLOCK = 1 << 20


def export(collection: Collection, file: str | Path) -> int:
    """Write documents, vectors, recipe and calibration into a tar file, with gzip where its name ends with .gz; its bytes.

    The state is one that was committed; others may search and write meanwhile. Indexes are left out: they are derived. An
    existing file is refused, and what fails leaves none.
    """
    target = Path(file)
    if target.exists():
        raise CollectionError(f"{target} is there already; name another file")
    if not target.parent.is_dir():
        raise CollectionError(f"{target.parent} is no folder")
    with _working_folder(target.parent) as folder:
        names = _copy_whole(collection, folder)
        facts = {name: _facts(folder / name) for name in names}
        manifest = {"format": FORMAT, "documents": len(collection), "files": facts}
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        written = folder / "archive"
        # Level 1: vectors hardly shrink, and texts nearly as much as at the highest.
        packed = target.suffix == ".gz"
        with (
            gzip.open(written, "wb", compresslevel=1) if packed else written.open("wb") as stream,
            tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive,
        ):
            for name in (MANIFEST, *names):
                archive.add(folder / name, arcname=name, filter=_anonymous)
        sync(written)
        written.replace(target)
        sync(target.parent)
    return target.stat().st_size


def _copy_whole(collection: Collection, folder: Path) -> list[str]:
    """Copy what belongs together: a migration changes store and recipe, so the recipe must be the same before and after."""
    path = collection.own_folder("exported")
    store = Store.open(path, create=False)
    while True:
        before = (path / RECIPE).read_bytes()
        (folder / FILE_NAME).unlink(missing_ok=True)
        store.copy_to(folder / FILE_NAME)
        (folder / RECIPE).write_bytes(before)
        there = [name for name in OPTIONAL if (path / name).exists()]
        for name in there:
            shutil.copyfile(path / name, folder / name)
        if (path / RECIPE).read_bytes() == before:
            return [*MEMBERS, *there]


def import_(file: str | Path, path: str | Path) -> Path:
    """Make the collection in an archive at `path`, where nothing may be yet; it is checked as a whole before it stands there.

    The archive may come from anywhere: only the members that `export` writes are taken, each once, as plain files, of at most
    the size that the manifest names and that fits the disk, with the checksum that it names. Raises DataError otherwise.
    """
    if is_address(path):
        raise CollectionError("an archive is imported to a folder, which goes to an engine by: twinrank copy FOLDER ADDRESS")
    source, target = Path(file), Path(path)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CollectionError(f"{target} is there already; a collection is imported to a new place")
    if not source.is_file():
        raise DataError(f"there is no file {source}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with _working_folder(target.parent) as folder:
        _unpack(source, folder)
        _check_store(folder, source)
        if target.exists():
            target.rmdir()
        folder.chmod(0o755)
        for name in MEMBERS:
            sync(folder / name)
        folder.rename(target)
        sync(target.parent)
    return target


@contextmanager
def _working_folder(beside: Path) -> Iterator[Path]:
    """A folder on the same disk, removed in the end unless it was moved to where it belongs."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=".twinrank-", dir=beside))
    except OSError as error:
        raise CollectionError(f"nothing can be written to {beside}: {error.strerror}") from error
    try:
        yield folder
    except OSError as error:
        raise StorageError(f"{error.filename or beside}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Who wrote it on which machine is nobody's business."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o644
    return member


def _facts(file: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return {"size": file.stat().st_size, "sha256": digest.hexdigest()}


def _unpack(source: Path, folder: Path) -> None:
    """The members in their order: the manifest says what may follow.

    Headers are read one by one, since tarfile would follow extended ones of any size.
    """
    files: dict[str, Any] = {}
    try:
        with _opened(source) as stream:
            for name in (MANIFEST, *MEMBERS, *OPTIONAL):
                if name in OPTIONAL and name not in files:
                    continue
                member = _header(stream, name, source)
                limit = LARGEST[name] if name in LARGEST else _declared(files, name, source)
                _check_size(member.size, limit, name, source, folder)
                digest = _copy(stream, folder / name, member.size)
                stream.read(-member.size % tarfile.BLOCKSIZE)
                if name == MANIFEST:
                    files = _read_manifest(folder / name, source)
                elif {"size": member.size, "sha256": digest} != files.get(name):
                    raise DataError(f"{source} is damaged: {name} is not what its manifest says")
            if stream.read(tarfile.BLOCKSIZE).strip(b"\0"):
                raise DataError(f"{source} is no exported collection: there is more in it than one holds")
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{source} is no exported collection, or is damaged ({error})") from error
    (folder / MANIFEST).unlink()


def _header(stream: IO[bytes], name: str, source: Path) -> tarfile.TarInfo:
    block = stream.read(tarfile.BLOCKSIZE)
    if not block.strip(b"\0"):
        raise DataError(f"{source} ends before {name}; export the collection again")
    member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    if member.name != name or not member.isreg():
        raise DataError(f"{source} is no exported collection: expected {name}, found {member.name[:80]!r}")
    return member


def _opened(source: Path) -> IO[bytes]:
    with source.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
    opened: Any = gzip.open(source, "rb") if packed else source.open("rb")  # noqa: SIM115 -- the caller closes it
    return cast("IO[bytes]", opened)


def _declared(files: dict[str, Any], name: str, source: Path) -> int:
    try:
        return int(files[name]["size"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{source} is damaged: its manifest does not name the size of {name}") from error


def _check_size(size: int, limit: int, name: str, source: Path, folder: Path) -> None:
    if not 0 <= size <= limit:
        raise DataError(f"{source} is refused: {name} has {size:,} bytes, at most {limit:,} were expected")
    free = shutil.disk_usage(folder).free
    if size > free:
        raise StorageError(f"{source} needs {size:,} bytes for {name}; {free:,} are free on the disk of {folder.parent}")


def _copy(content: IO[bytes], file: Path, size: int) -> str:
    digest, left = hashlib.sha256(), size
    with file.open("xb") as stream:
        while left and (block := content.read(min(BLOCK, left))):
            digest.update(block)
            stream.write(block)
            left -= len(block)
    return digest.hexdigest()


def _read_manifest(file: Path, source: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        found, files = manifest["format"], manifest["files"]
        assert isinstance(files, dict)
    except (ValueError, KeyError, TypeError, AssertionError, RecursionError) as error:
        raise DataError(f"{source} is no exported collection: its manifest cannot be read") from error
    if found != FORMAT:
        raise DataError(f"{source} is of format {found!r}, this twinrank reads {FORMAT}; update twinrank")
    return files


def _check_store(folder: Path, source: Path) -> None:
    Recipe.load(folder / RECIPE)
    store = Store.open(folder, create=False)
    try:
        problems = store.check()
    finally:
        store.close()
    if problems:
        raise DataError(f"{source} is refused: {problems[0]}" + (f" ({len(problems):,} problems)" if problems[1:] else ""))
