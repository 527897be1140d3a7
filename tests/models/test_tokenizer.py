"""Tokens are transformers' own, cut where they must be, and nothing that was cut goes uncounted."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from twinrank.errors import InputError, ModelUnsupportedError
from twinrank.models.checkpoint import Checkpoint
from twinrank.models.tokenizer import TextTokenizer, longest_first

FAMILIES = ("bert", "roberta", "xlm-roberta", "mpnet")
TEXT = st.text(st.characters(codec=None), max_size=40)


@pytest.fixture(scope="module", params=FAMILIES)
def tokenizer(request: pytest.FixtureRequest, tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return Checkpoint.find(tiny.write_trunk(tmp_path_factory.mktemp("m") / "m", request.param)).limited_to(16).tokenizer()


def test_uncut_texts_and_pairs_are_the_librarys_own(tokenizer: TextTokenizer) -> None:
    texts = ["zinc", "a cold?", ""]
    tokens = tokenizer.encode(texts)
    expected = [tokenizer.native.encode(text).ids for text in texts]
    assert [tokens.ids[a:b].tolist() for a, b in zip(tokens.offsets, tokens.offsets[1:], strict=False)] == expected
    assert tokens.dropped is None
    pair = tokenizer.native.encode("zinc", "cold")
    tokens = tokenizer.encode_pairs([("zinc", "cold")])
    assert tokens.ids.tolist() == pair.ids
    if tokens.types is not None:
        assert tokens.types.tolist() == pair.type_ids


@given(st.text("ab c", max_size=60), st.text("ab c", max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
def test_cut_texts_and_pairs_are_the_librarys_own(tokenizer: TextTokenizer, first: str, second: str) -> None:
    native = type(tokenizer.native).from_str(tokenizer.native.to_str())
    native.enable_truncation(16)
    assert tokenizer.encode([first]).ids.tolist() == native.encode(first).ids
    assert tokenizer.encode_pairs([(first, second)]).ids.tolist() == native.encode(first, second).ids


@given(st.lists(TEXT, min_size=1, max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_kept_and_dropped_tokens_add_up_for_any_text(tokenizer: TextTokenizer, texts: list[str]) -> None:
    tokens = tokenizer.encode(texts)
    dropped = 0 if tokens.dropped is None else tokens.dropped
    assert (tokens.lengths + dropped == tokenizer.count(texts) + tokenizer.special_tokens).all()
    assert tokens.lengths.max() <= 16
    for text in texts:
        assert all(0 <= start <= end <= len(text) for start, end in tokenizer.offsets(text))


@pytest.mark.parametrize(
    "text", ["", " ", "\x00", "a\x00b", "\ud800", "x\udfff\ud800y", "\U0001f600" * 30, "a" * 300, "\u202e\ufeff", "مرحبا"]
)
def test_odd_texts_are_tokenized_in_their_place(tokenizer: TextTokenizer, text: str) -> None:
    tokens = tokenizer.encode(["zinc", text, "zinc"])
    assert len(tokens) == 3
    first, _, last = (tokens.ids[a:b].tolist() for a, b in zip(tokens.offsets, tokens.offsets[1:], strict=False))
    assert first == last


def test_a_megabyte_of_text_is_cut_and_counted(tokenizer: TextTokenizer) -> None:
    tokens = tokenizer.encode(["zinc cold " * 100_000])
    assert tokens.lengths.tolist() == [16]
    assert tokens.dropped is not None
    assert tokens.dropped[0] >= 200_000 - 16


def test_offsets_are_in_characters_of_the_text_as_it_was_given(tiny: ModuleType, tmp_path: Path) -> None:
    tokenizer = Checkpoint.find(tiny.write_trunk(tmp_path / "m")).tokenizer()
    text = "\U0001f600 Zinc, \ud800 NAÏVE\x00 cold"
    words = [text[start:end] for start, end in tokenizer.offsets(text)]
    assert words[0] == "\U0001f600"
    assert words[1:3] == ["Zinc", ","]
    assert "".join(words[3:8]) == "NAÏVE"  # the surrogate, cleaned, is a character that BERT's normaliser leaves out
    assert words[-1] == "cold"


def test_lower_casing_asked_for_by_the_checkpoint_keeps_offsets(tiny: ModuleType, tmp_path: Path) -> None:
    """İ becomes two characters when it is lowered."""
    folder = tiny.write_bi_encoder(tmp_path / "m", "xlm-roberta")
    tiny.write_json(folder / "sentence_bert_config.json", {"max_seq_length": 64, "do_lower_case": True})
    tokenizer = Checkpoint.find(folder).tokenizer()
    assert tokenizer.encode(["ZINC"]).ids.tolist() == tokenizer.encode(["zinc"]).ids.tolist()
    text = "İİ zinc"
    start, end = tokenizer.offsets(text)[-1]
    assert text[start:end].strip() == "zinc"


def test_special_tokens_written_in_a_text_are_read_as_transformers_reads_them(tokenizer: TextTokenizer) -> None:
    assert tokenizer.encode(["[SEP] </s>"]).ids.tolist() == tokenizer.native.encode("[SEP] </s>").ids


@given(st.integers(0, 30), st.integers(0, 30), st.integers(2, 40))
def test_the_longer_of_a_pair_is_cut_first(first: int, second: int, room: int) -> None:
    keep_first, keep_second = longest_first(first, second, room)
    assert keep_first + keep_second == min(first + second, room)
    assert keep_first <= first
    assert keep_second <= second
    if keep_first < first and keep_second < second:
        assert abs(keep_first - keep_second) <= 1
    elif keep_second < second:
        assert keep_second >= keep_first - 1


@pytest.mark.parametrize("text", [None, 3, b"bytes", ["list"]])
def test_what_is_no_text_is_refused_by_its_number(tokenizer: TextTokenizer, text: object) -> None:
    with pytest.raises(InputError, match=f"Text 1 is a {type(text).__name__}"):
        tokenizer.encode(["zinc", text])


def test_a_limit_without_room_for_a_text_is_refused(tiny: ModuleType, tmp_path: Path) -> None:
    checkpoint = Checkpoint.find(tiny.write_trunk(tmp_path / "m"))
    with pytest.raises(InputError, match="leaves no room beside 2 special tokens"):
        checkpoint.limited_to(2).tokenizer()
    with pytest.raises(InputError, match="leaves no room for a pair beside 3 special tokens"):
        checkpoint.limited_to(4).tokenizer().encode_pairs([("a", "b")])


def test_a_tokenizer_without_special_tokens_is_refused(tiny: ModuleType, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    folder = tiny.write_trunk(tmp_path / "m")
    Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]")).save(str(folder / "tokenizer.json"))
    with pytest.raises(ModelUnsupportedError, match="no special tokens"):
        Checkpoint.find(folder).tokenizer()
