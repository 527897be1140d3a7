"""Answers measured: whether the sentence that answers is quoted first, what the check of a model's sentences lets by.

python bench/answers.py choose DATA [--reranker FOLDER]    the shares of model, words and document, on dev parts
python bench/answers.py report DATA [--reranker FOLDER]    sentence accuracy and reciprocal rank on test parts, by recipe
python bench/answers.py support DATA [MODEL …]             errors of the check on dev and test parts, by kind of pair
python bench/answers.py budgets DATA                       what a smaller budget loses and saves, on dev parts
python bench/answers.py know DATA                          calibrated on dev: what is answered on test, and what of it is right

DATA holds wikiqa, squad_sent, xquad_en and xquadr_en, xquad_ru and xquadr_ru, mrpc and stsb_en. Documents are made of sentences
that are judged singly: wikiqa's of one article, five in a row of squad_sent (which does not say where paragraphs end), XQuAD's
own paragraphs. XQuAD's questions are in the dev part of squad_sent; they are left out there. A quote is right where it shares
more than half of the shorter of the two with a judged sentence. Collections are kept in a folder of the cache.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise, product
from pathlib import Path

import numpy as np

from twinrank import BiEncoder, Collection, Recipe
from twinrank.answer.answering import TOKENS
from twinrank.answer.excerpts import units_of
from twinrank.answer.likeness import SHARES, Kind, Words
from twinrank.answer.means import means_of
from twinrank.answer.result import Answer
from twinrank.answer.support import BY_WORDS, ENOUGH, ENOUGH_WORDS, Evidence, LikenessVerifier
from twinrank.models.heads import normalize
from twinrank.models.hub import DEFAULT_MODEL
from twinrank.readers.judged import Dataset
from twinrank.search.weights import UNRELATED, contrast_of
from twinrank.text import Analyzer

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "twinrank-answers"
QUESTIONS = 600
"""Drawn of each set, where it has more."""
DEPTH = 10

# -- questions whose answering sentence is known ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Judged:
    """Documents, questions, and where the sentences stand that answer them: question → [(document, start, end)]."""

    name: str
    documents: list[dict[str, str]]
    questions: dict[str, str]
    places: dict[str, list[tuple[str, int, int]]]

    def only(self, keys: list[str]) -> Judged:
        return replace(
            self, questions={key: self.questions[key] for key in keys}, places={key: self.places[key] for key in keys}
        )

    def drawn(self, most: int) -> Judged:
        keys = list(self.questions)
        random.Random(5).shuffle(keys)
        return self.only(keys[:most])

    def collection(self, recipe: Recipe, label: str) -> Collection:
        collection = Collection(CACHE / f"{self.name}-{label}.twinrank", recipe=recipe)
        if len(collection) != len(self.documents):
            collection.add(self.documents)
        return collection


def rows(file: Path) -> Iterator[dict[str, str]]:
    with file.open(encoding="utf-8") as stream:
        yield from map(json.loads, stream)


def judgments(file: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    with file.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream, delimiter="\t"):
            if int(row["score"]) > 0:
                found.setdefault(row["query-id"], set()).add(row["corpus-id"])
    return found


def of_sentences(data: Path, name: str, split: str, owner: Callable[[int, str], str]) -> Judged:
    """Documents made of the sentences of a corpus that belong to one `owner` (place, id), a line each."""
    texts: dict[str, str] = {}
    titles: dict[str, str] = {}
    at: dict[str, tuple[str, int, int]] = {}
    for place, row in enumerate(rows(data / name / "corpus.jsonl")):
        document = owner(place, row["_id"])
        start = len(texts.setdefault(document, ""))
        at[row["_id"]] = document, start, start + len(row["text"])
        texts[document] += row["text"] + "\n"
        titles[document] = row.get("title", "")
    documents = [{"id": key, "title": titles[key], "text": text} for key, text in texts.items()]
    qrels = judgments(data / name / "qrels" / f"{split}.tsv")
    known = {row["_id"]: row["text"] for row in rows(data / name / "queries.jsonl")}
    return Judged(f"{name}", documents, {key: known[key] for key in qrels}, {key: [at[s] for s in qrels[key]] for key in qrels})


def wikiqa(data: Path, split: str) -> Judged:
    return of_sentences(data, "wikiqa", split, lambda _, name: name.split("-")[0])


def squad(data: Path, split: str) -> Judged:
    whole = of_sentences(data, "squad_sent", split, lambda place, _: f"block{place // 5}")
    others = {letters(row["text"]) for row in rows(data / "xquad_en" / "queries.jsonl")}
    return whole.only([key for key, text in whole.questions.items() if letters(text) not in others])


def xquad(data: Path, language: str) -> Judged:
    documents = [
        {"id": r["_id"], "title": r["title"], "text": r["text"]} for r in rows(data / f"xquad_{language}" / "corpus.jsonl")
    ]
    sentences = {row["_id"]: row["text"] for row in rows(data / f"xquadr_{language}" / "corpus.jsonl")}
    at: dict[str, tuple[str, int, int]] = {}
    for name, text in sentences.items():
        for document in documents:
            if (start := document["text"].find(text)) >= 0:
                at[name] = document["id"], start, start + len(text)
                break
    qrels = judgments(data / f"xquadr_{language}" / "qrels" / "test.tsv")
    known = {row["_id"]: row["text"] for row in rows(data / f"xquadr_{language}" / "queries.jsonl")}
    places = {key: [at[s] for s in found if s in at] for key, found in qrels.items()}
    kept = [key for key in places if places[key]]
    return Judged(f"xquad_{language}", documents, {key: known[key] for key in kept}, {key: places[key] for key in kept})


def letters(text: str) -> str:
    return re.sub(r"[\W_]+", "", text.lower())


def right(places: list[tuple[str, int, int]], document: str, start: int, end: int) -> bool:
    return any(
        document == judged and min(end, last) - max(start, first) > min(end - start, last - first) / 2
        for judged, first, last in places
    )


def recipes(language: str, reranker: str | None) -> dict[Kind, Recipe]:
    words = f'[words]\nlanguage = "{language}"\n'
    found: dict[Kind, Recipe] = {
        "words": Recipe.parse(f'[encoder]\nmodel = "none"\n{words}'),
        "bi-encoder": Recipe.parse(words),
    }
    if reranker:
        stage = f'[[rerank]]\nkind = "cross-encoder"\nmodel = "{reranker}"\ncandidates = 20\n'
        found["cross-encoder"] = Recipe.parse(words + stage)
    return found


# -- choosing and reporting -------------------------------------------------------------------------------------------------


def first_right(flags: np.ndarray) -> int | None:
    places = np.flatnonzero(flags[:DEPTH])
    return int(places[0]) if len(places) else None


def told(ranks: list[int | None]) -> tuple[float, float, float]:
    """Accuracy of the first, of the first three, mean reciprocal rank within ten."""
    return (
        float(np.mean([rank == 0 for rank in ranks])),
        float(np.mean([rank is not None and rank < 3 for rank in ranks])),
        float(np.mean([0.0 if rank is None else 1 / (rank + 1) for rank in ranks])),
    )


def choose(data: Path, reranker: str | None, most: int) -> None:
    sets = [judged.drawn(most) for judged in (wikiqa(data, "dev"), squad(data, "dev"))]
    for kind, recipe in recipes("english", reranker).items():
        seen = [list(columns(judged, recipe, kind)) for judged in sets]
        grid = product((0.0, 0.25, 0.5, 1.0), (0.0, 0.25, 0.5, 0.75, 1.0), (0.0, 0.25, 0.5))
        tried = [shares for shares in grid if sum(shares) and (shares[0] == 0) == (kind == "words")]
        found = {shares: [told([rank_by(part, shares) for part in parts]) for parts in seen] for shares in tried}
        best = sorted(found, key=lambda shares: -np.mean([of[2] for of in found[shares]]))
        print(
            f"{kind}: model, words, document → accuracy@1, @3, MRR@10 on {', '.join(f'{j.name} dev' for j in sets)}; mean MRR"
        )
        for shares in [*best[:5], SHARES[kind]]:
            values = found.get(shares) or [told([rank_by(part, shares) for part in parts]) for parts in seen]
            cells = " | ".join(" ".join(f"{value:.3f}" for value in of) for of in values)
            mark = "  (in use)" if shares == SHARES[kind] else ""
            print(f"  {shares} → {cells} | {np.mean([of[2] for of in values]):.4f}{mark}", flush=True)


def columns(judged: Judged, recipe: Recipe, kind: Kind) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each question what is known of the sentences that were read, (sentences, 3), and which of them answer it."""
    with judged.collection(recipe, kind.replace(" ", "-")) as collection:
        likeness = means_of(collection.assembly, collection.indexes().words).likeness
        assert likeness.kind == kind
        for key, question in judged.questions.items():
            units = [
                (source, excerpt.text[start:end], excerpt.start + start, excerpt.start + end)
                for source in collection.answer(question, DEPTH).sources
                for excerpt in source.excerpts
                for start, end in units_of(excerpt.text)
            ]
            if not units:
                yield np.zeros((0, 3)), np.zeros(0, bool)
                continue
            texts = [text for _, text, _, _ in units]
            titled = [f"{source.title} {text}".strip() for source, text, _, _ in units]
            known = likeness.columns(question, texts, titled, [source.score for source, *_ in units])
            yield known, np.array([right(judged.places[key], source.id, start, end) for source, _, start, end in units])


def rank_by(part: tuple[np.ndarray, np.ndarray], shares: tuple[float, ...]) -> int | None:
    known, flags = part
    return first_right(flags[np.argsort(-(known @ np.array(shares)), kind="stable")])


def report(data: Path, reranker: str | None, most: int) -> None:
    print("| set | questions | recipe | read | accuracy@1 | @3 | MRR@10 | CPU ms (median) |\n|---|---|---|---|---|---|---|---|")
    sets = [(wikiqa(data, "test"), "english"), (squad(data, "test"), "english")]
    sets += [(xquad(data, "en"), "english"), (xquad(data, "ru"), "russian")]
    for judged, language in ((judged.drawn(most), language) for judged, language in sets):
        for kind, recipe in recipes(language, reranker).items():
            with judged.collection(recipe, kind.replace(" ", "-")) as collection:
                print(f"| {judged.name} | {len(judged.questions):,} | {kind} | {line(judged, collection)} |", flush=True)


def budgets(data: Path, most: int) -> None:
    recipe = recipes("english", None)["bi-encoder"]
    print("| set | budget | read | accuracy@1 | @3 | MRR@10 | CPU ms (median) |\n|---|---|---|---|---|---|---|")
    for judged in (wikiqa(data, "dev").drawn(most), squad(data, "dev").drawn(most)):
        with judged.collection(recipe, "bi-encoder") as collection:
            for budget in (500, 1000, 2000):
                print(f"| {judged.name} | {budget} | {line(judged, collection, budget)} |", flush=True)


def line(judged: Judged, collection: Collection, budget: int = TOKENS) -> str:
    """The share of questions whose sentence was read, accuracies and reciprocal rank, and the time of an answer."""
    ranks, times, read = [], [], 0
    for key, question in judged.questions.items():
        started = time.process_time()
        answer = collection.answer(question, DEPTH, quotes=DEPTH, budget=budget)
        times.append(time.process_time() - started)
        places = judged.places[key]
        ranks.append(first_right(np.array([right(places, q.id, q.start, q.end) for q in answer.quotes], bool)))
        read += reads(answer, places)
    cells = " | ".join(f"{value:.3f}" for value in told(ranks))
    return f"{read / len(ranks):.3f} | {cells} | {1000 * np.median(times):.0f}"


def reads(answer: Answer, places: list[tuple[str, int, int]]) -> bool:
    return any(
        right(places, source.id, excerpt.start + start, excerpt.start + end)
        for source in answer.sources
        for excerpt in source.excerpts
        for start, end in units_of(excerpt.text)
    )


# -- the check of claims ----------------------------------------------------------------------------------------------------

Pair = tuple[str, tuple[str, ...]]
"""A claim, and the sentences that it cites."""


def pairs(data: Path, split: str) -> dict[str, tuple[bool, list[Pair]]]:
    """Kinds of pairs: whether the cited sentences say what is claimed, and examples; of squad_sent with ten neighbours."""
    chance = random.Random(3)
    mrpc, stsb = labelled(data / "mrpc" / f"{split}.tsv"), labelled(data / "stsb_en" / f"{split}.tsv")
    texts = [row["text"] for row in rows(data / "squad_sent" / "corpus.jsonl")]
    half = range(6_800, 10_000) if split == "dev" else range(10_000, len(texts) - 5)
    numbers = [i for i in half if re.search(r"\d{2,}", texts[i])]
    plain = [
        i for i in half if re.search(r" (is|was|are|were) ", texts[i]) and not re.search(r"\b(not|no|never)\b|n't", texts[i])
    ]

    def around(place: int, own: bool = True) -> tuple[str, ...]:
        return tuple(texts[i] for i in range(place - 5, place + 6) if own or i != place)

    def foreign(place: int) -> int:
        return half.start + (place - half.start + len(half) // 2) % len(half)

    def negated(text: str) -> str:
        return re.sub(r" (is|was|are|were) ", r" \1 not ", text, count=1)

    return {
        "verbatim, among its neighbours": (True, [(texts[i], around(i)) for i in chance.sample(half, 300)]),
        "paraphrase (mrpc 1)": (True, [(a, (b,)) for a, b, label in mrpc if label == 1]),
        "the same (stsb 4 to 5)": (True, [(a, (b,)) for a, b, label in stsb if label >= 4]),
        "same topic, other sentences": (False, [(texts[i], around(i, own=False)) for i in chance.sample(half, 600)]),
        "unlike (stsb 0 to 2)": (False, [(a, (b,)) for a, b, label in stsb if label <= 2]),
        "alike (stsb 2 to 3)": (False, [(a, (b,)) for a, b, label in stsb if 2 < label <= 3]),
        "near, with a difference (mrpc 0)": (False, [(a, (b,)) for a, b, label in mrpc if label == 0]),
        "a number changed": (False, [(changed(texts[i], chance), around(i)) for i in chance.sample(numbers, 300)]),
        "negated": (False, [(negated(texts[i]), around(i)) for i in chance.sample(plain, 300)]),
        "true, and then foreign": (False, [(f"{texts[i]} {texts[foreign(i)]}", around(i)) for i in chance.sample(half, 300)]),
        "two neighbours mixed": (False, [(swapped(texts[i], texts[i + 1]), around(i)) for i in chance.sample(half, 300)]),
    }  # fmt: skip


def changed(text: str, chance: random.Random) -> str:
    number = chance.choice(list(re.finditer(r"\d{2,}", text)))
    return text[: number.start()] + str(int(number[0]) + chance.choice([1, 3, 10])) + text[number.end() :]


def swapped(text: str, other: str) -> str:
    """The other sentence's first third with this one's rest: words of the source, which it does not say together."""
    one, two = text.split(), other.split()
    return " ".join([*two[: max(2, len(two) // 3)], *one[max(2, len(one) // 3) :]])


def labelled(file: Path) -> list[tuple[str, str, float]]:
    with file.open(encoding="utf-8", newline="") as stream:
        found = csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [(row["sentence1"], row["sentence2"], float(row["label"])) for row in found]


def support(data: Path, models: list[str]) -> None:
    words = Words(Analyzer("english"), lambda _: 1.0)
    kinds = {split: pairs(data, split) for split in ("dev", "test")}
    for model in ["", *(models or [DEFAULT_MODEL])]:
        verifier = by_vectors(words, BiEncoder(model), kinds) if model else LikenessVerifier(words)
        print(f"\n{Path(model or 'words alone').name}: the share that is taken as supported")
        print("| pairs | do they say it? | dev | test |\n|---|---|---|---|")
        seen = {split: findings(found, verifier) for split, found in kinds.items()}
        for kind, (true, dev) in seen["dev"].items():
            test = seen["test"][kind][1]
            cells = " | ".join(f"{np.mean([f.holds for f in part]):.3f} of {len(part):,}" for part in (dev, test))
            print(f"| {kind} | {'yes' if true else 'no'} | {cells} |", flush=True)
        enough = ENOUGH if model else ENOUGH_WORDS
        print(f"in use: words count for {BY_WORDS}, {enough} is enough; on dev, with each kind counting")
        print(f"the same and numbers and negation checked, the best mean accuracy is at {best_threshold(seen['dev']):.2f}")


def by_vectors(words: Words, encoder: BiEncoder, kinds: dict[str, dict[str, tuple[bool, list[Pair]]]]) -> LikenessVerifier:
    """A verifier whose vectors are made beforehand, all at once."""
    cited = [pair for found in kinds.values() for _, listed in found.values() for pair in listed]
    needed = {text for claim, said in cited for text in (claim, *said, *(" ".join(two) for two in pairwise(said)))}
    texts = sorted(needed)
    known = dict(zip(texts, normalize(encoder.encode(texts)), strict=True))
    contrast = contrast_of(*(encoder.encode(UNRELATED, side=side) for side in ("query", "document")))
    return LikenessVerifier(words, lambda wanted: np.stack([known[text] for text in wanted]), contrast)


def findings(kinds: dict[str, tuple[bool, list[Pair]]], verifier: LikenessVerifier) -> dict[str, tuple[bool, list]]:
    return {
        kind: (true, [verifier.check(claim, Evidence([cited])) for claim, cited in found])
        for kind, (true, found) in kinds.items()
    }


def best_threshold(seen: dict[str, tuple[bool, list]]) -> float:
    """The threshold of the best mean of accuracies on pairs that say it and pairs that do not, each kind counting the same."""

    def balance(threshold: float) -> float:
        shares = {True: [], False: []}
        for true, found in seen.values():
            kept = [f.support >= threshold and not f.why.startswith(("what it cites does not", "of this")) for f in found]
            shares[true].append(np.mean(kept) if true else 1 - np.mean(kept))
        return float((np.mean(shares[True]) + np.mean(shares[False])) / 2)

    return max(np.arange(0.2, 0.95, 0.01).round(2), key=balance)


# -- knowing that nothing is known --------------------------------------------------------------------------------------------


def know(data: Path) -> None:
    """Each test question twice: as it is, and with the documents that answer it kept out, so that none does."""
    from twinrank.evaluate.calibrating import Settings, calibrate

    dev, test = wikiqa(data, "dev"), wikiqa(data, "test")
    for kind, recipe in recipes("english", None).items():
        with dev.collection(recipe, f"{kind}-calibrated") as collection:
            qrels = {key: {document: 1 for document, _, _ in places} for key, places in dev.places.items()}
            fitting = Dataset("wikiqa", collection.path, collection.path, dev.questions, qrels, "dev")
            collection.keep_calibration(calibrate(collection, fitting, settings=Settings(withheld=0.5)).calibration)
            for name, wish in {"probability 0.5": {}, "risk 0.3": {"risk": 0.3}}.items():
                cells = []
                for hidden in (False, True):
                    known, good = 0, 0
                    for key, question in test.questions.items():
                        owners = sorted({document for document, _, _ in test.places[key]})
                        listed = ", ".join(f"'{owner}'" for owner in owners)
                        try:
                            answer = collection.answer(question, where=f"not id in ({listed})" if hidden else None, **wish)
                        except ValueError as error:
                            cells.append(str(error)[:80])
                            break
                        known += answer.known
                        good += any(right(test.places[key], q.id, q.start, q.end) for q in answer.quotes)
                    else:
                        cells.append(f"{known} answered, {good} with the sentence" if not hidden else f"{known} answered")
                print(f"| {kind} | {name} | {' | '.join(cells)} of {len(test.questions)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("choose", "report", "support", "budgets", "know"))
    parser.add_argument("data", type=Path)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--reranker")
    parser.add_argument("--questions", type=int, default=QUESTIONS, help="Of each set, drawn with a seed.")
    options = parser.parse_args()
    CACHE.mkdir(parents=True, exist_ok=True)
    if options.what == "choose":
        choose(options.data, options.reranker, options.questions)
    elif options.what == "report":
        report(options.data, options.reranker, options.questions)
    elif options.what == "budgets":
        budgets(options.data, options.questions)
    elif options.what == "support":
        support(options.data, options.models)
    else:
        know(options.data)


if __name__ == "__main__":
    main()
