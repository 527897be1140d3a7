"""Rows and meta texts as the objects of Weaviate's classes: their properties, their ids, there and back."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np

from twinrank.index.engines.pieces import Record
from twinrank.index.engines.protocol import Row
from twinrank.index.engines.weaviate_language import FIRST_FACT, document_fact, facts_of, folded

SHOWN = ["document", "number", "payload", "fields"]
"""The properties that a row is made of again."""

VECTOR = "default"
"""The name of a row's vector."""

SPACE = uuid.UUID("6f1c29bb-0a36-4b0e-9d86-63a1fc5c0c7b")
"""Of the ids of meta texts."""


def row_properties() -> list[Any]:
    """The properties of a class of rows."""
    from weaviate.classes.config import DataType, Property

    return [
        *(_text(name) for name in ("document", "payload", "fields")),
        Property(name="number", data_type=DataType.INT, index_filterable=False),
        *(_text(name, filterable=True) for name in ("facts", "folded")),
        _text("words", searchable=True),
    ]


def meta_properties() -> list[Any]:
    """The properties of a class of meta texts."""
    return [_text(name) for name in ("name", "record")]


def _text(name: str, *, filterable: bool = False, searchable: bool = False) -> Any:
    """What is filtered is a list of whole texts, what is searched is words with blanks between them."""
    from weaviate.classes.config import DataType, Property, Tokenization

    return Property(
        name=name,
        data_type=DataType.TEXT_ARRAY if filterable else DataType.TEXT,
        tokenization=Tokenization.WHITESPACE if searchable else Tokenization.FIELD,
        index_filterable=filterable,
        index_searchable=searchable,
    )


def object_of(row: Row) -> Any:
    from weaviate.classes.data import DataObject

    first = [FIRST_FACT] if row.number == 0 else []
    properties = {
        "document": row.document,
        "number": row.number,
        "payload": row.payload,
        "fields": json.dumps(dict(row.fields), ensure_ascii=False, separators=(",", ":")),
        "facts": [document_fact(row.document), *first, *facts_of(row.fields)],
        "folded": folded(row.fields),
        "words": spaced(row.terms),
    }
    vector = None if row.vector is None else {VECTOR: np.asarray(row.vector, np.float32).tolist()}
    return DataObject(properties, uuid=id_of(row.key), vector=vector)


def row_of(one: Any, vectors: bool) -> Row:
    told = one.properties
    vector = one.vector.get(VECTOR) if vectors else None
    fields, found = json.loads(told["fields"]), None if not vector else np.array(vector, np.float32)
    return Row(key_of(one), told["document"], int(told["number"]), told["payload"], fields, vector=found)


def bytes_of(one: Any) -> int:
    """Roughly what an object takes on the wire."""
    texts = (text for value in one.properties.values() for text in (value if isinstance(value, list) else [str(value)]))
    return sum(len(text.encode()) + 4 for text in texts) + 4 * len((one.vector or {}).get(VECTOR, ())) + 200


def id_of(key: int) -> str:
    """The id that a row's key is the number of.

    >>> id_of(255)
    '00000000-0000-0000-0000-0000000000ff'
    """
    return str(uuid.UUID(int=key))


def key_of(one: Any) -> int:
    return uuid.UUID(str(one.uuid)).int


def meta_object(name: str, record: Record) -> Any:
    from weaviate.classes.data import DataObject

    return DataObject({"name": name, "record": json.dumps(dict(record), ensure_ascii=False)}, uuid=meta_id(name))


def meta_id(name: str) -> str:
    return str(uuid.uuid5(SPACE, name))


def spaced(terms: Sequence[str]) -> str:
    """Words with a blank between them, which is where Weaviate takes them apart; a blank within one goes.

    >>> spaced(["zinc", "new york"])
    'zinc newyork'
    """
    return " ".join("".join(term.split()) for term in terms)
