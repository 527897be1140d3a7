"""The few documents that many tests of a collection begin with."""

from __future__ import annotations

from collections.abc import Callable

from twinrank import Collection

Making = Callable[..., Collection]

NOTES = [
    {"id": "zinc", "title": "Zinc", "text": "Zinc lozenges may shorten a common cold by a day.", "year": 2021, "lang": "en"},
    {"id": "honey", "title": "Honey", "text": "Honey eases a cough at night.", "year": 2012, "lang": "en"},
    {"id": "miel", "title": "Miel", "text": "Le miel calme la toux.", "year": 2018, "lang": "fr"},
    {"id": "rest", "text": "Rest and water help against most things, a cold among them."},
]


def state(collection: Collection) -> object:
    """All that a collection holds: equal before and after something was refused."""
    ids = sorted(collection.store.document_ids())
    return [collection.get(ids), collection.store.sequence()]
