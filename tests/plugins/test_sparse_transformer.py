"""The Sparse Transformer: contracts, patterns, random blocks, precision, compile and export, settings."""

from __future__ import annotations

import shutil
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reorder_sparse_transformer.backbone import SparseTransformerBackbone
from reorder_sparse_transformer.big_bird import looked_at, random_blocks
from reorder_sparse_transformer.factorised import Factorised
from reorder_sparse_transformer.mixer import SparseTransformerMixer
from reorder_sparse_transformer.reference import fixed_sets, strided_sets
from reorder_sparse_transformer.settings import SparseTransformerMixerSettings, SparseTransformerSettings
from safetensors.torch import save_file

from reorder_core import DataFacts, Grid, Layout, RunFacts, UsageError
from reorder_core.conformance import check_backbone, check_mixer, context

GRID = Grid(4, 5)
SMALL = {"width": 32, "depth": 3, "heads": 2, "mlp_ratio": 2}
CPU = torch.device("cpu")
FORMS = [
    {"pattern": "strided", "stride": 3},
    {"pattern": "strided", "stride": 3, "causal": True},
    {"pattern": "strided", "stride": 3, "factorised": "heads"},
    {"pattern": "fixed", "stride": 3},
    {"pattern": "fixed", "stride": 3, "summary": 2, "causal": True},
    {"pattern": "fixed", "stride": 3, "factorised": "heads", "causal": True},
    {"pattern": "bigbird", "block": 1, "global_blocks": 0, "random_blocks": 1},
    {"pattern": "bigbird", "block": 1, "global_blocks": 1, "random_blocks": 1},
]
ALTERNATING = [
    {"pattern": pattern, "stride": 3, "factorised": "alternating", "causal": causal}
    for pattern in ("strided", "fixed")
    for causal in (False, True)
]
ON_GRID = [
    {"pattern": "strided"},
    {"pattern": "fixed", "stride": 6, "summary": 2, "factorised": "alternating", "causal": True},
    {"pattern": "bigbird", "block": 3},
]


def build(seed=3, **written):
    where = context(GRID, width=32, seed=seed)
    return SparseTransformerBackbone(SparseTransformerSettings(**(SMALL | written)), where).eval()


def tokens(batch=2, seed=0):
    return torch.randn(batch, GRID.size, 32, generator=torch.Generator().manual_seed(seed))


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
    check_mixer("sparse_transformer", {"heads": 2} | written)


@pytest.mark.parametrize("written", FORMS + ALTERNATING, ids=str)
def test_holds_the_contract_of_backbones(written):
    check_backbone("sparse_transformer", SMALL | {"readout": "last" if written.get("causal") else "mean"} | written)


@pytest.mark.parametrize("place", ["start", "middle", "end"])
def test_holds_it_wherever_the_class_token_stands(place):
    check_backbone("sparse_transformer", SMALL | {"pattern": "fixed", "stride": 2, "class_position": place})
    if place != "start":
        causal = {"pattern": "fixed", "stride": 3, "factorised": "heads", "causal": True, "class_position": place}
        check_backbone("sparse_transformer", SMALL | causal)


def test_the_stride_is_the_grids_columns_unless_it_is_said():
    assert SparseTransformerSettings().stride_on(Grid(3, 7)) == 7
    assert SparseTransformerSettings(stride="auto").stride_on(Grid(3, 7)) == 7
    assert SparseTransformerSettings(stride=4).stride_on(Grid(3, 7)) == 4


def test_row_by_row_a_strided_slot_sees_its_row_and_its_column():
    """The two-dimensional picture of Child et al. 2019, figure 3 (b)."""
    grid = Grid(6, 6)
    mixer = SparseTransformerMixer(SparseTransformerMixerSettings(heads=1, causal=True), context(grid, width=8))
    tokens_BLD = torch.randn(1, 36, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()
    output = mixer(tokens_BLD, mixer.plan(Layout.fixed(grid, torch.arange(36))))
    seen = torch.autograd.grad(output[0, 27].sum(), tokens_BLD)[0][0].abs().sum(-1) > 0
    assert seen.nonzero().flatten().tolist() == [3, 9, 15, 21, 22, 23, 24, 25, 26, 27]


def test_alternating_layers_take_the_two_parts_in_turn():
    parts = [block.mixer.number % 2 for block in build(pattern="strided", factorised="alternating").blocks]
    assert parts == [0, 1, 0]
    plan = build(pattern="strided", factorised="alternating").plan(layout())
    assert [pattern.combine for pattern, _ in plan.layers] == ["first", "second"]


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.data(), st.integers(1, 14), st.booleans(), st.sampled_from(["merged", "heads", "first", "second"]))
def test_what_it_says_of_the_order_is_so_for_every_size(data, N, causal, combine):
    """Blind to the order is what sees all slots or itself alone, and nothing else."""
    pattern, stride = data.draw(st.sampled_from(["strided", "fixed"])), data.draw(st.integers(1, N))
    summary = data.draw(st.integers(1, stride))
    if pattern == "strided":
        both = [strided_sets(i, N, stride, causal) for i in range(N)]
    else:
        both = [fixed_sets(i, N, stride, summary, causal) for i in range(N)]
    first, second = [one for one, _ in both], [two for _, two in both]
    used = {
        "merged": [[one | two for one, two in both]],
        "first": [first],
        "second": [second],
        "heads": [first, second],
    }
    blind = all(
        all(len(seen) == N for seen in sets) or all(seen == {i} for i, seen in enumerate(sets))
        for sets in used[combine]
    )
    assert Factorised(pattern, stride, summary, causal, combine).sees_all(N) == (blind and not causal)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(st.integers(0, 2), st.integers(0, 4), st.integers(0, 8), st.integers(1, 4), st.integers(0, 2**40))
def test_random_blocks_are_different_ones_that_are_neither_global_nor_near(edges, random, more, heads, seed):
    n = 3 + edges + random + more
    drawn_HWr = random_blocks(n, heads, edges, random, seed, CPU)
    first, last = int(edges > 0), n - int(edges > 1)
    assert drawn_HWr.shape == (heads, last - first, random)
    for head in drawn_HWr.tolist():
        for own, blocks in enumerate(head, start=first):
            assert len({*blocks}) == random
            assert all(first <= block < last and abs(block - own) > 1 for block in blocks)
    block_HWm, counts_HWm = looked_at(n, heads, edges, random, seed, CPU)
    for blocks, counts in zip(block_HWm.flatten(0, 1).tolist(), counts_HWm.flatten(0, 1).tolist(), strict=True):
        counted = [block for block, count in zip(blocks, counts, strict=True) if count]
        assert len(counted) == len({*counted})


def test_random_blocks_are_drawn_evenly_and_differ_by_seed_head_and_layer():
    """All ten pairs of the five blocks that block 4 of ten may draw: chi-square, nine degrees of freedom."""
    draws = [tuple(sorted(random_blocks(10, 1, 2, 2, seed, CPU)[0, 3].tolist())) for seed in range(500)]
    draws += [tuple(sorted(head[3].tolist())) for head in random_blocks(10, 3000, 2, 2, 7, CPU)]
    legal = [block for block in range(1, 9) if abs(block - 4) > 1]
    counts = [draws.count(pair) for pair in combinations(legal, 2)]
    expected = len(draws) / len(counts)
    assert sum(counts) == len(draws)
    assert sum((count - expected) ** 2 / expected for count in counts) < 27.9  # one in a thousand is above
    plan = build(pattern="bigbird", block=1, seed=4).plan(layout())
    tables = [own.block_HWm for _, own in plan.layers]
    assert not torch.equal(tables[0], tables[1])
    assert not torch.equal(tables[0][0], tables[0][1])
    again = build(pattern="bigbird", block=1, seed=4).plan(layout())
    assert all(torch.equal(one, own.block_HWm) for one, (_, own) in zip(tables, again.layers, strict=True))


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
    model = Summary(build(depth=2, **written))
    program = torch.export.export(model, (tokens(),), strict=False)
    torch.testing.assert_close(program.module()(tokens(seed=1)), model(tokens(seed=1)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("written", ON_GRID, ids=str)
def test_is_traced_without_a_graph_break(written):
    torch.compiler.reset()
    model = build(depth=2 if "factorised" in written else 1, **written)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(tokens(), layout()).summary_BD, model(tokens(), layout()).summary_BD)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("c++"), reason="inductor needs a C++ compiler")
@pytest.mark.parametrize("written", ON_GRID, ids=str)
def test_compiles_with_inductor(written):
    torch.compiler.reset()
    model = build(depth=2, **written)
    compiled = torch.compile(model, fullgraph=True)
    ours, plain = (run(tokens(), layout()).summary_BD for run in (compiled, model))
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)
    gradients = [torch.autograd.grad(y.square().sum(), list(model.parameters())) for y in (ours, plain)]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)


def test_weights_of_timms_vision_transformer_load(tmp_path):
    from timm.models import VisionTransformer

    theirs = VisionTransformer(img_size=20, patch_size=4, in_chans=1, num_classes=3, embed_dim=32, depth=3, num_heads=2)
    file = tmp_path / "vit.safetensors"
    save_file(theirs.state_dict(), file)
    model = build(mlp_ratio=4, weights=str(file))
    assert torch.equal(model.blocks[1].mixer.qkv.weight, theirs.blocks[1].attn.qkv.weight)
    with pytest.raises(UsageError, match=r"blocks.0.mlp.fc1.weight is \[128, 32\] and should be \[64, 32\]"):
        build(weights=str(file))


FACTS = RunFacts(DataFacts(16, 20, 1), GRID, 4, 8, "learned")


@pytest.mark.parametrize(
    ("written", "key", "says"),
    [
        ({"heads": 3}, "heads", "a width of 32 is not divisible by 3 heads"),
        ({"heads": 1, "factorised": "heads"}, "heads", "1 heads cannot be halved between the two parts"),
        ({"stride": 21}, "stride", "a stride of 21 is larger than the sequence of 20 slots"),
        ({"pattern": "fixed", "stride": 4, "summary": 5}, "summary", "a block of 4 slots has no 5 to be seen by all"),
        ({"pattern": "bigbird", "block": 21}, "block", "a block of 21 is larger than the sequence of 20 slots"),
        ({"pattern": "bigbird"}, "block", "20 slots are 3 blocks of 8, and 3 around, 2 global and 2 random ones"),
        ({"summary": 2}, "summary", "the pattern 'strided' has no summary: leave it out"),
        ({"global_blocks": 0}, "global_blocks", "the pattern 'strided' has no global_blocks: leave it out"),
        ({"pattern": "bigbird", "block": 2, "causal": True}, "causal", "the pattern 'bigbird' has no causal"),
        ({"pattern": "bigbird", "block": 2, "stride": 2}, "stride", "the pattern 'bigbird' has no stride"),
    ],
)
def test_what_does_not_fit_is_a_problem_and_refused_when_built(written, key, says):
    chosen = SparseTransformerSettings(**(SMALL | written))
    (problem,) = chosen.problems(FACTS)
    assert problem.key == key
    with pytest.raises(UsageError, match=says):
        SparseTransformerBackbone(chosen, context(GRID))


def test_a_shorter_sequence_than_it_was_built_for_is_refused_when_it_comes():
    mixer = SparseTransformerMixer(SparseTransformerMixerSettings(heads=2, stride=8), context(GRID))
    with pytest.raises(UsageError, match="stride: a stride of 8 is larger than the sequence of 6 slots"):
        mixer.plan(Layout.fixed(Grid(2, 3), torch.arange(6)))


def test_settings_that_agree_are_no_problem():
    for written in ON_GRID:
        assert not list(SparseTransformerSettings(**(SMALL | written)).problems(FACTS))
