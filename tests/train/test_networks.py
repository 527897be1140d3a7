"""Networks: made from a parent for every architecture; what is saved opens in sentence-transformers and runs on our engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import twinrank
from twinrank.errors import InputError, MissingExtraError, ModelUnsupportedError
from twinrank.models.checkpoint import Checkpoint
from twinrank.models.kinds import recognise
from twinrank.train import networks
from twinrank.train.settings import Architecture, ModelSettings

if TYPE_CHECKING:
    from types import ModuleType

TEXTS = ["zinc may shorten a cold", "honey eases a cough at night", "a man is eating " * 16]
PAIRS = [(TEXTS[0], text) for text in TEXTS]


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "NEEDED", ("torch_that_is_not_there",))
    with pytest.raises(MissingExtraError, match=r"pip install 'twinrank\[train\]'"):
        networks.make_network(ModelSettings())


def made(architecture: Architecture, parent: Path, **settings: Any) -> networks.Network:
    """A network with weights that its parent does not have."""
    import torch

    torch.manual_seed(0)
    network = networks.make_network(ModelSettings(architecture, str(parent), **settings), TEXTS, "cpu")
    with torch.no_grad():
        for weight in network.model.parameters():
            if weight.requires_grad:
                weight.add_(0.05 * torch.randn_like(weight))
    network.model.eval()
    return network


def cosine(ours: Any, theirs: Any) -> float:
    return float(((ours * theirs).sum(-1) / np.linalg.norm(ours, axis=-1) / np.linalg.norm(theirs, axis=-1)).min())


@pytest.mark.usefixtures("with_torch")
class TestWhatIsSaved:
    @pytest.mark.parametrize("settings", [{}, {"lora": 4}, {"frozen": 1}], ids=str)
    def test_a_bi_encoder_runs_on_the_engine(self, tiny_model: Path, tmp_path: Path, settings: dict[str, int]) -> None:
        from sentence_transformers import SentenceTransformer

        network = made("bi-encoder", tiny_model, max_tokens=16, **settings)
        networks.save_network(network, tmp_path / "saved")
        theirs = SentenceTransformer(str(tmp_path / "saved"), device="cpu").encode(TEXTS)
        assert cosine(twinrank.BiEncoder(tmp_path / "saved", precision="fp32").encode(TEXTS), theirs) > 0.99999
        assert network.model.max_seq_length == 16  # while it learns
        network.model.max_seq_length = 128
        assert cosine(network.model.encode(TEXTS), theirs) > 0.99999
        assert cosine(twinrank.BiEncoder(tiny_model, precision="fp32").encode(TEXTS), theirs) < 0.9999

    def test_a_twin_tower_has_two_towers_of_one_parent(self, tiny_model: Path, tmp_path: Path) -> None:
        from sentence_transformers import SentenceTransformer

        networks.save_network(made("twin-tower", tiny_model), tmp_path / "saved")
        theirs = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
        ours = twinrank.TwinTower(tmp_path / "saved", precision="fp32")
        assert cosine(ours.encode(TEXTS), theirs.encode_document(TEXTS)) > 0.99999
        assert cosine(ours.encode(TEXTS, side="query"), theirs.encode_query(TEXTS)) > 0.99999
        assert cosine(ours.encode(TEXTS, side="query"), ours.encode(TEXTS)) < 0.999
        again = made("twin-tower", tmp_path / "saved")  # is a parent in its turn
        assert len(networks.transformers(again.model)) == 2

    @pytest.mark.parametrize("dimension", [0, 8])
    def test_late_interaction_has_a_vector_a_token(self, tiny_model: Path, tmp_path: Path, dimension: int) -> None:
        from sentence_transformers import MultiVectorEncoder

        networks.save_network(made("late-interaction", tiny_model, dimension=dimension), tmp_path / "saved")
        theirs = MultiVectorEncoder(str(tmp_path / "saved"), device="cpu")
        ours = twinrank.LateInteraction(tmp_path / "saved", precision="fp32")
        assert recognise(tmp_path / "saved") == "LateInteraction"
        for mine, other in zip(ours.encode(TEXTS), theirs.encode_document(TEXTS, convert_to_numpy=True), strict=True):
            assert mine.shape == other.shape == (len(other), dimension or 16)
            assert cosine(mine, other) > 0.9999
        for mine, other in zip(
            ours.encode(TEXTS, side="query"), theirs.encode_query(TEXTS, convert_to_numpy=True), strict=True
        ):
            assert cosine(mine, other) > 0.9999

    @pytest.mark.parametrize("settings", [{}, {"lora": 4}, {"frozen": -1}], ids=str)
    def test_a_cross_encoder_scores_alike(self, tiny_model: Path, tmp_path: Path, settings: dict[str, int]) -> None:
        from sentence_transformers import CrossEncoder

        networks.save_network(made("cross-encoder", tiny_model, **settings), tmp_path / "saved")
        theirs = CrossEncoder(str(tmp_path / "saved"), device="cpu").predict(PAIRS)
        np.testing.assert_allclose(twinrank.CrossEncoder(tmp_path / "saved", precision="fp32").score(PAIRS), theirs, atol=1e-5)
        assert np.ptp(theirs) > 1e-4

    def test_a_folder_appears_whole_or_not_at_all(
        self, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        network = made("bi-encoder", tiny_model)

        def fail(*_: object, **__: object) -> None:
            raise OSError("No space left on device")

        monkeypatch.setattr(network.model, "save_pretrained", fail)
        with pytest.raises(twinrank.errors.StorageError, match="No space left"):
            networks.save_network(network, tmp_path / "saved")
        assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("with_torch")
class TestWhatIsTrained:
    def trained(self, network: networks.Network) -> list[str]:
        return [name for name, weight in network.model.named_parameters() if weight.requires_grad]

    def test_frozen_layers_take_no_gradient_and_drop_nothing(self, tiny_model: Path) -> None:
        network = made("bi-encoder", tiny_model, frozen=1)
        names = self.trained(network)
        assert any("layer.1." in name for name in names)
        assert not any("layer.0." in name or "embeddings" in name for name in names)
        trunk = network.model[0].model
        assert trunk.embeddings.dropout.p == trunk.encoder.layer[0].output.dropout.p == 0.0
        assert trunk.encoder.layer[1].output.dropout.p > 0

    def test_a_frozen_trunk_leaves_the_projection(self, tiny_model: Path) -> None:
        assert self.trained(made("late-interaction", tiny_model, frozen=-1, dimension=8)) == ["1.linear.weight"]

    def test_lora_trains_little(self, tiny_model: Path) -> None:
        names = self.trained(made("cross-encoder", tiny_model, lora=2))
        assert names
        assert all("lora_" in name or "classifier" in name for name in names)

    def test_a_thinned_network_keeps_its_last_layer(self, tiny_model: Path, tmp_path: Path) -> None:
        from sentence_transformers import SentenceTransformer

        network = networks.make_network(ModelSettings("bi-encoder", str(tiny_model), layers=1), TEXTS, "cpu")
        whole = networks.make_network(ModelSettings("bi-encoder", str(tiny_model)), TEXTS, "cpu")
        (kept,), last = networks.layers_of(network.model[0].model), networks.layers_of(whole.model[0].model)[-1]
        for ours, theirs in zip(kept.parameters(), last.parameters(), strict=True):
            np.testing.assert_array_equal(ours.detach(), theirs.detach())
        networks.save_network(network, tmp_path / "saved")
        theirs = SentenceTransformer(str(tmp_path / "saved"), device="cpu").encode(TEXTS)
        assert cosine(twinrank.BiEncoder(tmp_path / "saved", precision="fp32").encode(TEXTS), theirs) > 0.99999
        with pytest.raises(InputError, match="layers = 3, but the parent has 2"):
            made("bi-encoder", tiny_model, layers=3)

    @pytest.mark.parametrize("architecture", ["bi-encoder", "cross-encoder"])
    def test_texts_are_cut_to_the_recipes_limit_while_the_model_learns(
        self, tiny_model: Path, architecture: Architecture
    ) -> None:
        network = networks.make_network(ModelSettings(architecture, str(tiny_model), max_tokens=16), TEXTS, "cpu")
        texts = [TEXTS[2]] if architecture == "bi-encoder" else [(TEXTS[0], TEXTS[2])]
        assert network.model.preprocess(texts)["input_ids"].shape == (1, 16)

    @pytest.mark.parametrize(("architecture", "limit"), [("bi-encoder", 128), ("cross-encoder", 16)])
    def test_only_a_new_head_stays_with_the_length_it_learned_by(
        self, tiny_model: Path, tmp_path: Path, architecture: Architecture, limit: int
    ) -> None:
        networks.save_network(made(architecture, tiny_model, max_tokens=16), tmp_path / "saved")
        assert Checkpoint.find(tmp_path / "saved").max_tokens == limit
        networks.save_network(made(architecture, tmp_path / "saved", max_tokens=8), tmp_path / "again")
        assert Checkpoint.find(tmp_path / "again").max_tokens == limit

    def test_more_layers_than_there_are_cannot_be_frozen(self, tiny_model: Path) -> None:
        with pytest.raises(InputError, match=r"frozen = 9, but .* has 2 layers"):
            made("bi-encoder", tiny_model, frozen=9)

    def test_a_projection_begins_as_the_trunk_compares(self, tiny_model: Path) -> None:
        """With as many dimensions as the trunk has, the directions turn the vectors and change no MaxSim."""
        plain = networks.make_network(ModelSettings("late-interaction", str(tiny_model)), TEXTS, "cpu").model
        turned = networks.make_network(ModelSettings("late-interaction", str(tiny_model), dimension=16), TEXTS, "cpu").model
        scores = [
            model.similarity(model.encode_query(TEXTS), model.encode_document(TEXTS)).numpy() for model in (plain, turned)
        ]
        np.testing.assert_allclose(scores[0], scores[1], rtol=1e-4)

    def test_a_parent_of_an_unfitting_kind_is_refused(self, tiny_cross_encoder: Path, tiny_model: Path, tmp_path: Path) -> None:
        with pytest.raises(ModelUnsupportedError, match="is a CrossEncoder; a twin-tower is trained from"):
            made("twin-tower", tiny_cross_encoder)
        networks.save_network(made("late-interaction", tiny_model, dimension=8), tmp_path / "late")
        with pytest.raises(InputError, match="has a projection of its own"):
            made("late-interaction", tmp_path / "late", dimension=4)
        with pytest.raises(InputError, match="has a length of queries of its own; leave query_tokens"):
            made("late-interaction", tmp_path / "late", query_tokens=16)

    def test_a_rate_for_a_new_part_is_refused_where_there_is_none(self, tiny_cross_encoder: Path, tiny_model: Path) -> None:
        scores = ModelSettings("cross-encoder", str(tiny_cross_encoder))
        with pytest.raises(InputError, match="is a CrossEncoder already and gets no new part; leave head_rate"):
            networks.check_parent(scores, head_rate=1e-3)
        assert networks.check_parent(scores)
        assert not networks.check_parent(ModelSettings("cross-encoder", str(tiny_model)), head_rate=1e-3)


@pytest.mark.usefixtures("with_torch")
@pytest.mark.parametrize("family", ["roberta", "distilbert", "mpnet"])
def test_other_families_are_trained_too(tiny: ModuleType, tmp_path: Path, family: str) -> None:
    parent = tiny.write_bi_encoder(tmp_path / family, family)
    networks.save_network(made("bi-encoder", parent, frozen=1), tmp_path / "saved")
    network = made("bi-encoder", tmp_path / "saved")
    assert (
        cosine(twinrank.BiEncoder(tmp_path / "saved", precision="fp32").encode(TEXTS[:2]), network.model.encode(TEXTS[:2])) > 0
    )
