"""Keys come from a file or the environment; a key that is weak, and a line that is none, are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from twinrank.errors import DataError, InputError
from twinrank.serve import keys as module
from twinrank.serve.keys import Keys

LONG = "0123456789abcdef"


def test_a_key_that_writes_reads_too_and_no_other_does_anything() -> None:
    keys = Keys.of(read=[f"{LONG}-r"], write=[f"{LONG}-w"])
    assert [keys.allow(f"{LONG}-r", right) for right in ("read", "write")] == [True, False]
    assert [keys.allow(f"{LONG}-w", right) for right in ("read", "write")] == [True, True]
    assert not any(keys.allow(other, "read") for other in ("", LONG, f"{LONG}-R", f"{LONG}-r ", "\udcff"))
    assert keys
    assert not Keys()


def test_keys_are_found_in_file_and_environment(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# ours\nread {LONG}-1\n\nwrite  {LONG}-2\n", encoding="utf-8")
    keys = Keys.find(file, {"TWINRANK_READ_KEYS": f"{LONG}-3, {LONG}-4", "TWINRANK_WRITE_KEYS": ""})
    assert all(keys.allow(f"{LONG}-{number}", "read") for number in (1, 2, 3, 4))
    assert [keys.allow(f"{LONG}-{number}", "write") for number in (1, 2, 3, 4)] == [False, True, False, False]
    assert not Keys.find(None, {})


@pytest.mark.parametrize("line", ["read", f"admin {LONG}", f"read {LONG} {LONG}", LONG])
def test_a_line_that_is_no_key_is_told_by_its_number_and_not_by_its_text(tmp_path: Path, line: str) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# ours\n{line}\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 2") as told:
        Keys.find(file, {})
    assert LONG not in str(told.value)


@pytest.mark.parametrize("weak", ["short", "", "0123456789abcde\n", "kein-Schlüssel-hier"])
def test_a_weak_key_is_refused_without_being_repeated(weak: str) -> None:
    with pytest.raises(InputError, match="token_urlsafe") as told:
        Keys.of(read=[weak])
    assert not weak or weak not in str(told.value)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        Keys.find(tmp_path / "gone", {})


def test_keys_are_kept_as_digests_alone() -> None:
    assert LONG not in repr(Keys.of(read=[LONG], write=[LONG]))


def test_every_key_is_compared_whatever_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the time does not tell which key it was, or whether there was one."""
    compared = []
    real = module.compare_digest
    monkeypatch.setattr(module, "compare_digest", lambda a, b: compared.append(b) or real(a, b))
    keys = Keys.of(read=[f"{LONG}-{number}" for number in range(5)])
    for key in (f"{LONG}-0", f"{LONG}-4", "no key at all"):
        compared.clear()
        keys.allow(key, "read")
        assert len(compared) == 5
