"""The room dynamic: layers that are shuffled in training, and patches reordered by what the model has seen so far."""

from __future__ import annotations

import pytest
import torch
from reorder_dynamic.layer_shuffle import LayerShuffle
from reorder_dynamic.settings import LayerShuffleSettings

from reorder_core import Context, Grid, Layout
from reorder_core.catalogue import Catalogue
from reorder_core.conformance import check_backbone, check_between
from reorder_core.conformance import context as where
from reorder_core.settings import ComponentRef

GRID = Grid(3, 4)
SHUFFLE = {"name": "layer_shuffle", "probability": 1.0}


def order(seed: int = 0) -> Layout:
    return Layout(GRID, torch.randperm(12, generator=torch.Generator().manual_seed(seed))[None])


def tokens(batch: int = 2, seed: int = 1, width: int = 16) -> torch.Tensor:
    return torch.randn(batch, 12, width, generator=torch.Generator().manual_seed(seed))


def backbone(name: str = "vit", **settings: object) -> torch.nn.Module:
    small = {"width": 16, "depth": 4} | ({"heads": 2} if name != "mamba" else {"state": 4})
    return Catalogue.load().build(ComponentRef("backbone", name, small | settings), where(GRID))


@pytest.mark.parametrize("probability", [0.3, 1.0])
def test_layer_shuffle_keeps_the_contract(probability: float) -> None:
    check_between("layer_shuffle", {"probability": probability})


def test_shuffles_come_more_often_with_depth_and_the_order_comes_back() -> None:
    made = LayerShuffle(LayerShuffleSettings(probability=0.8), Context(GRID))
    made.prepare(4)
    torch.manual_seed(0)
    given, home, times = tokens(), order(), [0, 0, 0, 0]
    for _ in range(400):
        here, layout = given, home
        for k in range(4):
            here, layout = made(k, here, layout)
            times[k] += layout is not home
        assert layout is home
        assert torch.equal(here, given)
    assert times[3] == 0
    for k, expected in enumerate((0.4, 0.6, 0.8)):  # block k + 1 of 0 … 3 is the (k + 2)-th of 4
        assert times[k] / 400 == pytest.approx(expected, abs=0.08)


@pytest.mark.parametrize("readout", ["class", "mean", "last"])
def test_a_shuffled_backbone_is_the_same_model_in_evaluation(readout: str) -> None:
    plain, shuffled = backbone("mamba", readout=readout), backbone("mamba", readout=readout, between=SHUFFLE)
    plain.load_state_dict(shuffled.state_dict())
    one, two = (made.eval()(tokens(), order()) for made in (plain, shuffled))
    assert torch.equal(one.summary_BD, two.summary_BD)
    torch.manual_seed(1)
    trained = shuffled.train()(tokens(), order())
    assert torch.equal(trained.levels[0].layout.perm_GN, order().perm_GN)
    assert not torch.allclose(trained.summary_BD, one.summary_BD, atol=1e-4)


def test_a_model_that_is_blind_to_the_order_does_not_see_the_shuffle() -> None:
    """The class token stays in its place, and every patch comes back to its own."""
    made = backbone("vit", between=SHUFFLE)
    one, two = made.eval()(tokens(), order()), made.train()(tokens(), order())
    torch.testing.assert_close(one.summary_BD, two.summary_BD, rtol=0, atol=1e-5)
    torch.testing.assert_close(one.levels[0].tokens_BND, two.levels[0].tokens_BND, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["mamba", "vit", "longformer", "arm"])
def test_backbones_keep_their_contract_with_it(name: str) -> None:
    small = {"mamba": {"state": 4}, "vit": {"heads": 2}, "longformer": {"heads": 2, "window": 4}, "arm": {"levels": 2}}
    check_backbone(name, {"width": 24, "depth": 2, "between": SHUFFLE} | small[name])
