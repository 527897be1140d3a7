"""Documents and passages, read; their fields; the log of changes."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from twinrank.conditions import FieldKind
from twinrank.errors import IndexDamagedError, StorageError
from twinrank.parts import part_of
from twinrank.store.conditions import Compiler
from twinrank.store.database import COMPACTED, Database, sequence_of
from twinrank.store.records import ChangeKind, DocumentInfo, FieldSummary, FieldValues
from twinrank.store.rows import Row, as_json, as_list, checksum, get_value, select_in, set_value, verify
from twinrank.types import Condition, Document, Keys, Passage

IS_STATE = "SELECT ? = 0 OR EXISTS (SELECT 1 FROM changes WHERE sequence = ? AND kind = 'commit')"
PASSAGE_COLUMNS = "SELECT p.* FROM"
PASSAGES_BY_KEY = f"{PASSAGE_COLUMNS} json_each(?) AS wanted JOIN passages p ON p.key = wanted.value"
PASSAGES_AFTER = f"{PASSAGE_COLUMNS} passages p WHERE p.key > ? ORDER BY p.key LIMIT ?"


class Documents(Database):
    """What is read of documents, passages, fields and changes."""

    # The log of changes

    def sequence(self) -> int:
        """The number of the latest change; 0 before the first."""
        with self._reading() as connection:
            return sequence_of(connection)

    def changes_since(self, sequence: int) -> list[tuple[int, int, ChangeKind]]:
        """For each passage touched after `sequence`, its last change: (sequence, passage key, "add" or "remove").

        An index removes the key before it adds it; catching up twice is then the same as once. Raises IndexDamagedError
        where the log cannot tell, and the index is to be built anew.
        """
        with self._reading() as connection:
            oldest = int(get_value(connection, COMPACTED) or 0)
            if sequence < oldest:
                raise IndexDamagedError(f"the change log no longer reaches back to {sequence}; build the index anew")
            if sequence > (last := sequence_of(connection)):
                raise IndexDamagedError(
                    f"the index is of change {sequence}, the store only at {last}: the store was put back to an older state, "
                    "or lost its latest changes; build the index anew"
                )
            if sequence != oldest and not connection.execute(IS_STATE, (sequence, sequence)).fetchone()[0]:
                raise IndexDamagedError(
                    f"the index is of change {sequence}, which this store never came by: the index is of another collection, "
                    "or the store was put back to an older state since; build the index anew"
                )
            latest: dict[int, tuple[int, int, ChangeKind]] = {}
            query = "SELECT sequence, passage, kind, checksum FROM changes WHERE sequence > ? ORDER BY sequence"
            for number, passage, kind, given in connection.execute(query, (sequence,)):
                if checksum(number, passage, kind) != given:
                    raise IndexDamagedError(f"change {number} in the log differs from what was stored; build the index anew")
                if kind != "commit":
                    latest[passage] = (number, passage, kind)
            return sorted(latest.values())

    def compact_changes(self, before: int) -> None:
        """Forget the changes of the transactions up to `before`, which every index has taken in."""
        with self._writing() as connection:
            query = "SELECT max(sequence) FROM changes WHERE sequence <= ? AND kind = 'commit'"
            state = connection.execute(query, (before,)).fetchone()[0]
            if state is not None:
                connection.execute("DELETE FROM changes WHERE sequence <= ?", (state,))
                set_value(connection, COMPACTED, str(state))

    # Reading documents and passages

    def get(self, ids: Sequence[str]) -> list[Document | None]:
        found = {}
        with self._reading() as connection:
            for *head, given, text_given, text in select_in(connection, "SELECT * FROM documents WHERE id IN ({})", ids):
                key, id, _, title, source, fields = head
                verify(given, f"document {id!r}", *head)
                verify(text_given, f"the text of document {id!r}", key, text)
                found[id] = Document(id, text, title, json.loads(fields), source)
        return [found.get(id) for id in ids]

    def count_documents(self) -> int:
        return self._count("SELECT count(*) FROM documents")

    def count_passages(self) -> int:
        return self._count("SELECT count(*) FROM passages")

    def _count(self, query: str) -> int:
        with self._reading() as connection:
            return int(connection.execute(query).fetchone()[0])

    def document_ids(self) -> Iterator[str]:
        """All ids, in the order in which they first came."""
        return (identity for identity, _ in self.sources())

    def sources(self) -> Iterator[tuple[str, str]]:
        """(id, source) of every document, in the order in which they first came."""
        last = 0
        while True:
            with self._reading() as connection:
                query = "SELECT key, id, source FROM documents WHERE key > ? ORDER BY key LIMIT 10000"
                rows = connection.execute(query, (last,)).fetchall()
            if not rows:
                return
            last = rows[-1][0]
            yield from (row[1:] for row in rows)

    def passages(self, keys: npt.ArrayLike) -> list[Passage]:
        """The passages of `keys`, in that order; those that are gone are left out."""
        with self._reading() as connection:
            found = read_passages(connection, PASSAGES_BY_KEY, (as_json(keys),))
        return [found[key] for key in as_list(keys) if key in found]

    def documents_of(self, keys: npt.ArrayLike) -> Keys:
        """For each passage the key of its document, -1 where the passage is gone: for grouping."""
        with self._reading() as connection:
            query = "SELECT p.key, p.document FROM json_each(?) AS wanted JOIN passages p ON p.key = wanted.value"
            found = dict(connection.execute(query, (as_json(keys),)).fetchall())
        return np.array([found.get(key, -1) for key in as_list(keys)], dtype=np.int64)

    def document_info(self, keys: npt.ArrayLike) -> dict[int, DocumentInfo]:
        """For each passage key that is here, what hits say of its document."""
        query = """SELECT p.key, d.checksum, d.key, d.id, d.digest, d.title, d.source, d.fields FROM json_each(?) AS wanted
                   JOIN passages p ON p.key = wanted.value JOIN documents d ON d.key = p.document"""
        known: dict[int, DocumentInfo] = {}
        found = {}
        with self._reading() as connection:
            for passage, given, *head in connection.execute(query, (as_json(keys),)):
                key, id, _, title, source, fields = head
                if key not in known:
                    verify(given, f"document {id!r}", *head)
                    known[key] = DocumentInfo(key, id, title, source, json.loads(fields))
                found[passage] = known[key]
        return found

    def iterate_passages(self, *, batch: int = 256) -> Iterator[tuple[Keys, list[str]]]:
        """All passages by key, in batches: (keys (n,), titled texts).

        Each batch is read by itself. Take `sequence()` before the first, and what changes meanwhile comes with the log.
        """
        yield from self._batches_of_passages(PASSAGES_AFTER, (), batch)

    def _batches_of_passages(self, query: str, parameters: Row, batch: int) -> Iterator[tuple[Keys, list[str]]]:
        last = 0
        while True:
            with self._reading() as connection:
                found = read_passages(connection, query, (last, *parameters, batch))
            if not found:
                return
            last = max(found)
            yield np.array(list(found), dtype=np.int64), [passage.titled_text for passage in found.values()]

    def known_digests(self, ids: Sequence[str]) -> dict[str, str]:
        """Of those documents that are here, the digest; a document whose digest is unchanged need not be written."""
        with self._reading() as connection:
            return dict(select_in(connection, "SELECT id, digest FROM documents WHERE id IN ({})", ids))

    def passage_digests(self, ids: Sequence[str]) -> dict[str, set[str]]:
        """Of those documents that are here, the digests of their passages: a passage with one of these need not be encoded."""
        found: dict[str, set[str]] = defaultdict(set)
        query = "SELECT d.id, p.digest FROM documents d LEFT JOIN passages p ON p.document = d.key WHERE d.id IN ({})"
        with self._reading() as connection:
            for id, digest in select_in(connection, query, ids):
                found[id].update(() if digest is None else (digest,))
        return dict(found)

    # Fields and conditions

    def select(self, condition: Condition) -> Keys:
        """The keys, ascending, of all passages whose document meets the condition.

        Values have three types, number, text and boolean, and a comparison across types does not hold: `year = '2020'` finds
        no number, `open = 1` no boolean. Besides the documents' own fields, `id`, `title` and `source` may be used; an empty
        title or source counts as missing. Raises FilterError for a field that no document has.
        """
        with self._reading() as connection:
            sql, parameters = Compiler(connection).compile(condition)
            rows = connection.execute(f"SELECT p.key FROM passages p WHERE {sql}", parameters)
            keys = np.fromiter((key for (key,) in rows), dtype=np.int64)
        keys.sort()
        return keys

    def field_summary(self) -> dict[str, FieldSummary]:
        """Every field that a document has: how many documents hold which type of value, and how many hold it at all."""
        types: dict[str, dict[FieldKind, int]] = defaultdict(dict)
        with self._reading() as connection:
            for name, kind, count in connection.execute(
                "SELECT name, kind, count(DISTINCT document) FROM fields GROUP BY name, kind ORDER BY name, kind"
            ):
                types[name][kind] = count
            totals = dict(connection.execute("SELECT name, count(DISTINCT document) FROM fields GROUP BY name").fetchall())
        return {name: FieldSummary(kinds, totals[name]) for name, kinds in types.items()}

    def field_values(self, most: int = 20) -> dict[str, list[FieldValues]]:
        """Of every field and each type of value that it has (not null): the range, and the values where they are few."""
        found: dict[str, list[FieldValues]] = defaultdict(list)
        with self._reading() as connection:
            kinds = connection.execute(
                "SELECT name, kind, count(DISTINCT document), min(value), max(value) FROM fields WHERE kind <> 'null' "
                "GROUP BY name, kind ORDER BY name, kind"
            ).fetchall()
            for name, kind, documents, low, high in kinds:
                query = "SELECT DISTINCT value FROM fields WHERE name = ? AND kind = ? LIMIT ?"
                few = len(connection.execute(query, (name, kind, most + 1)).fetchall()) <= most
                query = "SELECT value, count(*) FROM fields WHERE name = ? AND kind = ? GROUP BY value ORDER BY 2 DESC, 1"
                values = connection.execute(query, (name, kind)).fetchall() if few else []
                found[name].append(FieldValues(kind, documents, low, high, tuple(values)))
        return dict(found)


def read_passages(connection: sqlite3.Connection, query: str, parameters: Row) -> dict[int, Passage]:
    """Passages by key, in the query's order; each document's text is read once, and held no longer than it is cut."""
    places = connection.execute(query, parameters).fetchall()
    by_document: dict[int, list[Row]] = defaultdict(list)
    for *place, given in places:
        verify(given, f"passage {place[0]}", *place)
        by_document[place[1]].append(place)
    found: dict[int, Passage] = {}
    documents = connection.execute(
        "SELECT d.* FROM json_each(?) AS wanted JOIN documents d ON d.key = wanted.value",
        (json.dumps(list(by_document)),),
    )
    for *head, head_given, text_given, text in documents:
        document, id, _, title, _, fields = head
        verify(head_given, f"document {id!r}", *head)
        verify(text_given, f"the text of document {id!r}", document, text)
        whole: Document | None = None
        for key, _, number, part, start, end, _ in by_document[document]:
            if part and whole is None:
                whole = Document(id, text, title, json.loads(fields))
            within = text if whole is None else part_of(whole, part) or ""
            found[key] = Passage(id, number, start, end, within[start:end], "" if part else title, key, part)
    for key, document, *_ in places:
        if key not in found:
            raise StorageError(
                f"passage {key} belongs to document {document}, which is not there; restore the store from a copy"
            )
    return {place[0]: found[place[0]] for place in places}
