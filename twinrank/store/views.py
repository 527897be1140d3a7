"""Views: whose vectors are kept, whether every passage has one, and the vectors themselves."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from twinrank.errors import CollectionError, InputError, ModelMismatchError, StorageError
from twinrank.quantization import PackedTokens, TokenCodec
from twinrank.store.database import add_changes
from twinrank.store.documents import Documents
from twinrank.store.records import View, ViewKind
from twinrank.store.rows import Row, as_list, checksum, last_keys, listed, set_value, verify
from twinrank.types import Keys, Vectors

TABLES: Mapping[ViewKind, str] = {"vector": "vectors", "tokens": "tokens"}


class Views(Documents):
    """What is kept of models' vectors."""

    def add_view(
        self,
        name: str,
        *,
        model: str,
        fingerprint: str,
        dimension: int,
        kind: ViewKind = "vector",
        settings: Mapping[str, Any] | None = None,
        complete: bool = True,
    ) -> View:
        """Make room for a model's vectors; complete at once where there are no passages yet, if `complete` allows.

        A view of tokens says in its `settings` how they are stored: `{"format": "int8", …}`. A view of that name is kept where
        its fingerprint, dimension and, of tokens, settings are the same; otherwise raises ModelMismatchError.
        """
        given = json.loads(json.dumps(dict(settings or {})))
        if kind == "tokens":
            TokenCodec(given.get("format", ""), dimension)  # refuses an unknown format
        with self._writing() as connection:
            known = read_views(connection).get(name)
            if known is None:
                empty = connection.execute("SELECT NOT EXISTS (SELECT 1 FROM passages)").fetchone()[0]
                key = last_keys(connection)["views"] + 1
                row = (key, name, kind, model, fingerprint, dimension, json.dumps(given), int(empty and complete))
                connection.execute("INSERT INTO views VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (*row, checksum(*row)))
                known = read_views(connection)[name]
        if (known.kind, known.fingerprint, known.dimension) != (kind, fingerprint, dimension):
            raise ModelMismatchError(
                f"view {name!r} of {self.folder} was made by {known.model} ({known.fingerprint}, {known.dimension} dimensions)"
                f", not by {model} ({fingerprint}, {dimension} dimensions)"
                + ("" if known.kind == kind else f"; it is a view of kind {known.kind!r}, not {kind!r}")
            )
        if kind == "tokens" and known.settings != given:
            raise ModelMismatchError(
                f"view {name!r} of {self.folder} keeps its tokens by {dict(known.settings)}, not by {given}; "
                "drop the view and encode anew"
            )
        return known

    def views(self) -> dict[str, View]:
        with self._reading() as connection:
            return read_views(connection)

    def _view(self, name: str, kind: ViewKind | None = None) -> View:
        views = self.views()
        if name not in views:
            raise CollectionError(f"{self.folder} has no view {name!r}; it has {listed(views)}")
        if kind not in (None, views[name].kind):
            raise CollectionError(f"view {name!r} of {self.folder} is of kind {views[name].kind!r}, not {kind!r}")
        return views[name]

    def complete_view(self, name: str) -> None:
        """Declare that every passage has a vector in this view; raises CollectionError where one lacks."""
        with self._writing() as connection:
            _complete(connection, self._view(name), name)

    def drop_view(self, name: str) -> None:
        """Forget a view and its vectors."""
        with self._writing() as connection:
            _drop(connection, self._view(name))

    def replace_views(self, successors: Mapping[str, str], dropped: Iterable[str], meta: Mapping[str, str]) -> None:
        """Put views in the place of others (name → successor) and drop some, in one transaction with entries of `meta`.

        Raises CollectionError where a successor lacks a passage's vector; nothing has changed then.
        """
        with self._writing() as connection:
            known = read_views(connection)
            for name in {*successors, *dropped} & set(known):
                _drop(connection, known[name])
            for name, successor in successors.items():
                _complete(connection, known[successor], name)
            for key, value in meta.items():
                set_value(connection, key, value)

    def passages_without_vectors(self, view: str, *, batch: int = 256) -> Iterator[tuple[Keys, list[str]]]:
        """The passages that are still to be encoded for `view`, in batches: (keys (n,), titled texts)."""
        known = self._view(view)
        query = f"SELECT p.* {missing_vectors(known)} ORDER BY p.key LIMIT ?"
        yield from self._batches_of_passages(query, (known.key,), batch)

    def iterate_vectors(self, view: str, *, batch: int = 4096) -> Iterator[tuple[Keys, Vectors]]:
        """All vectors of a view by passage key, in batches: (keys (n,), vectors (n, dimension))."""
        known = self._view(view, "vector")
        for keys, blobs in self._batches_of_blobs(known, batch):
            yield keys, self._stack(blobs, known)

    def iterate_tokens(self, view: str, *, batch: int = 256) -> Iterator[tuple[Keys, PackedTokens]]:
        """All token vectors of a view by passage key, in batches, as they are stored: (keys (n,), tokens of n passages)."""
        known = self._view(view, "tokens")
        for keys, blobs in self._batches_of_blobs(known, batch):
            yield keys, self._unpack(blobs, known)

    def _batches_of_blobs(self, view: View, batch: int) -> Iterator[tuple[Keys, list[bytes]]]:
        query = f"SELECT * FROM {TABLES[view.kind]} WHERE passage > ? AND view = ? ORDER BY passage LIMIT ?"
        last = 0
        while True:
            with self._reading() as connection:
                rows = connection.execute(query, (last, view.key, batch)).fetchall()
            if not rows:
                return
            blobs = self._verified(rows)
            last = rows[-1][0]
            yield np.array(list(blobs), dtype=np.int64), list(blobs.values())

    def _verified(self, rows: Iterable[Row]) -> dict[int, bytes]:
        """Rows of vectors or tokens → passage key → what is stored of it."""
        found = {}
        for passage, view, dropped, given, blob in rows:
            verify(given, f"{self.path}: what view {view} keeps of passage {passage}", passage, view, dropped, blob)
            found[passage] = blob
        return found

    def vectors(self, view: str, keys: npt.ArrayLike) -> Vectors:
        """The vectors of `keys` (n, dimension), in that order; raises InputError where one has none."""
        known = self._view(view, "vector")
        return self._stack(self._blobs(known, as_list(keys)), known)

    def tokens(self, view: str, keys: npt.ArrayLike) -> PackedTokens:
        """The token vectors of `keys`, in that order, as they are stored; raises InputError where one has none."""
        known = self._view(view, "tokens")
        return self._unpack(self._blobs(known, as_list(keys)), known)

    def tokens_there(self, view: str, keys: npt.ArrayLike) -> tuple[npt.NDArray[np.bool_], PackedTokens]:
        """Which of `keys` (n,) have tokens, for a search beside deletions, and those of these, in that order."""
        known, wanted = self._view(view, "tokens"), as_list(keys)
        found = self._found_blobs(known, wanted)
        return np.array([key in found for key in wanted], np.bool_), self._unpack(
            [found[key] for key in wanted if key in found], known
        )

    def _blobs(self, view: View, keys: list[int]) -> list[bytes]:
        found = self._found_blobs(view, keys)
        missing = [key for key in keys if key not in found]
        if missing:
            raise InputError(
                f"passage {missing[0]} has no vector in view {view.name!r} ({len(missing)} of {len(keys)} have none)"
            )
        return [found[key] for key in keys]

    def _found_blobs(self, view: View, keys: list[int]) -> dict[int, bytes]:
        query = f"SELECT v.* FROM json_each(?) AS wanted JOIN {TABLES[view.kind]} v ON v.passage = wanted.value AND v.view = ?"
        with self._reading() as connection:
            return self._verified(connection.execute(query, (json.dumps(keys), view.key)))

    def _stack(self, blobs: Sequence[bytes], view: View) -> Vectors:
        if any(len(blob) != 4 * view.dimension for blob in blobs):
            raise StorageError(f"{self.path} is damaged: a vector of view {view.name!r} is not of {view.dimension} dimensions")
        return np.frombuffer(b"".join(blobs), dtype="<f4").astype(np.float32).reshape(len(blobs), view.dimension)

    def _unpack(self, blobs: Sequence[bytes], view: View) -> PackedTokens:
        try:
            return view.codec.unpack(blobs)
        except InputError as error:
            raise StorageError(f"{self.path} is damaged: the tokens of a passage in view {view.name!r}: {error}") from error

    def set_vectors(self, view: str, keys: npt.ArrayLike, vectors: Vectors, dropped: npt.ArrayLike | None = None) -> None:
        """Put vectors (n, dimension) into a view, in one transaction; passages deleted meanwhile are passed over.

        In a complete view, which is being searched, each counts as a change.
        """
        self._set(self._view(view, "vector"), as_list(keys), vectors, dropped)

    def set_tokens(
        self, view: str, keys: npt.ArrayLike, tokens: Sequence[Vectors], dropped: npt.ArrayLike | None = None
    ) -> None:
        """As `set_vectors`, with the token vectors (tokens, dimension) of each passage; they are quantised here."""
        self._set(self._view(view, "tokens"), as_list(keys), tokens, dropped)

    def _set(self, view: View, keys: list[int], vectors: Sequence[Vectors] | Vectors, dropped: npt.ArrayLike | None) -> None:
        counts = [0] * len(keys) if dropped is None else as_list(dropped)
        if len(keys) != len(vectors):
            raise InputError(f"{len(keys)} keys came with {len(vectors)} vectors")
        blobs = view_blobs(view, vectors, [f"passage {key}" for key in keys])
        with self._writing() as connection:
            known = self._view(view.name, view.kind)
            # Within the transaction nobody deletes, and the dead are passed over.
            query = "SELECT p.key FROM json_each(?) AS wanted JOIN passages p ON p.key = wanted.value"
            alive = {key for (key,) in connection.execute(query, (json.dumps(keys),))}
            rows = [
                vector_row(key, known, count, blob)
                for key, count, blob in zip(keys, counts, blobs, strict=True)
                if key in alive
            ]
            connection.executemany(f"INSERT OR REPLACE INTO {TABLES[view.kind]} VALUES (?, ?, ?, ?, ?)", rows)
            if known.complete:
                add_changes(connection, ((row[0], "add") for row in rows))

    def truncation(self, view: str) -> tuple[int, int]:
        """How many passages were too long for the view's model, and how many tokens were left out: (passages, tokens)."""
        known = self._view(view)
        query = f"SELECT count(*), coalesce(sum(dropped), 0) FROM {TABLES[known.kind]} WHERE view = ? AND dropped > 0"
        with self._reading() as connection:
            passages, tokens = connection.execute(query, (known.key,)).fetchone()
        return passages, tokens


def vector_row(passage: int, view: View, dropped: int, blob: bytes) -> Row:
    return passage, view.key, dropped, checksum(passage, view.key, dropped, blob), blob


def _complete(connection: sqlite3.Connection, view: View, name: str) -> None:
    """Declare a view complete, from now on under this name."""
    missing = connection.execute(f"SELECT count(*) {missing_vectors(view)}", (0, view.key)).fetchone()[0]
    if missing:
        raise CollectionError(f"view {view.name!r} is not complete: {missing} passages have no vector yet; encode them first")
    key, _, *rest, _, _ = connection.execute("SELECT * FROM views WHERE key = ?", (view.key,)).fetchone()
    given = checksum(key, name, *rest, 1)
    connection.execute("UPDATE views SET name = ?, complete = 1, checksum = ? WHERE key = ?", (name, given, key))


def _drop(connection: sqlite3.Connection, view: View) -> None:
    connection.execute(f"DELETE FROM {TABLES[view.kind]} WHERE view = ?", (view.key,))
    connection.execute("DELETE FROM views WHERE key = ?", (view.key,))


def missing_vectors(view: View) -> str:
    """The passages after a key that have nothing in the view yet; asks for the two keys."""
    return (
        f"FROM passages p WHERE p.key > ? AND NOT EXISTS"
        f" (SELECT 1 FROM {TABLES[view.kind]} v WHERE v.passage = p.key AND v.view = ?)"
    )


def read_vectors(
    connection: sqlite3.Connection, view: View, keys: Sequence[int]
) -> dict[int, tuple[npt.NDArray[np.float32] | bytes, int]]:
    """Passage → what a view keeps of it, as `write` takes it, and how many tokens were dropped."""
    query = f"SELECT v.* FROM json_each(?) AS wanted JOIN {TABLES[view.kind]} v ON v.passage = wanted.value AND v.view = ?"
    found: dict[int, tuple[npt.NDArray[np.float32] | bytes, int]] = {}
    for passage, of, dropped, given, blob in connection.execute(query, (json.dumps(list(keys)), view.key)):
        verify(given, f"what view {of} keeps of passage {passage}", passage, of, dropped, blob)
        found[passage] = (blob if view.kind == "tokens" else np.frombuffer(blob, "<f4"), dropped)
    return found


def view_blobs(view: View, vectors: Sequence[npt.NDArray[np.float32] | bytes] | Vectors, owners: Sequence[str]) -> list[bytes]:
    """Vectors as they are stored, after looking at each; tokens may come as they are stored already."""
    for owner, vector in zip(owners, vectors, strict=True):
        _check_vector(view, vector, owner)
    if view.kind == "tokens":
        return [vector if isinstance(vector, bytes) else view.codec.encode(vector) for vector in vectors]
    return [np.ascontiguousarray(vector, dtype="<f4").tobytes() for vector in vectors]


def _check_vector(view: View, vector: npt.NDArray[np.float32] | bytes, owner: str) -> None:
    came = f"{owner} came with a vector"
    if isinstance(vector, bytes):
        if view.kind != "tokens":
            raise InputError(f"{came} as bytes; view {view.name!r} takes ({view.dimension},)")
        view.codec.count(vector)
        return
    shape = np.shape(vector)
    if view.kind == "vector" and shape != (view.dimension,):
        raise InputError(f"{came} of shape {shape}; view {view.name!r} holds ({view.dimension},)")
    if view.kind == "tokens" and (len(shape) != 2 or shape[1] != view.dimension or not shape[0]):
        raise InputError(
            f"{owner} came with token vectors of shape {shape}; view {view.name!r} holds (tokens, {view.dimension}), "
            "one token at least"
        )
    if not np.isfinite(vector).all():
        raise InputError(f"{came} that holds NaN or infinity, for view {view.name!r}")
    if not np.any(vector, axis=-1).all():
        raise InputError(f"{came} of zeros, for view {view.name!r}; it has no direction")


def read_views(connection: sqlite3.Connection) -> dict[str, View]:
    views = {}
    for *row, given in connection.execute("SELECT * FROM views ORDER BY key"):
        key, name, kind, model, fingerprint, dimension, settings, complete = row
        verify(given, f"view {name!r}", *row)
        views[name] = View(name, kind, model, fingerprint, dimension, json.loads(settings), bool(complete), key)
    return views
