"""What the adapters share, by hand and by property: filters mean what they say, nothing of a hit is lost."""

from __future__ import annotations

import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinrank import BiEncoder, Collection, CrossEncoder, Hit, LateInteraction, TwinTower
from twinrank.adapters import common
from twinrank.errors import CollectionError, FilterError, InputError
from twinrank.search.filters import parse
from twinrank.types import Comparison, Membership

TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20).filter(str.strip)
VALUES = TEXTS | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans()


@given(NAMES, st.sampled_from(["=", "<", "<=", ">", ">="]), VALUES)
def test_a_comparison_is_read_back_as_it_was_meant(field: str, operator: str, value: object) -> None:
    assert parse(common.compare(field, operator, value)) == Comparison(field, operator, value)  # type: ignore[arg-type]


@given(NAMES, st.lists(VALUES, min_size=1, max_size=5))
def test_a_membership_is_read_back_as_it_was_meant(field: str, values: list[object]) -> None:
    assert parse(common.compare(field, "in", values)) == Membership(field, tuple(values))  # type: ignore[arg-type]


def test_a_text_cannot_break_out_of_its_quotes(remedies: Collection) -> None:
    assert [hit.id for hit in remedies.search("tea", where=common.compare("id", "=", "o'hara"))] == ["o'hara"]
    assert not remedies.search("tea", where=common.compare("id", "=", "x' or id != '"))


def test_a_float_of_numpy_is_compared_as_any_other() -> None:
    assert common.compare("year", ">=", np.float64(2.5)) == "`year` >= 2.5"


def test_a_date_is_compared_as_it_is_stored() -> None:
    assert common.compare("day", ">=", date(2024, 5, 1)) == "`day` >= '2024-05-01'"


def test_among_no_values_there_is_no_document(remedies: Collection) -> None:
    assert not remedies.search("cold", where=common.compare("year", "in", []))
    assert len(remedies.search("cold", where=common.negate(common.compare("year", "in", [])))) == 4


@pytest.mark.parametrize("value", [None, {"a": 1}, [1]])
def test_what_is_no_value_is_refused(value: object) -> None:
    with pytest.raises(FilterError, match="is compared with"):
        common.compare("year", "=", value)


def test_a_text_is_no_list_of_values() -> None:
    with pytest.raises(FilterError, match="a list of values"):
        common.compare("lang", "in", "en")


def test_a_field_that_is_called_like_something_of_the_hits_is_kept_beside_it(remedies: Collection) -> None:
    hit = next(hit for hit in remedies.search("cold") if hit.id == "rest")
    data = common.metadata(hit)
    assert data["rank"] == hit.rank
    assert data["fields.rank"] == "high"
    assert data["year"] == 2018
    assert "probability" not in data


def test_a_probability_and_a_part_are_told_where_there_are_any() -> None:
    data = common.metadata(Hit("a", 1.0, 1, "text", probability=0.25, part="summary"))
    assert (data["probability"], data["part"]) == (0.25, "summary")


def test_the_best_come_first_and_equals_stay_in_their_order() -> None:
    scores = np.array([0.5, 0.9, 0.5, 0.1], np.float32)
    assert common.best_first(scores, None) == [1, 0, 2, 3]
    assert common.best_first(scores, 2) == [1, 0]
    with pytest.raises(InputError, match="1 or more"):
        common.best_first(scores, 0)


def test_a_directory_without_a_collection_is_refused_and_left_alone(tmp_path: Path) -> None:
    with pytest.raises(CollectionError):
        common.open_collection(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_model_is_opened_as_what_it_is(
    tiny_model: Path, other_tiny_model: Path, tiny_cross_encoder: Path, tmp_path: Path
) -> None:
    assert isinstance(common.open_encoder(tiny_model), BiEncoder)
    towers = TwinTower(query=tiny_model, document=other_tiny_model)
    assert isinstance(common.open_encoder(str(towers.save(tmp_path / "towers"))), TwinTower)
    assert isinstance(common.open_scorer(str(tiny_cross_encoder)), CrossEncoder)
    assert isinstance(common.open_scorer(tiny_model), LateInteraction)
    encoder = BiEncoder(tiny_model)
    assert common.open_encoder(encoder) is encoder


LIBRARIES = {
    "langchain": ("langchain_core", "LangChain"),
    "llamaindex": ("llama_index", "LlamaIndex"),
    "haystack": ("haystack", "Haystack"),
    "pyterrier": ("pyterrier", "PyTerrier"),
    "mteb": ("mteb", "MTEB"),
}


@pytest.mark.parametrize("extra", LIBRARIES)
def test_an_adapter_without_its_library_names_the_extra(extra: str) -> None:
    module, name = LIBRARIES[extra]
    code = f"import sys; sys.modules[{module!r}] = None; import twinrank.adapters.{extra}"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert told.returncode == 1
    message = f"MissingExtraError: the adapter for {name} needs it: pip install 'twinrank[{extra}]'"
    assert message in told.stderr


def test_every_adapter_has_a_test_and_an_extra() -> None:
    folder = Path(common.__file__).parent
    assert {path.stem for path in folder.glob("*.py")} - {"__init__", "common"} == set(LIBRARIES)
    assert all((Path(__file__).parent / f"test_{name}.py").exists() for name in LIBRARIES)


@pytest.mark.parametrize("extra", LIBRARIES)
def test_siblings_hold_retriever_encoder_and_reranker_in_this_order(extra: str) -> None:
    source = (Path(common.__file__).parent / f"{extra}.py").read_text(encoding="utf-8")
    classes = [line.split()[1] for line in source.splitlines() if line.startswith("class ")]
    kinds = ["Retriever" if "Retriever" in name else "Reranker" if "Reranker" in name else "Encoder" for name in classes]
    assert list(dict.fromkeys(kinds)) == ["Retriever", "Encoder", "Reranker"]
