"""The files of a word index: tantivy's, read and checked by their own checksums, its errors told as ours, and a stamp."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import tantivy

from twinrank.errors import CollectionBusyError, IndexDamagedError, StorageError
from twinrank.files import replacing

FORMAT = 1
STAMP_FILE = "stamp.json"
FOOTER_MAGIC = 1337


def remove(folder: Path) -> None:
    """Delete the folder; a thread of tantivy's may outlive its writer for an instant, and put a file into what is deleted."""
    for _ in range(9):
        if not folder.exists():
            return
        try:
            shutil.rmtree(folder)
        except OSError:
            sleep(0.02)
    if folder.exists():
        shutil.rmtree(folder)


def open_files(folder: Path) -> tantivy.Index:
    with translated(folder):
        if os.access(folder, os.W_OK):
            index = tantivy.Index.open(str(folder))
            index.config_reader("manual")  # otherwise a thread watches the files and changes what is searched when it likes
            return index
        # tantivy locks a file for writing even to read. Where it may not, it is shown the files in a folder of links; they
        # are mapped into memory at once, and the links not needed after that.
        with tempfile.TemporaryDirectory(prefix="twinrank-") as links:
            for path in folder.resolve().iterdir():
                if not path.name.endswith(".lock"):
                    (Path(links) / path.name).symlink_to(path)
            index = tantivy.Index.open(links)
            index.config_reader("manual")
            return index


def read_stamp(folder: Path) -> dict[str, Any]:
    path = folder / STAMP_FILE
    try:
        envelope = json.loads(path.read_text(encoding="utf-8"))
        content = envelope["content"]
        if zlib.crc32(content.encode()) != envelope["checksum"]:
            raise IndexDamagedError(f"{path} fails its checksum")
        return dict(json.loads(content))
    except OSError as error:
        raise IndexDamagedError(f"there is no index at {folder}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IndexDamagedError(f"{path} is not what was written: {error}") from error


def write_stamp(folder: Path, stamp: str, sequence: int, *, committing: bool) -> None:
    """Put the stamp in place whole. While `committing`, tantivy's own files may be newer than `sequence`."""
    content = json.dumps(
        {
            "format": FORMAT,
            "stamp": stamp,
            "sequence": sequence,
            "committing": committing,
            "meta": None if committing else meta_checksum(folder),
        }
    )
    envelope = json.dumps({"content": content, "checksum": zlib.crc32(content.encode())})
    with replacing(folder / STAMP_FILE, folder / f"{STAMP_FILE}.new") as file:
        file.write(envelope.encode())


def meta_checksum(folder: Path) -> int:
    try:
        return zlib.crc32((folder / "meta.json").read_bytes())
    except OSError as error:
        raise IndexDamagedError(f"{folder / 'meta.json'} cannot be read: {error.strerror}") from error


def segment_files(folder: Path) -> list[Path]:
    """The files that tantivy's list of segments asks for."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        paths = []
        for segment in meta["segments"]:
            name = segment["segment_id"].replace("-", "")
            paths += [folder / f"{name}.{kind}" for kind in ("term", "idx", "pos", "fast", "fieldnorm", "store")]
            if segment["deletes"]:
                paths.append(folder / f"{name}.{segment['deletes']['opstamp']}.del")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise IndexDamagedError(f"{folder / 'meta.json'} is not what was written: {error}") from error
    return paths


def file_problems(folder: Path) -> list[str]:
    """tantivy ends each file with a footer: JSON that holds a CRC-32 of what precedes, its length, a magic number."""
    problems = []
    for path in segment_files(folder):
        try:
            data = path.read_bytes()
            length, magic = np.frombuffer(data[-8:], dtype="<u4").tolist()
            checksum = json.loads(data[-8 - length : -8])["crc"]
            if magic != FOOTER_MAGIC or checksum != zlib.crc32(data[: -8 - length]):
                problems.append(f"{path} fails its checksum")
        except OSError as error:
            problems.append(f"{path} cannot be read: {error.strerror}")
        except (ValueError, KeyError, TypeError) as error:
            problems.append(f"{path} is not what was written: {error}")
    return problems


def _failing_disk(error: Exception) -> str | None:
    """The system's words for a full or failing disk, where that is what went wrong; tantivy gives them as text."""
    told = re.search(r"os error (\d+)", str(error))
    code = error.errno if isinstance(error, OSError) else int(told[1]) if told else None
    return os.strerror(code) if code in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG) else None


@contextmanager
def translated(folder: Path) -> Iterator[None]:
    """tantivy's errors, told as ours; a damaged file may also make it panic, which is no Exception in Python."""
    try:
        yield
    except (ValueError, OSError) as error:
        if "LockBusy" in str(error):
            raise CollectionBusyError(f"another process is writing to {folder}; try again when it has finished") from error
        if (reason := _failing_disk(error)) is not None:
            raise StorageError(
                f"{folder} cannot be written: {reason}. What was added or deleted is kept; the index follows at the next "
                "search once the disk can be written again"
            ) from error
        raise IndexDamagedError(f"{folder}: {error}") from error
    except BaseException as error:
        if type(error).__name__ == "PanicException":
            raise IndexDamagedError(f"{folder} is damaged: {error}") from error
        raise
