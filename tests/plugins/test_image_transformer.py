"""The Image Transformer: contracts, how blocks are cut, readout, precision, compile and export, settings."""

from __future__ import annotations

import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reorder_image_transformer.backbone import ImageTransformerBackbone
from reorder_image_transformer.blocks import Blocks
from reorder_image_transformer.mixer import ImageTransformerMixer
from reorder_image_transformer.reference import allowed_pairs
from reorder_image_transformer.settings import ImageTransformerMixerSettings, ImageTransformerSettings
from safetensors.torch import save_file

from reorder_core import DataFacts, Grid, Layout, RunFacts, UsageError
from reorder_core.conformance import check_backbone, check_mixer, context

GRID = Grid(4, 5)
SMALL = {"width": 16, "depth": 2, "heads": 2, "mlp_ratio": 2}
FORMS = [
    {"query": 2, "memory": 1},
    {"query": 3, "memory": 2, "causal": True},
    {"blocks": "grid", "query": (1, 2), "memory": (1, 1)},
    {"blocks": "grid", "query": (1, 2), "memory": (1, 0), "causal": True},
    {"blocks": "places", "query": (1, 2), "memory": (1, 1)},
    {"blocks": "places", "query": (1, 2), "memory": (1, 1), "causal": True},
]
ON_GRID = [
    {"query": 8, "memory": 5},
    {"blocks": "grid", "query": (3, 2), "memory": (1, 2), "causal": True},
    {"blocks": "places", "query": (2, 2), "memory": (1, 1), "causal": True},
]


def build(seed=3, **written):
    where = context(GRID, width=16, seed=seed)
    return ImageTransformerBackbone(ImageTransformerSettings(**(SMALL | written)), where).eval()


def tokens(batch=2, seed=0):
    return torch.randn(batch, GRID.size, 16, generator=torch.Generator().manual_seed(seed))


def layout(seed=0):
    return Layout.fixed(GRID, torch.randperm(GRID.size, generator=torch.Generator().manual_seed(seed)))


class Summary(torch.nn.Module):
    """Tokens to summary, the order baked in."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone, self.layout = backbone, layout()

    def forward(self, tokens_BND):
        return self.backbone(tokens_BND, self.layout).summary_BD


@pytest.mark.parametrize("written", FORMS, ids=str)
def test_holds_the_contract_of_mixers(written):
    check_mixer("image_transformer", {"heads": 2} | written)


@pytest.mark.parametrize("written", FORMS, ids=str)
def test_holds_the_contract_of_backbones(written):
    check_backbone("image_transformer", SMALL | written)


@pytest.mark.parametrize(
    "written",
    [
        {"readout": "mean"},
        {"readout": "last"},
        {"readout": "class", "class_position": "middle"},
        {"readout": "class", "class_position": "middle", "causal": True},
    ],
    ids=str,
)
def test_holds_it_wherever_it_is_read(written):
    check_backbone("image_transformer", SMALL | {"query": 2, "memory": 1} | written)


def test_the_last_patch_depends_on_the_order_even_where_rectangles_do_not():
    check_backbone("image_transformer", SMALL | FORMS[4] | {"readout": "last"})
    assert build(**FORMS[4], readout="last").order_sensitive
    assert not build(**FORMS[4]).order_sensitive


@settings(max_examples=80, deadline=None, derandomize=True, database=None)
@given(st.data(), st.integers(1, 6), st.integers(1, 6), st.booleans())
def test_blocks_are_cut_and_joined_without_loss(data, rows, columns, causal):
    """Queries come back where they were; a memory holds exactly the places that the paper's definition names."""
    query = (data.draw(st.integers(1, rows)), data.draw(st.integers(1, columns)))
    reach = (data.draw(st.integers(0, rows)), data.draw(st.integers(0, columns)))
    after = (0, reach[1]) if causal else reach
    blocks = Blocks((rows, columns), query, reach, after)
    N = rows * columns
    tokens_BHNE = torch.arange(1, 2 * 3 * N * 2 + 1).view(2, 3, N, 2)
    joined = blocks.join(blocks.queries(tokens_BHNE))
    assert torch.equal(joined, tokens_BHNE.transpose(1, 2).flatten(2))
    number = torch.arange(1, N + 1)[None, None, :, None]
    seen = torch.zeros(N + 1, N + 1, dtype=torch.bool)
    for own, memory in zip(blocks.queries(number).flatten(1), blocks.memories(number).flatten(1), strict=True):
        seen[own[:, None], memory] = True
    places = [divmod(place, columns) for place in range(N)]
    pairs = allowed_pairs(places, [0] * N, query, reach, causal)
    assert torch.equal(seen[1:, 1:], pairs)
    assert blocks.see_all == bool(pairs.all())


def test_defaults_are_blocks_of_32_slots_and_of_4_by_4_patches():
    line, square = ImageTransformerMixerSettings(), ImageTransformerMixerSettings(blocks="grid")
    assert (line.query_shape, line.memory_reach) == ((1, 32), (0, 32))
    assert (square.query_shape, square.memory_reach) == ((4, 4), (2, 2))
    assert Blocks.of(line, Grid(14, 14)).counts == (1, 7)
    assert Blocks.of(square, Grid(14, 14)).counts == (4, 4)


@pytest.mark.parametrize("written", ON_GRID, ids=str)
@torch.no_grad()
def test_bfloat16_stays_near_float32(written):
    model = build(**written)
    plain = model(tokens(), layout()).summary_BD
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = model(tokens(), layout()).summary_BD
    torch.testing.assert_close(cast.float(), plain, rtol=0.05, atol=0.05)
    whole = model.bfloat16()(tokens().bfloat16(), layout()).summary_BD
    torch.testing.assert_close(whole.float(), plain, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("written", ON_GRID, ids=str)
@torch.no_grad()
def test_exports_with_the_order_baked_in(written):
    model = Summary(build(**written))
    program = torch.export.export(model, (tokens(),), strict=False)
    torch.testing.assert_close(program.module()(tokens(seed=1)), model(tokens(seed=1)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("written", ON_GRID, ids=str)
def test_is_traced_without_a_graph_break(written):
    torch.compiler.reset()
    model = build(depth=1, **written)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(tokens(), layout()).summary_BD, model(tokens(), layout()).summary_BD)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("c++"), reason="inductor needs a C++ compiler")
@pytest.mark.parametrize("written", ON_GRID, ids=str)
def test_compiles_with_inductor(written):
    torch.compiler.reset()
    model = build(**written)
    compiled = torch.compile(model, fullgraph=True)
    ours, plain = (run(tokens(), layout()).summary_BD for run in (compiled, model))
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)
    gradients = [torch.autograd.grad(y.square().sum(), list(model.parameters())) for y in (ours, plain)]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)


def test_weights_of_timms_vision_transformer_load(tmp_path):
    from timm.models import VisionTransformer

    theirs = VisionTransformer(img_size=20, patch_size=4, in_chans=1, num_classes=3, embed_dim=16, depth=2, num_heads=2)
    file = tmp_path / "vit.safetensors"
    save_file(theirs.state_dict(), file)
    model = build(mlp_ratio=4, weights=str(file), query=5, memory=5)
    assert torch.equal(model.blocks[1].mixer.qkv.weight, theirs.blocks[1].attn.qkv.weight)
    with pytest.raises(UsageError, match=r"blocks.0.mlp.fc1.weight is \[64, 16\] and should be \[32, 16\]"):
        build(weights=str(file), query=5, memory=5)


def test_where_the_block_is_the_whole_sequence_it_is_timms_vision_transformer(tmp_path):
    from timm.models import VisionTransformer

    theirs = VisionTransformer(
        img_size=(16, 20), patch_size=4, in_chans=1, num_classes=0, embed_dim=16, depth=2, num_heads=2
    ).eval()
    file = tmp_path / "vit.safetensors"
    save_file(theirs.state_dict(), file)
    model = build(mlp_ratio=4, weights=str(file), query=20, memory=0)
    images = torch.randn(2, 1, 16, 20, generator=torch.Generator().manual_seed(5))
    patches_BND = theirs.patch_embed(images) + theirs.pos_embed[:, 1:]
    with torch.no_grad():
        model.cls_token += theirs.pos_embed[:, :1]
        ours = model(patches_BND, Layout.fixed(GRID, torch.arange(20))).summary_BD
        torch.testing.assert_close(ours, theirs.forward_features(images)[:, 0], rtol=1e-4, atol=1e-5)


FACTS = RunFacts(DataFacts(16, 20, 1), GRID, 4, 8, "learned")


@pytest.mark.parametrize(
    ("written", "key", "says"),
    [
        ({"heads": 3}, "heads", "a width of 16 is not divisible by 3 heads"),
        ({"query": 21}, "query", "a query block of 21 slots is larger than the 20 slots there are"),
        ({"query": 4, "memory": 21}, "memory", "a reach of 21 slots is larger than the 20 slots there are"),
        ({"query": (2, 2)}, "query", r"blocks 'sequence' want a number of slots here, not \[2, 2\]"),
        ({"blocks": "grid", "query": 2}, "query", r"blocks 'grid' want \[rows, columns\] here, not 2"),
        ({"blocks": "grid", "query": (5, 2)}, "query", "5 x 2 patches is larger than the 4 x 5 patches there are"),
        ({"blocks": "places", "memory": (2, 6)}, "memory", "a reach of 2 x 6 patches is larger than"),
    ],
)
def test_what_does_not_fit_is_a_problem_and_refused_when_built(written, key, says):
    usual = {} if "blocks" in written else {"query": 4, "memory": 2}
    chosen = ImageTransformerSettings(**(SMALL | usual | written))
    (problem,) = chosen.problems(FACTS)
    assert problem.key == key
    with pytest.raises(UsageError, match=says):
        ImageTransformerBackbone(chosen, context(GRID))


def test_rectangles_of_a_video_are_refused():
    chosen = ImageTransformerMixerSettings(blocks="grid", heads=2)
    with pytest.raises(UsageError, match="rectangles lie in one picture, not in 3 frames"):
        ImageTransformerMixer(chosen, context(Grid(4, 5, 3)))


def test_a_shorter_sequence_than_it_was_built_for_is_refused_when_it_comes():
    mixer = ImageTransformerMixer(ImageTransformerMixerSettings(heads=2, query=8, memory=4), context(GRID))
    with pytest.raises(UsageError, match="query: a query block of 8 slots is larger than the 6 slots there are"):
        mixer.plan(Layout.fixed(Grid(2, 3), torch.arange(6)))


def test_settings_that_agree_are_no_problem():
    for written in ON_GRID:
        assert not list(ImageTransformerSettings(**(SMALL | written)).problems(FACTS))
