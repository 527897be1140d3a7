"""A collection's durable half in an engine: documents as rows, views and recipe as its meta.

An engine has no transactions over a collection, so that everything here can be done twice: rows have keys that follow from
what they hold, new versions come before old ones go, and what was interrupted is completed by doing it again.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from twinrank.conditions import compared_with_null, fields_in, kind_of, meets, values_of
from twinrank.errors import CollectionError, FilterError, InputError, ModelMismatchError, StorageError
from twinrank.index.engines import Engine, Row
from twinrank.places.enginecheck import left_behind, problems
from twinrank.places.enginerows import check_limits, written
from twinrank.places.rows import (
    BUILT_IN,
    LONGEST,
    Known,
    by_document,
    document_key,
    document_of,
    is_long,
    is_whole,
    key_of,
    prepared_of,
    with_salt,
)
from twinrank.quantization import PackedTokens
from twinrank.store import DocumentInfo, FieldSummary, FieldValues, PreparedDocument, View, ViewKind
from twinrank.text import Analyzer
from twinrank.types import Condition, Document, IsNull, Keys, Not, Passage, Value, Vectors

SEEN_WITHIN = 5.0
"""Seconds after which what others changed in the meta, or how many rows there are, is looked at again."""

AT_ONCE = 1000
"""Documents or rows asked for at a time."""

REMEMBERED = 20_000
"""Rows that one search remembers at most."""

VIEWS = "views"
FIELDS = "fields"
LONG = "long"
"""Among a field's kinds in that table: a document holds, or held, a long value of it."""

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Selection:
    """A condition on its way through a pipeline to the engine, where a folder's search has the keys that meet it."""

    condition: Condition


class EngineStore:
    """Documents, passages, fields and views of a collection in an engine; used as `Store` is."""

    def __init__(self, engine: Engine, where: str) -> None:
        self.engine = engine
        self.folder = where
        self._lock = threading.RLock()
        self._written = 0
        self._kept: dict[str, tuple[float, Any]] = {}
        """What was asked a moment ago: name → when, what."""
        self._thread = threading.local()

    analyzer: Analyzer
    """What makes a passage's terms; set by whoever opens it, before anything is written."""

    @property
    def writable(self) -> bool:
        return True

    def close(self) -> None:
        self.engine.close()

    # -- what is remembered ------------------------------------------------------------------------------------------------

    def look_again(self) -> None:
        """Forget the rows that this thread's last search fetched."""
        self._thread.rows = {}

    def _lately(self, name: str, ask: Callable[[], T]) -> T:
        """What was asked for within the last seconds, or is asked for now."""
        now, written = time.monotonic(), self._written
        found = self._kept.get(name)
        if found is None or now - found[0] > SEEN_WITHIN:
            found = now, ask()
            if written == self._written:  # else another thread wrote while the engine was asked
                self._kept[name] = found
        return cast(T, found[1])

    def _changed(self) -> None:
        with self._lock:
            self._written += 1
            self._kept.pop("passages", None)
            self._kept.pop("documents", None)
        self.look_again()
        self._thread.versions = None

    # -- meta --------------------------------------------------------------------------------------------------------------

    def get_meta(self, key: str) -> str | None:
        return self._lately(f"meta {key}", lambda: self.engine.get_meta(key))

    def set_meta(self, key: str, value: str) -> None:
        self._look_anew(key)
        if self.get_meta(key) != value:
            self.engine.set_meta(key, value)
            self._kept[f"meta {key}"] = time.monotonic(), value

    def _look_anew(self, key: str) -> None:
        """Forget an entry of the meta: what is about to be decided must not go by what was there seconds ago."""
        self._kept.pop(f"meta {key}", None)

    def _table(self, name: str) -> dict[str, Any]:
        try:
            told = json.loads(self.get_meta(name) or "{}")
            assert isinstance(told, dict)
        except (ValueError, AssertionError) as error:
            raise StorageError(
                f"{self.folder}: the entry {name!r} of its meta cannot be read; who else writes there?"
            ) from error
        return told

    # -- views -------------------------------------------------------------------------------------------------------------

    def views(self) -> dict[str, View]:
        return {name: View(name=name, key=0, **told) for name, told in self._table(VIEWS).items()}

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
        if (known := self.views().get(name)) is None:
            self._look_anew(VIEWS)
            known = self.views().get(name)
        if known is None:
            known = View(name, kind, model, fingerprint, dimension, dict(settings or {}), complete, 0)
            told = {part: value for part, value in asdict(known).items() if part not in ("name", "key")}
            self.set_meta(VIEWS, json.dumps(self._table(VIEWS) | {name: told}))
        if (known.kind, known.fingerprint, known.dimension) != (kind, fingerprint, dimension):
            raise ModelMismatchError(
                f"view {name!r} of {self.folder} was made by {known.model} ({known.fingerprint}, {known.dimension} dimensions)"
                f", not by {model} ({fingerprint}, {dimension} dimensions)"
            )
        return known

    def _view(self, name: str) -> View:
        if name not in (views := self.views()):
            raise CollectionError(f"{self.folder} has no view {name!r}; it has {', '.join(views) or 'none'}")
        return views[name]

    def truncation(self, view: str) -> None:
        """Nobody knows without reading every row."""

    # -- reading -----------------------------------------------------------------------------------------------------------

    def count_documents(self) -> int:
        return self._lately("documents", lambda: self.engine.count(documents=True))

    def count_passages(self) -> int:
        return self._lately("passages", self.engine.count)

    def at_most(self, allowed: Keys | None) -> int:
        """What a condition lets through is not counted, which would cost as much as the search."""
        return self.count_passages() if allowed is None or isinstance(allowed, Selection) else len(allowed)

    def sequence(self) -> int:
        """The writes of this object: an engine has no states with numbers."""
        return self._written

    def changed_since(self, sequence: int, passages: int) -> float:
        return abs(self.count_passages() - passages)

    def size(self) -> int:
        return 0

    def free(self) -> int:
        return 0

    def check_structure(self) -> list[str]:
        return []

    def _known(self, keys: npt.ArrayLike) -> dict[int, Known]:
        """Rows by key, those that this thread's search fetched before among them."""
        wanted = np.atleast_1d(np.asarray(keys, np.int64)).tolist()
        held: dict[int, Known] = getattr(self._thread, "rows", {})
        missing = [key for key in dict.fromkeys(wanted) if key not in held]
        if len(held) + len(missing) > REMEMBERED:
            held = {}
            missing = list(dict.fromkeys(wanted))
        for start in range(0, len(missing), AT_ONCE):
            found = self.engine.fetch(np.array(missing[start : start + AT_ONCE], np.int64))
            held |= {key: Known.read(row) for key, row in found.items()}
        self._thread.rows = held
        return {key: held[key] for key in wanted if key in held}

    def meeting(self, condition: Condition, keys: Keys) -> npt.NDArray[np.bool_]:
        """Which of these rows a condition lets through, by their fields."""
        known = self._known(keys)
        return np.array([key in known and meets(condition, known[key].row.fields) for key in keys.tolist()], np.bool_)

    def passages(self, keys: npt.ArrayLike) -> list[Passage]:
        return [known.passage for known in self._known(keys).values()]

    def documents_of(self, keys: npt.ArrayLike) -> Keys:
        known, wanted = self._known(keys), np.atleast_1d(np.asarray(keys, np.int64)).tolist()
        return np.array([document_key(known[key].row.document) if key in known else -1 for key in wanted], np.int64)

    def document_info(self, keys: npt.ArrayLike) -> dict[int, DocumentInfo]:
        known = self._known(keys)
        long = self._long_fields(known.values())
        return {
            key: DocumentInfo(
                document_key(one.row.document),
                one.row.document,
                one.title,
                one.source,
                one.fields | dict(long.get((one.row.document, one.version), {})),
            )
            for key, one in known.items()
        }

    def _long_fields(self, known: Iterable[Known]) -> dict[tuple[str, str], Mapping[str, Value]]:
        """(document, version) → its long fields, where those are in another row; none of a version that has gone."""
        wanted = {(one.row.document, one.version) for one in known if one.row.number and one.long is not None}
        firsts = self._known([key_of(document, version, 0) for document, version in wanted]).values()
        found = {(one.row.document, one.version): one.long or {} for one in firsts if not one.row.number}
        if missing := wanted.difference(found):  # the key was another row's
            for document, versions in self._versions(sorted({document for document, _ in missing})).items():
                found |= {(document, rows[0].version): rows[0].long or {} for rows in versions}
        return found

    def _versions(self, ids: Sequence[str], *, vectors: bool = False) -> dict[str, list[list[Known]]]:
        found: list[Row] = []
        for start in range(0, len(ids), AT_ONCE):
            found += self.engine.rows_of(ids[start : start + AT_ONCE], vectors=vectors)
        return by_document(found)

    def get(self, ids: Sequence[str]) -> list[Document | None]:
        versions = self._versions(list(dict.fromkeys(ids)))
        return [document_of(versions[one][0]) if one in versions and is_whole(versions[one][0]) else None for one in ids]

    def document_ids(self) -> Iterator[str]:
        return (identity for identity, _ in self.sources())

    def sources(self) -> Iterator[tuple[str, str]]:
        """In no order; each once, however many versions an interrupted update left."""
        seen: set[str] = set()
        for batch in self.engine.iterate(documents=True):
            for row in batch:
                if row.document not in seen:
                    seen.add(row.document)
                    yield row.document, str(row.fields.get("source", ""))

    def prepared(self, ids: Sequence[str]) -> list[PreparedDocument]:
        """Those of these documents that are there, with all that `write` needs to have them again elsewhere."""
        views = list(self.views().values())
        versions = self._versions(list(dict.fromkeys(ids)), vectors=True).values()
        return [prepared_of(rows, views) for rows, *_ in versions if is_whole(rows)]

    def iterate_passages(self, *, batch: int = 256) -> Iterator[tuple[Keys, list[str]]]:
        for rows in self.engine.iterate():
            known = [Known.read(row) for row in rows]
            yield np.array([row.key for row in rows], np.int64), [one.passage.titled_text for one in known]

    def vectors(self, view: str, keys: npt.ArrayLike) -> Vectors:
        known, wanted = self._view(view), np.atleast_1d(np.asarray(keys, np.int64))
        found = self.engine.fetch(wanted, vectors=True)
        vectors = [found[key].vector for key in wanted.tolist() if key in found]
        there = [vector for vector in vectors if vector is not None]
        if len(there) != len(wanted):
            raise InputError(f"{len(wanted) - len(there)} of {len(wanted)} passages have no vector in view {view!r}")
        return np.stack(there) if there else np.empty((0, known.dimension), np.float32)

    def iterate_vectors(self, view: str, *, batch: int = 4096) -> Iterator[tuple[Keys, Vectors]]:
        self._view(view)
        for rows in self.engine.iterate(vectors=True):
            there = [(row.key, row.vector) for row in rows if row.vector is not None]
            if there:
                yield np.array([key for key, _ in there], np.int64), np.stack([vector for _, vector in there])

    def tokens(self, view: str, keys: npt.ArrayLike) -> PackedTokens:
        codec, known = self._view(view).codec, self._known(keys)
        wanted = np.atleast_1d(np.asarray(keys, np.int64)).tolist()
        if missing := [key for key in wanted if key not in known]:
            raise InputError(f"passage {missing[0]} has no tokens in view {view!r} ({len(missing)} of {len(wanted)} have none)")
        return PackedTokens.join([known[key].packed(codec) for key in wanted])

    def tokens_there(self, view: str, keys: npt.ArrayLike) -> tuple[npt.NDArray[np.bool_], PackedTokens]:
        codec, known = self._view(view).codec, self._known(keys)
        wanted = np.atleast_1d(np.asarray(keys, np.int64)).tolist()
        there = [key for key in wanted if key in known and known[key].tokens]
        packed = PackedTokens.join([known[key].packed(codec) for key in there]) if there else codec.unpack([])
        return np.isin(wanted, there), packed

    def iterate_tokens(self, view: str, *, batch: int = 256) -> Iterator[tuple[Keys, PackedTokens]]:
        codec = self._view(view).codec
        for rows in self.engine.iterate():
            there = [one for one in map(Known.read, rows) if one.tokens]
            if there:
                packed = PackedTokens.join([one.packed(codec) for one in there])
                yield np.array([one.row.key for one in there], np.int64), packed

    # -- fields ------------------------------------------------------------------------------------------------------------

    def passing(self, condition: Condition) -> Keys:
        self._check(condition)
        return cast(Keys, Selection(condition))

    def select(self, condition: Condition) -> Keys:
        self._check(condition)
        exact = self.engine.exact(condition)
        keys = [row.key for rows in self.engine.iterate(condition) for row in rows if exact or meets(condition, row.fields)]
        return np.sort(np.array(keys, np.int64))

    def _check(self, condition: Condition) -> None:
        known = [*self._table(FIELDS), *BUILT_IN]
        if not set(fields_in(condition)) <= set(known):  # others may have brought it a moment ago
            self._look_anew(FIELDS)
            known = [*self._table(FIELDS), *BUILT_IN]
        for name in fields_in(condition):
            if name not in known and self.count_documents() and not self._has_field(name):
                raise FilterError(f"no document has a field {name!r}; known fields: {', '.join(known)}")
        for name in fields_in(condition):
            if LONG in self._table(FIELDS).get(name, ()):
                raise FilterError(
                    f"{self.folder} has, or had, a text of over {LONGEST:,} characters in the field {name!r}, and conditions "
                    "are not over such fields; keep a short field beside it to filter by, or shorten its texts, add the "
                    "documents again, and run twinrank rebuild while nobody writes"
                )
        for name in compared_with_null(condition):
            raise FilterError(f"{name} is compared with null, which nothing equals; write `{name} is null` or `is not null`")

    def _has_field(self, name: str) -> bool:
        """Asked of the rows themselves: where two writers note their fields at once, the table may lack one's."""
        held = Not(IsNull(name))
        return self.engine.exact(held) and self.engine.count(held) > 0

    def field_summary(self) -> dict[str, FieldSummary]:
        """Counted by the engine, a field at a time; where a field has values of several types, each stands for all."""
        found = {}
        for name, kinds in self._table(FIELDS).items():
            if LONG in kinds:
                found[name] = FieldSummary({}, 0, long=True)
                continue
            count = self.engine.count(Not(IsNull(name)), documents=True) if self.engine.exact(IsNull(name)) else 0
            found[name] = FieldSummary(dict.fromkeys(kinds, count), count)
        return found

    def field_values(self, most: int = 20) -> dict[str, list[FieldValues]]:
        """None: an engine would have to read every document for them."""
        return {}

    def _note_fields(self, documents: Iterable[Document]) -> None:
        known = self._table(FIELDS)
        before = json.dumps(known, sort_keys=True)
        for document in documents:
            for name, value in document.fields.items():
                kinds: set[str] = {kind_of(one) for one in values_of(value)} or {"null"}
                kinds |= {LONG} if is_long(value) and name not in BUILT_IN else set()
                known[name] = sorted({*known.get(name, ()), *kinds})
        if json.dumps(known, sort_keys=True) != before:
            self._look_anew(FIELDS)  # what other writers noted meanwhile stays
            for name, noted in self._table(FIELDS).items():
                known[name] = sorted({*known.get(name, ()), *noted})
            self.set_meta(FIELDS, json.dumps(known, sort_keys=True))

    def _note_long(self, names: set[str]) -> None:
        """Note that these fields are long, and no others."""
        self._look_anew(FIELDS)
        known = {name: {*kinds} - {LONG} for name, kinds in self._table(FIELDS).items()}
        for name in names:
            known[name] = known.get(name, {"text"}) | {LONG}
        self.set_meta(FIELDS, json.dumps({name: sorted(kinds) for name, kinds in known.items()}, sort_keys=True))

    # -- writing -----------------------------------------------------------------------------------------------------------

    def known_digests(self, ids: Sequence[str]) -> dict[str, str]:
        """Also remembers, for this thread, what was read: the calls that follow are about the same documents."""
        self._thread.versions = self._versions(ids)
        return {
            identity: versions[0][0].version
            for identity, versions in self._thread.versions.items()
            if is_whole(versions[0]) and len(versions) == 1
        }

    def passage_digests(self, ids: Sequence[str]) -> dict[str, set[str]]:
        return {
            identity: {one.digest for rows in versions for one in rows} for identity, versions in self._read_lately(ids).items()
        }

    def _read_lately(self, ids: Sequence[str]) -> dict[str, list[list[Known]]]:
        read: dict[str, list[list[Known]]] | None = getattr(self._thread, "versions", None)
        return self._versions(ids) if read is None else {identity: read[identity] for identity in ids if identity in read}

    def write(self, prepared: Sequence[PreparedDocument]) -> None:
        """Put documents in, or in the place of those with the same ids; of equal ids the last one counts.

        All rows of the new versions are written before any of an old one goes. Raises DocumentError for what the engine cannot
        take, before anything is written.
        """
        by_id = {one.document.id: one for one in prepared}
        if not by_id:
            return
        with self._lock:
            old = self._versions(list(by_id), vectors=True)
            now = time.time_ns()
            views = self.views()
            rows = [
                row for one in by_id.values() for row in written(one, old.get(one.document.id, ()), now, views, self.analyzer)
            ]
            check_limits(rows, self.engine.limits, self.engine.title)
            rows = self._without_clashes(rows, {one.document.id: one.digest for one in by_id.values()})
            self._note_fields(one.document for one in by_id.values())
            self.engine.upsert(rows)
            new = {row.key for row in rows}
            gone = [
                one.row.key
                for identity, versions in old.items()
                for known in versions
                for one in known
                if one.row.key not in new
            ]
            if gone:
                self.engine.delete(np.array(gone, np.int64))
            self._changed()

    def _without_clashes(self, rows: list[Row], versions: Mapping[str, str]) -> list[Row]:
        """The same rows under keys that no other row has: of a thousand million, some would share one."""
        for salt in range(1, 10):
            there = self.engine.fetch(np.array([row.key for row in rows], np.int64))
            owners = {row.key: (row.document, row.number) for row in there.values()}
            # The first of these rows to have a key that is free owns it.
            clashing = [
                place
                for place, row in enumerate(rows)
                if owners.setdefault(row.key, (row.document, row.number)) != (row.document, row.number)
            ]
            if not clashing:
                return rows
            for place in clashing:
                row = rows[place]
                rows[place] = with_salt(row, versions[row.document], salt)
        raise StorageError(f"{self.folder}: no free key could be found for a row; is the engine answering as it should?")

    def delete(self, ids: Sequence[str]) -> list[str]:
        with self._lock:
            versions = self._versions(list(dict.fromkeys(ids)))
            keys = [one.row.key for rows in versions.values() for known in rows for one in known]
            if keys:
                self.engine.delete(np.array(keys, np.int64))
            self._changed()
        return [identity for identity in dict.fromkeys(ids) if identity in versions]

    # -- checking ----------------------------------------------------------------------------------------------------------

    def check(self) -> list[str]:
        """Read every row: is it ours, is its vector there, is every document there as a whole, once?"""
        return problems(self.engine.iterate(vectors=True), self.views())

    def finish(self) -> int:
        """Remove what interrupted updates left, and note anew which fields are long; how many rows went."""
        gone, long = 0, set()
        ids: list[str] = list(self.document_ids())
        for start in range(0, len(ids), AT_ONCE):
            versions = self._versions(ids[start : start + AT_ONCE]).values()
            keys = {one.row.key for found in versions for one in left_behind(found)}
            stay = (one for found in versions for rows in found for one in rows if one.row.key not in keys)
            long |= {name for one in stay for name in one.long or () if name not in BUILT_IN}
            if keys:
                self.engine.delete(np.array(sorted(keys), np.int64))
                gone += len(keys)
        self._note_long(long)
        self._changed()
        return gone
