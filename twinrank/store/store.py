"""The store: documents and views over one database, and what changes and checks all of it."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

from twinrank.errors import CollectionError, IndexDamagedError, StorageError
from twinrank.store.check import problems, structure_problems
from twinrank.store.database import add_changes
from twinrank.store.records import PreparedDocument, PreparedPassage
from twinrank.store.rows import marks, parts, select_in
from twinrank.store.upkeep import LONGEST, forget_changes, give_back, has_much_free, has_old_changes
from twinrank.store.views import Views, read_vectors, read_views
from twinrank.store.writing import Plan
from twinrank.types import Condition, Keys

CHECKED_WHEN_OPENED = 2**24
"""Bytes: 16 MB, some 8,000 passages, whose structure is looked through in some 16 ms."""


class Store(Views):
    """One collection's durable half; may be used from several threads, and by several processes."""

    _changed: tuple[tuple[int, int], float] | None = None
    """(state before, state now) and how many passages changed between them, as they were last asked for."""

    def write(self, prepared: Sequence[PreparedDocument]) -> None:
        """Add these documents, or put them in the place of those with the same ids, in one transaction.

        Of documents with the same id the last one counts. Raises DocumentError for what cannot be stored, InputError for a
        vector that is missing, of another dimension, not finite or zero; nothing is written then.
        """
        by_id = {one.document.id: one for one in prepared}
        if not by_id:
            return
        with self._writing() as connection:
            plan = Plan(connection, read_views(connection))
            plan.read_known(list(by_id))
            for one in by_id.values():
                plan.place_document(one)
            plan.carry_out()

    def passing(self, condition: Condition) -> Keys:
        """The keys that `select` gives: what a search may find."""
        return self.select(condition)

    def at_most(self, allowed: Keys | None) -> int:
        """How many passages there are, of those that are allowed."""
        return self.count_passages() if allowed is None else len(allowed)

    def changed_since(self, sequence: int, passages: int) -> float:
        """How many passages were added or removed since a state; infinity where the log cannot tell."""
        state = sequence, self.sequence()
        if sequence == state[1]:
            return 0.0
        if self._changed is None or self._changed[0] != state:  # it is asked for at every search
            try:
                self._changed = state, len(self.changes_since(sequence))
            except IndexDamagedError:
                self._changed = state, float("inf")
        return self._changed[1]

    def prepared(self, ids: Sequence[str]) -> list[PreparedDocument]:
        """Those of these documents that are there, with all that `write` needs to have them again elsewhere."""
        documents = [document for document in self.get(list(dict.fromkeys(ids))) if document is not None]
        digests, views = self.known_digests([document.id for document in documents]), self.views().values()
        query = """SELECT d.id, p.key, p.part, p.start, p."end", p.digest FROM passages p JOIN documents d ON d.key = p.document
                   WHERE d.id IN ({}) ORDER BY p.document, p.number"""
        with self._reading() as connection:
            passages = list(select_in(connection, query, list(digests)))
            vectors = {view.name: read_vectors(connection, view, [row[1] for row in passages]) for view in views}
        found: dict[str, list[PreparedPassage]] = {document.id: [] for document in documents}
        for id, key, part, start, end, digest in passages:
            of = {name: known[key] for name, known in vectors.items() if key in known}
            found[id].append(PreparedPassage(start, end, digest, of, part))
        return [PreparedDocument(document, digests[document.id], found[document.id]) for document in documents]

    def delete(self, ids: Sequence[str]) -> list[str]:
        """Remove documents; the ids that were there, in the order given."""
        with self._writing() as connection:
            known: dict[str, int] = dict(select_in(connection, "SELECT id, key FROM documents WHERE id IN ({})", ids))
            for part in parts(list(known.values())):
                these = marks(part)
                gone = connection.execute(f"SELECT key FROM passages WHERE document IN ({these})", part).fetchall()
                add_changes(connection, ((key, "remove") for (key,) in gone))
                connection.execute(f"DELETE FROM documents WHERE key IN ({these})", part)
        return [id for id in dict.fromkeys(ids) if id in known]

    def tidy(self, reflected: int) -> None:
        """Keep the file in proportion, for some 20 ms at most; the next call goes on.

        Changes are forgotten that indexes of the state `reflected` do not need, and free pages beyond a quarter of the file
        given back. Nothing depends on it: what fails, as on a full disk, is tried again the next time.
        """
        begun = perf_counter()
        try:
            while self._tidy_once(reflected) and perf_counter() - begun < LONGEST:
                pass
        except CollectionError:  # its connection is closed, its transaction undone
            return

    def _tidy_once(self, reflected: int) -> bool:
        """One step, where there is one to be done."""
        with self._reading() as connection:
            old, free = has_old_changes(connection), has_much_free(connection)
        if not (old or free):
            return False
        with self._writing(names_state=False) as connection:
            forgotten = old and forget_changes(connection, reflected)
            if free:
                give_back(connection)
        return forgotten or free

    def check_structure(self) -> list[str]:
        """What is wrong with SQLite's pages, which no row's checksum tells: a lookup that is led astray finds nothing.

        Looked at when a collection is opened, where the file is small; of a larger one only `check` tells.
        """
        if self.size() > CHECKED_WHEN_OPENED:
            return []
        try:
            with self._reading() as connection:
                return list(structure_problems(connection))
        except StorageError as error:
            return [str(error)]

    def check(self) -> list[str]:
        """Every problem found, in words; none where all is well. Reads everything."""
        try:
            with self._reading() as connection:
                return list(problems(connection, immutable=self._mode == "immutable"))
        except StorageError as error:
            return [str(error)]
