"""Transformer-XL on a CUDA device: values and gradients near those of the CPU, in float32 and under bfloat16."""

from __future__ import annotations

import pytest
import torch
from reorder_transformer_xl.backbone import TransformerXLBackbone
from reorder_transformer_xl.settings import TransformerXLSettings

from reorder_core import Context, Grid, Layout

CUDA = torch.cuda.is_available()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not CUDA, reason="no CUDA device here")]

GRID = Grid(7, 9)
ROW = Layout.fixed(GRID, torch.arange(63))
SETTINGS = [{}, {"causal": False, "distances": "learned"}, {"relative": False, "norm": "pre"}, {"faithful": True}]


def summary_and_gradients(device, autocast, **settings):
    generator = torch.Generator().manual_seed(3)
    given = TransformerXLSettings(width=64, depth=2, heads=2, **settings)
    model = TransformerXLBackbone(given, Context(GRID, generator=generator)).to(device)
    tokens_BND = torch.randn(4, 63, 64, generator=torch.Generator().manual_seed(0)).to(device)
    with torch.autocast(device, dtype=torch.bfloat16, enabled=autocast):
        features = model(tokens_BND, ROW.to(device))
    values = torch.cat([features.summary_BD[:, None], features.levels[0].tokens_BND], dim=1).float()
    gradients = torch.autograd.grad(values.cos().sum(), list(model.parameters()))
    return [values.detach().cpu(), *(gradient.cpu() for gradient in gradients)]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize(("autocast", "share"), [(False, 1e-3), (True, 0.2)], ids=["float32", "bfloat16"])
def test_equals_the_cpu(settings, autocast, share):
    ours = summary_and_gradients("cuda", autocast, **settings)
    expected = summary_and_gradients("cpu", False, **settings)
    for one, other in zip(ours, expected, strict=True):
        assert (one - other).norm() <= share * other.norm() + 1e-2
