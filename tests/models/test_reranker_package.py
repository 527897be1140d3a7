"""Our own reranker, as the repository holds it: found by its name where its package is installed, and of use."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from twinrank import CrossEncoder
from twinrank.errors import ModelNotFoundError
from twinrank.models import hub
from twinrank.recipe import BUILT_IN

PACKAGE = Path(__file__).resolve().parents[2] / "packages" / "twinrank-reranker-en"
QUESTION = "Who wrote the play Hamlet?"
PASSAGES = [
    "Hamlet is a tragedy that William Shakespeare wrote between 1599 and 1601.",
    "A hamlet is a small settlement, smaller than a village.",
    "Copenhagen is the capital of Denmark.",
]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.syspath_prepend(str(PACKAGE))


def test_it_is_found_by_its_name_and_is_what_was_shipped(installed: None) -> None:
    found = hub.find_folder(hub.RERANKER)
    assert found == hub.Found(hub.RERANKER, PACKAGE / hub.RERANKER_PACKAGE / "model", hub.RERANKER_SHA256)
    assert hub.file_hash(found.folder / "model.safetensors") == hub.RERANKER_SHA256
    assert hub.RERANKER_PACKAGE not in sys.modules


def test_it_puts_what_answers_before_what_shares_words(installed: None) -> None:
    scores = CrossEncoder(hub.RERANKER).score([(QUESTION, passage) for passage in PASSAGES])
    assert np.argsort(-scores).tolist()[0] == 0
    assert scores[0] - scores[1:].max() > 0.5


def test_where_it_is_not_installed_the_message_says_how(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "RERANKER_PACKAGE", "nowhere_to_be_found")
    with pytest.raises(ModelNotFoundError, match=r"pip install \./packages/twinrank-reranker-en"):
        CrossEncoder(hub.RERANKER)


def test_a_built_in_recipe_reranks_by_it() -> None:
    stage = BUILT_IN["reranked"].rerank[0]
    assert (stage.model, stage.mix) == (hub.RERANKER, 0.5)
