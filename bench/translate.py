"""Translators measured: BLEU and chrF in int8 and fp32, and speed beside transformers' generate, interleaved, equal threads.

python bench/translate.py CHECKPOINT [--data FOLDER] [--threads 1] [--rounds 9] [--limit N]

FOLDER holds multi30k_en_fr and tatoeba_anki_en_fr, each with a test.tsv of `source` and `target`. sacrebleu is needed for
quality, transformers and torch for the comparison; each part is left out, saying so, where they are not installed.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from twinrank.models.translator import Translator

SETS = ("multi30k_en_fr", "tatoeba_anki_en_fr")
BEAMS = 4
REFERENCE_BATCH = 16  # sentences of like length


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--data", type=Path, default=Path("~/.cache/twinrank-data").expanduser())
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--sentences", type=int, default=64, help="sentences a round of the comparison")
    parser.add_argument("--agreement", type=int, default=0, help="sentences to compare word for word with transformers, a set")
    parser.add_argument("--limit", type=int, default=None, help="sentences a set, for a first look")
    parser.add_argument(
        "--sets", nargs="*", default=SETS, choices=SETS, help="sets whose quality is measured; none with --sets alone"
    )
    parser.add_argument("--greedy", action="store_true", help="measure quality by greedy search too")
    given = parser.parse_args()
    ours = {
        precision: Translator(given.checkpoint, precision=precision, threads=given.threads) for precision in ("fp32", "int8")
    }
    for name in given.sets:
        measure_quality(ours, name, given.data / name / "test.tsv", given.limit, (BEAMS, 1) if given.greedy else (BEAMS,))
    sources = list(read_pairs(given.data / SETS[0] / "test.tsv"))
    measure_speed(ours, given.checkpoint, sources[: given.sentences], given.threads, given.rounds)
    whole = Translator(given.checkpoint, precision="fp32", threads=given.threads, split="length")  # as transformers reads them
    for name in SETS if given.agreement else ():
        sources = list(read_pairs(given.data / name / "test.tsv"))
        sources = sources[:: max(1, len(sources) // given.agreement)]
        measure_agreement(whole, given.checkpoint, name, sources, given.threads)


def read_pairs(file: Path) -> dict[str, list[str]]:
    """Source → its reference translations; tatoeba has several of some."""
    pairs: dict[str, list[str]] = {}
    with file.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE):
            pairs.setdefault(row["source"], []).append(row["target"])
    return pairs


def measure_quality(ours: dict[str, Translator], name: str, file: Path, limit: int | None, searches: tuple[int, ...]) -> None:
    try:
        import sacrebleu
    except ImportError:
        print("quality is not measured: pip install sacrebleu")
        return
    pairs = dict(list(read_pairs(file).items())[:limit])
    most = max(map(len, pairs.values()))
    references = [[targets[i] if i < len(targets) else None for targets in pairs.values()] for i in range(most)]
    for precision, translator in ours.items():
        for beams in searches:
            start = time.perf_counter()
            made = translator.generate(list(pairs), beams=beams)
            seconds = time.perf_counter() - start
            texts = [translation.text for translation in made]
            bleu = sacrebleu.corpus_bleu(texts, references)
            chrf = sacrebleu.corpus_chrf(texts, references)
            unfinished = sum(not translation.finished for translation in made)
            print(
                f"{name} test, {len(pairs)} sentences, {sum(map(len, pairs.values()))} references, {precision}, beams {beams}: "
                f"BLEU {bleu.score:.1f}  chrF {chrf.score:.1f}  {seconds:.1f} s  {len(pairs) / seconds:.0f} sentences/s"
                f"  {unfinished} unfinished",
                flush=True,
            )


def reference_translate(checkpoint: str, threads: int) -> Callable[[list[str]], list[str]] | None:
    """transformers' generate in fp32, in batches of like length; None where it is not installed."""
    try:
        import torch
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
    except ImportError:
        print("not compared with transformers, which is not installed here: pip install transformers torch sentencepiece")
        return None
    torch.set_num_threads(threads)
    model = AutoModelForSeq2SeqLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)

    @torch.inference_mode()
    def translate(texts: list[str]) -> list[str]:
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        made = [""] * len(texts)
        for first in range(0, len(order), REFERENCE_BATCH):
            batch = order[first : first + REFERENCE_BATCH]
            tokens = tokenizer([texts[i] for i in batch], return_tensors="pt", padding=True)
            output = model.generate(**tokens, num_beams=BEAMS, max_length=512)
            for i, text in zip(batch, tokenizer.batch_decode(output, skip_special_tokens=True), strict=True):
                made[i] = text
        return made

    return translate


def measure_speed(ours: dict[str, Translator], checkpoint: str, sources: list[str], threads: int, rounds: int) -> None:
    """Each round runs all of them once, so that a slow minute of the machine meets all alike."""
    reference = reference_translate(checkpoint, threads)
    if reference is None:
        return
    runs: dict[str, Callable[[list[str]], list[str]]] = {"transformers fp32": reference}
    runs |= {f"twinrank {precision}": translator.translate for precision, translator in ours.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run(sources)
            seconds[name].append(time.perf_counter() - start)
    base = median(seconds["transformers fp32"][1:])  # the first round warms up
    for name, taken in seconds.items():
        low, middle, high = min(taken[1:]), median(taken[1:]), max(taken[1:])
        ratios = [b / t for b, t in zip(seconds["transformers fp32"][1:], taken[1:], strict=True)]
        print(
            f"{name}: {len(sources)} sentences, beams {BEAMS}, {threads} thread(s), {rounds} rounds: median {middle:.2f} s "
            f"({low:.2f} to {high:.2f}), {len(sources) / middle:.1f} sentences/s, {base / middle:.2f} x transformers "
            f"(median of paired ratios {median(ratios):.2f})",
            flush=True,
        )


def measure_agreement(translator: Translator, checkpoint: str, name: str, sources: list[str], threads: int) -> None:
    reference = reference_translate(checkpoint, threads)
    if reference is None:
        return
    differing = list(_differing(sources, translator.translate(sources), reference(sources)))
    print(
        f"{name}: {len(sources) - len(differing)} of {len(sources)} translations in fp32 are transformers', letter for letter"
    )
    for source, here, there in differing[:5]:
        print(f"  {source}\n    twinrank      {here}\n    transformers  {there}")


def _differing(sources: list[str], ours: list[str], theirs: list[str]) -> Iterator[tuple[str, str, str]]:
    yield from (triple for triple in zip(sources, ours, theirs, strict=True) if triple[1] != triple[2])


if __name__ == "__main__":
    main()
