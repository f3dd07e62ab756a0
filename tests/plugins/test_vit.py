"""The vision transformers: blind to the order, whole in their readout, exported and compiled, timm's by name."""

from __future__ import annotations

import logging
import shutil

import pytest
import timm
import torch
from reorder_vit.attention import FullAttention
from reorder_vit.backbone import VitBackbone
from reorder_vit.settings import TimmVitSettings, VitMixerSettings, VitSettings
from reorder_vit.timm_vit import TimmVit

from reorder_core import Context, Grid, Layout, RunFacts, UnsupportedGrid, UsageError
from reorder_core.catalogue import Catalogue
from reorder_core.conformance import check_backbone, check_mixer, context
from reorder_core.model import Model
from reorder_core.settings import ComponentRef, DataFacts

GRID = Grid(3, 4)
SMALL = {"width": 24, "depth": 2, "heads": 3}
ROW = Layout.fixed(GRID, torch.arange(12))
PLAIN_AND_ROTARY = pytest.mark.parametrize("rotary", [False, True], ids=["plain", "rotary"])
NO_COMPILER = not any(shutil.which(name) for name in ("c++", "g++", "clang++"))
needs_a_compiler = pytest.mark.skipif(NO_COMPILER, reason="torch.compile needs a C++ compiler on this machine")


def build(**settings):
    generator = torch.Generator().manual_seed(3)
    return VitBackbone(VitSettings(**(SMALL | settings)), Context(GRID, width=24, generator=generator)).eval()


def build_timm(name="test_vit", grid=GRID, **settings):
    generator = torch.Generator().manual_seed(3)
    given = TimmVitSettings(model=name, **settings)
    return TimmVit(given, Context(grid, patch=4, channels=1, generator=generator)).eval()


def random_layout(seed, groups=1, group_B=None):
    generator = torch.Generator().manual_seed(seed)
    perm_GN = torch.stack([torch.randperm(12, generator=generator) for _ in range(groups)])
    return Layout(GRID, perm_GN, group_B)


def tokens(batch=2, width=24, seed=0):
    return torch.randn(batch, 12, width, generator=torch.Generator().manual_seed(seed))


class Summary(torch.nn.Module):
    """A backbone that reads in a fixed order: patches in patch order to their summary."""

    def __init__(self, backbone, layout):
        super().__init__()
        self.backbone, self.grid = backbone, layout.grid
        self.register_buffer("perm_N", layout.perm_GN[0])

    def forward(self, patches_BND):
        layout = Layout.fixed(self.grid, self.perm_N)
        return self.backbone(layout.order(patches_BND), layout).summary_BD


@PLAIN_AND_ROTARY
@pytest.mark.parametrize("readout", ["class", "mean", "last"])
def test_holds_the_contract_of_backbones(readout, rotary):
    settings = SMALL | ({"heads": 2} if rotary else {})
    check_backbone("vit", VitSettings(**settings, readout=readout, rotary=rotary))


@PLAIN_AND_ROTARY
def test_its_attention_holds_the_contract_of_mixers(rotary):
    check_mixer("vit", VitMixerSettings(heads=4, rotary=rotary))


def every_ordering():
    """The order of every installed ordering that needs no settings and takes this grid."""
    catalogue = Catalogue.load()
    for entry in catalogue.entries("ordering"):
        name, settings = entry.component.name, catalogue.settings_class(entry)
        if settings is not None and any(field.is_required() for field in settings.model_fields.values()):
            continue
        try:
            ordering = catalogue.build(ComponentRef("ordering", name), context(GRID))
            if not hasattr(ordering, "fit"):
                yield name, torch.from_numpy(ordering.permutation(GRID))
        except UnsupportedGrid:
            continue


@PLAIN_AND_ROTARY
@pytest.mark.parametrize("positions", ["learned", "sincos2d", "sincos1d", "none"])
@torch.no_grad()
def test_no_ordering_changes_what_it_says_of_an_image(positions, rotary):
    """Positions follow the patch: summary and tokens on the grid are the same in every order, to 1e-5."""
    torch.manual_seed(0)
    model = Model(build(rotary=rotary), GRID, 2, 3, positions).eval()
    images_BCHW = torch.randn(2, 3, 6, 8)
    expected = model(images_BCHW, ROW)
    orders = dict(every_ordering())
    assert {"row_major", "hilbert", "spiral", "snake"} <= set(orders)
    for name, perm_N in orders.items():
        layout = Layout.fixed(GRID, perm_N)
        features = model(images_BCHW, layout)
        torch.testing.assert_close(features.summary_BD, expected.summary_BD, rtol=0, atol=1e-5, msg=name)
        placed_BND = layout.restore(features.levels[0].tokens_BND)
        torch.testing.assert_close(placed_BND, expected.levels[0].tokens_BND, rtol=0, atol=1e-5, msg=name)


@torch.no_grad()
def test_positions_that_stay_in_their_slots_make_it_sensitive():
    torch.manual_seed(0)
    model = Model(build(), GRID, 2, 3, "learned", follow="slot").eval()
    images_BCHW = torch.randn(2, 3, 6, 8)
    moved = model(images_BCHW, random_layout(1)).summary_BD - model(images_BCHW, ROW).summary_BD
    assert moved.abs().max() > 1e-3


@torch.no_grad()
def test_rotary_sees_how_far_apart_two_patches_are():
    """Without other positions: moving all patches by a row changes nothing, exchanging two patches does."""
    mixer = FullAttention(VitMixerSettings(heads=2, rotary=True), Context(GRID, width=16)).eval()
    above, below = (Layout.fixed(Grid(6, 4), torch.arange(first, first + 12)) for first in (0, 8))
    outputs = [mixer(tokens(width=16), mixer.plan(layout)) for layout in (above, below)]
    torch.testing.assert_close(outputs[0], outputs[1], rtol=0, atol=1e-5)
    plain = mixer(tokens(width=16), mixer.plan(ROW))
    swapped = mixer(tokens(width=16), mixer.plan(Layout.fixed(GRID, torch.arange(12).roll(1))))
    assert (plain - swapped).abs().max() > 1e-4


@PLAIN_AND_ROTARY
@pytest.mark.parametrize("readout", ["class", "mean"])
@torch.no_grad()
def test_padding_is_not_seen(readout, rotary):
    model = build(readout=readout, rotary=rotary)
    valid_BN = torch.arange(12).expand(2, 12) < 8
    padded = model(tokens(), Layout(GRID, torch.arange(12)[None], valid_BN=valid_BN)).summary_BD
    short = model(tokens()[:, :8], Layout(Grid(2, 4), torch.arange(8)[None])).summary_BD
    torch.testing.assert_close(padded, short, rtol=0, atol=1e-5)


@PLAIN_AND_ROTARY
@torch.no_grad()
def test_between_is_called_after_each_block_and_its_layout_is_the_next_blocks(rotary):
    model = build(rotary=rotary)
    calls = []

    def between(k, tokens_BND, layout):
        calls.append((k, tuple(tokens_BND.shape)))
        return tokens_BND.flip(1), layout.reversed()

    plain = model(tokens(), ROW).summary_BD
    model.between = between
    torch.testing.assert_close(model(tokens(), ROW).summary_BD, plain, rtol=0, atol=1e-5)
    assert calls == [(0, (2, 12, 24)), (1, (2, 12, 24))]


def test_the_same_generator_gives_the_same_weights_and_leaves_the_global_state_alone():
    before = torch.random.get_rng_state()
    for make in (build, build_timm):
        one, two = make(), make()
        assert torch.equal(torch.random.get_rng_state(), before)
        for name, value in one.state_dict().items():
            assert torch.equal(value, two.state_dict()[name]), name


def test_weights_of_the_blocks_come_from_timms_own_model(tmp_path):
    from timm.models.vision_transformer import VisionTransformer

    theirs = VisionTransformer(img_size=16, patch_size=4, embed_dim=24, depth=2, num_heads=3, num_classes=2)
    torch.save(theirs.state_dict(), tmp_path / "vit.pt")
    ours = build(weights=str(tmp_path / "vit.pt")).state_dict()
    for name, value in ours.items():
        assert torch.equal(value, theirs.state_dict()[name]), name
    with pytest.raises(UsageError, match=r"cls_token is \[1, 1, 24\] and should be \[1, 1, 48\]"):
        build(width=48, weights=str(tmp_path / "vit.pt"))


@PLAIN_AND_ROTARY
@torch.no_grad()
def test_bfloat16_autocast_stays_near_float32(rotary):
    model = build(rotary=rotary)
    plain = model(tokens(), ROW).summary_BD
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = model(tokens(), ROW).summary_BD
    assert cast.isfinite().all()
    torch.testing.assert_close(cast.float(), plain, rtol=0.05, atol=0.05)


@needs_a_compiler
def test_compiles_without_a_graph_break():
    model = build(depth=1, rotary=True)
    layout = random_layout(1)
    expected = model(tokens(), layout).summary_BD
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True)
        torch.testing.assert_close(compiled(tokens(), layout).summary_BD, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["test_vit", "eva02_tiny_patch14_224"])
def test_timms_models_compile_without_a_graph_break(name):
    model = build_timm(name, depth=1)
    patches_BND, layout = tokens(width=model.width), random_layout(1)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    found_BD = compiled(patches_BND, layout).summary_BD
    torch.testing.assert_close(found_BD, model(patches_BND, layout).summary_BD, rtol=0, atol=1e-5)
    found_BD.square().sum().backward()


@pytest.mark.parametrize(
    "make",
    [
        build,
        lambda: build(rotary=True),
        lambda: build_timm(depth=1),
        lambda: build_timm("eva02_tiny_patch14_224", depth=1),
    ],
    ids=["plain", "rotary", "timm", "eva02"],
)
@torch.no_grad()
def test_exports_with_its_order_inside(make):
    model = make()
    summary = Summary(model, random_layout(1))
    program = torch.export.export(summary, (tokens(width=model.width),), strict=False)
    again = tokens(width=model.width, seed=1)
    torch.testing.assert_close(program.module()(again), summary(again), rtol=0, atol=1e-5)


@PLAIN_AND_ROTARY
@torch.no_grad()
def test_runs_as_onnx_with_its_order_inside(rotary):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    summary = Summary(build(rotary=rotary), random_layout(1)).eval()
    program = torch.onnx.export(summary, (tokens(),), dynamo=True, input_names=["patches_BND"], verbose=False)
    session = runtime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"patches_BND": tokens(seed=1).numpy()})
    torch.testing.assert_close(torch.from_numpy(found), summary(tokens(seed=1)), rtol=0, atol=1e-5)


FACTS = RunFacts(DataFacts(8, 8, 1), GRID, 4, 8, "learned")
VIDEO = RunFacts(DataFacts(8, 8, 1), Grid(3, 4, 2), 4, 8, "none")


@pytest.mark.parametrize(
    ("settings", "facts", "key", "says"),
    [
        (VitSettings(width=20, heads=3), FACTS, "heads", "a width of 20 is not divisible by 3 heads"),
        (VitSettings(width=18, heads=3, rotary=True), FACTS, "rotary", "a head of 6 channels is not divisible by 4"),
        (VitSettings(rotary=True), VIDEO, "rotary", "knows no frames"),
        (VitSettings(readout="mean", class_position="end"), FACTS, "class_position", "only readout 'class'"),
        (TimmVitSettings(model="test_vit"), FACTS, "model", "write positions: {kind: none}"),
        (TimmVitSettings(model="test_vit"), VIDEO, "model", "read single images"),
        (TimmVitSettings(model="test_vit", weights="gone.pt"), VIDEO, "weights", "there is no file gone.pt"),
    ],
)
def test_settings_that_do_not_fit_are_a_problem(settings, facts, key, says):
    assert any(problem.key == key and says in problem.message for problem in settings.problems(facts))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"width": 20}, "20 is not divisible by 3 heads"),
        ({"width": 18, "rotary": True}, "rotary needs heads divisible by 4, not of 6 channels"),
    ],
)
def test_heads_must_fit_the_width(settings, says):
    with pytest.raises(UsageError, match=says):
        build(**settings)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("test_vit", {}),
        ("test_vit3", {"readout": "model"}),
        ("test_vit2", {"readout": "mean"}),
        ("deit_tiny_distilled_patch16_224", {"depth": 1}),
        ("eva02_tiny_patch14_224", {"depth": 1, "readout": "class"}),
    ],
)
def test_timms_models_hold_the_contract_of_backbones(name, settings):
    check_backbone("timm_vit", {"model": name, **settings})


@torch.no_grad()
def test_a_rotary_table_of_each_block_follows_the_order_of_each_image():
    """RoPE-mixed: a table for every block and head, gathered for every image's own order."""
    model = build_timm("vit_small_patch16_rope_mixed_224", depth=2)
    for values in model.parameters():
        values.add_(0.05 * torch.randn(values.shape, generator=torch.Generator().manual_seed(1)))
    patches_BND, layout = tokens(3, model.width), random_layout(2, 3, torch.tensor([2, 0, 1]))
    expected = model(patches_BND, ROW)
    features = model(layout.order(patches_BND), layout)
    torch.testing.assert_close(features.summary_BD, expected.summary_BD, rtol=0, atol=2e-5)
    assert (model(patches_BND, layout).summary_BD - expected.summary_BD).abs().max() > 1e-3


@pytest.mark.parametrize("settings", [{}, {"readout": "mean"}], ids=str)
@torch.no_grad()
def test_padding_is_not_seen_by_timms_models(settings):
    model = build_timm(**settings)
    valid_BN = torch.arange(12).expand(2, 12) < 8
    padded = model(tokens(width=64), Layout(GRID, torch.arange(12)[None], valid_BN=valid_BN)).summary_BD
    short = model(tokens(width=64)[:, :8], Layout(Grid(2, 4), torch.arange(8)[None])).summary_BD
    torch.testing.assert_close(padded, short, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"model": "test_vitt"}, "timm knows no model 'test_vitt': did you mean 'test_vit"),
        ({"model": "?"}, "timm knows no model"),
        ({"model": "resnet18"}, "'resnet18' is no plain vision transformer"),
        ({"model": "vit_relpos_small_patch16_224"}, "is no plain vision transformer"),
        ({"model": "test_vit", "depth": 40}, "'test_vit' has 6 blocks, not 40"),
        ({"model": "deit_tiny_distilled_patch16_224", "readout": "mean"}, "class and distillation tokens"),
        ({"model": "vit_tiny_patch16_224.unheard_of", "weights": "pretrained"}, "has no weights tagged 'unheard_of'"),
        ({"model": "vit_tiny_patch16_224.unheard_of"}, "it has augreg_in21k"),
        ({"model": "vit_tiny_patch16_224", "weights": "pretrained"}, "timm could not get the pretrained"),
        ({"model": "vit_huge_patch14_clip_336", "weights": "pretrained", "depth": 1}, "could not get"),
    ],
    ids=lambda value: value["model"] if isinstance(value, dict) else "",
)
def test_what_cannot_be_built_is_one_sentence(settings, says, monkeypatch):
    import timm.models._builder as builder

    def no_network(*arguments, **options):
        raise OSError("no network in tests")

    monkeypatch.setattr(builder, "load_state_dict_from_hf", no_network)
    monkeypatch.setattr(builder, "load_state_dict_from_url", no_network)
    if "huge" in settings["model"]:
        settings = settings | {"model": "vit_tiny_patch16_224.augreg_in21k"}
    with pytest.raises(UsageError, match=says) as caught:
        build_timm(settings["model"], **{key: value for key, value in settings.items() if key != "model"})
    assert "\n" not in str(caught.value)


@torch.no_grad()
def test_weights_of_another_grid_patch_and_channels_are_resampled(tmp_path):
    """A file of timm's, made for 3 channels and a grid of 2x2 patches of 8 pixels."""
    theirs = timm.create_model("test_vit", img_size=16, patch_size=8, num_classes=5).eval()
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "vit.pt")
    ours = build_timm(weights=str(tmp_path / "vit.pt"))
    theirs.set_input_size((12, 16), patch_size=(4, 4))
    assert torch.equal(ours.vit.blocks[0].attn.qkv.weight, theirs.blocks[0].attn.qkv.weight)
    embedding = ours.embedding(GRID, 4, 1)
    torch.testing.assert_close(embedding.pos_embed, theirs.pos_embed[:, 1:])
    weight = theirs.patch_embed.proj.weight.sum(1, keepdim=True)
    torch.testing.assert_close(embedding.patch_embed.proj.weight, weight, rtol=1e-4, atol=1e-5)


def test_pretrained_weights_are_timms_from_the_cache(monkeypatch):
    """What the hub's cache holds goes in as timm puts it in; here the cache is this test."""
    import timm.models._builder as builder

    torch.manual_seed(0)
    theirs = timm.create_model("test_vit")
    monkeypatch.setattr(builder, "load_state_dict_from_hf", lambda *arguments, **options: theirs.state_dict())
    ours = build_timm(weights="pretrained", depth=2)
    assert torch.equal(ours.vit.blocks[1].mlp.fc1.weight, theirs.blocks[1].mlp.fc1.weight)
    assert torch.equal(ours.vit.cls_token, theirs.cls_token)
    assert torch.equal(ours.special_position, theirs.pos_embed[:, :1])


def test_a_file_of_another_model_names_the_tensors(tmp_path):
    theirs = timm.create_model("test_vit2", img_size=16, patch_size=8, num_classes=5)
    torch.save(theirs.state_dict(), tmp_path / "vit.pt")
    with pytest.raises(UsageError, match=r"do not fit 'test_vit' .*blocks") as caught:
        build_timm(weights=str(tmp_path / "vit.pt"))
    assert "\n" not in str(caught.value)


def test_timms_model_trains_in_a_run_of_the_house():
    """Through the catalogue and the model, its embedding in front; nothing is held twice."""
    backbone = Catalogue.load().build(
        ComponentRef("backbone", "timm_vit", {"model": "test_vit"}), context(GRID, channels=3)
    )
    model = Model(backbone, GRID, 4, 3, "none")
    names = [name for name, _ in model.named_parameters()]
    assert "embedding.patch_embed.proj.weight" in names
    assert "embedding.pos_embed" in names
    assert "backbone.vit.blocks.0.attn.qkv.weight" in names
    assert not [name for name in names if name.startswith("backbone.vit.patch_embed")]
    model(torch.randn(2, 3, 12, 16), ROW).summary_BD.square().sum().backward()
    assert all(values.grad is not None for values in model.parameters())
    with pytest.raises(UsageError, match=r"gives images of \(8, 8\) pixels"):
        model(torch.randn(2, 3, 8, 8), ROW)
    with pytest.raises(UsageError, match="brings its own patch embedding and positions"):
        Model(backbone, GRID, 4, 3, "learned")


def test_timm_says_nothing_of_its_own_while_it_loads(caplog, tmp_path):
    with caplog.at_level(logging.WARNING):
        build_timm()
    assert not caplog.records
