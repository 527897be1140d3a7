"""BM25 over terms that were already analysed, with real updates and deletes: one folder, kept by tantivy."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tantivy

from twinrank.errors import CollectionBusyError, CollectionReadOnlyError, IndexDamagedError, InputError, StorageError
from twinrank.files import replacing
from twinrank.types import Keys, Ranking, Scores

K1 = 1.2
B = 0.75
"""The parameters of BM25; tantivy fixes them."""

FORMAT = 1
STAMP_FILE = "stamp.json"
WRITER_BYTES = 30_000_000  # what a writer may hold before it makes a segment; tantivy asks for 15 MB at least
FOOTER_MAGIC = 1337
FEW = 0.02  # up to this share of all passages a filter is part of the query; above, the ranking is filtered


class TermFacts(NamedTuple):
    """What the score of one term in one passage is made of."""

    passages: int
    """That hold it: n."""
    idf: float
    frequency: int
    """Of the term in the passage: f; 0 where it is not there."""


class WordIndex:
    """Words → passages, scored by BM25 (Robertson and Zaragoza 2009), as Lucene computes it:

        sum over the query's terms of  idf · f · (k1 + 1) / (f + k1 · (1 - b + b · length / average length))
        idf = ln(1 + (passages - n + 0.5) / (n + 0.5)),  k1 = 1.2, b = 0.75

    with f the term's count in the passage and n the passages that hold the term. A term that the query holds twice counts
    twice. The length is kept in one byte: exact up to 40 terms, rounded down by at most an eighth beyond, so a score may be
    above the formula's by a few per cent. Passages removed count in n and in the averages until their segment is merged.

    What is added or removed is searched after `commit`. Terms hold no white space.
    """

    def __init__(self, folder: Path, index: tantivy.Index, stamp: str, sequence: int) -> None:
        """Use `WordIndex.create` or `WordIndex.open`."""
        self.folder = folder
        self.stamp = stamp
        self.sequence = sequence
        """The change of the store that this index reflects."""
        self._index = index
        self._schema = index.schema
        self._writer: tantivy.IndexWriter | None = None
        self._searcher = index.searcher()

    @classmethod
    def create(cls, folder: str | Path, *, stamp: str = "") -> WordIndex:
        """An empty index in place of whatever `folder` holds; it can be opened again after its first commit.

        `stamp` names what made the terms: opening with another one says that the index is stale.
        """
        folder = Path(folder)
        with _translated(folder):
            _remove(folder)
            folder.mkdir(parents=True)
            index = tantivy.Index(_schema(), path=str(folder))
            index.config_reader("manual")
            return cls(folder, index, stamp, 0)

    @classmethod
    def open(cls, folder: str | Path, *, stamp: str = "") -> WordIndex:
        """The index in `folder`; raises IndexDamagedError where it is missing, torn or made with another stamp."""
        folder = Path(folder)
        found = _read_stamp(folder)
        if found["format"] != FORMAT or found["stamp"] != stamp:
            raise IndexDamagedError(f"{folder} was built with another analyser or version ({found['stamp']!r}, not {stamp!r})")
        if found["committing"]:  # a writer died, or is just now at it: nothing is torn, but look
            problems = _file_problems(folder)
            if problems:
                raise IndexDamagedError(problems[0])
        elif _meta_checksum(folder) != found["meta"] and _read_stamp(folder) == found:
            raise IndexDamagedError(f"{folder / 'meta.json'} is not what was written")
        for path in _segment_files(folder):
            if not path.exists():
                raise IndexDamagedError(f"{path} is missing")
        return cls(folder, _open_files(folder), stamp, found["sequence"])

    def __len__(self) -> int:
        return int(self._searcher.num_docs)

    # Changing

    def add(self, keys: npt.ArrayLike, terms: Sequence[Sequence[str]]) -> None:
        """Add passages by key; one that is there is replaced."""
        key_list = _as_list(keys)
        if len(key_list) != len(terms):
            raise InputError(f"{len(key_list)} keys came with the terms of {len(terms)} passages")
        writer = self._open_writer()
        with _translated(self.folder):
            for key, words in zip(key_list, terms, strict=True):
                writer.delete_documents_by_term("key", key)
                document = tantivy.Document()
                document.add_integer("key", key)
                document.add_text("terms", " ".join(words))
                writer.add_document(document)

    def remove(self, keys: npt.ArrayLike) -> None:
        """Remove passages; keys that are not there are passed over."""
        writer = self._open_writer()
        with _translated(self.folder):
            for key in _as_list(keys):
                writer.delete_documents_by_term("key", key)

    def commit(self, sequence: int) -> None:
        """Make what was added and removed durable and searched; the index now reflects change `sequence`.

        A crash at any instant leaves the state before or after. Catching up from the older sequence again does no harm.
        """
        with _translated(self.folder):
            try:
                self._open_writer()
                _write_stamp(self.folder, self.stamp, self.sequence, committing=True)
                self._open_writer().commit()
                self._open_writer().wait_merging_threads()  # and closes: other processes may take their turn
            finally:
                self._writer = None  # of one that failed the lock would stay
            self._index.reload()
            self._searcher = self._index.searcher()
            _write_stamp(self.folder, self.stamp, sequence, committing=False)
        self.sequence = sequence

    def rollback(self) -> None:
        """Forget what was added and removed since the last commit."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            with _translated(self.folder):
                writer.rollback()
                writer.wait_merging_threads()

    close = rollback

    def refresh(self) -> None:
        """Take in what other processes committed."""
        self.sequence = int(_read_stamp(self.folder)["sequence"])
        self._index = _open_files(self.folder)
        with _translated(self.folder):
            self._searcher = self._index.searcher()

    def _open_writer(self) -> tantivy.IndexWriter:
        if self._writer is None:
            if not os.access(self.folder, os.W_OK):
                raise CollectionReadOnlyError(f"{self.folder} cannot be changed: no permission to write; searching works")
            with _translated(self.folder):
                self._writer = self._index.writer(WRITER_BYTES, 1)
        return self._writer

    # Searching

    def search(
        self, terms: Sequence[str], k: int, allowed: Keys | None = None, *, weights: Mapping[str, float] | None = None
    ) -> Ranking:
        """The `k` best passages that hold any of the terms; of those in `allowed` only, exactly, where given.

        `weights` multiplies the score of single terms. Equal scores stand with the larger key first.
        """
        searcher = self._searcher
        counts = {term: count * (weights or {}).get(term, 1.0) for term, count in Counter(terms).items()}
        total = int(searcher.num_docs)
        if not counts or total == 0 or k < 1 or (allowed is not None and len(allowed) == 0):
            return Ranking.empty()
        with _translated(self.folder):
            query = self._any_of(counts)
            share = 1.0
            if allowed is not None:
                allowed = np.asarray(allowed, dtype=np.int64)
                if (np.diff(allowed) <= 0).any():  # usually it comes from the store, in order
                    allowed = np.unique(allowed)
                share = min(1.0, len(allowed) / total)
                if share <= FEW:
                    query = self._among(query, allowed)
                    allowed, share = None, 1.0
            return _first(searcher, query, min(k, total), total, allowed, share)

    def bound(self, terms: Sequence[str]) -> float:
        """What no passage's score reaches: that of one which holds each of the terms without end, and nothing else.

        A term that no passage holds counts too, so that a query of which little is found has low scores for its bound.
        """
        total = int(self._searcher.num_docs)
        with _translated(self.folder):
            holding = {term: self._searcher.doc_freq("terms", term) for term in set(terms)}
        idf = {term: math.log(1 + (max(total - n, 0) + 0.5) / (n + 0.5)) for term, n in holding.items()}
        return (K1 + 1) * sum(idf[term] for term in terms)

    def explain(self, terms: Sequence[str], key: int) -> list[tuple[str, float]]:
        """What each of the terms that the passage holds adds to its score, largest first; the sum is the score."""
        parts: list[tuple[str, float]] = []
        with _translated(self.folder):
            for term, count in Counter(terms).items():
                query = self._among(self._any_of({term: float(count)}), np.array([key]))
                parts.extend((term, float(score)) for score, _ in self._searcher.search(query, 1, count=False).hits)
        return sorted(parts, key=lambda part: (-part[1], part[0]))

    def facts(self, term: str, key: int) -> TermFacts:
        """What the index itself computes with, for this term and this passage."""
        query = self._any_of({term: 1.0})
        with _translated(self.folder):
            hits = self._searcher.search(self._among(query, np.array([key])), 1, count=False).hits
            anywhere = hits or self._searcher.search(query, 1, count=False).hits
            if not anywhere:
                return TermFacts(0, math.log(1 + (int(self._searcher.num_docs) + 0.5) / 0.5), 0)
            told = json.loads(query.explain(self._searcher, anywhere[0][1]).to_json())
        values = dict(_explained(told))
        return TermFacts(int(values["n"]), values["idf"], int(values["freq"]) if hits else 0)

    def _any_of(self, weights: Mapping[str, float]) -> tantivy.Query:
        queries = []
        for term, weight in weights.items():
            query = tantivy.Query.term_query(self._schema, "terms", term, "freq")
            queries.append((tantivy.Occur.Should, query if weight == 1 else tantivy.Query.boost_query(query, weight)))
        return tantivy.Query.boolean_query(queries)

    def _among(self, query: tantivy.Query, keys: Keys) -> tantivy.Query:
        chosen = tantivy.Query.term_set_query(self._schema, "key", keys.tolist())
        silent = tantivy.Query.const_score_query(chosen, 0.0)  # a filter adds nothing to the score
        return tantivy.Query.boolean_query([(tantivy.Occur.Must, silent), (tantivy.Occur.Must, query)])

    # Upkeep

    def verify(self) -> list[str]:
        """Every problem found, in words: reads all files and compares their checksums."""
        try:
            found = _read_stamp(self.folder)
            if not found["committing"] and _meta_checksum(self.folder) != found["meta"]:
                return [f"{self.folder / 'meta.json'} is not what was written"]
            return _file_problems(self.folder)
        except IndexDamagedError as error:
            return [str(error)]

    def size(self) -> int:
        """Bytes on disk."""
        return sum(path.stat().st_size for path in self.folder.iterdir())


def _remove(folder: Path) -> None:
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


def _open_files(folder: Path) -> tantivy.Index:
    with _translated(folder):
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


def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    builder.add_integer_field("key", indexed=True, fast=True)  # deleting by an unsigned one does nothing in tantivy-py
    builder.add_text_field("terms", tokenizer_name="whitespace", index_option="freq")
    return builder.build()


def _first(searcher: tantivy.Searcher, query: tantivy.Query, k: int, total: int, allowed: Keys | None, share: float) -> Ranking:
    """The first k by score, then key. tantivy breaks ties by its own order, so we ask for more until a tie is whole."""
    limit = min(total, int(k / share * 1.2) + 16)
    while True:
        hits = searcher.search(query, limit, count=False).hits
        scores: Scores = np.array([score for score, _ in hits], dtype=np.float32)
        keys = np.array(searcher.fast_field_values("key", [address for _, address in hits]), dtype=np.int64)
        kept = np.flatnonzero(_is_in(keys, allowed)) if allowed is not None else np.arange(len(keys))
        everything = len(hits) < limit or limit == total
        if everything or (len(kept) >= k and scores[-1] < scores[kept[k - 1]]):
            return Ranking.of(keys[kept], scores[kept], k)
        limit = min(total, limit * 4)


def _explained(told: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The names (up to the first comma or blank) and values in tantivy's explanation of a score, from the outside in."""
    yield re.split("[, ]", told["description"])[0], float(told["value"])
    for part in told.get("details") or ():
        yield from _explained(part)


def _is_in(keys: Keys, allowed: Keys) -> npt.NDArray[np.bool_]:
    """Which of `keys` are among `allowed`, which is sorted."""
    places = np.minimum(np.searchsorted(allowed, keys), len(allowed) - 1)
    return np.asarray(allowed[places] == keys)


def _read_stamp(folder: Path) -> dict[str, Any]:
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


def _write_stamp(folder: Path, stamp: str, sequence: int, *, committing: bool) -> None:
    """Put the stamp in place whole. While `committing`, tantivy's own files may be newer than `sequence`."""
    content = json.dumps(
        {
            "format": FORMAT,
            "stamp": stamp,
            "sequence": sequence,
            "committing": committing,
            "meta": None if committing else _meta_checksum(folder),
        }
    )
    envelope = json.dumps({"content": content, "checksum": zlib.crc32(content.encode())})
    with replacing(folder / STAMP_FILE, folder / f"{STAMP_FILE}.new") as file:
        file.write(envelope.encode())


def _meta_checksum(folder: Path) -> int:
    try:
        return zlib.crc32((folder / "meta.json").read_bytes())
    except OSError as error:
        raise IndexDamagedError(f"{folder / 'meta.json'} cannot be read: {error.strerror}") from error


def _segment_files(folder: Path) -> list[Path]:
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


def _file_problems(folder: Path) -> list[str]:
    """tantivy ends each file with a footer: JSON that holds a CRC-32 of what precedes, its length, a magic number."""
    problems = []
    for path in _segment_files(folder):
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
def _translated(folder: Path) -> Iterator[None]:
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


def _as_list(keys: npt.ArrayLike) -> list[int]:
    return [int(key) for key in np.asarray(keys, dtype=np.int64).tolist()]
