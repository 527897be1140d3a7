"""What the adapters' tests share: a collection of notes, one that was calibrated, and small models of each kind."""

from __future__ import annotations

import os

import pytest

from twinrank import BiEncoder, Collection, CrossEncoder

# Asked of the libraries themselves, before they are imported: no test speaks to anybody.
os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")
os.environ.setdefault("LANGSMITH_TRACING", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")

DOCUMENTS = [
    {
        "id": "zinc",
        "title": "Zinc",
        "text": "Zinc lozenges may shorten a common cold.",
        "year": 2021,
        "tags": ["cold", "mineral"],
    },
    {
        "id": "honey",
        "title": "Honey",
        "text": "A spoon of honey eases a cough at night, and a cold.",
        "year": 2012,
        "lang": "en",
    },
    {
        "id": "rest",
        "title": "Rest",
        "text": "Sleep helps against most infections, a cold among them.",
        "year": 2018,
        "rank": "high",
    },
    {"id": "o'hara", "title": "O'Hara's tea", "text": "Tea with lemon against a cold.", "lang": "ga", "tags": ["cold"]},
]
QUERY = "what helps against a cold?"


@pytest.fixture
def remedies(make: object) -> Collection:
    """Four documents with fields, searched by words."""
    collection: Collection = make("remedies")  # type: ignore[operator]
    collection.add(DOCUMENTS)
    return collection


@pytest.fixture(scope="session")
def encoder(tiny_model: os.PathLike[str]) -> BiEncoder:
    return BiEncoder(tiny_model)


@pytest.fixture(scope="session")
def scorer(tiny_cross_encoder: os.PathLike[str]) -> CrossEncoder:
    return CrossEncoder(tiny_cross_encoder)
