"""The hierarchy: contract around every mixer, levels and their layouts, settings that do not fit."""

from __future__ import annotations

import shutil

import pytest
import torch
from reorder_hierarchical.backbone import HierarchicalBackbone
from reorder_hierarchical.settings import HierarchicalSettings

from reorder_core import Grid, Layout, RunFacts, UsageError
from reorder_core.catalogue import Catalogue
from reorder_core.conformance import check_backbone, context
from reorder_core.model import Model
from reorder_core.settings import DataFacts

GRID = Grid(4, 6)
ROW = Layout.fixed(GRID, torch.arange(24))
MERGES = pytest.mark.parametrize("merge", ["sequence", "grid"])
VIT, MAMBA = {"name": "vit", "heads": 2}, {"name": "mamba", "state": 4}
SMALL = {"mixer": VIT, "widths": [8, 16, 24], "depths": [1, 1, 2]}
NO_COMPILER = not any(shutil.which(name) for name in ("c++", "g++", "clang++"))
WITH_A_COMPILER = [
    pytest.mark.slow,
    pytest.mark.skipif(NO_COMPILER, reason="torch.compile needs a C++ compiler on this machine"),
]

# What narrow tokens on a small grid ask of a mixer whose defaults are for more; others are taken as they come.
FITTING = {
    "image_transformer": {"heads": 2, "query": 2, "memory": 1},
    "longformer": {"heads": 2, "window": 2},
    "mamba": {"state": 4},
    "mamba2": {"state": 4, "head_width": 4, "chunk": 4},
    "sparse_transformer": {"heads": 2, "stride": 2},
    "transformer_xl": {"heads": 2, "segment": 2, "memory": 2},
    "vit": {"heads": 2},
}
MIXERS = sorted(entry.component.name for entry in Catalogue.load().entries("mixer"))


def build(grid=GRID, **settings):
    return HierarchicalBackbone(HierarchicalSettings(**(SMALL | settings)), context(grid)).eval()


def tokens(batch=2, count=24, width=8, seed=0):
    return torch.randn(batch, count, width, generator=torch.Generator().manual_seed(seed))


def shuffled(seed=1, grid=GRID):
    return Layout.fixed(grid, torch.randperm(grid.size, generator=torch.Generator().manual_seed(seed)))


@MERGES
@pytest.mark.parametrize("name", MIXERS)
def test_holds_the_contract_of_backbones_around_every_mixer(name, merge):
    mixer = {"name": name} | FITTING.get(name, {})
    settings = {"mixer": mixer, "widths": [8, 16], "depths": [1, 1], "merge": merge}
    check_backbone("hierarchical", settings, grid=Grid(5, 6))


@MERGES
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"mixer": VIT | {"rotary": True}},
        {"mixer": MAMBA, "readout": "last"},
        {"mixer": MAMBA | {"direction": "bidirectional"}, "drop_path": 0.1},
        {"mixer": MAMBA | {"orders": 2}},
    ],
    ids=["vit", "rotary", "mamba", "bidirectional", "two_orders"],
)
def test_holds_the_contract_of_backbones_in_three_stages(merge, settings):
    check_backbone("hierarchical", SMALL | settings | {"merge": merge}, grid=Grid(6, 6))


@MERGES
@torch.no_grad()
def test_levels_are_finest_first_and_each_knows_its_grid(merge):
    features = build(merge=merge)(tokens(), shuffled())
    grids = [GRID, Grid(1, 12), Grid(1, 6)] if merge == "sequence" else [GRID, Grid(2, 3), Grid(1, 2)]
    assert [level.layout.grid for level in features.levels] == grids
    shapes = [tuple(level.tokens_BND.shape) for level in features.levels]
    assert shapes == [(2, grid.size, width) for grid, width in zip(grids, (8, 16, 24), strict=True)]
    torch.testing.assert_close(features.summary_BD, features.levels[-1].tokens_BND.mean(1))


@torch.no_grad()
def test_squares_of_the_grid_are_the_same_in_every_order():
    """With a mixer that is blind to the order, so is the hierarchy; a dense task gets the same map of every level."""
    model = build(merge="grid")
    assert not model.order_sensitive
    expected = model(tokens(), ROW)
    layout = shuffled()
    features = model(layout.order(tokens()), layout)
    torch.testing.assert_close(features.summary_BD, expected.summary_BD, rtol=0, atol=1e-5)
    for one, other in zip(features.levels, expected.levels, strict=True):
        placed_BND = one.layout.restore(one.tokens_BND)
        torch.testing.assert_close(placed_BND, other.layout.restore(other.tokens_BND), rtol=0, atol=1e-5)


def test_it_declares_what_its_mixer_and_its_merging_are():
    said = {}
    for merge in ("sequence", "grid"):
        for mixer in (VIT, MAMBA):
            model = build(mixer=mixer, merge=merge)
            said[merge, mixer["name"]] = (model.attention, model.order_sensitive)
    assert said == {
        ("sequence", "vit"): ("full", True),
        ("sequence", "mamba"): ("causal", True),
        ("grid", "vit"): ("full", False),
        ("grid", "mamba"): ("full", True),
    }
    alone = build(widths=[8], depths=[1], merge="sequence")
    assert not alone.order_sensitive


@torch.no_grad()
def test_merging_in_the_sequence_looks_at_no_later_slot_around_a_causal_mixer():
    model = build(mixer=MAMBA, merge="sequence", readout="last")
    changed = tokens()
    changed[:, 9:] += tokens(seed=1)[:, 9:]
    for number, (one, other) in enumerate(zip(model(tokens(), ROW).levels, model(changed, ROW).levels, strict=True)):
        before = 9 // 2**number
        torch.testing.assert_close(one.tokens_BND[:, :before], other.tokens_BND[:, :before], rtol=0, atol=1e-6)
        assert (one.tokens_BND[:, before] - other.tokens_BND[:, before]).abs().max() > 1e-4


@torch.no_grad()
def test_padding_at_the_end_is_not_seen():
    model = build()
    valid_BN = torch.arange(24).expand(2, 24) < 16
    padded = model(tokens(), Layout(GRID, ROW.perm_GN, valid_BN=valid_BN)).summary_BD
    short = build(Grid(4, 4))
    short.load_state_dict(model.state_dict())
    expected = short(tokens()[:, :16], Layout.fixed(Grid(4, 4), torch.arange(16))).summary_BD
    torch.testing.assert_close(padded, expected, rtol=0, atol=1e-5)


@MERGES
@torch.no_grad()
def test_between_and_exits_count_blocks_through_all_stages(merge):
    model = build(merge=merge)
    seen = []

    def between(k, tokens_BND, layout):
        seen.append((k, tuple(tokens_BND.shape[1:]), layout.grid.size))
        return tokens_BND.flip(1), layout.reversed()

    plain = model(tokens(), ROW)
    model.exits_after = (0, 3)
    model.between = between
    features = model(tokens(), ROW)
    N = [24, 12, 6] if merge == "sequence" else [24, 6, 2]
    expected = [(0, (N[0], 8), N[0]), (1, (N[1], 16), N[1]), (2, (N[2], 24), N[2]), (3, (N[2], 24), N[2])]
    assert seen == expected
    assert [tuple(exit_BD.shape) for exit_BD in features.exits] == [(2, 8), (2, 24)]
    torch.testing.assert_close(features.exits[1], features.summary_BD)
    if merge == "grid":
        torch.testing.assert_close(features.summary_BD, plain.summary_BD, rtol=0, atol=1e-5)


def test_the_model_embeds_at_the_first_stages_width():
    backbone = build()
    model = Model(backbone, GRID, 2, 3, "learned")
    features = model(torch.randn(2, 3, 8, 12), shuffled())
    assert (backbone.token_width, backbone.width) == (8, 24)
    assert model.position_ND.shape == (24, 8)
    assert features.summary_BD.shape == (2, 24)
    features.summary_BD.sum().backward()


def test_the_same_generator_gives_the_same_weights_and_a_file_gives_them_back(tmp_path):
    before = torch.random.get_rng_state()
    one, two = build(), build()
    assert torch.equal(torch.random.get_rng_state(), before)
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name]), name
    with torch.no_grad():
        one.stages[1].merge.reduction.weight.add_(1)
    torch.save(one.state_dict(), tmp_path / "weights.pt")
    loaded = build(weights=str(tmp_path / "weights.pt"))
    assert torch.equal(loaded.stages[1].merge.reduction.weight, one.stages[1].merge.reduction.weight)
    with pytest.raises(UsageError, match=r"stages.1.merge.norm.weight is \[16\] and should be \[24\]"):
        build(weights=str(tmp_path / "weights.pt"), factor=3)


@MERGES
@torch.no_grad()
def test_bfloat16_autocast_stays_near_float32(merge):
    model = build(merge=merge)
    plain = model(tokens(), shuffled()).summary_BD
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = model(tokens(), shuffled()).summary_BD
    torch.testing.assert_close(cast.float(), plain, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("merge", "backend"),
    [
        ("grid", "aot_eager"),
        pytest.param("grid", "inductor", marks=WITH_A_COMPILER),
        pytest.param("sequence", "inductor", marks=WITH_A_COMPILER),
    ],
)
def test_compiles_without_a_graph_break(merge, backend):
    model = build(merge=merge, widths=[8, 16], depths=[1, 1])
    expected = model(tokens(), shuffled()).summary_BD
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    found = compiled(tokens(), shuffled()).summary_BD
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    found.square().sum().backward()


@MERGES
@torch.no_grad()
def test_exports_with_its_order_inside(merge):
    class Summary(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = build(merge=merge)
            self.register_buffer("perm_N", shuffled().perm_GN[0])

        def forward(self, patches_BND):
            layout = Layout.fixed(GRID, self.perm_N)
            return self.backbone(layout.order(patches_BND), layout).summary_BD

    summary = Summary().eval()
    program = torch.export.export(summary, (tokens(),), strict=False)
    torch.testing.assert_close(program.module()(tokens(seed=1)), summary(tokens(seed=1)), rtol=0, atol=1e-5)


FACTS = RunFacts(DataFacts(8, 12, 1), GRID, 2, 8, "learned")


@pytest.mark.parametrize(
    ("settings", "key", "says"),
    [
        ({"depths": [1, 1]}, "depths", "2 stages, but widths has 3"),
        ({"widths": [8] * 7, "depths": [1] * 7}, "widths", "nothing is left to merge before stage 7"),
        ({"merge": "grid", "widths": [8] * 5, "depths": [1] * 5}, "widths", "before stage 5, on a grid of 1x1"),
    ],
)
def test_stages_that_do_not_fit_are_a_problem_and_an_error(settings, key, says):
    (problem,) = HierarchicalSettings(**(SMALL | settings)).problems(FACTS)
    assert (problem.key, says in problem.message) == (key, True)
    with pytest.raises(UsageError, match=says):
        build(**settings)


def test_a_file_that_is_not_there_is_a_problem():
    (problem,) = HierarchicalSettings(**SMALL, weights="gone.pt").problems(FACTS)
    assert (problem.key, problem.message[:24]) == ("weights", "there is no gone.pt: giv")


def test_settings_that_fit_are_none():
    assert not list(HierarchicalSettings().problems(FACTS))


def test_heads_must_divide_every_width():
    with pytest.raises(UsageError, match="a width of 9 is not divisible by 2 heads"):
        build(widths=[8, 9], depths=[1, 1])
