"""A million and a thousand distinct short passages, made the same way wherever the sources are: one a line, deduplicated.

python bench/passages.py ../shared/data --out ~/.cache/twinrank-data/million/passages.txt [--count 1001000]

The sources, in this order, until the count is reached: the sentences of every collection in the data folder, Debian's package
lists, the documentation in /usr/share/doc, the manual pages, and the documentation inside the installed Python, Perl and
JavaScript files. Two passages that differ only in case, digits, spaces or punctuation count as one.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import json
import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from html import unescape
from pathlib import Path

from twinrank.text import normalize, sentences

LEAST_LETTERS, MOST_LETTERS = 20, 300
NOT_LETTERS = re.compile(r"[\W\d_]+")
MACRO = re.compile(r"^[.'](?:[A-Z]\w* ?|\S+.*$)?")
ESCAPE = re.compile(r"\\f(?:\[\w*\]|\(..|.)|\\s[-+]?\d|\\[&|^,/]|\\\((..)")
TAG = re.compile(r"<[^>]*>")
COMMENT = re.compile(r'""".*?"""|/\*.*?\*/|(?:^[ \t]*(?:#|//).*\n)+', re.DOTALL | re.MULTILINE)
MARKS = re.compile(r"^[ \t]*(?:\"\"\"|/?\*+/?|#+|//+!?)|(?:\*/|\"\"\")", re.MULTILINE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", type=Path, nargs="+", help="folders of collections")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=1_001_000)
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    seen: set[bytes] = set()
    found: Counter[str] = Counter()
    with options.out.open("w", encoding="utf-8") as file:
        for source, text in sources(options.data):
            for passage in passages(text):
                mark = hashlib.blake2b(NOT_LETTERS.sub("", passage).lower().encode(), digest_size=12).digest()
                if mark in seen:
                    continue
                seen.add(mark)
                found[source] += 1
                file.write(passage + "\n")
                if len(seen) == options.count:
                    break
            if len(seen) == options.count:
                break
    for source, count in found.items():
        print(f"{count:>9,} {source}")
    print(f"{len(seen):>9,} distinct passages")


def passages(text: str) -> Iterator[str]:
    """The sentences of a text that say something: long enough, short enough, mostly letters."""
    for start, end in sentences(text):
        sentence = " ".join(text[start:end].split())
        letters = len(NOT_LETTERS.sub("", sentence))
        if LEAST_LETTERS <= letters <= MOST_LETTERS and letters >= 0.6 * len(sentence) and sentence.count(" ") >= 3:
            yield sentence


def sources(folders: Iterable[Path]) -> Iterator[tuple[str, str]]:
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.suffix in {".jsonl", ".tsv"} and "qrels" not in path.parts:
                for text in records(path):
                    yield "collections", normalize(text)
    for path in sorted(Path("/var/lib/apt/lists").glob("*Packages*")):
        shown = subprocess.run(["/usr/lib/apt/apt-helper", "cat-file", str(path)], capture_output=True, check=False).stdout
        for text in re.findall(r"^Description: (.*)$", shown.decode("utf-8", "replace"), re.MULTILINE):
            yield "package lists", normalize(text)
    for path in files("/usr/share/doc"):
        yield "documentation", normalize(unescape(TAG.sub(" ", read(path))))
    for path in files("/usr/share/info"):
        yield "documentation", normalize(read(path))
    for path in files("/usr/share/man"):
        yield "manual pages", normalize(manual(read(path)))
    for folder in ("/usr/lib/python3", "/usr/lib/python3.11", "/usr/share/perl", "/usr/include", "/usr/share/nodejs", "/opt"):
        for path in files(folder):
            if path.suffix in {".py", ".pyi", ".h", ".hpp", ".js", ".ts", ".md", ".rst", ".txt", ".pod", ".pm"}:
                text = read(path)
                if path.suffix not in {".md", ".rst", ".txt", ".pod"}:
                    text = "\n\n".join(MARKS.sub(" ", part) for part in COMMENT.findall(text))
                yield f"comments in {folder}", normalize(text)


def records(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", newline="") as file:
        if path.suffix == ".jsonl":
            for line in file:
                record = json.loads(line)
                yield from (str(record.get(name, "")) for name in ("title", "text"))
            return
        for row in list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]:
            yield from row


def files(folder: str) -> Iterator[Path]:
    """Regular files in a fixed order, links left out."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(parent) / name
            if not path.is_symlink() and path.is_file():
                yield path


def read(path: Path) -> str:
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError):
        return ""
    return "" if b"\0" in data[:4096] else data.decode("utf-8", "replace")


def manual(text: str) -> str:
    """A page's text without its macros; a macro alone on its line ends a paragraph."""
    lines = []
    for line in text.splitlines():
        if line.startswith(('.\\"', "'\\\"", ".de", ".ie", ".el", ".if", ".nr", ".ds", ".TH")):
            continue
        lines.append(ESCAPE.sub("", MACRO.sub("\n" if line[:1] == "." and len(line) < 5 else "", line)).replace("\\-", "-"))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
