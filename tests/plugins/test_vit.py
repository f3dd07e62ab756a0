"""The vision transformer: blind to the order, whole in its readout."""

from __future__ import annotations

import pytest
import torch
from reorder_vit.backbone import VitBackbone
from reorder_vit.settings import VitSettings

from reorder_core import Context, Grid, Layout, RunFacts, UsageError
from reorder_core.conformance import check_backbone
from reorder_core.settings import DataFacts

GRID = Grid(3, 4)
SMALL = {"width": 24, "depth": 2, "heads": 3}


def build(**settings):
    generator = torch.Generator().manual_seed(3)
    return VitBackbone(VitSettings(**(SMALL | settings)), Context(GRID, width=24, generator=generator)).eval()


@pytest.mark.parametrize("readout", ["class", "mean"])
def test_holds_the_contract_of_backbones(readout):
    check_backbone("vit", VitSettings(**SMALL, readout=readout))


@pytest.mark.parametrize("readout", ["class", "mean"])
@torch.no_grad()
def test_no_order_changes_the_summary(readout):
    model = build(readout=readout)
    patches_BND = torch.randn(2, 12, 24, generator=torch.Generator().manual_seed(0))
    expected_BD = model(patches_BND, Layout.fixed(GRID, torch.arange(12))).summary_BD
    for seed in range(10):
        layout = Layout.fixed(GRID, torch.randperm(12, generator=torch.Generator().manual_seed(seed)))
        features = model(layout.order(patches_BND), layout)
        torch.testing.assert_close(features.summary_BD, expected_BD, rtol=0, atol=1e-5)


@pytest.mark.parametrize("readout", ["class", "mean"])
@torch.no_grad()
def test_padding_is_not_seen(readout):
    model = build(readout=readout)
    tokens_BND = torch.randn(2, 12, 24)
    valid_BN = torch.arange(12).expand(2, 12) < 9
    padded = model(tokens_BND, Layout(GRID, torch.arange(12)[None], valid_BN=valid_BN)).summary_BD
    short = model(tokens_BND[:, :9], Layout(Grid(3, 3), torch.arange(9)[None])).summary_BD
    torch.testing.assert_close(padded, short, rtol=0, atol=1e-5)


@torch.no_grad()
def test_between_is_called_after_each_block_with_the_patches_alone():
    model = build()
    calls = []

    def between(k, tokens_BND, layout):
        calls.append((k, tuple(tokens_BND.shape)))
        return tokens_BND.flip(1), layout

    tokens_BND = torch.randn(2, 12, 24)
    layout = Layout.fixed(GRID, torch.arange(12))
    plain = model(tokens_BND, layout).summary_BD
    model.between = between
    torch.testing.assert_close(model(tokens_BND, layout).summary_BD, plain, rtol=0, atol=1e-5)
    assert calls == [(0, (2, 12, 24)), (1, (2, 12, 24))]


def test_the_same_generator_gives_the_same_weights_and_leaves_the_global_state_alone():
    before = torch.random.get_rng_state()
    one, two = build(), build()
    assert torch.equal(torch.random.get_rng_state(), before)
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name]), name


def test_weights_come_from_timms_own_model():
    from timm.models.vision_transformer import VisionTransformer

    theirs = VisionTransformer(img_size=16, patch_size=4, embed_dim=24, depth=2, num_heads=3, num_classes=2)
    missing, _ = build().load_state_dict(theirs.state_dict(), strict=False)
    assert missing == []


def test_heads_must_divide_the_width():
    settings = VitSettings(width=20, heads=3)
    facts = RunFacts(DataFacts(8, 8, 1), GRID, 4, 8, "learned")
    assert [problem.key for problem in settings.problems(facts)] == ["heads"]
    with pytest.raises(UsageError, match="20 is not divisible by 3 heads"):
        VitBackbone(settings, Context(GRID))
