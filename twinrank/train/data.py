"""What a model learns from: queries with the passages that answer them, others that do not, and what a teacher gave each."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from twinrank.errors import DataError
from twinrank.files import replacing
from twinrank.readers import Dataset, read_dataset
from twinrank.readers.tables import lines_of, parse_json


class Judged(NamedTuple):
    """A query, a passage, and how relevant it was said to be, or what a teacher gave it."""

    query: str
    passage: str
    score: float
    document: str = ""
    """That the passage is of."""


@dataclass(frozen=True)
class Example:
    """A query with the passages that answer it, some that do not, and, where a teacher was asked, its score for each.

    Without a passage that answers it still tells of others that they do not: a pair labelled 0.

    >>> Example("does zinc shorten a cold?", ("Zinc may shorten a cold.",), ("Honey eases a cough.",), (4.2, -1.5)).passages
    ('Zinc may shorten a cold.', 'Honey eases a cough.')
    """

    query: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...] = ()
    scores: tuple[float, ...] | None = None
    """The teacher's, one a passage: the positives' first, then the negatives'."""
    document: str = ""
    """What the example was made of, or where its positives come from: two examples of one never stand in one batch, and its
    passages are not drawn as negatives. Empty: nobody knows."""

    def __post_init__(self) -> None:
        if not self.passages:
            raise DataError(f"the query {self.query[:80]!r} has no passage; give one that answers, or one that does not")
        if self.scores is not None and len(self.scores) != len(self.positives) + len(self.negatives):
            raise DataError(
                f"the query {self.query[:80]!r} has {len(self.scores)} scores for "
                f"{len(self.positives)} positives and {len(self.negatives)} negatives; expected one for each"
            )

    @property
    def passages(self) -> tuple[str, ...]:
        """The positives, then the negatives."""
        return self.positives + self.negatives


# -- known positives -----------------------------------------------------------------------------------------------------


def same_text(text: str) -> str:
    """What two texts have in common that are the same to a reader: letters in one case, white space as single blanks.

    >>> same_text("Zinc  may\\nshorten a cold.") == same_text("zinc may shorten a COLD.")
    True
    """
    return " ".join(text.casefold().split())


def known_positives(examples: Iterable[Example]) -> dict[str, set[str]]:
    """Query → passages that answer it, both as `same_text` has them, over all examples of the query."""
    known: dict[str, set[str]] = {}
    for example in examples:
        known.setdefault(same_text(example.query), set()).update(map(same_text, example.positives))
    return known


def known_answers(examples: Sequence[Example]) -> list[frozenset[str]]:
    """One an example: what may not be its negative, as `same_text` has it. Known to answer its query, or of its document.

    >>> made = [Example("a cold", ("zinc",), document="d1"), Example("relief", ("honey",), document="d1")]
    >>> [sorted(known) for known in known_answers(made)]
    [['honey', 'zinc'], ['honey', 'zinc']]
    """
    known = known_positives(examples)
    of_document: dict[str, set[str]] = {}
    for example in examples:
        if example.document:
            of_document.setdefault(example.document, set()).update(map(same_text, example.positives))
    found: dict[tuple[str, str], frozenset[str]] = {}  # one for all examples of a query, which may be many
    for example in examples:
        key = same_text(example.query), example.document
        if key not in found:
            found[key] = frozenset(known[key[0]] | of_document.get(key[1], set()))
    return [found[same_text(example.query), example.document] for example in examples]


def merged(examples: Iterable[Example]) -> list[Example]:
    """One example of all that have the same query and positives, with the negatives of all of them.

    Files of triples repeat a query for each negative. What a teacher scored is not merged with what none did.

    >>> [one] = merged([Example("cold", ("zinc",), ("honey",)), Example("cold", ("zinc",), ("rest", "honey"))])
    >>> one.negatives
    ('honey', 'rest')
    """
    groups: dict[tuple[str, tuple[str, ...], str, bool], list[Example]] = {}
    for one in examples:
        key = (same_text(one.query), tuple(map(same_text, one.positives)), one.document, one.scores is None)
        groups.setdefault(key, []).append(one)
    return [several[0] if len(several) == 1 else _joined(several) for several in groups.values()]


def _joined(several: Sequence[Example]) -> Example:
    """The first example with everybody's negatives, each once, and with their scores: of two for a passage the first."""
    first = several[0]
    if first.scores is None:
        return replace(first, negatives=tuple(dict.fromkeys(text for one in several for text in one.negatives)))
    count = len(first.positives)
    scores: dict[str, float] = {}
    for one in several:
        for text, score in zip(one.negatives, (one.scores or ())[count:], strict=True):
            scores.setdefault(text, score)
    return replace(first, negatives=tuple(scores), scores=(*first.scores[:count], *scores.values()))


# -- reading -------------------------------------------------------------------------------------------------------------


def read_examples(source: Path | str, *, split: str = "train") -> list[Example]:
    """The examples of a BEIR folder's split, of a TSV or CSV file, or of a JSONL file.

    A table has a header of two or three columns, whatever they are called: query and passage; query, passage and a number
    (a score or label); query, passage and a passage that does not answer. JSON lines are objects with a query (`query`,
    `anchor`, `question`) and passages (`positives`, `pos`, `positive`, `passage`, one or a list; `negatives`, `neg`,
    `negative` as well), with `scores`, one a passage, or one `score` or `label`, and with the name of the `document`.
    """
    place = Path(source)
    if place.is_dir():
        return of_dataset(read_dataset(place, split=split))
    if not place.is_file():
        raise DataError(f"{place} is neither a folder in BEIR's layout nor a file of examples (.tsv, .csv, .jsonl)")
    name = place.name.removesuffix(".gz").lower()
    if name.endswith((".jsonl", ".ndjson", ".json")):
        found = list(_json_examples(place))
    elif name.endswith((".tsv", ".csv", ".txt")):
        found = _table_examples(place, "," if name.endswith(".csv") else "\t")
    else:
        raise DataError(f"{place}: expected a .tsv, .csv or .jsonl file, or a folder in BEIR's layout")
    if not found:
        raise DataError(f"{place} holds no examples")
    return found


def of_dataset(dataset: Dataset) -> list[Example]:
    """A query's relevant documents (grades above 0) as positives, those judged not to be as negatives: title, then text.

    Queries without a relevant document in the corpus are left out.
    """
    wanted = {document for grades in dataset.qrels.values() for document in grades}
    texts = {
        document.id: f"{document.title} {document.text}".strip() for document in dataset.documents() if document.id in wanted
    }
    examples = []
    for query, text in dataset.queries.items():
        grades = {document: grade for document, grade in dataset.qrels[query].items() if texts.get(document)}
        positives = tuple(texts[document] for document, grade in grades.items() if grade > 0)
        if positives:
            examples.append(Example(text, positives, tuple(texts[d] for d, grade in grades.items() if grade <= 0)))
    if not examples:
        raise DataError(f"{dataset.name}, split {dataset.split!r}: no query has a relevant document in the corpus")
    return examples


def of_scores(judged: Iterable[Judged]) -> list[Example]:
    """Scored passages → one example a query: the best of its passages are the positives, the others negatives.

    A score of 0 or below never makes a positive: such a query has passages that do not answer it, and no other.

    >>> [made] = of_scores([Judged("cold", "honey", 0.0), Judged("cold", "zinc", 1.0)])
    >>> made.positives, made.negatives, made.scores
    (('zinc',), ('honey',), (1.0, 0.0))
    """
    lists: dict[str, dict[str, Judged]] = {}
    for one in judged:
        lists.setdefault(one.query, {})[one.passage] = one
    examples = []
    for query, passages in lists.items():
        ranked = sorted(passages.values(), key=lambda one: -one.score)  # stable: in the order given among equals
        best = [one.passage for one in ranked if one.score == ranked[0].score and one.score > 0]
        others = tuple(one.passage for one in ranked[len(best) :])
        document = ranked[0].document if best else ""
        examples.append(Example(query, tuple(best), others, tuple(one.score for one in ranked), document))
    return examples


def _table_examples(place: Path, delimiter: str) -> list[Example]:
    # In a TSV a quotation mark is a character like others; in a CSV it encloses what holds commas.
    csv.field_size_limit(2**31 - 1)
    lines = lines_of(place, _refusing(place))
    rows = csv.reader(lines) if delimiter == "," else csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    header = [name.strip() for name in next(rows, [])]
    if len(header) not in (2, 3):
        raise DataError(
            f"{place}: expected a header of 2 or 3 columns, query, passage and a score or another passage; got {header}"
        )
    plain: list[Example] = []
    scored: list[Judged] = []
    for number, row in enumerate(rows, start=2):
        if not any(cell.strip() for cell in row):
            continue
        cells = [cell.strip() for cell in row]
        if len(cells) != len(header) or not all(cells):
            raise DataError(
                f"{place}, line {number}: expected {len(header)} texts under {header}, got {len(cells)}: {cells[:4]}"
            )
        score = _number(cells[2]) if len(cells) == 3 else None
        if score is not None:
            if not math.isfinite(score):
                raise DataError(f"{place}, line {number}: expected a score or label that is a finite number, got {cells[2]!r}")
            scored.append(Judged(cells[0], cells[1], score))
        else:
            plain.append(Example(cells[0], (cells[1],), tuple(cells[2:])))
    if plain and scored:
        raise DataError(f"{place}: the third column holds numbers in {len(scored):,} lines and texts in {len(plain):,}")
    return plain or of_scores(scored)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


QUERIES = ("query", "anchor", "question", "sentence1", "source")
POSITIVES = ("positives", "pos", "positive", "passage", "answer", "sentence2", "target")
NEGATIVES = ("negatives", "neg", "negative")


def _json_examples(place: Path) -> Iterator[Example]:
    single: list[Judged] = []
    for number, line in enumerate(lines_of(place, _refusing(place)), start=1):
        if not line.strip():
            continue
        where = f"{place}, line {number}"
        try:
            record = parse_json(line)
        except ValueError as error:
            raise DataError(f"{where}: not JSON ({error})") from error
        if not isinstance(record, dict):
            raise DataError(f"{where}: expected an object, got {type(record).__name__}")
        given = _json_example(record, where)
        if isinstance(given, Judged):
            single.append(given)
        else:
            yield given
    yield from of_scores(single)


def _json_example(record: Mapping[str, object], where: str) -> Example | Judged:
    """A whole example, or a passage with the one number that it was given, which others of its query may stand beside."""
    queries, positives, negatives = (_texts(record, names, where) for names in (QUERIES, POSITIVES, NEGATIVES))
    only_negatives = record.get("positives") == [] and negatives  # said outright, not left out by mistake
    if len(queries) != 1 or not (positives or only_negatives):
        raise DataError(f"{where}: expected a 'query' and 'positives'; its keys are {', '.join(map(repr, record))}")
    scores, document = _scores(record, where), _document(record, where)
    one = len(positives) == 1 and not negatives and isinstance(record.get("score", record.get("label")), (int, float))
    if one and scores is not None:
        return Judged(queries[0], positives[0], scores[0], document)
    try:
        return Example(queries[0], positives, negatives, scores, document)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error


def _texts(record: Mapping[str, object], names: Sequence[str], where: str) -> tuple[str, ...]:
    given = next((record[name] for name in names if record.get(name) is not None), [])
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
        raise DataError(f"{where}: {names[0]} are texts; got {given!r:.100}")
    return tuple(text.strip() for text in texts)


def _scores(record: Mapping[str, object], where: str) -> tuple[float, ...] | None:
    given: object = record.get("scores")
    if given is None and "pos_scores" in record:
        parts = [record["pos_scores"], record.get("neg_scores") or []]
        given = [score for part in parts if isinstance(part, list) for score in part]
    if given is None:
        given = record.get("score", record.get("label"))
    if given is None:
        return None
    scores = given if isinstance(given, list) else [given]
    if not all(isinstance(score, (int, float)) and math.isfinite(score) for score in scores):
        raise DataError(f"{where}: scores are finite numbers; got {given!r:.100}")
    return tuple(map(float, scores))


def _document(record: Mapping[str, object], where: str) -> str:
    given = record.get("document")
    if given is not None and (not isinstance(given, (str, int)) or isinstance(given, bool)):
        raise DataError(f"{where}: a document is named by a text or a whole number; got {given!r:.100}")
    return "" if given is None else str(given)


def _refusing(place: Path) -> Callable[[str, str], None]:
    def refuse(reason: str, kind: str) -> None:
        raise DataError(f"{place}: {reason}; expected UTF-8")

    return refuse


# -- writing -------------------------------------------------------------------------------------------------------------


def write_examples(examples: Iterable[Example], file: Path | str) -> int:
    """Write examples as JSON lines that `read_examples` reads; what stood there is replaced whole. Returns their number."""
    count, place = 0, Path(file)
    with replacing(place, place.with_name(f"{place.name}.new")) as stream:
        for example in examples:
            record: dict[str, object] = {"query": example.query, "positives": example.positives}
            if example.negatives:
                record["negatives"] = example.negatives
            if example.scores is not None:
                record["scores"] = example.scores
            if example.document:
                record["document"] = example.document
            stream.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
            count += 1
    return count
