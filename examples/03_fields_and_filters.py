"""Fields and conditions: search among the documents that meet a condition, and find documents like others."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from docstrings import records

from twinrank import Collection, TwinrankError

SEARCHES = [
    ("split text into lines of a certain width", None),
    ("split text into lines of a certain width", "kind = 'class'"),
    ("join two paths", "module = 'os.path' and words < 60"),
    ("join two paths", "module in ('os.path', 'urllib.parse') and not id like '%split%'"),
]


def main() -> None:
    with TemporaryDirectory() as folder, Collection(Path(folder) / "docs.twinrank") as docs:
        print(docs.add(records()))  # records with an id and a text; every other key is a field
        for query, where in SEARCHES:
            print(f"\n{query}, {where or 'anywhere'}:")
            for hit in docs.search(query, k=3, where=where):
                print(f"    {hit.score:.2f}  {hit.id:<28} {hit.fields['kind']}, {hit.fields['words']} words")

        print("\nlike heapq.heappush, unlike heapq.merge:")
        for hit in docs.similar("heapq.heappush", k=3, unlike="heapq.merge"):
            print(f"    {hit.score:.2f}  {hit.id}")

        try:
            docs.search("paths", where="modul = 'os.path'")
        except TwinrankError as error:
            print(f"\na mistake is told: {error}")


if __name__ == "__main__":
    try:
        main()
    except TwinrankError as error:  # the default encoder is not installed, say: the message tells what to do
        sys.exit(str(error))
