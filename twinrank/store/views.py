"""Views: whose vectors are kept, whether every passage has one, and the vectors themselves."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from twinrank.errors import CollectionError, InputError, ModelMismatchError, StorageError
from twinrank.store.documents import Documents
from twinrank.store.records import View
from twinrank.store.rows import as_json, as_list, listed, vector_checksum
from twinrank.types import Keys, Vectors

MISSING_VECTORS = """FROM passages p WHERE p.key > ?
    AND NOT EXISTS (SELECT 1 FROM vectors v WHERE v.passage = p.key AND v.view = ?)"""
PASSAGES_WITHOUT_VECTOR = f'SELECT p.key, p.document, p.number, p.start, p."end" {MISSING_VECTORS} ORDER BY p.key LIMIT ?'


class Views(Documents):
    """What is kept of models' vectors."""

    def add_view(
        self, name: str, *, model: str, fingerprint: str, dimension: int, settings: Mapping[str, Any] | None = None
    ) -> View:
        """Make room for a model's vectors; complete at once where there are no passages yet.

        A view of that name is kept where its fingerprint and dimension are the same; otherwise raises ModelMismatchError.
        """
        with self._writing() as connection:
            known = read_views(connection).get(name)
            if known is None:
                complete = connection.execute("SELECT NOT EXISTS (SELECT 1 FROM passages)").fetchone()[0]
                connection.execute(
                    "INSERT INTO views(name, model, fingerprint, dimension, settings, complete) VALUES (?, ?, ?, ?, ?, ?)",
                    (name, model, fingerprint, dimension, json.dumps(dict(settings or {})), complete),
                )
                known = read_views(connection)[name]
        if (known.fingerprint, known.dimension) != (fingerprint, dimension):
            raise ModelMismatchError(
                f"view {name!r} of {self.folder} was made by {known.model} ({known.fingerprint}, {known.dimension} dimensions)"
                f", not by {model} ({fingerprint}, {dimension} dimensions)"
            )
        return known

    def views(self) -> dict[str, View]:
        with self._reading() as connection:
            return read_views(connection)

    def _view(self, name: str) -> View:
        views = self.views()
        if name not in views:
            raise CollectionError(f"{self.folder} has no view {name!r}; it has {listed(views)}")
        return views[name]

    def complete_view(self, name: str) -> None:
        """Declare that every passage has a vector in this view; raises CollectionError where one lacks."""
        with self._writing() as connection:
            view = self._view(name)
            missing = connection.execute(f"SELECT count(*) {MISSING_VECTORS}", (0, view.key)).fetchone()[0]
            if missing:
                raise CollectionError(
                    f"view {name!r} is not complete: {missing} passages have no vector yet; encode them first"
                )
            connection.execute("UPDATE views SET complete = 1 WHERE key = ?", (view.key,))

    def drop_view(self, name: str) -> None:
        """Forget a view and its vectors."""
        with self._writing() as connection:
            view = self._view(name)
            connection.execute("DELETE FROM vectors WHERE view = ?", (view.key,))
            connection.execute("DELETE FROM views WHERE key = ?", (view.key,))

    def passages_without_vectors(self, view: str, *, batch: int = 256) -> Iterator[tuple[Keys, list[str]]]:
        """The passages that are still to be encoded for `view`, in batches: (keys (n,), titled texts)."""
        yield from self._batches_of_passages(PASSAGES_WITHOUT_VECTOR, (self._view(view).key,), batch)

    def iterate_vectors(self, view: str, *, batch: int = 4096) -> Iterator[tuple[Keys, Vectors]]:
        """All vectors of a view by passage key, in batches: (keys (n,), vectors (n, dimension))."""
        known = self._view(view)
        query = "SELECT passage, vector FROM vectors WHERE passage > ? AND view = ? ORDER BY passage LIMIT ?"
        last = 0
        while True:
            with self._reading() as connection:
                rows = connection.execute(query, (last, known.key, batch)).fetchall()
            if not rows:
                return
            last = rows[-1][0]
            yield np.array([key for key, _ in rows], dtype=np.int64), self._stack([blob for _, blob in rows], known)

    def vectors(self, view: str, keys: npt.ArrayLike) -> Vectors:
        """The vectors of `keys` (n, dimension), in that order; raises InputError where one has none."""
        known = self._view(view)
        query = (
            "SELECT v.passage, v.vector FROM json_each(?) AS wanted JOIN vectors v ON v.passage = wanted.value AND v.view = ?"
        )
        with self._reading() as connection:
            found = dict(connection.execute(query, (as_json(keys), known.key)).fetchall())
        wanted = as_list(keys)
        missing = [key for key in wanted if key not in found]
        if missing:
            raise InputError(f"passage {missing[0]} has no vector in view {view!r} ({len(missing)} of {len(wanted)} have none)")
        return self._stack([found[key] for key in wanted], known)

    def _stack(self, blobs: Sequence[bytes], view: View) -> Vectors:
        if any(len(blob) != 4 * view.dimension for blob in blobs):
            raise StorageError(f"{self.path} is damaged: a vector of view {view.name!r} is not of {view.dimension} dimensions")
        return np.frombuffer(b"".join(blobs), dtype="<f4").astype(np.float32).reshape(len(blobs), view.dimension)

    def set_vectors(self, view: str, keys: npt.ArrayLike, vectors: Vectors, dropped: npt.ArrayLike | None = None) -> None:
        """Put vectors (n, dimension) into a view, in one transaction; passages deleted meanwhile are passed over.

        In a complete view, which is being searched, each counts as a change.
        """
        wanted = as_list(keys)
        counts = [0] * len(wanted) if dropped is None else as_list(dropped)
        with self._writing() as connection:
            known = self._view(view)
            if len(wanted) != len(vectors):
                raise InputError(f"{len(wanted)} keys came with {len(vectors)} vectors")
            blobs = vector_blobs(known, vectors, [f"passage {key}" for key in wanted])
            # Within the transaction nobody deletes, and the dead are passed over.
            query = "SELECT p.key FROM json_each(?) AS wanted JOIN passages p ON p.key = wanted.value"
            alive = {key for (key,) in connection.execute(query, (as_json(keys),))}
            rows = [
                (key, known.key, count, vector_checksum(key, blob, count), blob)
                for key, count, blob in zip(wanted, counts, blobs, strict=True)
                if key in alive
            ]
            connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?, ?)", rows)
            if known.complete:
                connection.executemany("INSERT INTO changes(passage, kind) VALUES (?, 'add')", [(row[0],) for row in rows])

    def truncation(self, view: str) -> tuple[int, int]:
        """How many passages were too long for the view's model, and how many tokens were left out: (passages, tokens)."""
        query = "SELECT count(*), coalesce(sum(dropped), 0) FROM vectors WHERE view = ? AND dropped > 0"
        known = self._view(view)
        with self._reading() as connection:
            passages, tokens = connection.execute(query, (known.key,)).fetchone()
        return passages, tokens


def vector_blobs(view: View, vectors: Sequence[npt.NDArray[np.float32]] | Vectors, owners: Sequence[str]) -> list[bytes]:
    """Vectors as they are stored, after looking at each."""
    for owner, vector in zip(owners, vectors, strict=True):
        if np.shape(vector) != (view.dimension,):
            raise InputError(
                f"{owner} came with a vector of shape {np.shape(vector)}; view {view.name!r} holds ({view.dimension},)"
            )
    matrix = np.ascontiguousarray(vectors, dtype="<f4").reshape(len(owners), view.dimension)
    finite = np.isfinite(matrix).all(axis=1)  # (vectors,)
    if not finite.all():
        raise InputError(
            f"{owners[int(np.argmin(finite))]} came with a vector that holds NaN or infinity, for view {view.name!r}"
        )
    zero = ~matrix.any(axis=1)
    if zero.any():
        raise InputError(
            f"{owners[int(np.argmax(zero))]} came with a vector of zeros, for view {view.name!r}; it has no direction"
        )
    return [row.tobytes() for row in matrix]


def read_views(connection: sqlite3.Connection) -> dict[str, View]:
    rows = connection.execute("SELECT name, model, fingerprint, dimension, settings, complete, key FROM views ORDER BY key")
    return {row[0]: View(row[0], row[1], row[2], row[3], json.loads(row[4]), bool(row[5]), row[6]) for row in rows}
