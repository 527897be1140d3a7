"""Early stopping measured: pairs scored, answers changed and nDCG@10 at a stated risk, learned on queries that are not judged.

python bench/anytime.py scifact:train:test wikiqa:dev:test cranfield:test --reranker FOLDER [--bi-encoder FOLDER]
    [--data FOLDER] [--learn 300] [--judge 200] [--risks 0.05 0.1] [--tops 10 3 1] [--made]

A set is name:split to learn on:split to judge on; with one split, its queries are dealt into two halves with a seed. The first
stage is the default recipe's, 100 candidates of vectors and BM25. Each reranker scores every pair once; then the stage is run
again at each risk over the scores that are remembered, so that what is counted is what it asked for. With --bi-encoder the
reranker is a bi-encoder that reads the passages when the query comes, at a forward pass a passage as with a cross-encoder. With
--made the rule is learned from queries made of the collection's own titles and sentences: no promise for asked ones; see how it
does. "Changed" are queries whose first documents are not the full rerank's, in its order; beside it stand the bounds of Clopper
and Pearson, at 95 % each.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np

from twinrank import learned
from twinrank.collection import Collection
from twinrank.evaluate.metrics import measure
from twinrank.models.biencoder import BiEncoder
from twinrank.models.crossencoder import CrossEncoder
from twinrank.readers import read_dataset
from twinrank.recipe import Recipe
from twinrank.search.anytime import Anytime
from twinrank.search.cache import PairScores
from twinrank.search.pipeline import Pipeline
from twinrank.search.rerank import Asked
from twinrank.stopping import Rule, upper_bound
from twinrank.types import Keys, Ranking, Scores

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
CANDIDATES = 100
SEED = 5


class CosineScorer:
    """A bi-encoder as a reranker; what it makes of a text is remembered, since only the count of pairs is measured here."""

    def __init__(self, model: str) -> None:
        self.encoder = BiEncoder(model, max_tokens=256)
        self.name, self.fingerprint = self.encoder.name, f"cosine {self.encoder.fingerprint}"
        self._known: dict[str, np.ndarray] = {}

    def score(self, pairs: Sequence[tuple[str, str]]) -> Scores:
        missing = list(dict.fromkeys(text for _, text in pairs if text not in self._known))
        if missing:
            self._known.update(zip(missing, self.encoder.encode(missing), strict=True))
        queries = {query: self.encoder.encode([query], side="query")[0] for query in {query for query, _ in pairs}}
        return np.array([queries[query] @ self._known[text] for query, text in pairs], np.float32)


@dataclass(frozen=True)
class Bench:
    collection: Collection
    pipeline: Pipeline
    stage: Anytime

    @classmethod
    def open(cls, data: Path, scorer: CrossEncoder | CosineScorer) -> Bench:
        folder = CACHE / "twinrank" / "bench" / f"{data.resolve().name}.twinrank"
        folder.parent.mkdir(parents=True, exist_ok=True)
        collection = Collection(folder, recipe=Recipe())
        if not len(collection):
            collection.add(data / "corpus.jsonl")
        remembered = PairScores(10_000_000)

        def score(query: str, keys: Keys) -> Scores:
            texts = {passage.key: passage.titled_text for passage in collection.store.passages(keys)}
            return remembered.score(scorer, [(query, texts[key]) for key in keys.tolist()])

        plain = collection.pipeline()
        index = plain.sources[0][0].index
        stage = Anytime("rerank", score, CANDIDATES, owners=collection.store.documents_of, vectors=index.vectors)
        return cls(collection, plain, stage)

    def run(self, query: str, stage: Anytime, top: int) -> tuple[Ranking, int, int]:
        ranking, trace = replace(self.pipeline, rerank=[stage]).run(query, asked=Asked(k=top))
        certificate = trace.certificates[-1]
        return ranking, certificate.pairs, certificate.of

    def documents(self, ranking: Ranking) -> dict[str, float]:
        """Document id → score of its best passage, the first hundred."""
        info = self.collection.store.document_info(ranking.keys)
        found: dict[str, float] = {}
        for key, score in ranking:
            if key in info:
                found.setdefault(info[key].id, score)
        return dict(list(found.items())[:100])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+")
    parser.add_argument("--data", type=Path, default=CACHE / "twinrank-data")
    parser.add_argument("--reranker")
    parser.add_argument("--bi-encoder")
    parser.add_argument("--learn", type=int, default=300)
    parser.add_argument("--judge", type=int, default=200)
    parser.add_argument("--risks", type=float, nargs="+", default=[0.05, 0.1])
    parser.add_argument("--tops", type=int, nargs="+", default=[10, 3, 1])
    parser.add_argument("--made", action="store_true")
    given = parser.parse_args()
    if (given.reranker is None) == (given.bi_encoder is None):
        parser.error("give one of --reranker and --bi-encoder")
    scorer = CrossEncoder(given.reranker) if given.reranker else CosineScorer(given.bi_encoder)
    for one in given.sets:
        measure_set(one, scorer, given)


def measure_set(spec: str, scorer: CrossEncoder | CosineScorer, given: argparse.Namespace) -> None:
    name, first, *second = spec.split(":")
    bench = Bench.open(given.data / name, scorer)
    learning, judging, qrels = deal(given.data / name, first, second[0] if second else first, given.learn, given.judge)
    if given.made:
        learning = learned.made_queries(bench.collection.store, given.learn)
    pipeline = replace(bench.pipeline, rerank=[bench.stage])
    started = perf_counter()
    examples = learned.observe(pipeline, learning)[bench.stage.name]
    observed = perf_counter() - started
    rule = Rule.learn(examples)
    origin = "made" if given.made else first
    print(
        f"{name}, {scorer.name}: {len(learning)} queries ({origin}) learned from in {observed:.0f} s and fitted in "
        f"{perf_counter() - started - observed:.0f} s, {len(judging)} judged",
        flush=True,
    )
    graded = {query: qrels[query] for query in judging}
    unranked = {query: bench.documents(bench.pipeline.run(text)[0]) for query, text in judging.items()}
    full = {query: bench.run(text, bench.stage, 10)[0] for query, text in judging.items()}
    whole = {query: bench.documents(ranking) for query, ranking in full.items()}
    print(f"  nDCG@10: first stage {ndcg(graded, unranked):.4f}, full rerank {ndcg(graded, whole):.4f}", flush=True)
    for top in given.tops:
        for risk in given.risks:
            stage = replace(bench.stage, rule=rule, risk=risk, top=top)
            changed, shares, stopped = 0, [], {}
            for query, text in judging.items():
                ranking, pairs, of = bench.run(text, stage, 10)
                stopped[query] = bench.documents(ranking)
                changed += list(stopped[query])[:top] != list(whole[query])[:top]
                shares.append(pairs / max(of, 1))
            low, high = 1 - upper_bound(len(judging) - changed, len(judging)), upper_bound(changed, len(judging))
            told = {
                "set": name,
                "reranker": scorer.name,
                "learned": origin,
                "calibrated": rule.queries,
                "top": top,
                "risk": risk,
                "pairs": round(float(np.mean(shares)), 4),
                "changed": changed,
                "of": len(judging),
                "low": round(low, 4),
                "high": round(high, 4),
                "ndcg": round(ndcg(graded, stopped), 4),
                "lost": round(ndcg(graded, whole) - ndcg(graded, stopped), 4),
            }
            print("  " + json.dumps(told), flush=True)
    bench.collection.close()


def deal(
    data: Path, first: str, second: str, learn: int, judge: int
) -> tuple[list[str], dict[str, str], dict[str, dict[str, int]]]:
    """(texts to learn from, queries to judge, their judgments); what is judged is not learned from."""
    draw = np.random.default_rng(SEED)
    judged = read_dataset(data, split=second)
    usable = [query for query in judged.queries if any(grade > 0 for grade in judged.qrels.get(query, {}).values())]
    order = [usable[place] for place in draw.permutation(len(usable))]
    if first == second:
        kept, others = order[: min(judge, len(order) // 2)], order[len(order) // 2 :]
        learning = [judged.queries[query] for query in others][:learn]
    else:
        kept = order[:judge]
        texts = list(read_dataset(data, split=first).queries.values())
        learning = [texts[place] for place in draw.permutation(len(texts))[:learn]]
    judging = {query: judged.queries[query] for query in kept}
    fresh = [text for text in learning if text not in set(judging.values())]
    return fresh, judging, {query: dict(judged.qrels[query]) for query in kept}


def ndcg(qrels: dict[str, dict[str, int]], run: dict[str, dict[str, float]]) -> float:
    return measure(qrels, run, ["nDCG@10"]).means["nDCG@10"]


if __name__ == "__main__":
    main()
