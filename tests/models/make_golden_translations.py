"""Write golden/translations.json: what transformers' generate writes in fp32. Needs transformers, torch and sentencepiece.

python tests/models/make_golden_translations.py [folder of opus-mt-en-fr, expanded]
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent

SEARCHES: dict[str, dict[str, Any]] = {
    "greedy": {"beams": 1},
    "beams": {"beams": 4},
    "early": {"beams": 4, "early_stopping": True},
    "long": {"beams": 4, "length_penalty": 2.0},
    "unlike": {"beams": 1, "no_repeat_ngram": 2},
    "penalised": {"beams": 1, "repetition_penalty": 1.5},
}
"""Name → the options of Translator.generate; transformers calls some of them otherwise."""

TINY = ("greedy", "early", "unlike", "penalised")
"""Those in which untrained networks agree too. Without early stopping, and where length is rewarded, they would write on to any
limit, for each piece costs them as little as the one before; then only the moment at which the search gives up decides, which
transformers and CTranslate2 choose differently. Trained ones end: opus-mt-en-fr is compared in all searches."""

MAX_LENGTH = 24
"""Pieces that the tiny models, which know no end, may write."""

REAL = [
    "The weather is beautiful outside.",
    "A man is eating food.",
    "Does zinc shorten a cold?",
    "She sold her house and moved to the countryside, where her grandparents had lived before the war.",
    "I don't know what you're talking about.",
    "The committee rejected the proposal by twelve votes to three.",
    "Two dogs are running through a field of tall grass.",
    "Call me back as soon as you get this message!",
    "This package contains the files that are needed to build programs with the library.",
    "How many people were injured in the accident?",
    "If it rains tomorrow, the match will be postponed.",
    "The cat sat on the mat.",
    "Antibiotics do not work against viruses; they only treat infections caused by bacteria.",
    "He opened the door, looked around and left without a word.",
    "Prices rose by 3.4% last year.",
    "Nobody was at home.",
    "An old woman in a red coat is waiting for the bus.",
    "What time does the museum open on Sundays?",
    "The new version fixes a bug that could corrupt the database when the disk was full.",
    "Thank you very much for your help.",
]


def main(opus: str | None = None) -> None:
    sys.path.insert(0, str(HERE))
    import tiny_translators as tiny

    file = HERE / "golden" / "translations.json"
    golden = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    with tempfile.TemporaryDirectory() as folder:
        for case in tiny.CASES:
            checkpoint = tiny.write(Path(folder) / case, case)
            golden[case] = {name: written(checkpoint, tiny.SENTENCES, SEARCHES[name], MAX_LENGTH) for name in TINY}
    if opus:
        golden["opus-mt-en-fr"] = {name: written(Path(opus), REAL, SEARCHES[name], 512) for name in SEARCHES}
    lines = json.dumps(golden, ensure_ascii=False, sort_keys=True).replace("], ", "],\n")
    file.write_text(lines + "\n", encoding="utf-8")


def written(checkpoint: Path, texts: list[str], search: dict[str, Any], max_length: int) -> list[dict[str, Any]]:
    """Of each text the ids without start, end and padding, the text, and for beams the score; one by one, without padding."""
    import torch
    from transformers import AutoModelForSeq2SeqLM

    torch.set_num_threads(1)
    model = AutoModelForSeq2SeqLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    model.generation_config.max_length = None  # else each call says that max_new_tokens goes before it
    tokenizer = read_tokenizer(checkpoint)
    options = {"num_beams": search["beams"], "max_new_tokens": max_length, "length_penalty": search.get("length_penalty", 1.0)}
    options |= {"no_repeat_ngram_size": search.get("no_repeat_ngram", 0), "early_stopping": search.get("early_stopping", False)}
    options |= {"repetition_penalty": search.get("repetition_penalty", 1.0)}
    rows = []
    for text in texts:
        tokens = tokenizer([text], return_tensors="pt")
        with torch.inference_mode():
            made = model.generate(**tokens, **options, return_dict_in_generate=True, output_scores=True)
        ids = made.sequences[0].tolist()[1:]
        end = model.config.eos_token_id
        row = {"ids": ids[: ids.index(end)] if end in ids else ids, "finished": end in ids}
        row["text"] = tokenizer.decode(row["ids"], skip_special_tokens=True)
        if search["beams"] > 1:
            row["score"] = round(made.sequences_scores[0].item(), 5)
        rows.append(row)
    return rows


def read_tokenizer(checkpoint: Path) -> Any:
    from transformers import AutoTokenizer

    if not (checkpoint / "spiece.model").is_file():
        return AutoTokenizer.from_pretrained(checkpoint)
    import sentencepiece
    import torch

    model = sentencepiece.SentencePieceProcessor(model_file=str(checkpoint / "spiece.model"))

    class Plain:  # transformers 5 makes a tokenizer.json of the file, which differs at white space
        def __call__(self, texts: list[str], return_tensors: str) -> dict[str, Any]:
            return {"input_ids": torch.tensor([[*model.encode(texts[0]), 1]])}

        def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
            return str(model.decode([number for number in ids if number > 2]))

    return Plain()


if __name__ == "__main__":
    main(*sys.argv[1:])
