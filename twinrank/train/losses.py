"""What a training makes small: every loss by one signature, the library's where it has one, ours where it lacks one.

A loss is `loss(model, settings) → torch module`; the module is called with a batch of the form that `form_of` names, and gives
one number. s(q, d) is a cosine of a bi-encoder or twin tower (a dot product where the model says so), MaxSim of late
interaction, the output of a cross-encoder; τ is the temperature, m the margin, d+ a passage that answers q, d− one that does
not.

| kind | of towers (bi-encoder, twin tower, late interaction) | of a cross-encoder |
|---|---|---|
| one passage at a time | `contrastive` | `bce`, `mse` |
| two passages | `triplet` | `margin`, `ranknet` |
| many passages | `infonce`, with `symmetric`, `chunk` and `queue` | `softmax`, `lambda` |
| a teacher's scores | `margin-mse`, `kl` | `margin-mse`, `kl` |
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from sentence_transformers.base.losses.merged_forward import embed_columns, embed_columns_padded
from sentence_transformers.cross_encoder import losses as of_pairs
from sentence_transformers.multi_vector_encoder import losses as of_tokens
from sentence_transformers.multi_vector_encoder.scoring import colbert_kd_scores, colbert_scores_pairwise
from sentence_transformers.sentence_transformer import losses as of_vectors
from sentence_transformers.util import batch_to_device, cos_sim, dot_score, maxsim, pairwise_cos_sim, pairwise_dot_score
from torch import Tensor, nn
from torch.nn import functional

from twinrank.errors import RecipeError
from twinrank.train.feeding import Form
from twinrank.train.settings import LossSettings

Loss: TypeAlias = Callable[[Any, LossSettings], nn.Module]
Features: TypeAlias = dict[str, Any]
"""One column of a batch as the model takes it: token ids, mask, task."""

COSINE_TEMPERATURE = 0.05
"""The library's default, 1 / 20; where scores are not cosines it is 1."""
CONTRASTIVE_MARGIN, TRIPLET_MARGIN, PAIRWISE_MARGIN = 0.5, 0.2, 1.0


# -- towers ------------------------------------------------------------------------------------------------------------------


def infonce(model: Any, settings: LossSettings) -> nn.Module:
    """−log( e^{s(q, d+)/τ} / Σ_d e^{s(q, d)/τ} ), d over all passages of the batch: everybody else's and the own negatives.

    van den Oord et al. 2018; multiple negatives: Henderson et al. 2017. `symmetric` adds the same from passages to queries and
    takes the mean (Radford et al. 2021); `chunk` caches gradients, which changes memory and no number (Gao et al. 2021).
    `queue` adds past passages to d: MemoryQueue.
    """
    temperature = _temperature(model, settings)
    if settings.queue:
        return MemoryQueue(model, settings.queue, temperature=temperature, momentum=settings.momentum)
    if is_late(model):
        if settings.symmetric:
            return SymmetricMaxSim(model, temperature)
        if settings.chunk:
            return of_tokens.CachedMultiVectorMultipleNegativesRankingLoss(
                model, scale=1 / temperature, mini_batch_size=settings.chunk
            )
        return of_tokens.MultiVectorMultipleNegativesRankingLoss(model, scale=1 / temperature)
    options: dict[str, Any] = {"scale": 1 / temperature, "similarity_fct": dot_score if _is_dot(model) else cos_sim}
    if settings.symmetric:
        options |= {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}
    if settings.chunk:
        return of_vectors.CachedMultipleNegativesRankingLoss(model, mini_batch_size=settings.chunk, **options)
    return of_vectors.MultipleNegativesRankingLoss(model, **options)


def contrastive(model: Any, settings: LossSettings) -> nn.Module:
    """½ (y δ² + (1 − y) max(0, m − δ)²), with δ = 1 − s(q, d) and y = 1 where d answers q, else 0. Hadsell et al. 2006.

    Late interaction takes the mean over the query's tokens for s, so that it is a cosine too.
    """
    margin = settings.margin or CONTRASTIVE_MARGIN
    return ContrastiveMaxSim(model, margin) if is_late(model) else of_vectors.ContrastiveLoss(model, margin=margin)


def triplet(model: Any, settings: LossSettings) -> nn.Module:
    """max(0, m − s(q, d+) + s(q, d−)). Schroff et al. 2015. Several d− make as many triplets; s as for `contrastive`."""
    return TripletMaxSim(model, settings.margin or TRIPLET_MARGIN)


def margin_mse(model: Any, settings: LossSettings) -> nn.Module:
    """(s(q, d+)/τ − s(q, d−)/τ − (t+ − t−))², t being the teacher's scores. Hofstätter et al. 2020."""
    if is_late(model):
        return of_tokens.MultiVectorMarginMSELoss(model, similarity_fct=_scaled(colbert_scores_pairwise, model, settings))
    if is_cross_encoder(model):
        return of_pairs.MarginMSELoss(model)
    return of_vectors.MarginMSELoss(model, similarity_fct=_scaled(_pairwise(model), model, settings))


def kl(model: Any, settings: LossSettings) -> nn.Module:
    """Σ_d p_t(d) log( p_t(d) / p(d) ), p = softmax of s(q, d)/τ over a query's passages, p_t of the teacher's scores.

    Hinton et al. 2015; into one vector a text Lin et al. 2020, into late interaction Santhanam et al. 2022. With `labels`, so
    many times `infonce` is added: the teacher tells a query's own passages apart, the batch all others (Lin et al. 2021).
    """
    if settings.labels:
        return LabelledKL(model, _temperature(model, settings), settings.labels)
    if is_late(model):
        return of_tokens.MultiVectorDistillKLDivLoss(model, similarity_fct=_scaled(colbert_kd_scores, model, settings))
    if is_cross_encoder(model):
        return ListKL(model, settings.temperature or 1.0)
    return of_vectors.DistillKLDivLoss(model, similarity_fct=_scaled(_pairwise(model), model, settings))


# -- cross-encoders ----------------------------------------------------------------------------------------------------------


def bce(model: Any, settings: LossSettings) -> nn.Module:
    """−y log σ(s) − (1 − y) log(1 − σ(s)): pointwise, as in Nogueira and Cho 2019."""
    return of_pairs.BinaryCrossEntropyLoss(model)


def mse(model: Any, settings: LossSettings) -> nn.Module:
    """(s − y)²: pointwise, y the teacher's score where there is one, otherwise 1 or 0."""
    return of_pairs.MSELoss(model)


def margin(model: Any, settings: LossSettings) -> nn.Module:
    """max(0, m − s(q, d+) + s(q, d−)) over all pairs of a list: pairwise, the hinge of Herbrich et al. 2000."""
    return PairwiseMargin(model, settings.margin or PAIRWISE_MARGIN)


def ranknet(model: Any, settings: LossSettings) -> nn.Module:
    """−log₂ σ(s_i − s_j) over all pairs of a list of which i is the more relevant. Burges et al. 2005."""
    return of_pairs.RankNetLoss(model, mini_batch_size=-1)


def softmax(model: Any, settings: LossSettings) -> nn.Module:
    """−log( Σ_{d+} e^{s(q, d+)/τ} / Σ_d e^{s(q, d)/τ} ), d over the list: localized contrastive estimation, Gao et al. 2021."""
    return ListSoftmax(model, settings.temperature or 1.0)


def lambda_loss(model: Any, settings: LossSettings) -> nn.Module:
    """RankNet's pairs, each weighted by what exchanging its two would change of nDCG (NDCG-Loss2++). Wang et al. 2018."""
    return of_pairs.LambdaLoss(model, mini_batch_size=-1)


TOWERS: Mapping[str, Loss] = {
    "infonce": infonce,
    "contrastive": contrastive,
    "triplet": triplet,
    "margin-mse": margin_mse,
    "kl": kl,
}
PAIRS: Mapping[str, Loss] = {
    "bce": bce,
    "mse": mse,
    "margin": margin,
    "ranknet": ranknet,
    "softmax": softmax,
    "lambda": lambda_loss,
    "margin-mse": margin_mse,
    "kl": kl,
}


OF_TOWERS: Mapping[str, Form] = {
    "infonce": "columns",
    "contrastive": "pairs",
    "triplet": "columns",
    "margin-mse": "scored columns",
    "kl": "scored columns",
}
OF_PAIRS: Mapping[str, Form] = {
    "bce": "pairs",
    "mse": "graded pairs",
    "margin": "graded lists",
    "ranknet": "graded lists",
    "softmax": "lists",
    "lambda": "graded lists",
    "margin-mse": "scored columns",
    "kl": "scored lists",
}


def make_loss(model: Any, settings: LossSettings) -> nn.Module:
    """The loss of a recipe over a model."""
    known = PAIRS if is_cross_encoder(model) else TOWERS
    if settings.kind not in known:
        raise RecipeError(f"loss, kind: expected one of {', '.join(known)}, got {settings.kind!r}")
    return known[settings.kind](model, settings)


def form_of(settings: LossSettings, *, pairs: bool) -> Form:
    """What a batch of the loss looks like; `pairs` says that a cross-encoder takes it."""
    if pairs:
        return OF_PAIRS[settings.kind]
    return "known columns" if settings.queue else OF_TOWERS[settings.kind]


def is_late(model: Any) -> bool:
    return bool(model.model_type == "MultiVectorEncoder")


def is_cross_encoder(model: Any) -> bool:
    return bool(model.model_type == "CrossEncoder")


def _is_dot(model: Any) -> bool:
    return str(getattr(model, "similarity_fn_name", "cosine")) == "dot"


def _temperature(model: Any, settings: LossSettings) -> float:
    return settings.temperature or (1.0 if is_late(model) or _is_dot(model) else COSINE_TEMPERATURE)


def _pairwise(model: Any) -> Callable[..., Tensor]:
    return pairwise_dot_score if _is_dot(model) else pairwise_cos_sim  # type: ignore[no-any-return]


def _scaled(similarity: Callable[..., Tensor], model: Any, settings: LossSettings) -> Callable[..., Tensor]:
    """The similarity over τ: a teacher's scores are as wide as logits, cosines are not."""
    return partial(_divided, similarity, _temperature(model, settings))


def _divided(similarity: Callable[..., Tensor], temperature: float, *given: Tensor, **masks: Tensor) -> Tensor:
    return similarity(*given, **masks) / temperature


# -- ours, over towers -------------------------------------------------------------------------------------------------------


class Embedded:
    """Token vectors of texts with their mask; a bi-encoder's one vector a text is one token."""

    def __init__(self, vectors: Tensor, mask: Tensor) -> None:
        self.vectors = vectors  # (texts, tokens, dimension)
        self.mask = mask  # (texts, tokens)

    def scores(self, passages: Embedded, *, mean: bool = False) -> Tensor:
        """MaxSim of each of these queries with each passage: (queries, passages); `mean` over the query's tokens."""
        return maxsim(self.vectors, passages.vectors, a_mask=self.mask, b_mask=passages.mask, length_normalize=mean)

    def own_scores(self, passages: Embedded, *, mean: bool = False) -> Tensor:
        """MaxSim of each of these queries with the passage in the same place: (queries,)."""
        return colbert_scores_pairwise(
            self.vectors,
            passages.vectors,
            queries_mask=self.mask,
            documents_mask=passages.mask,
            length_normalize=mean,
        )


def embed(model: Any, columns: Sequence[Features]) -> list[Embedded]:
    """Queries, then columns of passages, through a model of either kind; the columns stay as they were."""
    columns = [dict(column) for column in columns]  # a model writes into what it is given
    if not is_late(model):
        vectors = embed_columns(model, columns)
        if not _is_dot(model):
            vectors = [functional.normalize(column, dim=-1) for column in vectors]
        return [_single(column) for column in vectors]
    queries = model(columns[0], task=columns[0].get("task", "query"))
    embedded = [Embedded(queries["token_embeddings"], queries["attention_mask"].bool())]
    if columns[1:]:
        embedded += map(Embedded, *embed_columns_padded(model, columns[1:], task_default="document"))
    return embedded


def _single(vectors: Tensor) -> Embedded:
    return Embedded(vectors.unsqueeze(1), torch.ones(len(vectors), 1, dtype=torch.bool, device=vectors.device))


def _joined(columns: Sequence[Embedded]) -> Embedded:
    """Columns one after the other: (columns · texts, the most tokens, dimension)."""
    width = max(column.vectors.shape[1] for column in columns)
    padded = [_widened(column, width) for column in columns]
    return Embedded(torch.cat([one.vectors for one in padded]), torch.cat([one.mask for one in padded]))


def _widened(embedded: Embedded, width: int) -> Embedded:
    lacking = width - embedded.vectors.shape[1]
    return Embedded(functional.pad(embedded.vectors, (0, 0, 0, lacking)), functional.pad(embedded.mask, (0, lacking)))


class TripletMaxSim(nn.Module):  # type: ignore[misc]
    """`triplet`; the library's takes three columns and no MaxSim."""

    def __init__(self, model: Any, margin: float) -> None:
        super().__init__()
        self.model, self.margin = model, margin

    def forward(self, columns: Sequence[Features], labels: Tensor | None = None) -> Tensor:
        queries, answer, *others = embed(self.model, columns)
        right = queries.own_scores(answer, mean=True)  # (queries,)
        wrong = torch.stack([queries.own_scores(one, mean=True) for one in others])  # (negatives, queries)
        return functional.relu(self.margin - right + wrong).mean()


class ContrastiveMaxSim(nn.Module):  # type: ignore[misc]
    """`contrastive` over MaxSim."""

    def __init__(self, model: Any, margin: float) -> None:
        super().__init__()
        self.model, self.margin = model, margin

    def forward(self, columns: Sequence[Features], labels: Tensor) -> Tensor:
        queries, passages = embed(self.model, columns)
        distances = 1 - queries.own_scores(passages, mean=True)  # (pairs,)
        near, far = distances.pow(2), functional.relu(self.margin - distances).pow(2)
        return 0.5 * (labels * near + (1 - labels) * far).mean()


class SymmetricMaxSim(nn.Module):  # type: ignore[misc]
    """`infonce` with `symmetric` over MaxSim: a passage has to find its query among the batch's queries too."""

    def __init__(self, model: Any, temperature: float) -> None:
        super().__init__()
        self.model, self.temperature = model, temperature

    def forward(self, columns: Sequence[Features], labels: Tensor | None = None) -> Tensor:
        queries, *passages = embed(self.model, columns)
        scores = queries.scores(_joined(passages)) / self.temperature  # (queries, columns · queries)
        right = torch.arange(len(scores), device=scores.device)
        back = scores[:, : len(scores)].T  # the column of passages that answer: (passages, queries)
        return (functional.cross_entropy(scores, right) + functional.cross_entropy(back, right)) / 2


class LabelledKL(nn.Module):  # type: ignore[misc]
    """`kl` with `labels`, both over one pass; the library has each alone."""

    def __init__(self, model: Any, temperature: float, weight: float) -> None:
        super().__init__()
        self.model, self.temperature, self.weight = model, temperature, weight

    def forward(self, columns: Sequence[Features], labels: Tensor) -> Tensor:
        """`labels`: the teacher's scores, (queries, columns of passages)."""
        queries, *passages = embed(self.model, columns)
        scores = queries.scores(_joined(passages)) / self.temperature  # (queries, columns · queries)
        right = torch.arange(len(scores), device=scores.device)
        own = scores.unflatten(1, (len(passages), -1))[right, :, right]  # (queries, columns)
        apart = functional.kl_div(own.log_softmax(1), labels.log_softmax(1), reduction="batchmean", log_target=True)
        return apart + self.weight * functional.cross_entropy(scores, right)


class MemoryQueue(nn.Module):  # type: ignore[misc]
    """InfoNCE whose negatives are the batch's and, beside them, the last `size` passages that answered other queries.

    The queue's vectors come from a second tower that follows the trained one slowly, θ' ← μ θ' + (1 − μ) θ, so that old
    entries still fit new ones (MoCo: He et al. 2020; for retrieval xMoCo: Yang et al. 2021). They take no gradient; the
    batch's own passages do, unlike in MoCo, because a document tower is to learn too. A passage known to answer a query is
    no negative of it, nor is one counted twice that stands in the batch.
    """

    def __init__(self, model: Any, size: int, *, temperature: float, momentum: float) -> None:
        super().__init__()
        self.model, self.temperature, self.momentum = model, temperature, momentum
        self.slow = copy.deepcopy(model).requires_grad_(False)
        tokens = _most_tokens(model) if is_late(model) else 1
        self.register_buffer("vectors", torch.zeros(size, tokens, model.get_embedding_dimension()))
        self.register_buffer("mask", torch.zeros(size, tokens, dtype=torch.bool))
        self.register_buffer("numbers", torch.full((size,), -1))
        self.register_buffer("next", torch.zeros((), dtype=torch.int64))

    def forward(self, columns: Sequence[Features], labels: Tensor) -> Tensor:
        """`labels`: numbers of the passages known to answer each query, that of column 1 first, padded by −1; and −2 − number
        of those of the other columns that may be held as well: (queries, the most)."""
        queries, *passages = embed(self.model, columns)
        scores = queries.scores(_joined(passages))  # (queries, columns · queries)
        held = self.numbers >= 0
        if held.any():
            past = queries.scores(Embedded(self.vectors[held], self.mask[held]))  # (queries, held)
            numbers = self.numbers[held]
            standing = torch.cat([labels[:, 0], -2 - labels[labels < -1]])  # all passages of the batch
            known = (labels.unsqueeze(-1) == numbers).any(1) | torch.isin(numbers, standing)
            scores = torch.cat([scores, past.masked_fill(known, float("-inf"))], dim=1)
        right = torch.arange(len(labels), device=scores.device)
        loss = functional.cross_entropy(scores / self.temperature, right)
        if torch.is_grad_enabled():
            self._remember(columns[1], labels[:, 0])
        return loss

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _remember(self, column: Features, numbers: Tensor) -> None:
        for slow, fast in zip(self.slow.parameters(), self.model.parameters(), strict=True):
            slow.lerp_(fast.to(slow.dtype), 1 - self.momentum)
        (new,) = embed(self.slow.eval(), [{"task": "document", **column}])
        size, tokens = self.mask.shape
        places = (self.next + torch.arange(len(numbers), device=numbers.device)) % size
        kept = slice(max(0, len(numbers) - size), None)  # a batch larger than the queue leaves its last ones
        wide = _widened(new, tokens)
        self.vectors[places[kept]] = wide.vectors[kept].to(self.vectors.dtype)
        self.mask[places[kept]] = wide.mask[kept]
        self.numbers[places[kept]] = numbers[kept]
        self.next.copy_((self.next + len(numbers)) % size)


def _most_tokens(model: Any) -> int:
    return max(int(getattr(model[0], "document_length", None) or 0), int(model.max_seq_length))


# -- ours, over pairs --------------------------------------------------------------------------------------------------------


class ListLoss(nn.Module):  # type: ignore[misc]
    """A loss over lists: a cross-encoder's outputs as (queries, passages), −inf where a list is shorter than the longest."""

    def __init__(self, model: Any, scale: float) -> None:
        super().__init__()
        self.model, self.scale = model, scale

    def of(self, scores: Tensor, labels: Tensor) -> Tensor:
        """The loss of scores and labels: both (queries, passages), −inf where there is no passage."""
        raise NotImplementedError

    def forward(
        self, inputs: Sequence[Any], labels: Sequence[Tensor], prompt: str | None = None, task: str | None = None
    ) -> Tensor:
        queries, lists = inputs
        pairs = [(query, passage) for query, passages in zip(queries, lists, strict=True) for passage in passages]
        features = batch_to_device(self.model.preprocess(pairs, prompt=prompt, task=task), self.model.device)
        outputs = self.model(features)["scores"].view(-1).float()
        lengths = [len(passages) for passages in lists]
        scores = nn.utils.rnn.pad_sequence(outputs.split(lengths), batch_first=True, padding_value=float("-inf"))
        wanted = [one.to(outputs) for one in labels]
        return self.of(scores, nn.utils.rnn.pad_sequence(wanted, batch_first=True, padding_value=float("-inf")))


class ListSoftmax(ListLoss):
    """`softmax`; `scale` is the temperature. The library's takes its negatives from the batch, at random."""

    def of(self, scores: Tensor, labels: Tensor) -> Tensor:
        scores = scores / self.scale
        right = scores.masked_fill(labels <= 0, float("-inf"))
        return (scores.logsumexp(1) - right.logsumexp(1)).mean()


class PairwiseMargin(ListLoss):
    """`margin`; `scale` is the margin. The mean is over the pairs of the batch whose labels differ."""

    def of(self, scores: Tensor, labels: Tensor) -> Tensor:
        there = labels.isfinite()
        ordered = (labels.unsqueeze(2) > labels.unsqueeze(1)) & there.unsqueeze(2) & there.unsqueeze(1)
        queries, better, worse = ordered.nonzero(as_tuple=True)
        gaps = functional.relu(self.scale - scores[queries, better] + scores[queries, worse])
        return gaps.sum() / max(1, len(gaps))  # 0 where all labels of a batch tie


class ListKL(ListLoss):
    """`kl` into a cross-encoder; `scale` is the temperature."""

    def of(self, scores: Tensor, labels: Tensor) -> Tensor:
        there = labels.isfinite()
        wanted = labels.log_softmax(1)  # (queries, passages), −inf where there is none
        learned = (scores / self.scale).log_softmax(1)
        apart = (wanted - learned).masked_fill(~there, 0.0)
        return (wanted.exp() * apart).sum(1).mean()
