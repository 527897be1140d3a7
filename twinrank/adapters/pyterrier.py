"""PyTerrier: a collection as a retriever, an encoder of queries and documents, a cross-encoder or MaxSim as a reranker."""

from __future__ import annotations

from typing import Any

from twinrank.adapters import common
from twinrank.collection import Collection
from twinrank.models.hub import DEFAULT_MODEL

try:
    import pandas as pd
    import pyterrier as pt
except ImportError as error:
    raise common.missing("PyTerrier", "pyterrier") from error

FOUND = ["docno", "score", "rank", "title", "text", "probability"]


class TwinrankRetriever(pt.Transformer):
    """Queries → documents of a collection: `TwinrankRetriever("papers.twinrank").search("does zinc help?")`.

    `collection` is an opened one or its directory; the other options are those of `Collection.search`. In: qid and query. Out:
    also docno, score, rank, title, text (the best passage) and probability (NaN where nothing was calibrated), so that a
    reranker may follow: `TwinrankRetriever(folder) % 50 >> TwinrankReranker(model)`.
    """

    def __init__(
        self,
        collection: Collection | common.Place,
        *,
        k: int = 1000,
        where: str | None = None,
        deadline: float | None = None,
        min_probability: float | None = None,
        risk: float | None = None,
    ) -> None:
        self.collection = common.open_collection(collection)
        self.k = k
        self.where = where
        self.options = {"deadline": deadline, "min_probability": min_probability, "risk": risk}

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        pt.validate.query_frame(inp, extra_columns=["query"], context=self)
        queries = inp.drop(columns=[name for name in FOUND if name in inp.columns])
        rows = [self._found(query) for query in queries["query"]]
        found = pd.DataFrame(
            [{"place": place, **row} for place, hits in enumerate(rows) for row in hits], columns=["place", *FOUND]
        )
        repeated = queries.iloc[found.pop("place").astype(int)].reset_index(drop=True)
        found = found.astype({"score": float, "rank": int, "probability": float})
        return pd.concat([repeated, found], axis=1)

    def _found(self, query: str) -> list[dict[str, Any]]:
        hits = self.collection.search(query, self.k, where=self.where, **self.options)
        return [
            {
                "docno": docno,
                "score": hit.score,
                "rank": hit.rank - 1 + pt.model.FIRST_RANK,
                "title": hit.title,
                "text": hit.text,
                "probability": hit.probability,
            }
            for hit, docno in zip(hits, common.passage_ids(hits), strict=True)
        ]

    def __repr__(self) -> str:
        return f"TwinrankRetriever({str(self.collection.path)!r}, k={self.k})"


class TwinrankEncoder(pt.Transformer):
    """Queries → query_vec, texts → doc_vec: the names that PyTerrier's dense plugins give vectors.

    `model` is the name or folder of a bi-encoder or a twin tower, or an opened one. The title is read with the text, where the
    frame has a column `title_key`.
    """

    def __init__(self, model: common.TextEncoder | common.Place = DEFAULT_MODEL, *, title_key: str = "title") -> None:
        self.encoder = common.open_encoder(model)
        self.title_key = title_key

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        with pt.validate.any(inp, context=self) as frame:
            frame.columns(includes=["query"])
            frame.columns(includes=["text"])
        found = {}
        if "query" in inp.columns:
            queries = {query: place for place, query in enumerate(dict.fromkeys(inp["query"]))}
            vectors = self.encoder.encode(list(queries), side="query")  # (different queries, dimension)
            found["query_vec"] = pd.Series([vectors[queries[query]] for query in inp["query"]], inp.index, object)
        if "text" in inp.columns:
            found["doc_vec"] = pd.Series(list(self.encoder.encode(_texts(inp, self.title_key))), inp.index, object)
        return inp.assign(**found)

    def __repr__(self) -> str:
        return f"TwinrankEncoder({self.encoder.name!r})"


class TwinrankReranker(pt.Transformer):
    """Queries with texts → new scores and ranks: `bm25 >> pt.text.get_text(dataset) >> TwinrankReranker(model)`.

    `model` is the name or folder of a cross-encoder, a ColBERT or a bi-encoder, or an opened one. All rows are kept; cut them
    before (`% 50`). The title is read with the text, where the frame has a column `title_key`.
    """

    def __init__(self, model: common.PairScorer | common.Place, *, title_key: str = "title") -> None:
        self.scorer = common.open_scorer(model)
        self.title_key = title_key

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        pt.validate.result_frame(inp, extra_columns=["query", "text"], context=self)
        scores = self.scorer.score(list(zip(inp["query"].tolist(), _texts(inp, self.title_key), strict=True)))
        return pt.model.add_ranks(inp.assign(score=scores.astype(float)))

    def __repr__(self) -> str:
        return f"TwinrankReranker({self.scorer.name!r})"


def _texts(frame: pd.DataFrame, title_key: str) -> list[str]:
    if title_key not in frame.columns:
        return [str(text) for text in frame["text"]]
    pairs = zip(frame["text"], frame[title_key], strict=True)
    return [common.titled(str(text), {title_key: title}, title_key) for text, title in pairs]
