"""The store: documents and views over one database, and what changes and checks all of it."""

from __future__ import annotations

from collections.abc import Sequence

from twinrank.errors import StorageError
from twinrank.store.check import problems
from twinrank.store.database import add_changes
from twinrank.store.records import PreparedDocument
from twinrank.store.rows import marks, parts, select_in
from twinrank.store.views import Views, read_views
from twinrank.store.writing import Plan


class Store(Views):
    """One collection's durable half; may be used from several threads, and by several processes."""

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

    def check(self) -> list[str]:
        """Every problem found, in words; none where all is well. Reads everything."""
        try:
            with self._reading() as connection:
                return list(problems(connection))
        except StorageError as error:
            return [str(error)]
