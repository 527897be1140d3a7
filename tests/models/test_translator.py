"""Translators write what transformers' generate writes, and say what they cannot do.

golden/translations.json is made by make_golden_translations.py: the tiny checkpoints of tiny_translators.py, and opus-mt-en-fr.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from twinrank.errors import (
    InputError,
    MissingExtraError,
    ModelDamagedError,
    ModelNotFoundError,
    ModelUnsupportedError,
    StorageError,
    TruncationWarning,
)
from twinrank.models import translator as translator_module
from twinrank.models.biencoder import BiEncoder
from twinrank.models.translator import Search, Translation, Translator

pytest.importorskip("ctranslate2", reason="translators need ctranslate2: pip install twinrank[translate]")
pytest.importorskip("sentencepiece", reason="translators need sentencepiece: pip install twinrank[translate]")

HERE = Path(__file__).resolve().parent


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"twinrank_{name}", HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tiny = _load("tiny_translators")
makers = _load("make_golden_translations")

Golden = Mapping[str, Mapping[str, list[dict[str, Any]]]]


@pytest.fixture(scope="module")
def goldens() -> Golden:
    golden: Golden = json.loads((HERE / "golden" / "translations.json").read_text(encoding="utf-8"))
    return golden


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny checkpoint by its case, written once."""
    root = tmp_path_factory.mktemp("translators")

    def folder(case: str) -> Path:
        path = root / case.replace(" ", "-")
        return path if path.is_dir() else tiny.write(path, case)

    return folder


@pytest.fixture
def marian(folders: Callable[[str], Path]) -> Translator:
    return Translator(folders("marian two vocabularies"), threads=1)


@pytest.fixture
def copied(folders: Callable[[str], Path], tmp_path: Path) -> Path:
    """A checkpoint of its own, to be damaged."""
    return Path(shutil.copytree(folders("marian"), tmp_path / "copy"))


@pytest.fixture(scope="module")
def opus_fp32(opus: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Translator]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        yield Translator(opus, precision="fp32", threads=1, split="length")


@pytest.fixture(scope="module")
def opus_int8(opus: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Translator]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        yield Translator(opus, threads=1)


def generate(translator: Translator, texts: list[str], **options: Any) -> list[Translation]:
    """Without the warning that some did not end, which the tiny models often do not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)
        return translator.generate(texts, **options)


def assert_same(made: list[Translation], rows: list[dict[str, Any]], target: list[str], *, penalty: float = 1.0) -> None:
    for translation, row in zip(made, rows, strict=True):
        assert list(translation.pieces) == [target[number] for number in row["ids"]]
        assert translation.text == row["text"].strip()
        assert translation.finished == row["finished"]
        if "score" in row:  # transformers' is divided by length ** penalty, ours by the length
            length = len(row["ids"]) + row["finished"]
            assert translation.score * length == pytest.approx(row["score"] * length**penalty, abs=3e-3)


# -- against transformers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["greedy", "early"])
@pytest.mark.parametrize("case", tiny.CASES)
def test_a_tiny_checkpoint_writes_token_for_token_what_transformers_writes(
    case: str, name: str, folders: Callable[[str], Path], goldens: Golden
) -> None:
    translator = Translator(folders(case), precision="fp32", threads=1, split="length")
    made = generate(translator, tiny.SENTENCES, max_length=makers.MAX_LENGTH, **makers.SEARCHES[name])
    assert_same(made, goldens[case][name], translator._pieces.target)


def test_the_golden_translations_are_no_constants_and_some_end(goldens: Golden) -> None:
    """Else agreement with them would prove little."""
    for case in tiny.CASES:
        assert len({tuple(row["ids"]) for row in goldens[case]["early"]}) >= 3, case
    assert {row["finished"] for case in tiny.CASES for row in goldens[case]["early"]} == {True, False}


@pytest.mark.parametrize("name", ["unlike", "penalised"])
@pytest.mark.parametrize("case", ["marian", "marian two vocabularies"])
def test_limits_on_repetition_are_those_of_transformers(
    case: str, name: str, folders: Callable[[str], Path], goldens: Golden
) -> None:
    translator = Translator(folders(case), precision="fp32", threads=1, split="length")
    made = generate(translator, tiny.SENTENCES, max_length=makers.MAX_LENGTH, **makers.SEARCHES[name])
    assert_same(made, goldens[case][name], translator._pieces.target)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("name", makers.SEARCHES)
def test_opus_mt_writes_token_for_token_what_transformers_writes(name: str, opus_fp32: Translator, goldens: Golden) -> None:
    search = makers.SEARCHES[name]
    made = opus_fp32.generate(makers.REAL, **search)
    penalty = search.get("length_penalty", 1.0)
    assert_same(made, goldens["opus-mt-en-fr"][name], opus_fp32._pieces.target, penalty=penalty)


@pytest.mark.data
@pytest.mark.slow
def test_the_weather_is_beautiful_in_int8_too(opus_int8: Translator) -> None:
    assert opus_int8.translate(["The weather is beautiful outside."]) == ["Le temps est beau dehors."]


@pytest.mark.data
@pytest.mark.slow
def test_int8_writes_nearly_what_fp32_writes(opus_int8: Translator, opus_fp32: Translator) -> None:
    same = [a == b for a, b in zip(opus_int8.translate(makers.REAL), opus_fp32.translate(makers.REAL), strict=True)]
    assert sum(same) >= 14


# -- texts ---------------------------------------------------------------------------------------------------------------


def test_an_empty_text_stays_empty(marian: Translator) -> None:
    assert marian.generate(["", "  \n"]) == [Translation("", 0.0, True)] * 2
    assert marian.translate([]) == []


def test_the_order_of_the_texts_is_kept(marian: Translator) -> None:
    texts = sorted(tiny.SENTENCES, key=len)
    alone = [generate(marian, [text])[0].pieces for text in texts]
    assert [translation.pieces for translation in generate(marian, texts)] == alone
    assert [translation.pieces for translation in generate(marian, texts[::-1])] == alone[::-1]


def test_equal_texts_are_translated_once(marian: Translator) -> None:
    told: list[tuple[int, int]] = []
    made = generate(marian, ["bread", "zinc", "bread", "bread"], progress=lambda done, of: told.append((done, of)))
    assert told[-1] == (2, 2)
    assert made[0] == made[2] == made[3]


def test_many_texts_go_in_batches_of_like_length(marian: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    together = generate(marian, tiny.SENTENCES)
    monkeypatch.setattr(translator_module, "PIECES_AT_ONCE", 8)
    told: list[int] = []
    apart = generate(marian, tiny.SENTENCES, progress=lambda done, of: told.append(done))
    assert [translation.pieces for translation in apart] == [translation.pieces for translation in together]
    assert len(told) > 3
    assert told == sorted(told)


def test_a_batch_never_holds_more_than_its_share_of_pieces() -> None:
    sources = [["x"] * length for length in (600, 250, 200, 30, 20, 10)]
    batches = list(translator_module._batches(range(6), sources))
    assert batches == [[0], [1, 2], [3, 4, 5]]
    assert translator_module.PIECES_AT_ONCE == 512  # one text of 600 goes alone, whatever its length


def test_sentences_are_translated_apart_and_put_back_between_their_white_space(folders: Callable[[str], Path]) -> None:
    translator = Translator(folders("t5"), threads=1, split="sentences")
    first, second = (translation.text for translation in generate(translator, ["zinc may help.", "Does it?"]))
    assert first
    assert second
    assert generate(translator, [" zinc may help.\n\nDoes it? "])[0].text == f"{first}\n\n{second}"


def test_between_sentences_that_stood_without_white_space_comes_a_space_unless_the_sign_is_wide(marian: Translator) -> None:
    outputs = {"效": ("▁the", "."), "用": ("。",), "了": ("▁a",)}
    made = {text: translator_module._Output(pieces, -1.0, True) for text, pieces in outputs.items()}
    joined = marian._assembled("效用了", [(0, 1), (1, 2), (2, 3)], made)
    assert joined.text == "the. 。a"
    assert joined.score == pytest.approx(-3 / 7)


def test_with_split_by_length_a_text_that_fits_is_read_as_a_whole(folders: Callable[[str], Path]) -> None:
    translator = Translator(folders("marian two vocabularies"), threads=1, split="length")
    assert translator._cut("zinc may help. Does it?") == [(0, 23)]
    assert Translator(folders("marian two vocabularies"))._cut("zinc may help. Does it?") == [(0, 14), (15, 23)]


@pytest.mark.parametrize("split", ["sentences", "length"])
def test_no_part_of_a_long_text_is_dropped(split: Any, folders: Callable[[str], Path]) -> None:
    translator = Translator(folders("marian"), threads=1, max_tokens=12, split=split)
    text = "zinc may shorten a cold. " * 3 + "the weather is beautiful outside and " * 9 + "bread.\n\nzinc" + "a" * 60
    spans = translator._cut(text)
    assert "".join("".join(text[start:end].split()) for start, end in spans) == "".join(text.split())
    assert all(translator._count(text[start:end]) <= translator._room for start, end in spans)
    assert all(text[start:end] == text[start:end].strip() for start, end in spans)


def test_a_long_text_without_spaces_is_cut_too(folders: Callable[[str], Path]) -> None:
    translator = Translator(folders("marian"), threads=1, max_tokens=12)
    spans = translator._cut("zincmayhelp" * 40 + "東京" * 40)
    assert sum(end - start for start, end in spans) == 11 * 40 + 80
    assert all(translator._count(("zincmayhelp" * 40 + "東京" * 40)[start:end]) <= translator._room for start, end in spans)


@pytest.mark.data
@pytest.mark.slow
def test_a_character_of_more_pieces_than_fit_goes_alone(opus: Path) -> None:
    """U+FDFA is a whole phrase, 18 letters once normalised; nothing is halved for ever."""
    translator = Translator(opus, threads=1, max_tokens=10)
    assert translator._count("\ufdfa") > translator._room
    assert translator._cut("\ufdfa\ufdfa\n\nPeace.") == [(0, 1), (1, 2), (4, 10)]


def test_the_score_of_a_text_in_parts_is_the_mean_over_all_its_pieces(marian: Translator) -> None:
    parts = generate(marian, ["zinc may help.", "Does it?"])
    lengths = [len(part.pieces) + part.finished for part in parts]
    expected = np.average([part.score for part in parts], weights=lengths)
    assert generate(marian, ["zinc may help. Does it?"])[0].score == pytest.approx(expected, abs=1e-4)


def test_lone_surrogates_are_read_as_unknown_characters(marian: Translator) -> None:
    assert generate(marian, ["zinc \ud800"])[0].pieces == generate(marian, ["zinc \ufffd"])[0].pieces


def test_what_looks_like_an_end_token_in_a_text_is_only_letters(folders: Callable[[str], Path]) -> None:
    translator = Translator(folders("marian"), threads=1)
    assert "</s>" not in translator._pieces.split(["zinc </s> bread"])[0]


# -- limits --------------------------------------------------------------------------------------------------------------


def test_a_translation_without_an_end_stops_at_the_limit_and_says_so(folders: Callable[[str], Path]) -> None:
    translator = Translator(folders("marian"), threads=1)
    with pytest.warns(TruncationWarning, match="1 of 2 translations did not end within 5 pieces") as caught:
        made = translator.generate(["", "zinc may shorten a cold"], max_length=5)
    assert caught[0].filename == __file__
    assert [translation.finished for translation in made] == [True, False]
    assert len(made[1].pieces) == 5


def test_translate_warns_at_the_callers_line(folders: Callable[[str], Path]) -> None:
    with pytest.warns(TruncationWarning) as caught:
        Translator(folders("marian"), threads=1).translate(["zinc may shorten a cold"], max_length=2)
    assert caught[0].filename == __file__


def test_a_limit_beyond_the_positions_is_refused(marian: Translator) -> None:
    with pytest.raises(InputError, match="writes at most 64 pieces; max_length=65"):
        marian.translate(["zinc"], max_length=65)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beams": 0}, "beams is 0"),
        ({"beams": 2.0}, "beams is 2.0"),
        ({"max_length": 0}, "max_length is 0"),
        ({"no_repeat_ngram": -1}, "no_repeat_ngram is -1"),
        ({"length_penalty": float("nan")}, "length_penalty is nan"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Search(**options)


def test_no_run_of_pieces_is_repeated_where_that_is_forbidden(folders: Callable[[str], Path]) -> None:
    translator = Translator(folders("t5"), threads=1)
    for translation in generate(translator, tiny.SENTENCES, no_repeat_ngram=2, max_length=24):
        pairs = list(zip(translation.pieces, translation.pieces[1:], strict=False))
        assert len(pairs) == len(set(pairs))


# -- prefixes ------------------------------------------------------------------------------------------------------------


def test_a_t5_prefix_is_put_before_every_text(folders: Callable[[str], Path]) -> None:
    plain, prefixed = Translator(folders("t5"), threads=1), Translator(folders("t5"), threads=1, prefix="summarize: ")
    assert plain.prefixes == {"summarization": "summarize: "}
    written = [translation.pieces for translation in generate(prefixed, ["zinc", "bread"])]
    assert written == [translation.pieces for translation in generate(plain, ["summarize: zinc", "summarize: bread"])]
    assert plain.fingerprint != prefixed.fingerprint


def test_a_marian_prefix_is_a_language_that_the_vocabulary_has(folders: Callable[[str], Path]) -> None:
    translator = Translator(folders("marian"), threads=1, prefix=">>fra<<")
    assert translator._pieces.split(["zinc"], translator.prefix) == [[">>fra<<", "▁zinc"]]
    with pytest.raises(InputError, match=r"this model knows >>fra<<, not 'translate: '"):
        Translator(folders("marian"), prefix="translate: ")


def test_a_model_for_several_languages_says_so_where_none_is_named(
    folders: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    Translator(folders("marian"), threads=1)
    assert "writes >>fra<<; it chooses one by itself unless `prefix` names it" in caplog.text


# -- the cache -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "twinrank" / "translators"


def converted_folders(cache: Path) -> list[Path]:
    return [path for path in cache.iterdir() if path.is_dir()]


def test_a_checkpoint_is_converted_once(cache: Path, folders: Callable[[str], Path]) -> None:
    Translator(folders("t5"))
    (folder,) = converted_folders(cache)
    before = (folder / "model.bin").stat().st_mtime_ns
    Translator(folders("t5"))
    assert [(folder / "model.bin").stat().st_mtime_ns, converted_folders(cache)] == [before, [folder]]


@pytest.mark.parametrize("damage", ["cut", "removed", "flipped", "no manifest"])
def test_a_damaged_conversion_is_made_anew(damage: str, cache: Path, folders: Callable[[str], Path]) -> None:
    expected = generate(Translator(folders("t5")), tiny.SENTENCES[:2], max_length=8)
    (folder,) = converted_folders(cache)
    whole = (folder / "model.bin").read_bytes()
    if damage == "removed":
        (folder / "model.bin").unlink()
    elif damage == "no manifest":
        (folder / "twinrank.json").unlink()
    else:
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
        (folder / "model.bin").write_bytes(whole[:middle] if damage == "cut" else flipped)
    assert generate(Translator(folders("t5")), tiny.SENTENCES[:2], max_length=8) == expected
    assert (folder / "model.bin").read_bytes() == whole
    assert sorted(path.name for path in cache.iterdir()) == [folder.name, f"{folder.name}.lock"]


def test_each_precision_has_its_own_conversion(cache: Path, folders: Callable[[str], Path]) -> None:
    names = {Translator(folders("t5"), precision=precision).fingerprint for precision in ("int8", "fp32", "auto")}
    assert len(names) == 2
    assert len(converted_folders(cache)) == 2


def test_a_conversion_that_breaks_off_leaves_nothing(
    cache: Path, folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ctranslate2.specs import model_spec

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(model_spec.ModelSpec, "_serialize", full)
        with pytest.raises(StorageError, match="No space left"):
            Translator(folders("t5"))
    assert converted_folders(cache) == []
    Translator(folders("t5"))


def test_several_openings_at_once_make_one_conversion(cache: Path, folders: Callable[[str], Path]) -> None:
    opened: list[Translator] = []
    threads = [threading.Thread(target=lambda: opened.append(Translator(folders("t5"), threads=1))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 4
    assert len(converted_folders(cache)) == 1


def test_other_weights_have_another_fingerprint(folders: Callable[[str], Path], tmp_path: Path) -> None:
    other = tiny.write(tmp_path / "other", "marian", seed=12)
    assert Translator(other).fingerprint != Translator(folders("marian")).fingerprint
    assert Translator(folders("marian")).fingerprint == Translator(folders("marian")).fingerprint


# -- bad input -----------------------------------------------------------------------------------------------------------


def test_a_text_that_is_no_string_is_refused_by_its_number(marian: Translator) -> None:
    with pytest.raises(InputError, match="Text 1 is a int, '7'; a str was expected"):
        marian.translate(["zinc", 7])  # type: ignore[list-item]
    with pytest.raises(InputError, match="put it into a list"):
        marian.translate("zinc")


def test_a_bert_checkpoint_is_refused_with_the_right_class(tiny_model: Path, tiny_cross_encoder: Path) -> None:
    with pytest.raises(ModelUnsupportedError, match="is a BiEncoder, not a Translator: open it as BiEncoder"):
        Translator(tiny_model)
    with pytest.raises(ModelUnsupportedError, match="is a CrossEncoder, not a Translator: open it as CrossEncoder"):
        Translator(tiny_cross_encoder)


def test_a_translator_opened_as_a_bi_encoder_is_refused_with_the_right_class(folders: Callable[[str], Path]) -> None:
    with pytest.raises(ModelUnsupportedError, match=r"is a Translator, not a BiEncoder: open it as Translator\("):
        BiEncoder(folders("marian"))


def change_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, **changes}), encoding="utf-8")


def test_a_checkpoint_with_its_own_code_is_refused(copied: Path) -> None:
    change_config(copied, auto_map={"AutoModel": "modeling.Mine"})
    with pytest.raises(ModelUnsupportedError, match="trust_remote_code"):
        Translator(copied)


def test_other_families_are_refused_with_those_that_run(copied: Path) -> None:
    change_config(copied, model_type="bart")
    with pytest.raises(ModelUnsupportedError, match="family 'bart'; run here are marian, t5, mt5"):
        Translator(copied)


@pytest.mark.parametrize("name", ["source.spm", "target.spm", "vocab.json"])
def test_a_missing_vocabulary_file_is_named(name: str, copied: Path) -> None:
    (copied / name).unlink()
    with pytest.raises(ModelDamagedError, match=rf"{name} is missing"):
        Translator(copied)


def test_a_t5_without_a_tokenizer_is_refused(folders: Callable[[str], Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders("t5"), tmp_path / "copy"))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelDamagedError, match=r"has no tokenizer\.json"):
        Translator(folder)


def test_a_damaged_sentencepiece_model_is_refused(copied: Path) -> None:
    (copied / "source.spm").write_bytes(b"not a model")
    with pytest.raises(ModelDamagedError, match=r"source\.spm is no SentencePiece model"):
        Translator(copied)


def test_a_vocabulary_that_does_not_fit_the_weights_is_refused(copied: Path) -> None:
    vocabulary = json.loads((copied / "vocab.json").read_text(encoding="utf-8"))
    (copied / "vocab.json").write_text(json.dumps({**vocabulary, "▁more": len(vocabulary)}), encoding="utf-8")
    with pytest.raises(ModelDamagedError, match=rf"has {len(vocabulary) + 1} pieces, but the network has embeddings of"):
        Translator(copied)


def test_a_vocabulary_with_gaps_in_its_numbers_is_refused(copied: Path) -> None:
    (copied / "vocab.json").write_text('{"</s>": 0, "<unk>": 2}', encoding="utf-8")
    with pytest.raises(ModelDamagedError, match="does not number its 2 pieces from 0 to 1"):
        Translator(copied)


def test_a_sentencepiece_model_of_another_checkpoint_is_refused(copied: Path) -> None:
    listed = [f"▁other{number}" for number in range(40)]
    (copied / "source.spm").write_bytes(tiny.sentencepiece(listed, {"<unk>": 2, "<s>": 3, "</s>": 3}))
    with pytest.raises(ModelDamagedError, match=r"of the 43 pieces of .*source\.spm are not in the vocabulary"):
        Translator(copied)


def test_weights_with_another_hash_than_the_hubs_are_refused(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the hub's cache lays them out: a blob named by its hash, and a snapshot that links to it."""
    cache = copied.parent / "hub"
    store = cache / "models--tiny--marian"
    (store / "blobs").mkdir(parents=True)
    (store / "refs").mkdir()
    (store / "refs" / "main").write_text("c0ffee", encoding="utf-8")
    snapshot = Path(shutil.copytree(copied, store / "snapshots" / "c0ffee"))
    blob = store / "blobs" / ("0" * 64)
    (snapshot / "model.safetensors").rename(blob)
    (snapshot / "model.safetensors").symlink_to(blob)
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    with pytest.raises(ModelDamagedError, match="but tiny/marian has 0000"):
        Translator("tiny/marian")


def test_every_file_of_a_translator_is_asked_of_the_hub_and_a_download_without_one_is_no_snapshot(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fnmatch import fnmatch

    from twinrank.models import hub

    names = [path.name for path in copied.iterdir()]
    assert [name for name in names if not any(fnmatch(name, pattern) for pattern in hub.FILES)] == []
    store = copied.parent / "hub" / "models--tiny--marian"
    (store / "refs").mkdir(parents=True)
    (store / "refs" / "main").write_text("c0ffee", encoding="utf-8")
    snapshot = Path(shutil.copytree(copied, store / "snapshots" / "c0ffee"))
    monkeypatch.setenv("HF_HUB_CACHE", str(store.parent))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert hub.find_folder("tiny/marian").folder == snapshot
    (snapshot / "source.spm").unlink()
    with pytest.raises(ModelNotFoundError):
        hub.find_folder("tiny/marian")


def test_a_pickle_is_not_opened(copied: Path) -> None:
    (copied / "model.safetensors").rename(copied / "pytorch_model.bin")
    with pytest.raises(ModelUnsupportedError, match="pickle"):
        Translator(copied)


def change_weights(folder: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_a_missing_weight_is_named(copied: Path) -> None:
    change_weights(copied, lambda tensors: tensors.pop("model.decoder.layers.1.encoder_attn.k_proj.weight"))
    with pytest.raises(ModelDamagedError, match=r"no tensor 'model\.decoder\.layers\.1\.encoder_attn\.k_proj\.weight'"):
        Translator(copied)


def test_a_weight_of_another_shape_is_named(copied: Path) -> None:
    change_weights(copied, lambda tensors: tensors.update({"final_logits_bias": np.zeros((1, 5), np.float32)}))
    with pytest.raises(ModelDamagedError, match=r"'final_logits_bias' has shape \(1, 5\)"):
        Translator(copied)


def test_weights_that_are_no_numbers_are_refused(copied: Path) -> None:
    change_weights(copied, lambda tensors: tensors["model.shared.weight"].fill(np.nan))
    with pytest.raises(ModelDamagedError, match="NaN"):
        Translator(copied)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_model": None}, "d_model = None"),
        ({"eos_token_id": 100000}, "eos_token_id = 100000"),
        ({"activation_function": "mish"}, "activation 'mish'"),
        ({"normalize_before": True}, "normalise before"),
        ({"decoder_attention_heads": 2}, "encoder and decoder differ"),
    ],
)
def test_a_config_that_cannot_be_run_is_refused(changes: dict[str, Any], message: str, copied: Path) -> None:
    change_config(copied, **changes)
    with pytest.raises((ModelDamagedError, ModelUnsupportedError), match=message):
        Translator(copied)


def test_a_folder_that_is_not_there_is_not_found() -> None:
    with pytest.raises(ModelNotFoundError):
        Translator("./nowhere/at/all")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "bf16"}, "Unknown precision 'bf16'; choose auto, int8 or fp32"),
        ({"threads": 0}, "threads is 0"),
        ({"max_tokens": 65}, "reads 1 to 64 pieces"),
        ({"max_tokens": 5}, "leaves 4 pieces"),
        ({"split": "words"}, "Unknown split 'words'; choose sentences or length"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, Any], message: str, folders: Callable[[str], Path]) -> None:
    with pytest.raises(InputError, match=message):
        Translator(folders("marian"), **options)


def test_without_ctranslate2_the_extra_is_named(folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    with pytest.raises(MissingExtraError, match=r"pip install twinrank\[translate\]"):
        Translator(folders("marian"))


@pytest.mark.skipif(find_spec("torch") is not None, reason="CTranslate2 loads torch by itself where it is installed")
def test_importing_and_opening_a_translator_loads_no_torch(folders: Callable[[str], Path], tmp_path: Path) -> None:
    code = (
        "import sys, twinrank.models.translator as t; assert 'ctranslate2' not in sys.modules;"
        f"t.Translator({str(folders('marian'))!r}); assert 'ctranslate2' in sys.modules; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"XDG_CACHE_HOME": str(tmp_path), "PATH": ""})


def test_twin_towers_are_refused_by_the_name_of_their_class(tiny_model: Path, tmp_path: Path) -> None:
    from twinrank import TwinTower

    saved = TwinTower(query=tiny_model, document=tiny_model).save(tmp_path / "towers")
    with pytest.raises(ModelUnsupportedError, match="TwinTower"):
        Translator(saved)
