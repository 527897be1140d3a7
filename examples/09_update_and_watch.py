"""A collection that stays current: change, delete, check, and follow a folder of files."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from docstrings import records

from twinrank import Collection, TwinrankError
from twinrank.following import Follower


def main() -> None:
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with Collection(folder / "docs.twinrank") as docs:
            heaps = records(["heapq", "textwrap"])
            print(docs.add(heaps))
            print(docs.add(heaps))  # the same again costs nothing
            changed = {**heaps[0], "text": heaps[0]["text"] + "\n\nSee also sorted()."}
            print(docs.add(changed))  # the same id: replaces, and encodes only what is new
            print(f"deleted {docs.delete([one['id'] for one in heaps if one['module'] == 'textwrap'])}")
            print(docs.check())  # everything read and compared with its checksum

        # A folder of files and a collection in step; `twinrank watch FOLDER` does this whenever the folder changes.
        notes = folder / "notes"
        notes.mkdir()
        (notes / "zinc.md").write_text("# Zinc\n\nZinc may shorten a cold.\n", encoding="utf-8")
        (notes / "honey.txt").write_text("Honey eases a cough at night.\n", encoding="utf-8")
        with Collection(folder / "notes.twinrank") as collection:
            follower = Follower(collection, notes)
            print(f"\n{follower.sync()}")
            (notes / "zinc.md").write_text("# Zinc\n\nZinc may shorten a cold by a day.\n", encoding="utf-8")
            (notes / "honey.txt").unlink()
            print(follower.sync())
            print(collection.search("what shortens a cold?"))


if __name__ == "__main__":
    try:
        main()
    except TwinrankError as error:  # the default encoder is not installed, say: the message tells what to do
        sys.exit(str(error))
