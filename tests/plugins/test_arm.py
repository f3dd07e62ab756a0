"""The backbone `arm`: contract, published names and shapes, weights of every layout, levels, settings."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from reorder_arm.backbone import ArmBackbone
from reorder_arm.reference import finetuned_shapes, pretrained_shapes
from reorder_arm.settings import ArmSettings

from reorder_core import Grid, Layout, RunFacts, UsageError
from reorder_core.conformance import check_backbone, context
from reorder_core.model import Model
from reorder_core.settings import DataFacts

GRID = Grid(4, 4)
SMALL = {"width": 16, "depth": 2, "state": 4}
ROW = Layout.fixed(GRID, torch.arange(16))
FACTS = RunFacts(DataFacts(16, 16, 1), GRID, 4, 8, "none")


def build(grid=GRID, seed=3, **settings):
    return ArmBackbone(ArmSettings(**(SMALL | settings)), context(grid, width=16, seed=seed)).eval()


def tokens(batch=2, count=16):
    return torch.randn(batch, count, 16, generator=torch.Generator().manual_seed(0))


def file_of(shapes, path, seed=1):
    draw = torch.Generator().manual_seed(seed)
    state = {name: 0.1 * torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    torch.save({"model": state, "epoch": 1599}, path)
    return state, str(path)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"readout": "class"},
        {"class_token": False},
        {"direction": "causal"},
        {"direction": "causal", "readout": "last", "depth": 4, "levels": 4},
        {"direction": "bidirectional", "levels": 2},
    ],
    ids=str,
)
def test_holds_the_contract_of_backbones(settings):
    check_backbone("arm", ArmSettings(**(SMALL | settings)))


def test_arm_b_has_the_published_names_shapes_and_size():
    """85.03 million with patch embedding, positions and a head for 1,000 classes."""
    where = context(Grid(14, 14), patch=16, channels=3, width=768).changed(generator=None)
    with torch.device("meta"):
        ours = ArmBackbone(ArmSettings(width=768), where).state_dict()
    published = finetuned_shapes(768, 12, 16, 196, 16)
    elsewhere = {"patch_embed.proj.weight", "patch_embed.proj.bias", "pos_embed", "head.weight", "head.bias"}
    assert {name: tuple(value.shape) for name, value in ours.items()} == {
        name: shape for name, shape in published.items() if name not in elsewhere
    }
    assert sum(torch.Size(shape).numel() for shape in published.values()) == 85_031_656


@torch.no_grad()
def test_finetuned_weights_load_with_embedding_and_positions(tmp_path):
    state, path = file_of(finetuned_shapes(16, 2, 4, 16, 4), tmp_path / "arm.pt")
    backbone = build(weights=path)
    for name, value in backbone.state_dict().items():
        expected = state[name] + state["pos_embed"][:, 8] if name == "cls_token" else state[name]
        assert torch.equal(value, expected), name
    model = Model(backbone, GRID, 4, 3, "none")
    images = torch.randn(2, 3, 16, 16)
    conv = torch.nn.functional.conv2d(images, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], 4)
    rows = torch.cat([state["pos_embed"][0, :8], state["pos_embed"][0, 9:]])
    torch.testing.assert_close(model.embed(images), conv.flatten(2).mT + rows)


@pytest.mark.parametrize("suffix", ["_b", "_c", "_c_b"])
def test_pretrained_weights_start_every_direction_as_the_forward_one(tmp_path, suffix):
    state, path = file_of(pretrained_shapes(16, 2, 4, 16, 4, decoder=8), tmp_path / "arm.pt")
    backbone, fresh = build(weights=path), build()
    own = backbone.state_dict()
    for part in ("conv1d{}.weight", "conv1d{}.bias", "x_proj{}.weight", "dt_proj{}.bias", "A{}_log", "D{}"):
        name = "layers.1.mixer." + part
        assert torch.equal(own[name.format(suffix)], state[name.format("")]), name
    for name in ("cls_token", "norm_f.weight", "norm_f.bias"):
        assert torch.equal(own[name], fresh.state_dict()[name]), name
    assert torch.equal(
        build(weights=path, direction="causal").state_dict()["layers.0.mixer.D"], state["layers.0.mixer.D"]
    )


@torch.no_grad()
def test_positions_of_another_grid_are_interpolated(tmp_path):
    """Pretrained on 4×4 patches, read on 6×6: a plane stays a plane inside, and the mean stays."""
    state, path = file_of(pretrained_shapes(16, 2, 4, 16, 4, decoder=8), tmp_path / "arm.pt")
    state["pos_embed"] = torch.arange(4.0).repeat_interleave(4)[None, :, None].expand(1, 16, 16).clone()
    torch.save(state, path)
    position_ND = build(Grid(6, 6), weights=path).embedding(Grid(6, 6), 4, 3).position_ND
    assert position_ND.shape == (36, 16)
    torch.testing.assert_close(position_ND[:, 0].view(6, 6).std(dim=1), torch.zeros(6), rtol=0, atol=1e-5)
    torch.testing.assert_close(position_ND.mean(), torch.tensor(1.5))
    assert (position_ND[:, 0].view(6, 6)[:, 0].diff() > 0.3).all()


def test_weights_that_do_not_fit_are_one_sentence(tmp_path):
    _, path = file_of(finetuned_shapes(16, 2, 8, 16, 4), tmp_path / "state.pt")
    with pytest.raises(UsageError, match=r"layers.0.mixer.A_log is \[16, 8\] and should be \[16, 4\]"):
        build(weights=path)
    _, path = file_of(finetuned_shapes(16, 3, 4, 16, 4), tmp_path / "depth.pt")
    with pytest.raises(UsageError, match=r"not known here: layers.2"):
        build(weights=path)
    _, path = file_of(finetuned_shapes(16, 2, 4, 16, 4), tmp_path / "arm.pt")
    with pytest.raises(UsageError, match=r"not known here: layers.0.mixer.A_b_log"):
        build(weights=path, direction="causal", class_token=True)
    backbone = build(weights=path)
    with pytest.raises(UsageError, match=r"patch_embed.proj.weight is \[16, 3, 4, 4\] and should be \[16, 1, 2, 2\]"):
        backbone.embedding(GRID, 2, 1)
    with pytest.raises(UsageError, match="brings its own patch embedding and positions"):
        Model(backbone, GRID, 4, 3, "learned")
    shapes = finetuned_shapes(16, 2, 4, 15, 4)
    _, path = file_of(shapes, tmp_path / "odd.pt")
    assert build(Grid(3, 5), weights=path).embedding(Grid(3, 5), 4, 3).position_ND.shape == (15, 16)
    shapes.pop("pos_embed")
    _, path = file_of(shapes, tmp_path / "none.pt")
    with pytest.raises(UsageError, match="have no learned positions"):
        build(weights=path).embedding(GRID, 4, 3)


@torch.no_grad()
def test_the_class_token_stands_in_the_middle_also_where_the_mean_is_read():
    model = build()
    before = model(tokens(), ROW).summary_BD
    assert model.special_places(16) == (8,)
    model.cls_token += torch.randn(16)
    assert not torch.allclose(model(tokens(), ROW).summary_BD, before)
    assert not hasattr(build(direction="causal"), "cls_token")


@torch.no_grad()
def test_further_levels_are_the_tokens_of_earlier_depths():
    model = build(direction="causal", depth=4, levels=3)
    levels = model(tokens(), ROW).levels
    assert ArmSettings(depth=12, levels=4).depths_kept == (12, 10, 8, 6)
    assert ArmSettings(depth=24, levels=4).depths_kept == (24, 20, 16, 12)
    hidden_BND, plan, after = tokens(), model.plan(ROW), []
    for block in model.layers:
        hidden_BND = block(hidden_BND, plan)
        after.append(hidden_BND)
    for level, expected in zip(levels, (model.norm_f(after[3]), after[2], after[1]), strict=True):
        torch.testing.assert_close(level.tokens_BND, expected)
    assert model.between is None


@torch.no_grad()
def test_bfloat16_autocast_stays_near_float32():
    model = build()
    plain = model(tokens(), ROW).summary_BD
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = model(tokens(), ROW).summary_BD
    torch.testing.assert_close(cast.float(), plain, rtol=0.1, atol=0.1)


class Summary(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = build(Grid(2, 3), depth=1)

    def forward(self, tokens_BND):
        order = Layout.fixed(Grid(2, 3), torch.tensor([3, 0, 4, 1, 5, 2]))
        return self.backbone(tokens_BND, order).summary_BD


@torch.no_grad()
def test_exports_with_a_fixed_order():
    model = Summary().eval()
    program = torch.export.export(model, (tokens(count=6),), strict=False)
    torch.testing.assert_close(program.module()(tokens(count=6) + 1), model(tokens(count=6) + 1))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"readout": "class", "direction": "causal"}, "readout: there is no class token to read"),
        ({"depth": 2, "levels": 4}, "levels: 2 blocks have no 4 depths to hand on"),
        ({"weights": "/nowhere.pt"}, "weights: there is no /nowhere.pt"),
    ],
)
def test_settings_that_contradict_each_other_are_a_problem(settings, says):
    (problem,) = ArmSettings(**settings).problems(FACTS)
    assert f"{problem.key}: {problem.message}".startswith(says)
    if "weights" not in settings:
        with pytest.raises(UsageError, match="backbone"):
            build(**settings)


def test_weights_bring_their_positions():
    learned = RunFacts(DataFacts(16, 16, 1), GRID, 4, 8, "learned")
    (problem,) = ArmSettings(weights=str(Path(__file__))).problems(learned)
    assert problem.message == "weights bring their own positions: write positions: {kind: none}"
    assert not list(ArmSettings().problems(learned))


@pytest.mark.parametrize("settings", [{}, {"direction": "causal", "levels": 2}], ids=str)
@torch.no_grad()
def test_is_one_graph_to_torch_compile(settings):
    """Traced whole, without a break; that Inductor agrees is tested with the mixer's own backbone."""
    torch._dynamo.reset()
    model = build(Grid(2, 3), **settings)
    order = Layout.fixed(Grid(2, 3), torch.tensor([3, 0, 4, 1, 5, 2]))
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    found, expected = compiled(tokens(count=6), order), model(tokens(count=6), order)
    torch.testing.assert_close(found.summary_BD, expected.summary_BD)
    assert len(found.levels) == len(expected.levels)
