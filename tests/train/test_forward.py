"""The thrifty forward pass: the same numbers and gradients as the network's own, and a bf16 that losses can work with."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("with_torch")

TEXTS = ["zinc", "a man is eating a piece of bread", "zinc may shorten a cold " * 6, "bread", "does zinc help against colds?"]


@pytest.fixture
def network(with_torch: None, tiny_model: Path) -> Any:
    from transformers import AutoModel

    return AutoModel.from_pretrained(tiny_model).eval()


def batch(folder: Path) -> dict[str, Any]:
    from transformers import AutoTokenizer

    return dict(AutoTokenizer.from_pretrained(folder)(TEXTS * 8, padding=True, return_tensors="pt"))


def masked(output: Any, given: dict[str, Any]) -> Any:
    return output.last_hidden_state * given["attention_mask"].unsqueeze(-1)


def test_pieces_in_order_of_length_give_what_the_whole_batch_gives(
    network: Any, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from twinrank.train import forward

    monkeypatch.setattr(forward, "FEWEST_TOKENS", 16)
    given = batch(tiny_model)
    plain = masked(network(**given), given)
    plain.pow(3).sum().backward()
    expected = {name: weight.grad.clone() for name, weight in network.named_parameters() if weight.grad is not None}
    thrifty = deepcopy(network)
    thrifty.zero_grad()
    forward.make_thrifty(thrifty, bf16=False)
    output = thrifty(**given)
    np.testing.assert_allclose(masked(output, given).detach(), plain.detach(), atol=1e-5)
    masked(output, given).pow(3).sum().backward()
    largest = max(float(one.abs().max()) for one in expected.values())
    for name, weight in thrifty.named_parameters():
        if name in expected:
            np.testing.assert_allclose(weight.grad, expected[name], rtol=1e-3, atol=1e-5 * largest)


def test_pieces_hold_little_padding_and_every_text_once() -> None:
    from twinrank.train.forward import FEWEST_TOKENS, WASTE, _pieces

    lengths = sorted([5, 9, 14, 20, 33, 60, 100, 128, 7, 128] * 30)
    pieces = list(_pieces(lengths))
    assert [place for start, end in pieces for place in range(start, end)] == list(range(len(lengths)))
    for start, end in pieces:
        computed = lengths[end - 1] * (end - start)
        assert computed <= FEWEST_TOKENS or computed - sum(lengths[start:end]) <= WASTE * computed
    assert len(pieces) > 1


def test_tokens_that_expand_a_query_are_not_cut_off(network: Any, tiny_model: Path) -> None:
    """ColBERT's masks behind a query are not attended, and still compared."""
    import torch

    from twinrank.train.forward import make_thrifty

    ids = torch.tensor([[2, 7, 8, 4, 4, 4], [2, 9, 10, 11, 3, 0]])
    mask = torch.tensor([[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0]])
    plain = network(input_ids=ids, attention_mask=mask).last_hidden_state
    make_thrifty(network, bf16=False)
    np.testing.assert_allclose(
        network(input_ids=ids, attention_mask=mask).last_hidden_state[0].detach(), plain[0].detach(), atol=1e-5
    )


def test_a_deep_copy_runs_its_own_weights(network: Any, tiny_model: Path) -> None:
    import torch

    from twinrank.train.forward import make_thrifty

    make_thrifty(network, bf16=False)
    copied = deepcopy(network)
    given = batch(tiny_model)
    before = network(**given).last_hidden_state
    with torch.no_grad():
        for weight in copied.parameters():
            weight.zero_()
    assert torch.equal(network(**given).last_hidden_state, before)
    assert not torch.equal(copied(**given).last_hidden_state, before)


def test_bf16_gives_float32_near_the_exact(network: Any, tiny_model: Path) -> None:
    import torch

    from twinrank.train.forward import make_thrifty

    given = batch(tiny_model)
    exact = masked(network(**given), given).detach()
    make_thrifty(network, bf16=True)
    rough = masked(network(**given), given).detach()
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).abs().max() < 0.1 * exact.abs().max()
