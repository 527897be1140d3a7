"""Losses: by hand, against the library's where it has one, and where two ways have to come to the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from twinrank.errors import RecipeError
from twinrank.train.settings import PAIR_LOSSES, TOWER_LOSSES, LossSettings, ModelSettings

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from twinrank.train import losses as losses_module

pytestmark = pytest.mark.usefixtures("with_torch")


@pytest.fixture(scope="module")
def losses(with_torch: None) -> ModuleType:
    from twinrank.train import losses

    return losses


@pytest.fixture(scope="module")
def fixed(with_torch: None, request: pytest.FixtureRequest) -> ModuleType:
    return request.getfixturevalue("fixed_models")  # type: ignore[no-any-return]  # not before torch is known to be there


def of(losses: ModuleType, model: Any, kind: str, **settings: Any) -> Any:
    return losses.make_loss(model, LossSettings(kind, **settings))


def near(value: float | Sequence[float]) -> Any:
    """To the digits of float32."""
    return pytest.approx(value, rel=2e-5, abs=1e-6)


def softmax_loss(scores: Sequence[float], right: int = 0) -> float:
    return math.log(sum(map(math.exp, scores))) - scores[right]


def sigmoid_loss(difference: float) -> float:
    return math.log1p(math.exp(-difference))


# -- towers, by hand ---------------------------------------------------------------------------------------------------------


def test_infonce_is_the_softmax_over_all_passages_of_the_batch(losses: ModuleType, fixed: ModuleType) -> None:
    columns = [
        fixed.column([1.0, 0.0], [0.0, 1.0]),
        fixed.column([1.0, 0.0], [0.6, 0.8]),
        fixed.column([0.8, 0.6], [1.0, 0.0]),
    ]
    loss = of(losses, fixed.FixedVectors(), "infonce", temperature=0.5)(columns, None)
    first = softmax_loss([1 / 0.5, 0.6 / 0.5, 0.8 / 0.5, 1 / 0.5], 0)  # both positives, then both negatives
    second = softmax_loss([0.0, 0.8 / 0.5, 0.6 / 0.5, 0.0], 1)
    assert loss.item() == near((first + second) / 2)


def test_the_symmetric_form_finds_queries_from_passages_too(losses: ModuleType, fixed: ModuleType) -> None:
    columns = [fixed.column([1.0, 0.0], [0.0, 1.0]), fixed.column([1.0, 0.0], [0.6, 0.8])]
    loss = of(losses, fixed.FixedVectors(), "infonce", temperature=1.0, symmetric=True)(columns, None)
    forth = softmax_loss([1.0, 0.6], 0) + softmax_loss([0.0, 0.8], 1)
    back = softmax_loss([1.0, 0.0], 0) + softmax_loss([0.6, 0.8], 1)
    assert loss.item() == near((forth + back) / 4)


def test_a_dot_product_is_taken_where_the_model_compares_by_it(losses: ModuleType, fixed: ModuleType) -> None:
    model = fixed.FixedVectors()
    model.similarity_fn_name = "dot"
    columns = [fixed.column([2.0, 0.0], [0.0, 1.0]), fixed.column([3.0, 0.0], [0.0, 4.0])]
    expected = (softmax_loss([6.0, 0.0], 0) + softmax_loss([0.0, 4.0], 1)) / 2
    assert of(losses, model, "infonce")(columns, None).item() == near(expected)


def test_contrastive_pulls_answers_near_and_pushes_others_beyond_the_margin(losses: ModuleType, fixed: ModuleType) -> None:
    import torch

    columns = [fixed.column([1.0, 0.0], [1.0, 0.0]), fixed.column([0.6, 0.8], [0.8, 0.6])]
    loss = of(losses, fixed.FixedVectors(), "contrastive", margin=0.5)(columns, torch.tensor([1.0, 0.0]))
    assert loss.item() == near((0.5 * 0.4**2 + 0.5 * (0.5 - 0.2) ** 2) / 2)


def test_triplet_is_what_the_wrong_passage_lacks_to_the_margin(losses: ModuleType, fixed: ModuleType) -> None:
    columns = [fixed.column([1.0, 0.0]), fixed.column([0.8, 0.6]), fixed.column([0.6, 0.8]), fixed.column([0.0, 1.0])]
    loss = of(losses, fixed.FixedVectors(), "triplet", margin=0.5)(columns, None)
    assert loss.item() == near(((0.5 - 0.8 + 0.6) + 0.0) / 2)


def test_margin_mse_compares_differences_with_the_teachers(losses: ModuleType, fixed: ModuleType) -> None:
    import torch

    columns = [fixed.column([1.0, 0.0]), fixed.column([0.8, 0.6]), fixed.column([0.6, 0.8])]
    loss = of(losses, fixed.FixedVectors(), "margin-mse", temperature=0.1)(columns, torch.tensor([[7.0, 4.0]]))
    assert loss.item() == near(((0.8 - 0.6) / 0.1 - 3.0) ** 2)


def test_kl_is_the_divergence_of_the_teachers_softmax_from_ours(losses: ModuleType, fixed: ModuleType) -> None:
    import torch

    columns = [fixed.column([1.0, 0.0]), fixed.column([0.8, 0.6]), fixed.column([0.6, 0.8])]
    loss = of(losses, fixed.FixedVectors(), "kl", temperature=0.1)(columns, torch.tensor([[1.0, 0.0]]))
    teacher = math.e / (math.e + 1)
    student = math.exp(8) / (math.exp(8) + math.exp(6))
    expected = teacher * math.log(teacher / student) + (1 - teacher) * math.log((1 - teacher) / (1 - student))
    assert loss.item() == near(expected)


def test_late_interaction_takes_the_best_passage_token_for_every_query_token(losses: ModuleType, fixed: ModuleType) -> None:
    queries = fixed.tokens([[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0]])
    passages = fixed.tokens([[1.0, 0.0], [0.6, 0.8]], [[0.0, 1.0], [0.8, 0.6], [1.0, 0.0]])
    loss = of(losses, fixed.FixedTokens(), "infonce")([queries, passages], None)
    first = softmax_loss([1 + 0.8, 1 + 1], 0)
    second = softmax_loss([0.8, 1.0], 1)
    assert loss.item() == near((first + second) / 2)


# -- towers, one way against another -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "settings", "columns"),
    [
        ("infonce", {}, 3),
        ("infonce", {"symmetric": True}, 3),
        ("infonce", {"symmetric": True}, 2),
        ("contrastive", {}, 2),
        ("triplet", {}, 4),
        ("margin-mse", {}, 3),
        ("kl", {}, 4),
    ],
)
def test_late_interaction_over_one_token_a_text_is_a_bi_encoder(
    losses: ModuleType, fixed: ModuleType, kind: str, settings: dict[str, Any], columns: int
) -> None:
    import torch

    torch.manual_seed(0)
    texts = [torch.nn.functional.normalize(torch.randn(5, 3), dim=-1) for _ in range(columns)]
    labels = torch.tensor([1.0, 0, 1, 0, 0]) if kind == "contrastive" else torch.randn(5, columns - 1)
    one = of(losses, fixed.FixedVectors(3), kind, temperature=0.7, **settings)([{"vectors": text} for text in texts], labels)
    mask = torch.ones(5, 1, dtype=torch.int64)
    wide = [{"vectors": text.unsqueeze(1), "attention_mask": mask} for text in texts]
    late = of(losses, fixed.FixedTokens(3), kind, temperature=0.7, **settings)(wide, labels)
    assert late.item() == near(one.item())


def test_triplet_agrees_with_the_librarys(losses: ModuleType, fixed: ModuleType) -> None:
    import torch
    from sentence_transformers.sentence_transformer.losses import TripletDistanceMetric, TripletLoss

    torch.manual_seed(1)
    model = fixed.FixedVectors(3)
    columns = [{"vectors": torch.randn(6, 3)} for _ in range(3)]
    theirs = TripletLoss(model, distance_metric=TripletDistanceMetric.COSINE, triplet_margin=0.3)
    assert of(losses, model, "triplet", margin=0.3)(columns).item() == near(theirs(columns, None).item())


@pytest.mark.parametrize("late", [False, True])
def test_kl_with_labels_is_the_sum_of_both(losses: ModuleType, fixed: ModuleType, late: bool) -> None:
    import torch

    torch.manual_seed(2)
    texts = [torch.nn.functional.normalize(torch.randn(5, 3), dim=-1) for _ in range(4)]
    columns = [{"vectors": text} for text in texts]
    model = fixed.FixedVectors(3)
    if late:
        model, mask = fixed.FixedTokens(3), torch.ones(5, 1, dtype=torch.int64)
        columns = [{"vectors": text.unsqueeze(1), "attention_mask": mask} for text in texts]
    teacher = torch.randn(5, 3)
    taught = of(losses, model, "kl", temperature=0.5)(columns, teacher).item()
    labelled = of(losses, model, "infonce", temperature=0.5)(columns, None).item()
    assert of(losses, model, "kl", temperature=0.5, labels=0.3)(columns, teacher).item() == near(taught + 0.3 * labelled)


# -- the memory queue --------------------------------------------------------------------------------------------------------


def queue_of(losses: ModuleType, model: Any, size: int, **settings: Any) -> losses_module.MemoryQueue:
    return of(losses, model, "infonce", queue=size, **settings)  # type: ignore[no-any-return]


def test_an_empty_queue_changes_nothing(losses: ModuleType, fixed: ModuleType) -> None:
    import torch

    columns = [fixed.column([1.0, 0.0], [0.0, 1.0]), fixed.column([1.0, 0.0], [0.6, 0.8])]
    plain = of(losses, fixed.FixedVectors(), "infonce")(columns, None)
    queued = queue_of(losses, fixed.FixedVectors(), 4)(columns, torch.tensor([[0], [1]]))
    assert queued.item() == near(plain.item())


def test_past_passages_are_negatives_but_not_those_known_to_answer(losses: ModuleType, fixed: ModuleType) -> None:
    import torch

    loss = queue_of(losses, fixed.FixedVectors(), 4, temperature=1.0)
    loss([fixed.column([1.0, 0.0], [0.0, 1.0]), fixed.column([0.8, 0.6], [0.0, 1.0])], torch.tensor([[7], [8]]))
    columns = [fixed.column([1.0, 0.0], [0.6, 0.8]), fixed.column([1.0, 0.0], [0.0, 1.0])]
    with torch.no_grad():
        value = loss(columns, torch.tensor([[1, 7], [2, -1]]))
    first = softmax_loss([1.0, 0.0, 0.0], 0)  # the batch's two, and of the past 8 alone: 7 is known to answer
    second = softmax_loss([0.6, 0.8, 0.6 * 0.8 + 0.8 * 0.6, 0.8], 1)
    assert value.item() == near((first + second) / 2)
    with torch.no_grad():  # 8 stands in the batch now, and is no negative a second time
        value = loss(columns, torch.tensor([[1, 7], [8, -1]]))
    second = softmax_loss([0.6, 0.8, 0.6 * 0.8 + 0.8 * 0.6], 1)
    assert value.item() == near((softmax_loss([1.0, 0.0], 0) + second) / 2)


def test_a_negative_of_the_batch_that_is_held_too_counts_once(losses: ModuleType, fixed: ModuleType) -> None:
    import torch

    loss = queue_of(losses, fixed.FixedVectors(), 4, temperature=1.0)
    loss([fixed.column([1.0, 0.0], [0.0, 1.0]), fixed.column([0.8, 0.6], [0.0, 1.0])], torch.tensor([[7], [8]]))
    columns = [fixed.column([1.0, 0.0]), fixed.column([1.0, 0.0]), fixed.column([0.8, 0.6])]  # the last is passage 7 again
    with torch.no_grad():
        value = loss(columns, torch.tensor([[1, -2 - 7]]))
    assert value.item() == near(softmax_loss([1.0, 0.8, 0.0], 0))


def test_the_oldest_passages_leave_a_full_queue(losses: ModuleType, fixed: ModuleType) -> None:
    import torch

    loss = queue_of(losses, fixed.FixedVectors(), 3)
    for first in (0, 2, 4):
        columns = [fixed.column([1.0, 0.0], [0.0, 1.0])] * 2
        loss(columns, torch.tensor([[first], [first + 1]]))
    assert sorted(loss.numbers.tolist()) == [3, 4, 5]
    loss([fixed.column(*[[1.0, 0.0]] * 5)] * 2, torch.arange(10, 15).unsqueeze(1))
    assert sorted(loss.numbers.tolist()) == [12, 13, 14]


def test_the_second_tower_follows_slowly(losses: ModuleType, fixed: ModuleType) -> None:
    import torch

    model = fixed.FixedVectors()
    loss = queue_of(losses, model, 2, momentum=0.9)
    with torch.no_grad():
        model.shift.fill_(2.0)
    loss([fixed.column([1.0, 0.0])] * 2, torch.tensor([[0]]))
    assert loss.slow.shift.tolist() == near([0.2, 0.2])
    assert not loss.slow.shift.requires_grad


def sentence_transformer(folder: Path, **settings: Any) -> Any:
    from twinrank.train.networks import make_network

    return make_network(ModelSettings(parent=str(folder), dropout=0.0, **settings), ["zinc and bread"], "cpu").model.train()


def tokenized(model: Any, *columns: Sequence[str], task: str = "document") -> list[Any]:
    tasks = ["query", *(["document"] * (len(columns) - 1))]
    return [{**model.preprocess(list(texts), task=task), "task": task} for texts, task in zip(columns, tasks, strict=True)]


def gradient(model: Any, loss: Any) -> Any:
    import torch

    model.zero_grad()
    loss.backward()
    return torch.cat([one.grad.flatten() for one in model.parameters() if one.grad is not None])


QUERIES = ["does zinc help?", "what is bread", "a man"]
ANSWERS = ["zinc may shorten a cold", "a piece of bread", "a man is eating food"]
PAST = ["honey eases a cough at night", "sleep helps", "a woman reads a long book about bread"]


@pytest.mark.parametrize("architecture", ["bi-encoder", "late-interaction"])
def test_the_queues_gradient_is_that_of_a_batch_with_the_same_negatives(
    losses: ModuleType, tiny_model: Path, architecture: str
) -> None:
    """The queries' gradient is the same to the last digits; passages of the past take none, so they are held in the batch."""
    import torch
    from torch.nn import functional

    model = sentence_transformer(tiny_model, architecture=architecture)
    queue = queue_of(losses, model, 3, temperature=0.5, momentum=0.0)
    queue(tokenized(model, PAST, PAST), torch.tensor([[10], [11], [12]]))
    value = queue(tokenized(model, QUERIES, ANSWERS), torch.tensor([[0], [1], [2]]))
    got = gradient(model, value)
    queries, answers, past = losses.embed(model, tokenized(model, QUERIES, ANSWERS, PAST))
    held = losses.Embedded(past.vectors.detach(), past.mask)
    scores = torch.cat([queries.scores(answers), queries.scores(held)], dim=1) / 0.5
    wanted = functional.cross_entropy(scores, torch.arange(3))
    assert value.item() == near(wanted.item())
    np.testing.assert_allclose(got, gradient(model, wanted), rtol=1e-3, atol=1e-6)
    assert got.abs().max() > 1e-3


def test_with_all_passages_held_the_queue_teaches_as_a_large_batch_does(losses: ModuleType, tiny_model: Path) -> None:
    """The gradient on the queries' tower of a twin tower: the passages of a large batch act on it through scores alone."""
    import torch

    model = sentence_transformer(tiny_model, architecture="twin-tower")
    queue = queue_of(losses, model, 3, temperature=0.5, momentum=0.0)
    queue(tokenized(model, PAST, PAST), torch.tensor([[10], [11], [12]]))
    tower = model[0].sub_modules["query"]
    got = gradient(tower, queue(tokenized(model, QUERIES, ANSWERS), torch.tensor([[0], [1], [2]])))
    model.zero_grad()
    queries, passages = (model(column)["sentence_embedding"] for column in tokenized(model, QUERIES, ANSWERS + PAST))
    wanted = gradient(tower, torch.nn.functional.cross_entropy(queries @ passages.T / 0.5, torch.arange(3)))
    np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-6)


# -- gradient caching --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "settings"), [("bi-encoder", {}), ("bi-encoder", {"symmetric": True}), ("late-interaction", {})]
)
def test_cached_gradients_are_those_of_the_whole_batch(
    losses: ModuleType, tiny_model: Path, architecture: str, settings: dict[str, Any]
) -> None:
    model = sentence_transformer(tiny_model, architecture=architecture)
    columns = [QUERIES, ANSWERS, PAST]
    whole = of(losses, model, "infonce", **settings)(tokenized(model, *columns), None)
    expected = gradient(model, whole)
    cached = of(losses, model, "infonce", chunk=2, **settings)(tokenized(model, *columns), None)
    assert cached.item() == near(whole.item())
    np.testing.assert_allclose(gradient(model, cached), expected, rtol=1e-3, atol=1e-5)


# -- cross-encoders, by hand -------------------------------------------------------------------------------------------------


def lists_of(*lists: tuple[Sequence[float], Sequence[float]]) -> tuple[list[Any], list[Any]]:
    """(scores, labels) of queries → inputs and labels of a list loss."""
    import torch

    inputs = [[f"query {place}" for place in range(len(lists))], [list(map(str, scores)) for scores, _ in lists]]
    return inputs, [torch.tensor(labels) for _, labels in lists]


def test_softmax_is_over_a_querys_own_passages(losses: ModuleType, fixed: ModuleType) -> None:
    inputs, labels = lists_of(([2.0, 1.0, -1.0], [1.0, 0.0, 0.0]), ([0.5, 1.5], [0.0, 1.0]))
    loss = of(losses, fixed.FixedScores(), "softmax", temperature=2.0)(inputs, labels)
    assert loss.item() == near((softmax_loss([1.0, 0.5, -0.5]) + softmax_loss([0.25, 0.75], 1)) / 2)


def test_margin_is_over_all_pairs_whose_labels_differ(losses: ModuleType, fixed: ModuleType) -> None:
    inputs, labels = lists_of(([2.0, 1.5, -1.0], [1.0, 0.0, 0.0]), ([0.5, 1.5], [0.0, 1.0]))
    loss = of(losses, fixed.FixedScores(), "margin", margin=1.0)(inputs, labels)
    assert loss.item() == near((0.5 + 0.0 + 0.0) / 3)


@pytest.mark.parametrize("kind", ["margin", "ranknet", "lambda"])
def test_a_batch_whose_labels_tie_teaches_nothing(losses: ModuleType, fixed: ModuleType, kind: str) -> None:
    inputs, labels = lists_of(([2.0, 1.5], [1.0, 1.0]), ([0.5], [0.0]))
    model = fixed.FixedScores()
    loss = of(losses, model, kind)(inputs, labels)
    assert loss.item() == 0
    loss.backward()
    assert model.shift.grad.item() == 0


def test_ranknet_is_the_sigmoid_of_differences(losses: ModuleType, fixed: ModuleType) -> None:
    inputs, labels = lists_of(([2.0, 1.0, -1.0], [1.0, 0.0, 0.0]))
    loss = of(losses, fixed.FixedScores(), "ranknet")(inputs, labels)
    assert loss.item() == near((sigmoid_loss(1.0) + sigmoid_loss(3.0)) / 2 / math.log(2))


def test_lambda_weighs_pairs_by_what_their_exchange_would_change(losses: ModuleType, fixed: ModuleType) -> None:
    """One relevant passage of three, ranked second: with mu = 10, each pair's weight is 10 δ |ΔG| + |ΔD| |ΔG| (paper, 3.3)."""
    inputs, labels = lists_of(([1.0, 2.0, -1.0], [1.0, 0.0, 0.0]))
    loss = of(losses, fixed.FixedScores(), "lambda")(inputs, labels)
    discount = [1 / math.log2(rank + 1) for rank in (1, 2, 3, 4)]
    apart = abs(discount[0] - discount[1])  # both pairs lie one rank apart
    above = 10 * apart + abs(discount[1] - discount[0])
    below = 10 * apart + abs(discount[1] - discount[2])
    expected = (above * sigmoid_loss(-1.0) + below * sigmoid_loss(2.0)) / math.log(2)
    assert loss.item() == near(expected / 2)


def test_pointwise_losses_look_at_one_passage_at_a_time(losses: ModuleType, fixed: ModuleType) -> None:
    import torch

    inputs, labels = [["q", "q"], ["2.0", "-1.0"]], torch.tensor([1.0, 0.0])
    bce = of(losses, fixed.FixedScores(), "bce")(inputs, labels)
    assert bce.item() == near((sigmoid_loss(2.0) + sigmoid_loss(1.0)) / 2)
    mse = of(losses, fixed.FixedScores(), "mse")(inputs, labels)
    assert mse.item() == near((1.0 + 1.0) / 2)


def test_a_cross_encoder_learns_differences_from_a_teacher(losses: ModuleType, fixed: ModuleType) -> None:
    import torch

    inputs = [["q"], ["2.0"], ["-1.0"], ["0.5"]]
    loss = of(losses, fixed.FixedScores(), "margin-mse")(inputs, [torch.tensor([5.0, 3.0, 4.0])])
    assert loss.item() == near(((3.0 - 2.0) ** 2 + (1.5 - 1.0) ** 2) / 2)


# -- cross-encoders, against others' -----------------------------------------------------------------------------------------


def gradients_of_scores(loss: Any, scores: Sequence[float], labels: Sequence[float]) -> list[float]:
    import torch

    free = torch.tensor([scores], requires_grad=True)
    loss.of(free, torch.tensor([labels])).backward()
    assert free.grad is not None
    return free.grad[0].tolist()  # type: ignore[no-any-return]


def test_kl_of_lists_agrees_with_torch_and_has_listnets_gradient(losses: ModuleType, fixed: ModuleType) -> None:
    import torch
    from sentence_transformers.cross_encoder.losses import ListNetLoss

    scores, labels = [0.3, -1.0, 2.0], [2.0, 0.5, 1.0]
    model = fixed.FixedScores()
    ours = of(losses, model, "kl", temperature=2.0)
    inputs, targets = lists_of((scores, labels), (scores[:2], labels[:2]))
    theirs = [
        torch.nn.KLDivLoss(reduction="sum")((torch.tensor(one) / 2).log_softmax(0), torch.tensor(other).softmax(0)).item()
        for one, other in ((scores, labels), (scores[:2], labels[:2]))
    ]
    assert ours(inputs, targets).item() == near(sum(theirs) / 2)
    free = torch.tensor([scores], requires_grad=True)
    ListNetLoss(model).cross_entropy_loss(free, torch.tensor([labels]).softmax(1)).backward()
    assert free.grad is not None
    assert gradients_of_scores(of(losses, model, "kl"), scores, labels) == near(free.grad[0].tolist())


def test_softmax_and_margin_agree_with_torch(losses: ModuleType, fixed: ModuleType) -> None:
    import torch

    scores = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(4, 5)
    labels[:, 0] = 1
    softmax = of(losses, fixed.FixedScores(), "softmax")
    theirs = torch.nn.functional.cross_entropy(scores, torch.zeros(4, dtype=torch.int64))
    assert softmax.of(scores, labels).item() == near(theirs.item())
    margin = of(losses, fixed.FixedScores(), "margin", margin=0.4)
    hinge = torch.nn.MarginRankingLoss(0.4)
    expected = hinge(scores[:, :1].expand(4, 4).flatten(), scores[:, 1:].flatten(), torch.ones(16))
    assert margin.of(scores, labels).item() == near(expected.item())


# -- all of them -------------------------------------------------------------------------------------------------------------


def test_every_loss_that_a_recipe_may_name_is_there(losses: ModuleType) -> None:
    assert tuple(losses.TOWERS) == TOWER_LOSSES == tuple(losses.OF_TOWERS)
    assert tuple(losses.PAIRS) == PAIR_LOSSES == tuple(losses.OF_PAIRS)


def test_a_loss_of_the_other_kind_is_refused(losses: ModuleType, fixed: ModuleType) -> None:
    with pytest.raises(RecipeError, match="expected one of infonce"):
        of(losses, fixed.FixedVectors(), "bce")
    with pytest.raises(RecipeError, match="expected one of bce"):
        of(losses, fixed.FixedScores(), "infonce")
