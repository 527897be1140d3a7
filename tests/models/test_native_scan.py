"""The native scan keeps each row that can be among the k best and no other, with the same numbers on every path."""

from __future__ import annotations

import mmap
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinrank.models import native

pytestmark = pytest.mark.skipif(not native.available(), reason="the native engine is not compiled here")

PATHS = native.paths()
if native.available():
    from twinrank._engine import scan_int8  # type: ignore[import-not-found]


def scan_case(rows: int, dimension: int, parts: int = 2, seed: int = 0) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    return {
        "codes": random.integers(-128, 128, (rows, dimension), dtype=np.int8),
        "scales": random.uniform(-1e-3, 1e-2, rows).astype(np.float32),
        "errors": random.uniform(0, 1e-3, rows).astype(np.float32),
        "parts": random.integers(-128, 128, (parts, dimension), dtype=np.int8),
        "part_scales": (random.uniform(0.5, 2, parts) * 128.0 ** -np.arange(parts)).astype(np.float32),
        "constant": 0.01,
        "factor": 3.0,
        "k": 10,
        "rows": None,
        "threads": 1,
    }


def expected_of(case: dict[str, Any]) -> dict[int, float]:
    """The rows that must be kept, with their scores, by NumPy in float64."""
    rows = np.arange(len(case["codes"])) if case["rows"] is None else case["rows"]
    dots = case["codes"][rows].astype(np.int64) @ case["parts"].astype(np.int64).T  # (rows, parts)
    scores = case["scales"][rows].astype(np.float64) * (dots * case["part_scales"].astype(np.float64)).sum(axis=1)
    slack = case["constant"] + case["factor"] * case["errors"][rows].astype(np.float64)
    if case["k"] >= len(rows):
        return dict(zip(rows.tolist(), scores.tolist(), strict=True))
    bar = np.sort(scores - slack)[-case["k"]]
    kept = scores + slack >= bar
    return dict(zip(rows[kept].tolist(), scores[kept].tolist(), strict=True))


def assert_keeps_what_is_expected(case: dict[str, Any], path: str) -> None:
    rows, scores = scan_int8(**case, path=path)
    assert rows.dtype == np.int64
    assert scores.dtype == np.float32
    expected = expected_of(case)
    assert len(set(rows.tolist())) == len(rows)
    assert set(rows.tolist()) == set(expected)
    np.testing.assert_allclose(scores, [expected[row] for row in rows.tolist()], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dimension", [1, 7, 16, 31, 63, 64, 65, 200, 384, 1024])
def test_every_width_gives_what_numpy_gives(path: str, dimension: int) -> None:
    assert_keeps_what_is_expected(scan_case(1003, dimension), path)


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_random_scans_give_what_numpy_gives(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 700), label="count")
    case = scan_case(count, data.draw(st.integers(1, 150), label="dimension"), data.draw(st.integers(1, 9), label="parts"))
    case["k"] = data.draw(st.integers(1, count + 2), label="k")
    case["factor"] = data.draw(st.sampled_from([0.0, 1.0, 1e3]), label="factor")
    case["constant"] = data.draw(st.sampled_from([0.0, 1.0, 1e3]), label="constant")
    case["threads"] = data.draw(st.integers(1, 3), label="threads")
    if data.draw(st.booleans(), label="some rows"):
        chosen = data.draw(st.sets(st.integers(0, count - 1)), label="rows")
        case["rows"] = np.array(sorted(chosen), np.int64)
    path = data.draw(st.sampled_from(PATHS), label="path")
    if case["rows"] is not None and not len(case["rows"]):
        rows, scores = scan_int8(**case, path=path)
        assert len(rows) == len(scores) == 0
        return
    assert_keeps_what_is_expected(case, path)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("order", ["rising", "falling"])
def test_many_runs_in_the_worst_order_keep_the_best(path: str, order: str) -> None:
    """Rising scores make every row a candidate when it is met; what is kept is looked through again and again."""
    case = scan_case(60_000, 64, parts=1)
    case["codes"][:] = 0
    case["codes"][:, 0] = 1
    case["parts"][:] = 1
    case["scales"] = np.linspace(0, 1, 60_000, dtype=np.float32)[:: 1 if order == "rising" else -1].copy()
    case["errors"][:] = 0
    case["part_scales"][:] = 1
    case["constant"] = 1e-4
    case["threads"] = 3
    assert_keeps_what_is_expected(case, path)


def test_every_path_gives_the_same_numbers_to_the_last_bit() -> None:
    case = scan_case(5000, 384, parts=3)
    case["k"] = 5000
    all_scores = []
    for path in PATHS:
        rows, scores = scan_int8(**case, path=path)
        all_scores.append(scores[np.argsort(rows)])
    for scores in all_scores[1:]:
        assert np.array_equal(scores, all_scores[0])


@pytest.mark.parametrize("path", PATHS)
def test_extreme_codes_do_not_overflow(path: str) -> None:
    case = scan_case(9, 65536, parts=2)
    case["codes"][:] = -128
    case["codes"][1::2] = 127
    case["parts"][0] = -128
    case["parts"][1] = 127
    case["k"] = 9
    assert_keeps_what_is_expected(case, path)


def test_rows_of_equal_score_at_the_border_are_all_kept() -> None:
    case = scan_case(100, 32)
    case["codes"][:] = case["codes"][0]
    case["scales"][:] = 1
    case["errors"][:] = 0
    case["constant"] = 0.0
    case["k"] = 3
    assert len(scan_int8(**case)[0]) == 100


@pytest.mark.parametrize("path", PATHS)
def test_a_file_mapped_to_its_last_byte_is_scanned(path: str, tmp_path: Path) -> None:
    """A read beyond the last page would end the process."""
    dimension = 2**10 + 2**9  # 8 rows of them are three pages of 4096 bytes
    rows = 3 * mmap.PAGESIZE // dimension
    case = scan_case(rows, dimension)
    case["codes"].tofile(tmp_path / "codes")
    mapped = np.memmap(tmp_path / "codes", np.int8, "r", shape=(rows, dimension))
    expected = expected_of(case)
    assert set(scan_int8(**{**case, "codes": mapped}, path=path)[0].tolist()) == set(expected)
    narrow = mapped.reshape(-1)[-90:].reshape(3, 30)
    small = {**scan_case(3, 30), "codes": narrow}
    assert_keeps_what_is_expected(small, path)


def test_python_threads_may_scan_at_once() -> None:
    cases = [scan_case(3000, 96, seed=seed) for seed in range(4)]
    came: list[list[set[int]]] = [[] for _ in cases]

    def work(i: int) -> None:
        came[i].extend(set(scan_int8(**{**cases[i], "threads": 2})[0].tolist()) for _ in range(10))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(cases))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for case, results in zip(cases, came, strict=True):
        assert len(results) == 10
        assert all(result == set(expected_of(case)) for result in results)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"scales": np.zeros(9, np.float32)}, "scales has 9 numbers; 20 were expected"),
        ({"errors": np.zeros(21, np.float32)}, "errors has 21 numbers; 20 were expected"),
        ({"parts": np.zeros((2, 9), np.int8)}, "a part of the query has 9 numbers; 8 were expected"),
        ({"parts": np.zeros((0, 8), np.int8), "part_scales": np.zeros(0, np.float32)}, "at least one part"),
        ({"part_scales": np.zeros(3, np.float32)}, "part_scales has 3 numbers; 2 were expected"),
        ({"part_scales": np.array([1, np.inf], np.float32)}, r"part_scales\[1\] is not finite"),
        ({"constant": float("nan")}, "constant"),
        ({"factor": -1.0}, "factor"),
        ({"k": 0}, "k is 0"),
        ({"threads": 0}, "threads is 0"),
        ({"rows": np.array([1, 20])}, r"rows\[1\] is 20; there are 20 rows"),
        ({"rows": np.array([-1, 2])}, r"rows\[0\] is -1; there are 20 rows"),
        ({"rows": np.array([3, 3])}, r"rows\[1\] is 3 after 3; rows must rise"),
        ({"path": "neon"}, "no path 'neon'"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        scan_int8(**{**scan_case(20, 8), **wrong})


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scales_and_errors_that_are_no_numbers_are_refused(path: str, value: float) -> None:
    case = scan_case(700, 8)
    case["scales"][401] = value
    with pytest.raises(ValueError, match=r"scales\[401\] is not finite"):
        scan_int8(**case, path=path)
    case = scan_case(700, 8)
    case["errors"][600] = value
    with pytest.raises(ValueError, match=r"errors\[600\] is not a number from 0 on"):
        scan_int8(**case, path=path)
    case["errors"][600] = -1
    case["rows"] = np.arange(500)
    assert_keeps_what_is_expected(case, path)  # row 600 was not asked for


@pytest.mark.parametrize("name", ["codes", "scales", "errors", "parts", "part_scales"])
def test_arrays_of_another_type_are_refused(name: str) -> None:
    case = scan_case(20, 8)
    with pytest.raises(TypeError):
        scan_int8(**{**case, name: case[name].astype(np.float64)})
    if case[name].ndim == 2:
        with pytest.raises(TypeError):
            scan_int8(**{**case, name: np.asfortranarray(case[name])})
