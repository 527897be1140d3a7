"""Files put in place whole: what a crash or a full disk leaves is the old content or the new, never a part."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


def replace_file(path: Path, content: str | bytes) -> None:
    """Put `content` in the place of what was at `path`, whose permissions it keeps."""
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    with replacing(path, temporary) as stream:
        stream.write(content.encode("utf-8") if isinstance(content, str) else content)
        if path.exists():
            temporary.chmod(path.stat().st_mode)


@contextmanager
def replacing(path: Path, temporary: Path) -> Iterator[BinaryIO]:
    """A new file, `temporary` in the same folder, that takes the place of `path` once it is whole and on the disk.

    Where this fails, what was at `path` stays, and nothing beside it.
    """
    try:
        with temporary.open("w+b") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        sync(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def beside(path: Path, ending: str) -> Path:
    """Where this process writes what will stand at `path`, or helps to make it; `remove_leftovers` knows it again."""
    return path.with_name(f"{path.name}.{os.getpid()}.{ending}")


def remove_leftovers(path: Path, endings: tuple[str, ...]) -> None:
    """Remove what processes that died while writing left `beside` the path."""
    for leftover in path.parent.glob(f"{path.name}.*.*"):
        process, _, ending = leftover.name.removeprefix(f"{path.name}.").partition(".")
        if process.isdecimal() and ending in endings and not _is_running(int(process)):
            leftover.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def sync(path: Path) -> None:
    """Make what was written to a file, or renamed in a folder, last through a power failure, where the system can."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
