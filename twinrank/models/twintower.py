"""Twin tower: queries and documents each have their own network; both give vectors of one space, one vector a text.

Yi et al. 2019 (two towers), Dong et al. 2022 (asymmetric dual encoders). A small tower may answer queries on a laptop while
a large one encoded the documents.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import numpy.typing as npt

from twinrank.errors import InputError
from twinrank.models.biencoder import BiEncoder, checked_side, compare, warn_truncated
from twinrank.models.checkpoint import Checkpoint, Metric
from twinrank.models.router import write_router
from twinrank.models.runtime import PrecisionChoice, Progress
from twinrank.types import Scores, Side, Tokens, Vectors

if TYPE_CHECKING:
    from twinrank.models.clip import ClipEncoder

SIDES: tuple[Side, ...] = get_args(Side)


class TwinTower:
    """Texts → vectors by the tower of their side: `TwinTower(query=a, document=b).encode(texts, side="query")`.

    From two bi-encoders' checkpoints, or from one folder in sentence-transformers' Router layout: `TwinTower(folder)`. A tower
    is opened when a text of its side first comes, so that who only searches never loads the other; `TwinTower(query=a)` has
    no other. What bi-encoders read from a checkpoint, each tower reads from its own. Where the towers differ in dimensions,
    `projections` holds a matrix (dimensions wanted, dimensions given) for one side or both; it has to be a trained one.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        query: str | os.PathLike[str] | Checkpoint | None = None,
        document: str | os.PathLike[str] | Checkpoint | None = None,
        precision: PrecisionChoice = "auto",
        threads: int | None = None,
        max_tokens: int | None = None,
        normalize: bool | None = None,
        prompts: Mapping[str, str] | None = None,
        similarity: Metric | None = None,
        projections: Mapping[Side, npt.ArrayLike] | None = None,
    ) -> None:
        checkpoints = _find_checkpoints(model, query, document)
        for side, matrix in (projections or {}).items():
            checkpoints[side] = _on_side(checkpoints, side).projected(np.asarray(matrix, np.float32))
        self._options: dict[str, Any] = {
            "precision": precision,
            "threads": threads,
            "max_tokens": max_tokens,
            "normalize": normalize,
            "prompts": prompts,
            "similarity": similarity,
        }
        self._checkpoints = checkpoints
        self._towers = {side: BiEncoder(checkpoint, lazy=True, **self._options) for side, checkpoint in checkpoints.items()}
        _check_meeting(self._towers)
        self.name = " + ".join(dict.fromkeys(tower.name for tower in self._towers.values()))
        last = self._towers[list(self._towers)[-1]]  # the document's, where it is there
        self.dimension = last.dimension
        self.max_tokens = last.max_tokens
        """Tokens that a document may have; `tower("query").max_tokens` is the query's limit."""
        self.metric = last.metric
        self.prompts = {side: tower.prompts[side] for side, tower in self._towers.items()}

    @staticmethod
    def clip(folder: str | os.PathLike[str]) -> ClipEncoder:
        """The image-text case, one tower for texts and one for images: needs `twinrank[images]`."""
        from twinrank.models.clip import ClipEncoder

        return ClipEncoder(folder)

    def __repr__(self) -> str:
        towers = ", ".join(f"{side}={tower.name!r}" for side, tower in self._towers.items())
        return f"TwinTower({towers}, dimension={self.dimension})"

    @property
    def fingerprint(self) -> str:
        """Of both towers, and after the colon their precision, as that of a bi-encoder."""
        models, precisions = zip(*(tower.fingerprint.split(":") for tower in self._towers.values()), strict=True)
        content = " ".join(f"{side}={model}" for side, model in zip(self._towers, models, strict=True))
        return f"{hashlib.sha256(content.encode()).hexdigest()[:16]}:{'+'.join(dict.fromkeys(precisions))}"

    def tower(self, side: Side) -> BiEncoder:
        """The bi-encoder of one side."""
        if checked_side(side) not in self._towers:
            (other,) = self._towers
            raise InputError(
                f"{self.name} was opened for the {other} side alone; to encode a {side}, give its checkpoint too: "
                f"TwinTower(query=…, document=…)."
            )
        return self._towers[side]

    # -- texts → tokens → vectors -----------------------------------------------------------------------------------------

    def tokenize(self, texts: Sequence[str], *, side: Side = "document") -> Tokens:
        """Tokens of each text for its side's tower, with prompt and special tokens; `dropped` counts what did not fit."""
        return self.tower(side).tokenize(texts, side=side)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens that each text is to the document's tower, uncut, without prompt and special tokens."""
        return self.tower("document").count_tokens(texts)

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        """The characters (start, end) of every token of the text, as the document's tower sees it."""
        return self.tower("document").token_offsets(text)

    @property
    def text_tokens(self) -> int:
        """Tokens that a document's own text may have: the limit less special tokens and prompt."""
        return self.tower("document").text_tokens

    def embed(self, tokens: Tokens, *, side: Side = "document", progress: Progress | None = None) -> Vectors:
        """Vectors of texts tokenized for the same side: (texts, dimension)."""
        return self.tower(side).embed(tokens, side=side, progress=progress)

    def encode(self, texts: Sequence[str], *, side: Side = "document", progress: Progress | None = None) -> Vectors:
        """Vectors of texts: (texts, dimension). TruncationWarning where texts were longer than their tower takes."""
        tokens = self.tokenize(texts, side=side)
        warn_truncated(tokens, self.tower(side).max_tokens)
        return self.embed(tokens, side=side, progress=progress)

    def similarity(self, a: Vectors, b: Vectors) -> Scores:
        """How alike each of `a` is to each of `b`, larger is more: (a, b). Euclidean distances are given negative."""
        return compare(self.metric, np.atleast_2d(a), np.atleast_2d(b))

    # -- projections and files ----------------------------------------------------------------------------------------------

    def with_projection(self, side: Side, matrix: npt.ArrayLike) -> TwinTower:
        """The same towers with another projection at one side's end, before the normalisation where there is one."""
        checkpoints = {**self._checkpoints}
        checkpoints[side] = _on_side(checkpoints, side).projected(np.asarray(matrix, np.float32))
        return TwinTower(query=checkpoints.get("query"), document=checkpoints.get("document"), **self._options)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write both towers into a new folder, which sentence-transformers (5 and later) and `TwinTower(folder)` open.

        Networks and tokenizers are copied byte for byte. Raises InputError where the folder is there and not empty.
        """
        if missing := [side for side in SIDES if side not in self._towers]:
            raise InputError(f"{self.name} has no tower for the {missing[0]}; only both together are saved.")
        settings = {
            "model_type": "SentenceTransformer",
            "prompts": dict(self.prompts),
            "default_prompt_name": None,
            "similarity_fn_name": self.metric,
        }
        path = Path(folder).expanduser().absolute()
        write_router(path, {side: self._towers[side].parts for side in SIDES}, settings)
        return path


def _find_checkpoints(
    model: str | os.PathLike[str] | None,
    query: str | os.PathLike[str] | Checkpoint | None,
    document: str | os.PathLike[str] | Checkpoint | None,
) -> dict[Side, Checkpoint]:
    """A checkpoint a side, the query's first."""
    if model is not None:
        if query is not None or document is not None:
            raise InputError("Give either one folder that holds both towers, or `query` and `document`, not both.")
        return {side: Checkpoint.find(model, side=side) for side in SIDES}
    given: dict[Side, str | os.PathLike[str] | Checkpoint] = {}
    if query is not None:
        given["query"] = query
    if document is not None:
        given["document"] = document
    if not given:
        raise InputError("A twin tower has two checkpoints: TwinTower(query=…, document=…), or a folder that holds both.")
    return {side: Checkpoint.find(checkpoint, "BiEncoder") for side, checkpoint in given.items()}


def _on_side(checkpoints: Mapping[Side, Checkpoint], side: Side) -> Checkpoint:
    if checked_side(side) not in checkpoints:
        raise InputError(f"There is no tower for the {side} to project.")
    return checkpoints[side]


def _check_meeting(towers: Mapping[Side, BiEncoder]) -> None:
    """Both towers have to give vectors of one space."""
    if len(towers) < len(SIDES):
        return
    query, document = towers["query"], towers["document"]
    if query.dimension != document.dimension:
        raise InputError(
            f"The towers do not meet: {query.name} gives {query.dimension} dimensions to a query, {document.name} gives "
            f"{document.dimension} to a document. Give a trained projection for one side, such as projections={{'query': a "
            f"matrix ({document.dimension}, {query.dimension})}}, or checkpoints that end in a Dense module of one width."
        )
    if query.metric != document.metric:
        raise InputError(
            f"{query.name} compares vectors by {query.metric}, {document.name} by {document.metric}; give `similarity`."
        )
